/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a process that runs a machine: what it is made of, its signals, its end. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/nics.h"
#include "app/run.h"
#include "app/stats.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/log.h"

/* The one that runs: Ctrl-A s has no other way to know since when. */
static uint64_t started_ns;

/* ---- signals ---- */

static void stop_for_a_while(struct run *r)
{
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		if (r->serial[i])
			serial_suspend(r->serial[i]);
	kill(getpid(), SIGSTOP); /* here it stands until SIGCONT, which comes by the descriptor */
}

static void go_on(struct run *r)
{
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		if (r->serial[i])
			serial_continue(r->serial[i]);
}

/* On the loop's thread. */
static void signalled(void *opaque)
{
	const struct run_signal *s = opaque;
	struct run *r = s->run;

	if (s->number == SIGTSTP) {
		stop_for_a_while(r);
	} else if (s->number == SIGCONT) {
		go_on(r);
	} else {
		r->ended_by_signal = s->number;
		machine_stop(r->machine, MACHINE_QUIT, "ended by a signal: %s",
			     strsignal(s->number));
	}
}

/* A thread, for who polls a signalfd is woken up by each signal that any thread of the process gets, and a vCPU
 * gets thousands a second of its own (cpu/bt/window.c). */
static void *wait_for_signals(void *opaque)
{
	struct run *r = opaque;

	for (;;) {
		int number = 0;
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		sigwait(&r->signals, &number);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL); /* not with the loop's lock */
		for (unsigned i = 0; i < RUN_SIGNALS; i++)
			if (r->signal[i].number == number)
				loop_post(r->loop, signalled, &r->signal[i]);
	}
	return NULL;
}

static int watch_signals(struct run *r, struct error *err)
{
	static const int numbers[RUN_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT};

	sigemptyset(&r->signals);
	for (unsigned i = 0; i < RUN_SIGNALS; i++) {
		struct sigaction old;
		/* What we were started to ignore (nohup) stays ignored. */
		if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaddset(&r->signals, numbers[i]);
		r->signal[i] = (struct run_signal){r, numbers[i]};
	}
	sigprocmask(SIG_BLOCK, &r->signals, NULL);
	const int code = pthread_create(&r->signal_thread, NULL, wait_for_signals, r);
	if (code)
		return error_set(err, -code, "a thread that waits for signals: %s", strerror(code));
	pthread_setname_np(r->signal_thread, "signals");
	r->watches_signals = true;
	return 0;
}

static void stop_watching_signals(struct run *r)
{
	if (!r->watches_signals)
		return;
	pthread_cancel(r->signal_thread); /* in sigwait(), at the latest */
	pthread_join(r->signal_thread, NULL);
	r->watches_signals = false;
}

/* ---- making, running, ending ---- */

static void time_is_up(void *opaque)
{
	struct run *r = opaque;

	machine_stop(r->machine, MACHINE_TIMED_OUT, "the guest did not end within %g s",
		     (double)r->timeout_ns / 1e9);
}

/* In the middle of a run, on the loop's thread. */
static void show_stats(struct machine *m)
{
	machine_pause(m); /* so that the numbers belong together */
	stats_print(m, clock_ns() - started_ns);
	machine_resume(m);
}

static void log_line(void *opaque, enum log_level level, const char *line)
{
	struct run *r = opaque;

	if (r->log)
		vm_log_line(r->log, level, line);
	if (level <= LOG_WARN && r->report_fd < 0)
		terminal_say("%s", line);
}

static bool is_engine(const char *name)
{
	for (unsigned i = 0; engines[i]; i++)
		if (!strcmp(name, engines[i]->name))
			return true;
	return !strcmp(name, "auto");
}

static int plug_serial(struct run *r, struct error *err)
{
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++) {
		if (!r->serial_spec[i])
			continue;
		int code = serial_create(&r->serial[i], r->loop, i, r->serial_spec[i], err);
		if (code < 0)
			return code;
		r->config.serial[i] = serial_backend(r->serial[i]);
	}
	return r->vm_word ? run_vm_plug_console(r, err) : 0;
}

/* ---- the pool ---- */

static int check_reservation(const struct run *r, struct error *err)
{
	uint64_t limit = r->config.memory.limit_bytes, most = r->config.memory_bytes;

	if (limit && limit < most)
		most = limit;
	if (r->memory_min <= most)
		return 0;
	return error_set(err, -EINVAL,
			 "a reservation of %" PRIu64
			 " MiB (--memory-min, sched.mem.min) is more than "
			 "the %" PRIu64 " MiB that the machine %s; make it smaller",
			 r->memory_min >> 20, most >> 20, most == limit ? "may have" : "has");
}

/* A machine runs without, too: where it has no place for such a file, that is not worth a line. */
static void join_pool(struct run *r)
{
	const char *kernel = r->config.boot.kernel_path, *slash = strrchr(kernel, '/');
	const struct pool_config c = {
		.mem = machine_mem(r->machine),
		.loop = r->loop,
		.name = r->vm_word ? r->vm.name
			: slash	   ? slash + 1
				   : kernel,
		.limit_bytes = r->config.memory.limit_bytes,
		.min_bytes = r->memory_min,
		.shares = mem_shares_of(&r->memory_shares, r->config.memory_bytes),
	};
	struct error err = {""};

	int code = pool_join(&r->pool, &c, &err);
	if (code < 0 &&
	    (code == -EINVAL || code == -ENOSPC || r->memory_min || r->memory_shares.count))
		log_warn("it is in no memory pool: %s", err.text);
	else if (code < 0)
		log_info("it is in no memory pool: %s", err.text);
}

/* STATUS_OK, or another with *err. */
static int set_up(struct run *r, struct error *err)
{
	struct error reason = {0};
	int code;

	if (r->vm_word && run_vm_open(r, err) < 0)
		return STATUS_FAILED;
	if (check_reservation(r, err) < 0)
		return STATUS_USAGE;
	if (!r->engine)
		r->engine = "auto";
	r->config.engine = engine_find(r->engine, &reason, err);
	if (!r->config.engine)
		return is_engine(r->engine) ? STATUS_FAILED : STATUS_USAGE;
	log_info("%s", reason.text);
	if (loop_create(&r->loop, err) < 0)
		return STATUS_FAILED;
	r->config.loop = r->loop;
	timer_init(&r->timeout, r->loop, time_is_up, r);
	code = plug_serial(r, err);
	if (code < 0)
		return code == -EINVAL ? STATUS_USAGE : STATUS_FAILED;
	r->config.nics.owner = r->vm_word ? r->vm.name : NULL;
	if (nics_find_networks(&r->config.nics, r->nic_sockets, err) < 0)
		return STATUS_FAILED;
	if (machine_create(&r->machine, &r->config, err) < 0 || watch_signals(r, err) < 0)
		return STATUS_FAILED;
	join_pool(r);
	if (r->vm_word && run_vm_listen(r, err) < 0)
		return STATUS_FAILED;
	if (r->report_fd >= 0 && run_report_start(r) < 0)
		return error_set(err, STATUS_FAILED, "start: too many look on already");
	if (isatty(STDERR_FILENO))
		terminal_say("%s", reason.text);
	return STATUS_OK;
}

static int attach(struct run *r, struct error *err)
{
	int code = 0;

	if (r->trace_path) {
		code = trace_open(&r->trace, r->trace_path, err);
		if (code == 0)
			code = trace_attach(r->trace, r->machine, err);
	}
	if (code == 0 && r->gdb_where)
		code = gdb_create(&r->gdb, r->machine, r->gdb_where, err);
	if (code < 0)
		return code;
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++) {
		if (!r->serial[i])
			continue;
		code = serial_attach(r->serial[i], r->machine, show_stats, err);
		if (code < 0)
			return code;
		if (serial_is_interactive(r->serial[i]) && isatty(STDERR_FILENO))
			terminal_say("Ctrl-A x ends the guest, Ctrl-A h helps");
	}
	return 0;
}

static int status_of(const struct machine_result *result)
{
	switch (result->end) {
	case MACHINE_POWERED_OFF:
	case MACHINE_REBOOTED:
	case MACHINE_QUIT:
		return STATUS_OK;
	case MACHINE_CRASHED:
		return STATUS_CRASHED;
	case MACHINE_DEBUG_EXIT:
		return (int)((result->debug_value << 1 | 1) & 0xff);
	case MACHINE_TIMED_OUT:
		return STATUS_TIMED_OUT;
	case MACHINE_FAILED:
		break;
	}
	return STATUS_FAILED;
}

/* Says how it ended: always when something is wrong or from outside, else to a person only. */
static void say_end(const struct run *r, const struct machine_result *result)
{
	bool as_wanted = !r->ended_by_signal &&
			 (result->end == MACHINE_DEBUG_EXIT || status_of(result) == STATUS_OK);

	if (!as_wanted || isatty(STDERR_FILENO))
		terminal_say("%s", result->why.text);
}

static int run_machine(struct run *r, struct error *err)
{
	struct machine_result result;

	int code = attach(r, err);
	if (code < 0)
		return code == -EINVAL ? STATUS_USAGE : STATUS_FAILED;
	started_ns = clock_ns();
	if (r->timeout_ns)
		timer_arm(&r->timeout, started_ns + r->timeout_ns);
	machine_run(r->machine, &result);
	uint64_t wall_ns = clock_ns() - started_ns;
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		serial_drain(r->serial[i]);
	if (r->vm_word)
		run_vm_ended(r, &result);
	terminal_restore();
	say_end(r, &result);
	if (r->stats)
		stats_print(r->machine, wall_ns);
	return status_of(&result);
}

static void tear_down(struct run *r)
{
	gdb_destroy(r->gdb);
	trace_close(r->trace);
	if (r->control)
		control_destroy(r->control);
	pool_leave(r->pool);
	machine_destroy(r->machine);
	console_destroy(r->console);
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		serial_destroy(r->serial[i]);
	if (r->loop)
		timer_destroy(&r->timeout);
	stop_watching_signals(r);
	loop_destroy(r->loop);
	for (unsigned i = 0; i < NICS_MAX; i++)
		free(r->nic_sockets[i]);
	if (r->vm_word)
		run_vm_close(r);
}

void run_end_by_signal(const struct run *r)
{
	sigset_t set;

	if (!r->ended_by_signal)
		return;
	signal(r->ended_by_signal, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, r->ended_by_signal);
	raise(r->ended_by_signal);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int run_to_end(struct run *r, struct error *err)
{
	log_set_sink(log_line, r);
	int status = set_up(r, err);
	if (status == STATUS_OK) {
		err->text[0] = 0;
		status = run_machine(r, err);
	}
	if (err->text[0])
		log_info("failed: %s", err->text);
	tear_down(r);
	return status;
}
