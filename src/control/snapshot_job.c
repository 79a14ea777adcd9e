/* SPDX-License-Identifier: Apache-2.0 */
#include "control/snapshot_job.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/*
 *     the loop:   start         exchange            over
 *                   └─> prepare ──┘ └─> list ────────┘		of a snapshot that is taken
 *     a thread:
 *
 * Guests wait for the loop, so what waits for the host's disk is not done there, but for the exchange;
 * of which a snapshot that is deleted needs several, with merges between them (disk/snapshot_merge.c).
 * The thread asks for each by on_loop and waits.
 */
struct snapshot_job {
	struct snapshot_job_config cfg;
	struct vm_snapshot snapshot;
	char *name, *description;
	pthread_t thread;
	bool started; /* and not joined */
	/* The thread's until it has posted `over` or is joined. */
	uint32_t uid;
	int code;
	struct error err;
	uint64_t held_ns; /* the disks, in all */

	atomic_bool stop;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	int (*wanted)(void *arg, struct error *err); /* on the loop's thread; NULL: nothing */
	void *arg;
	struct error *wanted_err;
	int result;
};

/* ---- on the loop's thread ---- */

static void over(void *opaque)
{
	static const char *const past[] = {
		[SNAPSHOT_CREATE] = "taken",
		[SNAPSHOT_DELETE] = "deleted",
		[SNAPSHOT_CONSOLIDATE] = "consolidated",
	};
	struct snapshot_job *j = opaque;
	double held_ms = (double)j->held_ns / 1e6;

	if (j->code < 0)
		log_warn("snapshot '%s': not %s: %s", j->name, past[j->cfg.act], j->err.text);
	else if (j->cfg.act == SNAPSHOT_CONSOLIDATE)
		log_info("snapshots consolidated; disks were held for %.1f ms", held_ms);
	else
		log_info("snapshot '%s' %s (%u); disks were held for %.1f ms", j->name,
			 past[j->cfg.act], j->uid, held_ms);
	j->cfg.over(j->cfg.opaque, j->code, j->uid, &j->err);
}

static void call(void *opaque)
{
	struct snapshot_job *j = opaque;

	pthread_mutex_lock(&j->lock);
	/* The thread waits for this. */
	uint64_t start = clock_ns();
	j->result = j->wanted(j->arg, j->wanted_err);
	j->held_ns += clock_ns() - start;
	j->wanted = NULL;
	pthread_cond_signal(&j->changed);
	pthread_mutex_unlock(&j->lock);
}

/* ---- on the job's ---- */

static int on_loop(struct snapshot_machine *m, int (*fn)(void *arg, struct error *err), void *arg,
		   struct error *err)
{
	struct snapshot_job *j = (struct snapshot_job *)((char *)m->opaque -
							 offsetof(struct snapshot_job, snapshot));
	int code = -ECANCELED;

	pthread_mutex_lock(&j->lock);
	j->wanted = fn;
	j->arg = arg;
	j->wanted_err = err;
	bool asked = !atomic_load(&j->stop) && loop_post(j->cfg.loop, call, j) == 0;
	while (asked && j->wanted && !atomic_load(&j->stop))
		pthread_cond_wait(&j->changed, &j->lock);
	if (asked && !j->wanted)
		code = j->result;
	else
		error_set(err, code, "the machine ends");
	pthread_mutex_unlock(&j->lock);
	return code;
}

static int exchange(void *opaque, struct error *err)
{
	return snapshot_take_exchange(opaque, err);
}

static int take(struct snapshot_job *j)
{
	struct snapshot_machine *m = &j->snapshot.machine;
	struct snapshot_take *t;
	int code = snapshot_take_prepare(&t, m, j->name, j->description, NULL, &j->err);

	if (code < 0)
		return code;
	code = on_loop(m, exchange, t, &j->err);
	if (code == -ECANCELED)
		snapshot_take_abort(t);
	return code < 0 ? code : snapshot_take_list(t, &j->uid, &j->err);
}

static int stopped(void *opaque, uint64_t done, uint64_t total)
{
	struct snapshot_job *j = opaque;

	(void)done, (void)total;
	return atomic_load(&j->stop);
}

static int delete (struct snapshot_job *j)
{
	struct snapshot_progress progress = {.fn = stopped, .opaque = j};
	struct snapshot_machine *m = &j->snapshot.machine;
	struct vmsd_snapshot *found;
	struct vmsd tree;

	if (j->cfg.act == SNAPSHOT_CONSOLIDATE)
		return snapshot_consolidate(m, &progress, &j->err);
	int code = vmsd_load(&tree, j->snapshot.vmsd, &j->err);
	if (code == 0)
		code = vmsd_find_name(&tree, j->name, &found, &j->err);
	if (code == 0)
		j->uid = found->uid;
	vmsd_free(&tree);
	return code < 0 ? code : snapshot_delete(m, j->uid, j->cfg.children, &progress, &j->err);
}

static void *thread_main(void *opaque)
{
	struct snapshot_job *j = opaque;

	j->code = j->cfg.act == SNAPSHOT_CREATE ? take(j) : delete (j);
	/* Out of memory: nobody is told, till the job is destroyed at the machine's end. */
	(void)loop_post(j->cfg.loop, over, j);
	return NULL;
}

/* ---- life ---- */

int snapshot_job_start(struct snapshot_job **out, const struct snapshot_job_config *cfg,
		       struct error *err)
{
	struct snapshot_job *j = calloc(1, sizeof(*j));

	*out = NULL;
	if (!j)
		return error_set(err, -ENOMEM, "snapshot: out of memory");
	j->cfg = *cfg;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->changed, NULL);
	j->name = strdup(cfg->name);
	j->description = strdup(cfg->description);
	int r = j->name && j->description ? 0 : error_set(err, -ENOMEM, "snapshot: out of memory");
	if (r == 0)
		r = vm_snapshot_open(&j->snapshot, cfg->folder, cfg->machine, cfg->plan, err);
	if (r == 0) {
		j->snapshot.machine.on_loop = on_loop;
		r = -pthread_create(&j->thread, NULL, thread_main, j);
		j->started = r == 0;
		if (r < 0)
			error_set(err, r, "snapshot: a thread: %s", strerror(-r));
	}
	if (r < 0) {
		snapshot_job_destroy(j);
		return r;
	}
	*out = j;
	return 0;
}

void snapshot_job_destroy(struct snapshot_job *j)
{
	if (!j)
		return;
	pthread_mutex_lock(&j->lock);
	atomic_store(&j->stop, true);
	pthread_cond_signal(&j->changed);
	pthread_mutex_unlock(&j->lock);
	if (j->started)
		pthread_join(j->thread, NULL);
	vm_snapshot_close(&j->snapshot);
	pthread_mutex_destroy(&j->lock);
	pthread_cond_destroy(&j->changed);
	free(j->name);
	free(j->description);
	free(j);
}
