/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_LOOP_H
#define HANOK_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * The event loop: one thread that waits for file descriptors and timers and runs their callbacks.
 * A VM has one (the "I/O thread"); vCPU threads never run its callbacks.
 */
struct loop;

int loop_create(struct loop **out, struct error *err);
void loop_destroy(struct loop *loop);

/* Runs callbacks on the calling thread until loop_stop. */
void loop_run(struct loop *loop);

/* Any thread. */
void loop_stop(struct loop *loop);

/* Runs fn(opaque) once on the loop's thread, soon. Any thread. 0 or -ENOMEM. */
int loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque);

/*
 * A watched file descriptor, which stays the caller's. events are POLLIN | POLLOUT (0: none for
 * now); fn gets those that are ready (POLLHUP and POLLERR come as POLLIN). Loop thread only, or
 * before loop_run.
 */
struct loop_fd;
int loop_fd_add(struct loop *loop, int fd, int events, void (*fn)(void *opaque, int fd, int events),
		void *opaque, struct loop_fd **out);
void loop_fd_set_events(struct loop_fd *w, int events);
void loop_fd_remove(struct loop_fd *w);

/*
 * A one-shot timer with nanosecond deadlines, embedded in its owner. fn runs on the loop's thread.
 * arm and cancel may be called from any thread, also from fn; re-arming replaces the deadline. A
 * callback that has already begun is not waited for by cancel: the owner's own lock and state must
 * decide whether a late callback still means something. timer_destroy, on the loop's thread or
 * when the loop does not run, guarantees that fn is not called again.
 */
struct timer {
	struct loop *loop;
	void (*fn)(void *opaque);
	void *opaque;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC */
	uint32_t heap_index;  /* 0: not armed */
};

void timer_init(struct timer *t, struct loop *loop, void (*fn)(void *opaque), void *opaque);
void timer_arm(struct timer *t, uint64_t deadline_ns);
void timer_cancel(struct timer *t);
void timer_destroy(struct timer *t);

#endif
