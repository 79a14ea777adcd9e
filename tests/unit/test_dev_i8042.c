/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/i8042.h"
#include "dev_test.h"

enum { DATA = 0x60, CMD = 0x64, P92 = 0x92, OTHER = 0x1000 };

static struct i8042 *kbc;
static unsigned resets;
static int a20;

static void on_reset(void *opaque)
{
	(void)opaque;
	resets++;
}

static void on_a20(void *opaque, bool open)
{
	(void)opaque;
	a20 = open;
}

static struct i8042 *make(uint16_t base)
{
	const struct i8042_config cfg = {.bus = test_bus,
					 .data_port = DATA + base,
					 .command_port = CMD + base,
					 .port92 = P92 + base,
					 .irq = wire(base ? 1 : 0),
					 .reset = on_reset,
					 .set_a20 = on_a20};
	struct i8042 *k;

	assert_int_equal(i8042_create(&k, &cfg, NULL), 0);
	return k;
}

static int setup(void **state)
{
	(void)state;
	resets = 0;
	bus_create(&test_bus, NULL);
	wires_clear();
	kbc = make(0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	i8042_ops.destroy(kbc);
	bus_destroy(test_bus);
	return 0;
}

/* The next byte there is. */
static uint8_t next(void)
{
	assert_int_equal(inb(CMD) & 1, 1);
	return inb(DATA);
}

static void test_controller(void **state)
{
	(void)state;
	assert_int_equal(inb(CMD), 0x14);
	outb(CMD, 0xaa);
	assert_int_equal(next(), 0x55);
	outb(CMD, 0xab);
	assert_int_equal(next(), 0);
	outb(CMD, 0x20);
	assert_int_equal(next(), 0x74);
	outb(CMD, 0x60);
	assert_int_equal(inb(CMD) & 8, 8);
	outb(DATA, 0x61);
	assert_int_equal(inb(CMD) & 0xd, 0);
	outb(CMD, 0x20);
	assert_int_equal(next(), 0x61);
	outb(CMD, 0x65);
	outb(DATA, 0x99);
	outb(CMD, 0x25);
	assert_int_equal(next(), 0x99);
	outb(CMD, 0xad);
	outb(CMD, 0x20);
	assert_int_equal(next(), 0x71);
	outb(CMD, 0xd2);
	outb(DATA, 0x42);
	assert_int_equal(wire_level[0], 1); /* as if from the keyboard */
	assert_int_equal(next(), 0x42);
	assert_int_equal(inb(CMD) & 1, 0);
	outb(CMD, 0xa9);
	assert_int_not_equal(next(), 0); /* nothing on the auxiliary port */
}

static void test_keyboard(void **state)
{
	(void)state;
	outb(DATA, 0xff);
	assert_int_equal(wire_level[0], 1);
	assert_int_equal(next(), 0xfa);
	assert_int_equal(next(), 0xaa);
	assert_int_equal(wire_rises[0], 2);
	assert_int_equal(wire_level[0], 0);
	outb(DATA, 0xf2);
	assert_int_equal(next(), 0xfa);
	assert_int_equal(next(), 0xab);
	assert_int_equal(next(), 0x41); /* translated */
	outb(DATA, 0xed);
	assert_int_equal(next(), 0xfa);
	outb(DATA, 7);
	assert_int_equal(next(), 0xfa);
	outb(DATA, 0xf0);
	assert_int_equal(next(), 0xfa);
	outb(DATA, 0);
	assert_int_equal(next(), 0xfa);
	assert_int_equal(next(), 0x41);
	outb(DATA, 0xee);
	assert_int_equal(next(), 0xee);
	outb(DATA, 0x90); /* no such command */
	assert_int_equal(next(), 0xfe);
	outb(DATA, 0xfe);
	assert_int_equal(next(), 0xfe);
	outb(DATA, 0xf6);
	assert_int_equal(next(), 0xfa);
	assert_int_equal(inb(CMD) & 1, 0);
}

static void test_keys(void **state)
{
	static const uint8_t a[] = {0x1e, 0x9e}, right[] = {0xe0, 0x4d, 0xe0, 0xcd};

	(void)state;
	i8042_key(kbc, a, 2);
	assert_int_equal(next(), 0x1e);
	assert_int_equal(next(), 0x9e);
	outb(CMD, 0x60);
	outb(DATA, 0x25); /* no translation: set 2 */
	i8042_key(kbc, a, 2);
	assert_int_equal(next(), 0x1c);
	assert_int_equal(next(), 0xf0);
	assert_int_equal(next(), 0x1c);
	i8042_key(kbc, right, 4);
	assert_int_equal(next(), 0xe0);
	assert_int_equal(next(), 0x74);
	assert_int_equal(next(), 0xe0);
	assert_int_equal(next(), 0xf0);
	assert_int_equal(next(), 0x74);
	outb(CMD, 0xad); /* held */
	i8042_key(kbc, a, 1);
	assert_int_equal(inb(CMD) & 1, 0);
	outb(CMD, 0xae);
	assert_int_equal(next(), 0x1c);
	outb(DATA, 0xf5);
	assert_int_equal(next(), 0xfa);
	i8042_key(kbc, a, 2);
	assert_int_equal(inb(CMD) & 1, 0);
	outb(DATA, 0xf4);
	next();
	for (unsigned i = 0; i < 100; i++) /* more than it holds */
		i8042_key(kbc, a, 2);
	unsigned n = 0;
	while (inb(CMD) & 1) {
		inb(DATA);
		n++;
	}
	assert_in_range(n, 8, 33);
}

static void test_reset_and_a20(void **state)
{
	(void)state;
	outb(CMD, 0xfe);
	assert_int_equal(resets, 1);
	outb(CMD, 0xff); /* pulses nothing */
	assert_int_equal(resets, 1);
	outb(P92, 1);
	assert_int_equal(resets, 2);
	outb(CMD, 0xd1);
	outb(DATA, 0xdd); /* A20 off, but port 92h... */
	assert_int_equal(inb(P92), 0);
	assert_int_equal(a20, 0);
	outb(P92, 2);
	assert_int_equal(a20, 1);
	outb(P92, 0);
	assert_int_equal(a20, 0);
	outb(CMD, 0xdf);
	assert_int_equal(a20, 1);
	outb(CMD, 0xd0);
	assert_int_equal(next() & 3, 3);
	outb(CMD, 0xd1);
	outb(DATA, 0xde); /* bit 0 low */
	assert_int_equal(resets, 3);
}

static void test_state(void **state)
{
	static const uint8_t keys[] = {0x1e, 0x9e, 0x30};
	struct i8042 *other = make(OTHER);

	(void)state;
	i8042_key(kbc, keys, 3);
	outb(DATA, 0xed);
	outb(CMD, 0x60); /* half a command */
	round_trip(&i8042_ops, kbc, other);
	assert_int_equal(wire_level[1], 1);
	outb(DATA, 0x25);
	outb(DATA + OTHER, 0x25);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(inb(CMD), inb(CMD + OTHER));
		assert_int_equal(inb(DATA), inb(DATA + OTHER));
	}
	i8042_ops.destroy(other);
}

static void test_hostile(void **state)
{
	uint8_t keys[8];

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		scribble(BUS_PIO, i & 1 ? DATA : CMD, 1, 3);
		scribble(BUS_PIO, P92, 1, 1);
		for (unsigned k = 0; k < sizeof(keys); k++)
			keys[k] = (uint8_t)rand();
		i8042_key(kbc, keys, (unsigned)rand() % 9);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_controller),    T(test_keyboard), T(test_keys),
		T(test_reset_and_a20), T(test_state),	 T(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
