/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI fixed hardware, fw_cfg, debug exit, FERR. */
#include <endian.h>
#include <errno.h>
#include <stdio.h>

#include "dev/debug_exit.h"
#include "dev/ferr.h"
#include "dev/fw_cfg.h"
#include "dev/pm.h"
#include "dev_test.h"

enum { EVT = 0x600, CNT = 0x604, TMR = 0x608, GPE = 0x620, FW = 0x510, OTHER = 0x1000, SCI = 0 };

static struct pm *pm;
static struct fw_cfg *fw;
static struct mem *mem;
static unsigned power_offs;

static void on_power_off(void *opaque)
{
	(void)opaque;
	power_offs++;
}

static struct pm *make_pm(uint16_t base)
{
	const struct pm_config cfg = {.bus = test_bus,
				      .evt_port = EVT + base,
				      .cnt_port = CNT + base,
				      .timer_port = TMR + base,
				      .gpe0_port = GPE + base,
				      .sci = wire(base ? 1 : SCI),
				      .power_off = on_power_off};
	struct pm *p;

	assert_int_equal(pm_create(&p, &cfg, NULL), 0);
	return p;
}

static struct fw_cfg *make_fw(uint16_t base)
{
	const struct fw_cfg_config cfg = {.bus = test_bus, .mem = mem, .port = FW + base};
	struct fw_cfg *f;

	assert_int_equal(fw_cfg_create(&f, &cfg, NULL), 0);
	assert_int_equal(fw_cfg_add_file(f, "etc/one", "abcdefghij", 10), 0);
	assert_int_equal(fw_cfg_add_file(f, "etc/two", "xyz", 3), 0);
	return f;
}

static int setup(void **state)
{
	(void)state;
	power_offs = 0;
	bus_create(&test_bus, NULL);
	wires_clear();
	assert_int_equal(mem_create(&mem, 1 << 20, NULL), 0);
	pm = make_pm(0);
	fw = make_fw(0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fw_cfg_ops.destroy(fw);
	pm_ops.destroy(pm);
	mem_destroy(mem);
	bus_destroy(test_bus);
	return 0;
}

static void test_pm_timer(void **state)
{
	uint32_t a = inl(TMR);

	(void)state;
	fake_time_pass(1000000000);
	uint32_t b = inl(TMR);
	assert_in_range((b - a) & 0xffffff, PM_TIMER_HZ - 2, PM_TIMER_HZ + 2);
	outl(TMR, 0);
	assert_int_equal(inl(TMR), b);
	assert_int_equal(inw(TMR + 2), b >> 16);
	fake_time_pass(1500000000); /* past 2^23 */
	assert_int_equal(inw(EVT) & 1, 1);
	outw(EVT, 1);
	assert_int_equal(inw(EVT), 0);
	outw(EVT + 2, 1); /* with its interrupt */
	fake_time_pass(2100000000);
	assert_int_equal(wire_level[SCI], 0);
	fake_time_pass(200000000);
	assert_int_equal(wire_level[SCI], 1);
	outb(EVT, 1); /* by bytes too */
	assert_int_equal(wire_level[SCI], 0);
	fake_time_jump(UINT64_C(100000000000));
	assert_int_equal(wire_rises[SCI], 2);
	assert_int_equal(inl(TMR) >> 24, 0);
}

static void test_power_button(void **state)
{
	(void)state;
	pm_power_button(pm);
	assert_int_equal(wire_level[SCI], 0);
	outw(EVT + 2, 0x100);
	assert_int_equal(wire_level[SCI], 1);
	assert_int_equal(inw(EVT), 0x100);
	outw(EVT, 0x100);
	assert_int_equal(wire_level[SCI], 0);
	pm_power_button(pm);
	assert_int_equal(wire_level[SCI], 1);
	outw(EVT + 2, 0xffff);
	assert_int_equal(inw(EVT + 2), 0x721);
	pm_ops.reset(pm);
	assert_int_equal(wire_level[SCI], 0);
}

static void test_sleep(void **state)
{
	(void)state;
	assert_int_equal(inw(CNT), 1);
	outw(CNT, 5 << 10);
	assert_int_equal(power_offs, 0);
	assert_int_equal(inw(CNT), 5 << 10 | 1);
	outw(CNT, 3 << 10 | 1 << 13);
	assert_int_equal(power_offs, 0);
	outw(CNT, 5 << 10 | 1 << 13);
	assert_int_equal(power_offs, 1);
	assert_int_equal(inw(CNT) & 1 << 13, 0); /* write-only */
}

static void test_gpe(void **state)
{
	(void)state;
	outw(GPE + 2, 1 << 9);
	pm_raise_gpe(pm, 3);
	assert_int_equal(wire_level[SCI], 0);
	pm_raise_gpe(pm, 9);
	assert_int_equal(wire_level[SCI], 1);
	assert_int_equal(inl(GPE), 0x2000208);
	outb(GPE + 1, 2);
	assert_int_equal(wire_level[SCI], 0);
	assert_int_equal(inw(GPE), 8);
}

static void test_pm_state(void **state)
{
	struct pm *other = make_pm(OTHER);

	(void)state;
	outw(EVT + 2, 0x101);
	pm_power_button(pm);
	pm_raise_gpe(pm, 1);
	fake_time_pass(1234567890);
	round_trip(&pm_ops, pm, other);
	assert_int_equal(wire_level[1], 1);
	for (unsigned i = 0; i < 30; i++) {
		assert_int_equal(inl(EVT), inl(EVT + OTHER));
		assert_int_equal(inl(TMR), inl(TMR + OTHER));
		assert_int_equal(inl(GPE), inl(GPE + OTHER));
		fake_time_pass(700000000);
	}
	pm_ops.destroy(other);
}

static void test_pm_hostile(void **state)
{
	(void)state;
	scribble(BUS_PIO, EVT, 12, 30000);
	scribble(BUS_PIO, GPE, 4, 10000);
}

/* --- fw_cfg --- */

static void read_item(uint16_t key, void *out, unsigned len)
{
	outw(FW, key);
	for (unsigned i = 0; i < len; i++)
		((uint8_t *)out)[i] = inb(FW + 1);
}

static uint16_t find(const char *name, uint32_t *size)
{
	uint32_t count;
	struct {
		uint32_t size;
		uint16_t select, reserved;
		char name[56];
	} e;

	read_item(0x19, &count, 4);
	for (uint32_t i = 0; i < be32toh(count); i++) {
		for (unsigned k = 0; k < sizeof(e); k++)
			((uint8_t *)&e)[k] = inb(FW + 1);
		if (!strcmp(e.name, name)) {
			*size = be32toh(e.size);
			return be16toh(e.select);
		}
	}
	return 0xffff;
}

static void test_fw_items(void **state)
{
	char buf[16] = "";
	uint32_t id, size = 0;

	(void)state;
	read_item(0, buf, 4);
	assert_string_equal(buf, "QEMU");
	read_item(1, &id, 4);
	assert_int_equal(id, 3);
	read_item(find("etc/one", &size), buf, 12);
	assert_int_equal(size, 10);
	assert_memory_equal(buf, "abcdefghij\0\0", 12); /* zeros past the end */
	read_item(find("etc/two", &size), buf, 3);
	assert_memory_equal(buf, "xyz", 3);
	assert_int_equal(find("etc/three", &size), 0xffff);
	assert_int_equal(fw_cfg_add_file(fw, "etc/one", "new", 3), 0);
	read_item(find("etc/one", &size), buf, 4);
	assert_int_equal(size, 3);
	assert_memory_equal(buf, "new", 4);
	read_item(0x3fff, buf, 2);
	assert_memory_equal(buf, "\0\0", 2);
	assert_int_equal(fw_cfg_add(fw, 0x20, "", 0), -EINVAL);
	for (unsigned i = 2; i < FW_CFG_FILES_MAX; i++) {
		snprintf(buf, sizeof(buf), "f%u", i);
		assert_int_equal(fw_cfg_add_file(fw, buf, "", 0), 0);
	}
	assert_int_equal(fw_cfg_add_file(fw, "toomany", "", 0), -ENOSPC);
}

static uint32_t dma(uint32_t control, uint32_t len, uint64_t to)
{
	struct {
		uint32_t control, len;
		uint64_t address;
	} r = {htobe32(control), htobe32(len), htobe64(to)};
	uint32_t result;

	mem_write(mem, 0x5000, &r, 16);
	outl(FW + 4, 0);
	outl(FW + 8, htobe32(0x5000));
	mem_read(mem, 0x5000, &result, 4);
	return be32toh(result);
}

static void test_fw_dma(void **state)
{
	uint32_t size;
	uint32_t key = find("etc/one", &size);
	char buf[12] = "";

	(void)state;
	assert_int_equal(inl(FW + 4), htobe32(0x51454d55));
	assert_int_equal(inl(FW + 8), htobe32(0x20434647));
	assert_int_equal(dma(key << 16 | 8 | 2, 4, 0x6000), 0); /* select, read */
	mem_read(mem, 0x6000, buf, 4);
	assert_memory_equal(buf, "abcd", 4);
	assert_int_equal(dma(4, 3, 0), 0); /* skip */
	memset(buf, 'q', sizeof(buf));
	mem_write(mem, 0x6000, buf, 12);
	assert_int_equal(dma(2, 6, 0x6000), 0);
	mem_read(mem, 0x6000, buf, 7);
	assert_memory_equal(buf, "hij\0\0\0q", 7);
	assert_int_equal(dma(key << 16 | 8 | 2, 10, UINT64_MAX - 4), 1);
	assert_int_equal(dma(2, UINT32_MAX, 0xff000), 1); /* runs off the end of RAM */
	assert_int_equal(dma(16, 4, 0x6000), 1);
	outl(FW + 4, UINT32_MAX); /* a request nowhere */
	outl(FW + 8, UINT32_MAX);
}

static void test_fw_state(void **state)
{
	struct fw_cfg *other = make_fw(OTHER);
	uint32_t size;
	uint16_t key = find("etc/one", &size);

	(void)state;
	outw(FW, key);
	inb(FW + 1);
	inb(FW + 1);
	round_trip(&fw_cfg_ops, fw, other);
	assert_int_equal(inb(FW + OTHER + 1), 'c');
	fw_cfg_ops.destroy(other);
}

static void test_fw_hostile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		uint32_t words[4] = {(uint32_t)rand() << 4, (uint32_t)rand(), (uint32_t)rand(),
				     (uint32_t)rand() & 0xff0f0000};
		mem_write(mem, 0x5000, words, 16);
		outl(FW + 8, htobe32(0x5000 + (rand() & 0xf)));
		scribble(BUS_PIO, FW, 12, 5);
	}
}

/* --- the small ones --- */

static uint32_t exit_value, exit_calls;

static void on_exit_value(void *opaque, uint32_t value)
{
	(void)opaque;
	exit_value = value;
	exit_calls++;
}

static void test_debug_exit(void **state)
{
	struct debug_exit *d;

	(void)state;
	assert_int_equal(debug_exit_create(&d, test_bus, 0xf4, on_exit_value, NULL, NULL), 0);
	outb(0xf4, 0x31);
	assert_int_equal(exit_value, 0x31);
	outl(0xf4, 0x12345678);
	assert_int_equal(exit_value, 0x12345678);
	assert_int_equal(inl(0xf4), 0);
	outb(0xf5, 1);
	assert_int_equal(exit_calls, 2);
	debug_exit_ops.destroy(d);
	outb(0xf4, 1);
	assert_int_equal(exit_calls, 2);
}

static void test_ferr(void **state)
{
	struct irq_line irq = wire(5), irq2 = wire(6);
	struct ferr *f, *other;
	struct bus *first = test_bus;

	(void)state;
	assert_int_equal(ferr_create(&f, test_bus, &irq, NULL), 0);
	ferr_set(f, true);
	assert_int_equal(wire_level[5], 1);
	bus_create(&test_bus, NULL);
	assert_int_equal(ferr_create(&other, test_bus, &irq2, NULL), 0);
	round_trip(&ferr_ops, f, other);
	assert_int_equal(wire_level[6], 1);
	outb(0xf0, 0);
	assert_int_equal(wire_level[6], 0);
	assert_int_equal(wire_level[5], 1);
	ferr_ops.destroy(other);
	bus_destroy(test_bus);
	test_bus = first;
	outb(0xf0, 0);
	assert_int_equal(wire_level[5], 0);
	ferr_ops.destroy(f);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_pm_timer), T(test_power_button), T(test_sleep),	    T(test_gpe),
		T(test_pm_state), T(test_pm_hostile),	T(test_fw_items),   T(test_fw_dma),
		T(test_fw_state), T(test_fw_hostile),	T(test_debug_exit), T(test_ferr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
