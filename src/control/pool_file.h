/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_POOL_FILE_H
#define HANOK_CONTROL_POOL_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/*
 * The file that one user's machines tell each other of their memory by: `pool` in vm_runtime(), mode 0600.
 *
 *     0      header: magic, version, the pool's size
 *     4096   POOL_MEMBERS slots of 256 bytes, a machine's numbers each
 *
 * There is no daemon. Who has a slot keeps an open-file-description lock (fcntl(2)) on its bytes, which goes
 * with the process however that ends; so a slot that is not locked is free, whatever is in it. A slot
 * is written by its owner alone, read by all; header and slots have a checksum, and what is half
 * written is passed over. Nothing is mapped: a file that is cut off is a short read, not a SIGBUS.
 * Nobody waits for a lock that a stopped process might hold.
 */
enum { POOL_MEMBERS = 256, POOL_NAME_BYTES = 96 };

struct pool_member {
	uint64_t pid;
	uint64_t beat_ns; /* clock_ns() when it was written */
	uint64_t ram_bytes, min_bytes, shares;
	uint64_t limit_bytes;	 /* its own, as configured; 0: none */
	uint64_t used_bytes;	 /* host memory for its RAM and its compressed pages */
	uint64_t touched_bytes;	 /* all its contents, swapped out or not */
	uint64_t active_bytes;	 /* its working set */
	uint64_t entitled_bytes; /* by mem_entitle; 0: there is no pool */
	uint64_t kept_bytes;	 /* the limit it keeps now; 0: none */
	uint64_t equal_bytes;	 /* held in common by KSM */
	char name[POOL_NAME_BYTES];
};

struct pool_file;

/*
 * Opens the file, and makes it when it is not there and `create` says so. 0; -ENOENT: there is none; or
 * another -errno with one line in *err (err may be NULL). NULL is allowed in pool_file_close.
 */
int pool_file_open(struct pool_file **out, bool create, struct error *err);
void pool_file_close(struct pool_file *f);

/* Takes a free slot, until pool_file_close. -ENOSPC: there is none. Once. */
int pool_file_claim(struct pool_file *f, struct error *err);
/* Writes one's own slot. 0 or -errno. */
int pool_file_publish(struct pool_file *f, const struct pool_member *m, struct error *err);

/* The pool's size, 0: there is no pool. */
int pool_file_set_size(struct pool_file *f, uint64_t bytes, struct error *err);

/*
 * The pool's size and those who are there but oneself, up to POOL_MEMBERS, in the order of their slots.
 * Returns how many, or -errno: -ESTALE when the file was removed meanwhile (to be opened anew), or
 * when it is cut off or damaged.
 */
int pool_file_read(struct pool_file *f, uint64_t *pool_bytes, struct pool_member *members,
		   struct error *err);

#endif
