/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_CLOCK_H
#define HANOK_BASE_CLOCK_H

#include <stdint.h>

/* Host time and the host's time stamp counter. Any thread. */

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t clock_ns(void);

/* CLOCK_REALTIME in nanoseconds since 1970. */
uint64_t clock_utc_ns(void);

/* The host's TSC now. */
static inline uint64_t clock_tsc(void)
{
	return __builtin_ia32_rdtsc();
}

/* Ticks of the host's TSC in a second, measured once (about 20 ms) on the first call. */
uint64_t clock_tsc_hz(void);

/* a * b / c without overflow in between; c is not 0. */
static inline uint64_t clock_muldiv(uint64_t a, uint64_t b, uint64_t c)
{
	return (uint64_t)((unsigned __int128)a * b / c);
}

#endif
