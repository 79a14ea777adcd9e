/* SPDX-License-Identifier: Apache-2.0 */
/* base/loop.h: posts, timers in order and from any thread, descriptors of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

#define MS UINT64_C(1000000)

static struct loop *loop;

static int setup(void **state)
{
	(void)state;
	return loop_create(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	loop_destroy(loop);
	return 0;
}

static void stop(void *opaque)
{
	(void)opaque;
	loop_stop(loop);
}

/* ---- posts ---- */

static int posted[3], posted_nr;

static void record(void *opaque)
{
	posted[posted_nr++] = *(int *)opaque;
	if (posted_nr == 3)
		loop_stop(loop);
}

static void posts_run_in_order(void **state)
{
	int numbers[] = {7, 8, 9};

	(void)state;
	posted_nr = 0;
	for (int i = 0; i < 3; i++)
		assert_int_equal(loop_post(loop, record, &numbers[i]), 0);
	loop_run(loop);
	assert_int_equal(posted_nr, 3);
	assert_memory_equal(posted, numbers, sizeof(numbers));
}

static void *post_late(void *opaque)
{
	(void)opaque;
	usleep(20000);
	loop_post(loop, stop, NULL);
	return NULL;
}

static void post_wakes_a_sleeping_loop(void **state)
{
	pthread_t thread;

	(void)state;
	pthread_create(&thread, NULL, post_late, NULL);
	loop_run(loop); /* the test's time limit is the assertion */
	pthread_join(thread, NULL);
}

static void unseen_posts_are_freed(void **state)
{
	(void)state;
	assert_int_equal(loop_post(loop, stop, NULL), 0); /* LeakSanitizer looks */
	loop_stop(loop);
	loop_run(loop); /* stopped before it ran */
}

/* ---- timers ---- */

enum { MANY = 300 };
struct tick {
	struct timer timer;
	uint64_t due_ns, fired_ns;
};
static struct tick ticks[MANY];
static int fired;
static uint64_t last_due_ns;

static void tick(void *opaque)
{
	struct tick *t = opaque;

	t->fired_ns = clock_ns();
	assert_true(t->fired_ns >= t->due_ns);
	assert_true(t->due_ns >= last_due_ns);
	last_due_ns = t->due_ns;
	if (++fired == MANY)
		loop_stop(loop);
}

static void timers_fire_in_order_and_never_early(void **state)
{
	uint64_t start = clock_ns() + 5 * MS;

	(void)state;
	fired = 0;
	last_due_ns = 0;
	srand(1);
	for (int i = 0; i < MANY; i++) {
		struct tick *t = &ticks[i];
		timer_init(&t->timer, loop, tick, t);
		/* Each is armed twice, to move it in the heap in both directions. */
		timer_arm(&t->timer, start + (uint64_t)(rand() % 1000) * MS);
		t->due_ns = start + (uint64_t)(rand() % 50000) * 1000;
	}
	for (int i = 0; i < MANY; i++)
		timer_arm(&ticks[i].timer, ticks[i].due_ns);
	loop_run(loop);
	assert_int_equal(fired, MANY);
	for (int i = 0; i < MANY; i++)
		timer_destroy(&ticks[i].timer);
}

static void count(void *opaque)
{
	++*(int *)opaque;
}

static void cancelled_timers_do_not_fire(void **state)
{
	struct timer a, b, end;
	int calls = 0;

	(void)state;
	timer_init(&a, loop, count, &calls);
	timer_init(&b, loop, count, &calls);
	timer_init(&end, loop, stop, NULL);
	timer_arm(&a, clock_ns() + 2 * MS);
	timer_arm(&b, 0); /* long past: at once */
	timer_arm(&end, clock_ns() + 20 * MS);
	timer_cancel(&a);
	timer_cancel(&a);
	loop_run(loop);
	assert_int_equal(calls, 1);
}

static struct timer periodic;
static int periods;

static void again(void *opaque)
{
	(void)opaque;
	if (++periods == 1000)
		loop_stop(loop);
	else
		timer_arm(&periodic, 0);
}

static void fd_stops(void *opaque, int fd, int events)
{
	(void)fd;
	*(int *)opaque = events;
	loop_stop(loop);
}

/* A timer that is always due must not keep descriptors from being served. */
static void timers_do_not_starve_descriptors(void **state)
{
	struct loop_fd *w;
	int pipe_fd[2], events = 0;

	(void)state;
	periods = 0;
	assert_int_equal(pipe(pipe_fd), 0);
	assert_int_equal(write(pipe_fd[1], "x", 1), 1);
	timer_init(&periodic, loop, again, NULL);
	timer_arm(&periodic, 0);
	assert_int_equal(loop_fd_add(loop, pipe_fd[0], POLLIN, fd_stops, &events, &w), 0);
	loop_run(loop);
	assert_int_equal(events, POLLIN);
	assert_true(periods < 1000);
	timer_destroy(&periodic);
	loop_fd_remove(w);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

static struct timer prodded;

static void *prod(void *opaque)
{
	(void)opaque;
	usleep(20000);
	timer_arm(&prodded, 0);
	return NULL;
}

static void a_timer_due_at_once_wakes_a_sleeping_loop(void **state)
{
	struct timer later;
	pthread_t thread;
	int calls = 0;

	(void)state;
	timer_init(&prodded, loop, stop, NULL);
	timer_init(&later, loop, count, &calls);
	timer_arm(&later, clock_ns() + 500 * MS);
	pthread_create(&thread, NULL, prod, NULL);
	loop_run(loop);
	pthread_join(thread, NULL);
	assert_int_equal(calls, 0);
	/* And the one that was armed before has not been forgotten. */
	timer_init(&prodded, loop, stop, NULL);
	timer_arm(&prodded, clock_ns() + 600 * MS);
	loop_run(loop);
	assert_int_equal(calls, 1);
	timer_destroy(&prodded);
	timer_destroy(&later);
}

static struct timer contended[8];
static atomic_bool arming;

static void *arm_from_outside(void *opaque)
{
	unsigned seed = (unsigned)(uintptr_t)opaque;

	while (atomic_load(&arming)) {
		struct timer *t = &contended[rand_r(&seed) % 8];
		if (rand_r(&seed) % 4)
			timer_arm(t, rand_r(&seed) % 4 ? clock_ns() + rand_r(&seed) % 100000 : 0);
		else
			timer_cancel(t);
	}
	return NULL;
}

static void timers_from_any_thread(void **state)
{
	pthread_t threads[2];
	struct timer end;
	int calls = 0;

	(void)state;
	atomic_store(&arming, true);
	for (int i = 0; i < 8; i++)
		timer_init(&contended[i], loop, count, &calls);
	timer_init(&end, loop, stop, NULL);
	timer_arm(&end, clock_ns() + 100 * MS);
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, arm_from_outside, (void *)(i + 1));
	loop_run(loop);
	atomic_store(&arming, false);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_true(calls > 0);
	for (int i = 0; i < 8; i++)
		timer_destroy(&contended[i]);
}

/* ---- descriptors ---- */

static void write_ready_and_off(void **state)
{
	struct loop_fd *w;
	struct timer end;
	int pair[2], events = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(loop_fd_add(loop, pair[0], 0, fd_stops, &events, &w), 0);
	assert_int_equal(write(pair[1], "x", 1), 1);
	timer_init(&end, loop, stop, NULL);
	timer_arm(&end, clock_ns() + 10 * MS);
	loop_run(loop); /* watched for nothing: the timer ends it */
	assert_int_equal(events, 0);
	loop_fd_set_events(w, POLLIN | POLLOUT);
	loop_run(loop);
	assert_int_equal(events, POLLIN | POLLOUT);
	loop_fd_set_events(w, POLLOUT);
	loop_run(loop);
	assert_int_equal(events, POLLOUT);
	loop_fd_remove(w);
	close(pair[0]);
	close(pair[1]);
}

static void hangup_and_error_come_as_input(void **state)
{
	struct loop_fd *w;
	int fd[2], events = 0;

	(void)state;
	assert_int_equal(pipe(fd), 0);
	close(fd[1]); /* a hang-up at the reading end */
	assert_int_equal(loop_fd_add(loop, fd[0], POLLIN, fd_stops, &events, &w), 0);
	loop_run(loop);
	assert_true(events & POLLIN);
	loop_fd_remove(w);
	close(fd[0]);

	assert_int_equal(pipe(fd), 0);
	while (write(fd[1], &(char[4096]){0}, 4096) == 4096)
		fcntl(fd[1], F_SETFL, O_NONBLOCK);
	close(fd[0]); /* an error at the writing end */
	assert_int_equal(loop_fd_add(loop, fd[1], POLLOUT, fd_stops, &events, &w), 0);
	for (int i = 0; i < 2; i++) { /* and it stays */
		events = 0;
		loop_run(loop);
		assert_true(events & POLLIN);
	}
	loop_fd_remove(w);
	close(fd[1]);
}

static char line[16];
static ssize_t line_len;

static void read_line(void *opaque, int fd, int events)
{
	(void)opaque;
	assert_int_equal(events, POLLIN);
	line_len = read(fd, line, sizeof(line));
	loop_stop(loop);
}

static void plain_files_are_always_ready(void **state)
{
	FILE *file = tmpfile();
	struct loop_fd *w;

	(void)state;
	assert_non_null(file);
	fputs("ls\n", file);
	rewind(file);
	assert_int_equal(loop_fd_add(loop, fileno(file), POLLIN, read_line, NULL, &w), 0);
	loop_run(loop);
	assert_int_equal(line_len, 3);
	loop_run(loop);
	assert_int_equal(line_len, 0);
	loop_fd_remove(w);
	fclose(file);
}

static void bad_descriptor_is_an_error(void **state)
{
	struct loop_fd *w;

	(void)state;
	assert_int_equal(loop_fd_add(loop, 1023, POLLIN, read_line, NULL, &w), -EBADF);
	assert_null(w);
}

static void removes_itself(void *opaque, int fd, int events)
{
	struct loop_fd **w = opaque;

	(void)fd, (void)events;
	assert_non_null(*w);
	loop_fd_remove(*w);
	*w = NULL;
	loop_stop(loop);
}

static void watcher_may_remove_itself(void **state)
{
	struct loop_fd *w;
	int fd = open("/dev/null", O_RDONLY);

	(void)state;
	assert_int_equal(loop_fd_add(loop, fd, POLLIN, removes_itself, &w, &w), 0);
	loop_run(loop);
	assert_null(w);
	close(fd);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(posts_run_in_order),	    TEST(post_wakes_a_sleeping_loop),
		TEST(unseen_posts_are_freed),	    TEST(timers_fire_in_order_and_never_early),
		TEST(cancelled_timers_do_not_fire), TEST(timers_do_not_starve_descriptors),
		TEST(timers_from_any_thread),	    TEST(a_timer_due_at_once_wakes_a_sleeping_loop),
		TEST(write_ready_and_off),	    TEST(hangup_and_error_come_as_input),
		TEST(plain_files_are_always_ready), TEST(bad_descriptor_is_an_error),
		TEST(watcher_may_remove_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
