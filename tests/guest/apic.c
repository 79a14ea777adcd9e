/* SPDX-License-Identifier: Apache-2.0 */
/* Local APIC and I/O APIC (Intel SDM volume 3, chapter 10; 82093AA data sheet). */
#include "guest.h"

enum {
	ID = 0x20,
	VERSION = 0x30,
	TPR = 0x80,
	PPR = 0xa0,
	EOI = 0xb0,
	LDR = 0xd0,
	DFR = 0xe0,
	SVR = 0xf0,
	ISR = 0x100,
	TMR = 0x180,
	IRR = 0x200,
	ESR = 0x280,
	ICR = 0x300,
	ICR_HIGH = 0x310,
	LVT_TIMER = 0x320,
	LVT_LINT0 = 0x350,
	LVT_ERROR = 0x370,
	TIMER_INITIAL = 0x380,
	TIMER_CURRENT = 0x390,
	TIMER_DIVIDE = 0x3e0,
};
#define SELF 0x40000
#define MASKED 0x10000
#define PERIODIC 0x20000
#define DEADLINE 0x40000

static volatile u32 count[256], order[32], taken, nmis;
static volatile bool send_eoi;
static volatile u32 ppr_inside, nested_at;

static bool on_vector(struct regs *r)
{
	count[r->vec]++;
	if (taken < ARRAY_SIZE(order))
		order[taken] = r->vec;
	taken++;
	ppr_inside = apic_read(PPR);
	if (taken > 1000)
		r->fl &= ~FL_IF;
	if (send_eoi)
		apic_write(EOI, 0);
	return true;
}

static bool on_nmi(struct regs *r)
{
	(void)r;
	nmis++;
	if (nmis == 1) {
		/* A second one waits until this one's IRET. */
		apic_write(ICR_HIGH, apic_read(ID));
		apic_write(ICR, 0x400);
		for (int i = 0; i < 1000; i++)
			pause();
		nested_at = nmis;
	}
	return true;
}

static void clear(void)
{
	memset((void *)count, 0, sizeof(count));
	taken = 0;
}

static bool bit(u32 reg, u32 vector)
{
	return apic_read(reg + vector / 32 * 0x10) >> vector % 32 & 1;
}

static void self_ipi(u32 vector)
{
	apic_write(ICR, SELF | vector);
}

static void enable_briefly(void)
{
	sti();
	delay_us(300);
	cli();
}

/* Wait, interrupts on, until a vector has come so often; that may take a busy host a while. */
static void enable_until(u32 vector, u32 times)
{
	sti();
	wait_for(&count[vector], times, 20000);
	delay_us(300);
	cli();
}

static void identity(void)
{
	u32 r[4];

	group("lapic");
	cpuid(1, 0, r);
	check_mask("APIC_BASE: enabled, boot processor, at 0xfee00000", rdmsr(MSR_APIC_BASE),
		   0xfee00900, 0xfffff900);
	check_eq("ID is CPUID's", apic_read(ID) >> 24, r[1] >> 24);
	check_range("version", apic_read(VERSION) & 0xff, 0x10, 0x15);
	check_range("highest LVT entry", apic_read(VERSION) >> 16 & 0xff, 3, 6);
	apic_write(VERSION, 0);
	check_range("version is read-only", apic_read(VERSION) & 0xff, 0x10, 0x15);
	apic_write(TPR, 0x1ff);
	check_eq("TPR has eight bits", apic_read(TPR), 0xff);
	apic_write(TPR, 0);
	apic_write(LVT_TIMER, 0x100ff | 0x1000);
	check_eq("LVT: delivery status is read-only", apic_read(LVT_TIMER) & 0x110ff, 0x100ff);
	apic_write(LDR, 0xffffffff);
	check_eq("LDR: only the top byte", apic_read(LDR), 0xff000000);
	check_eq("DFR is flat at reset", apic_read(DFR), 0xffffffff);
	apic_write(DFR, 0);
	check_eq("DFR: only the top four bits", apic_read(DFR), 0x0fffffff);
	apic_write(DFR, 0xffffffff);
	apic_write(ICR_HIGH, 0x12345678);
	check_eq("ICR high: the destination reads back", apic_read(ICR_HIGH) >> 24, 0x12);
}

/* A loop and a call, so that whoever runs it looks for interrupts. */
SNIP(r3_turns, "mov $1000, %ecx\n1: call 2f\ndec %ecx\njnz 1b\nint3\n2: ret");

static void priorities(void)
{
	struct regs r;

	group("ipi");
	send_eoi = false;
	clear();
	self_ipi(0x51);
	check("a self IPI with IF clear waits in IRR", bit(IRR, 0x51) && !bit(ISR, 0x51));
	regs_init(&r, RING3, r3_turns);
	r.fl = (r.fl & ~FL_IF) | FL_IOPL3;
	run(&r);
	check_trap("it waits for ring 3 with IF clear, too, which gets on", BP, 0, 0);
	check("and still waits after it", bit(IRR, 0x51) && !bit(ISR, 0x51));
	check_mask("ICR: delivery status is idle", apic_read(ICR), 0, 0x1000);
	enable_until(0x51, 1);
	check_eq("delivered", count[0x51], 1);
	check("in ISR, no longer in IRR", !bit(IRR, 0x51) && bit(ISR, 0x51));
	check_eq("PPR is its class", apic_read(PPR) & 0xf0, 0x50);
	self_ipi(0x5f);
	enable_briefly();
	check_eq("the same class waits for the EOI", count[0x5f], 0);
	self_ipi(0x60);
	enable_until(0x60, 1);
	check_eq("a higher class does not", count[0x60], 1);
	apic_write(EOI, 0);
	check("EOI ends the highest", !bit(ISR, 0x60) && bit(ISR, 0x51));
	apic_write(EOI, 0);
	enable_until(0x5f, 1);
	check_eq("then the waiting one comes", count[0x5f], 1);
	apic_write(EOI, 0);
	check_eq("PPR is 0 again", apic_read(PPR), 0);

	send_eoi = true;
	clear();
	self_ipi(0x41);
	self_ipi(0x81);
	self_ipi(0x61);
	enable_until(0x41, 1);
	check_eq("highest first", order[0] << 16 | order[1] << 8 | order[2], 0x816141);
	clear();
	self_ipi(0x70);
	self_ipi(0x70);
	enable_until(0x70, 1);
	check_eq("one vector twice in IRR is one", count[0x70], 1);

	group("tpr");
	clear();
	apic_write(TPR, 0x50);
	check_eq("PPR follows", apic_read(PPR), 0x50);
	self_ipi(0x5f);
	enable_briefly();
	check_eq("its class is held back", count[0x5f], 0);
	self_ipi(0x60);
	enable_until(0x60, 1);
	check_eq("the next class is not", count[0x60], 1);
	apic_write(TPR, 0x40);
	enable_until(0x5f, 1);
	check_eq("lowering it lets the other one in", count[0x5f], 1);
	check_eq("PPR in the handler", ppr_inside & 0xf0, 0x50);
	apic_write(TPR, 0);
}

static void destinations(void)
{
	u32 id = apic_read(ID);

	group("destination");
	send_eoi = true;
	clear();
	apic_write(ICR_HIGH, id);
	apic_write(ICR, 0x55);
	enable_until(0x55, 1);
	check_eq("physical, this one", count[0x55], 1);
	apic_write(ICR_HIGH, 0xff000000);
	apic_write(ICR, 0x55);
	enable_until(0x55, 2);
	check_eq("physical broadcast", count[0x55], 2);
	apic_write(ICR, 0x80055);
	enable_until(0x55, 3);
	check_eq("shorthand: all with self", count[0x55], 3);
	apic_write(ICR, 0xc0055);
	enable_until(0x55, 3);
	check_eq("shorthand: all but self", count[0x55], 3);
	clear();
	apic_write(DFR, 0xffffffff);
	apic_write(LDR, 0x04000000);
	apic_write(ICR_HIGH, 0x0c000000);
	apic_write(ICR, 0x855);
	enable_until(0x55, 1);
	check_eq("logical flat: a set with this one", count[0x55], 1);
	apic_write(ICR_HIGH, 0x0b000000);
	apic_write(ICR, 0x855);
	enable_until(0x55, 1);
	check_eq("logical flat: a set without", count[0x55], 1);
	apic_write(DFR, 0x0fffffff);
	apic_write(LDR, 0x22000000);
	apic_write(ICR_HIGH, 0x23000000);
	apic_write(ICR, 0x855);
	enable_until(0x55, 2);
	check_eq("logical cluster: this cluster", count[0x55], 2);
	apic_write(ICR_HIGH, 0x13000000);
	apic_write(ICR, 0x855);
	enable_until(0x55, 2);
	check_eq("logical cluster: another cluster", count[0x55], 2);
	apic_write(DFR, 0xffffffff);
	apic_write(LDR, 0x01000000);
	apic_write(ICR_HIGH, 0x01000000);
	apic_write(ICR, 0x955);
	enable_until(0x55, 3);
	check_eq("lowest priority", count[0x55], 3);

	group("nmi");
	nmis = 0;
	trap_hook[NMI] = on_nmi;
	apic_write(ICR_HIGH, id);
	apic_write(ICR, 0x400);
	wait_for(&nmis, 2, 20000);
	check_eq("delivered with IF clear", nmis >= 1, 1);
	check_eq("not nested in its own handler", nested_at, 1);
	check_eq("the second one after the iret", nmis, 2);
}

static void errors(void)
{
	group("error");
	apic_write(ESR, 0);
	apic_write(ESR, 0);
	check_eq("ESR is clear", apic_read(ESR), 0);
	send_eoi = true;
	clear();
	apic_write(LVT_ERROR, 0x71);
	CATCH(self_ipi(5); enable_briefly());
	cli();
	if (trap.r.vec != NOTRAP)
		apic_write(EOI, 0);
	apic_write(ESR, 0);
	check_mask("an IPI with vector 5: illegal vector", apic_read(ESR) & 0x60 ? 0x60 : 0, 0x60,
		   0x60);
	check("raises the error interrupt", count[0x71] >= 1);
	apic_write(LVT_ERROR, MASKED);
	apic_write(ESR, 0);
	apic_write(ESR, 0);
	check_eq("ESR is cleared by writing", apic_read(ESR), 0);
}

/* APIC timer ticks in 50 ms of the PM timer at this divide code. */
static u32 ticks_in_50_ms(u32 divide)
{
	apic_write(LVT_TIMER, MASKED);
	apic_write(TIMER_DIVIDE, divide);
	apic_write(TIMER_INITIAL, 0xffffffff);
	u32 start = pmtimer_read(), from = apic_read(TIMER_CURRENT);
	delay_us(50000);
	u32 ticks = from - apic_read(TIMER_CURRENT);
	u32 us = pmtimer_to_us((pmtimer_read() - start) & 0xffffff);
	apic_write(TIMER_INITIAL, 0);
	return (u64)ticks * 50000 / us;
}

/* Ticks at one divide code against those at another, in percent; tried until near 100. */
static u32 divide_percent(u32 code, u32 by, u32 than_code, u32 than_by)
{
	u32 percent = 0;

	for (int i = 0; i < 20 && (percent < 75 || percent > 125); i++)
		percent =
			(u64)ticks_in_50_ms(code) * by * 100 / than_by / ticks_in_50_ms(than_code);
	return percent;
}

SNIP(r_loop, "r_again: mov $0x10000, %esi\nmov %esi, %ecx\ncld\nr_rep: rep lodsb\njmp r_again\n"
	     "r_end: int3");
extern char r_rep[], r_end[];
static volatile u32 rep_flags, rep_tries;

/* Ends the loop from between two iterations. */
static bool on_repetition(struct regs *r)
{
	bool within = r->ip == (ulong)r_rep && r->cx && r->cx < 0x10000;

	apic_write(EOI, 0);
	if (within)
		rep_flags = r->fl;
	if (within || ++rep_tries == 1000) {
		r->ip = (ulong)r_end;
		r->fl &= ~FL_IF;
	}
	return true;
}

/* SDM volume 3, 18.3.1.1. */
static void between_iterations(u32 ms)
{
	struct regs r;

	trap_hook[0x64] = on_repetition;
	apic_write(LVT_TIMER, PERIODIC | 0x64);
	apic_write(TIMER_INITIAL, ms);
	regs_init(&r, RING0, r_loop);
	r.fl |= FL_IF;
	run(&r);
	apic_write(TIMER_INITIAL, 0);
	apic_write(LVT_TIMER, MASKED);
	trap_hook[0x64] = on_vector;
	check("rep lodsb: an interrupt in the middle", rep_flags);
	if (!cpu_is_amd)
		check_mask("rep lodsb: Intel's push RF then", rep_flags, FL_RF, FL_RF);
}

static void timer(void)
{
	group("timer");
	send_eoi = true;
	clear();
	u32 by16 = ticks_in_50_ms(3);
	check("it counts", by16 > 100);
	check_range("divide by 1 against 16, in percent", divide_percent(0xb, 1, 3, 16), 75, 125);
	check_range("divide by 16 against 128, in percent", divide_percent(3, 16, 0xa, 128), 75,
		    125);

	u32 ms = by16 / 50 ? by16 / 50 : 1;
	apic_write(TIMER_DIVIDE, 3);
	apic_write(LVT_TIMER, 0x61);
	apic_write(TIMER_INITIAL, ms * 5);
	sti();
	bool came = wait_for(&count[0x61], 1, 20000);
	delay_us(30000);
	cli();
	check("one-shot: fires", came);
	check_eq("one-shot: once", count[0x61], 1);
	check_eq("one-shot: stands at 0", apic_read(TIMER_CURRENT), 0);

	clear();
	apic_write(LVT_TIMER, PERIODIC | 0x62);
	apic_write(TIMER_INITIAL, ms * 10);
	u32 start = pmtimer_read();
	sti();
	came = wait_for(&count[0x62], 10, 20000);
	cli();
	u32 us = pmtimer_to_us((pmtimer_read() - start) & 0xffffff);
	check("periodic: fires again and again", came);
	check("periodic: not before its time", us >= 70000);
	u32 current = 0;
	for (int i = 0; i < 1000 && !current; i++)
		current = apic_read(TIMER_CURRENT);
	check_range("periodic: reloads", current, 1, ms * 10);
	apic_write(LVT_TIMER, PERIODIC | MASKED | 0x62);
	clear();
	sti();
	delay_us(30000);
	cli();
	check_eq("masked: none", count[0x62], 0);
	apic_write(TIMER_INITIAL, 0);
	apic_write(LVT_TIMER, PERIODIC | 0x62);
	sti();
	delay_us(30000);
	cli();
	check_eq("initial count 0: stopped", count[0x62], 0);
	between_iterations(ms);

	group("tsc-deadline");
	if (!(cpu_features_1_ecx & 1 << 24)) {
		skip("tsc-deadline", "no TSC-deadline timer");
		return;
	}
	u64 t0 = rdtsc();
	delay_us(20000);
	u64 span = rdtsc() - t0;
	clear();
	apic_write(LVT_TIMER, DEADLINE | 0x63);
	t0 = rdtsc();
	wrmsr(MSR_TSC_DEADLINE, t0 + span);
	check_eq("the deadline reads back", rdmsr(MSR_TSC_DEADLINE), t0 + span);
	sti();
	came = wait_for(&count[0x63], 1, 20000);
	u64 t1 = rdtsc();
	delay_us(30000);
	cli();
	check("fires", came);
	check("not before its time", t1 >= t0 + span);
	check_eq("once", count[0x63], 1);
	check_eq("then the deadline is 0", rdmsr(MSR_TSC_DEADLINE), 0);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() - 1000);
	sti();
	came = wait_for(&count[0x63], 2, 20000);
	cli();
	check("a deadline in the past fires", came);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + span);
	wrmsr(MSR_TSC_DEADLINE, 0);
	sti();
	delay_us(50000);
	cli();
	check_eq("0 disarms", count[0x63], 2);
	apic_write(TIMER_INITIAL, 1000);
	check_eq("the initial count is ignored", apic_read(TIMER_CURRENT), 0);
	apic_write(LVT_TIMER, MASKED);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + span);
	check_eq("in another mode the MSR reads 0", rdmsr(MSR_TSC_DEADLINE), 0);
}

static void disabling(void)
{
	u32 r[4];

	group("disable");
	send_eoi = true;
	clear();
	apic_write(LVT_TIMER, 0x61);
	apic_write(SVR, 0xff);
	check_mask("software: every LVT is masked", apic_read(LVT_TIMER), MASKED, MASKED);
	apic_write(LVT_TIMER, 0x61);
	check_mask("software: and cannot be unmasked", apic_read(LVT_TIMER), MASKED, MASKED);
	self_ipi(0x55);
	enable_briefly();
	check_eq("software: fixed IPIs are not taken", count[0x55], 0);
	apic_write(SVR, 0x1ff);
	check_eq("software: enabled again", apic_read(SVR) & 0x1ff, 0x1ff);

	u64 base = rdmsr(MSR_APIC_BASE);
	wrmsr(MSR_APIC_BASE, base & ~0x800ull);
	cpuid(1, 0, r);
	check_eq("hardware: CPUID's APIC bit is clear", r[3] >> 9 & 1, 0);
	wrmsr(MSR_APIC_BASE, base);
	cpuid(1, 0, r);
	check_eq("hardware: and set again", r[3] >> 9 & 1, 1);
	check_mask("hardware: software-disabled after it", apic_read(SVR), 0, 0x100);
	apic_enable();
}

static void x2apic(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	group("x2apic");
	if (!(cpu_features_1_ecx & 1 << 21)) {
		FAULT("mode without x2APIC", GP, 0, "wrmsr", ::"c"(MSR_APIC_BASE),
		      "a"((u32)base | 0x400), "d"(0));
		skip("x2apic", "no x2APIC");
		return;
	}
	FAULT("an MSR in xAPIC mode", GP, 0, "rdmsr", ::"c"(0x802) : "eax", "edx");
	u32 id = apic_read(ID) >> 24, version = apic_read(VERSION);
	FAULT("EXTD without EN", GP, 0, "wrmsr", ::"c"(MSR_APIC_BASE),
	      "a"(((u32)base | 0x400) & ~0x800), "d"(0));
	wrmsr(MSR_APIC_BASE, base | 0xc00);
	check_mask("the mode can be entered", rdmsr(MSR_APIC_BASE), 0xc00, 0xc00);
	check_eq("ID", rdmsr(0x802), id);
	check_eq("version", rdmsr(0x803), version);
	check_eq("LDR is made from the ID", rdmsr(0x80d), (id >> 4) << 16 | 1 << (id & 15));
	wrmsr(0x80f, 0x1ff);
	send_eoi = false;
	clear();
	wrmsr(0x83f, 0x58);
	check_eq("self IPI: IRR", rdmsr(0x822) >> (0x58 - 0x40) & 1, 1);
	enable_until(0x58, 1);
	check_eq("self IPI: delivered", count[0x58], 1);
	check_eq("ISR", rdmsr(0x812) >> (0x58 - 0x40) & 1, 1);
	wrmsr(0x80b, 0);
	check_eq("EOI", rdmsr(0x812) >> (0x58 - 0x40) & 1, 0);
	wrmsr(0x830, (u64)id << 32 | 0x59);
	enable_until(0x59, 1);
	check_eq("ICR in one write", count[0x59], 1);
	wrmsr(0x80b, 0);
	wrmsr(0x808, 0x30);
	check_eq("TPR", rdmsr(0x808), 0x30);
	wrmsr(0x808, 0);
	FAULT("EOI other than 0", GP, 0, "wrmsr", ::"c"(0x80b), "a"(1), "d"(0));
	FAULT("read of EOI", GP, 0, "rdmsr", ::"c"(0x80b) : "eax", "edx");
	FAULT("write to ID", GP, 0, "wrmsr", ::"c"(0x802), "a"(0), "d"(0));
	FAULT("DFR does not exist", GP, 0, "rdmsr", ::"c"(0x80e) : "eax", "edx");
	FAULT("ICR high does not exist", GP, 0, "rdmsr", ::"c"(0x831) : "eax", "edx");
	FAULT("TPR: a reserved bit", GP, 0, "wrmsr", ::"c"(0x808), "a"(0x100), "d"(0));
	FAULT("SVR: a reserved bit", GP, 0, "wrmsr", ::"c"(0x80f), "a"(0x80000000), "d"(0));
	FAULT("back to xAPIC mode directly", GP, 0, "wrmsr", ::"c"(MSR_APIC_BASE),
	      "a"(((u32)base & ~0x400u) | 0x800), "d"(0));
	wrmsr(MSR_APIC_BASE, base & ~0xc00ull);
	FAULT("disabled to x2APIC directly", GP, 0, "wrmsr", ::"c"(MSR_APIC_BASE),
	      "a"((u32)base | 0xc00), "d"(0));
	wrmsr(MSR_APIC_BASE, (base & ~0x400ull) | 0x800);
	check_mask("through disabled to xAPIC mode", rdmsr(MSR_APIC_BASE), 0x800, 0xc00);
	apic_enable();
}

static void uart_raise(void)
{
	while ((inb(0x3fd) & 0x60) != 0x60)
		;
	outb(0x3fc, 0x0b);
	outb(0x3f9, 2);
}

static void uart_lower(void)
{
	outb(0x3f9, 0);
	(void)inb(0x3fa);
	outb(0x3fc, 3);
}

/* One pulse on IRQ0; when this returns it is some time ago that it was due. */
static void pit_pulse(void)
{
	outb(0x43, 0x30);
	outb(0x40, 1);
	outb(0x40, 0);
	do
		outb(0x43, 0xe2);
	while (!(inb(0x40) & 0x80));
	delay_us(20000);
}

/* The pin the PIT is on: the MADT's override of IRQ0 (ACPI 6.4, 5.2.12.5), else 0. */
static u32 pit_pin(void)
{
	u8 *madt = (u8 *)(ulong)acpi_table("APIC");

	if (madt)
		for (u8 *e = madt + 44; e < madt + *(u32 *)(madt + 4) && e[1]; e += e[1])
			if (e[0] == 2 && e[3] == 0)
				return *(u32 *)(e + 4);
	return 0;
}

static void ioapic(void)
{
	u32 id = apic_read(ID), pin = pit_pin(), pins;
	u64 dest = (u64)id << 32;

	group("ioapic");
	pic_init(0xff, 0xff);
	apic_enable();
	send_eoi = true;
	pins = (ioapic_read(1) >> 16 & 0xff) + 1;
	check_range("version", ioapic_read(1) & 0xff, 0x11, 0x20);
	check_range("pins", pins, 24, 240);
	u32 unmasked = 0;
	for (u32 i = 0; i < pins; i++)
		unmasked += !(ioapic_read(0x10 + i * 2) & MASKED);
	check_eq("every pin is masked", unmasked, 0);
	ioapic_write(0, 0x05000000);
	check_eq("the ID reads back", ioapic_read(0) >> 24 & 0xf, 5);
	ioapic_route(pin, dest | MASKED | 0x91);
	check_eq("an entry reads back", ioapic_read(0x10 + pin * 2) & 0x1afff, MASKED | 0x91);
	check_eq("its destination too", ioapic_read(0x11 + pin * 2) >> 24, id >> 24);
	ioapic_write(0x10 + pin * 2, MASKED | 0x5091);
	check_mask("delivery status and remote IRR are read-only", ioapic_read(0x10 + pin * 2), 0,
		   0x5000);

	clear();
	ioapic_route(pin, dest | 0x91);
	pit_pulse();
	enable_until(0x91, 1);
	check_eq("edge: delivered", count[0x91], 1);
	check("edge: TMR is clear", !bit(TMR, 0x91));
	pit_pulse();
	enable_until(0x91, 2);
	check_eq("edge: the next one too", count[0x91], 2);
	ioapic_route(pin, dest | MASKED | 0x91);
	clear();
	pit_pulse();
	enable_briefly();
	check_eq("masked: none", count[0x91], 0);

	/* Level: the UART's line, IRQ4 is pin 4. */
	clear();
	send_eoi = false;
	ioapic_route(4, dest | 0x8000 | 0x92);
	uart_raise();
	enable_until(0x92, 1);
	u32 first = count[0x92], remote = ioapic_read(0x18) >> 14 & 1, tmr = bit(TMR, 0x92);
	apic_write(EOI, 0);
	enable_until(0x92, 2);
	u32 again = count[0x92];
	uart_lower();
	apic_write(EOI, 0);
	enable_briefly();
	u32 after = count[0x92], remote_after = ioapic_read(0x18) >> 14 & 1;
	check_eq("level: delivered", first, 1);
	check_eq("level: remote IRR", remote, 1);
	check_eq("level: TMR", tmr, 1);
	check_eq("level: still high at the EOI, delivered again", again, 2);
	check_eq("level: low at the EOI, not again", after, 2);
	check_eq("level: remote IRR is clear", remote_after, 0);
	clear();
	ioapic_route(4, dest | MASKED | 0x8000 | 0x92);
	uart_raise();
	enable_briefly();
	u32 masked = count[0x92];
	ioapic_write(0x18, 0x8000 | 0x92);
	enable_until(0x92, 1);
	u32 unmask = count[0x92];
	uart_lower();
	apic_write(EOI, 0);
	enable_briefly();
	check_eq("level: masked while high", masked, 0);
	check_eq("level: unmasking delivers it", unmask, 1);
	ioapic_route(4, MASKED);

	clear();
	send_eoi = true;
	apic_write(DFR, 0xffffffff);
	apic_write(LDR, 0x02000000);
	ioapic_route(pin, (u64)0x03000000 << 32 | 0x800 | 0x93);
	pit_pulse();
	enable_until(0x93, 1);
	check_eq("logical destination: a set with this CPU", count[0x93], 1);
	ioapic_route(pin, (u64)0x04000000 << 32 | 0x800 | 0x93);
	pit_pulse();
	enable_until(0x93, 1);
	check_eq("logical destination: a set without", count[0x93], 1);
	ioapic_route(pin, (u64)0x02000000 << 32 | 0x900 | 0x94);
	pit_pulse();
	enable_until(0x94, 1);
	check_eq("lowest priority", count[0x94], 1);
	nmis = 1; /* not the first: the handler sends none of its own */
	ioapic_route(pin, dest | 0x400);
	pit_pulse();
	wait_for(&nmis, 2, 20000);
	check_eq("NMI delivery, IF clear", nmis >= 2, 1);
	ioapic_route(pin, dest | MASKED);
}

int main(void)
{
	for (int i = 0x40; i < 0xa0; i++)
		trap_hook[i] = on_vector;
	pic_init(0xff, 0xff);
	apic_enable();
	apic_write(LVT_LINT0, MASKED);
	identity();
	priorities();
	destinations();
	errors();
	timer();
	ioapic();
	disabling();
	x2apic();
	return 0;
}
