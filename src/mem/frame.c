/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames: where each page of guest RAM is, and how it comes back when it is asked for.
 *
 * Whoever asks brings the page in himself, a vCPU or a device's thread alike: a page that was never
 * touched is just declared present (the host's kernel fills it with zeros when it is touched, or does
 * so for many at once: ram_bring_in), one in the swap store is loaded. Nobody who asks waits for room: that would be in the middle of an
 * instruction, when a vCPU holds addresses and could not answer for others. It makes the machine a
 * few pages too large, wakes the memory thread, and vCPUs wait at their next boundary
 * (mem_is_crowded).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/wait.h"
#include "mem/mem_internal.h"
#include "mem/swap.h"

/*
 * Reading ahead: neighbours in the store lie near in the guest's memory, too, so one read of the file may bring
 * many pages that are wanted next; or crowd out others that are wanted more. Each page that was read ahead
 * and asked for later makes `ahead_worth` one larger, each that left unused one smaller. The number of pages
 * doubles and halves at its ends; at none, it is tried again after some loads.
 */
enum { AHEAD_MAX = 16, AHEAD_WORTH = 64, AHEAD_RETRY = 256 };

enum { TURNS_MAX = 200 }; /* for a page that is on its way, in the middle of an instruction */

int frames_create(struct mem *m, struct error *err)
{
	m->pages = m->ram >> MEM_PAGE_SHIFT;
	size_t bytes = m->pages * sizeof(*m->frames);
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return error_set(err, -ENOMEM, "guest memory: out of memory for its frames");
	m->frames = p;
	m->fast_gen = FRAME_GEN;
	m->huge = true;
	m->ahead = AHEAD_MAX / 4;
	atomic_store(&m->limit_pages, UINT64_MAX);
	atomic_store(&m->wake_pages, UINT64_MAX);
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->wake, NULL);
	pthread_cond_init(&m->room, NULL);
	pthread_cond_init(&m->log_synced, NULL);
	m->discards_end = &m->discards;
	return 0;
}

void frames_destroy(struct mem *m)
{
	if (!m->frames)
		return;
	mem_stop(m);
	swap_destroy(m->swap);
	munmap(m->frames, m->pages * sizeof(*m->frames));
	pthread_mutex_destroy(&m->lock);
	pthread_cond_destroy(&m->wake);
	pthread_cond_destroy(&m->room);
	pthread_cond_destroy(&m->log_synced);
}

/* ---- what is told ---- */

static void tell(struct mem *m, enum mem_event event, uint64_t frame, uint64_t slot, uint64_t since)
{
	void (*fn)(void *, enum mem_event, uint64_t, uint64_t, uint64_t) =
		atomic_load_explicit(&m->watcher.fn, memory_order_acquire);

	if (fn)
		fn(m->watcher.opaque, event, frame_gpa(m, frame), slot,
		   since ? clock_ns() - since : 0);
}

static void trace(struct mem *m, uint64_t frame, bool write)
{
	void (*fn)(void *, uint64_t, bool) =
		atomic_load_explicit(&m->tracer.fn, memory_order_acquire);

	if (fn)
		fn(m->tracer.opaque, frame_gpa(m, frame), write);
}

void frame_ahead(struct mem *m, bool used)
{
	unsigned ahead = atomic_load(&m->ahead);
	int worth = atomic_fetch_add(&m->ahead_worth, used ? 1 : -1);

	if (used)
		atomic_fetch_add_explicit(&m->count.read_aheads_used, 1, memory_order_relaxed);
	if (worth > AHEAD_WORTH) {
		atomic_store(&m->ahead_worth, 0);
		atomic_store(&m->ahead, ahead ? (ahead < AHEAD_MAX ? ahead * 2 : ahead) : 1);
	} else if (worth < -AHEAD_WORTH) {
		atomic_store(&m->ahead_worth, 0);
		atomic_store(&m->ahead, ahead / 2);
	}
}

static unsigned how_far_ahead(struct mem *m)
{
	unsigned ahead = atomic_load(&m->ahead);

	if (ahead || atomic_fetch_add(&m->loads, 1) % AHEAD_RETRY)
		return ahead;
	return AHEAD_MAX / 4;
}

static void count_gen(struct mem *m, unsigned gen, int64_t n)
{
	atomic_fetch_add_explicit(&m->gen_pages[gen], n, memory_order_relaxed);
}

/* ---- a page comes in ---- */

/* The word of a page that is used now. */
static uint64_t used_word(const struct mem *m, uint64_t word, bool write, unsigned pins)
{
	uint64_t gen = atomic_load_explicit(&m->gen_now, memory_order_relaxed);
	unsigned all = frame_pins(word) + pins;

	word &= ~(FRAME_AHEAD | FRAME_LEAVING | FRAME_DISCARD | FRAME_BALLOON | FRAME_PINS |
		  FRAME_LOCKED);
	if (m->fast_gen || !(word & FRAME_PRESENT))
		word = (word & ~FRAME_GEN) | gen;
	if (write)
		word = (word & ~FRAME_SLOT) | FRAME_DIRTY | FRAME_LOGGED;
	return word | FRAME_PRESENT |
	       (uint64_t)(all < PINS_MAX ? all : PINS_MAX) << FRAME_PIN_SHIFT;
}

/* Counts a page that has come in. True: its run had none. */
static bool arrived(struct mem *m, uint64_t frame, uint64_t word)
{
	uint64_t present = atomic_fetch_add(&m->present, 1) + 1;

	count_gen(m, frame_gen(word), 1);
	if (present >= atomic_load_explicit(&m->wake_pages, memory_order_relaxed))
		reclaim_wake(m);
	return m->runs && !atomic_fetch_add(&m->runs[frame / RAM_RUN_PAGES], 1);
}

/* A neighbour of a page that was read from the file came along. */
static void take_near(void *opaque, uint32_t frame, uint64_t slot, const void *data)
{
	struct mem *m = opaque;
	uint64_t word = frame < m->pages ? atomic_load(&m->frames[frame]) : 0;

	if (!(word & FRAME_SWAPPED) || (word & FRAME_LOCKED) || frame_slot(word) != slot ||
	    atomic_load(&m->present) >= atomic_load(&m->limit_pages) ||
	    !atomic_compare_exchange_strong(&m->frames[frame], &word, word | FRAME_LOCKED))
		return;
	__builtin_memcpy(frame_host(m, frame), data, MEM_PAGE_BYTES);
	/* As if used a generation ago: it was not asked for. */
	uint64_t gen = atomic_load_explicit(&m->gen_now, memory_order_relaxed);
	uint64_t now;
	gen = (gen - (UINT64_C(1) << FRAME_GEN_SHIFT)) & FRAME_GEN;
	word |= FRAME_LOCKED;
	do
		now = (word & ~(FRAME_SWAPPED | FRAME_LOCKED | FRAME_GEN)) | FRAME_PRESENT |
		      FRAME_AHEAD | gen;
	while (!atomic_compare_exchange_weak(&m->frames[frame], &word, now));
	atomic_fetch_add(&m->count.read_aheads, 1);
	arrived(m, frame, now);
}

/*
 * Loads the page, which is locked by this thread. A failing read is tried again until it works or the machine
 * ends: the guest waits rather than see wrong bytes.
 */
static void load(struct mem *m, uint64_t frame, uint64_t slot)
{
	static const struct timespec second = {.tv_sec = 1};
	unsigned ahead = swap_on_file(m->swap, slot) ? how_far_ahead(m) : 0;

	for (;;) {
		int r = !ahead ? swap_load(m->swap, slot, (uint32_t)frame, frame_host(m, frame))
			       : swap_load_around(m->swap, slot, (uint32_t)frame,
						  frame_host(m, frame), ahead, take_near, m);
		if (r == 0)
			return;
		if (atomic_load(&m->stopping))
			return;
		nanosleep(&second, NULL);
	}
}

static void swap_in(struct mem *m, uint64_t frame, bool write, unsigned pins)
{
	uint64_t began = atomic_load(&m->watcher.fn) ? clock_ns() : 0;

	uint64_t word = atomic_load(&m->frames[frame]), now;
	const uint64_t slot = frame_slot(word);
	load(m, frame, slot);
	do {
		now = used_word(m, word & ~FRAME_SWAPPED, write, pins);
		/* In the file, a copy of a page that stays clean saves writing it again. */
		if (!write && !swap_on_file(m->swap, slot))
			now = (now & ~FRAME_SLOT) | FRAME_DIRTY | FRAME_LOGGED;
	} while (!atomic_compare_exchange_weak(&m->frames[frame], &word, now));
	if (!frame_slot(now))
		swap_free(m->swap, slot);
	atomic_fetch_add_explicit(&m->count.swap_ins, 1, memory_order_relaxed);
	arrived(m, frame, now);
	tell(m, MEM_EVENT_SWAP_IN, frame, slot, began);
}

/* A page of which there is nothing but zeros. */
static void touched(struct mem *m, uint64_t frame, uint64_t word, uint64_t now)
{
	enum mem_event event = MEM_EVENT_FIRST_TOUCH;

	if (word & FRAME_ZERO) {
		event = MEM_EVENT_ZERO_IN;
		atomic_fetch_add_explicit(&m->count.zero_ins, 1, memory_order_relaxed);
	} else {
		if (word & FRAME_BALLOON)
			event = MEM_EVENT_BALLOON_IN;
		atomic_fetch_add_explicit(&m->count.first_touches, 1, memory_order_relaxed);
	}
	if (arrived(m, frame, now) && atomic_load(&m->huge))
		ram_bring_in(m, frame);
	tell(m, event, frame, 0, 0);
}

/* A page that is there already. False: its word has changed, look again. */
static bool use_present(struct mem *m, uint64_t frame, uint64_t word, bool write, unsigned pins)
{
	uint64_t now = used_word(m, word, write, pins);

	if (now == word)
		return true;
	if (!atomic_compare_exchange_weak(&m->frames[frame], &word, now))
		return false;
	if (frame_gen(word) != frame_gen(now)) {
		count_gen(m, frame_gen(word), -1);
		count_gen(m, frame_gen(now), 1);
	}
	if (frame_slot(word) && !frame_slot(now))
		swap_free(m->swap, frame_slot(word));
	if (word & FRAME_AHEAD)
		frame_ahead(m, true);
	if (word & FRAME_LEAVING) {
		atomic_fetch_add_explicit(&m->count.rescues, 1, memory_order_relaxed);
		tell(m, MEM_EVENT_RESCUE, frame, frame_slot(word), 0);
	}
	return true;
}

/* Would it have to be waited for? */
static bool is_far(struct mem *m, uint64_t slot)
{
	if (m->stress && atomic_fetch_add(&m->loads, 1) % 2)
		return true;
	return swap_on_file(m->swap, slot);
}

bool frame_get_slow(struct mem *m, uint64_t frame, bool write, unsigned pins, bool wait)
{
	for (unsigned turn = 0;;) {
		uint64_t word = atomic_load(&m->frames[frame]);

		if (word & FRAME_LOCKED) {
			if (!wait && turn > TURNS_MAX)
				return false;
			wait_turn(turn++);
		} else if (word & FRAME_PRESENT) {
			if (use_present(m, frame, word, write, pins))
				break;
		} else if (word & FRAME_SWAPPED) {
			if (!wait && is_far(m, frame_slot(word)))
				return false;
			if (atomic_compare_exchange_weak(&m->frames[frame], &word,
							 word | FRAME_LOCKED)) {
				swap_in(m, frame, write, pins);
				break;
			}
		} else {
			uint64_t now =
				used_word(m, word & ~(FRAME_ZERO | FRAME_BALLOON), write, pins);
			if (atomic_compare_exchange_weak(&m->frames[frame], &word, now)) {
				touched(m, frame, word, now);
				break;
			}
		}
	}
	trace(m, frame, write);
	return true;
}

void frame_unpin(struct mem *m, uint64_t frame)
{
	uint64_t word = atomic_load(&m->frames[frame]);

	do {
		if (frame_pins(word) == PINS_MAX || !frame_pins(word))
			return;
	} while (!atomic_compare_exchange_weak(&m->frames[frame], &word, word - FRAME_PIN_ONE));
}

bool frame_moved(void *opaque, uint32_t frame, uint64_t old, uint64_t slot)
{
	struct mem *m = opaque;
	uint64_t word = frame < m->pages ? atomic_load(&m->frames[frame]) : 0;

	do {
		/* Whoever has it locked may be loading by the old slot. */
		if (frame_slot(word) != old || (word & FRAME_LOCKED))
			return false;
	} while (!atomic_compare_exchange_weak(&m->frames[frame], &word,
					       (word & ~FRAME_SLOT) | slot << FRAME_SLOT_SHIFT));
	return true;
}

/* ---- looking on ---- */

const char *const mem_state_names[MEM_STATE_NR] = {
	[MEM_STATE_NONE] = "none",	 [MEM_STATE_PRESENT] = "present", [MEM_STATE_ZERO] = "zero",
	[MEM_STATE_SWAPPED] = "swapped", [MEM_STATE_BALLOON] = "balloon",
};

const char *const mem_event_names[MEM_EVENT_NR] = {
	[MEM_EVENT_FIRST_TOUCH] = "first-touch", [MEM_EVENT_ZERO_IN] = "zero-in",
	[MEM_EVENT_BALLOON_IN] = "balloon-in",	 [MEM_EVENT_SWAP_IN] = "swap-in",
	[MEM_EVENT_RESCUE] = "rescue",
};

static enum mem_state state_of(uint64_t word)
{
	if (word & FRAME_PRESENT)
		return MEM_STATE_PRESENT;
	if (word & FRAME_SWAPPED)
		return MEM_STATE_SWAPPED;
	if (word & FRAME_ZERO)
		return MEM_STATE_ZERO;
	return word & FRAME_BALLOON ? MEM_STATE_BALLOON : MEM_STATE_NONE;
}

void frame_describe(struct mem *m, uint64_t frame, struct mem_frame *f)
{
	uint64_t word = atomic_load(&m->frames[frame]);
	uint64_t age = (atomic_load(&m->gen_now) - (word & FRAME_GEN)) & FRAME_GEN;

	*f = (struct mem_frame){
		.state = state_of(word),
		.dirty = (word & FRAME_PRESENT) && (word & FRAME_DIRTY),
		.logged = word & FRAME_LOGGED,
		.leaving = word & FRAME_LEAVING,
		.pins = frame_pins(word),
		.age = (unsigned)(age >> FRAME_GEN_SHIFT),
		.slot = frame_slot(word),
		.host = frame_host(m, frame),
	};
	f->on_file = f->slot && m->swap && swap_on_file(m->swap, f->slot);
}

void mem_set_watcher(struct mem *m,
		     void (*fn)(void *opaque, enum mem_event event, uint64_t gpa, uint64_t slot,
				uint64_t ns),
		     void *opaque)
{
	if (fn)
		m->watcher.opaque = opaque;
	atomic_store_explicit(&m->watcher.fn, fn, memory_order_release);
}

void mem_set_tracer(struct mem *m, unsigned period_ms,
		    void (*fn)(void *opaque, uint64_t gpa, bool write), void *opaque)
{
	if (fn)
		m->tracer.opaque = opaque;
	atomic_store(&m->tracer.period_ms, period_ms);
	atomic_store_explicit(&m->tracer.fn, fn, memory_order_release);
	reclaim_wake(m);
}

static void count_frames(struct mem *m, struct mem_stats *s)
{
	for (uint64_t f = 0; f < m->pages; f++) {
		uint64_t word = atomic_load_explicit(&m->frames[f], memory_order_relaxed);
		s->pages[state_of(word)]++;
		s->pinned_pages += frame_pins(word) != 0;
	}
}

/* Present pages of the generations that began within the last minute. */
static uint64_t working_set(struct mem *m)
{
	uint64_t now = clock_ns(), pages = 0;
	unsigned gen = frame_gen(atomic_load(&m->gen_now));

	for (unsigned n = 0; n < GENS; n++, gen = (gen - 1) % GENS) {
		int64_t p = atomic_load_explicit(&m->gen_pages[gen], memory_order_relaxed);
		pages += p > 0 ? (uint64_t)p : 0;
		if (now - atomic_load(&m->gen_times_ns[gen]) > 60 * UINT64_C(1000000000))
			break;
	}
	return pages;
}

void mem_get_stats(struct mem *m, struct mem_stats *s, bool full)
{
	uint64_t limit = atomic_load(&m->limit_pages);
	struct swap_stats w = {0};

	if (m->swap)
		swap_stats(m->swap, &w);
	*s = (struct mem_stats){
		.ram_pages = m->pages,
		.limit_bytes = limit == UINT64_MAX ? 0 : limit << MEM_PAGE_SHIFT,
		.swap_memory_bytes = w.memory_bytes,
		.swap_file_bytes = w.file_bytes,
		.swap_compressed_bytes = w.compressed_bytes,
		.stored_pages = w.live_pages,
		.ksm_pages = share_pages(m),
		.working_set_pages = working_set(m),
		.first_touches = m->count.first_touches,
		.zero_ins = m->count.zero_ins,
		.swap_ins = m->count.swap_ins,
		.read_aheads = m->count.read_aheads,
		.read_aheads_used = m->count.read_aheads_used,
		.rescues = m->count.rescues,
		.evicted_clean = m->count.evicted_clean,
		.evicted_zero = m->count.evicted_zero,
		.evicted_stored = m->count.evicted_stored,
		.discarded = m->count.discarded,
		.swap_reads = w.reads,
		.swap_writes = w.writes,
		.waits = m->count.waits,
		.wait_ns = m->count.wait_ns,
	};
	if (full)
		count_frames(m, s);
	else
		s->pages[MEM_STATE_PRESENT] = atomic_load(&m->present);
	s->used_bytes = (s->pages[MEM_STATE_PRESENT] << MEM_PAGE_SHIFT) + w.memory_bytes;
}
