/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_NVME_NVME_INTERNAL_H
#define HANOK_DEV_NVME_NVME_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "bus/dma.h"
#include "dev/nvme/nvme.h"

/*
 * What the files of the controller share. "NVMe" is the NVM Express Base Specification 1.4.
 *
 * Lock order: nvme.lock, the lock of submission queue 0, another submission queue's, a completion
 * queue's, nvme.irq_lock, then the PCI bus's.
 */
enum {
	NVME_NAMESPACES_MAX = 16,
	NVME_IO_QUEUES_MAX = 16,
	NVME_QUEUES = NVME_IO_QUEUES_MAX + 1, /* with the admin queue, which is 0 */
	NVME_ENTRIES_MAX = 1024,
	NVME_PAGE_BYTES = 4096,
	NVME_MDTS = 7, /* most data of a command: 2^7 pages */
	NVME_SEGMENTS = (1 << NVME_MDTS) + 1,
	NVME_RANGES_MAX = 256, /* of a deallocation */
	NVME_EVENTS_MAX = 4,   /* asynchronous event requests held */
	NVME_LBA_BYTES = DISK_SECTOR_BYTES,
	NVME_ID_BYTES = 4096,
};

/* NVMe 4.2 */
struct nvme_command {
	uint8_t opcode, flags;
	uint16_t cid;
	uint32_t nsid;
	uint64_t reserved, metadata;
	uint64_t prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct nvme_command) == 64, "NVMe 4.2");

/* NVMe 4.6 */
struct nvme_completion {
	uint32_t result, reserved;
	uint16_t sq_head, sq_id;
	uint16_t cid, status; /* status << 1 | phase */
};
_Static_assert(sizeof(struct nvme_completion) == 16, "NVMe 4.6");

/* Status: code type << 8 | code (NVMe 4.6.1). NVME_LATER is none: the command's end is to come. */
enum {
	NVME_OK = 0x000,
	NVME_INVALID_OPCODE = 0x001,
	NVME_INVALID_FIELD = 0x002,
	NVME_DATA_ERROR = 0x004,
	NVME_INTERNAL = 0x006,
	NVME_INVALID_NAMESPACE = 0x00b,
	NVME_INVALID_PRP_OFFSET = 0x013,
	NVME_WRITE_PROTECTED = 0x020,
	NVME_LBA_RANGE = 0x080,
	NVME_CAPACITY = 0x081,
	NVME_CQ_INVALID = 0x100,
	NVME_INVALID_QUEUE_ID = 0x101,
	NVME_INVALID_QUEUE_SIZE = 0x102,
	NVME_EVENT_LIMIT = 0x105,
	NVME_INVALID_VECTOR = 0x108,
	NVME_INVALID_LOG = 0x109,
	NVME_QUEUE_DELETION = 0x10c,
	NVME_NOT_SAVEABLE = 0x10d,
	NVME_NOT_CHANGEABLE = 0x10e,
	NVME_WRITE_FAULT = 0x280,
	NVME_READ_ERROR = 0x281,
	NVME_DO_NOT_RETRY = 0x4000,
	NVME_LATER = 0x10000,
};

struct nvme;

struct nvme_sq {
	struct nvme *n;
	uint16_t id;
	pthread_mutex_t lock; /* guards what follows */
	bool created;
	struct dma_area area;		 /* of the ring, while created */
	const struct nvme_command *ring; /* there */
	uint32_t size;			 /* entries */
	uint16_t head, tail, cq;
	unsigned out;	     /* commands taken and not over, of this generation */
	uint32_t generation; /* counts controller resets */
	bool deleting;	     /* by the admin command delete_cid, when out is 0 */
	uint16_t delete_cid;
	bool later; /* a post to the loop is on its way */
};

struct nvme_cq {
	uint16_t id;
	pthread_mutex_t lock; /* guards what follows */
	bool created, interrupts, phase;
	struct dma_area area;	      /* of the ring, while created */
	struct nvme_completion *ring; /* there */
	uint32_t size;
	uint16_t tail, vector;
	_Atomic uint16_t head; /* the driver's: what lies from here to tail is not taken yet */
	unsigned reserved;     /* entries promised to commands that are not over */
	bool full;	       /* a submission queue waits for room */
	atomic_bool waiting;   /* not empty, and its interrupts are on: for the pin */
	bool unsaid;	       /* something was put in since the last interrupt */
};

struct nvme_namespace {
	struct disk *disk; /* NULL: there is none with this number */
	uint64_t blocks;
	bool read_only;
	uint32_t granule;	   /* of allocation, blocks */
	struct disk_request flush; /* at a shutdown */
};

/* Set Features and Get Features: values by feature identifier. */
enum { NVME_FEATURES = 0x0c };
enum {
	FEATURE_ARBITRATION = 0x01,
	FEATURE_POWER = 0x02,
	FEATURE_TEMPERATURE = 0x04,
	FEATURE_RECOVERY = 0x05,
	FEATURE_WRITE_CACHE = 0x06,
	FEATURE_QUEUES = 0x07,
	FEATURE_COALESCING = 0x08,
	FEATURE_VECTOR = 0x09,
	FEATURE_ATOMICITY = 0x0a,
	FEATURE_EVENTS = 0x0b,
};

/* Asynchronous events that this controller has: errors (NVMe 5.2, figure 149). */
enum { EVENT_BAD_DOORBELL = 0, EVENT_BAD_DOORBELL_VALUE = 1 };

struct nvme_stats {
	_Atomic uint64_t commands, interrupts, errors, bad_doorbells;
};

struct nvme {
	struct pci_dev pci;
	struct mem *mem;
	struct loop *loop;
	unsigned index, io_queues;
	struct nvme_namespace ns[NVME_NAMESPACES_MAX];
	const char *serial;

	pthread_mutex_t lock; /* guards the registers that follow, to irq_lock */
	uint32_t cc, aqa;
	uint64_t asq, acq;
	bool fatal;	      /* CSTS.CFS */
	atomic_bool enabled;  /* CC.EN, and it went well */
	atomic_uint stale;    /* commands of before a reset that are not over */
	atomic_uint flushing; /* disks that a shutdown waits for */
	bool shut_down;	      /* a shutdown was asked for */

	pthread_mutex_t irq_lock;
	uint32_t masked; /* INTMS; of the pin */

	/* The admin queue's lock guards these. */
	uint32_t feature[NVME_FEATURES];
	uint16_t event_cid[NVME_EVENTS_MAX]; /* requests that wait for an event */
	unsigned events;
	bool event_masked;	       /* told, and the log not read since */
	_Atomic uint8_t event_pending; /* bits 1 << EVENT_... */

	struct nvme_sq sq[NVME_QUEUES];
	struct nvme_cq cq[NVME_QUEUES];
	pthread_mutex_t free_lock; /* the last to be taken */
	struct nvme_request *free;
	struct nvme_stats stats;
};

/* Where a command's data are in guest memory, held. */
struct nvme_data {
	bool write; /* the controller writes there */
	unsigned count;
	struct iovec iov[NVME_SEGMENTS];
	struct dma_area area[NVME_SEGMENTS]; /* of each */
};

/* A command that goes to a disk. */
struct nvme_range {
	uint32_t attributes, blocks;
	uint64_t lba;
};
struct nvme_request {
	struct disk_request dr; /* first */
	struct nvme_request *next;
	struct nvme *n;
	struct nvme_sq *sq;
	struct nvme_namespace *ns;
	uint32_t generation;
	uint16_t cid, cq;
	bool flush_after;
	unsigned ranges, at;
	struct nvme_data data;
	struct nvme_range range[NVME_RANGES_MAX];
};

/* --- queue.c --- */

/* Checks the ring's place and begins to use it: NVME_OK or a status. Lock held. */
unsigned nvme_sq_create(struct nvme_sq *sq, uint64_t gpa, uint32_t size, uint16_t cq);
unsigned nvme_cq_create(struct nvme_cq *cq, struct nvme *n, uint64_t gpa, uint32_t size,
			uint16_t vector, bool interrupts);
/* The queue is no more. Lock held. */
void nvme_sq_end(struct nvme_sq *sq);
/* The same at a reset: commands still out belong to nobody and count as stale. Lock held. */
void nvme_sq_reset(struct nvme_sq *sq);
void nvme_cq_reset(struct nvme_cq *cq, struct nvme *n);

/* Puts a completion into a queue where room was reserved, without an interrupt yet. sq's lock held. */
void nvme_complete(struct nvme_sq *sq, uint16_t cq, uint16_t cid, uint32_t result, unsigned status);
/* The interrupt for what was put in since the last one. Any submission queue's lock may be held. */
void nvme_cq_say(struct nvme *n, uint16_t cq);
bool nvme_cq_reserve(struct nvme_cq *cq);
void nvme_cq_unreserve(struct nvme_cq *cq);

/* Doorbells (NVMe 3.1.24, 3.1.25). No lock held. */
void nvme_sq_doorbell(struct nvme *n, unsigned sq, uint32_t value);
void nvme_cq_doorbell(struct nvme *n, unsigned cq, uint32_t value);
/* Looks for commands soon, on the loop's thread. Lock held. */
void nvme_sq_later(struct nvme_sq *sq);
/* One command of the queue is over for good: a deletion may have waited for it. Lock held. */
void nvme_sq_command_over(struct nvme_sq *sq);

/* Drives the pin by what lies in the completion queues. Any lock but irq_lock may be held. */
void nvme_update_pin(struct nvme *n);

/* --- prp.c --- */

/* The memory that a command's PRPs describe: NVME_OK, and it is held until nvme_unmap; or a status.
 * write: the controller will write to it. */
unsigned nvme_map(struct nvme *n, uint64_t prp1, uint64_t prp2, uint64_t bytes, bool write,
		  struct nvme_data *d);
/* Tells mem what may have been written, and lets go of it. */
void nvme_unmap(struct nvme *n, struct nvme_data *d);
/* Copies to and from there; whoever has written announces it to mem. */
unsigned nvme_copy_out(struct nvme *n, const struct nvme_command *c, const void *data,
		       uint64_t bytes);
unsigned nvme_copy_in(struct nvme *n, const struct nvme_command *c, void *data, uint64_t bytes);

/* --- admin.c, identify.c, io.c: a command; its queue's lock held. A status or NVME_LATER --- */

unsigned nvme_admin(struct nvme *n, const struct nvme_command *c, uint32_t *result);
unsigned nvme_identify(struct nvme *n, const struct nvme_command *c);
unsigned nvme_get_log(struct nvme *n, const struct nvme_command *c);
unsigned nvme_io(struct nvme_sq *sq, const struct nvme_command *c);

/* Features as after a reset. The admin queue's lock held. */
void nvme_reset_admin(struct nvme *n);
/* Notes an event, and tells it if the driver waits. No lock held. */
void nvme_event(struct nvme *n, unsigned event);
/* The admin queue's lock held. */
void nvme_tell_events(struct nvme *n);

/* Frees the requests kept to be used again. */
void nvme_free_requests(struct nvme *n);

/* May the controller take commands? Any thread. */
bool nvme_is_running(struct nvme *n);
/* Number nsid, or NULL. */
struct nvme_namespace *nvme_namespace(struct nvme *n, uint32_t nsid);
static inline unsigned nvme_vectors(const struct nvme *n)
{
	return n->io_queues + 1;
}

#endif
