/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/loop.h"

/* Exceptions, interrupts and what else happens between two instructions. */

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

	vcpu_tell_tracers(&c->vcpu, &event);
}

static void deliver(struct soft_cpu *c, uint8_t vector, enum event_kind kind, bool has_error,
		    uint32_t error)
{
	count_event(c, vector, kind);
	if (unlikely(c->vcpu.tracer))
		trace_event(c, vector, kind, has_error, error);
	c->delivering.active = true;
	c->delivering.vector = vector;
	c->delivering.kind = kind;
	c->delivering.has_error = has_error;
	c->delivering.error = error;
	cpu_replay_reset(c);
	cpu_deliver(c, vector, kind, has_error, error, c->s.rip);
	c->delivering.active = false;
	c->s.activity = ACTIVITY_RUNNING;
	c->s.shadow = SHADOW_NONE;
	cpu_replay_reset(c);
}

void cpu_deliver_pending(struct soft_cpu *c)
{
	c->s.event_pending = false;
	deliver(c, c->s.event_vector, (enum event_kind)c->s.event_kind, c->s.event_has_error,
		c->s.event_error);
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

/* SDM 6.15, #DF. */
void cpu_handle_fault(struct soft_cpu *c)
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

void cpu_debug_exception(struct soft_cpu *c, uint64_t dr6)
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

bool cpu_take_requests(struct soft_cpu *c, uint32_t req)
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
		if (vector >= 0 && c->translator)
			bt_window_tick(c);
		if (vector >= 0)
			deliver(c, (uint8_t)vector, EVENT_EXTERNAL, false, 0);
	}
	return false;
}
