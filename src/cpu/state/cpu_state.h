/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_STATE_CPU_STATE_H
#define HANOK_CPU_STATE_CPU_STATE_H

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * The architectural state of one vCPU, the same for every engine: a VM can be saved on one engine
 * and go on on another. Register numbers are the instruction encoding's. SDM: Intel Software
 * Developer's Manual; APM: AMD64 Architecture Programmer's Manual.
 */
enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, GPR_NR };
enum seg_reg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_NR };

/*
 * A segment register with its hidden part. attr is bits 8 to 23 of a descriptor's high doubleword,
 * shifted down by 8 (SDM 3.4.5): type 3:0, S 4, DPL 6:5, P 7, limit 19:16 (kept 0 here) 11:8, AVL
 * 12, L 13, D/B 14, G 15. limit is in bytes, scaled, inclusive. SEG_UNUSABLE marks a null selector.
 */
enum {
	SEG_TYPE = 0x000f,
	SEG_TYPE_ACCESSED = 0x0001,
	SEG_TYPE_WR = 0x0002, /* data: writable; code: readable */
	SEG_TYPE_DC = 0x0004, /* data: expand-down; code: conforming */
	SEG_TYPE_CODE = 0x0008,
	SEG_S = 0x0010, /* code or data, not system */
	SEG_DPL_SHIFT = 5,
	SEG_DPL = 0x0060,
	SEG_P = 0x0080,
	SEG_AVL = 0x1000,
	SEG_L = 0x2000,
	SEG_DB = 0x4000,
	SEG_G = 0x8000,
};
#define SEG_UNUSABLE 0x10000u

struct segment {
	uint16_t sel;
	uint32_t attr;
	uint32_t limit;
	uint64_t base;
};

struct table_reg {
	uint16_t limit;
	uint64_t base;
};

/* RFLAGS (SDM 3.4.3). */
#define FLAG_CF UINT64_C(0x0001)
#define FLAG_R1 UINT64_C(0x0002) /* always 1 */
#define FLAG_PF UINT64_C(0x0004)
#define FLAG_AF UINT64_C(0x0010)
#define FLAG_ZF UINT64_C(0x0040)
#define FLAG_SF UINT64_C(0x0080)
#define FLAG_TF UINT64_C(0x0100)
#define FLAG_IF UINT64_C(0x0200)
#define FLAG_DF UINT64_C(0x0400)
#define FLAG_OF UINT64_C(0x0800)
#define FLAG_IOPL UINT64_C(0x3000)
#define FLAG_NT UINT64_C(0x4000)
#define FLAG_RF UINT64_C(0x10000)
#define FLAG_VM UINT64_C(0x20000)
#define FLAG_AC UINT64_C(0x40000)
#define FLAG_VIF UINT64_C(0x80000)
#define FLAG_VIP UINT64_C(0x100000)
#define FLAG_ID UINT64_C(0x200000)
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

/* Control registers (SDM 2.5). */
#define CR0_PE UINT64_C(0x1)
#define CR0_MP UINT64_C(0x2)
#define CR0_EM UINT64_C(0x4)
#define CR0_TS UINT64_C(0x8)
#define CR0_ET UINT64_C(0x10)
#define CR0_NE UINT64_C(0x20)
#define CR0_WP UINT64_C(0x10000)
#define CR0_AM UINT64_C(0x40000)
#define CR0_NW UINT64_C(0x20000000)
#define CR0_CD UINT64_C(0x40000000)
#define CR0_PG UINT64_C(0x80000000)
#define CR4_VME UINT64_C(0x1)
#define CR4_PVI UINT64_C(0x2)
#define CR4_TSD UINT64_C(0x4)
#define CR4_DE UINT64_C(0x8)
#define CR4_PSE UINT64_C(0x10)
#define CR4_PAE UINT64_C(0x20)
#define CR4_MCE UINT64_C(0x40)
#define CR4_PGE UINT64_C(0x80)
#define CR4_PCE UINT64_C(0x100)
#define CR4_OSFXSR UINT64_C(0x200)
#define CR4_OSXMMEXCPT UINT64_C(0x400)
#define CR4_UMIP UINT64_C(0x800)
#define CR4_FSGSBASE UINT64_C(0x10000)
#define CR4_PCIDE UINT64_C(0x20000)
#define CR4_OSXSAVE UINT64_C(0x40000)
#define CR4_SMEP UINT64_C(0x100000)
#define CR4_SMAP UINT64_C(0x200000)
#define EFER_SCE UINT64_C(0x1)
#define EFER_LME UINT64_C(0x100)
#define EFER_LMA UINT64_C(0x400)
#define EFER_NXE UINT64_C(0x800)

/* Exception vectors (SDM 6.3.1). */
enum vector {
	VEC_DE = 0,
	VEC_DB = 1,
	VEC_NMI = 2,
	VEC_BP = 3,
	VEC_OF = 4,
	VEC_BR = 5,
	VEC_UD = 6,
	VEC_NM = 7,
	VEC_DF = 8,
	VEC_TS = 10,
	VEC_NP = 11,
	VEC_SS = 12,
	VEC_GP = 13,
	VEC_PF = 14,
	VEC_MF = 16,
	VEC_AC = 17,
	VEC_MC = 18,
	VEC_XM = 19
};

/* What the vCPU is doing between instructions. */
enum activity {
	ACTIVITY_RUNNING,
	ACTIVITY_HALTED,    /* after HLT, until an interrupt */
	ACTIVITY_WAIT_SIPI, /* an application processor after INIT */
	ACTIVITY_SHUTDOWN,  /* after a triple fault */
};

/* Interrupt shadows (SDM 6.8.3): for the one instruction after STI, MOV SS or POP SS. */
enum { SHADOW_NONE = 0, SHADOW_STI = 1, SHADOW_MOV_SS = 2 };

enum { MTRR_VAR_NR = 8, XSAVE_BYTES = 832 };

/*
 * XSAVE area in the standard (not compacted) form: legacy 512 bytes, header 64, AVX high halves 256
 * at 576 (SDM 13.4). The header's XSTATE_BV is kept with all of x87, SSE and AVX set while a vCPU
 * runs: the area always holds true values; what XSAVEOPT/XINUSE report is decided by the values.
 */
struct xsave_area {
	alignas(64) uint8_t bytes[XSAVE_BYTES];
};
enum {
	XSAVE_FCW = 0,
	XSAVE_FSW = 2,
	XSAVE_FTW = 4,
	XSAVE_FOP = 6,
	XSAVE_FIP = 8,
	XSAVE_FDP = 16,
	XSAVE_MXCSR = 24,
	XSAVE_ST0 = 32,
	XSAVE_XMM0 = 160,
	XSAVE_BV = 512,
	XSAVE_YMMH0 = 576
};
enum { XCR0_X87 = 1, XCR0_SSE = 2, XCR0_AVX = 4 };

struct cpu_state {
	uint64_t gpr[GPR_NR];
	uint64_t rip;
	uint64_t rflags;
	struct segment seg[SEG_NR]; /* FS and GS bases are the 64-bit ones */
	struct segment ldtr, tr;
	struct table_reg gdt, idt;
	uint64_t cr0, cr2, cr3, cr4; /* CR8 is the local APIC's TPR */
	uint64_t pdpte[4];	     /* PAE paging loads these with CR3 (SDM 4.4.1) */
	uint64_t efer, xcr0;
	uint64_t dr[4], dr6, dr7;

	/* MSRs an engine holds itself (cpu/state/msr.h names them). */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, tsc_aux, misc_enable, spec_ctrl;
	uint64_t tsc_offset; /* guest TSC = host TSC + this */
	uint64_t tsc_adjust;
	uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_var[2 * MTRR_VAR_NR];
	uint64_t mcg_status, mcg_ctl;
	uint64_t debugctl; /* DEBUG_CTL_* of cpu/state/msr.h */

	uint8_t activity; /* enum activity */
	uint8_t shadow;	  /* SHADOW_* for the next instruction */
	bool nmi_blocked; /* from NMI delivery to IRET */
	bool nmi_pending;
	/* An event whose delivery was begun but not finished (between runs only): a vector with what
	 * it carries. Engines re-deliver it first. */
	bool event_pending;
	uint8_t event_vector;
	uint8_t event_kind; /* enum event_kind */
	bool event_has_error;
	uint32_t event_error;

	struct xsave_area xsave;
};

enum event_kind {
	EVENT_EXTERNAL, /* interrupt from the APIC or PIC */
	EVENT_NMI,
	EVENT_EXCEPTION, /* hardware exception; rip is at the instruction (faults) or after (traps) */
	EVENT_SOFT_INT, /* INT n; INT3, INTO (vectors 3, 4): return address after it */
	EVENT_ICEBP,	/* INT1: like a software interrupt, no DPL check (SDM 6.8.3 of Vol. 3) */
};

/* Power-up state (SDM 10.1.1, Vol. 3): real mode at F000:FFF0. cpu is 0 for the boot processor;
 * others wait for SIPI. */
void cpu_state_reset(struct cpu_state *s, unsigned cpu);

/* What INIT leaves (SDM table 10-1): as reset, but x87/SSE state, XCR0's contents, MTRRs, PAT, TSC
 * and most MSRs stay. The vCPU then waits for SIPI unless boot is true. */
void cpu_state_init(struct cpu_state *s, bool boot);

/* MTRRs as PC firmware leaves them: RAM is write-back, legacy video memory and the device hole
 * [hole, hole + bytes) uncached, the BIOS area write-protected. bytes is a power of two that hole is
 * a multiple of. For guests that are started without firmware. */
void cpu_state_memory_types(struct cpu_state *s, uint64_t hole, uint64_t bytes);

static inline bool cpu_in_long_mode(const struct cpu_state *s)
{
	return s->efer & EFER_LMA;
}

static inline bool cpu_in_64bit(const struct cpu_state *s)
{
	return (s->efer & EFER_LMA) && (s->seg[SEG_CS].attr & SEG_L);
}

/* Current privilege level: SS's DPL (SDM 5.5; kept equal to CPL also in real mode (0) and
 * virtual-8086 mode (3)). */
static inline unsigned cpu_cpl(const struct cpu_state *s)
{
	return (s->seg[SEG_SS].attr & SEG_DPL) >> SEG_DPL_SHIFT;
}

#endif
