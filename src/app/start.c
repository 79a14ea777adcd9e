/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `hanok start`: a machine in the background. The process forks before it has threads; the child
 * leaves the terminal, makes the machine, and says by a pipe that it runs, or why it does not. The
 * parent waits for that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/app.h"
#include "app/run.h"

static const char help[] =
	"hanok start: run a machine in the background.\n"
	"\n"
	"  hanok start mail                 returns when it runs\n"
	"  hanok start --memory 4G mail     ... with more memory than its .vmx says, this once\n"
	"\n"
	"A machine is named by its folder, its .vmx file or its display name. It takes the options of\n"
	"`hanok run`. Afterwards:\n"
	"\n"
	"  hanok console mail               its serial console; what it printed before is shown first\n"
	"  hanok ps                         what runs\n"
	"  hanok logs -f mail               its life, line by line\n"
	"  hanok stop mail                  shut it down\n"
	"\n"
	"Exit status: 0 it runs; 2 the command line is wrong; 125 it could not be started.\n";

/* What the child says first: it runs, or a line of error follows. */
enum { REPORT_RUNS = '+', REPORT_FAILED = '-' };

static void report(struct run *r, char what, const char *text)
{
	(void)!write(r->report_fd, &what, 1);
	(void)!write(r->report_fd, text, strlen(text));
}

static void on_event(void *opaque, enum machine_event event)
{
	struct run *r = opaque;
	int null = event == MACHINE_EVENT_STARTED ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;

	if (event != MACHINE_EVENT_STARTED)
		return;
	report(r, REPORT_RUNS, "");
	/* The descriptor stays what it is, for report_fd says that we are detached; its other side
	 * goes. */
	if (null >= 0) {
		dup3(null, r->report_fd, O_CLOEXEC);
		close(null);
	}
}

int run_report_start(struct run *r)
{
	struct machine_hooks hooks = {.event = on_event, .opaque = r};

	return machine_add_hooks(r->machine, &hooks);
}

static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
}

static int child(struct run *r)
{
	struct error err = {0};

	leave_terminal();
	int status = run_to_end(r, &err);
	if (err.text[0])
		report(r, REPORT_FAILED, err.text);
	return status;
}

/* Waits for what the child reports. */
static int parent(int fd, pid_t pid, const char *word)
{
	char text[sizeof(struct error) + 1];
	size_t len = 0;
	ssize_t n;

	while (len < sizeof(text) - 1 && (!len || text[0] == REPORT_FAILED)) {
		n = read(fd, text + len, sizeof(text) - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	text[len] = 0;
	close(fd);
	if (len && text[0] == REPORT_RUNS)
		return STATUS_OK;
	int status = 0;
	waitpid(pid, &status, 0);
	if (len > 1)
		return fail(STATUS_FAILED, "%s", text + 1);
	return fail(STATUS_FAILED,
		    "%s: its process ended before it ran; `hanok logs %s` shows how far it came",
		    word, word);
}

int verb_start(int argc, char **argv)
{
	struct error err = {0};
	struct run r;
	int fds[2];

	run_init(&r);
	int parsed = run_parse(&r, argc, argv, true, &err);
	if (parsed > 0) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	if (parsed < 0)
		return fail(STATUS_USAGE, "%s", err.text);
	if (pipe2(fds, O_CLOEXEC) < 0)
		return fail(STATUS_FAILED, "start: %s", strerror(errno));
	pid_t pid = fork();
	if (pid < 0)
		return fail(STATUS_FAILED, "start: a process: %s", strerror(errno));
	if (pid == 0) {
		close(fds[0]);
		r.report_fd = fds[1];
		return child(&r);
	}
	close(fds[1]);
	return parent(fds[0], pid, r.vm_word);
}
