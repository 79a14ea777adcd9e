/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_VMDK_VMDK_H
#define HANOK_DISK_VMDK_VMDK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/file.h"
#include "disk/image.h"
#include "disk/iov.h"
#include "disk/vmdk/descriptor.h"
#include "disk/vmdk/format.h"

/*
 * VMDK images, the parts that share their innards. The story is told in vmdk.c, the order of writes in
 * commit.c.
 */

enum {
	/* Grain tables in memory, all images of a chain together. */
	TABLE_CACHE_BYTES = 16 << 20,
	/* Changed tables that are not on the disk yet; more are not let wait for a flush. */
	DIRTY_TABLES_MAX = 1024,
	/* Grains that are allocated by one write of data. */
	ALLOC_MAX_BYTES = 1 << 20,
};

/* A grain table in memory. Linked in a ring that the cache's hand goes round. */
struct table {
	struct table *next, *prev;
	struct extent *extent;
	uint32_t index;	   /* in the grain directory */
	uint32_t dirty;	   /* a bit for each sector that is newer than on the disk */
	uint32_t pins;	   /* somebody will write to it, or it is being written back */
	bool used;	   /* since the hand went by */
	uint32_t *entries; /* NULL: all 0, which is what most of a delta's are */
};

struct free_run {
	uint64_t offset; /* in the extent's file, bytes */
	uint64_t bytes;
	bool zeroed; /* reads as zeroes */
};

struct free_list {
	struct free_run *runs;
	unsigned count, room;
};

enum extent_kind { EXTENT_FLAT, EXTENT_SPARSE, EXTENT_ZERO };

struct extent {
	struct vmdk *image;
	enum extent_kind kind;
	enum extent_access access;
	uint64_t start, bytes; /* in the disk */
	struct file *file;     /* NULL for zero extents */
	bool shares_file;      /* another extent, or the descriptor, closes it */
	atomic_bool unsynced;  /* written to since the last sync began */
	uint64_t flat_offset;

	/* sparse; what changes while the disk is open is guarded by the chain's lock */
	struct sparse_layout layout;
	uint32_t *gd, *rgd; /* sectors of grain tables; rgd may be NULL */
	uint8_t *gd_dirty;  /* a byte for each sector of gd (and rgd) */
	bool any_gd_dirty;
	struct table **tables; /* by index; NULL: not in memory */
	uint64_t file_bytes;   /* what grains and tables must lie in */
	uint64_t alloc_end;    /* new grains are put here */
	/* Grains given up: `freed` since the last commit began, then `retired` while requests that
	 * may still use them are in flight, then free for use. */
	struct free_list freed, retired[2], free;
};

/* One image of a chain. */
struct vmdk {
	struct chain *chain;
	struct vmdk *parent; /* NULL: none */
	unsigned depth;
	char *path;
	struct file *file; /* with the descriptor */
	bool embedded;	   /* the descriptor is in the one extent's file ... */
	uint64_t descriptor_offset, descriptor_bytes; /* ... here, and has this much room */
	bool read_only;
	struct descriptor descriptor;
	struct extent *extents;
	unsigned extent_count;
	uint64_t bytes;
};

/* Grains that a write is just making; other writes to them wait. On the writer's stack. */
struct busy {
	struct busy *next;
	struct extent *extent;
	uint64_t first, count; /* grains */
};

struct chain {
	struct image image;   /* first */
	struct vmdk **images; /* from the one that was opened down to the base */
	unsigned count;
	struct vmdk *top; /* images[0], the only one that is written to */
	bool keep_cid;
	bool mending; /* for `check`: broken tables are let in */

	/* Taken first, held over reads and inflation: compressed grains. */
	pthread_mutex_t unzip_lock;
	struct extent *unzipped_extent;
	uint64_t unzipped_grain;
	uint8_t *unzipped;

	/* Held while the first write of all marks the image. */
	pthread_mutex_t touch_lock;
	atomic_bool touched;

	/* Guards what follows, and extents and tables as said there; never held over a request to the
	 * host but for growing a file. */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* busy grains, commits */
	struct busy *busy;
	struct table *hand; /* in the ring; NULL: empty */
	uint64_t cached_bytes;
	unsigned cached; /* tables in the ring */
	unsigned dirty_tables;
	bool any_freed;
	/* commits are numbered from 1 */
	uint64_t commit_begun, commit_done;
	bool committing;
	int commit_rc;
	int lost; /* -errno: a sync failed, and nobody knows what is on the disk */

	/* Requests in flight, by the epoch they began in, modulo 2. */
	unsigned epoch;
	atomic_uint in_flight[2];
};

/* ---- map.c: where the bytes are; with the chain's lock held ---- */

enum run_kind { RUN_UNALLOCATED, RUN_ZERO, RUN_DATA, RUN_COMPRESSED };

struct run {
	enum run_kind kind;
	struct vmdk *image;
	struct extent *extent;
	uint64_t bytes;
	uint64_t file_offset; /* RUN_DATA; RUN_COMPRESSED: of the grain's marker */
	bool cut_short;	      /* RUN_DATA: the file may end within it, the rest are zeroes */
	uint64_t grain;	      /* RUN_COMPRESSED: its number in the extent */
	uint32_t table;	      /* VMDK_NEED_TABLE: which */
};

/* Besides 0 and -errno: run.extent's run.table has to be loaded first. */
enum { VMDK_NEED_TABLE = 1 };

struct extent *vmdk_extent_at(struct vmdk *v, uint64_t offset);
/* What the image has at offset; or, `through`, it and its parents. -EIO: the tables are broken, or
 * there is no access. bytes is not 0 and within the disk. */
int vmdk_run(struct vmdk *v, bool through, uint64_t offset, uint64_t bytes, struct run *run);
/* The same, loading tables as needed; the lock is given up meanwhile. */
int vmdk_run_loading(struct vmdk *v, bool through, uint64_t offset, uint64_t bytes,
		     struct run *run);
/* Gives up the lock meanwhile; then the table was in memory for a moment at least. */
int vmdk_table_load(struct extent *e, uint32_t index);
/* Enters a table that is all 0 and marks its directory entry dirty. */
struct table *vmdk_table_add(struct extent *e, uint32_t index);
/* Of a table in memory; -ENOMEM. May evict others, not it. */
int vmdk_table_make_entries(struct table *t);
void vmdk_table_dirty(struct table *t, uint32_t entry);
void vmdk_tables_free(struct chain *c);

/* ---- io.c ---- */

int vmdk_submit(struct image *im, struct disk_request *r);
/* Without locks held. */
int vmdk_read(struct vmdk *v, uint64_t offset, uint64_t bytes, struct iov_cursor *to);
/* A request that uses grains it looked up: begin with the lock held, end without. */
unsigned vmdk_io_begin(struct chain *c);
void vmdk_io_end(struct chain *c, unsigned epoch);

/* ---- zip.c ---- */

/* A compressed grain, to the list; skip: bytes of it to leave out. */
int vmdk_read_compressed(const struct run *run, uint64_t skip, struct iov_cursor *to);

/* ---- write.c, discard.c: without locks held ---- */

int vmdk_write(struct vmdk *v, uint64_t offset, uint64_t bytes, struct iov_cursor *from);
int vmdk_discard(struct vmdk *v, uint64_t offset, uint64_t bytes, bool zero);
/* Before the first write: a new CID, the unclean mark. */
int vmdk_touch(struct chain *c);
/* With the lock held: waits until no write is making one of these grains. */
void vmdk_wait_busy(struct extent *e, uint64_t first, uint64_t count);

/* ---- free.c: with the chain's lock held ---- */

int vmdk_free_add(struct free_list *l, uint64_t offset, uint64_t bytes, bool zeroed);
/* Up to `bytes`, whole grains; false: there is none. */
bool vmdk_free_take(struct free_list *l, uint64_t bytes, struct free_run *out);
/* Moves on what has been retired, gives the lock up to punch holes. */
void vmdk_reclaim(struct chain *c);
void vmdk_free_list_clear(struct free_list *l);
/* Before closing: free space at the file's end is cut off. */
void vmdk_trim(struct extent *e);

/* ---- commit.c ---- */

/* All that was written before is on stable storage afterwards. Without locks held. */
int vmdk_commit(struct chain *c);
/* Commits if so many tables are dirty that no more should be. Without locks held. */
int vmdk_commit_if_needed(struct chain *c);
/* With the lock held: would a commit write tables? */
bool vmdk_metadata_dirty(const struct chain *c);

/* Before closing: all of memory to the files, without making it durable; the unclean mark goes. */
int vmdk_write_back(struct chain *c);

/* ---- open.c ---- */

/* mending: broken tables are no reason to refuse. */
int vmdk_open_chain(struct chain **out, const char *path, const struct disk_options *opt,
		    bool mending, struct error *err);
void vmdk_close_chain(struct chain *c);
/* Reads and checks a sparse extent's header and directory. Everything else of e is set. */
int vmdk_open_sparse(struct extent *e, struct error *err);
/* ---- directory.c ---- */

/* Of an extent whose layout is known; unless it is read-only, or is to be mended, its tables have to lie
 * in the file, each by itself. */
int vmdk_load_directories(struct extent *e, struct error *err);

/* ---- open.c, further ---- */

/* Stores the descriptor's text where it came from. 0 or -errno. */
int vmdk_store_descriptor(struct vmdk *v);

#endif
