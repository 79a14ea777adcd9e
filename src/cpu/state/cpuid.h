/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_STATE_CPUID_H
#define HANOK_CPU_STATE_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/state/cpu_state.h"

/*
 * What CPUID tells a guest of the software engines: the host's CPU by name, less what the engines
 * do not carry out, plus what they add. See cpuid.c for what is offered and why.
 */
enum { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };
enum { CPUID_CACHES = 4 };

struct cpuid_model {
	unsigned cpus;
	uint32_t tsc_khz;
	bool amd; /* AMD's or Hygon's leaves; else Intel's */
	uint32_t max_basic, max_extended;
	uint64_t xcr0;		 /* bits that XCR0 may have */
	uint32_t vendor[4];	 /* leaf 0 */
	uint32_t signature;	 /* 1.EAX: family, model, stepping */
	uint32_t f1_ecx, f1_edx; /* dynamic bits clear */
	uint32_t f7_ebx, f7_ecx, f7_edx;
	uint32_t e1_ebx, e1_ecx, e1_edx; /* 80000001H */
	uint32_t brand[3][4];
	uint32_t cache[CPUID_CACHES][4];     /* 4 or 8000001DH */
	uint32_t amd_l1[4], amd_l2[4];	     /* 80000005H, 80000006H */
	uint32_t amd_tlb1g[4], amd_hints[4]; /* 80000019H, 8000001AH */
};

/* 1.EAX as guests see it: the host's, or, where the host has instructions that compilers use for its model
 * and guests are not offered, that of a CPU without them. */
uint32_t cpuid_shown_signature(bool amd, uint32_t host, bool hides);
/* The same of this host, also EDX after a reset. */
uint32_t cpuid_signature(void);
/* Asks the host's CPU. tsc_hz is of the guest's TSC. Any thread. */
void cpuid_model_init(struct cpuid_model *m, unsigned cpus, uint64_t tsc_hz);

/*
 * CPUID's answer on vCPU number cpu (its APIC id): EAX, EBX, ECX, EDX. Of s only CR4 and XCR0
 * count. 1.EDX.APIC is set: the caller clears it while IA32_APIC_BASE has the APIC off. Any thread.
 */
void cpuid_guest(const struct cpuid_model *m, const struct cpu_state *s, unsigned cpu,
		 uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

/* Width of guest-physical addresses in bits. */
unsigned cpuid_maxphyaddr(void);

/* Bytes of an XSAVE area in the standard form with these XCR0 bits. */
uint32_t cpuid_xsave_bytes(uint64_t xcr0);

/* MXCSR bits that may be set. */
enum { CPUID_MXCSR_MASK = 0xffff };

/* IA32_ARCH_CAPABILITIES (Intel) and the microcode revision in MSR 8BH's own form. */
uint64_t cpuid_arch_capabilities(void);
uint64_t cpuid_microcode(const struct cpuid_model *m);

#endif
