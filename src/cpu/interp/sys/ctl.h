/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_SYS_CTL_H
#define HANOK_CPU_INTERP_SYS_CTL_H

#include "cpu/interp/interp.h"

/*
 * The processor's own controls: control and debug registers, MSRs, CPUID, time stamps, random
 * numbers, TLB and cache instructions, HLT, fences, hints, and the FXSAVE and XSAVE families.
 */

/* The handler of an instruction, or NULL when the mnemonic is none of these; sets INSN_END where
 * modes, mappings or the flow change. */
op_fn *sys_ctl_select(const struct decoded *d, struct insn *i);

/* Parts of it, a file each. */
op_fn *crdr_select(const struct decoded *d, struct insn *i);
op_fn *msr_select(const struct decoded *d, struct insn *i);
op_fn *xsave_select(const struct decoded *d, struct insn *i);

/* #GP(0) unless CPL is 0. */
static inline void need_cpl0(struct soft_cpu *c)
{
	if (c->cpl)
		cpu_gp0(c);
}

/* EDX:EAX as one, and back; the upper halves of RAX and RDX are cleared. */
static inline uint64_t edx_eax(const struct soft_cpu *c)
{
	return (uint64_t)(uint32_t)c->s.gpr[RDX] << 32 | (uint32_t)c->s.gpr[RAX];
}

static inline void set_edx_eax(struct soft_cpu *c, uint64_t v)
{
	c->s.gpr[RAX] = (uint32_t)v;
	c->s.gpr[RDX] = v >> 32;
}

/* The guest's time stamp counter now. */
uint64_t cpu_tsc(const struct soft_cpu *c);

/*
 * An MSR by number, as RDMSR and WRMSR at CPL 0 would; raise #GP(0), or leave with an exit for
 * those that machine/ holds.
 */
uint64_t msr_read(struct soft_cpu *c, uint32_t index);
void msr_write(struct soft_cpu *c, uint32_t index, uint64_t value);

#endif
