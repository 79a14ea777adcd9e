/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_SWITCH_INTERNAL_H
#define HANOK_NET_SWITCH_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "net/frame.h"
#include "net/queue.h"
#include "net/switch.h"

enum { SWITCH_HEADER_BYTES = 64 };

/* A frame on its way through: what is decided by lies in `bytes`, and goes out from there. */
struct lane {
	struct net_frame frame; /* without its tag, if it had one */
	struct iovec iov[NET_IOV_MAX + 2];
	uint8_t bytes[SWITCH_HEADER_BYTES];
	uint64_t destination;
	uint16_t vid, tci;
	int to; /* a port, or -1: many */
};

/* A bad line towards a port. Its own lock; no other is taken under it. */
struct shaper {
	pthread_mutex_t lock;
	struct net_shape shape;
	struct net_queue queue; /* in order of due_ns */
	uint64_t free_ns;	/* when the line has sent what is on it */
	uint64_t random;
	atomic_bool on;
};

struct switch_group {
	struct net_port_group g;
	unsigned ports;
};

struct switch_port {
	struct net_switch *sw;
	struct netport *end;
	unsigned id;
	struct switch_group *group;
	bool uplink, connected;
	_Atomic uint64_t given, used; /* addresses; 0: none */
	/* Frames from the owner, under the end's receive lock. */
	struct lane *lanes;
	uint64_t storm_tokens_ns; /* time bought; a frame costs 1/storm_pps seconds */
	uint64_t storm_at_ns;
	struct shaper shaper;
};

struct net_switch {
	char name[NET_NAME_BYTES];
	struct loop *loop;
	struct timer timer; /* of the shapers; */
	pthread_mutex_t timer_lock;
	uint64_t timer_ns;     /* what it is set to; UINT64_MAX: not set */
	pthread_rwlock_t lock; /* guards what follows; held shared while a frame passes */
	struct switch_port *ports[NET_SWITCH_PORTS];
	unsigned active[NET_SWITCH_PORTS], active_count;
	struct switch_group *groups[NET_SWITCH_GROUPS];
	unsigned promiscuous; /* ports whose group is */
	struct mac_table *macs;
};

/* switch.c: receive() of a port's end. */
unsigned switch_receive(void *opaque, const struct net_frame *frames, unsigned n);

/* shape.c. `frame` as it is to be sent; takes it (false: the line has no shape). Shared lock held. */
bool shape_frame(struct switch_port *to, const struct net_frame *frame, unsigned source);
void shape_init(struct shaper *s, unsigned seed);
void shape_destroy(struct shaper *s);
/* The switch's timer. */
void shape_due(void *opaque);

#endif
