/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_NET_DAEMON_H
#define HANOK_APP_NET_DAEMON_H

#include <jansson.h>

#include "net/nat.h"
#include "net/pcapng.h"
#include "net/proto.h"
#include "net/switch.h"
#include "net/tap.h"

/* A network's process. Everything on its loop's thread. */
enum { NET_INTERFACES = 32 };

struct net_interface {
	struct net_nat *nat; /* one of these */
	struct net_tap *tap;
	unsigned port;
	json_t *config; /* borrowed from daemon.config */
};

struct net_daemon {
	const char *name;
	struct loop *loop;
	struct net_switch *sw;
	struct net_server *server;
	json_t *config;
	struct net_interface interfaces[NET_INTERFACES];
	unsigned interface_count;
	struct net_capture *captures[NET_SWITCH_PORTS];
};

/* net_daemon.c: makes what an object of "interfaces", "groups" or a forward says. */
int net_daemon_attach(struct net_daemon *d, json_t *j, struct error *err);
int net_daemon_group(struct net_daemon *d, json_t *j, struct error *err);
struct net_nat *net_daemon_nat(struct net_daemon *d, struct error *err);
void net_daemon_detach(struct net_daemon *d, unsigned i);

/* net_requests.c: answers a request; the answer's text is from malloc. */
char *net_daemon_request(void *opaque, const char *text);

#endif
