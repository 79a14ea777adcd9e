/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands. Activation copies what the driver shares (the shared area, the queues' descriptors,
 * filters, RSS) and goes by the copy from then on: the UPDATE commands take parts of it anew. What
 * makes no sense fails the command, and the card stays as it was, or for an activation, inactive.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/vmxnet3/vmxnet3_internal.h"

enum {
	CMD_ACTIVATE_DEV = 0xcafe0000,
	CMD_QUIESCE_DEV,
	CMD_RESET_DEV,
	CMD_UPDATE_RX_MODE,
	CMD_UPDATE_MAC_FILTERS,
	CMD_UPDATE_VLAN_FILTERS,
	CMD_UPDATE_RSSIDT,
	CMD_UPDATE_IML,
	CMD_UPDATE_PMCFG,
	CMD_UPDATE_FEATURE,
	CMD_GET_QUEUE_STATUS = 0xf00d0000,
	CMD_GET_STATS,
	CMD_GET_LINK,
	CMD_GET_PERM_MAC_LO,
	CMD_GET_PERM_MAC_HI,
	CMD_GET_DID_LO,
	CMD_GET_DID_HI,
	CMD_GET_DEV_EXTRA_INFO,
	CMD_GET_CONF_INTR,
};
enum { DEVICE_ID = 0x07b0, VENDOR_ID = 0x15ad, EXTRA_INFO = 0 };
#define RESULT_FAILED UINT32_MAX
#define LINK_UP (10000u << 16 | 1) /* Mb/s */
enum { RING_ALIGN = 512, RING_ENTRIES_ALIGN = 32, QUEUES_ALIGN = 128 };

/* --- what the driver shares --- */

static uint64_t queues_bytes(const struct vmxnet3_shared *conf)
{
	return (conf->tx_queues + conf->rx_queues) * sizeof(struct vmxnet3_queue_desc);
}

/* Multicast addresses: a list of any length that 16 bits can tell. */
static int read_groups(struct vmxnet3 *v, const struct vmxnet3_filter_conf *filter)
{
	uint8_t *groups = NULL;

	if (filter->table_bytes) {
		groups = malloc(filter->table_bytes);
		if (!groups)
			return -ENOMEM;
		if (mem_read(v->mem, filter->table_gpa, groups, filter->table_bytes)) {
			free(groups);
			return -EINVAL;
		}
	}
	pthread_mutex_lock(&v->rx.lock);
	free(v->rx.groups);
	v->rx.groups = groups;
	v->rx.filter = v->conf.filter = *filter;
	pthread_mutex_unlock(&v->rx.lock);
	return 0;
}

static bool rss_sound(const struct vmxnet3_rss_conf *rss)
{
	return rss->key_bytes <= VMXNET3_RSS_KEY_MAX && rss->table_entries &&
	       rss->table_entries <= VMXNET3_RSS_TABLE_MAX;
}

static int read_rss(struct vmxnet3 *v, const struct vmxnet3_var_conf *where)
{
	struct vmxnet3_rss_conf rss;

	if (where->bytes < sizeof(rss) || mem_read(v->mem, where->gpa, &rss, sizeof(rss)) ||
	    !rss_sound(&rss))
		return -EINVAL;
	pthread_mutex_lock(&v->rx.lock);
	v->rx.rss = rss;
	pthread_mutex_unlock(&v->rx.lock);
	return 0;
}

static int read_shared(struct vmxnet3 *v, uint64_t gpa, struct vmxnet3_shared *conf)
{
	if (!pci_dev_is_master(&v->pci) || gpa & 7 || mem_read(v->mem, gpa, conf, sizeof(*conf)) ||
	    conf->magic != VMXNET3_MAGIC)
		return -EINVAL;
	return 0;
}

/* --- activation --- */

static int make_ring(struct vmxnet3 *v, struct vmxnet3_ring *r, struct dma_area *area, uint64_t gpa,
		     uint32_t entries, uint32_t max)
{
	*r = (struct vmxnet3_ring){.gpa = gpa, .entries = entries, .gen = true};
	if (!entries || entries > max || entries % RING_ENTRIES_ALIGN || gpa % RING_ALIGN)
		return -EINVAL;
	r->descs = dma_map(v->mem, area, gpa, (size_t)entries * VMXNET3_DESC_BYTES, true);
	return r->descs ? 0 : -EINVAL;
}

static int make_queue(struct vmxnet3 *v, struct vmxnet3_queue *q,
		      const struct vmxnet3_queue_desc *d, struct vmxnet3_queue_desc *host, bool rx)
{
	int rc;

	if (d->intr >= v->conf.intrs)
		return -EINVAL;
	q->intr = d->intr;
	rc = make_ring(v, &q->ring[0], &q->area[0], d->ring[0], d->entries[0],
		       rx ? VMXNET3_RX_RING_MAX : VMXNET3_TX_RING_MAX);
	if (!rc && rx && d->entries[1]) /* the second one may be missing */
		rc = make_ring(v, &q->ring[1], &q->area[1], d->ring[1], d->entries[1],
			       VMXNET3_RX_RING_MAX);
	if (!rc)
		rc = make_ring(v, &q->comp, &q->area[2], d->comp_ring, d->comp_entries,
			       rx ? VMXNET3_RX_COMP_MAX : VMXNET3_TX_RING_MAX);
	if (!rc)
		q->desc = host;
	return rc;
}

static bool counts_sound(const struct vmxnet3_shared *c)
{
	return c->tx_queues && c->tx_queues <= VMXNET3_TX_QUEUES && c->rx_queues &&
	       c->rx_queues <= VMXNET3_RX_QUEUES && c->intrs && c->intrs <= VMXNET3_INTRS &&
	       c->event_intr < c->intrs && !(c->queues_gpa % QUEUES_ALIGN);
}

static void forget_queue(struct vmxnet3 *v, struct vmxnet3_queue *q)
{
	for (unsigned i = 0; i < sizeof(q->area) / sizeof(q->area[0]); i++)
		dma_unmap(v->mem, &q->area[i]);
	memset(q, 0, sizeof(*q));
}

static void forget(struct vmxnet3 *v)
{
	for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++)
		forget_queue(v, &v->tx[i].q);
	for (unsigned i = 0; i < VMXNET3_RX_QUEUES; i++)
		forget_queue(v, &v->rx.q[i]);
	v->irq.shared = NULL;
	dma_unmap(v->mem, &v->conf_area);
	dma_unmap(v->mem, &v->queues_area);
	memset(v->irq.pending, 0, sizeof(v->irq.pending));
	v->irq.asserted = false;
	pci_set_intx(&v->pci, 0);
	atomic_store(&v->active, false);
}

static int apply_locked(struct vmxnet3 *v)
{
	struct vmxnet3_shared *conf = &v->conf, *shared;
	struct vmxnet3_queue_desc *host;
	int rc = 0;

	forget(v);
	if (!counts_sound(conf) || (conf->features & FEATURE_RSS && !rss_sound(&v->rx.rss)))
		return -EINVAL;
	host = dma_map(v->mem, &v->queues_area, conf->queues_gpa, queues_bytes(conf), true);
	shared = dma_map(v->mem, &v->conf_area, v->conf_gpa, sizeof(*shared), true);
	if (!host || !shared)
		rc = -EINVAL;
	for (unsigned i = 0; !rc && i < conf->tx_queues; i++)
		rc = make_queue(v, &v->tx[i].q, &v->queues[i], &host[i], false);
	for (unsigned i = 0; !rc && i < conf->rx_queues; i++)
		rc = make_queue(v, &v->rx.q[i], &v->queues[conf->tx_queues + i],
				&host[conf->tx_queues + i], true);
	if (rc) {
		forget(v);
		return rc;
	}
	v->rx.features = conf->features;
	v->irq.shared = shared;
	atomic_store(&v->active, true);
	return 0;
}

int vmxnet3_apply(struct vmxnet3 *v)
{
	vmxnet3_lock_all(v);
	int rc = apply_locked(v);
	vmxnet3_unlock_all(v);
	return rc;
}

void vmxnet3_deactivate(struct vmxnet3 *v)
{
	vmxnet3_lock_all(v);
	forget(v);
	vmxnet3_unlock_all(v);
}

/* Interrupts begin masked: the driver lets them in when it is ready. */
static uint32_t activate(struct vmxnet3 *v)
{
	struct vmxnet3_shared conf;
	int rc;

	vmxnet3_deactivate(v);
	rc = read_shared(v, v->shared_gpa, &conf);
	if (!rc && !counts_sound(&conf))
		rc = -EINVAL;
	if (!rc)
		rc = mem_read(v->mem, conf.queues_gpa, v->queues, queues_bytes(&conf));
	if (!rc && conf.features & FEATURE_RSS)
		rc = read_rss(v, &conf.rss);
	if (!rc)
		rc = read_groups(v, &conf.filter);
	if (!rc) {
		vmxnet3_lock_all(v);
		v->conf = conf;
		v->conf_gpa = v->shared_gpa;
		memset(v->irq.masked, 1, sizeof(v->irq.masked));
		rc = apply_locked(v);
		vmxnet3_unlock_all(v);
	}
	vmxnet3_update_port(v);
	if (rc) {
		v->stats.bad_activations++;
		return RESULT_FAILED;
	}
	v->stats.activations++;
	return 0;
}

static uint32_t quiesce(struct vmxnet3 *v)
{
	vmxnet3_deactivate(v);
	vmxnet3_update_port(v);
	return 0;
}

/* Checksums that were never made, and frames that were joined, are only for guests that say they
 * never pass such on: those with LRO. */
void vmxnet3_update_port(struct vmxnet3 *v)
{
	uint32_t features = NET_CAN_VLAN, mtu = v->conf.mtu;
	const uint64_t lro = FEATURE_LRO | FEATURE_RXCSUM;

	if (mtu < VMXNET3_MTU_MIN || mtu > VMXNET3_MTU_MAX)
		mtu = mtu > VMXNET3_MTU_MAX ? VMXNET3_MTU_MAX : 1500;
	if (atomic_load(&v->active) && (v->conf.features & lro) == lro)
		features |= NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6 | NET_WANT_LRO;
	netport_set_features(v->port, features, mtu + NET_ETH_HEADER_BYTES);
	netport_set_mac(v->port, v->mac);
}

/* --- updates --- */

static uint32_t update_filters(struct vmxnet3 *v)
{
	struct vmxnet3_shared conf;

	if (!atomic_load(&v->active))
		return 0; /* they come with the activation */
	if (read_shared(v, v->conf_gpa, &conf) || read_groups(v, &conf.filter))
		return RESULT_FAILED;
	return 0;
}

static uint32_t update_rss(struct vmxnet3 *v)
{
	struct vmxnet3_shared conf;

	if (!atomic_load(&v->active) || read_shared(v, v->conf_gpa, &conf) ||
	    read_rss(v, &conf.rss))
		return RESULT_FAILED;
	return 0;
}

static uint32_t update_features(struct vmxnet3 *v)
{
	struct vmxnet3_shared conf;

	if (!atomic_load(&v->active))
		return 0;
	if (read_shared(v, v->conf_gpa, &conf) ||
	    (conf.features & FEATURE_RSS && read_rss(v, &conf.rss)))
		return RESULT_FAILED;
	pthread_mutex_lock(&v->rx.lock);
	v->rx.features = v->conf.features = conf.features;
	pthread_mutex_unlock(&v->rx.lock);
	vmxnet3_update_port(v);
	return 0;
}

/* --- what the driver asks --- */

static void put_queue(struct vmxnet3 *v, struct vmxnet3_queue *q, bool stats)
{
	if (!q->desc)
		return;
	if (stats)
		memcpy(q->desc->stats, q->stats, sizeof(q->stats));
	q->desc->error = q->error;
	q->desc->stopped = q->error != 0;
	mem_written(v->mem, v->conf.queues_gpa, queues_bytes(&v->conf));
}

static uint32_t put_queues(struct vmxnet3 *v, bool stats)
{
	uint32_t stopped = 0;

	for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++) {
		pthread_mutex_lock(&v->tx[i].lock);
		put_queue(v, &v->tx[i].q, stats);
		stopped |= v->tx[i].q.desc && v->tx[i].q.error;
		pthread_mutex_unlock(&v->tx[i].lock);
	}
	pthread_mutex_lock(&v->rx.lock);
	for (unsigned i = 0; i < VMXNET3_RX_QUEUES; i++)
		put_queue(v, &v->rx.q[i], stats);
	pthread_mutex_unlock(&v->rx.lock);
	return stats ? 0 : stopped;
}

static uint32_t run(struct vmxnet3 *v, uint32_t command)
{
	const uint8_t *mac = v->given_mac;

	switch (command) {
	case CMD_ACTIVATE_DEV:
		return activate(v);
	case CMD_QUIESCE_DEV:
	case CMD_RESET_DEV:
		return quiesce(v);
	case CMD_UPDATE_RX_MODE:
	case CMD_UPDATE_MAC_FILTERS:
	case CMD_UPDATE_VLAN_FILTERS:
		return update_filters(v);
	case CMD_UPDATE_RSSIDT:
		return update_rss(v);
	case CMD_UPDATE_FEATURE:
		return update_features(v);
	case CMD_UPDATE_IML:   /* moderation: interrupts come as frames do, a batch at a time */
	case CMD_UPDATE_PMCFG: /* nothing wakes this card */
		return 0;
	case CMD_GET_QUEUE_STATUS:
		return put_queues(v, false);
	case CMD_GET_STATS:
		return put_queues(v, true);
	case CMD_GET_LINK:
		return netport_link(v->port) ? LINK_UP : 0;
	case CMD_GET_PERM_MAC_LO:
		return (uint32_t)mac[0] | mac[1] << 8 | mac[2] << 16 | (uint32_t)mac[3] << 24;
	case CMD_GET_PERM_MAC_HI:
		return (uint32_t)mac[4] | mac[5] << 8;
	case CMD_GET_DID_LO:
		return DEVICE_ID;
	case CMD_GET_DID_HI:
		return VENDOR_ID;
	case CMD_GET_DEV_EXTRA_INFO:
		return EXTRA_INFO;
	case CMD_GET_CONF_INTR:
		return 0; /* any kind of interrupt, masked when sent */
	default:
		v->stats.bad_commands++;
		return RESULT_FAILED;
	}
}

void vmxnet3_command(struct vmxnet3 *v, uint32_t command)
{
	v->result = run(v, command);
}
