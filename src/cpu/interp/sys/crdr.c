/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/sys/ctl.h"
#include "cpu/state/cpuid.h"

/*
 * Control and debug registers. Every check comes before the first change; what depends on a
 * register (the mode, the TLB, the PDPTEs) is brought up to date right after it.
 */
#define CR0_KNOWN                                                                                  \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)
#define CR4_KNOWN                                                                                  \
	(CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |         \
	 CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)
#define CR3_NO_FLUSH (UINT64_C(1) << 63)

/* DR6: B0 to B3, BD, BS, BT; the rest reads as ones or zeros (SDM Vol. 3, 17.2.3). */
#define DR6_KNOWN UINT64_C(0xe00f)
#define DR6_ONES UINT64_C(0xffff0ff0)
#define DR6_BD UINT64_C(0x2000)
#define DR7_KNOWN UINT64_C(0xffff23ff)
#define DR7_ONES UINT64_C(0x400)
#define DR7_ENABLES UINT64_C(0xff)
#define DR7_GD UINT64_C(0x2000)

/* The general register's value or place: 64 bits in 64-bit mode, else 32, whatever prefixes. */
static uint64_t reg_value(const struct soft_cpu *c, unsigned n)
{
	return c->mode == MODE_64 ? c->s.gpr[n] : (uint32_t)c->s.gpr[n];
}

static void set_reg_value(struct soft_cpu *c, unsigned n, uint64_t v)
{
	c->s.gpr[n] = c->mode == MODE_64 ? v : (uint32_t)v;
}

/* Loads the PDPTEs of PAE paging: into c->s.pdpte once they are good, #GP(0) otherwise. */
static void load_pdptes(struct soft_cpu *c, uint64_t cr3)
{
	if (mmu_load_pdptes(c->mem, cr3, c->s.pdpte) < 0)
		cpu_gp0(c);
}

static void check_paging_on(struct soft_cpu *c)
{
	const struct cpu_state *s = &c->s;

	if (!(s->efer & EFER_LME))
		return;
	/* Going to IA-32e mode: from 32-bit code, with PAE, on a 32-bit TSS (SDM Vol. 2, MOV CR). */
	uint32_t tss = s->tr.attr & SEG_TYPE;
	if (!(s->cr4 & CR4_PAE) || (s->seg[SEG_CS].attr & SEG_L) || tss == 1 || tss == 3)
		cpu_gp0(c);
}

static void write_cr0(struct soft_cpu *c, uint64_t v)
{
	struct cpu_state *s = &c->s;

	if (v >> 32)
		cpu_gp0(c);
	v = (v & CR0_KNOWN) | CR0_ET;
	uint64_t changed = v ^ s->cr0;
	if (((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
		cpu_gp0(c);
	if (changed & v & CR0_PG)
		check_paging_on(c);
	else if ((changed & CR0_PG) && (cpu_in_64bit(s) || (s->cr4 & CR4_PCIDE)))
		cpu_gp0(c);
	bool pae = (v & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LME);
	if (pae && (changed & (CR0_PG | CR0_CD | CR0_NW)))
		load_pdptes(c, s->cr3);

	s->cr0 = v;
	if ((v & CR0_PG) && (s->efer & EFER_LME))
		s->efer |= EFER_LMA;
	else
		s->efer &= ~EFER_LMA;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		cpu_flush_tlb(c, false);
	cpu_update_mode(c);
}

static void write_cr3(struct soft_cpu *c, uint64_t v)
{
	struct cpu_state *s = &c->s;

	/* "No flush" allows to keep translations; the TLB does not, the window does. */
	const bool flush = !(s->cr4 & CR4_PCIDE) || !(v & CR3_NO_FLUSH);
	if (s->cr4 & CR4_PCIDE)
		v &= ~CR3_NO_FLUSH;
	if (v >> cpuid_maxphyaddr())
		cpu_gp0(c);
	if ((s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !cpu_in_long_mode(s))
		load_pdptes(c, v);
	s->cr3 = v;
	cpu_switch_tlb(c, flush);
}

static void write_cr4(struct soft_cpu *c, uint64_t v)
{
	struct cpu_state *s = &c->s;
	uint64_t changed = v ^ s->cr4;

	if (v & ~CR4_KNOWN)
		cpu_gp0(c);
	if (cpu_in_long_mode(s) && !(v & CR4_PAE))
		cpu_gp0(c);
	if ((changed & v & CR4_PCIDE) && (!cpu_in_long_mode(s) || (s->cr3 & 0xfff)))
		cpu_gp0(c);
	bool pae = (s->cr0 & CR0_PG) && (v & CR4_PAE) && !cpu_in_long_mode(s);
	if (pae && (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)))
		load_pdptes(c, s->cr3);

	s->cr4 = v;
	if (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		cpu_flush_tlb(c, false);
	cpu_update_mode(c);
}

static void op_mov_to_cr(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v = reg_value(c, i->reg[1]);

	need_cpl0(c);
	c->vcpu.stats.count[EXIT_CR_WRITE]++;
	switch (i->reg[0]) {
	case 0:
		write_cr0(c, v);
		break;
	case 2:
		c->s.cr2 = v;
		break;
	case 3:
		write_cr3(c, v);
		break;
	case 4:
		write_cr4(c, v);
		break;
	default: /* 8: the select function lets no others through */
		if (v > 15)
			cpu_gp0(c);
		c->board.set_cr8(c->board.opaque, (uint8_t)v);
		break;
	}
}

static void op_mov_from_cr(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v;

	need_cpl0(c);
	switch (i->reg[1]) {
	case 0:
		v = c->s.cr0;
		break;
	case 2:
		v = c->s.cr2;
		break;
	case 3:
		v = c->s.cr3;
		break;
	case 4:
		v = c->s.cr4;
		break;
	default:
		v = c->board.get_cr8(c->board.opaque);
		break;
	}
	set_reg_value(c, i->reg[0], v);
}

static void op_clts(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
	c->vcpu.stats.count[EXIT_CR_WRITE]++;
	c->s.cr0 &= ~CR0_TS;
	cpu_update_mode(c);
}

static void op_lmsw(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c);
	uint64_t v = get_operand(c, i, 0);
	c->vcpu.stats.count[EXIT_CR_WRITE]++;
	/* PE, MP, EM, TS; PE can be set but not cleared. */
	write_cr0(c, (c->s.cr0 & ~UINT64_C(0xe)) | (v & 0xf));
}

static void op_smsw(struct soft_cpu *c, const struct insn *i)
{
	if ((c->s.cr4 & CR4_UMIP) && c->cpl)
		cpu_gp0(c);
	set_operand0(c, i, c->s.cr0);
}

/* ---- debug registers ---- */

/* The checks of both directions (SDM Vol. 3, 17.2.2 and 17.2.4); the register's real number. */
static unsigned check_dr(struct soft_cpu *c, unsigned n)
{
	if ((n == 4 || n == 5) && (c->s.cr4 & CR4_DE))
		cpu_ud(c);
	need_cpl0(c);
	if (c->s.dr7 & DR7_GD) {
		c->s.dr6 |= DR6_BD;
		c->s.dr7 &= ~DR7_GD; /* so that the handler can use them */
		c->s.debugctl = 0;
		cpu_raise(c, VEC_DB, 0);
	}
	c->vcpu.stats.count[EXIT_DR_ACCESS]++;
	return n == 4 || n == 5 ? n + 2 : n;
}

static void op_mov_to_dr(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = check_dr(c, i->reg[0]);
	uint64_t v = reg_value(c, i->reg[1]);

	if (n < 4) {
		c->s.dr[n] = v;
	} else {
		if (v >> 32)
			cpu_gp0(c);
		if (n == 6)
			c->s.dr6 = (v & DR6_KNOWN) | DR6_ONES;
		else
			c->s.dr7 = (v & DR7_KNOWN) | DR7_ONES;
	}
	if (n != 6 && (c->s.dr7 & DR7_ENABLES))
		cpu_flush_tlb(c, false); /* what is watched has changed */
	cpu_update_mode(c);
}

static void op_mov_from_dr(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = check_dr(c, i->reg[1]);

	if (n < 4)
		set_reg_value(c, i->reg[0], c->s.dr[n]);
	else
		set_reg_value(c, i->reg[0], n == 6 ? c->s.dr6 : c->s.dr7);
}

static bool is_class(const struct decoded *d, unsigned operand, ZydisRegisterClass class)
{
	return d->op[operand].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(d->op[operand].reg.value) == class;
}

static bool cr_exists(unsigned n)
{
	return n == 0 || n == 2 || n == 3 || n == 4 || n == 8;
}

static op_fn *mov_select_crdr(const struct decoded *d, struct insn *i)
{
	bool to_cr = is_class(d, 0, ZYDIS_REGCLASS_CONTROL);
	bool from_cr = is_class(d, 1, ZYDIS_REGCLASS_CONTROL);
	bool to_dr = is_class(d, 0, ZYDIS_REGCLASS_DEBUG);
	bool from_dr = is_class(d, 1, ZYDIS_REGCLASS_DEBUG);

	if (!to_cr && !from_cr && !to_dr && !from_dr)
		return NULL;
	unsigned n = i->reg[to_cr || to_dr ? 0 : 1];
	if ((i->flags & INSN_LOCK) || ((to_cr || from_cr) ? !cr_exists(n) : n > 7))
		return NULL; /* #UD */
	i->flags |= INSN_END;
	if (to_cr || from_cr)
		return to_cr ? op_mov_to_cr : op_mov_from_cr;
	return to_dr ? op_mov_to_dr : op_mov_from_dr;
}

op_fn *crdr_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		return mov_select_crdr(d, i);
	case ZYDIS_MNEMONIC_CLTS:
		i->flags |= INSN_END;
		return op_clts;
	case ZYDIS_MNEMONIC_LMSW:
		i->flags |= INSN_END;
		return op_lmsw;
	case ZYDIS_MNEMONIC_SMSW:
		return op_smsw;
	default:
		return NULL;
	}
}
