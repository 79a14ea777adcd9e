/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_SERIAL_INTERNAL_H
#define HANOK_APP_SERIAL_INTERNAL_H

#include <pthread.h>

#include "app/serial.h"

/* Shared by serial.c and the kinds of ends (serial_stdio.c, serial_listen.c). */

enum { SERIAL_PENDING_BYTES = 64 * 1024 };

/* A kind of end. Members may be NULL. All run on the loop's thread, or before it runs. */
struct serial_kind {
	const char *name; /* in --serial, with the colon if a path follows */
	/* Opens what path says. */
	int (*open)(struct serial *s, const char *path, struct error *err);
	/* The machine is there. */
	int (*start)(struct serial *s, struct error *err);
	/* Input arrived: moves what is for the guest to `to` and returns how much. */
	size_t (*filter)(struct serial *s, const uint8_t *from, size_t len, uint8_t *to);
	/* The other side has gone: error is 0 (end of file) or an errno. */
	void (*gone)(struct serial *s, int error);
	void (*close)(struct serial *s);
};

struct serial {
	const struct serial_kind *kind;
	struct loop *loop;
	struct machine *m;
	unsigned port;
	char *path;
	void (*on_stats)(struct machine *m);
	bool interactive;

	/* Input, the loop's thread. */
	int in_fd;
	struct loop_fd *in_watch;
	bool never_wait; /* keeps reading, and drops what does not fit: Ctrl-A must get through */
	bool escaped;	 /* Ctrl-A was the last key */
	uint8_t *pending;
	size_t pending_at, pending_len;

	/* Output: write runs on a vCPU's thread or the loop's. Lock order: the UART's lock, then
	 * this one. */
	pthread_mutex_t lock;
	int out_fd; /* -1: nobody there, output is lost */
	bool out_full, drain, drop_when_full, error_told, broken;
	struct loop_fd *out_watch; /* the loop's thread */

	/* Of listening kinds. */
	int listen_fd;
	struct loop_fd *listen_watch;
	struct timer poll_timer;
	bool poll_timer_ready;
};

/* Plugs descriptors in (they become the serial's) or out (closes them). Loop's thread. in may equal
 * out; -1 is none. */
int serial_plug(struct serial *s, int in, int out, struct error *err);
void serial_unplug(struct serial *s);

/* "COM1" */
const char *serial_name(const struct serial *s);

extern const struct serial_kind serial_stdio, serial_socket, serial_pty;

#endif
