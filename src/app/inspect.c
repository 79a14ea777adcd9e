/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok inspect`: looks into a machine while it runs. Here is the command line and the list of tables. */
#include "app/inspect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"

static const char help[] =
	"hanok inspect: look into a machine while it runs. The guest does not notice.\n"
	"\n"
	"  hanok inspect VM walk ADDRESS    an address of the guest's on its way to the host: each level\n"
	"                                   of its page tables, the page, where the host has it\n"
	"  hanok inspect VM dump ADDRESS [BYTES]\n"
	"                                   what lies there (256 bytes)\n"
	"  hanok inspect VM ps              the processes of a 64-bit Linux guest, found from outside\n"
	"  hanok inspect VM frames          a map of its memory; --svg FILE draws it\n"
	"  hanok inspect VM faults          page faults and what was decided; --follow goes on\n"
	"  hanok inspect VM memory          what its memory manager has counted\n"
	"  hanok inspect VM exits           what took its processors out of the guest\n"
	"  hanok inspect VM tlb             misses and flushes of their TLBs\n"
	"  hanok inspect VM trace-pages --out FILE [--seconds N]\n"
	"                                   record for N seconds (10) which pages are used, for\n"
	"                                   `hanok lab`; this costs TLB misses\n"
	"  hanok inspect VM disks           its disks and their requests\n"
	"  hanok inspect VM nics            its network cards\n"
	"\n"
	"Whose address it is, for walk and dump:\n"
	"  --cpu N             what processor N has loaded now (0)\n"
	"  --cr3 X             the page tables at guest-physical address X\n"
	"  --pid N             process N of a Linux guest\n"
	"  --name COMM         the first of its processes that is called so\n"
	"  --gpa               dump: it is guest-physical\n"
	"\n"
	"How it is shown:\n"
	"  --json              as JSON (docs/INSPECT.md)\n"
	"  --svg FILE          frames: a drawing\n"
	"  --follow            faults: go on until the machine ends, or Ctrl-C\n"
	"\n"
	"Exit status: 0; 2 the command line is wrong; 125 it does not run, or cannot tell.\n";

/* Which options a table knows. */
enum { OPT_SPACE = 1, OPT_GPA = 2, OPT_SVG = 4, OPT_FOLLOW = 8, OPT_TRACE = 16 };

/* A new table that the machine offers: a line here. */
static const struct view {
	const char *name, *request;
	unsigned min, max; /* words after it */
	unsigned options;
	inspect_draw *draw;
} views[] = {
	{"walk", "walk", 1, 1, OPT_SPACE, draw_walk},
	{"dump", "dump", 1, 2, OPT_SPACE | OPT_GPA, draw_dump},
	{"ps", "processes", 0, 0, 0, draw_processes},
	{"frames", "frames", 0, 0, OPT_SVG, draw_frames},
	{"faults", "faults", 0, 0, OPT_FOLLOW, NULL},
	{"memory", "memory", 0, 0, 0, draw_memory},
	{"exits", "exits", 0, 0, 0, draw_exits},
	{"tlb", "tlb", 0, 0, 0, draw_tlb},
	{"trace-pages", "trace-pages", 0, 0, OPT_TRACE, draw_trace},
	{"disks", "disks", 0, 0, 0, draw_any},
	{"nics", "nics", 0, 0, 0, draw_any},
};
enum { VIEWS = sizeof(views) / sizeof(views[0]) };

/* ---- the command line ---- */

static int set_number(const char *option, long long max, long long *out, struct error *err)
{
	uint64_t value;
	int r = parse_unsigned(option, optarg, 0, (uint64_t)max, &value, err);

	if (r == 0)
		*out = (long long)value;
	return r;
}

static int set_option(void *opaque, int option, struct error *err)
{
	struct inspect_args *a = opaque;

	switch (option) {
	case 'c':
		return set_number("--cpu", 4095, &a->cpu, err);
	case 'p':
		return set_number("--pid", INT32_MAX, &a->pid, err);
	case '3':
		a->cr3 = optarg;
		break;
	case 'n':
		a->name = optarg;
		break;
	case 's':
		a->svg = optarg;
		break;
	case 'g':
		a->physical = true;
		break;
	case 'o':
		a->out = optarg;
		break;
	case 't':
		return parse_seconds("--seconds", optarg, &a->ns, err);
	case 'f':
		a->follow = true;
		break;
	default:
		a->json = true;
		break;
	}
	return 0;
}

static int find_view(const char *name, const struct view **out, struct error *err)
{
	const char *names[VIEWS + 1] = {0};

	for (unsigned n = 0; n < VIEWS; n++) {
		names[n] = views[n].name;
		*out = &views[n];
		if (!strcmp(name, views[n].name))
			return 0;
	}
	const char *near = nearest_name(name, names);
	return error_set(err, -EINVAL, "inspect: there is no table '%s'%s%s%s", name,
			 near ? "; did you mean '" : "; --help lists them", near ? near : "",
			 near ? "'?" : "");
}

static int check(const struct inspect_args *a, const struct view *v, struct error *err)
{
	unsigned spaces = (a->pid >= 0) + (a->name != NULL) + (a->cr3 != NULL) + a->physical;
	const struct {
		const char *option;
		bool given;
		unsigned which;
	} options[] = {
		{"--cpu", a->cpu >= 0, OPT_SPACE},    {"--pid", a->pid >= 0, OPT_SPACE},
		{"--cr3", a->cr3 != NULL, OPT_SPACE}, {"--name", a->name != NULL, OPT_SPACE},
		{"--gpa", a->physical, OPT_GPA},      {"--svg", a->svg != NULL, OPT_SVG},
		{"--follow", a->follow, OPT_FOLLOW},  {"--out", a->out != NULL, OPT_TRACE},
		{"--seconds", a->ns != 0, OPT_TRACE},
	};

	if (a->count < v->min)
		return error_set(err, -EINVAL, "inspect %s: which address? As in 0x7fff12345000",
				 v->name);
	if (a->count > v->max)
		return error_set(err, -EINVAL, "%s: one word too many; --help shows how it goes",
				 a->operands[v->max]);
	for (unsigned n = 0; n < sizeof(options) / sizeof(options[0]); n++)
		if (options[n].given && !(v->options & options[n].which))
			return error_set(err, -EINVAL, "%s: `inspect %s` does not know it",
					 options[n].option, v->name);
	if ((v->options & OPT_TRACE) && !a->out)
		return error_set(err, -EINVAL, "inspect %s: which file? Name it by --out FILE",
				 v->name);
	if (spaces > 1)
		return error_set(err, -EINVAL,
				 "--pid, --name, --cr3 and --gpa: only one of them can be meant");
	if (a->json && a->svg)
		return error_set(err, -EINVAL, "--json and --svg: only one of them can be meant");
	return 0;
}

/* ---- asking ---- */

/* 64-bit numbers go as text, as the user wrote them but hexadecimal. */
static int add_hex(json_t *request, const char *name, const char *what, const char *text,
		   struct error *err)
{
	uint64_t value;
	int r = parse_unsigned(what, text, 0, UINT64_MAX, &value, err);

	if (r == 0)
		json_object_set_new(request, name,
				    json_sprintf("0x%llx", (unsigned long long)value));
	return r;
}

/* The machine's process writes the file, in a working directory of its own. */
static int add_trace(json_t *request, const struct inspect_args *a, struct error *err)
{
	char *path = absolute_path(a->out);

	if (!path)
		return error_set(err, -errno, "--out %s: %s", a->out, strerror(errno));
	json_object_set_new(request, "file", json_string(path));
	if (a->ns)
		json_object_set_new(
			request, "ms",
			json_integer((json_int_t)(a->ns / 1000000 ? a->ns / 1000000 : 1)));
	free(path);
	return 0;
}

static int make_request(const struct inspect_args *a, const struct view *v, json_t **out,
			struct error *err)
{
	json_t *request = json_pack("{s:s}", "do", v->request);
	uint64_t bytes;
	int r = 0;

	if (a->count > 0)
		r = add_hex(request, "address", "ADDRESS", a->operands[0], err);
	if (r == 0 && a->count > 1) {
		r = parse_unsigned("BYTES", a->operands[1], 1, 64 << 10, &bytes, err);
		if (r == 0)
			json_object_set_new(request, "bytes", json_integer((json_int_t)bytes));
	}
	if (r == 0 && a->cr3)
		r = add_hex(request, "cr3", "--cr3", a->cr3, err);
	if (a->cpu >= 0)
		json_object_set_new(request, "cpu", json_integer(a->cpu));
	if (a->pid >= 0)
		json_object_set_new(request, "pid", json_integer(a->pid));
	if (a->name)
		json_object_set_new(request, "name", json_string(a->name));
	if (a->physical)
		json_object_set_new(request, "physical", json_true());
	if (r == 0 && a->out)
		r = add_trace(request, a, err);
	if (r < 0) {
		json_decref(request);
		return r;
	}
	*out = request;
	return 0;
}

int print_json(const json_t *answer, size_t flags, struct error *err)
{
	json_t *copy = json_copy((json_t *)(uintptr_t)answer);

	json_object_del(copy, "ok");
	int r = json_dumpf(copy, stdout, flags);
	json_decref(copy);
	putchar('\n');
	if (r < 0 || fflush(stdout) == EOF)
		return error_set(err, -EIO, "standard output: it could not be written");
	return 0;
}

static int show(const struct inspect_args *a, const struct view *v, struct control_client *c,
		json_t *request, struct error *err)
{
	json_t *answer = NULL;
	int status = STATUS_OK;

	if (!v->draw) {
		json_decref(request);
		return show_faults(a, c, err);
	}
	int r = control_ask(c, request, &answer, ANSWER_MS + (int)(a->ns / 1000000), err);
	/* A machine that was started by another version, or has nothing of that kind. */
	if (r == -EREMOTEIO && strstr(err->text, "there is no request of this name"))
		return error_set(err, r, "this machine has no table '%s' to show", v->name);
	if (r < 0)
		return r;
	if (a->json)
		r = print_json(answer, JSON_INDENT(2), err);
	else
		status = v->draw(a, answer);
	json_decref(answer);
	return r < 0 ? r : status;
}

static int look(const struct inspect_args *a, const struct view *v)
{
	struct control_client *c;
	struct vm_folder f;
	struct error err;
	json_t *request;

	int r = make_request(a, v, &request, &err);
	if (r < 0)
		return fail(STATUS_USAGE, "%s", err.text);
	r = verb_reach(a->vm, &f, &c, &err);
	if (r < 0) {
		json_decref(request);
		return fail(STATUS_FAILED, "%s", err.text);
	}
	r = show(a, v, c, request, &err);
	control_close(c);
	vm_folder_free(&f);
	return r < 0 ? fail(STATUS_FAILED, "%s: %s", a->vm, err.text) : r;
}

int verb_inspect(int argc, char **argv)
{
	static const struct option options[] = {
		{"cpu", required_argument, NULL, 'c'}, {"cr3", required_argument, NULL, '3'},
		{"pid", required_argument, NULL, 'p'}, {"name", required_argument, NULL, 'n'},
		{"gpa", no_argument, NULL, 'g'},       {"json", no_argument, NULL, 'j'},
		{"svg", required_argument, NULL, 's'}, {"follow", no_argument, NULL, 'f'},
		{"out", required_argument, NULL, 'o'}, {"seconds", required_argument, NULL, 't'},
		{"help", no_argument, NULL, 'h'},      {0},
	};
	struct inspect_args a = {.cpu = -1, .pid = -1};
	const char *operands[4] = {0};
	const struct verb_words words = {
		operands, 2, 4, "which machine, and which of its tables?", set_option, &a};
	const struct view *v;
	struct error err;

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	r = find_view(operands[1], &v, &err);
	if (r == 0) {
		a.vm = operands[0];
		a.table = operands[1];
		a.operands[0] = operands[2];
		a.operands[1] = operands[3];
		a.count = (operands[2] != NULL) + (operands[3] != NULL);
		r = check(&a, v, &err);
	}
	return r < 0 ? fail(STATUS_USAGE, "%s", err.text) : look(&a, v);
}
