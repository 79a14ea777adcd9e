/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SCSI target core: how a command lives. SAM-5 is the architecture, SPC-4 the commands of all
 * devices, SBC-3 those of disks and MMC-6 those of CD drives.
 *
 *   the controller:  scsi_request_new, fills it in, scsi_submit
 *        |
 *        v   a handler by operation code: checks the CDB, then answers (OVER) or wants the DISK
 *   start(r) ----------- OVER ------------------------------------------------.
 *        | DISK                                                               |
 *        v                                                                    v
 *   disk_submit --- over at once -> step(r): the next piece (DISK), or OVER -> finish: done(r)
 *        | DISK_LATER                  ^
 *        '-- on the loop's thread -----'
 *
 * A request in flight cannot be taken back from the host: an abort marks it, and it ends when the
 * disk lets go. A reset cannot leave that open: a guest that has seen its reset end takes its buffers
 * for its own again, and writes the same blocks anew. So a reset marks its requests too, and waits
 * for the disk (disk_drain) with the lock open, since they end through `done`.
 *
 * Logical units look like VMware's virtual disks ("VMware", "Virtual disk"): guests made there find
 * the disks' names in /dev/disk/by-id, the driver settings and licences that hang on these strings.
 */
#include "dev/scsi/scsi_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SPARES_MAX = 64, CD_BLOCK_BYTES = 2048 };

/* --- lists of requests --- */

static void link_request(struct scsi_bus *b, struct scsi_request *r)
{
	r->next = NULL;
	r->link = b->flight_end;
	*b->flight_end = r;
	b->flight_end = &r->next;
	b->in_flight++;
}

static void unlink_request(struct scsi_bus *b, struct scsi_request *r)
{
	*r->link = r->next;
	if (r->next)
		r->next->link = r->link;
	else
		b->flight_end = r->link;
	b->in_flight--;
}

static void request_done(struct disk_request *d, int rc);

/* Commands that only take data. Others may write to the buffer that they get. */
static bool only_takes_data(uint8_t op)
{
	switch (op) {
	case 0x0a: /* WRITE, */
	case 0x2a:
	case 0x8a:
	case 0xaa:
	case 0x2e: /* WRITE AND VERIFY, */
	case 0x8e:
	case 0xae:
	case 0x2f: /* VERIFY, */
	case 0x8f:
	case 0xaf:
	case 0x41: /* WRITE SAME, */
	case 0x93:
	case 0x42: /* UNMAP, */
	case 0x15: /* MODE SELECT */
	case 0x55:
		return true;
	default:
		return false;
	}
}

struct scsi_request *scsi_request_new(struct scsi_bus *b, const uint8_t *cdb, unsigned cdb_bytes)
{
	struct scsi_request *r = b->spare;
	struct scsi_sgl data = {0};

	if (r) {
		b->spare = r->next;
		b->spares--;
		data = r->data;
	} else {
		r = malloc(sizeof(*r));
		if (!r)
			return NULL;
	}
	memset(r, 0, sizeof(*r));
	r->data = data;
	memcpy(r->cdb, cdb, cdb_bytes);
	r->data.write = !only_takes_data(r->cdb[0]);
	r->bus = b;
	r->disk.done = request_done;
	r->disk.opaque = r;
	return r;
}

static void destroy_request(struct scsi_request *r)
{
	sgl_free(&r->data);
	free(r->bounce);
	free(r);
}

void scsi_request_free(struct scsi_request *r)
{
	struct scsi_bus *b = r->bus;

	free(r->bounce);
	r->bounce = NULL;
	if (b->spares == SPARES_MAX) {
		destroy_request(r);
		return;
	}
	sgl_clear(&r->data);
	r->next = b->spare;
	b->spare = r;
	b->spares++;
}

/* --- answers --- */

int scsi_check(struct scsi_request *r, uint8_t key, uint16_t asc)
{
	/* Fixed format, current (SPC-4 4.5.3). */
	r->status = SCSI_CHECK_CONDITION;
	memset(r->sense, 0, sizeof(r->sense));
	r->sense[0] = 0x70;
	r->sense[2] = key;
	r->sense[7] = SCSI_SENSE_BYTES - 8;
	put16(r->sense + 12, asc);
	r->sense_len = SCSI_SENSE_BYTES;
	return OVER;
}

int scsi_check_at(struct scsi_request *r, uint8_t key, uint16_t asc, uint64_t lba)
{
	scsi_check(r, key, asc);
	if (lba <= UINT32_MAX) {
		r->sense[0] |= 0x80; /* the information field is valid */
		put32(r->sense + 3, (uint32_t)lba);
	}
	return OVER;
}

int scsi_reply(struct scsi_request *r, const void *data, uint64_t len, uint64_t allowed)
{
	r->transferred = sgl_write(&r->data, data, len < allowed ? len : allowed);
	return OVER;
}

bool scsi_take(struct scsi_request *r, void *buf, uint64_t len)
{
	if (r->data.bytes < len) {
		r->outcome = SCSI_OVERRUN;
		return false;
	}
	r->transferred = sgl_read(&r->data, 0, buf, len);
	return true;
}

/* What the host's disk says, in SCSI's words. */
static void check_disk(struct scsi_request *r, int rc)
{
	uint64_t lba = r->disk.offset / r->unit->block_bytes;

	switch (rc) {
	case -EROFS:
		scsi_check(r, KEY_DATA_PROTECT, ASC_WRITE_PROTECTED);
		break;
	case -ENOSPC: /* SBC-3 4.7.3.6: nothing was lost, and it may work later */
		scsi_check(r, KEY_DATA_PROTECT, ASC_NO_SPACE);
		break;
	case -ENOMEM:
		r->status = SCSI_BUSY;
		break;
	case -EIO:
		scsi_check_at(r, KEY_MEDIUM_ERROR,
			      r->disk.op == DISK_READ ? ASC_READ_ERROR : ASC_WRITE_ERROR, lba);
		break;
	default:
		scsi_check(r, KEY_HARDWARE_ERROR, ASC_INTERNAL);
	}
}

/* --- a command's life --- */

static void finish(struct scsi_request *r)
{
	struct scsi_bus *b = r->bus;

	unlink_request(b, r);
	b->stats.checks += r->outcome == SCSI_DONE && r->status == SCSI_CHECK_CONDITION;
	b->cfg.done(b->cfg.opaque, r);
	scsi_request_free(r);
}

/* A piece was read into the guest's buffer, whether well or not. */
static void after_disk(struct scsi_request *r)
{
	if (r->disk.op == DISK_READ && r->disk.iov == r->data.iov)
		sgl_written(&r->data);
}

static void go_on(struct scsi_request *r, int what)
{
	int rc;

	while (what == DISK) {
		rc = disk_submit(r->unit->disk, &r->disk);
		if (rc == DISK_LATER) {
			r->bus->stats.later++;
			return;
		}
		after_disk(r);
		if (rc)
			check_disk(r, rc);
		what = rc ? OVER : r->step(r);
	}
	finish(r);
}

/* On the loop's thread, or on that of whoever waits in disk_drain. */
static void request_done(struct disk_request *d, int rc)
{
	struct scsi_request *r = d->opaque;
	pthread_mutex_t *lock = r->bus->cfg.lock;
	int what = OVER;

	pthread_mutex_lock(lock);
	after_disk(r);
	if (r->end_as)
		r->outcome = r->end_as;
	else if (rc)
		check_disk(r, rc);
	else
		what = r->step(r);
	go_on(r, what);
	pthread_mutex_unlock(lock);
}

int scsi_disk(struct scsi_request *r, enum disk_op op, uint64_t offset, uint64_t bytes,
	      const struct iovec *iov, unsigned iov_count, int (*step)(struct scsi_request *r))
{
	r->disk.op = op;
	r->disk.offset = offset;
	r->disk.bytes = bytes;
	r->disk.iov = iov;
	r->disk.iov_count = iov_count;
	r->step = step;
	return DISK;
}

/* --- dispatch --- */

enum { OP_REQUEST_SENSE = 0x03, OP_INQUIRY = 0x12, OP_REPORT_LUNS = 0xa0 };
enum { OP_GET_EVENT_STATUS = 0x4a };

/* SAM-5 5.14: these go through while a unit attention waits. */
static bool ignores_attention(uint8_t op)
{
	return op == OP_INQUIRY || op == OP_REPORT_LUNS || op == OP_REQUEST_SENSE ||
	       op == OP_GET_EVENT_STATUS;
}

/* Peripheral device or flat space addressing of one level (SAM-5 4.7.7): 0 is the only unit. */
static bool is_lun_0(const uint8_t *lun)
{
	static const uint8_t zero[6];

	return (lun[0] == 0 || lun[0] == 0x40) && !lun[1] && !memcmp(lun + 2, zero, 6);
}

/* A logical unit that is not there answers three commands (SPC-4 5.7, SAM-5 5.15). */
static int start_no_lun(struct scsi_request *r)
{
	uint8_t op = r->cdb[0];

	if (op == OP_INQUIRY || op == OP_REPORT_LUNS || op == OP_REQUEST_SENSE)
		return op == OP_INQUIRY	      ? scsi_inquiry(r)
		       : op == OP_REPORT_LUNS ? scsi_report_luns(r)
					      : scsi_request_sense(r);
	return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_LUN);
}

static int start(struct scsi_request *r)
{
	struct scsi_bus *b = r->bus;
	uint8_t op = r->cdb[0];
	struct scsi_lun *lu = r->target < SCSI_TARGETS_MAX ? b->unit[r->target] : NULL;
	int (*handler)(struct scsi_request * r);
	uint16_t asc;

	if (!lu) {
		r->outcome = SCSI_NO_TARGET;
		return OVER;
	}
	if (!is_lun_0(r->lun))
		return start_no_lun(r);
	r->unit = lu;
	if (lu->attention && !ignores_attention(op)) {
		asc = lu->attention;
		lu->attention = 0;
		return scsi_check(r, KEY_UNIT_ATTENTION, asc);
	}
	handler = (lu->cdrom ? scsi_cd_commands : scsi_disk_commands)[op];
	if (!handler)
		return scsi_check(r, KEY_ILLEGAL_REQUEST, ASC_BAD_COMMAND);
	return handler(r);
}

void scsi_submit(struct scsi_request *r)
{
	struct scsi_bus *b = r->bus;

	b->stats.commands++;
	link_request(b, r);
	go_on(r, start(r));
}

/* --- task management --- */

static bool is_for(const struct scsi_request *r, unsigned target)
{
	return target == SCSI_ALL_TARGETS || r->target == target;
}

unsigned scsi_abort(struct scsi_bus *b, unsigned target, uint64_t tag)
{
	unsigned n = 0;

	b->stats.aborts++;
	for (struct scsi_request *r = b->flight; r; r = r->next)
		if (is_for(r, target) && r->tag == tag && !r->end_as) {
			r->end_as = SCSI_ABORTED;
			n++;
		}
	return n;
}

bool scsi_is_in_flight(const struct scsi_bus *b, unsigned target, uint64_t tag)
{
	for (const struct scsi_request *r = b->flight; r; r = r->next)
		if (is_for(r, target) && r->tag == tag)
			return true;
	return false;
}

static struct scsi_request *first_for(struct scsi_bus *b, unsigned target)
{
	struct scsi_request *r = b->flight;

	while (r && !is_for(r, target))
		r = r->next;
	return r;
}

/* A request of several pieces submits the next one from within disk_drain, which waits for that,
 * too; one whose `done` is just being called on another thread, or that a held disk keeps back, is
 * looked at again a little later. */
static void drain(struct scsi_bus *b, unsigned target)
{
	static const struct timespec a_little = {.tv_nsec = 50000};
	struct scsi_request *r, *before = NULL;

	b->draining++;
	while ((r = first_for(b, target))) {
		struct disk *d = r->unit->disk;
		pthread_mutex_unlock(b->cfg.lock);
		disk_drain(d);
		if (r == before)
			nanosleep(&a_little, NULL);
		before = r;
		pthread_mutex_lock(b->cfg.lock);
	}
	b->draining--;
}

void scsi_drain(struct scsi_bus *b)
{
	drain(b, SCSI_ALL_TARGETS);
}

bool scsi_is_draining(const struct scsi_bus *b)
{
	return b->draining;
}

static void reset_units(struct scsi_bus *b, unsigned target, bool power)
{
	for (unsigned i = 0; i < SCSI_TARGETS_MAX; i++) {
		struct scsi_lun *lu = b->unit[i];
		if (!lu || (target != SCSI_ALL_TARGETS && target != i))
			continue;
		lu->attention = ASC_POWER_ON;
		lu->write_cache = true;
		lu->locked = false;
		lu->stopped = false;
		if (power)
			lu->ejected = false;
	}
}

static void end_requests(struct scsi_bus *b, unsigned target)
{
	for (struct scsi_request *r = b->flight; r; r = r->next)
		if (is_for(r, target))
			r->end_as = SCSI_WAS_RESET;
	drain(b, target);
}

void scsi_reset(struct scsi_bus *b, unsigned target)
{
	b->stats.resets++;
	end_requests(b, target);
	reset_units(b, target, false);
}

void scsi_power_on(struct scsi_bus *b)
{
	end_requests(b, SCSI_ALL_TARGETS);
	reset_units(b, SCSI_ALL_TARGETS, true);
}

/* --- looking on --- */

bool scsi_has_target(const struct scsi_bus *b, unsigned target)
{
	return target < SCSI_TARGETS_MAX && b->unit[target];
}

unsigned scsi_in_flight(const struct scsi_bus *b)
{
	return b->in_flight;
}

void scsi_get_stats(const struct scsi_bus *b, struct scsi_stats *out)
{
	*out = b->stats;
}

void scsi_state(struct scsi_bus *b, struct state_stream *s)
{
	for (unsigned i = 0; i < SCSI_TARGETS_MAX; i++) {
		struct scsi_lun *lu = b->unit[i];
		if (!lu)
			continue;
		state_u16(s, &lu->attention);
		state_bool(s, &lu->write_cache);
		state_bool(s, &lu->locked);
		state_bool(s, &lu->stopped);
		state_bool(s, &lu->ejected);
	}
}

/* --- life --- */

static int add_unit(struct scsi_bus *b, const struct storage_unit *u, struct error *err)
{
	struct scsi_lun *lu;
	struct disk_info info = {.granule_bytes = DISK_SECTOR_BYTES};

	if (u->target >= SCSI_TARGETS_MAX || b->unit[u->target])
		return error_set(err, -EINVAL,
				 "SCSI target %u: there is none, or it is taken twice", u->target);
	if (!u->disk && !u->cdrom)
		return error_set(err, -EINVAL, "SCSI target %u: a disk without an image",
				 u->target);
	lu = calloc(1, sizeof(*lu));
	if (!lu)
		return error_set(err, -ENOMEM, "SCSI target %u: out of memory", u->target);
	b->unit[u->target] = lu;
	if (u->disk)
		disk_get_info(u->disk, &info);
	lu->bus = b;
	lu->disk = u->disk;
	lu->cdrom = u->cdrom;
	lu->read_only = u->cdrom || info.read_only;
	lu->block_bytes = u->cdrom ? CD_BLOCK_BYTES : DISK_SECTOR_BYTES;
	lu->granule_bytes = info.granule_bytes;
	lu->blocks = info.bytes / lu->block_bytes;
	strncpy(lu->serial, u->serial, SERIAL_MAX);
	return 0;
}

int scsi_bus_create(struct scsi_bus **out, const struct scsi_bus_config *cfg, struct error *err)
{
	struct scsi_bus *b = calloc(1, sizeof(*b));
	int rc = 0;

	*out = NULL;
	if (!b)
		return error_set(err, -ENOMEM, "SCSI bus: out of memory");
	b->cfg = *cfg;
	b->flight_end = &b->flight;
	for (unsigned i = 0; i < cfg->unit_count && !rc; i++)
		rc = add_unit(b, &cfg->units[i], err);
	if (rc) {
		scsi_bus_destroy(b);
		return rc;
	}
	reset_units(b, SCSI_ALL_TARGETS, true);
	*out = b;
	return 0;
}

void scsi_bus_destroy(struct scsi_bus *b)
{
	struct scsi_request *r;

	if (!b)
		return;
	pthread_mutex_lock(b->cfg.lock);
	end_requests(b, SCSI_ALL_TARGETS);
	pthread_mutex_unlock(b->cfg.lock);
	while ((r = b->spare)) {
		b->spare = r->next;
		destroy_request(r);
	}
	for (unsigned i = 0; i < SCSI_TARGETS_MAX; i++)
		free(b->unit[i]);
	free(b);
}
