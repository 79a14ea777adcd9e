/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_VMDK_CHECK_H
#define HANOK_DISK_VMDK_CHECK_H

#include "base/error.h"
#include "disk/disk_tools.h"

/* disk_check, disk_resize and disk_set_parent of a VMDK. */
int vmdk_check(const char *path, const struct disk_check_options *opt,
	       struct disk_check_result *out, struct error *err);
int vmdk_resize(const char *path, uint64_t bytes, bool shrink, struct error *err);
int vmdk_set_parent(const char *path, const char *parent, const char *parent_hint,
		    struct error *err);

#endif
