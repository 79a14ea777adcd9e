/* SPDX-License-Identifier: Apache-2.0 */
#include "disk/vmdk/format.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define bad(err, path, why, ...) error_set(err, -EINVAL, "disk %s: " why, path, ##__VA_ARGS__)

static int unreadable(struct error *err, const char *path, int rc)
{
	return error_set(err, rc, "disk %s: its header cannot be read: %s", path, strerror(-rc));
}

static bool power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static unsigned log2_of(uint64_t n)
{
	return (unsigned)__builtin_ctzll(n);
}

/* Where the directory is, and whether all of it is in the file. */
static bool directory_fits(uint64_t sector, uint64_t entries, uint64_t file_bytes)
{
	uint64_t sectors = file_bytes / SECTOR;

	return sector && sector < sectors && gd_sectors(entries) <= sectors - sector;
}

/* Directory, tables and grains: what both kinds of header tell. */
static int check_geometry(struct sparse_layout *l, uint64_t capacity, uint64_t grain,
			  uint64_t entries, uint64_t gd, uint64_t file_bytes, const char *path,
			  struct error *err)
{
	uint64_t covers, needed;

	if (!power_of_two(grain) || grain > GRAIN_SECTORS_MAX)
		return bad(err, path,
			   "its header is damaged: grains of %" PRIu64
			   " sectors (powers of two up to %d are known)",
			   grain, GRAIN_SECTORS_MAX);
	if (!capacity || capacity > INT64_MAX / SECTOR)
		return bad(err, path, "its header is damaged: a capacity of %" PRIu64 " sectors",
			   capacity);
	covers = grain * entries;
	needed = (capacity - 1) / covers + 1;
	if (needed > GD_ENTRIES_MAX)
		return bad(err, path, "its header is damaged: %" PRIu64 " grain tables", needed);
	if (!directory_fits(gd, needed, file_bytes))
		return bad(err, path,
			   "its grain directory would lie outside of the file: the file was cut "
			   "short, or its header is damaged");
	l->capacity_bytes = capacity * SECTOR;
	l->grain_bytes = grain * SECTOR;
	l->gd_offset = gd * SECTOR;
	l->grain_shift = log2_of(l->grain_bytes);
	l->table_shift = log2_of(entries);
	l->gd_entries = (uint32_t)needed;
	return 0;
}

static int read_cowd(struct file *f, uint64_t file_bytes, const char *path, struct sparse_layout *l,
		     struct error *err)
{
	struct cowd_header h;
	int rc = file_pread(f, &h, sizeof(h), 0);

	if (rc)
		return unreadable(err, path, rc);
	if (h.version != 1)
		return bad(err, path, "COWD version %u is not known", h.version);
	rc = check_geometry(l, h.sectors, h.grain_size, COWD_GTES, h.gd_offset, file_bytes, path,
			    err);
	if (rc)
		return rc;
	if (h.gd_entries < l->gd_entries)
		return bad(err, path, "its header is damaged: %u grain tables for %u sectors",
			   h.gd_entries, h.sectors);
	l->cowd = true;
	l->version = h.version;
	l->overhead_bytes = (uint64_t)h.free_sector * SECTOR;
	return 0;
}

/* A stream's header may point to a footer: marker, header, end-of-stream marker, one sector each. */
static int read_footer(struct file *f, uint64_t file_bytes, const char *path,
		       struct sparse_header *h, struct error *err)
{
	struct {
		struct sparse_marker marker;
		uint8_t pad[SECTOR - sizeof(struct sparse_marker)];
		struct sparse_header header;
	} footer;
	int rc;

	if (file_bytes % SECTOR || file_bytes < 4 * SECTOR)
		return bad(err, path, "the stream is cut short: it does not end with a footer");
	rc = file_pread(f, &footer, sizeof(footer), file_bytes - 3 * SECTOR);
	if (rc)
		return unreadable(err, path, rc);
	if (footer.marker.type != MARKER_FOOTER || footer.marker.size ||
	    footer.header.magic != SPARSE_MAGIC)
		return bad(err, path, "the stream is cut short: it does not end with a footer");
	*h = footer.header;
	return 0;
}

static int check_flags(const struct sparse_header *h, const char *path, struct sparse_layout *l,
		       struct error *err)
{
	if (!h->version || h->version > 3)
		return bad(err, path, "sparse extents of version %u are not known; 1 to 3 are",
			   h->version);
	if (h->flags & SPARSE_NEWLINE_TEST && memcmp(h->newlines, "\n \r\n", 4))
		return bad(err, path,
			   "it was damaged on its way: somebody converted line ends as in a text");
	if (h->compression > SPARSE_DEFLATE)
		return bad(err, path, "compression %u is not known", h->compression);
	l->compressed = h->compression == SPARSE_DEFLATE && h->flags & SPARSE_COMPRESSED;
	if (l->compressed && !(h->flags & SPARSE_MARKERS))
		return bad(err, path, "its grains are compressed but have no markers");
	if (h->gtes_per_gt < SECTOR / 4 || h->gtes_per_gt > HOSTED_GTES ||
	    !power_of_two(h->gtes_per_gt))
		return bad(err, path, "its header is damaged: %u entries in a grain table",
			   h->gtes_per_gt);
	return 0;
}

static int read_hosted(struct file *f, uint64_t file_bytes, const char *path,
		       struct sparse_layout *l, struct error *err)
{
	struct sparse_header h;
	uint64_t descriptor_at, descriptor_size;
	int rc = file_pread(f, &h, sizeof(h), 0);

	if (rc)
		return unreadable(err, path, rc);
	descriptor_at = h.descriptor_offset;
	descriptor_size = h.descriptor_size;
	if (h.gd_offset == GD_AT_END)
		rc = read_footer(f, file_bytes, path, &h, err);
	if (!rc)
		rc = check_flags(&h, path, l, err);
	if (!rc)
		rc = check_geometry(l, h.capacity, h.grain_size, h.gtes_per_gt, h.gd_offset,
				    file_bytes, path, err);
	if (rc)
		return rc;
	if (h.flags & SPARSE_REDUNDANT && h.rgd_offset && !l->compressed) {
		if (!directory_fits(h.rgd_offset, l->gd_entries, file_bytes))
			return bad(err, path,
				   "its redundant grain directory would lie outside of the file");
		l->rgd_offset = h.rgd_offset * SECTOR;
	}
	if (h.overhead > file_bytes / SECTOR)
		return bad(err, path,
			   "the file was cut short: its tables alone take %" PRIu64 " sectors",
			   h.overhead);
	if (descriptor_at) {
		if (descriptor_at >= file_bytes / SECTOR ||
		    descriptor_size > file_bytes / SECTOR - descriptor_at || !descriptor_size ||
		    descriptor_size > DESCRIPTOR_SECTORS_MAX)
			return bad(err, path, "its descriptor would lie outside of the file");
		l->descriptor_offset = descriptor_at * SECTOR;
		l->descriptor_bytes = descriptor_size * SECTOR;
	}
	l->version = h.version;
	l->zeroed_gtes = h.flags & SPARSE_ZEROED_GTE;
	l->unclean = h.unclean_shutdown;
	l->overhead_bytes = h.overhead * SECTOR;
	return 0;
}

int sparse_read_layout(struct file *f, uint64_t file_bytes, const char *path,
		       struct sparse_layout *out, struct error *err)
{
	uint32_t magic = 0;
	int64_t got = file_pread_some(f, &magic, sizeof(magic), 0);

	*out = (struct sparse_layout){0};
	if (got < 0)
		return unreadable(err, path, (int)got);
	if (got == sizeof(magic) && magic == SPARSE_MAGIC)
		return read_hosted(f, file_bytes, path, out, err);
	if (got == sizeof(magic) && magic == COWD_MAGIC)
		return read_cowd(f, file_bytes, path, out, err);
	return bad(err, path, "it is no sparse extent: it does not begin with KDMV or COWD");
}
