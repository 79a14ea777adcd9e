/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_SCSI_PVSCSI_H
#define HANOK_DEV_SCSI_PVSCSI_H

#include "dev/scsi/scsi.h"

/* VMware's paravirtual SCSI controller, PCI 15AD:07C0. */
extern const struct storage_kind pvscsi_kind;

struct pvscsi_stats {
	uint64_t kicks, requests, completions, interrupts;
	uint64_t bad_requests; /* descriptors whose fields or scatter lists cannot be */
	uint64_t bad_rings;    /* rings at impossible places, or with impossible indices */
	uint64_t lost;	       /* completions for which the guest had left no room */
	uint64_t commands, bad_commands;
	struct scsi_stats scsi;
};
/* Any thread. */
void pvscsi_get_stats(void *dev, struct pvscsi_stats *out);

#endif
