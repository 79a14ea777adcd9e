/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/sys/sys.h"

/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM Vol. 2, APM Vol. 3). Where the vendors differ:
 *
 *		Intel				AMD
 * SYSCALL	64-bit mode only		also compatibility (CSTAR) and legacy mode (STAR)
 * SYSRET	64-bit mode only		also compatibility and legacy mode
 *   to a non-canonical RCX
 *		#GP(0) at level 0		the fetch faults at level 3
 *   SS		loaded whole			selector only, rights kept
 * SYSENTER	any protected mode		not in long mode (#UD)
 */
enum {
	FLAT_CODE = SEG_P | SEG_S | SEG_TYPE_CODE | SEG_TYPE_WR | SEG_TYPE_ACCESSED | SEG_G,
	FLAT_DATA = SEG_P | SEG_S | SEG_TYPE_WR | SEG_TYPE_ACCESSED | SEG_G | SEG_DB,
};

static struct segment flat_code(unsigned sel, unsigned dpl, bool is_64bit)
{
	return (struct segment){
		.sel = (uint16_t)(sel_error((uint16_t)sel) | dpl),
		.attr = FLAT_CODE | dpl << SEG_DPL_SHIFT | (is_64bit ? SEG_L : SEG_DB),
		.limit = UINT32_MAX,
	};
}

static struct segment flat_data(unsigned sel, unsigned dpl)
{
	return (struct segment){
		.sel = (uint16_t)(sel_error((uint16_t)sel) | dpl),
		.attr = FLAT_DATA | dpl << SEG_DPL_SHIFT,
		.limit = UINT32_MAX,
	};
}

static void enter(struct soft_cpu *c, struct segment cs, struct segment ss, uint64_t rip)
{
	c->s.seg[SEG_CS] = cs;
	c->s.seg[SEG_SS] = ss;
	c->next_rip = rip;
	cpu_update_mode(c);
}

static void need_syscall(struct soft_cpu *c)
{
	if (!(c->s.efer & EFER_SCE) || (!c->vendor_amd && c->mode != MODE_64))
		cpu_ud(c);
}

/* The kernel's selectors: STAR bits 47:32 and the next descriptor. */
static void op_syscall(struct soft_cpu *c, const struct insn *i)
{
	unsigned sel = sel_error((uint16_t)(c->s.star >> 32));

	(void)i;
	need_syscall(c);
	if (!cpu_in_long_mode(&c->s)) {
		c->s.gpr[RCX] = (uint32_t)c->next_rip;
		cpu_set_flags(c, 0, FLAG_IF | FLAG_VM | FLAG_RF);
		enter(c, flat_code(sel, 0, false), flat_data(sel + 8, 0), (uint32_t)c->s.star);
		return;
	}
	uint64_t rip = c->mode == MODE_64 ? c->s.lstar : c->s.cstar;
	c->s.gpr[RCX] = c->next_rip;
	c->s.gpr[R11] = c->s.rflags & ~FLAG_RF;
	enter(c, flat_code(sel, 0, true), flat_data(sel + 8, 0), rip);
	cpu_set_flags(c, 0, (c->s.sfmask & UINT32_MAX) | FLAG_RF);
}

/* SS after SYSRET. AMD's keep its rights as they are, but for the level. */
static struct segment sysret_ss(const struct soft_cpu *c, unsigned sel)
{
	struct segment ss = c->s.seg[SEG_SS];

	if (!c->vendor_amd)
		return flat_data(sel, 3);
	ss.sel = sel_error((uint16_t)sel) | 3;
	ss.attr |= SEG_DPL;
	return ss;
}

static void op_sysret(struct soft_cpu *c, const struct insn *i)
{
	unsigned sel = sel_error((uint16_t)(c->s.star >> 48));
	bool to_64bit = i->width == 8;
	uint64_t rip = to_64bit ? c->s.gpr[RCX] : (uint32_t)c->s.gpr[RCX];

	need_syscall(c);
	if (c->cpl != 0 || !(c->s.cr0 & CR0_PE))
		cpu_gp0(c);
	if (to_64bit && !c->vendor_amd && !cpu_is_canonical(rip))
		cpu_gp0(c);
	if (cpu_in_long_mode(&c->s)) {
		enter(c, flat_code(to_64bit ? sel + 16 : sel, 3, to_64bit), sysret_ss(c, sel + 8),
		      rip);
		cpu_set_flags(c, c->s.gpr[R11] & ~(FLAG_RF | FLAG_VM), UINT64_MAX);
		/* A single-step trap that this TF brings comes at once, as if the system call of the
		 * outer level had just ended. */
		if (c->s.rflags & FLAG_TF)
			c->pending_dr6 |= UINT64_C(1) << 14;
	} else {
		enter(c, flat_code(sel, 3, false), sysret_ss(c, sel + 8), rip);
		cpu_set_flags(c, FLAG_IF, FLAG_IF);
	}
}

static void need_sysenter(struct soft_cpu *c)
{
	if (c->vendor_amd && cpu_in_long_mode(&c->s))
		cpu_ud(c);
	if (!(c->s.cr0 & CR0_PE) || !(c->s.sysenter_cs & 0xfffc))
		cpu_gp0(c);
}

static void op_sysenter(struct soft_cpu *c, const struct insn *i)
{
	unsigned sel = sel_error((uint16_t)c->s.sysenter_cs);
	bool is_long = cpu_in_long_mode(&c->s);

	(void)i;
	need_sysenter(c);
	cpu_set_flags(c, 0, FLAG_VM | FLAG_IF | FLAG_RF);
	c->s.gpr[RSP] = is_long ? c->s.sysenter_esp : (uint32_t)c->s.sysenter_esp;
	enter(c, flat_code(sel, 0, is_long), flat_data(sel + 8, 0),
	      is_long ? c->s.sysenter_eip : (uint32_t)c->s.sysenter_eip);
}

static void op_sysexit(struct soft_cpu *c, const struct insn *i)
{
	unsigned sel = sel_error((uint16_t)c->s.sysenter_cs);
	bool to_64bit = i->width == 8;
	uint64_t rip = to_64bit ? c->s.gpr[RDX] : (uint32_t)c->s.gpr[RDX];
	uint64_t rsp = to_64bit ? c->s.gpr[RCX] : (uint32_t)c->s.gpr[RCX];

	need_sysenter(c);
	if (c->cpl != 0 || !cpu_is_canonical(rip) || !cpu_is_canonical(rsp))
		cpu_gp0(c);
	c->s.gpr[RSP] = rsp;
	if (to_64bit)
		enter(c, flat_code(sel + 32, 3, true), flat_data(sel + 40, 3), rip);
	else
		enter(c, flat_code(sel + 16, 3, false), flat_data(sel + 24, 3), rip);
}

op_fn *syscall_select(const struct decoded *d, struct insn *i)
{
	op_fn *fn;

	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_SYSCALL:
		fn = op_syscall;
		break;
	case ZYDIS_MNEMONIC_SYSRET:
		fn = op_sysret;
		break;
	case ZYDIS_MNEMONIC_SYSENTER:
		fn = op_sysenter;
		break;
	case ZYDIS_MNEMONIC_SYSEXIT:
		fn = op_sysexit;
		break;
	default:
		return NULL;
	}
	i->flags |= INSN_END;
	return fn;
}
