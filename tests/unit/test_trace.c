/* SPDX-License-Identifier: Apache-2.0 */
/* mem/trace.h: what was written is read; what is cut or broken is told, or read as far as it goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "mem/trace.h"

static char path[] = "/tmp/hanok-trace-XXXXXX";

static const struct trace_info info = {.page_bytes = 4096,
				       .sampling = TRACE_TLB_MISSES,
				       .sample_period = 3,
				       .ram_pages = 0x40000,
				       .end_page = 0x140000};

static int make_path(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	close(fd);
	return fd < 0;
}

static int drop_path(void **state)
{
	(void)state;
	return unlink(path);
}

static uint64_t dice_state = 1;

static uint64_t dice(void)
{
	uint64_t z = dice_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Some near the one before, some anywhere; ends of ranges among them. */
static struct trace_record any_record(const struct trace_record *before)
{
	struct trace_record r = {.page = before->page, .ns = before->ns, .write = dice() & 1};

	switch (dice() % 8) {
	case 0:
		r.page = 0;
		break;
	case 1:
		r.page = info.end_page - 1;
		break;
	case 2:
	case 3:
		r.page = dice() % info.end_page;
		break;
	case 4:
		r.ns += dice() % (UINT64_C(1) << 40);
		break;
	default:
		r.page = (r.page + dice() % 3 + info.end_page - 1) % info.end_page;
		r.ns += dice() % 1000;
	}
	return r;
}

static void write_records(unsigned n)
{
	struct trace_record r = {0};
	struct trace_writer *w;
	uint64_t records, bytes;
	struct stat st;

	dice_state = 1;
	assert_int_equal(trace_writer_create(&w, path, &info, NULL), 0);
	for (unsigned i = 0; i < n; i++) {
		r = any_record(&r);
		trace_writer_add(w, r.page, r.write, r.ns);
	}
	trace_writer_size(w, &records, &bytes);
	assert_int_equal(records, n);
	assert_int_equal(trace_writer_finish(w, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	/* What is in memory gets one head, and so does the end. */
	assert_in_range(st.st_size, bytes, bytes + 2 * TRACE_BLOCK_HEAD_BYTES);
}

/* Reads n records as write_records made them, and what comes after: 0, or an error. */
static int read_records(unsigned n, bool *cut, struct error *err)
{
	struct trace_record want = {0}, got;
	struct trace_reader *r;
	int rc = trace_reader_open(&r, path, err);

	if (rc)
		return rc;
	dice_state = 1;
	for (unsigned i = 0; i < n; i++) {
		want = any_record(&want);
		assert_int_equal(trace_reader_next(r, &got, err), 1);
		assert_int_equal(got.page, want.page);
		assert_int_equal(got.ns, want.ns);
		assert_int_equal(got.write, want.write);
	}
	rc = trace_reader_next(r, &got, err);
	*cut = trace_reader_cut(r);
	/* It stays so. */
	assert_int_equal(trace_reader_next(r, &got, NULL), rc);
	trace_reader_close(r);
	return rc;
}

static void there_and_back(void **state)
{
	struct trace_reader *r;
	bool cut;

	(void)state;
	for (unsigned n = 0; n < 100000; n = n * 10 + 1) {
		write_records(n);
		assert_int_equal(read_records(n, &cut, NULL), 0);
		assert_false(cut);
	}
	assert_int_equal(trace_reader_open(&r, path, NULL), 0);
	assert_memory_equal(trace_reader_info(r), &info, sizeof(info));
	trace_reader_close(r);
}

static void compact(void **state)
{
	struct trace_writer *w;
	struct stat st;

	(void)state;
	assert_int_equal(trace_writer_create(&w, path, &info, NULL), 0);
	for (unsigned i = 0; i < 100000; i++)
		trace_writer_add(w, i, i & 1, (uint64_t)i * 100);
	assert_int_equal(trace_writer_finish(w, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	/* One byte for the page, one for the time. */
	assert_in_range(st.st_size, 200000, 200400);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void odd_records(void **state)
{
	const struct trace_record in[] = {{5, 100, false},	   {info.end_page, 101, true},
					  {UINT64_MAX, 102, true}, {6, 50, true},
					  {7, UINT64_MAX, false},  {8, 3, false}};
	static const struct trace_record out[] = {
		{5, 100, false}, {6, 100, true}, {7, UINT64_MAX, false}, {8, UINT64_MAX, false}};
	struct trace_writer *w;
	struct page_trace *t;

	(void)state;
	assert_int_equal(trace_writer_create(&w, path, &info, NULL), 0);
	for (unsigned i = 0; i < 6; i++)
		trace_writer_add(w, in[i].page, in[i].write, in[i].ns);
	assert_int_equal(trace_writer_finish(w, NULL), 0);
	assert_int_equal(page_trace_load(&t, path, NULL, NULL), 0);
	assert_int_equal(t->refs, 4);
	assert_int_equal(t->pages, 4);
	assert_int_equal(t->writes, 1);
	assert_int_equal(t->first_ns, 100);
	assert_int_equal(t->last_ns, UINT64_MAX);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(t->page[i], out[i].page);
		assert_int_equal(t->ref[i], i << PAGE_TRACE_ID_SHIFT | out[i].write);
	}
	page_trace_free(t);
	assert_int_equal(trace_writer_finish(NULL, NULL), 0);
}

static void *add_many(void *opaque)
{
	for (unsigned i = 0; i < 50000; i++)
		trace_writer_add(opaque, i, false, i);
	return NULL;
}

static void from_threads(void **state)
{
	pthread_t thread[4];
	unsigned seen[50000] = {0};
	struct trace_writer *w;
	struct page_trace *t;

	(void)state;
	assert_int_equal(trace_writer_create(&w, path, &info, NULL), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, add_many, w), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(trace_writer_finish(w, NULL), 0);
	assert_int_equal(page_trace_load(&t, path, NULL, NULL), 0);
	assert_int_equal(t->refs, 200000);
	assert_int_equal(t->pages, 50000);
	for (size_t i = 0; i < t->refs; i++)
		seen[t->page[t->ref[i] >> PAGE_TRACE_ID_SHIFT]]++;
	for (unsigned i = 0; i < 50000; i++)
		assert_int_equal(seen[i], 4);
	page_trace_free(t);
}

/* Wherever a file is cut, the whole blocks before that are read. */
static void cut_anywhere(void **state)
{
	struct error err;
	struct stat st;
	bool cut;

	(void)state;
	write_records(50);
	assert_int_equal(stat(path, &st), 0);
	for (off_t size = st.st_size - 1; size >= 0; size--) {
		assert_int_equal(truncate(path, size), 0);
		/* All there but the end; or less than the one block. */
		bool whole = size >= st.st_size - TRACE_BLOCK_HEAD_BYTES;
		int rc = read_records(whole ? 50 : 0, &cut, &err);
		assert_int_equal(rc, size < TRACE_HEADER_BYTES ? -EINVAL : 0);
		assert_true(rc || cut);
		assert_true(!rc || strstr(err.text, path));
	}
}

/* No bit can change without notice, but those of numbers that the header may have. */
static void any_bit_wrong(void **state)
{
	struct trace_record record;
	struct trace_reader *r;
	struct stat st;
	int fd, rc;

	(void)state;
	write_records(50);
	assert_int_equal(stat(path, &st), 0);
	fd = open(path, O_RDWR);
	for (off_t bit = 0; bit < st.st_size * 8; bit++) {
		uint8_t byte, wrong;
		assert_int_equal(pread(fd, &byte, 1, bit / 8), 1);
		wrong = (uint8_t)(byte ^ 1 << bit % 8);
		assert_int_equal(pwrite(fd, &wrong, 1, bit / 8), 1);
		rc = trace_reader_open(&r, path, NULL);
		if (!rc) {
			while ((rc = trace_reader_next(r, &record, NULL)) > 0)
				assert_true(record.page < trace_reader_info(r)->end_page);
			/* A block that got longer looks cut. */
			if (!rc && bit / 8 >= TRACE_HEADER_BYTES)
				assert_true(trace_reader_cut(r));
			trace_reader_close(r);
		}
		assert_true(rc < 0 || bit / 8 >= 16);
		assert_int_equal(pwrite(fd, &byte, 1, bit / 8), 1);
	}
	close(fd);
}

/* A file of one block with these bytes and the right checksum. */
static int load_block(const void *bytes, uint32_t n, uint32_t records, struct error *err)
{
	uint32_t head[3] = {n, records, (uint32_t)crc32(0, bytes, n)};
	struct trace_writer *w;
	struct page_trace *t;
	int fd, rc;

	assert_int_equal(trace_writer_create(&w, path, &info, NULL), 0);
	assert_int_equal(trace_writer_finish(w, NULL), 0);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, head, sizeof(head), TRACE_HEADER_BYTES), sizeof(head));
	assert_int_equal(pwrite(fd, bytes, n, TRACE_HEADER_BYTES + sizeof(head)), n);
	close(fd);
	rc = page_trace_load(&t, path, NULL, err);
	if (!rc)
		page_trace_free(t);
	return rc;
}

static void bad_blocks(void **state)
{
	static const struct {
		const char *bytes;
		uint32_t n, records;
		const char *says;
	} bad[] = {
		{"\x04\x00\x04\x00", 4, 1, "more bytes than records"},
		{"\x04\x00\x04", 3, 2, "number of records"},
		{"\x04\x00\x04", 3, 1, "more bytes than records"},
		{"\x04\x80", 2, 1, "record is cut"},
		{"\x80\x80", 2, 1, "record is cut"},
		{"\x04\x00", 2, 0, "number of records"},
		/* Page -1; the last page and one more. */
		{"\x02\x00", 2, 1, "beyond the end"},
		{"\xfc\xff\xbf\x02\x00", 5, 1, NULL},
		{"\xfc\xff\xbf\x02\x00\x04\x00", 7, 2, "beyond the end"},
		/* 64 bits of time, then one more; and 65 bits. */
		{"\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, 1, NULL},
		{"\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x01", 13, 2, "time goes back"},
		{"\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, 1, "record is cut"},
		{"\x04\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 12, 1, "record is cut"},
	};
	struct error err;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err.text[0] = 0;
		int rc = load_block(bad[i].bytes, bad[i].n, bad[i].records, &err);
		assert_int_equal(rc, bad[i].says ? -EINVAL : 0);
		if (bad[i].says && !strstr(err.text, bad[i].says))
			fail_msg("%u: %s", i, err.text);
	}
}

static void not_a_trace(void **state)
{
	struct trace_info wrong[] = {info, info, info, info, info, info};
	struct trace_writer *w;
	struct trace_reader *r;
	struct error err;

	(void)state;
	wrong[0].page_bytes = 3000;
	wrong[1].page_bytes = 256;
	wrong[2].sampling = TRACE_SAMPLING_END;
	wrong[3].sample_period = 0;
	wrong[4].end_page = 0;
	wrong[5].ram_pages = info.end_page + 1;
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(trace_writer_create(&w, path, &wrong[i], &err), -EINVAL);
	assert_int_equal(trace_writer_create(&w, "/nowhere/x", &info, &err), -ENOENT);
	assert_int_equal(trace_reader_open(&r, "/nowhere/x", &err), -ENOENT);
	assert_int_equal(trace_reader_open(&r, "/etc/passwd", &err), -EINVAL);
	assert_non_null(strstr(err.text, "/etc/passwd: this is no trace"));
	assert_int_equal(trace_reader_open(&r, "/tmp", &err), -EISDIR);
}

/* A disk that is full: told at the end, and what was before is a trace. */
static void full_disk(void **state)
{
	struct rlimit old, small;
	struct trace_writer *w;
	struct page_trace *t;
	struct error err;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){.rlim_cur = 200000, .rlim_max = old.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(trace_writer_create(&w, path, &info, NULL), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (unsigned i = 0; i < 200000; i++)
		trace_writer_add(w, i, false, i);
	assert_int_equal(trace_writer_finish(w, &err), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(page_trace_load(&t, path, NULL, &err), 0);
	assert_true(t->cut);
	assert_in_range(t->refs, 60000, 100000);
	page_trace_free(t);
}

static int stop_at(void *opaque, uint64_t done, uint64_t total)
{
	uint64_t *last = opaque;

	assert_true(done >= *last && done <= total);
	*last = done;
	return done > total / 2;
}

static void stopped(void **state)
{
	uint64_t last = 0;
	const struct trace_progress progress = {stop_at, &last};
	struct page_trace *t;

	(void)state;
	write_records(300000);
	assert_int_equal(page_trace_load(&t, path, &progress, NULL), -ECANCELED);
	assert_null(t);
	assert_true(last);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back), cmocka_unit_test(compact),
		cmocka_unit_test(odd_records),	  cmocka_unit_test(from_threads),
		cmocka_unit_test(cut_anywhere),	  cmocka_unit_test(any_bit_wrong),
		cmocka_unit_test(bad_blocks),	  cmocka_unit_test(not_a_trace),
		cmocka_unit_test(full_disk),	  cmocka_unit_test(stopped),
	};

	return cmocka_run_group_tests(tests, make_path, drop_path);
}
