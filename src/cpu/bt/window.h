/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_BT_WINDOW_H
#define HANOK_CPU_BT_WINDOW_H

#include "base/layout.h"
#include "cpu/bt/bt.h"

/* Inside of the window: what window.c, window_pages.c, window_fill.c and window_fault.c share. All is the
 * vCPU's thread's, but for the tables of blocks. */

enum {
	WINDOW_PAGES = 1 << 18, /* at most */
	WINDOW_HASH = 1 << 18,
	WINDOW_HUGE = 1 << 16, /* of the pages, whose table has huge pages from the beginning */
	WINDOW_MAPS = 20000,   /* mappings made; each may leave two, and the host allows 65,530 */
	WINDOW_FAILED = 8,
	WINDOW_SHY = 1024,    /* instructions counted that meet new memory */
	WINDOW_GRANULE = 256, /* bytes of code, in the table of blocks */
	WINDOW_CODE_HASH = 1 << 14,
};

/* Of CR3 and of entries: where the table or page is. */
#define ENTRY_ADDRESS ((UINT64_C(1) << 52) - MEM_PAGE_BYTES)

/* What the host lets be mapped: from vm.mmap_min_addr on, but for the last page. */
#define WINDOW_LOW UINT64_C(0x10000)
#define WINDOW_END ((UINT64_C(1) << 47) - MEM_PAGE_BYTES)

/* The bits of an address from BT_SLICES_SHIFT on have 4 GiB; the user half's come to 32 KiB, and the slice is
 * a page of them. */
#define SLICES_BYTES (UINT64_C(1) << (64 - BT_SLICES_SHIFT))
static_assert(LAYOUT_END - LAYOUT_BASE == (uint64_t)MEM_PAGE_BYTES << BT_SLICES_SHIFT,
	      "the slice is a page of the table");

struct window_page {
	uint64_t gva;  /* 0: none */
	uint32_t gpfn; /* guest-physical page */
	uint32_t next; /* of the same hash, + 1 */
	uint32_t next_written;
	bool write, stay;
};

struct bt_window {
	struct mem *mem;
	struct layout_taken stack;
	bool open, used;
	uint64_t cr3; /* whose it is */
	bool stale;   /* the page tables may have changed */

	struct window_page *page;
	struct window_page **wrong;   /* for make_right */
	uint32_t pages, unused, live; /* ever used; a chain of those given back, + 1; in use */
	uint32_t maps;
	uint32_t *hash;
	uint32_t *written; /* by guest-physical page: where it may be written to, + 1, chained */
	uint64_t gpfns;

	unsigned hits;	  /* falls when interrupts find another address space running */
	uint64_t claimer; /* the one they have found last, and how often after one another */
	unsigned claims, oldest;
	/* Address spaces that it did not pay for, and how many claims they need. */
	struct {
		uint64_t cr3;
		unsigned need;
	} failed[WINDOW_FAILED];
	uint64_t wanted; /* where user code faulted that the guest's kernel sees to now, or 0 */
	bool wanted_write;
	uint32_t coded;	      /* the page with code that was written to last, */
	unsigned code_writes; /* and how often */
	/* By their address: instructions that meet new memory. */
	struct window_shy {
		uint64_t rip, gpa;
		unsigned met; /* pages, since that tick */
		unsigned since;
		unsigned times; /* that they were too many */
		unsigned until; /* the tick from which on it is tried again */
		bool shy;	/* asks the TLB */
	} shy[WINDOW_SHY];
	int credit;
	unsigned ticks; /* that the owner has had */

	/* Ids of code pages that links trust, and by address, chained. */
	uint32_t *code, *code_hash;
	uint32_t codes;

	/* By their place in hot code: blocks of the window (index + 1). */
	_Atomic uint32_t *near;
	size_t granules;
	uint8_t *slices; /* bt.slices of the vCPUs */
};

/* ---- window_pages.c: what is mapped ---- */

/* Pages to be mapped in one piece. */
struct window_run {
	uint64_t gva, gpa, hva;
	unsigned pages;
	bool write;
};

/* May there be a page of the window at gva? */
bool window_is_for(const struct bt_window *w, uint64_t gva);
struct window_page *window_find(struct bt_window *w, uint64_t gva);
/* False: it is not RAM, or the host does not let it be mapped. */
bool window_map(struct bt_window *w, const struct window_run *run);
void window_drop(struct bt_window *w, struct window_page *p);
void window_drop_all(struct bt_window *w);
/* No store to the page reaches it any more. */
void window_protect(struct bt_window *w, struct window_page *p);
/* Takes pages away, or where p->stay the right to write to them. Sorts them. Returns how many pieces they
 * were in. */
uint32_t window_take_back(struct bt_window *w, struct window_page **wrong, uint32_t count);

/* ---- window_fill.c: what the guest's page tables say ---- */

/* Do the guest's page tables let user code read, or write, the page at gva? */
bool window_is_in_guest(struct soft_cpu *c, const struct bt_window *w, uint64_t gva, bool write);
/* Do they have nothing for user code any more? */
bool window_is_empty_in_guest(struct soft_cpu *c, const struct bt_window *w);
/* Brings what user code reaches for into the window. False: it is nothing that can be there. May raise. */
bool window_bring_in(struct soft_cpu *c, struct bt_window *w, uint64_t gva, bool write);
/* The same for w->wanted, without raising. */
void window_bring_in_wanted(struct soft_cpu *c, struct bt_window *w);
/* Takes from pages what the page tables do not give any more; returns how many mappings that took. */
uint32_t window_make_right(struct soft_cpu *c, struct bt_window *w);
/* Links trust no code page any more that they do not give. */
void window_check_code(struct soft_cpu *c, struct bt_window *w);

/* ---- window_code.c: code pages that links trust ---- */

/* The n'th is not to be trusted any more; another takes its place. Before user code runs comes bt_serialize. */
void window_distrust(struct soft_cpu *c, struct bt_window *w, uint32_t n);
/* The same for those at gva. */
void window_distrust_at(struct soft_cpu *c, struct bt_window *w, uint64_t gva);
/* There are no code pages any more. */
void window_forget_code(struct bt_window *w);

#endif
