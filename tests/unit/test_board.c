/* SPDX-License-Identifier: Apache-2.0 */
/* The board as a whole: the wiring, the life cycle, the state of all devices together. */
#include "cpu/engine.h"
#include "dev/fw_cfg.h"
#include "dev_test.h"
#include "machine/board.h"
#include "machine/layout.h"

enum { CPUS = 3 };

struct unit {
	struct bus *bus;
	struct mem *mem;
	struct board *board;
	struct vcpu v[CPUS];
	struct vcpu_board cb[CPUS];
	unsigned power_offs, resets, exits;
	uint32_t exit_value;
	char text[64];
	size_t text_len;
};

static struct unit *u;

static void on_power_off(void *opaque)
{
	((struct unit *)opaque)->power_offs++;
}

static void on_reset(void *opaque)
{
	((struct unit *)opaque)->resets++;
}

static void on_exit_value(void *opaque, uint32_t value)
{
	((struct unit *)opaque)->exits++;
	((struct unit *)opaque)->exit_value = value;
}

static size_t on_serial(void *opaque, const uint8_t *data, size_t len)
{
	struct unit *x = opaque;

	for (size_t i = 0; i < len && x->text_len < sizeof(x->text); i++)
		x->text[x->text_len++] = (char)data[i];
	return len;
}

static struct unit *make(void)
{
	struct unit *x = calloc(1, sizeof(*x));
	struct error err = {""};

	assert_non_null(x);
	assert_int_equal(bus_create(&x->bus, NULL), 0);
	assert_int_equal(mem_create(&x->mem, 32 << 20, NULL), 0);
	const struct board_config cfg = {.mem = x->mem,
					 .bus = x->bus,
					 .cpus = CPUS,
					 .tsc_hz = 1000000000,
					 .phys_bits = 40,
					 .serial = {{.write = on_serial, .opaque = x}},
					 .debug_exit_port = 0xf4,
					 .power_off = on_power_off,
					 .reset = on_reset,
					 .debug_exit = on_exit_value,
					 .opaque = x};
	assert_int_equal(board_create(&x->board, &cfg, &err), 0);
	for (unsigned i = 0; i < CPUS; i++) {
		board_vcpu_callbacks(x->board, i, &x->cb[i]);
		x->v[i].index = i;
		board_attach_vcpu(x->board, i, &x->v[i]);
	}
	test_bus = x->bus;
	return x;
}

static void destroy(struct unit *x)
{
	board_destroy(x->board);
	bus_destroy(x->bus);
	mem_destroy(x->mem);
	free(x);
}

static int setup(void **state)
{
	(void)state;
	u = make();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	destroy(u);
	return 0;
}

static bool irq(unsigned cpu)
{
	return u->v[cpu].requests & VCPU_REQ_IRQ;
}

static int ack(unsigned cpu)
{
	return u->cb[cpu].irq_ack(u->cb[cpu].opaque);
}

static void init_pics(void)
{
	static const uint8_t words[][2] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x20}, {0xa1, 0x28},
					   {0x21, 4},	 {0xa1, 2},    {0x21, 1},    {0xa1, 1}};

	for (unsigned i = 0; i < sizeof(words) / 2; i++)
		outb(words[i][0], words[i][1]);
	outb(0x21, 0);
	outb(0xa1, 0);
}

static uint32_t lapic_rd(unsigned cpu, unsigned reg)
{
	struct bus_access a = {.addr = LAYOUT_LAPIC + reg, .size = 4, .cpu = cpu};

	bus_access(test_bus, BUS_MMIO, &a);
	return (uint32_t)a.value;
}

static void lapic_wr(unsigned cpu, unsigned reg, uint32_t v)
{
	struct bus_access a = {
		.addr = LAYOUT_LAPIC + reg, .size = 4, .cpu = cpu, .write = true, .value = v};

	bus_access(test_bus, BUS_MMIO, &a);
}

static void redir(unsigned pin, uint32_t low)
{
	bus_out(BUS_MMIO, LAYOUT_IOAPIC, 4, 0x11 + 2 * pin);
	bus_out(BUS_MMIO, LAYOUT_IOAPIC + 0x10, 4, 0);
	bus_out(BUS_MMIO, LAYOUT_IOAPIC, 4, 0x10 + 2 * pin);
	bus_out(BUS_MMIO, LAYOUT_IOAPIC + 0x10, 4, low);
}

/* The PC's oldest path, with nothing but the PIC programmed. */
static void test_pit_by_pic(void **state)
{
	(void)state;
	fake_time_pass(200000000);
	assert_false(irq(0)); /* all masked at reset */
	init_pics();
	outb(0x43, 0x34);
	outb(0x40, 0xa9);
	outb(0x40, 4);
	fake_time_pass(1100000);
	assert_true(irq(0));
	assert_false(irq(1));
	assert_int_equal(ack(0), 0x20);
	assert_false(irq(0));
	fake_time_pass(3000000);
	assert_false(irq(0));
	outb(0x20, 0x20);
	assert_true(irq(0));
}

static void test_pit_by_ioapic(void **state)
{
	(void)state;
	lapic_wr(0, 0xf0, 0x1ff);
	lapic_wr(0, 0x350, 0x10000);
	redir(2, 0x30); /* IRQ 0 is pin 2 */
	redir(0, 0x10000);
	outb(0x43, 0x34);
	outb(0x40, 0xa9);
	outb(0x40, 4);
	fake_time_pass(1100000);
	assert_true(irq(0));
	assert_int_equal(ack(0), 0x30);
	lapic_wr(0, 0xb0, 0);
	fake_time_pass(1100000);
	assert_int_equal(ack(0), 0x30);
}

static void test_serial(void **state)
{
	(void)state;
	lapic_wr(0, 0xf0, 0x1ff);
	redir(LAYOUT_IRQ_COM1, 0x34);
	outb(LAYOUT_COM1 + 3, 3);
	outb(LAYOUT_COM1 + 4, 8);
	outb(LAYOUT_COM1 + 1, 1);
	outb(LAYOUT_COM1, 'h');
	outb(LAYOUT_COM1, 'i');
	fake_time_pass(5000000);
	assert_memory_equal(u->text, "hi", 2);
	assert_int_equal(board_serial_receive(u->board, 0, (const uint8_t *)"x", 1), 1);
	assert_int_equal(ack(0), 0x34);
	assert_int_equal(inb(LAYOUT_COM1), 'x');
	assert_int_equal(board_serial_receive(u->board, 7, (const uint8_t *)"x", 1), 0);
}

static void test_ends(void **state)
{
	(void)state;
	outb(LAYOUT_COM1 + 3, 3);
	outb(LAYOUT_COM1, '!');
	outb(0xf4, 0x31);
	assert_int_equal(u->exit_value, 0x31);
	assert_int_equal(u->text_len, 1); /* its last words are out before */
	outw(LAYOUT_PM1A_CNT, 5 << 10 | 1 << 13);
	assert_int_equal(u->power_offs, 1);
	outb(LAYOUT_RESET, 6);
	outb(0x64, 0xfe);
	outb(0x92, 1);
	assert_int_equal(u->resets, 3);
}

static void test_sci_and_button(void **state)
{
	(void)state;
	lapic_wr(0, 0xf0, 0x1ff);
	redir(LAYOUT_IRQ_SCI, 0x8039);
	outw(LAYOUT_PM1A_EVT + 2, 0x100);
	board_power_button(u->board);
	assert_int_equal(ack(0), 0x39);
	outw(LAYOUT_PM1A_EVT, 0x100);
	lapic_wr(0, 0xb0, 0);
	assert_false(irq(0));
}

static void test_ferr(void **state)
{
	(void)state;
	init_pics();
	outb(0x21, 0xfb); /* the cascade and IRQ 13 only */
	outb(0xa1, 0xdf);
	u->cb[1].set_ferr(u->cb[1].opaque, true);
	assert_int_equal(ack(0), 0x2d);
	outb(0xf0, 0);
	outb(0xa0, 0x20);
	outb(0x20, 0x20);
	assert_false(irq(0));
}

static void test_cpus(void **state)
{
	uint64_t v;

	(void)state;
	lapic_wr(0, 0x310, 1 << 24);
	lapic_wr(0, 0x300, 0x4500);
	assert_int_equal(u->v[1].requests, VCPU_REQ_INIT);
	lapic_wr(0, 0x300, 0x4600 | 0x9a);
	assert_true(u->v[1].requests & VCPU_REQ_SIPI);
	assert_int_equal(u->v[1].sipi_vector, 0x9a);
	lapic_wr(0, 0x300, 0x4400);
	assert_true(u->v[1].requests & VCPU_REQ_NMI);
	assert_int_equal(u->v[2].requests, 0);
	u->cb[2].set_cr8(u->cb[2].opaque, 5);
	assert_int_equal(lapic_rd(2, 0x80), 0x50);
	assert_int_equal(u->cb[2].get_cr8(u->cb[2].opaque), 5);
	assert_int_equal(board_rdmsr(u->board, 2, 0x1b, &v), 0);
	assert_int_equal(v, LAYOUT_LAPIC | 0x800);
	assert_true(board_rdmsr(u->board, 2, 0x1234, &v) < 0);
	assert_true(board_wrmsr(u->board, 2, 0x1234, 0) < 0);
	lapic_wr(0, 0xf0, 0x1ff);
	lapic_wr(0, 0x360, 0x400); /* LINT1 is NMI */
	board_nmi(u->board);
	assert_true(u->v[0].requests & VCPU_REQ_NMI);
}

static uint8_t cmos(uint8_t reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void test_firmware_data(void **state)
{
	unsigned sum = 0;
	char sig[4];

	(void)state;
	assert_int_equal(cmos(0x15) | cmos(0x16) << 8, 640);
	assert_int_equal(cmos(0x30) | cmos(0x31) << 8, 31 * 1024);
	assert_int_equal(cmos(0x34) | cmos(0x35) << 8, 16 * 16);
	for (uint8_t i = 0x10; i <= 0x2d; i++)
		sum += cmos(i);
	assert_int_equal(sum, cmos(0x2e) << 8 | cmos(0x2f));
	assert_int_equal(fw_cfg_add_file(board_fw_cfg(u->board), "opt/x", "y", 1), 0);
	outw(LAYOUT_FW_CFG, 0);
	for (unsigned i = 0; i < 4; i++)
		sig[i] = (char)inb(LAYOUT_FW_CFG + 1);
	assert_memory_equal(sig, "QEMU", 4);
	outl(0xcf8, 0x80000000);
	assert_int_equal(inl(0xcfc), 0x29c08086);
	assert_non_null(board_pci(u->board));
	struct msi_sink msi = board_msi(u->board);
	lapic_wr(0, 0xf0, 0x1ff);
	msi.send(msi.opaque, 0xfee00000, 0x77);
	assert_int_equal(ack(0), 0x77);
}

/* Accesses all over the board. A relocated local APIC may lie anywhere; that is allowed. */
static void churn(unsigned count)
{
	static const struct {
		enum bus_space space;
		uint64_t base, len;
	} places[] = {
		{BUS_PIO, 0, 0x100},
		{BUS_PIO, 0x2f0, 16},
		{BUS_PIO, 0x3f0, 16},
		{BUS_PIO, 0x4d0, 2},
		{BUS_PIO, 0x510, 12},
		{BUS_PIO, 0x600, 0x24},
		{BUS_PIO, 0xcf8, 8},
		{BUS_MMIO, LAYOUT_IOAPIC, 0x50},
		{BUS_MMIO, LAYOUT_LAPIC, 0x400},
		{BUS_MMIO, LAYOUT_ECAM_BASE, 0x1000},
	};

	for (unsigned i = 0; i < count; i++) {
		unsigned p = (unsigned)rand() % (sizeof(places) / sizeof(places[0]));
		unsigned cpu = (unsigned)rand() % CPUS;
		scribble(places[p].space, places[p].base, places[p].len, 8);
		board_wrmsr(u->board, cpu, 0x800 + (uint32_t)rand() % 64, (uint64_t)rand() & 0xff);
		board_wrmsr(u->board, cpu, 0x6e0, (uint64_t)rand() << 20);
		ack(cpu);
		board_serial_receive(u->board, rand() & 1, (const uint8_t *)"input", 5);
	}
}

static uint8_t *save(struct board *b, size_t *len)
{
	struct state_stream *s;
	struct error err = {""};

	assert_int_equal(state_writer_create(&s, NULL), 0);
	board_state(b, s);
	assert_int_equal(state_stream_error(s, &err), 0);
	const void *bytes = state_bytes(s, len);
	uint8_t *copy = malloc(*len);
	memcpy(copy, bytes, *len);
	state_stream_destroy(s);
	return copy;
}

static int load(struct board *b, const uint8_t *bytes, size_t len)
{
	struct state_stream *s;

	assert_int_equal(state_reader_create(bytes, len, &s, NULL), 0);
	board_state(b, s);
	int rc = state_stream_error(s, NULL);
	state_stream_destroy(s);
	return rc;
}

static void test_state(void **state)
{
	struct unit *first = u;
	size_t len, len2;

	(void)state;
	for (unsigned round = 0; round < 30; round++) {
		u = first;
		test_bus = u->bus;
		churn(100);
		uint8_t *bytes = save(first->board, &len);
		struct unit *second = make();
		assert_int_equal(load(second->board, bytes, len), 0);
		uint8_t *again = save(second->board, &len2);
		assert_int_equal(len, len2);
		assert_memory_equal(bytes, again, len);
		for (unsigned i = 0; i < CPUS; i++)
			assert_int_equal(first->v[i].requests & VCPU_REQ_IRQ,
					 second->v[i].requests & VCPU_REQ_IRQ);
		for (unsigned i = 0; i < 200; i++)
			bytes[(unsigned)rand() % len] = (uint8_t)rand();
		load(second->board, bytes, len);
		u = second;
		test_bus = u->bus;
		churn(20);
		board_reset(second->board);
		free(bytes);
		free(again);
		destroy(second);
	}
	u = first;
	test_bus = u->bus;
}

/* After a reset the board is as a new one, but for the clock's battery. */
static void test_reset(void **state)
{
	(void)state;
	churn(3000);
	board_reset(u->board);
	assert_int_equal(lapic_rd(0, 0xf0), 0xff);
	assert_int_equal(inb(0x21), 0xff);
	assert_int_equal(inw(LAYOUT_PM1A_CNT), 1);
	assert_int_equal(inb(0x64) & 1, 0);
	for (unsigned i = 0; i < CPUS; i++)
		assert_false(irq(i));
	u->v[0].requests = 0;
	test_pit_by_pic(NULL);
}

static void test_wrong_config(void **state)
{
	struct board *b;
	struct error err = {""};
	struct board_config cfg = {
		.mem = u->mem, .bus = u->bus, .cpus = 0, .tsc_hz = 1, .phys_bits = 40};

	(void)state;
	assert_true(board_create(&b, &cfg, &err) < 0);
	assert_null(b);
	assert_true(err.text[0]);
	cfg.cpus = 1;
	cfg.phys_bits = 64;
	assert_true(board_create(&b, &cfg, &err) < 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_pit_by_pic), T(test_pit_by_ioapic),  T(test_serial),
		T(test_ends),	    T(test_sci_and_button), T(test_ferr),
		T(test_cpus),	    T(test_firmware_data),  T(test_state),
		T(test_reset),	    T(test_wrong_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
