/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_DEBIAN_H
#define HANOK_APP_DEBIAN_H

#include <stdint.h>

#include "base/error.h"

/*
 * `hanok create --os debian`: a minimal Debian on a disk, without privilege. debian.c tells how.
 */
struct debian {
	const char *folder, *base; /* files are made there: base.vmlinuz, base.initrd */
	const char *disk; /* the path of the disk's image, empty, at least DEBIAN_BYTES_MIN */
	uint64_t disk_bytes;
	const char *hostname;
	const char *password; /* of root */
	char append[256];     /* set: the kernel's command line */
};

#define DEBIAN_BYTES_MIN (UINT64_C(1) << 30)

int debian_install(struct debian *d, struct error *err);

#endif
