/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to a vCPU, and sleeping until one comes: a futex on the word of requests itself. While
 * its thread sleeps the word carries WAITING, so that a request to a vCPU that runs, the common
 * case, makes no system call. Engines never see the bit: it is there only inside vcpu_wait.
 *
 * To wake a thread takes the host longer than many a guest waits: for an answer from the network, or
 * for another vCPU. So a vCPU whose last waits were short looks out for the next request by itself
 * for a while before it sleeps, as KVM does (halt_poll_ns). A wait of more than POLL_MAX_NS, as an
 * idle guest's between two ticks, ends that. Who else wants the processor meanwhile gets it.
 */
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "cpu/engine.h"

#define WAITING (UINT32_C(1) << 31)

enum { POLL_MAX_NS = 200000, POLL_FIRST_NS = 10000, POLL_LOOKS = 32 };

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
	syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

void vcpu_add_tracer(struct vcpu *v, struct vcpu_tracer *tracer)
{
	tracer->next = v->tracer;
	v->tracer = tracer;
}

void vcpu_tell_tracers(struct vcpu *v, const struct cpu_event *event)
{
	for (const struct vcpu_tracer *t = v->tracer; t; t = t->next)
		t->fn(t->opaque, v, event);
}

void vcpu_request(struct vcpu *v, uint32_t bits)
{
	uint32_t old = atomic_fetch_or(&v->requests, bits);

	if ((old & bits) == bits)
		return;
	if (old & WAITING)
		futex(&v->requests, FUTEX_WAKE, INT_MAX);
	else if (v->poke)
		v->poke(v);
}

void vcpu_unrequest(struct vcpu *v, uint32_t bits)
{
	atomic_fetch_and(&v->requests, ~bits);
}

void vcpu_send_sipi(struct vcpu *v, uint8_t vector)
{
	atomic_store(&v->sipi_vector, vector);
	vcpu_request(v, VCPU_REQ_SIPI);
}

/* True when one of mask was requested before the time was over. */
static bool poll_requests(struct vcpu *v, uint32_t mask, uint64_t until_ns)
{
	do {
		for (int i = 0; i < POLL_LOOKS; i++) {
			if (atomic_load_explicit(&v->requests, memory_order_acquire) & mask)
				return true;
			__builtin_ia32_pause();
		}
		sched_yield();
	} while (clock_ns() < until_ns);
	return false;
}

static void sleep_for(struct vcpu *v, uint32_t mask)
{
	for (;;) {
		uint32_t now = atomic_fetch_or(&v->requests, WAITING) | WAITING;
		if (now & mask)
			break;
		futex(&v->requests, FUTEX_WAIT, now);
	}
	atomic_fetch_and(&v->requests, ~WAITING);
}

void vcpu_wait(struct vcpu *v, uint32_t mask)
{
	uint64_t start = clock_ns();

	if (v->poll_ns && poll_requests(v, mask, start + v->poll_ns))
		return;
	sleep_for(v, mask);
	if (clock_ns() - start > POLL_MAX_NS)
		v->poll_ns = 0;
	else if (v->poll_ns < POLL_MAX_NS)
		v->poll_ns = v->poll_ns ? 2 * v->poll_ns : POLL_FIRST_NS;
}
