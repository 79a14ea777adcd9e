/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_NIC_H
#define HANOK_MACHINE_NIC_H

#include <stdbool.h>

#include "base/error.h"
#include "base/loop.h"
#include "dev/nic.h"
#include "machine/board.h"
#include "machine/layout.h"
#include "net/nat.h"

/*
 * Which network cards there are to be had, and a machine's plan of them: what each is plugged into.
 * The plan is made from the command line or a .vmx before there is a machine; nics_open makes what
 * is at the other ends of the cables, and the board makes the cards.
 */

/* All kinds; NULL ends the list. The first is what a machine gets when nobody says. */
extern const struct nic_kind *const nic_kinds[];

/* By its name; NULL with err listing the names that there are. */
const struct nic_kind *nic_find(const char *name, struct error *err);
/* The same by a .vmx's name. */
const struct nic_kind *nic_find_vmx(const char *vmx_name, struct error *err);

enum { NICS_MAX = LAYOUT_NIC_SLOTS, NIC_FORWARDS_MAX = 16, NIC_MAC_BYTES = 6 };

enum nic_cable {
	NIC_UNPLUGGED,
	NIC_NAT,     /* a NAT of the machine's own */
	NIC_NETWORK, /* a switch that machines share: `hanok net` */
};

/* Strings are the caller's and outlive the machine. */
struct nic_card {
	const struct nic_kind *kind;
	uint8_t mac[NIC_MAC_BYTES]; /* all zero: nic_plan_add makes one up */
	enum nic_cable cable;
	const char *network; /* NIC_NETWORK: its name, */
	const char *group;   /* the port group there (NULL: "default"), */
	const char *socket;  /* and where it is served, known by nics_open at the latest */
	const char *forward[NIC_FORWARDS_MAX]; /* NIC_NAT: as net_forward_parse takes them */
	unsigned forwards;
};

/* All zeroes: a machine without cards. */
struct nic_plan {
	const char *owner; /* the machine's name, for those who look at a network; or NULL */
	struct nic_card card[NICS_MAX];
	unsigned cards;
};

/* Adds a card (copied). 0; -EINVAL: something in it cannot be; -EEXIST: the address is another
 * card's; -ENOSPC. */
int nic_plan_add(struct nic_plan *p, const struct nic_card *card, struct error *err);

/* "00:0c:29:3e:5b:7a", of one card: -EINVAL for a group's address and for all zeroes. */
int nic_parse_mac(const char *text, uint8_t mac[NIC_MAC_BYTES], struct error *err);

/* The other ends of a plan's cables. */
struct nics;

/* Makes them: NATs with their forwards, connections to networks. 0 or -errno. plan is copied. On the
 * loop's thread, or before it runs. */
int nics_open(struct nics **out, const struct nic_plan *plan, struct loop *loop, struct error *err);
/* After the cards are gone, and while the loop does not run. NULL is allowed. */
void nics_close(struct nics *n);

/* A card as it looks from the other end of its cable. */
struct nic_info {
	const struct nic_card *card; /* as it was planned; the nics' own */
	bool link;
	uint8_t mac_used[NIC_MAC_BYTES]; /* by its guest now */
	struct netport_stats stats; /* of the card's port; all zero when nothing is plugged in */
	struct net_nat *nat;	    /* NIC_NAT: whose; else NULL */
};
/* Card i; false: there is none. n NULL: there are none. On the loop's thread. */
bool nics_get_info(struct nics *n, unsigned i, struct nic_info *out);

/* The cards for the board; the nics' own. */
const struct board_nic *nics_cards(const struct nics *n, unsigned *count);

#endif
