/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data path of TAP and packet sockets, and TAP's set-up; the packet socket's is in bridge.c.
 *
 *     receive() on any thread ──> writev(fd): virtio header, frame
 *     the loop: fd readable ──> readv until there is no more, or a batch ──> netport_send()
 *
 * When the kernel's queue is full, receive() says so, and the loop waits until there is room.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/tap_internal.h"

enum { BATCH = 32, BUFFER_BYTES = NET_FRAME_MAX_BYTES + 6, TURNS = 8 };

struct net_tap {
	struct loop *loop;
	struct netport *port;
	struct loop_fd *watch;
	struct timer full; /* set to now when the kernel's queue is full */
	int fd;
	bool packet;
	uint8_t *buffers;
};

int vnet_from_meta(struct vnet_header *v, const struct net_meta *m)
{
	static const uint8_t types[] = {
		[NET_GSO_NONE] = VIRTIO_NET_HDR_GSO_NONE,
		[NET_GSO_TCP4] = VIRTIO_NET_HDR_GSO_TCPV4,
		[NET_GSO_TCP6] = VIRTIO_NET_HDR_GSO_TCPV6,
	};

	*v = (struct vnet_header){0};
	if (m->gso > NET_GSO_TCP6)
		return -1;
	v->gso_type = types[m->gso];
	if (m->gso) {
		v->header_bytes = m->header_bytes;
		v->gso_size = m->gso_size;
	}
	if (m->flags & NET_CSUM_NEEDED) {
		v->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		v->csum_start = m->csum_start;
		v->csum_offset = m->csum_offset;
	} else if (m->flags & NET_CSUM_GOOD) {
		v->flags = VIRTIO_NET_HDR_F_DATA_VALID;
	}
	return 0;
}

int vnet_to_meta(struct net_meta *m, const struct vnet_header *v)
{
	*m = (struct net_meta){0};
	switch (v->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_NONE:
		break;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		m->gso = NET_GSO_TCP4;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		m->gso = NET_GSO_TCP6;
		break;
	case VIRTIO_NET_HDR_GSO_UDP:
		m->gso = NET_GSO_UDP_FRAG;
		break;
	case 5: /* VIRTIO_NET_HDR_GSO_UDP_L4 */
		m->gso = NET_GSO_UDP;
		break;
	default:
		return -1;
	}
	if (m->gso) {
		m->gso_size = v->gso_size;
		m->header_bytes = v->header_bytes;
	}
	if (v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		m->flags |= NET_CSUM_NEEDED;
		m->csum_start = v->csum_start;
		m->csum_offset = v->csum_offset;
	}
	if (v->flags & VIRTIO_NET_HDR_F_DATA_VALID)
		m->flags |= NET_CSUM_GOOD;
	return 0;
}

/* ---- to the kernel ---- */

/* 0, -EAGAIN, or 1: taken and dropped. */
static int write_frame(struct net_tap *t, const struct net_frame *f)
{
	struct iovec iov[NET_IOV_TOTAL + 1];
	struct vnet_header v;

	if (vnet_from_meta(&v, &f->meta) || f->iov_count > NET_IOV_TOTAL)
		return 1;
	iov[0] = (struct iovec){&v, sizeof(v)};
	memcpy(iov + 1, f->iov, f->iov_count * sizeof(*iov));
	while (writev(t->fd, iov, (int)f->iov_count + 1) < 0) {
		if (errno == EAGAIN || errno == ENOBUFS)
			return -EAGAIN;
		if (errno != EINTR)
			return 1; /* the interface is down (EIO), or does not like it (EINVAL) */
	}
	return 0;
}

static unsigned receive(void *opaque, const struct net_frame *f, unsigned n)
{
	struct net_tap *t = opaque;

	for (unsigned i = 0; i < n; i++) {
		int rc = write_frame(t, &f[i]);
		if (rc == -EAGAIN) {
			timer_arm(&t->full, 0);
			return i;
		}
		if (rc)
			netport_count_drop(t->port, NET_DROP_LINK_DOWN, 1);
	}
	return n;
}

static void wait_for_room(void *opaque)
{
	struct net_tap *t = opaque;

	loop_fd_set_events(t->watch, POLLIN | POLLOUT);
}

/* ---- from the kernel ---- */

/* One frame into its buffer: the virtio header, 6 bytes of room, the frame. Bytes or -errno. */
static ssize_t read_frame(struct net_tap *t, uint8_t *buffer, struct vnet_header *v,
			  struct net_meta *m)
{
	struct iovec iov[2] = {{v, sizeof(*v)}, {buffer, NET_FRAME_MAX_BYTES}};
	union {
		char bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = iov,
			     .msg_iovlen = 2,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	ssize_t n;

	do
		n = t->packet ? recvmsg(t->fd, &msg, 0) : readv(t->fd, iov, 2);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n < (ssize_t)sizeof(*v) || vnet_to_meta(m, v))
		return 0;
	/* The host's kernel takes tags out before packet sockets see them. */
	for (struct cmsghdr *c = t->packet ? CMSG_FIRSTHDR(&msg) : NULL; c;
	     c = CMSG_NXTHDR(&msg, c)) {
		struct tpacket_auxdata aux;
		if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA)
			continue;
		memcpy(&aux, CMSG_DATA(c), sizeof(aux));
		if (aux.tp_status & TP_STATUS_VLAN_VALID) {
			m->flags |= NET_VLAN;
			m->vlan_tci = aux.tp_vlan_tci;
		}
	}
	return n - (ssize_t)sizeof(*v);
}

static bool read_batch(struct net_tap *t)
{
	struct net_frame f[BATCH];
	struct iovec iov[BATCH];
	unsigned n = 0;
	ssize_t bytes = 0;

	while (n < BATCH) {
		struct vnet_header v;
		uint8_t *buffer = t->buffers + (size_t)n * BUFFER_BYTES;
		bytes = read_frame(t, buffer, &v, &f[n].meta);
		if (bytes < 0)
			break;
		if (!bytes)
			continue;
		iov[n] = (struct iovec){buffer, (size_t)bytes};
		f[n].iov = &iov[n];
		f[n].iov_count = 1;
		f[n++].bytes = (uint32_t)bytes;
	}
	if (n)
		netport_send(t->port, f, n);
	return bytes >= 0;
}

static void ready(void *opaque, int fd, int events)
{
	struct net_tap *t = opaque;

	(void)fd;
	if (events & POLLOUT) {
		loop_fd_set_events(t->watch, POLLIN);
		netport_ready(t->port);
	}
	/* Others on the loop get their turn. */
	for (unsigned turn = 0; (events & POLLIN) && turn < TURNS && read_batch(t); turn++)
		;
}

/* ---- life ---- */

struct netport *net_tap_port(struct net_tap *t)
{
	return t->port;
}

void net_tap_destroy(struct net_tap *t)
{
	if (!t)
		return;
	if (t->port)
		netport_disconnect(t->port);
	timer_destroy(&t->full);
	loop_fd_remove(t->watch);
	if (t->fd >= 0)
		close(t->fd);
	netport_destroy(t->port);
	free(t->buffers);
	free(t);
}

int net_tap_start(struct net_tap **out, struct loop *loop, const struct net_tap_config *c,
		  struct error *err)
{
	static const struct netport_ops ops = {.receive = receive};
	struct netport_config pc = {
		.name = c->name, .features = c->features, .max_frame_bytes = c->max_frame_bytes};
	struct net_tap *t = calloc(1, sizeof(*t));
	int rc = -ENOMEM;

	*out = NULL;
	if (!t) {
		close(c->fd);
		return error_set(err, -ENOMEM, "%s: out of memory", c->name);
	}
	t->loop = loop;
	t->fd = c->fd;
	t->packet = c->packet;
	timer_init(&t->full, loop, wait_for_room, t);
	t->buffers = malloc((size_t)BATCH * BUFFER_BYTES);
	if (t->buffers)
		rc = netport_create(&t->port, &pc, &ops, t);
	if (!rc)
		rc = loop_fd_add(loop, t->fd, POLLIN, ready, t, &t->watch);
	if (rc) {
		net_tap_destroy(t);
		return error_set(err, rc, "%s: %s", c->name, strerror(-rc));
	}
	*out = t;
	return 0;
}

static int tap_error(struct error *err, int rc, const char *name)
{
	if (rc == -EPERM || rc == -EACCES)
		return error_set(
			err, rc,
			"tap %s: no permission; let the administrator make it for you once: "
			"ip tuntap add %s mode tap vnet_hdr user %d",
			name, name, (int)getuid());
	if (rc == -ENOENT || rc == -ENODEV)
		return error_set(err, rc,
				 "tap %s: /dev/net/tun is not there; modprobe tun makes it", name);
	if (rc == -EBUSY)
		return error_set(err, rc, "tap %s: another program has it open", name);
	return error_set(err, rc, "tap %s: %s", name, strerror(-rc));
}

int net_tap_create(struct net_tap **out, struct loop *loop, const char *name, struct error *err)
{
	struct net_tap_config c = {.name = name,
				   .max_frame_bytes = NET_FRAME_MAX_BYTES,
				   .features = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6};
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int header = sizeof(struct vnet_header);

	*out = NULL;
	if (!*name || strlen(name) >= IFNAMSIZ)
		return error_set(err, -EINVAL, "tap %s: a name has 1 to %d letters", name,
				 IFNAMSIZ - 1);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	c.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (c.fd < 0 && errno == EACCES)
		return error_set(
			err, -EACCES,
			"tap %s: no permission to open /dev/net/tun; as root, `chmod 666 "
			"/dev/net/tun` gives it, and `ip tuntap add %s mode tap vnet_hdr user "
			"%d` the interface",
			name, name, (int)getuid());
	if (c.fd < 0)
		return tap_error(err, -errno, name);
	if (ioctl(c.fd, TUNSETIFF, &ifr) || ioctl(c.fd, TUNSETVNETHDRSZ, &header) ||
	    ioctl(c.fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)) {
		int rc = -errno;
		close(c.fd);
		return tap_error(err, rc, name);
	}
	return net_tap_start(out, loop, &c, err);
}
