/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking: every extent's header, directories, tables and grains are laid out as regions of its file,
 * sorted, and swept over. Regions that overlap are errors; space between them that takes room on the
 * host leaks.
 *
 * Repairs never guess. A redundant table is made like the primary one; a directory entry that points
 * outside of the file gets a new table, a copy of its twin; what leaks is punched out, and only if
 * there is no error, so that nothing that might still be needed goes. An entry that is wrong itself is
 * reported and left alone.
 */
#include "disk/vmdk/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/vmdk/vmdk.h"

enum { HOST_BLOCK = 4096 };

enum region_kind { REGION_META, REGION_GRAIN };

struct region {
	uint64_t sector;
	uint32_t sectors;
	uint32_t kind;
};

struct check {
	const struct disk_check_options *opt;
	struct disk_check_result *out;
	struct error *err;
	struct extent *e;
	struct region *regions;
	size_t count, room;
};

static void report(struct check *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void report(struct check *k, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	if (!k->opt->report)
		return;
	n = snprintf(line, sizeof(line), "%.300s: ", file_path(k->e->file));
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	va_end(ap);
	k->opt->report(k->opt->opaque, line);
}

static int failed(struct check *k, int rc)
{
	return error_set(k->err, rc, "disk %s: %s", file_path(k->e->file), strerror(-rc));
}

static int add_region(struct check *k, uint64_t sector, uint64_t sectors, enum region_kind kind)
{
	if (k->count == k->room) {
		size_t room = k->room ? k->room * 2 : 1024;
		void *more = realloc(k->regions, room * sizeof(*k->regions));
		if (!more)
			return failed(k, -ENOMEM);
		k->regions = more;
		k->room = room;
	}
	k->regions[k->count++] = (struct region){sector, (uint32_t)sectors, kind};
	return 0;
}

/* ---- tables ---- */

static bool table_fits(const struct extent *e, uint32_t sector)
{
	uint64_t at = (uint64_t)sector * SECTOR;

	return sector && at < e->file_bytes && table_bytes(&e->layout) <= e->file_bytes - at;
}

/* Gives entry i of `bad` a new table at the file's end, with what its twin has. */
static int mend_directory(struct check *k, uint32_t *bad, uint64_t bad_offset, uint32_t i,
			  const uint32_t *content)
{
	struct extent *e = k->e;
	uint64_t at = round_up(e->file_bytes, e->layout.grain_bytes);
	uint32_t bytes = table_bytes(&e->layout), sector = i / (SECTOR / 4);
	int rc;

	if (at / SECTOR > UINT32_MAX)
		return 0;
	rc = file_pwrite(e->file, content, bytes, at);
	if (!rc)
		rc = file_sync(e->file);
	if (rc)
		return failed(k, rc);
	e->file_bytes = at + bytes;
	bad[i] = (uint32_t)(at / SECTOR);
	rc = file_pwrite(e->file, (char *)bad + (uint64_t)sector * SECTOR, SECTOR,
			 bad_offset + (uint64_t)sector * SECTOR);
	if (!rc)
		rc = file_sync(e->file);
	if (rc)
		return failed(k, rc);
	k->out->repaired++;
	return 0;
}

static int read_table(struct check *k, uint32_t sector, uint32_t *out)
{
	int rc = file_pread(k->e->file, out, table_bytes(&k->e->layout), (uint64_t)sector * SECTOR);

	return rc ? failed(k, rc) : 0;
}

/* One of two directories leads outside of the file at i. */
static int bad_entry(struct check *k, uint32_t i, uint32_t *table)
{
	struct extent *e = k->e;
	bool primary = e->gd[i] && !table_fits(e, e->gd[i]);
	uint32_t *bad = primary ? e->gd : e->rgd, *good = primary ? e->rgd : e->gd;
	int rc;

	if (!good || !table_fits(e, good[i])) {
		k->out->errors++;
		report(k, "grain table %u lies outside of the file, and there is no copy of it", i);
		return 1;
	}
	k->out->mismatches++;
	report(k, "%s entry %u points outside of the file; its copy is good",
	       primary ? "grain directory" : "redundant grain directory", i);
	rc = read_table(k, good[i], table);
	if (!rc && k->opt->repair)
		rc = mend_directory(k, bad, primary ? e->layout.gd_offset : e->layout.rgd_offset, i,
				    table);
	return rc;
}

static int compare_copy(struct check *k, uint32_t i, const uint32_t *table, uint32_t *copy)
{
	struct extent *e = k->e;
	int rc = read_table(k, e->rgd[i], copy);

	if (rc || !memcmp(table, copy, table_bytes(&e->layout)))
		return rc;
	k->out->mismatches++;
	report(k, "the redundant copy of grain table %u differs", i);
	if (!k->opt->repair)
		return 0;
	rc = file_pwrite(e->file, table, table_bytes(&e->layout), (uint64_t)e->rgd[i] * SECTOR);
	if (rc)
		return failed(k, rc);
	k->out->repaired++;
	return 0;
}

/* The table's content, from wherever it can be had. 1: there is none. */
static int get_table(struct check *k, uint32_t i, uint32_t *table, uint32_t *copy)
{
	struct extent *e = k->e;
	uint32_t sectors = table_bytes(&e->layout) / SECTOR;
	int rc;

	if (!e->gd[i])
		return 1;
	if (!table_fits(e, e->gd[i]) || (e->rgd && e->rgd[i] && !table_fits(e, e->rgd[i])))
		rc = bad_entry(k, i, table);
	else if (!(rc = read_table(k, e->gd[i], table)) && e->rgd && e->rgd[i])
		rc = compare_copy(k, i, table, copy);
	if (rc)
		return rc;
	if (table_fits(e, e->gd[i]))
		rc = add_region(k, e->gd[i], sectors, REGION_META);
	if (!rc && e->rgd && e->rgd[i] && table_fits(e, e->rgd[i]))
		rc = add_region(k, e->rgd[i], sectors, REGION_META);
	return rc;
}

/* ---- grains ---- */

static int check_compressed(struct check *k, uint64_t grain, uint64_t at)
{
	struct extent *e = k->e;
	struct sparse_marker m = {0};
	int rc = file_pread(e->file, &m, MARKER_GRAIN_BYTES, at);

	if (rc && rc != -EIO)
		return failed(k, rc);
	if (rc || m.value != grain * (e->layout.grain_bytes / SECTOR) || !m.size ||
	    m.size > e->file_bytes - at) {
		k->out->errors++;
		report(k, "grain %" PRIu64 " is not where its table says", grain);
		return 0;
	}
	return add_region(k, at / SECTOR, (MARKER_GRAIN_BYTES + m.size + SECTOR - 1) / SECTOR,
			  REGION_GRAIN);
}

static int check_entry(struct check *k, uint64_t grain, uint32_t entry)
{
	struct extent *e = k->e;
	uint64_t at = (uint64_t)entry * SECTOR;

	if (!entry)
		return 0;
	if (entry == GTE_ZEROED && e->layout.zeroed_gtes) {
		k->out->zeroed_grains++;
		return 0;
	}
	k->out->allocated_grains++;
	if (at >= e->file_bytes ||
	    (at + e->layout.grain_bytes > e->alloc_end && !e->layout.compressed)) {
		k->out->errors++;
		report(k, "grain %" PRIu64 " lies outside of the file", grain);
		return 0;
	}
	if (e->layout.compressed)
		return check_compressed(k, grain, at);
	return add_region(k, entry, e->layout.grain_bytes / SECTOR, REGION_GRAIN);
}

static int check_tables(struct check *k)
{
	const struct sparse_layout *l = &k->e->layout;
	uint32_t n = table_entries(l), *table = malloc(table_bytes(l)),
		 *copy = malloc(table_bytes(l));
	uint64_t grains = round_up(k->e->bytes, l->grain_bytes) / l->grain_bytes;
	int rc = table && copy ? 0 : failed(k, -ENOMEM);

	k->out->grains += grains;
	for (uint32_t i = 0; i < l->gd_entries && rc >= 0; i++) {
		rc = get_table(k, i, table, copy);
		for (uint32_t j = 0; j < n && !rc && (uint64_t)i * n + j < grains; j++)
			rc = check_entry(k, (uint64_t)i * n + j, table[j]);
	}
	free(table);
	free(copy);
	return rc < 0 ? rc : 0;
}

/* ---- the sweep ---- */

static int by_sector(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	return x->sector < y->sector ? -1 : x->sector > y->sector;
}

/* Space that nothing uses, if it takes any on the host. */
static int gap(struct check *k, uint64_t from, uint64_t to)
{
	struct extent *e = k->e;
	uint64_t at, bytes, taken = 0;
	bool data;

	/* Less than a block of the host cannot be given back. */
	at = from = round_up(from, HOST_BLOCK);
	to = to / HOST_BLOCK * HOST_BLOCK;
	while (at < to) {
		int rc = file_extent(e->file, at, &data, &bytes);
		if (rc == -ENXIO)
			break;
		if (rc)
			return failed(k, rc);
		if (bytes > to - at)
			bytes = to - at;
		taken += data ? bytes : 0;
		at += bytes;
	}
	if (!taken)
		return 0;
	k->out->leaked_bytes += taken;
	k->out->leaked_grains += (taken + e->layout.grain_bytes - 1) / e->layout.grain_bytes;
	report(k, "%" PRIu64 " bytes from %" PRIu64 " on are used by nothing", taken, from);
	if (!k->opt->repair || k->out->errors)
		return 0;
	if (!file_discard(e->file, from, to - from))
		k->out->repaired++;
	return 0;
}

static void overlap(struct check *k, const struct region *a, const struct region *b)
{
	k->out->errors++;
	if (a->kind == REGION_GRAIN && b->kind == REGION_GRAIN)
		report(k, "two grains use sector %" PRIu64, b->sector);
	else if (a->kind == REGION_META && b->kind == REGION_META)
		report(k, "two tables use sector %" PRIu64, b->sector);
	else
		report(k, "a grain lies in a table, at sector %" PRIu64, b->sector);
}

static int sweep(struct check *k)
{
	struct extent *e = k->e;
	const struct region *last = NULL;
	uint64_t end = 0, low = e->layout.cowd ? 0 : e->layout.overhead_bytes;
	int rc = 0;

	if (k->count)
		qsort(k->regions, k->count, sizeof(*k->regions), by_sector);
	/* Overlaps first, as leaks are only mended where there are none. */
	for (size_t i = 0; i < k->count; i++) {
		const struct region *r = &k->regions[i];
		if (last && r->sector < last->sector + last->sectors)
			overlap(k, last, r);
		if (!last || r->sector + r->sectors > last->sector + last->sectors)
			last = r;
	}
	if (e->layout.compressed)
		return 0; /* markers lie between */
	for (size_t i = 0; i <= k->count && !rc; i++) {
		uint64_t from = i < k->count ? k->regions[i].sector * SECTOR : e->file_bytes;
		uint64_t start = end > low ? end : low;
		if (from > start)
			rc = gap(k, start, from);
		if (i < k->count && from + k->regions[i].sectors * (uint64_t)SECTOR > end)
			end = from + k->regions[i].sectors * (uint64_t)SECTOR;
	}
	return rc;
}

static int check_extent(struct check *k)
{
	const struct sparse_layout *l = &k->e->layout;
	static const uint8_t clean;
	uint64_t n = gd_sectors(l->gd_entries);
	int rc = add_region(k, 0, l->cowd ? 4 : 1, REGION_META);

	if (!rc && l->descriptor_offset)
		rc = add_region(k, l->descriptor_offset / SECTOR, l->descriptor_bytes / SECTOR,
				REGION_META);
	if (!rc)
		rc = add_region(k, l->gd_offset / SECTOR, n, REGION_META);
	if (!rc && l->rgd_offset)
		rc = add_region(k, l->rgd_offset / SECTOR, n, REGION_META);
	if (!rc)
		rc = check_tables(k);
	if (!rc)
		rc = sweep(k);
	if (rc || !l->unclean)
		return rc;
	k->out->unclean = true;
	report(k, "was not closed after it was written to");
	if (!k->opt->repair)
		return 0;
	rc = file_pwrite(k->e->file, &clean, 1, offsetof(struct sparse_header, unclean_shutdown));
	return rc ? failed(k, rc) : 0;
}

int vmdk_check(const char *path, const struct disk_check_options *opt,
	       struct disk_check_result *out, struct error *err)
{
	struct disk_options o = {.read_only = !opt->repair, .alone = true};
	struct chain *c;
	int rc = vmdk_open_chain(&c, path, &o, true, err);

	/* Compressed images have nothing to repair, and are never opened for writing. */
	if (rc == -EROFS && opt->repair) {
		o.read_only = true;
		rc = vmdk_open_chain(&c, path, &o, true, err);
	}
	for (unsigned i = 0; !rc && i < c->top->extent_count; i++) {
		struct disk_check_options here = *opt;
		struct check k = {.opt = &here, .out = out, .err = err, .e = &c->top->extents[i]};

		here.repair = opt->repair && !o.read_only;
		if (k.e->kind != EXTENT_SPARSE)
			continue;
		rc = check_extent(&k);
		if (!rc && here.repair)
			rc = file_sync(k.e->file);
		free(k.regions);
	}
	if (c)
		vmdk_close_chain(c);
	return rc;
}
