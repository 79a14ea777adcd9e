/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MMU_TLB_H
#define HANOK_MMU_TLB_H

#include <stdint.h>
#include <string.h>

#include "mmu/walk.h"

/*
 * The software TLB of one vCPU: direct-mapped, one table an access class. A tag is the page's gva,
 * or TLB_EMPTY. An access hits when the tag equals its gva with the in-page bits cleared that do
 * not make it cross the page: (gva + size - 1) & ~0xfff == tag also for its first byte, so pages
 * with anything special about them (MMIO, ROM on write, watchpoints) are simply never entered.
 * Written and read by the vCPU's thread only.
 */
enum { TLB_ENTRIES = 512, TLB_CODE_ENTRIES = 256 };
#define TLB_EMPTY UINT64_MAX

struct tlb_entry {
	uint64_t read;	 /* tag for reads */
	uint64_t write;	 /* tag for writes */
	uint64_t addend; /* hva = gva + addend */
	uint64_t gpa;	 /* of the page; bit 0: global */
};

struct tlb_code_entry {
	uint64_t tag;
	const uint8_t *hva; /* of the page */
	uint64_t gpa;	    /* of the page; bit 0: global */
};

struct tlb {
	struct tlb_entry data[MMU_CLASS_NR][TLB_ENTRIES];
	struct tlb_code_entry code[2][TLB_CODE_ENTRIES]; /* supervisor, user */
};

static inline unsigned tlb_index(uint64_t gva)
{
	return (gva >> MEM_PAGE_SHIFT) % TLB_ENTRIES;
}

static inline unsigned tlb_code_index(uint64_t gva)
{
	return (gva >> MEM_PAGE_SHIFT) % TLB_CODE_ENTRIES;
}

void tlb_flush(struct tlb *t, bool keep_global);
/* Drops what covers one linear address (entries are 4 KiB each, also for parts of large pages, so
 * the caller flushes all when the page may be large). */
void tlb_flush_page(struct tlb *t, uint64_t gva);

#endif
