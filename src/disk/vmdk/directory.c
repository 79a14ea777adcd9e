/* SPDX-License-Identifier: Apache-2.0 */
/* Grain directories: read when a sparse extent is opened, and looked at before anybody may write. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "disk/vmdk/vmdk.h"

static bool table_in_file(const struct extent *e, uint32_t sector)
{
	uint64_t at = (uint64_t)sector * SECTOR;

	return at >= SECTOR && at < e->file_bytes && table_bytes(&e->layout) <= e->file_bytes - at;
}

/* Reads are refused where a table is bad; writes could make it worse, so they are refused altogether. */
static int check_directory(const struct extent *e, const uint32_t *gd, struct error *err)
{
	for (uint32_t i = 0; i < e->layout.gd_entries; i++)
		if (gd[i] && !table_in_file(e, gd[i]))
			return error_set(
				err, -EINVAL,
				"disk %s: grain table %u would lie outside of the file, so it "
				"is not opened for writing; see `hanok disk check`, or open it "
				"read-only to save what is left",
				file_path(e->file), i);
	return 0;
}

/* ---- overlaps ---- */

struct places {
	uint64_t *at; /* sectors; the low bits say how many: sector << 16 | count */
	size_t count;
};

static void add_place(struct places *p, uint64_t sector, uint64_t sectors)
{
	while (sectors) {
		uint64_t n = sectors < UINT16_MAX ? sectors : UINT16_MAX;
		p->at[p->count++] = sector << 16 | n;
		sector += n;
		sectors -= n;
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* A directory and its tables. */
static void add_places(struct places *p, const struct extent *e, const uint32_t *gd, uint64_t at)
{
	add_place(p, at / SECTOR, gd_sectors(e->layout.gd_entries));
	for (uint32_t i = 0; i < e->layout.gd_entries; i++)
		if (gd[i])
			add_place(p, gd[i], table_bytes(&e->layout) / SECTOR);
}

/* Tables that share a sector with each other, with a directory or the header: a write to one of them
 * would be one to the other. In the order they were made they need no sorting. */
static int check_overlaps(const struct extent *e, struct error *err)
{
	uint64_t most =
		2 * (e->layout.gd_entries + gd_sectors(e->layout.gd_entries) / UINT16_MAX + 2);
	struct places p = {.at = malloc(most * sizeof(*p.at))};
	uint64_t end = 0, shared = 0;
	bool sorted = true;

	if (!p.at)
		return error_set(err, -ENOMEM, "disk %s: out of memory", file_path(e->file));
	add_place(&p, 0, 1);
	if (e->rgd)
		add_places(&p, e, e->rgd, e->layout.rgd_offset);
	add_places(&p, e, e->gd, e->layout.gd_offset);
	for (size_t i = 1; i < p.count && sorted; i++)
		sorted = p.at[i - 1] < p.at[i];
	if (!sorted)
		qsort(p.at, p.count, sizeof(*p.at), by_value);
	for (size_t i = 0; i < p.count && !shared; i++) {
		if (p.at[i] >> 16 < end)
			shared = p.at[i] >> 16;
		end = (p.at[i] >> 16) + (p.at[i] & UINT16_MAX);
	}
	free(p.at);
	return shared ? error_set(err, -EINVAL,
				  "disk %s: two grain tables use sector %" PRIu64
				  ", so it is not opened for writing; see `hanok disk check`, or "
				  "open it read-only to save what is left",
				  file_path(e->file), shared)
		      : 0;
}

static int load_directory(struct extent *e, uint64_t at, uint32_t **out)
{
	uint64_t bytes = gd_sectors(e->layout.gd_entries) * SECTOR;

	*out = malloc(bytes);
	return *out ? file_pread(e->file, *out, bytes, at) : -ENOMEM;
}

int vmdk_load_directories(struct extent *e, struct error *err)
{
	const struct sparse_layout *l = &e->layout;
	const char *path = file_path(e->file);
	int rc = load_directory(e, l->gd_offset, &e->gd);

	if (!rc && l->rgd_offset)
		rc = load_directory(e, l->rgd_offset, &e->rgd);
	if (rc)
		return error_set(err, rc, "disk %s: its grain directory cannot be read: %s", path,
				 strerror(-rc));
	e->tables = calloc(l->gd_entries, sizeof(struct table *));
	e->gd_dirty = calloc(1, gd_sectors(l->gd_entries));
	if (!e->tables || !e->gd_dirty)
		return error_set(err, -ENOMEM, "disk %s: out of memory", path);
	if (e->image->read_only || e->image->chain->mending)
		return 0;
	rc = check_directory(e, e->gd, err);
	if (!rc && e->rgd)
		rc = check_directory(e, e->rgd, err);
	return rc ? rc : check_overlaps(e, err);
}
