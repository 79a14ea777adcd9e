/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_SNAPSHOT_INTERNAL_H
#define HANOK_DISK_SNAPSHOT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/snapshot.h"

/* What snapshot.c and its sisters share. Strings that are returned are the caller's to free; NULL:
 * no memory. */

/* ---- snapshot_path.c ---- */

/* As in a .vmx: relative to the folder, or absolute. */
char *path_join(const char *folder, const char *name);
/* In the folder of `beside`. */
char *path_beside(const char *beside, const char *name);
const char *path_base(const char *path);
bool path_same_folder(const char *a, const char *b);
/* Absolute and without links, if it is there; else as it is. */
char *path_real(const char *path);
/* What a child at this path notes of its parent. */
char *path_hint(const char *child, const char *parent);

struct path_list {
	char **path;
	unsigned count;
};
/* Takes path, also when it fails. */
int path_list_take(struct path_list *l, char *path);
bool path_list_has(const struct path_list *l, const char *path);
void path_list_free(struct path_list *l);

/* In path's folder: images with the name of path, or of what it is numbered after, and a number; or
 * the extents of such. */
int path_list_numbered(const char *path, bool extents, struct path_list *out, struct error *err);
/* The image that such an extent is of, by its name. */
char *path_descriptor(const char *extent);

/* The files of one image, the one with the descriptor last. Names that lead out of its folder are left
 * out: a descriptor does not get to say what else of the host's is removed. */
int image_files(const char *path, struct path_list *out, struct error *err);
/* Makes an image's files and their names durable. */
int image_sync(const char *path, struct error *err);

/* ---- snapshot.c ---- */

/* The createType of a delta over an image of this one. */
const char *snapshot_delta_type(const char *parent_type);
/* disk_create, durable. */
int snapshot_create_bare(const char *path, const struct disk_create_options *opt,
			 struct error *err);

/* ---- snapshot_take.c ---- */

/* New deltas over several images, one a disk of the machine. */
struct deltas {
	unsigned count;
	char **path; /* NULL: none for this disk */
	char **name; /* as the .vmx will have it; after deltas_switch, as it had it before */
};

int deltas_init(struct deltas *d, unsigned count, struct error *err);
void deltas_free(struct deltas *d, bool remove);
/* A delta for disk i over `below`, named after the machine's disk. */
int delta_create(struct deltas *d, unsigned i, const struct snapshot_machine *m, const char *below,
		 struct error *err);
/* The new names become the machine's, on the disk too; or nothing happens. Again: back. */
int deltas_switch(struct snapshot_machine *m, struct deltas *d, struct error *err);

/* Lays a delta over disk i, which is open, so that its image is not written to any more. Not on the
 * loop's thread. -ECANCELED: the machine ends. */
int snapshot_freeze(struct snapshot_machine *m, unsigned i, struct error *err);
/* m->on_loop; or, without one, fn here. */
int snapshot_on_loop(struct snapshot_machine *m, int (*fn)(void *opaque, struct error *err),
		     void *opaque, struct error *err);

/* ---- snapshot_copy.c ---- */

/*
 * Copies to `to` what `from` has, run by run. depth: what the image at that depth has, and no other;
 * -1: everything. to_empty: `to` reads as zeroes, so that zeroes are not written. below: what `to` will
 * lie on afterwards, if not on what it lies on now. Flushes `to`.
 */
int snapshot_copy(struct disk *from, struct disk *to, struct disk *below, int depth, bool to_empty,
		  const char *what, const struct snapshot_progress *progress, struct error *err);

/* ---- snapshot_graph.c: which image lies on which ---- */

struct graph_image {
	char *path;
	int parent; /* index; -1: none */
	unsigned children;
	bool needed; /* a snapshot's, or the machine's own */
	bool is_delta;
	int open; /* index of the machine's disk that is open, and of which this is the top; -1 */
	char type[32];
	uint64_t own_host_bytes;
};

struct graph {
	struct graph_image *image;
	unsigned count;
};

/* All images that a snapshot's disks, or the machine's own, lie on. */
int graph_build(struct graph *g, const struct snapshot_machine *m, const struct vmsd *v,
		struct error *err);
void graph_free(struct graph *g);
/* The index, or -1. */
int graph_find(const struct graph *g, const char *path);

/* Can all of them be opened, and is nobody writing to one? Before anything is changed. */
int images_open(const struct snapshot_machine *m, const struct vmsd *v, struct error *err);

/* Does it lie on another? False also if it cannot be opened. */
bool image_is_delta(const char *path);

/* 0, or -EBUSY and a line: a disk of the machine is open. */
int not_running(const struct snapshot_machine *m, struct error *err);
/* -ENOMEM and a line. */
int no_memory(struct error *err);

/* ---- snapshot_merge.c ---- */

/* Every image that no snapshot needs and one other lies on is merged with that. */
int merge_all(struct snapshot_machine *m, struct vmsd *v, const struct snapshot_progress *progress,
	      struct error *err);

/* ---- snapshot_delete.c ---- */

/* Removes images from path downwards while nothing in the graph needs them. */
int remove_unneeded(const struct graph *g, const char *path, struct error *err);

#endif
