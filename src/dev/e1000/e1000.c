/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel's 82545EM gigabit card: registers and life. SDM: see e1000_internal.h.
 *
 *   BAR 0  128 KiB of memory    the registers
 *   BAR 4  I/O, 64 bytes        00h IOADDR, 04h IODATA: a window to the same (SDM 13.2), through
 *                               which drivers of this card write CTRL.RST
 *
 *      vCPU: TDT ─> e1000_tx.c ─> netport_send          netport ─> e1000_rx.c ─> ring, RDH
 *            RDT ─> netport_ready                                      │
 *            ICR, IMS ... ─> e1000_irq.c <────────── causes ───────────┘
 *
 * A write is carried out under both locks, and notes what is to be done with fewer of them (TODO_*):
 * sending and telling the port under `lock`, netport_ready under none.
 */
#include "dev/e1000/e1000.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/e1000/e1000_internal.h"

enum { BAR_MEMORY_BYTES = 0x20000, BAR_IO_BYTES = 64, IOADDR = 0, IODATA = 4 };
enum {
	STATUS_FD = 1 << 0,
	STATUS_LU = 1 << 1,
	STATUS_SPEED_1000 = 2 << 6,
	STATUS_ASDV_1000 = 2 << 8,
	STATUS_PCI66 = 1 << 11,
};
enum { CTRL_FD = 1 << 0, CTRL_SPEED_1000 = 2 << 8, CTRL_WRITABLE = 0x7bffffff & ~CTRL_RST };
enum { RDTR_FLUSH = 1 << 31, RA_VALID = 1 << 31 };
enum { ETHERNET_MAX = 1514, JUMBO_MAX = E1000_FRAME_MAX - E1000_CRC_BYTES - NET_VLAN_TAG_BYTES };

/* --- the port --- */

bool e1000_link(struct e1000 *e)
{
	return netport_link(e->port);
}

static void on_changed(void *opaque)
{
	struct e1000 *e = opaque;
	bool up = e1000_link(e);

	if (atomic_exchange(&e->link, up) != up)
		e1000_irq_raise(e, INT_LSC);
}

static void on_room(void *opaque)
{
	struct e1000 *e = opaque;

	pthread_mutex_lock(&e->lock);
	e1000_transmit(e);
	pthread_mutex_unlock(&e->lock);
}

static const struct netport_ops port_ops = {
	.receive = e1000_receive, .room = on_room, .changed = on_changed};

/* What the port's other end must know. `lock` held, rx_lock not. */
static void update_port(struct e1000 *e)
{
	const uint32_t *ra = e1000_reg(e, RA);
	bool jumbo = *e1000_reg(e, RCTL) & RCTL_LPE;
	uint8_t mac[6];

	memcpy(mac, e->mac, 6);
	if (ra[1] & (uint32_t)RA_VALID) {
		memcpy(mac, &ra[0], 4);
		memcpy(mac + 4, &ra[1], 2);
	}
	netport_set_features(e->port, NET_CAN_VLAN, jumbo ? JUMBO_MAX : ETHERNET_MAX);
	netport_set_mac(e->port, mac);
	netport_set_link(e->port, !e1000_phy_is_down(e));
	on_changed(e); /* the port tells only its other end */
}

/* --- rings --- */

uint8_t *e1000_ring(struct e1000 *e, struct dma_area *area, uint64_t gpa, uint32_t entries)
{
	size_t bytes = (size_t)entries * E1000_DESC_BYTES;

	if (area->host && area->gpa == gpa && area->bytes == bytes)
		return area->host;
	return dma_map(e->mem, area, gpa, bytes, true);
}

/* Those that the card does not use (any more). Both locks held. */
static void forget_rings(struct e1000 *e)
{
	if (!(*e1000_reg(e, RCTL) & RCTL_EN))
		dma_unmap(e->mem, &e->rx_ring);
	if (!(*e1000_reg(e, TCTL) & TCTL_EN))
		dma_unmap(e->mem, &e->tx_ring);
}

/* --- reset --- */

/* CTRL.RST (SDM 14.1): all but the PHY. Both locks held. */
static void software_reset(struct e1000 *e)
{
	memset(e->reg, 0, sizeof(e->reg));
	forget_rings(e);
	memset(&e->ctx, 0, sizeof(e->ctx));
	memset(&e->eecd, 0, sizeof(e->eecd));
	*e1000_reg(e, CTRL) = CTRL_FD | CTRL_SPEED_1000 | CTRL_SLU;
	*e1000_reg(e, RDTR) = 0;
	*e1000_reg(e, PBA) = 0x00100030; /* 48 KiB to receive, 16 to send */
	*e1000_reg(e, TIPG) = 0x00602008;
	*e1000_reg(e, LEDCTL) = 0x07068302;
	*e1000_reg(e, RXCSUM) = 0x300;
	memcpy(e1000_reg(e, RA), e->mac, 4);
	memcpy(e1000_reg(e, RA + 4), e->mac + 4, 2);
	*e1000_reg(e, RA + 4) |= (uint32_t)RA_VALID;
	e1000_irq_reset(e);
}

/* --- registers --- */

/* What a guest may write and gets back: registers that others go by, or nobody. */
static bool is_plain(unsigned reg)
{
	switch (reg) {
	case CTRL_EXT:
	case FCAL:
	case FCAH:
	case FCT:
	case VET:
	case FCTTV:
	case TXCW:
	case TIPG:
	case AIT:
	case LEDCTL:
	case PBA:
	case FCRTL:
	case FCRTH:
	case RDBAH:
	case RXDCTL:
	case RADV:
	case RSRPD:
	case TXDMAC:
	case TDBAH:
	case TIDV:
	case TXDCTL:
	case TADV:
	case TSPMT:
	case RXCSUM:
	case WUC:
	case WUFC:
	case MANC:
		return true;
	default:
		return (reg >= MTA && reg < MTA + 4 * E1000_MTA_WORDS) ||
		       (reg >= RA && reg < RA + 8 * E1000_RA_COUNT) ||
		       (reg >= VFTA && reg < VFTA + 4 * E1000_VFTA_WORDS);
	}
}

static bool is_irq(unsigned reg)
{
	return reg == ICR || reg == ITR || reg == ICS || reg == IMS || reg == IMC;
}

static unsigned write_ctrl(struct e1000 *e, uint32_t v)
{
	if (v & CTRL_RST) {
		software_reset(e);
		return TODO_PORT | TODO_READY;
	}
	if (v & CTRL_PHY_RST)
		e1000_phy_reset(e);
	*e1000_reg(e, CTRL) = v & (uint32_t)CTRL_WRITABLE;
	return v & CTRL_PHY_RST ? TODO_PORT : 0;
}

/* Both locks held. Returns TODO_*. */
static unsigned write_reg(struct e1000 *e, unsigned reg, uint32_t v, bool link)
{
	uint32_t *r = e1000_reg(e, reg);

	switch (reg) {
	case CTRL:
	case CTRL_DUP:
		return write_ctrl(e, v);
	case EECD:
		e1000_eecd_write(e, v);
		return 0;
	case EERD:
		e1000_eerd_write(e, v);
		return 0;
	case MDIC:
		e1000_mdic_write(e, v, link);
		return TODO_PORT;
	case RCTL:
		*r = v;
		forget_rings(e);
		return TODO_PORT | TODO_READY;
	case TCTL:
		*r = v;
		forget_rings(e);
		return TODO_TX;
	case RDBAL:
	case TDBAL:
		*r = v & ~(uint32_t)(E1000_DESC_BYTES - 1);
		return 0;
	case RDLEN:
	case TDLEN:
		*r = v & E1000_RING_BYTES;
		return 0;
	case RDH:
	case TDH:
		*r = v & 0xffff;
		return 0;
	case RDT:
		*r = v & 0xffff;
		return TODO_READY;
	case TDT:
		*r = v & 0xffff;
		return TODO_TX;
	case RDTR:
		*r = v & 0xffff;
		if (v & (uint32_t)RDTR_FLUSH)
			e1000_irq_flush(e);
		return 0;
	case WUS:
		*r &= ~v;
		return 0;
	case RA + 4:
		*r = v;
		return TODO_PORT;
	default:
		if (is_plain(reg))
			*r = v;
		return 0;
	}
}

/* Of 64-bit statistics the upper word's read clears both; the others' clears. */
static uint32_t read_stat(struct e1000 *e, unsigned reg)
{
	uint32_t *r = e1000_reg(e, reg), v = *r;

	switch (reg) {
	case STAT_GORCL:
	case STAT_GOTCL:
	case STAT_TORL:
	case STAT_TOTL:
		return v;
	case STAT_GORCL + 4:
	case STAT_GOTCL + 4:
	case STAT_TORL + 4:
	case STAT_TOTL + 4:
		r[-1] = 0;
	}
	*r = 0;
	return v;
}

static uint32_t read_reg(struct e1000 *e, unsigned reg, bool link)
{
	if (reg >= STATS_FIRST && reg < STATS_END)
		return read_stat(e, reg);
	switch (reg) {
	case CTRL_DUP:
		return *e1000_reg(e, CTRL);
	case STATUS:
		return STATUS_FD | STATUS_SPEED_1000 | STATUS_ASDV_1000 | STATUS_PCI66 |
		       (link && *e1000_reg(e, CTRL) & CTRL_SLU ? STATUS_LU : 0);
	case EECD:
		return e1000_eecd_read(e);
	default:
		return *e1000_reg(e, reg);
	}
}

static void reg_write(struct e1000 *e, unsigned reg, uint32_t v)
{
	bool link = reg == MDIC && e1000_link(e);
	unsigned todo;

	if (is_irq(reg)) {
		e1000_irq_write(e, reg, v);
		return;
	}
	pthread_mutex_lock(&e->lock);
	pthread_mutex_lock(&e->rx_lock);
	todo = write_reg(e, reg, v, link);
	pthread_mutex_unlock(&e->rx_lock);
	if (todo & TODO_PORT)
		update_port(e);
	if (todo & TODO_TX)
		e1000_transmit(e);
	pthread_mutex_unlock(&e->lock);
	if (todo & TODO_READY)
		netport_ready(e->port);
}

static uint32_t reg_read(struct e1000 *e, unsigned reg)
{
	bool link = reg == STATUS && e1000_link(e);
	uint32_t v;

	if (is_irq(reg))
		return e1000_irq_read(e, reg);
	pthread_mutex_lock(&e->lock);
	pthread_mutex_lock(&e->rx_lock);
	v = read_reg(e, reg, link);
	pthread_mutex_unlock(&e->rx_lock);
	pthread_mutex_unlock(&e->lock);
	return v;
}

/* Registers are dwords (SDM 13.1). */
static void access_memory(void *opaque, struct bus_access *a)
{
	if (a->size != 4 || a->offset & 3)
		return;
	if (a->offset >= E1000_REG_BYTES)
		a->value = 0;
	else if (a->write)
		reg_write(opaque, (unsigned)a->offset, (uint32_t)a->value);
	else
		a->value = reg_read(opaque, (unsigned)a->offset);
}

static void access_io(void *opaque, struct bus_access *a)
{
	struct e1000 *e = opaque;
	struct bus_access through = *a;

	if (a->size != 4 || (a->offset != IOADDR && a->offset != IODATA))
		return;
	pthread_mutex_lock(&e->lock);
	through.offset = e->io_address;
	if (a->offset == IOADDR && a->write)
		e->io_address = (uint32_t)a->value & (BAR_MEMORY_BYTES - 4);
	else if (a->offset == IOADDR)
		a->value = e->io_address;
	pthread_mutex_unlock(&e->lock);
	if (a->offset == IODATA) {
		access_memory(e, &through);
		a->value = through.value;
	}
}

void e1000_get_stats(void *dev, struct e1000_stats *out)
{
	struct e1000 *e = dev;

	pthread_mutex_lock(&e->lock);
	pthread_mutex_lock(&e->rx_lock);
	pthread_mutex_lock(&e->irq_lock);
	*out = e->stats;
	out->interrupts = e->irq.raised;
	out->throttled = e->irq.throttled;
	pthread_mutex_unlock(&e->irq_lock);
	pthread_mutex_unlock(&e->rx_lock);
	pthread_mutex_unlock(&e->lock);
}

/* --- life --- */

static void on_again(void *opaque)
{
	on_room(opaque);
}

static void reset(void *dev)
{
	struct e1000 *e = dev;

	timer_cancel(&e->again);
	pthread_mutex_lock(&e->lock);
	pthread_mutex_lock(&e->rx_lock);
	e1000_phy_reset(e);
	software_reset(e);
	e->io_address = 0;
	pthread_mutex_unlock(&e->rx_lock);
	update_port(e);
	pthread_mutex_unlock(&e->lock);
	atomic_store(&e->link, e1000_link(e));
	pci_dev_reset(&e->pci);
	netport_ready(e->port); /* what waits for buffers is lost */
}

static void context_state(struct tx_context *c, struct state_stream *s)
{
	state_u8(s, &c->ipcss);
	state_u8(s, &c->ipcso);
	state_u8(s, &c->tucss);
	state_u8(s, &c->tucso);
	state_u8(s, &c->hdrlen);
	state_u16(s, &c->ipcse);
	state_u16(s, &c->tucse);
	state_u16(s, &c->mss);
	state_bool(s, &c->tcp);
	state_bool(s, &c->ipv4);
}

static void eecd_state(struct e1000 *e, struct state_stream *s)
{
	state_u32(s, &e->eecd.pins);
	state_u32(s, &e->eecd.in);
	state_u16(s, &e->eecd.out);
	state_u8(s, &e->eecd.out_bits);
	state_u8(s, &e->eecd.out_pin);
	if (e->eecd.out_bits > 16)
		state_fail(s, "e1000: the EEPROM has more than a word to send");
}

/* Registers are checked where they are used, not when they are written: any value will do. The
 * EEPROM, with the address in it, is the machine's. */
static void save_or_restore(void *dev, struct state_stream *s)
{
	struct e1000 *e = dev;
	bool link = atomic_load(&e->link);

	pthread_mutex_lock(&e->lock);
	pthread_mutex_lock(&e->rx_lock);
	if (state_begin(s, "e1000", e->index, 1)) {
		pci_dev_state(&e->pci, s);
		for (unsigned i = 0; i < E1000_REG_BYTES / 4; i++)
			state_u32(s, &e->reg[i]);
		state_u32(s, &e->io_address);
		eecd_state(e, s);
		for (unsigned i = 0; i < E1000_PHY_REGS; i++)
			state_u16(s, &e->phy[i]);
		context_state(&e->ctx, s);
		state_bool(s, &link);
		e1000_irq_state(e, s);
		state_end(s);
	}
	forget_rings(e);
	pthread_mutex_unlock(&e->rx_lock);
	if (!state_writing(s)) {
		e->io_address &= BAR_MEMORY_BYTES - 4;
		atomic_store(&e->link, link);
		update_port(e); /* the link may have come or gone meanwhile */
		timer_arm(&e->again, clock_ns());
	}
	pthread_mutex_unlock(&e->lock);
}

static void destroy(void *dev)
{
	struct e1000 *e = dev;

	if (!e)
		return;
	netport_destroy(e->port);
	if (e->locks_ready) {
		timer_destroy(&e->again);
		timer_destroy(&e->irq.timer);
		pthread_mutex_destroy(&e->irq_lock);
		pthread_mutex_destroy(&e->rx_lock);
		pthread_mutex_destroy(&e->lock);
	}
	pci_dev_remove(&e->pci);
	dma_unmap(e->mem, &e->rx_ring);
	dma_unmap(e->mem, &e->tx_ring);
	free(e->bounce);
	free(e->tx);
	free(e->tx_area);
	free(e);
}

static int make_pci(struct e1000 *e, const struct nic_config *cfg, struct error *err)
{
	static const struct pci_ident id = {.vendor = 0x8086,
					    .device = 0x100f,
					    .subsystem_vendor = 0x15ad,
					    .subsystem = 0x0750,
					    .class_code = 0x020000,
					    .revision = 1,
					    .interrupt_pin = 1};
	int rc;

	pci_dev_init(&e->pci, "e1000", &id);
	rc = pci_dev_set_bar(&e->pci, 0, PCI_BAR_MEM64, false, BAR_MEMORY_BYTES, access_memory, e);
	if (!rc)
		rc = pci_dev_set_bar(&e->pci, 4, PCI_BAR_IO, false, BAR_IO_BYTES, access_io, e);
	if (!rc)
		rc = pci_dev_add(&e->pci, cfg->pci, cfg->slot, 0);
	if (rc)
		return error_set(err, rc, "e1000: PCI slot %u: %s", cfg->slot, strerror(-rc));
	return 0;
}

static int make_port(struct e1000 *e, const struct nic_config *cfg, struct error *err)
{
	struct netport_config port = {
		.name = "e1000", .features = NET_CAN_VLAN, .max_frame_bytes = ETHERNET_MAX};
	int rc;

	memcpy(port.mac, cfg->mac, 6);
	rc = netport_create(&e->port, &port, &port_ops, e);
	if (!rc && cfg->cable)
		rc = netport_connect(e->port, cfg->cable);
	if (rc)
		return error_set(err, rc, "e1000: port: %s", strerror(-rc));
	return 0;
}

static int create(void **out, const struct nic_config *cfg, struct error *err)
{
	struct e1000 *e = calloc(1, sizeof(*e));
	int rc;

	*out = NULL;
	if (e) {
		e->tx = calloc(E1000_TX_BATCH, sizeof(*e->tx));
		e->tx_area = calloc(E1000_TX_AREAS, sizeof(*e->tx_area));
	}
	if (!e || !e->tx || !e->tx_area) {
		if (e) {
			free(e->tx);
			free(e->tx_area);
		}
		free(e);
		return error_set(err, -ENOMEM, "e1000: out of memory");
	}
	e->mem = cfg->mem;
	e->index = cfg->index;
	memcpy(e->mac, cfg->mac, 6);
	pthread_mutex_init(&e->lock, NULL);
	pthread_mutex_init(&e->rx_lock, NULL);
	pthread_mutex_init(&e->irq_lock, NULL);
	e1000_irq_init(e, cfg->loop);
	timer_init(&e->again, cfg->loop, on_again, e);
	e->locks_ready = true;
	e1000_eeprom_init(e);
	e1000_phy_reset(e);
	rc = make_pci(e, cfg, err);
	if (!rc) {
		software_reset(e);
		rc = make_port(e, cfg, err);
	}
	if (rc) {
		destroy(e);
		return rc;
	}
	atomic_store(&e->link, e1000_link(e));
	*out = e;
	return 0;
}

const struct nic_kind e1000_kind = {
	.name = "e1000",
	.vmx_name = "e1000",
	.ops = {.name = "e1000", .reset = reset, .state = save_or_restore, .destroy = destroy},
	.create = create,
};
