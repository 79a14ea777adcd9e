/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/hostexec/form.h"

/* Emission of stubs; see form.h. Encodings: SDM Vol. 2. */
struct emit {
	uint8_t *out;
	unsigned n;
	uint8_t cpu, frame; /* registers that hold the two arguments */
};

static void byte(struct emit *e, uint8_t b)
{
	e->out[e->n++] = b;
}

/* A legacy instruction with operands reg and [base + disp32]; base is not RSP or R12. */
static void mem_op(struct emit *e, bool w, const char *opcode, unsigned opcodes, unsigned reg,
		   unsigned base, int32_t disp)
{
	uint8_t rex = 0x40 | w << 3 | (reg >> 3) << 2 | base >> 3;

	if (rex != 0x40)
		byte(e, rex);
	memcpy(e->out + e->n, opcode, opcodes);
	e->n += opcodes;
	byte(e, 0x80 | (reg & 7) << 3 | (base & 7));
	memcpy(e->out + e->n, &disp, 4);
	e->n += 4;
}

/* A VEX instruction of that kind without a vvvv operand. */
static void vex_op(struct emit *e, unsigned map, unsigned pp, bool l, uint8_t vvvv, uint8_t opcode,
		   unsigned reg, unsigned base, int32_t disp)
{
	byte(e, 0xc4);
	byte(e, (~reg >> 3 & 1) << 7 | 0x40 | (~base >> 3 & 1) << 5 | map);
	byte(e, (~vvvv & 0xf) << 3 | l << 2 | pp);
	byte(e, opcode);
	byte(e, 0x80 | (reg & 7) << 3 | (base & 7));
	memcpy(e->out + e->n, &disp, 4);
	e->n += 4;
}

#define STATE(field) ((int32_t)(offsetof(struct soft_cpu, s) + offsetof(struct cpu_state, field)))
#define FRAME(field) ((int32_t)offsetof(struct frame, field))

static int32_t xmm_at(unsigned n)
{
	return STATE(xsave) + XSAVE_XMM0 + 16 * (int)n;
}

static int32_t ymmh_at(unsigned n)
{
	return STATE(xsave) + XSAVE_YMMH0 + 16 * (int)n;
}

static void push(struct emit *e, unsigned r)
{
	if (r >= 8)
		byte(e, 0x41);
	byte(e, 0x50 | (r & 7));
}

static void pop(struct emit *e, unsigned r)
{
	if (r >= 8)
		byte(e, 0x41);
	byte(e, 0x58 | (r & 7));
}

/* Registers of the instruction. */
struct regs {
	uint32_t gprs, gprs_written; /* guest numbers */
	uint32_t xmm, ymm, vectors_written;
};

static void take_regs(const struct decoded *d, struct regs *r)
{
	*r = (struct regs){0};
	for (unsigned k = 0; k < d->z.operand_count; k++) {
		const ZydisDecodedOperand *op = &d->op[k];
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		bool written = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		int n = form_gpr(op->reg.value);
		if (n >= 0) {
			r->gprs |= 1u << n;
			r->gprs_written |= (uint32_t)written << n;
			continue;
		}
		ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);
		if (class != ZYDIS_REGCLASS_XMM && class != ZYDIS_REGCLASS_YMM)
			continue;
		n = ZydisRegisterGetId(op->reg.value);
		*(class == ZYDIS_REGCLASS_XMM ? &r->xmm : &r->ymm) |= 1u << n;
		r->vectors_written |= (uint32_t)written << n;
	}
	r->xmm &= ~r->ymm;
}

static void load_vectors(struct emit *e, const struct regs *r, bool vex)
{
	for (unsigned n = 0; n < 16; n++) {
		if (!((r->xmm | r->ymm) & 1u << n))
			continue;
		if (!vex) {
			mem_op(e, false, "\x0f\x10", 2, n, e->cpu, xmm_at(n)); /* MOVUPS */
			continue;
		}
		vex_op(e, 1, 0, false, 0, 0x10, n, e->cpu, xmm_at(n)); /* VMOVUPS */
		if (r->ymm & 1u << n) {				       /* VINSERTF128 n, n, m, 1 */
			vex_op(e, 3, 1, true, n, 0x18, n, e->cpu, ymmh_at(n));
			byte(e, 1);
		}
	}
}

static void store_vectors(struct emit *e, const struct regs *r, bool vex)
{
	for (unsigned n = 0; n < 16; n++) {
		if (!(r->vectors_written & 1u << n))
			continue;
		if (!vex) {
			mem_op(e, false, "\x0f\x11", 2, n, e->cpu, xmm_at(n));
			continue;
		}
		vex_op(e, 1, 0, false, 0, 0x11, n, e->cpu, xmm_at(n));
		vex_op(e, 3, 1, true, 0, 0x19, n, e->cpu, ymmh_at(n)); /* VEXTRACTF128 m, n, 1 */
		byte(e, 1);
	}
	if (vex && (r->xmm | r->ymm)) { /* VZEROUPPER */
		byte(e, 0xc5);
		byte(e, 0xf8);
		byte(e, 0x77);
	}
}

/* MXCSR and the x87 state as the frame has them, and back. */
static void enter_fp(struct emit *e, unsigned flags)
{
	if (flags & (FORM_SIMD_FP | FORM_FX))
		mem_op(e, false, "\x0f\xae", 2, 3, e->frame, FRAME(host_mxcsr)); /* STMXCSR */
	if (flags & FORM_SIMD_FP)
		mem_op(e, false, "\x0f\xae", 2, 2, e->frame, FRAME(mxcsr)); /* LDMXCSR */
	if (flags & FORM_FX)
		mem_op(e, true, "\x0f\xae", 2, 1, e->frame, FRAME(fx)); /* FXRSTOR64 */
}

/*
 * What the host's calling convention expects: an empty stack and the usual control word. EMMS and
 * FLDCW take a fraction of FNINIT's time, but would report a pending exception.
 */
static void empty_x87(struct emit *e)
{
	mem_op(e, false, "\xf6", 1, 0, e->frame, FRAME(fx) + XSAVE_FSW); /* TEST m8, ES */
	byte(e, FSW_ES);
	byte(e, 0x74); /* JZ */
	byte(e, 4);
	byte(e, 0xdb); /* FNINIT */
	byte(e, 0xe3);
	byte(e, 0xeb); /* JMP */
	unsigned jump = e->n;
	byte(e, 0);
	byte(e, 0x0f); /* EMMS */
	byte(e, 0x77);
	mem_op(e, false, "\xd9", 1, 5, e->frame, FRAME(host_fcw)); /* FLDCW */
	e->out[jump] = (uint8_t)(e->n - jump - 1);
}

static void leave_fp(struct emit *e, unsigned flags)
{
	if (flags & FORM_FX) {
		mem_op(e, true, "\x0f\xae", 2, 0, e->frame, FRAME(fx)); /* FXSAVE64 */
		empty_x87(e);
	}
	if (flags & FORM_SIMD_FP)
		mem_op(e, false, "\x0f\xae", 2, 3, e->frame, FRAME(mxcsr));
	if (flags & (FORM_SIMD_FP | FORM_FX))
		mem_op(e, false, "\x0f\xae", 2, 2, e->frame, FRAME(host_mxcsr));
}

static void move_gprs(struct emit *e, const struct form *f, uint32_t mask, const char *opcode)
{
	for (unsigned n = 0; n < GPR_NR; n++)
		if (mask & 1u << n)
			mem_op(e, true, opcode, 1, n == RSP ? f->rsp_as : n, e->cpu,
			       STATE(gpr) + 8 * (int)n);
}

/* Chooses where the two pointers live; host is the mask of registers the instruction uses. */
static void pick_pointers(struct emit *e, const struct form *f, uint32_t host)
{
	static const uint8_t order[] = {RDI, R8, R9, R10, R11, RAX, RCX, RDX, RSI};
	unsigned k = 0;

	e->frame = f->base;
	if (e->frame == REG_NONE)
		e->frame = host & 1u << RSI ? REG_NONE : RSI;
	for (; e->frame == REG_NONE; k++)
		if (!(host & 1u << order[k]))
			e->frame = order[k];
	host |= 1u << e->frame;
	for (k = 0; host & 1u << order[k];)
		k++;
	e->cpu = order[k];
}

unsigned stub_emit(uint8_t *out, const struct decoded *d, const struct form *f, unsigned *at)
{
	static const uint8_t saved[] = {RBX, RBP, R12, R13, R14, R15};
	struct emit e = {.out = out};
	bool vex = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	struct regs r;

	take_regs(d, &r);
	if (f->flags & FORM_FX)
		r.xmm = r.ymm = r.vectors_written = 0;
	uint32_t host = r.gprs & ~(1u << RSP);
	if (r.gprs & 1u << RSP)
		host |= 1u << f->rsp_as;
	pick_pointers(&e, f, host);
	host |= 1u << e.cpu | 1u << e.frame;

	for (unsigned k = 0; k < sizeof(saved); k++)
		if (host & 1u << saved[k])
			push(&e, saved[k]);
	if (e.cpu != RDI || e.frame != RSI) {
		push(&e, RDI);
		push(&e, RSI);
		pop(&e, e.frame);
		pop(&e, e.cpu);
	}
	load_vectors(&e, &r, vex);
	enter_fp(&e, f->flags);
	if (f->flags & FORM_FLAGS) {
		mem_op(&e, false, "\xff", 1, 6, e.frame, FRAME(flags)); /* PUSH */
		byte(&e, 0x9d);						/* POPFQ */
	}
	move_gprs(&e, f, r.gprs, "\x8b");
	*at = e.n;
	memcpy(out + e.n, f->bytes, f->length);
	e.n += f->length;
	move_gprs(&e, f, r.gprs_written, "\x89");
	if (f->flags & FORM_FLAGS) {
		byte(&e, 0x9c);						/* PUSHFQ */
		mem_op(&e, false, "\x8f", 1, 0, e.frame, FRAME(flags)); /* POP */
	}
	leave_fp(&e, f->flags);
	store_vectors(&e, &r, vex);
	for (unsigned k = sizeof(saved); k--;)
		if (host & 1u << saved[k])
			pop(&e, saved[k]);
	byte(&e, 0xc3);
	return e.n;
}
