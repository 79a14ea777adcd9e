/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of storage controllers, and a machine's drives on them.
 *
 *     command line, .vmx ──> storage_plan ──> storage_open: images ──> board: controllers
 *
 * Controller i of the plan sits in PCI slot LAYOUT_STORAGE_SLOT + i.
 */
#include "machine/storage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dev/ata/kinds.h"
#include "dev/nvme/nvme.h"
#include "dev/scsi/mpt.h"
#include "dev/scsi/pvscsi.h"
#include "dev/virtio/blk.h"

const struct storage_kind *const storage_kinds[] = {
	&virtio_blk_kind, /* the default */
	&nvme_kind,	  /* a namespace a disk */
	&pvscsi_kind,	  /* VMware's paravirtual SCSI */
	&lsilogic_kind,	  /* parallel SCSI */
	&lsisas1068_kind, /* SAS */
	&ahci_kind,	  /* the default for CDs */
	&ide_kind,	  /* for the oldest guests */
	NULL,
};

const struct storage_kind *storage_default(bool cdrom)
{
	for (unsigned i = 0; storage_kinds[i]; i++)
		if (!cdrom || storage_kinds[i]->cdrom)
			return storage_kinds[i];
	return NULL;
}

const struct storage_kind *storage_find(const char *name, bool cdrom, struct error *err)
{
	char names[160] = "";
	size_t len = 0;

	for (unsigned i = 0; storage_kinds[i]; i++) {
		const struct storage_kind *k = storage_kinds[i];
		if (cdrom && !k->cdrom)
			continue;
		if (!strcmp(name, k->name))
			return k;
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len ? ", " : "",
					k->name);
		if (len >= sizeof(names))
			len = sizeof(names) - 1;
	}
	error_set(err, -EINVAL, "%s: no such storage controller%s; there is %s", name,
		  cdrom ? " for CDs" : "", len ? names : "none");
	return NULL;
}

/* --- the plan --- */

int storage_plan_add_controller(struct storage_plan *p, const struct storage_kind *kind,
				struct error *err)
{
	if (p->controllers == STORAGE_CONTROLLERS_MAX)
		return error_set(err, -ENOSPC,
				 "storage: a machine has room for %d controllers; some kinds take "
				 "several disks each",
				 STORAGE_CONTROLLERS_MAX);
	p->controller[p->controllers] = kind;
	return (int)p->controllers++;
}

static bool taken(const struct storage_plan *p, unsigned controller, unsigned target)
{
	if (p->controller[controller]->reserved >> target & 1)
		return true;
	for (unsigned i = 0; i < p->drives; i++)
		if (p->drive[i].controller == controller && p->drive[i].target == target)
			return true;
	return false;
}

int storage_plan_add(struct storage_plan *p, const struct storage_drive *drive, struct error *err)
{
	const char *what = drive->path ? drive->path : "an empty CD drive";
	const struct storage_kind *kind;

	if (drive->controller >= p->controllers)
		return error_set(err, -EINVAL, "%s: there is no storage controller %u", what,
				 drive->controller);
	kind = p->controller[drive->controller];
	if (drive->target >= kind->units)
		return error_set(err, -EINVAL, "%s: unit %u: %s has units 0 to %u", what,
				 drive->target, kind->name, kind->units - 1);
	if (drive->cdrom && !kind->cdrom)
		return error_set(err, -EINVAL, "%s: %s has no CD drives", what, kind->name);
	if (!drive->path && !drive->cdrom)
		return error_set(err, -EINVAL, "storage: a disk without a file");
	if (taken(p, drive->controller, drive->target))
		return error_set(err, -EEXIST, "%s: unit %u of controller %u is taken", what,
				 drive->target, drive->controller);
	if (p->drives == STORAGE_DRIVES_MAX)
		return error_set(err, -ENOSPC, "%s: a machine has room for %d drives", what,
				 STORAGE_DRIVES_MAX);
	struct storage_drive *d = &p->drive[p->drives];
	*d = *drive;
	if (!d->serial[0])
		snprintf(d->serial, sizeof(d->serial), "HANOK%02u-%02u", d->controller % 100,
			 d->target % 100);
	p->drives++;
	return 0;
}

int storage_plan_add_anywhere(struct storage_plan *p, const struct storage_kind *kind,
			      const struct storage_drive *drive, struct error *err)
{
	struct storage_drive d = *drive;
	int at;

	for (d.controller = 0; d.controller < p->controllers; d.controller++)
		for (d.target = 0; d.target < kind->units; d.target++)
			if (p->controller[d.controller] == kind &&
			    !taken(p, d.controller, d.target))
				return storage_plan_add(p, &d, err);
	at = storage_plan_add_controller(p, kind, err);
	if (at < 0)
		return at;
	d.controller = (unsigned)at;
	d.target = 0;
	return storage_plan_add(p, &d, err);
}

/* --- the images --- */

struct storage {
	struct storage_plan plan;
	struct storage_unit unit[STORAGE_DRIVES_MAX]; /* by controller, then by target */
	struct board_controller controller[STORAGE_CONTROLLERS_MAX];
};

static int compare_drives(const void *a, const void *b)
{
	const struct storage_drive *x = a, *y = b;

	if (x->controller != y->controller)
		return x->controller < y->controller ? -1 : 1;
	return (x->target > y->target) - (x->target < y->target);
}

static int open_drive(struct storage *s, unsigned i, struct loop *loop, struct error *err)
{
	const struct storage_drive *d = &s->plan.drive[i];
	const struct disk_options options = {
		.loop = loop,
		.read_only = d->read_only || d->cdrom,
		.direct = d->direct,
		.format = d->cdrom ? "raw" : d->format,
	};

	s->unit[i] =
		(struct storage_unit){.target = d->target, .cdrom = d->cdrom, .serial = d->serial};
	return d->path ? disk_open(&s->unit[i].disk, d->path, &options, err) : 0;
}

void storage_close(struct storage *s)
{
	if (!s)
		return;
	for (unsigned i = STORAGE_DRIVES_MAX; i-- > 0;)
		disk_close(s->unit[i].disk);
	free(s);
}

int storage_open(struct storage **out, const struct storage_plan *plan, struct loop *loop,
		 struct error *err)
{
	struct storage *s = calloc(1, sizeof(*s));
	int rc = 0;

	*out = NULL;
	if (!s)
		return error_set(err, -ENOMEM, "storage: out of memory");
	s->plan = *plan;
	qsort(s->plan.drive, s->plan.drives, sizeof(s->plan.drive[0]), compare_drives);
	for (unsigned i = 0, c = 0; c < s->plan.controllers; c++) {
		struct board_controller *controller = &s->controller[c];
		controller->kind = s->plan.controller[c];
		controller->units = &s->unit[i];
		for (; i < s->plan.drives && s->plan.drive[i].controller == c; i++)
			controller->unit_count++;
	}
	for (unsigned i = 0; !rc && i < s->plan.drives; i++)
		rc = open_drive(s, i, loop, err);
	if (rc) {
		storage_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

const struct board_controller *storage_controllers(const struct storage *s, unsigned *count)
{
	*count = s->plan.controllers;
	return s->controller;
}
