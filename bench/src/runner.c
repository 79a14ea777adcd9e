/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs workloads one after the other and says what each took: process 1 of the guests, and the same program
 * in a chroot of the host.
 *
 *   runner full|quick NAME,NAME...      in a chroot
 *   hanok.bench=NAME,... hanok.bench_size=full|quick     on the kernel's command line, as process 1
 *
 * /bench/workloads has a line for each, `NAME <tab> FULL COMMAND <tab> QUICK COMMAND`. A command runs in
 * /bin/sh; its standard output is what is compared between the environments. What is printed:
 *
 *   bench-begin NAME
 *   bench NAME cpu=SECONDS wall=SECONDS status=N bytes=N check=HASH out=FIRST-WORDS
 *   bench-end
 *
 * cpu is user and system time of the command and all its descendants. As process 1 it waits a moment after
 * bench-end, so that who reads this can look at the machine's memory, and powers off.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 4096, OUT = 48, LOOK_SECONDS = 1 };

struct outcome {
	double cpu_s, wall_s;
	int status;
	unsigned long bytes;
	uint64_t hash;
	char first[OUT + 1];
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* FNV-1a (64 bits), and the start of the text in printable characters. */
static void take_output(struct outcome *o, const char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		o->hash = (o->hash ^ (unsigned char)data[i]) * 0x100000001b3;
		if (o->bytes + i < OUT)
			o->first[o->bytes + i] = data[i] > ' ' && data[i] < 127 ? data[i] : '_';
	}
	o->bytes += bytes;
}

/* Never returns. */
static void run_command(const char *command, int out)
{
	int in = open("/dev/null", O_RDONLY);

	if (in >= 0)
		dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	fprintf(stderr, "runner: /bin/sh: %s\n", strerror(errno));
	_exit(127);
}

/* Returns 0, or -errno when the command could not be started. */
static int measure(const char *command, struct outcome *o)
{
	struct rusage usage;
	char buffer[LINE];
	int fds[2], status;
	ssize_t got;

	*o = (struct outcome){ .hash = 0xcbf29ce484222325 };
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	double start = now_s();
	pid_t child = fork();
	if (child < 0)
		return -errno;
	if (!child)
		run_command(command, fds[1]);
	close(fds[1]);
	while ((got = read(fds[0], buffer, sizeof(buffer))) > 0)
		take_output(o, buffer, (size_t)got);
	close(fds[0]);
	if (wait4(child, &status, 0, &usage) != child)
		return -errno;
	o->wall_s = now_s() - start;
	o->cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
	o->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return 0;
}

/* The command of a workload in /bench/workloads, to be freed by the caller, or NULL. */
static char *find_command(const char *name, int quick)
{
	FILE *list = fopen("/bench/workloads", "re");
	char line[LINE], *command = NULL;

	while (list && !command && fgets(line, sizeof(line), list)) {
		char *at = line;
		const char *field = strsep(&at, "\t\n");
		if (strcmp(field, name))
			continue;
		const char *full = strsep(&at, "\t\n"), *small = strsep(&at, "\t\n");
		if (full && small)
			command = strdup(quick ? small : full);
	}
	if (list)
		fclose(list);
	return command;
}

static void run_workload(const char *name, int quick)
{
	struct outcome o;
	char *command = find_command(name, quick);

	if (!command) {
		printf("runner: %s: not in /bench/workloads\n", name);
		return;
	}
	printf("bench-begin %s\n", name);
	fflush(stdout);
	int rc = measure(command, &o);
	if (rc)
		printf("runner: %s: %s\n", name, strerror(-rc));
	else
		printf("bench %s cpu=%.6f wall=%.6f status=%d bytes=%lu check=%016llx out=%s\n", name,
		       o.cpu_s, o.wall_s, o.status, o.bytes, (unsigned long long)o.hash, o.first);
	fflush(stdout);
	free(command);
}

static void run_all(char *names, int quick)
{
	const char *name;

	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/tmp", 1);
	setenv("LC_ALL", "C", 1);
	if (chdir("/tmp"))
		printf("runner: /tmp: %s\n", strerror(errno));
	while ((name = strsep(&names, ",")))
		run_workload(name, quick);
	printf("bench-end\n");
	fflush(stdout);
}

/* The value of key on the kernel's command line, cut out of line, or fallback. */
static char *parameter(char *line, const char *key, char *fallback)
{
	char *at = strstr(line, key);

	if (!at)
		return fallback;
	at += strlen(key);
	return strndup(at, strcspn(at, " \n"));
}

static void mount_on(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL))
		printf("runner: %s: %s\n", where, strerror(errno));
}

static void guest_main(void)
{
	char line[LINE] = "";

	mount_on("proc", "/proc");
	mount_on("sysfs", "/sys");
	mount_on("devtmpfs", "/dev");
	mkdir("/tmp", 0777);
	mount_on("tmpfs", "/tmp");
	FILE *file = fopen("/proc/cmdline", "re");
	if (!file || !fgets(line, sizeof(line), file))
		printf("runner: /proc/cmdline: %s\n", strerror(errno));
	char *names = parameter(line, "hanok.bench=", NULL);
	char *size = parameter(line, "hanok.bench_size=", "full");
	if (names)
		run_all(names, !strcmp(size, "quick"));
	else
		printf("runner: hanok.bench= is not on the kernel's command line\n");
	fflush(stdout);
	sleep(LOOK_SECONDS);
	sync();
	reboot(RB_POWER_OFF);
}

int main(int argc, char **argv)
{
	if (argc == 3) {
		run_all(argv[2], !strcmp(argv[1], "quick"));
		return 0;
	}
	if (getpid() == 1) {
		guest_main();
		return 1;
	}
	fprintf(stderr, "usage: runner full|quick NAME,NAME...\n");
	return 2;
}
