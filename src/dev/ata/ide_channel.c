/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An IDE channel: the command block, the control block, and what becomes of a command.
 *
 *     ide_write_block(IDE_COMMAND) ──> ata_start, ata_run ──> map ──> ide_pio.c, ide_dma.c
 *     IRQ 14, 15 <── ide_raise_irq <── done <───┘
 */
#include <string.h>

#include "dev/ata/ide.h"

enum { NOBODY = 0x7f }; /* hosts pull DD7 down (ATA/ATAPI-7 volume 2, 4.2.2.4): not busy */

void ide_update_irq(struct ide_channel *ch)
{
	irq_set(&ch->ide->cfg.isa_irq[ch->index], ch->irq && !(ch->control & IDE_CONTROL_NIEN));
}

/* The interrupt also shows in the bus master's status (BMIDE 2.2). */
void ide_raise_irq(struct ide_channel *ch)
{
	enum { BM_INTERRUPT = 4 };

	if (!ch->irq)
		ch->interrupts++;
	ch->irq = true;
	if (!(ch->control & IDE_CONTROL_NIEN))
		ch->bm_status |= BM_INTERRUPT;
	ide_update_irq(ch);
}

static void clear_irq(struct ide_channel *ch)
{
	ch->irq = false;
	ide_update_irq(ch);
}

/* --- the outcome of a command --- */

static void store_regs(struct ide_channel *ch, unsigned drive, const struct ata_regs *r)
{
	struct ide_regs *to = &ch->regs[drive];

	to->status = r->status;
	to->error = r->error;
	to->count[0] = (uint8_t)r->count;
	to->count[1] = (uint8_t)(r->count >> 8);
	for (unsigned i = 0; i < 3; i++) {
		to->lba[i][0] = (uint8_t)(r->lba >> (8 * i));
		to->lba[i][1] = (uint8_t)(r->lba >> (24 + 8 * i));
	}
}

static void set_outcome(struct ide_channel *ch)
{
	store_regs(ch, ch->active, &ch->outcome);
	ch->device = (uint8_t)((ch->device & 0xf0) | (ch->outcome.device & 15));
}

void ide_end(struct ide_channel *ch)
{
	ch->ended = false;
	set_outcome(ch);
	/* PIO data in has told with its last block (ATA/ATAPI-7 volume 2, 11.6). */
	if (ide_is_packet(&ch->command))
		ide_raise_irq(ch);
}

static void done(struct ata_command *c)
{
	struct ide_channel *ch = c->drive->opaque;

	if (ide_is_packet(c))
		c->regs.count = ATAPI_IR_COMMAND | ATAPI_IR_TO_HOST;
	ch->outcome = c->regs;
	if (ide_is_dma(c))
		ide_dma_done(ch);
	if (ch->port == IDE_PORT_IN) {
		ch->ended = true;
		return;
	}
	ch->port = IDE_PORT_IDLE;
	set_outcome(ch);
	ide_raise_irq(ch);
}

static int map(struct ata_command *c)
{
	struct ide_channel *ch = c->drive->opaque;

	return ide_is_dma(c) ? ide_dma_map(ch, c) : ide_pio_map(ch, c);
}

static void unmap(struct ata_command *c, bool ok)
{
	struct ide_channel *ch = c->drive->opaque;

	if (ide_is_dma(c))
		ata_unmap_regions(c);
	else
		ide_pio_unmap(ch, c, ok);
}

/* --- reset --- */

static void show_signature(struct ide_channel *ch, unsigned drive)
{
	struct ata_regs r;

	ata_signature(&ch->drive[drive], &r);
	store_regs(ch, drive, &r);
}

static void show_signatures(struct ide_channel *ch)
{
	ch->device = 0;
	for (unsigned i = 0; i < IDE_DRIVES; i++)
		show_signature(ch, i);
}

static void begin_reset(struct ide_channel *ch, bool power)
{
	ata_cancel(&ch->command);
	ch->port = IDE_PORT_IDLE;
	ch->pos = ch->len = ch->block_end = 0;
	ch->ended = ch->reset_active = false;
	clear_irq(ch);
	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		if (ch->drive[i].present)
			ata_drive_reset(&ch->drive[i], power);
		ch->regs[i].status = ATA_BSY;
	}
}

static void end_reset(struct ide_channel *ch)
{
	ch->reset_pending = !ata_drive_idle(&ch->drive[0]) || !ata_drive_idle(&ch->drive[1]);
	if (!ch->reset_pending)
		show_signatures(ch);
}

static void drained(struct ata_drive *d)
{
	struct ide_channel *ch = d->opaque;

	if (ch->reset_pending)
		end_reset(ch);
	else if (ch->reset_active)
		show_signature(ch, ch->active);
	ch->reset_active = false;
}

const struct ata_host_ops ide_host_ops = {
	.map = map,
	.unmap = unmap,
	.done = done,
	.drained = drained,
};

void ide_channel_reset(struct ide_channel *ch, bool power)
{
	begin_reset(ch, power);
	memset(ch->regs, 0, sizeof(ch->regs));
	ch->control = 0;
	ch->regs[0].status = ch->regs[1].status = ATA_BSY;
	ide_dma_reset(ch);
	end_reset(ch);
}

void ide_write_control(struct ide_channel *ch, uint8_t v)
{
	uint8_t old = ch->control;

	ch->control = v & (IDE_CONTROL_HOB | IDE_CONTROL_SRST | IDE_CONTROL_NIEN);
	if (v & IDE_CONTROL_SRST && !(old & IDE_CONTROL_SRST)) {
		ch->reset_pending = false;
		begin_reset(ch, false);
	} else if (!(v & IDE_CONTROL_SRST) && old & IDE_CONTROL_SRST) {
		end_reset(ch);
	}
	ide_update_irq(ch);
}

/* --- commands --- */

static void take_regs(struct ide_channel *ch, struct ata_regs *r, uint8_t command)
{
	const struct ide_regs *from = ide_active_regs(ch);

	memset(r, 0, sizeof(*r));
	r->command = command;
	r->device = ch->device;
	r->feature = (uint16_t)(from->feature[0] | from->feature[1] << 8);
	r->count = (uint16_t)(from->count[0] | from->count[1] << 8);
	for (unsigned i = 0; i < 3; i++)
		r->lba |= (uint64_t)from->lba[i][0] << (8 * i) | (uint64_t)from->lba[i][1]
									 << (24 + 8 * i);
}

/* EXECUTE DEVICE DIAGNOSTIC is for both drives; device 0 answers (ACS 7.13). */
static void diagnose(struct ide_channel *ch)
{
	show_signatures(ch);
	ide_raise_irq(ch);
}

static void run_command(struct ide_channel *ch)
{
	ide_active_regs(ch)->status = ATA_BSY;
	ata_start(&ch->command);
	ata_run(&ch->command);
}

void ide_packet_ready(struct ide_channel *ch)
{
	run_command(ch);
}

/* DEVICE RESET ends whatever the drive is doing, without an interrupt (ACS 7.11). */
static void device_reset(struct ide_channel *ch)
{
	ata_cancel(&ch->command);
	ch->port = IDE_PORT_IDLE;
	ch->ended = false;
	clear_irq(ch);
	ata_drive_reset(ide_selected(ch), false);
	ch->active = ch->device & IDE_SELECT ? 1 : 0;
	ide_active_regs(ch)->status = ATA_BSY;
	ch->reset_active = !ata_drive_idle(ide_selected(ch));
	if (!ch->reset_active)
		show_signature(ch, ch->active);
}

static void write_command(struct ide_channel *ch, uint8_t v)
{
	struct ata_drive *d = ide_selected(ch);
	unsigned which = ch->device & IDE_SELECT ? 1 : 0;

	if (v == ATA_CMD_DIAGNOSTIC && !(ch->regs[which].status & (ATA_BSY | ATA_DRQ))) {
		clear_irq(ch);
		diagnose(ch);
		return;
	}
	if (!d->present)
		return;
	if (v == ATA_CMD_DEVICE_RESET && d->cdrom) {
		device_reset(ch);
		return;
	}
	if (ch->regs[which].status & (ATA_BSY | ATA_DRQ) || ch->command.phase != ATA_IDLE ||
	    ch->ended || !ata_drive_idle(d))
		return;
	clear_irq(ch);
	ch->active = which;
	ch->command.drive = d;
	take_regs(ch, &ch->command.regs, v);
	if (v == ATA_CMD_PACKET && d->cdrom)
		ide_begin_packet(ch);
	else
		run_command(ch);
}

/* --- registers --- */

/* With a drive missing the other one answers, with zeros (ATA/ATAPI-7 volume 2, 11.4). */
static bool nobody(struct ide_channel *ch, uint8_t *value)
{
	if (ide_selected(ch)->present)
		return false;
	*value = ch->drive[0].present || ch->drive[1].present ? 0 : NOBODY;
	return true;
}

uint8_t ide_read_status(struct ide_channel *ch)
{
	uint8_t v;

	if (nobody(ch, &v))
		return v;
	return ch->regs[ch->device & IDE_SELECT ? 1 : 0].status;
}

uint8_t ide_read_block(struct ide_channel *ch, unsigned reg)
{
	const struct ide_regs *r = &ch->regs[ch->device & IDE_SELECT ? 1 : 0];
	unsigned hob = ch->control & IDE_CONTROL_HOB ? 1 : 0;
	uint8_t v = 0;

	if (reg == IDE_COMMAND) {
		clear_irq(ch);
		return ide_read_status(ch);
	}
	if (nobody(ch, &v))
		return v;
	switch (reg) {
	case IDE_FEATURE:
		return r->error;
	case IDE_COUNT:
		return r->count[hob];
	case IDE_DEVICE:
		return ch->device | 0xa0; /* obsolete bits, which read as ones */
	default:
		return r->lba[reg - IDE_LBA_LOW][hob];
	}
}

static void push(uint8_t pair[2], uint8_t v)
{
	pair[1] = pair[0];
	pair[0] = v;
}

void ide_write_block(struct ide_channel *ch, unsigned reg, uint8_t v)
{
	ch->control &= (uint8_t)~IDE_CONTROL_HOB;
	if (ch->control & IDE_CONTROL_SRST)
		return;
	if (reg == IDE_COMMAND) {
		write_command(ch, v);
		return;
	}
	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		struct ide_regs *r = &ch->regs[i];
		if (r->status & (ATA_BSY | ATA_DRQ) && ch->drive[i].present)
			return; /* a drive at work does not listen (ACS 6.1) */
	}
	if (reg == IDE_DEVICE) {
		ch->device = v;
		return;
	}
	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		struct ide_regs *r = &ch->regs[i];
		push(reg == IDE_FEATURE ? r->feature
		     : reg == IDE_COUNT ? r->count
					: r->lba[reg - IDE_LBA_LOW],
		     v);
	}
}
