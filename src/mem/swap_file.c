/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The swap file: without a name from its first moment where the file system can do that (O_TMPFILE), else
 * from its second. It goes past the host's page cache (O_DIRECT), or leaves nothing there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/swap_internal.h"

/* A descriptor or a negative errno. */
static int nameless(const char *dir)
{
	char path[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	/* EISDIR: a kernel without O_TMPFILE. */
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return -errno;
	if (snprintf(path, sizeof(path), "%s/.hanok-swap-XXXXXX", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (unlink(path) < 0) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

static bool set_direct(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && !fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

int swap_file_open(struct swap_file *f, const char *dir, uint64_t bytes, struct error *err)
{
	f->max = (uint32_t)(bytes / SEGMENT_BYTES);
	f->dir = strdup(dir);
	f->spare = calloc(f->max, sizeof(*f->spare));
	f->holes = calloc(f->max, sizeof(*f->holes));
	if (!f->dir || !f->spare || !f->holes)
		return error_set(err, -ENOMEM,
				 "swap: no memory for the table of a swap file of %llu MiB",
				 (unsigned long long)f->max);
	f->fd = nameless(dir);
	if (f->fd < 0) {
		int rc = f->fd;
		f->fd = -1;
		return error_set(
			err, rc,
			"swap: cannot make the swap file in %s: %s; let it be written or give "
			"another folder",
			dir, strerror(-rc));
	}
	f->direct = set_direct(f->fd, true);
	/* What is read ahead is our choice. */
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_RANDOM);
	return 0;
}

void swap_file_close(struct swap_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->spare);
	free(f->holes);
	free(f->dir);
}

/* Some file systems let O_DIRECT be set and then refuse it. True: it was on when this call began, and is
 * off now. */
static bool direct_refused(struct swap_file *f, bool *direct, int error)
{
	if (error != EINVAL || !*direct)
		return false;
	*direct = false;
	f->direct = false;
	return set_direct(f->fd, false);
}

int swap_file_read(struct swap_file *f, uint64_t offset, void *buf, uint64_t bytes)
{
	bool direct = f->direct;
	uint64_t done = 0;

	while (done < bytes) {
		ssize_t n = pread(f->fd, (char *)buf + done, bytes - done, (off_t)(offset + done));
		if (n > 0)
			done += (uint64_t)n;
		else if (n == 0)
			return -EIO; /* the file is shorter than what was written */
		else if (errno != EINTR && !direct_refused(f, &direct, errno))
			return -errno;
	}
	if (!direct)
		posix_fadvise(f->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
	return 0;
}

/* Waits until it is on disk: only then its errors are known and the page cache lets it go. */
static int flush(struct swap_file *f, uint64_t offset, uint64_t bytes)
{
	const unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			     SYNC_FILE_RANGE_WAIT_AFTER;

	if (sync_file_range(f->fd, (off_t)offset, (off_t)bytes, all) < 0 &&
	    (errno == EIO || errno == ENOSPC || errno == EDQUOT))
		return -errno;
	posix_fadvise(f->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
	return 0;
}

int swap_file_write(struct swap_file *f, uint64_t offset, const void *buf, uint64_t bytes)
{
	bool direct = f->direct;
	uint64_t done = 0;

	while (done < bytes) {
		ssize_t n = pwrite(f->fd, (const char *)buf + done, bytes - done,
				   (off_t)(offset + done));
		if (n > 0)
			done += (uint64_t)n;
		else if (n == 0)
			return -EIO;
		else if (errno != EINTR && !direct_refused(f, &direct, errno))
			return -errno;
	}
	return direct ? 0 : flush(f, offset, bytes);
}

int swap_file_punch(struct swap_file *f, int32_t position)
{
	return fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)position * SEGMENT_BYTES, SEGMENT_BYTES) < 0
		       ? -errno
		       : 0;
}

bool swap_position_free(const struct swap_file *f)
{
	return f->spare_nr || f->holes_nr || f->end < f->max;
}

/* What is allocated first: that needs no more of the disk, which may be full. */
int32_t swap_position_take(struct swap_file *f)
{
	if (!swap_position_free(f))
		return NO_POSITION;
	f->segments++;
	if (f->spare_nr)
		return f->spare[--f->spare_nr];
	if (f->holes_nr)
		return f->holes[--f->holes_nr];
	return (int32_t)f->end++;
}

void swap_position_give(struct swap_file *f, int32_t position, bool allocated)
{
	f->segments--;
	if (allocated)
		f->spare[f->spare_nr++] = position;
	else
		f->holes[f->holes_nr++] = position;
}
