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
#include "app/vm_verb.h"
#include "base/layout.h"

static const char help[] =
	"Hanok runs x86 operating systems in virtual machines, without privilege.\n"
	"\n"
	"Machines:\n"
	"  hanok create mail --os debian    make one, with Debian on its disk, in ~/hanok/mail\n"
	"  hanok run mail                   run it, its console on this terminal\n"
	"  hanok start mail                 run it in the background\n"
	"  hanok console mail               ... and look in; Ctrl-A x leaves\n"
	"  hanok stop mail                  shut it down\n"
	"  hanok pause|resume|reset mail    have it stand still, go on, begin anew\n"
	"  hanok balloon mail               what memory its guest could spare; how much it gives back\n"
	"  hanok ps                         what runs; with --all, what there is\n"
	"  hanok logs mail                  what happened to it\n"
	"  hanok top                        what they take of this host, live\n"
	"  hanok inspect mail walk ADDRESS  look into it: page tables, memory, page faults, exits\n"
	"  hanok snapshot create mail s1    keep its disks as they are; revert, delete, list\n"
	"  hanok clone mail mail2           another one like it; --linked: at once\n"
	"  hanok rm mail                    remove it\n"
	"  hanok pool 8G                    all of them together get so much of the host's memory\n"
	"\n"
	"Networks:\n"
	"  hanok net create lan --nat       a switch that machines share; `hanok net --help`\n"
	"\n"
	"Disks:\n"
	"  hanok disk create mail.vmdk 20G  make one; info, check, convert ...: `hanok disk --help`\n"
	"\n"
	"Kernels of your own:\n"
	"  hanok run --kernel vmlinuz --initrd initrd --append console=ttyS0\n"
	"\n"
	"Page replacement, to look at:\n"
	"  hanok lab replay mail.trace      FIFO, LRU and others on a recorded trace: `hanok lab --help`\n"
	"\n"
	"This host:\n"
	"  hanok doctor                     what it offers, what is missing and how to mend it\n"
	"\n"
	"  hanok VERB --help                what a verb can do\n"
	"  hanok --version\n";

static const struct verb {
	const char *name;
	int (*fn)(int argc, char **argv);
} verbs[] = {
	{"disk", verb_disk},	   {"run", verb_run},		{"create", verb_create},
	{"start", verb_start},	   {"stop", verb_stop},		{"pause", verb_pause},
	{"resume", verb_resume},   {"reset", verb_reset},	{"ps", verb_ps},
	{"console", verb_console}, {"logs", verb_logs},		{"rm", verb_rm},
	{"clone", verb_clone},	   {"snapshot", verb_snapshot}, {"net", verb_net},
	{"doctor", verb_doctor},   {"lab", verb_lab},		{"pool", verb_pool},
	{"inspect", verb_inspect}, {"top", verb_top},		{"balloon", verb_balloon},
};
enum { VERBS = sizeof(verbs) / sizeof(verbs[0]) };

/* Files and machines may have any name; a terminal must not be steered by it. */
int fail(int status, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	make_printable(line);
	fprintf(stderr, "hanok: %s\n", line);
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

static int command(int argc, char **argv)
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

/* What runs a machine keeps its memory together, so that the rest of the address space is the guest's; and what
 * says whether that can be had here. */
int main(int argc, char **argv)
{
	if (argc >= 2 &&
	    (!strcmp(argv[1], "run") || !strcmp(argv[1], "start") || !strcmp(argv[1], "doctor")))
		return layout_run(command, argc, argv);
	return command(argc, argv);
}
