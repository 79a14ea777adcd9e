/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "bus/pci.h"
#include "dev/chipset.h"
#include "dev_test.h"

#define ECAM UINT64_C(0xe0000000)
enum {
	SLOT = 3,
	DEVFN = SLOT << 3,
	BAR_BYTES = 0x4000,
	TABLE = 0x1000,
	PBA = 0x2000,
	VECTORS = 70
};

static struct chipset *chipset;
static struct pci_bus *pb;
static struct pci_dev dev;
static unsigned resets, messages;
static uint64_t msi_address;
static uint32_t msi_data;
static uint64_t seen_offset;

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
	(void)opaque;
	messages++;
	msi_address = address;
	msi_data = data;
}

static void on_reset(void *opaque)
{
	(void)opaque;
	resets++;
}

static void bar_fn(void *opaque, struct bus_access *a)
{
	seen_offset = a->offset;
	if (!a->write)
		a->value = (uintptr_t)opaque;
}

static void make_bus(void)
{
	struct chipset_config cfg = {.pm_base = 0x600,
				     .pci = {.bus = test_bus,
					     .address_port = 0xcf8,
					     .data_port = 0xcfc,
					     .ecam_gpa = ECAM,
					     .ecam_bytes = 0x10000000,
					     .msi = {.send = on_msi},
					     .reset = on_reset}};

	for (unsigned i = 0; i < 4; i++)
		cfg.pci.intx[i] = wire(i);
	assert_int_equal(chipset_create(&chipset, &cfg, NULL), 0);
	pb = chipset_pci(chipset);
}

static void make_dev(struct pci_dev *d, unsigned slot)
{
	static const struct pci_ident id = {.vendor = 0x1234,
					    .device = 0x5678,
					    .subsystem_vendor = 0x9abc,
					    .subsystem = 0xdef0,
					    .class_code = 0x020000,
					    .revision = 7,
					    .interrupt_pin = 1};

	pci_dev_init(d, "probe", &id);
	assert_int_equal(pci_dev_set_bar(d, 0, PCI_BAR_MEM64, true, BAR_BYTES, bar_fn, (void *)10),
			 0);
	assert_int_equal(pci_dev_set_bar(d, 2, PCI_BAR_IO, false, 32, bar_fn, (void *)12), 0);
	assert_int_equal(pci_dev_set_bar(d, 3, PCI_BAR_MEM32, false, 4096, bar_fn, (void *)13), 0);
	assert_int_equal(pci_msi_add(d, 4), 0);
	assert_int_equal(pci_msix_add(d, VECTORS, 0, TABLE, PBA), 0);
	assert_int_equal(pci_dev_add(d, pb, slot, 0), 0);
}

static int setup(void **state)
{
	(void)state;
	resets = messages = 0;
	bus_create(&test_bus, NULL);
	wires_clear();
	make_bus();
	make_dev(&dev, SLOT);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pci_dev_remove(&dev);
	chipset_ops.destroy(chipset);
	bus_destroy(test_bus);
	return 0;
}

static uint64_t cfg(unsigned devfn, unsigned reg)
{
	return ECAM | (uint64_t)devfn << 12 | reg;
}

static uint32_t rd(unsigned reg, unsigned size)
{
	return (uint32_t)bus_in(BUS_MMIO, cfg(DEVFN, reg), size);
}

static void wr(unsigned reg, unsigned size, uint32_t v)
{
	bus_out(BUS_MMIO, cfg(DEVFN, reg), size, v);
}

static unsigned find_cap(uint8_t id)
{
	unsigned at = rd(PCI_CAPABILITIES, 1);

	for (unsigned i = 0; at && i < 48; i++, at = rd(at + 1, 1))
		if (rd(at, 1) == id)
			return at;
	return 0;
}

static void test_mechanism1(void **state)
{
	(void)state;
	outl(0xcf8, 0x80000000);
	assert_int_equal(inl(0xcf8), 0x80000000);
	assert_int_equal(inl(0xcfc), 0x29c08086);
	assert_int_equal(inw(0xcfe), 0x29c0);
	assert_int_equal(inb(0xcfd), 0x80);
	outl(0xcf8, 0x8000f800);
	assert_int_equal(inl(0xcfc), 0x29188086);
	outl(0xcf8, 0x8000f808);
	assert_int_equal(inl(0xcfc) >> 8, 0x060100);
	outl(0xcf8, 0x80001000); /* nobody there */
	assert_int_equal(inl(0xcfc), UINT32_MAX);
	outl(0xcf8, 0x80010000); /* another bus */
	assert_int_equal(inl(0xcfc), UINT32_MAX);
	outl(0xcf8, 0);
	assert_int_equal(inl(0xcfc), UINT32_MAX); /* not enabled */
	outl(0xcf8, 0x80000000);
	outb(0xcf8, 0x10); /* not a dword: not for the register */
	outw(0xcfa, 0);
	assert_int_equal(inl(0xcf8), 0x80000000);
}

static void test_ecam(void **state)
{
	(void)state;
	assert_int_equal(bus_in(BUS_MMIO, cfg(0, 0), 4), 0x29c08086);
	assert_int_equal(bus_in(BUS_MMIO, cfg(0, 0), 8) & 0xffffffff, 0x29c08086);
	assert_int_equal(rd(0, 4), 0x56781234);
	assert_int_equal(rd(8, 4), 0x02000007);
	assert_int_equal(rd(0x2c, 4), 0xdef09abc);
	assert_int_equal(rd(0x100, 4), UINT32_MAX); /* no extended space */
	assert_int_equal((uint32_t)bus_in(BUS_MMIO, cfg(256, 0), 4), UINT32_MAX);
	wr(0, 4, 0);
	assert_int_equal(rd(0, 4), 0x56781234);
	wr(0x3c, 4, 0xffffffff);
	assert_int_equal(rd(0x3c, 4), 0x1ff);
	assert_int_equal(bus_in(BUS_MMIO, cfg(0, 0x60), 8), ECAM | 1); /* PCIEXBAR tells where */
}

static void test_reset_register(void **state)
{
	(void)state;
	outb(0xcf9, 2);
	assert_int_equal(resets, 0);
	outb(0xcf9, 6);
	assert_int_equal(resets, 1);
	outb(0xcf9, 6); /* no new edge */
	assert_int_equal(resets, 1);
	assert_int_equal(inb(0xcf9), 6);
	outl(0xcf8, 0x80000600);
	assert_int_equal(resets, 1);
}

static void test_bars(void **state)
{
	(void)state;
	assert_int_equal(rd(0x10, 4), 0xc); /* 64 bits, prefetchable */
	wr(0x10, 4, 0xffffffff);
	wr(0x14, 4, 0xffffffff);
	assert_int_equal(rd(0x10, 4), 0xffffc00c);
	assert_int_equal(rd(0x14, 4), 0xffffffff);
	wr(0x18, 4, 0xffffffff);
	assert_int_equal(rd(0x18, 4), 0xffffffe1);
	wr(0x1c, 4, 0xffffffff);
	assert_int_equal(rd(0x1c, 4), 0xfffff000);
	wr(4, 2, 3); /* decoding on with nonsense in them maps nothing */
	wr(0x10, 4, 0x34567800);
	wr(0x14, 4, 0x12);
	wr(0x18, 4, 0xc100);
	wr(0x1c, 4, 0xc0000000);
	assert_int_equal(bus_in(BUS_MMIO, 0x1234564004, 4), 10);
	assert_int_equal(seen_offset, 4);
	assert_int_equal(inb(0xc11f), 12);
	assert_int_equal(seen_offset, 0x1f);
	assert_int_equal(bus_in(BUS_MMIO, 0xc0000ff0, 1), 13);
	wr(4, 2, 2);
	assert_int_equal(inb(0xc11f), 0xff);
	wr(0x1c, 4, 0xd0000000); /* moves while decoding */
	assert_int_equal(bus_in(BUS_MMIO, 0xc0000ff0, 1), 0xff);
	assert_int_equal(bus_in(BUS_MMIO, 0xd0000ff0, 1), 13);
	pci_dev_reset(&dev);
	assert_int_equal(bus_in(BUS_MMIO, 0xd0000ff0, 1), 0xff);
	assert_int_equal(bus_in(BUS_MMIO, 0x1234564004, 1), 0xff);
	assert_int_equal(rd(0x10, 4), 0xc);

	struct pci_dev d;
	static const struct pci_ident id = {.vendor = 1};
	pci_dev_init(&d, "d", &id);
	assert_int_equal(pci_dev_set_bar(&d, 5, PCI_BAR_MEM64, false, 4096, bar_fn, NULL), -EINVAL);
	assert_int_equal(pci_dev_set_bar(&d, 0, PCI_BAR_IO, false, 512, bar_fn, NULL), -EINVAL);
	assert_int_equal(pci_dev_set_bar(&d, 0, PCI_BAR_MEM32, false, 3000, bar_fn, NULL), -EINVAL);
	assert_int_equal(pci_dev_add(&d, pb, SLOT, 0), -EEXIST);
	assert_int_equal(pci_dev_add(&d, pb, 32, 0), -EINVAL);
}

static void test_intx(void **state)
{
	struct pci_dev second;

	(void)state;
	make_dev(&second, SLOT + 4); /* shares the line (3 + 0) % 4 */
	pci_set_intx(&dev, 1);
	assert_int_equal(wire_level[3], 1);
	assert_int_equal(rd(6, 2) & 8, 8);
	pci_set_intx(&second, 1);
	pci_set_intx(&dev, 0);
	assert_int_equal(wire_level[3], 1); /* the other still holds it */
	pci_set_intx(&second, 0);
	assert_int_equal(wire_level[3], 0);
	pci_set_intx(&dev, 1);
	wr(4, 2, 0x400);
	assert_int_equal(wire_level[3], 0);
	assert_int_equal(rd(6, 2) & 8, 8); /* status shows it all the same */
	wr(4, 2, 0);
	assert_int_equal(wire_level[3], 1);
	assert_int_equal(wire_rises[3], 3);
	pci_dev_reset(&dev);
	assert_int_equal(wire_level[3], 0);
	pci_set_intx(&second, 1);
	pci_dev_remove(&second);
	assert_int_equal(wire_level[3], 0);
}

static void test_msi(void **state)
{
	unsigned cap = find_cap(5);

	(void)state;
	assert_int_not_equal(cap, 0);
	assert_int_equal(rd(cap + 2, 2), 0x184); /* 4 vectors, 64 bits, maskable */
	wr(cap + 4, 4, 0xfee01003);
	assert_int_equal(rd(cap + 4, 4), 0xfee01000);
	wr(cap + 8, 4, 1);
	wr(cap + 12, 2, 0x4047);
	pci_msi_send(&dev, 0);
	assert_int_equal(messages, 0); /* off */
	assert_false(pci_msi_enabled(&dev));
	wr(cap + 2, 2, 0x21); /* on, 4 vectors */
	assert_true(pci_msi_enabled(&dev));
	pci_msi_send(&dev, 2);
	assert_int_equal(messages, 0); /* no bus master, no write */
	wr(4, 2, 4);
	assert_true(pci_dev_is_master(&dev));
	pci_msi_send(&dev, 2);
	assert_int_equal(messages, 1);
	assert_int_equal(msi_address, UINT64_C(0x1fee01000));
	assert_int_equal(msi_data, 0x4046);
	wr(cap + 2, 2, 0x11); /* granted 2 */
	pci_msi_send(&dev, 3);
	assert_int_equal(msi_data, 0x4047);
	wr(cap + 2, 2, 0x71); /* more than there are */
	pci_msi_send(&dev, 31);
	assert_int_equal(msi_data, 0x4047);
	wr(cap + 16, 4, 0xffffffff);
	assert_int_equal(rd(cap + 16, 4), 0xf);
	messages = 0;
	pci_msi_send(&dev, 1);
	pci_msi_send(&dev, 1);
	assert_int_equal(messages, 0);
	assert_int_equal(rd(cap + 20, 4), 2);
	wr(cap + 20, 4, 0); /* read-only */
	wr(cap + 16, 4, 0xd);
	assert_int_equal(messages, 1);
	assert_int_equal(msi_data, 0x4045);
	assert_int_equal(rd(cap + 20, 4), 0);
}

static void test_msix(void **state)
{
	const uint64_t base = 0xc0100000;
	unsigned cap = find_cap(0x11);

	(void)state;
	assert_int_not_equal(cap, 0);
	assert_int_equal(rd(cap + 2, 2), VECTORS - 1);
	assert_int_equal(rd(cap + 4, 4), TABLE);
	assert_int_equal(rd(cap + 8, 4), PBA);
	wr(0x10, 4, (uint32_t)base);
	wr(4, 2, 6);
	assert_int_equal(bus_in(BUS_MMIO, base + TABLE - 4, 4), 10); /* the BAR's own */
	assert_int_equal(bus_in(BUS_MMIO, base + TABLE + 12, 4), 1); /* masked at reset */
	bus_out(BUS_MMIO, base + TABLE + 69 * 16, 8, 0x1fee02000);
	bus_out(BUS_MMIO, base + TABLE + 69 * 16 + 8, 4, 0x55);
	bus_out(BUS_MMIO, base + TABLE + 69 * 16, 2, 0); /* too narrow */
	assert_int_equal(bus_in(BUS_MMIO, base + TABLE + 69 * 16, 8), 0x1fee02000);
	pci_msix_send(&dev, 69);
	assert_int_equal(bus_in(BUS_MMIO, base + PBA + 8, 8), 0); /* not enabled: nothing */
	wr(cap + 2, 2, 0x8000);
	assert_true(pci_msix_enabled(&dev));
	pci_msix_send(&dev, 69);
	assert_int_equal(messages, 0);
	assert_int_equal(bus_in(BUS_MMIO, base + PBA + 8, 8), 1 << 5);
	bus_out(BUS_MMIO, base + PBA + 8, 8, 0);
	assert_int_equal(bus_in(BUS_MMIO, base + PBA + 8, 4), 1 << 5);
	bus_out(BUS_MMIO, base + TABLE + 69 * 16 + 12, 4, 0xfffffffe);
	assert_int_equal(messages, 1);
	assert_int_equal(msi_address, 0x1fee02000);
	assert_int_equal(msi_data, 0x55);
	assert_int_equal(bus_in(BUS_MMIO, base + TABLE + 69 * 16 + 12, 4), 0);
	wr(cap + 2, 2, 0xc000); /* function mask */
	pci_msix_send(&dev, 69);
	assert_int_equal(messages, 1);
	wr(cap + 2, 2, 0x8000);
	assert_int_equal(messages, 2);
	pci_msix_send(&dev, VECTORS); /* no such vector */
	assert_int_equal(messages, 2);
	wr(0x10, 4, (uint32_t)base + 0x100000); /* the table moves with its BAR */
	assert_int_equal(bus_in(BUS_MMIO, base + TABLE, 4), UINT32_MAX);
	assert_int_equal(bus_in(BUS_MMIO, base + 0x100000 + TABLE + 69 * 16 + 8, 4), 0x55);

	struct pci_dev d;
	static const struct pci_ident id = {.vendor = 1};
	pci_dev_init(&d, "d", &id);
	pci_dev_set_bar(&d, 0, PCI_BAR_MEM32, false, 4096, bar_fn, NULL);
	assert_int_equal(pci_msix_add(&d, 8, 1, 0, 2048), -EINVAL);
	assert_int_equal(pci_msix_add(&d, 8, 0, 0, 64), -EINVAL);
	assert_int_equal(pci_msix_add(&d, 256, 0, 8, 0), -EINVAL);
	assert_int_equal(pci_msi_add(&d, 3), -EINVAL);
	while (pci_dev_add_capability(&d, 9, 4) >= 0)
		;
	assert_int_equal(pci_msix_add(&d, 8, 0, 0, 2048), -ENOSPC);
}

/* A device whose whole state is its function's. */
static void dev_state(void *d, struct state_stream *s)
{
	state_begin(s, "probe", 0, 1);
	pci_dev_state(d, s);
	state_end(s);
}

static const struct dev_ops dev_ops = {.name = "probe", .state = dev_state};

static void test_state(void **state)
{
	struct chipset *first = chipset;
	struct bus *first_bus = test_bus;
	struct pci_dev copy;
	unsigned msi = find_cap(5), msix = find_cap(0x11);

	(void)state;
	outl(0xcf8, 0x80001804);
	wr(0x10, 4, 0xc0100000);
	wr(0x1c, 4, 0xc0000000);
	wr(4, 2, 6);
	wr(msi + 2, 2, 0x21);
	wr(msi + 16, 4, 2);
	pci_msi_send(&dev, 1);
	wr(msix + 2, 2, 0x8000);
	bus_out(BUS_MMIO, 0xc0100000 + TABLE, 8, 0xfee07000);
	pci_msix_send(&dev, 0);
	pci_set_intx(&dev, 1);

	bus_create(&test_bus, NULL);
	make_bus();
	make_dev(&copy, SLOT);
	round_trip(&chipset_ops, first, chipset);
	round_trip(&dev_ops, &dev, &copy);
	assert_int_equal(inl(0xcf8), 0x80001804);
	assert_int_equal(bus_in(BUS_MMIO, 0xc0000010, 1), 13);
	assert_int_equal(wire_level[3], 1);
	messages = 0;
	wr(msi + 16, 4, 0);
	assert_int_equal(messages, 1);
	bus_out(BUS_MMIO, 0xc0100000 + TABLE + 12, 4, 0);
	assert_int_equal(messages, 2);
	assert_int_equal(msi_address, 0xfee07000);
	pci_set_intx(&copy, 0);
	assert_int_equal(wire_level[3], 0);
	pci_dev_remove(&copy);
	chipset_ops.destroy(chipset);
	bus_destroy(test_bus);
	chipset = first;
	pb = chipset_pci(first);
	test_bus = first_bus;
}

static void test_hostile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		scribble(BUS_PIO, 0xcf8, 8, 5);
		scribble(BUS_MMIO, cfg(DEVFN, 0), 0x108, 10);
		scribble(BUS_MMIO, cfg(0, 0), 0x100, 2);
		scribble(BUS_MMIO, cfg(0xf8, 0), 0x100, 2);
		wr(0x10, 4, 0xc0100000);
		wr(0x14, 4, 0);
		scribble(BUS_MMIO, 0xc0100000, BAR_BYTES, 10);
		pci_set_intx(&dev, rand() & 1);
		pci_msi_send(&dev, (unsigned)rand());
		pci_msix_send(&dev, (unsigned)rand() % 100);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_mechanism1), T(test_ecam),  T(test_reset_register),
		T(test_bars),	    T(test_intx),  T(test_msi),
		T(test_msix),	    T(test_state), T(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
