/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * SHL, SHR, SAR, ROL, ROR, RCL, RCR: the host's own instruction. A count of 0 (after masking to 5 or
 * 6 bits, SDM SAL/SAR/SHL/SHR) leaves the flags alone but still writes its destination; rotates change
 * only CF and OF.
 *
 * OF after other counts than 1 is undefined: it may be what it was, and that for a count in CL and not
 * for an immediate, or for a count that RCL and RCR of 8 and 16 bits bring back to where they began.
 * So the host sees OF and, for rotates, the very form of the instruction: an immediate count
 * where the guest has one. Shifts by an immediate leave what those by CL do.
 */

/* CF and OF as they are, loaded by adding the byte to itself: CF is its bit 7, OF that unlike bit 6. */
static inline uint8_t carry_and_overflow(uint64_t flags)
{
	unsigned cf = flags & FLAG_CF, of = flags >> 11 & 1;

	return (uint8_t)(cf << 7 | (cf ^ of) << 6);
}
#define LOAD_CARRY_OVERFLOW "addb %[in], %[in]\n\t"

/*
 * Rotates by each immediate, of RDX and of what RDX points to, which may differ just so: an entry
 * is the instruction and RET, in 8 bytes. BYTES are what the size needs before ModRM, whose reg is the operation.
 */
enum { ROTATE_ENTRY = 8 };
#define ROTATE_TABLE(NAME, BYTES, MODRM)                                                           \
	extern const uint8_t NAME[] __attribute__((visibility("hidden")));                         \
	__asm__(".pushsection .text\n\t"                                                           \
		".balign 8\n" #NAME ":\n\t"                                                        \
		".set hanok_rotate_count, 0\n\t"                                                   \
		".rept 64\n\t"                                                                     \
		".balign 8\n\t"                                                                    \
		".byte " BYTES ", " MODRM ", hanok_rotate_count\n\t"                               \
		"ret\n\t"                                                                          \
		".set hanok_rotate_count, hanok_rotate_count + 1\n\t"                              \
		".endr\n\t"                                                                        \
		".popsection");
#define ROTATE_PLACES(NAME, BITS, BYTES, REG)                                                      \
	ROTATE_TABLE(hanok_##NAME##BITS##_reg, BYTES, "0xc2 + (" REG " << 3)")                     \
	ROTATE_TABLE(hanok_##NAME##BITS##_mem, BYTES, "0x02 + (" REG " << 3)")
#define ROTATE_TABLES(NAME, REG)                                                                   \
	ROTATE_PLACES(NAME, 8, "0xc0", REG)                                                        \
	ROTATE_PLACES(NAME, 16, "0x66, 0xc1", REG)                                                 \
	ROTATE_PLACES(NAME, 32, "0xc1", REG)                                                       \
	ROTATE_PLACES(NAME, 64, "0x48, 0xc1", REG)
ROTATE_TABLES(rol, "0")
ROTATE_TABLES(ror, "1")
ROTATE_TABLES(rcl, "2")
ROTATE_TABLES(rcr, "3")

/* rdx: the value, or where it is. */
static inline uint16_t rotate_by(const uint8_t *table, uint64_t *rdx, uint8_t count, uint64_t flags)
{
	uint8_t in = carry_and_overflow(flags);
	uint16_t ax;

	__asm__ volatile(LOAD_CARRY_OVERFLOW "call *%[code]\n\t" CAPTURE_FLAGS
			 : "+&d"(*rdx), [in] "+&q"(in), "=&a"(ax)
			 : [code] "r"(table + count * ROTATE_ENTRY)
			 : "cc", "memory");
	return ax;
}

/* The count: CL, an immediate, or 1. */
static inline uint8_t shift_count(struct soft_cpu *c, const struct insn *i)
{
	return i->reg[1] != REG_NONE ? (uint8_t)c->s.gpr[RCX] : (uint8_t)i->imm;
}

static inline bool by_register(const struct insn *i)
{
	return i->reg[1] != REG_NONE;
}

/* One operation on a place: by CL, and by the immediate of i where that may leave something else. */
#define BY_CL(NAME, BITS, INSN)                                                                    \
	static inline uint16_t NAME##BITS##_cl(volatile uint##BITS##_t *p, uint8_t count,          \
					       uint64_t flags)                                     \
	{                                                                                          \
		uint8_t in = carry_and_overflow(flags);                                            \
		uint16_t ax;                                                                       \
		__asm__ volatile(LOAD_CARRY_OVERFLOW INSN " %%cl, %[p]\n\t" CAPTURE_FLAGS          \
				 : [p] "+m"(*p), [in] "+&q"(in), "=&a"(ax)                         \
				 : "c"(count)                                                      \
				 : "cc", "memory");                                                \
		return ax;                                                                         \
	}
#define SHIFT_DO(NAME, BITS)                                                                       \
	static inline uint16_t NAME##BITS##_do(uint##BITS##_t *p, const struct insn *i,            \
					       uint8_t count, uint64_t flags)                      \
	{                                                                                          \
		(void)i;                                                                           \
		return NAME##BITS##_cl(p, count, flags);                                           \
	}
#define ROTATE_DO(NAME, BITS)                                                                      \
	static inline uint16_t NAME##BITS##_do(uint##BITS##_t *p, const struct insn *i,            \
					       uint8_t count, uint64_t flags)                      \
	{                                                                                          \
		if (by_register(i))                                                                \
			return NAME##BITS##_cl(p, count, flags);                                   \
		uint64_t v = i->flags & INSN_MEM ? (uint64_t)p : *p;                               \
		uint16_t ax = rotate_by(i->flags & INSN_MEM ? hanok_##NAME##BITS##_mem             \
							    : hanok_##NAME##BITS##_reg,            \
					&v, count, flags);                                         \
		if (!(i->flags & INSN_MEM))                                                        \
			*p = (uint##BITS##_t)v;                                                    \
		return ax;                                                                         \
	}

#define SHIFT(NAME, BITS, INSN, DO, FLAGS)                                                         \
	BY_CL(NAME, BITS, INSN)                                                                    \
	DO(NAME, BITS)                                                                             \
	static inline void NAME##BITS##_on(struct soft_cpu *c, const struct insn *i,               \
					   uint##BITS##_t *p, uint8_t count)                       \
	{                                                                                          \
		count &= BITS == 64 ? 63 : 31;                                                     \
		if (count) {                                                                       \
			uint16_t ax = NAME##BITS##_do(p, i, count, c->s.rflags);                   \
			put_flags(c, ax, FLAGS);                                                   \
		}                                                                                  \
	}                                                                                          \
	static void NAME##_r##BITS(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                          \
		uint##BITS##_t v = (uint##BITS##_t)get_reg(c, i->reg[0], BITS / 8);                \
		NAME##BITS##_on(c, i, &v, shift_count(c, i));                                      \
		set_reg(c, i->reg[0], BITS / 8, v);                                                \
	}                                                                                          \
	static void NAME##_m##BITS(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                          \
		uint64_t at = ea(c, i);                                                            \
		uint8_t count = shift_count(c, i);                                                 \
		uint##BITS##_t *p = rmw_ptr(c, i->seg, at, BITS / 8);                              \
		if (likely(p != NULL)) {                                                           \
			NAME##BITS##_on(c, i, p, count);                                           \
			return;                                                                    \
		}                                                                                  \
		uint64_t flags = c->s.rflags;                                                      \
		uint##BITS##_t v = rd##BITS(c, i->seg, at);                                        \
		NAME##BITS##_on(c, i, &v, count);                                                  \
		uint64_t after = c->s.rflags;                                                      \
		c->s.rflags = flags; /* the write may still leave with an exit */                  \
		wr##BITS(c, i->seg, at, v);                                                        \
		c->s.rflags = after;                                                               \
	}
#define SHIFT_OP(NAME, DO, FLAGS)                                                                  \
	SHIFT(NAME, 8, #NAME "b", DO, FLAGS)                                                       \
	SHIFT(NAME, 16, #NAME "w", DO, FLAGS)                                                      \
	SHIFT(NAME, 32, #NAME "l", DO, FLAGS)                                                      \
	SHIFT(NAME, 64, #NAME "q", DO, FLAGS)                                                      \
	static op_fn *const NAME##_forms[4][2] = {{NAME##_r8, NAME##_m8},                          \
						  {NAME##_r16, NAME##_m16},                        \
						  {NAME##_r32, NAME##_m32},                        \
						  {NAME##_r64, NAME##_m64}};

SHIFT_OP(shl, SHIFT_DO, FLAGS_ARITH)
SHIFT_OP(shr, SHIFT_DO, FLAGS_ARITH)
SHIFT_OP(sar, SHIFT_DO, FLAGS_ARITH)
SHIFT_OP(rol, ROTATE_DO, FLAG_CF | FLAG_OF)
SHIFT_OP(ror, ROTATE_DO, FLAG_CF | FLAG_OF)
SHIFT_OP(rcl, ROTATE_DO, FLAG_CF | FLAG_OF)
SHIFT_OP(rcr, ROTATE_DO, FLAG_CF | FLAG_OF)

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
