/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of the local APIC by MMIO (xAPIC) and MSR (x2APIC), and IA32_APIC_BASE. Register numbers
 * are MMIO offsets over 16, which are MSR numbers less 800h (SDM table 11-6). */
#include <errno.h>

#include "dev/lapic_internal.h"

enum {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_RRD = 0x0c,
	REG_LDR = 0x0d,
	REG_DFR = 0x0e,
	REG_SVR = 0x0f,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR = 0x30,
	REG_ICR_HIGH = 0x31,
	REG_LVT = 0x32,
	REG_INITIAL = 0x38,
	REG_CURRENT = 0x39,
	REG_DIVIDE = 0x3e,
	REG_SELF_IPI = 0x3f,
};

enum {
	MSR_APIC_BASE = 0x1b,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC = 0x800,
	MSR_X2APIC_LAST = 0x8ff
};

/* Version 14h, 6 LVT entries, EOI broadcast can be suppressed (SDM 11.4.8). */
enum { VERSION = 0x14 | (LVT_COUNT - 1) << 16 | 1 << 24 };
enum { ICR_LOGICAL = 0x800, ICR_ASSERT = 0x4000, ICR_LEVEL = 0x8000 };
enum { ICR_WRITABLE = 0xccfff, ICR_X2APIC_ALLOWED = 0xcdfff };

const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,	[LVT_ERROR] = 0x100ff,
};

/* What a write leaves to be done once the lock is dropped. */
struct after {
	int eoi; /* vector to broadcast, or -1 */
	bool ipi;
	unsigned shorthand;
	struct apic_message message;
};

static void finish(struct lapic *l, const struct after *todo)
{
	if (todo->eoi >= 0 && l->set->eoi)
		l->set->eoi(l->set->eoi_opaque, (uint8_t)todo->eoi);
	if (todo->ipi && !lapic_send_shorthand(l, &todo->message, todo->shorthand))
		lapic_deliver(l->set, &todo->message);
}

static uint32_t word_of(const uint64_t bits[4], unsigned index)
{
	return (uint32_t)(bits[index / 2] >> (index & 1 ? 32 : 0));
}

/* False when there is no such register to read. */
static bool read_reg(struct lapic *l, unsigned reg, uint32_t *v)
{
	bool x2apic = lapic_x2apic(l);

	*v = 0;
	if (reg >= REG_ISR && reg < REG_ESR) {
		*v = word_of(reg < REG_TMR ? l->isr : reg < REG_IRR ? l->tmr : l->irr, reg & 7);
		return true;
	}
	if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT) {
		*v = l->lvt[reg - REG_LVT];
		return true;
	}
	switch (reg) {
	case REG_ID:
		*v = x2apic ? l->id : l->id << 24;
		break;
	case REG_VERSION:
		*v = VERSION;
		break;
	case REG_TPR:
		*v = l->tpr;
		break;
	case REG_APR:
	case REG_RRD:
		return !x2apic; /* 0 */
	case REG_PPR:
		*v = lapic_ppr(l);
		break;
	case REG_EOI:
		return !x2apic; /* 0 */
	case REG_LDR:
		*v = x2apic ? lapic_x2apic_ldr(l) : l->ldr;
		break;
	case REG_DFR:
		*v = (uint32_t)l->dfr << 28 | 0xfffffff;
		return !x2apic;
	case REG_SVR:
		*v = l->svr;
		break;
	case REG_ESR:
		*v = l->esr;
		break;
	case REG_ICR:
		*v = l->icr_low;
		break;
	case REG_ICR_HIGH:
		*v = l->icr_high;
		return !x2apic;
	case REG_INITIAL:
		*v = l->initial;
		break;
	case REG_CURRENT:
		*v = lapic_timer_current(l);
		break;
	case REG_DIVIDE:
		*v = l->divide;
		break;
	default:
		return false;
	}
	return true;
}

/* Prepares an IPI from what ICR says (SDM 11.6.1). */
static void send_ipi(struct lapic *l, uint32_t low, uint32_t high, struct after *todo)
{
	struct apic_message *m = &todo->message;

	todo->shorthand = low >> 18 & 3;
	*m = (struct apic_message){
		.dest = lapic_x2apic(l) ? high : high >> 24,
		.x2apic = lapic_x2apic(l),
		.logical = low & ICR_LOGICAL,
		.mode = (enum apic_mode)(low >> 8 & 7),
		.vector = (uint8_t)low,
	};
	/* INIT level de-assert only synchronised arbitration ids, long ago. */
	if (m->mode == APIC_INIT && (low & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
		return;
	if (m->mode == APIC_MODE_3 || m->mode == APIC_SMI || m->mode == APIC_EXTINT)
		return;
	/* Self goes with fixed only; the rest of the table's invalid pairs do nothing. */
	if (todo->shorthand == 1 && m->mode != APIC_FIXED)
		return;
	if (todo->shorthand == 2 && m->mode != APIC_FIXED && m->mode != APIC_LOWEST)
		return;
	if (m->mode <= APIC_LOWEST && m->vector < 16) {
		lapic_error(l, ESR_SEND_VECTOR);
		return;
	}
	todo->ipi = true;
}

static void write_svr(struct lapic *l, uint32_t v)
{
	l->svr = v & SVR_WRITABLE;
	if (!(l->svr & SVR_ENABLED)) /* SDM 11.4.7.2 */
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->lvt[i] |= LVT_MASKED;
	lapic_timer_rearm(l);
	lapic_update(l);
}

static void write_lvt(struct lapic *l, enum lvt which, uint32_t v)
{
	uint32_t old = l->lvt[which], now = v & lvt_writable[which];

	if (!(l->svr & SVR_ENABLED))
		now |= LVT_MASKED;
	if (which == LVT_TIMER) {
		lapic_timer_set_lvt(l, now);
		return;
	}
	if (which == LVT_LINT0 && now & LVT_LEVEL && lvt_mode(now) == APIC_FIXED)
		now |= old & LVT_REMOTE_IRR;
	l->lvt[which] = now;
	if (which == LVT_LINT0)
		lapic_lint_sample(l, LVT_LINT0, l->lint0, l->lint0);
	lapic_update(l);
}

/* Bits that x2APIC mode insists be 0 (SDM 11.12.1.3). */
static uint32_t x2apic_reserved(unsigned reg)
{
	if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT)
		/* delivery status and remote IRR are read-only, not reserved */
		return ~(lvt_writable[reg - REG_LVT] | 0x1000 |
			 (reg == REG_LVT + LVT_LINT0 || reg == REG_LVT + LVT_LINT1 ? 0x4000u : 0));
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		return ~UINT32_C(0xff);
	case REG_SVR:
		return ~(uint32_t)SVR_WRITABLE;
	case REG_ICR:
		return ~(uint32_t)ICR_X2APIC_ALLOWED;
	case REG_DIVIDE:
		return ~UINT32_C(0xb);
	case REG_INITIAL:
		return 0;
	default:
		return UINT32_MAX; /* EOI, ESR: only 0 may be written */
	}
}

/* False when there is no such register to write. high: x2APIC's ICR. */
static bool write_reg(struct lapic *l, unsigned reg, uint32_t v, uint32_t high, struct after *todo)
{
	bool x2apic = lapic_x2apic(l);

	if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT) {
		write_lvt(l, (enum lvt)(reg - REG_LVT), v);
		return true;
	}
	switch (reg) {
	case REG_TPR:
		l->tpr = (uint8_t)v;
		lapic_update(l);
		break;
	case REG_EOI:
		todo->eoi = lapic_eoi(l);
		break;
	case REG_LDR:
		l->ldr = v & 0xff000000;
		return !x2apic;
	case REG_DFR:
		l->dfr = v >> 28;
		return !x2apic;
	case REG_SVR:
		write_svr(l, v);
		break;
	case REG_ESR:
		l->esr = l->esr_pending;
		l->esr_pending = 0;
		break;
	case REG_ICR:
		l->icr_low = v & ICR_WRITABLE;
		if (x2apic)
			l->icr_high = high;
		send_ipi(l, l->icr_low, l->icr_high, todo);
		break;
	case REG_ICR_HIGH:
		l->icr_high = v & 0xff000000;
		break;
	case REG_INITIAL:
		lapic_timer_set_initial(l, v);
		break;
	case REG_DIVIDE:
		lapic_timer_set_divide(l, v);
		break;
	case REG_SELF_IPI:
		if (!x2apic)
			return false;
		send_ipi(l, 1 << 18 | (uint8_t)v, 0, todo);
		break;
	case REG_ID: /* read-only here, as on processors since Nehalem */
	case REG_VERSION:
	case REG_APR:
	case REG_PPR:
	case REG_RRD:
	case REG_CURRENT:
		return !x2apic;
	default:
		return reg >= REG_ISR && reg < REG_ESR && !x2apic;
	}
	return true;
}

/* --- MMIO --- */

static void mmio(struct lapic *l, struct bus_access *a, struct after *todo)
{
	unsigned reg = (unsigned)a->offset >> 4, byte = a->offset & 15;
	uint32_t v = 0;

	/* Registers are 32 bits on 16-byte boundaries; SDM 11.4.1 leaves other accesses undefined.
	 * Reads give the bytes asked for, writes must be of the register. */
	if (a->write) {
		if (byte || a->size < 4)
			return;
		if (!write_reg(l, reg, (uint32_t)a->value, 0, todo))
			lapic_error(l, ESR_REGISTER);
		return;
	}
	if (!read_reg(l, reg, &v))
		lapic_error(l, ESR_REGISTER);
	a->value = byte < 4 ? v >> (8 * byte) : 0;
}

void lapic_access(void *opaque, struct bus_access *a)
{
	struct lapic_set *set = opaque;
	struct after todo = {.eoi = -1};
	struct lapic *l;

	if (a->cpu >= set->cfg.cpus)
		return;
	l = &set->apic[a->cpu];
	pthread_mutex_lock(&l->lock);
	if (lapic_hw_enabled(l) && !lapic_x2apic(l) &&
	    (a->addr & ~UINT64_C(0xfff)) == (l->base & ~UINT64_C(0xfff)))
		mmio(l, a, &todo);
	pthread_mutex_unlock(&l->lock);
	finish(l, &todo);
}

/* --- MSRs --- */

/* SDM 11.12.5: which changes of EN and EXTD are allowed. */
static bool transition_allowed(uint64_t from, uint64_t to)
{
	bool from_x2 = from & BASE_EXTD, to_x2 = to & BASE_EXTD;
	bool from_on = from & BASE_EN, to_on = to & BASE_EN;

	if (to_x2 && !to_on)
		return false;
	if (!from_on && to_x2)
		return false;		      /* off to x2APIC goes through xAPIC */
	return !(from_x2 && to_on && !to_x2); /* x2APIC to xAPIC goes through off */
}

static int write_base(struct lapic *l, uint64_t value)
{
	uint64_t reserved = ~((UINT64_C(1) << l->set->cfg.phys_bits) - 1) | 0x2ff;
	uint64_t old;

	pthread_mutex_lock(&l->lock);
	old = l->base;
	if (value & reserved || !transition_allowed(old, value)) {
		pthread_mutex_unlock(&l->lock);
		return -ENOENT;
	}
	l->base = value;
	if ((old ^ value) & BASE_EN) {
		lapic_clear(l); /* off, and on again, it comes up as after power-up */
	} else if (~old & value & BASE_EXTD) {
		l->icr_high = 0;
		l->dfr = DFR_FLAT;
	}
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
	lapic_move_page(l);
	return 0;
}

int lapic_rdmsr(struct lapic_set *set, unsigned cpu, uint32_t index, uint64_t *value)
{
	struct lapic *l = &set->apic[cpu];
	int rc = 0;
	uint32_t v;

	pthread_mutex_lock(&l->lock);
	if (index == MSR_APIC_BASE) {
		*value = l->base;
	} else if (index == MSR_TSC_DEADLINE) {
		*value = lapic_timer_get_deadline(l);
	} else if (index < MSR_X2APIC || index > MSR_X2APIC_LAST || !lapic_x2apic(l) ||
		   !read_reg(l, index - MSR_X2APIC, &v)) {
		rc = -ENOENT;
	} else {
		*value = v;
		if (index - MSR_X2APIC == REG_ICR)
			*value |= (uint64_t)l->icr_high << 32;
	}
	pthread_mutex_unlock(&l->lock);
	return rc;
}

static int write_x2apic(struct lapic *l, unsigned reg, uint64_t value, struct after *todo)
{
	uint32_t high = value >> 32;

	if (!lapic_x2apic(l) || (high && reg != REG_ICR) || reg == REG_ICR_HIGH)
		return -ENOENT;
	if ((uint32_t)value & x2apic_reserved(reg))
		return -ENOENT;
	return write_reg(l, reg, (uint32_t)value, high, todo) ? 0 : -ENOENT;
}

int lapic_wrmsr(struct lapic_set *set, unsigned cpu, uint32_t index, uint64_t value)
{
	struct lapic *l = &set->apic[cpu];
	struct after todo = {.eoi = -1};
	int rc = 0;

	if (index == MSR_APIC_BASE)
		return write_base(l, value);
	pthread_mutex_lock(&l->lock);
	if (index == MSR_TSC_DEADLINE)
		lapic_timer_set_deadline(l, value);
	else if (index >= MSR_X2APIC && index <= MSR_X2APIC_LAST)
		rc = write_x2apic(l, index - MSR_X2APIC, value, &todo);
	else
		rc = -ENOENT;
	pthread_mutex_unlock(&l->lock);
	finish(l, &todo);
	return rc;
}
