/* SPDX-License-Identifier: Apache-2.0 */
/* 4-level paging, NX, SMEP, SMAP, PCID, global pages, protection keys (Intel SDM volume 3, 4.5-4.10). */
#include "guest.h"

#define BASE 0x0000008000000000ul /* its own PML4 entry; a page table for 2 MiB */
#define BIG (BASE + 0x40000000)	  /* a 1 GiB page where there are any */
#define RW (PTE_P | PTE_W | PTE_U)
#define CROSS 0x00007ffffffff000ul /* the last page of the low half */

extern u64 boot_pml4[], boot_pdpt[];
u8 pages[4][4096] __attribute__((aligned(4096)));
static u64 pdpt[512] __attribute__((aligned(4096)));
static u64 directory[512] __attribute__((aligned(4096)));
static u64 table[512] __attribute__((aligned(4096)));

static volatile u8 *at(u32 page)
{
	return (u8 *)(BASE + page * 4096);
}

static void set(u32 page, u64 entry)
{
	table[page] = entry;
	invlpg(at(page));
}

static u64 phys(u32 page)
{
	return (ulong)pages[page];
}

static void reset(void)
{
	boot_pml4[1] = (ulong)pdpt | RW;
	pdpt[0] = (ulong)directory | RW;
	directory[0] = (ulong)table | RW;
	for (u32 i = 0; i < 4; i++) {
		table[i] = phys(i) | RW;
		pages[i][0] = 0xa0 + i;
	}
	table[4] = 0;
	write_cr3(read_cr3());
}

/* Take the whole identity map away from ring 3, or give it back. */
static void identity_user(bool user)
{
	boot_pml4[0] = (boot_pml4[0] & ~(u64)PTE_U) | (user ? PTE_U : 0);
	write_cr3(read_cr3());
}

SNIP(u_read, "movb (%rsi), %al\nint3");
SNIP(u_write, "movb %al, (%rsi)\nint3");
SNIP(u_jmp, "jmp *%rsi");
SNIP(u_push, "push %rax\nint3");

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

static void kernel_jmp(volatile void *where)
{
	CATCH(want_ip = (ulong)where; asm volatile("jmp *%0" ::"r"(where)));
}

static void rights(void)
{
	static const struct {
		const char *absent, *readonly, *supervisor, *reserved, *nx;
		u64 *entry;
	} levels[] = {
		{"absent PML4 entry", "read-only PML4 entry", "supervisor PML4 entry",
		 "PML4 entry bit 7", "NX in the PML4 entry", &boot_pml4[1]},
		{"absent PDPT entry", "read-only PDPT entry", "supervisor PDPT entry", NULL,
		 "NX in the PDPT entry", &pdpt[0]},
		{"absent directory entry", "read-only directory entry",
		 "supervisor directory entry", NULL, "NX in the directory entry", &directory[0]},
		{"absent page entry", "read-only page entry", "supervisor page entry", NULL,
		 "NX in the page entry", &table[1]},
	};

	group("rights");
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		u64 *e = levels[i].entry, old;

		reset();
		old = *e;
		pages[1][0] = 0xcc;
		*e = 0;
		write_cr3(read_cr3());
		user(u_write, at(1));
		check_pf(levels[i].absent, PF_U | PF_W, BASE + 0x1000);
		*e = old & ~(u64)PTE_W;
		write_cr3(read_cr3());
		user(u_write, at(1));
		check_pf(levels[i].readonly, PF_P | PF_U | PF_W, BASE + 0x1000);
		*e = old & ~(u64)PTE_U;
		write_cr3(read_cr3());
		user(u_read, at(1));
		check_pf(levels[i].supervisor, PF_P | PF_U, BASE + 0x1000);
		*e = old | PTE_NX;
		write_cr3(read_cr3());
		user(u_jmp, at(1));
		check_pf(levels[i].nx, PF_P | PF_U | PF_I, BASE + 0x1000);
		kernel_read(at(1));
		check_eq(i == 0	  ? "NX there does not stop reads (PML4)"
			 : i == 1 ? "NX there does not stop reads (PDPT)"
			 : i == 2 ? "NX there does not stop reads (directory)"
				  : "NX there does not stop reads (page)",
			 trap.r.vec, NOTRAP);
		*e = old;
		if (levels[i].reserved) {
			*e = old | PTE_PS;
			write_cr3(read_cr3());
			kernel_read(at(1));
			check_pf(levels[i].reserved, PF_R | PF_P, BASE + 0x1000);
			*e = old;
		}
	}
	reset();
	set(1, phys(1) | PTE_P | PTE_U);
	write_cr0(read_cr0() & ~(ulong)CR0_WP);
	kernel_write(at(1));
	check_trap("supervisor write to a read-only page, WP clear", NOTRAP, 0, 0);
	write_cr0(read_cr0() | CR0_WP);
	kernel_write(at(1));
	check_pf("the same with WP set", PF_P | PF_W, BASE + 0x1000);
	write_cr0(read_cr0() & ~(ulong)CR0_WP);
	pages[0][0] = 0xcc;
	set(0, phys(0) | RW | PTE_NX);
	kernel_jmp(at(0));
	check_pf("supervisor fetch of an NX page", PF_P | PF_I, BASE);
	user(u_jmp, at(4));
	check_pf("fetch of an absent page has I set", PF_U | PF_I, BASE + 0x4000);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_NXE);
	write_cr3(read_cr3());
	kernel_read(at(0));
	check_pf("bit 63 is reserved with NXE clear", PF_P | PF_R, BASE);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	reset();
}

static void large_pages(void)
{
	u32 r[4];
	u64 mask = PTE_A | PTE_D;
	volatile u8 *p;

	group("large page");
	reset();
	directory[1] = (phys(0) & ~0x1ffffful) | RW | PTE_PS;
	p = (u8 *)(BASE + 0x200000 + (phys(1) & 0x1fffff));
	check_eq("2 MiB: read", *p, 0xa1);
	check_eq("2 MiB: A", directory[1] & mask, PTE_A);
	*p = 0x77;
	check_eq("2 MiB: write", pages[1][0], 0x77);
	check_eq("2 MiB: D", directory[1] & mask, PTE_A | PTE_D);
	directory[1] |= 1 << 13;
	write_cr3(read_cr3());
	kernel_read(p);
	check_pf("2 MiB: bit 13 is reserved", PF_R | PF_P, (ulong)p);
	directory[1] = (phys(0) & ~0x1ffffful) | PTE_P | PTE_U | PTE_PS;
	write_cr3(read_cr3());
	user(u_write, p);
	check_pf("2 MiB: read-only", PF_P | PF_U | PF_W, (ulong)p);
	cpuid(0x80000001, 0, r);
	if (!(r[3] & 1 << 26)) {
		skip("1 GiB", "no 1 GiB pages");
		return;
	}
	pdpt[1] = RW | PTE_PS;
	p = (u8 *)(BIG + phys(2));
	check_eq("1 GiB: read", *p, 0xa2);
	check_eq("1 GiB: A", pdpt[1] & mask, PTE_A);
	*p = 0x66;
	check_eq("1 GiB: D", pdpt[1] & mask, PTE_A | PTE_D);
	pdpt[1] |= 1 << 20;
	write_cr3(read_cr3());
	kernel_read(p);
	check_pf("1 GiB: bit 20 is reserved", PF_R | PF_P, (ulong)p);
	pdpt[1] = 0;
	directory[1] = 0;
}

static void accessed_dirty(void)
{
	u64 mask = PTE_A | PTE_D;

	group("a/d");
	reset();
	boot_pml4[1] &= ~(u64)PTE_A;
	pdpt[0] &= ~(u64)PTE_A;
	directory[0] &= ~(u64)PTE_A;
	write_cr3(read_cr3());
	(void)*at(1);
	check_eq("a read sets A", table[1] & mask, PTE_A);
	check_eq("on each level", (boot_pml4[1] & pdpt[0] & directory[0]) & PTE_A, PTE_A);
	check_eq("D on the last only", (boot_pml4[1] | pdpt[0] | directory[0]) & PTE_D, 0);
	*at(1) = 1;
	check_eq("a write sets D", table[1] & mask, PTE_A | PTE_D);
	check_eq("an untouched page has neither", table[2] & mask, 0);
	set(3, phys(3) | PTE_P | PTE_U);
	user(u_write, at(3));
	check_eq("a faulting write does not set D", table[3] & PTE_D, 0);
	/* The stack push of an exception sets D like any write. */
	struct regs r;
	set(2, phys(2) | RW);
	regs_init(&r, RING3, u_push);
	r.sp = (ulong)at(2) + 64;
	run(&r);
	check_eq("a push sets D", table[2] & mask, PTE_A | PTE_D);
	/* The descriptor tables are reached through paging too: setting "accessed" dirties. */
	set(1, phys(1) | RW);
	CATCH(asm volatile("bsfl (%0), %%eax" ::"r"(at(1)) : "eax"));
	check_eq("a read-only use leaves D clear", table[1] & mask, PTE_A);
}

static void smep(void)
{
	group("smep");
	if (!(cpu_features_7_ebx & 1 << 7)) {
		skip("smep", "no SMEP");
		return;
	}
	reset();
	identity_user(false);
	pages[0][0] = 0xcc;
	set(1, phys(0) | PTE_P | PTE_W);
	kernel_jmp(at(0));
	check_trap("clear: a supervisor runs a user page", BP, 0, BASE + 1);
	write_cr4(read_cr4() | CR4_SMEP);
	kernel_jmp(at(0));
	check_pf("set: #PF with I and P", PF_I | PF_P, BASE);
	kernel_jmp(at(1));
	check_trap("set: a supervisor page runs", BP, 0, BASE + 0x1001);
	kernel_read(at(0));
	check_trap("set: data access is free", NOTRAP, 0, 0);
	write_cr4(read_cr4() & ~(ulong)CR4_SMEP);
	identity_user(true);
	user(u_jmp, at(0));
	check_trap("user mode runs it either way", BP, 0, BASE + 1);
}

SNIP(u_stac, "stac\nint3");

static void smap(void)
{
	group("smap");
	if (!(cpu_features_7_ebx & 1 << 20)) {
		skip("smap", "no SMAP");
		return;
	}
	reset();
	identity_user(false);
	write_cr4(read_cr4() | CR4_SMAP);
	kernel_read(at(0));
	check_pf("read of a user page", PF_P, BASE);
	kernel_write(at(0));
	check_pf("write to a user page", PF_P | PF_W, BASE);
	CATCH(asm volatile("stac\n\tmovb (%0), %%al\n\tclac" ::"r"(at(0)) : "eax"));
	check_trap("stac allows it", NOTRAP, 0, 0);
	CATCH(asm volatile("stac\n\tclac\n" HERE "movb (%0), %%al" ::"r"(at(0)) : "eax"));
	check_pf("clac forbids it again", PF_P, BASE);
	CATCH(asm volatile("pushf\n\torl %1, (%%rsp)\n\tpopf\n\tmovb (%0), %%al" ::"r"(at(0)),
			   "i"(FL_AC)
			   : "eax"));
	check_trap("AC by popf allows it as well", NOTRAP, 0, 0);
	write_flags(2);
	set(1, phys(1) | PTE_P | PTE_W);
	kernel_read(at(1));
	check_trap("a supervisor page is free", NOTRAP, 0, 0);
	/* Implicit accesses (here: to the LDT, on a user page) ignore AC. */
	*(u64 *)(pages[2] + 8) = desc_make(0, 0xfffff, 0x93, 0xc);
	gdt_set(TEST_SEL, BASE & 0xffffffff, 15, 0x82, 0);
	gdt[TEST_SEL / 8] |= (u64)0x2000 << 16;
	gdt[TEST_SEL / 8 + 1] = BASE >> 32;
	asm volatile("lldt %w0" ::"r"(TEST_SEL));
	CATCH(asm volatile("stac\n" HERE "mov %w0, %%fs" ::"r"(8 + 4)));
	asm volatile("lldt %w0" ::"r"(0));
	check_pf("an implicit access ignores AC", PF_P, BASE + 0x2008);
	write_cr4(read_cr4() & ~(ulong)CR4_SMAP);
	identity_user(true);
	write_flags(2);
	struct regs r;
	regs_init(&r, RING3, u_stac);
	run(&r);
	check_trap("stac in ring 3", UD, 0, (ulong)u_stac);
}

SNIP(u_sgdt, "sgdt pages\nint3");
SNIP(u_sidt, "sidt pages\nint3");
SNIP(u_sldt, "sldt %eax\nint3");
SNIP(u_str, "str %eax\nint3");
SNIP(u_smsw, "smsw %eax\nint3");

static void umip(void)
{
	static const struct {
		const char *name, *code;
	} cases[] = {{"sgdt", u_sgdt},
		     {"sidt", u_sidt},
		     {"sldt", u_sldt},
		     {"str", u_str},
		     {"smsw", u_smsw}};
	struct regs r;

	group("umip");
	if (!(cpu_features_7_ecx & 1 << 2)) {
		skip("umip", "no UMIP");
		return;
	}
	write_cr4(read_cr4() | CR4_UMIP);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		regs_init(&r, RING3, cases[i].code);
		run(&r);
		check_trap(cases[i].name, GP, 0, (ulong)cases[i].code);
	}
	NOFAULT("ring 0 may", "str %%eax", ::: "rax");
	write_cr4(read_cr4() & ~(ulong)CR4_UMIP);
}

static void tlb(void)
{
	group("tlb");
	reset();
	write_cr4(read_cr4() | CR4_PGE);
	pages[0][8] = 1;
	pages[1][8] = 2;
	set(0, phys(0) | RW | PTE_G);
	(void)at(0)[8];
	table[0] = phys(1) | RW | PTE_G;
	invlpg(at(0));
	check_eq("invlpg drops a global page", at(0)[8], 2);
	table[0] = phys(0) | RW | PTE_G;
	write_cr4(read_cr4() & ~(ulong)CR4_PGE);
	write_cr4(read_cr4() | CR4_PGE);
	check_eq("toggling CR4.PGE drops a global page", at(0)[8], 1);
	table[0] = phys(1) | RW;
	invlpg(at(0));
	(void)at(0)[8];
	table[0] = phys(0) | RW;
	write_cr3(read_cr3());
	check_eq("a CR3 load drops a page that is not global", at(0)[8], 1);
	(void)at(1)[8];
	u64 old = directory[0];
	static u64 other[512] __attribute__((aligned(4096)));
	memcpy(other, table, sizeof(table));
	other[0] = phys(1) | RW;
	directory[0] = (ulong)other | RW;
	invlpg(at(0));
	check_eq("invlpg drops what leads there", at(0)[8], 2);
	directory[0] = old;
	write_cr3(read_cr3());
	directory[0] = (phys(0) & ~0x1ffffful) | RW | PTE_PS;
	write_cr3(read_cr3());
	volatile u8 *p = (u8 *)(BASE + (phys(0) & 0x1fffff) + 8);
	check_eq("a large page where small ones were", *p, 1);
	directory[0] = old;
	invlpg((u8 *)BASE + 0x1fffff);
	write_cr3(read_cr3());
	check_eq("and small ones again", at(0)[8], 1);
}

static bool invpcid_available;

static void invpcid(ulong type, u64 pcid, u64 address)
{
	struct {
		u64 pcid, address;
	} d = {pcid, address};

	asm volatile("invpcid %0, %1" ::"m"(d), "r"(type) : "memory");
}

static void pcid(void)
{
	ulong cr3 = read_cr3();

	group("pcid");
	invpcid_available = cpu_features_7_ebx & 1 << 10;
	if (!(cpu_features_1_ecx & 1 << 17)) {
		skip("pcid", "no PCID");
		return;
	}
	reset();
	write_cr4(read_cr4() | CR4_PCIDE);
	check_mask("CR4.PCIDE can be set", read_cr4(), CR4_PCIDE, CR4_PCIDE);
	pages[0][8] = 1;
	pages[1][8] = 2;
	write_cr3(cr3 | 5);
	check_eq("CR3 shows the PCID", read_cr3(), cr3 | 5);
	check_eq("a translation of PCID 5", at(0)[8], 1);
	write_cr3(cr3 | 6 | 1ul << 63);
	check_eq("CR3 bit 63 is not kept", read_cr3(), cr3 | 6);
	table[0] = phys(1) | RW;
	write_cr3(cr3 | 5);
	check_eq("a CR3 load without bit 63 drops that PCID", at(0)[8], 2);
	table[0] = phys(0) | RW;
	invlpg(at(0));
	check_eq("invlpg drops the current PCID's", at(0)[8], 1);
	if (invpcid_available) {
		table[0] = phys(1) | RW;
		invpcid(0, 5, BASE);
		check_eq("invpcid type 0", at(0)[8], 2);
		table[0] = phys(0) | RW;
		invpcid(1, 5, 0);
		check_eq("invpcid type 1", at(0)[8], 1);
		table[0] = phys(1) | RW | PTE_G;
		invpcid(2, 0, 0);
		check_eq("invpcid type 2", at(0)[8], 2);
		table[0] = phys(0) | RW | PTE_G;
		invpcid(2, 0, 0);
		check_eq("invpcid type 2 drops global pages", at(0)[8], 1);
		set(0, phys(0) | RW);
		(void)at(0)[8];
		table[0] = phys(1) | RW;
		invpcid(3, 0, 0);
		check_eq("invpcid type 3", at(0)[8], 2);
		/* Another PCID's translation goes by its number. */
		write_cr3(cr3 | 6);
		(void)at(0)[8];
		write_cr3(cr3 | 5 | 1ul << 63);
		table[0] = phys(0) | RW;
		invpcid(1, 6, 0);
		write_cr3(cr3 | 6 | 1ul << 63);
		check_eq("invpcid type 1 for another PCID", at(0)[8], 1);
	}
	write_cr3(cr3);
	write_cr4(read_cr4() & ~(ulong)CR4_PCIDE);
	check_mask("CR4.PCIDE can be cleared", read_cr4(), 0, CR4_PCIDE);
}

SNIP(u_invpcid, "invpcid pages, %rax\nint3");

static void invpcid_faults(void)
{
	struct {
		u64 pcid, address;
	} d = {0, 0};
	struct regs r;

	group("invpcid");
	if (!invpcid_available) {
		FAULT("#UD without INVPCID", UD, 0, "invpcid %0, %1", ::"m"(d), "r"(2ul));
		return;
	}
	reset();
	table[0] = phys(0) | RW;
	invlpg(at(0));
	(void)*at(0);
	pages[0][8] = 1;
	pages[1][8] = 2;
	table[0] = phys(1) | RW;
	invpcid(2, 0, 0);
	check_eq("works without PCID", at(0)[8], 2);
	FAULT("type 4", GP, 0, "invpcid %0, %1", ::"m"(d), "r"(4ul));
	d.pcid = 1 << 12;
	FAULT("descriptor bit 12", GP, 0, "invpcid %0, %1", ::"m"(d), "r"(0ul));
	d.pcid = 1;
	FAULT("type 0, PCID 1 with CR4.PCIDE clear", GP, 0, "invpcid %0, %1", ::"m"(d), "r"(0ul));
	d.pcid = 0;
	d.address = 0x800000000000;
	FAULT("type 0, address not canonical", GP, 0, "invpcid %0, %1", ::"m"(d), "r"(0ul));
	regs_init(&r, RING3, u_invpcid);
	r.ax = 2;
	run(&r);
	check_trap("ring 3", GP, 0, (ulong)u_invpcid);
	reset();
}

static void crossing(void)
{
	static u64 top_pdpt[512] __attribute__((aligned(4096)));
	static u64 top_directory[512] __attribute__((aligned(4096)));
	static u64 top_table[512] __attribute__((aligned(4096)));
	struct regs r;

	group("crossing");
	reset();
	memset(pages[3] + 4080, 0x11, 16);
	CATCH(asm volatile("mov $0x1234, %%eax\n" HERE "mov -4(%0), %%rax" ::"r"(at(4)) : "rax"));
	check_pf("read", 0, BASE + 0x4000);
	check_eq("read: the register is unchanged", trap.r.ax, 0x1234);
	CATCH(asm volatile(HERE "movq $-1, -4(%0)" ::"r"(at(4)) : "memory"));
	check_pf("write", PF_W, BASE + 0x4000);
	check_eq("write: nothing was written", *(u32 *)(pages[3] + 4092), 0x11111111);
	set(4, phys(0) | PTE_P | PTE_U);
	user(u_write, at(4) - 1);
	check_trap("a byte before a read-only page", BP, 0, 0);
	write_cr0(read_cr0() | CR0_WP);
	CATCH(asm volatile(HERE "movq $-1, -4(%0)" ::"r"(at(4)) : "memory"));
	check_pf("write into a read-only page", PF_P | PF_W, BASE + 0x4000);
	write_cr0(read_cr0() & ~(ulong)CR0_WP);
	set(4, phys(0) | RW);
	memset(pages[0], 0x22, 8);
	pages[3][4095] = 0x11;
	u64 v;
	asm volatile("movq -4(%1), %0" : "=r"(v) : "r"(at(4)));
	check_eq("read over two frames that are not neighbours", v, 0x2222222211111111);
	asm volatile("movq %0, -4(%1)" ::"r"(0x1122334455667788ul), "r"(at(4)) : "memory");
	check_eq("write over them", (u64) * (u32 *)(pages[3] + 4092) << 32 | *(u32 *)pages[0],
		 0x5566778811223344);
	asm volatile("lock addq %0, -4(%1)" ::"r"(0x100000000ul), "r"(at(4)) : "memory");
	check_eq("locked add over them", *(u32 *)pages[0], 0x11223345);
	set(4, 0);
	regs_init(&r, RING3, u_push);
	r.sp = (ulong)at(4) + 4;
	run(&r);
	want_ip = (ulong)u_push;
	check_pf("push", PF_U | PF_W, BASE + 0x4000);
	check_eq("push: rsp is unchanged", trap.r.sp, (ulong)at(4) + 4);

	/* The end of the canonical low half, mapped: #GP, not #PF. */
	boot_pml4[255] = (ulong)top_pdpt | RW;
	top_pdpt[511] = (ulong)top_directory | RW;
	top_directory[511] = (ulong)top_table | RW;
	top_table[511] = phys(3) | RW;
	write_cr3(read_cr3());
	check_eq("the last canonical byte", *(volatile u8 *)(CROSS + 4095), 0x55);
	FAULT("a read beyond it", GP, 0, "movl (%0), %%eax", ::"r"(CROSS + 4094) : "rax");
	boot_pml4[255] = 0;
	write_cr3(read_cr3());
	reset();
}

static void reserved(void)
{
	u32 r[4];

	group("reserved");
	reset();
	cpuid(0x80000008, 0, r);
	if ((r[0] & 0xff) < 52) {
		set(1, phys(1) | RW | 1ul << 51);
		kernel_read(at(1));
		check_pf("bit 51 of a page entry", PF_R | PF_P, BASE + 0x1000);
		u64 old = directory[0];
		directory[0] |= 1ul << 51;
		write_cr3(read_cr3());
		user(u_write, at(1));
		check_pf("bit 51 of a directory entry", PF_R | PF_P | PF_U | PF_W, BASE + 0x1000);
		directory[0] = old;
	} else {
		skip("bit 51 of a page entry", "52 physical address bits");
		skip("bit 51 of a directory entry", "52 physical address bits");
	}
	/* Bits 52 to 58 and 9 to 11 are the system's own. */
	set(1, phys(1) | RW | 0x7full << 52 | 0xe00);
	kernel_read(at(1));
	check_trap("bits 52-58 and 9-11 are ignored", NOTRAP, 0, 0);
	reset();
}

static void pkeys(void)
{
	group("pku");
	if (!(cpu_features_7_ecx & 1 << 3)) {
		skip("pku", "no PKU");
		return;
	}
	reset();
	FAULT("rdpkru with CR4.PKE clear", UD, 0, ".byte 0x0f, 0x01, 0xee", ::"c"(0)
	      : "eax", "edx");
	write_cr4(read_cr4() | CR4_PKE);
	u32 v;
	asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(0), "c"(0), "d"(0)); /* wrpkru */
	asm volatile(".byte 0x0f, 0x01, 0xee" : "=a"(v) : "c"(0) : "edx");
	check_eq("rdpkru", v, 0);
	set(1, phys(1) | RW | 1ull << 59);
	user(u_write, at(1));
	check_trap("key 1, no restriction", BP, 0, 0);
	asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(8), "c"(0), "d"(0));
	user(u_write, at(1));
	check_pf("key 1, write disabled", PF_P | PF_U | PF_W | 0x20, BASE + 0x1000);
	user(u_read, at(1));
	check_trap("key 1, write disabled, read", BP, 0, 0);
	asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(4), "c"(0), "d"(0));
	user(u_read, at(1));
	check_pf("key 1, access disabled", PF_P | PF_U | 0x20, BASE + 0x1000);
	user(u_read, at(2));
	check_trap("key 0 is free", BP, 0, 0);
	asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(0), "c"(0), "d"(0));
	FAULT("wrpkru with ecx not 0", GP, 0, ".byte 0x0f, 0x01, 0xef", ::"a"(0), "c"(1), "d"(0));
	write_cr4(read_cr4() & ~(ulong)CR4_PKE);
}

int main(void)
{
	reset();
	rights();
	large_pages();
	accessed_dirty();
	reserved();
	smep();
	smap();
	umip();
	tlb();
	pcid();
	invpcid_faults();
	crossing();
	pkeys();
	return 0;
}
