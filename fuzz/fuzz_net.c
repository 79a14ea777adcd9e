/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of a frame: port, offloads in software, switch, port, capture. The input is a script of
 * frames with any metadata, in any pieces, to a switch with ports of every kind. What arrives must be
 * what the receiving port said it can take, and no longer than it said.
 */
#include <stdlib.h>
#include <string.h>

#include "net/frame.h"
#include "net/lro.h"
#include "net/pcapng.h"
#include "net/switch.h"

enum { PORTS = 5 };

struct end {
	struct netport *port;
	uint32_t features, max_frame_bytes;
	unsigned takes; /* before it has no room */
};

static struct net_switch *sw;
static struct end ends[PORTS];
static struct net_capture *capture;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static unsigned receive(void *opaque, const struct net_frame *frames, unsigned n)
{
	static uint8_t copy[NET_FRAME_MAX_BYTES];
	struct end *e = opaque;
	unsigned i;

	for (i = 0; i < n && e->takes; i++, e->takes--) {
		const struct net_frame *f = &frames[i];
		uint32_t slack = 2 * NET_VLAN_TAG_BYTES;
		must(f->bytes >= NET_ETH_HEADER_BYTES && f->bytes <= NET_FRAME_MAX_BYTES);
		must(net_frame_read(f, 0, copy, sizeof(copy)) == f->bytes);
		if (f->meta.flags & NET_CSUM_NEEDED) {
			must(e->features & NET_CAN_CSUM);
			must(f->meta.csum_start + f->meta.csum_offset + 2u <= f->bytes);
		}
		must(!(f->meta.flags & NET_VLAN) || (e->features & NET_CAN_VLAN));
		if (f->meta.gso) {
			must(f->meta.gso_size && f->meta.header_bytes < f->bytes);
			must(e->features & (f->meta.gso == NET_GSO_TCP4	  ? NET_CAN_TSO4
					    : f->meta.gso == NET_GSO_TCP6 ? NET_CAN_TSO6
					    : f->meta.gso == NET_GSO_UDP  ? NET_CAN_USO
									  : NET_CAN_UFO));
		} else {
			must(f->bytes <= e->max_frame_bytes + slack);
		}
	}
	return i;
}

static void add(unsigned i, const char *group, uint32_t features, uint32_t max, bool uplink)
{
	static const struct netport_ops ops = {.receive = receive};
	struct netport_config c = {.name = group,
				   .features = features,
				   .max_frame_bytes = max,
				   .mac = {2, 0, 0, 0, 0, (uint8_t)i},
				   .queue_frames = 8};
	unsigned id;

	ends[i].features = features;
	ends[i].max_frame_bytes = max;
	ends[i].takes = ~0u;
	must(!netport_create(&ends[i].port, &c, &ops, &ends[i]));
	must(!net_switch_connect(sw, ends[i].port, group, uplink, &id));
}

static void build(void)
{
	struct net_port_group groups[] = {
		{.name = "access", .vid = 100, .storm_pps = 1000000},
		{.name = "trunk", .mode = NET_VLAN_GUEST, .storm_pps = 1000000},
		{.name = "all",
		 .vid = 100,
		 .promiscuous = true,
		 .forged = true,
		 .mac_changes = true,
		 .storm_pps = 1000000},
	};

	must(!net_switch_create(&sw, NULL, &(struct net_switch_config){.mac_places = 64}));
	for (unsigned i = 0; i < 3; i++)
		must(!net_switch_set_group(sw, &groups[i]));
	add(0, "access", NET_CAN_ALL, NET_FRAME_MAX_BYTES, false);
	add(1, "access", NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6 | NET_WANT_LRO, 9014, true);
	add(2, "trunk", 0, 1514, true);
	add(3, "trunk", NET_CAN_CSUM | NET_CAN_VLAN, 1514, true);
	add(4, "all", NET_CAN_UFO | NET_CAN_CSUM, 1514, false);
	must(!net_capture_create(&capture, "/dev/null", 0, NULL));
	must(!net_switch_capture(sw, 2, capture));
}

/* How a frame is given: 16 bytes, then its own. */
struct script {
	uint8_t from, pieces, copies, repeat;
	uint8_t flags, gso;
	uint16_t csum_start, csum_offset, gso_size, header_bytes;
	uint16_t bytes; /* the length it says; what is missing is zeros */
};

static size_t send_one(const uint8_t *data, size_t size)
{
	static uint8_t memory[NET_FRAME_MAX_BYTES + 64];
	struct iovec iov[NET_IOV_MAX];
	struct net_frame f[8];
	struct script s;
	size_t n;

	memcpy(&s, data, sizeof(s));
	n = size - sizeof(s) < 300 ? size - sizeof(s) : 300;
	if (n > s.bytes)
		n = s.bytes;
	memset(memory, 0, s.bytes);
	memcpy(memory, data + sizeof(s), n);
	unsigned pieces = 1 + s.pieces % NET_IOV_MAX, copies = 1 + s.copies % 8;
	uint32_t at = 0;
	for (unsigned i = 0; i < pieces; i++) {
		uint32_t len = i + 1 == pieces ? s.bytes - at : s.bytes / pieces;
		iov[i] = (struct iovec){memory + at, len};
		at += len;
	}
	for (unsigned i = 0; i < copies; i++) {
		f[i] = (struct net_frame){iov,
					  pieces,
					  s.bytes,
					  {.flags = s.flags & 7,
					   .gso = s.gso,
					   .csum_start = s.csum_start,
					   .csum_offset = s.csum_offset,
					   .gso_size = s.gso_size,
					   .header_bytes = s.header_bytes,
					   .vlan_tci = s.repeat}};
	}
	struct end *e = &ends[s.from % PORTS];
	e->takes = s.repeat & 0x80 ? 3 : ~0u;
	must(netport_send(ends[(s.from + 1) % PORTS].port, f, copies) == copies);
	e->takes = ~0u;
	netport_ready(e->port);
	return sizeof(s) + n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!sw)
		build();
	for (unsigned i = 0; i < 8 && size > sizeof(struct script); i++) {
		size_t used = send_one(data, size);
		data += used;
		size -= used;
	}
	return 0;
}
