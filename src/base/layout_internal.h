/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_LAYOUT_INTERNAL_H
#define HANOK_BASE_LAYOUT_INTERNAL_H

#include "base/layout.h"

/* What runs on the new stack. */
struct layout_call {
	int (*fn)(int, char **);
	int argc;
	char **argv;
	struct layout_taken old; /* the initial stack */
	const char *env_end; /* where the environment's strings end on it; NULL: where they do */
};

/*
 * Makes a new stack in the slice, takes everything there that the kernel put on the initial one, and
 * makes that inaccessible while c->fn runs. *status is what it returned. Returns 0, or a negative errno
 * and *err if it could not be done; then nothing has changed and fn has not run.
 */
int layout_cross(const struct layout_call *c, int *status, struct error *err);

#endif
