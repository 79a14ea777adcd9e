/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs: the interrupt core.
 *
 *     I/O APIC, MSI, IPIs --> lapic_deliver --.
 *     timer, LINT0/1, error --> local vectors --> IRR --(over PPR?)--> vCPU's IRQ request
 *                                                  |                        |
 *                                                 ISR <---- lapic_ack <-----'
 *                                                  '--> EOI --> I/O APIC
 *
 * Whatever changes IRR, ISR, TPR or the LINT0 pin ends in lapic_update, which works out from a few
 * words whether something can be delivered and tells the vCPU only when that changes. So a vCPU
 * polls one bit of its requests and comes here only when there is something to take.
 *
 * Locks: one mutex a local APIC, held for a handful of instructions, never two at a time. Messages
 * to other APICs and EOIs to the I/O APIC go out after the sender's lock is dropped.
 */
#include "dev/lapic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "dev/lapic_internal.h"
#include "dev/regs.h"

/* The highest set bit of 256, or -1. */
static int highest(const uint64_t word[4])
{
	for (int i = 3; i >= 0; i--)
		if (word[i])
			return i * 64 + 63 - __builtin_clzll(word[i]);
	return -1;
}

static void bit_set(uint64_t word[4], uint8_t bit)
{
	word[bit / 64] |= UINT64_C(1) << bit % 64;
}

static void bit_clear(uint64_t word[4], uint8_t bit)
{
	word[bit / 64] &= ~(UINT64_C(1) << bit % 64);
}

static bool bit_test(const uint64_t word[4], uint8_t bit)
{
	return word[bit / 64] >> bit % 64 & 1;
}

/* SDM 11.8.3.1. */
uint8_t lapic_ppr(const struct lapic *l)
{
	int served = highest(l->isr);

	if (served < 0 || l->tpr >> 4 >= served >> 4)
		return l->tpr;
	return served & 0xf0;
}

/* The vector that could be taken now, or -1. */
static int deliverable(const struct lapic *l)
{
	int vector = highest(l->irr);

	if (vector < 0 || !lapic_hw_enabled(l) || vector >> 4 <= lapic_ppr(l) >> 4)
		return -1;
	return vector;
}

/* Does the PIC's request come through? With the APIC off, LINT0 is the processor's INTR pin. The
 * task priority does not hold ExtINT back. */
static bool extint_ready(const struct lapic *l)
{
	if (!lapic_hw_enabled(l))
		return l->lint0;
	if (l->extint)
		return true;
	return l->lint0 && !(l->lvt[LVT_LINT0] & LVT_MASKED) &&
	       lvt_mode(l->lvt[LVT_LINT0]) == APIC_EXTINT;
}

void lapic_update(struct lapic *l)
{
	bool level = deliverable(l) >= 0 || extint_ready(l);

	if (level == l->irq_level)
		return;
	l->irq_level = level;
	if (l->cpu.set_irq)
		l->cpu.set_irq(l->cpu.opaque, level);
}

void lapic_accept(struct lapic *l, uint8_t vector, bool level_triggered)
{
	if (vector < 16) {
		lapic_error(l, ESR_RECEIVE_VECTOR);
		return;
	}
	bit_set(l->irr, vector);
	if (level_triggered)
		bit_set(l->tmr, vector);
	else
		bit_clear(l->tmr, vector);
	lapic_update(l);
}

/* An error of the APIC's own is latched until ESR is written, and interrupts by the error LVT. */
void lapic_error(struct lapic *l, uint32_t esr_bit)
{
	uint8_t vector = (uint8_t)l->lvt[LVT_ERROR];

	l->esr_pending |= esr_bit;
	if (l->lvt[LVT_ERROR] & LVT_MASKED)
		return;
	if (vector < 16) /* an error in reporting the error is not reported */
		l->esr_pending |= ESR_RECEIVE_VECTOR;
	else
		lapic_accept(l, vector, false);
}

int lapic_eoi(struct lapic *l)
{
	int vector = highest(l->isr);
	uint32_t *lint0 = &l->lvt[LVT_LINT0];
	bool broadcast;

	if (vector < 0)
		return -1;
	bit_clear(l->isr, (uint8_t)vector);
	broadcast = bit_test(l->tmr, (uint8_t)vector) && !(l->svr & SVR_NO_EOI_BROADCAST);
	if (*lint0 & LVT_REMOTE_IRR && (uint8_t)*lint0 == vector) {
		*lint0 &= ~(uint32_t)LVT_REMOTE_IRR;
		lapic_lint_sample(l, LVT_LINT0, l->lint0, l->lint0);
	}
	lapic_update(l);
	return broadcast ? vector : -1;
}

int lapic_ack(struct lapic_set *set, unsigned cpu)
{
	struct lapic *l = &set->apic[cpu];
	int vector;

	pthread_mutex_lock(&l->lock);
	if (extint_ready(l)) {
		l->extint = false;
		lapic_update(l);
		pthread_mutex_unlock(&l->lock);
		return set->cfg.extint_ack ? set->cfg.extint_ack(set->cfg.extint_opaque) : -1;
	}
	vector = deliverable(l);
	if (vector >= 0) {
		bit_clear(l->irr, (uint8_t)vector);
		bit_set(l->isr, (uint8_t)vector);
	}
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
	return vector;
}

uint8_t lapic_get_cr8(struct lapic_set *set, unsigned cpu)
{
	struct lapic *l = &set->apic[cpu];
	uint8_t cr8;

	pthread_mutex_lock(&l->lock);
	cr8 = l->tpr >> 4;
	pthread_mutex_unlock(&l->lock);
	return cr8;
}

void lapic_set_cr8(struct lapic_set *set, unsigned cpu, uint8_t cr8)
{
	struct lapic *l = &set->apic[cpu];

	pthread_mutex_lock(&l->lock);
	l->tpr = (uint8_t)(cr8 << 4);
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
}

void lapic_set_tsc_offset(struct lapic_set *set, unsigned cpu, uint64_t offset)
{
	struct lapic *l = &set->apic[cpu];

	pthread_mutex_lock(&l->lock);
	if (l->tsc_offset != offset) {
		l->tsc_offset = offset;
		lapic_timer_rearm(l);
	}
	pthread_mutex_unlock(&l->lock);
}

void lapic_attach(struct lapic_set *set, unsigned cpu, const struct lapic_cpu *ops)
{
	struct lapic *l = &set->apic[cpu];

	pthread_mutex_lock(&l->lock);
	l->cpu = ops ? *ops : (struct lapic_cpu){0};
	l->irq_level = false;
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
}

void lapic_set_eoi_sink(struct lapic_set *set, void (*eoi)(void *opaque, uint8_t vector),
			void *opaque)
{
	set->eoi = eoi;
	set->eoi_opaque = opaque;
}

/* --- life --- */

/*
 * SDM 11.4.7.1 and 11.4.7.3. One thing is the board's: on the boot processor LINT0 comes up as an
 * open ExtINT, so that the PIC works before anybody programs the APIC ("virtual wire mode", MP
 * specification 3.6.2.2), which on a PC is firmware's first act.
 */
void lapic_clear(struct lapic *l)
{
	memset(l->irr, 0, sizeof(l->irr));
	memset(l->isr, 0, sizeof(l->isr));
	memset(l->tmr, 0, sizeof(l->tmr));
	l->tpr = 0;
	l->ldr = l->esr = l->esr_pending = l->icr_low = l->icr_high = l->divide = 0;
	l->dfr = DFR_FLAT;
	l->svr = 0xff;
	l->extint = false;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	if (l->base & BASE_BSP)
		l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
	l->initial = 0;
	l->one_shot_done = false;
	l->tsc_deadline = 0;
	lapic_timer_rearm(l);
	lapic_update(l);
}

/* Maps the page the APIC answers at, and takes away one that no APIC answers at any more. */
void lapic_move_page(struct lapic *l)
{
	struct lapic_set *set = l->set;
	uint64_t old = set->pages[l->id], page = l->base & ~UINT64_C(0xfff);
	bool old_used = false, page_used = false;
	struct bus_range r = {.space = BUS_MMIO,
			      .base = page,
			      .len = 4096,
			      .fn = lapic_access,
			      .opaque = set,
			      .name = "lapic"};

	if (old == page)
		return;
	pthread_mutex_lock(&set->page_lock);
	for (unsigned i = 0; i < set->cfg.cpus; i++) {
		old_used |= i != l->id && set->pages[i] == old;
		page_used |= set->pages[i] == page;
	}
	if (!page_used && bus_map(set->cfg.bus, &r))
		log_warn("local APIC %u: cannot be mapped at %#llx", l->id,
			 (unsigned long long)page);
	if (old && !old_used)
		bus_unmap(set->cfg.bus, BUS_MMIO, old, set);
	set->pages[l->id] = page;
	pthread_mutex_unlock(&set->page_lock);
}

static void reset(void *dev)
{
	struct lapic_set *set = dev;

	for (unsigned i = 0; i < set->cfg.cpus; i++) {
		struct lapic *l = &set->apic[i];
		pthread_mutex_lock(&l->lock);
		l->base = set->cfg.gpa | BASE_EN | (i ? 0 : BASE_BSP);
		lapic_clear(l);
		pthread_mutex_unlock(&l->lock);
		lapic_move_page(l);
	}
}

static void apic_state(struct lapic *l, struct state_stream *s)
{
	uint64_t reserved = ~((UINT64_C(1) << l->set->cfg.phys_bits) - 1) | 0x2ff;

	state_u64(s, &l->base);
	state_raw(s, l->irr, sizeof(l->irr));
	state_raw(s, l->isr, sizeof(l->isr));
	state_raw(s, l->tmr, sizeof(l->tmr));
	state_u8(s, &l->tpr);
	state_u32(s, &l->ldr);
	state_u8(s, &l->dfr);
	state_u32(s, &l->svr);
	state_u32(s, &l->esr);
	state_u32(s, &l->esr_pending);
	state_u32(s, &l->icr_low);
	state_u32(s, &l->icr_high);
	state_u32(s, &l->divide);
	for (unsigned i = 0; i < LVT_COUNT; i++)
		state_u32(s, &l->lvt[i]);
	state_bool(s, &l->lint0);
	state_bool(s, &l->lint1);
	state_bool(s, &l->extint);
	state_u32(s, &l->initial);
	state_bool(s, &l->one_shot_done);
	regs_state_epoch_ns(s, &l->start_ns);
	state_u64(s, &l->tsc_deadline);
	if (state_writing(s))
		return;
	if (l->base & reserved || (l->base & BASE_EXTD && !(l->base & BASE_EN))) {
		state_fail(s, "an APIC base that cannot be");
		l->base = l->set->cfg.gpa | BASE_EN | (l->id ? 0 : BASE_BSP);
	}
	l->irr[0] &= ~UINT64_C(0xffff); /* vectors that are never accepted */
	l->isr[0] &= ~UINT64_C(0xffff);
	l->dfr &= 0xf;
	l->svr &= SVR_WRITABLE;
	l->divide &= 0xb;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] &= lvt_writable[i] | (i == LVT_LINT0 ? LVT_REMOTE_IRR : 0);
}

static void state(void *dev, struct state_stream *s)
{
	struct lapic_set *set = dev;

	for (unsigned i = 0; i < set->cfg.cpus; i++) {
		struct lapic *l = &set->apic[i];
		pthread_mutex_lock(&l->lock);
		state_begin(s, "lapic", i, 1);
		apic_state(l, s);
		state_end(s);
		if (!state_writing(s)) {
			l->irq_level = false;
			if (l->cpu.set_irq)
				l->cpu.set_irq(l->cpu.opaque, false);
			lapic_timer_rearm(l);
			lapic_update(l);
		}
		pthread_mutex_unlock(&l->lock);
		lapic_move_page(l);
	}
}

static void destroy(void *dev)
{
	struct lapic_set *set = dev;

	if (!set)
		return;
	for (unsigned i = 0; set->apic && set->pages && i < set->cfg.cpus; i++) {
		if (set->pages[i])
			bus_unmap(set->cfg.bus, BUS_MMIO, set->pages[i], set);
		timer_destroy(&set->apic[i].timer);
		pthread_mutex_destroy(&set->apic[i].lock);
	}
	pthread_mutex_destroy(&set->page_lock);
	free(set->apic);
	free(set->pages);
	free(set);
}

const struct dev_ops lapic_ops = {
	.name = "lapic",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int lapic_set_create(struct lapic_set **out, const struct lapic_config *cfg, struct error *err)
{
	struct lapic_set *set = calloc(1, sizeof(*set));

	*out = NULL;
	if (!set)
		return error_set(err, -ENOMEM, "local APIC: out of memory");
	set->cfg = *cfg;
	pthread_mutex_init(&set->page_lock, NULL);
	set->apic = calloc(cfg->cpus, sizeof(*set->apic));
	set->pages = calloc(cfg->cpus, sizeof(*set->pages));
	if (!set->apic || !set->pages) {
		destroy(set);
		return error_set(err, -ENOMEM, "local APIC: out of memory");
	}
	for (unsigned i = 0; i < cfg->cpus; i++) {
		struct lapic *l = &set->apic[i];
		l->set = set;
		l->id = i;
		pthread_mutex_init(&l->lock, NULL);
		timer_init(&l->timer, cfg->loop, lapic_timer_callback, l);
	}
	reset(set);
	*out = set;
	return 0;
}
