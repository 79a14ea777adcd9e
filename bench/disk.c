/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diskbench [--mib N] [--seconds S] [--folder F] [--direct]: how fast disks are without a guest, side by
 * side: the host's file by plain pread and pwrite, a raw image, a sparse VMDK, and a chain of 8 deltas
 * whose grains are spread over all of them. Rounds take turns, so that a noisy host is noisy to all of
 * them; the median of each one's rounds counts. Time is the processor's, all threads and the kernel's
 * work for them together, so that other programs do not count; with --direct, where waiting for the
 * device is the point, it is the clock's. Aims: raw 90 % of the file, sparse 90 % of raw, a chain
 * 80 % of sparse.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "disk/disk_tools.h"
#include "disk/snapshot.h"

enum { CHAIN = 8, ROUNDS = 9, BUFFER_BYTES = 1 << 20 };

enum subject { HOST_FILE, RAW, SPARSE, DELTAS, SUBJECTS };
static const char *const subject_names[] = {"host file", "raw", "sparse", "chain of 8"};

static const struct pattern {
	const char *name;
	bool write, random;
	unsigned bytes;
} patterns[] = {
	{"read 4K random", false, true, 4096},	     {"read 64K random", false, true, 65536},
	{"read 1M in order", false, false, 1 << 20}, {"write 4K random", true, true, 4096},
	{"write 64K random", true, true, 65536},     {"write 1M in order", true, false, 1 << 20},
};
enum { PATTERNS = sizeof(patterns) / sizeof(patterns[0]) };

static struct {
	char folder[256];
	uint64_t bytes;
	double seconds;
	bool direct;
	struct loop *loop;
	int fd;
	struct disk *disk[SUBJECTS];
	char *buf;
	uint32_t seed;
} bench = {.bytes = 256 << 20, .seconds = 6, .seed = 1};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "diskbench: %s: %s\n", what, why);
	exit(1);
}

static const char *path_of(const char *name)
{
	static char path[4][320];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", bench.folder, name);
	return p;
}

static uint32_t pick(uint32_t n)
{
	bench.seed ^= bench.seed << 13;
	bench.seed ^= bench.seed >> 17;
	bench.seed ^= bench.seed << 5;
	return (uint32_t)((uint64_t)bench.seed * n >> 32);
}

/* ---- making them ---- */

static void fill(struct disk *d, unsigned share, unsigned shares)
{
	for (uint64_t at = 0, i = 0; at < bench.bytes; at += 65536, i++)
		if ((i * 7) % shares == share) {
			int rc = disk_rw(d, DISK_WRITE, at, bench.buf, 65536);
			if (rc)
				die("filling", strerror(-rc));
		}
	disk_flush(d);
}

static struct disk *open_disk(const char *name, struct loop *loop)
{
	struct disk_options opt = {.loop = loop, .direct = bench.direct};
	struct error err;
	struct disk *d;

	if (disk_open(&d, path_of(name), &opt, &err))
		die("open", err.text);
	return d;
}

static void make(const char *name, const char *format)
{
	struct disk_create_options opt = {.format = format, .bytes = bench.bytes};
	struct error err;

	if (disk_create(path_of(name), &opt, &err))
		die("create", err.text);
}

static void make_all(void)
{
	char name[32], below[32] = "chain.vmdk";
	struct error err;
	struct disk *d;

	make("raw.img", "raw");
	make("sparse.vmdk", "vmdk");
	make("chain.vmdk", "vmdk");
	for (unsigned i = 0; i < CHAIN; i++) {
		snprintf(name, sizeof(name), "chain-%06u.vmdk", i);
		if (i && snapshot_create_delta(path_of(below), path_of(name), &err))
			die("delta", err.text);
		if (i)
			strcpy(below, name);
		d = open_disk(below, NULL);
		fill(d, i, CHAIN);
		disk_close(d);
	}
	bench.fd =
		open(path_of("host.img"), O_RDWR | O_CREAT | (bench.direct ? O_DIRECT : 0), 0600);
	if (bench.fd < 0)
		die("host.img", strerror(errno));
	/* In pieces as the others are: the page cache remembers how it was filled. */
	for (uint64_t at = 0; at < bench.bytes; at += 65536)
		if (pwrite(bench.fd, bench.buf, 65536, (off_t)at) != 65536)
			die("host.img", strerror(errno));
	fsync(bench.fd);
	bench.disk[RAW] = open_disk("raw.img", bench.loop);
	bench.disk[SPARSE] = open_disk("sparse.vmdk", bench.loop);
	bench.disk[DELTAS] = open_disk(below, bench.loop);
	fill(bench.disk[RAW], 0, 1);
	fill(bench.disk[SPARSE], 0, 1);
}

/* ---- measuring ---- */

static int last_rc;

static void done(struct disk_request *r, int rc)
{
	(void)r;
	last_rc = rc;
}

static int one(enum subject s, bool write, uint64_t at, unsigned bytes)
{
	struct iovec iov = {bench.buf, bytes};
	struct disk_request r = {.op = write ? DISK_WRITE : DISK_READ,
				 .offset = at,
				 .bytes = bytes,
				 .iov = &iov,
				 .iov_count = 1,
				 .done = done};
	ssize_t n;

	if (s == HOST_FILE) {
		n = write ? pwrite(bench.fd, bench.buf, bytes, (off_t)at)
			  : pread(bench.fd, bench.buf, bytes, (off_t)at);
		return n == (ssize_t)bytes ? 0 : -EIO;
	}
	int rc = disk_submit(bench.disk[s], &r);
	if (rc != DISK_LATER)
		return rc;
	disk_drain(bench.disk[s]);
	return last_rc;
}

static uint64_t time_ns(void)
{
	struct timespec t;

	clock_gettime(bench.direct ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Bytes in a second. */
static double measure(enum subject s, const struct pattern *p, double seconds)
{
	uint64_t start = time_ns(), end = start + (uint64_t)(seconds * 1e9), moved = 0, now;
	uint32_t places = (uint32_t)(bench.bytes / p->bytes), at = 0;

	do {
		for (unsigned i = 0; i < 16; i++) {
			at = p->random ? pick(places) : (at + 1) % places;
			int rc = one(s, p->write, (uint64_t)at * p->bytes, p->bytes);
			if (rc)
				die(subject_names[s], strerror(-rc));
			moved += p->bytes;
		}
		now = time_ns();
	} while (now < end);
	return (double)moved * 1e9 / (double)(now - start);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void own_all_grains(void)
{
	/* What is written for the first time is copied up, once: not what is asked here. */
	fill(bench.disk[DELTAS], 0, 1);
}

static bool run(const struct pattern *p)
{
	static const double aims[] = {0, 0.9, 0.9, 0.8};
	double rate[SUBJECTS][ROUNDS];
	bool reached = true;

	for (unsigned r = 0; r < ROUNDS; r++)
		for (enum subject s = 0; s < SUBJECTS; s++)
			rate[s][r] = measure(s, p, bench.seconds / PATTERNS / SUBJECTS / ROUNDS);
	printf("%-18s", p->name);
	for (enum subject s = 0; s < SUBJECTS; s++) {
		qsort(rate[s], ROUNDS, sizeof(double), by_value);
		printf(" %8.0f", rate[s][ROUNDS / 2] / 1e6);
		if (s) {
			double ratio = rate[s][ROUNDS / 2] / rate[s - 1][ROUNDS / 2];
			printf(" %4.0f%%%s", ratio * 100, ratio < aims[s] ? "!" : " ");
			reached &= ratio >= aims[s];
		}
	}
	putchar('\n');
	fflush(stdout);
	return reached;
}

static void remove_all(void)
{
	static const char *const names[] = {"raw.img", "sparse.vmdk", "host.img", "chain.vmdk"};
	char name[32];

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(path_of(names[i]));
	for (unsigned i = 1; i < CHAIN; i++) {
		snprintf(name, sizeof(name), "chain-%06u.vmdk", i);
		unlink(path_of(name));
	}
	rmdir(bench.folder);
}

static void options(int argc, char **argv)
{
	static const struct option list[] = {{"mib", required_argument, NULL, 'm'},
					     {"seconds", required_argument, NULL, 's'},
					     {"folder", required_argument, NULL, 'f'},
					     {"direct", no_argument, NULL, 'd'},
					     {0}};
	const char *folder = "/tmp";

	for (int c; (c = getopt_long(argc, argv, "", list, NULL)) != -1;) {
		if (c == 'm')
			bench.bytes = (strtoull(optarg, NULL, 0) + 1) / 2 * 2 << 20;
		else if (c == 's')
			bench.seconds = strtod(optarg, NULL);
		else if (c == 'f')
			folder = optarg;
		else if (c == 'd')
			bench.direct = true;
		else
			exit(2);
	}
	snprintf(bench.folder, sizeof(bench.folder), "%s/hanok-bench-XXXXXX", folder);
	if (!mkdtemp(bench.folder))
		die(folder, strerror(errno));
}

int main(int argc, char **argv)
{
	bool reached = true;

	options(argc, argv);
	if (posix_memalign((void **)&bench.buf, 4096, BUFFER_BYTES) ||
	    loop_create(&bench.loop, NULL))
		die("start", "out of memory");
	memset(bench.buf, 0x5a, BUFFER_BYTES);
	make_all();
	printf("MB in a second%s; each against the one on its left\n%-18s %8s %14s %14s %14s\n",
	       bench.direct ? "" : " of the processor", "", subject_names[0], subject_names[1],
	       subject_names[2], subject_names[3]);
	for (unsigned i = 0; i < PATTERNS; i++) {
		if (i && patterns[i].write && !patterns[i - 1].write)
			own_all_grains();
		reached &= run(&patterns[i]);
	}
	for (enum subject s = RAW; s < SUBJECTS; s++)
		disk_close(bench.disk[s]);
	loop_destroy(bench.loop);
	close(bench.fd);
	remove_all();
	free(bench.buf);
	puts(reached ? "all aims are reached" : "! below the aim");
	return 0;
}
