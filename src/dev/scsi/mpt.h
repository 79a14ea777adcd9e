/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_SCSI_MPT_H
#define HANOK_DEV_SCSI_MPT_H

#include "dev/scsi/scsi.h"

/* LSI Logic's Fusion-MPT controllers: the parallel 53C1030 (PCI 1000:0030) and the SAS1068
 * (1000:0054), which VMware calls lsilogic and lsisas1068. */
extern const struct storage_kind lsilogic_kind, lsisas1068_kind;

struct mpt_stats {
	uint64_t messages, handshakes, replies, interrupts;
	uint64_t bad_messages; /* that are not, or not now, or whose scatter lists cannot be */
	uint64_t faults; /* the guest broke a queue: the controller stands still till its reset */
	struct scsi_stats scsi;
};
/* Any thread. */
void mpt_get_stats(void *dev, struct mpt_stats *out);

#endif
