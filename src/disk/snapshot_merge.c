/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging the images that no snapshot needs any more. snapshot.c has the order in which files change.
 *
 * While the machine runs, its own chain has all of these images open. Merging two below the top changes
 * nothing that shows through it, so it goes on reading and writing meanwhile; it only gives up its locks
 * on them, and is opened anew, with its disk held, when the merge is over. The top itself is written to,
 * so that a delta is laid over it first, and it is merged as what lies below the top. Then that delta is
 * left, which the guest has written to meanwhile; and so on, until it is so small that it is merged
 * while the disk is held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/file.h"
#include "disk/image.h"
#include "disk/snapshot_internal.h"

enum {
	HELD_BYTES = 2 << 20, /* are merged while a disk is held */
	ROUNDS_MAX = 12,      /* of deltas for what is written meanwhile */
};

struct merging {
	struct snapshot_machine *m;
	struct vmsd *v;
	struct graph g;
	const struct snapshot_progress *progress;
	struct error *err;
	unsigned rounds;
};

int snapshot_on_loop(struct snapshot_machine *m, int (*fn)(void *opaque, struct error *err),
		     void *opaque, struct error *err)
{
	return m->on_loop ? m->on_loop(m, fn, opaque, err) : fn(opaque, err);
}

/* Whoever names one image now names the other; in the machine's own words. 1: something changed. */
static int rename_in(const char *folder, char **file, const char *from, const char *to)
{
	char *path = path_join(folder, *file), *real = path ? path_real(path) : NULL;
	int changed = real && !strcmp(real, from);
	char *name = NULL;

	free(path);
	free(real);
	if (!changed)
		return 0;
	/* Relative in the same folder, as it was; else the whole path. */
	name = path_same_folder(from, to) ? path_beside(*file, path_base(to)) : strdup(to);
	if (!name)
		return -ENOMEM;
	free(*file);
	*file = name;
	return 1;
}

/* .vmx and .vmsd, each if it names `from`. */
static int rename_everywhere(struct merging *g, const char *from, const char *to)
{
	struct snapshot_machine *m = g->m;
	bool vmx = false, vmsd = false;
	int rc = 0;

	for (unsigned i = 0; rc >= 0 && i < m->disks; i++) {
		rc = rename_in(m->folder, &m->disk[i].file, from, to);
		vmx |= rc > 0;
	}
	for (unsigned i = 0; i < g->v->count; i++)
		for (unsigned j = 0; rc >= 0 && j < g->v->snapshot[i].disks; j++) {
			rc = rename_in(m->folder, &g->v->snapshot[i].disk[j].file, from, to);
			vmsd |= rc > 0;
		}
	if (rc < 0)
		return no_memory(g->err);
	rc = vmx ? m->save(m, g->err) : 0;
	if (!rc && vmsd)
		rc = vmsd_save(g->v, m->vmsd_path, g->err);
	return rc;
}

/* Those that lay on image `from` are laid on `to`, whose content is the same. */
static int move_children(struct merging *g, int from, int to, bool open, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < g->g.count; i++) {
		/* Those that are open come when they are closed for a moment. */
		if (g->g.image[i].parent != from || (g->g.image[i].open >= 0) != open)
			continue;
		char *hint = path_hint(g->g.image[i].path, g->g.image[to].path);
		rc = hint ? disk_set_parent(g->g.image[i].path, g->g.image[to].path, hint, err)
			  : no_memory(err);
		free(hint);
	}
	return rc;
}

/* ---- what the machine has open ---- */

/* Locks on what lies below the tops, given up or taken again. */
static int lend(struct merging *g, bool lend, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; i < g->m->disks; i++)
		if (g->m->disk[i].open && (!rc || !lend)) {
			int bad = disk_lend_parents(g->m->disk[i].open, lend, err);
			rc = rc ? rc : bad;
		}
	return rc;
}

static bool runs(const struct snapshot_machine *m)
{
	for (unsigned i = 0; i < m->disks; i++)
		if (m->disk[i].open)
			return true;
	return false;
}

/* With the disk held and its image closed: opened again, or lost to the machine. */
static int attach(struct disk *d, const char *path, bool keep_cid, struct error *err)
{
	int rc = disk_attach(d, path, keep_cid, err);

	if (rc)
		log_error("%s: the disk is lost to the machine until that starts anew", path);
	return rc;
}

static int detach(struct disk *d, struct error *err)
{
	int rc = disk_write_back_held(d);

	if (!rc)
		rc = disk_detach(d);
	return rc ? error_set(err, rc, "%s: cannot be written back: %s", disk_path(d),
			      strerror(-rc))
		  : 0;
}

struct reopening {
	struct merging *g;
	int from, to; /* who lies on `from` is laid on `to`; -1: nobody */
};

static int reopen_disk(struct reopening *r, struct disk *d, struct error *err)
{
	char *path = strdup(disk_path(d));
	int rc = path ? detach(d, err) : no_memory(err), again;

	if (rc) {
		free(path);
		return rc;
	}
	if (r->from >= 0)
		for (unsigned i = 0; !rc && i < r->g->g.count; i++)
			if (r->g->g.image[i].open >= 0 &&
			    r->g->m->disk[r->g->g.image[i].open].open == d)
				rc = move_children(r->g, r->from, r->to, true, err);
	again = attach(d, path, true, rc ? NULL : err);
	free(path);
	return rc ? rc : again;
}

/* On the loop's thread. Each disk by itself. */
static int reopen_held(void *opaque, struct error *err)
{
	struct reopening *r = opaque;
	int rc = 0;

	for (unsigned i = 0; i < r->g->m->disks; i++) {
		struct disk *d = r->g->m->disk[i].open;
		if (!d || rc)
			continue;
		disk_hold(d);
		rc = reopen_disk(r, d, err);
		disk_release(d);
	}
	return rc;
}

/* The chains as they are now. Content ids settle first, as a sync takes its time. */
static int reopen(struct merging *g, int from, int to)
{
	struct reopening r = {.g = g, .from = from, .to = to};
	int rc = 0;

	for (unsigned i = 0; !rc && i < g->m->disks; i++)
		if (g->m->disk[i].open && (rc = disk_settle(g->m->disk[i].open)))
			error_set(g->err, rc, "%s: %s", g->m->disk[i].file, strerror(-rc));
	return rc ? rc : snapshot_on_loop(g->m, reopen_held, &r, g->err);
}

/* ---- one merge ---- */

static int merge_down(struct merging *g, int parent, int child)
{
	const char *below = g->g.image[parent].path, *path = g->g.image[child].path;
	int rc = snapshot_merge_down(path, g->progress, g->err);

	if (!rc)
		rc = move_children(g, child, parent, false, g->err);
	if (!rc && runs(g->m))
		rc = reopen(g, child, parent);
	if (!rc)
		rc = rename_everywhere(g, path, below);
	return rc ? rc : snapshot_remove_image(path, g->err);
}

static int merge_up(struct merging *g, int parent, int child)
{
	int rc = snapshot_merge_up(g->g.image[child].path, g->progress, g->err);

	if (!rc && runs(g->m))
		rc = reopen(g, -1, -1);
	return rc ? rc : snapshot_remove_image(g->g.image[parent].path, g->err);
}

static bool is_stream(const struct graph_image *i)
{
	return !strcasecmp(i->type, "streamOptimized");
}

/* The cheaper way. A base keeps its name, unless it can not be written to. */
static int merge_idle(struct merging *g, int parent, int child)
{
	const struct graph_image *p = &g->g.image[parent];
	struct error ignored;
	int rc = lend(g, true, g->err);

	if (!rc &&
	    (is_stream(p) || (p->is_delta && p->own_host_bytes < g->g.image[child].own_host_bytes)))
		rc = merge_up(g, parent, child);
	else if (!rc)
		rc = merge_down(g, parent, child);
	/* After a success they are locked already, and that changes nothing. */
	if (rc)
		(void)lend(g, false, &ignored);
	return rc;
}

struct last {
	struct merging *g;
	int parent, child;
};

/* On the loop's thread, with the disk held: into its parent, which is the machine's from then on. */
static int merge_held(struct last *l, struct disk *d, struct error *err)
{
	struct merging *g = l->g;
	const char *below = g->g.image[l->parent].path, *path = g->g.image[l->child].path;
	char *mine = strdup(disk_path(d)), *in_its_words = NULL;
	int rc = mine ? detach(d, err) : no_memory(err), again;

	if (rc) {
		free(mine);
		return rc;
	}
	rc = snapshot_merge_down(path, NULL, err);
	if (!rc)
		rc = rename_everywhere(g, path, below);
	/* Both read alike, so either will do; the .vmx has the word. */
	if (!rc)
		in_its_words = path_join(g->m->folder, g->m->disk[g->g.image[l->child].open].file);
	again = attach(d,
		       in_its_words ? in_its_words
		       : rc	    ? mine
				    : below,
		       rc != 0, rc ? NULL : err);
	free(in_its_words);
	free(mine);
	return rc ? rc : again;
}

static int last_merge(void *opaque, struct error *err)
{
	struct last *l = opaque;
	struct disk *d = l->g->m->disk[l->g->g.image[l->child].open].open;

	disk_hold(d);
	int rc = merge_held(l, d, err);
	disk_release(d);
	return rc;
}

/* The child is what the machine writes to. */
static int merge_top(struct merging *g, int parent, int child)
{
	struct graph_image *c = &g->g.image[child];
	uint64_t most = g->m->held_bytes ? g->m->held_bytes : HELD_BYTES;
	struct last l = {.g = g, .parent = parent, .child = child};
	struct disk *d = g->m->disk[c->open].open;

	if (is_stream(&g->g.image[parent]) || c->own_host_bytes > most) {
		if (g->rounds++ < ROUNDS_MAX)
			return snapshot_freeze(g->m, (unsigned)c->open, g->err);
		return error_set(g->err, -EBUSY,
				 "%s: the guest writes faster than it can be merged; consolidate "
				 "again when it has less to do, or is off",
				 c->path);
	}
	/* So that little is left to be synced. */
	int rc = disk_flush(d);
	if (rc)
		return error_set(g->err, rc, "%s: cannot be flushed: %s", c->path, strerror(-rc));
	rc = snapshot_on_loop(g->m, last_merge, &l, g->err);
	return rc ? rc : snapshot_remove_image(c->path, g->err);
}

static int merge(struct merging *g, int parent)
{
	int child = 0;

	while (g->g.image[child].parent != parent)
		child++;
	return g->g.image[child].open >= 0 ? merge_top(g, parent, child)
					   : merge_idle(g, parent, child);
}

/* An image that no snapshot is, and that exactly one other lies on; -1: none. The lowest of a chain
 * first, so that what lies on the top while it is merged is merged itself last. */
static int find_mergeable(const struct graph *g)
{
	for (unsigned i = g->count; i-- > 0;)
		if (!g->image[i].needed && g->image[i].children == 1)
			return (int)i;
	return -1;
}

int merge_all(struct snapshot_machine *m, struct vmsd *v, const struct snapshot_progress *progress,
	      struct error *err)
{
	struct merging g = {.m = m, .v = v, .progress = progress, .err = err};
	int rc;

	for (;;) {
		rc = graph_build(&g.g, m, v, err);
		if (rc)
			return rc;
		int at = find_mergeable(&g.g);
		if (at >= 0)
			rc = merge(&g, at);
		graph_free(&g.g);
		if (rc || at < 0)
			return rc;
	}
}
