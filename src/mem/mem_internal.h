/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_INTERNAL_H
#define HANOK_MEM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "mem/mem.h"

#define RAM_MAX (UINT64_C(1) << 39) /* bytes */

/*
 * A frame is one word, changed by compare-and-swap. Its state:
 *
 *   (0)                 nothing here: reads as zero
 *   ZERO, BALLOON       the same, and how it came to be so
 *   PRESENT             in host memory, at its place in the mapping
 *   PRESENT | LEAVING   chosen by the memory thread; whoever asks for the page takes it back
 *   SWAPPED             in the swap store, at `slot`
 *   any | LOCKED        on its way, by the thread that set it: others wait. Nobody waits for
 *                       anything but the disk while holding a frame locked
 *
 * DIRTY: it has been written since it came in. A present page that is not dirty is equal to its
 * copy at `slot`, or zero where slot is 0. LOGGED: written since the last clearing of the log.
 * A page with pins does not leave. GEN: the generation it was last seen used in.
 */
#define FRAME_PRESENT UINT64_C(1)
#define FRAME_LOCKED UINT64_C(2)
#define FRAME_LEAVING UINT64_C(4)
#define FRAME_DISCARD UINT64_C(8) /* with LEAVING: its contents are not wanted */
#define FRAME_DIRTY UINT64_C(0x10)
#define FRAME_LOGGED UINT64_C(0x20)
#define FRAME_SWAPPED UINT64_C(0x40)
#define FRAME_ZERO UINT64_C(0x80)
#define FRAME_BALLOON UINT64_C(0x100)
#define FRAME_AHEAD UINT64_C(0x200) /* read ahead, and not asked for since */

enum {
	FRAME_GEN_SHIFT = 10,
	FRAME_PIN_SHIFT = 18,
	FRAME_SLOT_SHIFT = 28,
	PINS_MAX = 1023,
	GENS = 256
};
#define FRAME_GEN (UINT64_C(0xff) << FRAME_GEN_SHIFT)
#define FRAME_PIN_ONE (UINT64_C(1) << FRAME_PIN_SHIFT)
#define FRAME_PINS ((uint64_t)PINS_MAX << FRAME_PIN_SHIFT)
#define FRAME_SLOT (~UINT64_C(0) << FRAME_SLOT_SHIFT)

enum { ROM_MAX = 16 };
struct rom {
	uint64_t gpa, len;
	uint8_t *data;
};

/* A request to give pages back. */
struct discard {
	struct discard *next;
	bool balloon;
	void (*done)(void *opaque);
	void *opaque;
	unsigned count;
	struct mem_range range[];
};

/* What memory that is a file's comes in, as long as there is no limit. */
enum {
	RAM_RUN_BYTES = 64 << 10,
	RAM_RUN_PAGES = RAM_RUN_BYTES / MEM_PAGE_BYTES,
	RAM_CHUNK_BYTES = 2 << 20,
	RAM_CHUNK_PAGES = RAM_CHUNK_BYTES / MEM_PAGE_BYTES,
	RAM_WANTED_MAX = 256, /* chunks the memory thread is asked for at a time */
	MEM_ASKED_MAX = 16,   /* and huge pages that are not RAM's */
};
enum ram_chunk {
	RAM_SMALL,   /* small pages, or none */
	RAM_WANTED,  /* the memory thread is asked to make it a huge page */
	RAM_HUGE,    /* one */
	RAM_REFUSED, /* the host has none, or a page of it is in the balloon */
};

struct swap;

struct mem {
	void (*listener)(void *opaque, uint64_t gpa, uint64_t len);
	void *listener_opaque;
	uint8_t *base;
	uint64_t ram, low, high;
	int file; /* that RAM is; -1: it is private */
	unsigned roms;
	struct rom rom[ROM_MAX];
	uint64_t rom_first, rom_end; /* all ROMs lie in [first, end) */

	/* ---- frames (frame.c) ---- */
	_Atomic uint64_t *frames; /* one a page of RAM, in the order of the mapping */
	uint64_t pages;
	_Atomic uint64_t gen_now; /* FRAME_GEN's field, in place */
	uint64_t fast_gen;	  /* FRAME_GEN, or 0 where the policy does not look at uses */
	_Atomic uint64_t present; /* pages */
	/* Where RAM is a file's, else NULL: pages of each run, and an enum ram_chunk for each chunk. */
	_Atomic uint8_t *runs, *chunks;
	_Atomic bool huge; /* host memory comes in huge pages: there never was a limit */
	_Atomic int64_t gen_pages[GENS]; /* present pages by generation */
	struct swap *swap;		 /* NULL: the manager was not started */
	_Atomic unsigned ahead;		 /* pages to read ahead (frame.c) */
	_Atomic int ahead_worth;	 /* goes up with pages that were of use, down with others */
	_Atomic unsigned loads; /* from the file, without reading ahead, since it was tried */
	struct mem_engine engine;
	struct {
		void (*_Atomic fn)(void *opaque, enum mem_event event, uint64_t gpa, uint64_t slot,
				   uint64_t ns);
		void *opaque;
	} watcher;
	struct {
		void (*_Atomic fn)(void *opaque, uint64_t gpa, bool write);
		void *opaque;
		_Atomic unsigned period_ms;
	} tracer;
	struct {
		_Atomic uint64_t first_touches, zero_ins, swap_ins, rescues;
		_Atomic uint64_t read_aheads, read_aheads_used;
		_Atomic uint64_t evicted_clean, evicted_zero, evicted_stored, discarded;
		_Atomic uint64_t waits, wait_ns;
	} count;

	/* ---- the memory thread (reclaim.c) ---- */
	struct mem_config config;
	pthread_t thread;
	bool started; /* the thread is there */
	_Atomic bool stopping;
	_Atomic bool asleep; /* it waits to be woken */
	_Atomic bool crowded;
	_Atomic uint64_t limit_pages; /* UINT64_MAX: none */
	_Atomic uint64_t wake_pages;  /* present pages from which on it has work */
	pthread_mutex_t lock;	      /* of what follows; the last in any order */
	pthread_cond_t wake;	      /* to the thread */
	pthread_cond_t room;	      /* from the thread to waiting vCPUs */
	struct discard *discards, **discards_end;
	struct {
		unsigned count;
		uint64_t chunk[RAM_WANTED_MAX];
	} wanted; /* huge pages (ram.c) */
	struct {
		unsigned count;
		void *at[MEM_ASKED_MAX];
	} asked; /* those of others' memory */
	bool kicked;
	bool log_sync; /* somebody waits for MEM_ASK_WRITES */
	pthread_cond_t log_synced;
	/* The thread's own. */
	uint64_t hand; /* where the search for victims goes on */
	uint64_t evicted_in_gen;
	uint64_t gen_began_ns;
	_Atomic uint64_t gen_times_ns[GENS]; /* when each generation began */
	bool stuck;			     /* said that nothing can leave */
	bool unwaited;			     /* all is pinned: vCPUs do not wait for room */
	struct {
		uint64_t ns,
			cpu_ns; /* when it was last looked at, and the processor time until then */
		unsigned idle;	/* looks in a row that found it idle */
	} rest;
	bool stress; /* stress.c */
	uint64_t lots;
};

static inline uint64_t frame_gpa(const struct mem *m, uint64_t frame)
{
	uint64_t offset = frame << MEM_PAGE_SHIFT;

	return offset < m->low ? offset : offset - m->low + MEM_HIGH_BASE;
}

static inline unsigned frame_gen(uint64_t word)
{
	return (word & FRAME_GEN) >> FRAME_GEN_SHIFT;
}

static inline unsigned frame_pins(uint64_t word)
{
	return (word & FRAME_PINS) >> FRAME_PIN_SHIFT;
}

static inline uint64_t frame_slot(uint64_t word)
{
	return word >> FRAME_SLOT_SHIFT;
}

static inline uint8_t *frame_host(const struct mem *m, uint64_t frame)
{
	return m->base + (frame << MEM_PAGE_SHIFT);
}

/* ---- ram.c ---- */

/* m->ram is set, m->file is -1. What it has made goes by ram_unmap, after a failure, too. */
int ram_map(struct mem *m, bool shared, struct error *err);
void ram_unmap(struct mem *m);
/* The first page of a run is about to be used: asks the host for all of it, and the memory thread for all of the
 * chunk. Any thread; of memory that is a file's. */
void ram_bring_in(struct mem *m, uint64_t frame);
/* The memory thread: makes huge pages of the chunks that are wanted. */
void ram_make_huge(struct mem *m);
/* The same of others' memory (mem_ask_huge). */
void ram_make_asked(struct mem *m);
/* Gives the host memory of frames back. They read as zero from then on. */
void ram_give_back(struct mem *m, uint64_t first, uint64_t count);

/* ---- frame.c ---- */

int frames_create(struct mem *m, struct error *err);
void frames_destroy(struct mem *m);
/* A page that was read ahead: has it been of use? */
void frame_ahead(struct mem *m, bool used);
/* Brings the page in and notes its use; pins: how often it is pinned besides (PINS_MAX: for good). False, with
 * nothing done: it would have to be waited for, and `wait` is not set. */
bool frame_get_slow(struct mem *m, uint64_t frame, bool write, unsigned pins, bool wait);
void frame_unpin(struct mem *m, uint64_t frame);
void frame_describe(struct mem *m, uint64_t frame, struct mem_frame *f);

/* For mem_page: false where the page is away. */
static inline bool frame_get(struct mem *m, uint64_t frame, bool write)
{
	const uint64_t fixed = FRAME_PRESENT | FRAME_LOCKED | FRAME_LEAVING |
			       (write ? FRAME_DIRTY | FRAME_LOGGED : 0);
	uint64_t word = atomic_load_explicit(&m->frames[frame], memory_order_acquire);
	uint64_t want = FRAME_PRESENT | (write ? FRAME_DIRTY | FRAME_LOGGED : 0);
	uint64_t gen = atomic_load_explicit(&m->gen_now, memory_order_relaxed);

	/* A tracer is told of each page that is asked for, those of this generation too. */
	if (__builtin_expect(((word ^ want) & fixed) || ((word ^ gen) & m->fast_gen) ||
				     atomic_load_explicit(&m->tracer.fn, memory_order_relaxed),
			     0))
		return frame_get_slow(m, frame, write, 0, false);
	return true;
}

/* ---- evict.c: the memory thread ---- */

/*
 * Evicts n pages that are marked LEAVING, in the order of their addresses best: asks the engine, then does
 * what is left of them. Returns how many have left; *full is set when the store took no more, and then
 * those that would have to go there stay.
 */
unsigned evict_pages(struct mem *m, const uint64_t *frame, unsigned n, bool *full);
/* Gives the host memory of locked frames back, and unlocks one. */
void evict_give_back(struct mem *m, const uint64_t *frame, unsigned n);
void evict_settle(struct mem *m, uint64_t frame);

/* ---- discard.c: the memory thread, or who asks where there is none ---- */

void discard_carry_out(struct mem *m, struct discard *d);

/* ---- stress.c ---- */

/* HANOK_MEM_STRESS. 0 or -EINVAL. */
int mem_stress_init(struct mem *m, struct error *err);
/* A turn of it, on the memory thread. */
void mem_stress_turn(struct mem *m);

/* ---- reclaim.c ---- */

static inline void mem_ask(struct mem *m, unsigned what)
{
	if (m->engine.ask)
		m->engine.ask(m->engine.opaque, what);
}

/* There may be work for the memory thread. Any thread. */
void reclaim_wake(struct mem *m);
/* struct swap_config's callback: an object has moved. */
bool frame_moved(void *opaque, uint32_t frame, uint64_t old, uint64_t slot);

/* ---- share.c ---- */

/* Offers the guest's RAM to the host's KSM, if config says so, and says how that went. */
void share_start(struct mem *m);
/* Pages of this process that KSM holds in common; 0 where it was not offered any. */
uint64_t share_pages(const struct mem *m);

#endif
