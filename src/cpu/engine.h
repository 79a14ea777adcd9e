/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_ENGINE_H
#define HANOK_CPU_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cpu/state/cpu_state.h"
#include "exit/exit.h"
#include "mem/mem.h"

/*
 * The only seam between CPUs and the rest of the VMM. An engine makes the vCPUs of one VM and runs
 * each until an exit; what the exit means is machine/'s business. Each vCPU is run by one thread
 * of its own; everything said to be for any thread goes through `requests`.
 */
struct vcpu;
struct engine;

/*
 * What a vCPU is asked to notice between instructions. IRQ is a level: the local APIC holds a
 * deliverable interrupt; it is set and cleared by the board (vcpu_request, vcpu_unrequest). The
 * others are events, cleared by the engine as it takes them.
 */
enum {
	VCPU_REQ_IRQ = 1 << 0,
	VCPU_REQ_NMI = 1 << 1,
	VCPU_REQ_INIT = 1 << 2,
	VCPU_REQ_SIPI = 1 << 3,
	VCPU_REQ_KICK = 1 << 4,	  /* leave run() with EXIT_INTERRUPTED */
	VCPU_REQ_ENGINE = 1 << 5, /* the engine's own (e.g. TLB shootdown) */
	VCPU_REQ_MEM = 1 << 6,	  /* the memory manager's (struct mem_engine) */
};

/*
 * What an engine asks of the board in the middle of an instruction; called on the vCPU's thread.
 * KVM's in-kernel chips need none of it.
 */
struct vcpu_board {
	/* Takes the highest-priority deliverable interrupt into service and returns its vector, or
	 * -1 when there is none after all. */
	int (*irq_ack)(void *opaque);
	/* CR8: the task priority, 0 to 15. */
	uint8_t (*get_cr8)(void *opaque);
	void (*set_cr8)(void *opaque, uint8_t cr8);
	/* Level of the FERR# pin: an unmasked x87 error with CR0.NE clear (IRQ 13 of a PC). */
	void (*set_ferr)(void *opaque, bool level);
	void *opaque;
};

struct engine_config {
	struct mem *mem;
	unsigned cpus;
	uint64_t tsc_hz; /* of the guest's TSC, which is the host's plus an offset */
	/* Of translating engines: */
	uint64_t code_cache_bytes; /* at most for translated code; 0: the engine's choice */
	bool perf_map;		   /* name translated code for perf, in /tmp/perf-PID.map */
};

/* Outside debugging (gdb): exact gva of instructions and data, while set. */
enum { VCPU_DEBUG_POINTS = 32 };
struct vcpu_debug_point {
	uint64_t gva;
	uint64_t len; /* 0: an instruction breakpoint */
	bool on_read, on_write;
};
struct vcpu_debug {
	bool step; /* EXIT_DEBUG after each instruction; interrupts wait meanwhile */
	unsigned points;
	struct vcpu_debug_point point[VCPU_DEBUG_POINTS];
};

struct engine_ops {
	const char *name; /* as in --engine */
	bool maps_ram;	  /* it maps pages of RAM a second time, if that is a file's (mem_file) */

	/* 0 when this engine can run stock guests here; else -errno and why, with the mend. */
	int (*probe)(struct error *why);

	/* config and what it points to outlive the engine. */
	int (*create)(const struct engine_config *config, struct engine **out, struct error *err);
	void (*destroy)(struct engine *e);

	/* board is copied. index is the APIC id, 0 the boot processor. State is cpu_state_reset's. */
	int (*vcpu_create)(struct engine *e, unsigned index, const struct vcpu_board *board,
			   struct vcpu **out, struct error *err);
	void (*vcpu_destroy)(struct vcpu *v);

	/* Runs the guest until an exit; the vCPU's own thread. */
	void (*run)(struct vcpu *v, struct exit *exit);

	/* Between runs, with no exit half done (see vcpu_complete). */
	void (*get_state)(struct vcpu *v, struct cpu_state *out);
	int (*set_state)(struct vcpu *v, const struct cpu_state *in, struct error *err);
	int (*set_debug)(struct vcpu *v, const struct vcpu_debug *debug);
	/* Translates as the guest would at its current privilege, without side effects: 0 or
	 * -EFAULT. Between runs. */
	int (*translate)(struct vcpu *v, uint64_t gva, uint64_t *gpa);
};

/* An event that an engine delivers to its guest itself: an interrupt or an exception. */
struct cpu_event {
	enum event_kind kind;
	uint8_t vector;
	bool has_error;
	uint32_t error;
	uint64_t rip; /* of the instruction it is delivered at */
	uint64_t cr2; /* of page faults */
};

/* Who looks on, one vCPU's; the caller's, and stays there as long as the vCPU. */
struct vcpu_tracer {
	void (*fn)(void *opaque, struct vcpu *v, const struct cpu_event *event);
	void *opaque;
	struct vcpu_tracer *next; /* vcpu_add_tracer's */
};

/* The head of every engine's vCPU. */
struct vcpu {
	const struct engine_ops *ops;
	unsigned index;
	_Atomic uint32_t requests;
	_Atomic uint8_t sipi_vector;
	struct exit_stats stats;
	uint32_t poll_ns; /* vcpu_wait's: how long it looks before it sleeps */
	/* Called when a request comes in and the engine may have to be told at once (by a signal to its
	 * thread); NULL where polling `requests` is enough. */
	void (*poke)(struct vcpu *v);
	/* Onlookers, told of each event as it is delivered, on the vCPU's thread; set before the first
	 * run by vcpu_add_tracer. NULL: nobody looks. */
	struct vcpu_tracer *tracer;
};

/* Before the first run. */
void vcpu_add_tracer(struct vcpu *v, struct vcpu_tracer *tracer);
/* Tells all of them; for engines, where v->tracer is not NULL. */
void vcpu_tell_tracers(struct vcpu *v, const struct cpu_event *event);

/* Any thread. Requests also wake a vCPU that waits in vcpu_wait. */
void vcpu_request(struct vcpu *v, uint32_t bits);
void vcpu_unrequest(struct vcpu *v, uint32_t bits);
void vcpu_send_sipi(struct vcpu *v, uint8_t vector);

/* Waits until one of mask is requested; the vCPU's own thread. */
void vcpu_wait(struct vcpu *v, uint32_t mask);

/* The engines there are, best first, ended by NULL. */
extern const struct engine_ops *const engines[];

/* The engine of that name, or with "auto" the first whose probe succeeds; *reason gets a line that
 * says which was taken and why. NULL with err set when there is none. */
const struct engine_ops *engine_find(const char *name, struct error *reason, struct error *err);

#endif
