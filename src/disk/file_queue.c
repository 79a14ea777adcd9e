/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where requests wait: one queue a loop, shared by the loop's files, with an io_uring and a few
 * threads. Both end in the list `over` and in the eventfd, which wakes the loop, which calls done.
 *
 * io_uring does reads, writes and syncs. What needs several calls or a bounce buffer (zeroes,
 * discards, direct requests that do not fit), and everything where io_uring is not to be had
 * (seccomp, old kernels, kernel.io_uring_disabled, another backend in front), is for the threads.
 * They are started when they are first needed.
 *
 * The ring holds RING requests; more wait in `waiting`, in order. A short transfer is submitted
 * again for its rest.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/file_internal.h"

enum {
	RING = 128,
	THREADS = 4,
	POLL_SLICE_MS = 1, /* for whoever waits while another thread reaps */
};

struct list {
	struct file_request *first, **last;
};

struct file_queue {
	struct file_queue *next;
	struct loop *loop;
	unsigned users; /* under queues_lock */
	int event_fd;
	struct loop_fd *watch;
	struct io_uring ring;
	bool has_uring;

	pthread_mutex_t lock; /* guards what follows, and the ring */
	pthread_cond_t work;
	struct list waiting; /* for the ring */
	struct list jobs;    /* for the threads */
	struct list over;    /* done is to be called */
	unsigned in_ring, idle, threads;
	uint64_t completed; /* done was called so often */
	bool stop;
	pthread_t thread[THREADS];
};

static pthread_mutex_t queues_lock = PTHREAD_MUTEX_INITIALIZER;
static struct file_queue *queues;

static void list_init(struct list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

static void push(struct list *l, struct file_request *r)
{
	r->next = NULL;
	*l->last = r;
	l->last = &r->next;
}

static struct file_request *pop(struct list *l)
{
	struct file_request *r = l->first;

	if (r) {
		l->first = r->next;
		if (!l->first)
			l->last = &l->first;
	}
	return r;
}

static void wake(struct file_queue *q)
{
	uint64_t one = 1;

	(void)!write(q->event_fd, &one, sizeof(one));
}

/* Lock held. */
static void finish(struct file_queue *q, struct file_request *r, int rc)
{
	free(r->rest);
	r->rest = NULL;
	r->result = rc;
	push(&q->over, r);
}

/* ---- threads ---- */

static void *thread_main(void *opaque)
{
	struct file_queue *q = opaque;

	pthread_mutex_lock(&q->lock);
	for (;;) {
		struct file_request *r = pop(&q->jobs);
		if (!r) {
			if (q->stop)
				break;
			q->idle++;
			pthread_cond_wait(&q->work, &q->lock);
			q->idle--;
			continue;
		}
		pthread_mutex_unlock(&q->lock);
		int rc = file_execute(r->file, r);
		pthread_mutex_lock(&q->lock);
		finish(q, r, rc);
		wake(q);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* Lock held. */
static void give_to_threads(struct file_queue *q, struct file_request *r)
{
	push(&q->jobs, r);
	if (q->idle || q->threads == THREADS) {
		pthread_cond_signal(&q->work);
	} else if (!pthread_create(&q->thread[q->threads], NULL, thread_main, q)) {
		q->threads++;
	} else if (!q->threads) {
		finish(q, pop(&q->jobs), -EAGAIN);
		wake(q);
	}
}

/* ---- io_uring ---- */

static bool for_uring(const struct file_queue *q, const struct file_request *r)
{
	if (!q->has_uring || file_backend != &file_host_backend)
		return false;
	if (r->op == FILE_SYNC)
		return true;
	return (r->op == FILE_READ || r->op == FILE_WRITE) &&
	       (!r->file->direct || file_direct_fits(r->file, r));
}

static void prepare(struct io_uring_sqe *sqe, struct file_request *r)
{
	const struct iovec *iov = r->iov;
	unsigned n = r->iov_count;

	if (r->rest) {
		iov = r->rest;
		n = file_iov_rest(r, r->moved, r->rest);
	}
	if (r->op == FILE_SYNC)
		io_uring_prep_fsync(sqe, r->file->fd, IORING_FSYNC_DATASYNC);
	else if (r->op == FILE_READ)
		io_uring_prep_readv(sqe, r->file->fd, iov, n, r->offset + r->moved);
	else
		io_uring_prep_writev(sqe, r->file->fd, iov, n, r->offset + r->moved);
	io_uring_sqe_set_data(sqe, r);
}

/* Lock held. A direct write is entered by its caller. */
static void give_to_uring(struct file_queue *q, struct file_request *r)
{
	struct io_uring_sqe *sqe;

	if (q->in_ring == RING || !(sqe = io_uring_get_sqe(&q->ring))) {
		push(&q->waiting, r);
		return;
	}
	if (r->moved && !r->rest) {
		r->rest = malloc(r->iov_count * sizeof(*r->rest));
		if (!r->rest) {
			/* The entry cannot be given back. */
			io_uring_prep_nop(sqe);
			io_uring_sqe_set_data(sqe, NULL);
			io_uring_submit(&q->ring);
			finish(q, r, -ENOMEM);
			wake(q);
			return;
		}
	}
	prepare(sqe, r);
	q->in_ring++;
	/* -EAGAIN, -EBUSY: the kernel is short of memory for now; the entry stays in the ring and
	 * goes with the next submission, of which there is one at the latest when `over` is
	 * looked at. */
	io_uring_submit(&q->ring);
}

/* Lock held. What a completion means: the request is over, or its rest goes on. */
static void completed(struct file_queue *q, struct file_request *r, int res)
{
	if (res == -EINTR || res == -EAGAIN) {
		give_to_uring(q, r);
		return;
	}
	if (res >= 0 && r->op != FILE_SYNC) {
		r->moved += (unsigned)res;
		bool partial = r->moved < r->bytes;
		if (partial && (res == 0 || (r->file->direct && r->moved % r->file->align))) {
			res = r->op == FILE_READ ? file_read_end(r) : -EIO;
		} else if (partial) {
			give_to_uring(q, r);
			return;
		}
	}
	if (r->op == FILE_WRITE && r->file->direct)
		file_direct_end(r->file);
	finish(q, r, res < 0 ? res : 0);
}

static void reap(struct file_queue *q)
{
	struct io_uring_cqe *cqe;
	struct file_request *r;

	if (!q->has_uring)
		return;
	if (io_uring_sq_ready(&q->ring))
		io_uring_submit(&q->ring);
	while (!io_uring_peek_cqe(&q->ring, &cqe)) {
		int res = cqe->res;
		r = io_uring_cqe_get_data(cqe);
		io_uring_cqe_seen(&q->ring, cqe);
		if (!r)
			continue;
		q->in_ring--;
		completed(q, r, res);
	}
	while (q->in_ring < RING && q->waiting.first)
		give_to_uring(q, pop(&q->waiting));
}

void file_queue_reap(struct file_queue *q)
{
	pthread_mutex_lock(&q->lock);
	reap(q);
	bool any = q->over.first;
	pthread_mutex_unlock(&q->lock);
	if (any)
		wake(q);
}

/* Old kernels have io_uring but not all of it; seccomp may let the first call pass. */
static bool uring_works(struct io_uring *ring)
{
	static const int needed[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC};
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	struct io_uring_cqe *cqe;
	bool all = probe;

	for (unsigned i = 0; all && i < sizeof(needed) / sizeof(needed[0]); i++)
		all = io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	if (!all || !(ring->features & IORING_FEAT_NODROP))
		return false;
	io_uring_prep_nop(io_uring_get_sqe(ring));
	if (io_uring_submit_and_wait(ring, 1) != 1 || io_uring_peek_cqe(ring, &cqe))
		return false;
	io_uring_cqe_seen(ring, cqe);
	return true;
}

static void start_uring(struct file_queue *q)
{
	if (io_uring_queue_init(RING, &q->ring, 0))
		return;
	if (uring_works(&q->ring) && !io_uring_register_eventfd(&q->ring, q->event_fd))
		q->has_uring = true;
	else
		io_uring_queue_exit(&q->ring);
}

bool file_queue_has_uring(const struct file_queue *q)
{
	return q->has_uring;
}

/* ---- submitting and delivering ---- */

void file_queue_submit(struct file_queue *q, struct file_request *r)
{
	bool uring = for_uring(q, r);

	if (uring && r->op == FILE_WRITE && r->file->direct)
		file_direct_begin(r->file);
	pthread_mutex_lock(&q->lock);
	if (uring)
		give_to_uring(q, r);
	else
		give_to_threads(q, r);
	pthread_mutex_unlock(&q->lock);
}

static int deliver(struct file_queue *q)
{
	int n = 0;

	pthread_mutex_lock(&q->lock);
	reap(q);
	for (struct file_request *r; (r = pop(&q->over)); n++) {
		q->completed++;
		pthread_mutex_unlock(&q->lock);
		struct file *f = r->file;
		r->done(r, r->result);
		atomic_fetch_sub(&f->in_flight, 1);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return n;
}

static void ready(void *opaque, int fd, int events)
{
	uint64_t count;

	(void)events;
	(void)!read(fd, &count, sizeof(count));
	deliver(opaque);
}

static uint64_t completed_so_far(struct file_queue *q)
{
	pthread_mutex_lock(&q->lock);
	uint64_t n = q->completed;
	pthread_mutex_unlock(&q->lock);
	return n;
}

int file_queue_poll(struct file_queue *q, int timeout_ms)
{
	uint64_t before = completed_so_far(q);

	for (int waited = 0;; waited += POLL_SLICE_MS) {
		int n = deliver(q);
		if (n || completed_so_far(q) != before)
			return n;
		if (timeout_ms >= 0 && waited >= timeout_ms)
			return 0;
		/* The loop's thread may read the eventfd before we do, so never for long. */
		struct pollfd p = {.fd = q->event_fd, .events = POLLIN};
		uint64_t count;
		if (poll(&p, 1, POLL_SLICE_MS) > 0)
			(void)!read(q->event_fd, &count, sizeof(count));
	}
}

/* ---- life ---- */

static void destroy(struct file_queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_broadcast(&q->work);
	pthread_mutex_unlock(&q->lock);
	for (unsigned i = 0; i < q->threads; i++)
		pthread_join(q->thread[i], NULL);
	loop_fd_remove(q->watch);
	if (q->has_uring)
		io_uring_queue_exit(&q->ring);
	if (q->event_fd >= 0)
		close(q->event_fd);
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->work);
	free(q);
}

static struct file_queue *create(struct loop *loop, struct error *err)
{
	struct file_queue *q = calloc(1, sizeof(*q));
	int rc;

	if (!q) {
		error_set(err, -ENOMEM, "disk requests: out of memory");
		return NULL;
	}
	q->loop = loop;
	list_init(&q->waiting);
	list_init(&q->jobs);
	list_init(&q->over);
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->work, NULL);
	q->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = q->event_fd < 0 ? -errno : 0;
	if (!rc)
		rc = loop_fd_add(loop, q->event_fd, POLLIN, ready, q, &q->watch);
	if (rc) {
		error_set(err, rc, "disk requests: no eventfd: %s", strerror(-rc));
		destroy(q);
		return NULL;
	}
	start_uring(q);
	return q;
}

struct file_queue *file_queue_get(struct loop *loop, struct error *err)
{
	pthread_mutex_lock(&queues_lock);
	struct file_queue *q = queues;
	while (q && q->loop != loop)
		q = q->next;
	if (!q && (q = create(loop, err))) {
		q->next = queues;
		queues = q;
	}
	if (q)
		q->users++;
	pthread_mutex_unlock(&queues_lock);
	return q;
}

void file_queue_put(struct file_queue *q)
{
	pthread_mutex_lock(&queues_lock);
	bool last = !--q->users;
	struct file_queue **p = &queues;
	while (last && *p != q)
		p = &(*p)->next;
	if (last)
		*p = q->next;
	pthread_mutex_unlock(&queues_lock);
	if (last)
		destroy(q);
}
