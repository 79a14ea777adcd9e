/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests whose grains are known and allocated go straight to the host's files, in one piece for
 * each run; everything else is for a thread that may wait: tables to load, grains to allocate,
 * compressed ones.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/vmdk/vmdk.h"

enum { RUNS_MAX = 16, BOUNCE_BYTES = 256 << 10 };

unsigned vmdk_io_begin(struct chain *c)
{
	unsigned epoch = c->epoch & 1;

	atomic_fetch_add_explicit(&c->in_flight[epoch], 1, memory_order_relaxed);
	return epoch;
}

void vmdk_io_end(struct chain *c, unsigned epoch)
{
	atomic_fetch_sub_explicit(&c->in_flight[epoch], 1, memory_order_release);
}

/* ---- at once, or later ---- */

struct io;

struct part {
	struct file_request request; /* first */
	struct extent *extent;
	struct io *io;
};

/* A request that is on its way to the files. */
struct io {
	struct chain *chain;
	struct disk_request *r;
	unsigned epoch;
	atomic_uint pending; /* file requests, and one for who submits them */
	atomic_int rc;	     /* of the first that failed */
	struct part parts[];
};

static void note(struct io *io, int rc)
{
	int none = 0;

	if (rc < 0)
		atomic_compare_exchange_strong(&io->rc, &none, rc);
}

/* True: that was the last one. */
static bool put(struct io *io, unsigned n)
{
	return atomic_fetch_sub(&io->pending, n) == n;
}

static int finish(struct io *io)
{
	int rc = atomic_load(&io->rc);

	vmdk_io_end(io->chain, io->epoch);
	free(io);
	return rc;
}

/* Noted when the write is over, not when it begins: a sync in between has not seen it. */
static void part_over(struct part *p, int rc)
{
	note(p->io, rc);
	if (p->request.op == FILE_WRITE)
		atomic_store(&p->extent->unsynced, true);
}

static void over(struct file_request *f, int rc)
{
	struct part *p = (struct part *)f;
	struct io *io = p->io;
	struct disk_request *r = io->r;

	part_over(p, rc);
	if (put(io, 1))
		disk_complete(r, finish(io));
}

/* The pieces of the list that hold the next `bytes`: how many, in out. */
static unsigned slice(struct iov_cursor *c, uint64_t bytes, struct iovec *out)
{
	unsigned n = 0;

	while (bytes) {
		out[n] = iov_next(c, bytes);
		if (!out[n].iov_len)
			break;
		bytes -= out[n++].iov_len;
	}
	return n;
}

static void prepare(struct part *p, struct io *io, const struct run *run)
{
	bool write = io->r->op == DISK_WRITE;

	p->request = (struct file_request){.op = write ? FILE_WRITE : FILE_READ,
					   .offset = run->file_offset,
					   .bytes = run->bytes,
					   .done = over};
	if (!write && run->cut_short)
		p->request.flags = FILE_EOF_ZEROES;
	p->extent = run->extent;
	p->io = io;
}

static int send(struct io *io, const struct run *runs, unsigned count)
{
	struct disk_request *r = io->r;
	struct iov_cursor c = iov_cursor(r->iov, r->iov_count);
	struct iovec *iov = (struct iovec *)&io->parts[count];
	unsigned over_already = 1;

	for (unsigned i = 0; i < count; i++) {
		struct part *p = &io->parts[i];
		if (runs[i].kind != RUN_DATA) {
			iov_copy(&c, IOV_ZERO, NULL, runs[i].bytes);
			over_already++;
			continue;
		}
		prepare(p, io, &runs[i]);
		if (count == 1) {
			p->request.iov = r->iov;
			p->request.iov_count = r->iov_count;
		} else {
			p->request.iov = iov;
			p->request.iov_count = slice(&c, runs[i].bytes, iov);
			iov += p->request.iov_count;
		}
		int rc = file_submit(runs[i].extent->file, &p->request);
		if (rc == FILE_LATER)
			continue;
		part_over(p, rc);
		over_already++;
	}
	return put(io, over_already) ? finish(io) : DISK_LATER;
}

/* May this run be used without waiting? */
static bool plain(const struct run *run, bool write)
{
	if (write)
		return run->kind == RUN_DATA && run->extent->access == ACCESS_RW;
	return run->kind != RUN_COMPRESSED;
}

/* How many runs, 0 if waiting is needed. With the lock held. */
static unsigned find_runs(struct chain *c, const struct disk_request *r, struct run *runs)
{
	bool write = r->op == DISK_WRITE;
	uint64_t at = r->offset, left = r->bytes;
	unsigned n = 0;

	while (left) {
		if (n == RUNS_MAX || vmdk_run(c->top, !write, at, left, &runs[n]) ||
		    !plain(&runs[n], write))
			return 0;
		at += runs[n].bytes;
		left -= runs[n++].bytes;
	}
	return n;
}

static int submit_io(struct chain *c, struct disk_request *r)
{
	struct run runs[RUNS_MAX];
	unsigned count, epoch = 0;
	struct io *io;

	if (r->op == DISK_WRITE && !atomic_load_explicit(&c->touched, memory_order_acquire))
		return IMAGE_BLOCKS;
	pthread_mutex_lock(&c->lock);
	count = find_runs(c, r, runs);
	if (count)
		epoch = vmdk_io_begin(c);
	pthread_mutex_unlock(&c->lock);
	if (!count)
		return IMAGE_BLOCKS;
	io = malloc(sizeof(*io) + count * sizeof(io->parts[0]) +
		    (r->iov_count + count) * sizeof(struct iovec));
	if (!io) {
		vmdk_io_end(c, epoch);
		return -ENOMEM;
	}
	io->chain = c;
	io->r = r;
	io->epoch = epoch;
	atomic_init(&io->pending, count + 1);
	atomic_init(&io->rc, 0);
	return send(io, runs, count);
}

/* What a failed sync has lost is lost: no later one may say that all is well. */
static void note_lost(struct chain *c, int rc)
{
	pthread_mutex_lock(&c->lock);
	if (rc && !c->lost)
		c->lost = rc;
	pthread_mutex_unlock(&c->lock);
}

static void flushed(struct file_request *f, int rc)
{
	struct disk_request *r = f->opaque;

	note_lost(*image_priv(r), rc);
	free(f);
	disk_complete(r, rc);
}

/* A flush with nothing to write back is the file's own, if there is one file. */
static int submit_flush(struct chain *c, struct disk_request *r)
{
	struct extent *e = &c->top->extents[0];
	struct file_request *f;
	bool plain_one;
	int rc;

	if (c->image.read_only)
		return 0;
	pthread_mutex_lock(&c->lock);
	plain_one = c->top->extent_count == 1 && e->file && !vmdk_metadata_dirty(c) &&
		    !c->committing && !c->lost;
	pthread_mutex_unlock(&c->lock);
	if (!plain_one)
		return IMAGE_BLOCKS;
	if (!atomic_load(&e->unsynced))
		return 0;
	f = malloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	/* unsynced stays: another flush may begin before this sync is over. */
	*f = (struct file_request){.op = FILE_SYNC, .done = flushed, .opaque = r};
	*image_priv(r) = c;
	rc = file_submit(e->file, f);
	if (rc == FILE_LATER)
		return DISK_LATER;
	note_lost(c, rc);
	free(f);
	return rc;
}

int vmdk_submit(struct image *im, struct disk_request *r)
{
	struct chain *c = (struct chain *)im;

	switch (r->op) {
	case DISK_READ:
	case DISK_WRITE:
		return submit_io(c, r);
	case DISK_FLUSH:
		return submit_flush(c, r);
	default:
		return IMAGE_BLOCKS;
	}
}

/* ---- waiting ---- */

/* From the file, zeroes past its end if it may end there. */
static int read_file(const struct run *run, void *buf, uint64_t bytes, uint64_t at)
{
	int64_t got;

	if (!run->cut_short)
		return file_pread(run->extent->file, buf, bytes, at);
	got = file_pread_some(run->extent->file, buf, bytes, at);
	if (got < 0)
		return (int)got;
	memset((char *)buf + got, 0, bytes - (uint64_t)got);
	return 0;
}

static int read_data(const struct run *run, struct iov_cursor *to)
{
	uint64_t at = run->file_offset, left = run->bytes;
	struct iovec whole = iov_whole(to, left);
	void *bounce;
	int rc = 0;

	if (whole.iov_base)
		return read_file(run, whole.iov_base, left, at);
	bounce = aligned_alloc(4096, BOUNCE_BYTES);
	if (!bounce)
		return -ENOMEM;
	while (left && !rc) {
		uint64_t n = left < BOUNCE_BYTES ? left : BOUNCE_BYTES;
		rc = read_file(run, bounce, n, at);
		if (!rc)
			iov_copy(to, IOV_TO, bounce, n);
		at += n;
		left -= n;
	}
	free(bounce);
	return rc;
}

int vmdk_read(struct vmdk *v, uint64_t offset, uint64_t bytes, struct iov_cursor *to)
{
	struct chain *c = v->chain;
	int rc = 0;

	while (bytes && !rc) {
		struct run run;
		unsigned epoch = 0;

		pthread_mutex_lock(&c->lock);
		rc = vmdk_run_loading(v, true, offset, bytes, &run);
		if (!rc)
			epoch = vmdk_io_begin(c);
		pthread_mutex_unlock(&c->lock);
		if (rc)
			return rc;
		if (run.kind == RUN_COMPRESSED)
			rc = vmdk_read_compressed(&run,
						  (offset - run.extent->start) &
							  (run.extent->layout.grain_bytes - 1),
						  to);
		else if (run.kind == RUN_DATA)
			rc = read_data(&run, to);
		else
			iov_copy(to, IOV_ZERO, NULL, run.bytes);
		vmdk_io_end(c, epoch);
		offset += run.bytes;
		bytes -= run.bytes;
	}
	return rc;
}
