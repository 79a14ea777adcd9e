/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B. On plain memory the host's locked instruction does the
 * work, with and without the guest's LOCK.
 */
#define SUM_FLAGS(BITS)                                                                            \
	static uint16_t add_flags##BITS(uint##BITS##_t a, uint##BITS##_t b)                        \
	{                                                                                          \
		uint16_t ax;                                                                       \
		__asm__("add %[b], %[a]\n\t" CAPTURE_FLAGS                                         \
			: [a] "+q"(a), "=&a"(ax)                                                   \
			: [b] "q"(b)                                                               \
			: "cc");                                                                   \
		return ax;                                                                         \
	}                                                                                          \
	static uint16_t cmp_flags##BITS(uint##BITS##_t a, uint##BITS##_t b)                        \
	{                                                                                          \
		uint16_t ax;                                                                       \
		__asm__("cmp %[b], %[a]\n\t" CAPTURE_FLAGS                                         \
			: "=&a"(ax)                                                                \
			: [a] "q"(a), [b] "q"(b)                                                   \
			: "cc");                                                                   \
		return ax;                                                                         \
	}
SUM_FLAGS(8)
SUM_FLAGS(16)
SUM_FLAGS(32)
SUM_FLAGS(64)

static uint16_t add_flags(uint64_t a, uint64_t b, unsigned size)
{
	switch (size) {
	case 1:
		return add_flags8((uint8_t)a, (uint8_t)b);
	case 2:
		return add_flags16((uint16_t)a, (uint16_t)b);
	case 4:
		return add_flags32((uint32_t)a, (uint32_t)b);
	default:
		return add_flags64(a, b);
	}
}

static uint16_t cmp_flags(uint64_t a, uint64_t b, unsigned size)
{
	switch (size) {
	case 1:
		return cmp_flags8((uint8_t)a, (uint8_t)b);
	case 2:
		return cmp_flags16((uint16_t)a, (uint16_t)b);
	case 4:
		return cmp_flags32((uint32_t)a, (uint32_t)b);
	default:
		return cmp_flags64(a, b);
	}
}

static uint64_t fetch_add(void *p, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		return __atomic_fetch_add((uint8_t *)p, (uint8_t)v, __ATOMIC_SEQ_CST);
	case 2:
		return __atomic_fetch_add((uint16_t *)p, (uint16_t)v, __ATOMIC_SEQ_CST);
	case 4:
		return __atomic_fetch_add((uint32_t *)p, (uint32_t)v, __ATOMIC_SEQ_CST);
	default:
		return __atomic_fetch_add((uint64_t *)p, v, __ATOMIC_SEQ_CST);
	}
}

static void op_xadd(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->size[0];
	uint64_t add = get_reg(c, i->reg[1], size), old;

	if (!(i->flags & INSN_MEM)) {
		old = get_reg(c, i->reg[0], size);
		set_reg(c, i->reg[1], size, old);
		set_reg(c, i->reg[0], size, old + add);
		put_flags(c, add_flags(old, add, size), FLAGS_ARITH);
		return;
	}
	uint64_t at = ea(c, i);
	void *p = rmw_ptr(c, i->seg, at, size);
	if (likely(p != NULL)) {
		old = fetch_add(p, size, add);
	} else {
		rmw_lock(c);
		old = read_mem(c, i->seg, at, size);
		write_mem(c, i->seg, at, size, old + add);
		rmw_unlock(c);
	}
	set_reg(c, i->reg[1], size, old);
	put_flags(c, add_flags(old, add, size), FLAGS_ARITH);
}

/* Swaps in `to` if the place holds *expect; *expect gets what was there. */
static void compare_exchange(void *p, unsigned size, uint64_t *expect, uint64_t to)
{
	switch (size) {
	case 1:
		__atomic_compare_exchange_n((uint8_t *)p, (uint8_t *)expect, (uint8_t)to, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		break;
	case 2:
		__atomic_compare_exchange_n((uint16_t *)p, (uint16_t *)expect, (uint16_t)to, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		break;
	case 4:
		__atomic_compare_exchange_n((uint32_t *)p, (uint32_t *)expect, (uint32_t)to, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		break;
	default:
		__atomic_compare_exchange_n((uint64_t *)p, expect, to, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
		break;
	}
}

static void op_cmpxchg(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->size[0];
	uint64_t acc = get_reg(c, RAX, size), to = get_reg(c, i->reg[1], size), old = acc;

	if (!(i->flags & INSN_MEM)) {
		old = get_reg(c, i->reg[0], size);
		/* Not written at all, its upper half included, when they differ. */
		if (old == acc)
			set_reg(c, i->reg[0], size, to);
	} else {
		uint64_t at = ea(c, i);
		void *p = rmw_ptr(c, i->seg, at, size);
		if (likely(p != NULL)) {
			compare_exchange(p, size, &old, to);
		} else {
			rmw_lock(c);
			old = read_mem(c, i->seg, at, size);
			write_mem(c, i->seg, at, size, old == acc ? to : old);
			rmw_unlock(c);
		}
	}
	if (old != acc)
		set_reg(c, RAX, size, old);
	put_flags(c, cmp_flags(acc, old, size), FLAGS_ARITH);
}

static void set_zf(struct soft_cpu *c, bool zf)
{
	c->s.rflags = (c->s.rflags & ~FLAG_ZF) | (zf ? FLAG_ZF : 0);
}

static void op_cmpxchg8b(struct soft_cpu *c, const struct insn *i)
{
	uint64_t at = ea(c, i);
	uint64_t expect = (uint64_t)(uint32_t)c->s.gpr[RDX] << 32 | (uint32_t)c->s.gpr[RAX];
	uint64_t to = (uint64_t)(uint32_t)c->s.gpr[RCX] << 32 | (uint32_t)c->s.gpr[RBX];
	uint64_t old = expect;
	void *p = rmw_ptr(c, i->seg, at, 8);

	if (likely(p != NULL)) {
		compare_exchange(p, 8, &old, to);
	} else {
		rmw_lock(c);
		old = rd64(c, i->seg, at);
		wr64(c, i->seg, at, old == expect ? to : old);
		rmw_unlock(c);
	}
	if (old != expect) {
		c->s.gpr[RAX] = (uint32_t)old;
		c->s.gpr[RDX] = old >> 32;
	}
	set_zf(c, old == expect);
}

static bool cmpxchg16b(void *p, uint64_t *lo, uint64_t *hi, uint64_t to_lo, uint64_t to_hi)
{
	bool ok;

	__asm__ volatile("lock cmpxchg16b %[p]\n\tsete %[ok]"
			 : [p] "+m"(*(unsigned __int128 *)p), "+a"(*lo), "+d"(*hi), [ok] "=q"(ok)
			 : "b"(to_lo), "c"(to_hi)
			 : "cc", "memory");
	return ok;
}

static void op_cmpxchg16b(struct soft_cpu *c, const struct insn *i)
{
	uint64_t at = ea(c, i);
	uint64_t lo = c->s.gpr[RAX], hi = c->s.gpr[RDX];

	if ((c->seg_base[i->seg] + at) & 15)
		cpu_gp0(c);
	void *p = rmw_ptr(c, i->seg, at, 16);
	bool ok;
	if (likely(p != NULL)) {
		ok = cmpxchg16b(p, &lo, &hi, c->s.gpr[RBX], c->s.gpr[RCX]);
	} else {
		uint64_t old[2];
		rmw_lock(c);
		cpu_read(c, i->seg, at, old, 16);
		ok = old[0] == lo && old[1] == hi;
		uint64_t to[2] = {ok ? c->s.gpr[RBX] : old[0], ok ? c->s.gpr[RCX] : old[1]};
		cpu_write(c, i->seg, at, to, 16);
		rmw_unlock(c);
		lo = old[0];
		hi = old[1];
	}
	if (!ok) {
		c->s.gpr[RAX] = lo;
		c->s.gpr[RDX] = hi;
	}
	set_zf(c, ok);
}

op_fn *atomic_select(const struct decoded *d, struct insn *i)
{
	(void)i;
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_XADD:
		return op_xadd;
	case ZYDIS_MNEMONIC_CMPXCHG:
		return op_cmpxchg;
	case ZYDIS_MNEMONIC_CMPXCHG8B:
		return op_cmpxchg8b;
	case ZYDIS_MNEMONIC_CMPXCHG16B:
		return op_cmpxchg16b;
	default:
		return NULL;
	}
}
