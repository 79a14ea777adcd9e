/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pair of 8259A interrupt controllers (Intel 8259A data sheet). The requests come from the PIT
 * (IRQ0), the UART (IRQ4: transmitter empty) and the RTC (IRQ8: periodic).
 */
#include "guest.h"

static volatile u32 count[16];
static volatile u32 order[32], taken;
static volatile bool send_eoi;

static bool on_irq(struct regs *r)
{
	u32 irq = r->vec - 0x20;

	count[irq]++;
	if (taken < ARRAY_SIZE(order))
		order[taken] = irq;
	taken++;
	if (taken > 100)
		r->fl &= ~FL_IF; /* a storm: let the check fail */
	if (send_eoi)
		pic_eoi(irq);
	return true;
}

static void clear(void)
{
	memset((void *)count, 0, sizeof(count));
	taken = 0;
}

static u8 irr(u16 port)
{
	outb(port, 0x0a);
	return inb(port);
}

static u8 isr(u16 port)
{
	outb(port, 0x0b);
	return inb(port);
}

/* IRQ4 goes high while IER bit 1 is set and the transmitter is empty, and OUT2 connects it. */
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

static void pit_raise(void)
{
	outb(0x43, 0x30);
	outb(0x40, 1);
	outb(0x40, 0);
	for (u32 i = 0; i < 1000000 && !(irr(0x20) & 1); i++)
		pause();
}

/* Mode 0 with a new count: the output goes low. */
static void pit_lower(void)
{
	outb(0x43, 0x30);
}

static void rtc_periodic(bool on)
{
	outb(0x70, 0x0a);
	outb(0x71, 0x26);
	outb(0x70, 0x0b);
	outb(0x71, on ? 0x42 : 0x02);
	outb(0x70, 0x0c);
	(void)inb(0x71);
}

static void enable_briefly(void)
{
	sti();
	delay_us(300);
	cli();
}

static void registers(void)
{
	group("register");
	pic_init(0xa5, 0x5a);
	check_eq("master mask reads back", inb(0x21), 0xa5);
	check_eq("slave mask reads back", inb(0xa1), 0x5a);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 0x04);
	outb(0x21, 0x01);
	check_eq("ICW1 clears the mask", inb(0x21), 0);
	pic_init(0xff, 0xff);
	check_eq("nothing is in service", isr(0x20) | isr(0xa0), 0);

	u8 old0 = inb(0x4d0), old1 = inb(0x4d1);
	outb(0x4d0, old0 | 0x20);
	check_mask("ELCR: IRQ5 can be level", inb(0x4d0), 0x20, 0x20);
	outb(0x4d0, 0xff);
	check_mask("ELCR: IRQ0, 1 and 2 cannot", inb(0x4d0), 0, 7);
	outb(0x4d0, old0);
	outb(0x4d1, 0xff);
	check_mask("ELCR: IRQ8 and 13 cannot", inb(0x4d1), 0, 0x21);
	outb(0x4d1, old1);
}

static void requests(void)
{
	group("request");
	send_eoi = false;
	clear();
	pic_init(0xff, 0xff);
	pit_raise();
	check_mask("a masked request shows in IRR", irr(0x20), 1, 1);
	enable_briefly();
	check_eq("and is not delivered", taken, 0);
	outb(0x21, 0xfe);
	enable_briefly();
	check_eq("unmasked it is, once", count[0], 1);
	check_mask("it is in service", isr(0x20), 1, 1);
	check_mask("and no longer requested", irr(0x20), 0, 1);
	pit_lower();
	pit_raise();
	enable_briefly();
	check_eq("in service it blocks itself", count[0], 1);
	outb(0x20, 0x20);
	check_mask("EOI ends the service", isr(0x20), 0, 1);
	enable_briefly();
	check_eq("then the next one is delivered", count[0], 2);
	outb(0x20, 0x20);
	enable_briefly();
	check_eq("an edge is delivered once", count[0], 2);
	pit_lower();

	clear();
	outb(0x20, 0x11);
	outb(0x21, 0x60);
	outb(0x21, 0x04);
	outb(0x21, 0x01);
	outb(0x21, 0xfe);
	pit_raise();
	CATCH(sti());
	cli();
	check_eq("ICW2 moves the vectors", trap.r.vec, 0x60);
	outb(0x20, 0x20);
	pit_lower();
}

static void priorities(void)
{
	group("priority");
	pic_init(0xff, 0xff);
	clear();
	send_eoi = true;
	pit_raise();
	uart_raise();
	check_mask("both requested", irr(0x20), 0x11, 0x11);
	outb(0x21, 0xee);
	enable_briefly();
	outb(0x21, 0xff);
	uart_lower();
	pit_lower();
	check_eq("both delivered", taken, 2);
	check_eq("IRQ0 before IRQ4", order[0] << 8 | order[1], 0x0004);

	/* IRQ0 in service holds IRQ4 back; IRQ4 in service does not hold IRQ0. */
	pic_init(0xff, 0xff);
	clear();
	send_eoi = false;
	pit_raise();
	outb(0x21, 0xee);
	enable_briefly();
	uart_raise();
	enable_briefly();
	u32 held = count[4];
	outb(0x20, 0x20);
	enable_briefly();
	u32 then = count[4];
	pit_lower();
	pit_raise();
	enable_briefly();
	u32 nested = count[0];
	u8 service = isr(0x20);
	outb(0x20, 0x20);
	u8 after = isr(0x20);
	outb(0x20, 0x64);
	u8 last = isr(0x20);
	uart_lower();
	pit_lower();
	check_eq("a lower one waits for the EOI", held << 8 | then, 1);
	check_eq("a higher one does not", nested, 2);
	check_mask("both in service", service, 0x11, 0x11);
	check_mask("a non-specific EOI ends the highest", after, 0x10, 0x11);
	check_mask("a specific EOI ends its own", last, 0, 0x11);

	/* Special mask mode: a masked one in service holds nothing back. */
	pic_init(0xee, 0xff);
	clear();
	pit_raise();
	enable_briefly();
	uart_raise();
	outb(0x20, 0x68);
	outb(0x21, 0xef);
	enable_briefly();
	u32 special = count[4];
	outb(0x20, 0x48);
	outb(0x20, 0x64);
	outb(0x20, 0x60);
	uart_lower();
	pit_lower();
	check_eq("special mask mode", special, 1);

	/* Lowest priority to 0: then 4 goes before 0. */
	pic_init(0xff, 0xff);
	clear();
	send_eoi = true;
	outb(0x20, 0xc0);
	pit_raise();
	uart_raise();
	outb(0x21, 0xee);
	enable_briefly();
	outb(0x21, 0xff);
	outb(0x20, 0xc7);
	uart_lower();
	pit_lower();
	check_eq("set priority: IRQ4 before IRQ0", taken << 16 | order[0] << 8 | order[1], 0x20400);

	/* Rotate on non-specific EOI. */
	pic_init(0xff, 0xff);
	clear();
	send_eoi = false;
	pit_raise();
	outb(0x21, 0xee);
	enable_briefly();
	outb(0x20, 0xa0);
	outb(0x21, 0xff);
	pit_lower();
	pit_raise();
	uart_raise();
	outb(0x21, 0xee);
	send_eoi = true;
	clear();
	enable_briefly();
	outb(0x21, 0xff);
	outb(0x20, 0xc7);
	uart_lower();
	pit_lower();
	check_eq("rotate on EOI: IRQ0 becomes the lowest", taken << 16 | order[0] << 8 | order[1],
		 0x20400);

	/* Automatic EOI. */
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 0x04);
	outb(0x21, 0x03);
	outb(0x21, 0xfe);
	send_eoi = false;
	clear();
	pit_raise();
	enable_briefly();
	check_eq("automatic EOI: delivered, nothing in service", count[0] << 8 | isr(0x20), 0x100);
	pit_lower();
}

static void poll_and_levels(void)
{
	group("poll");
	pic_init(0xfe, 0xff);
	outb(0x20, 0x0c);
	check_mask("nothing to report", inb(0x20), 0, 0x80);
	pit_raise();
	outb(0x20, 0x0c);
	check_eq("a poll takes the request", inb(0x20), 0x80);
	check_mask("and puts it in service", isr(0x20), 1, 1);
	outb(0x20, 0x20);
	pit_lower();

	group("level");
	u8 old = inb(0x4d0);
	pic_init(0xff, 0xff);
	outb(0x4d0, old | 0x10);
	uart_raise();
	u8 high = irr(0x20);
	outb(0x3f9, 0);
	u8 low = irr(0x20);
	outb(0x3fc, 3);
	check_mask("a level request follows its line", (high & 0x10) << 4 | (low & 0x10), 0x100,
		   0x110);
	outb(0x4d0, old);
}

static void cascade(void)
{
	group("cascade");
	pic_init(0xff, 0xff);
	clear();
	send_eoi = false;
	rtc_periodic(true);
	for (u32 i = 0; i < 3000 && !(irr(0xa0) & 1); i++)
		delay_us(1000);
	check_mask("IRQ8 is requested at the slave", irr(0xa0), 1, 1);
	outb(0xa1, 0xfe);
	check_mask("and at the master's IR2", irr(0x20), 4, 4);
	outb(0x21, 0xfb);
	enable_briefly();
	check_eq("delivered on the slave's vector", count[8], 1);
	check_eq("in service on both", isr(0xa0) << 8 | isr(0x20), 0x104);
	outb(0xa0, 0x20);
	check_eq("each needs its EOI", isr(0xa0) << 8 | isr(0x20), 0x004);
	outb(0x20, 0x20);
	rtc_periodic(false);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	check_eq("then none is left", isr(0xa0) << 8 | isr(0x20), 0);
}

int main(void)
{
	for (int i = 0; i < 16; i++)
		trap_hook[0x20 + i] = on_irq;
	registers();
	requests();
	priorities();
	poll_and_levels();
	cascade();
	return 0;
}
