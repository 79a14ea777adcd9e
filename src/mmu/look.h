/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MMU_LOOK_H
#define HANOK_MMU_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/state/cpu_state.h"
#include "mem/mem.h"

/*
 * A guest page walk that is only looked at: every level of it, also where it ends early, and nothing is
 * changed in the guest: no accessed bits, no TLB. Tables are read while the guest may write to them;
 * it may hand over any nonsense, for example tables that contain themselves. Everything here may be
 * called on any thread.
 */

/* What decides how an address is translated: from a vCPU, or made up from another CR3. */
struct mmu_mode {
	uint64_t cr0, cr3, cr4, efer;
	/* PAE paging: the registers loaded with CR3. Not known: read from memory. */
	bool pdptes_known;
	uint64_t pdpte[4];
};
void mmu_mode_of(struct mmu_mode *mode, const struct cpu_state *s);

enum mmu_paging { MMU_PAGING_OFF, MMU_PAGING_32, MMU_PAGING_PAE, MMU_PAGING_4LEVEL, MMU_PAGING_NR };
/* "off", "32-bit", "PAE", "4-level". */
extern const char *const mmu_paging_names[MMU_PAGING_NR];

/* How the walk ended. */
enum mmu_look_end {
	MMU_LOOK_MAPPED,	/* at a page */
	MMU_LOOK_NOT_PRESENT,	/* an entry's present bit is clear: the last level's */
	MMU_LOOK_RESERVED,	/* an entry has reserved bits set: the last level's */
	MMU_LOOK_OUTSIDE,	/* a table lies where there is no memory: the last level's */
	MMU_LOOK_NOT_CANONICAL, /* 4-level: bits 47 to 63 of the address are not alike */
	MMU_LOOK_TOO_HIGH,	/* another mode: the address has more than 32 bits */
	MMU_LOOK_END_NR
};
/* "mapped", "not-present" and so on, as JSON has it. */
extern const char *const mmu_look_end_names[MMU_LOOK_END_NR];

enum { MMU_LOOK_LEVELS = 4, MMU_LOOK_FLAGS = 24 };

struct mmu_look_level {
	const char *name;  /* "PML4", "PDPT", "PD", "PT" */
	uint64_t table;	   /* gpa of the table */
	unsigned index;	   /* of the entry in it */
	uint64_t at;	   /* gpa of the entry */
	bool readable;	   /* there is memory at `at`; else entry is 0 */
	bool from_pdpte;   /* the entry is the vCPU's register, not what lies at `at` */
	uint64_t entry;	   /* 8 bytes, or 4 in 32-bit paging */
	uint64_t reserved; /* bits of it that are set and must not be */
	uint8_t shift;	   /* of what an entry here spans: 39, 30, 22, 21 or 12 */
	bool maps;	   /* the entry maps a page of that size */
	int same_as;	   /* an earlier level with the same table: it loops; -1: none */
};

struct mmu_look {
	enum mmu_paging paging;
	enum mmu_look_end end;
	uint64_t gva;
	unsigned levels;
	struct mmu_look_level level[MMU_LOOK_LEVELS];
	bool changing; /* entries were changed again and again while they were read */

	/* MMU_LOOK_MAPPED only: */
	uint64_t gpa;	    /* of the byte */
	uint8_t page_shift; /* 12, 21, 22 or 30; 12 with paging off */
	/* What all levels together allow; writable: by CPL 3, and by the kernel where CR0.WP is set. */
	bool writable, user, executable;
	bool global, accessed, dirty;
};

void mmu_look(struct mem *m, const struct mmu_mode *mode, uint64_t gva, struct mmu_look *out);

/* The names of the flags set in a level's entry, and their number (at most MMU_LOOK_FLAGS). */
unsigned mmu_look_flags(const struct mmu_look *l, unsigned level,
			const char *names[MMU_LOOK_FLAGS]);

/*
 * Copies from guest-physical memory as mem_read does (0 or -EFAULT), but pages that nobody has touched
 * stay so: they read as zero. A page that is swapped out is brought in.
 */
int mmu_look_phys(struct mem *m, uint64_t gpa, void *buf, size_t len);

/* The same from addresses that the guest translates; -EFAULT also where one is not mapped. */
int mmu_look_virt(struct mem *m, const struct mmu_mode *mode, uint64_t gva, void *buf, size_t len);

#endif
