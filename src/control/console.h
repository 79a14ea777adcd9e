/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_CONSOLE_H
#define HANOK_CONTROL_CONSOLE_H

#include "machine/machine.h"

/*
 * A serial port with several people at it: what the guest prints is kept in a ring buffer and sent
 * to everyone who is attached; what they type goes to the guest. console.c tells how.
 */
struct console;

/*
 * next is what the port is plugged into besides (the terminal, a file), or NULL; it may hold the
 * guest's output back, those attached here never do. The loop outlives the console.
 */
int console_create(struct console **out, struct loop *loop, unsigned port,
		   const struct uart_backend *next, struct error *err);
/* After the machine is destroyed. NULL is allowed. */
void console_destroy(struct console *c);

/* For struct machine_config. */
struct uart_backend console_backend(struct console *c);
/* Before machine_run. */
void console_set_machine(struct console *c, struct machine *m);

/*
 * Attaches a connected stream socket, which becomes the console's also on failure: it gets up to
 * `replay` bytes of what was printed before, then what is printed from now on, until it is closed
 * from the other side. input (len bytes) is what arrived from it already. The loop's thread.
 * -ENOSPC: CONSOLE_CLIENTS_MAX are attached.
 */
enum { CONSOLE_CLIENTS_MAX = 32, CONSOLE_RING_BYTES = 256 * 1024 };
int console_attach(struct console *c, int fd, const void *input, size_t len, size_t replay);

/* How many are attached. The loop's thread. */
unsigned console_clients(const struct console *c);

/* The machine has ended: sends what is left, waiting for slow ones about a second at most, and
 * lets all go. */
void console_drain(struct console *c);

#endif
