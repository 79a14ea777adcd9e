/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AHCI: the PCI function. The identity and the six ports are the ICH9's (datasheet 316972, 15.4),
 * so that every AHCI driver knows it; the registers are those of AHCI 1.3.1.
 *
 *     guest memory                          here
 *     command list, tables ──> PxCI ──> ahci_port_run ──> ata_start, ata_run ──> disk
 *     received FISes <──────────────── done: FIS, PxIS <────────────┘
 *                                          │
 *     MSI, or INTx <── ahci_update_irq <───┘
 */
#include "dev/ata/ahci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/ata/kinds.h"

enum { HBA_CAP = 0x00, HBA_GHC = 0x04, HBA_IS = 0x08, HBA_PI = 0x0c, HBA_VS = 0x10 };
enum { ABAR = 5, ABAR_BYTES = 0x1000 };

#define GHC_HR (1u << 0)
#define GHC_IE (1u << 1)
#define GHC_AE (1u << 31)

/* AHCI 3.1.1: 64-bit addresses, queueing, command list override, 6 Gbit/s, AHCI only, PIO multiple
 * DRQ blocks, 32 slots, 6 ports. No staggered spin-up: drives are up from the start. */
#define CAP_VALUE                                                                                  \
	(1u << 31 | 1u << 30 | 1u << 24 | 3u << 20 | 1u << 18 | 1u << 15 |                         \
	 (AHCI_SLOTS - 1u) << 8 | (AHCI_PORTS - 1u))
#define VERSION 0x00010301u
#define PORTS_IMPLEMENTED ((1u << AHCI_PORTS) - 1)

/* --- interrupts (AHCI 10.7) --- */

static uint32_t causes(const struct ahci_port *p)
{
	return ahci_port_read((struct ahci_port *)p, PX_IS) & p->ie;
}

void ahci_update_irq(struct ahci *h)
{
	bool on = h->ghc & GHC_IE;

	for (unsigned i = 0; i < AHCI_PORTS; i++)
		if (causes(&h->port[i]))
			h->is |= 1u << i;
	if (!on)
		h->announced = 0;
	if (pci_msi_enabled(&h->pci)) {
		pci_set_intx(&h->pci, 0);
		if (on && h->is & ~h->announced) {
			h->announced = h->is;
			h->interrupts++;
			pci_msi_send(&h->pci, 0);
		}
	} else {
		if (on && h->is && !h->pci.intx)
			h->interrupts++;
		pci_set_intx(&h->pci, on && h->is);
	}
}

/* --- registers --- */

static void reset_hba(struct ahci *h, bool power)
{
	h->ghc = GHC_AE;
	h->is = h->announced = 0;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_port_reset(&h->port[i], power);
}

static uint32_t read_reg(struct ahci *h, unsigned reg)
{
	if (reg >= AHCI_PORT_BASE) {
		unsigned n = (reg - AHCI_PORT_BASE) / AHCI_PORT_BYTES;
		return n < AHCI_PORTS ? ahci_port_read(&h->port[n], reg % AHCI_PORT_BYTES) : 0;
	}
	switch (reg) {
	case HBA_CAP:
		return CAP_VALUE;
	case HBA_GHC:
		return h->ghc;
	case HBA_IS:
		return h->is;
	case HBA_PI:
		return PORTS_IMPLEMENTED;
	case HBA_VS:
		return VERSION;
	default:
		return 0;
	}
}

static void write_reg(struct ahci *h, unsigned reg, uint32_t v)
{
	if (reg >= AHCI_PORT_BASE) {
		unsigned n = (reg - AHCI_PORT_BASE) / AHCI_PORT_BYTES;
		if (n < AHCI_PORTS)
			ahci_port_write(&h->port[n], reg % AHCI_PORT_BYTES, v);
	} else if (reg == HBA_GHC) {
		if (v & GHC_HR)
			reset_hba(h, false);
		else
			h->ghc = GHC_AE | (v & GHC_IE);
	} else if (reg == HBA_IS) {
		h->is &= ~v;
		h->announced &= ~v;
	}
	ahci_update_irq(h);
}

/* Registers in which a one does something and a zero nothing. */
static bool acts_on_ones(unsigned reg)
{
	unsigned px = reg % AHCI_PORT_BYTES;

	if (reg < AHCI_PORT_BASE)
		return reg == HBA_IS;
	return px == PX_IS || px == PX_SERR || px == PX_SACT || px == PX_CI;
}

/* One register, or a part of one. */
static void access_reg(struct ahci *h, unsigned reg, unsigned shift, unsigned size, bool write,
		       uint64_t *value)
{
	uint32_t mask = size >= 4 ? UINT32_MAX : (1u << (8 * size)) - 1, old;

	if (!write) {
		*value = read_reg(h, reg) >> shift & mask;
		return;
	}
	old = acts_on_ones(reg) ? 0 : read_reg(h, reg) & ~(mask << shift);
	write_reg(h, reg, old | ((uint32_t)*value & mask) << shift);
}

static void access_abar(void *opaque, struct bus_access *a)
{
	struct ahci *h = opaque;
	uint64_t result = 0, part;
	unsigned at = (unsigned)a->offset, left = a->size, done = 0;

	pthread_mutex_lock(&h->lock);
	while (left) {
		unsigned shift = at % 4, n = 4 - shift < left ? 4 - shift : left;
		part = a->value >> (8 * done);
		access_reg(h, at - shift, 8 * shift, n, a->write, &part);
		result |= part << (8 * done);
		at += n;
		done += n;
		left -= n;
	}
	pthread_mutex_unlock(&h->lock);
	if (!a->write)
		a->value = result;
}

/* MSI was turned on or off: the interrupt changes its way. */
static void config_written(void *opaque, unsigned offset, unsigned size)
{
	struct ahci *h = opaque;

	if (offset + size <= h->pci.msi_cap || offset >= h->pci.msi_cap + 24u)
		return;
	pthread_mutex_lock(&h->lock);
	ahci_update_irq(h);
	pthread_mutex_unlock(&h->lock);
}

/* --- life --- */

static void settle(struct ahci *h)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &h->port[i];
		do {
			ata_settle(&p->drive, p->command, AHCI_SLOTS);
			pthread_mutex_lock(&h->lock);
			ahci_port_run(p); /* what waited for those */
			pthread_mutex_unlock(&h->lock);
		} while (p->drive.in_flight);
	}
}

static void abort_all(struct ahci *h)
{
	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_port_abort(&h->port[i]);
	pthread_mutex_unlock(&h->lock);
	settle(h);
}

static void ahci_reset(void *dev)
{
	struct ahci *h = dev;

	abort_all(h); /* nothing may land in memory that the guest is loaded into again */
	pthread_mutex_lock(&h->lock);
	pci_dev_reset(&h->pci);
	reset_hba(h, true);
	ahci_update_irq(h);
	pthread_mutex_unlock(&h->lock);
}

static void ahci_destroy(void *dev)
{
	struct ahci *h = dev;

	if (!h)
		return;
	abort_all(h);
	pci_dev_remove(&h->pci);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		free(h->port[i].command);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static void port_state(struct ahci_port *p, struct state_stream *s)
{
	ata_drive_state(&p->drive, s);
	ata_regs_state(&p->regs, s);
	state_u64(s, &p->clb);
	state_u64(s, &p->fb);
	state_u32(s, &p->is);
	state_u32(s, &p->ie);
	state_u32(s, &p->cmd);
	state_u32(s, &p->sctl);
	state_u32(s, &p->serr);
	state_u32(s, &p->sig);
	state_u32(s, &p->sact);
	state_u32(s, &p->ci);
	state_bool(s, &p->linked);
	state_bool(s, &p->halted);
	state_bool(s, &p->soft_reset);
	if (!ahci_port_valid(p))
		state_fail(s, "port registers that cannot be");
}

static void ahci_state(void *dev, struct state_stream *s)
{
	struct ahci *h = dev;

	if (state_writing(s))
		settle(h);
	else
		abort_all(h);
	pthread_mutex_lock(&h->lock);
	state_begin(s, "ahci", h->cfg.slot, 1);
	state_u32(s, &h->ghc);
	state_u32(s, &h->is);
	state_u32(s, &h->announced);
	h->ghc = (h->ghc & GHC_IE) | GHC_AE;
	h->is &= PORTS_IMPLEMENTED;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		port_state(&h->port[i], s);
	pci_dev_state(&h->pci, s);
	state_end(s);
	if (!state_writing(s) && state_stream_error(s, NULL))
		reset_hba(h, true); /* half of it would be worse */
	pthread_mutex_unlock(&h->lock);
}

static void init_pci(struct ahci *h)
{
	static const struct pci_ident id = {.vendor = 0x8086,
					    .device = 0x2922,
					    .subsystem_vendor = 0x1af4,
					    .subsystem = 0x1100,
					    .class_code = 0x010601,
					    .revision = 2,
					    .interrupt_pin = 1};

	pci_dev_init(&h->pci, "ahci", &id);
	h->pci.config_written = config_written;
	h->pci.opaque = h;
}

static int init_ports(struct ahci *h, const struct storage_config *cfg, struct error *err)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &h->port[i];
		p->hba = h;
		p->index = i;
		ata_drive_init(&p->drive, true, &ahci_host_ops, &h->lock, p);
	}
	for (unsigned i = 0; i < cfg->unit_count; i++) {
		const struct storage_unit *u = &cfg->units[i];
		if (u->target >= AHCI_PORTS || h->port[u->target].drive.present)
			return error_set(err, -EINVAL,
					 "ahci: port %u cannot have a drive; ports are 0 to %d, a "
					 "drive each",
					 u->target, AHCI_PORTS - 1);
		struct ahci_port *p = &h->port[u->target];
		p->command = calloc(AHCI_SLOTS, sizeof(*p->command));
		if (!p->command)
			return error_set(err, -ENOMEM, "ahci: out of memory");
		int rc = ata_drive_attach(&p->drive, u, err);
		if (rc)
			return rc;
		for (unsigned tag = 0; tag < AHCI_SLOTS; tag++) {
			p->command[tag].drive = &p->drive;
			p->command[tag].tag = tag;
		}
	}
	return 0;
}

static int ahci_create(void **out, const struct storage_config *cfg, struct error *err)
{
	struct ahci *h = calloc(1, sizeof(*h));
	int rc;

	*out = NULL;
	if (!h)
		return error_set(err, -ENOMEM, "ahci: out of memory");
	pthread_mutex_init(&h->lock, NULL);
	h->cfg = *cfg;
	init_pci(h);
	rc = init_ports(h, cfg, err);
	if (!rc) {
		rc = pci_dev_set_bar(&h->pci, ABAR, PCI_BAR_MEM32, false, ABAR_BYTES, access_abar,
				     h);
		if (!rc)
			rc = pci_msi_add(&h->pci, 1);
		if (!rc)
			rc = pci_dev_add(&h->pci, cfg->pci, cfg->slot, 0);
		if (rc)
			error_set(err, rc, "ahci: PCI slot %u cannot be had: %s", cfg->slot,
				  strerror(-rc));
	}
	if (rc) {
		ahci_destroy(h);
		return rc;
	}
	h->cfg.units = NULL; /* the caller's, and only for now */
	reset_hba(h, true);
	*out = h;
	return 0;
}

void ahci_get_stats(void *dev, unsigned target, struct ata_stats *out)
{
	struct ahci *h = dev;

	memset(out, 0, sizeof(*out));
	if (target >= AHCI_PORTS)
		return;
	pthread_mutex_lock(&h->lock);
	*out = h->port[target].drive.stats;
	pthread_mutex_unlock(&h->lock);
}

const struct storage_kind ahci_kind = {
	.name = "ahci",
	.vmx_name = "ahci",
	.units = AHCI_PORTS,
	.cdrom = true,
	.ops = {.name = "ahci", .reset = ahci_reset, .state = ahci_state, .destroy = ahci_destroy},
	.create = ahci_create,
};
