/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pit.h"
#include "dev_test.h"

enum { PIT = 0x40, P61 = 0x61, OTHER = 0x1000 };

static struct pit *pit;

static struct pit *make(uint16_t base)
{
	const struct pit_config cfg = {.bus = test_bus,
				       .port = PIT + base,
				       .port61 = P61 + base,
				       .irq = wire(base ? 1 : 0)};
	struct pit *p;

	assert_int_equal(pit_create(&p, &cfg, NULL), 0);
	return p;
}

static int setup(void **state)
{
	(void)state;
	bus_create(&test_bus, NULL);
	pit = make(0);
	wires_clear();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pit_ops.destroy(pit);
	bus_destroy(test_bus);
	return 0;
}

static void program(unsigned counter, unsigned mode, uint16_t count)
{
	outb(PIT + 3, (uint8_t)(counter << 6 | 0x30 | mode << 1));
	outb((uint16_t)(PIT + counter), (uint8_t)count);
	outb((uint16_t)(PIT + counter), (uint8_t)(count >> 8));
}

static uint16_t latch(unsigned counter)
{
	uint8_t low;

	outb(PIT + 3, (uint8_t)(counter << 6));
	low = inb((uint16_t)(PIT + counter));
	return (uint16_t)(inb((uint16_t)(PIT + counter)) << 8 | low);
}

static uint8_t status(unsigned counter)
{
	outb(PIT + 3, (uint8_t)(0xe0 | 2 << counter));
	return inb((uint16_t)(PIT + counter));
}

static void ticks(uint64_t n)
{
	fake_time_pass(n * 1000000000 / PIT_HZ + 1);
}

static void near(unsigned a, unsigned b)
{
	assert_in_range(a + 3, b, b + 6);
}

/* The count is over before the host has come to arm its timer. */
static void test_slow_host(void **state)
{
	(void)state;
	for (unsigned mode = 0; mode <= 4; mode += 4) {
		wires_clear();
		fake_time_drift(20000);
		program(0, mode, 1);
		fake_time_drift(0);
		ticks(10);
		assert_int_equal(wire_rises[0],
				 mode ? 2 : 1); /* of mode 4, the control word, too */
		assert_int_equal(wire_level[0], 1);
	}
}

static void test_mode0(void **state)
{
	(void)state;
	program(0, 0, 1000);
	assert_int_equal(wire_level[0], 0);
	assert_int_equal(status(0) & 0x80, 0);
	ticks(500);
	near(latch(0), 500);
	assert_int_equal(wire_rises[0], 0);
	ticks(510);
	assert_int_equal(wire_rises[0], 1);
	assert_int_equal(status(0) & 0x80, 0x80);
	near((uint16_t)(latch(0) + 20), 10); /* goes on below 0 */
	ticks(200000);
	assert_int_equal(wire_rises[0], 1);
	outb(PIT, 100); /* the first byte of a new count stops it, OUT low */
	assert_int_equal(wire_level[0], 0);
	assert_int_equal(status(0) & 0x80, 0);
	ticks(1000);
	assert_int_equal(wire_rises[0], 1);
	outb(PIT, 0);
	ticks(110);
	assert_int_equal(wire_rises[0], 2);
}

static void test_mode2(void **state)
{
	(void)state;
	program(0, 2, 11932); /* 100 Hz */
	wires_clear();
	fake_time_pass(1005000000);
	assert_in_range(wire_rises[0], 99, 101);
	ticks(11932 / 2);
	assert_in_range(latch(0), 1, 11932);
	assert_int_equal(status(0) & 0x3f, 0x34);
	uint16_t a = latch(0);
	ticks(10);
	uint16_t b = latch(0);
	near((unsigned)(a + 11932 - b) % 11932, 10);
}

static void test_mode3(void **state)
{
	unsigned high = 0;

	(void)state;
	program(0, 3, 1193);
	wires_clear();
	fake_time_pass(100000000);
	assert_in_range(wire_rises[0], 98, 101);
	for (unsigned i = 0; i < 1000; i++) {
		high += status(0) >> 7;
		fake_time_pass(10007 * 3);
		assert_int_equal(latch(0) & 1, 0); /* counts by twos */
	}
	assert_in_range(high, 450, 550);
}

static void test_mode4(void **state)
{
	(void)state;
	program(0, 4, 500);
	wires_clear();
	assert_int_equal(status(0) & 0x80, 0x80);
	ticks(1000);
	assert_int_equal(wire_rises[0], 1);
	ticks(200000);
	assert_int_equal(wire_rises[0], 1);
}

/* Modes 1 and 5 wait for counter 2's gate. */
static void test_gate_triggers(void **state)
{
	(void)state;
	outb(P61, 0);
	program(2, 1, 1000);
	assert_int_equal(inb(P61) & 0x20, 0x20);
	outb(P61, 1);
	ticks(2);
	assert_int_equal(inb(P61) & 0x20, 0);
	ticks(500);
	outb(P61, 0);
	outb(P61, 1); /* retriggers */
	ticks(900);
	assert_int_equal(inb(P61) & 0x20, 0);
	ticks(200);
	assert_int_equal(inb(P61) & 0x20, 0x20);

	program(2, 5, 1000);
	ticks(2000);
	assert_int_equal(inb(P61) & 0x20, 0x20);
	outb(P61, 0);
	outb(P61, 1);
	near(latch(2), 1000);
	ticks(300);
	near(latch(2), 700);
}

/* As Linux and others calibrate the TSC: mode 0 on counter 2, watch OUT2. */
static void test_gate_mode0(void **state)
{
	(void)state;
	outb(P61, 0);
	program(2, 0, 10000);
	ticks(20000);
	assert_int_equal(inb(P61) & 0x20, 0); /* gate low: does not count */
	outb(P61, 1);
	ticks(9900);
	assert_int_equal(inb(P61) & 0x20, 0);
	outb(P61, 0);
	ticks(5000);
	outb(P61, 1);
	ticks(90);
	assert_int_equal(inb(P61) & 0x20, 0);
	ticks(20);
	assert_int_equal(inb(P61) & 0x20, 0x20);
}

static void test_read_back_and_latch(void **state)
{
	(void)state;
	program(0, 2, 5000);
	outb(PIT + 3, 0xc2); /* status and count of counter 0 */
	ticks(700);
	assert_int_equal(inb(PIT) & 0x3f, 0x34);
	uint16_t v = inb(PIT);
	v |= (uint16_t)(inb(PIT) << 8);
	near(v, 5000); /* latched before the ticks */
	outb(PIT + 3, 0);
	ticks(100);
	outb(PIT + 3, 0); /* a second latch before reading is ignored */
	v = inb(PIT);
	v |= (uint16_t)(inb(PIT) << 8);
	near(v, 4300);
	outb(PIT + 3, 0x34);
	assert_int_equal(status(0) & 0x40, 0x40); /* null count until it is written */
	outb(PIT + 3, 0x14);			  /* low byte only */
	outb(PIT, 50);
	ticks(10);
	assert_int_equal(status(0) & 0x40, 0);
	near(inb(PIT), 40);
	outb(PIT + 3, 0x24); /* high byte only */
	outb(PIT, 2);
	ticks(1);
	assert_in_range(inb(PIT), 1, 2);
}

static void test_bcd(void **state)
{
	(void)state;
	outb(PIT + 3, 0xb1); /* counter 2, mode 0, BCD */
	outb(P61, 1);
	outb(PIT + 2, 0x00);
	outb(PIT + 2, 0x10);
	ticks(1);
	ticks(499);
	uint16_t v = latch(2);
	assert_in_range(v, 0x497, 0x503);
}

/* A count written while mode 2 runs takes over at the end of the period. */
static void test_reload_waits(void **state)
{
	(void)state;
	program(0, 2, 10000);
	ticks(5000);
	outb(PIT, 0xe8);
	outb(PIT, 3); /* 1000 */
	near(latch(0), 5000);
	ticks(5100);
	near(latch(0), 900);
}

static void test_late_host_coalesces(void **state)
{
	(void)state;
	program(0, 2, 1193); /* 1 kHz */
	wires_clear();
	assert_in_range(fake_time_jump(1000000000), 1, 2);
	assert_in_range(wire_rises[0], 1, 2);
	uint16_t before = latch(0);
	assert_in_range(before, 1, 1193);
	program(0, 2, 2); /* far too fast: not more than one in 100 us */
	wires_clear();
	fake_time_pass(10000000);
	assert_in_range(wire_rises[0], 50, 101);
}

static void test_port61(void **state)
{
	unsigned toggles = 0;
	uint8_t old = inb(P61) & 0x10;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		fake_time_pass(1000);
		toggles += (inb(P61) & 0x10) != old;
		old = inb(P61) & 0x10;
	}
	assert_in_range(toggles, 64, 68); /* every 15 us */
	outb(P61, 0xff);
	assert_int_equal(inb(P61) & 0xcf, 0x0f);
}

static void test_state(void **state)
{
	struct pit *other = make(OTHER);

	(void)state;
	program(0, 2, 5000);
	program(2, 3, 777);
	outb(P61, 1);
	ticks(12345);
	outb(PIT, 9); /* half a count written */
	outb(PIT + 3, 0xc4);
	round_trip(&pit_ops, pit, other);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(inb(PIT), inb(PIT + OTHER));
		assert_int_equal(inb(PIT + 2), inb(PIT + OTHER + 2));
		assert_int_equal(inb(P61) & 0x2f, inb(P61 + OTHER) & 0x2f);
		ticks(371);
	}
	wires_clear();
	fake_time_pass(100000000);
	assert_int_equal(wire_rises[0], wire_rises[1]);
	assert_true(wire_rises[0] > 20);
	pit_ops.destroy(other);
}

static void test_hostile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		scribble(BUS_PIO, PIT, 4, 10);
		scribble(BUS_PIO, P61, 1, 1);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_slow_host),
		T(test_mode0),
		T(test_mode2),
		T(test_mode3),
		T(test_mode4),
		T(test_gate_triggers),
		T(test_gate_mode0),
		T(test_read_back_and_latch),
		T(test_bcd),
		T(test_reload_waits),
		T(test_late_host_coalesces),
		T(test_port61),
		T(test_state),
		T(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
