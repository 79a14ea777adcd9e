/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's disks: going back to snapshots, clones on them. snapshot.c has the order of things. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/snapshot_internal.h"

/* ---- revert ---- */

static struct vmsd_snapshot *find(struct vmsd *v, uint32_t uid, const char *path, struct error *err)
{
	struct vmsd_snapshot *s = vmsd_find(v, uid);

	if (!s)
		error_set(err, -ENOENT, "%s: there is no snapshot %u", path, uid);
	return s;
}

static int disk_of_node(const struct snapshot_machine *m, const char *node)
{
	for (unsigned i = 0; i < m->disks; i++)
		if (!strcasecmp(m->disk[i].node, node))
			return (int)i;
	return -1;
}

static int revert_deltas(struct snapshot_machine *m, const struct vmsd_snapshot *s,
			 struct deltas *d, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < s->disks; i++) {
		int at = disk_of_node(m, s->disk[i].node);
		if (at < 0)
			return error_set(err, -EINVAL,
					 "snapshot %s: it has a disk at %s, the machine has none; "
					 "add one there first",
					 s->name, s->disk[i].node);
		if (d->path[at])
			return error_set(err, -EINVAL, "snapshot %s: it has two disks at %s",
					 s->name, s->disk[i].node);
		char *below = path_join(m->folder, s->disk[i].file);
		rc = below ? delta_create(d, (unsigned)at, m, below, err) : no_memory(err);
		free(below);
	}
	return rc;
}

/* What the machine had before, as far as nothing else needs it. Names are in d by now. */
static int remove_old(struct snapshot_machine *m, const struct vmsd *v, const struct deltas *d,
		      struct error *err)
{
	struct graph g;
	int rc = graph_build(&g, m, v, err);

	if (rc)
		return rc;
	for (unsigned i = 0; !rc && i < m->disks; i++) {
		if (!d->path[i])
			continue;
		char *old = path_join(m->folder, d->name[i]);
		rc = old ? remove_unneeded(&g, old, err) : no_memory(err);
		free(old);
	}
	graph_free(&g);
	return rc;
}

int snapshot_revert(struct snapshot_machine *m, uint32_t uid, struct error *err)
{
	struct vmsd_snapshot *s;
	struct deltas d = {0};
	struct vmsd v;
	bool switched = false;
	int rc = not_running(m, err);

	if (rc)
		return rc;
	rc = vmsd_load(&v, m->vmsd_path, err);
	if (!rc)
		rc = (s = find(&v, uid, m->vmsd_path, err)) ? 0 : -ENOENT;
	/* Going back is also a way out for whose own delta is broken. */
	if (!rc && images_open(m, &v, err) == -EBUSY)
		rc = -EBUSY;
	if (!rc)
		rc = deltas_init(&d, m->disks, err);
	if (!rc)
		rc = revert_deltas(m, s, &d, err);
	if (!rc) {
		rc = deltas_switch(m, &d, err);
		switched = !rc;
	}
	if (!rc) {
		v.current = uid;
		rc = vmsd_save(&v, m->vmsd_path, err);
	}
	if (!rc)
		rc = remove_old(m, &v, &d, err);
	deltas_free(&d, !switched);
	vmsd_free(&v);
	return rc;
}

/* ---- linked clones ---- */

static int clone_disks(struct snapshot_machine *m, const struct vmsd_snapshot *s,
		       const char *const *names, struct error *err)
{
	unsigned made = 0;
	int rc = 0;

	for (unsigned i = 0; !rc && i < m->disks; i++) {
		const char *file = m->disk[i].file;
		for (unsigned j = 0; s && j < s->disks; j++)
			if (!strcasecmp(s->disk[j].node, m->disk[i].node))
				file = s->disk[j].file;
		char *below = path_join(m->folder, file);
		rc = below ? snapshot_create_delta(below, names[i], err) : no_memory(err);
		free(below);
		made += !rc;
	}
	for (unsigned i = 0; rc && i < made; i++)
		snapshot_remove_image(names[i], NULL);
	return rc;
}

int snapshot_linked_clone(struct snapshot_machine *m, uint32_t uid, const char *const *names,
			  const char *vmx_path, struct error *err)
{
	struct vmsd_snapshot *s = NULL;
	struct vmsd v;
	int rc = vmsd_load(&v, m->vmsd_path, err);

	if (!rc && uid)
		rc = (s = find(&v, uid, m->vmsd_path, err)) ? 0 : -ENOENT;
	/* Noted first: a clone that is noted and not there hurts nobody. */
	if (!rc && s)
		rc = vmsd_add_clone(s, vmx_path) ? no_memory(err)
						 : vmsd_save(&v, m->vmsd_path, err);
	if (!rc)
		rc = clone_disks(m, s, names, err);
	vmsd_free(&v);
	return rc;
}
