/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine's life.
 *
 *   machine_run's thread: the event loop          one thread a vCPU (cpu_thread.c)
 *   ------------------------------------          --------------------------------
 *   timers, serial input, disks' and nets'        run -> exit -> bus, board -> run ...
 *   completions -> devices -> irq lines     --->  requests (cpu/engine.h) wake or interrupt it
 *   a reset: waits for all to stand still,
 *   board_reset, boot_load, set_state       <---  the guest asks for a reset: a post
 *   loop_stop ends it                       <---  power off, crash, ...: machine_stop
 *
 * A vCPU stands still ("parks") only between instructions: after EXIT_INTERRUPTED, HLT or a debug
 * exit. After any other exit its next run completes the instruction first, and the request KICK,
 * which is still set, brings it back at once. So a paused machine's state can be saved as it is.
 *
 * Whoever asks for something (a pause, a reset, the end) notes it under the lock, sets `hold` on
 * the threads, kicks them and returns; it works from a device's handler with the device's lock
 * held. Only machine_pause and the reset on the loop's thread wait.
 */
#include "machine/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cpu/state/cpuid.h"
#include "machine/machine_internal.h"

/* ---- parts ---- */

unsigned machine_cpus(const struct machine *m)
{
	return m->config.cpus;
}

struct vcpu *machine_vcpu(struct machine *m, unsigned cpu)
{
	return m->cpus[cpu].v;
}

struct mem *machine_mem(struct machine *m)
{
	return m->mem;
}

struct bus *machine_bus(struct machine *m)
{
	return m->bus;
}

struct nics *machine_nics(struct machine *m)
{
	return m->nics;
}

struct board *machine_board(struct machine *m)
{
	return m->board;
}

struct loop *machine_loop(struct machine *m)
{
	return m->config.loop;
}

struct storage *machine_storage(struct machine *m)
{
	return m->storage;
}

struct ballooner *machine_ballooner(struct machine *m)
{
	return m->ballooner;
}

uint64_t machine_engine_ticks(struct machine *m, unsigned cpu)
{
	return atomic_load_explicit(&m->cpus[cpu].engine_ticks, memory_order_relaxed);
}

int machine_add_hooks(struct machine *m, const struct machine_hooks *hooks)
{
	if (m->hooks_nr == MACHINE_HOOKS_MAX)
		return -ENOSPC;
	m->hooks[m->hooks_nr++] = *hooks;
	return 0;
}

static void tell_event(struct machine *m, enum machine_event event)
{
	for (unsigned i = 0; i < m->hooks_nr; i++)
		if (m->hooks[i].event)
			m->hooks[i].event(m->hooks[i].opaque, event);
}

/* ---- pausing and ending ---- */

/* With the lock held: tells the threads what has changed. */
static void update_holds(struct machine *m)
{
	for (unsigned i = 0; i < m->config.cpus; i++) {
		struct cpu_thread *c = &m->cpus[i];
		bool hold = m->ending || m->pauses || c->held;
		if (hold && !atomic_exchange(&c->hold, true))
			vcpu_request(c->v, VCPU_REQ_KICK);
		else if (!hold)
			atomic_store(&c->hold, false);
	}
	pthread_cond_broadcast(&m->changed);
}

/* With the lock held. False when the machine ends. */
static bool wait_parked(struct machine *m)
{
	while (!m->ending && m->parked < m->live)
		pthread_cond_wait(&m->changed, &m->lock);
	return !m->ending;
}

void machine_pause_async(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->pauses++;
	update_holds(m);
	pthread_mutex_unlock(&m->lock);
}

void machine_pause(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->pauses++;
	update_holds(m);
	wait_parked(m);
	pthread_mutex_unlock(&m->lock);
}

void machine_resume(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	if (m->pauses)
		m->pauses--;
	update_holds(m);
	pthread_mutex_unlock(&m->lock);
}

void machine_hold_cpu(struct machine *m, unsigned cpu, bool hold)
{
	pthread_mutex_lock(&m->lock);
	m->cpus[cpu].held = hold;
	update_holds(m);
	pthread_mutex_unlock(&m->lock);
}

static void end(struct machine *m, const struct machine_result *result)
{
	pthread_mutex_lock(&m->lock);
	if (!m->ending) {
		m->result = *result;
		atomic_store(&m->ending, true);
		update_holds(m);
	}
	pthread_mutex_unlock(&m->lock);
	loop_stop(m->config.loop);
}

void machine_stop(struct machine *m, enum machine_end how, const char *fmt, ...)
{
	struct machine_result result = {.end = how};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(result.why.text, sizeof(result.why.text), fmt, ap);
	va_end(ap);
	end(m, &result);
}

static void guest_power_off(void *opaque)
{
	machine_stop(opaque, MACHINE_POWERED_OFF, "the guest powered off");
}

static void guest_debug_exit(void *opaque, uint32_t value)
{
	struct machine_result result = {.end = MACHINE_DEBUG_EXIT, .debug_value = value};

	error_set(&result.why, 0, "the guest wrote 0x%" PRIx32 " to the debug exit port", value);
	end(opaque, &result);
}

/* ---- booting and resetting ---- */

/* Puts the vCPUs and guest memory into the state a boot starts from. vCPUs stand still. */
static int boot(struct machine *m, struct error *err)
{
	/* All TSCs count from now. */
	uint64_t tsc_offset = -clock_tsc();

	for (unsigned i = 0; i < m->config.cpus; i++) {
		struct vcpu *v = m->cpus[i].v;
		struct cpu_state s;
		cpu_state_reset(&s, i);
		cpu_state_memory_types(&s, MEM_LOW_MAX, MEM_HIGH_BASE - MEM_LOW_MAX);
		s.tsc_offset = tsc_offset;
		int r = i == 0 ? boot_load(&m->config.boot, m->mem, &s, err) : 0;
		if (r == 0)
			r = v->ops->set_state(v, &s, err);
		if (r < 0)
			return r;
		board_set_tsc_offset(m->board, i, tsc_offset);
	}
	return 0;
}

/* On the loop's thread. */
static void reset_now(void *opaque)
{
	struct machine *m = opaque;
	struct error err;

	pthread_mutex_lock(&m->lock);
	m->reset_wanted = false;
	bool go = wait_parked(m);
	pthread_mutex_unlock(&m->lock);
	if (!go)
		return;
	for (unsigned i = 0; i < m->config.cpus; i++)
		vcpu_unrequest(m->cpus[i].v, VCPU_REQ_NMI | VCPU_REQ_INIT | VCPU_REQ_SIPI);
	board_reset(m->board);
	if (boot(m, &err) < 0) {
		machine_stop(m, MACHINE_FAILED, "the guest rebooted: %s", err.text);
		return;
	}
	tell_event(m, MACHINE_EVENT_RESET);
	machine_resume(m);
}

void machine_reset(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	bool first = !m->reset_wanted && !m->ending;
	if (first) {
		m->reset_wanted = true;
		m->pauses++;
		update_holds(m);
	}
	pthread_mutex_unlock(&m->lock);
	if (first && loop_post(m->config.loop, reset_now, m) < 0)
		machine_stop(m, MACHINE_FAILED, "the guest's reset: out of memory");
}

static void guest_reset(void *opaque)
{
	struct machine *m = opaque;

	if (m->config.no_reboot)
		machine_stop(m, MACHINE_REBOOTED, "the guest rebooted");
	else
		machine_reset(m);
}

/* ---- making and unmaking ---- */

static int check_config(const struct machine_config *c, struct error *err)
{
	unsigned bits = cpuid_maxphyaddr();

	if (c->cpus < 1 || c->cpus > BOARD_CPUS_MAX)
		return error_set(err, -EINVAL, "%u CPUs: a machine has 1 to %d", c->cpus,
				 BOARD_CPUS_MAX);
	if (c->memory_bytes > (UINT64_C(1) << bits) - MEM_HIGH_BASE)
		return error_set(err, -EINVAL,
				 "%" PRIu64 " MiB of memory: CPUs with %u bits of physical address "
				 "reach less",
				 c->memory_bytes >> 20, bits);
	return 0;
}

static int create_board(struct machine *m, struct error *err)
{
	struct board_config config = {
		.mem = m->mem,
		.bus = m->bus,
		.loop = m->config.loop,
		.cpus = m->config.cpus,
		.tsc_hz = m->engine_config.tsc_hz,
		.phys_bits = cpuid_maxphyaddr(),
		.debug_exit_port = m->config.debug_exit_port,
		.balloon = m->config.balloon != BALLOON_NONE,
		.power_off = guest_power_off,
		.reset = guest_reset,
		.debug_exit = guest_debug_exit,
		.opaque = m,
	};

	config.controller = storage_controllers(m->storage, &config.controllers);
	config.nic = nics_cards(m->nics, &config.nics);
	memcpy(config.serial, m->config.serial, sizeof(config.serial));
	return board_create(&m->board, &config, err);
}

static int create_ballooner(struct machine *m, struct error *err)
{
	const struct ballooner_config config = {
		.mem = m->mem,
		.balloon = board_balloon(m->board),
		.loop = m->config.loop,
		.mode = m->config.balloon,
	};

	return config.balloon ? ballooner_create(&m->ballooner, &config, err) : 0;
}

static int create_cpus(struct machine *m, struct error *err)
{
	const struct engine_ops *ops = m->config.engine;
	int r = ops->create(&m->engine_config, &m->engine, err);

	for (unsigned i = 0; r == 0 && i < m->config.cpus; i++) {
		struct vcpu_board callbacks;
		board_vcpu_callbacks(m->board, i, &callbacks);
		r = ops->vcpu_create(m->engine, i, &callbacks, &m->cpus[i].v, err);
		if (r == 0)
			board_attach_vcpu(m->board, i, m->cpus[i].v);
	}
	return r;
}

static void memory_trouble(void *opaque, const char *text)
{
	(void)opaque;
	if (*text)
		log_warn("%s", text);
	else
		log_info("guest memory is in order again");
}

static int create_memory(struct machine *m, struct error *err)
{
	struct mem_config *c = &m->config.memory;
	/* KSM takes private memory only; under a limit no page stays where an engine would map it. */
	bool shared = m->config.engine->maps_ram && !c->share && !c->limit_bytes;
	int r = (shared ? mem_create_shared : mem_create)(&m->mem, m->config.memory_bytes, err);

	if (r < 0)
		return r;
	c->trouble = memory_trouble;
	c->opaque = m;
	return mem_start(m->mem, c, err);
}

static int create_parts(struct machine *m, struct error *err)
{
	int r = check_config(&m->config, err);

	if (r < 0)
		return r;
	r = create_memory(m, err);
	if (r < 0)
		return r;
	r = bus_create(&m->bus, err);
	if (r < 0)
		return r;
	m->engine_config.mem = m->mem;
	m->engine_config.cpus = m->config.cpus;
	m->engine_config.tsc_hz = clock_tsc_hz();
	m->engine_config.code_cache_bytes = m->config.code_cache_bytes;
	m->engine_config.perf_map = m->config.perf_map;
	r = storage_open(&m->storage, &m->config.storage, m->config.loop, err);
	if (r < 0)
		return r;
	r = nics_open(&m->nics, &m->config.nics, m->config.loop, err);
	if (r < 0)
		return r;
	r = create_board(m, err);
	if (r == 0)
		r = create_ballooner(m, err);
	if (r < 0)
		return r;
	r = create_cpus(m, err);
	if (r < 0)
		return r;
	return boot(m, err);
}

int machine_create(struct machine **out, const struct machine_config *config, struct error *err)
{
	struct machine *m = calloc(1, sizeof(*m));

	*out = NULL;
	if (!m)
		return error_set(err, -ENOMEM, "machine: out of memory");
	m->config = *config;
	m->config.boot.cpus = config->cpus;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	m->cpus = calloc(config->cpus ? config->cpus : 1, sizeof(*m->cpus));
	if (!m->cpus) {
		machine_destroy(m);
		return error_set(err, -ENOMEM, "machine: out of memory");
	}
	for (unsigned i = 0; i < config->cpus; i++) {
		m->cpus[i].m = m;
		m->cpus[i].index = i;
	}
	int r = create_parts(m, err);
	if (r < 0) {
		machine_destroy(m);
		return r;
	}
	*out = m;
	return 0;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	if (m->mem)
		mem_stop(m->mem);
	ballooner_destroy(m->ballooner);
	board_destroy(m->board);
	nics_close(m->nics);
	storage_close(m->storage);
	for (unsigned i = 0; m->cpus && i < m->config.cpus; i++)
		if (m->cpus[i].v)
			m->config.engine->vcpu_destroy(m->cpus[i].v);
	if (m->engine)
		m->config.engine->destroy(m->engine);
	if (m->bus)
		bus_destroy(m->bus);
	mem_destroy(m->mem);
	free(m->cpus);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* ---- running ---- */

static int start_thread(struct cpu_thread *c)
{
	char name[16];
	int r;

	pthread_mutex_lock(&c->m->lock);
	c->m->live++;
	pthread_mutex_unlock(&c->m->lock);
	r = pthread_create(&c->thread, NULL, cpu_thread_main, c);
	if (r) {
		pthread_mutex_lock(&c->m->lock);
		c->m->live--;
		pthread_mutex_unlock(&c->m->lock);
		return -r;
	}
	c->started = true;
	snprintf(name, sizeof(name), "vcpu %u", c->index);
	pthread_setname_np(c->thread, name);
	return 0;
}

/* Signals are for the loop's thread, but for those that a fault of the thread's own raises. */
static int start_threads(struct machine *m)
{
	sigset_t all, old;
	int r = 0;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGTRAP);
	sigdelset(&all, SIGABRT);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	for (unsigned i = 0; r == 0 && i < m->config.cpus; i++)
		r = start_thread(&m->cpus[i]);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

void machine_run(struct machine *m, struct machine_result *result)
{
	tell_event(m, MACHINE_EVENT_STARTED);
	int r = start_threads(m);
	if (r < 0)
		machine_stop(m, MACHINE_FAILED, "a thread for a vCPU: %s", strerror(-r));
	else
		loop_run(m->config.loop);
	/* A stop of the loop that did not come from here would leave the vCPUs running. */
	if (!atomic_load(&m->ending))
		machine_stop(m, MACHINE_FAILED, "the event loop ended by itself");
	for (unsigned i = 0; i < m->config.cpus; i++) {
		if (m->cpus[i].started)
			pthread_join(m->cpus[i].thread, NULL);
		m->cpus[i].started = false;
	}
	tell_event(m, MACHINE_EVENT_ENDED);
	*result = m->result;
}
