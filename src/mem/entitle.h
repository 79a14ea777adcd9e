/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_ENTITLE_H
#define HANOK_MEM_ENTITLE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * How the memory of a pool is shared out between machines: reservations, limits and shares, and a tax
 * on idle memory (C. Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002, section 5).
 *
 * Each machine gets a budget in proportion to its shares. A page it uses costs 1 of it, an idle one
 * 1 / (1 - tax): 4 with the tax of 75 %. So memory that nobody looks at goes to who works with his, and
 * a quarter of a machine's share is its own even if it is idle.
 *
 * Pure functions, any thread.
 */
#define MEM_IDLE_TAX 0.75

struct mem_claim {
	uint64_t min_bytes;    /* the reservation: never less, used or not; at most max_bytes */
	uint64_t max_bytes;    /* never more: the limit, or its RAM */
	uint64_t shares;       /* 0 counts as 1 */
	uint64_t active_bytes; /* its working set */
	uint64_t
		touched_bytes; /* all its contents, in host memory or swapped out: more is no use to it
				 * but to grow */
};

/* What a machine gets to grow into: an eighth of what it has touched, at least 16 MiB. */
#define MEM_GROWTH_MIN_BYTES (UINT64_C(16) << 20)

/*
 * out[i]: what claim i is entitled to. Their sum is pool_bytes but for rounding, or less when the maxima
 * are less. First nobody gets more than he has touched with room to grow; what is left over then is
 * shared out up to the maxima. False: the minima alone are more than the pool, and each gets the same
 * part of his.
 */
bool mem_entitle(const struct mem_claim *c, unsigned n, uint64_t pool_bytes, uint64_t *out);

/* Shares as they are written: low, normal or high, 5, 10 or 20 for each MiB of RAM as vSphere has
 * them, or a number from 1 to MEM_SHARES_MAX for the whole machine. */
struct mem_shares {
	uint64_t count; /* 0: nothing was said, which is normal */
	bool per_mib;
};
#define MEM_SHARES_MAX 100000000
/* False: it is none of these. */
bool mem_parse_shares(const char *text, struct mem_shares *out);
uint64_t mem_shares_of(const struct mem_shares *s, uint64_t ram_bytes);

#endif
