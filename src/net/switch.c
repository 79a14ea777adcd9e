/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch: what happens to a frame. Ports and groups are kept in switch_ports.c.
 *
 *     receive ─> classify ──> screen ───> learn ───> look up ─┬─> one port ──┬─> shape ─> send
 *                VLAN of the  forged     MAC table            └─> flood ─────┘   tag for the
 *                group        address,                            storm limit    port's group
 *                             storm
 *
 * A frame's first bytes are copied before anything is decided by them, and it goes out with that
 * copy, so that a guest that rewrites a frame while it passes gains nothing.
 *
 * Where a frame goes costs the same for two ports as for 256: the MAC table answers with the port.
 * Only floods look at every port.
 */
#include "net/switch_internal.h"

#include <string.h>

#include "base/clock.h"
#include "net/netport_internal.h"

#define MULTICAST_BIT (UINT64_C(1) << 40)
#define NANOSECONDS UINT64_C(1000000000)

static uint32_t seconds(uint64_t ns)
{
	return (uint32_t)(ns / NANOSECONDS);
}

static bool trunks(const struct net_port_group *g)
{
	return g->mode != NET_VLAN_ACCESS;
}

static bool carries(const struct net_port_group *g, unsigned vid)
{
	if (g->mode == NET_VLAN_ACCESS)
		return g->vid == vid;
	return g->mode == NET_VLAN_GUEST || (g->trunk[vid / 8] >> vid % 8 & 1);
}

/* ---- in ---- */

/* The frame with its own first bytes; a tag in them is taken out. */
static bool open_lane(struct lane *l, const struct net_frame *f, enum net_drop *cause)
{
	uint32_t have = net_frame_read(f, 0, l->bytes, SWITCH_HEADER_BYTES), skip = 0;
	struct net_meta *m = &l->frame.meta;

	l->frame.meta = f->meta;
	*cause = NET_DROP_RUNT;
	if (have < NET_ETH_HEADER_BYTES)
		return false;
	if (!(m->flags & NET_VLAN) && net_get16(l->bytes + 12) == ETH_VLAN) {
		if (have < NET_ETH_HEADER_BYTES + NET_VLAN_TAG_BYTES)
			return false;
		*cause = NET_DROP_BAD_OFFLOAD;
		if ((m->flags & NET_CSUM_NEEDED) && m->csum_start < 18)
			return false;
		m->flags |= NET_VLAN;
		m->vlan_tci = net_get16(l->bytes + 14);
		memmove(l->bytes + 4, l->bytes, 12);
		skip = NET_VLAN_TAG_BYTES;
		m->csum_start -= m->flags & NET_CSUM_NEEDED ? skip : 0;
		m->header_bytes -= m->header_bytes > skip ? skip : 0;
	}
	l->tci = m->flags & NET_VLAN ? m->vlan_tci : 0;
	l->iov[0] = (struct iovec){l->bytes + skip, have - skip};
	l->frame.iov = l->iov;
	l->frame.iov_count = 1 + net_frame_slice(f, have, f->bytes - have, l->iov + 1);
	l->frame.bytes = f->bytes - skip;
	return true;
}

static bool classify(const struct net_port_group *g, struct lane *l)
{
	unsigned vid = l->tci & 0xfff;

	if (!trunks(g)) {
		if (vid)
			return false;
		vid = g->vid;
	} else if (vid == 0xfff || !carries(g, vid)) {
		return false;
	}
	l->vid = (uint16_t)vid;
	return true;
}

/* Frames for many may come so often, and a tenth of a second's worth at once. */
static bool storms(struct switch_port *p, uint64_t now)
{
	uint32_t pps = p->group->g.storm_pps ? p->group->g.storm_pps : 20000;
	uint64_t price = NANOSECONDS / pps, most = NANOSECONDS / 10;

	p->storm_tokens_ns += now - p->storm_at_ns;
	p->storm_at_ns = now;
	if (most < price)
		most = price;
	if (p->storm_tokens_ns > most)
		p->storm_tokens_ns = most;
	if (p->storm_tokens_ns < price)
		return true;
	p->storm_tokens_ns -= price;
	return false;
}

/* 01-80-c2-00-00-0x stay on their link: IEEE 802.1Q 8.6.3. */
static bool link_local(uint64_t mac)
{
	return (mac & ~UINT64_C(15)) == UINT64_C(0x0180c2000000);
}

/* The port whose owner has this address, though it has not sent yet (or not for long): the table
 * hears of it. -1: nobody's. */
static int find_owner(struct net_switch *sw, const struct lane *l, uint64_t now)
{
	for (unsigned i = 0; i < sw->active_count; i++) {
		struct switch_port *p = sw->ports[sw->active[i]];
		if (p->used != l->destination || p->uplink || !carries(&p->group->g, l->vid))
			continue;
		mac_table_learn(sw->macs, l->destination, l->vid, p->id, seconds(now));
		return (int)p->id;
	}
	return -1;
}

/* Decides where the frame goes; false: nowhere, for *cause. */
static bool route(struct switch_port *p, struct lane *l, uint64_t now, enum net_drop *cause)
{
	const uint8_t *eth = l->iov[0].iov_base;
	uint64_t source = mac_number(eth + 6), own = p->used;

	l->destination = mac_number(eth);
	*cause = NET_DROP_VLAN;
	if (!classify(&p->group->g, l))
		return false;
	*cause = NET_DROP_BAD_FRAME;
	if (!source || (source & MULTICAST_BIT))
		return false;
	*cause = NET_DROP_FORGED;
	if (own && !p->uplink && !p->group->g.forged && source != own)
		return false;
	*cause = NET_DROP_FILTERED;
	if (link_local(l->destination))
		return false;
	mac_table_learn(p->sw->macs, source, l->vid, p->id, seconds(now));
	l->to = -1;
	if (!(l->destination & MULTICAST_BIT)) {
		l->to = mac_table_find(p->sw->macs, l->destination, l->vid, seconds(now));
		if (l->to < 0)
			l->to = find_owner(p->sw, l, now);
	}
	if (l->to == (int)p->id)
		return false; /* it is where it came from */
	*cause = NET_DROP_STORM;
	return l->to >= 0 || !storms(p, now);
}

/* ---- out ---- */

static bool blocked(const struct switch_port *p)
{
	return !p->uplink && !p->group->g.mac_changes && p->used != p->given;
}

/* Does this port hear a frame that was not sent to it by the MAC table's word? */
static bool hears(const struct switch_port *p, uint64_t destination)
{
	return (destination & MULTICAST_BIT) || p->uplink || p->group->g.promiscuous || !p->used ||
	       p->used == destination;
}

static void set_tag(const struct switch_port *to, const struct lane *l, struct net_frame *f)
{
	if (trunks(&to->group->g) && l->vid) {
		f->meta.flags |= NET_VLAN;
		f->meta.vlan_tci = (uint16_t)((l->tci & 0xf000) | l->vid);
	} else {
		f->meta.flags &= (uint8_t)~NET_VLAN;
	}
}

/* Sends frames that are ready for `to`. */
static void send_run(struct switch_port *to, const struct net_frame *f, unsigned n, unsigned source)
{
	unsigned i = 0;

	while (i < n && shape_frame(to, &f[i], source))
		i++;
	if (i < n)
		netport_send_from(to->end, &f[i], n - i, source);
}

static void flood(struct switch_port *from, const struct lane *l)
{
	struct net_switch *sw = from->sw;

	for (unsigned i = 0; i < sw->active_count; i++) {
		struct switch_port *to = sw->ports[sw->active[i]];
		struct net_frame f = l->frame;
		if (to == from || (int)to->id == l->to || !carries(&to->group->g, l->vid))
			continue;
		/* With a port that was found, only those that see everything are left. */
		if (l->to >= 0 && !to->group->g.promiscuous)
			continue;
		if (!hears(to, l->destination) || blocked(to))
			continue;
		set_tag(to, l, &f);
		send_run(to, &f, 1, from->id + 1);
	}
}

static bool reaches(const struct switch_port *to, const struct lane *l)
{
	return to && carries(&to->group->g, l->vid) && !blocked(to);
}

/* Sends what is in lanes: frames that follow each other to one port go together. */
static void dispatch(struct switch_port *from, struct lane *lanes, unsigned n)
{
	struct net_switch *sw = from->sw;
	struct net_frame run[NET_BATCH_MAX];
	struct switch_port *run_to = NULL;
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		struct lane *l = &lanes[i];
		struct switch_port *to = l->to < 0 ? NULL : sw->ports[l->to];
		if (count && to != run_to) {
			send_run(run_to, run, count, from->id + 1);
			count = 0;
		}
		if (l->to < 0 || sw->promiscuous)
			flood(from, l);
		if (l->to < 0)
			continue;
		if (!reaches(to, l)) {
			netport_count_drop(from->end, NET_DROP_FILTERED, 1);
			continue;
		}
		run_to = to;
		run[count] = l->frame;
		set_tag(to, l, &run[count++]);
	}
	if (count)
		send_run(run_to, run, count, from->id + 1);
}

/* A port's receive(): frames from its owner. */
unsigned switch_receive(void *opaque, const struct net_frame *frames, unsigned n)
{
	struct switch_port *p = opaque;
	uint64_t now = clock_ns();
	unsigned open = 0;
	enum net_drop cause;

	pthread_rwlock_rdlock(&p->sw->lock);
	for (unsigned i = 0; i < n && p->connected; i++) {
		struct lane *l = &p->lanes[open];
		if (open_lane(l, &frames[i], &cause) && route(p, l, now, &cause))
			open++;
		else
			netport_count_drop(p->end, cause, 1);
	}
	dispatch(p, p->lanes, open);
	pthread_rwlock_unlock(&p->sw->lock);
	return n;
}
