/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions worth a look of their own: flags at the edges, strings, code that changes itself, and
 * the features that CPUID offers (Intel SDM volume 2).
 */
#include "guest.h"

#define STATUS (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

/* Run one instruction on eax, ecx and edx with the given flags; the flags after it. */
static u32 a, c, d;

#define RUN(insn, eax, ecx, edx, flags)                                                            \
	({                                                                                         \
		u32 fl_ = (flags) | 2;                                                             \
		a = (eax);                                                                         \
		c = (ecx);                                                                         \
		d = (edx);                                                                         \
		asm volatile("pushl %3\n\tpopf\n\t" insn "\n\tpushf\n\tpopl %3\n\tcld"             \
			     : "+a"(a), "+c"(c), "+d"(d), "+r"(fl_)::"cc", "memory");              \
		fl_ &STATUS;                                                                       \
	})

static void flags(void)
{
	group("flags");
	check_eq("add 0x7fffffff, 1", RUN("add %1, %0", 0x7fffffff, 1, 0, 0),
		 FL_OF | FL_SF | FL_AF | FL_PF);
	check_eq("add 0xffffffff, 1", RUN("add %1, %0", 0xffffffff, 1, 0, 0),
		 FL_CF | FL_ZF | FL_AF | FL_PF);
	check_eq("sub 0x80000000, 1", RUN("sub %1, %0", 0x80000000, 1, 0, 0),
		 FL_OF | FL_AF | FL_PF);
	check_eq("adc 0xffffffff, 0 with CF", RUN("adc %1, %0", 0xffffffff, 0, 0, FL_CF),
		 FL_CF | FL_ZF | FL_AF | FL_PF);
	check_eq("sbb 0, 0 with CF", RUN("sbb %1, %0", 0, 0, 0, FL_CF),
		 FL_CF | FL_SF | FL_AF | FL_PF);
	check_eq("inc keeps CF", RUN("inc %0", 0x7fffffff, 0, 0, FL_CF),
		 FL_CF | FL_OF | FL_SF | FL_AF | FL_PF);
	check_eq("dec keeps CF", RUN("dec %0", 1, 0, 0, FL_CF), FL_CF | FL_ZF | FL_PF);
	check_eq("neg 0", RUN("neg %0", 0, 0, 0, FL_CF), FL_ZF | FL_PF);
	check_eq("neg 0x80000000", RUN("neg %0", 0x80000000, 0, 0, 0),
		 FL_CF | FL_OF | FL_SF | FL_PF);
	check_eq("not changes none", RUN("not %0", 0, 0, 0, STATUS), STATUS);
	check_eq("and clears CF and OF", RUN("and %1, %0", 0x80, 0x80, 0, FL_CF | FL_OF) & ~FL_AF,
		 0);
	check_eq("shl by 0 changes none", RUN("shl %%cl, %0", 1, 0, 0, STATUS), STATUS);
	check_eq("shl by 32 changes none", RUN("shl %%cl, %0", 1, 32, 0, STATUS), STATUS);
	check_eq("shl by 1: CF and OF", RUN("shl $1, %0", 0x80000000, 0, 0, 0) & ~FL_AF,
		 FL_CF | FL_OF | FL_ZF | FL_PF);
	check_eq("sar keeps the sign",
		 (RUN("sar $4, %0", 0x80000008, 0, 0, 0) & (FL_CF | FL_SF)) | a << 12,
		 FL_CF | FL_SF | 0xf8000000u << 12);
	check_eq("shr by 1: OF is the old sign",
		 RUN("shr $1, %0", 0x80000000, 0, 0, 0) & (FL_CF | FL_OF), FL_OF);
	check_eq("rcl by 1 through CF",
		 (RUN("rcl $1, %0", 0x80000000, 0, 0, FL_CF) & FL_CF) | a << 8, 0x101);
	check_eq("rcr by 33 is by 1", (RUN("rcr %%cl, %0", 1, 33, 0, 0) & FL_CF) | a << 8, 1);
	check_eq("rol changes only CF and OF",
		 RUN("rol $4, %0", 0xf0000000, 0, 0, FL_ZF | FL_SF | FL_PF | FL_AF) & ~FL_OF,
		 FL_CF | FL_ZF | FL_SF | FL_PF | FL_AF);
	RUN("rclb $5, %b0", 0x81, 0, 0, FL_CF);
	check_eq("rcl of a byte", a, 0x38);
	RUN("rclb $14, %b0", 0x81, 0, 0, FL_CF);
	check_eq("rcl of a byte counts modulo 9", a, 0x38);
	check_eq("mul: CF and OF when the high half is used",
		 RUN("mul %1", 0x10000, 0x10000, 0, 0) & (FL_CF | FL_OF), FL_CF | FL_OF);
	check_eq("mul: result", (u64)d << 32 | a, 0x100000000);
	check_eq("imul that fits", RUN("imul %1, %0", -3u, 5, 0, FL_CF | FL_OF) & (FL_CF | FL_OF),
		 0);
	check_eq("imul that does not", RUN("imul %1, %0", 0x40000000, 4, 0, 0) & (FL_CF | FL_OF),
		 FL_CF | FL_OF);
	RUN("idiv %1", -7u, 2, -1u, 0);
	check_eq("idiv truncates toward zero", (u64)d << 32 | a, (u64)-1u << 32 | -3u);
	check_eq("bt in a register", RUN("bt %1, %0", 0x10, 36, 0, 0) & FL_CF, FL_CF);
	check_eq("bsf of 0: ZF", RUN("bsf %1, %0", 0x77, 0, 0, 0) & FL_ZF, FL_ZF);
	check_eq("bsr", (RUN("bsr %1, %0", 0, 0x1000, 0, 0) & FL_ZF) | a, 12);
	RUN("shld $8, %2, %0", 0x11223344, 0, 0xaabbccdd, 0);
	check_eq("shld", a, 0x223344aa);
	RUN("shrd %%cl, %2, %0", 0x11223344, 8, 0xaabbccdd, 0);
	check_eq("shrd", a, 0xdd112233);
	check_eq("cmpxchg that swaps", RUN("cmpxchg %1, %2", 5, 9, 5, 0) & FL_ZF, FL_ZF);
	check_eq("into its destination", d, 9);
	check_eq("cmpxchg that does not", (RUN("cmpxchg %1, %2", 5, 9, 6, 0) & FL_ZF) | a << 8,
		 6 << 8);
	RUN("xadd %1, %0", 3, 4, 0, 0);
	check_eq("xadd", a << 8 | c, 7 << 8 | 3);
	RUN("xadd %0, %0", 3, 0, 0, 0);
	check_eq("xadd of a register to itself", a, 6);
	RUN("bswap %0", 0x11223344, 0, 0, 0);
	check_eq("bswap", a, 0x44332211);
	check_eq("daa", (RUN("daa", 0x9a, 0, 0, 0) & (FL_CF | FL_AF)) | a << 8, FL_CF | FL_AF);
	check_eq("das", (RUN("das", 0x0f, 0, 0, FL_AF) & (FL_CF | FL_AF)) | (a & 0xff) << 8,
		 0x900 | FL_AF);
	check_eq("aaa", (RUN("aaa", 0x0f, 0, 0, 0) & (FL_CF | FL_AF)) | a << 8,
		 0x10500 | FL_CF | FL_AF);
	check_eq("aas", (RUN("aas", 0x20f, 0, 0, FL_AF) & (FL_CF | FL_AF)) | a << 8,
		 0x10900 | FL_CF | FL_AF);
	RUN("aam", 123, 0, 0, 0);
	check_eq("aam", a, 0xc03);
	RUN("aad", 0x0c03, 0, 0, 0);
	check_eq("aad", a, 123);
	RUN(".byte 0xd6", 0x11, 0, 0, FL_CF);
	check_eq("salc", a, 0xff);
	RUN("cwde\n\tcdq", 0x8000, 0, 0, 0);
	check_eq("cwde, cdq", (u64)d << 32 | a, 0xffffffffffff8000);
	check_eq("cmc, stc, clc", RUN("stc\n\tcmc\n\tcmc", 0, 0, 0, 0) & FL_CF, FL_CF);
}

static u8 buffer[256] __attribute__((aligned(16)));

static void memory_forms(void)
{
	u32 bits[4] = {0, 0x80000000, 0, 0};
	bool cf;

	group("memory operand");
	asm("btl %2, %1" : "=@ccc"(cf) : "m"(bits[2]), "r"(-1));
	check("bt with a negative offset reaches down", cf);
	asm volatile("btsl %1, %0" : "+m"(bits[0]), "+r"((u32){100})::"memory");
	check_eq("bts with a large offset reaches up", bits[3], 0x10);
	asm volatile("btl $35, %1" : "=@ccc"(cf) : "m"(bits[0]));
	check("bt with an immediate stays in the dword", !cf);
	buffer[7] = 0x5c;
	u32 v = 7;
	asm("xlat" : "+a"(v) : "b"(buffer));
	check_eq("xlat", v & 0xff, 0x5c);
	u32 sp_before, popped;
	asm volatile(
		"push $0x1234\n\tmov %%esp, %0\n\tpushl (%%esp)\n\tpopl 4(%%esp)\n\tmov 4(%%esp), %1\n\t"
		"mov %0, %%esp\n\tpop %1"
		: "=&r"(sp_before), "=&r"(popped));
	check_eq("push (%esp) and pop disp(%esp)", popped, 0x1234);
	u32 esp_pop;
	asm volatile(
		"mov %%esp, %0\n\tpush $0x77\n\tpop (%%esp)\n\tmov (%%esp), %1\n\tmov %0, %%esp"
		: "=&r"(sp_before), "=&r"(esp_pop)::"memory");
	(void)sp_before;
	asm volatile(
		"push %%ebx\n\tmov %%esp, %%ebx\n\tpush %%esp\n\tpop %0\n\tsub %%ebx, %0\n\tpop %%ebx"
		: "=&r"(v));
	check_eq("push esp stores the old value", v, 0);
	asm volatile(
		"mov %%esp, %%ebx\n\tpush $42\n\tmov %%esp, %%ecx\n\tpop %%esp\n\tmov %%esp, %0\n\tmov "
		"%%ebx, %%esp"
		: "=&r"(v)::"ebx", "ecx");
	check_eq("pop esp loads the value", v, 42);
	u64 q = 0x1122334455667788;
	asm volatile("lock cmpxchg8b %1"
		     : "=@ccz"(cf), "+m"(q)
		     : "a"(0x55667788), "d"(0x11223344), "b"(0xaaaaaaaa), "c"(0xbbbbbbbb));
	check_eq("cmpxchg8b", q, 0xbbbbbbbbaaaaaaaa);
	asm volatile("mov $1, %%eax\n\ttest %%eax, %%eax\n\tcmovz %1, %%eax\n\tmov %%eax, %0"
		     : "=r"(v)
		     : "m"(buffer)
		     : "eax");
	check_eq("cmov that is not taken", v, 1);
	asm volatile(
		"push %%ebp\n\tmov %%esp, %%ebp\n\tmov %%esp, %%ebx\n\tenter $8, $2\n\tmov %%ebx, %0\n\tsub "
		"%%esp, %0\n\tleave\n\tmov %%ebx, %%esp\n\tpop %%ebp"
		: "=&r"(v)::"ebx", "memory");
	check_eq("enter with two levels", v, 20);
	asm volatile("push $1\n\tpush $2\n\tpush $3\n\tcall 1f\n\tjmp 2f\n1: ret $8\n2: pop %0"
		     : "=r"(v));
	check_eq("ret with an operand", v, 1);
	asm volatile(
		"push $0x12348765\n\tmov %%esp, %%ebx\n\tpopw %w0\n\tmov %%esp, %1\n\tsub %%ebx, %1\n\tmov "
		"%%ebx, %%esp\n\tadd $4, %%esp"
		: "=&r"(v), "=&r"(popped)::"ebx");
	check_eq("a 16-bit pop moves esp by two", popped << 16 | (v & 0xffff), 2 << 16 | 0x8765);
}

static void strings(void)
{
	const void *s;
	void *t;
	u32 n;
	bool z;

	group("string");
	for (int i = 0; i < 64; i++)
		buffer[i] = i;
	s = buffer;
	t = buffer + 1;
	n = 20;
	asm volatile("rep movsb" : "+S"(s), "+D"(t), "+c"(n)::"memory");
	check_eq("an overlapping rep movsb repeats its first byte", buffer[20], 0);
	for (int i = 0; i < 64; i++)
		buffer[i] = i;
	s = buffer + 19;
	t = buffer + 20;
	n = 20;
	asm volatile("std\n\trep movsb\n\tcld" : "+S"(s), "+D"(t), "+c"(n)::"memory");
	check_eq("with DF it moves up", buffer[20] << 8 | buffer[1], 19 << 8);
	t = buffer;
	n = 5;
	asm volatile("rep stosl" : "+D"(t), "+c"(n) : "a"(0x01020304) : "memory");
	check_eq("rep stosl", (u32)((u8 *)t - buffer) << 16 | buffer[19] << 8 | n,
		 20 << 16 | 0x100);
	s = "hanok";
	t = "hansa";
	n = 5;
	asm volatile("repe cmpsb" : "=@ccz"(z), "+S"(s), "+D"(t), "+c"(n)::"memory");
	check_eq("repe cmpsb stops at the difference", n << 1 | z, 1 << 1);
	t = "hanok";
	n = 10;
	asm volatile("repne scasb" : "=@ccz"(z), "+D"(t), "+c"(n) : "a"('o') : "memory");
	check_eq("repne scasb stops at the match", n << 1 | z, 6 << 1 | 1);
	n = 0;
	t = buffer;
	asm volatile("cmp %%eax, %%eax\n\trepne scasb"
		     : "=@ccz"(z), "+D"(t), "+c"(n)
		     : "a"(0)
		     : "memory");
	check("rep with a count of 0 keeps the flags", z);
	s = buffer;
	u32 v = 0;
	asm volatile("lodsw" : "+S"(s), "+a"(v)::"memory");
	check_eq("lodsw", (u32)((u8 *)s - buffer) << 16 | v, 0x20304);
	/* A 67 prefix: si, di and cx. */
	u32 big = 0x10002;
	u8 *low = (u8 *)0x9000;
	asm("" : "+r"(low));
	low[0] = low[1] = low[2] = 0;
	t = (u8 *)0x9000;
	asm volatile("addr16 rep stosb" : "+D"(t), "+c"(big) : "a"(0x5a) : "memory");
	check_eq("with 16-bit addresses the count is cx", low[1] << 8 | low[2], 0x5a00);
	check_eq("and the rest of ecx stays", big, 0x10000);
}

static volatile u32 irqs, irq_cx, irq_di, irq_ip;

static bool irq0(struct regs *r)
{
	irqs++;
	irq_cx = r->cx;
	irq_di = r->di;
	irq_ip = r->ip;
	pic_eoi(0);
	return true;
}

/* A string instruction stopped by an interrupt goes on where it stood. */
static void interrupted_string(void)
{
	static u8 target[65536];
	extern char rep_here[], rep_next[];
	void *t = target;
	u32 n = sizeof(target);

	group("interrupted string");
	pic_init(0xff, 0xff);
	outb(0x43, 0x30);
	outb(0x40, 1);
	outb(0x40, 0);
	outb(0x20, 0x0a);
	while (!(inb(0x20) & 1))
		pause();
	outb(0x21, 0xfe);
	irqs = 0;
	trap_hook[0x20] = irq0;
	asm volatile("sti\n\t.globl rep_here\nrep_here: rep stosb\n\t.globl rep_next\nrep_next: cli"
		     : "+D"(t), "+c"(n)
		     : "a"(0x66)
		     : "memory");
	trap_hook[0x20] = NULL;
	outb(0x21, 0xff);
	check_eq("the interrupt came", irqs, 1);
	check("at the instruction or behind it",
	      irq_ip == (ulong)rep_here || irq_ip == (ulong)rep_next);
	check_eq("count and address agree", irq_di - (ulong)target, sizeof(target) - irq_cx);
	check("the address is the instruction's while there is a rest",
	      irq_cx ? irq_ip == (ulong)rep_here : irq_ip == (ulong)rep_next);
	u32 wrong = 0;
	for (u32 i = 0; i < sizeof(target); i++)
		wrong += target[i] != 0x66;
	check_eq("every byte is written", wrong, 0);
	check_eq("and counted", n, 0);
}

/* Self-modifying code: a jump, or nothing but the write, is enough (SDM 3, 8.1.3, 11.6). */
static u8 code[8192] __attribute__((aligned(4096)));

static u32 call_code(u32 at)
{
	u32 v;

	asm volatile("call *%1" : "=a"(v) : "r"(code + at) : "ecx", "edx", "memory");
	return v;
}

static void self_modifying(void)
{
	u32 wrong = 0;

	group("self-modifying");
	/* mov $imm, %eax; ret */
	code[0] = 0xb8;
	code[5] = 0xc3;
	for (u32 i = 0; i < 2000; i++) {
		*(volatile u32 *)(code + 1) = i;
		wrong += call_code(0) != i;
	}
	check_eq("rewritten before each call", wrong, 0);
	/* movb $0x40 (inc %eax), next; next: nop ... : the very next instruction. */
	static const u8 next[] = {0x31, 0xc0, 0xc6, 0x05, 0, 0, 0, 0, 0x40, 0x90, 0xc3};
	memcpy(code + 64, next, sizeof(next));
	u32 address = (ulong)code + 64 + 9;
	memcpy(code + 64 + 4, &address, 4);
	check_eq("the very next instruction", call_code(64), 1);
	/* A loop that changes its own body: 10 times inc, made dec after 5. */
	static const u8 loop[] = {0x31, 0xc0,			/* xor %eax, %eax */
				  0xb9, 10,   0, 0, 0,		/* mov $10, %ecx */
				  0x40,				/* inc %eax */
				  0x83, 0xf9, 6,		/* cmp $6, %ecx */
				  0x75, 7,			/* jne over */
				  0xc6, 0x05, 0, 0, 0, 0, 0x48, /* movb $0x48 (dec), the inc */
				  0xe2, 0xf1,			/* over: loop to the inc */
				  0xc3};
	memcpy(code + 128, loop, sizeof(loop));
	address = (ulong)code + 128 + 7;
	memcpy(code + 128 + 15, &address, 4);
	check_eq("a loop that changes its own body", call_code(128), 0);
	/* An instruction over the edge of two pages, the part on the second page rewritten. */
	code[4093] = 0xb8;
	code[4094] = 0x11;
	code[4095] = 0x22;
	code[4096] = 0x33;
	code[4097] = 0x44;
	code[4098] = 0xc3;
	u32 first = call_code(4093);
	code[4096] = 0x55;
	code[4097] = 0x66;
	check_eq("an instruction over two pages", (u64)first << 32 | call_code(4093),
		 0x4433221166552211);
	/* By a string instruction, many bytes at once. */
	u8 body[6] = {0xb8, 0x78, 0x56, 0x34, 0x12, 0xc3};
	const void *s = body;
	void *t = code + 256;
	u32 n = 6;
	code[256] = 0xc3;
	(void)call_code(256);
	asm volatile("rep movsb" : "+S"(s), "+D"(t), "+c"(n)::"memory");
	check_eq("rewritten by rep movsb", call_code(256), 0x12345678);
	/* Written through the stack. */
	asm volatile(
		"mov %%esp, %%ebx\n\tmov %0, %%esp\n\tpushl $0x909090c3\n\tpushl $0x000000b8\n\tmov %%ebx, "
		"%%esp" ::"r"(code + 512 + 8)
		: "ebx", "memory");
	code[513] = 9;
	check_eq("rewritten by push", call_code(512) & 0xff, 9);
}

static void features(void)
{
	u32 r[4], v, ok;

	group("cpuid");
	cpuid(0, 0, r);
	check_range("highest leaf", r[0], 1, 0xff);
	check("the maker is printable", (r[1] & 0x80808080) == 0 && (r[1] & 0x60606060));
	u32 max = r[0];
	cpuid(0x80000000, 0, r);
	check_range("highest extended leaf", r[0], 0x80000001, 0x800000ff);
	cpuid(1, 0, r);
	check_mask("FPU, TSC, MSR, CX8, CMOV, MMX, FXSR, SSE, SSE2", r[3], 0x07808131, 0x07808131);
	if (r[2] & 1 << 30) {
		ok = 0;
		for (int i = 0; i < 100; i++) {
			bool cf;
			asm volatile("rdrand %0" : "=r"(v), "=@ccc"(cf));
			ok += cf;
		}
		check("rdrand succeeds", ok > 0);
	} else {
		FAULT("rdrand not offered", UD, 0, "rdrand %%eax", ::: "eax");
	}
	if (max >= 7 && cpu_features_7_ebx & 1 << 18) {
		ok = 0;
		for (int i = 0; i < 10000 && !ok; i++) {
			bool cf;
			asm volatile("rdseed %0" : "=r"(v), "=@ccc"(cf));
			ok += cf;
		}
		check("rdseed succeeds", ok > 0);
	} else {
		FAULT("rdseed not offered", UD, 0, "rdseed %%eax", ::: "eax");
	}
	if (r[2] & 1 << 23) {
		asm("popcnt %1, %0" : "=r"(v) : "r"(0xf0f00001));
		check_eq("popcnt", v, 9);
	}
	if (r[2] & 1 << 22) {
		asm("movbe %1, %0" : "=r"(v) : "m"((u32){0x11223344}));
		check_eq("movbe", v, 0x44332211);
	} else {
		FAULT("movbe not offered", UD, 0, "movbe %0, %%eax", ::"m"(buffer) : "eax");
	}
	if (r[2] & 1 << 20) {
		asm("crc32l %1, %0" : "=r"(v) : "r"(0x12345678), "0"(0));
		check_eq("crc32", v, 0xfa745634);
	}
	if (cpu_features_7_ebx & 1 << 3) {
		asm("tzcnt %1, %0" : "=r"(v) : "r"(0));
		check_eq("tzcnt of 0", v, 32);
		asm("andn %2, %1, %0" : "=r"(v) : "r"(0xff00), "r"(0xffff));
		check_eq("andn", v, 0xff);
	} else {
		asm("tzcnt %1, %0" : "=r"(v) : "r"(8));
		check_eq("tzcnt not offered is bsf", v, 3);
	}
	if (cpu_features_7_ebx & 1 << 8) {
		asm("pdep %2, %1, %0" : "=r"(v) : "r"(5), "r"(0xf0f));
		check_eq("pdep", v, 5);
		asm("mulx %2, %0, %1" : "=r"(v), "=r"(ok) : "r"(0x10000), "d"(0x10000));
		check_eq("mulx", (u64)ok << 32 | v, 0x100000000);
	}
	if (cpu_features_7_ebx & 1 << 19) {
		bool cf;
		asm("stc\n\tadcx %2, %0" : "=r"(v), "=@ccc"(cf) : "r"(-1), "0"(0));
		check_eq("adcx", (u64)cf << 32 | v, 0x100000000);
	}
	if (cpu_features_8_ecx & 1 << 5) {
		asm("lzcnt %1, %0" : "=r"(v) : "r"(1));
		check_eq("lzcnt", v, 31);
	}
	if (cpu_features_1_ecx & 1 << 3) {
		FAULT("monitor with ecx not 0", GP, 0, "monitor", ::"a"(buffer), "c"(1), "d"(0));
		NOFAULT("monitor", "monitor", ::"a"(buffer), "c"(0), "d"(0));
	} else {
		FAULT("monitor not offered", UD, 0, "monitor", ::"a"(buffer), "c"(0), "d"(0));
		FAULT("mwait not offered", UD, 0, "mwait", ::"a"(0), "c"(0));
	}
	if (cpu_features_1_edx & 1 << 19)
		NOFAULT("clflush", "clflush %0", ::"m"(buffer));
	if (!(cpu_features_8_edx & 1 << 27))
		FAULT("rdtscp not offered", UD, 0, "rdtscp", ::: "eax", "ecx", "edx");
	if (!(cpu_features_7_ebx & 1 << 11))
		FAULT("xbegin not offered", UD, 0, ".byte 0xc7, 0xf8, 0, 0, 0, 0", ::: "eax");
	if (!(cpu_features_1_ecx & 1 << 5)) {
		FAULT("vmxon not offered", UD, 0, "vmxon %0", ::"m"(buffer));
		FAULT("vmread not offered", UD, 0, "vmread %%eax, %%ecx", ::: "ecx");
	}
	if (!(cpu_features_8_ecx & 1 << 2))
		FAULT("vmrun not offered", UD, 0, ".byte 0x0f, 0x01, 0xd8", ::"a"(buffer));
	FAULT("rsm outside SMM", UD, 0, "rsm", ::);
	FAULT("getsec not offered", UD, 0, "getsec", ::"a"(0) : "ebx", "ecx");
	asm volatile("mov $0xffffffff, %%eax\n\tcpuid" : "=a"(v)::"ebx", "ecx", "edx");
	NOFAULT("a leaf beyond the last is no fault", "cpuid", ::"a"(0x7fffffff), "c"(0)
		: "ebx", "edx");
}

int main(void)
{
	flags();
	memory_forms();
	strings();
	interrupted_string();
	self_modifying();
	features();
	return 0;
}
