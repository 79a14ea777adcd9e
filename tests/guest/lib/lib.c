/* SPDX-License-Identifier: Apache-2.0 */
/* TAP on COM1, the exception catcher, and the way out. */
#include "guest.h"
#include <stdarg.h>

struct trap trap;
ulong want_ip;
volatile bool catching;
trap_hook_fn *volatile trap_hook[256];

static const char *group_name = "main";
static u32 checks, failures;

u32 cpu_features_1_ecx, cpu_features_1_edx, cpu_features_7_ebx, cpu_features_7_ecx;
u32 cpu_features_8_ecx, cpu_features_8_edx;
bool cpu_is_amd;

extern int main(void);
void lib_main(void);
void trap_entry(struct regs *r);
void catch_begin(void);
void enter(struct regs *r) __attribute__((noreturn));

void *memcpy(void *to, const void *from, size_t bytes)
{
	u8 *t = to;
	const u8 *f = from;

	while (bytes--)
		*t++ = *f++;
	return to;
}

void *memset(void *to, int value, size_t bytes)
{
	u8 *t = to;

	while (bytes--)
		*t++ = value;
	return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
	const u8 *x = a, *y = b;

	for (; bytes--; x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

/* COM1 by polling: LSR bit 5, transmitter holding register empty (PC16550D data sheet, 8.6.3). */
static void put(char c)
{
	while (!(inb(0x3fd) & 0x20))
		;
	outb(0x3f8, c);
}

static void put_string(const char *s)
{
	while (*s)
		put(*s++);
}

static void put_hex(u64 v)
{
	int shift = 60;

	while (shift && !(v >> shift & 15))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		put("0123456789abcdef"[v >> shift & 15]);
}

static void put_decimal(u32 v)
{
	char text[11];
	int at = sizeof(text) - 1;

	text[at] = 0;
	do
		text[--at] = '0' + v % 10;
	while (v /= 10);
	put_string(text + at);
}

/* %s, %u, %x, %lx, %llx and nothing else. */
void say(const char *f, ...)
{
	va_list args;

	va_start(args, f);
	for (; *f; f++) {
		if (*f != '%') {
			put(*f);
			continue;
		}
		f++;
		if (*f == 's')
			put_string(va_arg(args, const char *));
		else if (*f == 'u')
			put_decimal(va_arg(args, u32));
		else if (*f == 'x')
			put_hex(va_arg(args, u32));
		else if (f[1] == 'x') {
			put_hex(va_arg(args, ulong));
			f++;
		} else {
			put_hex(va_arg(args, u64));
			f += 2;
		}
	}
	va_end(args);
}

void group(const char *name)
{
	group_name = name;
}

static void tap(const char *name, bool ok)
{
	checks++;
	failures += !ok;
	say("%s %u - %s: %s", ok ? "ok" : "not ok", checks, group_name, name);
}

void check(const char *name, bool ok)
{
	tap(name, ok);
	say("\n");
}

void check_eq(const char *name, u64 got, u64 want)
{
	tap(name, got == want);
	if (got != want)
		say(": got 0x%llx, want 0x%llx", got, want);
	say("\n");
}

void check_mask(const char *name, u64 got, u64 want, u64 mask)
{
	tap(name, (got & mask) == want);
	if ((got & mask) != want)
		say(": got 0x%llx (of 0x%llx), want 0x%llx under mask 0x%llx", got & mask, got,
		    want, mask);
	say("\n");
}

void check_range(const char *name, u64 got, u64 low, u64 high)
{
	bool ok = got >= low && got <= high;

	tap(name, ok);
	if (!ok)
		say(": got 0x%llx, want 0x%llx to 0x%llx", got, low, high);
	say("\n");
}

static const char *const vector_names[] = {
	"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9",
	"#TS", "#NP", "#SS", "#GP", "#PF", "#15", "#MF", "#AC", "#MC", "#XM",
};

static void say_trap(ulong vec, ulong err, ulong ip)
{
	if (vec == NOTRAP) {
		say("no exception");
		return;
	}
	if (vec < ARRAY_SIZE(vector_names))
		say("%s", vector_names[vec]);
	else
		say("vector 0x%lx", vec);
	say("(0x%lx)", err);
	if (ip)
		say(" at 0x%lx", ip);
}

/* The last exception: this vector, error code and, unless 0, address. NOTRAP: none. */
void check_trap(const char *name, ulong vec, ulong err, ulong ip)
{
	bool ok = trap.r.vec == vec &&
		  (vec == NOTRAP || (trap.r.err == err && (!ip || trap.r.ip == ip)));

	tap(name, ok);
	if (!ok) {
		say(": got ");
		say_trap(trap.r.vec, trap.r.err, trap.r.ip);
		if (trap.r.vec == PF)
			say(" cr2 0x%lx", trap.cr2);
		say(", want ");
		say_trap(vec, err, ip);
	}
	say("\n");
}

/* The last exception was a page fault with this error code and address, at want_ip unless 0. */
void check_pf(const char *name, ulong err, ulong cr2)
{
	bool ok = trap.r.vec == PF && trap.r.err == err && trap.cr2 == cr2 &&
		  (!want_ip || trap.r.ip == want_ip);

	tap(name, ok);
	if (!ok) {
		say(": got ");
		say_trap(trap.r.vec, trap.r.err, trap.r.ip);
		say(" cr2 0x%lx, want ", trap.cr2);
		say_trap(PF, err, want_ip);
		say(" cr2 0x%lx", cr2);
	}
	say("\n");
}

void skip(const char *name, const char *reason)
{
	tap(name, true);
	say(" # SKIP %s\n", reason);
}

static void leave(u8 value)
{
	while ((inb(0x3fd) & 0x60) != 0x60)
		;
	outb(0xf4, value);
	for (;;)
		asm volatile("cli\n\thlt");
}

void finish(void)
{
	say("1..%u\n", checks);
	leave(failures ? 0x11 : 0x10);
	__builtin_unreachable();
}

void bail(const char *why)
{
	say("Bail out! %s: %s\n", group_name, why);
	leave(0x11);
	__builtin_unreachable();
}

void catch_begin(void)
{
	trap.r.vec = NOTRAP;
	catching = true;
}

void catch_end(void)
{
	catching = false;
}

static void record(struct regs *r)
{
	u16 fs, gs;

	trap.cr2 = read_cr2();
	trap.dr6 = read_dr6();
	trap.frame = (ulong)&r->err;
#ifdef __x86_64__
	trap.r = *r;
	(void)fs;
	(void)gs;
	trap.r.ds &= 0xffff;
	trap.r.es &= 0xffff;
#else
	memcpy(&trap.r, r, offsetof(struct regs, sp));
	if (r->fl & FL_VM) {
		trap.r.sp = r->sp;
		trap.r.ss = r->ss & 0xffff;
		trap.r.ves = r->ves & 0xffff;
		trap.r.vds = r->vds & 0xffff;
		trap.r.vfs = r->vfs & 0xffff;
		trap.r.vgs = r->vgs & 0xffff;
	} else if (r->cs & 3) {
		trap.r.sp = r->sp;
		trap.r.ss = r->ss & 0xffff;
	} else {
		asm("mov %%ss, %0" : "=r"(trap.r.ss));
		trap.r.sp = (ulong)&r->sp;
	}
	fs = r->fs;
	gs = r->gs;
	trap.r.fs = fs;
	trap.r.gs = gs;
	trap.r.ds &= 0xffff;
	trap.r.es &= 0xffff;
#endif
	trap.r.cs &= 0xffff;
}

void trap_entry(struct regs *r)
{
	trap_hook_fn *hook = trap_hook[r->vec];

	if (hook && hook(r))
		return;
	record(r);
	if (catching) {
		catching = false;
		catch_throw();
	}
	say("# unexpected ");
	say_trap(r->vec, r->err, r->ip);
	say(" cs 0x%lx flags 0x%lx sp 0x%lx cr2 0x%lx ax 0x%lx\n", trap.r.cs, trap.r.fl, trap.r.sp,
	    trap.cr2, r->ax);
	bail("unexpected exception");
}

void regs_init(struct regs *r, enum mode mode, const void *ip)
{
	static const struct {
		u16 cs, ss;
		u32 flags;
	} modes[] = {
		[RING0] = {KCODE, KDATA, 0},
#ifdef __x86_64__
		[RING3] = {UCODE64 + 3, UDATA + 3, 0},
#else
		[RING3] = {UCODE32 + 3, UDATA + 3, 0},
#endif
		[RING0_16] = {KCODE16, KDATA16, 0},
		[RING3_16] = {UCODE16 + 3, UDATA16 + 3, 0},
		[V86] = {0, 0, FL_VM},
		[RING0_32] = {KCODE32, KDATA, 0},
		[RING3_32] = {UCODE32 + 3, UDATA + 3, 0},
		[RING1] = {R1CODE + 1, R1DATA + 1, 0},
		[RING2] = {R2CODE + 2, R2DATA + 2, 0},
	};

	memset(r, 0, sizeof(*r));
	r->cs = modes[mode].cs;
	r->ss = modes[mode].ss;
	r->ds = r->es = mode == V86 ? 0 : modes[mode].ss;
	r->fl = modes[mode].flags | 2;
	r->ip = (ulong)ip;
	r->sp = mode == V86 || mode == RING0_16 || mode == RING3_16 ? 0x7f00
								    : (ulong)user_stack_top;
}

static void copy_and_enter(const struct regs *r)
{
	static u8 frame_stack[4096] __attribute__((aligned(16)));
	struct regs *frame = (void *)(frame_stack + sizeof(frame_stack) - sizeof(*r) - 16);
	size_t bytes = sizeof(*r);

#ifndef __x86_64__
	if (!(r->fl & FL_VM) && !(r->cs & 3)) {
		bytes = offsetof(struct regs, sp);
		frame = (void *)(r->sp - bytes);
	}
#endif
	memcpy(frame, r, bytes);
	enter(frame);
}

/*
 * Enter through IRET with the given registers; return at the first exception that no hook takes.
 * In a 32-bit image, ring 0 is entered on the flat stack at r->sp.
 */
int run(struct regs *r)
{
	if (!catch_set())
		copy_and_enter(r);
	return trap.r.vec;
}

void cpu_read_features(void)
{
	u32 r[4], max;

	cpuid(0, 0, r);
	max = r[0];
	cpu_is_amd = r[1] == 0x68747541 || r[1] == 0x6f677948; /* "Auth"enticAMD, "Hygo"nGenuine */
	cpuid(1, 0, r);
	cpu_features_1_ecx = r[2];
	cpu_features_1_edx = r[3];
	if (max >= 7) {
		cpuid(7, 0, r);
		cpu_features_7_ebx = r[1];
		cpu_features_7_ecx = r[2];
	}
	cpuid(0x80000000, 0, r);
	if (r[0] >= 0x80000001) {
		cpuid(0x80000001, 0, r);
		cpu_features_8_ecx = r[2];
		cpu_features_8_edx = r[3];
	}
}

void lib_main(void)
{
	/* 115200 8N1, no interrupts. */
	outb(0x3f9, 0);
	outb(0x3fb, 0x83);
	outb(0x3f8, 1);
	outb(0x3f9, 0);
	outb(0x3fb, 3);
	outb(0x3fc, 3);

	asm volatile("lldt %w0" ::"r"(0)); /* at reset its limit is 0xffff */
	tss_load();
	idt_load();
	cpu_read_features();
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	main();
	finish();
}

#ifdef __x86_64__
u64 *far_table(void)
{
	extern u64 boot_pml4[];
	static u64 pdpt[512] __attribute__((aligned(4096)));
	static u64 directory[512] __attribute__((aligned(4096)));
	static u64 table[512] __attribute__((aligned(4096)));
	const u64 all = PTE_P | PTE_W | PTE_U;

	boot_pml4[FAR_BASE >> 39] = (ulong)pdpt | all;
	pdpt[0] = (ulong)directory | all;
	directory[0] = (ulong)table | all;
	return table;
}
#endif
