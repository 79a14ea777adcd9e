/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_VM_LOG_H
#define HANOK_CONTROL_VM_LOG_H

#include "base/error.h"
#include "base/log.h"
#include "control/vm_folder.h"

/*
 * The log of a virtual machine's life, NAME.log in its folder: a line with time and level for each
 * thing that happened. Each start begins a new one; those before are NAME-0.log (the last), -1 and
 * -2. A log that grows too long within one life makes room the same way.
 */
struct vm_log;

enum { VM_LOG_BYTES_MAX = 4 << 20, VM_LOGS_KEPT = 3 };

/* Moves the old ones and begins a new one, mode 0600. The machine is locked (vm_lock). */
int vm_log_open(struct vm_log **out, const struct vm_folder *f, struct error *err);
/* Any thread. A line that cannot be written is lost. */
void vm_log_line(struct vm_log *l, enum log_level level, const char *line);
/* The file as a descriptor of the caller's own, for the standard error of a detached process. */
int vm_log_descriptor(struct vm_log *l);
/* NULL is allowed. */
void vm_log_close(struct vm_log *l);

#endif
