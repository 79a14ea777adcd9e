/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_LAPIC_H
#define HANOK_DEV_LAPIC_H

#include "base/loop.h"
#include "dev/dev.h"

/*
 * The local APICs of all vCPUs and the bus between them (Intel SDM volume 3, chapter 11: "SDM"
 * below): xAPIC by MMIO, x2APIC by MSR, timer with TSC deadline.
 *
 * The timer counts at LAPIC_TIMER_HZ before its divider (as CPUID leaf 40000010H tells).
 */
#define LAPIC_TIMER_HZ UINT64_C(1000000000)

struct lapic_set;

/* What a local APIC does to its vCPU. Called with the local APIC's lock held, on any thread; must
 * not call back. */
struct lapic_cpu {
	void (*set_irq)(void *opaque, bool level); /* a deliverable interrupt is held */
	void (*nmi)(void *opaque);
	void (*init)(void *opaque);
	void (*sipi)(void *opaque, uint8_t vector);
	void *opaque;
};

struct lapic_config {
	struct bus *bus;
	struct loop *loop;
	unsigned cpus;
	uint64_t gpa; /* where they are at reset */
	unsigned phys_bits;
	uint64_t tsc_hz;
	uint64_t (*host_tsc)(void); /* NULL: clock_tsc */
	/* The PIC's acknowledge cycle, for interrupts through LINT0 as ExtINT. */
	uint8_t (*extint_ack)(void *opaque);
	void *extint_opaque;
};

extern const struct dev_ops lapic_ops; /* of the set */

int lapic_set_create(struct lapic_set **out, const struct lapic_config *cfg, struct error *err);

/* Before the vCPU runs; NULL takes it away. */
void lapic_attach(struct lapic_set *set, unsigned cpu, const struct lapic_cpu *ops);

/* Who is told when a level-triggered vector is EOIed with broadcast (the I/O APIC), without any
 * local APIC's lock held. Before vCPUs run. */
void lapic_set_eoi_sink(struct lapic_set *set, void (*eoi)(void *opaque, uint8_t vector),
			void *opaque);

/* Delivery modes of SDM 11.6.1 and of the I/O APIC's redirection table. */
enum apic_mode {
	APIC_FIXED,
	APIC_LOWEST,
	APIC_SMI,
	APIC_MODE_3, /* reserved */
	APIC_NMI,
	APIC_INIT,
	APIC_SIPI,
	APIC_EXTINT,
};

/* A message on the bus between APICs. */
struct apic_message {
	uint32_t dest; /* 8 bits, or 32 when x2apic */
	bool x2apic;   /* sent by an APIC in x2APIC mode: dest is 32 bits wide */
	bool logical;
	enum apic_mode mode;
	uint8_t vector;
	bool level_triggered;
};

/* Delivers to whom it is addressed; false when no APIC accepts it. Any thread; only locks ordered
 * before the local APIC's may be held. */
bool lapic_deliver(struct lapic_set *set, const struct apic_message *m);

/* A write of data to FEExxxxxh (SDM 11.11). Any thread. */
void lapic_msi(struct lapic_set *set, uint64_t address, uint32_t data);

/* The LINT0 (from the PIC) and LINT1 (NMI) pins of all local APICs. Any thread. */
void lapic_set_lint0(struct lapic_set *set, int level);
void lapic_set_lint1(struct lapic_set *set, int level);

/* --- for the vCPU's own thread --- */

/* Takes the highest deliverable interrupt into service: its vector, or -1. */
int lapic_ack(struct lapic_set *set, unsigned cpu);
uint8_t lapic_get_cr8(struct lapic_set *set, unsigned cpu);
void lapic_set_cr8(struct lapic_set *set, unsigned cpu, uint8_t cr8);
/* IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC MSRs: 0, or -ENOENT for #GP. */
int lapic_rdmsr(struct lapic_set *set, unsigned cpu, uint32_t index, uint64_t *value);
int lapic_wrmsr(struct lapic_set *set, unsigned cpu, uint32_t index, uint64_t value);

/* Guest TSC = host TSC + offset. Any thread. */
void lapic_set_tsc_offset(struct lapic_set *set, unsigned cpu, uint64_t offset);

#endif
