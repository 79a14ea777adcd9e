/* SPDX-License-Identifier: Apache-2.0 */
/* Real mode (Intel SDM volume 3, 20.1). */
#include "guest.h"

struct real_regs {
	u32 eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u16 ds, es, fs, gs, ss, cs, ip, flags, vec, pad;
};

extern struct real_regs real_in, real_out;
extern char real_stubs[];
extern struct {
	u16 limit;
	u32 base;
} __attribute__((packed)) real_idt;
void real_enter(void);

#define in real_in
#define out real_out
#define STACK 0x7c00

static volatile u16 *low16(u32 address)
{
	asm("" : "+r"(address));
	return (volatile u16 *)address;
}

static void ivt_reset(void)
{
	for (u32 i = 0; i < 256; i++) {
		*low16(i * 4) = (ulong)real_stubs + i * 6;
		*low16(i * 4 + 2) = 0;
	}
}

static void prepare(const char *code)
{
	memset(&in, 0, sizeof(in));
	in.ip = (ulong)code;
	in.esp = STACK;
	in.flags = 2;
}

static void go(const char *code)
{
	prepare(code);
	real_enter();
}

static void check_vec(const char *name, u16 vec, const char *ip)
{
	check_eq(name, (u32)out.vec << 16 | out.ip, (u32)vec << 16 | (u16)(ulong)ip);
}

SNIP16(rm_int, "int $0x50\nrm_int_next: int3");
SNIP16(rm_int51, "pushf\npop %ax\nmov %sp, %bx\nmov 4(%esp), %cx\niret");
SNIP16(rm_int51_at, "sti\nstd\nint $0x51\nrm_int51_next: pushf\npop %dx\ncld\nint3");
SNIP16(rm_div, "xor %cx, %cx\nrm_div_at: div %cx\nint3");
SNIP16(rm_aam, ".byte 0xd4, 0\nint3");
SNIP16(rm_bound, "mov $5, %ax\nrm_bound_at: bound %ax, rm_bounds\nint3\nrm_bounds: .word 6, 9");
SNIP16(rm_bound_in, "mov $9, %ax\nbound %ax, rm_bounds\nrm_bound_in_end: int3");
SNIP16(rm_into, "mov $0x7f, %al\ninc %al\ninto\nrm_into_next: int3");
SNIP16(rm_int3, "int3\nrm_int3_next: int3");
SNIP16(rm_lidt_small, "int $0x60\nint3");
extern char rm_int_next[], rm_int51_next[], rm_div_at[], rm_bound_at[], rm_into_next[];
extern char rm_int3_next[], rm_bound_in_end[];

static void interrupts(void)
{
	group("interrupt");
	go(rm_int);
	check_vec("int n goes through the IVT", 0x50, rm_int_next);
	check_eq("int n pushes three words", out.esp, STACK);
	*low16(0x51 * 4) = (ulong)rm_int51;
	go(rm_int51_at);
	check_vec("iret returns", BP, rm_int51_next + 4);
	check_mask("the handler has IF and TF clear, DF kept", out.eax, FL_DF,
		   FL_IF | FL_TF | FL_DF);
	check_eq("the stack is six bytes lower", out.ebx & 0xffff, STACK - 6);
	check_mask("the pushed flags have IF", out.ecx, FL_IF, FL_IF);
	check_mask("iret restores IF and DF", out.edx, FL_IF | FL_DF, FL_IF | FL_DF);
	go(rm_div);
	check_vec("divide error reports its own address", DE, rm_div_at);
	go(rm_aam);
	check_vec("aam 0 divides by zero", DE, rm_aam);
	go(rm_bound);
	check_vec("bound", BR, rm_bound_at);
	go(rm_bound_in);
	check_vec("bound within", BP, rm_bound_in_end + 1);
	go(rm_into);
	check_vec("into", OF, rm_into_next);
	go(rm_int3);
	check_vec("int3", BP, rm_int3_next);
	real_idt.limit = 0x60 * 4 + 2;
	go(rm_lidt_small);
	check_vec("vector beyond the IDT limit is #GP", GP, rm_lidt_small);
	real_idt.limit = 0x3ff;
	ivt_reset();
}

SNIP16(rm_base, "mov $0x0900, %ax\nmov %ax, %ds\nmov $0x5a5a, %bx\nmov %bx, 0x10\nint3");
SNIP16(rm_hma, "mov $0xffff, %ax\nmov %ax, %ds\nmov 0x10, %bx\nint3");
SNIP16(rm_word_wrap, "mov $0x1234, %ax\nmov 0xffff, %bx\nint3");
SNIP16(rm_ss_wrap, "mov $0xffff, %bp\nrm_ss_wrap_at: mov 0(%bp), %bx\nint3");
SNIP16(rm_a32, "mov $0x10000, %ebx\nrm_a32_at: addr32 mov (%ebx), %al\nint3");
SNIP16(rm_wrap16, "mov $0xfff0, %bx\nmov 0x9020(%bx), %ax\nint3");
SNIP16(rm_push_sp, "push %sp\npop %ax\nint3");
SNIP16(rm_sp_wrap, "mov $0x7000, %ax\nmov %ax, %ss\nxor %sp, %sp\nmov $0xbeef, %ax\npush %ax\n"
		   "mov %sp, %bx\nint3");
SNIP16(rm_push_imm, "pushl $0x12345678\npop %ax\npop %bx\npush $-2\npop %cx\nint3");
SNIP16(rm_pusha,
       "mov $1, %ax\nmov $2, %cx\nmov $3, %dx\nmov $4, %bx\nmov $5, %bp\nmov $6, %si\n"
       "mov $7, %di\npusha\nmov %sp, %bp\nmov 0(%bp), %ax\nmov 6(%bp), %bx\nadd $16, %sp\nint3");
SNIP16(rm_enter, "mov $0x1111, %bp\nenter $6, $0\nmov %sp, %ax\nmov %bp, %bx\nleave\nint3");
SNIP16(rm_jmp_far,
       "ljmp $0x0100, $rm_jmp_far_there - 0x1000\nint3\nrm_jmp_far_there: mov %cs, %ax\n"
       "ljmp $0, $1f\n1: int3");
SNIP16(rm_call_far, "lcall $0x0100, $rm_call_far_there - 0x1000\nrm_call_back: int3\n"
		    "rm_call_far_there: mov %sp, %bp\nmov 0(%bp), %ax\nmov 2(%bp), %bx\nlret");
SNIP16(rm_o32_call, "calll rm_o32_there\nrm_o32_back: int3\nrm_o32_there: mov %sp, %bx\nretl");
SNIP16(rm_jmp_beyond, "jmpl *rm_big\nrm_big: .long 0x12340\nint3");
SNIP16(rm_lds, "lds rm_ptr, %bx\nint3\nrm_ptr: .word 0x4321, 0x0abc");
SNIP16(rm_unreal,
       "cli\nlgdtl rm_unreal_gdt\nmov %cr0, %eax\nor $1, %al\nmov %eax, %cr0\njmp 1f\n1: mov $" STR(
	       KDATA) ", %bx\n"
		      "mov %bx, %fs\nand $0xfe, %al\nmov %eax, %cr0\njmp 1f\n1: mov $0x100000, %esi\n"
		      "addr32 mov %fs:(%esi), %ebx\nint3\nrm_unreal_gdt: .word 0x1ff\n.long gdt");
SNIP16(rm_movs, "cld\nmov $rm_movs_from, %si\nmov $0x9100, %di\nmov $5, %cx\nrep movsb %cs:(%si), "
		"%es:(%di)\nint3\nrm_movs_from: .ascii \"hanok\"");
SNIP16(rm_loop, "mov $0x10003, %ecx\nxor %ax, %ax\n1: inc %ax\nloop 1b\nint3");
SNIP16(rm_loop32, "mov $3, %ecx\nmov $0x10000, %edx\nor %edx, %ecx\nmov $0, %ax\njcxz 1f\ninc %ax\n"
		  "1: mov $0x10000, %ecx\njcxz 2f\ninc %ax\n2: jecxz 3f\nor $0x100, %ax\n3: int3");
extern char rm_ss_wrap_at[], rm_a32_at[], rm_call_back[], rm_o32_back[];

static void memory(void)
{
	group("memory");
	go(rm_base);
	check_eq("a segment starts at 16 times its value", *low16(0x9010), 0x5a5a);
	*low16(0x100000) = 0x1d0d;
	u32 want = *(volatile u32 *)low16(0x100000);
	go(rm_hma);
	check_eq("ffff:0010 is 1 MiB (A20 on)", out.ebx & 0xffff, want & 0xffff);
	go(rm_word_wrap);
	check_vec("word at 0xffff is #GP", GP, rm_word_wrap + 3);
	go(rm_ss_wrap);
	check_vec("word at ss:0xffff is #SS", SS, rm_ss_wrap_at);
	go(rm_a32);
	check_vec("32-bit offset beyond 64 KiB is #GP", GP, rm_a32_at);
	*low16(0x9010) = 0x1357;
	go(rm_wrap16);
	check_eq("a 16-bit address wraps", out.eax & 0xffff, 0x1357);
	go(rm_unreal);
	check_eq("a large limit outlives protected mode", out.ebx,
		 *(volatile u32 *)low16(0x100000));
	go(rm_movs);
	check("rep movsb with a cs override", !memcmp((void *)low16(0x9100), "hanok", 5));
	check_eq("rep counts cx down", out.ecx & 0xffff, 0);
	go(rm_lds);
	check_eq("lds", (u32)out.ds << 16 | (out.ebx & 0xffff), 0x0abc4321);

	group("stack");
	go(rm_push_sp);
	check_eq("push sp stores the old value", out.eax & 0xffff, STACK);
	*low16(0x7fffe) = 0;
	go(rm_sp_wrap);
	check_eq("push at sp 0 wraps to 0xfffe", out.ebx & 0xffff, 0xfffe);
	check_eq("and stores there", *low16(0x7fffe), 0xbeef);
	go(rm_push_imm);
	check_eq("push of a 32-bit immediate", out.ebx << 16 | (out.eax & 0xffff), 0x12345678);
	check_eq("push of a sign-extended byte", out.ecx & 0xffff, 0xfffe);
	go(rm_pusha);
	check_eq("pusha: di lowest, sp as it was", (out.eax & 0xffff) << 16 | (out.ebx & 0xffff),
		 7 << 16 | STACK);
	go(rm_enter);
	check_eq("enter", (out.eax & 0xffff) << 16 | (out.ebx & 0xffff),
		 (u32)(STACK - 8) << 16 | (STACK - 2));
	check_eq("leave", (out.ebp & 0xffff) << 16 | (out.esp & 0xffff), 0x1111 << 16 | STACK);

	group("transfer");
	go(rm_jmp_far);
	check_eq("far jmp", out.eax & 0xffff, 0x100);
	go(rm_call_far);
	check_eq("far call pushes ip then cs", (out.ebx & 0xffff) << 16 | (out.eax & 0xffff),
		 (u16)(ulong)rm_call_back);
	check_vec("far ret comes back", BP, rm_call_back + 1);
	go(rm_o32_call);
	check_eq("32-bit near call pushes four bytes", out.ebx & 0xffff, STACK - 4);
	check_vec("and its ret comes back", BP, rm_o32_back + 1);
	*low16(0x12340) = 0xcccc; /* for a CPU that does go there */
	go(rm_jmp_beyond);
	check_vec("jmp beyond 64 KiB is #GP", GP, rm_jmp_beyond);
	go(rm_loop);
	check_eq("loop counts cx, not ecx", out.eax & 0xffff, 3);
	go(rm_loop32);
	check_eq("jcxz tests cx, jecxz ecx", out.eax & 0xffff, 0x101);
}

SNIP16(rm_popf, "push $0x7202\npopf\npushf\npop %ax\npush $2\npopf\nint3");
SNIP16(rm_popf_all, "push $-257\npopf\npushf\npop %ax\npush $2\npopf\nint3");
SNIP16(rm_smsw, "smsw %ax\nint3");
SNIP16(rm_sgdt, "sgdtw 0x9200\nint3");
SNIP16(rm_sidt, "sidtl 0x9210\nint3");
SNIP16(rm_cr0, "mov %cr0, %eax\nint3");
SNIP16(rm_cpuid, "xor %eax, %eax\ncpuid\nint3");
SNIP16(rm_step, "pushw $0x0102\npopfw\nrm_step_at: nop\nrm_step_next: nop\nint3");
SNIP16(rm_hlt, "sti\nhlt\nrm_hlt_next: int3");
SNIP16(rm_lock, ".byte 0xf0\nmov %ax, 0x9000\nint3");
SNIP16(rm_long, ".rept 15\n.byte 0x3e\n.endr\nnop\nint3");
SNIP16(rm_fifteen, ".rept 14\n.byte 0x3e\n.endr\nnop\nint3");
SNIP16(rm_arpl, ".byte 0x63, 0xc8\nint3");
SNIP16(rm_lldt, "lldt %ax\nint3");
SNIP16(rm_str, "str %ax\nint3");
SNIP16(rm_lar, "lar %ax, %bx\nint3");
SNIP16(rm_verr, "verr %ax\nint3");
SNIP16(rm_ltr, "ltr %ax\nint3");
SNIP16(rm_lmsw, "mov $0x10, %ax\nlmsw %ax\nsmsw %ax\nint3");
SNIP16(rm_clts, "clts\nmov %cr0, %eax\nint3");
SNIP16(rm_mov_cs, ".byte 0x8e, 0xc8\nint3");
SNIP16(rm_o32_regs,
       "mov $0xaaaabbbb, %eax\nmov $0x1234, %ax\nmovzx %al, %ebx\nmovsx %ax, %ecx\nint3");
SNIP16(rm_moffs, "movw $0x2468, 0x9300\nmov 0x9300, %ax\naddr32 mov 0x9300, %bx\nint3");
SNIP16(rm_sahf, "mov $0xff, %ah\nsahf\nlahf\nint3");
SNIP16(rm_out_in, "mov $0x3ff, %dx\nmov $0xa5, %al\nout %al, %dx\nxor %al, %al\nin %dx, %al\nint3");
extern char rm_step_next[], rm_hlt_next[];

static void system(void)
{
	static const struct {
		const char *name, *code;
	} undefined[] = {
		{"arpl is #UD", rm_arpl},     {"lldt is #UD", rm_lldt},
		{"str is #UD", rm_str},	      {"lar is #UD", rm_lar},
		{"verr is #UD", rm_verr},     {"ltr is #UD", rm_ltr},
		{"lock mov is #UD", rm_lock}, {"mov to cs is #UD", rm_mov_cs},
	};

	group("system");
	for (size_t i = 0; i < ARRAY_SIZE(undefined); i++) {
		go(undefined[i].code);
		check_vec(undefined[i].name, UD, undefined[i].code);
	}
	go(rm_popf);
	check_mask("popf sets IOPL, NT and IF", out.eax, 0x7202, 0x7202);
	go(rm_popf_all);
	check_mask("bit 15 reads 0, bit 1 reads 1, 3 and 5 read 0", out.eax, 2, 0x802a);
	go(rm_smsw);
	check_mask("smsw shows PE clear", out.eax, 0, CR0_PE);
	go(rm_sgdt);
	check_eq("sgdt limit", *low16(0x9200), 0x1ff);
	go(rm_sidt);
	check_eq("sidt limit", *low16(0x9210), 0x3ff);
	go(rm_cr0);
	check_mask("cr0: PE and PG clear, ET set", out.eax, CR0_ET, CR0_PE | CR0_PG | CR0_ET);
	go(rm_lmsw);
	check_mask("lmsw leaves PE clear when asked to", out.eax, 0, CR0_PE);
	write_cr0(read_cr0() | CR0_TS);
	go(rm_clts);
	check_mask("clts", out.eax, 0, CR0_TS);
	go(rm_cpuid);
	check("cpuid", out.eax >= 1);
	go(rm_step);
	check_vec("TF steps over the instruction after popf", DB, rm_step_next);
	go(rm_long);
	check_vec("an instruction of 16 bytes is #GP", GP, rm_long);
	go(rm_fifteen);
	check_vec("an instruction of 15 bytes runs", BP, rm_fifteen + 16);
	go(rm_o32_regs);
	check_eq("16-bit writes keep the high half", out.eax, 0xaaaa1234);
	check_eq("movzx to 32 bits", out.ebx, 0x34);
	go(rm_moffs);
	check_eq("16- and 32-bit offsets", (out.eax & 0xffff) << 16 | (out.ebx & 0xffff),
		 0x24682468);
	go(rm_sahf);
	check_eq("sahf then lahf", out.eax >> 8 & 0xff, 0xd7);
	go(rm_out_in);
	check_eq("out and in (the UART's scratch register)", out.eax & 0xff, 0xa5);

	/* IRQ0 through the IVT. */
	pic_init(0xfe, 0xff);
	outb(0x43, 0x34);
	outb(0x40, 0);
	outb(0x40, 0x10);
	go(rm_hlt);
	check_vec("hlt is woken by IRQ0", 0x20, rm_hlt_next);
	pic_eoi(0);
	outb(0x21, 0xff);
}

int main(void)
{
	ivt_reset();
	interrupts();
	memory();
	system();
	return 0;
}
