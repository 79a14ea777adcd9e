/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_POOL_H
#define HANOK_CONTROL_POOL_H

#include "base/error.h"
#include "base/loop.h"
#include "mem/mem.h"

/*
 * A machine's part in the memory pool of its user's machines (control/pool_file.h). Every second, or five when
 * all is quiet, it tells the others how much memory it uses, and when the pool is nearly full it keeps
 * the limit that mem_entitle (mem/entitle.h) finds for it; else its own. All find the same for
 * all, so nobody has to decide.
 */
struct pool;

struct pool_config {
	struct mem *mem;      /* outlives the pool; whose limit is set */
	struct loop *loop;    /* whose thread calls all of this */
	const char *name;     /* copied */
	uint64_t limit_bytes; /* the machine's own; 0: none */
	uint64_t min_bytes;
	uint64_t shares;
};

/* 0; or -errno with one line: the machine can go on without. */
int pool_join(struct pool **out, const struct pool_config *c, struct error *err);
/* NULL is allowed. The machine's own limit holds again. */
void pool_leave(struct pool *p);

#endif
