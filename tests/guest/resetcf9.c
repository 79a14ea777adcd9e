/* SPDX-License-Identifier: Apache-2.0 */
/* A reset by the chipset's reset control register, port 0xcf9 (ICH9 data sheet, 13.7.5). */
#include "guest.h"

int main(void)
{
	group("reset");
	check("this image ends with a reset by port 0xcf9", true);
	while ((inb(0x3fd) & 0x60) != 0x60)
		;
	outb(0xcf9, 2);
	outb(0xcf9, 6);
	delay_us(3000000);
	bail("it lives");
}
