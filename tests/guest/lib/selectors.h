/* SPDX-License-Identifier: Apache-2.0 */
/* The GDT that every image starts with; shared by C and assembly. "Native" is the image's width. */
#ifndef SELECTORS_H
#define SELECTORS_H

#define KCODE 0x08   /* native code, ring 0 */
#define KDATA 0x10   /* flat data, ring 0 */
#define KCODE32 0x18 /* 32-bit code, ring 0 */
#define UCODE32 0x20 /* SYSRET base: 32-bit code, data, 64-bit code, ring 3 */
#define UDATA 0x28
#define UCODE64 0x30 /* in a 32-bit image: 16-bit code, ring 3 */
#define UCODE16 0x30
#define KCODE16 0x38 /* 16-bit code, ring 0, base 0 */
#define SYSENTER_SEL                                                                               \
	0x40	     /* six in a row: code, data, then ring 3's, as SYSENTER and SYSEXIT count */
#define TSS_SEL 0x70 /* two slots in a 64-bit image */
#define KDATA16 0x80 /* 16-bit data, ring 0, limit 0xffff */
#define UDATA16 0x88 /* 16-bit data, ring 3, limit 0xffff */
#define R1CODE 0x90  /* rings 1 and 2 */
#define R1DATA 0x98
#define R2CODE 0xa0
#define R2DATA 0xa8
#define TEST_SEL 0xb0 /* from here on the slots are the tests' own */
#define GDT_SLOTS 64

#endif
