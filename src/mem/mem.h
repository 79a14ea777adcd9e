/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_MEM_H
#define HANOK_MEM_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Guest-physical memory: RAM in one memfd, mapped once into this process, laid out as a PC has it:
 * RAM from 0 up to MEM_LOW_MAX, a hole for devices up to 4 GiB, the rest of RAM from 4 GiB on.
 * Read-only memory (firmware images) may be laid over the hole or over low RAM.
 *
 * Guest data never asserts: every accessor checks its range and returns -EFAULT.
 */
enum { MEM_PAGE_BYTES = 4096, MEM_PAGE_SHIFT = 12 };
#define MEM_LOW_MAX UINT64_C(0xc0000000) /* RAM below 4 GiB ends here at the latest */
#define MEM_HIGH_BASE UINT64_C(0x100000000)

struct mem;

/* ram_bytes is a multiple of 1 MiB, at least 1 MiB. Host memory is taken on first touch. */
int mem_create(struct mem **out, uint64_t ram_bytes, struct error *err);
void mem_destroy(struct mem *m);

uint64_t mem_ram_bytes(const struct mem *m);
/* Bytes of RAM below the hole and from 4 GiB on. */
uint64_t mem_low_bytes(const struct mem *m);
uint64_t mem_high_bytes(const struct mem *m);
/* Bytes of guest RAM that the host holds now (touched pages). */
uint64_t mem_resident_bytes(const struct mem *m);

/*
 * Copies between guest-physical memory and a buffer. Any thread; not atomic as a whole. -EFAULT
 * when any byte of [gpa, gpa + len) is not RAM (for reads: or ROM); nothing is then written.
 */
int mem_read(const struct mem *m, uint64_t gpa, void *buf, size_t len);
int mem_write(struct mem *m, uint64_t gpa, const void *buf, size_t len);

/*
 * The host address of [gpa, gpa + len) if it is RAM and contiguous, else NULL. It stays valid
 * until mem_destroy. For DMA and for the loaders: who writes there tells by mem_written.
 */
void *mem_ptr(struct mem *m, uint64_t gpa, size_t len);

/* [gpa, gpa + len) was written through mem_ptr: code translated from it is stale. Any thread. */
void mem_written(struct mem *m, uint64_t gpa, uint64_t len);

/* Who wants to hear of writes by mem_write and mem_written, after they are done; on the writer's
 * thread. One at a time; NULL ends it. While nobody writes. */
void mem_set_listener(struct mem *m, void (*fn)(void *opaque, uint64_t gpa, uint64_t len),
		      void *opaque);

/* What lies at a guest-physical page. */
enum mem_kind { MEM_NONE, MEM_RAM, MEM_ROM };

/*
 * The host address of the 4 KiB page at gpa (any byte in it), for the TLBs of the engines. NULL
 * with MEM_NONE: the access goes to the bus. Writes to MEM_ROM are dropped by the caller.
 */
void *mem_page(struct mem *m, uint64_t gpa, enum mem_kind *kind);

/*
 * Lays a copy of data over [gpa, gpa + len) as ROM; page-aligned. Before any vCPU runs. The data
 * is the caller's. 0, -EINVAL, -ENOMEM.
 */
int mem_add_rom(struct mem *m, uint64_t gpa, const void *data, size_t len, struct error *err);

#endif
