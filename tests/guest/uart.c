/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The UART of COM1 in loopback (PC16550D data sheet). The console is this very port, so results are
 * gathered first and printed when the port is itself again.
 */
#include "guest.h"

#define BASE 0x3f8
enum { RBR, IER, FCR, LCR, MCR, LSR, MSR, SCR };
#define IIR FCR

static struct {
	const char *name;
	u64 got, want;
} results[64];
static u32 n_results;
static volatile u32 irqs;
static volatile u8 last_iir;

static u8 rd(int reg)
{
	return inb(BASE + reg);
}

static void wr(int reg, u8 v)
{
	outb(BASE + reg, v);
}

static void note(const char *name, u64 got, u64 want)
{
	if (n_results < ARRAY_SIZE(results)) {
		results[n_results].name = name;
		results[n_results].got = got;
		results[n_results++].want = want;
	}
}

static bool on_irq(struct regs *r)
{
	(void)r;
	irqs++;
	last_iir = rd(IIR);
	wr(IER, 0);
	pic_eoi(4);
	return true;
}

/* Wait for LSR bits; a slow line or host may take its time. */
static u8 wait_lsr(u8 bits)
{
	for (u32 i = 0; i < 1000000 && (rd(LSR) & bits) != bits; i++)
		pause();
	return rd(LSR) & bits;
}

static void drain(void)
{
	wait_lsr(0x60);
	delay_us(5000);
	for (int i = 0; i < 64 && rd(LSR) & 1; i++)
		(void)rd(RBR);
	(void)rd(MSR);
	(void)rd(LSR);
}

static void registers(void)
{
	wr(SCR, 0x5a);
	note("register: scratch", rd(SCR), 0x5a);
	wr(SCR, 0xa5);
	note("register: scratch again", rd(SCR), 0xa5);
	wr(LCR, 0x1f);
	note("register: LCR reads back", rd(LCR), 0x1f);
	wr(LCR, 0x83);
	wr(RBR, 0x34);
	wr(IER, 0x12);
	note("register: divisor latch", rd(IER) << 8 | rd(RBR), 0x1234);
	wr(RBR, 1);
	wr(IER, 0);
	wr(LCR, 3);
	note("register: IER is its own again", rd(IER), 0);
	wr(IER, 0xff);
	note("register: IER has four bits", rd(IER), 0x0f);
	wr(IER, 0);
	wr(MCR, 0xff);
	note("register: MCR has five bits", rd(MCR), 0x1f);
	wr(MCR, 0x13);
	note("register: LSR idle", rd(LSR) & 0x60, 0x60);
}

static void modem(void)
{
	wr(MCR, 0x10);
	(void)rd(MSR);
	wr(MCR, 0x11);
	note("loopback: DTR is DSR", rd(MSR) & 0xf0, 0x20);
	wr(MCR, 0x12);
	note("loopback: RTS is CTS", rd(MSR) & 0xf0, 0x10);
	wr(MCR, 0x14);
	note("loopback: OUT1 is RI", rd(MSR) & 0xf0, 0x40);
	wr(MCR, 0x18);
	note("loopback: OUT2 is DCD", rd(MSR) & 0xf0, 0x80);
	wr(MCR, 0x10);
	(void)rd(MSR);
	wr(MCR, 0x12);
	note("loopback: delta CTS", rd(MSR) & 0x0f, 1);
	note("loopback: reading MSR clears the deltas", rd(MSR) & 0x0f, 0);
	wr(MCR, 0x14);
	(void)rd(MSR);
	wr(MCR, 0x10);
	note("loopback: trailing edge of RI", rd(MSR) & 4, 4);
}

static void data(void)
{
	wr(FCR, 0);
	wr(MCR, 0x10);
	drain();
	note("data: nothing received", rd(LSR) & 1, 0);
	wr(RBR, 0x6b);
	note("data: received", wait_lsr(1), 1);
	note("data: the byte", rd(RBR), 0x6b);
	note("data: gone once read", rd(LSR) & 1, 0);
	wr(RBR, 1);
	wait_lsr(0x61);
	wr(RBR, 2);
	u8 overrun = 0;
	for (u32 i = 0; i < 100000 && !overrun; i++)
		overrun = rd(LSR) & 2;
	note("data: two without a read is an overrun", overrun, 2);
	note("data: reading LSR clears it", rd(LSR) & 2, 0);
	(void)rd(RBR);
	drain();
}

static void fifo(void)
{
	u8 bytes[4];

	note("fifo: IIR without", rd(IIR) & 0xc0, 0);
	wr(FCR, 7);
	note("fifo: IIR with", rd(IIR) & 0xc0, 0xc0);
	for (int i = 0; i < 4; i++)
		wr(RBR, 0x30 + i);
	wait_lsr(0x60);
	for (u32 i = 0; i < 4; i++) {
		wait_lsr(1);
		bytes[i] = rd(RBR);
	}
	note("fifo: in order", bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3],
	     0x30313233);
	wr(RBR, 0x77);
	wait_lsr(0x61);
	wr(FCR, 3);
	note("fifo: reset empties it", rd(LSR) & 1, 0);
	wr(FCR, 0);
	drain();
}

/* One source at a time through IRQ4. In loopback OUT2 still opens the gate to the line on some parts. */
static void interrupts(void)
{
	wr(MCR, 3);
	wr(IER, 2);
	note("interrupt: transmitter empty in IIR", rd(IIR) & 0x0f, 2);
	note("interrupt: reading IIR clears it", rd(IIR) & 0x0f, 1);
	wr(IER, 0);
	wr(IER, 2);
	note("interrupt: enabling raises it again", rd(IIR) & 0x0f, 2);
	wr(IER, 0);
	note("interrupt: none enabled", rd(IIR) & 0x0f, 1);
	wr(MCR, 0x10);
	wr(IER, 1);
	wr(RBR, 0x42);
	wait_lsr(1);
	note("interrupt: data received in IIR", rd(IIR) & 0x0f, 4);
	(void)rd(RBR);
	note("interrupt: reading the data clears it", rd(IIR) & 0x0f, 1);
	wr(IER, 8);
	(void)rd(MSR);
	wr(MCR, 0x12);
	note("interrupt: modem status in IIR", rd(IIR) & 0x0f, 0);
	(void)rd(MSR);
	note("interrupt: reading MSR clears it", rd(IIR) & 0x0f, 1);
	wr(IER, 5);
	wr(RBR, 1);
	wait_lsr(0x61);
	wr(RBR, 2);
	for (u32 i = 0; i < 100000 && (rd(IIR) & 0x0f) != 6; i++)
		pause();
	note("interrupt: an overrun comes before data", rd(IIR) & 0x0f, 6);
	(void)rd(LSR);
	note("interrupt: then the data", rd(IIR) & 0x0f, 4);
	(void)rd(RBR);
	wr(IER, 0);
	drain();

	pic_init(0xef, 0xff);
	trap_hook[0x24] = on_irq;
	wr(MCR, 0x0b);
	irqs = 0;
	sti();
	wr(IER, 2);
	wait_for(&irqs, 1, 20000);
	cli();
	note("interrupt: IRQ4", irqs << 8 | (last_iir & 0x0f), 0x102);
	wr(IER, 0);
	(void)rd(IIR);
	wr(MCR, 3);
	irqs = 0;
	sti();
	wr(IER, 2);
	delay_us(20000);
	cli();
	wr(IER, 0);
	note("interrupt: OUT2 low keeps IRQ4 quiet", irqs, 0);
	outb(0x21, 0xff);
}

int main(void)
{
	drain();
	registers();
	modem();
	data();
	fifo();
	interrupts();
	wr(IER, 0);
	wr(FCR, 0);
	wr(LCR, 3);
	wr(MCR, 3);
	group("uart");
	for (u32 i = 0; i < n_results; i++)
		check_eq(results[i].name, results[i].got, results[i].want);
	return 0;
}
