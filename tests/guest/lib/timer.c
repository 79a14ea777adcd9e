/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt controllers and clocks, as far as more than one image needs them. */
#include "guest.h"

#define APIC_BASE 0xfee00000u
#define IOAPIC_BASE 0xfec00000u

/* The PICs reach the CPU through the local APIC's LINT0 (MultiProcessor Specification 1.4, 3.6.2.2). */
static void virtual_wire(void)
{
	if (!(cpu_features_1_edx & 1 << 9) || !(rdmsr(MSR_APIC_BASE) & 0x800))
		return;
	apic_write(0xf0, 0x1ff);
	apic_write(0x350, 0x700);
	apic_write(0x360, 0x400);
}

/* Edge-triggered, cascade on IR2, 8086 mode (8259A data sheet, initialization command words). */
void pic_init(u8 mask_master, u8 mask_slave)
{
	virtual_wire();
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 0x04);
	outb(0x21, 0x01);
	outb(0xa0, 0x11);
	outb(0xa1, 0x28);
	outb(0xa1, 0x02);
	outb(0xa1, 0x01);
	outb(0x21, mask_master);
	outb(0xa1, mask_slave);
}

void pic_eoi(int irq)
{
	if (irq >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

static bool sum_is_zero(const u8 *p, u32 bytes)
{
	u8 sum = 0;

	while (bytes--)
		sum += *p++;
	return !sum;
}

/* ACPI 6.4, 5.2.5: the RSDP is on a 16-byte boundary in 0xe0000-0xfffff. */
static const u8 *rsdp_find(void)
{
	for (ulong at = 0xe0000; at < 0x100000; at += 16)
		if (!memcmp((void *)at, "RSD PTR ", 8) && sum_is_zero((void *)at, 20))
			return (void *)at;
	return NULL;
}

u32 acpi_table(const char signature[4])
{
	const u8 *rsdp = rsdp_find();
	const u32 *rsdt;
	u32 address;

	if (!rsdp)
		return 0;
	memcpy(&address, rsdp + 16, 4);
	rsdt = (void *)(ulong)address;
	for (u32 i = 9; i < rsdt[1] / 4; i++)
		if (!memcmp((void *)(ulong)rsdt[i], signature, 4))
			return rsdt[i];
	return 0;
}

u16 pmtimer_port(void)
{
	static u32 port = 1;
	u32 fadt;

	if (port == 1) {
		fadt = acpi_table("FACP");
		port = fadt ? *(u32 *)(ulong)(fadt + 76) : 0;
	}
	return port;
}

u32 pmtimer_read(void)
{
	return inl(pmtimer_port());
}

/* 3.579545 MHz. */
u64 pmtimer_to_us(u32 ticks)
{
	return (u64)ticks * 1000 / 3580;
}

static void delay_pit(u32 us)
{
	while (us) {
		u32 step = us > 50000 ? 50000 : us;
		u32 count = step * 1193 / 1000 + 1;

		outb(0x61, (inb(0x61) & ~3) | 1);
		outb(0x43, 0xb0);
		outb(0x42, count);
		outb(0x42, count >> 8);
		while (!(inb(0x61) & 0x20))
			;
		us -= step;
	}
}

void delay_us(u32 us)
{
	u32 start, mask = 0xffffff;

	if (!pmtimer_port()) {
		delay_pit(us);
		return;
	}
	while (us) {
		u32 step = us > 1000000 ? 1000000 : us;

		start = pmtimer_read();
		while (pmtimer_to_us((pmtimer_read() - start) & mask) < step)
			pause();
		us -= step;
	}
}

bool wait_for(volatile u32 *value, u32 want, u32 timeout_ms)
{
	for (u32 ms = 0; ms < timeout_ms; ms++) {
		if (*value >= want)
			return true;
		delay_us(1000);
	}
	return *value >= want;
}

u32 apic_read(u32 reg)
{
	return *(volatile u32 *)(ulong)(APIC_BASE + reg);
}

void apic_write(u32 reg, u32 value)
{
	*(volatile u32 *)(ulong)(APIC_BASE + reg) = value;
}

/* Software-enabled, spurious vector 0xff, everything in the LVT masked. */
void apic_enable(void)
{
	wrmsr(MSR_APIC_BASE, (rdmsr(MSR_APIC_BASE) & ~0xc00ull) | 0x800);
	apic_write(0xf0, 0x1ff);
	for (u32 lvt = 0x320; lvt <= 0x370; lvt += 0x10)
		apic_write(lvt, 0x10000);
	apic_write(0x80, 0);
}

u32 ioapic_read(u32 reg)
{
	*(volatile u32 *)(ulong)IOAPIC_BASE = reg;
	return *(volatile u32 *)(ulong)(IOAPIC_BASE + 0x10);
}

void ioapic_write(u32 reg, u32 value)
{
	*(volatile u32 *)(ulong)IOAPIC_BASE = reg;
	*(volatile u32 *)(ulong)(IOAPIC_BASE + 0x10) = value;
}

void ioapic_route(u32 pin, u64 entry)
{
	ioapic_write(0x10 + pin * 2, 0x10000);
	ioapic_write(0x11 + pin * 2, entry >> 32);
	ioapic_write(0x10 + pin * 2, entry);
}
