/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's side of the socket. A client that says something wrong, or whose ring makes no sense,
 * is disconnected; nobody else notices.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "net/netport_internal.h"
#include "net/proto_internal.h"

enum { CLIENTS_MAX = 320 };

struct client {
	struct net_server *server;
	struct client *next;
	int fd;
	struct loop_fd *watch;
	bool connected; /* has a port */
	unsigned port_id;
	struct netport *port;
	struct net_link link;
};

struct net_server {
	struct loop *loop;
	struct net_server_config config;
	char path[108];
	int fd, lock_fd;
	struct loop_fd *watch;
	struct client *clients;
	unsigned client_count;
	char *buffer; /* for one message */
};

static void drop_client(void *opaque)
{
	struct client *c = opaque, **at = &c->server->clients;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->server->client_count--;
	/* First nobody sends to it any more, then its memory goes. */
	if (c->connected)
		net_switch_disconnect(c->server->config.sw, c->port_id);
	if (c->port)
		netport_destroy(c->port);
	net_link_stop(&c->link);
	loop_fd_remove(c->watch);
	close(c->fd);
	free(c);
}

static unsigned to_client(void *opaque, const struct net_frame *f, unsigned n)
{
	struct client *c = opaque;

	return net_link_send(&c->link, f, n);
}

/* Memory for two rings that nobody can make shorter below us. */
static int make_memory(void)
{
	int fd = memfd_create("hanok-net", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, 2 * NET_RING_MAP_BYTES) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

static void apply(struct client *c, const struct proto_hello *h)
{
	netport_set_given_mac(c->port, h->mac_given, h->mac_used);
	netport_set_features(c->port, h->features, h->max_frame_bytes);
	netport_set_link(c->port, h->up);
}

static int make_port(struct client *c, const struct proto_hello *h, int fds[PROTO_FDS])
{
	static const struct netport_ops ops = {.receive = to_client};
	struct netport_config pc = {
		.name = h->name, .features = h->features, .max_frame_bytes = h->max_frame_bytes};
	int rc;

	memcpy(pc.mac, h->mac_given, 6);
	fds[0] = make_memory();
	fds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fds[0] < 0 || fds[1] < 0 || fds[2] < 0)
		return -EMFILE;
	rc = netport_create(&c->port, &pc, &ops, c);
	if (rc)
		return rc;
	c->link.port = c->port;
	c->link.broken = drop_client;
	c->link.opaque = c;
	rc = net_link_start(&c->link, c->server->loop, dup(fds[0]), dup(fds[1]), dup(fds[2]), true);
	if (rc)
		return rc;
	rc = net_switch_connect(c->server->config.sw, c->port, h->group, false, &c->port_id);
	c->connected = !rc;
	return rc;
}

/* 0, or -1: the client has to go. */
static int hello(struct client *c, struct proto_hello *h)
{
	struct proto_welcome w = {.head = {PROTO_MAGIC, PROTO_VERSION, PROTO_WELCOME}};
	int fds[PROTO_FDS] = {-1, -1, -1}, rc;

	if (c->port)
		return -1;
	h->name[sizeof(h->name) - 1] = 0;
	h->group[sizeof(h->group) - 1] = 0;
	h->features &= NET_CAN_ALL | NET_WANT_LRO;
	w.error = make_port(c, h, fds);
	if (!w.error)
		apply(c, h);
	else if (w.error == -ENOENT)
		snprintf(w.text, sizeof(w.text), "no port group \"%s\"", h->group);
	else
		snprintf(w.text, sizeof(w.text), "%s", strerror(-w.error));
	/* The client's wake-up is the one that we kick. */
	int send_fds[PROTO_FDS] = {fds[0], fds[2], fds[1]};
	rc = proto_send(c->fd, &w, sizeof(w), send_fds, w.error ? 0 : PROTO_FDS);
	proto_close_fds(fds);
	return rc || w.error ? -1 : 0;
}

static int answer(struct client *c, char *text)
{
	struct proto_head head = {PROTO_MAGIC, PROTO_VERSION, PROTO_ANSWER};
	char *reply = c->server->config.request(c->server->config.opaque, text);
	int fd, rc = -1;

	if (!reply)
		return -1;
	fd = memfd_create("hanok-answer", MFD_CLOEXEC);
	size_t n = strlen(reply);
	if (fd >= 0 && write(fd, reply, n) == (ssize_t)n)
		rc = proto_send(c->fd, &head, sizeof(head), &fd, 1);
	if (fd >= 0)
		close(fd);
	free(reply);
	return rc;
}

static int message(struct client *c, char *m, size_t n)
{
	struct proto_hello h;

	if (proto_head_valid(m, n, PROTO_REQUEST, sizeof(struct proto_head))) {
		m[n] = 0;
		return answer(c, m + sizeof(struct proto_head));
	}
	if (n != sizeof(h))
		return -1;
	memcpy(&h, m, sizeof(h));
	if (proto_head_valid(m, n, PROTO_HELLO, sizeof(h)))
		return hello(c, &h);
	if (!proto_head_valid(m, n, PROTO_UPDATE, sizeof(h)) || !c->port)
		return -1;
	h.features &= NET_CAN_ALL | NET_WANT_LRO;
	apply(c, &h);
	return 0;
}

static void client_ready(void *opaque, int fd, int events)
{
	struct client *c = opaque;
	int fds[PROTO_FDS];
	ssize_t n = proto_receive(fd, c->server->buffer, PROTO_TEXT_MAX, fds);

	(void)events;
	proto_close_fds(fds); /* clients have nothing to give us */
	if (n == -EAGAIN)
		return;
	if (n <= 0 || message(c, c->server->buffer, (size_t)n))
		drop_client(c);
}

static void accept_client(void *opaque, int fd, int events)
{
	struct net_server *s = opaque;
	int client_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c;

	(void)events;
	if (client_fd < 0)
		return;
	c = s->client_count < CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(client_fd);
		return;
	}
	c->server = s;
	c->fd = client_fd;
	c->link.wake_fd = c->link.kick_fd = -1;
	c->next = s->clients;
	s->clients = c;
	s->client_count++;
	if (loop_fd_add(s->loop, client_fd, POLLIN, client_ready, c, &c->watch))
		drop_client(c);
}

/* ---- life ---- */

void net_server_destroy(struct net_server *s)
{
	if (!s)
		return;
	while (s->clients)
		drop_client(s->clients);
	loop_fd_remove(s->watch);
	if (s->fd >= 0) {
		unlink(s->path);
		close(s->fd);
	}
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s->buffer);
	free(s);
}

/* The lock beside the socket is held as long as its process lives, however that ends. */
static int take_path(struct net_server *s, struct error *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char lock[120];

	if (strlen(s->config.path) >= sizeof(a.sun_path))
		return error_set(err, -ENAMETOOLONG, "%s: too long for the name of a socket",
				 s->config.path);
	strcpy(s->path, s->config.path);
	strcpy(a.sun_path, s->path);
	snprintf(lock, sizeof(lock), "%s.lock", s->path);
	s->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return error_set(err, -errno, "%s: %s", lock, strerror(errno));
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB))
		return error_set(err, -EADDRINUSE, "%s: another process serves it already",
				 s->path);
	unlink(s->path);
	s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0177); /* who may connect is who may run VMs here: us */
	int rc = s->fd < 0 || bind(s->fd, (struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
	umask(mask);
	if (!rc && listen(s->fd, 64))
		rc = -errno;
	return rc ? error_set(err, rc, "%s: %s", s->path, strerror(-rc)) : 0;
}

int net_server_create(struct net_server **out, const struct net_server_config *config,
		      struct error *err)
{
	struct net_server *s = calloc(1, sizeof(*s));
	int rc;

	*out = NULL;
	if (!s)
		return error_set(err, -ENOMEM, "%s: out of memory", config->path);
	s->config = *config;
	s->loop = config->loop;
	s->fd = s->lock_fd = -1;
	s->buffer = malloc(PROTO_TEXT_MAX + 1);
	rc = s->buffer ? take_path(s, err) : error_set(err, -ENOMEM, "out of memory");
	if (!rc) {
		rc = loop_fd_add(s->loop, s->fd, POLLIN, accept_client, s, &s->watch);
		if (rc)
			error_set(err, rc, "%s: %s", s->path, strerror(-rc));
	}
	if (rc) {
		net_server_destroy(s);
		return rc;
	}
	*out = s;
	return 0;
}
