/* SPDX-License-Identifier: Apache-2.0 */
#include "app/nics.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/net.h"

#define BRIDGED "bridged-"

static int set_cable(struct nic_card *c, char *part, struct error *err)
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
		/* The network that machines share the interface by. */
		part[7] = '-';
		c->cable = NIC_NETWORK;
		c->network = part;
	} else {
		return error_set(err, -EINVAL,
				 "a card is plugged into nat, switch=NAME (`hanok net list` shows "
				 "them), bridged=INTERFACE or none");
	}
	return 0;
}

/* The VLAN that a port group's name is made of: "vlan100"; 0: it is not. */
static int vlan_of_group(const char *group)
{
	int vlan = 0, end = 0;

	if (!group || sscanf(group, "vlan%4d%n", &vlan, &end) != 1 || group[end] ||
	    group[4] < '1' || group[4] > '9' || vlan > 4094)
		return 0;
	return vlan;
}

/* vlan=N is the port group vlanN, which is made where there is none yet. */
static int set_vlan(struct nic_card *c, char *part, struct error *err)
{
	memmove(part + 4, part + 5, strlen(part + 5) + 1);
	if (!vlan_of_group(part))
		return error_set(err, -EINVAL, "vlan=%.20s: it must be a number from 1 to 4094",
				 part + 4);
	c->group = part;
	return 0;
}

static int set(struct nic_card *c, char *part, struct error *err)
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
	if (!strncmp(part, "vlan=", 5))
		return set_vlan(c, part, err);
	if (!strncmp(part, "forward=", 8)) {
		if (c->forwards == NIC_FORWARDS_MAX)
			return error_set(err, -ENOSPC, "%s: a card has at most %d forwards", part,
					 NIC_FORWARDS_MAX);
		c->forward[c->forwards++] = part + 8;
		return 0;
	}
	return error_set(err, -EINVAL,
			 "'%s' is no setting; there is model=NAME, mac=ADDRESS, group=NAME, "
			 "vlan=N and forward=tcp:127.0.0.1:2222-22",
			 part);
}

int nics_parse(struct nic_card *card, char *spec, struct error *err)
{
	char *first = strsep(&spec, ",");
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

/* A card in VLAN N finds its port group, with that VLAN's frames alone and without tags. */
static int make_vlan_group(const struct nic_card *c, const json_t *config, struct error *err)
{
	const int vlan = vlan_of_group(c->group);
	const json_t *groups = json_object_get(config, "groups");
	json_t *request, *answer = NULL;

	if (!vlan || net_find_named(groups, "name", c->group) < json_array_size(groups))
		return 0;
	request = json_pack("{s:s, s:{s:s, s:i}}", "do", "group-set", "group", "name", c->group,
			    "vlan", vlan);
	int rc = net_ask(c->network, request, &answer, err);
	json_decref(request);
	json_decref(answer);
	return rc;
}

/* Runs `hanok net ...`, which leaves the network's process behind. */
static int run_net(const char *verb, const char *name, const char *interface, struct error *err)
{
	char *const argv[] = {"hanok",
			      "net",
			      (char *)(uintptr_t)verb,
			      (char *)(uintptr_t)name,
			      interface ? "--bridge" : NULL,
			      (char *)(uintptr_t)interface,
			      NULL};
	char said[sizeof(err->text)];
	posix_spawn_file_actions_t files;
	size_t len = 0;
	ssize_t n;
	int fds[2], status = 0;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_set(err, -errno, "a pipe: %s", strerror(errno));
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&files, fds[1], STDERR_FILENO);
	int rc = posix_spawn(&pid, "/proc/self/exe", &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	close(fds[1]);
	while (!rc && len < sizeof(said) - 1 &&
	       (n = read(fds[0], said + len, sizeof(said) - 1 - len)) > 0)
		len += (size_t)n;
	close(fds[0]);
	said[len] = 0;
	said[strcspn(said, "\n")] = 0;
	if (rc)
		return error_set(err, -rc, "hanok net %s: %s", verb, strerror(rc));
	if (waitpid(pid, &status, 0) != pid || status)
		return error_set(err, -EIO, "%s", said);
	return 0;
}

/* The network of bridged=INTERFACE is made when it is first asked for, and started again where it does not
 * run, by whoever comes first. */
static int bring_up_bridged(const char *name, struct error *err)
{
	json_t *config;

	if (strncmp(name, BRIDGED, strlen(BRIDGED)))
		return 0;
	config = net_config_load(name, NULL);
	if (!config)
		return run_net("create", name, name + strlen(BRIDGED), err);
	json_decref(config);
	return net_runs(name) ? 0 : run_net("start", name, NULL, err);
}

int nics_find_networks(struct nic_plan *plan, char *sockets[NICS_MAX], struct error *err)
{
	struct error why = {""};

	for (unsigned i = 0; i < plan->cards; i++) {
		struct nic_card *c = &plan->card[i];
		if (c->cable != NIC_NETWORK)
			continue;
		if (bring_up_bridged(c->network, &why))
			return error_set(err, -ENOENT, "network card %u: %s", i, why.text);
		/* Is it the network that is not there, or its process? */
		json_t *config = net_config_load(c->network, &why);
		if (config)
			sockets[i] = net_socket_path(c->network, &why);
		int rc = 0;
		if (!sockets[i])
			rc = error_set(err, -ENOENT, "network card %u: network %s", i, why.text);
		else if (access(sockets[i], F_OK))
			rc = error_set(err, -ENOENT,
				       "network card %u: network %s does not run; `hanok net start "
				       "%s` starts it",
				       i, c->network, c->network);
		else if (make_vlan_group(c, config, &why))
			rc = error_set(err, -ENOENT, "network card %u: network %s: %s", i,
				       c->network, why.text);
		json_decref(config);
		if (rc)
			return rc;
		c->socket = sockets[i];
	}
	return 0;
}
