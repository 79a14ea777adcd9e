/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_IOV_H
#define HANOK_DISK_IOV_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

/* A position in a scatter-gather list, from which its bytes are taken one piece after another. */
struct iov_cursor {
	const struct iovec *iov;
	unsigned count;
	size_t skip; /* in iov[0] */
};

static inline struct iov_cursor iov_cursor(const struct iovec *iov, unsigned count)
{
	return (struct iov_cursor){iov, count, 0};
}

/* The next piece of at most `bytes`; its length is 0 only at the end. */
static inline struct iovec iov_next(struct iov_cursor *c, uint64_t bytes)
{
	struct iovec piece = {NULL, 0};

	while (c->count && c->skip == c->iov->iov_len) {
		c->iov++;
		c->count--;
		c->skip = 0;
	}
	if (!c->count)
		return piece;
	piece.iov_base = (char *)c->iov->iov_base + c->skip;
	piece.iov_len = c->iov->iov_len - c->skip;
	if (piece.iov_len > bytes)
		piece.iov_len = bytes;
	c->skip += piece.iov_len;
	return piece;
}

enum iov_way { IOV_TO, IOV_FROM, IOV_ZERO };

/* Copies `bytes` to the list or from it, or zeroes them there, and moves on. */
static inline void iov_copy(struct iov_cursor *c, enum iov_way way, void *buf, uint64_t bytes)
{
	char *at = buf;

	while (bytes) {
		struct iovec p = iov_next(c, bytes);
		if (!p.iov_len)
			return;
		if (way == IOV_ZERO)
			memset(p.iov_base, 0, p.iov_len);
		else if (way == IOV_TO)
			memcpy(p.iov_base, at, p.iov_len);
		else
			memcpy(at, p.iov_base, p.iov_len);
		if (at)
			at += p.iov_len;
		bytes -= p.iov_len;
	}
}

/* Does the next piece hold all of `bytes`? Then it, and the cursor moves on; else a NULL base. */
static inline struct iovec iov_whole(struct iov_cursor *c, uint64_t bytes)
{
	struct iov_cursor saved = *c;
	struct iovec p = iov_next(c, bytes);

	if (p.iov_len == bytes)
		return p;
	*c = saved;
	return (struct iovec){NULL, 0};
}

#endif
