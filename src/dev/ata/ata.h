/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_ATA_ATA_H
#define HANOK_DEV_ATA_ATA_H

#include <pthread.h>

#include "bus/dma.h"
#include "dev/storage.h"

/*
 * ATA and ATAPI drives, as AHCI and IDE share them. "ACS" is ATA8-ACS (T13/1699-D) with the later
 * additions of ACS-3 that are named; "MMC" is MMC-6, "SPC" SPC-3 (T10).
 *
 * Theory of operation. A controller turns what the guest wrote into a struct ata_command and calls
 * ata_start and ata_run. From there on the command is a small machine:
 *
 *     ata_start ──> ATA_MOVE ──> ATA_DISK ──> ATA_DONE ──> host->done
 *                   │   ^           │  ^
 *       host->map   │   └───────────┘  └─ disk_submit said DISK_LATER: on_disk, on the loop's thread
 *       says where  └── not yet: the guest has to do something first; it calls ata_run again
 *       data lies
 *
 * Data is either the disk's (`media`), which goes straight between the disk and where map says, or
 * in drive->data, a few KiB that the drive makes or takes. Long transfers go in pieces, as many as
 * map needs.
 *
 * Lock: the controller's one lock is held in all functions and callbacks here, and let go only
 * around disk_submit. So what a controller knows of itself may have changed when ata_run returns,
 * and the command may be over and used for another.
 *
 * Reset. A request that the disk has cannot be taken back. A reset cancels its command: what becomes
 * of it is told to nobody, and the drive begins no command before the last cancelled one is over
 * (ata_drive_idle; host->drained says when), so that no late write lands on a newer one and no
 * command is used twice.
 */
enum {
	ATA_SECTOR = DISK_SECTOR_BYTES,
	ATA_CD_BLOCK = 2048,
	ATA_PACKET_BYTES = 12,
	ATA_DATA_BYTES = 4096, /* drive->data */
	ATA_TRIM_BLOCKS = ATA_DATA_BYTES / ATA_SECTOR,
	ATA_MULTIPLE_MAX = 16,
	ATA_QUEUE_DEPTH = 32,
	/* Pieces of guest memory in one disk request. PRD entries are two bytes or more, so this is
	 * always a sector and more. */
	ATA_IOVS = 257,
};

/* Status and error registers (ACS 6.2, 6.3). */
enum {
	ATA_BSY = 0x80,
	ATA_DRDY = 0x40,
	ATA_DF = 0x20,
	ATA_DSC = 0x10,
	ATA_DRQ = 0x08,
	ATA_ERR = 0x01,
	ATA_READY = ATA_DRDY | ATA_DSC,
};
enum { ATA_E_UNC = 0x40, ATA_E_IDNF = 0x10, ATA_E_ABRT = 0x04 };
enum { ATA_DEV_LBA = 0x40, ATA_DEV_FUA = 0x80 };

/* Commands that controllers name. */
enum {
	ATA_CMD_DEVICE_RESET = 0x08,
	ATA_CMD_READ_FPDMA = 0x60,
	ATA_CMD_WRITE_FPDMA = 0x61,
	ATA_CMD_DIAGNOSTIC = 0x90,
	ATA_CMD_PACKET = 0xa0,
};

/* Interrupt reason, in the count register of ATAPI (ACS 7.25: C/D, I/O). */
enum { ATAPI_IR_COMMAND = 1, ATAPI_IR_TO_HOST = 2 };

/* The registers of a drive; going in with a command, coming out with its end. */
struct ata_regs {
	uint8_t command, device, status, error;
	uint16_t feature, count;
	uint64_t lba; /* 48 bits */
};

struct ata_drive;
struct ata_command;

struct ata_host_ops {
	/* Fills c->iov, iov_count and iov_bytes (see there) with where the command's data lies from
	 * c->moved on. 1; 0: not yet; -EFAULT: there is no (more) memory for it. */
	int (*map)(struct ata_command *c);
	/* What map said is done with. ok: c->moved counts it already; otherwise (reads only) the
	 * memory may hold anything, and the command fails, or was cancelled. */
	void (*unmap)(struct ata_command *c, bool ok);
	/* The command is over: c->regs has the outcome. */
	void (*done)(struct ata_command *c);
	/* The last cancelled command is over. */
	void (*drained)(struct ata_drive *d);
};

enum ata_protocol { ATA_NO_DATA, ATA_PIO, ATA_DMA, ATA_QUEUED, ATA_PACKET_PIO, ATA_PACKET_DMA };
enum ata_phase { ATA_IDLE, ATA_MOVE, ATA_DISK, ATA_DONE };

struct ata_command {
	struct ata_drive *drive;
	unsigned tag; /* the controller's */
	struct ata_regs regs;
	uint8_t packet[16]; /* ATAPI: the command's bytes */
	enum ata_protocol protocol;
	enum ata_phase phase;
	bool in_flight; /* the disk has req */
	bool stopped;	/* by ata_settle, to go on with ata_run */
	bool cancelled; /* by a reset: nobody wants its outcome */
	bool to_host, media;
	bool through;	       /* a flush follows */
	bool ext;	       /* 48-bit address */
	uint64_t bytes, moved; /* of data */
	uint64_t offset;       /* media: of the first byte on the disk */
	uint32_t block_bytes;  /* PIO: between two interrupts */
	unsigned range;	       /* TRIM: the next entry */
	struct disk_request req;
	/* Where data lies: iov_bytes in all, media: a multiple of a sector. */
	unsigned iov_count;
	uint64_t iov_bytes;
	struct iovec iov[ATA_IOVS];
	struct dma_area area[ATA_IOVS]; /* of each of the first `held`, as it was: guest memory */
	unsigned held;
	struct mem *mem; /* that it is of */
};

/* Counters for inspection. */
struct ata_stats {
	uint64_t commands, queued, packets, errors, cancelled, resets;
	uint64_t read_bytes, written_bytes, trimmed_bytes, flushes;
	unsigned queue_most; /* requests in flight together, at most */
};

struct ata_drive {
	struct disk *disk; /* NULL: an empty CD drive */
	bool present, cdrom, sata, read_only;
	char serial[21];
	uint64_t sectors; /* of the medium */
	const struct ata_host_ops *ops;
	pthread_mutex_t *lock;
	void *opaque; /* the controller's */

	unsigned in_flight, cancelled;
	bool settling;
	/* What the guest sets. */
	uint8_t multiple, transfer_mode;
	bool write_cache, look_ahead, smart, standby;
	uint16_t heads, track_sectors;
	/* After a queued command failed: log 10h (ACS A.7), and nothing is taken before it is read. */
	bool queue_error;
	uint8_t error_log[16];
	/* ATAPI */
	uint8_t sense_key, asc, ascq;
	bool attention_reset, attention_media, tray_open, locked;
	uint8_t media_event;

	struct ata_stats stats;
	uint8_t data[ATA_DATA_BYTES];
};

/* Before any use: no drive is there. */
void ata_drive_init(struct ata_drive *d, bool sata, const struct ata_host_ops *ops,
		    pthread_mutex_t *lock, void *opaque);
/* A drive is. Its disk stays the caller's. 0, or -EINVAL with err: a disk of no sectors. */
int ata_drive_attach(struct ata_drive *d, const struct storage_unit *unit, struct error *err);
/* Once its commands are cancelled. power: power-on defaults, not only what every reset does. */
void ata_drive_reset(struct ata_drive *d, bool power);
/* No cancelled command is under way. */
bool ata_drive_idle(const struct ata_drive *d);
/* What the registers hold after a reset (ACS 9.2). status is the drive's when it is ready. */
void ata_signature(const struct ata_drive *d, struct ata_regs *r);

/* Decodes c->regs (and c->packet) and makes the command ready for ata_run. c->drive and c->tag are
 * set; the rest is overwritten. */
void ata_start(struct ata_command *c);
/* Goes on with a command until it is over or has to wait. */
void ata_run(struct ata_command *c);
/* Gives a command up that waits for the guest or is in flight. */
void ata_cancel(struct ata_command *c);

/* Before a save or the end, while no vCPU runs, without the lock: lets commands go on, with all that
 * follows, until each of them is over or waits for the guest. */
void ata_settle(struct ata_drive *d, struct ata_command *commands, unsigned count);

/* --- where data lies in guest memory: physical region descriptors --- */

struct ata_region {
	uint64_t gpa;
	uint32_t len; /* at least 2 */
};

struct ata_cursor {
	unsigned index; /* of the next region */
	uint32_t used;	/* bytes of it */
};

/* map for descriptor tables: fetch gives region `index`: 1, 0 past the last, -errno. Returns 1 (and the
 * command holds its memory until unmap), -EFAULT (fetch's, or a region is not RAM) or -ENOBUFS (the
 * table is too short). */
int ata_map_regions(struct ata_command *c, struct mem *mem, struct ata_cursor *at,
		    int (*fetch)(void *opaque, unsigned index, struct ata_region *r), void *opaque);
/* unmap for those: tells of the memory that was written, and lets go of it. */
void ata_unmap_regions(struct ata_command *c);

/* Within the controller's section; nothing is in flight: a command is idle or waits for the guest. */
void ata_drive_state(struct ata_drive *d, struct state_stream *s);
void ata_command_state(struct ata_command *c, struct state_stream *s);
void ata_regs_state(struct ata_regs *r, struct state_stream *s);

/* --- within the core --- */

/* Lets go of guest memory, if the command still has some. */
void ata_release_regions(struct ata_command *c);

static inline void ata_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void ata_put_be16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void ata_put_be32(uint8_t *p, uint32_t v)
{
	ata_put_be16(p, v >> 16);
	ata_put_be16(p + 2, v);
}

/* Ends the command with an error register of `error`. */
void ata_fail(struct ata_command *c, uint8_t error);
/* Ends it well. */
void ata_succeed(struct ata_command *c);
/* The next `bytes` of drive->data go to the host, or come from it. */
void ata_data_in(struct ata_command *c, uint64_t bytes);
void ata_data_out(struct ata_command *c, uint64_t bytes);
/* The disk's bytes [offset, offset + bytes) do. */
void ata_media(struct ata_command *c, bool to_host, uint64_t offset, uint64_t bytes);
/* A request without data. */
void ata_request(struct ata_command *c, enum disk_op op, uint64_t offset, uint64_t bytes);

/* Says where a read failed, as the command gave its address; a CHS one stays as it was. */
void ata_put_address(struct ata_command *c, uint64_t lba);
/* Discards what entries of a TRIM from c->range on say, those in a row as one; or ends it. */
void ata_next_trim(struct ata_command *c);

/* ata_data.c: IDENTIFY (PACKET) DEVICE, SMART, logs. */
void ata_identify(struct ata_command *c);
void ata_smart(struct ata_command *c);
void ata_read_log(struct ata_command *c);
/* Notes a failed queued command in log 10h. */
void ata_note_queue_error(struct ata_command *c);

/* atapi.c, atapi_data.c */
void atapi_start(struct ata_command *c);
/* The disk answered rc to a read. */
void atapi_failed(struct ata_command *c, int rc);
bool atapi_has_medium(const struct ata_drive *d);
/* Ends the command with CHECK CONDITION. */
void atapi_sense(struct ata_command *c, uint8_t key, uint8_t asc, uint8_t ascq);
void atapi_read_toc(struct ata_command *c);
void atapi_get_configuration(struct ata_command *c);
void atapi_mode_sense(struct ata_command *c);
/* drive->data has len bytes, of which the guest wants at most `wanted`. */
void atapi_answer(struct ata_command *c, uint64_t len, uint64_t wanted);

#endif
