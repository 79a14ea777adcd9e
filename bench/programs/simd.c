/* SPDX-License-Identifier: Apache-2.0 */
/* Vector work that QEMU's `max` CPU has too, so that all run the same code: AES-NI, AVX2, FMA. */
#include "bench.h"

#include <immintrin.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* One step of AES-128's key schedule (FIPS 197, section 5.2). */
#define EXPAND(keys, i, rcon) \
	do { \
		__m128i k = (keys)[(i)-1], t = _mm_aeskeygenassist_si128(k, rcon); \
		k = _mm_xor_si128(k, _mm_slli_si128(k, 4)); \
		k = _mm_xor_si128(k, _mm_slli_si128(k, 8)); \
		(keys)[i] = _mm_xor_si128(k, _mm_shuffle_epi32(t, 0xff)); \
	} while (0)

/* n MiB of AES-128 in counter mode, four blocks at a time. */
__attribute__((target("aes,sse4.1"))) void bench_aes(unsigned n)
{
	__m128i keys[11], sum = _mm_setzero_si128(), counter = _mm_set_epi64x(1, 0);
	const __m128i one = _mm_set_epi64x(0, 1);

	keys[0] = _mm_set_epi32(0x0f0e0d0c, 0x0b0a0908, 0x07060504, 0x03020100);
	EXPAND(keys, 1, 0x01);
	EXPAND(keys, 2, 0x02);
	EXPAND(keys, 3, 0x04);
	EXPAND(keys, 4, 0x08);
	EXPAND(keys, 5, 0x10);
	EXPAND(keys, 6, 0x20);
	EXPAND(keys, 7, 0x40);
	EXPAND(keys, 8, 0x80);
	EXPAND(keys, 9, 0x1b);
	EXPAND(keys, 10, 0x36);
	for (unsigned i = 0; i < n * (1u << 20) / 64; i++) {
		__m128i b[4];
		for (unsigned j = 0; j < 4; j++) {
			b[j] = _mm_xor_si128(counter, keys[0]);
			counter = _mm_add_epi64(counter, one);
		}
		for (unsigned r = 1; r < 10; r++)
			for (unsigned j = 0; j < 4; j++)
				b[j] = _mm_aesenc_si128(b[j], keys[r]);
		for (unsigned j = 0; j < 4; j++)
			sum = _mm_xor_si128(sum, _mm_aesenclast_si128(b[j], keys[10]));
	}
	printf("%016" PRIx64 "\n", (uint64_t)_mm_extract_epi64(sum, 0));
}

/* Product of two matrices of 256 x 256 floats, by AVX2's fused multiply-add, n times. */
__attribute__((target("avx2,fma"))) void bench_avx2_matmul(unsigned n)
{
	enum { SIZE = 256 };
	static float a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
	double sum = 0;

	for (unsigned i = 0; i < SIZE; i++)
		for (unsigned j = 0; j < SIZE; j++) {
			a[i][j] = (float)((i * 7 + j * 3) % 11) / 11;
			b[i][j] = (float)((i * 5 + j * 13) % 17) / 17;
		}
	for (unsigned round = 0; round < n; round++) {
		for (unsigned i = 0; i < SIZE; i++)
			for (unsigned j = 0; j < SIZE; j += 16) {
				__m256 s0 = _mm256_setzero_ps(), s1 = s0;
				for (unsigned k = 0; k < SIZE; k++) {
					__m256 x = _mm256_set1_ps(a[i][k]);
					s0 = _mm256_fmadd_ps(x, _mm256_loadu_ps(&b[k][j]), s0);
					s1 = _mm256_fmadd_ps(x, _mm256_loadu_ps(&b[k][j + 8]), s1);
				}
				_mm256_storeu_ps(&c[i][j], s0);
				_mm256_storeu_ps(&c[i][j + 8], s1);
			}
		a[round % SIZE][0] = c[round % SIZE][round % 7] / 64;
		sum += (double)c[round % SIZE][round % 31];
	}
	printf("%.9f\n", sum);
}

/* Integer AVX2 over 256 KiB: add, shuffle, compare, blend, unaligned loads; n passes. */
__attribute__((target("avx2"))) void bench_avx2_stream(unsigned n)
{
	enum { BYTES = 256 << 10 };
	unsigned char *v = aligned_alloc(64, BYTES + 64);
	uint64_t seed = 5, out[4];
	__m256i sum = _mm256_setzero_si256();
	const __m256i mix = _mm256_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f,
					      0x0f0e0d0c0b0a0908, 0x0706050403020100);

	need(v != NULL, "aligned_alloc");
	for (unsigned i = 0; i < BYTES + 64; i++)
		v[i] = (unsigned char)next_random(&seed);
	for (unsigned pass = 0; pass < n; pass++)
		for (unsigned i = 0; i < BYTES; i += 32) {
			__m256i x = _mm256_load_si256((__m256i *)(v + i));
			__m256i y = _mm256_loadu_si256((__m256i *)(v + i + 13));
			__m256i greater = _mm256_cmpgt_epi8(x, y);
			x = _mm256_blendv_epi8(_mm256_shuffle_epi8(x, mix), y, greater);
			sum = _mm256_add_epi64(sum, _mm256_sad_epu8(x, y));
			_mm256_store_si256((__m256i *)(v + i), _mm256_add_epi8(x, y));
		}
	_mm256_storeu_si256((__m256i *)out, sum);
	printf("%" PRIu64 "\n", out[0] ^ out[1] ^ out[2] ^ out[3]);
	free(v);
}
