/* SPDX-License-Identifier: Apache-2.0 */
#include "control/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/protocol.h"

/* A machine that stands still (SIGSTOP) takes neither connections nor requests for ever. */
enum { SEND_TIMEOUT_S = 10 };

struct control_client {
	int fd;
	struct line_reader lines;
};

int control_connect(struct control_client **out, const char *socket_path, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct control_client *c = calloc(1, sizeof(*c));
	struct timeval limit = {.tv_sec = SEND_TIMEOUT_S};
	int code;

	*out = NULL;
	if (!c)
		return error_set(err, -ENOMEM, "%s: out of memory", socket_path);
	if (!*socket_path || strlen(socket_path) >= sizeof(addr.sun_path)) {
		free(c);
		return error_set(err, -ENOENT, "'%s': not the path of a socket", socket_path);
	}
	strcpy(addr.sun_path, socket_path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		code = errno;
		control_close(c);
		return error_set(err, -code, "%s: %s", socket_path, strerror(code));
	}
	line_reader_init(&c->lines, PROTOCOL_ANSWER_BYTES);
	*out = c;
	return 0;
}

void control_close(struct control_client *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	line_reader_free(&c->lines);
	free(c);
}

static int send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/* 0: *line is the next one (the reader's); or -errno. */
static int next_line(struct control_client *c, uint64_t until_ns, char **line, size_t *len)
{
	while (!line_reader_next(&c->lines, line, len)) {
		struct pollfd p = {.fd = c->fd, .events = POLLIN};
		uint64_t now = clock_ns();
		char data[4096];
		if (now >= until_ns)
			return -ETIMEDOUT;
		uint64_t left_ms = (until_ns - now) / 1000000 + 1;
		int ready = poll(&p, 1, left_ms > 1000000 ? 1000000 : (int)left_ms);
		if (ready < 0 && errno != EINTR)
			return -errno;
		if (ready <= 0)
			continue;
		ssize_t n = read(c->fd, data, sizeof(data));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 || errno == ECONNRESET ? -EPIPE : -errno;
		int r = line_reader_feed(&c->lines, data, (size_t)n);
		if (r < 0)
			return r;
	}
	return 0;
}

static int explain(int code, struct error *err)
{
	switch (code) {
	case -EPIPE:
		return error_set(err, code, "the virtual machine has ended");
	case -ETIMEDOUT:
	case -EAGAIN: /* of a send */
		return error_set(err, -ETIMEDOUT, "the virtual machine did not answer in time");
	default:
		return error_set(err, code, "the virtual machine's control socket: %s",
				 strerror(-code));
	}
}

int control_send(struct control_client *c, json_t *request, struct error *err)
{
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	int r = text ? send_all(c->fd, text, strlen(text)) : -ENOMEM;

	json_decref(request);
	free(text);
	if (r == 0)
		r = send_all(c->fd, "\n", 1);
	return r < 0 ? explain(r == -ECONNRESET ? -EPIPE : r, err) : 0;
}

int control_receive(struct control_client *c, json_t **answer, int timeout_ms, struct error *err)
{
	uint64_t until = timeout_ms < 0 ? UINT64_MAX
					: clock_ns() + (uint64_t)timeout_ms * UINT64_C(1000000);
	json_t *got = NULL;
	char *line;
	size_t len;
	int r = next_line(c, until, &line, &len);

	if (r == 0) {
		got = json_loadb(line, len, 0, NULL);
		r = json_is_object(got) ? 0 : -EPROTO;
	}
	if (r < 0) {
		explain(r, err);
	} else if (!json_is_true(json_object_get(got, "ok"))) {
		const char *why = json_string_value(json_object_get(got, "error"));
		r = error_set(err, -EREMOTEIO, "%s", why ? why : "it refused without a reason");
	}
	if (r == 0 && answer)
		*answer = got;
	else
		json_decref(got);
	return r;
}

int control_ask(struct control_client *c, json_t *request, json_t **answer, int timeout_ms,
		struct error *err)
{
	int r = control_send(c, request, err);

	return r < 0 ? r : control_receive(c, answer, timeout_ms, err);
}

int control_take_stream(struct control_client *c, char **early, size_t *len)
{
	int fd = c->fd;

	c->fd = -1;
	line_reader_rest(&c->lines, early, len);
	return fd;
}
