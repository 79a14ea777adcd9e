/* SPDX-License-Identifier: Apache-2.0 */
#include "app/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* Written before `raw` is set and not after, so a signal handler may read them when it is. */
static struct termios original;
static int terminal_fd = -1;
static atomic_bool raw;

static atomic_bool mid_line; /* the guest's output stopped within a line */

bool terminal_is_raw(void)
{
	return atomic_load(&raw);
}

void terminal_restore(void)
{
	if (atomic_exchange(&raw, false)) {
		int saved = errno;
		tcsetattr(terminal_fd, TCSADRAIN, &original);
		errno = saved;
	}
}

static const int crashes[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGQUIT};
enum { CRASHES = sizeof(crashes) / sizeof(crashes[0]) };
static struct sigaction before[CRASHES]; /* what else looks at a crash: an engine, a sanitizer */

static void crashed(int sig)
{
	/* Not TCSADRAIN: a terminal that takes no output must not keep us here. */
	if (atomic_exchange(&raw, false))
		tcsetattr(terminal_fd, TCSANOW, &original);
	for (unsigned i = 0; i < CRASHES; i++)
		if (crashes[i] == sig)
			sigaction(sig, &before[i], NULL);
	raise(sig);
}

/* Once: the ways out. */
static int guard(int fd, struct error *err)
{
	struct sigaction sa = {.sa_handler = crashed, .sa_flags = SA_NODEFER};

	if (terminal_fd >= 0)
		return 0;
	if (tcgetattr(fd, &original) < 0)
		return error_set(err, -errno, "the terminal's settings: %s", strerror(errno));
	terminal_fd = fd;
	atexit(terminal_restore);
	for (unsigned i = 0; i < CRASHES; i++)
		sigaction(crashes[i], &sa, &before[i]);
	return 0;
}

int terminal_raw(int fd, struct error *err)
{
	struct termios t;
	int r = guard(fd, err);

	if (r < 0)
		return r;
	t = original;
	cfmakeraw(&t);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	/* First the flag: whatever ends us in between finds settings that may be put back. */
	atomic_store(&raw, true);
	if (tcsetattr(terminal_fd, TCSANOW, &t) < 0) {
		r = error_set(err, -errno, "the terminal: raw mode: %s", strerror(errno));
		terminal_restore();
	}
	return r;
}

void terminal_wrote(const void *data, unsigned long len)
{
	if (len)
		atomic_store(&mid_line, ((const char *)data)[len - 1] != '\n');
}

void terminal_say(const char *fmt, ...)
{
	bool tty = isatty(STDERR_FILENO);
	const char *newline = tty && terminal_is_raw() ? "\r\n" : "\n";
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fprintf(stderr, "%shanok: %s%s", atomic_exchange(&mid_line, false) && tty ? newline : "",
		line, newline);
}
