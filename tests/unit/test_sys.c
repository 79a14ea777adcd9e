/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System registers of the reference engine: MSRs, control and debug registers, XSAVE. Each case
 * is a few instructions in 64-bit mode at CPL 0, ended by HLT; the IDT is empty, so that an
 * exception is seen by the engine's trace and then shuts the vCPU down.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/engine.h"
#include "cpu/state/cpuid.h"
#include "cpu/state/msr.h"
#include "mem/mem.h"

enum { TABLES = 0x1000, CODE = 0x10000, DATA = 0x20000, RAM = 4 << 20 };
enum { NONE = -1 };

static struct mem *mem;
static struct engine_config config = {.cpus = 1, .tsc_hz = 1000000000};
static struct engine *engine;
static struct vcpu *vcpu;
static struct cpu_state start, end;
static int first_event;
static uint32_t event_error;
static uint8_t cr8;
static uint64_t exit_msr; /* what machine/ would hold */

static uint8_t get_cr8(void *opaque)
{
	(void)opaque;
	return cr8;
}

static void set_cr8(void *opaque, uint8_t v)
{
	(void)opaque;
	cr8 = v;
}

static int no_irq(void *opaque)
{
	(void)opaque;
	return -1;
}

static void note_event(void *opaque, struct vcpu *v, const struct cpu_event *e)
{
	(void)opaque, (void)v;
	if (first_event == NONE) {
		first_event = e->vector;
		event_error = e->error;
	}
}

static int setup(void **state)
{
	const struct vcpu_board board = {.irq_ack = no_irq, .get_cr8 = get_cr8, .set_cr8 = set_cr8};
	const struct engine_ops *ops = engine_find("interp", NULL, NULL);
	struct error err;

	(void)state;
	assert_int_equal(mem_create(&mem, RAM, &err), 0);
	config.mem = mem;
	assert_int_equal(ops->create(&config, &engine, &err), 0);
	assert_int_equal(ops->vcpu_create(engine, 0, &board, &vcpu, &err), 0);
	static struct vcpu_tracer tracer = {.fn = note_event};
	vcpu_add_tracer(vcpu, &tracer);
	return 0;
}

static int teardown(void **state)
{
	const struct engine_ops *ops = vcpu->ops;

	(void)state;
	ops->vcpu_destroy(vcpu);
	ops->destroy(engine);
	mem_destroy(mem);
	return 0;
}

/* 64-bit mode, identity-mapped by one 1 GiB page, flat segments. */
static void fresh(void)
{
	uint64_t pml4e = (TABLES + 0x1000) | 7, pdpte = 0x87;

	mem_write(mem, TABLES, &pml4e, 8);
	mem_write(mem, TABLES + 0x1000, &pdpte, 8);
	cpu_state_reset(&start, 0);
	start.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
	start.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE;
	start.cr3 = TABLES;
	start.efer = EFER_LME | EFER_LMA;
	start.seg[SEG_CS] = (struct segment){8, 0xa09b, UINT32_MAX, 0};
	for (unsigned n = 0; n < SEG_NR; n++)
		if (n != SEG_CS)
			start.seg[n] = (struct segment){16, 0xc093, UINT32_MAX, 0};
	start.idt = (struct table_reg){0, 0};
	start.rip = CODE;
	start.gpr[RSP] = DATA;
	start.xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
}

/* Runs code from `start` into `end`; the vector of the first exception, or NONE. */
static int run(const void *code, size_t len)
{
	static const uint8_t hlt = 0xf4;
	struct exit e = {0};

	mem_write(mem, CODE, code, len);
	mem_write(mem, CODE + len, &hlt, 1);
	first_event = NONE;
	assert_int_equal(vcpu->ops->set_state(vcpu, &start, NULL), 0);
	for (;;) {
		vcpu->ops->run(vcpu, &e);
		if (e.cause == EXIT_RDMSR)
			e.msr.value = exit_msr;
		else if (e.cause == EXIT_WRMSR)
			exit_msr = e.msr.value;
		else
			break;
	}
	vcpu->ops->get_state(vcpu, &end);
	if (first_event == NONE)
		assert_int_equal(e.cause, EXIT_HLT);
	else
		assert_int_equal(e.cause, EXIT_SHUTDOWN);
	return first_event;
}
#define RUN(bytes) run(bytes, sizeof(bytes) - 1)

static int wrmsr(uint32_t index, uint64_t v)
{
	start.gpr[RCX] = index;
	start.gpr[RAX] = (uint32_t)v | UINT64_C(0xdead) << 32; /* upper halves do not count */
	start.gpr[RDX] = v >> 32 | UINT64_C(0xbeef) << 32;
	return RUN("\x0f\x30");
}

static int rdmsr(uint32_t index, uint64_t *v)
{
	start.gpr[RCX] = index;
	start.gpr[RAX] = start.gpr[RDX] = UINT64_MAX;
	int r = RUN("\x0f\x32");
	if (r == NONE)
		assert_int_equal(end.gpr[RAX] >> 32 | end.gpr[RDX] >> 32, 0);
	*v = end.gpr[RDX] << 32 | end.gpr[RAX];
	return r;
}

/* Writes, keeps the state that leaves, reads back. */
static void round_trip(uint32_t index, uint64_t v)
{
	uint64_t back;

	assert_int_equal(wrmsr(index, v), NONE);
	end.rip = CODE;
	end.activity = ACTIVITY_RUNNING;
	start = end;
	assert_int_equal(rdmsr(index, &back), NONE);
	assert_int_equal(back, v);
}

static void test_msr_plain(void **state)
{
	static const uint32_t any[] = {MSR_STAR,    MSR_LSTAR,	 MSR_CSTAR,
				       MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE};

	(void)state;
	for (unsigned n = 0; n < sizeof(any) / sizeof(any[0]); n++) {
		fresh();
		round_trip(any[n], 0xffff812345678000);
		if (any[n] != MSR_STAR)
			assert_int_equal(wrmsr(any[n], UINT64_C(1) << 47), VEC_GP);
	}
	fresh();
	round_trip(MSR_SFMASK, 0x47700);
	round_trip(MSR_TSC_AUX, 0x12345);
	round_trip(MSR_PAT, 0x0007010600070406);
	assert_int_equal(wrmsr(MSR_PAT, 2), VEC_GP);
	round_trip(MSR_SYSENTER_CS, 0x10);
	round_trip(MSR_SYSENTER_EIP, 0x12345678);
	assert_int_equal(wrmsr(0x12345, 0), VEC_GP);
	uint64_t v;
	assert_int_equal(rdmsr(0x12345, &v), VEC_GP);
	start.seg[SEG_SS].attr |= SEG_DPL;
	start.seg[SEG_CS].attr |= SEG_DPL;
	assert_int_equal(rdmsr(MSR_PAT, &v), VEC_GP);
}

static void test_msr_mtrr(void **state)
{
	uint64_t v;

	(void)state;
	fresh();
	assert_int_equal(rdmsr(MSR_MTRR_CAP, &v), NONE);
	assert_int_equal(v & 0xff, MTRR_VAR_NR);
	assert_int_equal(wrmsr(MSR_MTRR_CAP, v), VEC_GP);
	round_trip(MSR_MTRR_DEF_TYPE, 0xc06);
	assert_int_equal(wrmsr(MSR_MTRR_DEF_TYPE, 0x1000), VEC_GP);
	assert_int_equal(wrmsr(MSR_MTRR_DEF_TYPE, 0xc02), VEC_GP);
	round_trip(MSR_MTRR_FIX64K, 0x0606060606060606);
	assert_int_equal(wrmsr(MSR_MTRR_FIX4K + 7, 0x0700000000000000), VEC_GP);
	round_trip(MSR_MTRR_VAR0 + 14, 0xc0000000);
	round_trip(MSR_MTRR_VAR0 + 15, 0xffc0000800);
	assert_int_equal(wrmsr(MSR_MTRR_VAR0 + 15, 0x1ffc0000800), VEC_GP);
	assert_int_equal(wrmsr(MSR_MTRR_VAR0 + 16, 0), VEC_GP);
}

static void test_msr_efer(void **state)
{
	(void)state;
	fresh();
	round_trip(MSR_EFER, EFER_LMA | EFER_LME | EFER_NXE | EFER_SCE);
	assert_int_equal(wrmsr(MSR_EFER, EFER_SCE), VEC_GP); /* LME while paging */
	fresh();
	assert_int_equal(wrmsr(MSR_EFER, EFER_LME), NONE); /* LMA is not for writing */
	assert_int_equal(end.efer, EFER_LME | EFER_LMA);
	assert_int_equal(wrmsr(MSR_EFER, EFER_LME | 1 << 12), VEC_GP); /* SVME */
}

static void test_msr_tsc(void **state)
{
	uint64_t v;

	(void)state;
	fresh();
	assert_int_equal(wrmsr(MSR_TSC, 1000), NONE);
	assert_int_equal(end.tsc_offset, end.tsc_adjust);
	end.rip = CODE;
	end.activity = ACTIVITY_RUNNING;
	start = end;
	assert_int_equal(rdmsr(MSR_TSC, &v), NONE);
	assert_in_range(v, 1000, UINT64_C(100000000000));
	uint64_t offset = start.tsc_offset, adjust = start.tsc_adjust;
	assert_int_equal(wrmsr(MSR_TSC_ADJUST, adjust + 77), NONE);
	assert_int_equal(end.tsc_offset, offset + 77);
	start.cr4 |= CR4_TSD;
	assert_int_equal(RUN("\x0f\x31"), NONE); /* RDTSC at CPL 0 */
}

static void test_msr_machine(void **state)
{
	(void)state;
	fresh();
	round_trip(MSR_APIC_BASE, 0xfee00900);
	round_trip(0x808, 0x20);
	/* CPUID's APIC bit follows IA32_APIC_BASE. */
	exit_msr = 0xfee00900;
	start.gpr[RAX] = 1;
	assert_int_equal(RUN("\x0f\xa2"), NONE);
	assert_true(end.gpr[RDX] & 1 << 9);
	exit_msr = 0xfee00100;
	assert_int_equal(RUN("\x0f\xa2"), NONE);
	assert_false(end.gpr[RDX] & 1 << 9);
}

/* MOV CRn, RAX */
static int mov_cr(unsigned n, uint64_t v)
{
	uint8_t code[] = {0x0f, 0x22, (uint8_t)(0xc0 | n << 3)};

	start.gpr[RAX] = v;
	return run(code, sizeof(code));
}

static void test_cr0(void **state)
{
	(void)state;
	fresh();
	assert_int_equal(mov_cr(0, start.cr0 | UINT64_C(1) << 32), VEC_GP);
	assert_int_equal(mov_cr(0, start.cr0 | CR0_NW), VEC_GP);
	assert_int_equal(mov_cr(0, start.cr0 & ~CR0_PE), VEC_GP);
	assert_int_equal(mov_cr(0, start.cr0 & ~CR0_PG), VEC_GP); /* in 64-bit mode */
	assert_int_equal(mov_cr(0, (start.cr0 | CR0_WP | 1 << 20) & ~CR0_ET), NONE);
	assert_int_equal(end.cr0, start.cr0 | CR0_WP);
	/* LMSW cannot clear PE. */
	start.gpr[RAX] = CR0_TS;
	assert_int_equal(RUN("\x0f\x01\xf0"), NONE);
	assert_int_equal(end.cr0, start.cr0 | CR0_TS);
	start.cr0 |= CR0_TS;
	assert_int_equal(RUN("\x0f\x06"), NONE); /* CLTS */
	assert_int_equal(end.cr0, start.cr0 & ~CR0_TS);
	start.gpr[RAX] = UINT64_MAX;
	assert_int_equal(RUN("\x48\x0f\x01\xe0"), NONE); /* SMSW RAX */
	assert_int_equal(end.gpr[RAX], start.cr0);
}

/* Into long mode and out, from 32-bit protected mode. */
static void test_long_mode_switch(void **state)
{
	(void)state;
	fresh();
	start.cr0 &= ~CR0_PG;
	start.efer = EFER_LME;
	start.seg[SEG_CS].attr = 0xc09b;
	assert_int_equal(mov_cr(0, start.cr0 | CR0_PG), NONE);
	assert_int_equal(end.efer, EFER_LME | EFER_LMA);
	start.cr4 &= ~CR4_PAE;
	assert_int_equal(mov_cr(0, start.cr0 | CR0_PG), VEC_GP);
	start.cr4 |= CR4_PAE;
	start.seg[SEG_CS].attr = 0xa09b;
	assert_int_equal(mov_cr(0, start.cr0 | CR0_PG), VEC_GP);
	start.seg[SEG_CS].attr = 0xc09b;
	start.tr.attr = SEG_P | 3;
	assert_int_equal(mov_cr(0, start.cr0 | CR0_PG), VEC_GP);
	/* Compatibility mode may leave. */
	fresh();
	start.seg[SEG_CS].attr = 0xc09b;
	assert_int_equal(mov_cr(0, start.cr0 & ~CR0_PG), NONE);
	assert_int_equal(end.efer, EFER_LME);
}

static void test_cr3_cr4_cr8(void **state)
{
	(void)state;
	fresh();
	assert_int_equal(mov_cr(3, UINT64_C(1) << 40), VEC_GP);
	assert_int_equal(mov_cr(3, UINT64_C(1) << 63 | TABLES), VEC_GP);
	assert_int_equal(mov_cr(4, start.cr4 | CR4_PCIDE), NONE);
	start.cr4 |= CR4_PCIDE;
	assert_int_equal(mov_cr(3, UINT64_C(1) << 63 | TABLES | 5), NONE);
	assert_int_equal(end.cr3, TABLES | 5);
	assert_int_equal(mov_cr(0, start.cr0 & ~CR0_PG), VEC_GP);
	start.cr4 &= ~CR4_PCIDE;
	start.cr3 |= 8;
	assert_int_equal(mov_cr(4, start.cr4 | CR4_PCIDE), VEC_GP); /* CR3[11:0] not 0 */
	start.cr3 = TABLES;
	assert_int_equal(mov_cr(4, start.cr4 & ~CR4_PAE), VEC_GP);
	assert_int_equal(mov_cr(4, start.cr4 | CR4_VME), VEC_GP);
	assert_int_equal(mov_cr(4, start.cr4 | 1 << 12), VEC_GP); /* LA57 */
	assert_int_equal(mov_cr(4, start.cr4 | 1 << 22), VEC_GP); /* PKE */
	/* MOV CR8, RAX and back */
	start.gpr[RAX] = 9;
	assert_int_equal(RUN("\x44\x0f\x22\xc0\x44\x0f\x20\xc3"), NONE);
	assert_int_equal(end.gpr[RBX], 9);
	start.gpr[RAX] = 16;
	assert_int_equal(RUN("\x44\x0f\x22\xc0"), VEC_GP);
	assert_int_equal(RUN("\x0f\x22\xc8"), VEC_UD); /* CR1 */
	assert_int_equal(RUN("\x0f\x20\xe8"), VEC_UD); /* CR5 */
}

static void test_pae_pdptes(void **state)
{
	uint64_t pdpte[4] = {0, 0, 0, 0x5000 | 1};

	(void)state;
	fresh();
	start.efer = 0;
	start.cr0 &= ~CR0_PG;
	start.cr3 = DATA;
	start.seg[SEG_CS].attr = 0xc09b;
	pdpte[0] = 0x3000 | 1;
	uint64_t pde = 0x83; /* 2 MiB page at 0 */
	mem_write(mem, 0x3000, &pde, 8);
	mem_write(mem, DATA, pdpte, sizeof(pdpte));
	assert_int_equal(mov_cr(0, start.cr0 | CR0_PG), NONE);
	assert_memory_equal(end.pdpte, pdpte, sizeof(pdpte));
	pdpte[2] = 0x6000 | 3; /* W is reserved here */
	mem_write(mem, DATA, pdpte, sizeof(pdpte));
	assert_int_equal(mov_cr(0, start.cr0 | CR0_PG), VEC_GP);
}

static void test_debug_registers(void **state)
{
	(void)state;
	fresh();
	start.gpr[RAX] = 0xffffffff;
	assert_int_equal(RUN("\x0f\x23\xf0\x0f\x21\xf3"), NONE); /* DR6 */
	assert_int_equal(end.gpr[RBX], 0xffffefff);
	start.gpr[RAX] = 0;
	assert_int_equal(RUN("\x0f\x23\xf0\x0f\x21\xe3"), NONE); /* DR4 is DR6 */
	assert_int_equal(end.gpr[RBX], 0xffff0ff0);
	start.gpr[RAX] = UINT64_C(1) << 32;
	assert_int_equal(RUN("\x0f\x23\xf8"), VEC_GP); /* DR7 */
	start.cr4 |= CR4_DE;
	assert_int_equal(RUN("\x0f\x21\xe3"), VEC_UD);
	start.dr7 |= 1 << 13;
	assert_int_equal(RUN("\x0f\x21\xc3"), VEC_DB); /* GD */
	assert_true(end.dr6 & 1 << 13);
	assert_false(end.dr7 & 1 << 13);
	assert_int_equal(end.rip, CODE);
	assert_int_equal(RUN("\x0f\x23\xe0"), VEC_UD); /* DR4 with DE comes first */
}

static void put_xmm(unsigned n, uint8_t v)
{
	memset(start.xsave.bytes + XSAVE_XMM0 + 16 * n, v, 16);
}

static uint64_t data64(unsigned at)
{
	uint64_t v = 0;

	mem_read(mem, DATA + at, &v, 8);
	return v;
}

static void fill_data(uint8_t v)
{
	uint8_t all[4096];

	memset(all, v, sizeof(all));
	mem_write(mem, DATA, all, sizeof(all));
}

static void test_fxsave(void **state)
{
	(void)state;
	fresh();
	put_xmm(3, 0x33);
	put_xmm(15, 0xff);
	memset(start.xsave.bytes + XSAVE_FIP, 0x77, 8);
	fill_data(0xcc);
	start.gpr[RBX] = DATA;
	assert_int_equal(RUN("\x48\x0f\xae\x03"), NONE); /* FXSAVE64 [RBX] */
	assert_int_equal(data64(XSAVE_XMM0 + 48), 0x3333333333333333);
	assert_int_equal(data64(XSAVE_XMM0 + 240), UINT64_MAX);
	assert_int_equal(data64(XSAVE_FIP), 0x7777777777777777);
	assert_int_equal(data64(XSAVE_MXCSR), UINT64_C(0xffff00001f80));
	assert_int_equal(data64(416), 0xcccccccccccccccc); /* not written */
	assert_int_equal(RUN("\x0f\xae\x03"), NONE);	   /* FXSAVE */
	assert_int_equal(data64(XSAVE_FIP), 0x77777777);
	start.gpr[RBX] = DATA + 8;
	assert_int_equal(RUN("\x0f\xae\x03"), VEC_GP);
	start.gpr[RBX] = DATA;
	start.cr0 |= CR0_TS;
	assert_int_equal(RUN("\x0f\xae\x03"), VEC_NM);
	start.cr0 &= ~CR0_TS;
	uint32_t bad = 0x10000;
	mem_write(mem, DATA + XSAVE_MXCSR, &bad, 4);
	assert_int_equal(RUN("\x0f\xae\x0b"), VEC_GP); /* FXRSTOR */
}

/* XSAVE and kin with RBX at the area and EDX:EAX all ones. */
static int xop(const char *code, size_t len)
{
	start.gpr[RBX] = DATA;
	start.gpr[RAX] = start.gpr[RDX] = UINT32_MAX;
	return run(code, len);
}
#define XOP(bytes) xop(bytes, sizeof(bytes) - 1)

static void test_xsave(void **state)
{
	(void)state;
	fresh();
	put_xmm(0, 0x11);
	fill_data(0);
	uint64_t old_bv = UINT64_C(1) << 62 | 7;
	mem_write(mem, DATA + XSAVE_BV, &old_bv, 8);
	start.xsave.bytes[XSAVE_FCW] = 0x7f;
	start.xsave.bytes[XSAVE_FCW + 1] = 0x03;
	start.xsave.bytes[XSAVE_FTW] = 0;
	assert_int_equal(XOP("\x48\x0f\xae\x23"), NONE); /* XSAVE64 */
	assert_int_equal(data64(XSAVE_BV), UINT64_C(1) << 62 | XCR0_SSE);
	assert_int_equal(data64(0), 0x37f);

	fill_data(0xcc);
	assert_int_equal(XOP("\x48\x0f\xc7\x23"), NONE); /* XSAVEC64 */
	assert_int_equal(data64(XSAVE_BV), XCR0_SSE);
	assert_int_equal(data64(XSAVE_BV + 8), UINT64_C(1) << 63 | 7);
	assert_int_equal(data64(0), 0xcccccccccccccccc);
	assert_int_equal(data64(XSAVE_YMMH0), 0xcccccccccccccccc);

	fill_data(0);
	start.cr4 &= ~CR4_OSXSAVE;
	assert_int_equal(XOP("\x48\x0f\xae\x23"), VEC_UD);
	start.cr4 |= CR4_OSXSAVE;
	start.cr0 |= CR0_TS;
	assert_int_equal(XOP("\x48\x0f\xae\x23"), VEC_NM);
	start.cr0 &= ~CR0_TS;
	start.gpr[RBX] = DATA + 16;
	assert_int_equal(RUN("\x48\x0f\xae\x23"), VEC_GP);
}

static void test_xrstor(void **state)
{
	uint64_t v;

	(void)state;
	fresh();
	fill_data(0);
	put_xmm(1, 0x44);
	memset(start.xsave.bytes + XSAVE_YMMH0, 0x55, 256);
	/* Standard form, SSE present, AVX initial, MXCSR from memory. */
	v = XCR0_SSE;
	mem_write(mem, DATA + XSAVE_BV, &v, 8);
	v = 0x1fa0;
	mem_write(mem, DATA + XSAVE_MXCSR, &v, 4);
	v = 0x99;
	mem_write(mem, DATA + XSAVE_XMM0, &v, 8);
	assert_int_equal(XOP("\x48\x0f\xae\x2b"), NONE); /* XRSTOR64 */
	assert_int_equal(end.xsave.bytes[XSAVE_XMM0], 0x99);
	assert_int_equal(end.xsave.bytes[XSAVE_XMM0 + 16], 0);
	assert_int_equal(end.xsave.bytes[XSAVE_YMMH0 + 77], 0);
	assert_int_equal(end.xsave.bytes[XSAVE_MXCSR], 0xa0);
	assert_int_equal(end.xsave.bytes[XSAVE_FCW], 0x7f);
	assert_int_equal(end.xsave.bytes[XSAVE_FTW], 0);
	/* Only what RFBM names. */
	start.gpr[RBX] = DATA;
	start.gpr[RAX] = XCR0_X87;
	start.gpr[RDX] = 0;
	assert_int_equal(RUN("\x48\x0f\xae\x2b"), NONE);
	assert_int_equal(end.xsave.bytes[XSAVE_XMM0 + 16], 0x44);
	/* The header's reserved bits. */
	v = 1 << 9;
	mem_write(mem, DATA + XSAVE_BV, &v, 8);
	assert_int_equal(XOP("\x48\x0f\xae\x2b"), VEC_GP);
	v = 0;
	mem_write(mem, DATA + XSAVE_BV, &v, 8);
	v = 1;
	mem_write(mem, DATA + XSAVE_BV + 8, &v, 8);
	assert_int_equal(XOP("\x48\x0f\xae\x2b"), VEC_GP);
	/* Compacted: XSTATE_BV within XCOMP_BV. */
	v = UINT64_C(1) << 63 | XCR0_SSE;
	mem_write(mem, DATA + XSAVE_BV + 8, &v, 8);
	v = XCR0_AVX;
	mem_write(mem, DATA + XSAVE_BV, &v, 8);
	assert_int_equal(XOP("\x48\x0f\xae\x2b"), VEC_GP);
	v = XCR0_SSE;
	mem_write(mem, DATA + XSAVE_BV, &v, 8);
	assert_int_equal(XOP("\x48\x0f\xae\x2b"), NONE);
	v = 1;
	mem_write(mem, DATA + XSAVE_BV + 16, &v, 8);
	assert_int_equal(XOP("\x48\x0f\xae\x2b"), VEC_GP);
	uint32_t bad = 0x10000;
	fill_data(0);
	mem_write(mem, DATA + XSAVE_MXCSR, &bad, 4);
	assert_int_equal(XOP("\x48\x0f\xae\x2b"), VEC_GP);
}

static void test_xcr0(void **state)
{
	(void)state;
	fresh();
	start.gpr[RCX] = 0;
	start.gpr[RDX] = 0;
	start.gpr[RAX] = 3;
	assert_int_equal(RUN("\x0f\x01\xd1\x31\xc0\x0f\x01\xd0"), NONE); /* XSETBV, XGETBV */
	assert_int_equal(end.gpr[RAX], 3);
	start.gpr[RAX] = 2;
	assert_int_equal(RUN("\x0f\x01\xd1"), VEC_GP);
	start.gpr[RAX] = 5;
	assert_int_equal(RUN("\x0f\x01\xd1"), VEC_GP);
	start.gpr[RAX] = 0xe7;
	assert_int_equal(RUN("\x0f\x01\xd1"), VEC_GP);
	start.gpr[RCX] = 1;
	put_xmm(9, 1);
	assert_int_equal(RUN("\x0f\x01\xd0"), NONE);
	assert_true(end.gpr[RAX] & XCR0_SSE);
	assert_false(end.gpr[RAX] & XCR0_AVX);
	start.gpr[RCX] = 2;
	assert_int_equal(RUN("\x0f\x01\xd0"), VEC_GP);
}

static void test_invpcid(void **state)
{
	uint64_t desc[2] = {0, 0};

	(void)state;
	fresh();
	start.gpr[RBX] = DATA;
	for (unsigned type = 0; type < 5; type++) {
		start.gpr[RAX] = type;
		desc[0] = 0;
		mem_write(mem, DATA, desc, sizeof(desc));
		assert_int_equal(RUN("\x66\x0f\x38\x82\x03"), type == 4 ? VEC_GP : NONE);
		desc[0] = 1; /* a PCID while they are off */
		mem_write(mem, DATA, desc, sizeof(desc));
		assert_int_equal(RUN("\x66\x0f\x38\x82\x03"),
				 type == 2 || type == 3 ? NONE : VEC_GP);
		desc[0] = 0x1000;
		mem_write(mem, DATA, desc, sizeof(desc));
		assert_int_equal(RUN("\x66\x0f\x38\x82\x03"), VEC_GP);
	}
	start.gpr[RAX] = 0;
	desc[0] = 0;
	desc[1] = UINT64_C(1) << 47;
	mem_write(mem, DATA, desc, sizeof(desc));
	assert_int_equal(RUN("\x66\x0f\x38\x82\x03"), VEC_GP);
	start.gpr[RBX] = UINT64_C(1) << 47;
	assert_int_equal(RUN("\x0f\x01\x3b"), NONE); /* INVLPG: no fault */
}

static void test_stac(void **state)
{
	(void)state;
	fresh();
	assert_int_equal(RUN("\x0f\x01\xcb"), NONE); /* STAC */
	assert_true(end.rflags & FLAG_AC);
	start.rflags |= FLAG_AC;
	assert_int_equal(RUN("\x0f\x01\xca"), NONE); /* CLAC */
	assert_false(end.rflags & FLAG_AC);
	start.seg[SEG_SS].attr |= SEG_DPL;
	start.seg[SEG_CS].attr |= SEG_DPL;
	assert_int_equal(RUN("\x0f\x01\xca"), VEC_UD);
}

/* What a guest may not do at CPL 3, and what no guest may. */
static void test_refused(void **state)
{
	static const char *const privileged[] = {
		"\x0f\x01\x3b\x90", "\xf4\x90\x90\x90", "\x0f\x09\x90\x90", "\x0f\x06\x90\x90",
		"\x0f\x20\xc0\x90", "\x0f\x21\xc0\x90", "\x0f\x01\xd1\x90", "\x0f\x30\x90\x90"};
	static const char *const undefined[] = {
		"\x0f\x01\xc1\x90",	    "\x0f\x01\xd9\x90",
		"\x0f\x01\xc8\x90", /* VMCALL VMMCALL MONITOR */
		"\x0f\x01\xc9\x90",	    "\x0f\xaa\x90\x90",
		"\x0f\x0b\x90\x90", /* MWAIT RSM UD2 */
		"\x0f\x01\xd8\x90",	    "\x0f\x37\x90\x90",
		"\x0f\x01\xee\x90", /* VMRUN GETSEC RDPKRU */
		"\x0f\x01\xe8\x90",	    "\x0f\x01\xfc\x90",
		"\x0f\x01\xfd\x90",	    /* SERIALIZE CLZERO RDPRU */
		"\xc7\xf8\x00\x00\x00\x00", /* XBEGIN */
	};

	(void)state;
	for (unsigned n = 0; n < sizeof(privileged) / sizeof(privileged[0]); n++) {
		fresh();
		start.seg[SEG_SS].attr |= SEG_DPL;
		start.seg[SEG_CS].attr |= SEG_DPL;
		start.seg[SEG_CS].sel |= 3;
		start.gpr[RCX] = 0;
		start.gpr[RAX] = 1;
		assert_int_equal(run(privileged[n], 4), VEC_GP);
	}
	for (unsigned n = 0; n < sizeof(undefined) / sizeof(undefined[0]); n++) {
		fresh();
		assert_int_equal(run(undefined[n], 4), VEC_UD);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_msr_plain),
		cmocka_unit_test(test_msr_mtrr),
		cmocka_unit_test(test_msr_efer),
		cmocka_unit_test(test_msr_tsc),
		cmocka_unit_test(test_msr_machine),
		cmocka_unit_test(test_cr0),
		cmocka_unit_test(test_long_mode_switch),
		cmocka_unit_test(test_cr3_cr4_cr8),
		cmocka_unit_test(test_pae_pdptes),
		cmocka_unit_test(test_debug_registers),
		cmocka_unit_test(test_fxsave),
		cmocka_unit_test(test_xsave),
		cmocka_unit_test(test_xrstor),
		cmocka_unit_test(test_xcr0),
		cmocka_unit_test(test_invpcid),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_stac),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
