/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_VIRTIO_BLK_H
#define HANOK_DEV_VIRTIO_BLK_H

#include "dev/storage.h"

/* A virtio block device (VIRTIO 5.2): one disk a controller. blk.c tells more. */
extern const struct storage_kind virtio_blk_kind;

#endif
