/* SPDX-License-Identifier: Apache-2.0 */
#include "control/nic_json.h"

#include <arpa/inet.h>
#include <stdlib.h>

enum { FLOWS_MAX = 4096 };

json_t *net_mac_json(const uint8_t mac[6])
{
	return json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
			    mac[5]);
}

json_t *net_drops_json(const struct netport_stats *s)
{
	json_t *drops = json_object();

	for (unsigned i = 0; i < NET_DROPS; i++) {
		uint64_t n = s->sent_drops[i] + s->received_drops[i];
		if (n)
			json_object_set_new(drops, net_drop_name(i), json_integer((json_int_t)n));
	}
	return drops;
}

/* ---- NAT ---- */

static json_t *address_json(const struct net_nat_flow *f, const uint8_t *address, unsigned port)
{
	char text[INET6_ADDRSTRLEN];

	inet_ntop(f->version == 4 ? AF_INET : AF_INET6, address, text, sizeof(text));
	return json_sprintf(f->version == 4 ? "%s:%u" : "[%s]:%u", text, port);
}

static json_t *flow_json(const struct net_nat_flow *f)
{
	return json_pack("{s:s, s:o, s:o, s:s, s:s, s:I, s:I, s:f, s:f}", "protocol",
			 f->protocol == 6 ? "tcp" : "udp", "inside",
			 address_json(f, f->inside, f->inside_port), "outside",
			 address_json(f, f->outside, f->outside_port), "host", f->host_address,
			 "state", f->state, "bytes_out", (json_int_t)f->bytes_out, "bytes_in",
			 (json_int_t)f->bytes_in, "age_s", (double)f->age_ns / 1e9, "idle_s",
			 (double)f->idle_ns / 1e9);
}

json_t *net_flows_json(struct net_nat *nat)
{
	struct net_nat_flow *f = calloc(FLOWS_MAX, sizeof(*f));
	json_t *list = f ? json_array() : NULL;
	unsigned n = list ? net_nat_get_flows(nat, f, FLOWS_MAX) : 0;

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(list, flow_json(&f[i]));
	free(f);
	return list;
}

/* ---- cards ---- */

static json_t *side_json(uint64_t frames, uint64_t packets, uint64_t bytes)
{
	return json_pack("{s:I, s:I, s:I}", "frames", (json_int_t)frames, "packets",
			 (json_int_t)packets, "bytes", (json_int_t)bytes);
}

static json_t *forwards_json(const struct nic_card *c)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < c->forwards; i++)
		json_array_append_new(list, json_string(c->forward[i]));
	return list;
}

static json_t *nic_json(const struct nic_info *info)
{
	static const char *const plugged[] = {
		[NIC_UNPLUGGED] = "none", [NIC_NAT] = "nat", [NIC_NETWORK] = "network"};
	const struct nic_card *c = info->card;
	const struct netport_stats *s = &info->stats;
	json_t *nic = json_pack(
		"{s:s, s:o, s:o, s:s, s:s*, s:s*, s:b, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:i}",
		"model", c->kind->name, "mac", net_mac_json(c->mac), "mac_used",
		net_mac_json(info->mac_used), "plugged", plugged[c->cable], "network", c->network,
		"group", c->group, "link", info->link, "sent",
		side_json(s->sent_frames, s->sent_packets, s->sent_bytes), "received",
		side_json(s->received_frames, s->received_packets, s->received_bytes), "drops",
		net_drops_json(s), "checksummed", (json_int_t)s->checksummed, "segmented",
		(json_int_t)s->segmented, "tagged", (json_int_t)s->tagged, "joined",
		(json_int_t)s->joined, "queued", (int)s->queued_frames);

	if (nic && info->nat) {
		json_object_set_new(nic, "forwards", forwards_json(c));
		json_object_set_new(nic, "flows", net_flows_json(info->nat));
	}
	return nic;
}

json_t *nics_json(struct nics *n)
{
	json_t *list = json_array();
	struct nic_info info;

	for (unsigned i = 0; list && nics_get_info(n, i, &info); i++) {
		if (json_array_append_new(list, nic_json(&info))) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}
