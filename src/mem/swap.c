/* SPDX-License-Identifier: Apache-2.0 */
/* The swap store's calls; swap_internal.h tells how it works. */
#include "mem/swap.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "mem/swap_internal.h"

#define STORE_WAIT_NS UINT64_C(200000000)
#define FILE_MAX (UINT64_C(512) << 30)
#define MEMORY_MAX (UINT64_C(256) << 30)
enum { MEMORY_SEGMENTS_MIN = 4, HEADROOM_MAX = 16 };

/* ---- create, destroy ---- */

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void init_locks(struct swap *s)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&s->tell_lock, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->work, &attr);
	pthread_cond_init(&s->room, &attr);
	pthread_condattr_destroy(&attr);
}

/* With the lock, or before anybody else knows s. */
static void set_bounds(struct swap *s, uint64_t bytes)
{
	uint64_t bound = min64(bytes, MEMORY_MAX) / SEGMENT_BYTES;

	if (bound < MEMORY_SEGMENTS_MIN)
		bound = MEMORY_SEGMENTS_MIN;
	s->memory_bound = (uint32_t)bound;
	/* The thread begins before swap_store has to wait. */
	s->memory_low = s->memory_bound - 1 - (uint32_t)min64(bound / 16, HEADROOM_MAX);
}

static int init_tables(struct swap *s, struct error *err)
{
	bool ok;

	TAILQ_INIT(&s->memory);
	for (int i = 0; i < BUCKETS; i++)
		TAILQ_INIT(&s->file_buckets[i]);
	s->lz4 = malloc(object_lz4_bytes());
	s->ids = swap_pages(IDS * sizeof(*s->ids));
	ok = s->lz4 && s->ids;
	for (int i = 0; i < OPEN_KINDS; i++) {
		s->open_index[i] = swap_pages(INDEX_BYTES);
		ok = ok && s->open_index[i];
	}
	if (!ok)
		return error_set(err, -ENOMEM, "swap: no memory for the store's tables; free some");
	return 0;
}

static int start_thread(struct swap *s, struct error *err)
{
	int rc = pthread_create(&s->thread, NULL, swap_thread, s);

	if (rc)
		return error_set(err, -rc,
				 "swap: cannot start a thread: %s; raise the limit on processes",
				 strerror(rc));
	pthread_setname_np(s->thread, "swap");
	s->thread_runs = true;
	return 0;
}

int swap_create(struct swap **out, const struct swap_config *c, struct error *err)
{
	struct swap *s = calloc(1, sizeof(*s));
	int rc;

	*out = NULL;
	if (!s)
		return error_set(err, -ENOMEM, "swap: no memory for the store; free some");
	s->config = *c;
	s->config.dir = NULL;
	s->file.fd = -1;
	s->read_error_at = NO_POSITION;
	init_locks(s);
	set_bounds(s, c->memory_bytes);
	rc = init_tables(s, err);
	if (!rc && c->dir && c->file_bytes >= SEGMENT_BYTES)
		rc = swap_file_open(&s->file, c->dir, min64(c->file_bytes, FILE_MAX), err);
	if (!rc)
		rc = start_thread(s, err);
	if (rc) {
		swap_destroy(s);
		return rc;
	}
	*out = s;
	return 0;
}

static void drop_segments(struct segment_list *list)
{
	struct segment *seg;

	while ((seg = TAILQ_FIRST(list)) != NULL) {
		TAILQ_REMOVE(list, seg, link);
		if (seg->mem)
			munmap(seg->mem, SEGMENT_BYTES);
		free(seg->alive);
		free(seg);
	}
}

static void drop_open(struct swap *s, int kind)
{
	if (s->open[kind])
		munmap(s->open[kind]->mem, SEGMENT_BYTES);
	free(s->open[kind]);
	if (s->open_index[kind])
		munmap(s->open_index[kind], INDEX_BYTES);
}

static void drop_buffers(struct swap_buffer *b, uint64_t bytes)
{
	while (b) {
		struct swap_buffer *next = b->next;
		munmap(b, bytes);
		b = next;
	}
}

void swap_destroy(struct swap *s)
{
	if (!s)
		return;
	if (s->thread_runs) {
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_cond_signal(&s->work);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->thread, NULL);
	}
	drop_segments(&s->memory);
	for (int i = 0; i < BUCKETS; i++)
		drop_segments(&s->file_buckets[i]);
	drop_buffers(s->pool, SEGMENT_BYTES);
	drop_buffers(s->around, AROUND_BYTES);
	swap_file_close(&s->file);
	for (int i = 0; i < OPEN_KINDS; i++)
		drop_open(s, i);
	if (s->ids)
		munmap(s->ids, IDS * sizeof(*s->ids));
	if (s->readback)
		munmap(s->readback, SEGMENT_BYTES);
	free(s->lz4);
	pthread_cond_destroy(&s->room);
	pthread_cond_destroy(&s->work);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->tell_lock);
	free(s);
}

/* ---- store ---- */

/* With the lock: until memory is under its bound, or the thread has found no way, or it takes too long. */
static bool wait_for_room(struct swap *s)
{
	uint64_t until = clock_ns() + STORE_WAIT_NS;
	struct timespec t = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
	uint64_t ask;

	if (s->memory_segments < s->memory_bound)
		return true;
	ask = ++s->asked;
	pthread_cond_signal(&s->work);
	while (s->memory_segments >= s->memory_bound)
		if (s->answered >= ask ||
		    pthread_cond_timedwait(&s->room, &s->lock, &t) == ETIMEDOUT)
			break;
	return s->memory_segments < s->memory_bound;
}

/* A new open[HOT] in place of the full one. 0 or -ENOSPC. */
static int next_hot(struct swap *s)
{
	int rc = -ENOSPC;

	pthread_mutex_lock(&s->lock);
	if (!segment_seal(s, HOT) && wait_for_room(s) && !segment_begin(s, HOT))
		rc = 0;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int swap_store(struct swap *s, uint32_t page, const void *data, uint64_t *slot)
{
	struct segment *seg = s->open[HOT]; /* this thread's only */
	uint32_t units;

	if (!segment_fits(seg, OBJECT_UNITS_MAX)) {
		int rc = next_hot(s);
		if (rc < 0)
			return rc;
		seg = s->open[HOT];
	}
	units = object_pack(s->lz4, page, seg->stamp, data, segment_tail(seg));
	pthread_mutex_lock(&s->lock);
	*slot = segment_append(s, HOT, units);
	s->stats.stored_pages++;
	s->stats.raw_pages += units == OBJECT_UNITS_MAX;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* ---- the rest ---- */

void swap_set_memory(struct swap *s, uint64_t bytes)
{
	pthread_mutex_lock(&s->lock);
	set_bounds(s, bytes);
	pthread_cond_signal(&s->work);	  /* less: there may be something to write */
	pthread_cond_broadcast(&s->room); /* more: who waited for room has it */
	pthread_mutex_unlock(&s->lock);
}

void swap_free(struct swap *s, uint64_t slot)
{
	struct segment *seg;
	uint32_t number;

	pthread_mutex_lock(&s->lock);
	seg = segment_find(s, slot, &number);
	if (seg)
		segment_kill(s, seg, number);
	pthread_mutex_unlock(&s->lock);
}

bool swap_on_file(struct swap *s, uint64_t slot)
{
	struct segment *seg;
	uint32_t number;
	bool on_file;

	pthread_mutex_lock(&s->lock);
	seg = segment_find(s, slot, &number);
	on_file = seg && !seg->mem;
	pthread_mutex_unlock(&s->lock);
	return on_file;
}

void swap_stats(struct swap *s, struct swap_stats *out)
{
	pthread_mutex_lock(&s->lock);
	*out = s->stats;
	out->compressed_bytes = s->live_units * UNIT;
	out->memory_bytes = (uint64_t)(s->memory_segments + s->pool_nr) * SEGMENT_BYTES;
	for (int i = 0; i < OPEN_KINDS; i++)
		if (s->open[i]) /* touched no farther than this */
			out->memory_bytes -=
				SEGMENT_BYTES - ((uint64_t)s->open[i]->used << UNIT_SHIFT);
	out->file_bytes = (uint64_t)(s->file.segments + s->file.spare_nr) * SEGMENT_BYTES;
	out->file_live_bytes = s->file_live_units * UNIT;
	pthread_mutex_unlock(&s->lock);
}
