#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares Hanok with the bare host and with QEMU's TCG; see docs/BENCHMARKS.md.

The same programs from the same root run natively, under QEMU and under Hanok in turn, several rounds. What
they print must be equal; what is reported are medians.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys

import chart
import disks
import host
import network
import report
import rootfs
import vm
import workloads

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(TOP, "bench", "results")
APPEND = "console=ttyS0 panic=-1"
FIRST_LINE = "hanok-guest: init"
BOOTS = 3  # each round


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Environments:
    """How each environment is started."""

    def __init__(self, args, roots, kernel, initrd):
        self.args = args
        self.roots = roots
        self.kernel = kernel
        self.boot_initrd = initrd
        self.names = [name for name in ("native", "tcg", "hanok") if name not in args.without]

    def machine(self, name, cpus, initrd, append):
        guest = ["-kernel", self.kernel, "-initrd", initrd, "-append", append]
        if name == "tcg":
            return ["qemu-system-x86_64", "-machine", self.args.qemu_machine, "-accel", "tcg", "-cpu", "max",
                    "-m", self.args.memory, "-smp", str(cpus), "-nodefaults", "-nographic", "-no-reboot",
                    "-serial", "stdio"] + guest
        return [self.args.hanok, "run", "--engine", self.args.engine, "--memory", self.args.memory,
                "--cpus", str(cpus), "--no-reboot"] + ["-" + word if word[0] == "-" else word for word in guest]

    def group_command(self, name, group):
        """A function: names -> the command that runs them."""
        size = "quick" if self.args.quick else "full"
        root, initrd = self.roots[group.root]

        def native(names):
            return host.in_root(root, ["/bench/runner", size, ",".join(names)])

        def guest(names):
            append = f"{APPEND} quiet hanok.bench={','.join(names)} hanok.bench_size={size}"
            return self.machine(name, group.cpus, initrd, append)

        return native if name == "native" else guest

    def boot_command(self, name):
        return self.machine(name, 1, self.boot_initrd, APPEND)


def options():
    parser = argparse.ArgumentParser(
        description="Run the same programs natively, under QEMU's TCG and under Hanok, and compare.",
        epilog="`--only disk` compares disks: the same requests to the same files by the same guest. The two "
               "machines run side by side and take turns; the image files are in the page cache. "
               "`--only network` compares networks, in the same way.")
    add = parser.add_argument
    add("--only", metavar="NAME,...", help="only these workloads (--list names them) or groups")
    add("--quick", action="store_true", help="small sizes and one round: a few minutes")
    add("--rounds", type=int, metavar="N", help="rounds through all environments (3; 1 with --quick)")
    add("--list", action="store_true", help="list the workloads and end")
    add("--engine", default="bt", help="Hanok's engine (bt)")
    add("--hanok", default=os.environ.get("HANOK", os.path.join(TOP, "build", "hanok")), metavar="FILE")
    add("--memory", default="2G", metavar="SIZE", help="of each guest (2G)")
    add("--qemu-machine", default="q35", metavar="NAME", help="QEMU's -machine (q35)")
    add("--no-qemu", dest="without", action="append_const", const="tcg", help="leave QEMU out")
    add("--no-native", dest="without", action="append_const", const="native", help="leave the host out")
    add("--disk-folder", default="/var/tmp", metavar="FOLDER",
        help="where the images of `disk` lie while it runs: a real file system with 4 GiB to spare (/var/tmp)")
    add("--limit", type=float, default=120, metavar="S",
        help="processor time, or a third of elapsed time, after which a workload has failed (120)")
    add("--json", default=os.path.join(RESULTS, "bench.json"), metavar="FILE", help="where results go")
    add("--svg", default=os.path.join(RESULTS, "bench.svg"), metavar="FILE", help="where the chart goes")
    args = parser.parse_args()
    args.without = args.without or []
    args.rounds = args.rounds or (1 if args.quick else 3)
    if args.rounds < 1:
        parser.error("--rounds: it must be at least 1")
    args.selected = selected(parser, args.only)
    return args


def selected(parser, only):
    """The set of workload names that --only asks for."""
    if not only:
        return set(workloads.names())
    chosen = set()
    for word in only.split(","):
        members = {w.name for w in workloads.WORKLOADS if word in (w.group, w.category)}
        if word in workloads.names():
            members.add(word)
        if not members:
            parser.error(f"--only {word}: no such workload, group or category; --list names them")
        chosen |= members
    return chosen


def print_list():
    for w in workloads.WORKLOADS:
        print(f"{w.name:15} {w.group:5} {w.category:8} {w.about}")
    for name, about in workloads.MACHINE.items():
        print(f"{name:15} {'':5} {'machine':8} {about}")
    print(f"{workloads.DISK:15} {'':5} {'disk':8} {disks.ABOUT}")
    print(f"{workloads.NETWORK:15} {'':5} {'network':8} {network.ABOUT}")


def guest_files():
    """Kernel and small initramfs, from tools/guest.sh."""
    done = subprocess.run([os.path.join(TOP, "tools", "guest.sh"), "cloud"], stdout=subprocess.PIPE, check=False)
    found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)
    if done.returncode or "kernel" not in found:
        raise rootfs.Failed("tools/guest.sh cloud has no kernel for the guests")
    return found["kernel"], found["initrd"]


def check_tools(args):
    """Leaves out what cannot run here, and says so."""
    if not os.access(args.hanok, os.X_OK):
        raise rootfs.Failed(f"{args.hanok}: no such program; `make` builds it, --hanok FILE or HANOK= names another")
    if "tcg" not in args.without and not shutil.which("qemu-system-x86_64"):
        say("no qemu-system-x86_64 (package qemu-system-x86): going on without QEMU")
        args.without.append("tcg")
    if "native" not in args.without:
        probe = subprocess.run(host.in_root("/", ["/bin/true"]), capture_output=True, check=False)
        if probe.returncode:
            say(f"{host.HINT}: going on without native runs")
            args.without.append("native")


class Record:
    """All samples: workload -> environment -> list of samples."""

    def __init__(self, chosen):
        self.samples = {w.name: {} for w in workloads.WORKLOADS if w.name in chosen}
        self.boots = {}
        self.memory = {}
        self.disks = None
        self.network = None

    def add(self, name, environment, sample):
        self.samples[name].setdefault(environment, []).append(sample)


def run_groups(args, environments, record, round_number):
    for group in workloads.GROUPS:
        names = [w.name for w in workloads.WORKLOADS if w.group == group.name and w.name in args.selected]
        for environment in environments.names if names else []:
            where = f"round {round_number}/{args.rounds} {environment}"

            def progress(name, sample, where=where):
                text = sample.get("error") or f"{sample['cpu']:.2f} s (elapsed {sample['wall']:.2f})"
                say(f"{where}: {name}: {text}")

            affinity = host.one_cpu() if environment == "native" and group.cpus == 1 else None
            samples, memory = vm.run_group(
                environments.group_command(environment, group), names, args.limit,
                environment != "native", progress, affinity)
            for name, sample in samples.items():
                record.add(name, environment, sample)
            if memory:
                record.memory.setdefault(environment, {})[group.name] = memory


def run_boots(args, environments, record, round_number):
    if not args.selected & set(workloads.MACHINE):
        return
    for turn in range(BOOTS if "boot" in args.selected and not args.quick else 1):
        for environment in environments.names:
            if environment == "native":
                continue
            idle_s = 0
            if "idle" in args.selected and turn == 0:
                idle_s = 4 if args.quick else 10
            sample = vm.boot(environments.boot_command(environment), FIRST_LINE, args.limit, idle_s)
            record.boots.setdefault(environment, []).append(sample)
            text = sample.get("error") or f"{sample['wall']:.2f} s, {sample['cpu']:.2f} s of processor time"
            if "idle" in sample:
                text += f"; idle {sample['idle']:.2%}"
            say(f"round {round_number}/{args.rounds} {environment}: boot: {text}")


def first_line(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.stdout.decode(errors="replace").splitlines()[0]
    except (OSError, IndexError):
        return None


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        fields = dict(tuple(part.strip() for part in line.split(":", 1)) for line in file if ":" in line)
    return (f"{fields.get('model name', '?')} (family {fields.get('cpu family')}, model {fields.get('model')})")


def describe(args, environments):
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "host_kernel": platform.release(),
        "guest_kernel": os.path.basename(environments.kernel),
        "qemu": first_line(["qemu-system-x86_64", "--version"]) if "tcg" in environments.names else None,
        "qemu_machine": args.qemu_machine,
        "hanok": first_line([args.hanok, "--version"]),
        "engine": args.engine,
        "memory": args.memory,
        "size": "quick" if args.quick else "full",
        "rounds": args.rounds,
    }


def write(path, text):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    say(f"wrote {path}")


def measure(args):
    check_tools(args)
    roots = rootfs.prepare() if args.selected - {workloads.DISK, workloads.NETWORK} else {}
    environments = Environments(args, roots, *guest_files())
    record = Record(args.selected)
    if workloads.DISK in args.selected:
        record.disks = disks.measure(args, say)
    if workloads.NETWORK in args.selected:
        record.network = network.measure(args, say)
    for round_number in range(1, args.rounds + 1):
        run_boots(args, environments, record, round_number)
        run_groups(args, environments, record, round_number)
    return report.summarize(describe(args, environments), record)


def main():
    args = options()
    if args.list:
        print_list()
        return 0
    try:
        results = measure(args)
    except rootfs.Failed as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    print(report.table(results))
    write(args.json, json.dumps(results, indent=1) + "\n")
    write(args.svg, chart.draw(results))
    # Speed is a figure, not a test; wrong output and a workload that did not end are failures.
    return 1 if report.failures(results) else 0


if __name__ == "__main__":
    sys.exit(main())
