/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/state/cpuid.h"

#include <string.h>

#include "cpu/state/host.h"

/*
 * Theory of operation. Vendor, family, model, stepping and brand are the host's, so that a guest
 * picks the code made for this very CPU; but of a CPU with AVX-512 or AVX-VNNI, family and model are
 * those of the last of its vendor's without, as there are programs that go by the model alone
 * (GCC's target_clones) and would use what is not offered. Feature bits come in two kinds: those whose work the host
 * CPU does on the engines' behalf (arithmetic: SSE to AVX2, AES, SHA, BMI...) are offered when the
 * host has them; those that are the engines' own work (paging, privilege, the APIC, XSAVE, the
 * TSC) are offered always. Nothing else is: no AVX-512 and AMX, protection keys, CET, MPX,
 * virtualization, TSX, SGX, performance counters, MONITOR, 57-bit addresses, VME, 3DNow!, XOP.
 *
 * Mitigations. A guest asks CPUID which hardware weaknesses it has to work around: page-table
 * isolation, VERW, retpolines, IBPB. All of these order the hardware about at a change of the
 * hardware's privilege level or context. A guest of a software engine has no such change: its
 * kernel and its programs are data to one host process, which no guest instruction ever reaches
 * past a software check, and an emulated VERW or IBPB reaches no hardware. So the workarounds
 * could protect nothing and would only cost, and the guest is told to leave them out (RDCL_NO,
 * MDS_NO, IBRS_ALL or automatic IBRS, BTC_NO, SRSO_NO...). What separates the guest from others is
 * the host kernel's own protection of the process. Speculative store bypass within one guest
 * program is the hardware's and stays unclaimed: neither SSB_NO nor SSBD is offered.
 */
#define BIT(n) (UINT32_C(1) << (n))

enum { PHYS_BITS = 40, LINEAR_BITS = 48 };
enum {
	LEAF_HYPERVISOR = 0x40000000,
	LEAF_HYPERVISOR_TIMING = 0x40000010,
	LEAF_KVM = 0x40000100,
	LEAF_KVM_FEATURES = 0x40000101
};
enum { KVM_FEATURE_NOP_IO_DELAY = 1 };
/* The local APIC timer's clock (as under KVM): 1 GHz. */
enum { APIC_TIMER_KHZ = 1000000 };

enum {
	/* 1.ECX */
	F1C_XSAVE = BIT(26),
	F1C_OSXSAVE = BIT(27),
	F1C_AVX = BIT(28),
	F1C_HOST = BIT(0) | BIT(1) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) |
		   BIT(25) | BIT(30), /* SSE3 PCLMUL SSSE3 CX16 SSE4 MOVBE POPCNT AES RDRAND */
	F1C_HOST_AVX = BIT(12) | F1C_AVX | BIT(29),	    /* FMA, AVX, F16C */
	F1C_OURS = BIT(17) | BIT(21) | BIT(24) | F1C_XSAVE, /* PCID x2APIC TSC-deadline */
	/* 1.EDX */
	F1D_APIC = BIT(9),
	F1D_HTT = BIT(28),
	F1D_HOST = BIT(0) | BIT(8) | BIT(15) | BIT(23) | BIT(24) | BIT(25) |
		   BIT(26), /* FPU CX8 CMOV MMX FXSR SSE SSE2 */
	F1D_OURS = BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | F1D_APIC | BIT(11) |
		   BIT(12) | BIT(13) | BIT(14) | BIT(16) | BIT(17) |
		   BIT(19), /* DE PSE TSC MSR PAE MCE SEP MTRR PGE MCA PAT PSE36 CLFSH */
	/* 7.0.EBX */
	F7B_HOST = BIT(3) | BIT(6) | BIT(8) | BIT(18) | BIT(19) |
		   BIT(29),    /* BMI1 FDP_EXCPTN_ONLY BMI2 RDSEED ADX SHA */
	F7B_HOST_AVX = BIT(5), /* AVX2 */
	F7B_OURS = BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(10) | BIT(13) | BIT(20) | BIT(23) |
		   BIT(24), /* FSGSBASE TSC_ADJUST SMEP ERMS INVPCID ZERO_FCS_FDS SMAP
			       CLFLUSHOPT CLWB */
	F7B_RDSEED = BIT(18),
	/* 7.0.ECX */
	F7C_HOST = BIT(8),		 /* GFNI */
	F7C_HOST_AVX = BIT(9) | BIT(10), /* VAES VPCLMULQDQ, 256 bits with VEX */
	F7C_OURS = BIT(2) | BIT(22),	 /* UMIP RDPID */
	/* 7.0.EDX */
	F7D_OURS = BIT(4),		    /* FSRM */
	F7D_OURS_INTEL = BIT(26) | BIT(29), /* SPEC_CTRL, ARCH_CAPABILITIES */
	/* 80000001.ECX */
	E1C_CMP_LEGACY = BIT(1),
	E1C_HOST = BIT(5) | BIT(6), /* LZCNT SSE4A */
	E1C_OURS = BIT(0) | BIT(8), /* LAHF PREFETCHW */
	E1C_OURS_AMD = BIT(22),	    /* topology extensions */
	/* 80000001.EDX */
	E1D_SHARED = 0x0183f3ff,				    /* AMD repeats these of 1.EDX */
	E1D_HOST_AMD = BIT(22),					    /* MMX extensions */
	E1D_OURS = BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29), /* SYSCALL NX 1G RDTSCP LM */
	/* 80000008.EBX, AMD: XSAVEERPTR (our FXSAVE and XSAVE always keep the pointers), BTC_NO */
	E8B_AMD = BIT(2) | BIT(29),
	/* 80000021.EAX: LFENCE always serialises, a null selector clears the base, automatic IBRS,
	 * SRSO_NO; .ECX: TSA_SQ_NO, TSA_L1_NO */
	E21A_AMD = BIT(2) | BIT(6) | BIT(8) | BIT(29),
	E21C_AMD = BIT(1) | BIT(2),
};

static uint32_t host_max(uint32_t range)
{
	uint32_t r[4];

	host_cpuid(range, 0, r);
	return r[CPUID_EAX];
}

static bool is_amd(const uint32_t vendor[4])
{
	/* "AuthenticAMD", "HygonGenuine": the first four letters, in EBX */
	return vendor[CPUID_EBX] == 0x68747541 || vendor[CPUID_EBX] == 0x6f677948;
}

unsigned cpuid_maxphyaddr(void)
{
	return PHYS_BITS;
}

uint32_t cpuid_xsave_bytes(uint64_t xcr0)
{
	return (xcr0 & XCR0_AVX) ? XSAVE_YMMH0 + 256 : XSAVE_YMMH0;
}

uint64_t cpuid_arch_capabilities(void)
{
	/* RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
	 * FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, RFDS_NO, ITS_NO (SDM Vol. 4 table 2-2) */
	return BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) |
	       BIT(20) | BIT(24) | BIT(27) | UINT64_C(1) << 62;
}

uint64_t cpuid_microcode(const struct cpuid_model *m)
{
	uint32_t s = m->signature;

	if (!m->amd)
		return UINT64_C(1) << 32;
	/* AMD encodes the CPU in the revision: extended family and model, model, stepping; then the
	 * last there can be, because no erratum that microcode mends is the engines'. */
	return (s >> 20 & 0xff) << 24 | (s >> 16 & 15) << 20 | (s >> 4 & 15) << 12 | (s & 15) << 8 |
	       0xff;
}

/* Caches as the host tells them; or, where it tells nothing, those of a plain CPU. */
static void read_caches(struct cpuid_model *m)
{
	static const uint32_t plain[CPUID_CACHES][4] = {
		{0x00000121, 0x01c0003f, 0x3f, 0},   /* L1d: 32 KiB, 8 ways */
		{0x00000122, 0x01c0003f, 0x3f, 0},   /* L1i */
		{0x00000143, 0x03c0003f, 0x3ff, 0},  /* L2: 1 MiB, 16 ways */
		{0x00000163, 0x03c0003f, 0x3fff, 0}, /* L3: 16 MiB */
	};
	uint32_t leaf = m->amd ? 0x8000001d : 4;
	uint32_t last = host_max(leaf & 0x80000000);

	if (last >= leaf)
		for (unsigned n = 0; n < CPUID_CACHES; n++)
			host_cpuid(leaf, n, m->cache[n]);
	if (!(m->cache[0][CPUID_EAX] & 31))
		memcpy(m->cache, plain, sizeof(plain));
}

static void read_extended(struct cpuid_model *m)
{
	uint32_t r[4], last = host_max(0x80000000);

	host_cpuid(0x80000001, 0, r);
	m->e1_ebx = m->amd ? r[CPUID_EBX] : 0;
	m->e1_ecx = (r[CPUID_ECX] & E1C_HOST) | E1C_OURS;
	m->e1_edx = E1D_OURS;
	if (m->amd) {
		m->e1_ecx |= E1C_OURS_AMD | (m->cpus > 1 ? E1C_CMP_LEGACY : 0);
		m->e1_edx |= (m->f1_edx & E1D_SHARED) | (r[CPUID_EDX] & E1D_HOST_AMD);
	}
	for (unsigned n = 0; n < 3 && last >= 0x80000004; n++)
		host_cpuid(0x80000002 + n, 0, m->brand[n]);
	if (last >= 0x80000006) {
		host_cpuid(0x80000005, 0, m->amd_l1);
		host_cpuid(0x80000006, 0, m->amd_l2);
	}
	if (m->amd && last >= 0x8000001a) {
		host_cpuid(0x80000019, 0, m->amd_tlb1g);
		host_cpuid(0x8000001a, 0, m->amd_hints);
	}
}

uint32_t cpuid_shown_signature(bool amd, uint32_t host, bool hides)
{
	enum { SKYLAKE_CLIENT = 0x000506e3, ZEN3 = 0x00a00f11 }; /* 06_5EH; family 19H, model 1 */

	if (hides)
		return amd ? ZEN3 : SKYLAKE_CLIENT;
	return host & 0x0fff3fff;
}

/* Does the host have what compilers use for its model and guests are not offered? */
static bool hides_features(void)
{
	uint32_t r[4];

	if (host_max(0) < 7)
		return false;
	host_cpuid(7, 0, r);
	if (r[CPUID_EBX] & BIT(16)) /* AVX-512 */
		return true;
	host_cpuid(7, 1, r);
	return r[CPUID_EAX] & BIT(4); /* AVX-VNNI */
}

uint32_t cpuid_signature(void)
{
	uint32_t vendor[4], r[4];

	host_cpuid(0, 0, vendor);
	host_cpuid(1, 0, r);
	return cpuid_shown_signature(is_amd(vendor), r[CPUID_EAX], hides_features());
}

void cpuid_model_init(struct cpuid_model *m, unsigned cpus, uint64_t tsc_hz)
{
	uint32_t r[4], r7[4] = {0};

	memset(m, 0, sizeof(*m));
	m->cpus = cpus;
	m->tsc_khz = (uint32_t)(tsc_hz / 1000);
	host_cpuid(0, 0, m->vendor);
	m->amd = is_amd(m->vendor);
	m->max_basic = 0xd;
	m->max_extended = m->amd ? 0x80000021 : 0x80000008;

	host_cpuid(1, 0, r);
	if (host_max(0) >= 7)
		host_cpuid(7, 0, r7);
	m->signature = cpuid_signature();
	bool avx = host_has_avx();
	m->xcr0 = XCR0_X87 | XCR0_SSE | (avx ? XCR0_AVX : 0);
	m->f1_ecx = (r[CPUID_ECX] & (F1C_HOST | (avx ? F1C_HOST_AVX : 0))) | F1C_OURS |
		    BIT(31); /* a hypervisor */
	m->f1_edx = (r[CPUID_EDX] & F1D_HOST) | F1D_OURS | (cpus > 1 ? F1D_HTT : 0);
	m->f7_ebx = (r7[CPUID_EBX] & (F7B_HOST | (avx ? F7B_HOST_AVX : 0))) | F7B_OURS;
	m->f7_ecx = (r7[CPUID_ECX] & (F7C_HOST | (avx ? F7C_HOST_AVX : 0))) | F7C_OURS;
	m->f7_edx = F7D_OURS | (m->amd ? 0 : F7D_OURS_INTEL);
	read_extended(m);
	read_caches(m);
}

/* Bits of an APIC id that number the cores of the one package. */
static unsigned core_bits(const struct cpuid_model *m)
{
	unsigned bits = 0;

	while ((1u << bits) < m->cpus)
		bits++;
	return bits;
}

/* 4 and 8000001DH: level 3 is shared by all, the others are each core's own. */
static void cache_leaf(const struct cpuid_model *m, uint32_t subleaf, uint32_t out[4])
{
	uint32_t sharing, cores = 0;

	if (subleaf >= CPUID_CACHES || !(m->cache[subleaf][CPUID_EAX] & 31))
		return;
	memcpy(out, m->cache[subleaf], 4 * sizeof(out[0]));
	sharing = (out[CPUID_EAX] >> 5 & 7) >= 3 ? (1u << core_bits(m)) - 1 : 0;
	if (m->amd && sharing)
		sharing = m->cpus - 1;
	if (!m->amd)
		cores = (1u << core_bits(m)) - 1;
	if (cores > 63)
		cores = 63;
	out[CPUID_EAX] = (out[CPUID_EAX] & 0x3fff) | sharing << 14 | cores << 26;
}

/* 0BH: one thread a core, all cores in one package. */
static void topology_leaf(const struct cpuid_model *m, unsigned cpu, uint32_t subleaf,
			  uint32_t out[4])
{
	out[CPUID_ECX] = subleaf & 0xff;
	out[CPUID_EDX] = cpu;
	if (subleaf == 0) {
		out[CPUID_EBX] = 1;
		out[CPUID_ECX] |= 1 << 8;
	} else if (subleaf == 1) {
		out[CPUID_EAX] = core_bits(m);
		out[CPUID_EBX] = m->cpus;
		out[CPUID_ECX] |= 2 << 8;
	}
}

static void xsave_leaf(const struct cpuid_model *m, const struct cpu_state *s, uint32_t subleaf,
		       uint32_t out[4])
{
	if (subleaf == 0) {
		out[CPUID_EAX] = (uint32_t)m->xcr0;
		out[CPUID_EBX] = cpuid_xsave_bytes(s->xcr0);
		out[CPUID_ECX] = cpuid_xsave_bytes(m->xcr0);
	} else if (subleaf == 1) {
		out[CPUID_EAX] = 0xf; /* XSAVEOPT, XSAVEC, XGETBV with ECX 1, XSAVES */
		out[CPUID_EBX] = cpuid_xsave_bytes(s->xcr0);
	} else if (subleaf == 2 && (m->xcr0 & XCR0_AVX)) {
		out[CPUID_EAX] = XSAVE_BYTES - XSAVE_YMMH0;
		out[CPUID_EBX] = XSAVE_YMMH0;
	}
}

static void basic_leaf(const struct cpuid_model *m, const struct cpu_state *s, unsigned cpu,
		       uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	switch (leaf) {
	case 0:
		memcpy(out, m->vendor, sizeof(m->vendor));
		out[CPUID_EAX] = m->max_basic;
		break;
	case 1:
		out[CPUID_EAX] = m->signature;
		out[CPUID_EBX] = 8 << 8 | (m->cpus > 255 ? 255 : m->cpus) << 16 | cpu << 24;
		out[CPUID_ECX] = m->f1_ecx | ((s->cr4 & CR4_OSXSAVE) ? F1C_OSXSAVE : 0);
		out[CPUID_EDX] = m->f1_edx;
		break;
	case 2:
		if (!m->amd)
			out[CPUID_EAX] = 0x00feff01; /* see leaf 4 for caches */
		break;
	case 4:
		if (!m->amd)
			cache_leaf(m, subleaf, out);
		break;
	case 6:
		out[CPUID_EAX] = BIT(2); /* ARAT: the APIC timer never stops */
		break;
	case 7:
		if (subleaf == 0) {
			out[CPUID_EBX] = m->f7_ebx;
			out[CPUID_ECX] = m->f7_ecx;
			out[CPUID_EDX] = m->f7_edx;
		}
		break;
	case 0xb:
		topology_leaf(m, cpu, subleaf, out);
		break;
	case 0xd:
		xsave_leaf(m, s, subleaf, out);
		break;
	default:
		break;
	}
}

static void amd_leaf(const struct cpuid_model *m, unsigned cpu, uint32_t leaf, uint32_t subleaf,
		     uint32_t out[4])
{
	switch (leaf) {
	case 0x80000005:
		memcpy(out, m->amd_l1, sizeof(m->amd_l1));
		break;
	case 0x80000008:
		out[CPUID_EBX] = E8B_AMD;
		out[CPUID_ECX] = (m->cpus - 1) | core_bits(m) << 12;
		break;
	case 0x80000019:
		memcpy(out, m->amd_tlb1g, sizeof(m->amd_tlb1g));
		break;
	case 0x8000001a:
		out[CPUID_EAX] = m->amd_hints[CPUID_EAX] & 7;
		break;
	case 0x8000001d:
		cache_leaf(m, subleaf, out);
		break;
	case 0x8000001e:
		out[CPUID_EAX] = cpu;
		out[CPUID_EBX] = cpu & 0xff; /* core id; one thread a core */
		break;
	case 0x80000021:
		out[CPUID_EAX] = E21A_AMD;
		out[CPUID_ECX] = E21C_AMD;
		break;
	default:
		break;
	}
}

static void extended_leaf(const struct cpuid_model *m, unsigned cpu, uint32_t leaf,
			  uint32_t subleaf, uint32_t out[4])
{
	if (m->amd)
		amd_leaf(m, cpu, leaf, subleaf, out);
	switch (leaf) {
	case 0x80000000:
		out[CPUID_EAX] = m->max_extended;
		if (m->amd)
			memcpy(&out[CPUID_EBX], &m->vendor[CPUID_EBX], 3 * sizeof(out[0]));
		break;
	case 0x80000001:
		out[CPUID_EAX] = m->amd ? m->signature : 0;
		out[CPUID_EBX] = m->e1_ebx;
		out[CPUID_ECX] = m->e1_ecx;
		out[CPUID_EDX] = m->e1_edx;
		break;
	case 0x80000002:
	case 0x80000003:
	case 0x80000004:
		memcpy(out, m->brand[leaf - 0x80000002], sizeof(m->brand[0]));
		break;
	case 0x80000006:
		memcpy(out, m->amd_l2, sizeof(m->amd_l2));
		break;
	case 0x80000007:
		out[CPUID_EDX] = BIT(8); /* the TSC runs at one rate, always */
		break;
	case 0x80000008:
		out[CPUID_EAX] = PHYS_BITS | LINEAR_BITS << 8;
		break;
	default:
		break;
	}
}

/*
 * Ours, and behind it KVM's (Linux, Documentation/virt/kvm/x86/cpuid.rst), which guests look for at
 * every 100H: one that finds it does not wait between port accesses, and does not panic at boot when a
 * busy host has kept the timer from ticking while the guest watched.
 */
static void hypervisor_leaf(const struct cpuid_model *m, uint32_t leaf, uint32_t out[4])
{
	if (leaf == LEAF_HYPERVISOR) {
		out[CPUID_EAX] = LEAF_HYPERVISOR_TIMING;
		memcpy(&out[CPUID_EBX], "HanokHanokHK", 12);
	} else if (leaf == LEAF_HYPERVISOR_TIMING) {
		out[CPUID_EAX] = m->tsc_khz;
		out[CPUID_EBX] = APIC_TIMER_KHZ;
	} else if (leaf == LEAF_KVM) {
		out[CPUID_EAX] = LEAF_KVM_FEATURES;
		memcpy(&out[CPUID_EBX], "KVMKVMKVM\0\0", 12);
	} else if (leaf == LEAF_KVM_FEATURES) {
		out[CPUID_EAX] = 1 << KVM_FEATURE_NOP_IO_DELAY;
	}
}

void cpuid_guest(const struct cpuid_model *m, const struct cpu_state *s, unsigned cpu,
		 uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	memset(out, 0, 4 * sizeof(out[0]));
	if (leaf >= LEAF_HYPERVISOR && leaf <= LEAF_KVM + 0xff) {
		hypervisor_leaf(m, leaf, out);
	} else if (leaf >= 0x80000000 && leaf <= m->max_extended) {
		extended_leaf(m, cpu, leaf, subleaf, out);
	} else if (leaf <= m->max_basic) {
		basic_leaf(m, s, cpu, leaf, subleaf, out);
	} else if (!m->amd) {
		/* Intel: a leaf past the end reads as the highest basic one (SDM Vol. 2, CPUID). */
		basic_leaf(m, s, cpu, m->max_basic, subleaf, out);
	}
}
