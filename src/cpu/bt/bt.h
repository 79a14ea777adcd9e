/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_BT_BT_H
#define HANOK_CPU_BT_BT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "cpu/bt/bt_cpu.h"
#include "cpu/bt/emit.h"
#include "cpu/code_mem.h"
#include "cpu/interp/access.h"

/*
 * The binary translator: theory of operation.
 *
 * Guest and host speak the same language, so most guest instructions are copied. While translated
 * code runs,
 *
 *   - guest general registers are in the host registers of the same numbers, RSP too, except R10
 *     and R11, which live in soft_cpu.s.gpr and whose host registers are the translator's own
 *     (T_INDEX, T_ADDR);
 *   - %gs points at the vCPU's struct soft_cpu;
 *   - vector registers and MXCSR are the guest's if bt.vec_loaded, else nobody's;
 *   - arithmetic flags are in the host's flags (FLAGS_HOST) or parked in bt.flags (FLAGS_PARKED);
 *     which of the two holds at a point in the code is known when it is translated. Memory accesses
 *     need the host's flags for themselves, so flags still wanted are parked before one.
 *
 * One thing is less precise than on the processor: flags that the code ahead overwrites before
 * anything reads them need not be right when a fault comes in between. The handler sees others in
 * the saved RFLAGS; the program, when it goes on at the faulting instruction, sees none of it.
 *
 * What is not copied (x87, system instructions, ...) calls the interpreter's handler for that one
 * instruction ("helper"), between two thunks that carry the registers to struct cpu_state and back.
 *
 * A block is a run of guest instructions within one page with one entry and several exits. Blocks
 * belong to a code page: (gva page, gpa page, mode), which has an id. page_id[] says, like a TLB,
 * which code page is at a gva now; so translations, links and jump tables outlive address-space
 * switches: entries that come from another page check one word.
 *
 *   direct jump   ------> main entry                      (same page)
 *                 ------> check page_id, main entry       (another page)
 *   indirect jump ------> jump[rip] -> check rip, check page_id, main entry
 *   a check fails ------> back to C: bt_run finds or makes the block and enters it
 *
 * The way a memory operand is reached is in probe.c alone.
 */
enum {
	T_ADDR = 11,
	T_INDEX = 10,
};

enum flags_at { FLAGS_DEAD, FLAGS_HOST, FLAGS_PARKED, FLAGS_BOTH };

/* A translation mode: everything outside the code's bytes that its translation depends on. */
enum {
	MODE_KEY_64 = 1,
	MODE_KEY_CLASS = 2, /* two bits: enum mmu_class */
	MODE_KEY_CPL3 = 8,
	MODE_KEY_CPL0 = 2048,
	MODE_KEY_SSE = 16, /* SSE may be used and MXCSR masks everything */
	MODE_KEY_AVX = 32,
	MODE_KEY_FS = 64, /* 32-bit code: FS has a full limit */
	MODE_KEY_GS = 128,
	MODE_KEY_SMAP = 256, /* CR4.SMAP at CPL 0: STAC and CLAC change the class */
	MODE_KEY_TSD = 512,  /* RDTSC is not allowed */
	MODE_KEY_VALID = 1024,
};

struct bt_block;

/* A direct way out of a block. */
struct bt_exit {
	uint64_t rip;	/* where it goes; of an indirect branch: where that is */
	int32_t popped; /* bytes that an indirect branch takes off the stack */
	uint8_t mode;	/* in which mode */
	uint8_t flags;	/* enum flags_at when it is taken */
	bool linked;
	uint8_t *jump;	  /* the 4-byte distance, writable view */
	const void *stub; /* where it leads while it is not linked */
	struct bt_block *from, *to;
	struct bt_exit *next_of_block; /* exits of `from` */
	struct bt_exit *next_in;       /* linked exits that lead to `to` */
};

/* Checking and flag-adapting entries, made when first needed. */
enum bt_entry_kind {
	ENTRY_HOST,
	ENTRY_PARKED,
	ENTRY_HOST_CHECK,
	ENTRY_PARKED_CHECK,
	ENTRY_JUMP,
	ENTRY_NR
};

struct bt_block {
	uint32_t page;	 /* id */
	uint16_t offset; /* in the page */
	uint16_t bytes;
	uint8_t mode;
	uint8_t flags; /* what the main entry wants: FLAGS_DEAD (nothing), HOST or PARKED */
	bool dead;     /* invalidated */
	/* Of a block of one instruction that runs over the page's end: the id of the second page,
	 * and the entry in that page's list, which stands for the block itself. */
	uint32_t page2;
	struct bt_block *owner;
	const void *main;
	const void *entry[ENTRY_NR];
	struct bt_exit *exits, *in;
	struct bt_block *next_hash;
	struct bt_block *next_in_gpa_page;
};

struct bt_page {
	uint64_t gva, gpa; /* of the page */
	uint8_t mode;
	uint32_t next_hash; /* id, 0: none */
};

enum {
	BT_CPUS_MAX = 256,
	BT_PAGES_MAX = 1 << 16,
	BT_BLOCKS_MAX = 1 << 19,
	BT_EXITS_MAX = 1 << 20,
	BT_HASH = 1 << 18,
	BT_INSNS_MAX = 1 << 18
};

/* Thunks: hand-made code at the front of code memory. */
struct bt_thunks {
	/* C calls: enter translated code. (c, where) */
	void (*enter)(struct soft_cpu *c, const void *where);
	const void *leave;	/* jumped to with r11 = rip, flags parked */
	const void *leave_link; /* with r10 = struct bt_exit, flags parked */
	const void *slow;	/* a memory access that missed: r11 = gva, r10 = struct bt_access */
	const void *helper;	/* r10 = struct insn, r11 = rip, bt.resume = where to go on */
	const void *load_vec;	/* loads vector state; bt.resume = where to go on */
	const void *no_jump;	/* what empty slots of jump[] hold: r11 = rip */
};

/* What a missed access tells C; lies in code memory behind its stub. */
struct bt_access {
	uint64_t rip;  /* of the instruction */
	int32_t retry; /* from this struct to the probe's start */
	int32_t done;  /* from this struct to where the rest of the block goes on; 0: nowhere */
	uint8_t size;
	uint8_t write;
	uint8_t class;	   /* enum mmu_class */
	uint8_t unaligned; /* address bits that raise #GP, before any #PF */
};

struct bt_stress {
	bool on; /* one of the two */
	bool interrupts, switching;
	_Atomic uint64_t lots;
};

struct bt {
	pthread_mutex_t lock; /* all below but what says otherwise; never held while a guest runs */
	struct code_mem code;
	size_t thunk_bytes;
	struct bt_thunks thunks;
	uint16_t mode_keys[BT_MODES];

	struct bt_page *pages;
	uint32_t page_count;
	uint32_t *page_hash;
	struct bt_block *blocks;
	uint32_t block_count;
	struct bt_block **block_hash;
	struct bt_exit *exits;
	uint32_t exit_count;
	struct insn *insns; /* of helpers */
	uint32_t insn_count;

	struct bt_block **gpa_page; /* by guest-physical page number: blocks with bytes in it */
	uint64_t gpa_pages;

	/* One byte a guest-physical page: code of it is or is about to be translated, so no vCPU may
	 * have a way to write to it without asking. */
	_Atomic uint8_t *marked;

	struct soft_cpu *cpus[BT_CPUS_MAX];
	unsigned cpu_count;
	uint64_t translated_insns;
	_Atomic uint32_t flushes; /* of everything */
	_Atomic bool flushing;
	struct soft_cpu *flusher;
	bool has_avx;
	struct bt_stress stress;
	FILE *perf_map; /* with --perf-map */
};

/* ---- translate.c ---- */

/* Translates the block at rip, whose page is mapped at hva; the lock is held. NULL when its first
 * instruction cannot be translated or there is no room (bt->full is then set). */
struct bt_block *bt_translate(struct bt *bt, struct soft_cpu *c, uint32_t page, uint64_t rip,
			      const uint8_t *hva_page, bool *full);
/* The same for one instruction that goes on in a second page. */
struct bt_block *bt_translate_across(struct bt *bt, struct soft_cpu *c, const uint32_t page[2],
				     uint64_t rip, const uint8_t *const hva_page[2], bool *full);

/* Index of a mode, given a place if there is one; BT_MODES: none left. The lock is held. */
unsigned bt_mode_index(struct bt *bt, uint16_t key);

/* ---- cache.c ---- */

int bt_cache_create(struct bt *bt, struct mem *mem, size_t code_bytes, struct error *err);
void bt_cache_destroy(struct bt *bt);
void bt_cache_flush(struct bt *bt);
void bt_cpu_reset(struct bt *bt, struct soft_cpu *c);
uint32_t bt_page_id(struct bt *bt, uint64_t gva, uint64_t gpa, unsigned mode);
struct bt_block *bt_block_find(struct bt *bt, uint32_t page, unsigned offset);
struct bt_block *bt_block_new(struct bt *bt, uint32_t page, unsigned offset);
/* False when there is no room (for a block across pages). */
bool bt_block_publish(struct bt *bt, struct bt_block *b);
void bt_block_kill(struct bt *bt, struct bt_block *b);
/* cmp page_id[...], id: is the code page mapped where it was? */
void bt_emit_page_check(struct bt *bt, struct emit *e, uint32_t page);
struct bt_exit *bt_exit_new(struct bt *bt, struct bt_block *from);
/* Makes a direct exit go straight to a block. */
void bt_link(struct bt *bt, struct bt_exit *x, struct bt_block *to);
const void *bt_entry(struct bt *bt, struct bt_block *b, enum bt_entry_kind kind);
/* Forgets the blocks with bytes in [gpa, gpa + len); true if there were any. */
bool bt_invalidate(struct bt *bt, uint64_t gpa, unsigned len);
static inline bool bt_has_code(const struct bt *bt, uint64_t gpa)
{
	uint64_t page = gpa >> MEM_PAGE_SHIFT;

	return page < bt->gpa_pages && atomic_load(&bt->marked[page]);
}
struct emit bt_emit_begin(struct bt *bt, size_t most);
const void *bt_emit_end(struct bt *bt, struct emit *e);

/* ---- stress.c: asked only where stress.on ---- */

/* By HANOK_BT_STRESS. 0, or -EINVAL with err set. */
int bt_stress_init(struct bt *bt, struct error *err);
/* How many instructions the next block may have. */
unsigned bt_stress_items(struct bt *bt, unsigned most);
/* Is a block left to C, instead of going on to another one? */
bool bt_stress_comes_back(struct bt *bt);
/* Is the next block interpreted? */
bool bt_stress_interprets(struct bt *bt);

/* ---- thunks.c ---- */

int bt_thunks_make(struct bt *bt);
/* Flags from the host's to bt.flags and back; use T_INDEX. */
void emit_park(struct emit *e);
void emit_unpark(struct emit *e);

/* ---- bt.c, called from translated code ---- */
const void *bt_slow(struct soft_cpu *c, uint64_t gva, const struct bt_access *a);
const void *bt_helper(struct soft_cpu *c, const struct insn *i);

#define OFF(FIELD) offsetof(struct soft_cpu, FIELD)
#define OFF_GPR(N) (offsetof(struct soft_cpu, s.gpr) + 8 * (size_t)(N))

#endif
