/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of network cards, and what a machine's cards are plugged into.
 *
 *     command line, .vmx ──> nic_plan ──> nics_open: NATs, networks ──> board: cards
 *
 * Card i of the plan sits in PCI slot LAYOUT_NIC_SLOT + i.
 */
#include "machine/nic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

#include "dev/e1000/e1000.h"
#include "dev/virtio/net.h"
#include "dev/vmxnet3/vmxnet3.h"
#include "net/proto.h"

const struct nic_kind *const nic_kinds[] = {
	&virtio_net_kind, /* the default */
	&vmxnet3_kind,	  /* VMware's paravirtual card */
	&e1000_kind,	  /* Intel's 82545EM */
	NULL,
};

static const struct nic_kind *find(const char *name, bool vmx, struct error *err)
{
	char names[160] = "";
	size_t len = 0;

	for (unsigned i = 0; nic_kinds[i]; i++) {
		const char *own = vmx ? nic_kinds[i]->vmx_name : nic_kinds[i]->name;
		if (!strcasecmp(name, own))
			return nic_kinds[i];
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len ? ", " : "",
					own);
		if (len >= sizeof(names))
			len = sizeof(names) - 1;
	}
	error_set(err, -EINVAL, "%.60s: no such network card; there is %s", name, names);
	return NULL;
}

const struct nic_kind *nic_find(const char *name, struct error *err)
{
	return find(name, false, err);
}

const struct nic_kind *nic_find_vmx(const char *vmx_name, struct error *err)
{
	return find(vmx_name, true, err);
}

/* --- addresses --- */

int nic_parse_mac(const char *text, uint8_t mac[NIC_MAC_BYTES], struct error *err)
{
	static const uint8_t zero[NIC_MAC_BYTES];
	unsigned b[NIC_MAC_BYTES];
	int end = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end) != NIC_MAC_BYTES ||
	    text[end] || end != 17 || strspn(text, "0123456789abcdefABCDEF:") != 17)
		return error_set(err, -EINVAL, "%.40s: no address of a card, as 00:0c:29:12:34:56",
				 text);
	for (unsigned i = 0; i < NIC_MAC_BYTES; i++)
		mac[i] = (uint8_t)b[i];
	if (mac[0] & 1 || !memcmp(mac, zero, NIC_MAC_BYTES))
		return error_set(err, -EINVAL,
				 "%s: a card's address is not zero, and its first byte is even",
				 text);
	return 0;
}

/* VMware's prefix for addresses made up by machines, and three bytes by chance. */
static int make_mac(uint8_t mac[NIC_MAC_BYTES], struct error *err)
{
	const uint8_t prefix[] = {0x00, 0x0c, 0x29};

	memcpy(mac, prefix, sizeof(prefix));
	if (getrandom(mac + 3, 3, 0) != 3)
		return error_set(err, -EIO, "getrandom: %s", strerror(errno));
	return 0;
}

/* --- the plan --- */

int nic_plan_add(struct nic_plan *p, const struct nic_card *card, struct error *err)
{
	static const uint8_t zero[NIC_MAC_BYTES];
	struct net_forward f;
	int rc = 0;

	if (p->cards == NICS_MAX)
		return error_set(err, -ENOSPC, "a machine has room for %d network cards", NICS_MAX);
	if (card->forwards && card->cable != NIC_NAT)
		return error_set(err, -EINVAL, "forward=%s: only NAT forwards", card->forward[0]);
	if (card->group && card->cable != NIC_NETWORK)
		return error_set(err, -EINVAL, "group=%s: only networks have port groups",
				 card->group);
	for (unsigned i = 0; !rc && i < card->forwards; i++)
		rc = net_forward_parse(card->forward[i], &f, err);
	if (rc)
		return rc;
	struct nic_card *c = &p->card[p->cards];
	*c = *card;
	if (!memcmp(c->mac, zero, NIC_MAC_BYTES)) {
		rc = make_mac(c->mac, err);
		if (rc)
			return rc;
	}
	for (unsigned i = 0; i < p->cards; i++)
		if (!memcmp(p->card[i].mac, c->mac, NIC_MAC_BYTES))
			return error_set(
				err, -EEXIST,
				"%02x:%02x:%02x:%02x:%02x:%02x is the address of two cards",
				c->mac[0], c->mac[1], c->mac[2], c->mac[3], c->mac[4], c->mac[5]);
	p->cards++;
	return 0;
}

/* --- the other ends --- */

struct nics {
	struct nic_plan plan;
	struct board_nic nic[NICS_MAX];
	struct net_nat *nat[NICS_MAX];
	struct net_client *client[NICS_MAX];
};

static int open_nat(struct nics *n, unsigned i, struct loop *loop, struct error *err)
{
	const struct nic_card *card = &n->plan.card[i];
	char name[32];
	struct net_forward f;

	snprintf(name, sizeof(name), "nat%u", i);
	const struct net_nat_config cfg = {.name = name, .loop = loop, .hostname = n->plan.owner};
	int rc = net_nat_create(&n->nat[i], &cfg, err);
	for (unsigned k = 0; !rc && k < card->forwards; k++) {
		rc = net_forward_parse(card->forward[k], &f, err);
		if (!rc)
			rc = net_nat_add_forward(n->nat[i], &f, err);
	}
	if (!rc)
		n->nic[i].cable = net_nat_port(n->nat[i]);
	return rc;
}

static int open_network(struct nics *n, unsigned i, struct loop *loop, struct error *err)
{
	const struct nic_card *card = &n->plan.card[i];
	char name[NET_NAME_BYTES];

	/* Who looks at the network wants to know which machine it is. */
	if (n->plan.owner)
		snprintf(name, sizeof(name), "%.48s nic%u", n->plan.owner, i);
	else
		snprintf(name, sizeof(name), "pid %d nic%u", (int)getpid(), i);
	const struct net_client_config cfg = {
		.loop = loop, .path = card->socket, .name = name, .group = card->group};
	int rc = net_client_create(&n->client[i], &cfg, err);
	if (!rc)
		n->nic[i].cable = net_client_port(n->client[i]);
	return rc;
}

void nics_close(struct nics *n)
{
	if (!n)
		return;
	for (unsigned i = NICS_MAX; i-- > 0;) {
		net_nat_destroy(n->nat[i]);
		if (n->client[i])
			net_client_destroy(n->client[i]);
	}
	free(n);
}

int nics_open(struct nics **out, const struct nic_plan *plan, struct loop *loop, struct error *err)
{
	struct nics *n = calloc(1, sizeof(*n));
	int rc = 0;

	*out = NULL;
	if (!n)
		return error_set(err, -ENOMEM, "network cards: out of memory");
	n->plan = *plan;
	for (unsigned i = 0; !rc && i < plan->cards; i++) {
		const struct nic_card *card = &n->plan.card[i];
		n->nic[i].kind = card->kind;
		memcpy(n->nic[i].mac, card->mac, NIC_MAC_BYTES);
		if (card->cable == NIC_NAT)
			rc = open_nat(n, i, loop, err);
		else if (card->cable == NIC_NETWORK)
			rc = open_network(n, i, loop, err);
	}
	if (rc) {
		nics_close(n);
		return rc;
	}
	*out = n;
	return 0;
}

bool nics_get_info(struct nics *n, unsigned i, struct nic_info *out)
{
	uint8_t given[NIC_MAC_BYTES];

	if (!n || i >= n->plan.cards)
		return false;
	*out = (struct nic_info){.card = &n->plan.card[i], .nat = n->nat[i]};
	memcpy(out->mac_used, out->card->mac, NIC_MAC_BYTES);
	struct netport *cable = n->nic[i].cable;
	if (!cable)
		return true;
	out->link = netport_link(cable);
	netport_peer_mac(cable, given, out->mac_used);
	netport_get_peer_stats(cable, &out->stats);
	return true;
}

const struct board_nic *nics_cards(const struct nics *n, unsigned *count)
{
	*count = n->plan.cards;
	return n->nic;
}
