/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_SWITCH_H
#define HANOK_NET_SWITCH_H

#include "base/loop.h"
#include "net/mac_table.h"
#include "net/netport.h"

/*
 * A layer 2 switch with port groups, as VMware's standard switch has them. It has no thread: a
 * frame is forwarded on the thread that sends it, from its memory to the receiver's, in one copy.
 *
 * Threads: everything may be called on any thread but for create, destroy and, if any port has a
 * shape, what the loop does: those belong to the loop's thread (or before it runs).
 */
struct net_switch;

enum { NET_SWITCH_PORTS = 256, NET_SWITCH_GROUPS = 64, NET_NAME_BYTES = 64 };

struct net_switch_config {
	const char *name;
	uint32_t mac_places; /* 0: 8192 */
	uint32_t mac_age_s;  /* 0: 300 */
};

/* loop: for delays; NULL: ports cannot be shaped (net_switch_set_shape says -ENOTSUP). */
int net_switch_create(struct net_switch **out, struct loop *loop,
		      const struct net_switch_config *config);
/* Disconnects all ports. NULL is allowed. */
void net_switch_destroy(struct net_switch *sw);

/* ---- port groups ---- */

enum net_vlan_mode {
	NET_VLAN_ACCESS, /* frames are untagged at the port and belong to `vid` (0: to no VLAN) */
	NET_VLAN_TRUNK,	 /* tagged with one of `trunk`; untagged frames are VLAN 0's */
	NET_VLAN_GUEST,	 /* a trunk of all VLANs: vSphere's VLAN 4095 */
};

struct net_port_group {
	char name[NET_NAME_BYTES];
	enum net_vlan_mode mode;
	uint16_t vid;	    /* 0 to 4094 */
	uint8_t trunk[512]; /* a bit for each VLAN */
	/* The policies, true being vSphere's "accept". */
	bool promiscuous;   /* its ports see every frame of their VLANs */
	bool mac_changes;   /* a port whose guest changed its address still receives */
	bool forged;	    /* a port may send from other addresses than its own */
	uint32_t storm_pps; /* broadcast, multicast and unknown, from each port; 0: 20000 */
};

/* Makes or changes a group. -EINVAL: VLAN out of range; -ENOSPC. Changes hold for ports at once. */
int net_switch_set_group(struct net_switch *sw, const struct net_port_group *g);
/* -ENOENT; -EBUSY while it has ports. */
int net_switch_remove_group(struct net_switch *sw, const char *name);
/* The i-th group, from 0; false behind the last. */
bool net_switch_get_group(struct net_switch *sw, unsigned i, struct net_port_group *out);

/* ---- ports ---- */

/*
 * Connects an end to a port in a group. uplink: what lies behind has many addresses (a NAT, a host
 * interface, another switch), so the policies do not hold, and it hears unknown addresses. *id gets
 * the port's number. -ENOENT: no such group; -ENOSPC; -EBUSY: `end` is connected already; -ENOMEM.
 */
int net_switch_connect(struct net_switch *sw, struct netport *end, const char *group, bool uplink,
		       unsigned *id);
/* The end stays its owner's. Not within receive(). */
void net_switch_disconnect(struct net_switch *sw, unsigned id);
/* -ENOENT: no such port or group. */
int net_switch_move(struct net_switch *sw, unsigned id, const char *group);

/* What a bad line would do to frames towards a port. All 0: nothing. */
struct net_shape {
	uint64_t bits_per_s;
	uint64_t delay_ns;
	uint32_t loss_ppm; /* out of a million frames */
};
/* -ENOENT, -ENOTSUP (no loop). */
int net_switch_set_shape(struct net_switch *sw, unsigned id, const struct net_shape *shape);

/* netport_set_capture for a port: frames its owner sends are "received" there. -ENOENT. */
int net_switch_capture(struct net_switch *sw, unsigned id, struct net_capture *capture);

struct net_switch_port {
	unsigned id;
	char name[NET_NAME_BYTES], group[NET_NAME_BYTES];
	uint8_t mac_given[6], mac_used[6];
	bool uplink, link;
	bool blocked; /* its guest changed its address where the group does not accept that */
	struct net_shape shape;
	/* received: from the port's owner; sent: towards it; drops also those by the owner's end */
	struct netport_stats stats;
};
/* The port with the lowest number of at least `id`; false behind the last. */
bool net_switch_get_port(struct net_switch *sw, unsigned id, struct net_switch_port *out);

uint32_t net_switch_get_macs(struct net_switch *sw, struct mac_entry *out, uint32_t max);
void net_switch_get_mac_stats(struct net_switch *sw, struct mac_table_stats *out);

#endif
