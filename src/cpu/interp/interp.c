/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/interp/access.h"
#include "cpu/interp/block.h"
#include "cpu/interp/engine_interp.h"
#include "cpu/interp/soft_engine.h"
#include "cpu/state/host.h"
#include "cpu/state/msr.h"

/*
 * The reference engine: theory of operation.
 *
 * run() goes round three loops, one inside the other:
 *
 *   boundary   requests (INIT, SIPI, NMI, interrupts), halting, breakpoints, single steps: what may
 *              happen between two instructions, in the manual's order (SDM Vol. 3, 6.9);
 *   block      a run of decoded instructions (block.c), looked up by guest-physical address;
 *   insn       one handler call.
 *
 * As long as nothing special is on (`careful`: TF, RF, interrupt shadows, breakpoints, a replay),
 * only the request word is looked at between blocks. Otherwise blocks are one instruction long.
 *
 * Handlers leave by longjmp to the setjmp in run(): with LEAVE_FAULT an exception is delivered and
 * the loop goes on; with LEAVE_EXIT run() returns. Since handlers change nothing before their last
 * access that can fault, s.rip and the registers are then those of the instruction's start.
 *
 *        run() ---> boundary ---> block ---> insn ---> handler
 *         ^  ^                                            |
 *         |  +---- LEAVE_FAULT: deliver through the IDT --+
 *         +------- LEAVE_EXIT: answer comes with the next run(), replayed
 */
enum leave { LEAVE_FAULT = 1, LEAVE_EXIT };

#define DR6_BS (UINT64_C(1) << 14) /* single step */

/* ---- leaving an instruction ---- */

_Noreturn static void leave(struct soft_cpu *c, enum leave how)
{
	rmw_unlock(c);
	longjmp(c->out, how);
}

static bool vector_has_error(enum vector v)
{
	const uint32_t with = 1u << VEC_DF | 1u << VEC_TS | 1u << VEC_NP | 1u << VEC_SS |
			      1u << VEC_GP | 1u << VEC_PF | 1u << VEC_AC;

	return with >> v & 1;
}

void cpu_raise(struct soft_cpu *c, enum vector vector, uint32_t error)
{
	c->fault.vector = vector;
	c->fault.kind = EVENT_EXCEPTION;
	c->fault.has_error = vector_has_error(vector);
	c->fault.error = error;
	leave(c, LEAVE_FAULT);
}

void cpu_raise_pf(struct soft_cpu *c, uint64_t gva, uint32_t error)
{
	c->fault.cr2 = gva;
	cpu_raise(c, VEC_PF, error);
}

/* ---- exits and their replay ---- */

/* The answer to the next external access of this instruction, if it was made before. */
static bool replayed(struct soft_cpu *c, enum exit_cause cause, uint64_t *value, bool *fault)
{
	struct replay *r = &c->replay;

	if (r->next >= r->done)
		return false;
	/* The same instruction makes the same accesses in the same order. */
	if (r->answer[r->next].cause != cause) {
		c->exit->cause = EXIT_ERROR;
		c->exit->error.code = -EPROTO;
		strcpy(c->exit->error.text, "an instruction took another path when it was resumed");
		c->waiting = EXIT_NR;
		leave(c, LEAVE_EXIT);
	}
	*value = r->answer[r->next].value;
	*fault = r->answer[r->next].fault;
	r->next++;
	return true;
}

_Noreturn static void leave_waiting(struct soft_cpu *c, enum exit_cause cause)
{
	c->exit->cause = cause;
	c->waiting = cause;
	leave(c, LEAVE_EXIT);
}

uint64_t cpu_mmio_read(struct soft_cpu *c, uint64_t gpa, unsigned size)
{
	uint64_t v;
	bool fault;

	if (replayed(c, EXIT_MMIO_READ, &v, &fault))
		return v & size_mask(size);
	c->exit->mmio.gpa = gpa;
	c->exit->mmio.size = (uint8_t)size;
	c->exit->mmio.data = UINT64_MAX;
	leave_waiting(c, EXIT_MMIO_READ);
}

void cpu_mmio_write(struct soft_cpu *c, uint64_t gpa, unsigned size, uint64_t value)
{
	uint64_t v;
	bool fault;

	if (replayed(c, EXIT_MMIO_WRITE, &v, &fault))
		return;
	c->exit->mmio.gpa = gpa;
	c->exit->mmio.size = (uint8_t)size;
	c->exit->mmio.data = value & size_mask(size);
	leave_waiting(c, EXIT_MMIO_WRITE);
}

uint32_t cpu_in(struct soft_cpu *c, uint16_t port, unsigned size)
{
	uint64_t v;
	bool fault;

	if (replayed(c, EXIT_PIO_IN, &v, &fault))
		return (uint32_t)(v & size_mask(size));
	c->exit->pio.port = port;
	c->exit->pio.size = (uint8_t)size;
	c->exit->pio.data = UINT32_MAX;
	leave_waiting(c, EXIT_PIO_IN);
}

void cpu_out(struct soft_cpu *c, uint16_t port, unsigned size, uint32_t value)
{
	uint64_t v;
	bool fault;

	if (replayed(c, EXIT_PIO_OUT, &v, &fault))
		return;
	c->exit->pio.port = port;
	c->exit->pio.size = (uint8_t)size;
	c->exit->pio.data = (uint32_t)(value & size_mask(size));
	leave_waiting(c, EXIT_PIO_OUT);
}

uint64_t cpu_msr_exit_read(struct soft_cpu *c, uint32_t index)
{
	uint64_t v;
	bool fault;

	if (replayed(c, EXIT_RDMSR, &v, &fault)) {
		if (fault)
			cpu_gp0(c);
		return v;
	}
	c->exit->msr.index = index;
	c->exit->msr.fault = false;
	c->exit->msr.value = 0;
	leave_waiting(c, EXIT_RDMSR);
}

void cpu_msr_exit_write(struct soft_cpu *c, uint32_t index, uint64_t value)
{
	uint64_t v;
	bool fault;

	if (replayed(c, EXIT_WRMSR, &v, &fault)) {
		if (fault)
			cpu_gp0(c);
		return;
	}
	c->exit->msr.index = index;
	c->exit->msr.fault = false;
	c->exit->msr.value = value;
	leave_waiting(c, EXIT_WRMSR);
}

/* Takes the answer of the exit that run() left with. */
static void complete_exit(struct soft_cpu *c, const struct exit *exit)
{
	struct replay *r = &c->replay;
	enum exit_cause cause = c->waiting;

	c->waiting = EXIT_NR;
	if (cause == EXIT_NR)
		return;
	uint64_t value = 0;
	bool fault = false;
	if (cause == EXIT_PIO_IN)
		value = exit->pio.data;
	else if (cause == EXIT_MMIO_READ)
		value = exit->mmio.data;
	else if (cause == EXIT_RDMSR || cause == EXIT_WRMSR)
		value = exit->msr.value, fault = exit->msr.fault;
	if (r->done < REPLAY_MAX) {
		r->answer[r->done].cause = cause;
		r->answer[r->done].value = value;
		r->answer[r->done].fault = fault;
		r->done++;
	}
}

void cpu_replay_reset(struct soft_cpu *c)
{
	c->replay.done = c->replay.next = 0;
}

void cpu_exit_halt(struct soft_cpu *c)
{
	c->s.rip = c->next_rip;
	c->s.activity = ACTIVITY_HALTED;
	c->s.shadow = SHADOW_NONE;
	leave(c, LEAVE_EXIT); /* run() sees the activity */
}

/* ---- modes ---- */

static bool segment_is_flat(const struct soft_cpu *c, unsigned n)
{
	const struct segment *s = &c->s.seg[n];

	if (s->base || s->limit != UINT32_MAX || (s->attr & SEG_UNUSABLE))
		return false;
	if (!(c->s.cr0 & CR0_PE))
		return true;
	return (s->attr & (SEG_TYPE_CODE | SEG_TYPE_DC | SEG_TYPE_WR)) == SEG_TYPE_WR;
}

static void update_segments(struct soft_cpu *c)
{
	bool wide = c->mode == MODE_64;

	c->seg_flat = 0;
	for (unsigned n = 0; n < SEG_NR; n++) {
		c->seg_base[n] = wide && n != SEG_FS && n != SEG_GS ? 0 : c->s.seg[n].base;
		if (!c->align_check && (wide || segment_is_flat(c, n)))
			c->seg_flat |= 1u << n;
	}
}

void cpu_update_mode(struct soft_cpu *c)
{
	struct cpu_state *s = &c->s;
	uint32_t cs = s->seg[SEG_CS].attr;

	c->cpl = (uint8_t)cpu_cpl(s);
	if (cpu_in_long_mode(s) && (cs & SEG_L))
		c->mode = MODE_64;
	else
		c->mode = cs & SEG_DB ? MODE_32 : MODE_16;
	c->lin_mask = c->mode == MODE_64 ? UINT64_MAX : UINT32_MAX;
	c->ip_mask = c->mode == MODE_64 ? UINT64_MAX : UINT32_MAX;

	if (c->cpl == 3)
		c->data_class = MMU_USER;
	else if ((s->cr4 & CR4_SMAP) && !(s->rflags & FLAG_AC))
		c->data_class = MMU_KERNEL;
	else
		c->data_class = MMU_KERNEL_USER;
	c->align_check = c->cpl == 3 && (s->cr0 & CR0_AM) && (s->rflags & FLAG_AC);

	update_segments(c);
	c->bt.mode_known = false;
	if (!(s->dr7 & 0xff) && !c->debug.points && !c->watching) { /* the common case */
		c->careful_near = false;
		c->careful = c->debug.step || (s->rflags & (FLAG_TF | FLAG_RF));
		return;
	}

	bool watching = false, breakpoints = false;
	for (unsigned n = 0; n < 4; n++) {
		if (!(s->dr7 >> (2 * n) & 3))
			continue;
		if (s->dr7 >> (16 + 4 * n) & 1)
			watching = true;
		else if (!(s->dr7 >> (16 + 4 * n) & 3))
			breakpoints = true;
	}
	for (unsigned n = 0; n < c->debug.points; n++) {
		if (c->debug.point[n].len)
			watching = true;
		else
			breakpoints = true;
	}
	if (watching && !c->watching)
		tlb_flush(&c->tlb, false);
	c->watching = watching;
	c->careful = c->debug.step || (s->rflags & (FLAG_TF | FLAG_RF));
	c->careful_near = (breakpoints || watching) && !c->careful;
	c->careful |= c->careful_near;
}

void cpu_flush_tlb(struct soft_cpu *c, bool keep_global)
{
	c->vcpu.stats.count[EXIT_TLB_FLUSH]++;
	if (c->translator)
		bt_flush_pages(c, keep_global);
	tlb_flush(&c->tlb, keep_global);
	if (!keep_global)
		memset(c->large, 0, sizeof(c->large));
	c->break_block = true;
}

/* Which regions of 4 MiB and 1 GiB have entries of large pages, as bit sets by a hash. */
static uint64_t *large_word(struct soft_cpu *c, unsigned giant, uint64_t gva, unsigned *bit)
{
	uint64_t region = gva >> (giant ? 30 : 22);
	unsigned h = (unsigned)(region * UINT64_C(0x9e3779b97f4a7c15) >> 54);

	*bit = h % 64;
	return &c->large[giant][h / 64];
}

static bool in_large_page(struct soft_cpu *c, uint64_t gva)
{
	for (unsigned giant = 0; giant < 2; giant++) {
		unsigned bit;
		uint64_t word = *large_word(c, giant, gva, &bit);
		if (word >> bit & 1)
			return true;
	}
	return false;
}

void cpu_note_page(struct soft_cpu *c, uint64_t gva, const struct mmu_page *page)
{
	unsigned bit;

	if (page->page_shift > MEM_PAGE_SHIFT) {
		uint64_t *word = large_word(c, page->page_shift == 30, gva, &bit);
		*word |= UINT64_C(1) << bit;
	}
}

void cpu_flush_page(struct soft_cpu *c, uint64_t gva)
{
	if (in_large_page(c, gva)) {
		cpu_flush_tlb(c, false);
		return;
	}
	tlb_flush_page(&c->tlb, gva);
	if (c->translator)
		bt_flush_page(c, gva);
	c->vcpu.stats.count[EXIT_TLB_FLUSH]++;
	c->break_block = true;
}

void cpu_near_jump(struct soft_cpu *c, uint64_t target)
{
	if (c->mode == MODE_64) {
		if (!cpu_is_canonical(target)) /* at the branch, on AMD's too (seen on Zen 5) */
			cpu_gp0(c);
	} else if (target > c->s.seg[SEG_CS].limit) {
		cpu_gp0(c);
	}
	c->next_rip = target;
}

/* ---- events ---- */

static void count_event(struct soft_cpu *c, uint8_t vector, enum event_kind kind)
{
	enum exit_cause cause = EXIT_EXCEPTION;

	if (kind == EVENT_EXTERNAL)
		cause = EXIT_INTERRUPT;
	else if (kind == EVENT_NMI)
		cause = EXIT_NMI;
	else if (kind == EVENT_SOFT_INT)
		cause = EXIT_SOFT_INT;
	else if (vector == VEC_PF)
		cause = EXIT_PAGE_FAULT;
	c->vcpu.stats.count[cause]++;
}

static void trace_event(struct soft_cpu *c, uint8_t vector, enum event_kind kind, bool has_error,
			uint32_t error)
{
	struct cpu_event event = {
		.kind = kind,
		.vector = vector,
		.has_error = has_error,
		.error = error,
		.rip = c->s.rip,
		.cr2 = c->s.cr2,
	};

	c->vcpu.trace(&c->vcpu, &event);
}

static void deliver(struct soft_cpu *c, uint8_t vector, enum event_kind kind, bool has_error,
		    uint32_t error)
{
	count_event(c, vector, kind);
	if (unlikely(c->vcpu.trace))
		trace_event(c, vector, kind, has_error, error);
	c->delivering.active = true;
	c->delivering.vector = vector;
	c->delivering.kind = kind;
	cpu_replay_reset(c);
	cpu_deliver(c, vector, kind, has_error, error, c->s.rip);
	c->delivering.active = false;
	c->s.activity = ACTIVITY_RUNNING;
	c->s.shadow = SHADOW_NONE;
	cpu_replay_reset(c);
}

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

/* SDM table 6-4. */
static enum fault_class classify(uint8_t vector, uint8_t kind)
{
	if (kind != EVENT_EXCEPTION)
		return BENIGN;
	switch (vector) {
	case VEC_DE:
	case VEC_TS:
	case VEC_NP:
	case VEC_SS:
	case VEC_GP:
		return CONTRIBUTORY;
	case VEC_PF:
		return PAGE_FAULT;
	case VEC_DF:
		return DOUBLE_FAULT;
	default:
		return BENIGN;
	}
}

/* A fault came up, perhaps while another event was being delivered (SDM 6.15, #DF). */
static void handle_fault(struct soft_cpu *c)
{
	uint8_t vector = c->fault.vector;
	bool has_error = c->fault.has_error;
	uint32_t error = c->fault.error;

	if (vector == VEC_PF)
		c->s.cr2 = c->fault.cr2;
	if (c->delivering.active) {
		enum fault_class first = classify(c->delivering.vector, c->delivering.kind);
		enum fault_class second = classify(vector, EVENT_EXCEPTION);
		c->delivering.active = false;
		if (first == DOUBLE_FAULT && second != BENIGN) {
			c->s.activity = ACTIVITY_SHUTDOWN;
			return;
		}
		if ((first == CONTRIBUTORY && second == CONTRIBUTORY) ||
		    (first == PAGE_FAULT && second != BENIGN)) {
			vector = VEC_DF;
			has_error = true;
			error = 0;
		}
	}
	/* Faults push RF set, so that an instruction breakpoint is not met again on return; the
	 * other kinds do not, nor does #DB (SDM 17.3.1.1; cpu_deliver). */
	c->pending_dr6 = 0;
	deliver(c, vector, EVENT_EXCEPTION, has_error, error);
}

/* A debug exception, with the cause in DR6 (SDM 17.2.3). */
static void debug_exception(struct soft_cpu *c, uint64_t dr6)
{
	c->s.dr6 = (c->s.dr6 & ~UINT64_C(0xf)) | dr6;
	c->pending_dr6 = 0;
	c->s.dr7 &= ~(UINT64_C(1) << 13); /* GD */
	c->s.debugctl = 0;		  /* LBR and BTF (SDM Vol. 3, 17.4.1) */
	deliver(c, VEC_DB, EVENT_EXCEPTION, false, 0);
}

static void take_init(struct soft_cpu *c)
{
	cpu_state_init(&c->s, c->vcpu.index == 0);
	cpu_flush_tlb(c, false);
	cpu_replay_reset(c);
	c->pending_dr6 = 0;
	cpu_update_mode(c);
}

static void take_sipi(struct soft_cpu *c)
{
	uint8_t vector = atomic_load(&c->vcpu.sipi_vector);

	if (c->s.activity != ACTIVITY_WAIT_SIPI)
		return;
	c->s.seg[SEG_CS].sel = (uint16_t)(vector << 8);
	c->s.seg[SEG_CS].base = (uint64_t)vector << 12;
	c->s.rip = 0;
	c->s.activity = ACTIVITY_RUNNING;
	cpu_update_mode(c);
}

/* Handles what is asked for between instructions. True when run() has to return with c->exit. */
static bool take_requests(struct soft_cpu *c, uint32_t req)
{
	struct cpu_state *s = &c->s;

	if (req & VCPU_REQ_ENGINE)
		bt_take_request(c);
	/* An instruction that waits for its second answer is not at a boundary. */
	if (c->replay.done)
		return false;
	if (req & VCPU_REQ_KICK) {
		vcpu_unrequest(&c->vcpu, VCPU_REQ_KICK);
		c->exit->cause = EXIT_INTERRUPTED;
		return true;
	}
	/* Where both are there, the SIPI came second: an operating system sends it right after. */
	if (req & VCPU_REQ_INIT) {
		vcpu_unrequest(&c->vcpu, VCPU_REQ_INIT);
		take_init(c);
	}
	if (req & VCPU_REQ_SIPI) {
		vcpu_unrequest(&c->vcpu, VCPU_REQ_SIPI);
		take_sipi(c);
	}
	if (s->activity == ACTIVITY_WAIT_SIPI || s->activity == ACTIVITY_SHUTDOWN)
		return false;
	if (req & VCPU_REQ_NMI) {
		vcpu_unrequest(&c->vcpu, VCPU_REQ_NMI);
		s->nmi_pending = true;
	}
	if (s->nmi_pending && !s->nmi_blocked && s->shadow != SHADOW_MOV_SS) {
		s->nmi_pending = false;
		s->nmi_blocked = true;
		deliver(c, VEC_NMI, EVENT_NMI, false, 0);
		return false;
	}
	/* A debugger that steps wants to see its own code, not interrupt handlers. */
	bool stepping = c->debug.step && s->activity == ACTIVITY_RUNNING;
	if ((req & VCPU_REQ_IRQ) && (s->rflags & FLAG_IF) && s->shadow == SHADOW_NONE &&
	    !stepping) {
		int vector = c->board.irq_ack(c->board.opaque);
		if (vector >= 0)
			deliver(c, (uint8_t)vector, EVENT_EXTERNAL, false, 0);
	}
	return false;
}

/* ---- running ---- */

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
		debug_exception(c, hit);
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
			debug_exception(c, dr6);
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

	/* Traps of the last instruction that are not only met when careful: the T bit of a task
	 * switch. They come before interrupts (SDM table 6-2). */
	if (unlikely(c->pending_dr6) && !c->replay.done && c->s.shadow != SHADOW_MOV_SS)
		debug_exception(c, c->pending_dr6);
	if ((req || c->s.nmi_pending) && take_requests(c, req))
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

static void deliver_pending_event(struct soft_cpu *c)
{
	c->s.event_pending = false;
	deliver(c, c->s.event_vector, (enum event_kind)c->s.event_kind, c->s.event_has_error,
		c->s.event_error);
}

static void run(struct soft_cpu *c)
{
	switch (setjmp(c->out)) {
	case 0:
		if (c->s.event_pending)
			deliver_pending_event(c);
		break;
	case LEAVE_FAULT:
		c->break_block = false;
		c->shadow_taken = SHADOW_NONE;
		handle_fault(c);
		break;
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
		} else if (c->translator) {
			bt_run(c);
		} else {
			interp_run_block(c);
		}
	}
}

void soft_run(struct vcpu *v, struct exit *exit)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	complete_exit(c, exit);
	c->exit = exit;
	atomic_store(&c->in_run, true);
	run(c);
	atomic_store(&c->in_run, false);
}

/* ---- the engine's other operations ---- */

static int interp_probe(struct error *why)
{
	(void)why;
	return 0;
}

int soft_create(const struct engine_config *config, const struct engine_ops *ops,
		struct engine **out, struct error *err)
{
	int r = host_check_mask(err);
	struct engine *e = r < 0 ? NULL : calloc(1, sizeof(*e));

	if (r < 0)
		return r;
	if (!e)
		return error_set(err, -ENOMEM, "%s: out of memory", ops->name);
	e->config = config;
	e->ops = ops;
	cpuid_model_init(&e->cpuid, config->cpus, config->tsc_hz);
	*out = e;
	return 0;
}

static int interp_create(const struct engine_config *config, struct engine **out, struct error *err)
{
	return soft_create(config, &engine_interp, out, err);
}

void soft_destroy(struct engine *e)
{
	free(e);
}

void soft_vcpu_destroy(struct vcpu *v)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	if (!c)
		return;
	blocks_destroy(c);
	free(c->rom_sink);
	free(c);
}

int soft_vcpu_create(struct engine *e, unsigned index, const struct vcpu_board *board,
		     struct vcpu **out, struct error *err)
{
	struct soft_cpu *c = aligned_alloc(64, (sizeof(*c) + 63) & ~(size_t)63);

	if (!c)
		return error_set(err, -ENOMEM, "%s: out of memory for vCPU %u", e->ops->name,
				 index);
	memset(c, 0, sizeof(*c));
	c->vcpu.ops = e->ops;
	c->vcpu.index = index;
	c->self = c;
	c->board = *board;
	c->engine = e;
	c->mem = e->config->mem;
	c->waiting = EXIT_NR;
	c->cpuid = &e->cpuid;
	c->vendor_amd = e->cpuid.amd;
	c->rom_sink = malloc(MEM_PAGE_BYTES);
	if (!c->rom_sink || blocks_create(c) < 0) {
		soft_vcpu_destroy(&c->vcpu);
		return error_set(err, -ENOMEM, "%s: out of memory for vCPU %u", e->ops->name,
				 index);
	}
	cpu_state_reset(&c->s, index);
	tlb_flush(&c->tlb, false);
	cpu_update_mode(c);
	*out = &c->vcpu;
	return 0;
}

void soft_get_state(struct vcpu *v, struct cpu_state *out)
{
	*out = ((struct soft_cpu *)v)->s;
}

int soft_set_state(struct vcpu *v, const struct cpu_state *in, struct error *err)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	(void)err;
	c->s = *in;
	c->waiting = EXIT_NR;
	c->pending_dr6 = 0;
	cpu_replay_reset(c);
	tlb_flush(&c->tlb, false);
	cpu_update_mode(c);
	return 0;
}

int soft_set_debug(struct vcpu *v, const struct vcpu_debug *debug)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	if (debug->points > VCPU_DEBUG_POINTS)
		return -EINVAL;
	c->debug = *debug;
	tlb_flush(&c->tlb, false); /* what is watched may have changed */
	cpu_update_mode(c);
	return 0;
}

int soft_translate(struct vcpu *v, uint64_t gva, uint64_t *gpa)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	return mmu_peek(c->mem, &c->s, gva, gpa);
}

const struct engine_ops engine_interp = {
	.name = "interp",
	.probe = interp_probe,
	.create = interp_create,
	.destroy = soft_destroy,
	.vcpu_create = soft_vcpu_create,
	.vcpu_destroy = soft_vcpu_destroy,
	.run = soft_run,
	.get_state = soft_get_state,
	.set_state = soft_set_state,
	.set_debug = soft_set_debug,
	.translate = soft_translate,
};
