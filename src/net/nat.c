/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NAT by libslirp.
 *
 *      any thread                          │ the loop's thread
 *      receive() ─> in (a copy) ──> post ──┼─> take_input() ─> slirp_input() ─> sockets
 *                                          │                        │
 *      the peer's receive() <── netport_send() <── out <── send_packet()
 *
 * libslirp knows no offloads, but takes and sends long IP packets. So guests' TSO frames go to it
 * whole, with their checksum made here; and the other way, the maximum segment size that a guest asks
 * for is raised on its way in, so that libslirp sends long segments, which leave as GSO frames with
 * the size the guest asked for: who can take those gets them whole, for the others they are cut.
 */
#include "net/nat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/nat_flow.h"
#include "net/queue.h"

enum {
	MTU_BYTES = 65520, /* libslirp's IF_MTU_MAX */
	LONG_MSS = MTU_BYTES - 60,
	FDS_MAX = 4096,
	FORWARDS_MAX = 64,
	OUT_BYTES = 512 << 10,
	IN_FRAMES = 1024,
	IN_BYTES = 4 << 20,
};

/* A socket of libslirp's that the loop watches. */
struct watch {
	struct loop_fd *fd;
	int events, ready; /* POLL* */
	unsigned round;	   /* when it was last asked for */
};

struct net_nat {
	struct loop *loop;
	struct netport *port;
	Slirp *slirp;
	struct timer timer;    /* libslirp's patience */
	struct timer ra_timer; /* router advertisements */
	void *ra_opaque;
	struct nat_flows flows;
	struct net_forward forwards[FORWARDS_MAX];
	unsigned forward_count;

	struct watch watches[FDS_MAX]; /* by descriptor */
	int fd_max;
	unsigned round;
	/* Set to now, they are posts that end with us. */
	struct timer poll_timer, in_timer;

	/* What libslirp sent during one call into it. */
	uint8_t *out;
	uint32_t out_bytes;
	struct net_frame out_frames[NET_BATCH_MAX];
	struct iovec out_iov[NET_BATCH_MAX];
	unsigned out_count;

	pthread_mutex_t in_lock; /* guards what follows; no other is taken under it */
	struct net_queue in;
	bool in_armed;
};

static void poll_round(void *opaque);

/* ---- to the guest ---- */

static void flush_out(struct net_nat *nat)
{
	if (nat->out_count)
		netport_send(nat->port, nat->out_frames, nat->out_count);
	nat->out_count = 0;
	nat->out_bytes = 0;
}

/* A frame that is longer than the guest's: TCP is cut to its segment size, UDP into fragments. */
static void set_offload(struct net_meta *m, const struct net_headers *h,
			const struct nat_flow *flow, uint32_t bytes, uint32_t max_bytes)
{
	m->flags = h->l4 ? NET_CSUM_GOOD : 0;
	if (!h->l4)
		return;
	uint32_t mss = max_bytes - h->payload, asked = flow && flow->mss ? flow->mss : 536;

	if (h->protocol == IP_UDP) {
		if (bytes <= max_bytes)
			return;
		m->gso = NET_GSO_UDP_FRAG;
		m->gso_size = (uint16_t)((max_bytes - h->l4 - (h->version == 6 ? 8 : 0)) & ~7u);
		return;
	}
	if (mss > asked)
		mss = asked;
	if (bytes - h->payload <= mss)
		return;
	m->flags = NET_CSUM_NEEDED;
	m->csum_start = h->l4;
	m->csum_offset = 16;
	m->gso = h->version == 4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
	m->gso_size = (uint16_t)mss;
	m->header_bytes = h->payload;
}

static ssize_t send_packet(const void *bytes, size_t n, void *opaque)
{
	struct net_nat *nat = opaque;
	struct net_headers h;
	uint32_t max_bytes = netport_peer_max_frame(nat->port);

	if (n > NET_FRAME_MAX_BYTES)
		return -1;
	if (nat->out_count == NET_BATCH_MAX || n > OUT_BYTES - nat->out_bytes)
		flush_out(nat);
	unsigned i = nat->out_count++;
	nat->out_iov[i] = (struct iovec){nat->out + nat->out_bytes, n};
	nat->out_frames[i] = (struct net_frame){&nat->out_iov[i], 1, (uint32_t)n, {0}};
	memcpy(nat->out + nat->out_bytes, bytes, n);
	nat->out_bytes += ((uint32_t)n + 15) & ~15u;
	net_headers_parse(&h, &nat->out_frames[i]);
	struct nat_flow *flow = nat_flows_note(&nat->flows, &h, (uint32_t)n, false, clock_ns());
	/* A switch takes everything; behind it are guests with the MTU of Ethernet. */
	if (max_bytes == 0 || max_bytes > 16384)
		max_bytes = 1514;
	set_offload(&nat->out_frames[i].meta, &h, flow, (uint32_t)n, max_bytes);
	return (ssize_t)n;
}

/* ---- from the guest ---- */

/* A frame's checksum, in a copy of it. */
static void fill_checksum(uint8_t *p, uint32_t bytes, const struct net_meta *m)
{
	uint32_t field = (uint32_t)m->csum_start + m->csum_offset;

	if (!(m->flags & NET_CSUM_NEEDED) || field + 2 > bytes)
		return;
	uint16_t sum =
		(uint16_t)~net_sum_fold(net_sum(0, p + m->csum_start, bytes - m->csum_start));
	net_put16(p + field, sum ? sum : 0xffff);
}

/* RFC 1624: the checksum after a 16-bit word at an even place changed. */
static void replace16(uint8_t *at, uint16_t value, uint8_t *checksum)
{
	uint32_t sum = (uint16_t)~net_get16(checksum) + (uint32_t)(uint16_t)~net_get16(at) + value;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	net_put16(at, value);
	net_put16(checksum, (uint16_t)~sum);
}

static void raise_mss(struct nat_flow *flow, struct net_headers *h, uint8_t *p)
{
	uint32_t at;
	uint16_t mss = nat_syn_mss(h, &at);

	/* An odd place would need another sum; no system puts it there. */
	if (!mss || !flow || (at - h->l4) % 2)
		return;
	flow->mss = mss < 64 ? 64 : mss;
	replace16(p + at, LONG_MSS, p + h->l4 + 16);
}

/* DHCP (RFC 2131, figure 1) that asks for another card than the one it came from: there are few
 * leases, and a machine that makes up cards would have them all. */
static bool forged_dhcp(const struct net_headers *h, const uint8_t *p, uint32_t bytes)
{
	enum { SERVER_PORT = 67, CHADDR = 28 };

	return h->version == 4 && h->protocol == IP_UDP && h->payload &&
	       net_get16(p + h->l4 + 2) == SERVER_PORT && bytes >= h->payload + CHADDR + 6u &&
	       memcmp(p + h->payload + CHADDR, p + 6, 6) != 0;
}

static void input_one(struct net_nat *nat, struct net_queued *e)
{
	struct net_headers h;

	net_headers_parse(&h, &e->frame);
	if (forged_dhcp(&h, e->bytes, e->frame.bytes)) {
		netport_count_drop(nat->port, NET_DROP_FORGED, 1);
		return;
	}
	struct nat_flow *flow = nat_flows_note(&nat->flows, &h, e->frame.bytes, true, clock_ns());
	fill_checksum(e->bytes, e->frame.bytes, &e->frame.meta);
	raise_mss(flow, &h, e->bytes);
	slirp_input(nat->slirp, e->bytes, (int)e->frame.bytes);
}

static void take_input(void *opaque)
{
	struct net_nat *nat = opaque;
	struct net_queue todo;

	net_queue_init(&todo, IN_FRAMES, IN_BYTES);
	pthread_mutex_lock(&nat->in_lock);
	nat->in_armed = false;
	net_queue_move(&todo, &nat->in);
	pthread_mutex_unlock(&nat->in_lock);
	while (todo.first) {
		input_one(nat, todo.first);
		net_queue_drop(&todo, 1);
	}
	flush_out(nat);
	netport_ready(nat->port);
	poll_round(nat);
}

static unsigned receive(void *opaque, const struct net_frame *f, unsigned n)
{
	struct net_nat *nat = opaque;
	bool arm;
	unsigned i;

	pthread_mutex_lock(&nat->in_lock);
	for (i = 0; i < n && !net_queue_push(&nat->in, &f[i], 0); i++)
		;
	arm = nat->in.first && !nat->in_armed;
	nat->in_armed |= arm;
	pthread_mutex_unlock(&nat->in_lock);
	if (arm)
		timer_arm(&nat->in_timer, 0);
	return i;
}

/* ---- libslirp's sockets and timers, on the loop ---- */

static void fd_ready(void *opaque, int fd, int events)
{
	struct net_nat *nat = opaque;

	nat->watches[fd].ready |= events;
	/* All that are ready in this turn of the loop go to libslirp together. */
	timer_arm(&nat->poll_timer, 0);
}

static void unwatch(struct net_nat *nat, int fd)
{
	struct watch *w = &nat->watches[fd];

	loop_fd_remove(w->fd);
	*w = (struct watch){0};
}

static int add_poll(int fd, int slirp_events, void *opaque)
{
	struct net_nat *nat = opaque;
	struct watch *w;
	int events = 0;

	if (fd < 0 || fd >= FDS_MAX)
		return -1;
	w = &nat->watches[fd];
	if (slirp_events & (SLIRP_POLL_IN | SLIRP_POLL_HUP | SLIRP_POLL_PRI))
		events |= POLLIN;
	if (slirp_events & SLIRP_POLL_OUT)
		events |= POLLOUT;
	if (!w->fd) {
		if (loop_fd_add(nat->loop, fd, events, fd_ready, nat, &w->fd))
			return -1;
		if (fd > nat->fd_max)
			nat->fd_max = fd;
	} else if (w->events != events) {
		loop_fd_set_events(w->fd, events);
	}
	w->events = events;
	w->round = nat->round;
	return fd;
}

static int get_events(int fd, void *opaque)
{
	struct net_nat *nat = opaque;
	int slirp_events = 0;

	if (fd < 0 || fd >= FDS_MAX)
		return 0;
	struct pollfd now = {.fd = fd, .events = (short)nat->watches[fd].ready};
	/* Asked anew: meanwhile it may have been read. libslirp 4.7 takes EAGAIN of a UDP socket for
	 * an error, and falls over it if the socket is a forward's (it has no datagram of the guest's
	 * to answer by ICMP). */
	if (nat->watches[fd].ready)
		poll(&now, 1, 0);
	if (now.revents & (POLLIN | POLLHUP | POLLERR))
		slirp_events |= SLIRP_POLL_IN;
	if (now.revents & POLLOUT)
		slirp_events |= SLIRP_POLL_OUT;
	nat->watches[fd].ready = 0;
	return slirp_events;
}

/* Asks libslirp what it waits for now. */
static void watch_sockets(struct net_nat *nat)
{
	uint32_t timeout_ms = UINT32_MAX;

	nat->round++;
	slirp_pollfds_fill(nat->slirp, &timeout_ms, add_poll, nat);
	for (int fd = 0; fd <= nat->fd_max; fd++) {
		struct watch *w = &nat->watches[fd];
		if (w->fd && w->round != nat->round && w->events) {
			loop_fd_set_events(w->fd, 0);
			w->events = 0;
		}
	}
	if (timeout_ms == UINT32_MAX)
		timer_cancel(&nat->timer);
	else
		timer_arm(&nat->timer, clock_ns() + timeout_ms * UINT64_C(1000000));
}

static void poll_round(void *opaque)
{
	struct net_nat *nat = opaque;

	slirp_pollfds_poll(nat->slirp, 0, get_events, nat);
	flush_out(nat);
	watch_sockets(nat);
}

static void register_fd(int fd, void *opaque)
{
	struct net_nat *nat = opaque;

	/* A number that comes again is another socket. */
	if (fd >= 0 && fd < FDS_MAX && nat->watches[fd].fd)
		unwatch(nat, fd);
}

static void unregister_fd(int fd, void *opaque)
{
	register_fd(fd, opaque);
}

static void ra_due(void *opaque)
{
	struct net_nat *nat = opaque;

	slirp_handle_timer(nat->slirp, SLIRP_TIMER_RA, nat->ra_opaque);
	flush_out(nat);
}

static void *new_timer(SlirpTimerId id, void *timer_opaque, void *opaque)
{
	struct net_nat *nat = opaque;

	(void)id; /* there is one only */
	nat->ra_opaque = timer_opaque;
	timer_init(&nat->ra_timer, nat->loop, ra_due, nat);
	return &nat->ra_timer;
}

static void free_timer(void *timer, void *opaque)
{
	(void)opaque;
	timer_destroy(timer);
}

static void set_timer(void *timer, int64_t expire_ms, void *opaque)
{
	(void)opaque;
	timer_arm(timer, (uint64_t)expire_ms * 1000000);
}

static int64_t now_ns(void *opaque)
{
	(void)opaque;
	return (int64_t)clock_ns();
}

static void guest_error(const char *message, void *opaque)
{
	log_debug("nat %s: %s", netport_name(((struct net_nat *)opaque)->port), message);
}

static void notify(void *opaque)
{
	(void)opaque; /* poll_round asks after every input */
}

static const SlirpCb callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = now_ns,
	.timer_free = free_timer,
	.timer_mod = set_timer,
	.timer_new_opaque = new_timer,
	.register_poll_fd = register_fd,
	.unregister_poll_fd = unregister_fd,
	.notify = notify,
};

/* ---- inspection ---- */

unsigned net_nat_get_flows(struct net_nat *nat, struct net_nat_flow *out, unsigned max)
{
	uint64_t now = clock_ns();
	char *text = slirp_connection_info(nat->slirp);
	unsigned n = 0;

	nat_flows_refresh(&nat->flows, text, now);
	free(text); /* GLib's g_free is free() since 2.46 */
	for (unsigned i = 0; i < NAT_FLOWS && n < max; i++) {
		const struct nat_flow *e = &nat->flows.flows[i];
		if (!e->used)
			continue;
		out[n] = e->f;
		out[n].age_ns = now - e->f.age_ns;
		out[n++].idle_ns = now - e->f.idle_ns;
	}
	return n;
}

/* ---- forwards ---- */

static socklen_t address_bytes(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static int forward_flags(const struct net_forward *f)
{
	return (f->udp ? SLIRP_HOSTFWD_UDP : 0) |
	       (f->host.ss_family == AF_INET6 ? SLIRP_HOSTFWD_V6ONLY : 0);
}

static bool same_host_side(const struct net_forward *a, const struct net_forward *b)
{
	return a->udp == b->udp && a->host.ss_family == b->host.ss_family &&
	       !memcmp(&a->host, &b->host, address_bytes(&a->host));
}

static unsigned find_forward(struct net_nat *nat, const struct net_forward *f)
{
	unsigned i = 0;

	while (i < nat->forward_count && !same_host_side(&nat->forwards[i], f))
		i++;
	return i;
}

int net_nat_add_forward(struct net_nat *nat, const struct net_forward *f, struct error *err)
{
	char text[128];

	net_forward_format(f, text);
	if (find_forward(nat, f) < nat->forward_count)
		return error_set(err, -EEXIST, "forward %s: the host's side is forwarded already",
				 text);
	if (nat->forward_count == FORWARDS_MAX)
		return error_set(err, -ENOSPC, "forward %s: there are %d already", text,
				 FORWARDS_MAX);
	if (slirp_add_hostxfwd(nat->slirp, (const struct sockaddr *)&f->host,
			       address_bytes(&f->host), (const struct sockaddr *)&f->guest,
			       address_bytes(&f->guest), forward_flags(f)) < 0) {
		int rc = errno ? -errno : -EADDRINUSE;
		return error_set(err, rc, "forward %s: the host cannot listen there: %s", text,
				 strerror(-rc));
	}
	nat->forwards[nat->forward_count++] = *f;
	watch_sockets(nat);
	return 0;
}

int net_nat_remove_forward(struct net_nat *nat, const struct net_forward *f, struct error *err)
{
	unsigned i = find_forward(nat, f);
	char text[128];

	net_forward_format(f, text);
	if (i == nat->forward_count)
		return error_set(err, -ENOENT, "forward %s: there is no such one", text);
	slirp_remove_hostxfwd(nat->slirp, (const struct sockaddr *)&f->host,
			      address_bytes(&f->host), forward_flags(f));
	nat->forwards[i] = nat->forwards[--nat->forward_count];
	watch_sockets(nat);
	return 0;
}

bool net_nat_get_forward(struct net_nat *nat, unsigned i, struct net_forward *out)
{
	if (i >= nat->forward_count)
		return false;
	*out = nat->forwards[i];
	return true;
}

/* ---- life ---- */

struct netport *net_nat_port(struct net_nat *nat)
{
	return nat->port;
}

static int start(struct net_nat *nat, const struct net_nat_config *c)
{
	uint32_t net = ntohl(c->network.s_addr ? c->network.s_addr : htonl(0x0a000200));
	unsigned prefix = c->prefix ? c->prefix : 24;
	uint32_t mask = ~0u << (32 - prefix);
	SlirpConfig s = {
		.version = 4,
		.restricted = c->isolated,
		.in_enabled = true,
		.in6_enabled = !c->no_ipv6,
		.vprefix_len = 64,
		.vhostname = c->hostname ? c->hostname : "hanok",
		.if_mtu = MTU_BYTES,
		.if_mru = MTU_BYTES,
		.disable_host_loopback = c->no_host_loopback,
	};

	net &= mask;
	s.vnetwork.s_addr = htonl(net);
	s.vnetmask.s_addr = htonl(mask);
	s.vhost.s_addr = htonl(net | 2);
	s.vnameserver.s_addr = htonl(net | 3);
	s.vdhcp_start.s_addr = htonl(net | (prefix <= 27 ? 15 : 4));
	inet_pton(AF_INET6, "fec0::", &s.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &s.vhost6);
	inet_pton(AF_INET6, "fec0::3", &s.vnameserver6);
	nat->slirp = slirp_new(&s, &callbacks, nat);
	return nat->slirp ? 0 : -ENOMEM;
}

int net_nat_create(struct net_nat **out, const struct net_nat_config *config, struct error *err)
{
	static const struct netport_ops ops = {.receive = receive};
	struct netport_config pc = {
		.name = config->name ? config->name : "nat",
		.features = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6,
		.max_frame_bytes = MTU_BYTES + NET_ETH_HEADER_BYTES,
	};
	struct net_nat *nat;

	*out = NULL;
	if (config->prefix && (config->prefix < 8 || config->prefix > 28))
		return error_set(err, -EINVAL, "nat: a prefix of %u: it must be from 8 to 28",
				 config->prefix);
	nat = calloc(1, sizeof(*nat));
	if (!nat)
		return error_set(err, -ENOMEM, "nat: out of memory");
	nat->loop = config->loop;
	nat->out = malloc(OUT_BYTES);
	pthread_mutex_init(&nat->in_lock, NULL);
	net_queue_init(&nat->in, IN_FRAMES, IN_BYTES);
	timer_init(&nat->timer, nat->loop, poll_round, nat);
	timer_init(&nat->poll_timer, nat->loop, poll_round, nat);
	timer_init(&nat->in_timer, nat->loop, take_input, nat);
	if (!nat->out || nat_flows_create(&nat->flows) ||
	    netport_create(&nat->port, &pc, &ops, nat) || start(nat, config)) {
		net_nat_destroy(nat);
		return error_set(err, -ENOMEM, "nat: out of memory, or libslirp could not start");
	}
	watch_sockets(nat);
	*out = nat;
	return 0;
}

void net_nat_destroy(struct net_nat *nat)
{
	if (!nat)
		return;
	/* First nobody comes in any more, then libslirp closes its sockets. */
	if (nat->port)
		netport_disconnect(nat->port);
	timer_destroy(&nat->in_timer);
	if (nat->slirp)
		slirp_cleanup(nat->slirp);
	timer_destroy(&nat->timer);
	timer_destroy(&nat->poll_timer);
	for (int fd = 0; fd <= nat->fd_max; fd++)
		if (nat->watches[fd].fd)
			unwatch(nat, fd);
	netport_destroy(nat->port);
	nat_flows_destroy(&nat->flows);
	net_queue_clear(&nat->in);
	pthread_mutex_destroy(&nat->in_lock);
	free(nat->out);
	free(nat);
}
