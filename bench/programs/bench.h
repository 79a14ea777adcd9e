/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C workloads: one static program, `programs NAME N`, that does N units of one kind of work and prints
 * what came out of it. It measures nothing itself: runner.c does, so that the same work is timed in the same
 * way in the host, in QEMU and in Hanok.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

/* Ends the program with a message when cond is false: a workload that went wrong must not look fast. */
void need(int cond, const char *what);

/* The next number of a xorshift generator; *state is never 0. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x;
}

/* bytes of anonymous memory in small pages, whatever the host's or guest's huge-page setting is. */
void *map_small(size_t bytes);

/* compute.c */
void bench_sieve(unsigned n);
void bench_sort(unsigned n);
void bench_calls(unsigned n);
void bench_bytecode(unsigned n);
void bench_sha256(unsigned n);

/* float.c */
void bench_nbody(unsigned n);
void bench_matmul(unsigned n);
void bench_mandelbrot(unsigned n);
void bench_x87(unsigned n);

/* simd.c */
void bench_aes(unsigned n);
void bench_avx2_matmul(unsigned n);
void bench_avx2_stream(unsigned n);

/* memory.c */
void bench_memset(unsigned n);
void bench_memcpy(unsigned n);
void bench_chase(unsigned n);
void bench_touch(unsigned n);
void bench_mmap(unsigned n);
void bench_cow(unsigned n);

/* system.c */
void bench_getppid(unsigned n);
void bench_file(unsigned n);
void bench_signal(unsigned n);
void bench_fork(unsigned n);
void bench_exec(unsigned n);
void bench_pipe(unsigned n);
void bench_switch(unsigned n);

#endif
