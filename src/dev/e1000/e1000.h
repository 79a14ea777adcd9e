/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_E1000_E1000_H
#define HANOK_DEV_E1000_E1000_H

#include "dev/nic.h"

/* Intel's 82545EM, the "e1000" of VMware and others. */
extern const struct nic_kind e1000_kind;

struct e1000_stats {
	uint64_t tx_frames, tx_tso, tx_csum, tx_waits;
	uint64_t tx_bad_rings, tx_bad_buffers, tx_bad_frames;
	uint64_t rx_frames, rx_filtered, rx_disabled, rx_waits;
	uint64_t rx_bad_rings, rx_bad_buffers, rx_oversize;
	uint64_t interrupts, throttled;
};
/* Any thread. */
void e1000_get_stats(void *dev, struct e1000_stats *out);

#endif
