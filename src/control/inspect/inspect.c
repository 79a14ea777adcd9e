/* SPDX-License-Identifier: Apache-2.0 */
#include "control/inspect/inspect.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "control/inspect/tables.h"

/* A new table: its function in tables.h, and its line here and in docs/CONTROL.md. */
static const struct inspect_table {
	const char *name;
	inspect_fn *fn;
	bool cpus; /* it wants the registers of the vCPUs */
} tables[] = {
	{"walk", inspect_walk, true},
	{"dump", inspect_dump, true},
	{"processes", inspect_processes, true},
	{"frames", inspect_frames, false},
	{"memory", inspect_memory, false},
	{"faults", inspect_faults, false},
	{"tlb", inspect_tlb, false},
};
enum { TABLES = sizeof(tables) / sizeof(tables[0]), JOBS_MAX = 64 };

struct job {
	struct job *next;
	const struct inspect_table *table;
	struct request request;
	struct cpu_state *cpus;
	uint64_t client;
	int code;
	json_t *answer;
	struct error err;
};

struct queue {
	struct job *first, **last;
	unsigned count;
};

struct inspect {
	struct inspect_config cfg;
	struct looker looker;
	pthread_t thread;
	bool started;	      /* it is, at the first request */
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;
	bool stopping;
	struct queue asked, answered;
};

const char *inspect_table_name(unsigned n)
{
	return n < TABLES ? tables[n].name : NULL;
}

/* ---- jobs ---- */

static void put(struct queue *q, struct job *j)
{
	j->next = NULL;
	*q->last = j;
	q->last = &j->next;
	q->count++;
}

static struct job *take(struct queue *q)
{
	struct job *j = q->first;

	if (!j)
		return NULL;
	q->first = j->next;
	if (!q->first)
		q->last = &q->first;
	q->count--;
	return j;
}

static void free_job(struct job *j)
{
	request_free(&j->request);
	json_decref(j->answer);
	free(j->cpus);
	free(j);
}

/* On the loop's thread. */
static void hand_out(void *opaque)
{
	struct inspect *i = opaque;

	for (;;) {
		pthread_mutex_lock(&i->lock);
		struct job *j = take(&i->answered);
		pthread_mutex_unlock(&i->lock);
		if (!j)
			return;
		json_t *answer = j->answer;
		j->answer = NULL;
		i->cfg.over(i->cfg.opaque, j->client, j->code, answer, &j->err);
		free_job(j);
	}
}

static void *answer_requests(void *opaque)
{
	struct inspect *i = opaque;

	pthread_mutex_lock(&i->lock);
	for (;;) {
		while (!i->stopping && !i->asked.first)
			pthread_cond_wait(&i->wake, &i->lock);
		if (i->stopping)
			break;
		struct job *j = take(&i->asked);
		pthread_mutex_unlock(&i->lock);
		i->looker.cpus = j->cpus;
		j->code = j->table->fn(&i->looker, &j->request, &j->answer, &j->err);
		pthread_mutex_lock(&i->lock);
		put(&i->answered, j);
		/* Out of memory: it goes out with the next one. */
		(void)loop_post(machine_loop(i->cfg.machine), hand_out, i);
	}
	pthread_mutex_unlock(&i->lock);
	return NULL;
}

/* On the loop's thread, as a reset is: nobody else sets them meanwhile. The vCPUs stand still for it. */
static struct cpu_state *read_cpus(struct machine *m)
{
	unsigned count = machine_cpus(m);
	struct cpu_state *cpus = aligned_alloc(_Alignof(struct cpu_state), count * sizeof(*cpus));

	if (!cpus)
		return NULL;
	machine_pause(m);
	for (unsigned n = 0; n < count; n++)
		machine_vcpu(m, n)->ops->get_state(machine_vcpu(m, n), &cpus[n]);
	machine_resume(m);
	return cpus;
}

static struct job *new_job(struct inspect *i, const struct request *r, uint64_t client)
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	for (unsigned n = 0; n < TABLES; n++)
		if (!strcmp(tables[n].name, r->what))
			j->table = &tables[n];
	j->client = client;
	j->request.object = json_deep_copy(r->object);
	j->request.what = json_string_value(json_object_get(j->request.object, "do"));
	if (j->table && j->table->cpus)
		j->cpus = read_cpus(i->cfg.machine);
	if (j->table && j->request.what && (j->cpus || !j->table->cpus))
		return j;
	free_job(j);
	return NULL;
}

static int start_thread(struct inspect *i, struct error *err)
{
	int r = i->started ? 0 : pthread_create(&i->thread, NULL, answer_requests, i);

	if (r)
		return error_set(err, -r, "inspection: a thread: %s", strerror(r));
	i->started = true;
	return 0;
}

int inspect_ask(struct inspect *i, const struct request *r, uint64_t client, struct error *err)
{
	int code = start_thread(i, err);

	if (code < 0)
		return code;
	struct job *j = new_job(i, r, client);
	if (!j)
		return error_set(err, -ENOMEM, "%s: out of memory", r->what);
	pthread_mutex_lock(&i->lock);
	bool room = i->asked.count < JOBS_MAX;
	if (room) {
		put(&i->asked, j);
		pthread_cond_signal(&i->wake);
	}
	pthread_mutex_unlock(&i->lock);
	if (room)
		return 0;
	free_job(j);
	return error_set(err, -EBUSY, "%s: too much was asked at once; try again", r->what);
}

/* ---- life ---- */

int inspect_create(struct inspect **out, const struct inspect_config *cfg, struct error *err)
{
	struct inspect *i = calloc(1, sizeof(*i));

	*out = NULL;
	if (!i)
		return error_set(err, -ENOMEM, "inspection: out of memory");
	i->cfg = *cfg;
	i->asked.last = &i->asked.first;
	i->answered.last = &i->answered.first;
	pthread_mutex_init(&i->lock, NULL);
	pthread_cond_init(&i->wake, NULL);
	i->looker.machine = cfg->machine;
	i->looker.mem = machine_mem(cfg->machine);
	i->looker.began_ns = clock_ns();
	int r = linux_guest_create(&i->looker.linux_guest, i->looker.mem);
	if (r < 0)
		error_set(err, r, "inspection: out of memory");
	else
		r = fault_log_create(&i->looker.faults, cfg->machine, err);
	if (r < 0) {
		inspect_destroy(i);
		return r;
	}
	*out = i;
	return 0;
}

void inspect_destroy(struct inspect *i)
{
	struct job *j;

	if (!i)
		return;
	pthread_mutex_lock(&i->lock);
	i->stopping = true;
	pthread_cond_signal(&i->wake);
	pthread_mutex_unlock(&i->lock);
	if (i->started)
		pthread_join(i->thread, NULL);
	while ((j = take(&i->asked)))
		free_job(j);
	while ((j = take(&i->answered)))
		free_job(j);
	fault_log_destroy(i->looker.faults);
	linux_guest_destroy(i->looker.linux_guest);
	pthread_mutex_destroy(&i->lock);
	pthread_cond_destroy(&i->wake);
	free(i);
}

/* ---- what tables share ---- */

json_t *json_hex(uint64_t value)
{
	return json_sprintf("0x%llx", (unsigned long long)value);
}

int request_address(const struct request *r, const char *name, bool needed, uint64_t *out,
		    struct error *err)
{
	json_t *value = json_object_get(r->object, name);
	const char *text = json_string_value(value);
	char *end;

	if (!value)
		return needed ? error_set(err, -EINVAL, "%s: missing; it must be an address", name)
			      : 1;
	if (json_is_integer(value) && json_integer_value(value) >= 0) {
		*out = (uint64_t)json_integer_value(value);
		return 0;
	}
	errno = 0;
	if (text && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') && text[2]) {
		*out = strtoull(text, &end, 16);
		if (!errno && !*end)
			return 0;
	}
	return error_set(err, -EINVAL,
			 "%s: it must be an address, a number or a string such as \"0x1000\"",
			 name);
}

int inspect_no_memory(json_t **answer, struct error *err)
{
	json_decref(*answer);
	*answer = NULL;
	return error_set(err, -ENOMEM, "inspection: out of memory");
}
