/* SPDX-License-Identifier: Apache-2.0 */
/* Names of files, and small files as a whole. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/file_internal.h"

int file_rename(const char *from, const char *to)
{
	return file_backend->rename(file_backend->opaque, from, to);
}

int file_unlink(const char *path)
{
	return file_backend->unlink(file_backend->opaque, path);
}

int file_sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return file_backend->sync_folder(file_backend->opaque, ".");
	char *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!folder)
		return -ENOMEM;
	int rc = file_backend->sync_folder(file_backend->opaque, folder);
	free(folder);
	return rc;
}

/* The file keeps its mode: it may be meant for a group. Not being able to is no failure. */
static void keep_mode(const char *path, struct file *f)
{
	struct stat st;

	if (!stat(path, &st))
		(void)!fchmod(f->fd, st.st_mode & 0777);
}

static int write_new(const char *tmp, const char *path, const void *buf, uint64_t bytes,
		     struct error *err)
{
	struct file *f;
	int rc = file_open(&f, tmp, &(struct file_options){.writable = true, .create = true}, err);

	if (rc)
		return rc;
	keep_mode(path, f);
	rc = file_pwrite(f, buf, bytes, 0);
	if (!rc)
		rc = file_sync(f);
	file_close(f);
	if (rc)
		error_set(err, rc, "%s: it cannot be written: %s", tmp, strerror(-rc));
	return rc;
}

int file_replace(const char *path, const void *buf, uint64_t bytes, struct error *err)
{
	char *tmp;
	int rc;

	/* Always the same name: what a crash left is taken away by the next one. */
	if (asprintf(&tmp, "%s.new", path) < 0)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	rc = file_unlink(tmp);
	if (rc && rc != -ENOENT) {
		error_set(err, rc, "%s: it cannot be removed: %s", tmp, strerror(-rc));
		goto out;
	}
	rc = write_new(tmp, path, buf, bytes, err);
	if (!rc) {
		rc = file_rename(tmp, path);
		if (!rc)
			rc = file_sync_folder(path);
		if (rc)
			error_set(err, rc, "%s: it cannot be replaced: %s", path, strerror(-rc));
	}
	if (rc)
		file_unlink(tmp);
out:
	free(tmp);
	return rc;
}

int file_load(const char *path, uint64_t max_bytes, char **buf, uint64_t *bytes, struct error *err)
{
	struct file *f;
	char *p = NULL;
	uint64_t size;
	int rc = file_open(&f, path, &(struct file_options){0}, err);

	if (rc)
		return rc;
	rc = file_size(f, &size);
	if (rc) {
		error_set(err, rc, "%s: %s", path, strerror(-rc));
	} else if (size > max_bytes) {
		rc = error_set(err, -EFBIG,
			       "%s: it is longer than %llu bytes; is it the right file?", path,
			       (unsigned long long)max_bytes);
	} else if (!(p = malloc(size + 1))) {
		rc = error_set(err, -ENOMEM, "%s: out of memory", path);
	} else {
		int64_t got = file_pread_some(f, p, size, 0);
		rc = got < 0 ? (int)got : 0;
		if (rc)
			error_set(err, rc, "%s: it cannot be read: %s", path, strerror(-rc));
		else
			p[ *bytes = (uint64_t)got] = 0;
	}
	file_close(f);
	if (rc)
		free(p);
	else
		*buf = p;
	return rc;
}
