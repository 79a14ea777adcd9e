/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host memory that guest RAM is: one mapping, private or of a file.
 *
 *             private                                  of a file (memfd)
 *   why       KSM merges nothing else                  a page can be mapped a second time (mem_file)
 *   comes     by the host's faults, a huge page        by ram_bring_in in runs, which the memory thread
 *             each where the host has one              makes chunks of: hosts hardly ever give huge
 *                                                      pages to files by themselves
 *   goes      MADV_DONTNEED                            MADV_REMOVE: a hole in the file
 *
 * Huge pages make a guest's cache misses a third cheaper, and many first touches one. To ask for one
 * (MADV_COLLAPSE) takes a third of a millisecond, but where other processors are busy the host's
 * kernel waits several for them; so vCPUs do not ask, they take small pages, many with one call, until
 * the huge one is there.
 *
 * Nothing is taken from the host before the guest touches it: neither kind is reserved.
 *
 * The mapping's address is asked for in the middle of the user half: guests' own programs live at
 * its bottom and its top, and an engine may want these addresses for itself.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/layout.h"
#include "mem/mem_internal.h"

#define MIB (UINT64_C(1) << 20)
/* Where the mapping may start: 2^43 bytes from here on, in steps of 1 GiB. */
#define PLACE_BASE UINT64_C(0x210000000000)
#define PLACE_STEPS 8192
#define PLACE_STEP (UINT64_C(1) << 30)
static_assert(PLACE_BASE >= LAYOUT_BASE + LAYOUT_GUARD &&
		      PLACE_BASE + PLACE_STEPS * PLACE_STEP + RAM_MAX <= LAYOUT_END - LAYOUT_GUARD,
	      "RAM lies in the process's slice");

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3 */
#endif

static void *place_hint(void)
{
	uint16_t step = 0;

	if (getrandom(&step, sizeof(step), GRND_NONBLOCK) != sizeof(step))
		step = 0;
	return (void *)(uintptr_t)(PLACE_BASE + step % PLACE_STEPS * PLACE_STEP);
}

/* A file of that size, in memory and without a name; -1: there is none to be had. */
static int make_file(uint64_t bytes)
{
	struct rlimit size;

	/* The limit on files' sizes is for this one, too, and overrunning it raises a signal. */
	if (getrlimit(RLIMIT_FSIZE, &size) < 0 || size.rlim_cur < bytes)
		return -1;
	int fd = memfd_create("hanok-ram", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("hanok-ram", MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, (off_t)bytes) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The mapping, and m->file with it; NULL: it could not be made. */
static void *map_file(struct mem *m)
{
	m->file = make_file(m->ram);
	if (m->file < 0)
		return NULL;
	m->chunks = calloc((m->ram + RAM_CHUNK_BYTES - 1) / RAM_CHUNK_BYTES, sizeof(*m->chunks));
	m->runs = calloc(m->ram / RAM_RUN_BYTES, sizeof(*m->runs));
	void *p = MAP_FAILED;
	if (m->chunks && m->runs)
		p = mmap(place_hint(), m->ram, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			 m->file, 0);
	if (p != MAP_FAILED)
		return p;
	free(m->chunks);
	free(m->runs);
	m->chunks = NULL;
	m->runs = NULL;
	close(m->file);
	m->file = -1;
	return NULL;
}

int ram_map(struct mem *m, bool shared, struct error *err)
{
	unsigned mib = (unsigned)(m->ram / MIB);
	void *p = shared ? map_file(m) : NULL;

	if (!p)
		p = mmap(place_hint(), m->ram, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return error_set(err, -errno,
				 "guest memory: mapping %u MiB: %s; give the guest less memory or "
				 "raise the limit on address space (ulimit -v)",
				 mib, strerror(errno));
	m->base = p;
	/* Advice only: kernels without these features need none of it. */
	madvise(p, m->ram, MADV_DONTDUMP);
	madvise(p, m->ram, MADV_HUGEPAGE);
	return 0;
}

void ram_unmap(struct mem *m)
{
	if (m->base)
		munmap(m->base, m->ram);
	if (m->file >= 0)
		close(m->file);
	free(m->chunks);
	free(m->runs);
}

/* A page in the balloon is the host's as long as the guest does not ask for that one. */
static bool any_ballooned(const struct mem *m, uint64_t first, uint64_t end)
{
	for (uint64_t f = first; f < end; f++)
		if (atomic_load_explicit(&m->frames[f], memory_order_relaxed) & FRAME_BALLOON)
			return true;
	return false;
}

/* Asks the memory thread for a huge page, unless it is asked. */
static void want_huge(struct mem *m, uint64_t chunk)
{
	uint8_t small = RAM_SMALL;

	if ((chunk + 1) * RAM_CHUNK_PAGES > m->pages ||
	    !atomic_compare_exchange_strong(&m->chunks[chunk], &small, RAM_WANTED))
		return;
	pthread_mutex_lock(&m->lock);
	if (m->wanted.count < RAM_WANTED_MAX)
		m->wanted.chunk[m->wanted.count++] = chunk;
	else
		atomic_store(&m->chunks[chunk], RAM_SMALL); /* its next run asks again */
	if (atomic_load(&m->asleep))
		pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->lock);
}

void ram_bring_in(struct mem *m, uint64_t frame)
{
	uint64_t first = frame - frame % RAM_RUN_PAGES;
	uint64_t chunk = frame / RAM_CHUNK_PAGES;

	if (atomic_load(&m->chunks[chunk]) == RAM_HUGE ||
	    any_ballooned(m, first, first + RAM_RUN_PAGES))
		return;
	/* Where this is not known, each page faults by itself. */
	madvise(frame_host(m, first), RAM_RUN_PAGES << MEM_PAGE_SHIFT, MADV_POPULATE_WRITE);
	want_huge(m, chunk);
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *p = a, *q = b;

	return (*p > *q) - (*p < *q);
}

/* Tries to have one huge page each for n chunks, with one call. Those that are refused stay small. */
static void make_huge(struct mem *m, uint64_t chunk, unsigned n)
{
	void *at = frame_host(m, chunk * RAM_CHUNK_PAGES);
	bool made = madvise(at, n * (size_t)RAM_CHUNK_BYTES, MADV_COLLAPSE) == 0;

	/* A page that has just come in may be in the way for a moment. */
	if (!made && n == 1 && errno == EAGAIN)
		made = madvise(at, RAM_CHUNK_BYTES, MADV_COLLAPSE) == 0;
	for (unsigned k = 0; k < n; k++)
		if (made || n == 1)
			atomic_store(&m->chunks[chunk + k], made ? RAM_HUGE : RAM_REFUSED);
		else
			make_huge(m, chunk + k, 1);
}

void ram_make_huge(struct mem *m)
{
	uint64_t chunk[RAM_WANTED_MAX];
	unsigned n = 0, end, count;

	pthread_mutex_lock(&m->lock);
	count = m->wanted.count;
	for (unsigned k = 0; k < count; k++)
		chunk[k] = m->wanted.chunk[k];
	m->wanted.count = 0;
	pthread_mutex_unlock(&m->lock);
	qsort(chunk, count, sizeof(*chunk), by_number);
	for (unsigned at = 0; at < count; at++) {
		uint64_t first = chunk[at] * RAM_CHUNK_PAGES;
		if (any_ballooned(m, first, first + RAM_CHUNK_PAGES))
			atomic_store(&m->chunks[chunk[at]], RAM_REFUSED);
		else
			chunk[n++] = chunk[at];
	}
	for (unsigned at = 0; at < n && atomic_load(&m->huge); at = end) {
		for (end = at + 1; end < n && chunk[end] == chunk[end - 1] + 1;)
			end++;
		make_huge(m, chunk[at], end - at);
	}
}

void mem_ask_huge(struct mem *m, void *at)
{
	pthread_mutex_lock(&m->lock);
	if (m->asked.count < MEM_ASKED_MAX)
		m->asked.at[m->asked.count++] = at;
	if (atomic_load(&m->asleep))
		pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->lock);
}

void ram_make_asked(struct mem *m)
{
	void *at[MEM_ASKED_MAX];

	pthread_mutex_lock(&m->lock);
	const unsigned count = m->asked.count;
	memcpy(at, m->asked.at, count * sizeof(*at));
	m->asked.count = 0;
	pthread_mutex_unlock(&m->lock);
	for (unsigned k = 0; k < count; k++)
		advise_huge(at[k]);
}

void ram_give_back(struct mem *m, uint64_t first, uint64_t count)
{
	madvise(frame_host(m, first), count << MEM_PAGE_SHIFT,
		m->file < 0 ? MADV_DONTNEED : MADV_REMOVE);
	if (!m->chunks)
		return;
	uint64_t last = (first + count - 1) / RAM_CHUNK_PAGES;
	for (uint64_t c = first / RAM_CHUNK_PAGES; c <= last; c++)
		atomic_store(&m->chunks[c], RAM_SMALL);
}

int mem_file(const struct mem *m, const void *host, uint64_t *offset)
{
	uint64_t at = (uint64_t)((const uint8_t *)host - m->base);

	if (at >= m->ram)
		return -1;
	*offset = at;
	return m->file;
}

static uint64_t private_resident_bytes(const struct mem *m)
{
	enum { CHUNK = 1 << 16 };
	unsigned char in_core[CHUNK];
	uint64_t pages = m->ram / MEM_PAGE_BYTES, resident = 0;

	for (uint64_t at = 0; at < pages; at += CHUNK) {
		uint64_t n = pages - at < CHUNK ? pages - at : CHUNK;
		if (mincore(m->base + at * MEM_PAGE_BYTES, n * MEM_PAGE_BYTES, in_core) < 0)
			return 0;
		for (uint64_t k = 0; k < n; k++)
			resident += in_core[k] & 1;
	}
	return resident * MEM_PAGE_BYTES;
}

uint64_t mem_resident_bytes(const struct mem *m)
{
	struct stat st;

	if (m->file < 0)
		return private_resident_bytes(m);
	/* What the file takes, at once: mincore looks for each of its pages that is not mapped. */
	return fstat(m->file, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}
