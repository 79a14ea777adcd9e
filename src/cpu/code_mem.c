/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/code_mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

static uint32_t next_generation(void)
{
	static _Atomic uint32_t last;
	uint32_t g;

	do {
		g = atomic_fetch_add(&last, 1) + 1;
	} while (!g);
	return g;
}

int code_mem_create(struct code_mem *m, size_t bytes, struct error *err)
{
	*m = (struct code_mem){0};
	/* Shared memory without a file, whose pages mremap maps a second time (a length of 0 asks for
	 * that, mremap(2)). perf takes such memory for generated code and looks in its maps. */
	void *rw = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (rw == MAP_FAILED)
		return error_set(err, -errno, "cannot make memory for generated code: %s",
				 strerror(errno));
	void *rx = mremap(rw, 0, bytes, MREMAP_MAYMOVE);
	if (rx == MAP_FAILED || mprotect(rx, bytes, PROT_READ | PROT_EXEC)) {
		int ret = error_set(err, -errno, "cannot make generated code executable: %s",
				    strerror(errno));
		if (rx != MAP_FAILED)
			munmap(rx, bytes);
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

void code_mem_reset(struct code_mem *m)
{
	m->used = 0;
	m->generation = next_generation();
}
