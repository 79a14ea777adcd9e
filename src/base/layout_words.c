/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that has moved, and the words that point to it.
 *
 * Which words those are nobody tells. So every aligned word of the data of the program and its libraries
 * is looked at, and what points there is made to point to the new place. That needs addresses no other
 * data looks like: 47 bits with much chance in them.
 */
#include <errno.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/layout_internal.h"

enum { PAGE = 4096 };

/* ---- what is mapped ---- */

static bool parse_mapping(char *line, struct layout_mapping *m)
{
	int name = 0;

	*m = (struct layout_mapping){0};
	line[strcspn(line, "\n")] = 0;
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %*s %n", &m->at.start, &m->at.end,
		   m->access, &name) < 3)
		return false;
	m->name = line + name;
	return true;
}

int layout_each_mapping(void (*each)(const struct layout_mapping *, void *), void *opaque,
			struct error *err)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char *line = NULL;
	size_t room = 0;
	struct layout_mapping m;

	if (!f)
		return error_set(err, -errno, "/proc/self/maps: %s", strerror(errno));
	while (getline(&line, &room, f) > 0)
		if (parse_mapping(line, &m))
			each(&m, opaque);
	free(line);
	fclose(f);
	return 0;
}

/* ---- words ---- */

bool layout_points_there(const struct layout_move *m, uintptr_t word)
{
	return word >= m->from && word < m->end;
}

void layout_turn_words(const struct layout_move *m, uintptr_t at, uintptr_t end)
{
	for (uintptr_t *w = (uintptr_t *)at; (uintptr_t)(w + 1) <= end; w++)
		if (layout_points_there(m, *w))
			*w += m->delta;
}

static void turn_protected(const struct layout_move *m, uintptr_t at, uintptr_t end)
{
	for (; at < end; at += sizeof(uintptr_t)) {
		void *page = (void *)(at & ~(uintptr_t)(PAGE - 1));
		if (!layout_points_there(m, *(uintptr_t *)at) ||
		    mprotect(page, PAGE, PROT_READ | PROT_WRITE) < 0)
			continue;
		*(uintptr_t *)at += m->delta;
		mprotect(page, PAGE, PROT_READ);
	}
}

/* What the loader has made read-only after it had written there. */
static struct layout_taken relro_of(const struct dl_phdr_info *object)
{
	struct layout_taken relro = {0, 0};

	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &object->dlpi_phdr[i];
		if (h->p_type != PT_GNU_RELRO)
			continue;
		/* In whole pages, as ld.so protects it. */
		relro.start = (object->dlpi_addr + h->p_vaddr) & ~(uint64_t)(PAGE - 1);
		relro.end = (object->dlpi_addr + h->p_vaddr + h->p_memsz) & ~(uint64_t)(PAGE - 1);
	}
	return relro;
}

static int turn_object(struct dl_phdr_info *object, size_t size, void *opaque)
{
	const struct layout_move *m = opaque;

	(void)size;
	/* The vdso itself, where it was. */
	if (layout_points_there(m, (uintptr_t)object->dlpi_phdr))
		return 0;
	struct layout_taken relro = relro_of(object);
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &object->dlpi_phdr[i];
		if (h->p_type != PT_LOAD || !(h->p_flags & PF_W))
			continue;
		uintptr_t at = (object->dlpi_addr + h->p_vaddr + 7) & ~(uintptr_t)7;
		/* The loader's first allocations are in what is left of its last page. */
		uintptr_t end = object->dlpi_addr + h->p_vaddr + h->p_memsz;
		end = (end + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
		if (relro.start < end && relro.end > at) {
			layout_turn_words(m, at, relro.start);
			turn_protected(m, at > relro.start ? at : relro.start, relro.end);
			at = relro.end;
		}
		layout_turn_words(m, at, end);
	}
	return 0;
}

void layout_turn_objects(const struct layout_move *m)
{
	dl_iterate_phdr(turn_object, (void *)m);
}
