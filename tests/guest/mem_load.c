/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_load MIB SECONDS [THREADS]: fills memory with pseudo-random words that follow from page and round, and
 * checks each page before it is written anew, in turns of order: up, down, random, and few pages often.
 * Every byte of every page is looked at. Prints "mem_load: ok" or what was wrong, and exits with 1.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, THREADS_MAX = 8 };

struct part {
	pthread_t thread;
	uint64_t *pages; /* PAGE bytes each */
	uint32_t *round; /* of each page; 0: never written */
	uint64_t count;
	uint64_t seed;
	uint64_t done; /* pages written */
	double end;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* What word n of a page is; a quarter of the pages compress well, some are zero. */
static uint64_t word(const struct part *p, uint64_t page, uint32_t round, unsigned n)
{
	uint64_t key = p->seed ^ page << 32 ^ round;
	unsigned kind = mix(key) & 15;

	if (!round || kind == 0)
		return 0;
	if (kind < 5)
		return mix(key + n / 64) & 0xff;
	return mix(key * 512 + n);
}

static void check(const struct part *p, uint64_t page)
{
	const volatile uint64_t *w = p->pages + page * WORDS;

	for (unsigned n = 0; n < WORDS; n++) {
		uint64_t want = word(p, page, p->round[page], n), is = w[n];
		if (is != want) {
			printf("mem_load: WRONG: page %llu word %u round %u: %016llx is %016llx\n",
			       (unsigned long long)page, n, p->round[page],
			       (unsigned long long)want, (unsigned long long)is);
			fflush(stdout);
			_exit(1);
		}
	}
}

static void write_page(struct part *p, uint64_t page)
{
	uint64_t *w = p->pages + page * WORDS;
	uint32_t round = ++p->round[page];

	for (unsigned n = 0; n < WORDS; n++)
		w[n] = word(p, page, round, n);
	p->done++;
}

static uint64_t pick(const struct part *p, unsigned order, uint64_t n, uint64_t *r)
{
	*r = mix(*r + 1);
	switch (order & 3) {
	case 0:
		return n;
	case 1:
		return p->count - 1 - n;
	case 2:
		return *r % p->count;
	default:
		return *r % (p->count / 8 + 1);
	}
}

static void *work(void *opaque)
{
	struct part *p = opaque;
	uint64_t r = p->seed;

	for (unsigned order = 0; now() < p->end || order == 0; order++) {
		for (uint64_t n = 0; n < p->count && (now() < p->end || order == 0); n++) {
			uint64_t page = pick(p, order, n, &r);
			check(p, page);
			if (r & 64)
				write_page(p, page);
			else if (!p->round[page])
				write_page(p, page);
		}
	}
	for (uint64_t n = 0; n < p->count; n++)
		check(p, n);
	return NULL;
}

int main(int argc, char **argv)
{
	struct part part[THREADS_MAX] = {0};
	uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 64, done = 0;
	double seconds = argc > 2 ? atof(argv[2]) : 10;
	unsigned threads = argc > 3 ? (unsigned)atoi(argv[3]) : 1;

	if (!threads || threads > THREADS_MAX || !mib) {
		fprintf(stderr, "usage: mem_load MIB SECONDS [THREADS, up to 8]\n");
		return 2;
	}
	for (unsigned n = 0; n < threads; n++) {
		struct part *p = &part[n];
		p->count = (mib << 20) / PAGE / threads;
		p->pages = mmap(NULL, p->count * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		p->round = calloc(p->count, sizeof(*p->round));
		p->seed = mix(n + 1);
		p->end = now() + seconds;
		if (p->pages == MAP_FAILED || !p->round ||
		    pthread_create(&p->thread, NULL, work, p)) {
			fprintf(stderr, "mem_load: no memory\n");
			return 1;
		}
	}
	for (unsigned n = 0; n < threads; n++) {
		pthread_join(part[n].thread, NULL);
		done += part[n].done;
	}
	printf("mem_load: ok, %llu pages written\n", (unsigned long long)done);
	return 0;
}
