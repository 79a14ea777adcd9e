/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_DEV_H
#define HANOK_DEV_DEV_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "state/stream.h"

/*
 * What the board knows of every device. A device's own create function (in its header) takes what
 * it needs; the board table (machine/board.c) lists the devices in order and drives the rest
 * through this: reset, save and restore in order, destroy in reverse.
 */
struct dev_ops {
	const char *name;
	/* Power-on or system reset. vCPUs do not run. */
	void (*reset)(void *dev);
	/* Save or restore, by the stream's direction. vCPUs do not run. Deadlines are saved relative
	 * to now. */
	void (*state)(void *dev, struct state_stream *s);
	/* Accepts a half-built device. */
	void (*destroy)(void *dev);
};

#endif
