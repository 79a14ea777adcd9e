/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * BT, BTS, BTR, BTC, BSF, BSR, POPCNT. With a register as the bit offset, the memory forms reach
 * beyond the operand: the offset selects the unit of the operand's size (SDM BT).
 */
enum bit_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

static enum bit_op bit_op_of(const struct insn *i)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_BTS:
		return BIT_SET;
	case ZYDIS_MNEMONIC_BTR:
		return BIT_RESET;
	case ZYDIS_MNEMONIC_BTC:
		return BIT_COMPLEMENT;
	default:
		return BIT_TEST;
	}
}

static uint64_t apply(enum bit_op op, uint64_t v, uint64_t bit)
{
	switch (op) {
	case BIT_SET:
		return v | bit;
	case BIT_RESET:
		return v & ~bit;
	case BIT_COMPLEMENT:
		return v ^ bit;
	default:
		return v;
	}
}

static void set_cf(struct soft_cpu *c, bool cf)
{
	c->s.rflags = (c->s.rflags & ~FLAG_CF) | (cf ? FLAG_CF : 0);
}

static void op_bit_reg(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->size[0];
	uint64_t v = get_reg(c, i->reg[0], size);
	uint64_t offset = i->reg[1] != REG_NONE ? c->s.gpr[i->reg[1]] : i->imm;
	uint64_t bit = UINT64_C(1) << (offset & (8 * size - 1));

	if (bit_op_of(i) != BIT_TEST)
		set_reg(c, i->reg[0], size, apply(bit_op_of(i), v, bit));
	set_cf(c, v & bit);
}

#define ATOMIC_BIT(TYPE)                                                                           \
	do {                                                                                       \
		TYPE *q = p;                                                                       \
		if (op == BIT_SET)                                                                 \
			return __atomic_fetch_or(q, (TYPE)bit, __ATOMIC_SEQ_CST);                  \
		if (op == BIT_RESET)                                                               \
			return __atomic_fetch_and(q, (TYPE)~bit, __ATOMIC_SEQ_CST);                \
		return __atomic_fetch_xor(q, (TYPE)bit, __ATOMIC_SEQ_CST);                         \
	} while (0)

/* Always atomic on the host: no harm where the guest has no LOCK. Returns the old value. */
static uint64_t apply_in_memory(void *p, unsigned size, enum bit_op op, uint64_t bit)
{
	if (size == 2)
		ATOMIC_BIT(uint16_t);
	if (size == 4)
		ATOMIC_BIT(uint32_t);
	ATOMIC_BIT(uint64_t);
}

static void op_bit_mem(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->size[0];
	enum bit_op op = bit_op_of(i);
	uint64_t at = ea(c, i), offset = i->imm;

	if (i->reg[1] != REG_NONE) {
		/* Signed offset in the operand's size, in whole units from the address. */
		unsigned shift = 64 - 8 * size;
		int64_t n = (int64_t)(c->s.gpr[i->reg[1]] << shift) >> shift;
		offset = (uint64_t)n;
		at += (uint64_t)((n >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * (int64_t)size);
		at &= size_mask(i->addr_bytes);
	}
	uint64_t bit = UINT64_C(1) << (offset & (8 * size - 1));
	uint64_t old;
	if (op == BIT_TEST) {
		set_cf(c, read_mem(c, i->seg, at, size) & bit);
		return;
	}
	void *p = rmw_ptr(c, i->seg, at, size);
	if (likely(p != NULL)) {
		old = apply_in_memory(p, size, op, bit);
	} else {
		rmw_lock(c);
		old = read_mem(c, i->seg, at, size);
		write_mem(c, i->seg, at, size, apply(op, old, bit));
		rmw_unlock(c);
	}
	set_cf(c, old & bit);
}

/* The host's instruction with the destination as an input: what happens for 0 (ZF set, the
 * destination as this kind of CPU leaves it) is then the host's too. */
#define SCAN(NAME, INSN, BITS)                                                                     \
	static void NAME##BITS(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		uint##BITS##_t src = (uint##BITS##_t)get_operand(c, i, 1);                         \
		uint64_t dst = c->s.gpr[i->reg[0]];                                                \
		uint64_t fl = c->s.rflags & FLAGS_ARITH;                                           \
		uint##BITS##_t out = (uint##BITS##_t)dst;                                          \
		__asm__ volatile("pushq %[fl]\n\tpopfq\n\t" INSN                                   \
				 " %[src], %[out]\n\tpushfq\n\tpopq %[fl]"                         \
				 : [out] "+r"(out), [fl] "+&r"(fl)                                 \
				 : [src] "r"(src)                                                  \
				 : "cc", "memory");                                                \
		if (src || BITS != 32)                                                             \
			set_reg(c, i->reg[0], BITS / 8, out);                                      \
		c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (fl & FLAGS_ARITH);                   \
	}
SCAN(bsf, "bsfw", 16)
SCAN(bsf, "bsfl", 32)
SCAN(bsf, "bsfq", 64)
SCAN(bsr, "bsrw", 16)
SCAN(bsr, "bsrl", 32)
SCAN(bsr, "bsrq", 64)

static void op_popcnt(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v = get_operand(c, i, 1);

	set_reg(c, i->reg[0], i->size[0], (uint64_t)__builtin_popcountll(v));
	c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (v ? 0 : FLAG_ZF);
}

op_fn *bits_select(const struct decoded *d, struct insn *i)
{
	static op_fn *const bsfs[] = {NULL, bsf16, bsf32, bsf64};
	static op_fn *const bsrs[] = {NULL, bsr16, bsr32, bsr64};

	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return i->flags & INSN_MEM ? op_bit_mem : op_bit_reg;
	case ZYDIS_MNEMONIC_BSF:
		return bsfs[__builtin_ctz(i->size[0])];
	case ZYDIS_MNEMONIC_BSR:
		return bsrs[__builtin_ctz(i->size[0])];
	case ZYDIS_MNEMONIC_POPCNT:
		return op_popcnt;
	default:
		return NULL;
	}
}
