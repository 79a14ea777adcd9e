/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/hostexec/form.h"

/* MXCSR, clearing of YMM registers, fences and hints: what needs no run on the host. */

static void load_mxcsr(struct soft_cpu *c, const struct insn *i, enum form_check check)
{
	form_check(c, check);
	uint32_t v = cpu_read32(c, i->seg, cpu_ea(c, i));
	if (v & ~hostexec_mxcsr_mask())
		cpu_gp0(c);
	cpu_note_mxcsr(c, v);
	*guest_mxcsr(c) = v;
}

static void ldmxcsr(struct soft_cpu *c, const struct insn *i)
{
	load_mxcsr(c, i, CHECK_SSE);
}

static void vldmxcsr(struct soft_cpu *c, const struct insn *i)
{
	load_mxcsr(c, i, CHECK_AVX);
}

static void stmxcsr(struct soft_cpu *c, const struct insn *i)
{
	form_check(c, CHECK_SSE);
	cpu_write32(c, i->seg, cpu_ea(c, i), *guest_mxcsr(c));
}

static void vstmxcsr(struct soft_cpu *c, const struct insn *i)
{
	form_check(c, CHECK_AVX);
	cpu_write32(c, i->seg, cpu_ea(c, i), *guest_mxcsr(c));
}

/* Registers 8 to 15 are reached in 64-bit mode only. */
static unsigned vectors(const struct soft_cpu *c)
{
	return c->mode == MODE_64 ? 16 : 8;
}

static void vzeroupper(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	form_check(c, CHECK_AVX);
	memset(guest_ymmh(c, 0), 0, 16 * vectors(c));
}

static void vzeroall(struct soft_cpu *c, const struct insn *i)
{
	vzeroupper(c, i);
	memset(guest_xmm(c, 0), 0, 16 * vectors(c));
}

/* Guest memory is ordinary memory: the host's fence is the guest's. */
static void fence(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	__builtin_ia32_mfence();
}

static void lfence(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	__builtin_ia32_lfence();
}

static void hint(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
}

/* Caches are coherent with all that reads guest memory; the access rights are checked as a byte
 * load's are (SDM, CLFLUSH). */
static void flush_line(struct soft_cpu *c, const struct insn *i)
{
	cpu_probe(c, i->seg, cpu_ea(c, i), 1, false);
}

op_fn *select_control(const struct decoded *d)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_LDMXCSR:
		return ldmxcsr;
	case ZYDIS_MNEMONIC_VLDMXCSR:
		return vldmxcsr;
	case ZYDIS_MNEMONIC_STMXCSR:
		return stmxcsr;
	case ZYDIS_MNEMONIC_VSTMXCSR:
		return vstmxcsr;
	case ZYDIS_MNEMONIC_VZEROUPPER:
		return vzeroupper;
	case ZYDIS_MNEMONIC_VZEROALL:
		return vzeroall;
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
		return fence;
	case ZYDIS_MNEMONIC_LFENCE:
		return lfence;
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLFLUSHOPT:
	case ZYDIS_MNEMONIC_CLWB:
		return flush_line;
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
	case ZYDIS_MNEMONIC_PREFETCHW:
	case ZYDIS_MNEMONIC_PREFETCHWT1:
		return hint;
	default:
		return NULL;
	}
}
