/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_SNAPSHOT_JOB_H
#define HANOK_CONTROL_SNAPSHOT_JOB_H

#include "control/vm_snapshot.h"

/*
 * Snapshots of a machine that runs are taken, and deleted: what takes long is done on a thread of its
 * own, the exchange of images on the loop's. All functions on the loop's thread.
 */
struct snapshot_job;

enum snapshot_act { SNAPSHOT_CREATE, SNAPSHOT_DELETE, SNAPSHOT_CONSOLIDATE };

struct snapshot_job_config {
	struct loop *loop;
	const struct vm_folder *folder;
	struct machine *machine;
	const struct storage_plan *plan;
	enum snapshot_act act;
	/* Copied. To delete: the name or number of one that there is; to consolidate: "". */
	const char *name, *description;
	bool children; /* to delete: also those below it */
	/* It is over: 0 with the uid of what was taken, or -errno with err. The job is to be destroyed
	 * then, but not from within. */
	void (*over)(void *opaque, int code, uint32_t uid, const struct error *err);
	void *opaque;
};

int snapshot_job_start(struct snapshot_job **out, const struct snapshot_job_config *cfg,
		       struct error *err);
/* Waits for its thread; one that is not over is given up: a snapshot is not taken, and what was not
 * merged yet is left to be consolidated. NULL is allowed. */
void snapshot_job_destroy(struct snapshot_job *j);

#endif
