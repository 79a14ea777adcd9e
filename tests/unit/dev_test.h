/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_DEV_TEST_H
#define HANOK_TESTS_DEV_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bus/bus.h"
#include "dev/dev.h"
#include "fake_time.h"

/* What the tests of devices share: a bus, wires that count, state round trips, random writes. */

static struct bus *test_bus;

static inline uint64_t bus_in(enum bus_space space, uint64_t addr, unsigned size)
{
	struct bus_access a = {.addr = addr, .size = size, .value = UINT64_MAX};

	bus_access(test_bus, space, &a);
	return a.value;
}

static inline void bus_out(enum bus_space space, uint64_t addr, unsigned size, uint64_t v)
{
	struct bus_access a = {.addr = addr, .size = size, .write = true, .value = v};

	bus_access(test_bus, space, &a);
}

static inline uint8_t inb(uint16_t port)
{
	return (uint8_t)bus_in(BUS_PIO, port, 1);
}

static inline uint16_t inw(uint16_t port)
{
	return (uint16_t)bus_in(BUS_PIO, port, 2);
}

static inline uint32_t inl(uint16_t port)
{
	return (uint32_t)bus_in(BUS_PIO, port, 4);
}

static inline void outb(uint16_t port, uint8_t v)
{
	bus_out(BUS_PIO, port, 1, v);
}

static inline void outw(uint16_t port, uint16_t v)
{
	bus_out(BUS_PIO, port, 2, v);
}

static inline void outl(uint16_t port, uint32_t v)
{
	bus_out(BUS_PIO, port, 4, v);
}

/* Levels of wires, and how often each rose. */
static int wire_level[32];
static unsigned wire_rises[32];

static inline void wire_set(void *opaque, unsigned pin, int level)
{
	(void)opaque;
	if (level && !wire_level[pin])
		wire_rises[pin]++;
	wire_level[pin] = level;
}

static inline struct irq_line wire(unsigned pin)
{
	return (struct irq_line){.set = wire_set, .pin = pin};
}

static inline void wires_clear(void)
{
	memset(wire_level, 0, sizeof(wire_level));
	memset(wire_rises, 0, sizeof(wire_rises));
}

/* The device's state as bytes; the caller frees. */
static inline void *state_of(const struct dev_ops *ops, void *dev, size_t *len)
{
	struct state_stream *s;
	struct error err = {""};

	assert_int_equal(state_writer_create(&s, &err), 0);
	ops->state(dev, s);
	assert_int_equal(state_stream_error(s, &err), 0);
	const void *bytes = state_bytes(s, len);
	void *copy = malloc(*len ? *len : 1);
	assert_non_null(copy);
	memcpy(copy, bytes, *len);
	state_stream_destroy(s);
	return copy;
}

static inline int restore(const struct dev_ops *ops, void *dev, const void *bytes, size_t len)
{
	struct state_stream *s;
	int rc;

	assert_int_equal(state_reader_create(bytes, len, &s, NULL), 0);
	ops->state(dev, s);
	rc = state_stream_error(s, NULL);
	state_stream_destroy(s);
	return rc;
}

/* Saves `from`, and checks that `to` takes cut and damaged streams of it without a crash. */
static inline void restore_damaged(const struct dev_ops *ops, void *from, void *to)
{
	size_t len;
	uint8_t *bytes = state_of(ops, from, &len);

	for (size_t cut = 0; cut < len; cut += 1 + len / 50)
		assert_int_not_equal(restore(ops, to, bytes, cut), 0);
	for (unsigned i = 0; i < 300; i++) {
		uint8_t *bad = malloc(len);
		memcpy(bad, bytes, len);
		for (unsigned k = 0; k < 1 + i % 8; k++)
			bad[(unsigned)rand() % len] = (uint8_t)rand();
		restore(ops, to, bad, len);
		free(bad);
		for (unsigned port = 0x40; port < 0x44; port++)
			inb(port); /* whatever is there must stand it */
		fake_time_pass(1000);
	}
	free(bytes);
}

/* The same, and that `to` saves the bytes that it was restored from, in which it is left. */
static inline void round_trip(const struct dev_ops *ops, void *from, void *to)
{
	size_t len, len2;
	uint8_t *bytes, *again;

	restore_damaged(ops, from, to);
	bytes = state_of(ops, from, &len);
	assert_int_equal(restore(ops, to, bytes, len), 0);
	again = state_of(ops, to, &len2);
	assert_int_equal(len, len2);
	assert_memory_equal(bytes, again, len);
	free(bytes);
	free(again);
}

/* Random accesses of all sizes to a range, with some time passing. */
static inline void scribble(enum bus_space space, uint64_t base, uint64_t len, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		unsigned size = 1u << (unsigned)rand() % (space == BUS_PIO ? 3 : 4);
		uint64_t addr = base + (uint64_t)rand() % len;
		if (rand() & 1)
			bus_out(space, addr, size,
				(uint64_t)rand() << 33 ^ (uint64_t)rand() << 16 ^ (uint64_t)rand());
		else
			bus_in(space, addr, size);
		if (rand() % 16 == 0)
			fake_time_pass((uint64_t)rand() % 3000000);
	}
}

#endif
