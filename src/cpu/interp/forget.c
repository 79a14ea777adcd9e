/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the memory manager asks of the software engines (struct mem_engine): that vCPUs forget host
 * addresses. A vCPU forgets between instructions, when it holds none but those in its TLBs; one that
 * is outside of run() holds no others either, and forgets before it runs again.
 */
#include "base/wait.h"
#include "cpu/interp/access.h"
#include "cpu/interp/soft_engine.h"

static void forget_data(struct soft_cpu *c, unsigned class, unsigned index, unsigned what)
{
	struct tlb_entry *e = &c->tlb.data[class][index];

	if (e->gpa == UINT64_MAX)
		return;
	uint64_t gpa = e->gpa & PAGE_MASK;
	if ((what & MEM_ASK_LEAVING) && !mem_may_stay(c->mem, gpa))
		tlb_drop(&c->tlb, (enum mmu_class) class, index);
	else if (!mem_may_write(c->mem, gpa))
		e->write = tlb_empty_tag(index);
}

static void forget(struct soft_cpu *c, unsigned what)
{
	if (c->translator)
		bt_window_close(c);
	if (what & MEM_ASK_ALL) {
		tlb_flush(&c->tlb, false);
		return;
	}
	for (unsigned k = 0; k < MMU_CLASS_NR; k++)
		for (unsigned n = 0; n < TLB_ENTRIES; n++)
			forget_data(c, k, n, what);
	tlb_forget_stack(&c->tlb);
	if (!(what & MEM_ASK_LEAVING))
		return;
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned n = 0; n < TLB_CODE_ENTRIES; n++) {
			struct tlb_code_entry *e = &c->tlb.code[k][n];
			if (e->tag != TLB_CODE_EMPTY && !mem_may_stay(c->mem, e->gpa & PAGE_MASK))
				e->tag = TLB_CODE_EMPTY;
		}
	}
}

void soft_take_mem(struct soft_cpu *c)
{
	for (;;) {
		vcpu_unrequest(&c->vcpu, VCPU_REQ_MEM);
		unsigned what = atomic_exchange(&c->mem_asked, 0);
		if (what)
			forget(c, what);
		atomic_fetch_add(&c->mem_answers, 1);
		if (!mem_is_crowded(c->mem) || (atomic_load(&c->vcpu.requests) & VCPU_REQ_KICK))
			return;
		atomic_store(&c->in_run, false);
		mem_wait_for_room(c->mem);
		atomic_store(&c->in_run, true);
	}
}

void soft_mem_ask(void *opaque, unsigned what)
{
	struct engine *e = opaque;
	uint32_t before[SOFT_CPUS_MAX];

	if ((what & MEM_ASK_TRIM) && e->translator)
		bt_trim(e->translator);
	what &= ~(unsigned)MEM_ASK_TRIM;
	if (!what)
		return;
	for (unsigned n = 0; n < e->cpu_count; n++) {
		struct soft_cpu *c = e->cpus[n];
		before[n] = atomic_load(&c->mem_answers);
		atomic_fetch_or(&c->mem_asked, what);
		/* Without a wake-up: one that sleeps is not in run(). */
		atomic_fetch_or(&c->vcpu.requests, VCPU_REQ_MEM);
	}
	for (unsigned n = 0; n < e->cpu_count; n++) {
		struct soft_cpu *c = e->cpus[n];
		for (unsigned turn = 0;
		     atomic_load(&c->in_run) &&
		     (atomic_load(&c->mem_answers) == before[n] || atomic_load(&c->mem_asked));
		     turn++)
			wait_turn(turn);
	}
}
