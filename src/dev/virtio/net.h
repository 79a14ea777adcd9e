/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_VIRTIO_NET_H
#define HANOK_DEV_VIRTIO_NET_H

#include "dev/nic.h"

/* A virtio network card (VIRTIO 5.1). net.c tells more. */
extern const struct nic_kind virtio_net_kind;

#endif
