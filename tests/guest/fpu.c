/* SPDX-License-Identifier: Apache-2.0 */
/* x87, SSE, AVX and the XSAVE family: state, enabling and exceptions (Intel SDM volume 1, 8-14; 3, 13). */
#include "guest.h"

static u8 image[4096] __attribute__((aligned(64)));
static u8 other[4096] __attribute__((aligned(64)));
static u8 block[64] __attribute__((aligned(64)));
static const u32 ones[4]
	__attribute__((aligned(16))) = {0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000};
static const u32 zeros[4] __attribute__((aligned(16)));

static u16 fsw(void)
{
	u16 v;
	asm volatile("fnstsw %0" : "=a"(v));
	return v;
}

static void set_fcw(u16 v)
{
	asm volatile("fldcw %0" ::"m"(v));
}

static void set_mxcsr(u32 v)
{
	asm volatile("ldmxcsr %0" ::"m"(v));
}

static u32 mxcsr(void)
{
	u32 v;
	asm volatile("stmxcsr %0" : "=m"(v));
	return v;
}

static void cr0_change(ulong set, ulong clear)
{
	write_cr0((read_cr0() & ~clear) | set);
}

static void enabling(void)
{
	group("enable");
	cr0_change(CR0_MP | CR0_NE, CR0_EM | CR0_TS);
	cr0_change(CR0_TS, 0);
	FAULT("x87 with TS", NM, 0, "fninit", ::);
	FAULT("fwait with TS and MP", NM, 0, "fwait", ::);
	FAULT("MMX with TS", NM, 0, "emms", ::);
	cr0_change(0, CR0_MP);
	NOFAULT("fwait with TS, MP clear", "fwait", ::);
	cr0_change(CR0_MP | CR0_EM, CR0_TS);
	FAULT("x87 with EM", NM, 0, "fninit", ::);
	FAULT("MMX with EM", UD, 0, "emms", ::);
	NOFAULT("fwait with EM", "fwait", ::);
	cr0_change(0, CR0_EM);
	write_cr4(read_cr4() & ~(ulong)CR4_OSFXSR);
	FAULT("SSE with OSFXSR clear", UD, 0, "xorps %%xmm0, %%xmm0", ::);
	FAULT("ldmxcsr with OSFXSR clear", UD, 0, "ldmxcsr %0", ::"m"(zeros[0]));
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	cr0_change(CR0_TS, 0);
	FAULT("SSE with TS", NM, 0, "xorps %%xmm0, %%xmm0", ::);
	FAULT("fxsave with TS", NM, 0, "fxsave %0", ::"m"(image));
	cr0_change(CR0_EM, CR0_TS);
	FAULT("SSE with EM", UD, 0, "xorps %%xmm0, %%xmm0", ::);
	cr0_change(0, CR0_EM);
	NOFAULT("SSE with all in order", "xorps %%xmm0, %%xmm0", ::);
	NOFAULT("prefetch and sfence need none of it", "sfence\n\tprefetcht0 image", ::);
}

static void x87(void)
{
	u16 fcw;
	u32 i;
	u64 q;
	u8 ten[10];

	group("x87");
	asm volatile("fninit\n\tfnstcw %0" : "=m"(fcw));
	check_eq("fninit: control word", fcw, 0x37f);
	check_eq("fninit: status word", fsw(), 0);
	asm volatile("fld1\n\tfldpi");
	check_eq("two pushes: TOP is 6", fsw() >> 11 & 7, 6);
	asm volatile("fstpt %0\n\tfstpt %1" : "=m"(ten), "=m"(block));
	check_eq("pi: significand", *(u64 *)ten, 0xc90fdaa22168c235);
	check_eq("pi: exponent", *(u16 *)(ten + 8), 0x4000);
	asm volatile("fnclex\n\tfldz\n\tfld1\n\tfdivp\n\tfstps %0" : "=m"(i));
	check_eq("1/0 masked: infinity or its reciprocal", i & 0x7fffffff, 0x7f800000);
	check_mask("1/0 masked: ZE", fsw(), 4, 4);
	asm volatile("fninit\n\tfldpi\n\tfistpl %0" : "=m"(i));
	check_eq("fist rounds to nearest", i, 3);
	set_fcw(0xb7f);
	asm volatile("fldpi\n\tfistpl %0" : "=m"(i));
	check_eq("fist rounds up", i, 4);
	asm volatile("fninit\n\tfldpi\n\tfisttpl %0" : "=m"(i));
	check_eq("fisttp truncates", i, 3);
	asm volatile("fninit\n\tfildq %1\n\tfbstp %0" : "=m"(ten) : "m"((u64){1234567890}));
	check_eq("fbstp", *(u64 *)ten, 0x1234567890);
	asm volatile(
		"fninit\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1");
	check_mask("the ninth push overflows: IE, SF, C1", fsw(), 0x241, 0x241);
	asm volatile("fninit\n\tfstps %0" : "=m"(i));
	check_mask("an empty stack underflows: IE, SF, not C1", fsw(), 0x41, 0x241);
	check_eq("and gives the indefinite", i, 0xffc00000);
	asm volatile(
		"fninit\n\tfld1\n\tfldz\n\tfcomip %%st(1), %%st\n\tfstp %%st(0)\n\tpushf\n\tpop %0"
		: "=r"(q)::"cc");
	check_mask("fcomip: 0 below 1", q, FL_CF, FL_CF | FL_ZF | FL_PF);

	group("#MF");
	asm volatile("fninit");
	set_fcw(0x37b);
	asm volatile("fld1\n\tfldz\n\tfdivrp");
	check_mask("an unmasked error: ES", fsw(), 0x84, 0x84);
	FAULT("comes at the next fwait", MF, 0, "fwait", ::);
	FAULT("or at the next waiting instruction", MF, 0, "fld1", ::);
	NOFAULT("fnstsw, fnclex and fninit do not wait", "fnstsw %%ax\n\tfnclex\n\tfwait", ::
			: "rax");
	set_fcw(0x37b);
	asm volatile("fninit\n\tfld1\n\tfldz\n\tfdivrp");
	set_fcw(0x37b);
	FAULT("unmasking a pending one raises it", MF, 0, "fwait", ::);
	asm volatile("fnclex");
	asm volatile("fninit");
}

static void mmx(void)
{
	u16 top;

	group("mmx");
	asm volatile("fninit\n\tfld1\n\tmovd %1, %%mm0\n\tfnstsw %0" : "=a"(top) : "r"(0x12345678));
	check_eq("an MMX instruction sets TOP to 0", top >> 11 & 7, 0);
	memset(image, 0xff, 512);
	asm volatile("fxsave %0" : "=m"(image));
	check_eq("and all tags to valid", image[4], 0xff);
	check_eq("mm0 is the significand of a register", *(u32 *)(image + 32), 0x12345678);
	check_eq("its exponent is all ones", *(u16 *)(image + 40), 0xffff);
	asm volatile("emms\n\tfxsave %0" : "=m"(image));
	check_eq("emms empties them", image[4], 0);
}

static void sse(void)
{
	u32 v[4];

	group("sse");
	set_mxcsr(0x1f80);
	check_eq("MXCSR", mxcsr(), 0x1f80);
	FAULT("ldmxcsr: a reserved bit", GP, 0, "ldmxcsr %0", ::"m"((u32){0x80001f80}));
	FAULT("movaps misaligned", GP, 0, "movaps %0, %%xmm0", ::"m"(block[8]));
	NOFAULT("movups misaligned", "movups %0, %%xmm0", ::"m"(block[8]));
	FAULT("addps with a misaligned operand", GP, 0, "addps %0, %%xmm0", ::"m"(block[8]));
	asm volatile("movaps %1, %%xmm1\n\taddps %%xmm1, %%xmm1\n\tmovups %%xmm1, %0"
		     : "=m"(v)
		     : "m"(ones));
	check_eq("addps", v[0] == 0x40000000 && v[3] == 0x40000000, 1);
	set_mxcsr(0x1f80);
	asm volatile("movaps %0, %%xmm1\n\tdivps %1, %%xmm1" ::"m"(ones), "m"(zeros));
	check_mask("1/0 masked: ZE", mxcsr(), 4, 0x3f);
	set_mxcsr(0x1f80 & ~0x200);
	asm volatile("movaps %0, %%xmm1" ::"m"(ones));
	FAULT("1/0 unmasked", XM, 0, "divps zeros_here, %%xmm1\n\t.set zeros_here, %c0",
	      ::"i"(zeros));
	asm volatile("movups %%xmm1, %0" : "=m"(v));
	check_eq("#XM leaves the register", v[0], 0x3f800000);
	check_mask("#XM: ZE in MXCSR", mxcsr(), 4, 4);
	write_cr4(read_cr4() & ~(ulong)CR4_OSXMMEXCPT);
	FAULT("1/0 unmasked with OSXMMEXCPT clear", UD, 0, "divps zeros_here, %%xmm1", ::);
	write_cr4(read_cr4() | CR4_OSXMMEXCPT);
	set_mxcsr(0x1f80);
	set_mxcsr(0x7f80);
	asm volatile("cvtsd2si %1, %0" : "=r"(v[0]) : "m"((u64){0x4002000000000000}));
	check_eq("rounding control: toward zero", v[0], 2);
	set_mxcsr(0x5f80);
	asm volatile("cvtsd2si %1, %0" : "=r"(v[0]) : "m"((u64){0x4002000000000000}));
	check_eq("rounding control: up", v[0], 3);
	set_mxcsr(0x1f80);
	asm volatile("cvttss2si %1, %0" : "=r"(v[0]) : "m"((u32){0x4f800000}));
	check_eq("an integer overflow gives the indefinite", v[0], 0x80000000);
}

static void fxsave(void)
{
	group("fxsave");
	memset(image, 0, sizeof(image));
	set_mxcsr(0x1f80);
	asm volatile("fninit\n\tfld1\n\tmovaps %1, %%xmm0\n\tmovaps %1, %%xmm15\n\tfxsave %0"
		     : "=m"(image)
		     : "m"(ones));
	check_eq("FCW", *(u16 *)image, 0x37f);
	check_eq("FSW: TOP 7", *(u16 *)(image + 2), 0x3800);
	check_eq("abridged tags: physical register 7", image[4], 0x80);
	check_eq("MXCSR", *(u32 *)(image + 24), 0x1f80);
	check_mask("MXCSR_MASK has the defined bits", *(u32 *)(image + 28), 0xffbf, 0xffbf);
	check_eq("ST0 first: significand", *(u64 *)(image + 32), 0x8000000000000000);
	check_eq("ST0: exponent", *(u16 *)(image + 40), 0x3fff);
	check_eq("XMM0", *(u32 *)(image + 160), 0x3f800000);
	check_eq("XMM15", *(u32 *)(image + 160 + 15 * 16), 0x3f800000);
	memcpy(other, image, 512);
	*(u32 *)(other + 160) = 0xabcdef01;
	asm volatile("fxrstor %1\n\tmovd %%xmm0, %k0" : "=r"(*(ulong *)block) : "m"(other));
	check_eq("fxrstor loads it", *(u32 *)block, 0xabcdef01);
	*(u32 *)(other + 24) = 0x80000000;
	FAULT("fxrstor: MXCSR reserved bit", GP, 0, "fxrstor %0", ::"m"(other));
	FAULT("fxsave misaligned", GP, 0, "fxsave %0", ::"m"(image[8]));
	asm volatile("fninit");
}

SNIP(u_xsetbv, "xor %ecx, %ecx\nmov $1, %eax\nxor %edx, %edx\nu_xsetbv_at: xsetbv\nint3");
SNIP(u_xgetbv, "xor %ecx, %ecx\nxgetbv\nint3");
extern char u_xsetbv_at[];

static u64 xgetbv(u32 n)
{
	u32 lo, hi;
	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(n));
	return (u64)hi << 32 | lo;
}

static void xsetbv(u64 v)
{
	asm volatile("xsetbv" ::"a"((u32)v), "d"((u32)(v >> 32)), "c"(0));
}

static u64 xcr0_offered;

static void xcr0(void)
{
	u32 r[4];
	struct regs regs;

	group("xcr0");
	write_cr4(read_cr4() & ~(ulong)CR4_OSXSAVE);
	cpuid(1, 0, r);
	check_eq("CPUID OSXSAVE is clear with CR4's", r[2] >> 27 & 1, 0);
	FAULT("xgetbv with OSXSAVE clear", UD, 0, "xgetbv", ::"c"(0) : "rax", "rdx");
	FAULT("xsave with OSXSAVE clear", UD, 0, "xsave %0", ::"m"(image), "a"(3), "d"(0));
	write_cr4(read_cr4() | CR4_OSXSAVE);
	cpuid(1, 0, r);
	check_eq("and set with it", r[2] >> 27 & 1, 1);
	cpuid(13, 0, r);
	xcr0_offered = (u64)r[3] << 32 | r[0];
	check_mask("x87 and SSE are offered", xcr0_offered, 3, 3);
	check_eq("XCR0 at reset", xgetbv(0), 1);
	FAULT("bit 0 clear", GP, 0, "xsetbv", ::"a"(2), "d"(0), "c"(0));
	FAULT("AVX without SSE", GP, 0, "xsetbv", ::"a"(5), "d"(0), "c"(0));
	FAULT("bit 63", GP, 0, "xsetbv", ::"a"(3), "d"(0x80000000), "c"(0));
	FAULT("a component not offered", GP, 0, "xsetbv", ::"a"(3), "d"(1 << 20), "c"(0));
	FAULT("xsetbv 1", GP, 0, "xsetbv", ::"a"(3), "d"(0), "c"(1));
	FAULT("xgetbv 2", GP, 0, "xgetbv", ::"c"(2) : "rax", "rdx");
	regs_init(&regs, RING3, u_xsetbv);
	run(&regs);
	check_trap("xsetbv in ring 3", GP, 0, (ulong)u_xsetbv_at);
	regs_init(&regs, RING3, u_xgetbv);
	run(&regs);
	check_trap("xgetbv in ring 3", BP, 0, 0);
	xsetbv(3);
	check_eq("x87 and SSE", xgetbv(0), 3);
	cpuid(13, 0, r);
	check_eq("CPUID 0xd: size of what is enabled", r[1], 576);
	xsetbv(xcr0_offered);
	check_eq("all that is offered", xgetbv(0), xcr0_offered);
	cpuid(13, 0, r);
	check_eq("CPUID 0xd: then the size is the maximum", r[1], r[2]);
}

static void xsave(void)
{
	u32 r[4];
	u64 v;

	group("xsave");
	cr0_change(CR0_TS, 0);
	FAULT("with TS", NM, 0, "xsave %0", ::"m"(image), "a"(3), "d"(0));
	cr0_change(0, CR0_TS);
	FAULT("misaligned", GP, 0, "xsave %0", ::"m"(image[16]), "a"(3), "d"(0));
	memset(image, 0, sizeof(image));
	asm volatile("fninit\n\tfld1\n\tmovaps %1, %%xmm3\n\txsave %0"
		     : "+m"(image)
		     : "m"(ones), "a"(3), "d"(0));
	check_mask("XSTATE_BV", *(u64 *)(image + 512), 3, 3);
	check_eq("XMM3", *(u32 *)(image + 160 + 48), 0x3f800000);
	memset(other, 0, sizeof(other));
	asm volatile("xsave %0" : "+m"(other) : "a"(2), "d"(0));
	check_eq("only what is asked for: no x87", *(u64 *)(other + 32), 0);
	check_eq("XSTATE_BV of that", *(u64 *)(other + 512) & 3, 2);
	asm volatile("xorps %%xmm3, %%xmm3\n\txrstor %1\n\tmovd %%xmm3, %k0"
		     : "=&r"(v)
		     : "m"(image), "a"(3), "d"(0));
	check_eq("xrstor loads it", (u32)v, 0x3f800000);
	*(u64 *)(image + 512) = 0;
	asm volatile("xrstor %1\n\tmovd %%xmm3, %k0" : "=&r"(v) : "m"(image), "a"(3), "d"(0));
	check_eq("a clear XSTATE_BV bit initialises", (u32)v, 0);
	check_eq("x87 as well", fsw(), 0);
	*(u64 *)(image + 512) = 1ull << 62;
	FAULT("xrstor: a component not enabled", GP, 0, "xrstor %0", ::"m"(image), "a"(3), "d"(0));
	*(u64 *)(image + 512) = 3;
	*(u64 *)(image + 528) = 1;
	FAULT("xrstor: header bytes 16 to 23", GP, 0, "xrstor %0", ::"m"(image), "a"(3), "d"(0));
	*(u64 *)(image + 528) = 0;
	*(u32 *)(image + 24) = 0x80000000;
	FAULT("xrstor: MXCSR reserved bit", GP, 0, "xrstor %0", ::"m"(image), "a"(3), "d"(0));
	*(u32 *)(image + 24) = 0x1f80;

	cpuid(13, 1, r);
	if (r[0] & 1) {
		memset(other, 0, sizeof(other));
		asm volatile("fninit\n\tmovaps %1, %%xmm5\n\txsaveopt %0"
			     : "+m"(other)
			     : "m"(ones), "a"(3), "d"(0));
		check_eq("xsaveopt", *(u32 *)(other + 160 + 80), 0x3f800000);
	} else {
		skip("xsaveopt", "no XSAVEOPT");
	}
	if (r[0] & 2) {
		memset(other, 0, sizeof(other));
		asm volatile("movaps %1, %%xmm6\n\txsavec %0"
			     : "+m"(other)
			     : "m"(ones), "a"(3), "d"(0));
		check_mask("xsavec: compacted format", *(u64 *)(other + 520) >> 32, 0x80000000,
			   0x80000000);
		check_mask("xsavec: XCOMP_BV is what was asked", *(u64 *)(other + 520), 3, 0xff);
		asm volatile("xorps %%xmm6, %%xmm6\n\txrstor %1\n\tmovd %%xmm6, %k0"
			     : "=&r"(v)
			     : "m"(other), "a"(3), "d"(0));
		check_eq("xrstor of it", (u32)v, 0x3f800000);
	} else {
		skip("xsavec", "no XSAVEC");
	}
	if (r[0] & 4)
		check_mask("xgetbv 1: in use, within XCR0", xgetbv(1), 0, ~xgetbv(0));
	else
		FAULT("xgetbv 1 not offered", GP, 0, "xgetbv", ::"c"(1) : "rax", "rdx");
}

static void avx(void)
{
	u64 v[4] __attribute__((aligned(32))) = {1, 2, 3, 4};
	u32 r[4];

	group("avx");
	if (!(cpu_features_1_ecx & 1 << 28)) {
		skip("avx", "no AVX");
		return;
	}
	xsetbv(3);
	FAULT("XCR0 bit 2 clear", UD, 0, "vxorps %%ymm0, %%ymm0, %%ymm0", ::);
	xsetbv(7);
	cr0_change(CR0_TS, 0);
	FAULT("with TS", NM, 0, "vxorps %%ymm0, %%ymm0, %%ymm0", ::);
	cr0_change(0, CR0_TS);
	NOFAULT("with all in order", "vxorps %%ymm0, %%ymm0, %%ymm0", ::);
	asm volatile("vmovups %1, %%ymm1\n\tvaddps %%xmm1, %%xmm1, %%xmm1\n\tvmovups %%ymm1, %0"
		     : "=m"(v)
		     : "m"(v));
	check_eq("a 128-bit VEX instruction clears the high half", v[2] | v[3], 0);
	v[2] = 5;
	v[3] = 6;
	asm volatile("vmovups %1, %%ymm1\n\txorps %%xmm1, %%xmm1\n\tvmovups %%ymm1, %0"
		     : "=m"(v)
		     : "m"(v));
	check_eq("a legacy SSE instruction keeps it", v[2] << 8 | v[3], 0x506);
	NOFAULT("vaddps needs no alignment", "vaddps %0, %%xmm0, %%xmm0", ::"m"(block[4]));
	FAULT("vmovaps does", GP, 0, "vmovaps %0, %%ymm0", ::"m"(block[16]));
	FAULT("VEX with a lock prefix", UD, 0, ".byte 0xf0, 0xc5, 0xf8, 0x57, 0xc0", ::);
	FAULT("VEX with a 66 prefix", UD, 0, ".byte 0x66, 0xc5, 0xf8, 0x57, 0xc0", ::);
	FAULT("VEX with a REX prefix", UD, 0, ".byte 0x48, 0xc5, 0xf8, 0x57, 0xc0", ::);
	cpuid(13, 2, r);
	check_eq("CPUID 0xd: size of the AVX component", r[0], 256);
	memset(image, 0, sizeof(image));
	asm volatile("vmovups %1, %%ymm2\n\txsave %0" : "+m"(image) : "m"(v), "a"(7), "d"(0));
	check_eq("xsave: the high half of ymm2 where CPUID says", *(u64 *)(image + r[1] + 32), 5);
	asm volatile("vzeroupper\n\tvmovups %%ymm2, %0" : "=m"(v));
	check_eq("vzeroupper", v[2] | v[3], 0);
	xsetbv(xcr0_offered);
}

int main(void)
{
	enabling();
	x87();
	mmx();
	sse();
	fxsave();
	if (cpu_features_1_ecx & 1 << 26) {
		xcr0();
		xsave();
		avx();
	} else {
		skip("xsave", "no XSAVE");
	}
	return 0;
}
