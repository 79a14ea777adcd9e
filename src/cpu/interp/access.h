/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_ACCESS_H
#define HANOK_CPU_INTERP_ACCESS_H

#include "cpu/interp/interp.h"

/*
 * The fast paths of data access, inlined into the handlers: segment base added, one probe of the
 * TLB, one host access. Everything else is memory.c.
 */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define PAGE_MASK (~(uint64_t)(MEM_PAGE_BYTES - 1))

/* Slow paths (memory.c): all checks, misses, page crossings, MMIO. */
uint64_t data_read_slow(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned size);
void data_write_slow(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned size,
		     uint64_t value);

/*
 * The host address of size bytes at seg:offset for a read-modify-write, or NULL when they are not
 * plainly there (MMIO, page crossing): then rmw_read, compute, rmw_write. Raises what a write
 * raises.
 */
void *rmw_ptr_slow(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned size);

/* A locked access that is not plainly in memory: excludes others that take the same way. */
void rmw_lock(struct soft_cpu *c);
void rmw_unlock(struct soft_cpu *c);

static inline uint64_t flat_linear(const struct soft_cpu *c, unsigned seg, uint64_t offset)
{
	return (c->seg_base[seg] + offset) & c->lin_mask;
}

/* The host address on a TLB hit for all of size bytes, else NULL. */
static inline void *data_hit(struct soft_cpu *c, unsigned seg, uint64_t offset, unsigned size,
			     bool write)
{
	if (unlikely(!(c->seg_flat >> seg & 1)))
		return NULL;
	uint64_t gva = flat_linear(c, seg, offset);
	const struct tlb_entry *e = &c->tlb.data[c->data_class][tlb_index(gva)];
	uint64_t offset_in_page = gva ^ (write ? e->write : e->read);
	if (unlikely(offset_in_page > MEM_PAGE_BYTES - (uint64_t)size))
		return NULL;
	return (void *)(e->hva + offset_in_page);
}

#define DEFINE_ACCESS(BITS)                                                                        \
	static inline uint##BITS##_t rd##BITS(struct soft_cpu *c, unsigned seg, uint64_t offset)   \
	{                                                                                          \
		const volatile uint##BITS##_t *p = data_hit(c, seg, offset, BITS / 8, false);      \
		if (likely(p != NULL))                                                             \
			return *p;                                                                 \
		return (uint##BITS##_t)data_read_slow(c, seg, offset, BITS / 8);                   \
	}                                                                                          \
	static inline void wr##BITS(struct soft_cpu *c, unsigned seg, uint64_t offset,             \
				    uint##BITS##_t v)                                              \
	{                                                                                          \
		volatile uint##BITS##_t *p = data_hit(c, seg, offset, BITS / 8, true);             \
		if (likely(p != NULL))                                                             \
			*p = v;                                                                    \
		else                                                                               \
			data_write_slow(c, seg, offset, BITS / 8, v);                              \
	}
DEFINE_ACCESS(8)
DEFINE_ACCESS(16)
DEFINE_ACCESS(32)
DEFINE_ACCESS(64)

static inline void *rmw_ptr(struct soft_cpu *c, unsigned seg, uint64_t offset, unsigned size)
{
	void *p = data_hit(c, seg, offset, size, true);

	return likely(p != NULL) ? p : rmw_ptr_slow(c, seg, offset, size);
}

/* Registers as operands. AH to BH are REG_HIGH + n. */
static inline uint8_t *reg8(struct soft_cpu *c, unsigned n)
{
	return n < REG_HIGH ? (uint8_t *)&c->s.gpr[n] : (uint8_t *)&c->s.gpr[n - REG_HIGH] + 1;
}

static inline uint64_t get_reg(const struct soft_cpu *c, unsigned n, unsigned size)
{
	switch (size) {
	case 1:
		return *reg8((struct soft_cpu *)c, n);
	case 2:
		return (uint16_t)c->s.gpr[n];
	case 4:
		return (uint32_t)c->s.gpr[n];
	default:
		return c->s.gpr[n];
	}
}

/* 32-bit writes clear the upper half (SDM Vol. 1, 3.4.1.1). */
static inline void set_reg(struct soft_cpu *c, unsigned n, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		*reg8(c, n) = (uint8_t)v;
		break;
	case 2:
		*(uint16_t *)&c->s.gpr[n] = (uint16_t)v;
		break;
	case 4:
		c->s.gpr[n] = (uint32_t)v;
		break;
	default:
		c->s.gpr[n] = v;
		break;
	}
}

static inline uint64_t size_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

/* The offset of the memory operand, cut to the address size. */
static inline uint64_t ea(const struct soft_cpu *c, const struct insn *i)
{
	uint64_t a = (uint64_t)i->disp;

	if (i->base < GPR_NR)
		a += c->s.gpr[i->base];
	else if (i->base == REG_IP)
		a += c->s.rip + i->length;
	if (i->index < GPR_NR)
		a += c->s.gpr[i->index] * i->scale;
	if (likely(i->addr_bytes == 8))
		return a;
	return i->addr_bytes == 4 ? (uint32_t)a : (uint16_t)a;
}

static inline uint64_t read_mem(struct soft_cpu *c, unsigned seg, uint64_t offset, unsigned size)
{
	switch (size) {
	case 1:
		return rd8(c, seg, offset);
	case 2:
		return rd16(c, seg, offset);
	case 4:
		return rd32(c, seg, offset);
	default:
		return rd64(c, seg, offset);
	}
}

static inline void write_mem(struct soft_cpu *c, unsigned seg, uint64_t offset, unsigned size,
			     uint64_t v)
{
	switch (size) {
	case 1:
		wr8(c, seg, offset, (uint8_t)v);
		break;
	case 2:
		wr16(c, seg, offset, (uint16_t)v);
		break;
	case 4:
		wr32(c, seg, offset, (uint32_t)v);
		break;
	default:
		wr64(c, seg, offset, v);
		break;
	}
}

/* Operand k (0 or 1) as a value, whatever it is; and operand 0 as a destination. */
static inline uint64_t get_operand(struct soft_cpu *c, const struct insn *i, unsigned k)
{
	if (i->reg[k] != REG_NONE)
		return get_reg(c, i->reg[k], i->size[k]);
	if ((i->flags & INSN_MEM) && !!(i->flags & INSN_DST_MEM) == (k == 0))
		return read_mem(c, i->seg, ea(c, i), i->size[k]);
	return i->imm;
}

static inline void set_operand0(struct soft_cpu *c, const struct insn *i, uint64_t v)
{
	if (i->reg[0] != REG_NONE)
		set_reg(c, i->reg[0], i->size[0], v);
	else
		write_mem(c, i->seg, ea(c, i), i->size[0], v);
}

/*
 * The host's flags after an operation, as LAHF and SETO left them in AX, into the guest's: only
 * those in mask. The host CPU so computes the guest's flags, undefined ones included.
 */
static inline void put_flags(struct soft_cpu *c, uint16_t ax, uint64_t mask)
{
	uint64_t f = (uint64_t)(ax >> 8) | (uint64_t)(ax & 1) << 11;

	c->s.rflags = (c->s.rflags & ~mask) | (f & mask);
}
#define CAPTURE_FLAGS "lahf\n\tseto %%al"

/* Jumps: checks the target as a near branch does and makes it the next instruction. */
void cpu_near_jump(struct soft_cpu *c, uint64_t target);

static inline bool condition(const struct soft_cpu *c, unsigned cc)
{
	uint64_t f = c->s.rflags;
	bool r;

	switch (cc >> 1) {
	case 0:
		r = f & FLAG_OF;
		break;
	case 1:
		r = f & FLAG_CF;
		break;
	case 2:
		r = f & FLAG_ZF;
		break;
	case 3:
		r = f & (FLAG_CF | FLAG_ZF);
		break;
	case 4:
		r = f & FLAG_SF;
		break;
	case 5:
		r = f & FLAG_PF;
		break;
	case 6:
		r = (f >> 7 ^ f >> 11) & 1;
		break;
	default:
		r = ((f >> 7 ^ f >> 11) & 1) || (f & FLAG_ZF);
		break;
	}
	return r != (cc & 1);
}

#endif
