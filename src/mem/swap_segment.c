/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: from an empty one to the one whose last object has died. All with the store's lock. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mem/swap_internal.h"

void *swap_pages(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, bytes, MADV_DONTDUMP);
	return p;
}

static uint8_t *pool_take(struct swap *s)
{
	struct swap_buffer *b = s->pool;

	if (!b)
		return swap_pages(SEGMENT_BYTES);
	s->pool = b->next;
	s->pool_nr--;
	return (uint8_t *)b;
}

/* The thread unmaps what is too much: that takes longer than a lock should be held. */
static void pool_give(struct swap *s, uint8_t *mem)
{
	struct swap_buffer *b = (struct swap_buffer *)mem;

	b->next = s->pool;
	s->pool = b;
	if (++s->pool_nr > POOL_KEEP)
		pthread_cond_signal(&s->work);
}

/* An id that is not in use. There is one: IDS is more than memory and file hold. */
static uint32_t id_take(struct swap *s, struct segment *seg)
{
	uint32_t id;

	do {
		s->next_id = (s->next_id + 1) % IDS;
		id = s->next_id;
	} while (!id || s->ids[id]);
	s->ids[id] = seg;
	return id;
}

int segment_begin(struct swap *s, int kind)
{
	struct segment *seg = calloc(1, sizeof(*seg));

	if (!seg)
		return -ENOMEM;
	seg->mem = pool_take(s);
	if (!seg->mem) {
		free(seg);
		return -ENOMEM;
	}
	seg->id = id_take(s, seg);
	seg->stamp = ++s->next_stamp;
	seg->state = SEGMENT_OPEN;
	seg->position = NO_POSITION;
	seg->alive = (uint64_t *)s->open_index[kind];
	seg->at = (uint16_t *)(s->open_index[kind] + ALIVE_BYTES);
	s->open[kind] = seg;
	s->memory_segments++;
	return 0;
}

int segment_seal(struct swap *s, int kind)
{
	struct segment *seg = s->open[kind];
	uint64_t *alive;
	uint32_t words;

	if (!seg)
		return 0;
	words = (seg->objects + 63) / 64;
	/* One piece: the bits, then where the objects begin. */
	alive = malloc(words * sizeof(*alive) + seg->objects * sizeof(*seg->at) + 1);
	if (!alive)
		return -ENOMEM;
	memcpy(alive, seg->alive, words * sizeof(*alive));
	memcpy(alive + words, seg->at, seg->objects * sizeof(*seg->at));
	seg->alive = alive;
	seg->at = (uint16_t *)(alive + words);
	seg->state = SEGMENT_MEMORY;
	if (kind == HOT)
		TAILQ_INSERT_TAIL(&s->memory, seg, link);
	else
		TAILQ_INSERT_HEAD(&s->memory, seg, link);
	s->open[kind] = NULL;
	segment_settle(s, seg);
	if (s->memory_segments > s->memory_low)
		pthread_cond_signal(&s->work);
	return 0;
}

uint64_t segment_append(struct swap *s, int kind, uint32_t units)
{
	struct segment *seg = s->open[kind];
	uint32_t number = seg->objects++;
	uint64_t bit = UINT64_C(1) << (number % 64);

	seg->at[number] = (uint16_t)seg->used;
	if (bit == 1)
		seg->alive[number / 64] = 0;
	seg->alive[number / 64] |= bit;
	seg->used += units;
	seg->live_objects++;
	seg->live_units += units;
	s->live_units += units;
	s->stats.live_pages++;
	return segment_slot(seg, number);
}

struct segment *segment_find(struct swap *s, uint64_t slot, uint32_t *number)
{
	struct segment *seg;

	if (slot >> SWAP_SLOT_BITS)
		return NULL;
	seg = s->ids[slot >> OBJECT_BITS];
	*number = slot & ((1U << OBJECT_BITS) - 1);
	if (!seg || *number >= seg->objects || !segment_alive(seg, *number))
		return NULL;
	return seg;
}

static struct segment_list *bucket_of(struct swap *s, const struct segment *seg)
{
	return &s->file_buckets[seg->live_units >> BUCKET_SHIFT];
}

bool swap_file_wasteful(const struct swap *s)
{
	uint64_t dead = s->file.segments * (uint64_t)SEGMENT_UNITS - s->file_live_units;

	return dead > 2 * s->file_live_units + (UINT64_C(64) << 20) / UNIT;
}

void segment_kill(struct swap *s, struct segment *seg, uint32_t number)
{
	uint32_t units = segment_end(seg, number) - seg->at[number];
	struct segment_list *before = bucket_of(s, seg);

	seg->alive[number / 64] &= ~(UINT64_C(1) << (number % 64));
	seg->live_objects--;
	seg->live_units -= units;
	s->live_units -= units;
	s->stats.live_pages--;
	if (seg->state == SEGMENT_FILE)
		s->file_live_units -= units;
	if (bucket_of(s, seg) != before) {
		if (seg->state == SEGMENT_FILE) {
			TAILQ_REMOVE(before, seg, link);
			TAILQ_INSERT_TAIL(bucket_of(s, seg), seg, link);
		}
		if (s->memory_segments > s->memory_low || swap_file_wasteful(s))
			pthread_cond_signal(&s->work);
	}
	segment_settle(s, seg);
}

void segment_settle(struct swap *s, struct segment *seg)
{
	if (seg->live_objects || seg->readers || seg->compacting)
		return;
	if (seg->state == SEGMENT_MEMORY) {
		TAILQ_REMOVE(&s->memory, seg, link);
		pool_give(s, seg->mem);
		s->memory_segments--;
		pthread_cond_broadcast(&s->room);
	} else if (seg->state == SEGMENT_FILE) {
		TAILQ_REMOVE(bucket_of(s, seg), seg, link);
		swap_position_give(&s->file, seg->position, true);
		if (s->read_error_at == seg->position)
			s->read_error = 0;
		if (s->file.spare_nr > SPARE_KEEP || s->memory_segments > s->memory_low)
			pthread_cond_signal(&s->work);
	} else {
		return; /* open, or in the hands of the thread */
	}
	s->ids[seg->id] = NULL;
	free(seg->alive);
	free(seg);
}

void segment_to_file(struct swap *s, struct segment *seg)
{
	pool_give(s, seg->mem);
	seg->mem = NULL;
	s->memory_segments--;
	s->file_live_units += seg->live_units;
	seg->state = SEGMENT_FILE;
	TAILQ_INSERT_TAIL(bucket_of(s, seg), seg, link);
	pthread_cond_broadcast(&s->room);
	segment_settle(s, seg);
}
