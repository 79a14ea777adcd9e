/* SPDX-License-Identifier: Apache-2.0 */
/* Integer work: loops over memory, sorting through a callback, calls, indirect jumps, rotates. */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Primes below 2^20, n times. */
void bench_sieve(unsigned n)
{
	enum { LIMIT = 1 << 20 };
	unsigned char *composite = malloc(LIMIT);
	unsigned long total = 0;

	need(composite != NULL, "malloc");
	for (unsigned round = 0; round < n; round++) {
		memset(composite, 0, LIMIT);
		for (unsigned i = 2; i < LIMIT; i++) {
			if (composite[i])
				continue;
			total += i ^ round;
			for (uint64_t j = (uint64_t)i * i; j < LIMIT; j += i)
				composite[j] = 1;
		}
	}
	printf("%lu\n", total);
	free(composite);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* qsort of 100,000 numbers, n times. */
void bench_sort(unsigned n)
{
	enum { COUNT = 100000 };
	uint64_t *v = malloc(COUNT * sizeof(*v)), seed = 42, sum = 0;

	need(v != NULL, "malloc");
	for (unsigned round = 0; round < n; round++) {
		for (unsigned i = 0; i < COUNT; i++)
			v[i] = next_random(&seed);
		qsort(v, COUNT, sizeof(*v), by_value);
		for (unsigned i = 0; i < COUNT; i += 1000)
			sum = sum * 31 + v[i];
	}
	printf("%" PRIu64 "\n", sum);
	free(v);
}

__attribute__((noinline, optimize("no-optimize-sibling-calls"))) static unsigned fib(unsigned n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

/* Calls and returns: Fibonacci of 27 by recursion, n times. */
void bench_calls(unsigned n)
{
	unsigned long total = 0;

	for (unsigned round = 0; round < n; round++)
		total += fib(27 - (round & 1));
	printf("%lu\n", total);
}

enum { OP_LOAD, OP_ADD, OP_XOR, OP_SHIFT, OP_STORE, OP_DECREMENT, OP_JUMP, OP_END };

struct machine_state {
	uint64_t a, r[8];
	unsigned at;
};

/* A loop of 32 operations, the last of which goes back to the first until r[7] is 0. */
static unsigned make_program(unsigned char *code)
{
	unsigned at = 0;
	uint64_t seed = 7;

	for (unsigned i = 0; i < 30; i++) {
		code[at++] = (unsigned char)(next_random(&seed) % (OP_STORE + 1));
		code[at++] = (unsigned char)(next_random(&seed) % 7);
	}
	code[at++] = OP_DECREMENT;
	code[at++] = 7;
	code[at++] = OP_JUMP;
	code[at++] = 0;
	code[at++] = OP_END;
	code[at++] = 0;
	return at;
}

/* An interpreter with a jump table, n loops of 100,000 turns. */
void bench_bytecode(unsigned n)
{
	static const void *const labels[] = { &&load,  &&add,	    &&xor,  &&shift,
					      &&store, &&decrement, &&jump, &&end };
	unsigned char code[80];
	struct machine_state m = { .a = 1, .r = { 1, 2, 3, 4, 5, 6, 7, 0 } };

	need(make_program(code) <= sizeof(code), "program");
	m.r[7] = (uint64_t)n * 100000;
#define NEXT goto *labels[code[m.at += 2]]
#define OPERAND m.r[code[m.at + 1]]
	goto *labels[code[0]];
load:
	m.a += OPERAND;
	NEXT;
add:
	m.a = m.a * 3 + OPERAND;
	NEXT;
xor:
	m.a ^= OPERAND;
	NEXT;
shift:
	m.a = m.a << 7 | m.a >> 57;
	NEXT;
store:
	OPERAND = m.a;
	NEXT;
decrement:
	OPERAND--;
	NEXT;
jump:
	if (m.r[7]) {
		m.at = code[m.at + 1];
		goto *labels[code[m.at]];
	}
	NEXT;
end:
	printf("%" PRIu64 "\n", m.a);
}

/* SHA-256 (FIPS 180-4, section 6.2) in plain C. The constants are its section 4.2.2. */
static const uint32_t sha256_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

static uint32_t rotate_right(uint32_t x, unsigned by)
{
	return x >> by | x << (32 - by);
}

static void sha256_block(uint32_t h[8], const uint32_t data[16])
{
	uint32_t w[64], v[8];

	memcpy(w, data, 16 * sizeof(*w));
	for (unsigned t = 16; t < 64; t++) {
		uint32_t a = w[t - 15], b = w[t - 2];
		w[t] = w[t - 16] + w[t - 7] +
		       (rotate_right(a, 7) ^ rotate_right(a, 18) ^ a >> 3) +
		       (rotate_right(b, 17) ^ rotate_right(b, 19) ^ b >> 10);
	}
	memcpy(v, h, sizeof(v));
	for (unsigned t = 0; t < 64; t++) {
		uint32_t s1 = rotate_right(v[4], 6) ^ rotate_right(v[4], 11) ^
			      rotate_right(v[4], 25);
		uint32_t s0 = rotate_right(v[0], 2) ^ rotate_right(v[0], 13) ^
			      rotate_right(v[0], 22);
		uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + sha256_k[t] + w[t];
		uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
		memmove(v + 1, v, 7 * sizeof(*v));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (unsigned i = 0; i < 8; i++)
		h[i] += v[i];
}

/* n MiB through SHA-256's compression function. */
void bench_sha256(unsigned n)
{
	uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	uint32_t data[16] = { 0 };

	for (unsigned i = 0; i < n * (1u << 20) / 64; i++) {
		data[i & 15] ^= h[0];
		sha256_block(h, data);
	}
	printf("%08x%08x\n", h[0], h[7]);
}
