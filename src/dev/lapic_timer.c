/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC's timer (SDM 11.5.4): one-shot, periodic, TSC deadline.
 *
 * The count is worked out from CLOCK_MONOTONIC when it is read. A host timer waits for the next
 * expiry, and only while the LVT entry is open: a masked expiry leaves no trace. A periodic timer
 * that is late by several periods interrupts once and goes on with the first expiry still ahead;
 * periods under MIN_PERIOD_NS are served at that pace. A deadline interrupts only when the guest's
 * TSC has passed it, whatever the host's clocks disagree about.
 */
#include "base/clock.h"
#include "dev/lapic_internal.h"

enum { MIN_PERIOD_NS = 50 * 1000 };
#define FAR_NS (UINT64_C(1) << 60)

_Static_assert(LAPIC_TIMER_HZ == 1000000000, "below a tick of the timer's clock is a nanosecond");

static unsigned timer_mode(const struct lapic *l)
{
	return l->lvt[LVT_TIMER] >> 17 & 3;
}

/* Figure 11-10: bits 3, 1 and 0 as one number; 111b divides by 1, the others by 2 << n. */
static unsigned divide_shift(const struct lapic *l)
{
	return ((l->divide & 3) + (l->divide >> 1 & 4) + 1) & 7;
}

static uint64_t period_ns(const struct lapic *l)
{
	return (uint64_t)l->initial << divide_shift(l);
}

static uint64_t guest_tsc(const struct lapic *l)
{
	uint64_t (*host_tsc)(void) = l->set->cfg.host_tsc;

	return (host_tsc ? host_tsc() : clock_tsc()) + l->tsc_offset;
}

uint32_t lapic_timer_current(const struct lapic *l)
{
	uint64_t ticks = (clock_ns() - l->start_ns) >> divide_shift(l);

	if (!l->initial || timer_mode(l) >= TIMER_DEADLINE)
		return 0;
	if (timer_mode(l) == TIMER_PERIODIC)
		return l->initial - (uint32_t)(ticks % l->initial);
	return l->one_shot_done || ticks >= l->initial ? 0 : l->initial - (uint32_t)ticks;
}

/* The instant to wait for, after now, or 0. */
static uint64_t next_fire(const struct lapic *l, uint64_t now)
{
	uint64_t period = period_ns(l), tsc, wait;

	if (l->lvt[LVT_TIMER] & LVT_MASKED)
		return 0;
	switch (timer_mode(l)) {
	case TIMER_ONE_SHOT:
		if (!period || l->one_shot_done || now - l->start_ns >= period)
			return 0;
		return l->start_ns + period;
	case TIMER_PERIODIC:
		if (!period)
			return 0;
		return l->start_ns + ((now - l->start_ns) / period + 1) * period;
	case TIMER_DEADLINE:
		if (!l->tsc_deadline)
			return 0;
		tsc = guest_tsc(l);
		if (tsc >= l->tsc_deadline)
			return now;
		if (l->tsc_deadline - tsc >= FAR_NS)
			return now + FAR_NS; /* decades; the callback looks again */
		wait = clock_muldiv(l->tsc_deadline - tsc, 1000000000, l->set->cfg.tsc_hz);
		return now + wait + 1;
	default:
		return 0;
	}
}

void lapic_timer_rearm(struct lapic *l)
{
	l->fire_ns = next_fire(l, clock_ns());
	if (l->fire_ns)
		timer_arm(&l->timer, l->fire_ns);
	else
		timer_cancel(&l->timer);
}

void lapic_timer_callback(void *lapic)
{
	struct lapic *l = lapic;
	uint64_t now = clock_ns();

	pthread_mutex_lock(&l->lock);
	if (!l->fire_ns) /* cancelled meanwhile */
		goto out;
	if (now < l->fire_ns) {
		timer_arm(&l->timer, l->fire_ns);
		goto out;
	}
	if (timer_mode(l) == TIMER_DEADLINE && guest_tsc(l) < l->tsc_deadline) {
		lapic_timer_rearm(l);
		goto out;
	}
	l->tsc_deadline = 0;
	l->one_shot_done = timer_mode(l) == TIMER_ONE_SHOT;
	lapic_accept(l, (uint8_t)l->lvt[LVT_TIMER], false);
	l->fire_ns = next_fire(l, now);
	if (l->fire_ns && l->fire_ns < now + MIN_PERIOD_NS && period_ns(l) < MIN_PERIOD_NS)
		l->fire_ns = now + MIN_PERIOD_NS;
	if (l->fire_ns)
		timer_arm(&l->timer, l->fire_ns);
out:
	pthread_mutex_unlock(&l->lock);
}

void lapic_timer_set_initial(struct lapic *l, uint32_t value)
{
	if (timer_mode(l) >= TIMER_DEADLINE)
		return; /* SDM 11.5.4.1: ignored */
	l->initial = value;
	l->one_shot_done = false;
	l->start_ns = clock_ns();
	lapic_timer_rearm(l);
}

/* What is left of the count goes on at the new pace. */
void lapic_timer_set_divide(struct lapic *l, uint32_t value)
{
	uint32_t current = lapic_timer_current(l);

	l->divide = value & 0xb;
	if (current)
		l->start_ns = clock_ns() - ((uint64_t)(l->initial - current) << divide_shift(l));
	lapic_timer_rearm(l);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t value)
{
	unsigned old = timer_mode(l);

	lapic_timer_get_deadline(l); /* forget one that passed while masked */
	bool expired = old == TIMER_ONE_SHOT && l->initial && !lapic_timer_current(l);

	l->lvt[LVT_TIMER] = value;
	l->one_shot_done = expired;
	/* Into or out of deadline mode disarms the timer (SDM 11.5.4.1). */
	if (old != timer_mode(l) && (old >= TIMER_DEADLINE || timer_mode(l) >= TIMER_DEADLINE)) {
		l->initial = 0;
		l->tsc_deadline = 0;
	} else if (old != timer_mode(l) && expired) {
		l->initial = 0; /* a one-shot that is over does not start again as a periodic */
	}
	lapic_timer_rearm(l);
}

uint64_t lapic_timer_get_deadline(struct lapic *l)
{
	/* Masked, no host timer clears it when it passes. */
	if (l->tsc_deadline && l->lvt[LVT_TIMER] & LVT_MASKED && guest_tsc(l) >= l->tsc_deadline)
		l->tsc_deadline = 0;
	return l->tsc_deadline;
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	if (timer_mode(l) != TIMER_DEADLINE)
		return;
	l->tsc_deadline = tsc;
	if (tsc && guest_tsc(l) >= tsc) {
		l->tsc_deadline = 0; /* already past: at once */
		if (!(l->lvt[LVT_TIMER] & LVT_MASKED))
			lapic_accept(l, (uint8_t)l->lvt[LVT_TIMER], false);
	}
	lapic_timer_rearm(l);
}
