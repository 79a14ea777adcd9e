/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/sys/sys.h"

/*
 * Event delivery (SDM Vol. 3 ch. 6, Vol. 2 INT n): through the real-mode vector table, 16- and
 * 32-bit gates of the IDT, task gates, and the 64-bit IDT with its interrupt stack table.
 *
 * Everything is worked out and checked first: gate, code segment, new stack, room for the whole
 * frame, target. Then the frame is written, then registers change. So a fault on the way (which the
 * run loop turns into a double fault where due) finds the state of before, except in a task switch,
 * whose later faults belong to the new task.
 *
 * Error codes carry EXT (bit 0) unless the event is INT n, INT3 or INTO, and IDT (bit 1) when they
 * name a gate (SDM 6.13).
 */
struct event {
	uint8_t vector;
	enum event_kind kind;
	bool has_error;
	uint32_t error;
	uint64_t rip;	/* to return to */
	uint64_t flags; /* as pushed */
	unsigned ext;
};

struct target {
	struct desc cs;
	struct segment seg;
	uint64_t rip;
	unsigned cpl;
	unsigned size;	     /* of pushes, by the gate's type */
	bool interrupt_gate; /* clears IF */
};

/* Registers after the frame is in memory. */
static void commit(struct soft_cpu *c, const struct target *t, const struct stack *st)
{
	uint64_t clear = FLAG_TF | FLAG_NT | FLAG_VM | FLAG_RF;

	if (t->interrupt_gate)
		clear |= FLAG_IF;
	stack_set_sp(c, st);
	c->s.seg[SEG_CS] = t->seg;
	c->s.rip = t->rip;
	c->s.rflags &= ~clear;
	cpu_update_mode(c);
}

/* ---- real mode ---- */

static void deliver_real(struct soft_cpu *c, const struct event *e)
{
	struct stack st = stack_current(c, false, 0);
	uint64_t frame[] = {e->flags, c->s.seg[SEG_CS].sel, e->rip};
	uint16_t entry[2];

	if (e->vector * 4u + 3 > c->s.idt.limit)
		cpu_raise(c, VEC_GP, e->vector * 8u + 2);
	lin_read(c, c->s.idt.base + e->vector * 4u, entry, sizeof(entry), cpu_system_class(c));
	stack_probe(c, &st, 3, 2);
	stack_push(c, &st, frame, 3, 2);
	stack_set_sp(c, &st);
	c->s.seg[SEG_CS] = seg_real(&c->s.seg[SEG_CS], entry[1]);
	c->s.rip = entry[0];
	c->s.rflags &= ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
	cpu_update_mode(c);
}

/* ---- gates ---- */

_Noreturn static void gate_fault(struct soft_cpu *c, const struct event *e, enum vector vector)
{
	cpu_raise(c, vector, e->vector * 8u + 2 + e->ext);
}

/* The IDT's entry: reads and checks it. types: those allowed, by bit. */
static void fetch_gate(struct soft_cpu *c, const struct event *e, unsigned types, struct desc *gate)
{
	bool is_long = cpu_in_long_mode(&c->s);
	unsigned bytes = is_long ? 16 : 8;
	uint64_t raw[2] = {0};

	if (e->vector * bytes + bytes - 1 > c->s.idt.limit)
		gate_fault(c, e, VEC_GP);
	gate->gva = c->s.idt.base + (uint64_t)e->vector * bytes;
	lin_read(c, gate->gva, raw, bytes, cpu_system_class(c));
	gate->raw = raw[0];
	gate->high = is_long ? raw[1] & UINT32_MAX : 0;
	gate->attr = raw[0] >> 40 & 0xff;
	if (!(types >> desc_system_type(gate) & 1))
		gate_fault(c, e, VEC_GP);
	if (e->kind == EVENT_SOFT_INT && desc_dpl(gate) < c->cpl)
		gate_fault(c, e, VEC_GP);
	if (!(gate->attr & SEG_P))
		gate_fault(c, e, VEC_NP);
}

static void resolve(struct soft_cpu *c, const struct event *e, const struct desc *gate,
		    struct target *t)
{
	uint16_t sel = gate_selector(gate);
	unsigned type = desc_system_type(gate);
	bool is_long = cpu_in_long_mode(&c->s);

	if (sel_is_null(sel))
		cpu_raise(c, VEC_GP, e->ext);
	desc_fetch(c, sel, &t->cs, VEC_GP, e->ext);
	if (!attr_is_code(t->cs.attr) || desc_dpl(&t->cs) > c->cpl)
		raise_sel(c, VEC_GP, sel, e->ext);
	if (is_long && (t->cs.attr & (SEG_L | SEG_DB)) != SEG_L)
		raise_sel(c, VEC_GP, sel, e->ext);
	if (!(t->cs.attr & SEG_P))
		raise_sel(c, VEC_NP, sel, e->ext);
	t->size = is_long ? 8 : (type & SYS_TYPE_32) ? 4 : 2;
	t->rip = gate_offset(gate);
	if (t->size == 2)
		t->rip &= 0xffff;
	t->interrupt_gate = !(type & 1);
	t->cpl = attr_is_conforming(t->cs.attr) ? c->cpl : desc_dpl(&t->cs);
	t->seg = desc_segment(&t->cs, sel_error(sel) | t->cpl);
	/* Out of virtual-8086 mode only to level 0. */
	if ((c->s.rflags & FLAG_VM) && t->cpl != 0)
		raise_sel(c, VEC_GP, sel, e->ext);
}

/* FLAGS, CS, IP and the error code, which every frame ends with. */
static unsigned frame_tail(const struct soft_cpu *c, const struct event *e, uint64_t *frame,
			   unsigned n)
{
	frame[n++] = e->flags;
	frame[n++] = c->s.seg[SEG_CS].sel;
	frame[n++] = e->rip;
	if (e->has_error)
		frame[n++] = e->error;
	return n;
}

static void deliver_same(struct soft_cpu *c, const struct event *e, struct target *t)
{
	struct stack st = stack_current(c, false, e->ext);
	uint64_t frame[4];
	unsigned n = frame_tail(c, e, frame, 0);

	stack_probe(c, &st, n, t->size);
	t->rip = check_target(c, &t->seg, t->rip, e->ext);
	desc_set_accessed(c, &t->cs);
	stack_push(c, &st, frame, n, t->size);
	commit(c, t, &st);
}

/* To an inner level; out of virtual-8086 mode the data segments are pushed too, and nulled. */
static void deliver_inner(struct soft_cpu *c, const struct event *e, struct target *t)
{
	static const uint8_t saved[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
	bool from_v86 = c->s.rflags & FLAG_VM;
	struct desc ss;
	struct stack st = stack_inner(c, t->cpl, e->ext, &ss);
	uint64_t frame[10];
	unsigned n = 0;

	for (unsigned k = 0; from_v86 && k < sizeof(saved); k++)
		frame[n++] = c->s.seg[saved[k]].sel;
	frame[n++] = c->s.seg[SEG_SS].sel;
	frame[n++] = c->s.gpr[RSP];
	n = frame_tail(c, e, frame, n);
	stack_probe(c, &st, n, t->size);
	t->rip = check_target(c, &t->seg, t->rip, e->ext);
	desc_set_accessed(c, &ss);
	desc_set_accessed(c, &t->cs);
	stack_push(c, &st, frame, n, t->size);
	for (unsigned k = 0; from_v86 && k < sizeof(saved); k++)
		c->s.seg[saved[k]] = seg_null(0);
	c->s.seg[SEG_SS] = st.ss;
	commit(c, t, &st);
}

/* SDM 6.14: the frame is always SS to RIP, on a stack aligned to 16 bytes. */
static void deliver_long(struct soft_cpu *c, const struct event *e)
{
	struct desc gate;
	struct target t;
	uint64_t frame[6] = {c->s.seg[SEG_SS].sel, c->s.gpr[RSP]};

	fetch_gate(c, e, 1 << SYS_INT_GATE32 | 1 << SYS_TRAP_GATE32, &gate);
	resolve(c, e, &gate, &t);
	unsigned ist = gate.raw >> 32 & 7;
	uint64_t rsp = c->s.gpr[RSP];
	if (ist || t.cpl != c->cpl)
		rsp = stack_tss64(c, t.cpl, ist, e->ext);
	struct stack st = stack_long(c, rsp & ~UINT64_C(15), t.cpl, e->ext);
	unsigned n = frame_tail(c, e, frame, 2);
	stack_probe(c, &st, n, 8);
	t.rip = check_target(c, &t.seg, t.rip, e->ext);
	desc_set_accessed(c, &t.cs);
	stack_push(c, &st, frame, n, 8);
	if (t.cpl != c->cpl)
		c->s.seg[SEG_SS] = seg_null_stack((uint16_t)t.cpl, t.cpl);
	commit(c, &t, &st);
}

static void deliver_protected(struct soft_cpu *c, const struct event *e)
{
	struct desc gate;
	struct desc tss;
	struct target t;

	fetch_gate(c, e,
		   1 << SYS_TASK_GATE | 1 << SYS_INT_GATE16 | 1 << SYS_TRAP_GATE16 |
			   1 << SYS_INT_GATE32 | 1 << SYS_TRAP_GATE32,
		   &gate);
	if (desc_system_type(&gate) == SYS_TASK_GATE) {
		task_gate_tss(c, gate_selector(&gate), e->ext, &tss);
		task_switch(c, &tss, TASK_INT, e->rip, e->flags, e->ext, e->has_error, e->error);
		return;
	}
	resolve(c, e, &gate, &t);
	if (t.cpl != c->cpl)
		deliver_inner(c, e, &t);
	else
		deliver_same(c, e, &t);
}

/* RF is pushed as 1 by faults, so that their restart meets no instruction breakpoint twice (SDM
 * 17.3.1.1); not by #DB itself, aborts, traps and interrupts. */
static bool pushes_rf(uint8_t vector, enum event_kind kind)
{
	return kind == EVENT_EXCEPTION && vector != VEC_DB && vector != VEC_DF && vector != VEC_MC;
}

void cpu_deliver(struct soft_cpu *c, uint8_t vector, enum event_kind kind, bool has_error,
		 uint32_t error, uint64_t return_rip)
{
	struct event e = {
		.vector = vector,
		.kind = kind,
		.has_error = has_error,
		.error = error,
		.rip = return_rip,
		.flags = c->s.rflags | (pushes_rf(vector, kind) ? FLAG_RF : 0),
		.ext = kind != EVENT_SOFT_INT,
	};

	if (!(c->s.cr0 & CR0_PE))
		deliver_real(c, &e);
	else if (cpu_in_long_mode(&c->s))
		deliver_long(c, &e);
	else
		deliver_protected(c, &e);
}

/* ---- INT n, INT3, INTO, INT1 ---- */

static void software(struct soft_cpu *c, uint8_t vector, enum event_kind kind)
{
	struct cpu_event event = {.kind = kind, .vector = vector, .rip = c->s.rip, .cr2 = c->s.cr2};

	c->vcpu.stats.count[EXIT_SOFT_INT]++;
	if (c->vcpu.tracer)
		vcpu_tell_tracers(&c->vcpu, &event);
	cpu_deliver(c, vector, kind, false, 0, c->next_rip);
	c->next_rip = c->s.rip;
}

static void op_int(struct soft_cpu *c, const struct insn *i)
{
	if (in_v86_mode(c) && cpu_iopl(c) < 3)
		cpu_gp0(c);
	software(c, (uint8_t)i->imm, EVENT_SOFT_INT);
}

static void op_int3(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	software(c, VEC_BP, EVENT_SOFT_INT);
}

static void op_into(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	if (c->s.rflags & FLAG_OF)
		software(c, VEC_OF, EVENT_SOFT_INT);
}

static void op_int1(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	software(c, VEC_DB, EVENT_ICEBP);
}

op_fn *int_select(const struct decoded *d, struct insn *i)
{
	op_fn *fn;

	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_INT:
		fn = op_int;
		break;
	case ZYDIS_MNEMONIC_INT3:
		fn = op_int3;
		break;
	case ZYDIS_MNEMONIC_INTO:
		fn = op_into;
		break;
	case ZYDIS_MNEMONIC_INT1:
		fn = op_int1;
		break;
	default:
		return NULL;
	}
	i->flags |= INSN_END;
	return fn;
}
