/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_VIRTIO_NET_INTERNAL_H
#define HANOK_DEV_VIRTIO_NET_INTERNAL_H

#include "dev/nic.h"
#include "dev/virtio/virtio.h"

/* Shared by the files of the network card only. net.c tells how it works together. */

/* Feature bits (VIRTIO 5.1.3; USO: 1.3, 5.1.3). */
#define NET_F_CSUM (UINT64_C(1) << 0)
#define NET_F_GUEST_CSUM (UINT64_C(1) << 1)
#define NET_F_CTRL_GUEST_OFFLOADS (UINT64_C(1) << 2)
#define NET_F_MAC (UINT64_C(1) << 5)
#define NET_F_GUEST_TSO4 (UINT64_C(1) << 7)
#define NET_F_GUEST_TSO6 (UINT64_C(1) << 8)
#define NET_F_HOST_TSO4 (UINT64_C(1) << 11)
#define NET_F_HOST_TSO6 (UINT64_C(1) << 12)
#define NET_F_MRG_RXBUF (UINT64_C(1) << 15)
#define NET_F_STATUS (UINT64_C(1) << 16)
#define NET_F_CTRL_VQ (UINT64_C(1) << 17)
#define NET_F_CTRL_RX (UINT64_C(1) << 18)
#define NET_F_CTRL_VLAN (UINT64_C(1) << 19)
#define NET_F_CTRL_RX_EXTRA (UINT64_C(1) << 20)
#define NET_F_GUEST_ANNOUNCE (UINT64_C(1) << 21)
#define NET_F_MQ (UINT64_C(1) << 22)
#define NET_F_CTRL_MAC_ADDR (UINT64_C(1) << 23)
#define NET_F_GUEST_USO4 (UINT64_C(1) << 54)
#define NET_F_GUEST_USO6 (UINT64_C(1) << 55)
#define NET_F_HOST_USO (UINT64_C(1) << 56)

#define NET_GUEST_OFFLOADS                                                                         \
	(NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_USO4 |               \
	 NET_F_GUEST_USO6)

enum {
	VNET_PAIRS_MAX = 8,
	VNET_QUEUE_SIZE = 256, /* what firmware drivers can take, too */
	VNET_POOL = 1024,      /* buffers of a batch */
	VNET_MACS = 64,	       /* of each kind, in the filter */
	VNET_STEER = 256,
	VNET_CTRL_BYTES = 4096, /* of a command that are looked at */
};

/* VIRTIO 5.1.4 */
enum { VNET_STATUS_LINK_UP = 1, VNET_STATUS_ANNOUNCE = 2 };
struct vnet_config {
	uint8_t mac[6];
	uint16_t status, max_pairs;
} __attribute__((packed));
_Static_assert(sizeof(struct vnet_config) == 10, "VIRTIO 5.1.4");

/* VIRTIO 5.1.6 */
enum { VNET_HDR_NEEDS_CSUM = 1, VNET_HDR_DATA_VALID = 2 };
enum {
	VNET_GSO_NONE = 0,
	VNET_GSO_TCPV4 = 1,
	VNET_GSO_TCPV6 = 4,
	VNET_GSO_UDP_L4 = 5,
};
struct vnet_header {
	uint8_t flags, gso_type;
	uint16_t header_bytes, gso_size, csum_start, csum_offset;
	uint16_t buffers; /* not there for legacy drivers without mergeable buffers */
};
_Static_assert(sizeof(struct vnet_header) == 12, "VIRTIO 5.1.6");

/* Which frames the guest wants (VIRTIO 5.1.6.5.1 to 5.1.6.5.3). */
struct vnet_filter {
	bool promiscuous, all_multi, all_uni, no_multi, no_uni, no_broadcast;
	uint8_t own[6];
	uint16_t macs[2]; /* unicast, multicast */
	bool overflow[2]; /* more than that: all of the kind */
	uint8_t mac[2][VNET_MACS][6];
	uint8_t vlan[512]; /* a bit for each */
};

/* What a queue works with; under the queue's lock. */
struct vnet_work {
	struct iovec iov[VNET_POOL];
	struct dma_area area[VNET_POOL];
	struct virtio_chain chain[VNET_QUEUE_SIZE];
	struct net_frame frame[NET_BATCH_MAX]; /* transmission only, as what follows */
	uint8_t *bounce;		       /* a frame of too many pieces, as one */
	bool blocked;			       /* the cable is full: room() goes on */
};

struct vnet_stats {
	_Atomic uint64_t sent_malformed; /* chains that held no frame */
	_Atomic uint64_t rx_waits;	 /* no buffers: the frame waits before the card */
	_Atomic uint64_t tx_waits;	 /* the cable was full */
	_Atomic uint64_t commands, commands_refused;
};

struct virtio_net {
	struct virtio v;
	struct netport *port;
	unsigned pairs; /* that there are */
	struct vnet_config config;
	uint8_t given_mac[6];
	struct vnet_work *work; /* by queue */

	/* Has the port been told what this driver can take? Only then it takes frames. */
	atomic_bool ready;
	/* What after_notify is still to tell of. */
	atomic_bool mac_changed, offloads_changed, announced;
	atomic_uint pairs_used;
	_Atomic uint64_t offloads;	   /* NET_F_GUEST_*, of what was negotiated */
	_Atomic uint8_t steer[VNET_STEER]; /* a flow's pair, by its hash */

	pthread_mutex_t filter_lock; /* the last to be taken */
	struct vnet_filter filter;

	uint8_t command[VNET_CTRL_BYTES]; /* under the control queue's lock */
	struct vnet_stats stats;
};

static inline void vnet_count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline bool vnet_is_tx(const struct virtqueue *q)
{
	return q->index & 1;
}
/* VIRTIO 5.1.2: its number depends on what was negotiated. */
static inline unsigned vnet_ctrl_queue(const struct virtio_net *n)
{
	return virtio_has(&n->v, NET_F_MQ) ? 2 * n->pairs : 2;
}
static inline size_t vnet_header_bytes(const struct virtio_net *n)
{
	return virtio_has(&n->v, VIRTIO_F_VERSION_1 | NET_F_MRG_RXBUF)
		       ? sizeof(struct vnet_header)
		       : offsetof(struct vnet_header, buffers);
}

/* net.c; filter_lock is not held. */
void vnet_set_mac(struct virtio_net *n, const uint8_t mac[6]);

/* net_steer.c: the pair that a flow's frames are received by is the one that sends it. */
void vnet_steer_learn(struct virtio_net *n, const struct net_frame *f, unsigned pair);
unsigned vnet_steer_pair(struct virtio_net *n, const struct net_frame *f);
/* filter_lock is not held. */
bool vnet_wants(struct virtio_net *n, const struct net_frame *f);

/* net_tx.c, net_rx.c, net_ctrl.c; the queue's lock is held. */
void vnet_transmit(struct virtio_net *n, struct virtqueue *q);
void vnet_command(struct virtio_net *n, struct virtqueue *q);
/* netport_ops.receive */
unsigned vnet_receive(void *opaque, const struct net_frame *frames, unsigned count);

#endif
