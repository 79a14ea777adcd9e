/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_PIT_H
#define HANOK_DEV_PIT_H

#include "base/loop.h"
#include "dev/dev.h"

/* The PC's 8254 interval timer (Intel 8254 datasheet 231164) and system control port B (61h). */
struct pit;

enum { PIT_HZ = 1193182 };

struct pit_config {
	struct bus *bus;
	struct loop *loop;
	uint16_t port, port61;
	struct irq_line irq; /* OUT of counter 0 */
};

extern const struct dev_ops pit_ops;

int pit_create(struct pit **out, const struct pit_config *cfg, struct error *err);

#endif
