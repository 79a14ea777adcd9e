/* SPDX-License-Identifier: Apache-2.0 */
/* ATA drives: their commands. */
#include "dev/ata/ata.h"

#include <string.h>

enum { FEATURE_TRIM = 1, TRIM_ENTRY_BYTES = 8 };
enum { TAKES_DISK = 1, TAKES_CD = 2, TAKES_BOTH = 3 };

/* What a command is made of, for the commands that only say where they read and write. */
enum { READS = 1, WRITES = 2, EXT = 4, MULTIPLE = 8, FUA = 16 };

/* --- the end of a command, and its data --- */

void ata_succeed(struct ata_command *c)
{
	c->regs.status = ATA_READY;
	c->regs.error = 0;
	c->phase = ATA_DONE;
}

void ata_fail(struct ata_command *c, uint8_t error)
{
	c->regs.status = ATA_READY | ATA_ERR;
	c->regs.error = error;
	c->phase = ATA_DONE;
	c->drive->stats.errors++;
	if (c->protocol == ATA_QUEUED)
		ata_note_queue_error(c);
}

static void move(struct ata_command *c, bool to_host, bool media, uint64_t bytes)
{
	c->to_host = to_host;
	c->media = media;
	c->bytes = bytes;
	c->moved = 0;
	c->phase = bytes ? ATA_MOVE : ATA_DONE;
	c->regs.status = ATA_READY;
	c->regs.error = 0;
}

void ata_data_in(struct ata_command *c, uint64_t bytes)
{
	move(c, true, false, bytes);
}

void ata_data_out(struct ata_command *c, uint64_t bytes)
{
	move(c, false, false, bytes);
}

void ata_media(struct ata_command *c, bool to_host, uint64_t offset, uint64_t bytes)
{
	c->offset = offset;
	move(c, to_host, true, bytes);
}

void ata_request(struct ata_command *c, enum disk_op op, uint64_t offset, uint64_t bytes)
{
	c->req.op = op;
	c->req.offset = offset;
	c->req.bytes = bytes;
	c->req.iov = NULL;
	c->req.iov_count = 0;
	c->phase = ATA_DISK;
}

/* --- where a command points --- */

/* ACS 6.1: CHS, 28 or 48 bits. UINT64_MAX: nowhere. */
static uint64_t address_of(const struct ata_command *c, bool ext)
{
	const struct ata_regs *r = &c->regs;
	const struct ata_drive *d = c->drive;

	if (ext)
		return r->lba;
	if (r->device & ATA_DEV_LBA)
		return (r->lba & 0xffffff) | (uint64_t)(r->device & 15) << 24;
	uint64_t sector = r->lba & 0xff, cylinder = r->lba >> 8 & 0xffff, head = r->device & 15;
	if (!sector || sector > d->track_sectors || head >= d->heads)
		return UINT64_MAX;
	return (cylinder * d->heads + head) * d->track_sectors + sector - 1;
}

void ata_put_address(struct ata_command *c, uint64_t lba)
{
	struct ata_regs *r = &c->regs;

	if (c->ext) {
		r->lba = lba;
	} else if (r->device & ATA_DEV_LBA) {
		r->lba = (r->lba & ~UINT64_C(0xffffff)) | (lba & 0xffffff);
		r->device = (uint8_t)((r->device & 0xf0) | (lba >> 24 & 15));
	}
}

static uint32_t count_of(uint16_t count, bool ext)
{
	if (ext)
		return count ? count : 0x10000;
	return count & 0xff ? count & 0xff : 0x100;
}

static bool inside(const struct ata_drive *d, uint64_t lba, uint64_t sectors)
{
	return lba < d->sectors && sectors <= d->sectors - lba;
}

/* READ and WRITE in all their kinds; VERIFY reads nothing. */
static void read_write(struct ata_command *c, unsigned flags)
{
	struct ata_drive *d = c->drive;
	bool queued = c->protocol == ATA_QUEUED;
	uint32_t sectors = count_of(queued ? c->regs.feature : c->regs.count, flags & EXT);
	uint64_t lba = address_of(c, flags & EXT);

	if (flags & MULTIPLE && !d->multiple) {
		ata_fail(c, ATA_E_ABRT);
		return;
	}
	if (!inside(d, lba, sectors)) {
		ata_fail(c, ATA_E_IDNF);
		return;
	}
	if (flags & WRITES && d->read_only) {
		ata_fail(c, ATA_E_ABRT);
		return;
	}
	if (!(flags & (READS | WRITES))) {
		ata_succeed(c);
		return;
	}
	c->ext = flags & EXT;
	c->block_bytes = ATA_SECTOR * (flags & MULTIPLE ? d->multiple : 1u);
	c->through = flags & WRITES &&
		     (flags & FUA || !d->write_cache || (queued && c->regs.device & ATA_DEV_FUA));
	ata_media(c, flags & READS, lba * ATA_SECTOR, (uint64_t)sectors * ATA_SECTOR);
}

/* --- commands --- */

static void do_read(struct ata_command *c)
{
	read_write(c, READS);
}

static void do_read_ext(struct ata_command *c)
{
	read_write(c, READS | EXT);
}

static void do_read_multiple(struct ata_command *c)
{
	read_write(c, READS | MULTIPLE);
}

static void do_read_multiple_ext(struct ata_command *c)
{
	read_write(c, READS | MULTIPLE | EXT);
}

static void do_write(struct ata_command *c)
{
	read_write(c, WRITES);
}

static void do_write_ext(struct ata_command *c)
{
	read_write(c, WRITES | EXT);
}

static void do_write_fua_ext(struct ata_command *c)
{
	read_write(c, WRITES | EXT | FUA);
}

static void do_write_multiple(struct ata_command *c)
{
	read_write(c, WRITES | MULTIPLE);
}

static void do_write_multiple_ext(struct ata_command *c)
{
	read_write(c, WRITES | MULTIPLE | EXT);
}

static void do_write_multiple_fua_ext(struct ata_command *c)
{
	read_write(c, WRITES | MULTIPLE | EXT | FUA);
}

static void do_verify(struct ata_command *c)
{
	read_write(c, 0);
}

static void do_verify_ext(struct ata_command *c)
{
	read_write(c, EXT);
}

static void do_read_native_max(struct ata_command *c)
{
	uint64_t last = c->drive->sectors - 1;

	if (last > 0xfffffff)
		last = 0xfffffff;
	c->regs.device = (uint8_t)((c->regs.device & 0xf0) | last >> 24);
	c->regs.lba = last & 0xffffff;
	ata_succeed(c);
}

static void do_read_native_max_ext(struct ata_command *c)
{
	c->regs.lba = c->drive->sectors - 1;
	ata_succeed(c);
}

static void do_flush(struct ata_command *c)
{
	c->drive->stats.flushes++;
	ata_request(c, DISK_FLUSH, 0, 0);
}

/* ACS-3 7.5: count is in blocks of 64 ranges. */
static void do_trim(struct ata_command *c)
{
	if (!(c->regs.feature & FEATURE_TRIM) || !c->regs.count ||
	    c->regs.count > ATA_TRIM_BLOCKS || c->drive->read_only) {
		ata_fail(c, ATA_E_ABRT);
		return;
	}
	c->range = 0;
	ata_data_out(c, (uint64_t)c->regs.count * ATA_SECTOR);
}

void ata_next_trim(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	unsigned entries = (unsigned)(c->bytes / TRIM_ENTRY_BYTES);
	uint64_t lba = 0, sectors = 0;

	for (; c->range < entries; c->range++) {
		uint64_t entry;
		memcpy(&entry, d->data + (size_t)c->range * TRIM_ENTRY_BYTES, sizeof(entry));
		uint64_t from = entry & UINT64_C(0xffffffffffff), n = entry >> 48;
		if (!n)
			continue;
		if (!inside(d, from, n)) {
			ata_fail(c, ATA_E_IDNF);
			return;
		}
		if (sectors && from != lba + sectors)
			break;
		if (!sectors)
			lba = from;
		sectors += n;
	}
	if (!sectors) {
		ata_succeed(c);
		return;
	}
	d->stats.trimmed_bytes += sectors * ATA_SECTOR;
	ata_request(c, DISK_DISCARD, lba * ATA_SECTOR, sectors * ATA_SECTOR);
}

static void do_set_multiple(struct ata_command *c)
{
	unsigned n = c->regs.count & 0xff;

	if (n > ATA_MULTIPLE_MAX || n & (n - 1)) {
		ata_fail(c, ATA_E_ABRT);
		return;
	}
	c->drive->multiple = (uint8_t)n;
	ata_succeed(c);
}

/* INITIALIZE DEVICE PARAMETERS, of ATA-5 8.16: what CHS addresses mean. */
static void do_set_geometry(struct ata_command *c)
{
	unsigned sectors = c->regs.count & 0xff;

	if (!sectors || sectors > 63) {
		ata_fail(c, ATA_E_ABRT);
		return;
	}
	c->drive->track_sectors = (uint16_t)sectors;
	c->drive->heads = (uint16_t)((c->regs.device & 15) + 1);
	ata_succeed(c);
}

/* SET FEATURES 03h (ACS 7.45.2): the mode in the count's upper five bits. It changes nothing but
 * what IDENTIFY says: PIO up to 4, multi-word DMA up to 2, Ultra DMA up to 5 (6 on SATA). */
static bool set_transfer_mode(struct ata_drive *d, unsigned mode)
{
	unsigned n = mode & 7;

	switch (mode >> 3) {
	case 0:
		return n <= 1;
	case 1:
		return n <= 4;
	case 4:
		if (n > 2)
			return false;
		break;
	case 8:
		if (n > (d->sata ? 6u : 5u))
			return false;
		break;
	default:
		return false;
	}
	d->transfer_mode = (uint8_t)mode;
	return true;
}

static void do_set_features(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	bool ok = true;

	switch (c->regs.feature & 0xff) {
	case 0x02:
	case 0x82:
		ok = !d->cdrom;
		d->write_cache = !(c->regs.feature & 0x80);
		break;
	case 0x03:
		ok = set_transfer_mode(d, c->regs.count & 0xff);
		break;
	case 0xaa:
	case 0x55:
		ok = !d->cdrom;
		d->look_ahead = (c->regs.feature & 0xff) == 0xaa;
		break;
	case 0x66: /* keep settings over a software reset, or not: they are kept */
	case 0xcc:
		break;
	default:
		ok = false;
	}
	if (!ok)
		ata_fail(c, ATA_E_ABRT);
	else if (d->cdrom || d->write_cache || (c->regs.feature & 0xff) != 0x82)
		ata_succeed(c);
	else
		do_flush(c); /* what the cache held */
}

static void do_nothing(struct ata_command *c)
{
	ata_succeed(c);
}

/* STANDBY: what is cached goes to the disk. */
static void do_standby(struct ata_command *c)
{
	c->drive->standby = true;
	do_flush(c);
}

static void do_idle(struct ata_command *c)
{
	c->drive->standby = false;
	ata_succeed(c);
}

static void do_check_power(struct ata_command *c)
{
	c->regs.count = c->drive->standby ? 0x00 : 0xff;
	ata_succeed(c);
}

/* A CD drive puts its signature there, by which it is told from a disk (ACS 7.16.6). */
static void do_identify(struct ata_command *c)
{
	if (c->drive->cdrom) {
		struct ata_regs r;
		ata_signature(c->drive, &r);
		c->regs.lba = r.lba;
		c->regs.count = r.count;
		ata_fail(c, ATA_E_ABRT);
		return;
	}
	ata_identify(c);
}

static void do_device_reset(struct ata_command *c)
{
	uint8_t device = c->regs.device & 0x10;

	ata_drive_reset(c->drive, false);
	ata_signature(c->drive, &c->regs);
	c->regs.device |= device;
	c->regs.status = 0;
	c->phase = ATA_DONE;
}

static void do_diagnostic(struct ata_command *c)
{
	ata_signature(c->drive, &c->regs);
	c->phase = ATA_DONE;
}

/* ACS clause 7; those that are not here are aborted. */
struct operation {
	void (*start)(struct ata_command *c);
	uint8_t takes;
	uint8_t protocol; /* enum ata_protocol */
};

static const struct operation operations[256] = {
	[0x06] = {do_trim, TAKES_DISK, ATA_DMA}, /* DATA SET MANAGEMENT */
	[ATA_CMD_DEVICE_RESET] = {do_device_reset, TAKES_CD, ATA_NO_DATA},
	[0x10] = {do_nothing, TAKES_DISK, ATA_NO_DATA}, /* RECALIBRATE, of ATA-3 */
	[0x20] = {do_read, TAKES_DISK, ATA_PIO},
	[0x21] = {do_read, TAKES_DISK, ATA_PIO}, /* without retries, of ATA-3 */
	[0x24] = {do_read_ext, TAKES_DISK, ATA_PIO},
	[0x25] = {do_read_ext, TAKES_DISK, ATA_DMA},
	[0x27] = {do_read_native_max_ext, TAKES_DISK, ATA_NO_DATA},
	[0x29] = {do_read_multiple_ext, TAKES_DISK, ATA_PIO},
	[0x2f] = {ata_read_log, TAKES_DISK, ATA_PIO},
	[0x30] = {do_write, TAKES_DISK, ATA_PIO},
	[0x31] = {do_write, TAKES_DISK, ATA_PIO},
	[0x34] = {do_write_ext, TAKES_DISK, ATA_PIO},
	[0x35] = {do_write_ext, TAKES_DISK, ATA_DMA},
	[0x39] = {do_write_multiple_ext, TAKES_DISK, ATA_PIO},
	[0x3d] = {do_write_fua_ext, TAKES_DISK, ATA_DMA},
	[0x40] = {do_verify, TAKES_DISK, ATA_NO_DATA},
	[0x41] = {do_verify, TAKES_DISK, ATA_NO_DATA},
	[0x42] = {do_verify_ext, TAKES_DISK, ATA_NO_DATA},
	[0x47] = {ata_read_log, TAKES_DISK, ATA_DMA},
	[ATA_CMD_READ_FPDMA] = {do_read_ext, TAKES_DISK, ATA_QUEUED},
	[ATA_CMD_WRITE_FPDMA] = {do_write_ext, TAKES_DISK, ATA_QUEUED},
	[0x70] = {do_verify, TAKES_DISK, ATA_NO_DATA}, /* SEEK, of ATA-6 */
	[ATA_CMD_DIAGNOSTIC] = {do_diagnostic, TAKES_BOTH, ATA_NO_DATA},
	[0x91] = {do_set_geometry, TAKES_DISK, ATA_NO_DATA},
	[0x94] = {do_standby, TAKES_DISK, ATA_NO_DATA}, /* 94h-98h: as E0h-E5h, of ATA-3 */
	[0x95] = {do_idle, TAKES_DISK, ATA_NO_DATA},
	[0x96] = {do_standby, TAKES_DISK, ATA_NO_DATA},
	[0x97] = {do_idle, TAKES_DISK, ATA_NO_DATA},
	[0x98] = {do_check_power, TAKES_DISK, ATA_NO_DATA},
	[ATA_CMD_PACKET] = {atapi_start, TAKES_CD, ATA_PACKET_PIO},
	[0xa1] = {ata_identify, TAKES_CD, ATA_PIO},
	[0xb0] = {ata_smart, TAKES_DISK, ATA_PIO},
	[0xc4] = {do_read_multiple, TAKES_DISK, ATA_PIO},
	[0xc5] = {do_write_multiple, TAKES_DISK, ATA_PIO},
	[0xc6] = {do_set_multiple, TAKES_DISK, ATA_NO_DATA},
	[0xc8] = {do_read, TAKES_DISK, ATA_DMA},
	[0xc9] = {do_read, TAKES_DISK, ATA_DMA},
	[0xca] = {do_write, TAKES_DISK, ATA_DMA},
	[0xcb] = {do_write, TAKES_DISK, ATA_DMA},
	[0xce] = {do_write_multiple_fua_ext, TAKES_DISK, ATA_PIO},
	[0xe0] = {do_standby, TAKES_DISK, ATA_NO_DATA},
	[0xe1] = {do_idle, TAKES_BOTH, ATA_NO_DATA},
	[0xe2] = {do_standby, TAKES_DISK, ATA_NO_DATA},
	[0xe3] = {do_idle, TAKES_DISK, ATA_NO_DATA},
	[0xe5] = {do_check_power, TAKES_BOTH, ATA_NO_DATA},
	[0xe6] = {do_standby, TAKES_DISK, ATA_NO_DATA}, /* SLEEP, from which any command wakes */
	[0xe7] = {do_flush, TAKES_DISK, ATA_NO_DATA},
	[0xea] = {do_flush, TAKES_DISK, ATA_NO_DATA},
	[0xec] = {do_identify, TAKES_BOTH, ATA_PIO},
	[0xef] = {do_set_features, TAKES_BOTH, ATA_NO_DATA},
	[0xf8] = {do_read_native_max, TAKES_DISK, ATA_NO_DATA},
};

static bool is_log_read(const struct ata_command *c)
{
	return (c->regs.command == 0x2f || c->regs.command == 0x47) && (c->regs.lba & 0xff) == 0x10;
}

void ata_start(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	const struct operation *o = &operations[c->regs.command];

	c->protocol = o->protocol;
	c->cancelled = c->stopped = c->through = c->ext = c->media = c->to_host = false;
	c->bytes = c->moved = 0;
	c->block_bytes = ATA_SECTOR;
	c->iov_count = 0;
	c->phase = ATA_DONE;
	d->stats.commands++;
	if (!o->start || !(o->takes & (d->cdrom ? TAKES_CD : TAKES_DISK)) ||
	    (c->protocol == ATA_QUEUED && !d->sata)) {
		c->protocol = ATA_NO_DATA;
		ata_fail(c, ATA_E_ABRT);
	} else if (d->queue_error && !is_log_read(c)) {
		ata_fail(c, ATA_E_ABRT);
	} else {
		if (c->protocol == ATA_QUEUED)
			d->stats.queued++;
		o->start(c);
	}
}
