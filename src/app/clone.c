/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok clone`: another machine like one that is there. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/child.h"
#include "app/new_folder.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "control/vm_snapshot.h"
#include "machine/vmx.h"

static const char help[] =
	"hanok clone: make another machine like one that is there.\n"
	"\n"
	"  hanok clone mail mail2               its disks are copied\n"
	"  hanok clone --linked mail mail2      its disks begin as mail's and keep only what differs:\n"
	"                                       made at once, but mail must stay where it is\n"
	"  hanok clone --linked --snapshot clean mail mail2\n"
	"                                       ... as they were in that snapshot\n"
	"\n"
	"The machine that is cloned must not run. --linked without --snapshot takes a snapshot of it\n"
	"first, named after the clone. The clone gets a uuid.bios of its own; what is on its disk is\n"
	"the same, host name and passwords included.\n"
	"\n"
	"Exit status: 0 it is there; 2 the command line is wrong; 125 it could not be made, and\n"
	"nothing is left of it.\n";

enum { DISKS_MAX = 64 };

struct clone {
	bool linked;
	const char *snapshot; /* NULL: as it is now */
	const char *words[2];

	struct vm_folder from, to;
	struct vm_snapshot disks; /* of the source */
	struct vmx *vmx;
	char *paths[DISKS_MAX]; /* of the clone's disks, as of disks.machine.disk[] */
};

static int set_option(void *opaque, int option, struct error *err)
{
	struct clone *c = opaque;

	(void)err;
	if (option == 'l')
		c->linked = true;
	else
		c->snapshot = optarg;
	return 0;
}

/* ---- disks ---- */

/* The clone's .vmx and paths[] name disk i as NAME.vmdk, NAME_1.vmdk ... */
static int name_disk(struct clone *c, unsigned i, struct error *err)
{
	char name[128], key[96];

	if (i)
		snprintf(name, sizeof(name), "%s_%u.vmdk", c->to.base, i);
	else
		snprintf(name, sizeof(name), "%s.vmdk", c->to.base);
	if (asprintf(&c->paths[i], "%s/%s", c->to.folder, name) < 0) {
		c->paths[i] = NULL;
		return error_set(err, -ENOMEM, "clone: out of memory");
	}
	snprintf(key, sizeof(key), "%s.fileName", c->disks.machine.disk[i].node);
	return vmx_set(c->vmx, key, name, err);
}

static int show_progress(void *opaque, uint64_t done, uint64_t total)
{
	struct short_text a, b;

	(void)opaque;
	progress("copying: %s of %s", show_bytes(&a, done), show_bytes(&b, total));
	return 0;
}

static int copy_disk(const struct clone *c, unsigned i, struct error *err)
{
	static const struct snapshot_progress watch = {.fn = show_progress};
	const struct disk_create_options options = {.format = "vmdk", .type = "monolithicSparse"};
	const char *name = c->disks.machine.disk[i].file;
	char *source = NULL;

	if (asprintf(&source, "%s%s%s", *name == '/' ? "" : c->from.folder, *name == '/' ? "" : "/",
		     name) < 0)
		return error_set(err, -ENOMEM, "clone: out of memory");
	int r = snapshot_clone(source, c->paths[i], &options, &watch, err);
	progress_end();
	free(source);
	return r;
}

/* The snapshot to lie on: the one that was named, or a new one. */
static int find_snapshot(struct clone *c, uint32_t *uid, struct error *err)
{
	struct vmsd_snapshot *found;
	struct snapshot_take *t;
	struct vmsd tree;
	char name[100];

	if (!c->snapshot) {
		snprintf(name, sizeof(name), "for %s", c->to.base);
		int r = snapshot_take_prepare(&t, &c->disks.machine, name, c->to.vmx, NULL, err);
		return r < 0 ? r : snapshot_take_commit(t, uid, err);
	}
	int r = vmsd_load(&tree, c->disks.vmsd, err);
	if (r == 0)
		r = vmsd_find_name(&tree, c->snapshot, &found, err);
	if (r == 0)
		*uid = found->uid;
	vmsd_free(&tree);
	return r;
}

static int make_disks(struct clone *c, struct error *err)
{
	uint32_t uid = 0;
	int r = 0;

	if (c->disks.machine.disks > DISKS_MAX)
		return error_set(err, -E2BIG, "%s: too many disks", c->from.vmx);
	for (unsigned i = 0; r == 0 && i < c->disks.machine.disks; i++)
		r = name_disk(c, i, err);
	if (c->linked && r == 0) {
		r = find_snapshot(c, &uid, err);
		if (r == 0)
			r = snapshot_linked_clone(&c->disks.machine, uid,
						  (const char *const *)c->paths, c->to.vmx, err);
		return r;
	}
	for (unsigned i = 0; r == 0 && i < c->disks.machine.disks; i++)
		r = copy_disk(c, i, err);
	return r;
}

/* ---- other files ---- */

/* A file of the source's folder that a key names comes along, as NAME + suffix. */
static int copy_file(struct clone *c, const char *key, const char *suffix, struct error *err)
{
	const char *name = vmx_get(c->vmx, key);
	char from[4096], to[4096], new[128];
	const char *const argv[] = {"cp", "--reflink=auto", "--", from, to, NULL};

	if (!name || !*name || strchr(name, '/'))
		return 0;
	snprintf(from, sizeof(from), "%.3000s/%.1000s", c->from.folder, name);
	snprintf(new, sizeof(new), "%.64s%s", c->to.base, suffix);
	snprintf(to, sizeof(to), "%.3000s/%s", c->to.folder, new);
	int r = vmx_set(c->vmx, key, new, err);
	if (r == 0 && access(from, F_OK) == 0)
		r = child_run(&(struct child){.argv = argv,
					      .what = "copying",
					      .package = "coreutils",
					      .log = "/dev/null"},
			      err);
	return r;
}

static int make_vmx(struct clone *c, struct error *err)
{
	char uuid[UUID_BIOS_BYTES];
	int r = vmx_read(&c->vmx, c->from.vmx, err);

	new_uuid_bios(uuid);
	if (r == 0)
		r = vmx_set(c->vmx, "displayName", c->to.base, err);
	if (r == 0)
		r = vmx_set(c->vmx, "uuid.bios", uuid, err);
	/* New ones follow from the new uuid.bios. */
	for (unsigned n = 0; r == 0 && n < NICS_MAX; n++) {
		char key[40];
		snprintf(key, sizeof(key), "ethernet%u.generatedAddress", n);
		vmx_unset(c->vmx, key);
	}
	if (r == 0)
		r = copy_file(c, "nvram", ".nvram", err);
	if (r == 0)
		r = copy_file(c, "hanok.kernel", ".vmlinuz", err);
	if (r == 0)
		r = copy_file(c, "hanok.initrd", ".initrd", err);
	return r;
}

/* ---- all of it ---- */

static int make(struct clone *c, struct error *err)
{
	int r = vm_snapshot_open(&c->disks, &c->from, NULL, NULL, err);

	/* A machine without disks is soon cloned. */
	if (r == -ENODEV && !c->linked)
		r = 0;
	if (r == 0)
		r = make_vmx(c, err);
	if (r == 0)
		r = make_disks(c, err);
	if (r == 0)
		r = vmx_write(c->vmx, c->to.vmx, err);
	for (unsigned i = 0; i < DISKS_MAX; i++)
		free(c->paths[i]);
	vmx_destroy(c->vmx);
	vm_snapshot_close(&c->disks);
	return r;
}

static int clone_machine(struct clone *c, struct error *err)
{
	int lock = -1;
	int r = vm_find(&c->from, c->words[0], err);

	if (r == 0)
		r = vm_lock(&c->from, &lock, err);
	if (r == 0)
		r = new_folder_make(c->words[1], &c->to, err);
	if (r == 0) {
		r = make(c, err);
		if (r < 0)
			new_folder_undo(&c->to);
	}
	vm_unlock(&c->from, lock);
	vm_folder_free(&c->to);
	vm_folder_free(&c->from);
	return r;
}

int verb_clone(int argc, char **argv)
{
	static const struct option options[] = {
		{"linked", no_argument, NULL, 'l'},
		{"snapshot", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct clone c = {0};
	const struct verb_words words = {c.words,
					 2,
					 2,
					 "which machine, and what shall the clone be "
					 "called?",
					 set_option,
					 &c};
	struct error err = {""};

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	r = new_folder_check(c.words[1], &err);
	if (r == 0 && c.snapshot && !c.linked)
		r = error_set(&err, -EINVAL, "--snapshot: it is for --linked");
	if (r < 0)
		return fail(STATUS_USAGE, "%s", err.text);
	return clone_machine(&c, &err) < 0 ? fail(STATUS_FAILED, "%s", err.text) : STATUS_OK;
}
