/* SPDX-License-Identifier: Apache-2.0 */
/* Power off by ACPI: SLP_TYP from the DSDT's \_S5, SLP_EN in PM1a_CNT (ACPI 6.4, 4.8.3.2, 7.4.2). */
#include "guest.h"

/* The first element of the package \_S5, found by its bytes: NameOp "_S5_" PackageOp. */
static int s5_type(u32 dsdt)
{
	u8 *p = (u8 *)(ulong)dsdt;
	u32 length = *(u32 *)(p + 4);

	for (u32 i = 36; i + 12 < length; i++) {
		u8 *at = p + i;
		if (memcmp(at, "_S5_", 4) || at[4] != 0x12)
			continue;
		at += 5;
		at += (*at >> 6) + 1;		  /* PkgLength */
		at++;				  /* NumElements */
		return *at == 0x0a ? at[1] : *at; /* BytePrefix, or ZeroOp, OneOp */
	}
	return -1;
}

int main(void)
{
	u32 fadt = acpi_table("FACP");

	group("power off");
	if (!fadt)
		bail("no FADT");
	u16 pm1a = *(u32 *)(ulong)(fadt + 64);
	int type = s5_type(*(u32 *)(ulong)(fadt + 40));
	check("\\_S5 is in the DSDT", type >= 0);
	/* Out of legacy mode first: SCI_EN. */
	if (!(inw(pm1a) & 1) && *(u32 *)(ulong)(fadt + 48))
		outb(*(u32 *)(ulong)(fadt + 48), *(u8 *)(ulong)(fadt + 52));
	while ((inb(0x3fd) & 0x60) != 0x60)
		;
	outw(pm1a, (inw(pm1a) & 1) | type << 10 | 1 << 13);
	delay_us(3000000);
	bail("it lives");
}
