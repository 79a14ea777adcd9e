/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_VMDK_DESCRIPTOR_H
#define HANOK_DISK_VMDK_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * A VMDK's descriptor: lines of `key = "value"`, and one line for each extent (Virtual Disk Format
 * 5.0, "The Descriptor File"). It is kept as text, and changed line by line, so that what we do not
 * know survives.
 */
enum {
	DESCRIPTOR_MAX_BYTES = 1 << 20,
	DESCRIPTOR_MAX_EXTENTS = 8192,
};

#define CID_NONE UINT32_MAX /* as parentCID: there is no parent */

enum extent_access { ACCESS_RW, ACCESS_RDONLY, ACCESS_NOACCESS };

struct extent_line {
	enum extent_access access;
	uint64_t sectors;
	char type[16];	 /* FLAT, SPARSE, ZERO, VMFS, VMFSSPARSE ... */
	char *name;	 /* in UTF-8; NULL where the type needs none */
	uint64_t offset; /* in sectors; of FLAT */
};

struct descriptor {
	char *text; /* ends with a 0 byte */
	size_t bytes;
	uint32_t cid, parent_cid;
	char *create_type;
	char *parent_hint; /* in UTF-8; NULL: none */
	struct extent_line *extents;
	unsigned extent_count;
};

/* Takes a copy of text, up to its first 0 byte. path is for err. 0, -EINVAL, -ENOMEM; d is to be
 * freed in any case. */
int descriptor_parse(struct descriptor *d, const char *text, size_t bytes, const char *path,
		     struct error *err);
void descriptor_free(struct descriptor *d);

/* The value of a key, unquoted, in out: true if it is there and fits. */
bool descriptor_get(const struct descriptor *d, const char *key, char *out, size_t size);

/* Sets a key's value (written as given: quote it where that is usual), NULL: takes its line out.
 * Changes the text alone. 0 or -ENOMEM. */
int descriptor_set(struct descriptor *d, const char *key, const char *value);

/* Sets the size in the line of extent i. Changes the text alone. */
int descriptor_set_sectors(struct descriptor *d, unsigned i, uint64_t sectors);

/* Takes the line of extent i out, or puts a whole line behind the last extent's. The text alone. */
int descriptor_drop_extent(struct descriptor *d, unsigned i);
int descriptor_add_extent(struct descriptor *d, const char *line);

/* Where the eight hexadecimal digits of the CID are in the text; 0: it has another number of them. */
size_t descriptor_cid_at(const struct descriptor *d);

#endif
