/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/sys/sys.h"

/*
 * IRET in every mode (SDM Vol. 2, IRET/IRETD/IRETQ): real, virtual-8086, protected (same and outer
 * level, to virtual-8086 mode, from a nested task) and 64-bit.
 */

/* Flags an IRET of size bytes sets at the current level (SDM 3.4.3 and IRET's pseudo-code). */
static uint64_t flags_mask(const struct soft_cpu *c, unsigned size)
{
	uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

	if (size > 2)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (c->cpl <= cpu_iopl(c))
		mask |= FLAG_IF;
	if (c->cpl == 0) {
		mask |= FLAG_IOPL;
		if (size > 2)
			mask |= FLAG_VIF | FLAG_VIP;
	}
	return mask;
}

static void iret_real(struct soft_cpu *c, unsigned size)
{
	uint64_t rip = stack_peek(c, 0, size);
	uint16_t sel = (uint16_t)stack_peek(c, size, size);
	uint64_t flags = stack_peek(c, 2 * size, size);
	uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_IF;
	bool v86 = in_v86_mode(c);
	struct segment cs = v86 ? seg_v86(sel) : seg_real(&c->s.seg[SEG_CS], sel);
	struct stack st = stack_current(c, true, 0);

	if (size > 2)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (!v86)
		mask |= FLAG_IOPL;
	c->next_rip = check_target(c, &cs, rip, 0);
	c->s.seg[SEG_CS] = cs;
	st.sp += 3 * size;
	stack_set_sp(c, &st);
	cpu_set_flags(c, flags, mask);
	cpu_update_mode(c);
}

/* EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS. */
static void iret_to_v86(struct soft_cpu *c)
{
	static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	uint64_t rip = stack_peek(c, 0, 4);
	uint64_t flags = stack_peek(c, 8, 4);
	uint64_t sp = stack_peek(c, 12, 4);
	struct segment seg[SEG_NR];

	seg[SEG_CS] = seg_v86((uint16_t)stack_peek(c, 4, 4));
	for (unsigned k = 0; k < sizeof(order); k++)
		seg[order[k]] = seg_v86((uint16_t)stack_peek(c, 16 + 4 * k, 4));
	rip = check_target(c, &seg[SEG_CS], rip, 0);
	memcpy(c->s.seg, seg, sizeof(seg));
	c->next_rip = rip;
	c->s.gpr[RSP] = sp;
	c->s.rflags |= FLAG_VM; /* CPL 3 from here on */
	cpu_set_flags(c, flags, ~FLAG_VM);
	cpu_update_mode(c);
}

/* CPL and size decide which flags change, before CPL does. */
static void iret_same(struct soft_cpu *c, unsigned size, uint64_t rip, uint64_t flags,
		      const struct desc *cs_desc, const struct segment *cs)
{
	struct stack st = stack_current(c, true, 0);
	uint64_t mask = flags_mask(c, size);

	rip = check_target(c, cs, rip, 0);
	desc_set_accessed(c, cs_desc);
	st.sp += 3 * size;
	stack_set_sp(c, &st);
	c->s.seg[SEG_CS] = *cs;
	c->next_rip = rip;
	cpu_update_mode(c);
	cpu_set_flags(c, flags, mask);
}

static void iret_with_stack(struct soft_cpu *c, unsigned size, uint64_t rip, uint64_t flags,
			    const struct desc *cs_desc, const struct segment *cs)
{
	struct desc ss_desc;
	uint64_t sp = stack_peek(c, 3 * size, size);
	uint16_t ss_sel = (uint16_t)stack_peek(c, 4 * size, size);
	struct segment ss = return_check_ss(c, ss_sel, cs, &ss_desc);
	uint64_t mask = flags_mask(c, size);

	rip = check_target(c, cs, rip, 0);
	desc_set_accessed(c, &ss_desc);
	desc_set_accessed(c, cs_desc);
	return_to(c, cs, rip, &ss, sp);
	cpu_set_flags(c, flags, mask);
}

/* In 64-bit mode SS:RSP is always popped, elsewhere only when the level changes. */
static void iret_protected(struct soft_cpu *c, unsigned size)
{
	struct desc d;
	uint64_t rip = stack_peek(c, 0, size);
	uint16_t sel = (uint16_t)stack_peek(c, size, size);
	uint64_t flags = stack_peek(c, 2 * size, size);

	if (size == 4 && (flags & FLAG_VM) && c->cpl == 0 && !cpu_in_long_mode(&c->s)) {
		iret_to_v86(c);
		return;
	}
	return_check_cs(c, sel, &d);
	struct segment cs = desc_segment(&d, sel);
	if (c->mode == MODE_64 || sel_rpl(sel) != c->cpl)
		iret_with_stack(c, size, rip, flags, &d, &cs);
	else
		iret_same(c, size, rip, flags, &d, &cs);
}

/* NMIs are unblocked even when the IRET faults. */
static void op_iret(struct soft_cpu *c, const struct insn *i)
{
	c->s.nmi_blocked = false;
	if (in_v86_mode(c) && cpu_iopl(c) < 3)
		cpu_gp0(c);
	if (!in_protected_mode(c)) {
		iret_real(c, i->width);
	} else if (!(c->s.rflags & FLAG_NT)) {
		iret_protected(c, i->width);
	} else {
		if (cpu_in_long_mode(&c->s))
			cpu_gp0(c);
		task_return(c);
	}
}

op_fn *iret_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
		i->flags |= INSN_END;
		return op_iret;
	default:
		return NULL;
	}
}
