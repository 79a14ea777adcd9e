/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_NIC_TEST_H
#define HANOK_TESTS_NIC_TEST_H

#include "bus/pci.h"
#include "dev/chipset.h"
#include "dev/nic.h"
#include "dev_test.h"
#include "net_test.h"
#include "pins.h"

/* What the tests of network cards share: a PCI bus, RAM, and a cable whose other end keeps what it
 * gets. BAR n of the card is at NIC_BAR + n MiB, an I/O one at NIC_IO. */
#define NIC_ECAM UINT64_C(0xe0000000)
enum { NIC_SLOT = 3, NIC_RAM = 16 << 20, NIC_BAR = 0xd0000000, NIC_IO = 0xc000 };
enum { NIC_PIN = NIC_SLOT % 4 };

static struct chipset *nic_chipset;
static struct mem *nic_mem;
static struct sink nic_wire;
static unsigned nic_messages[32]; /* by the message's data */
static const uint8_t nic_mac[6] = {0x00, 0x0c, 0x29, 1, 2, 3};

static inline void nic_on_msi(void *opaque, uint64_t address, uint32_t data)
{
	(void)opaque, (void)address;
	nic_messages[data % 32]++;
}

static inline uint8_t *ram(uint64_t gpa)
{
	return ram_at(nic_mem, gpa, 1);
}

static inline uint64_t ram_get(uint64_t gpa, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, ram(gpa), bytes);
	return v;
}

static inline void ram_put(uint64_t gpa, unsigned bytes, uint64_t v)
{
	memcpy(ram(gpa), &v, bytes);
}

static inline void cfg_write(unsigned slot, unsigned reg, unsigned size, uint32_t v)
{
	bus_out(BUS_MMIO, NIC_ECAM | (uint64_t)slot << 15 | reg, size, v);
}

static inline uint32_t cfg_read(unsigned slot, unsigned reg, unsigned size)
{
	return (uint32_t)bus_in(BUS_MMIO, NIC_ECAM | (uint64_t)slot << 15 | reg, size);
}

static inline uint32_t bar_read(unsigned bar, unsigned reg)
{
	return (uint32_t)bus_in(BUS_MMIO, NIC_BAR + (bar << 20) + reg, 4);
}

static inline void bar_write(unsigned bar, unsigned reg, uint32_t v)
{
	bus_out(BUS_MMIO, NIC_BAR + (bar << 20) + reg, 4, v);
}

/* A bus and memory; the cable's other end can take what `features` says. */
static inline void nic_machine(uint32_t features)
{
	struct chipset_config cfg = {.pm_base = 0x600,
				     .pci = {.address_port = 0xcf8,
					     .data_port = 0xcfc,
					     .ecam_gpa = NIC_ECAM,
					     .ecam_bytes = 0x10000000,
					     .msi = {.send = nic_on_msi}}};

	fake_time_reset();
	wires_clear();
	memset(nic_messages, 0, sizeof(nic_messages));
	assert_int_equal(bus_create(&test_bus, NULL), 0);
	assert_int_equal(mem_create(&nic_mem, NIC_RAM, NULL), 0);
	cfg.pci.bus = test_bus;
	for (unsigned i = 0; i < PCI_PINS; i++)
		cfg.pci.intx[i] = wire(i);
	assert_int_equal(chipset_create(&nic_chipset, &cfg, NULL), 0);
	sink_create(&nic_wire, "wire", features, NULL, true);
	nic_wire.mem = nic_mem;
}

static inline void nic_machine_end(void)
{
	netport_destroy(nic_wire.port);
	chipset_ops.destroy(nic_chipset);
	bus_destroy(test_bus);
	assert_int_equal(pinned_pages(nic_mem), 0); /* the cards have gone */
	mem_destroy(nic_mem);
}

static inline void *nic_card(const struct nic_kind *kind, unsigned slot, struct netport *cable)
{
	struct nic_config cfg = {.bus = test_bus,
				 .pci = chipset_pci(nic_chipset),
				 .slot = slot,
				 .mem = nic_mem,
				 .cpus = 2,
				 .index = 5,
				 .cable = cable};
	struct error err = {""};
	void *dev;

	memcpy(cfg.mac, nic_mac, 6);
	assert_int_equal(kind->create(&dev, &cfg, &err), 0);
	return dev;
}

/* Memory BARs as the bits of bars say, an I/O BAR if io is not 0, bus mastering. */
static inline void nic_plug(unsigned slot, unsigned bars, unsigned io)
{
	for (unsigned i = 0; i < PCI_BARS; i++)
		if (bars >> i & 1)
			cfg_write(slot, PCI_BAR0 + 4 * i, 4, NIC_BAR + (i << 20));
	if (io)
		cfg_write(slot, PCI_BAR0 + 4 * io, 4, NIC_IO);
	cfg_write(slot, PCI_COMMAND, 2,
		  PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | (io ? PCI_COMMAND_IO : 0));
}

/* Sends a frame from the cable's other end; returns how many were taken care of. */
static inline unsigned nic_arrives(const void *bytes, uint32_t n, struct net_meta meta)
{
	struct iovec iov = {(void *)(uintptr_t)bytes, n};
	struct net_frame f = {.iov = &iov, .iov_count = 1, .bytes = n, .meta = meta};

	return netport_send(nic_wire.port, &f, 1);
}

#endif
