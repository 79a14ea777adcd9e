/* SPDX-License-Identifier: Apache-2.0 */
/*
 * More than one CPU: start-up, interrupts between CPUs, atomic operations, memory ordering and TLB
 * shootdown (Intel SDM volume 3, chapters 8 and 10). Run with two CPUs or more.
 */
#include "guest.h"

#define START_PAGE 0x08 /* the low section's first page */
#define ROUNDS 20000

/* The application processor's first instructions, in real mode at 0x800:0. */
asm(".pushsection .low.first, \"awx\"\n"
    ".code16\n"
    "ap_start:\n"
    "cli\n"
    "mov %cs, %ax\n"
    "mov %ax, %ds\n"
    "mov %ax, ap_cs - ap_start\n"
    "mov %ebx, ap_scratch - ap_start\n"
    "mov %edx, ap_edx - ap_start\n"
    "mov %cr0, %eax\n"
    "mov %eax, ap_cr0 - ap_start\n"
    "mov %cr4, %eax\n"
    "mov %eax, ap_cr4 - ap_start\n"
    "mov %sp, ap_sp - ap_start\n"
    "mov %ss, ap_ss - ap_start\n"
    "mov $0x7c00, %sp\n"
    "mov $0x700, %ax\n"
    "mov %ax, %ss\n"
    "pushfl\n"
    "popl ap_flags - ap_start\n"
    "mov $0xc0000080, %ecx\n"
    "rdmsr\n"
    "mov %eax, ap_efer - ap_start\n"
    "sidt ap_idt - ap_start\n"
    "lgdtl gdt_low - ap_start\n"
    "mov %cr0, %eax\n"
    "and $0x9fffffff, %eax\n"
    "or $1, %eax\n"
    "mov %eax, %cr0\n"
    "ljmpl $" STR(
	    KCODE32) ", $1f\n"
		     ".code32\n"
		     "1: mov $" STR(
			     KDATA) ", %ecx\n"
				    "mov %ecx, %ds\n"
				    "mov %ecx, %es\n"
				    "mov %ecx, %ss\n"
				    "mov $ap_stack_top, %esp\n"
				    "call long_mode_on\n"
				    "ljmp $" STR(
					    KCODE) ", $2f\n"
						   ".code64\n"
						   "2: mov $ap_stack_top, %rsp\n"
						   "call ap_main\n"
						   "3: hlt\n"
						   "jmp 3b\n"
						   ".balign 8\n"
						   ".globl ap_cs, ap_cr0, ap_cr4, ap_flags, ap_efer, ap_idt, ap_edx, ap_sp, ap_ss\n"
						   "gdt_low: .word " STR(
							   GDT_SLOTS) " * 8 - 1\n"
								      ".long gdt\n"
								      "ap_cs: .word 0\n"
								      "ap_scratch: .long 0\n"
								      "ap_edx: .long 0\n"
								      "ap_cr0: .long 0\n"
								      "ap_cr4: .long 0\n"
								      "ap_flags: .long 0\n"
								      "ap_efer: .long 0\n"
								      "ap_sp: .word 0\n"
								      "ap_ss: .word 0\n"
								      "ap_idt: .skip 10\n"
								      ".popsection\n"
								      ".pushsection .bss\n"
								      ".balign 16\n"
								      ".skip 16384\n"
								      "ap_stack_top:\n"
								      ".popsection\n");

extern volatile u16 ap_cs, ap_sp, ap_ss, ap_idt;
extern volatile u32 ap_cr0, ap_cr4, ap_flags, ap_efer, ap_edx;

typedef void job_fn(void);

static job_fn *volatile job;
static volatile u32 ap_starts, ap_jobs_done, ap_id, go_flag;
static volatile u32 ipis[256], ipi_on_ap, nmis_on_ap;
static u32 boot_id, target;

void ap_main(void);

static u32 my_id(void)
{
	return apic_read(0x20) >> 24;
}

/* The other CPU: loads what the boot processor set up, then runs jobs, halted in between. */
void ap_main(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) idtr = {4095, (ulong)idt};
	static u8 ap_tss[104];

	asm volatile("lidt %0" ::"m"(idtr));
	gdt_set(TEST_SEL, (ulong)ap_tss, 103, 0x89, 0);
	gdt[TEST_SEL / 8 + 1] = (ulong)ap_tss >> 32;
	asm volatile("ltr %w0" ::"r"(TEST_SEL));
	apic_write(0xf0, 0x1ff);
	ap_id = my_id();
	ap_starts++;
	for (;;) {
		job_fn *todo;

		cli();
		todo = job;
		if (!todo) {
			asm volatile("sti\n\thlt" ::: "memory");
			continue;
		}
		job = NULL;
		todo();
		ap_jobs_done++;
	}
}

static bool on_ipi(struct regs *r)
{
	if (my_id() != boot_id)
		ipi_on_ap++;
	__atomic_fetch_add(&ipis[r->vec], 1, __ATOMIC_SEQ_CST);
	apic_write(0xb0, 0);
	return true;
}

static bool on_nmi(struct regs *r)
{
	(void)r;
	if (my_id() != boot_id)
		nmis_on_ap++;
	return true;
}

static void ipi(u32 destination, u32 command)
{
	while (apic_read(0x300) & 0x1000)
		pause();
	apic_write(0x310, destination << 24);
	apic_write(0x300, command);
}

/* Start a job on the other CPU: it sleeps in HLT until an interrupt. */
static void ap_run(job_fn *fn)
{
	job = fn;
	ipi(target, 0x60);
}

static bool ap_wait(u32 done)
{
	return wait_for(&ap_jobs_done, done, 30000);
}

static void start_ap(bool twice)
{
	ipi(target, 0xc500);
	delay_us(10000);
	ipi(target, 0x8500);
	delay_us(10000);
	ipi(target, 0x600 | START_PAGE);
	delay_us(1000);
	if (twice)
		ipi(target, 0x600 | START_PAGE);
}

/* The first enabled local APIC of the MADT that is not this one; -1 if there is none. */
static u32 find_ap(void)
{
	u8 *madt = (u8 *)(ulong)acpi_table("APIC");

	if (madt)
		for (u8 *e = madt + 44; e < madt + *(u32 *)(madt + 4) && e[1]; e += e[1])
			if (e[0] == 0 && e[4] & 1 && e[3] != boot_id)
				return e[3];
	return -1;
}

static void startup(void)
{
	u32 r[4];

	group("startup");
	memset((void *)&ap_cs, 0xff, 2);
	start_ap(true);
	check("INIT and SIPI start the other CPU", wait_for(&ap_starts, 1, 30000));
	if (!ap_starts)
		bail("the other CPU does not run");
	delay_us(20000);
	check_eq("a second SIPI does not start it again", ap_starts, 1);
	check_eq("its APIC ID", ap_id, target);
	check_eq("real mode, cs is the vector", ap_cs, START_PAGE << 8);
	check_mask("CR0: PE and PG clear, ET set", ap_cr0, CR0_ET, CR0_PE | CR0_PG | CR0_ET);
	check_mask("CR0: CD and NW set", ap_cr0, CR0_CD | CR0_NW, CR0_CD | CR0_NW);
	check_eq("CR4", ap_cr4, 0);
	check_eq("EFLAGS", ap_flags & ~0x10u, 2);
	check_eq("EFER", ap_efer, 0);
	check_eq("IDT limit", ap_idt, 0xffff);
	check_eq("ss and sp", (u32)ap_ss << 16 | ap_sp, 0);
	cpuid(1, 0, r);
	check_eq("edx is the family, model and stepping", ap_edx & 0x0fff0000, r[0] & 0x0fff0000);
}

static volatile u64 ap_apic_base, ap_tsc;

static void job_identity(void)
{
	ap_apic_base = rdmsr(MSR_APIC_BASE);
	ap_tsc = rdtsc();
}

static volatile u32 spin_ipis_seen;

static void job_sti_loop(void)
{
	go_flag = 1;
	sti();
	while (go_flag == 1)
		pause();
	cli();
	spin_ipis_seen = ipi_on_ap;
}

static void interrupts(void)
{
	u32 done = ap_jobs_done;

	group("ipi");
	ap_run(job_identity);
	check("an IPI wakes it from HLT", ap_wait(++done));
	check_mask("it is not the boot processor", ap_apic_base, 0x800, 0x900);
	go_flag = 0;
	ap_run(job_sti_loop);
	wait_for(&go_flag, 1, 30000);
	u32 before = ipi_on_ap, here = ipis[0x61];
	ipi(target, 0x61);
	check("interrupts a running loop", wait_for(&ipi_on_ap, before + 1, 30000));
	apic_write(0x300, 0xc0062);
	check("all but self", wait_for(&ipis[0x62], 1, 30000));
	delay_us(10000);
	check_eq("all but self: not here", ipis[0x62], 1);
	apic_write(0x300, 0x80063);
	sti();
	check("all with self: both", wait_for(&ipis[0x63], 2, 30000));
	cli();
	ipi(0xff, 0x64);
	sti();
	check("broadcast: both", wait_for(&ipis[0x64], 2, 30000));
	cli();
	check_eq("a physical destination: only there", ipis[0x61], here + 1);
	nmis_on_ap = 0;
	trap_hook[NMI] = on_nmi;
	ipi(target, 0x400);
	check("NMI", wait_for(&nmis_on_ap, 1, 30000));
	u32 sum = ipis[0x65];
	apic_write(0xe0, 0xffffffff);
	apic_write(0xd0, 0x01000000);
	for (u32 i = 0; i < 200; i++) {
		ipi(target, 0x65);
		wait_for(&ipis[0x65], sum + i + 1, 30000);
	}
	check_eq("200 in a row, none lost", ipis[0x65] - sum, 200);
	go_flag = 2;
	check("the loop ends", ap_wait(++done));
}

/* Both CPUs do the same work; the sums must be exact. */
static volatile u32 counters[16] __attribute__((aligned(64)));
static volatile u64 wide __attribute__((aligned(16)));
static struct {
	volatile u64 lo, hi;
} pair __attribute__((aligned(16)));
static u8 split[128] __attribute__((aligned(64)));
static volatile u32 lock_word;
static u32 guarded;
static volatile u32 barrier;

static void meet(u32 n)
{
	__atomic_fetch_add(&barrier, 1, __ATOMIC_SEQ_CST);
	while (barrier < n)
		pause();
}

static void hammer(void)
{
	u32 one;

	meet(2);
	for (u32 i = 0; i < ROUNDS; i++) {
		asm volatile("lock incl %0" : "+m"(counters[0]));
		asm volatile("lock addl $3, %0" : "+m"(counters[1]));
		one = 1;
		asm volatile("lock xaddl %0, %1" : "+r"(one), "+m"(counters[2]));
		u32 old = counters[3];
		bool z;
		do
			asm volatile("lock cmpxchgl %3, %2"
				     : "=@ccz"(z), "+a"(old), "+m"(counters[3])
				     : "r"(old + 1));
		while (!z);
		asm volatile("lock subl $1, %0" : "+m"(counters[4]));
		asm volatile("lock decw %0" : "+m"(counters[5]));
		asm volatile("lock addb $1, %0" : "+m"(counters[6]));
		asm volatile("lock xorl $1, %0" : "+m"(counters[7]));
		asm volatile("lock adcl $1, %0" : "+m"(counters[8]) : : "cc");
		asm volatile("lock addl $1, %0" : "+m"(*(u32 *)(split + 62)));
		u32 low = wide, high = wide >> 32;
		do
			asm volatile("lock cmpxchg8b %2"
				     : "=@ccz"(z), "+a"(low), "+m"(wide), "+d"(high)
				     : "b"(low + 1), "c"(high + (low == 0xffffffff)));
		while (!z);
	}
}

static void hammer16(void)
{
	meet(4);
	for (u32 i = 0; i < ROUNDS; i++) {
		u64 a = pair.lo, d = pair.hi;
		bool z;
		do
			asm volatile("lock cmpxchg16b %2"
				     : "=@ccz"(z), "+a"(a), "+m"(pair), "+d"(d)
				     : "b"(a + 1), "c"(d + 2));
		while (!z);
	}
}

static void hammer_lock(void)
{
	meet(6);
	for (u32 i = 0; i < ROUNDS; i++) {
		u32 v;
		for (;;) {
			v = 1;
			asm volatile("xchgl %0, %1" : "+r"(v), "+m"(lock_word)::"memory");
			if (!v)
				break;
			while (lock_word)
				pause();
		}
		guarded++;
		asm volatile("" ::: "memory");
		lock_word = 0;
	}
}

static void hammer_bits(void)
{
	meet(8);
	for (u32 i = 0; i < ROUNDS; i++) {
		bool c;
		do
			asm volatile("lock btsl $0, %1" : "=@ccc"(c), "+m"(lock_word)::"memory");
		while (c);
		guarded++;
		asm volatile("lock btrl $0, %0" : "+m"(lock_word)::"memory");
	}
}

static bool both(job_fn *fn)
{
	u32 done = ap_jobs_done + 1;

	ap_run(fn);
	fn();
	return ap_wait(done);
}

static void atomics(void)
{
	group("atomic");
	memset((void *)counters, 0, sizeof(counters));
	check("both CPUs finish", both(hammer));
	check_eq("lock inc", counters[0], 2 * ROUNDS);
	check_eq("lock add", counters[1], 6 * ROUNDS);
	check_eq("lock xadd", counters[2], 2 * ROUNDS);
	check_eq("lock cmpxchg", counters[3], 2 * ROUNDS);
	check_eq("lock sub", counters[4], (u32)(-2 * ROUNDS));
	check_eq("lock dec, 16 bits", counters[5], (u16)(-2 * ROUNDS));
	check_eq("lock add, 8 bits", counters[6], (u8)(2 * ROUNDS));
	check_eq("lock xor", counters[7], 0);
	check_range("lock adc", counters[8], 2 * ROUNDS, 4 * ROUNDS);
	check_eq("lock add over a cache line's end", *(u32 *)(split + 62), 2 * ROUNDS);
	check_eq("lock cmpxchg8b", wide, 2 * ROUNDS);
	if (cpu_features_1_ecx & 1 << 13) {
		both(hammer16);
		check_eq("lock cmpxchg16b, low half", pair.lo, 2 * ROUNDS);
		check_eq("lock cmpxchg16b, high half", pair.hi, 4 * ROUNDS);
	} else {
		barrier += 2;
		skip("lock cmpxchg16b", "no CMPXCHG16B");
	}
	guarded = 0;
	both(hammer_lock);
	check_eq("an xchg lock guards a plain counter", guarded, 2 * ROUNDS);
	guarded = 0;
	both(hammer_bits);
	check_eq("a bts lock does", guarded, 2 * ROUNDS);
}

/* Message passing: x86 keeps stores in order and loads in order (SDM 3, 8.2.2). */
static volatile u32 message __attribute__((aligned(64))), flag __attribute__((aligned(64)));
static volatile u32 stale, read_upto;

static void job_reader(void)
{
	for (u32 i = 1; i <= ROUNDS; i++) {
		while (flag < i)
			pause();
		if (message < i)
			stale++;
		read_upto = i;
	}
}

/* Dekker: with a locked instruction in between, not both may read 0. */
static volatile u32 x __attribute__((aligned(64))), y __attribute__((aligned(64)));
static volatile u32 seen_x[ROUNDS / 10], round_ap, round_bsp;

static void job_dekker(void)
{
	for (u32 i = 0; i < ROUNDS / 10; i++) {
		while (round_bsp <= i)
			pause();
		y = i + 1;
		asm volatile("mfence" ::: "memory");
		seen_x[i] = x;
		round_ap = i + 1;
	}
}

/* RDTSC waits for nothing before it (SDM 2, RDTSC): a fence keeps it behind the load of the turn. */
static u64 rdtsc_ordered(void)
{
	asm volatile("lfence" ::: "memory");
	return rdtsc();
}

static volatile u64 clock_here;
static volatile u32 clock_turn, clock_back;

static void job_clock(void)
{
	for (u32 i = 0; i < 2000; i++) {
		while (!(clock_turn & 1))
			pause();
		u64 now = rdtsc_ordered();
		clock_back += now < clock_here;
		clock_here = now;
		clock_turn++;
	}
}

static void ordering(void)
{
	u32 done = ap_jobs_done, both_zero = 0;

	group("order");
	ap_run(job_reader);
	for (u32 i = 1; i <= ROUNDS; i++) {
		message = i;
		flag = i;
		if (i % 64 == 0)
			while (read_upto + 64 < i)
				pause();
	}
	check("the reader keeps up", ap_wait(++done));
	check_eq("a message is there when its flag is", stale, 0);
	ap_run(job_dekker);
	for (u32 i = 0; i < ROUNDS / 10; i++) {
		round_bsp = i + 1;
		x = i + 1;
		asm volatile("mfence" ::: "memory");
		u32 seen_y = y;
		while (round_ap <= i)
			pause();
		if (seen_y < i + 1 && seen_x[i] < i + 1)
			both_zero++;
	}
	ap_wait(++done);
	check_eq("mfence keeps a store before a later load", both_zero, 0);
	ap_run(job_clock);
	clock_turn = 0;
	for (u32 i = 0; i < 2000; i++) {
		while (clock_turn & 1)
			pause();
		u64 now = rdtsc_ordered();
		clock_back += now < clock_here;
		clock_here = now;
		clock_turn++;
	}
	ap_wait(++done);
	check_eq("the TSC does not go back from CPU to CPU", clock_back, 0);
}

/* TLB shootdown: the other CPU keeps reading a page that is remapped under it. */
#define BASE 0x0000008000000000ul
extern u64 boot_pml4[];
static u64 pdpt[512] __attribute__((aligned(4096)));
static u64 directory[512] __attribute__((aligned(4096)));
static u64 table[512] __attribute__((aligned(4096)));
static u8 frames[2][4096] __attribute__((aligned(4096)));
static volatile u32 shot, shootdowns, wrong_after;
static volatile u32 reader_stop, reader_loops;

static bool on_shootdown(struct regs *r)
{
	(void)r;
	invlpg((void *)BASE);
	if (*(volatile u8 *)BASE != (shootdowns & 1 ? 0xbb : 0xaa))
		wrong_after++;
	shot++;
	apic_write(0xb0, 0);
	return true;
}

static void job_page_reader(void)
{
	sti();
	while (!reader_stop) {
		(void)*(volatile u8 *)BASE;
		reader_loops++;
	}
	cli();
}

static void shootdown(void)
{
	u32 done = ap_jobs_done;

	group("tlb");
	memset(frames[0], 0xaa, 4096);
	memset(frames[1], 0xbb, 4096);
	boot_pml4[1] = (ulong)pdpt | 7;
	pdpt[0] = (ulong)directory | 7;
	directory[0] = (ulong)table | 7;
	table[0] = (ulong)frames[0] | 7;
	write_cr3(read_cr3());
	trap_hook[0x70] = on_shootdown;
	ap_run(job_page_reader);
	wait_for(&reader_loops, 1, 30000);
	u32 lost = 0;
	for (u32 i = 1; i <= 200; i++) {
		shootdowns = i;
		*(volatile u64 *)table = (ulong)frames[i & 1] | 7;
		invlpg((void *)BASE);
		ipi(target, 0x70);
		if (!wait_for(&shot, i, 30000)) {
			lost++;
			break;
		}
	}
	reader_stop = 1;
	check("the reader ends", ap_wait(++done));
	check_eq("200 shootdowns by IPI", shot, 200 - lost);
	check_eq("after invlpg it sees the new page", wrong_after, 0);
}

/* Code written by one CPU and run by the other, which serializes in between (SDM 3, 8.1.3). */
static u8 patch[16] __attribute__((aligned(64)));
static volatile u32 patch_serial, patch_wrong, patch_ran;

static void job_patched(void)
{
	for (u32 i = 1; i <= 500; i++) {
		u32 r[4];
		ulong v;

		while (patch_serial < i)
			pause();
		cpuid(0, 0, r);
		asm volatile("call *%1" : "=a"(v) : "r"(patch) : "memory");
		patch_wrong += (u32)v != i;
		patch_ran = i;
	}
}

static void cross_modifying(void)
{
	u32 done = ap_jobs_done;

	group("code");
	patch[0] = 0xb8;
	patch[5] = 0xc3;
	ap_run(job_patched);
	for (u32 i = 1; i <= 500; i++) {
		*(volatile u32 *)(patch + 1) = i;
		patch_serial = i;
		while (patch_ran < i)
			pause();
	}
	check("the other CPU ran it 500 times", ap_wait(++done));
	check_eq("each time as it was last written", patch_wrong, 0);
}

/* The other CPU's A and D updates and this one's must not lose each other: both set bits by walks. */
static volatile u32 ad_lost;

static void job_toucher(void)
{
	for (u32 i = 0; i < 2000; i++) {
		meet(10 + i * 4);
		write_cr3(read_cr3());
		*(volatile u8 *)(BASE + 0x1000) = i;
		meet(12 + i * 4);
	}
}

static void accessed_dirty(void)
{
	u32 done = ap_jobs_done;

	table[1] = (ulong)frames[1] | 7;
	barrier = 8;
	ap_run(job_toucher);
	for (u32 i = 0; i < 2000; i++) {
		*(volatile u64 *)&table[1] = (ulong)frames[1] | 7;
		meet(10 + i * 4);
		write_cr3(read_cr3());
		(void)*(volatile u8 *)(BASE + 0x1000);
		meet(12 + i * 4);
		if ((*(volatile u64 *)&table[1] & 0x60) != 0x60)
			ad_lost++;
	}
	ap_wait(++done);
	check_eq("A by a read and D by a write at once: none lost", ad_lost, 0);
}

static void restart(void)
{
	u32 before = ap_starts;

	group("restart");
	ipi(target, 0xc500);
	delay_us(20000);
	u32 jobs = ap_jobs_done;
	job = job_identity;
	ipi(target, 0x60);
	delay_us(20000);
	check_eq("after INIT it takes no interrupts", ap_jobs_done, jobs);
	job = NULL;
	ap_cs = 0;
	start_ap(false);
	check("INIT and SIPI start it again", wait_for(&ap_starts, before + 1, 30000));
	check_eq("in real mode again", ap_cs, START_PAGE << 8);
	ap_run(job_identity);
	check("and it works", ap_wait(jobs + 1));
}

int main(void)
{
	for (int i = 0x60; i < 0x70; i++)
		trap_hook[i] = on_ipi;
	apic_enable();
	boot_id = my_id();
	target = find_ap();
	if (target == (u32)-1) {
		group("smp");
		skip("another CPU", "there is only one");
		return 0;
	}
	startup();
	interrupts();
	atomics();
	ordering();
	shootdown();
	cross_modifying();
	accessed_dirty();
	restart();
	return 0;
}
