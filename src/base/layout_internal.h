/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_LAYOUT_INTERNAL_H
#define HANOK_BASE_LAYOUT_INTERNAL_H

#include "base/layout.h"

/* A line of /proc/self/maps. */
struct layout_mapping {
	struct layout_taken at;
	char access[5];	  /* "rw-p" */
	const char *name; /* "": none */
};

/* Returns 0, or a negative errno and *err. */
int layout_each_mapping(void (*each)(const struct layout_mapping *, void *), void *opaque,
			struct error *err);

/* Memory that has moved, [from, end), and how far. */
struct layout_move {
	uintptr_t from, end, delta;
};

bool layout_points_there(const struct layout_move *m, uintptr_t word);

/* Makes the words in [at, end) that point to where the memory was point to where it is. */
void layout_turn_words(const struct layout_move *m, uintptr_t at, uintptr_t end);

/* The same for the data of the program and its libraries, also where that is read-only by now. */
void layout_turn_objects(const struct layout_move *m);

/*
 * Moves the vdso, with the data that belongs to it, by delta, to where nothing may be mapped. argv is what
 * the kernel put on the stack, with the auxiliary vector after it. Called on the initial stack, by the only
 * thread. Without a vdso there is nothing to do. Returns 0, or a negative errno and *err.
 */
int layout_move_vdso(uintptr_t delta, char **argv, struct error *err);

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
