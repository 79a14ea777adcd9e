/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's part: system calls, files, signals, processes and switches between them. */
#include "bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* n times 1000 system calls that do next to nothing. */
void bench_getppid(unsigned n)
{
	long differ = 0, parent = syscall(SYS_getppid);

	for (unsigned i = 0; i < n * 1000; i++)
		differ += syscall(SYS_getppid) != parent;
	printf("%ld\n", differ);
}

/* Open, read 4 KiB of, and close a file; n times 100. */
void bench_file(unsigned n)
{
	char buffer[4096];
	unsigned long sum = 0;

	for (unsigned i = 0; i < n * 100; i++) {
		int fd = open("/bench/corpus", O_RDONLY);
		need(fd >= 0, "/bench/corpus");
		need(read(fd, buffer, sizeof(buffer)) == sizeof(buffer), "read");
		sum += (unsigned char)buffer[i % sizeof(buffer)];
		close(fd);
	}
	printf("%lu\n", sum);
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
	(void)number;
	signals++;
}

/* A signal to oneself and its handler, n times 1000. */
void bench_signal(unsigned n)
{
	struct sigaction action = { .sa_handler = count_signal };

	need(!sigaction(SIGUSR1, &action, NULL), "sigaction");
	for (unsigned i = 0; i < n * 1000; i++)
		kill(getpid(), SIGUSR1);
	printf("%d\n", (int)signals);
}

static int wait_for(pid_t child)
{
	int status;

	need(child >= 0, "fork");
	need(waitpid(child, &status, 0) == child && WIFEXITED(status), "waitpid");
	return WEXITSTATUS(status);
}

/* fork, exit and wait, n times. */
void bench_fork(unsigned n)
{
	unsigned long sum = 0;

	for (unsigned i = 0; i < n; i++) {
		pid_t child = fork();
		if (!child)
			_exit((int)(i & 63));
		sum += (unsigned long)wait_for(child);
	}
	printf("%lu\n", sum);
}

/* fork, exec of /bin/true (dynamically linked) and wait, n times. */
void bench_exec(unsigned n)
{
	unsigned long sum = 0;

	for (unsigned i = 0; i < n; i++) {
		pid_t child = fork();
		if (!child) {
			execl("/bin/true", "true", (char *)NULL);
			_exit(127);
		}
		sum += (unsigned long)wait_for(child);
	}
	need(sum == 0, "/bin/true");
	printf("%u\n", n);
}

/* Passes count bytes from one pipe to another, one more each time; returns the last. */
static unsigned char pass_on(int from, int to, unsigned count)
{
	unsigned char byte = 0;

	for (unsigned i = 0; i < count; i++) {
		need(read(from, &byte, 1) == 1, "read");
		byte++;
		need(write(to, &byte, 1) == 1, "write");
	}
	return byte;
}

/* A token goes n times round a ring of processes, each a pipe away from the next. */
static void ring(unsigned processes, unsigned n)
{
	int pipes[64][2];
	pid_t children[64];
	unsigned char byte = 0;

	for (unsigned i = 0; i < processes; i++)
		need(!pipe(pipes[i]), "pipe");
	for (unsigned i = 1; i < processes; i++) {
		children[i] = fork();
		need(children[i] >= 0, "fork");
		if (!children[i]) {
			pass_on(pipes[i - 1][0], pipes[i][1], n);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < n; i++) {
		need(write(pipes[0][1], &byte, 1) == 1, "write");
		need(read(pipes[processes - 1][0], &byte, 1) == 1, "read");
	}
	for (unsigned i = 1; i < processes; i++)
		need(wait_for(children[i]) == 0, "a child of the ring");
	printf("%u\n", byte);
}

/* A byte to another process and back, n times 100. */
void bench_pipe(unsigned n)
{
	ring(2, n * 100);
}

/* Sixteen processes in a ring, n times 100 rounds. */
void bench_switch(unsigned n)
{
	ring(16, n * 100);
}
