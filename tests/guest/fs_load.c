/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load for file systems whose every step can be checked after a crash.
 *
 *   fs_load write DIR SEED [STEPS]  takes steps until one fails, or so many; prints `synced N` after each
 *   fs_load check DIR SEED COUNT    after steps 0 to COUNT - 1 were synced: is all they did there?
 *
 * What a step does follows from the seed and its number, so that the checker needs nothing else. Even steps
 * make a file of their own and remove that of KEPT steps before; odd ones write a record of the file `records`
 * in place. Each is synced, with its folder, before it is printed. The step after the last one that was
 * printed may have been done, or half of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	RECORD_BYTES = 4096,
	RECORDS = 4096,
	FILE_BYTES_MAX = 200000,
	KEPT = 200, /* even: files are of even steps */
};

static uint64_t words[(FILE_BYTES_MAX + 7) / 8 + 1], expected[(FILE_BYTES_MAX + 7) / 8 + 1];
static uint64_t seed;

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t dice(uint64_t step)
{
	return mix(mix(seed) ^ step);
}

static void fill(uint64_t *at, uint64_t step, size_t bytes)
{
	uint64_t key = mix(dice(step) ^ seed);

	for (size_t i = 0; i <= bytes / 8; i++)
		at[i] = mix(key + i);
	at[0] = step; /* which a record is known by */
}

static size_t file_bytes(uint64_t step)
{
	uint64_t d = dice(step);

	return d % 4 ? d / 4 % 20000 + 8 : d / 4 % (FILE_BYTES_MAX - 8) + 8;
}

static off_t record_at(uint64_t step)
{
	return (off_t)(dice(step) % RECORDS) * RECORD_BYTES;
}

static const char *name_of(uint64_t step)
{
	static char name[32];

	snprintf(name, sizeof(name), "file%llu", (unsigned long long)step);
	return name;
}

static int failed(const char *what, uint64_t step)
{
	printf("step %llu: %s: %s\n", (unsigned long long)step, what, strerror(errno));
	return 1;
}

static int write_all(int fd, const char *from, size_t bytes, off_t at)
{
	while (bytes) {
		ssize_t n = pwrite(fd, from, bytes, at);
		if (n < 0)
			return -1;
		from += n;
		at += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int make_file(uint64_t step, int folder)
{
	int fd = open("making", O_CREAT | O_TRUNC | O_WRONLY, 0600);

	if (fd < 0)
		return failed("open", step);
	fill(words, step, file_bytes(step));
	if (write_all(fd, (char *)words, file_bytes(step), 0) < 0 || fsync(fd) < 0)
		return failed("write and fsync", step);
	close(fd);
	if (rename("making", name_of(step)) < 0)
		return failed("rename", step);
	if (step >= KEPT && unlink(name_of(step - KEPT)) < 0)
		return failed("unlink", step);
	return fsync(folder) < 0 ? failed("fsync of the folder", step) : 0;
}

static int write_record(uint64_t step, int fd)
{
	fill(words, step, RECORD_BYTES);
	if (write_all(fd, (char *)words, RECORD_BYTES, record_at(step)) < 0 || fdatasync(fd) < 0)
		return failed("write and fdatasync", step);
	return 0;
}

static int write_steps(uint64_t steps)
{
	int folder = open(".", O_RDONLY | O_DIRECTORY);
	int records = open("records", O_CREAT | O_RDWR, 0600);

	if (folder < 0 || records < 0 || ftruncate(records, (off_t)RECORDS * RECORD_BYTES) < 0 ||
	    fsync(records) < 0 || fsync(folder) < 0)
		return failed("making the records", 0);
	for (uint64_t step = 0; step < steps; step++) {
		if (step % 2 ? write_record(step, records) : make_file(step, folder))
			return 1;
		printf("synced %llu\n", (unsigned long long)step);
	}
	return 0;
}

static int check_file(uint64_t step)
{
	size_t bytes = file_bytes(step);
	int fd = open(name_of(step), O_RDONLY);

	if (fd < 0)
		return failed(name_of(step), step);
	memset(words, 0, sizeof(words));
	ssize_t n = read(fd, words, bytes + 1);
	close(fd);
	if (n < 0)
		return failed("read", step);
	fill(expected, step, bytes);
	for (size_t i = 0; i < bytes; i++)
		if ((size_t)n != bytes || ((char *)words)[i] != ((char *)expected)[i]) {
			printf("%s: %zd bytes of %zu, wrong at %zu\n", name_of(step), n, bytes, i);
			return 1;
		}
	return 0;
}

static int check_files(uint64_t count)
{
	uint64_t last = count ? (count - 1) & ~UINT64_C(1) : 0;
	int bad = 0;

	for (uint64_t step = 0; step < count; step += 2) {
		if (step + KEPT > last) {
			/* The one that the next step removes may be gone. */
			if (step + KEPT != count || access(name_of(step), F_OK) == 0)
				bad += check_file(step);
		} else if (access(name_of(step), F_OK) == 0) {
			printf("%s: it was removed, and is there again\n", name_of(step));
			bad++;
		}
	}
	return bad;
}

static int check_records(uint64_t count)
{
	static uint64_t newest[RECORDS]; /* 0: never written */
	int fd = open("records", O_RDONLY), bad = 0;

	if (fd < 0)
		return count ? failed("records", count) : 0;
	for (uint64_t step = 1; step < count; step += 2)
		newest[record_at(step) / RECORD_BYTES] = step;
	for (unsigned i = 0; i < RECORDS; i++) {
		off_t at = (off_t)i * RECORD_BYTES;
		if (count % 2 && record_at(count) == at)
			continue; /* the step that was under way */
		if (pread(fd, words, RECORD_BYTES, at) != RECORD_BYTES)
			return failed("read of records", newest[i]);
		fill(expected, newest[i], RECORD_BYTES);
		if (!newest[i])
			memset(expected, 0, RECORD_BYTES);
		if (memcmp(words, expected, RECORD_BYTES)) {
			printf("record %u: not as step %llu left it; it says %llx\n", i,
			       (unsigned long long)newest[i], (unsigned long long)words[0]);
			bad++;
		}
	}
	close(fd);
	return bad;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 4 || chdir(argv[2]) < 0)
		return failed("fs_load write|check DIR SEED [COUNT]", 0);
	seed = strtoull(argv[3], NULL, 0);
	uint64_t count = argc > 4 ? strtoull(argv[4], NULL, 0) : UINT64_MAX;
	if (!strcmp(argv[1], "write"))
		return write_steps(count);
	int bad = check_files(count) + check_records(count);
	if (!bad)
		printf("all good after %llu steps\n", (unsigned long long)count);
	return bad ? 1 : 0;
}
