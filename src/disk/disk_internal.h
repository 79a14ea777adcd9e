/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_DISK_INTERNAL_H
#define HANOK_DISK_DISK_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk/disk.h"
#include "disk/image.h"
#include "disk/work.h"

/* What disk.c and disk_hold.c share. */

enum held { HELD_NOT, HELD_FLUSHES, HELD_ALL };

struct disk {
	struct image *image;
	uint64_t data_bytes; /* the image's, which may be exchanged meanwhile */
	bool read_only;
	char *path;
	struct disk_options opt;
	struct loop *loop;
	struct work_pool *pool;
	atomic_uint in_flight;	   /* requests begun and not over, and calls that look */
	atomic_uint held;	   /* enum held */
	atomic_int lost;	   /* -errno: what every flush says from now on */
	pthread_mutex_t hold_lock; /* guards what follows; held is set under it */
	pthread_cond_t released;
	struct disk_request *held_first, **held_last; /* linked by priv[3] */
	_Atomic uint64_t ticks_per_us;		      /* 0: not known yet */
	_Atomic uint64_t bytes[DISK_OPS], errors[DISK_OPS];
	_Atomic uint64_t latency[DISK_OPS][DISK_LATENCY_CLASSES]; /* together: all requests */
	_Atomic uint64_t at_once;
};

/* ---- disk_hold.c ---- */

/* Counts the caller as being within the image, for a request or (DISK_READ) to look; not while that is
 * held. */
bool disk_try_enter(struct disk *d, enum disk_op op);
/* Waits for it. */
void disk_enter_for(struct disk *d, enum disk_op op);
void disk_leave(struct disk *d);
/* The request goes on when the disk is released. False: it is not held any more. */
bool disk_keep_for_later(struct disk *d, struct disk_request *r);

/* ---- disk.c ---- */

/* A request of somebody who is within the image, on a thread that may wait: DISK_LATER, or -errno. */
int disk_block(struct disk *d, struct disk_request *r);
int image_open(struct image **out, const char *path, const struct disk_options *opt,
	       struct error *err);

#endif
