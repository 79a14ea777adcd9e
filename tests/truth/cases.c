/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "truth.h"

/* ---- random numbers ---- */

static uint64_t splitmix(uint64_t *x)
{
	uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void rng_init(struct rng *r, uint64_t seed, uint64_t stream)
{
	uint64_t x = seed * UINT64_C(0xd1342543de82ef95) + stream;

	for (unsigned k = 0; k < 4; k++)
		r->s[k] = splitmix(&x);
}

static uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

uint64_t rng_next(struct rng *r)
{
	uint64_t *s = r->s, v = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return v;
}

void rng_fill(struct rng *r, void *buf, unsigned bytes)
{
	uint8_t *to = buf;

	for (unsigned at = 0; at < bytes; at += 8) {
		uint64_t v = rng_next(r);
		memcpy(to + at, &v, bytes - at < 8 ? bytes - at : 8);
	}
}

/* ---- values with edges ---- */

static uint64_t some_int(struct rng *r)
{
	static const uint64_t edges[] = {0,
					 1,
					 2,
					 0x7f,
					 0x80,
					 0xff,
					 0x7fff,
					 0x8000,
					 0xffff,
					 0x7fffffff,
					 0x80000000,
					 0xffffffff,
					 0x7fffffffffffffff,
					 0x8000000000000000,
					 0xffffffffffffffff,
					 0xffffffff80000000,
					 0x100000000,
					 0xfffffffffffffffe};

	switch (rng_below(r, 8)) {
	case 0:
	case 1:
		return edges[rng_below(r, sizeof(edges) / 8)];
	case 2:
		return rng_below(r, 70);
	case 3:
		return (uint64_t)0 - rng_below(r, 70);
	case 4:
		return (uint32_t)rng_next(r);
	case 5:
		return UINT64_C(1) << rng_below(r, 64);
	default:
		return rng_next(r);
	}
}

/* A number in a format of e exponent and m fraction bits, often at an edge. */
static uint64_t some_float(struct rng *r, unsigned e, unsigned m)
{
	uint64_t sign = rng_next(r) & 1, emax = (UINT64_C(1) << e) - 1, exp;
	uint64_t frac = rng_next(r) & ((UINT64_C(1) << m) - 1);

	switch (rng_below(r, 10)) {
	case 0: /* zero */
		exp = frac = 0;
		break;
	case 1: /* subnormal */
		exp = 0;
		break;
	case 2: /* infinity */
		exp = emax;
		frac = 0;
		break;
	case 3: /* NaN, quiet or signalling */
		exp = emax;
		frac |= 1;
		break;
	case 4: /* small integers, powers of two */
		exp = emax / 2 + rng_below(r, 6);
		frac &= ~UINT64_C(0) << (m - 2);
		break;
	case 5: /* near overflow */
		exp = emax - 1 - rng_below(r, 3);
		break;
	case 6: /* near underflow */
		exp = 1 + rng_below(r, m < emax ? m : 3);
		break;
	case 7: /* about the size of an integer type's limit */
		exp = emax / 2 + rng_below(r, 66 < emax / 2 ? 66 : emax / 2);
		break;
	default:
		exp = rng_below(r, emax);
		break;
	}
	return sign << (e + m) | exp << m | (frac & ((UINT64_C(1) << m) - 1));
}

/* 16 bytes for a vector register or memory: one kind of element throughout. */
static void some_vector(struct rng *r, uint8_t *to)
{
	uint64_t kind = rng_below(r, 8);

	for (unsigned k = 0; k < 2; k++) {
		uint64_t v = 0;
		switch (kind) {
		case 0:
		case 1:
			v = some_float(r, 8, 23) | some_float(r, 8, 23) << 32;
			break;
		case 2:
		case 3:
			v = some_float(r, 11, 52);
			break;
		case 4:
			for (unsigned n = 0; n < 4; n++)
				v |= some_float(r, 5, 10) << (16 * n);
			break;
		case 5:
			v = some_int(r);
			break;
		case 6:
			v = (uint32_t)some_int(r) | some_int(r) << 32;
			break;
		default:
			v = rng_next(r);
			break;
		}
		memcpy(to + 8 * k, &v, 8);
	}
}

/* An 80-bit number: also encodings that no operation makes (SDM Vol. 1, table 8-3). */
static void some_extended(struct rng *r, uint8_t *to)
{
	uint64_t m = rng_next(r) | UINT64_C(1) << 63;
	uint16_t e = (uint16_t)rng_below(r, 0x7fff);

	switch (rng_below(r, 12)) {
	case 0:
		m = e = 0;
		break;
	case 1: /* denormal */
		m &= ~(UINT64_C(1) << 63);
		e = 0;
		break;
	case 2: /* infinity */
		m = UINT64_C(1) << 63;
		e = 0x7fff;
		break;
	case 3: /* NaN */
		e = 0x7fff;
		break;
	case 4: /* pseudo-denormal */
		e = 0;
		break;
	case 5: /* unnormal, pseudo-infinity, pseudo-NaN */
		m &= ~(UINT64_C(1) << 63);
		if (rng_percent(r, 30))
			e = 0x7fff;
		break;
	case 6: /* integers */
		e = (uint16_t)(0x3fff + rng_below(r, 66));
		m &= ~UINT64_C(0) << rng_below(r, 64);
		m |= UINT64_C(1) << 63;
		break;
	case 7:
		e = (uint16_t)(0x3fff - 5 + rng_below(r, 10));
		break;
	case 8: /* about the limits of single and double */
		e = (uint16_t)((rng_next(r) & 1 ? 0x3f80 : 0x3c00) - 30 + rng_below(r, 60));
		break;
	case 9:
		e = (uint16_t)((rng_next(r) & 1 ? 0x407e : 0x43fe) - 3 + rng_below(r, 6));
		break;
	default:
		break;
	}
	e |= (uint16_t)(rng_next(r) & 0x8000);
	memcpy(to, &m, 8);
	memcpy(to + 8, &e, 2);
}

static void put16(uint8_t *to, uint16_t v)
{
	memcpy(to, &v, 2);
}

static void make_x87(struct rng *r, struct tcase *t)
{
	uint16_t fcw = 0x037f, fsw = (uint16_t)(rng_next(r) & 0x7f00); /* TOP, C0 to C3 */

	if (rng_percent(r, 60)) /* RC, PC */
		fcw = (uint16_t)((fcw & 0xf0ff) | (rng_next(r) & 0x0f00));
	if (rng_percent(r, 30)) /* masks */
		fcw = (uint16_t)((fcw & ~0x3f) | (rng_next(r) & 0x3f));
	if (rng_percent(r, 40)) /* flags, without a pending exception... */
		fsw |= (uint16_t)(rng_next(r) & fcw & 0x3f);
	if (rng_percent(r, 4)) { /* ... or with one */
		uint16_t flag = (uint16_t)(1u << rng_below(r, 6));
		fcw &= (uint16_t)~flag;
		fsw |= flag | 0x8080;
	}
	if ((fsw & 1) && rng_percent(r, 30))
		fsw |= 0x40;
	put16(t->fx, fcw);
	put16(t->fx + 2, fsw);
	t->fx[4] = rng_percent(r, 70) ? 0xff : (uint8_t)rng_next(r);
	if (rng_percent(r, 5))
		t->fx[4] = 0;
	put16(t->fx + 6, (uint16_t)(rng_next(r) & 0x7ff));
	uint64_t fip = (uint32_t)rng_next(r), fdp = (uint32_t)rng_next(r);
	memcpy(t->fx + 8, &fip, 8);
	memcpy(t->fx + 16, &fdp, 8);
	for (unsigned n = 0; n < 8; n++) {
		uint8_t *st = t->fx + 32 + 16 * n;
		if (rng_percent(r, 20)) { /* an MMX value */
			rng_fill(r, st, 8);
			put16(st + 8, 0xffff);
		} else {
			some_extended(r, st);
		}
	}
}

static void make_vectors(struct rng *r, struct tcase *t)
{
	uint32_t mxcsr = 0x1f80 | (uint32_t)(rng_next(r) & 0x3f);

	mxcsr |= (uint32_t)rng_next(r) & 0x6000;
	if (rng_percent(r, 25)) /* DAZ, FZ */
		mxcsr |= (uint32_t)rng_next(r) & 0x8040;
	if (rng_percent(r, 25)) /* masks */
		mxcsr &= 0xe07f | (uint32_t)(rng_next(r) & 0x1f80);
	memcpy(t->fx + 24, &mxcsr, 4);
	for (unsigned n = 0; n < 16; n++) {
		some_vector(r, t->fx + 160 + 16 * n);
		some_vector(r, t->ymmh + 16 * n);
	}
}

/* ---- encoding ---- */

static unsigned put_prefixes(struct rng *r, const struct iform *f, uint8_t *b)
{
	static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
	unsigned n = 0;

	/* FS and GS are null selectors in 32-bit code. */
	if (rng_percent(r, 6))
		b[n++] = segs[rng_below(r, f->mode32 ? 4 : 6)];
	if (!f->mode32 && rng_percent(r, 5))
		b[n++] = 0x67;
	if (f->lockable && rng_percent(r, 30))
		b[n++] = 0xf0;
	return n;
}

static unsigned put_legacy_opcode(struct rng *r, const struct iform *f, uint8_t *b)
{
	unsigned n = 0;

	if (f->opsize)
		b[n++] = 0x66;
	if (f->rep)
		b[n++] = f->rep;
	if (!f->mode32 && (f->w || rng_percent(r, 50))) {
		uint8_t rex = 0x40 | f->w << 3;
		if (f->reg_free)
			rex |= rng_next(r) & 4;
		if (f->memory || f->rm_free || !f->has_modrm)
			rex |= rng_next(r) & 3;
		b[n++] = rex;
	}
	if (f->map)
		b[n++] = 0x0f;
	if (f->map >= 2)
		b[n++] = f->map == 2 ? 0x38 : 0x3a;
	b[n++] = f->opcode;
	return n;
}

static unsigned put_vex_opcode(struct rng *r, const struct iform *f, uint8_t *b)
{
	uint8_t vvvv = f->vvvv_free ? (uint8_t)(rng_next(r) & 15) : 0;
	uint8_t rxb = f->mode32 ? 0xe0 : (uint8_t)(rng_next(r) & 0xe0);
	unsigned n = 0;

	if (f->mode32)
		vvvv &= 7;
	if (!f->reg_free)
		rxb |= 0x80;
	if (f->map == 1 && !f->w && (rxb & 0x60) == 0x60 && rng_percent(r, 50)) {
		b[n++] = 0xc5;
		b[n++] = (rxb & 0x80) | (~vvvv & 0xf) << 3 | f->l << 2 | f->pp;
	} else {
		b[n++] = 0xc4;
		b[n++] = rxb | f->map;
		b[n++] = f->w << 7 | (~vvvv & 0xf) << 3 | f->l << 2 | f->pp;
	}
	b[n++] = f->opcode;
	return n;
}

static unsigned put_modrm(struct rng *r, const struct iform *f, uint8_t *b)
{
	uint8_t reg = f->reg_free ? (uint8_t)rng_below(r, 8) : f->reg;
	unsigned n = 0;

	if (!f->memory) {
		b[n++] = 0xc0 | reg << 3 | (f->rm_free ? (uint8_t)rng_below(r, 8) : f->rm);
		return n;
	}
	uint8_t mod = (uint8_t)rng_below(r, 3);
	uint8_t rm = f->vsib ? 4 : (uint8_t)rng_below(r, 8);
	b[n++] = mod << 6 | reg << 3 | rm;
	if (rm == 4)
		b[n++] = (uint8_t)rng_next(r);
	return n; /* the displacement follows: zero until it is known what for */
}

static bool decode(const struct iform *f, const uint8_t *b, ZydisDecodedInstruction *z,
		   ZydisDecodedOperand *op)
{
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(forms_decoder(f->mode32), b, 15, z, op)) &&
	       z->mnemonic == f->mnemonic;
}

/* ---- addresses ---- */

enum { NOWHERE = 0x60000000 };

/* Where an access of `bytes` bytes may go: mostly well inside the writable pages. */
static uint64_t some_target(struct rng *r, unsigned bytes, bool locked)
{
	uint64_t cross = bytes > 1 ? 1 + rng_below(r, bytes - 1) : 0;
	uint64_t inside = DATA_BASE + 64 * (2 + rng_below(r, DATA_RW_BYTES / 64 - 16));
	uint64_t kind = rng_below(r, 100);

	if (kind < 60 || (locked && kind < 84)) /* locked ones do not cross cache lines */
		return inside;
	if (kind < 76)
		return inside + rng_below(r, 64);
	if (kind < 84)
		return DATA_BASE + PAGE - cross;
	if (kind < 88)
		return DATA_BASE + DATA_RW_BYTES - (locked ? 0 : cross);
	if (kind < 91)
		return DATA_BASE + DATA_RW_BYTES + 64 * rng_below(r, 48);
	if (kind < 94)
		return DATA_BASE + DATA_BYTES - (locked ? 0 : cross);
	if (kind < 96)
		return DATA_BASE - (locked ? 64 : cross);
	if (kind < 99)
		return NOWHERE + rng_below(r, 4096);
	return UINT64_C(0x0000800000000000) + (rng_next(r) >> 2); /* not canonical, mostly */
}

/* What is made of the operand's registers so that it lands on target. */
static void aim(struct rng *r, struct tcase *t, const ZydisDecodedInstruction *z,
		const ZydisDecodedOperand *op, uint64_t target)
{
	int base = -1, index = -1;
	uint64_t mask = z->address_width == 64	 ? UINT64_MAX
			: z->address_width == 32 ? UINT32_MAX
						 : 0xffff;
	uint64_t at = target;

	/* Zydis 4.0 names R13D where there is none. */
	bool no_base = op->mem.base == ZYDIS_REGISTER_NONE ||
		       ((z->attributes & ZYDIS_ATTRIB_HAS_SIB) && z->raw.modrm.mod == 0 &&
			z->raw.sib.base == 5 && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN);
	if (no_base || op->mem.base == ZYDIS_REGISTER_RIP)
		at = target = (uint32_t)target == target ? target : NOWHERE;
	if (!t->mode32 && op->mem.segment == ZYDIS_REGISTER_FS)
		at -= FS_BASE;
	if (!t->mode32 && op->mem.segment == ZYDIS_REGISTER_GS)
		at -= GS_BASE;
	if (!no_base && op->mem.base != ZYDIS_REGISTER_RIP && op->mem.base != ZYDIS_REGISTER_EIP)
		base = ZydisRegisterGetId(
			ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->mem.base));
	if (op->mem.index != ZYDIS_REGISTER_NONE && op->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
		index = ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(
			ZYDIS_MACHINE_MODE_LONG_64, op->mem.index));

	if (z->raw.disp.size >= 32 && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
		/* The displacement is the operand's own; it does all where there is no register. */
		uint64_t disp = base < 0 && index < 0 ? at : rng_next(r) & 0xfff;
		if (base >= 0 && rng_percent(r, 30)) {
			int32_t any = (int32_t)rng_next(r);
			disp = any < CODE_BASE ? (uint64_t)(int64_t)any : 8;
		}
		if (base < 0 && index >= 0) {
			t->gpr[index] = rng_below(r, 64);
			disp = at - t->gpr[index] * op->mem.scale;
		}
		if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP)
			disp = at - (CODE_BASE + t->code_offset + t->length);
		memcpy(t->code + z->raw.disp.offset, &disp, z->raw.disp.size / 8);
		if (z->raw.disp.size == 32)
			disp = (uint64_t)(int32_t)disp;
		at -= disp;
	} else if (z->raw.disp.size == 8 && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
		int8_t disp = (int8_t)rng_next(r);
		memcpy(t->code + z->raw.disp.offset, &disp, 1);
		at -= (uint64_t)(int64_t)disp;
	}
	if (base < 0)
		return;
	if (index >= 0 && index != base) {
		if (t->mode32 || rng_percent(r, 70))
			t->gpr[index] &= 0xffff;
		at -= t->gpr[index] * op->mem.scale;
	} else if (index == base) {
		at /= 1 + op->mem.scale;
	}
	t->gpr[base] = (at & mask) | (t->mode32 ? 0 : rng_next(r) & ~mask);
}

/* Values in memory where an operand is. */
static void plant(struct rng *r, struct tcase *t, unsigned slot, uint64_t target, unsigned bytes)
{
	struct patch *p = &t->patch[slot];
	uint64_t at = target - DATA_BASE;

	if (at >= DATA_BYTES)
		return;
	p->offset = (uint32_t)at;
	p->bytes = bytes && bytes < PATCH_BYTES ? bytes : PATCH_BYTES;
	if (p->bytes > DATA_BYTES - at)
		p->bytes = (uint32_t)(DATA_BYTES - at);
	for (unsigned k = 0; k < PATCH_BYTES; k += 16)
		some_vector(r, p->data + k);
	if (bytes == 10) /* x87: extended reals, or decimals */
		some_extended(r, p->data);
	if (bytes == 10 && rng_percent(r, 30))
		for (unsigned k = 0; k < 9; k++)
			p->data[k] = (uint8_t)(rng_below(r, 10) | rng_below(r, 10) << 4);
	if (bytes == 4 && rng_percent(r, 50)) {
		uint32_t v = (uint32_t)some_int(r);
		memcpy(p->data, &v, 4);
	}
	if (bytes == 8 && rng_percent(r, 50)) {
		uint64_t v = some_int(r);
		memcpy(p->data, &v, 8);
	}
}

static bool quad_indices(uint16_t mnemonic)
{
	return mnemonic == ZYDIS_MNEMONIC_VGATHERQPS || mnemonic == ZYDIS_MNEMONIC_VGATHERQPD ||
	       mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ;
}

/* Gather indices that stay near the base. */
static void plant_indices(struct rng *r, struct tcase *t, const ZydisDecodedOperand *op)
{
	int n = ZydisRegisterGetId(op->mem.index);
	uint8_t v[32];

	for (unsigned k = 0; k < 8; k++) {
		unsigned range = rng_percent(r, 4) ? 4096 : 256;
		int64_t index = (int64_t)rng_below(r, range) - range / 2;
		if (quad_indices(form_at(t->form)->mnemonic))
			memcpy(v + 8 * (k & 3), &index, 8);
		else
			memcpy(v + 4 * k, &index, 4);
	}
	memcpy(t->fx + 160 + 16 * n, v, 16);
	memcpy(t->ymmh + 16 * n, v + 16, 16);
}

/* ---- operands that need sense ---- */

static void make_sense(struct rng *r, struct tcase *t, const struct iform *f,
		       const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	switch (f->mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		/* A bit offset in a register goes far beyond the operand. */
		if (f->memory && op[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
			int n = ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(
				ZYDIS_MACHINE_MODE_LONG_64, op[1].reg.value));
			t->gpr[n] = (uint64_t)((int64_t)rng_below(r, 4096) - 2048);
			if (rng_percent(r, 50)) /* only the operand's bits count */
				t->gpr[n] = (t->gpr[n] & ((UINT64_C(2) << (op[1].size - 1)) - 1)) |
					    (op[1].size < 64 ? rng_next(r) << op[1].size : 0);
		}
		break;
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		if (rng_percent(r, 60))
			t->gpr[2] = rng_percent(r, 50) ? 0 : (uint64_t)((int64_t)t->gpr[0] >> 63);
		if (op[0].size == 8 && rng_percent(r, 50))
			t->gpr[0] = rng_below(r, 2000);
		break;
	case ZYDIS_MNEMONIC_CMPXCHG:
		if (rng_percent(r, 50))
			memcpy(t->patch[0].data, &t->gpr[0], 8);
		break;
	case ZYDIS_MNEMONIC_CMPXCHG8B:
		if (rng_percent(r, 50)) {
			memcpy(t->patch[0].data, &t->gpr[0], 4);
			memcpy(t->patch[0].data + 4, &t->gpr[2], 4);
		}
		break;
	case ZYDIS_MNEMONIC_CMPXCHG16B:
		if (rng_percent(r, 50)) {
			memcpy(t->patch[0].data, &t->gpr[0], 8);
			memcpy(t->patch[0].data + 8, &t->gpr[2], 8);
		}
		break;
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR: {
		uint32_t v = (uint32_t)rng_next(r) & 0xffff;
		if (rng_percent(r, 10))
			v |= 1u << (18 + rng_below(r, 14)); /* 17 is AMD's own */
		memcpy(t->patch[0].data, &v, 4);
		break;
	}
	default:
		break;
	}
	if (f->string && (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
					   ZYDIS_ATTRIB_HAS_REPNE))) {
		uint64_t count = rng_percent(r, 90) ? rng_below(r, 12) : rng_below(r, 3000);
		t->gpr[1] = z->address_width == 32 && !t->mode32 ? count | rng_next(r) << 32
								 : count;
	}
}

/* Jump targets in the code pages. */
static uint64_t some_code(struct rng *r)
{
	return CODE_BASE + rng_below(r, CODE_BYTES);
}

static void plant_target(struct rng *r, struct tcase *t, const struct iform *f,
			 const ZydisDecodedOperand *op)
{
	uint64_t to = some_code(r);

	if (!t->mode32 && rng_percent(r, 3)) /* not canonical */
		to |= UINT64_C(1) << (48 + rng_below(r, 15));
	for (unsigned k = 0; k < 2; k++)
		memcpy(t->patch[k].data, &to, 8);
	if (op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && !f->memory) {
		int n = ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(
			ZYDIS_MACHINE_MODE_LONG_64, op[0].reg.value));
		if (n >= 0 && n < 16)
			t->gpr[n] = to;
	}
}

static void make_immediates(struct rng *r, struct tcase *t, const struct iform *f,
			    const ZydisDecodedInstruction *z)
{
	for (unsigned k = 0; k < 2; k++) {
		uint64_t v = some_int(r);
		if (!z->raw.imm[k].size)
			continue;
		if (z->raw.imm[k].is_relative)
			v = (uint64_t)((int64_t)rng_below(r, 200) - 100);
		else if (z->raw.imm[k].size == 8)
			v = rng_next(r);
		if (f->mnemonic == ZYDIS_MNEMONIC_ENTER)
			v = k == 0 ? rng_below(r, 256) : rng_below(r, 40);
		memcpy(t->code + z->raw.imm[k].offset, &v, z->raw.imm[k].size / 8);
	}
}

static bool encode(struct rng *r, struct tcase *t, const struct iform *f,
		   ZydisDecodedInstruction *z, ZydisDecodedOperand *op)
{
	uint8_t b[32] = {0};
	unsigned n = f->encoding == ENC_VEX && rng_percent(r, 90) ? 0 : put_prefixes(r, f, b);

	n += f->encoding == ENC_VEX ? put_vex_opcode(r, f, b + n) : put_legacy_opcode(r, f, b + n);
	if (f->has_modrm)
		n += put_modrm(r, f, b + n);
	if (!decode(f, b, z, op))
		return false;
	memcpy(t->code, b, sizeof(t->code));
	t->length = z->length;
	return true;
}

static void place(struct rng *r, struct tcase *t, const struct iform *f)
{
	t->code_offset = (uint16_t)(512 + rng_below(r, PAGE - 1024));
	/* How much of UD0 and UD1 is fetched before they fault differs among processors. */
	if (f->branch || f->mnemonic == ZYDIS_MNEMONIC_UD0 || f->mnemonic == ZYDIS_MNEMONIC_UD1 ||
	    !rng_percent(r, 3))
		return;
	t->code_offset = (uint16_t)(PAGE - 1 - rng_below(r, t->length)); /* into the next page */
	if (rng_percent(r, 40) && t->length > 1)			 /* into nothing */
		t->code_offset = (uint16_t)(CODE_BYTES - 1 - rng_below(r, t->length - 1));
}

static void make_operands(struct rng *r, struct tcase *t, const struct iform *f,
			  const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	bool locked = z->attributes & ZYDIS_ATTRIB_HAS_LOCK || f->mnemonic == ZYDIS_MNEMONIC_XCHG;
	unsigned slot = 0;

	/* Hidden operands first: an explicit one may use the same register and then decides. */
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned k = 0; k < z->operand_count; k++) {
			bool hidden = op[k].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
			if (op[k].type != ZYDIS_OPERAND_TYPE_MEMORY || hidden != (pass == 0) ||
			    op[k].mem.type == ZYDIS_MEMOP_TYPE_AGEN)
				continue;
			uint64_t target = some_target(r, op[k].size / 8, locked);
			if (z->address_width == 32)
				target = (uint32_t)target;
			if (target == (uint32_t)target && target > 0x70000000)
				target = NOWHERE;
			if (op[k].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
				plant_indices(r, t, &op[k]);
			aim(r, t, z, &op[k], target);
			plant(r, t, slot, target, op[k].size / 8);
			slot = 1;
		}
	}
	if (f->mnemonic == ZYDIS_MNEMONIC_LEAVE || f->mnemonic == ZYDIS_MNEMONIC_ENTER) {
		t->gpr[5] = some_target(r, 8, false);
		plant(r, t, 1, t->gpr[5], 8);
	}
	if (f->mnemonic == ZYDIS_MNEMONIC_XLAT)
		t->gpr[3] = some_target(r, 1, false);
}

bool case_make(struct tcase *t, uint64_t seed, uint64_t number, unsigned forms)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	struct rng r;

	memset(t, 0, sizeof(*t));
	t->number = number;
	t->form = (uint32_t)(number % forms);
	const struct iform *f = form_at(t->form);
	t->mode32 = f->mode32;
	rng_init(&r, seed, number);
	bool ok = false;
	for (unsigned k = 0; k < 20 && !ok; k++)
		ok = encode(&r, t, f, &z, op);
	if (!ok)
		return false;
	place(&r, t, f);
	make_x87(&r, t);
	make_vectors(&r, t);
	for (unsigned n = 0; n < 16; n++)
		t->gpr[n] = t->mode32 ? (n < 8 ? (uint32_t)some_int(&r) : 0) : some_int(&r);
	t->step = f->branch || rng_percent(&r, f->string ? 25 : 60);
	t->rflags = 0x202 | (rng_next(&r) & 0x8d5);
	if (rng_percent(&r, 20))
		t->rflags |= 0x400; /* DF */
	if (rng_percent(&r, 5))
		t->rflags |= 0x40000; /* AC */
	if (t->step)
		t->rflags |= 0x100;
	make_immediates(&r, t, f, &z);
	make_operands(&r, t, f, &z, op);
	make_sense(&r, t, f, &z, op);
	if (f->branch)
		plant_target(&r, t, f, op);
	if (t->mode32)
		for (unsigned n = 0; n < 16; n++)
			t->gpr[n] = n < 8 ? (uint32_t)t->gpr[n] : 0;
	return true;
}

void pristine_make(uint8_t *data, uint64_t seed, uint64_t batch)
{
	struct rng r;

	rng_init(&r, ~seed, batch);
	for (unsigned at = 0; at < DATA_BYTES; at += 16)
		some_vector(&r, data + at);
}

void case_apply_patches(const struct tcase *t, uint8_t *data)
{
	for (unsigned k = 0; k < 2; k++)
		memcpy(data + t->patch[k].offset, t->patch[k].data, t->patch[k].bytes);
}

void result_take_memory(struct result *r, uint8_t *data, const uint8_t *pristine)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	r->lines = 0;
	for (unsigned line = 0; line < DATA_BYTES / LINE_BYTES; line++) {
		uint8_t *at = data + line * LINE_BYTES;
		if (!memcmp(at, pristine + line * LINE_BYTES, LINE_BYTES))
			continue;
		if (r->lines < LINES_KEPT) {
			r->line[r->lines] = (uint16_t)line;
			memcpy(r->line_data[r->lines], at, LINE_BYTES);
		}
		for (unsigned k = 0; k < LINE_BYTES; k += 8) {
			uint64_t v;
			memcpy(&v, at + k, 8);
			h = (h ^ v ^ line) * UINT64_C(0x100000001b3) ^ h >> 31;
		}
		r->lines++;
		memcpy(at, pristine + line * LINE_BYTES, LINE_BYTES);
	}
	r->hash = h;
}
