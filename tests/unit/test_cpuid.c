/* SPDX-License-Identifier: Apache-2.0 */
/* The CPUID a guest sees, and the power-up state. */
#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/state/cpuid.h"
#include "cpu/state/msr.h"

static struct cpuid_model model(unsigned cpus, bool amd)
{
	struct cpuid_model m;

	cpuid_model_init(&m, cpus, 2600000000);
	if (m.amd != amd) { /* the other vendor's leaves, for a look at them */
		m.amd = amd;
		m.max_extended = amd ? 0x80000021 : 0x80000008;
	}
	return m;
}

static void ask(const struct cpuid_model *m, unsigned cpu, uint32_t leaf, uint32_t subleaf,
		uint32_t out[4])
{
	struct cpu_state s;

	cpu_state_reset(&s, cpu);
	cpuid_guest(m, &s, cpu, leaf, subleaf, out);
}

static void test_features(void **state)
{
	struct cpuid_model m = model(1, false);
	uint32_t r[4], host[4];

	(void)state;
	__cpuid(1, host[0], host[1], host[2], host[3]);
	ask(&m, 0, 1, 0, r);
	assert_true(r[2] & 1u << 31);				   /* hypervisor */
	assert_true(r[2] & 1u << 21);				   /* x2APIC */
	assert_false(r[2] & 1u << 3);				   /* MONITOR */
	assert_false(r[2] & 1u << 5);				   /* VMX */
	assert_false(r[2] & 1u << 27);				   /* OSXSAVE follows CR4 */
	assert_false(r[3] & 1u << 1);				   /* VME */
	assert_false(r[3] & 1u << 28);				   /* HTT with one CPU */
	assert_int_equal(r[3] & (1u << 25), host[3] & (1u << 25)); /* SSE is the host's */
	ask(&m, 0, 7, 0, r);
	assert_false(r[1] & 0xdc230000 & ~(1u << 29));	      /* AVX-512 */
	assert_false(r[1] & (1u << 4 | 1u << 11 | 1u << 14)); /* TSX, MPX */
	assert_false(r[2] & (1u << 3 | 1u << 7 | 1u << 16));  /* PKU, CET, LA57 */
	assert_true(r[1] & 1u << 20);			      /* SMAP */
	ask(&m, 0, 0x80000008, 0, r);
	assert_int_equal(r[0] & 0xffff, 48 << 8 | cpuid_maxphyaddr());
}

static uint32_t family_of(uint32_t signature)
{
	return (signature >> 8 & 15) + (signature >> 20 & 0xff);
}

static uint32_t model_of(uint32_t signature)
{
	return (signature >> 4 & 15) | (signature >> 12 & 0xf0);
}

/* A guest that goes by the model must find in it no more than it is offered: code for Sapphire Rapids or
 * Zen 4 uses AVX-512. */
static void test_model(void **state)
{
	const uint32_t sapphire_rapids = 0x000806f8, zen4 = 0x00a10f11, haswell = 0x000306f2;

	(void)state;
	assert_int_equal(cpuid_shown_signature(false, haswell, false), haswell);
	assert_int_equal(cpuid_shown_signature(true, 0xf0000000 | zen4, false), zen4);
	const uint32_t intel = cpuid_shown_signature(false, sapphire_rapids, true);
	assert_int_equal(family_of(intel), 6);
	assert_int_equal(model_of(intel), 0x5e);
	const uint32_t amd = cpuid_shown_signature(true, zen4, true);
	assert_int_equal(family_of(amd), 0x19);
	assert_int_equal(model_of(amd), 1);
}

static bool is_amd_host(void)
{
	struct cpuid_model m;

	cpuid_model_init(&m, 1, 2600000000);
	return m.amd;
}

/* This very host's, too. */
static void test_model_of_host(void **state)
{
	struct cpuid_model m = model(1, false);
	uint32_t r[4], host[4], more[4] = {0};

	(void)state;
	__get_cpuid_count(7, 1, &more[0], &more[1], &more[2], &more[3]);
	const bool hides = __builtin_cpu_supports("avx512f") || more[0] & 1u << 4; /* AVX-VNNI */
	__cpuid(1, host[0], host[1], host[2], host[3]);
	ask(&m, 0, 1, 0, r);
	if (hides)
		assert_int_equal(r[0], is_amd_host() ? 0x00a00f11 : 0x000506e3);
	else
		assert_int_equal(r[0], host[0] & 0x0fff3fff);
}

static void test_dynamic(void **state)
{
	struct cpuid_model m = model(1, false);
	struct cpu_state s;
	uint32_t r[4];

	(void)state;
	cpu_state_reset(&s, 0);
	s.cr4 = CR4_OSXSAVE;
	cpuid_guest(&m, &s, 0, 1, 0, r);
	assert_true(r[2] & 1u << 27);
	cpuid_guest(&m, &s, 0, 0xd, 0, r);
	assert_int_equal(r[1], 576);
	assert_int_equal(r[0], m.xcr0);
	assert_int_equal(r[2], (m.xcr0 & XCR0_AVX) ? XSAVE_BYTES : 576);
	s.xcr0 = m.xcr0;
	cpuid_guest(&m, &s, 0, 0xd, 0, r);
	assert_int_equal(r[1], r[2]);
}

/* What Linux needs to see N cores in one package: ids and widths that agree everywhere. */
static void check_topology(bool amd, unsigned cpus, unsigned bits)
{
	struct cpuid_model m = model(cpus, amd);
	uint32_t r[4];

	for (unsigned cpu = 0; cpu < cpus; cpu++) {
		ask(&m, cpu, 1, 0, r);
		assert_int_equal(r[1] >> 24, cpu);
		assert_int_equal(r[1] >> 16 & 255, cpus);
		assert_int_equal(!!(r[3] & 1u << 28), cpus > 1);
		ask(&m, cpu, 0xb, 0, r);
		assert_int_equal(r[0], 0);
		assert_int_equal(r[1], 1);
		assert_int_equal(r[2], 1 << 8);
		assert_int_equal(r[3], cpu);
		ask(&m, cpu, 0xb, 1, r);
		assert_int_equal(r[0], bits);
		assert_int_equal(r[1], cpus);
		assert_int_equal(r[2], 2 << 8 | 1);
		assert_int_equal(r[3], cpu);
		ask(&m, cpu, 0xb, 2, r);
		assert_int_equal(r[1], 0);
		assert_int_equal(r[2], 2);
	}
	if (amd) {
		ask(&m, cpus - 1, 0x80000008, 0, r);
		assert_int_equal(r[2] & 0xff, cpus - 1);
		assert_int_equal(r[2] >> 12 & 15, bits);
		ask(&m, cpus - 1, 0x8000001e, 0, r);
		assert_int_equal(r[0], cpus - 1);
		assert_int_equal(r[1], cpus - 1);
	}
}

static void test_topology(void **state)
{
	(void)state;
	for (unsigned amd = 0; amd < 2; amd++) {
		check_topology(amd, 1, 0);
		check_topology(amd, 2, 1);
		check_topology(amd, 3, 2);
		check_topology(amd, 4, 2);
		check_topology(amd, 8, 3);
	}
}

static void test_caches(void **state)
{
	(void)state;
	for (unsigned amd = 0; amd < 2; amd++) {
		struct cpuid_model m = model(4, amd);
		uint32_t leaf = amd ? 0x8000001d : 4, r[4];
		unsigned n;

		for (n = 0;; n++) {
			ask(&m, 1, leaf, n, r);
			if (!(r[0] & 31))
				break;
			unsigned level = r[0] >> 5 & 7, sharing = (r[0] >> 14 & 0xfff) + 1;
			assert_in_range(level, 1, 3);
			assert_int_equal(sharing, level == 3 ? 4 : 1);
			assert_int_equal(r[0] >> 26, amd ? 0 : 3);
			assert_int_equal((r[1] & 0xfff) + 1, 64);
		}
		assert_in_range(n, 2, 4);
	}
}

static void test_ranges(void **state)
{
	struct cpuid_model intel = model(1, false), amd = model(1, true);
	uint32_t r[4], last[4];

	(void)state;
	ask(&intel, 0, 0x40000000, 0, r);
	assert_int_equal(r[0], 0x40000010);
	assert_memory_equal(&r[1], "HanokHanokHK", 12);
	ask(&intel, 0, 0x40000010, 0, r);
	assert_int_equal(r[0], 2600000);
	ask(&intel, 0, 0x40000100, 0, r);
	assert_int_equal(r[0], 0x40000101);
	assert_memory_equal(&r[1], "KVMKVMKVM\0\0", 12);
	ask(&intel, 0, intel.max_basic, 0, last);
	ask(&intel, 0, 0x1000, 0, r);
	assert_memory_equal(r, last, sizeof(r));
	ask(&intel, 0, 0x8fffffff, 0, r);
	assert_memory_equal(r, last, sizeof(r));
	memset(last, 0, sizeof(last));
	ask(&amd, 0, 0x1000, 0, r);
	assert_memory_equal(r, last, sizeof(r));
	ask(&amd, 0, 0x8fffffff, 0, r);
	assert_memory_equal(r, last, sizeof(r));
	ask(&amd, 0, 0x80000000, 0, r);
	assert_int_equal(r[0], 0x80000021);
}

static void test_power_up(void **state)
{
	struct cpu_state s;

	(void)state;
	cpu_state_reset(&s, 0);
	assert_int_equal(s.seg[SEG_CS].base + s.rip, 0xfffffff0);
	assert_int_equal(s.activity, ACTIVITY_RUNNING);
	assert_int_equal(s.cr0, 0x60000010);
	assert_int_equal(s.dr6, 0xffff0ff0);
	assert_int_equal(s.pat, PAT_RESET);
	cpu_state_reset(&s, 1);
	assert_int_equal(s.activity, ACTIVITY_WAIT_SIPI);
}

static void test_init(void **state)
{
	struct cpu_state s;

	(void)state;
	cpu_state_reset(&s, 1);
	s.cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_CD;
	s.cr3 = 0x1000;
	s.efer = EFER_LME | EFER_LMA;
	s.pat = 0;
	s.tsc_offset = 5;
	s.mtrr_def_type = 0xc06;
	s.lstar = 7;
	s.xsave.bytes[XSAVE_XMM0] = 1;
	s.nmi_pending = true;
	cpu_state_init(&s, false);
	assert_int_equal(s.activity, ACTIVITY_WAIT_SIPI);
	assert_int_equal(s.cr0, CR0_CD | CR0_ET);
	assert_int_equal(s.cr3, 0);
	assert_int_equal(s.efer, 0);
	assert_false(s.nmi_pending);
	assert_int_equal(s.rip, 0xfff0);
	/* kept */
	assert_int_equal(s.pat, 0);
	assert_int_equal(s.tsc_offset, 5);
	assert_int_equal(s.mtrr_def_type, 0xc06);
	assert_int_equal(s.lstar, 7);
	assert_int_equal(s.xsave.bytes[XSAVE_XMM0], 1);
	cpu_state_init(&s, true);
	assert_int_equal(s.activity, ACTIVITY_RUNNING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_features),      cmocka_unit_test(test_model),
		cmocka_unit_test(test_model_of_host), cmocka_unit_test(test_dynamic),
		cmocka_unit_test(test_topology),      cmocka_unit_test(test_caches),
		cmocka_unit_test(test_ranges),	      cmocka_unit_test(test_power_up),
		cmocka_unit_test(test_init),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
