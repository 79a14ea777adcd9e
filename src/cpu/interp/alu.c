/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT. The host computes the result and
 * the flags with the very instruction (put_flags), so they are exact by construction. A memory
 * destination is operated on in place; with LOCK the host's own LOCK prefix makes it atomic
 * against other vCPUs.
 */

/* One operation on a place of the given size: asm for plain and locked. CF goes in by BT. */
#define BINARY(NAME, BITS, INSN, LOCK)                                                             \
	static inline uint16_t NAME##BITS##LOCK(volatile uint##BITS##_t *dst, uint##BITS##_t src,  \
						uint64_t flags)                                    \
	{                                                                                          \
		uint16_t ax;                                                                       \
		__asm__ volatile("bt $0, %[fl]\n\t" LOCKED_##LOCK INSN                             \
				 " %[src], %[dst]\n\t" CAPTURE_FLAGS                               \
				 : [dst] "+m"(*dst), "=&a"(ax)                                     \
				 : [src] "r"(src), [fl] "r"(flags)                                 \
				 : "cc", "memory");                                                \
		return ax;                                                                         \
	}
#define BINARY_REG(NAME, BITS, INSN)                                                               \
	static inline uint16_t NAME##BITS##reg(uint##BITS##_t *dst, uint##BITS##_t src,            \
					       uint64_t flags)                                     \
	{                                                                                          \
		uint16_t ax;                                                                       \
		uint##BITS##_t v = *dst;                                                           \
		__asm__("bt $0, %[fl]\n\t" INSN " %[src], %[dst]\n\t" CAPTURE_FLAGS                \
			: [dst] "+q"(v), "=&a"(ax)                                                 \
			: [src] "q"(src), [fl] "r"(flags)                                          \
			: "cc");                                                                   \
		*dst = v;                                                                          \
		return ax;                                                                         \
	}
#define LOCKED_plain ""
#define LOCKED_lock "lock "

/* The handlers of one operation and size. WRITES: CMP and TEST do not. */
#define HANDLERS(NAME, BITS)                                                                       \
	static void NAME##_r_r##BITS(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                          \
		uint##BITS##_t v = REG##BITS(c, i->reg[0]);                                        \
		uint16_t ax = NAME##BITS##reg(&v, REG##BITS(c, i->reg[1]), c->s.rflags);           \
		STORE_##NAME##_##BITS(c, i->reg[0], v);                                            \
		put_flags(c, ax, FLAGS_ARITH);                                                     \
	}                                                                                          \
	static void NAME##_r_i##BITS(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                          \
		uint##BITS##_t v = REG##BITS(c, i->reg[0]);                                        \
		uint16_t ax = NAME##BITS##reg(&v, (uint##BITS##_t)i->imm, c->s.rflags);            \
		STORE_##NAME##_##BITS(c, i->reg[0], v);                                            \
		put_flags(c, ax, FLAGS_ARITH);                                                     \
	}                                                                                          \
	static void NAME##_r_m##BITS(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                          \
		uint##BITS##_t src = rd##BITS(c, i->seg, ea(c, i));                                \
		uint##BITS##_t v = REG##BITS(c, i->reg[0]);                                        \
		uint16_t ax = NAME##BITS##reg(&v, src, c->s.rflags);                               \
		STORE_##NAME##_##BITS(c, i->reg[0], v);                                            \
		put_flags(c, ax, FLAGS_ARITH);                                                     \
	}

#define REG8(c, n) (*reg8(c, n))
#define REG16(c, n) ((uint16_t)(c)->s.gpr[n])
#define REG32(c, n) ((uint32_t)(c)->s.gpr[n])
#define REG64(c, n) ((c)->s.gpr[n])
#define PUT8(c, n, v) (*reg8(c, n) = (v))
#define PUT16(c, n, v) (*(uint16_t *)&(c)->s.gpr[n] = (v))
#define PUT32(c, n, v) ((c)->s.gpr[n] = (v))
#define PUT64(c, n, v) ((c)->s.gpr[n] = (v))

/* A memory destination: in place when it is plainly there, else through a copy. */
#define MEM_DST(NAME, BITS, SRC, SUFFIX)                                                           \
	static void NAME##_m_##SUFFIX##BITS(struct soft_cpu *c, const struct insn *i)              \
	{                                                                                          \
		uint64_t at = ea(c, i);                                                            \
		uint##BITS##_t src = SRC;                                                          \
		uint##BITS##_t *p = rmw_ptr(c, i->seg, at, BITS / 8);                              \
		uint16_t ax;                                                                       \
		if (likely(p != NULL)) {                                                           \
			ax = i->flags & INSN_LOCK ? NAME##BITS##lock(p, src, c->s.rflags)          \
						  : NAME##BITS##plain(p, src, c->s.rflags);        \
		} else {                                                                           \
			rmw_lock(c);                                                               \
			uint##BITS##_t v = rd##BITS(c, i->seg, at);                                \
			ax = NAME##BITS##reg(&v, src, c->s.rflags);                                \
			wr##BITS(c, i->seg, at, v);                                                \
			rmw_unlock(c);                                                             \
		}                                                                                  \
		put_flags(c, ax, FLAGS_ARITH);                                                     \
	}
/* CMP and TEST only read their memory operand. */
#define MEM_READ_DST(NAME, BITS, SRC, SUFFIX)                                                      \
	static void NAME##_m_##SUFFIX##BITS(struct soft_cpu *c, const struct insn *i)              \
	{                                                                                          \
		uint##BITS##_t v = rd##BITS(c, i->seg, ea(c, i));                                  \
		put_flags(c, NAME##BITS##reg(&v, SRC, c->s.rflags), FLAGS_ARITH);                  \
	}

#define WRITING(NAME, BITS, INSN)                                                                  \
	BINARY(NAME, BITS, INSN, plain)                                                            \
	BINARY(NAME, BITS, INSN, lock)                                                             \
	BINARY_REG(NAME, BITS, INSN)                                                               \
	HANDLERS(NAME, BITS)                                                                       \
	MEM_DST(NAME, BITS, REG##BITS(c, i->reg[1]), r)                                            \
	MEM_DST(NAME, BITS, (uint##BITS##_t)i->imm, i)
#define READING(NAME, BITS, INSN)                                                                  \
	BINARY_REG(NAME, BITS, INSN)                                                               \
	HANDLERS(NAME, BITS)                                                                       \
	MEM_READ_DST(NAME, BITS, REG##BITS(c, i->reg[1]), r)                                       \
	MEM_READ_DST(NAME, BITS, (uint##BITS##_t)i->imm, i)

#define DEFINE_STORES(NAME)                                                                        \
	static inline void STORE_##NAME##_8(struct soft_cpu *c, unsigned n, uint8_t v)             \
	{                                                                                          \
		PUT8(c, n, v);                                                                     \
	}                                                                                          \
	static inline void STORE_##NAME##_16(struct soft_cpu *c, unsigned n, uint16_t v)           \
	{                                                                                          \
		PUT16(c, n, v);                                                                    \
	}                                                                                          \
	static inline void STORE_##NAME##_32(struct soft_cpu *c, unsigned n, uint32_t v)           \
	{                                                                                          \
		PUT32(c, n, v);                                                                    \
	}                                                                                          \
	static inline void STORE_##NAME##_64(struct soft_cpu *c, unsigned n, uint64_t v)           \
	{                                                                                          \
		PUT64(c, n, v);                                                                    \
	}
#define DEFINE_NO_STORES(NAME)                                                                     \
	static inline void STORE_##NAME##_8(struct soft_cpu *c, unsigned n, uint8_t v)             \
	{                                                                                          \
		(void)c, (void)n, (void)v;                                                         \
	}                                                                                          \
	static inline void STORE_##NAME##_16(struct soft_cpu *c, unsigned n, uint16_t v)           \
	{                                                                                          \
		(void)c, (void)n, (void)v;                                                         \
	}                                                                                          \
	static inline void STORE_##NAME##_32(struct soft_cpu *c, unsigned n, uint32_t v)           \
	{                                                                                          \
		(void)c, (void)n, (void)v;                                                         \
	}                                                                                          \
	static inline void STORE_##NAME##_64(struct soft_cpu *c, unsigned n, uint64_t v)           \
	{                                                                                          \
		(void)c, (void)n, (void)v;                                                         \
	}

#define ALL_SIZES(KIND, NAME)                                                                      \
	KIND(NAME, 8, #NAME "b")                                                                   \
	KIND(NAME, 16, #NAME "w")                                                                  \
	KIND(NAME, 32, #NAME "l")                                                                  \
	KIND(NAME, 64, #NAME "q")
#define FORMS(NAME)                                                                                \
	{                                                                                          \
		{NAME##_r_r8, NAME##_r_i8, NAME##_r_m8, NAME##_m_r8, NAME##_m_i8},                 \
			{NAME##_r_r16, NAME##_r_i16, NAME##_r_m16, NAME##_m_r16, NAME##_m_i16},    \
			{NAME##_r_r32, NAME##_r_i32, NAME##_r_m32, NAME##_m_r32, NAME##_m_i32},    \
			{NAME##_r_r64, NAME##_r_i64, NAME##_r_m64, NAME##_m_r64, NAME##_m_i64},    \
	}
enum form { R_R, R_I, R_M, M_R, M_I, FORM_NR };

#define WRITING_OP(NAME)                                                                           \
	DEFINE_STORES(NAME)                                                                        \
	ALL_SIZES(WRITING, NAME)                                                                   \
	static op_fn *const NAME##_forms[4][FORM_NR] = FORMS(NAME);
#define READING_OP(NAME)                                                                           \
	DEFINE_NO_STORES(NAME)                                                                     \
	ALL_SIZES(READING, NAME)                                                                   \
	static op_fn *const NAME##_forms[4][FORM_NR] = FORMS(NAME);

WRITING_OP(add)
WRITING_OP(or)
WRITING_OP(adc)
WRITING_OP(sbb)
WRITING_OP(and)
WRITING_OP(sub)
WRITING_OP(xor)
READING_OP(cmp)
READING_OP(test)

/* ---- one operand ---- */

#define UNARY(NAME, BITS, INSN, FLAGS)                                                             \
	static inline uint16_t NAME##BITS##plain(volatile uint##BITS##_t *p)                       \
	{                                                                                          \
		uint16_t ax;                                                                       \
		__asm__ volatile(INSN " %0\n\t" CAPTURE_FLAGS                                      \
				 : "+m"(*p), "=&a"(ax)::"cc", "memory");                           \
		return ax;                                                                         \
	}                                                                                          \
	static inline uint16_t NAME##BITS##lock(volatile uint##BITS##_t *p)                        \
	{                                                                                          \
		uint16_t ax;                                                                       \
		__asm__ volatile("lock " INSN " %0\n\t" CAPTURE_FLAGS                              \
				 : "+m"(*p), "=&a"(ax)::"cc", "memory");                           \
		return ax;                                                                         \
	}                                                                                          \
	static void NAME##_r##BITS(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                          \
		uint##BITS##_t v = REG##BITS(c, i->reg[0]);                                        \
		uint16_t ax = NAME##BITS##plain(&v);                                               \
		PUT##BITS(c, i->reg[0], v);                                                        \
		put_flags(c, ax, FLAGS);                                                           \
	}                                                                                          \
	static void NAME##_m##BITS(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                          \
		uint64_t at = ea(c, i);                                                            \
		uint##BITS##_t *p = rmw_ptr(c, i->seg, at, BITS / 8);                              \
		uint16_t ax;                                                                       \
		if (likely(p != NULL)) {                                                           \
			ax = i->flags & INSN_LOCK ? NAME##BITS##lock(p) : NAME##BITS##plain(p);    \
		} else {                                                                           \
			rmw_lock(c);                                                               \
			uint##BITS##_t v = rd##BITS(c, i->seg, at);                                \
			ax = NAME##BITS##plain(&v);                                                \
			wr##BITS(c, i->seg, at, v);                                                \
			rmw_unlock(c);                                                             \
		}                                                                                  \
		put_flags(c, ax, FLAGS);                                                           \
	}
#define UNARY_OP(NAME, FLAGS)                                                                      \
	UNARY(NAME, 8, #NAME "b", FLAGS)                                                           \
	UNARY(NAME, 16, #NAME "w", FLAGS)                                                          \
	UNARY(NAME, 32, #NAME "l", FLAGS)                                                          \
	UNARY(NAME, 64, #NAME "q", FLAGS)                                                          \
	static op_fn *const NAME##_forms[4][2] = {{NAME##_r8, NAME##_m8},                          \
						  {NAME##_r16, NAME##_m16},                        \
						  {NAME##_r32, NAME##_m32},                        \
						  {NAME##_r64, NAME##_m64}};

UNARY_OP(inc, FLAGS_ARITH & ~FLAG_CF)
UNARY_OP(dec, FLAGS_ARITH & ~FLAG_CF)
UNARY_OP(neg, FLAGS_ARITH)
UNARY_OP(not, 0)

/* ---- selection ---- */

static unsigned size_log2(unsigned size)
{
	return (unsigned)__builtin_ctz(size);
}

static op_fn *binary(op_fn *const forms[4][FORM_NR], const struct insn *i)
{
	op_fn *const *f = forms[size_log2(i->size[0])];

	if (i->flags & INSN_DST_MEM)
		return f[i->reg[1] != REG_NONE ? M_R : M_I];
	if (i->flags & INSN_MEM)
		return f[R_M];
	return f[i->reg[1] != REG_NONE ? R_R : R_I];
}

static op_fn *unary(op_fn *const forms[4][2], const struct insn *i)
{
	return forms[size_log2(i->size[0])][!!(i->flags & INSN_MEM)];
}

op_fn *alu_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
		return binary(add_forms, i);
	case ZYDIS_MNEMONIC_OR:
		return binary(or_forms, i);
	case ZYDIS_MNEMONIC_ADC:
		return binary(adc_forms, i);
	case ZYDIS_MNEMONIC_SBB:
		return binary(sbb_forms, i);
	case ZYDIS_MNEMONIC_AND:
		return binary(and_forms, i);
	case ZYDIS_MNEMONIC_SUB:
		return binary(sub_forms, i);
	case ZYDIS_MNEMONIC_XOR:
		return binary(xor_forms, i);
	case ZYDIS_MNEMONIC_CMP:
		return binary(cmp_forms, i);
	case ZYDIS_MNEMONIC_TEST:
		return binary(test_forms, i);
	case ZYDIS_MNEMONIC_INC:
		return unary(inc_forms, i);
	case ZYDIS_MNEMONIC_DEC:
		return unary(dec_forms, i);
	case ZYDIS_MNEMONIC_NEG:
		return unary(neg_forms, i);
	case ZYDIS_MNEMONIC_NOT:
		return unary(not_forms, i);
	default:
		return NULL;
	}
}
