/* SPDX-License-Identifier: Apache-2.0 */
#include "control/vm_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { LINE_BYTES = 1200 };

struct vm_log {
	char *stem; /* FOLDER/NAME */
	pthread_mutex_t lock;
	int fd;
	uint64_t bytes;
};

/* NAME.log -> NAME-0.log -> NAME-1.log ...; the oldest goes. */
static void rotate(const char *stem)
{
	char from[4096], to[4096];

	for (int n = VM_LOGS_KEPT - 1; n >= 0; n--) {
		if (n)
			snprintf(from, sizeof(from), "%s-%d.log", stem, n - 1);
		else
			snprintf(from, sizeof(from), "%s.log", stem);
		snprintf(to, sizeof(to), "%s-%d.log", stem, n);
		rename(from, to);
	}
}

static int begin(struct vm_log *l)
{
	char path[4096];

	rotate(l->stem);
	snprintf(path, sizeof(path), "%s.log", l->stem);
	l->bytes = 0;
	/* Appending: a detached process's standard error is the same file. */
	return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
}

int vm_log_open(struct vm_log **out, const struct vm_folder *f, struct error *err)
{
	struct vm_log *l = calloc(1, sizeof(*l));

	*out = NULL;
	if (l)
		l->stem = vm_file(f, "");
	if (!l || !l->stem) {
		free(l);
		return error_set(err, -ENOMEM, "%s: out of memory", f->vmx);
	}
	pthread_mutex_init(&l->lock, NULL);
	l->fd = begin(l);
	if (l->fd < 0) {
		int code = errno;
		error_set(err, -code, "%s.log: %s", l->stem, strerror(code));
		vm_log_close(l);
		return -code;
	}
	*out = l;
	return 0;
}

/* 2026-11-21T08:06:02.123Z */
static int put_time(char *to, size_t room)
{
	uint64_t ns = clock_utc_ns();
	time_t seconds = (time_t)(ns / 1000000000);
	struct tm tm;
	char text[32];

	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	return snprintf(to, room, "%s.%03uZ", text, (unsigned)(ns / 1000000 % 1000));
}

void vm_log_line(struct vm_log *l, enum log_level level, const char *line)
{
	static const char *const names[] = {
		[LOG_ERROR] = "error",
		[LOG_WARN] = "warning",
		[LOG_INFO] = "info",
		[LOG_DEBUG] = "debug",
	};
	char text[LINE_BYTES];
	int len = put_time(text, sizeof(text));

	len += snprintf(text + len, sizeof(text) - (size_t)len, " %s: %s", names[level], line);
	if (len > LINE_BYTES - 2)
		len = LINE_BYTES - 2;
	/* A guest's words must not be able to look like lines of ours, or to steer a terminal. */
	for (int i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = '?';
	text[len++] = '\n';
	pthread_mutex_lock(&l->lock);
	if (l->bytes + (uint64_t)len > VM_LOG_BYTES_MAX) {
		int fd = begin(l);
		if (fd >= 0) {
			close(l->fd);
			l->fd = fd;
		}
	}
	l->bytes += (uint64_t)len;
	(void)!write(l->fd, text, (size_t)len);
	pthread_mutex_unlock(&l->lock);
}

int vm_log_descriptor(struct vm_log *l)
{
	return fcntl(l->fd, F_DUPFD_CLOEXEC, 3);
}

void vm_log_close(struct vm_log *l)
{
	if (!l)
		return;
	if (l->fd >= 0)
		close(l->fd);
	pthread_mutex_destroy(&l->lock);
	free(l->stem);
	free(l);
}
