/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * MUL, IMUL, DIV, IDIV by the host's instructions, which also give the undefined flags as this
 * kind of CPU leaves them. Division faults (#DE) are found before the host would meet them.
 */
/* The operand of the one-operand forms: Zydis lists it as operand 0. */
static inline uint64_t one_operand(struct soft_cpu *c, const struct insn *i)
{
	return get_operand(c, i, 0);
}

static inline void set_arith(struct soft_cpu *c, uint64_t fl)
{
	c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (fl & FLAGS_ARITH);
}

#define FLAGS_TO(FL) "pushfq\n\tpopq %[" #FL "]"

#define WIDE_MUL(NAME, INSN, BITS)                                                                 \
	static void NAME##BITS(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		uint##BITS##_t src = (uint##BITS##_t)one_operand(c, i);                            \
		uint##BITS##_t a = (uint##BITS##_t)c->s.gpr[RAX], d;                               \
		uint64_t fl = c->s.rflags & FLAGS_ARITH;                                           \
		__asm__ volatile("pushq %[fl]\n\tpopfq\n\t" INSN " %[src]\n\t" FLAGS_TO(fl)        \
				 : "+a"(a), "=&d"(d), [fl] "+&r"(fl)                               \
				 : [src] "r"(src)                                                  \
				 : "cc", "memory");                                                \
		set_reg(c, RAX, BITS / 8, a);                                                      \
		set_reg(c, RDX, BITS / 8, d);                                                      \
		set_arith(c, fl);                                                                  \
	}
#define NARROW_MUL(NAME, INSN)                                                                     \
	static void NAME##8(struct soft_cpu * c, const struct insn *i)                             \
	{                                                                                          \
		uint8_t src = (uint8_t)one_operand(c, i);                                          \
		uint16_t a = (uint16_t)c->s.gpr[RAX];                                              \
		uint64_t fl = c->s.rflags & FLAGS_ARITH;                                           \
		__asm__ volatile("pushq %[fl]\n\tpopfq\n\t" INSN " %[src]\n\t" FLAGS_TO(fl)        \
				 : "+a"(a), [fl] "+&r"(fl)                                         \
				 : [src] "q"(src)                                                  \
				 : "cc", "memory");                                                \
		set_reg(c, RAX, 2, a);                                                             \
		set_arith(c, fl);                                                                  \
	}
NARROW_MUL(mul, "mulb")
WIDE_MUL(mul, "mulw", 16)
WIDE_MUL(mul, "mull", 32)
WIDE_MUL(mul, "mulq", 64)
NARROW_MUL(imul, "imulb")
WIDE_MUL(imul, "imulw", 16)
WIDE_MUL(imul, "imull", 32)
WIDE_MUL(imul, "imulq", 64)

/* Two and three operands: destination is operand 0, factors are operands 0 and 1, or 1 and the
 * immediate. */
#define IMUL_INTO(BITS, INSN)                                                                      \
	static void imul_into##BITS(struct soft_cpu *c, const struct insn *i)                      \
	{                                                                                          \
		uint##BITS##_t a = (uint##BITS##_t)get_operand(c, i, 1);                           \
		uint##BITS##_t b = i->imm2 ? (uint##BITS##_t)i->imm                                \
					   : (uint##BITS##_t)c->s.gpr[i->reg[0]];                  \
		uint64_t fl = c->s.rflags & FLAGS_ARITH;                                           \
		__asm__ volatile("pushq %[fl]\n\tpopfq\n\t" INSN " %[b], %[a]\n\t" FLAGS_TO(fl)    \
				 : [a] "+r"(a), [fl] "+&r"(fl)                                     \
				 : [b] "r"(b)                                                      \
				 : "cc", "memory");                                                \
		set_reg(c, i->reg[0], BITS / 8, a);                                                \
		set_arith(c, fl);                                                                  \
	}
IMUL_INTO(16, "imulw")
IMUL_INTO(32, "imull")
IMUL_INTO(64, "imulq")

/* ---- division ---- */

typedef unsigned __int128 u128;
typedef __int128 s128;

/* Flags after DIV are undefined: what the host leaves after dividing the same values. */
#define DIVIDE(NAME, INSN, BITS, FITS)                                                             \
	static void NAME##BITS(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		uint##BITS##_t src = (uint##BITS##_t)one_operand(c, i);                            \
		uint##BITS##_t a = (uint##BITS##_t)c->s.gpr[RAX];                                  \
		uint##BITS##_t d = (uint##BITS##_t)c->s.gpr[RDX];                                  \
		uint64_t fl = c->s.rflags & FLAGS_ARITH;                                           \
		if (!src || !FITS((u128)d << BITS | a, src, BITS))                                 \
			cpu_raise(c, VEC_DE, 0);                                                   \
		__asm__ volatile("pushq %[fl]\n\tpopfq\n\t" INSN " %[src]\n\t" FLAGS_TO(fl)        \
				 : "+a"(a), "+d"(d), [fl] "+&r"(fl)                                \
				 : [src] "r"(src)                                                  \
				 : "cc", "memory");                                                \
		set_reg(c, RAX, BITS / 8, a);                                                      \
		set_reg(c, RDX, BITS / 8, d);                                                      \
		set_arith(c, fl);                                                                  \
	}
#define DIVIDE8(NAME, INSN, FITS)                                                                  \
	static void NAME##8(struct soft_cpu * c, const struct insn *i)                             \
	{                                                                                          \
		uint8_t src = (uint8_t)one_operand(c, i);                                          \
		uint16_t a = (uint16_t)c->s.gpr[RAX];                                              \
		uint64_t fl = c->s.rflags & FLAGS_ARITH;                                           \
		if (!src || !FITS((u128)a, src, 8))                                                \
			cpu_raise(c, VEC_DE, 0);                                                   \
		__asm__ volatile("pushq %[fl]\n\tpopfq\n\t" INSN " %[src]\n\t" FLAGS_TO(fl)        \
				 : "+a"(a), [fl] "+&r"(fl)                                         \
				 : [src] "q"(src)                                                  \
				 : "cc", "memory");                                                \
		set_reg(c, RAX, 2, a);                                                             \
		set_arith(c, fl);                                                                  \
	}

static bool quotient_fits(u128 n, uint64_t src, unsigned bits)
{
	return (n >> bits) < src;
}

/* n is a value of 2 * bits, to be taken as signed; so is src of bits. */
static bool signed_quotient_fits(u128 n, uint64_t src, unsigned bits)
{
	s128 dividend = (s128)(n << (128 - 2 * bits)) >> (128 - 2 * bits);
	int64_t divisor = (int64_t)(src << (64 - bits)) >> (64 - bits);
	bool negative = dividend < 0;
	u128 mag = negative ? -(u128)dividend : (u128)dividend;
	u128 div = divisor < 0 ? -(u128)(s128)divisor : (u128)divisor;
	u128 q = mag / div;
	u128 most = (u128)1 << (bits - 1);

	return negative != (divisor < 0) ? q <= most : q < most;
}

DIVIDE8(div, "divb", quotient_fits)
DIVIDE(div, "divw", 16, quotient_fits)
DIVIDE(div, "divl", 32, quotient_fits)
DIVIDE(div, "divq", 64, quotient_fits)
DIVIDE8(idiv, "idivb", signed_quotient_fits)
DIVIDE(idiv, "idivw", 16, signed_quotient_fits)
DIVIDE(idiv, "idivl", 32, signed_quotient_fits)
DIVIDE(idiv, "idivq", 64, signed_quotient_fits)

op_fn *muldiv_select(const struct decoded *d, struct insn *i)
{
	static op_fn *const muls[] = {mul8, mul16, mul32, mul64};
	static op_fn *const imuls[] = {imul8, imul16, imul32, imul64};
	static op_fn *const intos[] = {NULL, imul_into16, imul_into32, imul_into64};
	static op_fn *const divs[] = {div8, div16, div32, div64};
	static op_fn *const idivs[] = {idiv8, idiv16, idiv32, idiv64};
	unsigned n = i->size[0] ? (unsigned)__builtin_ctz(i->size[0]) : 0;

	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_MUL:
		return muls[n];
	case ZYDIS_MNEMONIC_DIV:
		return divs[n];
	case ZYDIS_MNEMONIC_IDIV:
		return idivs[n];
	case ZYDIS_MNEMONIC_IMUL:
		if (d->z.operand_count_visible == 1)
			return imuls[n];
		i->imm2 = d->z.operand_count_visible == 3; /* says that the immediate counts */
		return intos[n];
	default:
		return NULL;
	}
}
