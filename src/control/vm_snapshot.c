/* SPDX-License-Identifier: Apache-2.0 */
#include "control/vm_snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "disk/disk_tools.h"
#include "machine/vm_config.h"

enum { KEY_BYTES = 80 };

struct disk *vm_disk(struct machine *m, const struct storage_drive *d)
{
	unsigned count;
	const struct board_controller *all = storage_controllers(machine_storage(m), &count);

	for (unsigned i = 0; d->controller < count && i < all[d->controller].unit_count; i++)
		if (all[d->controller].units[i].target == d->target)
			return all[d->controller].units[i].disk;
	return NULL;
}

/* ---- the disks of a .vmx ---- */

struct collector {
	struct vm_snapshot *s;
	const struct vmx *v;
	struct machine *m;
	const struct storage_plan *plan;
	int result;
};

static const char *value(const struct vmx *v, const char *key, const char *what)
{
	char name[KEY_BYTES];

	snprintf(name, sizeof(name), "%s.%s", key, what);
	return vmx_get(v, name);
}

/* Does it write to this file now? Snapshots have put others on the one that it was started with. */
static bool writes_to(struct disk *d, const char *path)
{
	struct disk_link top;

	return d && disk_chain(d, 0, &top) == 0 && !strcmp(top.path, path);
}

/* The disk that is open for this file; NULL when the machine does not run here. */
static struct disk *open_disk(const struct collector *c, const char *file_name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s%s%s", *file_name == '/' ? "" : c->s->folder,
		 *file_name == '/' ? "" : "/", file_name);
	for (unsigned i = 0; c->m && i < c->plan->drives; i++) {
		struct disk *d = vm_disk(c->m, &c->plan->drive[i]);
		if (writes_to(d, path))
			return d;
	}
	return NULL;
}

static int add(void *opaque, const char *key, const char *file_name)
{
	struct collector *c = opaque;
	struct snapshot_machine *m = &c->s->machine;
	const char *type = value(c->v, key, "deviceType"), *mode = value(c->v, key, "mode");

	if ((type && (!strncasecmp(type, "cdrom", 5) || !strncasecmp(type, "atapi", 5))) ||
	    (mode && !strncasecmp(mode, "independent", 11)))
		return 0;
	struct snapshot_disk *grown = realloc(m->disk, (m->disks + 1) * sizeof(*grown));
	if (grown)
		m->disk = grown;
	struct snapshot_disk d = {.node = strdup(key), .file = strdup(file_name)};
	if (!grown || !d.node || !d.file) {
		free(d.node);
		free(d.file);
		return c->result = -ENOMEM;
	}
	d.open = open_disk(c, file_name);
	m->disk[m->disks++] = d;
	return 0;
}

/* ---- what snapshots change ---- */

static int save(struct snapshot_machine *m, struct error *err)
{
	const struct vm_snapshot *s = m->opaque;
	char key[KEY_BYTES];
	struct vmx *v;
	int r = vmx_read(&v, s->vmx, err);

	for (unsigned i = 0; r == 0 && i < m->disks; i++) {
		snprintf(key, sizeof(key), "%s.fileName", m->disk[i].node);
		r = vmx_set(v, key, m->disk[i].file, err);
	}
	if (r == 0)
		r = vmx_write(v, s->vmx, err);
	vmx_destroy(v);
	return r;
}

/* ---- life ---- */

int vm_snapshot_open(struct vm_snapshot *s, const struct vm_folder *f, struct machine *m,
		     const struct storage_plan *plan, struct error *err)
{
	struct vmx *v = NULL;

	*s = (struct vm_snapshot){
		.vmx = strdup(f->vmx), .folder = strdup(f->folder), .vmsd = vm_file(f, ".vmsd")};
	s->machine.folder = s->folder;
	s->machine.vmsd_path = s->vmsd;
	s->machine.save = save;
	s->machine.opaque = s;
	if (!s->vmx || !s->folder || !s->vmsd)
		return error_set(err, -ENOMEM, "%s: out of memory", f->vmx);
	int r = vmx_read(&v, f->vmx, err);
	struct collector c = {.s = s, .v = v, .m = m, .plan = plan};
	if (r == 0) {
		vm_config_each_drive(v, add, &c);
		if (c.result)
			r = error_set(err, c.result, "%s: out of memory", f->vmx);
		else if (!s->machine.disks)
			r = error_set(err, -ENODEV, "%s: it has no disk that could be snapshotted",
				      f->vmx);
	}
	for (unsigned i = 0; r == 0 && m && i < s->machine.disks; i++)
		if (!s->machine.disk[i].open)
			r = error_set(err, -ESTALE,
				      "%s: %s was put in while it runs; stop it first", f->vmx,
				      s->machine.disk[i].node);
	vmx_destroy(v);
	return r;
}

void vm_snapshot_close(struct vm_snapshot *s)
{
	for (unsigned i = 0; i < s->machine.disks; i++) {
		free(s->machine.disk[i].node);
		free(s->machine.disk[i].file);
	}
	free(s->machine.disk);
	free(s->vmx);
	free(s->folder);
	free(s->vmsd);
	*s = (struct vm_snapshot){0};
}
