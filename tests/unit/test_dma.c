/* SPDX-License-Identifier: Apache-2.0 */
/* Areas of guest memory that devices hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/dma.h"
#include "pins.h"

enum { RAM = 1 << 20, PAGE = MEM_PAGE_BYTES };

static struct mem *mem;
static uint64_t told_gpa[4], told_len[4];
static unsigned told;

static void on_written(void *opaque, uint64_t gpa, uint64_t len)
{
	(void)opaque;
	if (told < 4) {
		told_gpa[told] = gpa;
		told_len[told] = len;
	}
	told++;
}

static int setup(void **state)
{
	(void)state;
	told = 0;
	assert_int_equal(mem_create(&mem, RAM, NULL), 0);
	mem_set_listener(mem, on_written, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	mem_destroy(mem);
	return 0;
}

static void test_map(void **state)
{
	struct dma_area a = {0};
	struct mem_frame f;

	(void)state;
	uint8_t *p = dma_map(mem, &a, PAGE + 100, PAGE, false);
	assert_non_null(p);
	assert_int_equal(mem_frame_at(mem, PAGE, &f), 0);
	assert_ptr_equal(p, (const uint8_t *)f.host + 100);
	assert_false(f.dirty);
	assert_int_equal(pins_of(mem, PAGE), 1);
	assert_int_equal(pins_of(mem, 2 * PAGE), 1);
	/* Another place, and one that shares a page with it: what was held before is let go. */
	assert_non_null(dma_map(mem, &a, 2 * PAGE, PAGE, true));
	assert_int_equal(pins_of(mem, PAGE), 0);
	assert_int_equal(pins_of(mem, 2 * PAGE), 1);
	assert_int_equal(mem_frame_at(mem, 2 * PAGE, &f), 0);
	assert_true(f.dirty);
	dma_unmap(mem, &a);
	dma_unmap(mem, &a);
	assert_int_equal(pinned_pages(mem), 0);
	/* What cannot be holds nothing, and lets go of what was. */
	const struct {
		uint64_t gpa;
		size_t bytes;
	} bad[] = {{RAM - 8, 16}, {RAM, 1}, {0, 0}, {UINT64_MAX - 8, 16}, {0, SIZE_MAX}};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_non_null(dma_map(mem, &a, 0, 1, true));
		assert_null(dma_map(mem, &a, bad[i].gpa, bad[i].bytes, true));
		assert_null(a.host);
		assert_int_equal(pinned_pages(mem), 0);
	}
}

/* However an area was put together, each of its pages is held once. */
static void test_extend(void **state)
{
	struct dma_area a = {0};

	(void)state;
	assert_false(dma_extend(mem, &a, 0, 1, true)); /* of nothing */
	assert_non_null(dma_map(mem, &a, 100, 50, true));
	assert_false(dma_extend(mem, &a, 151, 50, true));
	assert_false(dma_extend(mem, &a, 150, 0, true));
	assert_false(dma_extend(mem, &a, 150, RAM, true));
	assert_true(dma_extend(mem, &a, 150, 50, true));
	assert_true(dma_extend(mem, &a, 200, 2 * PAGE - 200, true));
	assert_true(dma_extend(mem, &a, 2 * PAGE, 1, true));
	assert_int_equal(a.bytes, 2 * PAGE - 100 + 1);
	assert_int_equal(all_pins(mem), 3);
	dma_unmap(mem, &a);
	assert_int_equal(all_pins(mem), 0);
}

static void test_many(void **state)
{
	struct dma_area a[3] = {{0}};
	unsigned count = 3;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_non_null(dma_map(mem, &a[i], i * 2 * PAGE, 100 + i, true));
	dma_written(mem, a, 3, 100 + 101 + 7);
	assert_int_equal(told, 3);
	assert_int_equal(told_gpa[1], 2 * PAGE);
	assert_int_equal(told_len[1], 101);
	assert_int_equal(told_len[2], 7);
	dma_written(mem, a, 3, 0);
	dma_written(mem, a, 3, 100);
	assert_int_equal(told, 4);
	dma_unmap_all(mem, a, &count);
	assert_int_equal(count, 0);
	assert_int_equal(pinned_pages(mem), 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {T(test_map), T(test_extend), T(test_many)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
