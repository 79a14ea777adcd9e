/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_SERIAL_H
#define HANOK_APP_SERIAL_H

#include "machine/machine.h"

/*
 * What a serial port of the guest is plugged into on the host, named as in --serial:
 *   none          nothing
 *   stdio         standard input and output; keys after Ctrl-A are commands when it is a terminal
 *   file:PATH     output into a file
 *   socket:PATH   a UNIX socket that one client after another may connect to
 *   pty           a pseudo-terminal
 * serial.c tells how they work.
 */
struct serial;

/* port is 0 for COM1, 1 for COM2. The loop is the machine's and outlives the serial. On failure
 * *out is NULL; -EINVAL when spec is wrong in itself. */
int serial_create(struct serial **out, struct loop *loop, unsigned port, const char *spec,
		  struct error *err);
/* NULL is allowed. After the machine is destroyed, which may have had last words. */
void serial_destroy(struct serial *s);

/* For struct machine_config. */
struct uart_backend serial_backend(struct serial *s);

/* Input begins to flow. on_stats is called for Ctrl-A s. */
int serial_attach(struct serial *s, struct machine *m, void (*on_stats)(struct machine *m),
		  struct error *err);

/* The machine has ended: what comes from now on is written even if that means to wait, for about a
 * second at most. */
void serial_drain(struct serial *s);

/* Keys are commands: a person sits there. */
bool serial_is_interactive(const struct serial *s);

/* Asked to stop (SIGTSTP): puts the terminal back; and raw again after it went on (SIGCONT). */
void serial_suspend(struct serial *s);
void serial_continue(struct serial *s);

#endif
