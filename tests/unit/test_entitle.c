/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets how much of a pool: the cases one can work out by hand, then rules that hold for all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mem/entitle.h"

#define MIB (UINT64_C(1) << 20)
#define LEN(a) (sizeof(a) / sizeof((a)[0]))

/* min, max, shares, active, touched; sizes in MiB */
#define CLAIM(min, max, shares, active, touched)                                                   \
	{                                                                                          \
		(min) * MIB, (max)*MIB, shares, (active)*MIB, (touched)*MIB                        \
	}

static void check(const struct mem_claim *c, unsigned n, uint64_t pool_mib, const double *want_mib)
{
	uint64_t out[8];

	assert_true(n <= LEN(out));
	assert_true(mem_entitle(c, n, pool_mib * MIB, out));
	for (unsigned i = 0; i < n; i++) {
		double is = (double)out[i] / (double)MIB;
		if (is < want_mib[i] - 0.01 || is > want_mib[i] + 0.01)
			fail_msg("claim %u: %f MiB, not %f", i, is, want_mib[i]);
	}
}

static void by_shares(void **unused)
{
	/* All busy: 300 MiB as 1 : 2 : 3. */
	const struct mem_claim c[] = {CLAIM(0, 1024, 1, 1024, 1024), CLAIM(0, 1024, 2, 1024, 1024),
				      CLAIM(0, 1024, 3, 1024, 1024)};
	const struct mem_claim same[] = {CLAIM(0, 512, 10, 512, 512), CLAIM(0, 512, 10, 512, 512)};

	(void)unused;
	check(c, 3, 300, (double[]){50, 100, 150});
	check(same, 2, 100, (double[]){50, 50});
}

static void idle_is_taxed(void **unused)
{
	/* One idle, one busy, equal shares: b / 4 + b = 400. */
	const struct mem_claim c[] = {CLAIM(0, 1024, 1, 0, 1024), CLAIM(0, 1024, 1, 1024, 1024)};
	/* Half of what it may have is in use: b = 100 + (b - 100) / 4 of the first, so 75 + b/4 + b = 400 */
	const struct mem_claim half[] = {CLAIM(0, 1024, 1, 100, 1024),
					 CLAIM(0, 1024, 1, 1024, 1024)};
	/* All idle: the tax is the same for all. */
	const struct mem_claim none[] = {CLAIM(0, 1024, 1, 0, 1024), CLAIM(0, 1024, 3, 0, 1024)};

	(void)unused;
	check(c, 2, 400, (double[]){80, 320});
	check(half, 2, 400, (double[]){140, 260});
	check(none, 2, 400, (double[]){100, 300});
}

static void bounds_bind(void **unused)
{
	/* The first would get 100; its reservation is 200. */
	const struct mem_claim min[] = {CLAIM(200, 1024, 1, 0, 1024),
					CLAIM(0, 1024, 3, 1024, 1024)};
	/* The second would get 300; its limit is 120. */
	const struct mem_claim max[] = {CLAIM(0, 1024, 1, 1024, 1024),
					CLAIM(0, 120, 3, 1024, 1024)};
	/* A reservation above the limit is the limit. */
	const struct mem_claim both[] = {CLAIM(300, 100, 1, 0, 0), CLAIM(0, 1024, 1, 1024, 1024)};

	(void)unused;
	check(min, 2, 400, (double[]){200, 200});
	check(max, 2, 400, (double[]){280, 120});
	check(both, 2, 400, (double[]){100, 300});
}

static void what_is_no_use(void **unused)
{
	/* The first has touched 40 MiB: with 16 to grow 56, the rest is the second's. */
	const struct mem_claim c[] = {CLAIM(0, 1024, 9, 40, 40), CLAIM(0, 1024, 1, 1024, 1024)};
	/* 160 is touched: an eighth to grow. */
	const struct mem_claim more[] = {CLAIM(0, 1024, 9, 160, 160),
					 CLAIM(0, 1024, 1, 1024, 1024)};
	/* Both have what they can use (56 each): the rest by shares, active or not as it is. */
	const struct mem_claim rest[] = {CLAIM(0, 1024, 1, 0, 40), CLAIM(0, 1024, 3, 0, 40)};
	/* Never touched, but reserved. */
	const struct mem_claim kept[] = {CLAIM(300, 1024, 1, 0, 0), CLAIM(0, 1024, 1, 1024, 1024)};

	(void)unused;
	check(c, 2, 400, (double[]){56, 344});
	check(more, 2, 400, (double[]){180, 220});
	check(rest, 2, 400, (double[]){100, 300});
	check(kept, 2, 400, (double[]){300, 100});
}

static void room_for_all(void **unused)
{
	const struct mem_claim c[] = {CLAIM(0, 100, 1, 0, 0), CLAIM(10, 200, 3, 100, 200)};

	(void)unused;
	check(c, 2, 300, (double[]){100, 200});
	check(c, 2, 1 << 20, (double[]){100, 200});
	check(c, 0, 300, NULL);
}

static void too_small(void **unused)
{
	const struct mem_claim c[] = {CLAIM(100, 512, 1, 0, 0), CLAIM(300, 512, 1, 0, 0)};
	uint64_t out[2];

	(void)unused;
	assert_false(mem_entitle(c, 2, 200 * MIB, out));
	assert_int_equal(out[0], 50 * MIB);
	assert_int_equal(out[1], 150 * MIB);
	assert_false(mem_entitle(c, 2, 0, out));
	assert_int_equal(out[0] + out[1], 0);
	/* Exactly enough is enough. */
	assert_true(mem_entitle(c, 2, 400 * MIB, out));
	assert_int_equal(out[0], 100 * MIB);
	assert_int_equal(out[1], 300 * MIB);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static uint64_t sum_of(const uint64_t *v, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += v[i];
	return sum;
}

/* Random pools: bounds are kept, nothing is left over or spent twice, more shares are never less. */
static void always(void **unused)
{
	enum { N = 40, TURNS = 300 };
	struct mem_claim c[N];
	uint64_t out[N], more[N], r = 1;

	(void)unused;
	for (unsigned turn = 0; turn < TURNS; turn++) {
		uint64_t all = 0;
		for (unsigned i = 0; i < N; i++) {
			r = mix(r + turn * N + i + 1);
			c[i] = (struct mem_claim){
				.max_bytes = (r % 4096 + 4) * MIB,
				.min_bytes = (r >> 12) % 8 ? 0 : (r >> 16) % 64 * MIB,
				.shares = (r >> 24) % 3 ? r % 100 : (r >> 26) % 1000000,
				.touched_bytes = (r >> 30) % 4096 * MIB,
			};
			c[i].active_bytes = c[i].touched_bytes / 8 * ((r >> 50) % 9);
			all += c[i].max_bytes;
		}
		uint64_t pool = (mix(r) % (N * 4096) + N * 64) * MIB,
			 most = pool < all ? pool : all;
		assert_true(mem_entitle(c, N, pool, out));
		assert_true(sum_of(out, N) <= pool + N);
		assert_true(sum_of(out, N) + N + most / 1000000 >= most);
		for (unsigned i = 0; i < N; i++) {
			assert_true(out[i] <= c[i].max_bytes);
			assert_true(out[i] >= c[i].min_bytes || out[i] == c[i].max_bytes);
		}
		c[turn % N].shares = 2 * c[turn % N].shares + 1;
		assert_true(mem_entitle(c, N, pool, more));
		assert_true(more[turn % N] + 1 + pool / 1000000 >= out[turn % N]);
	}
}

static void extremes(void **unused)
{
	const struct mem_claim c[] = {
		{0, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX},
		{0, UINT64_MAX, 0, UINT64_MAX, UINT64_MAX},
		{UINT64_MAX, 0, 1, 0, 0},
	};
	uint64_t out[3];

	(void)unused;
	assert_true(mem_entitle(c, 3, 512 * MIB, out));
	assert_true(sum_of(out, 3) <= 512 * MIB && out[0] > 511 * MIB && out[2] == 0);
	assert_true(mem_entitle(c, 3, 0, out));
	assert_int_equal(sum_of(out, 3), 0);
}

static void shares_are_read(void **unused)
{
	static const char *const wrong[] = {
		"",   "0",   "-1",   "+5",	  " 5",
		"5 ", "1.5", "many", "100000001", "99999999999999999999"};
	struct mem_shares s = {0};

	(void)unused;
	assert_int_equal(mem_shares_of(&s, 512 * MIB), 5120);
	assert_true(mem_parse_shares("low", &s));
	assert_int_equal(mem_shares_of(&s, 512 * MIB), 2560);
	assert_true(mem_parse_shares("Normal", &s));
	assert_int_equal(mem_shares_of(&s, 512 * MIB), 5120);
	assert_true(mem_parse_shares("high", &s));
	assert_int_equal(mem_shares_of(&s, 512 * MIB), 10240);
	assert_true(mem_parse_shares("777", &s));
	assert_int_equal(mem_shares_of(&s, 512 * MIB), 777);
	for (unsigned i = 0; i < LEN(wrong); i++)
		assert_false(mem_parse_shares(wrong[i], &s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_shares),	   cmocka_unit_test(idle_is_taxed),
		cmocka_unit_test(bounds_bind),	   cmocka_unit_test(what_is_no_use),
		cmocka_unit_test(room_for_all),	   cmocka_unit_test(too_small),
		cmocka_unit_test(always),	   cmocka_unit_test(extremes),
		cmocka_unit_test(shares_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
