/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_VM_SNAPSHOT_H
#define HANOK_CONTROL_VM_SNAPSHOT_H

#include "control/vm_folder.h"
#include "disk/snapshot.h"
#include "machine/machine.h"

/*
 * A machine's disks as disk/snapshot.h wants them: those that its .vmx names, CD drives and
 * independent ones left out, each with its open disk when the machine runs here. New names are
 * written into the .vmx.
 */
struct vm_snapshot {
	struct snapshot_machine machine; /* to hand to snapshot_*() */
	char *vmx, *folder, *vmsd;
};

/* m and plan: of the machine when it runs in this process, on the loop's thread; else NULL. 0 or
 * -errno with *err; in any case vm_snapshot_close. */
int vm_snapshot_open(struct vm_snapshot *s, const struct vm_folder *f, struct machine *m,
		     const struct storage_plan *plan, struct error *err);
void vm_snapshot_close(struct vm_snapshot *s);

/* The open disk of a drive of the plan; NULL: none. Any thread. */
struct disk *vm_disk(struct machine *m, const struct storage_drive *d);

#endif
