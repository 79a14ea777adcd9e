/* SPDX-License-Identifier: Apache-2.0 */
/* `programs NAME N`: the front of the C workloads; see bench.h. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct {
	const char *name;
	void (*run)(unsigned n);
} programs[] = {
	{ "sieve", bench_sieve },
	{ "sort", bench_sort },
	{ "calls", bench_calls },
	{ "bytecode", bench_bytecode },
	{ "sha256", bench_sha256 },
	{ "nbody", bench_nbody },
	{ "matmul", bench_matmul },
	{ "mandelbrot", bench_mandelbrot },
	{ "x87", bench_x87 },
	{ "aes", bench_aes },
	{ "avx2-matmul", bench_avx2_matmul },
	{ "avx2-stream", bench_avx2_stream },
	{ "memset", bench_memset },
	{ "memcpy", bench_memcpy },
	{ "chase", bench_chase },
	{ "touch", bench_touch },
	{ "mmap", bench_mmap },
	{ "cow", bench_cow },
	{ "getppid", bench_getppid },
	{ "file", bench_file },
	{ "signal", bench_signal },
	{ "fork", bench_fork },
	{ "exec", bench_exec },
	{ "pipe", bench_pipe },
	{ "switch", bench_switch },
};

void need(int cond, const char *what)
{
	if (cond)
		return;
	fprintf(stderr, "programs: %s: %s\n", what, strerror(errno));
	exit(1);
}

void *map_small(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED, "mmap");
	/* A kernel without huge pages says EINVAL; it has only small ones. */
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

int main(int argc, char **argv)
{
	int n = argc == 3 ? atoi(argv[2]) : 0;

	for (size_t i = 0; n > 0 && i < sizeof(programs) / sizeof(programs[0]); i++)
		if (!strcmp(programs[i].name, argv[1])) {
			programs[i].run((unsigned)n);
			return 0;
		}
	fprintf(stderr, "usage: programs NAME N\n");
	return 2;
}
