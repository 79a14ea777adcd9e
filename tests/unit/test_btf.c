/* SPDX-License-Identifier: Apache-2.0 */
/* BTF made by hand, whole and broken, and a Linux of a few pages whose processes are found by it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "control/inspect/btf.h"
#include "control/inspect/linux.h"

enum { STRUCT = 4, UNION = 5, INT = 1, PTR = 2, ENUM = 6, ENUM64 = 19 };

/* ---- making BTF ---- */

struct maker {
	uint8_t types[4096], all[8192];
	char strings[1024];
	uint32_t types_len, strings_len, count;
};

static uint32_t add_string(struct maker *m, const char *text)
{
	uint32_t at = m->strings_len;

	strcpy(m->strings + at, text);
	m->strings_len += (uint32_t)strlen(text) + 1;
	return at;
}

static void put(struct maker *m, uint32_t value)
{
	memcpy(m->types + m->types_len, &value, 4);
	m->types_len += 4;
}

/* Returns its id. */
static uint32_t add_type(struct maker *m, unsigned kind, const char *name, uint32_t vlen,
			 bool bit_fields)
{
	put(m, *name ? add_string(m, name) : 0);
	put(m, kind << 24 | vlen | (uint32_t)bit_fields << 31);
	put(m, 0);
	return ++m->count;
}

static void add_member(struct maker *m, const char *name, uint32_t type, uint32_t bits)
{
	put(m, *name ? add_string(m, name) : 0);
	put(m, type);
	put(m, bits);
}

static size_t finish(struct maker *m)
{
	const uint32_t header[] = {0x0001eb9f, 24, 0, m->types_len, m->types_len, m->strings_len};

	memcpy(m->all, header, 24);
	memcpy(m->all + 24, m->types, m->types_len);
	memcpy(m->all + 24 + m->types_len, m->strings, m->strings_len);
	return 24 + m->types_len + m->strings_len;
}

/* struct task_struct with what is asked for; mm_struct's members lie in an unnamed structure. */
static size_t kernel_btf(struct maker *m)
{
	*m = (struct maker){.strings_len = 1};
	add_type(m, INT, "int", 0, false); /* 1 */
	put(m, 0x20);
	add_type(m, STRUCT, "list_head", 2, false); /* 2 */
	add_member(m, "next", 1, 0);
	add_member(m, "prev", 1, 64);
	add_type(m, STRUCT, "task_struct", 6, true); /* 3 */
	add_member(m, "state", 1, 3 << 24 | 5);
	add_member(m, "tasks", 2, 0x100 * 8);
	add_member(m, "pid", 1, 0x200 * 8);
	add_member(m, "tgid", 1, 0x204 * 8);
	add_member(m, "comm", 1, 0x300 * 8);
	add_member(m, "mm", 1, 0x280 * 8);
	add_type(m, STRUCT, "mm_struct", 1, false); /* 4 */
	add_member(m, "", 6, 0x10 * 8);
	add_type(m, ENUM, "odd", 2, false); /* 5 */
	for (int n = 0; n < 4; n++)
		put(m, 0);
	add_type(m, STRUCT, "", 2, false); /* 6 */
	add_member(m, "mmap", 1, 0);
	add_member(m, "", 7, 64);
	add_type(m, UNION, "", 1, false); /* 7 */
	add_member(m, "pgd", 1, 0);
	return finish(m);
}

static uint32_t offset(const struct btf *b, const char *type, const char *member)
{
	uint32_t at;

	return btf_member(b, type, member, &at) == 0 ? at : UINT32_MAX;
}

static void test_members(void **state)
{
	struct maker m;
	struct btf *b;
	size_t bytes = kernel_btf(&m), said;

	(void)state;
	assert_true(btf_begins(m.all, &said));
	assert_int_equal(said, bytes);
	assert_int_equal(btf_open(&b, m.all, bytes), 0);
	assert_int_equal(offset(b, "task_struct", "tasks"), 0x100);
	assert_int_equal(offset(b, "task_struct", "comm"), 0x300);
	assert_int_equal(offset(b, "list_head", "prev"), 8);
	assert_int_equal(offset(b, "mm_struct", "pgd"), 0x18);
	assert_int_equal(offset(b, "task_struct", "state"), UINT32_MAX); /* a bit field */
	assert_int_equal(offset(b, "task_struct", "nothing"), UINT32_MAX);
	assert_int_equal(offset(b, "odd", "next"), UINT32_MAX);
	assert_int_equal(offset(b, "int", "next"), UINT32_MAX);
	assert_int_equal(offset(b, "", "pgd"), 8);
	btf_close(b);
}

/* Unnamed structures that contain each other, and themselves. */
static void test_circles(void **state)
{
	struct maker m = {.strings_len = 1};
	struct btf *b;

	(void)state;
	add_type(&m, STRUCT, "outer", 3, false);
	for (int n = 0; n < 3; n++)
		add_member(&m, "", 2, 0);
	add_type(&m, STRUCT, "", 40, false);
	for (int n = 0; n < 40; n++)
		add_member(&m, "", n % 2 ? 1 : 2, 8);
	size_t bytes = finish(&m);
	assert_int_equal(btf_open(&b, m.all, bytes), 0);
	assert_int_equal(offset(b, "outer", "x"), UINT32_MAX);
	btf_close(b);
}

static void test_broken(void **state)
{
	struct maker m;
	struct btf *b;
	size_t bytes = kernel_btf(&m), said;

	(void)state;
	/* Cut anywhere */
	for (size_t n = 0; n < bytes; n++) {
		uint8_t *cut = malloc(n ? n : 1);
		memcpy(cut, m.all, n);
		assert_int_equal(btf_open(&b, cut, n), -EINVAL);
		assert_null(b);
		free(cut);
	}
	/* Any one byte different: it ends, and what is found is within reason. */
	for (size_t n = 0; n < bytes; n++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			m.all[n] ^= 1 << bit;
			if (btf_open(&b, m.all, bytes) == 0) {
				offset(b, "task_struct", "tasks");
				offset(b, "mm_struct", "pgd");
			}
			btf_close(b);
			m.all[n] ^= 1 << bit;
		}
	}
	static const struct {
		unsigned at;
		uint32_t value;
	} headers[] = {
		{0, 0x0002eb9f},  {0, 0x0001eb9e}, {4, 20},	     {4, UINT32_MAX}, {8, 2},
		{8, UINT32_MAX},  {12, 0},	   {12, UINT32_MAX}, {12, 6},	      {16, 0},
		{16, UINT32_MAX}, {20, 0},	   {20, UINT32_MAX}, {20, 0x4000000},
	};
	for (unsigned n = 0; n < sizeof(headers) / sizeof(headers[0]); n++) {
		uint32_t old;
		memcpy(&old, m.all + headers[n].at, 4);
		memcpy(m.all + headers[n].at, &headers[n].value, 4);
		assert_false(btf_begins(m.all, &said));
		assert_int_equal(btf_open(&b, m.all, bytes), -EINVAL);
		memcpy(m.all + headers[n].at, &old, 4);
	}
	m.all[bytes - 1] = 'x'; /* the last string does not end */
	assert_int_equal(btf_open(&b, m.all, bytes), -EINVAL);
}

/* ---- a Linux of a few pages ---- */

/*
 * Virtual addresses from KERNEL on are the guest-physical ones from 0 on, in 2 MiB pages. The image has
 * its entry, BTF at an odd place and the first task; the others lie elsewhere.
 */
#define KERNEL UINT64_C(0xffff888000000000)
enum {
	RAM = 16 << 20,
	PML4 = 0x1000,
	PDPT = 0x2000,
	PD = 0x3000,
	ENTRY = 0x400000,
	BTF_AT = 0x512345,
	INIT = 0x600000,
	TASK = 0x700000, /* + 0x1000 * n */
	MM = 0x800000,
	PGD = 0x900000,
	TASKS = 5,
};

static struct mem *mem;
static struct linux_guest *guest;
static struct cpu_state cpu;
static struct linux_tasks tasks;
static struct error err;

static void put8(uint64_t gpa, uint64_t value)
{
	assert_int_equal(mem_write(mem, gpa, &value, 8), 0);
}

static void put4(uint64_t gpa, uint32_t value)
{
	assert_int_equal(mem_write(mem, gpa, &value, 4), 0);
}

static void make_task(uint64_t at, uint64_t next, uint64_t prev, uint32_t pid, const char *comm)
{
	char name[16] = "";

	memcpy(name, comm, strlen(comm));
	put8(at + 0x100, KERNEL + next + 0x100);
	put8(at + 0x108, KERNEL + prev + 0x100);
	put4(at + 0x200, pid);
	put4(at + 0x204, pid);
	mem_write(mem, at + 0x300, name, sizeof(name));
}

static uint64_t place(unsigned n)
{
	return n % (TASKS + 1) ? TASK + UINT64_C(0x1000) * (n % (TASKS + 1)) : INIT;
}

static int set_up(void **state)
{
	static const char *const names[] = {"swapper/0",	"init", "kthreadd", "sh",
					    "a-very-long-name", "sh"};
	struct maker m;

	(void)state;
	assert_int_equal(mem_create(&mem, RAM, NULL), 0);
	assert_int_equal(linux_guest_create(&guest, mem), 0);
	put8(PML4 + 0x111 * 8, PDPT | 3);
	put8(PDPT, PD | 3);
	for (unsigned n = 0; n < RAM >> 21; n++)
		put8(PD + n * 8, (uint64_t)n << 21 | 0x83);
	cpu = (struct cpu_state){.cr0 = CR0_PE | CR0_PG,
				 .cr3 = PML4,
				 .cr4 = CR4_PAE,
				 .efer = EFER_LME | EFER_LMA | EFER_NXE,
				 .lstar = KERNEL + ENTRY};
	size_t bytes = kernel_btf(&m);
	mem_write(mem, BTF_AT, m.all, bytes);
	/* Something that only looks like it comes first. */
	mem_write(mem, BTF_AT - 0x1000, m.all, 32);
	mem_write(mem, INIT - 0x800, "swapper/0\0\0\0\0\0\0", 16);
	for (unsigned n = 0; n <= TASKS; n++)
		make_task(place(n), place(n + 1), place(n + TASKS), n, names[n]);
	for (unsigned n = 1; n <= TASKS; n++) {
		if (n == 2)
			continue;
		put8(place(n) + 0x280, KERNEL + MM + n * 0x100);
		put8(MM + n * 0x100 + 0x18, KERNEL + PGD + n * 0x1000);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(tasks.list);
	tasks.list = NULL;
	linux_guest_destroy(guest);
	mem_destroy(mem);
	return 0;
}

static int look(void)
{
	free(tasks.list);
	return linux_guest_tasks(guest, &cpu, 1, &tasks, &err);
}

static void test_tasks(void **state)
{
	(void)state;
	for (unsigned again = 0; again < 2; again++) {
		assert_int_equal(look(), 0);
		assert_true(tasks.complete);
		assert_int_equal(tasks.count, TASKS);
		assert_string_equal(tasks.list[0].comm, "init");
		assert_int_equal(tasks.list[0].pid, 1);
		assert_int_equal(tasks.list[0].cr3, PGD + 0x1000);
		assert_false(tasks.list[1].has_memory);
		assert_string_equal(tasks.list[3].comm, "a-very-long-name");
	}
}

/* Page-table isolation: the vCPU is in user mode and has the table that lacks the kernel's data. */
static void test_isolation(void **state)
{
	(void)state;
	uint64_t entry = PDPT | 3;
	put8(0x10000 + 0x111 * 8, entry);
	cpu.cr3 = 0x11000; /* nothing in it; the page before has all */
	assert_int_equal(look(), 0);
	assert_int_equal(tasks.count, TASKS);
}

/* Another kernel has been booted since: nothing old is believed. */
static void test_reboot(void **state)
{
	(void)state;
	assert_int_equal(look(), 0);
	char none[16] = "";
	mem_write(mem, INIT + 0x300, none, sizeof(none));
	make_task(INIT + 0x10000, place(1), place(TASKS), 0, "swapper/0");
	put8(place(1) + 0x108, KERNEL + INIT + 0x10000 + 0x100);
	put8(place(TASKS) + 0x100, KERNEL + INIT + 0x10000 + 0x100);
	assert_int_equal(look(), 0);
	assert_true(tasks.complete);
	assert_int_equal(tasks.count, TASKS);
}

static void test_none(void **state)
{
	(void)state;
	/* No BTF, then no first task, then no long mode. */
	put4(BTF_AT, 0);
	assert_int_equal(look(), -ENOTSUP);
	assert_non_null(strstr(err.text, "no Linux kernel with BTF"));
	put4(BTF_AT, 0x0001eb9f);
	char none[16] = "";
	mem_write(mem, INIT + 0x300, none, sizeof(none));
	assert_int_equal(look(), -ENOTSUP);
	assert_non_null(strstr(err.text, "first task"));
	cpu.efer = 0;
	assert_int_equal(look(), -ENOTSUP);
	assert_non_null(strstr(err.text, "64-bit"));
	assert_null(strchr(err.text, '\n'));
}

/* Lists that go nowhere, or round and round without the first task. */
static void test_hostile_lists(void **state)
{
	static const uint64_t nexts[] = {0,
					 0x1234,
					 UINT64_MAX,
					 KERNEL + RAM,
					 KERNEL + RAM - 0x108,
					 UINT64_C(0x8000000000000000),
					 KERNEL + TASK + 0x2000 + 0x100};

	(void)state;
	for (unsigned n = 0; n < sizeof(nexts) / sizeof(nexts[0]); n++) {
		put8(place(3) + 0x100, nexts[n]);
		assert_int_equal(look(), 0);
		assert_false(tasks.complete);
		assert_in_range(tasks.count, 3, LINUX_TASKS_MAX);
	}
	/* A process with nonsense for its memory ends the list, too. */
	put8(place(3) + 0x100, KERNEL + place(4) + 0x100);
	put8(place(4) + 0x280, KERNEL + RAM);
	assert_int_equal(look(), 0);
	assert_false(tasks.complete);
	put8(place(4) + 0x280, KERNEL + MM + 4 * 0x100);
	put8(MM + 4 * 0x100 + 0x18, 0x5000);
	assert_int_equal(look(), 0);
	assert_false(tasks.complete);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_circles),
		cmocka_unit_test(test_broken),
		cmocka_unit_test_setup_teardown(test_tasks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_isolation, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reboot, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hostile_lists, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
