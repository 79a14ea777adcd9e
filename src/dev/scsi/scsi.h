/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_SCSI_SCSI_H
#define HANOK_DEV_SCSI_SCSI_H

#include <pthread.h>

#include "dev/scsi/sgl.h"
#include "dev/storage.h"

/*
 * The SCSI target core, which every SCSI controller shares: a bus with a target per storage unit,
 * each with logical unit 0, a disk or a CD drive. A controller (the initiator) brings commands and
 * gets status, sense data and the count of bytes back. scsi.c begins with how a command lives.
 *
 * Threads: a bus has no lock of its own; the controller gives it one, under which all scsi_*
 * functions are called and under which the bus calls back. Disks' completions take it on the loop's
 * thread.
 */
enum { SCSI_CDB_BYTES = 16, SCSI_SENSE_BYTES = 18, SCSI_TARGETS_MAX = 64 };

/* SAM-5 5.3.1 */
enum scsi_status {
	SCSI_GOOD = 0,
	SCSI_CHECK_CONDITION = 2,
	SCSI_BUSY = 8,
	SCSI_TASK_SET_FULL = 0x28,
};

/* What became of the delivery of a command (SAM-5 5.4.2's service response, in more detail). */
enum scsi_outcome {
	SCSI_DONE,	/* status, sense and transferred say the rest */
	SCSI_NO_TARGET, /* nobody has that id */
	SCSI_OVERRUN, /* the command wants more data than the initiator gave room for; not begun */
	SCSI_ABORTED, /* by scsi_abort */
	SCSI_WAS_RESET, /* by scsi_reset */
};

struct scsi_bus;
struct scsi_lun;

struct scsi_request {
	uint8_t cdb[SCSI_CDB_BYTES];
	/* The initiator's, set before scsi_submit. */
	unsigned target;
	uint8_t lun[8];	      /* SAM-5 4.7 */
	struct scsi_sgl data; /* what the guest gave as buffer, in either direction */
	uint64_t tag;	      /* the initiator's name for it, for scsi_abort */
	uint64_t extra[4];    /* the initiator's, as it likes */

	/* The answer. */
	enum scsi_outcome outcome;
	enum scsi_status status;
	uint8_t sense[SCSI_SENSE_BYTES];
	unsigned sense_len;
	uint64_t transferred; /* bytes of data */

	/* The core's. */
	struct scsi_bus *bus;
	struct scsi_lun *unit;
	struct scsi_request *next, **link; /* in the bus's list of requests in flight */
	struct disk_request disk;
	/* What is next, after the last piece was done: -EAGAIN when `disk` is to be submitted, 0
	 * when the command is over. */
	int (*step)(struct scsi_request *r);
	uint8_t *bounce; /* a buffer of the core's, freed with the request */
	struct iovec bounce_iov;
	uint64_t lba, blocks, at; /* what is left to do, how far it is */
	unsigned phase;
	enum scsi_outcome end_as; /* what has befallen it while it is in flight */
};

struct scsi_stats {
	uint64_t commands, reads, writes, read_bytes, write_bytes, flushes, discards;
	uint64_t checks; /* commands that ended in CHECK CONDITION */
	uint64_t later;	 /* that had to wait for the host */
	uint64_t aborts, resets;
};

struct scsi_bus_config {
	struct mem *mem;
	pthread_mutex_t *lock; /* the controller's */
	const struct storage_unit *units;
	unsigned unit_count;
	bool parallel; /* a parallel SCSI bus: INQUIRY tells of its transfer rates */
	/* The request is over; the lock is held, on any thread. It is the initiator's to look at
	 * until it returns. */
	void (*done)(void *opaque, struct scsi_request *r);
	void *opaque;
};

/* 0 or -errno with err set. Without the lock, as scsi_bus_destroy. */
int scsi_bus_create(struct scsi_bus **out, const struct scsi_bus_config *cfg, struct error *err);
/* Waits for the disks; done is still called. vCPUs and the loop do not run, or on the loop's thread.
 * NULL is allowed. */
void scsi_bus_destroy(struct scsi_bus *b);

/* A request with that command (at most SCSI_CDB_BYTES) to fill in and submit, or give back by
 * scsi_request_free; NULL: no memory. Its data will be written to only if the command's kind does. */
struct scsi_request *scsi_request_new(struct scsi_bus *b, const uint8_t *cdb, unsigned cdb_bytes);
void scsi_request_free(struct scsi_request *r);
/* done is called, within this call or later; r is the core's. */
void scsi_submit(struct scsi_request *r);

/* Has the target with that id a unit? */
bool scsi_has_target(const struct scsi_bus *b, unsigned target);

/* --- task management (SAM-5 7): what the host has begun cannot be taken back, so its end is waited
 * for. --- */

/* ABORT TASK: requests of that tag end with SCSI_ABORTED when the disk has let go of them. Returns
 * how many there are. */
unsigned scsi_abort(struct scsi_bus *b, unsigned target, uint64_t tag);

/* Is there a request of that tag? No more when its done is called. */
bool scsi_is_in_flight(const struct scsi_bus *b, unsigned target, uint64_t tag);

enum { SCSI_ALL_TARGETS = SCSI_TARGETS_MAX };
/*
 * LOGICAL UNIT RESET, I_T NEXUS RESET or a bus's reset: all requests of the target (or of all) end
 * with SCSI_WAS_RESET before this returns; reservations and mode parameters fall back, and a unit
 * attention tells of it. Lets go of the lock while it waits: the controller's other entries look at
 * scsi_is_draining, and do not submit until it is over.
 */
void scsi_reset(struct scsi_bus *b, unsigned target);
/* Power on, as a system reset has it. */
void scsi_power_on(struct scsi_bus *b);
/* Waits until no request is in flight, as above; they end as they end. Before saving. */
void scsi_drain(struct scsi_bus *b);
bool scsi_is_draining(const struct scsi_bus *b);

unsigned scsi_in_flight(const struct scsi_bus *b);

/* The units' own state (not the requests), within a section of the controller's. */
void scsi_state(struct scsi_bus *b, struct state_stream *s);

void scsi_get_stats(const struct scsi_bus *b, struct scsi_stats *out);

#endif
