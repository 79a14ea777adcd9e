/* SPDX-License-Identifier: Apache-2.0 */
/* What a logical unit says of itself: INQUIRY with its vital product data, REPORT LUNS, REQUEST
 * SENSE. SPC-4 6.6, 6.33, 6.39 and 7.8; SBC-3 6.6. */
#include <string.h>

#include "dev/scsi/scsi_internal.h"

enum { TYPE_DISK = 0, TYPE_CD = 5, TYPE_NONE = 0x7f /* qualifier 3: not here, none could be */ };
enum { VERSION_SPC4 = 6, FORMAT_2 = 2, REMOVABLE = 0x80, HISUP = 0x10 };
enum { WIDE16 = 0x20, SYNC = 0x10, QUEUES = 0x02 };
enum { INQUIRY_BYTES = 96, VPD_BYTES = 96 };

/* The most that one command may name (block limits page): the buffer's own limit is SGL_BYTES_MAX. */
enum {
	TRANSFER_MAX_BLOCKS = 65536, /* 32 MiB */
	UNMAP_MAX_BLOCKS = 8 << 20,  /* 4 GiB: so that a command's time has an end */
	UNMAP_MAX_DESCRIPTORS = 255,
	SAME_MAX_BLOCKS = 65536,
};

static uint8_t device_type(const struct scsi_request *r)
{
	return !r->unit ? TYPE_NONE : r->unit->cdrom ? TYPE_CD : TYPE_DISK;
}

static void put_text(uint8_t *at, const char *text, size_t len)
{
	size_t n = strnlen(text, len);

	memset(at, ' ', len);
	memcpy(at, text, n);
}

static int standard(struct scsi_request *r)
{
	/* Version descriptors (SPC-4 6.6.2, table 144): SAM-5, SPC-4, and SBC-3 or MMC-6. */
	uint16_t own = device_type(r) == TYPE_CD ? 0x04e0 : 0x04c0;
	uint8_t d[INQUIRY_BYTES] = {0};

	d[0] = device_type(r);
	if (d[0] == TYPE_CD)
		d[1] = REMOVABLE;
	d[2] = VERSION_SPC4;
	d[3] = HISUP | FORMAT_2;
	d[4] = INQUIRY_BYTES - 5;
	d[7] = QUEUES;
	if (r->bus->cfg.parallel)
		d[7] |= WIDE16 | SYNC;
	/* See scsi.c for the names. */
	put_text(d + 8, d[0] == TYPE_CD ? "NECVMWar" : "VMware", 8);
	put_text(d + 16, d[0] == TYPE_CD ? "VMware SCSI CDR0" : "Virtual disk", 16);
	put_text(d + 32, d[0] == TYPE_CD ? "1.00" : "2.0", 4);
	put16(d + 58, 0x00a0);
	put16(d + 60, 0x0460);
	put16(d + 62, own);
	return scsi_reply(r, d, sizeof(d), be16(r->cdb + 3));
}

static unsigned page_serial(const struct scsi_lun *lu, uint8_t *d)
{
	put_text(d, lu->serial, strlen(lu->serial));
	return (unsigned)strlen(lu->serial);
}

/* FNV-1a: a name that stays the same as long as the serial number does. */
static uint64_t hash(const char *s)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
	return h;
}

/* Designators (SPC-4 7.8.6): vendor and serial as text, and a locally assigned NAA made of it. */
static unsigned page_identification(const struct scsi_lun *lu, uint8_t *d)
{
	enum { ASCII = 2, BINARY = 1, T10_VENDOR = 1, NAA = 3, NAA_LOCAL = 3 };
	unsigned serial = (unsigned)strlen(lu->serial);

	if (!serial)
		return 0;
	d[0] = ASCII;
	d[1] = T10_VENDOR;
	d[3] = (uint8_t)(8 + serial);
	put_text(d + 4, "VMware", 8);
	put_text(d + 12, lu->serial, serial);
	d += 12 + serial;
	d[0] = BINARY;
	d[1] = NAA;
	d[3] = 8;
	put64(d + 4, (uint64_t)NAA_LOCAL << 60 | hash(lu->serial) >> 4);
	return 12 + serial + 12;
}

static unsigned page_limits(const struct scsi_lun *lu, uint8_t *d)
{
	uint32_t granule = lu->granule_bytes / lu->block_bytes;

	if (granule < 1)
		granule = 1;
	/* Offsets are the page's, less its header of 4 (SBC-3 6.6.3). */
	if (granule > 1)
		put16(d + 6 - 4, granule <= UINT16_MAX ? granule : UINT16_MAX);
	put32(d + 8 - 4, TRANSFER_MAX_BLOCKS);
	put32(d + 20 - 4, UNMAP_MAX_BLOCKS);
	put32(d + 24 - 4, UNMAP_MAX_DESCRIPTORS);
	put32(d + 28 - 4, granule);
	put32(d + 32 - 4, UINT32_C(1) << 31); /* the alignment is valid: 0 */
	put64(d + 36 - 4, SAME_MAX_BLOCKS);
	return 60;
}

static unsigned page_characteristics(const struct scsi_lun *lu, uint8_t *d)
{
	(void)lu;
	put16(d, 1); /* does not rotate (SBC-3 6.6.2) */
	return 60;
}

static unsigned page_provisioning(const struct scsi_lun *lu, uint8_t *d)
{
	enum { LBPU = 0x80, LBPWS = 0x40, LBPWS10 = 0x20, THIN = 2 };

	(void)lu;
	d[1] = LBPU | LBPWS | LBPWS10; /* what is unmapped reads as anything (LBPRZ clear) */
	d[2] = THIN;
	return 4;
}

static unsigned page_list(const struct scsi_lun *lu, uint8_t *d);

static const struct vpd_page {
	uint8_t code;
	bool disks_only;
	unsigned (*fill)(const struct scsi_lun *lu, uint8_t *d); /* returns its length */
} pages[] = {
	{0x00, false, page_list},	    {0x80, false, page_serial},
	{0x83, false, page_identification}, {0xb0, true, page_limits},
	{0xb1, true, page_characteristics}, {0xb2, true, page_provisioning},
};
enum { PAGES = sizeof(pages) / sizeof(pages[0]) };

static unsigned page_list(const struct scsi_lun *lu, uint8_t *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		if (!lu->cdrom || !pages[i].disks_only)
			d[n++] = pages[i].code;
	return n;
}

static int product_data(struct scsi_request *r, uint8_t code)
{
	uint8_t d[VPD_BYTES] = {0};
	unsigned len;

	for (unsigned i = 0; i < PAGES && r->unit; i++) {
		if (pages[i].code != code || (r->unit->cdrom && pages[i].disks_only))
			continue;
		len = pages[i].fill(r->unit, d + 4);
		d[0] = device_type(r);
		d[1] = code;
		put16(d + 2, len);
		return scsi_reply(r, d, 4 + len, be16(r->cdb + 3));
	}
	return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
}

int scsi_inquiry(struct scsi_request *r)
{
	enum { EVPD = 1, OBSOLETE = 2 };

	if (r->cdb[1] & OBSOLETE || (!(r->cdb[1] & EVPD) && r->cdb[2]))
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (r->cdb[1] & EVPD)
		return product_data(r, r->cdb[2]);
	return standard(r);
}

int scsi_report_luns(struct scsi_request *r)
{
	enum { WELL_KNOWN_ONLY = 1, ALL = 2, MIN_ALLOCATION = 16 };
	uint8_t d[16] = {0}; /* a header, and unit 0 */
	uint32_t allowed = be32(r->cdb + 6);
	unsigned len = r->cdb[2] == WELL_KNOWN_ONLY ? 8 : 16;

	if (r->cdb[2] > ALL || allowed < MIN_ALLOCATION)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	put32(d, len - 8);
	return scsi_reply(r, d, len, allowed);
}

/* Sense data went with the status of each command, so all there may be is a unit attention. */
int scsi_request_sense(struct scsi_request *r)
{
	uint8_t key = KEY_NONE, d[SCSI_SENSE_BYTES] = {0x70};
	uint16_t asc = ASC_NONE;

	if (!r->unit) {
		key = KEY_ILLEGAL_REQUEST;
		asc = ASC_BAD_LUN;
	} else if (r->unit->attention) {
		key = KEY_UNIT_ATTENTION;
		asc = r->unit->attention;
		r->unit->attention = 0;
	}
	if (r->cdb[1] & 1) { /* descriptor format (SPC-4 4.5.2.1) */
		uint8_t descriptor[8] = {0x72, key, (uint8_t)(asc >> 8), (uint8_t)asc};
		return scsi_reply(r, descriptor, sizeof(descriptor), r->cdb[4]);
	}
	d[2] = key;
	d[7] = SCSI_SENSE_BYTES - 8;
	put16(d + 12, asc);
	return scsi_reply(r, d, sizeof(d), r->cdb[4]);
}
