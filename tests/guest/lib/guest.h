/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime under every guest test image.
 *
 * An image is one C file (32-bit or 64-bit) linked with this runtime at 1 MiB and started by any
 * Multiboot 1 loader. It runs checks and prints one TAP line each on COM1, then leaves through
 * port 0xf4: 0x10 when all passed, 0x11 otherwise.
 *
 * Two ways to run code under test:
 *  - CATCH(asm...) runs in place, in ring 0; an exception comes back here instead of being fatal.
 *  - run(&regs) enters any ring or mode through IRET and returns at the first exception. A piece
 *    of code (SNIP) normally ends with INT3.
 * Either way the exception is in `trap` afterwards (trap.r.vec == NOTRAP if none happened).
 */
#ifndef GUEST_H
#define GUEST_H

#include "selectors.h"
#include <stdbool.h>
#include <stddef.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long ulong;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define STR2(x) #x
#define STR(x) STR2(x)

/* Exception vectors. */
enum {
	DE,
	DB,
	NMI,
	BP,
	OF,
	BR,
	UD,
	NM,
	DF,
	TS = 10,
	NP,
	SS,
	GP,
	PF,
	MF = 16,
	AC,
	MC,
	XM,
	NOTRAP = 0xffff,
};

/* EFLAGS. */
enum {
	FL_CF = 1,
	FL_PF = 4,
	FL_AF = 0x10,
	FL_ZF = 0x40,
	FL_SF = 0x80,
	FL_TF = 0x100,
	FL_IF = 0x200,
	FL_DF = 0x400,
	FL_OF = 0x800,
	FL_IOPL3 = 0x3000,
	FL_NT = 0x4000,
	FL_RF = 0x10000,
	FL_VM = 0x20000,
	FL_AC = 0x40000,
	FL_VIF = 0x80000,
	FL_VIP = 0x100000,
	FL_ID = 0x200000,
};

enum {
	CR0_PE = 1,
	CR0_MP = 2,
	CR0_EM = 4,
	CR0_TS = 8,
	CR0_ET = 0x10,
	CR0_NE = 0x20,
	CR0_WP = 0x10000,
	CR0_AM = 0x40000,
	CR0_NW = 0x20000000,
	CR0_CD = 0x40000000,
};
#define CR0_PG 0x80000000u

enum {
	CR4_VME = 1,
	CR4_PVI = 2,
	CR4_TSD = 4,
	CR4_DE = 8,
	CR4_PSE = 0x10,
	CR4_PAE = 0x20,
	CR4_MCE = 0x40,
	CR4_PGE = 0x80,
	CR4_PCE = 0x100,
	CR4_OSFXSR = 0x200,
	CR4_OSXMMEXCPT = 0x400,
	CR4_UMIP = 0x800,
	CR4_FSGSBASE = 0x10000,
	CR4_PCIDE = 0x20000,
	CR4_OSXSAVE = 0x40000,
	CR4_SMEP = 0x100000,
	CR4_SMAP = 0x200000,
	CR4_PKE = 0x400000,
};

enum {
	MSR_APIC_BASE = 0x1b,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_PAT = 0x277,
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_FMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
enum { EFER_SCE = 1, EFER_LME = 0x100, EFER_LMA = 0x400, EFER_NXE = 0x800 };

/* Page-fault error code. */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_R = 8, PF_I = 16 };

/* Page-table entries. */
enum {
	PTE_P = 1,
	PTE_W = 2,
	PTE_U = 4,
	PTE_PWT = 8,
	PTE_PCD = 0x10,
	PTE_A = 0x20,
	PTE_D = 0x40,
	PTE_PS = 0x80,
	PTE_G = 0x100,
};
#define PTE_NX (1ull << 63)

#ifdef __x86_64__
/* The entries of 512 pages from FAR_BASE on, where there is nothing else; they decide what user code may do. */
#define FAR_BASE 0x0000500000000000ul
u64 *far_table(void);
#endif

/* What the exception stubs leave on the stack (trap.S), and what run() starts from. */
struct regs {
#ifdef __x86_64__
	ulong es, ds, r15, r14, r13, r12, r11, r10, r9, r8;
	ulong di, si, bp, bx, dx, cx, ax;
	ulong vec, err, ip, cs, fl, sp, ss;
#else
	ulong gs, fs, es, ds;
	ulong di, si, bp, popa_sp, bx, dx, cx, ax;
	ulong vec, err, ip, cs, fl, sp, ss;
	ulong ves, vds, vfs, vgs;
#endif
};

struct trap {
	struct regs r; /* .sp is the interrupted stack pointer, whatever the ring */
	ulong cr2, dr6;
	ulong frame; /* address of the error code on the handler's stack */
};

extern struct trap trap;
extern ulong want_ip;
extern u64 gdt[];
extern u32 mb_magic, mb_info;
extern char trap_stack_top[], user_stack_top[], low_start[], low_end[], low_load[];
extern char exit_stub[]; /* an INT3, for code that returns */

int catch_set(void) __attribute__((returns_twice));
void catch_throw(void) __attribute__((noreturn));
void catch_end(void);
extern volatile bool catching;

#define CATCH(...)                                                                                 \
	do {                                                                                       \
		if (!catch_set()) {                                                                \
			__VA_ARGS__;                                                               \
			catch_end();                                                               \
		}                                                                                  \
	} while (0)

/* In inline assembly: the next instruction is the one whose address the fault must report. */
#ifdef __x86_64__
#define HERE "movq $77f, want_ip\n77: "
#else
#define HERE "movl $77f, want_ip\n77: "
#endif

/* One instruction that must fault with this vector and error code, at its own address. */
#define FAULT(name, vector, error, insn, ...)                                                      \
	do {                                                                                       \
		CATCH(asm volatile(HERE insn __VA_ARGS__));                                        \
		check_trap(name, vector, error, want_ip);                                          \
	} while (0)

/* Code that must not fault. */
#define NOFAULT(name, insn, ...)                                                                   \
	do {                                                                                       \
		CATCH(asm volatile(HERE insn __VA_ARGS__));                                        \
		check_trap(name, NOTRAP, 0, 0);                                                    \
	} while (0)

/* Code under test for run(); SNIP16 goes below 64 KiB so that a 16-bit IP reaches it. */
#define SNIP(name, body)                                                                           \
	extern char name[];                                                                        \
	asm(".pushsection .text\n.globl " #name "\n" #name ":\n" body "\n.popsection")
#ifdef __x86_64__
#define NATIVE ".code64\n"
#else
#define NATIVE ".code32\n"
#endif
#define SNIP16(name, body)                                                                         \
	extern char name[];                                                                        \
	asm(".pushsection .low,\"awx\"\n.code16\n.globl " #name "\n" #name ":\n" body "\n" NATIVE  \
	    ".popsection")
#define SNIP32(name, body)                                                                         \
	extern char name[];                                                                        \
	asm(".pushsection .text\n.code32\n.globl " #name "\n" #name ":\n" body "\n" NATIVE         \
	    ".popsection")

/*
 * A handler for one vector, called before anything else; true if it dealt with the event and the
 * interrupted code goes on. Interrupts and single-step tests use it.
 */
typedef bool trap_hook_fn(struct regs *r);
extern trap_hook_fn *volatile trap_hook[256];

/* Modes for regs_init(). */
enum mode { RING0, RING3, RING0_16, RING3_16, V86, RING0_32, RING3_32, RING1, RING2 };
void regs_init(struct regs *r, enum mode mode, const void *ip);
int run(struct regs *r); /* the vector that ended it */

/* TAP. The group is the part of the name before the colon. */
void group(const char *name);
void check(const char *name, bool ok);
void check_eq(const char *name, u64 got, u64 want);
void check_mask(const char *name, u64 got, u64 want, u64 mask);
void check_range(const char *name, u64 got, u64 low, u64 high);
void check_trap(const char *name, ulong vec, ulong err, ulong ip);
void check_pf(const char *name, ulong err, ulong cr2);
void skip(const char *name, const char *reason);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void finish(void) __attribute__((noreturn));
void bail(const char *why) __attribute__((noreturn));

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
size_t strlen(const char *s);

/* Descriptors (desc.c). */
void gdt_set(u32 selector, u32 base, u32 limit, u32 access, u32 flags);
u64 desc_make(u32 base, u32 limit, u32 access, u32 flags);
void gate_set(u32 vector, u32 selector, const void *handler, u32 type_dpl, u32 ist);
void gate_reset(u32 vector);
void tss_load(void);
void idt_load(void);
extern u8 idt[];
extern char trap_stubs[];
extern u8 tss[]; /* TSS_SIZE bytes: the TSS proper, then an I/O bitmap */
#define TSS_SIZE (104 + 8192 + 1)
#define TSS_IOMAP 104

/* Interrupt controllers and clocks (timer.c, apic.c). */
void pic_init(u8 mask_master, u8 mask_slave); /* vectors 0x20 and 0x28 */
void pic_eoi(int irq);
u32 acpi_table(const char signature[4]); /* physical address, or 0 */
u16 pmtimer_port(void);			 /* or 0 */
u32 pmtimer_read(void);
void delay_us(u32 us); /* by the PM timer if there is one, else by the PIT */
u64 pmtimer_to_us(u32 ticks);
u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 value);
void apic_enable(void);
bool wait_for(volatile u32 *value, u32 want, u32 timeout_ms); /* value >= want */
u32 ioapic_read(u32 reg);
void ioapic_write(u32 reg, u32 value);
void ioapic_route(u32 pin, u64 entry);

extern u32 cpu_features_1_ecx, cpu_features_1_edx, cpu_features_7_ebx, cpu_features_7_ecx;
extern u32 cpu_features_8_ecx, cpu_features_8_edx;
extern bool cpu_is_amd;
void cpu_read_features(void);

static inline void outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outw(u16 port, u16 v)
{
	asm volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outl(u16 port, u32 v)
{
	asm volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
static inline u8 inb(u16 port)
{
	u8 v;
	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline u16 inw(u16 port)
{
	u16 v;
	asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline u32 inl(u16 port)
{
	u32 v;
	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
	asm volatile("cpuid"
		     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
		     : "a"(leaf), "c"(sub));
}
static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;
	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (u64)hi << 32 | lo;
}
static inline void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" ::"c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}
static inline u64 rdtsc(void)
{
	u32 lo, hi;
	asm volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
	return (u64)hi << 32 | lo;
}
#define CR_FUNCS(n)                                                                                \
	static inline ulong read_cr##n(void)                                                       \
	{                                                                                          \
		ulong v;                                                                           \
		asm volatile("mov %%cr" #n ", %0" : "=r"(v)::"memory");                            \
		return v;                                                                          \
	}                                                                                          \
	static inline void write_cr##n(ulong v)                                                    \
	{                                                                                          \
		asm volatile("mov %0, %%cr" #n ::"r"(v) : "memory");                               \
	}
CR_FUNCS(0)
CR_FUNCS(2)
CR_FUNCS(3)
CR_FUNCS(4)
#define DR_FUNCS(n)                                                                                \
	static inline ulong read_dr##n(void)                                                       \
	{                                                                                          \
		ulong v;                                                                           \
		asm volatile("mov %%db" #n ", %0" : "=r"(v)::"memory");                            \
		return v;                                                                          \
	}                                                                                          \
	static inline void write_dr##n(ulong v)                                                    \
	{                                                                                          \
		asm volatile("mov %0, %%db" #n ::"r"(v) : "memory");                               \
	}
DR_FUNCS(0)
DR_FUNCS(1)
DR_FUNCS(2)
DR_FUNCS(3)
DR_FUNCS(6)
DR_FUNCS(7)
static inline ulong read_flags(void)
{
	ulong v;
	asm volatile("pushf\n\tpop %0" : "=r"(v)::"memory");
	return v;
}
static inline void write_flags(ulong v)
{
	asm volatile("push %0\n\tpopf" ::"r"(v) : "memory", "cc");
}
static inline void invlpg(const volatile void *p)
{
	asm volatile("invlpg (%0)" ::"r"(p) : "memory");
}
static inline void sti(void)
{
	asm volatile("sti\n\tnop" ::: "memory");
}
static inline void cli(void)
{
	asm volatile("cli" ::: "memory");
}
static inline void pause(void)
{
	asm volatile("pause" ::: "memory");
}

#endif
