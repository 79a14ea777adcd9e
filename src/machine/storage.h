/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_STORAGE_H
#define HANOK_MACHINE_STORAGE_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/storage.h"
#include "machine/board.h"
#include "machine/layout.h"

/*
 * Which storage controllers there are to be had, and a machine's plan of them: which controllers it
 * has, and which drive is on which. The plan is made from the command line or a .vmx before there is
 * a machine; storage_open opens the drives' images, and the board makes the controllers.
 */

/* All kinds; NULL ends the list. The first is what a disk is put on when nobody says. */
extern const struct storage_kind *const storage_kinds[];

/* By its name; NULL with err listing the names that there are, those that can have CD drives only if
 * cdrom. */
const struct storage_kind *storage_find(const char *name, bool cdrom, struct error *err);
/* What a disk, or a CD drive, is put on when nobody says. NULL: there is no such kind. */
const struct storage_kind *storage_default(bool cdrom);

enum {
	STORAGE_CONTROLLERS_MAX = LAYOUT_STORAGE_SLOTS,
	STORAGE_DRIVES_MAX = 64,
	STORAGE_SERIAL_MAX = 20,
};

struct storage_drive {
	const char *path;   /* the caller's, outlives the machine; NULL: a CD drive that is empty */
	const char *format; /* struct disk_options */
	bool cdrom, read_only, direct;
	char serial[STORAGE_SERIAL_MAX + 1]; /* empty: storage_plan_add gives one */
	unsigned controller, target;	     /* of the plan; its unit there */
};

/* All zeroes: a machine without drives. */
struct storage_plan {
	const struct storage_kind *controller[STORAGE_CONTROLLERS_MAX];
	unsigned controllers;
	struct storage_drive drive[STORAGE_DRIVES_MAX];
	unsigned drives;
};

/* Adds a controller, which may stay empty: its index, or -ENOSPC. */
int storage_plan_add_controller(struct storage_plan *p, const struct storage_kind *kind,
				struct error *err);

/*
 * Adds a drive (copied) at drive->controller and drive->target. 0; -EINVAL: no such place, or a CD
 * drive where there can be none; -EEXIST: the place is taken; -ENOSPC.
 */
int storage_plan_add(struct storage_plan *p, const struct storage_drive *drive, struct error *err);

/* The same in the first free place of a controller of this kind; another controller is added if need
 * be. drive's own place is not looked at. */
int storage_plan_add_anywhere(struct storage_plan *p, const struct storage_kind *kind,
			      const struct storage_drive *drive, struct error *err);

/* The images of a plan's drives. */
struct storage;

/* Opens them all. 0 or -errno. plan is copied. */
int storage_open(struct storage **out, const struct storage_plan *plan, struct loop *loop,
		 struct error *err);
/* After the controllers are gone, and while the loop does not run. NULL is allowed. */
void storage_close(struct storage *s);

/* The controllers with what is on each, for the board; the storage's own. */
const struct board_controller *storage_controllers(const struct storage *s, unsigned *count);

#endif
