/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/window.h"
#include "cpu/interp/block.h"
#include "mmu/look.h"

/* What the guest's page tables say of pages of the window, and those that come in by that. */
enum { RUN = 16 /* pages that come in with one, at most so many on each side */ };

struct right {
	bool read, write, run;
	uint64_t gpa, hva;
};

/* What leads to the pages of one region of 2 MiB, so that neighbours need no walk each. */
struct region {
	uint64_t gva; /* of the region, + 1; 0: none yet */
	bool large;   /* one page, or part of one */
	bool read, write, run;
	uint64_t gpa;	    /* of a large one */
	const uint64_t *pt; /* else its table; NULL: there is none */
};
enum { REGION = 2 << 20, PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40 };
#define PTE_NX (UINT64_C(1) << 63)

static void look_at_region(struct soft_cpu *c, uint64_t cr3, uint64_t gva, struct region *g)
{
	struct mmu_mode mode;
	struct mmu_look l;
	enum mem_kind kind;

	*g = (struct region){.gva = (gva & -(uint64_t)REGION) + 1, .write = true, .run = true};
	mmu_mode_of(&mode, &c->s);
	mode.cr3 = cr3;
	mmu_look(c->mem, &mode, gva, &l);
	if (l.paging != MMU_PAGING_4LEVEL || l.changing)
		return;
	if (l.end == MMU_LOOK_MAPPED && l.page_shift > MEM_PAGE_SHIFT) {
		g->large = true;
		g->read = l.user && l.accessed;
		g->write = l.writable && l.dirty;
		g->run = l.executable;
		g->gpa = l.gpa & -(uint64_t)REGION;
		return;
	}
	if (l.levels < MMU_LOOK_LEVELS)
		return;
	g->read = true;
	for (unsigned n = 0; n + 1 < MMU_LOOK_LEVELS; n++) {
		g->read &= (l.level[n].entry & PTE_U) != 0;
		g->write &= (l.level[n].entry & PTE_W) != 0;
		g->run &= !(l.level[n].entry & PTE_NX);
	}
	g->pt = (const uint64_t *)mem_page(c->mem, l.level[MMU_LOOK_LEVELS - 1].table, false,
					   &kind);
}

static struct right look(struct soft_cpu *c, uint64_t cr3, uint64_t gva, struct region *g)
{
	enum mem_kind kind;
	uint64_t gpa = 0;
	bool write, run;

	if (g->gva != (gva & -(uint64_t)REGION) + 1)
		look_at_region(c, cr3, gva, g);
	if (!g->read)
		return (struct right){0};
	if (g->large) {
		gpa = g->gpa + gva % REGION;
		write = g->write;
		run = g->run;
	} else {
		const uint64_t e = !g->pt ? 0
					  : __atomic_load_n(&g->pt[gva / MEM_PAGE_BYTES % 512],
							    __ATOMIC_RELAXED);
		if ((e & (PTE_P | PTE_U | PTE_A)) != (PTE_P | PTE_U | PTE_A))
			return (struct right){0};
		gpa = e & ENTRY_ADDRESS;
		write = g->write && (e & (PTE_W | PTE_D)) == (PTE_W | PTE_D);
		run = g->run && !(e & PTE_NX);
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
		.run = run,
		.gpa = gpa,
		.hva = (uint64_t)hva,
	};
}

/* What kernels do with the user half of page tables when they have ended a process. */
bool window_is_empty_in_guest(struct soft_cpu *c, const struct bt_window *w)
{
	enum mem_kind kind;
	const uint64_t *table =
		(const uint64_t *)mem_page(c->mem, w->cr3 & ENTRY_ADDRESS, false, &kind);

	for (unsigned n = 0; table && n < 256; n++)
		if (__atomic_load_n(&table[n], __ATOMIC_RELAXED))
			return false;
	return true;
}

bool window_is_in_guest(struct soft_cpu *c, const struct bt_window *w, uint64_t gva, bool write)
{
	struct region g = {0};
	const struct right r = look(c, w->cr3, gva & PAGE_MASK, &g);

	return write ? r.write : r.read;
}

static bool goes_with(struct soft_cpu *c, const struct bt_window *w, const struct window_run *run,
		      int64_t pages, struct region *g)
{
	const uint64_t by = (uint64_t)pages * MEM_PAGE_BYTES, at = run->gva + by;

	if (!window_is_for(w, at))
		return false;
	const struct right r = look(c, w->cr3, at, g);
	return r.read && r.write == run->write && r.gpa == run->gpa + by && r.hva == run->hva + by;
}

/* By up to so many pages, in front of the run and behind it; over pages that are there only if told. */
static void extend(struct soft_cpu *c, struct bt_window *w, struct window_run *run, unsigned before,
		   unsigned after, bool over)
{
	struct region g = {0};

	for (unsigned n = 0;
	     n < after &&
	     (over || !window_find(w, run->gva + run->pages * (uint64_t)MEM_PAGE_BYTES)) &&
	     goes_with(c, w, run, run->pages, &g);
	     n++)
		run->pages++;
	for (unsigned n = 0; n < before && (over || !window_find(w, run->gva - MEM_PAGE_BYTES)) &&
			     goes_with(c, w, run, -1, &g);
	     n++) {
		run->gva -= MEM_PAGE_BYTES;
		run->gpa -= MEM_PAGE_BYTES;
		run->hva -= MEM_PAGE_BYTES;
		run->pages++;
	}
}

/* All of a page of 2 MiB where the guest has one, for which the host may have one as well; else a few. */
static void find_run(struct soft_cpu *c, struct bt_window *w, struct window_run *run)
{
	const unsigned all = REGION / MEM_PAGE_BYTES,
		       before = (unsigned)(run->gva % REGION / MEM_PAGE_BYTES);
	const struct window_run one = *run;
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

bool window_bring_in(struct soft_cpu *c, struct bt_window *w, uint64_t gva, bool write)
{
	const struct tlb_entry *e = &c->tlb.data[MMU_USER][tlb_index(gva)];

	if (!window_is_for(w, gva))
		return false;
	if (!tlb_hit(write ? e->write : e->read, gva, 1)) {
		cpu_fill_tlb(c, gva, 1, write, MMU_USER);
		if (!tlb_hit(write ? e->write : e->read, gva, 1))
			return false;
	}
	const uint64_t page = gva & PAGE_MASK;
	struct window_run run = {.gva = page,
				 .gpa = e->gpa & PAGE_MASK,
				 .hva = e->hva,
				 .pages = 1,
				 .write = e->write == page};
	const struct window_page *p = window_find(w, page);

	if (run.gpa >> MEM_PAGE_SHIFT >= w->gpfns)
		return false;
	if (p && p->gpfn == run.gpa >> MEM_PAGE_SHIFT && (p->write || !write))
		return false; /* it is there: something else is wrong with the access */
	find_run(c, w, &run);
	return window_map(w, &run);
}

/* User code comes back from the guest's handler of a page fault: most likely the page is there now. */
void window_bring_in_wanted(struct soft_cpu *c, struct bt_window *w)
{
	const uint64_t page = w->wanted & PAGE_MASK;
	struct region g = {0};

	w->wanted = 0;
	if (w->stale || !window_is_for(w, page) || window_find(w, page))
		return;
	const struct right r = look(c, w->cr3, page, &g);
	struct window_run run = {
		.gva = page, .gpa = r.gpa, .hva = r.hva, .pages = 1, .write = r.write};
	if (!r.read || (w->wanted_write && !r.write))
		return;
	find_run(c, w, &run);
	window_map(w, &run);
}

/* Neighbours come one after another, but not in order. */
enum { REGIONS = 16 };
static struct region *region_of(struct region regions[REGIONS], uint64_t gva)
{
	return &regions[gva / REGION % REGIONS];
}

void window_check_code(struct soft_cpu *c, struct bt_window *w)
{
	struct region regions[REGIONS] = {0};
	bool any = false;

	for (uint32_t n = 0; n < w->codes;) {
		const struct bt_page *p = &c->translator->pages[w->code[n]];
		const struct right r = look(c, w->cr3, p->gva, region_of(regions, p->gva));
		if (r.read && r.run && r.gpa == p->gpa) {
			n++;
			continue;
		}
		window_distrust(c, w, n);
		any = true;
	}
	if (any)
		bt_serialize();
}

uint32_t window_make_right(struct soft_cpu *c, struct bt_window *w)
{
	struct window_page **wrong = w->wrong;
	struct region regions[REGIONS] = {0};
	uint32_t count = 0;

	for (uint32_t n = 0; n < w->pages; n++) {
		struct window_page *p = &w->page[n];
		if (!p->gva)
			continue;
		const struct right r = look(c, w->cr3, p->gva, region_of(regions, p->gva));
		p->stay = r.read && r.gpa >> MEM_PAGE_SHIFT == p->gpfn;
		if (!p->stay || (p->write && !r.write))
			wrong[count++] = p;
	}
	return window_take_back(w, wrong, count);
}
