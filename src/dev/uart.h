/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_UART_H
#define HANOK_DEV_UART_H

#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "dev/dev.h"

/* A 16550A serial port (National Semiconductor PC16550D datasheet). */
struct uart;

/*
 * The other end of the cable. Any member may be NULL. Called with the port's lock held, on a
 * vCPU's thread or the loop's: do not call the port from within.
 */
struct uart_backend {
	/* Output, gathered: a buffer-full, or what there is some 2 ms after its first byte.
	 * Returns how many bytes were taken; after fewer than len, uart_writable says when to go
	 * on (until then output waits, and with a full buffer the transmitter stays busy). */
	size_t (*write)(void *opaque, const uint8_t *data, size_t len);
	/* There is room for input again after uart_receive took fewer bytes than it was given. */
	void (*input_room)(void *opaque);
	/* The guest set (true) or cleared LCR.6, the break condition. */
	void (*set_break)(void *opaque, bool on);
	void *opaque;
};

struct uart_config {
	struct bus *bus;
	struct loop *loop;
	uint16_t port;
	struct irq_line irq;
	struct uart_backend backend;
};

extern const struct dev_ops uart_ops;

/* cfg is copied. */
int uart_create(struct uart **out, const struct uart_config *cfg, struct error *err);

/* Input for the guest: returns how many bytes were taken. Any thread. */
size_t uart_receive(struct uart *u, const uint8_t *data, size_t len);
/* A break condition on the line (a person's break key). Any thread. */
void uart_receive_break(struct uart *u);
/* The backend can take output again. Any thread. */
void uart_writable(struct uart *u);
/* Hands gathered output to the backend now. Any thread. */
void uart_flush(struct uart *u);

#endif
