/* SPDX-License-Identifier: Apache-2.0 */
/* 32-bit and PAE paging: rights, error codes, A and D, TLBs (Intel SDM volume 3, 4.3, 4.4, 4.6-4.10). */
#include "guest.h"

#define BASE 0x80000000u /* the test region: one page table */
#define BIG 0x90000000u	 /* a large page */

typedef u64 pae_entry;

u8 pages[4][4096] __attribute__((aligned(4096)));
static u32 directory[1024] __attribute__((aligned(4096)));
static u32 table[1024] __attribute__((aligned(4096)));
static pae_entry pdpt[4] __attribute__((aligned(32)));
static pae_entry pae_directory[4][512] __attribute__((aligned(4096)));
static pae_entry pae_table[512] __attribute__((aligned(4096)));
static bool pae;

/* Where the test region's entries are, in either format. */
static u64 entry_get(u32 page)
{
	return pae ? pae_table[page] : table[page];
}

static void entry_set(u32 page, u64 entry)
{
	if (pae)
		pae_table[page] = entry;
	else
		table[page] = entry;
	invlpg((void *)(BASE + page * 4096));
}

static u64 upper_get(u32 address)
{
	return pae ? pae_directory[address >> 30][address >> 21 & 511] : directory[address >> 22];
}

static void upper_set(u32 address, u64 entry)
{
	if (pae)
		pae_directory[address >> 30][address >> 21 & 511] = entry;
	else
		directory[address >> 22] = entry;
	write_cr3(read_cr3());
}

static u32 phys(u32 page)
{
	return (ulong)pages[page];
}

static volatile u8 *at(u32 page)
{
	return (u8 *)(BASE + page * 4096);
}

#define RW (PTE_P | PTE_W | PTE_U)

static void region_reset(void)
{
	upper_set(BASE, (pae ? (ulong)pae_table : (ulong)table) | RW);
	for (u32 i = 0; i < 4; i++) {
		entry_set(i, phys(i) | RW);
		pages[i][0] = 0xa0 + i;
	}
	entry_set(4, 0);
}

static void classic_on(void)
{
	write_cr4(read_cr4() | CR4_PSE);
	for (u32 i = 0; i < 1024; i++)
		directory[i] = i << 22 | RW | PTE_PS;
	write_cr3((ulong)directory);
	write_cr0(read_cr0() | CR0_PG);
	region_reset();
}

static void pae_on(void)
{
	write_cr0(read_cr0() & ~CR0_PG);
	pae = true;
	for (u32 i = 0; i < 4; i++) {
		pdpt[i] = (ulong)pae_directory[i] | PTE_P;
		for (u32 j = 0; j < 512; j++)
			pae_directory[i][j] = (i << 30 | j << 21) | RW | PTE_PS;
	}
	write_cr4(read_cr4() | CR4_PAE);
	write_cr3((ulong)pdpt);
	write_cr0(read_cr0() | CR0_PG);
	region_reset();
}

SNIP(u_read, "movb (%esi), %al\nint3");
SNIP(u_write, "movb %al, (%esi)\nint3");
SNIP(u_jmp, "jmp *%esi");

static void user(const char *code, volatile void *where)
{
	struct regs r;

	regs_init(&r, RING3, code);
	r.si = (ulong)where;
	want_ip = code == u_jmp ? (ulong)where : (ulong)code;
	run(&r);
}

static void kernel_read(volatile void *where)
{
	CATCH(asm volatile(HERE "movb (%0), %%al" ::"r"(where) : "eax"));
}

static void kernel_write(volatile void *where)
{
	CATCH(asm volatile(HERE "movb %%al, (%0)" ::"r"(where) : "memory"));
}

static void rights(void)
{
	group(pae ? "pae rights" : "rights");
	region_reset();
	check_eq("a mapped read", *at(1), 0xa1);
	*at(2) = 0x55;
	check_eq("a mapped write", pages[2][0], 0x55);
	kernel_read(at(4));
	check_pf("not present, read", 0, BASE + 0x4000);
	kernel_write(at(4) + 0x123);
	check_pf("not present, write", PF_W, BASE + 0x4123);
	user(u_read, at(4));
	check_pf("not present, user read", PF_U, BASE + 0x4000);
	user(u_write, at(4));
	check_pf("not present, user write", PF_U | PF_W, BASE + 0x4000);
	user(u_jmp, at(4));
	check_pf("not present, user fetch", PF_U | (pae && rdmsr(MSR_EFER) & EFER_NXE ? PF_I : 0),
		 BASE + 0x4000);
	entry_set(0, phys(0) | PTE_P | PTE_W);
	user(u_read, at(0));
	check_pf("supervisor page, user read", PF_U | PF_P, BASE);
	user(u_write, at(0) + 4095);
	check_pf("supervisor page, user write", PF_U | PF_P | PF_W, BASE + 4095);
	entry_set(0, phys(0) | PTE_P | PTE_U);
	user(u_write, at(0));
	check_pf("read-only page, user write", PF_U | PF_P | PF_W, BASE);
	user(u_read, at(0));
	check_trap("read-only page, user read", BP, 0, 0);
	write_cr0(read_cr0() & ~CR0_WP);
	kernel_write(at(0));
	check_trap("read-only page, supervisor write, WP clear", NOTRAP, 0, 0);
	write_cr0(read_cr0() | CR0_WP);
	kernel_write(at(0));
	check_pf("read-only page, supervisor write, WP set", PF_P | PF_W, BASE);
	write_cr0(read_cr0() & ~CR0_WP);
	user(u_write, at(0));
	check_pf("WP clear does not help user mode", PF_U | PF_P | PF_W, BASE);
	entry_set(0, phys(0) | RW);
	u64 upper = upper_get(BASE);
	upper_set(BASE, upper & ~(u64)PTE_U);
	user(u_read, at(0));
	check_pf("U clear above", PF_U | PF_P, BASE);
	upper_set(BASE, upper & ~(u64)PTE_W);
	user(u_write, at(0));
	check_pf("W clear above", PF_U | PF_P | PF_W, BASE);
	write_cr0(read_cr0() | CR0_WP);
	kernel_write(at(0));
	check_pf("W clear above, supervisor, WP set", PF_P | PF_W, BASE);
	write_cr0(read_cr0() & ~CR0_WP);
	upper_set(BASE, 0);
	kernel_read(at(0));
	check_pf("not present above", 0, BASE);
	upper_set(BASE, upper);
	/* Read-modify-write faults as a write; a fault leaves the destination alone. */
	CATCH(asm volatile(HERE "addl $1, (%0)" ::"r"(at(4)) : "memory"));
	check_pf("read-modify-write of an absent page", PF_W, BASE + 0x4000);
	CATCH(asm volatile("mov $0x1234, %%eax\n" HERE "mov (%0), %%eax" ::"r"(at(4)) : "eax"));
	check_eq("a failed load leaves its register", trap.r.ax, 0x1234);
	entry_set(0, phys(0) | PTE_P | PTE_U);
	write_cr0(read_cr0() | CR0_WP);
	CATCH(asm volatile("mov $0x12, %%al\n" HERE "lock cmpxchgb %%cl, (%0)" ::"r"(at(0)), "c"(0)
			   : "eax", "memory"));
	check_pf("a cmpxchg that fails still needs to write", PF_P | PF_W, BASE);
	write_cr0(read_cr0() & ~CR0_WP);
	entry_set(0, phys(0) | RW);
}

static void accessed_dirty(void)
{
	u64 mask = PTE_A | PTE_D;

	group(pae ? "pae a/d" : "a/d");
	region_reset();
	upper_set(BASE, upper_get(BASE) & ~(u64)PTE_A);
	(void)*at(1);
	check_eq("a read sets A", entry_get(1) & mask, PTE_A);
	check_mask("and A above", upper_get(BASE), PTE_A, PTE_A);
	check_mask("but never D above", upper_get(BASE), 0, PTE_D);
	*at(1) = 1;
	check_eq("a write after the read sets D", entry_get(1) & mask, PTE_A | PTE_D);
	check_eq("a page not touched has neither", entry_get(2) & mask, 0);
	*at(2) = 1;
	check_eq("a write sets both", entry_get(2) & mask, PTE_A | PTE_D);
	entry_set(2, entry_get(2) & ~(u64)PTE_D);
	*at(2) = 1;
	check_eq("D cleared and flushed is set again", entry_get(2) & mask, PTE_A | PTE_D);
	entry_set(0, phys(0) | PTE_P | PTE_U);
	user(u_write, at(0));
	check_eq("a write that faults does not set D", entry_get(0) & PTE_D, 0);
	entry_set(3, phys(3) | PTE_P | PTE_W);
	user(u_read, at(3));
	check_eq("a user read of a supervisor page faults", trap.r.vec, PF);
	entry_set(3, phys(3) | RW);
	pages[3][0] = 0xcc;
	user(u_jmp, at(3));
	check_eq("a fetch sets A only", entry_get(3) & mask, PTE_A);
	entry_set(1, phys(1) | RW);
	CATCH(asm volatile("lock xaddb %%al, (%0)" ::"r"(at(1)) : "eax", "memory"));
	check_eq("an atomic sets both", entry_get(1) & mask, PTE_A | PTE_D);
	entry_set(1, phys(1) | RW);
	CATCH(asm volatile("lock cmpxchgb %%cl, (%0)" ::"r"(at(1)), "c"(7), "a"(*at(1) + 1)
			   : "memory"));
	check_mask("a cmpxchg that fails sets A", entry_get(1), PTE_A, PTE_A);

	u32 big = pae ? 0x200000 : 0x400000;
	u64 big_entry = (u32)(phys(0) & ~(big - 1)) | RW | PTE_PS;
	upper_set(BIG, big_entry);
	volatile u8 *p = (u8 *)(BIG + (phys(2) & (big - 1)));
	(void)*p;
	check_eq("large page: a read sets A", upper_get(BIG) & mask, PTE_A);
	*p = 0x99;
	check_eq("large page: a write sets D", upper_get(BIG) & mask, PTE_A | PTE_D);
	check_eq("large page: the right place", pages[2][0], 0x99);
	upper_set(BIG, big_entry & ~(u64)PTE_W);
	user(u_write, p);
	check_pf("large page: read-only, user write", PF_P | PF_U | PF_W, (ulong)p);
	upper_set(BIG, big_entry & ~(u64)PTE_U);
	user(u_read, p);
	check_pf("large page: supervisor, user read", PF_P | PF_U, (ulong)p);
}

/* Intel loads the PDPTEs at MOV to CR3 (SDM 3, 4.4.1); AMD may read them at each walk. */
static void pdptes_cached(void)
{
	pae_entry saved = pdpt[2];

	if (cpu_is_amd) {
		skip("a PDPTE changed in memory has no effect", "AMD does not promise it");
		return;
	}
	pdpt[2] = 0;
	invlpg((void *)BASE);
	kernel_read(at(0));
	check_trap("a PDPTE changed in memory has no effect", NOTRAP, 0, 0);
	write_cr3((ulong)pdpt);
	kernel_read(at(0));
	check_pf("until CR3 is loaded", 0, BASE);
	pdpt[2] = saved;
	write_cr3((ulong)pdpt);
}

static void reserved_bits(void)
{
	u32 r[4];

	group(pae ? "pae reserved" : "reserved");
	region_reset();
	cpuid(0x80000000, 0, r);
	u32 width = 36;
	if (r[0] >= 0x80000008) {
		cpuid(0x80000008, 0, r);
		width = r[0] & 0xff;
	}
	if (pae) {
		if (width < 52) {
			entry_set(1, phys(1) | RW | 1ull << 51);
			kernel_read(at(1));
			check_pf("entry bit 51", PF_R | PF_P, BASE + 0x1000);
			user(u_write, at(1));
			check_pf("entry bit 51, user write", PF_R | PF_P | PF_U | PF_W,
				 BASE + 0x1000);
		} else {
			skip("entry bit 51", "52 physical address bits");
			skip("entry bit 51, user write", "52 physical address bits");
		}
		entry_set(1, phys(1) | RW | 1ull << 62);
		kernel_read(at(1));
		check_pf("entry bit 62", PF_R | PF_P, BASE + 0x1000);
		entry_set(1, (phys(1) | RW | 1ull << 62) & ~1ull);
		kernel_read(at(1));
		check_pf("not checked if not present", 0, BASE + 0x1000);
		upper_set(BIG, 0x100000 | RW | PTE_PS);
		kernel_read((u8 *)BIG);
		check_pf("large page: bit 20", PF_R | PF_P, BIG);
		upper_set(BIG, 0x2000 | RW | PTE_PS);
		kernel_read((u8 *)BIG);
		check_pf("large page: bit 13", PF_R | PF_P, BIG);
		upper_set(BIG, BIG | RW | PTE_PS);
		pdpt[2] |= 2;
		FAULT("PDPTE bit 1: #GP at the CR3 load", GP, 0, "mov %0, %%cr3", ::"r"(pdpt));
		pdpt[2] &= ~2ull;
		write_cr3((ulong)pdpt);
		pdptes_cached();
		return;
	}
	/* PSE-36: bits 13 to 20 hold physical bits 32 to 39; 21 is reserved. */
	upper_set(BIG, (phys(0) & 0xffc00000) | RW | PTE_PS | 1 << 21);
	kernel_read((u8 *)BIG);
	check_pf("4 MiB page: bit 21", PF_R | PF_P, BIG);
	user(u_write, (u8 *)BIG);
	check_pf("4 MiB page: bit 21, user write", PF_R | PF_P | PF_U | PF_W, BIG);
	/* Without CR4.PSE the bit is ignored and the entry names a table. */
	table[3] = phys(3) | RW;
	upper_set(BIG, (ulong)table | RW | PTE_PS);
	(void)width;
}

/* Without PSE, PS is ignored: every identity entry must go through tables then. */
static void no_pse(void)
{
	static u32 tables[4][1024] __attribute__((aligned(4096)));
	static u32 plain[1024] __attribute__((aligned(4096)));

	group("without PSE");
	for (u32 i = 0; i < 4; i++) {
		for (u32 j = 0; j < 1024; j++)
			tables[i][j] = (i << 22 | j << 12) | RW;
		plain[i] = (ulong)tables[i] | RW;
	}
	plain[BASE >> 22] = (ulong)table | RW | PTE_PS;
	region_reset();
	write_cr3((ulong)plain);
	write_cr4(read_cr4() & ~CR4_PSE);
	kernel_read(at(1));
	check_eq("PS is ignored", (u32)(trap.r.vec << 8 | *at(1)), NOTRAP << 8 | 0xa1);
	write_cr4(read_cr4() | CR4_PSE);
	write_cr3((ulong)directory);
}

static void tlb(void)
{
	group(pae ? "pae tlb" : "tlb");
	region_reset();
	pages[0][8] = 1;
	pages[1][8] = 2;
	(void)at(0)[8];
	entry_set(0, phys(1) | RW);
	check_eq("invlpg drops the old translation", at(0)[8], 2);
	if (pae)
		pae_table[0] = phys(0) | RW;
	else
		table[0] = phys(0) | RW;
	write_cr3(read_cr3());
	check_eq("a CR3 load drops it", at(0)[8], 1);
	if (pae)
		pae_table[0] = phys(1) | RW;
	else
		table[0] = phys(1) | RW;
	write_cr4(read_cr4() ^ CR4_PGE);
	write_cr4(read_cr4() ^ CR4_PGE);
	check_eq("a change of CR4.PGE drops it", at(0)[8], 2);
	entry_set(4, 0);
	kernel_read(at(4));
	if (pae)
		pae_table[4] = phys(0) | RW;
	else
		table[4] = phys(0) | RW;
	kernel_read(at(4));
	check_trap("an absent entry is not cached", NOTRAP, 0, 0);
	entry_set(4, 0);
	NOFAULT("invlpg of an absent page", "invlpg (%0)", ::"r"(at(4)));
	/* A stale entry may be used, but the rights it lacked are looked up again. */
	entry_set(0, phys(0) | PTE_P | PTE_U);
	(void)*at(0);
	write_cr0(read_cr0() | CR0_WP);
	if (pae)
		pae_table[0] = phys(0) | RW;
	else
		table[0] = phys(0) | RW;
	kernel_write(at(0));
	if (trap.r.vec == PF)
		kernel_write(at(0));
	check_trap("more rights need no invlpg after a fault", NOTRAP, 0, 0);
	write_cr0(read_cr0() & ~CR0_WP);
}

SNIP(u_push, "push %eax\nint3");
SNIP(u_call, "call 1f\n1: int3");
SNIP(u_pusha, "pusha\nint3");

/* Accesses over the end of page 3 into absent page 4. */
static void crossing(void)
{
	volatile u8 *edge = at(4);
	struct regs r;

	group(pae ? "pae crossing" : "crossing");
	region_reset();
	memset(pages[3] + 4088, 0x11, 8);
	CATCH(asm volatile("mov $0x1234, %%eax\n" HERE "mov -2(%0), %%eax" ::"r"(edge) : "eax"));
	check_pf("read: CR2 is the second page", 0, BASE + 0x4000);
	CATCH(asm volatile(HERE "movl $0x22222222, -2(%0)" ::"r"(edge) : "memory"));
	check_pf("write: CR2 is the second page", PF_W, BASE + 0x4000);
	check_eq("write: nothing written before it", pages[3][4094] | pages[3][4095] << 8, 0x1111);
	CATCH(asm volatile(HERE "lock addl $1, -1(%0)" ::"r"(edge) : "memory"));
	check_pf("locked write", PF_W, BASE + 0x4000);
	check_eq("locked write: nothing written", pages[3][4095], 0x11);
	entry_set(2, 0);
	CATCH(asm volatile(HERE "movl %%eax, -2(%0)" ::"r"(at(3)) : "memory"));
	check_pf("first page absent", PF_W, BASE + 0x2ffe);
	regs_init(&r, RING3, u_push);
	r.sp = (ulong)edge + 2;
	run(&r);
	want_ip = (ulong)u_push;
	check_pf("push over the edge", PF_U | PF_W, BASE + 0x4000);
	check_eq("push: esp unchanged", trap.r.sp, (ulong)edge + 2);
	check_eq("push: nothing written", pages[3][4095], 0x11);
	regs_init(&r, RING3, u_call);
	r.sp = (ulong)edge + 4;
	run(&r);
	check_eq("call with its push on an absent page: at the call", trap.r.ip, (ulong)u_call);
	check_eq("call: esp unchanged", trap.r.sp, (ulong)edge + 4);
	regs_init(&r, RING3, u_pusha);
	r.sp = (ulong)at(3) + 16;
	run(&r);
	check_eq("pusha that fails: esp unchanged", trap.r.vec << 8 | (trap.r.sp & 0xff),
		 PF << 8 | 0x10);

	/* The instruction itself over the edge: mov $imm32, %eax. */
	pages[3][4094] = 0xb8;
	user(u_jmp, edge - 2);
	want_ip = (ulong)edge - 2;
	check_pf("fetch: CR2 is the second page",
		 PF_U | (pae && rdmsr(MSR_EFER) & EFER_NXE ? PF_I : 0), BASE + 0x4000);
	pages[3][4094] = 0x90;
	pages[3][4095] = 0xcc;
	user(u_jmp, edge - 2);
	check_trap("fetch that ends at the edge", BP, 0, 0);
	region_reset();
}

/* REP with a fault in the middle leaves the registers at the failing element. */
static void strings(void)
{
	group(pae ? "pae string" : "string");
	region_reset();
	CATCH(asm volatile(HERE "rep stosb" ::"D"(at(4) - 5), "c"(16), "a"(0x66) : "memory"));
	check_pf("rep stosb", PF_W, BASE + 0x4000);
	check_eq("rep stosb: ecx", trap.r.cx, 11);
	check_eq("rep stosb: edi", trap.r.di, BASE + 0x4000);
	check_eq("rep stosb: what came before is written", pages[3][4095], 0x66);
	CATCH(asm volatile(HERE "rep movsl" ::"S"(at(4) - 8), "D"(at(1)), "c"(4) : "memory"));
	check_pf("rep movsl, source", 0, BASE + 0x4000);
	check_eq("rep movsl: ecx", trap.r.cx, 2);
	check_eq("rep movsl: esi and edi", (u64)trap.r.si << 32 | trap.r.di,
		 (u64)(BASE + 0x4000) << 32 | (BASE + 0x1008));
	CATCH(asm volatile("std\n" HERE "rep stosb" ::"D"(at(1) + 2), "c"(16), "a"(0) : "memory"));
	check_trap("std, rep stosb: fine downward", NOTRAP, 0, 0);
	asm volatile("cld");
	entry_set(0, 0);
	CATCH(asm volatile("std\n" HERE "rep stosw" ::"D"(at(1) + 2), "c"(16), "a"(0) : "memory"));
	check_pf("std, rep stosw", PF_W, BASE + 0xffe + 0);
	check_eq("std, rep stosw: ecx and edi", (u64)trap.r.cx << 32 | trap.r.di,
		 (u64)14 << 32 | (BASE + 0xffe));
	check_mask("DF is in the pushed flags", trap.r.fl, FL_DF, FL_DF);
	memset(pages[3] + 4080, 'x', 16);
	CATCH(asm volatile(HERE "repe cmpsb" ::"S"(at(4) - 4), "D"(at(4) - 8), "c"(9) : "memory"));
	check_eq("repe cmpsb: ecx", trap.r.cx, 5);
	CATCH(asm volatile(HERE "repne scasb" ::"D"(at(4) - 4), "c"(9), "a"('y') : "memory"));
	check_eq("repne scasb: ecx and edi", (u64)trap.r.cx << 32 | trap.r.di,
		 (u64)5 << 32 | (BASE + 0x4000));
	CATCH(asm volatile(HERE "rep lodsb" ::"S"(at(4)), "c"(0) : "eax", "memory"));
	check_trap("rep with ecx 0 touches nothing", NOTRAP, 0, 0);
	CATCH(asm volatile(HERE "rep insb" ::"D"(at(4) - 2), "c"(4), "d"(0x3ff) : "memory"));
	check_eq("rep insb: ecx", trap.r.cx, 2);
	region_reset();
}

/* Faults on the way into a handler. */
static void delivery(void)
{
	group(pae ? "pae delivery" : "delivery");
	static u8 copy[256 * 8] __attribute__((aligned(8)));
	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) idtr = {sizeof(copy) - 1, 0};

	/* An IDT whose #GP gate (13) lies on an absent page: at(4) starts with vector 13. */
	region_reset();
	memcpy(copy, idt, sizeof(copy));
	memcpy(pages[3] + 4096 - 13 * 8, idt, 13 * 8);
	idtr.base = BASE + 0x4000 - 13 * 8;
	entry_set(4, 0);
	entry_set(5, phys(0) | RW);
	asm volatile("lidt %0" ::"m"(idtr));
	CATCH(asm volatile("mov %w0, %%fs" ::"r"(0x1f8)));
	ulong vec = trap.r.vec, cr2 = trap.cr2;
	idt_load();
	/* #GP, then #PF for its gate: served one after the other; #PF's own gate is absent too: #DF. */
	check_eq("#GP, #PF for its gate, #PF again: double fault", vec, DF);
	check_eq("CR2 is the page-fault gate", cr2, BASE + 0x4000 + 8);
}

static void nx(void)
{
	group("pae nx");
	region_reset();
	if (!(cpu_features_8_edx & 1 << 20)) {
		skip("nx", "no NX");
		return;
	}
	pages[0][0] = 0xcc;
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_NXE);
	entry_set(0, phys(0) | RW | PTE_NX);
	kernel_read(at(0));
	check_pf("bit 63 is reserved with NXE clear", PF_R | PF_P, BASE);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	write_cr3(read_cr3());
	kernel_read(at(0));
	check_trap("data reads are fine with NXE set", NOTRAP, 0, 0);
	user(u_jmp, at(0));
	check_pf("user fetch", PF_I | PF_P | PF_U, BASE);
	CATCH(want_ip = BASE; asm volatile("jmp *%0" ::"r"(at(0))));
	check_pf("supervisor fetch", PF_I | PF_P, BASE);
	entry_set(0, phys(0) | RW);
	upper_set(BASE, upper_get(BASE) | PTE_NX);
	user(u_jmp, at(0));
	check_pf("NX above", PF_I | PF_P | PF_U, BASE);
	region_reset();
	entry_set(4, 0);
	user(u_jmp, at(4));
	check_pf("an absent page sets I as well", PF_I | PF_U, BASE + 0x4000);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_NXE);
	write_cr3(read_cr3());
	user(u_jmp, at(4));
	check_pf("but not with NXE clear", PF_U, BASE + 0x4000);
}

static void no_paging(void)
{
	group("no paging");
	u32 old = *(u32 *)pages[0];
	*(volatile u32 *)pages[0] = 0x13572468;
	check_eq("linear is physical", *(volatile u32 *)pages[0], 0x13572468);
	*(u32 *)pages[0] = old;
	write_cr3(0x12345000);
	check_eq("CR3 is only remembered", read_cr3(), 0x12345000);
	write_cr2(0xcafe1234);
	check_eq("CR2 reads back", read_cr2(), 0xcafe1234);
}

int main(void)
{
	no_paging();
	classic_on();
	rights();
	accessed_dirty();
	reserved_bits();
	no_pse();
	tlb();
	crossing();
	strings();
	delivery();
	if (!(cpu_features_1_edx & 1 << 6)) {
		skip("pae", "no PAE");
		return 0;
	}
	pae_on();
	rights();
	accessed_dirty();
	reserved_bits();
	tlb();
	crossing();
	strings();
	nx();
	return 0;
}
