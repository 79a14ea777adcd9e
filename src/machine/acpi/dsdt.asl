/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board in AML (ACPI 6.4, chapters 5, 6 and 9; PCI Firmware Specification 3.2, 4.5): the PCI
 * root bridge, the ISA-style devices, the sleep state for power-off. Run through the C preprocessor
 * for the numbers in machine/layout.h, then compiled by iasl at build time. Processors and the HPET
 * are in SSDTs (acpi.c, hpet.asl), because they depend on the machine.
 */
#include "machine/layout.h"

/* iasl wants plain numbers in resource descriptors; these are checked against the layout. */
#define BUS_LAST 0xff
#define BUS_COUNT 0x100
#define IO_BELOW_CONFIG_LAST 0xcf7
#define IO_WINDOW_LAST 0xffff
#define MMIO_WINDOW_LAST 0xdfffffff
#if BUS_COUNT != LAYOUT_ECAM_BYTES >> 20 || IO_BELOW_CONFIG_LAST != LAYOUT_PCI_ADDRESS - 1 || \
	IO_WINDOW_LAST != LAYOUT_PCI_IO_BASE + LAYOUT_PCI_IO_BYTES - 1 || \
	MMIO_WINDOW_LAST != LAYOUT_PCI_MMIO_BASE + LAYOUT_PCI_MMIO_BYTES - 1
#error "machine/layout.h changed: adapt the numbers above"
#endif

/* _PRT entries of one slot for INTA to INTD, with the I/O APIC and with the PIC. */
#define APIC_GSI(slot, pin) (LAYOUT_PCI_GSI_BASE + ((slot + pin) % 4))
#define PIC_IRQ(slot, pin) (10 + ((slot + pin) % 2))
#define ROUTE(slot, pin, irq) Package () { (slot << 16) | 0xffff, pin, 0, irq }
#define SLOT(slot, ROUTER) \
	ROUTE(slot, 0, ROUTER(slot, 0)), ROUTE(slot, 1, ROUTER(slot, 1)), \
	ROUTE(slot, 2, ROUTER(slot, 2)), ROUTE(slot, 3, ROUTER(slot, 3))
#define SLOTS_8(first, ROUTER) \
	SLOT(first + 0, ROUTER), SLOT(first + 1, ROUTER), SLOT(first + 2, ROUTER), \
	SLOT(first + 3, ROUTER), SLOT(first + 4, ROUTER), SLOT(first + 5, ROUTER), \
	SLOT(first + 6, ROUTER), SLOT(first + 7, ROUTER)
#define SLOTS_32(ROUTER) \
	SLOTS_8((0), ROUTER), SLOTS_8((8), ROUTER), SLOTS_8((16), ROUTER), SLOTS_8((24), ROUTER)

DefinitionBlock ("dsdt.aml", "DSDT", 2, "HANOK ", "HANOKPC ", 1)
{
	/* What the OS tells by _PIC (5.8.1): 0 the PIC, 1 the I/O APIC. */
	Name (PICM, Zero)
	Method (_PIC, 1, NotSerialized)
	{
		PICM = Arg0
	}

	/* Soft off: SLP_TYP for PM1a and PM1b control (7.4.2). */
	Name (_S5, Package () { 5, 5, Zero, Zero })

	Scope (_SB)
	{
		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A08"))
			Name (_CID, EisaId ("PNP0A03"))
			Name (_UID, Zero)
			Name (_SEG, Zero)
			Name (_BBN, Zero)

			/* What the bridge passes on: all buses, ports around its own configuration ports,
			 * the VGA window, the memory window below the ECAM. */
			Name (_CRS, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0, 0, BUS_LAST, 0, BUS_COUNT)
				IO (Decode16, LAYOUT_PCI_ADDRESS, LAYOUT_PCI_ADDRESS, 1, 8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0, IO_BELOW_CONFIG_LAST, 0, LAYOUT_PCI_ADDRESS)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, LAYOUT_PCI_IO_BASE, IO_WINDOW_LAST, 0, LAYOUT_PCI_IO_BYTES)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable,
					ReadWrite, 0, 0xa0000, 0xbffff, 0, 0x20000)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable,
					ReadWrite, 0, LAYOUT_PCI_MMIO_BASE, MMIO_WINDOW_LAST, 0,
					LAYOUT_PCI_MMIO_BYTES)
			})

			/* The OS may have all of PCI Express that it asks for: there is no firmware that
			 * would want to keep some (PCI Firmware Specification 3.2, 4.5.1). */
			Method (_OSC, 4, NotSerialized)
			{
				CreateDWordField (Arg3, 0, CDW1)
				If (Arg0 == ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766"))
				{
					CreateDWordField (Arg3, 8, CDW3)
					Local0 = CDW3 & 0x1f
					If (Arg1 != One)
					{
						CDW1 |= 0x08 /* unknown revision */
					}
					If (CDW3 != Local0)
					{
						CDW1 |= 0x10 /* capabilities masked */
					}
					CDW3 = Local0
				}
				Else
				{
					CDW1 |= 0x04 /* unknown UUID */
				}
				Return (Arg3)
			}

			Name (PRTA, Package () { SLOTS_32 (APIC_GSI) })
			Name (PRTP, Package () { SLOTS_32 (PIC_IRQ) })
			Method (_PRT, 0, NotSerialized)
			{
				If (PICM)
				{
					Return (PRTA)
				}
				Return (PRTP)
			}

			Device (COM1)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, One)
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, LAYOUT_COM1, LAYOUT_COM1, 1, 8)
					IRQNoFlags () { LAYOUT_IRQ_COM1 }
				})
			}

			Device (COM2)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 2)
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, LAYOUT_COM2, LAYOUT_COM2, 1, 8)
					IRQNoFlags () { LAYOUT_IRQ_COM2 }
				})
			}

			Device (RTC)
			{
				Name (_HID, EisaId ("PNP0B00"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, LAYOUT_RTC, LAYOUT_RTC, 1, 2)
					IRQNoFlags () { LAYOUT_IRQ_RTC }
				})
			}

			Device (KBD)
			{
				Name (_HID, EisaId ("PNP0303"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, LAYOUT_I8042_DATA, LAYOUT_I8042_DATA, 1, 1)
					IO (Decode16, LAYOUT_I8042_CMD, LAYOUT_I8042_CMD, 1, 1)
					IRQNoFlags () { LAYOUT_IRQ_KBD }
				})
			}

			Device (TIMR)
			{
				Name (_HID, EisaId ("PNP0100"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, LAYOUT_PIT, LAYOUT_PIT, 1, 4)
					IRQNoFlags () { LAYOUT_IRQ_PIT }
				})
			}

			Device (PIC)
			{
				Name (_HID, EisaId ("PNP0000"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, LAYOUT_PIC0, LAYOUT_PIC0, 1, 2)
					IO (Decode16, LAYOUT_PIC1, LAYOUT_PIC1, 1, 2)
					IO (Decode16, LAYOUT_ELCR, LAYOUT_ELCR, 1, 2)
					IRQNoFlags () { 2 }
				})
			}

			Device (SPKR)
			{
				Name (_HID, EisaId ("PNP0800"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, LAYOUT_PORT61, LAYOUT_PORT61, 1, 1)
				})
			}

			Device (FPU)
			{
				Name (_HID, EisaId ("PNP0C04"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0xf0, 0xf0, 1, 1)
					IRQNoFlags () { LAYOUT_IRQ_FERR }
				})
			}
		}

		/* Motherboard resources: what is taken and belongs to no device above. That the ECAM is
		 * here tells the OS to trust the MCFG table (PCI Firmware Specification 3.2, 4.1.2). */
		Device (MBRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_UID, Zero)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, LAYOUT_ECAM_BASE, LAYOUT_ECAM_BYTES)
				IO (Decode16, LAYOUT_PORT92, LAYOUT_PORT92, 1, 1)
				IO (Decode16, LAYOUT_PM1A_EVT, LAYOUT_PM1A_EVT, 1, 12)
				IO (Decode16, LAYOUT_GPE0, LAYOUT_GPE0, 1, LAYOUT_GPE0_BYTES)
			})
		}
	}
}
