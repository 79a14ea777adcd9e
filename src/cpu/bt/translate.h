/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_BT_TRANSLATE_H
#define HANOK_CPU_BT_TRANSLATE_H

#include "cpu/bt/bt.h"

/* Inside of the translator: what classify.c, probe.c, rewrite.c, flow.c and translate.c share. */

enum kind {
	KIND_HELPER,	 /* the interpreter's handler, then go on */
	KIND_HELPER_END, /* the same, then to wherever RIP is */
	KIND_COPY,	 /* no memory operand: the bytes as they are */
	KIND_MEMORY,	 /* one memory operand, which is reached by a probe */
	KIND_NOP,
	KIND_PREFETCH,
	KIND_LEA,
	KIND_MOFFS,
	KIND_PUSH,
	KIND_POP,
	KIND_LEAVE,
	KIND_INC_DEC, /* the one-byte forms of 32-bit code */
	KIND_DIVIDE,
	KIND_RDTSC,
	KIND_REP,  /* REP MOVS and REP STOS of 64-bit code */
	KIND_JUMP, /* direct */
	KIND_JCC,
	KIND_JUMP_IND,
	KIND_CALL,
	KIND_CALL_IND,
	KIND_RET,
	KIND_STI,
	KIND_CLI,
	KIND_CLD,
	KIND_PUSHF,
	KIND_MOV_SELECTOR,
	KIND_BIT, /* BT and kin with the bit's number in a register, in memory */
	KIND_SWAPGS,
	KIND_STAC,
	KIND_CLAC,
	KIND_FLDCW,
};

/* The last two: bytes of hot and of cold code that a block has at most. */
enum { ITEMS_MAX = 48, HOT_MAX = 24576, COLD_MAX = 49152 };

/* Bytes [low, high) from what the registers held at their version; see span.c. */
struct span {
	uint8_t base, index, scale, seg; /* REG_NONE: none */
	unsigned base_version, index_version, epoch;
	uint64_t page; /* without registers: of the address, from which offsets count */
	int low, high;
	unsigned align;
	int aligned_at; /* offset of an access that has to be aligned */
	bool write;
	unsigned accesses;
	bool kept;   /* its host address, in bt.span[] */
	bool probed; /* at this point of emission */
	/* The item before which it is looked up, ahead of its first access, or -1; and by how much its
	 * address has moved there. */
	int8_t early;
	int early_moved;
	/* Of a loop (loop.c): the first item with an access, whether the probe is before the loop,
	 * and by how much the addresses move in one turn. */
	uint8_t item;
	bool hoisted;
	int step;
};

/* What is known of the registers at a point of the block: how often each was changed in an unknown
 * way, and by how much it moved since; and what has ended all spans (span.c). */
struct known {
	unsigned version[GPR_NR];
	int delta[GPR_NR];
	unsigned epoch;
	uint16_t
		small; /* registers that hold a number of 32 bits, extended with zeros or its sign */
};

/* What is known of RSP in a block of the window, while spans are planned; see stack.c. */
struct sp_plan {
	bool trusted; /* it can be used without asking */
	bool proven;  /* in this block, so that it may move a little without being asked about */
	bool due;     /* or else it has to be asked about before the block is left */
	int changed;  /* the last item that did, or -1 */
	int moved;    /* by how much since it was proven */
	unsigned version;
	int delta;
};
enum { SPAN_FAR = 0x100000 }; /* what a register may move by, in a block, and be known still */
#define STACK_TRUST (UINT64_C(3) << 30)

/* A block that jumps back to its own start; see loop.c. */
struct loop {
	int edge;	/* the jump's item, or -1: no such loop */
	struct known k; /* at the edge */
	unsigned
		reg; /* tells by its value when the spans have to be looked up again; REG_NONE: never */
	int step;	/* of reg, each turn */
	unsigned turns; /* that the spans are looked up for */
	bool on;	/* there are hoisted spans */
};

/* What is where in an instruction's bytes (SDM Vol. 2, figure 2-1). */
struct encoding {
	uint8_t opcode;	  /* the last byte of it */
	uint8_t prefixes; /* how many, REX among them */
	uint8_t rex;	  /* or 0 */
	uint8_t vex;	  /* offset of the VEX prefix, or NO_VEX */
	uint8_t modrm;	  /* offset, or 0 */
	uint8_t rest;	  /* offset of what follows ModRM, SIB and displacement */
};
enum { NO_VEX = 0xff };

/* One guest instruction on its way through the translator. */
struct item {
	/* What it is, wherever it stands, but for its displacement and its immediate (recall.c). */
	struct insn i;
	struct encoding at;
	uint16_t reads, writes; /* general registers, operands and implicit ones, not addressing */
	uint16_t address;	/* general registers in the memory operand's address */
	uint16_t mem_bytes;
	uint16_t flags_read, flags_written; /* arithmetic flags */
	enum kind kind : 8;
	uint8_t align; /* of the memory operand, or 0 */
	uint8_t needs; /* LOADED_* */
	bool mem_read, mem_write;

	/* What it is here. */
	uint64_t rip;
	const struct decoded *d; /* while it is classified, else NULL */
	uint16_t live_before, live_after;
	uint16_t live_there; /* of a direct jump: where it leads */
	uint16_t
		small; /* of its operand's address: registers that hold small numbers (struct known) */
	int8_t span;   /* that its access is in, or -1 */
	bool sp_check; /* RSP has to be asked about before it (stack.c) */
	int offset;    /* of the access there */
	int moved;     /* how much of that is what registers have moved by */
};

/* FS and GS have bases; the others', where they are used here, are 0. */
static inline bool has_segment(const struct item *it)
{
	return it->i.seg == SEG_FS || it->i.seg == SEG_GS;
}

/* Where a direct jump or call leads, in 32-bit code before it is cut. */
static inline uint64_t jump_target(const struct item *it)
{
	return it->rip + it->i.length + it->i.imm;
}

/* An instruction that was decoded before, in one cache line; see recall.c. */
enum {
	RECALLED = 32768,
	/* Of struct insn, what is between the numbers and the bytes. */
	INSN_FORM_AT = offsetof(struct insn, imm2),
	INSN_FORM_BYTES = offsetof(struct insn, bytes) - INSN_FORM_AT,
	/* Of struct item, what comes behind its insn. */
	ITEM_FORM_AT = offsetof(struct item, at),
	ITEM_FORM_BYTES = offsetof(struct item, rip) - ITEM_FORM_AT,
};
struct recalled {
	unsigned __int128 key; /* its bytes */
	uint16_t mode;	       /* of MODE_KEY_*, what it depends on; 0: none */
	bool imm_signed;
	uint8_t imm_implied; /* of a shift by one, which has no bytes for it */
	uint8_t insn[INSN_FORM_BYTES];
	uint8_t item[ITEM_FORM_BYTES];
};
static_assert(sizeof(struct recalled) == 64, "a cache line");

/* An instruction that has been read, but not decoded yet; see recall.c. */
struct insn_parts {
	uint8_t length; /* 0: not known here */
	uint8_t disp_at, disp_bytes;
	uint8_t imm_at, imm_bytes;
	bool imm_counts; /* it is part of the key */
};
enum { RECALL_BYTES = 16, SEEN = 8 };
struct seen {
	unsigned __int128 key;
	struct recalled *slot;
	uint8_t bytes[RECALL_BYTES];
	struct insn_parts parts;
};

/* A block being translated. */
struct trans {
	struct bt *bt;
	struct bt_arena *a, before; /* as it was before the block */
	struct soft_cpu *c;
	struct bt_block *b;
	struct emit e;
	uint16_t key; /* MODE_KEY_* at this point (STAC and CLAC change it) */
	enum flags_at flags;
	unsigned ready; /* LOADED_*: known to be loaded at this point */
	bool failed;	/* out of some resource */
	unsigned count;
	struct item item[ITEMS_MAX];
	struct decoded d;	 /* of the last that was decoded */
	const uint8_t *hva_page; /* that all of it is in; NULL: there are two */
	uint16_t live_next;	 /* behind the last item */
	uint16_t needs_from, needs_to;
	struct recalled recalled[RECALLED];
	struct seen seen[SEEN];
	struct span span[BT_SPANS];
	unsigned spans;
	struct loop loop;
	struct sp_plan sp;
	bool sp_check_end; /* RSP has to be asked about at the block's end */
	/* For copies; see relocate.c. */
	bool may_move, in_cold;
	const uint8_t *hot_start, *cold_start;
	struct reloc reloc[16 * ITEMS_MAX];
	unsigned relocs;
	bool minds; /* the item says when it takes them */
	unsigned
		homes; /* of T_ADDR and T_INDEX, those that hold the guest's registers at this point */
	unsigned
		homes_due; /* of these, those that have to be stored before anything else can see it */
	bool direct;	   /* operands are reached at the guest's own addresses (direct.c) */
	struct bt_site site[3 * ITEMS_MAX];
	unsigned sites;
	int sp_due; /* bytes that RSP is behind by, between pushes and pops of one span */
	int held;   /* the span whose host address T_ADDR holds at this point, or -1 */

	/* Code that is put behind the block: probes' misses and exits. */
	struct cold {
		enum {
			COLD_MISS,
			COLD_REFILL,
			COLD_LEAVE,
			COLD_EXIT,
			COLD_LOAD,
			COLD_HELPER,
			COLD_PLAIN
		} kind;
		const struct item *it;
		uint8_t *from;	      /* jump to patch; NULL: what comes before goes on to it */
		const uint8_t *retry; /* as it runs */
		uint8_t *resume;      /* where to go on, writable view */
		enum flags_at resume_flags;
		unsigned ready; /* COLD_LOAD: what to load; else what is loaded where it goes on */
		uint64_t rip;
		struct bt_exit *exit;
		bool in_head; /* `from` is not part of what is copied */
		uint16_t size;
		uint8_t write, class;
		/* The address is [base + disp], or else that of the operand + disp, with base the one
		 * register in it, or REG_NONE. */
		bool by_stack;
		unsigned base;
		int disp;
	} cold[8 * ITEMS_MAX];
	unsigned colds;
};

/* ---- classify.c ---- */

/* The item's insn is decoded, and t->d is what the decoder said. */
void classify(struct trans *t, struct item *it);
/* Finds the interpreter's handler, which only helpers need. */
void item_select(struct trans *t, struct item *it);

/* ---- recall.c ---- */

/* Guest memory that a device may be writing to: from here on it is what was read now. */
static inline void read_once(void *to, const uint8_t *from, size_t bytes)
{
	memcpy(to, from, bytes);
	/* Or the compiler may read it again. */
	__asm__ volatile("" ::"r"(to) : "memory");
}

/* Reads the next few instructions into t->seen, and has what is known of them brought near; returns how many. None
 * where less than RECALL_BYTES are left. */
unsigned recall_ahead(struct trans *t, const uint8_t *at, unsigned avail);
/* How an instruction of 64-bit code came out before, of the same bytes but for its displacement and its
 * immediate. False: it has to be decoded. */
bool recall(const struct trans *t, struct item *it, const struct seen *s);
/* Keeps what became of the item that was just decoded. */
void remember_item(struct trans *t, const struct item *it);

/* ---- live.c ---- */

/* Which flags are wanted before and after each item. */
void find_live_flags(struct trans *t);
/* What the block wants of the flags when it is entered: nothing, or as it gets them first, or else as it needs
 * them first. */
enum flags_at entry_flags(const struct trans *t, enum flags_at come);

/* ---- rewrite.c ---- */

/* How the memory operand is addressed in the copy. */
enum addressing {
	ADDR_SUM, /* [T_ADDR + T_INDEX] */
	ADDR_R11, /* [R11 + disp] */
	ADDR_R10,
	ADDR_ABSOLUTE, /* [disp] */
	ADDR_MOVED, /* its own registers and displacement, of which one at most is not there, + R11 */
};
void emit_rewritten(struct emit *e, const struct item *it, enum addressing how, int32_t disp);

/* ---- probe.c: the way memory operands are reached ---- */

/* Leaves the offset within the page in T_ADDR and the host page in T_INDEX. Clobbers flags. */
void emit_probe(struct trans *t, const struct item *it, unsigned size, unsigned align, bool write);
/* The same for [RSP + disp] (or another base register). */
void emit_probe_stack(struct trans *t, const struct item *it, unsigned base, int disp,
		      unsigned size, bool write);
/* lea T_ADDR, effective linear address + extra; or base register + disp. */
void emit_address(struct trans *t, const struct item *it, int extra);
void emit_base_disp(struct trans *t, unsigned base, int disp);
/* Looks T_ADDR up: the jumps of a miss go to from[], their number is returned. Afterwards the
 * offset in the page is in T_ADDR and the host page in T_INDEX. */
unsigned emit_lookup(struct trans *t, unsigned size, unsigned align, bool write, uint8_t *from[2]);
/* The same, but leaves in T_ADDR how far the host page lies from the guest's. */
unsigned emit_lookup_distance(struct trans *t, unsigned size, unsigned align, bool write,
			      uint8_t *from[2]);
/* The same for an operand that RSP alone leads to: the copy of the stack's entry is tried, and made anew in
 * cold code, which goes on to miss->retry; what is added to the cold code next is where that one misses.
 * Returns the jump of an unaligned operand, which goes there, too, or NULL. */
struct cold;
uint8_t *emit_lookup_stack(struct trans *t, const struct cold *miss, unsigned align);
/* The miss's address into T_ADDR. */
void emit_cold_address(struct trans *t, const struct cold *k);
void cold_refill(struct trans *t, const struct cold *k);
/* The register that alone makes the operand's address, with a displacement; or REG_NONE. */
unsigned only_base(const struct item *it);
/* The same for the item's operand + extra where its address is a constant: leaves the host page in
 * T_INDEX; the offset in it is known. False: it is not, or not within a page, or not aligned. */
struct constant_lookup {
	uint8_t *from; /* the jump of a miss */
	unsigned offset;
};
bool emit_lookup_constant(struct trans *t, const struct item *it, int extra, unsigned size,
			  unsigned align, bool write, struct constant_lookup *l);
/* Where the item's operand + extra is known at translation: its address. */
bool constant_address(const struct item *it, int extra, uint64_t *gva);
/* T_ADDR += T_INDEX: one register for the host address. */
void emit_sum(struct emit *e);

/* ---- direct.c: the way memory operands are reached in the window ---- */

/* Are there addresses of the monitor's so near that a displacement leads to them? */
bool direct_is_near_slice(uint64_t gva);
/* May the operand's address be one of the window? */
bool direct_may_reach(const struct trans *t, const struct item *it);
/* Does it depend on registers? */
bool direct_needs_check(const struct span *s);
/* Has the interpreter do the item where the span's registers lead to the monitor's slice. Leaves flags alone
 * that are in the host and wanted. */
void direct_check(struct trans *t, const struct span *s, const struct item *it);
/* What slice of the address space the register leads to, into T_INDEX; compared with LAYOUT_SLICE as a byte.
 * Flags are not wanted. */
void emit_slice_of(struct trans *t, unsigned reg);
/* An instruction whose registers have been asked about. */
void emit_direct(struct trans *t, const struct item *it);
/* The return address of a call, with RSP asked about. */
void direct_push_return(struct trans *t, const struct item *it);
/* The target of an indirect branch, which is in memory, into T_ADDR; flags are parked. False: it has to be
 * looked up. */
bool direct_load_target(struct trans *t, const struct item *it);
/* The next instruction reaches an operand in the window. */
void note_site(struct trans *t, const struct item *it);
/* Keeps what is known of the block's accesses behind its cold code. */
void bt_keep_sites(struct trans *t);

/* ---- span.c: accesses that share a probe ---- */

/* Finds the spans of the block; after decoding. */
void plan_spans(struct trans *t);
/* An instruction whose access is in a span. */
void emit_spanned(struct trans *t, const struct item *it);
/* Looks up the spans whose turn comes before this item, ahead of their first access. */
void probe_early(struct trans *t, unsigned item);
/* The look-up of a span, at a point where its address has moved by `moved` since the block's begin:
 * `bytes` bytes from `low` on. Leaves in T_ADDR the host address of `low`, or of a span that moves how
 * far the host's addresses lie from the guest's. The plain variant goes on at rip. */
void look_span_up(struct trans *t, unsigned span, int moved, int low, unsigned bytes, uint64_t rip);
/* Brings RSP up to date. */
void settle_sp(struct trans *t);
/* After every instruction: is what T_ADDR holds of a span still there? */
void note_held(struct trans *t, const struct item *it);
/* What the instruction does to what is known. */
void note_effects(const struct trans *t, const struct item *it, struct known *k);
/* Keeps the span's host address, or what else T_ADDR holds of it. */
void keep_span(struct trans *t, unsigned span);

/* ---- stack.c: the window's blocks trust RSP ---- */

void stack_begin(struct trans *t);
/* What becomes of RSP by the item, whose span is known; k is what is known of registers after it. */
void stack_note(struct trans *t, unsigned item, const struct known *k);
/* Has RSP asked about before the item; or at the block's end, which goes on at rip. */
void emit_stack_check(struct trans *t, const struct item *it);
void emit_stack_check_end(struct trans *t, uint64_t rip);

/* ---- loop.c: spans that are looked up before a loop ---- */

/* Is the block a loop that spans can be taken out of? Before spans are planned. */
void plan_loop(struct trans *t);
/* Which spans are. */
void plan_hoisting(struct trans *t);
/* The look-ups, and where the loop begins. */
void emit_loop_head(struct trans *t);
/* Is the jump one that goes to where the loop begins? */
bool is_loop_edge(const struct trans *t, const struct item *it);
/* The operand of an access whose span moves with the loop. */
void emit_moving(struct trans *t, const struct item *it);

/* ---- relocate.c ---- */

/* A value at `at`, in the part that is being written, changes in a copy; a jump from hot to cold
 * code is noted when the latter is written. */
void note_reloc(struct trans *t, enum reloc_kind kind, const uint8_t *at);
/* mov reg, guest address */
void mov_rip(struct trans *t, unsigned reg, uint64_t rip);
void jmp_thunk(struct trans *t, const void *thunk);
/* What copies of the block need, whose cold code has so many bytes. */
void bt_keep_template(struct trans *t, size_t cold);

/* ---- system.c ---- */
void emit_system(struct trans *t, struct item *it);

/* ---- string.c ---- */
void emit_rep(struct trans *t, const struct item *it);

/* ---- flow.c ---- */
void emit_flow(struct trans *t, struct item *it);
void store_scratch(struct trans *t);
void emit_call_indirect(struct trans *t, const struct item *it);
void emit_indirect(struct trans *t, const struct item *it, unsigned popped);
void move_sp(struct trans *t, int by);
/* Where `from` jumps to: the block's plain variant, at rip. */
void add_plain_exit(struct trans *t, uint64_t rip, uint8_t *from);
/* Ends the block by going to rip in the present mode. */
void emit_direct_exit(struct trans *t, uint64_t rip);
/* CALL of what is at rip, on the shadow stack. */
void emit_call_exit(struct trans *t, uint64_t rip);
/* Ends the block as emit_direct_exit does, from code that may be run when the code page is somewhere else. */
void emit_far_exit(struct trans *t, uint64_t rip);
/* An indirect jump to T_ADDR. Clobbers flags and T_INDEX. */
void emit_dispatch(struct emit *e, unsigned mode);
void emit_cold(struct trans *t);

/* ---- shadow.c ---- */

/* A direct call whose return address was pushed, and what it returns to. */
void emit_shadow_call(struct trans *t, const struct item *it);
/* An indirect one: what follows goes where it calls. Flags and T_ADDR stay. */
void emit_shadow_call_on(struct trans *t, const struct item *it);
/* A return to T_ADDR; flags are parked. */
void emit_shadow_return(struct emit *e, unsigned mode);

/* ---- translate.c ---- */
struct cold *add_cold(struct trans *t);
/* Where `from` jumps to, flags being parked or dead: back to C, which goes on at rip. */
struct cold *leave_to_c(struct trans *t, uint8_t *from, uint64_t rip);
void emit_item(struct trans *t, struct item *it);
void emit_copy(struct trans *t, const struct item *it);
void emit_lea(struct trans *t, const struct item *it);
void emit_ready(struct trans *t, const struct item *it, unsigned needs);
/* Is something asked of the vCPU that is worth leaving for? Then ZF is clear. Uses T_INDEX. */
void emit_requests(struct emit *e);
/* Leaves the block when something is asked of the vCPU. */
void emit_poll(struct trans *t, const struct item *it);
bool needs_flags(const struct item *it);
bool ends_block(const struct item *it);
/* Brings flags that are wanted later to safety before they are clobbered. */
void flags_clobber(struct trans *t, uint32_t wanted);
/* Carries the instruction out by its helper where the condition holds, in cold code. */
void leave_to_helper(struct trans *t, const struct item *it, unsigned cc);
void flags_to_host(struct trans *t);
/* No home is due: who takes T_INDEX has settled them. */
void flags_park(struct trans *t);
void emit_home_load(struct emit *e, unsigned r);
void emit_home_store(struct emit *e, unsigned r);
void emit_homes_in(struct trans *t, uint16_t regs);
void emit_homes_out(struct trans *t, uint16_t regs);
/* Stores what is due, before T_ADDR and T_INDEX are taken for something else, or the block may be left. */
void settle_homes(struct trans *t);
void emit_helper(struct trans *t, struct item *it, bool end);
unsigned class_of_key(uint16_t key);

#define HOME_MASK ((1u << T_ADDR) | (1u << T_INDEX))

#endif
