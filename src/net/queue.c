/* SPDX-License-Identifier: Apache-2.0 */
#include "net/queue.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void net_queue_init(struct net_queue *q, unsigned frames_max, uint32_t bytes_max)
{
	memset(q, 0, sizeof(*q));
	q->last = &q->first;
	q->frames_max = frames_max < UINT16_MAX ? frames_max : UINT16_MAX;
	q->bytes_max = bytes_max;
}

int net_queue_push(struct net_queue *q, const struct net_frame *f, unsigned source)
{
	uint8_t from = (uint8_t)(source % NET_QUEUE_SOURCES);

	if (q->frames >= q->frames_max || f->bytes > q->bytes_max - q->bytes)
		return -ENOSPC;
	if (source && q->held[from] >= q->frames_max - q->frames)
		return -ENOSPC;
	struct net_queued *e = malloc(sizeof(*e) + f->bytes);
	if (!e)
		return -ENOMEM;
	/* A frame whose pieces are short of what it says would leave bytes of ours in it. */
	uint32_t n = net_frame_read(f, 0, e->bytes, f->bytes);
	e->next = NULL;
	e->iov = (struct iovec){e->bytes, n};
	e->frame = (struct net_frame){&e->iov, 1, n, f->meta};
	e->due_ns = 0;
	e->source = from;
	*q->last = e;
	q->last = &e->next;
	q->frames++;
	q->bytes += n;
	q->held[from]++;
	return 0;
}

unsigned net_queue_peek(const struct net_queue *q, struct net_frame *out, unsigned max)
{
	unsigned n = 0;

	for (const struct net_queued *e = q->first; e && n < max; e = e->next)
		out[n++] = e->frame;
	return n;
}

void net_queue_drop(struct net_queue *q, unsigned n)
{
	while (n-- && q->first) {
		struct net_queued *e = q->first;
		q->first = e->next;
		if (!q->first)
			q->last = &q->first;
		q->frames--;
		q->bytes -= e->frame.bytes;
		q->held[e->source]--;
		free(e);
	}
}

unsigned net_queue_clear(struct net_queue *q)
{
	unsigned n = q->frames;

	net_queue_drop(q, n);
	return n;
}

struct net_queued *net_queue_last(const struct net_queue *q)
{
	return (struct net_queued *)((char *)q->last - offsetof(struct net_queued, next));
}

void net_queue_take(struct net_queue *to, struct net_queue *from, uint64_t now_ns)
{
	while (from->first && from->first->due_ns <= now_ns) {
		struct net_queued *e = from->first;
		from->first = e->next;
		if (!from->first)
			from->last = &from->first;
		from->frames--;
		from->bytes -= e->frame.bytes;
		from->held[e->source]--;
		e->next = NULL;
		*to->last = e;
		to->last = &e->next;
		to->frames++;
		to->bytes += e->frame.bytes;
		to->held[e->source]++;
	}
}

void net_queue_move(struct net_queue *to, struct net_queue *from)
{
	unsigned frames_max = to->frames_max;
	uint32_t bytes_max = to->bytes_max;

	if (!from->first)
		return;
	*to = *from;
	to->frames_max = frames_max;
	to->bytes_max = bytes_max;
	net_queue_init(from, from->frames_max, from->bytes_max);
}
