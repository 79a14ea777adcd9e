/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_RUN_H
#define HANOK_APP_RUN_H

#include <pthread.h>
#include <signal.h>

#include "app/serial.h"
#include "control/commands.h"
#include "control/gdb/gdb.h"
#include "control/pool.h"
#include "control/trace.h"
#include "control/vm_folder.h"
#include "control/vm_log.h"
#include "machine/machine.h"
#include "machine/vm_config.h"
#include "mem/entitle.h"

enum { RUN_SIGNALS = 5 };

/*
 * A process that runs one machine: from a command line (run.c), from a .vmx (run_vm.c) or both,
 * in the foreground or detached (start.c). run_machine.c has its life.
 */
struct run {
	/* What is asked for. In config, memory_bytes and cpus are 0 and serial_spec is NULL until
	 * somebody says. */
	struct machine_config config;
	const char *engine;   /* NULL: auto */
	bool balloon_said;    /* --balloon */
	const char *swap_dir; /* "none": no swap file */
	const char *serial_spec[BOARD_SERIAL_PORTS];
	uint64_t memory_min;		 /* bytes; 0: none */
	struct mem_shares memory_shares; /* of the pool */
	uint64_t timeout_ns;		 /* 0: none */
	bool stats;
	const char *gdb_where, *trace_path; /* NULL: none */
	const char *vm_word;		    /* which VM; NULL: a machine without a folder */
	int report_fd; /* detached: a pipe to who waits for it to run (start.c); else -1 */

	/* With vm_word. */
	struct vm_folder folder;
	struct vm_config vm;
	int lock_fd;
	struct vm_log *log;
	struct console *console;
	struct control *control;

	char *nic_sockets[NICS_MAX]; /* of the networks that cards are plugged into */

	struct loop *loop;
	struct serial *serial[BOARD_SERIAL_PORTS];
	struct machine *machine;
	struct pool *pool; /* NULL: it is in none */
	struct gdb *gdb;
	struct trace *trace;
	struct timer timeout;
	struct run_signal {
		struct run *run;
		int number;
	} signal[RUN_SIGNALS];
	sigset_t signals; /* of these, what the thread waits for */
	pthread_t signal_thread;
	bool watches_signals;
	int ended_by_signal;
};

/* run.c: the options of `run` and `start`, `needs_vm` as they differ. 0, 1: --help was asked for;
 * or -errno with *err. */
void run_init(struct run *r);
int run_parse(struct run *r, int argc, char **argv, bool needs_vm, struct error *err);

/* run_machine.c: makes the machine, runs it to its end and takes it down; the exit status, with
 * *err telling of a failure that was not told yet (or empty). */
int run_to_end(struct run *r, struct error *err);
/* Ends as the signal would have ended us, if one did, so that whoever started us sees it. */
void run_end_by_signal(const struct run *r);

/* start.c: has the waiting parent told when the machine runs. 0 or -errno. */
int run_report_start(struct run *r);

/* run_vm.c: the parts of a machine with a folder, in the order of its life. 0 or -errno. */
int run_vm_open(struct run *r, struct error *err);	   /* finds, locks, reads; begins its log */
int run_vm_plug_console(struct run *r, struct error *err); /* before the machine is made */
int run_vm_listen(struct run *r, struct error *err);	   /* the machine is there */
void run_vm_ended(struct run *r, const struct machine_result *result);
void run_vm_close(struct run *r);

#endif
