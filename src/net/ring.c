/* SPDX-License-Identifier: Apache-2.0 */
#include "net/ring.h"

#include <errno.h>
#include <string.h>

static uint32_t record_bytes(uint32_t frame_bytes)
{
	uint32_t n = (uint32_t)sizeof(struct net_ring_record) + frame_bytes;

	return (n + NET_RING_ALIGN - 1) & ~(NET_RING_ALIGN - 1u);
}

void net_ring_attach(struct net_ring *r, void *memory)
{
	r->shared = memory;
	r->data = (uint8_t *)memory + NET_RING_HEADER_BYTES;
	r->position = 0;
}

/* The pieces of `bytes` bytes at a position: one, or two around the end. */
static unsigned pieces(struct net_ring *r, uint32_t position, uint32_t bytes, struct iovec *iov)
{
	uint32_t at = position % NET_RING_BYTES, first = NET_RING_BYTES - at;

	if (first >= bytes) {
		iov[0] = (struct iovec){r->data + at, bytes};
		return 1;
	}
	iov[0] = (struct iovec){r->data + at, first};
	iov[1] = (struct iovec){r->data, bytes - first};
	return 2;
}

int net_ring_write(struct net_ring *r, const struct net_frame *f)
{
	uint32_t need = record_bytes(f->bytes), used;
	struct net_ring_record record = {.bytes = f->bytes, .meta = f->meta};
	struct iovec iov[2];

	if (f->bytes > NET_FRAME_MAX_BYTES)
		return -EINVAL;
	used = r->position - atomic_load_explicit(&r->shared->tail, memory_order_acquire);
	if (used <= NET_RING_BYTES && NET_RING_BYTES - used < need) {
		/* Ask to be woken, then look again: the reader may have just been done. */
		atomic_store(&r->shared->writer_waits, 1);
		used = r->position - atomic_load(&r->shared->tail);
	}
	if (used > NET_RING_BYTES)
		return -EPROTO;
	if (NET_RING_BYTES - used < need)
		return -ENOSPC;
	memcpy(r->data + r->position % NET_RING_BYTES, &record, sizeof(record));
	unsigned n = pieces(r, r->position + (uint32_t)sizeof(record), f->bytes, iov);
	uint32_t done = net_frame_read(f, 0, iov[0].iov_base, (uint32_t)iov[0].iov_len);
	if (n == 2)
		net_frame_read(f, done, iov[1].iov_base, (uint32_t)iov[1].iov_len);
	r->position += need;
	return 0;
}

bool net_ring_publish(struct net_ring *r)
{
	atomic_store(&r->shared->head, r->position);
	return atomic_load(&r->shared->reader_waits) &&
	       atomic_exchange(&r->shared->reader_waits, 0);
}

static uint32_t used_bytes(struct net_ring *r)
{
	/* The head as it was published: a reader that changes it misleads itself only. */
	return atomic_load(&r->shared->head) - atomic_load(&r->shared->tail);
}

bool net_ring_has_room(struct net_ring *r)
{
	if (used_bytes(r) <= NET_RING_BYTES / 2)
		return true;
	atomic_store(&r->shared->writer_waits, 1);
	return used_bytes(r) <= NET_RING_BYTES / 2;
}

int net_ring_read(struct net_ring *r, struct net_frame *frames, struct iovec *iov, unsigned max,
		  uint32_t *next)
{
	uint32_t head = atomic_load_explicit(&r->shared->head, memory_order_acquire);
	uint32_t at = r->position;
	unsigned n = 0;

	if (head - at > NET_RING_BYTES || head % NET_RING_ALIGN)
		return -EPROTO;
	while (n < max && at != head) {
		struct net_ring_record record;
		memcpy(&record, r->data + at % NET_RING_BYTES, sizeof(record));
		if (record.bytes > NET_FRAME_MAX_BYTES || record_bytes(record.bytes) > head - at)
			return -EPROTO;
		struct net_frame *f = &frames[n];
		f->iov = &iov[2 * n];
		f->iov_count = pieces(r, at + (uint32_t)sizeof(record), record.bytes, &iov[2 * n]);
		f->bytes = record.bytes;
		f->meta = record.meta;
		at += record_bytes(record.bytes);
		n++;
	}
	*next = at;
	return (int)n;
}

bool net_ring_release(struct net_ring *r, uint32_t next)
{
	r->position = next;
	atomic_store(&r->shared->tail, next);
	return atomic_load(&r->shared->writer_waits) &&
	       atomic_exchange(&r->shared->writer_waits, 0);
}

bool net_ring_wait(struct net_ring *r)
{
	atomic_store(&r->shared->reader_waits, 1);
	if (atomic_load(&r->shared->head) == r->position)
		return true;
	atomic_store(&r->shared->reader_waits, 0);
	return false;
}
