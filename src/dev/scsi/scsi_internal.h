/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_SCSI_SCSI_INTERNAL_H
#define HANOK_DEV_SCSI_SCSI_INTERNAL_H

#include "dev/scsi/scsi.h"

/* Sense keys (SPC-4 table 28). */
enum {
	KEY_NONE = 0,
	KEY_NOT_READY = 2,
	KEY_MEDIUM_ERROR = 3,
	KEY_HARDWARE_ERROR = 4,
	KEY_ILLEGAL_REQUEST = 5,
	KEY_UNIT_ATTENTION = 6,
	KEY_DATA_PROTECT = 7,
	KEY_MISCOMPARE = 0xe,
};

/* Additional sense code << 8 | qualifier (SPC-4 annex F.2). */
enum {
	ASC_NONE = 0,
	ASC_START_NEEDED = 0x0402, /* not ready, initializing command required */
	ASC_WRITE_ERROR = 0x0c00,
	ASC_READ_ERROR = 0x1100,
	ASC_LIST_LENGTH = 0x1a00,
	ASC_MISCOMPARE = 0x1d00,
	ASC_BAD_COMMAND = 0x2000,
	ASC_BAD_LBA = 0x2100,
	ASC_BAD_FIELD = 0x2400,
	ASC_BAD_LUN = 0x2500,
	ASC_BAD_PARAMETER = 0x2600,
	ASC_WRITE_PROTECTED = 0x2700,
	ASC_NO_SPACE = 0x2707, /* space allocation failed, write protect */
	ASC_POWER_ON = 0x2900,
	ASC_NO_SAVING = 0x3900,
	ASC_NO_MEDIUM = 0x3a00,
	ASC_INTERNAL = 0x4400,
	ASC_LOCKED = 0x5302,
};

/* What start and step functions return: the command is over, or r->disk is to be submitted. */
enum { OVER, DISK };

enum { SERIAL_MAX = 20 };

struct scsi_lun {
	struct scsi_bus *bus;
	struct disk *disk; /* NULL: no medium */
	bool cdrom, read_only;
	uint32_t block_bytes, granule_bytes;
	uint64_t blocks;
	char serial[SERIAL_MAX + 1];

	/* What a guest changes. */
	uint16_t attention; /* ASC_*: a unit attention not yet told; 0: none */
	bool write_cache;   /* WCE */
	bool locked, stopped, ejected;
};

struct scsi_bus {
	struct scsi_bus_config cfg;
	struct scsi_lun *unit[SCSI_TARGETS_MAX];
	struct scsi_request *flight, **flight_end; /* oldest first */
	struct scsi_request *spare;
	unsigned in_flight, spares;
	unsigned draining;
	struct scsi_stats stats;
};

/* Big-endian numbers, as SCSI has them. */
static inline uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t be32(const uint8_t *p)
{
	return be16(p) << 16 | be16(p + 2);
}

static inline uint64_t be64(const uint8_t *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static inline void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static inline void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

/* Ends a command with CHECK CONDITION; returns OVER. */
int scsi_check(struct scsi_request *r, uint8_t key, uint16_t asc);
/* The same, with the LBA where it happened. */
int scsi_check_at(struct scsi_request *r, uint8_t key, uint16_t asc, uint64_t lba);
/* Answers with at most `allowed` bytes of data (the CDB's allocation length); returns OVER. */
int scsi_reply(struct scsi_request *r, const void *data, uint64_t len, uint64_t allowed);
/* Takes a parameter list of len bytes. False: the command is over, there was no room for it. */
bool scsi_take(struct scsi_request *r, void *buf, uint64_t len);
/* Is there a medium that is ready? False: the command is over. */
bool scsi_is_ready(struct scsi_request *r);
/* Sets r->disk and r->step; returns DISK. */
int scsi_disk(struct scsi_request *r, enum disk_op op, uint64_t offset, uint64_t bytes,
	      const struct iovec *iov, unsigned iov_count, int (*step)(struct scsi_request *r));

/* Handlers by operation code; NULL: not a command. */
extern int (*const scsi_disk_commands[256])(struct scsi_request *r);
extern int (*const scsi_cd_commands[256])(struct scsi_request *r);

/* Commands that both kinds have. */
int scsi_inquiry(struct scsi_request *r);
int scsi_test_unit_ready(struct scsi_request *r);
int scsi_request_sense(struct scsi_request *r);
int scsi_report_luns(struct scsi_request *r);
int scsi_mode_sense(struct scsi_request *r);
int scsi_mode_select(struct scsi_request *r);
int scsi_prevent_removal(struct scsi_request *r);
int scsi_start_stop(struct scsi_request *r);
int scsi_send_diagnostic(struct scsi_request *r);
int scsi_nothing(struct scsi_request *r); /* is GOOD and does nothing */
int scsi_read(struct scsi_request *r);
int scsi_read_capacity(struct scsi_request *r);

#endif
