/* SPDX-License-Identifier: Apache-2.0 */
/* How pages leave host memory: the steps of reclaim.c's drawing, for pages that somebody has marked LEAVING. */
#include <string.h>

#include "mem/mem_internal.h"
#include "mem/swap.h"

enum { GROUP = 32 /* pages locked at a time */ };

static bool is_zero(const void *page)
{
	const uint64_t *p = page;

	if (p[0] | p[511])
		return false;
	return !memcmp(p, p + 1, MEM_PAGE_BYTES - 8);
}

/* What a page that is locked will be, its contents kept if they have to be. 0: it has to stay. */
static uint64_t leave_as(struct mem *m, uint64_t frame, uint64_t word)
{
	uint64_t rest = word & FRAME_LOGGED;
	uint64_t slot = frame_slot(word);

	if (word & FRAME_DISCARD) {
		atomic_fetch_add(&m->count.discarded, 1);
		return FRAME_LOGGED | FRAME_LOCKED | (word & FRAME_BALLOON);
	}
	if (!(word & FRAME_DIRTY)) {
		atomic_fetch_add(slot ? &m->count.evicted_clean : &m->count.evicted_zero, 1);
		return rest | FRAME_LOCKED |
		       (slot ? FRAME_SWAPPED | slot << FRAME_SLOT_SHIFT : FRAME_ZERO);
	}
	if (is_zero(frame_host(m, frame))) {
		atomic_fetch_add(&m->count.evicted_zero, 1);
		return rest | FRAME_LOCKED | FRAME_ZERO;
	}
	if (!m->swap || swap_store(m->swap, (uint32_t)frame, frame_host(m, frame), &slot) < 0)
		return 0;
	atomic_fetch_add(&m->count.evicted_stored, 1);
	return rest | FRAME_LOCKED | FRAME_SWAPPED | slot << FRAME_SLOT_SHIFT;
}

/* Locks a page that nobody has taken back. Its word, or 0. */
static uint64_t lock_leaving(struct mem *m, uint64_t frame)
{
	uint64_t word = atomic_load(&m->frames[frame]);

	while ((word & FRAME_LEAVING) && !(word & (FRAME_PINS | FRAME_LOCKED)))
		if (atomic_compare_exchange_weak(&m->frames[frame], &word, word | FRAME_LOCKED))
			return word | FRAME_LOCKED;
	return 0;
}

/* Not evicted after all. */
static void stay(struct mem *m, uint64_t frame)
{
	atomic_fetch_and(&m->frames[frame], ~(FRAME_LOCKED | FRAME_LEAVING | FRAME_DISCARD));
}

/* Gives pages that are locked, in the order of their addresses, back to the host: runs at a time. */
void evict_give_back(struct mem *m, const uint64_t *frame, unsigned n)
{
	for (unsigned at = 0, end; at < n; at = end) {
		for (end = at + 1; end < n && frame[end] == frame[end - 1] + 1;)
			end++;
		ram_give_back(m, frame[at], end - at);
	}
}

void evict_settle(struct mem *m, uint64_t frame)
{
	atomic_fetch_and(&m->frames[frame], ~FRAME_LOCKED);
}

/* The page's new word. A slot that it had is the one of its clean copy, which is kept or freed. */
static void put_away(struct mem *m, uint64_t frame, uint64_t word, uint64_t to)
{
	/* But for the log's bit nobody changes a word that is locked. */
	while (!atomic_compare_exchange_weak(&m->frames[frame], &word,
					     (to & ~FRAME_LOGGED) | ((to | word) & FRAME_LOGGED)))
		;
	if (frame_slot(word) && frame_slot(word) != frame_slot(to))
		swap_free(m->swap, frame_slot(word));
}

/* Evicts up to GROUP pages marked LEAVING. Returns how many have left; *full: the store took no more. */
static unsigned evict_group(struct mem *m, const uint64_t *frame, unsigned n, bool *full)
{
	uint64_t gone[GROUP];
	unsigned count = 0;

	for (unsigned k = 0; k < n; k++) {
		uint64_t word = lock_leaving(m, frame[k]);
		if (!word)
			continue;
		uint64_t to = *full && !(word & FRAME_DISCARD) ? 0 : leave_as(m, frame[k], word);
		if (!to) {
			*full = true;
			stay(m, frame[k]);
			continue;
		}
		put_away(m, frame[k], word, to);
		if (word & FRAME_AHEAD)
			frame_ahead(m, false);
		atomic_fetch_sub(&m->gen_pages[frame_gen(word)], 1);
		gone[count++] = frame[k];
	}
	evict_give_back(m, gone, count);
	atomic_fetch_sub(&m->present, count);
	for (unsigned k = 0; k < count; k++) {
		if (m->runs)
			atomic_fetch_sub(&m->runs[gone[k] / RAM_RUN_PAGES], 1);
		evict_settle(m, gone[k]);
	}
	return count;
}

unsigned evict_pages(struct mem *m, const uint64_t *frame, unsigned n, bool *full)
{
	unsigned gone = 0;

	mem_ask(m, MEM_ASK_LEAVING);
	for (unsigned at = 0; at < n; at += GROUP)
		gone += evict_group(m, frame + at, n - at < GROUP ? n - at : GROUP, full);
	return gone;
}
