/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A raw image: the disk is the file. Its size is rounded up to sectors; what is missing of the last
 * one reads as zeroes. A file that is cut short while it is open gives -EIO, not zeroes.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/file.h"
#include "disk/image.h"
#include "disk/iov.h"

struct raw {
	struct image image; /* first */
	struct file *file;
	uint64_t whole_bytes; /* of whole sectors when it was opened: they must stay there */
};

static struct raw *of(struct image *im)
{
	return (struct raw *)im;
}

/* A discard is advice, and a host that cannot take it is no failure. */
static int result(enum file_op op, int rc)
{
	return op == FILE_DISCARD && rc == -EOPNOTSUPP ? 0 : rc;
}

static void over(struct file_request *f, int rc)
{
	struct disk_request *r = f->opaque;
	enum file_op op = f->op;

	free(f);
	disk_complete(r, result(op, rc));
}

static int raw_submit(struct image *im, struct disk_request *r)
{
	static const struct {
		enum file_op op;
		unsigned flags;
	} ops[DISK_OPS] = {
		[DISK_READ] = {FILE_READ, 0},
		[DISK_WRITE] = {FILE_WRITE, 0},
		[DISK_FLUSH] = {FILE_SYNC, 0},
		[DISK_DISCARD] = {FILE_DISCARD, 0},
		[DISK_WRITE_ZEROES] = {FILE_ZERO, FILE_MAY_UNMAP},
	};
	/* Most reads and writes are over at once, and need no memory of their own. */
	struct file_request now = {.op = ops[r->op].op,
				   .flags = ops[r->op].flags,
				   .offset = r->offset,
				   .bytes = r->bytes,
				   .iov = r->iov,
				   .iov_count = r->iov_count,
				   .done = over,
				   .opaque = r};
	struct file_request *f;
	int rc = -EAGAIN;

	if (r->offset + r->bytes > of(im)->whole_bytes)
		now.flags |= FILE_EOF_ZEROES;
	if (r->op == DISK_READ || r->op == DISK_WRITE) {
		now.flags |= FILE_NOW;
		rc = file_submit(of(im)->file, &now);
		now.flags &= ~(unsigned)FILE_NOW;
	}
	if (rc != -EAGAIN)
		return rc;
	f = malloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	*f = now;
	rc = file_submit(of(im)->file, f);
	if (rc == FILE_LATER)
		return DISK_LATER;
	rc = result(f->op, rc);
	free(f);
	return rc;
}

static int read_piece(struct raw *w, void *buf, uint64_t bytes, uint64_t offset)
{
	int64_t got = file_pread_some(w->file, buf, bytes, offset);

	if (got < 0)
		return (int)got;
	if ((uint64_t)got < bytes && offset + (uint64_t)got < w->whole_bytes)
		return -EIO;
	memset((char *)buf + got, 0, bytes - (uint64_t)got);
	return 0;
}

static int raw_rw(struct image *im, enum disk_op op, uint64_t offset, uint64_t bytes,
		  const struct iovec *iov, unsigned iov_count)
{
	struct iov_cursor c = iov_cursor(iov, iov_count);
	struct raw *w = of(im);
	int rc = 0;

	if (op == DISK_FLUSH)
		return file_sync(w->file);
	if (op == DISK_DISCARD)
		return result(FILE_DISCARD, file_discard(w->file, offset, bytes));
	if (op == DISK_WRITE_ZEROES)
		return file_zero(w->file, offset, bytes, FILE_MAY_UNMAP);
	while (bytes && !rc) {
		struct iovec p = iov_next(&c, bytes);
		rc = op == DISK_READ ? read_piece(w, p.iov_base, p.iov_len, offset)
				     : file_pwrite(w->file, p.iov_base, p.iov_len, offset);
		offset += p.iov_len;
		bytes -= p.iov_len;
	}
	return rc;
}

static void raw_info(struct image *im, struct disk_info *out)
{
	*out = (struct disk_info){.bytes = im->bytes,
				  .format = "raw",
				  .type = "",
				  .read_only = im->read_only,
				  .chain = 1,
				  .granule_bytes = DISK_SECTOR_BYTES};
	if (file_host_bytes(of(im)->file, &out->host_bytes))
		out->host_bytes = 0;
}

static int raw_map(struct image *im, uint64_t offset, uint64_t bytes, struct disk_run *out)
{
	uint64_t run = bytes;
	bool data = true;
	int rc = file_extent(of(im)->file, offset, &data, &run);

	if (rc == -ENXIO)
		data = false; /* in the last sector, past the file's end */
	else if (rc)
		return rc;
	/* A hole that ends within a sector ends before it. */
	run = data ? (run + DISK_SECTOR_BYTES - 1) / DISK_SECTOR_BYTES * DISK_SECTOR_BYTES
		   : run / DISK_SECTOR_BYTES * DISK_SECTOR_BYTES;
	if (!run) {
		data = true;
		run = DISK_SECTOR_BYTES;
	}
	*out = (struct disk_run){.kind = data ? DISK_RUN_DATA : DISK_RUN_HOLE,
				 .bytes = run < bytes ? run : bytes,
				 .path = data ? file_path(of(im)->file) : NULL,
				 .file_offset = data ? offset : 0};
	return 0;
}

static int raw_chain(struct image *im, unsigned depth, struct disk_link *out)
{
	if (depth)
		return -ENOENT;
	*out = (struct disk_link){
		.path = file_path(of(im)->file), .type = "", .parent_cid = UINT32_MAX};
	return file_host_bytes(of(im)->file, &out->host_bytes);
}

static void raw_close(struct image *im)
{
	file_close(of(im)->file);
	free(im);
}

static const struct image_ops raw_ops = {
	.format = "raw",
	.submit = raw_submit,
	.rw = raw_rw,
	.info = raw_info,
	.map = raw_map,
	.chain = raw_chain,
	.close = raw_close,
};

int raw_open(struct image **out, const char *path, const struct disk_options *opt,
	     struct error *err)
{
	struct file_options fopt = {.loop = opt->loop,
				    .writable = !opt->read_only,
				    .direct = opt->direct,
				    .lock = opt->read_only ? FILE_LOCK_READ : FILE_LOCK_WRITE};
	struct raw *w = calloc(1, sizeof(*w));
	uint64_t bytes;
	int rc;

	if (!w)
		return error_set(err, -ENOMEM, "disk %s: out of memory", path);
	w->image = (struct image){.ops = &raw_ops, .read_only = opt->read_only};
	rc = file_open(&w->file, path, &fopt, err);
	if (rc) {
		free(w);
		return rc;
	}
	rc = file_size(w->file, &bytes);
	if (rc)
		error_set(err, rc, "disk %s: its size cannot be read: %s", path, strerror(-rc));
	else if (!bytes || bytes > INT64_MAX - DISK_SECTOR_BYTES)
		rc = error_set(err, -EINVAL,
			       "disk %s: the file is empty; make a disk with `hanok disk create`",
			       path);
	if (rc) {
		raw_close(&w->image);
		return rc;
	}
	w->image.bytes = (bytes + DISK_SECTOR_BYTES - 1) / DISK_SECTOR_BYTES * DISK_SECTOR_BYTES;
	w->image.poll_file = w->file;
	w->whole_bytes = bytes / DISK_SECTOR_BYTES * DISK_SECTOR_BYTES;
	*out = &w->image;
	return 0;
}
