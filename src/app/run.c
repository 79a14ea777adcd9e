/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok run`: one machine in the foreground. Here is its command line; run_machine.c runs it. */
#include "app/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/drives.h"
#include "app/nics.h"
#include "app/options.h"

static const char help[] =
	"hanok run: run a virtual machine and stay with it until it ends.\n"
	"\n"
	"Examples:\n"
	"  hanok run mail\n"
	"      The machine named mail (a folder, a .vmx or a display name), its console on this\n"
	"      terminal. Ctrl-A x ends it, Ctrl-A p presses its power button, Ctrl-A h helps.\n"
	"  hanok run --kernel vmlinuz --initrd initrd --append console=ttyS0\n"
	"      A kernel of your own, in a machine that has no folder.\n"
	"  hanok run --kernel vmlinuz --initrd initrd --append 'console=ttyS0 panic=-1' \\\n"
	"            --memory 2G --cpus 2 --no-reboot --timeout 10m --serial file:boot.log\n"
	"      A test run without a terminal; the exit status tells how it ended.\n"
	"  hanok run --kernel test.elf --debug-exit 0xf4 --stats\n"
	"      A Multiboot or PVH kernel of your own, which ends by writing to port f4h;\n"
	"      then a table of everything that took it out of its straight path.\n"
	"  hanok run --kernel vmlinuz --serial socket:console.sock\n"
	"      then: socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:console.sock\n"
	"\n"
	"What to boot; with a machine, these and what follows go before what its .vmx says:\n"
	"  --kernel FILE       a Linux bzImage, or an ELF kernel with a PVH or Multiboot header\n"
	"  --initrd FILE       an initial RAM disk; for Multiboot: modules, commas between them\n"
	"  --append STRING     the kernel's command line\n"
	"\n"
	"The machine:\n"
	"  --memory SIZE       as in 512M or 2G (512M, or as the .vmx says)\n"
	"  --memory-limit SIZE at most so much of it is in the host's memory at a time; the rest is\n"
	"                      compressed, then swapped out (no limit)\n"
	"  --memory-min SIZE   so much of it is its own when the pool of `hanok pool` is full (none)\n"
	"  --memory-shares N   its part of the pool: low, normal or high, 5, 10 or 20 for each MiB it\n"
	"                      has, or a number (normal)\n"
	"  --memory-share      pages that are equal are in the host's memory once, also between\n"
	"                      machines, by the host's KSM; a guest may find out what another has\n"
	"  --memory-policy P   what leaves first: gen, the least recently used by generations, or\n"
	"                      fifo, what came in first (gen)\n"
	"  --balloon HOW       the guest's driver gives memory back: auto, so that nothing need be swapped\n"
	"                      out; off, as `hanok balloon` says; none, there is no balloon (auto)\n"
	"  --swap DIR          where the swap file goes, or none (the machine's folder, else\n"
	"                      $TMPDIR or /var/tmp)\n"
	"  --cpus N            virtual CPUs (1)\n"
	"  --disk FILE[,model=NAME][,readonly][,direct]\n"
	"                      a disk, which the guest may write to; once for each. model: the\n"
	"                      controller it is on (virtio-blk); readonly: nobody writes to it;\n"
	"                      direct: past the host's page cache\n"
	"  --cdrom FILE[,model=NAME]\n"
	"                      a CD drive with the image FILE in it\n"
	"  --nic WHERE[,model=NAME][,mac=ADDRESS][,group=NAME|,vlan=N][,forward=FORWARD]...\n"
	"                      a network card; once for each. WHERE it is plugged in: nat, switch=NAME\n"
	"                      (a network of `hanok net`, in its port group NAME, or the one of VLAN N,\n"
	"                      vlanN; hostonly and bridged are the networks that are called so),\n"
	"                      bridged=INTERFACE of the host's (as root) or none. forward, of\n"
	"                      nat: tcp:127.0.0.1:2222-22 leads from the host's port 2222 to the\n"
	"                      guest's 22. model: the card (virtio)\n"
	"  --engine NAME       what runs them: bt translates the guest's code, interp (slow) takes it\n"
	"                      instruction by instruction, auto takes the best there is (auto)\n"
	"  --code-cache SIZE   at most so much translated code at a time (256M; 1M to 1G)\n"
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

/* ---- the command line ---- */

enum {
	OPT_KERNEL = 256,
	OPT_INITRD,
	OPT_APPEND,
	OPT_MEMORY,
	OPT_MEMORY_LIMIT,
	OPT_MEMORY_MIN,
	OPT_MEMORY_SHARES,
	OPT_MEMORY_SHARE,
	OPT_MEMORY_POLICY,
	OPT_BALLOON,
	OPT_SWAP,
	OPT_CPUS,
	OPT_DISK,
	OPT_CDROM,
	OPT_NIC,
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
	{"memory-limit", required_argument, NULL, OPT_MEMORY_LIMIT},
	{"memory-min", required_argument, NULL, OPT_MEMORY_MIN},
	{"memory-shares", required_argument, NULL, OPT_MEMORY_SHARES},
	{"memory-share", no_argument, NULL, OPT_MEMORY_SHARE},
	{"memory-policy", required_argument, NULL, OPT_MEMORY_POLICY},
	{"balloon", required_argument, NULL, OPT_BALLOON},
	{"swap", required_argument, NULL, OPT_SWAP},
	{"cpus", required_argument, NULL, OPT_CPUS},
	{"disk", required_argument, NULL, OPT_DISK},
	{"cdrom", required_argument, NULL, OPT_CDROM},
	{"nic", required_argument, NULL, OPT_NIC},
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

static int set_memory_limit(struct run *r, const char *text, struct error *err)
{
	uint64_t *bytes = &r->config.memory.limit_bytes;

	if (parse_size("--memory-limit", text, bytes, err) < 0)
		return -EINVAL;
	if (*bytes < MEMORY_LIMIT_MIN)
		return error_set(err, -EINVAL, "--memory-limit %s: the least is 4M, as in 512M",
				 text);
	return 0;
}

static int set_memory_shares(struct run *r, const char *text, struct error *err)
{
	if (mem_parse_shares(text, &r->memory_shares))
		return 0;
	return error_set(err, -EINVAL,
			 "--memory-shares %s: it is low, normal, high or a number from 1 to %d",
			 text, MEM_SHARES_MAX);
}

static int set_memory_policy(struct run *r, const char *text, struct error *err)
{
	for (unsigned n = 0; n < MEM_POLICY_NR; n++) {
		if (!strcmp(text, mem_policy_names[n])) {
			r->config.memory.policy = (enum mem_policy)n;
			return 0;
		}
	}
	return error_set(err, -EINVAL, "--memory-policy %s: it is gen or fifo", text);
}

static int set_balloon(struct run *r, const char *text, struct error *err)
{
	for (unsigned n = 0; n < BALLOON_MODE_NR; n++) {
		if (!strcmp(text, balloon_mode_names[n])) {
			r->config.balloon = (enum balloon_mode)n;
			r->balloon_said = true;
			return 0;
		}
	}
	return error_set(err, -EINVAL, "--balloon %s: it is auto, off or none", text);
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
	case OPT_MEMORY_LIMIT:
		return set_memory_limit(r, optarg, err);
	case OPT_MEMORY_MIN:
		return parse_size("--memory-min", optarg, &r->memory_min, err);
	case OPT_MEMORY_SHARES:
		return set_memory_shares(r, optarg, err);
	case OPT_MEMORY_SHARE:
		r->config.memory.share = true;
		break;
	case OPT_MEMORY_POLICY:
		return set_memory_policy(r, optarg, err);
	case OPT_BALLOON:
		return set_balloon(r, optarg, err);
	case OPT_SWAP:
		r->swap_dir = optarg;
		break;
	case OPT_CPUS:
		return set_number("--cpus", BOARD_CPUS_MAX, &r->config.cpus, err);
	case OPT_DISK:
		return drives_add(&r->config.storage, "--disk", optarg, false, err);
	case OPT_CDROM:
		return drives_add(&r->config.storage, "--cdrom", optarg, true, err);
	case OPT_NIC:
		return nics_add(&r->config.nics, optarg, err);
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

/* What nobody said. */
static void set_defaults(struct run *r)
{
	if (!r->config.memory_bytes)
		r->config.memory_bytes = UINT64_C(512) << 20;
	if (!r->config.cpus)
		r->config.cpus = 1;
	if (!r->serial_spec[0])
		r->serial_spec[0] = "stdio";
	if (!r->swap_dir)
		r->swap_dir = getenv("TMPDIR");
	if (!r->swap_dir || !*r->swap_dir)
		r->swap_dir = "/var/tmp";
	r->config.memory.swap_dir = strcmp(r->swap_dir, "none") ? r->swap_dir : NULL;
}

void run_init(struct run *r)
{
	*r = (struct run){.lock_fd = -1, .report_fd = -1};
}

int run_parse(struct run *r, int argc, char **argv, bool needs_vm, struct error *err)
{
	int result = 0;

	for (;;) {
		int option = option_next(argc, argv, options, err);
		if (option != -1)
			result = set_option(r, option, err);
		else if (optind == argc)
			break;
		else if (r->vm_word)
			result = error_set(err, -EINVAL,
					   "%s: one machine at a time; %s was named before it",
					   argv[optind], r->vm_word);
		else
			r->vm_word = argv[optind++];
		if (result)
			return result;
	}
	if (!r->vm_word && needs_vm)
		return error_set(
			err, -EINVAL,
			"which machine? Name it by its folder, its .vmx file or its display "
			"name; `hanok ps --all` lists them");
	if (!r->vm_word && !r->config.boot.kernel_path)
		return error_set(
			err, -EINVAL,
			"what to run? Name a machine, or a kernel by --kernel FILE; --help "
			"shows examples");
	if (!r->vm_word)
		set_defaults(r);
	return 0;
}

int verb_run(int argc, char **argv)
{
	struct error err = {0};
	struct run r;

	run_init(&r);
	int parsed = run_parse(&r, argc, argv, false, &err);
	if (parsed > 0) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	if (parsed < 0)
		return fail(STATUS_USAGE, "%s", err.text);
	int status = run_to_end(&r, &err);
	if (err.text[0])
		fail(status, "%s", err.text);
	run_end_by_signal(&r);
	return status;
}
