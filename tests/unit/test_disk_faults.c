/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bad hosts and bad images, as a machine meets them while it runs: reads that fail, files that are cut
 * short, a disk that fills up, tables that lie on each other. Errors come as errors, what was there
 * stays there, and work goes on where it can.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/disk_tools.h"
#include "disk/file.h"
#include "disk/snapshot.h"

enum { KIB = 1024, DISK_BYTES = 8 << 20, GRAIN = 64 * KIB };

static char folder[64];
static struct error err;

/* ---- a host with faults ---- */

static struct {
	int read_error, write_error, sync_error; /* -errno; 0: none */
	unsigned writes_left;			 /* till write_error */
} fault;

static ssize_t faulty_read(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			   int flags)
{
	return fault.read_error ? fault.read_error
				: file_host_backend.preadv2(opaque, fd, iov, n, offset, flags);
}

static ssize_t faulty_write(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			    int flags)
{
	if (fault.write_error && !fault.writes_left)
		return fault.write_error;
	fault.writes_left -= fault.writes_left > 0;
	return file_host_backend.pwritev2(opaque, fd, iov, n, offset, flags);
}

static int faulty_sync(void *opaque, int fd)
{
	return fault.sync_error ? fault.sync_error : file_host_backend.fdatasync(opaque, fd);
}

static void swallow(void *opaque, enum log_level level, const char *line)
{
	(void)opaque, (void)level;
	assert_null(strchr(line, '\n'));
}

static int setup(void **state)
{
	static struct file_backend faulty;

	(void)state;
	memset(&fault, 0, sizeof(fault));
	faulty = file_host_backend;
	faulty.preadv2 = faulty_read;
	faulty.pwritev2 = faulty_write;
	faulty.fdatasync = faulty_sync;
	file_set_backend(&faulty);
	log_set_sink(swallow, NULL);
	snprintf(folder, sizeof(folder), "/tmp/hanok-faults-XXXXXX");
	return mkdtemp(folder) ? chdir(folder) : -1;
}

static int teardown(void **state)
{
	char command[100];

	(void)state;
	file_set_backend(NULL);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return chdir("/") || system(command);
}

/* ---- disks ---- */

static void create(const char *name, const char *type, const char *parent)
{
	struct disk_create_options opt = {
		.type = type, .bytes = parent ? 0 : DISK_BYTES, .parent = parent};

	if (disk_create(name, &opt, &err))
		fail_msg("%s", err.text);
}

static struct disk *open_disk(const char *name, bool read_only)
{
	struct disk_options opt = {.read_only = read_only};
	struct disk *d = NULL;

	if (disk_open(&d, name, &opt, &err))
		fail_msg("%s", err.text);
	return d;
}

static int put(struct disk *d, uint64_t offset, int byte)
{
	char buf[4096];

	memset(buf, byte, sizeof(buf));
	return disk_rw(d, DISK_WRITE, offset, buf, sizeof(buf));
}

/* The byte, or -errno. */
static int get(struct disk *d, uint64_t offset)
{
	unsigned char buf[4096];
	int rc = disk_rw(d, DISK_READ, offset, buf, sizeof(buf));

	return rc ? rc : buf[0];
}

static uint32_t errors_of(struct disk *d, enum disk_op op)
{
	struct disk_stats s;

	disk_get_stats(d, &s);
	return (uint32_t)s.errors[op];
}

static const char *const types[] = {"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
				    "twoGbMaxExtentFlat", "vmfsSparse"};
enum { TYPES = sizeof(types) / sizeof(types[0]) };

/* ---- tests ---- */

static void reads_that_fail(void **state)
{
	struct disk *d;

	(void)state;
	for (unsigned i = 0; i < TYPES; i++) {
		create("d.vmdk", types[i], NULL);
		d = open_disk("d.vmdk", false);
		assert_int_equal(put(d, GRAIN, 7), 0);
		assert_int_equal(disk_flush(d), 0);
		disk_close(d);
		d = open_disk("d.vmdk", false);
		/* Of a table first, where there are any; then of data. */
		fault.read_error = -EIO;
		assert_int_equal(get(d, GRAIN), -EIO);
		fault.read_error = 0;
		assert_int_equal(get(d, GRAIN), 7);
		fault.read_error = -EIO;
		assert_int_equal(get(d, GRAIN), -EIO);
		assert_int_equal(errors_of(d, DISK_READ), 2);
		fault.read_error = 0;
		assert_int_equal(put(d, GRAIN, 8), 0);
		assert_int_equal(get(d, GRAIN), 8);
		assert_int_equal(disk_flush(d), 0);
		disk_close(d);
		/* Nothing can be read: it is not opened, and the line says which file. */
		fault.read_error = -EIO;
		assert_int_equal(disk_open(&d, "d.vmdk", &(struct disk_options){0}, &err), -EIO);
		assert_non_null(strstr(err.text, "d.vmdk"));
		fault.read_error = 0;
		assert_int_equal(system("rm -f *.vmdk"), 0);
	}
}

/* A new grain takes what is around the write from the parent: if that cannot be read, nothing is
 * written. */
static void a_parent_that_cannot_be_read(void **state)
{
	struct disk *d;

	(void)state;
	create("base.vmdk", NULL, NULL);
	d = open_disk("base.vmdk", false);
	assert_int_equal(put(d, GRAIN, 7), 0);
	disk_close(d);
	create("top.vmdk", NULL, "base.vmdk");
	d = open_disk("top.vmdk", false);
	assert_int_equal(get(d, GRAIN), 7);
	fault.read_error = -EIO;
	assert_int_equal(put(d, GRAIN + 4096, 9), -EIO);
	fault.read_error = 0;
	assert_int_equal(get(d, GRAIN), 7);
	assert_int_equal(get(d, GRAIN + 4096), 0);
	assert_int_equal(put(d, GRAIN + 4096, 9), 0);
	assert_int_equal(get(d, GRAIN), 7);
	disk_close(d);
}

/* What is gone is an error, not zeroes; what is left can be read. */
static void files_that_shrink(void **state)
{
	static const char *const files[] = {"d.vmdk", "d-flat.vmdk", "d-s001.vmdk", "d-f001.vmdk",
					    "d-delta.vmdk"};
	struct disk *d;

	(void)state;
	for (unsigned i = 0; i < TYPES; i++) {
		struct stat st;
		create("d.vmdk", types[i], NULL);
		d = open_disk("d.vmdk", false);
		assert_int_equal(put(d, 0, 6), 0);
		assert_int_equal(put(d, DISK_BYTES - 4096, 7), 0);
		assert_int_equal(disk_flush(d), 0);
		if (stat(files[i], &st))
			fail_msg("%s of %s is not there", files[i], types[i]);
		assert_int_equal(truncate(files[i], st.st_size - 4096), 0);
		assert_int_equal(get(d, DISK_BYTES - 4096), -EIO);
		assert_int_equal(get(d, 0), 6);
		disk_close(d);
		assert_int_equal(system("rm -f *.vmdk"), 0);
	}
}

static uint32_t peek32(const char *name, uint64_t at)
{
	uint32_t value = 0;
	FILE *f = fopen(name, "r");

	assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
	assert_int_equal(fread(&value, 4, 1, f), 1);
	fclose(f);
	return value;
}

static void poke32(const char *name, uint64_t at, uint32_t value)
{
	FILE *f = fopen(name, "r+");

	assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
	assert_int_equal(fwrite(&value, 4, 1, f), 1);
	fclose(f);
}

/* Sparse headers: 48 is the redundant directory's sector, 56 the primary one's. */
static void tables_that_lie_on_each_other(void **state)
{
	struct disk_create_options opt = {.bytes = 256 << 20};
	uint64_t gd, rgd;
	struct disk *d;

	(void)state;
	assert_int_equal(disk_create("good.vmdk", &opt, &err), 0);
	d = open_disk("good.vmdk", false);
	assert_int_equal(put(d, 0, 5), 0);
	assert_int_equal(put(d, 40 << 20, 6), 0);
	disk_close(d);
	gd = (uint64_t)peek32("good.vmdk", 56) * 512;
	rgd = (uint64_t)peek32("good.vmdk", 48) * 512;
	const struct {
		uint64_t at;
		uint32_t value;
	} bad[] = {
		{gd + 4, peek32("good.vmdk", gd)},     /* the same twice */
		{gd + 4, peek32("good.vmdk", gd) + 1}, /* half of another */
		{gd, peek32("good.vmdk", rgd + 4)},    /* the copy of another */
		{rgd, (uint32_t)(gd / 512)},	       /* a directory */
		{gd + 8, (uint32_t)(gd / 512) - 2},    /* ends in one */
	};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(system("cp --sparse=always good.vmdk d.vmdk"), 0);
		poke32("d.vmdk", bad[i].at, bad[i].value);
		assert_int_equal(disk_open(&d, "d.vmdk", &(struct disk_options){0}, &err), -EINVAL);
		assert_non_null(strstr(err.text, "use sector"));
		d = open_disk("d.vmdk", true);
		assert_true(get(d, 200 << 20) == 0);
		disk_close(d);
		struct disk_check_result r;
		assert_int_equal(disk_check("d.vmdk", &(struct disk_check_options){0}, &r, &err),
				 0);
		assert_true(r.errors > 0);
	}
	/* A grain in the header: it can be read, but a write there would be one to the tables. */
	assert_int_equal(system("cp --sparse=always good.vmdk d.vmdk"), 0);
	poke32("d.vmdk", (uint64_t)peek32("good.vmdk", gd) * 512, 1);
	d = open_disk("d.vmdk", true);
	assert_true(get(d, 0) >= 0);
	disk_close(d);
	d = open_disk("d.vmdk", false);
	assert_int_equal(put(d, 0, 9), -EIO);
	assert_int_equal(put(d, 1 << 20, 9), 0);
	disk_close(d);
	d = open_disk("d.vmdk", true);
	assert_int_equal(get(d, 40 << 20), 6);
	disk_close(d);
}

/* ---- snapshots of a machine that runs ---- */

static struct snapshot_disk vm_disk;
static struct snapshot_machine vm;

static int save(struct snapshot_machine *m, struct error *e)
{
	return file_replace("vm.vmx", m->disk[0].file, strlen(m->disk[0].file), e);
}

/* base <- one snapshot <- what it writes to, open; 8 grains in each, where others are in the other. */
static uint32_t start_machine(void)
{
	struct snapshot_take *t;
	uint32_t uid;

	create("d.vmdk", NULL, NULL);
	vm_disk = (struct snapshot_disk){.node = "scsi0:0", .file = strdup("d.vmdk")};
	vm = (struct snapshot_machine){
		.folder = ".", .vmsd_path = "vm.vmsd", .disks = 1, .disk = &vm_disk, .save = save};
	vm_disk.open = open_disk("d.vmdk", false);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(put(vm_disk.open, i * GRAIN, 'a'), 0);
	if (snapshot_take_prepare(&t, &vm, "one", "", NULL, &err) ||
	    snapshot_take_commit(t, &uid, &err))
		fail_msg("%s", err.text);
	for (uint64_t i = 4; i < 12; i++)
		assert_int_equal(put(vm_disk.open, i * GRAIN, 'b'), 0);
	return uid;
}

static void holds_what_was_written(void)
{
	for (uint64_t i = 0; i < 12; i++)
		assert_int_equal(get(vm_disk.open, i * GRAIN), i < 4 ? 'a' : 'b');
}

static void stop_machine(const char *want)
{
	char name[64], *text;
	uint64_t bytes;

	disk_close(vm_disk.open);
	if (file_load("vm.vmx", 100, &text, &bytes, &err))
		fail_msg("%s", err.text);
	snprintf(name, sizeof(name), "%s", text);
	free(text);
	assert_string_equal(name, vm_disk.file);
	if (want)
		assert_string_equal(name, want);
	/* Started from what its .vmx says. */
	vm_disk.open = open_disk(name, false);
	holds_what_was_written();
	disk_close(vm_disk.open);
	struct disk_check_result r;
	assert_int_equal(disk_check(name, &(struct disk_check_options){0}, &r, &err), 0);
	assert_int_equal(r.errors, 0);
	free(vm_disk.file);
}

/* The host's disk is full at every write in turn: the guest notices nothing, and with room again the
 * rest of the work is done. */
static void deleted_on_a_full_host(void **state)
{
	unsigned failed = 0;
	bool over = false;

	(void)state;
	for (unsigned n = 0; !over; n++) {
		uint32_t uid = start_machine();
		vm.held_bytes = n % 2 ? 1 : 0;
		assert_int_equal(disk_flush(vm_disk.open), 0);
		fault.writes_left = n / 2;
		fault.write_error = -ENOSPC;
		int rc = snapshot_delete(&vm, uid, false, NULL, &err);
		over = n % 2 == 0 && fault.writes_left;
		fault.write_error = 0;
		if (rc == -ENOSPC)
			failed++;
		else if (rc)
			assert_int_equal(rc, -EBUSY); /* held_bytes: it is never little enough */
		holds_what_was_written();
		assert_int_equal(put(vm_disk.open, 11 * GRAIN, 'b'), 0);
		assert_int_equal(disk_flush(vm_disk.open), 0);
		vm.held_bytes = 0;
		/* As the next request finds it, by the .vmx. */
		char *text;
		uint64_t bytes;
		assert_int_equal(file_load("vm.vmx", 100, &text, &bytes, &err), 0);
		free(vm_disk.file);
		vm_disk.file = text;
		if (snapshot_consolidate(&vm, NULL, &err))
			fail_msg("%u: %s", n, err.text);
		holds_what_was_written();
		/* Not deleted at all: the list could not be written. */
		struct vmsd v;
		assert_int_equal(vmsd_load(&v, "vm.vmsd", &err), 0);
		unsigned left = v.count;
		vmsd_free(&v);
		stop_machine(left ? NULL : "d.vmdk");
		assert_int_equal(system("rm -f *"), 0);
	}
	assert_true(failed > 5);
}

/* Taken, but what lies below cannot be made durable: no snapshot, and no flush says that all is well. */
static void a_snapshot_that_does_not_become_durable(void **state)
{
	struct snapshot_take *t;
	struct vmsd v;
	uint32_t uid;

	(void)state;
	start_machine();
	if (snapshot_take_prepare(&t, &vm, "two", "", NULL, &err) ||
	    snapshot_take_exchange(t, &err))
		fail_msg("%s", err.text);
	fault.sync_error = -EIO;
	assert_int_equal(snapshot_take_list(t, &uid, &err), -EIO);
	fault.sync_error = 0;
	assert_int_equal(vmsd_load(&v, "vm.vmsd", &err), 0);
	assert_int_equal(v.count, 1);
	vmsd_free(&v);
	holds_what_was_written();
	assert_int_equal(disk_flush(vm_disk.open), -EIO);
	assert_int_equal(disk_flush(vm_disk.open), -EIO);
	stop_machine(NULL);
}

/* The delta is taken away before it can be opened: the old image goes on. */
static void an_exchange_that_fails(void **state)
{
	struct snapshot_take *t;

	(void)state;
	start_machine();
	if (snapshot_take_prepare(&t, &vm, "two", "", NULL, &err))
		fail_msg("%s", err.text);
	assert_int_equal(unlink("d-000002.vmdk"), 0);
	assert_int_equal(snapshot_take_exchange(t, &err), -ENOENT);
	holds_what_was_written();
	assert_int_equal(put(vm_disk.open, 11 * GRAIN, 'b'), 0);
	assert_int_equal(disk_flush(vm_disk.open), 0);
	stop_machine("d-000001.vmdk");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reads_that_fail),	      TEST(a_parent_that_cannot_be_read),
		TEST(files_that_shrink),      TEST(tables_that_lie_on_each_other),
		TEST(deleted_on_a_full_host), TEST(a_snapshot_that_does_not_become_durable),
		TEST(an_exchange_that_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
