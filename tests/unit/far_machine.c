/* SPDX-License-Identifier: Apache-2.0 */
#include "far_machine.h"

#include <stdlib.h>

#include "cpu/interp/interp.h"
#include "mem/mem.h"

static struct mem *mem;
uint8_t *ram, *ram_before;
static struct engine_config config = {.cpus = 1, .tsc_hz = 1000000000};
static struct engine *engine;
struct vcpu *vcpu;
struct cpu_state start, after;
int first_event; /* that is no software interrupt */
unsigned software_events;
static uint32_t event_error;

static int no_irq(void *opaque)
{
	(void)opaque;
	return -1;
}

static void note_event(void *opaque, struct vcpu *v, const struct cpu_event *e)
{
	(void)opaque, (void)v;
	if (e->kind == EVENT_SOFT_INT || e->kind == EVENT_ICEBP) {
		software_events++;
	} else if (first_event == NONE) {
		first_event = e->vector;
		event_error = e->error;
	}
}

int setup(void **state)
{
	const struct vcpu_board board = {.irq_ack = no_irq};
	const struct engine_ops *ops = engine_find("interp", NULL, NULL);
	struct error err;

	(void)state;
	assert_int_equal(mem_create(&mem, RAM, &err), 0);
	config.mem = mem;
	ram = mem_ptr(mem, 0, RAM);
	ram_before = malloc(RAM);
	assert_non_null(ram);
	assert_non_null(ram_before);
	assert_int_equal(ops->create(&config, &engine, &err), 0);
	assert_int_equal(ops->vcpu_create(engine, 0, &board, &vcpu, &err), 0);
	static struct vcpu_tracer tracer = {.fn = note_event};
	vcpu_add_tracer(vcpu, &tracer);
	return 0;
}

int teardown(void **state)
{
	const struct engine_ops *ops = vcpu->ops;

	(void)state;
	ops->vcpu_destroy(vcpu);
	ops->destroy(engine);
	mem_destroy(mem);
	free(ram_before);
	return 0;
}

void amd(bool on)
{
	((struct soft_cpu *)vcpu)->vendor_amd = on;
}

/* ---- tables ---- */

void put(uint32_t at, uint64_t v, unsigned bytes)
{
	memcpy(ram + at, &v, bytes);
}

uint64_t get(uint32_t at, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, ram + at, bytes);
	return v;
}

/* access: type, S, DPL, P; flags: AVL, L, D, G. */
void descriptor(uint16_t sel, uint32_t base, uint32_t limit, uint8_t access, uint8_t flags)
{
	put(GDT + sel,
	    (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
		    (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 |
		    (uint64_t)(base >> 24) << 56,
	    8);
	put(GDT + sel + 8, 0, 8);
}

void gate(uint32_t at, uint16_t sel, uint32_t offset, uint8_t access, uint8_t low)
{
	put(at,
	    (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)low << 32 | (uint64_t)access << 40 |
		    (uint64_t)(offset >> 16) << 48,
	    8);
}

void idt_gate(unsigned vector, uint16_t sel, uint8_t access)
{
	if (start.efer & EFER_LMA) {
		gate(IDT + 16 * vector, sel, HANDLER, access, 0);
		put(IDT + 16 * vector + 8, 0, 8);
	} else {
		gate(IDT + 8 * vector, sel, HANDLER, access, 0);
	}
	start.idt = (struct table_reg){.limit = 0xfff, .base = IDT};
}

static void fill_gdt(void)
{
	descriptor(CODE0, 0, 0xfffff, 0x9b, 0xc);
	descriptor(DATA0, 0, 0xfffff, 0x93, 0xc);
	descriptor(CODE3, 0, 0xfffff, 0xfb, 0xc);
	descriptor(DATA3, 0, 0xfffff, 0xf3, 0xc);
	descriptor(CODE64, 0, 0xfffff, 0x9b, 0xa);
	descriptor(CODE64_3, 0, 0xfffff, 0xfb, 0xa);
	descriptor(STACK16_3, 0, 0xffff, 0xf3, 0);
	descriptor(SMALL0, STACK0, 5, 0x93, 4);
	descriptor(TSS_SEL, TSS, 0x67, 0x8b, 0);
	descriptor(GATE, 0, 0, 0, 0);
	descriptor(TSS2_SEL, TSS2, 0x67, 0x89, 0);
	descriptor(ABSENT_CODE, 0, 0xfffff, 0x1b, 0xc);
	descriptor(FRESH_CODE, 0, 0xfffff, 0xfa, 0xc);
	descriptor(FRESH_STACK, 0, 0xfffff, 0x92, 0xc);
}

struct segment segment_of(uint16_t sel)
{
	uint64_t d = get(GDT + (sel & ~7u), 8);
	uint32_t limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));

	return (struct segment){.sel = sel,
				.attr = d >> 40 & 0xf0ff,
				.limit = d >> 55 & 1 ? limit << 12 | 0xfff : limit,
				.base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000)};
}

/* Flat 32-bit protected mode, no paging, CPL 0. */
void fresh32(void)
{
	memset(ram, 0, RAM);
	fill_gdt();
	put(TSS + 4, STACK0, 4);
	put(TSS + 8, DATA0, 4);
	cpu_state_reset(&start, 0);
	start.cr0 = CR0_PE | CR0_ET | CR0_NE;
	start.gdt = (struct table_reg){.limit = GDT_LIMIT, .base = GDT};
	start.idt = (struct table_reg){0, 0};
	start.tr = segment_of(TSS_SEL);
	start.seg[SEG_CS] = segment_of(CODE0);
	for (unsigned n = 0; n < SEG_NR; n++)
		if (n != SEG_CS)
			start.seg[n] = segment_of(DATA0);
	start.rip = CODE;
	start.gpr[RSP] = STACK;
	amd(false);
}

void ring3_32(void)
{
	start.seg[SEG_CS] = segment_of(CODE3 | 3);
	for (unsigned n = 0; n < SEG_NR; n++)
		if (n != SEG_CS)
			start.seg[n] = segment_of(DATA3 | 3);
}

/* 64-bit mode, identity-mapped by 2 MiB pages, CPL 0. */
void fresh64(void)
{
	fresh32();
	put(PML4, (PML4 + 0x1000) | 0x67, 8);
	put(PML4 + 0x1000, (PML4 + 0x2000) | 0x67, 8);
	put(PML4 + 0x2000, 0xe7, 8);
	put(TSS + 4, STACK0, 8);
	put(TSS + 36, IST1, 8);
	start.cr0 |= CR0_PG;
	start.cr4 = CR4_PAE;
	start.cr3 = PML4;
	start.efer = EFER_LME | EFER_LMA | EFER_SCE;
	start.seg[SEG_CS] = segment_of(CODE64);
}

void ring3_64(void)
{
	ring3_32();
	start.seg[SEG_CS] = segment_of(CODE64_3 | 3);
}

void v86(void)
{
	for (unsigned n = 0; n < SEG_NR; n++)
		start.seg[n] = (struct segment){.sel = 0, .attr = 0xf3, .limit = 0xffff};
	start.rflags |= FLAG_VM;
	start.seg[SEG_ES].sel = 0x11, start.seg[SEG_ES].base = 0x110;
	start.seg[SEG_DS].sel = 0x22, start.seg[SEG_DS].base = 0x220;
	start.seg[SEG_FS].sel = 0x33, start.seg[SEG_FS].base = 0x330;
	start.seg[SEG_GS].sel = 0x44, start.seg[SEG_GS].base = 0x440;
}

/* ---- running ---- */

/* Goes from `start` to `after` through one instruction, wherever it leads. The vector of the first
 * exception or event delivered, or NONE. */
int go(void)
{
	static const struct vcpu_debug step = {.step = true};
	struct exit e = {0};

	first_event = NONE;
	memcpy(ram_before, ram, RAM);
	assert_int_equal(vcpu->ops->set_state(vcpu, &start, NULL), 0);
	assert_int_equal(vcpu->ops->set_debug(vcpu, &step), 0);
	vcpu->ops->run(vcpu, &e);
	vcpu->ops->get_state(vcpu, &after);
	if (e.cause == EXIT_DEBUG)
		assert_int_equal(e.debug.kind, EXIT_DEBUG_STEP);
	else
		assert_int_equal(e.cause, EXIT_SHUTDOWN);
	return first_event;
}

int insn(const char *bytes, size_t len)
{
	memcpy(ram + CODE, bytes, len);
	return go();
}

/* An event, and a NOP of its handler. */
int event(uint8_t vector, enum event_kind kind, bool has_error, uint32_t error)
{
	ram[HANDLER] = 0x90;
	start.event_pending = true;
	start.event_vector = vector;
	start.event_kind = kind;
	start.event_has_error = has_error;
	start.event_error = error;
	return go();
}

bool same_segment(const struct segment *a, const struct segment *b)
{
	return a->sel == b->sel && a->attr == b->attr && a->limit == b->limit && a->base == b->base;
}

/* A fault: its vector and error code; and nothing the guest can see has changed. */
void assert_fault(int got, int vector, uint32_t error)
{
	assert_int_equal(got, vector);
	assert_int_equal(event_error, error);
	assert_memory_equal(ram, ram_before, RAM);
	assert_memory_equal(after.gpr, start.gpr, sizeof(after.gpr));
	assert_int_equal(after.rip, start.rip);
	assert_int_equal(after.rflags, start.rflags);
	assert_int_equal(after.cr0, start.cr0);
	assert_int_equal(after.cr3, start.cr3);
	for (unsigned n = 0; n < SEG_NR; n++)
		assert_true(same_segment(&after.seg[n], &start.seg[n]));
	assert_true(same_segment(&after.tr, &start.tr));
	assert_true(same_segment(&after.ldtr, &start.ldtr));
}

void pushes(unsigned size, const uint64_t *values, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		put((uint32_t)start.gpr[RSP] + n * size, values[n], size);
}

/* The frame at the new top of the stack. */
void assert_stack(unsigned size, const uint64_t *values, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		assert_int_equal(get((uint32_t)after.gpr[RSP] + n * size, size), values[n]);
}
