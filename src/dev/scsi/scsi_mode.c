/* SPDX-License-Identifier: Apache-2.0 */
/* MODE SENSE and MODE SELECT (SPC-4 6.11 to 6.14), with the pages a disk (SBC-3 6.5) and a CD drive
 * (MMC-6 7) have. All a guest can change is whether writes are cached (WCE). */
#include <string.h>

#include "dev/scsi/scsi_internal.h"

enum {
	PAGE_RECOVERY = 0x01,
	PAGE_CACHING = 0x08,
	PAGE_CONTROL = 0x0a,
	PAGE_CD_CAPABILITIES = 0x2a
};
enum { PAGE_ALL = 0x3f, SUBPAGE_ALL = 0xff };
enum { CURRENT, CHANGEABLE, DEFAULTS, SAVED };
enum { OP_SENSE_6 = 0x1a, OP_SELECT_6 = 0x15 };
enum { WCE = 0x04, WRITE_PROTECT = 0x80, DPOFUA = 0x10, LONG_LBA = 0x01 };
enum { PAGE_BYTES_MAX = 32, LIST_MAX = 512 };

static unsigned recovery(const struct scsi_lun *lu, unsigned what, uint8_t *d)
{
	(void)lu, (void)what, (void)d; /* all as it is after power on: 0 */
	return 12;
}

static unsigned caching(const struct scsi_lun *lu, unsigned what, uint8_t *d)
{
	if (what != CURRENT || lu->write_cache)
		d[2] = WCE; /* also the mask of what can change, and the default */
	return 20;
}

static unsigned control(const struct scsi_lun *lu, unsigned what, uint8_t *d)
{
	enum { REORDER_FREELY = 0x10, TIMEOUT_UNLIMITED = 0xffff };

	(void)lu;
	if (what != CHANGEABLE) {
		d[3] = REORDER_FREELY; /* commands in flight have no order among themselves */
		put16(d + 8, TIMEOUT_UNLIMITED);
	}
	return 12;
}

/* MM capabilities and mechanical status (MMC-3 5.5.10), as drives have it and hosts still ask. */
static unsigned cd_capabilities(const struct scsi_lun *lu, unsigned what, uint8_t *d)
{
	enum { READS = 0x3b /* CD-R, CD-RW, method 2, DVD-ROM, -R */, MULTISESSION = 0x70 };
	enum { LOCKS = 1, LOCKED = 2, EJECTS = 8, TRAY = 1 << 5, SPEED_KB = 50 * 176 };

	if (what == CHANGEABLE)
		return 22;
	d[2] = READS;
	d[4] = MULTISESSION;
	d[6] = (uint8_t)(TRAY | EJECTS | LOCKS | (lu->locked ? LOCKED : 0));
	put16(d + 8, SPEED_KB);
	put16(d + 12, 512); /* KiB of buffer */
	put16(d + 14, SPEED_KB);
	return 22;
}

static const struct mode_page {
	uint8_t code;
	bool disk, cd;
	unsigned (*fill)(const struct scsi_lun *lu, unsigned what, uint8_t *d); /* its length */
} pages[] = {
	{PAGE_RECOVERY, true, true, recovery},
	{PAGE_CACHING, true, false, caching},
	{PAGE_CONTROL, true, true, control},
	{PAGE_CD_CAPABILITIES, false, true, cd_capabilities},
};
enum { PAGES = sizeof(pages) / sizeof(pages[0]) };

static bool has_page(const struct scsi_lun *lu, const struct mode_page *p)
{
	return lu->cdrom ? p->cd : p->disk;
}

/* Fills in the pages asked for; returns their length, 0 when there is none. */
static unsigned fill_pages(const struct scsi_lun *lu, unsigned code, unsigned what, uint8_t *d)
{
	unsigned at = 0, len;

	for (unsigned i = 0; i < PAGES; i++) {
		if (!has_page(lu, &pages[i]) || (code != PAGE_ALL && code != pages[i].code))
			continue;
		len = pages[i].fill(lu, what, d + at);
		d[at] = pages[i].code;
		d[at + 1] = (uint8_t)(len - 2);
		at += len;
	}
	return at;
}

/* Block descriptor of direct access devices (SBC-3 6.5.2.2 and .3). Returns its length. */
static unsigned fill_descriptor(const struct scsi_lun *lu, bool long_lba, uint8_t *d)
{
	if (long_lba) {
		put64(d, lu->blocks);
		put32(d + 12, lu->block_bytes);
		return 16;
	}
	put32(d, lu->blocks <= UINT32_MAX ? (uint32_t)lu->blocks : UINT32_MAX);
	put32(d + 4, lu->block_bytes); /* its first byte is reserved, and 0 */
	return 8;
}

int scsi_mode_sense(struct scsi_request *r)
{
	enum { NO_DESCRIPTORS = 0x08, ASK_LONG_LBA = 0x10 };
	const struct scsi_lun *lu = r->unit;
	bool six = r->cdb[0] == OP_SENSE_6;
	unsigned code = r->cdb[2] & 0x3f, what = r->cdb[2] >> 6, header = six ? 4 : 8;
	bool long_lba = !six && r->cdb[1] & ASK_LONG_LBA;
	unsigned descriptor = 0, len;
	uint8_t d[8 + 16 + PAGES * PAGE_BYTES_MAX] = {0};
	uint8_t parameter = 0;

	if (what == SAVED)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_NO_SAVING);
	if (r->cdb[3] && !(code == PAGE_ALL && r->cdb[3] == SUBPAGE_ALL))
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (!lu->cdrom) {
		parameter = (uint8_t)(DPOFUA | (lu->read_only ? WRITE_PROTECT : 0));
		if (!(r->cdb[1] & NO_DESCRIPTORS))
			descriptor = fill_descriptor(lu, long_lba, d + header);
	}
	len = fill_pages(lu, code, what, d + header + descriptor);
	if (!len)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	len += header + descriptor;
	if (six) {
		d[0] = (uint8_t)(len - 1);
		d[2] = parameter;
		d[3] = (uint8_t)descriptor;
		return scsi_reply(r, d, len, r->cdb[4]);
	}
	put16(d, len - 2);
	d[3] = parameter;
	d[4] = long_lba && descriptor ? LONG_LBA : 0;
	put16(d + 6, descriptor);
	return scsi_reply(r, d, len, be16(r->cdb + 7));
}

/* One page of a MODE SELECT list: only what is changeable may differ from what is. False: it does
 * not fit. */
static bool take_page(const struct scsi_lun *lu, const uint8_t *d, unsigned left, unsigned *len,
		      bool *write_cache)
{
	uint8_t now[PAGE_BYTES_MAX] = {0}, mask[PAGE_BYTES_MAX] = {0};

	if (left < 2 || d[0] & 0x40 /* sub-pages */ || (d[0] & 0x3f) == PAGE_ALL)
		return false;
	*len = fill_pages(lu, d[0] & 0x3f, CURRENT, now);
	if (!*len || left < *len || d[1] != *len - 2)
		return false;
	fill_pages(lu, d[0] & 0x3f, CHANGEABLE, mask);
	for (unsigned i = 2; i < *len; i++)
		if ((d[i] ^ now[i]) & ~mask[i])
			return false;
	if ((d[0] & 0x3f) == PAGE_CACHING)
		*write_cache = d[2] & WCE;
	return true;
}

/* The block descriptor may only say what is: blocks of this size, this many or "all" (0). */
static bool check_descriptor(const struct scsi_lun *lu, const uint8_t *d, unsigned len, bool longs)
{
	uint8_t now[16] = {0};
	unsigned own = fill_descriptor(lu, longs, now), count = longs ? 8 : 4;
	static const uint8_t zero[8];

	if (!len)
		return true;
	return len == own && !memcmp(d + count, now + count, own - count) &&
	       (!memcmp(d, now, count) || !memcmp(d, zero, count));
}

int scsi_mode_select(struct scsi_request *r)
{
	enum { PAGE_FORMAT = 0x10, SAVE = 0x01 };
	struct scsi_lun *lu = r->unit;
	bool six = r->cdb[0] == OP_SELECT_6, write_cache = lu->write_cache, longs;
	unsigned len = six ? r->cdb[4] : be16(r->cdb + 7), header = six ? 4 : 8, at, page;
	uint8_t d[LIST_MAX];

	if (!len)
		return OVER;
	if (!(r->cdb[1] & PAGE_FORMAT) || r->cdb[1] & SAVE)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (len < header || len > LIST_MAX)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_LIST_LENGTH);
	if (!scsi_take(r, d, len))
		return OVER;
	longs = !six && d[4] & LONG_LBA;
	page = six ? d[3] : be16(d + 6); /* the descriptors' length */
	if (header + page > len)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_LIST_LENGTH);
	if (!check_descriptor(lu, d + header, page, longs))
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_PARAMETER);
	for (at = header + page; at < len; at += page)
		if (!take_page(lu, d + at, len - at, &page, &write_cache))
			return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_PARAMETER);
	lu->write_cache = write_cache;
	return OVER;
}
