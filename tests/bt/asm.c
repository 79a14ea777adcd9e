/* SPDX-License-Identifier: Apache-2.0 */
#include "bt.h"

#include <string.h>

/*
 * Random instructions in the framework of a program: some registers are reserved (pointers into data,
 * a small index, a counter), everything else may change anything. Most memory operands are built on
 * the reserved registers, so that where they go is known when the program is made.
 */

struct node *add_node(struct gen *g)
{
	struct program *p = g->p;
	struct node *n = &p->node[p->count < NODES_MAX ? p->count++ : NODES_MAX - 1];

	memset(n, 0, sizeof(*n));
	return n;
}

struct node *add_bytes(struct gen *g, const void *bytes, unsigned count)
{
	struct node *n = add_node(g);

	memcpy(n->bytes, bytes, count);
	n->length = (uint8_t)count;
	return n;
}

static void put(struct node *n, uint8_t v)
{
	n->bytes[n->length++] = v;
}

static void put32(struct node *n, uint32_t v)
{
	memcpy(n->bytes + n->length, &v, 4);
	n->length += 4;
}

static void put_rex(struct gen *g, struct node *n, bool w, unsigned reg, unsigned rm)
{
	uint8_t rex = (uint8_t)(0x40 | w << 3 | (reg >> 3) << 2 | rm >> 3);

	if (!g->p->mode32 && rex != 0x40)
		put(n, rex);
}

void add_mov_ri(struct gen *g, unsigned reg, uint64_t v)
{
	struct node *n = add_node(g);
	bool w = v > UINT32_MAX && !g->p->mode32;

	put_rex(g, n, w, 0, reg);
	put(n, (uint8_t)(0xb8 | (reg & 7)));
	memcpy(n->bytes + n->length, &v, w ? 8 : 4);
	n->length += w ? 8 : 4;
}

struct node *add_reg_reg(struct gen *g, uint8_t opcode, unsigned reg, unsigned rm, bool wide)
{
	struct node *n = add_node(g);

	put_rex(g, n, wide, reg, rm);
	put(n, opcode);
	put(n, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
	return n;
}

struct node *add_absolute(struct gen *g, uint8_t opcode, unsigned reg, uint32_t address, bool wide)
{
	struct node *n = add_node(g);

	put_rex(g, n, wide, reg, 0);
	put(n, opcode);
	if (g->p->mode32) {
		put(n, (uint8_t)(0x05 | (reg & 7) << 3));
		put32(n, address);
	} else if (rng_percent(&g->r, 50)) {
		put(n, (uint8_t)(0x04 | (reg & 7) << 3));
		put(n, 0x25);
		put32(n, address);
	} else {
		put(n, (uint8_t)(0x05 | (reg & 7) << 3));
		n->fix = FIX_DATA;
		n->fix_at = n->length;
		n->target = address;
		put32(n, 0);
	}
	return n;
}

unsigned some_free_reg(struct gen *g)
{
	for (;;) {
		unsigned n = rng_percent(&g->r, 40) ? g->hot[rng_next(&g->r) & 1]
						    : (unsigned)rng_below(&g->r, regs_of(g));
		if (!(g->reserved >> n & 1))
			return n;
	}
}

unsigned some_low_reg(struct gen *g)
{
	unsigned n;

	do
		n = (unsigned)rng_below(&g->r, 8);
	while (g->reserved >> n & 1);
	return n;
}

static unsigned some_reg(struct gen *g)
{
	return rng_percent(&g->r, 40) ? g->hot[rng_next(&g->r) & 1]
				      : (unsigned)rng_below(&g->r, regs_of(g));
}

/* ---- addresses ---- */

uint32_t some_address(struct gen *g, unsigned bytes)
{
	struct rng *r = &g->r;
	uint32_t cross = bytes > 1 ? 1 + (uint32_t)rng_below(r, bytes - 1) : 0;

	if (rng_percent(r, g->fault_percent)) {
		switch (rng_below(r, 5)) {
		case 0: /* read-only */
			return DATA_BASE + DATA_RW_PAGES * PAGE + 64 * (uint32_t)rng_below(r, 60);
		case 1: /* over the end of what is writable */
			return DATA_BASE + DATA_RW_PAGES * PAGE - cross;
		case 2: /* over the end of what is there */
			return DATA_BASE + DATA_BYTES - cross;
		case 3: /* from before the beginning */
			return DATA_BASE - cross;
		default: /* nowhere */
			return 0x60000000 + (uint32_t)rng_below(r, PAGE);
		}
	}
	switch (rng_below(r, 16)) {
	case 0: /* lazy */
	case 1:
		return LAZY_BASE + 64 + (uint32_t)rng_below(r, LAZY_BYTES - 256);
	case 2: /* over a page's end, inside of what is writable */
		return DATA_BASE + PAGE * (1 + (uint32_t)rng_below(r, 3)) - cross;
	case 3:
		return LAZY_BASE + PAGE - cross;
	case 4:
	case 5:
	case 6: /* unaligned */
		return DATA_BASE + 64 + (uint32_t)rng_below(r, DATA_RW_PAGES * PAGE - 256);
	default:
		return DATA_BASE + 64 * (1 + (uint32_t)rng_below(r, DATA_RW_PAGES * 64 - 4));
	}
}

/* ModR/M's other half: a memory operand at address. base_rex and index_rex get the high bits. */
static void put_address(struct gen *g, struct node *n, unsigned reg, uint32_t address, unsigned *x,
			unsigned *b, int64_t segment)
{
	struct rng *r = &g->r;
	unsigned kind = (unsigned)rng_below(r, 10);
	uint8_t field = (uint8_t)((reg & 7) << 3);
	uint32_t at = (uint32_t)(address - segment);
	unsigned base = g->pointer[rng_below(r, g->pointers)];
	uint32_t from_base = at - (uint32_t)g->p->gpr[base];

	*x = *b = 0;
	if (kind == 0) { /* no register */
		if (g->p->mode32) {
			put(n, field | 5);
		} else {
			put(n, field | 4);
			put(n, 0x25);
		}
		put32(n, at);
	} else if (kind == 1 && !g->p->mode32 && !segment) { /* RIP */
		put(n, field | 5);
		n->fix = FIX_DATA;
		n->fix_at = n->length;
		n->target = address;
		put32(n, 0);
	} else if (kind <= 3) { /* base, index, displacement */
		unsigned scale = (unsigned)rng_below(r, 4);
		*b = base >> 3;
		*x = g->index >> 3;
		put(n, field | 0x84);
		put(n, (uint8_t)(scale << 6 | (g->index & 7) << 3 | (base & 7)));
		put32(n, from_base - ((uint32_t)g->p->gpr[g->index] << scale));
	} else if (kind == 4) { /* index, displacement */
		unsigned scale = (unsigned)rng_below(r, 4);
		*x = g->index >> 3;
		put(n, field | 4);
		put(n, (uint8_t)(scale << 6 | (g->index & 7) << 3 | 5));
		put32(n, at - ((uint32_t)g->p->gpr[g->index] << scale));
	} else {
		int32_t disp = (int32_t)from_base;
		bool small = disp == (int8_t)disp;
		*b = base >> 3;
		put(n, (uint8_t)(field | (small ? 0x40 : 0x80) | (base & 7)));
		if ((base & 7) == 4)
			put(n, 0x24);
		if (small)
			put(n, (uint8_t)disp);
		else
			put32(n, (uint32_t)disp);
	}
}

/* ---- forms ---- */

static unsigned operand_bytes(const struct iform *f)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint8_t b[24] = {0};
	unsigned n = 0;

	if (f->encoding == ENC_VEX) {
		b[n++] = 0xc4;
		b[n++] = 0xe0 | f->map;
		b[n++] = (uint8_t)(f->w << 7 | (f->vvvv_free ? 0x60 : 0x78) | f->l << 2 | f->pp);
	} else {
		if (f->opsize)
			b[n++] = 0x66;
		if (f->rep)
			b[n++] = f->rep;
		if (f->w)
			b[n++] = 0x48;
		if (f->map)
			b[n++] = 0x0f;
		if (f->map >= 2)
			b[n++] = f->map == 2 ? 0x38 : 0x3a;
	}
	b[n++] = f->opcode;
	b[n++] = (uint8_t)(f->reg << 3 | 1);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(forms_decoder(f->mode32), b, 15, &z, op)))
		return 8;
	for (unsigned k = 0; k < z.operand_count; k++)
		if (op[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return op[k].size / 8;
	return 8;
}

/* Are these the operands of an instruction for a program: nothing reserved is written, and memory is
 * reached by what put_address wrote only? */
static bool acceptable(const struct gen *g, const ZydisDecodedInstruction *z,
		       const ZydisDecodedOperand *op)
{
	for (unsigned k = 0; k < z->operand_count; k++) {
		if (op[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (op[k].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
		     op[k].mem.type == ZYDIS_MEMOP_TYPE_VSIB))
			return false;
		if (op[k].type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
								      op[k].reg.value);
		if (ZydisRegisterGetClass(wide) == ZYDIS_REGCLASS_GPR64 &&
		    (g->reserved >> ZydisRegisterGetId(wide) & 1))
			return false;
	}
	return true;
}

static void put_immediates(struct gen *g, struct node *n, const ZydisDecodedInstruction *z)
{
	for (unsigned k = 0; k < 2; k++) {
		unsigned size = z->raw.imm[k].size / 8;
		uint64_t v = some_int(&g->r);
		if (!size)
			continue;
		if (size == 1 && rng_percent(&g->r, 50))
			v = rng_next(&g->r);
		memcpy(n->bytes + z->raw.imm[k].offset, &v, size);
	}
	n->length = z->length;
}

static bool encode(struct gen *g, const struct iform *f, struct node *n)
{
	struct rng *r = &g->r;
	bool long_mode = !g->p->mode32;
	unsigned reg = f->reg_free ? some_reg(g) : f->reg;
	unsigned rm = f->rm_free ? some_reg(g) : f->rm, x = 0, b = f->rm_free ? rm >> 3 : 0;
	unsigned vvvv = f->vvvv_free ? (unsigned)rng_below(r, regs_of(g)) : 0;
	int64_t segment = 0;
	uint8_t tail[24];
	struct node part = {0};
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	if (f->has_modrm && f->memory) {
		if (rng_percent(r, 8)) {
			bool gs = rng_next(r) & 1;
			put(n, gs ? 0x65 : 0x64);
			segment = gs ? GS_BASE : FS_BASE;
		} else if (rng_percent(r, 3)) {
			put(n, 0x3e);
		}
		if (long_mode && rng_percent(r, 3))
			put(n, 0x67);
		if (f->lockable && rng_percent(r, 15))
			put(n, 0xf0);
		put_address(g, &part, reg, some_address(g, operand_bytes(f)), &x, &b, segment);
	} else if (f->has_modrm) {
		put(&part, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
	} else {
		b = long_mode ? (unsigned)rng_below(r, 2) : 0;
	}
	if (f->encoding == ENC_VEX) {
		uint8_t rxb = (uint8_t)((f->reg_free && reg >= 8 ? 0 : 0x80) | (x ? 0 : 0x40) |
					(b ? 0 : 0x20));
		bool two = f->map == 1 && !f->w && (rxb & 0x60) == 0x60 && rng_percent(r, 50);
		uint8_t last = (uint8_t)((~vvvv & 15) << 3 | f->l << 2 | f->pp);
		put(n, two ? 0xc5 : 0xc4);
		if (two) {
			put(n, (rxb & 0x80) | last);
		} else {
			put(n, rxb | f->map);
			/* The high bit of vvvv counts in 64-bit code only. */
			bool flip = !long_mode && f->vvvv_free && rng_percent(r, 20);
			put(n, (uint8_t)((f->w << 7 | last) ^ flip << 6));
		}
	} else {
		if (f->opsize)
			put(n, 0x66);
		if (f->rep)
			put(n, f->rep);
		uint8_t rex =
			(uint8_t)(0x40 | f->w << 3 |
				  (f->reg_free && f->has_modrm && reg >= 8) << 2 | x << 1 | b);
		if (long_mode && (rex != 0x40 || rng_percent(r, 20)))
			put(n, rex);
		if (f->map)
			put(n, 0x0f);
		if (f->map >= 2)
			put(n, f->map == 2 ? 0x38 : 0x3a);
	}
	put(n, f->opcode);
	if (n->length + part.length > 15)
		return false;
	if (part.fix) {
		n->fix = part.fix;
		n->fix_at = (uint8_t)(n->length + part.fix_at);
		n->target = part.target;
	}
	memcpy(n->bytes + n->length, part.bytes, part.length);
	n->length += part.length;
	memset(tail, 0, sizeof(tail));
	memcpy(tail, n->bytes, n->length);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(forms_decoder(f->mode32), tail, 15, &z, op)) ||
	    z.mnemonic != f->mnemonic || !acceptable(g, &z, op))
		return false;
	put_immediates(g, n, &z);
	return true;
}

struct node *add_form(struct gen *g, const struct iform *f)
{
	for (unsigned tries = 0; tries < 8; tries++) {
		struct node *n = add_node(g);
		if (encode(g, f, n))
			return n;
		g->p->count--;
	}
	return NULL;
}

/* ---- which forms ---- */

/* How often: what compilers emit, most of all. */
enum weight { RARE, COMMON, VECTOR, LEGACY_FLOAT };

static enum weight weigh(const struct iform *f)
{
	if (f->encoding == ENC_VEX)
		return VECTOR;
	switch (f->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_ADC:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_SBB:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_INC:
	case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_NOT:
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
	case ZYDIS_MNEMONIC_XCHG:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_CMPXCHG8B:
	case ZYDIS_MNEMONIC_CMPXCHG16B:
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
	case ZYDIS_MNEMONIC_BSWAP:
	case ZYDIS_MNEMONIC_CDQ:
	case ZYDIS_MNEMONIC_CQO:
	case ZYDIS_MNEMONIC_CDQE:
	case ZYDIS_MNEMONIC_CMC:
	case ZYDIS_MNEMONIC_STC:
	case ZYDIS_MNEMONIC_CLC:
	case ZYDIS_MNEMONIC_LAHF:
	case ZYDIS_MNEMONIC_SAHF:
		return COMMON;
	default:
		break;
	}
	if (f->mnemonic >= ZYDIS_MNEMONIC_CMOVB && f->mnemonic <= ZYDIS_MNEMONIC_CMOVZ)
		return COMMON;
	if (f->mnemonic >= ZYDIS_MNEMONIC_SETB && f->mnemonic <= ZYDIS_MNEMONIC_SETZ)
		return COMMON;
	if (f->opcode >= 0xd8 && f->opcode <= 0xdf && f->map == 0)
		return LEGACY_FLOAT;
	return f->map ? VECTOR : RARE;
}

/* Not in programs: what depends on the machine's tables, on time or on chance, and what puts a trap
 * flag or other control flags where they do not belong. */
static bool usable(const struct iform *f, bool mode32)
{
	if (f->junk || f->mode32 != mode32 || f->branch || f->string)
		return false;
	switch (f->mnemonic) {
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		return false;
	/* The translator does not keep the x87 pointers, which these save (cpu/bt/bt.h). */
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
		return false;
	default:
		return true;
	}
}

struct node *add_random(struct gen *g)
{
	static uint16_t list[2][4][16384];
	static unsigned count[2][4];
	unsigned m = g->p->mode32;

	if (!count[m][COMMON])
		for (unsigned k = 0; k < g->forms; k++) {
			const struct iform *f = form_at(k);
			if (usable(f, m))
				list[m][weigh(f)][count[m][weigh(f)]++] = (uint16_t)k;
		}
	unsigned dice = (unsigned)rng_below(&g->r, 100);
	enum weight w = dice < 62 ? COMMON : dice < 86 ? VECTOR : dice < 93 ? RARE : LEGACY_FLOAT;
	for (unsigned tries = 0; tries < 50; tries++) {
		const struct iform *f = form_at(list[m][w][rng_below(&g->r, count[m][w])]);
		/* Faults that are sure to come, only now and then. */
		if (!f->plain && !rng_percent(&g->r, 10))
			continue;
		struct node *n = add_form(g, f);
		if (n)
			return n;
	}
	return add_bytes(g, "\x90", 1);
}
