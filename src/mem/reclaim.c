/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory thread: it takes pages out of host memory when the machine has more than it may, and gives
 * back those the guest does not want.
 *
 *   frames, by age          the memory thread                     vCPUs, devices
 *   ------------------      -----------------------------------   -------------------------------
 *   old, not pinned    ──>  LEAVING
 *                           ask: forget addresses of LEAVING ──>  at the next boundary: drop them
 *                           <── all have                          who needs the page: takes it back
 *   still LEAVING      ──>  LOCKED                                who needs the page: waits
 *                           zero? drop.  clean? drop.
 *                           else compress it into the store
 *                           give it back to the host
 *                           SWAPPED, ZERO or nothing              who needs the page: loads it
 *
 * Nothing here needs a privilege or a kernel feature: a software engine reaches memory by its TLBs
 * only, and they ask mem_page. (An engine over /dev/kvm would have the host's kernel forget, and be
 * told of misses by userfaultfd; `ask` is then its place to write-protect.)
 *
 * Which pages are old. Time is parted into generations. A page that is asked for (a TLB miss, a pin)
 * is stamped with the current one. When a generation begins all TLBs are emptied, so that a page in
 * use is asked for again. One begins after an eighth of the pages present has left, or after five
 * seconds. Victims come from the oldest generations, in the order of their addresses, which keeps
 * neighbours together in the store and in madvise calls. So eight generations span the pages
 * present, and victims are among the least recently used eighth.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/tsan.h"
#include "mem/mem_internal.h"
#include "mem/swap.h"

enum {
	BATCH = 512,	    /* victims an ask */
	GEN_PARTS = 8,	    /* of the pages present, a generation */
	PAGES_MIN = 64,	    /* the least a generation or a margin is */
	SCAN_MAX = 1 << 16, /* frames looked at for a batch before the threshold is taken anew */
	FALLOW_SCANS = 64,  /* so many searches in vain: nothing can leave */
	HUGE_CHUNK = 512,
	REST_LOOKS = 3,
	IDLE_PERCENT = 3, /* of a processor */
};
#define SECOND UINT64_C(1000000000)
#define GEN_NS (5 * SECOND)
#define GEN_MIN_NS (SECOND / 100)
#define REST_NS (10 * SECOND)

const char *const mem_policy_names[MEM_POLICY_NR] = {
	[MEM_POLICY_GEN] = "gen",
	[MEM_POLICY_FIFO] = "fifo",
};

/* ---- asking ---- */

void mem_set_engine(struct mem *m, const struct mem_engine *e)
{
	m->engine = e ? *e : (struct mem_engine){0};
	/* From here on the guest's processors access it at once, in whatever order the guest likes. */
	if (e)
		tsan_may_race(m->base, m->ram, "guest memory");
}

/* Has the thread look at everything once more. */
static void kick(struct mem *m)
{
	pthread_mutex_lock(&m->lock);
	m->kicked = true;
	pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->lock);
}

void reclaim_wake(struct mem *m)
{
	if (atomic_load(&m->asleep))
		kick(m);
}

static void tell_trouble(void *opaque, const char *text)
{
	struct mem *m = opaque;

	if (m->config.trouble)
		m->config.trouble(m->config.opaque, text);
}

/* ---- generations ---- */

/* Stamps a present page, whose word it was, with another generation, unless it has changed meanwhile. */
static void stamp(struct mem *m, uint64_t frame, uint64_t word, uint64_t gen)
{
	uint64_t now = (word & ~FRAME_GEN) | (gen & FRAME_GEN);

	if (atomic_compare_exchange_strong(&m->frames[frame], &word, now)) {
		atomic_fetch_sub(&m->gen_pages[frame_gen(word)], 1);
		atomic_fetch_add(&m->gen_pages[frame_gen(now)], 1);
	}
}

/* Frames still stamped with the value that is about to be used anew become one younger. */
static void restamp(struct mem *m, unsigned gen)
{
	uint64_t one = UINT64_C(1) << FRAME_GEN_SHIFT;

	for (uint64_t f = 0; f < m->pages; f++) {
		uint64_t word = atomic_load_explicit(&m->frames[f], memory_order_relaxed);
		if ((word & FRAME_PRESENT) && frame_gen(word) == gen)
			stamp(m, f, word, word + one);
	}
}

static void next_generation(struct mem *m)
{
	uint64_t now = clock_ns();
	unsigned gen = (frame_gen(atomic_load(&m->gen_now)) + 1) % GENS;

	if (atomic_load(&m->gen_pages[gen]) > 0)
		restamp(m, gen);
	atomic_store(&m->gen_times_ns[gen], now);
	m->gen_began_ns = now;
	m->evicted_in_gen = 0;
	atomic_store(&m->gen_now, (uint64_t)gen << FRAME_GEN_SHIFT);
	if (m->fast_gen)
		mem_ask(m, MEM_ASK_ALL);
}

static uint64_t gen_size(const struct mem *m)
{
	uint64_t size = atomic_load(&m->present) / GEN_PARTS;

	return size > PAGES_MIN ? size : PAGES_MIN;
}

static uint64_t process_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* A machine that has done next to nothing for half a minute gives up what can be made again, once each time. */
static void see_to_rest(struct mem *m)
{
	uint64_t now = clock_ns(), ns = now - m->rest.ns;

	if (ns < REST_NS)
		return;
	uint64_t cpu = process_cpu_ns(), used = cpu - m->rest.cpu_ns;
	m->rest.ns = now;
	m->rest.cpu_ns = cpu;
	m->rest.idle = used < ns / 100 * IDLE_PERCENT ? m->rest.idle + 1 : 0;
	if (m->rest.idle == REST_LOOKS)
		mem_ask(m, MEM_ASK_TRIM);
}

static void see_to_generation(struct mem *m)
{
	uint64_t age = clock_ns() - m->gen_began_ns;

	if (age >= GEN_NS || (age >= GEN_MIN_NS && m->evicted_in_gen >= gen_size(m)))
		next_generation(m);
}

/*
 * How old (in generations) a page has to be to be among the oldest `want`; at least 1, so that what is in
 * use now stays, unless everything is.
 */
static unsigned age_of_oldest(struct mem *m, uint64_t want)
{
	unsigned now = frame_gen(atomic_load(&m->gen_now));
	uint64_t found = 0;

	for (unsigned age = GENS - 1; age > 0; age--) {
		int64_t n = atomic_load(&m->gen_pages[(now - age) % GENS]);
		found += n > 0 ? (uint64_t)n : 0;
		if (found >= want)
			return age;
	}
	return found ? 1 : 0;
}

/* ---- choosing ---- */

struct victims {
	unsigned count;
	uint64_t frame[BATCH];
};

static bool choose(struct mem *m, uint64_t frame, unsigned least_age)
{
	uint64_t word = atomic_load_explicit(&m->frames[frame], memory_order_relaxed);
	uint64_t gen = atomic_load_explicit(&m->gen_now, memory_order_relaxed);
	unsigned age = (unsigned)(((gen - (word & FRAME_GEN)) & FRAME_GEN) >> FRAME_GEN_SHIFT);

	if (!(word & FRAME_PRESENT) || (word & FRAME_LOCKED) || age < least_age)
		return false;
	if (word & FRAME_PINS) {
		/* It does not leave; it counts as used, so that it is not looked at again soon. */
		stamp(m, frame, word, atomic_load(&m->gen_now));
		return false;
	}
	return atomic_compare_exchange_strong(&m->frames[frame], &word, word | FRAME_LEAVING);
}

static void find_victims(struct mem *m, struct victims *v, unsigned want)
{
	uint64_t present = atomic_load(&m->present);
	unsigned least = age_of_oldest(m, want < present ? want : present);

	v->count = 0;
	for (unsigned n = 0; n < SCAN_MAX && v->count < want; n++) {
		if (m->hand >= m->pages)
			m->hand = 0;
		if (choose(m, m->hand, least))
			v->frame[v->count++] = m->hand;
		m->hand++;
	}
}

/* ---- the limit ---- */

static uint64_t used_pages(struct mem *m)
{
	struct swap_stats w = {0};

	swap_stats(m->swap, &w);
	return atomic_load(&m->present) + w.memory_bytes / MEM_PAGE_BYTES;
}

static uint64_t margin_of(uint64_t limit)
{
	uint64_t margin = limit / 64;

	return margin > PAGES_MIN ? margin : PAGES_MIN;
}

/* Notes from how many pages on there is work, and from how many on vCPUs wait. */
static void set_marks(struct mem *m, bool may_wait)
{
	uint64_t limit = atomic_load(&m->limit_pages);

	if (limit == UINT64_MAX) {
		atomic_store(&m->wake_pages, UINT64_MAX);
		atomic_store(&m->crowded, false);
		return;
	}
	uint64_t used = used_pages(m), present = atomic_load(&m->present);
	uint64_t pool = used > present ? used - present : 0;
	uint64_t low = limit > margin_of(limit) ? limit - margin_of(limit) : 0;
	atomic_store(&m->wake_pages, low > pool ? low - pool : 0);
	atomic_store(&m->crowded, may_wait && used > limit + margin_of(limit) / 2);
}

static void let_go(struct mem *m)
{
	pthread_mutex_lock(&m->lock);
	pthread_cond_broadcast(&m->room);
	pthread_mutex_unlock(&m->lock);
}

static void cannot(struct mem *m, bool full)
{
	unsigned long long limit = atomic_load(&m->limit_pages) >> 8;
	unsigned long long present = atomic_load(&m->present) >> 8;
	char text[256];

	if (m->stuck)
		return;
	m->stuck = true;
	if (full)
		snprintf(
			text, sizeof(text),
			"the memory limit of %llu MiB is reached and the swap store is full: the guest "
			"waits; raise the limit, or give it a swap file with more room (--swap)",
			limit);
	else
		snprintf(
			text, sizeof(text),
			"the memory limit of %llu MiB cannot be kept: devices and the guest's working "
			"pages hold %llu MiB; raise the limit",
			limit, present);
	tell_trouble(m, text);
}

/* Evicts until the machine is below its limit by the margin. */
static void keep_limit(struct mem *m)
{
	struct victims v;
	unsigned fallow = 0;

	while (!atomic_load(&m->stopping)) {
		uint64_t limit = atomic_load(&m->limit_pages);
		uint64_t used = limit == UINT64_MAX ? 0 : used_pages(m);
		uint64_t low = limit > 2 * margin_of(limit) ? limit - 2 * margin_of(limit) : 0;
		if (limit == UINT64_MAX || used <= low || !atomic_load(&m->present))
			break;
		bool full = false;
		uint64_t want = used - low;
		see_to_generation(m);
		if (!age_of_oldest(m, 1))
			next_generation(m); /* all is young: see what is used from here on */
		find_victims(m, &v, want < BATCH ? (unsigned)want : BATCH);
		unsigned gone = v.count ? evict_pages(m, v.frame, v.count, &full) : 0;
		m->evicted_in_gen += gone;
		set_marks(m, gone || !m->unwaited);
		if (atomic_load(&m->crowded) == false)
			let_go(m);
		fallow = gone ? 0 : fallow + 1;
		if (full || fallow > FALLOW_SCANS + m->pages / SCAN_MAX) {
			/* A full store: the guest waits for room. All pinned: it may go on. */
			m->unwaited = !full;
			set_marks(m, full);
			cannot(m, full);
			return;
		}
	}
	m->unwaited = false;
	if (m->stuck) {
		m->stuck = false;
		tell_trouble(m, "");
	}
	set_marks(m, true);
}

/* How much of the limit may hold compressed pages. */
static uint64_t store_bytes(const struct mem *m, uint64_t limit_bytes)
{
	return (limit_bytes ? limit_bytes : m->ram) / 2;
}

void mem_set_limit(struct mem *m, uint64_t limit_bytes)
{
	uint64_t pages = limit_bytes >> MEM_PAGE_SHIFT;

	atomic_store(&m->limit_pages, limit_bytes ? (pages ? pages : 1) : UINT64_MAX);
	if (m->swap)
		swap_set_memory(m->swap, store_bytes(m, limit_bytes));
	kick(m);
}

/*
 * Huge pages bring in memory that nobody has asked for, which no frame counts. So from the first limit on
 * there are none; what they brought in is given back, page by page, where nothing is. A vCPU that is just bringing
 * one in may be late; that one stays as it is.
 */
static void give_up_huge_pages(struct mem *m)
{
	uint64_t run[HUGE_CHUNK];

	atomic_store(&m->huge, false);
	madvise(m->base, m->ram, MADV_NOHUGEPAGE);
	for (uint64_t at = 0; at < m->pages; at += HUGE_CHUNK) {
		unsigned n = 0;
		for (uint64_t f = at; f < m->pages && f < at + HUGE_CHUNK; f++) {
			uint64_t word = atomic_load(&m->frames[f]);
			if (!(word & (FRAME_PRESENT | FRAME_SWAPPED | FRAME_LOCKED)) &&
			    atomic_compare_exchange_strong(&m->frames[f], &word,
							   word | FRAME_LOCKED))
				run[n++] = f;
		}
		evict_give_back(m, run, n);
		for (unsigned k = 0; k < n; k++)
			evict_settle(m, run[k]);
	}
}

/* ---- waiting for room ---- */

static void in_ms(struct timespec *t, unsigned ms)
{
	clock_gettime(CLOCK_REALTIME, t);
	t->tv_nsec += (long)ms % 1000 * 1000000;
	t->tv_sec += ms / 1000 + t->tv_nsec / 1000000000;
	t->tv_nsec %= 1000000000;
}

bool mem_has_limit(const struct mem *m)
{
	return !atomic_load(&m->huge) || atomic_load(&m->limit_pages) != UINT64_MAX;
}

bool mem_is_crowded(const struct mem *m)
{
	return atomic_load_explicit(&m->crowded, memory_order_relaxed);
}

void mem_wait_for_room(struct mem *m)
{
	uint64_t began = clock_ns();
	struct timespec until;

	in_ms(&until, 20);
	pthread_mutex_lock(&m->lock);
	if (atomic_load(&m->crowded) && !atomic_load(&m->stopping)) {
		m->kicked = true;
		pthread_cond_signal(&m->wake);
		pthread_cond_timedwait(&m->room, &m->lock, &until);
	}
	pthread_mutex_unlock(&m->lock);
	atomic_fetch_add(&m->count.waits, 1);
	atomic_fetch_add(&m->count.wait_ns, clock_ns() - began);
}

/* ---- the thread ---- */

/* Sleeps until there is something to do. The lock is held. */
static void wait_for_work(struct mem *m)
{
	struct timespec until;
	unsigned period = atomic_load(&m->tracer.fn) ? atomic_load(&m->tracer.period_ms) : 0;

	atomic_store(&m->asleep, true);
	if (!m->stress && !m->kicked && !m->discards && !m->log_sync && !m->wanted.count &&
	    !m->asked.count && !atomic_load(&m->stopping) &&
	    (m->stuck || atomic_load(&m->present) < atomic_load(&m->wake_pages))) {
		in_ms(&until, period ? period : 1000);
		pthread_cond_timedwait(&m->wake, &m->lock, &until);
	}
	m->kicked = false;
	atomic_store(&m->asleep, false);
}

static struct discard *take_discards(struct mem *m)
{
	struct discard *d = m->discards;

	m->discards = NULL;
	m->discards_end = &m->discards;
	return d;
}

static void *memory_thread(void *opaque)
{
	struct mem *m = opaque;

	for (;;) {
		pthread_mutex_lock(&m->lock);
		wait_for_work(m);
		struct discard *d = take_discards(m);
		bool log = m->log_sync;
		bool stop = atomic_load(&m->stopping);
		pthread_mutex_unlock(&m->lock);

		while (d) {
			struct discard *next = d->next;
			discard_carry_out(m, d);
			d = next;
		}
		if (log) {
			mem_ask(m, MEM_ASK_WRITES);
			pthread_mutex_lock(&m->lock);
			m->log_sync = false;
			pthread_cond_broadcast(&m->log_synced);
			pthread_mutex_unlock(&m->lock);
		}
		if (stop)
			return NULL;
		if (atomic_load(&m->huge) && atomic_load(&m->limit_pages) != UINT64_MAX)
			give_up_huge_pages(m);
		ram_make_asked(m);
		if (m->chunks)
			ram_make_huge(m);
		if (atomic_load(&m->tracer.fn))
			mem_ask(m, MEM_ASK_ALL);
		see_to_generation(m);
		see_to_rest(m);
		keep_limit(m);
		let_go(m);
		if (m->stress)
			mem_stress_turn(m);
	}
}

/* The store and its thread, and the memory thread. */
static int start(struct mem *m, struct error *err)
{
	const struct mem_config *c = &m->config;
	struct swap_config sc = {
		.dir = c->swap_dir,
		.memory_bytes = store_bytes(m, c->limit_bytes),
		.file_bytes = c->swap_dir ? (c->swap_bytes ? c->swap_bytes : 2 * m->ram) : 0,
		.moved = frame_moved,
		.trouble = tell_trouble,
		.opaque = m,
	};
	int r = mem_stress_init(m, err);
	if (r == 0)
		r = swap_create(&m->swap, &sc, err);

	if (r < 0)
		return r;
	r = pthread_create(&m->thread, NULL, memory_thread, m);
	if (r)
		return error_set(err, -r, "guest memory: starting its thread: %s", strerror(r));
	m->started = true;
	pthread_setname_np(m->thread, "memory");
	return 0;
}

int mem_start(struct mem *m, const struct mem_config *c, struct error *err)
{
	sigset_t all, old;

	m->config = *c;
	m->fast_gen = c->policy == MEM_POLICY_FIFO ? 0 : FRAME_GEN;
	m->gen_began_ns = clock_ns();
	for (unsigned n = 0; n < GENS; n++)
		atomic_store(&m->gen_times_ns[n], n ? 0 : m->gen_began_ns);
	if (c->limit_bytes) {
		mem_set_limit(m, c->limit_bytes);
		give_up_huge_pages(m);
	}
	share_start(m);
	/* Signals are for others, but for those that a fault of the thread's own raises. */
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = start(m, err);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	m->config.swap_dir = NULL; /* the caller's */
	return r;
}

void mem_stop(struct mem *m)
{
	if (!m->started)
		return;
	pthread_mutex_lock(&m->lock);
	atomic_store(&m->stopping, true);
	pthread_cond_broadcast(&m->wake);
	pthread_cond_broadcast(&m->room);
	pthread_cond_broadcast(&m->log_synced);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->thread, NULL);
	m->started = false;
}
