/* SPDX-License-Identifier: Apache-2.0 */
/* ATAPI: a CD drive's packet commands. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dev/ata/ata.h"

enum { FEATURE_DMA = 1 };
enum { CHECK = 0x01 };
enum { KEY_NOT_READY = 2, KEY_MEDIUM = 3, KEY_ILLEGAL = 5, KEY_ATTENTION = 6 };
enum { EVENT_NONE = 0, EVENT_EJECT_REQUEST = 1, EVENT_NEW_MEDIUM = 2, EVENT_REMOVED = 3 };
enum { ANSWER_MAX = ATA_DATA_BYTES };

bool atapi_has_medium(const struct ata_drive *d)
{
	return d->disk && !d->tray_open && d->sectors >= ATA_CD_BLOCK / ATA_SECTOR;
}

static uint32_t blocks(const struct ata_drive *d)
{
	uint64_t n = d->sectors / (ATA_CD_BLOCK / ATA_SECTOR);

	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* ACS 7.25.5: the error register has the sense key; REQUEST SENSE tells the rest. */
void atapi_sense(struct ata_command *c, uint8_t key, uint8_t asc, uint8_t ascq)
{
	struct ata_drive *d = c->drive;

	d->sense_key = key;
	d->asc = asc;
	d->ascq = ascq;
	d->stats.errors++;
	c->regs.status = ATA_READY | CHECK;
	c->regs.error = (uint8_t)(key << 4 | ATA_E_ABRT);
	c->phase = ATA_DONE;
}

static void good(struct ata_command *c)
{
	ata_succeed(c);
	c->drive->sense_key = c->drive->asc = c->drive->ascq = 0;
}

static void invalid_field(struct ata_command *c)
{
	atapi_sense(c, KEY_ILLEGAL, 0x24, 0);
}

void atapi_answer(struct ata_command *c, uint64_t len, uint64_t wanted)
{
	good(c);
	ata_data_in(c, len < wanted ? len : wanted);
}

void atapi_failed(struct ata_command *c, int rc)
{
	(void)rc;
	atapi_sense(c, KEY_MEDIUM, 0x11, 0); /* unrecovered read error */
}

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be24(const uint8_t *p)
{
	return (uint32_t)p[0] << 16 | be16(p + 1);
}

static uint32_t be32(const uint8_t *p)
{
	return be16(p) << 16 | be16(p + 2);
}

/* --- commands --- */

static void test_unit_ready(struct ata_command *c)
{
	good(c);
}

/* SPC 6.27: fixed format. Telling clears it. */
static void request_sense(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	uint8_t *p = d->data;

	memset(p, 0, 18);
	p[0] = 0x70;
	p[2] = d->sense_key;
	p[7] = 10;
	p[12] = d->asc;
	p[13] = d->ascq;
	atapi_answer(c, 18, c->packet[4]);
}

/* SPC 6.4 */
static void inquiry(struct ata_command *c)
{
	uint8_t *p = c->drive->data;
	char text[29];

	if (c->packet[1] & 1) { /* vital product data: ATAPI drives have none */
		invalid_field(c);
		return;
	}
	memset(p, 0, 36);
	p[0] = 5;    /* CD/DVD */
	p[1] = 0x80; /* removable */
	p[2] = 0;    /* ATAPI drives claim no version (MMC 6.6) */
	p[3] = 0x21; /* ATAPI, response format 1 */
	p[4] = 31;
	snprintf(text, sizeof(text), "%-8s%-16s%-4.4s", "HANOK", "CD-ROM", HANOK_VERSION);
	memcpy(p + 8, text, 28);
	atapi_answer(c, 36, be16(c->packet + 3));
}

static void read_capacity(struct ata_command *c)
{
	uint8_t *p = c->drive->data;

	ata_put_be32(p, blocks(c->drive) - 1);
	ata_put_be32(p + 4, ATA_CD_BLOCK);
	atapi_answer(c, 8, 8);
}

static void read_blocks(struct ata_command *c, uint32_t lba, uint32_t count)
{
	if (lba >= blocks(c->drive) || count > blocks(c->drive) - lba) {
		atapi_sense(c, KEY_ILLEGAL, 0x21, 0); /* out of range */
		return;
	}
	good(c);
	ata_media(c, true, (uint64_t)lba * ATA_CD_BLOCK, (uint64_t)count * ATA_CD_BLOCK);
}

static void read_10(struct ata_command *c)
{
	read_blocks(c, be32(c->packet + 2), be16(c->packet + 7));
}

static void read_12(struct ata_command *c)
{
	read_blocks(c, be32(c->packet + 2), be32(c->packet + 6));
}

/* READ CD (MMC 6.21): the user data of data sectors, nothing around it. */
static void read_cd(struct ata_command *c)
{
	const uint8_t *p = c->packet;
	uint32_t lba = be32(p + 2), count = be24(p + 6);

	if (!(p[9] & 0xf8) || !count)
		good(c);
	else if (p[9] != 0x10 || p[10] & 7 || (p[1] >> 2 & 7) == 1)
		invalid_field(c);
	else
		read_blocks(c, lba, count);
}

static void seek(struct ata_command *c)
{
	if (be32(c->packet + 2) >= blocks(c->drive))
		atapi_sense(c, KEY_ILLEGAL, 0x21, 0);
	else
		good(c);
}

/* MMC 6.42: bit 1 LoEj, bit 0 Start. */
static void start_stop(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	unsigned what = c->packet[4] & 3;

	if (what == 2 && d->locked) {
		atapi_sense(c, KEY_ILLEGAL, 0x53, 2); /* removal prevented */
		return;
	}
	if (what == 2 && !d->tray_open) {
		d->media_event = d->disk ? EVENT_REMOVED : EVENT_NONE;
		d->tray_open = true;
	} else if (what == 3 && d->tray_open) {
		d->tray_open = false;
		d->media_event = d->disk ? EVENT_NEW_MEDIUM : EVENT_NONE;
		d->attention_media = d->disk != NULL;
	}
	good(c);
}

static void prevent_removal(struct ata_command *c)
{
	c->drive->locked = c->packet[4] & 1;
	good(c);
}

/* MMC 6.7: polled, and of the classes only media (4). */
static void get_event(struct ata_command *c)
{
	enum { CLASS_MEDIA = 4 };
	struct ata_drive *d = c->drive;
	uint8_t *p = d->data;
	unsigned len = 4;

	if (!(c->packet[1] & 1)) { /* asynchronous */
		invalid_field(c);
		return;
	}
	memset(p, 0, 8);
	p[3] = 1 << CLASS_MEDIA;
	if (c->packet[4] & 1 << CLASS_MEDIA) {
		p[2] = CLASS_MEDIA;
		p[4] = d->media_event;
		p[5] = (uint8_t)((d->tray_open ? 1 : 0) | (atapi_has_medium(d) ? 2 : 0));
		d->media_event = EVENT_NONE;
		len = 8;
	} else {
		p[2] = 0x80; /* none of the classes that were asked for */
	}
	ata_put_be16(p, len - 2);
	atapi_answer(c, len, be16(c->packet + 7));
}

/* MMC 6.10: one slot, no changer. */
static void mechanism_status(struct ata_command *c)
{
	uint8_t *p = c->drive->data;

	memset(p, 0, 8);
	p[1] = c->drive->tray_open ? 0x10 : 0;
	atapi_answer(c, 8, be16(c->packet + 8));
}

/* MMC 6.22: one session, complete; a finalised disc. */
static void read_disc_information(struct ata_command *c)
{
	uint8_t *p = c->drive->data;

	if (c->packet[1] & 7) {
		invalid_field(c);
		return;
	}
	memset(p, 0, 34);
	ata_put_be16(p, 32);
	p[2] = 0x0e;
	p[3] = p[4] = p[5] = p[6] = 1; /* first track, sessions, first and last track of the last */
	p[7] = 0x20;		       /* unrestricted use */
	memset(p + 16, 0xff, 8);       /* no lead-in or lead-out to write to */
	atapi_answer(c, 34, be16(c->packet + 7));
}

/* MMC 6.27, by LBA, track or session: one track. */
static void read_track_information(struct ata_command *c)
{
	uint8_t *p = c->drive->data;
	uint32_t where = be32(c->packet + 2);
	unsigned by = c->packet[1] & 3;

	if (by == 3 || (by == 0 && where >= blocks(c->drive)) || (by && where != 1)) {
		invalid_field(c);
		return;
	}
	memset(p, 0, 36);
	ata_put_be16(p, 34);
	p[2] = p[3] = 1;
	p[5] = 4; /* data */
	p[6] = 1; /* mode 1 */
	ata_put_be32(p + 24, blocks(c->drive));
	atapi_answer(c, 36, be16(c->packet + 7));
}

/* --- dispatch --- */

enum { NEEDS_MEDIUM = 1, BEFORE_ATTENTION = 2 };

/* MMC 6 and SPC 6; those that are not here are told INVALID COMMAND OPERATION CODE. */
static const struct {
	void (*start)(struct ata_command *c);
	unsigned flags;
} packets[256] = {
	[0x00] = {test_unit_ready, NEEDS_MEDIUM},
	[0x03] = {request_sense, BEFORE_ATTENTION},
	[0x12] = {inquiry, BEFORE_ATTENTION},
	[0x1b] = {start_stop, 0},
	[0x1e] = {prevent_removal, 0},
	[0x25] = {read_capacity, NEEDS_MEDIUM},
	[0x28] = {read_10, NEEDS_MEDIUM},
	[0x2b] = {seek, NEEDS_MEDIUM},
	[0x35] = {test_unit_ready, NEEDS_MEDIUM}, /* SYNCHRONIZE CACHE: nothing was written */
	[0x43] = {atapi_read_toc, NEEDS_MEDIUM},
	[0x46] = {atapi_get_configuration, BEFORE_ATTENTION},
	[0x4a] = {get_event, BEFORE_ATTENTION},
	[0x51] = {read_disc_information, NEEDS_MEDIUM},
	[0x52] = {read_track_information, NEEDS_MEDIUM},
	[0x5a] = {atapi_mode_sense, 0},
	[0xa8] = {read_12, NEEDS_MEDIUM},
	[0xbb] = {good, 0}, /* SET CD SPEED: a hint */
	[0xbd] = {mechanism_status, 0},
	[0xbe] = {read_cd, NEEDS_MEDIUM},
};

/* SPC 5.9.4: each attention is told once, and the command is not carried out. */
static bool tell_attention(struct ata_command *c)
{
	struct ata_drive *d = c->drive;

	if (d->attention_reset) {
		d->attention_reset = false;
		atapi_sense(c, KEY_ATTENTION, 0x29, 0);
		return true;
	}
	if (d->attention_media) {
		d->attention_media = false;
		atapi_sense(c, KEY_ATTENTION, 0x28, 0);
		return true;
	}
	return false;
}

void atapi_start(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	unsigned code = c->packet[0], flags = packets[code].flags;

	d->stats.packets++;
	c->protocol = c->regs.feature & FEATURE_DMA ? ATA_PACKET_DMA : ATA_PACKET_PIO;
	if (!(flags & BEFORE_ATTENTION) && tell_attention(c))
		return;
	if (!packets[code].start)
		atapi_sense(c, KEY_ILLEGAL, 0x20, 0);
	else if (flags & NEEDS_MEDIUM && !atapi_has_medium(d))
		atapi_sense(c, KEY_NOT_READY, 0x3a, d->tray_open ? 2 : 1);
	else
		packets[code].start(c);
}
