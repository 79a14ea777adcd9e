/* SPDX-License-Identifier: Apache-2.0 */
/* `faults` and `tlb`. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "control/inspect/tables.h"
#include "mmu/walk.h"

enum { EVENTS = 500, EVENTS_MAX = 2000 };

/* SDM 4.7, the page-fault error code. */
static json_t *decode_error(uint32_t error)
{
	json_t *words = json_array();

	json_array_append_new(words, json_string(error & PF_P ? "protection" : "not-present"));
	json_array_append_new(words, json_string(error & PF_I	? "fetch"
						 : error & PF_W ? "write"
								: "read"));
	json_array_append_new(words, json_string(error & PF_U ? "user" : "kernel"));
	if (error & PF_RSVD)
		json_array_append_new(words, json_string("reserved-bits"));
	return words;
}

static double seconds_since(uint64_t from, uint64_t ns)
{
	return ns > from ? (double)(ns - from) / 1e9 : 0;
}

json_t *describe_fault(const struct looker *l, const struct fault *f)
{
	double at = seconds_since(l->began_ns, f->ns);

	if (f->event == FAULT_GUEST)
		return json_pack("{s:I, s:f, s:s, s:i, s:o, s:o, s:i, s:o}", "number",
				 (json_int_t)f->number, "time_s", at, "what", "guest-fault", "cpu",
				 (int)f->cpu, "address", json_hex(f->gva), "rip", json_hex(f->rip),
				 "error_code", (int)f->error, "error", decode_error(f->error));
	json_t *o = json_pack("{s:I, s:f, s:s, s:o}", "number", (json_int_t)f->number, "time_s", at,
			      "what",
			      f->event < MEM_EVENT_NR ? mem_event_names[f->event] : "unknown",
			      "gpa", json_hex(f->gpa));
	if (o && f->slot)
		json_object_set_new(o, "slot", json_integer((json_int_t)f->slot));
	if (o && f->took_ns)
		json_object_set_new(o, "took_ns", json_integer((json_int_t)f->took_ns));
	return o;
}

int inspect_faults(struct looker *l, const struct request *r, json_t **answer, struct error *err)
{
	long long since, max;
	uint64_t lost;
	bool began;

	int code = request_number(r, "since", 0, 0, INT64_MAX, &since, err);
	if (code == 0)
		code = request_number(r, "max", EVENTS, 1, EVENTS_MAX, &max, err);
	if (code < 0)
		return code;
	if (fault_log_ask(l->faults, &began) < 0)
		return inspect_no_memory(answer, err);
	/* Without a place to begin: the last there are. */
	uint64_t at = (uint64_t)since, next = fault_log_next(l->faults);
	if (!json_object_get(r->object, "since"))
		at = next > (uint64_t)max ? next - (uint64_t)max : 0;
	struct fault *got = malloc((size_t)max * sizeof(*got));
	if (!got)
		return inspect_no_memory(answer, err);
	unsigned count = fault_log_read(l->faults, &at, got, (unsigned)max, &lost);
	json_t *events = json_array();
	for (unsigned n = 0; n < count; n++)
		json_array_append_new(events, describe_fault(l, &got[n]));
	free(got);
	*answer = json_pack("{s:b, s:I, s:I, s:o}", "began", began, "next", (json_int_t)at, "lost",
			    (json_int_t)lost, "events", events);
	return *answer ? 0 : inspect_no_memory(answer, err);
}

int inspect_tlb(struct looker *l, const struct request *r, json_t **answer, struct error *err)
{
	json_t *cpus = json_array();
	int bad = 0;

	(void)r;
	for (unsigned n = 0; n < machine_cpus(l->machine); n++) {
		struct exit_stats now, *s = &now;
		exit_stats_look(&machine_vcpu(l->machine, n)->stats, s);
		bad |= json_array_append_new(
			cpus, json_pack("{s:i, s:I, s:I, s:I, s:I}", "cpu", (int)n, "misses",
					(json_int_t)s->count[EXIT_TLB_MISS], "flushes",
					(json_int_t)s->count[EXIT_TLB_FLUSH], "guest_faults",
					(json_int_t)s->count[EXIT_PAGE_FAULT], "cr_writes",
					(json_int_t)s->count[EXIT_CR_WRITE]));
	}
	*answer = json_pack("{s:o}", "cpus", cpus);
	return *answer && !bad ? 0 : inspect_no_memory(answer, err);
}
