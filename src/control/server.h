/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_SERVER_H
#define HANOK_CONTROL_SERVER_H

#include <jansson.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "control/protocol.h"

/*
 * A control socket: whoever may open it (mode 0600: its owner) sends requests as lines of JSON and
 * gets a line of JSON for each; docs/CONTROL.md has all of them. The server knows lines, answers and
 * clients; what requests mean is its commands' business (control/commands.h).
 *
 * Everything runs on the loop's thread. Clients never hold it up: what one does not read is kept, up
 * to SERVER_BACKLOG_BYTES, and then it is dropped; when SERVER_CLIENTS_MAX are there the one that has
 * been idle longest makes room.
 */
struct control_server;

enum { SERVER_CLIENTS_MAX = 64, SERVER_BACKLOG_BYTES = 1 << 20 };

/* What a command returns. */
enum {
	COMMAND_DONE = 0, /* *answer (an object, or NULL for none) goes out with "ok": true */
	COMMAND_LATER =
		1, /* no answer now: the client is one of those that control_server_end tells */
	COMMAND_DEFERRED = 3, /* control_server_answer will answer; see there */
	COMMAND_TAKEN = 2,    /* *answer goes out, then `taken` gets the connection as a stream */
};

struct control_command {
	const char *name;
	/* One of the above, or -errno with *err: "ok": false. */
	int (*run)(void *opaque, const struct request *r, json_t **answer, struct error *err);
	/* COMMAND_TAKEN: fd is this function's now, data what came after the request. */
	void (*taken)(void *opaque, const struct request *r, int fd, const char *data, size_t len);
};

/*
 * Listens in the folder of control sockets (vm_runtime). commands is an array ended by a NULL name
 * and, with opaque, outlives the server. 0 or -errno with *err. The loop's thread, or before it runs.
 */
int control_server_create(struct control_server **out, struct loop *loop,
			  const struct control_command *commands, void *opaque, struct error *err);
/* The same for clients that the caller hands in, with no socket of its own. */
int control_server_create_unbound(struct control_server **out, struct loop *loop,
				  const struct control_command *commands, void *opaque,
				  struct error *err);
/* A connected client; fd is the server's. */
void control_server_add(struct control_server *s, int fd);

/*
 * For a command that takes its time on another thread: within run, control_server_defer names the
 * client, and run returns COMMAND_DEFERRED; no further request of this client is looked at until
 * control_server_answer, on the loop's thread, has its result: 0 with an object or NULL, taken over,
 * or -errno with err. A client that has gone meanwhile is no failure.
 */
uint64_t control_server_defer(struct control_server *s);
void control_server_answer(struct control_server *s, uint64_t client, int code, json_t *answer,
			   const struct error *err);

/* The socket's path; empty when unbound. */
const char *control_server_socket(const struct control_server *s);

/* The machine has ended: tells those who wait (COMMAND_LATER), answer being a new reference that is
 * taken over, and waits for slow readers a second at most. No one is served any more. */
void control_server_end(struct control_server *s, json_t *answer);

/* NULL is allowed. */
void control_server_destroy(struct control_server *s);

#endif
