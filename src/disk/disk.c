/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks, whatever their format: requests are checked, counted and timed here, and find the thread
 * they need.
 *
 *   disk_submit ─> submit of the format ──┬─> over at once
 *                                         ├─> DISK_LATER: a request to the host's file is on its
 *                                         │   way, whose end calls disk_complete
 *                                         └─> IMAGE_BLOCKS: work.c ─> rw of the format, on a thread
 *                                             that may wait ─> done, on the loop's thread
 *   disk_rw ────> rw of the format, on the caller's thread
 *
 * So a format is written once for the hot path, where everything needed is known and nothing may
 * block, and once, plainly, for all the rest.
 *
 * Before it enters an image, a request sees whether the disk is held (disk_hold.c), for live snapshots.
 */
#include "disk/disk.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "disk/disk_internal.h"
#include "disk/file.h"

/* A request that a thread of the pool does. */
struct blocked {
	struct work work; /* first */
	struct disk *disk;
	struct disk_request *r;
	int rc;
};

/* priv[0]: when it began, by the TSC, which costs less to read than a clock; priv[1]: its disk;
 * priv[2]: the image's (image_priv); priv[3]: the next one that is held. */
static void begin(struct disk *d, struct disk_request *r)
{
	r->priv[0] = (void *)(uintptr_t)clock_tsc();
	r->priv[1] = d;
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static unsigned latency_class(uint64_t us)
{
	unsigned i = us ? 63 - (unsigned)__builtin_clzll(us) : 0;

	return i < DISK_LATENCY_CLASSES ? i : DISK_LATENCY_CLASSES - 1;
}

static void account(struct disk *d, enum disk_op op, uint64_t bytes, uint64_t since_tsc, int rc)
{
	uint64_t per_us = atomic_load_explicit(&d->ticks_per_us, memory_order_relaxed);
	uint64_t ticks = clock_tsc() - since_tsc;

	if (!per_us) {
		per_us = clock_tsc_hz() / 1000000 + 1;
		atomic_store(&d->ticks_per_us, per_us);
	}
	if (rc)
		add(&d->errors[op], 1);
	else
		add(&d->bytes[op], bytes);
	add(&d->latency[op][latency_class(ticks / per_us)], 1);
}

void disk_complete(struct disk_request *r, int rc)
{
	struct disk *d = r->priv[1];

	account(d, r->op, r->bytes, (uintptr_t)r->priv[0], rc);
	atomic_fetch_sub(&d->in_flight, 1);
	r->done(r, rc);
}

/* -errno, 0 if there is something to do, 1 if there is nothing. */
static int check(const struct disk *d, const struct disk_request *r)
{
	uint64_t sum = 0;

	if ((unsigned)r->op >= DISK_OPS)
		return -EINVAL;
	if (r->op == DISK_FLUSH)
		return r->offset || r->bytes ? -EINVAL : 0;
	if ((r->offset | r->bytes) % DISK_SECTOR_BYTES)
		return -EINVAL;
	if (r->offset > d->data_bytes || r->bytes > d->data_bytes - r->offset)
		return -EINVAL;
	if (r->op == DISK_READ || r->op == DISK_WRITE) {
		for (unsigned i = 0; i < r->iov_count; i++)
			if (__builtin_add_overflow(sum, r->iov[i].iov_len, &sum))
				return -EINVAL;
		if (sum != r->bytes)
			return -EINVAL;
	}
	if (r->op != DISK_READ && d->read_only)
		return -EROFS;
	return !r->bytes;
}

/* ---- requests that wait ---- */

/* Flushes that cannot be true any more fail. */
static int image_rw(struct disk *d, const struct disk_request *r)
{
	int lost = r->op == DISK_FLUSH ? atomic_load(&d->lost) : 0;

	return lost ? lost
		    : d->image->ops->rw(d->image, r->op, r->offset, r->bytes, r->iov, r->iov_count);
}

static void blocked_run(struct work *w)
{
	struct blocked *b = (struct blocked *)w;
	struct disk_request *r = b->r;

	b->rc = image_rw(b->disk, r);
}

static void blocked_over(struct work *w)
{
	struct blocked *b = (struct blocked *)w;
	struct disk_request *r = b->r;
	int rc = b->rc;

	free(b);
	disk_complete(r, rc);
}

int disk_block(struct disk *d, struct disk_request *r)
{
	struct blocked *b = malloc(sizeof(*b));
	int rc;

	if (!b)
		return -ENOMEM;
	*b = (struct blocked){
		.work = {.run = blocked_run, .over = blocked_over}, .disk = d, .r = r};
	rc = work_queue(d->pool, &b->work);
	if (rc) {
		free(b);
		return rc;
	}
	return DISK_LATER;
}

/* ---- requests ---- */

static int rw(struct disk *d, struct disk_request *r)
{
	disk_enter_for(d, r->op);
	int rc = image_rw(d, r);
	disk_leave(d);
	return rc;
}

static int start(struct disk *d, struct disk_request *r)
{
	int rc = IMAGE_BLOCKS;

	if (!d->loop)
		return rw(d, r);
	/* Counted first: it may be over on the loop's thread before submit returns. */
	while (!disk_try_enter(d, r->op))
		if (disk_keep_for_later(d, r))
			return DISK_LATER;
	if (r->iov_count <= IOV_MAX && !(r->op == DISK_FLUSH && atomic_load(&d->lost)))
		rc = d->image->ops->submit(d->image, r);
	if (rc == IMAGE_BLOCKS)
		rc = disk_block(d, r);
	if (rc != DISK_LATER)
		disk_leave(d);
	return rc;
}

int disk_submit(struct disk *d, struct disk_request *r)
{
	int rc = check(d, r);

	begin(d, r);
	if (!rc)
		rc = start(d, r);
	else if (rc > 0)
		rc = 0;
	if (rc == DISK_LATER)
		return rc;
	if ((unsigned)r->op < DISK_OPS)
		account(d, r->op, r->bytes, (uintptr_t)r->priv[0], rc);
	add(&d->at_once, 1);
	return rc;
}

int disk_rw(struct disk *d, enum disk_op op, uint64_t offset, void *buf, uint64_t bytes)
{
	struct iovec iov = {buf, bytes};
	struct disk_request r = {
		.op = op, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
	int rc = check(d, &r);

	begin(d, &r);
	if (!rc)
		rc = rw(d, &r);
	else if (rc > 0)
		rc = 0;
	if ((unsigned)op < DISK_OPS)
		account(d, op, bytes, (uintptr_t)r.priv[0], rc);
	return rc;
}

int disk_flush(struct disk *d)
{
	return disk_rw(d, DISK_FLUSH, 0, NULL, 0);
}

/* ---- looking ---- */

void disk_get_info(struct disk *d, struct disk_info *out)
{
	disk_enter_for(d, DISK_READ);
	d->image->ops->info(d->image, out);
	disk_leave(d);
}

int disk_map(struct disk *d, uint64_t offset, uint64_t bytes, struct disk_run *out)
{
	if ((offset | bytes) % DISK_SECTOR_BYTES || !bytes || offset >= d->data_bytes ||
	    bytes > d->data_bytes - offset)
		return -EINVAL;
	disk_enter_for(d, DISK_READ);
	int rc = d->image->ops->map(d->image, offset, bytes, out);
	disk_leave(d);
	return rc;
}

int disk_chain(struct disk *d, unsigned depth, struct disk_link *out)
{
	disk_enter_for(d, DISK_READ);
	int rc = d->image->ops->chain(d->image, depth, out);
	disk_leave(d);
	return rc;
}

void disk_get_stats(struct disk *d, struct disk_stats *out)
{
	for (unsigned op = 0; op < DISK_OPS; op++) {
		out->requests[op] = 0;
		out->bytes[op] = atomic_load(&d->bytes[op]);
		out->errors[op] = atomic_load(&d->errors[op]);
		for (unsigned i = 0; i < DISK_LATENCY_CLASSES; i++)
			out->requests[op] += out->latency[op][i] = atomic_load(&d->latency[op][i]);
	}
	out->at_once = atomic_load(&d->at_once);
}

/* ---- opening an image ---- */

static bool named(const char *path, const char *ending)
{
	size_t n = strlen(path), m = strlen(ending);

	return n > m && !strcasecmp(path + n - m, ending);
}

/* The head of the file: is it one of ours? */
static bool looks_like_vmdk(const char *head, size_t bytes)
{
	static const char text[] = "# Disk DescriptorFile";

	return bytes >= sizeof(text) && (!memcmp(head, "KDMV", 4) || !memcmp(head, "COWD", 4) ||
					 !strncasecmp(head, text, sizeof(text) - 1));
}

/*
 * The name decides, and the content may only object: a guest writes the first bytes of its raw disk,
 * and must not make a VMDK of it that names other files of the host.
 */
static int guess_format(const char *path, const char **format, struct error *err)
{
	struct file_options opt = {0};
	char head[64] = "";
	struct file *f;
	int64_t got;
	int rc = file_open(&f, path, &opt, err);

	if (rc)
		return rc;
	got = file_pread_some(f, head, sizeof(head), 0);
	file_close(f);
	if (got < 0)
		return error_set(err, (int)got, "disk %s: cannot be read: %s", path,
				 strerror((int)-got));
	*format = named(path, ".vmdk") ? "vmdk" : "raw";
	if (!strcmp(*format, "raw") && looks_like_vmdk(head, (size_t)got))
		return error_set(
			err, -EINVAL,
			"disk %s: begins like a VMDK but is not named .vmdk; rename it, or "
			"give its format",
			path);
	return 0;
}

int image_open(struct image **out, const char *path, const struct disk_options *opt,
	       struct error *err)
{
	const char *format = opt->format;
	int rc = 0;

	*out = NULL;
	if (!format)
		rc = guess_format(path, &format, err);
	if (rc)
		return rc;
	if (!strcmp(format, "raw"))
		return raw_open(out, path, opt, err);
	if (!strcmp(format, "vmdk"))
		return vmdk_open(out, path, opt, err);
	return error_set(err, -EINVAL, "disk %s: format %s is not known; there are raw and vmdk",
			 path, format);
}

static void take_image(struct disk *d, struct image *im)
{
	d->image = im;
	d->data_bytes = im->bytes;
	d->read_only = im->read_only;
}

/* ---- life ---- */

static int open_parts(struct disk *d, const char *path, struct error *err)
{
	struct image *im;
	int rc;

	d->path = strdup(path);
	if (!d->path)
		return error_set(err, -ENOMEM, "disk %s: out of memory", path);
	rc = image_open(&im, path, &d->opt, err);
	if (rc)
		return rc;
	take_image(d, im);
	if (!d->loop)
		return 0;
	rc = work_pool_create(&d->pool, d->loop);
	if (rc)
		error_set(err, rc, "disk %s: no worker threads: %s", path, strerror(-rc));
	return rc;
}

int disk_open(struct disk **out, const char *path, const struct disk_options *opt,
	      struct error *err)
{
	struct disk *d = calloc(1, sizeof(*d));
	int rc;

	*out = NULL;
	if (!d)
		return error_set(err, -ENOMEM, "disk %s: out of memory", path);
	d->opt = *opt;
	d->loop = opt->loop;
	d->held_last = &d->held_first;
	/* Which may have to be measured: not by tools that only look at an image. */
	if (opt->loop)
		d->ticks_per_us = clock_tsc_hz() / 1000000 + 1;
	pthread_mutex_init(&d->hold_lock, NULL);
	pthread_cond_init(&d->released, NULL);
	rc = open_parts(d, path, err);
	if (rc) {
		disk_close(d);
		return rc;
	}
	*out = d;
	return 0;
}

void disk_close(struct disk *d)
{
	if (!d)
		return;
	disk_drain(d);
	work_pool_destroy(d->pool);
	if (d->image)
		d->image->ops->close(d->image);
	pthread_mutex_destroy(&d->hold_lock);
	pthread_cond_destroy(&d->released);
	free(d->path);
	free(d);
}
