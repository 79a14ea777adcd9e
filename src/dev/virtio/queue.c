/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues (VIRTIO 2.7): three rings in guest memory.
 *
 *     descriptors            available: heads of chains     used: heads, and how much was written
 *     addr len flags next    flags idx ring[size] used_event    flags idx ring[size] avail_event
 *          the driver's            the driver's                      the device's
 *
 * The driver may change its rings at any time, so everything is read once, into a variable, and
 * checked there. Whatever makes no sense breaks the device until the driver resets it; nothing of a
 * chain is used before all of it was checked.
 */
#include <errno.h>
#include <string.h>

#include "dev/virtio/virtio_internal.h"

struct descriptor {
	uint64_t gpa;
	uint32_t len;
	uint16_t flags, next;
};
struct used_element {
	uint32_t id, len;
};

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
enum { WANT_MORE_TRIES = 8, INDIRECT_MAX = UINT16_MAX + 1 };
enum { RING_HEADER_BYTES = 4, RING_EVENT_BYTES = 2 };

/* Words of a ring, which the driver may be looking at or writing meanwhile. */
static uint16_t load(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void store(uint16_t *p, uint16_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

/* The same where one side stores a word and then looks at what the other side stores before it looks at
 * that word: one of the two must see the other's (VIRTIO 2.7.13.4.1, 2.7.14). The store is a full barrier on
 * x86, which is what the driver's own side counts on. */
static uint16_t load_in_order(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void store_in_order(uint16_t *p, uint16_t value)
{
	__atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}

static uint16_t *used_event(const struct virtqueue *q)
{
	return &q->avail[2 + q->size];
}

static uint32_t used_bytes(const struct virtqueue *q)
{
	return RING_HEADER_BYTES + q->size * (uint32_t)sizeof(struct used_element) +
	       RING_EVENT_BYTES;
}

static uint16_t *avail_event(const struct virtqueue *q)
{
	return (uint16_t *)((char *)q->used + used_bytes(q) - RING_EVENT_BYTES);
}

int virtqueue_map(struct virtqueue *q)
{
	struct mem *mem = q->v->cfg.mem;
	size_t avail_bytes = RING_HEADER_BYTES + 2u * q->size + RING_EVENT_BYTES;

	/* VIRTIO 2.7: alignment of the three. */
	if (!q->size || q->desc_gpa & 15 || q->avail_gpa & 1 || q->used_gpa & 3)
		return -EFAULT;
	q->desc =
		dma_map(mem, &q->area[0], q->desc_gpa, q->size * sizeof(struct descriptor), false);
	q->avail = dma_map(mem, &q->area[1], q->avail_gpa, avail_bytes, false);
	q->used = dma_map(mem, &q->area[2], q->used_gpa, used_bytes(q), true);
	if (q->desc && q->avail && q->used)
		return 0;
	virtqueue_unmap(q);
	return -EFAULT;
}

void virtqueue_unmap(struct virtqueue *q)
{
	unsigned rings = VIRTIO_RINGS;

	dma_unmap_all(q->v->cfg.mem, q->area, &rings);
	q->desc = q->avail = q->used = NULL;
}

void virtqueue_reset(struct virtqueue *q)
{
	q->enabled = false;
	q->size = q->v->cfg.queue_size;
	q->vector = VIRTIO_NO_VECTOR;
	q->desc_gpa = q->avail_gpa = q->used_gpa = 0;
	virtqueue_unmap(q);
	q->last_avail = q->used_idx = q->published = 0;
	q->generation++;
	atomic_fetch_add(&q->v->stale, q->out);
	q->out = 0;
}

/* --- chains --- */

/* A walk over the descriptors of one table. */
struct walk {
	const struct descriptor *table;
	unsigned count; /* entries of the table */
	unsigned seen;	/* a walk longer than the table goes in a circle */
};

static const char *read_descriptor(struct walk *w, unsigned i, struct descriptor *d)
{
	if (i >= w->count)
		return "a descriptor's number is too large";
	if (w->seen++ >= w->count)
		return "descriptors go in a circle";
	memcpy(d, &w->table[i], sizeof(*d));
	__asm__ volatile("" : "+m"(*d)); /* the copy is what is looked at from here on */
	return NULL;
}

static void count_buffer(struct virtio_chain *c, const struct descriptor *d)
{
	if (d->flags & DESC_WRITE) {
		c->in_count++;
		c->in_bytes += d->len;
	} else {
		c->out_count++;
		c->out_bytes += d->len;
	}
}

static const char *add_buffer(struct virtqueue *q, struct virtio_chain *c,
			      const struct descriptor *d)
{
	unsigned n = c->out_count + c->in_count;
	void *host;

	if (!d->len)
		return NULL;
	if (n == c->room)
		return "a chain is too long";
	if (!(d->flags & DESC_WRITE) && c->in_count)
		return "a buffer to be read follows one to be written";
	if (!c->iov) {
		c->place[n] = (struct mem_range){d->gpa, d->len};
		count_buffer(c, d);
		return NULL;
	}
	if (d->len > VIRTIO_CHAIN_BYTES_MAX - c->out_bytes - c->in_bytes)
		return "a chain has too many bytes";
	host = dma_map(q->v->cfg.mem, &c->area[n], d->gpa, d->len, d->flags & DESC_WRITE);
	if (!host)
		return "a buffer is not in memory";
	c->held = n + 1;
	c->iov[n] = (struct iovec){host, d->len};
	count_buffer(c, d);
	return NULL;
}

/* VIRTIO 2.7.5.3: the whole chain is in a table of its own. What no 16-bit number reaches of it is
 * not looked at. */
static const char *enter_indirect(struct virtqueue *q, struct walk *w, struct descriptor *d,
				  struct dma_area *area)
{
	unsigned count = d->len / sizeof(*d);

	if (!virtio_has(q->v, VIRTIO_F_INDIRECT_DESC))
		return "an indirect table was not negotiated";
	if (w->table != q->desc || d->flags & DESC_NEXT)
		return "an indirect table is not alone";
	if (!d->len || d->len % sizeof(*d))
		return "an indirect table has an odd length";
	if (count > INDIRECT_MAX)
		count = INDIRECT_MAX;
	*w = (struct walk){.table = dma_map(q->v->cfg.mem, area, d->gpa, count * sizeof(*d), false),
			   .count = count};
	if (!w->table)
		return "an indirect table is not in memory";
	return read_descriptor(w, 0, d);
}

static const char *collect(struct virtqueue *q, struct virtio_chain *c)
{
	struct walk w = {.table = q->desc, .count = q->size};
	struct dma_area table = {0};
	struct descriptor d;
	const char *why = read_descriptor(&w, c->head, &d);

	if (!why && d.flags & DESC_INDIRECT)
		why = enter_indirect(q, &w, &d, &table);
	while (!why) {
		if (d.flags & DESC_INDIRECT) {
			why = "an indirect table within another, or within a chain";
			break;
		}
		why = add_buffer(q, c, &d);
		if (why || !(d.flags & DESC_NEXT))
			break;
		why = read_descriptor(&w, d.next, &d);
	}
	dma_unmap(q->v->cfg.mem, &table);
	return why;
}

static void release(struct virtqueue *q, struct virtio_chain *c)
{
	dma_unmap_all(q->v->cfg.mem, c->area, &c->held);
}

int virtqueue_pop(struct virtqueue *q, struct virtio_chain *c)
{
	uint16_t waiting = load(&q->avail[1]) - q->last_avail;
	const char *why = NULL;

	c->held = 0;
	if (!waiting)
		return 0;
	c->out_count = c->in_count = 0;
	c->out_bytes = c->in_bytes = 0;
	c->generation = q->generation;
	c->head = load(&q->avail[2 + q->last_avail % q->size]);
	if (waiting > q->size)
		why = "more chains are available than the queue holds";
	else if (q->out >= q->size)
		why = "a chain is available that the device still has";
	else
		why = collect(q, c);
	if (why) {
		release(q, c);
		virtio_break(q->v, why);
		return -EIO;
	}
	q->last_avail++;
	q->out++;
	atomic_fetch_add_explicit(&q->v->stats.chains, 1, memory_order_relaxed);
	return 1;
}

void virtqueue_put_back(struct virtqueue *q, struct virtio_chain *c, unsigned chains)
{
	for (unsigned i = 0; i < chains; i++)
		release(q, &c[i]);
	q->last_avail -= (uint16_t)chains;
	q->out -= chains;
	atomic_fetch_sub_explicit(&q->v->stats.chains, chains, memory_order_relaxed);
}

void virtqueue_push(struct virtqueue *q, struct virtio_chain *c, uint64_t written)
{
	struct used_element *e;

	if (c->iov) /* else its areas are none */
		dma_written(q->v->cfg.mem, c->area + c->out_count, c->in_count, written);
	release(q, c);
	if (c->generation != q->generation) {
		atomic_fetch_sub(&q->v->stale, 1);
		return;
	}
	q->out--;
	e = (struct used_element *)((char *)q->used + RING_HEADER_BYTES) + q->used_idx % q->size;
	*e = (struct used_element){c->head, written > UINT32_MAX ? UINT32_MAX : (uint32_t)written};
	q->used_idx++;
}

/* --- who tells whom --- */

/* Has idx, going from `from` to `to`, passed event? (VIRTIO 2.7.7.2) */
static bool passed(uint16_t event, uint16_t from, uint16_t to)
{
	return (uint16_t)(to - event - 1) < (uint16_t)(to - from);
}

void virtqueue_flush(struct virtqueue *q)
{
	uint16_t from = q->published;
	bool wanted;

	if (!q->enabled || from == q->used_idx)
		return;
	store_in_order(&((uint16_t *)q->used)[1], q->used_idx);
	q->published = q->used_idx;
	mem_written(q->v->cfg.mem, q->used_gpa, used_bytes(q));
	/* What the driver wants is asked after it could see the chains. */
	if (virtio_has(q->v, VIRTIO_F_EVENT_IDX))
		wanted = passed(load_in_order(used_event(q)), from, q->used_idx);
	else
		wanted = !(load_in_order(q->avail) & AVAIL_NO_INTERRUPT);
	if (wanted)
		virtio_interrupt(q->v, q->vector, ISR_QUEUE);
}

bool virtqueue_set_notify(struct virtqueue *q, bool on)
{
	bool event_idx = virtio_has(q->v, VIRTIO_F_EVENT_IDX);
	uint16_t *word = event_idx ? avail_event(q) : q->used;

	if (event_idx && !on)
		return false; /* left as it is, the event lies in the past: off */
	if (on)
		store_in_order(word, event_idx ? q->last_avail : 0);
	else
		store(word, USED_NO_NOTIFY); /* a hint: nothing is looked at afterwards */
	mem_written(q->v->cfg.mem, q->used_gpa + (uint64_t)((char *)word - (char *)q->used),
		    sizeof(*word));
	if (!on)
		return false;
	return load_in_order(&q->avail[1]) != q->last_avail;
}

void virtqueue_want_more(struct virtqueue *q)
{
	bool event_idx = virtio_has(q->v, VIRTIO_F_EVENT_IDX);
	uint16_t *word = event_idx ? avail_event(q) : q->used, seen;
	unsigned tries = 0;

	/* A driver announces the chain behind the event: chains that are there already must not
	 * hide it. */
	do {
		seen = load(&q->avail[1]);
		store_in_order(word, event_idx ? seen : 0);
	} while (load_in_order(&q->avail[1]) != seen && ++tries < WANT_MORE_TRIES);
	mem_written(q->v->cfg.mem, q->used_gpa + (uint64_t)((char *)word - (char *)q->used),
		    sizeof(*word));
	if (tries == WANT_MORE_TRIES)
		virtqueue_notify_later(q);
}

/* --- bytes of a chain --- */

bool virtio_iov_take(struct iovec **iov, unsigned *count, void *buf, size_t bytes)
{
	uint8_t *to = buf;

	while (bytes && *count) {
		struct iovec *v = *iov;
		size_t n = v->iov_len < bytes ? v->iov_len : bytes;
		if (to) {
			memcpy(to, v->iov_base, n);
			to += n;
		}
		bytes -= n;
		v->iov_base = (char *)v->iov_base + n;
		v->iov_len -= n;
		if (v->iov_len)
			break;
		++*iov;
		--*count;
	}
	return !bytes;
}

size_t virtio_iov_fill(const struct iovec *iov, unsigned count, const void *buf, size_t bytes)
{
	size_t done = 0;

	for (unsigned i = 0; i < count && done < bytes; i++) {
		size_t n = iov[i].iov_len < bytes - done ? iov[i].iov_len : bytes - done;
		memcpy(iov[i].iov_base, (const char *)buf + done, n);
		done += n;
	}
	return done;
}
