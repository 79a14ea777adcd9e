/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <pthread.h>
#include <time.h>

enum { CALIBRATE_NS = 20 * 1000 * 1000 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t tsc_hz;

static uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_ns(void)
{
	return now_ns(CLOCK_MONOTONIC);
}

uint64_t clock_utc_ns(void)
{
	return now_ns(CLOCK_REALTIME);
}

/* One reading of both clocks, taken where the TSC moved least around the clock call, so that a
 * preemption between the two reads does not count. */
static void read_both(uint64_t *ns, uint64_t *tsc)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 16; i++) {
		uint64_t before = clock_tsc();
		uint64_t now = clock_ns();
		uint64_t after = clock_tsc();
		if (after - before < best) {
			best = after - before;
			*ns = now;
			*tsc = before + (after - before) / 2;
		}
	}
}

static void calibrate(void)
{
	uint64_t ns0 = 0, tsc0 = 0, ns1 = 0, tsc1 = 0;
	struct timespec ts = {.tv_nsec = CALIBRATE_NS};

	read_both(&ns0, &tsc0);
	nanosleep(&ts, NULL);
	read_both(&ns1, &tsc1);
	tsc_hz = clock_muldiv(tsc1 - tsc0, 1000000000u, ns1 - ns0);
}

uint64_t clock_tsc_hz(void)
{
	pthread_once(&once, calibrate);
	return tsc_hz;
}
