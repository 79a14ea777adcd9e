/* SPDX-License-Identifier: Apache-2.0 */
/* draft-ietf-opsawg-pcapng-02: 4.1 section header, 4.2 interface description, 4.3 enhanced packet. */
#include "net/pcapng.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/frame.h"

enum {
	BLOCK_SECTION = 0x0a0d0d0a,
	BLOCK_INTERFACE = 1,
	BLOCK_PACKET = 6,
	LINKTYPE_ETHERNET = 1,
	OPT_IF_NAME = 2,
	OPT_IF_TSRESOL = 9,
	OPT_EPB_FLAGS = 2,
};

struct net_capture {
	pthread_mutex_t lock;
	FILE *file;
	uint64_t limit_bytes, written, frames;
	unsigned interfaces;
	int error;
	struct net_fit *fit;
	unsigned id; /* for emit */
	bool sent;
};

static void put(struct net_capture *c, const void *bytes, size_t n)
{
	if (!c->error && fwrite(bytes, 1, n, c->file) != n) {
		c->error = -errno;
		log_warn("capture: it ends early: %s", strerror(errno));
	}
	c->written += n;
}

static void put32(struct net_capture *c, uint32_t v)
{
	put(c, &v, 4);
}

static void pad(struct net_capture *c, size_t n)
{
	static const uint8_t zero[4];

	put(c, zero, -n & 3);
}

static void put_option(struct net_capture *c, uint16_t code, const void *value, size_t n)
{
	uint16_t head[2] = {code, (uint16_t)n};

	put(c, head, 4);
	put(c, value, n);
	pad(c, n);
}

int net_capture_create(struct net_capture **out, const char *path, uint64_t limit_bytes,
		       struct error *err)
{
	static const uint32_t section[] = {BLOCK_SECTION, 28, 0x1a2b3c4d, 1, ~0u, ~0u, 28};
	struct net_capture *c = calloc(1, sizeof(*c));
	int fd;

	*out = NULL;
	if (!c || !(c->fit = calloc(1, sizeof(*c->fit)))) {
		free(c);
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	}
	/* What guests say to each other is not everybody's business. */
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	c->file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!c->file) {
		int rc = error_set(err, -errno, "%s: the capture cannot be written: %s", path,
				   strerror(errno));
		free(c->fit);
		free(c);
		return rc;
	}
	pthread_mutex_init(&c->lock, NULL);
	c->limit_bytes = limit_bytes;
	put(c, section, sizeof(section));
	fflush(c->file);
	*out = c;
	return 0;
}

int net_capture_close(struct net_capture *c)
{
	int rc;

	if (!c)
		return 0;
	rc = c->error;
	if (fclose(c->file) && !rc)
		rc = -errno;
	pthread_mutex_destroy(&c->lock);
	free(c->fit);
	free(c);
	return rc;
}

unsigned net_capture_add(struct net_capture *c, const char *name)
{
	size_t len = strlen(name);
	uint32_t total = (uint32_t)(16 + 4 + ((len + 3) & ~3u) + 8 + 4 + 4);
	uint8_t nanoseconds = 9;

	pthread_mutex_lock(&c->lock);
	unsigned id = c->interfaces++;
	put32(c, BLOCK_INTERFACE);
	put32(c, total);
	put32(c, LINKTYPE_ETHERNET);
	put32(c, 0); /* no limit of a packet's length */
	put_option(c, OPT_IF_NAME, name, len);
	put_option(c, OPT_IF_TSRESOL, &nanoseconds, 1);
	put32(c, 0); /* end of options */
	put32(c, total);
	fflush(c->file);
	pthread_mutex_unlock(&c->lock);
	return id;
}

static void put_packet(struct net_capture *c, const struct net_frame *f)
{
	uint32_t total = 28 + ((f->bytes + 3) & ~3u) + 8 + 4 + 4;
	uint32_t direction = c->sent ? 2 : 1; /* 4.3.1: outbound, inbound */
	uint64_t now = clock_utc_ns();

	if (c->error || (c->limit_bytes && c->written + total > c->limit_bytes))
		return;
	put32(c, BLOCK_PACKET);
	put32(c, total);
	put32(c, c->id);
	put32(c, (uint32_t)(now >> 32));
	put32(c, (uint32_t)now);
	put32(c, f->bytes);
	put32(c, f->bytes);
	for (unsigned i = 0; i < f->iov_count; i++)
		put(c, f->iov[i].iov_base, f->iov[i].iov_len);
	pad(c, f->bytes);
	put_option(c, OPT_EPB_FLAGS, &direction, 4);
	put32(c, 0);
	put32(c, total);
	c->frames++;
}

static void emit_packets(void *opaque, const struct net_frame *frames, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		put_packet(opaque, &frames[i]);
}

/* A GSO frame is one big packet: the fit makes its headers right, and then its checksum. */
static void emit_gso(void *opaque, const struct net_frame *frames, unsigned count)
{
	struct net_capture *c = opaque;
	enum net_drop cause;

	for (unsigned i = 0; i < count; i++) {
		struct net_frame f = frames[i];
		struct iovec iov[NET_IOV_TOTAL];
		uint8_t headers[NET_HEADERS_MAX];
		uint32_t n = f.bytes < NET_HEADERS_MAX ? f.bytes : NET_HEADERS_MAX;
		/* A copy: the second fit writes over the first one's memory. */
		net_frame_read(&f, 0, headers, n);
		iov[0] = (struct iovec){headers, n};
		f.iov_count = 1 + net_frame_slice(&f, n, f.bytes - n, iov + 1);
		f.iov = iov;
		f.meta.gso = NET_GSO_NONE;
		c->fit->count = 0;
		c->fit->emit = emit_packets;
		net_fit_frame(c->fit, &f, 0, UINT32_MAX, &cause);
		c->fit->count = 0;
	}
}

void net_capture_frame(struct net_capture *c, unsigned id, const struct net_frame *f, bool sent)
{
	enum net_drop cause;

	pthread_mutex_lock(&c->lock);
	c->id = id;
	c->sent = sent;
	c->fit->opaque = c;
	if (!f->meta.gso && net_fits(f, 0, UINT32_MAX)) {
		put_packet(c, f);
	} else {
		c->fit->emit = f->meta.gso ? emit_gso : emit_packets;
		if (net_fit_frame(c->fit, f, f->meta.gso ? NET_CAN_ALL : 0, UINT32_MAX, &cause))
			put_packet(c, f); /* one that lies: as it is, that is what one looks for */
		c->fit->count = 0;
	}
	fflush(c->file);
	pthread_mutex_unlock(&c->lock);
}

uint64_t net_capture_frames(struct net_capture *c)
{
	pthread_mutex_lock(&c->lock);
	uint64_t n = c->frames;
	pthread_mutex_unlock(&c->lock);
	return n;
}
