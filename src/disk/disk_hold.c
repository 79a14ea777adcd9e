/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that are held, for live snapshots: what comes then waits in a list, or on its thread, until
 * disk_release; between the two no thread is within the image, which can be exchanged. Flushes can be
 * held for longer, while what lies below is made durable.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk_internal.h"
#include "disk/file.h"

static bool is_held(enum held held, enum disk_op op)
{
	return held == HELD_ALL || (held == HELD_FLUSHES && op == DISK_FLUSH);
}

bool disk_try_enter(struct disk *d, enum disk_op op)
{
	atomic_fetch_add(&d->in_flight, 1);
	if (!is_held(atomic_load(&d->held), op))
		return true;
	atomic_fetch_sub(&d->in_flight, 1);
	return false;
}

void disk_enter_for(struct disk *d, enum disk_op op)
{
	while (!disk_try_enter(d, op)) {
		pthread_mutex_lock(&d->hold_lock);
		while (is_held(atomic_load(&d->held), op))
			pthread_cond_wait(&d->released, &d->hold_lock);
		pthread_mutex_unlock(&d->hold_lock);
	}
}

void disk_leave(struct disk *d)
{
	atomic_fetch_sub(&d->in_flight, 1);
}

/* With the lock. */
static void keep(struct disk *d, struct disk_request *r)
{
	r->priv[3] = NULL;
	*d->held_last = r;
	d->held_last = (struct disk_request **)&r->priv[3];
}

bool disk_keep_for_later(struct disk *d, struct disk_request *r)
{
	pthread_mutex_lock(&d->hold_lock);
	bool held = is_held(atomic_load(&d->held), r->op);
	if (held)
		keep(d, r);
	pthread_mutex_unlock(&d->hold_lock);
	return held;
}

static bool keeps_any(struct disk *d)
{
	pthread_mutex_lock(&d->hold_lock);
	bool any = d->held_first;
	pthread_mutex_unlock(&d->hold_lock);
	return any;
}

/* Returns when nobody is within the image. */
static void drain_image(struct disk *d)
{
	while (d->pool && atomic_load(&d->in_flight)) {
		work_pool_wait(d->pool);
		if (atomic_load(&d->in_flight))
			file_poll(d->image->poll_file, 1);
	}
}

/* What is held is in flight, too: another thread lets go of it. */
void disk_drain(struct disk *d)
{
	drain_image(d);
	while (d->pool && keeps_any(d)) {
		file_poll(d->image->poll_file, 1);
		drain_image(d);
	}
}

void disk_hold(struct disk *d)
{
	pthread_mutex_lock(&d->hold_lock);
	atomic_store(&d->held, HELD_ALL);
	pthread_mutex_unlock(&d->hold_lock);
	drain_image(d);
	while (atomic_load(&d->in_flight))
		sched_yield(); /* no loop: calls on other threads */
}

/* Those that are still held go back into the list. */
static void release(struct disk *d, enum held held)
{
	struct disk_request *free_now = NULL, **last = &free_now, *r, *next;

	pthread_mutex_lock(&d->hold_lock);
	r = d->held_first;
	d->held_first = NULL;
	d->held_last = &d->held_first;
	for (; r; r = next) {
		next = r->priv[3];
		if (is_held(held, r->op)) {
			keep(d, r);
			continue;
		}
		atomic_fetch_add(&d->in_flight, 1);
		r->priv[3] = NULL;
		*last = r;
		last = (struct disk_request **)&r->priv[3];
	}
	atomic_store(&d->held, held);
	pthread_cond_broadcast(&d->released);
	pthread_mutex_unlock(&d->hold_lock);
	for (r = free_now; r; r = next) {
		next = r->priv[3];
		int rc = disk_block(d, r);
		if (rc != DISK_LATER)
			disk_complete(r, rc);
	}
}

void disk_release(struct disk *d)
{
	release(d, HELD_NOT);
}

void disk_release_all_but_flushes(struct disk *d)
{
	release(d, HELD_FLUSHES);
}

void disk_lose(struct disk *d, int rc)
{
	atomic_store(&d->lost, rc);
}

/* ---- what is left of a disk whose image could not be opened again ---- */

static int dead_submit(struct image *im, struct disk_request *r)
{
	(void)im, (void)r;
	return -EIO;
}

static int dead_rw(struct image *im, enum disk_op op, uint64_t offset, uint64_t bytes,
		   const struct iovec *iov, unsigned iov_count)
{
	(void)im, (void)op, (void)offset, (void)bytes, (void)iov, (void)iov_count;
	return -EIO;
}

static void dead_info(struct image *im, struct disk_info *out)
{
	*out = (struct disk_info){.bytes = im->bytes, .format = "gone", .type = ""};
}

static int dead_map(struct image *im, uint64_t offset, uint64_t bytes, struct disk_run *out)
{
	(void)im, (void)offset, (void)bytes, (void)out;
	return -EIO;
}

static int dead_chain(struct image *im, unsigned depth, struct disk_link *out)
{
	(void)im, (void)depth, (void)out;
	return -ENOENT;
}

static void dead_close(struct image *im)
{
	free(im);
}

static const struct image_ops dead_ops = {
	.format = "gone",
	.submit = dead_submit,
	.rw = dead_rw,
	.info = dead_info,
	.map = dead_map,
	.chain = dead_chain,
	.close = dead_close,
};

int disk_settle(struct disk *d)
{
	disk_enter_for(d, DISK_READ);
	int rc = d->image->ops->settle ? d->image->ops->settle(d->image) : 0;
	disk_leave(d);
	return rc;
}

int disk_lend_parents(struct disk *d, bool lend, struct error *err)
{
	disk_enter_for(d, DISK_READ);
	int rc = d->image->ops->lend ? d->image->ops->lend(d->image, lend, err) : 0;
	disk_leave(d);
	return rc;
}

int disk_write_back_held(struct disk *d)
{
	return d->image->ops->write_back ? d->image->ops->write_back(d->image) : 0;
}

int disk_detach(struct disk *d)
{
	struct image *dead = calloc(1, sizeof(*dead));

	if (!dead)
		return -ENOMEM;
	*dead = (struct image){.ops = &dead_ops, .bytes = d->data_bytes};
	d->image->ops->close(d->image);
	d->image = dead;
	return 0;
}

int disk_attach(struct disk *d, const char *path, bool keep_cid, struct error *err)
{
	struct disk_options opt = d->opt;
	struct image *dead = d->image, *im;
	char *copy = strdup(path);
	int rc;

	if (!copy)
		return error_set(err, -ENOMEM, "disk %s: out of memory", path);
	if (strcmp(path, d->path) != 0)
		opt.format = NULL; /* the old one's may be another */
	opt.keep_cid = keep_cid;
	rc = image_open(&im, path, &opt, err);
	if (rc) {
		free(copy);
		return rc;
	}
	/* Who checks a request meanwhile reads these without a lock. */
	if (im->bytes != d->data_bytes || im->read_only != d->read_only) {
		im->ops->close(im);
		free(copy);
		return error_set(err, -EINVAL, "disk %s: not of the size of %s, or read-only", path,
				 d->path);
	}
	dead->ops->close(dead);
	d->image = im;
	d->opt = opt;
	free(d->path);
	d->path = copy;
	return 0;
}

const char *disk_path(const struct disk *d)
{
	return d->path;
}
