/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_SCSI_PVSCSI_INTERNAL_H
#define HANOK_DEV_SCSI_PVSCSI_INTERNAL_H

#include "bus/dma.h"
#include "dev/scsi/pvscsi.h"

enum { PVSCSI_RING_PAGES_MAX = 32, PVSCSI_MSG_PAGES_MAX = 16, PVSCSI_DESC_WORDS = 132 };

/* Interrupt causes. */
enum { INTR_CMPL_0 = 1 << 0, INTR_MSG_0 = 1 << 2, INTR_ALL = 0xf };

/* A ring: guest pages that hold a power of two of entries. */
struct pvscsi_ring {
	unsigned pages; /* 0: not set up */
	uint32_t entries;
	struct dma_area page[PVSCSI_RING_PAGES_MAX];
};

struct pvscsi {
	pthread_mutex_t lock; /* before the bus's and the disks'; guards all of it */
	bool lock_ready;
	struct mem *mem;
	unsigned index;
	struct pci_dev pci;
	struct scsi_bus *scsi;
	struct timer again; /* a ring that had more than one turn's work */

	uint32_t command, words_wanted, words; /* of the descriptor that is being written */
	uint32_t desc[PVSCSI_DESC_WORDS];
	uint32_t status; /* COMMAND_STATUS */
	uint32_t intr_status, intr_mask;

	struct dma_area state; /* the rings' state page; holding nothing: no rings */
	struct pvscsi_ring req, cmp, msg;
	uint32_t req_consumed, cmp_produced; /* the device's own; the guest only sees copies */
	bool threshold_on;
	bool processing, kicked, raise;

	struct pvscsi_stats stats;
};

/* --- pvscsi_ring.c; the lock is held --- */

/* From addresses of pages, in place of the ring that there was. 0 or -EINVAL, and then it is as it was. */
int pvscsi_ring_set(struct pvscsi *p, struct pvscsi_ring *ring, unsigned pages_max, uint32_t pages,
		    const uint64_t *gpa, unsigned entry_bytes);
void pvscsi_ring_forget(struct pvscsi *p, struct pvscsi_ring *ring);
/* Gives the rings their first state, as SETUP_RINGS and SETUP_MSG_RING do. */
void pvscsi_ring_publish(struct pvscsi *p);
void pvscsi_msg_publish(struct pvscsi *p);
void pvscsi_set_threshold(struct pvscsi *p);
/* Takes requests from the ring. */
void pvscsi_process(struct pvscsi *p);
/* The target core's: a request is over. */
void pvscsi_done(void *opaque, struct scsi_request *r);

/* --- pvscsi.c --- */

void pvscsi_raise(struct pvscsi *p, uint32_t causes);

#endif
