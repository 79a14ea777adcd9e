/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_OPTIONS_H
#define HANOK_APP_OPTIONS_H

#include <getopt.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * The next option of a verb as getopt_long finds it, with errors of our own: returns the option's
 * val, -1 after the last, or '?' with the line in *err. Call from optind 1 on. Only long options,
 * -h for --help, and -o for one with a value and the val 'o'; no operands are moved.
 */
int option_next(int argc, char **argv, const struct option *options, struct error *err);

/* The name in names (ended by NULL) that word was most likely meant to be, or NULL. */
const char *nearest_name(const char *word, const char *const *names);

/*
 * Values of options; option is the name that a line of error begins with. 0, or -EINVAL with *err.
 * parse_size: bytes, with K, M, G or T for powers of 1024. parse_unsigned: decimal, or hexadecimal
 * with 0x. parse_seconds: with fractions, to nanoseconds; s, m or h may follow.
 */
int parse_size(const char *option, const char *text, uint64_t *bytes, struct error *err);
int parse_unsigned(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out,
		   struct error *err);
int parse_seconds(const char *option, const char *text, uint64_t *ns, struct error *err);

#endif
