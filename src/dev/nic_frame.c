/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way into a guest.
 *
 *     arrives    │ to from │ [tag] type ... │   and perhaps a tag beside it
 *     stripped   │ to from │ type ...       │   tag in the descriptor
 *     as it is   │ to from │ tag type ...   │
 */
#include "dev/nic_frame.h"

#include <string.h>

enum { ADDRESSES = 12, TAGGED_HEADER = 18 };

void nic_view_init(struct nic_view *v, const struct net_frame *f, bool strip)
{
	uint8_t start[TAGGED_HEADER] = {0};
	uint32_t have = net_frame_read(f, 0, start, sizeof(start));

	*v = (struct nic_view){.frame = f, .head_bytes = ADDRESSES, .rest = ADDRESSES};
	memcpy(v->head, start, ADDRESSES);
	if (f->meta.flags & NET_VLAN) {
		v->tagged = true;
		v->tci = f->meta.vlan_tci;
		if (!strip) {
			net_put16(v->head + ADDRESSES, ETH_VLAN);
			net_put16(v->head + ADDRESSES + 2, v->tci);
			v->head_bytes += NET_VLAN_TAG_BYTES;
		}
	} else if (have == TAGGED_HEADER && net_get16(start + ADDRESSES) == ETH_VLAN) {
		v->tagged = true;
		v->tci = net_get16(start + ADDRESSES + 2);
		if (strip)
			v->rest += NET_VLAN_TAG_BYTES;
	}
	v->stripped = v->tagged && strip;
	v->bytes = v->head_bytes;
	if (f->bytes > v->rest)
		v->bytes += f->bytes - v->rest;
}

uint32_t nic_view_read(const struct nic_view *v, uint32_t offset, void *buf, uint32_t bytes)
{
	uint32_t done = 0;

	if (offset < v->head_bytes) {
		done = v->head_bytes - offset < bytes ? v->head_bytes - offset : bytes;
		memcpy(buf, v->head + offset, done);
	}
	if (done < bytes)
		done += net_frame_read(v->frame, v->rest + offset + done - v->head_bytes,
				       (uint8_t *)buf + done, bytes - done);
	return done;
}

/* TCP's or UDP's sum, pseudo header included, over what IP says is its payload: a short frame's
 * padding is not part of it. False when the frame is cut. */
static bool l4_sum_good(const struct net_headers *h, const struct net_frame *f)
{
	const uint8_t *ip = h->bytes + h->l3;
	uint32_t end = h->l3 + (h->version == 4 ? net_get16(ip + 2) : net_get16(ip + 4) + 40u);
	struct iovec iov[NET_IOV_TOTAL];
	struct net_frame packet = {.iov = iov};

	if (end > f->bytes || end <= h->l4)
		return false;
	packet.bytes = end - h->l4;
	packet.iov_count = net_frame_slice(f, h->l4, packet.bytes, iov);
	return net_sum_fold((uint64_t)net_sum_fold(net_pseudo_sum(h, packet.bytes)) +
			    net_sum_fold(net_frame_sum(&packet, 0))) == 0xffff;
}

void nic_csum_check(struct nic_csum *c, const struct net_headers *h, const struct net_frame *f)
{
	const uint8_t *ip = h->bytes + h->l3;

	*c = (struct nic_csum){false};
	if (h->version == 4) {
		c->ip_checked = true;
		c->ip_good = net_sum_fold(net_sum(0, ip, (ip[0] & 15) * 4u)) == 0xffff;
	}
	if (!h->l4 || h->fragment)
		return;
	/* A UDP checksum of 0 is none (RFC 768). */
	if (h->protocol == IP_UDP && h->version == 4 && !net_get16(h->bytes + h->l4 + 6))
		return;
	c->l4_checked = true;
	c->l4_good = f->meta.flags & (NET_CSUM_GOOD | NET_CSUM_NEEDED) || l4_sum_good(h, f);
}
