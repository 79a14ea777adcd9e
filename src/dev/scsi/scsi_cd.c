/* SPDX-License-Identifier: Apache-2.0 */
/* CD and DVD drives with a data disc of one track: what MMC-6 has over SBC, as far as drivers of
 * stock guests ask. */
#include <string.h>

#include "dev/scsi/scsi_internal.h"

enum { CD_MAX_BLOCKS = 450000 /* more than any CD has: then it is a DVD */ };
enum { PROFILE_NONE = 0, PROFILE_CD_ROM = 0x08, PROFILE_DVD_ROM = 0x10 };
enum { LEAD_OUT = 0xaa, DATA_TRACK = 0x14 /* ADR 1, digital data */ };

static bool has_medium(const struct scsi_lun *lu)
{
	return lu->disk && !lu->ejected;
}

/* Minutes, seconds and frames of the disc, which start 2 s before block 0 (MMC-6 4.2.1). */
static void put_address(uint8_t *at, bool msf, uint64_t block)
{
	enum { FRAMES = 75, LEAD_IN = 150 };

	if (!msf) {
		put32(at, (uint32_t)block);
		return;
	}
	block += LEAD_IN;
	at[0] = 0;
	at[1] = (uint8_t)(block / FRAMES / 60);
	at[2] = (uint8_t)(block / FRAMES % 60);
	at[3] = (uint8_t)(block % FRAMES);
}

/* MMC-6 6.25: format 0, the tracks; 1, the sessions; 2, the raw table. There is one of each. */
static int read_toc(struct scsi_request *r)
{
	enum { MSF = 2, TOC = 0, SESSIONS = 1 };
	bool msf = r->cdb[1] & MSF;
	unsigned format = r->cdb[2] & 0xf, first = r->cdb[6], len = 4;
	uint8_t d[20] = {0, 0, 1, 1};

	if (!scsi_is_ready(r))
		return OVER;
	if (!format)
		format = r->cdb[9] >> 6; /* where SFF-8020 has it */
	if (format > SESSIONS || (format == TOC && first > 1 && first != LEAD_OUT))
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (format == SESSIONS || first <= 1) {
		d[len + 1] = DATA_TRACK;
		d[len + 2] = 1;
		put_address(d + len + 4, msf, 0);
		len += 8;
	}
	if (format == TOC) {
		d[len + 1] = DATA_TRACK;
		d[len + 2] = LEAD_OUT;
		put_address(d + len + 4, msf, r->unit->blocks);
		len += 8;
	}
	put16(d, len - 2);
	return scsi_reply(r, d, len, be16(r->cdb + 7));
}

static unsigned put_feature(uint8_t *d, uint16_t code, uint8_t flags, unsigned more)
{
	put16(d, code);
	d[2] = flags;
	d[3] = (uint8_t)more;
	return 4 + more;
}

/* MMC-6 6.6 and 5.3: profiles, core, morphing, removable medium, random readable, multi-read. */
static int get_configuration(struct scsi_request *r)
{
	enum { PERSISTENT = 1, CURRENT = 2, VERSION_1 = 4 };
	enum { ONLY_CURRENT = 1, ONLY_ONE = 2, ATAPI_OR_SCSI = 1 };
	const struct scsi_lun *lu = r->unit;
	unsigned starting = be16(r->cdb + 2), type = r->cdb[1] & 3, at = 8, len;
	uint16_t profile = !has_medium(lu)		? PROFILE_NONE
			   : lu->blocks > CD_MAX_BLOCKS ? PROFILE_DVD_ROM
							: PROFILE_CD_ROM;
	uint8_t d[64] = {0}, feature[6][16] = {{0}};
	uint8_t current = has_medium(lu) ? CURRENT : 0;

	if (type == 3)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	put_feature(feature[0], 0x0000, PERSISTENT | CURRENT, 8);
	put16(feature[0] + 4, PROFILE_DVD_ROM);
	feature[0][6] = profile == PROFILE_DVD_ROM;
	put16(feature[0] + 8, PROFILE_CD_ROM);
	feature[0][10] = profile == PROFILE_CD_ROM;
	put_feature(feature[1], 0x0001, VERSION_1 * 2 | PERSISTENT | CURRENT, 8);
	put32(feature[1] + 4, ATAPI_OR_SCSI);
	put_feature(feature[2], 0x0002, VERSION_1 | PERSISTENT | CURRENT, 4);
	feature[2][4] = 0x02; /* reports events, when it is asked */
	put_feature(feature[3], 0x0003, PERSISTENT | CURRENT, 4);
	feature[3][4] = 0x29; /* a tray that locks and ejects */
	put_feature(feature[4], 0x0010, current, 8);
	put32(feature[4] + 4, lu->block_bytes);
	put16(feature[4] + 8, 1);
	put_feature(feature[5], 0x001d, current, 0);
	for (unsigned i = 0; i < 6; i++) {
		unsigned code = be16(feature[i]);
		if ((type == ONLY_ONE ? code != starting : code < starting) ||
		    (type == ONLY_CURRENT && !(feature[i][2] & CURRENT)))
			continue;
		len = 4u + feature[i][3];
		memcpy(d + at, feature[i], len);
		at += len;
	}
	put32(d, at - 4);
	put16(d + 6, profile);
	return scsi_reply(r, d, at, be16(r->cdb + 7));
}

/* MMC-6 6.7, polled: of the classes, only that of the medium; and there nothing happens by itself. */
static int get_event_status(struct scsi_request *r)
{
	enum { POLLED = 1, MEDIA = 4, NO_EVENT_CLASS = 0x80, PRESENT = 2, OPEN = 1 };
	uint8_t d[8] = {0, 2, NO_EVENT_CLASS, 1 << MEDIA};

	if (!(r->cdb[1] & POLLED))
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (!(r->cdb[4] & 1 << MEDIA))
		return scsi_reply(r, d, 4, be16(r->cdb + 7));
	d[1] = 6;
	d[2] = MEDIA;
	d[5] = has_medium(r->unit) ? PRESENT : r->unit->ejected ? OPEN : 0;
	return scsi_reply(r, d, 8, be16(r->cdb + 7));
}

/* MMC-6 6.21: one complete session, one track. */
static int read_disc_information(struct scsi_request *r)
{
	enum { COMPLETE = 0x0e };
	uint8_t d[34] = {0};

	if (!scsi_is_ready(r))
		return OVER;
	if (r->cdb[1] & 7)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	put16(d, sizeof(d) - 2);
	d[2] = COMPLETE;
	d[3] = d[4] = d[5] = d[6] = 1;
	return scsi_reply(r, d, sizeof(d), be16(r->cdb + 7));
}

static int mechanism_status(struct scsi_request *r)
{
	uint8_t d[8] = {0, (uint8_t)(r->unit->ejected ? 0x10 : 0)}; /* the door is open */

	return scsi_reply(r, d, sizeof(d), be16(r->cdb + 8));
}

int (*const scsi_cd_commands[256])(struct scsi_request *r) = {
	[0x00] = scsi_test_unit_ready,
	[0x03] = scsi_request_sense,
	[0x08] = scsi_read,
	[0x12] = scsi_inquiry,
	[0x15] = scsi_mode_select,
	[0x16] = scsi_nothing, /* RESERVE(6), RELEASE(6): see scsi_disk.c */
	[0x17] = scsi_nothing,
	[0x1a] = scsi_mode_sense,
	[0x1b] = scsi_start_stop,
	[0x1d] = scsi_send_diagnostic,
	[0x1e] = scsi_prevent_removal,
	[0x25] = scsi_read_capacity,
	[0x28] = scsi_read,
	[0x35] = scsi_nothing, /* SYNCHRONIZE CACHE: nothing was written */
	[0x43] = read_toc,
	[0x46] = get_configuration,
	[0x4a] = get_event_status,
	[0x51] = read_disc_information,
	[0x55] = scsi_mode_select,
	[0x5a] = scsi_mode_sense,
	[0xa0] = scsi_report_luns,
	[0xa8] = scsi_read,
	[0xbb] = scsi_nothing, /* SET CD SPEED */
	[0xbd] = mechanism_status,
};
