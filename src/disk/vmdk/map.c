/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bytes of a disk are: grain directories in memory, grain tables in a bounded cache, and
 * runs of grains out of them.
 *
 * A directory points to tables, a table to grains. extent->tables has a place for each table, so a
 * lookup is two loads. Tables that are in memory hang in a ring; a clock's hand evicts those not used
 * since it last went by. Changed and pinned ones stay.
 *
 * A lookup goes down the chain until an image has the grain. It answers for as many bytes as are
 * alike: lie behind each other in one file, or are all zero, or in no image.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/vmdk/vmdk.h"

/* ---- the cache ---- */

static uint64_t cost(const struct table *t)
{
	return sizeof(*t) + (t->entries ? table_bytes(&t->extent->layout) : 0);
}

static void unlink_table(struct chain *c, struct table *t)
{
	c->cached_bytes -= cost(t);
	c->cached--;
	t->extent->tables[t->index] = NULL;
	if (c->hand == t)
		c->hand = t->next == t ? NULL : t->next;
	t->next->prev = t->prev;
	t->prev->next = t->next;
	free(t->entries);
	free(t);
}

/* Two rounds of the hand find a victim if there is one. */
static void evict(struct chain *c, const struct table *not_this)
{
	for (unsigned steps = 2 * c->cached; c->cached_bytes > TABLE_CACHE_BYTES && steps;
	     steps--) {
		struct table *t = c->hand;
		c->hand = t->next;
		if (t == not_this || t->pins || t->dirty)
			continue;
		if (t->used)
			t->used = false;
		else
			unlink_table(c, t);
	}
}

/* Takes entries over, also when it fails. */
static struct table *insert(struct extent *e, uint32_t index, uint32_t *entries)
{
	struct chain *c = e->image->chain;
	struct table *t = calloc(1, sizeof(*t));

	if (!t) {
		free(entries);
		return NULL;
	}
	t->extent = e;
	t->index = index;
	t->entries = entries;
	t->used = true;
	if (c->hand) {
		t->next = c->hand;
		t->prev = c->hand->prev;
		t->prev->next = t->next->prev = t;
	} else {
		t->next = t->prev = t;
		c->hand = t;
	}
	e->tables[index] = t;
	c->cached_bytes += cost(t);
	c->cached++;
	evict(c, t);
	return t;
}

static bool all_zero(const uint32_t *entries, uint32_t n)
{
	uint32_t any = 0;

	for (uint32_t i = 0; i < n; i++)
		any |= entries[i];
	return !any;
}

/* Does byte `at` lie in the file? What is not ours to write to may have grown: a merge below. */
static bool in_file(struct extent *e, uint64_t at)
{
	uint64_t size;

	if (at >= e->file_bytes && e->image->depth && !file_size(e->file, &size) &&
	    size > e->file_bytes)
		e->file_bytes = size;
	return at < e->file_bytes;
}

/* Nobody writes there by way of a grain, where that would change tables; to read it harms nobody. */
static bool in_header(const struct extent *e, uint64_t at)
{
	return !e->image->read_only && !e->layout.cowd && at < e->layout.overhead_bytes;
}

int vmdk_table_load(struct extent *e, uint32_t index)
{
	pthread_mutex_t *lock = &e->image->chain->lock;
	uint64_t at = (uint64_t)e->gd[index] * SECTOR;
	uint32_t bytes = table_bytes(&e->layout), *entries;
	int rc;

	if (!at || !in_file(e, at + bytes - 1)) {
		log_error(
			"disk %s: grain table %u would lie outside of the file; `hanok disk check` "
			"tells more",
			file_path(e->file), index);
		return -EIO;
	}
	pthread_mutex_unlock(lock);
	entries = malloc(bytes);
	rc = entries ? file_pread(e->file, entries, bytes, at) : -ENOMEM;
	if (!rc && all_zero(entries, table_entries(&e->layout))) {
		free(entries);
		entries = NULL;
	}
	pthread_mutex_lock(lock);
	/* Somebody else may have been faster, and changed it since. */
	if (rc || e->tables[index]) {
		free(entries);
		return rc;
	}
	return insert(e, index, entries) ? 0 : -ENOMEM;
}

struct table *vmdk_table_add(struct extent *e, uint32_t index)
{
	struct table *t = insert(e, index, NULL);

	if (t) {
		e->gd_dirty[index / (SECTOR / 4)] = 1;
		e->any_gd_dirty = true;
	}
	return t;
}

int vmdk_table_make_entries(struct table *t)
{
	struct chain *c = t->extent->image->chain;

	if (t->entries)
		return 0;
	t->entries = calloc(1, table_bytes(&t->extent->layout));
	if (!t->entries)
		return -ENOMEM;
	c->cached_bytes += table_bytes(&t->extent->layout);
	evict(c, t);
	return 0;
}

void vmdk_table_dirty(struct table *t, uint32_t entry)
{
	if (!t->dirty)
		t->extent->image->chain->dirty_tables++;
	t->dirty |= UINT32_C(1) << entry / (SECTOR / 4);
}

void vmdk_tables_free(struct chain *c)
{
	while (c->hand)
		unlink_table(c, c->hand);
}

/* ---- runs ---- */

struct extent *vmdk_extent_at(struct vmdk *v, uint64_t offset)
{
	unsigned low = 0, high = v->extent_count;

	while (high - low > 1) {
		unsigned mid = (low + high) / 2;
		if (v->extents[mid].start <= offset)
			low = mid;
		else
			high = mid;
	}
	return &v->extents[low];
}

static enum run_kind kind_of(const struct extent *e, uint32_t entry)
{
	if (!entry)
		return RUN_UNALLOCATED;
	if (entry == GTE_ZEROED && e->layout.zeroed_gtes)
		return RUN_ZERO;
	return e->layout.compressed ? RUN_COMPRESSED : RUN_DATA;
}

static int bad_grain(const struct extent *e, uint64_t grain)
{
	log_error(
		"disk %s: grain %llu would lie outside of the file, or in its header; `hanok disk "
		"check` tells more",
		file_path(e->file), (unsigned long long)grain);
	return -EIO;
}

/* Adds grain number `grain` to the run, or sees that it does not belong to it (false). */
static bool extend(struct run *r, enum run_kind kind, uint64_t at, uint64_t grain)
{
	if (!r->bytes) {
		r->kind = kind;
		r->file_offset = at;
		r->grain = grain;
		return true;
	}
	if (kind != r->kind || kind == RUN_COMPRESSED)
		return false;
	return kind != RUN_DATA || at == r->file_offset + r->bytes;
}

/* offset is in the extent. */
static int sparse_run(struct extent *e, uint64_t offset, uint64_t bytes, struct run *r)
{
	const struct sparse_layout *l = &e->layout;
	unsigned span_shift = l->grain_shift + l->table_shift;
	uint64_t at, step;

	while (bytes) {
		uint64_t in_grain = offset & (l->grain_bytes - 1);
		uint64_t grain = offset >> l->grain_shift;
		uint32_t index = (uint32_t)(offset >> span_shift), entry = 0;
		struct table *t = NULL;

		step = l->grain_bytes - in_grain;
		if (e->gd[index] || e->tables[index]) {
			t = e->tables[index];
			if (!t) {
				r->table = index;
				return r->bytes ? 0 : VMDK_NEED_TABLE;
			}
			t->used = true;
		}
		if (t && t->entries)
			entry = t->entries[grain & (table_entries(l) - 1)];
		else
			step = (UINT64_C(1) << span_shift) -
			       (offset & ((UINT64_C(1) << span_shift) - 1));
		enum run_kind kind = kind_of(e, entry);
		at = (uint64_t)entry * SECTOR;
		if (kind >= RUN_DATA && (!in_file(e, at) || in_header(e, at)))
			return r->bytes ? 0 : bad_grain(e, grain);
		if (kind == RUN_DATA)
			at += in_grain;
		if (!extend(r, kind, at, grain))
			return 0;
		if (step > bytes)
			step = bytes;
		r->bytes += step;
		offset += step;
		bytes -= step;
	}
	return 0;
}

static int image_run(struct vmdk *v, uint64_t offset, uint64_t bytes, struct run *r)
{
	struct extent *e = vmdk_extent_at(v, offset);

	offset -= e->start;
	if (bytes > e->bytes - offset)
		bytes = e->bytes - offset;
	*r = (struct run){.image = v, .extent = e};
	if (e->access == ACCESS_NOACCESS)
		return -EIO;
	switch (e->kind) {
	case EXTENT_FLAT:
		r->kind = RUN_DATA;
		r->file_offset = e->flat_offset + offset;
		r->bytes = bytes;
		return 0;
	case EXTENT_ZERO:
		r->kind = RUN_ZERO;
		r->bytes = bytes;
		return 0;
	case EXTENT_SPARSE:
		break;
	}
	return sparse_run(e, offset, bytes, r);
}

int vmdk_run(struct vmdk *v, bool through, uint64_t offset, uint64_t bytes, struct run *r)
{
	for (;;) {
		int rc = image_run(v, offset, bytes, r);
		/* The last grain of a sparse file, where the disk ends. Any other has to be whole. */
		r->cut_short = !rc && r->kind == RUN_DATA && r->extent->kind == EXTENT_SPARSE &&
			       r->file_offset + r->bytes > r->extent->file_bytes;
		if (rc || !through || r->kind != RUN_UNALLOCATED || !v->parent)
			return rc;
		v = v->parent;
		bytes = r->bytes;
	}
}

int vmdk_run_loading(struct vmdk *v, bool through, uint64_t offset, uint64_t bytes, struct run *r)
{
	int rc;

	while ((rc = vmdk_run(v, through, offset, bytes, r)) == VMDK_NEED_TABLE) {
		rc = vmdk_table_load(r->extent, r->table);
		if (rc)
			return rc;
	}
	return rc;
}
