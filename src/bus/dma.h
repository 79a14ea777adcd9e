/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BUS_DMA_H
#define HANOK_BUS_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/mem.h"

/*
 * How a device gets at guest memory by addresses of the host: the one door for all DMA that is no
 * copy by mem_read or mem_write. Whatever came through it is pinned, and written down in a struct
 * dma_area; so it stays in host memory as long as the device has it, and who holds the areas can
 * let go of all of them without looking at what became of the iovecs made from them.
 *
 * A ring or an area shared with the driver is an area of its queue, from the time that the queue is
 * enabled. A request has an array of them, and a count, which dma_unmap_all brings back to 0.
 *
 * No locks: an area is its owner's business. Any thread.
 */
struct dma_area {
	void *host; /* NULL: it holds nothing */
	uint64_t gpa;
	size_t bytes;
};

/*
 * Holds [gpa, gpa + bytes) from now on, and lets go of what it held before; write: the device may
 * write there. Returns the host's address; NULL when the range is not RAM or not contiguous, or is
 * empty, and then nothing is held.
 */
void *dma_map(struct mem *m, struct dma_area *a, uint64_t gpa, size_t bytes, bool write);
/* Holds [gpa, gpa + bytes) besides, with the same `write`, if it continues the area in the guest's
 * memory and in the host's; else false, and all is as it was. */
bool dma_extend(struct mem *m, struct dma_area *a, uint64_t gpa, size_t bytes, bool write);
/* Lets go, if it holds anything. */
void dma_unmap(struct mem *m, struct dma_area *a);
/* Lets go of *count areas; *count becomes 0. */
void dma_unmap_all(struct mem *m, struct dma_area *a, unsigned *count);

/* The device has written `bytes` bytes to the areas, from the first on: tells mem. Before they are
 * let go. */
void dma_written(struct mem *m, const struct dma_area *a, unsigned count, uint64_t bytes);

#endif
