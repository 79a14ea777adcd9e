/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking snapshots: deltas on a machine's disks. snapshot.c has the order of things.
 *
 * Of a machine that runs, in three parts:
 *
 *	prepare		any thread	the image's content id settles, so that a delta can note it while the
 *					image is written to; deltas, durable; .vmx; what is dirty is written
 *					out until little is left
 *	exchange	the loop's	disks held: image closed, delta opened; all but flushes go on
 *	list		any thread	the image below is synced; flushes go on; .vmsd
 *
 * Nothing is synced while the disks are held, but where tables changed in the moment before. A flush
 * that comes before what lies below is durable has to wait for it, and fails if that fails.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "disk/file.h"
#include "disk/image.h"
#include "disk/snapshot_internal.h"

enum {
	FLUSHES_MAX = 6,
	SHORT_FLUSH_NS = 10000000, /* so little is left after one that took no longer */
};

/* The name of an image in the machine's own words: where its .vmx names the old one by a relative
 * path, the new one in the same place by a relative path. */
static char *same_place(const char *old_name, const char *new_path)
{
	return path_beside(old_name, path_base(new_path));
}

/* ---- deltas over several images ---- */

void deltas_free(struct deltas *d, bool remove)
{
	for (unsigned i = 0; i < d->count; i++) {
		if (remove && d->path[i])
			snapshot_remove_image(d->path[i], NULL);
		free(d->path[i]);
		free(d->name[i]);
	}
	free(d->path);
	free(d->name);
	*d = (struct deltas){0};
}

int deltas_init(struct deltas *d, unsigned count, struct error *err)
{
	d->path = calloc(count + 1, sizeof(*d->path));
	d->name = calloc(count + 1, sizeof(*d->name));
	d->count = d->path && d->name ? count : 0;
	return d->path && d->name ? 0 : no_memory(err);
}

/* Where a new delta for disk i goes. */
static int delta_name(struct deltas *d, unsigned i, const struct snapshot_machine *m,
		      struct error *err)
{
	char *own = path_join(m->folder, m->disk[i].file);
	int rc = own ? snapshot_next_name(own, &d->path[i], err) : no_memory(err);

	free(own);
	if (!rc && !(d->name[i] = same_place(m->disk[i].file, d->path[i])))
		rc = no_memory(err);
	return rc;
}

int delta_create(struct deltas *d, unsigned i, const struct snapshot_machine *m, const char *below,
		 struct error *err)
{
	int rc = delta_name(d, i, m, err);

	if (!rc)
		rc = snapshot_create_delta(below, d->path[i], err);
	if (rc) {
		/* Not ours to remove. */
		free(d->path[i]);
		d->path[i] = NULL;
	}
	return rc;
}

int deltas_switch(struct snapshot_machine *m, struct deltas *d, struct error *err)
{
	for (unsigned i = 0; i < m->disks; i++)
		if (d->path[i]) {
			char *old = m->disk[i].file;
			m->disk[i].file = d->name[i];
			d->name[i] = old;
		}
	int rc = m->save(m, err);
	if (!rc)
		return 0;
	for (unsigned i = 0; i < m->disks; i++)
		if (d->path[i]) {
			char *new = m->disk[i].file;
			m->disk[i].file = d->name[i];
			d->name[i] = new;
		}
	return rc;
}

/* ---- take ---- */

struct snapshot_take {
	struct snapshot_machine *m;
	struct vmsd vmsd;
	uint32_t uid;
	struct deltas deltas;
	bool switched; /* the .vmx names the deltas */
};

/* The disk gets a delta while it is open. */
static bool is_live(const struct snapshot_take *t, unsigned i)
{
	return t->m->disk[i].open && t->deltas.path[i];
}

static void take_free(struct snapshot_take *t)
{
	vmsd_free(&t->vmsd);
	free(t);
}

void snapshot_take_abort(struct snapshot_take *t)
{
	struct error err;
	bool remove = true;

	if (!t)
		return;
	/* Nothing is in a delta, so a machine that starts from it loses nothing. */
	if (t->switched && deltas_switch(t->m, &t->deltas, &err)) {
		log_error("%s", err.text);
		remove = false;
	}
	deltas_free(&t->deltas, remove);
	take_free(t);
}

static int note_snapshot(struct snapshot_take *t, const char *name, const char *description,
			 const char *state_file, struct error *err)
{
	struct vmsd_snapshot *s = vmsd_add(&t->vmsd, name, description);
	int rc = s ? 0 : -ENOMEM;

	for (unsigned i = 0; !rc && i < t->m->disks; i++)
		rc = vmsd_add_disk(s, t->m->disk[i].node, t->m->disk[i].file);
	if (!rc && state_file) {
		free(s->state_file);
		s->state_file = strdup(state_file);
		rc = s->state_file ? 0 : -ENOMEM;
	}
	if (rc)
		return no_memory(err);
	t->uid = s->uid;
	return 0;
}

/* A delta for a disk that is open, whose image nobody else may open. */
static int create_live_delta(struct disk *d, const char *path, struct error *err)
{
	struct disk_create_options opt = {.format = "vmdk"};
	struct disk_link top;
	struct disk_info info;
	char *hint = path_hint(path, disk_path(d));
	int rc = hint ? disk_settle(d) : -ENOMEM;

	disk_get_info(d, &info);
	opt.type = snapshot_delta_type(info.type);
	opt.bytes = info.bytes;
	if (!rc)
		rc = disk_chain(d, 0, &top);
	if (rc)
		error_set(err, rc, "%s: %s", disk_path(d), strerror(-rc));
	if (!rc)
		rc = snapshot_create_bare(path, &opt, err);
	if (!rc) {
		rc = vmdk_set_parent_cid(path, top.cid, hint, err);
		if (rc)
			snapshot_remove_image(path, NULL);
	}
	free(hint);
	return rc;
}

static int prepare_open_disk(struct snapshot_take *t, unsigned i, struct error *err)
{
	struct disk *d = t->m->disk[i].open;
	struct disk_info info;

	disk_get_info(d, &info);
	if (strcmp(info.format, "vmdk") != 0)
		return error_set(err, -EINVAL,
				 "%s: snapshots need VMDK images; hanok disk convert makes one",
				 t->m->disk[i].file);
	int rc = delta_name(&t->deltas, i, t->m, err);
	if (!rc)
		rc = create_live_delta(d, t->deltas.path[i], err);
	if (rc) {
		/* Not ours to remove. */
		free(t->deltas.path[i]);
		t->deltas.path[i] = NULL;
	}
	return rc;
}

static int prepare_disk(struct snapshot_take *t, unsigned i, struct error *err)
{
	if (t->m->disk[i].open)
		return prepare_open_disk(t, i, err);
	/* A listed snapshot holds for ever, so what its disk was closed with is made durable. */
	char *own = path_join(t->m->folder, t->m->disk[i].file);
	int rc = own ? image_sync(own, err) : no_memory(err);
	if (!rc)
		rc = delta_create(&t->deltas, i, t->m, own, err);
	free(own);
	return rc;
}

/* Each flush has only that to write which came during the one before. */
static int flush_until_short(const struct snapshot_take *t, struct error *err)
{
	uint64_t took = UINT64_MAX;

	for (unsigned n = 0; n < FLUSHES_MAX && took > SHORT_FLUSH_NS; n++) {
		uint64_t start = clock_ns();
		for (unsigned i = 0; i < t->m->disks; i++) {
			int rc = is_live(t, i) ? disk_flush(t->m->disk[i].open) : 0;
			if (rc)
				return error_set(err, rc, "%s: cannot be flushed: %s",
						 t->m->disk[i].file, strerror(-rc));
		}
		took = clock_ns() - start;
	}
	return 0;
}

/* The deltas are there: the machine would start from them. */
static int prepared(struct snapshot_take *t, struct error *err)
{
	int rc = deltas_switch(t->m, &t->deltas, err);

	t->switched = !rc;
	return rc ? rc : flush_until_short(t, err);
}

int snapshot_take_prepare(struct snapshot_take **out, struct snapshot_machine *m, const char *name,
			  const char *description, const char *state_file, struct error *err)
{
	struct snapshot_take *t = calloc(1, sizeof(*t));
	int rc;

	*out = NULL;
	if (!t)
		return no_memory(err);
	t->m = m;
	rc = vmsd_load(&t->vmsd, m->vmsd_path, err);
	if (!rc)
		rc = note_snapshot(t, name, description, state_file, err);
	if (!rc)
		rc = deltas_init(&t->deltas, m->disks, err);
	for (unsigned i = 0; !rc && i < m->disks; i++)
		rc = prepare_disk(t, i, err);
	if (!rc)
		rc = prepared(t, err);
	if (rc)
		snapshot_take_abort(t);
	else
		*out = t;
	return rc;
}

/* The image is closed, its delta opened. *detached: it was closed. */
static int exchange_disk(struct disk *d, const char *delta, bool *detached, struct error *err)
{
	int rc = disk_write_back_held(d);

	if (!rc)
		rc = disk_detach(d);
	if (rc)
		return error_set(err, rc, "%s: cannot be written back: %s", disk_path(d),
				 strerror(-rc));
	*detached = true;
	return disk_attach(d, delta, true, err);
}

/* Nothing was written to a delta yet, so what was before is all there. */
static void attach_old(const struct snapshot_take *t, unsigned i)
{
	struct disk *d = t->m->disk[i].open;
	struct error err;
	/* By now d->name has what was before. */
	char *own = path_join(t->m->folder, t->deltas.name[i]);

	if (!own || disk_detach(d) || disk_attach(d, own, true, &err))
		log_error("%s: the disk is lost to the machine until that starts anew",
			  t->deltas.name[i]);
	free(own);
}

static int exchange_all(struct snapshot_take *t, struct error *err)
{
	bool detached = false;
	unsigned i = 0;
	int rc = 0;

	for (; !rc && i < t->m->disks; i++) {
		detached = false;
		if (is_live(t, i))
			rc = exchange_disk(t->m->disk[i].open, t->deltas.path[i], &detached, err);
	}
	if (!rc)
		return 0;
	if (!detached)
		i--;
	while (i-- > 0)
		if (is_live(t, i))
			attach_old(t, i);
	return rc;
}

int snapshot_take_exchange(struct snapshot_take *t, struct error *err)
{
	struct snapshot_machine *m = t->m;

	for (unsigned i = 0; i < m->disks; i++)
		if (is_live(t, i))
			disk_hold(m->disk[i].open);
	int rc = exchange_all(t, err);
	for (unsigned i = 0; i < m->disks; i++)
		if (is_live(t, i)) {
			if (rc)
				disk_release(m->disk[i].open);
			else
				disk_release_all_but_flushes(m->disk[i].open);
		}
	if (rc)
		snapshot_take_abort(t);
	return rc;
}

/* What lies below the deltas now. */
static int sync_below(struct snapshot_take *t, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; i < t->m->disks; i++) {
		if (!is_live(t, i))
			continue;
		char *below = path_join(t->m->folder, t->deltas.name[i]);
		int bad = below ? image_sync(below, rc ? NULL : err) : no_memory(rc ? NULL : err);
		free(below);
		if (bad)
			disk_lose(t->m->disk[i].open, bad);
		disk_release(t->m->disk[i].open);
		rc = rc ? rc : bad;
	}
	return rc;
}

/* The machine has its deltas already, whether the snapshot is listed or not. */
int snapshot_take_list(struct snapshot_take *t, uint32_t *uid, struct error *err)
{
	int rc = sync_below(t, err);

	if (!rc)
		rc = vmsd_save(&t->vmsd, t->m->vmsd_path, err);
	*uid = t->uid;
	deltas_free(&t->deltas, false);
	take_free(t);
	return rc;
}

int snapshot_take_commit(struct snapshot_take *t, uint32_t *uid, struct error *err)
{
	int rc = snapshot_take_exchange(t, err);

	return rc ? rc : snapshot_take_list(t, uid, err);
}

/* ---- a delta that is no snapshot's ---- */

static int exchange_on_loop(void *opaque, struct error *err)
{
	return snapshot_take_exchange(opaque, err);
}

int snapshot_freeze(struct snapshot_machine *m, unsigned i, struct error *err)
{
	struct snapshot_take *t = calloc(1, sizeof(*t));

	if (!t)
		return no_memory(err);
	t->m = m;
	int rc = deltas_init(&t->deltas, m->disks, err);
	if (!rc)
		rc = prepare_open_disk(t, i, err);
	if (!rc)
		rc = prepared(t, err);
	if (rc) {
		snapshot_take_abort(t);
		return rc;
	}
	rc = snapshot_on_loop(m, exchange_on_loop, t, err);
	if (rc == -ECANCELED)
		snapshot_take_abort(t);
	if (rc)
		return rc;
	rc = sync_below(t, err);
	deltas_free(&t->deltas, false);
	take_free(t);
	return rc;
}
