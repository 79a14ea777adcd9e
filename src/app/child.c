/* SPDX-License-Identifier: Apache-2.0 */
#include "app/child.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/vm_verb.h"
#include "base/clock.h"

enum { TICK_US = 100000, STATUS_NO_PROGRAM = 127, TAIL_BYTES = 400 };

/* In the child; never returns. */
static void become(const struct child *c)
{
	const char *path = getenv("PATH");
	char wide[4096];
	if (c->folder && chdir(c->folder) < 0)
		_exit(126);
	int in = open("/dev/null", O_RDONLY);
	int log = open(c->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	int out = c->out ? open(c->out, O_WRONLY | O_CREAT | O_TRUNC, 0600) : log;

	snprintf(wide, sizeof(wide), "%s:/usr/local/sbin:/usr/sbin:/sbin",
		 path ? path : "/usr/bin:/bin");
	setenv("PATH", wide, 1);
	setenv("LC_ALL", "C.UTF-8", 1);
	if (in < 0 || log < 0 || out < 0)
		_exit(126);
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	/* mmdebstrap has shells write to what it opens, and theirs know descriptors of one digit. */
	close_range(STDERR_FILENO + 1, ~0U, 0);
	signal(SIGPIPE, SIG_DFL);
	execvp(c->argv[0], (char *const *)c->argv);
	_exit(errno == ENOENT ? STATUS_NO_PROGRAM : 126);
}

/* The last line of the log that says something, for a person to see where it stands. */
static void last_line(const char *log, char *line, size_t room)
{
	char tail[TAIL_BYTES + 1];
	struct stat st;
	int fd = open(log, O_RDONLY | O_CLOEXEC);
	off_t from = fd >= 0 && fstat(fd, &st) == 0 && st.st_size > TAIL_BYTES
			     ? st.st_size - TAIL_BYTES
			     : 0;
	ssize_t n = fd >= 0 ? pread(fd, tail, TAIL_BYTES, from) : 0;

	if (fd >= 0)
		close(fd);
	while (n > 0 && (unsigned char)tail[n - 1] <= ' ')
		n--;
	tail[n > 0 ? n : 0] = 0;
	char *newline = strrchr(tail, '\n');
	const char *last = newline ? newline + 1 : tail;
	size_t len = strnlen(last, room - 1);
	memcpy(line, last, len);
	line[len] = 0;
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
}

static int wait_for(const struct child *c, pid_t pid)
{
	uint64_t begin = clock_ns();
	char line[80];
	int status;

	for (unsigned tick = 0;; tick++) {
		pid_t r = waitpid(pid, &status, WNOHANG);
		if (r == pid || (r < 0 && errno != EINTR))
			break;
		usleep(TICK_US);
		if (tick % 5 == 4) {
			last_line(c->log, line, sizeof(line));
			progress("%s, %" PRIu64 " s  %.60s", c->what,
				 (clock_ns() - begin) / 1000000000, line);
		}
	}
	progress_end();
	return status;
}

int child_run(const struct child *c, struct error *err)
{
	char line[200];
	pid_t pid = fork();

	if (pid < 0)
		return error_set(err, -errno, "%s: a process: %s", c->what, strerror(errno));
	if (pid == 0)
		become(c);
	int status = wait_for(c, pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_NO_PROGRAM)
		return error_set(err, -ENOENT,
				 "%s: %s is not installed; to get it: sudo apt-get install %s",
				 c->what, c->argv[0], c->package);
	if (WIFSIGNALED(status))
		return error_set(err, -EINTR, "%s: %s was ended by a signal: %s", c->what,
				 c->argv[0], strsignal(WTERMSIG(status)));
	last_line(c->log, line, sizeof(line));
	return error_set(err, -EIO, "%s: %s failed: %s; %s has all it said", c->what, c->argv[0],
			 line, c->log);
}
