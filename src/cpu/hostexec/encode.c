/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <string.h>

#include "cpu/hostexec/form.h"

/*
 * Rewriting a guest instruction, of any mode, as one for the host's 64-bit mode that does the same
 * to the same registers and has its memory operand at [base]. What came out is decoded again and
 * compared with what was meant; where operand-size and W bits mean something else in 64-bit mode,
 * the other value is tried.
 */
static ZydisDecoder decoder;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_decoder(void)
{
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_KNC, 0);
}

int form_gpr(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return ZydisRegisterGetId(
			ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
	default:
		return -1;
	}
}

uint32_t form_gprs(const struct decoded *d)
{
	uint32_t mask = 0;

	for (unsigned k = 0; k < d->z.operand_count; k++) {
		if (d->op[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		int n = form_gpr(d->op[k].reg.value);
		if (n >= 0)
			mask |= UINT32_C(1) << n;
	}
	return mask;
}

static bool has_memory(const struct decoded *d)
{
	for (unsigned k = 0; k < d->z.operand_count_visible; k++)
		if (d->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return true;
	return false;
}

/* Picks the registers for RSP and for the memory operand: low ones, so that no REX bit is needed,
 * and not RBP, which has no encoding without displacement. */
static bool pick(uint32_t used, bool memory, struct form *f)
{
	static const uint8_t order[] = {RSI, RDI, RAX, RCX, RDX, RBX};

	f->base = f->rsp_as = REG_NONE;
	if (used & 1u << RSP) {
		for (unsigned k = 0; k < sizeof(order) && f->rsp_as == REG_NONE; k++)
			if (!(used & 1u << order[k]))
				f->rsp_as = order[k];
		if (f->rsp_as == REG_NONE)
			return false;
		used |= 1u << f->rsp_as;
	}
	for (unsigned k = 0; memory && k < sizeof(order) && f->base == REG_NONE; k++)
		if (!(used & 1u << order[k]))
			f->base = order[k];
	return !memory || f->base != REG_NONE;
}

/* The pieces of the new encoding. */
struct pieces {
	bool opsize; /* 66 */
	uint8_t rep; /* F2, F3 or 0 */
	bool has_rex;
	uint8_t rex;
	uint8_t vex[3]; /* C4 or C5 form; vex[0] is 0 without */
	uint8_t opcode[3], opcodes;
	bool has_modrm;
	uint8_t modrm;
	uint8_t imm[8], imms;
};

static bool is_prefix(uint8_t b, bool mode64)
{
	switch (b) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	default:
		return mode64 && (b & 0xf0) == 0x40;
	}
}

static void take_apart(const struct decoded *d, const struct insn *i, struct pieces *p)
{
	bool mode64 = d->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
	unsigned at = 0;

	*p = (struct pieces){0};
	for (; at < i->length && is_prefix(i->bytes[at], mode64); at++) {
		uint8_t b = i->bytes[at];
		p->has_rex = false; /* only the last prefix counts as REX */
		if (b == 0x66) {
			p->opsize = true;
		} else if (b >= 0xf2) {
			p->rep = b;
		} else if (mode64 && (b & 0xf0) == 0x40) {
			p->has_rex = true;
			p->rex = b & 0xf;
		}
	}
	if (!p->has_rex)
		p->rex = 0;
	if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		unsigned n = i->bytes[at] == 0xc4 ? 3 : 2;
		memcpy(p->vex, i->bytes + at, n);
		at += n;
		if (!mode64) { /* bits that only 64-bit mode looks at */
			if (n == 3)
				p->vex[1] |= 0xe0;
			p->vex[n - 1] |= 0x40;
		}
	}
	p->has_modrm = d->z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
	unsigned end = p->has_modrm	      ? d->z.raw.modrm.offset
		       : d->z.raw.imm[0].size ? d->z.raw.imm[0].offset
					      : i->length;
	while (at < end && p->opcodes < 3)
		p->opcode[p->opcodes++] = i->bytes[at++];
	if (p->has_modrm)
		p->modrm = i->bytes[d->z.raw.modrm.offset];
	for (unsigned k = 0; k < 2; k++) {
		if (!d->z.raw.imm[k].size)
			continue;
		unsigned bytes = d->z.raw.imm[k].size / 8;
		memcpy(p->imm + p->imms, i->bytes + d->z.raw.imm[k].offset, bytes);
		p->imms += bytes;
	}
	/* Lengths in RAX and RDX are for 64-bit mode, too. */
	if (p->vex[0] == 0xc4 && !mode64 &&
	    (d->z.mnemonic == ZYDIS_MNEMONIC_VPCMPESTRI ||
	     d->z.mnemonic == ZYDIS_MNEMONIC_VPCMPESTRM))
		p->vex[2] &= 0x7f;
	/* A fourth register operand in an immediate: its top bit counts in 64-bit mode only. */
	for (unsigned k = 0; k < d->z.operand_count_visible && !mode64; k++)
		if (d->op[k].encoding == ZYDIS_OPERAND_ENCODING_IS4)
			p->imm[0] &= 0x7f;
}

static unsigned put_together(const struct pieces *p, uint8_t *out)
{
	unsigned n = 0;

	if (p->vex[0]) {
		unsigned bytes = p->vex[0] == 0xc4 ? 3 : 2;
		memcpy(out, p->vex, bytes);
		n = bytes;
	} else {
		if (p->opsize)
			out[n++] = 0x66;
		if (p->rep)
			out[n++] = p->rep;
		if (p->has_rex)
			out[n++] = 0x40 | p->rex;
	}
	memcpy(out + n, p->opcode, p->opcodes);
	n += p->opcodes;
	if (p->has_modrm)
		out[n++] = p->modrm;
	memcpy(out + n, p->imm, p->imms);
	return n + p->imms;
}

/* Points the memory operand at [base] and gives RSP its other name. */
static void change_registers(const struct decoded *d, const struct form *f, struct pieces *p)
{
	for (unsigned k = 0; k < d->z.operand_count_visible; k++) {
		const ZydisDecodedOperand *op = &d->op[k];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			p->modrm = (p->modrm & 0x38) | f->base;
			p->rex &= 0xc;
			if (p->vex[0] == 0xc4)
				p->vex[1] |= 0x60;
			continue;
		}
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || form_gpr(op->reg.value) != RSP)
			continue;
		if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) {
			p->modrm = (p->modrm & 0xc7) | f->rsp_as << 3;
		} else if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
			p->modrm = (p->modrm & 0xf8) | f->rsp_as;
		} else if (op->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD) {
			uint8_t *v = &p->vex[p->vex[0] == 0xc4 ? 2 : 1];
			*v = (*v & 0x87) | (~f->rsp_as & 0xf) << 3;
		}
	}
}

/* Whether the new encoding does what was meant. */
static bool same(const struct decoded *d, const struct form *f, const uint8_t *bytes, unsigned n)
{
	struct decoded h;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, n, &h.z, h.op)) ||
	    h.z.length != n || h.z.mnemonic != d->z.mnemonic ||
	    h.z.operand_count_visible != d->z.operand_count_visible)
		return false;
	for (unsigned k = 0; k < h.z.operand_count_visible; k++) {
		const ZydisDecodedOperand *a = &d->op[k], *b = &h.op[k];

		if (a->type != b->type)
			return false;
		if (a->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
			continue;
		/* The environment's size goes by the operand size; x87.c makes the guest's. */
		if (a->size != b->size && a->size <= 80)
			return false;
		if (a->type == ZYDIS_OPERAND_TYPE_REGISTER && a->reg.value != b->reg.value &&
		    form_gpr(a->reg.value) != RSP)
			return false;
		if (a->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    ((unsigned)b->mem.base != (unsigned)ZYDIS_REGISTER_RAX + f->base ||
		     b->mem.index != ZYDIS_REGISTER_NONE || b->mem.disp.value))
			return false;
	}
	return true;
}

static bool is_environment(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_FNSTENV || m == ZYDIS_MNEMONIC_FNSAVE ||
	       m == ZYDIS_MNEMONIC_FLDENV || m == ZYDIS_MNEMONIC_FRSTOR;
}

bool form_encode(const struct decoded *d, const struct insn *i, struct form *f)
{
	struct pieces p;

	pthread_once(&once, init_decoder);
	if (d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	    d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	if (!pick(form_gprs(d), has_memory(d), f))
		return false;
	take_apart(d, i, &p);
	if (p.has_modrm)
		f->guest_fop = (p.opcode[0] & 7) << 8 | p.modrm;
	change_registers(d, f, &p);
	f->host_fop = (p.opcode[0] & 7) << 8 | p.modrm;
	if (is_environment(d->z.mnemonic))
		p.opsize = false;

	f->length = put_together(&p, f->bytes);
	if (same(d, f, f->bytes, f->length))
		return true;
	if (p.vex[0] == 0xc4)
		p.vex[2] &= 0x7f; /* W is ignored outside 64-bit mode by some */
	else
		p.opsize = !p.opsize; /* 16-bit mode */
	f->length = put_together(&p, f->bytes);
	return same(d, f, f->bytes, f->length);
}
