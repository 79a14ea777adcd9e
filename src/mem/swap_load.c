/* SPDX-License-Identifier: Apache-2.0 */
/* Loads: out of memory under the lock, out of the file without it, and what lies around there. */
#include <errno.h>
#include <string.h>

#include "mem/swap_internal.h"

/* What is read of a file's segment: [first, end) in units, aligned; and of it the object wanted. */
struct window {
	struct segment *seg;
	uint32_t number;
	uint32_t first, end;
};

enum { BLOCK_UNITS = FILE_ALIGN / UNIT, AROUND_UNITS = AROUND_BYTES / UNIT };

/* The object's blocks; with around, AROUND_BYTES, most of them after it: evicted later than it. */
static void window_set(struct window *w, bool around)
{
	uint32_t begin = w->seg->at[w->number], end = segment_end(w->seg, w->number);

	w->first = begin / BLOCK_UNITS * BLOCK_UNITS;
	w->end = (end + BLOCK_UNITS - 1) / BLOCK_UNITS * BLOCK_UNITS;
	if (!around)
		return;
	w->first -= w->first < AROUND_UNITS / 4 ? w->first : AROUND_UNITS / 4;
	if (w->first > SEGMENT_UNITS - AROUND_UNITS)
		w->first = SEGMENT_UNITS - AROUND_UNITS;
	w->end = w->first + AROUND_UNITS;
}

/* Whether the object at bytes is page's, by its header. */
static bool is_page(const uint8_t *bytes, uint32_t page)
{
	struct object o;

	memcpy(&o, bytes, sizeof(o));
	return o.page == page;
}

/* Finds the object. In memory: copies it to object, and w->seg is NULL. On file: w tells what to read, and
 * the segment has one reader more. 0 or -ESTALE. */
static int locate(struct swap *s, uint64_t slot, uint32_t page, uint8_t *object, bool around,
		  struct window *w)
{
	struct segment *seg;
	const uint8_t *at;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	seg = segment_find(s, slot, &w->number);
	w->seg = NULL;
	if (!seg) {
		rc = -ESTALE;
	} else if (seg->mem) {
		at = seg->mem + ((uint64_t)seg->at[w->number] << UNIT_SHIFT);
		if (is_page(at, page))
			memcpy(object, at,
			       (segment_end(seg, w->number) - seg->at[w->number]) * UNIT);
		else
			rc = -ESTALE;
	} else {
		w->seg = seg;
		window_set(w, around);
		seg->readers++;
	}
	s->stats.loaded_pages += !rc;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static uint8_t *buffer_take(struct swap *s)
{
	struct swap_buffer *b;

	pthread_mutex_lock(&s->lock);
	b = s->around;
	if (b)
		s->around = b->next;
	pthread_mutex_unlock(&s->lock);
	return b ? (uint8_t *)b : swap_pages(AROUND_BYTES);
}

static void buffer_give(struct swap *s, uint8_t *buf)
{
	struct swap_buffer *b = (struct swap_buffer *)buf;

	pthread_mutex_lock(&s->lock);
	b->next = s->around;
	s->around = b;
	pthread_mutex_unlock(&s->lock);
}

/* Counts a read and its outcome; tells what has changed about reading. */
static void read_done(struct swap *s, int rc, int32_t position, uint64_t bytes)
{
	bool tell;

	pthread_mutex_lock(&s->lock);
	if (rc || s->read_error_at == position) {
		s->read_error = rc;
		s->read_error_at = rc ? position : NO_POSITION;
	}
	tell = s->read_error != s->read_told;
	s->stats.reads += !rc;
	s->stats.read_bytes += rc ? 0 : bytes;
	s->stats.errors += rc != 0;
	pthread_mutex_unlock(&s->lock);
	if (tell)
		swap_tell(s);
}

/* The object's place in what was read, if it lies there whole; else NULL. */
static const uint8_t *in_window(const struct window *w, const uint8_t *buf, uint32_t number)
{
	if (w->seg->at[number] < w->first || segment_end(w->seg, number) > w->end)
		return NULL;
	return buf + ((uint64_t)(w->seg->at[number] - w->first) << UNIT_SHIFT);
}

/* 0, -EBADMSG. */
static int checked_unpack(const struct window *w, const uint8_t *buf, uint32_t number, void *data)
{
	const uint8_t *at = in_window(w, buf, number);
	uint32_t units = segment_end(w->seg, number) - w->seg->at[number];

	if (object_check(at, units, w->seg->stamp) < 0)
		return -EBADMSG;
	return object_unpack(at, data);
}

/* The wanted page out of the file, into data; what was read stays in buf. */
static int load_window(struct swap *s, const struct window *w, uint8_t *buf, uint32_t page,
		       void *data)
{
	uint64_t offset =
		(uint64_t)w->seg->position * SEGMENT_BYTES + ((uint64_t)w->first << UNIT_SHIFT);
	uint64_t bytes = (uint64_t)(w->end - w->first) << UNIT_SHIFT;
	int rc = swap_file_read(&s->file, offset, buf, bytes);

	read_done(s, rc, w->seg->position, bytes);
	if (rc < 0)
		return rc;
	rc = checked_unpack(w, buf, w->number, data);
	if (!rc && !is_page(in_window(w, buf, w->number), page))
		return -ESTALE;
	if (rc) {
		pthread_mutex_lock(&s->lock);
		s->stats.errors++;
		pthread_mutex_unlock(&s->lock);
	}
	return rc;
}

static void reader_leaves(struct swap *s, struct segment *seg, unsigned given)
{
	pthread_mutex_lock(&s->lock);
	s->stats.near_pages += given;
	seg->readers--;
	segment_settle(s, seg);
	pthread_mutex_unlock(&s->lock);
}

struct near_call {
	uint32_t page;
	unsigned left, given;
	void (*fn)(void *opaque, uint32_t page, uint64_t slot, const void *data);
	void *opaque;
};

static void offer_near(struct swap *s, const struct window *w, const uint8_t *buf, uint32_t number,
		       struct near_call *c)
{
	const uint8_t *at = in_window(w, buf, number);
	uint8_t data[SWAP_PAGE_BYTES];
	struct object o;
	bool alive;

	memcpy(&o, at, sizeof(o));
	if (o.page + SWAP_NEAR_PAGES - c->page > 2 * SWAP_NEAR_PAGES)
		return; /* unsigned: farther than that on either side */
	pthread_mutex_lock(&s->lock);
	alive = segment_alive(w->seg, number);
	pthread_mutex_unlock(&s->lock);
	if (!alive || checked_unpack(w, buf, number, data) < 0)
		return;
	c->left--;
	c->given++;
	c->fn(c->opaque, o.page, segment_slot(w->seg, number), data);
}

/* The segment is sealed and has a reader: its index can be read without the lock, but for who lives. */
static void offer_window(struct swap *s, const struct window *w, const uint8_t *buf,
			 struct near_call *c)
{
	for (uint32_t i = w->number + 1; i < w->seg->objects && c->left; i++) {
		if (!in_window(w, buf, i))
			break;
		offer_near(s, w, buf, i, c);
	}
	for (uint32_t i = w->number; i-- && c->left;) {
		if (!in_window(w, buf, i))
			break;
		offer_near(s, w, buf, i, c);
	}
}

int swap_load_around(struct swap *s, uint64_t slot, uint32_t page, void *data, unsigned max,
		     void (*near)(void *opaque, uint32_t page, uint64_t slot, const void *data),
		     void *opaque)
{
	uint8_t object[OBJECT_BYTES_MAX];
	struct near_call c = {page, max, 0, near, opaque};
	struct window w;
	uint8_t *buf;
	int rc = locate(s, slot, page, object, max > 0, &w);

	if (rc < 0)
		return rc;
	if (!w.seg)
		return object_unpack(object, data);
	buf = buffer_take(s);
	rc = buf ? load_window(s, &w, buf, page, data) : -ENOMEM;
	if (!rc)
		offer_window(s, &w, buf, &c);
	if (buf)
		buffer_give(s, buf);
	reader_leaves(s, w.seg, c.given);
	return rc;
}

int swap_load(struct swap *s, uint64_t slot, uint32_t page, void *data)
{
	return swap_load_around(s, slot, page, data, 0, NULL, NULL);
}
