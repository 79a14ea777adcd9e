/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left of a VMDK when the power fails, or the host's disk is full.
 *
 * Everything that reaches the host is recorded through struct file_backend. A crash at any point of the
 * record is made by playing it back up to there: what a sync has covered is all there, of the rest any
 * sectors, chosen at random. Each image so made must open, check without errors, and hold in each
 * sector what the last flush promised or something written there since.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk.h"
#include "disk/disk_tools.h"
#include "disk/file.h"

#define MIB UINT64_C(0x100000)

enum { SECTOR = 512, DISK_SECTORS = 8192, FDS = 64, RECORDS = 1 << 16 };

static char folder[64];
static struct error err;
static uint64_t seed;

static uint64_t any(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static const char *in_folder(const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *p = paths[next++ % 4];

	snprintf(p, sizeof(paths[0]), "%s/%s", folder, name);
	return p;
}

/* ---- the recording host ---- */

enum record_kind { R_WRITE, R_TRUNCATE, R_PUNCH, R_SYNC };

struct record {
	enum record_kind kind;
	int file; /* index into files */
	uint64_t offset, bytes;
	uint8_t *data;
};

static struct record records[RECORDS];
static unsigned record_count;
static char files[FDS][128];
static unsigned file_count;
static int file_of_fd[FDS];
static int fail_with;	   /* -errno for what takes space; 0: none */
static unsigned fail_odds; /* one in so many */
static int fail_sync;
static bool no_punch; /* the host's file system cannot */

static struct record *record(enum record_kind kind, int fd, uint64_t offset, uint64_t bytes)
{
	struct record *r = &records[record_count++];

	assert_true(record_count < RECORDS && fd < FDS);
	*r = (struct record){kind, file_of_fd[fd], offset, bytes, NULL};
	return r;
}

static int rec_open(void *opaque, const char *path, int flags, mode_t mode)
{
	int fd = file_host_backend.open(file_host_backend.opaque, path, flags, mode);
	unsigned i = 0;

	(void)opaque;
	if (fd < 0)
		return fd;
	assert_true(fd < FDS);
	while (i < file_count && strcmp(files[i], path))
		i++;
	if (i == file_count) {
		assert_true(file_count < FDS);
		snprintf(files[file_count++], sizeof(files[0]), "%s", path);
	}
	file_of_fd[fd] = (int)i;
	return fd;
}

static ssize_t rec_pwritev2(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			    int flags)
{
	ssize_t done;
	struct record *r;

	(void)opaque;
	if (fail_with && !any(fail_odds))
		return fail_with;
	done = file_host_backend.pwritev2(file_host_backend.opaque, fd, iov, n, offset, flags);
	if (done <= 0)
		return done;
	r = record(R_WRITE, fd, (uint64_t)offset, (uint64_t)done);
	r->data = malloc((size_t)done);
	for (size_t at = 0, i = 0; at < (size_t)done; i++) {
		size_t len = iov[i].iov_len < (size_t)done - at ? iov[i].iov_len
								: (size_t)done - at;
		memcpy(r->data + at, iov[i].iov_base, len);
		at += len;
	}
	return done;
}

static int rec_fdatasync(void *opaque, int fd)
{
	int rc;

	(void)opaque;
	if (fail_sync)
		return fail_sync;
	rc = file_host_backend.fdatasync(file_host_backend.opaque, fd);
	record(R_SYNC, fd, 0, 0);
	return rc;
}

static int rec_ftruncate(void *opaque, int fd, off_t bytes)
{
	(void)opaque;
	if (fail_with && !any(fail_odds))
		return fail_with;
	record(R_TRUNCATE, fd, 0, (uint64_t)bytes);
	return file_host_backend.ftruncate(file_host_backend.opaque, fd, bytes);
}

static int rec_fallocate(void *opaque, int fd, int mode, off_t offset, off_t bytes)
{
	int rc;

	(void)opaque;
	if (no_punch)
		return -EOPNOTSUPP;
	rc = file_host_backend.fallocate(file_host_backend.opaque, fd, mode, offset, bytes);
	if (!rc)
		record(R_PUNCH, fd, (uint64_t)offset, (uint64_t)bytes);
	return rc;
}

static struct file_backend recorder;

static void start_recording(void)
{
	recorder = file_host_backend;
	recorder.open = rec_open;
	recorder.pwritev2 = rec_pwritev2;
	recorder.fdatasync = rec_fdatasync;
	recorder.ftruncate = rec_ftruncate;
	recorder.fallocate = rec_fallocate;
	file_set_backend(&recorder);
}

static void stop_recording(void)
{
	file_set_backend(NULL);
	for (unsigned i = 0; i < record_count; i++)
		free(records[i].data);
	record_count = file_count = 0;
	fail_with = fail_sync = 0;
	no_punch = false;
}

static int setup(void **state)
{
	(void)state;
	seed = 0x2545f4914f6cdd1d;
	snprintf(folder, sizeof(folder), "/tmp/hanok-crash-XXXXXX");
	assert_non_null(mkdtemp(folder));
	return 0;
}

static int teardown(void **state)
{
	char cmd[100];

	(void)state;
	stop_recording();
	snprintf(cmd, sizeof(cmd), "rm -rf %s", folder);
	return system(cmd);
}

/* ---- what sectors may hold ---- */

/* A sector's content: its number and a stamp, or all zero (stamp 0). */
struct history {
	uint32_t durable; /* by the last flush */
	uint32_t *since;  /* what was put there after it */
	unsigned count, room;
};

static struct history sectors[DISK_SECTORS];
static uint32_t last_stamp;

static void put(uint32_t sector, uint32_t stamp)
{
	struct history *h = &sectors[sector];

	if (h->count == h->room) {
		h->room = h->room ? h->room * 2 : 4;
		h->since = realloc(h->since, h->room * sizeof(*h->since));
	}
	h->since[h->count++] = stamp;
}

static void settle_flush(void)
{
	for (uint32_t i = 0; i < DISK_SECTORS; i++) {
		struct history *h = &sectors[i];
		if (h->count)
			h->durable = h->since[h->count - 1];
		h->count = 0;
	}
}

static void forget(void)
{
	for (uint32_t i = 0; i < DISK_SECTORS; i++) {
		free(sectors[i].since);
		sectors[i] = (struct history){0};
	}
}

static void fill(uint8_t *buf, uint32_t sector, uint32_t stamp)
{
	memset(buf, 0, SECTOR);
	for (unsigned i = 0; stamp && i < SECTOR; i += 8) {
		memcpy(buf + i, &sector, 4);
		memcpy(buf + i + 4, &stamp, 4);
	}
}

static bool holds(const uint8_t *buf, uint32_t sector, uint32_t stamp)
{
	uint8_t want[SECTOR];

	fill(want, sector, stamp);
	return !memcmp(buf, want, SECTOR);
}

/* Each sector holds what was promised or something later. */
static void check_sectors(struct disk *d)
{
	uint8_t *buf = malloc(DISK_SECTORS * SECTOR);

	assert_int_equal(disk_rw(d, DISK_READ, 0, buf, DISK_SECTORS * SECTOR), 0);
	for (uint32_t i = 0; i < DISK_SECTORS; i++) {
		const struct history *h = &sectors[i];
		const uint8_t *at = buf + (size_t)i * SECTOR;
		bool good = holds(at, i, h->durable);
		for (unsigned n = 0; n < h->count && !good; n++)
			good = holds(at, i, h->since[n]);
		if (!good)
			fail_msg("sector %u holds neither what was flushed nor what was written "
				 "since",
				 i);
	}
	free(buf);
}

/* ---- requests ---- */

static int write_some(struct disk *d, uint32_t sector, uint32_t count)
{
	uint8_t *buf = malloc((size_t)count * SECTOR);
	uint32_t stamp = ++last_stamp;
	int rc;

	for (uint32_t i = 0; i < count; i++) {
		fill(buf + (size_t)i * SECTOR, sector + i, stamp);
		put(sector + i, stamp);
	}
	rc = disk_rw(d, DISK_WRITE, (uint64_t)sector * SECTOR, buf, (uint64_t)count * SECTOR);
	free(buf);
	return rc;
}

static int zero_some(struct disk *d, enum disk_op op, uint32_t sector, uint32_t count)
{
	uint8_t *buf;
	int rc = disk_rw(d, op, (uint64_t)sector * SECTOR, NULL, (uint64_t)count * SECTOR);

	if (rc || op == DISK_WRITE_ZEROES) {
		for (uint32_t i = 0; i < count; i++)
			put(sector + i, 0);
		return rc;
	}
	/* A discarded sector is zero or as it was. */
	buf = malloc((size_t)count * SECTOR);
	assert_int_equal(
		disk_rw(d, DISK_READ, (uint64_t)sector * SECTOR, buf, (uint64_t)count * SECTOR), 0);
	for (uint32_t i = 0; i < count; i++)
		if (holds(buf + (size_t)i * SECTOR, sector + i, 0))
			put(sector + i, 0);
	free(buf);
	return 0;
}

static int some_request(struct disk *d)
{
	uint32_t count = any(6) ? 1 + (uint32_t)any(24) : 1 + (uint32_t)any(700);
	uint32_t sector = (uint32_t)any(DISK_SECTORS - count);
	unsigned what = (unsigned)any(16);

	if (!any(3))
		sector -= sector % 128;
	if (what < 11)
		return write_some(d, sector, count);
	if (what < 13)
		return zero_some(d, DISK_DISCARD, sector, count);
	return zero_some(d, DISK_WRITE_ZEROES, sector, count);
}

/* ---- playing back ---- */

static void copy_before(const char *cmd)
{
	char line[300];

	snprintf(line, sizeof(line), "cd %s && %s", folder, cmd);
	assert_int_equal(system(line), 0);
}

static void apply(int fd, const struct record *r, bool all)
{
	static const uint8_t zero[SECTOR];

	if (r->kind == R_TRUNCATE && (all || any(2))) {
		assert_int_equal(ftruncate(fd, (off_t)r->bytes), 0);
		return;
	}
	if (r->kind != R_WRITE && r->kind != R_PUNCH)
		return;
	/* Sector by sector of the file: each is old or new. */
	for (uint64_t at = r->offset, end = r->offset + r->bytes, n; at < end; at += n) {
		n = SECTOR - at % SECTOR;
		if (n > end - at)
			n = end - at;
		if (!all && any(2))
			continue;
		if (r->kind == R_PUNCH) {
			struct stat st;
			assert_int_equal(fstat(fd, &st), 0);
			if (at + n <= (uint64_t)st.st_size)
				assert_int_equal(pwrite(fd, zero, n, (off_t)at), n);
		} else {
			assert_int_equal(pwrite(fd, r->data + (at - r->offset), n, (off_t)at), n);
		}
	}
}

/* The folder as it was before, and on it the first `count` records; `all`: only the process died. */
static void play(unsigned count, bool all)
{
	unsigned synced[FDS] = {0};

	copy_before("rm -f *.vmdk && cp --sparse=always before/*.vmdk .");
	for (unsigned i = 0; i < count; i++)
		if (records[i].kind == R_SYNC)
			synced[records[i].file] = i;
	for (unsigned f = 0; f < file_count; f++) {
		int fd = open(files[f], O_RDWR);
		assert_true(fd >= 0);
		for (unsigned i = 0; i < count; i++)
			if (records[i].file == (int)f)
				apply(fd, &records[i], all || i < synced[f]);
		close(fd);
	}
}

static void check_image(const char *name)
{
	struct disk_check_options opt = {.repair = true};
	struct disk_check_result found;

	if (disk_check(in_folder(name), &opt, &found, &err))
		fail_msg("%s", err.text);
	assert_int_equal(found.errors, 0);
	assert_int_equal(disk_check(in_folder(name), &opt, &found, &err), 0);
	assert_int_equal(found.errors, 0);
	assert_int_equal(found.mismatches, 0);
	assert_int_equal(found.leaked_grains, 0);
}

/* ---- the tests ---- */

static struct disk *open_disk(const char *name)
{
	struct disk_options opt = {0};
	struct disk *d = NULL;

	if (disk_open(&d, in_folder(name), &opt, &err))
		fail_msg("%s", err.text);
	return d;
}

/* One round: requests between two flushes; crashes in it and in the second flush. */
static void crash_round(const char *name, unsigned requests)
{
	unsigned first;
	struct disk *d;

	copy_before("rm -rf before && mkdir before && cp --sparse=always *.vmdk before/");
	start_recording();
	d = open_disk(name);
	for (unsigned i = 0; i < requests; i++)
		assert_int_equal(some_request(d), 0);
	assert_int_equal(disk_flush(d), 0);
	settle_flush();
	first = record_count;
	for (unsigned i = 0; i < requests; i++) {
		assert_int_equal(some_request(d), 0);
		if (!any(40))
			assert_int_equal(disk_flush(d), 0); /* its promise is not used */
	}
	assert_int_equal(disk_flush(d), 0);
	disk_close(d);
	file_set_backend(NULL);
	for (unsigned i = 0; i < 12; i++) {
		unsigned at = i == 0   ? first
			      : i == 1 ? record_count
				       : first + (unsigned)any(record_count - first + 1);
		play(at, i % 4 == 3);
		/* The first look is what a machine does that starts again without any check. */
		d = open_disk(name);
		check_sectors(d);
		disk_close(d);
		check_image(name);
		d = open_disk(name);
		check_sectors(d);
		assert_int_equal(write_some(d, 17, 300), 0);
		disk_close(d);
		check_image(name);
		for (uint32_t s = 17; s < 317; s++)
			sectors[s].count--;
	}
	stop_recording();
	copy_before("rm -f *.vmdk && cp --sparse=always before/*.vmdk .");
}

static void crashes_lose_nothing_that_was_flushed(void **state)
{
	static const struct disk_create_options kinds[] = {
		{.bytes = DISK_SECTORS * SECTOR, .grain_bytes = 4096},
		{.bytes = DISK_SECTORS * SECTOR},
		{.bytes = DISK_SECTORS * SECTOR, .type = "twoGbMaxExtentSparse"},
		{.bytes = DISK_SECTORS * SECTOR, .type = "vmfsSparse", .grain_bytes = 4096},
		{.bytes = DISK_SECTORS * SECTOR, .type = "monolithicFlat"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		assert_int_equal(disk_create(in_folder("a.vmdk"), &kinds[i], &err), 0);
		crash_round("a.vmdk", 60);
		forget();
		copy_before("rm -rf before *.vmdk");
	}
}

/* On a parent: copied grains, zeroed entries. */
static void crashes_of_children_too(void **state)
{
	static const char *const types[] = {"monolithicSparse", "vmfsSparse"};
	struct disk_create_options base = {.bytes = DISK_SECTORS * SECTOR};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		char parent[128];
		struct disk *d;
		struct disk_create_options child = {.parent = parent, .type = types[i]};

		snprintf(parent, sizeof(parent), "%s/base.vmdk", folder);
		assert_int_equal(disk_create(parent, &base, &err), 0);
		d = open_disk("base.vmdk");
		for (unsigned n = 0; n < 60; n++)
			assert_int_equal(some_request(d), 0);
		disk_close(d);
		settle_flush();
		assert_int_equal(disk_create(in_folder("a.vmdk"), &child, &err), 0);
		crash_round("a.vmdk", 60);
		forget();
		copy_before("rm -rf before *.vmdk");
	}
}

/* The host's disk fills up, again and again: -ENOSPC, nothing lost, and later it works. */
static void a_full_host_is_survived(void **state)
{
	struct disk_create_options opt = {.bytes = DISK_SECTORS * SECTOR, .grain_bytes = 4096};
	unsigned failed = 0;
	struct disk *d;

	(void)state;
	assert_int_equal(disk_create(in_folder("a.vmdk"), &opt, &err), 0);
	start_recording();
	d = open_disk("a.vmdk");
	assert_int_equal(write_some(d, 0, 1), 0); /* the mark and the CID need no space */
	for (unsigned i = 0; i < 600; i++) {
		int rc;

		no_punch = any(2);
		fail_with = any(2) ? -ENOSPC : 0;
		fail_odds = 1 + (unsigned)any(3);
		rc = any(8) ? some_request(d) : disk_flush(d);
		if (rc) {
			assert_int_equal(rc, -ENOSPC);
			failed++;
		}
		if (failed % 16 == 15)
			check_sectors(d);
	}
	assert_true(failed > 50);
	fail_with = 0;
	no_punch = false;
	assert_int_equal(disk_flush(d), 0);
	check_sectors(d);
	disk_close(d);
	check_image("a.vmdk");
	d = open_disk("a.vmdk");
	check_sectors(d);
	disk_close(d);
	forget();
}

/* After a sync that failed nobody knows what is on the disk: no flush says that all is well. */
static void a_failed_sync_is_not_forgotten(void **state)
{
	struct disk_create_options opt = {.bytes = DISK_SECTORS * SECTOR};
	struct disk *d;

	(void)state;
	assert_int_equal(disk_create(in_folder("a.vmdk"), &opt, &err), 0);
	start_recording();
	d = open_disk("a.vmdk");
	assert_int_equal(write_some(d, 0, 100), 0);
	assert_int_equal(disk_flush(d), 0);
	assert_int_equal(write_some(d, 500, 100), 0);
	fail_sync = -EIO;
	assert_int_equal(disk_flush(d), -EIO);
	fail_sync = 0;
	assert_int_equal(disk_flush(d), -EIO);
	disk_close(d);
	d = open_disk("a.vmdk");
	check_sectors(d);
	assert_int_equal(disk_flush(d), 0);
	disk_close(d);
	forget();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(crashes_lose_nothing_that_was_flushed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(crashes_of_children_too, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_host_is_survived, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failed_sync_is_not_forgotten, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
