/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_WORK_H
#define HANOK_DISK_WORK_H

#include "base/loop.h"

/* Threads for the requests of one disk that have to wait for the host. */
struct work_pool;

struct work {
	void (*run)(struct work *w);  /* on one of the pool's threads */
	void (*over)(struct work *w); /* then, on the loop's thread or in work_pool_destroy */
	struct work *next;
};

int work_pool_create(struct work_pool **out, struct loop *loop);
/* Lets all work queued before end, calls `over` for it, joins the threads. On the loop's thread, or
 * while it does not run. NULL is allowed. */
void work_pool_destroy(struct work_pool *p);
/* Waits till no work is left, and calls `over` for it. On the loop's thread, or while it does not run;
 * not from `over`. */
void work_pool_wait(struct work_pool *p);
/* Any thread. 0, or -EAGAIN if there is no thread to do it. w stays the pool's until it is over. */
int work_queue(struct work_pool *p, struct work *w);

#endif
