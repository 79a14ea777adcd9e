/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's ends of serial lines.
 *
 *   guest -> UART -> write (any thread, the UART's lock held) -> out_fd
 *            UART <- board_serial_receive <- pending <- filter <- in_fd  (the loop's thread)
 *
 * Nobody blocks. When out_fd takes no more, write says so, the loop waits for POLLOUT and tells the
 * UART to go on, which meanwhile shows the guest a busy transmitter. When the UART takes no more
 * input, the rest waits in `pending` and in_fd is not watched until the UART has room: whoever
 * sends to us waits, too. Only a person's keys are read on, so that Ctrl-A x works in any case.
 *
 * Descriptors are opened anew where that can be done: O_NONBLOCK belongs to the open file, and the
 * one that we were given is shared with the shell that started us.
 */
#include "app/serial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/serial_internal.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/log.h"

enum { DRAIN_MS = 1000 };

const char *serial_name(const struct serial *s)
{
	return s->port == 0 ? "COM1" : "COM2";
}

bool serial_is_interactive(const struct serial *s)
{
	return s->interactive;
}

/* ---- output ---- */

static void out_ready(void *opaque, int fd, int events)
{
	struct serial *s = opaque;

	(void)fd, (void)events;
	loop_fd_set_events(s->out_watch, 0);
	pthread_mutex_lock(&s->lock);
	s->out_full = false;
	pthread_mutex_unlock(&s->lock);
	board_serial_writable(machine_board(s->m), s->port);
}

static void watch_out(void *opaque)
{
	struct serial *s = opaque;

	/* It may have been unplugged since this was posted; then nothing waits. */
	if (s->out_watch)
		loop_fd_set_events(s->out_watch, POLLOUT);
	else
		board_serial_writable(machine_board(s->m), s->port);
}

/* The output is lost, but the guest goes on: a full disk is told once. With the lock held. */
static void out_failed(struct serial *s, int error)
{
	if (!s->error_told)
		log_error("%s: %s%s: %s: the guest's output is lost", serial_name(s), s->kind->name,
			  s->path ? s->path : "", strerror(error));
	s->error_told = true;
}

static void report_broken(void *opaque)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	bool broken = s->broken; /* and not unplugged since this was posted */
	pthread_mutex_unlock(&s->lock);
	if (!broken)
		return;
	serial_unplug(s);
	s->kind->gone(s, EPIPE);
}

/* The other side does not read any more. With the lock held. */
static void out_broken(struct serial *s)
{
	if (!s->broken && s->kind->gone && !s->drain)
		s->broken = loop_post(s->loop, report_broken, s) == 0;
}

/* With the lock held, while draining: false when nobody takes it in time. */
static bool wait_for_room(struct serial *s, uint64_t until_ns)
{
	struct pollfd p = {.fd = s->out_fd, .events = POLLOUT};
	uint64_t now = clock_ns();

	return now < until_ns && poll(&p, 1, (int)((until_ns - now) / 1000000 + 1)) > 0;
}

/* With the lock held. Returns how much was taken, of it some perhaps lost. */
static size_t write_out(struct serial *s, const uint8_t *data, size_t len)
{
	uint64_t until_ns = clock_ns() + DRAIN_MS * UINT64_C(1000000);
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(s->out_fd, data + done, len - done);
		if (n > 0) {
			done += (size_t)n;
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else if (n < 0 && errno == EAGAIN) {
			if (s->drain && wait_for_room(s, until_ns))
				continue;
			if (s->drain || s->drop_when_full)
				return len;
			s->out_full = true;
			if (loop_post(s->loop, watch_out, s) == 0)
				return done;
			s->out_full = false; /* out of memory: nobody would wake us */
			return len;
		} else {
			int error = n < 0 ? errno : EIO;
			if (error == EPIPE || error == ECONNRESET || error == EIO)
				out_broken(s);
			else
				out_failed(s, error);
			return len;
		}
	}
	return len;
}

static size_t backend_write(void *opaque, const uint8_t *data, size_t len)
{
	struct serial *s = opaque;
	size_t taken = len;

	pthread_mutex_lock(&s->lock);
	if (s->out_full && !s->drain)
		taken = 0;
	else if (s->out_fd >= 0)
		taken = write_out(s, data, len);
	if (s->interactive)
		terminal_wrote(data, taken);
	pthread_mutex_unlock(&s->lock);
	return taken;
}

void serial_drain(struct serial *s)
{
	if (!s || !s->m)
		return;
	pthread_mutex_lock(&s->lock);
	s->drain = true;
	s->out_full = false;
	pthread_mutex_unlock(&s->lock);
	board_serial_writable(machine_board(s->m), s->port);
}

/* ---- input ---- */

/* Hands pending input on, and watches for more when there is room for it. */
static void pump(void *opaque)
{
	struct serial *s = opaque;

	if (s->pending_len) {
		size_t n = board_serial_receive(machine_board(s->m), s->port,
						s->pending + s->pending_at, s->pending_len);
		s->pending_at += n;
		s->pending_len -= n;
		if (!s->pending_len)
			s->pending_at = 0;
	}
	if (s->in_watch)
		loop_fd_set_events(s->in_watch, s->never_wait || !s->pending_len ? POLLIN : 0);
}

static void backend_input_room(void *opaque)
{
	struct serial *s = opaque;

	/* Not from within the UART's callback. Out of memory: the next input tries again. */
	(void)loop_post(s->loop, pump, s);
}

static void take_input(struct serial *s, const uint8_t *data, size_t len)
{
	uint8_t kept[1024];
	size_t n = len;

	if (s->kind->filter) {
		n = s->kind->filter(s, data, len, kept);
		data = kept;
	}
	if (s->pending_at) {
		memmove(s->pending, s->pending + s->pending_at, s->pending_len);
		s->pending_at = 0;
	}
	size_t room = SERIAL_PENDING_BYTES - s->pending_len;
	if (n > room)
		n = room;
	memcpy(s->pending + s->pending_len, data, n);
	s->pending_len += n;
	pump(s);
}

static void in_ready(void *opaque, int fd, int events)
{
	struct serial *s = opaque;
	uint8_t data[1024];

	(void)events;
	ssize_t n = read(fd, data, sizeof(data));
	if (n > 0) {
		take_input(s, data, (size_t)n);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		int error = n == 0 ? 0 : errno;
		loop_fd_remove(s->in_watch);
		s->in_watch = NULL;
		if (s->kind->gone)
			s->kind->gone(s, error);
	}
}

/* ---- plugging ---- */

static int watch(struct serial *s)
{
	int r = 0;

	if (s->in_fd >= 0)
		r = loop_fd_add(s->loop, s->in_fd, POLLIN, in_ready, s, &s->in_watch);
	if (r == 0 && s->out_fd >= 0)
		r = loop_fd_add(s->loop, s->out_fd, 0, out_ready, s, &s->out_watch);
	return r;
}

int serial_plug(struct serial *s, int in, int out, struct error *err)
{
	/* Two watchers need two descriptors. */
	if (in >= 0 && in == out) {
		out = fcntl(in, F_DUPFD_CLOEXEC, 3);
		if (out < 0) {
			int code = -errno;
			close(in);
			return error_set(err, code, "%s: %s", serial_name(s), strerror(-code));
		}
	}
	s->in_fd = in;
	pthread_mutex_lock(&s->lock);
	s->out_fd = out;
	s->out_full = s->error_told = s->broken = false;
	pthread_mutex_unlock(&s->lock);
	int r = watch(s);
	if (r < 0) {
		serial_unplug(s);
		return error_set(err, r, "%s: %s%s: %s", serial_name(s), s->kind->name,
				 s->path ? s->path : "", strerror(-r));
	}
	return 0;
}

void serial_unplug(struct serial *s)
{
	loop_fd_remove(s->in_watch);
	loop_fd_remove(s->out_watch);
	s->in_watch = s->out_watch = NULL;
	s->pending_len = s->pending_at = 0;
	s->escaped = false;
	if (s->in_fd >= 0)
		close(s->in_fd);
	s->in_fd = -1;
	pthread_mutex_lock(&s->lock);
	if (s->out_fd >= 0)
		close(s->out_fd);
	s->out_fd = -1;
	bool waits = s->out_full;
	s->out_full = s->broken = false;
	pthread_mutex_unlock(&s->lock);
	if (waits && s->m && !s->drain)
		board_serial_writable(machine_board(s->m), s->port);
}

/* ---- kinds that need no file of their own ---- */

static int file_open(struct serial *s, const char *path, struct error *err)
{
	/* O_NONBLOCK for a FIFO or a terminal, where opening and writing may wait. */
	s->out_fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
	if (s->out_fd < 0)
		return error_set(err, -errno, "--serial file:%s: %s%s", path, strerror(errno),
				 errno == ENXIO ? ": nobody reads this FIFO" : "");
	return 0;
}

static int file_start(struct serial *s, struct error *err)
{
	int r = loop_fd_add(s->loop, s->out_fd, 0, out_ready, s, &s->out_watch);

	if (r < 0)
		return error_set(err, r, "--serial file:%s: %s", s->path, strerror(-r));
	return 0;
}

static const struct serial_kind serial_file = {
	.name = "file:",
	.open = file_open,
	.start = file_start,
};
static const struct serial_kind serial_none = {.name = "none"};

static const struct serial_kind *const kinds[] = {
	&serial_none, &serial_stdio, &serial_file, &serial_socket, &serial_pty,
};

/* ---- life ---- */

static const struct serial_kind *find_kind(const char *spec, const char **path, struct error *err)
{
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const char *name = kinds[i]->name;
		size_t len = strlen(name);
		bool takes_path = name[len - 1] == ':';
		if (takes_path ? strncmp(spec, name, len) : strcmp(spec, name))
			continue;
		*path = takes_path ? spec + len : NULL;
		if (takes_path && !**path) {
			error_set(err, -EINVAL, "--serial %s: a path is missing after the colon",
				  spec);
			return NULL;
		}
		return kinds[i];
	}
	error_set(err, -EINVAL,
		  "--serial %s: not known; there are stdio, file:PATH, socket:PATH, pty and none",
		  spec);
	return NULL;
}

int serial_create(struct serial **out, struct loop *loop, unsigned port, const char *spec,
		  struct error *err)
{
	const char *path;
	const struct serial_kind *kind = find_kind(spec, &path, err);

	*out = NULL;
	if (!kind)
		return -EINVAL;
	struct serial *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "--serial %s: out of memory", spec);
	s->kind = kind;
	s->loop = loop;
	s->port = port;
	s->in_fd = s->out_fd = s->listen_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	s->pending = malloc(SERIAL_PENDING_BYTES);
	s->path = path ? strdup(path) : NULL;
	int r = 0;
	if (!s->pending || (path && !s->path))
		r = error_set(err, -ENOMEM, "--serial %s: out of memory", spec);
	else if (kind->open)
		r = kind->open(s, path, err);
	if (r < 0) {
		serial_destroy(s);
		return r;
	}
	*out = s;
	return 0;
}

int serial_attach(struct serial *s, struct machine *m, void (*on_stats)(struct machine *m),
		  struct error *err)
{
	s->m = m;
	s->on_stats = on_stats;
	return s->kind->start ? s->kind->start(s, err) : 0;
}

void serial_destroy(struct serial *s)
{
	if (!s)
		return;
	s->m = NULL;
	serial_unplug(s);
	if (s->kind->close)
		s->kind->close(s);
	if (s->poll_timer_ready)
		timer_destroy(&s->poll_timer);
	loop_fd_remove(s->listen_watch);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	pthread_mutex_destroy(&s->lock);
	free(s->pending);
	free(s->path);
	free(s);
}

struct uart_backend serial_backend(struct serial *s)
{
	return (struct uart_backend){
		.write = backend_write,
		.input_room = backend_input_room,
		.opaque = s,
	};
}
