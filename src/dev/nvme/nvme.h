/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_NVME_NVME_H
#define HANOK_DEV_NVME_NVME_H

#include "dev/storage.h"

/* An NVM Express controller; unit N is namespace N + 1. nvme.c tells more. */
extern const struct storage_kind nvme_kind;

#endif
