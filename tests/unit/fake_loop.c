/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_loop.h"

#include <errno.h>

#include "base/loop.h"

enum { POSTS_MAX = 256 };

static struct post {
	void (*fn)(void *opaque);
	void *opaque;
} posts[POSTS_MAX];
static unsigned count;

int loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
	(void)loop;
	if (count == POSTS_MAX)
		return -ENOMEM;
	posts[count++] = (struct post){fn, opaque};
	return 0;
}

unsigned fake_loop_run(void)
{
	unsigned n = count;

	for (unsigned i = 0; i < n; i++)
		posts[i].fn(posts[i].opaque);
	for (unsigned i = n; i < count; i++)
		posts[i - n] = posts[i];
	count -= n;
	return n;
}

void fake_loop_reset(void)
{
	count = 0;
}
