/* SPDX-License-Identifier: Apache-2.0 */
#include "bt.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A machine of one or two vCPUs and 16 MiB, with the address space and the kernel of layout.h. */

extern const uint8_t kernel_begin[], kernel_load[], kernel_end[], kernel_syscall[];

/* ---- the board ---- */

static int irq_ack(void *opaque)
{
	struct box_cpu *cpu = opaque;
	struct box *b = cpu->box;

	if (atomic_exchange(&cpu->ipi, false)) {
		vcpu_unrequest(cpu->vcpu, VCPU_REQ_IRQ);
		return IPI_VECTOR;
	}
	/* As a level it would come again and again at the same place, unless the engine gets on by
	 * one instruction each time. */
	if (!b->irq_level)
		vcpu_unrequest(cpu->vcpu, VCPU_REQ_IRQ);
	return rng_percent(&b->irq_rng, b->irq_percent) ? IRQ_VECTOR : -1;
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

/* ---- a watchdog over the box that runs ---- */

/* Whoever asks something of the box that runs holds the lock: the box does not go meanwhile. */
static pthread_mutex_t running_lock = PTHREAD_MUTEX_INITIALIZER;
static struct box *running;
static uint64_t running_since_ms;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void set_running(struct box *b, uint64_t since_ms)
{
	pthread_mutex_lock(&running_lock);
	running = b;
	running_since_ms = since_ms;
	pthread_mutex_unlock(&running_lock);
}

/* Asks for interrupts, and to come out of run(), at no particular times. */
static void *tick(void *unused)
{
	const struct timespec nap = {.tv_nsec = 20000};

	(void)unused;
	for (unsigned n = 0;; n++) {
		nanosleep(&nap, NULL);
		pthread_mutex_lock(&running_lock);
		if (running && running->irq_percent)
			vcpu_request(running->vcpu, n % 4 ? VCPU_REQ_IRQ : VCPU_REQ_KICK);
		pthread_mutex_unlock(&running_lock);
	}
	return NULL;
}

static void *watch(void *unused)
{
	const struct timespec nap = {.tv_nsec = 20000000};

	(void)unused;
	for (;;) {
		nanosleep(&nap, NULL);
		pthread_mutex_lock(&running_lock);
		if (running && now_ms() - running_since_ms > running->patience_ms)
			vcpu_request(running->vcpu, VCPU_REQ_KICK);
		pthread_mutex_unlock(&running_lock);
	}
	return NULL;
}

static void start_watchdog(void)
{
	static bool started;
	pthread_t thread;

	if (started || pthread_create(&thread, NULL, watch, NULL))
		return;
	pthread_detach(thread);
	started = true;
}

void box_start_interrupts(struct box *b, unsigned percent)
{
	const char *stress = getenv("HANOK_BT_STRESS");
	pthread_t thread;

	b->irq_percent = percent;
	b->irq_level = stress && !strncmp(stress, "interrupts", 10);
	if (!b->irq_level && !pthread_create(&thread, NULL, tick, NULL))
		pthread_detach(thread);
}

/* ---- memory ---- */

void box_put64(struct box *b, uint64_t gpa, uint64_t v)
{
	memcpy(b->ram + gpa, &v, 8);
}

uint64_t box_get64(const struct box *b, uint64_t gpa)
{
	uint64_t v;

	memcpy(&v, b->ram + gpa, 8);
	return v;
}

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_PS = 0x80, PTE_ALL = PTE_P | PTE_W | PTE_U };
#define PTE_NX (UINT64_C(1) << 63)

static void map(struct box *b, uint32_t gva, uint64_t gpa, unsigned pages, uint64_t bits)
{
	uint64_t table = gva >> 21 == CODE_BASE >> 21 ? GPA_PT_CODE : GPA_PT_DATA;

	for (unsigned k = 0; k < pages; k++)
		box_put64(b, table + 8 * ((gva >> 12 & 511) + k), (gpa + k * PAGE) | bits);
}

static void map_user(struct box *b, bool writable_code)
{
	uint64_t code = PTE_P | PTE_U | (writable_code ? PTE_W : 0);

	memset(b->ram + GPA_PT_CODE, 0, PAGE);
	memset(b->ram + GPA_PT_DATA, 0, PAGE);
	map(b, CODE_BASE, GPA_CODE, CODE_PAGES, code);
	map(b, DATA_BASE, GPA_DATA, DATA_PAGES, PTE_ALL | PTE_NX);
	map(b, DATA_BASE + DATA_RW_PAGES * PAGE, GPA_DATA + DATA_RW_PAGES * PAGE, 1,
	    PTE_P | PTE_U | PTE_NX);
	map(b, LAZY_BASE, GPA_LAZY, LAZY_PAGES, PTE_W | PTE_U | PTE_NX);
	map(b, SAFE_BASE, GPA_SAFE, 1, PTE_ALL | PTE_NX);
	map(b, ALIAS_BASE, GPA_CODE, CODE_PAGES, PTE_ALL | PTE_NX);
	map(b, ALT_BASE, GPA_ALT, ALT_PAGES, PTE_ALL);
	map(b, STACK_BASE, GPA_STACK, STACK_PAGES, PTE_ALL | PTE_NX);
}

static void make_tables(struct box *b)
{
	box_put64(b, GPA_PML4, GPA_PDPT | PTE_ALL);
	box_put64(b, GPA_PML4 + 8 * (MOVED >> 39 & 511), GPA_PDPT | PTE_ALL);
	box_put64(b, GPA_PML4 + 8 * (MOVED_AGAIN >> 39 & 511), GPA_PDPT | PTE_ALL);
	box_put64(b, GPA_PML4 + 8 * 256, GPA_PDPT_HIGH | PTE_P | PTE_W);
	box_put64(b, GPA_PDPT_HIGH, GPA_PD_HIGH | PTE_P | PTE_W);
	for (unsigned k = 0; k < BOX_RAM_BYTES >> 21; k++)
		box_put64(b, GPA_PD_HIGH + 8 * k, (uint64_t)k << 21 | PTE_P | PTE_W | PTE_PS);
	box_put64(b, GPA_PDPT + 8 * (CODE_BASE >> 30), GPA_PD | PTE_ALL);
	box_put64(b, GPA_PD + 8 * (CODE_BASE >> 21 & 511), GPA_PT_CODE | PTE_ALL);
	box_put64(b, GPA_PD + 8 * (DATA_BASE >> 21 & 511), GPA_PT_DATA | PTE_ALL);
	map_user(b, false);
}

/* Descriptors as in Linux's GDT; interrupt gates, the user's for INT3, INTO and the end. */
static void make_descriptors(struct box *b)
{
	box_put64(b, GPA_GDT + SEL_KERNEL, UINT64_C(0x00af9b000000ffff));
	box_put64(b, GPA_GDT + (SEL_CODE32 & ~7), UINT64_C(0x00cffb000000ffff));
	box_put64(b, GPA_GDT + (SEL_DATA & ~7), UINT64_C(0x00cff3000000ffff));
	box_put64(b, GPA_GDT + (SEL_CODE64 & ~7), UINT64_C(0x00affb000000ffff));
	for (unsigned v = 0; v < 256; v++) {
		uint64_t at = HIGH + GPA_KERNEL + 16 * v;
		uint64_t type = v == 3 || v == 4 || v == END_VECTOR || v == SWAP_VECTOR ? 0xee00
											: 0x8e00;
		box_put64(b, GPA_IDT + 16 * v,
			  (at & 0xffff) | SEL_KERNEL << 16 | type << 32 |
				  (at >> 16 & 0xffff) << 48);
		box_put64(b, GPA_IDT + 16 * v + 8, at >> 32);
	}
	box_put64(b, GPA_TSS + 4, HIGH + GPA_STACK_TOP); /* RSP0 */
	b->ram[GPA_TSS + 102] = 0x68;			 /* no I/O bitmap */
}

static void make_start(struct box *b)
{
	struct cpu_state *s = &b->start;
	const struct segment data = {SEL_DATA, 0xc0f3, UINT32_MAX, 0};
	const struct segment null = {0, SEG_UNUSABLE, 0, 0};

	cpu_state_reset(s, 0);
	for (unsigned n = 0; n < SEG_NR; n++)
		s->seg[n] = data;
	s->seg[SEG_CS] = (struct segment){SEL_KERNEL, 0xa09b, UINT32_MAX, 0};
	s->seg[SEG_SS] = null;
	s->seg[SEG_FS] = s->seg[SEG_GS] = data;
	s->seg[SEG_FS].base = FS_BASE;
	s->seg[SEG_GS].base = GS_BASE;
	s->ldtr = null;
	s->tr = (struct segment){SEL_TSS, SEG_P | 0xb, 0x67, HIGH + GPA_TSS};
	s->gdt = (struct table_reg){0x7f, HIGH + GPA_GDT};
	s->idt = (struct table_reg){0xfff, HIGH + GPA_IDT};
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = GPA_PML4;
	s->cr4 = CR4_PAE | CR4_TSD | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP |
		 CR4_FSGSBASE | CR4_OSXSAVE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->star = (uint64_t)SEL_KERNEL << 32;
	s->lstar = s->cstar = HIGH + GPA_KERNEL + (uint64_t)(kernel_syscall - kernel_begin);
	s->xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
	s->activity = ACTIVITY_RUNNING;
	s->rip = HIGH + GPA_KERNEL + (uint64_t)(kernel_load - kernel_begin);
}

/* ---- life ---- */

void box_reset_memory(struct box *b)
{
	memset(b->ram, 0, LOW_BYTES);
	make_tables(b);
	make_descriptors(b);
	memcpy(b->ram + GPA_KERNEL, kernel_begin, (size_t)(kernel_end - kernel_begin));
}

int box_create(struct box **out, const char *engine, unsigned cpus, uint64_t code_cache_bytes,
	       struct error *err)
{
	struct error reason;
	struct box *b = calloc(1, sizeof(*b));
	int ret = -EINVAL;

	if (!b)
		return error_set(err, -ENOMEM, "no memory");
	struct vcpu_board board = {irq_ack, no_cr8, ignore_cr8, ignore_ferr, NULL};
	start_watchdog();
	b->engine_name = engine;
	b->patience_ms = 1000;
	rng_init(&b->irq_rng, 1, 1);
	b->ops = engine_find(engine, &reason, err);
	if (!b->ops || (ret = mem_create_shared(&b->mem, BOX_RAM_BYTES, err)))
		goto fail;
	b->ram = mem_ptr(b->mem, 0, BOX_RAM_BYTES);
	b->config = (struct engine_config){.mem = b->mem,
					   .cpus = cpus,
					   .tsc_hz = 1000000000,
					   .code_cache_bytes = code_cache_bytes};
	box_reset_memory(b);
	make_start(b);
	if ((ret = b->ops->create(&b->config, &b->engine, err)))
		goto fail;
	for (unsigned n = 0; n < cpus; n++) {
		struct box_cpu *cpu = &b->cpu[n];
		cpu->box = b;
		board.opaque = cpu;
		if ((ret = b->ops->vcpu_create(b->engine, n, &board, &cpu->vcpu, err)))
			goto fail;
	}
	b->vcpu = b->cpu[0].vcpu;
	*out = b;
	return 0;
fail:
	box_destroy(b);
	return ret;
}

void box_destroy(struct box *b)
{
	if (!b)
		return;
	for (unsigned n = 0; n < BOX_CPUS; n++)
		if (b->cpu[n].vcpu)
			b->ops->vcpu_destroy(b->cpu[n].vcpu);
	if (b->engine)
		b->ops->destroy(b->engine);
	if (b->mem)
		mem_destroy(b->mem);
	free(b);
}

/* ---- running ---- */

void box_load_program(struct box *b, const struct program *p, const uint8_t *pristine)
{
	static const uint8_t order[15] = {R15, R14, R13, R12, R11, R10, R9, R8,
					  RDI, RSI, RBP, RBX, RDX, RCX, RAX};
	struct params *q = box_params(b);
	struct cpu_state *s = &b->state;

	map_user(b, p->writable);
	memcpy(b->ram + GPA_DATA, pristine, DATA_BYTES);
	memcpy(b->ram + GPA_LAZY, pristine, LAZY_BYTES);
	memset(b->ram + GPA_SAFE, 0, PAGE);
	memset(b->ram + GPA_STACK, 0xa5, STACK_BYTES);
	memcpy(b->ram + GPA_STAGING, p->code, CODE_BYTES);
	memcpy(b->ram + GPA_STAGING + CODE_BYTES, p->alt, ALT_BYTES);
	memcpy(b->ram + GPA_NEXT, p->next, sizeof(p->next));
	for (unsigned k = 0; k < p->slots; k++)
		box_put64(b, GPA_SAFE + p->slot[k].at,
			  CODE_BASE + p->node[p->slot[k].to].offset + (p->moved ? MOVED : 0));
	memset(q, 0, sizeof(*q));
	q->copy = (CODE_BYTES + ALT_BYTES) / 8;
	q->log_limit = LOG_MAX;
	for (unsigned n = 0; n < 15; n++)
		q->frame[n] = p->gpr[order[n]];
	uint64_t *iret = q->frame + 17;
	iret[0] = CODE_BASE + p->start + (p->moved ? MOVED : 0);
	q->again = p->moved ? MOVED_AGAIN + CODE_BASE + p->start : 0;
	iret[1] = p->mode32 ? SEL_CODE32 : SEL_CODE64;
	iret[2] = p->rflags;
	iret[3] = p->gpr[RSP];
	iret[4] = SEL_DATA;

	*s = b->start;
	memcpy(s->xsave.bytes, p->fx, FX_BYTES);
	memset(s->xsave.bytes + 28, 0, 4);
	memcpy(s->xsave.bytes + XSAVE_YMMH0, p->ymmh, YMMH_BYTES);
	s->xsave.bytes[XSAVE_BV] = 7;
}

void box_run(struct box *b)
{
	struct error err;

	b->late = false;
	b->cause = EXIT_ERROR;
	if (b->ops->set_state(b->vcpu, &b->state, &err))
		return;
	if (b->irq_level)
		vcpu_request(b->vcpu, VCPU_REQ_IRQ);
	else
		vcpu_unrequest(b->vcpu, VCPU_REQ_IRQ);
	uint64_t since_ms = now_ms();
	set_running(b, since_ms);
	do
		b->ops->run(b->vcpu, &b->exit);
	while ((b->exit.cause == EXIT_INTERRUPTED || (b->answer && b->answer(b))) &&
	       now_ms() - since_ms <= b->patience_ms);
	set_running(NULL, 0);
	b->cause = b->exit.cause;
	b->late = b->cause == EXIT_INTERRUPTED;
	vcpu_unrequest(b->vcpu, VCPU_REQ_KICK);
	b->ops->get_state(b->vcpu, &b->state);
}

void box_run_program(struct box *b, const struct program *p, const uint8_t *pristine)
{
	box_load_program(b, p, pristine);
	box_run(b);
}
