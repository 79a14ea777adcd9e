/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_NIC_JSON_H
#define HANOK_CONTROL_NIC_JSON_H

#include <jansson.h>

#include "machine/nic.h"
#include "net/nat.h"
#include "net/netport.h"

/* Network cards, ports and NAT's tables as JSON: the same for a machine's own and for networks that
 * machines share. New references, or NULL without memory. */

/* "00:0c:29:12:34:56" */
json_t *net_mac_json(const uint8_t mac[6]);
/* From cause to frames, those that happened: {"queue-full": 3} */
json_t *net_drops_json(const struct netport_stats *s);
/* The connections of a NAT, up to some thousands; on its loop's thread. */
json_t *net_flows_json(struct net_nat *nat);

/* All cards of a machine: an array. n NULL: an empty one. On the loop's thread. */
json_t *nics_json(struct nics *n);

#endif
