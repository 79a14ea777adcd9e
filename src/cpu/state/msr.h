/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_STATE_MSR_H
#define HANOK_CPU_STATE_MSR_H

/*
 * Model-specific registers by number: SDM Vol. 4 ch. 2, APM Vol. 2 appendix A, and for AMD's
 * configuration registers the Processor Programming References.
 */
#define MSR_TSC			 0x00000010
#define MSR_PLATFORM_ID		 0x00000017
#define MSR_APIC_BASE		 0x0000001b
#define MSR_EBL_CR_POWERON	 0x0000002a
#define MSR_TEST_CTL		 0x00000033
#define MSR_SMI_COUNT		 0x00000034
#define MSR_FEATURE_CONTROL	 0x0000003a
#define MSR_TSC_ADJUST		 0x0000003b
#define MSR_SPEC_CTRL		 0x00000048
#define MSR_PRED_CMD		 0x00000049
#define MSR_BIOS_UPDT_TRIG	 0x00000079
#define MSR_BIOS_SIGN_ID	 0x0000008b /* AMD: PATCH_LEVEL */
#define MSR_PLATFORM_INFO	 0x000000ce
#define MSR_MTRR_CAP		 0x000000fe
#define MSR_ARCH_CAPABILITIES	 0x0000010a
#define MSR_BBL_CR_CTL3		 0x0000011e
#define MSR_MISC_FEATURE_ENABLES 0x00000140
#define MSR_SYSENTER_CS		 0x00000174
#define MSR_SYSENTER_ESP	 0x00000175
#define MSR_SYSENTER_EIP	 0x00000176
#define MSR_MCG_CAP		 0x00000179
#define MSR_MCG_STATUS		 0x0000017a
#define MSR_MCG_CTL		 0x0000017b
#define MSR_MISC_ENABLE		 0x000001a0
#define MSR_DEBUG_CTL		 0x000001d9
#define MSR_LAST_BRANCH_FROM	 0x000001db
#define MSR_LAST_INT_TO		 0x000001de
#define MSR_MTRR_VAR0		 0x00000200
#define MSR_MTRR_FIX64K		 0x00000250
#define MSR_MTRR_FIX16K		 0x00000258
#define MSR_MTRR_FIX4K		 0x00000268
#define MSR_PAT			 0x00000277
#define MSR_MTRR_DEF_TYPE	 0x000002ff
#define MSR_TSC_DEADLINE	 0x000006e0
#define MSR_X2APIC		 0x00000800
#define MSR_X2APIC_END		 0x00000900
#define MSR_XSS			 0x00000da0

#define MSR_EFER	   0xc0000080
#define MSR_STAR	   0xc0000081
#define MSR_LSTAR	   0xc0000082
#define MSR_CSTAR	   0xc0000083
#define MSR_SFMASK	   0xc0000084
#define MSR_FS_BASE	   0xc0000100
#define MSR_GS_BASE	   0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX	   0xc0000103

/* AMD only */
#define MSR_AMD_SYSCFG	       0xc0010010
#define MSR_AMD_HWCR	       0xc0010015
#define MSR_AMD_IORR_BASE0     0xc0010016
#define MSR_AMD_IORR_MASK1     0xc0010019
#define MSR_AMD_TOP_MEM	       0xc001001a
#define MSR_AMD_TOP_MEM2       0xc001001d
#define MSR_AMD_NB_CFG	       0xc001001f
#define MSR_AMD_PATCH_LOADER   0xc0010020
#define MSR_AMD_INT_PENDING    0xc0010055
#define MSR_AMD_MMIO_CONF_BASE 0xc0010058
#define MSR_AMD_SMM_BASE       0xc0010111
#define MSR_AMD_SMM_ADDR       0xc0010112
#define MSR_AMD_SMM_MASK       0xc0010113
#define MSR_AMD_VM_CR	       0xc0010114
#define MSR_AMD_OSVW_LENGTH    0xc0010140
#define MSR_AMD_OSVW_STATUS    0xc0010141
#define MSR_AMD_CPUID_7	       0xc0011002
#define MSR_AMD_CPUID_EXT1     0xc0011005
#define MSR_AMD_LS_CFG	       0xc0011020
#define MSR_AMD_IC_CFG	       0xc0011021
#define MSR_AMD_DC_CFG	       0xc0011022
#define MSR_AMD_BU_CFG	       0xc0011023
#define MSR_AMD_FP_CFG	       0xc0011028
#define MSR_AMD_DE_CFG	       0xc0011029
#define MSR_AMD_BU_CFG2	       0xc001102a
#define MSR_AMD_BU_CFG3	       0xc001102b

/* Bits */
#define MISC_ENABLE_FAST_STRINGS    (UINT64_C(1) << 0)
#define MISC_ENABLE_BTS_UNAVAILABLE (UINT64_C(1) << 11)
#define MISC_ENABLE_PEBS_UNAVAIL    (UINT64_C(1) << 12)
#define MISC_ENABLE_LIMIT_CPUID	    (UINT64_C(1) << 22)
#define MISC_ENABLE_XD_DISABLE	    (UINT64_C(1) << 34)
#define DEBUG_CTL_LBR		    (UINT64_C(1) << 0) /* kept; no branch records are offered */
#define DEBUG_CTL_BTF		    (UINT64_C(1) << 1) /* TF traps on taken branches only */
#define DEBUG_CTL_KNOWN		    (DEBUG_CTL_LBR | DEBUG_CTL_BTF)
#define APIC_BASE_ENABLED	    (UINT64_C(1) << 11)
#define EFER_AUTOIBRS		    (UINT64_C(1) << 21)
#define PAT_RESET		    UINT64_C(0x0007040600070406)

#endif
