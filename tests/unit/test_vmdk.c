/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMDK images of every type against a plain array and against qemu-img: random requests, at once and
 * several in flight, chains, discards, reopening. What we write, qemu-img checks and reads the same;
 * what it writes, we read the same.
 */
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
#include "disk/file.h"

#define MIB UINT64_C(0x100000)

enum { SECTOR_BYTES = 512, FLIGHT = 8 };

static char folder[64];
static struct loop *loop;
static bool direct; /* past the host's page cache */
static struct error err;
static uint64_t seed;

/* ---- helpers ---- */

static uint64_t any(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static int run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd);
}

static bool have_qemu_img(void)
{
	return run("command -v qemu-img >/dev/null 2>&1") == 0;
}

static int setup(void **state)
{
	(void)state;
	direct = false;
	seed = 0x9e3779b97f4a7c15;
	snprintf(folder, sizeof(folder), "/tmp/hanok-vmdk-XXXXXX");
	assert_non_null(mkdtemp(folder));
	return loop_create(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	run("rm -rf %s", folder);
	loop_destroy(loop);
	return 0;
}

static const char *in_folder(const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *p = paths[next++ % 4];

	snprintf(p, sizeof(paths[0]), "%s/%s", folder, name);
	return p;
}

static struct disk *open_disk(const char *name, bool read_only)
{
	struct disk_options opt = {.loop = loop, .read_only = read_only, .direct = direct};
	struct disk *d = NULL;

	if (disk_open(&d, in_folder(name), &opt, &err))
		fail_msg("%s", err.text);
	return d;
}

static void create(const char *name, const struct disk_create_options *opt)
{
	if (disk_create(in_folder(name), opt, &err))
		fail_msg("%s", err.text);
}

/* ---- a disk and what it has to hold ---- */

struct model {
	uint8_t *bytes;
	uint64_t size;
};

struct flight {
	struct disk_request r;
	struct iovec iov[3];
	uint8_t *buf;
	bool flying;
};

static void landed(struct disk_request *r, int rc)
{
	struct flight *f = r->opaque;

	assert_int_equal(rc, 0);
	f->flying = false;
}

static void settle(struct model *m, struct flight *f)
{
	struct disk_request *r = &f->r;

	if (r->op == DISK_READ && memcmp(f->buf, m->bytes + r->offset, r->bytes))
		fail_msg("reads something else at %#llx + %#llx", (unsigned long long)r->offset,
			 (unsigned long long)r->bytes);
	if (r->op == DISK_WRITE)
		memcpy(m->bytes + r->offset, f->buf, r->bytes);
	if (r->op == DISK_WRITE_ZEROES)
		memset(m->bytes + r->offset, 0, r->bytes);
	free(f->buf);
}

/* A discarded sector is as it was, or zero. */
static void adopt_discard(struct disk *d, struct model *m, uint64_t offset, uint64_t bytes)
{
	static const uint8_t zero[SECTOR_BYTES];
	uint8_t *got = malloc(bytes);

	assert_int_equal(disk_rw(d, DISK_READ, offset, got, bytes), 0);
	for (uint64_t at = 0; at < bytes; at += SECTOR_BYTES) {
		if (memcmp(got + at, m->bytes + offset + at, SECTOR_BYTES))
			assert_memory_equal(got + at, zero, SECTOR_BYTES);
		memcpy(m->bytes + offset + at, got + at, SECTOR_BYTES);
	}
	free(got);
}

static uint64_t some_bytes(uint64_t most)
{
	uint64_t n = any(8) ? 1 + any(64) : 1 + any(6000);

	n *= SECTOR_BYTES;
	return n < most ? n : most;
}

static void prepare(struct flight *f, enum disk_op op, uint64_t offset, uint64_t bytes)
{
	uint64_t cut = bytes > 2048 ? 700 + any(1000) : bytes;

	f->buf = malloc(bytes);
	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t v = any(UINT64_MAX);
		memcpy(f->buf + i, &v, 8);
	}
	f->iov[0] = (struct iovec){f->buf, cut};
	f->iov[1] = (struct iovec){f->buf + cut, 0};
	f->iov[2] = (struct iovec){f->buf + cut, bytes - cut};
	f->r = (struct disk_request){
		.op = op, .offset = offset, .bytes = bytes, .done = landed, .opaque = f};
	if (op == DISK_READ || op == DISK_WRITE) {
		f->r.iov = f->iov;
		f->r.iov_count = 3;
	}
}

/* Requests to separate parts of the disk, all in flight together. */
static void fly(struct disk *d, struct model *m)
{
	static const enum disk_op ops[] = {DISK_READ, DISK_WRITE, DISK_WRITE, DISK_WRITE_ZEROES};
	struct flight f[FLIGHT];
	uint64_t part = m->size / FLIGHT / SECTOR_BYTES * SECTOR_BYTES;
	uint64_t from = any(2) ? 0 : any(part / SECTOR_BYTES / 2) * SECTOR_BYTES;

	for (unsigned i = 0; i < FLIGHT; i++) {
		/* Neighbours' ends may share a grain. */
		uint64_t bytes = some_bytes(part - from);
		uint64_t offset = i * part + from + (i % 2 ? 0 : part - from - bytes);
		int rc;

		prepare(&f[i], ops[any(7) ? any(3) : 3], offset, bytes);
		f[i].flying = true;
		rc = disk_submit(d, &f[i].r);
		if (rc != DISK_LATER)
			landed(&f[i].r, rc);
	}
	disk_drain(d);
	for (unsigned i = 0; i < FLIGHT; i++) {
		assert_false(f[i].flying);
		settle(m, &f[i]);
	}
}

static void one(struct disk *d, struct model *m, enum disk_op op)
{
	uint64_t offset = any(m->size / SECTOR_BYTES) * SECTOR_BYTES;
	uint64_t bytes = some_bytes(m->size - offset);
	struct flight f;

	if (!any(16))
		bytes = m->size - offset; /* to the disk's end */
	if (!any(16))
		offset -= offset % 65536;
	if (bytes > 4 * MIB)
		bytes = 4 * MIB;
	if (op == DISK_DISCARD) {
		assert_int_equal(disk_rw(d, op, offset, NULL, bytes), 0);
		adopt_discard(d, m, offset, bytes);
		return;
	}
	prepare(&f, op, offset, bytes);
	assert_int_equal(disk_rw(d, op, offset, f.buf, bytes), 0);
	settle(m, &f);
}

static void compare(struct disk *d, const struct model *m)
{
	uint8_t *got = malloc(m->size);

	assert_int_equal(disk_rw(d, DISK_READ, 0, got, m->size), 0);
	if (memcmp(got, m->bytes, m->size))
		fail_msg("the disk holds something else");
	free(got);
}

static struct disk *scribble(struct disk *d, const char *name, struct model *m, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		unsigned what = (unsigned)any(32);
		if (what < 12)
			fly(d, m);
		else if (what < 18)
			one(d, m, DISK_WRITE);
		else if (what < 22)
			one(d, m, DISK_READ);
		else if (what < 26)
			one(d, m, DISK_DISCARD);
		else if (what < 28)
			one(d, m, DISK_WRITE_ZEROES);
		else if (what < 31)
			assert_int_equal(disk_flush(d), 0);
		else {
			disk_close(d);
			d = open_disk(name, false);
		}
	}
	compare(d, m);
	return d;
}

/* qemu-img reads the same, and finds nothing wrong; so does our own check. */
static void ask_qemu(const char *name, const struct model *m)
{
	struct disk_check_options opt = {0};
	struct disk_check_result found;
	struct disk_info info;
	struct disk *d;
	FILE *f;

	assert_int_equal(disk_check(in_folder(name), &opt, &found, &err), 0);
	assert_int_equal(found.errors, 0);
	assert_int_equal(found.mismatches, 0);
	/* Grains that are smaller than the host's blocks cannot all be given back. */
	d = open_disk(name, true);
	disk_get_info(d, &info);
	disk_close(d);
	if (info.granule_bytes >= 4096)
		assert_int_equal(found.leaked_grains, 0);
	assert_false(found.unclean);
	if (!have_qemu_img())
		return;
	f = fopen(in_folder("model.raw"), "w");
	assert_non_null(f);
	assert_int_equal(fwrite(m->bytes, 1, m->size, f), m->size);
	fclose(f);
	assert_int_equal(run("qemu-img check -f vmdk %s >%s", in_folder(name), in_folder("log")),
			 0);
	assert_int_equal(run("qemu-img compare -f raw -F vmdk %s %s >%s", in_folder("model.raw"),
			     in_folder(name), in_folder("log")),
			 0);
}

static struct model new_model(uint64_t size)
{
	struct model m = {calloc(1, size), size};

	assert_non_null(m.bytes);
	return m;
}

/* ---- the tests ---- */

static void every_type_holds_what_is_written(void **state)
{
	static const struct {
		const char *type;
		uint64_t bytes;
		uint32_t grain;
		enum disk_thickness thickness;
	} kinds[] = {
		{"monolithicSparse", 20 * MIB, 0, DISK_THIN},
		{"monolithicSparse", 40 * MIB + 3 * SECTOR_BYTES, 4096, DISK_THIN},
		{"monolithicSparse", 3 * SECTOR_BYTES + 5 * MIB, 1 << 20, DISK_THIN},
		{"monolithicFlat", 20 * MIB + SECTOR_BYTES, 0, DISK_THIN},
		{"monolithicFlat", 10 * MIB, 0, DISK_THICK_LAZY},
		{"vmfs", 10 * MIB, 0, DISK_THICK_EAGER},
		{"vmfsThin", 10 * MIB, 0, DISK_THIN},
		{"vmfsSparse", 10 * MIB + SECTOR_BYTES, 0, DISK_THIN},
		{"vmfsSparse", 20 * MIB, 4096, DISK_THIN},
		{"twoGbMaxExtentSparse", 12 * MIB, 0, DISK_THIN},
		{"twoGbMaxExtentFlat", 12 * MIB, 0, DISK_THIN},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct disk_create_options opt = {.type = kinds[i].type,
						  .bytes = kinds[i].bytes,
						  .grain_bytes = kinds[i].grain,
						  .thickness = kinds[i].thickness};
		struct model m = new_model(kinds[i].bytes);
		struct disk_info info;
		struct disk *d;
		char name[16];

		snprintf(name, sizeof(name), "d%u.vmdk", i);
		create(name, &opt);
		ask_qemu(name, &m);
		d = open_disk(name, false);
		disk_get_info(d, &info);
		/* VMware's thin ones are vmfs too. */
		assert_string_equal(info.type,
				    strcmp(kinds[i].type, "vmfsThin") ? kinds[i].type : "vmfs");
		assert_int_equal(info.bytes, kinds[i].bytes);
		if (kinds[i].thickness != DISK_THIN)
			assert_true(info.host_bytes >= info.bytes);
		d = scribble(d, name, &m, 300);
		disk_close(d);
		ask_qemu(name, &m);
		d = open_disk(name, true);
		compare(d, &m);
		disk_close(d);
		free(m.bytes);
		run("rm %s/d%u*", folder, i);
	}
}

static void chains_hold_what_is_written(void **state)
{
	enum { DEPTH = 8 };
	static const char *const types[] = {"monolithicSparse", "twoGbMaxExtentSparse",
					    "vmfsSparse"};
	struct disk_create_options opt = {.bytes = 16 * MIB + SECTOR_BYTES,
					  .type = "monolithicFlat"};
	struct model m = new_model(opt.bytes);
	struct model frozen[DEPTH];
	char name[16], parent[128];
	struct disk_info info;
	struct disk *d;

	(void)state;
	create("c0.vmdk", &opt);
	d = scribble(open_disk("c0.vmdk", false), "c0.vmdk", &m, 60);
	for (unsigned i = 1; i < DEPTH; i++) {
		struct disk_create_options child = {.type = types[i % 3]};

		disk_close(d);
		frozen[i - 1] = new_model(m.size);
		memcpy(frozen[i - 1].bytes, m.bytes, m.size);
		snprintf(parent, sizeof(parent), "%s/c%u.vmdk", folder, i - 1);
		snprintf(name, sizeof(name), "c%u.vmdk", i);
		child.parent = parent;
		create(name, &child);
		d = scribble(open_disk(name, false), name, &m, 60);
		disk_get_info(d, &info);
		assert_int_equal(info.chain, i + 1);
	}
	disk_close(d);
	ask_qemu(name, &m);
	/* Parents are as they were. */
	for (unsigned i = 0; i + 1 < DEPTH; i++) {
		snprintf(name, sizeof(name), "c%u.vmdk", i);
		d = open_disk(name, true);
		compare(d, &frozen[i]);
		disk_close(d);
		free(frozen[i].bytes);
	}
	free(m.bytes);
}

static void what_qemu_img_writes_is_read(void **state)
{
	static const char *const types[] = {"monolithicSparse", "monolithicFlat",
					    "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
					    "streamOptimized"};
	const uint64_t size = 24 * MIB + 3 * SECTOR_BYTES;
	struct model m = new_model(size);
	struct disk *d;
	FILE *f;

	(void)state;
	if (!have_qemu_img())
		skip();
	for (unsigned i = 0; i < 40; i++) {
		uint64_t at = any(size / SECTOR_BYTES) * SECTOR_BYTES, n = some_bytes(size - at);
		for (uint64_t j = 0; j < n; j++)
			m.bytes[at + j] = (uint8_t)(i + j * (i % 3));
	}
	f = fopen(in_folder("in.raw"), "w");
	assert_int_equal(fwrite(m.bytes, 1, size, f), size);
	fclose(f);
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		assert_int_equal(run("qemu-img convert -O vmdk -o subformat=%s %s %s", types[i],
				     in_folder("in.raw"), in_folder("q.vmdk")),
				 0);
		d = open_disk("q.vmdk", true);
		compare(d, &m);
		disk_close(d);
		if (strcmp(types[i], "streamOptimized")) {
			struct model w = new_model(size);
			memcpy(w.bytes, m.bytes, size);
			d = scribble(open_disk("q.vmdk", false), "q.vmdk", &w, 60);
			disk_close(d);
			ask_qemu("q.vmdk", &w);
			free(w.bytes);
		} else {
			struct disk_options opt = {0};
			assert_int_equal(disk_open(&d, in_folder("q.vmdk"), &opt, &err), -EROFS);
			assert_non_null(strstr(err.text, "read-only"));
		}
		run("rm %s/q*", folder);
	}
	free(m.bytes);
}

static void past_the_page_cache_it_is_the_same(void **state)
{
	struct disk_create_options opt = {.bytes = 20 * MIB + SECTOR_BYTES};
	struct model m = new_model(opt.bytes);
	char parent[128];
	struct disk_create_options child = {.parent = parent};
	struct disk *d;

	(void)state;
	direct = true;
	create("a.vmdk", &opt);
	d = scribble(open_disk("a.vmdk", false), "a.vmdk", &m, 100);
	disk_close(d);
	snprintf(parent, sizeof(parent), "%s/a.vmdk", folder);
	create("b.vmdk", &child);
	d = scribble(open_disk("b.vmdk", false), "b.vmdk", &m, 100);
	disk_close(d);
	ask_qemu("b.vmdk", &m);
	free(m.bytes);
}

/* ---- several threads in the same grains ---- */

enum { THREADS = 4, ROUNDS = 1200, SHARED_SECTORS = 16384 };

struct thread {
	pthread_t id;
	struct disk *disk;
	unsigned number;
	uint8_t *model; /* of its own sectors: every fourth */
	bool failed;
};

static void *share_grains(void *opaque)
{
	struct thread *t = opaque;
	uint64_t r = 0x1234567 * (t->number + 1);
	uint8_t buf[SECTOR_BYTES];

	for (unsigned i = 0; i < ROUNDS && !t->failed; i++) {
		r = r * 6364136223846793005u + 1442695040888963407u;
		uint64_t sector = (r >> 33) % (SHARED_SECTORS / THREADS) * THREADS + t->number;
		unsigned what = (unsigned)(r >> 20) % 64;
		int rc;

		if (what < 40) {
			memset(buf, (int)(i % 255 + 1), sizeof(buf));
			rc = disk_rw(t->disk, DISK_WRITE, sector * SECTOR_BYTES, buf, sizeof(buf));
			t->model[sector] = buf[0];
		} else if (what < 44) {
			rc = disk_rw(t->disk, DISK_WRITE_ZEROES, sector * SECTOR_BYTES, NULL,
				     SECTOR_BYTES);
			t->model[sector] = 0;
		} else if (what < 45) {
			rc = disk_flush(t->disk);
		} else {
			rc = disk_rw(t->disk, DISK_READ, sector * SECTOR_BYTES, buf, sizeof(buf));
			t->failed = buf[0] != t->model[sector] || buf[511] != buf[0];
		}
		t->failed = t->failed || rc;
	}
	return NULL;
}

/* Whole grains come and go under the others' feet, behind the sectors they use. */
static void *discard_behind(void *opaque)
{
	struct thread *t = opaque;
	static uint8_t buf[MIB];

	memset(buf, 0x99, sizeof(buf));
	for (unsigned i = 0; i < 60 && !t->failed; i++) {
		uint64_t at = SHARED_SECTORS * SECTOR_BYTES + i % 8 * MIB;
		t->failed = disk_rw(t->disk, DISK_WRITE, at, buf, MIB) ||
			    disk_rw(t->disk, DISK_DISCARD, at, NULL, MIB / 2) ||
			    (i % 4 == 0 && disk_flush(t->disk));
	}
	return NULL;
}

static void threads_share_grains(void **state)
{
	struct disk_create_options opt = {.bytes = SHARED_SECTORS * SECTOR_BYTES + 8 * MIB};
	struct thread t[THREADS + 1];
	char parent[128];
	struct disk_create_options child = {.parent = parent};
	struct disk_check_options check = {0};
	struct disk_check_result found;
	uint8_t *model = calloc(1, SHARED_SECTORS), buf[SECTOR_BYTES];
	struct disk *d;

	(void)state;
	create("a.vmdk", &opt);
	snprintf(parent, sizeof(parent), "%s/a.vmdk", folder);
	d = open_disk("a.vmdk", false);
	memset(buf, 0xee, sizeof(buf));
	for (uint64_t s = 0; s < SHARED_SECTORS; s += 100) {
		assert_int_equal(disk_rw(d, DISK_WRITE, s * SECTOR_BYTES, buf, sizeof(buf)), 0);
		model[s] = 0xee;
	}
	disk_close(d);
	create("b.vmdk", &child);
	d = open_disk("b.vmdk", false);
	for (unsigned i = 0; i <= THREADS; i++) {
		t[i] = (struct thread){.disk = d, .number = i, .model = model};
		assert_int_equal(pthread_create(&t[i].id, NULL,
						i < THREADS ? share_grains : discard_behind, &t[i]),
				 0);
	}
	for (unsigned i = 0; i <= THREADS; i++) {
		pthread_join(t[i].id, NULL);
		assert_false(t[i].failed);
	}
	disk_close(d);
	d = open_disk("b.vmdk", true);
	for (uint64_t s = 0; s < SHARED_SECTORS; s++) {
		assert_int_equal(disk_rw(d, DISK_READ, s * SECTOR_BYTES, buf, sizeof(buf)), 0);
		assert_int_equal(buf[0], model[s]);
	}
	disk_close(d);
	assert_int_equal(disk_check(in_folder("b.vmdk"), &check, &found, &err), 0);
	assert_int_equal(found.errors + found.mismatches + found.leaked_grains, 0);
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_type_holds_what_is_written, setup, teardown),
		cmocka_unit_test_setup_teardown(chains_hold_what_is_written, setup, teardown),
		cmocka_unit_test_setup_teardown(what_qemu_img_writes_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(past_the_page_cache_it_is_the_same, setup,
						teardown),
		cmocka_unit_test_setup_teardown(threads_share_grains, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
