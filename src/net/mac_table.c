/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An entry is two words: the key (VLAN and address, never 0 when in use) and what is known of it. A
 * reader that finds the same key before and after it read the other word has read a pair that was
 * there together; a place that changed in between is a miss, and the frame is flooded.
 */
#include "net/mac_table.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { WAYS = 8, PORTS = 256 };

struct place {
	_Atomic uint64_t key;	/* USED | vid << 48 | mac */
	_Atomic uint64_t value; /* port << 32 | when it was last heard of */
};
#define USED (UINT64_C(1) << 63)

struct mac_table {
	struct place *places;
	uint32_t mask; /* of buckets */
	uint32_t age_max_s, share;
	pthread_mutex_t lock; /* guards changes and what follows */
	uint32_t held[PORTS];
	struct mac_table_stats stats;
};

int mac_table_create(struct mac_table **out, uint32_t places, uint32_t age_max_s)
{
	struct mac_table *t = calloc(1, sizeof(*t));
	uint32_t n = 64;

	*out = NULL;
	while (n < places && n < 1u << 20)
		n *= 2;
	if (!t || !(t->places = calloc(n, sizeof(*t->places)))) {
		free(t);
		return -ENOMEM;
	}
	t->mask = n / WAYS - 1;
	t->age_max_s = age_max_s;
	t->share = n / 8;
	t->stats.places = n;
	pthread_mutex_init(&t->lock, NULL);
	*out = t;
	return 0;
}

void mac_table_destroy(struct mac_table *t)
{
	if (!t)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t->places);
	free(t);
}

static uint64_t key_of(uint64_t mac, unsigned vid)
{
	return USED | (uint64_t)(vid & 0xfff) << 48 | (mac & UINT64_C(0xffffffffffff));
}

static struct place *bucket(const struct mac_table *t, uint64_t key)
{
	uint64_t x = key * UINT64_C(0x9e3779b97f4a7c15);

	return &t->places[((x >> 32) & t->mask) * WAYS];
}

static bool old(const struct mac_table *t, uint64_t value, uint32_t now_s)
{
	uint32_t age = now_s - (uint32_t)value;

	/* "Just now" as another thread sees it may be a second ahead. */
	return age > t->age_max_s && age < UINT32_MAX / 2;
}

int mac_table_find(const struct mac_table *t, uint64_t mac, unsigned vid, uint32_t now_s)
{
	uint64_t key = key_of(mac, vid);
	struct place *p = bucket(t, key);

	for (unsigned i = 0; i < WAYS; i++, p++) {
		if (atomic_load_explicit(&p->key, memory_order_acquire) != key)
			continue;
		uint64_t value = atomic_load_explicit(&p->value, memory_order_acquire);
		if (atomic_load_explicit(&p->key, memory_order_relaxed) != key ||
		    old(t, value, now_s))
			return -1;
		return (int)(value >> 32);
	}
	return -1;
}

static void clear(struct mac_table *t, struct place *p)
{
	if (!p->key)
		return;
	t->held[(p->value >> 32) % PORTS]--;
	t->stats.entries--;
	atomic_store(&p->key, 0);
}

/* The place for a new entry of port, or NULL. */
static struct place *make_room(struct mac_table *t, struct place *b, unsigned port, uint32_t now_s)
{
	bool full_share = t->held[port] >= t->share;
	struct place *oldest = NULL;

	for (struct place *p = b; p < b + WAYS; p++) {
		if (p->key && old(t, p->value, now_s)) {
			clear(t, p);
			t->stats.aged++;
		}
	}
	for (struct place *p = b; p < b + WAYS; p++) {
		bool own = p->key && p->value >> 32 == port;
		if (!p->key && !full_share)
			return p;
		if (!p->key || (full_share && !own))
			continue;
		if (!oldest || (int32_t)((uint32_t)p->value - (uint32_t)oldest->value) < 0)
			oldest = p;
	}
	if (oldest) {
		clear(t, oldest);
		t->stats.evicted++;
	} else {
		t->stats.refused++;
	}
	return oldest;
}

static struct place *find_place(struct place *b, uint64_t key)
{
	for (struct place *p = b; p < b + WAYS; p++)
		if (p->key == key)
			return p;
	return NULL;
}

void mac_table_learn(struct mac_table *t, uint64_t mac, unsigned vid, unsigned port, uint32_t now_s)
{
	uint64_t key = key_of(mac, vid), value = (uint64_t)port << 32 | now_s;
	struct place *b = bucket(t, key), *p = find_place(b, key);

	port %= PORTS;
	if (p && atomic_load_explicit(&p->value, memory_order_relaxed) == value)
		return; /* what nearly every frame ends with */
	pthread_mutex_lock(&t->lock);
	p = find_place(b, key);
	if (p) {
		unsigned before = (unsigned)(p->value >> 32) % PORTS;
		if (before != port) {
			t->stats.moved++;
			t->held[before]--;
			t->held[port]++;
		}
		atomic_store(&p->value, value);
	} else if ((p = make_room(t, b, port, now_s))) {
		atomic_store(&p->value, value);
		atomic_store(&p->key, key);
		t->held[port]++;
		t->stats.entries++;
		t->stats.learned++;
	}
	pthread_mutex_unlock(&t->lock);
}

void mac_table_forget(struct mac_table *t, unsigned port)
{
	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < t->stats.places; i++)
		if (t->places[i].key && t->places[i].value >> 32 == port)
			clear(t, &t->places[i]);
	pthread_mutex_unlock(&t->lock);
}

uint32_t mac_table_list(struct mac_table *t, uint32_t now_s, struct mac_entry *out, uint32_t max)
{
	uint32_t n = 0;

	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < t->stats.places && n < max; i++) {
		uint64_t key = t->places[i].key, value = t->places[i].value;
		if (!key || old(t, value, now_s))
			continue;
		struct mac_entry *e = &out[n++];
		for (unsigned b = 0; b < 6; b++)
			e->mac[b] = (uint8_t)(key >> (40 - 8 * b));
		e->vid = (key >> 48) & 0xfff;
		e->port = (uint16_t)(value >> 32);
		e->age_s = (int32_t)(now_s - (uint32_t)value) < 0 ? 0 : now_s - (uint32_t)value;
	}
	pthread_mutex_unlock(&t->lock);
	return n;
}

void mac_table_get_stats(struct mac_table *t, struct mac_table_stats *out)
{
	pthread_mutex_lock(&t->lock);
	*out = t->stats;
	pthread_mutex_unlock(&t->lock);
}
