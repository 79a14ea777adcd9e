/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IDE: the PCI function of a PIIX4 (PIIX4 2.3), in compatibility mode, where the channels are at the
 * ports and interrupts that PCs have had them at since 1984. It decodes its ports from the start:
 * a kernel that is booted without firmware finds nobody to turn them on.
 */
#include "dev/ata/ide.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/ata/kinds.h"
#include "dev/regs.h"

enum { BMIBA = 4, BM_BYTES = 16 };
/* PIIX4 2.3.14: IDETIM, a word a channel; bit 15 decodes its ports. */
enum { PCI_IDETIM = 0x40, IDETIM_DECODE = 0x80, PCI_SIDETIM = 0x44, PCI_UDMACTL = 0x48 };
enum { PCI_UDMATIM = 0x4a };

static const uint16_t block_ports[IDE_CHANNELS] = {0x1f0, 0x170};
static const uint16_t control_ports[IDE_CHANNELS] = {0x3f6, 0x376};
enum { BLOCK_PORTS = 8, RANGES = 2 * IDE_CHANNELS };

/* --- ports --- */

/* Any thread. The board lets the legacy ports be found before a driver has turned I/O on. */
static bool decodes(const struct ide_channel *ch)
{
	const uint8_t *config = ch->ide->pci.config;

	return __atomic_load_n(&config[PCI_IDETIM + 1 + 2 * ch->index], __ATOMIC_RELAXED) &
	       IDETIM_DECODE;
}

static void access_data(struct ide_channel *ch, struct bus_access *a)
{
	if (a->write)
		ide_write_data(ch, a->size, (uint32_t)a->value);
	else
		a->value = ide_read_data(ch, a->size);
}

static uint8_t read_block(void *dev, unsigned reg)
{
	return reg == IDE_DATA ? (uint8_t)ide_read_data(dev, 1) : ide_read_block(dev, reg);
}

static void write_block(void *dev, unsigned reg, uint8_t v)
{
	if (reg == IDE_DATA)
		ide_write_data(dev, 1, v);
	else
		ide_write_block(dev, reg, v);
}

static void access_block(void *opaque, struct bus_access *a)
{
	struct ide_channel *ch = opaque;

	if (!decodes(ch))
		return;
	pthread_mutex_lock(&ch->ide->lock);
	if (a->offset == IDE_DATA)
		access_data(ch, a); /* as wide as it is */
	else
		regs_by_byte(ch, a, read_block, write_block);
	pthread_mutex_unlock(&ch->ide->lock);
}

static void access_control(void *opaque, struct bus_access *a)
{
	struct ide_channel *ch = opaque;

	if (!decodes(ch))
		return;
	pthread_mutex_lock(&ch->ide->lock);
	if (a->write)
		ide_write_control(ch, (uint8_t)a->value);
	else
		a->value = ide_read_status(ch);
	pthread_mutex_unlock(&ch->ide->lock);
}

static struct bus_range range_of(struct ide *ide, unsigned i)
{
	struct ide_channel *ch = &ide->channel[i / 2];

	if (i % 2)
		return (struct bus_range){BUS_PIO, control_ports[i / 2], 1, access_control,
					  ch,	   "ide control"};
	return (struct bus_range){BUS_PIO, block_ports[i / 2], BLOCK_PORTS, access_block, ch,
				  "ide"};
}

/* --- life --- */

static void settle(struct ide *ide)
{
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		for (unsigned k = 0; k < IDE_DRIVES; k++)
			ata_settle(&ide->channel[i].drive[k], &ide->channel[i].command, 1);
}

static void abort_all(struct ide *ide)
{
	pthread_mutex_lock(&ide->lock);
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		ata_cancel(&ide->channel[i].command);
	pthread_mutex_unlock(&ide->lock);
	settle(ide);
}

static void reset_channels(struct ide *ide)
{
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		ide_channel_reset(&ide->channel[i], true);
}

static void ide_reset(void *dev)
{
	struct ide *ide = dev;

	abort_all(ide);
	pthread_mutex_lock(&ide->lock);
	pci_dev_reset(&ide->pci);
	reset_channels(ide);
	pthread_mutex_unlock(&ide->lock);
}

static void ide_destroy(void *dev)
{
	struct ide *ide = dev;

	if (!ide)
		return;
	abort_all(ide);
	pci_dev_remove(&ide->pci);
	while (ide->mapped) {
		struct bus_range r = range_of(ide, --ide->mapped);
		bus_unmap(ide->cfg.bus, r.space, r.base, r.opaque);
	}
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		free(ide->channel[i].buffer);
	pthread_mutex_destroy(&ide->lock);
	free(ide);
}

static void regs_state(struct ide_regs *r, struct state_stream *s)
{
	state_raw(s, r->feature, sizeof(r->feature));
	state_raw(s, r->count, sizeof(r->count));
	state_raw(s, r->lba, sizeof(r->lba));
	state_u8(s, &r->status);
	state_u8(s, &r->error);
}

/* The buffer and what it is for. */
static void port_state(struct ide_channel *ch, struct state_stream *s)
{
	uint8_t port = (uint8_t)ch->port;

	state_u8(s, &port);
	state_u32(s, &ch->len);
	state_u32(s, &ch->pos);
	state_u32(s, &ch->block_end);
	if (port > IDE_PORT_OUT || ch->len > IDE_BUFFER_BYTES || ch->pos > ch->block_end ||
	    ch->block_end > ch->len) {
		state_fail(s, "a data port that is out of its buffer");
		port = IDE_PORT_IDLE;
		ch->len = ch->pos = ch->block_end = 0;
	}
	ch->port = port;
	state_raw(s, ch->buffer, ch->len);
}

static bool channel_valid(const struct ide_channel *ch)
{
	const struct ata_command *c = &ch->command;

	if (ch->active >= IDE_DRIVES)
		return false;
	if (ch->port == IDE_PORT_PACKET)
		return ch->len == ATA_PACKET_BYTES && c->phase == ATA_IDLE && c->drive->cdrom;
	if (ch->port != IDE_PORT_OUT)
		return true;
	/* What is written has to be what the command still wants. */
	return c->phase == ATA_MOVE && !c->to_host && !ide_is_dma(c) && ch->len &&
	       ch->len <= c->bytes - c->moved && !(ch->len % ATA_SECTOR);
}

static void channel_state(struct ide_channel *ch, struct state_stream *s)
{
	uint8_t active = (uint8_t)ch->active;

	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		ata_drive_state(&ch->drive[i], s);
		regs_state(&ch->regs[i], s);
	}
	state_u8(s, &ch->device);
	state_u8(s, &ch->control);
	state_bool(s, &ch->irq);
	state_bool(s, &ch->ended);
	ata_regs_state(&ch->outcome, s);
	state_u8(s, &active);
	ch->active = active & 1;
	ch->command.drive = &ch->drive[ch->active];
	ata_command_state(&ch->command, s);
	port_state(ch, s);
	state_u8(s, &ch->bm_command);
	state_u8(s, &ch->bm_status);
	state_u32(s, &ch->bm_table);
	state_u32(s, &ch->bm_at.index);
	state_u32(s, &ch->bm_at.used);
	if (!channel_valid(ch)) {
		state_fail(s, "a channel that cannot be");
		ata_cancel(&ch->command);
		ch->port = IDE_PORT_IDLE;
	}
}

static void ide_state(void *dev, struct state_stream *s)
{
	struct ide *ide = dev;

	if (state_writing(s))
		settle(ide);
	else
		abort_all(ide);
	pthread_mutex_lock(&ide->lock);
	state_begin(s, "ide", ide->cfg.slot, 1);
	for (unsigned i = 0; i < IDE_CHANNELS; i++)
		channel_state(&ide->channel[i], s);
	pci_dev_state(&ide->pci, s);
	state_end(s);
	if (!state_writing(s) && state_stream_error(s, NULL))
		reset_channels(ide); /* half of it would be worse */
	for (unsigned i = 0; !state_writing(s) && i < IDE_CHANNELS; i++)
		ide_update_irq(&ide->channel[i]);
	pthread_mutex_unlock(&ide->lock);
}

static int init_pci(struct ide *ide)
{
	static const struct pci_ident id = {.vendor = 0x8086,
					    .device = 0x7111,
					    .subsystem_vendor = 0x1af4,
					    .subsystem = 0x1100,
					    .class_code = 0x010180,
					    .revision = 1};

	pci_dev_init(&ide->pci, "ide", &id);
	pci_dev_set(&ide->pci, PCI_IDETIM, 4, 0x80008000, 0xf3fff3ff);
	pci_dev_set(&ide->pci, PCI_SIDETIM, 1, 0, 0xff);
	pci_dev_set(&ide->pci, PCI_UDMACTL, 1, 0, 0x0f);
	pci_dev_set(&ide->pci, PCI_UDMATIM, 2, 0, 0x3333);
	return pci_dev_set_bar(&ide->pci, BMIBA, PCI_BAR_IO, false, BM_BYTES, ide_access_bm, ide);
}

static int init_channels(struct ide *ide, const struct storage_config *cfg, struct error *err)
{
	for (unsigned i = 0; i < IDE_CHANNELS; i++) {
		struct ide_channel *ch = &ide->channel[i];
		ch->ide = ide;
		ch->index = i;
		ch->buffer = calloc(1, IDE_BUFFER_BYTES);
		if (!ch->buffer)
			return error_set(err, -ENOMEM, "ide: out of memory");
		for (unsigned k = 0; k < IDE_DRIVES; k++)
			ata_drive_init(&ch->drive[k], false, &ide_host_ops, &ide->lock, ch);
		ch->command.drive = &ch->drive[0];
	}
	for (unsigned i = 0; i < cfg->unit_count; i++) {
		const struct storage_unit *u = &cfg->units[i];
		struct ide_channel *ch = &ide->channel[u->target / IDE_DRIVES % IDE_CHANNELS];
		struct ata_drive *d = &ch->drive[u->target % IDE_DRIVES];
		if (u->target >= IDE_CHANNELS * IDE_DRIVES || d->present)
			return error_set(err, -EINVAL,
					 "ide: drive %u cannot be; drives are 0 to %d, each once",
					 u->target, IDE_CHANNELS * IDE_DRIVES - 1);
		int rc = ata_drive_attach(d, u, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int plug_in(struct ide *ide, struct error *err)
{
	int rc = init_pci(ide);

	if (!rc)
		rc = pci_dev_add(&ide->pci, ide->cfg.pci, ide->cfg.slot, 0);
	for (; !rc && ide->mapped < RANGES; ide->mapped++) {
		struct bus_range r = range_of(ide, ide->mapped);
		rc = bus_map(ide->cfg.bus, &r);
		if (rc)
			break;
	}
	if (rc)
		error_set(err, rc, "ide: PCI slot %u or its ports cannot be had: %s", ide->cfg.slot,
			  strerror(-rc));
	return rc;
}

static int ide_create(void **out, const struct storage_config *cfg, struct error *err)
{
	struct ide *ide = calloc(1, sizeof(*ide));
	int rc;

	*out = NULL;
	if (!ide)
		return error_set(err, -ENOMEM, "ide: out of memory");
	pthread_mutex_init(&ide->lock, NULL);
	ide->cfg = *cfg;
	rc = init_channels(ide, cfg, err);
	if (!rc)
		rc = plug_in(ide, err);
	if (rc) {
		ide_destroy(ide);
		return rc;
	}
	ide->cfg.units = NULL; /* the caller's, and only for now */
	reset_channels(ide);
	*out = ide;
	return 0;
}

void ide_get_stats(void *dev, unsigned target, struct ata_stats *out)
{
	struct ide *ide = dev;

	memset(out, 0, sizeof(*out));
	if (target >= IDE_CHANNELS * IDE_DRIVES)
		return;
	pthread_mutex_lock(&ide->lock);
	*out = ide->channel[target / IDE_DRIVES].drive[target % IDE_DRIVES].stats;
	pthread_mutex_unlock(&ide->lock);
}

const struct storage_kind ide_kind = {
	.name = "ide",
	.vmx_name = "ide",
	.units = IDE_CHANNELS * IDE_DRIVES,
	.cdrom = true,
	.ops = {.name = "ide", .reset = ide_reset, .state = ide_state, .destroy = ide_destroy},
	.create = ide_create,
};
