/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_RING_H
#define HANOK_NET_RING_H

#include <stdatomic.h>

#include "net/frame.h"

/*
 * Frames with their metadata in shared memory, from one process to another: a ring of bytes with one
 * writer and one reader. Either may be somebody who wants to harm the other: what the other side
 * writes is read once and checked, and each side keeps its own position to itself.
 */
enum { NET_RING_BYTES = 4 << 20, NET_RING_HEADER_BYTES = 4096, NET_RING_ALIGN = 32 };

/* How the memory begins; the data follow after NET_RING_HEADER_BYTES. Positions count bytes and
 * wrap at 2^32. */
struct net_ring_shared {
	_Alignas(64) _Atomic uint32_t head; /* the writer's */
	_Atomic uint32_t writer_waits;
	_Alignas(64) _Atomic uint32_t tail; /* the reader's */
	_Atomic uint32_t reader_waits;
};

/* Before each frame. */
struct net_ring_record {
	uint32_t bytes;
	struct net_meta meta;
	uint8_t reserved[16];
};
_Static_assert(sizeof(struct net_ring_record) == NET_RING_ALIGN, "records do not wrap");

/* One side of a ring. */
struct net_ring {
	struct net_ring_shared *shared;
	uint8_t *data;
	uint32_t position; /* the writer's head, the reader's tail */
};

enum { NET_RING_MAP_BYTES = NET_RING_HEADER_BYTES + NET_RING_BYTES };

/* memory: NET_RING_MAP_BYTES, zeros at first. */
void net_ring_attach(struct net_ring *r, void *memory);

/* The writer. 0; -ENOSPC: no room, and the reader will wake us when there is; -EPROTO: the reader
 * writes nonsense. What was written is seen after net_ring_publish, which says whether to wake the
 * reader. */
int net_ring_write(struct net_ring *r, const struct net_frame *f);
bool net_ring_publish(struct net_ring *r);
/* After -ENOSPC: is there room for half of the ring now? Otherwise we will be woken. Beside a write
 * on another thread. */
bool net_ring_has_room(struct net_ring *r);

/* The reader. Frames from its position on, up to max; they lie in the ring, iov has two places for
 * each. Returns how many, or -EPROTO: the writer writes nonsense. */
int net_ring_read(struct net_ring *r, struct net_frame *frames, struct iovec *iov, unsigned max,
		  uint32_t *next);
/* Gives back all before `next`; true: wake the writer. */
bool net_ring_release(struct net_ring *r, uint32_t next);
/* Nothing more to read: from now on the writer wakes us. False: something came meanwhile. */
bool net_ring_wait(struct net_ring *r);

#endif
