/* SPDX-License-Identifier: Apache-2.0 */
/* Bus-master IDE: eight registers a channel, and tables of physical region descriptors. */
#include <errno.h>

#include "dev/ata/ide.h"
#include "dev/regs.h"

enum { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4, BM_REGISTERS = 8 };
enum { COMMAND_START = 1, COMMAND_TO_MEMORY = 8 };
enum { STATUS_ACTIVE = 1, STATUS_ERROR = 2, STATUS_INTERRUPT = 4, STATUS_CAPABLE = 0x60 };
enum { REGIONS_MAX = 64 * 1024 / 8 }; /* a table is within 64 KiB (BMIDE 1.2) */
#define REGION_LAST (1u << 31)

struct table {
	struct ide_channel *ch;
	unsigned ended_at; /* the region after the last */
};

static int fetch_region(void *opaque, unsigned index, struct ata_region *r)
{
	struct table *t = opaque;
	struct ide *ide = t->ch->ide;
	uint32_t entry[2];

	if (index >= REGIONS_MAX || index >= t->ended_at)
		return 0;
	if (!pci_dev_is_master(&ide->pci) ||
	    mem_read(ide->cfg.mem, t->ch->bm_table + (uint64_t)index * sizeof(entry), entry,
		     sizeof(entry)))
		return -EFAULT;
	if (entry[1] & REGION_LAST)
		t->ended_at = index + 1;
	r->gpa = entry[0] & ~1u;
	r->len = entry[1] & 0xfffe;
	if (!r->len)
		r->len = 64 * 1024;
	return 1;
}

/* Has the table a region that is not used up? */
static bool table_left(struct ide_channel *ch)
{
	struct table t = {ch, REGIONS_MAX};
	struct ata_region r;
	int rc = fetch_region(&t, ch->bm_at.index, &r);

	if (rc > 0 && ch->bm_at.used >= r.len)
		rc = fetch_region(&t, ch->bm_at.index + 1, &r);
	return rc > 0;
}

int ide_dma_map(struct ide_channel *ch, struct ata_command *c)
{
	struct table t = {ch, REGIONS_MAX};
	int rc;

	ide_active_regs(ch)->status = ATA_DRDY | ATA_DRQ;
	if (!(ch->bm_status & STATUS_ACTIVE))
		return 0;
	ide_active_regs(ch)->status = ATA_BSY;
	if (!!(ch->bm_command & COMMAND_TO_MEMORY) != c->to_host)
		rc = -EFAULT;
	else
		rc = ata_map_regions(c, ch->ide->cfg.mem, &ch->bm_at, fetch_region, &t);
	if (rc > 0)
		return rc;
	ch->bm_status &= (uint8_t)~STATUS_ACTIVE;
	if (rc == -EFAULT) {
		ch->bm_status |= STATUS_ERROR;
		return rc;
	}
	/* The table is too short: the drive waits for another one (BMIDE 3.1). */
	ide_active_regs(ch)->status = ATA_DRDY | ATA_DRQ;
	return 0;
}

void ide_dma_done(struct ide_channel *ch)
{
	if (ch->bm_status & STATUS_ACTIVE && !table_left(ch))
		ch->bm_status &= (uint8_t)~STATUS_ACTIVE;
}

void ide_dma_reset(struct ide_channel *ch)
{
	ch->bm_command = ch->bm_status = 0;
	ch->bm_table = 0;
	ch->bm_at = (struct ata_cursor){0, 0};
}

/* --- registers --- */

static void start(struct ide_channel *ch)
{
	ch->bm_at = (struct ata_cursor){0, 0};
	ch->bm_status |= STATUS_ACTIVE;
	if (ide_is_dma(&ch->command) && ch->command.phase == ATA_MOVE)
		ata_run(&ch->command);
}

/* A drive whose transfer was stopped in the middle stays busy until it is reset. */
static void stop(struct ide_channel *ch)
{
	ch->bm_status &= (uint8_t)~STATUS_ACTIVE;
	if (ide_is_dma(&ch->command) && ch->command.in_flight)
		ata_cancel(&ch->command);
}

static void write_command(struct ide_channel *ch, uint8_t v)
{
	uint8_t old = ch->bm_command;

	/* The direction stands while it runs (BMIDE 2.1). */
	if (old & v & COMMAND_START)
		return;
	ch->bm_command = v & (COMMAND_START | COMMAND_TO_MEMORY);
	if (v & COMMAND_START)
		start(ch);
	else if (old & COMMAND_START)
		stop(ch);
}

/* Memory may be written until the disk has let go of a command that was stopped. */
static uint8_t read_status(struct ide_channel *ch)
{
	bool busy = !ata_drive_idle(&ch->drive[0]) || !ata_drive_idle(&ch->drive[1]);

	return ch->bm_status | (busy ? STATUS_ACTIVE : 0);
}

static uint8_t read_reg(void *dev, unsigned reg)
{
	struct ide *ide = dev;
	struct ide_channel *ch = &ide->channel[reg / BM_REGISTERS];
	unsigned at = reg % BM_REGISTERS;

	if (at >= BM_TABLE)
		return (uint8_t)(ch->bm_table >> (8 * (at - BM_TABLE)));
	return at == BM_COMMAND ? ch->bm_command : at == BM_STATUS ? read_status(ch) : 0;
}

static void write_reg(void *dev, unsigned reg, uint8_t v)
{
	struct ide *ide = dev;
	struct ide_channel *ch = &ide->channel[reg / BM_REGISTERS];
	unsigned at = reg % BM_REGISTERS;

	if (at == BM_COMMAND) {
		write_command(ch, v);
	} else if (at == BM_STATUS) {
		ch->bm_status &= (uint8_t) ~(v & (STATUS_ERROR | STATUS_INTERRUPT));
		ch->bm_status = (ch->bm_status & ~STATUS_CAPABLE) | (v & STATUS_CAPABLE);
	} else if (at >= BM_TABLE) {
		unsigned shift = 8 * (at - BM_TABLE);
		ch->bm_table = (ch->bm_table & ~(0xffu << shift)) | (uint32_t)v << shift;
		ch->bm_table &= ~3u;
	}
}

void ide_access_bm(void *opaque, struct bus_access *a)
{
	struct ide *ide = opaque;

	pthread_mutex_lock(&ide->lock);
	regs_by_byte(ide, a, read_reg, write_reg);
	pthread_mutex_unlock(&ide->lock);
}
