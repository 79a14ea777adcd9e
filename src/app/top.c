/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok top`: what the machines that run take, once a second. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "app/app.h"
#include "app/draw.h"
#include "app/options.h"
#include "app/terminal.h"
#include "app/vm_verb.h"
#include "base/clock.h"
#include "control/inventory.h"

static const char help[] =
	"hanok top: what the machines that run take of this host, anew each second.\n"
	"\n"
	"  hanok top             a live table, the busiest first; q ends it, as Ctrl-C does\n"
	"  hanok top --once      the table once, of one second\n"
	"  hanok top --json      the same as JSON\n"
	"\n"
	"Where standard output is no terminal, it is shown once. Columns: CPU, in percent of one of the\n"
	"host's; SIZE, the guest's memory; LIMIT, of it at most so much on the host; HOST, so much is\n"
	"there now; WSET, used within the last minute; SWAP, swapped out; COMPR, what that takes,\n"
	"compressed; IN/s and OUT/s, pages swapped; BALLOON, given back by the guest; FAULT/s, pages that\n"
	"were asked for and not there.\n"
	"\n"
	"Exit status: 0; 2 the command line is wrong.\n";

enum { VMS_MAX = 1024, NAME_COLUMNS = 14, MEMORY_MS = 2000, KEY_MS = 1000 };

struct vm {
	char name[64];
	pid_t pid;
	bool answers;
	double cpu_s;
	uint64_t ns; /* when it was asked */
	uint64_t size, limit, used, working_set, swapped, compressed, balloon;
	uint64_t ins, outs, faults; /* counts */
	/* Per second, since it was asked before: */
	bool has_rates;
	double cpu, in_rate, out_rate, fault_rate;
};

struct sample {
	unsigned count;
	struct vm vm[VMS_MAX];
};

/* ---- asking ---- */

static void ask_memory(struct vm *v, const char *socket)
{
	struct control_client *c;
	json_t *m = NULL;

	if (control_connect(&c, socket, NULL) < 0)
		return;
	if (control_ask(c, json_pack("{s:s}", "do", "memory"), &m, MEMORY_MS, NULL) == 0) {
		const json_t *state = json_object_get(m, "state_bytes");
		v->limit = (uint64_t)get_number(m, "limit_bytes");
		v->used = (uint64_t)get_number(m, "used_bytes");
		v->working_set = (uint64_t)get_number(m, "working_set_bytes");
		v->compressed = (uint64_t)get_number(m, "swap_compressed_bytes");
		v->swapped = (uint64_t)get_number(state, "swapped");
		v->balloon = (uint64_t)get_number(state, "balloon");
		v->ins = (uint64_t)get_number(m, "swap_ins");
		v->outs = (uint64_t)get_number(m, "evicted_stored");
		v->faults =
			v->ins + (uint64_t)(get_number(m, "first_touches") +
					    get_number(m, "zero_ins") + get_number(m, "rescues"));
	}
	json_decref(m);
	control_close(c);
}

static void add(void *opaque, const struct inventory_entry *e)
{
	struct sample *s = opaque;

	if (s->count == VMS_MAX)
		return;
	struct vm *v = &s->vm[s->count++];
	*v = (struct vm){.pid = e->pid, .ns = clock_ns(), .answers = e->status != NULL};
	snprintf(v->name, sizeof(v->name), "%s", v->answers ? get_string(e->status, "name") : "?");
	make_printable(v->name);
	if (!v->answers)
		return;
	v->cpu_s = json_number_value(json_object_get(e->status, "cpu_s"));
	v->size = (uint64_t)get_number(e->status, "memory_bytes");
	ask_memory(v, e->socket);
}

static double rate(uint64_t now, uint64_t then, double seconds)
{
	return now > then ? (double)(now - then) / seconds : 0;
}

static void compare(struct sample *now, const struct sample *then)
{
	for (unsigned n = 0; n < now->count; n++) {
		struct vm *v = &now->vm[n];
		const struct vm *o = NULL;
		for (unsigned k = 0; k < then->count; k++)
			if (then->vm[k].pid == v->pid && then->vm[k].answers)
				o = &then->vm[k];
		double s = o ? (double)(v->ns - o->ns) / 1e9 : 0;
		if (s <= 0 || !v->answers)
			continue;
		v->has_rates = true;
		v->cpu = 100 * (v->cpu_s - o->cpu_s) / s;
		v->in_rate = rate(v->ins, o->ins, s);
		v->out_rate = rate(v->outs, o->outs, s);
		v->fault_rate = rate(v->faults, o->faults, s);
	}
}

/* The busiest first, then the largest. */
static int busier(const void *a, const void *b)
{
	const struct vm *x = a, *y = b;

	if (x->cpu != y->cpu)
		return x->cpu < y->cpu ? 1 : -1;
	return x->used != y->used ? (x->used < y->used ? 1 : -1) : (int)(x->pid - y->pid);
}

static void take(struct sample *now, const struct sample *then)
{
	now->count = 0;
	inventory_each(add, now);
	compare(now, then);
	qsort(now->vm, now->count, sizeof(now->vm[0]), busier);
}

/* ---- showing ---- */

/* "1.5G", in five columns. */
static const char *brief(struct short_text *t, uint64_t bytes)
{
	static const char units[] = "KMGT";
	double n = (double)bytes / 1024;
	unsigned u = 0;

	while (n >= 1000 && u < 3) {
		n /= 1024;
		u++;
	}
	if (!bytes)
		return strcpy(t->text, "-");
	snprintf(t->text, sizeof(t->text), "%.*f%c", n < 9.95 ? 1 : 0, n, units[u]);
	return t->text;
}

static void print_vm(const struct vm *v, const char *end)
{
	struct short_text t[7];

	if (!v->answers) {
		printf("%-*s %7d  does not answer%s", NAME_COLUMNS, v->name, (int)v->pid, end);
		return;
	}
	printf("%s%-*.*s%s %7d %5.1f %6s %6s %6s %6s %6s %6s %5.0f %5.0f %7s %7.0f%s",
	       ink(INK_BOLD), NAME_COLUMNS, NAME_COLUMNS, v->name, ink_off(), (int)v->pid, v->cpu,
	       brief(&t[0], v->size), brief(&t[1], v->limit), brief(&t[2], v->used),
	       brief(&t[3], v->working_set), brief(&t[4], v->swapped), brief(&t[5], v->compressed),
	       v->in_rate, v->out_rate, brief(&t[6], v->balloon), v->fault_rate, end);
}

static void print_table(const struct sample *s, unsigned rows, const char *end)
{
	struct vm sum = {0};
	struct short_text size, used;

	for (unsigned n = 0; n < s->count; n++) {
		sum.cpu += s->vm[n].cpu;
		sum.size += s->vm[n].size;
		sum.used += s->vm[n].used;
	}
	printf("%u machine%s: CPU %.1f %%, %s of memory promised, %s in use%s%s", s->count,
	       s->count == 1 ? "" : "s", sum.cpu, show_bytes(&size, sum.size),
	       show_bytes(&used, sum.used), end, end);
	printf("%s%-*s %7s %5s %6s %6s %6s %6s %6s %6s %5s %5s %7s %7s%s%s", ink(INK_CYAN),
	       NAME_COLUMNS, "NAME", "PID", "CPU%", "SIZE", "LIMIT", "HOST", "WSET", "SWAP",
	       "COMPR", "IN/s", "OUT/s", "BALLOON", "FAULT/s", ink_off(), end);
	for (unsigned n = 0; n < s->count && n < rows; n++)
		print_vm(&s->vm[n], end);
	if (s->count > rows)
		printf("... %u more%s", s->count - rows, end);
}

static int print_sample_json(const struct sample *s)
{
	json_t *all = json_array();

	for (unsigned n = 0; n < s->count; n++) {
		const struct vm *v = &s->vm[n];
		json_array_append_new(
			all,
			json_pack("{s:s, s:i, s:b, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, "
				  "s:f, s:f}",
				  "name", v->name, "pid", (int)v->pid, "answers", v->answers,
				  "cpu_percent", v->cpu, "memory_bytes", (json_int_t)v->size,
				  "limit_bytes", (json_int_t)v->limit, "used_bytes",
				  (json_int_t)v->used, "working_set_bytes",
				  (json_int_t)v->working_set, "swapped_bytes",
				  (json_int_t)v->swapped, "compressed_bytes",
				  (json_int_t)v->compressed, "balloon_bytes",
				  (json_int_t)v->balloon, "swap_ins_per_s", v->in_rate,
				  "swap_outs_per_s", v->out_rate, "faults_per_s", v->fault_rate));
	}
	int r = json_dumpf(all, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(all);
	return r < 0 ? fail(STATUS_FAILED, "top --json: it could not be written") : STATUS_OK;
}

/* ---- live ---- */

static volatile sig_atomic_t ended;

static void on_signal(int sig)
{
	ended = sig;
}

static unsigned terminal_rows(void)
{
	struct winsize w;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 || w.ws_row < 6)
		return 24;
	return w.ws_row;
}

/* Waits for a second. True when a key or a signal ends it. */
static bool is_over(void)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	char key;

	if (!ended && poll(&p, 1, KEY_MS) > 0 && p.revents) {
		/* In raw mode Ctrl-C is a key. */
		if (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q' || key == 3)
			return true;
	}
	return ended;
}

/* The alternate screen, no cursor, keys without Enter; all of it undone at the end. */
static int live(struct sample *now, struct sample *then)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
	struct sigaction action = {.sa_handler = on_signal};
	struct error err;

	for (unsigned n = 0; n < sizeof(signals) / sizeof(signals[0]); n++)
		sigaction(signals[n], &action, NULL);
	if (terminal_raw(STDIN_FILENO, &err) < 0)
		return fail(STATUS_FAILED, "%s", err.text);
	/* Lines that are too long are cut. */
	fputs("\033[?1049h\033[?25l\033[?7l", stdout);
	do {
		struct sample *old = then;
		unsigned rows = terminal_rows();
		take(now, then);
		fputs("\033[H", stdout);
		print_table(now, rows - 5, "\033[K\r\n");
		printf("\033[K\r\n%sq ends this\033[K%s\033[J", ink(INK_DIM), ink_off());
		fflush(stdout);
		then = now;
		now = old;
	} while (!is_over());
	fputs("\033[?7h\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	terminal_restore();
	return STATUS_OK;
}

struct wish {
	bool json, once;
};

static int set_option(void *opaque, int option, struct error *err)
{
	struct wish *w = opaque;

	(void)err;
	if (option == 'j')
		w->json = true;
	else
		w->once = true;
	return 0;
}

int verb_top(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"once", no_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct wish w = {0};
	const struct verb_words words = {NULL, 0, 0, "", set_option, &w};

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	struct sample *s = calloc(2, sizeof(*s));
	if (!s)
		return fail(STATUS_FAILED, "top: out of memory");
	if (!w.json && !w.once && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO)) {
		r = live(&s[0], &s[1]);
	} else {
		take(&s[1], &s[0]);
		if (s[1].count)
			usleep(KEY_MS * 1000);
		take(&s[0], &s[1]);
		r = STATUS_OK;
		if (w.json)
			r = print_sample_json(&s[0]);
		else
			print_table(&s[0], VMS_MAX, "\n");
	}
	free(s);
	return r;
}
