/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vdso in another place: code of the kernel's for asking the time without a system call, and before
 * it, at a distance it knows, the data that it reads, [vvar] and its like. Older kernels (6.1) put both
 * above the initial stack, where no limit reaches them.
 *
 * The kernel lets them be moved. The C library knows them by
 *  - the functions it has looked up (in ld.so's relro), and what IFUNCs were resolved to (in GOTs);
 *  - an object in ld.so's list as for any library, and a table for unwinders that is sorted by address:
 *    both in memory that ld.so allocates before there is a malloc, or in the heap;
 *  - AT_SYSINFO_EHDR in the auxiliary vector, where other libraries look when they want it.
 * None of these pointers is disguised (glibc did that before 2.31).
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "base/layout_internal.h"

enum { PARTS = 8 };

struct vdso {
	struct layout_taken part[PARTS], all;
	unsigned parts;
	bool has_neighbour; /* something else begins where it ends */
};

static void add_part(const struct layout_mapping *m, void *opaque)
{
	struct vdso *v = opaque;

	if (v->parts && m->at.start == v->all.end)
		v->has_neighbour = true;
	if (strncmp(m->name, "[vvar", 5) && strcmp(m->name, "[vdso]"))
		return;
	/* By address, as all of /proc/self/maps. */
	if (!v->parts)
		v->all.start = m->at.start;
	v->all.end = m->at.end;
	v->has_neighbour = false;
	if (v->parts < PARTS)
		v->part[v->parts] = m->at;
	v->parts++;
}

static void *move_part(const struct layout_taken *part, uintptr_t from, uintptr_t to)
{
	size_t bytes = part->end - part->start;

	return mremap((void *)(part->start + from), bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
		      (void *)(part->start + to));
}

static void move_back(const struct vdso *v, unsigned parts, uintptr_t delta)
{
	for (unsigned i = 0; i < parts; i++)
		move_part(&v->part[i], delta, 0);
}

/* All parts or none. Between the first and the last the vdso does not work. */
static int move_parts(const struct vdso *v, uintptr_t delta, struct error *err)
{
	void *to = (void *)(v->all.start + delta);
	size_t bytes = v->all.end - v->all.start;
	void *room = mmap(to, bytes, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	/* Kernels before 4.17 take the flag for a mere wish. */
	if (room != MAP_FAILED && room != to) {
		munmap(room, bytes);
		errno = EEXIST;
	}
	if (room != to)
		return error_set(err, -errno, "no room for the vdso: %s", strerror(errno));
	for (unsigned i = 0; i < v->parts; i++) {
		if (move_part(&v->part[i], 0, delta) != MAP_FAILED)
			continue;
		int code = error_set(err, -errno, "the kernel does not let the vdso be moved: %s",
				     strerror(errno));
		move_back(v, i, delta);
		munmap(to, bytes);
		return code;
	}
	return 0;
}

/* Memory without a file, but for the initial stack, which has our own variables. */
static void turn_memory(const struct layout_mapping *m, void *opaque)
{
	if (strncmp(m->access, "rw", 2) || m->access[3] != 'p')
		return;
	if (!*m->name || !strcmp(m->name, "[heap]") || !strncmp(m->name, "[anon:", 6))
		layout_turn_words(opaque, m->at.start, m->at.end);
}

int layout_move_vdso(uintptr_t delta, char **argv, struct error *err)
{
	struct vdso v = {0};
	int r = layout_each_mapping(add_part, &v, err);

	if (r < 0 || !v.parts)
		return r;
	if (v.parts > PARTS)
		return error_set(err, -ENOTSUP, "the vdso is in %u parts", v.parts);
	r = move_parts(&v, delta, err);
	if (r < 0)
		return r;
	/* Its end is noted as well, and belongs to it unless something else begins there. */
	struct layout_move m = {
		.from = v.all.start, .end = v.all.end + !v.has_neighbour, .delta = delta};
	r = layout_each_mapping(turn_memory, &m, err);
	if (r < 0) {
		move_back(&v, v.parts, delta);
		return r;
	}
	layout_turn_words(&m, (uintptr_t)argv, (uintptr_t)argv[0]);
	layout_turn_objects(&m);
	return 0;
}
