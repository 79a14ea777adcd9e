/* SPDX-License-Identifier: Apache-2.0 */
/* Messages, and the two rings that a client and the switch share. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/proto_internal.h"

/* ---- messages ---- */

int proto_send(int fd, const void *message, size_t bytes, const int *fds, unsigned fd_count)
{
	union {
		char bytes[CMSG_SPACE(PROTO_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {(void *)message, bytes};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd_count) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

ssize_t proto_receive(int fd, void *message, size_t bytes, int fds[PROTO_FDS])
{
	union {
		char bytes[CMSG_SPACE(PROTO_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {message, bytes};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	ssize_t n;

	for (unsigned i = 0; i < PROTO_FDS; i++)
		fds[i] = -1;
	do
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		    c->cmsg_len <= CMSG_LEN(PROTO_FDS * sizeof(int)))
			memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return n;
}

bool proto_head_valid(const void *message, size_t bytes, enum proto_type type, size_t expected)
{
	struct proto_head head;

	if (bytes < sizeof(head) || bytes < expected)
		return false;
	memcpy(&head, message, sizeof(head));
	return head.magic == PROTO_MAGIC && head.version == PROTO_VERSION && head.type == type;
}

void proto_close_fds(int fds[PROTO_FDS])
{
	for (unsigned i = 0; i < PROTO_FDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

int proto_connect(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

/* ---- rings ---- */

static void kick(struct net_link *l)
{
	uint64_t one = 1;

	(void)!write(l->kick_fd, &one, sizeof(one));
}

unsigned net_link_send(struct net_link *l, const struct net_frame *f, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		int rc = net_ring_write(&l->out, &f[i]);
		if (rc == -ENOSPC)
			break;
		/* -EPROTO: the reading side of this process will find out that the peer is mad */
	}
	if (i && net_ring_publish(&l->out))
		kick(l);
	return i;
}

/* Up to some batches; true: there is more. False, or *mad. */
static bool take_batches(struct net_link *l, bool *mad)
{
	struct net_frame f[NET_BATCH_MAX];
	struct iovec iov[2 * NET_BATCH_MAX];
	uint32_t next;

	for (unsigned turn = 0; turn < 8; turn++) {
		int n = net_ring_read(&l->in, f, iov, NET_BATCH_MAX, &next);
		*mad = n < 0;
		if (n <= 0)
			return false;
		netport_send(l->port, f, (unsigned)n);
		if (net_ring_release(&l->in, next))
			kick(l);
	}
	return true;
}

static void woken(void *opaque, int fd, int events)
{
	struct net_link *l = opaque;
	uint64_t count;
	bool mad = false;

	(void)events;
	(void)!read(fd, &count, sizeof(count));
	if (take_batches(l, &mad) || (!mad && !net_ring_wait(&l->in))) {
		/* More, but others on the loop first: wake ourselves. */
		count = 1;
		(void)!write(l->wake_fd, &count, sizeof(count));
	}
	if (mad)
		l->broken(l->opaque);
	else if (net_ring_has_room(&l->out))
		netport_ready(l->port);
}

int net_link_start(struct net_link *l, struct loop *loop, int memory_fd, int wake_fd, int kick_fd,
		   bool is_switch)
{
	struct stat st;
	int rc;

	l->wake_fd = wake_fd;
	l->kick_fd = kick_fd;
	l->memory = NULL;
	l->watch = NULL;
	/* Less than we map would be a fault later. */
	if (fstat(memory_fd, &st) || st.st_size < 2 * NET_RING_MAP_BYTES)
		rc = -EPROTO;
	else {
		l->memory = mmap(NULL, 2 * NET_RING_MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
				 memory_fd, 0);
		rc = l->memory == MAP_FAILED ? -errno : 0;
	}
	close(memory_fd);
	if (rc) {
		l->memory = NULL;
		net_link_stop(l);
		return rc;
	}
	net_ring_attach(is_switch ? &l->out : &l->in, l->memory);
	net_ring_attach(is_switch ? &l->in : &l->out, (uint8_t *)l->memory + NET_RING_MAP_BYTES);
	rc = loop_fd_add(loop, wake_fd, POLLIN, woken, l, &l->watch);
	if (rc) {
		net_link_stop(l);
		return rc;
	}
	/* Start with a look at what may be there already. */
	uint64_t one = 1;
	(void)!write(wake_fd, &one, sizeof(one));
	return 0;
}

void net_link_stop(struct net_link *l)
{
	loop_fd_remove(l->watch);
	l->watch = NULL;
	if (l->memory)
		munmap(l->memory, 2 * NET_RING_MAP_BYTES);
	l->memory = NULL;
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	if (l->kick_fd >= 0)
		close(l->kick_fd);
	l->wake_fd = l->kick_fd = -1;
}
