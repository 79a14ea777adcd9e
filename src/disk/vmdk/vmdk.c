/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMDK images and chains of them.
 *
 *   disk.vmdk ─ descriptor: CID, parentCID, extents
 *      │            ├─ extent: a flat file, or a sparse one: directory ─> tables ─> grains
 *      │            └─ extent ...
 *      │ parent
 *   base.vmdk ...   read only, and with the CID that the child remembers
 *
 * The way of a request:
 *
 *   vmdk_submit ──> vmdk_run for each run of grains ──> file_submit for each      io.c, map.c
 *        │ a table is not in memory, a grain not allocated, compressed ...
 *        ▼
 *   vmdk_rw ──┬─> vmdk_read     loads tables, inflates                            io.c, zip.c
 *             ├─> vmdk_write    allocates, copies what the parent has around      write.c
 *             ├─> vmdk_discard  gives grains up                                   discard.c, free.c
 *             └─> vmdk_commit   makes data and tables durable, in that order      commit.c
 *
 * One lock for a chain guards tables and everything else in memory; it is held for a few loads, and
 * not over I/O.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/vmdk/vmdk.h"

static struct chain *of(struct image *im)
{
	return (struct chain *)im;
}

static int vmdk_rw(struct image *im, enum disk_op op, uint64_t offset, uint64_t bytes,
		   const struct iovec *iov, unsigned iov_count)
{
	struct iov_cursor c = iov_cursor(iov, iov_count);
	struct vmdk *v = of(im)->top;

	switch (op) {
	case DISK_READ:
		return vmdk_read(v, offset, bytes, &c);
	case DISK_WRITE:
		return vmdk_write(v, offset, bytes, &c);
	case DISK_FLUSH:
		return vmdk_commit(of(im));
	case DISK_DISCARD:
		return vmdk_discard(v, offset, bytes, false);
	case DISK_WRITE_ZEROES:
		return vmdk_discard(v, offset, bytes, true);
	default:
		return -EINVAL;
	}
}

static uint64_t host_bytes(const struct vmdk *v)
{
	uint64_t sum = 0, n;

	if (!file_host_bytes(v->file, &n))
		sum += n;
	for (unsigned i = 0; i < v->extent_count; i++)
		if (v->extents[i].file && !v->extents[i].shares_file &&
		    !file_host_bytes(v->extents[i].file, &n))
			sum += n;
	return sum;
}

static void vmdk_info(struct image *im, struct disk_info *out)
{
	struct chain *c = of(im);
	const struct extent *e = &c->top->extents[0];

	*out = (struct disk_info){.bytes = im->bytes,
				  .format = "vmdk",
				  .type = c->top->descriptor.create_type,
				  .read_only = im->read_only,
				  .chain = c->count,
				  .granule_bytes = DISK_SECTOR_BYTES};
	if (e->kind == EXTENT_SPARSE)
		out->granule_bytes = (uint32_t)e->layout.grain_bytes;
	for (unsigned i = 0; i < c->count; i++)
		out->host_bytes += host_bytes(c->images[i]);
}

static int vmdk_map(struct image *im, uint64_t offset, uint64_t bytes, struct disk_run *out)
{
	struct chain *c = of(im);
	struct run run;
	int rc;

	pthread_mutex_lock(&c->lock);
	rc = vmdk_run_loading(c->top, true, offset, bytes, &run);
	pthread_mutex_unlock(&c->lock);
	if (rc)
		return rc;
	*out = (struct disk_run){.bytes = run.bytes, .depth = run.image->depth};
	switch (run.kind) {
	case RUN_UNALLOCATED:
		out->kind = DISK_RUN_HOLE;
		break;
	case RUN_ZERO:
		out->kind = DISK_RUN_ZERO;
		break;
	case RUN_DATA:
		out->file_offset = run.file_offset;
		/* fall through */
	case RUN_COMPRESSED:
		out->kind = DISK_RUN_DATA;
		out->path = file_path(run.extent->file);
		out->compressed = run.kind == RUN_COMPRESSED;
	}
	return 0;
}

static int vmdk_chain(struct image *im, unsigned depth, struct disk_link *out)
{
	struct chain *c = of(im);
	const struct vmdk *v;

	if (depth >= c->count)
		return -ENOENT;
	v = c->images[depth];
	*out = (struct disk_link){.path = v->path,
				  .type = v->descriptor.create_type,
				  .host_bytes = host_bytes(v),
				  .cid = v->descriptor.cid,
				  .parent_cid = v->descriptor.parent_cid,
				  .parent_hint = v->descriptor.parent_hint};
	return 0;
}

static void clear_unclean(struct extent *e)
{
	static const uint8_t zero;

	if (e->kind == EXTENT_SPARSE && !e->layout.cowd && e->access == ACCESS_RW)
		(void)file_pwrite(e->file, &zero, 1,
				  offsetof(struct sparse_header, unclean_shutdown));
}

/* Tables are written only behind the data they point to, so writing them back takes a commit; without
 * changed tables there is nothing to write back. */
int vmdk_write_back(struct chain *c)
{
	bool dirty;
	int rc = 0;

	if (c->image.read_only || !atomic_load(&c->touched))
		return 0;
	pthread_mutex_lock(&c->lock);
	dirty = vmdk_metadata_dirty(c);
	pthread_mutex_unlock(&c->lock);
	if (dirty)
		rc = vmdk_commit(c);
	if (rc)
		return rc;
	for (unsigned i = 0; i < c->top->extent_count; i++) {
		if (c->top->extents[i].kind == EXTENT_SPARSE)
			vmdk_trim(&c->top->extents[i]);
		clear_unclean(&c->top->extents[i]);
	}
	return 0;
}

static void vmdk_close(struct image *im)
{
	struct chain *c = of(im);

	int rc = vmdk_write_back(c);

	if (rc)
		log_error(
			"disk %s: its tables cannot be written back (%s): what was written since the "
			"last flush is lost",
			c->top->path, strerror(-rc));
	vmdk_close_chain(c);
}

static int vmdk_settle(struct image *im)
{
	return im->read_only ? 0 : vmdk_touch(of(im));
}

static int lend_file(struct file *f, enum file_lock lock, struct error *err)
{
	return f ? file_lock(f, lock, err) : 0;
}

/*
 * What may be changed below: what an image above hides, and new grains with the content that shows
 * already. Tables in memory grow old by that, but say nothing wrong.
 */
static int vmdk_lend(struct image *im, bool lend, struct error *err)
{
	enum file_lock lock = lend ? FILE_LOCK_NONE : FILE_LOCK_READ;
	struct chain *c = of(im);
	int rc = 0;

	for (unsigned i = 1; i < c->count; i++) {
		struct vmdk *v = c->images[i];
		rc = rc ? rc : lend_file(v->file, lock, err);
		for (unsigned j = 0; !rc && j < v->extent_count; j++)
			if (!v->extents[j].shares_file)
				rc = lend_file(v->extents[j].file, lock, err);
	}
	return rc;
}

static int vmdk_write_back_image(struct image *im)
{
	return vmdk_write_back(of(im));
}

static const struct image_ops vmdk_ops = {
	.format = "vmdk",
	.submit = vmdk_submit,
	.rw = vmdk_rw,
	.info = vmdk_info,
	.map = vmdk_map,
	.chain = vmdk_chain,
	.settle = vmdk_settle,
	.lend = vmdk_lend,
	.write_back = vmdk_write_back_image,
	.close = vmdk_close,
};

int vmdk_open(struct image **out, const char *path, const struct disk_options *opt,
	      struct error *err)
{
	struct chain *c;
	int rc = vmdk_open_chain(&c, path, opt, false, err);

	if (rc)
		return rc;
	if (opt->alone && !opt->read_only && c->top->descriptor.parent_cid != CID_NONE) {
		vmdk_close_chain(c);
		return error_set(err, -EINVAL,
				 "disk %s: lies on a parent, and cannot be written to without it",
				 path);
	}
	c->image.ops = &vmdk_ops;
	*out = &c->image;
	return 0;
}
