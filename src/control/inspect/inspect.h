/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_INSPECT_INSPECT_H
#define HANOK_CONTROL_INSPECT_INSPECT_H

#include <jansson.h>
#include <stdint.h>

#include "base/error.h"
#include "control/protocol.h"
#include "machine/machine.h"

/*
 * The tables a machine offers to who wants to look into it: requests on its control socket that
 * take longer than its event loop may wait, for example because the guest's memory is searched. A thread of
 * its own answers them, one after another. docs/INSPECT.md shows what they are for, docs/CONTROL.md
 * what they say.
 */
struct inspect;

struct inspect_config {
	struct machine *machine; /* outlives the inspect */
	/* A request was answered: 0 with an object, taken over, or -errno with err. The loop's thread. */
	void (*over)(void *opaque, uint64_t client, int code, json_t *answer,
		     const struct error *err);
	void *opaque;
};

/* Before machine_run; cfg is copied. */
int inspect_create(struct inspect **out, const struct inspect_config *cfg, struct error *err);
/* After the machine has ended, before it is destroyed. Waits for the request that is being answered;
 * over() is not called any more. NULL is allowed. */
void inspect_destroy(struct inspect *i);

/* Name of the table with that number, NULL after the last. */
const char *inspect_table_name(unsigned n);

/* Has a request answered (r->what is a table's name); client is handed back to over(). 0 or
 * -ENOMEM, -EBUSY. The loop's thread. */
int inspect_ask(struct inspect *i, const struct request *r, uint64_t client, struct error *err);

#endif
