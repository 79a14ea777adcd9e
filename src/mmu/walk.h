/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MMU_WALK_H
#define HANOK_MMU_WALK_H

#include "cpu/state/cpu_state.h"
#include "mem/mem.h"

/*
 * Guest page walks, GVA to GPA: none, 32-bit (with PSE), PAE and 4-level paging (SDM Vol. 3 ch. 4).
 */
enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXEC };

/* Page-fault error code (SDM 4.7). */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

/* Who asks: decides which pages are allowed. */
enum mmu_class {
	MMU_KERNEL,	 /* supervisor access; SMAP applies where CR4 has it on */
	MMU_KERNEL_USER, /* supervisor access allowed on user pages (no SMAP, or AC set) */
	MMU_USER,
	MMU_CLASS_NR
};

struct mmu_page {
	uint64_t gpa;	    /* of the byte asked for */
	uint8_t page_shift; /* 12, 21, 22 or 30; 12 without paging */
	bool writable;	    /* a later write by the same class needs no walk: allowed, D is set */
	bool executable;    /* likewise for a fetch */
	bool global;
};

/*
 * Translates gva (a linear address, already checked for canonical form) for one access and sets
 * accessed and dirty bits as the hardware does, atomically against other vCPUs. 0; -EFAULT with
 * the page-fault error code in *error; or -EAGAIN: a table is in a page that is away (mem_page), page->gpa. vCPU
 * thread.
 */
int mmu_walk(struct mem *m, const struct cpu_state *s, uint64_t gva, enum mmu_access access,
	     enum mmu_class class, struct mmu_page *page, uint32_t *error);

/* The same without any effect on the guest, permissions ignored; for inspection and debugging. */
int mmu_peek(struct mem *m, const struct cpu_state *s, uint64_t gva, uint64_t *gpa);

/* Reads the four PAE PDPTEs at cr3: 0, or -EINVAL when one has reserved bits set (#GP; SDM 4.4.1)
 * or -EFAULT when they are not in RAM. */
int mmu_load_pdptes(struct mem *m, uint64_t cr3, uint64_t pdpte[4]);

#endif
