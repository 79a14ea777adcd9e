/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the requests on a control socket do. One function each, listed in commands[]; they run on the
 * loop's thread, so two never run at once.
 */
#include "control/commands.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/inspect/inspect.h"
#include "control/nic_json.h"
#include "control/page_recorder.h"
#include "control/server.h"
#include "control/snapshot_job.h"
#include "control/vm_balloon.h"
#include "control/vm_snapshot.h"

struct control {
	struct control_config cfg;
	struct control_server *server;
	struct control_command *commands; /* those below and the tables of inspect */
	struct inspect *inspect;
	uint64_t started_ns;
	unsigned resets;
	bool running, paused;
	struct snapshot_job *job; /* NULL: none was taken yet */
	bool job_runs;
	uint64_t job_client;
	struct page_recorder *recorder; /* NULL: none was started yet */
	bool recorder_runs;
	uint64_t recorder_client;
};

/* ---- looking ---- */

static double cpu_seconds(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static json_t *equal_bytes(struct machine *m)
{
	struct mem_stats s;

	mem_get_stats(machine_mem(m), &s, false);
	return json_integer((json_int_t)(s.ksm_pages << MEM_PAGE_SHIFT));
}

static int do_status(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;
	struct machine *m = c->cfg.machine;
	double uptime = c->running ? (double)(clock_ns() - c->started_ns) / 1e9 : 0;

	(void)r;
	*answer = json_pack("{s:s, s:s, s:s*, s:i, s:s, s:f, s:f, s:s, s:i, s:I, s:I, s:i, s:i}",
			    "version", HANOK_VERSION, "name", c->cfg.name, "vmx", c->cfg.vmx, "pid",
			    (int)getpid(), "state",
			    !c->running ? "starting"
			    : c->paused ? "paused"
					: "running",
			    "uptime_s", uptime, "cpu_s", cpu_seconds(), "engine",
			    machine_vcpu(m, 0)->ops->name, "cpus", (int)machine_cpus(m),
			    "memory_bytes", (json_int_t)mem_ram_bytes(machine_mem(m)),
			    "memory_resident_bytes", (json_int_t)mem_resident_bytes(machine_mem(m)),
			    "resets", (int)c->resets, "consoles",
			    c->cfg.console ? (int)console_clients(c->cfg.console) : 0);
	if (*answer)
		json_object_set_new(*answer, "memory_equal_bytes", equal_bytes(m));
	return *answer ? 0 : error_set(err, -ENOMEM, "status: out of memory");
}

static int do_exits(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;
	struct machine *m = c->cfg.machine;
	double tick_ns = 1e9 / (double)clock_tsc_hz();
	json_t *cpus = json_array();
	int bad = 0;

	(void)r;
	for (unsigned n = 0; n < machine_cpus(m); n++) {
		struct exit_stats now, *s = &now;
		exit_stats_look(&machine_vcpu(m, n)->stats, s);
		json_t *causes = json_object();
		for (int i = 0; i < EXIT_NR; i++) {
			if (!s->count[i])
				continue;
			json_t *cause = json_pack("{s:I, s:I}", "count", (json_int_t)s->count[i],
						  "ns",
						  (json_int_t)((double)s->ticks[i] * tick_ns));
			bad |= json_object_set_new(causes, exit_cause_name(i), cause);
		}
		bad |= json_array_append_new(
			cpus, json_pack("{s:i, s:I, s:I, s:o}", "cpu", (int)n, "instructions",
					(json_int_t)s->instructions, "engine_ns",
					(json_int_t)((double)machine_engine_ticks(m, n) * tick_ns),
					"exits", causes));
	}
	*answer = json_pack("{s:o}", "cpus", cpus);
	if (!bad && *answer)
		return 0;
	json_decref(*answer);
	*answer = NULL;
	return error_set(err, -ENOMEM, "exits: out of memory");
}

/* ---- disks ---- */

static const char *const op_names[DISK_OPS] = {
	[DISK_READ] = "read",
	[DISK_WRITE] = "write",
	[DISK_FLUSH] = "flush",
	[DISK_DISCARD] = "discard",
	[DISK_WRITE_ZEROES] = "write_zeroes",
};

static json_t *describe_ops(const struct disk_stats *s)
{
	json_t *all = json_object();

	for (unsigned op = 0; op < DISK_OPS; op++) {
		json_t *latency = json_array();
		for (unsigned i = 0; i < DISK_LATENCY_CLASSES; i++)
			json_array_append_new(latency, json_integer((json_int_t)s->latency[op][i]));
		json_object_set_new(
			all, op_names[op],
			json_pack("{s:I, s:I, s:I, s:o}", "requests", (json_int_t)s->requests[op],
				  "bytes", (json_int_t)s->bytes[op], "errors",
				  (json_int_t)s->errors[op], "latency_us_log2", latency));
	}
	return all;
}

static json_t *describe_drive(struct control *c, const struct storage_drive *d)
{
	struct disk *disk = vm_disk(c->cfg.machine, d);
	json_t *all = json_pack("{s:s, s:i, s:i, s:b, s:s*}", "controller",
				c->cfg.storage->controller[d->controller]->name, "index",
				(int)d->controller, "target", (int)d->target, "cdrom", d->cdrom,
				"file", d->path);
	struct disk_stats stats;
	struct disk_link top;
	struct disk_info info;

	if (!all || !disk)
		return all;
	disk_get_info(disk, &info);
	disk_get_stats(disk, &stats);
	/* A snapshot has put another image on the one that it was started with. */
	if (disk_chain(disk, 0, &top) == 0)
		json_object_set_new(all, "file", json_string(top.path));
	json_t *more = json_pack("{s:I, s:I, s:s, s:s, s:b, s:i, s:I, s:o}", "bytes",
				 (json_int_t)info.bytes, "host_bytes", (json_int_t)info.host_bytes,
				 "format", info.format, "type", info.type, "read_only",
				 info.read_only, "chain", (int)info.chain, "at_once",
				 (json_int_t)stats.at_once, "requests", describe_ops(&stats));
	if (more)
		json_object_update(all, more);
	json_decref(more);
	return all;
}

static int do_disks(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;
	json_t *list = json_array();
	int bad = !list;

	(void)r;
	for (unsigned i = 0; !bad && i < c->cfg.storage->drives; i++)
		bad = json_array_append_new(list, describe_drive(c, &c->cfg.storage->drive[i]));
	*answer = bad ? NULL : json_pack("{s:O}", "disks", list);
	json_decref(list);
	return *answer ? 0 : error_set(err, -ENOMEM, "disks: out of memory");
}

static int do_nics(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;

	(void)r;
	*answer = json_pack("{s:o}", "nics", nics_json(machine_nics(c->cfg.machine)));
	return *answer ? 0 : error_set(err, -ENOMEM, "nics: out of memory");
}

/* ---- steering ---- */

static int do_pause(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;

	(void)r, (void)answer, (void)err;
	if (!c->paused) {
		machine_pause(c->cfg.machine);
		c->paused = true;
		log_info("paused");
	}
	return 0;
}

static int do_resume(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;

	(void)r, (void)answer, (void)err;
	if (c->paused) {
		machine_resume(c->cfg.machine);
		c->paused = false;
		log_info("resumed");
	}
	return 0;
}

static int do_reset(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;

	(void)r, (void)answer, (void)err;
	log_info("the reset button was pressed");
	machine_reset(c->cfg.machine);
	return 0;
}

static int do_power_button(void *opaque, const struct request *r, json_t **answer,
			   struct error *err)
{
	struct control *c = opaque;

	(void)r, (void)answer;
	if (c->paused)
		return error_set(err, -EBUSY,
				 "it is paused, so nobody in it would notice the power button; "
				 "resume it first");
	log_info("the power button was pressed");
	board_power_button(machine_board(c->cfg.machine));
	return 0;
}

static int do_quit(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;

	(void)r, (void)answer, (void)err;
	machine_stop(c->cfg.machine, MACHINE_QUIT, "its plug was pulled (hanok stop --force)");
	return 0;
}

static int do_wait(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	(void)opaque, (void)r, (void)answer, (void)err;
	return COMMAND_LATER;
}

static int do_balloon(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	return vm_balloon_request(((struct control *)opaque)->cfg.machine, r, answer, err);
}

/* ---- the console ---- */

static int do_attach(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;
	long long replay;

	(void)answer;
	if (!c->cfg.console)
		return error_set(err, -ENODEV,
				 "its serial port is the terminal that it was started on");
	int code = request_number(r, "replay", CONSOLE_RING_BYTES, 0, INT32_MAX, &replay, err);
	if (code == 0 && console_clients(c->cfg.console) >= CONSOLE_CLIENTS_MAX)
		code = error_set(err, -ENOSPC, "%d are attached already", CONSOLE_CLIENTS_MAX);
	return code < 0 ? code : COMMAND_TAKEN;
}

static void attached(void *opaque, const struct request *r, int fd, const char *data, size_t len)
{
	struct control *c = opaque;
	long long replay;

	request_number(r, "replay", CONSOLE_RING_BYTES, 0, INT32_MAX, &replay, NULL);
	if (console_attach(c->cfg.console, fd, data, len, (size_t)replay) < 0)
		log_warn("someone could not be attached to the console: out of memory");
}

/* ---- snapshots ---- */

static void snapshot_over(void *opaque, int code, uint32_t uid, const struct error *err)
{
	struct control *c = opaque;
	json_t *answer = code == 0 ? json_pack("{s:I}", "uid", (json_int_t)uid) : NULL;

	c->job_runs = false;
	control_server_answer(c->server, c->job_client, code, answer, err);
}

static int start_job(struct control *c, struct snapshot_job_config *cfg, struct error *err)
{
	cfg->loop = machine_loop(c->cfg.machine);
	cfg->folder = c->cfg.folder;
	cfg->machine = c->cfg.machine;
	cfg->plan = c->cfg.storage;
	cfg->over = snapshot_over;
	cfg->opaque = c;
	if (!c->cfg.folder)
		return error_set(err, -ENODEV, "a machine without a folder has no snapshots");
	if (c->job_runs)
		return error_set(err, -EBUSY, "another snapshot is being taken or deleted");
	snapshot_job_destroy(c->job);
	int code = snapshot_job_start(&c->job, cfg, err);
	if (code < 0)
		return code;
	c->job_runs = true;
	c->job_client = control_server_defer(c->server);
	return COMMAND_DEFERRED;
}

static int do_snapshot_create(void *opaque, const struct request *r, json_t **answer,
			      struct error *err)
{
	struct snapshot_job_config cfg = {.act = SNAPSHOT_CREATE};

	(void)answer;
	int code = request_string(r, "name", NULL, &cfg.name, err);
	if (code == 0)
		code = request_string(r, "description", "", &cfg.description, err);
	return code < 0 ? code : start_job(opaque, &cfg, err);
}

static int do_snapshot_delete(void *opaque, const struct request *r, json_t **answer,
			      struct error *err)
{
	struct snapshot_job_config cfg = {.act = SNAPSHOT_DELETE, .description = ""};

	(void)answer;
	int code = request_string(r, "name", NULL, &cfg.name, err);
	if (code == 0)
		code = request_bool(r, "children", false, &cfg.children, err);
	return code < 0 ? code : start_job(opaque, &cfg, err);
}

static int do_snapshot_consolidate(void *opaque, const struct request *r, json_t **answer,
				   struct error *err)
{
	struct snapshot_job_config cfg = {
		.act = SNAPSHOT_CONSOLIDATE, .name = "", .description = ""};

	(void)r, (void)answer;
	return start_job(opaque, &cfg, err);
}

/* ---- which pages are used ---- */

static void recorded(void *opaque, int code, const struct page_recording *r,
		     const struct error *err)
{
	struct control *c = opaque;
	json_t *answer = NULL;

	if (code == 0)
		answer = json_pack("{s:I, s:I, s:f, s:b}", "records", (json_int_t)r->records,
				   "bytes", (json_int_t)r->bytes, "seconds", (double)r->ns / 1e9,
				   "cut", r->cut);
	c->recorder_runs = false;
	control_server_answer(c->server, c->recorder_client, code, answer, err);
}

static int do_trace_pages(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;
	struct page_recorder_config cfg = {
		.machine = c->cfg.machine, .over = recorded, .opaque = c};
	long long ms, period, bytes;

	(void)answer;
	if (c->recorder_runs)
		return error_set(err, -EBUSY, "its pages are being traced already");
	int code = request_string(r, "file", NULL, &cfg.path, err);
	if (code == 0 && cfg.path[0] != '/')
		code = error_set(err, -EINVAL, "file: it must be an absolute path");
	if (code == 0)
		code = request_number(r, "ms", 10000, 1, 86400000, &ms, err);
	if (code == 0)
		code = request_number(r, "period_ms", 100, 1, 60000, &period, err);
	if (code == 0)
		code = request_number(r, "bytes_max", 1 << 30, 4096, INT64_MAX, &bytes, err);
	if (code < 0)
		return code;
	cfg.ns = (uint64_t)ms * 1000000;
	cfg.period_ms = (unsigned)period;
	cfg.bytes_max = (uint64_t)bytes;
	page_recorder_destroy(c->recorder);
	code = page_recorder_create(&c->recorder, &cfg, err);
	if (code < 0)
		return code;
	c->recorder_runs = true;
	c->recorder_client = control_server_defer(c->server);
	return COMMAND_DEFERRED;
}

/* ---- what takes a while to be looked at ---- */

static void inspected(void *opaque, uint64_t client, int code, json_t *answer,
		      const struct error *err)
{
	struct control *c = opaque;

	control_server_answer(c->server, client, code, answer, err);
}

static int do_inspect(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	struct control *c = opaque;

	(void)answer;
	int code = inspect_ask(c->inspect, r, control_server_defer(c->server), err);
	return code < 0 ? code : COMMAND_DEFERRED;
}

static const struct control_command commands[] = {
	{"status", do_status, NULL},
	{"exits", do_exits, NULL},
	{"disks", do_disks, NULL},
	{"nics", do_nics, NULL},
	{"pause", do_pause, NULL},
	{"resume", do_resume, NULL},
	{"reset", do_reset, NULL},
	{"power-button", do_power_button, NULL},
	{"quit", do_quit, NULL},
	{"wait", do_wait, NULL},
	{"balloon", do_balloon, NULL},
	{"attach", do_attach, attached},
	{"snapshot-create", do_snapshot_create, NULL},
	{"snapshot-delete", do_snapshot_delete, NULL},
	{"snapshot-consolidate", do_snapshot_consolidate, NULL},
	{"trace-pages", do_trace_pages, NULL},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

/* Those, and a command for each table. */
static struct control_command *all_commands(void)
{
	unsigned tables = 0;

	while (inspect_table_name(tables))
		tables++;
	struct control_command *all = calloc(COMMANDS + tables + 1, sizeof(*all));
	if (!all)
		return NULL;
	memcpy(all, commands, sizeof(commands));
	for (unsigned n = 0; n < tables; n++)
		all[COMMANDS + n] =
			(struct control_command){.name = inspect_table_name(n), .run = do_inspect};
	return all;
}

/* ---- life ---- */

static void on_event(void *opaque, enum machine_event event)
{
	struct control *c = opaque;

	switch (event) {
	case MACHINE_EVENT_STARTED:
		c->started_ns = clock_ns();
		c->running = true;
		log_info("running");
		break;
	case MACHINE_EVENT_RESET:
		c->resets++;
		log_info("reset");
		break;
	case MACHINE_EVENT_ENDED:
		c->running = false;
		break;
	}
}

int control_create(struct control **out, const struct control_config *cfg, struct error *err)
{
	struct control *c = calloc(1, sizeof(*c));

	*out = NULL;
	if (!c)
		return error_set(err, -ENOMEM, "control: out of memory");
	c->cfg = *cfg;
	struct machine_hooks hooks = {.event = on_event, .opaque = c};
	int r = machine_add_hooks(cfg->machine, &hooks);
	if (r < 0)
		error_set(err, r, "control: too many look on already");
	c->commands = all_commands();
	if (r == 0 && !c->commands)
		r = error_set(err, -ENOMEM, "control: out of memory");
	const struct inspect_config inspect = {cfg->machine, inspected, c};
	if (r == 0)
		r = inspect_create(&c->inspect, &inspect, err);
	if (r == 0)
		r = control_server_create(&c->server, machine_loop(cfg->machine), c->commands, c,
					  err);
	if (r < 0) {
		/* Hooks stay in the machine, which is not going to run. */
		inspect_destroy(c->inspect);
		free(c->commands);
		free(c);
		return r;
	}
	*out = c;
	return 0;
}

const char *control_socket(const struct control *c)
{
	return control_server_socket(c->server);
}

const char *control_end_name(enum machine_end end)
{
	static const char *const names[] = {
		[MACHINE_POWERED_OFF] = "powered-off", [MACHINE_REBOOTED] = "rebooted",
		[MACHINE_CRASHED] = "crashed",	       [MACHINE_DEBUG_EXIT] = "debug-exit",
		[MACHINE_TIMED_OUT] = "timed-out",     [MACHINE_QUIT] = "quit",
		[MACHINE_FAILED] = "failed",
	};

	return names[end];
}

void control_end(struct control *c, const struct machine_result *result)
{
	json_t *why = json_string(result->why.text);

	control_server_end(c->server, json_pack("{s:s, s:o*}", "end", control_end_name(result->end),
						"why", why));
}

void control_destroy(struct control *c)
{
	if (!c)
		return;
	snapshot_job_destroy(c->job);
	page_recorder_destroy(c->recorder);
	inspect_destroy(c->inspect);
	control_server_destroy(c->server);
	free(c->commands);
	free(c);
}
