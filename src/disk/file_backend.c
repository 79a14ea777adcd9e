/* SPDX-License-Identifier: Apache-2.0 */
/* The host's system calls as a struct file_backend. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/file_internal.h"

static int host_open(void *opaque, const char *path, int flags, mode_t mode)
{
	(void)opaque;
	int fd = open(path, flags, mode);
	return fd < 0 ? -errno : fd;
}

static int host_close(void *opaque, int fd)
{
	(void)opaque;
	return close(fd) < 0 ? -errno : 0;
}

static ssize_t host_preadv2(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			    int flags)
{
	ssize_t r;

	(void)opaque;
	do
		r = preadv2(fd, iov, n, offset, flags);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static ssize_t host_pwritev2(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			     int flags)
{
	ssize_t r;

	(void)opaque;
	do
		r = pwritev2(fd, iov, n, offset, flags);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static int host_fdatasync(void *opaque, int fd)
{
	int r;

	(void)opaque;
	do
		r = fdatasync(fd);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int host_ftruncate(void *opaque, int fd, off_t bytes)
{
	int r;

	(void)opaque;
	do
		r = ftruncate(fd, bytes);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int host_fallocate(void *opaque, int fd, int mode, off_t offset, off_t bytes)
{
	int r;

	(void)opaque;
	do
		r = fallocate(fd, mode, offset, bytes);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int host_rename(void *opaque, const char *from, const char *to)
{
	(void)opaque;
	return rename(from, to) < 0 ? -errno : 0;
}

static int host_unlink(void *opaque, const char *path)
{
	(void)opaque;
	return unlink(path) < 0 ? -errno : 0;
}

static int host_sync_folder(void *opaque, const char *folder)
{
	int r = 0;

	(void)opaque;
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* EINVAL: a file system whose folders need no sync. */
	if (fsync(fd) < 0 && errno != EINVAL)
		r = -errno;
	close(fd);
	return r;
}

const struct file_backend file_host_backend = {
	.open = host_open,
	.close = host_close,
	.preadv2 = host_preadv2,
	.pwritev2 = host_pwritev2,
	.fdatasync = host_fdatasync,
	.ftruncate = host_ftruncate,
	.fallocate = host_fallocate,
	.rename = host_rename,
	.unlink = host_unlink,
	.sync_folder = host_sync_folder,
};

const struct file_backend *file_backend = &file_host_backend;

void file_set_backend(const struct file_backend *b)
{
	file_backend = b ? b : &file_host_backend;
}
