/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diskmodel --ops N [--seed S] [--type T]: random things done to disks and their snapshots, against a
 * plain model in memory. Now and then the process "dies": from some call to the host on, nothing has an
 * effect any more; then the disk is opened anew. Nothing is synced for real, so it is fast.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "disk/file.h"
#include "rig.h"

enum { LIFE_OPS = 4000, KILL_EVERY = 150 };

/* ---- a host that can go away ---- */

static struct {
	bool armed, dead;
	unsigned calls_left;
} host;

static bool gone(void)
{
	if (host.armed && !host.dead && host.calls_left-- == 0)
		host.dead = true;
	return host.dead;
}

static ssize_t write_or_die(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			    int flags)
{
	return gone() ? -EIO : file_host_backend.pwritev2(opaque, fd, iov, n, offset, flags);
}

static int no_sync(void *opaque, int fd)
{
	(void)opaque, (void)fd;
	return gone() ? -EIO : 0;
}

static int truncate_or_die(void *opaque, int fd, off_t bytes)
{
	return gone() ? -EIO : file_host_backend.ftruncate(opaque, fd, bytes);
}

static int fallocate_or_die(void *opaque, int fd, int mode, off_t offset, off_t bytes)
{
	return gone() ? -EIO : file_host_backend.fallocate(opaque, fd, mode, offset, bytes);
}

static int open_or_die(void *opaque, const char *path, int flags, mode_t mode)
{
	if (flags & O_CREAT && gone())
		return -EIO;
	return file_host_backend.open(opaque, path, flags, mode);
}

static int rename_or_die(void *opaque, const char *from, const char *to)
{
	return gone() ? -EIO : file_host_backend.rename(opaque, from, to);
}

static int unlink_or_die(void *opaque, const char *path)
{
	return gone() ? -EIO : file_host_backend.unlink(opaque, path);
}

static int no_sync_folder(void *opaque, const char *folder)
{
	(void)opaque, (void)folder;
	return gone() ? -EIO : 0;
}

static struct file_backend backend;

static void use_host(void)
{
	backend = file_host_backend;
	backend.open = open_or_die;
	backend.pwritev2 = write_or_die;
	backend.fdatasync = no_sync;
	backend.ftruncate = truncate_or_die;
	backend.fallocate = fallocate_or_die;
	backend.rename = rename_or_die;
	backend.unlink = unlink_or_die;
	backend.sync_folder = no_sync_folder;
	file_set_backend(&backend);
}

/* ---- lives ---- */

static const struct {
	const char *type;
	uint32_t grain_bytes;
} kinds[] = {
	{"monolithicSparse", 4096}, {"monolithicSparse", 65536}, {"twoGbMaxExtentSparse", 16384},
	{"vmfsSparse", 0},	    {"monolithicFlat", 0},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static void empty_folder(const char *folder)
{
	DIR *dir = opendir(folder);
	char path[512];

	for (struct dirent *e; dir && (e = readdir(dir));) {
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (dir)
		closedir(dir);
}

static void verify(struct rig *r, unsigned op)
{
	char line[600];

	if (!rig_verify(r, &r->known, true, line, sizeof(line)))
		die("after operation %u: %s (folder %s)", op, line, r->folder);
}

/* From some call on nothing has an effect; what the process knew is forgotten. */
static void kill_and_restart(struct rig *r, unsigned op)
{
	struct error err;

	r->crashes = host.armed = true;
	host.calls_left = pick(&r->seed, 40);
	for (unsigned i = 0; i < 30 && rig_step(r) && !host.dead; i++)
		;
	host.dead = true;
	rig_close(r);
	host.armed = host.dead = r->crashes = false;
	if (!rig_load(r, &err))
		die("%s", err.text);
	verify(r, op);
}

static void one_life(const char *folder, unsigned kind, unsigned ops, uint32_t seed)
{
	struct disk_create_options opt = {.format = "vmdk",
					  .type = kinds[kind].type,
					  .grain_bytes = kinds[kind].grain_bytes,
					  .bytes = 1 << 20};
	struct rig r = {.resizes = true};

	empty_folder(folder);
	rig_create(&r, folder, &opt, seed);
	for (unsigned i = 0; i < ops; i++) {
		rig_step(&r);
		if (pick(&r.seed, KILL_EVERY) == 0)
			kill_and_restart(&r, i);
	}
	rig_close(&r);
	verify(&r, ops);
	rig_destroy(&r);
}

static void say_nothing(void *opaque, enum log_level level, const char *line)
{
	(void)opaque, (void)level, (void)line;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"ops", required_argument, NULL, 'o'}, {"seed", required_argument, NULL, 's'}, {0}};
	char folder[] = "/tmp/hanok-model-XXXXXX";
	unsigned ops = 20000;
	uint32_t seed = (uint32_t)clock_ns();

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 'o')
			ops = (unsigned)strtoul(optarg, NULL, 0);
		else if (c == 's')
			seed = (uint32_t)strtoul(optarg, NULL, 0);
		else
			return 2;
	}
	if (!mkdtemp(folder))
		return 1;
	printf("diskmodel: %u operations, seed %u (again: --ops %u --seed %u)\n", ops, seed, ops,
	       seed);
	fflush(stdout);
	use_host();
	/* A host that goes away is news to nobody here. */
	log_set_sink(say_nothing, NULL);
	for (unsigned done = 0, life = 0; done < ops; life++) {
		unsigned n = ops - done < LIFE_OPS ? ops - done : LIFE_OPS;
		one_life(folder, life % KINDS, n, seed + life);
		done += n;
	}
	empty_folder(folder);
	rmdir(folder);
	puts("diskmodel: all as it should be");
	return 0;
}
