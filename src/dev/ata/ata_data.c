/* SPDX-License-Identifier: Apache-2.0 */
/* What a drive says of itself: IDENTIFY (PACKET) DEVICE, SMART, logs. */
#include <stdio.h>
#include <string.h>

#include "dev/ata/ata.h"

enum { LBA28_MAX = 0xfffffff, CHS_CYLINDERS_MAX = 16383 };
enum { MODE_UDMA = 8, MODE_MWDMA = 4 };

/* ACS 3.2.9: text is padded with blanks, and the bytes of each word change places. */
static void put_text(uint8_t *words, unsigned from, unsigned to, const char *text)
{
	unsigned len = (unsigned)strlen(text), bytes = (to - from + 1) * 2;

	for (unsigned i = 0; i < bytes; i++)
		words[(from * 2 + i) ^ 1] = i < len ? (uint8_t)text[i] : ' ';
}

static void put_words(uint8_t *data, unsigned word, uint64_t value, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		ata_put16(data + (word + i) * 2, (uint16_t)(value >> (16 * i)));
}

static void put_word(uint8_t *data, unsigned word, unsigned value)
{
	put_words(data, word, value, 1);
}

/* Transfer modes (words 49, 53, 62-68, 88): the same for disks and CD drives. */
static void put_modes(uint8_t *w, const struct ata_drive *d)
{
	unsigned type = d->transfer_mode >> 3, n = d->transfer_mode & 7;

	put_word(w, 49, d->cdrom ? 0x0f00 : 0x2f00); /* DMA, LBA, IORDY */
	put_word(w, 53, 6);
	put_word(w, 63, 7 | (type == MODE_MWDMA ? 0x100u << n : 0));
	put_word(w, 64, 3);
	for (unsigned i = 65; i <= 68; i++)
		put_word(w, i, 120); /* ns, the shortest cycle of these modes */
	put_word(w, 88, (d->sata ? 0x7f : 0x3f) | (type == MODE_UDMA ? 0x100u << n : 0));
	if (d->sata) {
		put_word(w, 76, 0x000e | (d->cdrom ? 0 : 0x0100)); /* 1.5, 3, 6 Gbit/s; NCQ */
		put_word(w, 222, 0x107f);			   /* SATA 3.1 and earlier */
	} else {
		put_word(w, 93, 0x600b); /* an 80-conductor cable, device 0's jumper */
	}
}

/* ACS 7.16.7.2; the geometry is what ATA-5 Annex C makes of a size. */
static void put_geometry(uint8_t *w, const struct ata_drive *d)
{
	uint64_t cylinders = d->sectors / (16 * 63), current, lba28 = d->sectors;

	if (cylinders > CHS_CYLINDERS_MAX)
		cylinders = CHS_CYLINDERS_MAX;
	put_word(w, 1, (unsigned)cylinders);
	put_word(w, 3, 16);
	put_word(w, 6, 63);
	current = d->sectors / ((unsigned)d->heads * d->track_sectors);
	if (current > UINT16_MAX)
		current = UINT16_MAX;
	put_word(w, 53, 7);
	put_word(w, 54, (unsigned)current);
	put_word(w, 55, d->heads);
	put_word(w, 56, d->track_sectors);
	put_words(w, 57, current * d->heads * d->track_sectors, 2);
	if (lba28 > LBA28_MAX)
		lba28 = LBA28_MAX;
	put_words(w, 60, lba28, 2);
	put_words(w, 100, d->sectors, 4);
}

/* A name of its own (NAA 5, no company's), made of the serial by FNV-1a. */
static uint64_t world_wide_name(const struct ata_drive *d)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (const char *p = d->serial; *p; p++)
		h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	return UINT64_C(5) << 60 | h >> 4;
}

/* Command sets (words 82-87): SMART, power management, write cache, look-ahead, LBA48, FLUSH CACHE
 * (EXT), SMART's logs, general purpose logging, FUA, a world wide name. */
static void put_features(uint8_t *w, const struct ata_drive *d)
{
	uint64_t wwn = world_wide_name(d);
	unsigned set = 0x0069;

	put_word(w, 82, set);
	put_word(w, 83, 0x7400);
	put_word(w, 84, 0x4163);
	put_word(w, 85,
		 (set & ~0x61u) | (d->smart ? 1 : 0) | (d->write_cache ? 0x20 : 0) |
			 (d->look_ahead ? 0x40 : 0));
	put_word(w, 86, 0x3400);
	put_word(w, 87, 0x4163);
	for (unsigned i = 0; i < 4; i++)
		put_word(w, 108 + i, (uint16_t)(wwn >> (48 - 16 * i)));
}

static void fill_disk(uint8_t *w, const struct ata_drive *d)
{
	put_word(w, 0, 0x0040);
	put_text(w, 27, 46, "HANOK HARDDISK");
	put_word(w, 47, 0x8000 | ATA_MULTIPLE_MAX);
	put_word(w, 50, 0x4000);
	put_modes(w, d);
	put_geometry(w, d);
	put_word(w, 59, d->multiple ? 0x100u | d->multiple : 0);
	if (d->sata)
		put_word(w, 75, ATA_QUEUE_DEPTH - 1);
	put_word(w, 80, 0x07f0); /* ATA/ATAPI-4 to ACS-3 */
	put_features(w, d);
	put_word(w, 106, 0x4000);
	if (!d->read_only) {
		put_word(w, 105, ATA_TRIM_BLOCKS);
		put_word(w, 169, 1);
	}
	put_word(w, 217, 1); /* not rotating */
}

static void fill_cdrom(uint8_t *w, const struct ata_drive *d)
{
	put_word(w, 0, 0x85c0); /* ATAPI, CD, removable, DRQ within 50 us, packets of 12 bytes */
	put_text(w, 27, 46, "HANOK CD-ROM");
	put_modes(w, d);
	put_word(w, 80, 0x01f0);
	put_word(w, 82, 0x0210); /* PACKET, DEVICE RESET */
	put_word(w, 83, 0x4000);
	put_word(w, 84, 0x4000);
	put_word(w, 85, 0x0210);
	put_word(w, 87, 0x4000);
}

static void fill_identify(uint8_t *w, const struct ata_drive *d)
{
	uint8_t sum = 0;

	memset(w, 0, ATA_SECTOR);
	put_text(w, 10, 19, d->serial);
	put_text(w, 23, 26, HANOK_VERSION);
	if (d->cdrom)
		fill_cdrom(w, d);
	else
		fill_disk(w, d);
	w[510] = 0xa5; /* ACS 7.16.7.98: all bytes add up to 0 */
	for (unsigned i = 0; i < ATA_SECTOR - 1; i++)
		sum = (uint8_t)(sum + w[i]);
	w[511] = (uint8_t)-sum;
}

void ata_identify(struct ata_command *c)
{
	fill_identify(c->drive->data, c->drive);
	ata_data_in(c, ATA_SECTOR);
}

/* Pages of SMART and logs add up to 0 too. */
static void put_checksum(uint8_t *page)
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < ATA_SECTOR - 1; i++)
		sum = (uint8_t)(sum + page[i]);
	page[ATA_SECTOR - 1] = (uint8_t)-sum;
}

/* --- logs --- */

enum { LOG_DIRECTORY = 0x00, LOG_SMART_ERRORS = 0x01, LOG_SMART_TESTS = 0x06 };
enum { LOG_QUEUE_ERROR = 0x10, LOG_IDENTIFY = 0x30, IDENTIFY_PAGES = 2 };

void ata_note_queue_error(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	const struct ata_regs *r = &c->regs;
	/* ACS A.7: as the register FIS would have been. */
	const uint8_t log[16] = {
		(uint8_t)(r->count >> 3 & 31),
		0,
		r->status,
		r->error,
		(uint8_t)r->lba,
		(uint8_t)(r->lba >> 8),
		(uint8_t)(r->lba >> 16),
		r->device,
		(uint8_t)(r->lba >> 24),
		(uint8_t)(r->lba >> 32),
		(uint8_t)(r->lba >> 40),
		0,
		(uint8_t)r->count,
		(uint8_t)(r->count >> 8),
	};

	if (d->queue_error)
		return;
	memcpy(d->error_log, log, sizeof(log));
	d->queue_error = true;
}

static void log_directory(uint8_t *data)
{
	put_word(data, 0, 1);
	put_word(data, LOG_QUEUE_ERROR, 1);
	put_word(data, LOG_IDENTIFY, IDENTIFY_PAGES);
}

/* ACS-3 A.11: page 0 lists the pages there are, page 1 is IDENTIFY DEVICE. */
static void log_identify_list(uint8_t *data)
{
	put_words(data, 0, 1, 4); /* revision 1, page 0 */
	data[8] = IDENTIFY_PAGES;
	data[9] = 0;
	data[10] = 1;
}

/* ACS 7.28: log address, page (16 bits in two places), count of pages. */
void ata_read_log(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	unsigned log = c->regs.lba & 0xff, count = c->regs.count;
	unsigned page = (unsigned)((c->regs.lba >> 8 & 0xff) | (c->regs.lba >> 32 & 0xff) << 8);
	unsigned pages = log == LOG_IDENTIFY ? IDENTIFY_PAGES : 1;

	if (!count || page >= pages || count > pages - page) {
		ata_fail(c, ATA_E_ABRT);
		return;
	}
	memset(d->data, 0, (size_t)pages * ATA_SECTOR);
	switch (log) {
	case LOG_DIRECTORY:
		log_directory(d->data);
		break;
	case LOG_QUEUE_ERROR:
		if (d->queue_error)
			memcpy(d->data, d->error_log, sizeof(d->error_log));
		else
			d->data[0] = 0x80; /* the last error was of no queued command */
		put_checksum(d->data);
		d->queue_error = false;
		break;
	case LOG_IDENTIFY:
		log_identify_list(d->data);
		fill_identify(d->data + ATA_SECTOR, d);
		memmove(d->data, d->data + (size_t)page * ATA_SECTOR, (size_t)count * ATA_SECTOR);
		break;
	default:
		ata_fail(c, ATA_E_ABRT);
		return;
	}
	ata_data_in(c, (uint64_t)count * ATA_SECTOR);
}

/* --- SMART (ACS 7.53) --- */

enum { SMART_KEY = 0xc24f00 };
enum {
	SMART_READ_DATA = 0xd0,
	SMART_READ_THRESHOLDS = 0xd1,
	SMART_AUTOSAVE = 0xd2,
	SMART_READ_LOG = 0xd5,
	SMART_ENABLE = 0xd8,
	SMART_DISABLE = 0xd9,
	SMART_RETURN_STATUS = 0xda,
};

/* No attributes are kept: a virtual disk has neither hours nor temperatures. Off-line data was
 * never collected, the last self-test passed, and logs can be read. */
static void smart_data(uint8_t *data)
{
	put_word(data, 0, 0x0010);
	ata_put16(data + 368, 0x0003); /* saves attributes, by itself */
	data[370] = 1;		       /* error logging */
	put_checksum(data);
}

static bool smart_log(uint8_t *data, unsigned log)
{
	switch (log) {
	case LOG_DIRECTORY:
		put_word(data, 0, 1);
		data[LOG_SMART_ERRORS * 2] = 1;
		data[LOG_SMART_TESTS * 2] = 1;
		return true;
	case LOG_SMART_ERRORS:
	case LOG_SMART_TESTS:
		put_word(data, 0, 1); /* revision, and nothing logged */
		put_checksum(data);
		return true;
	default:
		return false;
	}
}

static bool smart_enable(struct ata_command *c, bool on)
{
	c->drive->smart = on;
	ata_succeed(c);
	return true;
}

static bool smart_on(struct ata_command *c)
{
	uint8_t *data = c->drive->data;

	memset(data, 0, ATA_SECTOR);
	switch (c->regs.feature & 0xff) {
	case SMART_READ_DATA:
		smart_data(data);
		break;
	case SMART_READ_THRESHOLDS:
		put_word(data, 0, 0x0010);
		put_checksum(data);
		break;
	case SMART_READ_LOG:
		if ((c->regs.count & 0xff) != 1 || !smart_log(data, c->regs.lba & 0xff))
			return false;
		break;
	case SMART_DISABLE:
		return smart_enable(c, false);
	case SMART_AUTOSAVE:
	case SMART_RETURN_STATUS: /* the key, unchanged: no threshold exceeded */
		ata_succeed(c);
		return true;
	default:
		return false;
	}
	ata_data_in(c, ATA_SECTOR);
	return true;
}

void ata_smart(struct ata_command *c)
{
	bool ok = (c->regs.lba & 0xffff00) == SMART_KEY;

	if (ok && (c->regs.feature & 0xff) == SMART_ENABLE)
		ok = smart_enable(c, true);
	else if (ok)
		ok = c->drive->smart && smart_on(c);
	if (!ok)
		ata_fail(c, ATA_E_ABRT);
}
