/* SPDX-License-Identifier: Apache-2.0 */
/* Page walks that are only looked at, over tables made by hand in every mode of paging, broken ones too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "mmu/look.h"
#include "mmu/walk.h"

enum { RAM = 8 << 20, ROOT = 0x1000, A = 0x2000, B = 0x3000, C = 0x4000 };
#define P UINT64_C(1)
#define W UINT64_C(2)
#define U UINT64_C(4)
#define ACC UINT64_C(0x20)
#define DIRTY UINT64_C(0x40)
#define PS UINT64_C(0x80)
#define G UINT64_C(0x100)
#define NX (UINT64_C(1) << 63)

static struct mem *mem;
static struct mmu_look l;

static const struct mmu_mode off,
	bits32 = {.cr0 = CR0_PE | CR0_PG, .cr3 = ROOT, .cr4 = CR4_PSE},
	pae = {.cr0 = CR0_PE | CR0_PG, .cr3 = ROOT, .cr4 = CR4_PAE, .efer = EFER_NXE},
	long4 = {.cr0 = CR0_PE | CR0_PG,
		 .cr3 = ROOT,
		 .cr4 = CR4_PAE | CR4_PGE,
		 .efer = EFER_LME | EFER_LMA | EFER_NXE};

static int set_up(void **state)
{
	(void)state;
	return mem_create(&mem, RAM, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	mem_destroy(mem);
	return 0;
}

static void put8(uint64_t table, unsigned index, uint64_t entry)
{
	assert_int_equal(mem_write(mem, table + index * 8, &entry, 8), 0);
}

static void put4(uint64_t table, unsigned index, uint32_t entry)
{
	assert_int_equal(mem_write(mem, table + index * 4, &entry, 4), 0);
}

static void look(const struct mmu_mode *mode, uint64_t gva)
{
	mmu_look(mem, mode, gva, &l);
}

static bool has_flag(unsigned level, const char *name)
{
	const char *names[MMU_LOOK_FLAGS];
	unsigned n = mmu_look_flags(&l, level, names);

	for (unsigned k = 0; k < n; k++)
		if (!strcmp(names[k], name))
			return true;
	return false;
}

/* What the walk of the engines says about the same address. */
static void same_as_walk(const struct mmu_mode *mode, uint64_t gva)
{
	struct cpu_state s = {
		.cr0 = mode->cr0, .cr3 = mode->cr3, .cr4 = mode->cr4, .efer = mode->efer};
	struct mmu_page page;
	uint32_t error;

	mmu_load_pdptes(mem, mode->cr3, s.pdpte);
	look(mode, gva);
	int r = mmu_walk(mem, &s, gva, MMU_READ, MMU_KERNEL_USER, &page, &error);
	assert_int_equal(r == 0, l.end == MMU_LOOK_MAPPED);
	if (r == 0) {
		assert_int_equal(page.gpa, l.gpa);
		assert_int_equal(page.page_shift, l.page_shift);
		assert_int_equal(page.executable, l.executable);
		assert_int_equal(page.global, l.global);
	} else {
		assert_int_equal(!!(error & PF_RSVD), l.end == MMU_LOOK_RESERVED);
	}
}

static void test_off(void **state)
{
	(void)state;
	look(&off, 0x123456);
	assert_int_equal(l.end, MMU_LOOK_MAPPED);
	assert_int_equal(l.paging, MMU_PAGING_OFF);
	assert_int_equal(l.levels, 0);
	assert_int_equal(l.gpa, 0x123456);
	look(&off, UINT64_C(0x100000000));
	assert_int_equal(l.end, MMU_LOOK_TOO_HIGH);
}

static void test_4level(void **state)
{
	const uint64_t gva = UINT64_C(0xffff8081c0603abc); /* indices 257, 7, 3, 3 */

	(void)state;
	put8(ROOT, 257, A | P | W | ACC);
	put8(A, 7, B | P | W | ACC);
	put8(B, 3, C | P | W | U | ACC);
	put8(C, 3, 0x777000 | P | W | U | ACC | DIRTY | G | NX | 0x200);
	look(&long4, gva);
	assert_int_equal(l.end, MMU_LOOK_MAPPED);
	assert_int_equal(l.levels, 4);
	assert_int_equal(l.gpa, 0x777abc);
	assert_int_equal(l.page_shift, 12);
	assert_true(l.writable && !l.user && !l.executable && l.global && l.accessed && l.dirty);
	static const char *const names[] = {"PML4", "PDPT", "PD", "PT"};
	static const unsigned index[] = {257, 7, 3, 3};
	static const uint64_t table[] = {ROOT, A, B, C};
	for (unsigned k = 0; k < 4; k++) {
		assert_string_equal(l.level[k].name, names[k]);
		assert_int_equal(l.level[k].index, index[k]);
		assert_int_equal(l.level[k].table, table[k]);
		assert_int_equal(l.level[k].at, table[k] + 8 * index[k]);
		assert_int_equal(l.level[k].maps, k == 3);
		assert_int_equal(l.level[k].same_as, -1);
		assert_true(has_flag(k, "present") && has_flag(k, "writable"));
	}
	assert_true(has_flag(3, "dirty") && has_flag(3, "global") && has_flag(3, "no-execute"));
	assert_true(has_flag(3, "software-9") && !has_flag(2, "dirty") && !has_flag(0, "user"));
	same_as_walk(&long4, gva);
}

static void test_4level_large(void **state)
{
	(void)state;
	put8(ROOT, 0, A | P | W | U);
	put8(A, 0, B | P | W | U);
	put8(B, 1, 0x600000 | P | U | PS | 0x1000);
	put8(A, 1, UINT64_C(0x40000000) | P | W | U | PS);
	look(&long4, 0x234567);
	assert_int_equal(l.end, MMU_LOOK_MAPPED);
	assert_int_equal(l.levels, 3);
	assert_int_equal(l.page_shift, 21);
	assert_int_equal(l.gpa, 0x634567);
	assert_true(l.user && !l.writable && l.executable);
	assert_true(has_flag(2, "large-page") && has_flag(2, "PAT"));
	same_as_walk(&long4, 0x234567);
	look(&long4, 0x7654321f);
	assert_int_equal(l.levels, 2);
	assert_int_equal(l.page_shift, 30);
	assert_int_equal(l.gpa, 0x7654321f);
	same_as_walk(&long4, 0x7654321f);
}

static void test_pae(void **state)
{
	const uint32_t gva = 0xc0205123; /* indices 3, 1, 5 */
	struct mmu_mode mode = pae;

	(void)state;
	put8(ROOT, 3, A | P);
	put8(A, 1, B | P | W | U);
	put8(B, 5, 0x123000 | P | U | NX);
	look(&pae, gva);
	assert_int_equal(l.end, MMU_LOOK_MAPPED);
	assert_int_equal(l.paging, MMU_PAGING_PAE);
	assert_int_equal(l.levels, 3);
	assert_int_equal(l.gpa, 0x123123);
	assert_true(!l.writable && l.user && !l.executable);
	same_as_walk(&pae, gva);
	/* The registers count, once they are known, not what lies in memory. */
	mode.pdptes_known = true;
	mode.pdpte[3] = C | P;
	look(&mode, gva);
	assert_int_equal(l.end, MMU_LOOK_NOT_PRESENT);
	assert_int_equal(l.levels, 2);
	assert_true(l.level[0].from_pdpte);
	assert_int_equal(l.level[1].table, C);
	put8(A, 2, 0x400000 | P | PS);
	look(&pae, 0xc0400111);
	assert_int_equal(l.page_shift, 21);
	assert_int_equal(l.gpa, 0x400111);
	same_as_walk(&pae, 0xc0400111);
	put8(ROOT, 3, A | P | W);
	look(&pae, gva);
	assert_int_equal(l.end, MMU_LOOK_RESERVED);
	assert_int_equal(l.level[0].reserved, W);
	assert_int_equal(l.levels, 1);
}

static void test_32(void **state)
{
	struct mmu_mode no_pse = bits32;

	(void)state;
	put4(ROOT, 0x300, A | P | W | U);
	put4(A, 0x45, 0x321000 | P | W);
	look(&bits32, 0xc0045678);
	assert_int_equal(l.end, MMU_LOOK_MAPPED);
	assert_int_equal(l.paging, MMU_PAGING_32);
	assert_int_equal(l.levels, 2);
	assert_int_equal(l.gpa, 0x321678);
	assert_true(l.writable && !l.user && l.executable);
	same_as_walk(&bits32, 0xc0045678);
	/* PSE, with bits 32 to 39 of the address in bits 13 to 20 */
	put4(ROOT, 1, 0x400000 | 5 << 13 | P | U | PS);
	look(&bits32, 0x7ffabc);
	assert_int_equal(l.page_shift, 22);
	assert_int_equal(l.gpa, UINT64_C(0x5007ffabc));
	same_as_walk(&bits32, 0x7ffabc);
	put4(ROOT, 1, 0x400000 | 1 << 21 | P | PS);
	look(&bits32, 0x7ffabc);
	assert_int_equal(l.end, MMU_LOOK_RESERVED);
	same_as_walk(&bits32, 0x7ffabc);
	/* Without CR4.PSE it is an ordinary entry. */
	no_pse.cr4 = 0;
	put4(ROOT, 1, A | P | PS);
	put4(A, 0x3ff, 0x9000 | P);
	look(&no_pse, 0x7ffabc);
	assert_int_equal(l.end, MMU_LOOK_MAPPED);
	assert_int_equal(l.gpa, 0x9abc);
	same_as_walk(&no_pse, 0x7ffabc);
}

static void test_not_present(void **state)
{
	(void)state;
	put8(ROOT, 0, A | P);
	put8(A, 0, B | P);
	put8(B, 0, UINT64_C(0xdead000)); /* as a kernel leaves its own notes */
	look(&long4, 0x1000);
	assert_int_equal(l.end, MMU_LOOK_NOT_PRESENT);
	assert_int_equal(l.levels, 3);
	assert_int_equal(l.level[2].entry, 0xdead000);
	assert_false(has_flag(2, "present"));
	assert_false(l.writable || l.user || l.executable);
	same_as_walk(&long4, 0x1000);
}

static void test_reserved(void **state)
{
	static const struct {
		unsigned level;
		uint64_t bits;
	} cases[] = {
		{0, PS},
		{0, UINT64_C(1) << 40},
		{1, UINT64_C(1) << 51},
		{1, PS | UINT64_C(1) << 13},
		{2, PS | UINT64_C(1) << 20},
		{3, UINT64_C(1) << 45},
	};
	static const uint64_t table[] = {ROOT, A, B, C};

	(void)state;
	for (unsigned k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		uint64_t next[] = {A | P, B | P, C | P, 0x5000 | P};
		next[cases[k].level] |= cases[k].bits;
		for (unsigned n = 0; n < 4; n++)
			put8(table[n], 0, next[n]);
		look(&long4, 0);
		assert_int_equal(l.end, MMU_LOOK_RESERVED);
		assert_int_equal(l.levels, cases[k].level + 1);
		/* PS is reserved in a PML4E only. */
		uint64_t wrong = cases[k].bits & ~(cases[k].level ? PS : 0);
		assert_int_equal(l.level[cases[k].level].reserved & cases[k].bits, wrong);
		same_as_walk(&long4, 0);
	}
	/* NX without EFER.NXE */
	struct mmu_mode mode = long4;
	mode.efer &= ~EFER_NXE;
	put8(ROOT, 0, A | P | NX);
	look(&mode, 0);
	assert_int_equal(l.end, MMU_LOOK_RESERVED);
	assert_int_equal(l.level[0].reserved, NX);
}

static void test_loop(void **state)
{
	(void)state;
	/* The table contains itself; the walk is as long as any, and says so. */
	put8(ROOT, 0, ROOT | P | W);
	look(&long4, 0x123);
	assert_int_equal(l.end, MMU_LOOK_MAPPED);
	assert_int_equal(l.gpa, ROOT | 0x123);
	for (int k = 1; k < 4; k++)
		assert_true(l.level[k].same_as >= 0 && l.level[k].same_as < k);
	same_as_walk(&long4, 0x123);
}

static void test_outside(void **state)
{
	struct mmu_mode mode = long4;

	(void)state;
	put8(ROOT, 0, UINT64_C(0x7f00000000) | P);
	look(&long4, 0);
	assert_int_equal(l.end, MMU_LOOK_OUTSIDE);
	assert_int_equal(l.levels, 2);
	assert_false(l.level[1].readable);
	assert_int_equal(l.level[1].table, UINT64_C(0x7f00000000));
	/* CR3 itself, right behind the last page, too */
	mode.cr3 = RAM;
	look(&mode, 0);
	assert_int_equal(l.end, MMU_LOOK_OUTSIDE);
	assert_int_equal(l.levels, 1);
	mode.cr3 = UINT64_C(0xfffffffffffff000);
	look(&mode, 0);
	assert_int_equal(l.end, MMU_LOOK_OUTSIDE);
	mode = bits32;
	mode.cr3 = 0xfffff000;
	look(&mode, 0xffffffff);
	assert_int_equal(l.end, MMU_LOOK_OUTSIDE);
}

static void test_addresses(void **state)
{
	(void)state;
	look(&long4, UINT64_C(0x0000800000000000));
	assert_int_equal(l.end, MMU_LOOK_NOT_CANONICAL);
	assert_int_equal(l.levels, 0);
	look(&long4, UINT64_C(0x00007fffffffffff));
	assert_int_equal(l.end, MMU_LOOK_NOT_PRESENT);
	look(&long4, UINT64_C(0xffff800000000000));
	assert_int_equal(l.end, MMU_LOOK_NOT_PRESENT);
	look(&pae, UINT64_C(0x100000000));
	assert_int_equal(l.end, MMU_LOOK_TOO_HIGH);
}

static unsigned present(void)
{
	struct mem_stats s;

	mem_get_stats(mem, &s, true);
	return (unsigned)s.pages[MEM_STATE_PRESENT];
}

static void test_changes_nothing(void **state)
{
	uint64_t before[4], after[4];
	static const uint64_t at[] = {ROOT, A, B, C};
	char text[8192];

	(void)state;
	put8(ROOT, 0, A | P);
	put8(A, 0, B | P);
	put8(B, 0, C | P);
	put8(C, 0, 0x100000 | P);
	for (unsigned k = 0; k < 4; k++)
		mem_read(mem, at[k], &before[k], 8);
	unsigned pages = present();
	look(&long4, 0);
	look(&long4, 0x200000000);
	/* Nobody has touched what is mapped, and looking does not. */
	put8(C, 1, 0x300000 | P);
	assert_int_equal(mmu_look_virt(mem, &long4, 0x123, text, 0x1f00 - 0x123), 0);
	assert_int_equal(text[0], 0);
	assert_int_equal(present(), pages);
	for (unsigned k = 0; k < 4; k++) {
		mem_read(mem, at[k], &after[k], 8);
		assert_int_equal(before[k], after[k]);
	}
}

static void test_virt(void **state)
{
	char got[64];

	(void)state;
	put8(ROOT, 0, A | P);
	put8(A, 0, B | P);
	put8(B, 0, C | P);
	put8(C, 0, 0x100000 | P);
	put8(C, 1, 0x300000 | P);
	/* Across two pages that are not neighbours */
	mem_write(mem, 0x100ff8, "01234567", 8);
	mem_write(mem, 0x300000, "89abcdef", 8);
	assert_int_equal(mmu_look_virt(mem, &long4, 0xff8, got, 16), 0);
	assert_memory_equal(got, "0123456789abcdef", 16);
	assert_int_equal(mmu_look_virt(mem, &long4, 0x1ff8, got, 16), -EFAULT);
	assert_int_equal(mmu_look_phys(mem, RAM - 8, got, 8), 0);
	assert_int_equal(mmu_look_phys(mem, RAM - 8, got, 16), -EFAULT);
	assert_int_equal(mmu_look_phys(mem, UINT64_MAX - 4, got, 16), -EFAULT);
	assert_int_equal(mmu_look_virt(mem, &long4, UINT64_MAX - 4, got, 16), -EFAULT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_off, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_4level, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_4level_large, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pae, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_32, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_not_present, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reserved, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_loop, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_outside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_changes_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_virt, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
