/* SPDX-License-Identifier: Apache-2.0 */
/* The HPET as a device, on boards that have one (IA-PC HPET Specification 1.0a, 3.2.5.1). */
#include "machine/layout.h"

DefinitionBlock ("hpet.aml", "SSDT", 2, "HANOK ", "HANOKHPT", 1)
{
	Scope (\_SB)
	{
		Device (HPET)
		{
			Name (_HID, EisaId ("PNP0103"))
			Name (_UID, Zero)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadOnly, LAYOUT_HPET, 0x400)
			})
		}
	}
}
