/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_DISK_RIG_H
#define HANOK_TESTS_DISK_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/snapshot.h"

/*
 * A machine of one disk, the model of what its sectors have to hold, and random things done to both.
 *
 * Each write fills its sectors from a stamp of its own, so that a sector tells which write it came
 * from. What was not flushed may be lost in a crash: then a sector may have what it had at the last
 * flush, or what any write since put there.
 */
enum { SINCE_MAX = 12, SNAPS_MAX = 24 };

struct sector {
	uint64_t stamp[SINCE_MAX]; /* [0] durable, the last one newest; 0: zeroes */
	unsigned n;
};

struct model {
	uint64_t sectors;
	struct sector *sector;
	uint64_t *instead; /* or all of it, while a machine reverts; NULL: not */
};

struct snap {
	uint32_t uid;
	uint64_t sectors;
	uint64_t *stamp;
};

/* What is known of a machine: of the real one, or, in a crash, of the one at that moment. */
struct known {
	struct model model;
	struct snap snap[SNAPS_MAX]; /* also deleted ones */
	unsigned snaps;
};

void model_write(struct model *m, uint64_t sector, uint64_t n, uint64_t stamp);
/* Either what was there, or zeroes. */
void model_discard(struct model *m, uint64_t sector, uint64_t n);
void model_flushed(struct model *m);
/* What it had at some moment is durable, by what was written since it may be overwritten. */
void model_kept(struct model *m, const uint64_t *stamp);
void model_resize(struct model *m, uint64_t sectors);
void model_set(struct model *m, const uint64_t *stamp);
uint64_t *model_copy(const struct model *m);
void known_snap(struct known *k, uint32_t uid, const uint64_t *stamp, uint64_t sectors);
void known_free(struct known *k);

/* What changes a `struct known`. */
enum rig_change { RIG_WRITE, RIG_DISCARD, RIG_FLUSHED, RIG_INSTEAD, RIG_SET, RIG_KEPT, RIG_SNAP };
struct rig_event {
	enum rig_change change;
	uint64_t sector, n, stamp;
	uint32_t uid;
	uint64_t *content; /* the event's own copy, or NULL */
};
void known_apply(struct known *k, const struct rig_event *e);

struct rig {
	char folder[128];
	char *vmx, *vmsd;
	struct snapshot_machine m;
	struct snapshot_disk disk;
	struct disk *open; /* NULL: it is off */
	struct known known;
	struct disk_create_options create;
	uint64_t stamps; /* given out */
	uint32_t seed;
	bool crashes;	  /* the next step may fail: the host is about to go away */
	unsigned resizes; /* steps that may */
	bool snaps;	  /* snapshots come and go all the time */
	/* Told of each change to `known`, for whoever keeps a second one; may be NULL. */
	void (*told)(struct rig *r, const struct rig_event *e);
	void *opaque;
};

/* A new machine in the folder, off. Ends the program if that fails. */
void rig_create(struct rig *r, const char *folder, const struct disk_create_options *opt,
		uint32_t seed);
/* One random thing. false: it failed, which only a crash explains. */
bool rig_step(struct rig *r);
/* Reads .vmx anew: after a crash. */
bool rig_load(struct rig *r, struct error *err);
void rig_close(struct rig *r);
void rig_destroy(struct rig *r);

/*
 * Does what is in the folder agree with what is known? Opens the disk of the .vmx and those of the
 * snapshots that the .vmsd lists, and checks all images. false: line says why. settle: what the disk
 * has becomes what is known.
 */
bool rig_verify(const struct rig *r, struct known *k, bool settle, char *line, size_t bytes);

/* Uniform in [0, n). */
uint32_t pick(uint32_t *seed, uint32_t n);
/* Says it on stderr and ends the program. */
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
