/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_CODE_MEM_H
#define HANOK_CPU_CODE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Memory for generated code: mapped twice, once writable and once executable, so that
 * nothing is ever both through one address. It is handed out from the front and taken back as a
 * whole. No locks: it belongs to one thread at a time, or its user keeps order.
 */
enum { CODE_MEM_HUGE = 2 << 20 }; /* bytes of a huge page */

struct code_mem {
	uint8_t *rw;	   /* NULL when there is none */
	const uint8_t *rx; /* the same bytes */
	size_t bytes;
	size_t used;
	size_t ready;	   /* host memory has been asked for up to here */
	size_t asked_huge; /* and for huge pages */
	/* Changes with every reset, never 0 and never seen before in this process: who keeps an
	 * address in here keeps this beside it and compares. */
	uint32_t generation;
};

/* bytes is a multiple of 4096; host memory is taken on first touch. 0, -ENOMEM or another -errno
 * with err set; m is then destroyed. */
int code_mem_create(struct code_mem *m, size_t bytes, struct error *err);

/* Also of a zeroed or destroyed one. Nothing in it may be running. */
void code_mem_destroy(struct code_mem *m);

/* Asks the host for the memory of the first `end` bytes and some more, which costs less than one fault for
 * each page and each view of it; of a small code_mem it does not. Others may use it meanwhile. */
void code_mem_ask(struct code_mem *m, size_t end);

/* Where the next `bytes` bytes of code may be written, 16-byte aligned, or NULL when it is full. */
uint8_t *code_mem_reserve(struct code_mem *m, size_t bytes);

/* Keeps the first `bytes` bytes of what was reserved last; their address to run at. */
const void *code_mem_commit(struct code_mem *m, size_t bytes);

/* Gives the host the memory behind the first `kept` bytes back. No code lies there. */
void code_mem_give_back(struct code_mem *m, size_t kept);

/* Forgets all code; a new generation. Nothing in it may be running. */
void code_mem_reset(struct code_mem *m);

#endif
