/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_QUEUE_H
#define HANOK_NET_QUEUE_H

#include "net/netport.h"

/*
 * A bounded queue of copied frames, in order. No lock of its own.
 *
 * Several senders share it fairly: each may hold at most as much as is still free for all (the
 * "dynamic threshold" of Choudhury and Hahne, 1998), so that one that floods leaves room for those
 * that do not.
 */
enum { NET_QUEUE_SOURCES = 256 };

struct net_queued {
	struct net_queued *next;
	struct net_frame frame;
	struct iovec iov;
	uint64_t due_ns; /* the user's */
	uint8_t source;
	uint8_t bytes[];
};

struct net_queue {
	struct net_queued *first, **last;
	unsigned frames, frames_max;
	uint32_t bytes, bytes_max;
	uint16_t held[NET_QUEUE_SOURCES]; /* frames by source */
};

void net_queue_init(struct net_queue *q, unsigned frames_max, uint32_t bytes_max);
/* Copies f to the end. 0; -ENOSPC if it does not fit or the source has its share; -ENOMEM. */
int net_queue_push(struct net_queue *q, const struct net_frame *f, unsigned source);
/* The first up to max frames, not taken out; returns how many. */
unsigned net_queue_peek(const struct net_queue *q, struct net_frame *out, unsigned max);
/* Frees the first n. */
void net_queue_drop(struct net_queue *q, unsigned n);
/* Frees all; returns how many there were. */
unsigned net_queue_clear(struct net_queue *q);
/* The last one pushed; the queue is not empty. */
struct net_queued *net_queue_last(const struct net_queue *q);
/* Moves the first frames with due_ns up to now_ns from `from` to the end of `to`, past its limits. */
void net_queue_take(struct net_queue *to, struct net_queue *from, uint64_t now_ns);
/* Everything of `from` goes to the empty queue `to`, limits stay. */
void net_queue_move(struct net_queue *to, struct net_queue *from);

#endif
