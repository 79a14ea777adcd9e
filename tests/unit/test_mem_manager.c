/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory under a limit: pages leave and come back, and nobody sees a wrong byte. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "mem/mem.h"
#include "mem_kinds.h"

#define MIB (UINT64_C(1) << 20)
enum { RAM_MIB = 64, LIMIT_MIB = 8, PAGES = RAM_MIB * 256 };

static char trouble[512];
static pthread_mutex_t trouble_lock = PTHREAD_MUTEX_INITIALIZER;

/* On the memory thread. */
static void note_trouble(void *opaque, const char *text)
{
	(void)opaque;
	pthread_mutex_lock(&trouble_lock);
	strncpy(trouble, text, sizeof(trouble) - 1);
	pthread_mutex_unlock(&trouble_lock);
}

/* Is it about this? NULL: is there none? */
static bool trouble_is(const char *what)
{
	pthread_mutex_lock(&trouble_lock);
	bool is = what ? strstr(trouble, what) != NULL : !trouble[0];
	pthread_mutex_unlock(&trouble_lock);
	return is;
}

static struct mem *make(uint64_t limit, const char *dir)
{
	struct mem *m;
	struct error err;
	struct mem_config c = {.limit_bytes = limit, .swap_dir = dir, .trouble = note_trouble};

	trouble[0] = 0;
	assert_int_equal(create_mem(&m, RAM_MIB * MIB, &err), 0);
	if (mem_start(m, &c, &err))
		fail_msg("%s", err.text);
	return m;
}

static uint64_t present(struct mem *m)
{
	struct mem_stats s;

	mem_get_stats(m, &s, false);
	return s.pages[MEM_STATE_PRESENT];
}

static enum mem_state state(struct mem *m, uint64_t gpa)
{
	struct mem_frame f;

	assert_int_equal(mem_frame_at(m, gpa, &f), 0);
	return f.state;
}

/* Waits until it is so, 20 seconds at the most. */
#define wait_until(condition)                                                                      \
	do {                                                                                       \
		for (int n = 0; n < 20000 && !(condition); n++)                                    \
			usleep(1000);                                                              \
		assert_true(condition);                                                            \
	} while (0)

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Page contents that follow from (page, round); some compress, some do not, some are zero. */
static void make_page(uint64_t *w, uint64_t page, uint64_t round)
{
	uint64_t key = mix(page << 20 | round);

	for (unsigned n = 0; n < 512; n++)
		w[n] = !round || key % 8 == 0 ? 0
		       : key % 8 < 5	      ? mix(key + n / 100) & 0xffff
					      : mix(key + n * UINT64_C(0x9e3779b97f4a7c15));
}

/* ---- reading and writing ---- */

static void check_page(struct mem *m, uint64_t page, uint64_t round)
{
	uint64_t want[512], is[512];

	make_page(want, page, round);
	assert_int_equal(mem_read(m, page * MEM_PAGE_BYTES, is, sizeof(is)), 0);
	assert_memory_equal(is, want, sizeof(is));
}

static void put_page(struct mem *m, uint64_t page, uint64_t round)
{
	uint64_t w[512];

	make_page(w, page, round);
	assert_int_equal(mem_write(m, page * MEM_PAGE_BYTES, w, sizeof(w)), 0);
}

static void pages_leave_and_come_back(void **unused)
{
	struct mem *m = make(LIMIT_MIB * MIB, "/tmp");
	struct mem_stats s;

	(void)unused;
	for (uint64_t p = 0; p < PAGES; p++)
		put_page(m, p, 1);
	wait_until(present(m) <= LIMIT_MIB * 256);
	for (uint64_t p = 0; p < PAGES; p++)
		check_page(m, p, 1);
	wait_until(present(m) <= LIMIT_MIB * 256);
	mem_get_stats(m, &s, true);
	assert_true(s.evicted_stored > PAGES / 2);
	assert_true(s.swap_ins + s.read_aheads + s.zero_ins > PAGES / 2);
	assert_true(s.pages[MEM_STATE_SWAPPED] > PAGES / 2);
	assert_true(s.pages[MEM_STATE_ZERO] > PAGES / 20);
	assert_int_equal(s.pages[MEM_STATE_PRESENT] + s.pages[MEM_STATE_SWAPPED] +
				 s.pages[MEM_STATE_ZERO],
			 PAGES);
	assert_true(mem_resident_bytes(m) <= (LIMIT_MIB + 2) * MIB);
	assert_true(trouble_is(NULL));
	mem_destroy(m);
}

static void limit_comes_and_goes(void **unused)
{
	struct mem *m = make(0, NULL);

	(void)unused;
	for (uint64_t p = 0; p < PAGES / 4; p++)
		put_page(m, p, 3);
	assert_int_equal(present(m), PAGES / 4);
	mem_set_limit(m, LIMIT_MIB * MIB);
	wait_until(present(m) < LIMIT_MIB * 256);
	assert_true(mem_resident_bytes(m) <= (LIMIT_MIB + 2) * MIB);
	mem_set_limit(m, 0);
	for (uint64_t p = 0; p < PAGES / 4; p++)
		check_page(m, p, 3);
	assert_true(present(m) >= PAGES / 4);
	mem_destroy(m);
}

/* A lower limit lowers what compressed pages may take, too. */
static void store_follows_the_limit(void **unused)
{
	struct mem *m = make(32 * MIB, "/tmp");
	struct mem_stats s;

	(void)unused;
	for (uint64_t p = 0; p < PAGES; p++)
		put_page(m, p, 4);
	wait_until((mem_get_stats(m, &s, false), s.swap_memory_bytes > 8 * MIB));
	mem_set_limit(m, LIMIT_MIB * MIB);
	wait_until((mem_get_stats(m, &s, false),
		    s.used_bytes <= LIMIT_MIB * MIB && s.swap_memory_bytes <= 6 * MIB));
	assert_true(s.swap_file_bytes > 8 * MIB);
	for (uint64_t p = 0; p < PAGES; p++)
		check_page(m, p, 4);
	assert_true(trouble_is(NULL));
	mem_destroy(m);
}

/* ---- equal pages ---- */

static const struct {
	const char *path, *fast;
} ksm[] = {
	{"/sys/kernel/mm/ksm/pages_to_scan", "20000"},
	{"/sys/kernel/mm/ksm/sleep_millisecs", "5"},
	{"/sys/kernel/mm/ksm/run", "1"},
};
enum { KSM_FILES = sizeof(ksm) / sizeof(ksm[0]) };
static char ksm_before[KSM_FILES][32];

static bool write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");
	bool ok = f && fputs(text, f) >= 0;

	if (f)
		ok = fclose(f) == 0 && ok;
	return ok;
}

/* The host's KSM, fast; false where it is not ours to switch on. */
static bool start_ksm(void)
{
	for (unsigned i = 0; i < KSM_FILES; i++) {
		FILE *f = fopen(ksm[i].path, "re");
		bool ok = f && fgets(ksm_before[i], sizeof(ksm_before[i]), f);
		if (f)
			fclose(f);
		if (!ok || !write_file(ksm[i].path, ksm[i].fast))
			return false;
	}
	return true;
}

static int restore_ksm(void **unused)
{
	(void)unused;
	for (unsigned i = 0; i < KSM_FILES; i++)
		if (ksm_before[i][0])
			write_file(ksm[i].path, ksm_before[i]);
	return 0;
}

static void equal_pages_are_one(void **unused)
{
	enum { N = 2000 };
	struct mem_config c = {.share = true, .trouble = note_trouble};
	struct mem *m[2], *alone;
	struct mem_stats s;
	struct error err;

	(void)unused;
	if (of_a_file)
		skip(); /* KSM takes private memory only */
	if (!start_ksm()) {
		print_message(
			"skipped: the host's KSM cannot be switched on: not root, or there is none\n");
		skip();
	}
	alone = make(0, NULL);
	for (unsigned n = 0; n < 2; n++) {
		assert_int_equal(mem_create(&m[n], RAM_MIB * MIB, &err), 0);
		assert_int_equal(mem_start(m[n], &c, &err), 0);
	}
	for (uint64_t p = 0; p < N; p++) {
		put_page(m[0], p, 5);
		put_page(m[1], N - p, 5 * (p > 0));
		put_page(alone, p, 5);
	}
	/* In both there are N - 1 equal pages; those that are all zero may be left out. */
	wait_until((mem_get_stats(m[0], &s, false), s.ksm_pages > N));
	mem_get_stats(alone, &s, false);
	assert_int_equal(s.ksm_pages, 0);
	/* Who writes has his own again, and nobody else sees it. */
	for (uint64_t p = 1; p < N; p += 2)
		put_page(m[0], p, 6);
	for (uint64_t p = 1; p < N; p++) {
		check_page(m[0], p, p % 2 ? 6 : 5);
		check_page(alone, p, 5);
	}
	mem_destroy(m[0]);
	mem_destroy(m[1]);
	mem_destroy(alone);
}

/* ---- several threads, as vCPUs and devices are ---- */

enum { THREADS = 3, TURNS = 30000 };
struct worker {
	pthread_t thread;
	struct mem *m;
	unsigned nr;
	uint32_t round[PAGES];
	unsigned wrong;
};

/* Its own pages (every THREADS'th), by copies and by pins. */
static void *hammer(void *opaque)
{
	struct worker *w = opaque;
	uint64_t r = w->nr, want[512], is[512];

	for (unsigned n = 0; n < TURNS; n++) {
		r = mix(r + n);
		uint64_t page = r % (PAGES / THREADS) * THREADS + w->nr;
		uint64_t gpa = page * MEM_PAGE_BYTES;
		make_page(want, page, w->round[page]);
		if (r & 256) {
			uint64_t *p = mem_pin(w->m, gpa, MEM_PAGE_BYTES, true);
			w->wrong += memcmp(p, want, MEM_PAGE_BYTES) != 0;
			make_page(p, page, ++w->round[page]);
			mem_unpin(w->m, p, MEM_PAGE_BYTES);
		} else {
			mem_read(w->m, gpa, is, sizeof(is));
			w->wrong += memcmp(is, want, sizeof(is)) != 0;
		}
	}
	return NULL;
}

static void threads_see_their_bytes(void **unused)
{
	static struct worker w[THREADS];
	struct mem *m = make(LIMIT_MIB * MIB, "/tmp");

	(void)unused;
	for (unsigned n = 0; n < THREADS; n++) {
		memset(&w[n], 0, sizeof(w[n]));
		w[n].m = m;
		w[n].nr = n;
		assert_int_equal(pthread_create(&w[n].thread, NULL, hammer, &w[n]), 0);
	}
	for (unsigned n = 0; n < THREADS; n++) {
		pthread_join(w[n].thread, NULL);
		assert_int_equal(w[n].wrong, 0);
	}
	for (uint64_t p = 0; p < PAGES / THREADS * THREADS; p++)
		check_page(m, p, w[p % THREADS].round[p]);
	mem_destroy(m);
}

/* ---- pins ---- */

static void pinned_pages_stay(void **unused)
{
	struct mem *m = make(LIMIT_MIB * MIB, "/tmp");
	struct mem_frame f;
	enum { PINNED = 512 };

	(void)unused;
	uint64_t *p = mem_pin(m, 0, PINNED * MEM_PAGE_BYTES, true);
	assert_non_null(p);
	for (uint64_t n = 0; n < PINNED; n++)
		p[n * 512] = n + 7;
	for (uint64_t n = PINNED; n < PAGES; n++)
		put_page(m, n, 2);
	wait_until(present(m) <= LIMIT_MIB * 256);
	for (uint64_t n = 0; n < PINNED; n++) {
		assert_int_equal(p[n * 512], n + 7);
		assert_int_equal(state(m, n * MEM_PAGE_BYTES), MEM_STATE_PRESENT);
	}
	mem_frame_at(m, 0, &f);
	assert_int_equal(f.pins, 1);
	/* Twice pinned, twice unpinned. */
	assert_ptr_equal(mem_pin(m, 8, 16, false), (char *)p + 8);
	mem_unpin(m, (char *)p + 8, 16);
	mem_frame_at(m, 0, &f);
	assert_int_equal(f.pins, 1);
	mem_unpin(m, p, PINNED * MEM_PAGE_BYTES);
	mem_frame_at(m, 0, &f);
	assert_int_equal(f.pins, 0);
	for (uint64_t n = PINNED; n < PAGES; n++)
		check_page(m, n, 2);
	uint64_t word;
	for (uint64_t n = 0; n < PINNED; n++) {
		assert_int_equal(mem_read(m, n * MEM_PAGE_BYTES, &word, 8), 0);
		assert_int_equal(word, n + 7);
	}
	mem_destroy(m);
}

static void all_pinned_is_told(void **unused)
{
	struct mem *m = make(LIMIT_MIB * MIB, "/tmp");

	(void)unused;
	void *p = mem_pin(m, 0, 2 * LIMIT_MIB * MIB, true);
	wait_until(trouble_is("limit of 8 MiB"));
	assert_false(mem_is_crowded(m)); /* nobody waits for what cannot come */
	mem_unpin(m, p, 2 * LIMIT_MIB * MIB);
	mem_set_limit(m, LIMIT_MIB * MIB);
	wait_until(present(m) <= LIMIT_MIB * 256);
	wait_until(trouble_is(NULL));
	mem_destroy(m);
}

/* ---- giving back ---- */

static void count_done(void *opaque)
{
	atomic_fetch_add((_Atomic int *)opaque, 1);
}

static void discarded_pages_are_zero(void **unused)
{
	struct mem *m = make(0, NULL);
	struct mem_range r[] = {{16 * MEM_PAGE_BYTES, 64 * MEM_PAGE_BYTES},
				{1024 * MEM_PAGE_BYTES, MEM_PAGE_BYTES}};
	struct mem_range wrong = {RAM_MIB * MIB - MEM_PAGE_BYTES, 2 * MEM_PAGE_BYTES};
	_Atomic int done = 0;

	(void)unused;
	for (uint64_t p = 0; p < 2048; p++)
		put_page(m, p, 5);
	void *pin = mem_pin(m, 20 * MEM_PAGE_BYTES, 1, false);
	assert_int_equal(mem_discard(m, &wrong, 1, false, count_done, &done), -EFAULT);
	assert_int_equal(mem_discard(m, r, 2, true, count_done, &done), 0);
	wait_until(done == 1);
	for (uint64_t p = 0; p < 2048; p++) {
		bool gone = (p >= 16 && p < 80 && p != 20) || p == 1024;
		assert_int_equal(state(m, p * MEM_PAGE_BYTES),
				 gone ? MEM_STATE_BALLOON : MEM_STATE_PRESENT);
	}
	for (uint64_t p = 0; p < 2048; p++)
		check_page(m, p, ((p >= 16 && p < 80 && p != 20) || p == 1024) ? 0 : 5);
	assert_int_equal(state(m, 16 * MEM_PAGE_BYTES), MEM_STATE_PRESENT);
	mem_unpin(m, pin, 1);
	mem_destroy(m);
}

static void swapped_pages_are_discarded(void **unused)
{
	struct mem *m = make(LIMIT_MIB * MIB, "/tmp");
	struct mem_range all = {0, RAM_MIB * MIB};
	struct mem_stats s;
	_Atomic int done = 0;

	(void)unused;
	for (uint64_t p = 0; p < PAGES; p++)
		put_page(m, p, 9);
	assert_int_equal(mem_discard(m, &all, 1, false, count_done, &done), 0);
	wait_until(done == 1);
	mem_get_stats(m, &s, true);
	assert_int_equal(s.pages[MEM_STATE_NONE], PAGES);
	assert_int_equal(s.swap_compressed_bytes, 0);
	assert_int_equal(mem_resident_bytes(m), 0);
	for (uint64_t p = 0; p < PAGES; p += 7)
		check_page(m, p, 0);
	mem_destroy(m);
}

/* ---- what engines are asked ---- */

struct asked {
	struct mem *m;
	_Atomic unsigned leaving, writes, all;
	_Atomic bool rescue;
};

static void on_ask(void *opaque, unsigned what)
{
	struct asked *a = opaque;
	enum mem_kind kind;

	a->leaving += (what & MEM_ASK_LEAVING) != 0;
	a->writes += (what & MEM_ASK_WRITES) != 0;
	a->all += (what & MEM_ASK_ALL) != 0;
	/* A vCPU needs the first pages just then. */
	if ((what & MEM_ASK_LEAVING) && a->rescue)
		for (uint64_t gpa = 0; gpa < 64 * MEM_PAGE_BYTES; gpa += MEM_PAGE_BYTES)
			mem_page(a->m, gpa, false, &kind);
}

static void engines_are_asked_first(void **unused)
{
	static struct asked a;
	struct mem *m = make(0, NULL);
	struct mem_range r = {0, 128 * MEM_PAGE_BYTES};
	_Atomic int done = 0;
	struct mem_stats s;

	(void)unused;
	a = (struct asked){.m = m, .rescue = true};
	mem_set_engine(m, &(struct mem_engine){on_ask, &a});
	for (uint64_t p = 0; p < 128; p++)
		put_page(m, p, 4);
	mem_discard(m, &r, 1, false, count_done, &done);
	wait_until(done == 1);
	assert_int_equal(a.leaving, 1);
	for (uint64_t p = 0; p < 128; p++)
		check_page(m, p, p < 64 ? 4 : 0);
	mem_get_stats(m, &s, false);
	assert_int_equal(s.rescues, 64);
	mem_destroy(m);
}

static void log_tells_what_was_written(void **unused)
{
	static struct asked a;
	static uint64_t bits[PAGES / 64];
	struct mem *m = make(0, NULL);
	enum mem_kind kind;

	(void)unused;
	a = (struct asked){.m = m};
	mem_set_engine(m, &(struct mem_engine){on_ask, &a});
	for (uint64_t p = 0; p < 100; p++)
		put_page(m, p, 1);
	assert_int_equal(mem_log_take(m, bits), 100);
	assert_int_equal(a.writes, 1);
	mem_page(m, 5 * MEM_PAGE_BYTES, false, &kind);
	assert_false(mem_may_write(m, 5 * MEM_PAGE_BYTES));
	mem_page(m, 70 * MEM_PAGE_BYTES, true, &kind);
	assert_true(mem_may_write(m, 70 * MEM_PAGE_BYTES));
	void *pin = mem_pin(m, 9 * MEM_PAGE_BYTES, 1, true);
	assert_int_equal(mem_log_take(m, bits), 2);
	assert_int_equal(bits[0], UINT64_C(1) << 9);
	assert_int_equal(bits[1], UINT64_C(1) << 6);
	assert_int_equal(mem_log_take(m, bits), 1); /* the pinned one may be written at any time */
	mem_unpin(m, pin, 1);
	mem_log_take(m, bits);
	assert_int_equal(mem_log_take(m, bits), 0);
	mem_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_leave_and_come_back),
		cmocka_unit_test(limit_comes_and_goes),
		cmocka_unit_test(store_follows_the_limit),
		cmocka_unit_test_teardown(equal_pages_are_one, restore_ksm),
		cmocka_unit_test(threads_see_their_bytes),
		cmocka_unit_test(pinned_pages_stay),
		cmocka_unit_test(all_pinned_is_told),
		cmocka_unit_test(discarded_pages_are_zero),
		cmocka_unit_test(swapped_pages_are_discarded),
		cmocka_unit_test(engines_are_asked_first),
		cmocka_unit_test(log_tells_what_was_written),
	};
	int failed = cmocka_run_group_tests_name("private", tests, set_private, NULL);

	return failed + cmocka_run_group_tests_name("of a file", tests, set_file, NULL);
}
