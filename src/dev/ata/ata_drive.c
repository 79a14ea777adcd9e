/* SPDX-License-Identifier: Apache-2.0 */
/* ATA drives: their life and state. */
#include <errno.h>
#include <string.h>

#include "dev/ata/ata.h"

enum { GEOMETRY_HEADS = 16, GEOMETRY_SECTORS = 63 };
enum { MODE_UDMA = 0x40, SENSE_NONE = 0 };

static void power_on(struct ata_drive *d)
{
	d->multiple = ATA_MULTIPLE_MAX;
	d->transfer_mode = MODE_UDMA | 5;
	d->write_cache = d->look_ahead = d->smart = true;
	d->heads = GEOMETRY_HEADS;
	d->track_sectors = GEOMETRY_SECTORS;
	d->tray_open = false;
	d->media_event = 0;
}

void ata_drive_reset(struct ata_drive *d, bool power)
{
	if (power)
		power_on(d);
	d->standby = false;
	d->queue_error = false;
	d->locked = false;
	d->sense_key = SENSE_NONE;
	d->asc = d->ascq = 0;
	d->attention_reset = d->cdrom;
	d->attention_media = false;
	d->stats.resets++;
}

void ata_drive_init(struct ata_drive *d, bool sata, const struct ata_host_ops *ops,
		    pthread_mutex_t *lock, void *opaque)
{
	memset(d, 0, sizeof(*d));
	d->ops = ops;
	d->lock = lock;
	d->opaque = opaque;
	d->sata = sata;
	power_on(d);
}

int ata_drive_attach(struct ata_drive *d, const struct storage_unit *unit, struct error *err)
{
	d->present = true;
	d->cdrom = unit->cdrom;
	d->disk = unit->disk;
	strncpy(d->serial, unit->serial, sizeof(d->serial) - 1);
	if (d->disk) {
		struct disk_info info;
		disk_get_info(d->disk, &info);
		d->sectors = info.bytes / ATA_SECTOR;
		d->read_only = info.read_only || d->cdrom;
	}
	d->attention_reset = d->cdrom;
	if (!d->cdrom && !d->sectors)
		return error_set(err, -EINVAL, "drive %s: a disk of no sectors cannot be used",
				 d->serial);
	return 0;
}

/* ACS 9.2, table 206: by these values software tells drives apart. */
void ata_signature(const struct ata_drive *d, struct ata_regs *r)
{
	r->count = 1;
	r->lba = d->cdrom ? 0xeb1401 : 0x000001;
	r->device = 0;
	r->error = 1; /* diagnostics passed */
	r->status = d->cdrom ? 0 : ATA_READY;
}

/* --- state --- */

void ata_regs_state(struct ata_regs *r, struct state_stream *s)
{
	state_u8(s, &r->command);
	state_u8(s, &r->device);
	state_u8(s, &r->status);
	state_u8(s, &r->error);
	state_u16(s, &r->feature);
	state_u16(s, &r->count);
	state_u64(s, &r->lba);
	if (r->lba >> 48) {
		state_fail(s, "an address of more than 48 bits");
		r->lba = 0;
	}
}

/* A restored geometry divides, and `multiple` counts sectors of a buffer. */
static bool settings_valid(const struct ata_drive *d)
{
	return d->heads && d->heads <= 16 && d->track_sectors && d->track_sectors <= 255 &&
	       d->multiple <= ATA_MULTIPLE_MAX && !(d->multiple & (d->multiple - 1));
}

void ata_drive_state(struct ata_drive *d, struct state_stream *s)
{
	bool present = d->present, cdrom = d->cdrom;
	uint64_t sectors = d->sectors;

	state_bool(s, &present);
	state_bool(s, &cdrom);
	state_u64(s, &sectors);
	if (present != d->present || cdrom != d->cdrom || sectors != d->sectors)
		state_fail(s, "another drive or disk was there when it was saved");
	state_u8(s, &d->multiple);
	state_u8(s, &d->transfer_mode);
	state_bool(s, &d->write_cache);
	state_bool(s, &d->look_ahead);
	state_bool(s, &d->smart);
	state_bool(s, &d->standby);
	state_u16(s, &d->heads);
	state_u16(s, &d->track_sectors);
	state_bool(s, &d->queue_error);
	state_raw(s, d->error_log, sizeof(d->error_log));
	state_u8(s, &d->sense_key);
	state_u8(s, &d->asc);
	state_u8(s, &d->ascq);
	state_bool(s, &d->attention_reset);
	state_bool(s, &d->attention_media);
	state_bool(s, &d->tray_open);
	state_bool(s, &d->locked);
	state_u8(s, &d->media_event);
	state_raw(s, d->data, sizeof(d->data));
	d->sense_key &= 15;
	d->media_event &= 15;
	if (!settings_valid(d)) {
		state_fail(s, "settings that no drive has");
		power_on(d);
	}
}

/* What a restored command says has to be what ata_start could have left. */
static bool command_valid(const struct ata_command *c)
{
	const struct ata_drive *d = c->drive;
	uint64_t limit = c->media ? d->sectors * ATA_SECTOR : ATA_DATA_BYTES;
	uint64_t offset = c->media ? c->offset : 0;

	if (c->phase == ATA_IDLE)
		return true;
	if (c->phase != ATA_MOVE || !d->present || (c->media && !d->disk) ||
	    c->protocol > ATA_PACKET_DMA || c->protocol == ATA_QUEUED || c->bytes > limit ||
	    offset > limit - c->bytes || c->moved >= c->bytes)
		return false;
	if (c->media && ((c->bytes | c->offset | c->moved) % ATA_SECTOR || !c->block_bytes))
		return false;
	if (c->media && !c->to_host && d->read_only)
		return false;
	/* Only a TRIM takes data that is not for the disk. */
	return c->media || c->to_host || (c->regs.command == 0x06 && !(c->bytes % ATA_SECTOR));
}

void ata_command_state(struct ata_command *c, struct state_stream *s)
{
	uint8_t protocol = (uint8_t)c->protocol, phase = (uint8_t)c->phase;

	ata_regs_state(&c->regs, s);
	state_raw(s, c->packet, sizeof(c->packet));
	state_u8(s, &protocol);
	state_u8(s, &phase);
	state_bool(s, &c->to_host);
	state_bool(s, &c->media);
	state_bool(s, &c->through);
	state_bool(s, &c->ext);
	state_u64(s, &c->bytes);
	state_u64(s, &c->moved);
	state_u64(s, &c->offset);
	state_u32(s, &c->block_bytes);
	if (state_writing(s))
		return;
	c->protocol = protocol;
	c->phase = phase;
	c->range = 0;
	if (!command_valid(c)) {
		state_fail(s, "a command that no guest can have given");
		c->phase = ATA_IDLE;
	}
}
