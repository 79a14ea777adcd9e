/* SPDX-License-Identifier: Apache-2.0 */
/* mem/mem.h: the layout around the hole, checked accessors, ROM, frugality. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "mem/mem.h"
#include "mem_kinds.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct mem *make(uint64_t bytes)
{
	struct mem *m;
	struct error err = {0};

	if (create_mem(&m, bytes, &err))
		fail_msg("%s", err.text);
	return m;
}

static void sizes_are_checked(void **state)
{
	static const uint64_t wrong[] = {0,	  4096,	     MIB - 1,	 MIB + 4096,
					 1 << 19, 600 * GIB, UINT64_MAX, UINT64_MAX - MIB + 1};
	struct mem *m;

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct error err = {0};
		assert_int_equal(mem_create(&m, wrong[i], &err), -EINVAL);
		assert_null(m);
		assert_non_null(strstr(err.text, "MiB"));
	}
}

static void small_ram_is_all_low(void **state)
{
	struct mem *m = make(16 * MIB);
	enum mem_kind kind;
	uint32_t word = 0xfeedbeef, back = 0;

	(void)state;
	assert_int_equal(mem_ram_bytes(m), 16 * MIB);
	assert_int_equal(mem_low_bytes(m), 16 * MIB);
	assert_int_equal(mem_high_bytes(m), 0);
	assert_int_equal(mem_write(m, 16 * MIB - 4, &word, 4), 0);
	assert_int_equal(mem_read(m, 16 * MIB - 4, &back, 4), 0);
	assert_int_equal(back, word);
	/* One byte too far: nothing is written. */
	word = 0;
	assert_int_equal(mem_write(m, 16 * MIB - 3, &word, 4), -EFAULT);
	assert_int_equal(mem_read(m, 16 * MIB - 4, &back, 4), 0);
	assert_int_equal(back, 0xfeedbeef);
	assert_null(mem_page(m, 16 * MIB, false, &kind));
	assert_int_equal(kind, MEM_NONE);
	assert_null(mem_page(m, MEM_HIGH_BASE, false, &kind));
	assert_non_null(mem_ptr(m, 0, 16 * MIB));
	assert_null(mem_ptr(m, 1, 16 * MIB));
	mem_destroy(m);
}

static void large_ram_goes_on_above_4g(void **state)
{
	struct mem *m = make(5 * GIB);
	enum mem_kind kind;
	uint8_t *below, *above;
	char byte = 'x';

	(void)state;
	assert_int_equal(mem_low_bytes(m), MEM_LOW_MAX);
	assert_int_equal(mem_high_bytes(m), 5 * GIB - MEM_LOW_MAX);
	below = mem_page(m, MEM_LOW_MAX - 1, false, &kind);
	assert_int_equal(kind, MEM_RAM);
	above = mem_page(m, MEM_HIGH_BASE + 17, false, &kind);
	assert_int_equal(kind, MEM_RAM);
	assert_ptr_not_equal(below, above);
	assert_null(mem_page(m, MEM_LOW_MAX, false, &kind));
	assert_null(mem_page(m, MEM_HIGH_BASE - 1, false, &kind));
	/* Across the hole nothing is contiguous. */
	assert_null(mem_ptr(m, MEM_LOW_MAX - 8, 16));
	assert_int_equal(mem_read(m, MEM_LOW_MAX - 1, &(char[2]){0}, 2), -EFAULT);
	/* High RAM is not low RAM seen twice. */
	assert_int_equal(mem_write(m, MEM_HIGH_BASE, &byte, 1), 0);
	assert_int_equal(mem_read(m, 0, &byte, 1), 0);
	assert_int_equal(byte, 0);
	mem_destroy(m);
}

static void wrapping_ranges_are_refused(void **state)
{
	struct mem *m = make(MIB);
	char buf[64] = {0};

	(void)state;
	assert_int_equal(mem_read(m, UINT64_MAX - 8, buf, 32), -EFAULT);
	assert_int_equal(mem_write(m, UINT64_MAX, buf, 2), -EFAULT);
	assert_null(mem_ptr(m, 4096, SIZE_MAX - 100));
	assert_int_equal(mem_read(m, 0, buf, 0), 0);
	mem_destroy(m);
}

static void rom_hides_what_is_below(void **state)
{
	static uint8_t image[2 * MEM_PAGE_BYTES];
	struct mem *m = make(MIB);
	enum mem_kind kind;
	uint8_t buf[8];
	struct error err;

	(void)state;
	memset(image, 0x5a, sizeof(image));
	assert_int_equal(mem_write(m, 0xf0000, "ram", 4), 0);
	assert_int_equal(mem_add_rom(m, 0xf0000, image, sizeof(image), &err), 0);
	assert_int_equal(mem_add_rom(m, 0xfffe0000, image, sizeof(image), &err), 0);

	assert_int_equal(*(uint8_t *)mem_page(m, 0xf1fff, false, &kind), 0x5a);
	assert_int_equal(kind, MEM_ROM);
	assert_int_equal(*(uint8_t *)mem_page(m, 0xfffe0000, false, &kind), 0x5a);
	mem_page(m, 0xeffff, false, &kind);
	assert_int_equal(kind, MEM_RAM);
	mem_page(m, 0xf2000, false, &kind);
	assert_int_equal(kind, MEM_RAM);

	/* Reads cross from RAM into ROM and out again; writes and DMA do not. */
	assert_int_equal(mem_read(m, 0xefffc, buf, 8), 0);
	assert_memory_equal(buf, "\0\0\0\0\x5a\x5a\x5a\x5a", 8);
	assert_int_equal(mem_read(m, 0xf1ffe, buf, 4), 0);
	assert_memory_equal(buf, "\x5a\x5a\0\0", 4);
	assert_int_equal(mem_write(m, 0xefffc, "abcdefgh", 8), -EFAULT);
	assert_int_equal(mem_read(m, 0xefffc, buf, 4), 0);
	assert_memory_equal(buf, "\0\0\0\0", 4);
	assert_null(mem_ptr(m, 0xef000, 8192));
	assert_null(mem_ptr(m, 0xf0000, 1));

	assert_int_equal(mem_add_rom(m, 0xf1000, image, sizeof(image), &err), -EINVAL);
	assert_int_equal(mem_add_rom(m, 0x800, image, sizeof(image), &err), -EINVAL);
	assert_int_equal(mem_add_rom(m, 0, image, 100, &err), -EINVAL);
	assert_int_equal(mem_add_rom(m, UINT64_MAX - 4095, image, sizeof(image), &err), -EINVAL);
	mem_destroy(m);
}

static void only_touched_pages_cost(void **state)
{
	struct mem *m = make(4 * GIB);
	char byte = 1;

	(void)state;
	assert_int_equal(mem_resident_bytes(m), 0);
	for (uint64_t i = 0; i < 10; i++)
		assert_int_equal(mem_write(m, i * 64 * MIB, &byte, 1), 0);
	/* A huge page each, where the host gives them. */
	assert_in_range(mem_resident_bytes(m), 10 * MEM_PAGE_BYTES, 10 * (2 * MIB));
	mem_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_checked),
		cmocka_unit_test(small_ram_is_all_low),
		cmocka_unit_test(large_ram_goes_on_above_4g),
		cmocka_unit_test(wrapping_ranges_are_refused),
		cmocka_unit_test(rom_hides_what_is_below),
		cmocka_unit_test(only_touched_pages_cost),
	};

	int failed = cmocka_run_group_tests_name("private", tests, set_private, NULL);

	return failed + cmocka_run_group_tests_name("of a file", tests, set_file, NULL);
}
