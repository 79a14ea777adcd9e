/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes. To grains that are there: in place. To others: space is reserved, the grain's data goes
 * there (with what the parent has around it), and only then its table entry is set, in memory; the
 * commit makes it durable.
 *
 * Grains that are being made are in the chain's list of busy ones: a second write to one of them
 * waits till the first is through and finds it allocated. Reads do not wait: they still see what was
 * there before, as requests in flight together have no order.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/vmdk/create.h"
#include "disk/vmdk/vmdk.h"

/* ---- busy grains ---- */

static const struct busy *find_busy(const struct extent *e, uint64_t first, uint64_t count)
{
	for (const struct busy *b = e->image->chain->busy; b; b = b->next)
		if (b->extent == e && first < b->first + b->count && b->first < first + count)
			return b;
	return NULL;
}

void vmdk_wait_busy(struct extent *e, uint64_t first, uint64_t count)
{
	struct chain *c = e->image->chain;

	while (find_busy(e, first, count))
		pthread_cond_wait(&c->changed, &c->lock);
}

static void end_busy(struct chain *c, struct busy *b)
{
	struct busy **at = &c->busy;

	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	pthread_cond_broadcast(&c->changed);
}

/* ---- space ---- */

/* Makes room for `bytes` at the file's end. New space is a hole. */
static int append(struct extent *e, uint64_t bytes, uint64_t *at)
{
	uint64_t end = round_up(e->alloc_end + bytes, e->layout.grain_bytes);
	int rc;

	if (end / SECTOR > UINT32_MAX)
		return -ENOSPC; /* entries have 32 bits */
	if (end > e->file_bytes) {
		rc = file_truncate(e->file, end);
		if (rc)
			return rc;
		e->file_bytes = end;
	}
	*at = e->alloc_end;
	e->alloc_end = end;
	return 0;
}

/* Gives back what append or the free list gave, with something written to it perhaps. */
static void unreserve(struct extent *e, const struct free_run *space)
{
	if (space->offset + space->bytes == e->alloc_end && !file_truncate(e->file, space->offset))
		e->alloc_end = e->file_bytes = space->offset;
	else
		(void)vmdk_free_add(&e->free, space->offset, space->bytes, false);
}

/* A place in the file for a table that has none, and for its copy. */
static int new_table(struct extent *e, uint32_t index)
{
	uint64_t bytes = table_bytes(&e->layout), at;
	bool copy = e->rgd && !e->rgd[index];
	int rc = append(e, copy ? 2 * bytes : bytes, &at);

	if (rc)
		return rc;
	if (!vmdk_table_add(e, index))
		return -ENOMEM;
	if (copy) {
		e->rgd[index] = (uint32_t)(at / SECTOR);
		at += bytes;
	}
	e->gd[index] = (uint32_t)(at / SECTOR);
	return 0;
}

/* ---- allocation ---- */

struct alloc {
	struct busy busy;
	struct table *table;
	struct free_run space;
	uint64_t offset, bytes; /* of the data, in the extent */
	bool copy;		/* the parent's content around it */
};

/* How many grains from the one at a->offset on: those that bytes reach, in one table, idle. */
static void clip(struct extent *e, struct alloc *a)
{
	const struct sparse_layout *l = &e->layout;
	uint64_t first = a->offset >> l->grain_shift, most = ALLOC_MAX_BYTES >> l->grain_shift;
	uint64_t in_table = table_entries(l) - (first & (table_entries(l) - 1));
	uint64_t count = ((a->offset + a->bytes - 1) >> l->grain_shift) - first + 1;

	if (!most)
		most = 1;
	if (count > most)
		count = most;
	if (count > in_table)
		count = in_table;
	while (count > 1 && find_busy(e, first, count))
		count--;
	a->busy = (struct busy){.extent = e, .first = first, .count = count};
}

/* With the lock held. */
static int alloc_begin(struct extent *e, const struct run *run, uint64_t offset, uint64_t bytes,
		       struct alloc *a)
{
	const struct sparse_layout *l = &e->layout;
	struct chain *c = e->image->chain;
	uint64_t end;
	uint32_t index;
	int rc = 0;

	*a = (struct alloc){.offset = offset,
			    .bytes = bytes < run->bytes ? bytes : run->bytes,
			    .copy = run->kind == RUN_UNALLOCATED && e->image->parent};
	clip(e, a);
	index = (uint32_t)(a->busy.first >> l->table_shift);
	if (!e->tables[index])
		rc = new_table(e, index);
	a->table = e->tables[index];
	if (!rc)
		rc = vmdk_table_make_entries(a->table);
	if (rc)
		return rc;
	bytes = a->busy.count << l->grain_shift;
	if (!vmdk_free_take(&e->free, bytes, &a->space)) {
		a->space = (struct free_run){.bytes = bytes, .zeroed = true};
		rc = append(e, bytes, &a->space.offset);
		if (rc)
			return rc;
	}
	a->busy.count = a->space.bytes >> l->grain_shift;
	end = (a->busy.first + a->busy.count) << l->grain_shift;
	if (a->offset + a->bytes > end)
		a->bytes = end - a->offset;
	a->table->pins++;
	a->busy.next = c->busy;
	c->busy = &a->busy;
	return 0;
}

static void alloc_end(struct extent *e, struct alloc *a, int rc)
{
	struct chain *c = e->image->chain;
	uint32_t mask = table_entries(&e->layout) - 1;
	uint64_t sector = a->space.offset / SECTOR;

	pthread_mutex_lock(&c->lock);
	for (uint64_t i = 0; !rc && i < a->busy.count; i++) {
		uint32_t entry = (uint32_t)(a->busy.first + i) & mask;
		a->table->entries[entry] = (uint32_t)sector;
		vmdk_table_dirty(a->table, entry);
		sector += e->layout.grain_bytes / SECTOR;
	}
	if (rc)
		unreserve(e, &a->space);
	a->table->pins--;
	end_busy(c, &a->busy);
	pthread_mutex_unlock(&c->lock);
}

static bool is_zero(const char *p, uint64_t bytes)
{
	return !bytes || (!p[0] && !memcmp(p, p + 1, bytes - 1));
}

/* What the parent has at offset of the extent, or zeroes. */
static int fill(struct extent *e, const struct alloc *a, uint64_t offset, char *buf, uint64_t bytes)
{
	struct iovec iov = {buf, bytes};
	struct iov_cursor to = iov_cursor(&iov, 1);

	if (!bytes)
		return 0;
	if (a->copy)
		return vmdk_read(e->image->parent, e->start + offset, bytes, &to);
	memset(buf, 0, bytes);
	return 0;
}

/* Data, and what is needed around it, to its new place. */
static int alloc_write(struct extent *e, const struct alloc *a, struct iov_cursor *from)
{
	const struct sparse_layout *l = &e->layout;
	uint64_t start = a->busy.first << l->grain_shift;
	uint64_t end = (a->busy.first + a->busy.count) << l->grain_shift;
	uint64_t head = 0, tail = 0, skip = 0, at;
	struct iovec whole;
	char *buf;
	int rc;

	if (end > e->bytes)
		end = e->bytes; /* the disk may end within its last grain */
	if (a->copy || !a->space.zeroed) {
		head = a->offset - start;
		tail = end - a->offset - a->bytes;
	}
	at = a->space.offset + (a->offset - start) - head;
	if (!head && !tail) {
		whole = iov_whole(from, a->bytes);
		if (whole.iov_base)
			return file_pwrite(e->file, whole.iov_base, a->bytes, at);
	}
	buf = aligned_alloc(4096, round_up(head + a->bytes + tail, 4096));
	if (!buf)
		return -ENOMEM;
	rc = fill(e, a, a->offset - head, buf, head);
	if (!rc)
		rc = fill(e, a, a->offset + a->bytes, buf + head + a->bytes, tail);
	iov_copy(from, IOV_FROM, buf + head, a->bytes);
	/* Zeroes need no space where there are zeroes already. */
	if (!rc && a->space.zeroed && is_zero(buf, head))
		skip = head;
	if (!rc && a->space.zeroed && is_zero(buf + head + a->bytes, tail))
		tail = 0;
	if (!rc)
		rc = file_pwrite(e->file, buf + skip, head - skip + a->bytes + tail, at + skip);
	free(buf);
	return rc;
}

/* ---- in place ---- */

static int write_in_place(const struct run *run, struct iov_cursor *from)
{
	uint64_t at = run->file_offset, left = run->bytes;
	struct iovec whole = iov_whole(from, left);
	char *bounce;
	int rc = 0;

	if (whole.iov_base)
		return file_pwrite(run->extent->file, whole.iov_base, left, at);
	bounce = aligned_alloc(4096, ALLOC_MAX_BYTES);
	if (!bounce)
		return -ENOMEM;
	while (left && !rc) {
		uint64_t n = left < ALLOC_MAX_BYTES ? left : ALLOC_MAX_BYTES;
		iov_copy(from, IOV_FROM, bounce, n);
		rc = file_pwrite(run->extent->file, bounce, n, at);
		at += n;
		left -= n;
	}
	free(bounce);
	return rc;
}

/* ---- the whole ---- */

/* Finds out what is at offset when no other write is just making it. With the lock held. */
static int settle(struct vmdk *v, struct extent *e, uint64_t offset, uint64_t bytes,
		  struct run *run)
{
	uint64_t grain = e->kind == EXTENT_SPARSE ? (offset - e->start) >> e->layout.grain_shift
						  : 0;
	int rc;

	if (e->access != ACCESS_RW || e->kind == EXTENT_ZERO)
		return -EROFS;
	do {
		vmdk_wait_busy(e, grain, 1);
		rc = vmdk_run_loading(v, false, offset, bytes, run);
	} while (!rc && find_busy(e, grain, 1));
	return rc;
}

/* Writes the beginning of it; how much, in done. */
static int write_some(struct vmdk *v, uint64_t offset, uint64_t bytes, struct iov_cursor *from,
		      uint64_t *done)
{
	struct chain *c = v->chain;
	struct extent *e = vmdk_extent_at(v, offset);
	struct alloc a;
	struct run run;
	unsigned epoch = 0;
	int rc;

	pthread_mutex_lock(&c->lock);
	rc = settle(v, e, offset, bytes, &run);
	if (!rc && run.kind == RUN_DATA)
		epoch = vmdk_io_begin(c);
	else if (!rc)
		rc = alloc_begin(e, &run, offset - e->start, bytes, &a);
	pthread_mutex_unlock(&c->lock);
	if (rc)
		return rc;
	if (run.kind == RUN_DATA) {
		rc = write_in_place(&run, from);
		vmdk_io_end(c, epoch);
		*done = run.bytes;
	} else {
		rc = alloc_write(e, &a, from);
		*done = a.bytes;
	}
	/* Before the entry is set: a commit that sees it must see this too. */
	atomic_store(&e->unsynced, true);
	if (run.kind != RUN_DATA)
		alloc_end(e, &a, rc);
	return rc;
}

int vmdk_write(struct vmdk *v, uint64_t offset, uint64_t bytes, struct iov_cursor *from)
{
	int rc = vmdk_touch(v->chain);

	while (!rc && bytes) {
		uint64_t done = 0;
		rc = vmdk_commit_if_needed(v->chain);
		if (!rc)
			rc = write_some(v, offset, bytes, from, &done);
		offset += done;
		bytes -= done;
	}
	return rc;
}

/* ---- the first write ---- */

static int write_cid(struct vmdk *v)
{
	struct descriptor *d = &v->descriptor;
	uint32_t cid;
	char digits[9];
	size_t at = descriptor_cid_at(d);
	int rc;

	do {
		cid = vmdk_new_cid();
	} while (cid == d->cid);
	snprintf(digits, sizeof(digits), "%08x", cid);
	rc = descriptor_set(d, "CID", digits);
	if (!rc)
		rc = at ? file_pwrite(v->file, digits, 8, v->descriptor_offset + at)
			: vmdk_store_descriptor(v);
	if (!rc)
		d->cid = cid;
	return rc;
}

static int mark(struct extent *e)
{
	static const uint8_t one = 1;

	if (e->kind != EXTENT_SPARSE || e->layout.cowd || e->access != ACCESS_RW)
		return 0;
	return file_pwrite(e->file, &one, 1, offsetof(struct sparse_header, unclean_shutdown));
}

/*
 * Children know their parent by its content id, so a parent that is written to must have another one:
 * durably, before anything of the write can be. The mark needs no sync of its own: the first commit
 * syncs the file before it writes a table.
 */
int vmdk_touch(struct chain *c)
{
	int rc = 0;

	if (atomic_load_explicit(&c->touched, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&c->touch_lock);
	if (!atomic_load(&c->touched)) {
		rc = c->keep_cid ? 0 : write_cid(c->top);
		for (unsigned i = 0; !rc && i < c->top->extent_count; i++)
			rc = mark(&c->top->extents[i]);
		if (!rc && !c->keep_cid)
			rc = file_sync(c->top->file);
		if (!rc)
			atomic_store_explicit(&c->touched, true, memory_order_release);
	}
	pthread_mutex_unlock(&c->touch_lock);
	return rc;
}
