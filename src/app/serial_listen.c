/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends of serial lines that someone connects to later, and perhaps again and again. While nobody
 * is there the guest's output is lost, as on a cable that hangs loose.
 *
 * A pseudo-terminal tells only by POLLHUP that nobody has its other side open, and never that
 * somebody has opened it: a timer looks.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "app/serial_internal.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/log.h"

#define PTY_LOOK_NS UINT64_C(200000000)

/* ---- socket ---- */

/* 0 when the socket at addr was left behind by someone who is gone, and has been removed. */
static int remove_stale(const struct sockaddr_un *addr, struct error *err)
{
	struct stat st;

	if (lstat(addr->sun_path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST,
				 "--serial socket:%s: the file exists and is not a socket; name "
				 "another path",
				 addr->sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -1 : connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
	int code = errno;
	if (fd >= 0)
		close(fd);
	if (r == 0 || (code != ECONNREFUSED && code != ENOENT))
		return error_set(err, -EADDRINUSE,
				 "--serial socket:%s: another program listens there; name another "
				 "path",
				 addr->sun_path);
	unlink(addr->sun_path);
	return 0;
}

static int socket_open(struct serial *s, const char *path, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, -EINVAL,
				 "--serial socket:%s: the path is too long; a socket's has up to "
				 "%zu bytes",
				 path, sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path));
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0)
		return error_set(err, -errno, "--serial socket:%s: %s", path, strerror(errno));
	/* The socket's file will have this mode: a console is for its owner. */
	fchmod(s->listen_fd, 0600);
	int r = bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr));
	if (r < 0 && errno == EADDRINUSE) {
		r = remove_stale(&addr, err);
		if (r < 0)
			return r;
		r = bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr));
	}
	if (r < 0 || listen(s->listen_fd, 8) < 0)
		return error_set(err, -errno, "--serial socket:%s: %s", path, strerror(errno));
	return 0;
}

static void socket_accept(void *opaque, int fd, int events)
{
	struct serial *s = opaque;
	struct error err;

	(void)events;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client < 0)
		return;
	if (serial_plug(s, client, client, &err) < 0)
		log_error("%s", err.text);
	else
		loop_fd_set_events(s->listen_watch, 0); /* the next one waits its turn */
}

static int socket_start(struct serial *s, struct error *err)
{
	int r = loop_fd_add(s->loop, s->listen_fd, POLLIN, socket_accept, s, &s->listen_watch);

	if (r < 0)
		return error_set(err, r, "--serial socket:%s: %s", s->path, strerror(-r));
	return 0;
}

static void socket_gone(struct serial *s, int error)
{
	(void)error;
	serial_unplug(s);
	loop_fd_set_events(s->listen_watch, POLLIN);
}

static void socket_close(struct serial *s)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);

	/* Only what was bound is ours to remove. */
	if (s->listen_fd >= 0 && getsockname(s->listen_fd, (struct sockaddr *)&addr, &len) == 0 &&
	    len > offsetof(struct sockaddr_un, sun_path))
		unlink(s->path);
}

const struct serial_kind serial_socket = {
	.name = "socket:",
	.open = socket_open,
	.start = socket_start,
	.gone = socket_gone,
	.close = socket_close,
};

/* ---- pseudo-terminal ---- */

static int pty_open(struct serial *s, const char *path, struct error *err)
{
	struct termios t;
	char name[64];
	int other;

	(void)path;
	if (openpty(&s->listen_fd, &other, NULL, NULL, NULL) < 0)
		return error_set(err, -errno, "--serial pty: %s", strerror(errno));
	fcntl(s->listen_fd, F_SETFD, FD_CLOEXEC);
	fcntl(s->listen_fd, F_SETFL, O_NONBLOCK | O_RDWR);
	if (tcgetattr(other, &t) == 0) {
		cfmakeraw(&t);
		tcsetattr(other, TCSANOW, &t);
	}
	/* From now on POLLHUP is there until somebody opens it. */
	close(other);
	/* A guest that floods a terminal nobody reads must not stand still for it. */
	s->drop_when_full = true;
	if (ptsname_r(s->listen_fd, name, sizeof(name)))
		return error_set(err, -ENOTTY, "--serial pty: its name cannot be had");
	terminal_say("%s is on %s", serial_name(s), name);
	return 0;
}

static void pty_look(void *opaque)
{
	struct serial *s = opaque;
	struct pollfd p = {.fd = s->listen_fd, .events = POLLIN};
	struct error err;

	if (poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP)) {
		int fd = fcntl(s->listen_fd, F_DUPFD_CLOEXEC, 3);
		if (fd >= 0 && serial_plug(s, fd, fd, &err) == 0)
			return;
	}
	timer_arm(&s->poll_timer, clock_ns() + PTY_LOOK_NS);
}

static int pty_start(struct serial *s, struct error *err)
{
	(void)err;
	timer_init(&s->poll_timer, s->loop, pty_look, s);
	s->poll_timer_ready = true;
	pty_look(s);
	return 0;
}

static void pty_gone(struct serial *s, int error)
{
	(void)error;
	serial_unplug(s);
	timer_arm(&s->poll_timer, clock_ns() + PTY_LOOK_NS);
}

const struct serial_kind serial_pty = {
	.name = "pty",
	.open = pty_open,
	.start = pty_start,
	.gone = pty_gone,
};
