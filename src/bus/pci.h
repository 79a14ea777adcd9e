/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BUS_PCI_H
#define HANOK_BUS_PCI_H

#include <pthread.h>

#include "bus/bus.h"
#include "bus/irq.h"
#include "state/stream.h"

/*
 * PCI bus 0: configuration by ports (mechanism #1) and by memory (ECAM), functions with their BARs,
 * INTx, MSI and MSI-X. "PCI" below is the PCI Local Bus Specification 3.0.
 *
 * A device embeds a struct pci_dev, fills its identity with pci_dev_init, adds BARs and
 * capabilities, and plugs it in with pci_dev_add, all before vCPUs run. What the bus needs to know
 * about writes (BARs, command, MSI) it handles itself; the device sees accesses to its BARs through
 * its bus_range handlers.
 *
 * Lock order: device, pci_bus.lock, pci_bus.irq_lock, then as in bus/irq.h.
 */
struct pci_bus;
struct pci_dev;

enum { PCI_CONFIG_BYTES = 256, PCI_BARS = 6, PCI_PINS = 4, PCI_MSI_MAX = 32, PCI_MSIX_MAX = 2048 };

/* Configuration registers (PCI 6.1, 6.2) that devices name. */
enum {
	PCI_VENDOR_ID = 0x00,
	PCI_DEVICE_ID = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09, /* programming interface, sub-class, class */
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR = 0x2c,
	PCI_SUBSYSTEM_ID = 0x2e,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
};
enum {
	PCI_COMMAND_IO = 1 << 0,
	PCI_COMMAND_MEMORY = 1 << 1,
	PCI_COMMAND_MASTER = 1 << 2,
	PCI_COMMAND_INTX_OFF = 1 << 10,
};

struct pci_bus_config {
	struct bus *bus;
	uint16_t address_port, data_port; /* 4 bytes each */
	uint64_t ecam_gpa, ecam_bytes;
	struct msi_sink msi;
	/* The four interrupt lines that INTA-INTD of the slots share: line (slot + pin) % 4. */
	struct irq_line intx[PCI_PINS];
	/* Reset control register at address_port + 1 (ICH9 datasheet 13.7.5); may be NULL. */
	void (*reset)(void *opaque);
	void *opaque;
};

int pci_bus_create(struct pci_bus **out, const struct pci_bus_config *cfg, struct error *err);
/* Devices are removed before. NULL is allowed. */
void pci_bus_destroy(struct pci_bus *pb);
/* The bus's own registers; devices reset and save themselves. */
void pci_bus_reset(struct pci_bus *pb);
void pci_bus_state(struct pci_bus *pb, struct state_stream *s);

/* --- a device --- */

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
	enum pci_bar_kind kind;
	bool prefetchable;
	uint64_t size; /* a power of two; at least 4 (I/O) or 16; I/O at most 256 */
	void (*fn)(void *opaque, struct bus_access *a);
	void *opaque;
	bool mapped;
	uint64_t base; /* where it is mapped */
};

struct pci_msix {
	uint8_t cap; /* offset of the capability; 0: none */
	uint8_t bar;
	uint16_t vectors;
	uint32_t table_at, pba_at; /* in the BAR */
	uint32_t *table;	   /* four words a vector: address, address high, data, control */
	uint64_t *pending;
	bool mapped;
};

struct pci_dev {
	struct pci_bus *pb; /* NULL: not plugged in */
	const char *name;
	uint8_t devfn; /* slot << 3 | function */
	bool intx;     /* the level the device drives */
	bool intx_out; /* what of it is on the line */
	uint8_t config[PCI_CONFIG_BYTES];
	uint8_t initial[PCI_CONFIG_BYTES];   /* for reset */
	uint8_t writable[PCI_CONFIG_BYTES];  /* bits the guest may write */
	uint8_t clearable[PCI_CONFIG_BYTES]; /* bits that writing 1 clears */
	struct pci_bar bar[PCI_BARS];
	uint8_t cap_next; /* where the next capability goes */
	uint8_t msi_cap;  /* 0: none */
	struct pci_msix msix;
	/* A configuration write touched [offset, offset + size), or a read is about to look there and
	 * the device may change its bytes of config first; each may be NULL. Without locks. */
	void (*config_written)(void *opaque, unsigned offset, unsigned size);
	void (*config_read)(void *opaque, unsigned offset, unsigned size);
	void *opaque;
};

struct pci_ident {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_code; /* class << 16 | sub-class << 8 | programming interface */
	uint8_t revision;
	uint8_t interrupt_pin; /* 0: none, 1 to 4: INTA to INTD */
};

/* Fills *d as a type 0 header; d->name must stay. */
void pci_dev_init(struct pci_dev *d, const char *name, const struct pci_ident *id);
/* Writes a little-endian value of size bytes into the configuration space as it is after reset, with
 * the bits of it that the guest may change. Before pci_dev_add. */
void pci_dev_set(struct pci_dev *d, unsigned offset, unsigned size, uint32_t value,
		 uint32_t writable);
/* Gives BAR n (a 64-bit one takes n + 1 too) a size and a handler, called with offsets within it.
 * 0 or -EINVAL. */
int pci_dev_set_bar(struct pci_dev *d, unsigned n, enum pci_bar_kind kind, bool prefetchable,
		    uint64_t size, void (*fn)(void *opaque, struct bus_access *a), void *opaque);
/* Adds a capability of len bytes (header included, the device fills the body with pci_dev_set) and
 * returns its offset, or -ENOSPC. */
int pci_dev_add_capability(struct pci_dev *d, uint8_t id, unsigned len);

/* slot 0 to 31, function 0 to 7: 0, -EINVAL, -EEXIST. Function 0 of a slot with several must have
 * bit 7 of its header type set by its maker. */
int pci_dev_add(struct pci_dev *d, struct pci_bus *pb, unsigned slot, unsigned function);
/* Unmaps and unplugs; frees what the capabilities took. Accepts a device that was never added. */
void pci_dev_remove(struct pci_dev *d);
void pci_dev_reset(struct pci_dev *d);
/* Within a section of the device's own. */
void pci_dev_state(struct pci_dev *d, struct state_stream *s);

/* May the device do DMA now (command register bit 2)? Any thread. */
bool pci_dev_is_master(struct pci_dev *d);

/* The device's interrupt pin; any thread, the device's lock may be held. */
void pci_set_intx(struct pci_dev *d, int level);

/* --- message-signalled interrupts; any thread, the device's lock may be held --- */

/* Adds the capability, 64-bit, with per-vector masks: 1 to 32 vectors, a power of two. 0, -EINVAL,
 * -ENOSPC. */
int pci_msi_add(struct pci_dev *d, unsigned vectors);
bool pci_msi_enabled(struct pci_dev *d);
/* Sends vector, or makes it pending while masked. Nothing when MSI is off or the device may not
 * write memory. The guest may have been given fewer vectors: the number is reduced to those. */
void pci_msi_send(struct pci_dev *d, unsigned vector);

/* Adds the capability with its table and pending bits in a memory BAR that has been set: table_at
 * and pba_at are multiples of 8 and do not overlap. The bus handles these ranges itself, over the
 * BAR's own handler. 0, -EINVAL, -ENOSPC, -ENOMEM. */
int pci_msix_add(struct pci_dev *d, unsigned vectors, unsigned bar, uint32_t table_at,
		 uint32_t pba_at);
bool pci_msix_enabled(struct pci_dev *d);
void pci_msix_send(struct pci_dev *d, unsigned vector);

#endif
