/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: SBC-3's commands. A write is acknowledged when the host has it; with FUA, or when the guest
 * has turned the write cache off (WCE), a flush follows first. UNMAP may leave what it likes in the
 * blocks (LBPRZ is clear); zeros written by WRITE SAME read back as zeros, so the host may make
 * holes of them.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/scsi/scsi_internal.h"

enum { FUA = 0x08, BYTCHK_MASK = 0x06, BYTCHK_1 = 0x02 };
enum { BOUNCE_BYTES = 256 << 10, UNMAP_LIST_MAX = 8 + 16 * 256, SAME_MAX_BLOCKS = 65536 };

/* --- addresses --- */

/* Takes the LBA and count of a 6-, 10-, 12- or 16-byte CDB (SBC-3 5.8 and on). */
static void parse_range(struct scsi_request *r)
{
	const uint8_t *c = r->cdb;

	switch (c[0] >> 5) {
	case 0:
		r->lba = be32(c) & 0x1fffff;
		r->blocks = c[4] ? c[4] : 256;
		break;
	case 4:
		r->lba = be64(c + 2);
		r->blocks = be32(c + 10);
		break;
	case 5:
		r->lba = be32(c + 2);
		r->blocks = be32(c + 6);
		break;
	default:
		r->lba = be32(c + 2);
		r->blocks = be16(c + 7);
	}
}

static bool in_range(struct scsi_request *r, uint64_t lba, uint64_t blocks)
{
	if (lba <= r->unit->blocks && blocks <= r->unit->blocks - lba)
		return true;
	scsi_check_at(r, KEY_ILLEGAL_REQUEST, ASC_BAD_LBA, lba);
	return false;
}

bool scsi_is_ready(struct scsi_request *r)
{
	struct scsi_lun *lu = r->unit;

	if (!lu->disk || lu->ejected) {
		scsi_check(r, KEY_NOT_READY, ASC_NO_MEDIUM);
		return false;
	}
	if (lu->stopped) {
		scsi_check(r, KEY_NOT_READY, ASC_START_NEEDED);
		return false;
	}
	return true;
}

static bool is_writable(struct scsi_request *r)
{
	if (r->unit->read_only)
		scsi_check(r, KEY_DATA_PROTECT, ASC_WRITE_PROTECTED);
	return !r->unit->read_only;
}

static int over(struct scsi_request *r)
{
	(void)r;
	return OVER;
}

/* The data has been moved between the buffer and the disk. */
static int moved(struct scsi_request *r)
{
	r->transferred = r->data.bytes;
	return OVER;
}

static int flush(struct scsi_request *r, int (*step)(struct scsi_request *r))
{
	r->bus->stats.flushes++;
	return scsi_disk(r, DISK_FLUSH, 0, 0, NULL, 0, step);
}

static int after_write(struct scsi_request *r)
{
	r->transferred = r->data.bytes;
	if (r->cdb[0] >> 5 && r->cdb[1] & FUA)
		return flush(r, over);
	return r->unit->write_cache ? OVER : flush(r, over);
}

/* --- READ, WRITE --- */

/* Cuts the buffer to the blocks asked for. False: there is no room for them. */
static bool fit_data(struct scsi_request *r)
{
	uint64_t bytes = r->blocks * r->unit->block_bytes;

	if (r->data.bytes < bytes) {
		r->outcome = SCSI_OVERRUN;
		return false;
	}
	sgl_trim(&r->data, bytes);
	return true;
}

static int move(struct scsi_request *r, enum disk_op op, int (*step)(struct scsi_request *r))
{
	return scsi_disk(r, op, r->lba * r->unit->block_bytes, r->data.bytes, r->data.iov,
			 r->data.count, step);
}

int scsi_read(struct scsi_request *r)
{
	parse_range(r);
	if (!scsi_is_ready(r) || !in_range(r, r->lba, r->blocks) || !r->blocks || !fit_data(r))
		return OVER;
	r->bus->stats.reads++;
	r->bus->stats.read_bytes += r->data.bytes;
	return move(r, DISK_READ, moved);
}

static bool begin_write(struct scsi_request *r)
{
	parse_range(r);
	if (!scsi_is_ready(r) || !is_writable(r) || !in_range(r, r->lba, r->blocks) || !r->blocks ||
	    !fit_data(r))
		return false;
	r->bus->stats.writes++;
	r->bus->stats.write_bytes += r->data.bytes;
	return true;
}

static int write_blocks(struct scsi_request *r)
{
	return begin_write(r) ? move(r, DISK_WRITE, after_write) : OVER;
}

/* --- VERIFY: reads by pieces into a buffer of our own, and may compare --- */

static bool get_bounce(struct scsi_request *r)
{
	if (!r->bounce)
		r->bounce = malloc(2 * BOUNCE_BYTES); /* the second half: what to compare with */
	if (!r->bounce)
		r->status = SCSI_BUSY;
	return r->bounce;
}

static int verify_piece(struct scsi_request *r);

static int compare_piece(struct scsi_request *r)
{
	uint64_t bytes = r->disk.bytes, got;
	uint8_t *own = r->bounce + BOUNCE_BYTES;

	if ((r->cdb[1] & BYTCHK_MASK) == BYTCHK_1) {
		got = sgl_read(&r->data, r->at, own, bytes);
		if (got < bytes || memcmp(r->bounce, own, bytes))
			return scsi_check(r, KEY_MISCOMPARE, ASC_MISCOMPARE);
	}
	r->at += bytes;
	return verify_piece(r);
}

static int verify_piece(struct scsi_request *r)
{
	uint64_t left = r->blocks * r->unit->block_bytes - r->at;
	uint64_t bytes = left < BOUNCE_BYTES ? left : BOUNCE_BYTES;

	if (!left)
		return OVER;
	r->bounce_iov = (struct iovec){.iov_base = r->bounce, .iov_len = bytes};
	return scsi_disk(r, DISK_READ, r->lba * r->unit->block_bytes + r->at, bytes, &r->bounce_iov,
			 1, compare_piece);
}

static int verify(struct scsi_request *r)
{
	unsigned check = r->cdb[1] & BYTCHK_MASK;

	parse_range(r);
	if (!scsi_is_ready(r) || !in_range(r, r->lba, r->blocks) || !r->blocks)
		return OVER;
	if (check && check != BYTCHK_1)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (!check) {
		/* Read without a buffer: as much as a transfer may be, so that it has an end. */
		if (r->blocks * r->unit->block_bytes > SGL_BYTES_MAX)
			return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	} else if (!fit_data(r)) {
		return OVER;
	}
	if (!get_bounce(r))
		return OVER;
	r->transferred = check ? r->data.bytes : 0;
	return verify_piece(r);
}

/* What is verified is to be on the medium (SBC-3 5.46). */
static int verify_written(struct scsi_request *r)
{
	r->transferred = r->data.bytes;
	return flush(r, verify_piece);
}

static int write_and_verify(struct scsi_request *r)
{
	if (!begin_write(r) || !get_bounce(r))
		return OVER;
	return move(r, DISK_WRITE, verify_written);
}

/* --- SYNCHRONIZE CACHE --- */

static int sync_cache(struct scsi_request *r)
{
	parse_range(r);
	if (!scsi_is_ready(r) || !in_range(r, r->lba, r->blocks))
		return OVER;
	return flush(r, over);
}

/* --- UNMAP, WRITE SAME --- */

static int unmap_next(struct scsi_request *r)
{
	const uint8_t *d;
	uint64_t lba, blocks;

	for (; r->at < r->blocks; r->at++) {
		d = r->bounce + 8 + r->at * 16;
		lba = be64(d);
		blocks = be32(d + 8);
		if (!blocks)
			continue;
		r->at++;
		return scsi_disk(r, DISK_DISCARD, lba * r->unit->block_bytes,
				 blocks * r->unit->block_bytes, NULL, 0, unmap_next);
	}
	return OVER;
}

/* SBC-3 5.30: nothing is unmapped unless all of the list is right. */
static int unmap(struct scsi_request *r)
{
	enum { ANCHOR = 1 };
	uint32_t len = be16(r->cdb + 7), list;

	if (!scsi_is_ready(r) || !is_writable(r) || !len)
		return OVER;
	if (r->cdb[1] & ANCHOR)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (len < 8 || len > UNMAP_LIST_MAX)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_LIST_LENGTH);
	if (!get_bounce(r) || !scsi_take(r, r->bounce, len))
		return OVER;
	list = be16(r->bounce + 2);
	r->blocks = (list < len - 8 ? list : len - 8) / 16; /* descriptors, here */
	for (unsigned i = 0; i < r->blocks; i++)
		if (!in_range(r, be64(r->bounce + 8 + i * 16), be32(r->bounce + 16 + i * 16)))
			return OVER;
	r->bus->stats.discards++;
	return unmap_next(r);
}

static int same_next(struct scsi_request *r)
{
	uint64_t left = r->blocks * r->unit->block_bytes - r->at;
	uint64_t bytes = left < BOUNCE_BYTES ? left : BOUNCE_BYTES;
	uint64_t offset = r->lba * r->unit->block_bytes + r->at;

	if (!left)
		return r->unit->write_cache ? OVER : flush(r, over);
	r->at += bytes;
	r->bounce_iov = (struct iovec){.iov_base = r->bounce, .iov_len = bytes};
	return scsi_disk(r, DISK_WRITE, offset, bytes, &r->bounce_iov, 1, same_next);
}

/* SBC-3 5.43 and 5.44. Zeros, by their value or as NDOB, are left to the disk, in one piece. */
static int write_same(struct scsi_request *r)
{
	enum { ANCHOR = 0x10, NDOB = 0x01, OP_WRITE_SAME_16 = 0x93 };
	bool no_data = r->cdb[0] == OP_WRITE_SAME_16 && r->cdb[1] & NDOB, zero = true;
	uint64_t block = r->unit->block_bytes;

	parse_range(r);
	if (!scsi_is_ready(r) || !is_writable(r) || !in_range(r, r->lba, r->blocks))
		return OVER;
	/* A count of 0 would mean "to the end" (WSNZ); that, too, has the limit. */
	if (!r->blocks)
		r->blocks = r->unit->blocks - r->lba;
	if (r->cdb[1] & ANCHOR || r->blocks > SAME_MAX_BLOCKS || !r->blocks)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (!get_bounce(r) || (!no_data && !scsi_take(r, r->bounce, block)))
		return OVER;
	for (uint64_t i = 0; i < block && !no_data; i++)
		zero = zero && !r->bounce[i];
	r->bus->stats.writes++;
	r->bus->stats.write_bytes += r->blocks * block;
	if (zero) {
		r->at = r->blocks * block;
		return scsi_disk(r, DISK_WRITE_ZEROES, r->lba * block, r->at, NULL, 0, same_next);
	}
	for (uint64_t at = block; at < BOUNCE_BYTES; at += block)
		memcpy(r->bounce + at, r->bounce, block);
	return same_next(r);
}

/* --- READ CAPACITY --- */

int scsi_read_capacity(struct scsi_request *r)
{
	enum { OP_SERVICE_ACTION_IN = 0x9e, READ_CAPACITY_16 = 0x10, LBPME = 0x80 };
	struct scsi_lun *lu = r->unit;
	uint8_t d[32] = {0};
	uint64_t last;

	if (r->cdb[0] == OP_SERVICE_ACTION_IN && (r->cdb[1] & 0x1f) != READ_CAPACITY_16)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	if (!scsi_is_ready(r))
		return OVER;
	last = lu->blocks ? lu->blocks - 1 : 0;
	if (r->cdb[0] == OP_SERVICE_ACTION_IN) {
		put64(d, last);
		put32(d + 8, lu->block_bytes);
		d[14] = LBPME;
		return scsi_reply(r, d, 32, be32(r->cdb + 10));
	}
	put32(d, last < UINT32_MAX ? (uint32_t)last : UINT32_MAX);
	put32(d + 4, lu->block_bytes);
	return scsi_reply(r, d, 8, 8);
}

/* --- the rest --- */

int scsi_test_unit_ready(struct scsi_request *r)
{
	scsi_is_ready(r);
	return OVER;
}

int scsi_nothing(struct scsi_request *r)
{
	(void)r;
	return OVER;
}

/* Only the default self test (SPC-4 6.42), which finds all well. */
int scsi_send_diagnostic(struct scsi_request *r)
{
	enum { SELF_TEST = 0x04 };

	if (!(r->cdb[1] & SELF_TEST) || r->cdb[1] >> 5)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_FIELD);
	return OVER;
}

int scsi_prevent_removal(struct scsi_request *r)
{
	r->unit->locked = r->cdb[4] & 1;
	return OVER;
}

int scsi_start_stop(struct scsi_request *r)
{
	enum { START = 1, LOAD_EJECT = 2 };
	struct scsi_lun *lu = r->unit;
	uint8_t how = r->cdb[4];

	if (how >> 4) /* power conditions: there is one */
		return OVER;
	if (how & LOAD_EJECT && lu->cdrom) {
		if (!(how & START) && lu->locked)
			return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_LOCKED);
		lu->ejected = !(how & START);
		return OVER;
	}
	lu->stopped = !(how & START);
	return lu->stopped && lu->disk && !lu->read_only ? flush(r, over) : OVER;
}

int (*const scsi_disk_commands[256])(struct scsi_request *r) = {
	[0x00] = scsi_test_unit_ready,
	[0x03] = scsi_request_sense,
	[0x08] = scsi_read,
	[0x0a] = write_blocks,
	[0x12] = scsi_inquiry,
	[0x15] = scsi_mode_select,
	[0x16] = scsi_nothing, /* RESERVE(6): there is one initiator, */
	[0x17] = scsi_nothing, /* RELEASE(6): so these always succeed */
	[0x1a] = scsi_mode_sense,
	[0x1b] = scsi_start_stop,
	[0x1d] = scsi_send_diagnostic,
	[0x1e] = scsi_prevent_removal,
	[0x25] = scsi_read_capacity,
	[0x28] = scsi_read,
	[0x2a] = write_blocks,
	[0x2e] = write_and_verify,
	[0x2f] = verify,
	[0x35] = sync_cache,
	[0x41] = write_same,
	[0x42] = unmap,
	[0x55] = scsi_mode_select,
	[0x56] = scsi_nothing, /* RESERVE(10) */
	[0x57] = scsi_nothing, /* RELEASE(10) */
	[0x5a] = scsi_mode_sense,
	[0x88] = scsi_read,
	[0x8a] = write_blocks,
	[0x8e] = write_and_verify,
	[0x8f] = verify,
	[0x91] = sync_cache,
	[0x93] = write_same,
	[0x9e] = scsi_read_capacity,
	[0xa0] = scsi_report_luns,
	[0xa8] = scsi_read,
	[0xaa] = write_blocks,
	[0xae] = write_and_verify,
	[0xaf] = verify,
};
