/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_SOFT_ENGINE_H
#define HANOK_CPU_INTERP_SOFT_ENGINE_H

#include "cpu/interp/interp.h"
#include "cpu/state/cpuid.h"

enum { SOFT_CPUS_MAX = 256 };

/* What the software engines (interp and bt) have in common: struct engine_ops' functions. */
struct engine {
	const struct engine_config *config;
	const struct engine_ops *ops;
	struct cpuid_model cpuid;
	struct bt *translator;		      /* NULL: interp */
	struct soft_cpu *cpus[SOFT_CPUS_MAX]; /* those made, for forget.c */
	unsigned cpu_count;
};

int soft_create(const struct engine_config *config, const struct engine_ops *ops,
		struct engine **out, struct error *err);
void soft_destroy(struct engine *e);
int soft_vcpu_create(struct engine *e, unsigned index, const struct vcpu_board *board,
		     struct vcpu **out, struct error *err);
void soft_vcpu_destroy(struct vcpu *v);
void soft_run(struct vcpu *v, struct exit *exit); /* interp.c */
void soft_get_state(struct vcpu *v, struct cpu_state *out);
int soft_set_state(struct vcpu *v, const struct cpu_state *in, struct error *err);
int soft_set_debug(struct vcpu *v, const struct vcpu_debug *debug);
int soft_translate(struct vcpu *v, uint64_t gva, uint64_t *gpa);

/* ---- forget.c ---- */
/* VCPU_REQ_MEM, between instructions: forgets, and waits while the machine is too large. */
void soft_take_mem(struct soft_cpu *c);
/* struct mem_engine's ask; opaque is the struct engine. */
void soft_mem_ask(void *opaque, unsigned what);

#endif
