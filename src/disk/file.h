/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_FILE_H
#define HANOK_DISK_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

/*
 * Files of the host under the image formats: asynchronous scatter-gather requests, and synchronous
 * helpers for the formats' metadata. file.c tells how a request finds its way.
 *
 * What is written is in the host's page cache (or, direct, on its way to the device); it is on
 * stable storage after the next FILE_SYNC or file_sync that begins after it was over.
 *
 * Threads: requests and helpers on any thread, several at once. file_open, file_close, file_lock:
 * see there.
 */
struct file;

enum file_lock {
	FILE_LOCK_NONE,
	FILE_LOCK_READ,	 /* many readers, no writer */
	FILE_LOCK_WRITE, /* one writer, no reader */
};

struct file_options {
	struct loop *loop; /* where done is called; NULL: requests are waited for in file_submit */
	bool writable;
	bool create;	     /* made new, empty, 0600; -EEXIST if there is one */
	bool direct;	     /* O_DIRECT, where the file system has it; else as without */
	enum file_lock lock; /* FILE_LOCK_WRITE needs writable */
};

/*
 * Opens a regular file or a block device. 0 or -errno, err naming the file and what to do: -ENOENT,
 * -EACCES, -EEXIST, -EBUSY: locked by somebody (err names their process if it can be found).
 * With a loop: on the loop's thread or while the loop does not run, unless another file on the same
 * loop is open meanwhile.
 */
int file_open(struct file **out, const char *path, const struct file_options *opt,
	      struct error *err);

/* Waits for the requests in flight (their done is called from here), then closes; no sync. NULL is
 * allowed. Not from within done. With a loop, the loop's last file: on its thread or while it does not run. */
void file_close(struct file *f);

/* As it was given to file_open; file_set_path after a rename (takes a copy; 0 or -ENOMEM), which no
 * other thread may meet. */
const char *file_path(const struct file *f);
int file_set_path(struct file *f, const char *path);

/* Changes the lock held on an open file, without a gap. 0, -EBUSY, or another -errno. */
int file_lock(struct file *f, enum file_lock lock, struct error *err);

/* The same file, by device and inode? */
bool file_same(const struct file *a, const struct file *b);

/* ---- requests ---- */

enum file_op {
	FILE_READ,
	FILE_WRITE,
	FILE_SYNC,    /* fdatasync: data, and the metadata needed to find them */
	FILE_DISCARD, /* punches a hole; -EOPNOTSUPP where the host's file system cannot */
	FILE_ZERO,    /* reads as zeroes afterwards; what lies past the end makes the file longer */
	FILE_OPS
};

enum {
	/* FILE_READ: what lies past the file's end reads as zeroes. Without it -EIO, for a format
	 * that says there must be data: the file was cut short. */
	FILE_EOF_ZEROES = 1,
	/* FILE_ZERO: space may be given back to the host, as by FILE_DISCARD. */
	FILE_MAY_UNMAP = 2,
	/* Waited for in file_submit, on this thread; never FILE_LATER. */
	FILE_WAIT = 4,
	/* FILE_READ, FILE_WRITE: -EAGAIN instead of FILE_LATER. Part of the range may have been
	 * read or written; the same request again, without the flag, makes it whole. */
	FILE_NOW = 8,
};

struct file_request {
	enum file_op op;
	unsigned flags;
	uint64_t offset, bytes;	 /* FILE_SYNC: 0, 0 */
	const struct iovec *iov; /* FILE_READ, FILE_WRITE: their sum is `bytes`; the caller's */
	unsigned iov_count;	 /* at most IOV_MAX */
	/* Called once if file_submit returned FILE_LATER, on the loop's thread or in file_poll or
	 * file_close, no lock held. The request may be used again or freed from there. */
	void (*done)(struct file_request *r, int rc);
	void *opaque; /* the caller's */
	/* the file's */
	struct file *file;
	struct file_request *next;
	struct iovec *rest; /* what is left of iov after a short transfer */
	uint64_t moved;
	int result;
};

enum { FILE_LATER = 1 };

/*
 * Starts a request. 0 or -errno: it is over already, done is not called; FILE_LATER: done will
 * tell. Short transfers are gone on with. -EIO and -ENOSPC are passed through; after a failed write
 * the range holds old bytes, new bytes, or some of each.
 */
int file_submit(struct file *f, struct file_request *r);

/* For whoever has to wait where the loop does not run: calls done, on this thread, for requests of
 * the file's loop (of any file) that are over; waits up to timeout_ms (-1: for ever) until there is
 * one. The number of requests completed. Not from within done. */
int file_poll(struct file *f, int timeout_ms);

/* ---- synchronous: 0 or -errno; any thread ---- */

/* All bytes or an error; past the file's end -EIO. */
int file_pread(struct file *f, void *buf, uint64_t bytes, uint64_t offset);
/* As much as there is, up to `bytes`: how much, or -errno. For probing files of unknown size. */
int64_t file_pread_some(struct file *f, void *buf, uint64_t bytes, uint64_t offset);
int file_pwrite(struct file *f, const void *buf, uint64_t bytes, uint64_t offset);
int file_sync(struct file *f);
int file_discard(struct file *f, uint64_t offset, uint64_t bytes);
/* flags: FILE_MAY_UNMAP or 0. */
int file_zero(struct file *f, uint64_t offset, uint64_t bytes, unsigned flags);
/* Makes sure that writes to the range find space; the file grows to hold it. Slow (zeroes are
 * written) where the file system cannot do it at once. */
int file_allocate(struct file *f, uint64_t offset, uint64_t bytes);
int file_truncate(struct file *f, uint64_t bytes);
int file_size(struct file *f, uint64_t *bytes);
/* Allocated on the host. */
int file_host_bytes(struct file *f, uint64_t *bytes);
/* What the host knows of the bytes at offset: *data false: a hole, reads as zeroes; *bytes: how far
 * that goes, at least 1, up to the file's end. -ENXIO: offset is at or past the end. */
int file_extent(struct file *f, uint64_t offset, bool *data, uint64_t *bytes);

/* ---- names; 0 or -errno; durable only after file_sync_folder ---- */

/* Replaces `to` if it is there, at once: there is always one or the other. */
int file_rename(const char *from, const char *to);
int file_unlink(const char *path);
/* Makes the names in the folder that holds path durable: creations, renames, unlinks. */
int file_sync_folder(const char *path);

/* Replaces the file at path by these bytes so that a crash leaves the old or the new, never a part:
 * a temporary beside it, fsync, rename, fsync of the folder. For small texts (descriptors, .vmsd). */
int file_replace(const char *path, const void *buf, uint64_t bytes, struct error *err);

/* The whole of a small file, with a 0 byte after it; free() it. -EFBIG: longer than max_bytes. */
int file_load(const char *path, uint64_t max_bytes, char **buf, uint64_t *bytes, struct error *err);

/* ---- the door to the host ---- */

/*
 * Every call that changes something on the host, or reads it, goes through one of these, so that a
 * test can put its own in between, to record the order of writes and to make them fail. Each is the
 * system call of its name, with -errno for failure. Called on any thread.
 */
struct file_backend {
	int (*open)(void *opaque, const char *path, int flags, mode_t mode);
	int (*close)(void *opaque, int fd);
	ssize_t (*preadv2)(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			   int flags);
	ssize_t (*pwritev2)(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			    int flags);
	int (*fdatasync)(void *opaque, int fd);
	int (*ftruncate)(void *opaque, int fd, off_t bytes);
	int (*fallocate)(void *opaque, int fd, int mode, off_t offset, off_t bytes);
	int (*rename)(void *opaque, const char *from, const char *to);
	int (*unlink)(void *opaque, const char *path);
	int (*sync_folder)(void *opaque, const char *folder);
	void *opaque;
};

/* Puts another backend in the place of the host's (NULL: the host's again) while no file is open.
 * Requests then never go to io_uring, which no backend would see. For tests. */
void file_set_backend(const struct file_backend *b);
/* The host's own, to be called by one that stands before it. */
extern const struct file_backend file_host_backend;

#endif
