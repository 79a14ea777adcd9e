/* SPDX-License-Identifier: Apache-2.0 */
/* Requests done on this thread, however long it takes; and the synchronous helpers over them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/file_internal.h"

enum {
	WINDOW = 64,		 /* iovs of one call after a short transfer */
	ZEROES_BYTES = 64 << 10, /* written at a time */
};

static const _Alignas(4096) char zeroes[ZEROES_BYTES];

/* Fills out with up to `max` entries of what is left after `moved` bytes. */
static unsigned window(const struct iovec *iov, unsigned count, uint64_t moved, struct iovec *out,
		       unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count && n < max; i++) {
		if (moved >= iov[i].iov_len) {
			moved -= iov[i].iov_len;
			continue;
		}
		out[n++] = (struct iovec){(char *)iov[i].iov_base + moved, iov[i].iov_len - moved};
		moved = 0;
	}
	return n;
}

unsigned file_iov_rest(const struct file_request *r, uint64_t moved, struct iovec *out)
{
	return window(r->iov, r->iov_count, moved, out, r->iov_count);
}

int file_read_end(const struct file_request *r)
{
	uint64_t skip = r->moved;

	if (!(r->flags & FILE_EOF_ZEROES))
		return -EIO;
	for (unsigned i = 0; i < r->iov_count; i++) {
		size_t len = r->iov[i].iov_len, from = skip < len ? skip : len;
		memset((char *)r->iov[i].iov_base + from, 0, len - from);
		skip -= from;
	}
	return 0;
}

/* One call; the whole of r->iov if nothing was moved yet. */
static ssize_t transfer(struct file *f, struct file_request *r)
{
	const struct iovec *iov = r->iov;
	struct iovec rest[WINDOW];
	unsigned n = r->iov_count;

	if (r->moved) {
		n = window(r->iov, r->iov_count, r->moved, rest, WINDOW);
		iov = rest;
	}
	off_t at = (off_t)(r->offset + r->moved);
	if (r->op == FILE_READ)
		return file_backend->preadv2(file_backend->opaque, f->fd, iov, (int)n, at, 0);
	return file_backend->pwritev2(file_backend->opaque, f->fd, iov, (int)n, at, 0);
}

static int read_or_write(struct file *f, struct file_request *r)
{
	while (r->moved < r->bytes) {
		ssize_t n = transfer(f, r);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return r->op == FILE_READ ? file_read_end(r) : -EIO;
		r->moved += (uint64_t)n;
		/* No direct call can go on from within a block: reads end so at the file's end. */
		if (r->moved < r->bytes && f->direct && r->moved % f->align)
			return r->op == FILE_READ ? file_read_end(r) : -EIO;
	}
	return 0;
}

static int read_or_write_direct(struct file *f, struct file_request *r)
{
	int rc;

	if (!file_direct_fits(f, r))
		return file_direct_bounce(f, r);
	if (r->op == FILE_READ)
		return read_or_write(f, r);
	file_direct_begin(f);
	rc = read_or_write(f, r);
	file_direct_end(f);
	return rc;
}

static int fallocate_range(struct file *f, int mode, uint64_t offset, uint64_t bytes)
{
	int rc = file_backend->fallocate(file_backend->opaque, f->fd, mode, (off_t)offset,
					 (off_t)bytes);

	/* A block device that cannot says so by ENODEV or, in old kernels, EINVAL. */
	if (rc == -ENOSYS || rc == -ENODEV || (rc == -EINVAL && f->block_device))
		rc = -EOPNOTSUPP;
	return rc;
}

static int write_zeroes(struct file *f, uint64_t offset, uint64_t bytes)
{
	while (bytes) {
		uint64_t n = bytes < ZEROES_BYTES ? bytes : ZEROES_BYTES;
		int rc = file_pwrite(f, zeroes, n, offset);
		if (rc)
			return rc;
		offset += n;
		bytes -= n;
	}
	return 0;
}

/*
 * Zeroes by the file system if it can. Past the end the file only has to become longer, and a byte
 * written at the range's end does that without getting in the way of anybody who makes the file
 * longer still, as ftruncate to a length read before would.
 */
static int zero(struct file *f, uint64_t offset, uint64_t bytes, unsigned flags)
{
	uint64_t size, end = offset + bytes;
	int rc = file_size(f, &size);

	if (rc)
		return rc;
	if (end > size && !f->block_device) {
		rc = write_zeroes(f, end - 1, 1);
		if (rc || offset >= size)
			return rc;
		bytes = size - offset;
	}
	rc = -EOPNOTSUPP;
	if (flags & FILE_MAY_UNMAP)
		rc = fallocate_range(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
	if (rc == -EOPNOTSUPP)
		rc = fallocate_range(f, FALLOC_FL_ZERO_RANGE, offset, bytes);
	if (rc == -EOPNOTSUPP)
		rc = write_zeroes(f, offset, bytes);
	return rc;
}

int file_execute(struct file *f, struct file_request *r)
{
	switch (r->op) {
	case FILE_READ:
	case FILE_WRITE:
		return f->direct ? read_or_write_direct(f, r) : read_or_write(f, r);
	case FILE_SYNC:
		return file_backend->fdatasync(file_backend->opaque, f->fd);
	case FILE_DISCARD:
		return fallocate_range(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r->offset,
				       r->bytes);
	case FILE_ZERO:
		return zero(f, r->offset, r->bytes, r->flags);
	default:
		return -EINVAL;
	}
}

/* ---- helpers ---- */

static int wait_for(struct file *f, enum file_op op, uint64_t offset, void *buf, uint64_t bytes,
		    unsigned flags)
{
	struct iovec iov = {buf, bytes};
	struct file_request r = {.op = op,
				 .flags = flags | FILE_WAIT,
				 .offset = offset,
				 .bytes = bytes,
				 .iov = buf ? &iov : NULL,
				 .iov_count = buf ? 1 : 0};
	return file_submit(f, &r);
}

int file_pread(struct file *f, void *buf, uint64_t bytes, uint64_t offset)
{
	return wait_for(f, FILE_READ, offset, buf, bytes, 0);
}

int64_t file_pread_some(struct file *f, void *buf, uint64_t bytes, uint64_t offset)
{
	uint64_t size;
	int rc = file_size(f, &size);

	if (rc)
		return rc;
	if (offset >= size)
		return 0;
	if (bytes > size - offset)
		bytes = size - offset;
	rc = file_pread(f, buf, bytes, offset);
	return rc ? rc : (int64_t)bytes;
}

int file_pwrite(struct file *f, const void *buf, uint64_t bytes, uint64_t offset)
{
	return wait_for(f, FILE_WRITE, offset, (void *)(uintptr_t)buf, bytes, 0);
}

int file_sync(struct file *f)
{
	return wait_for(f, FILE_SYNC, 0, NULL, 0, 0);
}

int file_discard(struct file *f, uint64_t offset, uint64_t bytes)
{
	return wait_for(f, FILE_DISCARD, offset, NULL, bytes, 0);
}

int file_zero(struct file *f, uint64_t offset, uint64_t bytes, unsigned flags)
{
	return wait_for(f, FILE_ZERO, offset, NULL, bytes, flags);
}

/* Keeps what is there: only holes are written to. */
static int fill_holes(struct file *f, uint64_t offset, uint64_t bytes)
{
	uint64_t size, n, end = offset + bytes;
	bool data;
	int rc = file_size(f, &size);

	while (!rc && offset < end) {
		n = end - offset;
		data = false;
		if (offset < size)
			rc = file_extent(f, offset, &data, &n);
		if (rc)
			return rc;
		if (n > end - offset)
			n = end - offset;
		if (!data)
			rc = write_zeroes(f, offset, n);
		offset += n;
	}
	return rc;
}

int file_allocate(struct file *f, uint64_t offset, uint64_t bytes)
{
	if (!f->writable)
		return -EBADF;
	if (!bytes)
		return 0;
	if (offset > INT64_MAX || bytes > INT64_MAX - offset)
		return -EFBIG;
	int rc = fallocate_range(f, 0, offset, bytes);
	return rc == -EOPNOTSUPP ? fill_holes(f, offset, bytes) : rc;
}

int file_truncate(struct file *f, uint64_t bytes)
{
	if (!f->writable)
		return -EBADF;
	if (bytes > INT64_MAX)
		return -EFBIG;
	return file_backend->ftruncate(file_backend->opaque, f->fd, (off_t)bytes);
}

int file_size(struct file *f, uint64_t *bytes)
{
	struct stat st;

	if (f->block_device) {
		/* The position is nobody's: all calls name their offset. */
		off_t end = lseek(f->fd, 0, SEEK_END);
		if (end < 0)
			return -errno;
		*bytes = (uint64_t)end;
		return 0;
	}
	if (fstat(f->fd, &st) < 0)
		return -errno;
	*bytes = (uint64_t)st.st_size;
	return 0;
}

int file_host_bytes(struct file *f, uint64_t *bytes)
{
	struct stat st;

	if (f->block_device)
		return file_size(f, bytes);
	if (fstat(f->fd, &st) < 0)
		return -errno;
	*bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

int file_extent(struct file *f, uint64_t offset, bool *data, uint64_t *bytes)
{
	uint64_t size;
	int rc = file_size(f, &size);

	if (rc)
		return rc;
	if (offset >= size)
		return -ENXIO;
	*data = true;
	*bytes = size - offset;
	off_t start = lseek(f->fd, (off_t)offset, SEEK_DATA);
	if (start < 0)
		/* ENXIO: a hole up to the end. Anything else: no holes are known. */
		*data = errno != ENXIO;
	else if ((uint64_t)start > offset) {
		*data = false;
		*bytes = (uint64_t)start - offset;
	} else {
		off_t hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
		if (hole > (off_t)offset)
			*bytes = (uint64_t)hole - offset;
	}
	if (*bytes > size - offset)
		*bytes = size - offset;
	return 0;
}
