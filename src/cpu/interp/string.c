/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS, with REP. One iteration is one step: registers are
 * brought up to date after each, so a fault or an exit in the middle leaves the state the manual
 * asks for and the instruction goes on from there. A long repetition gives way after CHUNK
 * iterations to let interrupts in: rip then stays at the instruction.
 *
 * What shows of an unfinished repetition differs. Intel's processors push RF as 1 with an event between
 * iterations (SDM Vol. 3, 18.3.1.1), keep the flags of before CMPS and SCAS till the end (SDM, REP: "may
 * be restored"), and first of all, were rCX 0, cut the registers to an address size of 32 bits; AMD's do
 * none of this.
 *
 * REP MOVS and REP STOS going upward between pages that are plainly in the TLB copy whole runs.
 */
enum { CHUNK = 4096 };

struct string_op {
	unsigned size; /* of an element */
	unsigned addr; /* bytes of the address size */
	uint64_t mask; /* of rSI, rDI, rCX */
	int64_t step;  /* by DF */
};

static struct string_op begin(const struct soft_cpu *c, const struct insn *i)
{
	struct string_op o = {.size = i->width, .addr = i->addr_bytes};

	o.mask = size_mask(o.addr);
	o.step = (c->s.rflags & FLAG_DF) ? -(int64_t)o.size : o.size;
	return o;
}

static uint64_t index_of(const struct soft_cpu *c, const struct string_op *o, enum gpr r)
{
	return c->s.gpr[r] & o->mask;
}

static void advance(struct soft_cpu *c, const struct string_op *o, enum gpr r, int64_t by)
{
	set_reg(c, r, o->addr, c->s.gpr[r] + (uint64_t)by);
}

/* ---- one iteration of each ---- */

typedef void iteration_fn(struct soft_cpu *c, const struct insn *i, const struct string_op *o);

static void iterate_movs(struct soft_cpu *c, const struct insn *i, const struct string_op *o)
{
	uint64_t v = read_mem(c, i->seg, index_of(c, o, RSI), o->size);

	write_mem(c, SEG_ES, index_of(c, o, RDI), o->size, v);
	advance(c, o, RSI, o->step);
	advance(c, o, RDI, o->step);
}

static void iterate_stos(struct soft_cpu *c, const struct insn *i, const struct string_op *o)
{
	(void)i;
	write_mem(c, SEG_ES, index_of(c, o, RDI), o->size, c->s.gpr[RAX]);
	advance(c, o, RDI, o->step);
}

static void iterate_lods(struct soft_cpu *c, const struct insn *i, const struct string_op *o)
{
	set_reg(c, RAX, o->size, read_mem(c, i->seg, index_of(c, o, RSI), o->size));
	advance(c, o, RSI, o->step);
}

static void compare(struct soft_cpu *c, uint64_t a, uint64_t b, unsigned size)
{
	/* At the top of 64 bits, so that one host compare gives CF, ZF, SF, OF for every size; AF
	 * and PF come from the low bits. */
	unsigned shift = 64 - 8 * size;
	uint16_t ax, low;

	__asm__("cmp %[b], %[a]\n\t" CAPTURE_FLAGS
		: "=&a"(ax)
		: [a] "r"(a << shift), [b] "r"(b << shift)
		: "cc");
	__asm__("cmpb %[b], %[a]\n\t" CAPTURE_FLAGS
		: "=&a"(low)
		: [a] "q"((uint8_t)a), [b] "q"((uint8_t)b)
		: "cc");
	put_flags(c, ax, FLAG_CF | FLAG_ZF | FLAG_SF | FLAG_OF);
	put_flags(c, low, FLAG_AF | FLAG_PF);
}

static void iterate_cmps(struct soft_cpu *c, const struct insn *i, const struct string_op *o)
{
	uint64_t a = read_mem(c, i->seg, index_of(c, o, RSI), o->size);
	uint64_t b = read_mem(c, SEG_ES, index_of(c, o, RDI), o->size);

	compare(c, a, b, o->size);
	advance(c, o, RSI, o->step);
	advance(c, o, RDI, o->step);
}

static void iterate_scas(struct soft_cpu *c, const struct insn *i, const struct string_op *o)
{
	(void)i;
	uint64_t b = read_mem(c, SEG_ES, index_of(c, o, RDI), o->size);

	compare(c, get_reg(c, RAX, o->size), b, o->size);
	advance(c, o, RDI, o->step);
}

static void iterate_ins(struct soft_cpu *c, const struct insn *i, const struct string_op *o)
{
	uint16_t port = (uint16_t)c->s.gpr[RDX];

	(void)i;
	/* The destination is checked first: what is read from a device must not be lost. */
	cpu_probe(c, SEG_ES, index_of(c, o, RDI), o->size, true);
	write_mem(c, SEG_ES, index_of(c, o, RDI), o->size, cpu_in(c, port, o->size));
	advance(c, o, RDI, o->step);
}

static void iterate_outs(struct soft_cpu *c, const struct insn *i, const struct string_op *o)
{
	uint64_t v = read_mem(c, i->seg, index_of(c, o, RSI), o->size);

	cpu_out(c, (uint16_t)c->s.gpr[RDX], o->size, (uint32_t)v);
	advance(c, o, RSI, o->step);
}

/* ---- runs of MOVS and STOS ---- */

/* Elements from offset on that lie in its page, upward. */
static uint64_t room_in_page(const struct soft_cpu *c, unsigned seg, uint64_t offset, unsigned size)
{
	return (MEM_PAGE_BYTES - (flat_linear(c, seg, offset) & ~PAGE_MASK)) / size;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Does as many elements at once as is plainly possible; 0: none. */
static uint64_t run_movs(struct soft_cpu *c, const struct insn *i, const struct string_op *o,
			 uint64_t count)
{
	uint64_t si = index_of(c, o, RSI), di = index_of(c, o, RDI);
	uint64_t n = least(count, least(room_in_page(c, i->seg, si, o->size),
					room_in_page(c, SEG_ES, di, o->size)));

	if (o->step < 0 || n < 2 || si + n * o->size > o->mask || di + n * o->size > o->mask)
		return 0;
	unsigned bytes = (unsigned)(n * o->size);
	const uint8_t *from = data_hit(c, i->seg, si, bytes, false);
	uint8_t *to = data_hit(c, SEG_ES, di, bytes, true);
	/* Overlap in the copying direction repeats a pattern, as the iterations would. */
	if (!from || !to || (to > from && to < from + bytes))
		return 0;
	memmove(to, from, bytes);
	advance(c, o, RSI, bytes);
	advance(c, o, RDI, bytes);
	return n;
}

static uint64_t run_stos(struct soft_cpu *c, const struct string_op *o, uint64_t count)
{
	uint64_t di = index_of(c, o, RDI), a = c->s.gpr[RAX];
	uint64_t n = least(count, room_in_page(c, SEG_ES, di, o->size));

	if (o->step < 0 || n < 2 || di + n * o->size > o->mask)
		return 0;
	uint8_t *to = data_hit(c, SEG_ES, di, (unsigned)(n * o->size), true);
	if (!to)
		return 0;
	if (o->size == 1) {
		memset(to, (uint8_t)a, n);
	} else {
		for (uint64_t k = 0; k < n; k++)
			memcpy(to + k * o->size, &a, o->size);
	}
	advance(c, o, RDI, (int64_t)(n * o->size));
	return n;
}

/* ---- repetition ---- */

/* Between two iterations: the instruction gives way and will go on from here. */
static void give_way(struct soft_cpu *c)
{
	c->next_rip = c->s.rip;
	if (!c->vendor_amd)
		c->s.rflags |= FLAG_RF;
}

static bool keeps_on(const struct soft_cpu *c, const struct insn *i, bool compares)
{
	if (!compares)
		return true;
	bool zf = c->s.rflags & FLAG_ZF;
	return i->flags & INSN_REPNE ? !zf : zf;
}

/* rCX, and the pointers of MOVS and STOS. */
static inline void cut_registers(struct soft_cpu *c, const struct string_op *o,
				 iteration_fn *iteration)
{
	if (c->vendor_amd || o->addr != 4)
		return;
	c->s.gpr[RCX] = (uint32_t)c->s.gpr[RCX];
	if (iteration == iterate_movs)
		c->s.gpr[RSI] = (uint32_t)c->s.gpr[RSI];
	if (iteration == iterate_movs || iteration == iterate_stos)
		c->s.gpr[RDI] = (uint32_t)c->s.gpr[RDI];
}

static inline void repeat(struct soft_cpu *c, const struct insn *i, iteration_fn *iteration,
			  bool compares)
{
	struct string_op o = begin(c, i);

	if (!(i->flags & (INSN_REP | INSN_REPNE))) {
		iteration(c, i, &o);
		return;
	}
	uint64_t left = index_of(c, &o, RCX), before = c->s.rflags;
	cut_registers(c, &o, iteration);
	for (unsigned steps = 1; left; steps++) {
		uint64_t done = 0;
		if (iteration == iterate_movs && !c->careful)
			done = run_movs(c, i, &o, left);
		else if (iteration == iterate_stos && !c->careful)
			done = run_stos(c, &o, left);
		if (!done) {
			iteration(c, i, &o);
			done = 1;
		}
		left -= done;
		set_reg(c, RCX, o.addr, left);
		cpu_replay_reset(c);
		if (!keeps_on(c, i, compares))
			break;
		if (compares && left && !c->vendor_amd)
			c->s.rflags = before;
		if (left && (steps == CHUNK || c->careful || c->break_block ||
			     atomic_load_explicit(&c->vcpu.requests, memory_order_relaxed))) {
			give_way(c);
			break;
		}
	}
}

static void op_movs(struct soft_cpu *c, const struct insn *i)
{
	repeat(c, i, iterate_movs, false);
}

static void op_stos(struct soft_cpu *c, const struct insn *i)
{
	repeat(c, i, iterate_stos, false);
}

static void op_lods(struct soft_cpu *c, const struct insn *i)
{
	repeat(c, i, iterate_lods, false);
}

static void op_cmps(struct soft_cpu *c, const struct insn *i)
{
	repeat(c, i, iterate_cmps, true);
}

static void op_scas(struct soft_cpu *c, const struct insn *i)
{
	repeat(c, i, iterate_scas, true);
}

static void op_ins(struct soft_cpu *c, const struct insn *i)
{
	cpu_check_io(c, (uint16_t)c->s.gpr[RDX], i->width);
	repeat(c, i, iterate_ins, false);
}

static void op_outs(struct soft_cpu *c, const struct insn *i)
{
	cpu_check_io(c, (uint16_t)c->s.gpr[RDX], i->width);
	repeat(c, i, iterate_outs, false);
}

op_fn *string_select(const struct decoded *d, struct insn *i)
{
	op_fn *fn;

	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSQ:
		fn = op_movs;
		break;
	case ZYDIS_MNEMONIC_MOVSD:
		if (d->z.meta.category != ZYDIS_CATEGORY_STRINGOP)
			return NULL; /* the SSE2 one */
		fn = op_movs;
		break;
	case ZYDIS_MNEMONIC_CMPSD:
		if (d->z.meta.category != ZYDIS_CATEGORY_STRINGOP)
			return NULL;
		fn = op_cmps;
		break;
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		fn = op_stos;
		break;
	case ZYDIS_MNEMONIC_LODSB:
	case ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_LODSD:
	case ZYDIS_MNEMONIC_LODSQ:
		fn = op_lods;
		break;
	case ZYDIS_MNEMONIC_CMPSB:
	case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSQ:
		fn = op_cmps;
		break;
	case ZYDIS_MNEMONIC_SCASB:
	case ZYDIS_MNEMONIC_SCASW:
	case ZYDIS_MNEMONIC_SCASD:
	case ZYDIS_MNEMONIC_SCASQ:
		fn = op_scas;
		break;
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_INSD:
		fn = op_ins;
		break;
	case ZYDIS_MNEMONIC_OUTSB:
	case ZYDIS_MNEMONIC_OUTSW:
	case ZYDIS_MNEMONIC_OUTSD:
		fn = op_outs;
		break;
	default:
		return NULL;
	}
	/* A repetition may stop half-way with rip at itself. */
	if (i->flags & (INSN_REP | INSN_REPNE))
		i->flags |= INSN_END;
	return fn;
}
