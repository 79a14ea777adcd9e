/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok console`: this terminal as one of those at a running machine's serial port. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"
#include "app/terminal.h"
#include "app/vm_verb.h"

static const char help[] =
	"hanok console: the serial console of a running machine, on this terminal.\n"
	"\n"
	"  hanok console mail               Ctrl-A x detaches, the machine goes on; Ctrl-A h helps\n"
	"  hanok console --replay 0 mail    without what it printed before\n"
	"  hanok console mail </dev/null >console.txt &\n"
	"                                   write down what it prints from now on\n"
	"\n"
	"  --replay SIZE       show so much of what was printed before (all that is kept: 256K)\n"
	"\n"
	"Several may be attached at a time: all see the same, and each may type.\n"
	"\n"
	"Exit status: 0 detached, or the machine ended; 2 the command line is wrong; 125 it does not\n"
	"run, or could not be asked; 128 + N ended by signal N.\n";

enum { KEY_ESCAPE = 1 /* Ctrl-A */, PIECE_BYTES = 4096 };

struct attachment {
	int fd;
	bool interactive, input_over, escaped, detached;
};

static uint64_t replay_bytes;

static int set_option(void *opaque, int option, struct error *err)
{
	(void)opaque, (void)option;
	int r = parse_size("--replay", optarg, &replay_bytes, err);

	if (r == 0 && replay_bytes > INT32_MAX)
		replay_bytes = INT32_MAX;
	return r;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static void say_keys(void)
{
	terminal_say("Ctrl-A x  detach; the machine goes on");
	terminal_say("Ctrl-A a  send Ctrl-A itself");
	terminal_say("Ctrl-A h  this help");
}

/* Takes Ctrl-A and what follows it out; returns how much is left for the guest. */
static size_t filter(struct attachment *a, char *keys, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len && !a->detached; i++) {
		char key = keys[i];
		bool command = a->escaped;
		a->escaped = !command && key == KEY_ESCAPE;
		if (!command && key != KEY_ESCAPE)
			keys[n++] = key;
		else if (command && (key == 'a' || key == KEY_ESCAPE))
			keys[n++] = KEY_ESCAPE;
		else if (command && key == 'x')
			a->detached = true;
		else if (command && (key == 'h' || key == '?'))
			say_keys();
	}
	return n;
}

/* Keys, or a file's or pipe's bytes, to the machine. False: it is gone. */
static bool send_input(struct attachment *a)
{
	char keys[PIECE_BYTES];
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0) {
		a->input_over = true; /* nobody types any more; the output goes on */
		return true;
	}
	size_t len = a->interactive ? filter(a, keys, (size_t)n) : (size_t)n;
	return write_all(a->fd, keys, len) == 0;
}

/* 0: goes on; 1: the machine has ended; -errno: standard output is gone. */
static int show_output(struct attachment *a)
{
	char data[PIECE_BYTES];
	ssize_t n = read(a->fd, data, sizeof(data));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0)
		return 1;
	if (a->interactive)
		terminal_wrote(data, (unsigned long)n);
	return write_all(STDOUT_FILENO, data, (size_t)n);
}

static int talk(struct attachment *a)
{
	int r = 0;

	while (r == 0 && !a->detached) {
		struct pollfd p[] = {
			{.fd = a->fd, .events = POLLIN},
			{.fd = a->input_over ? -1 : STDIN_FILENO, .events = POLLIN},
		};
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents)
			r = show_output(a);
		if (r == 0 && p[1].revents && !send_input(a))
			a->input_over = true; /* what it said last is still to come */
	}
	return r;
}

/* Puts the terminal back, then lets the signal do what it does. */
static void on_signal(int sig)
{
	terminal_restore();
	signal(sig, SIG_DFL);
	raise(sig);
}

static int attach(struct attachment *a, const char *name, struct error *err)
{
	static const int signals[] = {SIGTERM, SIGHUP, SIGINT};

	a->interactive = isatty(STDIN_FILENO);
	if (a->interactive) {
		for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
			signal(signals[i], on_signal);
		int r = terminal_raw(STDIN_FILENO, err);
		if (r < 0)
			return r;
		terminal_say("attached to %s; Ctrl-A x detaches, Ctrl-A h helps", name);
	}
	return 0;
}

/* Asks for the stream and shows what came with the answer. */
static int open_stream(struct control_client *c, struct attachment *a, struct error *err)
{
	char *early;
	size_t len;
	int r = control_ask(
		c, json_pack("{s:s, s:I}", "do", "attach", "replay", (json_int_t)replay_bytes),
		NULL, ANSWER_MS, err);

	if (r < 0)
		return r;
	a->fd = control_take_stream(c, &early, &len);
	if (len)
		(void)write_all(STDOUT_FILENO, early, len);
	free(early);
	return 0;
}

static int attend(struct control_client *c, const struct vm_folder *f)
{
	struct attachment a = {.fd = -1};
	struct error err;
	int r = attach(&a, f->base, &err);

	if (r == 0)
		r = open_stream(c, &a, &err);
	if (r < 0) {
		terminal_restore();
		return fail(STATUS_FAILED, "%s: %s", f->vmx, err.text);
	}
	r = talk(&a);
	close(a.fd);
	terminal_restore();
	if (r < 0)
		return fail(STATUS_FAILED, "standard output: %s", strerror(-r));
	if (a.interactive)
		terminal_say(a.detached ? "detached; %s goes on" : "%s has ended", f->base);
	return STATUS_OK;
}

int verb_console(int argc, char **argv)
{
	static const struct option options[] = {
		{"replay", required_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *word;
	const struct verb_words words = {&word, 1, 1, "which machine?", set_option, NULL};
	struct control_client *c;
	struct vm_folder f;
	struct error err;

	replay_bytes = 256 * 1024;
	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	r = verb_reach(word, &f, &c, &err);
	if (r < 0)
		return fail(STATUS_FAILED, "%s", err.text);
	r = attend(c, &f);
	control_close(c);
	vm_folder_free(&f);
	return r;
}
