/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_FW_CFG_H
#define HANOK_DEV_FW_CFG_H

#include <stddef.h>

#include "dev/dev.h"
#include "mem/mem.h"

/* The firmware configuration device that SeaBIOS, OVMF and Linux know (QEMU's docs/specs/fw_cfg):
 * numbered items and named files, read byte-wise or by DMA. */
struct fw_cfg;

struct fw_cfg_config {
	struct bus *bus;
	struct mem *mem;
	uint16_t port; /* selector and data; DMA is at port + 4 */
};

/* Well-known keys; the rest of the numbers below FW_CFG_FILE_FIRST are the caller's business. */
enum {
	FW_CFG_SIGNATURE = 0x00,
	FW_CFG_ID = 0x01,
	FW_CFG_FILE_DIR = 0x19,
	FW_CFG_FILE_FIRST = 0x20
};
enum { FW_CFG_FILES_MAX = 64, FW_CFG_NAME_BYTES = 56 };

extern const struct dev_ops fw_cfg_ops;

int fw_cfg_create(struct fw_cfg **out, const struct fw_cfg_config *cfg, struct error *err);

/* Registers bytes under a key below FW_CFG_FILE_FIRST, or a file under a name of at most 55 bytes;
 * a second registration replaces the first. The data is copied. Before vCPUs run. 0, -EINVAL,
 * -ENOSPC, -ENOMEM. */
int fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len);
int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len);

#endif
