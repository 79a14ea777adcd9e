/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/rtc.h"
#include "dev_test.h"

enum { RTC = 0x70, OTHER = 0x1000 };
/* 2024-02-29 23:59:50 UTC, a Thursday. */
#define START_NS (UINT64_C(1709251190) * 1000000000)

static struct rtc *rtc;

static struct rtc *make(uint16_t base)
{
	const struct rtc_config cfg = {
		.bus = test_bus, .port = RTC + base, .irq = wire(base ? 1 : 0)};
	struct rtc *r;

	assert_int_equal(rtc_create(&r, &cfg, NULL), 0);
	return r;
}

static int setup(void **state)
{
	(void)state;
	bus_create(&test_bus, NULL);
	wires_clear();
	fake_time_set_utc(START_NS);
	rtc = make(0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rtc_ops.destroy(rtc);
	bus_destroy(test_bus);
	return 0;
}

static uint8_t get(uint8_t reg)
{
	outb(RTC, reg);
	return inb(RTC + 1);
}

static void put(uint8_t reg, uint8_t v)
{
	outb(RTC, reg);
	outb(RTC + 1, v);
}

#define SECOND UINT64_C(1000000000)

static void expect(uint8_t y, uint8_t mo, uint8_t d, uint8_t h, uint8_t mi, uint8_t s)
{
	assert_int_equal(get(9), y);
	assert_int_equal(get(8), mo);
	assert_int_equal(get(7), d);
	assert_int_equal(get(4), h);
	assert_int_equal(get(2), mi);
	assert_int_equal(get(0), s);
}

static void test_reads(void **state)
{
	(void)state;
	expect(0x24, 0x02, 0x29, 0x23, 0x59, 0x50);
	assert_int_equal(get(6), 5);
	assert_int_equal(get(0x32), 0x20);
	assert_int_equal(get(0xb), 2);
	assert_int_equal(get(0xd), 0x80);
	fake_time_pass(10 * SECOND);
	expect(0x24, 0x03, 0x01, 0x00, 0x00, 0x00);
	put(0xb, 6); /* binary */
	fake_time_pass(3661 * SECOND);
	expect(24, 3, 1, 1, 1, 1);
	put(0xb, 4); /* binary, 12 hours */
	assert_int_equal(get(4), 1);
	fake_time_pass(12 * 3600 * SECOND);
	assert_int_equal(get(4), 0x81);
	put(0xb, 0);
	fake_time_pass(11 * 3600 * SECOND);
	assert_int_equal(get(4), 0x12); /* midnight */
	assert_int_equal(inb(RTC), 0xff);
	assert_int_equal(get(0x80 | 0xd), 0x80); /* the NMI bit is no part of the number */
}

static void test_set(void **state)
{
	(void)state;
	put(0xb, 0x82); /* SET */
	put(9, 0x99);
	put(0x32, 0x19);
	put(8, 0x12);
	put(7, 0x31);
	put(4, 0x23);
	put(2, 0x59);
	put(0, 0x58);
	fake_time_pass(30 * SECOND); /* stands still */
	assert_int_equal(get(0), 0x58);
	put(0xb, 2);
	fake_time_pass(SECOND / 2);
	expect(0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
	fake_time_pass(2 * SECOND);
	expect(0x00, 0x01, 0x01, 0x00, 0x00, 0x00);
	assert_int_equal(get(0x32), 0x20);
	put(4, 0x07); /* without SET */
	expect(0x00, 0x01, 0x01, 0x07, 0x00, 0x00);
	rtc_ops.reset(rtc); /* the battery keeps it */
	expect(0x00, 0x01, 0x01, 0x07, 0x00, 0x00);
}

static void test_uip(void **state)
{
	unsigned up = 0;

	(void)state;
	for (unsigned i = 0; i < 10000; i++) {
		up += get(0xa) >> 7;
		fake_time_pass(100000);
	}
	assert_in_range(up, 2, 4); /* 244 us of a second */
	put(0xb, 0x82);
	for (unsigned i = 0; i < 10000; i++) {
		assert_int_equal(get(0xa) & 0x80, 0);
		fake_time_pass(100000);
	}
}

static void test_update_interrupt(void **state)
{
	(void)state;
	get(0xc);
	fake_time_pass(SECOND);
	assert_int_equal(get(0xc), 0x50); /* flags come without enables: UF, PF */
	put(0xb, 0x12);
	for (unsigned i = 0; i < 5; i++) {
		fake_time_pass(SECOND);
		assert_int_equal(wire_level[0], 1);
		assert_int_equal(get(0xc) & 0xb0, 0x90);
		assert_int_equal(wire_level[0], 0);
	}
	assert_int_equal(wire_rises[0], 5);
	fake_time_jump(20 * SECOND);
	assert_int_equal(wire_rises[0], 6);
}

static void test_periodic(void **state)
{
	unsigned n = 0;

	(void)state;
	put(0xb, 0x42); /* 1024 Hz */
	for (unsigned i = 0; i < 10000; i++) {
		fake_time_pass(100000);
		if (wire_level[0]) {
			assert_int_equal(get(0xc) & 0xc0, 0xc0);
			n++;
		}
	}
	assert_in_range(n, 1000, 1026);
	put(0xa, 0x2f); /* 2 Hz */
	wires_clear();
	get(0xc);
	fake_time_pass(SECOND * 4 / 10);
	assert_int_equal(wire_level[0], 0);
	fake_time_pass(SECOND * 2 / 10);
	assert_int_equal(wire_level[0], 1);
	put(0xa, 0x20); /* off */
	get(0xc);
	fake_time_pass(SECOND * 3);
	assert_int_equal(wire_level[0], 0);
}

static void test_alarm(void **state)
{
	(void)state;
	put(5, 0x00);
	put(3, 0x00);
	put(1, 0x05); /* 00:00:05, 15 s from now */
	put(0xb, 0x22);
	fake_time_pass(14 * SECOND);
	assert_int_equal(wire_level[0], 0);
	fake_time_pass(SECOND + 1000);
	assert_int_equal(wire_level[0], 1);
	assert_int_equal(get(0xc) & 0xa0, 0xa0);
	fake_time_pass(3600 * SECOND);
	assert_int_equal(wire_level[0], 0);
	put(5, 0xff); /* any hour, any minute */
	put(3, 0xc0);
	wires_clear();
	for (unsigned i = 0; i < 3; i++) {
		fake_time_pass(60 * SECOND);
		get(0xc);
	}
	assert_int_equal(wire_rises[0], 3);
	put(1, 0x77); /* never */
	wires_clear();
	fake_time_pass(200000 * SECOND);
	assert_int_equal(wire_rises[0], 0);
}

static void test_nvram(void **state)
{
	(void)state;
	rtc_set_byte(rtc, 0x34, 0xab);
	rtc_set_byte(rtc, 0, 0xab); /* not for the clock */
	rtc_set_byte(rtc, 4000, 0xab);
	assert_int_equal(get(0x34), 0xab);
	assert_int_equal(get(0), 0x50);
	put(0x7f, 0x5a);
	assert_int_equal(get(0x7f), 0x5a);
	rtc_ops.reset(rtc);
	assert_int_equal(get(0x7f), 0x5a);
}

static void test_state(void **state)
{
	struct rtc *other = make(OTHER);

	(void)state;
	put(4, 0x07);
	put(0xb, 0x72);
	put(0x55, 0x66);
	fake_time_pass(SECOND / 3);
	round_trip(&rtc_ops, rtc, other);
	get(0xc);
	outb(RTC + OTHER, 0xc);
	inb(RTC + OTHER + 1);
	wires_clear();
	for (unsigned i = 0; i < 30; i++) {
		fake_time_pass(SECOND / 10);
		for (uint8_t reg = 0; reg < 128; reg++) {
			uint8_t a = get(reg);
			outb(RTC + OTHER, reg);
			assert_int_equal(a, inb(RTC + OTHER + 1));
		}
	}
	assert_true(wire_rises[0] > 0);
	assert_int_equal(wire_rises[0], wire_rises[1]);
	rtc_ops.destroy(other);
}

static void test_hostile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		put((uint8_t)(rand() % 16), (uint8_t)rand());
		get((uint8_t)rand());
		put(0x32, (uint8_t)rand());
		fake_time_pass((uint64_t)rand() % 50000000);
	}
	scribble(BUS_PIO, RTC, 2, 20000);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_reads),	  T(test_set),	 T(test_uip),	T(test_update_interrupt),
		T(test_periodic), T(test_alarm), T(test_nvram), T(test_state),
		T(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
