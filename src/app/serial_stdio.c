/* SPDX-License-Identifier: Apache-2.0 */
/* --serial stdio: the terminal that hanok was started on, or whatever else these are. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/serial_internal.h"
#include "app/terminal.h"

enum { KEY_ESCAPE = 1 /* Ctrl-A */ };

/*
 * A descriptor with an open file of its own, non-blocking, for terminals and pipes; the others
 * (plain files keep their offset, sockets cannot be opened) are only duplicated.
 */
static int own(int fd, int mode)
{
	char path[32];
	struct stat st;
	int mine = -1;

	if (fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || isatty(fd))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		mine = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	return mine >= 0 ? mine : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int stdio_start(struct serial *s, struct error *err)
{
	/* A descriptor that is closed from the start is like /dev/null. */
	int in = own(STDIN_FILENO, O_RDONLY), out = own(STDOUT_FILENO, O_WRONLY);

	if (isatty(STDIN_FILENO)) {
		int r = terminal_raw(STDIN_FILENO, err);
		if (r < 0) {
			if (in >= 0)
				close(in);
			if (out >= 0)
				close(out);
			return r;
		}
		s->interactive = s->never_wait = true;
	}
	return serial_plug(s, in, out, err);
}

static void help(void)
{
	static const char *const lines[] = {
		"Ctrl-A x  end the guest at once, as if its plug had been pulled",
		"Ctrl-A p  press its power button: a guest that listens shuts down",
		"Ctrl-A b  send a break",
		"Ctrl-A s  show what the guest did so far",
		"Ctrl-A a  send Ctrl-A itself",
		"Ctrl-A h  this help",
	};

	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		terminal_say("%s", lines[i]);
}

/* A key after Ctrl-A. True when it is for the guest. */
static bool command(struct serial *s, uint8_t key)
{
	switch (key) {
	case KEY_ESCAPE:
	case 'a':
		return true;
	case 'x':
		machine_stop(s->m, MACHINE_QUIT, "ended by Ctrl-A x");
		break;
	case 'p':
		board_power_button(machine_board(s->m));
		break;
	case 'b':
		board_serial_break(machine_board(s->m), s->port);
		break;
	case 's':
		s->on_stats(s->m);
		break;
	case 'h':
	case '?':
		help();
		break;
	default:
		break;
	}
	return false;
}

static size_t stdio_filter(struct serial *s, const uint8_t *from, size_t len, uint8_t *to)
{
	size_t n = 0;

	if (!s->interactive) {
		memcpy(to, from, len);
		return len;
	}
	for (size_t i = 0; i < len; i++) {
		if (s->escaped) {
			s->escaped = false;
			if (command(s, from[i]))
				to[n++] = KEY_ESCAPE;
		} else if (from[i] == KEY_ESCAPE) {
			s->escaped = true;
		} else {
			to[n++] = from[i];
		}
	}
	return n;
}

static void stdio_gone(struct serial *s, int error)
{
	if (error == EPIPE)
		machine_stop(s->m, MACHINE_FAILED,
			     "standard output: nobody reads the guest's output any more");
	else if (s->interactive)
		machine_stop(s->m, MACHINE_FAILED, "the terminal is gone");
	/* Otherwise the end of a file or pipe, or /dev/null: nobody types, the guest goes on. */
}

static void stdio_close(struct serial *s)
{
	(void)s;
	terminal_restore();
}

const struct serial_kind serial_stdio = {
	.name = "stdio",
	.start = stdio_start,
	.filter = stdio_filter,
	.gone = stdio_gone,
	.close = stdio_close,
};

void serial_suspend(struct serial *s)
{
	if (s->interactive)
		terminal_restore();
}

void serial_continue(struct serial *s)
{
	/* Continued in the background: it is the shell's terminal now. */
	if (s->interactive && tcgetpgrp(STDIN_FILENO) == getpgrp())
		(void)terminal_raw(STDIN_FILENO, NULL);
}
