/* SPDX-License-Identifier: Apache-2.0 */
#include "control/inspect/fault_log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cpu/engine.h"

/*
 * A writer takes a number, and with it a place. Its place says what is in it: `mark` is 2n + 1 while number n is
 * being written and 2n + 2 once it is whole. A reader copies, and the copy is good if the mark was
 * 2n + 2 before and after. Two writers meet in one place only when one was held up for as long as it took
 * the others to go round the ring; the later number wins there, or neither is read.
 */
enum { WORDS = 6 };

struct place {
	_Atomic uint64_t mark;
	_Atomic uint64_t word[WORDS];
};

struct fault_log {
	struct machine *machine;
	struct vcpu_tracer tracer[BOARD_CPUS_MAX];
	atomic_bool on;
	_Atomic(struct place *) ring; /* NULL before the first time */
	_Atomic uint64_t next;
	_Atomic uint64_t asked_ns;
	struct timer timer; /* ends the recording */
};

/* ---- writing ---- */

static void add(struct fault_log *l, const uint64_t word[WORDS])
{
	struct place *ring = atomic_load_explicit(&l->ring, memory_order_acquire);
	uint64_t n = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);
	struct place *p = &ring[n % FAULT_LOG_EVENTS];
	uint64_t mark = atomic_load_explicit(&p->mark, memory_order_relaxed);

	/* Somebody slower or faster is at it: this one is lost. */
	if (mark % 2 || mark > 2 * n ||
	    !atomic_compare_exchange_strong_explicit(&p->mark, &mark, 2 * n + 1,
						     memory_order_acquire, memory_order_relaxed))
		return;
	/* Released, and acquired by the reader: who sees a word of this sees the odd mark after it. */
	for (unsigned k = 0; k < WORDS; k++)
		atomic_store_explicit(&p->word[k], word[k], memory_order_release);
	atomic_store_explicit(&p->mark, 2 * n + 2, memory_order_release);
}

/* Words: time, event | cpu << 8 | error << 32, and four that depend on the event. */
static void on_memory(void *opaque, enum mem_event event, uint64_t gpa, uint64_t slot, uint64_t ns)
{
	const uint64_t word[WORDS] = {clock_ns(), (uint64_t)event, gpa, slot, ns, 0};

	add(opaque, word);
}

static void on_event(void *opaque, struct vcpu *v, const struct cpu_event *e)
{
	struct fault_log *l = opaque;

	if (!atomic_load_explicit(&l->on, memory_order_acquire) || e->kind != EVENT_EXCEPTION ||
	    e->vector != VEC_PF)
		return;
	const uint64_t word[WORDS] = {clock_ns(),
				      (uint64_t)0xff | (uint64_t)(v->index & 0xffff) << 8 |
					      (uint64_t)e->error << 32,
				      e->cr2, e->rip};
	add(l, word);
}

/* ---- on and off ---- */

static void look_whether_asked(void *opaque)
{
	struct fault_log *l = opaque;
	uint64_t until = atomic_load(&l->asked_ns) + FAULT_LOG_NS;

	if (clock_ns() < until) {
		timer_arm(&l->timer, until);
		return;
	}
	mem_set_watcher(machine_mem(l->machine), NULL, NULL);
	atomic_store(&l->on, false);
}

int fault_log_create(struct fault_log **out, struct machine *m, struct error *err)
{
	struct fault_log *l = calloc(1, sizeof(*l));

	*out = l;
	if (!l)
		return error_set(err, -ENOMEM, "the log of page faults: out of memory");
	l->machine = m;
	timer_init(&l->timer, machine_loop(m), look_whether_asked, l);
	for (unsigned n = 0; n < machine_cpus(m); n++) {
		l->tracer[n] = (struct vcpu_tracer){.fn = on_event, .opaque = l};
		vcpu_add_tracer(machine_vcpu(m, n), &l->tracer[n]);
	}
	return 0;
}

void fault_log_destroy(struct fault_log *l)
{
	if (!l)
		return;
	/* Whoever brings pages in does it on the loop's thread or a vCPU's: nobody is in it now. */
	mem_set_watcher(machine_mem(l->machine), NULL, NULL);
	timer_destroy(&l->timer);
	free(atomic_load(&l->ring));
	free(l);
}

int fault_log_ask(struct fault_log *l, bool *began)
{
	uint64_t now = clock_ns();

	atomic_store(&l->asked_ns, now);
	*began = !atomic_load(&l->on);
	if (!*began)
		return 0;
	if (!atomic_load(&l->ring)) {
		struct place *ring = calloc(FAULT_LOG_EVENTS, sizeof(*ring));
		if (!ring)
			return -ENOMEM;
		atomic_store_explicit(&l->ring, ring, memory_order_release);
	}
	atomic_store_explicit(&l->on, true, memory_order_release);
	mem_set_watcher(machine_mem(l->machine), on_memory, l);
	timer_arm(&l->timer, now + FAULT_LOG_NS);
	return 0;
}

/* ---- reading ---- */

uint64_t fault_log_next(const struct fault_log *l)
{
	return atomic_load(&l->next);
}

static bool read_one(const struct place *ring, uint64_t n, struct fault *out)
{
	const struct place *p = &ring[n % FAULT_LOG_EVENTS];
	uint64_t word[WORDS];

	if (atomic_load_explicit(&p->mark, memory_order_acquire) != 2 * n + 2)
		return false;
	for (unsigned k = 0; k < WORDS; k++)
		word[k] = atomic_load_explicit(&p->word[k], memory_order_acquire);
	if (atomic_load_explicit(&p->mark, memory_order_relaxed) != 2 * n + 2)
		return false;
	*out = (struct fault){.number = n, .ns = word[0]};
	if ((word[1] & 0xff) == 0xff) {
		out->event = FAULT_GUEST;
		out->cpu = (unsigned)(word[1] >> 8 & 0xffff);
		out->error = (uint32_t)(word[1] >> 32);
		out->gva = word[2];
		out->rip = word[3];
	} else {
		out->event = (int)(word[1] & 0xff);
		out->gpa = word[2];
		out->slot = word[3];
		out->took_ns = word[4];
	}
	return true;
}

/* The oldest number that may be left. */
static uint64_t oldest(uint64_t next)
{
	return next > FAULT_LOG_EVENTS ? next - FAULT_LOG_EVENTS : 0;
}

unsigned fault_log_read(struct fault_log *l, uint64_t *since, struct fault *to, unsigned max,
			uint64_t *lost)
{
	const struct place *ring = atomic_load_explicit(&l->ring, memory_order_acquire);
	uint64_t next = atomic_load(&l->next), n = *since;
	unsigned count = 0;

	*lost = 0;
	if (!ring || n >= next)
		return 0;
	if (n < oldest(next)) {
		*lost = oldest(next) - n;
		n = oldest(next);
	}
	for (; n < next && count < max; n++) {
		if (read_one(ring, n, &to[count]))
			count++;
		else
			(*lost)++;
	}
	*since = n;
	return count;
}

bool fault_log_last(struct fault_log *l, uint64_t gpa, struct fault *out)
{
	const struct place *ring = atomic_load_explicit(&l->ring, memory_order_acquire);
	uint64_t next = atomic_load(&l->next);

	for (uint64_t n = next; ring && n > oldest(next); n--)
		if (read_one(ring, n - 1, out) && out->event != FAULT_GUEST &&
		    out->gpa >> MEM_PAGE_SHIFT == gpa >> MEM_PAGE_SHIFT)
			return true;
	return false;
}
