/* SPDX-License-Identifier: Apache-2.0 */
/* A network's process: makes a switch of what its file says, and serves it. */
#include "app/net_daemon.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/net.h"

static struct loop *signal_loop;

static void on_signal(int number)
{
	(void)number;
	loop_stop(signal_loop);
}

/* ---- groups ---- */

/* "100,200-299" */
static int parse_trunk(const char *text, uint8_t bits[512], struct error *err)
{
	const char *p = text;

	memset(bits, 0, 512);
	do {
		char *end;
		unsigned long first = strtoul(p, &end, 10), last = first;
		if (end != p && *end == '-') {
			p = end + 1;
			last = strtoul(p, &end, 10);
		}
		if (end == p || last > 4094 || first > last || (*end && *end != ','))
			return error_set(
				err, -EINVAL,
				"trunk %s: it must be VLANs from 0 to 4094, like 100,200-299",
				text);
		for (; first <= last; first++)
			bits[first / 8] |= (uint8_t)(1u << first % 8);
		p = end + (*end == ',');
		if (!*end)
			return 0;
	} while (*p);
	return error_set(err, -EINVAL, "trunk %s: it ends with a comma", text);
}

int net_daemon_group(struct net_daemon *d, json_t *j, struct error *err)
{
	struct net_port_group g = {0};
	const char *name = NULL, *trunk = NULL;
	int vlan = 0, promiscuous = 0, changes = 0, forged = 0, guest = 0, storm = 0;

	if (json_unpack(j, "{s:s, s?i, s?s, s?b, s?b, s?b, s?b, s?i}", "name", &name, "vlan", &vlan,
			"trunk", &trunk, "guest_tagging", &guest, "promiscuous", &promiscuous,
			"mac_changes", &changes, "forged", &forged, "storm_pps", &storm))
		return error_set(err, -EINVAL, "a port group that is not understood");
	if (!*name || strlen(name) >= sizeof(g.name))
		return error_set(err, -EINVAL, "port group \"%s\": a name has 1 to 63 letters",
				 name);
	if (vlan < 0 || vlan > 4094)
		return error_set(err, -EINVAL, "port group %s: VLAN %d: it must be from 0 to 4094",
				 name, vlan);
	snprintf(g.name, sizeof(g.name), "%s", name);
	g.vid = (uint16_t)vlan;
	g.mode = guest ? NET_VLAN_GUEST : trunk ? NET_VLAN_TRUNK : NET_VLAN_ACCESS;
	if (trunk && parse_trunk(trunk, g.trunk, err))
		return -EINVAL;
	g.promiscuous = promiscuous;
	g.mac_changes = changes;
	g.forged = forged;
	g.storm_pps = storm > 0 ? (uint32_t)storm : 0;
	int rc = net_switch_set_group(d->sw, &g);
	return rc ? error_set(err, rc, "port group %s: %s", name, strerror(-rc)) : 0;
}

/* ---- interfaces ---- */

struct net_nat *net_daemon_nat(struct net_daemon *d, struct error *err)
{
	for (unsigned i = 0; i < d->interface_count; i++)
		if (d->interfaces[i].nat)
			return d->interfaces[i].nat;
	error_set(err, -ENOENT, "network %s has no NAT; `hanok net attach %s --nat` adds one",
		  d->name, d->name);
	return NULL;
}

static int parse_network(const char *text, struct net_nat_config *c, struct error *err)
{
	char address[INET_ADDRSTRLEN + 4];
	char *slash;

	if (!text)
		return 0;
	snprintf(address, sizeof(address), "%s", text);
	slash = strchr(address, '/');
	if (slash) {
		*slash = 0;
		c->prefix = (unsigned)strtoul(slash + 1, NULL, 10);
	}
	if (inet_pton(AF_INET, address, &c->network) != 1 || !slash || c->prefix < 8 ||
	    c->prefix > 28)
		return error_set(
			err, -EINVAL,
			"network %s: it must be like 10.0.2.0/24, with a prefix from 8 to 28",
			text);
	return 0;
}

static int open_nat(struct net_daemon *d, json_t *j, struct net_interface *n, struct error *err)
{
	struct net_nat_config c = {.name = "nat", .loop = d->loop};
	const char *network = NULL;
	int ipv6 = 1, loopback = 1, isolated = 0;

	if (json_unpack(j, "{s?s, s?b, s?b, s?b}", "network", &network, "ipv6", &ipv6,
			"host_loopback", &loopback, "isolated", &isolated))
		return error_set(err, -EINVAL, "a NAT that is not understood");
	if (net_daemon_nat(d, NULL))
		return error_set(err, -EBUSY, "network %s has a NAT already", d->name);
	c.no_ipv6 = !ipv6;
	c.no_host_loopback = !loopback;
	c.isolated = isolated;
	int rc = parse_network(network, &c, err);
	return rc ? rc : net_nat_create(&n->nat, &c, err);
}

static int parse_mac(const char *text, uint8_t mac[6])
{
	unsigned b[6];
	char rest;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &rest) != 6 ||
	    (b[0] & 1))
		return -EINVAL;
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	return 0;
}

static void close_interface(struct net_interface *n)
{
	net_nat_destroy(n->nat);
	net_tap_destroy(n->tap);
}

int net_daemon_attach(struct net_daemon *d, json_t *j, struct error *err)
{
	struct net_interface n = {.config = j};
	const char *kind = NULL, *device = "", *group = "default", *mac = NULL;
	uint8_t address[6];
	int rc = -EINVAL;

	if (json_unpack(j, "{s:s, s?s, s?s, s?s}", "kind", &kind, "device", &device, "group",
			&group, "mac", &mac))
		return error_set(err, -EINVAL, "an interface that is not understood");
	if (d->interface_count == NET_INTERFACES)
		return error_set(err, -ENOSPC, "network %s has %d interfaces already", d->name,
				 NET_INTERFACES);
	if (mac && parse_mac(mac, address))
		return error_set(err, -EINVAL, "mac %s: it must be like 02:00:00:00:00:01", mac);
	if (!strcmp(kind, "nat"))
		rc = open_nat(d, j, &n, err);
	else if (!strcmp(kind, "tap"))
		rc = net_tap_create(&n.tap, d->loop, device, err);
	else if (!strcmp(kind, "bridge"))
		rc = net_bridge_create(&n.tap, d->loop, device, err);
	else
		error_set(err, -EINVAL, "interface %s: it must be nat, tap or bridge", kind);
	if (rc)
		return rc;
	struct netport *end = n.nat ? net_nat_port(n.nat) : net_tap_port(n.tap);
	/* An address makes it one machine's, with the group's policies; others have many behind. */
	if (mac)
		netport_set_given(end, address);
	rc = net_switch_connect(d->sw, end, group, !mac, &n.port);
	if (rc) {
		close_interface(&n);
		return error_set(err, rc, "%s: port group \"%s\": %s", kind, group,
				 rc == -ENOENT ? "there is no such one" : strerror(-rc));
	}
	d->interfaces[d->interface_count++] = n;
	return 0;
}

void net_daemon_detach(struct net_daemon *d, unsigned i)
{
	unsigned port = d->interfaces[i].port;

	net_switch_disconnect(d->sw, port);
	net_capture_close(d->captures[port]);
	d->captures[port] = NULL;
	close_interface(&d->interfaces[i]);
	d->interfaces[i] = d->interfaces[--d->interface_count];
}

/* ---- life ---- */

static int build(struct net_daemon *d, struct error *err)
{
	struct net_switch_config sc = {.name = d->name};
	json_t *j;
	size_t i;
	int rc;

	if (net_switch_create(&d->sw, d->loop, &sc))
		return error_set(err, -ENOMEM, "network %s: out of memory", d->name);
	json_array_foreach(json_object_get(d->config, "groups"), i, j)
	{
		rc = net_daemon_group(d, j, err);
		if (rc)
			return rc;
	}
	json_array_foreach(json_object_get(d->config, "interfaces"), i, j)
	{
		rc = net_daemon_attach(d, j, err);
		if (rc)
			return rc;
	}
	json_array_foreach(json_object_get(d->config, "forwards"), i, j)
	{
		const char *text = json_string_value(j);
		struct net_nat *nat = net_daemon_nat(d, err);
		struct net_forward f;
		if (!nat || !text || net_forward_parse(text, &f, err) ||
		    net_nat_add_forward(nat, &f, err))
			return -EINVAL;
	}
	return 0;
}

static int serve(struct net_daemon *d, struct error *err)
{
	struct net_server_config sc = {
		.loop = d->loop, .sw = d->sw, .request = net_daemon_request, .opaque = d};
	char *config, *socket;
	int rc = net_paths(d->name, true, &config, &socket, err);

	if (rc)
		return rc;
	sc.path = socket;
	rc = net_server_create(&d->server, &sc, err);
	free(config);
	free(socket);
	return rc;
}

static void tear_down(struct net_daemon *d)
{
	net_server_destroy(d->server);
	while (d->interface_count)
		net_daemon_detach(d, 0);
	net_switch_destroy(d->sw);
	for (unsigned i = 0; i < NET_SWITCH_PORTS; i++)
		net_capture_close(d->captures[i]);
	json_decref(d->config);
	loop_destroy(d->loop);
}

int net_daemon_run(const char *name, void (*ready)(void *opaque, const char *error), void *opaque)
{
	struct net_daemon d = {.name = name};
	struct sigaction action = {.sa_handler = on_signal};
	struct error err = {""};
	int rc;

	d.config = net_config_load(name, &err);
	rc = d.config ? loop_create(&d.loop, &err) : -EINVAL;
	if (!rc)
		rc = build(&d, &err);
	if (!rc)
		rc = serve(&d, &err);
	if (rc) {
		ready(opaque, err.text);
	} else {
		signal_loop = d.loop;
		sigaction(SIGTERM, &action, NULL);
		sigaction(SIGINT, &action, NULL);
		ready(opaque, NULL);
		loop_run(d.loop);
	}
	tear_down(&d);
	return rc ? STATUS_FAILED : STATUS_OK;
}
