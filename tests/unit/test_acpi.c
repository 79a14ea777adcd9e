/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine/acpi/acpi.h"
#include "machine/layout.h"

/*
 * The tables as a guest finds them: by a scan for the root pointer, then down every pointer, with
 * every checksum; and all the AML through iasl's disassembler and back through its compiler.
 */
enum { AREA = LAYOUT_ACPI_BYTES, TABLES_MAX = 16 };

struct tables {
	uint8_t area[AREA];
	const uint8_t *table[TABLES_MAX]; /* as the XSDT names them, then the DSDT */
	unsigned nr;
};

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, p, bytes);
	return v;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s += *p++;
	return s;
}

static const uint8_t *at_gpa(const struct tables *t, uint64_t gpa)
{
	assert_true(gpa >= LAYOUT_ACPI_BASE && gpa < LAYOUT_ACPI_BASE + AREA);
	return t->area + (gpa - LAYOUT_ACPI_BASE);
}

static size_t length(const uint8_t *table)
{
	return get(table + 4, 4);
}

/* A table whose header, length and checksum hold. */
static const uint8_t *checked(const struct tables *t, uint64_t gpa)
{
	const uint8_t *p = at_gpa(t, gpa);

	assert_true(length(p) >= 36 && length(p) <= (size_t)(t->area + AREA - p));
	assert_int_equal(sum(p, length(p)), 0);
	assert_int_equal(gpa % 4, 0);
	return p;
}

static const uint8_t *find(const struct tables *t, const char *signature, unsigned nth)
{
	for (unsigned i = 0; i < t->nr; i++)
		if (!memcmp(t->table[i], signature, 4) && nth-- == 0)
			return t->table[i];
	return NULL;
}

static void build(struct tables *t, unsigned cpus, bool hpet)
{
	struct acpi_board board = {.cpus = cpus, .hpet = hpet};
	const uint8_t *rsdp, *xsdt, *rsdt, *fadt;
	struct mem *mem;
	uint64_t gpa;

	memset(t, 0, sizeof(*t));
	assert_int_equal(mem_create(&mem, 1 << 20, NULL), 0);
	assert_int_equal(acpi_build(&board, mem, &gpa, NULL), 0);
	assert_int_equal(mem_read(mem, LAYOUT_ACPI_BASE, t->area, AREA), 0);
	mem_destroy(mem);
	/* Found by a scan on 16-byte boundaries (5.2.5.1). */
	assert_int_equal(gpa % 16, 0);
	rsdp = at_gpa(t, gpa);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	assert_int_equal(rsdp[15], 2);
	rsdt = checked(t, get(rsdp + 16, 4));
	xsdt = checked(t, get(rsdp + 24, 8));
	assert_memory_equal(rsdt, "RSDT", 4);
	assert_memory_equal(xsdt, "XSDT", 4);
	t->nr = (unsigned)(length(xsdt) - 36) / 8;
	assert_true(t->nr < TABLES_MAX);
	assert_int_equal((length(rsdt) - 36) / 4, t->nr);
	for (unsigned i = 0; i < t->nr; i++) {
		t->table[i] = checked(t, get(xsdt + 36 + 8 * i, 8));
		assert_int_equal(get(rsdt + 36 + 4 * i, 4), get(xsdt + 36 + 8 * i, 8));
	}
	fadt = find(t, "FACP", 0);
	assert_non_null(fadt);
	t->table[t->nr++] = checked(t, get(fadt + 140, 8));
}

static void fadt(void **state)
{
	struct tables t;
	const uint8_t *f, *facs;

	(void)state;
	build(&t, 1, false);
	f = find(&t, "FACP", 0);
	assert_int_equal(length(f), 276);
	assert_int_equal(get(f + 40, 4), get(f + 140, 8));
	assert_memory_equal(at_gpa(&t, get(f + 40, 4)), "DSDT", 4);
	facs = at_gpa(&t, get(f + 36, 4));
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(get(f + 36, 4) % 64, 0);
	assert_int_equal(length(facs), 64);
	assert_int_equal(get(f + 46, 2), LAYOUT_IRQ_SCI);
	assert_int_equal(get(f + 56, 4), LAYOUT_PM1A_EVT);
	assert_int_equal(get(f + 64, 4), LAYOUT_PM1A_CNT);
	assert_int_equal(get(f + 76, 4), LAYOUT_PM_TMR);
	assert_int_equal(get(f + 80, 4), LAYOUT_GPE0);
	/* Power button fixed (bit 4 clear), reset register (10), not hardware-reduced (20). */
	assert_int_equal(get(f + 112, 4) & (1u << 4 | 1u << 10 | 1u << 20), 1u << 10);
	assert_int_equal(get(f + 109, 2) & 3, 3);
	/* Reset: I/O space, 8 bits, CF9h, value 6. The extended blocks agree with the old ones. */
	assert_int_equal(get(f + 116, 2), 0x0801);
	assert_int_equal(get(f + 120, 8), LAYOUT_RESET);
	assert_int_equal(f[128], 6);
	assert_int_equal(get(f + 152, 8), LAYOUT_PM1A_EVT);
	assert_int_equal(f[149], f[88] * 8);
	assert_int_equal(get(f + 176, 8), LAYOUT_PM1A_CNT);
	assert_int_equal(f[173], f[89] * 8);
	assert_int_equal(get(f + 212, 8), LAYOUT_PM_TMR);
	assert_int_equal(get(f + 224, 8), LAYOUT_GPE0);
	assert_int_equal(f[221], f[92] * 8);
}

struct madt_count {
	unsigned lapic, x2apic, ioapic, override, nmi, x2nmi;
};

static void count_madt(const uint8_t *madt, struct madt_count *n)
{
	const uint8_t *end = madt + length(madt);

	memset(n, 0, sizeof(*n));
	for (const uint8_t *e = madt + 44; e < end; e += e[1]) {
		assert_true(e[1] >= 6 && e[1] <= end - e);
		switch (e[0]) {
		case 0:
			assert_int_equal(e[3], n->lapic);
			assert_int_equal(e[2], e[3]);
			assert_int_equal(get(e + 4, 4), 1);
			n->lapic++;
			break;
		case 1:
			assert_int_equal(get(e + 4, 4), LAYOUT_IOAPIC);
			assert_int_equal(get(e + 8, 4), 0);
			n->ioapic++;
			break;
		case 2:
			/* The PIT to pin 2; the SCI active high, level. */
			assert_true((e[3] == 0 && get(e + 4, 4) == 2 && get(e + 8, 2) == 0) ||
				    (e[3] == 9 && get(e + 4, 4) == 9 && get(e + 8, 2) == 0xd));
			n->override++;
			break;
		case 4:
			assert_int_equal(e[2], 0xff);
			assert_int_equal(e[5], 1);
			n->nmi++;
			break;
		case 9:
			assert_int_equal(get(e + 4, 4), 255 + n->x2apic);
			assert_int_equal(get(e + 12, 4), get(e + 4, 4));
			n->x2apic++;
			break;
		case 10:
			n->x2nmi++;
			break;
		default:
			fail();
		}
	}
}

static void madt(void **state)
{
	static const unsigned cpus[] = {1, 4, 255, 256, ACPI_CPUS_MAX};
	struct madt_count n;
	struct tables t;

	(void)state;
	for (size_t i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++) {
		build(&t, cpus[i], true);
		assert_int_equal(get(find(&t, "APIC", 0) + 36, 4), LAYOUT_LAPIC);
		count_madt(find(&t, "APIC", 0), &n);
		assert_int_equal(n.lapic, cpus[i] > 255 ? 255 : cpus[i]);
		assert_int_equal(n.lapic + n.x2apic, cpus[i]);
		assert_int_equal(n.ioapic, 1);
		assert_int_equal(n.override, 2);
		assert_int_equal(n.nmi, 1);
		assert_int_equal(n.x2nmi, cpus[i] > 255);
	}
}

static void mcfg_and_hpet(void **state)
{
	struct tables t;
	const uint8_t *p;

	(void)state;
	build(&t, 1, false);
	p = find(&t, "MCFG", 0);
	assert_int_equal(length(p), 60);
	assert_int_equal(get(p + 44, 8), LAYOUT_ECAM_BASE);
	assert_int_equal((uint64_t)(p[55] - p[54] + 1) << 20, LAYOUT_ECAM_BYTES);
	assert_null(find(&t, "HPET", 0));
	assert_null(find(&t, "SSDT", 1));
	build(&t, 1, true);
	assert_int_equal(get(find(&t, "HPET", 0) + 44, 8), LAYOUT_HPET);
	assert_non_null(find(&t, "SSDT", 1));
}

static void limits(void **state)
{
	struct acpi_board board = {.cpus = 0};
	struct error err = {""};
	struct mem *mem;
	uint64_t gpa;

	(void)state;
	assert_int_equal(mem_create(&mem, 1 << 20, NULL), 0);
	assert_int_equal(acpi_build(&board, mem, &gpa, &err), -EINVAL);
	board.cpus = ACPI_CPUS_MAX + 1;
	assert_int_equal(acpi_build(&board, mem, &gpa, &err), -EINVAL);
	assert_non_null(strstr(err.text, "1025"));
	mem_destroy(mem);
}

/* How often word is in the file. */
static unsigned occurrences(const char *path, const char *word)
{
	char line[1024];
	unsigned n = 0;
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, word))
			n++;
	fclose(f);
	return n;
}

static void run(const char *fmt, const char *dir, const char *name)
{
	char command[512];

	snprintf(command, sizeof(command), fmt, dir, name);
	if (system(command)) {
		print_error("%s\n", command);
		fail();
	}
}

/* Every AML table disassembles, and what comes out compiles without a warning. */
static void aml(void **state)
{
	char dir[] = "/tmp/hanok-test-acpi-XXXXXX", path[128], dsl[128];
	unsigned processors = 0, routes = 0, sleep = 0;
	struct tables t;

	(void)state;
	build(&t, 300, true);
	assert_non_null(mkdtemp(dir));
	for (unsigned i = 0; i < t.nr; i++) {
		char name[16];
		FILE *f;

		if (memcmp(t.table[i], "DSDT", 4) && memcmp(t.table[i], "SSDT", 4))
			continue;
		snprintf(name, sizeof(name), "t%u", i);
		snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
		snprintf(dsl, sizeof(dsl), "%s/%s.dsl", dir, name);
		f = fopen(path, "w");
		assert_non_null(f);
		assert_int_equal(fwrite(t.table[i], 1, length(t.table[i]), f), length(t.table[i]));
		fclose(f);
		run("cd %s && iasl -vs -d %s.aml >log 2>&1", dir, name);
		run("cd %s && iasl -vs -we -p again %s.dsl >log 2>&1", dir, name);
		processors += occurrences(dsl, "\"ACPI0007\"");
		routes += occurrences(dsl, "FFFF");
		sleep += occurrences(dsl, "_S5_");
	}
	assert_int_equal(processors, 300);
	assert_true(routes >= 2 * 32 * 4); /* _PRT: two models, 32 slots, 4 pins */
	assert_int_equal(sleep, 1);
	run("rm -rf %s%s", dir, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fadt),	  cmocka_unit_test(madt), cmocka_unit_test(mcfg_and_hpet),
		cmocka_unit_test(limits), cmocka_unit_test(aml),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
