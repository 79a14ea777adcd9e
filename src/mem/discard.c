/* SPDX-License-Identifier: Apache-2.0 */
/* Pages whose contents the guest does not want, and the log of those it wrote. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/wait.h"
#include "mem/mem_internal.h"
#include "mem/swap.h"

enum { BATCH = 512 /* pages an ask */ };

/* The first frame of a range and how many; false: not RAM as a whole. */
static bool frames_of(const struct mem *m, const struct mem_range *r, uint64_t *first, uint64_t *n)
{
	const uint64_t mask = MEM_PAGE_BYTES - 1;
	uint64_t offset;

	if ((r->gpa & mask) || (r->len & mask) || r->gpa + r->len < r->gpa)
		return false;
	if (r->gpa < m->low && r->len <= m->low - r->gpa)
		offset = r->gpa;
	else if (r->gpa >= MEM_HIGH_BASE && r->gpa - MEM_HIGH_BASE <= m->high &&
		 r->len <= m->high - (r->gpa - MEM_HIGH_BASE))
		offset = r->gpa - MEM_HIGH_BASE + m->low;
	else
		return false;
	*first = offset >> MEM_PAGE_SHIFT;
	*n = r->len >> MEM_PAGE_SHIFT;
	return true;
}

/* A page that is not in host memory, or is to leave it. True: it is LEAVING now. */
static bool unwant(struct mem *m, uint64_t frame, bool balloon)
{
	const uint64_t as = balloon ? FRAME_BALLOON : 0;

	for (unsigned turn = 0;;) {
		uint64_t word = atomic_load(&m->frames[frame]);
		if (word & FRAME_LOCKED) {
			wait_turn(turn++);
		} else if (word & FRAME_PRESENT) {
			if (word & FRAME_PINS)
				return false;
			if (atomic_compare_exchange_weak(&m->frames[frame], &word,
							 word | FRAME_LEAVING | FRAME_DISCARD | as))
				return true;
		} else if (atomic_compare_exchange_weak(&m->frames[frame], &word,
							FRAME_LOGGED | as)) {
			if (word & FRAME_SWAPPED)
				swap_free(m->swap, frame_slot(word));
			return false;
		}
	}
}

static void discard_range(struct mem *m, uint64_t first, uint64_t count, bool balloon)
{
	uint64_t leaving[BATCH];
	bool full = false;

	for (uint64_t at = 0; at < count;) {
		unsigned n = 0;
		for (; at < count && n < BATCH; at++)
			if (unwant(m, first + at, balloon))
				leaving[n++] = first + at;
		if (n)
			evict_pages(m, leaving, n, &full);
	}
}

void discard_carry_out(struct mem *m, struct discard *d)
{
	for (unsigned k = 0; k < d->count; k++) {
		uint64_t first, n;
		if (frames_of(m, &d->range[k], &first, &n))
			discard_range(m, first, n, d->balloon);
	}
	if (d->done)
		d->done(d->opaque);
	free(d);
}

int mem_discard(struct mem *m, const struct mem_range *ranges, unsigned count, bool balloon,
		void (*done)(void *opaque), void *opaque)
{
	uint64_t first, n;

	for (unsigned k = 0; k < count; k++)
		if (!frames_of(m, &ranges[k], &first, &n))
			return -EFAULT;
	struct discard *d = malloc(sizeof(*d) + count * sizeof(*ranges));
	if (!d)
		return -ENOMEM;
	*d = (struct discard){.balloon = balloon, .done = done, .opaque = opaque, .count = count};
	memcpy(d->range, ranges, count * sizeof(*ranges));
	pthread_mutex_lock(&m->lock);
	bool queued = m->started && !atomic_load(&m->stopping);
	if (queued) {
		*m->discards_end = d;
		m->discards_end = &d->next;
		pthread_cond_signal(&m->wake);
	}
	pthread_mutex_unlock(&m->lock);
	if (!queued)
		discard_carry_out(m, d);
	return 0;
}

/* ---- the dirty log ---- */

uint64_t mem_log_take(struct mem *m, uint64_t *bits)
{
	uint64_t dirty = 0;

	memset(bits, 0, (m->pages + 63) / 64 * 8);
	for (uint64_t f = 0; f < m->pages; f++) {
		uint64_t word = atomic_load_explicit(&m->frames[f], memory_order_relaxed);
		if (!(word & FRAME_LOGGED))
			continue;
		if (!(word & FRAME_PINS))
			atomic_fetch_and(&m->frames[f], ~FRAME_LOGGED);
		bits[f / 64] |= UINT64_C(1) << f % 64;
		dirty++;
	}
	/* What vCPUs wrote until they had forgotten is in the copy that the caller takes after this. */
	pthread_mutex_lock(&m->lock);
	if (m->started && !atomic_load(&m->stopping)) {
		m->log_sync = true;
		pthread_cond_signal(&m->wake);
		while (m->log_sync && !atomic_load(&m->stopping))
			pthread_cond_wait(&m->log_synced, &m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return dirty;
}
