/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trace of pages: whatever is read is written and read again as the same. The input is a file;
 * and, as a checksum keeps a fuzzer out, it is also the records of one block in a good file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "mem/trace.h"

static int in_fd = -1, out_fd;
static char in[64], out[64];

static void write_again(const struct page_trace *t)
{
	struct trace_writer *w;

	if (trace_writer_create(&w, out, &t->info, NULL))
		abort();
	for (size_t i = 0; i < t->refs; i++)
		trace_writer_add(w, t->page[t->ref[i] >> PAGE_TRACE_ID_SHIFT],
				 t->ref[i] & PAGE_TRACE_WRITE, i);
	if (trace_writer_finish(w, NULL))
		abort();
}

static void check(void)
{
	struct page_trace *t, *again;

	if (page_trace_load(&t, in, NULL, NULL))
		return;
	for (uint32_t id = 0; id < t->pages; id++)
		if (t->page[id] >= t->info.end_page)
			abort();
	write_again(t);
	if (page_trace_load(&again, out, NULL, NULL) || again->cut)
		abort();
	if (again->refs != t->refs || again->pages != t->pages || again->writes != t->writes ||
	    again->info.ram_pages != t->info.ram_pages)
		abort();
	/* An empty trace has no arrays. */
	if (t->refs && (memcmp(again->ref, t->ref, t->refs * sizeof(*t->ref)) ||
			memcmp(again->page, t->page, t->pages * sizeof(*t->page))))
		abort();
	page_trace_free(t);
	page_trace_free(again);
}

static void put(const void *data, size_t n, bool more)
{
	if (!more && (ftruncate(in_fd, 0) || lseek(in_fd, 0, SEEK_SET)))
		abort();
	if (write(in_fd, data, n) != (ssize_t)n)
		abort();
}

/* The first byte is the number of records. */
static void as_block(const uint8_t *data, size_t size)
{
	static const struct trace_info info = {4096, TRACE_TLB_MISSES, 1, 1 << 18, 1 << 20};
	uint32_t head[3] = {(uint32_t)size - 1, data[0], 0};
	struct trace_writer *w;

	if (trace_writer_create(&w, in, &info, NULL) || trace_writer_finish(w, NULL))
		abort();
	if (ftruncate(in_fd, TRACE_HEADER_BYTES) || lseek(in_fd, 0, SEEK_END) < 0)
		abort();
	head[2] = (uint32_t)crc32(0, data + 1, head[0]);
	put(head, sizeof(head), true);
	put(data + 1, head[0], true);
	check();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (in_fd < 0) {
		in_fd = memfd_create("in", 0);
		out_fd = memfd_create("out", 0);
		if (in_fd < 0 || out_fd < 0)
			abort();
		snprintf(in, sizeof(in), "/proc/self/fd/%d", in_fd);
		snprintf(out, sizeof(out), "/proc/self/fd/%d", out_fd);
	}
	put(data, size, false);
	check();
	if (size > 1)
		as_block(data, size);
	return 0;
}
