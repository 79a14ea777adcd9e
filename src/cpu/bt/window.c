/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/bt.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/layout.h"
#include "base/log.h"
#include "cpu/interp/block.h"
#include "mmu/look.h"

/*
 * The window: pages of a guest's process, mapped into this process at the guest's own addresses, so that the
 * host's MMU translates for its user code and operands need no look-up (direct.c). It is there where all of
 * the monitor's memory lies in one slice of the address space (base/layout.h) and the guest's RAM is a file's,
 * which can be mapped twice.
 *
 * One vCPU has it at a time, for one address space: the one that timer interrupts have found running again
 * and again. For a page that comes into the window costs several microseconds, and processes that end soon
 * or take turns are better off with the software TLB. The code of both is another translation mode
 * (MODE_KEY_WINDOW).
 *
 * The window is a cache of the guest's page tables, as a TLB is, and only holds what a TLB may hold: pages
 * that user code may reach and whose accessed bit is set; writable ones whose dirty bit is set, and which have
 * no code. A page comes in when it is asked for (a SIGSEGV) and takes its neighbours along where these lie next
 * to it in the guest's memory, too. What takes entries out of the TLB takes pages out of the window:
 *
 *	INVLPG			that page
 *	CR3 without a flush	nothing: the window waits until its address space comes back
 *	any other flush		all is looked at anew before user code runs next, and what does not
 *				hold any more goes
 *	code in a page		it may not be written to from now on
 *	memory that leaves	everything
 *
 * Where pages come and go all the time the window costs more than it is worth. So the owner has a credit
 * that all this is charged to; when it is used up, the window is given up, and the address space has to be
 * found running for four times as long before it has another.
 */
enum {
	PAGES = 1 << 18, /* at most */
	HASH = 1 << 18,
	MAPS = 20000,	/* mappings made; each may leave two, and the host allows 65,530 */
	RUN = 16,	/* pages that come in with one, at most so many on each side */
	GRANULE = 256,	/* bytes of code, in the table of blocks */
	HITS = 4,	/* interrupts in a row that make an address space the window's */
	HITS_MAX = 256, /* or that are asked of one which it did not pay for */
	/* What the window may cost, counted in pages brought in, some 8 us each: in the beginning, for each
	 * interrupt that finds the owner running, and how much it can have saved. */
	CREDIT = 1000,
	CREDIT_TICK = 40,
	CREDIT_MAX = 4000,
	LOOKS = 128,	 /* pages looked at again cost as much as one brought in */
	OWNER_HITS = 16, /* interrupts that find another running, before the owner loses it */
};

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
	_Atomic(struct soft_cpu *) owner;
	uint64_t cr3;
	bool stale; /* the page tables may have changed */

	struct window_page *page;
	struct window_page **wrong;   /* for make_right */
	uint32_t pages, unused, live; /* ever used; a chain of those given back, + 1; in use */
	uint32_t maps;
	uint32_t *hash;
	uint32_t *written; /* by guest-physical page: where it may be written to, + 1, chained */
	uint64_t gpfns;

	unsigned hits;		   /* falls when interrupts find the owner doing something else */
	_Atomic bool others_claim; /* another vCPU would have it */
	uint64_t wanted; /* where user code faulted that the guest's kernel sees to now, or 0 */
	bool wanted_write;
	int credit;
	unsigned ticks; /* that the owner has had */

	/* By their place in hot code: blocks that reach operands in the window (index + 1). */
	_Atomic uint32_t *near;
	size_t granules;
	uint8_t *slices; /* bt.slices of the vCPUs */
};

/* ---- pages ---- */

static uint32_t *slot_of(struct bt_window *w, uint64_t gva)
{
	return &w->hash[(gva >> MEM_PAGE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15) >> 46];
}

static struct window_page *find_page(struct bt_window *w, uint64_t gva)
{
	uint32_t n = *slot_of(w, gva);

	while (n && w->page[n - 1].gva != gva)
		n = w->page[n - 1].next;
	return n ? &w->page[n - 1] : NULL;
}

static void forget_written(struct bt_window *w, const struct window_page *p)
{
	uint32_t *at = &w->written[p->gpfn];

	if (!p->write)
		return;
	while (*at != (uint32_t)(p - w->page) + 1)
		at = &w->page[*at - 1].next_written;
	*at = p->next_written;
}

static void forget_page(struct bt_window *w, struct window_page *p)
{
	uint32_t *at = slot_of(w, p->gva), n = (uint32_t)(p - w->page) + 1;

	while (*at != n)
		at = &w->page[*at - 1].next;
	*at = p->next;
	forget_written(w, p);
	*p = (struct window_page){.next = w->unused};
	w->unused = n;
	w->live--;
}

static void unmap(uint64_t gva, uint64_t bytes)
{
	munmap((void *)gva, bytes);
}

static void drop_page(struct bt_window *w, struct window_page *p)
{
	unmap(p->gva, MEM_PAGE_BYTES);
	forget_page(w, p);
}

static void protect(struct bt_window *w, struct window_page *p)
{
	forget_written(w, p);
	p->write = false;
	mprotect((void *)p->gva, MEM_PAGE_BYTES, PROT_READ);
}

/* Everything outside of the monitor's slice and of the stack it began on is the window's. */
static void drop_all(struct bt_window *w)
{
	if (!w->pages)
		return;
	unmap(WINDOW_LOW, LAYOUT_BASE - WINDOW_LOW);
	unmap(LAYOUT_END, w->stack.start - LAYOUT_END);
	if (w->stack.end < WINDOW_END)
		unmap(w->stack.end, WINDOW_END - w->stack.end);
	for (uint32_t n = 0; n < w->pages; n++)
		if (w->page[n].gva) {
			*slot_of(w, w->page[n].gva) = 0;
			forget_written(w, &w->page[n]);
		}
	w->pages = w->unused = w->live = w->maps = 0;
}

static bool is_ours(const struct bt_window *w, uint64_t gva)
{
	return gva >= WINDOW_LOW && gva < WINDOW_END && (gva < LAYOUT_BASE || gva >= LAYOUT_END) &&
	       (gva < w->stack.start || gva >= w->stack.end);
}

static struct window_page *new_page(struct bt_window *w, uint64_t gva)
{
	uint32_t n = w->unused;

	if (n) {
		w->unused = w->page[n - 1].next;
	} else {
		n = ++w->pages;
	}
	w->live++;
	struct window_page *p = &w->page[n - 1];
	*p = (struct window_page){.gva = gva, .next = *slot_of(w, gva)};
	*slot_of(w, gva) = n;
	return p;
}

static void note_page(struct bt_window *w, uint64_t gva, uint64_t gpa, bool write)
{
	struct window_page *p = find_page(w, gva);

	if (!p)
		p = new_page(w, gva);
	else
		forget_written(w, p);
	p->gpfn = (uint32_t)(gpa >> MEM_PAGE_SHIFT);
	p->write = write;
	if (!write)
		return;
	p->next_written = w->written[p->gpfn];
	w->written[p->gpfn] = (uint32_t)(p - w->page) + 1;
}

/* ---- what the guest's page tables say ---- */

struct right {
	bool read, write;
	uint64_t gpa, hva;
};

/* What leads to the pages of one region of 2 MiB, so that neighbours need no walk each. */
struct region {
	uint64_t gva; /* of the region, + 1; 0: none yet */
	bool large;   /* one page, or part of one */
	bool read, write;
	uint64_t gpa;	    /* of a large one */
	const uint64_t *pt; /* else its table; NULL: there is none */
};
enum { REGION = 2 << 20, PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40 };

static void look_at_region(struct soft_cpu *c, uint64_t cr3, uint64_t gva, struct region *g)
{
	struct mmu_mode mode;
	struct mmu_look l;
	enum mem_kind kind;

	*g = (struct region){.gva = (gva & -(uint64_t)REGION) + 1, .write = true};
	mmu_mode_of(&mode, &c->s);
	mode.cr3 = cr3;
	mmu_look(c->mem, &mode, gva, &l);
	if (l.paging != MMU_PAGING_4LEVEL || l.changing)
		return;
	if (l.end == MMU_LOOK_MAPPED && l.page_shift > MEM_PAGE_SHIFT) {
		g->large = true;
		g->read = l.user && l.accessed;
		g->write = l.writable && l.dirty;
		g->gpa = l.gpa & -(uint64_t)REGION;
		return;
	}
	if (l.levels < MMU_LOOK_LEVELS)
		return;
	g->read = true;
	for (unsigned n = 0; n + 1 < MMU_LOOK_LEVELS; n++) {
		g->read &= (l.level[n].entry & PTE_U) != 0;
		g->write &= (l.level[n].entry & PTE_W) != 0;
	}
	g->pt = (const uint64_t *)mem_page(c->mem, l.level[MMU_LOOK_LEVELS - 1].table, false,
					   &kind);
}

static struct right look(struct soft_cpu *c, uint64_t cr3, uint64_t gva, struct region *g)
{
	enum mem_kind kind;
	uint64_t gpa = 0;
	bool write;

	if (g->gva != (gva & -(uint64_t)REGION) + 1)
		look_at_region(c, cr3, gva, g);
	if (!g->read)
		return (struct right){0};
	if (g->large) {
		gpa = g->gpa + gva % REGION;
		write = g->write;
	} else {
		const uint64_t e = !g->pt ? 0
					  : __atomic_load_n(&g->pt[gva / MEM_PAGE_BYTES % 512],
							    __ATOMIC_RELAXED);
		if ((e & (PTE_P | PTE_U | PTE_A)) != (PTE_P | PTE_U | PTE_A))
			return (struct right){0};
		gpa = e & ((UINT64_C(1) << 52) - MEM_PAGE_BYTES);
		write = g->write && (e & (PTE_W | PTE_D)) == (PTE_W | PTE_D);
	}
	gpa &= PAGE_MASK;
	if (gpa >> MEM_PAGE_SHIFT >= c->translator->gpa_pages) /* reserved bits, too */
		return (struct right){0};
	const uint8_t *hva = mem_page(c->mem, gpa, false, &kind);
	if (!hva || kind != MEM_RAM)
		return (struct right){0};
	return (struct right){
		.read = true,
		.write = write && mem_may_write(c->mem, gpa) && !blocks_page_is_code(c, gpa) &&
			 !bt_has_code(c->translator, gpa),
		.gpa = gpa,
		.hva = (uint64_t)hva,
	};
}

/* Pages that come in with one that is asked for: as far as they can be mapped in one piece with it. */
struct run {
	uint64_t gva, gpa, hva;
	unsigned pages;
	bool write;
};

static bool goes_with(struct soft_cpu *c, const struct bt_window *w, const struct run *run,
		      int64_t pages, struct region *g)
{
	const uint64_t by = (uint64_t)pages * MEM_PAGE_BYTES, at = run->gva + by;

	if (!is_ours(w, at))
		return false;
	const struct right r = look(c, w->cr3, at, g);
	return r.read && r.write == run->write && r.gpa == run->gpa + by && r.hva == run->hva + by;
}

/* By up to so many pages, in front of the run and behind it; over pages that are there only if told. */
static void extend(struct soft_cpu *c, struct bt_window *w, struct run *run, unsigned before,
		   unsigned after, bool over)
{
	struct region g = {0};

	for (unsigned n = 0;
	     n < after &&
	     (over || !find_page(w, run->gva + run->pages * (uint64_t)MEM_PAGE_BYTES)) &&
	     goes_with(c, w, run, run->pages, &g);
	     n++)
		run->pages++;
	for (unsigned n = 0; n < before && (over || !find_page(w, run->gva - MEM_PAGE_BYTES)) &&
			     goes_with(c, w, run, -1, &g);
	     n++) {
		run->gva -= MEM_PAGE_BYTES;
		run->gpa -= MEM_PAGE_BYTES;
		run->hva -= MEM_PAGE_BYTES;
		run->pages++;
	}
}

/* All of a page of 2 MiB where the guest has one, for which the host may have one as well; else a few. */
static void find_run(struct soft_cpu *c, struct bt_window *w, struct run *run)
{
	const unsigned all = REGION / MEM_PAGE_BYTES,
		       before = (unsigned)(run->gva % REGION / MEM_PAGE_BYTES);
	const struct run one = *run;
	struct region g = {0};

	look(c, w->cr3, run->gva, &g);
	if (g.large) {
		extend(c, w, run, before, all - 1 - before, true);
		if (run->pages == all)
			return;
		*run = one;
	}
	extend(c, w, run, RUN, RUN, false);
}

static bool map(struct bt_window *w, const struct run *run)
{
	const size_t bytes = run->pages * (size_t)MEM_PAGE_BYTES;
	uint64_t offset;
	const int fd = mem_file(w->mem, (const void *)run->hva, &offset);

	if (w->live + run->pages > PAGES || w->maps == MAPS)
		drop_all(w);
	w->maps++;
	if (mmap((void *)run->gva, bytes, run->write ? PROT_READ | PROT_WRITE : PROT_READ,
		 MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, (off_t)offset) == MAP_FAILED)
		return false;
	for (size_t by = 0; by < bytes; by += MEM_PAGE_BYTES)
		note_page(w, run->gva + by, run->gpa + by, run->write);
	return true;
}

/* Brings what user code reaches for into the window. False: it is nothing that can be there. May raise. */
static bool bring_in(struct soft_cpu *c, struct bt_window *w, uint64_t gva, bool write)
{
	const struct tlb_entry *e = &c->tlb.data[MMU_USER][tlb_index(gva)];

	if (!is_ours(w, gva))
		return false;
	if (!tlb_hit(write ? e->write : e->read, gva, 1)) {
		cpu_fill_tlb(c, gva, 1, write, MMU_USER);
		if (!tlb_hit(write ? e->write : e->read, gva, 1))
			return false;
	}
	const uint64_t page = gva & PAGE_MASK;
	struct run run = {.gva = page,
			  .gpa = e->gpa & PAGE_MASK,
			  .hva = e->hva,
			  .pages = 1,
			  .write = e->write == page};
	const struct window_page *p = find_page(w, page);
	uint64_t offset;

	if (run.gpa >> MEM_PAGE_SHIFT >= w->gpfns ||
	    mem_file(w->mem, (const void *)run.hva, &offset) < 0)
		return false;
	if (p && p->gpfn == run.gpa >> MEM_PAGE_SHIFT && (p->write || !write))
		return false; /* it is there: something else is wrong with the access */
	find_run(c, w, &run);
	return map(w, &run);
}

/* User code comes back from the guest's handler of a page fault: most likely the page is there now. */
static void bring_in_wanted(struct soft_cpu *c, struct bt_window *w)
{
	const uint64_t page = w->wanted & PAGE_MASK;
	struct region g = {0};

	w->wanted = 0;
	if (w->stale || !is_ours(w, page) || find_page(w, page))
		return;
	const struct right r = look(c, w->cr3, page, &g);
	struct run run = {.gva = page, .gpa = r.gpa, .hva = r.hva, .pages = 1, .write = r.write};
	if (!r.read || (w->wanted_write && !r.write))
		return;
	find_run(c, w, &run);
	map(w, &run);
}

static int by_gva(const void *a, const void *b)
{
	const struct window_page *x = *(struct window_page *const *)a;
	const struct window_page *y = *(struct window_page *const *)b;

	return x->gva < y->gva ? -1 : x->gva > y->gva;
}

/* Takes from pages what the page tables do not give any more, runs at a time. Returns how many mappings
 * that took. */
static uint32_t make_right(struct soft_cpu *c, struct bt_window *w)
{
	struct window_page **wrong = w->wrong;
	struct region g = {0};
	uint32_t count = 0, runs = 0;

	w->stale = false;
	for (uint32_t n = 0; n < w->pages; n++) {
		struct window_page *p = &w->page[n];
		if (!p->gva)
			continue;
		const struct right r = look(c, w->cr3, p->gva, &g);
		p->stay = r.read && r.gpa >> MEM_PAGE_SHIFT == p->gpfn;
		if (!p->stay || (p->write && !r.write))
			wrong[count++] = p;
	}
	qsort(wrong, count, sizeof(wrong[0]), by_gva);
	for (uint32_t n = 0; n < count; runs++) {
		const uint64_t from = wrong[n]->gva;
		const bool stay = wrong[n]->stay;
		uint64_t to = from;
		for (; n < count && wrong[n]->gva == to && wrong[n]->stay == stay;
		     n++, to += MEM_PAGE_BYTES) {
			forget_written(w, wrong[n]);
			wrong[n]->write = false;
			if (!stay)
				forget_page(w, wrong[n]);
		}
		if (stay)
			mprotect((void *)from, to - from, PROT_READ);
		else
			unmap(from, to - from);
	}
	return runs;
}

/* ---- whose it is ---- */

static bool is_mine(const struct soft_cpu *c)
{
	const struct bt_window *w = c->translator->window;

	return w && atomic_load_explicit(&w->owner, memory_order_relaxed) == c;
}

static void give_up(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	drop_all(w);
	c->bt.mode_known = false;
	atomic_store(&w->owner, NULL);
}

static unsigned hits_needed(const struct soft_cpu *c, uint64_t cr3)
{
	const struct bt_claim *k = &c->bt.claim;

	for (unsigned n = 0; n < BT_FAILED; n++)
		if (k->failed[n].need && k->failed[n].cr3 == cr3)
			return k->failed[n].need;
	return HITS;
}

/* It did not pay: or did it, for a while? */
static void remember_failure(struct soft_cpu *c)
{
	const struct bt_window *w = c->translator->window;
	struct bt_claim *k = &c->bt.claim;
	const unsigned need = w->ticks > HITS_MAX ? HITS : hits_needed(c, w->cr3) * 4;
	unsigned n = 0;

	while (n < BT_FAILED && k->failed[n].cr3 != w->cr3)
		n++;
	if (n == BT_FAILED)
		n = k->oldest++ % BT_FAILED;
	k->failed[n].cr3 = w->cr3;
	k->failed[n].need = need < HITS_MAX ? need : HITS_MAX;
}

/* False: that was more than it is worth, and the window is given up. */
static bool pays(struct soft_cpu *c, unsigned cost)
{
	struct bt_window *w = c->translator->window;

	w->credit -= (int)cost;
	if (w->credit >= 0 || c->translator->stress.window)
		return true;
	remember_failure(c);
	give_up(c);
	return false;
}

static bool take_over(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;
	struct soft_cpu *none = NULL;

	if (is_mine(c))
		drop_all(w);
	else if (!atomic_compare_exchange_strong(&w->owner, &none, c))
		return false;
	w->cr3 = c->s.cr3;
	w->stale = false;
	w->hits = OWNER_HITS;
	atomic_store(&w->others_claim, false);
	w->credit = CREDIT;
	w->ticks = 0;
	c->bt.mode_known = false;
	return true;
}

/* The owner does something else: others may have it after a while. */
static void lose_interest(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	w->hits -= w->hits > 0;
	if (!w->hits && atomic_load(&w->others_claim))
		give_up(c);
}

void bt_window_tick(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;
	struct bt_claim *k = &c->bt.claim;

	if (!w || mem_has_limit(w->mem))
		return;
	const bool user = c->cpl == 3 && c->mode == MODE_64;
	if (is_mine(c) && user && w->cr3 == c->s.cr3) {
		w->hits += w->hits < OWNER_HITS;
		w->ticks++;
		w->credit += w->credit < CREDIT_MAX ? CREDIT_TICK : 0;
		return;
	}
	if (is_mine(c))
		lose_interest(c);
	if (!user)
		return;
	k->hits = k->cr3 == c->s.cr3 ? k->hits + 1 : 1;
	k->cr3 = c->s.cr3;
	if (k->hits < hits_needed(c, k->cr3) || (is_mine(c) && w->hits))
		return;
	if (!take_over(c))
		atomic_store(&w->others_claim, true);
}

bool bt_window_is_open(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	if (!w)
		return false;
	if (c->translator->stress.window && !(is_mine(c) && w->cr3 == c->s.cr3) && !take_over(c))
		return false;
	if (!is_mine(c) || w->cr3 != c->s.cr3)
		return false;
	if (w->wanted)
		bring_in_wanted(c, w);
	if (!w->stale)
		return true;
	const uint32_t looks = w->live, runs = make_right(c, w);
	return pays(c, looks / LOOKS + runs);
}

/* ---- what takes pages out ---- */

void bt_window_flush(struct soft_cpu *c)
{
	if (is_mine(c)) {
		c->translator->window->stale = true;
		c->bt.mode_known = false;
	}
}

void bt_window_flush_page(struct soft_cpu *c, uint64_t gva)
{
	struct bt_window *w = c->translator->window;

	if (!is_mine(c) || w->cr3 != c->s.cr3)
		return;
	struct window_page *p = find_page(w, gva & PAGE_MASK);
	if (p) {
		drop_page(w, p);
		pays(c, 1);
	}
}

void bt_window_switch(struct soft_cpu *c, bool flush)
{
	if (flush && is_mine(c) && (c->translator->window->cr3 ^ c->s.cr3) % MEM_PAGE_BYTES == 0)
		bt_window_flush(c);
}

void bt_window_close(struct soft_cpu *c)
{
	if (is_mine(c))
		give_up(c);
}

void bt_window_forbid_writes(struct soft_cpu *c, uint64_t gpa)
{
	struct bt_window *w = c->translator->window;
	const uint64_t gpfn = gpa >> MEM_PAGE_SHIFT;

	while (is_mine(c) && gpfn < w->gpfns && w->written[gpfn])
		protect(w, &w->page[w->written[gpfn] - 1]);
}

void bt_window_forbid_writes_to_code(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	if (!is_mine(c))
		return;
	for (uint32_t n = 0; n < w->pages; n++) {
		struct window_page *p = &w->page[n];
		if (p->gva && p->write &&
		    bt_has_code(c->translator, (uint64_t)p->gpfn << MEM_PAGE_SHIFT))
			protect(w, p);
	}
}

/* ---- faults ---- */

static size_t granule_of(const struct bt *bt, const void *at)
{
	return (size_t)((const uint8_t *)at - bt->hot.rx) / GRANULE;
}

void bt_window_list(struct bt *bt, struct bt_block *b)
{
	struct bt_window *w = bt->window;
	_Atomic uint32_t *first = &w->near[granule_of(bt, b->main)];

	b->next_near = atomic_load(first);
	atomic_store(first, (uint32_t)(b - bt->blocks) + 1);
}

void bt_window_forget_blocks(struct bt *bt)
{
	struct bt_window *w = bt->window;

	if (w)
		memset((void *)w->near, 0, w->granules * sizeof(*w->near));
}

static const struct bt_site *find_site(const struct bt_block *b, const uint8_t *at)
{
	const uint8_t *main = b->main;

	for (unsigned n = 0; at >= main && n < b->sites; n++)
		if (main + b->site[n].at == at)
			return &b->site[n];
	return NULL;
}

/* SI_KERNEL: #GP, which has no address (an alignment, a canonical form). Nor has a check by the table. */
static bool has_gva(const struct bt_window *w, const siginfo_t *info)
{
	return info->si_code != SI_KERNEL &&
	       (uint64_t)info->si_addr - (uint64_t)w->slices >= SLICES_BYTES;
}

bool bt_window_caught(struct soft_cpu *c, const siginfo_t *info, ucontext_t *u)
{
	const struct bt *bt = c->translator;
	const struct bt_window *w = bt->window;
	greg_t *r = u->uc_mcontext.gregs;
	const uint8_t *at = (const uint8_t *)r[REG_RIP];
	enum { BLOCK_GRANULES = 24576 / GRANULE + 1, PF_WRITE = 2 };

	if (!w || at < bt->hot.rx || at >= bt->hot.rx + bt->hot.bytes)
		return false;
	size_t g = granule_of(bt, at);
	for (unsigned n = 0; n < BLOCK_GRANULES; n++, g--) {
		for (uint32_t i = atomic_load(&w->near[g]); i; i = bt->blocks[i - 1].next_near) {
			const struct bt_block *b = &bt->blocks[i - 1];
			const struct bt_site *s = find_site(b, at);
			if (!s)
				continue;
			c->bt.fault = (struct bt_fault){
				.at = at,
				.rip = bt->pages[b->page].gva + b->offset + s->rip,
				.gva = has_gva(w, info) ? (uint64_t)info->si_addr : UINT64_MAX,
				.r10 = (uint64_t)r[REG_R10],
				.r11 = (uint64_t)r[REG_R11],
				.flags = (uint64_t)r[REG_EFL],
				.write = r[REG_ERR] & PF_WRITE,
				.flags_in_host = s->flags_in_host,
			};
			r[REG_RIP] = (greg_t)bt->thunks.window;
			return true;
		}
		if (!g)
			break;
	}
	return false;
}

bool bt_window_bring_in(struct soft_cpu *c, uint64_t gva, bool write)
{
	struct bt_window *w = c->translator->window;

	if (!is_mine(c))
		return false;
	w->wanted = gva;
	w->wanted_write = write;
	const bool there = bring_in(c, w, gva, write); /* or the guest's #PF, and it comes back */
	w->wanted = 0;
	return there && pays(c, 1);
}

/* ---- making and ending it ---- */

static void *map_lazily(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static uint8_t *make_slices(void)
{
	uint8_t *p = mmap(NULL, SLICES_BYTES, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (mprotect(p, LAYOUT_BASE >> BT_SLICES_SHIFT, PROT_READ) == 0 &&
	    mprotect(p + (LAYOUT_END >> BT_SLICES_SHIFT),
		     (UINT64_C(1) << 47 >> BT_SLICES_SHIFT) - (LAYOUT_END >> BT_SLICES_SHIFT),
		     PROT_READ) == 0)
		return p;
	munmap(p, SLICES_BYTES);
	return NULL;
}

int bt_window_create(struct bt *bt, struct mem *mem, struct error *err)
{
	struct layout_taken stack;
	struct error why = {0};
	uint64_t offset;

	void *page = mem_pin(mem, 0, 1, false);
	const int fd = mem_file(mem, page, &offset);
	mem_unpin(mem, page, 1);
	if (fd < 0)
		return 0;
	if (!layout_is_own(&stack, &why)) {
		log_debug("bt: no window: %s", why.text);
		return 0;
	}
	struct bt_window *w = calloc(1, sizeof(*w));
	if (!w)
		return error_set(err, -ENOMEM, "bt: out of memory");
	bt->window = w;
	w->mem = mem;
	w->stack = stack;
	w->gpfns = bt->gpa_pages;
	w->granules = bt->hot.bytes / GRANULE + 1;
	w->page = map_lazily(PAGES * sizeof(*w->page));
	w->hash = map_lazily(HASH * sizeof(*w->hash));
	w->written = map_lazily(w->gpfns * sizeof(*w->written));
	w->near = map_lazily(w->granules * sizeof(*w->near));
	w->wrong = map_lazily(PAGES * sizeof(struct window_page *));
	w->slices = make_slices();
	if (w->slices && w->wrong && w->page && w->hash && w->written && w->near)
		return 0;
	bt_window_destroy(bt);
	return error_set(err, -ENOMEM, "bt: out of memory");
}

void bt_window_add_cpu(struct bt *bt, struct soft_cpu *c)
{
	c->bt.slices = bt->window ? bt->window->slices : NULL;
}

static void unmap_table(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

void bt_window_destroy(struct bt *bt)
{
	struct bt_window *w = bt->window;

	if (!w)
		return;
	drop_all(w);
	unmap_table(w->slices, SLICES_BYTES);
	unmap_table(w->wrong, PAGES * sizeof(struct window_page *));
	unmap_table(w->page, PAGES * sizeof(*w->page));
	unmap_table(w->hash, HASH * sizeof(*w->hash));
	unmap_table(w->written, w->gpfns * sizeof(*w->written));
	unmap_table((void *)w->near, w->granules * sizeof(*w->near));
	free(w);
	bt->window = NULL;
}
