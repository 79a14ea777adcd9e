/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_VMXNET3_VMXNET3_H
#define HANOK_DEV_VMXNET3_VMXNET3_H

#include "dev/nic.h"

/* VMware's paravirtual network card. */
extern const struct nic_kind vmxnet3_kind;

struct vmxnet3_stats {
	uint64_t tx_frames, tx_tso, tx_csum, tx_waits, tx_bad_buffers, tx_bad_frames, tx_stops;
	uint64_t rx_frames, rx_lro, rx_filtered, rx_disabled, rx_waits, rx_bad_buffers, rx_oversize;
	uint64_t interrupts, activations, bad_activations, bad_commands;
};
/* Any thread. */
void vmxnet3_get_stats(void *dev, struct vmxnet3_stats *out);

#endif
