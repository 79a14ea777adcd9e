/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/code_mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/advice.h"

static uint32_t next_generation(void)
{
	static _Atomic uint32_t last;
	uint32_t g;

	do {
		g = atomic_fetch_add(&last, 1) + 1;
	} while (!g);
	return g;
}

/* Addresses for `bytes` bytes, aligned so that huge pages fit; NULL: there are none. */
static uint8_t *reserve_addresses(size_t bytes)
{
	uint8_t *p = mmap(NULL, bytes + CODE_MEM_HUGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	size_t before = (size_t)(-(uintptr_t)p % CODE_MEM_HUGE);
	if (before)
		munmap(p, before);
	munmap(p + before + bytes, CODE_MEM_HUGE - before);
	return p + before;
}

int code_mem_create(struct code_mem *m, size_t bytes, struct error *err)
{
	*m = (struct code_mem){0};
	uint8_t *at[2] = {reserve_addresses(bytes), reserve_addresses(bytes)};
	if (!at[0] || !at[1]) {
		for (unsigned n = 0; n < 2; n++)
			if (at[n])
				munmap(at[n], bytes);
		return error_set(err, -ENOMEM, "no addresses for generated code");
	}
	/* Shared memory without a file, whose pages mremap maps a second time (a length of 0 asks for
	 * that, mremap(2)). perf takes such memory for generated code and looks in its maps. */
	void *rw = mmap(at[0], bytes, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (rw == MAP_FAILED) {
		int ret = error_set(err, -errno, "cannot make memory for generated code: %s",
				    strerror(errno));
		munmap(at[0], bytes);
		munmap(at[1], bytes);
		return ret;
	}
	void *rx = mremap(rw, 0, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at[1]);
	if (rx == MAP_FAILED || mprotect(rx, bytes, PROT_READ | PROT_EXEC)) {
		int ret = error_set(err, -errno, "cannot make generated code executable: %s",
				    strerror(errno));
		munmap(at[1], bytes);
		munmap(rw, bytes);
		return ret;
	}
	*m = (struct code_mem){.rw = rw, .rx = rx, .bytes = bytes, .generation = next_generation()};
	return 0;
}

void code_mem_destroy(struct code_mem *m)
{
	if (m->rw) {
		munmap(m->rw, m->bytes);
		munmap((void *)(uintptr_t)m->rx, m->bytes);
	}
	*m = (struct code_mem){0};
}

/* Little at a time while there is little code; then huge pages, so that the processor finds its way in
 * many MiB of code with a few TLB entries. Where that cannot be had, the faults come. */
enum { AHEAD = 128 << 10, AHEAD_FROM = 4 << 20, SMALL = 1 << 20 };

static bool ask_huge(struct code_mem *m, size_t from)
{
	if ((uintptr_t)(m->rw + from) % CODE_MEM_HUGE || m->bytes - from < CODE_MEM_HUGE)
		return false;
	return advise_huge(m->rw + from) &&
	       madvise((void *)(uintptr_t)(m->rx + from), CODE_MEM_HUGE, MADV_COLLAPSE) == 0;
}

void code_mem_ask(struct code_mem *m, size_t end)
{
	size_t huge = end & ~(size_t)(CODE_MEM_HUGE - 1);

	if (end <= m->ready || m->bytes < AHEAD_FROM)
		return;
	if (end > SMALL && huge >= m->asked_huge) {
		m->asked_huge = huge + CODE_MEM_HUGE;
		if (ask_huge(m, huge)) {
			m->ready = huge + CODE_MEM_HUGE;
			return;
		}
	}
	size_t from = m->ready & ~(size_t)4095;
	end = (end + AHEAD + 4095) & ~(size_t)4095;
	if (end > m->bytes)
		end = m->bytes;
	madvise(m->rw + from, end - from, MADV_POPULATE_WRITE);
	madvise((void *)(uintptr_t)(m->rx + from), end - from, MADV_POPULATE_READ);
	m->ready = end;
}

uint8_t *code_mem_reserve(struct code_mem *m, size_t bytes)
{
	size_t from = (m->used + 15) & ~(size_t)15;

	if (!m->rw || from > m->bytes || bytes > m->bytes - from)
		return NULL;
	m->used = from;
	return m->rw + from;
}

const void *code_mem_commit(struct code_mem *m, size_t bytes)
{
	const void *at = m->rx + m->used;

	m->used += bytes;
	return at;
}

void code_mem_give_back(struct code_mem *m, size_t kept)
{
	kept = (kept + 4095) & ~(size_t)4095;
	madvise(m->rw + kept, m->bytes - kept, MADV_REMOVE);
	m->ready = kept;
	m->asked_huge = 0;
}

void code_mem_reset(struct code_mem *m)
{
	m->used = 0;
	m->generation = next_generation();
}
