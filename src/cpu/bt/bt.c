/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/bt.h"

#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/layout.h"
#include "base/log.h"
#include "cpu/bt/engine_bt.h"
#include "cpu/hostexec/hostexec.h"
#include "cpu/interp/block.h"
#include "cpu/interp/soft_engine.h"
#include "cpu/state/host.h"

/*
 * The translating engine: finds or makes the block at RIP, enters it, and takes up what comes out
 * of translated code: missed accesses, helpers, links to be made. The loops around it, events and
 * exits are the interpreter's (interp.c).
 */
enum { CODE_BYTES_DEFAULT = 256 << 20 };

/* ---- threads ---- */

/* %gs of the calling thread points into its vCPU. */
static void bind_thread(struct soft_cpu *c)
{
	if (!bt_bind_thread(c))
		return;
	if (host_has_fsgsbase())
		__asm__ volatile("wrgsbase %0" ::"r"((char *)c + BT_GS));
	else
		syscall(SYS_arch_prctl, ARCH_SET_GS, (char *)c + BT_GS);
}

/* ---- which code page is where ---- */

void bt_flush_pages(struct soft_cpu *c, bool keep_global)
{
	struct bt_cpu *k = &c->bt;

	if (!keep_global || k->fills > BT_FILLED_MAX) {
		memset(k->page_id, 0, sizeof(k->page_id));
	} else {
		for (unsigned n = 0; n < k->fills; n++)
			k->page_id[k->filled[n] / BT_CODE_PAGES][k->filled[n] % BT_CODE_PAGES] = 0;
	}
	k->fills = 0;
}

void bt_flush_page(struct soft_cpu *c, uint64_t gva)
{
	for (unsigned m = 0; m < BT_MODES; m++)
		c->bt.page_id[m][(gva >> MEM_PAGE_SHIFT) % BT_CODE_PAGES] = 0;
}

static void set_page_id(struct soft_cpu *c, uint64_t gva, uint32_t id, bool global)
{
	struct bt_cpu *k = &c->bt;
	unsigned slot = k->mode * BT_CODE_PAGES + (gva >> MEM_PAGE_SHIFT) % BT_CODE_PAGES;

	bt_note_use(c->translator, id);
	if ((&k->page_id[0][0])[slot] == id)
		return;
	(&k->page_id[0][0])[slot] = id;
	if (!global) {
		if (k->fills < BT_FILLED_MAX)
			k->filled[k->fills] = slot;
		k->fills++;
	}
}

/* ---- modes ---- */

static bool full_segment(const struct soft_cpu *c, enum seg_reg n)
{
	const struct segment *s = &c->s.seg[n];

	return s->limit == UINT32_MAX && !(s->attr & SEG_UNUSABLE) &&
	       (s->attr & (SEG_TYPE_CODE | SEG_TYPE_DC | SEG_TYPE_WR)) == SEG_TYPE_WR;
}

/* 0: this mode is left to the interpreter. */
static uint16_t mode_key(struct soft_cpu *c)
{
	const struct cpu_state *s = &c->s;
	uint16_t key = (uint16_t)(MODE_KEY_VALID | c->data_class * MODE_KEY_CLASS);
	const uint8_t flat = 1 << SEG_ES | 1 << SEG_SS | 1 << SEG_DS;
	uint32_t mxcsr;

	if (c->align_check || c->mode == MODE_16)
		return 0;
	if (c->mode == MODE_64) {
		key |= MODE_KEY_64;
	} else {
		if (!(s->cr0 & CR0_PE) || (s->rflags & FLAG_VM) || (c->seg_flat & flat) != flat ||
		    !(s->seg[SEG_SS].attr & SEG_DB) || s->seg[SEG_CS].base ||
		    s->seg[SEG_CS].limit != UINT32_MAX)
			return 0;
		if (full_segment(c, SEG_FS))
			key |= MODE_KEY_FS;
		if (full_segment(c, SEG_GS))
			key |= MODE_KEY_GS;
	}
	if (c->cpl == 3)
		key |= MODE_KEY_CPL3 | ((s->cr4 & CR4_TSD) ? MODE_KEY_TSD : 0);
	if (c->cpl == 0)
		key |= MODE_KEY_CPL0 | ((s->cr4 & CR4_SMAP) ? MODE_KEY_SMAP : 0);
	memcpy(&mxcsr, s->xsave.bytes + XSAVE_MXCSR, sizeof(mxcsr));
	if (c->cpl == 3 && c->mode == MODE_64 && !c->watching && bt_window_is_open(c))
		key |= MODE_KEY_WINDOW | (bt_polls(c) ? MODE_KEY_POLLS : 0);
	if (!(s->cr0 & (CR0_EM | CR0_TS)) && (s->cr4 & CR4_OSFXSR) && (mxcsr & 0x1f80) == 0x1f80) {
		key |= MODE_KEY_SSE;
		if ((s->cr4 & CR4_OSXSAVE) &&
		    (s->xcr0 & (XCR0_SSE | XCR0_AVX)) == (XCR0_SSE | XCR0_AVX))
			key |= MODE_KEY_AVX;
	}
	const uint8_t *x = s->xsave.bytes;
	if (!(s->cr0 & (CR0_EM | CR0_TS)) && (x[XSAVE_FCW] & 0x3f) == 0x3f &&
	    !(x[XSAVE_FSW] & 0x80))
		key |= MODE_KEY_X87;
	return key;
}

static void find_mode(struct soft_cpu *c)
{
	uint16_t key = mode_key(c);

	c->bt.runnable = key != 0;
	c->bt.mode_known = true;
	if (!key)
		return;
	/* Without the lock first: keys are only added, but for a flush, when nobody is here. */
	for (unsigned n = 0; n < BT_MODES; n++) {
		if (__atomic_load_n(&c->translator->mode_keys[n], __ATOMIC_RELAXED) == key) {
			c->bt.mode = (uint8_t)n;
			return;
		}
	}
	bt_lock(c);
	unsigned mode = bt_mode_index(c->translator, key);
	if (mode == BT_MODES) {
		bt_flush_all(c->translator, c);
		mode = bt_mode_index(c->translator, key);
	}
	c->bt.mode = (uint8_t)mode;
	c->bt.mode_known = true;
	bt_unlock(c);
}

static bool in_window(const struct soft_cpu *c)
{
	return c->translator->mode_keys[c->bt.mode] & MODE_KEY_WINDOW;
}

/* ---- finding blocks ---- */

/* What translated code takes from RFLAGS. */
static void park(struct soft_cpu *c)
{
	c->bt.flags = bt_parked(c->s.rflags);
	c->bt.request_mask = (c->s.rflags & FLAG_IF) ? UINT32_MAX : ~(uint32_t)VCPU_REQ_IRQ;
	if (c->translator->stress.interrupts)
		c->bt.request_mask = 0; /* it comes back anyway, having got on by one */
}

static void unpark(struct soft_cpu *c)
{
	put_flags(c, (uint16_t)c->bt.flags, FLAGS_ARITH);
}

static void remember(struct soft_cpu *c, struct bt_block *b, uint64_t rip, const void *where)
{
	struct bt_cpu *k = &c->bt;
	const void *jump = bt_entry(c->translator, b, ENTRY_JUMP);

	if (c->translator->stress.on && bt_stress_comes_back(c->translator))
		jump = NULL;
	unsigned slot = bt_jump_slot(rip);
	k->lookup[slot].rip = rip;
	k->lookup[slot].block = b;
	k->lookup[slot].where = where;
	if (jump)
		k->jump[k->mode][slot] = jump;
}

/* The pages that the instruction at rip may lie in. */
struct code_at {
	uint64_t rip;
	uint64_t gpa[2]; /* of the pages; gpa[1] is UINT64_MAX where one page is all there is */
	const uint8_t *hva[2];
	bool global[2];
};

static bool plain_code(struct soft_cpu *c, uint64_t gpa)
{
	enum mem_kind kind;

	return gpa >> MEM_PAGE_SHIFT < c->translator->gpa_pages &&
	       mem_page(c->mem, gpa & PAGE_MASK, false, &kind) != NULL;
}

static bool fetch(struct soft_cpu *c, struct code_at *at, unsigned n, uint64_t gva)
{
	const struct tlb_code_entry *e = block_fetch_page(c, gva);

	at->gpa[n] = e->gpa & PAGE_MASK;
	at->hva[n] = e->hva;
	at->global[n] = e->gpa & 1;
	return plain_code(c, at->gpa[n]);
}

static uint32_t page_at(struct soft_cpu *c, const struct code_at *at, unsigned n)
{
	struct bt *bt = c->translator;
	uint64_t gva = (at->rip & PAGE_MASK) + n * MEM_PAGE_BYTES;
	uint32_t id = bt_page_find(bt, gva, at->gpa[n], c->bt.mode);

	if (!id)
		id = bt_rebase(c, gva, at->gpa[n], c->bt.mode);
	if (!id)
		id = bt_page_new(bt, gva, at->gpa[n], c->bt.mode);
	if (id) {
		set_page_id(c, gva, id, at->global[n]);
		bt_window_trust(c, id);
	}
	return id;
}

/* Translates what is at a place where there is no block; the lock is held, and let go meanwhile. *full: the
 * cache has to be flushed first. NULL otherwise: interpret, or look again after a flush. */
static struct bt_block *make(struct soft_cpu *c, const struct code_at *at, const uint32_t page[2],
			     struct bt_way way, bool *full)
{
	struct bt *bt = c->translator;
	const uint32_t flushes = atomic_load(&bt->flushes);
	struct bt_block *b = NULL, *other;

	if (bt_begin_making(c, at->gpa)) {
		bt_unlock(c);
		b = page[1] ? bt_translate_across(bt, c, page, at->rip, way, at->hva, full)
			    : bt_translate(bt, c, page[0], at->rip, way, at->hva[0], full);
		bt_lock(c);
	}
	bt_end_making(c);
	if (flushes != atomic_load(&bt->flushes)) {
		*full = false;
		return NULL;
	}
	if (!b)
		return NULL;
	other = bt_block_find(bt, page[0], at->rip & ~PAGE_MASK, way.variant == BT_PLAIN);
	if (c->bt.stale || other) {
		bt_untranslate(c);
		return c->bt.stale ? NULL : other;
	}
	*full = !bt_block_publish(bt, c->bt.arena, b);
	if (*full)
		return NULL;
	bt_link_known(bt, b);
	bt_list_template(bt, b);
	bt_tell_perf(bt, b);
	return b;
}

/* The last way from b to rip that is still to be linked. */
static struct bt_exit *exit_to(struct bt *bt, struct bt_block *b, uint64_t rip)
{
	struct bt_exit *x = bt_end_exit(bt, b);

	while (x-- > bt_first_exit(bt, b))
		if (x->rip == rip && x->jump && x->mode == b->mode && !x->plain && !x->linked)
			return x;
	return NULL;
}

/* Translates on from b, which was just made, where it is as good as certain that its code goes on: behind calls
 * and jumps. One trip to C does for all, and the code lies in the order in which it runs. */
static void make_ahead(struct soft_cpu *c, const struct code_at *at, const uint32_t page[2],
		       struct bt_block *b)
{
	enum { AHEAD = 8 };
	struct bt *bt = c->translator;
	const uint32_t flushes = atomic_load(&bt->flushes);
	struct code_at next = *at;
	bool full = false;

	for (unsigned n = 0; n < AHEAD; n++) {
		next.rip = bt_next_rip(c);
		if (!next.rip || bt_block_find(bt, page[0], next.rip & ~PAGE_MASK, false) ||
		    !bt_arena_ready(bt, c->bt.arena))
			return;
		struct bt_exit *x = exit_to(bt, b, next.rip);
		if (!x)
			return;
		b = make(c, &next, page, (struct bt_way){BT_NEXT, (enum flags_at)x->flags}, &full);
		if (!b || flushes != atomic_load(&bt->flushes))
			return;
		bt_link(bt, x, b);
	}
}

/* One attempt; *full: the cache has to be flushed first. NULL otherwise: interpret. */
static struct bt_block *find_once(struct soft_cpu *c, const struct code_at *at, struct bt_way way,
				  bool *full)
{
	struct bt *bt = c->translator;
	const bool plain = way.variant == BT_PLAIN;
	bool across = at->gpa[1] != UINT64_MAX;
	uint32_t page[2] = {page_at(c, at, 0), across ? page_at(c, at, 1) : 0};

	*full = !page[0] || (across && !page[1]);
	if (*full)
		return NULL;
	struct bt_block *b = bt_block_find(bt, page[0], at->rip & ~PAGE_MASK, plain);
	if (b && b->page2 && across && b->page2 != page[1]) {
		bt_block_kill(bt, b); /* the second page is another one now */
		b = NULL;
	}
	if (b)
		return b;
	*full = !bt_arena_ready(bt, c->bt.arena);
	if (*full)
		return NULL;
	/* What can be copied is guarded already. */
	if (!across)
		b = bt_copy(bt, c->bt.arena, page[0], at->rip & ~PAGE_MASK, plain);
	if (b)
		return b;
	const uint32_t flushes = atomic_load(&bt->flushes);
	b = make(c, at, page, way, full);
	if (b && !across && !plain && !bt->stress.on)
		make_ahead(c, at, page, b);
	return flushes == atomic_load(&bt->flushes) ? b : NULL;
}

/* The block at s.rip where all is there already: without the lock. NULL: it has to be taken. */
static const void *find_made(struct soft_cpu *c, const struct code_at *at)
{
	struct bt *bt = c->translator;
	const uint64_t gva = at->rip & PAGE_MASK;
	const uint32_t id = bt_page_find(bt, gva, at->gpa[0], c->bt.mode);
	struct bt_block *b = id ? bt_block_find(bt, id, at->rip & ~PAGE_MASK, false) : NULL;

	if (!b || b->dead || b->page2 || !bt_entry_made(bt, b, ENTRY_JUMP) ||
	    (in_window(c) && !bt->pages[id].trusted))
		return NULL;
	const void *where = bt_entry_made(bt, b, ENTRY_PARKED);
	if (!where)
		return NULL;
	set_page_id(c, gva, id, at->global[0]);
	remember(c, b, at->rip, where);
	return where;
}

static enum bt_variant variant_for(const struct soft_cpu *c, const struct code_at *at,
				   const struct bt_exit *x)
{
	if (x->plain)
		return BT_PLAIN;
	const uint64_t from = c->translator->pages[bt_from(c->translator, x)->page].gva;
	if ((from == (at->rip & PAGE_MASK) && !x->far) || in_window(c))
		return x->calls ? BT_CALLED : BT_NEAR;
	if (x->flags == FLAGS_HOST)
		return BT_NEAR;
	return x->calls ? BT_FAR_CALLED : BT_FAR;
}

static struct bt_way way_by(const struct soft_cpu *c, const struct code_at *at,
			    const struct bt_exit *x)
{
	if (!x)
		return (struct bt_way){BT_JUMPED, FLAGS_DEAD};
	return (struct bt_way){variant_for(c, at, x), (enum flags_at)x->flags};
}

/* Where to enter for s.rip, by the cache or a new translation; NULL: interpret, or look again. */
static const void *find_slowly(struct soft_cpu *c, const struct code_at *at, bool link,
			       bool *across)
{
	struct bt *bt = c->translator;
	struct bt_cpu *k = &c->bt;
	struct bt_block *b = NULL;
	const void *where = NULL;
	bool full = false;

	bt_lock(c);
	struct bt_exit *x = k->exit; /* a flush while waiting has cleared it */
	const struct bt_way way = way_by(c, at, link ? x : NULL);
	if (k->mode_known)
		b = find_once(c, at, way, &full);
	if (full)
		bt_flush_all(bt, c);
	x = k->exit; /* likewise */
	if (b)
		where = bt_entry(bt, b, ENTRY_PARKED);
	if (where) {
		/* Where a direct jump leads there may never be an indirect one. */
		if (link && x)
			bt_link(bt, x, b);
		else if (way.variant != BT_PLAIN)
			remember(c, b, at->rip, where);
	}
	/* The page's last bytes are not a whole instruction, or are known to be the begin of one
	 * whose second page may not be where it was. */
	*across = !full && k->mode_known && (!b || b->page2) && at->gpa[1] == UINT64_MAX &&
		  (at->rip & ~PAGE_MASK) > MEM_PAGE_BYTES - 15;
	k->exit = *across ? k->exit : NULL;
	bt_unlock(c);
	return where;
}

/* Among the blocks entered before. */
static const void *find_known(const struct soft_cpu *c, uint64_t rip)
{
	const struct bt_cpu *k = &c->bt;
	unsigned slot = bt_jump_slot(rip);
	const struct bt_block *b = k->lookup[slot].block;

	if (k->lookup[slot].rip != rip || !b || b->dead || b->page2 || b->mode != k->mode ||
	    k->page_id[k->mode][(rip >> MEM_PAGE_SHIFT) % BT_CODE_PAGES] != b->page)
		return NULL;
	return k->lookup[slot].where;
}

static const void *find_entry(struct soft_cpu *c)
{
	struct bt_cpu *k = &c->bt;
	uint64_t rip = c->s.rip;
	struct bt_exit *x = k->exit;
	bool link = x && x->rip == rip && x->mode == k->mode;
	const void *known = link ? NULL : find_known(c, rip);

	if (known)
		return known;

	struct code_at at = {.rip = rip, .gpa = {0, UINT64_MAX}};
	bool across = false;
	if (!fetch(c, &at, 0, rip))
		return NULL;
	const void *where = link ? NULL : find_made(c, &at);
	if (where)
		return where;
	where = find_slowly(c, &at, link, &across);
	if (across) {
		if (!fetch(c, &at, 1, (rip & PAGE_MASK) + MEM_PAGE_BYTES))
			return NULL;
		where = find_slowly(c, &at, link, &across);
	}
	return where;
}

/* Blocks of the window trust that RSP does not lead to the monitor's memory (stack.c). */
static bool strays(const struct soft_cpu *c)
{
	return in_window(c) && c->s.gpr[RSP] >> LAYOUT_SHIFT == LAYOUT_SLICE;
}

void bt_run(struct soft_cpu *c)
{
	struct bt *bt = c->translator;

	bind_thread(c);
	bt_code_left(c); /* by a fault, perhaps */
	bt_writes_done(c);
	if (!c->bt.mode_known)
		find_mode(c);
	if (!c->bt.runnable || (c->mode == MODE_64 && !cpu_is_canonical(c->s.rip))) {
		c->bt.exit = NULL;
		interp_run_block(c);
		return;
	}
	/* User code looks for any request at all, and so would come back at once from one for an
	 * interrupt that IF holds up, which only I/O privilege makes possible there. */
	const bool held_up = c->cpl == 3 && !(c->s.rflags & FLAG_IF) &&
			     atomic_load(&c->vcpu.requests) & VCPU_REQ_IRQ;
	if (held_up || strays(c) || (bt->stress.on && bt_stress_interprets(bt))) {
		c->bt.exit = NULL;
		interp_run_block(c);
		return;
	}
	const void *where = find_entry(c);
	c->bt.exit = NULL;
	if (!where) {
		if (c->bt.mode_known)
			interp_run_block(c);
		return;
	}
	/* Asked meanwhile, perhaps to stay out: look again at the boundary. */
	if (atomic_load(&c->vcpu.requests) & VCPU_REQ_ENGINE)
		return;
	if (!bt_run_mode(c)) {
		bt_code_left(c);
		interp_run_block(c); /* there is progress, whatever becomes of the request */
		return;
	}
	park(c);
	c->break_block = false;
	c->bt.left_by = BT_NO_EXIT;
	bt->thunks.enter(c, where);
	unpark(c);
	bt_code_left(c);
	if (c->bt.left_by != BT_NO_EXIT) {
		c->bt.exit = &bt->exits[c->bt.left_by];
		c->s.rip = c->bt.exit->rip;
	} else if (c->mode == MODE_64 && !cpu_is_canonical(c->s.rip)) {
		/* An indirect jump or a return to nowhere: as if it had not been begun. */
		const struct bt_exit *from = &bt->exits[c->bt.from];
		c->s.rip = from->rip;
		c->s.gpr[RSP] -= from->popped;
		interp_run_block(c);
	}
}

/* ---- called from translated code ---- */

/* One instruction by the interpreter. True: the block may go on after it. */
static bool interpret(struct soft_cpu *c, const struct insn *i)
{
	uint32_t flushes = atomic_load(&c->translator->flushes);
	uint64_t next = (c->s.rip + i->length) & c->ip_mask;

	c->insn = i;
	c->next_rip = next;
	c->break_block = false;
	i->fn(c, i);
	bt_writes_done(c);
	c->s.rip = c->next_rip;
	/* Inside of a block nothing is let in before the instruction after STI (translate.c); with
	 * an interrupt waiting, leave, so that it comes right after that instruction. */
	if (i->mnemonic == ZYDIS_MNEMONIC_STI && !(i->flags & INSN_END) &&
	    !(atomic_load(&c->vcpu.requests) & VCPU_REQ_IRQ))
		c->s.shadow = SHADOW_NONE;
	park(c);
	return !(i->flags & INSN_END) && c->s.rip == next && !c->break_block && !c->careful &&
	       !c->s.shadow && !c->pending_dr6 && c->bt.mode_known && !strays(c) &&
	       flushes == atomic_load(&c->translator->flushes);
}

/* After an instruction that ends its block: where to go on without a trip through run(), if there
 * is nothing to look at and the block is known. */
static const void *next_block(struct soft_cpu *c)
{
	uint32_t req = atomic_load_explicit(&c->vcpu.requests, memory_order_relaxed);

	if ((c->translator->stress.on && bt_stress_comes_back(c->translator)) ||
	    (req & c->bt.request_mask) || c->careful || c->s.shadow || c->pending_dr6 ||
	    c->s.nmi_pending || c->s.activity != ACTIVITY_RUNNING)
		return NULL;
	if (!c->bt.mode_known)
		find_mode(c);
	if (!c->bt.runnable || strays(c))
		return NULL;
	if (!bt_run_mode(c))
		return NULL;
	c->s.rflags &= ~FLAG_RF;
	return find_known(c, c->s.rip);
}

const void *bt_helper(struct soft_cpu *c, const struct insn *i)
{
	uint32_t flushes = atomic_load(&c->translator->flushes);

	unpark(c);
	if (interpret(c, i))
		return (const void *)c->bt.resume;
	return flushes == atomic_load(&c->translator->flushes) ? next_block(c) : NULL;
}

/* The instruction of an access, decoded once for each translation of it. */
static const struct insn *slow_insn(struct soft_cpu *c, const void *a, uint32_t flushes)
{
	unsigned slot = (unsigned)((uintptr_t)a / 16 % BT_SLOW);

	if (c->bt.slow[slot].access != a || c->bt.slow[slot].flushes != flushes) {
		c->bt.slow[slot].access = NULL;
		c->bt.slow[slot].insn = *block_find_one(c)->insn; /* may raise */
		c->bt.slow[slot].access = a;
		c->bt.slow[slot].flushes = flushes;
	}
	return &c->bt.slow[slot].insn;
}

const void *bt_slow(struct soft_cpu *c, uint64_t gva, const struct bt_access *a)
{
	uint32_t flushes = atomic_load(&c->translator->flushes);
	const struct tlb_entry *e = &c->tlb.data[a->class][tlb_index(gva)];
	uint64_t room = MEM_PAGE_BYTES - (gva & ~PAGE_MASK);

	unpark(c);
	c->s.rip = a->rip;
	/* A plain miss: fill the TLB and probe again. */
	if (room >= a->size && !(gva & a->unaligned) &&
	    !tlb_hit(a->write ? e->write : e->read, gva, a->size) &&
	    (c->mode != MODE_64 || cpu_is_canonical(gva))) {
		c->break_block = false;
		cpu_fill_tlb(c, gva, a->size, a->write, (enum mmu_class)a->class);
		if (tlb_hit(a->write ? e->write : e->read, gva, a->size) && !c->break_block &&
		    flushes == atomic_load(&c->translator->flushes))
			return (const uint8_t *)a + a->retry;
	}
	const struct insn *insn = slow_insn(c, a, flushes);
	const uint8_t *done = (const uint8_t *)a + a->done;
	bool goes_on = a->done;
	return interpret(c, insn) && goes_on ? done : NULL;
}

const void *bt_window_fault(struct soft_cpu *c)
{
	const struct bt_fault *f = &c->bt.fault;
	const uint32_t flushes = atomic_load(&c->translator->flushes);

	if (f->flags_in_host)
		c->bt.flags = bt_parked(f->flags);
	unpark(c);
	c->s.rip = f->rip;
	c->break_block = false;
	if (bt_window_bring_in(c, f->gva, f->write) && !c->break_block &&
	    flushes == atomic_load(&c->translator->flushes))
		return f->at;
	const struct insn *insn = slow_insn(c, f->at, flushes);
	return interpret(c, insn) ? next_block(c) : NULL;
}

/* ---- the engine ---- */

static int bt_probe(struct error *why)
{
	(void)why;
	return 0;
}

static void bt_destroy(struct engine *e)
{
	if (e && e->translator) {
		mem_set_listener(e->config->mem, NULL, NULL);
		if (e->translator->perf_map)
			fclose(e->translator->perf_map);
		bt_window_destroy(e->translator);
		bt_cache_destroy(e->translator);
		pthread_mutex_destroy(&e->translator->lock);
		free(e->translator);
	}
	soft_destroy(e);
}

static int bt_create(const struct engine_config *config, struct engine **out, struct error *err)
{
	struct engine *e;
	int r = soft_create(config, &engine_bt, &e, err);

	if (r < 0)
		return r;
	struct bt *bt = e->translator = calloc(1, sizeof(*e->translator));
	if (!bt) {
		bt_destroy(e);
		return error_set(err, -ENOMEM, "bt: out of memory");
	}
	/* It is held for moments: who has to wait spins first. */
	pthread_mutexattr_t attr;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&bt->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	bt->has_avx = hostexec_supports(ZYDIS_ISA_SET_AVX);
	bt->has_bmi2 = hostexec_supports(ZYDIS_ISA_SET_BMI2);
	r = bt_stress_init(bt, err);
	if (r < 0) {
		bt_destroy(e);
		return r;
	}
	if (config->perf_map) {
		char path[64];
		snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
		bt->perf_map = fopen(path, "we");
		if (!bt->perf_map) {
			r = error_set(err, -errno, "--perf-map: %s: %s", path, strerror(errno));
			bt_destroy(e);
			return r;
		}
	}
	r = bt_cache_create(
		bt, config->mem,
		config->code_cache_bytes ? config->code_cache_bytes : CODE_BYTES_DEFAULT, err);
	if (r < 0) {
		bt_destroy(e);
		return r;
	}
	r = bt_window_create(bt, config->mem, err);
	if (r < 0) {
		bt_destroy(e);
		return r;
	}
	mem_set_listener(config->mem, bt_memory_written, bt);
	*out = e;
	return 0;
}

static int bt_vcpu_create(struct engine *e, unsigned index, const struct vcpu_board *board,
			  struct vcpu **out, struct error *err)
{
	struct bt *bt = e->translator;

	if (bt->cpu_count == BT_CPUS_MAX)
		return error_set(err, -EINVAL, "bt: at most %d vCPUs", BT_CPUS_MAX);
	int r = soft_vcpu_create(e, index, board, out, err);
	if (r < 0)
		return r;
	struct soft_cpu *c = (struct soft_cpu *)*out;
	__asm__("stmxcsr %0" : "=m"(c->bt.host_mxcsr));
	c->bt.arena = bt_arena_create(bt, bt->cpu_count);
	if (!c->bt.arena || bt_shadow_create(c) < 0 || bt_signals_create(c) < 0)
		return error_set(err, -ENOMEM, "bt: out of memory");
	bt_window_add_cpu(bt, c);
	c->vcpu.poke = bt_poke;
	bt_cpu_reset(bt, c);
	pthread_mutex_lock(&bt->lock);
	bt->cpus[bt->cpu_count++] = c;
	pthread_mutex_unlock(&bt->lock);
	c->translator = bt;
	return 0;
}

static void bt_vcpu_destroy(struct vcpu *v)
{
	if (v) {
		bt_signals_destroy((struct soft_cpu *)v);
		bt_shadow_destroy((struct soft_cpu *)v);
	}
	soft_vcpu_destroy(v);
}

const struct engine_ops engine_bt = {
	.name = "bt",
	.maps_ram = true,
	.probe = bt_probe,
	.create = bt_create,
	.destroy = bt_destroy,
	.vcpu_create = bt_vcpu_create,
	.vcpu_destroy = bt_vcpu_destroy,
	.run = soft_run,
	.get_state = soft_get_state,
	.set_state = soft_set_state,
	.set_debug = soft_set_debug,
	.translate = soft_translate,
};
