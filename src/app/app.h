/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_APP_H
#define HANOK_APP_APP_H

#include <stdio.h>

#include "base/error.h"

/* What the program's exit status says. With --debug-exit also (value << 1) | 1. */
enum {
	STATUS_OK = 0,	    /* the guest powered off, or someone quit */
	STATUS_USAGE = 2,   /* the command line is wrong */
	STATUS_CRASHED = 3, /* the guest crashed */
	STATUS_TIMED_OUT = 124,
	STATUS_FAILED = 125, /* hanok itself could not do it */
};

/* A verb of the command: its own arguments, argv[0] being the verb. Returns the exit status. */
int verb_run(int argc, char **argv);
int verb_doctor(int argc, char **argv);
int verb_disk(int argc, char **argv);
int verb_lab(int argc, char **argv);
int verb_net(int argc, char **argv);
int verb_create(int argc, char **argv);
int verb_start(int argc, char **argv);
int verb_stop(int argc, char **argv);
int verb_pause(int argc, char **argv);
int verb_resume(int argc, char **argv);
int verb_reset(int argc, char **argv);
int verb_balloon(int argc, char **argv);
int verb_ps(int argc, char **argv);
int verb_console(int argc, char **argv);
int verb_logs(int argc, char **argv);
int verb_rm(int argc, char **argv);
int verb_clone(int argc, char **argv);
int verb_snapshot(int argc, char **argv);
int verb_pool(int argc, char **argv);
int verb_inspect(int argc, char **argv);
int verb_top(int argc, char **argv);

/* Prints "hanok: LINE" on stderr and returns status. */
int fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
