/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Water-filling: the amount that a machine gets rises with its budget, shares * lambda, by 1 as long as
 * its working set is not covered and by 1 - tax from there on, between its bounds. Each of these
 * lines is continuous and never falls, so their sum is, too, and the lambda at which the sum is the pool
 * is found by bisection.
 */
#include "mem/entitle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Within what bounds: first what there is a use for, then all. */
enum phase { WANTED, REST };

static double min_of(double a, double b)
{
	return a < b ? a : b;
}

static double max_of(double a, double b)
{
	return a > b ? a : b;
}

static double least(const struct mem_claim *c)
{
	return (double)(c->min_bytes < c->max_bytes ? c->min_bytes : c->max_bytes);
}

static double wanted(const struct mem_claim *c)
{
	double touched = (double)c->touched_bytes;
	double growth = max_of(touched / 8, (double)MEM_GROWTH_MIN_BYTES);

	return max_of(least(c), min_of(touched + growth, (double)c->max_bytes));
}

static double amount(const struct mem_claim *c, enum phase phase, double lambda)
{
	double low = phase == WANTED ? least(c) : wanted(c);
	double high = phase == WANTED ? wanted(c) : (double)c->max_bytes;
	double active = (double)c->active_bytes;
	double budget = (double)(c->shares ? c->shares : 1) * lambda;
	double a = budget <= active ? budget : active + (budget - active) * (1 - MEM_IDLE_TAX);

	return max_of(low, min_of(a, high));
}

static double total(const struct mem_claim *c, unsigned n, enum phase phase, double lambda)
{
	double sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += amount(&c[i], phase, lambda);
	return sum;
}

/* The greatest lambda at which the sum is not above the pool; there is one at which it is. */
static double find_lambda(const struct mem_claim *c, unsigned n, enum phase phase, double pool)
{
	double low = 0, high = 1;

	while (total(c, n, phase, high) <= pool)
		high *= 2;
	for (;;) {
		double middle = low + (high - low) / 2;
		if (middle <= low || middle >= high)
			return low;
		if (total(c, n, phase, middle) <= pool)
			low = middle;
		else
			high = middle;
	}
}

static void scale_minima(const struct mem_claim *c, unsigned n, double pool, double sum,
			 uint64_t *out)
{
	for (unsigned i = 0; i < n; i++)
		out[i] = (uint64_t)(least(&c[i]) * (pool / sum));
}

bool mem_entitle(const struct mem_claim *c, unsigned n, uint64_t pool_bytes, uint64_t *out)
{
	double pool = (double)pool_bytes, minima = 0, all = 0, use = 0;

	for (unsigned i = 0; i < n; i++) {
		minima += least(&c[i]);
		use += wanted(&c[i]);
		all += (double)c[i].max_bytes;
	}
	if (minima > pool) {
		scale_minima(c, n, pool, minima, out);
		return false;
	}
	if (all <= pool) {
		for (unsigned i = 0; i < n; i++)
			out[i] = c[i].max_bytes;
		return true;
	}
	enum phase phase = use > pool ? WANTED : REST;
	double lambda = find_lambda(c, n, phase, pool);
	for (unsigned i = 0; i < n; i++)
		out[i] = (uint64_t)amount(&c[i], phase, lambda);
	return true;
}

/* ---- shares ---- */

bool mem_parse_shares(const char *text, struct mem_shares *out)
{
	static const struct {
		const char *name;
		unsigned per_mib;
	} levels[] = {{"low", 5}, {"normal", 10}, {"high", 20}};
	char *end;

	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (!strcasecmp(text, levels[i].name)) {
			*out = (struct mem_shares){levels[i].per_mib, true};
			return true;
		}
	}
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || !n || n > MEM_SHARES_MAX)
		return false;
	*out = (struct mem_shares){n, false};
	return true;
}

uint64_t mem_shares_of(const struct mem_shares *s, uint64_t ram_bytes)
{
	if (!s->count)
		return 10 * (ram_bytes >> 20);
	return s->per_mib ? s->count * (ram_bytes >> 20) : s->count;
}
