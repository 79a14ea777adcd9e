/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_INVENTORY_H
#define HANOK_CONTROL_INVENTORY_H

#include <jansson.h>
#include <sys/types.h>

/*
 * Which machines run: the control sockets in vm_runtime(), each asked for its status. Sockets that
 * nobody listens on any more are removed.
 */
struct inventory_entry {
	const char *socket; /* its path */
	pid_t pid;	    /* 0: not known */
	json_t *status; /* the answer of `status` (docs/CONTROL.md), or NULL: it gave none in time */
};

/* Calls fn for each; what it is given is gone when it returns. In the order of process ids. */
void inventory_each(void (*fn)(void *opaque, const struct inventory_entry *e), void *opaque);

#endif
