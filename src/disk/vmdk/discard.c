/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discards and zeroes. Whole grains lose their table entry and are given up (free.c); an image that
 * lies on a parent notes them as zeroed, if its format can. What is left over at the ends, or cannot be
 * noted, is overwritten with zeroes, or, if it was only a discard, left alone.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/vmdk/vmdk.h"

enum { PIECE_BYTES = 64 << 10 };

/* Does it read as zeroes already? */
static int reads_zero(struct vmdk *v, uint64_t offset, uint64_t bytes, bool *zero)
{
	struct run run;
	int rc = 0;

	*zero = true;
	pthread_mutex_lock(&v->chain->lock);
	while (bytes && *zero && !rc) {
		rc = vmdk_run_loading(v, true, offset, bytes, &run);
		if (rc)
			break;
		*zero = run.kind == RUN_ZERO || run.kind == RUN_UNALLOCATED;
		offset += run.bytes;
		bytes -= run.bytes;
	}
	pthread_mutex_unlock(&v->chain->lock);
	return rc;
}

static int write_zeroes(struct vmdk *v, uint64_t offset, uint64_t bytes)
{
	static char zeroes[PIECE_BYTES];
	bool zero = true;
	int rc = bytes ? reads_zero(v, offset, bytes, &zero) : 0;

	while (bytes && !zero && !rc) {
		struct iovec iov = {zeroes, bytes < sizeof(zeroes) ? bytes : sizeof(zeroes)};
		struct iov_cursor from = iov_cursor(&iov, 1);
		rc = vmdk_write(v, offset, iov.iov_len, &from);
		offset += iov.iov_len;
		bytes -= iov.iov_len;
	}
	return rc;
}

static int flat(struct extent *e, uint64_t offset, uint64_t bytes, bool zero)
{
	int rc;

	if (zero)
		rc = file_zero(e->file, e->flat_offset + offset, bytes, FILE_MAY_UNMAP);
	else
		rc = file_discard(e->file, e->flat_offset + offset, bytes);
	atomic_store(&e->unsynced, true);
	return !zero && rc == -EOPNOTSUPP ? 0 : rc;
}

/* What becomes of one grain: an entry, or KEEP; LEFT: zeroes have to be written. */
enum { KEEP = -1, LEFT = -2 };

static int64_t verdict(const struct extent *e, uint32_t entry, bool zero)
{
	const struct vmdk *v = e->image;
	bool zeroed = entry == GTE_ZEROED && e->layout.zeroed_gtes;

	if (zeroed || (!entry && (!v->parent || !zero)))
		return KEEP;
	if (!v->parent)
		return 0;
	if (e->layout.zeroed_gtes)
		return GTE_ZEROED;
	return zero ? LEFT : KEEP;
}

/* Grains of one table, from first on; stops behind one that is LEFT. How many were looked at. With
 * the lock held. */
static int grains_in_table(struct extent *e, uint64_t first, uint64_t count, bool zero,
			   uint64_t *looked, bool *left)
{
	const struct sparse_layout *l = &e->layout;
	struct table *t = e->tables[first >> l->table_shift];
	int rc;

	for (*looked = 0; *looked < count && !*left; ++*looked) {
		uint32_t entry = (uint32_t)(first + *looked) & (table_entries(l) - 1);
		uint32_t old = t->entries ? t->entries[entry] : 0;
		int64_t now = verdict(e, old, zero);
		*left = now == LEFT;
		if (now < 0)
			continue;
		rc = vmdk_table_make_entries(t);
		if (!rc && old > GTE_ZEROED)
			rc = vmdk_free_add(&e->freed, (uint64_t)old * SECTOR, l->grain_bytes,
					   false);
		if (rc)
			return rc;
		t->entries[entry] = (uint32_t)now;
		vmdk_table_dirty(t, entry);
		e->image->chain->any_freed |= old > GTE_ZEROED;
	}
	return 0;
}

/* The table of this grain, in memory; no entry of these grains in the making. 1: there is no table,
 * and none is needed. With the lock held. */
static int ready_table(struct extent *e, uint64_t first, uint64_t count, bool zero)
{
	const struct sparse_layout *l = &e->layout;
	uint32_t index = (uint32_t)(first >> l->table_shift);
	int rc;

	for (;;) {
		vmdk_wait_busy(e, first, count);
		if (e->tables[index])
			return 0;
		if (!e->gd[index])
			return !e->image->parent || !zero ? 1 : -ENOENT;
		rc = vmdk_table_load(e, index);
		if (rc)
			return rc;
	}
}

/* Whole grains. */
static int grains(struct extent *e, uint64_t first, uint64_t count, bool zero)
{
	const struct sparse_layout *l = &e->layout;
	struct vmdk *v = e->image;
	int rc = 0;

	while (count && !rc) {
		uint64_t n = table_entries(l) - (first & (table_entries(l) - 1)), looked;
		bool left = false;

		if (n > count)
			n = count;
		rc = vmdk_commit_if_needed(v->chain);
		if (rc)
			return rc;
		looked = n;
		pthread_mutex_lock(&v->chain->lock);
		rc = ready_table(e, first, n, zero);
		if (!rc)
			rc = grains_in_table(e, first, n, zero, &looked, &left);
		pthread_mutex_unlock(&v->chain->lock);
		if (rc == -ENOENT) { /* no table for the zeroes: they are written */
			rc = 0;
			looked = 1;
			left = true;
		}
		if (rc == 1)
			rc = 0;
		first += looked;
		count -= looked;
		if (!rc && left) {
			uint64_t at = (first - 1) << l->grain_shift, bytes = e->bytes - at;
			rc = write_zeroes(v, e->start + at,
					  bytes < l->grain_bytes ? bytes : l->grain_bytes);
		}
	}
	return rc;
}

static int sparse(struct extent *e, uint64_t offset, uint64_t bytes, bool zero)
{
	uint64_t g = e->layout.grain_bytes, end = offset + bytes;
	uint64_t first = round_up(offset, g),
		 last = end == e->bytes ? round_up(end, g) : end / g * g;
	int rc = 0;

	if (first >= last)
		return zero ? write_zeroes(e->image, e->start + offset, bytes) : 0;
	if (zero)
		rc = write_zeroes(e->image, e->start + offset, first - offset);
	if (!rc && zero && end > last)
		rc = write_zeroes(e->image, e->start + last, end - last);
	if (!rc)
		rc = grains(e, first / g, (last - first) / g, zero);
	return rc;
}

int vmdk_discard(struct vmdk *v, uint64_t offset, uint64_t bytes, bool zero)
{
	int rc = vmdk_touch(v->chain);

	while (bytes && !rc) {
		struct extent *e = vmdk_extent_at(v, offset);
		uint64_t n = e->start + e->bytes - offset;

		if (n > bytes)
			n = bytes;
		if (e->kind == EXTENT_ZERO)
			rc = 0;
		else if (e->access != ACCESS_RW)
			rc = -EROFS;
		else if (e->kind == EXTENT_FLAT)
			rc = flat(e, offset - e->start, n, zero);
		else
			rc = sparse(e, offset - e->start, n, zero);
		offset += n;
		bytes -= n;
	}
	return rc;
}
