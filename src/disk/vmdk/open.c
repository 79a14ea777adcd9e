/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening: descriptor, extents, parents. Everything in these files may be hostile: sizes are checked
 * before they are used, and extents are only opened in the descriptor's own folder or below, so that a
 * disk from elsewhere cannot name other files of the host. A parent may be anywhere, but has to be a
 * VMDK with the right content id.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/vmdk/vmdk.h"

static int no_memory(struct error *err, const char *path)
{
	return error_set(err, -ENOMEM, "disk %s: out of memory", path);
}

/* The name as seen from the folder that holds `from`. */
static char *beside(const char *from, const char *name)
{
	const char *slash = strrchr(from, '/');
	char *path;

	if (name[0] == '/' || !slash)
		return strdup(name);
	if (asprintf(&path, "%.*s/%s", (int)(slash - from), from, name) < 0)
		return NULL;
	return path;
}

/* ---- sparse extents ---- */

int vmdk_open_sparse(struct extent *e, struct error *err)
{
	const char *path = file_path(e->file);
	struct sparse_layout *l = &e->layout;
	int rc = file_size(e->file, &e->file_bytes);

	if (rc)
		return error_set(err, rc, "disk %s: %s", path, strerror(-rc));
	rc = sparse_read_layout(e->file, e->file_bytes, path, l, err);
	if (rc)
		return rc;
	if (e->bytes > l->capacity_bytes)
		return error_set(err, -EINVAL,
				 "disk %s: the descriptor says %" PRIu64
				 " sectors, the extent's header %" PRIu64,
				 path, e->bytes / SECTOR, l->capacity_bytes / SECTOR);
	if (!e->image->read_only && (l->compressed || (l->version == 3 && !l->cowd)))
		return error_set(err, -EROFS,
				 "disk %s: %s; open it read-only, or convert it with `hanok disk "
				 "convert`",
				 path,
				 l->compressed
					 ? "compressed images cannot be written to"
					 : "sparse extents of version 3 cannot be written to");
	e->alloc_end = e->file_bytes > l->overhead_bytes ? e->file_bytes : l->overhead_bytes;
	/* The last grain may be cut short, and grains need not be aligned in the file. */
	if (e->alloc_end % l->grain_bytes)
		e->alloc_end += l->grain_bytes - SECTOR;
	e->alloc_end = round_up(e->alloc_end, l->grain_bytes);
	return vmdk_load_directories(e, err);
}

/* ---- extents ---- */

static int open_file(struct vmdk *v, const char *path, const struct disk_options *opt,
		     enum file_lock lock, struct file **out, struct error *err)
{
	struct file_options fopt = {
		.loop = opt->loop, .writable = !v->read_only, .direct = opt->direct, .lock = lock};

	return file_open(out, path, &fopt, err);
}

static bool outside(const char *name)
{
	const char *at = name;

	if (name[0] == '/')
		return true;
	while (at) {
		if (!strncmp(at, "..", 2) && (!at[2] || at[2] == '/'))
			return true;
		at = strchr(at, '/');
		at = at ? at + 1 : NULL;
	}
	return false;
}

static int open_extent_file(struct vmdk *v, struct extent *e, const struct extent_line *line,
			    const struct disk_options *opt, struct error *err)
{
	char *path;
	int rc;

	if (!line->name)
		return error_set(err, -EINVAL, "disk %s: an extent of type %s names no file",
				 v->path, line->type);
	if (outside(line->name))
		return error_set(
			err, -EINVAL,
			"disk %s: extent %s lies outside of the disk's folder; move it there",
			v->path, line->name);
	path = beside(v->path, line->name);
	if (!path)
		return no_memory(err, v->path);
	for (struct extent *other = v->extents; other < e && !e->file; other++) {
		if (!other->file || strcmp(file_path(other->file), path))
			continue;
		if (other->kind == EXTENT_SPARSE || e->kind == EXTENT_SPARSE) {
			free(path);
			return error_set(err, -EINVAL, "disk %s: two extents use the file %s",
					 v->path, line->name);
		}
		e->file = other->file;
		e->shares_file = true;
	}
	rc = e->file ? 0
		     : open_file(v, path, opt, v->read_only ? FILE_LOCK_READ : FILE_LOCK_WRITE,
				 &e->file, err);
	free(path);
	return rc;
}

static int open_flat(struct extent *e, const struct extent_line *line, struct error *err)
{
	const char *path = file_path(e->file);
	uint64_t size;
	int rc = file_size(e->file, &size);

	if (rc)
		return error_set(err, rc, "disk %s: %s", path, strerror(-rc));
	if (line->offset > size / SECTOR || line->sectors > size / SECTOR - line->offset)
		return error_set(err, -EINVAL,
				 "disk %s: the file was cut short: the descriptor says %" PRIu64
				 " sectors from %" PRIu64 " on, it has %" PRIu64,
				 path, line->sectors, line->offset, size / SECTOR);
	e->flat_offset = line->offset * SECTOR;
	return 0;
}

static int kind_of(const struct vmdk *v, const struct extent_line *line, enum extent_kind *kind,
		   struct error *err)
{
	static const struct {
		const char *type;
		enum extent_kind kind;
	} types[] = {{"FLAT", EXTENT_FLAT},
		     {"VMFS", EXTENT_FLAT},
		     {"SPARSE", EXTENT_SPARSE},
		     {"VMFSSPARSE", EXTENT_SPARSE},
		     {"ZERO", EXTENT_ZERO}};

	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(types[i].type, line->type)) {
			*kind = types[i].kind;
			return 0;
		}
	return error_set(err, -EINVAL,
			 "disk %s: extents of type %s are not known; convert the disk with the "
			 "program that made it",
			 v->path, line->type);
}

static int open_extent(struct vmdk *v, unsigned i, const struct disk_options *opt,
		       struct error *err)
{
	const struct extent_line *line = &v->descriptor.extents[i];
	struct extent *e = &v->extents[i];
	int rc;

	e->image = v;
	e->access = line->access;
	e->start = v->bytes;
	e->bytes = line->sectors * SECTOR;
	if (__builtin_add_overflow(v->bytes, e->bytes, &v->bytes) || v->bytes > INT64_MAX)
		return error_set(err, -EINVAL, "disk %s: its extents are too large together",
				 v->path);
	rc = kind_of(v, line, &e->kind, err);
	if (rc || e->kind == EXTENT_ZERO)
		return rc;
	if (v->embedded) {
		e->file = v->file;
		e->shares_file = true;
	} else {
		rc = open_extent_file(v, e, line, opt, err);
		if (rc)
			return rc;
	}
	return e->kind == EXTENT_FLAT ? open_flat(e, line, err) : vmdk_open_sparse(e, err);
}

static int open_extents(struct vmdk *v, const struct disk_options *opt, struct error *err)
{
	unsigned n = v->descriptor.extent_count;
	int rc = 0;

	if (!n)
		return error_set(err, -EINVAL, "disk %s: the descriptor has no extent", v->path);
	if (v->embedded && (n != 1 || strcmp(v->descriptor.extents[0].type, "SPARSE")))
		return error_set(err, -EINVAL,
				 "disk %s: its own descriptor should have one SPARSE extent",
				 v->path);
	v->extents = calloc(n, sizeof(*v->extents));
	if (!v->extents)
		return no_memory(err, v->path);
	for (unsigned i = 0; i < n && !rc; i++) {
		v->extent_count++;
		rc = open_extent(v, i, opt, err);
	}
	return rc;
}

/* ---- descriptors ---- */

static int check_type(const struct vmdk *v, struct error *err)
{
	static const char *const types[] = {"monolithicSparse",
					    "monolithicFlat",
					    "twoGbMaxExtentSparse",
					    "twoGbMaxExtentFlat",
					    "vmfs",
					    "vmfsThin",
					    "vmfsSparse",
					    "streamOptimized",
					    "custom"};

	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcasecmp(v->descriptor.create_type, types[i]))
			return 0;
	return error_set(
		err, -EINVAL,
		"disk %s: disks of createType %s are not known; convert it with the program "
		"that made it",
		v->path, v->descriptor.create_type);
}

/* Where the descriptor is: in a sparse file, or all of the file. */
static int find_descriptor(struct vmdk *v, struct error *err)
{
	struct sparse_layout l;
	uint32_t magic = 0;
	uint64_t size;
	int rc = file_size(v->file, &size);

	if (!rc && size >= sizeof(magic))
		rc = file_pread(v->file, &magic, sizeof(magic), 0);
	if (rc)
		return error_set(err, rc, "disk %s: cannot be read: %s", v->path, strerror(-rc));
	if (magic != SPARSE_MAGIC && magic != COWD_MAGIC) {
		if (size > DESCRIPTOR_MAX_BYTES)
			return error_set(
				err, -EINVAL,
				"disk %s: is neither a sparse VMDK nor a descriptor; if it is "
				"a flat extent, open the .vmdk that names it",
				v->path);
		v->descriptor_bytes = size;
		return 0;
	}
	rc = sparse_read_layout(v->file, size, v->path, &l, err);
	if (rc)
		return rc;
	if (!l.descriptor_offset)
		return error_set(err, -EINVAL,
				 "disk %s: is an extent of a disk; open the .vmdk that names it",
				 v->path);
	v->embedded = true;
	v->descriptor_offset = l.descriptor_offset;
	v->descriptor_bytes = l.descriptor_bytes;
	return 0;
}

static int load_descriptor(struct vmdk *v, struct error *err)
{
	char *text;
	int rc = find_descriptor(v, err);

	if (rc)
		return rc;
	text = malloc(v->descriptor_bytes + 1);
	if (!text)
		return no_memory(err, v->path);
	rc = file_pread(v->file, text, v->descriptor_bytes, v->descriptor_offset);
	if (rc)
		error_set(err, rc, "disk %s: its descriptor cannot be read: %s", v->path,
			  strerror(-rc));
	else
		rc = descriptor_parse(&v->descriptor, text, v->descriptor_bytes, v->path, err);
	free(text);
	return rc ? rc : check_type(v, err);
}

int vmdk_store_descriptor(struct vmdk *v)
{
	const struct descriptor *d = &v->descriptor;
	char *area;
	int rc;

	if (!v->embedded) {
		rc = file_pwrite(v->file, d->text, d->bytes, 0);
		return rc ? rc : file_truncate(v->file, d->bytes);
	}
	if (d->bytes >= v->descriptor_bytes)
		return -ENOSPC;
	area = calloc(1, v->descriptor_bytes);
	if (!area)
		return -ENOMEM;
	memcpy(area, d->text, d->bytes);
	rc = file_pwrite(v->file, area, v->descriptor_bytes, v->descriptor_offset);
	free(area);
	return rc;
}

/* ---- chains ---- */

static void close_image(struct vmdk *v)
{
	for (unsigned i = 0; i < v->extent_count; i++) {
		struct extent *e = &v->extents[i];
		if (!e->shares_file)
			file_close(e->file);
		free(e->gd);
		free(e->rgd);
		free(e->gd_dirty);
		free(e->tables);
		vmdk_free_list_clear(&e->freed);
		vmdk_free_list_clear(&e->retired[0]);
		vmdk_free_list_clear(&e->retired[1]);
		vmdk_free_list_clear(&e->free);
	}
	free(v->extents);
	file_close(v->file);
	descriptor_free(&v->descriptor);
	free(v->path);
	free(v);
}

/* An image at the chain's end, which owns it from then on. */
static int open_image(struct chain *c, const char *path, const struct disk_options *opt,
		      struct error *err)
{
	bool read_only = opt->read_only || c->count;
	struct vmdk *v = calloc(1, sizeof(*v));
	void *more = realloc(c->images, (c->count + 1) * sizeof(*c->images));
	int rc;

	if (more)
		c->images = more;
	if (!v || !more) {
		free(v);
		return no_memory(err, path);
	}
	v->chain = c;
	v->read_only = read_only;
	v->depth = c->count;
	v->path = strdup(path);
	c->images[c->count++] = v;
	if (!v->path)
		return no_memory(err, path);
	rc = open_file(v, path, opt, FILE_LOCK_NONE, &v->file, err);
	if (rc)
		return rc;
	for (unsigned i = 0; i + 1 < c->count; i++)
		if (file_same(c->images[i]->file, v->file))
			return error_set(
				err, -ELOOP,
				"disk %s: its parents go round in a circle: %s comes twice",
				c->images[0]->path, path);
	rc = file_lock(v->file, read_only ? FILE_LOCK_READ : FILE_LOCK_WRITE, err);
	if (!rc)
		rc = load_descriptor(v, err);
	return rc ? rc : open_extents(v, opt, err);
}

/* As the hint says; or, if a disk was moved with its parents, in the child's folder. */
static char *find_parent(const struct vmdk *v, const char *hint)
{
	const char *name = strrchr(hint, '/'), *back = strrchr(hint, '\\');
	char *path = beside(v->path, hint), *other;
	struct file *f;

	if (!path || (!name && !back))
		return path;
	if (!file_open(&f, path, &(struct file_options){0}, NULL)) {
		file_close(f);
		return path;
	}
	other = beside(v->path, (name > back ? name : back) + 1);
	if (other && !file_open(&f, other, &(struct file_options){0}, NULL)) {
		file_close(f);
		free(path);
		return other;
	}
	free(other);
	return path;
}

static int check_parent(const struct vmdk *child, const struct vmdk *parent, struct error *err)
{
	if (child->descriptor.parent_cid != parent->descriptor.cid)
		return error_set(
			err, -ESTALE,
			"disk %s: its parent %s was changed behind its back (CID %08x, "
			"expected %08x): what the two hold no longer fits together; put the "
			"unchanged parent back",
			child->path, parent->path, parent->descriptor.cid,
			child->descriptor.parent_cid);
	if (child->bytes != parent->bytes)
		return error_set(err, -EINVAL,
				 "disk %s: has %" PRIu64 " sectors, its parent %s %" PRIu64
				 "; they have to be alike",
				 child->path, child->bytes / SECTOR, parent->path,
				 parent->bytes / SECTOR);
	return 0;
}

static int open_parent(struct chain *c, const struct disk_options *opt, struct error *err)
{
	struct vmdk *child = c->images[c->count - 1];
	const char *hint = child->descriptor.parent_hint;
	struct error cause = {""};
	char *path;
	int rc;

	if (!hint || !hint[0])
		return error_set(
			err, -EINVAL,
			"disk %s: lies on a parent (parentCID %08x), but parentFileNameHint "
			"does not say which",
			child->path, child->descriptor.parent_cid);
	path = find_parent(child, hint);
	if (!path)
		return no_memory(err, child->path);
	rc = open_image(c, path, opt, &cause);
	free(path);
	if (rc)
		return error_set(err, rc, "disk %s: its parent cannot be opened: %.400s",
				 child->path, cause.text);
	child->parent = c->images[c->count - 1];
	return check_parent(child, child->parent, err);
}

static int open_all(struct chain *c, const char *path, const struct disk_options *opt,
		    struct error *err)
{
	int rc = open_image(c, path, opt, err);

	c->top = c->count ? c->images[0] : NULL;
	while (!rc && !opt->alone && c->images[c->count - 1]->descriptor.parent_cid != CID_NONE)
		rc = open_parent(c, opt, err);
	if (rc)
		return rc;
	c->image.bytes = c->top->bytes;
	c->image.read_only = c->top->read_only;
	c->image.poll_file = c->top->file;
	return 0;
}

int vmdk_open_chain(struct chain **out, const char *path, const struct disk_options *opt,
		    bool mending, struct error *err)
{
	struct chain *c = calloc(1, sizeof(*c));
	int rc;

	*out = NULL;
	if (!c)
		return no_memory(err, path);
	pthread_mutex_init(&c->unzip_lock, NULL);
	pthread_mutex_init(&c->touch_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	c->keep_cid = opt->keep_cid;
	c->mending = mending;
	rc = open_all(c, path, opt, err);
	/* Who had it before may have closed it without a flush, and ours is to cover that as well. */
	for (unsigned i = 0; !rc && !opt->read_only && i < c->top->extent_count; i++)
		atomic_store(&c->top->extents[i].unsynced, true);
	if (rc)
		vmdk_close_chain(c);
	else
		*out = c;
	return rc;
}

void vmdk_close_chain(struct chain *c)
{
	vmdk_tables_free(c);
	for (unsigned i = 0; i < c->count; i++)
		close_image(c->images[i]);
	free(c->images);
	free(c->unzipped);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->touch_lock);
	pthread_mutex_destroy(&c->unzip_lock);
	free(c);
}
