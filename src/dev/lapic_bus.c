/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between APICs: who is addressed (SDM 11.6.2), what the delivery modes do (11.6.1), the
 * PCI message format (11.11) and the LINT pins. */
#include "dev/lapic_internal.h"

enum { DEST_ALL8 = 0xff, SHORTHAND_SELF = 1, SHORTHAND_ALL = 2, SHORTHAND_OTHERS = 3 };
#define DEST_ALL32 UINT32_C(0xffffffff)

/* SDM 11.6.2.2 for xAPIC, 11.12.10.2 for x2APIC. */
static bool match_logical(const struct lapic *l, const struct apic_message *m)
{
	uint8_t dest = (uint8_t)m->dest, mine = l->ldr >> 24;
	uint32_t ldr;

	if (lapic_x2apic(l)) {
		ldr = lapic_x2apic_ldr(l);
		return m->dest >> 16 == ldr >> 16 && m->dest & ldr & 0xffff;
	}
	if (m->x2apic && m->dest > 0xff)
		return false;
	if (l->dfr == DFR_FLAT)
		return dest & mine;
	return (dest >> 4 == mine >> 4 || dest >> 4 == 0xf) && dest & mine & 0xf;
}

/* Is l addressed? Its lock is held. */
static bool match(const struct lapic *l, const struct apic_message *m)
{
	if (!lapic_hw_enabled(l))
		return false;
	if (m->dest == (m->x2apic ? DEST_ALL32 : DEST_ALL8) && (!m->logical || m->x2apic))
		return true;
	return m->logical ? match_logical(l, m) : l->id == m->dest;
}

/* Hands the message over. The lock is held; the result says whether it was accepted. */
static bool take(struct lapic *l, const struct apic_message *m)
{
	switch (m->mode) {
	case APIC_FIXED:
	case APIC_LOWEST:
		if (!lapic_sw_enabled(l))
			return false;
		lapic_accept(l, m->vector, m->level_triggered);
		return true;
	case APIC_NMI:
		if (l->cpu.nmi)
			l->cpu.nmi(l->cpu.opaque);
		return true;
	case APIC_INIT:
		lapic_clear(l);
		if (l->cpu.init)
			l->cpu.init(l->cpu.opaque);
		return true;
	case APIC_SIPI:
		if (l->cpu.sipi)
			l->cpu.sipi(l->cpu.opaque, m->vector);
		return true;
	case APIC_EXTINT:
		l->extint = true;
		lapic_update(l);
		return true;
	default:
		return false; /* no system management mode here; 3 is reserved */
	}
}

static bool deliver_to(struct lapic *l, const struct apic_message *m)
{
	bool taken;

	pthread_mutex_lock(&l->lock);
	taken = match(l, m) && take(l, m);
	pthread_mutex_unlock(&l->lock);
	return taken;
}

/* The one of the addressed with the lowest processor priority; among equals by turns. */
static bool deliver_lowest(struct lapic_set *set, const struct apic_message *m)
{
	unsigned cpus = set->cfg.cpus, first = atomic_fetch_add(&set->rotate, 1) % cpus;
	struct lapic *best = NULL;
	unsigned best_priority = 256;

	for (unsigned i = 0; i < cpus; i++) {
		struct lapic *l = &set->apic[(first + i) % cpus];
		pthread_mutex_lock(&l->lock);
		if (match(l, m) && lapic_sw_enabled(l) && lapic_ppr(l) < best_priority) {
			best = l;
			best_priority = lapic_ppr(l);
		}
		pthread_mutex_unlock(&l->lock);
	}
	return best && deliver_to(best, m);
}

bool lapic_deliver(struct lapic_set *set, const struct apic_message *m)
{
	bool taken = false;

	if (!m->logical && m->dest < set->cfg.cpus && m->dest != DEST_ALL8)
		return deliver_to(&set->apic[m->dest], m);
	if (m->mode == APIC_LOWEST)
		return deliver_lowest(set, m);
	for (unsigned i = 0; i < set->cfg.cpus; i++)
		taken |= deliver_to(&set->apic[i], m);
	return taken;
}

/* An IPI by destination shorthand; m's destination does not count. Returns false when shorthand is
 * 0: none. */
bool lapic_send_shorthand(struct lapic *l, const struct apic_message *m, unsigned shorthand)
{
	struct lapic_set *set = l->set;

	if (!shorthand)
		return false;
	for (unsigned i = 0; i < set->cfg.cpus; i++) {
		struct lapic *to = &set->apic[i];
		if (to == l ? shorthand == SHORTHAND_OTHERS : shorthand == SHORTHAND_SELF)
			continue;
		pthread_mutex_lock(&to->lock);
		if (lapic_hw_enabled(to))
			take(to, m);
		pthread_mutex_unlock(&to->lock);
	}
	return true;
}

void lapic_msi(struct lapic_set *set, uint64_t address, uint32_t data)
{
	struct apic_message m = {
		.dest = address >> 12 & 0xff,
		.logical = address & 4,
		.mode = (enum apic_mode)(data >> 8 & 7),
		.vector = (uint8_t)data,
		.level_triggered = data & 0x8000,
	};

	if (address >> 20 != 0xfee || (m.level_triggered && !(data & 0x4000)))
		return; /* not the interrupt range; or a level's end, which nobody waits for */
	lapic_deliver(set, &m);
}

/* --- pins --- */

/* What a LINT pin does by its LVT entry when its level was and is. The lock is held. */
void lapic_lint_sample(struct lapic *l, enum lvt which, bool was, bool is)
{
	uint32_t *lvt = &l->lvt[which];
	/* Only LINT0 has level sensitivity, and only as fixed (SDM 11.5.1). */
	bool level = which == LVT_LINT0 && *lvt & LVT_LEVEL && lvt_mode(*lvt) == APIC_FIXED;
	struct apic_message m = {.mode = lvt_mode(*lvt), .vector = (uint8_t)*lvt};

	if (!lapic_hw_enabled(l)) {
		if (which == LVT_LINT1 && is && !was && l->cpu.nmi)
			l->cpu.nmi(l->cpu.opaque); /* with the APIC off, the NMI pin */
		return;
	}
	if (*lvt & LVT_MASKED || !is || m.mode == APIC_EXTINT)
		return;
	if (level) {
		if (*lvt & LVT_REMOTE_IRR)
			return;
		*lvt |= LVT_REMOTE_IRR;
		lapic_accept(l, m.vector, true);
	} else if (!was) {
		take(l, &m);
	}
}

static void set_lint(struct lapic_set *set, enum lvt which, int level)
{
	for (unsigned i = 0; i < set->cfg.cpus; i++) {
		struct lapic *l = &set->apic[i];
		bool *pin = which == LVT_LINT0 ? &l->lint0 : &l->lint1, was;
		pthread_mutex_lock(&l->lock);
		was = *pin;
		*pin = level;
		lapic_lint_sample(l, which, was, level);
		lapic_update(l);
		pthread_mutex_unlock(&l->lock);
	}
}

void lapic_set_lint0(struct lapic_set *set, int level)
{
	set_lint(set, LVT_LINT0, level);
}

void lapic_set_lint1(struct lapic_set *set, int level)
{
	set_lint(set, LVT_LINT1, level);
}
