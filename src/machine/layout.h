/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_LAYOUT_H
#define HANOK_MACHINE_LAYOUT_H

/*
 * Where things are on the board: the one place that the board table, the ACPI tables (machine/acpi)
 * and the loaders take their addresses from. Included by ASL too (through the C preprocessor), so
 * only #define lines with plain numbers.
 */

/* Ports */
#define LAYOUT_PIC0 0x20
#define LAYOUT_PIC1 0xa0
#define LAYOUT_ELCR 0x4d0
#define LAYOUT_PIT 0x40
#define LAYOUT_PORT61 0x61
#define LAYOUT_RTC 0x70
#define LAYOUT_I8042_DATA 0x60
#define LAYOUT_I8042_CMD 0x64
#define LAYOUT_PORT92 0x92
#define LAYOUT_COM1 0x3f8
#define LAYOUT_COM2 0x2f8
#define LAYOUT_FW_CFG 0x510
#define LAYOUT_PCI_ADDRESS 0xcf8
#define LAYOUT_PCI_DATA 0xcfc
#define LAYOUT_RESET 0xcf9
#define LAYOUT_PM1A_EVT 0x600
#define LAYOUT_PM1A_CNT 0x604
#define LAYOUT_PM_TMR 0x608
#define LAYOUT_GPE0 0x620
#define LAYOUT_GPE0_BYTES 4
#define LAYOUT_PCI_IO_BASE 0xc000
#define LAYOUT_PCI_IO_BYTES 0x4000

/* ISA interrupts */
#define LAYOUT_IRQ_PIT 0
#define LAYOUT_IRQ_KBD 1
#define LAYOUT_IRQ_COM2 3
#define LAYOUT_IRQ_COM1 4
#define LAYOUT_IRQ_RTC 8
#define LAYOUT_IRQ_SCI 9
#define LAYOUT_IRQ_FERR 13
#define LAYOUT_IRQ_IDE 14 /* and 15: the two channels of an IDE controller */
/* INTA-INTD of PCI slot s: I/O APIC pin 16 + (s + pin) % 4; with the PIC, IRQ 10 and 11 by turns */
#define LAYOUT_PCI_GSI_BASE 16

/* PCI slots: 0 is the host bridge, 31 the LPC bridge. Storage controllers: machine/storage.h */
#define LAYOUT_STORAGE_SLOT 3
#define LAYOUT_STORAGE_SLOTS 12
/* Network cards: machine/nic.h */
#define LAYOUT_NIC_SLOT 16
#define LAYOUT_NIC_SLOTS 10
#define LAYOUT_BALLOON_SLOT 30

/* Guest-physical addresses (RAM: mem/mem.h) */
#define LAYOUT_PCI_MMIO_BASE 0xc0000000
#define LAYOUT_PCI_MMIO_BYTES 0x20000000
#define LAYOUT_ECAM_BASE 0xe0000000
#define LAYOUT_ECAM_BYTES 0x10000000
#define LAYOUT_IOAPIC 0xfec00000
#define LAYOUT_HPET 0xfed00000
#define LAYOUT_LAPIC 0xfee00000

/* Low memory used by direct boot: the RSDP and ACPI tables live in the BIOS area as RAM */
#define LAYOUT_ACPI_BASE 0xe0000
#define LAYOUT_ACPI_BYTES 0x20000

#define LAYOUT_IOAPIC_ID 0 /* I/O APIC's own id; local APIC ids are the vCPU indices */
#define LAYOUT_IOAPIC_PINS 24

#endif
