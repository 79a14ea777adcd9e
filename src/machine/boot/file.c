/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/boot/internal.h"

int boot_file_fail(const struct boot_file *f, int code, const char *fmt, ...)
{
	char line[sizeof(f->err->text)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	return error_set(f->err, code, "%s '%s': %s", f->role, f->path, line);
}

int boot_file_open(struct boot_file *f, const char *role, const char *path, struct error *err)
{
	struct stat st;

	*f = (struct boot_file){.role = role, .path = path, .fd = -1, .err = err};
	/* O_NONBLOCK: opening a FIFO without a writer returns, to be refused below. */
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (f->fd < 0) {
		int code = -errno;

		return boot_file_fail(f, code,
				      "cannot be opened: %s; check the path and its "
				      "permissions",
				      strerror(-code));
	}
	if (fstat(f->fd, &st) < 0)
		return boot_file_fail(f, -errno, "cannot be looked at: %s", strerror(errno));
	if (S_ISDIR(st.st_mode))
		return boot_file_fail(f, -EISDIR, "is a directory; name a file in it");
	if (!S_ISREG(st.st_mode))
		return boot_file_fail(f, -EINVAL,
				      "is not a regular file, and it is read more than "
				      "once; copy it to one");
	if (st.st_size == 0)
		return boot_file_fail(f, -ENODATA, "is empty; name the right file");
	f->bytes = (uint64_t)st.st_size;
	return 0;
}

void boot_file_close(struct boot_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

int boot_file_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len)
{
	uint8_t *to = buf;

	if (offset > f->bytes || len > f->bytes - offset)
		return boot_file_fail(f, -ENODATA,
				      "is cut short: it ends at byte %llu, but names %zu bytes at "
				      "%llu; get the file anew",
				      (unsigned long long)f->bytes, len,
				      (unsigned long long)offset);
	while (len) {
		ssize_t n = pread(f->fd, to, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int code = -errno;

			return boot_file_fail(f, code, "cannot be read at byte %llu: %s",
					      (unsigned long long)offset, strerror(-code));
		}
		if (n == 0)
			return boot_file_fail(f, -ENODATA,
					      "shrank to %llu bytes while it was read; start again "
					      "when it is complete",
					      (unsigned long long)offset);
		to += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int boot_file_peek(const struct boot_file *f, void *buf, size_t len, size_t *got)
{
	*got = f->bytes < len ? (size_t)f->bytes : len;
	return boot_file_read(f, 0, buf, *got);
}
