/* SPDX-License-Identifier: Apache-2.0 */
/* Whose addresses are meant, and the table of the guest's processes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inspect/tables.h"

/* A comm is any bytes; JSON wants UTF-8. */
static json_t *json_comm(const char *comm)
{
	char text[LINUX_COMM_BYTES + 1];
	size_t n = 0;

	for (; comm[n] && n < LINUX_COMM_BYTES; n++)
		text[n] = (unsigned char)comm[n] < ' ' || (unsigned char)comm[n] > '~' ? '?'
										       : comm[n];
	text[n] = 0;
	return json_string(text);
}

static json_t *describe_task(const struct linux_task *t)
{
	return json_pack("{s:i, s:i, s:o, s:o, s:o}", "pid", (int)t->pid, "tgid", (int)t->tgid,
			 "comm", json_comm(t->comm), "cr3",
			 t->has_memory ? json_hex(t->cr3) : json_null(), "task", json_hex(t->task));
}

int inspect_processes(struct looker *l, const struct request *r, json_t **answer, struct error *err)
{
	struct linux_tasks t;
	json_t *list = json_array();
	int bad = 0;

	(void)r;
	int code = linux_guest_tasks(l->linux_guest, l->cpus, machine_cpus(l->machine), &t, err);
	for (unsigned n = 0; n < t.count; n++)
		bad |= json_array_append_new(list, describe_task(&t.list[n]));
	free(t.list);
	*answer = code == 0 && !bad
			  ? json_pack("{s:O, s:b}", "processes", list, "complete", t.complete)
			  : NULL;
	json_decref(list);
	if (code == 0 && !*answer)
		return inspect_no_memory(answer, err);
	return code;
}

/* ---- one of them ---- */

static bool is_wanted(const struct linux_task *t, long long pid, const char *name)
{
	return name ? !strcmp(t->comm, name) : t->pid == pid;
}

/* The process of that name, or of that pid where name is NULL. Of several, one with memory of its own. */
static int find_task(struct looker *l, long long pid, const char *name, struct linux_task *out,
		     struct error *err)
{
	struct linux_tasks t;
	bool found = false;
	int r = linux_guest_tasks(l->linux_guest, l->cpus, machine_cpus(l->machine), &t, err);

	for (unsigned n = 0; n < t.count && !(found && out->has_memory); n++) {
		if (!is_wanted(&t.list[n], pid, name))
			continue;
		*out = t.list[n];
		found = true;
	}
	free(t.list);
	if (r < 0)
		return r;
	if (!found)
		return name ? error_set(err, -ESRCH, "no process of the guest is called '%s'", name)
			    : error_set(err, -ESRCH, "no process of the guest has pid %lld", pid);
	if (!out->has_memory)
		return error_set(err, -ESRCH,
				 "process %d of the guest is a thread of its kernel: it has no "
				 "memory of its own",
				 (int)out->pid);
	return 0;
}

/* A CR3 other than a vCPU's: what was loaded with that one does not count. */
static void set_cr3(struct mmu_mode *mode, uint64_t cr3)
{
	mode->cr3 = cr3;
	mode->pdptes_known = false;
}

static int choose_process(struct looker *l, const struct request *r, struct mmu_mode *mode,
			  json_t **who, struct error *err)
{
	struct linux_task t;
	const char *name;
	long long pid;

	int code = request_number(r, "pid", 0, 0, INT32_MAX, &pid, err);
	if (code == 0)
		code = request_string(r, "name", "", &name, err);
	if (code == 0)
		code = find_task(l, pid, *name ? name : NULL, &t, err);
	if (code < 0)
		return code;
	set_cr3(mode, t.cr3);
	/* The vCPU may be in something else at the moment, but its kernel is in long mode with paging. */
	*who = describe_task(&t);
	return 0;
}

int request_space(struct looker *l, const struct request *r, struct mmu_mode *mode, json_t **who,
		  struct error *err)
{
	unsigned cpus = machine_cpus(l->machine);
	bool process = json_object_get(r->object, "pid") || json_object_get(r->object, "name");
	long long cpu;
	uint64_t cr3;

	*who = NULL;
	int code = request_number(r, "cpu", 0, 0, INT32_MAX, &cpu, err);
	if (code < 0)
		return code;
	if (cpu >= cpus)
		return error_set(err, -EINVAL, "cpu %lld: the machine has CPUs 0 to %u", cpu,
				 cpus - 1);
	code = request_address(r, "cr3", false, &cr3, err);
	if (code < 0)
		return code;
	mmu_mode_of(mode, &l->cpus[cpu]);
	if (process)
		code = choose_process(l, r, mode, who, err);
	else if (code == 0)
		set_cr3(mode, cr3);
	if (process && code < 0)
		return code;
	if (!*who)
		*who = json_pack("{s:i}", "cpu", (int)cpu);
	return *who ? 0 : error_set(err, -ENOMEM, "inspection: out of memory");
}
