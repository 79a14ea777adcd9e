/* SPDX-License-Identifier: Apache-2.0 */
#include "base/wait.h"
#include "cpu/bt/bt.h"

/*
 * Several vCPUs share one cache. Whoever changes its tables holds bt->lock, for moments; blocks are made
 * without it (arena.c). Two things concern vCPUs that run meanwhile:
 *
 * A flush takes everything back, so nobody may be in translated code or about to enter it, nor look blocks
 * up, nor make one. The flusher holds the lock and asks the others (VCPU_REQ_ENGINE); each comes to a
 * boundary, sees that a flush is going on, and waits for the lock. It waits until every other vCPU is
 * outside of run() or aside: a vCPU that is aside does nothing but to take the lock next, and looks
 * afterwards whether there was a flush (bt.flushes).
 *
 * A store to code must be noted, else the translation goes stale; and what is noted is the store that is
 * about to be done. So who translates
 *
 *   1. tells, under the lock, which pages it reads (making[]), and marks them: from then on no TLB gets a
 *      new way to write to them;
 *   2. without the lock, asks the vCPUs that may write to the pages all the same, and waits until each has
 *      been between instructions (acked) or is outside of run(): all others where the page is not known to
 *      be guarded, for their TLBs may hold ways to write; else those that have noted a store to it and may
 *      not have done it yet (writing[]);
 *   3. reads and translates;
 *   4. publishes, under the lock, unless a store was noted meanwhile (stale).
 *
 * Only a flusher waits while it holds the lock, and it does not wait for who waits in 2. or for the lock;
 * who waits in 2. answers others itself. So nobody waits in a circle.
 */

/* ---- requests between vCPUs ---- */

/* To the pages that others ask about: each waits, with its pages in making[], until this has been done or
 * this vCPU has left run(). */
static void forget_writes_to_asked(struct soft_cpu *c)
{
	const struct bt *bt = c->translator;

	for (unsigned n = 0; n < bt->cpu_count; n++) {
		for (unsigned k = 0; k < 2; k++) {
			const uint64_t page = atomic_load(&bt->cpus[n]->bt.making[k]);
			if (page && bt->cpus[n] != c)
				cpu_forbid_writes(c, page & PAGE_MASK);
		}
	}
}

/* To all, when it is not known any more who asked about which. */
static void forget_writes_to_code(struct soft_cpu *c)
{
	for (unsigned k = 0; k < MMU_CLASS_NR; k++)
		for (unsigned n = 0; n < TLB_ENTRIES; n++)
			if (bt_has_code(c->translator, c->tlb.data[k][n].gpa))
				c->tlb.data[k][n].write = tlb_empty_tag(n);
	tlb_forget_stack(&c->tlb);
	bt_window_forbid_writes_to_code(c);
}

/* Between instructions: sees to a request if there is one. */
static void answer(struct soft_cpu *c)
{
	if (!(atomic_load(&c->vcpu.requests) & VCPU_REQ_ENGINE))
		return;
	vcpu_unrequest(&c->vcpu, VCPU_REQ_ENGINE);
	/* Odd from here on: who asks now wants another answer, and this one does not end his request. */
	atomic_fetch_add(&c->bt.acked, 1);
	bt_writes_done(c);
	forget_writes_to_asked(c);
	/* In this order: who does not wait for the answer says so before its pages leave making[]. */
	if (atomic_exchange(&c->bt.behind, false))
		forget_writes_to_code(c);
	atomic_fetch_add(&c->bt.acked, 1);
}

void bt_take_request(struct soft_cpu *c)
{
	answer(c);
	if (atomic_load(&c->translator->flushing)) {
		bt_lock(c);
		bt_unlock(c);
	}
}

/* What acked will be at least once the vCPU has seen to this. Without a wake-up: one that sleeps is not in
 * run(). */
static uint32_t ask(struct soft_cpu *o)
{
	const uint32_t before = atomic_load(&o->bt.acked);

	atomic_fetch_or(&o->vcpu.requests, VCPU_REQ_ENGINE);
	bt_poke(&o->vcpu);
	return before + 2 + (before & 1);
}

static bool has_answered(const struct soft_cpu *o, uint32_t wanted)
{
	return (int32_t)(atomic_load(&o->bt.acked) - wanted) >= 0;
}

void bt_lock(struct soft_cpu *c)
{
	struct bt *bt = c->translator;

	if (pthread_mutex_trylock(&bt->lock) == 0)
		return;
	atomic_store(&c->bt.aside, true);
	pthread_mutex_lock(&bt->lock);
	atomic_store(&c->bt.aside, false);
}

void bt_unlock(struct soft_cpu *c)
{
	pthread_mutex_unlock(&c->translator->lock);
}

/* ---- flushes ---- */

void bt_flush_all(struct bt *bt, const struct soft_cpu *c)
{
	atomic_store(&bt->flushing, true);
	for (unsigned n = 0; n < bt->cpu_count; n++)
		if (bt->cpus[n] != c)
			ask(bt->cpus[n]);
	for (unsigned n = 0; n < bt->cpu_count; n++) {
		const struct soft_cpu *o = bt->cpus[n];
		for (unsigned turn = 0;
		     o != c && atomic_load(&o->in_run) && !atomic_load(&o->bt.aside); turn++)
			wait_turn(turn);
	}
	bt_cache_flush(bt);
	atomic_fetch_add(&bt->flushes, 1);
	atomic_store(&bt->flushing, false);
}

enum { TRIM_FROM = 16 << 20 /* bytes of code that are worth it */ };

void bt_trim(struct bt *bt)
{
	pthread_mutex_lock(&bt->lock);
	if (bt->hot.used + bt->cold.used >= TRIM_FROM) {
		bt_flush_all(bt, NULL);
		bt_cache_shrink(bt);
	}
	pthread_mutex_unlock(&bt->lock);
}

/* ---- code that is about to be translated ---- */

/* May the store that o has noted last, or one of the last few, still be coming? */
static bool is_writing(const struct soft_cpu *o, uint64_t gpa)
{
	for (unsigned n = 0; n < sizeof(o->bt.writing) / sizeof(o->bt.writing[0]); n++)
		if (atomic_load(&o->bt.writing[n]) == (gpa | 1))
			return true;
	return false;
}

/* Must be asked and waited for before the code is read? */
static bool may_write(const struct soft_cpu *o, const uint64_t gpa[2], const bool open[2])
{
	return open[0] || open[1] || is_writing(o, gpa[0]) || is_writing(o, gpa[1]);
}

/* Waits until the others have answered, and takes the lock. */
static void ask_writers(struct soft_cpu *c, const uint64_t gpa[2], const bool open[2])
{
	struct bt *bt = c->translator;
	const unsigned count = bt->cpu_count;
	uint32_t wanted[BT_CPUS_MAX];
	bool asked[BT_CPUS_MAX];

	atomic_store(&c->bt.aside, true);
	pthread_mutex_unlock(&bt->lock);
	for (unsigned n = 0; n < count; n++) {
		struct soft_cpu *o = bt->cpus[n];
		asked[n] = o != c && may_write(o, gpa, open);
		if (asked[n])
			wanted[n] = ask(o);
	}
	for (unsigned n = 0; n < count; n++) {
		struct soft_cpu *o = bt->cpus[n];
		for (unsigned turn = 0; asked[n] && !has_answered(o, wanted[n]); turn++) {
			if (!atomic_load(&o->in_run)) {
				atomic_store(&o->bt.behind, true);
				break;
			}
			answer(c);
			wait_turn(turn);
		}
	}
	pthread_mutex_lock(&bt->lock);
	atomic_store(&c->bt.aside, false);
}

bool bt_begin_making(struct soft_cpu *c, const uint64_t gpa[2])
{
	struct bt *bt = c->translator;
	const uint32_t flushes = atomic_load(&bt->flushes);
	bool open[2] = {false, false}, any = false;

	c->bt.stale = false;
	for (unsigned n = 0; n < 2 && gpa[n] != UINT64_MAX; n++) {
		_Atomic uint8_t *mark = &bt->marked[gpa[n] >> MEM_PAGE_SHIFT];
		atomic_store(&c->bt.making[n], gpa[n] | 1);
		open[n] = atomic_load(mark) != BT_GUARDED;
		if (atomic_load(mark) == BT_UNMARKED)
			atomic_store(mark, BT_MARKED);
		if (open[n])
			cpu_forbid_writes(c, gpa[n]);
	}
	for (unsigned n = 0; n < bt->cpu_count && !any; n++)
		any = bt->cpus[n] != c && may_write(bt->cpus[n], gpa, open);
	if (any)
		ask_writers(c, gpa, open);
	if (flushes != atomic_load(&bt->flushes))
		return false;
	/* Marks do not go away while the pages are in making[]. */
	for (unsigned n = 0; n < 2; n++)
		if (open[n])
			atomic_store(&bt->marked[gpa[n] >> MEM_PAGE_SHIFT], BT_GUARDED);
	return true;
}

void bt_end_making(struct soft_cpu *c)
{
	atomic_store(&c->bt.making[0], 0);
	atomic_store(&c->bt.making[1], 0);
}

/* ---- stores to pages that have code ---- */

bool bt_page_has_code(const struct soft_cpu *c, uint64_t gpa)
{
	return bt_has_code(c->translator, gpa);
}

void bt_writes_done(struct soft_cpu *c)
{
	if (!c->bt.writes)
		return;
	for (unsigned n = 0; n < sizeof(c->bt.writing) / sizeof(c->bt.writing[0]); n++)
		atomic_store_explicit(&c->bt.writing[n], 0, memory_order_release);
	c->bt.writes = 0;
}

void bt_note_write(struct soft_cpu *c, uint64_t gpa, unsigned len)
{
	struct bt_cpu *k = &c->bt;
	const unsigned slots = sizeof(k->writing) / sizeof(k->writing[0]);

	if (!bt_has_code(c->translator, gpa))
		return;
	bt_lock(c);
	/* The store itself comes later: code that is read until then is not to be kept. */
	atomic_store(&k->writing[k->writes++ % slots], (gpa & PAGE_MASK) | 1);
	if (bt_invalidate(c->translator, gpa, len))
		c->break_block = true;
	bt_unlock(c);
}

void bt_memory_written(void *opaque, uint64_t gpa, uint64_t len)
{
	struct bt *bt = opaque;
	uint64_t end = gpa + len;

	/* What was written is seen by who marks a page after this has looked at its mark. */
	atomic_thread_fence(memory_order_seq_cst);
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
