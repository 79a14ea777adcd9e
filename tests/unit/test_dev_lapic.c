/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev_test.h"

#define LAPIC UINT64_C(0xfee00000)
#define IOAPIC UINT64_C(0xfec00000)
enum { CPUS = 20 };
enum {
	ID = 0x20,
	VER = 0x30,
	TPR = 0x80,
	PPR = 0xa0,
	EOI = 0xb0,
	LDR = 0xd0,
	DFR = 0xe0,
	SVR = 0xf0
};
enum {
	ISR = 0x100,
	TMR = 0x180,
	IRR = 0x200,
	ESR = 0x280,
	ICR = 0x300,
	ICRH = 0x310,
	LVTT = 0x320
};
enum { LINT0 = 0x350, LINT1 = 0x360, LVTE = 0x370, TMICT = 0x380, TMCCT = 0x390, TDCR = 0x3e0 };
enum { MSR_BASE = 0x1b, MSR_DEADLINE = 0x6e0 };

static struct lapic_set *set;
static struct ioapic *io;
static unsigned cpu; /* whose vCPU makes accesses */
static struct {
	bool irq;
	unsigned nmis, inits, sipis;
	uint8_t sipi_vector;
} got[CPUS];
static uint64_t host_tsc;
static uint8_t pic_vector;

/* --- what stands for the vCPUs --- */

static void cb_irq(void *opaque, bool level)
{
	got[(uintptr_t)opaque].irq = level;
}

static void cb_nmi(void *opaque)
{
	got[(uintptr_t)opaque].nmis++;
}

static void cb_init(void *opaque)
{
	got[(uintptr_t)opaque].inits++;
}

static void cb_sipi(void *opaque, uint8_t vector)
{
	got[(uintptr_t)opaque].sipis++;
	got[(uintptr_t)opaque].sipi_vector = vector;
}

static uint64_t tsc(void)
{
	return host_tsc;
}

static uint8_t ack_pic(void *opaque)
{
	(void)opaque;
	lapic_set_lint0(set, 0);
	return pic_vector;
}

static uint32_t rd(unsigned reg)
{
	struct bus_access a = {.addr = LAPIC + reg, .size = 4, .cpu = cpu, .value = UINT64_MAX};

	bus_access(test_bus, BUS_MMIO, &a);
	return (uint32_t)a.value;
}

static void wr(unsigned reg, uint32_t v)
{
	struct bus_access a = {
		.addr = LAPIC + reg, .size = 4, .cpu = cpu, .write = true, .value = v};

	bus_access(test_bus, BUS_MMIO, &a);
}

static int rdmsr(uint32_t index, uint64_t *v)
{
	return lapic_rdmsr(set, cpu, index, v);
}

static int wrmsr(uint32_t index, uint64_t v)
{
	return lapic_wrmsr(set, cpu, index, v);
}

static void make(void)
{
	const struct lapic_config cfg = {.bus = test_bus,
					 .cpus = CPUS,
					 .gpa = LAPIC,
					 .phys_bits = 40,
					 .tsc_hz = 1000000000,
					 .host_tsc = tsc,
					 .extint_ack = ack_pic};
	const struct lapic_cpu ops = {
		.set_irq = cb_irq, .nmi = cb_nmi, .init = cb_init, .sipi = cb_sipi};

	assert_int_equal(lapic_set_create(&set, &cfg, NULL), 0);
	for (unsigned i = 0; i < CPUS; i++) {
		struct lapic_cpu c = ops;
		c.opaque = (void *)(uintptr_t)i;
		lapic_attach(set, i, &c);
	}
	const struct ioapic_config io_cfg = {
		.bus = test_bus, .gpa = IOAPIC, .id = 0, .lapics = set};
	assert_int_equal(ioapic_create(&io, &io_cfg, NULL), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(got, 0, sizeof(got));
	bus_create(&test_bus, NULL);
	make();
	for (cpu = CPUS; cpu-- > 0;)
		wr(SVR, 0x1ff);
	cpu = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ioapic_ops.destroy(io);
	lapic_ops.destroy(set);
	bus_destroy(test_bus);
	return 0;
}

static void send(uint32_t dest, bool logical, enum apic_mode mode, uint8_t vector)
{
	lapic_deliver(set,
		      &(struct apic_message){
			      .dest = dest, .logical = logical, .mode = mode, .vector = vector});
}

static uint32_t bits(unsigned reg, unsigned vector)
{
	return rd(reg + vector / 32 * 16) >> vector % 32 & 1;
}

/* --- the core --- */

static void test_reset_values(void **state)
{
	(void)state;
	lapic_ops.reset(set);
	for (cpu = 0; cpu < 2; cpu++) {
		assert_int_equal(rd(ID), cpu << 24);
		assert_int_equal(rd(VER) & 0xff, 0x14);
		assert_int_equal(rd(VER) >> 16 & 0xff, 5);
		assert_int_equal(rd(SVR), 0xff);
		assert_int_equal(rd(DFR), 0xffffffff);
		assert_int_equal(rd(LDR), 0);
		assert_int_equal(rd(LVTT), 0x10000);
		assert_int_equal(rd(LINT0), cpu ? 0x10000 : 0x700);
	}
	uint64_t base;
	cpu = 0;
	assert_int_equal(rdmsr(MSR_BASE, &base), 0);
	assert_int_equal(base, LAPIC | 0x900);
	cpu = 1;
	assert_int_equal(rdmsr(MSR_BASE, &base), 0);
	assert_int_equal(base, LAPIC | 0x800);
}

static void test_deliver_ack_eoi(void **state)
{
	(void)state;
	send(0, false, APIC_FIXED, 0x51);
	assert_true(got[0].irq);
	assert_false(got[1].irq);
	assert_int_equal(bits(IRR, 0x51), 1);
	assert_int_equal(lapic_ack(set, 0), 0x51);
	assert_false(got[0].irq);
	assert_int_equal(bits(IRR, 0x51), 0);
	assert_int_equal(bits(ISR, 0x51), 1);
	assert_int_equal(rd(PPR), 0x50);
	send(0, false, APIC_FIXED, 0x5f); /* same class: waits */
	assert_false(got[0].irq);
	assert_int_equal(lapic_ack(set, 0), -1);
	send(0, false, APIC_FIXED, 0x61);
	assert_int_equal(lapic_ack(set, 0), 0x61);
	wr(EOI, 0);
	assert_false(got[0].irq);
	wr(EOI, 0);
	assert_true(got[0].irq);
	assert_int_equal(lapic_ack(set, 0), 0x5f);
	wr(EOI, 0);
	wr(EOI, 0); /* nothing in service: nothing happens */
	assert_int_equal(rd(PPR), 0);
}

static void test_tpr_and_cr8(void **state)
{
	(void)state;
	lapic_set_cr8(set, 0, 6);
	assert_int_equal(rd(TPR), 0x60);
	wr(TPR, 0x75);
	assert_int_equal(lapic_get_cr8(set, 0), 7);
	assert_int_equal(rd(PPR), 0x75);
	send(0, false, APIC_FIXED, 0x7f);
	assert_false(got[0].irq);
	lapic_set_cr8(set, 0, 6);
	assert_true(got[0].irq);
	lapic_set_cr8(set, 0, 9);
	assert_false(got[0].irq);
	assert_int_equal(lapic_ack(set, 0), -1);
	wr(TPR, 0);
	assert_int_equal(lapic_ack(set, 0), 0x7f);
}

static void test_illegal_vectors(void **state)
{
	(void)state;
	wr(LVTE, 0xee);
	send(0, false, APIC_FIXED, 5);
	assert_int_equal(lapic_ack(set, 0), 0xee);
	assert_int_equal(rd(ESR), 0);
	wr(ESR, 0);
	assert_int_equal(rd(ESR), 0x40);
	wr(ESR, 0);
	assert_int_equal(rd(ESR), 0);
	wr(ICRH, 1 << 24);
	wr(ICR, 3);
	wr(ESR, 0);
	assert_int_equal(rd(ESR), 0x20);
	rd(0x3f0); /* reserved register */
	wr(ESR, 0);
	assert_int_equal(rd(ESR), 0x80);
}

static void test_software_disable(void **state)
{
	(void)state;
	wr(LVTT, 0x33);
	wr(SVR, 0xff);
	assert_int_equal(rd(LVTT), 0x10033);
	wr(LVTT, 0x33);
	assert_int_equal(rd(LVTT), 0x10033); /* the mask cannot be cleared */
	send(0, false, APIC_FIXED, 0x51);
	assert_int_equal(bits(IRR, 0x51), 0);
	send(0, false, APIC_NMI, 0);
	assert_int_equal(got[0].nmis, 1);
}

static void test_mmio_shapes(void **state)
{
	struct bus_access a = {.addr = LAPIC + SVR + 1, .size = 1, .value = UINT64_MAX};

	(void)state;
	bus_access(test_bus, BUS_MMIO, &a);
	assert_int_equal(a.value, 1);
	a = (struct bus_access){.addr = LAPIC + SVR, .size = 1, .write = true};
	bus_access(test_bus, BUS_MMIO, &a);
	assert_int_equal(rd(SVR), 0x1ff);
	a = (struct bus_access){.addr = LAPIC + SVR, .size = 4, .cpu = 4000, .value = UINT64_MAX};
	bus_access(test_bus, BUS_MMIO, &a);
	assert_int_equal((uint32_t)a.value, UINT32_MAX);
}

/* --- IPIs and destinations --- */

static unsigned who_got(uint8_t vector)
{
	unsigned mask = 0, old = cpu;

	for (cpu = 0; cpu < CPUS; cpu++)
		if (bits(IRR, vector)) {
			mask |= 1u << cpu;
			lapic_ack(set, cpu);
			wr(EOI, 0);
		}
	cpu = old;
	return mask;
}

static void ipi(uint32_t high, uint32_t low)
{
	wr(ICRH, high);
	wr(ICR, low);
}

static void test_ipis(void **state)
{
	const unsigned all = (1u << CPUS) - 1;

	(void)state;
	cpu = 2;
	ipi(5u << 24, 0x40);
	assert_int_equal(who_got(0x40), 1 << 5);
	ipi(0xffu << 24, 0x40);
	assert_int_equal(who_got(0x40), all);
	ipi(0, 0x40040); /* self */
	assert_int_equal(who_got(0x40), 1 << 2);
	ipi(0, 0x80040);
	assert_int_equal(who_got(0x40), all);
	ipi(0, 0xc0040);
	assert_int_equal(who_got(0x40), all & ~(1u << 2));
	ipi(0xfeu << 24, 0x40); /* nobody's id */
	assert_int_equal(who_got(0x40), 0);
	assert_int_equal(rd(ICR) & 0x1000, 0); /* never busy */
	ipi(0, 0x40400);		       /* self with NMI is not allowed */
	assert_int_equal(got[2].nmis, 0);
	ipi(0, 0xc0400);
	assert_int_equal(got[2].nmis, 0);
	assert_int_equal(got[7].nmis, 1);
}

static void test_init_sipi(void **state)
{
	(void)state;
	cpu = 1;
	wr(TPR, 0x30);
	wr(LDR, 0x5000000);
	cpu = 0;
	ipi(1 << 24, 0xc500); /* INIT, level, assert */
	assert_int_equal(got[1].inits, 1);
	ipi(1 << 24, 0x8500); /* de-assert: nothing */
	assert_int_equal(got[1].inits, 1);
	ipi(1 << 24, 0x4600 | 0x9a);
	assert_int_equal(got[1].sipis, 1);
	assert_int_equal(got[1].sipi_vector, 0x9a);
	cpu = 1;
	assert_int_equal(rd(TPR), 0);
	assert_int_equal(rd(LDR), 0);
	assert_int_equal(rd(SVR), 0xff);
	assert_int_equal(rd(ID), 1 << 24);
	assert_int_equal(got[0].inits, 0);
}

static void test_logical_flat(void **state)
{
	(void)state;
	for (cpu = 0; cpu < 8; cpu++)
		wr(LDR, 1u << (24 + cpu));
	send(0x05, true, APIC_FIXED, 0x41);
	assert_int_equal(who_got(0x41), 0x05);
	send(0xff, true, APIC_FIXED, 0x41);
	assert_int_equal(who_got(0x41), 0xff);
}

static void test_logical_cluster(void **state)
{
	(void)state;
	for (cpu = 0; cpu < 8; cpu++) {
		wr(DFR, 0x0fffffff);
		wr(LDR, (cpu / 4) << 28 | 1u << (24 + cpu % 4));
	}
	assert_int_equal((cpu = 0, rd(DFR)), 0x0fffffff);
	send(0x03, true, APIC_FIXED, 0x41);
	assert_int_equal(who_got(0x41), 0x03);
	send(0x1a, true, APIC_FIXED, 0x41);
	assert_int_equal(who_got(0x41), 0xa0);
	send(0xf1, true, APIC_FIXED, 0x41);
	assert_int_equal(who_got(0x41), 0x11);
}

static void test_lowest_priority(void **state)
{
	(void)state;
	for (cpu = 0; cpu < 4; cpu++) {
		wr(LDR, 1u << (24 + cpu));
		wr(TPR, cpu == 2 ? 0x10 : 0x80);
	}
	for (unsigned i = 0; i < 5; i++) {
		send(0x0f, true, APIC_LOWEST, 0x91);
		assert_int_equal(who_got(0x91), 1 << 2);
	}
	for (cpu = 0; cpu < 4; cpu++)
		wr(TPR, 0);
	unsigned seen = 0;
	for (unsigned i = 0; i < 40; i++) {
		send(0x0f, true, APIC_LOWEST, 0x91);
		unsigned one = who_got(0x91);
		assert_int_equal(one & (one - 1), 0);
		seen |= one;
	}
	assert_int_equal(seen, 0xf); /* equals take turns */
}

static void test_msi(void **state)
{
	(void)state;
	lapic_msi(set, 0xfee03000, 0x45);
	assert_int_equal(who_got(0x45), 1 << 3);
	lapic_msi(set, 0xfee03000, 0x8045); /* level, de-assert */
	lapic_msi(set, 0x1fee03000, 0x45);
	assert_int_equal(who_got(0x45), 0);
	lapic_msi(set, 0xfee03000, 0x400);
	assert_int_equal(got[3].nmis, 1);
}

/* --- x2APIC and the base --- */

static void test_base_transitions(void **state)
{
	uint64_t v;

	(void)state;
	cpu = 3;
	assert_int_equal(rdmsr(0x802, &v), -ENOENT); /* not in x2APIC mode yet */
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0x400), -ENOENT);
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0x801), -ENOENT);
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0xa00), -ENOENT);
	assert_int_equal(wrmsr(MSR_BASE, UINT64_C(1) << 40 | 0x800), -ENOENT);
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0xc00), 0);
	assert_int_equal(rd(ID), UINT32_MAX); /* no MMIO any more */
	assert_int_equal(rdmsr(0x802, &v), 0);
	assert_int_equal(v, 3);
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0x800), -ENOENT); /* x2APIC to xAPIC */
	assert_int_equal(wrmsr(MSR_BASE, LAPIC), 0);
	assert_int_equal(rdmsr(0x802, &v), -ENOENT);
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0xc00), -ENOENT); /* off to x2APIC */
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0x800), 0);
	assert_int_equal(rd(SVR), 0xff);
	assert_int_equal(rdmsr(MSR_BASE, &v), 0);
	assert_int_equal(v, LAPIC | 0x800);
}

static void test_base_moves(void **state)
{
	struct bus_access a = {.addr = 0xd0000000 + VER, .size = 4, .cpu = 1, .value = UINT64_MAX};

	(void)state;
	cpu = 1;
	assert_int_equal(wrmsr(MSR_BASE, 0xd0000800), 0);
	assert_int_equal(rd(VER), UINT32_MAX);
	bus_access(test_bus, BUS_MMIO, &a);
	assert_int_equal(a.value & 0xff, 0x14);
	a.cpu = 0;
	a.value = UINT64_MAX;
	bus_access(test_bus, BUS_MMIO, &a);
	assert_int_equal((uint32_t)a.value, UINT32_MAX);
	cpu = 0;
	assert_int_equal(rd(VER) & 0xff, 0x14);
	cpu = 1;
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0x800), 0);
	assert_int_equal(rd(VER) & 0xff, 0x14);
}

static void test_x2apic_registers(void **state)
{
	static const uint32_t absent[] = {0x800, 0x80e, 0x831, 0x82f, 0x840, 0x8ff, 0x809, 0x80b};
	static const uint32_t read_only[] = {0x802, 0x803, 0x80a, 0x80d,
					     0x810, 0x818, 0x820, 0x839};
	uint64_t v;

	(void)state;
	cpu = 17;
	assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0xc00), 0);
	for (unsigned i = 0; i < sizeof(absent) / 4; i++)
		assert_int_equal(rdmsr(absent[i], &v), -ENOENT);
	for (unsigned i = 0; i < sizeof(read_only) / 4; i++) {
		assert_int_equal(rdmsr(read_only[i], &v), 0);
		assert_int_equal(wrmsr(read_only[i], 0), -ENOENT);
	}
	assert_int_equal(rdmsr(0x83f, &v), -ENOENT); /* self IPI is write-only */
	assert_int_equal(rdmsr(0x80d, &v), 0);
	assert_int_equal(v, 1 << 16 | 2); /* cluster 1, bit 1 */
	assert_int_equal(wrmsr(0x808, 0x100), -ENOENT);
	assert_int_equal(wrmsr(0x808, 0x20), 0);
	assert_int_equal(lapic_get_cr8(set, 17), 2);
	assert_int_equal(wrmsr(0x80b, 1), -ENOENT);
	assert_int_equal(wrmsr(0x80b, 0), 0);
	assert_int_equal(wrmsr(0x828, 1), -ENOENT);
	assert_int_equal(wrmsr(0x80f, 0x1ff | 1 << 9), -ENOENT);
	assert_int_equal(wrmsr(0x80f, 0x1ff), 0);
	assert_int_equal(wrmsr(0x832, 1 << 12 | 1 << 19), -ENOENT);
	assert_int_equal(wrmsr(0x83f, 0x180), -ENOENT);
	assert_int_equal(wrmsr(0x808, 0), 0);
	assert_int_equal(wrmsr(0x83f, 0x80), 0);
	assert_int_equal(lapic_ack(set, 17), 0x80);
}

static void test_x2apic_ipis(void **state)
{
	uint64_t v;

	(void)state;
	for (cpu = 0; cpu < CPUS; cpu++) {
		assert_int_equal(wrmsr(MSR_BASE, LAPIC | 0xc00 | (cpu ? 0 : 0x100)), 0);
		assert_int_equal(wrmsr(0x80f, 0x1ff), 0);
	}
	cpu = 0;
	assert_int_equal(wrmsr(0x830, UINT64_C(19) << 32 | 0x40), 0);
	assert_int_equal(lapic_ack(set, 19), 0x40);
	assert_int_equal(rdmsr(0x830, &v), 0);
	assert_int_equal(v, UINT64_C(19) << 32 | 0x40);
	assert_int_equal(wrmsr(0x830, UINT64_C(0x10005) << 32 | 0x841), 0); /* logical, cluster 1 */
	assert_int_equal(lapic_ack(set, 16), 0x41);
	assert_int_equal(lapic_ack(set, 17), -1);
	assert_int_equal(lapic_ack(set, 18), 0x41);
	assert_int_equal(wrmsr(0x830, UINT64_C(0xffffffff) << 32 | 0x52), 0);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(lapic_ack(set, i), 0x52);
	assert_int_equal(wrmsr(0x830, 0x2040), -ENOENT);
	lapic_msi(set, 0xfee13000, 0x63); /* 8-bit ids still reach it */
	assert_int_equal(lapic_ack(set, 19), 0x63);
}

/* --- timer --- */

static void test_timer_one_shot(void **state)
{
	(void)state;
	wr(TDCR, 0xb);
	wr(LVTT, 0x31);
	wr(TMICT, 1000000);
	fake_time_pass(400000);
	assert_int_equal(rd(TMCCT), 600000);
	assert_false(got[0].irq);
	fake_time_pass(600001);
	assert_int_equal(lapic_ack(set, 0), 0x31);
	assert_int_equal(rd(TMCCT), 0);
	wr(EOI, 0);
	fake_time_pass(5000000);
	assert_false(got[0].irq);
	wr(TDCR, 0x3); /* by 16 */
	wr(TMICT, 1000);
	fake_time_pass(15999);
	assert_int_equal(rd(TMCCT), 1);
	assert_false(got[0].irq);
	fake_time_pass(2);
	assert_true(got[0].irq);
}

static void test_timer_periodic(void **state)
{
	unsigned n = 0;

	(void)state;
	wr(TDCR, 0xb);
	wr(LVTT, 0x20031);
	wr(TMICT, 1000000);
	for (unsigned i = 0; i < 1000; i++) {
		fake_time_pass(100000);
		if (lapic_ack(set, 0) == 0x31) {
			wr(EOI, 0);
			n++;
		}
	}
	assert_in_range(n, 99, 100);
	assert_int_equal(fake_time_jump(1000000000), 1); /* late by 1000 periods: one interrupt */
	assert_int_equal(lapic_ack(set, 0), 0x31);
	wr(EOI, 0);
	assert_false(got[0].irq);
	wr(TMICT, 1); /* a nanosecond: not more than one in 50 us */
	unsigned ran = 0;
	for (unsigned i = 0; i < 100; i++)
		ran += fake_time_jump(10000);
	assert_in_range(ran, 10, 25);
	wr(TMICT, 0);
	fake_time_pass(100000);
	assert_int_equal(fake_time_jump(1000000), 0);
}

static void test_timer_masked(void **state)
{
	(void)state;
	wr(TDCR, 0xb);
	wr(LVTT, 0x10031);
	wr(TMICT, 1000000);
	fake_time_pass(500000);
	wr(LVTT, 0x31); /* opened in time */
	fake_time_pass(600000);
	assert_int_equal(lapic_ack(set, 0), 0x31);
	wr(EOI, 0);
	wr(LVTT, 0x10031);
	wr(TMICT, 1000000);
	fake_time_pass(1500000);
	assert_int_equal(rd(TMCCT), 0);
	wr(LVTT, 0x31); /* too late */
	fake_time_pass(5000000);
	assert_false(got[0].irq);
}

static void test_timer_deadline(void **state)
{
	uint64_t v;

	(void)state;
	host_tsc = 1000000000;
	assert_int_equal(wrmsr(MSR_DEADLINE, 5), 0); /* ignored in other modes */
	assert_int_equal(rdmsr(MSR_DEADLINE, &v), 0);
	assert_int_equal(v, 0);
	wr(LVTT, 0x40031);
	wr(TMICT, 100); /* ignored in this one */
	assert_int_equal(rd(TMICT), 0);
	lapic_set_tsc_offset(set, 0, 500);
	wrmsr(MSR_DEADLINE, 1000000500 + 1000000);
	rdmsr(MSR_DEADLINE, &v);
	assert_int_equal(v, 1001000500);
	host_tsc += 900000; /* the TSC runs a bit behind the clock */
	fake_time_pass(1000002);
	assert_false(got[0].irq);
	host_tsc += 200000;
	fake_time_pass(200000);
	assert_int_equal(lapic_ack(set, 0), 0x31);
	wr(EOI, 0);
	rdmsr(MSR_DEADLINE, &v);
	assert_int_equal(v, 0);
	wrmsr(MSR_DEADLINE, 1); /* past: at once */
	assert_int_equal(lapic_ack(set, 0), 0x31);
	wr(EOI, 0);
	wrmsr(MSR_DEADLINE, host_tsc + 1000000);
	wrmsr(MSR_DEADLINE, 0); /* disarms */
	host_tsc += 5000000;
	fake_time_pass(5000000);
	assert_false(got[0].irq);
	wrmsr(MSR_DEADLINE, host_tsc + 1000000);
	lapic_set_tsc_offset(set, 0, 2000000); /* the guest's clock is put forward over it */
	fake_time_pass(2);
	assert_int_equal(lapic_ack(set, 0), 0x31);
	wr(EOI, 0);
	wrmsr(MSR_DEADLINE, UINT64_MAX);
	fake_time_pass(1000000);
	wr(LVTT, 0x31); /* leaving the mode disarms */
	rdmsr(MSR_DEADLINE, &v);
	assert_int_equal(v, 0);
}

/* --- LINT pins --- */

static void test_extint(void **state)
{
	(void)state;
	wr(LINT0, 0x700);
	pic_vector = 0x08;
	lapic_set_lint0(set, 1);
	assert_true(got[0].irq);
	assert_false(got[1].irq);
	lapic_set_cr8(set, 0, 15); /* does not hold it back */
	assert_true(got[0].irq);
	assert_int_equal(lapic_ack(set, 0), 0x08);
	assert_false(got[0].irq);
	assert_int_equal(bits(ISR, 0x08), 0);
	wr(LINT0, 0x10700);
	lapic_set_lint0(set, 1);
	assert_false(got[0].irq);
	assert_int_equal(lapic_ack(set, 0), -1);
	wr(LINT0, 0x700);
	assert_true(got[0].irq);
	lapic_set_lint0(set, 0); /* withdrawn */
	assert_false(got[0].irq);
	wrmsr(MSR_BASE, LAPIC | 0x100); /* APIC off: LINT0 is INTR */
	lapic_set_lint0(set, 1);
	assert_int_equal(lapic_ack(set, 0), 0x08);
}

static void test_lints(void **state)
{
	(void)state;
	wr(LINT1, 0x400);
	lapic_set_lint1(set, 1);
	lapic_set_lint1(set, 1);
	assert_int_equal(got[0].nmis, 1);
	assert_int_equal(got[1].nmis, 0);
	lapic_set_lint1(set, 0);
	wr(LINT0, 0x8077); /* fixed, level */
	lapic_set_lint0(set, 1);
	assert_int_equal(rd(LINT0), 0xc077);
	assert_int_equal(lapic_ack(set, 0), 0x77);
	assert_false(got[0].irq);
	wr(EOI, 0);
	assert_true(got[0].irq);
	lapic_ack(set, 0);
	lapic_set_lint0(set, 0);
	wr(EOI, 0);
	assert_false(got[0].irq);
	assert_int_equal(rd(LINT0), 0x8077);
}

/* --- I/O APIC --- */

static void io_wr(unsigned reg, uint32_t v)
{
	bus_out(BUS_MMIO, IOAPIC, 4, reg);
	bus_out(BUS_MMIO, IOAPIC + 0x10, 4, v);
}

static uint32_t io_rd(unsigned reg)
{
	bus_out(BUS_MMIO, IOAPIC, 4, reg);
	return (uint32_t)bus_in(BUS_MMIO, IOAPIC + 0x10, 4);
}

static void redir(unsigned pin, uint32_t dest, uint32_t low)
{
	io_wr(0x11 + 2 * pin, dest << 24);
	io_wr(0x10 + 2 * pin, low);
}

static void test_ioapic_registers(void **state)
{
	(void)state;
	assert_int_equal(io_rd(1), 0x170020);
	assert_int_equal(io_rd(0x10), 0x10000);
	io_wr(0, 0x0f000000);
	assert_int_equal(io_rd(0), 0x0f000000);
	io_wr(0x10, 0xffffffff);
	assert_int_equal(io_rd(0x10), 0x1afff);
	io_wr(0x11, 0xffffffff);
	assert_int_equal(io_rd(0x11), 0xff000000);
	assert_int_equal(io_rd(0x40), 0);
}

static void test_ioapic_edge(void **state)
{
	(void)state;
	redir(4, 2, 0x34);
	ioapic_set_irq(io, 4, 1);
	assert_int_equal(who_got(0x34), 4);
	ioapic_set_irq(io, 4, 1);
	assert_int_equal(who_got(0x34), 0);
	ioapic_set_irq(io, 4, 0);
	redir(4, 2, 0x10034);
	ioapic_set_irq(io, 4, 1); /* masked edges are lost */
	redir(4, 2, 0x34);
	assert_int_equal(who_got(0x34), 0);
	redir(5, 2, 0x400); /* NMI */
	ioapic_set_irq(io, 5, 1);
	assert_int_equal(got[2].nmis, 1);
	redir(6, 0, 0x700); /* ExtINT */
	pic_vector = 0x0e;
	ioapic_set_irq(io, 6, 1);
	assert_int_equal(lapic_ack(set, 0), 0x0e);
	assert_false(got[0].irq);
}

static void test_ioapic_level(void **state)
{
	(void)state;
	redir(16, 0, 0x8061);
	ioapic_set_irq(io, 16, 1);
	assert_int_equal(io_rd(0x30), 0xc061);
	assert_int_equal(bits(TMR, 0x61), 1);
	assert_int_equal(lapic_ack(set, 0), 0x61);
	ioapic_set_irq(io, 16, 0);
	ioapic_set_irq(io, 16, 1); /* still waits for its EOI */
	assert_false(got[0].irq);
	wr(EOI, 0);
	assert_true(got[0].irq); /* the line is still high */
	assert_int_equal(lapic_ack(set, 0), 0x61);
	ioapic_set_irq(io, 16, 0);
	wr(EOI, 0);
	assert_false(got[0].irq);
	assert_int_equal(io_rd(0x30), 0x8061);
	redir(16, 0, 0x18061);
	ioapic_set_irq(io, 16, 1);
	assert_false(got[0].irq);
	redir(16, 0, 0x8061); /* opened while high */
	assert_int_equal(lapic_ack(set, 0), 0x61);

	wr(SVR, 0x11ff); /* no broadcast: the EOI register does it */
	ioapic_set_irq(io, 16, 0);
	wr(EOI, 0);
	assert_int_equal(io_rd(0x30), 0xc061);
	bus_out(BUS_MMIO, IOAPIC + 0x40, 4, 0x61);
	assert_int_equal(io_rd(0x30), 0x8061);
	ioapic_set_irq(io, 16, 1);
	redir(16, 0, 0x10061); /* edge mode drops Remote IRR */
	assert_int_equal(io_rd(0x30), 0x10061);
}

/* --- state, hostility --- */

static void test_state(void **state)
{
	struct lapic_set *first_set = set;
	struct ioapic *first_io = io;
	struct bus *first_bus = test_bus;

	(void)state;
	wr(TDCR, 0xb);
	wr(LVTT, 0x20031);
	wr(TMICT, 1000000);
	wr(LINT0, 0x700);
	send(0, false, APIC_FIXED, 0x81);
	lapic_ack(set, 0);
	send(0, false, APIC_FIXED, 0x91);
	redir(16, 1, 0x8061);
	ioapic_set_irq(io, 16, 1);
	cpu = 5;
	wrmsr(MSR_BASE, LAPIC | 0xc00);
	cpu = 0;
	fake_time_pass(300000);
	bus_create(&test_bus, NULL);
	memset(got, 0, sizeof(got));
	make();
	round_trip(&lapic_ops, first_set, set);
	round_trip(&ioapic_ops, first_io, io);
	assert_true(got[0].irq);
	assert_true(got[1].irq);
	struct bus *second_bus = test_bus;
	test_bus = first_bus;
	uint32_t left = rd(TMCCT);
	test_bus = second_bus;
	assert_int_equal(rd(TMCCT), left);
	assert_int_equal(lapic_ack(set, 0), 0x91);
	wr(EOI, 0);
	wr(EOI, 0);
	fake_time_pass(left + 1);
	assert_int_equal(lapic_ack(set, 0), 0x31);
	assert_int_equal(io_rd(0x30), 0xc061);
	uint64_t v;
	cpu = 5;
	assert_int_equal(rdmsr(0x802, &v), 0);
	ioapic_ops.destroy(io);
	lapic_ops.destroy(set);
	bus_destroy(test_bus);
	set = first_set;
	io = first_io;
	test_bus = first_bus;
}

static void test_hostile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4000; i++) {
		cpu = (unsigned)rand() % CPUS;
		scribble(BUS_MMIO, LAPIC, 0x400, 10);
		for (unsigned k = 0; k < 10; k++)
			wr((unsigned)rand() % 64 * 16, (uint32_t)rand() ^ (uint32_t)rand() << 12);
		scribble(BUS_MMIO, IOAPIC, 0x50, 4);
		io_wr((unsigned)rand() & 0x3f, (uint32_t)rand() ^ (uint32_t)rand() << 12);
		ioapic_set_irq(io, (unsigned)rand() % 30, rand() & 1);
		uint64_t v = (uint64_t)rand() << 20 ^ (uint64_t)rand();
		wrmsr(0x800 + (unsigned)rand() % 0x100, rand() & 1 ? v : v & 0xff);
		rdmsr(0x800 + (unsigned)rand() % 0x100, &v);
		if (rand() % 50 == 0)
			wrmsr(MSR_BASE,
			      (uint64_t)(rand() & 0xfff) << 12 | ((uint64_t)rand() & 0xd00));
		wrmsr(MSR_DEADLINE, (uint64_t)rand());
		host_tsc += (uint64_t)rand();
		lapic_ack(set, cpu);
		lapic_set_lint0(set, rand() & 1);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_reset_values),
		T(test_deliver_ack_eoi),
		T(test_tpr_and_cr8),
		T(test_illegal_vectors),
		T(test_software_disable),
		T(test_mmio_shapes),
		T(test_ipis),
		T(test_init_sipi),
		T(test_logical_flat),
		T(test_logical_cluster),
		T(test_lowest_priority),
		T(test_msi),
		T(test_base_transitions),
		T(test_base_moves),
		T(test_x2apic_registers),
		T(test_x2apic_ipis),
		T(test_timer_one_shot),
		T(test_timer_periodic),
		T(test_timer_masked),
		T(test_timer_deadline),
		T(test_extint),
		T(test_lints),
		T(test_ioapic_registers),
		T(test_ioapic_edge),
		T(test_ioapic_level),
		T(test_state),
		T(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
