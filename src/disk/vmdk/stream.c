/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing streamOptimized images, from start to end without going back (Virtual Disk Format 5.0,
 * "Stream-Optimized Compressed Sparse Extents"):
 *
 *   header | descriptor | (marker, grain)... | marker, grain table | ... | marker, directory
 *          | marker, footer: the header, with the directory's place | end-of-stream marker
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "disk/disk_tools.h"
#include "disk/file.h"
#include "disk/vmdk/create.h"
#include "disk/vmdk/descriptor.h"
#include "disk/vmdk/format.h"

enum {
	GRAIN = DISK_STREAM_GRAIN_BYTES,
	DESCRIPTOR_SECTORS = 20,
	DATA_SECTOR = 128,
	TABLE_BYTES = HOSTED_GTES * 4,
};

struct disk_stream {
	char *path;
	struct file *file;
	uint64_t bytes, next; /* the disk's; where the next write may begin */
	uint64_t at;	      /* in the file */
	struct sparse_header header;
	uint32_t gd_entries, *gd;
	uint32_t table[HOSTED_GTES];
	uint32_t table_index;
	bool table_used;
	uint8_t *zipped; /* marker and grain */
	uLong zipped_room;
};

static int failed(const struct disk_stream *s, int rc, struct error *err)
{
	return error_set(err, rc, "disk %s: cannot be written: %s%s", s->path, strerror(-rc),
			 rc == -ENOSPC ? "; make room on the host's disk" : "");
}

/* At the end of the file, up to a whole sector. */
static int append(struct disk_stream *s, const void *buf, uint64_t bytes)
{
	uint64_t end = round_up(s->at + bytes, SECTOR);
	int rc = end / SECTOR > UINT32_MAX ? -EFBIG : file_pwrite(s->file, buf, bytes, s->at);

	if (!rc && end != s->at + bytes)
		rc = file_truncate(s->file, end);
	if (!rc)
		s->at = end;
	return rc;
}

/* Something that a marker stands before; where it is, in *sector. */
static int append_marked(struct disk_stream *s, uint32_t type, const void *buf, uint64_t bytes,
			 uint32_t *sector)
{
	struct {
		struct sparse_marker m;
		uint8_t pad[SECTOR - sizeof(struct sparse_marker)];
	} marker = {.m = {.value = round_up(bytes, SECTOR) / SECTOR, .type = type}};
	int rc = append(s, &marker, sizeof(marker));

	if (!rc && sector)
		*sector = (uint32_t)(s->at / SECTOR);
	return rc || !bytes ? rc : append(s, buf, bytes);
}

static int end_table(struct disk_stream *s)
{
	int rc = 0;

	if (s->table_used)
		rc = append_marked(s, MARKER_GT, s->table, TABLE_BYTES, &s->gd[s->table_index]);
	memset(s->table, 0, sizeof(s->table));
	s->table_used = false;
	return rc;
}

static bool is_zero(const uint8_t *p, uint64_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* One grain, all of it in the disk's bounds. */
static int put_grain(struct disk_stream *s, uint64_t grain, const uint8_t *data)
{
	uLongf n = s->zipped_room;
	struct sparse_marker m = {.value = grain * (GRAIN / SECTOR)};
	uint32_t sector = (uint32_t)(s->at / SECTOR);
	int rc = 0;

	if (is_zero(data, GRAIN))
		return 0;
	if (grain / HOSTED_GTES != s->table_index) {
		rc = end_table(s);
		s->table_index = (uint32_t)(grain / HOSTED_GTES);
		sector = (uint32_t)(s->at / SECTOR);
	}
	if (rc)
		return rc;
	if (compress2(s->zipped + MARKER_GRAIN_BYTES, &n, data, GRAIN, Z_DEFAULT_COMPRESSION) !=
	    Z_OK)
		return -ENOMEM;
	m.size = (uint32_t)n;
	memcpy(s->zipped, &m, MARKER_GRAIN_BYTES);
	rc = append(s, s->zipped, MARKER_GRAIN_BYTES + n);
	s->table[grain % HOSTED_GTES] = sector;
	s->table_used = true;
	return rc;
}

int disk_stream_write(struct disk_stream *s, uint64_t offset, const void *buf, uint64_t bytes,
		      struct error *err)
{
	const uint8_t *from = buf;
	int rc = 0;

	if (offset % GRAIN || offset < s->next || offset > s->bytes || bytes > s->bytes - offset ||
	    (bytes % GRAIN && offset + bytes != s->bytes))
		return error_set(err, -EINVAL,
				 "disk %s: streams are written in grains, from start to end",
				 s->path);
	while (bytes && !rc) {
		uint64_t n = bytes < GRAIN ? bytes : GRAIN;
		if (n == GRAIN) {
			rc = put_grain(s, offset / GRAIN, from);
		} else {
			uint8_t *last = calloc(1, GRAIN);
			if (last)
				memcpy(last, from, n);
			rc = last ? put_grain(s, offset / GRAIN, last) : -ENOMEM;
			free(last);
		}
		from += n;
		offset += n;
		bytes -= n;
	}
	s->next = round_up(offset, GRAIN);
	return rc ? failed(s, rc, err) : 0;
}

static void stream_free(struct disk_stream *s)
{
	file_close(s->file);
	free(s->path);
	free(s->gd);
	free(s->zipped);
	free(s);
}

void disk_stream_abort(struct disk_stream *s)
{
	if (!s)
		return;
	file_unlink(s->path);
	stream_free(s);
}

static int finish(struct disk_stream *s)
{
	uint32_t gd_sector = 0;
	int rc = end_table(s);

	if (!rc)
		rc = append_marked(s, MARKER_GD, s->gd, gd_sectors(s->gd_entries) * SECTOR,
				   &gd_sector);
	s->header.gd_offset = gd_sector;
	if (!rc)
		rc = append_marked(s, MARKER_FOOTER, &s->header, sizeof(s->header), NULL);
	if (!rc)
		rc = append_marked(s, MARKER_EOS, NULL, 0, NULL);
	if (!rc)
		rc = file_sync(s->file);
	return rc ? rc : file_sync_folder(s->path);
}

int disk_stream_finish(struct disk_stream *s, struct error *err)
{
	int rc = finish(s);

	if (rc) {
		failed(s, rc, err);
		disk_stream_abort(s);
	} else {
		stream_free(s);
	}
	return rc;
}

static int write_head(struct disk_stream *s, const char *adapter)
{
	const char *slash = strrchr(s->path, '/'), *name = slash ? slash + 1 : s->path;
	uint64_t sectors = s->bytes / SECTOR;
	struct descriptor_plan plan = {.cid = vmdk_new_cid(),
				       .parent_cid = CID_NONE,
				       .type = "streamOptimized",
				       .adapter = adapter ? adapter : "lsilogic",
				       .bytes = s->bytes,
				       .extent_type = "SPARSE",
				       .names = &name,
				       .sectors = &sectors,
				       .extents = 1};
	char *text = vmdk_descriptor_text(&plan);
	int rc = text ? 0 : -ENOMEM;

	if (text && strlen(text) >= DESCRIPTOR_SECTORS * SECTOR)
		rc = -ENAMETOOLONG;
	s->header = (struct sparse_header){
		.magic = SPARSE_MAGIC,
		.version = 3,
		.flags = SPARSE_NEWLINE_TEST | SPARSE_COMPRESSED | SPARSE_MARKERS,
		.capacity = sectors,
		.grain_size = GRAIN / SECTOR,
		.descriptor_offset = 1,
		.descriptor_size = DESCRIPTOR_SECTORS,
		.gtes_per_gt = HOSTED_GTES,
		.gd_offset = GD_AT_END,
		.overhead = DATA_SECTOR,
		.newlines = {'\n', ' ', '\r', '\n'},
		.compression = SPARSE_DEFLATE,
	};
	s->at = (uint64_t)DATA_SECTOR * SECTOR;
	if (!rc)
		rc = file_truncate(s->file, s->at);
	if (!rc)
		rc = file_pwrite(s->file, &s->header, sizeof(s->header), 0);
	if (!rc)
		rc = file_pwrite(s->file, text, strlen(text), SECTOR);
	free(text);
	return rc;
}

int disk_stream_create(struct disk_stream **out, const char *path, uint64_t bytes,
		       const char *adapter, struct error *err)
{
	struct file_options opt = {.writable = true, .create = true};
	struct disk_stream *s;
	int rc;

	*out = NULL;
	if (!bytes || bytes % SECTOR || bytes / GRAIN / HOSTED_GTES >= GD_ENTRIES_MAX ||
	    !vmdk_name_fits(path) || (adapter && !vmdk_name_fits(adapter)))
		return error_set(err, -EINVAL,
				 "disk %s: a stream of %" PRIu64
				 " bytes cannot be made under this name",
				 path, bytes);
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "disk %s: out of memory", path);
	s->bytes = bytes;
	s->gd_entries = (uint32_t)((bytes / SECTOR + GRAIN / SECTOR * HOSTED_GTES - 1) /
				   (GRAIN / SECTOR * HOSTED_GTES));
	s->gd = calloc(1, gd_sectors(s->gd_entries) * SECTOR);
	s->zipped_room = compressBound(GRAIN);
	s->zipped = malloc(MARKER_GRAIN_BYTES + s->zipped_room);
	s->path = strdup(path);
	if (!s->gd || !s->zipped || !s->path) {
		stream_free(s);
		return error_set(err, -ENOMEM, "disk %s: out of memory", path);
	}
	rc = file_open(&s->file, path, &opt, err);
	if (rc) {
		stream_free(s);
		return rc;
	}
	rc = write_head(s, adapter);
	if (rc) {
		failed(s, rc, err);
		disk_stream_abort(s);
		return rc;
	}
	*out = s;
	return 0;
}
