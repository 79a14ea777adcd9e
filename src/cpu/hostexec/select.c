/* SPDX-License-Identifier: Apache-2.0 */
#include <cpuid.h>
#include <pthread.h>
#include <string.h>
#include <x86intrin.h>

#include "cpu/hostexec/form.h"
#include "cpu/state/host.h"

/* ---- what the host has ---- */

enum cpuid_reg { EAX_, EBX_, ECX_, EDX_ };

/* Where CPUID says so (SDM Vol. 2, CPUID; APM Vol. 3, appendix E). leaf 0: always there. */
static const struct isa {
	uint16_t set; /* ZydisISASet */
	uint32_t leaf, subleaf;
	uint8_t reg, bit;
	bool avx; /* needs YMM state enabled by the host's kernel, too */
} isas[] = {
	{ZYDIS_ISA_SET_I86, 0},
	{ZYDIS_ISA_SET_I186, 0},
	{ZYDIS_ISA_SET_I386, 0},
	{ZYDIS_ISA_SET_I486, 0},
	{ZYDIS_ISA_SET_PPRO, 0},
	{ZYDIS_ISA_SET_X87, 1, 0, EDX_, 0},
	{ZYDIS_ISA_SET_FCMOV, 1, 0, EDX_, 15},
	{ZYDIS_ISA_SET_PENTIUMMMX, 1, 0, EDX_, 23},
	{ZYDIS_ISA_SET_CLFSH, 1, 0, EDX_, 19},
	{ZYDIS_ISA_SET_SSE, 1, 0, EDX_, 25},
	{ZYDIS_ISA_SET_SSEMXCSR, 1, 0, EDX_, 25},
	{ZYDIS_ISA_SET_SSE_PREFETCH, 1, 0, EDX_, 25},
	{ZYDIS_ISA_SET_PREFETCH_NOP, 1, 0, EDX_, 25},
	{ZYDIS_ISA_SET_SSE2, 1, 0, EDX_, 26},
	{ZYDIS_ISA_SET_SSE2MMX, 1, 0, EDX_, 26},
	{ZYDIS_ISA_SET_SSE3, 1, 0, ECX_, 0},
	{ZYDIS_ISA_SET_SSE3X87, 1, 0, ECX_, 0},
	{ZYDIS_ISA_SET_PCLMULQDQ, 1, 0, ECX_, 1},
	{ZYDIS_ISA_SET_SSSE3, 1, 0, ECX_, 9},
	{ZYDIS_ISA_SET_SSSE3MMX, 1, 0, ECX_, 9},
	{ZYDIS_ISA_SET_FMA, 1, 0, ECX_, 12, true},
	{ZYDIS_ISA_SET_SSE4, 1, 0, ECX_, 19},
	{ZYDIS_ISA_SET_SSE42, 1, 0, ECX_, 20},
	{ZYDIS_ISA_SET_MOVBE, 1, 0, ECX_, 22},
	{ZYDIS_ISA_SET_POPCNT, 1, 0, ECX_, 23},
	{ZYDIS_ISA_SET_AES, 1, 0, ECX_, 25},
	{ZYDIS_ISA_SET_AVX, 1, 0, ECX_, 28, true},
	{ZYDIS_ISA_SET_AVXAES, 1, 0, ECX_, 25, true},
	{ZYDIS_ISA_SET_F16C, 1, 0, ECX_, 29, true},
	{ZYDIS_ISA_SET_BMI1, 7, 0, EBX_, 3},
	{ZYDIS_ISA_SET_AVX2, 7, 0, EBX_, 5, true},
	{ZYDIS_ISA_SET_AVX2GATHER, 7, 0, EBX_, 5, true},
	{ZYDIS_ISA_SET_BMI2, 7, 0, EBX_, 8},
	{ZYDIS_ISA_SET_ADOX_ADCX, 7, 0, EBX_, 19},
	{ZYDIS_ISA_SET_CLFLUSHOPT, 7, 0, EBX_, 23},
	{ZYDIS_ISA_SET_CLWB, 7, 0, EBX_, 24},
	{ZYDIS_ISA_SET_SHA, 7, 0, EBX_, 29},
	{ZYDIS_ISA_SET_GFNI, 7, 0, ECX_, 8},
	{ZYDIS_ISA_SET_AVX_GFNI, 7, 0, ECX_, 8, true},
	{ZYDIS_ISA_SET_VAES, 7, 0, ECX_, 9, true},
	{ZYDIS_ISA_SET_VPCLMULQDQ, 7, 0, ECX_, 10, true},
	{ZYDIS_ISA_SET_AVX_VNNI, 7, 1, EAX_, 4, true},
	{ZYDIS_ISA_SET_LZCNT, 0x80000001, 0, ECX_, 5},
	{ZYDIS_ISA_SET_SSE4A, 0x80000001, 0, ECX_, 6},
};

static struct {
	bool has[ZYDIS_ISA_SET_MAX_VALUE + 1];
	uint32_t mxcsr_mask;
	bool amd;
	bool cvtpi2ps_mmx; /* CVTPI2PS from memory is an MMX instruction, too */
} host;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool host_bit(const struct isa *a)
{
	uint32_t r[4];

	host_cpuid(a->leaf & 0x80000000, 0, r);
	if (r[EAX_] < a->leaf)
		return false;
	host_cpuid(a->leaf, a->subleaf, r);
	return r[a->reg] >> a->bit & 1;
}

/* Its manuals say so, those of CVTPI2PD do not, and processors treat both alike: TOP tells. */
static bool cvtpi2ps_enters_mmx(void)
{
	const uint64_t zero = 0;
	uint16_t status;

	__asm__ volatile("fninit\n\tfld1\n\tcvtpi2ps %[zero], %%xmm0\n\tfnstsw %[status]\n\tfninit"
			 : [status] "=m"(status)
			 : [zero] "m"(zero)
			 : "xmm0", "memory");
	return !(status & 0x3800);
}

static void look_at_host(void)
{
	bool avx = host_has_avx();

	for (unsigned k = 0; k < sizeof(isas) / sizeof(isas[0]); k++) {
		const struct isa *a = &isas[k];

		host.has[a->set] = !a->leaf || ((!a->avx || avx) && host_bit(a));
	}
	uint32_t v[4];
	host.amd = __get_cpuid(0, &v[0], &v[1], &v[2], &v[3]) &&
		   (v[1] == 0x68747541 || v[1] == 0x6f677948); /* "Auth", "Hygo" */
	host.cvtpi2ps_mmx = cvtpi2ps_enters_mmx();
	struct {
		alignas(16) uint8_t bytes[512];
	} fx = {0};
	_fxsave64(&fx);
	memcpy(&host.mxcsr_mask, fx.bytes + 28, 4);
	if (!host.mxcsr_mask)
		host.mxcsr_mask = 0xffbf; /* SDM Vol. 1, 11.6.6 */
	host.mxcsr_mask &=
		0xffff; /* not AMD's misaligned exception mask: CPUID does not offer it */
}

bool hostexec_supports(ZydisISASet set)
{
	pthread_once(&once, look_at_host);
	return set <= ZYDIS_ISA_SET_MAX_VALUE && host.has[set];
}

uint32_t hostexec_mxcsr_mask(void)
{
	pthread_once(&once, look_at_host);
	return host.mxcsr_mask;
}

/* ---- what kind of instruction it is ---- */

/* Register files that an instruction touches. */
enum { USES_MM = 1, USES_XMM = 2 };

static unsigned register_files(const struct decoded *d)
{
	unsigned uses = 0;

	for (unsigned k = 0; k < d->z.operand_count; k++) {
		if (d->op[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(d->op[k].reg.value)) {
		case ZYDIS_REGCLASS_MMX:
			uses |= USES_MM;
			break;
		case ZYDIS_REGCLASS_XMM:
		case ZYDIS_REGCLASS_YMM:
			uses |= USES_XMM;
			break;
		default:
			break;
		}
	}
	return uses;
}

static bool is_x87(const struct decoded *d)
{
	return d->z.meta.isa_ext == ZYDIS_ISA_EXT_X87 || d->z.mnemonic == ZYDIS_MNEMONIC_FISTTP;
}

static bool no_wait(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_FNSTENV || m == ZYDIS_MNEMONIC_FNSAVE ||
	       m == ZYDIS_MNEMONIC_FNSTCW || m == ZYDIS_MNEMONIC_FNSTSW ||
	       m == ZYDIS_MNEMONIC_FNCLEX || m == ZYDIS_MNEMONIC_FNINIT ||
	       m == ZYDIS_MNEMONIC_FENI8087_NOP || m == ZYDIS_MNEMONIC_FDISI8087_NOP ||
	       m == ZYDIS_MNEMONIC_FSETPM287_NOP;
}

/* x87 control instructions leave the last instruction's opcode and pointers alone. */
static bool is_control(ZydisMnemonic m)
{
	return no_wait(m) || m == ZYDIS_MNEMONIC_FLDCW || m == ZYDIS_MNEMONIC_FLDENV ||
	       m == ZYDIS_MNEMONIC_FRSTOR || m == ZYDIS_MNEMONIC_FNOP;
}

/* Between MMX and XMM registers or memory; the memory forms name only one of them. */
static bool converts_mmx(const struct decoded *d)
{
	ZydisMnemonic m = d->z.mnemonic;

	if (m == ZYDIS_MNEMONIC_CVTPI2PS)
		return host.cvtpi2ps_mmx || d->z.raw.modrm.mod == 3;
	return m == ZYDIS_MNEMONIC_CVTPS2PI || m == ZYDIS_MNEMONIC_CVTTPS2PI ||
	       m == ZYDIS_MNEMONIC_CVTPD2PI || m == ZYDIS_MNEMONIC_CVTTPD2PI;
}

static enum form_check check_kind(const struct decoded *d)
{
	unsigned uses = register_files(d);
	bool vex = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;

	if (is_x87(d))
		return no_wait(d->z.mnemonic) ? CHECK_X87_NOWAIT : CHECK_X87;
	if (vex)
		return uses & USES_XMM || d->z.meta.isa_set == ZYDIS_ISA_SET_AVX ? CHECK_AVX
										 : CHECK_VEX_GPR;
	if (converts_mmx(d))
		return CHECK_MMX_SSE;
	if (uses & USES_MM || d->z.mnemonic == ZYDIS_MNEMONIC_EMMS)
		return uses & USES_XMM ? CHECK_MMX_SSE : CHECK_MMX;
	if (uses & USES_XMM || d->z.meta.isa_set == ZYDIS_ISA_SET_SSEMXCSR)
		return CHECK_SSE;
	return CHECK_NONE;
}

static bool uses_mxcsr(const struct decoded *d)
{
	switch (d->z.meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_SSE2:
	case ZYDIS_EXCEPTION_CLASS_SSE3:
	case ZYDIS_EXCEPTION_CLASS_AVX2:
	case ZYDIS_EXCEPTION_CLASS_AVX3:
	case ZYDIS_EXCEPTION_CLASS_AVX11:
		return true;
	default:
		break;
	}
	switch (d->z.mnemonic) { /* no exceptions, but rounding or DAZ may matter */
	case ZYDIS_MNEMONIC_RCPPS:
	case ZYDIS_MNEMONIC_RCPSS:
	case ZYDIS_MNEMONIC_RSQRTPS:
	case ZYDIS_MNEMONIC_RSQRTSS:
	case ZYDIS_MNEMONIC_VRCPPS:
	case ZYDIS_MNEMONIC_VRCPSS:
	case ZYDIS_MNEMONIC_VRSQRTPS:
	case ZYDIS_MNEMONIC_VRSQRTSS:
	case ZYDIS_MNEMONIC_CVTPI2PD: /* memory forms, which Zydis gives no class */
	case ZYDIS_MNEMONIC_CVTPI2PS:
		return true;
	default:
		return false;
	}
}

/* 128-bit legacy operands that need no alignment (SDM Vol. 2, table 2-20). */
static bool unaligned_is_fine(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return true;
	default:
		return false;
	}
}

static void set_alignment(const struct decoded *d, struct form *f)
{
	/* AMD's SHA instructions take any address; Intel's do not. */
	if (d->z.meta.isa_set == ZYDIS_ISA_SET_SHA && host.amd)
		return;
	if (d->z.mnemonic == ZYDIS_MNEMONIC_CVTPD2PI || d->z.mnemonic == ZYDIS_MNEMONIC_CVTTPD2PI)
		f->align = f->mem_bytes;
	switch (d->z.meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_AVX1:
		f->align = f->mem_bytes;
		break;
	case ZYDIS_EXCEPTION_CLASS_SSE1:
	case ZYDIS_EXCEPTION_CLASS_SSE2:
	case ZYDIS_EXCEPTION_CLASS_SSE4:
		if (f->mem_bytes == 16 && !unaligned_is_fine(d->z.mnemonic))
			f->align = 16;
		break;
	default:
		break;
	}
}

void form_classify(const struct decoded *d, struct form *f)
{
	f->check = check_kind(d);
	for (unsigned k = 0; k < d->z.operand_count; k++) {
		const ZydisDecodedOperand *op = &d->op[k];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			f->mem_bytes = op->size / 8;
			if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
				f->flags |= FORM_READ;
			if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
				f->flags |= FORM_WRITE;
		} else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
			   ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_FLAGS) {
			f->flags |= FORM_FLAGS;
		}
	}
	switch (f->check) {
	case CHECK_MMX_SSE:
		f->flags |= FORM_FX | FORM_FX_XMM;
		break;
	case CHECK_MMX:
	case CHECK_X87:
	case CHECK_X87_NOWAIT:
		f->flags |= FORM_FX;
		if (is_x87(d) && !is_control(d->z.mnemonic))
			f->flags |= FORM_POINTERS;
		break;
	default:
		if (uses_mxcsr(d))
			f->flags |= FORM_SIMD_FP;
		break;
	}
	/* "Type 11 (do not report #AC)" (SDM, VCVTPH2PS and VCVTPS2PH). */
	if (d->z.meta.isa_set == ZYDIS_ISA_SET_F16C)
		f->flags |= FORM_NO_AC;
	if (d->z.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH)
		f->flags |= FORM_HALF_OUT;
	set_alignment(d, f);
}

/* ---- selection ---- */

/*
 * Of the base instruction sets only those named here are run: they hold system instructions, jumps
 * and UD2 as well, and a guest must never choose what this process executes. All other sets that
 * `isas` lists are pure arithmetic.
 */
static bool base_set_allows(const struct decoded *d)
{
	switch (d->z.meta.isa_set) {
	case ZYDIS_ISA_SET_I86:
	case ZYDIS_ISA_SET_I186:
	case ZYDIS_ISA_SET_I386:
	case ZYDIS_ISA_SET_I486:
	case ZYDIS_ISA_SET_PPRO:
		return d->z.mnemonic == ZYDIS_MNEMONIC_SHLD ||
		       d->z.mnemonic == ZYDIS_MNEMONIC_SHRD ||
		       d->z.meta.isa_ext == ZYDIS_ISA_EXT_X87; /* FCOMI came with the PPRO */
	default:
		return true;
	}
}

op_fn *hostexec_select(const struct decoded *d, struct insn *i)
{
	if (!hostexec_supports(d->z.meta.isa_set) || (i->flags & INSN_LOCK) || !base_set_allows(d))
		return NULL;
	op_fn *fn = select_move(d, i);
	if (!fn)
		fn = select_masked(d, i);
	if (!fn)
		fn = select_control(d);
	if (fn)
		return fn;
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_FWAIT:
		return exec_fwait;
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FRSTOR:
		fn = exec_x87_env;
		break;
	default:
		fn = is_x87(d) || check_kind(d) == CHECK_MMX || check_kind(d) == CHECK_MMX_SSE
			     ? exec_x87
			     : exec_form;
		break;
	}
	i->aux = form_make(d, i);
	return i->aux ? fn : NULL;
}
