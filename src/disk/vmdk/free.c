/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grains that were given up, until they can be used again:
 *
 *   freed      by a discard; tables on the disk may still point to them
 *     │ a commit: no durable table does
 *   retired    requests that looked them up before may still be on their way to them
 *     │ all requests of that epoch are over
 *   free       a hole was punched where the host can do that: reads as zeroes, takes no space
 *
 * Requests count themselves in one of two counters, by the parity of the epoch they began in. The
 * epoch may go on when the counter of the one before is 0, so that each counter has one meaning.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/vmdk/vmdk.h"

enum { HOST_BLOCK = 4096 };

int vmdk_free_add(struct free_list *l, uint64_t offset, uint64_t bytes, bool zeroed)
{
	struct free_run *last = l->count ? &l->runs[l->count - 1] : NULL;

	if (last && last->zeroed == zeroed && last->offset + last->bytes == offset) {
		last->bytes += bytes;
		return 0;
	}
	if (l->count == l->room) {
		unsigned room = l->room ? l->room * 2 : 16;
		void *more = realloc(l->runs, room * sizeof(*l->runs));
		if (!more)
			return -ENOMEM;
		l->runs = more;
		l->room = room;
	}
	l->runs[l->count++] = (struct free_run){offset, bytes, zeroed};
	return 0;
}

bool vmdk_free_take(struct free_list *l, uint64_t bytes, struct free_run *out)
{
	struct free_run *last = l->count ? &l->runs[l->count - 1] : NULL;

	if (!last)
		return false;
	*out = *last;
	if (out->bytes > bytes) {
		out->bytes = bytes;
		last->offset += bytes;
		last->bytes -= bytes;
	} else {
		l->count--;
	}
	return true;
}

void vmdk_free_list_clear(struct free_list *l)
{
	free(l->runs);
	*l = (struct free_list){0};
}

/* What there is no memory to remember leaks till the next `hanok disk check --repair`. */
static void punch(struct extent *e, struct free_list *from)
{
	pthread_mutex_t *lock = &e->image->chain->lock;
	struct free_run r;

	while (vmdk_free_take(from, UINT64_MAX, &r)) {
		pthread_mutex_unlock(lock);
		r.zeroed = !file_discard(e->file, r.offset, r.bytes);
		pthread_mutex_lock(lock);
		(void)vmdk_free_add(&e->free, r.offset, r.bytes, r.zeroed);
	}
}

static void release(struct chain *c, unsigned epoch)
{
	for (unsigned i = 0; i < c->top->extent_count; i++)
		punch(&c->top->extents[i], &c->top->extents[i].retired[epoch]);
}

static bool any_retired(const struct chain *c, unsigned epoch)
{
	for (unsigned i = 0; i < c->top->extent_count; i++)
		if (c->top->extents[i].retired[epoch].count)
			return true;
	return false;
}

static bool any_freed(const struct chain *c)
{
	for (unsigned i = 0; i < c->top->extent_count; i++)
		if (c->top->extents[i].freed.count)
			return true;
	return false;
}

void vmdk_reclaim(struct chain *c)
{
	for (;;) {
		unsigned now = c->epoch & 1, before = !now;
		if (atomic_load_explicit(&c->in_flight[before], memory_order_acquire))
			return;
		if (any_retired(c, before)) {
			release(c, before);
		} else if (any_retired(c, now)) {
			c->epoch++;
		} else {
			c->any_freed = any_freed(c);
			return;
		}
	}
}

static int by_offset(const void *a, const void *b)
{
	const struct free_run *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Sorts runs and joins neighbours. */
static void tidy(struct free_list *l)
{
	unsigned n = 0;

	if (!l->count)
		return;
	qsort(l->runs, l->count, sizeof(*l->runs), by_offset);
	for (unsigned i = 1; i < l->count; i++) {
		if (l->runs[n].offset + l->runs[n].bytes == l->runs[i].offset)
			l->runs[n].bytes += l->runs[i].bytes;
		else
			l->runs[++n] = l->runs[i];
	}
	l->count = n + 1;
}

void vmdk_trim(struct extent *e)
{
	uint64_t end = e->alloc_end;

	tidy(&e->free);
	if (e->free.count &&
	    e->free.runs[e->free.count - 1].offset + e->free.runs[e->free.count - 1].bytes == end)
		end = e->free.runs[--e->free.count].offset;
	if (end < e->alloc_end && !file_truncate(e->file, end))
		e->alloc_end = e->file_bytes = end;
	/* Grains that are smaller than the host's blocks give space back only together. */
	for (unsigned i = 0; e->layout.grain_bytes < HOST_BLOCK && i < e->free.count; i++)
		(void)file_discard(e->file, e->free.runs[i].offset, e->free.runs[i].bytes);
}
