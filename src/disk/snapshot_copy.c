/* SPDX-License-Identifier: Apache-2.0 */
/* Copying between images, run by run. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/snapshot_internal.h"

enum { BUFFER_BYTES = 1 << 20, BLOCK_BYTES = 64 << 10 };

struct copy {
	struct disk *from, *to;
	struct disk *below;
	int depth;
	bool to_empty;
	const char *what;
	char *buf;
	struct error *err;
};

static bool is_zero(const char *p, uint64_t n)
{
	return n == 0 || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* One buffer's worth: into an empty image only blocks that are not zero. */
static int put(struct copy *c, uint64_t offset, uint64_t bytes)
{
	int rc = 0;

	if (!c->to_empty)
		return disk_rw(c->to, DISK_WRITE, offset, c->buf, bytes);
	for (uint64_t at = 0, n; !rc && at < bytes; at += n) {
		/* Blocks as the other image has them, so that grains are written whole. */
		n = BLOCK_BYTES - (offset + at) % BLOCK_BYTES;
		if (n > bytes - at)
			n = bytes - at;
		if (!is_zero(c->buf + at, n))
			rc = disk_rw(c->to, DISK_WRITE, offset + at, c->buf + at, n);
	}
	return rc;
}

static int copy_data(struct copy *c, uint64_t offset, uint64_t bytes)
{
	int rc = disk_rw(c->from, DISK_READ, offset, c->buf, bytes);

	if (rc)
		return error_set(c->err, rc, "%s: reading at byte %llu: %s", c->what,
				 (unsigned long long)offset, strerror(-rc));
	rc = put(c, offset, bytes);
	if (rc)
		return error_set(c->err, rc, "%s: writing at byte %llu: %s%s", c->what,
				 (unsigned long long)offset, strerror(-rc),
				 rc == -ENOSPC ? "; make room on the host's disk" : "");
	return 0;
}

/*
 * Zeroes that have to show when `to` lies on `below`: said to be zero if its format can, which an image
 * may leave out where it reads as zero now, or written.
 */
static int zeroes_over(struct copy *c, uint64_t offset, uint64_t *bytes)
{
	struct disk_run run;
	int rc = disk_map(c->below, offset, *bytes, &run);

	*bytes = run.bytes < BUFFER_BYTES ? run.bytes : BUFFER_BYTES;
	if (rc || run.kind != DISK_RUN_DATA)
		return rc;
	rc = disk_rw(c->to, DISK_WRITE_ZEROES, offset, NULL, *bytes);
	if (!rc)
		rc = disk_map(c->to, offset, *bytes, &run);
	if (rc)
		return rc;
	*bytes = run.bytes;
	if (run.depth == 0 && run.kind != DISK_RUN_HOLE)
		return 0;
	memset(c->buf, 0, *bytes);
	return disk_rw(c->to, DISK_WRITE, offset, c->buf, *bytes);
}

static int zeroes(struct copy *c, uint64_t offset, uint64_t *bytes)
{
	int rc = c->below ? zeroes_over(c, offset, bytes)
			  : disk_rw(c->to, DISK_WRITE_ZEROES, offset, NULL, *bytes);

	if (rc)
		error_set(c->err, rc, "%s: zeroes at byte %llu: %s", c->what,
			  (unsigned long long)offset, strerror(-rc));
	return rc;
}

static int copy_run(struct copy *c, uint64_t offset, const struct disk_run *run, uint64_t *bytes)
{
	bool wanted = c->depth < 0 || run->depth == (unsigned)c->depth;

	*bytes = run->bytes;
	if (run->kind == DISK_RUN_HOLE || !wanted)
		return 0;
	if (run->kind == DISK_RUN_DATA) {
		if (*bytes > BUFFER_BYTES)
			*bytes = BUFFER_BYTES;
		return copy_data(c, offset, *bytes);
	}
	return c->to_empty ? 0 : zeroes(c, offset, bytes);
}

static int copy_all(struct copy *c, const struct snapshot_progress *progress)
{
	struct disk_info info, to;
	struct disk_run run;
	int rc = 0;

	disk_get_info(c->from, &info);
	disk_get_info(c->to, &to);
	if (to.bytes < info.bytes)
		return error_set(c->err, -EINVAL,
				 "%s: the disk has %llu bytes, what it is to go into has room for "
				 "%llu; make that as large first (hanok disk resize)",
				 c->what, (unsigned long long)info.bytes,
				 (unsigned long long)to.bytes);
	for (uint64_t at = 0, bytes = 0; !rc && at < info.bytes; at += bytes) {
		if (progress && progress->fn && progress->fn(progress->opaque, at, info.bytes))
			return error_set(c->err, -ECANCELED, "%s: stopped", c->what);
		rc = disk_map(c->from, at, info.bytes - at, &run);
		if (rc)
			return error_set(c->err, rc, "%s: the map at byte %llu: %s", c->what,
					 (unsigned long long)at, strerror(-rc));
		rc = copy_run(c, at, &run, &bytes);
	}
	return rc;
}

int snapshot_copy(struct disk *from, struct disk *to, struct disk *below, int depth, bool to_empty,
		  const char *what, const struct snapshot_progress *progress, struct error *err)
{
	struct copy c = {.from = from,
			 .to = to,
			 .below = below,
			 .depth = depth,
			 .to_empty = to_empty,
			 .what = what,
			 .err = err};
	int rc, flushed;

	if (posix_memalign((void **)&c.buf, 4096, BUFFER_BYTES))
		return error_set(err, -ENOMEM, "%s: out of memory", what);
	rc = copy_all(&c, progress);
	/* Also what was copied before a failure: it is to be no worse than before. */
	flushed = disk_flush(to);
	if (!rc && flushed)
		rc = error_set(err, flushed, "%s: cannot be made durable: %s", what,
			       strerror(-flushed));
	free(c.buf);
	return rc;
}

/* ---- clones ---- */

static int fill_stream(struct copy *c, struct disk_stream *s, uint64_t total,
		       const struct snapshot_progress *progress)
{
	struct disk_run run;
	int rc = 0;

	for (uint64_t at = 0, n; !rc && at < total; at += n) {
		n = DISK_STREAM_GRAIN_BYTES;
		if (n > total - at)
			n = total - at;
		if (progress && progress->fn && progress->fn(progress->opaque, at, total))
			return error_set(c->err, -ECANCELED, "%s: stopped", c->what);
		rc = disk_map(c->from, at, total - at, &run);
		if (!rc && run.kind != DISK_RUN_DATA && run.bytes >= n) {
			if (run.bytes > n)
				n = run.bytes / DISK_STREAM_GRAIN_BYTES * DISK_STREAM_GRAIN_BYTES;
			continue;
		}
		if (!rc)
			rc = disk_rw(c->from, DISK_READ, at, c->buf, n);
		if (rc)
			return error_set(c->err, rc, "%s: reading at byte %llu: %s", c->what,
					 (unsigned long long)at, strerror(-rc));
		if (!is_zero(c->buf, n))
			rc = disk_stream_write(s, at, c->buf, n, c->err);
	}
	return rc;
}

static int clone_stream(struct disk *from, const char *path, const struct disk_create_options *opt,
			const struct snapshot_progress *progress, struct error *err)
{
	struct copy c = {.from = from, .what = path, .err = err};
	struct disk_info info;
	struct disk_stream *s;
	int rc;

	disk_get_info(from, &info);
	if (opt->bytes > info.bytes)
		return error_set(err, -EINVAL, "%s: a compressed image is as large as its source",
				 path);
	if (posix_memalign((void **)&c.buf, 4096, DISK_STREAM_GRAIN_BYTES))
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	rc = disk_stream_create(&s, path, info.bytes, opt->adapter, err);
	if (!rc) {
		rc = fill_stream(&c, s, info.bytes, progress);
		if (rc)
			disk_stream_abort(s);
		else
			rc = disk_stream_finish(s, err);
	}
	free(c.buf);
	return rc;
}

static int clone_into(struct disk *from, const char *path, const struct disk_create_options *opt,
		      const struct snapshot_progress *progress, struct error *err)
{
	struct disk_options open_opt = {.format = opt->format};
	struct disk *to;
	int rc = disk_open(&to, path, &open_opt, err);

	if (rc)
		return rc;
	rc = snapshot_copy(from, to, NULL, -1, true, path, progress, err);
	disk_close(to);
	return rc ? rc : image_sync(path, err);
}

int snapshot_clone(const char *source, const char *path, const struct disk_create_options *opt,
		   const struct snapshot_progress *progress, struct error *err)
{
	struct disk_create_options create = *opt;
	struct disk_info info;
	struct disk *from;
	int rc = disk_open(&from, source, &(struct disk_options){.read_only = true}, err);

	if (rc)
		return rc;
	disk_get_info(from, &info);
	if (!create.bytes)
		create.bytes = info.bytes;
	if (create.type && !strcasecmp(create.type, "streamOptimized")) {
		rc = clone_stream(from, path, &create, progress, err);
	} else {
		rc = disk_create(path, &create, err);
		if (!rc) {
			rc = clone_into(from, path, &create, progress, err);
			if (rc)
				snapshot_remove_image(path, NULL);
		}
	}
	disk_close(from);
	return rc;
}
