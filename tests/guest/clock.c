/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PIT (8254 data sheet), port 0x61, RTC (MC146818A data sheet), ACPI PM timer and TSC: what they
 * count, and that their rates agree within a quarter.
 */
#include "guest.h"

static volatile u32 irqs;

static bool on_irq(struct regs *r)
{
	irqs++;
	if (r->vec == 0x28) {
		outb(0x70, 0x0c);
		(void)inb(0x71);
	}
	pic_eoi(r->vec - 0x20);
	return true;
}

static u16 pit_latch(int channel)
{
	u8 low;

	outb(0x43, channel << 6);
	low = inb(0x40 + channel);
	return low | inb(0x40 + channel) << 8;
}

static u8 pit_status(int channel)
{
	outb(0x43, 0xe0 | 2 << channel);
	return inb(0x40 + channel);
}

static void pit_start(int channel, int mode, u16 value)
{
	outb(0x43, channel << 6 | 0x30 | mode << 1);
	outb(0x40 + channel, value);
	outb(0x40 + channel, value >> 8);
}

static void gate2(bool on)
{
	outb(0x61, (inb(0x61) & ~3) | on);
}

static bool out2(void)
{
	return inb(0x61) & 0x20;
}

static void pit(void)
{
	group("pit");
	gate2(true);
	pit_start(2, 0, 0xffff);
	check_eq("status: mode and access", pit_status(2) & 0x3f, 0x30);
	check("mode 0: output low while counting", !out2());
	u16 a = pit_latch(2);
	delay_us(2000);
	u16 b = pit_latch(2);
	check("the count goes down", b < a);
	gate2(false);
	delay_us(100);
	a = pit_latch(2);
	delay_us(2000);
	b = pit_latch(2);
	check_eq("gate low stops mode 0", b, a);
	gate2(true);
	/* A latched count stays until it is read. */
	outb(0x43, 0x80);
	delay_us(2000);
	u16 latched = inb(0x42);
	latched |= inb(0x42) << 8;
	b = pit_latch(2);
	check("a latched count stands still", latched > b && latched - b >= 1000);
	pit_start(2, 0, 1200);
	delay_us(20000);
	check("mode 0: output high at the end", out2());
	check_mask("status: output", pit_status(2), 0x80, 0x80);
	outb(0x43, 0xb0);
	check("mode 0: the control word drives it low", !out2());
	check_mask("status: null count until a count is written", pit_status(2), 0x40, 0x40);
	outb(0x43, 0x90);
	check_mask("status: low byte access", pit_status(2), 0x10, 0x30);
	outb(0x43, 0xb1);
	check_mask("status: BCD", pit_status(2), 1, 1);
	outb(0x42, 0x00);
	outb(0x42, 0x10);
	u32 bad = 0;
	for (int i = 0; i < 50; i++) {
		u16 v = pit_latch(2);
		for (int shift = 0; shift < 16; shift += 4)
			bad += (v >> shift & 15) > 9;
	}
	check_eq("BCD counts in decimal", bad, 0);
	pit_start(2, 2, 1000);
	u32 low = 0, high = 0;
	u16 most = 0;
	for (int i = 0; i < 2000; i++) {
		u16 v = pit_latch(2);
		if (v > most)
			most = v;
	}
	check_range("mode 2: reloads, never above its count", most, 2, 1000);
	pit_start(2, 3, 20000);
	for (int i = 0; i < 100; i++) {
		if (out2())
			high++;
		else
			low++;
		delay_us(1000);
	}
	check("mode 3: the output is high and low", high > 10 && low > 10);
	u32 odd = 0;
	for (int i = 0; i < 100; i++)
		odd |= pit_latch(2) & 1;
	check_eq("mode 3: counts by two", odd, 0);
	gate2(false);
	delay_us(1000);
	low = 0;
	for (int i = 0; i < 100; i++, delay_us(1000))
		low += !out2();
	check_eq("mode 3: output high with the gate low", low, 0);
	gate2(true);
	outb(0x61, inb(0x61) | 2);
	check_mask("port 0x61: speaker data reads back", inb(0x61), 3, 3);
	outb(0x61, inb(0x61) & ~3);
	u32 seen = 0;
	for (int i = 0; i < 2000; i++) {
		seen |= inb(0x61) & 0x10 ? 1 : 2;
		delay_us(10);
	}
	check_eq("port 0x61: the refresh bit toggles", seen, 3);
	/* Read-back of status and count together: status first. */
	pit_start(2, 0, 0xffff);
	outb(0x43, 0xc8);
	u8 status = inb(0x42);
	u16 count = inb(0x42);
	count |= inb(0x42) << 8;
	check_eq("read-back: status, then the count", (status & 0x3f) << 8 | (count > 0x8000),
		 0x3001);
}

/*
 * A loaded host may stop the guest for a while, which only ever makes a span longer and interrupts
 * fewer: so each measurement is tried several times and the best one counts.
 */
#define TRIES 50
#define TICKS 40

static u32 pm_us_since(u32 start)
{
	return pmtimer_to_us((pmtimer_read() - start) & 0xffffff);
}

static bool in_quarter(u64 got, u64 want)
{
	return got * 4 >= want * 3 && got * 4 <= want * 5;
}

/* What 30 ms of the PM timer are on PIT channel 2, in percent. */
static u32 pit_percent(void)
{
	u32 percent = 0;

	gate2(true);
	for (int i = 0; i < TRIES && !in_quarter(percent, 100); i++) {
		pit_start(2, 0, 0xffff);
		delay_us(100);
		u32 start = pmtimer_read();
		u16 from = pit_latch(2);
		delay_us(30000);
		u16 to = pit_latch(2);
		u32 us = pm_us_since(start);
		if (us < 50000) /* the count has not wrapped */
			percent = (u64)(u16)(from - to) * 100000 / 1193 / us;
	}
	return percent;
}

/* TSC ticks per PM timer microsecond over 60 ms, times 16. */
static u64 tsc_rate(void)
{
	u32 start = pmtimer_read();
	u64 from = rdtsc();

	delay_us(60000);
	u64 ticks = rdtsc() - from;
	return ticks * 16 / pm_us_since(start);
}

static u64 tsc_percent(void)
{
	u64 percent = 0;

	for (int i = 0; i < TRIES && !in_quarter(percent, 100); i++) {
		u64 first = tsc_rate();
		percent = tsc_rate() * 100 / first;
	}
	return percent;
}

static volatile u32 stamps[TICKS + 1];

static bool on_tick(struct regs *r)
{
	if (irqs <= TICKS)
		stamps[irqs] = pmtimer_read();
	return on_irq(r);
}

/*
 * Sleep until TICKS interrupts of this period have come. They may not come faster than they should in
 * all, and five in a row, somewhere, may not come slower.
 */
static void ticks(const char *not_fast, const char *not_slow, u32 vector, u32 period_us)
{
	u32 best = -1, total = 0;

	trap_hook[vector] = on_tick;
	irqs = 0;
	for (u32 i = 0; i < TRIES * TICKS && irqs <= TICKS; i++)
		asm volatile("sti\n\thlt\n\tcli" ::: "memory");
	for (u32 i = 0; i < TICKS && irqs > TICKS; i++) {
		total += pmtimer_to_us((stamps[i + 1] - stamps[i]) & 0xffffff);
		if (i + 5 > TICKS)
			continue;
		u32 us = pmtimer_to_us((stamps[i + 5] - stamps[i]) & 0xffffff);
		if (us < best)
			best = us;
	}
	trap_hook[vector] = on_irq;
	check_range(not_fast, total, period_us * TICKS / 4 * 3, -1);
	check_range(not_slow, best, 0, period_us * 5 / 4 * 5);
}

static void rates(void)
{
	group("rate");
	if (!pmtimer_port()) {
		skip("against the PM timer", "no ACPI PM timer");
		return;
	}
	u32 a = pmtimer_read();
	delay_us(1000);
	check("the PM timer goes up", ((pmtimer_read() - a) & 0xffffff) >= 3000);
	check_range("PIT against the PM timer, in percent", pit_percent(), 75, 125);

	pic_init(0xfe, 0xff);
	trap_hook[0x20] = on_irq;
	pit_start(0, 2, 11932);
	ticks("IRQ0 in mode 2: no faster than 100 Hz", "IRQ0 in mode 2: no slower", 0x20, 10000);
	pit_start(0, 3, 11932);
	ticks("IRQ0 in mode 3: no faster than 100 Hz", "IRQ0 in mode 3: no slower", 0x20, 10000);
	pit_start(0, 0, 11932);
	pic_init(0xfe, 0xff); /* forgets an edge of the mode before */
	irqs = 0;
	sti();
	delay_us(50000);
	cli();
	check_eq("IRQ0 in mode 0: once", irqs, 1);
	outb(0x21, 0xff);

	check_range("TSC: two spans of 60 ms, in percent", tsc_percent(), 75, 125);
	u32 back = 0;
	u64 last = rdtsc();
	for (int i = 0; i < 10000; i++) {
		u64 now = rdtsc();
		back += now < last;
		last = now;
	}
	check_eq("TSC never goes back", back, 0);
	wrmsr(0x10, 0x1000000000);
	u64 set = rdtsc();
	check("TSC can be written", set >= 0x1000000000 && set < 0x2000000000);
}

static u8 cmos(u8 index)
{
	outb(0x70, index);
	return inb(0x71);
}

static void cmos_set(u8 index, u8 value)
{
	outb(0x70, index);
	outb(0x71, value);
}

static u8 wait_second(u8 last)
{
	u8 now = last;

	for (u32 ms = 0; ms < 5000 && now == last; ms++) {
		delay_us(1000);
		if (!(cmos(10) & 0x80))
			now = cmos(0);
	}
	return now;
}

static u32 bcd(u8 v)
{
	return (v >> 4) * 10 + (v & 15);
}

static bool is_bcd(u8 v)
{
	return (v & 15) < 10 && v >> 4 < 10;
}

/*
 * The flag is set for 244 us and more before each update (MC146818A, "update cycle"): sleep on the
 * PIT's ticks from one update-ended interrupt until shortly before the next, then look.
 */
static bool update_in_progress(void)
{
	bool seen = false;
	u32 start;

	pit_start(0, 2, 2386);
	for (int i = 0; i < 30 && !seen; i++) {
		outb(0x21, inb(0x21) | 1);
		irqs = 0;
		while (!irqs)
			asm volatile("sti\n\thlt\n\tcli" ::: "memory");
		start = pmtimer_read();
		outb(0x21, inb(0x21) & ~1);
		while (pm_us_since(start) < 980000)
			asm volatile("sti\n\thlt\n\tcli" ::: "memory");
		while (!seen && pm_us_since(start) < 1100000)
			seen = cmos(10) & 0x80;
	}
	outb(0x21, inb(0x21) | 1);
	return seen;
}

static void rtc(void)
{
	group("rtc");
	cmos_set(10, 0x26);
	cmos_set(11, 0x02);
	(void)cmos(12);
	check_mask("register D: valid", cmos(13), 0x80, 0x80);
	check("BCD time is BCD", is_bcd(cmos(0)) && is_bcd(cmos(2)) && is_bcd(cmos(4)));
	check("the date is one",
	      bcd(cmos(7)) >= 1 && bcd(cmos(7)) <= 31 && bcd(cmos(8)) >= 1 && bcd(cmos(8)) <= 12);
	u8 s0 = wait_second(cmos(0)), s1;
	u32 span = 0, step = 0;
	for (int i = 0; i < 6 && (step != 1 || span < 750000 || span > 1250000); i++) {
		u32 start = pmtimer_port() ? pmtimer_read() : 0;
		s1 = wait_second(s0);
		span = pmtimer_port() ? pmtimer_to_us((pmtimer_read() - start) & 0xffffff)
				      : 1000000;
		step = (bcd(s1) + 60 - bcd(s0)) % 60;
		s0 = s1;
	}
	check_eq("seconds go up by one", step, 1);
	check_range("a second is one (PM timer)", span, 750000, 1250000);
	u8 minute = cmos(2);
	cmos_set(11, 0x06);
	u8 binary_minute = cmos(2);
	check("binary mode",
	      binary_minute == bcd(minute) || binary_minute == (bcd(minute) + 1) % 60);
	cmos_set(11, 0x02);
	cmos_set(11, 0x82);
	s0 = cmos(0);
	delay_us(1100000);
	check_eq("SET stops the clock", cmos(0), s0);
	cmos_set(2, 0x34);
	check_eq("a set minute reads back", cmos(2), 0x34);
	cmos_set(2, minute);
	cmos_set(11, 0x02);
	u8 old = cmos(0x5f);
	cmos_set(0x5f, 0xa5);
	check_eq("CMOS RAM keeps a byte", cmos(0x5f), 0xa5);
	cmos_set(0x5f, old);

	/* Periodic interrupt at 64 Hz. */
	cmos_set(10, 0x2a);
	pic_init(0xfb, 0xfe);
	trap_hook[0x28] = on_irq;
	(void)cmos(12);
	cmos_set(11, 0x42);
	ticks("periodic: no faster than 64 Hz", "periodic: no slower", 0x28, 15625);
	cmos_set(11, 0x02);
	(void)cmos(12);
	cmos_set(11, 0x42);
	delay_us(100000);
	u8 c = cmos(12);
	check_mask("register C: IRQF and PF", c, 0xc0, 0xc0);
	check("register C is cleared by reading", (cmos(12) & 0x20) == 0);
	cmos_set(11, 0x02);
	(void)cmos(12);

	cmos_set(10, 0x26);

	/* Alarm with "don't care" everywhere: each second. */
	cmos_set(1, 0xff);
	cmos_set(3, 0xff);
	cmos_set(5, 0xff);
	irqs = 0;
	(void)cmos(12);
	cmos_set(11, 0x22);
	sti();
	for (u32 ms = 0; ms < 5000 && !irqs; ms++)
		delay_us(1000);
	cli();
	check("alarm interrupt each second", irqs >= 1);
	cmos_set(11, 0x12);
	(void)cmos(12);
	irqs = 0;
	sti();
	for (u32 ms = 0; ms < 5000 && !irqs; ms++)
		delay_us(1000);
	cli();
	check("update-ended interrupt", irqs >= 1);
	if (pmtimer_port())
		check("the update-in-progress flag precedes it", update_in_progress());
	else
		skip("the update-in-progress flag precedes it", "no ACPI PM timer");
	cmos_set(11, 0x02);
	(void)cmos(12);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

int main(void)
{
	pit();
	rates();
	rtc();
	return 0;
}
