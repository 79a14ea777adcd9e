/* SPDX-License-Identifier: Apache-2.0 */
/* The switch's ports and groups: who is connected where. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/netport_internal.h"
#include "net/switch_internal.h"

/* ---- groups; with the lock held ---- */

static struct switch_group **find_group(struct net_switch *sw, const char *name)
{
	for (unsigned i = 0; i < NET_SWITCH_GROUPS; i++)
		if (sw->groups[i] && !strcmp(sw->groups[i]->g.name, name))
			return &sw->groups[i];
	return NULL;
}

static void recount(struct net_switch *sw)
{
	sw->active_count = sw->promiscuous = 0;
	for (unsigned i = 0; i < NET_SWITCH_GROUPS; i++)
		if (sw->groups[i])
			sw->groups[i]->ports = 0;
	for (unsigned i = 0; i < NET_SWITCH_PORTS; i++) {
		if (!sw->ports[i])
			continue;
		sw->active[sw->active_count++] = i;
		sw->promiscuous += sw->ports[i]->group->g.promiscuous;
		sw->ports[i]->group->ports++;
	}
}

static bool valid(const struct net_port_group *g)
{
	if (!g->name[0] || !memchr(g->name, 0, sizeof(g->name)))
		return false;
	return g->mode <= NET_VLAN_GUEST && g->vid < 4095;
}

int net_switch_set_group(struct net_switch *sw, const struct net_port_group *g)
{
	struct switch_group *fresh, **at;

	if (!valid(g))
		return -EINVAL;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	pthread_rwlock_wrlock(&sw->lock);
	at = find_group(sw, g->name);
	for (unsigned i = 0; !at && i < NET_SWITCH_GROUPS; i++)
		if (!sw->groups[i])
			at = &sw->groups[i];
	if (at) {
		if (!*at) {
			*at = fresh;
			fresh = NULL;
		}
		(*at)->g = *g;
		/* Where addresses were seen may be where they may not be any more. */
		for (unsigned i = 0; i < NET_SWITCH_PORTS; i++)
			if (sw->ports[i] && sw->ports[i]->group == *at)
				mac_table_forget(sw->macs, i);
		recount(sw);
	}
	pthread_rwlock_unlock(&sw->lock);
	free(fresh);
	return at ? 0 : -ENOSPC;
}

int net_switch_remove_group(struct net_switch *sw, const char *name)
{
	struct switch_group **at;
	int rc = 0;

	pthread_rwlock_wrlock(&sw->lock);
	at = find_group(sw, name);
	if (!at) {
		rc = -ENOENT;
	} else if ((*at)->ports) {
		rc = -EBUSY;
	} else {
		free(*at);
		*at = NULL;
	}
	pthread_rwlock_unlock(&sw->lock);
	return rc;
}

bool net_switch_get_group(struct net_switch *sw, unsigned i, struct net_port_group *out)
{
	bool found = false;

	pthread_rwlock_rdlock(&sw->lock);
	for (unsigned k = 0; k < NET_SWITCH_GROUPS && !found; k++) {
		if (!sw->groups[k] || i--)
			continue;
		*out = sw->groups[k]->g;
		found = true;
	}
	pthread_rwlock_unlock(&sw->lock);
	return found;
}

/* ---- ports ---- */

/* The owner's address, or the link, is another. */
static void changed(void *opaque)
{
	struct switch_port *p = opaque;
	uint8_t given[6], used[6];

	if (netport_peer_mac(p->end, given, used)) {
		p->given = mac_number(given);
		p->used = mac_number(used);
	}
}

static void destroy_port(struct switch_port *p)
{
	if (!p)
		return;
	netport_destroy(p->end);
	shape_destroy(&p->shaper);
	free(p->lanes);
	free(p);
}

static int create_port(struct net_switch *sw, const char *name, struct switch_port **out)
{
	static const struct netport_ops ops = {.receive = switch_receive, .changed = changed};
	struct netport_config config = {
		.name = name, .features = NET_CAN_ALL, .max_frame_bytes = NET_FRAME_MAX_BYTES};
	struct switch_port *p = calloc(1, sizeof(*p));

	*out = NULL;
	if (!p)
		return -ENOMEM;
	p->sw = sw;
	p->storm_tokens_ns = UINT64_MAX / 2; /* as many as one may have */
	p->storm_at_ns = clock_ns();
	shape_init(&p->shaper, 0);
	p->lanes = malloc(NET_BATCH_MAX * sizeof(*p->lanes));
	if (!p->lanes || netport_create(&p->end, &config, &ops, p)) {
		destroy_port(p);
		return -ENOMEM;
	}
	*out = p;
	return 0;
}

/* Gives p a number in a group. */
static int place_port(struct net_switch *sw, struct switch_port *p, const char *group)
{
	int rc = -ENOSPC;

	pthread_rwlock_wrlock(&sw->lock);
	struct switch_group **g = find_group(sw, group);
	if (!g)
		rc = -ENOENT;
	for (unsigned i = 0; g && i < NET_SWITCH_PORTS && rc; i++) {
		if (sw->ports[i])
			continue;
		sw->ports[i] = p;
		p->id = i;
		p->group = *g;
		p->connected = true;
		recount(sw);
		rc = 0;
	}
	pthread_rwlock_unlock(&sw->lock);
	return rc;
}

int net_switch_connect(struct net_switch *sw, struct netport *end, const char *group, bool uplink,
		       unsigned *id)
{
	struct switch_port *p;
	int rc = create_port(sw, netport_name(end), &p);

	if (rc)
		return rc;
	p->uplink = uplink;
	rc = place_port(sw, p, group);
	if (rc) {
		destroy_port(p);
		return rc;
	}
	*id = p->id;
	rc = netport_connect(p->end, end);
	if (rc)
		net_switch_disconnect(sw, p->id);
	return rc;
}

void net_switch_disconnect(struct net_switch *sw, unsigned id)
{
	struct switch_port *p = NULL;

	pthread_rwlock_wrlock(&sw->lock);
	if (id < NET_SWITCH_PORTS && (p = sw->ports[id])) {
		sw->ports[id] = NULL;
		p->connected = false;
		recount(sw);
		mac_table_forget(sw->macs, id);
	}
	pthread_rwlock_unlock(&sw->lock);
	destroy_port(p);
}

int net_switch_move(struct net_switch *sw, unsigned id, const char *group)
{
	int rc = -ENOENT;

	pthread_rwlock_wrlock(&sw->lock);
	struct switch_group **g = find_group(sw, group);
	if (g && id < NET_SWITCH_PORTS && sw->ports[id]) {
		sw->ports[id]->group = *g;
		mac_table_forget(sw->macs, id);
		recount(sw);
		rc = 0;
	}
	pthread_rwlock_unlock(&sw->lock);
	return rc;
}

int net_switch_set_shape(struct net_switch *sw, unsigned id, const struct net_shape *shape)
{
	int rc = sw->loop ? -ENOENT : -ENOTSUP;

	pthread_rwlock_rdlock(&sw->lock);
	struct switch_port *p = id < NET_SWITCH_PORTS ? sw->ports[id] : NULL;
	if (p && sw->loop) {
		pthread_mutex_lock(&p->shaper.lock);
		p->shaper.shape = *shape;
		p->shaper.free_ns = 0;
		p->shaper.on = shape->bits_per_s || shape->delay_ns || shape->loss_ppm;
		pthread_mutex_unlock(&p->shaper.lock);
		rc = 0;
	}
	pthread_rwlock_unlock(&sw->lock);
	return rc;
}

int net_switch_capture(struct net_switch *sw, unsigned id, struct net_capture *capture)
{
	/* Not below the lock: it waits for frames under way, which hold it. The write lock would
	 * do, but a port may only be removed by who connected it: its owner is the caller. */
	pthread_rwlock_rdlock(&sw->lock);
	struct switch_port *p = id < NET_SWITCH_PORTS ? sw->ports[id] : NULL;
	pthread_rwlock_unlock(&sw->lock);
	if (!p)
		return -ENOENT;
	netport_set_capture(p->end, capture);
	return 0;
}

static void put_mac(uint8_t out[6], uint64_t mac)
{
	for (unsigned i = 0; i < 6; i++)
		out[i] = (uint8_t)(mac >> (40 - 8 * i));
}

/* With what the other end of the cable had to drop: a machine that does not read. */
static void get_stats(struct switch_port *p, struct netport_stats *out)
{
	struct netport_stats peer;

	netport_get_stats(p->end, out);
	if (!netport_get_peer_stats(p->end, &peer))
		return;
	for (unsigned i = 0; i < NET_DROPS; i++) {
		out->sent_drops[i] += peer.received_drops[i];
		out->received_drops[i] += peer.sent_drops[i];
	}
}

bool net_switch_get_port(struct net_switch *sw, unsigned id, struct net_switch_port *out)
{
	struct switch_port *p = NULL;

	pthread_rwlock_rdlock(&sw->lock);
	for (; id < NET_SWITCH_PORTS && !p; id++)
		p = sw->ports[id];
	if (p) {
		*out = (struct net_switch_port){.id = p->id, .uplink = p->uplink};
		snprintf(out->name, sizeof(out->name), "%s", netport_name(p->end));
		snprintf(out->group, sizeof(out->group), "%s", p->group->g.name);
		put_mac(out->mac_given, p->given);
		put_mac(out->mac_used, p->used);
		out->blocked = !p->uplink && !p->group->g.mac_changes && p->used != p->given;
		out->link = netport_link(p->end);
		pthread_mutex_lock(&p->shaper.lock);
		out->shape = p->shaper.shape;
		pthread_mutex_unlock(&p->shaper.lock);
		get_stats(p, &out->stats);
	}
	pthread_rwlock_unlock(&sw->lock);
	return p;
}

uint32_t net_switch_get_macs(struct net_switch *sw, struct mac_entry *out, uint32_t max)
{
	return mac_table_list(sw->macs, (uint32_t)(clock_ns() / 1000000000u), out, max);
}

void net_switch_get_mac_stats(struct net_switch *sw, struct mac_table_stats *out)
{
	mac_table_get_stats(sw->macs, out);
}

/* ---- life ---- */

int net_switch_create(struct net_switch **out, struct loop *loop,
		      const struct net_switch_config *config)
{
	struct net_switch *sw = calloc(1, sizeof(*sw));
	pthread_rwlockattr_t attr;
	int rc;

	*out = NULL;
	if (!sw)
		return -ENOMEM;
	snprintf(sw->name, sizeof(sw->name), "%s", config->name ? config->name : "switch");
	sw->loop = loop;
	rc = mac_table_create(&sw->macs, config->mac_places ? config->mac_places : 8192,
			      config->mac_age_s ? config->mac_age_s : 300);
	if (rc) {
		free(sw);
		return rc;
	}
	sw->timer_ns = UINT64_MAX;
	if (loop)
		timer_init(&sw->timer, loop, shape_due, sw);
	pthread_mutex_init(&sw->timer_lock, NULL);
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&sw->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	*out = sw;
	return 0;
}

void net_switch_destroy(struct net_switch *sw)
{
	if (!sw)
		return;
	for (unsigned i = 0; i < NET_SWITCH_PORTS; i++)
		net_switch_disconnect(sw, i);
	timer_destroy(&sw->timer);
	for (unsigned i = 0; i < NET_SWITCH_GROUPS; i++)
		free(sw->groups[i]);
	mac_table_destroy(sw->macs);
	pthread_rwlock_destroy(&sw->lock);
	pthread_mutex_destroy(&sw->timer_lock);
	free(sw);
}
