/* SPDX-License-Identifier: Apache-2.0 */
/* disk/file.h: random requests against memory by every way there is; faults, locks, names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "disk/file_internal.h"

static char folder[] = "/tmp/hanok-file-XXXXXX";
static char path[64];
static struct loop *loop;

static int setup(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "%s/image", folder);
	unlink(path);
	return loop_create(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	file_set_backend(NULL);
	loop_destroy(loop);
	unlink(path);
	return 0;
}

static struct file *open_new(struct file_options opt)
{
	struct error err = {""};
	struct file *f;

	opt.writable = opt.create = true;
	if (file_open(&f, path, &opt, &err))
		fail_msg("%s", err.text);
	return f;
}

/* ---- a backend with faults ---- */

static struct {
	bool short_transfers;
	int write_error, sync_error;
	unsigned calls;
	uint32_t seed;
} fault;

static size_t shorten(const struct iovec *iov, int n, struct iovec *one)
{
	size_t total = 0, unit = 512;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	*one = iov[0];
	if (fault.short_transfers && one->iov_len > unit)
		one->iov_len = unit * (1 + rand_r(&fault.seed) % (one->iov_len / unit));
	return total;
}

static ssize_t faulty_read(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			   int flags)
{
	struct iovec one;

	__atomic_add_fetch(&fault.calls, 1, __ATOMIC_RELAXED);
	if (!fault.short_transfers)
		return file_host_backend.preadv2(opaque, fd, iov, n, offset, flags);
	shorten(iov, n, &one);
	return file_host_backend.preadv2(opaque, fd, &one, 1, offset, flags);
}

static ssize_t faulty_write(void *opaque, int fd, const struct iovec *iov, int n, off_t offset,
			    int flags)
{
	struct iovec one;

	__atomic_add_fetch(&fault.calls, 1, __ATOMIC_RELAXED);
	if (fault.write_error)
		return fault.write_error;
	if (!fault.short_transfers)
		return file_host_backend.pwritev2(opaque, fd, iov, n, offset, flags);
	shorten(iov, n, &one);
	return file_host_backend.pwritev2(opaque, fd, &one, 1, offset, flags);
}

static int faulty_sync(void *opaque, int fd)
{
	return fault.sync_error ? fault.sync_error : file_host_backend.fdatasync(opaque, fd);
}

static struct file_backend faulty;

static void use_faulty(void)
{
	memset(&fault, 0, sizeof(fault));
	faulty = file_host_backend;
	faulty.preadv2 = faulty_read;
	faulty.pwritev2 = faulty_write;
	faulty.fdatasync = faulty_sync;
	file_set_backend(&faulty);
}

/* ---- random requests ---- */

enum { SLOTS = 16, SLOT_BYTES = 1 << 19, IMAGE_BYTES = SLOTS * SLOT_BYTES };

struct slot {
	struct file_request r;
	struct iovec iov[4];
	char *buf; /* of SLOT_BYTES + 64 */
	bool busy;
	unsigned index;
};

static struct {
	char *model;
	struct slot slot[SLOTS];
	unsigned left, in_flight, later;
	uint32_t seed;
	unsigned unit; /* of offsets, lengths and addresses */
	struct file *f;
} scribble;

static void check_read(struct slot *s)
{
	uint64_t at = s->r.offset;

	for (unsigned i = 0; i < s->r.iov_count; i++) {
		if (memcmp(s->iov[i].iov_base, scribble.model + at, s->iov[i].iov_len))
			fail_msg("read at %llu differs", (unsigned long long)at);
		at += s->iov[i].iov_len;
	}
}

static void over(struct slot *s, int rc)
{
	assert_int_equal(rc, 0);
	if (s->r.op == FILE_READ)
		check_read(s);
	s->busy = false;
}

static void next_requests(void);

static void over_later(struct file_request *r, int rc)
{
	over(r->opaque, rc);
	scribble.in_flight--;
	next_requests();
}

static unsigned pick(unsigned n)
{
	return (unsigned)rand_r(&scribble.seed) % n;
}

/* Cuts the request's buffer into up to four pieces, each at an offset that suits the unit. */
static void cut(struct slot *s, uint64_t bytes)
{
	char *at = s->buf + (scribble.unit == 1 ? pick(64) : 0);

	s->r.iov_count = 0;
	while (bytes) {
		uint64_t n = bytes;
		if (s->r.iov_count < 3 && bytes > scribble.unit)
			n = scribble.unit * (1 + pick((unsigned)(bytes / scribble.unit)));
		s->iov[s->r.iov_count++] = (struct iovec){at, n};
		at += n;
		bytes -= n;
	}
}

static void one_request(struct slot *s)
{
	static const enum file_op ops[] = {FILE_READ, FILE_READ, FILE_WRITE,  FILE_WRITE,
					   FILE_ZERO, FILE_SYNC, FILE_DISCARD};
	unsigned units = SLOT_BYTES / scribble.unit, from = pick(units);
	uint64_t bytes = (uint64_t)scribble.unit * (1 + pick(units - from));
	char *model = scribble.model + (uint64_t)s->index * SLOT_BYTES + from * scribble.unit;

	s->r = (struct file_request){.op = ops[pick(7)], .done = over_later, .opaque = s};
	s->busy = true;
	if (s->r.op != FILE_SYNC) {
		s->r.offset = (uint64_t)(model - scribble.model);
		s->r.bytes = bytes;
	}
	if (s->r.op == FILE_READ || s->r.op == FILE_WRITE) {
		cut(s, bytes);
		s->r.iov = s->iov;
		s->r.flags = FILE_EOF_ZEROES;
	}
	if (s->r.op == FILE_ZERO)
		s->r.flags = pick(2) ? FILE_MAY_UNMAP : 0;
	if (s->r.op == FILE_WRITE) {
		char *to = model;
		for (unsigned i = 0; i < s->r.iov_count; i++) {
			memset(s->iov[i].iov_base, (int)pick(256), s->iov[i].iov_len);
			if (s->iov[i].iov_len >= 4)
				memcpy(s->iov[i].iov_base, &scribble.seed, 4);
			memcpy(to, s->iov[i].iov_base, s->iov[i].iov_len);
			to += s->iov[i].iov_len;
		}
	} else if (s->r.op == FILE_ZERO || s->r.op == FILE_DISCARD) {
		memset(model, 0, bytes);
	}
	scribble.in_flight++;
	int rc = file_submit(scribble.f, &s->r);
	if (rc == FILE_LATER) {
		scribble.later++;
		return;
	}
	scribble.in_flight--;
	over(s, rc);
}

static void next_requests(void)
{
	for (unsigned i = 0; scribble.left && i < SLOTS; i++) {
		struct slot *s = &scribble.slot[pick(SLOTS)];
		if (!s->busy) {
			scribble.left--;
			one_request(s);
		}
	}
	if (!scribble.left && !scribble.in_flight)
		loop_stop(loop);
}

static void start_scribble(void *opaque)
{
	(void)opaque;
	next_requests();
	if (!scribble.in_flight && scribble.left)
		loop_post(loop, start_scribble, NULL);
}

static void random_requests(struct file_options opt, unsigned unit, unsigned count)
{
	opt.loop = loop;
	scribble.f = open_new(opt);
	scribble.unit = unit;
	scribble.left = count;
	scribble.later = scribble.in_flight = 0;
	scribble.seed = (uint32_t)clock_ns();
	print_message("seed %u\n", scribble.seed);
	scribble.model = calloc(1, IMAGE_BYTES);
	for (unsigned i = 0; i < SLOTS; i++) {
		scribble.slot[i].index = i;
		assert_int_equal(
			posix_memalign((void **)&scribble.slot[i].buf, 4096, SLOT_BYTES + 64), 0);
	}
	assert_int_equal(file_truncate(scribble.f, IMAGE_BYTES), 0);
	assert_int_equal(loop_post(loop, start_scribble, NULL), 0);
	loop_run(loop);
	assert_true(scribble.later > 0);
	char *all = malloc(IMAGE_BYTES);
	assert_int_equal(file_pread(scribble.f, all, IMAGE_BYTES, 0), 0);
	assert_memory_equal(all, scribble.model, IMAGE_BYTES);
	file_close(scribble.f);
	free(all);
	free(scribble.model);
	for (unsigned i = 0; i < SLOTS; i++)
		free(scribble.slot[i].buf);
}

static void scribble_buffered(void **state)
{
	(void)state;
	random_requests((struct file_options){0}, 1, 600);
}

static void scribble_direct(void **state)
{
	(void)state;
	random_requests((struct file_options){.direct = true}, 512, 300);
}

static void scribble_direct_unaligned(void **state)
{
	(void)state;
	random_requests((struct file_options){.direct = true}, 1, 100);
}

static void scribble_short(void **state)
{
	(void)state;
	use_faulty();
	fault.short_transfers = true;
	random_requests((struct file_options){0}, 1, 100);
	assert_true(fault.calls > 100);
}

static void scribble_short_direct(void **state)
{
	(void)state;
	use_faulty();
	fault.short_transfers = true;
	random_requests((struct file_options){.direct = true}, 512, 100);
}

/* ---- without io_uring ---- */

static void deny_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(2);
}

static void works_without_io_uring(void **state)
{
	int status;

	(void)state;
	pid_t pid = fork();
	if (!pid) {
		deny_io_uring();
		struct file *f = open_new((struct file_options){.loop = loop});
		bool has = file_queue_has_uring(f->queue);
		file_close(f);
		unlink(path);
		if (has)
			_exit(3);
		random_requests((struct file_options){0}, 1, 100);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* ---- errors ---- */

static int last_rc;

static void note_rc(struct file_request *r, int rc)
{
	(void)r;
	last_rc = rc;
}

static int submit_and_wait(struct file *f, struct file_request *r)
{
	r->done = note_rc;
	int rc = file_submit(f, r);
	if (rc != FILE_LATER)
		return rc;
	last_rc = 1;
	while (last_rc == 1)
		assert_true(file_poll(f, 1000) > 0);
	return last_rc;
}

static void failures_are_passed_on(void **state)
{
	static char buf[4096];
	struct iovec iov = {buf, sizeof(buf)};

	(void)state;
	use_faulty();
	struct file *f = open_new((struct file_options){.loop = loop});
	struct file_request w = {
		.op = FILE_WRITE, .bytes = sizeof(buf), .iov = &iov, .iov_count = 1};
	fault.write_error = -ENOSPC;
	assert_int_equal(submit_and_wait(f, &w), -ENOSPC);
	assert_int_equal(file_pwrite(f, buf, 100, 0), -ENOSPC);
	fault.write_error = -EIO;
	assert_int_equal(submit_and_wait(f, &w), -EIO);
	fault.write_error = 0;
	assert_int_equal(submit_and_wait(f, &w), 0);
	struct file_request s = {.op = FILE_SYNC};
	fault.sync_error = -EIO;
	assert_int_equal(submit_and_wait(f, &s), -EIO);
	assert_int_equal(file_sync(f), -EIO);
	fault.sync_error = 0;
	assert_int_equal(submit_and_wait(f, &s), 0);
	file_close(f);
}

/* A file that is cut short while it is open. */
static void shrunk(void **state)
{
	static char buf[8192];
	struct iovec iov = {buf, sizeof(buf)};

	(void)state;
	for (int direct = 0; direct < 2; direct++) {
		unlink(path);
		struct file *f = open_new((struct file_options){.loop = loop, .direct = direct});
		memset(buf, 7, sizeof(buf));
		assert_int_equal(file_pwrite(f, buf, sizeof(buf), 0), 0);
		assert_int_equal(truncate(path, 1000), 0);
		struct file_request r = {
			.op = FILE_READ, .bytes = sizeof(buf), .iov = &iov, .iov_count = 1};
		assert_int_equal(submit_and_wait(f, &r), -EIO);
		assert_int_equal(file_pread(f, buf, sizeof(buf), 0), -EIO);
		r.flags = FILE_EOF_ZEROES;
		memset(buf, 1, sizeof(buf));
		assert_int_equal(submit_and_wait(f, &r), 0);
		for (unsigned i = 0; i < sizeof(buf); i++)
			assert_int_equal(buf[i], i < 1000 ? 7 : 0);
		assert_int_equal(file_pread_some(f, buf, sizeof(buf), 500), 500);
		file_close(f);
	}
}

static void bad_requests(void **state)
{
	char c = 0;
	struct iovec iov = {&c, 1};
	struct file *f;

	(void)state;
	f = open_new((struct file_options){0});
	struct file_request r = {
		.op = FILE_READ, .offset = UINT64_MAX, .bytes = 1, .iov = &iov, .iov_count = 1};
	assert_int_equal(file_submit(f, &r), -EINVAL);
	r.offset = 1, r.bytes = INT64_MAX;
	assert_int_equal(file_submit(f, &r), -EINVAL);
	file_close(f);
	assert_int_equal(file_open(&f, path, &(struct file_options){0}, NULL), 0);
	assert_int_equal(file_pwrite(f, &c, 1, 0), -EBADF);
	assert_int_equal(file_truncate(f, 9), -EBADF);
	file_close(f);
	struct error err;
	assert_int_equal(file_open(&f, folder, &(struct file_options){0}, &err), -EISDIR);
	assert_non_null(strstr(err.text, "a folder"));
	assert_int_equal(
		file_open(&f, path, &(struct file_options){.writable = true, .create = true}, &err),
		-EEXIST);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(file_open(&f, "/nowhere/x", &(struct file_options){0}, &err), -ENOENT);
}

/* ---- space ---- */

static void zero_discard_allocate(void **state)
{
	static char buf[1 << 16];
	uint64_t size, host, n;
	bool data;

	(void)state;
	struct file *f = open_new((struct file_options){0});
	memset(buf, 1, sizeof(buf));
	assert_int_equal(file_pwrite(f, buf, sizeof(buf), 0), 0);
	assert_int_equal(file_zero(f, sizeof(buf) - 100, 300, 0), 0);
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, sizeof(buf) + 200);
	assert_int_equal(file_pread(f, buf, 300, sizeof(buf) - 100), 0);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(buf[i], 0);
	int rc = file_discard(f, 0, 32768);
	if (rc != -EOPNOTSUPP) {
		assert_int_equal(rc, 0);
		assert_int_equal(file_extent(f, 0, &data, &n), 0);
		assert_false(data);
		assert_int_equal(n, 32768);
		assert_int_equal(file_extent(f, 32768, &data, &n), 0);
		assert_true(data);
	}
	assert_int_equal(file_extent(f, size, &data, &n), -ENXIO);
	assert_int_equal(file_allocate(f, 0, 1 << 20), 0);
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, 1 << 20);
	assert_int_equal(file_host_bytes(f, &host), 0);
	assert_true(host >= 1 << 20);
	assert_int_equal(file_pread(f, buf, 1, 40000), 0);
	assert_int_equal(buf[0], 1);
	file_close(f);
}

/* ---- locks ---- */

static int open_locked(struct file **f, enum file_lock lock, struct error *err)
{
	return file_open(f, path,
			 &(struct file_options){.writable = lock == FILE_LOCK_WRITE, .lock = lock},
			 err);
}

static void locks(void **state)
{
	struct file *a, *b;
	struct error err;

	(void)state;
	file_close(open_new((struct file_options){0}));
	assert_int_equal(open_locked(&a, FILE_LOCK_READ, &err), 0);
	assert_int_equal(open_locked(&b, FILE_LOCK_READ, &err), 0);
	assert_true(file_same(a, b));
	file_close(b);
	assert_int_equal(open_locked(&b, FILE_LOCK_WRITE, &err), -EBUSY);
	assert_non_null(strstr(err.text, "this process"));
	file_close(a);
	assert_int_equal(open_locked(&a, FILE_LOCK_WRITE, &err), 0);
	assert_int_equal(open_locked(&b, FILE_LOCK_READ, &err), -EBUSY);
	assert_int_equal(file_lock(a, FILE_LOCK_READ, &err), 0);
	assert_int_equal(open_locked(&b, FILE_LOCK_READ, &err), 0);
	assert_int_equal(file_lock(a, FILE_LOCK_WRITE, &err), -EBUSY);
	file_close(b);
	assert_int_equal(file_lock(a, FILE_LOCK_WRITE, &err), 0);
	file_close(a);
}

/* Another reference to the open file, as io_uring may have for a moment, does not keep the lock. */
static void closing_lets_go_of_the_lock(void **state)
{
	(void)state;
	struct file *f = open_new((struct file_options){.lock = FILE_LOCK_WRITE});
	int other = dup(f->fd);
	struct error err;

	assert_true(other >= 0);
	file_close(f);
	assert_int_equal(open_locked(&f, FILE_LOCK_WRITE, &err), 0);
	file_close(f);
	close(other);
}

static void *close_later(void *fd)
{
	usleep(100000);
	close(*(int *)fd);
	return NULL;
}

/* An open file that is in nobody's table of descriptors: it is on its way through a socket. */
static void a_lock_that_nobody_holds_is_waited_for(void **state)
{
	(void)state;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct msghdr m = {.msg_iov = &(struct iovec){"x", 1},
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	struct file *f = open_new((struct file_options){0});
	int pair[2], fd = open(path, O_RDWR | O_CLOEXEC);
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct error err;
	pthread_t thread;

	file_close(f);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &all), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	assert_int_equal(sendmsg(pair[0], &m, 0), 1);
	close(fd);
	close(pair[0]);
	assert_int_equal(pthread_create(&thread, NULL, close_later, &pair[1]), 0);
	assert_int_equal(open_locked(&f, FILE_LOCK_WRITE, &err), 0);
	pthread_join(thread, NULL);
	file_close(f);
}

static void lock_names_the_holder(void **state)
{
	struct error err;
	struct file *f;
	int up[2], status;
	char c, pid_text[32];

	(void)state;
	file_close(open_new((struct file_options){0}));
	assert_int_equal(pipe(up), 0);
	pid_t pid = fork();
	if (!pid) {
		if (open_locked(&f, FILE_LOCK_WRITE, NULL) || write(up[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(up[0], &c, 1), 1);
	assert_int_equal(open_locked(&f, FILE_LOCK_READ, &err), -EBUSY);
	snprintf(pid_text, sizeof(pid_text), "process %d ", pid);
	assert_non_null(strstr(err.text, pid_text));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_int_equal(open_locked(&f, FILE_LOCK_WRITE, NULL), 0);
	file_close(f);
	close(up[0]);
	close(up[1]);
}

/* ---- names ---- */

static void replace_and_load(void **state)
{
	char tmp[128], *text;
	uint64_t bytes;
	struct stat st;

	(void)state;
	assert_int_equal(file_replace(path, "one", 3, NULL), 0);
	assert_int_equal(chmod(path, 0640), 0);
	/* What a crash left. */
	snprintf(tmp, sizeof(tmp), "%s.new", path);
	close(open(tmp, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(file_replace(path, "two!", 4, NULL), 0);
	assert_int_equal(access(tmp, F_OK), -1);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(file_load(path, 100, &text, &bytes, NULL), 0);
	assert_int_equal(bytes, 4);
	assert_string_equal(text, "two!");
	free(text);
	assert_int_equal(file_load(path, 3, &text, &bytes, NULL), -EFBIG);
	/* A failure leaves the old one, and nothing beside it. */
	use_faulty();
	fault.write_error = -ENOSPC;
	assert_int_equal(file_replace(path, "three", 5, NULL), -ENOSPC);
	fault.write_error = 0;
	fault.sync_error = -EIO;
	assert_int_equal(file_replace(path, "three", 5, NULL), -EIO);
	file_set_backend(NULL);
	assert_int_equal(access(tmp, F_OK), -1);
	assert_int_equal(file_load(path, 100, &text, &bytes, NULL), 0);
	assert_string_equal(text, "two!");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(scribble_buffered, setup, teardown),
		cmocka_unit_test_setup_teardown(scribble_direct, setup, teardown),
		cmocka_unit_test_setup_teardown(scribble_direct_unaligned, setup, teardown),
		cmocka_unit_test_setup_teardown(scribble_short, setup, teardown),
		cmocka_unit_test_setup_teardown(scribble_short_direct, setup, teardown),
		cmocka_unit_test_setup_teardown(works_without_io_uring, setup, teardown),
		cmocka_unit_test_setup_teardown(failures_are_passed_on, setup, teardown),
		cmocka_unit_test_setup_teardown(shrunk, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(zero_discard_allocate, setup, teardown),
		cmocka_unit_test_setup_teardown(locks, setup, teardown),
		cmocka_unit_test_setup_teardown(closing_lets_go_of_the_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lock_that_nobody_holds_is_waited_for, setup,
						teardown),
		cmocka_unit_test_setup_teardown(lock_names_the_holder, setup, teardown),
		cmocka_unit_test_setup_teardown(replace_and_load, setup, teardown),
	};

	if (!mkdtemp(folder))
		return 1;
	int failed = cmocka_run_group_tests_name("disk file", tests, NULL, NULL);
	rmdir(folder);
	return failed;
}
