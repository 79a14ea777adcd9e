/* SPDX-License-Identifier: Apache-2.0 */
/* What a debugger sees of a machine that stands still; "monitor" commands. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/gdb/gdb_internal.h"

static void get_cpu(void *opaque, unsigned cpu, struct gdb_cpu *c)
{
	struct gdb *g = opaque;
	struct vcpu *v = machine_vcpu(g->machine, cpu);
	struct vcpu_board callbacks;

	v->ops->get_state(v, &c->s);
	board_vcpu_callbacks(machine_board(g->machine), cpu, &callbacks);
	c->cr8 = callbacks.get_cr8(callbacks.opaque);
}

static int set_cpu(void *opaque, unsigned cpu, const struct gdb_cpu *c)
{
	struct gdb *g = opaque;
	struct vcpu *v = machine_vcpu(g->machine, cpu);
	struct error err;

	return v->ops->set_state(v, &c->s, &err);
}

static bool halted(void *opaque, unsigned cpu)
{
	struct gdb_cpu c;

	get_cpu(opaque, cpu, &c);
	return c.s.activity != ACTIVITY_RUNNING;
}

static bool translate(struct gdb *g, unsigned cpu, uint64_t gva, uint64_t *gpa)
{
	struct vcpu *v = machine_vcpu(g->machine, cpu);

	if (g->physical) {
		*gpa = gva;
		return true;
	}
	return v->ops->translate(v, gva, gpa) == 0;
}

/* Copies page by page, as far as it goes. */
static int copy(struct gdb *g, unsigned cpu, uint64_t gva, uint8_t *buf, size_t len, bool write)
{
	struct mem *mem = machine_mem(g->machine);
	size_t done = 0;

	while (done < len) {
		uint64_t gpa;
		size_t n = MEM_PAGE_BYTES - ((gva + done) & (MEM_PAGE_BYTES - 1));
		if (n > len - done)
			n = len - done;
		if (!translate(g, cpu, gva + done, &gpa) ||
		    (write ? mem_write(mem, gpa, buf + done, n)
			   : mem_read(mem, gpa, buf + done, n)) < 0)
			break;
		done += n;
	}
	return done || !len ? (int)done : -EFAULT;
}

static int read_memory(void *opaque, unsigned cpu, uint64_t gva, void *buf, size_t len)
{
	return copy(opaque, cpu, gva, buf, len, false);
}

static int write_memory(void *opaque, unsigned cpu, uint64_t gva, const void *buf, size_t len)
{
	return copy(opaque, cpu, gva, (uint8_t *)buf, len, true);
}

/* ---- monitor ---- */

struct text {
	char *at;
	size_t room;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(t->at, t->room, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	size_t used = (size_t)n < t->room ? (size_t)n : t->room - 1;
	t->at += used;
	t->room -= used;
}

static void info_segment(struct text *t, const char *name, const struct segment *s)
{
	say(t, "%-4s %04x base %016" PRIx64 " limit %08x attr %04x%s\n", name, s->sel, s->base,
	    s->limit, s->attr & 0xffff, (s->attr & SEG_UNUSABLE) ? " unusable" : "");
}

static void info_registers(struct gdb *g, unsigned cpu, const char *args, struct text *t)
{
	static const char *const gprs[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15"};
	static const char *const segs[] = {"es", "cs", "ss", "ds", "fs", "gs"};
	struct gdb_cpu c;

	(void)args;
	get_cpu(g, cpu, &c);
	const struct cpu_state *s = &c.s;
	for (unsigned n = 0; n < GPR_NR; n++)
		say(t, "%-3s %016" PRIx64 "%s", gprs[n], s->gpr[n], n % 4 == 3 ? "\n" : "  ");
	say(t, "rip %016" PRIx64 "  rflags %08" PRIx64 "\n", s->rip, s->rflags);
	for (unsigned n = 0; n < SEG_NR; n++)
		info_segment(t, segs[n], &s->seg[n]);
	info_segment(t, "ldtr", &s->ldtr);
	info_segment(t, "tr", &s->tr);
	say(t, "gdt  base %016" PRIx64 " limit %04x\nidt  base %016" PRIx64 " limit %04x\n",
	    s->gdt.base, s->gdt.limit, s->idt.base, s->idt.limit);
	say(t,
	    "cr0 %08" PRIx64 "  cr2 %016" PRIx64 "  cr3 %016" PRIx64 "  cr4 %08" PRIx64
	    "  cr8 %x\n",
	    s->cr0, s->cr2, s->cr3, s->cr4, c.cr8);
	say(t, "efer %" PRIx64 "  xcr0 %" PRIx64 "  star %016" PRIx64 "  lstar %016" PRIx64 "\n",
	    s->efer, s->xcr0, s->star, s->lstar);
	for (unsigned n = 0; n < 4; n++)
		say(t, "dr%u %016" PRIx64 "  ", n, s->dr[n]);
	say(t, "\ndr6 %08" PRIx64 "  dr7 %08" PRIx64 "\n", s->dr6, s->dr7);
}

static void info_cpus(struct gdb *g, unsigned cpu, const char *args, struct text *t)
{
	static const char *const activities[] = {
		[ACTIVITY_RUNNING] = "running",
		[ACTIVITY_HALTED] = "halted",
		[ACTIVITY_WAIT_SIPI] = "waits to be started",
		[ACTIVITY_SHUTDOWN] = "shut down",
	};

	(void)args;
	for (unsigned n = 0; n < g->target.cpus; n++) {
		struct gdb_cpu c;
		get_cpu(g, n, &c);
		const char *mode = cpu_in_64bit(&c.s)	    ? "64-bit"
				   : cpu_in_long_mode(&c.s) ? "compatibility"
				   : !(c.s.cr0 & CR0_PE)    ? "real"
				   : (c.s.rflags & FLAG_VM) ? "virtual-8086"
							    : "protected";
		say(t,
		    "%c vCPU %u: %s, %s mode, CPL %u, rip %04x:%016" PRIx64 ", cr3 %" PRIx64 "\n",
		    n == cpu ? '*' : ' ', n,
		    c.s.activity <= ACTIVITY_SHUTDOWN ? activities[c.s.activity] : "?", mode,
		    cpu_cpl(&c.s), c.s.seg[SEG_CS].sel, c.s.rip, c.s.cr3);
	}
}

static void monitor_translate(struct gdb *g, unsigned cpu, const char *args, struct text *t)
{
	struct vcpu *v = machine_vcpu(g->machine, cpu);
	char *end;
	uint64_t gpa, gva = strtoull(args, &end, 0);

	if (end == args || *end)
		say(t, "translate ADDRESS: where a linear address is in guest-physical memory\n");
	else if (v->ops->translate(v, gva, &gpa) < 0)
		say(t, "0x%" PRIx64 " is not mapped\n", gva);
	else
		say(t, "0x%" PRIx64 " is at guest-physical 0x%" PRIx64 "\n", gva, gpa);
}

static void monitor_physical(struct gdb *g, unsigned cpu, const char *args, struct text *t)
{
	(void)cpu;
	if (!strcmp(args, "on"))
		g->physical = true;
	else if (!strcmp(args, "off"))
		g->physical = false;
	say(t, "memory addresses are %s\n", g->physical ? "guest-physical" : "guest-virtual");
}

static void monitor_reset(struct gdb *g, unsigned cpu, const char *args, struct text *t)
{
	(void)cpu;
	(void)args;
	machine_reset(g->machine);
	say(t, "the machine starts again when it is resumed\n");
}

static void monitor_quit(struct gdb *g, unsigned cpu, const char *args, struct text *t)
{
	(void)cpu;
	(void)args;
	g->target.kill(g);
	say(t, "the machine ends\n");
}

static void monitor_help(struct gdb *g, unsigned cpu, const char *args, struct text *t);

static const struct {
	const char *name, *help;
	void (*run)(struct gdb *g, unsigned cpu, const char *args, struct text *t);
} commands[] = {
	{"help", "this list", monitor_help},
	{"info registers", "all registers of the current vCPU, hidden parts too", info_registers},
	{"info cpus", "what each vCPU is doing", info_cpus},
	{"translate", "ADDRESS: its guest-physical address on the current vCPU", monitor_translate},
	{"physical", "on|off: take memory addresses as guest-physical", monitor_physical},
	{"reset", "reset the machine", monitor_reset},
	{"quit", "end the machine", monitor_quit},
};
enum { COMMANDS_NR = sizeof(commands) / sizeof(commands[0]) };

static void monitor_help(struct gdb *g, unsigned cpu, const char *args, struct text *t)
{
	(void)g;
	(void)cpu;
	(void)args;
	for (unsigned n = 0; n < COMMANDS_NR; n++)
		say(t, "monitor %-15s %s\n", commands[n].name, commands[n].help);
}

static void monitor(void *opaque, unsigned cpu, const char *command, char *out, size_t size)
{
	struct text t = {out, size};

	for (unsigned n = 0; n < COMMANDS_NR; n++) {
		size_t len = strlen(commands[n].name);
		if (strncmp(command, commands[n].name, len) ||
		    (command[len] && command[len] != ' '))
			continue;
		const char *args = command + len;
		while (*args == ' ')
			args++;
		commands[n].run(opaque, cpu, args, &t);
		return;
	}
	say(&t, "monitor %s: there is no such command; try monitor help\n", command);
}

void gdb_target_fill(struct gdb_target *t)
{
	t->get_cpu = get_cpu;
	t->set_cpu = set_cpu;
	t->halted = halted;
	t->read = read_memory;
	t->write = write_memory;
	t->monitor = monitor;
}
