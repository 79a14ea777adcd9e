/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/block.h"
#include "cpu/interp/loop.h"
#include "cpu/interp/soft_engine.h"
#include "cpu/state/msr.h"

/*
 * The reference engine: theory of operation.
 *
 * run() goes round three loops, one inside the other (the first with event.c):
 *
 *   boundary   requests (INIT, SIPI, NMI, interrupts), halting, breakpoints, single steps: what may
 *              happen between two instructions, in the manual's order (SDM Vol. 3, 6.9);
 *   block      a run of decoded instructions (block.c), looked up by guest-physical address;
 *   insn       one handler call.
 *
 * As long as nothing special is on (`careful`: TF, RF, interrupt shadows, breakpoints, a replay),
 * only the request word is looked at between blocks. Otherwise blocks are one instruction long.
 *
 * Handlers leave by longjmp (leave.c) to the setjmp in run(): with LEAVE_FAULT an exception is delivered and
 * the loop goes on; with LEAVE_EXIT run() returns. Since handlers change nothing before their last
 * access that can fault, s.rip and the registers are then those of the instruction's start.
 *
 *        run() ---> boundary ---> block ---> insn ---> handler
 *         ^  ^                                            |
 *         |  +---- LEAVE_FAULT: deliver through the IDT --+
 *         +------- LEAVE_EXIT: answer comes with the next run(), replayed
 *         +------- LEAVE_AGAIN: a page is fetched, and the instruction begins again
 */
#define DR6_BS (UINT64_C(1) << 14) /* single step */

static uint64_t linear_rip(const struct soft_cpu *c)
{
	return c->mode == MODE_64 ? c->s.rip : (uint32_t)(c->s.seg[SEG_CS].base + c->s.rip);
}

/* Instruction breakpoints at the next instruction. True: run() returns (a debugger's). */
static bool check_breakpoints(struct soft_cpu *c)
{
	uint64_t gva = linear_rip(c);
	uint64_t hit = 0;

	for (unsigned n = 0; n < c->debug.points; n++) {
		if (!c->debug.point[n].len && c->debug.point[n].gva == gva &&
		    c->resume_gva != gva + 1) {
			c->exit->cause = EXIT_DEBUG;
			c->exit->debug.kind = EXIT_DEBUG_BREAKPOINT;
			c->exit->debug.gva = gva;
			c->resume_gva = gva + 1; /* the next run() steps over it */
			return true;
		}
	}
	c->resume_gva = 0;
	if (c->s.rflags & FLAG_RF)
		return false;
	for (unsigned n = 0; n < 4; n++)
		if ((c->s.dr7 >> (2 * n) & 3) && !(c->s.dr7 >> (16 + 4 * n) & 3) &&
		    c->s.dr[n] == gva)
			hit |= UINT64_C(1) << n;
	/* A fault, but pushed with RF as it is, clear: setting it is the handler's part (SDM
	 * 17.3.1.1). */
	if (hit)
		cpu_debug_exception(c, hit);
	return false;
}

static bool keeps_rf(const struct insn *i)
{
	return i->mnemonic == ZYDIS_MNEMONIC_IRET || i->mnemonic == ZYDIS_MNEMONIC_IRETD ||
	       i->mnemonic == ZYDIS_MNEMONIC_IRETQ;
}

/* Single-step trap of an instruction that began with TF set: those that deliver an event or load
 * RFLAGS on a privilege change trap only if TF is still set after them. */
static bool steps_by_new_tf(const struct insn *i)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INTO:
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSENTER:
		return true;
	default:
		return false;
	}
}

/* What the last instruction has met: watched data, a single step. True: run() returns. */
static bool take_traps(struct soft_cpu *c, bool step)
{
	if (c->watch_hit) {
		c->watch_hit = false;
		c->exit->cause = EXIT_DEBUG;
		c->exit->debug.kind = EXIT_DEBUG_WATCHPOINT;
		c->exit->debug.gva = c->watch_gva;
		return true;
	}
	if (c->s.shadow != SHADOW_MOV_SS) {
		uint64_t dr6 = c->pending_dr6 | (step ? DR6_BS : 0);
		if (dr6)
			cpu_debug_exception(c, dr6);
	}
	return false;
}

/* One instruction with everything that can be special about it. True: run() returns. */
static bool step_careful(struct soft_cpu *c)
{
	uint64_t flags, start;
	uint8_t shadow = c->s.shadow;

	if (!c->replay.done && check_breakpoints(c))
		return true;
	flags = c->s.rflags;
	start = c->s.rip;

	const struct block *b = block_find_one(c);
	const struct insn *i = b->insn;
	c->s.shadow = SHADOW_NONE;
	c->shadow_taken = shadow;
	c->insn = i;
	c->next_rip = (c->s.rip + i->length) & c->ip_mask;
	c->watch_hit = false;
	i->fn(c, i);
	c->s.rip = c->next_rip;
	c->vcpu.stats.instructions++;
	cpu_replay_reset(c);
	c->shadow_taken = SHADOW_NONE;

	/* RF ends with the instruction; not between the iterations of a repeated one. */
	if ((flags & FLAG_RF) && !keeps_rf(i) && (c->s.rflags & FLAG_RF) && c->s.rip != start) {
		c->s.rflags &= ~FLAG_RF;
		cpu_update_mode(c);
	}
	bool trap = flags & FLAG_TF;
	/* BTF: only where a branch was taken (SDM Vol. 3, 17.4.3). */
	if (c->s.debugctl & DEBUG_CTL_BTF)
		trap = trap && c->s.rip != ((start + i->length) & c->ip_mask);
	if (steps_by_new_tf(i))
		trap = trap && (c->s.rflags & FLAG_TF);
	if (take_traps(c, trap))
		return true;
	if (c->debug.step) {
		c->exit->cause = EXIT_DEBUG;
		c->exit->debug.kind = EXIT_DEBUG_STEP;
		c->exit->debug.gva = c->s.rip;
		return true;
	}
	return false;
}

void interp_run_block(struct soft_cpu *c)
{
	const struct block *b = block_find(c);
	const struct insn *i = b->insn, *end = i + b->count;

	c->break_block = false;
	c->vcpu.stats.instructions += b->count;
	do {
		c->insn = i;
		c->next_rip = (c->s.rip + i->length) & c->ip_mask;
		i->fn(c, i);
		c->s.rip = c->next_rip;
		i++;
	} while (i < end && !c->break_block);
	c->vcpu.stats.instructions -= (uint64_t)(end - i);
}

/* Breakpoints on instructions ask for care only in blocks that may hold one; what is watched ends
 * the block (memory.c). */
static bool can_run_block(const struct soft_cpu *c)
{
	uint64_t gva = linear_rip(c);

	if (!c->careful_near || c->s.shadow || c->replay.done)
		return false;
	for (unsigned n = 0; n < 4; n++)
		if ((c->s.dr7 >> (2 * n) & 3) && c->s.dr[n] - gva < BLOCK_BYTES)
			return false;
	for (unsigned n = 0; n < c->debug.points; n++)
		if (c->debug.point[n].gva - gva < BLOCK_BYTES)
			return false;
	return true;
}

/* A block, which ends early where watched data is met. True: run() returns. */
static bool run_block_watched(struct soft_cpu *c)
{
	c->watch_hit = false;
	interp_run_block(c);
	return take_traps(c, false);
}

/* Between instructions: true when run() has to return. */
static bool boundary(struct soft_cpu *c)
{
	uint32_t req = atomic_load_explicit(&c->vcpu.requests, memory_order_acquire);

	if (unlikely(req & VCPU_REQ_MEM)) {
		soft_take_mem(c);
		req = atomic_load(&c->vcpu.requests);
	}
	/* Traps of the last instruction that are not only met when careful: the T bit of a task
	 * switch. They come before interrupts (SDM table 6-2). */
	if (unlikely(c->pending_dr6) && !c->replay.done && c->s.shadow != SHADOW_MOV_SS)
		cpu_debug_exception(c, c->pending_dr6);
	if ((req || c->s.nmi_pending) && cpu_take_requests(c, req))
		return true;
	if (likely(c->s.activity == ACTIVITY_RUNNING))
		return false;
	if (c->s.activity == ACTIVITY_SHUTDOWN) {
		c->exit->cause = EXIT_SHUTDOWN;
		return true;
	}
	c->exit->cause = EXIT_HLT;
	c->exit->hlt.wake_mask = VCPU_REQ_KICK | VCPU_REQ_INIT | VCPU_REQ_SIPI;
	if (c->s.activity == ACTIVITY_HALTED) {
		c->exit->hlt.wake_mask = VCPU_REQ_KICK | VCPU_REQ_INIT | VCPU_REQ_NMI;
		if (c->s.rflags & FLAG_IF)
			c->exit->hlt.wake_mask |= VCPU_REQ_IRQ;
	}
	return true;
}

static void run(struct soft_cpu *c)
{
	switch (setjmp(c->out)) {
	case 0:
		if (c->s.event_pending)
			cpu_deliver_pending(c);
		break;
	case LEAVE_FAULT:
		c->break_block = false;
		c->shadow_taken = SHADOW_NONE;
		cpu_handle_fault(c);
		break;
	case LEAVE_AGAIN:
		cpu_take_back(c);
		return;
	default:
		c->replay.next = 0;
		if (c->s.activity == ACTIVITY_RUNNING) {
			c->s.shadow |= c->shadow_taken;
			return;
		}
		cpu_replay_reset(c);
		break; /* HLT: boundary() makes its exit */
	}
	for (;;) {
		if (boundary(c))
			return;
		if (unlikely(c->careful || c->s.shadow || c->replay.done)) {
			if (can_run_block(c) ? run_block_watched(c) : step_careful(c))
				return;
		} else {
			/* RF ends with the next instruction; almost every page fault's IRET sets
			 * it. */
			c->s.rflags &= ~FLAG_RF;
			if (c->translator)
				bt_run(c);
			else
				interp_run_block(c);
		}
	}
}

/* What others asked for while this vCPU was out comes before anything touches memory. */
static void enter(struct soft_cpu *c)
{
	atomic_store(&c->in_run, true);
	uint32_t req = atomic_load(&c->vcpu.requests);
	if (req & VCPU_REQ_MEM)
		soft_take_mem(c);
	if (req & VCPU_REQ_ENGINE)
		bt_take_request(c);
}

void soft_run(struct vcpu *v, struct exit *exit)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	cpu_complete_exit(c, exit);
	c->exit = exit;
	for (;;) {
		c->away = UINT64_MAX;
		enter(c);
		run(c);
		atomic_store(&c->in_run, false);
		if (c->away == UINT64_MAX)
			return;
		mem_fetch(c->mem, c->away);
	}
}
