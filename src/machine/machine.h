/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_MACHINE_H
#define HANOK_MACHINE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "bus/bus.h"
#include "cpu/engine.h"
#include "dev/uart.h"
#include "machine/balloon.h"
#include "machine/board.h"
#include "machine/boot/boot.h"
#include "machine/nic.h"
#include "machine/storage.h"
#include "mem/mem.h"

/*
 * One virtual machine's life: create, boot, run with a thread a vCPU, pause, reset, end. machine.c
 * begins with how the threads work together.
 */
struct machine;

#define MEMORY_LIMIT_MIN (UINT64_C(4) << 20) /* the least struct mem_config's limit may be */

struct machine_config {
	struct loop *loop; /* the I/O thread's; outlives the machine */
	const struct engine_ops *engine;
	uint64_t memory_bytes; /* a multiple of 1 MiB */
	/* What of it may be in host memory; its trouble goes to the log. */
	struct mem_config memory;
	enum balloon_mode balloon;
	unsigned cpus; /* 1 to BOARD_CPUS_MAX */

	/* What to boot; .cpus is filled in here. Strings stay the caller's and outlive the machine:
	 * a reboot reads the files again. */
	struct boot_source boot;

	/* What COM1 and COM2 are plugged into; see dev/uart.h. */
	struct uart_backend serial[BOARD_SERIAL_PORTS];

	struct storage_plan storage; /* the paths of the disks stay the caller's */
	struct nic_plan nics;	     /* and so do its strings */

	uint16_t debug_exit_port; /* 0: none */
	bool no_reboot;		  /* a reset by the guest ends the machine */

	uint64_t code_cache_bytes; /* struct engine_config */
	bool perf_map;
};

/* How a machine ended. */
enum machine_end {
	MACHINE_POWERED_OFF, /* by the guest */
	MACHINE_REBOOTED,    /* by the guest, with no_reboot */
	MACHINE_CRASHED,     /* triple fault */
	MACHINE_DEBUG_EXIT,  /* the guest wrote `debug_value` to the debug exit port */
	MACHINE_TIMED_OUT,   /* machine_stop's callers: */
	MACHINE_QUIT,
	MACHINE_FAILED, /* the VMM could not go on */
};

struct machine_result {
	enum machine_end end;
	uint32_t debug_value;
	struct error why; /* one line */
};

/* Makes the machine and loads what it boots; nothing runs yet. config is copied, with what is said
 * above about strings. On failure *out is NULL. */
int machine_create(struct machine **out, const struct machine_config *config, struct error *err);
/* Not while it runs. NULL is allowed. */
void machine_destroy(struct machine *m);

/* Starts the vCPUs and runs the event loop on the calling thread until the machine ends. Once. */
void machine_run(struct machine *m, struct machine_result *result);

/* Ends the machine soon; the first reason given is the one that counts. Any thread. */
void machine_stop(struct machine *m, enum machine_end end, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Holds all vCPUs between instructions, no exit half done, so that their state may be read and
 * set; pauses nest, and each is ended by one machine_resume. machine_pause returns when they stand
 * still: any thread but a vCPU's. machine_pause_async asks for it and returns at once: any thread,
 * hooks included. Timers and other devices go on. Before machine_run: it will start paused.
 * The machine may end meanwhile; then vCPUs stand still for good.
 */
void machine_pause(struct machine *m);
void machine_pause_async(struct machine *m);
void machine_resume(struct machine *m);

/* Keeps one vCPU held when the others resume, until undone (a debugger's single step). While
 * paused. */
void machine_hold_cpu(struct machine *m, unsigned cpu, bool hold);

/* Resets the machine as if its reset button had been pressed: everything starts again from the
 * boot files, no_reboot or not. Any thread. */
void machine_reset(struct machine *m);

/* The machine's parts, its own. vCPUs: ops are called while paused, or in hooks on the vCPU's own
 * thread; stats may be read at any time. A guest's reset does not replace a vCPU. */
unsigned machine_cpus(const struct machine *m);
struct vcpu *machine_vcpu(struct machine *m, unsigned cpu);
struct mem *machine_mem(struct machine *m);
struct bus *machine_bus(struct machine *m);
struct board *machine_board(struct machine *m);
/* NULL: it has no network cards. */
struct nics *machine_nics(struct machine *m);
struct loop *machine_loop(struct machine *m);
struct storage *machine_storage(struct machine *m);
/* NULL: it has no balloon. */
struct ballooner *machine_ballooner(struct machine *m);
/* TSC ticks that the vCPU's thread has spent in the engine. */
uint64_t machine_engine_ticks(struct machine *m, unsigned cpu);

enum machine_event {
	MACHINE_EVENT_STARTED, /* machine_run begins; the loop's thread */
	MACHINE_EVENT_RESET,   /* after a reset, before vCPUs run again; the loop's thread */
	MACHINE_EVENT_ENDED,   /* vCPU threads have ended; machine_run's thread */
};

/*
 * Someone who looks on: traces, debuggers. Every member may be NULL.
 */
struct machine_hooks {
	/* After each exit was handled, on the vCPU's thread. device is the name of the bus range of
	 * a port or MMIO access (NULL: nothing there), ticks the handling's length in TSC ticks. */
	void (*exit)(void *opaque, unsigned cpu, const struct exit *exit, const char *device,
		     uint64_t ticks);
	/* EXIT_DEBUG, on the vCPU's thread: call machine_pause_async to have it stand still here.
	 * The vCPU's ops may be called. */
	void (*debug)(void *opaque, unsigned cpu, const struct exit *exit);
	void (*event)(void *opaque, enum machine_event event);
	void *opaque;
};

/* Adds an onlooker (copied), up to MACHINE_HOOKS_MAX; before machine_run. 0 or -ENOSPC. */
enum { MACHINE_HOOKS_MAX = 4 };
int machine_add_hooks(struct machine *m, const struct machine_hooks *hooks);

#endif
