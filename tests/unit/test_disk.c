/* SPDX-License-Identifier: Apache-2.0 */
/* disk/disk.h on raw images: requests at once and later, limits, discards, locks, drains, counters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk.h"
#include "disk/disk_tools.h"

#define MIB UINT64_C(0x100000)

static char path[64];
static struct loop *loop;
static struct error err;

static int setup(void **state)
{
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/hanok-disk-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0 && !ftruncate(fd, 8 * (off_t)MIB));
	close(fd);
	return loop_create(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	loop_destroy(loop);
	return 0;
}

static struct disk *open_disk(bool with_loop, bool read_only)
{
	struct disk_options opt = {.loop = with_loop ? loop : NULL, .read_only = read_only};
	struct disk *d = NULL;

	if (disk_open(&d, path, &opt, &err))
		fail_msg("%s", err.text);
	return d;
}

/* A request, its buffer in pieces, and what became of it. */
enum { PIECES = 3, REQUEST_BYTES = 12288 };

struct trial {
	struct disk_request r;
	uint8_t buf[REQUEST_BYTES];
	struct iovec iov[PIECES];
	int rc;
	unsigned done;
	unsigned *left;
};

static void done(struct disk_request *r, int rc)
{
	struct trial *t = r->opaque;

	t->rc = rc;
	t->done++;
	if (t->left && !--*t->left)
		loop_stop(loop);
}

static void prepare(struct trial *t, enum disk_op op, uint64_t offset)
{
	static const size_t at[PIECES + 1] = {0, 100, 5000, REQUEST_BYTES};

	for (unsigned i = 0; i < PIECES; i++)
		t->iov[i] = (struct iovec){t->buf + at[i], at[i + 1] - at[i]};
	t->r = (struct disk_request){.op = op,
				     .offset = offset,
				     .bytes = REQUEST_BYTES,
				     .iov = t->iov,
				     .iov_count = PIECES,
				     .done = done,
				     .opaque = t};
	t->rc = 1;
	t->done = 0;
	t->left = NULL;
}

static void submit_and_drain(struct disk *d, struct trial *t)
{
	int rc = disk_submit(d, &t->r);

	if (rc != DISK_LATER) {
		t->rc = rc;
		t->done++;
	}
	disk_drain(d);
	assert_int_equal(t->done, 1);
}

static void reads_what_was_written(void **state)
{
	static struct trial w, r;
	struct disk *d = open_disk(true, false);

	(void)state;
	for (size_t i = 0; i < sizeof(w.buf); i++)
		w.buf[i] = (uint8_t)(i * 7 + i / 256);
	prepare(&w, DISK_WRITE, MIB);
	submit_and_drain(d, &w);
	assert_int_equal(w.rc, 0);
	prepare(&r, DISK_READ, MIB);
	submit_and_drain(d, &r);
	assert_int_equal(r.rc, 0);
	assert_memory_equal(r.buf, w.buf, sizeof(w.buf));
	w.r = (struct disk_request){.op = DISK_FLUSH, .done = done, .opaque = &w};
	w.done = 0;
	submit_and_drain(d, &w);
	assert_int_equal(w.rc, 0);
	disk_close(d);

	/* Without a loop too, and after opening it again. */
	d = open_disk(false, true);
	memset(r.buf, 0, sizeof(r.buf));
	assert_int_equal(disk_rw(d, DISK_READ, MIB, r.buf, sizeof(r.buf)), 0);
	assert_memory_equal(r.buf, w.buf, sizeof(w.buf));
	disk_close(d);
}

static void many_in_flight_complete_on_the_loop(void **state)
{
	enum { MANY = 64 };
	static struct trial t[MANY];
	struct disk *d = open_disk(true, false);
	unsigned left = 0;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		prepare(&t[i], i % 4 == 3 ? DISK_READ : DISK_WRITE, i * (uint64_t)REQUEST_BYTES);
		memset(t[i].buf, (int)i, REQUEST_BYTES);
		t[i].left = &left;
		left++;
		t[i].rc = disk_submit(d, &t[i].r);
		if (t[i].rc != DISK_LATER)
			left--, t[i].done++;
	}
	if (left)
		loop_run(loop);
	for (unsigned i = 0; i < MANY; i++) {
		uint8_t b[REQUEST_BYTES];
		assert_int_equal(t[i].rc, 0);
		assert_int_equal(t[i].done, 1);
		assert_int_equal(disk_rw(d, DISK_READ, t[i].r.offset, b, sizeof(b)), 0);
		assert_int_equal(b[0], i % 4 == 3 ? 0 : i);
	}
	disk_close(d);
}

static void bad_requests_are_refused(void **state)
{
	static struct trial t;
	static uint8_t buf[1024];
	struct disk *d = open_disk(true, false);
	struct iovec whole[2] = {{buf, SIZE_MAX}, {buf, 513}};

	(void)state;
	assert_int_equal(disk_rw(d, DISK_READ, 1, buf, 512), -EINVAL);
	assert_int_equal(disk_rw(d, DISK_READ, 0, buf, 511), -EINVAL);
	assert_int_equal(disk_rw(d, DISK_READ, 8 * MIB, buf, 512), -EINVAL);
	assert_int_equal(disk_rw(d, DISK_READ, 8 * MIB - 512, buf, 1024), -EINVAL);
	assert_int_equal(disk_rw(d, DISK_READ, -UINT64_C(512), buf, 1024), -EINVAL);
	assert_int_equal(disk_rw(d, DISK_DISCARD, 8 * MIB, NULL, 512), -EINVAL);
	assert_int_equal(disk_rw(d, DISK_OPS, 0, buf, 512), -EINVAL);
	assert_int_equal(disk_rw(d, DISK_READ, 8 * MIB, buf, 0), 0);
	prepare(&t, DISK_WRITE, 0);
	t.r.bytes = 512; /* the iov holds more */
	assert_int_equal(disk_submit(d, &t.r), -EINVAL);
	prepare(&t, DISK_WRITE, 0);
	t.r.iov = whole; /* sums up to 512, and overflows */
	t.r.iov_count = 2;
	t.r.bytes = 512;
	assert_int_equal(disk_submit(d, &t.r), -EINVAL);
	disk_close(d);

	d = open_disk(true, true);
	assert_int_equal(disk_rw(d, DISK_WRITE, 0, buf, 512), -EROFS);
	assert_int_equal(disk_rw(d, DISK_DISCARD, 0, NULL, 512), -EROFS);
	assert_int_equal(disk_rw(d, DISK_WRITE_ZEROES, 0, NULL, 512), -EROFS);
	assert_int_equal(disk_flush(d), 0);
	disk_close(d);
}

static void discards_give_space_back(void **state)
{
	static uint8_t data[MIB], got[MIB], zero[MIB];
	struct disk *d = open_disk(true, false);
	struct disk_info before, after;
	struct disk_run run;

	(void)state;
	memset(data, 0x5a, sizeof(data));
	assert_int_equal(disk_rw(d, DISK_WRITE, 0, data, MIB), 0);
	assert_int_equal(disk_rw(d, DISK_WRITE, MIB, data, MIB), 0);
	assert_int_equal(disk_flush(d), 0);
	disk_get_info(d, &before);
	assert_int_equal(before.bytes, 8 * MIB);
	assert_true(before.host_bytes >= 2 * MIB && before.host_bytes < 3 * MIB);
	assert_int_equal(disk_rw(d, DISK_DISCARD, 0, NULL, MIB), 0);
	assert_int_equal(disk_rw(d, DISK_WRITE_ZEROES, MIB + 512, NULL, 512), 0);
	disk_get_info(d, &after);
	assert_true(after.host_bytes <= before.host_bytes - MIB);
	assert_int_equal(disk_rw(d, DISK_READ, 0, got, MIB), 0);
	assert_memory_equal(got, zero, MIB);
	assert_int_equal(disk_rw(d, DISK_READ, MIB, got, MIB), 0);
	memset(data + 512, 0, 512);
	assert_memory_equal(got, data, MIB);
	assert_int_equal(disk_map(d, 0, 8 * MIB, &run), 0);
	assert_int_equal(run.kind, DISK_RUN_HOLE);
	assert_int_equal(run.bytes, MIB);
	assert_int_equal(disk_map(d, MIB, MIB, &run), 0);
	assert_int_equal(run.kind, DISK_RUN_DATA);
	assert_int_equal(run.bytes, MIB);
	assert_int_equal(run.file_offset, MIB);
	assert_string_equal(run.path, path);
	disk_close(d);
}

static void two_writers_are_too_many(void **state)
{
	struct disk_options rw = {0}, ro = {.read_only = true};
	struct disk *d = open_disk(false, false), *other = NULL;

	(void)state;
	assert_int_equal(disk_open(&other, path, &rw, &err), -EBUSY);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(disk_open(&other, path, &ro, &err), -EBUSY);
	assert_null(other);
	disk_close(d);
	d = open_disk(false, true);
	assert_int_equal(disk_open(&other, path, &ro, &err), 0);
	disk_close(other);
	assert_int_equal(disk_open(&other, path, &rw, &err), -EBUSY);
	disk_close(d);
}

/* A file that ends within a sector: the rest of it reads as zeroes, and can be written. */
static void odd_sizes_are_rounded_up(void **state)
{
	uint8_t buf[1024];
	struct disk_info info;
	struct disk *d;
	int fd = open(path, O_RDWR);

	(void)state;
	assert_int_equal(ftruncate(fd, 1000), 0);
	assert_int_equal(pwrite(fd, "x", 1, 999), 1);
	close(fd);
	d = open_disk(false, false);
	disk_get_info(d, &info);
	assert_int_equal(info.bytes, 1024);
	memset(buf, 0xff, sizeof(buf));
	assert_int_equal(disk_rw(d, DISK_READ, 0, buf, 1024), 0);
	assert_int_equal(buf[999], 'x');
	assert_int_equal(buf[1000], 0);
	assert_int_equal(buf[1023], 0);
	memset(buf, 0x11, sizeof(buf));
	assert_int_equal(disk_rw(d, DISK_WRITE, 512, buf, 512), 0);
	disk_close(d);
	d = open_disk(true, false);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(disk_rw(d, DISK_READ, 512, buf, 512), 0);
	assert_int_equal(buf[511], 0x11);
	disk_close(d);
}

static void what_is_no_disk_is_refused_in_one_line(void **state)
{
	struct disk_options opt = {0}, odd = {.format = "qcow9"}, raw = {.format = "raw"};
	struct disk *d;
	int fd = open(path, O_RDWR);

	(void)state;
	assert_int_equal(disk_open(&d, "/nowhere/at/all", &opt, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nowhere/at/all"));
	assert_int_equal(disk_open(&d, path, &odd, &err), -EINVAL);
	assert_non_null(strstr(err.text, "qcow9"));
	/* What a guest wrote to its raw disk does not make it a VMDK. */
	assert_int_equal(pwrite(fd, "# Disk DescriptorFile\nversion=1\n", 32, 0), 32);
	assert_int_equal(disk_open(&d, path, &opt, &err), -EINVAL);
	assert_non_null(strstr(err.text, "VMDK"));
	assert_int_equal(disk_open(&d, path, &raw, &err), 0);
	disk_close(d);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(disk_open(&d, path, &raw, &err), -EINVAL);
	assert_non_null(strstr(err.text, "empty"));
	close(fd);
}

static void counters_count(void **state)
{
	static struct trial t;
	struct disk *d = open_disk(true, false);
	struct disk_stats s;
	uint64_t all = 0;

	(void)state;
	prepare(&t, DISK_WRITE, 0);
	submit_and_drain(d, &t);
	for (int i = 0; i < 3; i++)
		disk_rw(d, DISK_READ, 0, t.buf, 1024);
	disk_rw(d, DISK_READ, 1, t.buf, 1024);
	disk_get_stats(d, &s);
	assert_int_equal(s.requests[DISK_WRITE], 1);
	assert_int_equal(s.bytes[DISK_WRITE], REQUEST_BYTES);
	assert_int_equal(s.requests[DISK_READ], 4);
	assert_int_equal(s.bytes[DISK_READ], 3 * 1024);
	assert_int_equal(s.errors[DISK_READ], 1);
	for (unsigned i = 0; i < DISK_LATENCY_CLASSES; i++)
		all += s.latency[DISK_READ][i];
	assert_int_equal(all, 4);
	disk_close(d);
}

/* ---- threads ---- */

static void *scribble(void *opaque)
{
	struct {
		struct disk *disk;
		unsigned id;
	} *me = opaque;
	uint8_t buf[4096], got[4096];

	for (unsigned i = 0; i < 500; i++) {
		uint64_t at = (me->id * 500 + i) * sizeof(buf) % (8 * MIB);
		memset(buf, (int)(me->id * 31 + i), sizeof(buf));
		if (disk_rw(me->disk, DISK_WRITE, at, buf, sizeof(buf)) ||
		    disk_rw(me->disk, DISK_READ, at, got, sizeof(got)) ||
		    memcmp(buf, got, sizeof(buf)))
			return (void *)1;
	}
	return NULL;
}

static void threads_share_a_disk(void **state)
{
	struct {
		struct disk *disk;
		unsigned id;
	} me[4];
	struct disk *d = open_disk(true, false);
	pthread_t threads[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		me[i].disk = d;
		me[i].id = i;
		assert_int_equal(pthread_create(&threads[i], NULL, scribble, &me[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		void *failed;
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	disk_close(d);
}

static int cut_rc;

static void cut_done(struct disk_request *r, int rc)
{
	(void)r;
	cut_rc = rc;
}

static int cut_submit(struct disk *d, struct disk_request *r)
{
	r->done = cut_done;
	int rc = disk_submit(d, r);
	if (rc != DISK_LATER)
		return rc;
	disk_drain(d);
	return cut_rc;
}

static void cut_short(void **state)
{
	struct loop *own;
	struct disk *d;
	char buf[2048];

	(void)state;
	for (int with_loop = 0; with_loop < 2; with_loop++) {
		char name[] = "/tmp/hanok-disk-cut-XXXXXX";
		int fd = mkstemp(name);
		struct iovec iov = {buf, sizeof(buf)};
		struct disk_request r = {
			.op = DISK_READ, .bytes = sizeof(buf), .iov = &iov, .iov_count = 1};

		assert_true(fd >= 0);
		assert_int_equal(ftruncate(fd, sizeof(buf) - 100), 0);
		assert_int_equal(loop_create(&own, NULL), 0);
		struct disk_options opt = {.loop = with_loop ? own : NULL, .format = "raw"};
		assert_int_equal(disk_open(&d, name, &opt, NULL), 0);
		/* What is missing of the last sector was never there. */
		assert_int_equal(cut_submit(d, &r), 0);
		assert_int_equal(disk_rw(d, DISK_READ, 0, buf, sizeof(buf)), 0);
		assert_int_equal(ftruncate(fd, 1024), 0);
		assert_int_equal(disk_rw(d, DISK_READ, 0, buf, sizeof(buf)), -EIO);
		assert_int_equal(disk_rw(d, DISK_READ, 0, buf, 1024), 0);
		r.bytes = iov.iov_len = 1536;
		assert_int_equal(cut_submit(d, &r), -EIO);
		disk_close(d);
		loop_destroy(own);
		close(fd);
		unlink(name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(reads_what_was_written, setup, teardown),
		cmocka_unit_test_setup_teardown(many_in_flight_complete_on_the_loop, setup,
						teardown),
		cmocka_unit_test_setup_teardown(bad_requests_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(discards_give_space_back, setup, teardown),
		cmocka_unit_test_setup_teardown(two_writers_are_too_many, setup, teardown),
		cmocka_unit_test_setup_teardown(odd_sizes_are_rounded_up, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_disk_is_refused_in_one_line, setup,
						teardown),
		cmocka_unit_test_setup_teardown(counters_count, setup, teardown),
		cmocka_unit_test_setup_teardown(threads_share_a_disk, setup, teardown),
		cmocka_unit_test(cut_short),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
