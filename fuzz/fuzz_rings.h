/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_FUZZ_RINGS_H
#define HANOK_FUZZ_RINGS_H

#include "../tests/unit/fake_loop.h"
#include "fuzz_storage.h"

/* As fuzz_make, for controllers with these units; the machine's disks are 0 and a read-only 3. */
static inline void fuzz_make_rings(struct fuzz_machine *m, const struct storage_kind *kind,
				   unsigned units)
{
	struct pci_bus_config pci = {.address_port = 0xcf8,
				     .data_port = 0xcfc,
				     .ecam_gpa = 0xe0000000,
				     .ecam_bytes = 0x10000000};
	const struct storage_unit unit[2] = {{.target = 0, .disk = &m->disk[0], .serial = "FUZZ"},
					     {.target = 3, .disk = &m->disk[3], .serial = "FUZZ"}};
	struct storage_config cfg = {
		.slot = FUZZ_SLOT, .cpus = 2, .units = unit, .unit_count = units};

	m->kind = kind;
	must(!bus_create(&m->bus, NULL) && !mem_create(&m->mem, FUZZ_RAM, NULL));
	pci.bus = m->bus;
	must(!pci_bus_create(&m->pci, &pci, NULL));
	for (unsigned i = 0; i < FUZZ_UNITS; i++) {
		fake_disk_init(&m->disk[i], FUZZ_DISK);
		m->disk[i].mem = m->mem;
	}
	m->disk[3].info.read_only = true;
	cfg.bus = m->bus;
	cfg.pci = m->pci;
	cfg.mem = m->mem;
	must(!kind->create(&m->dev, &cfg, NULL));
}

/* Memory where rings and tables are; the rest of RAM is data. */
static inline void fuzz_poke(struct fuzz_machine *m, uint64_t gpa, unsigned bytes, uint64_t v)
{
	void *p = ram_at(m->mem, gpa, bytes);

	must(p != NULL);
	memcpy(p, &v, bytes);
}

static inline uint64_t fuzz_peek(struct fuzz_machine *m, uint64_t gpa, unsigned bytes)
{
	uint64_t v = 0;
	void *p = ram_at(m->mem, gpa, bytes);

	must(p != NULL);
	memcpy(&v, p, bytes);
	return v;
}

/* An address: in RAM mostly, near its end or far out now and then. */
static inline uint64_t fuzz_address(struct fuzz_input *in)
{
	uint64_t v = take(in, 3);

	switch (v >> 21) {
	case 0:
		return FUZZ_RAM - 4096 + (v & 0x1fff);
	case 1:
		return v << 40 | v;
	default:
		return v % FUZZ_RAM;
	}
}

/* Ends an input: requests that wait happen, posts run. */
static inline void fuzz_settle(struct fuzz_machine *m)
{
	for (unsigned i = 0; i < FUZZ_UNITS; i++) {
		disk_drain(&m->disk[i]);
		m->disk[i].later = false;
	}
	while (fake_loop_run())
		;
}

#endif
