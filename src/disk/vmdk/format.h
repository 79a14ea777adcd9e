/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_VMDK_FORMAT_H
#define HANOK_DISK_VMDK_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/file.h"

/*
 * Sparse extents as they are in files, little-endian: hosted ones (VMware "Virtual Disk Format 5.0",
 * "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents") and ESX's ("ESX Server
 * Sparse Extents", COWD).
 *
 * Hosted, as made by us:
 *
 *   header | descriptor | redundant directory | its tables | directory | tables | grains ...
 *
 * Offsets in them are in sectors.
 */
#define SPARSE_MAGIC UINT32_C(0x564d444b) /* "KDMV" */
#define COWD_MAGIC UINT32_C(0x44574f43)
#define GD_AT_END UINT64_MAX

enum {
	SECTOR = 512,
	SPARSE_NEWLINE_TEST = 1,
	SPARSE_REDUNDANT = 2,
	SPARSE_ZEROED_GTE = 4,
	SPARSE_COMPRESSED = 1 << 16,
	SPARSE_MARKERS = 1 << 17,
	SPARSE_DEFLATE = 1,

	GTE_ZEROED = 1,
	HOSTED_GTES = 512,
	COWD_GTES = 4096,
	GRAIN_SECTORS_MAX = 1 << 14,
	GD_ENTRIES_MAX = 1 << 22,
	DESCRIPTOR_SECTORS_MAX = 2048,

	MARKER_EOS = 0,
	MARKER_GT = 1,
	MARKER_GD = 2,
	MARKER_FOOTER = 3,
};

struct sparse_header {
	uint32_t magic, version, flags;
	uint64_t capacity, grain_size, descriptor_offset, descriptor_size;
	uint32_t gtes_per_gt;
	uint64_t rgd_offset, gd_offset, overhead;
	uint8_t unclean_shutdown;
	char newlines[4]; /* "\n \r\n" */
	uint16_t compression;
	uint8_t pad[433];
} __attribute__((packed));
static_assert(sizeof(struct sparse_header) == SECTOR, "header");

struct cowd_header {
	uint32_t magic, version, flags, sectors, grain_size, gd_offset, gd_entries, free_sector;
	uint8_t rest[2016]; /* geometry, names and notes that nothing reads */
} __attribute__((packed));
static_assert(sizeof(struct cowd_header) == 4 * SECTOR, "header");

/* Before compressed grains (size > 0: that many bytes follow at once), tables and the footer. */
struct sparse_marker {
	uint64_t value; /* a grain: its first sector in the extent; else: sectors that follow */
	uint32_t size;
	uint32_t type; /* with size 0 */
} __attribute__((packed));

enum { MARKER_GRAIN_BYTES = 12 };

/* What a header says, checked. */
struct sparse_layout {
	bool cowd, compressed, zeroed_gtes, unclean;
	uint32_t version;
	uint64_t capacity_bytes, grain_bytes, gd_offset, rgd_offset; /* bytes; rgd_offset 0: none */
	uint64_t overhead_bytes;
	uint64_t descriptor_offset, descriptor_bytes;
	unsigned grain_shift, table_shift; /* log2 of grain_bytes, of entries of a table */
	uint32_t gd_entries;
};

/* Reads the header (and the footer that overrules it) of a file of this size. 0; -EINVAL: it is not
 * one, or says what cannot be; -EIO. path is for err. */
int sparse_read_layout(struct file *f, uint64_t file_bytes, const char *path,
		       struct sparse_layout *out, struct error *err);

static inline uint32_t table_entries(const struct sparse_layout *l)
{
	return UINT32_C(1) << l->table_shift;
}

static inline uint32_t table_bytes(const struct sparse_layout *l)
{
	return UINT32_C(4) << l->table_shift;
}

static inline uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

/* Sectors of a directory of n entries. */
static inline uint64_t gd_sectors(uint64_t n)
{
	return (n * 4 + SECTOR - 1) / SECTOR;
}

#endif
