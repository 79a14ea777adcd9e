/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "cpu/interp/access.h"
#include "cpu/interp/loop.h"

/* How an instruction is left before its end: for a fault, or for an exit whose answer is replayed. */

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

void cpu_begin_again(struct soft_cpu *c, uint64_t gpa)
{
	c->away = gpa;
	leave(c, LEAVE_AGAIN);
}

void cpu_take_back(struct soft_cpu *c)
{
	c->break_block = false;
	c->replay.next = 0;
	if (c->delivering.active) {
		c->delivering.active = false;
		c->s.event_pending = true;
		c->s.event_vector = c->delivering.vector;
		c->s.event_kind = c->delivering.kind;
		c->s.event_has_error = c->delivering.has_error;
		c->s.event_error = c->delivering.error;
	} else {
		c->s.shadow |= c->shadow_taken;
	}
	c->shadow_taken = SHADOW_NONE;
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

void cpu_complete_exit(struct soft_cpu *c, const struct exit *exit)
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
