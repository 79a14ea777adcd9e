/* SPDX-License-Identifier: Apache-2.0 */
/* Where data lies in guest memory: the descriptor tables of AHCI and of bus-master IDE. */
#include <errno.h>

#include "dev/ata/ata.h"

/* Adds what is left of a region, as far as it is wanted. */
static int add_piece(struct ata_command *c, struct mem *mem, const struct ata_region *r,
		     uint32_t used, uint64_t wanted)
{
	uint64_t gpa = r->gpa + used, len = r->len - used;
	void *p;

	if (len > wanted)
		len = wanted;
	c->area[c->held] = (struct dma_area){0};
	p = dma_map(mem, &c->area[c->held], gpa, len, c->to_host);
	if (!p)
		return -EFAULT;
	c->held++;
	c->iov[c->iov_count++] = (struct iovec){p, len};
	c->iov_bytes += len;
	return 0;
}

/* The disk takes whole sectors: gives back what follows the last of them. */
static void drop_tail(struct ata_command *c, uint64_t tail)
{
	c->iov_bytes -= tail;
	while (tail) {
		struct iovec *last = &c->iov[c->iov_count - 1];
		if (last->iov_len > tail) {
			last->iov_len -= tail;
			return;
		}
		tail -= last->iov_len;
		c->iov_count--;
	}
}

static int map(struct ata_command *c, struct mem *mem, struct ata_cursor *at,
	       int (*fetch)(void *opaque, unsigned index, struct ata_region *r), void *opaque)
{
	uint64_t wanted = c->bytes - c->moved;
	struct ata_cursor now = *at;
	struct ata_region r;
	int rc = 1;

	c->iov_count = 0;
	c->iov_bytes = 0;
	while (c->iov_count < ATA_IOVS && c->iov_bytes < wanted) {
		rc = fetch(opaque, now.index, &r);
		if (rc <= 0)
			break;
		if (now.used >= r.len) { /* was used up; or the guest has changed it meanwhile */
			now = (struct ata_cursor){now.index + 1, 0};
			if (!c->iov_count)
				*at = now;
			continue;
		}
		rc = add_piece(c, mem, &r, now.used, wanted - c->iov_bytes);
		if (rc)
			return rc;
		now = (struct ata_cursor){now.index + 1, 0};
	}
	if (rc < 0)
		return rc;
	if (c->media)
		drop_tail(c, c->iov_bytes % ATA_SECTOR);
	if (!c->iov_count)
		return -ENOBUFS;
	/* Each piece is the rest of one region. */
	if (c->iov_count == 1)
		at->used += (uint32_t)c->iov[0].iov_len;
	else
		*at = (struct ata_cursor){at->index + c->iov_count - 1,
					  (uint32_t)c->iov[c->iov_count - 1].iov_len};
	return 1;
}

int ata_map_regions(struct ata_command *c, struct mem *mem, struct ata_cursor *at,
		    int (*fetch)(void *opaque, unsigned index, struct ata_region *r), void *opaque)
{
	ata_release_regions(c);
	c->mem = mem;
	int rc = map(c, mem, at, fetch, opaque);
	if (rc <= 0)
		ata_release_regions(c);
	return rc;
}

void ata_unmap_regions(struct ata_command *c)
{
	if (c->to_host)
		dma_written(c->mem, c->area, c->held, c->iov_bytes);
	ata_release_regions(c);
}

void ata_release_regions(struct ata_command *c)
{
	dma_unmap_all(c->mem, c->area, &c->held);
}
