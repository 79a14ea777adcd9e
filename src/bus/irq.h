/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BUS_IRQ_H
#define HANOK_BUS_IRQ_H

#include <stdint.h>

/*
 * An interrupt wire: what a device drives and an interrupt controller listens to. Level: 1 is
 * asserted. Any thread; may be called with the device's own lock held (lock order: device, PCI bus,
 * PIC, I/O APIC, local APIC; the last two are left before they call towards the first, for an EOI
 * or the PIC's acknowledge cycle). A zeroed line is connected to nothing.
 */
struct irq_line {
	void (*set)(void *opaque, unsigned pin, int level);
	void *opaque;
	unsigned pin;
};

static inline void irq_set(const struct irq_line *line, int level)
{
	if (line->set)
		line->set(line->opaque, line->pin, level);
}

/* Message-signalled interrupts: a write of data to an address in FEE00000h-FEEFFFFFh (SDM 11.11). */
struct msi_sink {
	void (*send)(void *opaque, uint64_t address, uint32_t data);
	void *opaque;
};

#endif
