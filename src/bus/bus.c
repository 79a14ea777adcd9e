/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus.
 *
 * What is mapped is kept twice. `ranges` is the list in the order of mapping, for the rare changes,
 * under a mutex. From it each change makes a flat table: disjoint segments in address order, each
 * with the range that wins there, so that a lookup is one binary search.
 *
 * Lookups take no lock. The table is guarded by a sequence count (odd while it is being rewritten):
 * a reader copies the segment it found and starts over if the count moved. That each word of the
 * table is stored with release and loaded with acquire is enough for it, without a fence: who loads
 * one that was stored during a rewriting also sees the odd count before it, or a later one (Boehm,
 * "Can Seqlocks Get Along With Programming Language Memory Models?", MSPC 2012, 3).
 *
 * A table that has become too small is replaced by one twice as large and kept until the bus goes,
 * because a reader may still be looking at it; it only ever grows, so what is kept is at most what
 * is in use.
 */
#include "bus/bus.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* first to last belong to a range that starts at range_base (it may start before first). */
struct segment {
	_Atomic uint64_t first, last, range_base;
	_Atomic(void (*)(void *, struct bus_access *)) fn;
	_Atomic(void *) opaque;
	_Atomic(const char *) name;
};

struct table {
	size_t cap;
	_Atomic size_t count;
	struct table *older;
	struct segment seg[];
};

struct space {
	_Atomic uint64_t sequence;
	_Atomic(struct table *) table;
	struct bus_range *ranges; /* in the order of mapping */
	size_t count, cap;
};

struct bus {
	pthread_mutex_t lock; /* guards ranges and the making of tables */
	struct space space[2];
};

/* What a lookup found: the handler that owns addr, or fn NULL for nothing; up to and with last. */
struct found {
	uint64_t last, range_base;
	void (*fn)(void *, struct bus_access *);
	void *opaque;
	const char *name;
};

static struct table *table_new(size_t cap, struct table *older)
{
	struct table *t = calloc(1, sizeof(*t) + cap * sizeof(t->seg[0]));

	if (t) {
		t->cap = cap;
		t->older = older;
	}
	return t;
}

int bus_create(struct bus **out, struct error *err)
{
	struct bus *b = calloc(1, sizeof(*b));

	*out = NULL;
	if (!b)
		return error_set(err, -ENOMEM, "bus: out of memory");
	pthread_mutex_init(&b->lock, NULL);
	for (int i = 0; i < 2; i++) {
		struct table *t = table_new(64, NULL);
		if (!t) {
			bus_destroy(b);
			return error_set(err, -ENOMEM, "bus: out of memory");
		}
		atomic_store(&b->space[i].table, t);
	}
	*out = b;
	return 0;
}

void bus_destroy(struct bus *b)
{
	if (!b)
		return;
	for (int i = 0; i < 2; i++) {
		struct table *t = atomic_load(&b->space[i].table);
		while (t) {
			struct table *older = t->older;
			free(t);
			t = older;
		}
		free(b->space[i].ranges);
	}
	pthread_mutex_destroy(&b->lock);
	free(b);
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The range mapped last of those that hold addr, or NULL. */
static const struct bus_range *winner(const struct space *s, uint64_t addr)
{
	for (size_t i = s->count; i-- > 0;)
		if (addr - s->ranges[i].base < s->ranges[i].len)
			return &s->ranges[i];
	return NULL;
}

/* Writes the segments for s->ranges into t. edges are the sorted addresses where something starts
 * or ends. */
static void flatten(const struct space *s, const uint64_t *edges, size_t edge_count,
		    struct table *t)
{
	const struct bus_range *previous = NULL;
	size_t n = 0;

	for (size_t i = 0; i + 1 < edge_count; i++) {
		const struct bus_range *r = winner(s, edges[i]);
		if (edges[i] == edges[i + 1])
			continue;
		if (r && r == previous) {
			t->seg[n - 1].last = edges[i + 1] - 1;
		} else if (r) {
			struct segment *seg = &t->seg[n++];
			seg->first = edges[i];
			seg->last = edges[i + 1] - 1;
			seg->range_base = r->base;
			seg->fn = r->fn;
			seg->opaque = r->opaque;
			seg->name = r->name;
		}
		previous = r;
	}
	t->count = n;
}

/* Makes the flat table from the list. b->lock held. */
static int rebuild(struct space *s)
{
	struct table *old = atomic_load(&s->table), *t = old;
	size_t edge_count = s->count * 2;
	uint64_t *edges = malloc((edge_count + 1) * sizeof(*edges));

	if (!edges)
		return -ENOMEM;
	for (size_t i = 0; i < s->count; i++) {
		edges[2 * i] = s->ranges[i].base;
		edges[2 * i + 1] = s->ranges[i].base + s->ranges[i].len;
	}
	qsort(edges, edge_count, sizeof(*edges), compare_u64);
	if (edge_count > t->cap) { /* each edge starts at most one segment */
		size_t cap = t->cap * 2;
		while (cap < edge_count)
			cap *= 2;
		t = table_new(cap, old);
		if (!t) {
			free(edges);
			return -ENOMEM;
		}
	}
	atomic_fetch_add(&s->sequence, 1);
	flatten(s, edges, edge_count, t);
	atomic_store(&s->table, t);
	atomic_fetch_add(&s->sequence, 1);
	free(edges);
	return 0;
}

int bus_map(struct bus *b, const struct bus_range *range)
{
	struct space *s = &b->space[range->space == BUS_MMIO];
	uint64_t end = range->base + range->len;
	int rc = 0;

	if (!range->fn || !range->len || end < range->base ||
	    (range->space == BUS_PIO && end > 0x10000))
		return -EINVAL;
	pthread_mutex_lock(&b->lock);
	if (s->count == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 32;
		struct bus_range *ranges = realloc(s->ranges, cap * sizeof(*ranges));
		if (!ranges) {
			rc = -ENOMEM;
			goto out;
		}
		s->ranges = ranges;
		s->cap = cap;
	}
	s->ranges[s->count++] = *range;
	rc = rebuild(s);
	if (rc)
		s->count--;
out:
	pthread_mutex_unlock(&b->lock);
	return rc;
}

void bus_unmap(struct bus *b, enum bus_space space, uint64_t base, const void *opaque)
{
	struct space *s = &b->space[space == BUS_MMIO];

	pthread_mutex_lock(&b->lock);
	for (size_t i = s->count; i-- > 0;) {
		if (s->ranges[i].base != base || s->ranges[i].opaque != opaque)
			continue;
		struct bus_range gone = s->ranges[i];
		memmove(&s->ranges[i], &s->ranges[i + 1], (s->count - i - 1) * sizeof(gone));
		s->count--;
		/* Out of memory for the edges: give the table up whole rather than leave the
		 * range in it; its owner may be about to go. */
		if (rebuild(s)) {
			atomic_fetch_add(&s->sequence, 1);
			atomic_store(&atomic_load(&s->table)->count, 0);
			atomic_fetch_add(&s->sequence, 1);
		}
		break;
	}
	pthread_mutex_unlock(&b->lock);
}

#define acquire(x) atomic_load_explicit(&(x), memory_order_acquire)

/* One try: the segment that holds addr, or the gap up to the next one. */
static void search(const struct table *t, uint64_t addr, struct found *f)
{
	size_t lo = 0, hi = acquire(t->count);

	if (hi > t->cap)
		hi = t->cap;
	while (lo < hi) { /* the first segment that ends at or after addr */
		size_t mid = lo + (hi - lo) / 2;
		if (acquire(t->seg[mid].last) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	*f = (struct found){.last = UINT64_MAX};
	if (lo >= acquire(t->count) || lo >= t->cap)
		return;
	const struct segment *seg = &t->seg[lo];
	uint64_t first = acquire(seg->first);
	if (first > addr) {
		f->last = first - 1;
		return;
	}
	f->last = acquire(seg->last);
	f->range_base = acquire(seg->range_base);
	f->fn = acquire(seg->fn);
	f->opaque = acquire(seg->opaque);
	f->name = acquire(seg->name);
}

static void lookup(struct space *s, uint64_t addr, struct found *f)
{
	for (;;) {
		uint64_t before = acquire(s->sequence);
		if (!(before & 1)) {
			search(acquire(s->table), addr, f);
			if (acquire(s->sequence) == before)
				return;
		}
		sched_yield();
	}
}

static uint64_t size_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

const char *bus_access(struct bus *b, enum bus_space space, struct bus_access *a)
{
	struct space *s = &b->space[space == BUS_MMIO];
	const char *name = NULL;
	uint64_t value = 0;

	if (!a->size || a->size > 8)
		return NULL;
	for (unsigned done = 0; done < a->size;) {
		struct found f;
		struct bus_access part = *a;
		part.addr = a->addr + done;
		lookup(s, part.addr, &f);
		part.size = a->size - done;
		if (f.last - part.addr < part.size - 1)
			part.size = (unsigned)(f.last - part.addr) + 1;
		part.offset = part.addr - f.range_base;
		part.value = a->write ? a->value >> (8 * done) & size_mask(part.size) : UINT64_MAX;
		if (f.fn) {
			f.fn(f.opaque, &part);
			name = name ? name : f.name;
		}
		value |= (part.value & size_mask(part.size)) << (8 * done);
		done += part.size;
	}
	if (!a->write)
		a->value = value;
	return name;
}

void bus_each(struct bus *b, void (*fn)(void *opaque, const struct bus_range *r), void *opaque)
{
	for (int i = 0; i < 2; i++) {
		struct space *s = &b->space[i];
		uint64_t base = 0;
		pthread_mutex_lock(&b->lock);
		for (size_t shown = 0; shown < s->count;) { /* few ranges: selection by address */
			uint64_t next = UINT64_MAX;
			for (size_t k = 0; k < s->count; k++) {
				if (s->ranges[k].base == base) {
					fn(opaque, &s->ranges[k]);
					shown++;
				} else if (s->ranges[k].base > base && s->ranges[k].base < next) {
					next = s->ranges[k].base;
				}
			}
			base = next;
		}
		pthread_mutex_unlock(&b->lock);
	}
}
