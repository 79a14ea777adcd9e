/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_FILE_INTERNAL_H
#define HANOK_DISK_FILE_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "disk/file.h"

/* What the files behind file.h share; file.c tells how they work together. */

struct file_queue;

struct file {
	char *path;
	int fd;
	bool writable, direct, block_device;
	enum file_lock lock;
	uint32_t align, mem_align; /* direct: of offsets and lengths, of addresses; powers of two */
	uint64_t device, inode;
	struct file_queue *queue; /* NULL: everything is waited for */
	atomic_uint in_flight;
	atomic_bool nowait_read, nowait_write; /* the file system knows RWF_NOWAIT */
	atomic_uint watched_calls;
	atomic_uint_fast64_t slow_until_tsc; /* calls took long: none on the caller's thread */

	/* Direct only: parts of blocks are read, changed and written while no other write is
	 * under way. Nothing else is locked under direct_lock. */
	pthread_mutex_t direct_lock;
	pthread_cond_t direct_idle;
	unsigned direct_writes;
	bool direct_alone;
};

/* The backend in use. */
extern const struct file_backend *file_backend;

/* ---- file_sync.c: on this thread, however long it takes ---- */

/* Does what is left of the request (from r->moved on). */
int file_execute(struct file *f, struct file_request *r);
/* Copies to out, of at least r->iov_count entries, what is left of r->iov after `moved` bytes; how
 * many entries that are. */
unsigned file_iov_rest(const struct file_request *r, uint64_t moved, struct iovec *out);
/* A read that met the file's end. */
int file_read_end(const struct file_request *r);

/* ---- file_direct.c ---- */

bool file_direct_fits(const struct file *f, const struct file_request *r);
/* A read or write that does not fit, by way of a buffer that does. */
int file_direct_bounce(struct file *f, struct file_request *r);
/* Around every other write to a direct file. */
void file_direct_begin(struct file *f);
void file_direct_end(struct file *f);

/* ---- file_queue.c: requests that wait elsewhere ---- */

/* The queue of a loop, made if there is none; NULL with err. */
struct file_queue *file_queue_get(struct loop *loop, struct error *err);
void file_queue_put(struct file_queue *q);
/* Takes the request over; done will be called. */
void file_queue_submit(struct file_queue *q, struct file_request *r);
/* As file_poll. */
int file_queue_poll(struct file_queue *q, int timeout_ms);
/* Takes note of what the kernel has completed, without calling any done. */
void file_queue_reap(struct file_queue *q);
/* Does requests go to io_uring, or only to threads? For tests and `hanok doctor`. */
bool file_queue_has_uring(const struct file_queue *q);

/* ---- file_lock.c ---- */

int file_lock_set(int fd, enum file_lock from, enum file_lock to, const char *path,
		  struct error *err);

#endif
