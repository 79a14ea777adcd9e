/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MMU_PTE_H
#define HANOK_MMU_PTE_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/state/cpu_state.h"

/*
 * Entries of the guest's page tables (SDM Vol. 3, tables 4-4 to 4-6, 4-8 to 4-11, 4-14 to 4-20), for
 * who walks them and who looks at them.
 */
#define PTE_P UINT64_C(1)
#define PTE_W UINT64_C(2)
#define PTE_U UINT64_C(4)
#define PTE_PWT UINT64_C(8)
#define PTE_PCD UINT64_C(0x10)
#define PTE_A UINT64_C(0x20)
#define PTE_D UINT64_C(0x40)
#define PTE_PS UINT64_C(0x80)
#define PTE_G UINT64_C(0x100)
#define PTE_PAT_LARGE UINT64_C(0x1000) /* of large pages; of 4 KiB pages it is PTE_PS's bit */
#define PTE_NX (UINT64_C(1) << 63)

/* MAXPHYADDR as CPUID 80000008H tells the guest. */
enum { PHYS_BITS = 40 };
#define PHYS_MASK ((UINT64_C(1) << PHYS_BITS) - 1)
/* Bits between MAXPHYADDR and 51 are reserved; so are 52 to 62 in PAE tables (SDM table 4-11) but
 * not in 4-level ones (ignored). */
#define RSVD_HIGH (UINT64_C(0x000fffffffffffff) & ~PHYS_MASK)
#define RSVD_PAE (UINT64_C(0x7ff0000000000000) | RSVD_HIGH)
/* PAE PDPTEs (SDM table 4-8): bits 1, 2, 5 to 8 and those from MAXPHYADDR up. */
#define RSVD_PDPTE (UINT64_C(0x1e6) | ~PHYS_MASK)

/* Reserved bits of an entry of the 8-byte formats, but for PAE PDPTEs. depth: 0 PML4, 1 PDPT, 2 PD,
 * 3 PT. */
static inline uint64_t pte_reserved8(uint64_t efer, unsigned depth, uint64_t e, bool pae)
{
	uint64_t rsvd = pae ? RSVD_PAE : RSVD_HIGH;

	if (!(efer & EFER_NXE))
		rsvd |= PTE_NX;
	if (depth == 0)
		return pae ? 0 : rsvd | PTE_PS; /* PML4E */
	if (e & PTE_PS) {
		if (depth == 1)
			rsvd |= UINT64_C(0x3fffe000); /* 1 GiB page: bits 13 to 29 */
		else if (depth == 2)
			rsvd |= UINT64_C(0x1fe000); /* 2 MiB page: bits 13 to 20 */
	}
	return rsvd;
}

/* Of a 32-bit PDE that maps a 4 MiB page: bit 21. Bits 13 to 20 are bits 32 to 39 (PSE-36). */
#define RSVD_PSE (UINT64_C(1) << 21)

static inline uint64_t pse_base(uint64_t e)
{
	return (e & UINT64_C(0xffc00000)) | ((e >> 13 & 0xff) << 32);
}

#endif
