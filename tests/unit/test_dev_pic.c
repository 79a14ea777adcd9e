/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pic.h"
#include "dev_test.h"

enum { M = 0x20, S = 0xa0, ELCR = 0x4d0, INT = 0 };

static struct pic *pic;

static struct pic *make(uint16_t base)
{
	const struct pic_config cfg = {.bus = test_bus,
				       .master_port = M + base,
				       .slave_port = S + base,
				       .elcr_port = ELCR + base,
				       .output = wire(INT + (base ? 1 : 0))};
	struct pic *p;

	assert_int_equal(pic_create(&p, &cfg, NULL), 0);
	return p;
}

static void init(uint8_t icw4)
{
	outb(M, 0x11);
	outb(M + 1, 0x20);
	outb(M + 1, 4);
	outb(M + 1, icw4);
	outb(S, 0x11);
	outb(S + 1, 0x28);
	outb(S + 1, 2);
	outb(S + 1, icw4);
}

static int setup(void **state)
{
	(void)state;
	wires_clear();
	bus_create(&test_bus, NULL);
	pic = make(0);
	init(1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pic_ops.destroy(pic);
	bus_destroy(test_bus);
	return 0;
}

static void edge(unsigned irq)
{
	pic_set_irq(pic, irq, 0);
	pic_set_irq(pic, irq, 1);
}

static uint8_t isr(uint16_t port)
{
	outb(port, 0x0b);
	return inb(port);
}

static uint8_t irr(uint16_t port)
{
	outb(port, 0x0a);
	return inb(port);
}

static void test_simple(void **state)
{
	(void)state;
	edge(3);
	assert_int_equal(wire_level[INT], 1);
	assert_int_equal(irr(M), 8);
	assert_int_equal(pic_ack(pic), 0x23);
	assert_int_equal(wire_level[INT], 0);
	assert_int_equal(isr(M), 8);
	assert_int_equal(irr(M), 0);
	edge(3); /* held back by its own service */
	assert_int_equal(wire_level[INT], 0);
	outb(M, 0x20);
	assert_int_equal(wire_level[INT], 1);
	assert_int_equal(pic_ack(pic), 0x23);
}

static void test_edge_needs_edge(void **state)
{
	(void)state;
	edge(3);
	pic_ack(pic);
	outb(M, 0x20);
	pic_set_irq(pic, 3, 1); /* still high */
	assert_int_equal(wire_level[INT], 0);
}

static void test_priority_and_mask(void **state)
{
	(void)state;
	edge(5);
	edge(1);
	assert_int_equal(pic_ack(pic), 0x21);
	assert_int_equal(wire_level[INT], 0);
	edge(0);
	assert_int_equal(pic_ack(pic), 0x20); /* nested */
	outb(M, 0x60);			      /* specific EOI of 0, then of 1 */
	outb(M, 0x61);
	outb(M + 1, 0x20);
	assert_int_equal(inb(M + 1), 0x20);
	assert_int_equal(wire_level[INT], 0);
	outb(M + 1, 0);
	assert_int_equal(pic_ack(pic), 0x25);
}

static void test_cascade(void **state)
{
	(void)state;
	edge(12);
	assert_int_equal(wire_level[INT], 1);
	assert_int_equal(pic_ack(pic), 0x2c);
	assert_int_equal(isr(M), 4);
	assert_int_equal(isr(S), 0x10);
	edge(9); /* higher on the slave, but the master's pin is in service */
	assert_int_equal(wire_level[INT], 0);
	outb(S, 0x20);
	outb(M, 0x20);
	assert_int_equal(pic_ack(pic), 0x29);
}

static void test_special_fully_nested(void **state)
{
	(void)state;
	init(0x11);
	edge(12);
	pic_ack(pic);
	edge(9);
	assert_int_equal(wire_level[INT], 1);
	assert_int_equal(pic_ack(pic), 0x29);
	assert_int_equal(isr(S), 0x12);
}

static void test_spurious(void **state)
{
	(void)state;
	outb(ELCR, 0x20);
	pic_set_irq(pic, 5, 1);
	pic_set_irq(pic, 5, 0);
	assert_int_equal(wire_level[INT], 0);
	assert_int_equal(pic_ack(pic), 0x27);
	assert_int_equal(isr(M), 0); /* no service bit for it */
}

static void test_level(void **state)
{
	(void)state;
	outb(ELCR, 0xff);
	outb(ELCR + 1, 0xff);
	assert_int_equal(inb(ELCR), 0xf8);
	assert_int_equal(inb(ELCR + 1), 0xde);
	pic_set_irq(pic, 10, 1);
	assert_int_equal(pic_ack(pic), 0x2a);
	outb(S, 0x20);
	outb(M, 0x20);
	assert_int_equal(wire_level[INT], 1); /* again while it is high */
	pic_set_irq(pic, 10, 0);
	assert_int_equal(wire_level[INT], 0);
}

static void test_aeoi_and_rotation(void **state)
{
	(void)state;
	init(3);
	edge(4);
	assert_int_equal(pic_ack(pic), 0x24);
	assert_int_equal(isr(M), 0);
	outb(M, 0x80); /* rotate in AEOI */
	edge(4);
	pic_ack(pic);
	edge(4);
	edge(5);
	assert_int_equal(pic_ack(pic), 0x25); /* 4 has become lowest */
	assert_int_equal(pic_ack(pic), 0x24);

	init(1);
	outb(M, 0xc3); /* set priority: 3 lowest, 4 highest */
	edge(3);
	edge(4);
	assert_int_equal(pic_ack(pic), 0x24);
	outb(M, 0xa0); /* rotate on non-specific EOI: now 4 is lowest */
	assert_int_equal(pic_ack(pic), 0x23);
	outb(M, 0xe3); /* rotate on specific EOI */
	edge(3);
	edge(4);
	assert_int_equal(pic_ack(pic), 0x24);
}

static void test_special_mask(void **state)
{
	(void)state;
	edge(2 + 1);
	pic_ack(pic);
	edge(6);
	assert_int_equal(wire_level[INT], 0);
	outb(M + 1, 8);
	outb(M, 0x68);
	assert_int_equal(wire_level[INT], 1);
	assert_int_equal(pic_ack(pic), 0x26);
	outb(M, 0x48);
	edge(7);
	assert_int_equal(wire_level[INT], 0);
}

static void test_poll(void **state)
{
	(void)state;
	edge(6);
	outb(M, 0x0c);
	assert_int_equal(inb(M), 0x86);
	assert_int_equal(isr(M), 0x40);
	outb(M, 0x0c);
	assert_int_equal(inb(M), 0);
}

static void test_icw1_forgets(void **state)
{
	(void)state;
	outb(M + 1, 0xff);
	edge(3);
	outb(M, 0x11);
	assert_int_equal(wire_level[INT], 0);
	outb(M + 1, 0x47); /* low bits of ICW2 do not count */
	outb(M + 1, 4);
	outb(M + 1, 1);
	assert_int_equal(inb(M + 1), 0); /* masks cleared, edge too */
	assert_int_equal(wire_level[INT], 0);
	edge(3);
	assert_int_equal(pic_ack(pic), 0x43);
}

static void test_state(void **state)
{
	struct pic *other = make(0x1000);

	(void)state;
	edge(3);
	pic_ack(pic);
	edge(12);
	outb(M, 0xc2);
	round_trip(&pic_ops, pic, other);
	assert_int_equal(wire_level[1], wire_level[0]);
	outb(M, 0x63);
	outb(M + 0x1000, 0x63);
	assert_int_equal(pic_ack(other), pic_ack(pic));
	pic_ops.destroy(other);
}

static void test_hostile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		scribble(BUS_PIO, rand() & 1 ? M : S, 2, 5);
		scribble(BUS_PIO, ELCR, 2, 1);
		pic_set_irq(pic, (unsigned)rand() % 20, rand() & 1);
		pic_ack(pic);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_simple),	 T(test_edge_needs_edge),      T(test_priority_and_mask),
		T(test_cascade), T(test_special_fully_nested), T(test_spurious),
		T(test_level),	 T(test_aeoi_and_rotation),    T(test_special_mask),
		T(test_poll),	 T(test_icw1_forgets),	       T(test_state),
		T(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
