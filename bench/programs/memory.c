/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: bandwidth through the C library, latency, and what page tables cost. All in small pages. */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, MIB = 1 << 20 };

/* memset of 4 MiB, n times. */
void bench_memset(unsigned n)
{
	unsigned char *p = map_small(4 * MIB);
	unsigned long sum = 0;

	for (unsigned i = 0; i < n; i++) {
		memset(p, (int)(i & 0xff), 4 * MIB);
		sum += p[i * 4099ul % (4 * MIB)];
	}
	printf("%lu\n", sum);
}

/* memcpy of 2 MiB, to and fro, n times. */
void bench_memcpy(unsigned n)
{
	unsigned char *p = map_small(4 * MIB);
	unsigned long sum = 0;

	for (unsigned i = 0; i < 2 * MIB; i++)
		p[i] = (unsigned char)(i * 7);
	for (unsigned i = 0; i < n; i++) {
		memcpy(p + 2 * MIB, p, 2 * MIB);
		p[2 * MIB + i % (2 * MIB)]++;
		memcpy(p, p + 2 * MIB, 2 * MIB);
		sum += p[i * 4099ul % (2 * MIB)];
	}
	printf("%lu\n", sum);
}

/* A random walk through 16 MiB where each load says where the next one is; n times 100,000 loads. */
void bench_chase(unsigned n)
{
	enum { STEP = 64, COUNT = 16 * MIB / STEP };
	unsigned char *p = map_small(16 * MIB);
	uint64_t seed = 11;
	uint32_t at = 0;

	/* Sattolo's shuffle makes one cycle of all. */
	for (uint32_t i = 0; i < COUNT; i++)
		*(uint32_t *)(p + (size_t)i * STEP) = i;
	for (uint32_t i = COUNT - 1; i > 0; i--) {
		uint32_t *a = (uint32_t *)(p + (size_t)i * STEP);
		uint32_t *b = (uint32_t *)(p + next_random(&seed) % i * STEP);
		uint32_t t = *a;
		*a = *b;
		*b = t;
	}
	for (unsigned i = 0; i < n * 100000; i++)
		at = *(uint32_t *)(p + (size_t)at * STEP);
	printf("%" PRIu32 "\n", at);
}

/* The first write to each page of 16 MiB of fresh memory, n times. */
void bench_touch(unsigned n)
{
	unsigned long sum = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned char *p = map_small(16 * MIB);
		for (size_t at = 0; at < 16 * MIB; at += PAGE) {
			sum += p[at] + 1u;
			p[at] = 1;
		}
		munmap(p, 16 * MIB);
	}
	printf("%lu\n", sum);
}

/* Map 16 KiB, write a byte, unmap; n times. */
void bench_mmap(unsigned n)
{
	unsigned long sum = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		need(p != MAP_FAILED, "mmap");
		p[PAGE] = (unsigned char)i;
		sum += p[PAGE] + p[0];
		munmap(p, 4 * PAGE);
	}
	printf("%lu\n", sum);
}

/* A child writes to each of 8 MiB of pages it shares with its parent; n times. */
void bench_cow(unsigned n)
{
	unsigned char *p = map_small(8 * MIB);
	unsigned long sum = 0;

	memset(p, 3, 8 * MIB);
	for (unsigned i = 0; i < n; i++) {
		pid_t child = fork();
		int status;
		need(child >= 0, "fork");
		if (!child) {
			unsigned char own = 0;
			for (size_t at = 0; at < 8 * MIB; at += PAGE)
				own = (unsigned char)(own + ++p[at]);
			_exit(own & 0x7f);
		}
		need(waitpid(child, &status, 0) == child && WIFEXITED(status), "waitpid");
		sum += (unsigned long)WEXITSTATUS(status) + p[i % (8 * MIB)];
	}
	printf("%lu\n", sum);
}
