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
};

enum { ITEMS_MAX = 48 };

/* One guest instruction on its way through the translator. */
struct item {
	struct decoded d;
	struct insn i;
	enum kind kind;
	uint64_t rip;
	uint16_t reads, writes; /* general registers, operands and implicit ones, not addressing */
	uint16_t address;	/* general registers in the memory operand's address */
	uint16_t mem_bytes;
	uint8_t align; /* of the memory operand, or 0 */
	bool mem_read, mem_write;
	bool vec;			    /* needs the vector state loaded */
	uint32_t flags_read, flags_written; /* arithmetic flags */
	uint32_t live_before, live_after;
};

/* A block being translated. */
struct trans {
	struct bt *bt;
	struct soft_cpu *c;
	struct bt_block *b;
	struct emit e;
	uint16_t key; /* MODE_KEY_* at this point (STAC and CLAC change it) */
	enum flags_at flags;
	bool vec_ready;
	bool failed; /* out of some resource */
	unsigned count;
	struct item item[ITEMS_MAX];

	/* Code that is put behind the block: probes' misses and exits. */
	struct cold {
		enum { COLD_MISS, COLD_LEAVE, COLD_EXIT, COLD_VEC, COLD_HELPER, COLD_GROUP } kind;
		const struct item *it;
		uint8_t *from;	      /* jump to patch */
		const uint8_t *retry; /* as it runs */
		uint8_t *resume;      /* where to go on, writable view */
		enum flags_at resume_flags;
		bool resume_vec; /* the vector state is loaded there */
		uint64_t rip;
		struct bt_exit *exit;
		uint8_t size, write, class;
		int16_t stack_disp; /* the address is [RSP + this] where there is no operand */
		bool by_stack;
		unsigned base;	       /* of by_stack */
		unsigned first, count; /* of COLD_GROUP: the items */
		uint16_t key;	       /* the mode where they are */
		enum flags_at start_flags;
	} cold[12 * ITEMS_MAX];
	unsigned colds;
};

/* ---- classify.c ---- */
void classify(struct trans *t, struct item *it);
/* Finds the interpreter's handler, which only helpers need. */
void item_select(struct item *it);

/* ---- rewrite.c ---- */

/* How the memory operand is addressed in the copy. */
enum addressing { ADDR_SUM, /* [T_ADDR + T_INDEX] */ ADDR_R11, /* [R11 + disp] */ ADDR_R10 };
void emit_rewritten(struct emit *e, const struct item *it, enum addressing how, int32_t disp);

/* ---- probe.c: the way memory operands are reached ---- */

/* Leaves the offset within the page in T_ADDR and the host page in T_INDEX. Clobbers flags. */
void emit_probe(struct trans *t, const struct item *it, unsigned size, unsigned align, bool write);
/* The same for [RSP + disp] (or another base register). */
void emit_probe_stack(struct trans *t, const struct item *it, unsigned base, int disp,
		      unsigned size, bool write);
/* For bytes [base + disp, + span): leaves the host address of base + disp in T_ADDR. Returns the
 * jumps of a miss in from[], their number in *count. */
void emit_probe_span(struct trans *t, unsigned base, int disp, unsigned span, unsigned align,
		     bool write, uint8_t *from[2], unsigned *count);
/* lea T_ADDR, effective linear address. */
void emit_address(struct trans *t, const struct item *it);
/* T_ADDR += T_INDEX: one register for the host address. */
void emit_sum(struct emit *e);

/* ---- group.c ---- */

/* Accesses off one base register that share a probe. */
struct group {
	unsigned count; /* of items; 0: no group here */
	unsigned base;
	int low, high; /* offsets from the base's value at the start */
	unsigned align;
	bool write;
	bool vec;
};
void plan_group(const struct trans *t, unsigned first, struct group *g);
void emit_group(struct trans *t, unsigned first, const struct group *g);
void emit_cold_group(struct trans *t, const struct cold *k);

/* ---- system.c ---- */
void emit_system(struct trans *t, struct item *it);

/* ---- string.c ---- */
void emit_rep(struct trans *t, const struct item *it);

/* ---- flow.c ---- */
void emit_flow(struct trans *t, struct item *it);
void store_scratch(struct trans *t);
void emit_indirect(struct trans *t, const struct item *it, unsigned popped);
void move_sp(struct trans *t, int by);
/* Ends the block by going to rip in the present mode. */
void emit_direct_exit(struct trans *t, uint64_t rip);
void emit_cold(struct trans *t);

/* ---- translate.c ---- */
struct cold *add_cold(struct trans *t);
void emit_item(struct trans *t, struct item *it);
void emit_copy(struct trans *t, const struct item *it);
void emit_lea(struct trans *t, const struct item *it);
void emit_vec_ready(struct trans *t, const struct item *it);
bool needs_flags(const struct item *it);
void e_rr(struct emit *e, bool w, uint8_t opcode, unsigned reg, unsigned rm);
/* Brings flags that are wanted later to safety before they are clobbered. */
void flags_clobber(struct trans *t, uint32_t wanted);
/* Carries the instruction out by its helper where the condition holds, in cold code. */
void leave_to_helper(struct trans *t, const struct item *it, unsigned cc);
void flags_to_host(struct trans *t);
void flags_park(struct trans *t);
void emit_home_load(struct emit *e, unsigned r);
void emit_home_store(struct emit *e, unsigned r);
void emit_homes_in(struct trans *t, uint16_t regs);
void emit_homes_out(struct trans *t, uint16_t regs);
void emit_helper(struct trans *t, struct item *it, bool end);
unsigned class_of_key(uint16_t key);

#define HOME_MASK ((1u << T_ADDR) | (1u << T_INDEX))

#endif
