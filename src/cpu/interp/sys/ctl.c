/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/sys/ctl.h"

#include <immintrin.h>

#include "base/clock.h"
#include "cpu/interp/access.h"
#include "cpu/state/cpuid.h"
#include "cpu/state/msr.h"

/* ---- CPUID ---- */

static void op_cpuid(struct soft_cpu *c, const struct insn *i)
{
	uint32_t leaf = (uint32_t)c->s.gpr[RAX], out[4];

	(void)i;
	c->vcpu.stats.count[EXIT_CPUID]++;
	cpuid_guest(c->cpuid, &c->s, c->vcpu.index, leaf, (uint32_t)c->s.gpr[RCX], out);
	/* The APIC's bit follows its global enable (SDM Vol. 3, 10.4.3), which machine/ holds. */
	if ((leaf == 1 || (leaf == 0x80000001 && c->vendor_amd)) &&
	    !(cpu_msr_exit_read(c, MSR_APIC_BASE) & APIC_BASE_ENABLED))
		out[CPUID_EDX] &= ~(UINT32_C(1) << 9);
	c->s.gpr[RAX] = out[CPUID_EAX];
	c->s.gpr[RBX] = out[CPUID_EBX];
	c->s.gpr[RCX] = out[CPUID_ECX];
	c->s.gpr[RDX] = out[CPUID_EDX];
}

/* ---- time ---- */

uint64_t cpu_tsc(const struct soft_cpu *c)
{
	return clock_tsc() + c->s.tsc_offset;
}

static void check_tsd(struct soft_cpu *c)
{
	if ((c->s.cr4 & CR4_TSD) && c->cpl)
		cpu_gp0(c);
}

static void op_rdtsc(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	check_tsd(c);
	set_edx_eax(c, cpu_tsc(c));
}

static void op_rdtscp(struct soft_cpu *c, const struct insn *i)
{
	check_tsd(c);
	_mm_lfence(); /* RDTSCP waits for what is before it */
	op_rdtsc(c, i);
	c->s.gpr[RCX] = (uint32_t)c->s.tsc_aux;
}

static void op_rdpid(struct soft_cpu *c, const struct insn *i)
{
	c->s.gpr[i->reg[0]] = (uint32_t)c->s.tsc_aux;
}

/* No performance counters are offered: every index is past the last. */
static void op_rdpmc(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	cpu_gp0(c);
}

/* ---- random numbers ---- */

__attribute__((target("rdrnd"))) static bool host_rdrand(uint64_t *v)
{
	unsigned long long r;
	bool ok = _rdrand64_step(&r);

	*v = r;
	return ok;
}

/* Always the 64-bit form: on some Zen 5 steppings the shorter ones return zeros as random
 * (AMD-SB-7055). */
__attribute__((target("rdseed"))) static bool host_rdseed(uint64_t *v)
{
	unsigned long long r;
	bool ok = _rdseed64_step(&r);

	*v = r;
	return ok;
}

static void put_random(struct soft_cpu *c, const struct insn *i, bool ok, uint64_t v)
{
	set_reg(c, i->reg[0], i->size[0], ok ? v : 0);
	c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (ok ? FLAG_CF : 0);
}

static void op_rdrand(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v;

	if (!(c->cpuid->f1_ecx & UINT32_C(1) << 30))
		cpu_ud(c);
	bool ok = host_rdrand(&v);
	put_random(c, i, ok, v);
}

static void op_rdseed(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v;

	if (!(c->cpuid->f7_ebx & UINT32_C(1) << 18))
		cpu_ud(c);
	bool ok = host_rdseed(&v);
	put_random(c, i, ok, v);
}

/* ---- translations and caches ---- */

static void op_invlpg(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c);
	uint64_t gva = flat_linear(c, i->seg, ea(c, i));
	if (c->mode == MODE_64 && !cpu_is_canonical(gva))
		return; /* no translation to drop, no fault (SDM Vol. 2, INVLPG) */
	cpu_flush_page(c, gva);
}

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_ALL_BUT_GLOBAL };

/* Other process-context ids than the current one have no entries in the TLB: a CR3 load drops them. */
static void op_invpcid(struct soft_cpu *c, const struct insn *i)
{
	uint64_t desc[2];

	need_cpl0(c);
	uint64_t type = get_reg(c, i->reg[0], i->size[0]);
	cpu_read(c, (enum seg_reg)i->seg, ea(c, i), desc, sizeof(desc));
	if (type > INVPCID_ALL_BUT_GLOBAL || desc[0] >> 12)
		cpu_gp0(c);
	bool enabled = c->s.cr4 & CR4_PCIDE;
	if (type <= INVPCID_CONTEXT && !enabled && desc[0])
		cpu_gp0(c);
	if (type == INVPCID_ADDRESS && !cpu_is_canonical(desc[1]))
		cpu_gp0(c);
	bool current = !enabled || desc[0] == (c->s.cr3 & 0xfff);
	if (type == INVPCID_ADDRESS && current)
		cpu_flush_page(c, desc[1]);
	else if (type == INVPCID_CONTEXT && current)
		cpu_flush_tlb(c, true);
	else if (type >= INVPCID_ALL)
		cpu_flush_tlb(c, type == INVPCID_ALL_BUT_GLOBAL);
	else if (c->translator)
		bt_window_flush(c);
}

/* INVD, WBINVD: guest RAM is the host's, whose caches stay coherent by themselves. */
static void op_privileged_nop(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
}

/* CLFLUSH, CLFLUSHOPT, CLWB: like a load of a byte, as far as faults go. */
static void op_clflush(struct soft_cpu *c, const struct insn *i)
{
	cpu_probe(c, (enum seg_reg)i->seg, ea(c, i), 1, false);
}

/* ---- the rest ---- */

static void op_hlt(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
	cpu_exit_halt(c);
}

/* STAC, CLAC: #UD, not #GP, outside CPL 0 (SDM Vol. 2). */
static void set_ac(struct soft_cpu *c, uint64_t ac)
{
	if (c->cpl)
		cpu_ud(c);
	cpu_set_flags(c, ac, FLAG_AC);
}

static void op_stac(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	set_ac(c, FLAG_AC);
}

static void op_clac(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	set_ac(c, 0);
}

static void op_nop(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
}

static void op_pause(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	_mm_pause();
}

static void op_lfence(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	_mm_lfence();
}

static void op_sfence(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	_mm_sfence();
}

static void op_mfence(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	_mm_mfence();
}

static op_fn *misc_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_CPUID:
		return op_cpuid;
	case ZYDIS_MNEMONIC_RDTSC:
		return op_rdtsc;
	case ZYDIS_MNEMONIC_RDTSCP:
		return op_rdtscp;
	case ZYDIS_MNEMONIC_RDPID:
		return op_rdpid;
	case ZYDIS_MNEMONIC_RDPMC:
		return op_rdpmc;
	case ZYDIS_MNEMONIC_RDRAND:
		return op_rdrand;
	case ZYDIS_MNEMONIC_RDSEED:
		return op_rdseed;
	case ZYDIS_MNEMONIC_INVLPG:
		i->flags |= INSN_END;
		return op_invlpg;
	case ZYDIS_MNEMONIC_INVPCID:
		i->flags |= INSN_END;
		return op_invpcid;
	case ZYDIS_MNEMONIC_INVD:
	case ZYDIS_MNEMONIC_WBINVD:
		return op_privileged_nop;
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLFLUSHOPT:
	case ZYDIS_MNEMONIC_CLWB:
		return op_clflush;
	case ZYDIS_MNEMONIC_HLT:
		i->flags |= INSN_END;
		return op_hlt;
	case ZYDIS_MNEMONIC_STAC:
		i->flags |= INSN_END;
		return op_stac;
	case ZYDIS_MNEMONIC_CLAC:
		i->flags |= INSN_END;
		return op_clac;
	case ZYDIS_MNEMONIC_PAUSE:
		return op_pause;
	case ZYDIS_MNEMONIC_LFENCE:
		return op_lfence;
	case ZYDIS_MNEMONIC_SFENCE:
		return op_sfence;
	case ZYDIS_MNEMONIC_MFENCE:
		return op_mfence;
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
	case ZYDIS_MNEMONIC_PREFETCHW:
	case ZYDIS_MNEMONIC_PREFETCHWT1:
	/* In the hint space, so without their features they do nothing. */
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64:
	case ZYDIS_MNEMONIC_RDSSPD:
	case ZYDIS_MNEMONIC_RDSSPQ:
	case ZYDIS_MNEMONIC_CLDEMOTE:
		return op_nop;
	default:
		return NULL;
	}
}

op_fn *sys_ctl_select(const struct decoded *d, struct insn *i)
{
	op_fn *fn = misc_select(d, i);

	if (!fn)
		fn = crdr_select(d, i);
	if (!fn)
		fn = msr_select(d, i);
	if (!fn)
		fn = xsave_select(d, i);
	return fn;
}
