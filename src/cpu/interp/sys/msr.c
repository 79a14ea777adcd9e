/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/state/msr.h"

#include "cpu/interp/sys/ctl.h"
#include "cpu/state/cpuid.h"

/*
 * RDMSR and WRMSR. Three kinds of registers: those in cpu_state; those of devices that machine/
 * holds (the local APIC), by exit; and those that only describe or tune hardware, which read as a
 * quiet machine's do and take the writes operating systems make. All else is #GP(0).
 */
#define MTRR_CAP UINT64_C(0x508) /* 8 variable ranges, fixed ranges, write-combining */

static bool good_memory_type(uint64_t t)
{
	return t == 0 || t == 1 || (t >= 4 && t <= 6);
}

/* Eight memory types in a row, as in PAT (where UC- exists too) and fixed-range MTRRs. */
static bool good_memory_types(uint64_t v, bool pat)
{
	for (unsigned n = 0; n < 8; n++, v >>= 8)
		if (!good_memory_type(v & 0xff) && !(pat && (v & 0xff) == 7))
			return false;
	return true;
}

/* Number of a fixed-range MTRR in mtrr_fixed, or -1 (SDM Vol. 3 table 11-9). */
static int mtrr_fixed_number(uint32_t index)
{
	if (index == MSR_MTRR_FIX64K)
		return 0;
	if (index == MSR_MTRR_FIX16K || index == MSR_MTRR_FIX16K + 1)
		return 1 + (int)(index - MSR_MTRR_FIX16K);
	if (index >= MSR_MTRR_FIX4K && index < MSR_MTRR_FIX4K + 8)
		return 3 + (int)(index - MSR_MTRR_FIX4K);
	return -1;
}

/* The MTRR's place, or NULL when the number is none. */
static uint64_t *mtrr_place(struct cpu_state *s, uint32_t index)
{
	int fixed = mtrr_fixed_number(index);

	if (fixed >= 0)
		return &s->mtrr_fixed[fixed];
	if (index >= MSR_MTRR_VAR0 && index < MSR_MTRR_VAR0 + 2 * MTRR_VAR_NR)
		return &s->mtrr_var[index - MSR_MTRR_VAR0];
	return index == MSR_MTRR_DEF_TYPE ? &s->mtrr_def_type : NULL;
}

static bool mtrr_good(uint32_t index, uint64_t v)
{
	if (mtrr_fixed_number(index) >= 0)
		return good_memory_types(v, false);
	if (index == MSR_MTRR_DEF_TYPE)
		return !(v & ~UINT64_C(0xcff)) && good_memory_type(v & 0xff);
	if (v >> cpuid_maxphyaddr())
		return false;
	if (index & 1)
		return !(v & 0x7ff); /* mask: valid bit 11 */
	return !(v & 0xf00) && good_memory_type(v & 0xff);
}

static void write_efer(struct soft_cpu *c, uint64_t v)
{
	struct cpu_state *s = &c->s;
	uint64_t known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;

	if (c->vendor_amd)
		known |= EFER_AUTOIBRS;
	uint64_t changed = v ^ s->efer;
	if ((v & ~known) || ((changed & EFER_LME) && (s->cr0 & CR0_PG)))
		cpu_gp0(c);
	s->efer = (v & ~EFER_LMA) | (s->efer & EFER_LMA); /* LMA follows CR0.PG only */
	if (changed & EFER_NXE)
		cpu_flush_tlb(c, false);
	cpu_update_mode(c);
}

static void put_canonical(struct soft_cpu *c, uint64_t *place, uint64_t v)
{
	if (!cpu_is_canonical(v))
		cpu_gp0(c);
	*place = v;
}

/* Registers of 32 bits: Intel refuses the upper ones, AMD drops them. */
static void put_32(struct soft_cpu *c, uint64_t *place, uint64_t v)
{
	if (!c->vendor_amd && v >> 32)
		cpu_gp0(c);
	*place = (uint32_t)v;
}

/* AMD has SYSENTER in 32-bit code only, and keeps 32 bits of its registers (APM Vol. 2, 6.1.2). */
static void put_sysenter(struct soft_cpu *c, uint64_t *place, uint64_t v)
{
	if (c->vendor_amd)
		*place = (uint32_t)v;
	else
		put_canonical(c, place, v);
}

static void write_tsc(struct soft_cpu *c, uint64_t v)
{
	uint64_t delta = v - cpu_tsc(c);

	c->s.tsc_offset += delta;
	c->s.tsc_adjust += delta; /* SDM Vol. 3, 17.17.3 */
}

static void write_tsc_adjust(struct soft_cpu *c, uint64_t v)
{
	c->s.tsc_offset += v - c->s.tsc_adjust;
	c->s.tsc_adjust = v;
}

static void write_seg_base(struct soft_cpu *c, enum seg_reg seg, uint64_t v)
{
	put_canonical(c, &c->s.seg[seg].base, v);
	cpu_update_mode(c);
}

/* ---- registers that only describe or tune ---- */

enum quiet_vendor { INTEL = 1, AMD = 2, ANY = 3 };
enum quiet_write { FAULTS, IGNORED, ZERO_ONLY };

static const struct quiet_msr {
	uint32_t index;
	uint8_t vendor;
	uint8_t write;
	bool write_only;
	uint64_t value;
} quiet_msrs[] = {
	{MSR_PLATFORM_ID, INTEL, FAULTS},
	{MSR_EBL_CR_POWERON, INTEL, IGNORED},
	{MSR_SMI_COUNT, INTEL, FAULTS},
	{MSR_FEATURE_CONTROL, INTEL, FAULTS, .value = 1}, /* locked, nothing on */
	{MSR_BIOS_UPDT_TRIG, INTEL, IGNORED, .write_only = true},
	{MSR_PLATFORM_INFO, INTEL, FAULTS},
	{MSR_MISC_FEATURE_ENABLES, INTEL, ZERO_ONLY},
	{MSR_XSS, ANY, ZERO_ONLY},  /* no supervisor state components */
	{MSR_MCG_CAP, ANY, FAULTS}, /* no banks */
	{MSR_LAST_BRANCH_FROM, ANY, FAULTS},
	{MSR_LAST_BRANCH_FROM + 1, ANY, FAULTS},
	{MSR_LAST_BRANCH_FROM + 2, ANY, FAULTS},
	{MSR_LAST_INT_TO, ANY, FAULTS},
	{MSR_AMD_SYSCFG, AMD, IGNORED},
	{MSR_AMD_HWCR, AMD, IGNORED, .value = UINT64_C(1) << 24}, /* the TSC runs at P0's rate */
	{MSR_AMD_IORR_BASE0, AMD, IGNORED},
	{MSR_AMD_IORR_BASE0 + 1, AMD, IGNORED},
	{MSR_AMD_IORR_BASE0 + 2, AMD, IGNORED},
	{MSR_AMD_IORR_MASK1, AMD, IGNORED},
	{MSR_AMD_TOP_MEM, AMD, IGNORED},
	{MSR_AMD_TOP_MEM2, AMD, IGNORED},
	{MSR_AMD_NB_CFG, AMD, IGNORED},
	{MSR_AMD_PATCH_LOADER, AMD, IGNORED, .write_only = true},
	{MSR_AMD_INT_PENDING, AMD, IGNORED},
	{MSR_AMD_MMIO_CONF_BASE, AMD, IGNORED},
	{MSR_AMD_SMM_BASE, AMD, FAULTS},
	{MSR_AMD_SMM_ADDR, AMD, FAULTS},
	{MSR_AMD_SMM_MASK, AMD, FAULTS},
	{MSR_AMD_VM_CR, AMD, FAULTS, .value = 0x18}, /* locked, SVM disabled */
	{MSR_AMD_OSVW_LENGTH, AMD, FAULTS},
	{MSR_AMD_OSVW_STATUS, AMD, FAULTS},
	{MSR_AMD_CPUID_7, AMD, IGNORED},
	{MSR_AMD_CPUID_EXT1, AMD, IGNORED},
	{MSR_AMD_LS_CFG, AMD, IGNORED},
	{MSR_AMD_IC_CFG, AMD, IGNORED},
	{MSR_AMD_DC_CFG, AMD, IGNORED},
	{MSR_AMD_BU_CFG, AMD, IGNORED},
	{MSR_AMD_FP_CFG, AMD, IGNORED},
	{MSR_AMD_DE_CFG, AMD, IGNORED, .value = 2}, /* LFENCE serialises */
	{MSR_AMD_BU_CFG2, AMD, IGNORED},
	{MSR_AMD_BU_CFG3, AMD, IGNORED},
};

static const struct quiet_msr *quiet_find(const struct soft_cpu *c, uint32_t index)
{
	for (unsigned n = 0; n < sizeof(quiet_msrs) / sizeof(quiet_msrs[0]); n++)
		if (quiet_msrs[n].index == index &&
		    (quiet_msrs[n].vendor & (c->vendor_amd ? AMD : INTEL)))
			return &quiet_msrs[n];
	return NULL;
}

static uint64_t quiet_read(struct soft_cpu *c, uint32_t index)
{
	const struct quiet_msr *q = quiet_find(c, index);

	if (!q || q->write_only)
		cpu_gp0(c);
	return q->value;
}

static void quiet_write(struct soft_cpu *c, uint32_t index, uint64_t value)
{
	const struct quiet_msr *q = quiet_find(c, index);

	if (!q || q->write == FAULTS || (q->write == ZERO_ONLY && value))
		cpu_gp0(c);
}

/* ---- by number ---- */

static bool held_by_machine(uint32_t index)
{
	return index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE ||
	       (index >= MSR_X2APIC && index < MSR_X2APIC_END);
}

/* Registers of one vendor's that are more than quiet; false: not one of these. */
static bool intel_read(const struct soft_cpu *c, uint32_t index, uint64_t *v)
{
	switch (index) {
	case MSR_MISC_ENABLE:
		*v = c->s.misc_enable;
		return true;
	case MSR_SPEC_CTRL:
		*v = c->s.spec_ctrl;
		return true;
	case MSR_ARCH_CAPABILITIES:
		*v = cpuid_arch_capabilities();
		return true;
	default:
		return false;
	}
}

static bool intel_write(struct soft_cpu *c, uint32_t index, uint64_t v)
{
	const uint64_t misc_fixed = MISC_ENABLE_BTS_UNAVAILABLE | MISC_ENABLE_PEBS_UNAVAIL;

	switch (index) {
	case MSR_MISC_ENABLE:
		c->s.misc_enable = (v & ~misc_fixed) | misc_fixed;
		return true;
	case MSR_SPEC_CTRL:
		if (v & ~UINT64_C(1)) /* IBRS; nothing else is offered */
			cpu_gp0(c);
		c->s.spec_ctrl = v;
		return true;
	case MSR_PRED_CMD:
		if (v & ~UINT64_C(1))
			cpu_gp0(c);
		return true; /* IBPB: see cpuid.c on mitigations */
	case MSR_BIOS_SIGN_ID:
		return true; /* before CPUID, to have the revision put there */
	default:
		return false;
	}
}

uint64_t msr_read(struct soft_cpu *c, uint32_t index)
{
	struct cpu_state *s = &c->s;
	uint64_t *mtrr = mtrr_place(s, index), v;

	if (held_by_machine(index))
		return cpu_msr_exit_read(c, index);
	if (mtrr)
		return *mtrr;
	if (!c->vendor_amd && intel_read(c, index, &v))
		return v;
	switch (index) {
	case MSR_TSC:
		return cpu_tsc(c);
	case MSR_TSC_ADJUST:
		return s->tsc_adjust;
	case MSR_BIOS_SIGN_ID:
		return cpuid_microcode(c->cpuid);
	case MSR_MTRR_CAP:
		return MTRR_CAP;
	case MSR_SYSENTER_CS:
		return s->sysenter_cs;
	case MSR_SYSENTER_ESP:
		return s->sysenter_esp;
	case MSR_SYSENTER_EIP:
		return s->sysenter_eip;
	case MSR_MCG_STATUS:
		return s->mcg_status;
	case MSR_DEBUG_CTL:
		return s->debugctl;
	case MSR_PAT:
		return s->pat;
	case MSR_EFER:
		return s->efer;
	case MSR_STAR:
		return s->star;
	case MSR_LSTAR:
		return s->lstar;
	case MSR_CSTAR:
		return s->cstar;
	case MSR_SFMASK:
		return s->sfmask;
	case MSR_FS_BASE:
		return s->seg[SEG_FS].base;
	case MSR_GS_BASE:
		return s->seg[SEG_GS].base;
	case MSR_KERNEL_GS_BASE:
		return s->kernel_gs_base;
	case MSR_TSC_AUX:
		return s->tsc_aux;
	default:
		return quiet_read(c, index);
	}
}

void msr_write(struct soft_cpu *c, uint32_t index, uint64_t v)
{
	struct cpu_state *s = &c->s;
	uint64_t *mtrr = mtrr_place(s, index);

	if (held_by_machine(index)) {
		cpu_msr_exit_write(c, index, v);
		return;
	}
	if (mtrr) {
		if (!mtrr_good(index, v))
			cpu_gp0(c);
		*mtrr = v;
		return;
	}
	if (!c->vendor_amd && intel_write(c, index, v))
		return;
	switch (index) {
	case MSR_TSC:
		write_tsc(c, v);
		break;
	case MSR_TSC_ADJUST:
		write_tsc_adjust(c, v);
		break;
	case MSR_SYSENTER_CS:
		s->sysenter_cs = (uint32_t)v;
		break;
	case MSR_SYSENTER_ESP:
		put_sysenter(c, &s->sysenter_esp, v);
		break;
	case MSR_SYSENTER_EIP:
		put_sysenter(c, &s->sysenter_eip, v);
		break;
	case MSR_MCG_STATUS:
		if (v)
			cpu_gp0(c); /* only to be cleared (SDM Vol. 3, 15.3.1.2) */
		s->mcg_status = 0;
		break;
	case MSR_DEBUG_CTL:
		if (v & ~DEBUG_CTL_KNOWN)
			cpu_gp0(c);
		s->debugctl = v;
		cpu_update_mode(c);
		break;
	case MSR_PAT:
		if (!good_memory_types(v, true))
			cpu_gp0(c);
		s->pat = v;
		break;
	case MSR_EFER:
		write_efer(c, v);
		break;
	case MSR_STAR:
		s->star = v;
		break;
	case MSR_LSTAR:
		put_canonical(c, &s->lstar, v);
		break;
	case MSR_CSTAR:
		put_canonical(c, &s->cstar, v);
		break;
	case MSR_SFMASK:
		put_32(c, &s->sfmask, v);
		break;
	case MSR_FS_BASE:
		write_seg_base(c, SEG_FS, v);
		break;
	case MSR_GS_BASE:
		write_seg_base(c, SEG_GS, v);
		break;
	case MSR_KERNEL_GS_BASE:
		put_canonical(c, &s->kernel_gs_base, v);
		break;
	case MSR_TSC_AUX:
		put_32(c, &s->tsc_aux, v);
		break;
	default:
		quiet_write(c, index, v);
		break;
	}
}

static void op_rdmsr(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
	c->vcpu.stats.count[EXIT_MSR]++;
	set_edx_eax(c, msr_read(c, (uint32_t)c->s.gpr[RCX]));
}

static void op_wrmsr(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
	c->vcpu.stats.count[EXIT_MSR]++;
	msr_write(c, (uint32_t)c->s.gpr[RCX], edx_eax(c));
}

op_fn *msr_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_RDMSR:
		return op_rdmsr;
	case ZYDIS_MNEMONIC_WRMSR:
		i->flags |= INSN_END;
		return op_wrmsr;
	default:
		return NULL;
	}
}
