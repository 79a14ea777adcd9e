/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_REGS_H
#define HANOK_DEV_REGS_H

#include "base/clock.h"
#include "bus/bus.h"
#include "state/stream.h"

/* Small things that register-level devices share. */

/*
 * Carries out an access to a device whose registers are a byte wide, byte by byte, low address
 * first, as an 8-bit device behind a wider bus sees it. The callbacks run without any lock.
 */
static inline void regs_by_byte(void *dev, struct bus_access *a,
				uint8_t (*read)(void *dev, unsigned reg),
				void (*write)(void *dev, unsigned reg, uint8_t value))
{
	uint64_t value = 0;

	for (unsigned i = 0; i < a->size; i++) {
		if (a->write)
			write(dev, (unsigned)a->offset + i, (uint8_t)(a->value >> (8 * i)));
		else
			value |= (uint64_t)read(dev, (unsigned)a->offset + i) << (8 * i);
	}
	if (!a->write)
		a->value = value;
}

/*
 * Instants of CLOCK_MONOTONIC in a state stream, relative to now, so that time stands still for the
 * guest while it is saved. An epoch lies in the past, a deadline in the future (0: none). A restored
 * epoch may wrap below 0: only `now - epoch`, modulo 2^64, means anything.
 */
static inline void regs_state_epoch_ns(struct state_stream *s, uint64_t *epoch_ns)
{
	uint64_t now = clock_ns(), elapsed = now - *epoch_ns;

	state_u64(s, &elapsed);
	if (!state_writing(s)) {
		if (elapsed > UINT64_MAX / 4)
			state_fail(s, "an instant over a century ago");
		*epoch_ns = now - elapsed;
	}
}

static inline void regs_state_deadline_ns(struct state_stream *s, uint64_t *deadline_ns)
{
	uint64_t now = clock_ns();
	bool armed = *deadline_ns != 0;
	uint64_t left = *deadline_ns > now ? *deadline_ns - now : 0;

	state_bool(s, &armed);
	state_u64(s, &left);
	if (!state_writing(s)) {
		if (left > UINT64_MAX / 4)
			state_fail(s, "a deadline over a century away");
		*deadline_ns = armed ? now + left : 0;
	}
}

#endif
