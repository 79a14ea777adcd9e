/* SPDX-License-Identifier: Apache-2.0 */
/* A triple fault: the IDT is empty, so #UD cannot be delivered, nor what follows from it. */
#include "guest.h"

int main(void)
{
	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) none = {0, 0};

	group("triple fault");
	check("this image ends with a triple fault", true);
	while ((inb(0x3fd) & 0x60) != 0x60)
		;
	asm volatile("lidt %0\n\tud2" ::"m"(none));
	bail("it lives");
}
