/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tools do to VMDKs (disk/disk_tools.h): streams, sizes, parents, checks and repairs; and what is
 * refused, in one line that says why.
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

#include "base/clock.h"
#include "base/log.h"
#include "disk/disk.h"
#include "disk/disk_tools.h"

#define MIB UINT64_C(0x100000)

static char folder[64];
static struct error err;

static int run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd);
}

static void swallow(void *opaque, enum log_level level, const char *line)
{
	(void)opaque, (void)level;
	assert_null(strchr(line, '\n'));
}

static int setup(void **state)
{
	(void)state;
	log_set_sink(swallow, NULL);
	snprintf(folder, sizeof(folder), "/tmp/hanok-tools-XXXXXX");
	return mkdtemp(folder) ? chdir(folder) : -1;
}

static int teardown(void **state)
{
	(void)state;
	return chdir("/") || run("rm -rf %s", folder);
}

static struct disk *open_disk(const char *name, bool read_only)
{
	struct disk_options opt = {.read_only = read_only};
	struct disk *d = NULL;

	if (disk_open(&d, name, &opt, &err))
		fail_msg("%s", err.text);
	return d;
}

/* Opening fails, and the line has these words. */
static void refused(const char *name, bool read_only, int rc, const char *words)
{
	struct disk_options opt = {.read_only = read_only};
	struct disk *d;

	assert_int_equal(disk_open(&d, name, &opt, &err), rc);
	if (!strstr(err.text, words) || !strstr(err.text, name))
		fail_msg("no \"%s\" in: %s", words, err.text);
	assert_null(d);
}

static void create(const char *name, const char *type, uint64_t bytes, const char *parent)
{
	struct disk_create_options opt = {.type = type, .bytes = bytes, .parent = parent};

	if (disk_create(name, &opt, &err))
		fail_msg("%s", err.text);
}

static void write_byte(const char *name, uint64_t offset, int byte)
{
	struct disk *d = open_disk(name, false);
	uint8_t buf[4096];

	memset(buf, byte, sizeof(buf));
	assert_int_equal(disk_rw(d, DISK_WRITE, offset, buf, sizeof(buf)), 0);
	disk_close(d);
}

static int read_byte(const char *name, uint64_t offset)
{
	struct disk *d = open_disk(name, true);
	uint8_t buf[512];

	assert_int_equal(disk_rw(d, DISK_READ, offset / 512 * 512, buf, 512), 0);
	disk_close(d);
	return buf[offset % 512];
}

static struct disk_check_result check(const char *name, bool repair)
{
	struct disk_check_options opt = {.repair = repair};
	struct disk_check_result out;

	if (disk_check(name, &opt, &out, &err))
		fail_msg("%s", err.text);
	return out;
}

/* In a file, at an offset. */
static void poke(const char *name, uint64_t offset, const void *bytes, size_t n)
{
	int fd = open(name, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, n, (off_t)offset), n);
	close(fd);
}

static uint64_t peek(const char *name, uint64_t offset, size_t n)
{
	int fd = open(name, O_RDONLY);
	uint64_t v = 0;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &v, n, (off_t)offset), n);
	close(fd);
	return v;
}

static void poke32(const char *name, uint64_t offset, uint32_t v)
{
	poke(name, offset, &v, 4);
}

/* Replaces text in a small file, by as many bytes. */
static void edit(const char *name, const char *from, const char *to)
{
	char buf[30000];
	FILE *f = fopen(name, "r+");
	size_t n = fread(buf, 1, sizeof(buf), f);
	char *at = memmem(buf, n, from, strlen(from));

	assert_non_null(at);
	assert_int_equal(strlen(from), strlen(to));
	fclose(f);
	poke(name, (uint64_t)(at - buf), to, strlen(to));
}

/* Where monolithicSparse of ours has its directories, in bytes. */
enum { OFF_RGD = 48, OFF_GD = 56, OFF_UNCLEAN = 72 };

static uint64_t directory(const char *name, uint64_t header_field)
{
	return peek(name, header_field, 8) * 512;
}

static uint64_t table(const char *name, uint64_t header_field, unsigned i)
{
	return peek(name, directory(name, header_field) + 4 * i, 4) * 512;
}

/* ---- streams ---- */

static void streams_are_read_by_us_and_by_qemu(void **state)
{
	const uint64_t bytes = 40 * MIB + 512;
	uint8_t *data = calloc(1, bytes);
	struct disk_stream *s;
	struct disk *d;
	FILE *f;

	(void)state;
	for (uint64_t i = 0; i < bytes; i++)
		if (i / 65536 % 5 == 1 || i / MIB == 35 || i >= bytes - 512)
			data[i] = (uint8_t)(i * i / 77);
	assert_int_equal(disk_stream_create(&s, "s.vmdk", bytes, NULL, &err), 0);
	for (uint64_t at = 0; at < bytes; at += 3 * 65536) {
		uint64_t n = bytes - at < 3 * 65536 ? bytes - at : 3 * 65536;
		assert_int_equal(disk_stream_write(s, at, data + at, n, &err), 0);
	}
	assert_int_equal(disk_stream_write(s, 0, data, 65536, &err), -EINVAL);
	assert_int_equal(disk_stream_finish(s, &err), 0);
	d = open_disk("s.vmdk", true);
	uint8_t *got = malloc(bytes);
	assert_int_equal(disk_rw(d, DISK_READ, 0, got, bytes), 0);
	assert_memory_equal(got, data, bytes);
	disk_close(d);
	struct disk_check_result r = check("s.vmdk", false);
	assert_int_equal(r.errors, 0);
	assert_true(r.allocated_grains > 100);
	refused("s.vmdk", false, -EROFS, "compressed");
	if (!run("command -v qemu-img >/dev/null")) {
		f = fopen("s.raw", "w");
		assert_int_equal(fwrite(data, 1, bytes, f), bytes);
		fclose(f);
		assert_int_equal(
			run("qemu-img check s.vmdk >log && qemu-img compare -f raw -F vmdk "
			    "s.raw s.vmdk >log"),
			0);
	}
	/* Cut short, it is not taken for whole; a damaged grain is an error where it is. */
	poke("s.vmdk", 128 * 512 + 40, "XXXXXXXX", 8);
	d = open_disk("s.vmdk", true);
	assert_int_equal(disk_rw(d, DISK_READ, 65536, got, 512), -EIO);
	assert_int_equal(disk_rw(d, DISK_READ, 6 * 65536, got, 512), 0);
	disk_close(d);
	run("truncate -s -512 s.vmdk");
	refused("s.vmdk", true, -EINVAL, "cut short");
	free(got);
	free(data);
}

/* ---- sizes ---- */

static void disks_grow_and_shrink(void **state)
{
	static const char *const types[] = {
		"monolithicSparse", "monolithicFlat",	    "vmfs",
		"vmfsSparse",	    "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"};
	bool qemu = !run("command -v qemu-img >/dev/null");

	(void)state;
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		uint64_t big = i >= 4 ? 5000 * MIB : 300 * MIB, end;
		struct disk_info info;
		struct disk *d;

		create("d.vmdk", types[i], 20 * MIB, NULL);
		write_byte("d.vmdk", 20 * MIB - 4096, 0x33);
		assert_int_equal(disk_resize("d.vmdk", big, false, &err), 0);
		d = open_disk("d.vmdk", true);
		disk_get_info(d, &info);
		assert_int_equal(info.bytes, big);
		disk_close(d);
		assert_int_equal(read_byte("d.vmdk", 20 * MIB - 1), 0x33);
		assert_int_equal(read_byte("d.vmdk", 20 * MIB), 0);
		write_byte("d.vmdk", big - 4096, 0x44);
		assert_int_equal(read_byte("d.vmdk", big - 1), 0x44);
		assert_int_equal(check("d.vmdk", false).errors, 0);
		if (qemu)
			assert_int_equal(
				run("qemu-img check d.vmdk >log 2>&1 && qemu-img info d.vmdk | "
				    "grep -q '(%llu bytes)'",
				    (unsigned long long)big),
				0);
		/* Smaller only if it is asked for; what was cut off does not come back. */
		end = 20 * MIB - 2048;
		assert_int_equal(disk_resize("d.vmdk", end, false, &err), -EINVAL);
		assert_int_equal(disk_resize("d.vmdk", end, true, &err), 0);
		assert_int_equal(read_byte("d.vmdk", end - 1), 0x33);
		struct disk_check_result r = check("d.vmdk", false);
		assert_int_equal(r.errors + r.leaked_grains, 0);
		if (qemu)
			assert_int_equal(run("qemu-img check d.vmdk >log 2>&1"), 0);
		assert_int_equal(disk_resize("d.vmdk", big, false, &err), 0);
		assert_int_equal(read_byte("d.vmdk", end - 1), 0x33);
		assert_int_equal(read_byte("d.vmdk", end), 0);
		assert_int_equal(read_byte("d.vmdk", big - 1), 0);
		run("rm *.vmdk");
	}
	create("p.vmdk", NULL, MIB, NULL);
	create("c.vmdk", NULL, 0, "p.vmdk");
	assert_int_equal(disk_resize("c.vmdk", 2 * MIB, false, &err), -EINVAL);
	assert_non_null(strstr(err.text, "parent"));
}

/* Opening and making it is instant, and takes next to nothing. */
static void two_tebibytes_are_light(void **state)
{
	struct disk_info info;
	uint64_t t = clock_ns();
	struct disk *d;
	uint8_t buf[4096];

	(void)state;
	create("big.vmdk", NULL, MIB * MIB * 2, NULL);
	d = open_disk("big.vmdk", false);
	disk_get_info(d, &info);
	assert_true(info.host_bytes < MIB);
	assert_true(clock_ns() - t < UINT64_C(2000000000));
	memset(buf, 0x21, sizeof(buf));
	assert_int_equal(disk_rw(d, DISK_WRITE, MIB * MIB * 2 - sizeof(buf), buf, sizeof(buf)), 0);
	disk_close(d);
	assert_int_equal(read_byte("big.vmdk", MIB * MIB * 2 - 1), 0x21);
}

/* ---- parents ---- */

static void a_parent_that_does_not_fit_is_refused(void **state)
{
	(void)state;
	create("base.vmdk", NULL, 4 * MIB, NULL);
	write_byte("base.vmdk", 0, 0x11);
	create("mid.vmdk", NULL, 0, "base.vmdk");
	create("top.vmdk", "twoGbMaxExtentSparse", 0, "mid.vmdk");
	write_byte("top.vmdk", 8192, 0x22);
	assert_int_equal(read_byte("top.vmdk", 0), 0x11);

	/* Moved together: the hints are relative. */
	run("mkdir moved && mv *.vmdk moved");
	assert_int_equal(read_byte("moved/top.vmdk", 0), 0x11);
	run("mv moved/* .");
	/* Missing. */
	run("mv mid.vmdk away");
	refused("top.vmdk", false, -ENOENT, "parent");
	assert_non_null(strstr(err.text, "mid.vmdk"));
	run("mv away mid.vmdk");
	/* Changed behind the child's back; reading changes nothing, nor does opening for writing. */
	read_byte("base.vmdk", 0);
	disk_close(open_disk("base.vmdk", false));
	assert_int_equal(read_byte("top.vmdk", 0), 0x11);
	run("cp base.vmdk good");
	write_byte("base.vmdk", 0, 0x12);
	refused("mid.vmdk", false, -ESTALE, "changed behind its back");
	struct disk_options opt = {0};
	struct disk *d;
	assert_int_equal(disk_open(&d, "top.vmdk", &opt, &err), -ESTALE);
	run("cp good base.vmdk");
	assert_int_equal(read_byte("top.vmdk", 0), 0x11);
	/* keep_cid: who merges takes care of that itself. */
	struct disk_options keep = {.keep_cid = true};
	uint8_t buf[512] = {0x13};
	assert_int_equal(disk_open(&d, "base.vmdk", &keep, &err), 0);
	assert_int_equal(disk_rw(d, DISK_WRITE, 0, buf, 512), 0);
	disk_close(d);
	assert_int_equal(read_byte("mid.vmdk", 0), 0x13);
	/* In use for writing. */
	d = open_disk("mid.vmdk", false);
	refused("top.vmdk", false, -EBUSY, "mid.vmdk");
	disk_close(d);
	/* Another size. */
	run("cp base.vmdk good");
	assert_int_equal(disk_resize("base.vmdk", 8 * MIB, false, &err), 0);
	refused("mid.vmdk", true, -EINVAL, "sectors");
	run("cp good base.vmdk");
	/* A circle. */
	char cid[24], line[24];
	struct disk_link link;
	d = open_disk("mid.vmdk", true);
	assert_int_equal(disk_chain(d, 0, &link), 0);
	snprintf(cid, sizeof(cid), "parentCID=%08x", link.cid);
	snprintf(line, sizeof(line), "parentCID=%08x", link.parent_cid);
	assert_int_equal(disk_chain(d, 1, &link), 0);
	assert_string_equal(link.path, link.path[0] == '.' ? "./base.vmdk" : "base.vmdk");
	assert_int_equal(disk_chain(d, 2, &link), -ENOENT);
	disk_close(d);
	edit("mid.vmdk", line, cid);
	edit("mid.vmdk", "\"base.vmdk\"", "\"mid.vmdk\" ");
	refused("mid.vmdk", true, -ELOOP, "circle");
}

static void a_disk_can_get_another_parent(void **state)
{
	struct disk *d;
	struct disk_info info;

	(void)state;
	create("a.vmdk", NULL, 4 * MIB, NULL);
	write_byte("a.vmdk", 0, 0x61);
	run("mkdir sub && cp a.vmdk sub/b.vmdk");
	create("c.vmdk", NULL, 0, "a.vmdk");
	write_byte("c.vmdk", 65536, 0x63);
	write_byte("sub/b.vmdk", 0, 0x62);
	assert_int_equal(read_byte("c.vmdk", 0), 0x61);
	assert_int_equal(disk_set_parent("c.vmdk", "sub/b.vmdk", NULL, &err), 0);
	assert_int_equal(read_byte("c.vmdk", 0), 0x62);
	assert_int_equal(read_byte("c.vmdk", 65536), 0x63);
	assert_int_equal(run("grep -aq 'parentFileNameHint=\"sub/b.vmdk\"' c.vmdk"), 0);
	assert_int_equal(disk_set_parent("c.vmdk", NULL, NULL, &err), 0);
	assert_int_equal(read_byte("c.vmdk", 0), 0);
	assert_int_equal(read_byte("c.vmdk", 65536), 0x63);
	d = open_disk("c.vmdk", false);
	disk_get_info(d, &info);
	assert_int_equal(info.chain, 1);
	disk_close(d);
	create("small.vmdk", NULL, MIB, NULL);
	assert_int_equal(disk_set_parent("c.vmdk", "small.vmdk", NULL, &err), -EINVAL);
	assert_int_equal(disk_set_parent("a.vmdk", "missing.vmdk", NULL, &err), -ENOENT);
	/* Alone: what it has itself, and not for writing. */
	assert_int_equal(disk_set_parent("c.vmdk", "a.vmdk", NULL, &err), 0);
	struct disk_options alone = {.alone = true, .read_only = true};
	struct disk_run map;
	assert_int_equal(disk_open(&d, "c.vmdk", &alone, &err), 0);
	assert_int_equal(disk_map(d, 0, 4 * MIB, &map), 0);
	assert_int_equal(map.kind, DISK_RUN_HOLE);
	assert_int_equal(map.bytes, 65536);
	disk_close(d);
	alone.read_only = false;
	assert_int_equal(disk_open(&d, "c.vmdk", &alone, &err), -EINVAL);
}

/* ---- descriptors ---- */

static void descriptors_keep_what_we_do_not_know(void **state)
{
	struct disk *d;
	struct disk_info info;
	uint8_t buf[512] = {0x7e};

	(void)state;
	run("truncate -s 2M 'd\xc3\xa9j\xc3\xa0.vmdk'; truncate -s 1M z.vmdk");
	run("printf '# Disk DescriptorFile\\r\\nversion = 1\\r\\nencoding=\"windows-1252\"\\r\\n"
	    "CID=12\\r\\nparentCID=FFFFFFFF\\r\\nisNativeSnapshot=\"no\"\\r\\n"
	    "createType = \"custom\"\\r\\n\\r\\n# Extent description\\r\\n"
	    "RW 2048 FLAT \"d\\351j\\340.vmdk\" 1024\\r\\nRW 100 ZERO\\r\\n"
	    "RDONLY 1024 FLAT \"z.vmdk\" 0\\r\\nNOACCESS 8 FLAT \"z.vmdk\" 1024\\r\\n"
	    "\\r\\nddb.odd = \"x = y # z\"\\r\\n' >d.vmdk");
	d = open_disk("d.vmdk", false);
	disk_get_info(d, &info);
	assert_int_equal(info.bytes, (2048 + 100 + 1024 + 8) * 512);
	assert_int_equal(disk_rw(d, DISK_WRITE, 0, buf, 512), 0);
	assert_int_equal(disk_rw(d, DISK_READ, 2048 * 512, buf, 512), 0);
	assert_int_equal(buf[0], 0);
	assert_int_equal(disk_rw(d, DISK_WRITE, 2048 * 512, buf, 512), -EROFS);
	assert_int_equal(disk_rw(d, DISK_WRITE, 2148 * 512, buf, 512), -EROFS);
	assert_int_equal(disk_rw(d, DISK_READ, 2148 * 512, buf, 512), 0);
	assert_int_equal(disk_rw(d, DISK_READ, 3172 * 512, buf, 512), -EIO);
	assert_int_equal(disk_flush(d), 0);
	disk_close(d);
	assert_int_equal(peek("d\xc3\xa9j\xc3\xa0.vmdk", MIB / 2, 1), 0x7e);
	/* A new CID of eight digits; everything else as it was, line ends too. */
	assert_int_equal(
		run("grep -q '^isNativeSnapshot=\"no\".$' d.vmdk && grep -q 'ddb.odd = \"x = y # "
		    "z\".$' d.vmdk && grep -Eq '^CID=[0-9a-f]{8}.$' d.vmdk && "
		    "test $(wc -l <d.vmdk) = 15"),
		0);
}

static void hostile_descriptors_are_refused(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"version=1\nCID=1\ncreateType=\"monolithicFlat\"\n", "no extent"},
		{"version=9\nCID=1\ncreateType=\"monolithicFlat\"\n", "version 9"},
		{"version=1\nCID=1\n", "createType"},
		{"version=1\ncreateType=\"vmfs\"\n", "CID"},
		{"version=1\nCID=1\ncreateType=\"fullDevice\"\nRW 8 FLAT \"/dev/null\" 0\n",
		 "fullDevice"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 8 FLAT \"/etc/passwd\" 0\n", "outside"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 8 FLAT \"x/../../y\" 0\n", "outside"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 0 FLAT \"f.vmdk\" 0\n", "line 4"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 99999999999999999999 FLAT \"f\" 0\n",
		 "line 4"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 8 FLAT \"f.vmdk\n", "line 4"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 9 FLAT \"f.vmdk\" 0\n", "cut short"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 8 FLAT \"f.vmdk\" 18446744073709551615\n",
		 "cut short"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 18014398509481983 ZERO\n"
		 "RW 18014398509481983 ZERO\n",
		 "too large"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 8 WEIRD \"f.vmdk\" 0\n", "WEIRD"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 8 SPARSE \"f.vmdk\"\n", "KDMV"},
		{"version=1\nCID=1\nparentCID=2\ncreateType=\"vmfs\"\nRW 8 FLAT \"f.vmdk\" 0\n",
		 "parentFileNameHint"},
		{"version=1\nCID=1\ncreateType=\"vmfs\"\nRW 8 FLAT \"none.vmdk\" 0\n", "none.vmdk"},
	};

	(void)state;
	run("truncate -s 4096 f.vmdk");
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct disk_options opt = {0};
		struct disk *d;
		FILE *f = fopen("d.vmdk", "w");

		fputs(bad[i].text, f);
		fclose(f);
		assert_true(disk_open(&d, "d.vmdk", &opt, &err) < 0);
		if (!strstr(err.text, bad[i].words) || strchr(err.text, '\n'))
			fail_msg("%u: no \"%s\" in: %s", i, bad[i].words, err.text);
	}
	refused("f.vmdk", false, -EINVAL, "version=");
}

/* ---- damage ---- */

static void damaged_headers_are_refused(void **state)
{
	static const struct {
		unsigned at;
		uint64_t value;
		unsigned bytes;
		const char *words;
	} bad[] = {
		{4, 4, 4, "version"},
		{12, 0, 8, "capacity"},
		{12, UINT64_MAX, 8, "capacity"},
		{12, 1, 8, "header"},
		{20, 3, 8, "grains"},
		{20, UINT64_C(1) << 40, 8, "grains"},
		{44, 0, 4, "entries"},
		{44, 1 << 30, 4, "entries"},
		{56, 1 << 30, 8, "directory"},
		{56, 0, 8, "directory"},
		{48, 1 << 30, 8, "directory"},
		{28, UINT64_C(1) << 60, 8, "descriptor"},
		{36, UINT64_C(1) << 60, 8, "descriptor"},
		{64, 1 << 30, 8, "cut short"},
		{73, 0, 2, "line ends"},
		{77, 9, 2, "compression"},
	};

	(void)state;
	create("d.vmdk", NULL, 100 * MIB, NULL);
	run("cp d.vmdk good");
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		poke("d.vmdk", bad[i].at, &bad[i].value, bad[i].bytes);
		refused("d.vmdk", true, -EINVAL, bad[i].words);
		run("cp good d.vmdk");
	}
	for (unsigned n = 0; n < 12000; n += 500) {
		struct disk_options opt = {.read_only = true};
		struct disk *d;
		run("head -c %u good >d.vmdk", n);
		assert_true(disk_open(&d, "d.vmdk", &opt, &err) < 0);
	}
}

static void check_finds_and_repairs(void **state)
{
	struct disk_check_result r;
	uint64_t gt0, rgt0, gt1, size;
	uint32_t grain;
	struct disk *d;
	uint8_t buf[512];
	struct stat st;

	(void)state;
	create("d.vmdk", NULL, 100 * MIB, NULL);
	for (unsigned i = 0; i < 20; i++)
		write_byte("d.vmdk", i * 5 * MIB, 0x40 + (int)i);
	r = check("d.vmdk", false);
	assert_int_equal(r.errors + r.mismatches + r.leaked_grains, 0);
	assert_int_equal(r.allocated_grains, 20);
	assert_int_equal(r.grains, 1600);
	run("cp --sparse=always d.vmdk good");
	gt0 = table("d.vmdk", OFF_GD, 0);
	rgt0 = table("d.vmdk", OFF_RGD, 0);
	gt1 = table("d.vmdk", OFF_GD, 1);
	grain = (uint32_t)peek("d.vmdk", gt0, 4);

	/* The redundant copy differs: made like the primary one. */
	poke32("d.vmdk", rgt0 + 4 * 80, 0x12345);
	r = check("d.vmdk", true);
	assert_int_equal(r.mismatches, 1);
	assert_int_equal(r.repaired, 1);
	assert_int_equal(run("cmp -s d.vmdk good"), 0);

	/* A directory entry is lost: its table comes from the copy. Nothing is written till then. */
	poke32("d.vmdk", directory("d.vmdk", OFF_GD), 0x7fffffff);
	refused("d.vmdk", false, -EINVAL, "read-only");
	d = open_disk("d.vmdk", true);
	assert_int_equal(disk_rw(d, DISK_READ, 0, buf, 512), -EIO);
	assert_int_equal(disk_rw(d, DISK_READ, 95 * MIB, buf, 512), 0);
	disk_close(d);
	r = check("d.vmdk", true);
	assert_int_equal(r.mismatches, 1);
	assert_int_equal(r.repaired, 1);
	r = check("d.vmdk", false);
	assert_int_equal(r.errors + r.mismatches + r.leaked_grains, 0);
	assert_int_equal(read_byte("d.vmdk", 5 * MIB), 0x41);
	run("cp --sparse=always good d.vmdk");

	/* Space that nothing uses is given back. */
	size = peek("d.vmdk", gt1 + 4 * 48, 4); /* 35 MiB */
	assert_true(size > 0);
	poke32("d.vmdk", gt1 + 4 * 48, 0);
	poke32("d.vmdk", table("d.vmdk", OFF_RGD, 1) + 4 * 48, 0);
	r = check("d.vmdk", false);
	assert_true(r.leaked_grains == 1 && r.leaked_bytes && !r.errors);
	assert_int_equal(check("d.vmdk", true).repaired, 1);
	assert_int_equal(check("d.vmdk", false).leaked_grains, 0);
	assert_int_equal(stat("d.vmdk", &st), 0);
	run("cp --sparse=always good d.vmdk");

	/* What cannot be mended without guessing is told, and left alone. */
	poke32("d.vmdk", gt0 + 4 * 80, grain);		       /* used twice */
	poke32("d.vmdk", gt0 + 4 * 81, (uint32_t)(gt1 / 512)); /* a table */
	poke32("d.vmdk", gt0 + 4 * 82, 0x7ffffff0);	       /* outside */
	poke("d.vmdk", OFF_UNCLEAN, "\1", 1);
	r = check("d.vmdk", false);
	assert_true(r.errors >= 3);
	assert_true(r.unclean);
	assert_int_equal(check("d.vmdk", true).errors, r.errors);
	assert_int_equal(read_byte("d.vmdk", 10 * MIB), 0x42);
	assert_int_equal(table("d.vmdk", OFF_GD, 0), gt0);
	assert_int_equal(peek("d.vmdk", gt0 + 4 * 80, 4), grain);
	assert_false(check("d.vmdk", false).unclean);
	d = open_disk("d.vmdk", true);
	assert_int_equal(disk_rw(d, DISK_READ, 82 * 65536, buf, 512), -EIO);
	disk_close(d);
}

/* Discards give space back to the host, and what was given up is used again. */
static void discards_free_grains(void **state)
{
	struct disk *d;
	struct disk_info full, after;
	uint8_t *buf = malloc(MIB);
	struct stat st;

	(void)state;
	memset(buf, 0x77, MIB);
	create("d.vmdk", NULL, 64 * MIB, NULL);
	d = open_disk("d.vmdk", false);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(disk_rw(d, DISK_WRITE, i * MIB, buf, MIB), 0);
	assert_int_equal(disk_flush(d), 0);
	disk_get_info(d, &full);
	for (unsigned round = 0; round < 5; round++) {
		assert_int_equal(disk_rw(d, DISK_DISCARD, 0, NULL, 24 * MIB), 0);
		assert_int_equal(disk_flush(d), 0);
		assert_int_equal(disk_flush(d), 0);
		disk_get_info(d, &after);
		assert_true(after.host_bytes <= full.host_bytes - 23 * MIB);
		for (unsigned i = 0; i < 24; i++)
			assert_int_equal(disk_rw(d, DISK_WRITE, i * MIB, buf, MIB), 0);
		assert_int_equal(disk_flush(d), 0);
	}
	assert_int_equal(stat("d.vmdk", &st), 0);
	assert_true((uint64_t)st.st_size < 36 * MIB);
	assert_int_equal(disk_rw(d, DISK_WRITE_ZEROES, 0, NULL, 64 * MIB), 0);
	disk_close(d);
	/* Nothing left: the file shrinks. */
	assert_int_equal(stat("d.vmdk", &st), 0);
	assert_true((uint64_t)st.st_size < MIB);
	assert_int_equal(check("d.vmdk", false).allocated_grains, 0);
	free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(streams_are_read_by_us_and_by_qemu, setup,
						teardown),
		cmocka_unit_test_setup_teardown(disks_grow_and_shrink, setup, teardown),
		cmocka_unit_test_setup_teardown(two_tebibytes_are_light, setup, teardown),
		cmocka_unit_test_setup_teardown(a_parent_that_does_not_fit_is_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_disk_can_get_another_parent, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_keep_what_we_do_not_know, setup,
						teardown),
		cmocka_unit_test_setup_teardown(hostile_descriptors_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_headers_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(check_finds_and_repairs, setup, teardown),
		cmocka_unit_test_setup_teardown(discards_free_grains, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
