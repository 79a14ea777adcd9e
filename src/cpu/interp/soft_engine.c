/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/soft_engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/interp/block.h"
#include "cpu/interp/engine_interp.h"
#include "cpu/state/host.h"

/* Engines and vCPUs come and go here; interp.c runs them. */

static int interp_probe(struct error *why)
{
	(void)why;
	return 0;
}

int soft_create(const struct engine_config *config, const struct engine_ops *ops,
		struct engine **out, struct error *err)
{
	int r = host_check_mask(err);
	struct engine *e = r < 0 ? NULL : calloc(1, sizeof(*e));

	if (r < 0)
		return r;
	if (!e)
		return error_set(err, -ENOMEM, "%s: out of memory", ops->name);
	e->config = config;
	e->ops = ops;
	cpuid_model_init(&e->cpuid, config->cpus, config->tsc_hz);
	mem_set_engine(config->mem, &(struct mem_engine){soft_mem_ask, e});
	*out = e;
	return 0;
}

static int interp_create(const struct engine_config *config, struct engine **out, struct error *err)
{
	return soft_create(config, &engine_interp, out, err);
}

void soft_destroy(struct engine *e)
{
	if (e)
		mem_set_engine(e->config->mem, NULL);
	free(e);
}

void soft_vcpu_destroy(struct vcpu *v)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	if (!c)
		return;
	blocks_destroy(c);
	free(c->rom_sink);
	free(c);
}

enum { HUGE_PAGE = 2 << 20 };

int soft_vcpu_create(struct engine *e, unsigned index, const struct vcpu_board *board,
		     struct vcpu **out, struct error *err)
{
	if (e->cpu_count == SOFT_CPUS_MAX)
		return error_set(err, -EINVAL, "%s: at most %d vCPUs", e->ops->name, SOFT_CPUS_MAX);
	struct soft_cpu *c =
		aligned_alloc(HUGE_PAGE, (sizeof(*c) + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1));

	if (!c)
		return error_set(err, -ENOMEM, "%s: out of memory for vCPU %u", e->ops->name,
				 index);
	madvise(c, sizeof(*c), MADV_HUGEPAGE); /* its tables are read all over */
	memset(c, 0, sizeof(*c));
	c->vcpu.ops = e->ops;
	c->vcpu.index = index;
	c->self = c;
	c->board = *board;
	c->engine = e;
	c->mem = e->config->mem;
	c->waiting = EXIT_NR;
	c->cpuid = &e->cpuid;
	c->vendor_amd = e->cpuid.amd;
	c->rom_sink = calloc(1, MEM_PAGE_BYTES);
	c->tlb.nowhere = c->rom_sink;
	if (!c->rom_sink || blocks_create(c) < 0) {
		soft_vcpu_destroy(&c->vcpu);
		return error_set(err, -ENOMEM, "%s: out of memory for vCPU %u", e->ops->name,
				 index);
	}
	cpu_state_reset(&c->s, index);
	tlb_flush(&c->tlb, false);
	cpu_update_mode(c);
	e->cpus[e->cpu_count++] = c;
	*out = &c->vcpu;
	return 0;
}

void soft_get_state(struct vcpu *v, struct cpu_state *out)
{
	*out = ((struct soft_cpu *)v)->s;
}

static void forget_translations(struct soft_cpu *c)
{
	tlb_flush(&c->tlb, false);
	if (c->translator)
		bt_window_close(c);
}

int soft_set_state(struct vcpu *v, const struct cpu_state *in, struct error *err)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	(void)err;
	c->s = *in;
	c->waiting = EXIT_NR;
	c->pending_dr6 = 0;
	cpu_replay_reset(c);
	forget_translations(c);
	cpu_update_mode(c);
	return 0;
}

int soft_set_debug(struct vcpu *v, const struct vcpu_debug *debug)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	if (debug->points > VCPU_DEBUG_POINTS)
		return -EINVAL;
	c->debug = *debug;
	forget_translations(c); /* what is watched may have changed */
	cpu_update_mode(c);
	return 0;
}

int soft_translate(struct vcpu *v, uint64_t gva, uint64_t *gpa)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	return mmu_peek(c->mem, &c->s, gva, gpa);
}

const struct engine_ops engine_interp = {
	.name = "interp",
	.probe = interp_probe,
	.create = interp_create,
	.destroy = soft_destroy,
	.vcpu_create = soft_vcpu_create,
	.vcpu_destroy = soft_vcpu_destroy,
	.run = soft_run,
	.get_state = soft_get_state,
	.set_state = soft_set_state,
	.set_debug = soft_set_debug,
	.translate = soft_translate,
};
