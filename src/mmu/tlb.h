/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MMU_TLB_H
#define HANOK_MMU_TLB_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "mmu/walk.h"

/*
 * The software TLB of one vCPU: direct-mapped, one table an access class. A tag is the page's gva,
 * or in an empty slot that of a page which belongs to another slot, so that no gva can match it.
 * An access hits when its gva XOR the tag is an offset within the page that leaves room for its
 * size. So pages with anything special about them (MMIO, ROM on write, watchpoints)
 * are simply never entered. Written and read by the vCPU's thread only; translated code (cpu/bt)
 * reads the entries by their layout.
 *
 * Most flushes keep global translations, and few of the others are there at a time: which slots
 * were filled with such is kept in a list, so that a flush costs what was used and not the size of
 * the tables.
 *
 * Beside the tables there is, for each class, a copy of the entry that the stack pointer led to last: the
 * stack's next address mostly lies in the same page, and where that entry is does not depend on the
 * address, so nothing waits for it. Translated code makes the copies; they are emptied whenever any entry
 * is taken back or loses a right. No tag keeps every gva from an empty copy: it has that of a page that is
 * not canonical, and a program that goes there all the same finds a page of no use.
 */
enum {
	TLB_ENTRIES = 16384,
	TLB_CODE_ENTRIES = 256,
	TLB_LOCAL_MAX = 8192,
	TLB_WRITTEN = 1 << 16, /* a power of two */
	TLB_WRITTEN_MANY = UINT16_MAX
};
#define TLB_CODE_EMPTY UINT64_MAX
#define TLB_STACK_EMPTY (UINT64_C(1) << 63)

struct tlb_entry {
	uint64_t read;	/* tag for reads */
	uint64_t write; /* tag for writes */
	uint64_t hva;	/* of the page */
	uint64_t gpa;	/* of the page; bit 0: global */
};

struct tlb_code_entry {
	uint64_t tag;
	const uint8_t *hva; /* of the page */
	uint64_t gpa;	    /* of the page; bit 0: global */
};

struct tlb {
	struct tlb_entry data[MMU_CLASS_NR][TLB_ENTRIES];
	struct tlb_entry stack[MMU_CLASS_NR];		 /* gpa is not copied */
	const void *nowhere;				 /* the page that empty ones lead to */
	struct tlb_code_entry code[2][TLB_CODE_ENTRIES]; /* supervisor, user */
	/* Data slots filled with translations that are not global since the last flush of them. */
	uint16_t local[TLB_LOCAL_MAX]; /* class * TLB_ENTRIES + index */
	unsigned locals;	       /* over TLB_LOCAL_MAX: too many to list */
	/* By the low bits of the guest-physical page's number: which data slot lets stores to it hit;
	 * 0: none, else the slot (class * TLB_ENTRIES + index) + 1, or TLB_WRITTEN_MANY: several may. */
	uint16_t written[TLB_WRITTEN];
};

static_assert(MMU_CLASS_NR * TLB_ENTRIES < TLB_WRITTEN_MANY, "slots have 16 bits");

static inline unsigned tlb_index(uint64_t gva)
{
	return (gva >> MEM_PAGE_SHIFT) % TLB_ENTRIES;
}

static inline unsigned tlb_code_index(uint64_t gva)
{
	return (gva >> MEM_PAGE_SHIFT) % TLB_CODE_ENTRIES;
}

static inline uint64_t tlb_empty_tag(unsigned index)
{
	return (uint64_t)(index ^ 1) << MEM_PAGE_SHIFT;
}

/* Whether size bytes at gva are all in the page of this tag. */
static inline int tlb_hit(uint64_t tag, uint64_t gva, unsigned size)
{
	return (gva ^ tag) <= MEM_PAGE_BYTES - (uint64_t)size;
}

/* Enters a page; write: stores may use it too. */
void tlb_fill(struct tlb *t, enum mmu_class class, uint64_t gva, const struct mmu_page *page,
	      const void *hva, bool write);

void tlb_flush(struct tlb *t, bool keep_global);
/* Empties one slot. tlb_forget_stack is next, once for several. */
void tlb_drop(struct tlb *t, enum mmu_class class, unsigned index);
/* After entries were taken back or lost a right: what was copied of them may not be used any more. */
void tlb_forget_stack(struct tlb *t);
/* Drops what covers one linear address (entries are 4 KiB each, also for parts of large pages, so
 * the caller flushes all when the page may be large). */
void tlb_flush_page(struct tlb *t, uint64_t gva);
/* From now on no store to this guest-physical page hits. */
void tlb_forbid_writes(struct tlb *t, uint64_t gpa);

#endif
