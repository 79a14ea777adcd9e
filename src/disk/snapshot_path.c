/* SPDX-License-Identifier: Apache-2.0 */
/* Names of images and of the files they are made of. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/file.h"
#include "disk/snapshot_internal.h"
#include "disk/vmdk/descriptor.h"

enum { NUMBER_DIGITS = 6, NUMBER_MAX = 999999, HEAD_BYTES = 512 };

const char *path_base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static size_t folder_length(const char *path)
{
	return (size_t)(path_base(path) - path);
}

char *path_join(const char *folder, const char *name)
{
	char *out;

	if (*name == '/' || !*folder)
		return strdup(name);
	const char *slash = folder[strlen(folder) - 1] == '/' ? "" : "/";
	return asprintf(&out, "%s%s%s", folder, slash, name) < 0 ? NULL : out;
}

char *path_beside(const char *beside, const char *name)
{
	char *out;

	if (asprintf(&out, "%.*s%s", (int)folder_length(beside), beside, name) < 0)
		return NULL;
	return out;
}

char *path_real(const char *path)
{
	char *real = realpath(path, NULL);

	return real ? real : strdup(path);
}

bool path_same_folder(const char *a, const char *b)
{
	char *fa = path_beside(a, "."), *fb = path_beside(b, ".");
	char *ra = fa ? path_real(fa) : NULL, *rb = fb ? path_real(fb) : NULL;
	bool same = ra && rb && !strcmp(ra, rb);

	free(fa);
	free(fb);
	free(ra);
	free(rb);
	return same;
}

char *path_hint(const char *child, const char *parent)
{
	if (path_same_folder(child, parent))
		return strdup(path_base(parent));
	return path_real(parent);
}

/* ---- lists ---- */

int path_list_take(struct path_list *l, char *path)
{
	char **p = path ? realloc(l->path, (l->count + 1) * sizeof(*p)) : NULL;

	if (!p) {
		free(path);
		return -ENOMEM;
	}
	l->path = p;
	p[l->count++] = path;
	return 0;
}

bool path_list_has(const struct path_list *l, const char *path)
{
	for (unsigned i = 0; i < l->count; i++)
		if (!strcmp(l->path[i], path))
			return true;
	return false;
}

void path_list_free(struct path_list *l)
{
	for (unsigned i = 0; i < l->count; i++)
		free(l->path[i]);
	free(l->path);
	*l = (struct path_list){0};
}

/* ---- the next name ---- */

/* How much of a stem comes before "-000001", if it ends so. */
static size_t unnumbered(const char *stem, size_t n)
{
	if (n <= NUMBER_DIGITS + 1 || stem[n - NUMBER_DIGITS - 1] != '-')
		return n;
	for (size_t i = n - NUMBER_DIGITS; i < n; i++)
		if (!isdigit((unsigned char)stem[i]))
			return n;
	return n - NUMBER_DIGITS - 1;
}

/* The number in a file's name if it belongs to an image STEM-NNNNNN (its own file, or an extent's); 0:
 * it does not. */
static unsigned number_of(const char *name, const char *stem, size_t n)
{
	unsigned v = 0;

	if (strncmp(name, stem, n) != 0 || name[n] != '-')
		return 0;
	for (unsigned i = 1; i <= NUMBER_DIGITS; i++) {
		if (!isdigit((unsigned char)name[n + i]))
			return 0;
		v = v * 10 + (unsigned)(name[n + i] - '0');
	}
	char after = name[n + NUMBER_DIGITS + 1];
	return after == '.' || after == '-' ? v : 0;
}

/* Calls fn for each file in path's folder that has a number. */
static int each_numbered(const char *path,
			 int (*fn)(void *opaque, const char *name, unsigned number), void *opaque,
			 struct error *err)
{
	const char *base = path_base(path), *dot = strrchr(base, '.');
	size_t n = unnumbered(base, dot ? (size_t)(dot - base) : strlen(base));
	char *folder = path_beside(path, ".");
	DIR *dir = folder ? opendir(folder) : NULL;
	int rc = 0;

	free(folder);
	if (!dir)
		return error_set(err, -errno, "%s: its folder cannot be read: %s", path,
				 strerror(errno));
	for (struct dirent *e; !rc && (e = readdir(dir));) {
		unsigned number = number_of(e->d_name, base, n);
		if (number)
			rc = fn(opaque, e->d_name, number);
	}
	closedir(dir);
	if (rc)
		error_set(err, rc, "%s: out of memory", path);
	return rc;
}

static int note_number(void *opaque, const char *name, unsigned number)
{
	uint8_t *taken = opaque;

	(void)name;
	taken[number / 8] |= (uint8_t)(1 << number % 8);
	return 0;
}

int snapshot_next_name(const char *path, char **out, struct error *err)
{
	const char *base = path_base(path), *dot = strrchr(base, '.');
	size_t n = unnumbered(base, dot ? (size_t)(dot - base) : strlen(base));
	uint8_t *taken = calloc(1, NUMBER_MAX / 8 + 1);
	unsigned i = 1;
	int rc;

	*out = NULL;
	if (!taken)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	rc = each_numbered(path, note_number, taken, err);
	while (!rc && i <= NUMBER_MAX && taken[i / 8] & 1 << i % 8)
		i++;
	free(taken);
	if (!rc && i > NUMBER_MAX)
		return error_set(err, -EEXIST, "%s: all names for its snapshots are taken", path);
	if (!rc && asprintf(out, "%.*s%.*s-%06u.vmdk", (int)folder_length(path), path, (int)n, base,
			    i) < 0) {
		*out = NULL;
		rc = error_set(err, -ENOMEM, "%s: out of memory", path);
	}
	return rc;
}

struct numbered {
	const char *path;
	struct path_list *list;
	bool extents;
};

/* Descriptors: NAME-000001.vmdk; extents: NAME-000001-s001.vmdk, NAME-000001-delta.vmdk. */
static int note_name(void *opaque, const char *name, unsigned number)
{
	struct numbered *l = opaque;
	size_t n = strlen(name);
	const char *end = n > 5 ? name + n - 5 : name;

	(void)number;
	if (strcmp(end, ".vmdk") != 0)
		return 0;
	bool descriptor = unnumbered(name, n - 5) != n - 5;
	if (descriptor == l->extents)
		return 0;
	return path_list_take(l->list, path_beside(l->path, name));
}

int path_list_numbered(const char *path, bool extents, struct path_list *out, struct error *err)
{
	struct numbered l = {.path = path, .list = out, .extents = extents};

	*out = (struct path_list){0};
	return each_numbered(path, note_name, &l, err);
}

char *path_descriptor(const char *extent)
{
	const char *base = path_base(extent), *dash = strrchr(base, '-');
	char *out;

	if (!dash || asprintf(&out, "%.*s.vmdk", (int)(dash - extent), extent) < 0)
		return NULL;
	return out;
}

/* ---- the files of an image ---- */

static int add_extents(const char *path, const struct descriptor *d, struct path_list *out)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < d->extent_count; i++) {
		const char *name = d->extents[i].name;
		if (!name || strchr(name, '/') || !strcmp(name, path_base(path)))
			continue;
		char *file = path_beside(path, name);
		if (file && path_list_has(out, file))
			free(file);
		else
			rc = path_list_take(out, file);
	}
	return rc;
}

static int text_files(const char *path, struct path_list *out, struct error *err)
{
	struct descriptor d = {0};
	uint64_t bytes;
	char *text;
	int rc = file_load(path, DESCRIPTOR_MAX_BYTES, &text, &bytes, err);

	if (rc)
		return rc;
	rc = descriptor_parse(&d, text, bytes, path, err);
	if (!rc && (rc = add_extents(path, &d, out)))
		error_set(err, rc, "%s: out of memory", path);
	descriptor_free(&d);
	free(text);
	return rc;
}

int image_files(const char *path, struct path_list *out, struct error *err)
{
	static const char magic[] = "# Disk DescriptorFile";
	char head[HEAD_BYTES] = "";
	struct file *f;
	int rc = file_open(&f, path, &(struct file_options){0}, err);

	*out = (struct path_list){0};
	if (rc)
		return rc;
	int64_t got = file_pread_some(f, head, sizeof(head), 0);
	file_close(f);
	if (got < 0)
		return error_set(err, (int)got, "%s: cannot be read: %s", path,
				 strerror((int)-got));
	/* Anything else has its descriptor, if any, in itself. */
	if ((size_t)got >= sizeof(magic) && !strncasecmp(head, magic, sizeof(magic) - 1))
		rc = text_files(path, out, err);
	if (!rc && (rc = path_list_take(out, strdup(path))))
		error_set(err, rc, "%s: out of memory", path);
	if (rc)
		path_list_free(out);
	return rc;
}

int image_sync(const char *path, struct error *err)
{
	struct path_list files;
	struct file *f;
	int rc = image_files(path, &files, err);

	if (rc)
		return rc;
	for (unsigned i = 0; !rc && i < files.count; i++) {
		rc = file_open(&f, files.path[i], &(struct file_options){.writable = true}, err);
		if (rc)
			break;
		rc = file_sync(f);
		if (rc)
			error_set(err, rc, "%s: cannot be made durable: %s", files.path[i],
				  strerror(-rc));
		file_close(f);
	}
	path_list_free(&files);
	if (rc)
		return rc;
	rc = file_sync_folder(path);
	if (rc)
		error_set(err, rc, "%s: its folder cannot be made durable: %s", path,
			  strerror(-rc));
	return rc;
}

/* Nobody else has it: a lock for a moment. */
static int in_use(const char *path, struct error *err)
{
	struct file *f;
	int rc = file_open(&f, path,
			   &(struct file_options){.writable = true, .lock = FILE_LOCK_WRITE}, err);

	if (rc == -ENOENT)
		return 0;
	if (!rc)
		file_close(f);
	return rc;
}

int snapshot_remove_image(const char *path, struct error *err)
{
	struct path_list files;
	int rc = image_files(path, &files, err);

	if (rc)
		return rc;
	for (unsigned i = 0; !rc && i < files.count; i++)
		rc = in_use(files.path[i], err);
	/* The descriptor goes last: until then the work can be taken up again. */
	for (unsigned i = 0; !rc && i < files.count; i++) {
		rc = file_unlink(files.path[i]);
		if (rc == -ENOENT)
			rc = 0;
		if (rc)
			error_set(err, rc, "%s: cannot be removed: %s", files.path[i],
				  strerror(-rc));
	}
	path_list_free(&files);
	return rc ? rc : file_sync_folder(path);
}
