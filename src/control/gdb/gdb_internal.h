/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_GDB_GDB_INTERNAL_H
#define HANOK_CONTROL_GDB_GDB_INTERNAL_H

#include <pthread.h>

#include "control/gdb/gdb.h"
#include "control/gdb/session.h"

/* Shared by gdb.c, which says how it works, gdb_listen.c and gdb_target.c. */

/* Why a vCPU has stopped, until the debugger has been told. */
struct gdb_slot {
	bool pending;
	enum gdb_stop_kind kind;
	uint64_t gva;
};

struct gdb {
	struct machine *machine;
	char where[128];       /* for messages */
	char unlink_path[108]; /* the UNIX socket's, ours to remove; "" for none */
	int listen_fd, client_fd;
	struct loop_fd *listen_watch, *client_watch;
	struct gdb_target target;
	struct gdb_session *session; /* of the client */
	struct vcpu_debug debug;     /* the points that are set */
	enum gdb_action *all_go;
	bool physical; /* memory addresses are guest-physical ("monitor physical on") */
	bool broken;   /* the client must go */
	size_t out_len;
	uint8_t out[1 << 18];

	pthread_mutex_t lock; /* guards what follows against on_debug */
	bool running;
	bool settling; /* a pause was asked for and gdb_settle is to come */
	struct gdb_slot *slots;
};

void gdb_settle(void *opaque);

/* Reads --gdb's WHERE and listens there (gdb_listen.c). */
int gdb_listen(struct gdb *g, const char *where, bool *wait, struct error *err);
void gdb_unlisten(struct gdb *g);

/* The members of the target that look at the machine while it stands still (gdb_target.c). */
void gdb_target_fill(struct gdb_target *t);

#endif
