/* SPDX-License-Identifier: Apache-2.0 */
/* The command: finds the verb. One file a verb; app.h says what exit statuses mean. */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"

static const char help[] =
	"Hanok runs x86 operating systems in virtual machines, without privilege.\n"
	"\n"
	"  hanok run --kernel vmlinuz --initrd initrd --append console=ttyS0\n"
	"                        boot a kernel, its console on this terminal\n"
	"  hanok doctor          what this host offers, what is missing and how to mend it\n"
	"\n"
	"  hanok VERB --help     what a verb can do\n"
	"  hanok --version\n";

static const struct verb {
	const char *name;
	int (*fn)(int argc, char **argv);
} verbs[] = {
	{"run", verb_run},
	{"doctor", verb_doctor},
};
enum { VERBS = sizeof(verbs) / sizeof(verbs[0]) };

int fail(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("hanok: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	return status;
}

/* What was printed has to arrive: a full disk behind `hanok --help >file` is a failure. */
static int printed(void)
{
	if (fflush(stdout) == EOF || ferror(stdout))
		return fail(STATUS_FAILED, "standard output: it could not be written");
	return STATUS_OK;
}

static int unknown_verb(const char *word)
{
	const char *names[VERBS + 1] = {0};

	if (*word == '-')
		return fail(STATUS_USAGE,
			    "%s: there is no such option before a verb; try `hanok "
			    "--help`",
			    word);
	for (unsigned i = 0; i < VERBS; i++)
		names[i] = verbs[i].name;
	const char *near = nearest_name(word, names);
	if (near)
		return fail(STATUS_USAGE, "%s: there is no such verb; did you mean `hanok %s`?",
			    word, near);
	return fail(STATUS_USAGE, "%s: there is no such verb; `hanok --help` lists them", word);
}

/* Standard descriptors that are closed would be taken by the next file opened. */
static void open_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	open_standard_descriptors();
	/* Whoever writes notices by EPIPE. */
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2)
		return fail(STATUS_USAGE, "what to do? `hanok --help` lists the verbs");
	for (unsigned i = 0; i < VERBS; i++)
		if (!strcmp(argv[1], verbs[i].name)) {
			int status = verbs[i].fn(argc - 1, argv + 1);
			int out = printed();
			return status ? status : out;
		}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		fputs(help, stdout);
		return printed();
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("hanok " HANOK_VERSION);
		return printed();
	}
	return unknown_verb(argv[1]);
}
