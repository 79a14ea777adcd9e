/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which frames the guest gets, and by which queue. Automatic receive steering (VIRTIO 5.1.6.5.6):
 * frames of a flow go to the pair by which the driver last sent frames of that flow, so that one
 * vCPU has to do with it. The hash is the same for both directions.
 */
#include <string.h>

#include "dev/virtio/net_internal.h"

enum { TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd, TYPE_VLAN = 0x8100, TCP = 6, UDP = 17 };
enum { FLOW_BYTES = 14 + 4 + 60 + 4 }; /* Ethernet, a tag, the longest IPv4 header, ports */

static unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint32_t mix(uint32_t h)
{
	h ^= h >> 16;
	h *= 0x7feb352d;
	h ^= h >> 15;
	h *= 0x846ca68b;
	return h ^ h >> 16;
}

static unsigned flow_hash(const struct net_frame *f)
{
	uint8_t b[FLOW_BYTES];
	uint32_t have = net_frame_read(f, 0, b, sizeof(b)), at = 14, hash = 0;
	unsigned type, protocol;

	if (have < 18)
		return 0;
	type = get16(b + 12);
	if (type == TYPE_VLAN) {
		type = get16(b + 16);
		at = 18;
	}
	if (type == TYPE_IPV4 && have >= at + 20) {
		hash = get32(b + at + 12) ^ get32(b + at + 16);
		/* Of a fragment there may be no ports. */
		protocol = get16(b + at + 6) & 0x3fff ? 0 : b[at + 9];
		at += (b[at] & 15u) * 4;
	} else if (type == TYPE_IPV6 && have >= at + 40) {
		for (unsigned i = 8; i < 40; i += 4)
			hash ^= get32(b + at + i);
		protocol = b[at + 6];
		at += 40;
	} else {
		return 0;
	}
	if ((protocol == TCP || protocol == UDP) && have >= at + 4)
		hash ^= get16(b + at) ^ get16(b + at + 2);
	return mix(hash) % VNET_STEER;
}

void vnet_steer_learn(struct virtio_net *n, const struct net_frame *f, unsigned pair)
{
	atomic_store_explicit(&n->steer[flow_hash(f)], (uint8_t)pair, memory_order_relaxed);
}

unsigned vnet_steer_pair(struct virtio_net *n, const struct net_frame *f)
{
	unsigned pair = atomic_load_explicit(&n->steer[flow_hash(f)], memory_order_relaxed);

	return pair < atomic_load_explicit(&n->pairs_used, memory_order_relaxed) ? pair : 0;
}

/* --- the filter --- */

static bool listed(const struct vnet_filter *t, unsigned kind, const uint8_t mac[6])
{
	for (unsigned i = 0; i < t->macs[kind]; i++)
		if (!memcmp(t->mac[kind][i], mac, 6))
			return true;
	return false;
}

static bool wants_address(const struct virtio_net *n, const uint8_t mac[6])
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	const struct vnet_filter *t = &n->filter;

	if (t->promiscuous)
		return true;
	if (!memcmp(mac, broadcast, 6))
		return !t->no_broadcast;
	if (mac[0] & 1)
		return !t->no_multi && (t->all_multi || t->overflow[1] || listed(t, 1, mac));
	if (t->no_uni)
		return false;
	return t->all_uni || t->overflow[0] || !memcmp(mac, t->own, 6) || listed(t, 0, mac);
}

bool vnet_wants(struct virtio_net *n, const struct net_frame *f)
{
	uint8_t b[16];
	uint32_t have = net_frame_read(f, 0, b, sizeof(b));
	bool wants;

	if (have < NET_ETH_HEADER_BYTES)
		return false;
	pthread_mutex_lock(&n->filter_lock);
	wants = wants_address(n, b);
	if (wants && have == sizeof(b) && get16(b + 12) == TYPE_VLAN &&
	    virtio_has(&n->v, NET_F_CTRL_VLAN)) {
		unsigned vid = get16(b + 14) & 0xfff;
		wants = n->filter.vlan[vid / 8] >> vid % 8 & 1;
	}
	pthread_mutex_unlock(&n->filter_lock);
	return wants;
}
