/* SPDX-License-Identifier: Apache-2.0 */
/* The thread of one vCPU: run until an exit, act on it, count and time it; stand still when asked. */
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "cpu/state/msr.h"
#include "machine/machine_internal.h"

/* What a KVM guest gets in RAX for a hypercall that is not there (Linux, kvm_para.h). */
#define HYPERCALL_ENOSYS ((uint64_t)-1000)

static const char *port_or_mmio(struct cpu_thread *c, enum bus_space space, bool write,
				uint64_t addr, unsigned size, uint64_t *data)
{
	struct bus_access a = {
		.addr = addr,
		.size = size,
		.cpu = c->index,
		.write = write,
		.value = write ? *data : UINT64_MAX,
	};
	const char *device = bus_access(c->m->bus, space, &a);

	if (!write)
		*data = size == 8 ? a.value : a.value & ((UINT64_C(1) << size * 8) - 1);
	return device;
}

static const char *port(struct cpu_thread *c, struct exit *e, bool write)
{
	uint64_t data = e->pio.data;
	const char *device = port_or_mmio(c, BUS_PIO, write, e->pio.port, e->pio.size, &data);

	if (!write)
		e->pio.data = (uint32_t)data;
	return device;
}

static const char *mmio(struct cpu_thread *c, struct exit *e, bool write)
{
	return port_or_mmio(c, BUS_MMIO, write, e->mmio.gpa, e->mmio.size, &e->mmio.data);
}

static void rdmsr(struct cpu_thread *c, struct exit *e)
{
	e->msr.fault = board_rdmsr(c->m->board, c->index, e->msr.index, &e->msr.value) < 0;
	if (e->msr.fault)
		log_debug("vCPU %u read MSR 0x%" PRIx32 ", which is not there", c->index,
			  e->msr.index);
}

static void wrmsr(struct cpu_thread *c, struct exit *e)
{
	if (e->msr.index == MSR_TSC_DEADLINE) {
		/* The guest may have moved its TSC since: deadlines are in its terms. */
		struct cpu_state s;
		c->v->ops->get_state(c->v, &s);
		board_set_tsc_offset(c->m->board, c->index, s.tsc_offset);
	}
	e->msr.fault = board_wrmsr(c->m->board, c->index, e->msr.index, e->msr.value) < 0;
	if (e->msr.fault)
		log_debug("vCPU %u wrote 0x%" PRIx64 " to MSR 0x%" PRIx32 ", which is not there",
			  c->index, e->msr.value, e->msr.index);
}

/* No hypercalls are offered in CPUID: one that is tried all the same is told so. */
static void hypercall(struct cpu_thread *c)
{
	struct cpu_state s;

	c->v->ops->get_state(c->v, &s);
	s.gpr[RAX] = HYPERCALL_ENOSYS;
	c->v->ops->set_state(c->v, &s, NULL);
}

static void triple_fault(struct cpu_thread *c)
{
	struct cpu_state s;

	c->v->ops->get_state(c->v, &s);
	machine_stop(c->m, MACHINE_CRASHED,
		     "the guest crashed: triple fault on vCPU %u at %04x:%" PRIx64, c->index,
		     s.seg[SEG_CS].sel, s.rip);
}

static void debug(struct cpu_thread *c, const struct exit *e)
{
	for (unsigned i = 0; i < c->m->hooks_nr; i++) {
		const struct machine_hooks *h = &c->m->hooks[i];
		if (h->debug)
			h->debug(h->opaque, c->index, e);
	}
}

/* Acts on an exit. Returns the device it went to, if any. */
static const char *handle(struct cpu_thread *c, struct exit *e)
{
	switch (e->cause) {
	case EXIT_PIO_IN:
		return port(c, e, false);
	case EXIT_PIO_OUT:
		return port(c, e, true);
	case EXIT_MMIO_READ:
		return mmio(c, e, false);
	case EXIT_MMIO_WRITE:
		return mmio(c, e, true);
	case EXIT_RDMSR:
		rdmsr(c, e);
		break;
	case EXIT_WRMSR:
		wrmsr(c, e);
		break;
	case EXIT_HLT:
		vcpu_wait(c->v, e->hlt.wake_mask | VCPU_REQ_KICK);
		break;
	case EXIT_HYPERCALL:
		hypercall(c);
		break;
	case EXIT_DEBUG:
		debug(c, e);
		break;
	case EXIT_SHUTDOWN:
		triple_fault(c);
		break;
	case EXIT_INTERRUPTED:
		break;
	case EXIT_ERROR:
		machine_stop(c->m, MACHINE_FAILED, "vCPU %u cannot go on: %s", c->index,
			     e->error.text);
		break;
	default:
		machine_stop(c->m, MACHINE_FAILED, "vCPU %u: engine %s made an exit of cause %d",
			     c->index, c->v->ops->name, (int)e->cause);
		break;
	}
	return NULL;
}

static void tell_hooks(struct cpu_thread *c, const struct exit *e, const char *device,
		       uint64_t ticks)
{
	for (unsigned i = 0; i < c->m->hooks_nr; i++) {
		const struct machine_hooks *h = &c->m->hooks[i];
		if (h->exit)
			h->exit(h->opaque, c->index, e, device, ticks);
	}
}

/* After these nothing of an instruction is left to be completed by the next run. */
static bool between_instructions(enum exit_cause cause)
{
	return cause == EXIT_INTERRUPTED || cause == EXIT_HLT || cause == EXIT_DEBUG;
}

/* Stands still for as long as asked. False when the machine ends. */
static bool park(struct cpu_thread *c)
{
	struct machine *m = c->m;

	pthread_mutex_lock(&m->lock);
	m->parked++;
	pthread_cond_broadcast(&m->changed);
	while (!m->ending && (m->pauses || c->held))
		pthread_cond_wait(&m->changed, &m->lock);
	m->parked--;
	pthread_mutex_unlock(&m->lock);
	return !atomic_load(&m->ending);
}

void *cpu_thread_main(void *opaque)
{
	struct cpu_thread *c = opaque;
	struct machine *m = c->m;
	struct vcpu *v = c->v;
	struct exit e = {.cause = EXIT_INTERRUPTED};

	while (!atomic_load(&m->ending)) {
		if (atomic_load(&c->hold) && between_instructions(e.cause) && !park(c))
			break;
		uint64_t entered = clock_tsc();
		v->ops->run(v, &e);
		uint64_t left = clock_tsc();
		const char *device = handle(c, &e);
		uint64_t ticks = clock_tsc() - left;
		if ((unsigned)e.cause < EXIT_NR) {
			v->stats.count[e.cause]++;
			v->stats.ticks[e.cause] += ticks;
		}
		atomic_fetch_add_explicit(&c->engine_ticks, left - entered, memory_order_relaxed);
		if (m->hooks_nr)
			tell_hooks(c, &e, device, ticks);
	}
	pthread_mutex_lock(&m->lock);
	m->live--;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
	return NULL;
}
