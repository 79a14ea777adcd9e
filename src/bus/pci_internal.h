/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BUS_PCI_INTERNAL_H
#define HANOK_BUS_PCI_INTERNAL_H

#include "bus/pci.h"

enum { PCI_DEVFNS = 256, PCI_STATUS_INTX = 1 << 3 };

struct pci_bus {
	struct pci_bus_config cfg;
	pthread_mutex_t lock;	  /* configuration spaces, BAR mappings, MSI */
	pthread_mutex_t irq_lock; /* what the INTx lines carry */
	unsigned mapped;
	uint32_t address;   /* CONFIG_ADDRESS */
	uint8_t reset_ctrl; /* RST_CNT */
	struct pci_dev *dev[PCI_DEVFNS];
	unsigned intx_count[PCI_PINS]; /* functions asserting each line */
};

/* These want pb->lock. */
static inline uint32_t pci_get(const uint8_t *config, unsigned offset, unsigned size)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint32_t)config[offset + i] << (8 * i);
	return v;
}

static inline void pci_put(uint8_t *config, unsigned offset, unsigned size, uint32_t v)
{
	for (unsigned i = 0; i < size; i++)
		config[offset + i] = (uint8_t)(v >> (8 * i));
}

void pci_update_intx(struct pci_dev *d);
void pci_map_bars(struct pci_dev *d);
void pci_msi_update(struct pci_dev *d);
void pci_msix_update(struct pci_dev *d);
void pci_msix_map(struct pci_dev *d, uint64_t bar_base);
void pci_msix_unmap(struct pci_dev *d, uint64_t bar_base);
void pci_msix_reset(struct pci_dev *d);
void pci_msix_state(struct pci_dev *d, struct state_stream *s);
void pci_msix_free(struct pci_dev *d);

#endif
