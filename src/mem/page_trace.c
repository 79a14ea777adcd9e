/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole trace in memory. Page numbers become ids through a hash table of ids (open addressing,
 * linear probing, at most two thirds full). Its hash is salted, so that nobody can make a file
 * whose pages all meet in one place.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "mem/trace.h"

enum { FIRST_SLOTS = 1024, FIRST_ROOM = 1024, PROGRESS_EVERY = 1 << 16 };
#define NO_ID UINT32_MAX

struct page_trace *page_trace_new(const struct trace_info *info)
{
	struct page_trace *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->info = *info;
	t->slots = FIRST_SLOTS;
	t->slot = malloc(FIRST_SLOTS * sizeof(*t->slot));
	if (!t->slot) {
		free(t);
		return NULL;
	}
	memset(t->slot, 0xff, FIRST_SLOTS * sizeof(*t->slot));
	if (getrandom(&t->salt, sizeof(t->salt), GRND_NONBLOCK) != sizeof(t->salt))
		t->salt = clock_tsc();
	return t;
}

void page_trace_free(struct page_trace *t)
{
	if (!t)
		return;
	free(t->ref);
	free(t->page);
	free(t->slot);
	free(t);
}

/* Where the page's search begins: a mix after splitmix64's, whose every output bit depends on every
 * bit of page and salt. */
static uint32_t slot_of(const struct page_trace *t, uint64_t page)
{
	uint64_t h = page ^ t->salt;

	h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t)(h ^ h >> 31) & (t->slots - 1);
}

/* The slot that has the page's id, or the free one where it belongs. */
static uint32_t find(const struct page_trace *t, uint64_t page)
{
	uint32_t i = slot_of(t, page);

	while (t->slot[i] != NO_ID && t->page[t->slot[i]] != page)
		i = (i + 1) & (t->slots - 1);
	return i;
}

static int grow_slots(struct page_trace *t)
{
	uint32_t slots = t->slots * 2;
	uint32_t *slot = malloc((size_t)slots * sizeof(*slot));

	if (!slot)
		return -ENOMEM;
	free(t->slot);
	memset(slot, 0xff, (size_t)slots * sizeof(*slot));
	t->slot = slot;
	t->slots = slots;
	for (uint32_t id = 0; id < t->pages; id++)
		slot[find(t, t->page[id])] = id;
	return 0;
}

static int add_page(struct page_trace *t, uint64_t page, uint32_t *id)
{
	if (t->pages == PAGE_TRACE_PAGES_MAX)
		return -EFBIG;
	if (t->pages == t->page_room) {
		uint32_t room = t->page_room ? t->page_room * 2 : FIRST_ROOM;
		uint64_t *pages = realloc(t->page, (size_t)room * sizeof(*pages));
		if (!pages)
			return -ENOMEM;
		t->page = pages;
		t->page_room = room;
	}
	if (t->pages >= t->slots / 3 * 2 && grow_slots(t))
		return -ENOMEM;
	*id = t->pages++;
	t->page[*id] = page;
	t->slot[find(t, page)] = *id;
	return 0;
}

int page_trace_add(struct page_trace *t, const struct trace_record *record)
{
	uint32_t id = t->slot[find(t, record->page)];
	int rc;

	if (t->refs == PAGE_TRACE_REFS_MAX)
		return -EFBIG;
	if (t->refs == t->ref_room) {
		size_t room = t->ref_room ? t->ref_room + t->ref_room / 2 : FIRST_ROOM;
		uint32_t *ref = realloc(t->ref, room * sizeof(*ref));
		if (!ref)
			return -ENOMEM;
		t->ref = ref;
		t->ref_room = room;
	}
	if (id == NO_ID && (rc = add_page(t, record->page, &id)))
		return rc;
	if (!t->refs)
		t->first_ns = record->ns;
	t->last_ns = record->ns;
	t->writes += record->write;
	t->ref[t->refs++] = id << PAGE_TRACE_ID_SHIFT | record->write;
	return 0;
}

static int read_all(struct page_trace *t, struct trace_reader *r, const char *path,
		    const struct trace_progress *progress, struct error *err)
{
	struct trace_record record;
	uint64_t done, total;
	int rc;

	while ((rc = trace_reader_next(r, &record, err)) > 0) {
		rc = page_trace_add(t, &record);
		if (rc == -EFBIG)
			return error_set(err, rc,
					 "%s: more references or pages than a replay can hold "
					 "(2^32, 2^30); record for a shorter time",
					 path);
		if (rc)
			return error_set(err, rc,
					 "%s: out of memory after %zu references; record for a "
					 "shorter time",
					 path, t->refs);
		if (t->refs % PROGRESS_EVERY || !progress || !progress->fn)
			continue;
		trace_reader_position(r, &done, &total);
		if (progress->fn(progress->opaque, done, total))
			return error_set(err, -ECANCELED, "%s: interrupted", path);
	}
	t->cut = trace_reader_cut(r);
	return rc;
}

int page_trace_load(struct page_trace **out, const char *path,
		    const struct trace_progress *progress, struct error *err)
{
	struct page_trace *t = NULL;
	struct trace_reader *r;
	int rc = trace_reader_open(&r, path, err);

	*out = NULL;
	if (rc)
		return rc;
	t = page_trace_new(trace_reader_info(r));
	rc = t ? read_all(t, r, path, progress, err)
	       : error_set(err, -ENOMEM, "%s: out of memory", path);
	trace_reader_close(r);
	if (rc) {
		page_trace_free(t);
		return rc;
	}
	*out = t;
	return 0;
}
