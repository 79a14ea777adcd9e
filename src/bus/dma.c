/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/dma.h"

void *dma_map(struct mem *m, struct dma_area *a, uint64_t gpa, size_t bytes, bool write)
{
	void *host = bytes ? mem_pin(m, gpa, bytes, write) : NULL;

	/* In this order a page that is in both does not leave in between. */
	dma_unmap(m, a);
	if (host)
		*a = (struct dma_area){host, gpa, bytes};
	return host;
}

bool dma_extend(struct mem *m, struct dma_area *a, uint64_t gpa, size_t bytes, bool write)
{
	void *host;

	if (!a->host || !bytes || gpa != a->gpa + a->bytes)
		return false;
	host = mem_pin(m, gpa, bytes, write);
	if (!host)
		return false;
	if (host != (char *)a->host + a->bytes) {
		mem_unpin(m, host, bytes);
		return false;
	}
	/* The area's last page is held already: once is enough, as it is let go of once. */
	if (gpa % MEM_PAGE_BYTES)
		mem_unpin(m, host, 1);
	a->bytes += bytes;
	return true;
}

void dma_unmap(struct mem *m, struct dma_area *a)
{
	if (a->host)
		mem_unpin(m, a->host, a->bytes);
	*a = (struct dma_area){0};
}

void dma_unmap_all(struct mem *m, struct dma_area *a, unsigned *count)
{
	for (unsigned i = 0; i < *count; i++)
		dma_unmap(m, &a[i]);
	*count = 0;
}

void dma_written(struct mem *m, const struct dma_area *a, unsigned count, uint64_t bytes)
{
	for (unsigned i = 0; i < count && bytes; i++) {
		uint64_t n = a[i].bytes < bytes ? a[i].bytes : bytes;
		mem_written(m, a[i].gpa, n);
		bytes -= n;
	}
}
