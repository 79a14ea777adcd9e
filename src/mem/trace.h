/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_TRACE_H
#define HANOK_MEM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Traces of pages: which page was referenced, whether to be written, and when. They are recorded
 * from a guest (or made up), and page-replacement policies are replayed on them (mem/replay.h).
 *
 * The file, version 1. Numbers are little-endian; a varint has 7 bits a byte, the lowest first, and
 * bit 7 set in all bytes but its last (LEB128).
 *
 *     header, 64 bytes
 *          0  8  "HANOKPGT"
 *          8  4  version: 1
 *         12  4  bytes of this header: 64
 *         16  4  bytes of a page: a power of two from 512 to 2^30
 *         20  4  enum trace_sampling
 *         24  8  one reference in how many was recorded: 1 or more
 *         32  8  pages of RAM of the guest
 *         40  8  every page number is below this one (RAM has holes), at most 2^52
 *         48 16  zero
 *     blocks, each
 *          0  4  bytes of records, 1 to 2^20
 *          4  4  records
 *          8  4  CRC-32 (that of zlib and Ethernet) of the bytes of records
 *         12  .  records
 *     the end: a block with 0 bytes and 0 records, its CRC 0; nothing follows
 *
 * A record is two varints:
 *     zigzag(page - page of the record before) << 1 | write
 *     ns - ns of the record before
 * where zigzag(n) is 2n for n >= 0 and -2n - 1 below. In the first record of a block "the record
 * before" has page 0 and ns 0, so each block can be read alone. Times are nanoseconds since the
 * recording began; they do not go back.
 *
 * A file without its end was cut: by a machine that was killed, or by a full disk. It can be read up
 * to its last whole block.
 */
enum {
	TRACE_VERSION = 1,
	TRACE_HEADER_BYTES = 64,
	TRACE_BLOCK_HEAD_BYTES = 12,
	TRACE_BLOCK_MAX = 1 << 20,
	TRACE_RECORD_MAX = 20, /* bytes: two varints of 64 bits */
};

/* What the recorder took for a reference. */
enum trace_sampling {
	TRACE_EVERY = 0,       /* every access, or every change from one page to another */
	TRACE_TLB_MISSES = 1,  /* misses of a TLB: accesses that it hits are not seen */
	TRACE_SYNTHETIC = 2,   /* made up by a program */
	TRACE_SAMPLING_END = 3 /* no value: how many there are */
};

/* The name of one: "TLB misses". */
const char *trace_sampling_name(enum trace_sampling sampling);

/* What the header says. */
struct trace_info {
	uint32_t page_bytes;
	enum trace_sampling sampling;
	uint64_t sample_period;
	uint64_t ram_pages, end_page;
};

struct trace_record {
	uint64_t page, ns;
	bool write;
};

/* ---- writing ---- */

struct trace_writer;

/*
 * Makes or empties the file, for its owner's eyes only, and writes the header. 0, or -errno with
 * *err: -EINVAL when info has what the header does not allow.
 */
int trace_writer_create(struct trace_writer **out, const char *path, const struct trace_info *info,
			struct error *err);

/*
 * Adds a reference, ns after the recording began. Any thread, several at once: they take turns. It
 * is gathered in memory; about once in 10,000 calls the caller waits for a write of 64 KiB. A time
 * before that of the last record is taken as the same; a page that is not below end_page is left
 * out. Once the file could not be written nothing more happens: trace_writer_finish tells.
 */
void trace_writer_add(struct trace_writer *w, uint64_t page, bool write, uint64_t ns);

/* How many records there are, and how many bytes the file has with what is still in memory. Any
 * thread; what a limit is compared with. */
void trace_writer_size(struct trace_writer *w, uint64_t *records, uint64_t *bytes);

/*
 * Writes what is left and the end, and frees w (NULL is allowed) whatever happens; nobody may add
 * any more. 0, or -errno with *err when any of the trace could not be written: what was before can
 * be read.
 */
int trace_writer_finish(struct trace_writer *w, struct error *err);

/* ---- reading ---- */

struct trace_reader;

/* Opens a trace and checks its header. Whatever is in a file, reading it ends with a line of error
 * or well. One thread at a time. */
int trace_reader_open(struct trace_reader **out, const char *path, struct error *err);
void trace_reader_close(struct trace_reader *r);

const struct trace_info *trace_reader_info(const struct trace_reader *r);

/* The next record: 1; 0 after the last; -errno with *err, and again at each call after it. */
int trace_reader_next(struct trace_reader *r, struct trace_record *out, struct error *err);

/* After the last record: whether the file was cut. */
bool trace_reader_cut(const struct trace_reader *r);

/* Bytes read so far, and of the file (0 where that is not known: a pipe). */
void trace_reader_position(const struct trace_reader *r, uint64_t *done, uint64_t *total);

/* ---- in memory ---- */

/*
 * How far something long is, and whether to stop: fn returns nonzero, and it ends with -ECANCELED.
 * It is called from the thread of whoever called, many times a second. fn may be NULL.
 */
struct trace_progress {
	int (*fn)(void *opaque, uint64_t done, uint64_t total);
	void *opaque;
};

/* A trace to be replayed: pages have numbers of their own, ids, in the order of their first
 * reference. 4 bytes a reference. */
struct page_trace {
	struct trace_info info;
	uint32_t *ref; /* [refs]: id << 1 | write */
	size_t refs;
	uint64_t *page; /* [pages]: the page number of an id */
	uint32_t pages;
	uint64_t writes;
	uint64_t first_ns, last_ns;
	bool cut;

	/* Of page_trace_add. */
	size_t ref_room;
	uint32_t page_room, *slot, slots;
	uint64_t salt;
};
enum { PAGE_TRACE_WRITE = 1, PAGE_TRACE_ID_SHIFT = 1 };
#define PAGE_TRACE_REFS_MAX UINT64_C(0xfffffff0) /* so that a position fits 32 bits */
#define PAGE_TRACE_PAGES_MAX 0x40000000u

/* An empty one. NULL: no memory. */
struct page_trace *page_trace_new(const struct trace_info *info);

/* 0; -ENOMEM; -EFBIG: more than PAGE_TRACE_REFS_MAX references or PAGE_TRACE_PAGES_MAX pages. */
int page_trace_add(struct page_trace *t, const struct trace_record *record);

/* The whole of a file. -ECANCELED when progress says so (progress may be NULL), else -errno with
 * *err. */
int page_trace_load(struct page_trace **out, const char *path,
		    const struct trace_progress *progress, struct error *err);

void page_trace_free(struct page_trace *t);

#endif
