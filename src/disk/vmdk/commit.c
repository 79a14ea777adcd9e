/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of writes.
 *
 * A write to a new grain puts its data into space that no durable table points to, and notes the
 * grain in a table in memory. A commit (a flush, or too many changed tables) makes both durable:
 *
 *   1. the changed sectors of tables and directories are copied, at one moment
 *   2. fdatasync: data of all grains in those copies, and the file's new length
 *   3. the copies are written, redundant tables first, then primary ones
 *   4. fdatasync
 *   5. only now grains that lost their entry may be used again (free.c)
 *
 * So whatever moment the power fails at:
 * - a durable entry points to a grain whose data is durable: entries are written after 2;
 * - each sector of a table is old or new, and both are right: entries in it are independent;
 * - a grain has one user: it is given to another only after its old entry is durably gone;
 * - a table that a directory entry points to is there: tables are made in space beyond the old end
 *   of the file, which 2 makes durable as a hole, so that a directory written before its table
 *   points to zeroes, which is what the table was;
 * - what can be lost is space: grains that no durable entry points to, which `hanok disk check` counts
 *   and gives back. The two copies of a table may differ in entries that were not yet flushed; the
 *   primary one counts.
 *
 * Without a power failure (kill -9) the same holds, as the host keeps what was written in order.
 *
 * Flushes that come while a commit runs share the next one.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/vmdk/vmdk.h"

/* Sectors to write, to one or two places. */
struct piece {
	struct extent *extent;
	struct table *table;  /* pinned; NULL: of the directory */
	uint64_t at, copy_at; /* in the file; copy_at 0: no redundant one */
	uint32_t first;	      /* sector of the table or directory */
	uint32_t bytes;
	char *data;
};

struct batch {
	struct piece *pieces;
	unsigned count, room;
	char *data; /* of all pieces */
	uint64_t bytes, used;
	struct free_list *freed; /* for each extent of the top image */
};

/* ---- 1: copies; with the lock held ---- */

static int add_piece(struct batch *b, const struct piece *p, const void *from)
{
	if (b->count == b->room) {
		unsigned room = b->room ? b->room * 2 : 64;
		void *more = realloc(b->pieces, room * sizeof(*b->pieces));
		if (!more)
			return -ENOMEM;
		b->pieces = more;
		b->room = room;
	}
	struct piece *n = &b->pieces[b->count++];
	*n = *p;
	n->data = malloc(p->bytes);
	if (!n->data) {
		b->count--;
		return -ENOMEM;
	}
	memcpy(n->data, from, p->bytes);
	return 0;
}

/* Where a table's or directory's sectors [first, first + n) are. */
static struct piece piece_of(struct extent *e, struct table *t, uint32_t first, uint32_t n)
{
	uint64_t at = t ? (uint64_t)e->gd[t->index] * SECTOR : e->layout.gd_offset;
	uint64_t copy = t && e->rgd ? (uint64_t)e->rgd[t->index] * SECTOR
			: !t	    ? e->layout.rgd_offset
				    : 0;

	return (struct piece){.extent = e,
			      .table = t,
			      .at = at + (uint64_t)first * SECTOR,
			      .copy_at = copy ? copy + (uint64_t)first * SECTOR : 0,
			      .first = first,
			      .bytes = n * SECTOR};
}

/* The changed sectors of a table, runs of them as one piece. */
static int copy_table(struct batch *b, struct table *t)
{
	uint32_t sectors = table_bytes(&t->extent->layout) / SECTOR, first = 0;

	while (first < sectors) {
		uint32_t n = 0;
		int rc;

		if (!(t->dirty >> first & 1)) {
			first++;
			continue;
		}
		while (first + n < sectors && t->dirty >> (first + n) & 1)
			n++;
		struct piece p = piece_of(t->extent, t, first, n);
		rc = add_piece(b, &p, (char *)t->entries + (uint64_t)first * SECTOR);
		if (rc)
			return rc;
		t->pins++; /* one for each piece */
		while (n--)
			t->dirty &= ~(UINT32_C(1) << first++);
	}
	t->extent->image->chain->dirty_tables--;
	return 0;
}

static int copy_tables(struct chain *c, struct batch *b)
{
	struct table *t = c->hand;
	int rc = 0;

	for (unsigned i = 0; i < c->cached && !rc; i++, t = t->next)
		if (t->dirty)
			rc = copy_table(b, t);
	return rc;
}

static int copy_directories(struct chain *c, struct batch *b)
{
	for (unsigned i = 0; i < c->top->extent_count; i++) {
		struct extent *e = &c->top->extents[i];
		if (!e->any_gd_dirty)
			continue;
		for (uint32_t s = 0; s < gd_sectors(e->layout.gd_entries); s++) {
			if (!e->gd_dirty[s])
				continue;
			struct piece p = piece_of(e, NULL, s, 1);
			int rc = add_piece(b, &p, (char *)e->gd + (uint64_t)s * SECTOR);
			if (!rc && p.copy_at) {
				/* The redundant directory has other tables. */
				b->pieces[b->count - 1].copy_at = 0;
				p.at = p.copy_at;
				p.copy_at = 0;
				rc = add_piece(b, &p, (char *)e->rgd + (uint64_t)s * SECTOR);
			}
			if (rc)
				return rc;
			e->gd_dirty[s] = 0;
		}
		e->any_gd_dirty = false;
	}
	return 0;
}

static int take_freed(struct chain *c, struct batch *b)
{
	if (!c->any_freed)
		return 0;
	b->freed = calloc(c->top->extent_count, sizeof(*b->freed));
	if (!b->freed)
		return -ENOMEM;
	for (unsigned i = 0; i < c->top->extent_count; i++) {
		b->freed[i] = c->top->extents[i].freed;
		c->top->extents[i].freed = (struct free_list){0};
	}
	return 0;
}

/* ---- 2 to 4; without the lock ---- */

static int sync_extents(struct chain *c, bool *lost)
{
	for (unsigned i = 0; i < c->top->extent_count; i++) {
		struct extent *e = &c->top->extents[i];
		if (!e->file || !atomic_exchange(&e->unsynced, false))
			continue;
		int rc = file_sync(e->file);
		if (rc) {
			*lost = true;
			return rc;
		}
	}
	return 0;
}

static int write_pieces(struct batch *b)
{
	int rc = 0;

	for (unsigned i = 0; i < b->count && !rc; i++) {
		struct piece *p = &b->pieces[i];
		atomic_store(&p->extent->unsynced, true);
		if (p->copy_at)
			rc = file_pwrite(p->extent->file, p->data, p->bytes, p->copy_at);
	}
	for (unsigned i = 0; i < b->count && !rc; i++)
		rc = file_pwrite(b->pieces[i].extent->file, b->pieces[i].data, b->pieces[i].bytes,
				 b->pieces[i].at);
	return rc;
}

/* COWD headers say where the next grain goes. */
static int write_free_sectors(struct chain *c)
{
	for (unsigned i = 0; i < c->top->extent_count; i++) {
		struct extent *e = &c->top->extents[i];
		uint32_t sector;
		int rc;

		if (e->kind != EXTENT_SPARSE || !e->layout.cowd || e->access != ACCESS_RW)
			continue;
		pthread_mutex_lock(&c->lock);
		sector = (uint32_t)(e->alloc_end / SECTOR);
		pthread_mutex_unlock(&c->lock);
		rc = file_pwrite(e->file, &sector, sizeof(sector),
				 offsetof(struct cowd_header, free_sector));
		if (rc)
			return rc;
	}
	return 0;
}

static int write_batch(struct chain *c, struct batch *b, bool *lost)
{
	int rc = sync_extents(c, lost);

	if (rc || !b->count)
		return rc;
	rc = write_free_sectors(c);
	if (!rc)
		rc = write_pieces(b);
	if (!rc)
		rc = sync_extents(c, lost);
	return rc;
}

/* ---- afterwards; with the lock held ---- */

static void mark_again(struct piece *p)
{
	struct extent *e = p->extent;

	for (uint32_t i = 0; i < p->bytes / SECTOR; i++) {
		if (p->table) {
			vmdk_table_dirty(p->table, (p->first + i) * (SECTOR / 4));
		} else {
			e->gd_dirty[p->first + i] = 1;
			e->any_gd_dirty = true;
		}
	}
}

static void end_batch(struct chain *c, struct batch *b, int rc)
{
	for (unsigned i = 0; i < b->count; i++) {
		if (rc)
			mark_again(&b->pieces[i]);
		if (b->pieces[i].table)
			b->pieces[i].table->pins--;
		free(b->pieces[i].data);
	}
	for (unsigned i = 0; b->freed && i < c->top->extent_count; i++) {
		struct extent *e = &c->top->extents[i];
		struct free_list *to = rc ? &e->freed : &e->retired[c->epoch & 1];
		struct free_run r;

		/* What there is no memory for leaks, till the next check. */
		while (vmdk_free_take(&b->freed[i], UINT64_MAX, &r))
			(void)vmdk_free_add(to, r.offset, r.bytes, false);
		c->any_freed = true;
		vmdk_free_list_clear(&b->freed[i]);
	}
	free(b->freed);
	free(b->pieces);
	if (!rc && c->any_freed)
		vmdk_reclaim(c);
}

/* With the lock held, given up meanwhile. */
static int commit(struct chain *c)
{
	struct batch b = {0};
	bool lost = false;
	int rc;

	if (c->lost)
		return c->lost;
	rc = copy_tables(c, &b);
	if (!rc)
		rc = copy_directories(c, &b);
	if (!rc)
		rc = take_freed(c, &b);
	pthread_mutex_unlock(&c->lock);
	if (!rc)
		rc = write_batch(c, &b, &lost);
	pthread_mutex_lock(&c->lock);
	end_batch(c, &b, rc);
	if (lost) {
		log_error(
			"disk %s: a sync failed (%s): what was written since the last flush may be "
			"lost, and the disk refuses further flushes",
			c->top->path, strerror(-rc));
		c->lost = rc;
	}
	return rc;
}

int vmdk_commit(struct chain *c)
{
	uint64_t need;
	int rc;

	if (c->image.read_only)
		return 0;
	pthread_mutex_lock(&c->lock);
	need = c->commit_begun + 1;
	while (c->commit_done < need) {
		if (c->committing) {
			pthread_cond_wait(&c->changed, &c->lock);
			continue;
		}
		c->committing = true;
		c->commit_begun++;
		c->commit_rc = commit(c);
		c->commit_done = c->commit_begun;
		c->committing = false;
		pthread_cond_broadcast(&c->changed);
	}
	/* If a later one has passed, it made up for an earlier one that failed. */
	rc = c->commit_rc;
	pthread_mutex_unlock(&c->lock);
	return rc;
}

bool vmdk_metadata_dirty(const struct chain *c)
{
	if (c->dirty_tables || c->any_freed)
		return true;
	for (unsigned i = 0; i < c->top->extent_count; i++)
		if (c->top->extents[i].any_gd_dirty)
			return true;
	return false;
}

int vmdk_commit_if_needed(struct chain *c)
{
	bool needed;

	pthread_mutex_lock(&c->lock);
	needed = c->dirty_tables > DIRTY_TABLES_MAX;
	pthread_mutex_unlock(&c->lock);
	return needed ? vmdk_commit(c) : 0;
}
