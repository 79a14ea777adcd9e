/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * Decimal arithmetic of 16- and 32-bit modes: AAA, AAS, AAM, AAD, DAA, DAS, by the operation
 * sections of the SDM (Vol. 2). They do not exist in 64-bit mode, so the host's are out of reach.
 */
static bool parity(uint8_t v)
{
	return !(__builtin_popcount(v) & 1);
}

static uint64_t szp(uint8_t v)
{
	return (v & 0x80 ? FLAG_SF : 0) | (v ? 0 : FLAG_ZF) | (parity(v) ? FLAG_PF : 0);
}

static void set_flags(struct soft_cpu *c, uint64_t flags)
{
	c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | flags;
}

static void adjust_decimal(struct soft_cpu *c, bool subtract)
{
	uint8_t al = (uint8_t)c->s.gpr[RAX], old = al;
	bool old_cf = c->s.rflags & FLAG_CF, cf = false, af = false;

	if ((al & 0xf) > 9 || (c->s.rflags & FLAG_AF)) {
		cf = old_cf || (subtract ? al < 6 : al > 0xf9);
		al = subtract ? al - 6 : al + 6;
		af = true;
	}
	if (old > 0x99 || old_cf) {
		al = subtract ? al - 0x60 : al + 0x60;
		cf = true;
	}
	*reg8(c, RAX) = al;
	set_flags(c, szp(al) | (cf ? FLAG_CF : 0) | (af ? FLAG_AF : 0));
}

static void op_daa(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	adjust_decimal(c, false);
}

static void op_das(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	adjust_decimal(c, true);
}

static void adjust_ascii(struct soft_cpu *c, int step)
{
	uint16_t ax = (uint16_t)c->s.gpr[RAX];
	bool adjust = (ax & 0xf) > 9 || (c->s.rflags & FLAG_AF);

	if (adjust)
		ax = (uint16_t)(ax + step * 0x106);
	ax &= 0xff0f;
	set_reg(c, RAX, 2, ax);
	set_flags(c, szp((uint8_t)ax) | (adjust ? FLAG_CF | FLAG_AF : 0));
}

static void op_aaa(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	adjust_ascii(c, 1);
}

static void op_aas(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	adjust_ascii(c, -1);
}

static void op_aam(struct soft_cpu *c, const struct insn *i)
{
	uint8_t base = (uint8_t)i->imm, al = (uint8_t)c->s.gpr[RAX];

	if (!base)
		cpu_raise(c, VEC_DE, 0);
	set_reg(c, RAX, 2, (uint64_t)(al / base) << 8 | al % base);
	set_flags(c, szp(al % base));
}

static void op_aad(struct soft_cpu *c, const struct insn *i)
{
	uint16_t ax = (uint16_t)c->s.gpr[RAX];
	uint8_t al = (uint8_t)((ax & 0xff) + (ax >> 8) * (uint8_t)i->imm);

	set_reg(c, RAX, 2, al);
	set_flags(c, szp(al));
}

op_fn *bcd_select(const struct decoded *d, struct insn *i)
{
	(void)i;
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_DAA:
		return op_daa;
	case ZYDIS_MNEMONIC_DAS:
		return op_das;
	case ZYDIS_MNEMONIC_AAA:
		return op_aaa;
	case ZYDIS_MNEMONIC_AAS:
		return op_aas;
	case ZYDIS_MNEMONIC_AAM:
		return op_aam;
	case ZYDIS_MNEMONIC_AAD:
		return op_aad;
	default:
		return NULL;
	}
}
