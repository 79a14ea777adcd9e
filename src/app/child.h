/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_CHILD_H
#define HANOK_APP_CHILD_H

#include "base/error.h"

/*
 * Other programs, run and waited for. Their PATH also has the folders of system programs.
 */
struct child {
	const char *const *argv; /* ended by NULL; argv[0] is looked for in PATH */
	const char *what;	 /* progress on a terminal, and what a line of error begins with */
	const char *package;	 /* Debian's, that has the program */
	const char *folder;	 /* to run in; NULL: as we are */
	const char *log;	 /* output goes to the end of this file, an absolute path */
	const char
		*out; /* standard output goes to this file instead, made anew, in folder; or NULL */
};

/* 0; -ENOENT: no such program; -EIO: it failed, and *err quotes the last line of its log; -EINTR:
 * ended by Ctrl-C, as is the child. */
int child_run(const struct child *c, struct error *err);

#endif
