/* SPDX-License-Identifier: Apache-2.0 */
/* ATAPI: the longer answers of a CD drive: table of contents, features, mode pages. */
#include <string.h>

#include "dev/ata/ata.h"

enum { KEY_ILLEGAL = 5, ASC_INVALID_FIELD = 0x24, ASC_SAVING = 0x39 };
enum { TRACK_LEAD_OUT = 0xaa, CONTROL_DATA = 0x14 };
enum { FRAMES_PER_SECOND = 75, LEAD_IN_FRAMES = 150 };
enum { PROFILE_NONE = 0, PROFILE_CD_ROM = 0x0008, PROFILE_DVD_ROM = 0x0010 };
/* Blocks of the longest CD: 99 minutes; what is longer is a DVD. */
enum { CD_BLOCKS_MAX = 99 * 60 * FRAMES_PER_SECOND };

static uint32_t wanted16(const struct ata_command *c)
{
	return (uint32_t)c->packet[7] << 8 | c->packet[8];
}

static void invalid_field(struct ata_command *c)
{
	atapi_sense(c, KEY_ILLEGAL, ASC_INVALID_FIELD, 0);
}

static uint64_t disc_blocks(const struct ata_drive *d)
{
	return d->sectors / (ATA_CD_BLOCK / ATA_SECTOR);
}

/* --- READ TOC/PMA/ATIP (MMC 6.25) --- */

/* A block's address: as a number, or as minutes, seconds, frames. */
static void put_address(uint8_t *p, uint64_t lba, bool msf)
{
	if (!msf) {
		ata_put_be32(p, (uint32_t)lba);
		return;
	}
	lba += LEAD_IN_FRAMES;
	p[0] = 0;
	p[1] = (uint8_t)(lba / (60 * FRAMES_PER_SECOND));
	p[2] = (uint8_t)(lba / FRAMES_PER_SECOND % 60);
	p[3] = (uint8_t)(lba % FRAMES_PER_SECOND);
}

static uint8_t *put_track(uint8_t *p, unsigned track, uint64_t lba, bool msf)
{
	p[0] = 0;
	p[1] = CONTROL_DATA;
	p[2] = (uint8_t)track;
	p[3] = 0;
	put_address(p + 4, lba, msf);
	return p + 8;
}

/* Format 0: track 1 and the lead-out. */
static unsigned toc_tracks(const struct ata_command *c, bool msf)
{
	const struct ata_drive *d = c->drive;
	unsigned first = c->packet[6];
	uint8_t *data = c->drive->data, *p = data + 4;

	if (first > 1 && first != TRACK_LEAD_OUT)
		return 0;
	data[2] = data[3] = 1;
	if (first <= 1)
		p = put_track(p, 1, 0, msf);
	p = put_track(p, TRACK_LEAD_OUT, disc_blocks(d), msf);
	return (unsigned)(p - data);
}

/* Format 2: the entries of the lead-in, addresses always as minutes, seconds, frames. */
static unsigned toc_full(const struct ata_command *c)
{
	static const uint8_t points[] = {0xa0, 0xa1, 0xa2, 1};
	uint8_t *data = c->drive->data, *p = data + 4;

	data[2] = data[3] = 1;
	for (unsigned i = 0; i < sizeof(points); i++, p += 11) {
		memset(p, 0, 11);
		p[0] = 1; /* session */
		p[1] = CONTROL_DATA;
		p[3] = points[i];
		if (points[i] == 0xa0 || points[i] == 0xa1)
			p[8] = 1; /* first and last track */
		else
			put_address(p + 7, points[i] == 1 ? 0 : disc_blocks(c->drive), true);
	}
	return (unsigned)(p - data);
}

void atapi_read_toc(struct ata_command *c)
{
	unsigned format = c->packet[2] & 15, len = 0;
	bool msf = c->packet[1] & 2;
	uint8_t *data = c->drive->data;

	if (!format) /* where SFF-8020i had it */
		format = c->packet[9] >> 6;
	memset(data, 0, 4);
	switch (format) {
	case 0:
		len = toc_tracks(c, msf);
		break;
	case 1: /* the first track of the last session */
		data[2] = data[3] = 1;
		len = (unsigned)(put_track(data + 4, 1, 0, msf) - data);
		break;
	case 2:
		len = toc_full(c);
		break;
	default:
		break;
	}
	if (!len) {
		invalid_field(c);
		return;
	}
	ata_put_be16(data, len - 2);
	atapi_answer(c, len, wanted16(c));
}

/* --- GET CONFIGURATION (MMC 6.6, features 5.3) --- */

static unsigned profile(const struct ata_drive *d)
{
	if (!atapi_has_medium(d))
		return PROFILE_NONE;
	return disc_blocks(d) > CD_BLOCKS_MAX ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

static uint8_t *put_feature(uint8_t *p, unsigned code, bool persistent, bool current,
			    unsigned version, const uint8_t *data, unsigned len)
{
	ata_put_be16(p, code);
	p[2] = (uint8_t)(version << 2 | (persistent ? 2 : 0) | (current ? 1 : 0));
	p[3] = (uint8_t)len;
	memcpy(p + 4, data, len);
	return p + 4 + len;
}

/* Feature `code`, or nothing. */
static uint8_t *feature(uint8_t *p, const struct ata_drive *d, unsigned code)
{
	unsigned now = profile(d);
	const uint8_t profiles[] = {
		0, PROFILE_DVD_ROM, now == PROFILE_DVD_ROM, 0,
		0, PROFILE_CD_ROM,  now == PROFILE_CD_ROM,  0,
	};
	const uint8_t core[] = {0, 0, 0, d->sata ? 7 : 2, 1, 0, 0, 0}; /* SATA or ATAPI */
	const uint8_t removable[] = {0x29, 0, 0, 0}; /* a tray that loads, ejects and locks */
	const uint8_t random[] = {0, 0, ATA_CD_BLOCK >> 8, 0, 0, 1, 0, 0};
	const uint8_t none[4] = {0};

	switch (code) {
	case 0x0000:
		return put_feature(p, code, true, true, 0, profiles, sizeof(profiles));
	case 0x0001:
		return put_feature(p, code, true, true, 2, core, sizeof(core));
	case 0x0003:
		return put_feature(p, code, true, true, 0, removable, sizeof(removable));
	case 0x0010:
		return put_feature(p, code, false, now != PROFILE_NONE, 0, random, sizeof(random));
	case 0x001e: /* CD read */
		return put_feature(p, code, false, now == PROFILE_CD_ROM, 2, none, 4);
	case 0x001f: /* DVD read */
		return put_feature(p, code, false, now == PROFILE_DVD_ROM, 0, none, 0);
	default:
		return p;
	}
}

static bool is_current(const uint8_t *f)
{
	return f[2] & 1;
}

void atapi_get_configuration(struct ata_command *c)
{
	enum { ALL = 0, CURRENT = 1, ONE = 2, FEATURE_LAST = 0x1f };
	struct ata_drive *d = c->drive;
	unsigned which = c->packet[1] & 3, from = (unsigned)c->packet[2] << 8 | c->packet[3];
	uint8_t *data = d->data, *p = data + 8;

	if (which == 3) {
		invalid_field(c);
		return;
	}
	memset(data, 0, 8);
	for (unsigned code = from; code <= FEATURE_LAST; code++) {
		uint8_t *next = feature(p, d, code);
		if (next != p && (which != CURRENT || is_current(p)))
			p = next;
		if (which == ONE)
			break;
	}
	ata_put_be32(data, (uint32_t)(p - data - 4));
	ata_put_be16(data + 6, profile(d));
	atapi_answer(c, (uint64_t)(p - data), wanted16(c));
}

/* --- MODE SENSE(10) (SPC 6.10, pages MMC 7) --- */

static const uint8_t page_error_recovery[] = {0x01, 10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0};
static const uint8_t page_timeouts[] = {0x1d, 10, 0, 0, 0, 0, 0, 30, 0, 30, 0, 0};
/* Capabilities (MMC 7.6 of MMC-3): reads CD-R, CD-RW, DVD-ROM; a tray that locks and ejects; speeds
 * in kB/s, of 4. */
static const uint8_t page_capabilities[] = {
	0x2a, 20, 0x0b, 0, 0x70, 0, 0x29, 0, 0x02, 0xc2, 0, 2, 0, 0, 0x02, 0xc2, 0, 0, 0, 0, 0, 0,
};

static uint8_t *put_page(uint8_t *p, const uint8_t *page, unsigned len, unsigned wanted,
			 bool changeable)
{
	if (wanted != 0x3f && wanted != page[0])
		return p;
	memcpy(p, page, len);
	if (changeable) /* nothing is */
		memset(p + 2, 0, len - 2);
	return p + len;
}

void atapi_mode_sense(struct ata_command *c)
{
	enum { CHANGEABLE = 1, SAVED = 3 };
	struct ata_drive *d = c->drive;
	unsigned control = c->packet[2] >> 6, page = c->packet[2] & 0x3f;
	bool changeable = control == CHANGEABLE;
	uint8_t *data = d->data, *p = data + 8, *lock;

	if (control == SAVED) {
		atapi_sense(c, KEY_ILLEGAL, ASC_SAVING, 0);
		return;
	}
	memset(data, 0, 8);
	p = put_page(p, page_error_recovery, sizeof(page_error_recovery), page, changeable);
	p = put_page(p, page_timeouts, sizeof(page_timeouts), page, changeable);
	lock = p;
	p = put_page(p, page_capabilities, sizeof(page_capabilities), page, changeable);
	if (p == data + 8) {
		invalid_field(c);
		return;
	}
	if (p != lock && !changeable && d->locked)
		lock[6] |= 2;
	ata_put_be16(data, (uint32_t)(p - data - 2));
	data[2] = atapi_has_medium(d) ? 0x01 : 0x70; /* medium type: data disc; none */
	if (d->tray_open)
		data[2] = 0x71;
	atapi_answer(c, (uint64_t)(p - data), wanted16(c));
}
