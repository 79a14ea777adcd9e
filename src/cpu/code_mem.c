/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/code_mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* linux/memfd.h, since 6.3 */
#endif

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
	int fd = memfd_create("hanok-code", MFD_CLOEXEC | MFD_EXEC);
	if (fd < 0 && errno == EINVAL) /* an older kernel: executable anyway */
		fd = memfd_create("hanok-code", MFD_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, "cannot make memory for generated code: %s",
				 strerror(errno));
	int ret = 0;
	void *rw = MAP_FAILED, *rx = MAP_FAILED;
	if (ftruncate(fd, bytes) ||
	    (rw = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED ||
	    (rx = mmap(NULL, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0)) == MAP_FAILED) {
		ret = error_set(err, -errno,
				"cannot map memory for generated code: %s; is execution of memfds "
				"forbidden (sysctl vm.memfd_noexec)?",
				strerror(errno));
		if (rw != MAP_FAILED)
			munmap(rw, bytes);
	} else {
		*m = (struct code_mem){
			.rw = rw, .rx = rx, .bytes = bytes, .generation = next_generation()};
	}
	close(fd);
	return ret;
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
