/* SPDX-License-Identifier: Apache-2.0 */
#include "disk/disk_tools.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "disk/file.h"
#include "disk/vmdk/check.h"
#include "disk/vmdk/create.h"

static bool is_vmdk(const char *path)
{
	size_t n = strlen(path);

	return n > 5 && !strcasecmp(path + n - 5, ".vmdk");
}

static int checked_size(const char *path, uint64_t bytes, struct error *err)
{
	if (!bytes || bytes % DISK_SECTOR_BYTES || bytes > INT64_MAX)
		return error_set(err, -EINVAL,
				 "disk %s: a size of %" PRIu64
				 " bytes: has to be a multiple of %d, and "
				 "more than none",
				 path, bytes, DISK_SECTOR_BYTES);
	return 0;
}

int disk_create(const char *path, const struct disk_create_options *opt, struct error *err)
{
	const char *format = opt->format ? opt->format : is_vmdk(path) ? "vmdk" : "raw";
	int rc;

	if (!strcmp(format, "vmdk"))
		return vmdk_create(path, opt, err);
	if (strcmp(format, "raw"))
		return error_set(err, -EINVAL,
				 "disk %s: format %s is not known; there are raw and vmdk", path,
				 format);
	if (opt->parent || opt->type)
		return error_set(err, -EINVAL, "disk %s: raw disks have no %s; use a VMDK", path,
				 opt->parent ? "parents" : "types");
	rc = checked_size(path, opt->bytes, err);
	if (rc)
		return rc;
	rc = vmdk_create_flat(path, opt->bytes, opt->thickness, err);
	return rc ? rc : file_sync_folder(path);
}

static int resize_raw(const char *path, uint64_t bytes, bool shrink, struct error *err)
{
	struct file_options opt = {.writable = true, .lock = FILE_LOCK_WRITE};
	struct file *f;
	uint64_t now;
	int rc = file_open(&f, path, &opt, err);

	if (rc)
		return rc;
	rc = file_size(f, &now);
	if (!rc && bytes < now && !shrink) {
		file_close(f);
		return error_set(
			err, -EINVAL,
			"disk %s: has %" PRIu64
			" bytes; making it smaller cuts off its end, which has to be asked for",
			path, now);
	}
	if (!rc)
		rc = file_truncate(f, bytes);
	if (!rc)
		rc = file_sync(f);
	file_close(f);
	return rc ? error_set(err, rc, "disk %s: cannot be resized: %s", path, strerror(-rc)) : 0;
}

int disk_resize(const char *path, uint64_t bytes, bool shrink, struct error *err)
{
	int rc = checked_size(path, bytes, err);

	if (rc)
		return rc;
	return is_vmdk(path) ? vmdk_resize(path, bytes, shrink, err)
			     : resize_raw(path, bytes, shrink, err);
}

int disk_set_parent(const char *path, const char *parent, const char *parent_hint,
		    struct error *err)
{
	if (!is_vmdk(path))
		return error_set(err, -EINVAL, "disk %s: raw disks have no parents; use a VMDK",
				 path);
	return vmdk_set_parent(path, parent, parent_hint, err);
}

int disk_check(const char *path, const struct disk_check_options *opt,
	       struct disk_check_result *out, struct error *err)
{
	struct disk_options o = {.read_only = !opt->repair};
	struct disk *d;
	int rc;

	*out = (struct disk_check_result){0};
	if (is_vmdk(path))
		return vmdk_check(path, opt, out, err);
	/* Of a raw disk there is nothing to check but that it opens. */
	rc = disk_open(&d, path, &o, err);
	disk_close(d);
	return rc;
}
