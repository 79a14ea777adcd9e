/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_DISK_TOOLS_H
#define HANOK_DISK_DISK_TOOLS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/disk.h"

/*
 * What is done to images by tools and by snapshots, beyond reading and writing: creation, maps,
 * chains, checks. The functions with a path want an image that nobody has open for writing; they
 * wait for the host's files, so they are not for a loop's thread while guests run.
 */

/* ---- creation ---- */

enum disk_thickness {
	DISK_THIN,	 /* space is taken as it is written */
	DISK_THICK_LAZY, /* space is taken now, and is zeroed by the host when it is touched */
	DISK_THICK_EAGER /* space is taken and zeroes are written now */
};

struct disk_create_options {
	const char *format; /* "raw", "vmdk"; NULL: by the name's ending */
	/* A VMDK's createType: monolithicSparse, monolithicFlat, twoGbMaxExtentSparse,
	 * twoGbMaxExtentFlat, vmfs, vmfsThin (vmfs, and noted as thin), vmfsSparse. NULL: monolithicSparse. streamOptimized is
	 * written by disk_stream_create. */
	const char *type;
	enum disk_thickness thickness; /* of raw and flat types; sparse ones are thin */
	uint64_t bytes; /* multiple of DISK_SECTOR_BYTES; 0 with a parent: the parent's */
	/* The image this one lies on, which must not be written to any more; NULL: none. Sparse types
	 * of VMDK only. Noted in the new image as `parent_hint`, or as `parent` if that is NULL,
	 * relative to the new image's folder where it is below it. */
	const char *parent, *parent_hint;
	const char *adapter; /* ddb.adapterType: ide, buslogic, lsilogic (NULL), pvscsi, nvme ... */
	uint32_t grain_bytes; /* power of two, 4 KiB to 1 MiB; 0: 64 KiB */
};

/* Makes an image, which must not be there: 0, -EEXIST, -EINVAL, -ENOSPC ... After a failure none of
 * its files is left. */
int disk_create(const char *path, const struct disk_create_options *opt, struct error *err);

/* ---- looking at an open disk; any thread ---- */

enum disk_run_kind {
	DISK_RUN_HOLE, /* written nowhere: reads as zeroes */
	DISK_RUN_ZERO, /* said to be zero, by the image at `depth` */
	DISK_RUN_DATA  /* in the image at `depth` */
};

struct disk_run {
	enum disk_run_kind kind;
	uint64_t bytes;	      /* at least one sector */
	unsigned depth;	      /* 0: the image itself, 1: its parent ... */
	const char *path;     /* DISK_RUN_DATA: the file, valid while the disk is open; else NULL */
	uint64_t file_offset; /* in that file; 0 if it is compressed there */
	bool compressed;
};

/* What the disk has at offset, and how far it goes, at most `bytes`. 0, -EINVAL, -EIO. */
int disk_map(struct disk *d, uint64_t offset, uint64_t bytes, struct disk_run *out);

struct disk_link {
	const char *path; /* as it was opened; valid while the disk is open */
	const char *type; /* createType, "" for raw */
	uint64_t host_bytes;
	uint32_t cid, parent_cid; /* VMDK's content ids; parent_cid 0xffffffff: no parent */
	const char *parent_hint;  /* as it is in the descriptor, NULL: none */
};

/* The image at a depth of the chain, 0 being the one that was opened; -ENOENT past its end. */
int disk_chain(struct disk *d, unsigned depth, struct disk_link *out);

/* ---- changes to images that are not open ---- */

/* Another virtual size. Smaller only if `shrink`, as what lies behind is lost. -EBUSY: in use;
 * -EINVAL: has a parent, is read-only by its type, or not whole sectors. */
int disk_resize(const char *path, uint64_t bytes, bool shrink, struct error *err);

/* Lets an image lie on another parent: hint and CID in its descriptor, crash-safe. Nothing is copied:
 * that the new parent's content is what the image needs is the caller's promise. NULL: on none. */
int disk_set_parent(const char *path, const char *parent, const char *parent_hint,
		    struct error *err);

struct disk_check_options {
	bool repair; /* leaks, redundant tables, the unclean mark; never by guessing */
	/* Each finding, one line without newline, while it is found; NULL: only counted. */
	void (*report)(void *opaque, const char *line);
	void *opaque;
};

struct disk_check_result {
	uint64_t errors;	/* data is lost or doubtful: bad tables, grains used twice */
	uint64_t mismatches;	/* redundant tables that differ from the primary ones */
	uint64_t leaked_grains; /* allocated, used by nothing */
	uint64_t leaked_bytes;
	uint64_t grains, allocated_grains, zeroed_grains;
	uint64_t repaired; /* of mismatches and leaks */
	bool unclean;	   /* was not closed after it was written to */
};

/* Checks one image, without its parents. 0: looked at all of it, see out; -errno: could not, or it is
 * so broken that it does not open. -EBUSY: in use. */
int disk_check(const char *path, const struct disk_check_options *opt,
	       struct disk_check_result *out, struct error *err);

/* ---- streamOptimized ---- */

/* Writes a compressed image from its start to its end: offsets ascend, and each is a multiple of
 * DISK_STREAM_GRAIN_BYTES, as bytes is except at the disk's end. What is left out, and grains of
 * zeroes, read as zero. finish makes it durable; both finish and abort free s, abort and a failed
 * finish remove the file. */
enum { DISK_STREAM_GRAIN_BYTES = 65536 };
struct disk_stream;
int disk_stream_create(struct disk_stream **out, const char *path, uint64_t bytes,
		       const char *adapter, struct error *err);
int disk_stream_write(struct disk_stream *s, uint64_t offset, const void *buf, uint64_t bytes,
		      struct error *err);
int disk_stream_finish(struct disk_stream *s, struct error *err);
void disk_stream_abort(struct disk_stream *s);

#endif
