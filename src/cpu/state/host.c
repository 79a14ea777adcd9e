/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/state/host.h"

#include <cpuid.h>
#include <errno.h>
#include <immintrin.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "cpu/state/cpu_state.h"

enum { EAX_, EBX_, ECX_, EDX_ };

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1)
#endif

/* Features that the engines use where they are there (SDM Vol. 2, CPUID; APM Vol. 3, appendix E). */
static const struct feature {
	const char *name;
	uint32_t leaf;
	uint8_t reg, bit;
} features[] = {
	{"sse3", 1, ECX_, 0},		{"pclmulqdq", 1, ECX_, 1},   {"ssse3", 1, ECX_, 9},
	{"fma", 1, ECX_, 12},		{"sse4_1", 1, ECX_, 19},     {"sse4_2", 1, ECX_, 20},
	{"movbe", 1, ECX_, 22},		{"popcnt", 1, ECX_, 23},     {"aes", 1, ECX_, 25},
	{"avx", 1, ECX_, 28},		{"f16c", 1, ECX_, 29},	     {"fsgsbase", 7, EBX_, 0},
	{"bmi1", 7, EBX_, 3},		{"avx2", 7, EBX_, 5},	     {"bmi2", 7, EBX_, 8},
	{"erms", 7, EBX_, 9},		{"adx", 7, EBX_, 19},	     {"clflushopt", 7, EBX_, 23},
	{"clwb", 7, EBX_, 24},		{"sha_ni", 7, EBX_, 29},     {"gfni", 7, ECX_, 8},
	{"vaes", 7, ECX_, 9},		{"vpclmulqdq", 7, ECX_, 10}, {"lzcnt", 0x80000001, ECX_, 5},
	{"sse4a", 0x80000001, ECX_, 6},
};
enum { FEATURES = sizeof(features) / sizeof(features[0]) };

static struct {
	pthread_once_t once;
	bool masked[FEATURES];
	char unknown[32];
} mask = {.once = PTHREAD_ONCE_INIT};

static void read_mask(void)
{
	const char *at = getenv("HANOK_MASK_CPU");

	while (at && *at) {
		size_t length = strcspn(at, ","), n = 0;
		while (n < FEATURES && (strlen(features[n].name) != length ||
					strncmp(features[n].name, at, length) != 0))
			n++;
		if (n < FEATURES)
			mask.masked[n] = true;
		else if (length)
			strncpy(mask.unknown, at,
				length < sizeof(mask.unknown) ? length : sizeof(mask.unknown) - 1);
		at += length + (at[length] == ',');
	}
}

int host_check_mask(struct error *err)
{
	pthread_once(&mask.once, read_mask);
	if (!mask.unknown[0])
		return 0;
	return error_set(err, -EINVAL, "HANOK_MASK_CPU: there is no feature \"%s\"", mask.unknown);
}

void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	pthread_once(&mask.once, read_mask);
	__cpuid_count(leaf, subleaf, out[EAX_], out[EBX_], out[ECX_], out[EDX_]);
	for (unsigned n = 0; n < FEATURES; n++)
		if (mask.masked[n] && features[n].leaf == leaf && (leaf != 7 || subleaf == 0))
			out[features[n].reg] &= ~(1u << features[n].bit);
}

__attribute__((target("xsave"))) static uint64_t xcr0(void)
{
	return _xgetbv(0);
}

bool host_has_avx(void)
{
	uint32_t r[4];

	host_cpuid(1, 0, r);
	return (r[ECX_] & bit_OSXSAVE) && (r[ECX_] & bit_AVX) &&
	       (~xcr0() & (XCR0_SSE | XCR0_AVX)) == 0;
}

bool host_has_fsgsbase(void)
{
	uint32_t r[4];

	host_cpuid(0, 0, r);
	if (r[EAX_] < 7 || !(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
		return false;
	host_cpuid(7, 0, r);
	return r[EBX_] & bit_FSGSBASE;
}
