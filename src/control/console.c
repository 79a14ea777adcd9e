/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A serial port that several clients share.
 *
 *   guest -> UART -> write -+-> next (terminal, file): may hold back     any thread, UART's lock
 *                           +-> ring -> post -> flush -> each client's socket     the loop's thread
 *            UART <- board_serial_receive <- a client's input                     the loop's thread
 *
 * The ring holds the last CONSOLE_RING_BYTES of the stream; bytes are counted from the machine's
 * start, and a client is a position in that count. One that reads too slowly is overtaken, told how
 * much it lost, and goes on from the oldest byte there is: nobody holds the guest up. Input waits
 * the other way round: while the UART has no room, the client's socket is not read.
 */
#include "control/console.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

enum { INPUT_BYTES = 1024, PIECE_BYTES = 16 * 1024, DRAIN_MS = 1000 };

struct client {
	struct console *console;
	int fd;
	struct loop_fd *watch;
	uint64_t at;	  /* how much of the stream it has */
	char notice[96];  /* goes out before anything else */
	size_t notice_at; /* how much of it has */
	bool blocked;	  /* its socket takes no more for now */
	uint8_t *input;	  /* read, and not taken by the UART */
	size_t input_at, input_len;
};

struct console {
	struct loop *loop;
	struct machine *m;
	unsigned port;
	struct uart_backend next;

	struct client *clients[CONSOLE_CLIENTS_MAX]; /* the loop's thread */
	unsigned count;

	pthread_mutex_t lock; /* guards what follows; taken under the UART's lock */
	uint8_t *ring;
	uint64_t total; /* bytes of the stream so far */
	bool posted, pump_posted;
};

static void detach(struct console *c, unsigned i)
{
	struct client *k = c->clients[i];

	loop_fd_remove(k->watch);
	close(k->fd);
	free(k->input);
	free(k);
	c->clients[i] = c->clients[--c->count];
	c->clients[c->count] = NULL;
}

static void watch_for(struct client *k)
{
	loop_fd_set_events(k->watch, (k->input_len ? 0 : POLLIN) | (k->blocked ? POLLOUT : 0));
}

/* ---- output ---- */

/* What is next for a client: its length, 0 when it has everything. */
static size_t next_piece(struct client *k, uint8_t *piece)
{
	struct console *c = k->console;

	pthread_mutex_lock(&c->lock);
	uint64_t oldest = c->total > CONSOLE_RING_BYTES ? c->total - CONSOLE_RING_BYTES : 0;
	if (k->at < oldest) {
		snprintf(k->notice, sizeof(k->notice),
			 "\r\n[hanok: %" PRIu64 " bytes are lost here: they were not read in time]"
			 "\r\n",
			 oldest - k->at);
		k->notice_at = 0;
		k->at = oldest;
	}
	size_t len = strlen(k->notice + k->notice_at);
	if (len) {
		memcpy(piece, k->notice + k->notice_at, len);
	} else {
		size_t from = k->at % CONSOLE_RING_BYTES, room = CONSOLE_RING_BYTES - from;
		len = c->total - k->at < PIECE_BYTES ? (size_t)(c->total - k->at) : PIECE_BYTES;
		if (len > room)
			len = room;
		memcpy(piece, c->ring + from, len);
	}
	pthread_mutex_unlock(&c->lock);
	return len;
}

/* 0: it has everything, or its socket is full (blocked); or -errno: it is gone. */
static int flush(struct client *k)
{
	uint8_t piece[PIECE_BYTES];
	size_t len;

	k->blocked = false;
	while ((len = next_piece(k, piece))) {
		ssize_t n = send(k->fd, piece, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			k->blocked = true;
			return 0;
		}
		if (n < 0)
			return -errno;
		if (k->notice[k->notice_at])
			k->notice_at += (size_t)n;
		else
			k->at += (size_t)n;
	}
	return 0;
}

static void flush_all(void *opaque)
{
	struct console *c = opaque;

	pthread_mutex_lock(&c->lock);
	c->posted = false;
	pthread_mutex_unlock(&c->lock);
	for (unsigned i = c->count; i-- > 0;) {
		if (!c->clients[i]->blocked && flush(c->clients[i]) < 0)
			detach(c, i);
		else
			watch_for(c->clients[i]);
	}
}

static void keep(struct console *c, const uint8_t *data, size_t len)
{
	pthread_mutex_lock(&c->lock);
	for (size_t done = 0; done < len;) {
		size_t to = (c->total + done) % CONSOLE_RING_BYTES, n = len - done;
		if (n > CONSOLE_RING_BYTES - to)
			n = CONSOLE_RING_BYTES - to;
		memcpy(c->ring + to, data + done, n);
		done += n;
	}
	c->total += len;
	/* Out of memory: the next output tries again. */
	if (!c->posted)
		c->posted = loop_post(c->loop, flush_all, c) == 0;
	pthread_mutex_unlock(&c->lock);
}

static size_t backend_write(void *opaque, const uint8_t *data, size_t len)
{
	struct console *c = opaque;
	size_t taken = c->next.write ? c->next.write(c->next.opaque, data, len) : len;

	if (taken)
		keep(c, data, taken);
	return taken;
}

static void backend_break(void *opaque, bool on)
{
	struct console *c = opaque;

	if (c->next.set_break)
		c->next.set_break(c->next.opaque, on);
}

/* ---- input ---- */

static void hand_on(struct client *k)
{
	struct console *c = k->console;

	if (k->input_len) {
		size_t n = board_serial_receive(machine_board(c->m), c->port,
						k->input + k->input_at, k->input_len);
		k->input_at += n;
		k->input_len -= n;
	}
}

static void pump_all(void *opaque)
{
	struct console *c = opaque;

	pthread_mutex_lock(&c->lock);
	c->pump_posted = false;
	pthread_mutex_unlock(&c->lock);
	for (unsigned i = 0; i < c->count; i++) {
		hand_on(c->clients[i]);
		watch_for(c->clients[i]);
	}
}

static void backend_input_room(void *opaque)
{
	struct console *c = opaque;

	if (c->next.input_room)
		c->next.input_room(c->next.opaque);
	/* Not from within the UART's callback. */
	pthread_mutex_lock(&c->lock);
	if (!c->pump_posted)
		c->pump_posted = loop_post(c->loop, pump_all, c) == 0;
	pthread_mutex_unlock(&c->lock);
}

static void ready(void *opaque, int fd, int events)
{
	struct client *k = opaque;
	struct console *c = k->console;
	bool gone = false;

	if (events & POLLOUT)
		gone = flush(k) < 0;
	if (events & POLLIN && !gone && !k->input_len) {
		ssize_t n = recv(fd, k->input, INPUT_BYTES, MSG_DONTWAIT);
		gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
		k->input_at = 0;
		k->input_len = n > 0 ? (size_t)n : 0;
		hand_on(k);
	}
	if (!gone) {
		watch_for(k);
		return;
	}
	for (unsigned i = 0; i < c->count; i++) {
		if (c->clients[i] == k) {
			detach(c, i);
			break;
		}
	}
}

/* ---- life ---- */

int console_create(struct console **out, struct loop *loop, unsigned port,
		   const struct uart_backend *next, struct error *err)
{
	struct console *c = calloc(1, sizeof(*c));

	*out = NULL;
	if (c)
		c->ring = malloc(CONSOLE_RING_BYTES);
	if (!c || !c->ring) {
		free(c);
		return error_set(err, -ENOMEM, "the console: out of memory");
	}
	c->loop = loop;
	c->port = port;
	if (next)
		c->next = *next;
	pthread_mutex_init(&c->lock, NULL);
	*out = c;
	return 0;
}

void console_destroy(struct console *c)
{
	if (!c)
		return;
	while (c->count)
		detach(c, 0);
	pthread_mutex_destroy(&c->lock);
	free(c->ring);
	free(c);
}

struct uart_backend console_backend(struct console *c)
{
	return (struct uart_backend){
		.write = backend_write,
		.input_room = backend_input_room,
		.set_break = backend_break,
		.opaque = c,
	};
}

void console_set_machine(struct console *c, struct machine *m)
{
	c->m = m;
}

unsigned console_clients(const struct console *c)
{
	return c->count;
}

int console_attach(struct console *c, int fd, const void *input, size_t len, size_t replay)
{
	struct client *k = c->count < CONSOLE_CLIENTS_MAX ? calloc(1, sizeof(*k)) : NULL;
	int r = c->count < CONSOLE_CLIENTS_MAX ? -ENOMEM : -ENOSPC;

	if (k) {
		k->console = c;
		k->fd = fd;
		k->input = malloc(len > INPUT_BYTES ? len : INPUT_BYTES);
		r = k->input ? loop_fd_add(c->loop, fd, 0, ready, k, &k->watch) : -ENOMEM;
	}
	if (r < 0) {
		if (k)
			free(k->input);
		free(k);
		close(fd);
		return r;
	}
	pthread_mutex_lock(&c->lock);
	uint64_t kept = c->total < CONSOLE_RING_BYTES ? c->total : CONSOLE_RING_BYTES;
	k->at = c->total - (replay < kept ? replay : kept);
	pthread_mutex_unlock(&c->lock);
	if (len)
		memcpy(k->input, input, len);
	k->input_len = len;
	hand_on(k);
	c->clients[c->count++] = k;
	if (flush(k) < 0)
		detach(c, c->count - 1);
	else
		watch_for(k);
	return 0;
}

void console_drain(struct console *c)
{
	uint64_t until = clock_ns() + DRAIN_MS * UINT64_C(1000000);

	while (c->count) {
		struct client *k = c->clients[c->count - 1];
		struct pollfd p = {.fd = k->fd, .events = POLLOUT};
		uint64_t now = clock_ns();
		if (flush(k) == 0 && k->blocked && now < until &&
		    poll(&p, 1, (int)((until - now) / 1000000 + 1)) > 0)
			continue;
		detach(c, c->count - 1);
	}
}
