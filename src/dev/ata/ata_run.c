/* SPDX-License-Identifier: Apache-2.0 */
/* ATA drives: how a command runs. ata.h has the theory. */
#include <string.h>

#include "base/log.h"
#include "dev/ata/ata.h"

/* Copies between drive->data and where map said. The sizes were checked when the command began. */
static void copy_data(struct ata_command *c)
{
	uint8_t *data = c->drive->data + c->moved;

	for (unsigned i = 0; i < c->iov_count; i++) {
		if (c->to_host)
			memcpy(c->iov[i].iov_base, data, c->iov[i].iov_len);
		else
			memcpy(data, c->iov[i].iov_base, c->iov[i].iov_len);
		data += c->iov[i].iov_len;
	}
}

/* All data has moved. */
static void moved_all(struct ata_command *c)
{
	if (c->through)
		ata_request(c, DISK_FLUSH, 0, 0);
	else if (!c->media && !c->to_host)
		ata_next_trim(c);
	else
		ata_succeed(c);
}

static void moved_some(struct ata_command *c)
{
	struct ata_drive *d = c->drive;

	c->moved += c->iov_bytes;
	if (c->media)
		*(c->to_host ? &d->stats.read_bytes : &d->stats.written_bytes) += c->iov_bytes;
	c->phase = ATA_MOVE;
	d->ops->unmap(c, true);
	if (c->moved == c->bytes)
		moved_all(c);
}

/* ATA_MOVE: false, it has to wait. */
static bool move_step(struct ata_command *c)
{
	int rc = c->drive->ops->map(c);

	if (!rc)
		return false;
	if (rc < 0) {
		ata_fail(c, ATA_E_ABRT);
	} else if (!c->media) {
		copy_data(c);
		moved_some(c);
	} else {
		ata_request(c, c->to_host ? DISK_READ : DISK_WRITE, c->offset + c->moved,
			    c->iov_bytes);
		c->req.iov = c->iov;
		c->req.iov_count = c->iov_count;
	}
	return true;
}

/* ACS 6.3: a read reports where the medium is bad; a write that did not work is aborted. */
static void disk_failed(struct ata_command *c, int rc)
{
	struct ata_drive *d = c->drive;

	if (!d->stats.errors)
		log_warn("drive %s: the disk says %s; the guest is told so", d->serial,
			 strerror(-rc));
	if (d->cdrom) {
		atapi_failed(c, rc);
	} else if (c->req.op == DISK_READ) {
		ata_put_address(c, (c->offset + c->moved) / ATA_SECTOR);
		ata_fail(c, ATA_E_UNC);
	} else {
		ata_fail(c, ATA_E_ABRT);
	}
}

/* The disk is done with c->req. False: the command was cancelled, and may be another one by now. */
static bool disk_over(struct ata_command *c, int rc)
{
	struct ata_drive *d = c->drive;
	bool reading = c->req.op == DISK_READ;

	c->in_flight = false;
	d->in_flight--;
	if (c->cancelled) {
		if (reading)
			d->ops->unmap(c, false);
		ata_release_regions(c);
		c->cancelled = false;
		c->phase = ATA_IDLE;
		if (!--d->cancelled)
			d->ops->drained(d);
		return false;
	}
	if (rc) {
		if (reading)
			d->ops->unmap(c, false);
		ata_release_regions(c);
		disk_failed(c, rc);
		return true;
	}
	switch (c->req.op) {
	case DISK_READ:
	case DISK_WRITE:
		moved_some(c);
		break;
	case DISK_DISCARD:
		ata_next_trim(c);
		break;
	default:
		ata_succeed(c);
	}
	return true;
}

/* On the loop's thread. */
static void on_disk(struct disk_request *r, int rc)
{
	struct ata_command *c = r->opaque;
	struct ata_drive *d = c->drive;

	pthread_mutex_lock(d->lock);
	if (disk_over(c, rc)) {
		if (d->settling)
			c->stopped = true; /* the disk takes nothing while it is drained */
		else
			ata_run(c);
	}
	pthread_mutex_unlock(d->lock);
}

/* False: the disk will tell. The command may be over and used for another by then. */
static bool disk_step(struct ata_command *c)
{
	struct ata_drive *d = c->drive;
	int rc;

	c->req.done = on_disk;
	c->req.opaque = c;
	c->in_flight = true;
	if (++d->in_flight > d->stats.queue_most)
		d->stats.queue_most = d->in_flight;
	pthread_mutex_unlock(d->lock);
	rc = disk_submit(d->disk, &c->req);
	pthread_mutex_lock(d->lock);
	if (rc == DISK_LATER)
		return false;
	return disk_over(c, rc);
}

void ata_run(struct ata_command *c)
{
	bool on = true;

	while (on) {
		switch (c->phase) {
		case ATA_MOVE:
			on = move_step(c);
			break;
		case ATA_DISK:
			on = disk_step(c);
			break;
		case ATA_DONE:
			c->phase = ATA_IDLE;
			c->drive->ops->done(c);
			return;
		case ATA_IDLE:
			return;
		}
	}
}

void ata_cancel(struct ata_command *c)
{
	if (c->in_flight && !c->cancelled) {
		c->cancelled = true;
		c->drive->cancelled++;
		c->drive->stats.cancelled++;
	} else if (!c->in_flight) {
		c->phase = ATA_IDLE;
	}
}

void ata_settle(struct ata_drive *d, struct ata_command *commands, unsigned count)
{
	while (d->disk && __atomic_load_n(&d->in_flight, __ATOMIC_ACQUIRE)) {
		d->settling = true;
		disk_drain(d->disk);
		pthread_mutex_lock(d->lock);
		d->settling = false;
		for (unsigned i = 0; i < count; i++) {
			if (commands[i].stopped) {
				commands[i].stopped = false;
				ata_run(&commands[i]);
			}
		}
		pthread_mutex_unlock(d->lock);
	}
}

bool ata_drive_idle(const struct ata_drive *d)
{
	return !d->cancelled;
}
