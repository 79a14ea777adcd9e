/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/scsi/sgl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 16 };

static int grow(struct scsi_sgl *s)
{
	unsigned room = s->room ? s->room * 2 : FIRST_ROOM;
	struct iovec *iov;
	struct dma_area *area;

	if (s->room >= SGL_PIECES_MAX)
		return -E2BIG;
	iov = realloc(s->iov, room * sizeof(*iov));
	if (!iov)
		return -ENOMEM;
	s->iov = iov;
	area = realloc(s->area, room * sizeof(*area));
	if (!area)
		return -ENOMEM;
	s->area = area;
	s->room = room;
	return 0;
}

int sgl_add(struct scsi_sgl *s, struct mem *m, uint64_t gpa, uint64_t len)
{
	struct dma_area *area;
	int rc;

	if (!len)
		return 0;
	if (len > SGL_BYTES_MAX || s->bytes + len > SGL_BYTES_MAX)
		return -E2BIG;
	s->mem = m;
	if (s->count && dma_extend(m, &s->area[s->count - 1], gpa, len, s->write)) {
		s->iov[s->count - 1].iov_len += len;
		s->bytes += len;
		return 0;
	}
	if (s->count == s->room) {
		rc = grow(s);
		if (rc)
			return rc;
	}
	area = &s->area[s->count];
	*area = (struct dma_area){0};
	if (!dma_map(m, area, gpa, len, s->write))
		return -EFAULT;
	s->iov[s->count++] = (struct iovec){.iov_base = area->host, .iov_len = len};
	s->bytes += len;
	return 0;
}

void sgl_trim(struct scsi_sgl *s, uint64_t bytes)
{
	uint64_t left = bytes;
	unsigned i;

	if (bytes >= s->bytes)
		return;
	for (i = 0; left; i++) {
		if (s->iov[i].iov_len > left)
			s->iov[i].iov_len = left;
		left -= s->iov[i].iov_len;
	}
	while (s->count > i)
		dma_unmap(s->mem, &s->area[--s->count]);
	s->bytes = bytes;
}

uint64_t sgl_write(struct scsi_sgl *s, const void *data, uint64_t len)
{
	uint64_t done = 0;

	for (unsigned i = 0; s->write && i < s->count && done < len; i++) {
		uint64_t n = s->iov[i].iov_len < len - done ? s->iov[i].iov_len : len - done;
		memcpy(s->iov[i].iov_base, (const uint8_t *)data + done, n);
		done += n;
	}
	dma_written(s->mem, s->area, s->count, done);
	return done;
}

uint64_t sgl_read(const struct scsi_sgl *s, uint64_t offset, void *data, uint64_t len)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < s->count && done < len; i++) {
		const uint8_t *p = s->iov[i].iov_base;
		uint64_t n = s->iov[i].iov_len;
		if (offset >= n) {
			offset -= n;
			continue;
		}
		n -= offset;
		if (n > len - done)
			n = len - done;
		memcpy((uint8_t *)data + done, p + offset, n);
		offset = 0;
		done += n;
	}
	return done;
}

void sgl_written(const struct scsi_sgl *s)
{
	dma_written(s->mem, s->area, s->count, s->bytes);
}

void sgl_clear(struct scsi_sgl *s)
{
	dma_unmap_all(s->mem, s->area, &s->count);
	s->bytes = 0;
}

void sgl_free(struct scsi_sgl *s)
{
	sgl_clear(s);
	free(s->iov);
	free(s->area);
	*s = (struct scsi_sgl){0};
}
