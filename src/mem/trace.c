/* SPDX-License-Identifier: Apache-2.0 */
/* Trace files, written and read; trace.h has the format. */
#include "mem/trace.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* How much is gathered before it is written. */
enum { BLOCK_BYTES = 64 << 10 };

static const char magic[8] = {'H', 'A', 'N', 'O', 'K', 'P', 'G', 'T'};

struct header {
	char magic[8];
	uint32_t version, header_bytes, page_bytes, sampling;
	uint64_t sample_period, ram_pages, end_page, zero[2];
};
static_assert(sizeof(struct header) == TRACE_HEADER_BYTES, "as trace.h has it");

struct block_head {
	uint32_t bytes, records, crc;
};
static_assert(sizeof(struct block_head) == TRACE_BLOCK_HEAD_BYTES, "as trace.h has it");

const char *trace_sampling_name(enum trace_sampling sampling)
{
	static const char *const names[] = {
		[TRACE_EVERY] = "every reference",
		[TRACE_TLB_MISSES] = "TLB misses",
		[TRACE_SYNTHETIC] = "synthetic",
	};
	static_assert(sizeof(names) / sizeof(names[0]) == TRACE_SAMPLING_END, "a name each");

	return (unsigned)sampling < TRACE_SAMPLING_END ? names[sampling] : "unknown";
}

/* What is wrong with it, or NULL. */
static const char *info_fault(const struct trace_info *i)
{
	if (i->page_bytes < 512 || i->page_bytes > 1u << 30 || i->page_bytes & (i->page_bytes - 1))
		return "its page size is no power of two from 512 bytes to 1 GiB";
	if ((unsigned)i->sampling >= TRACE_SAMPLING_END)
		return "how it was sampled is not known to this version";
	if (!i->sample_period)
		return "its sample period is 0";
	if (!i->end_page || i->end_page > UINT64_C(1) << 52)
		return "its end of pages is 0 or beyond 2^52";
	if (i->ram_pages > i->end_page)
		return "it has more pages of RAM than page numbers";
	return NULL;
}

/* ---- writing ---- */

struct trace_writer {
	pthread_mutex_t lock;
	char *path;
	int fd, error;
	uint64_t end_page;
	uint64_t page, ns;	 /* of the last record of the block */
	uint64_t last_ns;	 /* of the last record */
	uint64_t records, bytes; /* all; of the file so far */
	uint32_t block_records, fill;
	uint8_t block[TRACE_BLOCK_HEAD_BYTES + BLOCK_BYTES];
};

static int write_all(int fd, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

int trace_writer_create(struct trace_writer **out, const char *path, const struct trace_info *info,
			struct error *err)
{
	struct header h = {.version = htole32(TRACE_VERSION),
			   .header_bytes = htole32(TRACE_HEADER_BYTES),
			   .page_bytes = htole32(info->page_bytes),
			   .sampling = htole32((uint32_t)info->sampling),
			   .sample_period = htole64(info->sample_period),
			   .ram_pages = htole64(info->ram_pages),
			   .end_page = htole64(info->end_page)};
	const char *fault = info_fault(info);
	struct trace_writer *w;
	int rc;

	*out = NULL;
	if (fault)
		return error_set(err, -EINVAL, "%s: no such trace can be written: %s", path, fault);
	memcpy(h.magic, magic, sizeof(magic));
	w = calloc(1, sizeof(*w));
	if (!w || !(w->path = strdup(path))) {
		free(w);
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	}
	/* Which pages a guest touches is not everybody's business. */
	w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	rc = w->fd < 0 ? -errno : write_all(w->fd, &h, sizeof(h));
	if (rc) {
		if (w->fd >= 0)
			close(w->fd);
		free(w->path);
		free(w);
		return error_set(err, rc, "%s: the trace cannot be written: %s", path,
				 strerror(-rc));
	}
	pthread_mutex_init(&w->lock, NULL);
	w->end_page = info->end_page;
	w->bytes = sizeof(h);
	*out = w;
	return 0;
}

/* Under the lock: writes the block and begins another. */
static void write_block(struct trace_writer *w)
{
	struct block_head head = {
		.bytes = htole32(w->fill),
		.records = htole32(w->block_records),
		.crc = htole32((uint32_t)crc32(0, w->block + sizeof(head), w->fill))};

	memcpy(w->block, &head, sizeof(head));
	if (!w->error)
		w->error = write_all(w->fd, w->block, sizeof(head) + w->fill);
	w->bytes += sizeof(head) + w->fill;
	w->fill = w->block_records = 0;
	w->page = w->ns = 0;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	return p;
}

void trace_writer_add(struct trace_writer *w, uint64_t page, bool write, uint64_t ns)
{
	if (page >= w->end_page)
		return;
	pthread_mutex_lock(&w->lock);
	if (!w->error) {
		int64_t step = (int64_t)(page - w->page);
		uint64_t zigzag = (uint64_t)step << 1 ^ (uint64_t)(step >> 63);
		uint8_t *start = w->block + TRACE_BLOCK_HEAD_BYTES + w->fill, *p = start;

		if (ns < w->last_ns)
			ns = w->last_ns;
		p = put_varint(p, zigzag << 1 | write);
		p = put_varint(p, ns - w->ns);
		w->page = page;
		w->ns = w->last_ns = ns;
		w->fill += (uint32_t)(p - start);
		w->block_records++;
		w->records++;
		if (w->fill > BLOCK_BYTES - TRACE_RECORD_MAX)
			write_block(w);
	}
	pthread_mutex_unlock(&w->lock);
}

void trace_writer_size(struct trace_writer *w, uint64_t *records, uint64_t *bytes)
{
	pthread_mutex_lock(&w->lock);
	*records = w->records;
	*bytes = w->bytes + w->fill;
	pthread_mutex_unlock(&w->lock);
}

int trace_writer_finish(struct trace_writer *w, struct error *err)
{
	int rc;

	if (!w)
		return 0;
	if (w->fill)
		write_block(w);
	write_block(w); /* an empty one: the end */
	rc = w->error;
	if (close(w->fd) && !rc)
		rc = -errno;
	if (rc)
		error_set(err, rc, "%s: the trace ends early: %s; what is there can be read",
			  w->path, strerror(-rc));
	pthread_mutex_destroy(&w->lock);
	free(w->path);
	free(w);
	return rc;
}

/* ---- reading ---- */

struct trace_reader {
	char *path;
	int fd;
	struct trace_info info;
	uint64_t done, total;	 /* bytes */
	uint64_t block_at;	 /* where the block begins in the file */
	uint32_t at, fill, left; /* in block: bytes; records to come */
	uint64_t page, ns, last_ns;
	bool ended, cut;
	struct error failed;
	int error;
	uint8_t *block;
	uint32_t room;
};

/* Reads n bytes, or what there is; how many, or -errno. */
static int64_t read_some(struct trace_reader *r, void *data, size_t n)
{
	size_t got = 0;

	while (got < n) {
		ssize_t more = read(r->fd, (uint8_t *)data + got, n - got);
		if (more < 0 && errno == EINTR)
			continue;
		if (more < 0)
			return error_set(&r->failed, -errno, "%s: it could not be read: %s",
					 r->path, strerror(errno));
		if (!more)
			break;
		got += (size_t)more;
	}
	r->done += got;
	return (int64_t)got;
}

static int read_header(struct trace_reader *r, struct error *err)
{
	struct header h;
	int64_t got = read_some(r, &h, sizeof(h));
	const char *fault;

	if (got < 0)
		return error_set(err, (int)got, "%s", r->failed.text);
	if (got < (int64_t)sizeof(magic) || memcmp(h.magic, magic, sizeof(magic)))
		return error_set(err, -EINVAL,
				 "%s: this is no trace of pages; `hanok lab --help` says how one "
				 "is made",
				 r->path);
	if (got < (int64_t)sizeof(h))
		return error_set(err, -EINVAL, "%s: the trace was cut within its header", r->path);
	if (le32toh(h.version) != TRACE_VERSION)
		return error_set(err, -EINVAL,
				 "%s: a trace of version %u; this program reads version %u",
				 r->path, le32toh(h.version), TRACE_VERSION);
	r->info = (struct trace_info){.page_bytes = le32toh(h.page_bytes),
				      .sampling = (enum trace_sampling)le32toh(h.sampling),
				      .sample_period = le64toh(h.sample_period),
				      .ram_pages = le64toh(h.ram_pages),
				      .end_page = le64toh(h.end_page)};
	fault = info_fault(&r->info);
	if (!fault && (le32toh(h.header_bytes) != sizeof(h) || h.zero[0] || h.zero[1]))
		fault = "its header has an unknown form";
	if (fault)
		return error_set(err, -EINVAL, "%s: the trace is damaged: %s", r->path, fault);
	return 0;
}

int trace_reader_open(struct trace_reader **out, const char *path, struct error *err)
{
	struct trace_reader *r = calloc(1, sizeof(*r));
	struct stat st;
	int rc;

	*out = NULL;
	if (!r || !(r->path = strdup(path))) {
		free(r);
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	}
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0 || fstat(r->fd, &st))
		rc = error_set(err, -errno, "%s: the trace cannot be opened: %s", path,
			       strerror(errno));
	else
		rc = read_header(r, err);
	if (rc) {
		trace_reader_close(r);
		return rc;
	}
	r->total = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	*out = r;
	return 0;
}

void trace_reader_close(struct trace_reader *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	free(r->block);
	free(r->path);
	free(r);
}

const struct trace_info *trace_reader_info(const struct trace_reader *r)
{
	return &r->info;
}

bool trace_reader_cut(const struct trace_reader *r)
{
	return r->cut;
}

void trace_reader_position(const struct trace_reader *r, uint64_t *done, uint64_t *total)
{
	*done = r->done;
	*total = r->total;
}

static int damaged(struct trace_reader *r, const char *what)
{
	return error_set(&r->failed, -EINVAL,
			 "%s: the trace is damaged in the block at byte %llu: %s", r->path,
			 (unsigned long long)r->block_at, what);
}

/* The end, after which nothing may come. */
static int read_end(struct trace_reader *r, const struct block_head *head)
{
	uint8_t byte;
	int64_t got;

	if (head->records || head->crc)
		return damaged(r, "records without bytes");
	got = read_some(r, &byte, 1);
	if (got < 0)
		return (int)got;
	if (got)
		return damaged(r, "something follows the end");
	r->ended = true;
	return 0;
}

static int make_room(struct trace_reader *r, uint32_t bytes)
{
	if (bytes <= r->room)
		return 0;
	free(r->block);
	r->block = malloc(bytes);
	r->room = r->block ? bytes : 0;
	return r->block ? 0 : error_set(&r->failed, -ENOMEM, "%s: out of memory", r->path);
}

/* The next block into r->block; sets ended when there is none. 0 or -errno. */
static int read_block(struct trace_reader *r)
{
	struct block_head head;
	int64_t got;

	r->block_at = r->done;
	got = read_some(r, &head, sizeof(head));
	if (got < 0)
		return (int)got;
	head = (struct block_head){le32toh(head.bytes), le32toh(head.records), le32toh(head.crc)};
	if (got == (int64_t)sizeof(head) && !head.bytes)
		return read_end(r, &head);
	if (got == (int64_t)sizeof(head)) {
		if (head.bytes > TRACE_BLOCK_MAX)
			return damaged(r, "it is too long");
		/* A record has two bytes at least. */
		if (!head.records || head.records > head.bytes / 2)
			return damaged(r, "its number of records cannot be");
		got = make_room(r, head.bytes);
		if (!got)
			got = read_some(r, r->block, head.bytes);
		if (got < 0)
			return (int)got;
		if (got == head.bytes) {
			if (crc32(0, r->block, head.bytes) != head.crc)
				return damaged(r, "its checksum is wrong");
			r->at = 0;
			r->fill = head.bytes;
			r->left = head.records;
			r->page = r->ns = 0;
			return 0;
		}
	}
	r->ended = r->cut = true;
	return 0;
}

/* 0, or -1: it is cut or has more than 64 bits. */
static int get_varint(struct trace_reader *r, uint64_t *out)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && r->at < r->fill; shift += 7) {
		uint8_t byte = r->block[r->at++];
		if (shift == 63 && byte > 1)
			return -1;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*out = v;
			return 0;
		}
	}
	return -1;
}

static int get_record(struct trace_reader *r, struct trace_record *out)
{
	uint64_t key, ns;

	if (get_varint(r, &key) || get_varint(r, &ns))
		return damaged(r, "a record is cut");
	uint64_t zigzag = key >> 1;
	r->page += zigzag >> 1 ^ -(zigzag & 1);
	if (r->page >= r->info.end_page)
		return damaged(r, "a page is beyond the end of pages");
	if (__builtin_add_overflow(r->ns, ns, &r->ns) || r->ns < r->last_ns)
		return damaged(r, "time goes back");
	r->last_ns = r->ns;
	r->left--;
	if (!r->left && r->at != r->fill)
		return damaged(r, "it has more bytes than records");
	*out = (struct trace_record){.page = r->page, .ns = r->ns, .write = key & 1};
	return 1;
}

int trace_reader_next(struct trace_reader *r, struct trace_record *out, struct error *err)
{
	int rc = r->error;

	while (!rc && !r->left && !r->ended)
		rc = read_block(r);
	if (!rc && r->left)
		rc = get_record(r, out);
	if (rc < 0) {
		r->error = rc;
		return error_set(err, rc, "%s", r->failed.text);
	}
	return rc;
}
