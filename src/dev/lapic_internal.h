/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_LAPIC_INTERNAL_H
#define HANOK_DEV_LAPIC_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "dev/lapic.h"

/*
 * Shared by the files of the local APIC:
 *   lapic.c        the interrupt core: IRR, ISR, priorities, acceptance, acknowledge; life and state
 *   lapic_bus.c    messages between APICs: destinations, delivery modes, MSI, LINT pins
 *   lapic_regs.c   registers by MMIO and MSR, APIC base, IPIs
 *   lapic_timer.c  the timer
 */

enum { BASE_BSP = 1 << 8, BASE_EXTD = 1 << 10, BASE_EN = 1 << 11 };

/* The local vector table in register order (SDM figure 11-8); CMCI is not there. */
enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
enum { LVT_MASKED = 0x10000, LVT_LEVEL = 0x8000, LVT_REMOTE_IRR = 0x4000 };
extern const uint32_t lvt_writable[LVT_COUNT];

enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

enum { SVR_ENABLED = 1 << 8, SVR_NO_EOI_BROADCAST = 1 << 12, SVR_WRITABLE = 0x11ff };
enum { DFR_FLAT = 0xf };

/* Error status register, SDM figure 11-9. */
enum { ESR_SEND_VECTOR = 1 << 5, ESR_RECEIVE_VECTOR = 1 << 6, ESR_REGISTER = 1 << 7 };

struct lapic {
	struct lapic_set *set;
	unsigned id;
	pthread_mutex_t lock; /* guards all below; never two local APICs' at once */
	struct lapic_cpu cpu;
	bool irq_level; /* what cpu.set_irq was told */

	uint64_t base;			 /* IA32_APIC_BASE */
	uint64_t irr[4], isr[4], tmr[4]; /* bit v % 64 of word v / 64 */
	uint8_t tpr;
	uint32_t ldr, svr, esr, esr_pending, icr_low, icr_high, lvt[LVT_COUNT], divide;
	uint8_t dfr; /* bits 31:28 of the register */
	bool lint0, lint1;
	bool extint; /* an ExtINT message waits to be acknowledged */

	struct timer timer;
	uint32_t initial;   /* count; 0: stopped */
	bool one_shot_done; /* it has fired since initial was written */
	uint64_t start_ns;  /* when initial began to count down */
	uint64_t tsc_deadline;
	uint64_t fire_ns; /* what timer waits for; 0: nothing */
	uint64_t tsc_offset;
};

struct lapic_set {
	struct lapic_config cfg;
	void (*eoi)(void *opaque, uint8_t vector);
	void *eoi_opaque;
	_Atomic unsigned rotate;   /* lowest priority: who is looked at first */
	pthread_mutex_t page_lock; /* guards pages and their mapping on the bus */
	uint64_t *pages;	   /* per APIC: the page it is mapped at; 0: none */
	struct lapic *apic;
};

static inline bool lapic_hw_enabled(const struct lapic *l)
{
	return l->base & BASE_EN;
}

static inline bool lapic_sw_enabled(const struct lapic *l)
{
	return l->base & BASE_EN && l->svr & SVR_ENABLED;
}

static inline bool lapic_x2apic(const struct lapic *l)
{
	return l->base & BASE_EXTD;
}

static inline uint32_t lapic_x2apic_ldr(const struct lapic *l)
{
	return l->id >> 4 << 16 | 1u << (l->id & 15); /* SDM 11.12.10.2 */
}

static inline enum apic_mode lvt_mode(uint32_t lvt)
{
	return (enum apic_mode)(lvt >> 8 & 7);
}

/* All of these want the lock held. */
uint8_t lapic_ppr(const struct lapic *l);
void lapic_update(struct lapic *l);
void lapic_accept(struct lapic *l, uint8_t vector, bool level_triggered);
void lapic_error(struct lapic *l, uint32_t esr_bit);
/* End of interrupt: the vector to broadcast, or -1. */
int lapic_eoi(struct lapic *l);
void lapic_clear(struct lapic *l); /* registers as after INIT; not id, base, pins */
void lapic_lint_sample(struct lapic *l, enum lvt which, bool was, bool is);

uint32_t lapic_timer_current(const struct lapic *l);
void lapic_timer_set_initial(struct lapic *l, uint32_t value);
void lapic_timer_set_divide(struct lapic *l, uint32_t value);
void lapic_timer_set_lvt(struct lapic *l, uint32_t value);
uint64_t lapic_timer_get_deadline(struct lapic *l);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
void lapic_timer_rearm(struct lapic *l);
void lapic_timer_callback(void *lapic);

/* No lock held. */
void lapic_move_page(struct lapic *l);
void lapic_access(void *set, struct bus_access *a);
bool lapic_send_shorthand(struct lapic *l, const struct apic_message *m, unsigned shorthand);

#endif
