/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/snapshot.h: every operation, compared with what should be there by qemu-img where it is
 * installed, and by ourselves; a snapshot of a disk under load. diskmodel and diskcrash go further.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "disk/file.h"
#include "disk/snapshot.h"

enum { DISK_BYTES = 4 << 20 };

static char folder[] = "/tmp/hanok-snapshot-XXXXXX";
static struct snapshot_disk disk;
static struct snapshot_machine machine;
static char vmsd_path[64], vmx_path[64];
static char *content; /* of the machine's disk now */
static const char *type;

static char *at(const char *name)
{
	static char path[4][256];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", folder, name);
	return p;
}

static int save(struct snapshot_machine *m, struct error *err)
{
	return file_replace(vmx_path, m->disk[0].file, strlen(m->disk[0].file), err);
}

static void must(int rc, const struct error *err)
{
	if (rc)
		fail_msg("%s", err->text);
}

static int setup(void **state)
{
	struct error err;
	struct disk_create_options opt = {.format = "vmdk", .type = type, .bytes = DISK_BYTES};
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s/*", folder);
	if (system(command))
		return -1;
	snprintf(vmsd_path, sizeof(vmsd_path), "%s/vm.vmsd", folder);
	snprintf(vmx_path, sizeof(vmx_path), "%s/vm.vmx", folder);
	disk = (struct snapshot_disk){.node = "scsi0:0", .file = strdup("d.vmdk")};
	machine = (struct snapshot_machine){
		.folder = folder, .vmsd_path = vmsd_path, .disks = 1, .disk = &disk, .save = save};
	content = calloc(1, DISK_BYTES);
	must(disk_create(at("d.vmdk"), &opt, &err), &err);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(disk.file);
	free(content);
	return 0;
}

static void write_at(uint64_t offset, uint64_t bytes, char fill)
{
	struct error err;
	struct disk *d;

	must(disk_open(&d, at(disk.file), &(struct disk_options){0}, &err), &err);
	memset(content + offset, fill, bytes);
	if (fill)
		assert_int_equal(disk_rw(d, DISK_WRITE, offset, content + offset, bytes), 0);
	else
		assert_int_equal(disk_rw(d, DISK_WRITE_ZEROES, offset, NULL, bytes), 0);
	disk_close(d);
}

/* The image reads as `want`, for us and for qemu-img, and has no errors. */
static void compare(const char *name, const char *want)
{
	struct disk_check_options opt = {0};
	struct disk_check_result result;
	struct error err;
	struct disk *d;
	char *all = malloc(DISK_BYTES), command[600];

	must(disk_open(&d, at(name), &(struct disk_options){.read_only = true}, &err), &err);
	assert_int_equal(disk_rw(d, DISK_READ, 0, all, DISK_BYTES), 0);
	disk_close(d);
	if (memcmp(all, want, DISK_BYTES))
		fail_msg("%s does not read as it should", name);
	free(all);
	must(disk_check(at(name), &opt, &result, &err), &err);
	assert_int_equal(result.errors, 0);
	assert_int_equal(result.leaked_grains, 0);
	if (system("command -v qemu-img >/dev/null"))
		return;
	unlink(at("want.raw"));
	assert_int_equal(file_replace(at("want.raw"), want, DISK_BYTES, &err), 0);
	/* COWD tables it does not check. */
	snprintf(command, sizeof(command),
		 "qemu-img compare -q -f raw -F vmdk %s %s && { [ %s = vmfsSparse ] || qemu-img "
		 "check -q -f vmdk %s; }",
		 at("want.raw"), at(name), type, at(name));
	assert_int_equal(system(command), 0);
}

static uint32_t take(const char *name)
{
	struct snapshot_take *t;
	struct error err;
	uint32_t uid;

	must(snapshot_take_prepare(&t, &machine, name, "", NULL, &err), &err);
	must(snapshot_take_commit(t, &uid, &err), &err);
	return uid;
}

static char *copy_content(void)
{
	return memcpy(malloc(DISK_BYTES), content, DISK_BYTES);
}

static void exists(const char *name, bool wanted)
{
	if (!access(at(name), F_OK) != wanted)
		fail_msg("%s is %sthere", name, wanted ? "not " : "");
}

/* base <- 1 <- 2 <- own; back to 1; grown another branch; and everything deleted again. */
static void life_of_a_machine(void **state)
{
	struct error err;
	char *first, *second;

	(void)state;
	write_at(0, 300 << 10, 'a');
	write_at(2 << 20, 100 << 10, 'b');
	compare("d.vmdk", content);
	uint32_t one = take("one");
	assert_string_equal(disk.file, "d-000001.vmdk");
	first = copy_content();
	write_at(64 << 10, 512, 'c'); /* a part of a grain */
	write_at((2 << 20) + 4096, 32 << 10, 0);
	write_at(3 << 20, 128 << 10, 'd');
	compare(disk.file, content);
	uint32_t two = take("two");
	second = copy_content();
	write_at(0, 200 << 10, 0);
	write_at((3 << 20) + 512, 512, 'e');
	compare(disk.file, content);
	compare("d-000001.vmdk", second);
	compare("d.vmdk", first);

	must(snapshot_revert(&machine, one, &err), &err);
	memcpy(content, first, DISK_BYTES);
	compare(disk.file, content);
	exists("d-000002.vmdk", false); /* what `two` was gone on from is lost */
	write_at(1 << 20, 70 << 10, 'f');
	compare(disk.file, content);

	/* `one` has two children: it stays as an image. */
	must(snapshot_delete(&machine, one, false, NULL, &err), &err);
	compare(disk.file, content);
	compare("d-000001.vmdk", second);
	exists("d.vmdk", true);
	/* Then one, and all becomes one image again. */
	must(snapshot_delete(&machine, two, false, NULL, &err), &err);
	assert_string_equal(disk.file, "d.vmdk");
	exists("d-000001.vmdk", false);
	compare("d.vmdk", content);
	free(first);
	free(second);
}

static void delete_with_children(void **state)
{
	struct error err;
	struct vmsd v;

	(void)state;
	write_at(0, 100 << 10, 'a');
	uint32_t root = take("root");
	for (int i = 0; i < 4; i++) {
		write_at((uint64_t)i << 19, 90 << 10, (char)('b' + i));
		take("more");
	}
	write_at(5000 * 512, 512, 'z');
	must(snapshot_delete(&machine, root, true, NULL, &err), &err);
	assert_string_equal(disk.file, "d.vmdk");
	compare("d.vmdk", content);
	must(vmsd_load(&v, vmsd_path, &err), &err);
	assert_int_equal(v.count, 0);
	assert_false(v.need_consolidate);
	vmsd_free(&v);
}

static void chains_are_flattened(void **state)
{
	struct error err;
	char *base, *top;

	(void)state;
	for (int i = 0; i < 5; i++) {
		write_at((uint64_t)i * (600 << 10) + 512, 300 << 10, (char)('a' + i));
		if (i == 2)
			write_at(0, 1 << 20, 0);
		take("x");
	}
	top = strdup(disk.file);
	must(snapshot_flatten(at(top), &base, NULL, &err), &err);
	assert_string_equal(base, at("d.vmdk"));
	compare("d.vmdk", content);
	compare(top, content);
	exists("d-000003.vmdk", false);
	free(base);
	free(top);
}

static void clones(void **state)
{
	struct error err;
	uint32_t uid;
	char path[256];
	const char *names[] = {path};

	(void)state;
	write_at(0, 200 << 10, 'a');
	uid = take("base");
	write_at(100 << 10, 200 << 10, 'b');
	/* A full one, of every type. */
	static const char *const types[] = {"monolithicSparse", "monolithicFlat",
					    "twoGbMaxExtentSparse", "vmfsSparse",
					    "streamOptimized"};
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		struct disk_create_options opt = {.format = "vmdk", .type = types[i]};
		char name[64];
		const char *saved = type;
		snprintf(name, sizeof(name), "full%u.vmdk", i);
		must(snapshot_clone(at(disk.file), at(name), &opt, NULL, &err), &err);
		type = types[i];
		compare(name, content);
		type = saved;
	}
	/* A linked one, elsewhere. */
	mkdir(at("clone"), 0700);
	snprintf(path, sizeof(path), "%s/clone/c.vmdk", folder);
	assert_int_equal(file_replace(at("clone/c.vmx"), "x", 1, &err), 0);
	must(snapshot_linked_clone(&machine, uid, names, at("clone/c.vmx"), &err), &err);
	char *was = copy_content();
	memset(was, 0, DISK_BYTES);
	memset(was, 'a', 200 << 10);
	compare("clone/c.vmdk", was);
	free(was);
	/* Its base is kept while it is there. */
	assert_int_equal(snapshot_delete(&machine, uid, false, NULL, &err), -EBUSY);
	assert_non_null(strstr(err.text, "c.vmx"));
	unlink(at("clone/c.vmx"));
	must(snapshot_delete(&machine, uid, false, NULL, &err), &err);
	compare("d.vmdk", content);
}

static int stop_at_half(void *opaque, uint64_t done, uint64_t total)
{
	(void)opaque;
	return done > total / 2;
}

/* Stopped in the middle: nothing is different, and it can be finished. */
static void stopped_and_taken_up(void **state)
{
	struct snapshot_progress progress = {.fn = stop_at_half};
	struct error err;
	struct vmsd v;

	(void)state;
	write_at(0, 3 << 20, 'a');
	uint32_t uid = take("one");
	write_at(0, 4 << 20, 'b');
	assert_int_equal(snapshot_delete(&machine, uid, false, &progress, &err), -ECANCELED);
	compare(disk.file, content);
	must(vmsd_load(&v, vmsd_path, &err), &err);
	assert_int_equal(v.count, 0);
	assert_true(v.need_consolidate);
	vmsd_free(&v);
	must(snapshot_consolidate(&machine, NULL, &err), &err);
	assert_string_equal(disk.file, "d.vmdk");
	compare("d.vmdk", content);
}

static void refused(void **state)
{
	struct error err;
	struct disk *d;

	(void)state;
	assert_int_equal(snapshot_delete(&machine, 9, false, NULL, &err), -ENOENT);
	assert_int_equal(snapshot_revert(&machine, 9, &err), -ENOENT);
	assert_int_equal(snapshot_merge_down(at("d.vmdk"), NULL, &err), -EINVAL);
	assert_int_equal(snapshot_merge_up(at("d.vmdk"), NULL, &err), -EINVAL);
	uint32_t uid = take("one");
	must(disk_open(&d, at(disk.file), &(struct disk_options){0}, &err), &err);
	assert_int_equal(snapshot_delete(&machine, uid, false, NULL, &err), -EBUSY);
	assert_int_equal(snapshot_remove_image(at(disk.file), &err), -EBUSY);
	disk_close(d);
	disk.node = "scsi0:1";
	assert_int_equal(snapshot_revert(&machine, uid, &err), -EINVAL);
	assert_non_null(strstr(err.text, "scsi0:0"));
}

/* ---- under load ---- */

static struct {
	struct loop *loop;
	struct disk *d;
	atomic_uint submitted, over;
	atomic_bool stop, failed;
	unsigned over_before, submitted_after;
	uint64_t took_ns;
	struct snapshot_take *take;
	struct disk_request flush;
	atomic_int flushed;
	atomic_bool exchanged;
	pthread_t thread;
} load;

enum { IN_FLIGHT = 16, WRITES = DISK_BYTES / 512 };

struct one_write {
	struct disk_request r;
	struct iovec iov;
	char buf[512];
};

static void write_over(struct one_write *w, int rc)
{
	if (rc)
		atomic_store(&load.failed, true);
	free(w);
	atomic_fetch_add(&load.over, 1);
}

static void write_done(struct disk_request *r, int rc)
{
	write_over(r->opaque, rc);
}

/* Sector i is the i-th that is written. */
static void *writer(void *opaque)
{
	(void)opaque;
	for (unsigned i = 0; i < WRITES && !atomic_load(&load.stop); i++) {
		struct one_write *w = calloc(1, sizeof(*w));
		while (i - atomic_load(&load.over) >= IN_FLIGHT)
			sched_yield();
		memset(w->buf, 'w', sizeof(w->buf));
		w->iov = (struct iovec){w->buf, sizeof(w->buf)};
		w->r = (struct disk_request){.op = DISK_WRITE,
					     .offset = (uint64_t)i * 512,
					     .bytes = 512,
					     .iov = &w->iov,
					     .iov_count = 1,
					     .done = write_done,
					     .opaque = w};
		atomic_store(&load.submitted, i + 1);
		int rc = disk_submit(load.d, &w->r);
		if (rc != DISK_LATER)
			write_over(w, rc);
		if (i % 8 == 0)
			usleep(100);
	}
	return NULL;
}

static void flush_done(struct disk_request *r, int rc)
{
	(void)r;
	atomic_store(&load.flushed, rc ? rc : 1);
}

static void exchange(void *opaque)
{
	struct error err;

	(void)opaque;
	load.over_before = atomic_load(&load.over);
	uint64_t start = clock_ns();
	must(snapshot_take_exchange(load.take, &err), &err);
	load.took_ns = clock_ns() - start;
	load.submitted_after = atomic_load(&load.submitted);
	/* Waits until what lies below is durable; writes do not. */
	load.flush = (struct disk_request){.op = DISK_FLUSH, .done = flush_done};
	assert_int_equal(disk_submit(load.d, &load.flush), DISK_LATER);
	atomic_store(&load.exchanged, true);
}

static void stop_when_over(void *opaque)
{
	(void)opaque;
	if (atomic_load(&load.over) == atomic_load(&load.submitted) && atomic_load(&load.stop))
		loop_stop(load.loop);
	else
		loop_post(load.loop, stop_when_over, NULL);
}

static void *conductor(void *opaque)
{
	struct error err;
	uint32_t uid;

	(void)opaque;
	usleep(30000);
	must(snapshot_take_prepare(&load.take, &machine, "live", "", NULL, &err), &err);
	loop_post(load.loop, exchange, NULL);
	while (!atomic_load(&load.exchanged))
		usleep(1000);
	unsigned over = atomic_load(&load.over);
	while (atomic_load(&load.over) < over + IN_FLIGHT + 1)
		usleep(1000);
	assert_int_equal(atomic_load(&load.flushed), 0);
	must(snapshot_take_list(load.take, &uid, &err), &err);
	while (!atomic_load(&load.flushed))
		usleep(1000);
	assert_int_equal(atomic_load(&load.flushed), 1);
	atomic_store(&load.stop, true);
	pthread_join(load.thread, NULL);
	loop_post(load.loop, stop_when_over, NULL);
	return NULL;
}

static unsigned written(const char *name, unsigned from, unsigned to)
{
	struct error err;
	struct disk *d;
	char buf[512];
	unsigned n = 0;

	must(disk_open(&d, at(name), &(struct disk_options){.read_only = true}, &err), &err);
	for (unsigned i = from; i < to; i++) {
		assert_int_equal(disk_rw(d, DISK_READ, (uint64_t)i * 512, buf, 512), 0);
		n += buf[0] == 'w' && buf[511] == 'w';
	}
	disk_close(d);
	return n;
}

static void under_load(void **state)
{
	struct error err;
	pthread_t thread;

	(void)state;
	memset(&load, 0, sizeof(load));
	assert_int_equal(loop_create(&load.loop, NULL), 0);
	must(disk_open(&load.d, at("d.vmdk"), &(struct disk_options){.loop = load.loop}, &err),
	     &err);
	disk.open = load.d;
	assert_int_equal(pthread_create(&load.thread, NULL, writer, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, conductor, NULL), 0);
	loop_run(load.loop);
	pthread_join(thread, NULL);
	disk.open = NULL;
	unsigned all = atomic_load(&load.submitted);
	print_message("%u writes, %u before the snapshot; it held the disk for %.1f ms\n", all,
		      load.over_before, (double)load.took_ns / 1e6);
	assert_false(atomic_load(&load.failed));
	disk_close(load.d);
	loop_destroy(load.loop);
	assert_string_equal(disk.file, "d-000001.vmdk");
	/* All are on the disk; the snapshot has those from before it, and none from after. */
	assert_int_equal(written(disk.file, 0, all), all);
	assert_int_equal(written("d.vmdk", 0, load.over_before), load.over_before);
	assert_int_equal(written("d.vmdk", load.submitted_after, WRITES), 0);
	assert_true(load.over_before > 0 && all > load.submitted_after);
	/* The aim is 50 ms; a busy machine's device may take its time over a table. */
	assert_true(load.took_ns < 1000000000);
}

/* ---- deleted under load ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int (*fn)(void *arg, struct error *err);
	void *arg;
	struct error *err;
	int rc;
	bool over;
} call = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void called(void *opaque)
{
	(void)opaque;
	uint64_t start = clock_ns();
	int rc = call.fn(call.arg, call.err);
	uint64_t took = clock_ns() - start;
	if (took > load.took_ns)
		load.took_ns = took;
	pthread_mutex_lock(&call.lock);
	call.rc = rc;
	call.over = true;
	pthread_cond_signal(&call.changed);
	pthread_mutex_unlock(&call.lock);
}

static int on_loop(struct snapshot_machine *m, int (*fn)(void *arg, struct error *err), void *arg,
		   struct error *err)
{
	(void)m;
	pthread_mutex_lock(&call.lock);
	call.fn = fn;
	call.arg = arg;
	call.err = err;
	call.over = false;
	assert_int_equal(loop_post(load.loop, called, NULL), 0);
	while (!call.over)
		pthread_cond_wait(&call.changed, &call.lock);
	pthread_mutex_unlock(&call.lock);
	return call.rc;
}

static int exchange_here(void *arg, struct error *err)
{
	return snapshot_take_exchange(arg, err);
}

static uint32_t take_live(const char *name)
{
	struct snapshot_take *t;
	struct error err;
	uint32_t uid;

	must(snapshot_take_prepare(&t, &machine, name, "", NULL, &err), &err);
	must(on_loop(&machine, exchange_here, t, &err), &err);
	must(snapshot_take_list(t, &uid, &err), &err);
	return uid;
}

static void *deleter(void *opaque)
{
	struct error err;

	(void)opaque;
	usleep(20000);
	uint32_t one = take_live("one");
	usleep(20000);
	uint32_t two = take_live("two");
	take_live("three");
	usleep(20000);
	/* From the middle, from below, and all: with deltas for what is written meanwhile. */
	load.took_ns = 0;
	machine.held_bytes = 400 << 10;
	must(snapshot_delete(&machine, two, false, NULL, &err), &err);
	must(snapshot_delete(&machine, one, true, NULL, &err), &err);
	must(snapshot_consolidate(&machine, NULL, &err), &err);
	atomic_store(&load.stop, true);
	pthread_join(load.thread, NULL);
	loop_post(load.loop, stop_when_over, NULL);
	return NULL;
}

static void deleted_under_load(void **state)
{
	struct error err;
	pthread_t thread;

	(void)state;
	memset(&load, 0, sizeof(load));
	machine.on_loop = on_loop;
	assert_int_equal(loop_create(&load.loop, NULL), 0);
	must(disk_open(&load.d, at("d.vmdk"), &(struct disk_options){.loop = load.loop}, &err),
	     &err);
	disk.open = load.d;
	assert_int_equal(pthread_create(&load.thread, NULL, writer, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, deleter, NULL), 0);
	loop_run(load.loop);
	pthread_join(thread, NULL);
	disk.open = NULL;
	unsigned all = atomic_load(&load.submitted);
	print_message("%u writes; the disk was held for %.1f ms at most\n", all,
		      (double)load.took_ns / 1e6);
	assert_false(atomic_load(&load.failed));
	disk_close(load.d);
	loop_destroy(load.loop);
	assert_string_equal(disk.file, "d.vmdk");
	exists("d-000001.vmdk", false);
	assert_int_equal(written(disk.file, 0, all), all);
	assert_int_equal(written(disk.file, all, WRITES), 0);
	memset(content, 'w', (size_t)all * 512);
	compare(disk.file, content);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(life_of_a_machine),    TEST(delete_with_children),
		TEST(chains_are_flattened), TEST(clones),
		TEST(stopped_and_taken_up), TEST(refused),
		TEST(under_load),	    TEST(deleted_under_load),
	};
	static const char *const types[] = {"monolithicSparse", "monolithicFlat",
					    "twoGbMaxExtentSparse", "vmfsSparse"};
	char command[128];
	int failed = 0;

	if (!mkdtemp(folder))
		return 1;
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		type = types[i];
		failed += cmocka_run_group_tests_name(type, tests, NULL, NULL);
	}
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) ? 1 : failed;
}
