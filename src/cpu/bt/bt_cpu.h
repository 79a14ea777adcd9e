/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_BT_BT_CPU_H
#define HANOK_CPU_BT_BT_CPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "cpu/decode/insn.h"

/*
 * What translated code keeps for one vCPU beside its architectural state; part of struct soft_cpu,
 * reached through %gs at fixed offsets (bt.h explains).
 */
enum {
	BT_MODES = 8,	       /* translation modes in use at a time */
	BT_CODE_PAGES = 16384, /* slots of page_id, a mode */
	BT_JUMPS = 131072,     /* slots of jump, a mode */
	BT_FILLED_MAX = 2048,
	BT_SPANS = 24, /* of a block */
	BT_SLOW = 256, /* decoded instructions of slow accesses */
	BT_TRAPS = 16, /* at a time */
};
#define BT_NO_EXIT UINT32_MAX

/* Slot of an indirect jump to rip; translated code computes the same (flow.c). */
#define BT_JUMP_HASH UINT32_C(0x9e3779b1)
enum { BT_JUMP_SHIFT = 15, BT_SLICES_SHIFT = 32 };
static inline unsigned bt_jump_slot(uint64_t rip)
{
	return ((uint32_t)rip * BT_JUMP_HASH) >> BT_JUMP_SHIFT;
}

struct bt_access;
struct bt_arena;
struct bt_exit;
struct bt_block;

struct bt_cpu {
	uint64_t host_rsp;
	uint64_t resume;	   /* where a thunk goes on in translated code */
	uint64_t shadow[BT_MODES]; /* the shadow stacks' pointers (shadow.c) */
	uint8_t *shadow_memory;
	uint8_t *handler_stack;	 /* of the thread's signals (signals.c) */
	uint64_t scratch;	 /* the target of a CALL through memory */
	uint64_t span[BT_SPANS]; /* host addresses that a block keeps (span.c) */
	uint64_t loop_end;	 /* of the loop that is running (loop.c) */
	uint32_t flags;		 /* parked arithmetic flags: AX after LAHF and SETO AL */
	uint32_t loaded;	 /* LOADED_*: what is in the host's vector and x87 registers */
	uint32_t host_mxcsr;
	uint32_t request_mask; /* requests worth leaving for: not interrupts while IF is clear */
	uint32_t from;	      /* index of the indirect branch run last (bt.exits), for its faults */
	uint32_t left_by;     /* index of a direct jump that is not linked yet, or BT_NO_EXIT */
	struct bt_exit *exit; /* that one, or NULL */

	/* Where there is a window: what has a byte for each 4 GiB of the user half but for those of the
	 * monitor's slice. */
	const uint8_t *slices;
	/* A fault in the window, as the handler of SIGSEGV found it. */
	struct bt_fault {
		const void *at; /* the host's instruction */
		uint64_t rip;	/* the guest's */
		uint64_t gva;	/* UINT64_MAX: not known (#GP) */
		uint64_t r10, r11, flags;
		uint32_t block; /* index */
		bool write, flags_in_host, may_probe;
	} fault;

	/* Code that does not look for requests (poke.c): it may be running; whose thread that is; what has that called
	 * again; and what has been changed so that it is left. */
	_Atomic bool unpolled;
	bool can_be_poked, poked;
	pthread_t thread;
	timer_t again;
	long again_ns;
	struct bt_trap {
		const uint8_t *at;
		uint8_t byte;	/* that was there */
		uint32_t block; /* index */
	} trap[BT_TRAPS];
	unsigned traps;
	/* Since that time (clock_ns) there were so many pokes; until that time, or 0, code looks for requests. */
	unsigned pokes;
	uint64_t pokes_since, polls_until;

	/* Where translated code goes on that the host would not come back to, and with which RSP (signals.c). */
	struct {
		uint64_t rsp, at;
	} refused;

	uint8_t mode;	 /* index of the translation mode; valid when mode_known */
	bool mode_known; /* cleared by cpu_update_mode */
	bool runnable;	 /* this mode is translated at all */

	/* Which code page (by its id, see cache.c) is mapped at a gva now; 0: not known. */
	uint32_t page_id[BT_MODES][BT_CODE_PAGES];
	/* Slots of page_id filled since the last flush: mode * BT_CODE_PAGES + index. */
	uint32_t filled[BT_FILLED_MAX];
	unsigned fills;

	/* Blocks that C has entered, to enter them again without the lock. */
	struct {
		uint64_t rip;
		struct bt_block *block;
		const void *where;
	} lookup[BT_JUMPS];

	/* Instructions that the interpreter did because their operand ran over a page's end or had
	 * no page in RAM; they will do so again. */
	struct {
		const void *access; /* of a missed access, or the instruction that faulted */
		uint32_t flushes;   /* bt.flushes when it was decoded */
		struct insn insn;
	} slow[BT_SLOW];

	/* What vCPUs want to know of each other (share.c). */
	_Atomic uint32_t acked;	     /* twice the requests seen to; odd while one is */
	_Atomic bool behind;	     /* was asked while it was out, and has not been waited for */
	_Atomic bool aside;	     /* waits for the lock, or will take it before anything else */
	_Atomic uint64_t making[2];  /* pages whose code is being translated, their gpa | 1 */
	bool stale;		     /* one of them was written to meanwhile */
	_Atomic uint64_t writing[4]; /* pages that this instruction writes to, their gpa | 1 */
	unsigned writes;
	struct bt_arena *arena; /* where its translations are made (arena.c) */

	/* Where indirect jumps go, by the low bits of RIP: a checking entry of some block. */
	const void *jump[BT_MODES][BT_JUMPS];
};

#endif
