/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_SWAP_H
#define HANOK_MEM_SWAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * The swap store: holds evicted 4 KiB guest pages, compressed in memory first and, when that part is
 * over its bound, in a swap file that has no name and so goes with the process however it ends.
 *
 * A page stored is an object, named by its slot: nonzero, below 2^36. An object never changes; its
 * page's next contents are another object with another slot. The owner keeps the slot in its word of
 * the page's frame and gives it back by swap_free.
 *
 * An object may be moved by a thread of the store, which asks the owner by moved() to take the new
 * slot. Two ways to be safe, which mix: a thread that loads marks the frame first, and moved() refuses
 * while it is marked, so that the old slot stays good; or the thread loads by the slot it read and then
 * compares and swaps the word, and looks again when that fails (-ESTALE and data of another time of
 * the same page both come with a word that has changed). Slots are used again only after hundreds
 * of GiB have been stored in between.
 */
struct swap;

enum { SWAP_PAGE_BYTES = 4096, SWAP_SLOT_BITS = 36, SWAP_NEAR_PAGES = 16 };

struct swap_config {
	/* The folder the swap file is made in, copied; NULL: memory only. */
	const char *dir;
	/* Bytes of compressed pages kept in memory, in segments of 1 MiB; less than 4 MiB count as 4.
	 * While objects are moved there may be 2 segments more, and 2 that are empty. */
	uint64_t memory_bytes;
	/* Bytes of the swap file at most, rounded down to 1 MiB; 0: memory only. More than 512 GiB count
	 * as that. */
	uint64_t file_bytes;
	/*
	 * An object was copied by compaction: `old` to `slot`. True: the owner's word held `old` and holds
	 * `slot` now; `old` is dead without a swap_free. False: the word does not hold `old` (not yet: it
	 * was stored just now; no longer; or the owner is busy with it); then `slot` is dead and nothing
	 * has happened to `old`, which lives until its swap_free. Both slots can be loaded and freed
	 * during the call. Called on the store's thread without a lock of the store; may be called before
	 * swap_store has returned `old`. The owner must not block in it, nor call swap_store or swap_destroy.
	 * NULL: always false, so nothing is compacted.
	 */
	bool (*moved)(void *opaque, uint32_t page, uint64_t old, uint64_t slot);
	/*
	 * The swap file cannot be written or read (full disk, EIO): one line for the user, or "" when that
	 * is over. Each line is told once. One call at a time, on any thread that uses the store or the
	 * store's own. Must not call swap_destroy. NULL: nobody wants to know.
	 */
	void (*trouble)(void *opaque, const char *text);
	void *opaque;
};

/* Makes an empty store and its thread. 0; else a negative errno, *out NULL and a line in err. */
int swap_create(struct swap **out, const struct swap_config *c, struct error *err);

/* Ends the thread (a write that has begun is waited for) and drops everything. No other call may be under
 * way. NULL is fine. */
void swap_destroy(struct swap *s);

/*
 * Stores a page (4096 bytes at data, the caller's). One thread at a time; not a thread in moved(). 0 and
 * its slot, or -ENOSPC: neither memory nor file takes it now; the caller goes on without and tries again
 * later. While the store's thread makes room by writing, waits for it, 200 ms at the longest.
 */
int swap_store(struct swap *s, uint32_t page, const void *data, uint64_t *slot);

/*
 * Loads the page stored as slot into data (4096 bytes). Any thread, several at once; the slot stays
 * valid. 0, or with data undefined:
 * -EIO (or what else the host says)  the file could not be read now; may be tried again
 * -EBADMSG  what was read back is not what was written
 * -ESTALE   the slot is not a live one, or is another page's: it was freed or moved meanwhile
 * -ENOMEM
 */
int swap_load(struct swap *s, uint64_t slot, uint32_t page, void *data);

/*
 * As swap_load; and when the file had to be read, reads 64 KiB and hands out up to max live objects that
 * lie there and whose pages are within SWAP_NEAR_PAGES of page, the ones stored after it first: near(opaque, page,
 * slot, data). The data is the store's, for the call. near() runs on this thread without a lock of the
 * store, after data is complete; it may call swap_free, but not load or store. A slot handed out is not used
 * for another object before swap_load_around returns, so an owner whose word still holds it when it
 * compares and swaps has the right data. What is wrong with a near object is not told.
 */
int swap_load_around(struct swap *s, uint64_t slot, uint32_t page, void *data, unsigned max,
		     void (*near)(void *opaque, uint32_t page, uint64_t slot, const void *data),
		     void *opaque);

/* Changes swap_config.memory_bytes. Any thread. When there is more in memory than that, the store's thread
 * writes it to the file soon, if it has one. */
void swap_set_memory(struct swap *s, uint64_t bytes);

/* The object is dead. Any thread; a slot that is not live is ignored. */
void swap_free(struct swap *s, uint64_t slot);

/* Whether the object lies in the file only: worth keeping when the page is loaded and clean. Any thread. */
bool swap_on_file(struct swap *s, uint64_t slot);

/* Counts since swap_create, except where it says now. */
struct swap_stats {
	uint64_t stored_pages;	   /* by swap_store */
	uint64_t raw_pages;	   /* of these: kept as they are, for they do not compress */
	uint64_t loaded_pages;	   /* by swap_load and swap_load_around, near ones not counted */
	uint64_t near_pages;	   /* handed to near() */
	uint64_t live_pages;	   /* now */
	uint64_t compressed_bytes; /* now: of live objects with their headers, in memory and file */
	uint64_t memory_bytes;	   /* now: of segments in memory, empty ones that are kept too */
	uint64_t file_bytes;	   /* now: of the file */
	uint64_t file_live_bytes;  /* now: of these, in live objects */
	uint64_t writes, written_bytes;
	uint64_t reads, read_bytes;
	uint64_t compactions; /* segments some pages were moved out of */
	uint64_t moved_pages;
	uint64_t errors; /* failed writes and reads, and objects that came back wrong */
};

/* Any thread. */
void swap_stats(struct swap *s, struct swap_stats *out);

#endif
