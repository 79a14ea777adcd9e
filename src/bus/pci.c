/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI bus 0: the ways in (CONFIG_ADDRESS/CONFIG_DATA, ECAM), and INTx. The functions are in
 * pci_dev.c, message-signalled interrupts in pci_msi.c.
 */
#include "bus/pci.h"

#include <errno.h>
#include <stdlib.h>

#include "bus/pci_internal.h"

enum { PORT_BYTES = 4 };
#define ADDRESS_ENABLE UINT32_C(0x80000000)
#define ADDRESS_WRITABLE UINT32_C(0x80fffffc)
enum { RESET_AT = 1, RST_CPU = 4, RST_KEEP = 0x0e };

/* --- configuration accesses --- */

static uint32_t config_read(struct pci_bus *pb, unsigned bdf, unsigned offset, unsigned size)
{
	uint32_t v = UINT32_MAX;
	struct pci_dev *d;

	pthread_mutex_lock(&pb->lock);
	d = bdf < PCI_DEVFNS ? pb->dev[bdf] : NULL;
	if (d && d->config_read) {
		pthread_mutex_unlock(&pb->lock);
		d->config_read(d->opaque, offset, size);
		pthread_mutex_lock(&pb->lock);
	}
	if (d && offset + size <= PCI_CONFIG_BYTES) {
		/* It shows the level even while the command register keeps it off the line. */
		d->config[PCI_STATUS] &= ~PCI_STATUS_INTX;
		d->config[PCI_STATUS] |= d->intx ? PCI_STATUS_INTX : 0;
		v = pci_get(d->config, offset, size);
	}
	pthread_mutex_unlock(&pb->lock);
	return v;
}

static void config_write(struct pci_bus *pb, unsigned bdf, unsigned offset, unsigned size,
			 uint32_t value)
{
	struct pci_dev *d;

	pthread_mutex_lock(&pb->lock);
	d = bdf < PCI_DEVFNS ? pb->dev[bdf] : NULL;
	if (!d || offset + size > PCI_CONFIG_BYTES) {
		pthread_mutex_unlock(&pb->lock);
		return;
	}
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(value >> (8 * i)), *reg = &d->config[offset + i];
		uint8_t w = d->writable[offset + i];
		*reg = (*reg & ~w) | (byte & w);
		*reg &= ~(byte & d->clearable[offset + i]);
	}
	pci_map_bars(d);
	pci_update_intx(d);
	pci_msi_update(d);
	pci_msix_update(d);
	pthread_mutex_unlock(&pb->lock);
	if (d->config_written)
		d->config_written(d->opaque, offset, size);
}

static void config_access(struct pci_bus *pb, struct bus_access *a, unsigned bdf, unsigned offset)
{
	unsigned size = a->size < 4 ? a->size : 4;

	if (a->write) {
		config_write(pb, bdf, offset, size, (uint32_t)a->value);
		if (a->size > 4)
			config_write(pb, bdf, offset + 4, a->size - 4, (uint32_t)(a->value >> 32));
		return;
	}
	a->value = config_read(pb, bdf, offset, size);
	if (a->size > 4)
		a->value |= (uint64_t)config_read(pb, bdf, offset + 4, a->size - 4) << 32;
}

/* A byte at CF9h is the chip set's reset control: the processor is reset when bit 2 rises. */
static void access_reset(struct pci_bus *pb, struct bus_access *a)
{
	bool fire;

	pthread_mutex_lock(&pb->lock);
	fire = a->write && a->value & RST_CPU && !(pb->reset_ctrl & RST_CPU);
	if (a->write)
		pb->reset_ctrl = a->value & RST_KEEP;
	else
		a->value = pb->reset_ctrl;
	pthread_mutex_unlock(&pb->lock);
	if (fire && pb->cfg.reset)
		pb->cfg.reset(pb->cfg.opaque);
}

/* PCI 3.2.2.3.2: only a full dword reaches CONFIG_ADDRESS. */
static void access_address(void *opaque, struct bus_access *a)
{
	struct pci_bus *pb = opaque;

	if (a->size == 1 && a->offset == RESET_AT) {
		access_reset(pb, a);
		return;
	}
	if (a->size != 4)
		return;
	pthread_mutex_lock(&pb->lock);
	if (a->write)
		pb->address = (uint32_t)a->value & ADDRESS_WRITABLE;
	else
		a->value = pb->address;
	pthread_mutex_unlock(&pb->lock);
}

static void access_data(void *opaque, struct bus_access *a)
{
	struct pci_bus *pb = opaque;
	uint32_t address;

	pthread_mutex_lock(&pb->lock);
	address = pb->address;
	pthread_mutex_unlock(&pb->lock);
	if (address & ADDRESS_ENABLE)
		config_access(pb, a, address >> 8 & 0xffff, (address & 0xfc) + (unsigned)a->offset);
}

/* PCI Express Base Specification 7.2.2: bus, device, function, 4 KiB of registers each. */
static void access_ecam(void *opaque, struct bus_access *a)
{
	config_access(opaque, a, (unsigned)(a->offset >> 12), a->offset & 0xfff);
}

/* --- INTx --- */

/* Puts the function's level, unless the command register holds it back, on its line. pb->lock is
 * not needed for the one byte read. */
void pci_update_intx(struct pci_dev *d)
{
	struct pci_bus *pb = d->pb;
	unsigned line = ((d->devfn >> 3) + d->initial[PCI_INTERRUPT_PIN] - 1u) % PCI_PINS;
	bool off, level;

	if (!d->initial[PCI_INTERRUPT_PIN])
		return;
	pthread_mutex_lock(&pb->irq_lock);
	off = __atomic_load_n(&d->config[PCI_COMMAND + 1], __ATOMIC_RELAXED) &
	      PCI_COMMAND_INTX_OFF >> 8;
	level = d->intx && !off;
	if (level != d->intx_out) {
		d->intx_out = level;
		pb->intx_count[line] += level ? 1u : -1u;
		if (pb->intx_count[line] == level) /* first on, or last off */
			irq_set(&pb->cfg.intx[line], level);
	}
	pthread_mutex_unlock(&pb->irq_lock);
}

void pci_set_intx(struct pci_dev *d, int level)
{
	if (__atomic_exchange_n(&d->intx, level != 0, __ATOMIC_SEQ_CST) != (level != 0) && d->pb)
		pci_update_intx(d);
}

/* --- life --- */

void pci_bus_reset(struct pci_bus *pb)
{
	pthread_mutex_lock(&pb->lock);
	pb->address = 0;
	pb->reset_ctrl = 0;
	pthread_mutex_unlock(&pb->lock);
}

void pci_bus_state(struct pci_bus *pb, struct state_stream *s)
{
	pthread_mutex_lock(&pb->lock);
	state_begin(s, "pci", 0, 1);
	state_u32(s, &pb->address);
	state_u8(s, &pb->reset_ctrl);
	state_end(s);
	pb->address &= ADDRESS_WRITABLE;
	pthread_mutex_unlock(&pb->lock);
}

static struct bus_range range_of(struct pci_bus *pb, unsigned i)
{
	const struct bus_range ranges[] = {
		{BUS_PIO, pb->cfg.address_port, PORT_BYTES, access_address, pb, "pci address"},
		{BUS_PIO, pb->cfg.data_port, PORT_BYTES, access_data, pb, "pci data"},
		{BUS_MMIO, pb->cfg.ecam_gpa, pb->cfg.ecam_bytes, access_ecam, pb, "pci ecam"},
	};

	return ranges[i];
}

void pci_bus_destroy(struct pci_bus *pb)
{
	if (!pb)
		return;
	while (pb->mapped) {
		struct bus_range r = range_of(pb, --pb->mapped);
		bus_unmap(pb->cfg.bus, r.space, r.base, pb);
	}
	pthread_mutex_destroy(&pb->lock);
	pthread_mutex_destroy(&pb->irq_lock);
	free(pb);
}

int pci_bus_create(struct pci_bus **out, const struct pci_bus_config *cfg, struct error *err)
{
	struct pci_bus *pb = calloc(1, sizeof(*pb));

	*out = NULL;
	if (!pb)
		return error_set(err, -ENOMEM, "pci: out of memory");
	pb->cfg = *cfg;
	pthread_mutex_init(&pb->lock, NULL);
	pthread_mutex_init(&pb->irq_lock, NULL);
	for (; pb->mapped < 3; pb->mapped++) {
		struct bus_range r = range_of(pb, pb->mapped);
		int rc = bus_map(cfg->bus, &r);
		if (rc) {
			pci_bus_destroy(pb);
			return error_set(err, rc, "pci: configuration space cannot be mapped");
		}
	}
	*out = pb;
	return 0;
}
