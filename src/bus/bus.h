/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BUS_BUS_H
#define HANOK_BUS_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * The bus: one handler signature for ports and MMIO, one lookup. Handlers run on the thread of the
 * vCPU that made the access, without any bus lock held: a device guards itself. Accesses are 1 to
 * 8 bytes (ports: 1, 2, 4) and never cross a range's end: the bus splits what does.
 */
enum bus_space { BUS_PIO, BUS_MMIO };

struct bus_access {
	uint64_t addr;	 /* port or gpa */
	uint64_t offset; /* within the range */
	unsigned size;	 /* bytes */
	unsigned cpu;	 /* index of the vCPU, for per-CPU things like the local APIC */
	bool write;
	uint64_t value; /* reads: all ones on entry, the handler sets it; only size bytes count */
};

struct bus_range {
	enum bus_space space;
	uint64_t base, len;
	void (*fn)(void *opaque, struct bus_access *a);
	void *opaque;
	const char *name; /* for tables and traces */
};

struct bus;
int bus_create(struct bus **out, struct error *err);
void bus_destroy(struct bus *b);

/* Ranges may come and go while vCPUs run (PCI BARs). The later of overlapping ranges wins until it
 * is unmapped. The struct is copied; base and opaque identify it to bus_unmap. 0, -EINVAL, -ENOMEM.
 * Any thread. */
int bus_map(struct bus *b, const struct bus_range *range);
void bus_unmap(struct bus *b, enum bus_space space, uint64_t base, const void *opaque);

/* Carries out an access; where nothing is mapped reads give all ones and writes are dropped.
 * Returns the range's name, or NULL for unmapped. Any thread. */
const char *bus_access(struct bus *b, enum bus_space space, struct bus_access *a);

/* Calls fn for every mapped range in address order, for inspection. */
void bus_each(struct bus *b, void (*fn)(void *opaque, const struct bus_range *r), void *opaque);

#endif
