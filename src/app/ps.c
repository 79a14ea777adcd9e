/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok ps`: which machines run, and with --all which there are. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "control/inventory.h"
#include "machine/vm_config.h"

static const char help[] =
	"hanok ps: the machines that run.\n"
	"\n"
	"  hanok ps              a table: name, state, process, CPUs, memory, time since its start\n"
	"  hanok ps --all        also those that do not run, of ~/hanok (HANOK_VMS moves that)\n"
	"  hanok ps --json       the same as JSON, an array of what `status` answers\n"
	"                        (docs/CONTROL.md)\n"
	"\n"
	"Exit status: 0; 2 the command line is wrong.\n";

struct ps {
	bool all, json;
	json_t *list;
};

static int set_option(void *opaque, int option, struct error *err)
{
	struct ps *p = opaque;

	(void)err;
	if (option == 'a')
		p->all = true;
	else
		p->json = true;
	return 0;
}

/* A machine that gives no answer (stopped by a signal, or starting) is there all the same. */
static void add_running(void *opaque, const struct inventory_entry *e)
{
	struct ps *p = opaque;

	if (e->status) {
		json_object_del(e->status, "ok");
		json_array_append(p->list, e->status);
	} else {
		json_array_append_new(p->list, json_pack("{s:s, s:s, s:i}", "name", "?", "state",
							 "no answer", "pid", (int)e->pid));
	}
}

static bool is_listed(const struct ps *p, const char *vmx)
{
	size_t i;
	json_t *entry;

	json_array_foreach(p->list, i, entry)
	{
		const char *other = json_string_value(json_object_get(entry, "vmx"));
		if (other && !strcmp(other, vmx))
			return true;
	}
	return false;
}

static int add_stopped(void *opaque, const char *path)
{
	struct ps *p = opaque;
	struct vm_config config = {0};
	struct vm_runner runner;
	struct vm_folder f;
	struct vmx *v = NULL;
	const char *state = "stopped";

	if (vm_folder_of(&f, path, NULL) < 0)
		return 0;
	if (is_listed(p, f.vmx)) {
		vm_folder_free(&f);
		return 0;
	}
	if (vm_is_running(&f, &runner, NULL) > 0)
		state = "no answer";
	/* A .vmx that cannot be used is shown, too: its owner looks for it. */
	if (vmx_read(&v, f.vmx, NULL) < 0 || vm_config_read(&config, v, f.folder, NULL) < 0)
		state = "unusable";
	json_array_append_new(p->list, json_pack("{s:s, s:s, s:s, s:i, s:I}", "name",
						 config.name ? config.name : f.base, "vmx", f.vmx,
						 "state", state, "cpus", (int)config.cpus,
						 "memory_bytes", (json_int_t)config.memory_bytes));
	vm_config_free(&config);
	vmx_destroy(v);
	vm_folder_free(&f);
	return 0;
}

static void print_entry(const json_t *e)
{
	const char *name = json_string_value(json_object_get(e, "name"));
	const char *state = json_string_value(json_object_get(e, "state"));
	const char *vmx = json_string_value(json_object_get(e, "vmx"));
	const json_t *uptime = json_object_get(e, "uptime_s");
	long long pid = json_integer_value(json_object_get(e, "pid"));
	long long cpus = json_integer_value(json_object_get(e, "cpus"));
	long long memory = json_integer_value(json_object_get(e, "memory_bytes"));
	struct short_text bytes, seconds;
	char pid_text[24] = "-", cpus_text[24] = "-", line[4400];

	if (pid)
		snprintf(pid_text, sizeof(pid_text), "%lld", pid);
	if (cpus)
		snprintf(cpus_text, sizeof(cpus_text), "%lld", cpus);
	snprintf(line, sizeof(line), "%-20s %-9s %8s %4s %9s %8s  %s", name ? name : "?",
		 state ? state : "?", pid_text, cpus_text,
		 memory ? show_bytes(&bytes, (uint64_t)memory) : "-",
		 uptime ? show_seconds(&seconds, json_number_value(uptime)) : "-", vmx ? vmx : "-");
	make_printable(line);
	puts(line);
}

static int print(const struct ps *p)
{
	size_t i;
	json_t *entry;

	if (p->json) {
		if (json_dumpf(p->list, stdout, JSON_INDENT(2)) < 0)
			return fail(STATUS_FAILED, "ps --json: it could not be written");
		putchar('\n');
		return STATUS_OK;
	}
	printf("%-20s %-9s %8s %4s %9s %8s  %s\n", "NAME", "STATE", "PID", "CPUS", "MEMORY",
	       "UPTIME", "VMX");
	json_array_foreach(p->list, i, entry) print_entry(entry);
	return STATUS_OK;
}

int verb_ps(int argc, char **argv)
{
	static const struct option options[] = {
		{"all", no_argument, NULL, 'a'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct ps p = {0};
	const struct verb_words words = {NULL, 0, 0, "", set_option, &p};

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	p.list = json_array();
	inventory_each(add_running, &p);
	if (p.all)
		vm_each(add_stopped, &p);
	r = print(&p);
	json_decref(p.list);
	return r;
}
