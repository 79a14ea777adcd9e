/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_BT_BT_H
#define HANOK_TESTS_BT_BT_H

#include "../truth/truth.h"
#include "cpu/engine.h"
#include "layout.h"
#include "smp.h"

/*
 * Tests of the binary translator by comparison: a program runs to its end on two little machines
 * (box.c), one interpreted, one translated, and everything it leaves must be the same. The
 * interpreter is held against the host CPU by tests/truth.
 */

/* ---- programs ---- */

enum fix {
	FIX_NONE,
	FIX_REL8,  /* distance to node `to` */
	FIX_REL32, /* the same */
	FIX_ABS32, /* address of node `to` */
	FIX_ABS64,
	FIX_DATA,    /* RIP-relative distance to address `target` */
	FIX_CODE,    /* `target` + offset of node `to` */
	FIX_CODE_RIP /* RIP-relative distance to that */
};

enum { NODES_MAX = 1536, SLOTS_MAX = 64, NODE_NONE = 0xffff };

/* An instruction of a program. Jumps name nodes, so that some can be left out (shrinking). */
struct node {
	uint8_t bytes[24]; /* of one, or of two that belong together */
	uint8_t length;
	uint8_t second; /* length of the second one */
	uint8_t fix, fix_at;
	bool frame;   /* scaffolding: never left out alone */
	bool trap;    /* the handler goes on after it without the table */
	bool gone;    /* left out */
	uint16_t to;  /* a node */
	uint16_t gap; /* bytes of junk before it */
	uint32_t target;
	uint16_t offset; /* in the code pages, after layout */
	/* Arithmetic flags, as far as the decoder says; a branch wants them all. */
	uint16_t flags_read, flags_written;
	bool flags_end; /* what comes next is not known */
};

struct program {
	uint64_t seed, number;
	bool mode32;
	bool writable; /* code may be written */
	bool moved;    /* runs at two high addresses, one after the other */
	bool wild;     /* bytes were changed at random after layout */
	unsigned count;
	struct node node[NODES_MAX];
	unsigned slots;
	struct {
		uint16_t at; /* in the safe page */
		uint16_t to; /* a node, whose address goes there */
	} slot[SLOTS_MAX];
	uint64_t gpr[16], rflags;
	alignas(16) uint8_t fx[FX_BYTES];
	uint8_t ymmh[YMMH_BYTES];
	uint16_t start; /* offset of the first node */
	uint32_t wild_seed;
	/* Made by layout: */
	unsigned bytes;
	uint8_t code[CODE_BYTES];
	uint8_t alt[ALT_BYTES];
	uint16_t next[CODE_BYTES];    /* offset of the following instruction, or 0 */
	uint16_t node_at[CODE_BYTES]; /* or NODE_NONE */
};

/* Makes program `number` of a seed. forms: of forms_init. */
void program_make(struct program *p, uint64_t seed, uint64_t number, unsigned forms);
/* Places the nodes that are there. False: they do not fit. */
bool program_layout(struct program *p);
void program_print(const struct program *p);
/* What the data pages hold at the start; DATA_BYTES. */
void pristine_fill(uint8_t *data, uint64_t seed, uint64_t number);
/* Arithmetic flags whose value at this node can make a difference to what follows. */
uint32_t program_live_flags(const struct program *p, unsigned node);

/* ---- making instructions (asm.c) ---- */

struct gen {
	struct rng r;
	struct program *p;
	unsigned forms;
	uint32_t reserved; /* registers that keep their value, a mask */
	uint8_t pointer[3], pointers;
	uint8_t index;
	uint8_t hot[2];		/* registers used more than others */
	unsigned fault_percent; /* of memory accesses */
	unsigned loops;		/* counters used */
	/* Instructions that others change: ADD with an immediate, operations on EAX that differ in
	 * the opcode, conditional jumps; and those that do it. */
	struct {
		unsigned count, writers;
		uint16_t node[32], writer[32];
	} soft[3];
	uint16_t area; /* a node with room for code, or NODE_NONE */
	unsigned copies;
	uint16_t copy[16]; /* nodes that load the address of a function to copy there */
};

/* The registers there are: 16 or 8. */
static inline unsigned regs_of(const struct gen *g)
{
	return g->p->mode32 ? 8 : 16;
}

struct node *add_node(struct gen *g);
struct node *add_bytes(struct gen *g, const void *bytes, unsigned n);
/* A random instruction of a form; NULL when it cannot be had. */
struct node *add_form(struct gen *g, const struct iform *f);
struct node *add_random(struct gen *g);
void add_mov_ri(struct gen *g, unsigned reg, uint64_t v);
/* OPCODE reg, [address] (or [address], reg) of 4 or 8 bytes, at an absolute or RIP-relative address. */
struct node *add_absolute(struct gen *g, uint8_t opcode, unsigned reg, uint32_t address, bool wide);
struct node *add_reg_reg(struct gen *g, uint8_t opcode, unsigned reg, unsigned rm, bool wide);
unsigned some_free_reg(struct gen *g);
/* One of the lower eight, for what needs no REX; there are more of those than can be reserved. */
unsigned some_low_reg(struct gen *g);
uint32_t some_address(struct gen *g, unsigned bytes);

/* ---- the machine (box.c) ---- */

/* At GPA_PARAMS; P_* in layout.h. */
struct params {
	uint64_t copy;
	uint64_t log_count, log_limit;
	uint64_t irqs;
	uint64_t swaps;
	uint64_t again;
	uint64_t frame[22];
};

/* At GPA_LOG. */
struct event {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, cr2;
	uint64_t unused[2];
};

struct box;
struct box_cpu {
	struct box *box;
	struct vcpu *vcpu;
	_Atomic bool ipi; /* an interrupt from the other one */
};
enum { BOX_CPUS = 2 };

struct box {
	const char *engine_name;
	const struct engine_ops *ops;
	struct mem *mem;
	struct engine_config config;
	struct engine *engine;
	struct box_cpu cpu[BOX_CPUS];
	struct vcpu *vcpu; /* of cpu[0] */
	struct cpu_state start, state;
	uint8_t *ram;
	/* Interrupts: how often one that is asked for comes, in percent. */
	unsigned irq_percent;
	bool irq_level; /* it is asked for all the time */
	struct rng irq_rng;
	uint64_t patience_ms; /* that a run may take */
	/* Answers an exit, so that the run may go on; NULL: every exit ends it. */
	bool (*answer)(struct box *b);
	/* How the last run ended. */
	enum exit_cause cause;
	bool late; /* it took longer */
	struct exit exit;
};
enum { IRQ_VECTOR = 0x40 };
#define BOX_RAM_BYTES (UINT64_C(16) << 20)

/* code_cache_bytes: 0 for the engine's choice. */
int box_create(struct box **out, const char *engine, unsigned cpus, uint64_t code_cache_bytes,
	       struct error *err);
void box_destroy(struct box *b);
/* From now on interrupts come at random; at each boundary with HANOK_BT_STRESS=interrupts. */
void box_start_interrupts(struct box *b, unsigned percent);
void box_put64(struct box *b, uint64_t gpa, uint64_t v);
uint64_t box_get64(const struct box *b, uint64_t gpa);
/* Page tables, descriptors and kernel as at the start. */
void box_reset_memory(struct box *b);
/* Writes a program, its data and its registers to where the kernel loads them from, with b->state
 * at the kernel's start. */
void box_load_program(struct box *b, const struct program *p, const uint8_t *pristine);
/* Loads a program with the contents of the data pages, and runs it to its end. */
void box_run_program(struct box *b, const struct program *p, const uint8_t *pristine);
/* Runs from b->state until something other than a kick, or until it is late. */
void box_run(struct box *b);
static inline struct params *box_params(struct box *b)
{
	return (struct params *)(b->ram + GPA_PARAMS);
}
static inline const struct event *box_event(const struct box *b, unsigned n)
{
	return (const struct event *)(b->ram + GPA_LOG + n * L_BYTES);
}

/* ---- comparison (compare.c) ---- */

/* True when both machines did the same. When not, `why` gets a line. */
bool boxes_agree(const struct program *p, struct box *a, struct box *b, char why[256]);
void print_event(const struct program *p, const struct event *e);

#endif
