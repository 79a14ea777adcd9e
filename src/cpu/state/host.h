/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_STATE_HOST_H
#define HANOK_CPU_STATE_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * What the host's CPU has. Whoever wants to know asks here, so that tests can take features away:
 * HANOK_MASK_CPU is a list of names, as in /proc/cpuinfo, with commas between them. Any thread.
 */

/* CPUID, without the masked features. out: EAX, EBX, ECX, EDX. */
void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
/* Are AVX's registers there, and enabled by the host's kernel? */
bool host_has_avx(void);
/* Are RDFSBASE and the like there, and enabled by the host's kernel? */
bool host_has_fsgsbase(void);
/* 0, or -EINVAL when HANOK_MASK_CPU holds a name that is not known. */
int host_check_mask(struct error *err);

#endif
