/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"

/*
 * The window: pages of a guest's process, mapped into this process at the guest's own addresses, so that the
 * host's MMU translates for its user code and operands need no look-up (direct.c). It is there where all of
 * the monitor's memory lies in one slice of the address space (base/layout.h) and the guest's RAM is a file's,
 * which can be mapped twice.
 *
 * It is for one address space at a time, the one that timer interrupts have found running again and again; of
 * machines with one vCPU, for several would have to wait for each other with every page. A page that comes
 * into the window costs several microseconds, and processes that end soon or take turns are better off with
 * the software TLB. The code of both is another translation mode (MODE_KEY_WINDOW).
 *
 * The window is a cache of the guest's page tables, as a TLB is, and only holds what a TLB may hold: pages
 * that user code may reach and whose accessed bit is set; writable ones whose dirty bit is set, and which have
 * no code. A page comes in when it is asked for (a SIGSEGV) and takes its neighbours along where these lie next
 * to it in the guest's memory, too. What takes entries out of the TLB takes pages out of the window:
 *
 *	INVLPG			that page
 *	CR3 without a flush	nothing: the window waits until its address space comes back, with the same PCID
 *	any other flush		all is looked at anew before user code runs next, and what does not
 *				hold any more goes
 *	code in a page		it may not be written to from now on
 *	memory that leaves	everything
 *
 * and with them code pages out of those that jumps take for granted (window_code.c).
 *
 * Two things would meet a signal with every access, and a signal costs as much as twenty misses of the TLB or more:
 *
 *	stores to code		who writes code writes a lot of it before any of it runs (a JIT compiler): after
 *				CODE_WRITES of them the page's blocks go, and the page is one like others
 *	new memory		an instruction that meets SHY_FROM pages in a row which the guest has not either asks
 *				the TLB from now on (direct_may_reach), and after a while is tried again
 *
 * Where pages come and go all the time the window costs more than it is worth. So the owner has a credit
 * that all this is charged to; when it is used up, the window is given up, and the address space has to be
 * found running for four times as long before it has another.
 */
enum {
	HITS = 4,	/* interrupts in a row that make an address space the window's */
	HITS_MAX = 256, /* or that are asked of one which it did not pay for */
	/* What the window may cost, counted in pages brought in, some 8 us each: in the beginning, for each
	 * interrupt that finds the owner running, and how much it can have saved. */
	CREDIT = 1500,
	CREDIT_TICK = 100,
	CREDIT_MAX = 4000,
	LOOKS = 128,	 /* pages looked at again cost as much as one brought in */
	CODE_WRITES = 2, /* to a page with code, one after another, before it is one without */
	/* Pages of new memory that one instruction meets, within so many interrupts of the owner, before it asks the
	 * TLB; interrupts until it is tried again, and how often that doubles; and between looks at all of them. */
	SHY_FROM = 48,
	SHY_WITHIN = 3,
	SHY_TICKS = 256,
	SHY_TIMES = 8,
	SHY_LOOK = 64,
	OWNER_HITS = 16, /* interrupts that find another running, before an old owner loses it */
};

/* ---- whose it is ---- */

/* An address space is its top table: Linux gives a process one PCID now and another then. */
static bool is_same(uint64_t cr3, uint64_t other)
{
	return ((cr3 ^ other) & ENTRY_ADDRESS) == 0;
}

static bool is_open(const struct soft_cpu *c)
{
	return c->translator->window && c->translator->window->open;
}

static void give_up(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	window_drop_all(w);
	w->open = false;
	c->bt.mode_known = false;
}

static unsigned hits_needed(const struct bt_window *w, uint64_t cr3)
{
	for (unsigned n = 0; n < WINDOW_FAILED; n++)
		if (w->failed[n].need && is_same(w->failed[n].cr3, cr3))
			return w->failed[n].need;
	return HITS;
}

/* It did not pay: or did it, for a while? */
static void remember_failure(struct bt_window *w)
{
	const unsigned need = w->ticks > HITS_MAX ? HITS : hits_needed(w, w->cr3) * 4;
	unsigned n = 0;

	while (n < WINDOW_FAILED && !is_same(w->failed[n].cr3, w->cr3))
		n++;
	if (n == WINDOW_FAILED)
		n = w->oldest++ % WINDOW_FAILED;
	w->failed[n].cr3 = w->cr3;
	w->failed[n].need = need < HITS_MAX ? need : HITS_MAX;
}

/* False: that was more than it is worth, and the window is given up. */
static bool pays(struct soft_cpu *c, unsigned cost)
{
	struct bt_window *w = c->translator->window;

	w->credit -= (int)cost;
	if (w->credit >= 0 || c->translator->stress.window)
		return true;
	remember_failure(w);
	give_up(c);
	return false;
}

/* Its blocks go; the one that runs may be one of them. */
static void forget_code(struct soft_cpu *c, uint64_t gpa, unsigned len)
{
	bt_lock(c);
	bt_invalidate(c->translator, gpa, len);
	bt_unlock(c);
	c->break_block = true;
}

/* ---- instructions that meet new memory ---- */

static struct window_shy *shy_of(struct bt_window *w, uint64_t rip)
{
	return &w->shy[(rip * UINT64_C(0x9e3779b97f4a7c15) >> 32) % WINDOW_SHY];
}

bool bt_window_avoids(const struct bt *bt, uint64_t rip)
{
	const struct window_shy *s = bt->window ? shy_of(bt->window, rip) : NULL;

	return s && s->rip == rip && s->shy;
}

/* What the guest has is brought in, as often as it takes: it is likely to be used again. What it has not is new memory,
 * which whoever fills it meets once. */
static void note_met(struct soft_cpu *c, struct bt_window *w, uint64_t gva)
{
	const struct bt_fault *f = &c->bt.fault;
	struct bt_block *b = &c->translator->blocks[f->block];
	struct window_shy *s = shy_of(w, f->rip);

	if (!f->may_probe || (s->shy && s->rip != f->rip) ||
	    window_is_in_guest(c, w, gva, f->write))
		return;
	if (s->rip != f->rip)
		*s = (struct window_shy){.rip = f->rip, .since = w->ticks};
	if (w->ticks - s->since > SHY_WITHIN) {
		s->since = w->ticks;
		s->met = 0;
	}
	if (++s->met < SHY_FROM)
		return;
	const struct bt_page *p = &c->translator->pages[b->page];
	if ((f->rip & PAGE_MASK) != p->gva)
		p = &c->translator->pages[b->page2];
	s->gpa = p->gpa | (f->rip & ~PAGE_MASK);
	s->until = w->ticks + (SHY_TICKS << s->times);
	s->times += s->times < SHY_TIMES && !s->shy;
	s->shy = true;
	bt_lock(c);
	bt_block_kill(c->translator, b);
	bt_unlock(c);
	c->break_block = true; /* it is the one that runs */
}

/* The memory may be there by now: back to the window, to see. */
static void retry_shy(struct soft_cpu *c, struct bt_window *w)
{
	for (unsigned n = 0; n < WINDOW_SHY; n++) {
		struct window_shy *s = &w->shy[n];
		if (!s->shy || w->ticks < s->until)
			continue;
		s->shy = false;
		s->met = 0;
		forget_code(c, s->gpa, 1);
	}
}

/* ---- whose it becomes ---- */

static void take_over(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	window_drop_all(w);
	if (!w->used) {
		bt_table_make_huge(w->hash, WINDOW_HASH * sizeof(*w->hash));
		bt_table_make_huge(w->written, w->gpfns * sizeof(*w->written));
		bt_table_make_huge(w->page, WINDOW_HUGE * sizeof(*w->page));
	}
	w->used = true;
	w->open = true;
	w->cr3 = c->s.cr3;
	w->stale = true; /* code that links trust is another's */
	w->hits = HITS;
	w->credit = CREDIT;
	w->ticks = 0;
	memset(w->shy, 0, sizeof(w->shy));
	c->bt.mode_known = false;
}

void bt_window_tick(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	if (!w || c->cpl != 3 || c->mode != MODE_64 || c->translator->cpu_count > 1 ||
	    mem_has_limit(w->mem))
		return;
	if (w->open && w->cr3 == c->s.cr3) {
		bt_poke_tick(c);
		w->hits += w->hits < OWNER_HITS;
		w->ticks++;
		w->credit += w->credit < CREDIT_MAX ? CREDIT_TICK : 0;
		if (w->ticks % SHY_LOOK == 0)
			retry_shy(c, w);
		return;
	}
	if (w->open && window_is_empty_in_guest(c, w))
		w->hits = 0;
	w->hits -= w->hits > 0;
	w->claims = is_same(w->claimer, c->s.cr3) ? w->claims + 1 : 1;
	w->claimer = c->s.cr3;
	if (w->claims >= hits_needed(w, w->claimer) && (!w->open || !w->hits))
		take_over(c);
}

bool bt_window_is_open(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	if (!w || !c->bt.can_be_poked)
		return false;
	if (c->translator->stress.window && c->translator->cpu_count == 1 &&
	    !(w->open && w->cr3 == c->s.cr3))
		take_over(c);
	if (!w->open || w->cr3 != c->s.cr3)
		return false;
	if (w->wanted)
		window_bring_in_wanted(c, w);
	if (!w->stale)
		return true;
	const uint32_t had = w->live, looks = had + w->codes, runs = window_make_right(c, w);
	if (had && !w->live) {
		/* Another process has the table of one that has ended. Code pages are the next owner's affair, who
		 * may be of the same program. */
		give_up(c);
		w->claims = 0;
		return false;
	}
	window_check_code(c, w);
	w->stale = false;
	return pays(c, looks / LOOKS + runs);
}

/* ---- what takes pages out ---- */

void bt_window_flush(struct soft_cpu *c)
{
	if (is_open(c)) {
		c->translator->window->stale = true;
		c->bt.mode_known = false;
	}
}

void bt_window_flush_page(struct soft_cpu *c, uint64_t gva)
{
	struct bt_window *w = c->translator->window;

	if (!is_open(c) || w->cr3 != c->s.cr3)
		return;
	struct window_page *p = window_find(w, gva & PAGE_MASK);
	window_distrust_at(c, w, gva);
	if (p) {
		window_drop(w, p);
		pays(c, 1);
	}
}

void bt_window_switch(struct soft_cpu *c, bool flush)
{
	struct bt_window *w = c->translator->window;

	if (!is_open(c))
		return;
	const bool comes = is_same(w->cr3, c->s.cr3) && w->cr3 != c->s.cr3; /* as another PCID */
	if (comes || (flush && (w->cr3 ^ c->s.cr3) % MEM_PAGE_BYTES == 0))
		bt_window_flush(c);
	if (comes)
		w->cr3 = c->s.cr3;
}

void bt_window_close(struct soft_cpu *c)
{
	if (is_open(c))
		give_up(c);
}

void bt_window_forbid_writes(struct soft_cpu *c, uint64_t gpa)
{
	struct bt_window *w = c->translator->window;
	const uint64_t gpfn = gpa >> MEM_PAGE_SHIFT;

	while (is_open(c) && gpfn < w->gpfns && w->written[gpfn])
		window_protect(w, &w->page[w->written[gpfn] - 1]);
}

void bt_window_forbid_writes_to_code(struct soft_cpu *c)
{
	struct bt_window *w = c->translator->window;

	if (!is_open(c))
		return;
	for (uint32_t n = 0; n < w->pages; n++) {
		struct window_page *p = &w->page[n];
		if (p->gva && p->write &&
		    bt_has_code(c->translator, (uint64_t)p->gpfn << MEM_PAGE_SHIFT))
			window_protect(w, p);
	}
}

/* A store to a page that has code? */
static bool note_code_write(struct soft_cpu *c, struct bt_window *w, uint64_t gva)
{
	const struct window_page *p = window_find(w, gva & PAGE_MASK);
	const uint64_t gpa = p ? (uint64_t)p->gpfn << MEM_PAGE_SHIFT : 0;

	if (!p || p->write || !bt_has_code(c->translator, gpa))
		return false;
	if (w->coded != p->gpfn)
		w->code_writes = 0;
	w->coded = p->gpfn;
	if (++w->code_writes < CODE_WRITES)
		return true;
	w->code_writes = 0;
	forget_code(c, gpa, MEM_PAGE_BYTES);
	return true;
}

bool bt_window_bring_in(struct soft_cpu *c, uint64_t gva, bool write)
{
	struct bt_window *w = c->translator->window;

	if (!is_open(c))
		return false;
	if (gva == UINT64_MAX) {
		pays(c, 1);
		return false;
	}
	if (!write || !note_code_write(c, w, gva))
		note_met(c, w, gva);
	else if (!pays(c, 1))
		return false;
	w->wanted = gva;
	w->wanted_write = write;
	const bool there =
		window_bring_in(c, w, gva, write); /* or the guest's #PF, and it comes back */
	w->wanted = 0;
	return there && pays(c, 1);
}

/* ---- making and ending it ---- */

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
	w->granules = bt->hot.bytes / WINDOW_GRANULE + 1;
	w->page = bt_table_map(WINDOW_PAGES * sizeof(*w->page));
	w->hash = bt_table_map(WINDOW_HASH * sizeof(*w->hash));
	w->written = bt_table_map(w->gpfns * sizeof(*w->written));
	w->near = bt_table_map(w->granules * sizeof(*w->near));
	w->code = bt_table_map(bt->pages_max * sizeof(*w->code));
	w->code_hash = bt_table_map(WINDOW_CODE_HASH * sizeof(*w->code_hash));
	w->wrong = bt_table_map(WINDOW_PAGES * sizeof(struct window_page *));
	w->slices = make_slices();
	if (w->slices && w->wrong && w->page && w->hash && w->written && w->near && w->code &&
	    w->code_hash)
		return 0;
	log_debug("bt: no window: no address space for its tables");
	bt_window_destroy(bt);
	return 0;
}

void bt_window_add_cpu(struct bt *bt, struct soft_cpu *c)
{
	c->bt.slices = bt->window ? bt->window->slices : NULL;
}

void bt_window_destroy(struct bt *bt)
{
	struct bt_window *w = bt->window;

	if (!w)
		return;
	window_drop_all(w);
	if (w->slices)
		munmap(w->slices, SLICES_BYTES);
	bt_table_unmap(w->wrong, WINDOW_PAGES * sizeof(struct window_page *));
	bt_table_unmap(w->page, WINDOW_PAGES * sizeof(*w->page));
	bt_table_unmap(w->hash, WINDOW_HASH * sizeof(*w->hash));
	bt_table_unmap(w->written, w->gpfns * sizeof(*w->written));
	bt_table_unmap((void *)w->near, w->granules * sizeof(*w->near));
	bt_table_unmap(w->code, bt->pages_max * sizeof(*w->code));
	bt_table_unmap(w->code_hash, WINDOW_CODE_HASH * sizeof(*w->code_hash));
	free(w);
	bt->window = NULL;
}
