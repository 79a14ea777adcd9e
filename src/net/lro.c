/* SPDX-License-Identifier: Apache-2.0 */
#include "net/lro.h"

#include <string.h>

/* The frame that grows, and what the next segment must look like. */
struct head {
	struct net_headers h;
	struct net_frame *out; /* NULL: nothing that could grow */
	uint32_t next_seq, size;
	unsigned index, segments;
	bool closed; /* a short segment or PSH: the last one of its burst */
};

static bool plain_data(const struct net_headers *h, const struct net_frame *f, uint32_t features)
{
	uint32_t need = NET_CAN_CSUM | (h->version == 4 ? NET_CAN_TSO4 : NET_CAN_TSO6);
	uint32_t ip_end;

	if (!h->l4 || h->protocol != IP_TCP || f->meta.gso || (features & need) != need)
		return false;
	/* ACK, perhaps PSH; nothing else. */
	if ((h->bytes[h->l4 + 13] & 0xf7) != 0x10 || f->bytes <= h->payload)
		return false;
	if (h->version == 4) {
		if (h->bytes[h->l3] != 0x45)
			return false;
		ip_end = h->l3 + net_get16(h->bytes + h->l3 + 2);
	} else {
		if (h->l4 != h->l3 + 40)
			return false;
		ip_end = h->l3 + 40u + net_get16(h->bytes + h->l3 + 4);
	}
	return ip_end == f->bytes; /* no padding */
}

static bool checksum_good(const struct net_headers *h, const struct net_frame *f)
{
	uint64_t sum, pseudo;

	if (h->version == 4 && net_sum_fold(net_sum(0, h->bytes + h->l3, 20)) != 0xffff)
		return false;
	if (f->meta.flags & (NET_CSUM_GOOD | NET_CSUM_NEEDED))
		return true;
	sum = net_frame_sum(f, h->l4);
	pseudo = net_pseudo_sum(h, f->bytes - h->l4);
	sum += pseudo;
	sum += sum < pseudo;
	return net_sum_fold(sum) == 0xffff;
}

static bool same_flow(const struct head *a, const struct net_headers *b, const struct net_frame *f)
{
	const struct net_headers *h = &a->h;
	const uint8_t *x = h->bytes, *y = b->bytes;

	if (h->l3 != b->l3 || h->l4 != b->l4 || h->payload != b->payload || memcmp(x, y, h->l3))
		return false;
	if ((a->out->meta.flags ^ f->meta.flags) & NET_VLAN ||
	    ((f->meta.flags & NET_VLAN) && a->out->meta.vlan_tci != f->meta.vlan_tci))
		return false;
	if (h->version == 4) {
		/* TOS, DF, TTL, addresses; ids that count up, as a sender's TSO makes them. */
		if (x[h->l3 + 1] != y[h->l3 + 1] || x[h->l3 + 6] != y[h->l3 + 6] ||
		    x[h->l3 + 8] != y[h->l3 + 8] || memcmp(x + h->l3 + 12, y + h->l3 + 12, 8) ||
		    (uint16_t)(net_get16(x + h->l3 + 4) + a->segments) != net_get16(y + h->l3 + 4))
			return false;
	} else if (memcmp(x + h->l3, y + h->l3, 4) || memcmp(x + h->l3 + 6, y + h->l3 + 6, 34)) {
		return false;
	}
	/* Ports; acknowledgement, header length; window; options. */
	return !memcmp(x + h->l4, y + h->l4, 4) && !memcmp(x + h->l4 + 8, y + h->l4 + 8, 5) &&
	       !memcmp(x + h->l4 + 14, y + h->l4 + 14, 2) &&
	       !memcmp(x + h->l4 + 20, y + h->l4 + 20, h->payload - h->l4 - 20u);
}

static bool grows(const struct head *a, const struct net_headers *h, const struct net_frame *f)
{
	uint32_t bytes = f->bytes - h->payload;

	return a->out && !a->closed && same_flow(a, h, f) &&
	       net_get32(h->bytes + h->l4 + 4) == a->next_seq && bytes <= a->size &&
	       a->out->bytes + bytes - h->l3 <= 65535 &&
	       a->out->iov_count + f->iov_count <= NET_IOV_MAX;
}

/* A frame of its own, that may become a head. */
static void begin(struct net_lro *lro, struct head *a, unsigned index, const struct net_frame *f,
		  bool data)
{
	lro->frames[index] = *f;
	a->out = data ? &lro->frames[index] : NULL;
	if (!data)
		return;
	a->index = index;
	a->segments = 1;
	a->size = f->bytes - a->h.payload;
	a->next_seq = net_get32(a->h.bytes + a->h.l4 + 4) + a->size;
	a->closed = a->h.bytes[a->h.l4 + 13] & 8;
}

static void become_gso(struct net_lro *lro, struct head *a)
{
	uint8_t *copy = lro->headers[a->index];
	const struct net_frame first = *a->out;

	memcpy(copy, a->h.bytes, a->h.payload);
	lro->iov[a->index][0] = (struct iovec){copy, a->h.payload};
	a->out->iov_count = 1 + net_frame_slice(&first, a->h.payload, first.bytes - a->h.payload,
						lro->iov[a->index] + 1);
	a->out->iov = lro->iov[a->index];
	a->out->meta.gso = a->h.version == 4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
	a->out->meta.gso_size = (uint16_t)a->size;
	a->out->meta.header_bytes = a->h.payload;
	a->out->meta.flags |= NET_CSUM_NEEDED;
	a->out->meta.csum_start = a->h.l4;
	a->out->meta.csum_offset = 16;
}

static void grow(struct net_lro *lro, struct head *a, const struct net_headers *h,
		 const struct net_frame *f)
{
	uint32_t bytes = f->bytes - h->payload;

	if (a->segments == 1)
		become_gso(lro, a);
	a->out->iov_count +=
		net_frame_slice(f, h->payload, bytes, lro->iov[a->index] + a->out->iov_count);
	a->out->bytes += bytes;
	a->next_seq += bytes;
	a->segments++;
	if (h->bytes[h->l4 + 13] & 8) {
		lro->headers[a->index][h->l4 + 13] |= 8;
		a->closed = true;
	}
	a->closed |= bytes < a->size;
}

unsigned net_lro_join(struct net_lro *lro, const struct net_frame *frames, unsigned n,
		      uint32_t features)
{
	struct head a = {.out = NULL};
	unsigned made = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct net_frame *f = &frames[i];
		struct net_headers h;
		net_headers_parse(&h, f);
		bool data = plain_data(&h, f, features) && f->iov_count < NET_IOV_MAX &&
			    checksum_good(&h, f);
		if (data && grows(&a, &h, f)) {
			grow(lro, &a, &h, f);
			continue;
		}
		a.h = h;
		begin(lro, &a, made++, f, data);
	}
	return made;
}
