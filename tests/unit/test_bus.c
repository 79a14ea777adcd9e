/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "dev_test.h"

struct probe {
	unsigned calls;
	uint64_t offset[8], value[8];
	unsigned size[8];
	uint64_t answer;
};

static void probe_fn(void *opaque, struct bus_access *a)
{
	struct probe *p = opaque;

	if (p->calls < 8) {
		p->offset[p->calls] = a->offset;
		p->size[p->calls] = a->size;
		p->value[p->calls] = a->value;
	}
	p->calls++;
	if (!a->write)
		a->value = p->answer;
}

static int map(enum bus_space space, uint64_t base, uint64_t len, struct probe *p, const char *name)
{
	return bus_map(test_bus, &(struct bus_range){space, base, len, probe_fn, p, name});
}

static int setup(void **state)
{
	(void)state;
	return bus_create(&test_bus, NULL);
}

static int teardown(void **state)
{
	(void)state;
	bus_destroy(test_bus);
	return 0;
}

static void test_unmapped(void **state)
{
	struct bus_access a = {.addr = 0x80, .size = 4};

	(void)state;
	assert_null(bus_access(test_bus, BUS_PIO, &a));
	assert_int_equal(a.value, 0xffffffff);
	assert_int_equal(bus_in(BUS_MMIO, UINT64_MAX - 2, 8), UINT64_MAX);
	outl(0x80, 1);
}

static void test_lookup_and_sizes(void **state)
{
	struct probe p = {.answer = 0x1122334455667788}, q = {.answer = 0x99};

	(void)state;
	assert_int_equal(map(BUS_PIO, 0x3f8, 8, &p, "p"), 0);
	assert_int_equal(map(BUS_MMIO, 0x3f8, 8, &q, "q"), 0);
	assert_int_equal(inb(0x3fd), 0x88);
	assert_int_equal(p.offset[0], 5);
	assert_int_equal(bus_in(BUS_PIO, 0x3f8, 2), 0x7788);
	assert_int_equal(bus_in(BUS_MMIO, 0x3f8, 1), 0x99);
	bus_out(BUS_PIO, 0x3f9, 1, 0x1234); /* only size bytes count */
	assert_int_equal(p.value[2], 0x34);
	bus_unmap(test_bus, BUS_PIO, 0x3f8, &q); /* not q's */
	assert_int_equal(inb(0x3f8), 0x88);
	bus_unmap(test_bus, BUS_PIO, 0x3f8, &p);
	assert_int_equal(inb(0x3f8), 0xff);
	assert_int_equal(bus_in(BUS_MMIO, 0x3f8, 1), 0x99);
}

static void test_bad_ranges(void **state)
{
	struct probe p = {0};

	(void)state;
	assert_int_equal(map(BUS_PIO, 0xfffe, 4, &p, "p"), -EINVAL);
	assert_int_equal(map(BUS_PIO, 0xfffc, 4, &p, "p"), 0);
	assert_int_equal(map(BUS_MMIO, 0x1000, 0, &p, "p"), -EINVAL);
	assert_int_equal(map(BUS_MMIO, UINT64_MAX - 10, 12, &p, "p"), -EINVAL);
	assert_int_equal(bus_map(test_bus, &(struct bus_range){BUS_MMIO, 0, 1, NULL, NULL, ""}),
			 -EINVAL);
}

/* An access over the ends of ranges and over gaps is split there. */
static void test_straddling(void **state)
{
	struct probe p = {.answer = 0xa1a2a3a4}, q = {.answer = 0xb1b2b3b4};

	(void)state;
	map(BUS_MMIO, 0x1000, 6, &p, "p");
	map(BUS_MMIO, 0x1007, 9, &q, "q");
	assert_int_equal(bus_in(BUS_MMIO, 0x1004, 8), 0x00b1b2b3b4ffa3a4);
	assert_int_equal(p.offset[0], 4);
	assert_int_equal(p.size[0], 2);
	assert_int_equal(q.offset[0], 0);
	assert_int_equal(q.size[0], 5);
	bus_out(BUS_MMIO, 0x1004, 8, 0x8877665544332211);
	assert_int_equal(p.value[1], 0x2211);
	assert_int_equal(q.value[1], 0x8877665544);
}

static void test_overlap(void **state)
{
	struct probe p = {.answer = 1}, q = {.answer = 2}, r = {.answer = 3};

	(void)state;
	map(BUS_MMIO, 0x1000, 0x1000, &p, "p");
	map(BUS_MMIO, 0x1800, 0x100, &q, "q");
	map(BUS_MMIO, 0x1000, 0x900, &r, "r");
	assert_int_equal(bus_in(BUS_MMIO, 0x1850, 1), 3);
	bus_unmap(test_bus, BUS_MMIO, 0x1000, &r);
	assert_int_equal(bus_in(BUS_MMIO, 0x1850, 1), 2);
	assert_int_equal(bus_in(BUS_MMIO, 0x1900, 1), 1);
	assert_int_equal(p.offset[0],
			 0x900); /* of its own range, though its segment starts later */
	bus_unmap(test_bus, BUS_MMIO, 0x1000, &p);
	assert_int_equal(bus_in(BUS_MMIO, 0x1850, 1), 2);
	assert_int_equal(bus_in(BUS_MMIO, 0x1900, 1), 0xff);
}

static void count_range(void *opaque, const struct bus_range *r)
{
	uint64_t *seen = opaque;

	assert_true(r->base >= seen[1]);
	seen[0]++;
	seen[1] = r->base;
}

static void test_each(void **state)
{
	struct probe p[40] = {0};
	uint64_t seen[2] = {0};

	(void)state;
	for (unsigned i = 0; i < 40; i++)
		map(BUS_MMIO, (i * 7 % 40) * 0x1000, 0x800, &p[i], "p");
	bus_each(test_bus, count_range, seen);
	assert_int_equal(seen[0], 40);
}

/* Enough ranges to outgrow the table, against a plain map of bytes. */
static void test_against_model(void **state)
{
	static struct probe p[300];
	static int owner[4096];
	struct {
		uint64_t base, len;
	} at[300] = {{0}};

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		p[i].answer = i & 0xff;
		at[i].base = (unsigned)rand() % 4000;
		at[i].len = 1 + (unsigned)rand() % 96;
		map(BUS_MMIO, at[i].base, at[i].len, &p[i], "p");
	}
	for (unsigned i = 0; i < 300; i += 3) {
		bus_unmap(test_bus, BUS_MMIO, at[i].base, &p[i]);
		at[i].len = 0;
	}
	for (unsigned a = 0; a < 4096; a++) {
		owner[a] = 0xff;
		for (unsigned i = 0; i < 300; i++)
			if (a - at[i].base < at[i].len)
				owner[a] = i & 0xff;
	}
	for (unsigned a = 0; a < 4096; a++)
		assert_int_equal(bus_in(BUS_MMIO, a, 1), owner[a]);
}

static atomic_bool stop;

static void *reader(void *opaque)
{
	(void)opaque;
	while (!stop) {
		uint64_t v = bus_in(BUS_MMIO, 0x5000, 1);
		assert_true(v == 0x11 || v == 0x22);
	}
	return NULL;
}

/* A reader never sees anything but one of the two ranges, while others come and go. */
static void test_concurrent(void **state)
{
	static struct probe base = {.answer = 0x11}, over = {.answer = 0x22}, more[200];
	pthread_t t;

	(void)state;
	map(BUS_MMIO, 0x5000, 0x100, &base, "base");
	stop = false;
	assert_int_equal(pthread_create(&t, NULL, reader, NULL), 0);
	for (unsigned i = 0; i < 200; i++) {
		map(BUS_MMIO, 0x5000, 8, &over, "over");
		map(BUS_MMIO, i * 0x10, 8, &more[i], "more");
		bus_unmap(test_bus, BUS_MMIO, 0x5000, &over);
	}
	stop = true;
	pthread_join(t, NULL);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_unmapped),      T(test_lookup_and_sizes), T(test_bad_ranges),
		T(test_straddling),    T(test_overlap),		 T(test_each),
		T(test_against_model), T(test_concurrent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
