/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A NIC's side of the socket.
 *
 *     connected ── the socket or a ring ends ──> down ── five tries a second ──> connected
 *      link up                                 link down
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/netport_internal.h"
#include "net/proto_internal.h"

#define RETRY_NS UINT64_C(200000000)

struct net_client {
	struct loop *loop;
	char path[108], name[NET_NAME_BYTES], group[NET_NAME_BYTES];
	struct netport *port;
	struct timer retry, update;
	int fd;
	struct loop_fd *watch;
	bool complained;

	pthread_mutex_t lock; /* guards live: is the link there to send on? */
	bool live;
	struct net_link link;
};

static unsigned to_switch(void *opaque, const struct net_frame *f, unsigned n)
{
	struct net_client *c = opaque;

	pthread_mutex_lock(&c->lock);
	unsigned sent = c->live ? net_link_send(&c->link, f, n) : n;
	bool live = c->live;
	pthread_mutex_unlock(&c->lock);
	if (!live)
		netport_count_drop(c->port, NET_DROP_LINK_DOWN, n);
	return sent;
}

/* The switch is gone, or we do not understand it. */
static void lose(void *opaque)
{
	struct net_client *c = opaque;

	pthread_mutex_lock(&c->lock);
	bool was_live = c->live;
	c->live = false;
	pthread_mutex_unlock(&c->lock);
	net_link_stop(&c->link);
	loop_fd_remove(c->watch);
	c->watch = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	if (was_live) {
		netport_set_link(c->port, false);
		netport_ready(c->port); /* what was queued for it is lost */
		log_info("network %s: the switch is gone; waiting for it", c->path);
	}
	timer_arm(&c->retry, clock_ns() + RETRY_NS);
}

static void say_hello(struct net_client *c, enum proto_type type)
{
	struct proto_hello h = {.head = {PROTO_MAGIC, PROTO_VERSION, (uint16_t)type}};

	snprintf(h.name, sizeof(h.name), "%s", c->name);
	snprintf(h.group, sizeof(h.group), "%s", c->group);
	h.up = netport_peer_mac(c->port, h.mac_given, h.mac_used) && netport_peer_up(c->port);
	h.features = netport_peer_features(c->port);
	h.max_frame_bytes = netport_peer_max_frame(c->port);
	if (proto_send(c->fd, &h, sizeof(h), NULL, 0))
		lose(c);
}

static void welcome(struct net_client *c, const struct proto_welcome *w, int fds[PROTO_FDS])
{
	if (w->error || fds[2] < 0) {
		if (!c->complained)
			log_warn("network %s: %.*s", c->path, (int)sizeof(w->text), w->text);
		c->complained = true;
		lose(c);
		return;
	}
	c->link.port = c->port;
	c->link.broken = lose;
	c->link.opaque = c;
	int rc = net_link_start(&c->link, c->loop, fds[0], fds[1], fds[2], false);
	fds[0] = fds[1] = fds[2] = -1;
	if (rc) {
		lose(c);
		return;
	}
	c->complained = false;
	pthread_mutex_lock(&c->lock);
	c->live = true;
	pthread_mutex_unlock(&c->lock);
	netport_set_link(c->port, true);
}

static void ready(void *opaque, int fd, int events)
{
	struct net_client *c = opaque;
	struct proto_welcome w;
	int fds[PROTO_FDS];
	ssize_t n = proto_receive(fd, &w, sizeof(w), fds);

	(void)events;
	if (n == -EAGAIN)
		return;
	if (n > 0 && !c->live && proto_head_valid(&w, (size_t)n, PROTO_WELCOME, sizeof(w)))
		welcome(c, &w, fds);
	else
		lose(c);
	proto_close_fds(fds);
}

static int try(struct net_client *c)
{
	int fd = proto_connect(c->path), rc;

	if (fd < 0)
		return fd;
	c->fd = fd;
	rc = loop_fd_add(c->loop, fd, POLLIN, ready, c, &c->watch);
	if (!rc)
		say_hello(c, PROTO_HELLO);
	return rc;
}

static void try_again(void *opaque)
{
	struct net_client *c = opaque;

	if (try(c))
		lose(c);
}

/* The NIC's address, features or link changed: said on the loop's thread, to be in order. */
static void changed(void *opaque)
{
	struct net_client *c = opaque;

	timer_arm(&c->update, 0);
}

static void send_update(void *opaque)
{
	struct net_client *c = opaque;

	if (c->live)
		say_hello(c, PROTO_UPDATE);
	else if (c->fd >= 0)
		timer_arm(&c->update, clock_ns() + RETRY_NS / 10);
}

int net_client_create(struct net_client **out, const struct net_client_config *config,
		      struct error *err)
{
	static const struct netport_ops ops = {.receive = to_switch, .changed = changed};
	struct netport_config pc = {.name = config->name,
				    .features = NET_CAN_ALL,
				    .max_frame_bytes = NET_FRAME_MAX_BYTES};
	struct net_client *c = calloc(1, sizeof(*c));
	int rc;

	*out = NULL;
	if (!c)
		return error_set(err, -ENOMEM, "network %s: out of memory", config->path);
	c->loop = config->loop;
	c->fd = c->link.wake_fd = c->link.kick_fd = -1;
	snprintf(c->path, sizeof(c->path), "%s", config->path);
	snprintf(c->name, sizeof(c->name), "%s", config->name);
	snprintf(c->group, sizeof(c->group), "%s", config->group ? config->group : "default");
	pthread_mutex_init(&c->lock, NULL);
	timer_init(&c->retry, c->loop, try_again, c);
	timer_init(&c->update, c->loop, send_update, c);
	rc = netport_create(&c->port, &pc, &ops, c);
	if (!rc) {
		netport_set_link(c->port, false);
		rc = try(c);
	}
	if (rc) {
		net_client_destroy(c);
		return error_set(err, rc,
				 "network %s: its switch does not answer: %s; "
				 "`hanok net start` starts it",
				 config->path, strerror(-rc));
	}
	*out = c;
	return 0;
}

void net_client_destroy(struct net_client *c)
{
	if (!c)
		return;
	if (c->port)
		netport_disconnect(c->port);
	timer_destroy(&c->update);
	lose(c);
	timer_destroy(&c->retry);
	netport_destroy(c->port);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

struct netport *net_client_port(struct net_client *c)
{
	return c->port;
}

/* ---- requests ---- */

static int read_answer(int fd, char **answer)
{
	struct stat st;

	if (fstat(fd, &st) || st.st_size < 0 || st.st_size > 64 << 20)
		return -EPROTO;
	*answer = malloc((size_t)st.st_size + 1);
	if (!*answer)
		return -ENOMEM;
	ssize_t n = pread(fd, *answer, (size_t)st.st_size, 0);
	if (n != st.st_size) {
		free(*answer);
		*answer = NULL;
		return -EIO;
	}
	(*answer)[n] = 0;
	return 0;
}

int net_request(const char *path, const char *text, char **answer, struct error *err)
{
	struct proto_head head = {PROTO_MAGIC, PROTO_VERSION, PROTO_REQUEST}, got;
	struct timeval patience = {.tv_sec = 30};
	size_t n = strlen(text);
	int fds[PROTO_FDS] = {-1, -1, -1}, fd, rc;
	char *m = malloc(sizeof(head) + n);

	*answer = NULL;
	if (!m || n > PROTO_TEXT_MAX - sizeof(head)) {
		free(m);
		return error_set(err, -E2BIG, "%s: the request is too long", path);
	}
	memcpy(m, &head, sizeof(head));
	memcpy(m + sizeof(head), text, n);
	fd = proto_connect(path);
	rc = fd < 0 ? fd : 0;
	if (!rc) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		rc = proto_send(fd, m, sizeof(head) + n, NULL, 0);
	}
	free(m);
	if (!rc) {
		ssize_t bytes = proto_receive(fd, &got, sizeof(got), fds);
		if (bytes < 0)
			rc = (int)bytes;
		else if (!proto_head_valid(&got, (size_t)bytes, PROTO_ANSWER, sizeof(got)) ||
			 fds[0] < 0)
			rc = -EPROTO;
		else
			rc = read_answer(fds[0], answer);
	}
	proto_close_fds(fds);
	if (fd >= 0)
		close(fd);
	return rc ? error_set(err, rc, "%s: the switch does not answer: %s", path, strerror(-rc))
		  : 0;
}
