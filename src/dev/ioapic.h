/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_IOAPIC_H
#define HANOK_DEV_IOAPIC_H

#include "dev/dev.h"
#include "dev/lapic.h"

/* I/O APIC (Intel 82093AA datasheet 290566) of version 20h, with the EOI register of the later ones
 * (ICH9 datasheet 13.5). 24 pins. */
struct ioapic;

enum { IOAPIC_PINS = 24 };

struct ioapic_config {
	struct bus *bus;
	uint64_t gpa;
	uint8_t id;
	struct lapic_set *lapics; /* where interrupts go, and EOIs come from */
};

extern const struct dev_ops ioapic_ops;

int ioapic_create(struct ioapic **out, const struct ioapic_config *cfg, struct error *err);

/* Drives an input; level 1 is asserted, whatever the polarity bit says (the board's lines are all
 * active high here, so polarity is kept but has no effect). Any thread. */
void ioapic_set_irq(struct ioapic *io, unsigned pin, int level);

#endif
