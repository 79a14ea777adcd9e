/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's thread: writes whole segments to the file when memory is over its bound, moves what lives
 * out of segments that are mostly dead, and gives back what is free.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "mem/swap_internal.h"

#define RETRY_NS UINT64_C(1000000000) /* between writes while the file fails */
/* Between attempts to compact one segment: in memory, on file. */
#define AVOID_NS UINT64_C(100000000)
#define AVOID_FILE_NS UINT64_C(10000000000)
enum { MOVE_BATCH = 16 }; /* copied in one go under the lock, some microseconds */

void swap_tell(struct swap *s)
{
	char text[sizeof(s->told)] = "";
	int write_error, read_error;

	pthread_mutex_lock(&s->tell_lock);
	pthread_mutex_lock(&s->lock);
	write_error = s->write_error;
	read_error = s->read_told = s->read_error;
	pthread_mutex_unlock(&s->lock);
	if (write_error)
		snprintf(
			text, sizeof(text),
			"swap: cannot write the swap file in %s: %s; evicted memory stays in RAM until it "
			"can be: free space there or mend the disk",
			s->file.dir, strerror(-write_error));
	else if (read_error)
		snprintf(
			text, sizeof(text),
			"swap: cannot read the swap file in %s: %s; the memory kept there cannot be used "
			"until it can be: mend the disk",
			s->file.dir, strerror(-read_error));
	if (strcmp(text, s->told) != 0) {
		memcpy(s->told, text, sizeof(text));
		if (s->config.trouble)
			s->config.trouble(s->config.opaque, text);
	}
	pthread_mutex_unlock(&s->tell_lock);
}

/* ---- writing ---- */

/* With the lock, which it lets go meanwhile. */
static void write_oldest(struct swap *s)
{
	struct segment *seg = TAILQ_FIRST(&s->memory);
	bool told_before = s->write_error != 0;
	int rc;

	seg->position = swap_position_take(&s->file);
	TAILQ_REMOVE(&s->memory, seg, link);
	seg->state = SEGMENT_WRITING;
	pthread_mutex_unlock(&s->lock);
	rc = swap_file_write(&s->file, (uint64_t)seg->position * SEGMENT_BYTES, seg->mem,
			     SEGMENT_BYTES);
	pthread_mutex_lock(&s->lock);
	s->write_error = rc;
	if (rc < 0) {
		swap_position_give(&s->file, seg->position, false);
		seg->position = NO_POSITION;
		seg->state = SEGMENT_MEMORY;
		TAILQ_INSERT_HEAD(&s->memory, seg, link);
		s->stats.errors++;
		s->write_retry_ns = clock_ns() + RETRY_NS;
		segment_settle(s, seg);
	} else {
		s->stats.writes++;
		s->stats.written_bytes += SEGMENT_BYTES;
		segment_to_file(s, seg);
	}
	if (rc < 0 || told_before) {
		pthread_mutex_unlock(&s->lock);
		swap_tell(s);
		pthread_mutex_lock(&s->lock);
	}
}

/* ---- moving ---- */

struct move {
	uint32_t page, number;
	uint64_t old, slot;
	bool taken;
};

/* Room for units in open[COLD]. */
static bool cold_room(struct swap *s, uint32_t units)
{
	if (segment_fits(s->open[COLD], units))
		return true;
	if (segment_seal(s, COLD) < 0)
		return false;
	if (s->memory_segments >= s->memory_bound + MOVE_EXTRA)
		return false;
	return !segment_begin(s, COLD);
}

/* Copies the live object to the cold segment. False: no room for it. What is not an object any more stays. */
static bool copy_object(struct swap *s, struct segment *seg, const uint8_t *bytes, uint32_t number,
			struct move *m, unsigned *nr)
{
	uint32_t units = segment_end(seg, number) - seg->at[number];
	const uint8_t *from = bytes + ((uint64_t)seg->at[number] << UNIT_SHIFT);
	struct object o;
	uint8_t *to;

	if (object_check(from, units, seg->stamp) < 0) {
		s->stats.errors++;
		return true;
	}
	if (!cold_room(s, units))
		return false;
	to = segment_tail(s->open[COLD]);
	memcpy(&o, from, sizeof(o));
	o.stamp = s->open[COLD]->stamp;
	memcpy(to, &o, sizeof(o));
	memcpy(to + sizeof(o), from + sizeof(o), (units - 1) * UNIT);
	m[*nr] = (struct move){.page = o.page,
			       .number = number,
			       .old = segment_slot(seg, number),
			       .slot = segment_append(s, COLD, units)};
	++*nr;
	return true;
}

static void kill_slot(struct swap *s, uint64_t slot)
{
	uint32_t number;
	struct segment *seg = segment_find(s, slot, &number);

	if (seg)
		segment_kill(s, seg, number);
}

/* Asks the owner about each, and buries one of the two. With the lock, which it lets go meanwhile. */
static void offer(struct swap *s, struct move *m, unsigned nr)
{
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < nr; i++)
		m[i].taken = s->config.moved(s->config.opaque, m[i].page, m[i].old, m[i].slot);
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < nr; i++) {
		kill_slot(s, m[i].taken ? m[i].old : m[i].slot);
		s->stats.moved_pages += m[i].taken;
	}
}

/* Moves what lives in seg, which is at bytes. With the lock, which it lets go at times. */
static void move_all(struct swap *s, struct segment *seg, const uint8_t *bytes)
{
	struct move m[MOVE_BATCH];
	bool room = true;

	for (uint32_t i = 0; i < seg->objects && room && !s->stop;) {
		unsigned nr = 0;
		for (; i < seg->objects && nr < MOVE_BATCH && room; i++)
			if (segment_alive(seg, i))
				room = copy_object(s, seg, bytes, i, m, &nr);
		offer(s, m, nr);
	}
}

static int read_back(struct swap *s, struct segment *seg)
{
	int rc;

	if (!s->readback)
		s->readback = swap_pages(SEGMENT_BYTES);
	if (!s->readback)
		return -ENOMEM;
	pthread_mutex_unlock(&s->lock);
	rc = swap_file_read(&s->file, (uint64_t)seg->position * SEGMENT_BYTES, s->readback,
			    SEGMENT_BYTES);
	pthread_mutex_lock(&s->lock);
	if (rc < 0) {
		s->stats.errors++;
		return rc;
	}
	s->stats.reads++;
	s->stats.read_bytes += SEGMENT_BYTES;
	return 0;
}

/* With the lock, which it lets go at times. What could not be moved waits for a later attempt. */
static void compact(struct swap *s, struct segment *seg)
{
	uint64_t moved_before = s->stats.moved_pages;

	seg->compacting = true;
	if (seg->mem)
		move_all(s, seg, seg->mem);
	else if (!read_back(s, seg))
		move_all(s, seg, s->readback);
	seg->compacting = false;
	seg->avoid_until_ns = clock_ns() + (seg->mem ? AVOID_NS : AVOID_FILE_NS);
	s->stats.compactions += s->stats.moved_pages > moved_before;
	segment_settle(s, seg);
}

/* ---- what to do next ---- */

static bool over(const struct swap *s)
{
	return s->memory_segments > s->memory_low;
}

/* Whether objects can be moved: somebody takes them, and there is room. */
static bool can_move(const struct swap *s)
{
	return s->config.moved && s->memory_segments < s->memory_bound + MOVE_EXTRA;
}

/* False: not now, and work() is due again then. */
static bool due(struct swap *s, uint64_t at, uint64_t now)
{
	if (at > now && at < s->again_ns)
		s->again_ns = at;
	return at <= now;
}

/* Moves what lives in the sparsest segment in memory, if that is units or less. */
static bool squeeze(struct swap *s, uint32_t units, uint64_t now)
{
	struct segment *seg, *best = NULL;

	if (!over(s) || !can_move(s))
		return false;
	TAILQ_FOREACH(seg, &s->memory, link)
	if (seg->live_units <= units && due(s, seg->avoid_until_ns, now) &&
	    (!best || seg->live_units < best->live_units))
		best = seg;
	if (best)
		compact(s, best);
	return best;
}

static bool write_out(struct swap *s, uint64_t now)
{
	if (!over(s) || TAILQ_EMPTY(&s->memory) || !swap_position_free(&s->file) ||
	    !due(s, s->write_retry_ns, now))
		return false;
	write_oldest(s);
	return true;
}

static struct segment *sparsest_in_file(struct swap *s, uint32_t units, uint64_t now)
{
	struct segment *seg;

	for (uint32_t i = 0; i <= units >> BUCKET_SHIFT; i++)
		TAILQ_FOREACH(seg, &s->file_buckets[i], link)
	if (seg->live_units <= units && due(s, seg->avoid_until_ns, now))
		return seg;
	return NULL;
}

/* Moves what lives in the file's emptiest segment, when the file is full or mostly dead. */
static bool tidy_file(struct swap *s, uint64_t now)
{
	bool full = over(s) && !swap_position_free(&s->file);
	struct segment *seg;

	if (!can_move(s) || (!full && !swap_file_wasteful(s)))
		return false;
	seg = sparsest_in_file(s, SEGMENT_UNITS / 4 * 3, now);
	if (seg)
		compact(s, seg);
	return seg;
}

static bool trim_pool(struct swap *s)
{
	struct swap_buffer *b = s->pool;

	if (s->pool_nr <= POOL_KEEP)
		return false;
	s->pool = b->next;
	s->pool_nr--;
	pthread_mutex_unlock(&s->lock);
	munmap(b, SEGMENT_BYTES);
	pthread_mutex_lock(&s->lock);
	return true;
}

static bool trim_file(struct swap *s)
{
	int32_t position;
	int rc;

	if (s->file.spare_nr <= SPARE_KEEP || s->file.no_punch)
		return false;
	position = swap_position_take(&s->file);
	pthread_mutex_unlock(&s->lock);
	rc = swap_file_punch(&s->file, position);
	pthread_mutex_lock(&s->lock);
	s->file.no_punch = rc < 0;
	swap_position_give(&s->file, position, rc < 0);
	return true;
}

/* Does one thing that is due, letting the lock go meanwhile. False, with the lock held all along: nothing is,
 * before again_ns. */
static bool work(struct swap *s)
{
	uint64_t now = clock_ns();

	s->again_ns = UINT64_MAX;
	return squeeze(s, SEGMENT_UNITS / 2, now) || write_out(s, now) || tidy_file(s, now) ||
	       /* Nothing can leave memory: closer together, then. */
	       squeeze(s, SEGMENT_UNITS / 8 * 7, now) || trim_pool(s) || trim_file(s);
}

static void wait_for_work(struct swap *s)
{
	struct timespec t;

	if (s->again_ns == UINT64_MAX) {
		pthread_cond_wait(&s->work, &s->lock);
		return;
	}
	t.tv_sec = (time_t)(s->again_ns / 1000000000);
	t.tv_nsec = (long)(s->again_ns % 1000000000);
	pthread_cond_timedwait(&s->work, &s->lock, &t);
}

void *swap_thread(void *swap)
{
	struct swap *s = swap;
	sigset_t all;

	/* Signals are for others; SIGXFSZ, which a write may raise, would end the process. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		if (work(s))
			continue;
		s->answered = s->asked;
		pthread_cond_broadcast(&s->room);
		wait_for_work(s);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}
