/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks between processes (and between two opens in one): open file description locks, fcntl(2),
 * which go away with the last descriptor, however its owner dies; but with io_uring the kernel may
 * have the file for a moment longer than its owner lives. So a lock that nobody is seen to hold is
 * waited for, a little.
 *
 *	bytes		0 ......... 2^40 - 1	2^40 ......... the end
 *	a writer	write lock		write lock
 *	a reader	none			read lock
 *
 * QEMU and qemu-img hold read locks on bytes 100 to 300, and look for anybody's locks there before
 * they open: so a writer of ours keeps them out and is kept out by them, and readers of ours and
 * theirs do not mind each other.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/file_internal.h"

static const off_t reader_from = (off_t)1 << 40;

/* A second, all in all. */
enum { LINGER_TRIES = 50, LINGER_US = 20000 };

static int set(int fd, short type, off_t start, off_t len)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

/* Does /proc/PID/fdinfo/N tell of a lock on the file? */
static bool fdinfo_has_lock(const char *path)
{
	char line[256];
	bool found = false;
	FILE *in = fopen(path, "re");

	if (!in)
		return false;
	while (!found && fgets(line, sizeof(line), in))
		found = !strncmp(line, "lock:", 5);
	fclose(in);
	return found;
}

static bool process_holds(const char *pid, const struct stat *st)
{
	char path[64 + 2 * NAME_MAX];
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	DIR *dir = opendir(path);
	if (!dir)
		return false;
	for (struct dirent *e; !found && (e = readdir(dir));) {
		struct stat other;
		snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, e->d_name);
		if (stat(path, &other) < 0 || other.st_dev != st->st_dev ||
		    other.st_ino != st->st_ino)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, e->d_name);
		found = fdinfo_has_lock(path);
	}
	closedir(dir);
	return found;
}

/* The kernel does not tell who holds such a lock, but /proc shows whose descriptors have one.
 * 0: nobody that we may see. */
static long find_holder(int fd)
{
	struct stat st;
	long found = 0;
	DIR *dir;

	if (fstat(fd, &st) < 0 || !(dir = opendir("/proc")))
		return 0;
	for (struct dirent *e; !found && (e = readdir(dir));) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		if (process_holds(e->d_name, &st))
			found = strtol(e->d_name, NULL, 10);
	}
	closedir(dir);
	return found;
}

static int busy(long pid, enum file_lock wanted, const char *path, struct error *err)
{
	char name[64] = "", file[64];

	if (!pid)
		return error_set(err, -EBUSY,
				 "%s: it is %s by another process; stop what uses it and try again",
				 path, wanted == FILE_LOCK_WRITE ? "in use" : "being written to");
	if (pid == getpid())
		return error_set(err, -EBUSY,
				 "%s: this process has it open already; is it given "
				 "as two disks?",
				 path);
	snprintf(file, sizeof(file), "/proc/%ld/comm", pid);
	FILE *in = fopen(file, "re");
	if (in) {
		if (fgets(name, sizeof(name), in))
			name[strcspn(name, "\n")] = 0;
		fclose(in);
	}
	return error_set(err, -EBUSY, "%s: it is %s by process %ld (%s); stop that and try again",
			 path, wanted == FILE_LOCK_WRITE ? "in use" : "being written to", pid,
			 name);
}

static int change(int fd, enum file_lock from, enum file_lock to)
{
	int r = 0;

	if (to == FILE_LOCK_WRITE) {
		/* One call for all bytes: the kernel gives all or nothing. */
		r = set(fd, F_WRLCK, 0, 0);
	} else if (to == FILE_LOCK_READ) {
		r = set(fd, F_RDLCK, reader_from, 0);
		if (!r && from == FILE_LOCK_WRITE)
			r = set(fd, F_UNLCK, 0, reader_from);
	} else if (from != FILE_LOCK_NONE) {
		r = set(fd, F_UNLCK, 0, 0);
	}
	return r == -EACCES ? -EAGAIN : r;
}

int file_lock_set(int fd, enum file_lock from, enum file_lock to, const char *path,
		  struct error *err)
{
	int r = change(fd, from, to);
	long pid = 0;

	for (unsigned i = 0; r == -EAGAIN && i < LINGER_TRIES && !(pid = find_holder(fd)); i++) {
		usleep(LINGER_US);
		r = change(fd, from, to);
	}
	if (r == -EAGAIN)
		return busy(pid, to, path, err);
	if (r == -ENOLCK || r == -EOPNOTSUPP || r == -ENOSYS || r == -EINVAL) {
		if (to != FILE_LOCK_NONE)
			log_warn(
				"%s: its file system has no locks; make sure that nothing else uses it",
				path);
		return 0;
	}
	if (r)
		return error_set(err, r, "%s: it cannot be locked: %s", path, strerror(-r));
	return 0;
}
