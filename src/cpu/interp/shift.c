/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * SHL, SHR, SAR, ROL, ROR, RCL, RCR: the host's own instruction with the count in CL. A count of 0
 * (after masking to 5 or 6 bits, SDM SAL/SAR/SHL/SHR) leaves the flags alone but still writes its
 * destination; rotates change only CF and OF.
 */
#define SHIFT(NAME, BITS, INSN, FLAGS)                                                             \
	static inline uint16_t NAME##BITS##_do(volatile uint##BITS##_t *p, uint8_t count,          \
					       uint64_t flags)                                     \
	{                                                                                          \
		uint16_t ax;                                                                       \
		__asm__ volatile("bt $0, %[fl]\n\t" INSN " %%cl, %[p]\n\t" CAPTURE_FLAGS           \
				 : [p] "+m"(*p), "=&a"(ax)                                         \
				 : "c"(count), [fl] "r"(flags)                                     \
				 : "cc", "memory");                                                \
		return ax;                                                                         \
	}                                                                                          \
	static inline void NAME##BITS##_on(struct soft_cpu *c, uint##BITS##_t *p, uint8_t count)   \
	{                                                                                          \
		if (count & (BITS == 64 ? 63 : 31)) {                                              \
			uint16_t ax = NAME##BITS##_do(p, count, c->s.rflags);                      \
			put_flags(c, ax, FLAGS);                                                   \
		}                                                                                  \
	}                                                                                          \
	static void NAME##_r##BITS(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                          \
		uint##BITS##_t v = (uint##BITS##_t)get_reg(c, i->reg[0], BITS / 8);                \
		NAME##BITS##_on(c, &v, shift_count(c, i));                                         \
		set_reg(c, i->reg[0], BITS / 8, v);                                                \
	}                                                                                          \
	static void NAME##_m##BITS(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                          \
		uint64_t at = ea(c, i);                                                            \
		uint8_t count = shift_count(c, i);                                                 \
		uint##BITS##_t *p = rmw_ptr(c, i->seg, at, BITS / 8);                              \
		if (likely(p != NULL)) {                                                           \
			NAME##BITS##_on(c, p, count);                                              \
			return;                                                                    \
		}                                                                                  \
		uint64_t flags = c->s.rflags;                                                      \
		uint##BITS##_t v = rd##BITS(c, i->seg, at);                                        \
		NAME##BITS##_on(c, &v, count);                                                     \
		uint64_t after = c->s.rflags;                                                      \
		c->s.rflags = flags; /* the write may still leave with an exit */                  \
		wr##BITS(c, i->seg, at, v);                                                        \
		c->s.rflags = after;                                                               \
	}
#define SHIFT_OP(NAME, FLAGS)                                                                      \
	SHIFT(NAME, 8, #NAME "b", FLAGS)                                                           \
	SHIFT(NAME, 16, #NAME "w", FLAGS)                                                          \
	SHIFT(NAME, 32, #NAME "l", FLAGS)                                                          \
	SHIFT(NAME, 64, #NAME "q", FLAGS)                                                          \
	static op_fn *const NAME##_forms[4][2] = {{NAME##_r8, NAME##_m8},                          \
						  {NAME##_r16, NAME##_m16},                        \
						  {NAME##_r32, NAME##_m32},                        \
						  {NAME##_r64, NAME##_m64}};

/* The count: CL, an immediate, or 1. */
static inline uint8_t shift_count(struct soft_cpu *c, const struct insn *i)
{
	return i->reg[1] != REG_NONE ? (uint8_t)c->s.gpr[RCX] : (uint8_t)i->imm;
}

SHIFT_OP(shl, FLAGS_ARITH)
SHIFT_OP(shr, FLAGS_ARITH)
SHIFT_OP(sar, FLAGS_ARITH)
SHIFT_OP(rol, FLAG_CF | FLAG_OF)
SHIFT_OP(ror, FLAG_CF | FLAG_OF)
SHIFT_OP(rcl, FLAG_CF | FLAG_OF)
SHIFT_OP(rcr, FLAG_CF | FLAG_OF)

static op_fn *pick(op_fn *const forms[4][2], const struct insn *i)
{
	return forms[__builtin_ctz(i->size[0])][!!(i->flags & INSN_MEM)];
}

op_fn *shift_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
		return pick(shl_forms, i);
	case ZYDIS_MNEMONIC_SHR:
		return pick(shr_forms, i);
	case ZYDIS_MNEMONIC_SAR:
		return pick(sar_forms, i);
	case ZYDIS_MNEMONIC_ROL:
		return pick(rol_forms, i);
	case ZYDIS_MNEMONIC_ROR:
		return pick(ror_forms, i);
	case ZYDIS_MNEMONIC_RCL:
		return pick(rcl_forms, i);
	case ZYDIS_MNEMONIC_RCR:
		return pick(rcr_forms, i);
	default:
		return NULL;
	}
}
