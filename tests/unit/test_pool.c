/* SPDX-License-Identifier: Apache-2.0 */
/* The file of the memory pool: who is there, who is gone however he went, and files that are not one. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/pool.h"
#include "control/pool_file.h"

#define MIB (UINT64_C(1) << 20)

static char folder[64], path[80];
static char said[1024]; /* the last line of the log, of warnings */

static void note(void *opaque, enum log_level level, const char *line)
{
	(void)opaque;
	if (level <= LOG_WARN)
		snprintf(said, sizeof(said), "%s", line);
}

static int setup(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/pool-test-XXXXXX");
	if (!mkdtemp(folder) || setenv("HANOK_RUNTIME", folder, 1))
		return -1;
	snprintf(path, sizeof(path), "%s/pool", folder);
	said[0] = 0;
	log_set_sink(note, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

static struct pool_file *open_pool(void)
{
	struct pool_file *f;
	struct error err = {""};

	if (pool_file_open(&f, true, &err))
		fail_msg("%s", err.text);
	return f;
}

static struct pool_file *enter(const char *name, uint64_t used_mib)
{
	struct pool_file *f = open_pool();
	struct pool_member m = {.pid = 1, .used_bytes = used_mib * MIB};

	snprintf(m.name, sizeof(m.name), "%s", name);
	assert_int_equal(pool_file_claim(f, NULL), 0);
	assert_int_equal(pool_file_publish(f, &m, NULL), 0);
	return f;
}

static struct pool_member members[POOL_MEMBERS];

static int count(struct pool_file *f)
{
	uint64_t bytes;
	struct error err = {""};
	int n = pool_file_read(f, &bytes, members, &err);

	if (n < 0)
		fail_msg("%s", err.text);
	return n;
}

/* ---- members ---- */

static void all_see_each_other(void **state)
{
	struct pool_file *a = enter("a", 10), *b = enter("b", 20), *look = open_pool();
	struct stat st;
	uint64_t bytes;

	(void)state;
	assert_int_equal(count(look), 2);
	assert_string_equal(members[0].name, "a");
	assert_string_equal(members[1].name, "b");
	assert_int_equal(members[1].used_bytes, 20 * MIB);
	assert_int_equal(count(a), 1); /* not oneself */
	assert_string_equal(members[0].name, "b");
	assert_int_equal(pool_file_set_size(look, 77 * MIB, NULL), 0);
	assert_int_equal(pool_file_read(a, &bytes, members, NULL), 1);
	assert_int_equal(bytes, 77 * MIB);
	pool_file_close(a);
	assert_int_equal(count(look), 1);
	/* A free place is taken again. */
	a = enter("c", 5);
	assert_int_equal(count(look), 2);
	assert_string_equal(members[0].name, "c");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	pool_file_close(a);
	pool_file_close(b);
	pool_file_close(look);
}

static void who_is_killed_is_gone(void **state)
{
	struct pool_file *look = open_pool(), *next;
	int ready[2];
	char c;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (pid == 0) {
		enter("victim", 1);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(count(look), 1);
	assert_string_equal(members[0].name, "victim");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(count(look), 0); /* what it wrote is still there */
	next = enter("next", 1);
	assert_int_equal(count(look), 1);
	assert_string_equal(members[0].name, "next");
	pool_file_close(next);
	pool_file_close(look);
	close(ready[0]);
	close(ready[1]);
}

static void no_more_than_fit(void **state)
{
	static struct pool_file *f[POOL_MEMBERS];
	struct pool_file *more;
	struct error err = {""};

	(void)state;
	for (int i = 0; i < POOL_MEMBERS; i++)
		f[i] = enter("one of many", 1);
	more = open_pool();
	assert_int_equal(count(more), POOL_MEMBERS);
	assert_int_equal(pool_file_claim(more, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "256 machines"));
	pool_file_close(f[100]);
	assert_int_equal(pool_file_claim(more, &err), 0);
	f[100] = more;
	for (int i = 0; i < POOL_MEMBERS; i++)
		pool_file_close(f[i]);
}

/* ---- files ---- */

static void scribble(off_t at, const void *data, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, len, at), (int)len);
	close(fd);
}

static void wrong_files_are_told(void **state)
{
	struct pool_file *f;
	struct error err = {""};

	(void)state;
	assert_int_equal(pool_file_open(&f, false, &err), -ENOENT);
	assert_null(f);
	scribble(0, "something else, and long enough to be a header", 46);
	assert_int_equal(pool_file_open(&f, true, &err), -EINVAL);
	assert_non_null(strstr(err.text, "not a pool's file"));
	assert_int_equal(truncate(path, 3), 0);
	assert_int_equal(pool_file_open(&f, true, &err), -EINVAL);
	assert_non_null(strstr(err.text, "cut off"));
	unlink(path);
	pool_file_close(open_pool());
	scribble(8, "\2", 1);
	assert_int_equal(pool_file_open(&f, true, &err), -EINVAL);
	assert_non_null(strstr(err.text, "another version"));
	scribble(8, "\1", 1);
	scribble(16, "\1", 1);
	assert_int_equal(pool_file_open(&f, true, &err), -EINVAL);
	assert_non_null(strstr(err.text, "damaged"));
	chmod(path, 0666);
	assert_int_equal(pool_file_open(&f, true, &err), -EINVAL);
	assert_non_null(strstr(err.text, "others may write"));
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(pool_file_open(&f, true, &err), -EINVAL);
	unlink(path);
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(pool_file_open(&f, true, &err), -ELOOP);
	assert_null(f);
}

static void slots_half_written_are_passed_over(void **state)
{
	struct pool_file *a = enter("a", 10), *b = enter("b", 20);

	(void)state;
	scribble(4096 + 56, "\xff\xff", 2);
	assert_int_equal(count(b), 0);
	assert_int_equal(count(a), 1);
	pool_file_close(a);
	pool_file_close(b);
}

/* Whatever is in it: names end, counts are bounded, and what nobody scribbled on is seen. */
static void noise_does_no_harm(void **state)
{
	struct pool_file *a = enter("a", 10), *b = enter("b", 20), *look = open_pool();
	uint8_t noise[600];
	uint64_t r = 1, bytes;

	(void)state;
	for (unsigned n = 0; n < 3000; n++) {
		for (unsigned i = 0; i < sizeof(noise); i++) {
			r = r * UINT64_C(6364136223846793005) + 1442695040888963407;
			noise[i] = (uint8_t)(r >> 56);
		}
		/* Now and then the header; never the first slot. */
		off_t at = n % 100 == 0 ? (off_t)(r >> 33) % 32 : 4352 + (off_t)(r >> 33) % 60000;
		scribble(at, noise, n % 100 == 0 ? 1 : (r >> 40) % sizeof(noise) + 1);
		int got = pool_file_read(look, &bytes, members, NULL);
		assert_true(got >= 0 ? got == 1 || got == 2 : got == -EINVAL);
		for (int i = 0; i < got; i++)
			assert_non_null(memchr(members[i].name, 0, POOL_NAME_BYTES));
		if (got < 0)
			assert_int_equal(pool_file_set_size(look, 0, NULL), 0);
		else
			assert_string_equal(members[0].name, "a");
	}
	pool_file_close(a);
	pool_file_close(b);
	pool_file_close(look);
}

static void files_cut_off_and_removed_are_noticed(void **state)
{
	struct pool_file *a = enter("a", 10);
	struct error err = {""};
	uint64_t bytes;

	(void)state;
	assert_int_equal(truncate(path, 5000), 0);
	assert_int_equal(pool_file_read(a, &bytes, members, &err), -EINVAL);
	assert_non_null(strstr(err.text, "cut off"));
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(pool_file_read(a, &bytes, members, &err), -EINVAL);
	unlink(path);
	assert_int_equal(pool_file_read(a, &bytes, members, &err), -ESTALE);
	pool_file_close(a);
}

/* ---- a machine in it ---- */

struct vm {
	struct mem *m;
	struct loop *loop;
	struct pool *pool;
	struct timer end;
};

static void stop(void *opaque)
{
	struct vm *v = opaque;

	loop_stop(v->loop);
}

static void make_vm(struct vm *v, uint64_t limit)
{
	struct error err = {""};
	struct mem_config mc = {.limit_bytes = limit};

	*v = (struct vm){0};
	assert_int_equal(mem_create(&v->m, 64 * MIB, &err), 0);
	assert_int_equal(mem_start(v->m, &mc, &err), 0);
	assert_int_equal(loop_create(&v->loop, &err), 0);
	struct pool_config c = {v->m, v->loop, "vm", limit, 0, 640};
	if (pool_join(&v->pool, &c, &err))
		fail_msg("%s", err.text);
	timer_init(&v->end, v->loop, stop, v);
}

static void run_for(struct vm *v, unsigned ms)
{
	timer_arm(&v->end, clock_ns() + ms * UINT64_C(1000000));
	loop_run(v->loop);
}

static void free_vm(struct vm *v)
{
	pool_leave(v->pool);
	timer_destroy(&v->end);
	mem_stop(v->m);
	mem_destroy(v->m);
	loop_destroy(v->loop);
}

static void touch(struct mem *m, uint64_t mib)
{
	for (uint64_t gpa = 0; gpa < mib * MIB; gpa += MEM_PAGE_BYTES)
		assert_int_equal(mem_write(m, gpa, &gpa, sizeof(gpa)), 0);
}

static uint64_t limit_of(struct mem *m)
{
	struct mem_stats s;

	mem_get_stats(m, &s, false);
	return s.limit_bytes;
}

static void limits_come_and_go_with_pressure(void **state)
{
	struct pool_file *other = enter("other", 40), *look = open_pool();
	struct pool_member m = {.pid = 2,
				.beat_ns = clock_ns(),
				.ram_bytes = 64 * MIB,
				.shares = 640,
				.used_bytes = 2 * MIB,
				.touched_bytes = 64 * MIB,
				.active_bytes = 64 * MIB};
	struct vm v;

	(void)state;
	assert_int_equal(pool_file_set_size(look, 80 * MIB, NULL), 0);
	assert_int_equal(pool_file_publish(other, &m, NULL), 0);
	make_vm(&v, 0);
	touch(v.m, 40);
	run_for(&v, 1500);
	assert_int_equal(limit_of(v.m), 0); /* 42 of 80: there is room, even if it grows on */
	touch(v.m, 60);
	m.used_bytes = 30 * MIB;
	assert_int_equal(pool_file_publish(other, &m, NULL), 0);
	run_for(&v, 1500);
	/* Equal shares, all in use. */
	assert_true(limit_of(v.m) > 39 * MIB && limit_of(v.m) <= 40 * MIB);
	assert_int_equal(count(other), 1);
	assert_int_equal(members[0].kept_bytes, limit_of(v.m));
	/* The other goes: all of it is here, and after a look the limit is no less than all. */
	pool_file_close(other);
	run_for(&v, 1500);
	assert_true(limit_of(v.m) >= 64 * MIB - 64 * MIB / 32);
	/* No pool: no limit; and none when it is left. */
	assert_int_equal(pool_file_set_size(look, 0, NULL), 0);
	run_for(&v, 1500);
	assert_int_equal(limit_of(v.m), 0);
	pool_file_close(look);
	free_vm(&v);
}

/* A process that was stopped gives nothing back: the others do with the rest. */
static void who_is_silent_keeps_what_he_has(void **state)
{
	struct pool_file *other = enter("stopped", 40), *look = open_pool();
	struct pool_member m = {.pid = 2,
				.beat_ns = clock_ns() - 30 * UINT64_C(1000000000),
				.ram_bytes = 64 * MIB,
				.shares = 1,
				.used_bytes = 40 * MIB,
				.touched_bytes = 40 * MIB};
	struct vm v;

	(void)state;
	assert_int_equal(pool_file_set_size(look, 80 * MIB, NULL), 0);
	assert_int_equal(pool_file_publish(other, &m, NULL), 0);
	make_vm(&v, 0);
	touch(v.m, 60);
	run_for(&v, 1500);
	assert_int_equal(limit_of(v.m), 40 * MIB);
	/* It goes on: nearly all is idle, with hardly a share. */
	m.beat_ns = clock_ns();
	assert_int_equal(pool_file_publish(other, &m, NULL), 0);
	run_for(&v, 1500);
	assert_true(limit_of(v.m) > 60 * MIB);
	free_vm(&v);
	pool_file_close(other);
	pool_file_close(look);
}

static void own_limits_stay(void **state)
{
	struct pool_file *look = open_pool();
	struct vm v;

	(void)state;
	assert_int_equal(pool_file_set_size(look, 4 * MIB, NULL), 0);
	make_vm(&v, 8 * MIB);
	touch(v.m, 12);
	run_for(&v, 2500);
	assert_true(limit_of(v.m) <= 4 * MIB);
	/* The pool's file is removed: another is made, and there is no pool any more. */
	unlink(path);
	run_for(&v, 1500);
	assert_int_equal(limit_of(v.m), 8 * MIB);
	assert_int_equal(access(path, F_OK), 0);
	assert_string_equal(said, "");
	free_vm(&v);
	pool_file_close(look);
}

static void who_falls_out_says_so_once(void **state)
{
	struct pool_file *look = open_pool();
	struct vm v;

	(void)state;
	assert_int_equal(pool_file_set_size(look, 8 * MIB, NULL), 0);
	make_vm(&v, 0);
	touch(v.m, 12);
	run_for(&v, 1500);
	assert_true(limit_of(v.m) > 0);
	assert_string_equal(said, "");
	assert_int_equal(truncate(path, 100), 0);
	run_for(&v, 1500);
	assert_non_null(strstr(said, "the memory pool is left"));
	assert_non_null(strstr(said, "cut off"));
	assert_int_equal(limit_of(v.m), 0);
	said[0] = 0;
	run_for(&v, 1500);
	assert_string_equal(said, "");
	free_vm(&v);
	pool_file_close(look);
}

static void reservations_too_large_are_told(void **state)
{
	struct pool_file *other = enter("other", 40), *look = open_pool();
	struct pool_member m = {.pid = 2,
				.beat_ns = clock_ns(),
				.ram_bytes = 64 * MIB,
				.min_bytes = 64 * MIB,
				.shares = 640};
	struct vm v;

	(void)state;
	assert_int_equal(pool_file_set_size(look, 32 * MIB, NULL), 0);
	assert_int_equal(pool_file_publish(other, &m, NULL), 0);
	make_vm(&v, 0);
	assert_non_null(strstr(said, "smaller than the reservations"));
	free_vm(&v);
	pool_file_close(other);
	pool_file_close(look);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(all_see_each_other),
		TEST(who_is_killed_is_gone),
		TEST(no_more_than_fit),
		TEST(wrong_files_are_told),
		TEST(slots_half_written_are_passed_over),
		TEST(noise_does_no_harm),
		TEST(files_cut_off_and_removed_are_noticed),
		TEST(limits_come_and_go_with_pressure),
		TEST(who_is_silent_keeps_what_he_has),
		TEST(own_limits_stay),
		TEST(who_falls_out_says_so_once),
		TEST(reservations_too_large_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
