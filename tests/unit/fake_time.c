/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_time.h"

#include <stddef.h>

#include "base/clock.h"
#include "base/loop.h"

enum { TIMERS = 1024 };

static uint64_t now_ns = UINT64_C(5000000000);
static struct timer *armed[TIMERS];

static uint64_t drift_ns;

uint64_t clock_ns(void)
{
	return now_ns += drift_ns;
}

void fake_time_drift(uint64_t ns)
{
	drift_ns = ns;
}

static uint64_t utc_ahead_ns = UINT64_C(1700000000000000000);

uint64_t clock_utc_ns(void)
{
	return now_ns + utc_ahead_ns;
}

void fake_time_set_utc(uint64_t ns)
{
	utc_ahead_ns = ns - now_ns;
}

uint64_t clock_tsc_hz(void)
{
	return 1000000000;
}

void timer_init(struct timer *t, struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct timer){.loop = loop, .fn = fn, .opaque = opaque};
}

void timer_arm(struct timer *t, uint64_t deadline_ns)
{
	t->deadline_ns = deadline_ns;
	for (uint32_t i = 1; i < TIMERS && !t->heap_index; i++)
		if (!armed[i]) {
			armed[i] = t;
			t->heap_index = i;
		}
}

void timer_cancel(struct timer *t)
{
	armed[t->heap_index] = NULL;
	t->heap_index = 0;
}

void timer_destroy(struct timer *t)
{
	timer_cancel(t);
}

static struct timer *earliest(uint64_t limit)
{
	struct timer *first = NULL;

	for (uint32_t i = 1; i < TIMERS; i++)
		if (armed[i] && armed[i]->deadline_ns <= limit &&
		    (!first || armed[i]->deadline_ns < first->deadline_ns))
			first = armed[i];
	return first;
}

static void run(struct timer *t)
{
	timer_cancel(t);
	t->fn(t->opaque);
}

void fake_time_pass(uint64_t ns)
{
	uint64_t end = now_ns + ns;

	for (struct timer *t; (t = earliest(end));) {
		if (t->deadline_ns > now_ns)
			now_ns = t->deadline_ns;
		run(t);
	}
	now_ns = end;
}

unsigned fake_time_jump(uint64_t ns)
{
	unsigned ran = 0;

	now_ns += ns;
	for (struct timer *t; (t = earliest(now_ns)); ran++)
		run(t);
	return ran;
}

void fake_time_reset(void)
{
	for (uint32_t i = 1; i < TIMERS; i++)
		if (armed[i])
			timer_cancel(armed[i]);
}
