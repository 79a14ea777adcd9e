/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program for Linux guests, run by tests/test_inspect.py: `pagemap PAGES SEED` makes processes with memory
 * of several kinds, then tells where random pages of random processes are, as their kernel sees it, and what is
 * in them:
 *
 *     page PID ADDRESS GPA BYTES      16 bytes at the address, in hexadecimal
 *     pages-end
 *
 * and waits, so that nothing moves. For each line with a number that it is given it makes so many new pages by
 * touching them, and tells the last one's address ("touched ADDRESS").
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <dirent.h>

enum { CHILDREN = 6, PIDS_MAX = 256, MAPS_MAX = 512 };

static uint64_t state;

/* splitmix64 */
static uint64_t next(void)
{
	uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void fill(uint8_t *p, size_t len, size_t step)
{
	for (size_t at = 0; at + 64 <= len; at += step)
		for (size_t k = 0; k < 64; k += 8) {
			uint64_t value = next();
			memcpy(p + at + k, &value, 8);
		}
}

/* Small pages, one in three of them untouched; a huge page, if there are any; shared ones. */
static void child(unsigned n)
{
	static const size_t mib = 1 << 20;
	char name[16];
	int prot = PROT_READ | PROT_WRITE;

	state ^= (uint64_t)n << 32;
	snprintf(name, sizeof(name), "pattern-%u", n);
	prctl(PR_SET_NAME, name);
	uint8_t *small = mmap(NULL, mib, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *huge = mmap(NULL, 4 * mib, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *shared = mmap(NULL, mib / 4, prot, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	madvise(small, mib, MADV_NOHUGEPAGE);
	madvise(huge, 4 * mib, MADV_HUGEPAGE);
	for (size_t at = 0; at < mib; at += 4096)
		if (at / 4096 % 3)
			fill(small + at, 4096, 4096);
	fill(huge, 4 * mib, 4096);
	fill(shared, mib / 4, 4096);
	mprotect(small, mib / 2, PROT_READ);
	for (;;)
		pause();
}

/* ---- looking ---- */

static unsigned list_pids(int *pids)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)) && n < PIDS_MAX)
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
			pids[n++] = atoi(e->d_name);
	if (d)
		closedir(d);
	return n;
}

/* A page of one of the process's mappings; 0: it has none. */
static uint64_t any_page(int pid)
{
	uint64_t first[MAPS_MAX], end[MAPS_MAX];
	char path[64], line[512];
	unsigned n = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	FILE *f = fopen(path, "r");
	if (!f)
		return 0;
	while (n < MAPS_MAX && fgets(line, sizeof(line), f)) {
		unsigned long long a, b;
		if (sscanf(line, "%llx-%llx r", &a, &b) == 2 && a < UINT64_C(1) << 47 &&
		    !strstr(line, "[v")) {
			first[n] = a;
			end[n++] = b;
		}
	}
	fclose(f);
	if (!n)
		return 0;
	unsigned k = (unsigned)(next() % n);
	return first[k] + next() % ((end[k] - first[k]) / 4096) * 4096;
}

static int read_at(int pid, const char *file, void *buf, size_t len, uint64_t at)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	int fd = open(path, O_RDONLY);
	ssize_t got = fd < 0 ? -1 : pread(fd, buf, len, (off_t)at);
	if (fd >= 0)
		close(fd);
	return got == (ssize_t)len ? 0 : -1;
}

/* Tells of a page; false when it is not there. */
static int tell(int pid, uint64_t page)
{
	uint64_t entry, again, address = page + next() % 256 * 16;
	uint8_t data[16];

	if (read_at(pid, "pagemap", &entry, 8, page / 4096 * 8) < 0 || !(entry >> 63) ||
	    read_at(pid, "mem", data, sizeof(data), address) < 0 ||
	    read_at(pid, "pagemap", &again, 8, page / 4096 * 8) < 0 || entry != again)
		return 0;
	printf("page %d 0x%llx 0x%llx ", pid, (unsigned long long)address,
	       (unsigned long long)((entry & ((UINT64_C(1) << 55) - 1)) * 4096 + address % 4096));
	for (unsigned k = 0; k < sizeof(data); k++)
		printf("%02x", data[k]);
	putchar('\n');
	return 1;
}

static void *touch(int pages)
{
	uint8_t *p = NULL;

	while (pages-- > 0) {
		p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		*p = 1;
	}
	return p;
}

int main(int argc, char **argv)
{
	int pids[PIDS_MAX];
	char line[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3)
		return 2;
	state = strtoull(argv[2], NULL, 0);
	for (unsigned n = 0; n < CHILDREN; n++)
		if (fork() == 0)
			child(n);
	sleep(1);
	unsigned count = list_pids(pids);
	for (int told = 0, tries = 0; told < atoi(argv[1]) && tries < 1000000; tries++) {
		int pid = pids[next() % count];
		uint64_t page = any_page(pid);
		/* Its own stack and buffers change while it talks. */
		if (page && pid != getpid())
			told += tell(pid, page);
	}
	puts("pages-end");
	while (fgets(line, sizeof(line), stdin))
		printf("touched 0x%llx\n", (unsigned long long)(uintptr_t)touch(atoi(line)));
	for (;;)
		pause();
}
