/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_DISK_H
#define HANOK_DISK_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

/*
 * A virtual disk as its users see it: a row of sectors that is read, written, flushed and discarded,
 * whatever files lie behind it. Nothing here knows that guests exist.
 *
 * Threads: disk_submit may be called on any thread, also by several at once. Requests in flight
 * together have no order among themselves. A request that is acknowledged before a flush is
 * submitted is on stable storage when that flush is acknowledged; nothing else is promised about a
 * crash, except that what an earlier flush promised stays.
 */
enum { DISK_SECTOR_BYTES = 512 };

struct disk;

/* What was discarded reads as zeroes or as before, each sector for itself, until it is written to;
 * what was zeroed reads as zeroes. */
enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES, DISK_OPS };

struct disk_request {
	enum disk_op op;
	uint64_t offset, bytes;	 /* multiples of DISK_SECTOR_BYTES; a flush: 0, 0 */
	const struct iovec *iov; /* reads and writes; their sum is `bytes` */
	unsigned iov_count;
	/* Called once on the loop's thread, if disk_submit returned DISK_LATER, with no lock of the
	 * disk held; rc is 0 or -errno. The request, its iov and buffers stay the disk's till then. */
	void (*done)(struct disk_request *r, int rc);
	void *opaque; /* the caller's */
	/* the disk's */
	void *priv[4];
};

enum { DISK_LATER = 1 };

/*
 * Starts a request. 0 or -errno: it is over already (done is not called), as reads out of the
 * host's page cache usually are; DISK_LATER: done will tell. -EINVAL: not sectors, or past the
 * disk's end; -EROFS; -ENOSPC: the host's disk is full, nothing of the request's range that was
 * there before is lost, and the same request may succeed later; -EIO.
 */
int disk_submit(struct disk *d, struct disk_request *r);

/* The same, waited for; not on the loop's thread while the loop has to run for it (a request in
 * flight is completed by any thread that waits here). For tools, tests and firmware loaders. */
int disk_rw(struct disk *d, enum disk_op op, uint64_t offset, void *buf, uint64_t bytes);
int disk_flush(struct disk *d);

/*
 * Returns when no request of the disk is in flight; done of those that were is called from here.
 * For whoever resets, saves or destroys a controller on the loop's thread, where done cannot come
 * by itself meanwhile, or while the loop does not run. Any other thread may wait by it, too: the
 * loop need not run, and if it does, done may also come there. Nobody submits meanwhile; not from
 * done; no lock held that a done takes.
 */
void disk_drain(struct disk *d);

struct disk_info {
	uint64_t bytes;	     /* of the virtual disk */
	uint64_t host_bytes; /* allocated for it on the host, all files and parents together */
	const char *format;  /* "raw", "vmdk", ...: static */
	const char *type;    /* a VMDK's createType; "" otherwise */
	bool read_only, removable;
	unsigned chain;		/* how many images lie on each other, 1: no snapshot */
	uint32_t granule_bytes; /* of allocation; DISK_SECTOR_BYTES: none */
};
/* Any thread. */
void disk_get_info(struct disk *d, struct disk_info *out);

struct disk_options {
	struct loop *loop;  /* where done is called; NULL: only disk_rw and disk_flush are used */
	bool read_only;	    /* several processes may have it open then, if none writes */
	bool direct;	    /* O_DIRECT: past the host's page cache */
	const char *format; /* NULL: found out by the file's first bytes and its name */
	bool alone; /* without its parents: reads as zeroes where it has nothing of its own */
	bool keep_cid; /* a VMDK's content id stays when it is written to: its children see no change */
};

/* Opens an image and its parents. 0 or -errno with err saying which file, why, and what to do. */
int disk_open(struct disk **out, const char *path, const struct disk_options *opt,
	      struct error *err);
/* Waits for requests in flight, writes back what is cached (without a flush), closes. NULL is
 * allowed. The error of the last write-back is logged. */
void disk_close(struct disk *d);

/* Counters since open, for inspection. Latencies: count of requests that took [2^i, 2^(i+1)) us;
 * the last class holds all that took longer. */
enum { DISK_LATENCY_CLASSES = 24 };
struct disk_stats {
	uint64_t requests[DISK_OPS], bytes[DISK_OPS], errors[DISK_OPS];
	uint64_t latency[DISK_OPS][DISK_LATENCY_CLASSES];
	uint64_t at_once; /* requests that were over when disk_submit returned */
};
/* Any thread. */
void disk_get_stats(struct disk *d, struct disk_stats *out);

#endif
