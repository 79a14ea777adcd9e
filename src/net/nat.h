/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_NAT_H
#define HANOK_NET_NAT_H

#include <netinet/in.h>

#include "base/loop.h"
#include "net/netport.h"

/*
 * NAT without privilege: libslirp ends the guests' connections and makes them again as sockets of
 * this process. It answers DHCP, router solicitations and DNS.
 *
 *     network    10.0.2.0/24, fec0::/64       gateway    10.0.2.2, fec0::2: the host's loopback too
 *     resolver   10.0.2.3, fec0::3            guests     from 10.0.2.15 on
 *
 * Threads: all on the loop's thread (or before it runs), but for what netport.h allows on the port.
 */
struct net_nat;

struct net_nat_config {
	const char *name;
	struct loop *loop;
	struct in_addr network; /* 0: 10.0.2.0 */
	unsigned prefix;	/* 8 to 28; 0: 24 */
	bool no_ipv6;
	bool no_host_loopback; /* the gateway's address does not lead to the host's own services */
	bool isolated;	       /* guests reach nothing but each other and the forwards */
	const char *hostname;  /* what DHCP tells guests; NULL: "hanok" */
};

/* libslirp asks for memory as GLib does: when there is none, the process ends. */
int net_nat_create(struct net_nat **out, const struct net_nat_config *config, struct error *err);
/* NULL is allowed. */
void net_nat_destroy(struct net_nat *nat);
/* The end to connect to a NIC or, as an uplink, to a switch. The NAT's. */
struct netport *net_nat_port(struct net_nat *nat);

/*
 * Forwards: PROTO:[ADDRESS:]PORT-[ADDRESS:]PORT, first the host's side, then the guest's, as
 * "tcp:127.0.0.1:2222-22", "udp:5353-10.0.2.16:53", "tcp:[::1]:8080-[fec0::15]:80". Without an
 * address the host listens on 127.0.0.1 only, and the guest is 10.0.2.15.
 */
struct net_forward {
	bool udp;
	struct sockaddr_storage host, guest; /* AF_INET or AF_INET6, both alike */
};
int net_forward_parse(const char *text, struct net_forward *out, struct error *err);
/* Writes the same form; out has room for 128 bytes. */
void net_forward_format(const struct net_forward *f, char *out);

/* With the errors of bind, or -EEXIST. */
int net_nat_add_forward(struct net_nat *nat, const struct net_forward *f, struct error *err);
/* By the host's side. -ENOENT. */
int net_nat_remove_forward(struct net_nat *nat, const struct net_forward *f, struct error *err);
/* The i-th, from 0; false behind the last. */
bool net_nat_get_forward(struct net_nat *nat, unsigned i, struct net_forward *out);

/* A connection, TCP's or what looks like one in UDP. Addresses as the guest sees them. */
struct net_nat_flow {
	uint8_t protocol;		 /* IP_TCP, IP_UDP */
	uint8_t version;		 /* 4 or 6 */
	uint8_t inside[16], outside[16]; /* of IPv4 the first 4 */
	uint16_t inside_port, outside_port;
	char state[16];	       /* of TCP's; "" for UDP */
	char host_address[56]; /* the host's socket, "192.0.2.1:40312"; "" if it cannot be told */
	uint64_t bytes_out, bytes_in; /* of IP payload: from and to the guest */
	uint64_t age_ns, idle_ns;
};
/* The flows that are there; returns how many. */
unsigned net_nat_get_flows(struct net_nat *nat, struct net_nat_flow *out, unsigned max);

#endif
