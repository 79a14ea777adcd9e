/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host memory that guest RAM is: one mapping, private or of a file.
 *
 *             private                                  of a file (memfd)
 *   why       KSM merges nothing else                  a page can be mapped a second time (mem_file)
 *   comes     by the host's faults, a huge page        by ram_bring_in, a huge page each, for hosts
 *             each where the host has one              hardly ever give any to files by themselves
 *   goes      MADV_DONTNEED                            MADV_REMOVE: a hole in the file
 *
 * Huge pages make a guest's cache misses a third cheaper and its first touches much cheaper.
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
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
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
	void *p = m->chunks ? mmap(place_hint(), m->ram, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_NORESERVE, m->file, 0)
			    : MAP_FAILED;
	if (p != MAP_FAILED)
		return p;
	free(m->chunks);
	m->chunks = NULL;
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
}

/* A page in the balloon is the host's as long as the guest does not ask for that one. */
static bool any_ballooned(const struct mem *m, uint64_t first, uint64_t end)
{
	for (uint64_t f = first; f < end; f++)
		if (atomic_load_explicit(&m->frames[f], memory_order_relaxed) & FRAME_BALLOON)
			return true;
	return false;
}

void ram_bring_in(struct mem *m, uint64_t frame)
{
	uint64_t first = frame - frame % RAM_CHUNK_PAGES;
	uint64_t end = first + RAM_CHUNK_PAGES;
	uint8_t *at = frame_host(m, first);

	if (any_ballooned(m, first, end < m->pages ? end : m->pages))
		return;
	/* One page has to be there for a huge one to be made of it, madvise(2). Others may write to the
	 * chunk meanwhile, and one that has just come in may be in the way for a moment. */
	if (end <= m->pages && madvise(at, MEM_PAGE_BYTES, MADV_POPULATE_WRITE) == 0)
		for (unsigned n = 0; n < 2; n++) {
			if (madvise(at, RAM_CHUNK_BYTES, MADV_COLLAPSE) == 0)
				return;
			if (errno != EAGAIN)
				break;
		}
	/* Small pages, but with one call. Where this is not known either, each faults by itself. */
	end = end < m->pages ? end : m->pages;
	madvise(at, (end - first) << MEM_PAGE_SHIFT, MADV_POPULATE_WRITE);
}

void ram_give_back(struct mem *m, uint64_t first, uint64_t count)
{
	madvise(frame_host(m, first), count << MEM_PAGE_SHIFT,
		m->file < 0 ? MADV_DONTNEED : MADV_REMOVE);
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
