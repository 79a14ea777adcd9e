/* SPDX-License-Identifier: Apache-2.0 */
/* Message-signalled interrupts: MSI (PCI 6.8.1) and MSI-X (PCI 6.8.2). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/pci_internal.h"

enum { CAP_MSI = 0x05, CAP_MSIX = 0x11 };

/* MSI with 64-bit addresses and per-vector masking: offsets in the capability. */
enum { MSI_CONTROL = 2, MSI_ADDRESS = 4, MSI_ADDRESS_HIGH = 8, MSI_DATA = 12, MSI_MASK = 16 };
enum { MSI_PENDING = 20, MSI_BYTES = 24, MSI_ENABLE = 1, MSI_64BIT = 0x80, MSI_MASKABLE = 0x100 };

enum { MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PBA = 8, MSIX_BYTES = 12 };
enum { MSIX_ENABLE = 0x8000, MSIX_ALL_MASKED = 0x4000, MSIX_ENTRY_BYTES = 16, ENTRY_MASKED = 1 };

static void send(struct pci_dev *d, uint64_t address, uint32_t data)
{
	const struct msi_sink *sink = &d->pb->cfg.msi;

	if (sink->send && pci_dev_is_master(d))
		sink->send(sink->opaque, address, data);
}

/* --- MSI --- */

int pci_msi_add(struct pci_dev *d, unsigned vectors)
{
	uint32_t capable = 0;
	int at;

	if (!vectors || vectors > PCI_MSI_MAX || vectors & (vectors - 1))
		return -EINVAL;
	while (1u << capable < vectors)
		capable++;
	at = pci_dev_add_capability(d, CAP_MSI, MSI_BYTES);
	if (at < 0)
		return at;
	d->msi_cap = (uint8_t)at;
	pci_dev_set(d, d->msi_cap + MSI_CONTROL, 2, MSI_64BIT | MSI_MASKABLE | capable << 1,
		    MSI_ENABLE | 0x70);
	pci_dev_set(d, d->msi_cap + MSI_ADDRESS, 4, 0, 0xfffffffc);
	pci_dev_set(d, d->msi_cap + MSI_ADDRESS_HIGH, 4, 0, 0xffffffff);
	pci_dev_set(d, d->msi_cap + MSI_DATA, 2, 0, 0xffff);
	pci_dev_set(d, d->msi_cap + MSI_MASK, 4, 0,
		    vectors == 32 ? UINT32_MAX : (1u << vectors) - 1);
	return 0;
}

bool pci_msi_enabled(struct pci_dev *d)
{
	return d->msi_cap &&
	       __atomic_load_n(&d->config[d->msi_cap + MSI_CONTROL], __ATOMIC_RELAXED) & MSI_ENABLE;
}

/* Vectors the guest has granted, at most those asked for. */
static unsigned msi_granted(const struct pci_dev *d)
{
	uint32_t control = pci_get(d->config, d->msi_cap + MSI_CONTROL, 2);
	unsigned granted = control >> 4 & 7, capable = control >> 1 & 7;

	return 1u << (granted < capable ? granted : capable);
}

static void msi_message(struct pci_dev *d, unsigned vector)
{
	unsigned cap = d->msi_cap;
	uint64_t address = (uint64_t)pci_get(d->config, cap + MSI_ADDRESS_HIGH, 4) << 32 |
			   pci_get(d->config, cap + MSI_ADDRESS, 4);
	uint32_t data = pci_get(d->config, cap + MSI_DATA, 2);

	/* The low bits of the data number the vector (PCI 6.8.1.6). */
	send(d, address, (data & ~(msi_granted(d) - 1)) | vector);
}

/* Sends what is pending and not masked any more. pb->lock held. */
void pci_msi_update(struct pci_dev *d)
{
	uint32_t pending, masked, ready;

	if (!pci_msi_enabled(d))
		return;
	pending = pci_get(d->config, d->msi_cap + MSI_PENDING, 4);
	masked = pci_get(d->config, d->msi_cap + MSI_MASK, 4);
	ready = pending & ~masked;
	pci_put(d->config, d->msi_cap + MSI_PENDING, 4, pending & masked);
	for (unsigned v = 0; ready >> v && v < msi_granted(d); v++)
		if (ready >> v & 1)
			msi_message(d, v);
}

void pci_msi_send(struct pci_dev *d, unsigned vector)
{
	uint32_t pending;

	if (!d->pb || !d->msi_cap)
		return;
	pthread_mutex_lock(&d->pb->lock);
	if (pci_msi_enabled(d)) {
		vector &= msi_granted(d) - 1;
		pending = pci_get(d->config, d->msi_cap + MSI_PENDING, 4);
		pci_put(d->config, d->msi_cap + MSI_PENDING, 4, pending | 1u << vector);
		pci_msi_update(d);
	}
	pthread_mutex_unlock(&d->pb->lock);
}

/* --- MSI-X --- */

static unsigned pba_words(const struct pci_msix *x)
{
	return (x->vectors + 63) / 64;
}

int pci_msix_add(struct pci_dev *d, unsigned vectors, unsigned bar, uint32_t table_at,
		 uint32_t pba_at)
{
	struct pci_msix *x = &d->msix;
	uint64_t table_end = (uint64_t)table_at + vectors * MSIX_ENTRY_BYTES;
	uint64_t pba_end = (uint64_t)pba_at + (vectors + 63) / 64 * 8;
	int at;

	if (!vectors || vectors > PCI_MSIX_MAX || bar >= PCI_BARS ||
	    d->bar[bar].kind < PCI_BAR_MEM32 || (table_at | pba_at) & 7 ||
	    table_end > d->bar[bar].size || pba_end > d->bar[bar].size ||
	    (table_at < pba_end && pba_at < table_end))
		return -EINVAL;
	at = pci_dev_add_capability(d, CAP_MSIX, MSIX_BYTES);
	if (at < 0)
		return at;
	*x = (struct pci_msix){.cap = (uint8_t)at,
			       .bar = (uint8_t)bar,
			       .vectors = (uint16_t)vectors,
			       .table_at = table_at,
			       .pba_at = pba_at};
	x->table = calloc(vectors, MSIX_ENTRY_BYTES);
	x->pending = calloc(pba_words(x), sizeof(*x->pending));
	if (!x->table || !x->pending)
		return -ENOMEM; /* pci_dev_remove frees */
	pci_dev_set(d, x->cap + MSIX_CONTROL, 2, vectors - 1, MSIX_ENABLE | MSIX_ALL_MASKED);
	pci_dev_set(d, x->cap + MSIX_TABLE, 4, table_at | bar, 0);
	pci_dev_set(d, x->cap + MSIX_PBA, 4, pba_at | bar, 0);
	pci_msix_reset(d);
	return 0;
}

static unsigned msix_control(const struct pci_dev *d)
{
	return (unsigned)__atomic_load_n(&d->config[d->msix.cap + MSIX_CONTROL + 1],
					 __ATOMIC_RELAXED)
	       << 8;
}

bool pci_msix_enabled(struct pci_dev *d)
{
	return d->msix.cap && msix_control(d) & MSIX_ENABLE;
}

/* Sends vector if it is pending and nothing masks it. pb->lock held. */
static void msix_service(struct pci_dev *d, unsigned vector)
{
	struct pci_msix *x = &d->msix;
	const uint32_t *entry = &x->table[vector * 4];
	uint64_t bit = UINT64_C(1) << vector % 64;

	if (!(x->pending[vector / 64] & bit) || entry[3] & ENTRY_MASKED ||
	    (msix_control(d) & (MSIX_ENABLE | MSIX_ALL_MASKED)) != MSIX_ENABLE)
		return;
	x->pending[vector / 64] &= ~bit;
	send(d, (uint64_t)entry[1] << 32 | (entry[0] & ~3u), entry[2]);
}

void pci_msix_update(struct pci_dev *d)
{
	struct pci_msix *x = &d->msix;

	if (!x->cap)
		return;
	for (unsigned w = 0; w < pba_words(x); w++)
		for (uint64_t left = x->pending[w]; left; left &= left - 1)
			msix_service(d, w * 64 + (unsigned)__builtin_ctzll(left));
}

void pci_msix_send(struct pci_dev *d, unsigned vector)
{
	struct pci_msix *x = &d->msix;

	if (!d->pb || !x->cap || vector >= x->vectors)
		return;
	pthread_mutex_lock(&d->pb->lock);
	if (pci_msix_enabled(d)) {
		x->pending[vector / 64] |= UINT64_C(1) << vector % 64;
		msix_service(d, vector);
	}
	pthread_mutex_unlock(&d->pb->lock);
}

/* Table accesses are dwords or qwords (PCI 6.8.2); others read as ones and write nothing. */
static void access_table(void *opaque, struct bus_access *a)
{
	struct pci_dev *d = opaque;
	uint32_t *word = &d->msix.table[a->offset / 4];
	bool two = a->size == 8;

	if (a->offset & (a->size - 1) || a->size < 4 || (a->size != 4 && !two))
		return;
	pthread_mutex_lock(&d->pb->lock);
	if (!a->write) {
		a->value = word[0] | (two ? (uint64_t)word[1] << 32 : 0);
	} else {
		word[0] = (uint32_t)a->value;
		if (two)
			word[1] = (uint32_t)(a->value >> 32);
		word = &d->msix.table[a->offset / MSIX_ENTRY_BYTES * 4];
		word[3] &= ENTRY_MASKED;
		msix_service(d, (unsigned)(a->offset / MSIX_ENTRY_BYTES));
	}
	pthread_mutex_unlock(&d->pb->lock);
}

static void access_pba(void *opaque, struct bus_access *a)
{
	struct pci_dev *d = opaque;

	if (a->write) /* read-only */
		return;
	pthread_mutex_lock(&d->pb->lock);
	a->value = d->msix.pending[a->offset / 8] >> (8 * (a->offset & 7));
	pthread_mutex_unlock(&d->pb->lock);
}

void pci_msix_map(struct pci_dev *d, uint64_t bar_base)
{
	struct pci_msix *x = &d->msix;
	struct bus_range table = {BUS_MMIO,
				  bar_base + x->table_at,
				  (uint64_t)x->vectors * MSIX_ENTRY_BYTES,
				  access_table,
				  d,
				  d->name};
	struct bus_range pba = {BUS_MMIO, bar_base + x->pba_at, pba_words(x) * 8, access_pba, d,
				d->name};

	x->mapped = !bus_map(d->pb->cfg.bus, &table);
	if (x->mapped && bus_map(d->pb->cfg.bus, &pba)) {
		bus_unmap(d->pb->cfg.bus, BUS_MMIO, table.base, d);
		x->mapped = false;
	}
}

void pci_msix_unmap(struct pci_dev *d, uint64_t bar_base)
{
	if (!d->msix.mapped)
		return;
	bus_unmap(d->pb->cfg.bus, BUS_MMIO, bar_base + d->msix.table_at, d);
	bus_unmap(d->pb->cfg.bus, BUS_MMIO, bar_base + d->msix.pba_at, d);
	d->msix.mapped = false;
}

void pci_msix_reset(struct pci_dev *d)
{
	struct pci_msix *x = &d->msix;

	if (!x->cap)
		return;
	memset(x->table, 0, (size_t)x->vectors * MSIX_ENTRY_BYTES);
	memset(x->pending, 0, pba_words(x) * sizeof(*x->pending));
	for (unsigned v = 0; v < x->vectors; v++)
		x->table[v * 4 + 3] = ENTRY_MASKED;
}

void pci_msix_state(struct pci_dev *d, struct state_stream *s)
{
	struct pci_msix *x = &d->msix;

	if (!x->cap)
		return;
	state_raw(s, x->table, (size_t)x->vectors * MSIX_ENTRY_BYTES);
	state_raw(s, x->pending, pba_words(x) * sizeof(*x->pending));
	for (unsigned v = 0; v < x->vectors; v++)
		x->table[v * 4 + 3] &= ENTRY_MASKED;
	if (x->vectors % 64) /* no bits past the last vector */
		x->pending[x->vectors / 64] &= (UINT64_C(1) << x->vectors % 64) - 1;
}

void pci_msix_free(struct pci_dev *d)
{
	free(d->msix.table);
	free(d->msix.pending);
	d->msix = (struct pci_msix){0};
}
