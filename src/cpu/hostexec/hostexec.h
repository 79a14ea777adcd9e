/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_HOSTEXEC_HOSTEXEC_H
#define HANOK_CPU_HOSTEXEC_HOSTEXEC_H

#include "cpu/interp/interp.h"

/*
 * Instructions whose meaning is pure register and memory arithmetic (x87, MMX, SSE to AVX2, AES,
 * SHA, BMI, ...) are carried out by running the very instruction on the host CPU. See form.h for
 * how.
 */

/*
 * The handler of such an instruction, with i->aux set; NULL when it is none of these or the host
 * lacks it (then it is undefined for the guest too: the CPUID model offers only what the host has).
 * Call it on the thread that will run i; on another thread i is still right, but slower the first
 * time. i must stay writable where it is kept: running it may refresh i->aux.
 */
op_fn *hostexec_select(const struct decoded *d, struct insn *i);

/* Whether the host runs instructions of this set and hostexec offers them. Any thread. */
bool hostexec_supports(ZydisISASet set);

/* Bits that may be set in MXCSR, as FXSAVE reports them (SDM Vol. 1, 11.6.6). Any thread. */
uint32_t hostexec_mxcsr_mask(void);

#endif
