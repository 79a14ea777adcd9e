/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New images. Grain tables of a new sparse extent are there at once, as VMware wants them, but as
 * holes of the host's file: only the two directories take space.
 */
#include "disk/vmdk/create.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "disk/file.h"
#include "disk/vmdk/format.h"
#include "disk/vmdk/vmdk.h"

enum { DESCRIPTOR_SECTORS = 20, ZERO_BYTES = 1 << 20 };

static int failed(struct error *err, int rc, const char *path)
{
	return error_set(err, rc, "disk %s: cannot be made: %s", path, strerror(-rc));
}

/* ---- flat ---- */

static int write_zeroes(struct file *f, uint64_t bytes)
{
	void *zeroes = aligned_alloc(4096, ZERO_BYTES);
	uint64_t at = 0;
	int rc = zeroes ? 0 : -ENOMEM;

	if (zeroes)
		memset(zeroes, 0, ZERO_BYTES);
	while (at < bytes && !rc) {
		uint64_t n = bytes - at < ZERO_BYTES ? bytes - at : ZERO_BYTES;
		rc = file_pwrite(f, zeroes, n, at);
		at += n;
	}
	free(zeroes);
	return rc;
}

int vmdk_create_flat(const char *path, uint64_t bytes, enum disk_thickness thickness,
		     struct error *err)
{
	struct file_options opt = {.writable = true, .create = true};
	struct file *f;
	int rc = file_open(&f, path, &opt, err);

	if (rc)
		return rc;
	rc = file_truncate(f, bytes);
	if (!rc && thickness != DISK_THIN)
		rc = file_allocate(f, 0, bytes);
	if (!rc && thickness == DISK_THICK_EAGER)
		rc = write_zeroes(f, bytes);
	if (!rc)
		rc = file_sync(f);
	file_close(f);
	if (rc) {
		file_unlink(path);
		return failed(err, rc, path);
	}
	return 0;
}

/* ---- sparse ---- */

/* A directory whose tables stand behind each other from sector `first` on. */
static int write_directory(struct file *f, uint64_t at, uint64_t entries, uint64_t first,
			   uint32_t table_sectors)
{
	uint64_t bytes = gd_sectors(entries) * SECTOR;
	uint32_t *gd = calloc(1, bytes);
	int rc;

	if (!gd)
		return -ENOMEM;
	for (uint64_t i = 0; i < entries; i++)
		gd[i] = (uint32_t)(first + i * table_sectors);
	rc = file_pwrite(f, gd, bytes, at * SECTOR);
	free(gd);
	return rc;
}

static int write_hosted(struct file *f, const struct sparse_plan *p)
{
	uint64_t capacity = p->bytes / SECTOR, grain = p->grain_bytes / SECTOR;
	uint64_t entries = (capacity + grain * HOSTED_GTES - 1) / (grain * HOSTED_GTES);
	uint32_t table_sectors = HOSTED_GTES * 4 / SECTOR;
	uint64_t half = gd_sectors(entries) + entries * table_sectors;
	struct sparse_header h = {
		.magic = SPARSE_MAGIC,
		.version = p->zeroed_gtes ? 2 : 1,
		.flags = SPARSE_NEWLINE_TEST | SPARSE_REDUNDANT |
			 (p->zeroed_gtes ? SPARSE_ZEROED_GTE : 0),
		.capacity = capacity,
		.grain_size = grain,
		.descriptor_offset = p->descriptor ? 1 : 0,
		.descriptor_size = p->descriptor ? DESCRIPTOR_SECTORS : 0,
		.gtes_per_gt = HOSTED_GTES,
		.rgd_offset = p->descriptor ? 1 + DESCRIPTOR_SECTORS : 1,
		.newlines = {'\n', ' ', '\r', '\n'},
	};
	char descriptor[DESCRIPTOR_SECTORS * SECTOR] = "";
	int rc;

	h.gd_offset = h.rgd_offset + half;
	h.overhead = round_up(h.gd_offset + half, grain);
	if (p->descriptor) {
		if (strlen(p->descriptor) >= sizeof(descriptor))
			return -ENAMETOOLONG;
		memcpy(descriptor, p->descriptor, strlen(p->descriptor));
	}
	rc = file_truncate(f, h.overhead * SECTOR);
	if (!rc)
		rc = file_pwrite(f, &h, sizeof(h), 0);
	if (!rc && p->descriptor)
		rc = file_pwrite(f, descriptor, sizeof(descriptor), SECTOR);
	if (!rc)
		rc = write_directory(f, h.rgd_offset, entries, h.rgd_offset + gd_sectors(entries),
				     table_sectors);
	if (!rc)
		rc = write_directory(f, h.gd_offset, entries, h.gd_offset + gd_sectors(entries),
				     table_sectors);
	return rc;
}

static int write_cowd(struct file *f, const struct sparse_plan *p)
{
	uint64_t sectors = p->bytes / SECTOR, grain = p->grain_bytes / SECTOR;
	uint64_t entries = (sectors + grain * COWD_GTES - 1) / (grain * COWD_GTES);
	struct cowd_header h = {.magic = COWD_MAGIC,
				.version = 1,
				.flags = 3,
				.sectors = (uint32_t)sectors,
				.grain_size = (uint32_t)grain,
				.gd_offset = sizeof(h) / SECTOR,
				.gd_entries = (uint32_t)entries};
	int rc;

	h.free_sector = (uint32_t)round_up(h.gd_offset + gd_sectors(entries), grain);
	rc = file_truncate(f, (uint64_t)h.free_sector * SECTOR);
	return rc ? rc : file_pwrite(f, &h, sizeof(h), 0);
}

int vmdk_create_sparse(const char *path, const struct sparse_plan *p, struct error *err)
{
	struct file_options opt = {.writable = true, .create = true};
	struct file *f;
	int rc;

	if (p->bytes / SECTOR > UINT32_MAX - (p->cowd ? 1 : 0) + UINT64_C(1))
		return error_set(err, -EFBIG,
				 "disk %s: sparse extents hold 2 TiB at most; make a "
				 "twoGbMaxExtentSparse disk",
				 path);
	rc = file_open(&f, path, &opt, err);
	if (rc)
		return rc;
	rc = p->cowd ? write_cowd(f, p) : write_hosted(f, p);
	if (!rc)
		rc = file_sync(f);
	file_close(f);
	if (rc) {
		file_unlink(path);
		return failed(err, rc, path);
	}
	return 0;
}

/* ---- names and texts ---- */

bool vmdk_name_fits(const char *name)
{
	return !strpbrk(name, "\"\n\r");
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *vmdk_extent_name(const char *path, char kind, unsigned i, const char *word)
{
	const char *name = base_name(path), *dot = strrchr(name, '.');
	int n = dot && dot > name ? (int)(dot - name) : (int)strlen(name);
	char *out;
	int rc;

	if (kind)
		rc = asprintf(&out, "%.*s-%c%03u.vmdk", n, name, kind, i + 1);
	else
		rc = asprintf(&out, "%.*s-%s.vmdk", n, name, word);
	return rc < 0 ? NULL : out;
}

uint32_t vmdk_new_cid(void)
{
	uint32_t cid = 0;

	/* For 4 bytes it neither fails nor is interrupted. */
	while (cid == 0 || cid >= CID_NONE - 1)
		(void)!getrandom(&cid, sizeof(cid), 0);
	return cid;
}

struct vmdk_geometry vmdk_geometry(uint64_t bytes, const char *adapter)
{
	struct vmdk_geometry g = {.heads = 255, .sectors = 63};
	uint64_t sectors = bytes / SECTOR;

	if (!strcmp(adapter, "ide")) {
		g.heads = 16;
	} else if (bytes < UINT64_C(1) << 30) {
		g.heads = 64;
		g.sectors = 32;
	} else if (bytes < UINT64_C(2) << 30) {
		g.heads = 128;
		g.sectors = 32;
	}
	g.cylinders = sectors / (g.heads * g.sectors);
	if (!g.cylinders)
		g.cylinders = 1;
	if (!strcmp(adapter, "ide") && g.cylinders > 16383)
		g.cylinders = 16383;
	return g;
}

char *vmdk_descriptor_text(const struct descriptor_plan *p)
{
	struct vmdk_geometry g = vmdk_geometry(p->bytes, p->adapter);
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		return NULL;
	fprintf(out,
		"# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08x\nparentCID=%08x\n"
		"createType=\"%s\"\n",
		p->cid, p->parent_cid, p->type);
	if (p->parent_hint)
		fprintf(out, "parentFileNameHint=\"%s\"\n", p->parent_hint);
	fprintf(out, "\n# Extent description\n");
	for (unsigned i = 0; i < p->extents; i++)
		fprintf(out, "RW %" PRIu64 " %s \"%s\"%s\n", p->sectors[i], p->extent_type,
			p->names[i], p->offsets ? " 0" : "");
	fprintf(out,
		"\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\n"
		"ddb.geometry.cylinders = \"%" PRIu64 "\"\nddb.geometry.heads = \"%u\"\n"
		"ddb.geometry.sectors = \"%u\"\nddb.adapterType = \"%s\"\n",
		g.cylinders, g.heads, g.sectors, p->adapter);
	if (p->thin)
		fprintf(out, "ddb.thinProvisioned = \"1\"\n");
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

char *vmdk_parent_hint(const char *child, const char *parent)
{
	const char *name = base_name(child);
	char *folder = name == child ? strdup(".") : strndup(child, (size_t)(name - child));
	char *real_folder = folder ? realpath(folder, NULL) : NULL, *real = realpath(parent, NULL);
	char *hint = NULL;
	size_t n = real_folder ? strlen(real_folder) : 0;

	/* "/" has its slash already. */
	if (n == 1)
		n = 0;
	if (real && real_folder && !strncmp(real, real_folder, n) && real[n] == '/')
		hint = strdup(real + n + 1);
	else
		hint = strdup(real ? real : parent);
	free(folder);
	free(real_folder);
	free(real);
	return hint;
}

/* ---- the whole ---- */

struct type {
	const char *name, *extent_type;
	const char *written; /* as createType; NULL: name */
	char kind;	     /* of a split one's names */
	const char *word;    /* of an only one's name; NULL: embedded */
	bool sparse, cowd, offsets;
};

static const struct type types[] = {
	{.name = "monolithicSparse", .extent_type = "SPARSE", .sparse = true},
	{.name = "monolithicFlat", .extent_type = "FLAT", .word = "flat", .offsets = true},
	{.name = "twoGbMaxExtentSparse", .extent_type = "SPARSE", .kind = 's', .sparse = true},
	{.name = "twoGbMaxExtentFlat", .extent_type = "FLAT", .kind = 'f', .offsets = true},
	{.name = "vmfs", .extent_type = "VMFS", .word = "flat"},
	{.name = "vmfsThin", .extent_type = "VMFS", .written = "vmfs", .word = "flat"},
	{.name = "vmfsSparse",
	 .extent_type = "VMFSSPARSE",
	 .word = "delta",
	 .sparse = true,
	 .cowd = true},
};

/* A disk in the making. */
struct making {
	const char *path;
	const struct disk_create_options *opt;
	const struct type *type;
	struct descriptor_plan plan;
	char **names, **paths;
	uint64_t *sectors;
	char *hint;
	unsigned made; /* extents whose files are there */
};

static int use_parent(struct making *m, struct error *err)
{
	struct disk_options o = {.read_only = true};
	struct chain *parent;
	int rc;

	if (!m->type->sparse)
		return error_set(err, -EINVAL,
				 "disk %s: type %s cannot lie on a parent; use a sparse one",
				 m->path, m->type->name);
	rc = vmdk_open_chain(&parent, m->opt->parent, &o, false, err);
	if (rc)
		return rc;
	m->plan.parent_cid = parent->top->descriptor.cid;
	if (!m->plan.bytes)
		m->plan.bytes = parent->image.bytes;
	if (m->plan.bytes != parent->image.bytes)
		rc = error_set(err, -EINVAL,
			       "disk %s: has to be as large as its parent, %" PRIu64 " bytes",
			       m->path, parent->image.bytes);
	vmdk_close_chain(parent);
	if (rc)
		return rc;
	m->hint = m->opt->parent_hint ? strdup(m->opt->parent_hint)
				      : vmdk_parent_hint(m->path, m->opt->parent);
	if (!m->hint)
		return failed(err, -ENOMEM, m->path);
	m->plan.parent_hint = m->hint;
	return vmdk_name_fits(m->hint)
		       ? 0
		       : error_set(err, -EINVAL,
				   "disk %s: the parent's name %s has quotes or line ends, "
				   "which no descriptor can hold",
				   m->path, m->hint);
}

static int check_options(struct making *m, struct error *err)
{
	const struct disk_create_options *o = m->opt;
	const char *type = o->type ? o->type : "monolithicSparse";
	uint32_t grain = o->grain_bytes;

	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcasecmp(types[i].name, type))
			m->type = &types[i];
	if (!m->type)
		return error_set(err, -EINVAL,
				 "disk %s: type %s cannot be made; there are monolithicSparse, "
				 "monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, vmfs, "
				 "vmfsThin, vmfsSparse and, by converting, streamOptimized",
				 m->path, type);
	if (m->type->sparse && o->thickness != DISK_THIN)
		return error_set(err, -EINVAL,
				 "disk %s: type %s is thin; for a thick disk use a flat one",
				 m->path, m->type->name);
	if (!vmdk_name_fits(m->path) || (o->adapter && !vmdk_name_fits(o->adapter)))
		return error_set(err, -EINVAL,
				 "disk %s: quotes and line ends cannot stand in a descriptor",
				 m->path);
	if (grain && (grain & (grain - 1) || grain < 4096 || grain > 1 << 20))
		return error_set(
			err, -EINVAL,
			"disk %s: grains of %u bytes: has to be a power of two from 4096 to "
			"1048576",
			m->path, grain);
	m->plan.bytes = o->bytes;
	m->plan.parent_cid = CID_NONE;
	return o->parent ? use_parent(m, err) : 0;
}

/* Names and sizes of the extents. */
static int plan_extents(struct making *m, struct error *err)
{
	uint64_t left = m->plan.bytes, most = m->type->kind ? SPLIT_BYTES : UINT64_MAX;
	uint64_t n = m->type->kind ? (left + most - 1) / most : 1;
	const char *slash = strrchr(m->path, '/');
	int folder = slash ? (int)(slash - m->path) + 1 : 0;

	if (!left || left % SECTOR || left > INT64_MAX)
		return error_set(err, -EINVAL,
				 "disk %s: a size of %" PRIu64
				 " bytes: has to be a multiple of %d, and "
				 "more than none",
				 m->path, left, SECTOR);
	if (n > DESCRIPTOR_MAX_EXTENTS)
		return error_set(err, -EFBIG, "disk %s: would have %" PRIu64 " extents, %d at most",
				 m->path, n, DESCRIPTOR_MAX_EXTENTS);
	m->names = calloc(n, sizeof(*m->names));
	m->paths = calloc(n, sizeof(*m->paths));
	m->sectors = calloc(n, sizeof(*m->sectors));
	if (!m->names || !m->paths || !m->sectors)
		return failed(err, -ENOMEM, m->path);
	m->plan.extents = (unsigned)n;
	for (unsigned i = 0; i < n; i++) {
		uint64_t bytes = left < most ? left : most;
		m->sectors[i] = bytes / SECTOR;
		left -= bytes;
		m->names[i] = m->type->kind || m->type->word
				      ? vmdk_extent_name(m->path, m->type->kind, i, m->type->word)
				      : strdup(base_name(m->path));
		if (!m->names[i] ||
		    asprintf(&m->paths[i], "%.*s%s", folder, m->path, m->names[i]) < 0) {
			m->paths[i] = NULL;
			return failed(err, -ENOMEM, m->path);
		}
	}
	return 0;
}

static int make_extent(struct making *m, unsigned i, const char *descriptor, struct error *err)
{
	struct sparse_plan p = {.bytes = m->sectors[i] * SECTOR,
				.grain_bytes = m->opt->grain_bytes ? m->opt->grain_bytes
					       : m->type->cowd	   ? SECTOR
								   : 65536,
				.cowd = m->type->cowd,
				.zeroed_gtes = m->hint && !m->type->cowd,
				.descriptor = descriptor};

	if (m->type->sparse)
		return vmdk_create_sparse(m->paths[i], &p, err);
	return vmdk_create_flat(m->paths[i], p.bytes, m->opt->thickness, err);
}

static int make_files(struct making *m, const char *text, struct error *err)
{
	bool embedded = !m->type->kind && !m->type->word;
	struct file_options opt = {.writable = true, .create = true};
	struct file *f;
	int rc = 0;

	for (unsigned i = 0; i < m->plan.extents && !rc; i++) {
		rc = make_extent(m, i, embedded ? text : NULL, err);
		if (!rc)
			m->made++;
	}
	if (rc || embedded)
		return rc;
	rc = file_open(&f, m->path, &opt, err);
	if (rc)
		return rc;
	rc = file_pwrite(f, text, strlen(text), 0);
	if (!rc)
		rc = file_sync(f);
	file_close(f);
	if (rc) {
		file_unlink(m->path);
		return failed(err, rc, m->path);
	}
	return 0;
}

static int make(struct making *m, struct error *err)
{
	char *text;
	int rc = check_options(m, err);

	if (!rc)
		rc = plan_extents(m, err);
	if (rc)
		return rc;
	m->plan.cid = vmdk_new_cid();
	m->plan.type = m->type->written ? m->type->written : m->type->name;
	m->plan.adapter = m->opt->adapter ? m->opt->adapter : "lsilogic";
	m->plan.extent_type = m->type->extent_type;
	m->plan.offsets = m->type->offsets;
	m->plan.thin = !strcmp(m->type->name, "vmfsThin");
	m->plan.names = (const char *const *)m->names;
	m->plan.sectors = m->sectors;
	text = vmdk_descriptor_text(&m->plan);
	if (!text)
		return failed(err, -ENOMEM, m->path);
	rc = make_files(m, text, err);
	free(text);
	if (rc)
		for (unsigned i = 0; i < m->made; i++)
			file_unlink(m->paths[i]);
	else
		rc = file_sync_folder(m->path);
	return rc;
}

int vmdk_create(const char *path, const struct disk_create_options *opt, struct error *err)
{
	struct making m = {.path = path, .opt = opt};
	int rc = make(&m, err);

	for (unsigned i = 0; i < m.plan.extents; i++) {
		free(m.names[i]);
		free(m.paths[i]);
	}
	free(m.names);
	free(m.paths);
	free(m.sectors);
	free(m.hint);
	return rc;
}
