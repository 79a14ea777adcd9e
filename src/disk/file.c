/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the host: theory of operation
 *
 *	file_submit() ── in the page cache? ── preadv2(RWF_NOWAIT), here and now ──> 0
 *	     │
 *	     └─ would block ─> file_queue ─┬─ io_uring ────┐
 *	                                   └─ 4 threads ───┴─> eventfd ─> loop ─> done()
 *
 * A copy out of (or into) the page cache takes about a microsecond, and any way that involves
 * another thread, also a kernel's, takes several. So every buffered read is tried on the caller's
 * thread first, by RWF_NOWAIT, which gives up where it would wait for the device. Not every file
 * system has that for writes (ext4 has not): there a plain call is made. If it took long, the next few
 * are looked at more closely: one that slept, because the kernel holds back who dirties memory faster
 * than the device can take it (and was not only kept from a busy processor), means that for a while no
 * more calls are made here.
 *
 * What is left goes to the loop's queue (file_queue.c): to io_uring if the kernel lets us, else, and
 * for what io_uring does not do well, to a few threads. Direct files (O_DIRECT) always wait for the
 * device, so they always take this way.
 *
 * Without a loop, and with FILE_WAIT, file_execute() (file_sync.c) does it all on the caller's
 * thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "disk/file_internal.h"

enum {
	INLINE_BYTES = 1 << 20, /* more than that is not done on the caller's thread */
	/* In ticks of the TSC, some GHz, which costs less to read than a clock. */
	SLOW_TICKS = 3000000,	      /* a call that took longer may have waited for the device */
	SLOW_PAUSE_TICKS = 300000000, /* if it did: for so long none are made */
	WATCHED_CALLS = 8,	      /* after a slow one */
	ALIGN_UNKNOWN = 4096,
};

/* ---- requests ---- */

static bool valid(const struct file *f, const struct file_request *r)
{
	if (r->op == FILE_SYNC)
		return true;
	if (r->offset > INT64_MAX || r->bytes > INT64_MAX - r->offset)
		return false;
	if (r->op == FILE_READ || r->op == FILE_WRITE)
		return r->iov_count <= IOV_MAX && (f->writable || r->op == FILE_READ);
	return f->writable && (r->op == FILE_DISCARD || r->op == FILE_ZERO);
}

/* One call on this thread; -EAGAIN: it would have had to wait. */
static ssize_t call_now(struct file *f, struct file_request *r, int flags)
{
	if (r->op == FILE_READ)
		return file_backend->preadv2(file_backend->opaque, f->fd, r->iov, (int)r->iov_count,
					     (off_t)r->offset, flags);
	return file_backend->pwritev2(file_backend->opaque, f->fd, r->iov, (int)r->iov_count,
				      (off_t)r->offset, flags);
}

/* How often this thread has slept. */
static long sleeps(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_nvcsw;
}

/* Without RWF_NOWAIT: by experience. */
static ssize_t call_timed(struct file *f, struct file_request *r)
{
	unsigned watched = atomic_load_explicit(&f->watched_calls, memory_order_relaxed);
	uint64_t start = clock_tsc();
	long before = 0;

	if (start < atomic_load_explicit(&f->slow_until_tsc, memory_order_relaxed))
		return -EAGAIN;
	if (watched)
		before = sleeps();
	ssize_t n = call_now(f, r, 0);
	uint64_t end = clock_tsc();
	bool slow = end - start > SLOW_TICKS;
	if (watched && slow && sleeps() != before)
		atomic_store_explicit(&f->slow_until_tsc, end + SLOW_PAUSE_TICKS,
				      memory_order_relaxed);
	if (watched || slow)
		atomic_store_explicit(&f->watched_calls, slow ? WATCHED_CALLS : watched - 1,
				      memory_order_relaxed);
	return n;
}

/* FILE_LATER: there is something left to do that may take long. */
static int try_now(struct file *f, struct file_request *r)
{
	atomic_bool *nowait = r->op == FILE_READ ? &f->nowait_read : &f->nowait_write;
	ssize_t n = -EOPNOTSUPP;

	if ((r->op != FILE_READ && r->op != FILE_WRITE) || f->direct || r->bytes > INLINE_BYTES)
		return FILE_LATER;
	if (atomic_load_explicit(nowait, memory_order_relaxed)) {
		n = call_now(f, r, RWF_NOWAIT);
		if (n == -EOPNOTSUPP)
			atomic_store_explicit(nowait, false, memory_order_relaxed);
	}
	if (n == -EOPNOTSUPP)
		n = call_timed(f, r);
	if (n == -EAGAIN)
		return FILE_LATER;
	if (n < 0)
		return (int)n;
	r->moved = (uint64_t)n;
	if (r->moved == r->bytes)
		return 0;
	return n == 0 && r->op == FILE_READ ? file_read_end(r) : FILE_LATER;
}

int file_submit(struct file *f, struct file_request *r)
{
	if (!valid(f, r))
		return r->op == FILE_READ || f->writable ? -EINVAL : -EBADF;
	r->file = f;
	r->rest = NULL;
	r->moved = 0;
	if (!r->bytes && r->op != FILE_SYNC)
		return 0;
	if (!f->queue || (r->flags & FILE_WAIT))
		return file_execute(f, r);
	int rc = try_now(f, r);
	if (rc == FILE_LATER && (r->flags & FILE_NOW))
		return -EAGAIN;
	if (rc == FILE_LATER) {
		atomic_fetch_add(&f->in_flight, 1);
		file_queue_submit(f->queue, r);
	}
	return rc;
}

int file_poll(struct file *f, int timeout_ms)
{
	return f->queue ? file_queue_poll(f->queue, timeout_ms) : 0;
}

/* ---- life ---- */

static const char *advice(int code)
{
	switch (code) {
	case -ENOENT:
		return "; is the name right?";
	case -EACCES:
	case -EPERM:
		return "; whose file is it? see ls -l";
	case -EROFS:
		return "; copy it to where it can be written to";
	case -EEXIST:
		return "; choose another name, or move it away";
	case -ENOSPC:
	case -EDQUOT:
		return "; make room";
	default:
		return "";
	}
}

static int open_failed(const char *path, const struct file_options *opt, int code,
		       struct error *err)
{
	return error_set(err, code, "%s: it cannot be %s: %s%s", path,
			 opt->create	 ? "created"
			 : opt->writable ? "opened for writing"
					 : "opened",
			 strerror(-code), advice(code));
}

static int open_host(struct file *f, const struct file_options *opt)
{
	/* O_NONBLOCK: a FIFO is found out about, not waited for. */
	int flags = (opt->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

	if (opt->create)
		flags |= O_CREAT | O_EXCL;
	if (opt->direct) {
		f->fd = file_backend->open(file_backend->opaque, f->path, flags | O_DIRECT, 0600);
		f->direct = f->fd >= 0;
		if (f->fd != -EINVAL)
			return f->fd < 0 ? f->fd : 0;
		/* The name was made before the flag was looked at. */
		flags &= ~O_EXCL;
		log_info("%s: its file system has no direct I/O; going through the page cache",
			 f->path);
	}
	f->fd = file_backend->open(file_backend->opaque, f->path, flags, 0600);
	return f->fd < 0 ? f->fd : 0;
}

static bool power_of_two(uint32_t v)
{
	return v && !(v & (v - 1));
}

static void find_alignment(struct file *f)
{
	f->align = f->mem_align = ALIGN_UNKNOWN;
#ifdef STATX_DIOALIGN
	struct statx sx;
	if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) &&
	    (sx.stx_mask & STATX_DIOALIGN) && power_of_two(sx.stx_dio_offset_align) &&
	    power_of_two(sx.stx_dio_mem_align) && sx.stx_dio_offset_align <= 65536) {
		f->align = sx.stx_dio_offset_align;
		f->mem_align = sx.stx_dio_mem_align;
	}
#endif
	if (f->mem_align < sizeof(void *))
		f->mem_align = sizeof(void *);
}

static int look(struct file *f, struct error *err)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return error_set(err, -errno, "%s: %s", f->path, strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL,
				 "%s: it is %s; a disk image is a file", f->path,
				 S_ISDIR(st.st_mode) ? "a folder" : "neither a file nor a disk");
	f->block_device = S_ISBLK(st.st_mode);
	f->device = f->block_device ? st.st_rdev : st.st_dev;
	f->inode = f->block_device ? 0 : st.st_ino;
	/* io_uring would take O_NONBLOCK for an order to fail rather than wait. */
	int flags = fcntl(f->fd, F_GETFL);
	if (flags < 0 || fcntl(f->fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return error_set(err, -errno, "%s: %s", f->path, strerror(errno));
	if (f->direct)
		find_alignment(f);
	return 0;
}

static int open_all(struct file *f, const char *path, const struct file_options *opt,
		    struct error *err)
{
	f->path = strdup(path);
	if (!f->path)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	int rc = open_host(f, opt);
	if (rc)
		return open_failed(path, opt, rc, err);
	rc = look(f, err);
	if (!rc && opt->lock != FILE_LOCK_NONE)
		rc = file_lock(f, opt->lock, err);
	if (!rc && opt->loop) {
		f->queue = file_queue_get(opt->loop, err);
		rc = f->queue ? 0 : -ENOMEM;
	}
	return rc;
}

int file_open(struct file **out, const char *path, const struct file_options *opt,
	      struct error *err)
{
	struct file *f = calloc(1, sizeof(*f));

	*out = NULL;
	if (!f)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	f->fd = -1;
	f->writable = opt->writable;
	f->nowait_read = f->nowait_write = true;
	pthread_mutex_init(&f->direct_lock, NULL);
	pthread_cond_init(&f->direct_idle, NULL);
	int rc = open_all(f, path, opt, err);
	if (rc) {
		file_close(f);
		return rc;
	}
	*out = f;
	return 0;
}

void file_close(struct file *f)
{
	if (!f)
		return;
	while (f->queue && atomic_load(&f->in_flight))
		file_queue_poll(f->queue, 10);
	if (f->queue)
		file_queue_put(f->queue);
	if (f->fd >= 0) {
		/* io_uring may hold on to the file a little longer than its last request takes, and
		 * the lock would stay with it. Letting go of one does not fail. */
		(void)file_lock_set(f->fd, f->lock, FILE_LOCK_NONE, f->path, NULL);
		int rc = file_backend->close(file_backend->opaque, f->fd);
		if (rc)
			log_error("%s: closing it failed: %s", f->path, strerror(-rc));
	}
	pthread_mutex_destroy(&f->direct_lock);
	pthread_cond_destroy(&f->direct_idle);
	free(f->path);
	free(f);
}

const char *file_path(const struct file *f)
{
	return f->path;
}

int file_set_path(struct file *f, const char *path)
{
	char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	free(f->path);
	f->path = copy;
	return 0;
}

int file_lock(struct file *f, enum file_lock lock, struct error *err)
{
	if (lock == FILE_LOCK_WRITE && !f->writable)
		return error_set(err, -EBADF, "%s: it is not open for writing", f->path);
	int rc = file_lock_set(f->fd, f->lock, lock, f->path, err);
	if (!rc)
		f->lock = lock;
	return rc;
}

bool file_same(const struct file *a, const struct file *b)
{
	return a->device == b->device && a->inode == b->inode && a->block_device == b->block_device;
}
