/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket's server and the shared console, with clients that behave and some that do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/console.h"
#include "control/server.h"

enum { WAIT_MS = 20000 };

/* ---- a server on a loop of its own thread ---- */

static struct loop *loop;
static struct control_server *server;
static pthread_t thread;
static int stream_fd = -1;
static sem_t done;

static int do_echo(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	const char *text;

	(void)opaque;
	if (request_string(r, "text", NULL, &text, err) < 0)
		return -EINVAL;
	*answer = json_pack("{s:s}", "text", text);
	return COMMAND_DONE;
}

static int do_large(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	char *text = malloc(200001);

	(void)opaque, (void)r, (void)err;
	memset(text, 'x', 200000);
	text[200000] = 0;
	*answer = json_pack("{s:s}", "text", text);
	free(text);
	return COMMAND_DONE;
}

static int do_refuse(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	(void)opaque, (void)r, (void)answer;
	return error_set(err, -EBUSY, "not \"now\"");
}

static int do_later(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	(void)opaque, (void)r, (void)answer, (void)err;
	return COMMAND_LATER;
}

static int do_take(void *opaque, const struct request *r, json_t **answer, struct error *err)
{
	(void)opaque, (void)r, (void)answer, (void)err;
	return COMMAND_TAKEN;
}

static void taken(void *opaque, const struct request *r, int fd, const char *data, size_t len)
{
	(void)opaque, (void)r;
	/* What came after the request comes back, so that the test sees that nothing is lost. */
	if (len)
		assert_int_equal(write(fd, data, len), (ssize_t)len);
	stream_fd = fd;
	sem_post(&done);
}

static const struct control_command commands[] = {
	{"echo", do_echo, NULL},   {"large", do_large, NULL}, {"refuse", do_refuse, NULL},
	{"later", do_later, NULL}, {"take", do_take, taken},  {NULL, NULL, NULL},
};

static void *run(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static int set_up(void **state)
{
	(void)state;
	sem_init(&done, 0, 0);
	assert_int_equal(loop_create(&loop, NULL), 0);
	assert_int_equal(control_server_create_unbound(&server, loop, commands, NULL, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, run, loop), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	loop_stop(loop);
	pthread_join(thread, NULL);
	control_server_destroy(server);
	loop_destroy(loop);
	sem_destroy(&done);
	return 0;
}

struct call {
	void (*fn)(void *opaque);
	void *opaque;
};

static void call(void *opaque)
{
	struct call *c = opaque;

	c->fn(c->opaque);
	sem_post(&done);
}

/* Runs fn on the loop's thread and waits for it. */
static void on_loop(void (*fn)(void *opaque), void *opaque)
{
	struct call c = {fn, opaque};

	assert_int_equal(loop_post(loop, call, &c), 0);
	sem_wait(&done);
}

static void add_now(void *opaque)
{
	control_server_add(server, *(int *)opaque);
}

static int add_client(void)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	on_loop(add_now, &fds[1]);
	return fds[0];
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* The next line; "" when the other side has hung up. */
static char *hear(int fd)
{
	static char line[300000];
	size_t len = 0;

	while (len < sizeof(line) - 1) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (poll(&p, 1, WAIT_MS) != 1)
			fail_msg("no answer");
		if (read(fd, line + len, 1) != 1)
			break;
		if (line[len] == '\n')
			break;
		len++;
	}
	line[len] = 0;
	return line;
}

static void expect(int fd, const char *line)
{
	json_t *got = json_loads(hear(fd), 0, NULL), *wanted = json_loads(line, 0, NULL);

	assert_non_null(wanted);
	if (!json_equal(got, wanted))
		fail_msg("not %s: %s", line, json_dumps(got, 0));
	json_decref(got);
	json_decref(wanted);
}

/* ---- the server ---- */

static void test_answers(void **state)
{
	int fd = add_client();

	(void)state;
	say(fd, "{\"do\":\"echo\",\"text\":\"a\",\"id\":7}\n");
	expect(fd, "{\"ok\":true,\"text\":\"a\",\"id\":7}");
	/* Several at once, and one in pieces. */
	say(fd, "{\"do\":\"echo\",\"text\":\"b\",\"id\":\"x\"}\n{\"do\":\"refuse\"}\n{\"do\":");
	expect(fd, "{\"ok\":true,\"text\":\"b\",\"id\":\"x\"}");
	expect(fd, "{\"ok\":false,\"error\":\"not \\\"now\\\"\"}");
	say(fd, "\"echo\",\"text\":\"c\"}\n");
	expect(fd, "{\"ok\":true,\"text\":\"c\"}");
	close(fd);
}

/* Nonsense is answered, and the next request works. */
static void test_nonsense(void **state)
{
	static const char *const nonsense[] = {
		"",
		"{",
		"[]",
		"null",
		"{\"do\":1}",
		"{}",
		"\x80",
		"{\"do\":\"x\"}",
		"{\"do\":\"echo\"}",
		"hello",
		"{\"do\":\"echo\",\"do\":\"echo\"}",
		"{\"do\":\"echo\",\"text\":\"\\u0000\"}",
		"{\"id\":[],\"do\":\"echo\",\"text\":\"a\"}",
	};
	int fd = add_client();

	(void)state;
	for (unsigned i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		say(fd, nonsense[i]);
		say(fd, "\n");
		json_t *got = json_loads(hear(fd), 0, NULL);
		if (!json_is_false(json_object_get(got, "ok")) ||
		    !json_is_string(json_object_get(got, "error")))
			fail_msg("'%s' was taken", nonsense[i]);
		json_decref(got);
	}
	say(fd, "{\"do\":\"echo\",\"text\":\"a\"}\n");
	expect(fd, "{\"ok\":true,\"text\":\"a\"}");
	close(fd);
}

static void test_huge_line(void **state)
{
	int fd = add_client(), other = add_client();
	char block[4096];
	size_t sent = 0;

	(void)state;
	memset(block, '[', sizeof(block));
	while (sent < 2 * PROTOCOL_REQUEST_BYTES) {
		ssize_t n = send(fd, block, sizeof(block), MSG_NOSIGNAL);
		if (n < 0)
			break;
		sent += (size_t)n;
	}
	char *line = hear(fd);
	assert_non_null(strstr(line, "at most 65536 bytes"));
	assert_string_equal(hear(fd), "");
	say(other, "{\"do\":\"echo\",\"text\":\"a\"}\n");
	expect(other, "{\"ok\":true,\"text\":\"a\"}");
	close(fd);
	close(other);
}

/* One that asks and never reads, and one that hangs up in the middle of its answer: others are
 * served all the same. */
static void test_stalled_client(void **state)
{
	int stalled = add_client(), gone = add_client(), fd = add_client();

	(void)state;
	for (int i = 0; i < 100; i++)
		if (send(stalled, "{\"do\":\"large\"}\n", 15, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
	say(gone, "{\"do\":\"large\"}\n");
	assert_true(read(gone, (char[100]){0}, 100) > 0);
	close(gone);
	for (int i = 0; i < 50; i++) {
		say(fd, "{\"do\":\"echo\",\"text\":\"a\"}\n");
		expect(fd, "{\"ok\":true,\"text\":\"a\"}");
	}
	/* When it reads at last, it gets whole answers. */
	assert_int_equal(strlen(strstr(hear(stalled), "xxx")) > 199000, 1);
	close(stalled);
	close(fd);
}

/* Idle clients make room for new ones. */
static void test_many_clients(void **state)
{
	int fds[SERVER_CLIENTS_MAX + 10];
	const int n = sizeof(fds) / sizeof(fds[0]);

	(void)state;
	for (int i = 0; i < n; i++)
		fds[i] = add_client();
	say(fds[n - 1], "{\"do\":\"echo\",\"text\":\"a\"}\n");
	expect(fds[n - 1], "{\"ok\":true,\"text\":\"a\"}");
	assert_string_equal(hear(fds[0]), "");
	for (int i = 0; i < n; i++)
		close(fds[i]);
}

static void end_now(void *opaque)
{
	(void)opaque;
	control_server_end(server, json_pack("{s:s}", "end", "quit"));
}

static void test_wait(void **state)
{
	int waits = add_client(), idle = add_client();

	(void)state;
	say(waits, "{\"do\":\"later\",\"id\":3}\n{\"do\":\"echo\",\"text\":\"a\"}\n");
	expect(waits, "{\"ok\":true,\"text\":\"a\"}");
	on_loop(end_now, NULL);
	expect(waits, "{\"ok\":true,\"end\":\"quit\",\"id\":3}");
	assert_string_equal(hear(waits), "");
	assert_string_equal(hear(idle), "");
	close(waits);
	close(idle);
}

static void test_take(void **state)
{
	int fd = add_client();

	(void)state;
	say(fd, "{\"do\":\"take\"}\nkeys typed early");
	sem_wait(&done);
	expect(fd, "{\"ok\":true}");
	char early[32] = "";
	assert_int_equal(recv(fd, early, 16, MSG_WAITALL), 16);
	assert_string_equal(early, "keys typed early");
	close(stream_fd);
	close(fd);
}

/* ---- the console ---- */

static struct console *console;
static struct uart_backend guest;

struct attach {
	int fd;
	size_t replay;
};

static void attach_now(void *opaque)
{
	struct attach *a = opaque;

	assert_int_equal(console_attach(console, a->fd, NULL, 0, a->replay), 0);
}

static int attach(size_t replay)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	on_loop(attach_now, &(struct attach){fds[1], replay});
	return fds[0];
}

static void print(const char *text)
{
	assert_int_equal(guest.write(guest.opaque, (const uint8_t *)text, strlen(text)),
			 strlen(text));
}

/* After what has been posted. */
static void destroy_now(void *opaque)
{
	console_destroy(opaque);
}

static void expect_text(int fd, const char *text)
{
	char got[64] = "";

	assert_int_equal(recv(fd, got, strlen(text), MSG_WAITALL), (ssize_t)strlen(text));
	assert_string_equal(got, text);
}

static void test_console(void **state)
{
	(void)state;
	assert_int_equal(console_create(&console, loop, 0, NULL, NULL), 0);
	guest = console_backend(console);
	print("before ");
	int all = attach(CONSOLE_RING_BYTES), some = attach(3), none = attach(0);
	print("after");
	expect_text(all, "before after");
	expect_text(some, "re after");
	expect_text(none, "after");
	close(all);
	close(some);
	print("!");
	expect_text(none, "!");
	close(none);
	on_loop(destroy_now, console);
}

/* One that does not read is overtaken, and told; the guest never waits. */
static void test_console_stalled(void **state)
{
	char block[1025];
	static char got[2 * CONSOLE_RING_BYTES];
	size_t len = 0;

	(void)state;
	memset(block, 'x', 1024);
	block[1024] = 0;
	assert_int_equal(console_create(&console, loop, 0, NULL, NULL), 0);
	guest = console_backend(console);
	int fd = attach(0);
	for (int i = 0; i < 4096; i++)
		print(block);
	print("the end");
	while (len < 7 || memcmp(got + len - 7, "the end", 7)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		ssize_t n = read(fd, got + len, sizeof(got) - len);
		assert_true(n > 0);
		/* All of this may be read while it comes: then it is not overtaken, but then it
		 * does not fit. */
		len += (size_t)n;
		assert_true(len < sizeof(got));
	}
	assert_non_null(memmem(got, len, "bytes are lost here", 19));
	close(fd);
	on_loop(destroy_now, console);
}

/* What holds output back besides is obeyed: only what it took is shown. */
static size_t take_three(void *opaque, const uint8_t *data, size_t len)
{
	(void)opaque, (void)data;
	return len < 3 ? len : 3;
}

static void test_console_next(void **state)
{
	const struct uart_backend next = {.write = take_three};

	(void)state;
	assert_int_equal(console_create(&console, loop, 0, &next, NULL), 0);
	guest = console_backend(console);
	int fd = attach(0);
	assert_int_equal(guest.write(guest.opaque, (const uint8_t *)"abcdef", 6), 3);
	assert_int_equal(guest.write(guest.opaque, (const uint8_t *)"def", 3), 3);
	expect_text(fd, "abcdef");
	close(fd);
	on_loop(destroy_now, console);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_answers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nonsense, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_huge_line, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stalled_client, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many_clients, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wait, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_take, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_console, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_console_stalled, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_console_next, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
