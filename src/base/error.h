/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_ERROR_H
#define HANOK_BASE_ERROR_H

/*
 * An error a person can act on: one line that says what failed, on which file or option, why, and
 * what to do. It is written where the cause is known best and printed once, by app/.
 */
struct error {
	char text[512];
};

/*
 * Writes the line and returns code (a negative errno) so that a failing function can end with
 * `return error_set(err, -EINVAL, "...")`. err may be NULL: then only the code is passed on.
 */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
