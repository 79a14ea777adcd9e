/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio memory balloon (VIRTIO 5.5).
 *
 *     num_pages (ours) ─> driver takes pages ─> inflate queue: page numbers ┐
 *                                               reporting queue: free ranges ┤
 *     on_notify: pop, sort, check ─> a request ─> waiting                    ┘
 *     after_notify, no lock held: mem_discard ─────> the memory thread gives the pages back
 *     on_discarded, the memory thread: push, flush ─> the driver goes on
 *
 * A page that was given back reads as zero when it is touched and then is an ordinary page again, so a
 * driver that lies hurts its own guest only, and deflating needs nothing but the answer. That is
 * why MUST_TELL_HOST is not offered, and DEFLATE_ON_OOM is.
 *
 * Reported pages are free ones the guest still has. A guest that fills free pages with a pattern
 * (PAGE_POISON) wants to find it there again: only where that is zero are they given back.
 *
 * The stats queue goes the other way round: the driver leaves a filled buffer with us, and gets it
 * back when we want to know anew.
 *
 * Buffers are only read, by mem_read, and never held: a guest may put their own pages into the balloon.
 *
 * Lock order: the virtio core's, then balloon.lock. mem_discard may call back on the spot, so it is
 * called with none held.
 */
#include "dev/virtio/balloon.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/virtio/virtio.h"

/* Feature bits (VIRTIO 5.5.3). */
#define F_STATS_VQ (UINT64_C(1) << 1)
#define F_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define F_PAGE_POISON (UINT64_C(1) << 4)
#define F_PAGE_REPORTING (UINT64_C(1) << 5)

enum { TYPE_BALLOON = 5, CLASS_OTHER = 0x00ff00 };
enum {
	PLACES = 128,	   /* the size of a queue, and the buffers of a chain */
	PFNS_MAX = 4096,   /* page numbers of a chain; drivers send 256 or 1024 */
	STATS_MAX = 64,	   /* of a chain */
	CHAINS_MAX = 1024, /* on a vCPU's thread at a time */
	STATS_QUEUE = 2,
	REPORTING_QUEUE = 4,
	QUEUES,
};

/* VIRTIO 5.5.4 */
struct config_space {
	uint32_t num_pages, actual, free_page_hint_cmd_id, poison_val;
};

/* VIRTIO 5.5.6.3 */
struct told {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));

/* A chain whose pages are given back. */
struct request {
	struct request *next;
	struct balloon *b;
	struct virtqueue *q;
	struct virtio_chain chain;
	bool inflate;
	unsigned count;
	struct mem_range range[];
};

struct balloon {
	struct virtio v; /* first */
	struct config_space config;
	_Atomic uint64_t inflated, deflated, reported, refused, repeated, kept;

	/* Under the stats queue's lock. */
	bool holding;
	struct virtio_chain held;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t idle;
	unsigned busy; /* requests there are */
	struct request *waiting, **waiting_end;
	bool is_told;
	uint64_t told_ns;
	uint64_t stat[BALLOON_STAT_NR];

	/* What a queue works with, under its lock. */
	struct mem_range place[QUEUES][PLACES];
	uint32_t pfn[PFNS_MAX];
};

const char *const balloon_stat_names[BALLOON_STAT_NR] = {
	[BALLOON_SWAP_IN] = "swap_in_bytes",
	[BALLOON_SWAP_OUT] = "swap_out_bytes",
	[BALLOON_MAJOR_FAULTS] = "major_faults",
	[BALLOON_MINOR_FAULTS] = "minor_faults",
	[BALLOON_FREE] = "free_bytes",
	[BALLOON_TOTAL] = "total_bytes",
	[BALLOON_AVAILABLE] = "available_bytes",
	[BALLOON_CACHES] = "caches_bytes",
	[BALLOON_HUGE_ALLOCS] = "huge_allocations",
	[BALLOON_HUGE_FAILURES] = "huge_failures",
	[BALLOON_OOM_KILLS] = "oom_kills",
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- requests ---- */

static void request_over(struct request *r)
{
	struct balloon *b = r->b;

	virtqueue_lock(r->q);
	virtqueue_push(r->q, &r->chain, 0);
	virtqueue_flush(r->q);
	virtqueue_unlock(r->q);
	free(r);
	pthread_mutex_lock(&b->lock);
	if (!--b->busy)
		pthread_cond_broadcast(&b->idle);
	pthread_mutex_unlock(&b->lock);
}

/* The memory thread, or on_after_notify's. */
static void on_discarded(void *opaque)
{
	request_over(opaque);
}

static void drain(struct balloon *b)
{
	pthread_mutex_lock(&b->lock);
	while (b->busy)
		pthread_cond_wait(&b->idle, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

static void after_notify(void *dev, struct virtqueue *q)
{
	struct balloon *b = dev;

	(void)q;
	pthread_mutex_lock(&b->lock);
	struct request *r = b->waiting;
	b->waiting = NULL;
	b->waiting_end = &b->waiting;
	pthread_mutex_unlock(&b->lock);
	while (r) {
		struct request *next = r->next;
		uint64_t pages = 0;
		for (unsigned i = 0; i < r->count; i++)
			pages += r->range[i].len >> MEM_PAGE_SHIFT;
		_Atomic uint64_t *counter = r->inflate ? &b->inflated : &b->reported;
		count(counter, pages);
		if (mem_discard(b->v.cfg.mem, r->range, r->count, r->inflate, on_discarded, r) <
		    0) {
			atomic_fetch_sub(counter, pages);
			count(&b->kept, pages);
			request_over(r);
		}
		r = next;
	}
}

/* A request for the chain, with room for so many ranges; NULL: no memory. The queue's lock is held. */
static struct request *request_make(struct balloon *b, struct virtqueue *q,
				    const struct virtio_chain *c, unsigned ranges, bool inflate)
{
	struct request *r = malloc(sizeof(*r) + ranges * sizeof(r->range[0]));

	if (r)
		*r = (struct request){.b = b, .q = q, .chain = *c, .inflate = inflate};
	return r;
}

/* For after_notify, on this thread. */
static void request_enqueue(struct request *r)
{
	struct balloon *b = r->b;

	pthread_mutex_lock(&b->lock);
	b->busy++;
	*b->waiting_end = r;
	b->waiting_end = &r->next;
	pthread_mutex_unlock(&b->lock);
}

/* Without anything to give back, the chain is over. */
static void request_begin(struct request *r)
{
	if (r->count) {
		request_enqueue(r);
		return;
	}
	virtqueue_push(r->q, &r->chain, 0);
	free(r);
}

/* ---- what the driver names ---- */

static bool in_ram(const struct mem *m, uint64_t gpa, uint64_t len)
{
	uint64_t low = mem_low_bytes(m), high = mem_high_bytes(m);

	if (gpa < low)
		return len <= low - gpa;
	gpa -= MEM_HIGH_BASE;
	return gpa < high && len <= high - gpa;
}

/* Copies the chain's first bytes that the device reads. Returns how many; < 0: not in memory. */
static long read_chain(struct balloon *b, const struct virtio_chain *c, void *to, size_t room)
{
	size_t got = 0;

	for (unsigned i = 0; i < c->out_count && got < room; i++) {
		size_t n = c->place[i].len < room - got ? c->place[i].len : room - got;
		if (mem_read(b->v.cfg.mem, c->place[i].gpa, (char *)to + got, n) < 0) {
			virtio_break(&b->v, "a buffer is not in memory");
			return -EFAULT;
		}
		got += n;
	}
	return (long)got;
}

static int compare_pfns(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Adds a page to the request's ranges, which grow by rising addresses. */
static void add_page(struct request *r, uint64_t gpa)
{
	struct balloon *b = r->b;
	struct mem_range *last = r->count ? &r->range[r->count - 1] : NULL;
	struct mem_frame f;

	if (!in_ram(b->v.cfg.mem, gpa, MEM_PAGE_BYTES)) {
		count(&b->refused, 1);
		return;
	}
	if ((last && gpa < last->gpa + last->len) ||
	    (mem_frame_at(b->v.cfg.mem, gpa, &f) == 0 && f.state == MEM_STATE_BALLOON)) {
		count(&b->repeated, 1);
		return;
	}
	if (last && gpa == last->gpa + last->len)
		last->len += MEM_PAGE_BYTES;
	else
		r->range[r->count++] = (struct mem_range){gpa, MEM_PAGE_BYTES};
}

static void inflate(struct balloon *b, struct virtqueue *q, struct virtio_chain *c)
{
	long bytes = read_chain(b, c, b->pfn, sizeof(b->pfn));
	unsigned pages = bytes > 0 ? (unsigned)bytes / sizeof(b->pfn[0]) : 0;
	struct request *r = request_make(b, q, c, pages, true);

	if (c->out_bytes / sizeof(b->pfn[0]) > pages)
		count(&b->refused, c->out_bytes / sizeof(b->pfn[0]) - pages);
	if (!r) {
		count(&b->kept, pages);
		virtqueue_push(q, c, 0);
		return;
	}
	qsort(b->pfn, pages, sizeof(b->pfn[0]), compare_pfns);
	for (unsigned i = 0; i < pages; i++)
		add_page(r, (uint64_t)b->pfn[i] << MEM_PAGE_SHIFT);
	request_begin(r);
}

/* The pages are the guest's again as soon as it touches them. */
static void deflate(struct balloon *b, struct virtqueue *q, struct virtio_chain *c)
{
	count(&b->deflated, c->out_bytes / sizeof(b->pfn[0]));
	virtqueue_push(q, c, 0);
}

/* Whether free pages may come back as zeros. */
static bool may_zero(struct balloon *b)
{
	return !virtio_has(&b->v, F_PAGE_POISON) ||
	       !__atomic_load_n(&b->config.poison_val, __ATOMIC_RELAXED);
}

/* VIRTIO 5.5.6.7: the buffers themselves are the free pages. */
static void report(struct balloon *b, struct virtqueue *q, struct virtio_chain *c)
{
	bool zero = may_zero(b);
	struct request *r = zero ? request_make(b, q, c, c->in_count, false) : NULL;

	for (unsigned i = c->out_count; r && i < c->out_count + c->in_count; i++) {
		const struct mem_range *p = &c->place[i];
		if ((p->gpa | p->len) & (MEM_PAGE_BYTES - 1) ||
		    !in_ram(b->v.cfg.mem, p->gpa, p->len))
			count(&b->refused, (p->len + MEM_PAGE_BYTES - 1) >> MEM_PAGE_SHIFT);
		else
			r->range[r->count++] = *p;
	}
	if (r) {
		request_begin(r);
		return;
	}
	count(&b->kept, c->in_bytes >> MEM_PAGE_SHIFT);
	virtqueue_push(q, c, 0);
}

/* ---- the guest's own figures ---- */

static void note_told(struct balloon *b, const struct told *told, unsigned n)
{
	pthread_mutex_lock(&b->lock);
	memset(b->stat, 0xff, sizeof(b->stat)); /* BALLOON_UNTOLD */
	for (unsigned i = 0; i < n; i++)
		if (told[i].tag < BALLOON_STAT_NR)
			b->stat[told[i].tag] = told[i].value;
	b->is_told = true;
	b->told_ns = clock_ns();
	pthread_mutex_unlock(&b->lock);
}

static void listen(struct balloon *b, struct virtqueue *q, struct virtio_chain *c)
{
	struct told told[STATS_MAX];
	long bytes = read_chain(b, c, told, sizeof(told));

	if (bytes >= 0)
		note_told(b, told, (unsigned)bytes / sizeof(told[0]));
	/* There is but one; of several the newest. */
	if (b->holding)
		virtqueue_push(q, &b->held, 0);
	b->holding = true;
	b->held = *c;
}

/* ---- queues ---- */

typedef void handler(struct balloon *b, struct virtqueue *q, struct virtio_chain *c);

/*
 * VIRTIO 5.5.2 numbers the queues 0 to 4, whichever there are; Linux before 6.11 leaves no gap for those
 * that were not negotiated. NULL: nothing is expected there.
 */
static handler *handler_of(struct balloon *b, unsigned queue)
{
	bool stats = virtio_has(&b->v, F_STATS_VQ);
	bool reporting = virtio_has(&b->v, F_PAGE_REPORTING);
	unsigned compact = stats ? STATS_QUEUE + 1 : STATS_QUEUE;

	if (queue < STATS_QUEUE)
		return queue ? deflate : inflate;
	if (queue == STATS_QUEUE && stats)
		return listen;
	if (reporting && (queue == REPORTING_QUEUE || queue == compact))
		return report;
	return NULL;
}

static void on_notify(void *dev, struct virtqueue *q)
{
	struct balloon *b = dev;
	handler *handle = handler_of(b, q->index);
	unsigned taken = 0;
	int rc = 1;

	if (!handle)
		return;
	do {
		virtqueue_set_notify(q, false);
		for (; taken < CHAINS_MAX; taken++) {
			struct virtio_chain c = {.place = b->place[q->index], .room = PLACES};
			rc = virtqueue_pop(q, &c);
			if (rc <= 0)
				break;
			handle(b, q, &c);
		}
		virtqueue_flush(q);
		if (taken == CHAINS_MAX) {
			virtqueue_notify_later(q);
			return;
		}
	} while (rc >= 0 && virtqueue_set_notify(q, true));
}

bool balloon_ask(struct balloon *b)
{
	struct virtqueue *q = &b->v.queue[STATS_QUEUE];

	virtqueue_lock(q);
	bool can = q->enabled && virtio_is_running(&b->v);
	/* Linux announces its first buffer before DRIVER_OK, when nobody may listen yet. */
	if (can && !b->holding)
		on_notify(b, q);
	can = can && b->holding;
	if (can) {
		b->holding = false;
		virtqueue_push(q, &b->held, 0);
		virtqueue_flush(q);
	}
	virtqueue_unlock(q);
	return can;
}

/* ---- configuration ---- */

static void on_config_write(void *dev, unsigned offset, unsigned size, uint64_t value)
{
	struct balloon *b = dev;

	if (size != 4)
		return;
	if (offset == offsetof(struct config_space, actual))
		b->config.actual = (uint32_t)value;
	else if (offset == offsetof(struct config_space, poison_val))
		__atomic_store_n(&b->config.poison_val, (uint32_t)value, __ATOMIC_RELAXED);
}

static void forget_stats(struct balloon *b)
{
	pthread_mutex_lock(&b->lock);
	b->is_told = false;
	pthread_mutex_unlock(&b->lock);
}

static void on_reset(void *dev)
{
	struct balloon *b = dev;
	struct virtqueue *q = &b->v.queue[STATS_QUEUE];

	virtqueue_lock(q);
	if (b->holding)
		virtqueue_push(q, &b->held, 0);
	b->holding = false;
	virtqueue_unlock(q);
	b->config.actual = 0;
	__atomic_store_n(&b->config.poison_val, 0, __ATOMIC_RELAXED);
	forget_stats(b);
}

static const struct virtio_ops balloon_virtio_ops = {
	.notify = on_notify,
	.after_notify = after_notify,
	.config_write = on_config_write,
	.reset = on_reset,
};

/* ---- the host's side ---- */

static uint64_t bytes_of(const struct balloon *b, uint32_t pages)
{
	uint64_t bytes = (uint64_t)pages << MEM_PAGE_SHIFT, ram = mem_ram_bytes(b->v.cfg.mem);

	return bytes < ram ? bytes : ram;
}

void balloon_set_target(struct balloon *b, uint64_t bytes)
{
	uint64_t ram = mem_ram_bytes(b->v.cfg.mem);
	uint32_t pages = (uint32_t)((bytes < ram ? bytes : ram) >> MEM_PAGE_SHIFT);

	pthread_mutex_lock(&b->v.lock);
	if (b->config.num_pages != pages) {
		b->config.num_pages = pages;
		virtio_config_changed(&b->v);
	}
	pthread_mutex_unlock(&b->v.lock);
}

void balloon_get_info(struct balloon *b, struct balloon_info *info)
{
	*info = (struct balloon_info){
		.driver = virtio_is_running(&b->v),
		.inflated = b->inflated,
		.deflated = b->deflated,
		.reported = b->reported,
		.refused = b->refused,
		.repeated = b->repeated,
		.kept = b->kept,
	};
	pthread_mutex_lock(&b->v.lock);
	info->target = bytes_of(b, b->config.num_pages);
	info->actual = bytes_of(b, b->config.actual);
	pthread_mutex_unlock(&b->v.lock);
	pthread_mutex_lock(&b->lock);
	info->told = b->is_told;
	info->told_ns = b->told_ns;
	memcpy(info->stat, b->stat, sizeof(info->stat));
	pthread_mutex_unlock(&b->lock);
}

/* ---- life ---- */

static void reset(void *dev)
{
	struct balloon *b = dev;

	drain(b);
	virtio_reset(&b->v);
}

/* The held chain is saved as one not taken yet, and taken again afterwards, here and there. */
static void let_go_of_held(struct balloon *b)
{
	struct virtqueue *q = &b->v.queue[STATS_QUEUE];

	virtqueue_lock(q);
	if (b->holding) {
		virtqueue_put_back(q, &b->held, 1);
		virtqueue_notify_later(q);
	}
	b->holding = false;
	virtqueue_unlock(q);
}

static void state(void *dev, struct state_stream *s)
{
	struct balloon *b = dev;

	drain(b);
	let_go_of_held(b);
	if (!state_writing(s))
		forget_stats(b);
	virtio_state_begin(&b->v, s, 1);
	virtio_state_end(&b->v, s);
}

static void destroy(void *dev)
{
	struct balloon *b = dev;

	drain(b);
	virtio_destroy(&b->v);
	pthread_cond_destroy(&b->idle);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

int balloon_create(struct balloon **out, const struct balloon_config *cfg, struct error *err)
{
	struct balloon *b = calloc(1, sizeof(*b));

	*out = NULL;
	if (!b)
		return error_set(err, -ENOMEM, "virtio-balloon: out of memory");
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->idle, NULL);
	b->waiting_end = &b->waiting;
	const struct virtio_config vcfg = {
		.name = "virtio-balloon",
		.type = TYPE_BALLOON,
		.class_code = CLASS_OTHER,
		.features = F_STATS_VQ | F_DEFLATE_ON_OOM | F_PAGE_POISON | F_PAGE_REPORTING,
		.queues = QUEUES,
		.queue_size = PLACES,
		.config = (uint8_t *)&b->config,
		.config_bytes = sizeof(b->config),
		.ops = &balloon_virtio_ops,
		.dev = b,
		.pci = cfg->pci,
		.slot = cfg->slot,
		.mem = cfg->mem,
		.loop = cfg->loop,
	};
	int rc = virtio_create(&b->v, &vcfg, err);
	if (rc) {
		destroy(b);
		return rc;
	}
	*out = b;
	return 0;
}

const struct dev_ops balloon_ops = {
	.name = "virtio-balloon",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};
