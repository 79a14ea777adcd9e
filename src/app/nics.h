/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_NICS_H
#define HANOK_APP_NICS_H

#include "base/error.h"
#include "machine/nic.h"

/*
 * --nic nat|none|switch=NAME|bridged=INTERFACE
 *	[,model=NAME][,mac=ADDRESS][,group=NAME|,vlan=N][,forward=FORWARD]...: what it says, over what is in *card already. spec is changed in place and must stay: the card points into
 * it. 0, or -errno with *err naming the option.
 */
int nics_parse(struct nic_card *card, char *spec, struct error *err);

/* The same, and adds the card to the plan; where nobody says, its model is the first of nic_kinds. */
int nics_add(struct nic_plan *plan, char *spec, struct error *err);

/* Finds the sockets of the networks that a plan's cards are plugged into: strings in `sockets`, by
 * card, the caller's to free (also after a failure). 0, or -errno with *err saying what to do. */
int nics_find_networks(struct nic_plan *plan, char *sockets[NICS_MAX], struct error *err);

#endif
