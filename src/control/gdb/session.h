/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_GDB_SESSION_H
#define HANOK_CONTROL_GDB_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/gdb/regs.h"
#include "cpu/engine.h"

/*
 * One debugger's conversation in gdb's remote serial protocol, all-stop, with vCPUs as threads
 * (vCPU n is thread n + 1). It knows the machine only by struct gdb_target, and nothing of
 * sockets. One thread.
 */
enum gdb_action { GDB_HOLD, GDB_CONTINUE, GDB_STEP };

/* What made a vCPU stop. */
enum gdb_stop_kind {
	GDB_STOP_ASKED, /* Ctrl-C */
	GDB_STOP_STEP,
	GDB_STOP_POINT, /* one of those set; gva is its address */
};
struct gdb_stop {
	unsigned cpu;
	enum gdb_stop_kind kind;
	uint64_t gva;
};

/*
 * What is debugged. Its vCPUs stand still except between resume and gdb_session_stopped; only stop
 * is called in between. 0 or -errno.
 */
struct gdb_target {
	unsigned cpus;
	enum gdb_arch arch;
	void (*get_cpu)(void *opaque, unsigned cpu, struct gdb_cpu *c);
	int (*set_cpu)(void *opaque, unsigned cpu, const struct gdb_cpu *c);
	bool (*halted)(void *opaque, unsigned cpu);
	/* Guest-virtual memory as that vCPU sees it: how many bytes went, or -EFAULT for none. */
	int (*read)(void *opaque, unsigned cpu, uint64_t gva, void *buf, size_t len);
	int (*write)(void *opaque, unsigned cpu, uint64_t gva, const void *buf, size_t len);
	/* On all vCPUs; at most VCPU_DEBUG_POINTS. */
	int (*set_points)(void *opaque, const struct vcpu_debug_point *points, unsigned count);
	void (*resume)(void *opaque, const enum gdb_action *actions);
	void (*stop)(void *opaque);
	/* A "monitor" command: the answer as text. */
	void (*monitor)(void *opaque, unsigned cpu, const char *command, char *out, size_t size);
	void (*kill)(void *opaque);
	/* Bytes for the debugger. */
	void (*send)(void *opaque, const void *bytes, size_t len);
	void *opaque;
};

struct gdb_session;

/* target outlives the session; its vCPUs stand still. -ENOMEM. */
int gdb_session_create(struct gdb_session **out, const struct gdb_target *target);
/* The target is not touched: its points and what it does stay. NULL is allowed. */
void gdb_session_destroy(struct gdb_session *s);

/* Bytes from the debugger. False when it has taken its leave: destroy the session. */
bool gdb_session_input(struct gdb_session *s, const uint8_t *bytes, size_t len);

/* The vCPUs stand still again, because of this. */
void gdb_session_stopped(struct gdb_session *s, const struct gdb_stop *stop);
/* The machine has ended. */
void gdb_session_exited(struct gdb_session *s);

#endif
