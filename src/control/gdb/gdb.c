/* SPDX-License-Identifier: Apache-2.0 */
#include "control/gdb/gdb.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "control/gdb/gdb_internal.h"

/*
 * Theory of operation. Everything happens on the loop's thread but one thing: a vCPU that meets a
 * point or has made its step says so on its own thread (on_debug). It notes that in its slot, asks
 * the machine to pause, and posts the rest to the loop (settle): wait until all stand still, then
 * tell the session. Several vCPUs may stop at the same time; gdb hears of the first, and the other
 * slots are kept and told when it resumes, unless their point is gone by then.
 *
 *      resume()  ----> running ----> on_debug (vCPU thread) --post--+
 *         ^                \-------> stop() (Ctrl-C) ---------------+--> settle(): session told
 *         +--------------------------- gdb decides <----------------/
 */

/* ---- stopping and going on ---- */

static void set_running(struct gdb *g, bool running)
{
	pthread_mutex_lock(&g->lock);
	g->running = running;
	g->settling = false;
	pthread_mutex_unlock(&g->lock);
}

static bool is_settling(struct gdb *g)
{
	pthread_mutex_lock(&g->lock);
	bool settling = g->settling;
	pthread_mutex_unlock(&g->lock);
	return settling;
}

/* On the vCPU's thread. */
static void on_debug(void *opaque, unsigned cpu, const struct exit *exit)
{
	struct gdb *g = opaque;
	struct gdb_slot *slot = &g->slots[cpu];
	bool first;

	pthread_mutex_lock(&g->lock);
	slot->pending = true;
	slot->kind = exit->debug.kind == EXIT_DEBUG_STEP ? GDB_STOP_STEP : GDB_STOP_POINT;
	slot->gva = exit->debug.gva;
	first = g->running && !g->settling;
	if (first)
		g->settling = true;
	pthread_mutex_unlock(&g->lock);
	if (!first)
		return;
	machine_pause_async(g->machine);
	if (loop_post(machine_loop(g->machine), gdb_settle, g) < 0)
		machine_stop(g->machine, MACHINE_FAILED, "--gdb: out of memory");
}

static void ask_to_stop(void *opaque)
{
	struct gdb *g = opaque;
	bool first;

	pthread_mutex_lock(&g->lock);
	first = g->running && !g->settling;
	if (first)
		g->settling = true;
	pthread_mutex_unlock(&g->lock);
	if (first) {
		machine_pause_async(g->machine);
		gdb_settle(g);
	}
}

/* Is the point that a vCPU met still set? */
static bool still_matters(const struct gdb *g, const struct gdb_slot *slot)
{
	if (slot->kind != GDB_STOP_POINT)
		return false;
	for (unsigned n = 0; n < g->debug.points; n++)
		if (g->debug.point[n].gva == slot->gva)
			return true;
	return false;
}

/* The next stop to tell of; false when no vCPU has one. */
static bool take_pending(struct gdb *g, struct gdb_stop *stop)
{
	bool found = false;

	pthread_mutex_lock(&g->lock);
	for (unsigned n = 0; n < g->target.cpus && !found; n++) {
		struct gdb_slot *slot = &g->slots[n];
		if (slot->pending) {
			*stop = (struct gdb_stop){n, slot->kind, slot->gva};
			slot->pending = false;
			found = true;
		}
	}
	pthread_mutex_unlock(&g->lock);
	return found;
}

/* The pause that was asked for is under way: sees it through and tells the session. */
void gdb_settle(void *opaque)
{
	struct gdb *g = opaque;
	struct gdb_stop stop = {.kind = GDB_STOP_ASKED};

	if (!is_settling(g))
		return;		    /* seen to already */
	machine_pause(g->machine);  /* waits */
	machine_resume(g->machine); /* the pause asked for is left */
	for (unsigned n = 0; n < g->target.cpus; n++)
		machine_hold_cpu(g->machine, n, false);
	set_running(g, false);
	take_pending(g, &stop);
	if (g->session)
		gdb_session_stopped(g->session, &stop);
}

static int apply_debug(struct gdb *g, unsigned cpu, bool step)
{
	struct vcpu *v = machine_vcpu(g->machine, cpu);
	struct vcpu_debug d = g->debug;

	d.step = step;
	return v->ops->set_debug ? v->ops->set_debug(v, &d) : -ENOTSUP;
}

/* Slots that are stale are emptied; true when one is left, to be told of instead of running. */
static bool stop_already_due(struct gdb *g)
{
	bool due = false;

	pthread_mutex_lock(&g->lock);
	for (unsigned n = 0; n < g->target.cpus; n++) {
		struct gdb_slot *slot = &g->slots[n];
		slot->pending = slot->pending && still_matters(g, slot);
		due |= slot->pending;
	}
	pthread_mutex_unlock(&g->lock);
	return due;
}

static void tell_due_stop(void *opaque)
{
	struct gdb *g = opaque;
	struct gdb_stop stop;

	if (g->session && take_pending(g, &stop))
		gdb_session_stopped(g->session, &stop);
}

static void resume(void *opaque, const enum gdb_action *actions)
{
	struct gdb *g = opaque;

	if (g->session && stop_already_due(g)) {
		loop_post(machine_loop(g->machine), tell_due_stop, g);
		return;
	}
	for (unsigned n = 0; n < g->target.cpus; n++) {
		g->slots[n].pending = false;
		apply_debug(g, n, actions[n] == GDB_STEP);
		machine_hold_cpu(g->machine, n, actions[n] == GDB_HOLD);
	}
	set_running(g, true);
	machine_resume(g->machine);
}

static int set_points(void *opaque, const struct vcpu_debug_point *points, unsigned count)
{
	struct gdb *g = opaque;
	int r = 0;

	g->debug.points = count;
	if (count)
		memcpy(g->debug.point, points, count * sizeof(points[0]));
	for (unsigned n = 0; n < g->target.cpus && r == 0; n++)
		r = apply_debug(g, n, false);
	return r;
}

/* ---- the debugger ---- */

static void drop_out(struct gdb *g, size_t len)
{
	g->out_len -= len;
	memmove(g->out, g->out + len, g->out_len);
}

static void flush(struct gdb *g)
{
	while (g->out_len && g->client_fd >= 0) {
		ssize_t n = send(g->client_fd, g->out, g->out_len, MSG_NOSIGNAL);
		if (n > 0) {
			drop_out(g, (size_t)n);
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else {
			if (n < 0 && errno != EAGAIN)
				g->broken = true;
			break;
		}
	}
	if (g->client_watch)
		loop_fd_set_events(g->client_watch, POLLIN | (g->out_len ? POLLOUT : 0));
}

/* A debugger that does not read what it has asked for is sent away. */
static void send_bytes(void *opaque, const void *bytes, size_t len)
{
	struct gdb *g = opaque;

	if (len > sizeof(g->out) - g->out_len) {
		g->broken = true;
		return;
	}
	memcpy(g->out + g->out_len, bytes, len);
	g->out_len += len;
	flush(g);
}

/* Ends the connection; the machine goes on. */
static void disconnect(struct gdb *g)
{
	if (g->client_fd < 0)
		return;
	loop_fd_remove(g->client_watch);
	g->client_watch = NULL;
	close(g->client_fd);
	g->client_fd = -1;
	g->out_len = 0;
	gdb_session_destroy(g->session);
	g->session = NULL; /* nobody is told any more */
	g->physical = false;
	ask_to_stop(g);
	gdb_settle(g); /* when a vCPU was faster in asking */
	set_points(g, NULL, 0);
	resume(g, g->all_go);
	loop_fd_set_events(g->listen_watch, POLLIN);
	log_info("the debugger has gone; the machine goes on");
}

static void on_client(void *opaque, int fd, int events)
{
	struct gdb *g = opaque;
	uint8_t buf[4096];
	bool stay = true;

	if (events & POLLOUT)
		flush(g);
	if (events & POLLIN) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		if (n > 0)
			stay = gdb_session_input(g->session, buf, (size_t)n);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			stay = false;
	}
	if (!stay || g->broken)
		disconnect(g);
}

static void on_connect(void *opaque, int fd, int events)
{
	struct gdb *g = opaque;

	(void)events;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client < 0)
		return;
	g->broken = false;
	if (gdb_session_create(&g->session, &g->target) < 0 ||
	    loop_fd_add(machine_loop(g->machine), client, POLLIN, on_client, g, &g->client_watch) <
		    0) {
		log_error("--gdb %s: out of memory for a debugger", g->where);
		gdb_session_destroy(g->session);
		g->session = NULL;
		close(client);
		return;
	}
	g->client_fd = client;
	loop_fd_set_events(g->listen_watch, 0); /* the next one waits its turn */
	/* The session is not told: the debugger asks with ? why it stands still. No vCPU can be
	 * about to stop by itself, since no points are set. */
	if (g->running) {
		machine_pause(g->machine);
		set_running(g, false);
	}
	log_info("a debugger has connected; the machine stands still");
}

/* ---- the machine ---- */

static void on_event(void *opaque, enum machine_event event)
{
	struct gdb *g = opaque;

	if (event == MACHINE_EVENT_ENDED && g->session) {
		gdb_session_exited(g->session);
		flush(g);
	}
}

static void kill_machine(void *opaque)
{
	struct gdb *g = opaque;

	machine_stop(g->machine, MACHINE_QUIT, "the debugger ended the machine");
}

int gdb_create(struct gdb **out, struct machine *m, const char *where, struct error *err)
{
	struct gdb *g = calloc(1, sizeof(*g));
	struct machine_hooks hooks = {.debug = on_debug, .event = on_event, .opaque = g};
	bool wait = false;
	int r;

	*out = NULL;
	if (!g)
		return error_set(err, -ENOMEM, "--gdb %s: out of memory", where);
	g->machine = m;
	g->listen_fd = g->client_fd = -1;
	g->running = true;
	pthread_mutex_init(&g->lock, NULL);
	g->target = (struct gdb_target){
		.cpus = machine_cpus(m),
		.set_points = set_points,
		.resume = resume,
		.stop = ask_to_stop,
		.kill = kill_machine,
		.send = send_bytes,
		.opaque = g,
	};
	gdb_target_fill(&g->target);
	g->slots = calloc(g->target.cpus, sizeof(g->slots[0]));
	g->all_go = calloc(g->target.cpus, sizeof(g->all_go[0]));
	r = g->slots && g->all_go ? gdb_listen(g, where, &wait, err)
				  : error_set(err, -ENOMEM, "--gdb %s: out of memory", where);
	if (r == 0 &&
	    loop_fd_add(machine_loop(m), g->listen_fd, POLLIN, on_connect, g, &g->listen_watch) < 0)
		r = error_set(err, -ENOMEM, "--gdb %s: out of memory", where);
	if (r == 0 && machine_add_hooks(m, &hooks) < 0)
		r = error_set(err, -ENOSPC, "--gdb %s: too many look on already", where);
	if (r < 0) {
		gdb_destroy(g);
		return r;
	}
	for (unsigned n = 0; n < g->target.cpus; n++)
		g->all_go[n] = GDB_CONTINUE;
	if (wait) {
		machine_pause(m);
		set_running(g, false);
	}
	*out = g;
	return 0;
}

void gdb_destroy(struct gdb *g)
{
	if (!g)
		return;
	gdb_session_destroy(g->session);
	if (g->client_watch)
		loop_fd_remove(g->client_watch);
	if (g->listen_watch)
		loop_fd_remove(g->listen_watch);
	if (g->client_fd >= 0)
		close(g->client_fd);
	gdb_unlisten(g);
	free(g->slots);
	free(g->all_go);
	pthread_mutex_destroy(&g->lock);
	free(g);
}
