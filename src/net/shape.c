/* SPDX-License-Identifier: Apache-2.0 */
/* Bad lines for tests: frames are lost, wait for the line to be free, and take time on it. */
#include <string.h>

#include "base/clock.h"
#include "net/netport_internal.h"
#include "net/switch_internal.h"

enum { SHAPE_FRAMES = 16384, SHAPE_BYTES = 16 << 20, SHAPE_QUEUE_NS = 200000000 };

void shape_init(struct shaper *s, unsigned seed)
{
	pthread_mutex_init(&s->lock, NULL);
	net_queue_init(&s->queue, SHAPE_FRAMES, SHAPE_BYTES);
	s->random = UINT64_C(0x9e3779b97f4a7c15) * (seed + 1);
}

void shape_destroy(struct shaper *s)
{
	net_queue_clear(&s->queue);
	pthread_mutex_destroy(&s->lock);
}

/* xorshift64: Marsaglia, 2003. The same losses in each run. */
static bool lost(struct shaper *s)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (s->random >> 11) % 1000000 < s->shape.loss_ppm;
}

static enum net_drop put_on_line(struct shaper *s, const struct net_frame *f, unsigned source,
				 uint64_t *due_ns)
{
	uint64_t now = clock_ns(), start = s->free_ns > now ? s->free_ns : now, took = 0;

	if (s->shape.loss_ppm && lost(s))
		return NET_DROP_LOSS;
	if (s->shape.bits_per_s) {
		/* The queue before a slow line is bounded in time. */
		if (start - now > SHAPE_QUEUE_NS)
			return NET_DROP_RATE;
		took = clock_muldiv((uint64_t)f->bytes * 8, 1000000000, s->shape.bits_per_s);
	}
	if (net_queue_push(&s->queue, f, source))
		return NET_DROP_QUEUE_FULL;
	s->free_ns = start + took;
	net_queue_last(&s->queue)->due_ns = s->free_ns + s->shape.delay_ns;
	*due_ns = s->queue.first->due_ns;
	return NET_DROPS;
}

/* The timer is set for the first frame that is due at any port. */
static void shape_arm(struct net_switch *sw, uint64_t due_ns)
{
	pthread_mutex_lock(&sw->timer_lock);
	if (due_ns < sw->timer_ns) {
		sw->timer_ns = due_ns;
		timer_arm(&sw->timer, due_ns);
	}
	pthread_mutex_unlock(&sw->timer_lock);
}

bool shape_frame(struct switch_port *to, const struct net_frame *f, unsigned source)
{
	struct shaper *s = &to->shaper;
	uint64_t due_ns = 0;

	if (!atomic_load_explicit(&s->on, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&s->lock);
	bool first = !s->queue.first;
	enum net_drop cause = put_on_line(s, f, source, &due_ns);
	pthread_mutex_unlock(&s->lock);
	if (cause != NET_DROPS) {
		netport_count_sent_drop(to->end, cause, 1);
	} else if (first) {
		shape_arm(to->sw, due_ns);
	}
	return true;
}

/* Sends what is due; returns when the next is, or UINT64_MAX. */
static uint64_t send_due(struct switch_port *p, uint64_t now)
{
	struct shaper *s = &p->shaper;
	struct net_queue due;
	uint64_t next = UINT64_MAX;

	net_queue_init(&due, SHAPE_FRAMES, SHAPE_BYTES);
	pthread_mutex_lock(&s->lock);
	net_queue_take(&due, &s->queue, now);
	if (s->queue.first)
		next = s->queue.first->due_ns;
	pthread_mutex_unlock(&s->lock);
	while (due.first) {
		struct net_frame f[NET_BATCH_MAX];
		unsigned n = net_queue_peek(&due, f, NET_BATCH_MAX);
		netport_send_from(p->end, f, n, due.first->source);
		net_queue_drop(&due, n);
	}
	return next;
}

void shape_due(void *opaque)
{
	struct net_switch *sw = opaque;
	uint64_t now = clock_ns(), next = UINT64_MAX;

	pthread_mutex_lock(&sw->timer_lock);
	sw->timer_ns = UINT64_MAX;
	pthread_mutex_unlock(&sw->timer_lock);
	pthread_rwlock_rdlock(&sw->lock);
	for (unsigned i = 0; i < sw->active_count; i++) {
		uint64_t due = send_due(sw->ports[sw->active[i]], now);
		if (due < next)
			next = due;
	}
	pthread_rwlock_unlock(&sw->lock);
	shape_arm(sw, next);
}
