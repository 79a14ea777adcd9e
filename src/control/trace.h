/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_TRACE_H
#define HANOK_CONTROL_TRACE_H

#include "base/error.h"
#include "machine/machine.h"

/*
 * The trace file: a line of text for each exit, interrupt and exception of a machine, as it
 * happens:
 *
 *     seconds  cpu  what  rip  details
 *     0.002513  0  pio-out     fff0c1d2  port 0x3f8 size 1 data 0x41 uart 2.1us
 *     0.002530  0  page-fault  ffffffff81023456  error 0x2 address 0xffffc90000000000
 *
 * Times count from trace_attach. Lines of all vCPUs come in the order of their times. A machine
 * without one pays nothing but a test of a pointer at each event.
 */
struct trace;

/* Makes or empties the file. */
int trace_open(struct trace **out, const char *path, struct error *err);

/* Has the machine's events written; before machine_run, once. */
int trace_attach(struct trace *t, struct machine *m, struct error *err);

/* Writes what is left. After machine_run; before or after machine_destroy. NULL is allowed. */
void trace_close(struct trace *t);

#endif
