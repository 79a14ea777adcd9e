/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok run`: one machine in the foreground. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"
#include "app/serial.h"
#include "app/stats.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/log.h"
#include "control/gdb/gdb.h"
#include "control/trace.h"
#include "machine/machine.h"

static const char help[] =
	"hanok run: boot a kernel in a virtual machine and stay with it until it ends.\n"
	"\n"
	"Examples:\n"
	"  hanok run --kernel vmlinuz --initrd initrd --append console=ttyS0\n"
	"      Linux with its console on this terminal. Ctrl-A x ends it, Ctrl-A h helps.\n"
	"  hanok run --kernel vmlinuz --initrd initrd --append 'console=ttyS0 panic=-1' \\\n"
	"            --memory 2G --cpus 2 --no-reboot --timeout 10m --serial file:boot.log\n"
	"      A test run without a terminal; the exit status tells how it ended.\n"
	"  hanok run --kernel test.elf --debug-exit 0xf4 --stats\n"
	"      A Multiboot or PVH kernel of your own, which ends by writing to port f4h;\n"
	"      then a table of everything that took it out of its straight path.\n"
	"  hanok run --kernel vmlinuz --serial socket:console.sock\n"
	"      then: socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:console.sock\n"
	"\n"
	"What to boot:\n"
	"  --kernel FILE       a Linux bzImage, or an ELF kernel with a PVH or Multiboot header\n"
	"  --initrd FILE       an initial RAM disk; for Multiboot: modules, commas between them\n"
	"  --append STRING     the kernel's command line\n"
	"\n"
	"The machine:\n"
	"  --memory SIZE       as in 512M or 2G (512M)\n"
	"  --cpus N            virtual CPUs (1)\n"
	"  --engine NAME       what runs them: bt translates the guest's code, interp (slow) takes it\n"
	"                      instruction by instruction, auto takes the best there is (auto)\n"
	"  --code-cache SIZE   at most so much translated code at a time (64M; 1M to 1G)\n"
	"  --serial WHERE      COM1, and given once more COM2: stdio, file:PATH, socket:PATH,\n"
	"                      pty or none (stdio for COM1, none for COM2)\n"
	"  --debug-exit PORT   a byte the guest writes to this I/O port ends the machine\n"
	"\n"
	"Looking in:\n"
	"  --gdb WHERE         let gdb connect to WHERE: :PORT, or the path of a UNIX socket, and\n"
	"                      as in :1234,wait stand still until it has let the machine go; with\n"
	"                      ,i386 for guests that stay in 32-bit code\n"
	"  --perf-map          name translated code for perf, in /tmp/perf-PID.map\n"
	"  --trace FILE        write a line for each exit, interrupt and exception to FILE\n"
	"\n"
	"How it ends:\n"
	"  --timeout TIME      end it after so many seconds (or 5m, 2h)\n"
	"  --no-reboot         a reboot by the guest ends it, too\n"
	"  --stats             print exits, instructions, time and memory at the end\n"
	"\n"
	"Exit status: 0 the guest powered off, rebooted with --no-reboot, or Ctrl-A x; 2 the command\n"
	"line is wrong; 3 the guest crashed; 124 --timeout; 125 hanok failed; (BYTE << 1) | 1 through\n"
	"--debug-exit; 128 + N ended by signal N.\n";

struct run {
	struct machine_config config;
	const char *engine;
	const char *serial_spec[BOARD_SERIAL_PORTS];
	uint64_t timeout_ns; /* 0: none */
	bool stats;
	const char *gdb_where, *trace_path; /* NULL: none */

	struct loop *loop;
	struct serial *serial[BOARD_SERIAL_PORTS];
	struct machine *machine;
	struct gdb *gdb;
	struct trace *trace;
	struct timer timeout;
	int signal_fd;
	struct loop_fd *signal_watch;
	int ended_by_signal;
};

/* The one that runs: Ctrl-A s has no other way to know since when. */
static uint64_t started_ns;

/* ---- the command line ---- */

enum {
	OPT_KERNEL = 256,
	OPT_INITRD,
	OPT_APPEND,
	OPT_MEMORY,
	OPT_CPUS,
	OPT_ENGINE,
	OPT_TIMEOUT,
	OPT_NO_REBOOT,
	OPT_DEBUG_EXIT,
	OPT_STATS,
	OPT_SERIAL,
	OPT_GDB,
	OPT_TRACE,
	OPT_CODE_CACHE,
	OPT_PERF_MAP,
	OPT_HELP
};

static const struct option options[] = {
	{"kernel", required_argument, NULL, OPT_KERNEL},
	{"initrd", required_argument, NULL, OPT_INITRD},
	{"append", required_argument, NULL, OPT_APPEND},
	{"memory", required_argument, NULL, OPT_MEMORY},
	{"cpus", required_argument, NULL, OPT_CPUS},
	{"engine", required_argument, NULL, OPT_ENGINE},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"no-reboot", no_argument, NULL, OPT_NO_REBOOT},
	{"debug-exit", required_argument, NULL, OPT_DEBUG_EXIT},
	{"stats", no_argument, NULL, OPT_STATS},
	{"serial", required_argument, NULL, OPT_SERIAL},
	{"gdb", required_argument, NULL, OPT_GDB},
	{"trace", required_argument, NULL, OPT_TRACE},
	{"code-cache", required_argument, NULL, OPT_CODE_CACHE},
	{"perf-map", no_argument, NULL, OPT_PERF_MAP},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

static int set_memory(struct run *r, const char *text, struct error *err)
{
	uint64_t bytes;

	if (parse_size("--memory", text, &bytes, err) < 0)
		return -EINVAL;
	if (bytes < 1 << 20 && strspn(text, "0123456789") == strlen(text))
		return error_set(err, -EINVAL,
				 "--memory %s: that is in bytes; did you mean %sM? The least is 1M",
				 text, bytes ? text : "512");
	if (bytes < 1 << 20 || bytes % (1 << 20))
		return error_set(err, -EINVAL,
				 "--memory %s: it must be a whole number of MiB, at least 1M",
				 text);
	r->config.memory_bytes = bytes;
	return 0;
}

static int set_serial(struct run *r, const char *spec, struct error *err)
{
	unsigned n = 0;

	while (n < BOARD_SERIAL_PORTS && r->serial_spec[n])
		n++;
	if (n == BOARD_SERIAL_PORTS)
		return error_set(err, -EINVAL, "--serial %s: the machine has only two serial ports",
				 spec);
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(spec, "stdio") && !strcmp(r->serial_spec[i], "stdio"))
			return error_set(err, -EINVAL,
					 "--serial stdio: twice; only one port can have it");
	r->serial_spec[n] = spec;
	return 0;
}

static int set_number(const char *option, uint64_t max, unsigned *out, struct error *err)
{
	uint64_t n;
	int r = parse_unsigned(option, optarg, 1, max, &n, err);

	if (r == 0)
		*out = (unsigned)n;
	return r;
}

static int set_code_cache(struct run *r, struct error *err)
{
	uint64_t *bytes = &r->config.code_cache_bytes;

	if (parse_size("--code-cache", optarg, bytes, err) < 0)
		return -EINVAL;
	if (*bytes < 1 << 20 || *bytes > 1 << 30)
		return error_set(err, -EINVAL, "--code-cache %s: from 1M to 1G, as in 64M", optarg);
	*bytes &= ~UINT64_C(4095);
	return 0;
}

/* Returns 0, 1 for --help, or a negative errno with *err. */
static int set_option(struct run *r, int option, struct error *err)
{
	unsigned port;
	int result = 0;

	switch (option) {
	case OPT_KERNEL:
		r->config.boot.kernel_path = optarg;
		break;
	case OPT_INITRD:
		r->config.boot.initrd_path = optarg;
		break;
	case OPT_APPEND:
		r->config.boot.cmdline = optarg;
		break;
	case OPT_MEMORY:
		return set_memory(r, optarg, err);
	case OPT_CPUS:
		return set_number("--cpus", BOARD_CPUS_MAX, &r->config.cpus, err);
	case OPT_ENGINE:
		r->engine = optarg;
		break;
	case OPT_TIMEOUT:
		return parse_seconds("--timeout", optarg, &r->timeout_ns, err);
	case OPT_NO_REBOOT:
		r->config.no_reboot = true;
		break;
	case OPT_DEBUG_EXIT:
		result = set_number("--debug-exit", UINT16_MAX, &port, err);
		if (result == 0)
			r->config.debug_exit_port = (uint16_t)port;
		return result;
	case OPT_STATS:
		r->stats = true;
		break;
	case OPT_SERIAL:
		return set_serial(r, optarg, err);
	case OPT_GDB:
		r->gdb_where = optarg;
		break;
	case OPT_TRACE:
		r->trace_path = optarg;
		break;
	case OPT_CODE_CACHE:
		return set_code_cache(r, err);
	case OPT_PERF_MAP:
		r->config.perf_map = true;
		break;
	case OPT_HELP:
	case 'h':
		return 1;
	default:
		return -EINVAL; /* '?': *err is there */
	}
	return 0;
}

static int parse(struct run *r, int argc, char **argv, struct error *err)
{
	int option, result = 0;

	while (result == 0 && (option = option_next(argc, argv, options, err)) != -1)
		result = set_option(r, option, err);
	if (result)
		return result;
	if (optind < argc)
		return error_set(
			err, -EINVAL,
			"%s: not an option; name a kernel by --kernel, its command line by "
			"--append",
			argv[optind]);
	if (!r->config.boot.kernel_path)
		return error_set(err, -EINVAL,
				 "what to boot? Name it by --kernel FILE; --help shows examples");
	if (!r->serial_spec[0])
		r->serial_spec[0] = "stdio";
	return 0;
}

/* ---- signals ---- */

static void stop_for_a_while(struct run *r)
{
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		if (r->serial[i])
			serial_suspend(r->serial[i]);
	kill(getpid(), SIGSTOP); /* here it stands until SIGCONT, which comes by the descriptor */
}

static void go_on(struct run *r)
{
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		if (r->serial[i])
			serial_continue(r->serial[i]);
}

static void signalled(void *opaque, int fd, int events)
{
	struct run *r = opaque;
	struct signalfd_siginfo info;

	(void)events;
	while (read(fd, &info, sizeof(info)) == sizeof(info)) {
		int sig = (int)info.ssi_signo;
		if (sig == SIGTSTP) {
			stop_for_a_while(r);
		} else if (sig == SIGCONT) {
			go_on(r);
		} else {
			r->ended_by_signal = sig;
			machine_stop(r->machine, MACHINE_QUIT, "ended by a signal: %s",
				     strsignal(sig));
		}
	}
}

static int watch_signals(struct run *r, struct error *err)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT};
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		struct sigaction old;
		/* What we were started to ignore (nohup) stays ignored. */
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaddset(&set, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	r->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (r->signal_fd < 0)
		return error_set(err, -errno, "signalfd: %s", strerror(errno));
	int code = loop_fd_add(r->loop, r->signal_fd, POLLIN, signalled, r, &r->signal_watch);
	if (code < 0)
		return error_set(err, code, "signalfd: %s", strerror(-code));
	return 0;
}

/* ---- making, running, ending ---- */

static void time_is_up(void *opaque)
{
	struct run *r = opaque;

	machine_stop(r->machine, MACHINE_TIMED_OUT, "the guest did not end within %g s",
		     (double)r->timeout_ns / 1e9);
}

/* In the middle of a run, on the loop's thread. */
static void show_stats(struct machine *m)
{
	machine_pause(m); /* so that the numbers belong together */
	stats_print(m, clock_ns() - started_ns);
	machine_resume(m);
}

static void log_line(void *opaque, enum log_level level, const char *line)
{
	(void)opaque, (void)level;
	terminal_say("%s", line);
}

static bool is_engine(const char *name)
{
	for (unsigned i = 0; engines[i]; i++)
		if (!strcmp(name, engines[i]->name))
			return true;
	return !strcmp(name, "auto");
}

/* STATUS_OK, or another with *err. */
static int set_up(struct run *r, struct error *err)
{
	struct error reason = {0};
	int code;

	r->config.engine = engine_find(r->engine, &reason, err);
	if (!r->config.engine)
		return is_engine(r->engine) ? STATUS_FAILED : STATUS_USAGE;
	if (loop_create(&r->loop, err) < 0)
		return STATUS_FAILED;
	r->config.loop = r->loop;
	timer_init(&r->timeout, r->loop, time_is_up, r);
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++) {
		if (!r->serial_spec[i])
			continue;
		code = serial_create(&r->serial[i], r->loop, i, r->serial_spec[i], err);
		if (code < 0)
			return code == -EINVAL ? STATUS_USAGE : STATUS_FAILED;
		r->config.serial[i] = serial_backend(r->serial[i]);
	}
	if (machine_create(&r->machine, &r->config, err) < 0 || watch_signals(r, err) < 0)
		return STATUS_FAILED;
	if (isatty(STDERR_FILENO))
		terminal_say("%s", reason.text);
	return STATUS_OK;
}

static int attach(struct run *r, struct error *err)
{
	int code = 0;

	if (r->trace_path) {
		code = trace_open(&r->trace, r->trace_path, err);
		if (code == 0)
			code = trace_attach(r->trace, r->machine, err);
	}
	if (code == 0 && r->gdb_where)
		code = gdb_create(&r->gdb, r->machine, r->gdb_where, err);
	if (code < 0)
		return code;
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++) {
		if (!r->serial[i])
			continue;
		code = serial_attach(r->serial[i], r->machine, show_stats, err);
		if (code < 0)
			return code;
		if (serial_is_interactive(r->serial[i]) && isatty(STDERR_FILENO))
			terminal_say("Ctrl-A x ends the guest, Ctrl-A h helps");
	}
	return 0;
}

static int status_of(const struct machine_result *result)
{
	switch (result->end) {
	case MACHINE_POWERED_OFF:
	case MACHINE_REBOOTED:
	case MACHINE_QUIT:
		return STATUS_OK;
	case MACHINE_CRASHED:
		return STATUS_CRASHED;
	case MACHINE_DEBUG_EXIT:
		return (int)((result->debug_value << 1 | 1) & 0xff);
	case MACHINE_TIMED_OUT:
		return STATUS_TIMED_OUT;
	case MACHINE_FAILED:
		break;
	}
	return STATUS_FAILED;
}

/* Says how it ended: always when something is wrong or from outside, else to a person only. */
static void say_end(const struct run *r, const struct machine_result *result)
{
	bool as_wanted = !r->ended_by_signal &&
			 (result->end == MACHINE_DEBUG_EXIT || status_of(result) == STATUS_OK);

	if (!as_wanted || isatty(STDERR_FILENO))
		terminal_say("%s", result->why.text);
}

static int run_machine(struct run *r, struct error *err)
{
	struct machine_result result;

	int code = attach(r, err);
	if (code < 0)
		return code == -EINVAL ? STATUS_USAGE : STATUS_FAILED;
	started_ns = clock_ns();
	if (r->timeout_ns)
		timer_arm(&r->timeout, started_ns + r->timeout_ns);
	machine_run(r->machine, &result);
	uint64_t wall_ns = clock_ns() - started_ns;
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		serial_drain(r->serial[i]);
	terminal_restore();
	say_end(r, &result);
	if (r->stats)
		stats_print(r->machine, wall_ns);
	return status_of(&result);
}

static void tear_down(struct run *r)
{
	gdb_destroy(r->gdb);
	trace_close(r->trace);
	machine_destroy(r->machine);
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		serial_destroy(r->serial[i]);
	if (r->loop)
		timer_destroy(&r->timeout);
	loop_fd_remove(r->signal_watch);
	if (r->signal_fd >= 0)
		close(r->signal_fd);
	loop_destroy(r->loop);
}

/* Ends as the signal would have ended us, so that whoever started us sees it. */
static void end_by_signal(int sig)
{
	sigset_t set;

	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int verb_run(int argc, char **argv)
{
	struct run r = {
		.config = {.memory_bytes = UINT64_C(512) << 20, .cpus = 1},
		.engine = "auto",
		.signal_fd = -1,
	};
	struct error err = {0};
	int parsed = parse(&r, argc, argv, &err);

	if (parsed > 0) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	if (parsed < 0)
		return fail(STATUS_USAGE, "%s", err.text);
	log_set_sink(log_line, NULL);
	int status = set_up(&r, &err);
	if (status == STATUS_OK) {
		err.text[0] = 0;
		status = run_machine(&r, &err);
	}
	tear_down(&r);
	if (err.text[0])
		fail(status, "%s", err.text);
	if (r.ended_by_signal)
		end_by_signal(r.ended_by_signal);
	return status;
}
