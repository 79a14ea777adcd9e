/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_SNAPSHOT_H
#define HANOK_DISK_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/disk.h"
#include "disk/disk_tools.h"
#include "disk/vmsd.h"

/*
 * Snapshots: chains of delta images, and what is done to them. snapshot.c tells how they work and in
 * which order files change, so that a crash at any point leaves a machine that starts with all that
 * was flushed.
 *
 * Unless it says otherwise, a function waits for the host's files (not for the loop's thread while a
 * machine runs), wants images that nobody has open for writing (-EBUSY), and returns 0 or -errno
 * with a line in err.
 */

/* For what takes long; both NULL: nobody asks. */
struct snapshot_progress {
	/* Called at times, on the caller's thread. Not 0: stop, which fails with -ECANCELED and
	 * leaves images that are sound and hold the same as before. */
	int (*fn)(void *opaque, uint64_t done_bytes, uint64_t total_bytes);
	void *opaque;
};

/* ---- single images ---- */

/* The next free name as VMware gives them: of "disk.vmdk" or "disk-000002.vmdk", "disk-000003.vmdk"
 * in the same folder. free() it. */
int snapshot_next_name(const char *path, char **out, struct error *err);

/* An empty delta at child_path over the image at path, which must not be written to from then on. */
int snapshot_create_delta(const char *path, const char *child_path, struct error *err);

/* Puts what child has of its own into its parent, which then reads as child does; child stays, and
 * still reads the same. No other image may lie on the parent. */
int snapshot_merge_down(const char *child, const struct snapshot_progress *progress,
			struct error *err);

/* Takes what the parent has of its own into child, which from then on lies on its grandparent, or on
 * nothing. The parent is not changed. */
int snapshot_merge_up(const char *child, const struct snapshot_progress *progress,
		      struct error *err);

/* The whole chain merged down into its base, whose path is returned (free() it). Deltas between are
 * removed; the one at path stays, still reads the same, and is to be removed when nothing refers to
 * it any more. No other image may lie on any of them. */
int snapshot_flatten(const char *path, char **base, const struct snapshot_progress *progress,
		     struct error *err);

/* Removes all files of one image. -EBUSY: in use. */
int snapshot_remove_image(const char *path, struct error *err);

/* The image below: its path, free() it; NULL: none. */
int snapshot_parent(const char *path, char **parent, struct error *err);

/* A copy that needs nothing of the source; options as for disk_create (bytes 0: the source's). */
int snapshot_clone(const char *source, const char *path, const struct disk_create_options *opt,
		   const struct snapshot_progress *progress, struct error *err);

/* ---- a machine's disks ---- */

struct snapshot_disk {
	char *node;	   /* "scsi0:0" */
	char *file;	   /* of the machine, as in its .vmx: relative to the folder, or absolute */
	struct disk *open; /* NULL: the machine does not run */
};

/*
 * What snapshots of a machine need to know. save makes the files in disk[] durable as the machine's
 * own (its .vmx, by file_replace); it is called at the one moment at which that is right. The caller
 * keeps no other process away: it holds the machine's lock.
 */
struct snapshot_machine {
	const char *folder; /* of the .vmx; names are relative to it */
	const char *vmsd_path;
	unsigned disks;		    /* those that take part; independent ones do not */
	struct snapshot_disk *disk; /* file is replaced (free and strdup) by what it becomes */
	int (*save)(struct snapshot_machine *m, struct error *err);
	/* For a machine that runs: calls fn(arg) on the loop's thread, waits for it, and returns what it
	 * did; or -ECANCELED, and fn is never called: the machine ends. NULL: the caller's thread may
	 * hold the disks itself. */
	int (*on_loop)(struct snapshot_machine *m, int (*fn)(void *arg, struct error *err),
		       void *arg, struct error *err);
	uint64_t held_bytes; /* so much is merged while a disk is held; 0: 2 MiB */
	void *opaque;	     /* the caller's */
};

/*
 * Takes a snapshot: disk[] get new deltas. For a machine that runs (open is set), prepare is for any
 * thread but the loop's and does what takes long; exchange, on the loop's thread, holds the disks,
 * exchanges their images and lets them go (aim: 50 ms), but for flushes, which wait for list; that, on
 * any thread, as it waits for the host's disk, makes it durable and then a snapshot that can be gone
 * back to. commit is exchange and list in one, for where no guest waits for the loop. state_file: name
 * of a .vmsn, or NULL. exchange frees t when it fails; after it there is only list. list, commit and
 * abort free t; uid gets the snapshot's.
 */
struct snapshot_take;
int snapshot_take_prepare(struct snapshot_take **out, struct snapshot_machine *m, const char *name,
			  const char *description, const char *state_file, struct error *err);
int snapshot_take_exchange(struct snapshot_take *t, struct error *err);
int snapshot_take_list(struct snapshot_take *t, uint32_t *uid, struct error *err);
int snapshot_take_commit(struct snapshot_take *t, uint32_t *uid, struct error *err);
void snapshot_take_abort(struct snapshot_take *t);

/* Back to a snapshot, of a machine that does not run: disk[] get new deltas over its disks; what the
 * machine's own deltas held is lost. Disks that the machine has and the snapshot has not stay; -EINVAL: the other way round. */
int snapshot_revert(struct snapshot_machine *m, uint32_t uid, struct error *err);

/* Deletes a snapshot, not its content: its delta is merged with the only image that lies on it; with
 * several, it stays until it is one. children: also all snapshots below it. -EBUSY: clones lie on it
 * (err names one). After a failure or a crash snapshot.needConsolidate says that
 * snapshot_consolidate has to finish the work. Of a machine that runs: not on the loop's thread; its
 * disks are held for a moment several times, and no other function here is called meanwhile. -EBUSY
 * also if it writes faster than it is merged; -ECANCELED: it ends. */
int snapshot_delete(struct snapshot_machine *m, uint32_t uid, bool children,
		    const struct snapshot_progress *progress, struct error *err);

/* Merges every delta that no snapshot needs, and removes files of deltas that nothing refers to. A machine
 * may run, as above. */
int snapshot_consolidate(struct snapshot_machine *m, const struct snapshot_progress *progress,
			 struct error *err);

/* Of a machine that does not run: lays new deltas over the disks of a snapshot (uid 0: the machine's own, which then must never be
 * started again) in another folder, and notes vmx_path there as a clone. names, of m->disks
 * entries: their paths. */
int snapshot_linked_clone(struct snapshot_machine *m, uint32_t uid, const char *const *names,
			  const char *vmx_path, struct error *err);

#endif
