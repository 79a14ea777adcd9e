/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory that is a file's: pages are mapped a second time, come in runs and are given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "mem/mem.h"

#define MIB (UINT64_C(1) << 20)
#define CHUNK (2 * MIB)
#define RUN (MIB / 16)
enum { RAM_MIB = 65 /* the last chunk is half a one */ };

static struct mem *make(void)
{
	struct mem *m;
	struct error err;

	if (mem_create_shared(&m, RAM_MIB * MIB, &err))
		fail_msg("%s", err.text);
	return m;
}

/* The page at gpa, mapped once more. */
static uint8_t *second(struct mem *m, uint64_t gpa)
{
	enum mem_kind kind;
	uint64_t offset = 1;
	uint8_t *first = mem_page(m, gpa, true, &kind);
	int fd = mem_file(m, first, &offset);

	assert_int_equal(kind, MEM_RAM);
	assert_true(fd >= 0);
	void *p = mmap(NULL, MEM_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_ptr_not_equal(p, first);
	return p;
}

static void drop(uint8_t *page)
{
	munmap(page, MEM_PAGE_BYTES);
}

static uint64_t present(struct mem *m)
{
	struct mem_stats s;

	mem_get_stats(m, &s, true);
	return s.pages[MEM_STATE_PRESENT];
}

static void both_mappings_are_one_page(void **unused)
{
	static const uint64_t places[] = {0, 5 * MEM_PAGE_BYTES, 7 * CHUNK + MEM_PAGE_BYTES,
					  RAM_MIB * MIB - MEM_PAGE_BYTES};
	struct mem *m = make();

	(void)unused;
	for (unsigned n = 0; n < sizeof(places) / sizeof(places[0]); n++) {
		uint64_t gpa = places[n], word = 0x1234567890 + n, back;
		uint8_t *page = second(m, gpa);
		mem_write(m, gpa + 80, &word, 8);
		assert_memory_equal(page + 80, &word, 8);
		word = ~word;
		memcpy(page + 160, &word, 8);
		mem_read(m, gpa + 160, &back, 8);
		assert_int_equal(back, word);
		drop(page);
	}
	mem_destroy(m);
}

static void only_ram_of_a_file_is_told(void **unused)
{
	static const uint8_t image[MEM_PAGE_BYTES];
	struct mem *m = make(), *private;
	enum mem_kind kind;
	struct error err;
	uint64_t offset;

	(void)unused;
	mem_add_rom(m, MEM_LOW_MAX, image, sizeof(image), &err);
	assert_int_equal(mem_file(m, mem_page(m, MEM_LOW_MAX, false, &kind), &offset), -1);
	assert_int_equal(kind, MEM_ROM);
	assert_int_equal(mem_file(m, &err, &offset), -1);
	mem_destroy(m);
	assert_int_equal(mem_create(&private, MIB, &err), 0);
	assert_int_equal(mem_file(private, mem_page(private, 0, true, &kind), &offset), -1);
	mem_destroy(private);
}

static void discarded_pages_are_zero_in_both(void **unused)
{
	struct mem_range r = {3 * MEM_PAGE_BYTES, MEM_PAGE_BYTES};
	struct mem *m = make();
	uint64_t word = UINT64_MAX, back = 1;
	uint8_t *page = second(m, r.gpa), *near = second(m, r.gpa + r.len);

	(void)unused;
	mem_write(m, r.gpa, &word, 8);
	mem_write(m, r.gpa + r.len, &word, 8);
	assert_int_equal(mem_discard(m, &r, 1, false, NULL, NULL), 0);
	assert_int_equal(*(uint64_t *)(void *)page, 0);
	mem_read(m, r.gpa, &back, 8);
	assert_int_equal(back, 0);
	assert_int_equal(*(uint64_t *)(void *)near, word);
	/* It is one page again. */
	mem_write(m, r.gpa, &word, 8);
	assert_int_equal(*(uint64_t *)(void *)page, word);
	drop(page);
	drop(near);
	mem_destroy(m);
}

static void what_is_discarded_is_the_hosts(void **unused)
{
	struct mem_range all = {0, RAM_MIB * MIB}, odd[2 * RAM_MIB];
	struct mem *m = make();
	uint64_t full;
	char byte = 1;

	(void)unused;
	for (uint64_t gpa = 0; gpa < RAM_MIB * MIB; gpa += MEM_PAGE_BYTES)
		mem_write(m, gpa, &byte, 1);
	full = mem_resident_bytes(m);
	assert_int_equal(full, RAM_MIB * MIB);
	for (unsigned n = 0; n < 2 * RAM_MIB; n++)
		odd[n] = (struct mem_range){n * MIB / 2 + MEM_PAGE_BYTES, 17 * MEM_PAGE_BYTES};
	assert_int_equal(mem_discard(m, odd, 2 * RAM_MIB, true, NULL, NULL), 0);
	assert_int_equal(mem_resident_bytes(m), full - sizeof(odd) / sizeof(odd[0]) * 17 * 4096);
	assert_int_equal(mem_discard(m, &all, 1, false, NULL, NULL), 0);
	assert_int_equal(mem_resident_bytes(m), 0);
	assert_int_equal(present(m), 0);
	mem_destroy(m);
}

/* A run of 64 KiB comes with its first page, and soon after, where the memory thread runs, a huge page. */
static void more_comes_with_the_first_page(void **unused)
{
	struct mem_range chunk = {4 * CHUNK, CHUNK}, part = {CHUNK, 3 * RUN};
	struct mem *m = make();
	char byte = 1;

	(void)unused;
	mem_write(m, 4 * CHUNK + 9 * MEM_PAGE_BYTES, &byte, 1);
	if (mem_resident_bytes(m) == MEM_PAGE_BYTES) {
		print_message("skipped: the host brings in no pages at once\n");
		mem_destroy(m);
		skip();
	}
	assert_int_equal(mem_resident_bytes(m), RUN);
	assert_int_equal(present(m), 1);
	mem_write(m, RAM_MIB * MIB - 1, &byte, 1);
	assert_int_equal(mem_resident_bytes(m), 2 * RUN);
	/* All of a run has left: it comes as a whole again; but not where a page is in the balloon. */
	assert_int_equal(mem_discard(m, &chunk, 1, false, NULL, NULL), 0);
	mem_write(m, 4 * CHUNK, &byte, 1);
	assert_int_equal(mem_resident_bytes(m), 2 * RUN);
	assert_int_equal(mem_discard(m, &part, 1, true, NULL, NULL), 0);
	mem_write(m, CHUNK, &byte, 1);
	assert_int_equal(mem_resident_bytes(m), 2 * RUN + MEM_PAGE_BYTES);
	assert_int_equal(present(m), 3);
	mem_destroy(m);
}

static void chunks_become_huge(void **unused)
{
	struct mem_config c = {0};
	struct mem_range part = {CHUNK, RUN};
	struct mem *m = make();
	struct error err;
	char byte = 1, back;
	unsigned ms = 0;

	(void)unused;
	assert_int_equal(mem_start(m, &c, &err), 0);
	for (uint64_t gpa = 0; gpa < RAM_MIB * MIB; gpa += CHUNK)
		mem_write(m, gpa + RUN, &byte, 1);
	/* All but the last, which is half a one. */
	while (mem_resident_bytes(m) < (RAM_MIB - 1) * MIB + RUN && ms++ < 5000)
		usleep(1000);
	if (mem_resident_bytes(m) < (RAM_MIB - 1) * MIB + RUN) {
		print_message("skipped: the host gives no huge pages for files\n");
		mem_destroy(m);
		skip();
	}
	assert_int_equal(present(m), RAM_MIB / 2 + 1);
	for (uint64_t gpa = 0; gpa < RAM_MIB * MIB; gpa += CHUNK) {
		mem_read(m, gpa + RUN, &back, 1);
		assert_int_equal(back, 1);
	}
	/* A part of one leaves. */
	mem_write(m, CHUNK, &byte, 1);
	assert_int_equal(mem_discard(m, &part, 1, true, NULL, NULL), 0);
	for (ms = 0; present(m) > RAM_MIB / 2 + 1 && ms < 5000; ms++)
		usleep(1000);
	mem_read(m, CHUNK, &back, 1);
	assert_int_equal(back, 0);
	mem_read(m, CHUNK + RUN, &back, 1);
	assert_int_equal(back, 1);
	mem_destroy(m);
}

/* Memory that is not the guest's, and what is in it. */
static void others_get_huge_pages_ahead(void **unused)
{
	struct mem_config c = {0};
	struct mem *m = make();
	struct error err;
	unsigned char in_core[CHUNK / MEM_PAGE_BYTES];
	uint8_t *area = mmap(NULL, 2 * CHUNK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *at = area + -(uintptr_t)area % CHUNK;
	unsigned there = 0;

	(void)unused;
	assert_ptr_not_equal(area, MAP_FAILED);
	assert_ptr_equal(mmap(at, CHUNK, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 at);
	at[CHUNK / 2] = 7;
	assert_int_equal(mem_start(m, &c, &err), 0);
	mem_ask_huge(m, at);
	for (unsigned ms = 0; there < CHUNK / MEM_PAGE_BYTES && ms < 5000; ms++) {
		usleep(1000);
		assert_int_equal(mincore(at, CHUNK, in_core), 0);
		there = 0;
		for (unsigned n = 0; n < CHUNK / MEM_PAGE_BYTES; n++)
			there += in_core[n] & 1;
	}
	assert_int_equal(at[CHUNK / 2], 7);
	mem_destroy(m);
	munmap(area, 2 * CHUNK);
	if (there < CHUNK / MEM_PAGE_BYTES) {
		print_message("skipped: the host gives no huge pages for shared memory\n");
		skip();
	}
}

static void nothing_more_comes_under_a_limit(void **unused)
{
	struct mem_config c = {.limit_bytes = 16 * MIB};
	struct mem *m = make();
	struct error err;
	char byte = 1;

	(void)unused;
	assert_false(mem_has_limit(m));
	assert_int_equal(mem_start(m, &c, &err), 0);
	assert_true(mem_has_limit(m));
	for (uint64_t gpa = 0; gpa < RAM_MIB * MIB; gpa += CHUNK)
		mem_write(m, gpa, &byte, 1);
	assert_int_equal(mem_resident_bytes(m), present(m) * MEM_PAGE_BYTES);
	mem_set_limit(m, 0);
	assert_true(mem_has_limit(m));
	mem_destroy(m);
}

/* Where a file cannot be had, memory is private. */
static void limit_on_files_is_no_obstacle(void **unused)
{
	struct rlimit old, small;
	enum mem_kind kind;
	uint64_t offset;

	(void)unused;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = MIB;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	struct mem *m = make();
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(mem_file(m, mem_page(m, 0, true, &kind), &offset), -1);
	mem_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_mappings_are_one_page),
		cmocka_unit_test(only_ram_of_a_file_is_told),
		cmocka_unit_test(discarded_pages_are_zero_in_both),
		cmocka_unit_test(what_is_discarded_is_the_hosts),
		cmocka_unit_test(more_comes_with_the_first_page),
		cmocka_unit_test(chunks_become_huge),
		cmocka_unit_test(others_get_huge_pages_ahead),
		cmocka_unit_test(nothing_more_comes_under_a_limit),
		cmocka_unit_test(limit_on_files_is_no_obstacle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
