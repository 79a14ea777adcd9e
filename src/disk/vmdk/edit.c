/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes to images that nobody uses: another size, another parent.
 *
 * A disk grows from its files up: first the extents, durably, then the descriptor, which is what says
 * how much of them is the disk. It shrinks the other way round. So at any moment the descriptor
 * speaks of no more than there is.
 *
 * A sparse extent that needs more grain tables gets new directories at its end, and then a header that
 * points to them, which is one sector.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/vmdk/check.h"
#include "disk/vmdk/create.h"
#include "disk/vmdk/vmdk.h"

static int failed(struct error *err, int rc, const char *path)
{
	return error_set(err, rc, "disk %s: cannot be changed: %s", path, strerror(-rc));
}

/* The descriptor's text, durably. An embedded one is some hundred bytes in one write. */
static int store(struct vmdk *v, struct error *err)
{
	int rc;

	if (!v->embedded)
		return file_replace(v->path, v->descriptor.text, v->descriptor.bytes, err);
	rc = vmdk_store_descriptor(v);
	if (!rc)
		rc = file_sync(v->file);
	return rc ? failed(err, rc, v->path) : 0;
}

/* ---- parents ---- */

static int set_parent_text(struct vmdk *v, uint32_t cid, const char *hint)
{
	char digits[9], *quoted = NULL;
	int rc;

	snprintf(digits, sizeof(digits), "%08x", cid);
	rc = descriptor_set(&v->descriptor, "parentCID", digits);
	if (!rc && hint && asprintf(&quoted, "\"%s\"", hint) < 0)
		return -ENOMEM;
	if (!rc)
		rc = descriptor_set(&v->descriptor, "parentFileNameHint", quoted);
	free(quoted);
	return rc;
}

static int look_at_parent(const struct vmdk *v, const char *parent, uint32_t *cid,
			  struct error *err)
{
	struct disk_options o = {.read_only = true};
	struct chain *p;
	int rc = vmdk_open_chain(&p, parent, &o, false, err);

	if (rc)
		return rc;
	*cid = p->top->descriptor.cid;
	if (p->image.bytes != v->bytes)
		rc = error_set(err, -EINVAL,
			       "disk %s: has %" PRIu64 " sectors, %s has %" PRIu64
			       "; a parent has to be as large",
			       v->path, v->bytes / SECTOR, parent, p->image.bytes / SECTOR);
	for (unsigned i = 0; !rc && i < p->count; i++)
		if (file_same(p->images[i]->file, v->file))
			rc = error_set(err, -ELOOP, "disk %s: would lie on itself by way of %s",
				       v->path, parent);
	vmdk_close_chain(p);
	return rc;
}

/* Grains that say "zero" would show the parent's content in an image that cannot say so: the flag goes
 * with the header of those that we make. Here only images that have sparse extents alone. */
static int check_sparse(const struct vmdk *v, struct error *err)
{
	for (unsigned i = 0; i < v->extent_count; i++)
		if (v->extents[i].kind != EXTENT_SPARSE)
			return error_set(err, -EINVAL,
					 "disk %s: a flat disk cannot lie on a parent", v->path);
	return 0;
}

static int change_parent(struct vmdk *v, const char *parent, const char *parent_hint,
			 struct error *err)
{
	uint32_t cid = CID_NONE;
	char *hint = NULL;
	int rc = 0;

	if (parent) {
		rc = check_sparse(v, err);
		if (!rc)
			rc = look_at_parent(v, parent, &cid, err);
		if (rc)
			return rc;
		hint = parent_hint ? strdup(parent_hint) : vmdk_parent_hint(v->path, parent);
		if (!hint)
			return failed(err, -ENOMEM, v->path);
		if (!vmdk_name_fits(hint))
			rc = error_set(
				err, -EINVAL,
				"disk %s: the parent's name %s has quotes or line ends, which no "
				"descriptor can hold",
				v->path, hint);
	}
	if (!rc && set_parent_text(v, cid, hint))
		rc = failed(err, -ENOMEM, v->path);
	free(hint);
	return rc ? rc : store(v, err);
}

int vmdk_set_parent(const char *path, const char *parent, const char *parent_hint,
		    struct error *err)
{
	/* The parent may be below the lock that opening for writing takes: no loop is looked for
	 * before that. */
	struct disk_options o = {.alone = true};
	struct chain *c;
	int rc = vmdk_open_chain(&c, path, &o, false, err);

	if (rc)
		return rc;
	rc = change_parent(c->top, parent, parent_hint, err);
	vmdk_close_chain(c);
	return rc;
}

int vmdk_set_parent_cid(const char *path, uint32_t cid, const char *hint, struct error *err)
{
	struct chain *c;
	int rc = vmdk_open_chain(&c, path, &(struct disk_options){.alone = true}, false, err);

	if (rc)
		return rc;
	if (!vmdk_name_fits(hint))
		rc = error_set(err, -EINVAL,
			       "disk %s: the parent's name %s has quotes or line ends, which no "
			       "descriptor can hold",
			       path, hint);
	if (!rc)
		rc = check_sparse(c->top, err);
	if (!rc && set_parent_text(c->top, cid, hint))
		rc = failed(err, -ENOMEM, path);
	if (!rc)
		rc = store(c->top, err);
	vmdk_close_chain(c);
	return rc;
}

/* ---- sizes ---- */

/* Directories at the file's end: the old entries, and new ones for tables that are holes. */
static int move_directory(struct extent *e, uint32_t *old, uint64_t at, uint64_t entries)
{
	uint32_t sectors = table_bytes(&e->layout) / SECTOR, have = e->layout.gd_entries;
	uint64_t bytes = gd_sectors(entries) * SECTOR, next = at / SECTOR + gd_sectors(entries);
	uint32_t *gd = calloc(1, bytes);
	int rc;

	if (!gd)
		return -ENOMEM;
	memcpy(gd, old, have * sizeof(*gd));
	for (uint64_t i = have; i < entries; i++) {
		gd[i] = (uint32_t)next;
		next += sectors;
	}
	rc = file_pwrite(e->file, gd, bytes, at);
	free(gd);
	return rc;
}

static int write_header(struct extent *e, uint64_t bytes, uint64_t entries, uint64_t gd,
			uint64_t rgd)
{
	union {
		struct sparse_header hosted;
		struct cowd_header cowd;
	} h;
	size_t n = e->layout.cowd ? sizeof(h.cowd) : sizeof(h.hosted);
	int rc = file_pread(e->file, &h, n, 0);

	if (rc)
		return rc;
	if (e->layout.cowd) {
		h.cowd.sectors = (uint32_t)(bytes / SECTOR);
		h.cowd.gd_offset = (uint32_t)(gd / SECTOR);
		h.cowd.gd_entries = (uint32_t)entries;
		h.cowd.free_sector = (uint32_t)(e->alloc_end / SECTOR);
	} else {
		h.hosted.capacity = bytes / SECTOR;
		h.hosted.gd_offset = gd / SECTOR;
		if (rgd)
			h.hosted.rgd_offset = rgd / SECTOR;
	}
	rc = file_pwrite(e->file, &h, SECTOR, 0);
	return rc ? rc : file_sync(e->file);
}

/* Gives back the space of tables from entry `first` on, runs of them at once. Advice to the host. */
static void drop_tables(struct extent *e, const uint32_t *gd, uint64_t first)
{
	uint32_t sectors = table_bytes(&e->layout) / SECTOR;

	for (uint64_t i = first, n; gd && i < e->layout.gd_entries; i += n) {
		n = 1;
		while (gd[i] && i + n < e->layout.gd_entries && gd[i + n] == gd[i] + n * sectors)
			n++;
		if (gd[i])
			(void)file_discard(e->file, (uint64_t)gd[i] * SECTOR, n * sectors * SECTOR);
	}
}

static int resize_sparse(struct extent *e, uint64_t bytes)
{
	const struct sparse_layout *l = &e->layout;
	uint64_t span = l->grain_bytes << l->table_shift, entries = (bytes + span - 1) / span;
	uint64_t part, gd = l->gd_offset, rgd = l->rgd_offset, end;
	int rc = 0;

	if (bytes / SECTOR > UINT32_MAX)
		return -EFBIG;
	if (entries > l->gd_entries) {
		part = gd_sectors(entries) * SECTOR + (entries - l->gd_entries) * table_bytes(l);
		rgd = rgd ? e->alloc_end : 0;
		gd = rgd ? rgd + part : e->alloc_end;
		end = round_up(gd + part, l->grain_bytes);
		if (end / SECTOR > UINT32_MAX)
			return -EFBIG;
		rc = file_truncate(e->file, end);
		if (!rc && rgd)
			rc = move_directory(e, e->rgd, rgd, entries);
		if (!rc)
			rc = move_directory(e, e->gd, gd, entries);
		if (!rc)
			rc = file_sync(e->file);
		e->alloc_end = end;
	}
	if (!rc)
		rc = write_header(e, bytes, entries, gd, rgd);
	if (!rc) {
		drop_tables(e, e->gd, entries);
		drop_tables(e, e->rgd, entries);
	}
	return rc;
}

static int resize_extent(struct extent *e, uint64_t bytes)
{
	int rc;

	if (bytes == e->bytes)
		return 0;
	if (e->kind == EXTENT_SPARSE)
		return resize_sparse(e, bytes);
	rc = file_truncate(e->file, e->flat_offset + bytes);
	return rc ? rc : file_sync(e->file);
}

static int set_geometry(struct descriptor *d, uint64_t bytes)
{
	char adapter[32] = "lsilogic", value[32];
	struct vmdk_geometry g;
	int rc;

	descriptor_get(d, "ddb.adapterType", adapter, sizeof(adapter));
	g = vmdk_geometry(bytes, adapter);
	snprintf(value, sizeof(value), "\"%" PRIu64 "\"", g.cylinders);
	rc = descriptor_set(d, "ddb.geometry.cylinders", value);
	snprintf(value, sizeof(value), "\"%u\"", g.heads);
	if (!rc)
		rc = descriptor_set(d, "ddb.geometry.heads", value);
	snprintf(value, sizeof(value), "\"%u\"", g.sectors);
	return rc ? rc : descriptor_set(d, "ddb.geometry.sectors", value);
}

/* A new extent behind the others of a split disk: its file and its line. */
static int add_split(struct vmdk *v, unsigned i, uint64_t bytes, struct error *err)
{
	const struct extent *last = &v->extents[v->extent_count - 1];
	bool sparse = last->kind == EXTENT_SPARSE;
	char *name = vmdk_extent_name(v->path, sparse ? 's' : 'f', i, NULL), *path = NULL;
	char *line = NULL;
	const char *slash = strrchr(v->path, '/');
	int folder = slash ? (int)(slash - v->path) + 1 : 0, rc = 0;

	if (!name || asprintf(&path, "%.*s%s", folder, v->path, name) < 0 ||
	    asprintf(&line, "RW %" PRIu64 " %s \"%s\"%s", bytes / SECTOR,
		     sparse ? "SPARSE" : "FLAT", name, sparse ? "" : " 0") < 0) {
		rc = failed(err, -ENOMEM, v->path);
	} else if (sparse) {
		struct sparse_plan p = {.bytes = bytes,
					.grain_bytes = last->layout.grain_bytes,
					.zeroed_gtes = last->layout.zeroed_gtes};
		rc = vmdk_create_sparse(path, &p, err);
	} else {
		rc = vmdk_create_flat(path, bytes, DISK_THIN, err);
	}
	if (!rc && descriptor_add_extent(&v->descriptor, line))
		rc = failed(err, -ENOMEM, v->path);
	free(line);
	free(path);
	free(name);
	return rc;
}

static int grow(struct vmdk *v, uint64_t bytes, bool split, struct error *err)
{
	struct extent *last = &v->extents[v->extent_count - 1];
	uint64_t size = bytes - last->start, at;
	int rc;

	if (split && size > SPLIT_BYTES)
		size = last->bytes > SPLIT_BYTES ? last->bytes : SPLIT_BYTES;
	rc = resize_extent(last, size);
	if (!rc)
		rc = descriptor_set_sectors(&v->descriptor, v->extent_count - 1, size / SECTOR);
	if (rc)
		return failed(err, rc, v->path);
	at = last->start + size;
	for (unsigned i = v->extent_count; at < bytes && !rc; i++) {
		size = bytes - at < SPLIT_BYTES ? bytes - at : SPLIT_BYTES;
		rc = add_split(v, i, size, err);
		at += size;
	}
	if (!rc && set_geometry(&v->descriptor, bytes))
		rc = failed(err, -ENOMEM, v->path);
	return rc ? rc : store(v, err);
}

static int shrink_to(struct chain *c, uint64_t bytes, struct error *err)
{
	struct vmdk *v = c->top;
	unsigned keep = v->extent_count;
	struct extent *last;
	/* Zeroes: what is cut off must not show again when the disk grows. */
	int rc = vmdk_discard(v, bytes, v->bytes - bytes, true);

	if (!rc)
		rc = vmdk_commit(c);
	if (!rc)
		rc = vmdk_write_back(c);
	while (!rc && v->extents[keep - 1].start >= bytes)
		rc = descriptor_drop_extent(&v->descriptor, --keep);
	last = &v->extents[keep - 1];
	if (!rc)
		rc = descriptor_set_sectors(&v->descriptor, keep - 1,
					    (bytes - last->start) / SECTOR);
	if (!rc)
		rc = set_geometry(&v->descriptor, bytes);
	if (rc)
		return failed(err, rc, v->path);
	rc = store(v, err);
	if (rc)
		return rc;
	for (unsigned i = keep; i < v->extent_count; i++)
		if (!v->extents[i].shares_file)
			file_unlink(file_path(v->extents[i].file));
	rc = resize_extent(last, bytes - last->start);
	return rc ? failed(err, rc, v->path) : 0;
}

static int resize(struct chain *c, uint64_t bytes, bool shrink, struct error *err)
{
	struct vmdk *v = c->top;
	const char *type = v->descriptor.create_type;
	bool split = !strncasecmp(type, "twoGbMaxExtent", 14);

	if (bytes == v->bytes)
		return 0;
	if (v->descriptor.parent_cid != CID_NONE)
		return error_set(
			err, -EINVAL,
			"disk %s: lies on a parent and has to be as large; merge its snapshots "
			"first",
			v->path);
	if (!strcasecmp(type, "custom") || (v->extent_count > 1 && !split))
		return error_set(err, -EINVAL,
				 "disk %s: a disk of type %s cannot be resized; convert it",
				 v->path, type);
	for (unsigned i = 0; i < v->extent_count; i++)
		if (v->extents[i].kind == EXTENT_ZERO || v->extents[i].access != ACCESS_RW ||
		    v->extents[i].flat_offset)
			return error_set(err, -EINVAL,
					 "disk %s: extent %u cannot be resized; convert the disk",
					 v->path, i);
	if (bytes > v->bytes)
		return grow(v, bytes, split, err);
	if (!shrink)
		return error_set(
			err, -EINVAL,
			"disk %s: has %" PRIu64
			" bytes; making it smaller cuts off its end, which has to be asked for",
			v->path, v->bytes);
	return shrink_to(c, bytes, err);
}

int vmdk_resize(const char *path, uint64_t bytes, bool shrink, struct error *err)
{
	struct disk_options o = {.alone = true};
	struct chain *c;
	int rc = vmdk_open_chain(&c, path, &o, false, err);

	if (rc)
		return rc;
	rc = resize(c, bytes, shrink, err);
	vmdk_close_chain(c);
	return rc;
}
