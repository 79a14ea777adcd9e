/* SPDX-License-Identifier: Apache-2.0 */
/*
 * paging PATTERN MIB ACCESSES [SEED [random]]: touches pages of a region in a pattern, a third of the accesses being
 * writes, and prints "paging PATTERN MIB: N accesses in S s: R per second". PATTERN: seq (round and round), zipf
 * (exponent 1), random. Contents compress about three to one, as programs' memory does; with `random`, not at all.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill(uint64_t *w, uint64_t page, int random)
{
	for (unsigned n = 0; n < WORDS; n++)
		w[n] = n % 4 && !random ? page + n / 32 : mix(page * WORDS + n);
}

/* A rank of 1 to n with probability about 1/rank: by inverting the integral of 1/x. */
static uint64_t zipf(uint64_t n, uint64_t r)
{
	double u = (double)(r >> 11) / (double)(UINT64_C(1) << 53);

	return (uint64_t)exp(u * log((double)n + 1)) - 1;
}

int main(int argc, char **argv)
{
	const char *pattern = argc > 1 ? argv[1] : "zipf";
	uint64_t pages = (argc > 2 ? strtoull(argv[2], NULL, 10) : 256) << 8;
	uint64_t accesses = argc > 3 ? strtoull(argv[3], NULL, 10) : 1000000;
	uint64_t r = argc > 4 ? strtoull(argv[4], NULL, 10) : 1, sum = 0;
	uint64_t *m = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (m == MAP_FAILED || !pages) {
		perror("paging");
		return 1;
	}
	madvise(m, pages * PAGE, MADV_NOHUGEPAGE);
	for (uint64_t p = 0; p < pages; p++)
		fill(m + p * WORDS, p, argc > 5);
	double began = now();
	for (uint64_t n = 0; n < accesses; n++) {
		r = mix(r + n);
		uint64_t page = !strcmp(pattern, "seq")	   ? n % pages
				: !strcmp(pattern, "zipf") ? mix(zipf(pages, r)) % pages
							   : r % pages;
		uint64_t *w = m + page * WORDS + (r >> 20) % WORDS;
		if (r % 3 == 0)
			(*w)++;
		else
			sum += *w;
	}
	double s = now() - began;
	printf("paging %s %llu: %llu accesses in %.3f s: %.0f per second (%llx)\n", pattern,
	       (unsigned long long)pages >> 8, (unsigned long long)accesses, s,
	       (double)accesses / s, (unsigned long long)sum);
	return 0;
}
