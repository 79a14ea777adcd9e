/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio network card (VIRTIO 5.1), with a pair of queues for each vCPU up to VNET_PAIRS_MAX.
 *
 *     guest ──> transmit queues ──> net_tx.c ──> netport_send ─> the cable
 *     guest <── receive queues  <── net_rx.c <── receive()    <─    "
 *     guest ──> control queue   ──> net_ctrl.c: filter, VLANs, address, pairs, offloads
 *
 * What a driver asks to be done to a frame (a checksum, segmentation) is in the header before it
 * and goes on as the frame's metadata, and the same the other way: payloads are not touched here.
 *
 * Threads. Transmission runs on the thread that notified the queue, with the queue's lock held;
 * reception on any thread, with the lock of the queue that it fills. netport_ready and what tells
 * the port of changes may lead back to receive(), so they are called from after_notify, where no
 * lock is held; flags tell it what there is to do.
 */
#include "dev/virtio/net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dev/virtio/net_internal.h"

enum { TYPE_NET = 1, TRANSITIONAL_ID = 0x1000, CLASS_ETHERNET = 0x020000 };
enum { MERGED_FRAME_MAX = NET_ETH_HEADER_BYTES + 65535, FRAME_MAX = 1514 };

/* --- what the port is told --- */

static void tell_features(struct virtio_net *n)
{
	uint64_t can = atomic_load(&n->offloads);
	uint32_t features = 0;

	if (can & NET_F_GUEST_CSUM)
		features |= NET_CAN_CSUM;
	if (can & NET_F_GUEST_TSO4)
		features |= NET_CAN_TSO4;
	if (can & NET_F_GUEST_TSO6)
		features |= NET_CAN_TSO6;
	if (can & (NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6))
		features |= NET_WANT_LRO;
	if (can & NET_F_GUEST_USO4 && can & NET_F_GUEST_USO6)
		features |= NET_CAN_USO;
	netport_set_features(n->port, features,
			     virtio_has(&n->v, NET_F_MRG_RXBUF) ? MERGED_FRAME_MAX : FRAME_MAX);
}

void vnet_set_mac(struct virtio_net *n, const uint8_t mac[6])
{
	pthread_mutex_lock(&n->filter_lock);
	memcpy(n->filter.own, mac, 6);
	pthread_mutex_unlock(&n->filter_lock);
	atomic_store(&n->mac_changed, true);
}

static void tell_mac(struct virtio_net *n)
{
	uint8_t mac[6];

	pthread_mutex_lock(&n->filter_lock);
	memcpy(mac, n->filter.own, 6);
	pthread_mutex_unlock(&n->filter_lock);
	pthread_mutex_lock(&n->v.lock);
	memcpy(n->config.mac, mac, 6);
	pthread_mutex_unlock(&n->v.lock);
	netport_set_mac(n->port, mac);
}

static void end_announcement(struct virtio_net *n)
{
	pthread_mutex_lock(&n->v.lock);
	n->config.status &= (uint16_t)~VNET_STATUS_ANNOUNCE;
	pthread_mutex_unlock(&n->v.lock);
}

/* The driver is there: from now on frames may come. No lock is held. */
static void begin(struct virtio_net *n)
{
	pthread_mutex_lock(&n->v.lock);
	bool first = !atomic_load(&n->ready) && virtio_is_running(&n->v);
	if (first && !atomic_load(&n->offloads_changed))
		atomic_store(&n->offloads, atomic_load(&n->v.features) & NET_GUEST_OFFLOADS);
	pthread_mutex_unlock(&n->v.lock);
	if (!first)
		return;
	tell_features(n);
	/* Unless it was reset meanwhile. */
	pthread_mutex_lock(&n->v.lock);
	if (virtio_is_running(&n->v))
		atomic_store(&n->ready, true);
	pthread_mutex_unlock(&n->v.lock);
}

static void after_notify(void *dev, struct virtqueue *q)
{
	struct virtio_net *n = dev;

	if (!atomic_load_explicit(&n->ready, memory_order_relaxed))
		begin(n);
	if (atomic_load_explicit(&n->offloads_changed, memory_order_relaxed) &&
	    atomic_exchange(&n->offloads_changed, false))
		tell_features(n);
	if (atomic_load_explicit(&n->mac_changed, memory_order_relaxed) &&
	    atomic_exchange(&n->mac_changed, false))
		tell_mac(n);
	if (atomic_load_explicit(&n->announced, memory_order_relaxed) &&
	    atomic_exchange(&n->announced, false))
		end_announcement(n);
	if (!vnet_is_tx(q))
		netport_ready(n->port);
}

static void on_notify(void *dev, struct virtqueue *q)
{
	struct virtio_net *n = dev;

	if (q->index == vnet_ctrl_queue(n)) {
		if (virtio_has(&n->v, NET_F_CTRL_VQ))
			vnet_command(n, q);
	} else if (vnet_is_tx(q)) {
		vnet_transmit(n, q);
	} else {
		virtqueue_set_notify(q, false); /* until a frame finds no room */
	}
}

/* --- what the port tells --- */

static void on_room(void *opaque)
{
	struct virtio_net *n = opaque;

	for (unsigned i = 1; i < 2 * n->pairs; i += 2) {
		struct virtqueue *q = &n->v.queue[i];
		virtqueue_lock(q);
		if (n->work[i].blocked)
			virtqueue_notify_later(q);
		virtqueue_unlock(q);
	}
}

static void on_changed(void *opaque)
{
	struct virtio_net *n = opaque;

	pthread_mutex_lock(&n->v.lock);
	bool up = netport_link(n->port);
	if (up != !!(n->config.status & VNET_STATUS_LINK_UP)) {
		n->config.status ^= VNET_STATUS_LINK_UP;
		virtio_config_changed(&n->v);
	}
	pthread_mutex_unlock(&n->v.lock);
}

static const struct netport_ops port_ops = {
	.receive = vnet_receive,
	.room = on_room,
	.changed = on_changed,
};

/* --- reset and configuration; virtio.lock held --- */

static void on_config_write(void *dev, unsigned offset, unsigned size, uint64_t value)
{
	struct virtio_net *n = dev;

	/* Legacy drivers set their address here, byte by byte. */
	if (virtio_has(&n->v, VIRTIO_F_VERSION_1) || offset + size > sizeof(n->config.mac))
		return;
	memcpy(&n->config.mac[offset], &value, size);
	vnet_set_mac(n, n->config.mac);
}

static void on_reset(void *dev)
{
	struct virtio_net *n = dev;

	atomic_store(&n->ready, false);
	atomic_store(&n->pairs_used, 1);
	atomic_store(&n->offloads, 0);
	atomic_store(&n->offloads_changed, false);
	atomic_store(&n->announced, false);
	for (unsigned i = 0; i < VNET_STEER; i++)
		atomic_store_explicit(&n->steer[i], 0, memory_order_relaxed);
	memcpy(n->config.mac, n->given_mac, sizeof(n->given_mac));
	n->config.status &= (uint16_t)~VNET_STATUS_ANNOUNCE;
	/* Until a driver says otherwise it gets everything: it may not have asked for a filter. */
	pthread_mutex_lock(&n->filter_lock);
	n->filter = (struct vnet_filter){.promiscuous = true};
	pthread_mutex_unlock(&n->filter_lock);
	vnet_set_mac(n, n->given_mac);
}

static const struct virtio_ops net_virtio_ops = {
	.notify = on_notify,
	.after_notify = after_notify,
	.config_write = on_config_write,
	.reset = on_reset,
};

/* --- life --- */

static void net_reset(void *dev)
{
	struct virtio_net *n = dev;

	virtio_reset(&n->v);
}

static void state_filter(struct vnet_filter *t, struct state_stream *s)
{
	bool *const modes[] = {&t->promiscuous, &t->all_multi,	  &t->all_uni,	   &t->no_multi,
			       &t->no_uni,	&t->no_broadcast, &t->overflow[0], &t->overflow[1]};

	for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		state_bool(s, modes[i]);
	state_raw(s, t->own, sizeof(t->own));
	state_raw(s, t->vlan, sizeof(t->vlan));
	for (unsigned kind = 0; kind < 2; kind++) {
		state_u16(s, &t->macs[kind]);
		if (t->macs[kind] > VNET_MACS) {
			t->macs[kind] = 0;
			state_fail(s, "virtio-net: a filter that cannot be");
		}
		state_raw(s, t->mac[kind], sizeof(t->mac[kind]));
	}
}

static void net_state(void *dev, struct state_stream *s)
{
	struct virtio_net *n = dev;
	struct vnet_config own = n->config;
	uint64_t offloads = atomic_load(&n->offloads);
	uint16_t pairs = (uint16_t)atomic_load(&n->pairs_used);
	struct vnet_filter filter;

	if (!state_writing(s))
		atomic_store(&n->ready, false);
	pthread_mutex_lock(&n->filter_lock);
	filter = n->filter;
	pthread_mutex_unlock(&n->filter_lock);
	virtio_state_begin(&n->v, s, 1);
	state_u64(s, &offloads);
	state_u16(s, &pairs);
	state_filter(&filter, s);
	if (!pairs || pairs > n->pairs) {
		pairs = 1;
		state_fail(s, "virtio-net: a number of queues that cannot be");
	}
	if (!state_writing(s)) {
		/* The link is this machine's. Whoever was moved says where it is now. */
		memcpy(own.mac, n->config.mac, sizeof(own.mac));
		n->config = own;
		if (virtio_has(&n->v, NET_F_GUEST_ANNOUNCE) && virtio_is_running(&n->v))
			n->config.status |= VNET_STATUS_ANNOUNCE;
		atomic_store(&n->offloads,
			     offloads & atomic_load(&n->v.features) & NET_GUEST_OFFLOADS);
		atomic_store(&n->pairs_used, pairs);
		pthread_mutex_lock(&n->filter_lock);
		n->filter = filter;
		pthread_mutex_unlock(&n->filter_lock);
		vnet_set_mac(n, filter.own);
		/* begin() keeps the offloads as they are now. */
		atomic_store(&n->offloads_changed, true);
	}
	virtio_state_end(&n->v, s);
	if (!state_writing(s)) {
		pthread_mutex_lock(&n->v.lock);
		virtio_config_changed(&n->v);
		pthread_mutex_unlock(&n->v.lock);
	}
}

static void net_destroy(void *dev)
{
	struct virtio_net *n = dev;

	netport_destroy(n->port);
	virtio_destroy(&n->v);
	for (unsigned i = 0; n->work && i < 2 * n->pairs; i++)
		free(n->work[i].bounce);
	free(n->work);
	pthread_mutex_destroy(&n->filter_lock);
	free(n);
}

static int plug_in(struct virtio_net *n, const struct nic_config *cfg, struct error *err)
{
	char name[16];
	struct netport_config pcfg = {.name = name};
	int rc;

	snprintf(name, sizeof(name), "nic%u", cfg->index);
	memcpy(pcfg.mac, cfg->mac, sizeof(pcfg.mac));
	rc = netport_create(&n->port, &pcfg, &port_ops, n);
	if (!rc && cfg->cable)
		rc = netport_connect(n->port, cfg->cable);
	if (rc)
		return error_set(err, rc, "virtio-net: %s: %s", name, strerror(-rc));
	return 0;
}

static int net_create(void **out, const struct nic_config *cfg, struct error *err)
{
	struct virtio_net *n = calloc(1, sizeof(*n));
	int rc;

	*out = NULL;
	if (!n)
		return error_set(err, -ENOMEM, "virtio-net: out of memory");
	pthread_mutex_init(&n->filter_lock, NULL);
	n->pairs = cfg->cpus < VNET_PAIRS_MAX ? cfg->cpus : VNET_PAIRS_MAX;
	memcpy(n->given_mac, cfg->mac, sizeof(n->given_mac));
	n->config.max_pairs = (uint16_t)n->pairs;
	n->work = calloc(2 * n->pairs + 1, sizeof(*n->work));
	rc = n->work ? 0 : error_set(err, -ENOMEM, "virtio-net: out of memory");
	on_reset(n);
	const struct virtio_config vcfg = {
		.name = "virtio-net",
		.type = TYPE_NET,
		.transitional_id = TRANSITIONAL_ID,
		.class_code = CLASS_ETHERNET,
		.features = NET_F_CSUM | NET_GUEST_OFFLOADS | NET_F_CTRL_GUEST_OFFLOADS |
			    NET_F_MAC | NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_USO |
			    NET_F_MRG_RXBUF | NET_F_STATUS | NET_F_CTRL_VQ | NET_F_CTRL_RX |
			    NET_F_CTRL_VLAN | NET_F_CTRL_RX_EXTRA | NET_F_GUEST_ANNOUNCE |
			    NET_F_CTRL_MAC_ADDR | (n->pairs > 1 ? NET_F_MQ : 0),
		.queues = 2 * n->pairs + 1,
		.queue_size = VNET_QUEUE_SIZE,
		.config = (uint8_t *)&n->config,
		.config_bytes = sizeof(n->config),
		.ops = &net_virtio_ops,
		.dev = n,
		.pci = cfg->pci,
		.slot = cfg->slot,
		.index = cfg->index,
		.mem = cfg->mem,
		.loop = cfg->loop,
	};
	if (!rc)
		rc = virtio_create(&n->v, &vcfg, err);
	if (!rc)
		rc = plug_in(n, cfg, err);
	if (rc) {
		net_destroy(n);
		return rc;
	}
	*out = n;
	on_changed(n);
	return 0;
}

const struct nic_kind virtio_net_kind = {
	.name = "virtio",
	.vmx_name = "virtio",
	.ops = {.name = "virtio-net",
		.reset = net_reset,
		.state = net_state,
		.destroy = net_destroy},
	.create = net_create,
};
