/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_ATA_IDE_H
#define HANOK_DEV_ATA_IDE_H

#include "dev/ata/ata.h"

/*
 * An IDE function, within its own files. "PIIX4" is Intel's datasheet 290562; "BMIDE" the
 * Programming Interface for Bus Master IDE Controller 1.0 (SFF-8038i).
 *
 * ide.c          the PCI function, life, state
 * ide_channel.c  the command and control blocks, commands
 * ide_pio.c      data by the data port
 * ide_dma.c      bus-master registers, data by descriptors
 */
enum { IDE_CHANNELS = 2, IDE_DRIVES = 2, IDE_BUFFER_BYTES = 64 * 1024 };

/* Registers of a channel (ACS 6, and ATA/ATAPI-7 volume 2 for the ports). */
enum {
	IDE_DATA,
	IDE_FEATURE,
	IDE_COUNT,
	IDE_LBA_LOW,
	IDE_LBA_MID,
	IDE_LBA_HIGH,
	IDE_DEVICE,
	IDE_COMMAND,
	IDE_REGISTERS,
};
enum { IDE_CONTROL_NIEN = 2, IDE_CONTROL_SRST = 4, IDE_CONTROL_HOB = 0x80 };
enum { IDE_SELECT = 0x10 };

/* What a drive keeps: the guest's writes go to both, a command's outcome to one. [1] is the value
 * before the last write, which 48-bit commands take as the high byte. */
struct ide_regs {
	uint8_t feature[2], count[2], lba[3][2];
	uint8_t status, error;
};

/* What the data port is for. */
enum ide_port { IDE_PORT_IDLE, IDE_PORT_PACKET, IDE_PORT_IN, IDE_PORT_OUT };

struct ide_channel {
	struct ide *ide;
	unsigned index;
	struct ata_drive drive[IDE_DRIVES];
	struct ide_regs regs[IDE_DRIVES];
	uint8_t device, control;
	bool irq;	    /* the drive asks for an interrupt */
	bool reset_pending; /* until the drives are drained */
	bool reset_active;  /* the same, of the active drive alone */
	bool ended;	    /* the command's outcome is in `outcome` until its data is read */
	struct ata_regs outcome;
	struct ata_command command;
	unsigned active; /* the drive it is of */

	enum ide_port port;
	unsigned len, pos, block_end; /* of the buffer; DRQ is on while pos < block_end */
	uint8_t *buffer;

	/* Bus master (BMIDE 2) */
	uint8_t bm_command, bm_status;
	uint32_t bm_table;
	struct ata_cursor bm_at;
	uint64_t interrupts;
};

struct ide {
	pthread_mutex_t lock;
	struct storage_config cfg;
	struct pci_dev pci;
	unsigned mapped; /* legacy port ranges on the bus */
	struct ide_channel channel[IDE_CHANNELS];
};

/* All with the lock held. */

extern const struct ata_host_ops ide_host_ops;

static inline struct ata_drive *ide_selected(struct ide_channel *ch)
{
	return &ch->drive[ch->device & IDE_SELECT ? 1 : 0];
}

/* Is the drive at its command that the packet or data belongs to? */
static inline struct ide_regs *ide_active_regs(struct ide_channel *ch)
{
	return &ch->regs[ch->active];
}

uint8_t ide_read_block(struct ide_channel *ch, unsigned reg);
void ide_write_block(struct ide_channel *ch, unsigned reg, uint8_t v);
uint8_t ide_read_status(struct ide_channel *ch); /* the alternate one: no side effect */
void ide_write_control(struct ide_channel *ch, uint8_t v);
/* Both drives, as after power-on or a software reset. */
void ide_channel_reset(struct ide_channel *ch, bool power);
void ide_raise_irq(struct ide_channel *ch);
void ide_update_irq(struct ide_channel *ch);
/* The whole packet is in c->packet. */
void ide_packet_ready(struct ide_channel *ch);
/* The last of the data is read: the outcome may be seen. */
void ide_end(struct ide_channel *ch);

uint32_t ide_read_data(struct ide_channel *ch, unsigned size);
void ide_write_data(struct ide_channel *ch, unsigned size, uint32_t v);
void ide_begin_packet(struct ide_channel *ch);
int ide_pio_map(struct ide_channel *ch, struct ata_command *c);
void ide_pio_unmap(struct ide_channel *ch, struct ata_command *c, bool ok);

void ide_access_bm(void *opaque, struct bus_access *a);
int ide_dma_map(struct ide_channel *ch, struct ata_command *c);
/* The command's data is through, or it failed. */
void ide_dma_done(struct ide_channel *ch);
void ide_dma_reset(struct ide_channel *ch);

static inline bool ide_is_dma(const struct ata_command *c)
{
	return c->protocol == ATA_DMA || c->protocol == ATA_PACKET_DMA;
}

static inline bool ide_is_packet(const struct ata_command *c)
{
	return c->protocol == ATA_PACKET_PIO || c->protocol == ATA_PACKET_DMA;
}

#endif
