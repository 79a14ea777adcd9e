/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "state/stream.h"

struct sample {
	uint8_t a;
	uint16_t b;
	uint32_t c;
	uint64_t d;
	bool e;
	uint8_t f[5];
};

static uint32_t fields(struct state_stream *s, struct sample *v, const char *name, uint32_t version)
{
	uint32_t found = state_begin(s, name, 7, version);

	state_u8(s, &v->a);
	state_u16(s, &v->b);
	if (found >= 2)
		state_u32(s, &v->c);
	state_u64(s, &v->d);
	state_bool(s, &v->e);
	state_raw(s, v->f, sizeof(v->f));
	state_end(s);
	return found;
}

static const struct sample example = {1, 0x203, 0x4050607, 0x8090a0b0c0d0e0f, true, "abcd"};

static size_t write_example(uint8_t *out, uint32_t version)
{
	struct state_stream *s;
	struct sample v = example;
	size_t len;

	assert_int_equal(state_writer_create(&s, NULL), 0);
	assert_true(state_writing(s));
	fields(s, &v, "sample", version);
	assert_int_equal(state_stream_error(s, NULL), 0);
	const void *bytes = state_bytes(s, &len);
	memcpy(out, bytes, len);
	state_stream_destroy(s);
	return len;
}

static int read_example(const uint8_t *in, size_t len, struct sample *v, const char *name,
			uint32_t version, struct error *err)
{
	struct state_stream *s;
	int rc;

	assert_int_equal(state_reader_create(in, len, &s, NULL), 0);
	assert_false(state_writing(s));
	fields(s, v, name, version);
	rc = state_stream_error(s, err);
	state_stream_destroy(s);
	return rc;
}

static void test_round_trip(void **state)
{
	uint8_t buf[256];
	struct sample v = {0};
	size_t len = write_example(buf, 2);

	(void)state;
	assert_int_equal(read_example(buf, len, &v, "sample", 2, NULL), 0);
	assert_int_equal(v.a, example.a);
	assert_int_equal(v.b, example.b);
	assert_int_equal(v.c, example.c);
	assert_int_equal(v.d, example.d);
	assert_true(v.e);
	assert_memory_equal(v.f, example.f, 5);
}

static void test_little_endian(void **state)
{
	static const uint8_t payload[] = {1, 3, 2, 7, 6, 5, 4, 0xf, 0xe, 0xd};
	uint8_t buf[256];

	(void)state;
	write_example(buf, 2);
	assert_memory_equal(buf + 4 + 1 + 6 + 12, payload, sizeof(payload));
}

static void test_versions(void **state)
{
	uint8_t buf[256];
	struct sample v = {0};
	struct error err = {""};
	size_t len = write_example(buf, 1);

	(void)state;
	assert_int_equal(read_example(buf, len, &v, "sample", 2, NULL), 0); /* older: read */
	assert_int_equal(v.c, 0);
	assert_int_equal(v.d, example.d);
	len = write_example(buf, 2);
	assert_int_equal(read_example(buf, len, &v, "sample", 1, &err), -EINVAL); /* newer: not */
	assert_non_null(strstr(err.text, "sample 7"));
}

static void test_wrong_section(void **state)
{
	uint8_t buf[256];
	struct sample v = {0};
	size_t len = write_example(buf, 2);

	(void)state;
	assert_int_equal(read_example(buf, len, &v, "other", 2, NULL), -EINVAL);
	assert_int_equal(v.a, 0); /* nothing is stored after a failure */
}

static void test_cut_and_damaged(void **state)
{
	uint8_t buf[256];
	struct sample v = {0};
	size_t len = write_example(buf, 2);

	(void)state;
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut ? cut : 1); /* so that a sanitizer sees overreads */
		memcpy(exact, buf, cut);
		assert_int_equal(read_example(exact, cut, &v, "sample", 2, NULL), -EINVAL);
		free(exact);
	}
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t *bad = malloc(len);
		memcpy(bad, buf, len);
		bad[(unsigned)rand() % len] = (uint8_t)rand();
		bad[(unsigned)rand() % len] = (uint8_t)rand();
		read_example(bad, len, &v, "sample", 2, NULL);
		assert_true((uint8_t)v.e <= 1);
		free(bad);
	}
}

static void test_leftover(void **state)
{
	uint8_t buf[256];
	struct state_stream *s;
	size_t len = write_example(buf, 2);
	uint8_t byte = 0;

	(void)state;
	assert_int_equal(state_reader_create(buf, len, &s, NULL), 0);
	assert_int_equal(state_begin(s, "sample", 7, 2), 2);
	state_u8(s, &byte);
	state_end(s);
	assert_int_equal(state_stream_error(s, NULL), -EINVAL);
	state_stream_destroy(s);
}

static void test_first_failure_stays(void **state)
{
	struct state_stream *s;
	struct error err = {""};
	uint8_t byte = 5;
	size_t len;

	(void)state;
	assert_int_equal(state_writer_create(&s, NULL), 0);
	state_u8(s, &byte); /* outside a section */
	assert_int_equal(state_stream_error(s, &err), -EINVAL);
	state_fail(s, "a second reason");
	state_stream_error(s, &err);
	assert_null(strstr(err.text, "second"));
	assert_int_equal(state_begin(s, "x", 0, 1), 0);
	state_bytes(s, &len);
	assert_int_equal(len, 0);
	state_stream_destroy(s);
}

static void test_large(void **state)
{
	struct state_stream *s;
	size_t len;
	uint8_t *big = calloc(1, 1 << 20);

	(void)state;
	assert_int_equal(state_writer_create(&s, NULL), 0);
	for (uint32_t i = 0; i < 8; i++) {
		state_begin(s, "big", i, 1);
		state_raw(s, big, 1 << 20);
		state_end(s);
	}
	assert_int_equal(state_stream_error(s, NULL), 0);
	state_bytes(s, &len);
	assert_true(len > 8 << 20);
	state_stream_destroy(s);
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_little_endian),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_wrong_section),
		cmocka_unit_test(test_cut_and_damaged),
		cmocka_unit_test(test_leftover),
		cmocka_unit_test(test_first_failure_stays),
		cmocka_unit_test(test_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
