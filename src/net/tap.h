/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_TAP_H
#define HANOK_NET_TAP_H

#include "base/loop.h"
#include "net/netport.h"

/*
 * An uplink to the host's kernel: a TAP interface, which the host sees as a network card, or a
 * packet socket on an interface that is there. Both speak in frames with a virtio header, so
 * offloads go through: the host's kernel and a guest exchange TCP in segments of up to 64 KiB.
 *
 * TAP serves host-only networks (give it an address on the host) and bridged ones (make it a port
 * of a Linux bridge). A packet socket shares an interface without changing the host's set-up; the
 * host itself is not reachable through it, which is how Linux has it.
 *
 * Threads: create and destroy on the loop's thread (or before it runs).
 */
struct net_tap;

/* name: of a TAP interface; made if it is not there (which needs CAP_NET_ADMIN), otherwise it must
 * be the user's own. Frames the kernel sends to it before it is up are not seen. err says what to do
 * where permission is missing. */
int net_tap_create(struct net_tap **out, struct loop *loop, const char *name, struct error *err);
/* A packet socket on an interface, promiscuous; needs CAP_NET_RAW. */
int net_bridge_create(struct net_tap **out, struct loop *loop, const char *interface,
		      struct error *err);
void net_tap_destroy(struct net_tap *tap);
struct netport *net_tap_port(struct net_tap *tap);

#endif
