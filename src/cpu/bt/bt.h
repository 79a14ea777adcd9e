/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_BT_BT_H
#define HANOK_CPU_BT_BT_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <ucontext.h>

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
 *   - %gs points at the vCPU's TLB for user accesses, inside of struct soft_cpu, so that the most
 *     frequent operands there have short encodings;
 *   - vector registers and MXCSR are the guest's if bt.loaded is not LOADED_NONE, x87 and MMX
 *     registers if it is LOADED_X87; else they are nobody's;
 *   - arithmetic flags are in the host's flags (FLAGS_HOST) or parked in bt.flags (FLAGS_PARKED);
 *     which of the two holds at a point in the code is known when it is translated. Memory accesses
 *     need the host's flags for themselves, so flags still wanted are parked before one.
 *
 * One thing is less precise than on the processor: flags that the code ahead overwrites before
 * anything reads them need not be right when a fault comes in between. The handler sees others in
 * the saved RFLAGS; the program, when it goes on at the faulting instruction, sees none of it. (That code may
 * lie behind a jump: live.c.)
 * Nor are x87's last-instruction pointers kept by copied instructions, which run only while all x87
 * exceptions are masked: they read as zero.
 *
 * What is not copied (system instructions, ...) calls the interpreter's handler for that one
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

/* What of the guest's vector and x87 state is in the host's registers (bt.loaded). */
enum { LOADED_NONE = 0, LOADED_VEC = 1, LOADED_X87 = 3 /* and the vectors */ };

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
	MODE_KEY_WINDOW = 8192, /* operands are reached in the window (window.c) */
	MODE_KEY_POLLS = 16384, /* there it looks for requests (poke.c) */
	MODE_KEY_X87 = 4096,	/* x87 may be used, masks everything, and nothing is pending */
};

struct bt_block;

/* A direct way out of a block. There are several for each, so they are small: blocks and exits by their index,
 * + 1, or 0 for none; places in code memory by their distance from its start. */
struct bt_exit {
	uint64_t rip;	/* where it goes; of an indirect branch: where that is */
	int32_t popped; /* bytes that an indirect branch takes off the stack */
	uint8_t mode;	/* in which mode */
	uint8_t flags;	/* enum flags_at when it is taken */
	bool linked : 1;
	bool plain : 1;	     /* to the plain variant */
	bool was_linked : 1; /* the exit it was copied from is, within the page */
	bool far : 1;	     /* looks whether the page is where it was, even if it is its own */
	bool loops : 1;	     /* back into its own block, where the loop begins */
	bool calls : 1;	     /* its jump is a CALL on the shadow stack (shadow.c) */
	bool asleep : 1; /* linked, but `to` is at another address now (rebase.c): leads to its stub */
	uint32_t jump;	   /* the 4-byte distance; 0: an indirect branch has none */
	uint32_t stub;	   /* where it leads while it is not linked */
	uint32_t from, to; /* blocks */
	uint32_t next_in;  /* linked exits that lead to `to` */
};

/* Checking and flag-adapting entries, made when first needed. */
enum bt_entry_kind {
	ENTRY_HOST,
	ENTRY_PARKED,
	ENTRY_HOST_CHECK,
	ENTRY_PARKED_CHECK,
	ENTRY_JUMP,
	ENTRY_CALLED,	    /* a call comes, on the shadow stack, and goes on to the main one */
	ENTRY_CALLED_CHECK, /* the same to ENTRY_PARKED_CHECK */
	ENTRY_NR
};

/* Entries that lie right before the main one and go on to it, in as few cache lines as can be, of what the
 * block was made for. */
enum bt_head {
	HEAD_NONE,
	HEAD_CHECK, /* direct jumps from other pages */
	HEAD_JUMP,  /* indirect jumps, and these */
	HEAD_CALL,
	HEAD_CALL_CHECK, /* calls from other pages */
};

/* A place in a block's code with a value that is another in a copy (relocate.c). */
enum reloc_kind {
	RELOC_RIP,	   /* 64 bits: a guest address */
	RELOC_THUNK,	   /* 32 bits: the distance to a thunk */
	RELOC_HOT_TO_COLD, /* 32 bits: a distance */
	RELOC_COLD_TO_HOT,
	RELOC_HOT_ADDRESS, /* 64 bits: a host address in the hot part */
	RELOC_EXIT_INDEX,  /* 32 bits: of a struct bt_exit of the block */
	RELOC_TLB,	   /* 32 bits: where a guest address is in the TLB for user accesses */
};
struct reloc {
	uint8_t kind;
	uint8_t cold; /* in the cold part */
	uint16_t at;  /* offset there */
};

/* Where a block reaches an operand at the guest's own address (direct.c): what to tell of a fault. */
struct bt_site {
	uint16_t at;  /* from the block's main entry */
	uint16_t rip; /* from the block's */
	bool flags_in_host;
	bool may_probe; /* the instruction has another way to its operand */
};

struct bt_block {
	uint32_t page;	 /* id */
	uint16_t offset; /* in the page */
	uint16_t bytes;
	uint16_t needs_from,
		needs_to; /* bytes of the page that it was made from, its own among them */
	uint8_t mode;
	uint8_t flags; /* what the main entry wants: FLAGS_DEAD (nothing), HOST or PARKED */
	bool dead;     /* invalidated */
	bool plain;    /* shares no probes; entered only from its other variant (span.c) */
	uint8_t head;  /* enum bt_head */
	/* Of a block whose first instruction runs over the page's end: the id of the second page,
	 * and the entry in that page's list, which stands for the block itself. */
	uint32_t page2;
	struct bt_block *owner;
	const void *main;
	uint32_t entry[ENTRY_NR]; /* from the start of code memory; 0: not made yet */
	uint32_t in;		  /* linked exits that lead here: index + 1 */
	/* For copies: the parts, and where the values are that change; relocs is 0 if it cannot be
	 * copied. */
	const void *cold;
	uint16_t hot_bytes, cold_bytes, relocs;
	uint16_t loop;	  /* where in it the loop begins, after the look-ups (loop.c); 0: nowhere */
	uint16_t exit_nr; /* its exits, which are neighbours in bt.exits */
	uint32_t first_exit;
	const struct reloc *reloc;
	const struct bt_site *site;
	uint16_t sites;
	uint32_t
		next_near; /* of those that begin in the same part of the code (window.c), + 1; 0: none */
	uint32_t next_hash; /* index + 1 */
	struct bt_block *next_template;
	struct bt_block *next_in_gpa_page;
	struct bt_block *next_in_page; /* of bt_page.blocks */
};

struct bt_page {
	uint64_t gva, gpa; /* of the page */
	uint8_t mode;
	uint32_t next_hash;	 /* id, 0: none */
	struct bt_block *blocks; /* with bytes in it, also dead ones */
	uint32_t next_alias;	 /* the next in the ring of those with this gpa and mode */
	uint32_t used;		 /* bt.page_clock when it was last looked up */
	/* Links to its blocks do not look whether it is mapped: its index in the window's list of those, + 1
	 * (window_code.c); and the next of the same hash, id. */
	uint32_t trusted, next_trusted;
};

enum {
	BT_CPUS_MAX = 256,
	BT_HASH = 1 << 18,
	BT_BLOCK_HASH = 1 << 20,
	BT_HUGE_FROM = 4096, /* blocks from which on the tables have huge pages */
};

/* Thunks: hand-made code at the front of code memory. */
struct bt_thunks {
	/* C calls: enter translated code. (c, where) */
	void (*enter)(struct soft_cpu *c, const void *where);
	const void *leave; /* jumped to with r11 = rip, flags parked */
	/* With r11 = index of the struct bt_exit, flags parked; or in the host's. */
	const void *leave_link, *leave_link_host;
	const void *slow;   /* a memory access that missed: r11 = gva, r10 = struct bt_access */
	const void *helper; /* r10 = struct insn, r11 = rip, bt.resume = where to go on */
	/* Load vector state, or x87 and vector state, where none is loaded; bt.resume = where to go
	 * on. They leave the flags alone. */
	const void *load_vec, *load_x87;
	const void *window;	/* a fault in the window: bt.fault says which */
	const void *go_on;	/* with another RSP, where bt.refused says */
	const void *gone_on;	/* the end of that */
	const void *reload_x87; /* x87 and vector state, whatever is loaded; clobbers flags */
	/* By mode: an indirect jump to r11; what an empty shadow stack is full of (shadow.c). */
	const void *dispatch[BT_MODES], *stray[BT_MODES], *stray_last[BT_MODES];
	const void *no_jump; /* what empty slots of jump[] hold: r11 = rip */
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

/* Code of a page is or is about to be translated, so no vCPU may find a new way to write to it without
 * telling; or, once all have been asked, none has a way. */
enum bt_mark { BT_UNMARKED, BT_MARKED, BT_GUARDED };

struct bt_stress {
	bool on; /* one of the first two */
	bool interrupts, switching, window;
	_Atomic uint64_t lots;
};

/*
 * What a vCPU makes translations in: pieces of the cache's memory and arrays that are its own, so that
 * it needs no lock for it (arena.c). Of the code, what lies from `used` up to `bytes`.
 */
struct bt_arena {
	struct code_mem hot, cold;
	struct bt_piece {
		uint32_t next, end;
	} blocks, exits, insns;
	struct trans *trans;
};

/*
 * Who changes the tables holds the lock. Without it, by a vCPU in run() that is not aside (share.c): pages
 * and blocks are looked up, for those are only added and unlisted, not taken back, but by a flush; and
 * blocks are translated, which are nobody else's until they are published.
 */
struct bt {
	pthread_mutex_t lock; /* all below but what says otherwise; never held while a guest runs */
	struct mem *mem;
	struct code_mem code; /* all of it */
	/* Parts of it: what is run all the time, and what is run now and then. */
	struct code_mem hot, cold;
	size_t thunk_bytes;
	struct bt_thunks thunks;
	uint16_t mode_keys[BT_MODES]; /* added without the lock */

	/* How many there may be of each: what is known of the code has its part of the cache's size,
	 * in proportion (cache.c). */
	uint32_t pages_max, blocks_max, exits_max, insns_max;
	struct bt_page *pages;
	uint32_t page_count, page_clock;
	uint32_t *page_hash;
	struct bt_block *blocks;
	uint32_t block_count;
	uint32_t *block_hash;	     /* indices + 1; 0: none */
	struct bt_block **templates; /* by guest-physical address (relocate.c) */
	struct bt_exit *exits;
	uint32_t exit_count;
	struct insn *insns; /* of helpers */
	uint32_t insn_count;
	struct bt_arena *arenas; /* by vCPU; of the counts above, what these have taken */
	struct code_mem links;	 /* the piece of `hot` that entries are made in */

	struct bt_block **gpa_page; /* by guest-physical page number: blocks with bytes in it */
	uint64_t gpa_pages;
	bool huge; /* huge pages have been asked for */

	/* One byte a guest-physical page, enum bt_mark. */
	_Atomic uint8_t *marked;

	struct soft_cpu *cpus[BT_CPUS_MAX];
	unsigned cpu_count;
	_Atomic uint32_t flushes; /* of everything */
	_Atomic bool flushing;
	bool has_avx, has_bmi2;
	struct bt_stress stress;
	struct bt_window *window; /* NULL: there is none */
	FILE *perf_map;		  /* with --perf-map */
};

static inline struct bt_block *bt_from(const struct bt *bt, const struct bt_exit *x)
{
	return &bt->blocks[x->from - 1];
}

/* Of a linked one. */
static inline struct bt_block *bt_to(const struct bt *bt, const struct bt_exit *x)
{
	return &bt->blocks[x->to - 1];
}

/* Where the block begins in the guest. */
static inline uint64_t bt_rip_of(const struct bt *bt, const struct bt_block *b)
{
	return bt->pages[b->page].gva + b->offset;
}

static inline struct bt_exit *bt_first_exit(const struct bt *bt, const struct bt_block *b)
{
	return &bt->exits[b->first_exit];
}

static inline struct bt_exit *bt_end_exit(const struct bt *bt, const struct bt_block *b)
{
	return &bt->exits[b->first_exit + b->exit_nr];
}

/* Of a chain's: NULL for 0. */
static inline struct bt_exit *bt_exit_at(const struct bt *bt, uint32_t n)
{
	return n ? &bt->exits[n - 1] : NULL;
}

enum {
	SHADOW_OFF_BYTES = 12, /* what bt_emit_from_shadow makes */
	JMP_BYTES = 5,
	JMP_OPCODE = 0xe9,
	NOP_OPCODE = 0x0f, /* its first byte */
};

/* Do the bytes of a jump at this place change at once? */
static inline bool bt_may_be_nop(const uint8_t *at)
{
	return (uintptr_t)at % 8 + JMP_BYTES <= 8;
}

/* A call's stub begins with a veneer: what takes the shadow stack off, and a jump. Where its four bytes are. */
static inline uint8_t *bt_veneer_of(const struct bt *bt, const struct bt_exit *x)
{
	return bt->code.rw + x->stub + SHADOW_OFF_BYTES + JMP_BYTES - 4;
}

/* Where the exit's jump is in the writable view, and where its stub runs. */
static inline uint8_t *bt_jump_of(const struct bt *bt, const struct bt_exit *x)
{
	return bt->code.rw + x->jump;
}

static inline const uint8_t *bt_stub_of(const struct bt *bt, const struct bt_exit *x)
{
	return bt->code.rx + x->stub;
}

/* ---- translate.c ---- */

enum bt_variant {
	BT_NEAR,       /* a direct jump leads there, from the same page */
	BT_FAR,	       /* one from another page */
	BT_CALLED,     /* a call of the first kind, */
	BT_FAR_CALLED, /* and of the second */
	BT_JUMPED,     /* perhaps an indirect one */
	BT_NEXT,       /* what was translated last goes on there, without a jump if it can be so */
	BT_PLAIN,
};

/* How a block is come to for the first time. */
struct bt_way {
	enum bt_variant variant;
	enum flags_at flags; /* DEAD: not known */
};

/* Translates the block at rip, whose page is mapped at hva, in the vCPU's arena, where there is room
 * (bt_arena_ready); the lock need not be held. NULL when its first instruction cannot be translated or
 * there is no room after all (*full is then set), and nothing has been taken. */
struct bt_block *bt_translate(struct bt *bt, struct soft_cpu *c, uint32_t page, uint64_t rip,
			      struct bt_way way, const uint8_t *hva_page, bool *full);
/* The same where the first instruction goes on in a second page. */
struct bt_block *bt_translate_across(struct bt *bt, struct soft_cpu *c, const uint32_t page[2],
				     uint64_t rip, struct bt_way way,
				     const uint8_t *const hva_page[2], bool *full);
/* Where the block that was translated last goes on within its page, whatever its code does but for jumps on
 * the way: behind a call, or a jump's target; 0: nowhere. */
uint64_t bt_next_rip(const struct soft_cpu *c);
/* Gives back what the vCPU's last translation took, which is not published. */
void bt_untranslate(struct soft_cpu *c);

/* A line for --perf-map; the lock is held. */
void bt_tell_perf(struct bt *bt, const struct bt_block *b);

/* Index of a mode, given a place if there is one; BT_MODES: none left. */
unsigned bt_mode_index(struct bt *bt, uint16_t key);

/* ---- table.c: memory for what is known of translations ---- */

/* Of zeroes, where 2 MiB begin; the host's memory is taken when it is touched. NULL: none. */
void *bt_table_map(size_t bytes);
void bt_table_unmap(void *table, size_t bytes);
/* Makes it all zeroes, and gives the host its memory back where it takes it. */
void bt_table_forget(void *table, size_t bytes);
/* Asks the host for huge pages for all of it, unless it is small, or too large. Others may use it meanwhile. */
void bt_table_make_huge(void *table, size_t bytes);
/* Asks for the memory of the bytes [from, end) at once, which costs less than a fault for each of its pages;
 * huge: where 2 MiB begin there, for all of these. */
void bt_table_populate(void *table, size_t from, size_t end, bool huge);
/* Memory of `bytes` bytes that is filled from the front has been up to `from`, and will now be up to `end`: has
 * the next 2 MiB made ready on another thread when half of these are used. */
void bt_table_ahead(struct mem *mem, void *table, size_t bytes, size_t from, size_t end);

/* ---- cache.c ---- */

int bt_cache_create(struct bt *bt, struct mem *mem, size_t code_bytes, struct error *err);
void bt_cache_destroy(struct bt *bt);
void bt_cache_flush(struct bt *bt);
/* Huge pages for all tables, by now or when they grow; the lock is held. */
void bt_cache_make_huge(struct bt *bt);
/* After a flush: gives the host what the cache has taken of its memory. */
void bt_cache_shrink(struct bt *bt);
void bt_cpu_reset(struct bt *bt, struct soft_cpu *c);
/* The page's id, or 0; the lock need not be held. */
uint32_t bt_page_find(struct bt *bt, uint64_t gva, uint64_t gpa, unsigned mode);
/* Some page with blocks at this gpa, in this mode, one of the ring; or 0. */
uint32_t bt_page_alias(const struct bt *bt, uint64_t gpa, unsigned mode);
/* Gives it one. 0: no room. */
uint32_t bt_page_new(struct bt *bt, uint64_t gva, uint64_t gpa, unsigned mode);
/* The page's code is elsewhere from now on. */
void bt_page_move(struct bt *bt, uint32_t id, uint64_t gva);
/* The lock need not be held; without it, the block may be dead by now. */
struct bt_block *bt_block_find(struct bt *bt, uint32_t page, unsigned offset, bool plain);
struct bt_block *bt_block_new(struct bt *bt, struct bt_arena *a, uint32_t page, unsigned offset);
/* From now on others find it. False when there is no room (for a block across pages). */
bool bt_block_publish(struct bt *bt, struct bt_arena *a, struct bt_block *b);
void bt_block_kill(struct bt *bt, struct bt_block *b);
/* cmp page_id[...], id: is the code page mapped where it was? */
void bt_emit_page_check(struct bt *bt, struct emit *e, uint32_t page);
struct bt_exit *bt_exit_new(struct bt *bt, struct bt_arena *a, struct bt_block *from);
/* Makes a direct exit go straight to a block. */
void bt_link(struct bt *bt, struct bt_exit *x, struct bt_block *to);
/* Makes a linked exit right again after one of its ends has moved. */
void bt_settle_link(struct bt *bt, struct bt_exit *x);
/* Makes the links right that lead to the page's code from elsewhere, after page.trusted has changed. */
void bt_settle_page(struct bt *bt, uint32_t page);
/* The same for the entries of a block that has moved. */
void bt_settle_entries(struct bt *bt, struct bt_block *b);
/* The exits of a new block that lead to blocks of its own page, or of pages that need no check. */
void bt_link_known(struct bt *bt, struct bt_block *b);
const void *bt_entry(struct bt *bt, struct bt_block *b, enum bt_entry_kind kind);
/* The entries, right before the main one, of a block that is being made. Returns the jump to where the code
 * page is another, with the flags parked or dead. */
uint8_t *bt_emit_head(struct bt *bt, struct emit *e, struct bt_block *b, enum bt_head head);
/* The same where it is there already, NULL where not; the lock need not be held. */
const void *bt_entry_made(const struct bt *bt, const struct bt_block *b, enum bt_entry_kind kind);
/* Forgets the blocks with bytes in [gpa, gpa + len); true if there were any. */
bool bt_invalidate(struct bt *bt, uint64_t gpa, unsigned len);
static inline bool bt_has_code(const struct bt *bt, uint64_t gpa)
{
	uint64_t page = gpa >> MEM_PAGE_SHIFT;

	return page < bt->gpa_pages && atomic_load(&bt->marked[page]);
}
struct emit bt_emit_begin(struct code_mem *part, size_t most);
/* The same right behind what was made there last. */
struct emit bt_emit_go_on(struct code_mem *part, size_t most);
const void *bt_emit_end(struct code_mem *part, struct emit *e);

/* ---- arena.c ---- */

int bt_arenas_create(struct bt *bt, struct error *err);
/* The index'th vCPU's; NULL: out of memory. */
struct bt_arena *bt_arena_create(struct bt *bt, unsigned index);
void bt_arenas_destroy(struct bt *bt);
/* A flush: what it has is no longer its own. */
void bt_arena_reset(struct bt_arena *a);
/* Sees to it that there is room for one more block; false: the cache is full. */
bool bt_arena_ready(struct bt *bt, struct bt_arena *a);
/* Room for another entry in bt.links; false: the cache is full. */
bool bt_links_ready(struct bt *bt, size_t bytes);

/* ---- share.c ---- */

/* Waits for the lock. Where a flush came in between, bt.flushes is another afterwards. */
void bt_lock(struct soft_cpu *c);
void bt_unlock(struct soft_cpu *c);
/* Forgets all translations; the lock is held. c: who asks, or NULL. */
void bt_flush_all(struct bt *bt, const struct soft_cpu *c);
/*
 * Code of the pages (the second: UINT64_MAX if there is none) is about to be read and translated by c; the
 * lock is held, and let go meanwhile where others have to be asked. Afterwards nobody has a way to write
 * to the pages without telling, and c->bt.stale tells, under the lock, whether somebody did. False: there
 * was a flush. Ends with bt_end_making, under the lock.
 */
bool bt_begin_making(struct soft_cpu *c, const uint64_t gpa[2]);
void bt_end_making(struct soft_cpu *c);
/* The vCPU is between instructions: what it wrote is written. */
void bt_writes_done(struct soft_cpu *c);
/* Writes to guest memory that no vCPU makes: DMA, loaders, debuggers. */
void bt_memory_written(void *opaque, uint64_t gpa, uint64_t len);

/* ---- relocate.c ---- */

/* A copy of the block at this place of the guest-physical page, translated before at another
 * address; NULL if there is none, or no room in the arena. The lock is held. */
struct bt_block *bt_copy(struct bt *bt, struct bt_arena *a, uint32_t page, unsigned offset,
			 bool plain);
/* The values in a block's code that depend on its guest address, which moves by so much. */
void bt_move_values(struct bt *bt, const struct bt_block *b, uint64_t by);
/* The block, which has just been published, becomes a template if it can be copied. */
void bt_list_template(struct bt *bt, struct bt_block *b);
/* The block is stale, and so no template any more. */
void bt_drop_template(struct bt *bt, struct bt_block *b);
/* May blocks of the page be copied to other addresses? */
bool bt_may_move(const struct bt *bt, uint32_t page);
/* The same, to and from this address. */
bool bt_may_move_to(const struct bt *bt, uint64_t gva, unsigned mode);

/* ---- rebase.c ---- */

/* The id of a code page that is new at this address, whose blocks have been another's; 0: none is to
 * spare. The lock is held. */
uint32_t bt_rebase(struct soft_cpu *c, uint64_t gva, uint64_t gpa, unsigned mode);
/* What has been changed of the code is what this thread runs from now on. */
void bt_serialize(void);
/* The page is one that is needed now; the lock need not be held. */
static inline void bt_note_use(struct bt *bt, uint32_t page)
{
	if (bt->cpu_count == 1) /* of several nothing moves */
		bt->pages[page].used = ++bt->page_clock;
}

/* ---- stress.c: asked only where stress.on ---- */

/* By HANOK_BT_STRESS. 0, or -EINVAL with err set. */
int bt_stress_init(struct bt *bt, struct error *err);
/* How many instructions the next block may have. */
unsigned bt_stress_items(struct bt *bt, unsigned most);
/* Is a block left to C, instead of going on to another one? */
bool bt_stress_comes_back(struct bt *bt);
/* Is the next block interpreted? */
bool bt_stress_interprets(struct bt *bt);

/* ---- shadow.c ---- */

/* 0, or -1: out of memory. */
int bt_shadow_create(struct soft_cpu *c);
void bt_shadow_destroy(struct soft_cpu *c);
/* Empties the stacks: no code they led to may be run any more. */
void bt_shadow_reset(const struct bt *bt, struct soft_cpu *c);
/* In the handler of SIGSEGV: false if the fault is not one of a shadow stack that is full. */
bool bt_shadow_caught(struct soft_cpu *c, const siginfo_t *info, ucontext_t *u);
/* RSP becomes the guest's again, which T_INDEX holds. */
void bt_emit_from_shadow(struct emit *e, unsigned mode);
void bt_make_shadow_thunks(struct bt *bt, struct emit *e, unsigned mode);

/* ---- signals.c ---- */

/* 0, or -1: out of memory. */
int bt_signals_create(struct soft_cpu *c);
void bt_signals_destroy(struct soft_cpu *c);
/* The calling thread runs this vCPU's code; false: it has before. Blocks all signals but those of
 * faults and BT_POKE_SIGNAL: the guest's stack pointer is in RSP, so no handler may run there but one that has a stack of its own. */
bool bt_bind_thread(struct soft_cpu *c);

/* ---- poke.c ---- */

#define BT_POKE_SIGNAL SIGURG /* ignored by who does not know it */

/* The calling thread is the one to be poked. False: it cannot be (can_be_poked). */
bool bt_poke_bind(struct soft_cpu *c);
void bt_poke_unbind(struct soft_cpu *c);
/* struct vcpu's: has code left that does not look for requests, where one has just been made. Any thread. */
void bt_poke(struct vcpu *v);
/* Code of this mode is about to run. False: it does not look for requests, and there is one already. */
bool bt_run_mode(struct soft_cpu *c);
/* Are there so many requests now that it is better to look? */
bool bt_polls(const struct soft_cpu *c);
/* A timer interrupt: are there still? */
void bt_poke_tick(struct soft_cpu *c);
/* In the handler of BT_POKE_SIGNAL. */
void bt_poked(struct soft_cpu *c, const ucontext_t *u);
/* In the handler of SIGSEGV: false if the fault is not one of code that was to be left. */
bool bt_poke_caught(struct soft_cpu *c, ucontext_t *u);
/* Translated code has been left: it becomes as it was. */
void bt_code_left(struct soft_cpu *c);

/* ---- window.c ---- */

/* Where the process and the machine's memory allow for a window. 0 or -ENOMEM. */
int bt_window_create(struct bt *bt, struct mem *mem, struct error *err);
void bt_window_destroy(struct bt *bt);
/* The vCPU's code may ask. */
void bt_window_add_cpu(struct bt *bt, struct soft_cpu *c);
/* The blocks found by an address in them are gone. */
void bt_window_forget_blocks(struct bt *bt);
/* The code page has just been found to be mapped for user code in the window; the lock is held. */
void bt_window_trust(struct soft_cpu *c, uint32_t page);
/* The code page at gva if links trust it, or 0; the lock is held. */
uint32_t bt_window_trusted(const struct bt *bt, uint64_t gva, unsigned mode);
/* Finds the block by addresses in it from now on; the lock is held. */
void bt_window_list(struct bt *bt, struct bt_block *b);
/* The block of the window whose code is there, or NULL. In handlers, too. */
const struct bt_block *bt_window_block_at(const struct bt *bt, const uint8_t *at);
/* Does user code that is about to run find its memory in the window? Makes what is stale right. */
bool bt_window_is_open(struct soft_cpu *c);
/* As bt_window_forbid_writes, to all pages that have code. */
void bt_window_forbid_writes_to_code(struct soft_cpu *c);
/* Brings in what user code reaches for (UINT64_MAX: not known); false: it is nothing that can be there. May
 * raise #PF. */
bool bt_window_bring_in(struct soft_cpu *c, uint64_t gva, bool write);
/* Is the instruction at rip one that has met so much new memory that it had better ask the TLB? */
bool bt_window_avoids(const struct bt *bt, uint64_t rip);
/* In the handler of SIGSEGV: false if the fault is not one of translated code in the window. */
bool bt_window_caught(struct soft_cpu *c, const siginfo_t *info, ucontext_t *u);

/* ---- thunks.c ---- */

int bt_thunks_make(struct bt *bt);
/* Arithmetic flags as they are parked: AX after LAHF and SETO AL. */
static inline uint32_t bt_parked(uint64_t rflags)
{
	return (uint32_t)(((rflags & 0xd5) | FLAG_R1) << 8 | (rflags >> 11 & 1));
}
/* Flags from the host's to bt.flags and back; use T_INDEX. */
void emit_park(struct emit *e);
void emit_unpark(struct emit *e);

/* ---- bt.c, called from translated code ---- */
const void *bt_slow(struct soft_cpu *c, uint64_t gva, const struct bt_access *a);
const void *bt_helper(struct soft_cpu *c, const struct insn *i);
const void *bt_window_fault(struct soft_cpu *c);

/* What %gs:0 is, and fields from there; the encoding has 32 signed bits. */
#define BT_GS offsetof(struct soft_cpu, tlb.data[MMU_USER])
#define OFF(FIELD) (offsetof(struct soft_cpu, FIELD) - BT_GS)
#define OFF_GPR(N) (OFF(s.gpr) + 8 * (size_t)(N))

#endif
