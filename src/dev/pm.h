/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_PM_H
#define HANOK_DEV_PM_H

#include "base/loop.h"
#include "dev/dev.h"

/* ACPI fixed hardware (ACPI 6.4, 4.8): PM1a event and control blocks, power management timer of 24
 * bits, general-purpose event block 0. The machine is always in ACPI mode. */
struct pm;

enum { PM_TIMER_HZ = 3579545 };

struct pm_config {
	struct bus *bus;
	struct loop *loop;
	uint16_t evt_port, cnt_port, timer_port; /* 4, 2 and 4 bytes, one after the other */
	uint16_t gpe0_port;			 /* 4 bytes: 16 status, 16 enable bits */
	struct irq_line sci;			 /* level */
	/* The guest entered S5. Called with the device locked. */
	void (*power_off)(void *opaque);
	void *opaque;
};

extern const struct dev_ops pm_ops;

int pm_create(struct pm **out, const struct pm_config *cfg, struct error *err);

/* The power button. Any thread. */
void pm_power_button(struct pm *p);
/* Sets status bit 0 to 15 of GPE0. Any thread. */
void pm_raise_gpe(struct pm *p, unsigned bit);

#endif
