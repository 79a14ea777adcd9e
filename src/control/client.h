/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_CLIENT_H
#define HANOK_CONTROL_CLIENT_H

#include <jansson.h>
#include <stddef.h>

#include "base/error.h"

/*
 * The asking side of a control socket (docs/CONTROL.md). One thread at a time.
 */
struct control_client;

/* -ENOENT or -ECONNREFUSED: nobody listens there. */
int control_connect(struct control_client **out, const char *socket, struct error *err);
/* NULL is allowed. */
void control_close(struct control_client *c);

/* The two halves of control_ask, for who has something to do while it waits: after -ETIMEDOUT,
 * control_receive may be called again. Errors as there. */
int control_send(struct control_client *c, json_t *request, struct error *err);
int control_receive(struct control_client *c, json_t **answer, int timeout_ms, struct error *err);

/*
 * Sends a request, which it takes over, and waits for the answer; *answer (may be NULL) is then the
 * caller's. timeout_ms < 0 waits for ever. 0; -ETIMEDOUT; -EPIPE: the machine is gone; -EREMOTEIO:
 * it refused, and *err has its reason.
 */
int control_ask(struct control_client *c, json_t *request, json_t **answer, int timeout_ms,
		struct error *err);

/* After `attach`: the descriptor, now the caller's, and what came after the answer, the caller's to
 * free. The client can only be closed. */
int control_take_stream(struct control_client *c, char **early, size_t *len);

#endif
