/* SPDX-License-Identifier: Apache-2.0 */
/* A .vmsd file: whatever is taken, is written and taken again as the same tree. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "disk/file.h"
#include "disk/vmsd.h"

static void same(const struct vmsd *a, const struct vmsd *b)
{
	if (a->count != b->count || a->current != b->current || a->last_uid != b->last_uid)
		abort();
	for (unsigned i = 0; i < a->count; i++) {
		const struct vmsd_snapshot *x = &a->snapshot[i], *y = &b->snapshot[i];
		if (x->uid != y->uid || x->parent != y->parent || x->disks != y->disks ||
		    x->created_us != y->created_us || x->clones != y->clones ||
		    strcmp(x->name, y->name) || strcmp(x->description, y->description))
			abort();
	}
}

/* Nothing here has to survive a crash. */
static int no_sync(void *opaque, int fd)
{
	(void)opaque, (void)fd;
	return 0;
}

static int no_sync_folder(void *opaque, const char *folder)
{
	(void)opaque, (void)folder;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char out[64], in[64];
	static int fd = -1;
	struct vmsd v, again;

	if (fd < 0) {
		static struct file_backend backend;
		backend = file_host_backend;
		backend.fdatasync = no_sync;
		backend.sync_folder = no_sync_folder;
		file_set_backend(&backend);
		char folder[] = "/tmp/hanok-fuzz-vmsd-XXXXXX";
		fd = memfd_create("vmsd", 0);
		if (fd < 0 || !mkdtemp(folder))
			abort();
		snprintf(in, sizeof(in), "/proc/self/fd/%d", fd);
		snprintf(out, sizeof(out), "%s/out", folder);
	}
	if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	if (!vmsd_load(&v, in, NULL)) {
		if (vmsd_save(&v, out, NULL) || vmsd_load(&again, out, NULL))
			abort();
		same(&v, &again);
		vmsd_free(&again);
		unlink(out);
	}
	vmsd_free(&v);
	return 0;
}
