# SPDX-License-Identifier: Apache-2.0
"""Memory that does not fit: a guest under `--memory-limit` beside the same program on the host, swapped by the
host's kernel.

src/paging.c touches pages in a pattern, over twice as much memory as there is room for. Natively it runs in a
memory cgroup with a swap file of the kernel's on the same file system; in a guest, under a limit that is larger
by what the guest's own kernel keeps in memory. They take turns. Needs root, for cgroups and swapon; the file is
taken away again.

    python3 bench/pressure.py [--mib 256] [--turns 3] [--folder DIR] [--json FILE]
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

import rootfs

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINE = re.compile(r"paging \S+ \d+: \d+ accesses in [\d.]+ s: (\d+) per second \((\w+)\)")
ACCESSES = {"zipf": 1500000, "seq": 400000, "random": 200000}


def check(done, what):
    if done.returncode:
        sys.exit(f"pressure: {what}: {(done.stderr or done.stdout or '').strip()[-400:]}")
    return done.stdout


def build(folder):
    try:
        return rootfs.compile_c("paging", folder)
    except rootfs.Failed as error:
        sys.exit(f"pressure: {error}")


def guest(program):
    out = check(subprocess.run([os.path.join(TOP, "tools/guest.sh"), "--name", "bench-paging", "--add",
                                f"{program}=/bin/paging", "cloud"], capture_output=True, text=True), "the guest")
    return dict(line.split("=", 1) for line in out.splitlines())


def run_guest(kit, command, options):
    """Rate and checksum of a command in the guest, and what the manager says; the rate of `true` is None."""
    done = subprocess.run(
        [os.path.join(TOP, "build/hanok"), "run", "--kernel", kit["kernel"], "--initrd", kit["initrd"],
         "--balloon", "off", "--append", f'console=ttyS0 quiet hanok.run="{command}"', "--stats", *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    text = done.stdout + done.stderr
    if done.returncode or "hanok-guest: status 0" not in text:
        sys.exit(f"pressure: {command} in the guest: {text[-600:]}")
    return LINE.search(text), text


def own_mib(kit, mib):
    """What the guest keeps in memory besides the program's pages."""
    _, text = run_guest(kit, "true", ["--memory", f"{2 * mib + 128}M", "--memory-limit", f"{4 * mib}M"])
    return float(re.search(r"memory manager: ([\d.]+) of", text)[1])


@contextlib.contextmanager
def swap_file(folder, mib):
    path = os.path.join(folder, "swap")
    with open(path, "wb") as f:
        for _ in range(mib):
            f.write(bytes(1 << 20))
        os.fsync(f.fileno())
    os.chmod(path, 0o600)
    check(subprocess.run(["mkswap", path], capture_output=True, text=True), "mkswap")
    check(subprocess.run(["swapon", path], capture_output=True, text=True), "swapon")
    try:
        yield
    finally:
        subprocess.run(["swapoff", path], check=False)


@contextlib.contextmanager
def cgroup(mib):
    """A memory cgroup with a limit: version 1 or 2, as the host has it. Yields the file to join by."""
    name = f"hanok-pressure-{os.getpid()}"
    v1 = os.path.isdir("/sys/fs/cgroup/memory")
    path = os.path.join("/sys/fs/cgroup/memory" if v1 else "/sys/fs/cgroup", name)
    os.mkdir(path)
    try:
        limit = "memory.limit_in_bytes" if v1 else "memory.max"
        with open(os.path.join(path, limit), "w") as f:
            f.write(str(mib << 20))
        if v1:
            with open(os.path.join(path, "memory.swappiness"), "w") as f:
                f.write("100")
        yield os.path.join(path, "cgroup.procs")
    finally:
        os.rmdir(path)


def run_native(program, words, procs):
    done = subprocess.run(["sh", "-c", f'echo $$ > {procs} && exec "$@"', "sh", program, *words],
                          capture_output=True, text=True)
    return LINE.search(check(done, "paging on the host"))


def measure(args, say):
    if os.geteuid():
        sys.exit("pressure: it needs root: cgroups and swapon")
    rows = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        program = build(folder)
        kit = guest(program)
        room = args.mib // 2
        own = args.own if args.own is not None else own_mib(kit, args.mib)
        say(f"room for {room} MiB of {args.mib}; the guest's own {own:.0f} MiB come on top")
        with swap_file(folder, 4 * args.mib), cgroup(room) as procs:
            for pattern in args.only or ACCESSES:
                words = [pattern, str(args.mib), str(ACCESSES[pattern]), "1"]
                words += ["random"] if args.random else []
                rows[pattern] = {"host": [], "guest": []}
                for turn in range(args.turns):
                    host = run_native(program, words, procs)
                    options = ["--memory", f"{2 * args.mib + 128}M", "--swap", folder, "--memory-limit",
                               f"{int(room + own)}M"]
                    machine, text = run_guest(kit, "paging " + " ".join(words), options)
                    if host[2] != machine[2]:
                        sys.exit(f"pressure: {pattern}: the sums differ")
                    rows[pattern]["host"].append(int(host[1]))
                    rows[pattern]["guest"].append(int(machine[1]))
                    say(f"{pattern} {turn + 1}: host {host[1]}, guest {machine[1]} a second; "
                        + re.search(r"pages out: [^\n]*", text)[0])
    return rows


def main():
    parser = argparse.ArgumentParser(description="Memory that does not fit, beside the host's own swapping.")
    parser.add_argument("--mib", type=int, default=256, help="what the program touches (256)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", default="/var/tmp", help="where both swap files go")
    parser.add_argument("--own", type=int, help="MiB of room for the guest's own (what it has touched at its end)")
    parser.add_argument("--random", action="store_true", help="contents that do not compress")
    parser.add_argument("--only", action="append", choices=list(ACCESSES))
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = measure(args, lambda text: print(f"# {text}", flush=True))
    print(f"{'pattern':8} {'host/s':>10} {'Hanok/s':>10} {'ratio':>6}")
    for pattern, row in rows.items():
        host, machine = statistics.median(row["host"]), statistics.median(row["guest"])
        print(f"{pattern:8} {host:10.0f} {machine:10.0f} {machine / host:6.2f}")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
