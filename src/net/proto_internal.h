/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_PROTO_INTERNAL_H
#define HANOK_NET_PROTO_INTERNAL_H

#include "net/proto.h"
#include "net/ring.h"

/* What is sent through the socket: one message a packet, in the host's byte order. */
enum { PROTO_MAGIC = 0x484e4554, PROTO_VERSION = 1, PROTO_TEXT_MAX = 64 << 10, PROTO_FDS = 3 };

enum proto_type {
	PROTO_HELLO = 1, /* client: struct proto_hello */
	PROTO_WELCOME,	 /* switch: struct proto_welcome; memory, its wake-up, yours */
	PROTO_UPDATE,	 /* client: struct proto_hello, when something in it changed */
	PROTO_REQUEST,	 /* person: struct proto_head, text */
	PROTO_ANSWER,	 /* switch: struct proto_head; a memfd with the text */
};

struct proto_head {
	uint32_t magic;
	uint16_t version, type;
};

struct proto_hello {
	struct proto_head head;
	char name[NET_NAME_BYTES], group[NET_NAME_BYTES];
	uint8_t mac_given[6], mac_used[6];
	uint32_t features, max_frame_bytes;
	uint8_t up, reserved[3];
};

struct proto_welcome {
	struct proto_head head;
	int32_t error; /* 0 or -errno, and why: */
	char text[200];
};

/* Sends one message with up to PROTO_FDS descriptors. 0 or -errno. */
int proto_send(int fd, const void *message, size_t bytes, const int *fds, unsigned fd_count);
/* Receives one; returns its bytes (0: the other side is gone) or -errno. Descriptors that came are
 * in fds, the rest -1; the caller's. */
ssize_t proto_receive(int fd, void *message, size_t bytes, int fds[PROTO_FDS]);
bool proto_head_valid(const void *message, size_t bytes, enum proto_type type, size_t expected);
void proto_close_fds(int fds[PROTO_FDS]);
/* connect(2) on a UNIX socket: the descriptor or -errno. */
int proto_connect(const char *path);

/* ---- a pair of rings between two processes: link.c ---- */

struct net_link {
	void *memory; /* both rings */
	struct net_ring out, in;
	int wake_fd, kick_fd; /* ours to wait on, the peer's to wake it */
	struct loop_fd *watch;
	struct netport *port; /* what comes in goes out here */
	void (*broken)(void *opaque);
	void *opaque;
};

/* memory_fd of two rings; the first is written by the switch. Takes the descriptors over, also when
 * it fails; memory_fd is closed. */
int net_link_start(struct net_link *l, struct loop *loop, int memory_fd, int wake_fd, int kick_fd,
		   bool is_switch);
void net_link_stop(struct net_link *l);
/* A port's receive(), for the side that sends. */
unsigned net_link_send(struct net_link *l, const struct net_frame *f, unsigned n);

#endif
