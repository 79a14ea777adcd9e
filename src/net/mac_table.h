/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_MAC_TABLE_H
#define HANOK_NET_MAC_TABLE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Which port a MAC address was last seen at, in each VLAN. A fixed number of places, in buckets of
 * a few; a full bucket forgets what it heard of longest ago, but a port that has its share may only
 * take the place of its own, so a flood of made-up addresses forgets nobody else's.
 *
 * Threads: lookups run without a lock, beside everything else; changes take the table's own.
 */
struct mac_table;

struct mac_entry {
	uint8_t mac[6];
	uint16_t vid, port;
	uint32_t age_s;
};

struct mac_table_stats {
	uint64_t learned, moved, aged, evicted, refused;
	uint32_t entries, places;
};

/* Addresses are 48-bit numbers, the first byte highest. */
static inline uint64_t mac_number(const uint8_t mac[6])
{
	return (uint64_t)mac[0] << 40 | (uint64_t)mac[1] << 32 | (uint64_t)mac[2] << 24 |
	       (uint64_t)mac[3] << 16 | (uint64_t)mac[4] << 8 | mac[5];
}

/* places: rounded up to a power of two, at least 64. -ENOMEM. */
int mac_table_create(struct mac_table **out, uint32_t places, uint32_t age_max_s);
void mac_table_destroy(struct mac_table *t);

/* now_s counts up, from any start. The port, or -1. */
int mac_table_find(const struct mac_table *t, uint64_t mac, unsigned vid, uint32_t now_s);
void mac_table_learn(struct mac_table *t, uint64_t mac, unsigned vid, unsigned port,
		     uint32_t now_s);
/* Forgets all of a port. */
void mac_table_forget(struct mac_table *t, unsigned port);
/* The entries that are not too old; returns how many. */
uint32_t mac_table_list(struct mac_table *t, uint32_t now_s, struct mac_entry *out, uint32_t max);
void mac_table_get_stats(struct mac_table *t, struct mac_table_stats *out);

#endif
