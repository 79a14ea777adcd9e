/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Physical region pages (NVMe 4.3): where a command's data are.
 *
 *     prp1 ──> data, from any dword of a page to its end
 *     prp2 ──> a second page, or, if there are more than two,
 *              a list of pages; the last entry of a list page that is not enough leads to the next
 *
 * Neighbouring pages become one iovec.
 */
#include <string.h>

#include "dev/nvme/nvme_internal.h"

enum { PAGE_MASK = NVME_PAGE_BYTES - 1, ENTRY_BYTES = 8 };

struct mapping {
	struct nvme *n;
	struct nvme_data *data;
	uint64_t left;
};

/* Adds the part of the data that is in the page at gpa. */
static unsigned add_page(struct mapping *m, uint64_t gpa)
{
	uint64_t bytes = NVME_PAGE_BYTES - (gpa & PAGE_MASK);
	struct nvme_data *d = m->data;
	unsigned last = d->count - 1;

	if (bytes > m->left)
		bytes = m->left;
	m->left -= bytes;
	if (d->count && dma_extend(m->n->mem, &d->area[last], gpa, bytes, d->write)) {
		d->iov[last].iov_len += bytes;
		return NVME_OK;
	}
	if (d->count == NVME_SEGMENTS)
		return NVME_INVALID_FIELD;
	d->area[d->count] = (struct dma_area){0};
	void *host = dma_map(m->n->mem, &d->area[d->count], gpa, bytes, d->write);
	if (!host)
		return NVME_DATA_ERROR;
	d->iov[d->count++] = (struct iovec){host, bytes};
	return NVME_OK;
}

/* Pages from a list on. It ends: a list page that another leads to begins at its first entry, so it
 * adds pages before it can lead on. */
static unsigned add_list(struct mapping *m, uint64_t list)
{
	unsigned status = NVME_OK;

	if (list & (ENTRY_BYTES - 1))
		return NVME_INVALID_PRP_OFFSET;
	while (!status && m->left) {
		bool leads_on = (list & PAGE_MASK) == NVME_PAGE_BYTES - ENTRY_BYTES &&
				m->left > NVME_PAGE_BYTES;
		uint64_t entry;
		if (mem_read(m->n->mem, list, &entry, sizeof(entry)))
			return NVME_DATA_ERROR;
		if (entry & PAGE_MASK)
			return NVME_INVALID_PRP_OFFSET;
		if (leads_on) {
			list = entry;
			continue;
		}
		status = add_page(m, entry);
		list += ENTRY_BYTES;
	}
	return status;
}

unsigned nvme_map(struct nvme *n, uint64_t prp1, uint64_t prp2, uint64_t bytes, bool write,
		  struct nvme_data *d)
{
	struct mapping m = {.n = n, .data = d, .left = bytes};
	unsigned status;

	d->count = 0;
	d->write = write;
	if (prp1 & 3)
		return NVME_INVALID_PRP_OFFSET;
	status = add_page(&m, prp1);
	if (!status && m.left > NVME_PAGE_BYTES)
		status = add_list(&m, prp2);
	else if (!status && m.left)
		status = prp2 & PAGE_MASK ? NVME_INVALID_PRP_OFFSET : add_page(&m, prp2);
	if (status)
		dma_unmap_all(n->mem, d->area, &d->count);
	return status;
}

void nvme_unmap(struct nvme *n, struct nvme_data *d)
{
	if (d->write)
		dma_written(n->mem, d->area, d->count, UINT64_MAX);
	dma_unmap_all(n->mem, d->area, &d->count);
}

unsigned nvme_copy_out(struct nvme *n, const struct nvme_command *c, const void *data,
		       uint64_t bytes)
{
	struct nvme_data d;
	unsigned status = nvme_map(n, c->prp1, c->prp2, bytes, true, &d);

	if (status)
		return status;
	for (unsigned i = 0; i < d.count; i++) {
		memcpy(d.iov[i].iov_base, data, d.iov[i].iov_len);
		data = (const char *)data + d.iov[i].iov_len;
	}
	nvme_unmap(n, &d);
	return NVME_OK;
}

unsigned nvme_copy_in(struct nvme *n, const struct nvme_command *c, void *data, uint64_t bytes)
{
	struct nvme_data d;
	unsigned status = nvme_map(n, c->prp1, c->prp2, bytes, false, &d);

	if (status)
		return status;
	for (unsigned i = 0; i < d.count; i++) {
		memcpy(data, d.iov[i].iov_base, d.iov[i].iov_len);
		data = (char *)data + d.iov[i].iov_len;
	}
	nvme_unmap(n, &d);
	return NVME_OK;
}
