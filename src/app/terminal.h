/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_TERMINAL_H
#define HANOK_APP_TERMINAL_H

#include <stdbool.h>

#include "base/error.h"

/*
 * The terminal that hanok was started on, while its keys go to a guest: raw, and put back on every
 * way out: terminal_restore, exit(), and the signals of a crash.
 */

/* Makes fd's terminal raw. Once; later calls after terminal_restore make it raw again. */
int terminal_raw(int fd, struct error *err);
/* Puts it back; async-signal-safe; does nothing when it is not raw. */
void terminal_restore(void);
bool terminal_is_raw(void);

/*
 * Lines of ours among the guest's output, on stderr, each beginning on a line of its own.
 * terminal_wrote tells where the guest's output stopped.
 */
void terminal_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void terminal_wrote(const void *data, unsigned long len);

#endif
