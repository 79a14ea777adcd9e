/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/sys/sys.h"

/*
 * Call gates (SDM Vol. 3, 5.8.3 to 5.8.5), and the pushes that they share with events: a whole
 * frame is checked against limits and pages (stack_probe) before any of it is written
 * (stack_push), and registers change after that, so that a fault leaves nothing half done.
 */
enum mmu_class stack_class(const struct soft_cpu *c, unsigned cpl)
{
	if (cpl == 3)
		return MMU_USER;
	return (c->s.cr4 & CR4_SMAP) && !(c->s.rflags & FLAG_AC) ? MMU_KERNEL : MMU_KERNEL_USER;
}

static uint64_t legacy_mask(const struct segment *ss)
{
	return (ss->attr & SEG_DB) ? UINT32_MAX : UINT16_MAX;
}

struct stack stack_current(const struct soft_cpu *c, bool own, unsigned ext)
{
	return (struct stack){
		.ss = c->s.seg[SEG_SS],
		.sp = c->s.gpr[RSP],
		.mask = cpu_stack_mask(c),
		.error = ext,
		.is_64bit = c->mode == MODE_64,
		.own = own,
		.class = c->data_class,
	};
}

struct stack stack_long(const struct soft_cpu *c, uint64_t sp, unsigned cpl, unsigned ext)
{
	return (struct stack){.sp = sp,
			      .mask = UINT64_MAX,
			      .error = ext,
			      .is_64bit = true,
			      .class = stack_class(c, cpl)};
}

/* #TS with the TSS's own selector when a field is outside it. */
static uint64_t read_tss(struct soft_cpu *c, unsigned offset, unsigned size, unsigned ext)
{
	uint64_t v = 0;

	if (offset + size - 1 > c->s.tr.limit)
		raise_sel(c, VEC_TS, c->s.tr.sel, ext);
	lin_read(c, c->s.tr.base + offset, &v, size, cpu_system_class(c));
	return v;
}

uint64_t stack_tss64(struct soft_cpu *c, unsigned cpl, unsigned ist, unsigned ext)
{
	uint64_t rsp = read_tss(c, ist ? 28 + 8 * ist : 4 + 8 * cpl, 8, ext);

	if (!cpu_is_canonical(rsp))
		cpu_raise(c, VEC_SS, ext);
	return rsp;
}

struct stack stack_inner(struct soft_cpu *c, unsigned cpl, unsigned ext, struct desc *ss_desc)
{
	bool is_32bit = c->s.tr.attr & SYS_TYPE_32;
	unsigned size = is_32bit ? 4 : 2;
	unsigned at = is_32bit ? 4 + 8 * cpl : 2 + 4 * cpl;
	/* Both fields must be there before either is read. */
	if (at + size + 2 - 1 > c->s.tr.limit)
		raise_sel(c, VEC_TS, c->s.tr.sel, ext);
	uint64_t sp = read_tss(c, at, size, ext);
	uint16_t sel = (uint16_t)read_tss(c, at + size, 2, ext);

	seg_check_stack(c, sel, cpl, VEC_TS, ext, ss_desc);
	struct segment ss = desc_segment(ss_desc, sel);
	return (struct stack){
		.ss = ss,
		.sp = sp,
		.mask = legacy_mask(&ss),
		.error = sel_error(sel) | ext,
		.class = stack_class(c, cpl),
	};
}

/* Is [off, off + size) inside the segment? */
static bool has_room(const struct segment *ss, uint64_t off, unsigned size)
{
	uint64_t last = off + size - 1;

	if (ss->attr & SEG_UNUSABLE)
		return false;
	if (attr_is_data(ss->attr) && (ss->attr & SEG_TYPE_DC))
		return off > ss->limit && last <= legacy_mask(ss);
	return last <= ss->limit;
}

static uint64_t stack_linear(const struct stack *st, uint64_t off)
{
	return st->is_64bit ? off : (uint32_t)(st->ss.base + off);
}

void stack_probe(struct soft_cpu *c, const struct stack *st, unsigned count, unsigned size)
{
	for (unsigned k = 1; k <= count; k++) {
		uint64_t off = (st->sp - (uint64_t)k * size) & st->mask;
		if (st->own) {
			cpu_probe(c, SEG_SS, off, size, true);
			continue;
		}
		bool ok = st->is_64bit ? cpu_is_canonical(off) && cpu_is_canonical(off + size - 1)
				       : has_room(&st->ss, off, size);
		if (!ok)
			cpu_raise(c, VEC_SS, st->error);
		lin_probe(c, stack_linear(st, off), size, st->class, true);
	}
}

void stack_push(struct soft_cpu *c, struct stack *st, const uint64_t *value, unsigned count,
		unsigned size)
{
	for (unsigned k = 0; k < count; k++) {
		st->sp = (st->sp & ~st->mask) | ((st->sp - size) & st->mask);
		uint64_t off = st->sp & st->mask;
		if (st->own)
			cpu_write(c, SEG_SS, off, &value[k], size);
		else
			lin_write(c, stack_linear(st, off), &value[k], size, st->class);
	}
}

void stack_set_sp(struct soft_cpu *c, const struct stack *st)
{
	if (st->mask == UINT16_MAX)
		set_reg(c, RSP, 2, st->sp);
	else
		c->s.gpr[RSP] = st->sp & st->mask;
}

uint64_t stack_peek(struct soft_cpu *c, uint64_t distance, unsigned size)
{
	return read_mem(c, SEG_SS, (c->s.gpr[RSP] + distance) & cpu_stack_mask(c), size);
}

/* ---- the gate and its target ---- */

struct gate_target {
	struct desc cs;
	struct segment seg; /* as CS at the level it will run at */
	uint64_t rip;
	unsigned cpl;
	unsigned size; /* of pushes, by the gate's type */
};

/* Rights to the gate itself; its second half in IA-32e mode (SDM figure 5-9). */
static void check_gate(struct soft_cpu *c, struct desc *gate)
{
	if (desc_dpl(gate) < c->cpl || desc_dpl(gate) < sel_rpl(gate->sel))
		raise_sel(c, VEC_GP, gate->sel, 0);
	if (cpu_in_long_mode(&c->s) && (!desc_find_high(c, gate) || (gate->high >> 40 & 0x1f)))
		raise_sel(c, VEC_GP, gate->sel, 0);
	if (!(gate->attr & SEG_P))
		raise_sel(c, VEC_NP, gate->sel, 0);
}

static void check_gate_code(struct soft_cpu *c, const struct desc *cs, bool jump)
{
	if (!attr_is_code(cs->attr) || desc_dpl(cs) > c->cpl)
		raise_sel(c, VEC_GP, cs->sel, 0);
	if (jump && !attr_is_conforming(cs->attr) && desc_dpl(cs) != c->cpl)
		raise_sel(c, VEC_GP, cs->sel, 0);
	if (cpu_in_long_mode(&c->s) && (cs->attr & (SEG_L | SEG_DB)) != SEG_L)
		raise_sel(c, VEC_GP, cs->sel, 0);
	if (!(cs->attr & SEG_P))
		raise_sel(c, VEC_NP, cs->sel, 0);
}

static struct gate_target gate_resolve(struct soft_cpu *c, struct desc *gate, bool jump)
{
	struct gate_target t;
	uint16_t sel = gate_selector(gate);
	bool is_16bit = desc_system_type(gate) == SYS_CALL_GATE16;

	check_gate(c, gate);
	if (sel_is_null(sel))
		cpu_gp0(c);
	desc_fetch(c, sel, &t.cs, VEC_GP, 0);
	check_gate_code(c, &t.cs, jump);
	t.rip = gate_offset(gate);
	if (is_16bit)
		t.rip &= 0xffff;
	t.size = is_16bit ? 2 : cpu_in_long_mode(&c->s) ? 8 : 4;
	t.cpl = attr_is_conforming(t.cs.attr) ? c->cpl : desc_dpl(&t.cs);
	t.seg = desc_segment(&t.cs, sel_error(sel) | t.cpl);
	return t;
}

static void enter(struct soft_cpu *c, const struct gate_target *t)
{
	c->s.seg[SEG_CS] = t->seg;
	c->next_rip = t->rip;
	cpu_update_mode(c);
}

void gate_jump(struct soft_cpu *c, struct desc *gate)
{
	struct gate_target t = gate_resolve(c, gate, true);

	check_target(c, &t.seg, t.rip, 0);
	desc_set_accessed(c, &t.cs);
	enter(c, &t);
}

static void call_same(struct soft_cpu *c, const struct gate_target *t)
{
	struct stack st = stack_current(c, true, 0);
	uint64_t frame[] = {c->s.seg[SEG_CS].sel, c->next_rip};

	/* Out of compatibility mode the pushes are the 64-bit target's. */
	if (t->size == 8 && c->mode != MODE_64)
		st = stack_long(c, c->s.gpr[RSP], c->cpl, 0);
	stack_probe(c, &st, 2, t->size);
	check_target(c, &t->seg, t->rip, 0);
	desc_set_accessed(c, &t->cs);
	stack_push(c, &st, frame, 2, t->size);
	stack_set_sp(c, &st);
	enter(c, t);
}

static void call_inner_long(struct soft_cpu *c, const struct gate_target *t)
{
	struct stack st = stack_long(c, stack_tss64(c, t->cpl, 0, 0), t->cpl, 0);
	uint64_t frame[] = {c->s.seg[SEG_SS].sel, c->s.gpr[RSP], c->s.seg[SEG_CS].sel, c->next_rip};

	stack_probe(c, &st, 4, 8);
	check_target(c, &t->seg, t->rip, 0);
	desc_set_accessed(c, &t->cs);
	stack_push(c, &st, frame, 4, 8);
	stack_set_sp(c, &st);
	c->s.seg[SEG_SS] = seg_null_stack((uint16_t)t->cpl, t->cpl);
	enter(c, t);
}

static void call_inner(struct soft_cpu *c, const struct gate_target *t, unsigned params)
{
	struct desc ss;
	struct stack st = stack_inner(c, t->cpl, 0, &ss);
	uint64_t frame[4 + 31];
	unsigned n = 0;

	frame[n++] = c->s.seg[SEG_SS].sel;
	frame[n++] = c->s.gpr[RSP];
	for (unsigned k = params; k-- > 0;)
		frame[n++] = stack_peek(c, (uint64_t)k * t->size, t->size);
	frame[n++] = c->s.seg[SEG_CS].sel;
	frame[n++] = c->next_rip;
	stack_probe(c, &st, n, t->size);
	check_target(c, &t->seg, t->rip, 0);
	desc_set_accessed(c, &ss);
	desc_set_accessed(c, &t->cs);
	stack_push(c, &st, frame, n, t->size);
	stack_set_sp(c, &st);
	c->s.seg[SEG_SS] = st.ss;
	enter(c, t);
}

void gate_call(struct soft_cpu *c, struct desc *gate)
{
	struct gate_target t = gate_resolve(c, gate, false);

	if (t.cpl == c->cpl)
		call_same(c, &t);
	else if (t.size == 8)
		call_inner_long(c, &t);
	else
		call_inner(c, &t, gate->raw >> 32 & 0x1f);
}

void gate_task(struct soft_cpu *c, const struct desc *gate, bool call)
{
	struct desc tss;
	uint16_t sel = gate_selector(gate);

	if (desc_dpl(gate) < c->cpl || desc_dpl(gate) < sel_rpl(gate->sel))
		raise_sel(c, VEC_GP, gate->sel, 0);
	if (!(gate->attr & SEG_P))
		raise_sel(c, VEC_NP, gate->sel, 0);
	task_gate_tss(c, sel, 0, &tss);
	task_switch(c, &tss, call ? TASK_CALL : TASK_JUMP, c->next_rip, c->s.rflags, 0, false, 0);
}
