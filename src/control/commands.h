/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_COMMANDS_H
#define HANOK_CONTROL_COMMANDS_H

#include "control/console.h"
#include "control/vm_folder.h"
#include "machine/machine.h"

/*
 * One machine as it is steered and watched from outside: its control socket and what the requests
 * on it do. docs/CONTROL.md describes each. The loop's thread, as everything here.
 */
struct control;

struct control_config {
	struct machine *machine;
	struct console *console;	/* COM1's; NULL: `attach` is refused */
	const char *name;		/* these and what follows outlive the control */
	const char *vmx;		/* NULL: it has no folder */
	const struct vm_folder *folder; /* NULL with vmx */
	const struct storage_plan *storage;
};

/* Before machine_run; cfg is copied. Listens at once; -ENOSPC: too many look on already. */
int control_create(struct control **out, const struct control_config *cfg, struct error *err);

/* The path of its socket. */
const char *control_socket(const struct control *c);

/* The machine has ended: tells those who wait for it. Before machine_destroy. */
void control_end(struct control *c, const struct machine_result *result);

/* After control_end or instead of it. NULL is allowed. */
void control_destroy(struct control *c);

/* "powered-off" and so on, as `wait` tells it. */
const char *control_end_name(enum machine_end end);

#endif
