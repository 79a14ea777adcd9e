/* SPDX-License-Identifier: Apache-2.0 */
/* A reset by the 8042's pulse of output line 0 (command 0xfe). */
#include "guest.h"

int main(void)
{
	group("reset");
	check("this image ends with a reset by the 8042", true);
	while ((inb(0x3fd) & 0x60) != 0x60)
		;
	outb(0x64, 0xfe);
	delay_us(3000000);
	bail("it lives");
}
