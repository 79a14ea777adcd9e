/* SPDX-License-Identifier: Apache-2.0 */
#include "app/nics.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "app/net.h"

static int set_cable(struct nic_card *c, const char *part, struct error *err)
{
	if (!strcmp(part, "nat")) {
		c->cable = NIC_NAT;
	} else if (!strcmp(part, "none")) {
		c->cable = NIC_UNPLUGGED;
	} else if (!strncmp(part, "switch=", 7) && part[7]) {
		c->cable = NIC_NETWORK;
		c->network = part + 7;
	} else if (!strcmp(part, "hostonly") || !strcmp(part, "bridged")) {
		/* Networks with these names, as in a .vmx. */
		c->cable = NIC_NETWORK;
		c->network = part;
	} else if (!strncmp(part, "bridged=", 8) && part[8]) {
		return error_set(err, -EINVAL,
				 "machines share an interface by a network: `hanok net create NAME "
				 "--bridge %.40s`, then --nic switch=NAME",
				 part + 8);
	} else {
		return error_set(err, -EINVAL,
				 "a card is plugged into nat, switch=NAME (`hanok net list` shows "
				 "them) or none");
	}
	return 0;
}

static int set(struct nic_card *c, const char *part, struct error *err)
{
	if (!strncmp(part, "model=", 6)) {
		c->kind = nic_find(part + 6, err);
		return c->kind ? 0 : -EINVAL;
	}
	if (!strncmp(part, "mac=", 4))
		return nic_parse_mac(part + 4, c->mac, err);
	if (!strncmp(part, "group=", 6) && part[6]) {
		c->group = part + 6;
		return 0;
	}
	if (!strncmp(part, "forward=", 8)) {
		if (c->forwards == NIC_FORWARDS_MAX)
			return error_set(err, -ENOSPC, "%s: a card has at most %d forwards", part,
					 NIC_FORWARDS_MAX);
		c->forward[c->forwards++] = part + 8;
		return 0;
	}
	return error_set(err, -EINVAL,
			 "'%s' is no setting; there is model=NAME, mac=ADDRESS, group=NAME and "
			 "forward=tcp:127.0.0.1:2222-22",
			 part);
}

int nics_parse(struct nic_card *card, char *spec, struct error *err)
{
	const char *first = strsep(&spec, ",");
	struct error why = {""};
	int rc = set_cable(card, first, &why);

	while (!rc && spec)
		rc = set(card, strsep(&spec, ","), &why);
	return rc ? error_set(err, rc, "--nic %.60s: %s", first, why.text) : 0;
}

int nics_add(struct nic_plan *plan, char *spec, struct error *err)
{
	struct nic_card c = {.kind = nic_kinds[0]};
	struct error why = {""};
	int rc = nics_parse(&c, spec, err);

	if (rc)
		return rc;
	rc = nic_plan_add(plan, &c, &why);
	/* strsep has cut spec behind its first word. */
	return rc ? error_set(err, rc, "--nic %.60s: %s", spec, why.text) : 0;
}

int nics_find_networks(struct nic_plan *plan, char *sockets[NICS_MAX], struct error *err)
{
	struct error why = {""};

	for (unsigned i = 0; i < plan->cards; i++) {
		struct nic_card *c = &plan->card[i];
		if (c->cable != NIC_NETWORK)
			continue;
		/* Is it the network that is not there, or its process? */
		json_t *config = net_config_load(c->network, &why);
		if (config)
			sockets[i] = net_socket_path(c->network, &why);
		json_decref(config);
		if (!sockets[i])
			return error_set(err, -ENOENT, "network card %u: network %s", i, why.text);
		if (access(sockets[i], F_OK))
			return error_set(
				err, -ENOENT,
				"network card %u: network %s does not run; `hanok net start "
				"%s` starts it",
				i, c->network, c->network);
		c->socket = sockets[i];
	}
	return 0;
}
