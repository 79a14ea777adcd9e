/* SPDX-License-Identifier: Apache-2.0 */
/* Which images a machine and its snapshots are made of, found by following their chains. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/snapshot_internal.h"

void graph_free(struct graph *g)
{
	for (unsigned i = 0; i < g->count; i++)
		free(g->image[i].path);
	free(g->image);
	*g = (struct graph){0};
}

int graph_find(const struct graph *g, const char *path)
{
	char *real = path_real(path);
	int found = -1;

	for (unsigned i = 0; real && found < 0 && i < g->count; i++)
		if (!strcmp(g->image[i].path, real))
			found = (int)i;
	free(real);
	return found;
}

/* The index, or -errno. */
static int add(struct graph *g, const struct disk_link *link)
{
	struct graph_image *p = realloc(g->image, (g->count + 1) * sizeof(*p));
	char *real = path_real(link->path);

	if (p)
		g->image = p;
	if (!p || !real) {
		free(real);
		return -ENOMEM;
	}
	p += g->count;
	*p = (struct graph_image){.path = real,
				  .parent = -1,
				  .open = -1,
				  .is_delta = link->parent_cid != UINT32_MAX,
				  .own_host_bytes = link->host_bytes};
	snprintf(p->type, sizeof(p->type), "%s", link->type);
	return (int)g->count++;
}

/* From a leaf down to what is known already. */
static int follow(struct graph *g, struct disk *d)
{
	struct disk_link link;
	int child = -1, rc;

	for (unsigned depth = 0; !(rc = disk_chain(d, depth, &link)); depth++) {
		int known = graph_find(g, link.path);
		int at = known >= 0 ? known : add(g, &link);
		if (at < 0)
			return at;
		if (depth == 0)
			g->image[at].needed = true;
		if (child >= 0) {
			g->image[child].parent = at;
			g->image[at].children++;
		}
		if (known >= 0)
			return 0;
		child = at;
	}
	return rc == -ENOENT ? 0 : rc;
}

static int follow_or_say(struct graph *g, struct disk *d, const char *path, struct error *err)
{
	int rc = follow(g, d);

	return rc ? error_set(err, rc, "%s: its chain cannot be read: %s", path, strerror(-rc)) : 0;
}

/* A disk that is open is asked itself: nobody else may open its image. */
static int add_open(struct graph *g, const struct snapshot_machine *m, unsigned i,
		    struct error *err)
{
	unsigned at = g->count;
	int rc = follow_or_say(g, m->disk[i].open, m->disk[i].file, err);

	if (!rc && at < g->count)
		g->image[at].open = (int)i;
	return rc;
}

static int add_leaf(struct graph *g, const char *folder, const char *file, struct error *err)
{
	char *path = path_join(folder, file);
	struct disk *d;
	int rc, at;

	if (!path)
		return error_set(err, -ENOMEM, "%s: out of memory", file);
	at = graph_find(g, path);
	if (at >= 0) {
		g->image[at].needed = true;
		free(path);
		return 0;
	}
	rc = disk_open(&d, path, &(struct disk_options){.read_only = true}, err);
	if (!rc) {
		rc = follow_or_say(g, d, path, err);
		disk_close(d);
	}
	free(path);
	return rc;
}

int graph_build(struct graph *g, const struct snapshot_machine *m, const struct vmsd *v,
		struct error *err)
{
	int rc = 0;

	*g = (struct graph){0};
	for (unsigned i = 0; !rc && i < m->disks; i++)
		if (m->disk[i].open)
			rc = add_open(g, m, i, err);
	for (unsigned i = 0; !rc && i < m->disks; i++)
		if (!m->disk[i].open)
			rc = add_leaf(g, m->folder, m->disk[i].file, err);
	for (unsigned i = 0; i < v->count; i++)
		for (unsigned j = 0; !rc && j < v->snapshot[i].disks; j++)
			rc = add_leaf(g, m->folder, v->snapshot[i].disk[j].file, err);
	if (rc)
		graph_free(g);
	return rc;
}

int images_open(const struct snapshot_machine *m, const struct vmsd *v, struct error *err)
{
	struct graph g;
	int rc = graph_build(&g, m, v, err);

	if (!rc)
		graph_free(&g);
	return rc;
}

bool image_is_delta(const char *path)
{
	struct disk_options opt = {.read_only = true, .alone = true};
	struct disk_link link;
	struct disk *d;

	if (disk_open(&d, path, &opt, NULL))
		return false;
	bool delta = !disk_chain(d, 0, &link) && link.parent_cid != UINT32_MAX;
	disk_close(d);
	return delta;
}

int not_running(const struct snapshot_machine *m, struct error *err)
{
	for (unsigned i = 0; i < m->disks; i++)
		if (m->disk[i].open)
			return error_set(err, -EBUSY,
					 "%s: the machine runs; stop it first, this works on disks "
					 "that nobody uses",
					 m->disk[i].file);
	return 0;
}

int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "snapshot: out of memory");
}
