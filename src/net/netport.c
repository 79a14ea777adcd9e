/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cables. Two ends know each other; sending on one calls the other's receive(), after what it
 * cannot take was done in software (fit.c, lro.c) and behind what waits in its queue.
 *
 *     netport_send(a) ─> a.peer_lock (shared) ─> b.rx_lock ─> fit ─> b.receive() ─┬─> taken
 *                                                              b.queue <──────────┘ the rest
 *     netport_ready(b) ─> b.rx_lock ─> b.queue ─> b.receive() ─> a.room()
 *
 * Locks, in this order: topology; then peer_lock of the sending end; then rx_lock of the receiving
 * one. A switch's receive() sends on its other ports below its own rx_lock: the order goes on along
 * the way of the frame, and no frame comes back to where it was, because receive() of a NIC or an
 * uplink never sends.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "net/frame.h"
#include "net/lro.h"
#include "net/netport_internal.h"
#include "net/pcapng.h"
#include "net/queue.h"

enum { QUEUE_FRAMES = 512, QUEUE_BYTES = 4 << 20 };

struct netport {
	char name[64];
	struct netport_ops ops;
	void *opaque;
	_Atomic uint32_t features, max_frame_bytes;
	atomic_bool up;
	pthread_rwlock_t peer_lock; /* guards peer; held shared while the peer is called */
	struct netport *peer;
	pthread_mutex_t mac_lock;
	uint8_t mac_given[6], mac_used[6];

	pthread_mutex_t rx_lock; /* guards what follows, and the peer's sent counters */
	struct net_queue queue;
	struct net_fit *fit; /* made when first needed */
	struct net_lro *lro;
	atomic_bool waiting;	/* something is queued */
	atomic_bool peer_waits; /* its netport_send took fewer */
	unsigned fit_source;	/* for fit's emit: whose frame it is */
	_Atomic(struct net_capture *) capture;
	unsigned capture_id;

	struct netport_stats stats;
};

/* One lock for all changes of who is connected to whom: they are rare. */
static pthread_mutex_t topology = PTHREAD_MUTEX_INITIALIZER;

static const char *const drop_names[] = {
	[NET_DROP_LINK_DOWN] = "link-down", [NET_DROP_QUEUE_FULL] = "queue-full",
	[NET_DROP_RUNT] = "runt",	    [NET_DROP_OVERSIZE] = "oversize",
	[NET_DROP_BAD_FRAME] = "bad-frame", [NET_DROP_BAD_OFFLOAD] = "bad-offload",
	[NET_DROP_VLAN] = "vlan",	    [NET_DROP_FORGED] = "forged",
	[NET_DROP_STORM] = "storm",	    [NET_DROP_RATE] = "rate",
	[NET_DROP_LOSS] = "loss",	    [NET_DROP_NO_MEMORY] = "no-memory",
	[NET_DROP_NO_BUFFER] = "no-buffer", [NET_DROP_FILTERED] = "filtered",
};
_Static_assert(sizeof(drop_names) / sizeof(drop_names[0]) == NET_DROPS, "a name for each cause");

const char *net_drop_name(enum net_drop cause)
{
	return drop_names[cause];
}

/* Counters are written under a lock or by an atomic addition, and read by anyone. */
static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static void count_shared(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

void netport_count_drop(struct netport *p, enum net_drop cause, unsigned frames)
{
	count_shared(&p->stats.received_drops[cause], frames);
}

void netport_count_sent_drop(struct netport *p, enum net_drop cause, unsigned frames)
{
	count_shared(&p->stats.sent_drops[cause], frames);
}

/* ---- receiving; with p->rx_lock held ---- */

/* For inspection, which takes no lock. */
static void note_queue(struct netport *p)
{
	__atomic_store_n(&p->stats.queued_frames, p->queue.frames, __ATOMIC_RELAXED);
	__atomic_store_n(&p->stats.queued_bytes, p->queue.bytes, __ATOMIC_RELAXED);
}

static void enqueue(struct netport *p, const struct net_frame *f, unsigned source)
{
	int rc = net_queue_push(&p->queue, f, source);

	if (rc)
		netport_count_drop(p, rc == -ENOMEM ? NET_DROP_NO_MEMORY : NET_DROP_QUEUE_FULL, 1);
	else
		atomic_store(&p->waiting, true);
	note_queue(p);
}

static void capture(struct netport *p, const struct net_frame *f, unsigned n, bool sent)
{
	struct net_capture *c = atomic_load_explicit(&p->capture, memory_order_acquire);

	for (unsigned i = 0; c && i < n; i++)
		net_capture_frame(c, p->capture_id, &f[i], sent);
}

static void count_received(struct netport *p, const struct net_frame *f, unsigned n)
{
	uint64_t packets = 0, bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		packets += net_frame_packets(&f[i]);
		bytes += f[i].bytes;
	}
	count(&p->stats.received_frames, n);
	count(&p->stats.received_packets, packets);
	count(&p->stats.received_bytes, bytes);
}

/* Frames that p can take; at most NET_BATCH_MAX. */
static void hand_over(struct netport *p, const struct net_frame *f, unsigned n)
{
	unsigned taken = 0;

	/* First: whoever has room again after receive() saw none must find that something waits. */
	atomic_store(&p->waiting, true);
	if (!p->queue.first)
		taken = p->ops.receive(p->opaque, f, n);
	if (taken > n)
		taken = n;
	if (taken) {
		count_received(p, f, taken);
		capture(p, f, taken, false);
	}
	for (; taken < n; taken++)
		enqueue(p, &f[taken], p->fit_source);
	if (!p->queue.first)
		atomic_store(&p->waiting, false);
}

static void emit(void *opaque, const struct net_frame *frames, unsigned n)
{
	hand_over(opaque, frames, n);
}

static void fit_one(struct netport *p, const struct net_frame *f)
{
	enum net_drop cause;

	if (!p->fit) {
		p->fit = malloc(sizeof(*p->fit));
		if (!p->fit) {
			netport_count_drop(p, NET_DROP_NO_MEMORY, 1);
			return;
		}
		p->fit->count = 0;
		p->fit->emit = emit;
		p->fit->opaque = p;
	}
	p->fit->checksummed = p->fit->segmented = p->fit->tagged = 0;
	if (net_fit_frame(p->fit, f, p->features, p->max_frame_bytes, &cause))
		netport_count_drop(p, cause, 1);
	count(&p->stats.checksummed, p->fit->checksummed);
	count(&p->stats.segmented, p->fit->segmented);
	count(&p->stats.tagged, p->fit->tagged);
}

/* Runs of frames that fit go on as they are. */
static void deliver(struct netport *p, const struct net_frame *f, unsigned n)
{
	uint32_t features = p->features, max = p->max_frame_bytes;
	unsigned run = 0;

	for (unsigned i = 0; i < n; i++) {
		if (net_fits(&f[i], features, max)) {
			run++;
			continue;
		}
		if (run)
			hand_over(p, &f[i - run], run);
		run = 0;
		fit_one(p, &f[i]);
	}
	if (run)
		hand_over(p, &f[n - run], run);
}

static void deliver_joined(struct netport *p, const struct net_frame *f, unsigned n)
{
	unsigned joined;

	if (!p->lro)
		p->lro = malloc(sizeof(*p->lro));
	if (!p->lro) {
		deliver(p, f, n);
		return;
	}
	joined = net_lro_join(p->lro, f, n, p->features);
	count(&p->stats.joined, n - joined);
	deliver(p, p->lro->frames, joined);
}

/* Gives receive() what waits. True when nothing waits any more. */
static bool drain(struct netport *p)
{
	struct net_frame f[NET_BATCH_MAX];

	while (p->queue.first) {
		unsigned n = net_queue_peek(&p->queue, f, NET_BATCH_MAX);
		unsigned taken = p->ops.receive(p->opaque, f, n);
		if (taken > n)
			taken = n;
		count_received(p, f, taken);
		capture(p, f, taken, false);
		net_queue_drop(&p->queue, taken);
		note_queue(p);
		if (taken < n)
			return false;
	}
	atomic_store(&p->waiting, false);
	return true;
}

void netport_ready(struct netport *p)
{
	bool call = false;

	if (!atomic_load(&p->waiting))
		return;
	pthread_mutex_lock(&p->rx_lock);
	drain(p);
	if (p->queue.frames <= p->queue.frames_max / 2 && p->queue.bytes <= p->queue.bytes_max / 2)
		call = atomic_exchange(&p->peer_waits, false);
	pthread_mutex_unlock(&p->rx_lock);
	if (!call)
		return;
	pthread_rwlock_rdlock(&p->peer_lock);
	if (p->peer && p->peer->ops.room)
		p->peer->ops.room(p->peer->opaque);
	pthread_rwlock_unlock(&p->peer_lock);
}

/* ---- sending ---- */

/* How many of the frames there is room for, if the sender would rather wait. */
static unsigned admit(struct netport *p, struct netport *q, const struct net_frame *f, unsigned n)
{
	uint32_t bytes = q->queue.bytes;

	if (!p->ops.room || !q->queue.first)
		return n;
	for (unsigned i = 0; i < n; i++) {
		bytes += f[i].bytes;
		if (q->queue.frames + i + 1 > q->queue.frames_max || bytes > q->queue.bytes_max)
			return i;
	}
	return n;
}

/* One batch, all sound. With q's rx_lock held. Returns how many were taken care of. */
static unsigned send_batch(struct netport *p, struct netport *q, const struct net_frame *f,
			   unsigned n)
{
	unsigned taken = admit(p, q, f, n);
	uint64_t packets = 0, bytes = 0;

	if (taken < n)
		atomic_store(&q->peer_waits, true);
	if (!taken)
		return 0;
	for (unsigned i = 0; i < taken; i++) {
		packets += net_frame_packets(&f[i]);
		bytes += f[i].bytes;
	}
	count(&p->stats.sent_frames, taken);
	count(&p->stats.sent_packets, packets);
	count(&p->stats.sent_bytes, bytes);
	capture(p, f, taken, true);
	if ((q->features & NET_WANT_LRO) && taken > 1)
		deliver_joined(q, f, taken);
	else
		deliver(q, f, taken);
	return taken;
}

static bool sound(struct netport *p, const struct net_frame *f, unsigned iov_max)
{
	enum net_drop cause;

	if (!net_frame_check(f, iov_max, &cause))
		return true;
	netport_count_sent_drop(p, cause, 1);
	return false;
}

static unsigned send_locked(struct netport *p, struct netport *q, const struct net_frame *frames,
			    unsigned n, unsigned source)
{
	unsigned iov_max = source ? NET_IOV_MAX + 2 : NET_IOV_MAX, done = 0;

	while (done < n) {
		unsigned run = 0;
		while (done + run < n && run < NET_BATCH_MAX &&
		       sound(p, &frames[done + run], iov_max))
			run++;
		if (run) {
			unsigned taken = send_batch(p, q, &frames[done], run);
			done += taken;
			if (taken < run)
				break;
		}
		/* What ended the run was counted, if it was not the batch's size. */
		if (done < n && run < NET_BATCH_MAX)
			done++;
	}
	return done;
}

unsigned netport_send_from(struct netport *p, const struct net_frame *frames, unsigned n,
			   unsigned source)
{
	unsigned done = n;

	pthread_rwlock_rdlock(&p->peer_lock);
	struct netport *q = p->peer;
	if (!q || !atomic_load(&p->up) || !atomic_load(&q->up)) {
		netport_count_sent_drop(p, NET_DROP_LINK_DOWN, n);
	} else if (n) {
		pthread_mutex_lock(&q->rx_lock);
		q->fit_source = source;
		done = send_locked(p, q, frames, n, source);
		pthread_mutex_unlock(&q->rx_lock);
	}
	pthread_rwlock_unlock(&p->peer_lock);
	return done;
}

unsigned netport_send(struct netport *p, const struct net_frame *frames, unsigned n)
{
	return netport_send_from(p, frames, n, 0);
}

/* ---- what the ends tell each other ---- */

static void tell_peer(struct netport *p)
{
	pthread_rwlock_rdlock(&p->peer_lock);
	if (p->peer && p->peer->ops.changed)
		p->peer->ops.changed(p->peer->opaque);
	pthread_rwlock_unlock(&p->peer_lock);
}

void netport_set_features(struct netport *p, uint32_t features, uint32_t max_frame_bytes)
{
	uint32_t max = max_frame_bytes ? max_frame_bytes : 1514;
	bool same = atomic_exchange(&p->features, features) == features;

	same &= atomic_exchange(&p->max_frame_bytes, max) == max;
	if (!same)
		tell_peer(p);
}

uint32_t netport_peer_features(struct netport *p)
{
	pthread_rwlock_rdlock(&p->peer_lock);
	uint32_t features = p->peer ? p->peer->features : 0;
	pthread_rwlock_unlock(&p->peer_lock);
	return features;
}

uint32_t netport_peer_max_frame(struct netport *p)
{
	pthread_rwlock_rdlock(&p->peer_lock);
	uint32_t bytes = p->peer ? p->peer->max_frame_bytes : 0;
	pthread_rwlock_unlock(&p->peer_lock);
	return bytes;
}

void netport_set_given_mac(struct netport *p, const uint8_t given[6], const uint8_t used[6])
{
	pthread_mutex_lock(&p->mac_lock);
	bool same = !memcmp(p->mac_used, used, 6) && (!given || !memcmp(p->mac_given, given, 6));
	if (given)
		memcpy(p->mac_given, given, 6);
	memcpy(p->mac_used, used, 6);
	pthread_mutex_unlock(&p->mac_lock);
	if (!same)
		tell_peer(p);
}

void netport_set_mac(struct netport *p, const uint8_t mac[6])
{
	netport_set_given_mac(p, NULL, mac);
}

void netport_set_given(struct netport *p, const uint8_t mac[6])
{
	netport_set_given_mac(p, mac, mac);
}

bool netport_peer_up(struct netport *p)
{
	pthread_rwlock_rdlock(&p->peer_lock);
	bool up = p->peer && atomic_load(&p->peer->up);
	pthread_rwlock_unlock(&p->peer_lock);
	return up;
}

bool netport_peer_mac(struct netport *p, uint8_t given[6], uint8_t used[6])
{
	pthread_rwlock_rdlock(&p->peer_lock);
	struct netport *q = p->peer;
	if (q) {
		pthread_mutex_lock(&q->mac_lock);
		memcpy(given, q->mac_given, 6);
		memcpy(used, q->mac_used, 6);
		pthread_mutex_unlock(&q->mac_lock);
	}
	pthread_rwlock_unlock(&p->peer_lock);
	return q;
}

void netport_set_link(struct netport *p, bool up)
{
	if (atomic_exchange(&p->up, up) != up)
		tell_peer(p);
}

bool netport_link(struct netport *p)
{
	pthread_rwlock_rdlock(&p->peer_lock);
	bool up = p->peer && atomic_load(&p->up) && atomic_load(&p->peer->up);
	pthread_rwlock_unlock(&p->peer_lock);
	return up;
}

/* ---- inspection ---- */

const char *netport_name(const struct netport *p)
{
	return p->name;
}

void netport_get_stats(struct netport *p, struct netport_stats *out)
{
	const uint64_t *from = (const uint64_t *)&p->stats;
	uint64_t *to = (uint64_t *)out;

	for (size_t i = 0; i < offsetof(struct netport_stats, queued_frames) / sizeof(*from); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	out->queued_frames = __atomic_load_n(&p->stats.queued_frames, __ATOMIC_RELAXED);
	out->queued_bytes = __atomic_load_n(&p->stats.queued_bytes, __ATOMIC_RELAXED);
}

bool netport_get_peer_stats(struct netport *p, struct netport_stats *out)
{
	pthread_rwlock_rdlock(&p->peer_lock);
	struct netport *q = p->peer;
	if (q)
		netport_get_stats(q, out);
	pthread_rwlock_unlock(&p->peer_lock);
	return q;
}

void netport_set_capture(struct netport *p, struct net_capture *c)
{
	/* Both locks that a frame passes p under: after this nobody uses the old capture. */
	pthread_rwlock_wrlock(&p->peer_lock);
	pthread_mutex_lock(&p->rx_lock);
	if (c)
		p->capture_id = net_capture_add(c, p->name);
	atomic_store_explicit(&p->capture, c, memory_order_release);
	pthread_mutex_unlock(&p->rx_lock);
	pthread_rwlock_unlock(&p->peer_lock);
}

/* ---- life ---- */

int netport_create(struct netport **out, const struct netport_config *config,
		   const struct netport_ops *ops, void *opaque)
{
	struct netport *p = calloc(1, sizeof(*p));
	pthread_rwlockattr_t attr;

	*out = NULL;
	if (!p)
		return -ENOMEM;
	strncpy(p->name, config->name ? config->name : "port", sizeof(p->name) - 1);
	p->ops = *ops;
	p->opaque = opaque;
	p->features = config->features;
	p->max_frame_bytes = config->max_frame_bytes ? config->max_frame_bytes : 1514;
	p->up = true;
	memcpy(p->mac_given, config->mac, 6);
	memcpy(p->mac_used, config->mac, 6);
	net_queue_init(&p->queue, config->queue_frames ? config->queue_frames : QUEUE_FRAMES,
		       config->queue_bytes ? config->queue_bytes : QUEUE_BYTES);
	pthread_rwlockattr_init(&attr);
	/* Nobody takes peer_lock twice, and a disconnect must come through a busy link. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&p->peer_lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&p->rx_lock, NULL);
	pthread_mutex_init(&p->mac_lock, NULL);
	*out = p;
	return 0;
}

void netport_destroy(struct netport *p)
{
	if (!p)
		return;
	netport_disconnect(p);
	net_queue_clear(&p->queue);
	pthread_rwlock_destroy(&p->peer_lock);
	pthread_mutex_destroy(&p->rx_lock);
	pthread_mutex_destroy(&p->mac_lock);
	free(p->fit);
	free(p->lro);
	free(p);
}

static void set_peer(struct netport *p, struct netport *peer)
{
	pthread_rwlock_wrlock(&p->peer_lock);
	p->peer = peer;
	pthread_rwlock_unlock(&p->peer_lock);
}

static void forget_queue(struct netport *p)
{
	pthread_mutex_lock(&p->rx_lock);
	unsigned n = net_queue_clear(&p->queue);
	note_queue(p);
	atomic_store(&p->waiting, false);
	atomic_store(&p->peer_waits, false);
	pthread_mutex_unlock(&p->rx_lock);
	netport_count_drop(p, NET_DROP_LINK_DOWN, n);
}

int netport_connect(struct netport *a, struct netport *b)
{
	pthread_mutex_lock(&topology);
	if (a == b || a->peer || b->peer) {
		pthread_mutex_unlock(&topology);
		return -EBUSY;
	}
	set_peer(a, b);
	set_peer(b, a);
	pthread_mutex_unlock(&topology);
	tell_peer(a);
	tell_peer(b);
	return 0;
}

void netport_disconnect(struct netport *p)
{
	pthread_mutex_lock(&topology);
	struct netport *q = p->peer;
	if (q) {
		set_peer(p, NULL);
		set_peer(q, NULL);
		forget_queue(p);
		forget_queue(q);
		if (q->ops.changed)
			q->ops.changed(q->opaque);
		if (p->ops.changed)
			p->ops.changed(p->opaque);
	}
	pthread_mutex_unlock(&topology);
}
