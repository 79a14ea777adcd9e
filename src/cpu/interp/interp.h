/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_INTERP_H
#define HANOK_CPU_INTERP_INTERP_H

#include <setjmp.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu/bt/bt_cpu.h"
#include "cpu/decode/insn.h"
#include "cpu/engine.h"
#include "cpu/state/cpu_state.h"
#include "mmu/tlb.h"

/*
 * The inside of the reference engine, shared by its files (and by bt, which falls back to single
 * steps of it). See interp.c for the theory of operation. In short:
 *
 * - A handler (op_fn) carries out one decoded instruction on c->s. On entry s.rip is the address
 *   of the instruction and c->next_rip the address after it; a handler that jumps changes
 *   c->next_rip. The loop then moves next_rip to rip. Handlers for privileged or rare things end
 *   the block (INSN_END in decode/insn.h) so that the loop looks at modes again.
 * - Anything that stops an instruction leaves by longjmp and does not return: cpu_raise (a fault
 *   for the guest), cpu_exit (an exit for machine/). So a handler must not change guest-visible
 *   state before its last access that can fault; where an instruction writes several things, it
 *   checks first (cpu_probe) and writes then.
 * - Port and MMIO accesses and MSR exits are replayed: the first time, the access leaves with an
 *   exit; when run() comes back, the same instruction is carried out again from its start and
 *   finds the answer in c->replay. A handler notices nothing of it.
 */
struct soft_cpu;

/* Completed accesses of the instruction in flight (see above). */
enum { REPLAY_MAX = 128, SOFT_LARGE = 4096 };
struct replay {
	unsigned done; /* answers there */
	unsigned next; /* answers used by this attempt */
	struct {
		enum exit_cause cause;
		uint64_t value;
		bool fault;
	} answer[REPLAY_MAX];
};

struct block_cache;
struct cpuid_model;

struct soft_cpu {
	struct vcpu vcpu; /* first */
	struct cpu_state s;
	uint64_t next_rip;
	struct soft_cpu *self;	      /* for translated code, which knows only %gs */
	struct bt *translator;	      /* the binary translator of the VM, or NULL: interpreted */
	_Atomic bool in_run;	      /* between the begin and the end of run() */
	_Atomic unsigned mem_asked;   /* enum mem_ask: what to forget (forget.c) */
	_Atomic uint32_t mem_answers; /* how often that was done */

	/* Derived from s by cpu_update_mode after anything it depends on has changed: CS, SS, CR0,
	 * CR4, EFER, RFLAGS.VM/AC, CPL, segment bases and limits. */
	uint8_t cpl;
	uint8_t mode;	    /* enum insn_mode, decode/insn.h */
	uint8_t data_class; /* enum mmu_class of ordinary data accesses */
	bool careful;	    /* TF, shadows, breakpoints: one instruction at a time */
	bool careful_near;  /* careful only for breakpoints and watchpoints: blocks may be run where
			      no breakpoint is near */
	uint64_t lin_mask;  /* of linear addresses: all ones in 64-bit mode, else 32 bits */
	uint64_t ip_mask;   /* of RIP: 64, 32 or 16 bits */
	uint64_t
		seg_base[SEG_NR]; /* as address generation adds it: 0 for ES to DS in 64-bit mode */
	uint8_t seg_flat; /* bit n: segment n needs no limit or rights check for data accesses */

	bool align_check;     /* #AC: CR0.AM, RFLAGS.AC, CPL 3 */
	bool watching;	      /* some data is watched, by DR7 or a debugger */
	uint8_t shadow_taken; /* the shadow the instruction in flight began under */
	uint64_t resume_gva;  /* a debugger's breakpoint just reported there, plus 1; else 0 */
	bool watch_hit;	      /* a debugger's watchpoint was met by the instruction in flight */
	uint64_t watch_gva;

	bool vendor_amd; /* of the CPUID the guest sees: the manuals differ in places */
	const struct cpuid_model *cpuid; /* the engine's */
	/* Where TLB entries may be parts of pages over 4 KiB (mode.c): of 2 or 4 MiB, of 1 GiB; by halves. */
	uint64_t large[2][2][SOFT_LARGE];
	bool split_locked; /* this vCPU holds the lock of rmw_lock (access.h) */
	bool break_block;  /* the running block may have changed: look it up anew */
	struct engine *engine;
	struct mem *mem;
	struct vcpu_board board;
	struct vcpu_debug debug;
	uint64_t pending_dr6; /* #DB trap conditions met by the instruction in flight */

	jmp_buf out; /* of the run loop; see cpu_raise */
	struct exit *exit;
	struct replay replay;
	struct {
		uint8_t vector;
		uint8_t kind; /* enum event_kind */
		bool has_error;
		uint32_t error;
		uint64_t cr2;
	} fault; /* what cpu_raise carries to the loop */

	uint64_t away; /* the page that run() has come back for, or UINT64_MAX */

	struct { /* the event being delivered, to tell double faults and to begin again */
		bool active;
		uint8_t vector;
		uint8_t kind;
		bool has_error;
		uint32_t error;
	} delivering;
	enum exit_cause waiting; /* the exit that run() has to complete; EXIT_NR: none */

	struct block_cache *blocks;
	uint8_t *rom_sink;	 /* a page that swallows writes to ROM */
	const struct insn *insn; /* in flight */
	struct tlb tlb;
	struct bt_cpu bt;
};

/* ---- leaving an instruction (leave.c) ---- */

/* A fault (or, for #DB and #BP-like traps, what the vector says) for the guest at the instruction
 * in flight. Vectors that carry an error code (DF, TS, NP, SS, GP, PF, AC) deliver `error`. */
_Noreturn void cpu_raise(struct soft_cpu *c, enum vector vector, uint32_t error);
_Noreturn void cpu_raise_pf(struct soft_cpu *c, uint64_t gva, uint32_t error);
/* The page of guest RAM at gpa is away (mem_page): the instruction, or the delivery of an event, begins again when
 * it is there. */
_Noreturn void cpu_begin_again(struct soft_cpu *c, uint64_t gpa);
#define cpu_gp0(c) cpu_raise((c), VEC_GP, 0)
#define cpu_ud(c) cpu_raise((c), VEC_UD, 0)

/* An MSR the engine does not hold, by exit and replay. Raise #GP(0) when machine/ says so. */
uint64_t cpu_msr_exit_read(struct soft_cpu *c, uint32_t index);
void cpu_msr_exit_write(struct soft_cpu *c, uint32_t index, uint64_t value);
/* Ports, after the permission check (cpu_check_io). size 1, 2, 4. */
uint32_t cpu_in(struct soft_cpu *c, uint16_t port, unsigned size);
void cpu_out(struct soft_cpu *c, uint16_t port, unsigned size, uint32_t value);
uint64_t cpu_mmio_read(struct soft_cpu *c, uint64_t gpa, unsigned size);
void cpu_mmio_write(struct soft_cpu *c, uint64_t gpa, unsigned size, uint64_t value);
/* Between the iterations of a repeated string instruction: what was replayed is done with. */
void cpu_replay_reset(struct soft_cpu *c);
/* HLT: the instruction is done; run() comes back when there may be something to wake for. */
_Noreturn void cpu_exit_halt(struct soft_cpu *c);

/* ---- what is derived from the state (mode.c) ---- */

/* After CS, SS, CR0, CR4, EFER, RFLAGS (VM, AC, TF), DR7, segments or the debug settings changed. */
void cpu_update_mode(struct soft_cpu *c);
/* After CR3, CR0.PG/WP, CR4.PAE/PGE/..., EFER.NXE changed. */
void cpu_flush_tlb(struct soft_cpu *c, bool keep_global);
/* CR3 was loaded: the same, keeping what is global; flush: other copies than the TLB, too. */
void cpu_switch_tlb(struct soft_cpu *c, bool flush);

/* From now on no store to this guest-physical page hits the TLB, nor another copy of its entries. */
void cpu_forbid_writes(struct soft_cpu *c, uint64_t gpa);
/* Remembers that a TLB entry is part of a large page, for INVLPG. */
void cpu_note_page(struct soft_cpu *c, uint64_t gva, const struct mmu_page *page);
/* INVLPG's work: drops translations of one page, whatever its size. */
void cpu_flush_page(struct soft_cpu *c, uint64_t gva);

/* ---- memory (memory.c) ---- */

/*
 * seg:offset accesses of ordinary data, with all segment, canonical, alignment (#AC), paging and
 * watchpoint checks, at the current privilege. offset is already cut to the address size.
 */
uint8_t cpu_read8(struct soft_cpu *c, enum seg_reg seg, uint64_t offset);
uint16_t cpu_read16(struct soft_cpu *c, enum seg_reg seg, uint64_t offset);
uint32_t cpu_read32(struct soft_cpu *c, enum seg_reg seg, uint64_t offset);
uint64_t cpu_read64(struct soft_cpu *c, enum seg_reg seg, uint64_t offset);
void cpu_write8(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, uint8_t v);
void cpu_write16(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, uint16_t v);
void cpu_write32(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, uint32_t v);
void cpu_write64(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, uint64_t v);
/* Any length up to 1024 bytes, all or nothing as to faults. */
void cpu_read(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, void *buf, unsigned len);
void cpu_write(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, const void *buf,
	       unsigned len);
/* Raises what a write (or read) of [offset, offset + len) would raise, and does nothing else. */
void cpu_probe(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned len, bool write);

/* The linear address of seg:offset for an access of len bytes, after the segment checks. */
uint64_t cpu_linear(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned len,
		    bool write);

/*
 * Linear addresses with a given class: for descriptor tables, TSS, stacks of other privilege
 * levels. Raise #PF (and #GP(0) for non-canonical addresses; the caller checks first where another
 * vector is due). len 1 to 128; all or nothing as to faults.
 */
void lin_read(struct soft_cpu *c, uint64_t gva, void *buf, unsigned len, enum mmu_class class);
void lin_write(struct soft_cpu *c, uint64_t gva, const void *buf, unsigned len,
	       enum mmu_class class);
void lin_probe(struct soft_cpu *c, uint64_t gva, unsigned len, enum mmu_class class, bool write);
/* Class of implicit supervisor accesses now (SDM 4.6: SMAP applies to them whatever AC says). */
enum mmu_class cpu_system_class(const struct soft_cpu *c);
bool cpu_is_canonical(uint64_t gva);

/* Effective address (offset in its segment) of an instruction's memory operand. */
uint64_t cpu_ea(const struct soft_cpu *c, const struct insn *i);

/* Stack push and pop of the operand size in bytes (2, 4, 8) on SS:(E/R)SP by the stack's address
 * size. pop changes RSP only after the read has succeeded. */
void cpu_push(struct soft_cpu *c, uint64_t value, unsigned size);
uint64_t cpu_pop(struct soft_cpu *c, unsigned size);
/* Mask of the stack pointer: 16, 32 or 64 bits by SS.B and mode. */
uint64_t cpu_stack_mask(const struct soft_cpu *c);

/* ---- the translator's part (cpu/bt); called when c->translator is set ---- */

/* Runs translated code at s.rip until something has to be looked at, or interprets a block. */
void bt_run(struct soft_cpu *c);
/* A store to [gpa, gpa + len) is about to be made by other means than translated code. */
void bt_note_write(struct soft_cpu *c, uint64_t gpa, unsigned len);
/* Must stores to this page be announced by bt_note_write? */
bool bt_page_has_code(const struct soft_cpu *c, uint64_t gpa);
/* The TLB was flushed. */
void bt_flush_pages(struct soft_cpu *c, bool keep_global);
void bt_flush_page(struct soft_cpu *c, uint64_t gva);
/* The window (cpu/bt/window.c): a timer or device interrupts the vCPU. */
void bt_window_tick(struct soft_cpu *c);
/* All, or one page, of what the TLB may hold of the present address space was flushed, or of others. */
void bt_window_flush(struct soft_cpu *c);
void bt_window_flush_page(struct soft_cpu *c, uint64_t gva);
/* CR3 was loaded, and flushes what is known of this process-context id or not. */
void bt_window_switch(struct soft_cpu *c, bool flush);
/* The vCPU forgets all host addresses. */
void bt_window_close(struct soft_cpu *c);
/* As tlb_forbid_writes. */
void bt_window_forbid_writes(struct soft_cpu *c, uint64_t gpa);
/* Drops all translations and the memory they took. Not on a vCPU's thread. */
void bt_trim(struct bt *bt);
/* VCPU_REQ_ENGINE. */
void bt_take_request(struct soft_cpu *c);

/* What the translator calls (interp.c, memory.c, block.c). */
void interp_run_block(struct soft_cpu *c);
/* Translates one access of at most size bytes within a page and fills the TLB; raises #PF. */
void cpu_fill_tlb(struct soft_cpu *c, uint64_t gva, unsigned size, bool write,
		  enum mmu_class class);

/* ---- system instructions (the files in sys) ---- */

/*
 * Delivers an event through the IDT (or the real-mode vector table): pushes, switches stacks,
 * tasks and modes, and sets s.rip. May raise (the loop turns that into #DF or shutdown).
 * return_rip is what is pushed.
 */
void cpu_deliver(struct soft_cpu *c, uint8_t vector, enum event_kind kind, bool has_error,
		 uint32_t error, uint64_t return_rip);

/* #GP(0) unless IOPL or the TSS's bitmap allows the port range (SDM Vol. 1 ch. 19.5). */
void cpu_check_io(struct soft_cpu *c, uint16_t port, unsigned size);

/* Sets RFLAGS as an instruction may: bits outside mask keep their value; reserved bits right;
 * updates the mode when TF, VM or AC changed. */
void cpu_set_flags(struct soft_cpu *c, uint64_t value, uint64_t mask);

/* MXCSR is about to be loaded: translations depend on whether it masks all exceptions. */
static inline void cpu_note_mxcsr(struct soft_cpu *c, uint32_t v)
{
	uint32_t old;

	memcpy(&old, c->s.xsave.bytes + XSAVE_MXCSR, sizeof(old));
	if ((old ^ v) & 0x1f80)
		c->bt.mode_known = false;
}

/* The x87 state was replaced; these were the low bytes of its control and status words. The same
 * goes for its masks, and for an exception that waits to be reported. */
static inline void cpu_note_x87(struct soft_cpu *c, uint8_t fcw, uint8_t fsw)
{
	const uint8_t *now = c->s.xsave.bytes;

	if (((now[XSAVE_FCW] ^ fcw) & 0x3f) || ((now[XSAVE_FSW] ^ fsw) & 0x80))
		c->bt.mode_known = false;
}

/* The handler of a system instruction, or NULL when the mnemonic is none. Sets i's flags. */
typedef void op_fn(struct soft_cpu *c, const struct insn *i);

#endif
