/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/uart.h"
#include "dev_test.h"

enum { COM = 0x3f8, OTHER = 0x1000, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6 };

static struct uart *uart;
static char sent[20000];
static size_t sent_len, writes, room_calls, accept_bytes;
static int breaks;

static size_t take(void *opaque, const uint8_t *data, size_t len)
{
	(void)opaque;
	writes++;
	if (len > accept_bytes)
		len = accept_bytes;
	accept_bytes -= len;
	assert_true(sent_len + len < sizeof(sent));
	memcpy(sent + sent_len, data, len);
	sent_len += len;
	return len;
}

static void room(void *opaque)
{
	(void)opaque;
	room_calls++;
}

static void set_break(void *opaque, bool on)
{
	(void)opaque;
	breaks += on;
}

static struct uart *make(uint16_t base)
{
	const struct uart_config cfg = {
		.bus = test_bus,
		.port = COM + base,
		.irq = wire(base ? 1 : 0),
		.backend = {.write = take, .input_room = room, .set_break = set_break}};
	struct uart *u;

	assert_int_equal(uart_create(&u, &cfg, NULL), 0);
	return u;
}

static int setup(void **state)
{
	(void)state;
	sent_len = writes = room_calls = 0;
	breaks = 0;
	accept_bytes = SIZE_MAX;
	bus_create(&test_bus, NULL);
	wires_clear();
	uart = make(0);
	outb(COM + MCR, 0x0b);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	uart_ops.destroy(uart);
	bus_destroy(test_bus);
	return 0;
}

static size_t receive(const char *text)
{
	return uart_receive(uart, (const uint8_t *)text, strlen(text));
}

static void test_reset_values(void **state)
{
	(void)state;
	uart_ops.reset(uart);
	assert_int_equal(inb(COM + IER), 0);
	assert_int_equal(inb(COM + IIR), 1);
	assert_int_equal(inb(COM + LCR), 0);
	assert_int_equal(inb(COM + MCR), 0);
	assert_int_equal(inb(COM + LSR), 0x60);
	assert_int_equal(inb(COM + MSR), 0xb0);
	outb(COM + 7, 0x5a);
	assert_int_equal(inb(COM + 7), 0x5a);
	outb(COM + LCR, 0x83);
	outw(COM, 0x0123);
	assert_int_equal(inb(COM), 0x23);
	assert_int_equal(inb(COM + 1), 0x01);
	outb(COM + LCR, 3);
	assert_int_equal(inb(COM + IER), 0);
}

static void test_output_is_gathered(void **state)
{
	(void)state;
	outb(COM + LCR, 3);
	for (const char *p = "hello"; *p; p++)
		outb(COM, (uint8_t)*p);
	assert_int_equal(sent_len, 0);
	fake_time_pass(3000000);
	assert_int_equal(writes, 1);
	assert_memory_equal(sent, "hello", 5);
	outb(COM, '!');
	uart_flush(uart);
	assert_int_equal(sent_len, 6);
	outb(COM + LCR, 2); /* 7 bits */
	outb(COM, 0xc1);
	uart_ops.reset(uart);
	assert_int_equal(sent[6], 0x41);
}

static void test_thre_interrupt(void **state)
{
	(void)state;
	outb(COM + IER, 2); /* empty: at once */
	assert_int_equal(wire_level[0], 1);
	assert_int_equal(inb(COM + IIR), 2); /* reading it takes it down */
	assert_int_equal(wire_level[0], 0);
	assert_int_equal(inb(COM + IIR), 1);
	outb(COM, 'x'); /* full and empty again: an edge */
	assert_int_equal(wire_rises[0], 2);
	assert_int_equal(inb(COM + IIR), 2);
	outb(COM + IER, 0);
	outb(COM + IER, 2);
	assert_int_equal(inb(COM + IIR), 2);
	outb(COM + IER, 2); /* already on: no edge */
	assert_int_equal(inb(COM + IIR), 1);
}

static void test_out2_gates(void **state)
{
	(void)state;
	outb(COM + IER, 2);
	outb(COM + MCR, 3);
	assert_int_equal(wire_level[0], 0);
	outb(COM + MCR, 8);
	assert_int_equal(wire_level[0], 1);
	outb(COM + MCR, 0x18);
	assert_int_equal(wire_level[0], 0);
}

static void test_receive_no_fifo(void **state)
{
	(void)state;
	outb(COM + IER, 1);
	assert_int_equal(receive("ab"), 1);
	assert_int_equal(wire_level[0], 1);
	assert_int_equal(inb(COM + IIR), 4);
	assert_int_equal(inb(COM + LSR) & 1, 1);
	assert_int_equal(inb(COM), 'a');
	assert_int_equal(wire_level[0], 0);
	assert_int_equal(room_calls, 1);
	assert_int_equal(inb(COM), 'a'); /* read empty: the old byte */
	assert_int_equal(receive("b"), 1);
	assert_int_equal(inb(COM), 'b');
	assert_int_equal(room_calls, 1);
}

static void test_fifo_trigger_and_timeout(void **state)
{
	(void)state;
	outb(COM + FCR, 0x81); /* 8 bytes */
	outb(COM + IER, 1);
	assert_int_equal(inb(COM + IIR), 0xc1);
	assert_int_equal(receive("1234567"), 7);
	assert_int_equal(wire_level[0], 0);
	fake_time_pass(25000000);
	assert_int_equal(inb(COM + IIR), 0xcc);
	inb(COM);
	assert_int_equal(inb(COM + IIR), 0xc1); /* a read restarts the time-out */
	assert_int_equal(receive("89"), 2);
	assert_int_equal(inb(COM + IIR), 0xc4);
	inb(COM);
	assert_int_equal(inb(COM + IIR), 0xc1);
	fake_time_pass(25000000);
	assert_int_equal(inb(COM + IIR), 0xcc);
	outb(COM + FCR, 0x83); /* receiver reset */
	assert_int_equal(inb(COM + IIR), 0xc1);
	assert_int_equal(inb(COM + LSR), 0x60);
	assert_int_equal(receive("0123456789abcdefgh"), 16);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(room_calls, 0);
		assert_int_equal(inb(COM), "0123456789abcdef"[i]);
	}
	assert_int_equal(room_calls, 1);
}

static void test_line_status(void **state)
{
	(void)state;
	outb(COM + FCR, 1);
	outb(COM + IER, 5);
	receive("a");
	uart_receive_break(uart);
	assert_int_equal(inb(COM + LSR), 0xe1); /* an error waits in the FIFO */
	assert_int_equal(inb(COM + IIR), 0xc4);
	assert_int_equal(inb(COM), 'a');
	assert_int_equal(inb(COM + IIR), 0xc6); /* now it is on top */
	assert_int_equal(inb(COM + LSR), 0x71);
	assert_int_equal(inb(COM + LSR), 0x61);
	assert_int_equal(inb(COM), 0);
	outb(COM + LCR, 0x43);
	outb(COM + LCR, 0x43);
	assert_int_equal(breaks, 1);
}

static void test_loopback(void **state)
{
	(void)state;
	inb(COM + MSR);
	outb(COM + MCR, 0x10);
	assert_int_equal(inb(COM + MSR), 0x0b); /* DCD, DSR, CTS went */
	outb(COM + MCR, 0x1f);
	assert_int_equal(inb(COM + MSR), 0xfb);
	outb(COM + MCR, 0x1a);
	assert_int_equal(inb(COM + MSR),
			 0x96); /* DTR and OUT1 off: DSR changed, RI's trailing edge */
	outb(COM + LCR, 3);
	outb(COM, 0x77);
	assert_int_equal(inb(COM + LSR) & 1, 1);
	outb(COM, 0x78); /* no FIFO: overrun */
	assert_int_equal(inb(COM + LSR) & 2, 2);
	assert_int_equal(inb(COM), 0x78);
	assert_int_equal(receive("x"), 0);
	fake_time_pass(5000000);
	assert_int_equal(sent_len, 0);
	outb(COM + MCR, 0x0b);
	assert_int_equal(room_calls, 1);
}

static void test_back_pressure(void **state)
{
	(void)state;
	accept_bytes = 100;
	outb(COM + LCR, 3);
	for (unsigned i = 0; i < 4096 + 200 && inb(COM + LSR) & 0x20; i++)
		outb(COM, (uint8_t)i);
	assert_int_equal(inb(COM + LSR) & 0x60, 0);
	assert_int_equal(sent_len, 100);
	outb(COM + IER, 2);
	assert_int_equal(inb(COM + IIR), 1);
	accept_bytes = SIZE_MAX;
	uart_writable(uart);
	assert_int_equal(inb(COM + LSR) & 0x60, 0x60);
	assert_int_equal(inb(COM + IIR), 2);
	assert_true(sent_len > 4000);
	for (size_t i = 0; i < sent_len; i++)
		assert_int_equal((uint8_t)sent[i], (uint8_t)i);
}

static void test_state(void **state)
{
	struct uart *other;

	(void)state;
	outb(COM + FCR, 0x41);
	outb(COM + LCR, 3);
	outb(COM + IER, 7);
	receive("abc");
	accept_bytes = 0;
	outb(COM, 'z');
	struct bus *first = test_bus;
	bus_create(&test_bus, NULL);
	other = make(0);
	round_trip(&uart_ops, uart, other);
	accept_bytes = SIZE_MAX;
	sent_len = 0;
	fake_time_pass(30000000);
	assert_int_equal(sent_len, 2); /* 'z' of both */
	assert_int_equal(inb(COM + IIR), 0xcc);
	assert_int_equal(inb(COM), 'a');
	assert_int_equal(inb(COM + MCR), 0x0b);
	uart_ops.destroy(other);
	bus_destroy(test_bus);
	test_bus = first;
}

static void test_hostile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		scribble(BUS_PIO, COM, 8, 8);
		receive("some input");
		if (!(i % 7))
			uart_receive_break(uart);
		accept_bytes = (unsigned)rand() % 64;
		sent_len = 0;
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_reset_values),	 T(test_output_is_gathered),
		T(test_thre_interrupt),	 T(test_out2_gates),
		T(test_receive_no_fifo), T(test_fifo_trigger_and_timeout),
		T(test_line_status),	 T(test_loopback),
		T(test_back_pressure),	 T(test_state),
		T(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
