/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_MEM_KINDS_H
#define HANOK_TESTS_MEM_KINDS_H

#include <stdbool.h>

#include "mem/mem.h"

/* Every test runs on both kinds of memory: private, and a file's. */
static bool of_a_file;

static int set_private(void **unused)
{
	(void)unused;
	of_a_file = false;
	return 0;
}

static int set_file(void **unused)
{
	(void)unused;
	of_a_file = true;
	return 0;
}

static inline int create_mem(struct mem **m, uint64_t bytes, struct error *err)
{
	return of_a_file ? mem_create_shared(m, bytes, err) : mem_create(m, bytes, err);
}

#endif
