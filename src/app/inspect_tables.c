/* SPDX-License-Identifier: Apache-2.0 */
/* How the plain tables of `hanok inspect` look. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/inspect.h"
#include "app/vm_verb.h"

int draw_processes(const struct inspect_args *a, const json_t *answer)
{
	const json_t *list = json_object_get(answer, "processes"), *p;
	size_t n;

	(void)a;
	printf("%7s %7s  %-16s  %s\n", "PID", "TGID", "COMM", "CR3");
	json_array_foreach(list, n, p)
	{
		const char *cr3 = get_string(p, "cr3");
		printf("%7lld %7lld  %s%-16s%s  %s%s%s\n", get_number(p, "pid"),
		       get_number(p, "tgid"), ink(*cr3 ? INK_BOLD : INK_DIM), get_string(p, "comm"),
		       ink_off(), ink(*cr3 ? INK_CYAN : INK_DIM), *cr3 ? cr3 : "(kernel)",
		       ink_off());
	}
	if (!get_true(answer, "complete"))
		printf("%sThere may be more: the list changed while it was read, or is very long.%s\n",
		       ink(INK_YELLOW), ink_off());
	return STATUS_OK;
}

/* "swap_ins" -> "swap ins"; what ends in _bytes is shown in units, in _ns as milliseconds. */
static void print_number(const char *indent, const char *name, uint64_t value)
{
	char words[64];
	struct short_text size;
	struct count_text count;
	size_t len = strlen(name);
	bool bytes = len > 6 && !strcmp(name + len - 6, "_bytes");
	bool ns = len > 3 && !strcmp(name + len - 3, "_ns");

	snprintf(words, sizeof(words), "%.*s", (int)(bytes ? len - 6 : ns ? len - 3 : len), name);
	for (char *p = words; *p; p++)
		if (*p == '_')
			*p = ' ';
	if (bytes)
		printf("%s%-18s %14s\n", indent, words, show_bytes(&size, value));
	else if (ns)
		printf("%s%-18s %11.1f ms\n", indent, words, (double)value / 1e6);
	else
		printf("%s%-18s %14s\n", indent, words, show_count(&count, value));
}

int draw_memory(const struct inspect_args *a, const json_t *answer)
{
	json_t *value;
	const char *name;
	struct short_text size;

	(void)a;
	json_object_foreach(json_object_get(answer, "state_bytes"), name, value) printf(
		"pages %-12s %14s\n", name, show_bytes(&size, (uint64_t)json_integer_value(value)));
	json_object_foreach((json_t *)(uintptr_t)answer, name, value)
	{
		if (json_is_integer(value))
			print_number("", name, (uint64_t)json_integer_value(value));
	}
	return STATUS_OK;
}

int draw_exits(const struct inspect_args *a, const json_t *answer)
{
	const json_t *cpu;
	struct count_text count;
	size_t n;

	(void)a;
	json_array_foreach(json_object_get(answer, "cpus"), n, cpu)
	{
		const char *name;
		json_t *cause;
		printf("%sCPU %lld%s: %.1f s in the guest\n", ink(INK_BOLD), get_number(cpu, "cpu"),
		       ink_off(), (double)get_number(cpu, "engine_ns") / 1e9);
		printf("  %-14s %16s %12s %12s\n", "EXIT", "COUNT", "TOTAL ms", "MEAN us");
		json_object_foreach(json_object_get(cpu, "exits"), name, cause)
		{
			long long times = get_number(cause, "count"), ns = get_number(cause, "ns");
			printf("  %-14s %16s", name, show_count(&count, (uint64_t)times));
			if (ns && times)
				printf(" %12.3f %12.3f\n", (double)ns / 1e6,
				       (double)ns / 1e3 / (double)times);
			else
				printf(" %12s %12s\n", "-", "-");
		}
	}
	return STATUS_OK;
}

int draw_tlb(const struct inspect_args *a, const json_t *answer)
{
	const json_t *cpu;
	struct count_text m, f, g, c;
	size_t n;

	(void)a;
	printf("%4s %16s %16s %16s %16s\n", "CPU", "MISSES", "FLUSHES", "CR WRITES",
	       "GUEST FAULTS");
	json_array_foreach(json_object_get(answer, "cpus"), n, cpu)
		printf("%4lld %16s %16s %16s %16s\n", get_number(cpu, "cpu"),
		       show_count(&m, (uint64_t)get_number(cpu, "misses")),
		       show_count(&f, (uint64_t)get_number(cpu, "flushes")),
		       show_count(&c, (uint64_t)get_number(cpu, "cr_writes")),
		       show_count(&g, (uint64_t)get_number(cpu, "guest_faults")));
	return STATUS_OK;
}

/* ---- trace-pages ---- */

char *absolute_path(const char *path)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	char *real = folder ? realpath(folder, NULL) : NULL, *all = NULL;

	if (real && asprintf(&all, "%s/%s", real, base) < 0)
		all = NULL;
	free(real);
	free(folder);
	return all;
}

int draw_trace(const struct inspect_args *a, const json_t *answer)
{
	struct count_text count;
	struct short_text size;

	printf("%s: %s references of pages in %.1f s, %s%s\n", a->out,
	       show_count(&count, (uint64_t)get_number(answer, "records")),
	       json_real_value(json_object_get(answer, "seconds")),
	       show_bytes(&size, (uint64_t)get_number(answer, "bytes")),
	       get_true(answer, "cut") ? "; it grew too large and ended early" : "");
	return STATUS_OK;
}

/* ---- any other ---- */

static void print_any(const json_t *value, const char *name, unsigned depth);

static void print_members(const json_t *o, unsigned depth)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)o, name, value)
	{
		if (strcmp(name, "ok") != 0 && strcmp(name, "id") != 0)
			print_any(value, name, depth);
	}
}

static void print_array(const json_t *all, const char *name, unsigned depth)
{
	const json_t *element;
	bool plain = true;
	size_t n;

	json_array_foreach(all, n, element) plain = plain && !json_is_object(element);
	if (plain) {
		char *text = json_dumps(all, JSON_COMPACT);
		printf("%*s%-18s %s\n", (int)depth * 2, "", name, text ? text : "");
		free(text);
		return;
	}
	json_array_foreach(all, n, element)
	{
		printf("%*s%s%s %zu%s\n", (int)depth * 2, "", ink(INK_BOLD), name, n, ink_off());
		print_members(element, depth + 1);
	}
}

static void print_any(const json_t *value, const char *name, unsigned depth)
{
	char indent[32];
	int columns = depth < 12 ? (int)depth * 2 : 24;

	snprintf(indent, sizeof(indent), "%*s", columns, "");
	if (json_is_object(value)) {
		printf("%s%s\n", indent, name);
		print_members(value, depth + 1);
	} else if (json_is_array(value)) {
		print_array(value, name, depth);
	} else if (json_is_integer(value) && json_integer_value(value) >= 0) {
		print_number(indent, name, (uint64_t)json_integer_value(value));
	} else {
		char *text = json_dumps(value, JSON_ENCODE_ANY);
		const char *plain = json_string_value(value);
		printf("%s%-18s %s\n", indent, name, plain ? plain : text ? text : "");
		free(text);
	}
}

int draw_any(const struct inspect_args *a, const json_t *answer)
{
	(void)a;
	print_members(answer, 0);
	return STATUS_OK;
}
