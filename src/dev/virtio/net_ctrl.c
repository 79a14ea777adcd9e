/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control queue (VIRTIO 5.1.6.5): a chain is a class, a command and its data, and a byte for
 * the answer.
 */
#include <errno.h>
#include <string.h>

#include "dev/virtio/net_internal.h"

enum { CTRL_RX = 0, CTRL_MAC, CTRL_VLAN, CTRL_ANNOUNCE, CTRL_MQ, CTRL_OFFLOADS };
enum { RX_PROMISC = 0, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST };
enum { MAC_TABLE_SET = 0, MAC_ADDR_SET };
enum { VLAN_ADD = 0, VLAN_DEL };
enum { ANNOUNCE_ACK = 0 };
enum { MQ_PAIRS_SET = 0 };
enum { OFFLOADS_SET = 0 };
enum { ACK_OK = 0, ACK_ERR = 1 };

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint64_t get_le(const uint8_t *p, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | p[bytes];
	return value;
}

/* Each returns whether the command was carried out. data has `bytes` bytes. */

static bool set_rx(struct virtio_net *n, unsigned command, const uint8_t *data, size_t bytes)
{
	struct vnet_filter *t = &n->filter;
	bool *const modes[] = {
		[RX_PROMISC] = &t->promiscuous, [RX_ALLMULTI] = &t->all_multi,
		[RX_ALLUNI] = &t->all_uni,	[RX_NOMULTI] = &t->no_multi,
		[RX_NOUNI] = &t->no_uni,	[RX_NOBCAST] = &t->no_broadcast,
	};

	if (command > RX_NOBCAST || bytes != 1 || data[0] > 1 ||
	    !virtio_has(&n->v, command <= RX_ALLMULTI ? NET_F_CTRL_RX : NET_F_CTRL_RX_EXTRA))
		return false;
	pthread_mutex_lock(&n->filter_lock);
	*modes[command] = data[0];
	pthread_mutex_unlock(&n->filter_lock);
	return true;
}

/* Two tables, each a count and as many addresses; the driver sent `whole` bytes, of which `bytes` are
 * looked at. More than there is room for: all of that kind. */
static bool set_table(struct virtio_net *n, const uint8_t *data, size_t bytes, size_t whole)
{
	size_t cut = whole - bytes;
	struct vnet_filter t;

	pthread_mutex_lock(&n->filter_lock);
	t = n->filter;
	pthread_mutex_unlock(&n->filter_lock);
	t.overflow[0] = t.overflow[1] = false;
	t.macs[0] = t.macs[1] = 0;
	for (unsigned kind = 0; kind < 2; kind++) {
		uint64_t count = bytes < 4 ? 0 : get_le(data, 4);
		if (4 + count * 6 > bytes + cut)
			return false;
		if (4 + count * 6 > bytes) {
			/* Not looked at: what follows is not known either. */
			t.overflow[kind] = t.overflow[1] = true;
			break;
		}
		data += 4;
		bytes -= 4;
		if (count > VNET_MACS)
			t.overflow[kind] = true;
		else
			memcpy(t.mac[kind], data, count * 6);
		t.macs[kind] = count > VNET_MACS ? 0 : (uint16_t)count;
		data += count * 6;
		bytes -= count * 6;
	}
	pthread_mutex_lock(&n->filter_lock);
	n->filter = t;
	pthread_mutex_unlock(&n->filter_lock);
	return true;
}

static bool set_mac(struct virtio_net *n, const uint8_t *data, size_t bytes)
{
	if (bytes != 6 || data[0] & 1 || !virtio_has(&n->v, NET_F_CTRL_MAC_ADDR))
		return false;
	vnet_set_mac(n, data);
	return true;
}

static bool set_vlan(struct virtio_net *n, unsigned command, const uint8_t *data, size_t bytes)
{
	unsigned vid;

	if (command > VLAN_DEL || bytes != 2 || (vid = get16(data)) > 4095 ||
	    !virtio_has(&n->v, NET_F_CTRL_VLAN))
		return false;
	pthread_mutex_lock(&n->filter_lock);
	if (command == VLAN_ADD)
		n->filter.vlan[vid / 8] |= (uint8_t)(1 << vid % 8);
	else
		n->filter.vlan[vid / 8] &= (uint8_t) ~(1 << vid % 8);
	pthread_mutex_unlock(&n->filter_lock);
	return true;
}

static bool set_pairs(struct virtio_net *n, const uint8_t *data, size_t bytes)
{
	if (bytes != 2 || !get16(data) || get16(data) > n->pairs || !virtio_has(&n->v, NET_F_MQ))
		return false;
	atomic_store(&n->pairs_used, get16(data));
	return true;
}

static bool set_offloads(struct virtio_net *n, const uint8_t *data, size_t bytes)
{
	uint64_t wanted, can = atomic_load(&n->v.features) & NET_GUEST_OFFLOADS;

	if (bytes != 8 || !virtio_has(&n->v, NET_F_CTRL_GUEST_OFFLOADS))
		return false;
	wanted = get_le(data, 8);
	if (wanted & ~can)
		return false;
	atomic_store(&n->offloads, wanted);
	atomic_store(&n->offloads_changed, true);
	return true;
}

/* bytes of data are there; the command has `whole`. */
static bool carry_out(struct virtio_net *n, unsigned class, unsigned command, const uint8_t *data,
		      size_t bytes, size_t whole)
{
	if (whole != bytes && !(class == CTRL_MAC && command == MAC_TABLE_SET))
		return false;
	switch (class) {
	case CTRL_RX:
		return set_rx(n, command, data, bytes);
	case CTRL_MAC:
		if (command == MAC_TABLE_SET)
			return virtio_has(&n->v, NET_F_CTRL_RX) && set_table(n, data, bytes, whole);
		return command == MAC_ADDR_SET && set_mac(n, data, bytes);
	case CTRL_VLAN:
		return set_vlan(n, command, data, bytes);
	case CTRL_ANNOUNCE:
		if (command != ANNOUNCE_ACK || !virtio_has(&n->v, NET_F_GUEST_ANNOUNCE))
			return false;
		atomic_store(&n->announced, true); /* the status's bit: after_notify */
		return true;
	case CTRL_MQ:
		return command == MQ_PAIRS_SET && set_pairs(n, data, bytes);
	case CTRL_OFFLOADS:
		return command == OFFLOADS_SET && set_offloads(n, data, bytes);
	}
	return false;
}

static void answer(struct virtio_net *n, struct virtqueue *q, struct virtio_chain *c)
{
	struct iovec *out = c->iov;
	unsigned outs = c->out_count;
	uint8_t head[2], ack = ACK_ERR;
	size_t whole, have;

	vnet_count(&n->stats.commands);
	if (virtio_iov_take(&out, &outs, head, sizeof(head))) {
		whole = c->out_bytes - sizeof(head);
		have = whole < sizeof(n->command) ? whole : sizeof(n->command);
		virtio_iov_take(&out, &outs, n->command, have);
		if (carry_out(n, head[0], head[1], n->command, have, whole))
			ack = ACK_OK;
	}
	if (ack)
		vnet_count(&n->stats.commands_refused);
	virtio_iov_fill(c->iov + c->out_count, c->in_count, &ack, sizeof(ack));
	virtqueue_push(q, c, sizeof(ack));
}

void vnet_command(struct virtio_net *n, struct virtqueue *q)
{
	struct vnet_work *w = &n->work[q->index];
	unsigned taken = 0;
	int rc = 1;

	do {
		virtqueue_set_notify(q, false);
		while (taken < VNET_QUEUE_SIZE) {
			struct virtio_chain c = {
				.iov = w->iov, .area = w->area, .room = VNET_QUEUE_SIZE};
			rc = virtqueue_pop(q, &c);
			if (rc <= 0)
				break;
			taken++;
			if (!c.in_count) {
				virtio_break(&n->v, "a command has no place for its answer");
				virtqueue_push(q, &c, 0);
				return;
			}
			answer(n, q, &c);
		}
		virtqueue_flush(q);
		if (taken >= VNET_QUEUE_SIZE) {
			virtqueue_notify_later(q);
			return;
		}
	} while (rc >= 0 && virtqueue_set_notify(q, true));
}
