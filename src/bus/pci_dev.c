/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI function: its configuration space, as bytes with a mask of what the guest may write, and its
 * BARs, which are on the bus while the command register says so and the base makes sense. Sizing a
 * BAR (PCI 6.2.5.1) needs nothing of its own: the bits below its size are not writable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bus/pci_internal.h"

enum { CAPABILITIES_AT = 0x40, STATUS_CAP_LIST = 1 << 4 };
enum { BAR_IO = 1, BAR_MEM64 = 4, BAR_PREFETCH = 8 };
enum {
	COMMAND_WRITABLE = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 1 << 6 |
			   1 << 8 | PCI_COMMAND_INTX_OFF
};
enum { MMIO_BITS = 52 };

void pci_dev_set(struct pci_dev *d, unsigned offset, unsigned size, uint32_t value,
		 uint32_t writable)
{
	pci_put(d->initial, offset, size, value);
	pci_put(d->config, offset, size, value);
	pci_put(d->writable, offset, size, writable);
}

void pci_dev_init(struct pci_dev *d, const char *name, const struct pci_ident *id)
{
	memset(d, 0, sizeof(*d));
	d->name = name;
	d->cap_next = CAPABILITIES_AT;
	pci_dev_set(d, PCI_VENDOR_ID, 2, id->vendor, 0);
	pci_dev_set(d, PCI_DEVICE_ID, 2, id->device, 0);
	pci_dev_set(d, PCI_COMMAND, 2, 0, COMMAND_WRITABLE);
	pci_dev_set(d, PCI_REVISION, 1, id->revision, 0);
	pci_dev_set(d, PCI_CLASS, 3, id->class_code, 0);
	pci_dev_set(d, 0x0c, 1, 0, 0xff); /* cache line size: kept, without effect */
	pci_dev_set(d, PCI_SUBSYSTEM_VENDOR, 2, id->subsystem_vendor, 0);
	pci_dev_set(d, PCI_SUBSYSTEM_ID, 2, id->subsystem, 0);
	pci_dev_set(d, PCI_INTERRUPT_LINE, 1, 0, 0xff);
	pci_dev_set(d, PCI_INTERRUPT_PIN, 1, id->interrupt_pin, 0);
}

int pci_dev_set_bar(struct pci_dev *d, unsigned n, enum pci_bar_kind kind, bool prefetchable,
		    uint64_t size, void (*fn)(void *opaque, struct bus_access *a), void *opaque)
{
	uint64_t mask = ~(size - 1);
	uint32_t flags = kind == PCI_BAR_IO ? BAR_IO : 0;

	if (n >= PCI_BARS || kind == PCI_BAR_NONE || !size || size & (size - 1) || !fn ||
	    (kind == PCI_BAR_IO && (size < 4 || size > 256)) || (kind != PCI_BAR_IO && size < 16) ||
	    (kind == PCI_BAR_MEM32 && size > UINT32_C(1) << 31) ||
	    (kind == PCI_BAR_MEM64 && (n + 1 >= PCI_BARS || size > UINT64_C(1) << 40)))
		return -EINVAL;
	if (kind == PCI_BAR_MEM64)
		flags |= BAR_MEM64;
	if (kind != PCI_BAR_IO && prefetchable)
		flags |= BAR_PREFETCH;
	d->bar[n] = (struct pci_bar){.kind = kind,
				     .prefetchable = prefetchable,
				     .size = size,
				     .fn = fn,
				     .opaque = opaque};
	pci_dev_set(d, PCI_BAR0 + 4 * n, 4, flags, (uint32_t)mask);
	if (kind == PCI_BAR_MEM64)
		pci_dev_set(d, PCI_BAR0 + 4 * n + 4, 4, 0, (uint32_t)(mask >> 32));
	return 0;
}

/* PCI 6.7: a list from the capabilities pointer on. */
int pci_dev_add_capability(struct pci_dev *d, uint8_t id, unsigned len)
{
	unsigned at = d->cap_next;

	if (at + len > PCI_CONFIG_BYTES - 4) /* cap_next stays within a byte */
		return -ENOSPC;
	pci_dev_set(d, at, 1, id, 0);
	pci_dev_set(d, at + 1, 1, d->initial[PCI_CAPABILITIES], 0);
	pci_dev_set(d, PCI_CAPABILITIES, 1, at, 0);
	pci_dev_set(d, PCI_STATUS, 1, d->initial[PCI_STATUS] | STATUS_CAP_LIST, 0);
	d->cap_next = (uint8_t)((at + len + 3) & ~3u);
	return (int)at;
}

/* --- BARs on the bus --- */

/* Where BAR n belongs now, or 0 for nowhere. A base of 0 is where sizing and reset leave it, and all
 * ones are what sizing writes; neither is a place. */
static uint64_t bar_place(const struct pci_dev *d, unsigned n)
{
	const struct pci_bar *bar = &d->bar[n];
	uint32_t command = pci_get(d->config, PCI_COMMAND, 2);
	uint64_t base = pci_get(d->config, PCI_BAR0 + 4 * n, 4);
	uint64_t limit = UINT64_C(1) << 32;

	if (!(command & (bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return 0;
	if (bar->kind == PCI_BAR_IO)
		limit = 0x10000;
	if (bar->kind == PCI_BAR_MEM64) {
		base |= (uint64_t)pci_get(d->config, PCI_BAR0 + 4 * n + 4, 4) << 32;
		limit = UINT64_C(1) << MMIO_BITS;
	}
	base &= ~(bar->size - 1);
	if (base >= limit || base + bar->size >= limit)
		return 0;
	return base;
}

static void bar_unmap(struct pci_dev *d, unsigned n)
{
	struct pci_bar *bar = &d->bar[n];
	enum bus_space space = bar->kind == PCI_BAR_IO ? BUS_PIO : BUS_MMIO;

	if (!bar->mapped)
		return;
	if (d->msix.cap && d->msix.bar == n)
		pci_msix_unmap(d, bar->base);
	bus_unmap(d->pb->cfg.bus, space, bar->base, bar->opaque);
	bar->mapped = false;
}

static void bar_map(struct pci_dev *d, unsigned n, uint64_t base)
{
	struct pci_bar *bar = &d->bar[n];
	struct bus_range r = {.space = bar->kind == PCI_BAR_IO ? BUS_PIO : BUS_MMIO,
			      .base = base,
			      .len = bar->size,
			      .fn = bar->fn,
			      .opaque = bar->opaque,
			      .name = d->name};

	if (bus_map(d->pb->cfg.bus, &r)) {
		log_warn("%s: BAR %u cannot be mapped at %#llx", d->name, n,
			 (unsigned long long)base);
		return;
	}
	bar->mapped = true;
	bar->base = base;
	if (d->msix.cap && d->msix.bar == n)
		pci_msix_map(d, base);
}

void pci_map_bars(struct pci_dev *d)
{
	for (unsigned n = 0; n < PCI_BARS; n++) {
		struct pci_bar *bar = &d->bar[n];
		uint64_t base = bar->kind == PCI_BAR_NONE ? 0 : bar_place(d, n);
		if (bar->mapped && bar->base == base)
			continue;
		bar_unmap(d, n);
		if (base)
			bar_map(d, n, base);
	}
}

/* --- life --- */

int pci_dev_add(struct pci_dev *d, struct pci_bus *pb, unsigned slot, unsigned function)
{
	int rc = 0;

	if (slot > 31 || function > 7)
		return -EINVAL;
	pthread_mutex_lock(&pb->lock);
	if (pb->dev[slot << 3 | function]) {
		rc = -EEXIST;
	} else {
		d->devfn = (uint8_t)(slot << 3 | function);
		d->pb = pb;
		pb->dev[d->devfn] = d;
	}
	pthread_mutex_unlock(&pb->lock);
	return rc;
}

void pci_dev_remove(struct pci_dev *d)
{
	if (d->pb) {
		pci_set_intx(d, 0);
		pthread_mutex_lock(&d->pb->lock);
		for (unsigned n = 0; n < PCI_BARS; n++)
			bar_unmap(d, n);
		d->pb->dev[d->devfn] = NULL;
		pthread_mutex_unlock(&d->pb->lock);
		d->pb = NULL;
	}
	pci_msix_free(d);
}

void pci_dev_reset(struct pci_dev *d)
{
	pci_set_intx(d, 0);
	pthread_mutex_lock(&d->pb->lock);
	memcpy(d->config, d->initial, sizeof(d->config));
	pci_map_bars(d);
	pci_update_intx(d);
	pci_msix_reset(d);
	pthread_mutex_unlock(&d->pb->lock);
}

/* MSI's pending bits are the one thing of the function's own that changes without being writable. */
static uint8_t restorable(const struct pci_dev *d, unsigned i)
{
	uint8_t own = d->writable[i] | d->clearable[i];

	if (d->msi_cap && i >= d->msi_cap + 0x14u && i < d->msi_cap + 0x18u)
		own = 0xff;
	return own;
}

void pci_dev_state(struct pci_dev *d, struct state_stream *s)
{
	uint8_t config[PCI_CONFIG_BYTES];
	bool intx = d->intx;

	pthread_mutex_lock(&d->pb->lock);
	memcpy(config, d->config, sizeof(config));
	state_raw(s, config, sizeof(config));
	state_bool(s, &intx);
	for (unsigned i = 0; !state_writing(s) && i < PCI_CONFIG_BYTES; i++) {
		uint8_t own = restorable(d, i);
		d->config[i] = (d->initial[i] & ~own) | (config[i] & own);
	}
	pci_msix_state(d, s);
	if (!state_writing(s))
		pci_map_bars(d);
	pthread_mutex_unlock(&d->pb->lock);
	if (!state_writing(s)) {
		/* No edge on the line: the interrupt controllers have their own memory of it. */
		pci_set_intx(d, intx);
		pci_update_intx(d);
	}
}

bool pci_dev_is_master(struct pci_dev *d)
{
	return __atomic_load_n(&d->config[PCI_COMMAND], __ATOMIC_RELAXED) & PCI_COMMAND_MASTER;
}
