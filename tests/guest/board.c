/* SPDX-License-Identifier: Apache-2.0 */
/* PCI configuration ports, ACPI tables, the 8042 and stray ports. */
#include "guest.h"

static u32 cf8(u32 bus, u32 device, u32 function, u32 reg)
{
	return 1u << 31 | bus << 16 | device << 11 | function << 8 | (reg & ~3u);
}

static u32 pci_read(u32 device, u32 function, u32 reg)
{
	outl(0xcf8, cf8(0, device, function, reg));
	return inl(0xcfc);
}

static void pci(void)
{
	u32 address = cf8(0, 0, 0, 0), id;

	group("pci");
	outl(0xcf8, address);
	check_eq("0xcf8 reads back", inl(0xcf8), address);
	id = inl(0xcfc);
	check("a host bridge at 0:0.0", id != 0xffffffff && (id & 0xffff) != 0);
	check_eq("its class", pci_read(0, 0, 8) >> 16, 0x0600);
	outl(0xcf8, address);
	check_eq("word at 0xcfe", inw(0xcfe), id >> 16);
	check_eq("byte at 0xcfd", inb(0xcfd), id >> 8 & 0xff);
	check_eq("vendor of a device that is not there", ({
			 outl(0xcf8, cf8(0xfe, 31, 7, 0));
			 inl(0xcfc);
		 }),
		 0xffffffff);
	outl(0xcf8, address & 0x7fffffff);
	check("without bit 31 there is no configuration cycle", inl(0xcfc) != id);
	outl(0xcf8, address);
	outb(0xcf8, 0x40);
	check_eq("a byte write to 0xcf8 is not the address", inl(0xcf8), address);
	outl(0xcfc, 0x12345678);
	check_eq("the vendor is read-only", pci_read(0, 0, 0), id);
	/* A 32-bit BAR, where some device has one: sizing, then the old value. */
	for (u32 device = 0; device < 32; device++) {
		u32 bar = pci_read(device, 0, 0x10), size;

		if (pci_read(device, 0, 0) == 0xffffffff ||
		    (pci_read(device, 0, 0x0c) >> 16 & 0x7f) || !bar)
			continue;
		u32 command = pci_read(device, 0, 4);
		outl(0xcfc, command & ~3u);
		outl(0xcf8, cf8(0, device, 0, 0x10));
		outl(0xcfc, 0xffffffff);
		size = inl(0xcfc) & (bar & 1 ? ~3u : ~15u);
		outl(0xcfc, bar);
		u32 back = inl(0xcfc);
		outl(0xcf8, cf8(0, device, 0, 4));
		outl(0xcfc, command & 0xffff);
		size = bar & 1 ? (~size + 1) & 0xffff : ~size + 1;
		check("a BAR's size is a power of two", size && !(size & (size - 1)));
		check_eq("and its value comes back", back, bar);
		return;
	}
	skip("a BAR's size is a power of two", "no device with a BAR");
}

static bool sums_up(u32 table)
{
	u32 length = *(u32 *)(ulong)(table + 4);
	u8 sum = 0;

	for (u32 i = 0; i < length; i++)
		sum += *(u8 *)(ulong)(table + i);
	return !sum;
}

static void acpi(void)
{
	u32 fadt = acpi_table("FACP"), madt = acpi_table("APIC"), dsdt, found = 0;

	group("acpi");
	check("RSDP and FADT are found", fadt);
	if (!fadt)
		return;
	check("FADT checksum", sums_up(fadt));
	dsdt = *(u32 *)(ulong)(fadt + 40);
	check("DSDT", !memcmp((void *)(ulong)dsdt, "DSDT", 4) && sums_up(dsdt));
	check("MADT", madt && sums_up(madt));
	u32 enabled = 0, ioapics = 0;
	if (madt) {
		u8 *p = (u8 *)(ulong)madt, *end = p + *(u32 *)(p + 4);

		for (u8 *e = p + 44; e < end && e[1]; e += e[1]) {
			if (e[0] == 0 && e[4] & 1) {
				enabled++;
				found |= e[3] == apic_read(0x20) >> 24;
			}
			ioapics += e[0] == 1 && *(u32 *)(e + 4) == 0xfec00000;
		}
		check_eq("MADT: local APIC address", *(u32 *)(p + 36), 0xfee00000);
	}
	check("MADT: this CPU's local APIC", found);
	check_range("MADT: CPUs", enabled, 1, 256);
	check_eq("MADT: an I/O APIC at 0xfec00000", ioapics, 1);
	check("PM timer port", pmtimer_port());
	u16 pm1a = *(u32 *)(ulong)(fadt + 64);
	check_mask("SCI_EN, or SMI_CMD to set it", (inw(pm1a) & 1) || *(u32 *)(ulong)(fadt + 48), 1,
		   1);
}

static u8 kbd_wait(void)
{
	for (u32 i = 0; i < 100000 && !(inb(0x64) & 1); i++)
		pause();
	return inb(0x64) & 1 ? inb(0x60) : 0xee;
}

static void kbd_command(u8 command)
{
	for (u32 i = 0; i < 100000 && inb(0x64) & 2; i++)
		pause();
	outb(0x64, command);
}

static void kbd_data(u8 data)
{
	for (u32 i = 0; i < 100000 && inb(0x64) & 2; i++)
		pause();
	outb(0x60, data);
}

static volatile u32 irqs;

static bool on_irq(struct regs *r)
{
	irqs++;
	pic_eoi(r->vec - 0x20);
	return true;
}

static void i8042(void)
{
	group("8042");
	if (inb(0x64) == 0xff) {
		skip("self test", "no 8042");
		return;
	}
	kbd_command(0xad);
	kbd_command(0xa7);
	for (int i = 0; i < 32 && inb(0x64) & 1; i++)
		(void)inb(0x60);
	kbd_command(0xaa);
	check_eq("self test", kbd_wait(), 0x55);
	check_mask("the system flag is set by it", inb(0x64), 4, 4);
	kbd_command(0xab);
	check_eq("keyboard interface test", kbd_wait(), 0);
	kbd_command(0x60);
	kbd_data(0x74);
	kbd_command(0x20);
	check_eq("command byte reads back", kbd_wait(), 0x74);
	check_eq("output buffer is empty once read", inb(0x64) & 1, 0);
	kbd_command(0xd2);
	kbd_data(0x3c);
	check_eq("0xd2 puts a byte in the output buffer", inb(0x64) & 0x21, 1);
	check_eq("the byte", kbd_wait(), 0x3c);
	kbd_command(0xa9);
	if (kbd_wait() == 0) {
		kbd_command(0xd3);
		kbd_data(0x3d);
		check_eq("0xd3: as if from the mouse", inb(0x64) & 0x21, 0x21);
		check_eq("0xd3: the byte", kbd_wait(), 0x3d);
	} else {
		skip("0xd3: as if from the mouse", "no mouse port");
	}
	kbd_command(0xd0);
	check_mask("output port: A20 and no reset", kbd_wait(), 3, 3);
	kbd_command(0x60);
	kbd_data(0x65);
	pic_init(0xfd, 0xff);
	trap_hook[0x21] = on_irq;
	irqs = 0;
	sti();
	kbd_command(0xd2);
	kbd_data(0x1e);
	wait_for(&irqs, 1, 20000);
	cli();
	check_eq("IRQ1", irqs, 1);
	(void)kbd_wait();
	outb(0x21, 0xff);
	kbd_command(0x60);
	kbd_data(0x74);
	check_mask("port 0x92: A20 is on", inb(0x92), 2, 2);
}

static void ports(void)
{
	group("port");
	NOFAULT("write to the POST port 0x80", "outb %%al, $0x80", ::"a"(0));
	check_eq("a port with nothing behind it reads ones", inl(0x5a8), 0xffffffff);
	/* String I/O counts like any string instruction. */
	u8 bytes[4] = {0x11, 0x22, 0x33, 0x44}, back[4] = {0};
	const void *from = bytes;
	void *to = back;
	u32 n = 4;
	asm volatile("cld\n\trep outsb" : "+S"(from), "+c"(n) : "d"(0x3ff) : "memory");
	check_eq("rep outsb: the last byte is in the register", inb(0x3ff), 0x44);
	check_eq("rep outsb: ecx and esi", n << 8 | (u32)((u8 *)from - bytes), 4);
	n = 3;
	asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"(0x3ff) : "memory");
	check_eq("rep insb", back[0] << 16 | back[2] << 8 | back[3], 0x444400);
	check_eq("rep insb: edi", (u8 *)to - back, 3);
}

static void memory(void)
{
	group("memory");
	check_eq("Multiboot magic", mb_magic, 0x2badb002);
	u32 *info = (u32 *)(ulong)mb_info;
	check_mask("Multiboot: memory sizes and map", info[0], 0x41, 0x41);
	check_range("Multiboot: upper memory, KiB", info[2], 16 * 1024, 4 * 1024 * 1024 - 1);
	u32 ram = 0;
	for (u32 at = info[12], end = info[12] + info[11]; at < end; at += *(u32 *)(ulong)at + 4) {
		u32 *e = (u32 *)(ulong)at;
		if (e[5] == 1 && !e[2] && e[1] <= 0x100000 && e[1] + e[3] > 0x200000)
			ram++;
	}
	check_eq("Multiboot: this image lies in RAM of the map", ram, 1);
	volatile u32 *high = (u32 *)((info[2] + 1024) * 1024 - 4096);
	u32 old = *high;
	*high = 0x5aa55aa5;
	check_eq("the last page of RAM holds", *high, 0x5aa55aa5);
	*high = old;
}

int main(void)
{
	pci();
	acpi();
	i8042();
	ports();
	memory();
	return 0;
}
