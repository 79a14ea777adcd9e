/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_PINS_H
#define HANOK_TESTS_PINS_H

#include "mem/mem.h"

/* What tests and fuzz targets of devices look at guest memory by, and how they find what a device has
 * forgotten to let go of. */

/* A place in RAM, NULL if it is none. Nothing is pinned: without a memory thread no page leaves. */
static inline void *ram_at(struct mem *m, uint64_t gpa, size_t bytes)
{
	void *p = mem_pin(m, gpa, bytes, true);

	if (p)
		mem_unpin(m, p, bytes);
	return p;
}

static inline uint64_t pinned_pages(struct mem *m)
{
	struct mem_stats s;

	mem_get_stats(m, &s, true);
	return s.pinned_pages;
}

/* The same without pages that were pinned so often that they stay pinned for good. */
static inline uint64_t held_pages(struct mem *m)
{
	enum { FOR_GOOD = 1023 };
	uint64_t n = 0;
	struct mem_frame f;

	for (uint64_t gpa = 0; !mem_frame_at(m, gpa, &f); gpa += MEM_PAGE_BYTES)
		n += f.pins && f.pins < FOR_GOOD;
	return n;
}

/* How often the page at gpa is pinned. */
static inline unsigned pins_of(struct mem *m, uint64_t gpa)
{
	struct mem_frame f;

	return mem_frame_at(m, gpa, &f) ? 0 : f.pins;
}

/* How many pins there are in all. */
static inline uint64_t all_pins(struct mem *m)
{
	uint64_t n = 0;
	struct mem_frame f;

	for (uint64_t gpa = 0; !mem_frame_at(m, gpa, &f); gpa += MEM_PAGE_BYTES)
		n += f.pins;
	return n;
}

/* Is this no guest memory (which is all below the hole), or are all of its pages pinned? */
static inline bool is_held(struct mem *m, const void *host, size_t bytes)
{
	struct mem_frame f;

	if (mem_frame_at(m, 0, &f))
		return true;
	uint64_t at = (uint64_t)((const char *)host - (const char *)f.host);
	if (at >= mem_low_bytes(m))
		return true;
	for (uint64_t page = at & ~(uint64_t)(MEM_PAGE_BYTES - 1); page < at + bytes;
	     page += MEM_PAGE_BYTES)
		if (!pins_of(m, page))
			return false;
	return true;
}

#endif
