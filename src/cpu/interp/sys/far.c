/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/sys/sys.h"

/*
 * Far JMP, CALL and RET in every mode (SDM Vol. 2, their pages; Vol. 3, 5.8). The order of checks
 * is the manual's.
 */
struct far_ptr {
	uint16_t sel;
	uint64_t offset;
};

static struct far_ptr far_operand(struct soft_cpu *c, const struct insn *i)
{
	struct far_ptr p = {.sel = i->imm2, .offset = i->imm & size_mask(i->width)};
	uint8_t buf[10];

	if (!(i->flags & INSN_MEM))
		return p;
	/* AMD's have no 64-bit offsets in far pointers (APM Vol. 3, JMP far). */
	unsigned size = i->width == 8 && c->vendor_amd ? 4 : i->width;
	cpu_read(c, i->seg, cpu_ea(c, i), buf, size + 2);
	p.offset = 0;
	memcpy(&p.offset, buf, size);
	memcpy(&p.sel, buf + size, 2);
	return p;
}

static void enter(struct soft_cpu *c, const struct segment *cs, uint64_t rip)
{
	c->s.seg[SEG_CS] = *cs;
	c->next_rip = rip;
	cpu_update_mode(c);
}

static struct segment real_cs(const struct soft_cpu *c, uint16_t sel)
{
	return in_v86_mode(c) ? seg_v86(sel) : seg_real(&c->s.seg[SEG_CS], sel);
}

/* A code segment named directly: no change of level. */
static struct segment direct_code(struct soft_cpu *c, const struct desc *d)
{
	desc_check_code(c, d, VEC_GP, 0);
	if (attr_is_conforming(d->attr) ? desc_dpl(d) > c->cpl
					: sel_rpl(d->sel) > c->cpl || desc_dpl(d) != c->cpl)
		raise_sel(c, VEC_GP, d->sel, 0);
	if (!(d->attr & SEG_P))
		raise_sel(c, VEC_NP, d->sel, 0);
	return desc_segment(d, sel_error(d->sel) | c->cpl);
}

/* A TSS named directly; none in IA-32e mode. */
static void direct_tss(struct soft_cpu *c, const struct desc *d, bool call)
{
	if (desc_dpl(d) < c->cpl || desc_dpl(d) < sel_rpl(d->sel) || sel_is_local(d->sel))
		raise_sel(c, VEC_GP, d->sel, 0);
	if (!(d->attr & SEG_P))
		raise_sel(c, VEC_NP, d->sel, 0);
	task_switch(c, d, call ? TASK_CALL : TASK_JUMP, c->next_rip, c->s.rflags, 0, false, 0);
}

/* System descriptors a far transfer may name. */
static void far_system(struct soft_cpu *c, struct desc *d, bool call)
{
	unsigned type = desc_system_type(d);
	bool legacy = !cpu_in_long_mode(&c->s);

	if (type == SYS_CALL_GATE32 || (type == SYS_CALL_GATE16 && legacy)) {
		if (call)
			gate_call(c, d);
		else
			gate_jump(c, d);
	} else if (type == SYS_TASK_GATE && legacy) {
		gate_task(c, d, call);
	} else if ((type == SYS_TSS16 || type == SYS_TSS32) && legacy) {
		direct_tss(c, d, call);
	} else {
		raise_sel(c, VEC_GP, d->sel, 0);
	}
}

static void op_jmp_far(struct soft_cpu *c, const struct insn *i)
{
	struct far_ptr p = far_operand(c, i);
	struct segment cs;
	struct desc d;

	if (!in_protected_mode(c)) {
		cs = real_cs(c, p.sel);
		enter(c, &cs, check_target(c, &cs, p.offset, 0));
		return;
	}
	if (sel_is_null(p.sel))
		cpu_gp0(c);
	desc_fetch(c, p.sel, &d, VEC_GP, 0);
	if (!(d.attr & SEG_S)) {
		far_system(c, &d, false);
		return;
	}
	cs = direct_code(c, &d);
	uint64_t rip = check_target(c, &cs, p.offset, 0);
	desc_set_accessed(c, &d);
	enter(c, &cs, rip);
}

/* d: the descriptor whose accessed bit is to be set, NULL in real mode. */
static void push_and_enter(struct soft_cpu *c, const struct segment *cs, uint64_t offset,
			   unsigned size, const struct desc *d)
{
	struct stack st = stack_current(c, true, 0);
	uint64_t frame[] = {c->s.seg[SEG_CS].sel, c->next_rip};

	stack_probe(c, &st, 2, size);
	uint64_t rip = check_target(c, cs, offset, 0);
	if (d)
		desc_set_accessed(c, d);
	stack_push(c, &st, frame, 2, size);
	stack_set_sp(c, &st);
	enter(c, cs, rip);
}

static void op_call_far(struct soft_cpu *c, const struct insn *i)
{
	struct far_ptr p = far_operand(c, i);
	struct segment cs;
	struct desc d;

	if (!in_protected_mode(c)) {
		cs = real_cs(c, p.sel);
		push_and_enter(c, &cs, p.offset, i->width, NULL);
		return;
	}
	if (sel_is_null(p.sel))
		cpu_gp0(c);
	desc_fetch(c, p.sel, &d, VEC_GP, 0);
	if (!(d.attr & SEG_S)) {
		far_system(c, &d, true);
		return;
	}
	cs = direct_code(c, &d);
	push_and_enter(c, &cs, p.offset, i->width, &d);
}

/* ---- returns ---- */

void return_check_cs(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
	if (sel_is_null(sel))
		cpu_gp0(c);
	desc_fetch(c, sel, d, VEC_GP, 0);
	desc_check_code(c, d, VEC_GP, 0);
	if (sel_rpl(sel) < c->cpl)
		raise_sel(c, VEC_GP, sel, 0);
	if (attr_is_conforming(d->attr) ? desc_dpl(d) > sel_rpl(sel) : desc_dpl(d) != sel_rpl(sel))
		raise_sel(c, VEC_GP, sel, 0);
	if (!(d->attr & SEG_P))
		raise_sel(c, VEC_NP, sel, 0);
}

/* SS may be null for 64-bit code of levels 0 to 2 (SDM Vol. 3, 5.8.5.1). */
struct segment return_check_ss(struct soft_cpu *c, uint16_t sel, const struct segment *cs,
			       struct desc *d)
{
	unsigned cpl = sel_rpl(cs->sel);

	if (sel_is_null(sel) && cpu_in_long_mode(&c->s) && (cs->attr & SEG_L) && cpl < 3) {
		d->attr = SEG_TYPE_ACCESSED; /* nothing to set */
		return seg_null_stack(sel, cpl);
	}
	seg_check_stack(c, sel, cpl, VEC_GP, 0, d);
	return desc_segment(d, sel);
}

void return_to(struct soft_cpu *c, const struct segment *cs, uint64_t rip, const struct segment *ss,
	       uint64_t sp)
{
	unsigned old_cpl = c->cpl;

	c->s.seg[SEG_SS] = *ss;
	enter(c, cs, rip);
	if (c->mode == MODE_64)
		c->s.gpr[RSP] = sp;
	else
		set_reg(c, RSP, (ss->attr & SEG_DB) ? 4 : 2, sp);
	if (c->cpl != old_cpl) {
		seg_drop_inner(c, c->cpl);
		cpu_update_mode(c);
	}
}

static void set_sp(struct soft_cpu *c, uint64_t sp, uint64_t mask)
{
	if (mask == UINT16_MAX)
		set_reg(c, RSP, 2, sp);
	else
		c->s.gpr[RSP] = sp & mask;
}

static void ret_real(struct soft_cpu *c, unsigned size, unsigned extra)
{
	uint64_t rip = stack_peek(c, 0, size);
	struct segment cs = real_cs(c, (uint16_t)stack_peek(c, size, size));

	rip = check_target(c, &cs, rip, 0);
	set_sp(c, c->s.gpr[RSP] + 2 * size + extra, cpu_stack_mask(c));
	enter(c, &cs, rip);
}

static void ret_protected(struct soft_cpu *c, unsigned size, unsigned extra)
{
	struct desc cs_desc, ss_desc;
	uint64_t rip = stack_peek(c, 0, size);
	uint16_t sel = (uint16_t)stack_peek(c, size, size);

	return_check_cs(c, sel, &cs_desc);
	struct segment cs = desc_segment(&cs_desc, sel);
	if (sel_rpl(sel) == c->cpl) {
		uint64_t mask = cpu_stack_mask(c);
		rip = check_target(c, &cs, rip, 0);
		desc_set_accessed(c, &cs_desc);
		set_sp(c, c->s.gpr[RSP] + 2 * size + extra, mask);
		enter(c, &cs, rip);
		return;
	}
	uint64_t sp = stack_peek(c, 2 * size + extra, size);
	uint16_t ss_sel = (uint16_t)stack_peek(c, 3 * size + extra, size);
	struct segment ss = return_check_ss(c, ss_sel, &cs, &ss_desc);
	rip = check_target(c, &cs, rip, 0);
	desc_set_accessed(c, &ss_desc);
	desc_set_accessed(c, &cs_desc);
	return_to(c, &cs, rip, &ss, sp + extra);
}

static void op_ret_far(struct soft_cpu *c, const struct insn *i)
{
	unsigned extra = (uint16_t)i->imm;

	if (in_protected_mode(c))
		ret_protected(c, i->width, extra);
	else
		ret_real(c, i->width, extra);
}

op_fn *far_select(const struct decoded *d, struct insn *i)
{
	bool is_far = d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
	op_fn *fn = NULL;

	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		fn = is_far ? op_jmp_far : NULL;
		break;
	case ZYDIS_MNEMONIC_CALL:
		fn = is_far ? op_call_far : NULL;
		break;
	case ZYDIS_MNEMONIC_RET:
		fn = is_far ? op_ret_far : NULL;
		break;
	default:
		break;
	}
	if (fn)
		i->flags |= INSN_END;
	return fn;
}
