/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMware's vmxnet3: registers and life. See vmxnet3_internal.h for where its facts come from.
 *
 *   BAR 0  000h + 8i  IMR of interrupt i     600h + 8q  TXPROD of queue q
 *          800h + 8q  RXPROD, ring 1         a00h + 8q  RXPROD, ring 2
 *   BAR 1  VRRS UVRS DSAL DSAH CMD MACL MACH ICR ECR, 8 bytes each
 *   BAR 2  MSI-X
 *
 *      vCPU: TXPROD ─> vmxnet3_tx.c ─> netport_send     netport ─> vmxnet3_rx.c ─> rings
 *            RXPROD ─> netport_ready                                   │
 *            IMR, ICR ─> vmxnet3_irq.c <────────── completions ────────┘
 *            CMD ─> vmxnet3_cmd.c
 *
 * It reports revisions 1 and 2. What came with later ones (receive data rings, coalescing commands,
 * encapsulation) is not there.
 */
#include "dev/vmxnet3/vmxnet3.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/vmxnet3/vmxnet3_internal.h"

enum { BAR_BYTES = 4096, MSIX_PBA_AT = 0x800 };
enum { REG_IMR = 0x000, REG_TXPROD = 0x600, REG_RXPROD = 0x800, REG_RXPROD2 = 0xa00 };
enum {
	REG_VRRS = 0x00,
	REG_UVRS = 0x08,
	REG_DSAL = 0x10,
	REG_DSAH = 0x18,
	REG_CMD = 0x20,
	REG_MACL = 0x28,
	REG_MACH = 0x30,
	REG_ICR = 0x38,
	REG_ECR = 0x40,
};
enum { REVISIONS = 3, UPT_VERSIONS = 1 };

void vmxnet3_lock_all(struct vmxnet3 *v)
{
	for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++)
		pthread_mutex_lock(&v->tx[i].lock);
	pthread_mutex_lock(&v->rx.lock);
	pthread_mutex_lock(&v->irq.lock);
}

void vmxnet3_unlock_all(struct vmxnet3 *v)
{
	pthread_mutex_unlock(&v->irq.lock);
	pthread_mutex_unlock(&v->rx.lock);
	for (unsigned i = VMXNET3_TX_QUEUES; i-- > 0;)
		pthread_mutex_unlock(&v->tx[i].lock);
}

/* --- the port --- */

static void on_changed(void *opaque)
{
	struct vmxnet3 *v = opaque;

	vmxnet3_link_changed(v, netport_link(v->port));
}

static void transmit(struct vmxnet3 *v, unsigned queue)
{
	struct vmxnet3_tx *t = &v->tx[queue];

	pthread_mutex_lock(&t->lock);
	vmxnet3_transmit(v, t);
	pthread_mutex_unlock(&t->lock);
}

static void on_room(void *opaque)
{
	for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++)
		transmit(opaque, i);
}

static const struct netport_ops port_ops = {
	.receive = vmxnet3_receive, .room = on_room, .changed = on_changed};

/* --- registers --- */

/* The index of a register that there is one of for each interrupt or queue; -1: not one of these. */
static int nth(uint64_t offset, unsigned base, unsigned count)
{
	if (offset < base || offset >= base + 8 * count || offset & 7)
		return -1;
	return (int)(offset - base) / 8;
}

static void access_pt(void *opaque, struct bus_access *a)
{
	struct vmxnet3 *v = opaque;
	int i;

	if (a->size != 4)
		return;
	i = nth(a->offset, REG_IMR, VMXNET3_INTRS);
	if (!a->write) {
		a->value = i >= 0 && vmxnet3_is_masked(v, (unsigned)i);
		return;
	}
	if (i >= 0) {
		vmxnet3_mask(v, (unsigned)i, a->value & 1);
		netport_ready(v->port); /* the driver is done with a round */
		return;
	}
	i = nth(a->offset, REG_TXPROD, VMXNET3_TX_QUEUES);
	if (i >= 0)
		transmit(v, (unsigned)i);
	i = nth(a->offset, REG_RXPROD, VMXNET3_RX_QUEUES);
	if (i < 0)
		i = nth(a->offset, REG_RXPROD2, VMXNET3_RX_QUEUES);
	if (i >= 0)
		vmxnet3_rx_filled(v, (unsigned)i);
}

static void set_mac(struct vmxnet3 *v, uint32_t high)
{
	pthread_mutex_lock(&v->rx.lock);
	memcpy(v->mac, &v->mac_low, 4);
	memcpy(v->mac + 4, &high, 2);
	pthread_mutex_unlock(&v->rx.lock);
	vmxnet3_update_port(v);
}

static uint32_t read_vd(struct vmxnet3 *v, uint64_t reg)
{
	switch (reg) {
	case REG_VRRS:
		return REVISIONS;
	case REG_UVRS:
		return UPT_VERSIONS;
	case REG_DSAL:
		return (uint32_t)v->shared_gpa;
	case REG_DSAH:
		return (uint32_t)(v->shared_gpa >> 32);
	case REG_CMD:
		return v->result;
	case REG_MACL:
		return (uint32_t)v->mac[0] | v->mac[1] << 8 | v->mac[2] << 16 |
		       (uint32_t)v->mac[3] << 24;
	case REG_MACH:
		return (uint32_t)v->mac[4] | v->mac[5] << 8;
	default:
		return 0;
	}
}

static void write_vd(struct vmxnet3 *v, uint64_t reg, uint32_t value)
{
	switch (reg) {
	case REG_DSAL:
		v->shared_gpa = (v->shared_gpa & ~(uint64_t)UINT32_MAX) | value;
		break;
	case REG_DSAH:
		v->shared_gpa = (v->shared_gpa & UINT32_MAX) | (uint64_t)value << 32;
		break;
	case REG_CMD:
		vmxnet3_command(v, value);
		break;
	case REG_MACL:
		v->mac_low = value;
		break;
	case REG_MACH:
		set_mac(v, value);
		break;
	default:
		break;
	}
}

static void access_vd(void *opaque, struct bus_access *a)
{
	struct vmxnet3 *v = opaque;

	if (a->size != 4)
		return;
	if (a->offset == REG_ICR) {
		a->value = a->write ? a->value : vmxnet3_read_icr(v);
	} else if (a->offset == REG_ECR && a->write) {
		vmxnet3_ack_events(v, (uint32_t)a->value);
	} else {
		pthread_mutex_lock(&v->lock);
		if (a->write)
			write_vd(v, a->offset, (uint32_t)a->value);
		else
			a->value = read_vd(v, a->offset);
		pthread_mutex_unlock(&v->lock);
		if (a->write && a->offset == REG_CMD)
			netport_ready(v->port);
	}
}

/* All of BAR 2 that is used is the bus's. */
static void access_msix(void *opaque, struct bus_access *a)
{
	(void)opaque;
	if (!a->write)
		a->value = 0;
}

void vmxnet3_get_stats(void *dev, struct vmxnet3_stats *out)
{
	struct vmxnet3 *v = dev;

	pthread_mutex_lock(&v->lock);
	vmxnet3_lock_all(v);
	*out = v->rx.stats;
	for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++) {
		const struct vmxnet3_stats *t = &v->tx[i].stats;
		out->tx_frames += t->tx_frames;
		out->tx_tso += t->tx_tso;
		out->tx_csum += t->tx_csum;
		out->tx_waits += t->tx_waits;
		out->tx_bad_buffers += t->tx_bad_buffers;
		out->tx_bad_frames += t->tx_bad_frames;
		out->tx_stops += t->tx_stops;
	}
	out->interrupts = v->irq.raised;
	out->activations = v->stats.activations;
	out->bad_activations = v->stats.bad_activations;
	out->bad_commands = v->stats.bad_commands;
	vmxnet3_unlock_all(v);
	pthread_mutex_unlock(&v->lock);
}

/* --- life --- */

static void on_again(void *opaque)
{
	on_room(opaque);
}

static void reset(void *dev)
{
	struct vmxnet3 *v = dev;

	timer_cancel(&v->again);
	pthread_mutex_lock(&v->lock);
	vmxnet3_deactivate(v);
	pthread_mutex_lock(&v->rx.lock);
	memcpy(v->mac, v->given_mac, 6);
	pthread_mutex_unlock(&v->rx.lock);
	memset(&v->conf, 0, sizeof(v->conf));
	v->mac_low = v->result = 0;
	v->shared_gpa = 0;
	vmxnet3_lock_all(v);
	memset(v->irq.masked, 1, sizeof(v->irq.masked));
	vmxnet3_unlock_all(v);
	vmxnet3_update_port(v);
	vmxnet3_link_changed(v, netport_link(v->port));
	pthread_mutex_unlock(&v->lock);
	pci_dev_reset(&v->pci);
	netport_ready(v->port); /* what waits for buffers is lost */
}

static void ring_state(struct vmxnet3_ring *r, struct state_stream *s)
{
	state_u32(s, &r->next);
	state_bool(s, &r->gen);
	if (r->entries && r->next >= r->entries) {
		r->next = 0;
		state_fail(s, "vmxnet3: a place behind a ring's end");
	}
}

static void queue_state(struct vmxnet3_queue *q, struct state_stream *s)
{
	ring_state(&q->ring[0], s);
	ring_state(&q->ring[1], s);
	ring_state(&q->comp, s);
	state_u32(s, &q->error);
	for (unsigned i = 0; i < 10; i++)
		state_u64(s, &q->stats[i]);
}

/* What the driver shared: as it was copied. All locks held. */
static void conf_state(struct vmxnet3 *v, struct state_stream *s)
{
	state_raw(s, &v->conf, sizeof(v->conf));
	state_u64(s, &v->conf_gpa);
	state_raw(s, v->queues, sizeof(v->queues));
	state_u64(s, &v->rx.features);
	state_raw(s, &v->rx.rss, sizeof(v->rx.rss));
	if (!state_writing(s)) {
		free(v->rx.groups);
		v->rx.groups = malloc(UINT16_MAX);
		v->rx.filter = v->conf.filter;
		if (!v->rx.groups) {
			v->rx.filter.table_bytes = v->conf.filter.table_bytes = 0;
			state_fail(s, "vmxnet3: out of memory");
		} else {
			memset(v->rx.groups, 0, UINT16_MAX);
		}
	}
	if (v->rx.filter.table_bytes)
		state_raw(s, v->rx.groups, v->rx.filter.table_bytes);
}

static void irq_state(struct vmxnet3 *v, struct state_stream *s)
{
	for (unsigned i = 0; i < VMXNET3_INTRS; i++) {
		state_bool(s, &v->irq.masked[i]);
		state_bool(s, &v->irq.pending[i]);
	}
	state_bool(s, &v->irq.asserted);
	state_bool(s, &v->irq.link);
	if (!state_writing(s))
		pci_set_intx(&v->pci, v->irq.asserted);
}

/* given_mac is the machine's, not the guest's. */
static void registers_state(struct vmxnet3 *v, struct state_stream *s)
{
	pci_dev_state(&v->pci, s);
	state_raw(s, v->mac, sizeof(v->mac));
	state_u32(s, &v->mac_low);
	state_u32(s, &v->result);
	state_u64(s, &v->shared_gpa);
}

static void restored(struct vmxnet3 *v)
{
	vmxnet3_update_port(v);
	vmxnet3_link_changed(v, netport_link(v->port)); /* it may have come or gone meanwhile */
	timer_arm(&v->again, clock_ns());
}

static void save_or_restore(void *dev, struct state_stream *s)
{
	struct vmxnet3 *v = dev;
	bool active = atomic_load(&v->active);

	pthread_mutex_lock(&v->lock);
	if (!state_writing(s))
		vmxnet3_deactivate(v);
	if (state_begin(s, "vmxnet3", v->index, 1)) {
		vmxnet3_lock_all(v);
		registers_state(v, s);
		state_bool(s, &active);
		conf_state(v, s);
		vmxnet3_unlock_all(v);
		if (!state_writing(s) && active && vmxnet3_apply(v))
			state_fail(s, "vmxnet3: queues that are not in memory");
		vmxnet3_lock_all(v);
		for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++)
			queue_state(&v->tx[i].q, s);
		for (unsigned i = 0; i < VMXNET3_RX_QUEUES; i++)
			queue_state(&v->rx.q[i], s);
		irq_state(v, s);
		vmxnet3_unlock_all(v);
		state_end(s);
	}
	if (!state_writing(s))
		restored(v);
	pthread_mutex_unlock(&v->lock);
}

static void destroy(void *dev)
{
	struct vmxnet3 *v = dev;

	if (!v)
		return;
	netport_destroy(v->port);
	if (v->locks_ready) {
		timer_destroy(&v->again);
		vmxnet3_deactivate(v);
		pthread_mutex_destroy(&v->irq.lock);
		pthread_mutex_destroy(&v->rx.lock);
		for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++)
			pthread_mutex_destroy(&v->tx[i].lock);
		pthread_mutex_destroy(&v->lock);
	}
	pci_dev_remove(&v->pci);
	for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++) {
		free(v->tx[i].frame);
		free(v->tx[i].area);
	}
	free(v->rx.groups);
	free(v);
}

static int make_pci(struct vmxnet3 *v, const struct nic_config *cfg, struct error *err)
{
	static const struct pci_ident id = {.vendor = 0x15ad,
					    .device = 0x07b0,
					    .subsystem_vendor = 0x15ad,
					    .subsystem = 0x07b0,
					    .class_code = 0x020000,
					    .revision = 1,
					    .interrupt_pin = 1};
	int rc;

	pci_dev_init(&v->pci, "vmxnet3", &id);
	rc = pci_dev_set_bar(&v->pci, 0, PCI_BAR_MEM32, false, BAR_BYTES, access_pt, v);
	if (!rc)
		rc = pci_dev_set_bar(&v->pci, 1, PCI_BAR_MEM32, false, BAR_BYTES, access_vd, v);
	if (!rc)
		rc = pci_dev_set_bar(&v->pci, 2, PCI_BAR_MEM32, false, BAR_BYTES, access_msix, v);
	if (!rc)
		rc = pci_msi_add(&v->pci, 1);
	if (!rc)
		rc = pci_msix_add(&v->pci, VMXNET3_INTRS, 2, 0, MSIX_PBA_AT);
	if (!rc)
		rc = pci_dev_add(&v->pci, cfg->pci, cfg->slot, 0);
	if (rc)
		return error_set(err, rc, "vmxnet3: PCI slot %u: %s", cfg->slot, strerror(-rc));
	return 0;
}

static int make_port(struct vmxnet3 *v, const struct nic_config *cfg, struct error *err)
{
	struct netport_config port = {.name = "vmxnet3", .features = NET_CAN_VLAN};
	int rc;

	memcpy(port.mac, cfg->mac, 6);
	rc = netport_create(&v->port, &port, &port_ops, v);
	if (!rc && cfg->cable)
		rc = netport_connect(v->port, cfg->cable);
	if (rc)
		return error_set(err, rc, "vmxnet3: port: %s", strerror(-rc));
	return 0;
}

static int make_queues(struct vmxnet3 *v, struct error *err)
{
	for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++) {
		v->tx[i].frame = calloc(VMXNET3_BATCH, sizeof(*v->tx[i].frame));
		v->tx[i].area = calloc(VMXNET3_TX_AREAS, sizeof(*v->tx[i].area));
		if (!v->tx[i].frame || !v->tx[i].area)
			return error_set(err, -ENOMEM, "vmxnet3: out of memory");
	}
	return 0;
}

static int create(void **out, const struct nic_config *cfg, struct error *err)
{
	struct vmxnet3 *v = calloc(1, sizeof(*v));
	int rc;

	*out = NULL;
	if (!v)
		return error_set(err, -ENOMEM, "vmxnet3: out of memory");
	v->mem = cfg->mem;
	v->index = cfg->index;
	memcpy(v->given_mac, cfg->mac, 6);
	memcpy(v->mac, cfg->mac, 6);
	memset(v->irq.masked, 1, sizeof(v->irq.masked));
	pthread_mutex_init(&v->lock, NULL);
	for (unsigned i = 0; i < VMXNET3_TX_QUEUES; i++)
		pthread_mutex_init(&v->tx[i].lock, NULL);
	pthread_mutex_init(&v->rx.lock, NULL);
	pthread_mutex_init(&v->irq.lock, NULL);
	timer_init(&v->again, cfg->loop, on_again, v);
	v->locks_ready = true;
	rc = make_queues(v, err);
	if (!rc)
		rc = make_pci(v, cfg, err);
	if (!rc)
		rc = make_port(v, cfg, err);
	if (rc) {
		destroy(v);
		return rc;
	}
	vmxnet3_link_changed(v, netport_link(v->port));
	*out = v;
	return 0;
}

const struct nic_kind vmxnet3_kind = {
	.name = "vmxnet3",
	.vmx_name = "vmxnet3",
	.ops = {.name = "vmxnet3", .reset = reset, .state = save_or_restore, .destroy = destroy},
	.create = create,
};
