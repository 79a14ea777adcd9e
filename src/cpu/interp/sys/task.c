/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/sys/sys.h"

/*
 * Task switches of 16- and 32-bit protected mode (SDM Vol. 3, 8.3 and table 8-1). Two halves with
 * a point of no return between them: up to it nothing has changed and faults belong to the old
 * task; after it registers are the new task's, and what its LDT and segment selectors raise is
 * delivered in it, at its EIP.
 */
enum {
	TSS16_MIN_LIMIT = 0x2b,
	TSS32_MIN_LIMIT = 0x67,
	TSS16_SAVED_END = 0x29, /* the last byte a switch away writes */
	TSS32_SAVED_END = 0x5f,
	TSS32_CR3 = 0x1c,
	TSS32_EIP = 0x20,  /* then EFLAGS, EAX to EDI */
	TSS32_SEGS = 0x48, /* ES to GS, LDT: a doubleword each */
	TSS32_TRAP = 0x64,
	TSS16_IP = 0x0e, /* then FLAGS, AX to DI, ES to DS, LDT */
	TSS16_SEGS = 0x22,
	TSS16_LDT = 0x2a,
	DR7_LOCAL = 0x155, /* L0 to L3, LE */
	DR6_BT = 1 << 15,
};

/* The dynamic part of a TSS. */
struct task {
	uint32_t cr3, eip, eflags;
	uint32_t gpr[8];
	uint16_t seg[SEG_NR];
	uint16_t ldt;
	bool trap;
};

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return v;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

static bool is_32bit(uint32_t tss_attr)
{
	return tss_attr & SYS_TYPE_32;
}

/* ---- reading the new task ---- */

static void read_task32(struct task *t, const uint8_t *tss)
{
	t->cr3 = get32(tss + TSS32_CR3);
	t->eip = get32(tss + TSS32_EIP);
	t->eflags = get32(tss + TSS32_EIP + 4);
	for (unsigned k = 0; k < 8; k++)
		t->gpr[k] = get32(tss + TSS32_EIP + 8 + 4 * k);
	for (unsigned k = 0; k < SEG_NR; k++)
		t->seg[k] = get16(tss + TSS32_SEGS + 4 * k);
	t->ldt = get16(tss + TSS32_SEGS + 4 * SEG_NR);
	t->trap = tss[TSS32_TRAP] & 1;
}

/* The manual leaves the upper halves of the registers open; here they are 0. FS and GS are null. */
static void read_task16(struct task *t, const uint8_t *tss)
{
	t->eip = get16(tss + TSS16_IP);
	t->eflags = get16(tss + TSS16_IP + 2);
	for (unsigned k = 0; k < 8; k++)
		t->gpr[k] = get16(tss + TSS16_IP + 4 + 2 * k);
	for (unsigned k = SEG_ES; k <= SEG_DS; k++)
		t->seg[k] = get16(tss + TSS16_SEGS + 2 * k);
	t->ldt = get16(tss + TSS16_LDT);
}

static void read_task(struct soft_cpu *c, const struct desc *d, struct task *t)
{
	uint8_t tss[TSS32_MIN_LIMIT + 1];

	memset(t, 0, sizeof(*t));
	if (is_32bit(d->attr)) {
		lin_read(c, desc_base(d), tss, TSS32_MIN_LIMIT + 1, cpu_system_class(c));
		read_task32(t, tss);
	} else {
		lin_read(c, desc_base(d), tss, TSS16_MIN_LIMIT + 1, cpu_system_class(c));
		read_task16(t, tss);
	}
}

/* ---- checks before the point of no return ---- */

void task_gate_tss(struct soft_cpu *c, uint16_t sel, unsigned ext, struct desc *tss)
{
	if (sel_is_local(sel))
		raise_sel(c, VEC_GP, sel, ext);
	desc_fetch(c, sel, tss, VEC_GP, ext);
	unsigned type = desc_system_type(tss);
	if (type != SYS_TSS16 && type != SYS_TSS32)
		raise_sel(c, VEC_GP, sel, ext);
	if (!(tss->attr & SEG_P))
		raise_sel(c, VEC_NP, sel, ext);
}

static uint64_t current_tss_desc(const struct soft_cpu *c)
{
	return c->s.gdt.base + (c->s.tr.sel & ~7u);
}

/* Everything the switch writes before it can no longer fault. */
static void probe_writes(struct soft_cpu *c, const struct desc *tss, enum task_cause cause)
{
	enum mmu_class class = cpu_system_class(c);
	const struct segment *tr = &c->s.tr;

	if (is_32bit(tr->attr))
		lin_probe(c, tr->base + TSS32_EIP, TSS32_SAVED_END + 1 - TSS32_EIP, class, true);
	else
		lin_probe(c, tr->base + TSS16_IP, TSS16_SAVED_END + 1 - TSS16_IP, class, true);
	if (cause == TASK_CALL || cause == TASK_INT)
		lin_probe(c, desc_base(tss), 2, class, true);
	if (cause != TASK_IRET)
		lin_probe(c, tss->gva + 5, 1, class, true);
	if (cause == TASK_IRET || cause == TASK_JUMP)
		lin_probe(c, current_tss_desc(c) + 5, 1, class, true);
}

static void check_limits(struct soft_cpu *c, const struct desc *tss, unsigned ext)
{
	uint32_t min = is_32bit(tss->attr) ? TSS32_MIN_LIMIT : TSS16_MIN_LIMIT;
	uint32_t old_min = is_32bit(c->s.tr.attr) ? TSS32_SAVED_END : TSS16_SAVED_END;

	if (desc_limit(tss) < min)
		raise_sel(c, VEC_TS, tss->sel, ext);
	if (c->s.tr.limit < old_min)
		raise_sel(c, VEC_TS, c->s.tr.sel, ext);
}

/* ---- the switch ---- */

static void save_task(struct soft_cpu *c, uint32_t eip, uint32_t eflags)
{
	enum mmu_class class = cpu_system_class(c);
	uint64_t base = c->s.tr.base;

	if (is_32bit(c->s.tr.attr)) {
		uint32_t regs[10] = {eip, eflags};
		for (unsigned k = 0; k < 8; k++)
			regs[2 + k] = (uint32_t)c->s.gpr[k];
		lin_write(c, base + TSS32_EIP, regs, sizeof(regs), class);
		/* The reserved halves beside selectors stay. */
		for (unsigned k = 0; k < SEG_NR; k++)
			lin_write(c, base + TSS32_SEGS + 4 * k, &c->s.seg[k].sel, 2, class);
		return;
	}
	uint16_t regs[14] = {(uint16_t)eip, (uint16_t)eflags};
	for (unsigned k = 0; k < 8; k++)
		regs[2 + k] = (uint16_t)c->s.gpr[k];
	for (unsigned k = SEG_ES; k <= SEG_DS; k++)
		regs[10 + k] = c->s.seg[k].sel;
	lin_write(c, base + TSS16_IP, regs, sizeof(regs), class);
}

/* Memory: busy bits, the old task's state, the back link. */
static void write_tables(struct soft_cpu *c, const struct desc *tss, enum task_cause cause,
			 uint32_t eip, uint32_t eflags)
{
	if (cause == TASK_JUMP || cause == TASK_IRET)
		desc_set_busy(c, current_tss_desc(c), false);
	save_task(c, eip, eflags);
	if (cause == TASK_CALL || cause == TASK_INT)
		lin_write(c, desc_base(tss), &c->s.tr.sel, 2, cpu_system_class(c));
	if (cause != TASK_IRET)
		desc_set_busy(c, tss->gva, true);
}

/* Registers but for the hidden parts of segments: selectors are there, unusable. */
static void load_registers(struct soft_cpu *c, const struct desc *tss, const struct task *t,
			   uint64_t eflags)
{
	bool v86 = eflags & FLAG_VM;

	c->s.tr = (struct segment){.sel = tss->sel,
				   .attr = tss->attr | SYS_TYPE_BUSY,
				   .limit = desc_limit(tss),
				   .base = desc_base(tss)};
	c->s.cr0 |= CR0_TS;
	c->s.dr7 &= ~(uint64_t)DR7_LOCAL;
	for (unsigned k = 0; k < 8; k++)
		c->s.gpr[k] = t->gpr[k];
	c->s.rip = c->next_rip = t->eip;
	c->s.ldtr = seg_null(t->ldt);
	for (unsigned k = 0; k < SEG_NR; k++)
		c->s.seg[k] = v86 ? seg_v86(t->seg[k]) : seg_null(t->seg[k]);
	if (!v86)
		c->s.seg[SEG_SS] = seg_null_stack(t->seg[SEG_SS], sel_rpl(t->seg[SEG_CS]));
	cpu_set_flags(c, eflags, UINT64_MAX);
	cpu_update_mode(c);
}

/* CR3 of a 32-bit TSS; pdpte as read and checked before. */
static void load_cr3(struct soft_cpu *c, uint32_t cr3, const uint64_t pdpte[4])
{
	c->s.cr3 = cr3;
	if (c->s.cr4 & CR4_PAE)
		memcpy(c->s.pdpte, pdpte, sizeof(c->s.pdpte));
	cpu_flush_tlb(c, true);
}

/* ---- in the new task ---- */

static void load_ldt(struct soft_cpu *c, uint16_t sel, unsigned ext)
{
	struct desc d;

	if (sel_is_null(sel))
		return;
	if (sel_is_local(sel))
		raise_sel(c, VEC_TS, sel, ext);
	desc_fetch(c, sel, &d, VEC_TS, ext);
	if (desc_system_type(&d) != SYS_LDT || !(d.attr & SEG_P))
		raise_sel(c, VEC_TS, sel, ext);
	c->s.ldtr = (struct segment){
		.sel = sel, .attr = d.attr, .limit = desc_limit(&d), .base = desc_base(&d)};
}

static void load_code(struct soft_cpu *c, uint16_t sel, unsigned ext)
{
	struct desc d;

	if (sel_is_null(sel))
		raise_sel(c, VEC_TS, sel, ext);
	desc_fetch(c, sel, &d, VEC_TS, ext);
	desc_check_code(c, &d, VEC_TS, ext);
	if (attr_is_conforming(d.attr) ? desc_dpl(&d) > sel_rpl(sel) : desc_dpl(&d) != sel_rpl(sel))
		raise_sel(c, VEC_TS, sel, ext);
	if (!(d.attr & SEG_P))
		raise_sel(c, VEC_NP, sel, ext);
	desc_set_accessed(c, &d);
	c->s.seg[SEG_CS] = desc_segment(&d, sel);
	cpu_update_mode(c);
}

static void load_segments(struct soft_cpu *c, const struct task *t, unsigned ext)
{
	static const uint8_t data_segs[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
	struct desc d;

	load_code(c, t->seg[SEG_CS], ext);
	seg_check_stack(c, t->seg[SEG_SS], c->cpl, VEC_TS, ext, &d);
	desc_set_accessed(c, &d);
	c->s.seg[SEG_SS] = desc_segment(&d, t->seg[SEG_SS]);
	for (unsigned k = 0; k < sizeof(data_segs); k++) {
		uint16_t sel = t->seg[data_segs[k]];
		if (sel_is_null(sel))
			continue;
		seg_check_data(c, sel, c->cpl, VEC_TS, ext, &d);
		desc_set_accessed(c, &d);
		c->s.seg[data_segs[k]] = desc_segment(&d, sel);
	}
	cpu_update_mode(c);
}

static void push_error(struct soft_cpu *c, uint32_t error, unsigned ext)
{
	struct stack st = stack_current(c, false, ext);
	uint64_t value = error;
	unsigned size = is_32bit(c->s.tr.attr) ? 4 : 2;

	stack_probe(c, &st, 1, size);
	stack_push(c, &st, &value, 1, size);
	stack_set_sp(c, &st);
}

void task_switch(struct soft_cpu *c, const struct desc *tss, enum task_cause cause,
		 uint64_t return_rip, uint64_t flags, unsigned ext, bool has_error, uint32_t error)
{
	struct task t;
	uint64_t pdpte[4] = {0};
	bool new_cr3 = is_32bit(tss->attr) && (c->s.cr0 & CR0_PG);

	check_limits(c, tss, ext);
	read_task(c, tss, &t);
	probe_writes(c, tss, cause);
	if (new_cr3 && (c->s.cr4 & CR4_PAE) && mmu_load_pdptes(c->mem, t.cr3, pdpte) < 0)
		cpu_raise(c, VEC_GP, ext);
	if (cause == TASK_IRET)
		flags &= ~FLAG_NT;
	write_tables(c, tss, cause, (uint32_t)return_rip, (uint32_t)flags);

	uint64_t eflags = t.eflags;
	if (cause == TASK_CALL || cause == TASK_INT)
		eflags |= FLAG_NT;
	load_registers(c, tss, &t, eflags);
	c->vcpu.stats.count[EXIT_TASK_SWITCH]++;
	if (new_cr3)
		load_cr3(c, t.cr3, pdpte);

	load_ldt(c, t.ldt, ext);
	if (!(c->s.rflags & FLAG_VM))
		load_segments(c, &t, ext);
	if (t.trap)
		c->pending_dr6 |= DR6_BT;
	if (has_error)
		push_error(c, error, ext);
	check_target(c, &c->s.seg[SEG_CS], c->s.rip, ext);
}

void task_return(struct soft_cpu *c)
{
	struct desc tss;
	uint16_t link;

	lin_read(c, c->s.tr.base, &link, 2, cpu_system_class(c));
	if (sel_is_local(link))
		raise_sel(c, VEC_TS, link, 0);
	desc_fetch(c, link, &tss, VEC_TS, 0);
	unsigned type = desc_system_type(&tss);
	if (type != SYS_TSS16_BUSY && type != SYS_TSS32_BUSY)
		raise_sel(c, VEC_TS, link, 0);
	if (!(tss.attr & SEG_P))
		raise_sel(c, VEC_NP, link, 0);
	task_switch(c, &tss, TASK_IRET, c->next_rip, c->s.rflags, 0, false, 0);
}
