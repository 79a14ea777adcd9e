/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_ATA_TEST_H
#define HANOK_TESTS_ATA_TEST_H

#include "dev/ata/kinds.h"
#include "dev_test.h"
#include "fake_disk.h"
#include "pins.h"

/* A machine of its own around an ATA controller: target 0 a disk, 1 a CD drive, 2 an empty one, 3 a
 * disk that cannot be written. */
enum { W_DISK, W_CD, W_EMPTY, W_READ_ONLY, W_UNITS };
enum { W_SLOT = 3, W_CONFIG = 0x80000000 | W_SLOT << 11, W_RAM = 16 << 20 };
enum { W_DISK_BYTES = 64 << 20, W_CD_BYTES = 4 << 20 };
enum { W_WIRE_14 = 14, W_WIRE_15 = 15, W_WIRE_INTX = 20 };

struct world {
	struct bus *bus;
	struct pci_bus *pci;
	struct mem *mem;
	struct disk disk[W_UNITS];
	const struct storage_kind *kind;
	void *dev;
	unsigned messages;
};

static inline void world_message(void *opaque, uint64_t address, uint32_t data)
{
	(void)address;
	(void)data;
	((struct world *)opaque)->messages++;
}

static inline void world_make(struct world *w, const struct storage_kind *kind)
{
	struct pci_bus_config pci = {.address_port = 0xcf8,
				     .data_port = 0xcfc,
				     .ecam_gpa = 0xe0000000,
				     .ecam_bytes = 0x10000000,
				     .msi = {.send = world_message, .opaque = w}};
	struct storage_unit units[W_UNITS] = {
		{.target = W_DISK, .disk = &w->disk[W_DISK], .serial = "HANOK00-00"},
		{.target = W_CD, .disk = &w->disk[W_CD], .cdrom = true, .serial = "HANOK00-01"},
		{.target = W_EMPTY, .cdrom = true, .serial = "HANOK00-02"},
		{.target = W_READ_ONLY, .disk = &w->disk[W_READ_ONLY], .serial = "HANOK00-03"},
	};
	struct storage_config cfg = {.slot = W_SLOT,
				     .isa_irq = {wire(W_WIRE_14), wire(W_WIRE_15)},
				     .units = units,
				     .unit_count = W_UNITS};
	struct error err = {""};

	memset(w, 0, sizeof(*w));
	w->kind = kind;
	assert_int_equal(bus_create(&w->bus, NULL), 0);
	assert_int_equal(mem_create(&w->mem, W_RAM, NULL), 0);
	pci.bus = w->bus;
	for (unsigned i = 0; i < PCI_PINS; i++)
		pci.intx[i] = wire(W_WIRE_INTX);
	assert_int_equal(pci_bus_create(&w->pci, &pci, NULL), 0);
	fake_disk_init(&w->disk[W_DISK], W_DISK_BYTES);
	fake_disk_init(&w->disk[W_CD], W_CD_BYTES);
	fake_disk_init(&w->disk[W_READ_ONLY], 1 << 20);
	w->disk[W_READ_ONLY].info.read_only = true;
	for (unsigned i = 0; i < W_UNITS; i++)
		w->disk[i].mem = w->mem;
	for (unsigned i = 0; i < W_DISK_BYTES; i++)
		w->disk[W_DISK].bytes[i] = (uint8_t)(i >> 9 ^ i * 7);
	for (unsigned i = 0; i < W_CD_BYTES; i++)
		w->disk[W_CD].bytes[i] = (uint8_t)(i >> 11 ^ i * 5);
	cfg.bus = w->bus;
	cfg.pci = w->pci;
	cfg.mem = w->mem;
	assert_int_equal(kind->create(&w->dev, &cfg, &err), 0);
	test_bus = w->bus;
}

static inline void world_free(struct world *w)
{
	w->kind->ops.destroy(w->dev);
	assert_int_equal(pinned_pages(w->mem), 0);
	for (unsigned i = 0; i < W_UNITS; i++) {
		assert_int_equal(w->disk[i].waiting_count, 0);
		fake_disk_free(&w->disk[i]);
	}
	pci_bus_destroy(w->pci);
	mem_destroy(w->mem);
	bus_destroy(w->bus);
}

static inline uint32_t config_read(unsigned reg)
{
	outl(0xcf8, W_CONFIG | (reg & 0xfc));
	return inl(0xcfc);
}

static inline void config_write(unsigned reg, uint32_t v)
{
	outl(0xcf8, W_CONFIG | (reg & 0xfc));
	outl(0xcfc, v);
}

static inline void *ram(struct world *w, uint64_t gpa)
{
	void *p = ram_at(w->mem, gpa, 1);

	assert_non_null(p);
	return p;
}

static inline uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

/* A restore that is refused, whichever byte was damaged, leaves a controller that can be saved. */
static inline void refused_restores(struct world *w)
{
	size_t len, len2;
	uint8_t *bytes = state_of(&w->kind->ops, w->dev, &len);
	unsigned refused = 0;

	for (size_t i = 0; i < len; i += 1 + i / 1500) {
		uint8_t was = bytes[i];
		bytes[i] = 0xc7;
		refused += restore(&w->kind->ops, w->dev, bytes, len) != 0;
		bytes[i] = was;
		free(state_of(&w->kind->ops, w->dev, &len2)); /* asserts that it can be */
	}
	assert_true(refused > 50);
	free(bytes);
}

/* A text of IDENTIFY, without its blanks. */
static inline void identify_text(const uint8_t *data, unsigned from, unsigned to, char *out)
{
	unsigned n = (to - from + 1) * 2;

	for (unsigned i = 0; i < n; i++)
		out[i] = (char)data[(from * 2 + i) ^ 1];
	while (n && out[n - 1] == ' ')
		n--;
	out[n] = 0;
}

#endif
