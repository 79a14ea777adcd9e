/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replays: a list of jobs (a policy with one number of frames; lru with all of them), taken by
 * threads one after another, while the thread that asked waits and shows how far it is.
 */
#include "mem/replay.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS_MAX = 64, SHOW_EVERY_NS = 50000000 };
#define NOWHERE UINT32_MAX

struct replay_shared {
	const struct page_trace *trace;
	const struct replay_options *options;
	struct replay_count *out;
	const uint32_t *next;
	atomic_uint job; /* the next to be taken */
	unsigned jobs;
	atomic_bool stop;
	atomic_ullong done; /* references */
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned running; /* threads; under the lock */
	int error;	  /* the first; under the lock */
};

bool replay_going(struct replay_shared *s, size_t refs)
{
	atomic_fetch_add_explicit(&s->done, refs, memory_order_relaxed);
	return !atomic_load_explicit(&s->stop, memory_order_relaxed);
}

/* ---- policies that know the past ---- */

struct frames {
	const struct policy_ops *policy;
	void *state;
	uint32_t frames, used;
	uint32_t *frame_of; /* [pages] or NOWHERE */
	uint32_t *page_in;  /* [frames] */
	uint8_t *dirty;	    /* [frames] */
};

static void frames_free(struct frames *f)
{
	if (f->state)
		f->policy->destroy(f->state);
	free(f->frame_of);
	free(f->page_in);
	free(f->dirty);
}

static int frames_create(struct frames *f, const struct policy_ops *policy,
			 const struct replay_job *job)
{
	uint32_t pages = job->trace->pages;
	/* More frames than pages are not used, but gen's epochs depend on how many there are; there
	 * it does not matter either, as no page ever leaves. */
	uint32_t frames = job->frames[0] < pages ? (uint32_t)job->frames[0] : pages + !pages;

	*f = (struct frames){.policy = policy, .frames = frames};
	f->state = policy->create(frames, &job->params);
	f->frame_of = malloc(((size_t)pages + 1) * sizeof(*f->frame_of));
	f->page_in = malloc((size_t)frames * sizeof(*f->page_in));
	f->dirty = malloc(frames);
	if (!f->state || !f->frame_of || !f->page_in || !f->dirty) {
		frames_free(f);
		return -ENOMEM;
	}
	memset(f->frame_of, 0xff, (size_t)pages * sizeof(*f->frame_of));
	return 0;
}

static void miss(struct frames *f, uint32_t page, uint8_t write, struct replay_count *count)
{
	uint32_t frame;

	count->misses++;
	if (f->used < f->frames) {
		frame = f->used++;
	} else {
		frame = f->policy->victim(f->state);
		f->frame_of[f->page_in[frame]] = NOWHERE;
		count->written_back += f->dirty[frame];
	}
	f->frame_of[page] = frame;
	f->page_in[frame] = page;
	f->dirty[frame] = write;
	f->policy->fill(f->state, frame);
}

static int replay_frames(const struct policy_ops *policy, const struct replay_job *job)
{
	const struct page_trace *t = job->trace;
	struct frames f;
	int rc = frames_create(&f, policy, job);

	if (rc)
		return rc;
	for (size_t i = 0; i < t->refs && !rc;) {
		size_t n = t->refs - i < REPLAY_CHUNK ? t->refs - i : REPLAY_CHUNK;
		for (size_t end = i + n; i < end; i++) {
			uint32_t page = t->ref[i] >> PAGE_TRACE_ID_SHIFT, frame = f.frame_of[page];
			uint8_t write = t->ref[i] & PAGE_TRACE_WRITE;
			if (frame == NOWHERE) {
				miss(&f, page, write, job->out);
				continue;
			}
			f.dirty[frame] |= write;
			if (policy->hit)
				policy->hit(f.state, frame);
		}
		if (!replay_going(job->shared, n))
			rc = -ECANCELED;
	}
	frames_free(&f);
	return rc;
}

/* ---- jobs ---- */

/* Job number n: which policy, and which of its sizes. False: there are fewer. */
static bool find_job(const struct replay_options *o, unsigned n, unsigned *policy, unsigned *size)
{
	for (*policy = 0; *policy < o->policies; (*policy)++) {
		unsigned here = o->policy[*policy]->all_sizes ? 1 : o->sizes;
		if (n < here) {
			*size = n;
			return true;
		}
		n -= here;
	}
	return false;
}

static int do_job(struct replay_shared *s, unsigned policy, unsigned size)
{
	const struct replay_options *o = s->options;
	const struct policy_ops *p = o->policy[policy];
	const struct replay_job job = {.trace = s->trace,
				       .next = s->next,
				       .params = o->params,
				       .frames = &o->frames[size],
				       .sizes = p->all_sizes ? o->sizes : 1,
				       .out = &s->out[(size_t)policy * o->sizes + size],
				       .shared = s};

	return p->replay ? p->replay(&job) : replay_frames(p, &job);
}

static void *work(void *opaque)
{
	struct replay_shared *s = opaque;
	unsigned policy, size;
	int rc = 0;

	while (!rc && !atomic_load(&s->stop) &&
	       find_job(s->options, atomic_fetch_add(&s->job, 1), &policy, &size))
		rc = do_job(s, policy, size);
	if (rc)
		atomic_store(&s->stop, true);
	pthread_mutex_lock(&s->lock);
	if (rc && !s->error)
		s->error = rc;
	s->running--;
	pthread_cond_signal(&s->ended);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* Shows how far it is until all threads have ended. */
static void watch(struct replay_shared *s)
{
	const struct trace_progress *p = &s->options->progress;
	uint64_t total = (uint64_t)s->jobs * s->trace->refs;

	pthread_mutex_lock(&s->lock);
	while (s->running) {
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += SHOW_EVERY_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&s->ended, &s->lock, &until);
		pthread_mutex_unlock(&s->lock);
		if (p->fn && p->fn(p->opaque, atomic_load(&s->done), total))
			atomic_store(&s->stop, true);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
}

static unsigned processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

static int run_jobs(struct replay_shared *s)
{
	pthread_t thread[THREADS_MAX];
	unsigned threads = s->options->threads ? s->options->threads : processors(), made = 0;
	pthread_condattr_t attr;

	threads = threads < s->jobs ? threads : s->jobs;
	threads = threads < THREADS_MAX ? threads : THREADS_MAX;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->ended, &attr);
	pthread_condattr_destroy(&attr);
	s->running = threads;
	while (made < threads && !pthread_create(&thread[made], NULL, work, s))
		made++;
	/* One is enough. */
	pthread_mutex_lock(&s->lock);
	s->running -= threads - made;
	if (!made && threads)
		s->error = -EAGAIN;
	pthread_mutex_unlock(&s->lock);
	watch(s);
	for (unsigned i = 0; i < made; i++)
		pthread_join(thread[i], NULL);
	pthread_cond_destroy(&s->ended);
	pthread_mutex_destroy(&s->lock);
	return s->error;
}

/* For each reference the place of the next to the same page. NULL: no memory. */
static uint32_t *find_next(const struct page_trace *t)
{
	uint32_t *next = malloc((t->refs + 1) * sizeof(*next));
	uint32_t *last = malloc(((size_t)t->pages + 1) * sizeof(*last));

	if (next && last) {
		memset(last, 0xff, (size_t)t->pages * sizeof(*last)); /* REPLAY_NEVER */
		for (size_t i = t->refs; i--;) {
			uint32_t page = t->ref[i] >> PAGE_TRACE_ID_SHIFT;
			next[i] = last[page];
			last[page] = (uint32_t)i;
		}
	} else {
		free(next);
		next = NULL;
	}
	free(last);
	return next;
}

int replay_run(const struct page_trace *t, const struct replay_options *options,
	       struct replay_count *out)
{
	struct replay_shared s = {.trace = t, .options = options, .out = out};
	uint32_t *next = NULL;
	bool future = false;
	int rc;

	for (unsigned i = 0; i < options->policies; i++) {
		s.jobs += options->policy[i]->all_sizes ? 1 : options->sizes;
		future |= options->policy[i]->wants_future;
	}
	memset(out, 0, (size_t)options->policies * options->sizes * sizeof(*out));
	if (future && !(next = find_next(t)))
		return -ENOMEM;
	s.next = next;
	rc = run_jobs(&s);
	free(next);
	return rc;
}
