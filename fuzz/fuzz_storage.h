/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_FUZZ_STORAGE_H
#define HANOK_FUZZ_STORAGE_H

#include <stdlib.h>
#include <string.h>

#include "../tests/unit/fake_disk.h"
#include "../tests/unit/pins.h"
#include "dev/ata/kinds.h"

/* What the fuzz targets of storage controllers share: a small machine around one, and an input that
 * is taken bit by bit. Targets 0: a disk, 1: a CD drive, 2: an empty CD drive, 3: a read-only disk. */
enum { FUZZ_RAM = 1 << 20, FUZZ_DISK = 1 << 20, FUZZ_SLOT = 3, FUZZ_UNITS = 4 };

struct fuzz_machine {
	struct bus *bus;
	struct pci_bus *pci;
	struct mem *mem;
	struct disk disk[FUZZ_UNITS];
	const struct storage_kind *kind;
	void *dev;
};

struct fuzz_input {
	const uint8_t *data;
	size_t left;
};

static inline void must(int ok)
{
	if (!ok)
		abort();
}

/* The next `bytes` of the input as a number; zeros after its end. */
static inline uint64_t take(struct fuzz_input *in, unsigned bytes)
{
	uint64_t v = 0;

	if (bytes > in->left)
		bytes = (unsigned)in->left;
	memcpy(&v, in->data, bytes);
	in->data += bytes;
	in->left -= bytes;
	return v;
}

static inline uint64_t fuzz_in(struct fuzz_machine *m, enum bus_space space, uint64_t addr,
			       unsigned size)
{
	struct bus_access a = {.addr = addr, .size = size, .value = UINT64_MAX};

	bus_access(m->bus, space, &a);
	return a.value;
}

static inline void fuzz_out(struct fuzz_machine *m, enum bus_space space, uint64_t addr,
			    unsigned size, uint64_t v)
{
	struct bus_access a = {.addr = addr, .size = size, .write = true, .value = v};

	bus_access(m->bus, space, &a);
}

static inline void fuzz_config(struct fuzz_machine *m, unsigned reg, uint32_t v)
{
	fuzz_out(m, BUS_PIO, 0xcf8, 4, 0x80000000u | FUZZ_SLOT << 11 | reg);
	fuzz_out(m, BUS_PIO, 0xcfc, 4, v);
}

static inline void fuzz_make(struct fuzz_machine *m, const struct storage_kind *kind)
{
	struct pci_bus_config pci = {.address_port = 0xcf8,
				     .data_port = 0xcfc,
				     .ecam_gpa = 0xe0000000,
				     .ecam_bytes = 0x10000000};
	struct storage_unit units[FUZZ_UNITS];
	struct storage_config cfg = {.slot = FUZZ_SLOT, .units = units, .unit_count = FUZZ_UNITS};

	m->kind = kind;
	must(!bus_create(&m->bus, NULL) && !mem_create(&m->mem, FUZZ_RAM, NULL));
	pci.bus = m->bus;
	must(!pci_bus_create(&m->pci, &pci, NULL));
	for (unsigned i = 0; i < FUZZ_UNITS; i++) {
		fake_disk_init(&m->disk[i], FUZZ_DISK);
		m->disk[i].mem = m->mem;
		units[i] = (struct storage_unit){.target = i,
						 .cdrom = i == 1 || i == 2,
						 .disk = i == 2 ? NULL : &m->disk[i],
						 .serial = "FUZZ"};
	}
	m->disk[3].info.read_only = true;
	cfg.bus = m->bus;
	cfg.pci = m->pci;
	cfg.mem = m->mem;
	must(!kind->create(&m->dev, &cfg, NULL));
}

/* Every input begins alike. */
static inline void fuzz_reset(struct fuzz_machine *m)
{
	m->kind->ops.reset(m->dev);
	must(!held_pages(m->mem)); /* whatever the one before it did */
	for (unsigned i = 0; i < FUZZ_UNITS; i++) {
		must(!m->disk[i].waiting_count);
		m->disk[i].later = false;
		memset(m->disk[i].error, 0, sizeof(m->disk[i].error));
	}
	memset(ram_at(m->mem, 0, FUZZ_RAM), 0, FUZZ_RAM);
}

/* A bit of trouble for a disk: requests wait, fail, happen. */
static inline void fuzz_disk(struct fuzz_machine *m, uint8_t what)
{
	struct disk *d = &m->disk[what % FUZZ_UNITS];

	switch (what >> 2 & 3) {
	case 0:
		d->later = what & 0x10;
		break;
	case 1:
		d->error[(what >> 4) % DISK_OPS] = what & 0x80 ? -5 : 0;
		break;
	default:
		fake_disk_run(d);
		break;
	}
}

/* Saves, with some bytes changed if the input says so, and restores. */
static inline void fuzz_state(struct fuzz_machine *m, struct fuzz_input *in)
{
	struct state_stream *s, *r;
	size_t len;
	uint8_t *copy;

	must(!state_writer_create(&s, NULL));
	m->kind->ops.state(m->dev, s);
	must(!state_stream_error(s, NULL));
	const void *bytes = state_bytes(s, &len);
	copy = malloc(len);
	must(copy != NULL);
	memcpy(copy, bytes, len);
	unsigned changes = (unsigned)take(in, 1) & 7;
	for (unsigned i = 0; i < changes; i++)
		copy[take(in, 2) % len] = (uint8_t)take(in, 1);
	must(!state_reader_create(copy, len, &r, NULL));
	m->kind->ops.state(m->dev, r);
	must(changes || !state_stream_error(r, NULL));
	state_stream_destroy(r);
	state_stream_destroy(s);
	free(copy);
}

#endif
