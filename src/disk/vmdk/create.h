/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_VMDK_CREATE_H
#define HANOK_DISK_VMDK_CREATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/disk_tools.h"

/* What makes new VMDK files; errors name the file. */

/* Capacity of an extent of the split types, as VMware cuts them: 2047 MiB. */
#define SPLIT_BYTES (UINT64_C(2047) << 20)

int vmdk_create(const char *path, const struct disk_create_options *opt, struct error *err);

struct sparse_plan {
	uint64_t bytes, grain_bytes;
	bool cowd, zeroed_gtes;
	const char *descriptor; /* to embed; NULL: none */
};
/* A new sparse extent with no grain; its tables are holes. It is synced. */
int vmdk_create_sparse(const char *path, const struct sparse_plan *plan, struct error *err);
/* A new flat one. */
int vmdk_create_flat(const char *path, uint64_t bytes, enum disk_thickness thickness,
		     struct error *err);

/* Where extent i of n of the disk at path is, as a name for the descriptor, to be freed; NULL: no
 * memory. kind: 's', 'f' of split ones; 0: the only one, "-flat" or "-delta" as `word` says. */
char *vmdk_extent_name(const char *path, char kind, unsigned i, const char *word);

/* The whole descriptor: to be freed; NULL: no memory. */
struct descriptor_plan {
	uint32_t cid, parent_cid;
	const char *type, *parent_hint, *adapter;
	uint64_t bytes;
	const char *extent_type; /* of each line */
	bool offsets, thin;
	const char *const *names;
	const uint64_t *sectors;
	unsigned extents;
};
char *vmdk_descriptor_text(const struct descriptor_plan *plan);

/* CHS of ddb.geometry, as VMware counts it. */
struct vmdk_geometry {
	uint64_t cylinders;
	unsigned heads, sectors;
};
struct vmdk_geometry vmdk_geometry(uint64_t bytes, const char *adapter);

uint32_t vmdk_new_cid(void);
/* May it stand between quotes in a descriptor? */
bool vmdk_name_fits(const char *name);

/* What to write as parentFileNameHint of child for parent; to be freed; NULL: no memory. */
char *vmdk_parent_hint(const char *child, const char *parent);

#endif
