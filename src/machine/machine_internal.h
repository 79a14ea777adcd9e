/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_MACHINE_INTERNAL_H
#define HANOK_MACHINE_MACHINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "machine/machine.h"

/* Shared by machine.c and cpu_thread.c only. machine.c tells how it works together. */

struct cpu_thread {
	struct machine *m;
	unsigned index;
	struct vcpu *v;
	pthread_t thread;
	bool started; /* to be joined; machine_run's thread */
	_Atomic uint64_t engine_ticks;

	/* What the thread looks at between instructions: the machine is paused or ends, or this
	 * vCPU is held. Written under the machine's lock. */
	atomic_bool hold;
	bool held; /* by machine_hold_cpu; under the lock */
};

struct machine {
	struct machine_config config;
	struct engine_config engine_config;
	struct mem *mem;
	struct bus *bus;
	struct storage *storage;
	struct nics *nics;
	struct board *board;
	struct ballooner *ballooner; /* NULL: no balloon */
	struct engine *engine;
	struct cpu_thread *cpus; /* config.cpus of them */
	unsigned hooks_nr;
	struct machine_hooks hooks[MACHINE_HOOKS_MAX];

	atomic_bool ending; /* set once, under the lock */

	/*
	 * Lock order: devices' locks, then this one, then the loop's. Guards what follows; changed
	 * tells that something here did change.
	 */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned live;	 /* vCPU threads that run or stand still */
	unsigned parked; /* of these, standing still */
	unsigned pauses;
	bool reset_wanted;	      /* its pause is counted in pauses */
	struct machine_result result; /* with `ending` */
};

/* The thread of one vCPU: opaque is its struct cpu_thread. */
void *cpu_thread_main(void *opaque);

#endif
