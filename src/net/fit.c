/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a card would do, in software: only where a frame goes to a port that cannot take it as it
 * is.
 *
 *     in:   │ Eth IP TCP │ payload ............................................ │  gso_size
 *     out:  │ Eth IP TCP │ gso_size │  │ Eth IP TCP │ gso_size │  │ Eth IP TCP │ rest │
 *              own copy    a slice        own copy    a slice
 *
 * Only headers are copied; payloads are slices of the sender's memory. Senders of GSO frames may
 * leave in the headers what their card would fill in (e1000's drivers clear the IP length, vmxnet3's
 * leave the length out of the pseudo header's sum), so those are set right here on every way.
 */
#include <string.h>

#include "net/frame.h"

/* The frame being worked on. */
struct work {
	struct net_fit *fit;
	struct net_frame in; /* its metadata set right */
	struct net_headers h;
	bool fill_csum; /* the port wants complete checksums */
	bool tag;	/* the tag goes into the frame */
};

static bool gso_fits(const struct net_frame *f, uint32_t features)
{
	static const uint32_t need[] = {
		[NET_GSO_NONE] = 0,
		[NET_GSO_TCP4] = NET_CAN_TSO4 | NET_CAN_CSUM,
		[NET_GSO_TCP6] = NET_CAN_TSO6 | NET_CAN_CSUM,
		[NET_GSO_UDP] = NET_CAN_USO | NET_CAN_CSUM,
		[NET_GSO_UDP_FRAG] = NET_CAN_UFO | NET_CAN_CSUM,
	};

	if (f->meta.gso >= sizeof(need) / sizeof(need[0]))
		return false;
	return (features & need[f->meta.gso]) == need[f->meta.gso];
}

bool net_fits(const struct net_frame *f, uint32_t features, uint32_t max_frame_bytes)
{
	if (f->meta.gso || f->bytes > max_frame_bytes)
		return false;
	if ((f->meta.flags & NET_CSUM_NEEDED) && !(features & NET_CAN_CSUM))
		return false;
	if ((f->meta.flags & NET_CSUM_NEEDED) &&
	    f->meta.csum_start + f->meta.csum_offset + 2u > f->bytes)
		return false;
	return !(f->meta.flags & NET_VLAN) || (features & NET_CAN_VLAN);
}

static void flush(struct net_fit *fit)
{
	if (fit->count)
		fit->emit(fit->opaque, fit->frames, fit->count);
	fit->count = 0;
}

/*
 * Adds a frame: `header` bytes that lie in fit->headers[fit->count], behind 4 bytes for a tag, then
 * `bytes` of the sender's from `offset`.
 */
static struct net_frame *add(struct work *w, uint32_t header, uint32_t offset, uint32_t bytes)
{
	struct net_fit *fit = w->fit;
	unsigned i = fit->count++;
	struct net_frame *out = &fit->frames[i];
	uint8_t *start = fit->headers[i] + NET_VLAN_TAG_BYTES;

	out->meta = w->in.meta;
	if (w->tag) {
		start -= NET_VLAN_TAG_BYTES;
		memmove(start, start + NET_VLAN_TAG_BYTES, 12);
		net_put16(start + 12, ETH_VLAN);
		net_put16(start + 14, w->in.meta.vlan_tci);
		header += NET_VLAN_TAG_BYTES;
		out->meta.flags &= (uint8_t)~NET_VLAN;
		out->meta.csum_start += NET_VLAN_TAG_BYTES;
		if (out->meta.header_bytes)
			out->meta.header_bytes += NET_VLAN_TAG_BYTES;
		fit->tagged++;
	}
	fit->iov[i][0] = (struct iovec){start, header};
	out->iov = fit->iov[i];
	out->iov_count = 1 + net_frame_slice(&w->in, offset, bytes, fit->iov[i] + 1);
	out->bytes = header + bytes;
	return out;
}

/* A frame's own copy of the headers, for add(). */
static uint8_t *own_headers(struct work *w, uint32_t bytes)
{
	if (w->fit->count == NET_BATCH_MAX)
		flush(w->fit);
	uint8_t *p = w->fit->headers[w->fit->count] + NET_VLAN_TAG_BYTES;
	memcpy(p, w->h.bytes, bytes);
	return p;
}

/* 0 is "no checksum" in UDP (whose checksum is at 6), and the same sum as 0xffff; other protocols
 * have no such value, and 0xffff in them is taken for wrong by some. */
static void put_csum(const struct net_meta *m, uint8_t *at, uint64_t sum)
{
	uint16_t csum = (uint16_t)~net_sum_fold(sum);

	net_put16(at, csum || m->csum_offset != 6 ? csum : 0xffff);
}

/* One frame out of one: checksum and tag. */
static int whole(struct work *w, enum net_drop *cause)
{
	struct net_meta *m = &w->in.meta;
	uint32_t field = (uint32_t)m->csum_start + m->csum_offset, header = w->h.have;

	if (!(m->flags & NET_CSUM_NEEDED) || !w->fill_csum) {
		own_headers(w, header);
		add(w, header, header, w->in.bytes - header);
		return 0;
	}
	if (field + 2 > header) {
		*cause = NET_DROP_BAD_OFFLOAD;
		return -1;
	}
	/* The sum is over what will be sent: the header from our copy, the rest from the sender. */
	uint8_t *p = own_headers(w, header);
	struct net_frame *out = add(w, header, header, w->in.bytes - header);
	put_csum(m, p + field, net_frame_sum(out, out->meta.csum_start));
	out->meta.flags &= (uint8_t)~NET_CSUM_NEEDED;
	w->fit->checksummed++;
	return 0;
}

/* ---- segments ---- */

static void set_ip_length(struct work *w, uint8_t *p, uint32_t l3_payload_end)
{
	uint8_t *ip = p + w->h.l3;

	if (w->h.version == 4) {
		net_put16(ip + 2, (uint16_t)(l3_payload_end - w->h.l3));
		net_put16(ip + 10, 0);
		net_put16(ip + 10, (uint16_t)~net_sum_fold(net_sum(0, ip, (ip[0] & 15) * 4u)));
	} else {
		net_put16(ip + 4, (uint16_t)(l3_payload_end - w->h.l3 - 40));
	}
}

/* The headers of segment i, whose payload is `bytes` long and begins at `done`. */
static void set_segment(struct work *w, uint8_t *p, unsigned i, uint32_t done, uint32_t bytes,
			bool last)
{
	uint8_t *l4 = p + w->h.l4;
	uint32_t l4_bytes = w->h.payload - w->h.l4 + bytes;

	if (w->h.version == 4)
		net_put16(p + w->h.l3 + 4, (uint16_t)(net_get16(w->h.bytes + w->h.l3 + 4) + i));
	set_ip_length(w, p, w->h.payload + bytes);
	if (w->h.protocol == IP_TCP) {
		net_put32(l4 + 4, net_get32(w->h.bytes + w->h.l4 + 4) + done);
		if (!last)
			l4[13] &= (uint8_t)~0x09; /* PSH and FIN: the last one's */
		if (i)
			l4[13] &= (uint8_t)~0x80; /* CWR: the first one's, RFC 3168 6.1.2 */
	} else {
		net_put16(l4 + 4, (uint16_t)l4_bytes);
	}
	net_put16(p + w->in.meta.csum_start + w->in.meta.csum_offset,
		  net_sum_fold(net_pseudo_sum(&w->h, l4_bytes)));
}

/* TSO and USO. */
static int segment(struct work *w)
{
	uint32_t header = w->h.payload, size = w->in.meta.gso_size;
	uint32_t payload = w->in.bytes - header, done = 0;

	w->in.meta.gso = NET_GSO_NONE;
	w->in.meta.gso_size = 0;
	for (unsigned i = 0; done < payload; i++) {
		uint32_t bytes = payload - done < size ? payload - done : size;
		uint8_t *p = own_headers(w, header);
		set_segment(w, p, i, done, bytes, done + bytes == payload);
		struct net_frame *out = add(w, header, header + done, bytes);
		if (w->fill_csum) {
			uint32_t start = out->meta.csum_start;
			/* `out` may have moved by a tag; the field has not: it is in p's copy. */
			put_csum(&w->in.meta, p + w->in.meta.csum_start + w->in.meta.csum_offset,
				 net_frame_sum(out, start));
			out->meta.flags &= (uint8_t)~NET_CSUM_NEEDED;
			w->fit->checksummed++;
		}
		done += bytes;
	}
	w->fit->segmented++;
	return 0;
}

/* The fragment header of IPv6 (RFC 8200 4.5) between the IPv6 header and UDP. */
static void add_fragment_header(struct work *w, uint8_t *p, uint32_t offset, bool more, uint32_t id)
{
	uint8_t *at = p + w->h.l4;

	/* The first fragment's copy of the headers ends here: what follows comes from the sender. */
	p[w->h.l3 + 6] = 44;
	at[0] = IP_UDP;
	at[1] = 0;
	net_put16(at + 2, (uint16_t)(offset | more));
	net_put32(at + 4, id);
}

/* UFO: the checksum over the whole datagram first, then fragments. */
static int fragment(struct work *w, enum net_drop *cause)
{
	static uint32_t next_id;
	uint32_t header = w->h.l4, size = w->in.meta.gso_size & ~7u, done = 0;
	uint32_t payload = w->in.bytes - header;
	uint32_t id = __atomic_add_fetch(&next_id, 1, __ATOMIC_RELAXED);
	uint8_t udp[8];
	struct iovec iov[NET_IOV_TOTAL];
	struct net_frame sender = w->in;

	if (!size || (w->h.version == 6 && w->h.l4 != w->h.l3 + 40)) {
		*cause = NET_DROP_BAD_OFFLOAD;
		return -1;
	}
	/* The frame again, with a UDP header of our own. */
	memcpy(udp, w->h.bytes + w->h.l4, 8);
	net_put16(udp + 4, (uint16_t)payload);
	iov[0] = (struct iovec){w->h.bytes, header};
	iov[1] = (struct iovec){udp, 8};
	w->in.iov_count = 2 + net_frame_slice(&sender, header + 8, payload - 8, iov + 2);
	w->in.iov = iov;
	if (w->in.meta.flags & NET_CSUM_NEEDED) {
		net_put16(udp + 6, net_sum_fold(net_pseudo_sum(&w->h, payload)));
		put_csum(&(struct net_meta){.csum_offset = 6}, udp + 6,
			 net_frame_sum(&w->in, header));
		w->fit->checksummed++;
	}
	w->in.meta = (struct net_meta){.flags = w->in.meta.flags & NET_VLAN,
				       .vlan_tci = w->in.meta.vlan_tci};
	while (done < payload) {
		uint32_t bytes = payload - done < size ? payload - done : size;
		bool more = done + bytes < payload;
		uint8_t *p = own_headers(w, header);
		if (w->h.version == 4) {
			net_put16(p + w->h.l3 + 6, (uint16_t)(done / 8 | (more ? 0x2000 : 0)));
			set_ip_length(w, p, header + bytes);
			add(w, header, header + done, bytes);
		} else {
			add_fragment_header(w, p, done, more, id);
			set_ip_length(w, p, header + 8 + bytes);
			add(w, header + 8, header + done, bytes);
		}
		done += bytes;
	}
	flush(w->fit); /* before iov and udp go */
	w->fit->segmented++;
	return 0;
}

/* ---- what a GSO frame says about itself ---- */

/* Is it of the type it says? Then the metadata is made exact. */
static bool gso_is_true(struct work *w)
{
	struct net_meta *m = &w->in.meta;
	const struct net_headers *h = &w->h;
	bool tcp = m->gso == NET_GSO_TCP4 || m->gso == NET_GSO_TCP6;

	if (!h->l4 || h->payload >= w->in.bytes || !m->gso_size)
		return false;
	if (h->protocol != (tcp ? IP_TCP : IP_UDP))
		return false;
	if ((m->gso == NET_GSO_TCP4 && h->version != 4) ||
	    (m->gso == NET_GSO_TCP6 && h->version != 6))
		return false;
	if (w->in.bytes - h->l3 > 65535 + (h->version == 6 ? 40u : 0u))
		return false;
	if (m->flags & NET_CSUM_NEEDED) {
		if (m->csum_start != h->l4 || m->csum_offset != (tcp ? 16 : 6))
			return false;
	} else if (m->gso != NET_GSO_UDP_FRAG) {
		return false;
	}
	if ((w->in.bytes - h->payload) / m->gso_size >= NET_SEGMENTS_MAX)
		return false;
	m->header_bytes = h->payload;
	return true;
}

/* The frame stays whole, with the headers that a receiver of GSO frames expects. */
static int whole_gso(struct work *w)
{
	uint32_t header = w->h.payload, l4_bytes = w->in.bytes - w->h.l4;
	uint8_t *p = own_headers(w, header);

	set_ip_length(w, p, w->in.bytes);
	if (w->h.protocol == IP_UDP)
		net_put16(p + w->h.l4 + 4, (uint16_t)l4_bytes);
	if (w->in.meta.flags & NET_CSUM_NEEDED)
		net_put16(p + w->in.meta.csum_start + w->in.meta.csum_offset,
			  net_sum_fold(net_pseudo_sum(&w->h, l4_bytes)));
	add(w, header, header, w->in.bytes - header);
	return 0;
}

static uint32_t segment_bytes(const struct work *w)
{
	if (w->in.meta.gso == NET_GSO_UDP_FRAG)
		return w->h.l4 + (w->h.version == 6 ? 8u : 0u) + w->in.meta.gso_size;
	return w->h.payload + w->in.meta.gso_size;
}

int net_fit_frame(struct net_fit *fit, const struct net_frame *f, uint32_t features,
		  uint32_t max_frame_bytes, enum net_drop *cause)
{
	struct work w = {.fit = fit, .in = *f};
	int rc;

	net_headers_parse(&w.h, f);
	w.fill_csum = !(features & NET_CAN_CSUM);
	w.tag = (f->meta.flags & NET_VLAN) && !(features & NET_CAN_VLAN);
	*cause = NET_DROP_BAD_OFFLOAD;
	if ((f->meta.flags & NET_CSUM_NEEDED) &&
	    f->meta.csum_start + f->meta.csum_offset + 2u > f->bytes)
		return -1;
	if (f->meta.gso && !gso_is_true(&w))
		return -1;
	/* What is in one segment only, is one frame. */
	bool one = !f->meta.gso || w.in.bytes <= segment_bytes(&w);
	if ((one ? f->bytes : segment_bytes(&w)) > max_frame_bytes) {
		/* A tag of the guest's own does not count. */
		bool tagged = w.h.have >= 16 && net_get16(w.h.bytes + 12) == ETH_VLAN;
		*cause = NET_DROP_OVERSIZE;
		if ((one ? f->bytes : segment_bytes(&w)) >
		    max_frame_bytes + (tagged ? NET_VLAN_TAG_BYTES : 0u))
			return -1;
	}
	if (f->meta.gso && one) {
		bool frag = f->meta.gso == NET_GSO_UDP_FRAG;
		w.in.meta.gso = NET_GSO_NONE;
		w.in.meta.gso_size = 0;
		/* The headers were written for segments: a segment it becomes. */
		w.in.meta.gso_size = (uint16_t)(f->bytes - w.h.payload);
		rc = frag && !(w.in.meta.flags & NET_CSUM_NEEDED) ? whole(&w, cause) : segment(&w);
	} else if (!f->meta.gso) {
		rc = whole(&w, cause);
	} else if (gso_fits(f, features)) {
		rc = whole_gso(&w);
	} else if (f->meta.gso == NET_GSO_UDP_FRAG) {
		rc = fragment(&w, cause);
	} else {
		rc = segment(&w);
	}
	flush(fit);
	return rc;
}
