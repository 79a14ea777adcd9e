/* SPDX-License-Identifier: Apache-2.0 */
#include "app/stats.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "app/terminal.h"
#include "base/clock.h"

struct totals {
	struct exit_stats exits;
	uint64_t engine_ticks;
};

static struct totals sum(struct machine *m)
{
	struct totals t = {0};

	for (unsigned cpu = 0; cpu < machine_cpus(m); cpu++) {
		const struct exit_stats *s = &machine_vcpu(m, cpu)->stats;
		for (int i = 0; i < EXIT_NR; i++) {
			t.exits.count[i] += s->count[i];
			t.exits.ticks[i] += s->ticks[i];
		}
		t.exits.instructions += s->instructions;
		t.engine_ticks += machine_engine_ticks(m, cpu);
	}
	return t;
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* VmRSS, in bytes; 0 where /proc tells nothing. */
static uint64_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	uint64_t size, resident = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%" SCNu64 " %" SCNu64, &size, &resident) != 2)
		resident = 0;
	fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void print_exits(const struct exit_stats *s)
{
	double tick_s = 1.0 / (double)clock_tsc_hz();

	terminal_say("%-14s %14s %12s %12s", "exit", "count", "total ms", "mean us");
	for (int i = 0; i < EXIT_NR; i++) {
		double total_s = (double)s->ticks[i] * tick_s;
		if (!s->count[i])
			continue;
		if (s->ticks[i])
			terminal_say("%-14s %14" PRIu64 " %12.3f %12.3f", exit_cause_name(i),
				     s->count[i], total_s * 1e3,
				     total_s * 1e6 / (double)s->count[i]);
		else
			terminal_say("%-14s %14" PRIu64 " %12s %12s", exit_cause_name(i),
				     s->count[i], "-", "-");
	}
}

/* Translated code does not count what it runs: only interpretation knows its speed. */
static void print_engine(struct machine *m, const struct totals *t)
{
	const char *name = machine_vcpu(m, 0)->ops->name;
	const char *plural = machine_cpus(m) == 1 ? "" : "s";
	double engine_s = (double)t->engine_ticks / (double)clock_tsc_hz();
	uint64_t instructions = t->exits.instructions;

	if (strcmp(name, "interp"))
		terminal_say("engine %s, %u vCPU%s: %.3f s, %" PRIu64
			     " instructions interpreted; translated ones are not counted",
			     name, machine_cpus(m), plural, engine_s, instructions);
	else
		terminal_say("engine %s, %u vCPU%s: %" PRIu64 " instructions in %.3f s, %.1f MIPS",
			     name, machine_cpus(m), plural, instructions, engine_s,
			     engine_s > 0 ? (double)instructions / engine_s / 1e6 : 0.0);
}

/* What the memory manager did, if it did anything. */
static void print_manager(struct machine *m)
{
	struct mem_stats s;

	mem_get_stats(machine_mem(m), &s, false);
	if (!s.limit_bytes && !s.swap_ins && !s.discarded)
		return;
	terminal_say("memory manager: %.1f of %.1f MiB used, of it %.1f compressed; %.1f MiB in "
		     "the swap file",
		     (double)s.used_bytes / 0x1p20, (double)s.limit_bytes / 0x1p20,
		     (double)s.swap_memory_bytes / 0x1p20, (double)s.swap_file_bytes / 0x1p20);
	terminal_say("pages out: %" PRIu64 " stored, %" PRIu64 " clean, %" PRIu64 " zero, %" PRIu64
		     " given back; in: %" PRIu64 " new, %" PRIu64 " from the store, %" PRIu64
		     " read ahead (%" PRIu64 " used), %" PRIu64 " zero, %" PRIu64 " rescued",
		     s.evicted_stored, s.evicted_clean, s.evicted_zero, s.discarded,
		     s.first_touches, s.swap_ins, s.read_aheads, s.read_aheads_used, s.zero_ins,
		     s.rescues);
	terminal_say("swap file: %" PRIu64 " reads, %" PRIu64 " writes; vCPUs waited %" PRIu64
		     " times, %.3f s",
		     s.swap_reads, s.swap_writes, s.waits, (double)s.wait_ns / 1e9);
}

void stats_print(struct machine *m, uint64_t wall_ns)
{
	struct totals t = sum(m);
	struct rusage ru = {0};

	getrusage(RUSAGE_SELF, &ru);
	print_exits(&t.exits);
	print_engine(m, &t);
	terminal_say("wall %.3f s, host CPU %.3f s user, %.3f s system", (double)wall_ns / 1e9,
		     seconds(ru.ru_utime), seconds(ru.ru_stime));
	terminal_say("memory %.1f MiB resident, of it %.1f of the guest's %" PRIu64 " MiB",
		     (double)resident_bytes() / 0x1p20,
		     (double)mem_resident_bytes(machine_mem(m)) / 0x1p20,
		     mem_ram_bytes(machine_mem(m)) >> 20);
	print_manager(m);
}
