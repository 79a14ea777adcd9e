/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_MEM_H
#define HANOK_MEM_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Guest-physical memory: RAM in one mapping of this process, laid out as a PC has it:
 * RAM from 0 up to MEM_LOW_MAX, a hole for devices up to 4 GiB, the rest of RAM from 4 GiB on.
 * Read-only memory (firmware images) may be laid over the hole or over low RAM.
 *
 * Every page of RAM has a frame, which tells where its contents are: nowhere yet, in host memory,
 * or in the swap store. Pages are brought in when they are asked for, and may leave when memory is short
 * (reclaim.c begins with how). So there are three ways to a page, and no other:
 *
 *   mem_read, mem_write   copies; any thread
 *   mem_pin, mem_unpin    a host address that stays good meanwhile, for DMA; any thread
 *   mem_page              a host address for a vCPU's TLB; the vCPU's thread, and good until the
 *                         engine has answered the next mem_engine.ask
 *
 * Guest data never asserts: every accessor checks its range and returns -EFAULT.
 */
enum { MEM_PAGE_BYTES = 4096, MEM_PAGE_SHIFT = 12 };
#define MEM_LOW_MAX UINT64_C(0xc0000000) /* RAM below 4 GiB ends here at the latest */
#define MEM_HIGH_BASE UINT64_C(0x100000000)

struct mem;

/* ram_bytes is a multiple of 1 MiB, at least 1 MiB. Host memory is taken on first touch. */
int mem_create(struct mem **out, uint64_t ram_bytes, struct error *err);
/* The same, RAM being a file's (memfd), so that its pages can be mapped a second time; private as mem_create's
 * where there is no such file to be had. Equal pages of it are not shared (struct mem_config). */
int mem_create_shared(struct mem **out, uint64_t ram_bytes, struct error *err);
/* When no other thread uses it any more. NULL is allowed. */
void mem_destroy(struct mem *m);

uint64_t mem_ram_bytes(const struct mem *m);
/* Bytes of RAM below the hole and from 4 GiB on. */
uint64_t mem_low_bytes(const struct mem *m);
uint64_t mem_high_bytes(const struct mem *m);
/* Bytes of guest RAM that the host holds now (asked of the host's kernel, page by page). */
uint64_t mem_resident_bytes(const struct mem *m);

/* Has the memory thread ask the host for a huge page at `at`, where 2 MiB of the caller's begin that are shared
 * memory: for those that will be needed soon, as it takes a while. It is a hint, dropped where too much is
 * asked; who needs them asks himself then. They stay mapped until mem_stop(). Any thread. */
void mem_ask_huge(struct mem *m, void *at);

/* The file that RAM is, and where in it a host address of mem_page's lies; -1: it is not a file's. The file
 * is the memory's. A page that has left is a hole in it: who still maps it and reads there has the host fill it
 * with a page of zeros that nobody counts. So engines unmap it when they are asked, like any address. */
int mem_file(const struct mem *m, const void *host, uint64_t *offset);

/*
 * Copies between guest-physical memory and a buffer. Any thread; not atomic as a whole. -EFAULT
 * when any byte of [gpa, gpa + len) is not RAM (for reads: or ROM); nothing is then written.
 */
int mem_read(struct mem *m, uint64_t gpa, void *buf, size_t len);
int mem_write(struct mem *m, uint64_t gpa, const void *buf, size_t len);

/*
 * The host address of [gpa, gpa + len) if it is RAM and contiguous, else NULL; its pages stay in
 * host memory until mem_unpin, which is told the same range by its host address (or a part of it: pins
 * are counted by page, so a page pinned twice is unpinned twice). write: it may be written there;
 * who has written tells by mem_written, before unpinning. A page can be pinned 1,000 times; beyond
 * that it stays pinned for good. Any thread.
 */
void *mem_pin(struct mem *m, uint64_t gpa, size_t len, bool write);
void mem_unpin(struct mem *m, const void *host, size_t len);

/* The same, pinned for the machine's life and for writing. */
void *mem_ptr(struct mem *m, uint64_t gpa, size_t len);

/* [gpa, gpa + len) was written through a pin: code translated from it is stale. Any thread. */
void mem_written(struct mem *m, uint64_t gpa, uint64_t len);

/* Who wants to hear of writes by mem_write and mem_written, after they are done; on the writer's
 * thread. One at a time; NULL ends it. While nobody writes. */
void mem_set_listener(struct mem *m, void (*fn)(void *opaque, uint64_t gpa, uint64_t len),
		      void *opaque);

/* What lies at a guest-physical page. */
enum mem_kind { MEM_NONE, MEM_RAM, MEM_ROM, MEM_AWAY };

/*
 * The host address of the 4 KiB page at gpa (any byte in it), for the TLBs of the engines; it is
 * brought in if need be. write: the page is about to be written. NULL with MEM_NONE: the access goes to the
 * bus. NULL with MEM_AWAY: it is RAM, but would have to be waited for (the swap file); the vCPU gives up the
 * instruction, calls mem_fetch when it holds no address, and begins again. Writes to MEM_ROM are
 * dropped by the caller.
 */
uint8_t *mem_page(struct mem *m, uint64_t gpa, bool write, enum mem_kind *kind);

/* Brings the page in, however long it takes. */
void mem_fetch(struct mem *m, uint64_t gpa);

/* Whether a TLB may let writes to this page of RAM through without asking mem_page again. */
bool mem_may_write(const struct mem *m, uint64_t gpa);

/*
 * Lays a copy of data over [gpa, gpa + len) as ROM; page-aligned. Before any vCPU runs. The data
 * is the caller's. 0, -EINVAL, -ENOMEM.
 */
int mem_add_rom(struct mem *m, uint64_t gpa, const void *data, size_t len, struct error *err);

/* ---- what the memory manager asks of an engine ---- */

/* Which host addresses a vCPU has to forget. */
enum mem_ask {
	MEM_ASK_LEAVING = 1, /* those of pages without mem_may_stay(), and as MEM_ASK_WRITES */
	MEM_ASK_WRITES = 2,  /* write access to pages without mem_may_write() */
	MEM_ASK_ALL = 4,     /* all, so that it is seen which pages are used */
	/* Nothing of that sort: the machine has been idle, and what the engine keeps of memory of its
	 * own and can make again is not wanted. */
	MEM_ASK_TRIM = 8,
};
struct mem_engine {
	/* Returns when every vCPU has forgotten what is asked and holds no address it got before;
	 * a vCPU forgets only between instructions. The memory thread. */
	void (*ask)(void *opaque, unsigned what);
	void *opaque;
};
/* Before vCPUs run; NULL: there is none any more. */
void mem_set_engine(struct mem *m, const struct mem_engine *e);
/* Whether a TLB may keep this page's address. A vCPU that forgets late, because it did not run, finds pages that
 * have left meanwhile, and such that have come back since. */
bool mem_may_stay(const struct mem *m, uint64_t gpa);
/* Whether there is a limit, or was. Where there was none, pages leave only by being discarded (and in the
 * stress mode). One may be set at any time. Any thread. */
bool mem_has_limit(const struct mem *m);
/* The machine takes more than it may have: a vCPU, between instructions and holding no address,
 * waits until there is room, or for 20 ms. */
bool mem_is_crowded(const struct mem *m);
void mem_wait_for_room(struct mem *m);

/* ---- the manager ---- */

enum mem_policy {
	MEM_POLICY_GEN,	 /* generations: an approximation of LRU (the default) */
	MEM_POLICY_FIFO, /* by the time a page came in */
	MEM_POLICY_NR
};
/* Indexed by enum mem_policy; as in options. */
extern const char *const mem_policy_names[MEM_POLICY_NR];

struct mem_config {
	uint64_t
		limit_bytes; /* host memory for the guest's RAM and its compressed pages; 0: no limit */
	const char *swap_dir; /* where the swap file goes; NULL: pages are only compressed */
	uint64_t swap_bytes;  /* of the file, at most; 0: twice the guest's RAM */
	enum mem_policy policy;
	/* Lets the host's KSM keep one copy of equal pages, of this machine and all others that allow
	 * it. Who shares can be spied upon: the time of a write tells whether another has such a page. */
	bool share;
	/* Something a user should know, one line, or "" when it is over. Any thread. */
	void (*trouble)(void *opaque, const char *text);
	void *opaque;
};

/* Starts the memory thread, without which no page leaves. Once, after mem_create; strings are
 * copied. 0 or -errno. */
int mem_start(struct mem *m, const struct mem_config *c, struct error *err);
/* Stops it: what is in the swap store stays readable until mem_destroy. Waiting vCPUs go on. */
void mem_stop(struct mem *m);

/* Changes the limit; 0: none. Any thread. The guest is brought below it soon; the compressed pages may
 * be a half of it. */
void mem_set_limit(struct mem *m, uint64_t limit_bytes);

/*
 * The guest does not want the contents of these ranges any more: their pages are given back to the
 * host and read as zero from then on (or as before, where they are pinned or touched meanwhile).
 * balloon: they count as ballooned until they are touched. done (may be NULL) is called when it is
 * over, on the memory thread, or on the caller's when that does not run. ranges are copied. 0, -EFAULT
 * (not RAM; done is not called), -ENOMEM. Any thread.
 */
struct mem_range {
	uint64_t gpa, len; /* whole pages */
};
int mem_discard(struct mem *m, const struct mem_range *ranges, unsigned count, bool balloon,
		void (*done)(void *opaque), void *opaque);

/* Dirty log: pages written since the last mem_log_clear, one bit a page of RAM in the order of the
 * RAM's own offsets (no hole). mem_log_take copies and clears; the machine may run. bits: of
 * mem_ram_bytes / 4096 bits, rounded up to 64. Pages pinned for writing always count. Not the memory
 * thread, one at a time. Returns the number of dirty pages. */
uint64_t mem_log_take(struct mem *m, uint64_t *bits);

/* ---- looking on ---- */

enum mem_state {
	MEM_STATE_NONE,	   /* never touched or given back: zero, and costs nothing */
	MEM_STATE_PRESENT, /* in host memory */
	MEM_STATE_ZERO,	   /* evicted, being all zero */
	MEM_STATE_SWAPPED,
	MEM_STATE_BALLOON,
	MEM_STATE_NR
};
extern const char *const mem_state_names[MEM_STATE_NR];

struct mem_frame {
	enum mem_state state;
	bool dirty;   /* no copy of it is in the swap store (present only) */
	bool logged;  /* written since the last mem_log_take */
	bool leaving; /* chosen to be evicted */
	bool on_file; /* its swapped copy is in the file, not in memory */
	unsigned pins;
	unsigned age;	  /* generations since it was last seen used (present only) */
	uint64_t slot;	  /* of the copy in the swap store; 0: none */
	const void *host; /* its place in the mapping; not to be read while it is not present */
};
/* -EFAULT when there is no RAM at gpa. Any thread; true at some moment during the call. */
int mem_frame_at(struct mem *m, uint64_t gpa, struct mem_frame *f);

struct mem_stats {
	uint64_t ram_pages, pages[MEM_STATE_NR], pinned_pages;
	uint64_t limit_bytes, used_bytes; /* used: present pages and the compressed ones */
	uint64_t swap_memory_bytes, swap_file_bytes, swap_compressed_bytes;
	uint64_t stored_pages;	    /* in the swap store; clean copies of present pages, too */
	uint64_t ksm_pages;	    /* held in common with equal ones, by the host's KSM */
	uint64_t working_set_pages; /* seen used in the last minute */
	/* Counts since the start. */
	uint64_t first_touches, zero_ins, swap_ins, rescues;
	uint64_t read_aheads, read_aheads_used; /* pages; those that were asked for later */
	uint64_t evicted_clean, evicted_zero, evicted_stored, discarded;
	uint64_t swap_reads, swap_writes; /* of the file */
	uint64_t waits, wait_ns;	  /* of vCPUs, for room */
};
/* Walks the frames where full (pages[], pinned_pages); else these are left 0 but for PRESENT. */
void mem_get_stats(struct mem *m, struct mem_stats *s, bool full);

/* What happened when a page was asked for that was not there. */
enum mem_event {
	MEM_EVENT_FIRST_TOUCH, /* a new frame, zero */
	MEM_EVENT_ZERO_IN,     /* a page that had been evicted as zero */
	MEM_EVENT_BALLOON_IN,  /* a ballooned page was touched */
	MEM_EVENT_SWAP_IN,     /* loaded from its slot */
	MEM_EVENT_RESCUE,      /* it was about to be evicted */
	MEM_EVENT_NR
};
extern const char *const mem_event_names[MEM_EVENT_NR];
/* One onlooker, on the thread that asks for the page, with no lock held; it may not touch guest
 * memory. ns: what it took. NULL ends it (a call may still be under way then). */
void mem_set_watcher(struct mem *m,
		     void (*fn)(void *opaque, enum mem_event event, uint64_t gpa, uint64_t slot,
				uint64_t ns),
		     void *opaque);
/* Sees which pages are used, too: all are told anew to fn (used) at least every period_ms. For
 * traces; it costs TLB misses. NULL ends it. */
void mem_set_tracer(struct mem *m, unsigned period_ms,
		    void (*fn)(void *opaque, uint64_t gpa, bool write), void *opaque);

#endif
