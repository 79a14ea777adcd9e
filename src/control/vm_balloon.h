/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_VM_BALLOON_H
#define HANOK_CONTROL_VM_BALLOON_H

#include "control/protocol.h"
#include "machine/machine.h"

/* The request `balloon` (docs/CONTROL.md): looks at a machine's balloon or sets its size, and asks the guest
 * for new figures. *answer is the caller's. 0 or -errno with *err. The loop's thread. */
int vm_balloon_request(struct machine *m, const struct request *r, json_t **answer,
		       struct error *err);

#endif
