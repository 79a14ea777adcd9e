/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diskcrash --points N [--seed S]: random things are done to a machine's disk and snapshots while every
 * call that changes a file is recorded. Then the power fails after each of the recorded calls, in turn:
 * files are made as the host could have left them, the machine is opened from them, and everything
 * that was flushed has to be there, in images without errors.
 *
 * What a host may leave, and is tried at each point:
 *	all	every call so far
 *	none	only what was synced: of a file by fdatasync, of names by an fsync of their folder
 *	some	of what was not synced, any sectors of any writes; names in their order up to any point
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "disk/file.h"
#include "disk/snapshot_internal.h"
#include "rig.h"

enum { SCRIPT_STEPS = 120, SECTOR = 512, FILES_MAX = 512, FDS_MAX = 1024 };

enum kind { WRITE, ZERO, TRUNCATE, SYNC, CREATE, RENAME, UNLINK, SYNC_FOLDER, KNOWN };

struct event {
	enum kind kind;
	unsigned file; /* which */
	uint64_t offset, bytes;
	void *data;
	char *name, *to; /* without the folder */
	struct rig_event known;
};

/* ---- recording ---- */

static struct {
	struct event *event;
	unsigned count, room;
	unsigned files;
	unsigned fd_file[FDS_MAX];
	struct {
		char *name;
		unsigned file;
	} name[FILES_MAX];
	unsigned names;
	bool on;
} tape;

static struct event *record(enum kind kind)
{
	if (tape.count == tape.room) {
		tape.room = tape.room ? tape.room * 2 : 1024;
		tape.event = realloc(tape.event, tape.room * sizeof(*tape.event));
		if (!tape.event)
			die("out of memory");
	}
	struct event *e = &tape.event[tape.count++];
	*e = (struct event){.kind = kind};
	return e;
}

static unsigned file_named(const char *path)
{
	for (unsigned i = 0; i < tape.names; i++)
		if (!strcmp(tape.name[i].name, path_base(path)))
			return i;
	return FILES_MAX;
}

static int rec_open(void *opaque, const char *path, int flags, mode_t mode)
{
	int fd = file_host_backend.open(opaque, path, flags, mode);

	if (fd < 0 || !tape.on)
		return fd;
	unsigned at = file_named(path);
	if (at == FILES_MAX) {
		if (!(flags & O_CREAT) || tape.names == FILES_MAX || fd >= FDS_MAX)
			die("%s: opened, but nobody made it", path);
		at = tape.names++;
		tape.name[at].name = strdup(path_base(path));
		tape.name[at].file = tape.files++;
		struct event *e = record(CREATE);
		e->file = tape.name[at].file;
		e->name = strdup(path_base(path));
	}
	tape.fd_file[fd] = tape.name[at].file;
	return fd;
}

static ssize_t rec_write(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			 int flags)
{
	ssize_t done = file_host_backend.pwritev2(opaque, fd, iov, n, offset, flags);
	struct event *e;
	size_t at = 0;

	if (done <= 0 || !tape.on)
		return done;
	e = record(WRITE);
	e->file = tape.fd_file[fd];
	e->offset = (uint64_t)offset;
	e->bytes = (uint64_t)done;
	e->data = malloc((size_t)done);
	for (int i = 0; e->data && i < n && at < (size_t)done; i++) {
		size_t part = iov[i].iov_len;
		if (part > (size_t)done - at)
			part = (size_t)done - at;
		memcpy((char *)e->data + at, iov[i].iov_base, part);
		at += part;
	}
	return done;
}

static int rec_sync(void *opaque, int fd)
{
	(void)opaque;
	if (tape.on)
		record(SYNC)->file = tape.fd_file[fd];
	return 0;
}

static int rec_truncate(void *opaque, int fd, off_t bytes)
{
	int rc = file_host_backend.ftruncate(opaque, fd, bytes);

	if (!rc && tape.on) {
		struct event *e = record(TRUNCATE);
		e->file = tape.fd_file[fd];
		e->bytes = (uint64_t)bytes;
	}
	return rc;
}

static int rec_fallocate(void *opaque, int fd, int mode, off_t offset, off_t bytes)
{
	struct stat st;
	int rc = file_host_backend.fallocate(opaque, fd, mode, offset, bytes);

	if (rc || !tape.on)
		return rc;
	struct event *e = record(mode ? ZERO : TRUNCATE);
	e->file = tape.fd_file[fd];
	e->offset = (uint64_t)offset;
	e->bytes = (uint64_t)bytes;
	if (!mode) /* of an allocation only the size shows */
		e->bytes = fstat(fd, &st) ? 0 : (uint64_t)st.st_size;
	return 0;
}

static int rec_rename(void *opaque, const char *from, const char *to)
{
	int rc = file_host_backend.rename(opaque, from, to);
	unsigned old = file_named(to), at = file_named(from);

	if (rc || !tape.on)
		return rc;
	struct event *e = record(RENAME);
	e->name = strdup(path_base(from));
	e->to = strdup(path_base(to));
	if (old != FILES_MAX) {
		free(tape.name[old].name);
		tape.name[old].name = strdup("");
	}
	free(tape.name[at].name);
	tape.name[at].name = strdup(path_base(to));
	return 0;
}

static int rec_unlink(void *opaque, const char *path)
{
	int rc = file_host_backend.unlink(opaque, path);

	if (rc || !tape.on)
		return rc;
	unsigned at = file_named(path);
	record(UNLINK)->name = strdup(path_base(path));
	free(tape.name[at].name);
	tape.name[at].name = strdup("");
	return 0;
}

static int rec_sync_folder(void *opaque, const char *folder)
{
	(void)opaque, (void)folder;
	if (tape.on)
		record(SYNC_FOLDER);
	return 0;
}

static struct file_backend recorder;

static void use_recorder(void)
{
	recorder = file_host_backend;
	recorder.open = rec_open;
	recorder.pwritev2 = rec_write;
	recorder.fdatasync = rec_sync;
	recorder.ftruncate = rec_truncate;
	recorder.fallocate = rec_fallocate;
	recorder.rename = rec_rename;
	recorder.unlink = rec_unlink;
	recorder.sync_folder = rec_sync_folder;
	file_set_backend(&recorder);
}

static void tape_clear(void)
{
	for (unsigned i = 0; i < tape.count; i++) {
		free(tape.event[i].data);
		free(tape.event[i].name);
		free(tape.event[i].to);
		free(tape.event[i].known.content);
	}
	for (unsigned i = 0; i < tape.names; i++)
		free(tape.name[i].name);
	tape.count = tape.files = tape.names = 0;
}

static void told(struct rig *r, const struct rig_event *e)
{
	struct event *to = record(KNOWN);

	to->known = *e;
	if (e->content) {
		size_t bytes = r->known.model.sectors * sizeof(*e->content);
		to->known.content = malloc(bytes);
		memcpy(to->known.content, e->content, bytes);
	}
}

/* ---- what a host has ---- */

struct bytes {
	char *data;
	uint64_t size;
};

static struct {
	struct bytes file[FILES_MAX]; /* what is synced */
	unsigned pending[1 << 16];    /* events on files that are not, in order */
	unsigned pendings;
	struct {
		char *name;
		unsigned file;
	} name[FILES_MAX]; /* what is synced */
	unsigned names;
	unsigned renames[4096]; /* events on names that are not, in order */
	unsigned renames_count;
	struct known known;
} host;

static void need(struct bytes *b, uint64_t size)
{
	if (size <= b->size)
		return;
	b->data = realloc(b->data, size);
	if (!b->data)
		die("out of memory");
	memset(b->data + b->size, 0, size - b->size);
	b->size = size;
}

/* All of an event, or, with a seed, some of its sectors. */
static void apply(struct bytes *b, const struct event *e, uint32_t *some)
{
	if (e->kind == TRUNCATE) {
		if (some && pick(some, 2))
			return;
		if (e->bytes < b->size)
			b->size = e->bytes;
		else
			need(b, e->bytes);
		return;
	}
	unsigned how = some ? pick(some, 3) : 1; /* none, all, sector by sector */
	if (how == 0)
		return;
	uint64_t end = e->offset + e->bytes;
	if (e->kind == ZERO && end > b->size)
		end = b->size;
	else
		need(b, end);
	for (uint64_t at = e->offset, n; at < end; at += n) {
		n = SECTOR - at % SECTOR;
		if (n > end - at)
			n = end - at;
		if (how == 2 && pick(some, 2))
			continue;
		if (e->kind == ZERO)
			memset(b->data + at, 0, n);
		else
			memcpy(b->data + at, (char *)e->data + (at - e->offset), n);
	}
}

static void apply_name(void *names, unsigned *count, const struct event *e)
{
	struct {
		char *name;
		unsigned file;
	} *name = names;
	const char *gone = e->kind == RENAME ? e->to : e->name;
	unsigned moved = FILES_MAX;

	for (unsigned i = 0; e->kind == RENAME && i < *count; i++)
		if (!strcmp(name[i].name, e->name))
			moved = name[i].file;
	for (unsigned i = 0; i < *count; i++)
		if (!strcmp(name[i].name, gone) ||
		    (e->kind == RENAME && !strcmp(name[i].name, e->name)))
			name[i--] = name[--*count];
	if (e->kind == CREATE)
		name[*count].name = e->name, name[(*count)++].file = e->file;
	else if (e->kind == RENAME)
		name[*count].name = e->to, name[(*count)++].file = moved;
}

/* The event happened. */
static void advance(unsigned at)
{
	struct event *e = &tape.event[at];
	unsigned kept = 0;

	switch (e->kind) {
	case KNOWN:
		known_apply(&host.known, &e->known);
		break;
	case SYNC:
		for (unsigned i = 0; i < host.pendings; i++) {
			struct event *p = &tape.event[host.pending[i]];
			if (p->file == e->file)
				apply(&host.file[p->file], p, NULL);
			else
				host.pending[kept++] = host.pending[i];
		}
		host.pendings = kept;
		break;
	case SYNC_FOLDER:
		for (unsigned i = 0; i < host.renames_count; i++)
			apply_name(host.name, &host.names, &tape.event[host.renames[i]]);
		host.renames_count = 0;
		break;
	case CREATE:
	case RENAME:
	case UNLINK:
		host.renames[host.renames_count++] = at;
		break;
	default:
		host.pending[host.pendings++] = at;
	}
	if (host.pendings == sizeof(host.pending) / sizeof(host.pending[0]) ||
	    host.renames_count == sizeof(host.renames) / sizeof(host.renames[0]))
		die("too much was never synced");
}

static void host_clear(void)
{
	for (unsigned i = 0; i < FILES_MAX; i++)
		free(host.file[i].data);
	known_free(&host.known);
	memset(&host, 0, sizeof(host));
}

/* ---- what is left of it ---- */

enum left { LEFT_ALL, LEFT_NONE, LEFT_SOME, LEFTS };
static const char *const left_names[] = {"all", "none", "some"};

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

static void put_file(const char *folder, const char *name, const struct bytes *b)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
	if (fd < 0 || (b->size && pwrite(fd, b->data, b->size, 0) != (ssize_t)b->size))
		die("%s: %s", path, strerror(errno));
	close(fd);
}

static void leave_file(const char *folder, const char *name, unsigned file, enum left left,
		       uint32_t *seed)
{
	struct bytes b = {0};

	need(&b, host.file[file].size);
	if (b.size)
		memcpy(b.data, host.file[file].data, b.size);
	for (unsigned i = 0; left != LEFT_NONE && i < host.pendings; i++) {
		const struct event *e = &tape.event[host.pending[i]];
		if (e->file == file)
			apply(&b, e, left == LEFT_SOME ? seed : NULL);
	}
	put_file(folder, name, &b);
	free(b.data);
}

static void leave(const char *folder, enum left left, uint32_t *seed)
{
	static struct {
		char *name;
		unsigned file;
	} name[FILES_MAX];
	unsigned names = host.names, upto = 0;

	memcpy(name, host.name, sizeof(name));
	if (left == LEFT_ALL)
		upto = host.renames_count;
	else if (left == LEFT_SOME)
		upto = pick(seed, host.renames_count + 1);
	for (unsigned i = 0; i < upto; i++)
		apply_name(name, &names, &tape.event[host.renames[i]]);
	empty_folder(folder);
	for (unsigned i = 0; i < names; i++)
		leave_file(folder, name[i].name, name[i].file, left, seed);
}

/* ---- looking at it ---- */

static struct known *known_copy(const struct known *from)
{
	struct known *k = calloc(1, sizeof(*k));
	size_t bytes = from->model.sectors * sizeof(struct sector);

	k->model.sectors = from->model.sectors;
	k->model.sector = memcpy(malloc(bytes), from->model.sector, bytes);
	if (from->model.instead) {
		bytes = from->model.sectors * sizeof(uint64_t);
		k->model.instead = memcpy(malloc(bytes), from->model.instead, bytes);
	}
	for (unsigned i = 0; i < from->snaps; i++)
		known_snap(k, from->snap[i].uid, from->snap[i].stamp, from->snap[i].sectors);
	return k;
}

/* Whoever looks after the crash: sees the machine, mends it, uses it. */
static bool survives(struct rig *after, struct known *k, bool further, char *line, size_t bytes)
{
	struct error err;

	if (!rig_load(after, &err)) {
		snprintf(line, bytes, "%s", err.text);
		return false;
	}
	if (!rig_verify(after, k, true, line, bytes))
		return false;
	if (!further)
		return true;
	if (snapshot_consolidate(&after->m, NULL, &err)) {
		snprintf(line, bytes, "consolidate: %s", err.text);
		return false;
	}
	return rig_verify(after, k, true, line, bytes);
}

struct run {
	const char *folder, *crashed;
	unsigned points, done, kind;
	uint32_t seed, life;
};

static void crash_here(struct run *run, const struct rig *r, unsigned at)
{
	char line[600];

	for (enum left left = 0; left < LEFTS; left++) {
		struct rig after = *r;
		uint32_t seed = run->seed + at * 977 + left + 1;
		struct known *k = known_copy(&host.known);

		leave(run->crashed, left, &seed);
		snprintf(after.folder, sizeof(after.folder), "%s", run->crashed);
		after.vmx = path_join(run->crashed, "m.vmx");
		after.vmsd = path_join(run->crashed, "m.vmsd");
		after.disk.file = NULL;
		after.disk.open = after.open = NULL;
		after.m.folder = after.folder;
		after.m.vmsd_path = after.vmsd;
		after.m.disk = &after.disk;
		after.m.opaque = &after;
		if (!survives(&after, k, run->done % 5 == 0, line, sizeof(line)))
			die("diskcrash: life %u, seed %u, after call %u of %u, %s of what was not "
			    "synced: %s (folder %s)",
			    run->life, run->seed, at, tape.count, left_names[left], line,
			    run->crashed);
		free(after.vmx);
		free(after.vmsd);
		free(after.disk.file);
		known_free(k);
		free(k);
		run->done++;
	}
}

static const struct {
	const char *type;
	uint32_t grain_bytes;
} kinds[] = {
	{"monolithicSparse", 4096},
	{"monolithicSparse", 65536},
	{"twoGbMaxExtentSparse", 8192},
	{"vmfsSparse", 0},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static void one_life(struct run *run)
{
	struct disk_create_options opt = {.format = "vmdk",
					  .type = kinds[run->kind].type,
					  .grain_bytes = kinds[run->kind].grain_bytes,
					  .bytes = 512 << 10};
	struct rig r = {.told = told, .snaps = run->life % 2};
	bool made = false;

	empty_folder(run->folder);
	tape_clear();
	tape.on = true;
	rig_create(&r, run->folder, &opt, run->seed);
	unsigned ready = tape.count;
	for (unsigned i = 0; i < SCRIPT_STEPS; i++)
		rig_step(&r);
	rig_close(&r);
	tape.on = false;
	model_resize(&host.known.model, opt.bytes / DISK_SECTOR_BYTES);
	for (unsigned i = 0; i < tape.count && run->done < run->points; i++) {
		advance(i);
		made |= i + 1 >= ready;
		/* Whether what changes nothing on the host comes before or after a crash is all one. */
		if (made && tape.event[i].kind != KNOWN)
			crash_here(run, &r, i);
	}
	host_clear();
	tape_clear();
	rig_destroy(&r);
}

static void say_nothing(void *opaque, enum log_level level, const char *line)
{
	(void)opaque, (void)level, (void)line;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"points", required_argument, NULL, 'p'},
						{"seed", required_argument, NULL, 's'},
						{0}};
	char folder[] = "/tmp/hanok-crash-XXXXXX", crashed[] = "/tmp/hanok-crashed-XXXXXX";
	struct run run = {.folder = folder, .crashed = crashed, .points = 1000};
	uint32_t seed = (uint32_t)clock_ns();

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 'p')
			run.points = (unsigned)strtoul(optarg, NULL, 0);
		else if (c == 's')
			seed = (uint32_t)strtoul(optarg, NULL, 0);
		else
			return 2;
	}
	if (!mkdtemp(folder) || !mkdtemp(crashed))
		return 1;
	printf("diskcrash: %u crashes, seed %u (again: --points %u --seed %u)\n", run.points, seed,
	       run.points, seed);
	fflush(stdout);
	use_recorder();
	log_set_sink(say_nothing, NULL);
	for (; run.done < run.points; run.life++) {
		run.kind = run.life % KINDS;
		run.seed = seed + run.life * 7919;
		one_life(&run);
	}
	empty_folder(folder);
	empty_folder(crashed);
	rmdir(folder);
	rmdir(crashed);
	printf("diskcrash: %u crashes in %u lives, nothing lost\n", run.done, run.life);
	free(tape.event);
	return 0;
}
