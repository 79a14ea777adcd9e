/* SPDX-License-Identifier: Apache-2.0 */
#include "control/server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/vm_folder.h"

enum { LAST_WORDS_MS = 1000, NAMES_TRIED = 16, READ_BYTES = 4096, LISTEN_BACKLOG = 64 };

struct talk {
	struct control_server *server;
	int fd;
	struct loop_fd *watch;
	struct line_reader lines;
	char *out; /* not taken by the socket yet */
	size_t out_len;
	json_t *waits_id; /* with `waits`: the id to answer with, or NULL */
	bool waits, closing;
	uint64_t number; /* its name: no other client ever has it */
	bool deferred;	 /* answered later, with deferred_id */
	json_t *deferred_id;
	uint64_t active_ns;
};

struct control_server {
	struct loop *loop;
	const struct control_command *commands;
	void *opaque;
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	int fd;
	struct loop_fd *watch;
	struct talk *talks[SERVER_CLIENTS_MAX];
	unsigned count;
	uint64_t numbers;     /* given to clients so far */
	struct talk *current; /* whose request is served now */
};

/* ---- clients ---- */

static void hang_up(struct talk *t)
{
	struct control_server *s = t->server;

	for (unsigned i = 0; i < s->count; i++)
		if (s->talks[i] == t)
			s->talks[i] = s->talks[--s->count];
	loop_fd_remove(t->watch);
	if (t->fd >= 0)
		close(t->fd);
	line_reader_free(&t->lines);
	json_decref(t->waits_id);
	json_decref(t->deferred_id);
	free(t->out);
	free(t);
}

static void watch_for(struct talk *t)
{
	/* One that does not read its answers is not read either. */
	loop_fd_set_events(t->watch, t->out_len ? POLLOUT : t->deferred ? 0 : POLLIN);
}

/* 0, or -errno: it is gone. */
static int flush(struct talk *t)
{
	while (t->out_len) {
		ssize_t n = send(t->fd, t->out, t->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		t->out_len -= (size_t)n;
		memmove(t->out, t->out + n, t->out_len);
	}
	return t->closing ? -EPIPE : 0;
}

/* Sends an answer, which it takes over. 0, or -errno: the client is of no use any more. */
static int answer(struct talk *t, json_t *id, json_t *what)
{
	if (id && what)
		json_object_set(what, "id", id);
	char *text = what ? json_dumps(what, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	int r = text ? 0 : -ENOMEM;

	json_decref(what);
	if (r == 0 && t->out_len + len + 1 > SERVER_BACKLOG_BYTES)
		r = -ENOBUFS;
	char *grown = r == 0 ? realloc(t->out, t->out_len + len + 1) : NULL;
	if (r == 0 && !grown)
		r = -ENOMEM;
	if (r == 0) {
		t->out = grown;
		memcpy(t->out + t->out_len, text, len);
		t->out[t->out_len + len] = '\n';
		t->out_len += len + 1;
		r = flush(t);
	}
	free(text);
	return r;
}

static json_t *refusal(const struct error *err)
{
	/* A line of error may quote what is not UTF-8. */
	json_t *text = json_string(err->text);

	if (!text)
		text = json_string("the request failed; the reason cannot be written as UTF-8");
	return json_pack("{s:b, s:o}", "ok", 0, "error", text);
}

static json_t *success(json_t *what)
{
	json_t *all = json_pack("{s:b}", "ok", 1);

	if (all && what)
		json_object_update(all, what);
	json_decref(what);
	return all;
}

static const struct control_command *find_command(struct control_server *s, const char *name)
{
	for (const struct control_command *c = s->commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

/* The connection becomes a stream of the command's. Returns as serve() does. */
static int give_away(struct talk *t, const struct control_command *c, const struct request *r,
		     json_t *what)
{
	char *early;
	size_t len;
	int code = answer(t, r->id, success(what));

	if (code == 0 && t->out_len)
		code = -EPIPE; /* a stream begins with someone who reads */
	if (code < 0)
		return code;
	line_reader_rest(&t->lines, &early, &len);
	loop_fd_remove(t->watch);
	t->watch = NULL;
	c->taken(t->server->opaque, r, t->fd, early, len);
	t->fd = -1;
	free(early);
	return -EPIPE;
}

/* One request. 0, or -errno: hang up. */
static int serve(struct talk *t, const char *line, size_t len)
{
	struct control_server *s = t->server;
	struct request r;
	struct error err = {""};
	json_t *what = NULL;
	int code = request_parse(&r, line, len, &err);
	const struct control_command *c = code == 0 ? find_command(s, r.what) : NULL;

	if (code == 0 && !c)
		code = error_set(&err, -ENOENT, "do: there is no request of this name");
	s->current = t;
	if (c)
		code = c->run(s->opaque, &r, &what, &err);
	s->current = NULL;
	if (code == COMMAND_DEFERRED) {
		t->deferred_id = json_incref(r.id);
		t->deferred = true;
		code = 0;
	} else if (code == COMMAND_LATER) {
		json_decref(t->waits_id);
		t->waits_id = json_incref(r.id);
		t->waits = true;
		code = 0;
	} else if (code == COMMAND_TAKEN) {
		code = give_away(t, c, &r, what);
	} else {
		code = answer(t, r.id, code < 0 ? refusal(&err) : success(what));
	}
	request_free(&r);
	return code;
}

static int serve_lines(struct talk *t)
{
	char *line;
	size_t len;
	int r = 0;

	while (r == 0 && !t->out_len && !t->deferred && line_reader_next(&t->lines, &line, &len))
		r = serve(t, line, len);
	return r;
}

static int receive(struct talk *t)
{
	char data[READ_BYTES];
	struct error err;
	ssize_t n = recv(t->fd, data, sizeof(data), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -EPIPE;
	t->active_ns = clock_ns();
	int r = line_reader_feed(&t->lines, data, (size_t)n);
	if (r == -EMSGSIZE) {
		t->closing = true;
		error_set(&err, r, "a request has at most %d bytes", PROTOCOL_REQUEST_BYTES);
		return answer(t, NULL, refusal(&err));
	}
	return r < 0 ? r : serve_lines(t);
}

static void ready(void *opaque, int fd, int events)
{
	struct talk *t = opaque;
	int r = 0;

	(void)fd;
	if (events & POLLOUT) {
		r = flush(t);
		if (r == 0)
			r = serve_lines(t);
	}
	if (r == 0 && events & POLLIN && !t->out_len && !t->deferred)
		r = receive(t);
	if (r < 0)
		hang_up(t);
	else
		watch_for(t);
}

uint64_t control_server_defer(struct control_server *s)
{
	return s->current->number;
}

void control_server_answer(struct control_server *s, uint64_t client, int code, json_t *what,
			   const struct error *err)
{
	struct talk *t = NULL;

	for (unsigned i = 0; i < s->count; i++)
		if (s->talks[i]->number == client)
			t = s->talks[i];
	if (!t) {
		json_decref(what);
		return;
	}
	t->deferred = false;
	int r = answer(t, t->deferred_id, code < 0 ? refusal(err) : success(what));
	json_decref(t->deferred_id);
	t->deferred_id = NULL;
	if (r == 0)
		r = serve_lines(t);
	if (r < 0)
		hang_up(t);
	else
		watch_for(t);
}

static void make_room(struct control_server *s)
{
	struct talk *oldest = NULL;

	if (s->count < SERVER_CLIENTS_MAX)
		return;
	for (unsigned i = 0; i < s->count; i++)
		if (!oldest || s->talks[i]->active_ns < oldest->active_ns)
			oldest = s->talks[i];
	hang_up(oldest);
}

void control_server_add(struct control_server *s, int fd)
{
	struct talk *t = calloc(1, sizeof(*t));

	make_room(s);
	if (!t || loop_fd_add(s->loop, fd, POLLIN, ready, t, &t->watch) < 0) {
		free(t);
		close(fd);
		return;
	}
	t->server = s;
	t->fd = fd;
	t->number = ++s->numbers;
	t->active_ns = clock_ns();
	line_reader_init(&t->lines, PROTOCOL_REQUEST_BYTES);
	s->talks[s->count++] = t;
}

static void on_connect(void *opaque, int fd, int events)
{
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (client >= 0)
		control_server_add(opaque, client);
}

/* ---- the socket ---- */

static bool somebody_listens(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes = fd >= 0 && (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 ||
			       errno == EAGAIN);

	if (fd >= 0)
		close(fd);
	return yes;
}

/*
 * Takes PID.sock; where another listens on it (a process of the same number in another namespace),
 * PID-1.sock and so on. It gets its name after it listens: a socket nobody listens on is one left
 * behind, which inventory_each removes.
 */
static int name_socket(struct control_server *s, const char *folder, const char *made,
		       struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	for (unsigned i = 0; i < NAMES_TRIED; i++) {
		char suffix[16] = "";
		if (i)
			snprintf(suffix, sizeof(suffix), "-%u", i);
		int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%d%s.sock", folder,
				 (int)getpid(), suffix);
		if (n >= (int)sizeof(addr.sun_path))
			break;
		if (somebody_listens(&addr))
			continue;
		if (rename(made, addr.sun_path) < 0)
			return error_set(err, -errno, "%s: %s", addr.sun_path, strerror(errno));
		strcpy(s->socket, addr.sun_path);
		return 0;
	}
	return error_set(err, -EADDRINUSE,
			 "%s: no control socket can be named there; name another folder in "
			 "HANOK_RUNTIME",
			 folder);
}

static int bind_socket(struct control_server *s, const char *folder, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/.%d.new", folder, (int)getpid());

	if (n >= (int)sizeof(addr.sun_path) - 8)
		return error_set(err, -ENAMETOOLONG,
				 "%s: too long for a socket's path; name a shorter folder in "
				 "HANOK_RUNTIME",
				 folder);
	unlink(addr.sun_path);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Its file will have this mode. */
	if (s->fd < 0 || fchmod(s->fd, 0600) < 0 ||
	    bind(s->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(s->fd, LISTEN_BACKLOG) < 0)
		return error_set(err, -errno, "%s: %s", addr.sun_path, strerror(errno));
	int r = name_socket(s, folder, addr.sun_path, err);
	if (r < 0)
		unlink(addr.sun_path);
	return r;
}

int control_server_create_unbound(struct control_server **out, struct loop *loop,
				  const struct control_command *commands, void *opaque,
				  struct error *err)
{
	struct control_server *s = *out = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, -ENOMEM, "control socket: out of memory");
	s->loop = loop;
	s->commands = commands;
	s->opaque = opaque;
	s->fd = -1;
	return 0;
}

int control_server_create(struct control_server **out, struct loop *loop,
			  const struct control_command *commands, void *opaque, struct error *err)
{
	char *folder;
	int r = vm_runtime(&folder, true, err);

	*out = NULL;
	if (r < 0)
		return r;
	r = control_server_create_unbound(out, loop, commands, opaque, err);
	if (r == 0)
		r = bind_socket(*out, folder, err);
	free(folder);
	if (r == 0) {
		r = loop_fd_add(loop, (*out)->fd, POLLIN, on_connect, *out, &(*out)->watch);
		if (r < 0)
			error_set(err, r, "control socket: %s", strerror(-r));
	}
	if (r < 0) {
		control_server_destroy(*out);
		*out = NULL;
	}
	return r;
}

const char *control_server_socket(const struct control_server *s)
{
	return s->socket;
}

void control_server_end(struct control_server *s, json_t *last)
{
	uint64_t until = clock_ns() + LAST_WORDS_MS * UINT64_C(1000000);

	for (unsigned i = 0; i < s->count; i++) {
		struct talk *t = s->talks[i];
		int r = t->waits ? answer(t, t->waits_id, success(json_copy(last))) : 0;
		struct pollfd p = {.fd = t->fd, .events = POLLOUT};
		uint64_t now = clock_ns();
		while (r == 0 && t->out_len && now < until &&
		       poll(&p, 1, (int)((until - now) / 1000000 + 1)) > 0) {
			r = flush(t);
			now = clock_ns();
		}
	}
	json_decref(last);
	while (s->count)
		hang_up(s->talks[0]);
}

void control_server_destroy(struct control_server *s)
{
	if (!s)
		return;
	while (s->count)
		hang_up(s->talks[0]);
	loop_fd_remove(s->watch);
	if (s->fd >= 0)
		close(s->fd);
	if (s->socket[0])
		unlink(s->socket);
	free(s);
}
