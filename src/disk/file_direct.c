/* SPDX-License-Identifier: Apache-2.0 */
/*
 * O_DIRECT wants offsets, lengths and addresses aligned. What is not goes through a buffer that is;
 * a write to a part of a block reads the block first, and to lose nothing of a write to the rest of
 * that block it waits until it is alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "disk/file_internal.h"

enum { BOUNCE_BYTES = 1 << 20 };

static uint64_t align_down(uint64_t v, uint64_t a)
{
	return v & ~(a - 1);
}

static uint64_t align_up(uint64_t v, uint64_t a)
{
	return align_down(v + a - 1, a);
}

static bool range_fits(const struct file *f, const struct file_request *r)
{
	return !((r->offset | r->bytes) & (f->align - 1));
}

bool file_direct_fits(const struct file *f, const struct file_request *r)
{
	if (!range_fits(f, r))
		return false;
	for (unsigned i = 0; i < r->iov_count; i++)
		if (((uintptr_t)r->iov[i].iov_base & (f->mem_align - 1)) ||
		    (r->iov[i].iov_len & (f->align - 1)))
			return false;
	return true;
}

/* ---- who writes meanwhile ---- */

void file_direct_begin(struct file *f)
{
	pthread_mutex_lock(&f->direct_lock);
	while (f->direct_alone)
		pthread_cond_wait(&f->direct_idle, &f->direct_lock);
	f->direct_writes++;
	pthread_mutex_unlock(&f->direct_lock);
}

void file_direct_end(struct file *f)
{
	pthread_mutex_lock(&f->direct_lock);
	f->direct_writes--;
	pthread_cond_broadcast(&f->direct_idle);
	pthread_mutex_unlock(&f->direct_lock);
}

/* Writes under way end when the kernel's completions are seen, for which this thread has to look
 * itself: it may be the one that does so otherwise. */
static void be_alone(struct file *f)
{
	pthread_mutex_lock(&f->direct_lock);
	while (f->direct_alone)
		pthread_cond_wait(&f->direct_idle, &f->direct_lock);
	f->direct_alone = true;
	while (f->direct_writes) {
		pthread_mutex_unlock(&f->direct_lock);
		if (f->queue)
			file_queue_reap(f->queue);
		pthread_mutex_lock(&f->direct_lock);
		if (!f->direct_writes)
			break;
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&f->direct_idle, &f->direct_lock, &until);
	}
	pthread_mutex_unlock(&f->direct_lock);
}

static void not_alone(struct file *f)
{
	pthread_mutex_lock(&f->direct_lock);
	f->direct_alone = false;
	pthread_cond_broadcast(&f->direct_idle);
	pthread_mutex_unlock(&f->direct_lock);
}

/* ---- the buffer ---- */

static void copy(const struct file_request *r, uint64_t at, char *buf, uint64_t n, bool to_buf)
{
	for (unsigned i = 0; i < r->iov_count && n; i++) {
		const struct iovec *v = &r->iov[i];
		if (at >= v->iov_len) {
			at -= v->iov_len;
			continue;
		}
		uint64_t part = v->iov_len - at < n ? v->iov_len - at : n;
		char *mem = (char *)v->iov_base + at;
		memcpy(to_buf ? buf : mem, to_buf ? mem : buf, part);
		buf += part;
		n -= part;
		at = 0;
	}
}

/* How much there is of it, or -errno. */
static int64_t read_blocks(struct file *f, char *buf, uint64_t bytes, uint64_t offset)
{
	uint64_t got = 0;

	while (got < bytes) {
		struct iovec iov = {buf + got, bytes - got};
		ssize_t n = file_backend->preadv2(file_backend->opaque, f->fd, &iov, 1,
						  (off_t)(offset + got), 0);
		if (n < 0)
			return n;
		got += (uint64_t)n;
		if (n == 0 || got % f->align)
			break;
	}
	return (int64_t)got;
}

static int write_blocks(struct file *f, char *buf, uint64_t bytes, uint64_t offset)
{
	uint64_t put = 0;

	while (put < bytes) {
		struct iovec iov = {buf + put, bytes - put};
		ssize_t n = file_backend->pwritev2(file_backend->opaque, f->fd, &iov, 1,
						   (off_t)(offset + put), 0);
		if (n < 0)
			return (int)n;
		if (n == 0 || n % f->align)
			return -EIO;
		put += (uint64_t)n;
	}
	return 0;
}

static int bounce_read(struct file *f, struct file_request *r, char *buf)
{
	while (r->moved < r->bytes) {
		uint64_t at = r->offset + r->moved, start = align_down(at, f->align);
		uint64_t end = align_up(r->offset + r->bytes, f->align);
		if (end > start + BOUNCE_BYTES)
			end = start + BOUNCE_BYTES;
		int64_t got = read_blocks(f, buf, end - start, start);
		if (got < 0)
			return (int)got;
		if (start + (uint64_t)got <= at)
			return file_read_end(r);
		uint64_t n = start + (uint64_t)got - at;
		if (n > r->bytes - r->moved)
			n = r->bytes - r->moved;
		copy(r, r->moved, buf + (at - start), n, false);
		r->moved += n;
	}
	return 0;
}

/* Whole blocks of old contents where the window's ends need them. */
static int fill_window(struct file *f, char *buf, uint64_t start, uint64_t end)
{
	int64_t got = read_blocks(f, buf, end - start, start);

	if (got < 0)
		return (int)got;
	memset(buf + got, 0, end - start - (uint64_t)got);
	return 0;
}

static int bounce_write(struct file *f, struct file_request *r, char *buf)
{
	uint64_t size, last = r->offset + r->bytes;
	int rc = file_size(f, &size);

	while (!rc && r->moved < r->bytes) {
		uint64_t at = r->offset + r->moved, start = align_down(at, f->align);
		uint64_t end = align_up(last, f->align);
		if (end > start + BOUNCE_BYTES)
			end = start + BOUNCE_BYTES;
		uint64_t n = (end < last ? end : last) - at;
		if (start < at || at + n < end)
			rc = fill_window(f, buf, start, end);
		if (rc)
			break;
		copy(r, r->moved, buf + (at - start), n, true);
		rc = write_blocks(f, buf, end - start, start);
		r->moved += n;
	}
	/* The last block made the file longer than asked. */
	if (last < size)
		last = size;
	if (!rc && !f->block_device && align_up(last, f->align) > last &&
	    r->offset + r->bytes > align_down(last, f->align))
		rc = file_backend->ftruncate(file_backend->opaque, f->fd, (off_t)last);
	return rc;
}

int file_direct_bounce(struct file *f, struct file_request *r)
{
	bool parts = !range_fits(f, r);
	void *buf;
	int rc;

	if (posix_memalign(&buf, f->mem_align > 4096 ? f->mem_align : 4096, BOUNCE_BYTES))
		return -ENOMEM;
	if (r->op == FILE_READ) {
		rc = bounce_read(f, r, buf);
	} else {
		if (parts)
			be_alone(f);
		else
			file_direct_begin(f);
		rc = bounce_write(f, r, buf);
		if (parts)
			not_alone(f);
		else
			file_direct_end(f);
	}
	free(buf);
	return rc;
}
