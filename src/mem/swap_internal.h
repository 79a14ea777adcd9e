/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_SWAP_INTERNAL_H
#define HANOK_MEM_SWAP_INTERNAL_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "mem/swap.h"

/*
 * Theory of operation. The store is a log of segments of 1 MiB:
 *
 *   swap_store ─> open[HOT] ─┐ sealed                  written by the thread
 *                            ├──────> memory, oldest ─────────────────────────> file, by how full
 *   compaction ─> open[COLD]─┘ (at the old end)  │                                │
 *        ^                                       │ mostly dead                    │ mostly dead
 *        └───────────────────────────────────────┴────────────────────────────────┘
 *
 * A segment is a row of objects: a header, then the page compressed or as it is, padded to 16 bytes. A slot is
 * the segment's id (20 bits, given out round and round) and the object's number in it (16 bits). The
 * id stays when the segment goes to the file, so slots do too. Where an object begins and whether it lives
 * is in memory (about 2 bytes an object); whose page it is, is in its header only.
 *
 * One lock guards all but the bytes of sealed segments (which never change), the tail of open[HOT]
 * (swap_store's alone) and the file. What reads a file's segment without the lock counts itself in
 * `readers`: a segment with readers or in the hands of the thread keeps its id, its index and its place.
 */
enum {
	UNIT = 16,
	UNIT_SHIFT = 4,
	SEGMENT_BYTES = 1 << 20,
	SEGMENT_UNITS = SEGMENT_BYTES / UNIT,
	PAGE_UNITS = SWAP_PAGE_BYTES / UNIT,
	/* LZ4 makes 4096 bytes 16 at the least, so an object has 2 units or more. */
	SEGMENT_OBJECTS = SEGMENT_UNITS / 2,
	/* A full index: who lives, then where it begins. */
	ALIVE_BYTES = SEGMENT_OBJECTS / 8,
	INDEX_BYTES = ALIVE_BYTES + SEGMENT_OBJECTS * (int)sizeof(uint16_t),
	ID_BITS = 20,
	IDS = 1 << ID_BITS,
	OBJECT_BITS = 16,
	NO_POSITION = -1,
	POOL_KEEP = 2,	   /* empty segments that stay mapped */
	MOVE_EXTRA = 2,	   /* segments in memory over the bound, while objects are moved */
	SPARE_KEEP = 64,   /* segments of the file that are free and still allocated */
	FILE_ALIGN = 4096, /* of offsets, lengths and buffers */
	AROUND_BYTES = 64 << 10,
	BUCKETS = 17, /* by live units / 4096 */
	BUCKET_SHIFT = 12,
};
static_assert(OBJECT_BITS + ID_BITS == SWAP_SLOT_BITS, "a slot is an id and an object's number");
static_assert(SEGMENT_UNITS >> BUCKET_SHIFT == BUCKETS - 1, "a full segment has a bucket");

/* Before each object's bytes. */
struct object {
	uint32_t page;
	uint16_t length; /* of the bytes; SWAP_PAGE_BYTES: not compressed */
	uint16_t unused;
	uint32_t sum;	/* of page, length and the padded bytes */
	uint32_t stamp; /* the segment's, so that what a lost write left behind is seen */
};
static_assert(sizeof(struct object) == UNIT, "a header is a unit");

/* The longest object, and the longest that is worth compressing. */
enum {
	OBJECT_BYTES_MAX = sizeof(struct object) + SWAP_PAGE_BYTES,
	OBJECT_UNITS_MAX = OBJECT_BYTES_MAX / UNIT,
	COMPRESSED_MAX = SWAP_PAGE_BYTES - 128,
};

static inline uint32_t object_units(const struct object *o)
{
	return 1 + (o->length + UNIT - 1) / UNIT;
}

enum segment_state {
	SEGMENT_OPEN,	 /* objects are appended; in no list */
	SEGMENT_MEMORY,	 /* sealed; in swap.memory */
	SEGMENT_WRITING, /* being written from mem, which still serves; in no list */
	SEGMENT_FILE,	 /* at position; mem is NULL; in swap.file_buckets */
};

TAILQ_HEAD(segment_list, segment);

struct segment {
	TAILQ_ENTRY(segment) link;
	uint32_t id, stamp;
	enum segment_state state;
	uint8_t *mem;
	int32_t position; /* in the file, in segments */
	uint32_t used;	  /* units */
	uint32_t objects;
	uint32_t live_units, live_objects;
	uint32_t readers;
	bool compacting;
	uint64_t avoid_until_ns; /* compacted in vain: not again before */
	uint64_t *alive;	 /* bits by object */
	uint16_t *at;		 /* first unit by object */
};

/* Where new objects go: pages evicted now, and those that outlived their segment. */
enum { HOT, COLD, OPEN_KINDS };

struct swap_file {
	int fd; /* -1: none */
	char *dir;
	atomic_bool direct;
	/* The rest is under the store's lock. Positions: those free and allocated, those free and punched
	 * out, and those from end on, never used. */
	int32_t *spare, *holes;
	uint32_t spare_nr, holes_nr, end, max;
	uint32_t segments; /* in use */
	bool no_punch;
};

struct swap_buffer {
	struct swap_buffer *next;
};

struct swap {
	struct swap_config config;
	void *lz4;	   /* swap_store's: LZ4's state */
	uint8_t *readback; /* the thread's: a segment of the file */

	pthread_mutex_t tell_lock; /* taken before lock; held while trouble() runs */
	char told[512];

	pthread_mutex_t lock;
	pthread_cond_t work; /* for the thread */
	pthread_cond_t room; /* for swap_store */
	struct segment **ids;
	uint32_t next_id, next_stamp;
	struct segment *open[OPEN_KINDS];
	uint8_t *open_index[OPEN_KINDS]; /* of INDEX_BYTES: theirs while they are open */
	struct segment_list memory;	 /* oldest first */
	struct segment_list file_buckets[BUCKETS];
	uint32_t memory_segments, memory_bound, memory_low;
	struct swap_buffer *pool; /* empty segments */
	uint32_t pool_nr;
	struct swap_buffer *around; /* buffers of AROUND_BYTES */
	struct swap_file file;
	uint64_t live_units, file_live_units;
	struct swap_stats stats; /* what is counted, not what is now */
	/* The last write's; a read's, until that place has been read or is free. */
	int write_error, read_error;
	int32_t read_error_at;
	int read_told;
	uint64_t write_retry_ns;
	uint64_t again_ns;	  /* work() left something for then */
	uint64_t asked, answered; /* swap_store asks for room; the thread can make none */
	bool stop;
	bool thread_runs;
	pthread_t thread;
};

/* ---- swap_object.c ---- */

/* How long LZ4's state is. */
uint64_t object_lz4_bytes(void);
/* Writes the object of page at out (OBJECT_BYTES_MAX there); lz4 is a state in any state. Its units. */
uint32_t object_pack(void *lz4, uint32_t page, uint32_t stamp, const void *data, uint8_t *out);
/* 0, or -EBADMSG when what lies in units units at bytes is no object of that segment. */
int object_check(const uint8_t *bytes, uint32_t units, uint32_t stamp);
/* Checked already, or never out of memory. 0 or -EBADMSG. */
int object_unpack(const uint8_t *bytes, void *data);

/* ---- swap_file.c: the file. Offsets, lengths and buffers are aligned to FILE_ALIGN ---- */

/* Makes the file in dir. file is all zero but fd -1; swap_file_close always. */
int swap_file_open(struct swap_file *f, const char *dir, uint64_t bytes, struct error *err);
void swap_file_close(struct swap_file *f);
/* 0 or a negative errno. Any thread, without the lock. */
int swap_file_read(struct swap_file *f, uint64_t offset, void *buf, uint64_t bytes);
int swap_file_write(struct swap_file *f, uint64_t offset, const void *buf, uint64_t bytes);
/* Gives the disk back a segment. 0 or a negative errno. Without the lock. */
int swap_file_punch(struct swap_file *f, int32_t position);
/* A free position, or NO_POSITION; and back. With the lock. */
int32_t swap_position_take(struct swap_file *f);
void swap_position_give(struct swap_file *f, int32_t position, bool allocated);
bool swap_position_free(const struct swap_file *f);

/* ---- swap_segment.c: with the lock, all of it ---- */

/* Memory outside core dumps; NULL when there is none. Without the lock too. */
void *swap_pages(uint64_t bytes);

/* Begins open[kind], which is NULL. 0 or -ENOMEM. */
int segment_begin(struct swap *s, int kind);
/* open[kind], if any, takes no more and joins the memory list. 0 or -ENOMEM (it is still open). */
int segment_seal(struct swap *s, int kind);
/* Publishes the object of units units that lies at the tail of open[kind]. Its slot. */
uint64_t segment_append(struct swap *s, int kind, uint32_t units);
static inline bool segment_fits(const struct segment *seg, uint32_t units)
{
	return seg && seg->used + units <= SEGMENT_UNITS && seg->objects < SEGMENT_OBJECTS;
}
static inline uint8_t *segment_tail(const struct segment *seg)
{
	return seg->mem + ((uint64_t)seg->used << UNIT_SHIFT);
}

/* The segment and number of a live object, or NULL. */
struct segment *segment_find(struct swap *s, uint64_t slot, uint32_t *number);
static inline uint64_t segment_slot(const struct segment *seg, uint32_t number)
{
	return (uint64_t)seg->id << OBJECT_BITS | number;
}
static inline bool segment_alive(const struct segment *seg, uint32_t number)
{
	return seg->alive[number / 64] >> (number % 64) & 1;
}
/* Where an object ends, in units. */
static inline uint32_t segment_end(const struct segment *seg, uint32_t number)
{
	return number + 1 < seg->objects ? seg->at[number + 1] : seg->used;
}
/* The object is dead; its segment goes when it was the last. */
void segment_kill(struct swap *s, struct segment *seg, uint32_t number);
/* Frees a segment that nobody needs, else nothing. */
void segment_settle(struct swap *s, struct segment *seg);
/* Sealed and in memory to on file, at seg->position. */
void segment_to_file(struct swap *s, struct segment *seg);
/* Whether the file has more dead space than it should. */
bool swap_file_wasteful(const struct swap *s);

/* ---- swap_thread.c ---- */

/* Writes, compacts and trims until s->stop. */
void *swap_thread(void *swap);
/* Tells the owner what is wrong now, if that has changed. Without the lock. */
void swap_tell(struct swap *s);

#endif
