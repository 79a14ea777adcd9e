/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_PROTO_H
#define HANOK_NET_PROTO_H

#include "base/loop.h"
#include "net/switch.h"

/*
 * A switch that several processes share. It lives in a process of its own, behind a UNIX socket
 * (SOCK_SEQPACKET); each VM's NIC connects once. Frames do not go through the socket: with its
 * answer the switch hands over memory with a ring for each direction, and two eventfds to wake each
 * other, so that frames with their metadata are copied into the ring and out of it, and nothing more.
 *
 *     VM: NIC ═ client's port ──ring──> switch's port ═ net_switch
 *                             <──ring──
 *
 * The same socket takes requests of people: a text in, a text out, which only app/ reads.
 */

/* ---- the switch's side ---- */

struct net_server;

struct net_server_config {
	struct loop *loop;
	struct net_switch *sw; /* the caller's */
	const char *path;      /* of the socket; one left behind by a dead process is replaced */
	/* A request; returns the answer, from malloc. On the loop's thread. */
	char *(*request)(void *opaque, const char *text);
	void *opaque;
};
/* -EADDRINUSE: a living process serves this path. */
int net_server_create(struct net_server **out, const struct net_server_config *config,
		      struct error *err);
void net_server_destroy(struct net_server *s);

/* ---- the NIC's side ---- */

struct net_client;

struct net_client_config {
	struct loop *loop;
	const char *path;
	const char *name;  /* of the port, for inspection: "web1 nic0" */
	const char *group; /* NULL: "default" */
};
/*
 * Connects to a switch; net_client_port is then the other end of a cable to it, for a NIC. The
 * NIC's addresses and features are passed on. If the switch's process ends, the link goes down, and
 * comes up again when there is one. Fails only if nobody serves the path now.
 * On the loop's thread, or before it runs.
 */
int net_client_create(struct net_client **out, const struct net_client_config *config,
		      struct error *err);
void net_client_destroy(struct net_client *c);
struct netport *net_client_port(struct net_client *c);

/* Sends a request and waits for its answer (up to 30 s); *answer is from malloc. Any thread. */
int net_request(const char *path, const char *text, char **answer, struct error *err);

#endif
