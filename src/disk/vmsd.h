/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_VMSD_H
#define HANOK_DISK_VMSD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * A machine's tree of snapshots, as VMware keeps it in NAME.vmsd: lines of `key = "value"`.
 *
 *	snapshot.lastUID, snapshot.current, snapshot.numSnapshots, snapshot.needConsolidate
 *	snapshotN.uid .parent .displayName .description .filename .createTimeHigh .createTimeLow
 *	snapshotN.numDisks .diskM.fileName .diskM.node .numClones .cloneM
 *
 * N counts from 0 in the file's order and means nothing else; uids are for ever. Keys not named here
 * are kept, and written again as they were. No function here is for several threads at once on the
 * same tree.
 */

struct vmsd_disk {
	char *file; /* relative to the folder, or absolute */
	char *node; /* "scsi0:0" */
};

/* A line that is none of ours: kept. The key is without "snapshotN.". */
struct vmsd_line {
	char *key, *value;
};

struct vmsd_snapshot {
	uint32_t uid, parent;	  /* parent 0: none */
	char *name, *description; /* never NULL */
	char *state_file;	  /* snapshotN.filename, the .vmsn: "" none */
	uint64_t created_us;	  /* since 1970, UTC */
	unsigned disks;
	struct vmsd_disk
		*disk; /* what a disk was when the snapshot was taken; not written to since */
	unsigned clones;
	char **clone; /* paths of .vmx files that lie on these disks */
	unsigned lines;
	struct vmsd_line *line;
};

struct vmsd {
	uint32_t last_uid, current; /* current 0: the machine comes from no snapshot */
	bool need_consolidate;	    /* images are left that no snapshot needs */
	unsigned count;
	struct vmsd_snapshot *snapshot;
	unsigned lines;
	struct vmsd_line *line; /* keys as a whole */
};

/* *out is empty if there is no such file. 0, -EINVAL: it is not sound (err says which line), or
 * another -errno. *out is to be freed by vmsd_free in any case. */
int vmsd_load(struct vmsd *out, const char *path, struct error *err);
/* Crash-safe (file_replace). */
int vmsd_save(const struct vmsd *v, const char *path, struct error *err);
/* Frees what is in it, not v. */
void vmsd_free(struct vmsd *v);

/* NULL: none. Pointers are valid until the next vmsd_add, vmsd_remove or vmsd_free. */
struct vmsd_snapshot *vmsd_find(const struct vmsd *v, uint32_t uid);
/* By its name, or its uid as a number if no name is that; -ENOENT, -EINVAL: several. */
int vmsd_find_name(const struct vmsd *v, const char *name, struct vmsd_snapshot **out,
		   struct error *err);

/* A new one below current, which it becomes; created now. NULL: no memory. */
struct vmsd_snapshot *vmsd_add(struct vmsd *v, const char *name, const char *description);
/* 0 or -ENOMEM. */
int vmsd_add_disk(struct vmsd_snapshot *s, const char *node, const char *file);
int vmsd_add_clone(struct vmsd_snapshot *s, const char *vmx_path);
/* Its children become its parent's, as does current if it was that. */
void vmsd_remove(struct vmsd *v, struct vmsd_snapshot *s);

#endif
