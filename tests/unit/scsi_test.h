/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_SCSI_TEST_H
#define HANOK_TESTS_SCSI_TEST_H

#include <errno.h>

#include "bus/pci.h"
#include "dev/chipset.h"
#include "dev/storage.h"
#include "dev_test.h"
#include "fake_disk.h"
#include "pins.h"

/* What the tests of the SCSI controllers share: a PCI bus, RAM, two disks and a CD drive. */
#define TEST_ECAM UINT64_C(0xe0000000)
enum {
	TEST_SLOT = 3,
	TEST_RAM = 16 << 20,
	TEST_BAR = 0xd0000000,
	TEST_DISK_BYTES = 1 << 20,
	TEST_PIN = (TEST_SLOT + 0) % 4, /* the wire of INTA */
};

static struct chipset *test_chipset;
static struct mem *test_mem;
static struct disk test_disk[2], test_cd;
static const struct storage_unit test_units[] = {
	{.target = 0, .disk = &test_disk[0], .serial = "D0"},
	{.target = 1, .disk = &test_disk[1], .serial = "D1"},
	{.target = 2, .disk = &test_cd, .cdrom = true, .serial = "CD"},
};
static unsigned test_messages;

static inline void test_on_msi(void *opaque, uint64_t address, uint32_t data)
{
	(void)opaque, (void)address, (void)data;
	test_messages++;
}

static inline uint8_t *ram(uint64_t gpa)
{
	return ram_at(test_mem, gpa, 1);
}

static inline void ram_put32(uint64_t gpa, uint32_t v)
{
	memcpy(ram(gpa), &v, 4);
}

static inline void ram_put64(uint64_t gpa, uint64_t v)
{
	memcpy(ram(gpa), &v, 8);
}

static inline uint32_t ram_get32(uint64_t gpa)
{
	uint32_t v;

	memcpy(&v, ram(gpa), 4);
	return v;
}

static inline uint64_t ram_get64(uint64_t gpa)
{
	uint64_t v;

	memcpy(&v, ram(gpa), 8);
	return v;
}

static inline void cfg_write(unsigned slot, unsigned reg, unsigned size, uint32_t v)
{
	bus_out(BUS_MMIO, TEST_ECAM | (uint64_t)slot << 15 | reg, size, v);
}

static inline uint32_t cfg_read(unsigned slot, unsigned reg, unsigned size)
{
	return (uint32_t)bus_in(BUS_MMIO, TEST_ECAM | (uint64_t)slot << 15 | reg, size);
}

/* A PCI bus, memory, disks. */
static inline void test_machine(void)
{
	struct chipset_config cfg = {.pm_base = 0x600,
				     .pci = {.address_port = 0xcf8,
					     .data_port = 0xcfc,
					     .ecam_gpa = TEST_ECAM,
					     .ecam_bytes = 0x10000000,
					     .msi = {.send = test_on_msi}}};

	fake_time_reset();
	wires_clear();
	test_messages = 0;
	assert_int_equal(bus_create(&test_bus, NULL), 0);
	assert_int_equal(mem_create(&test_mem, TEST_RAM, NULL), 0);
	cfg.pci.bus = test_bus;
	for (unsigned i = 0; i < PCI_PINS; i++)
		cfg.pci.intx[i] = wire(i);
	assert_int_equal(chipset_create(&test_chipset, &cfg, NULL), 0);
	fake_disk_init(&test_disk[0], TEST_DISK_BYTES);
	fake_disk_init(&test_disk[1], TEST_DISK_BYTES);
	fake_disk_init(&test_cd, TEST_DISK_BYTES);
	test_disk[0].mem = test_disk[1].mem = test_cd.mem = test_mem;
}

static inline void test_machine_end(void)
{
	chipset_ops.destroy(test_chipset);
	bus_destroy(test_bus);
	assert_int_equal(pinned_pages(test_mem), 0); /* the controllers have gone */
	mem_destroy(test_mem);
	fake_disk_free(&test_disk[0]);
	fake_disk_free(&test_disk[1]);
	fake_disk_free(&test_cd);
}

/* A controller in a slot, with its memory BAR `bar` (32 bits of it) at TEST_BAR + slot MiB. */
static inline void *test_controller(const struct storage_kind *kind, unsigned slot, unsigned bar)
{
	struct storage_config cfg = {.bus = test_bus,
				     .pci = chipset_pci(test_chipset),
				     .slot = slot,
				     .mem = test_mem,
				     .cpus = 1,
				     .index = 5,
				     .units = test_units,
				     .unit_count = 3};
	struct error err = {""};
	void *dev;

	assert_int_equal(kind->create(&dev, &cfg, &err), 0);
	cfg_write(slot, PCI_BAR0 + 4 * bar, 4, TEST_BAR + (slot << 20));
	cfg_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return dev;
}

/* Turns MSI on, to wherever. */
static inline void test_enable_msi(unsigned slot)
{
	unsigned at = cfg_read(slot, PCI_CAPABILITIES, 1);

	while (cfg_read(slot, at, 1) != 5)
		at = cfg_read(slot, at + 1, 1);
	cfg_write(slot, at + 4, 4, 0xfee00000);
	cfg_write(slot, at + 2, 2, 1);
}

static inline uint32_t reg_read(unsigned reg)
{
	return (uint32_t)bus_in(BUS_MMIO, TEST_BAR + (TEST_SLOT << 20) + reg, 4);
}

static inline void reg_write(unsigned reg, uint32_t v)
{
	bus_out(BUS_MMIO, TEST_BAR + (TEST_SLOT << 20) + reg, 4, v);
}

#endif
