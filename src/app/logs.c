/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok logs`: the life of a machine, from its log. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "control/vm_log.h"

static const char help[] =
	"hanok logs: what happened to a machine.\n"
	"\n"
	"  hanok logs mail         since its last start: engine, devices, resets, errors, its end\n"
	"  hanok logs -f mail      ... and what comes, until it ends\n"
	"  hanok logs --old mail   the three lives before, too\n"
	"\n"
	"The file is NAME.log in its folder. What the guest itself prints is on `hanok console`.\n"
	"\n"
	"Exit status: 0; 2 the command line is wrong; 125 there is no log.\n";

enum { LOOK_US = 200000 };

struct logs {
	bool follow, old;
};

static int set_option(void *opaque, int option, struct error *err)
{
	struct logs *l = opaque;

	(void)err;
	if (option == 'f')
		l->follow = true;
	else
		l->old = true;
	return 0;
}

/* Copies what there is to standard output. 0, or -errno of standard output. */
static int show(int fd)
{
	char data[4096];
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0)
		if (fwrite(data, 1, (size_t)n, stdout) != (size_t)n)
			return -EIO;
	return fflush(stdout) == EOF ? -errno : 0;
}

static void show_old(const struct vm_folder *f)
{
	for (int n = VM_LOGS_KEPT - 1; n >= 0; n--) {
		char suffix[16];
		snprintf(suffix, sizeof(suffix), "-%d.log", n);
		char *path = vm_file(f, suffix);
		int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		if (fd >= 0) {
			show(fd);
			close(fd);
		}
		free(path);
	}
}

static bool same_file(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino &&
	       a.st_dev == b.st_dev;
}

/* Shows what comes, also after the log was moved away and begun anew, until the machine ends. */
static int follow(const struct vm_folder *f, const char *path, int *fd)
{
	struct vm_runner runner;
	int r = 0;

	while (r == 0) {
		bool runs = vm_is_running(f, &runner, NULL) > 0, moved = !same_file(*fd, path);
		r = show(*fd);
		int next = moved ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		if (next >= 0) {
			close(*fd);
			*fd = next;
		} else if (!runs) {
			break;
		} else {
			usleep(LOOK_US);
		}
	}
	return r;
}

static int show_logs(const struct logs *l, const struct vm_folder *f, struct error *err)
{
	char *path = vm_file(f, ".log");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1, r = 0;

	if (!path) {
		r = error_set(err, -ENOMEM, "logs: out of memory");
	} else if (fd < 0) {
		r = error_set(err, -errno, "%s: %s%s", path, strerror(errno),
			      errno == ENOENT ? "; it has never been started" : "");
	} else {
		if (l->old)
			show_old(f);
		r = l->follow ? follow(f, path, &fd) : show(fd);
		if (r < 0)
			error_set(err, r, "standard output: %s", strerror(-r));
	}
	if (fd >= 0)
		close(fd);
	free(path);
	return r;
}

int verb_logs(int argc, char **argv)
{
	static const struct option options[] = {
		{"follow", no_argument, NULL, 'f'},
		{"old", no_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct logs l = {0};
	const char *word;
	const struct verb_words words = {&word, 1, 1, "which machine?", set_option, &l};
	struct vm_folder f;
	struct error err;

	/* The one short option that everybody's fingers know. */
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "-f"))
			argv[i] = "--follow";
	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	r = vm_find(&f, word, &err);
	if (r == 0) {
		r = show_logs(&l, &f, &err);
		vm_folder_free(&f);
	}
	return r < 0 ? fail(STATUS_FAILED, "%s", err.text) : STATUS_OK;
}
