/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/bt.h"

#include <asm/prctl.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

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
 *
 * Several vCPUs share one cache. Whoever changes it holds bt->lock. Two changes concern vCPUs that
 * run meanwhile: a page about to be translated must not be writable through another vCPU's TLB, and
 * nobody may be in translated code when everything is flushed. For both the changer asks the other
 * vCPUs (VCPU_REQ_ENGINE) and waits until each has answered or is outside of run(). A vCPU that
 * waits for the lock answers, too, so two changers cannot wait for each other.
 */
enum { CODE_BYTES_DEFAULT = 64 << 20, SPINS = 256 };

/* ---- threads ---- */

/* %gs of the calling thread points at its vCPU. Signals stay blocked on vCPU threads that run
 * translated code: the guest's stack pointer is in RSP, so no handler may run there. */
static void bind_thread(struct soft_cpu *c)
{
	static _Thread_local struct soft_cpu *bound;

	if (bound == c)
		return;
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	if (host_has_fsgsbase())
		__asm__ volatile("wrgsbase %0" ::"r"(c));
	else
		syscall(SYS_arch_prctl, ARCH_SET_GS, c);
	bound = c;
}

/* ---- requests between vCPUs ---- */

static void forget_writes_to_code(struct soft_cpu *c)
{
	for (unsigned k = 0; k < MMU_CLASS_NR; k++)
		for (unsigned n = 0; n < TLB_ENTRIES; n++)
			if (bt_has_code(c->translator, c->tlb.data[k][n].gpa))
				c->tlb.data[k][n].write = tlb_empty_tag(n);
}

/*
 * One turn of waiting for another vCPU, the turn'th: a few are spun, for one that runs answers soon; then the
 * processor is given up, for on a busy host the other may be waiting for that very processor.
 */
static void wait_a_turn(unsigned turn)
{
	if (turn < SPINS)
		__builtin_ia32_pause();
	else
		sched_yield();
}

/* Sees to a request if there is one. Returns whether there was. */
static bool answer(struct soft_cpu *c)
{
	if (!(atomic_load(&c->vcpu.requests) & VCPU_REQ_ENGINE))
		return false;
	vcpu_unrequest(&c->vcpu, VCPU_REQ_ENGINE);
	forget_writes_to_code(c);
	atomic_fetch_add(&c->bt.acked, 1);
	return true;
}

void bt_take_request(struct soft_cpu *c)
{
	const struct bt *bt = c->translator;

	if (!answer(c))
		return;
	/*
	 * A flush of everything may be going on, and must be over before this vCPU runs translations again.
	 * Not by waiting for the lock: who holds it next may ask again, and waits for this vCPU's answer.
	 */
	for (unsigned turn = 0; atomic_load(&bt->flushing) && bt->flusher != c; turn++)
		if (!answer(c))
			wait_a_turn(turn);
}

static void lock(struct soft_cpu *c)
{
	for (unsigned turn = 0; pthread_mutex_trylock(&c->translator->lock) != 0; turn++) {
		bt_take_request(c);
		wait_a_turn(turn);
	}
}

static void unlock(struct soft_cpu *c)
{
	pthread_mutex_unlock(&c->translator->lock);
}

/* Waits until every other vCPU has seen to its request or is not in run(). The lock is held. */
static void ask_others(struct soft_cpu *c)
{
	struct bt *bt = c->translator;

	for (unsigned n = 0; n < bt->cpu_count; n++) {
		struct soft_cpu *o = bt->cpus[n];
		if (o == c)
			continue;
		uint32_t before = atomic_load(&o->bt.acked);
		vcpu_request(&o->vcpu, VCPU_REQ_ENGINE);
		for (unsigned turn = 0;
		     atomic_load(&o->in_run) && atomic_load(&o->bt.acked) == before; turn++)
			wait_a_turn(turn);
	}
}

static void flush_all(struct soft_cpu *c)
{
	struct bt *bt = c->translator;

	bt->flusher = c;
	atomic_store(&bt->flushing, true);
	ask_others(c);
	bt_cache_flush(bt);
	atomic_fetch_add(&bt->flushes, 1);
	atomic_store(&bt->flushing, false);
}

/* From now on stores to the page at gpa are announced by bt_note_write. */
static void mark_page(struct soft_cpu *c, uint64_t gpa)
{
	struct bt *bt = c->translator;
	uint64_t page = gpa >> MEM_PAGE_SHIFT;

	if (atomic_load(&bt->marked[page]))
		return;
	atomic_store(&bt->marked[page], 1);
	tlb_forbid_writes(&c->tlb, gpa);
	ask_others(c);
}

bool bt_page_has_code(const struct soft_cpu *c, uint64_t gpa)
{
	return bt_has_code(c->translator, gpa);
}

void bt_note_write(struct soft_cpu *c, uint64_t gpa, unsigned len)
{
	if (!bt_has_code(c->translator, gpa))
		return;
	lock(c);
	if (bt_invalidate(c->translator, gpa, len))
		c->break_block = true;
	unlock(c);
}

/* Writes to guest memory that no vCPU makes: DMA, loaders, debuggers. */
static void memory_written(void *opaque, uint64_t gpa, uint64_t len)
{
	struct bt *bt = opaque;
	uint64_t end = gpa + len;

	while (gpa < end && gpa >> MEM_PAGE_SHIFT < bt->gpa_pages) {
		uint64_t next = (gpa & PAGE_MASK) + MEM_PAGE_BYTES;
		uint64_t n = (next < end ? next : end) - gpa;
		if (bt_has_code(bt, gpa)) {
			pthread_mutex_lock(&bt->lock);
			bt_invalidate(bt, gpa, (unsigned)n);
			pthread_mutex_unlock(&bt->lock);
		}
		gpa = next;
	}
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

	(&k->page_id[0][0])[slot] = id;
	if (!global) {
		if (k->fills < BT_FILLED_MAX)
			k->filled[k->fills] = (uint16_t)slot;
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
static uint16_t mode_key(const struct soft_cpu *c)
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
	if (!(s->cr0 & (CR0_EM | CR0_TS)) && (s->cr4 & CR4_OSFXSR) && (mxcsr & 0x1f80) == 0x1f80) {
		key |= MODE_KEY_SSE;
		if ((s->cr4 & CR4_OSXSAVE) &&
		    (s->xcr0 & (XCR0_SSE | XCR0_AVX)) == (XCR0_SSE | XCR0_AVX))
			key |= MODE_KEY_AVX;
	}
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
		if (c->translator->mode_keys[n] == key) {
			c->bt.mode = (uint8_t)n;
			return;
		}
	}
	lock(c);
	unsigned mode = bt_mode_index(c->translator, key);
	if (mode == BT_MODES) {
		flush_all(c);
		mode = bt_mode_index(c->translator, key);
	}
	c->bt.mode = (uint8_t)mode;
	c->bt.mode_known = true;
	unlock(c);
}

/* ---- finding blocks ---- */

/* What translated code takes from RFLAGS. */
static void park(struct soft_cpu *c)
{
	c->bt.flags = (uint32_t)(((c->s.rflags & 0xd5) | FLAG_R1) << 8 | (c->s.rflags >> 11 & 1));
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
	       mem_page(c->mem, gpa & PAGE_MASK, &kind) != NULL;
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
	uint64_t gva = (at->rip & PAGE_MASK) + n * MEM_PAGE_BYTES;
	uint32_t id = bt_page_id(c->translator, gva, at->gpa[n], c->bt.mode);

	if (id)
		set_page_id(c, gva, id, at->global[n]);
	return id;
}

/* One attempt; *full: the cache has to be flushed first. NULL otherwise: interpret. */
static struct bt_block *find_once(struct soft_cpu *c, const struct code_at *at, bool *full)
{
	struct bt *bt = c->translator;
	bool across = at->gpa[1] != UINT64_MAX;
	uint32_t page[2] = {page_at(c, at, 0), across ? page_at(c, at, 1) : 0};

	*full = !page[0] || (across && !page[1]);
	if (*full)
		return NULL;
	struct bt_block *b = bt_block_find(bt, page[0], at->rip & ~PAGE_MASK);
	if (b && b->page2 && across && b->page2 != page[1]) {
		bt_block_kill(bt, b); /* the second page is another one now */
		b = NULL;
	}
	if (b)
		return b;
	mark_page(c, at->gpa[0]);
	if (!across)
		return bt_translate(bt, c, page[0], at->rip, at->hva[0], full);
	mark_page(c, at->gpa[1]);
	return bt_translate_across(bt, c, page, at->rip, at->hva, full);
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

	lock(c);
	struct bt_exit *x = k->exit; /* a flush while waiting has cleared it */
	if (k->mode_known)
		b = find_once(c, at, &full);
	if (full)
		flush_all(c);
	if (b)
		where = bt_entry(bt, b, ENTRY_PARKED);
	if (where) {
		if (link && x)
			bt_link(bt, x, b);
		remember(c, b, at->rip, where);
	}
	/* The page's last bytes are not a whole instruction, or are known to be the begin of one
	 * whose second page may not be where it was. */
	*across = !full && k->mode_known && (!b || b->page2) && at->gpa[1] == UINT64_MAX &&
		  (at->rip & ~PAGE_MASK) > MEM_PAGE_BYTES - 15;
	k->exit = *across ? k->exit : NULL;
	unlock(c);
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
	const void *where = find_slowly(c, &at, link, &across);
	if (across) {
		if (!fetch(c, &at, 1, (rip & PAGE_MASK) + MEM_PAGE_BYTES))
			return NULL;
		where = find_slowly(c, &at, link, &across);
	}
	return where;
}

void bt_run(struct soft_cpu *c)
{
	struct bt *bt = c->translator;

	bind_thread(c);
	if (!c->bt.mode_known)
		find_mode(c);
	if (!c->bt.runnable || (c->mode == MODE_64 && !cpu_is_canonical(c->s.rip))) {
		c->bt.exit = NULL;
		interp_run_block(c);
		return;
	}
	if (bt->stress.on && bt_stress_interprets(bt)) {
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
	park(c);
	c->break_block = false;
	bt->thunks.enter(c, where);
	unpark(c);
	if (c->bt.exit) {
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
	c->s.rip = c->next_rip;
	/* Inside of a block nothing is let in before the instruction after STI (translate.c); with
	 * an interrupt waiting, leave, so that it comes right after that instruction. */
	if (i->mnemonic == ZYDIS_MNEMONIC_STI && !(i->flags & INSN_END) &&
	    !(atomic_load(&c->vcpu.requests) & VCPU_REQ_IRQ))
		c->s.shadow = SHADOW_NONE;
	park(c);
	return !(i->flags & INSN_END) && c->s.rip == next && !c->break_block && !c->careful &&
	       !c->s.shadow && !c->pending_dr6 && c->bt.mode_known &&
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
	return c->bt.runnable ? find_known(c, c->s.rip) : NULL;
}

const void *bt_helper(struct soft_cpu *c, const struct insn *i)
{
	uint32_t flushes = atomic_load(&c->translator->flushes);

	unpark(c);
	if (interpret(c, i))
		return (const void *)c->bt.resume;
	return flushes == atomic_load(&c->translator->flushes) ? next_block(c) : NULL;
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
	const struct block *one = block_find_one(c);
	const uint8_t *done = (const uint8_t *)a + a->done;
	bool goes_on = a->done;
	return interpret(c, one->insn) && goes_on ? done : NULL;
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
	pthread_mutex_init(&bt->lock, NULL);
	bt->has_avx = hostexec_supports(ZYDIS_ISA_SET_AVX);
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
	mem_set_listener(config->mem, memory_written, bt);
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
	bt_cpu_reset(bt, c);
	pthread_mutex_lock(&bt->lock);
	bt->cpus[bt->cpu_count++] = c;
	pthread_mutex_unlock(&bt->lock);
	c->translator = bt;
	return 0;
}

const struct engine_ops engine_bt = {
	.name = "bt",
	.probe = bt_probe,
	.create = bt_create,
	.destroy = bt_destroy,
	.vcpu_create = bt_vcpu_create,
	.vcpu_destroy = soft_vcpu_destroy,
	.run = soft_run,
	.get_state = soft_get_state,
	.set_state = soft_set_state,
	.set_debug = soft_set_debug,
	.translate = soft_translate,
};
