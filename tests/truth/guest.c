/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/engine.h"
#include "truth.h"

/*
 * The engine's side: a machine of a few pages. The case's pages are at the same addresses as in the
 * child, for user mode; everything else is a supervisor page in the upper half: descriptor tables,
 * a kernel stack, and an interrupt handler for each vector that is a HLT. So the exit says by RIP
 * which vector came, and the stack holds the rest.
 */
enum {
	GPA_PML4 = 0x1000,
	GPA_PDPT = 0x2000,
	GPA_PD = 0x3000,
	GPA_PT_CODE = 0x4000,
	GPA_PT_DATA = 0x5000,
	GPA_PDPT_HIGH = 0x6000,
	GPA_PD_HIGH = 0x7000,
	GPA_IDT = 0x20000,
	GPA_GDT = 0x21000,
	GPA_TSS = 0x22000,
	GPA_HANDLERS = 0x23000,
	GPA_STACK_TOP = 0x26000,
	GPA_CODE = 0x100000,
	GPA_DATA = 0x110000,
	HANDLER_BYTES = 16,
	SEL_KERNEL = 0x08,
	SEL_TSS = 0x40,
};
#define HIGH UINT64_C(0xffff800000000000)
#define RAM_BYTES (UINT64_C(4) << 20)

struct guest {
	const struct engine_ops *ops;
	struct mem *mem;
	struct engine_config config;
	struct engine *engine;
	struct vcpu *vcpu;
	struct cpu_state start;
	struct cpu_state state;
	uint8_t *ram;
};

static int no_irq(void *opaque)
{
	(void)opaque;
	return -1;
}

static uint8_t no_cr8(void *opaque)
{
	(void)opaque;
	return 0;
}

static void ignore_cr8(void *opaque, uint8_t cr8)
{
	(void)opaque;
	(void)cr8;
}

static void ignore_ferr(void *opaque, bool level)
{
	(void)opaque;
	(void)level;
}

static void put64(struct guest *g, uint64_t gpa, uint64_t v)
{
	memcpy(g->ram + gpa, &v, 8);
}

static uint64_t get64(const struct guest *g, uint64_t gpa)
{
	uint64_t v;

	memcpy(&v, g->ram + gpa, 8);
	return v;
}

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_PS = 0x80, PTE_ALL = PTE_P | PTE_W | PTE_U };
#define PTE_NX (UINT64_C(1) << 63)

static void make_tables(struct guest *g)
{
	put64(g, GPA_PML4, GPA_PDPT | PTE_ALL);
	put64(g, GPA_PML4 + 8 * 256, GPA_PDPT_HIGH | PTE_P | PTE_W);
	put64(g, GPA_PDPT_HIGH, GPA_PD_HIGH | PTE_P | PTE_W);
	put64(g, GPA_PD_HIGH, 0 | PTE_P | PTE_W | PTE_PS);
	put64(g, GPA_PDPT + 8 * (CODE_BASE >> 30), GPA_PD | PTE_ALL);
	put64(g, GPA_PD + 8 * (CODE_BASE >> 21 & 511), GPA_PT_CODE | PTE_ALL);
	put64(g, GPA_PD + 8 * (DATA_BASE >> 21 & 511), GPA_PT_DATA | PTE_ALL);
	for (unsigned k = 0; k < CODE_BYTES / PAGE; k++)
		put64(g, GPA_PT_CODE + 8 * k, (GPA_CODE + k * PAGE) | PTE_P | PTE_U);
	for (unsigned k = 0; k < DATA_BYTES / PAGE; k++)
		put64(g, GPA_PT_DATA + 8 * k,
		      (GPA_DATA + k * PAGE) | PTE_P | PTE_U | PTE_NX |
			      (k < DATA_RW_BYTES / PAGE ? PTE_W : 0));
}

/* Descriptors as in Linux's GDT; interrupt gates, the user's for INT3 and INTO. */
static void make_descriptors(struct guest *g)
{
	put64(g, GPA_GDT + SEL_KERNEL, UINT64_C(0x00af9b000000ffff));
	put64(g, GPA_GDT + (SEL_CODE32 & ~7), UINT64_C(0x00cffb000000ffff));
	put64(g, GPA_GDT + (SEL_DATA & ~7), UINT64_C(0x00cff3000000ffff));
	put64(g, GPA_GDT + (SEL_CODE64 & ~7), UINT64_C(0x00affb000000ffff));
	for (unsigned v = 0; v < 256; v++) {
		uint64_t at = HIGH + GPA_HANDLERS + v * HANDLER_BYTES;
		uint64_t type = v == 3 || v == 4 ? 0xee00 : 0x8e00;
		put64(g, GPA_IDT + 16 * v,
		      (at & 0xffff) | SEL_KERNEL << 16 | type << 32 | (at >> 16 & 0xffff) << 48);
		put64(g, GPA_IDT + 16 * v + 8, at >> 32);
		g->ram[GPA_HANDLERS + v * HANDLER_BYTES] = 0xf4; /* HLT */
	}
	put64(g, GPA_TSS + 4, HIGH + GPA_STACK_TOP); /* RSP0 */
	g->ram[GPA_TSS + 102] = 0x68;		     /* no I/O bitmap */
	memset(g->ram + GPA_CODE, 0xcc, CODE_BYTES);
}

static void make_start(struct guest *g)
{
	struct cpu_state *s = &g->start;
	const struct segment data = {SEL_DATA, 0xc0f3, UINT32_MAX, 0};
	const struct segment null = {0, SEG_UNUSABLE, 0, 0};

	cpu_state_reset(s, 0);
	for (unsigned n = 0; n < SEG_NR; n++)
		s->seg[n] = data;
	s->seg[SEG_FS] = s->seg[SEG_GS] = null;
	s->seg[SEG_FS].base = FS_BASE;
	s->seg[SEG_GS].base = GS_BASE;
	s->ldtr = null;
	s->tr = (struct segment){SEL_TSS, SEG_P | 0xb, 0x67, HIGH + GPA_TSS};
	s->gdt = (struct table_reg){0x7f, HIGH + GPA_GDT};
	s->idt = (struct table_reg){0xfff, HIGH + GPA_IDT};
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = GPA_PML4;
	s->cr4 = CR4_PAE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP |
		 CR4_FSGSBASE | CR4_OSXSAVE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
	s->activity = ACTIVITY_RUNNING;
}

int guest_start(struct guest **out, const char *engine, struct error *err)
{
	static const struct vcpu_board board = {no_irq, no_cr8, ignore_cr8, ignore_ferr, NULL};
	struct error reason;
	struct guest *g = calloc(1, sizeof(*g));
	int ret = -EINVAL;

	if (!g)
		return error_set(err, -ENOMEM, "no memory");
	g->ops = engine_find(engine, &reason, err);
	if (!g->ops || (ret = mem_create(&g->mem, RAM_BYTES, err)))
		goto fail;
	g->ram = mem_ptr(g->mem, 0, RAM_BYTES);
	g->config = (struct engine_config){.mem = g->mem, .cpus = 1, .tsc_hz = 1000000000};
	make_tables(g);
	make_descriptors(g);
	make_start(g);
	if ((ret = g->ops->create(&g->config, &g->engine, err)) ||
	    (ret = g->ops->vcpu_create(g->engine, 0, &board, &g->vcpu, err)))
		goto fail;
	*out = g;
	return 0;
fail:
	guest_stop(g);
	return ret;
}

void guest_stop(struct guest *g)
{
	if (!g)
		return;
	if (g->vcpu)
		g->ops->vcpu_destroy(g->vcpu);
	if (g->engine)
		g->ops->destroy(g->engine);
	if (g->mem)
		mem_destroy(g->mem);
	free(g);
}

static unsigned code_bytes(const struct tcase *t)
{
	return t->code_offset + t->length <= CODE_BYTES ? t->length
							: (unsigned)CODE_BYTES - t->code_offset;
}

static void set_up(struct guest *g, const struct tcase *t)
{
	struct cpu_state *s = &g->state;

	memcpy(g->ram + GPA_CODE + t->code_offset, t->code, code_bytes(t));
	mem_written(g->mem, GPA_CODE + t->code_offset, code_bytes(t));
	case_apply_patches(t, g->ram + GPA_DATA);
	*s = g->start;
	memcpy(s->gpr, t->gpr, sizeof(s->gpr));
	s->rip = CODE_BASE + t->code_offset;
	s->rflags = t->rflags;
	s->seg[SEG_CS] = (struct segment){t->mode32 ? SEL_CODE32 : SEL_CODE64,
					  t->mode32 ? 0xc0fb : 0xa0fb, UINT32_MAX, 0};
	memcpy(s->xsave.bytes, t->fx, FX_BYTES);
	memset(s->xsave.bytes + 28, 0, 4);
	memcpy(s->xsave.bytes + XSAVE_YMMH0, t->ymmh, YMMH_BYTES);
	s->xsave.bytes[XSAVE_BV] = 7;
}

static bool has_error(uint32_t v)
{
	return v == 8 || (v >= 10 && v <= 14) || v == 17;
}

static void note_result(struct guest *g, struct result *r)
{
	struct cpu_state *s = &g->state;
	uint64_t at = s->rip - (HIGH + GPA_HANDLERS);

	memcpy(r->gpr, s->gpr, sizeof(r->gpr));
	memcpy(r->fx, s->xsave.bytes, FX_BYTES);
	memcpy(r->ymmh, s->xsave.bytes + XSAVE_YMMH0, YMMH_BYTES);
	r->cr2 = s->cr2;
	if (at >= 256 * HANDLER_BYTES) {
		r->vector = VECTOR_ODD_EXIT;
		r->rip = s->rip;
		r->rflags = s->rflags;
		return;
	}
	r->vector = (uint32_t)(at / HANDLER_BYTES);
	r->error = has_error(r->vector) ? (uint32_t)get64(g, GPA_STACK_TOP - 48) : 0;
	r->rip = get64(g, GPA_STACK_TOP - 40);
	r->rflags = get64(g, GPA_STACK_TOP - 24);
	r->gpr[RSP] = get64(g, GPA_STACK_TOP - 16);
}

void guest_run(struct guest *g, const struct tcase *t, const uint8_t *pristine, struct result *r)
{
	struct exit exit = {.cause = EXIT_INTERRUPTED};
	struct error err;

	memset(r, 0, sizeof(*r));
	set_up(g, t);
	if (g->ops->set_state(g->vcpu, &g->state, &err)) {
		r->vector = VECTOR_NOT_RUN;
		return;
	}
	do
		g->ops->run(g->vcpu, &exit);
	while (exit.cause == EXIT_INTERRUPTED);
	g->ops->get_state(g->vcpu, &g->state);
	note_result(g, r);
	if (exit.cause == EXIT_SHUTDOWN)
		r->vector = VECTOR_SHUTDOWN;
	else if (exit.cause != EXIT_HLT)
		r->vector = VECTOR_ODD_EXIT;
	memset(g->ram + GPA_CODE + t->code_offset, 0xcc, code_bytes(t));
	mem_written(g->mem, GPA_CODE + t->code_offset, code_bytes(t));
	result_take_memory(r, t, g->ram + GPA_DATA, pristine);
}

void guest_fill(struct guest *g, const uint8_t *pristine)
{
	memcpy(g->ram + GPA_DATA, pristine, DATA_BYTES);
}
