/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IDE's data port. Data passes through the channel's buffer, many DRQ blocks at a time:
 *
 *     disk ──> buffer ──> block, block, ... ──> the port, an interrupt before each block
 *     the port ──> block, block, ... ──> buffer ──> disk, an interrupt after each block
 *
 * ATA/ATAPI-7 volume 2, 11.6 to 11.9, has the protocols.
 */
#include <string.h>

#include "dev/ata/ide.h"

/* The packet's byte count limit, even but for the last block (ACS 7.25.5). */
static unsigned packet_block(const struct ide_channel *ch)
{
	unsigned limit = ch->command.regs.lba >> 8 & 0xffff;

	if (!limit || limit == 0xffff)
		limit = 0xfffe;
	if (limit & 1)
		limit = limit > 1 ? limit - 1 : 2;
	return limit;
}

/* DRQ for what comes next of the buffer. */
static void offer_block(struct ide_channel *ch, bool interrupt)
{
	struct ide_regs *r = ide_active_regs(ch);
	bool packet = ide_is_packet(&ch->command);
	unsigned block = packet ? packet_block(ch) : ch->command.block_bytes;

	if (block > ch->len - ch->pos)
		block = ch->len - ch->pos;
	ch->block_end = ch->pos + block;
	if (packet) {
		r->count[0] = ch->port == IDE_PORT_IN ? ATAPI_IR_TO_HOST : 0;
		r->lba[1][0] = (uint8_t)block;
		r->lba[2][0] = (uint8_t)(block >> 8);
	}
	r->error = 0;
	r->status = ATA_READY | ATA_DRQ;
	if (interrupt)
		ide_raise_irq(ch);
}

void ide_begin_packet(struct ide_channel *ch)
{
	struct ide_regs *r = ide_active_regs(ch);

	ch->port = IDE_PORT_PACKET;
	ch->pos = 0;
	ch->len = ch->block_end = ATA_PACKET_BYTES;
	memset(ch->command.packet, 0, sizeof(ch->command.packet));
	r->count[0] = ATAPI_IR_COMMAND;
	r->error = 0;
	r->status = ATA_READY | ATA_DRQ;
}

int ide_pio_map(struct ide_channel *ch, struct ata_command *c)
{
	uint64_t left = c->bytes - c->moved;
	unsigned n = left < IDE_BUFFER_BYTES ? (unsigned)left : IDE_BUFFER_BYTES;

	if (ch->port != IDE_PORT_IDLE && ch->pos < ch->len)
		return 0; /* the guest is at it */
	if (!c->to_host && ch->port == IDE_PORT_IDLE) {
		ch->port = IDE_PORT_OUT;
		ch->pos = 0;
		ch->len = n;
		offer_block(ch, c->moved || ide_is_packet(c));
		return 0;
	}
	c->iov[0] = (struct iovec){ch->buffer, c->to_host ? n : ch->len};
	c->iov_count = 1;
	c->iov_bytes = c->iov[0].iov_len;
	return 1;
}

void ide_pio_unmap(struct ide_channel *ch, struct ata_command *c, bool ok)
{
	ch->port = IDE_PORT_IDLE;
	ch->pos = ch->len = ch->block_end = 0;
	if (!ok || !c->to_host)
		return;
	ch->port = IDE_PORT_IN;
	ch->len = (unsigned)c->iov_bytes;
	offer_block(ch, true);
}

/* The guest has moved a whole block. */
static void block_over(struct ide_channel *ch)
{
	struct ata_command *c = &ch->command;

	if (ch->pos < ch->len) {
		offer_block(ch, true);
		return;
	}
	ide_active_regs(ch)->status = ATA_BSY;
	switch (ch->port) {
	case IDE_PORT_PACKET:
		ch->port = IDE_PORT_IDLE;
		memcpy(c->packet, ch->buffer, ATA_PACKET_BYTES);
		ide_packet_ready(ch);
		break;
	case IDE_PORT_IN:
		ch->port = IDE_PORT_IDLE;
		if (ch->ended)
			ide_end(ch);
		else
			ata_run(c);
		break;
	case IDE_PORT_OUT:
		ata_run(c);
		break;
	default:
		break;
	}
}

/* Bytes that one access moves: an odd block ends in the middle of a word. */
static unsigned step(const struct ide_channel *ch, unsigned size)
{
	unsigned left = ch->block_end - ch->pos;

	return size < left ? size : left;
}

/* DRQ is on, and it is the active drive that is selected. */
static bool port_open(struct ide_channel *ch)
{
	return ide_selected(ch) == &ch->drive[ch->active] && ch->pos < ch->block_end &&
	       ide_active_regs(ch)->status & ATA_DRQ;
}

uint32_t ide_read_data(struct ide_channel *ch, unsigned size)
{
	uint32_t v = 0;

	if (!port_open(ch) || ch->port != IDE_PORT_IN)
		return ide_selected(ch)->present ? 0 : UINT32_MAX;
	memcpy(&v, ch->buffer + ch->pos, step(ch, size));
	ch->pos += step(ch, size);
	if (ch->pos == ch->block_end)
		block_over(ch);
	return v;
}

void ide_write_data(struct ide_channel *ch, unsigned size, uint32_t v)
{
	if (!port_open(ch) || ch->port == IDE_PORT_IN || ch->port == IDE_PORT_IDLE)
		return;
	memcpy(ch->buffer + ch->pos, &v, step(ch, size));
	ch->pos += step(ch, size);
	if (ch->pos == ch->block_end)
		block_over(ch);
}
