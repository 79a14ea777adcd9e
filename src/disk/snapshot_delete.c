/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting snapshots, and merging the images that nobody needs then. snapshot.c has the order of
 * things. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/file.h"
#include "disk/snapshot_internal.h"

int remove_unneeded(const struct graph *g, const char *path, struct error *err)
{
	char *at = strdup(path);
	int rc = at ? 0 : no_memory(err);

	/* Only deltas: a base is somebody's disk. */
	while (!rc && at && graph_find(g, at) < 0 && image_is_delta(at)) {
		char *parent = NULL;
		if (snapshot_parent(at, &parent, NULL))
			parent = NULL;
		rc = snapshot_remove_image(at, err);
		free(at);
		at = parent;
	}
	free(at);
	return rc;
}

/* ---- deltas that a crash left ---- */

/* Extents whose image is gone, or never came to be. */
static int sweep_extents(const char *path, struct error *err)
{
	struct path_list names;
	int rc = path_list_numbered(path, true, &names, err);

	for (unsigned i = 0; !rc && i < names.count; i++) {
		char *descriptor = path_descriptor(names.path[i]);
		if (descriptor && access(descriptor, F_OK) && errno == ENOENT)
			rc = snapshot_remove_image(names.path[i], err);
		free(descriptor);
	}
	path_list_free(&names);
	return rc;
}

/* Beside a disk of the machine: numbered deltas of that name which nothing refers to. */
static int sweep_disk(const struct graph *g, const char *path, struct error *err)
{
	struct path_list names;
	int rc = path_list_numbered(path, false, &names, err);

	for (unsigned i = 0; !rc && i < names.count; i++)
		if (graph_find(g, names.path[i]) < 0 && image_is_delta(names.path[i]))
			rc = snapshot_remove_image(names.path[i], err);
	path_list_free(&names);
	return rc ? rc : sweep_extents(path, err);
}

static int sweep(struct snapshot_machine *m, const struct vmsd *v, struct error *err)
{
	struct graph g;
	int rc = graph_build(&g, m, v, err);

	if (rc)
		return rc;
	for (unsigned i = 0; !rc && i < m->disks; i++) {
		char *path = path_join(m->folder, m->disk[i].file);
		rc = path ? sweep_disk(&g, path, err) : no_memory(err);
		free(path);
	}
	graph_free(&g);
	return rc;
}

static int done(struct snapshot_machine *m, struct vmsd *v, struct error *err)
{
	if (!v->need_consolidate)
		return 0;
	v->need_consolidate = false;
	return vmsd_save(v, m->vmsd_path, err);
}

int snapshot_consolidate(struct snapshot_machine *m, const struct snapshot_progress *progress,
			 struct error *err)
{
	struct vmsd v;
	int rc = vmsd_load(&v, m->vmsd_path, err);

	if (!rc)
		rc = merge_all(m, &v, progress, err);
	if (!rc)
		rc = sweep(m, &v, err);
	if (!rc)
		rc = done(m, &v, err);
	vmsd_free(&v);
	return rc;
}

/* ---- delete ---- */

static int no_clones(const struct snapshot_machine *m, const struct vmsd_snapshot *s,
		     struct error *err)
{
	for (unsigned i = 0; i < s->clones; i++) {
		char *path = path_join(m->folder, s->clone[i]);
		bool there = path && !access(path, F_OK);
		free(path);
		if (there)
			return error_set(err, -EBUSY,
					 "snapshot %s: the clone %s lies on it; remove that first",
					 s->name, s->clone[i]);
	}
	return 0;
}

static bool is_below(const struct vmsd *v, const struct vmsd_snapshot *s, uint32_t uid)
{
	while (s && s->uid != uid)
		s = vmsd_find(v, s->parent);
	return s;
}

/* Out of the tree; its disks are noted in `gone`. */
static int remove_one(const struct snapshot_machine *m, struct vmsd *v, struct vmsd_snapshot *s,
		      struct path_list *gone)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < s->disks; i++)
		rc = path_list_take(gone, path_join(m->folder, s->disk[i].file));
	vmsd_remove(v, s);
	return rc;
}

static int remove_from_tree(const struct snapshot_machine *m, struct vmsd *v, uint32_t uid,
			    bool children, struct path_list *gone, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < v->count; i++)
		if (v->snapshot[i].uid == uid || (children && is_below(v, &v->snapshot[i], uid)))
			rc = no_clones(m, &v->snapshot[i], err);
	/* Children first: what is below uid can be told only while uid is there. */
	for (unsigned i = v->count; !rc && children && i-- > 0;)
		if (v->snapshot[i].uid != uid && is_below(v, &v->snapshot[i], uid)) {
			rc = remove_one(m, v, &v->snapshot[i], gone);
			i = v->count;
		}
	if (!rc)
		rc = remove_one(m, v, vmsd_find(v, uid), gone);
	return rc == -ENOMEM ? no_memory(err) : rc;
}

static int remove_gone(struct snapshot_machine *m, const struct vmsd *v,
		       const struct path_list *gone, struct error *err)
{
	struct graph g;
	int rc = graph_build(&g, m, v, err);

	if (rc)
		return rc;
	for (unsigned i = 0; !rc && i < gone->count; i++)
		rc = remove_unneeded(&g, gone->path[i], err);
	graph_free(&g);
	return rc;
}

int snapshot_delete(struct snapshot_machine *m, uint32_t uid, bool children,
		    const struct snapshot_progress *progress, struct error *err)
{
	struct path_list gone = {0};
	struct vmsd v;
	int rc = vmsd_load(&v, m->vmsd_path, err);

	if (!rc && !vmsd_find(&v, uid))
		rc = error_set(err, -ENOENT, "%s: there is no snapshot %u", m->vmsd_path, uid);
	if (!rc)
		rc = images_open(m, &v, err);
	if (!rc)
		rc = remove_from_tree(m, &v, uid, children, &gone, err);
	if (!rc) {
		v.need_consolidate = true;
		rc = vmsd_save(&v, m->vmsd_path, err);
	}
	if (!rc)
		rc = remove_gone(m, &v, &gone, err);
	if (!rc)
		rc = merge_all(m, &v, progress, err);
	if (!rc)
		rc = done(m, &v, err);
	path_list_free(&gone);
	vmsd_free(&v);
	return rc;
}
