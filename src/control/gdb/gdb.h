/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_GDB_GDB_H
#define HANOK_CONTROL_GDB_GDB_H

#include "base/error.h"
#include "machine/machine.h"

/*
 * A machine's door for gdb: `hanok run --gdb WHERE`, then in gdb `target remote WHERE`.
 *
 *     WHERE is :PORT (on the loopback interface) or the path of a UNIX socket, and after commas
 *     wait: the machine stands still before its first instruction until a debugger lets it go
 *     i386: registers of 32-bit code, for guests that never leave it (otherwise x86-64's)
 *
 * vCPUs are threads. A debugger that connects stops the machine; when it detaches or its
 * connection ends, the machine goes on. One at a time.
 */
struct gdb;

/* Listens and has the machine watched; before machine_run. err names --gdb. */
int gdb_create(struct gdb **out, struct machine *m, const char *where, struct error *err);

/* After machine_run, before machine_destroy. NULL is allowed. */
void gdb_destroy(struct gdb *g);

#endif
