# SPDX-License-Identifier: Apache-2.0
"""Disks: the same requests by the same guest under QEMU's TCG and under Hanok, and snapshots of a busy machine.

One machine of each is up all the time and they take turns, request pattern by request pattern, so that a noisy
host is noisy to both. src/diskio.c in the guest does what it is told over the console. All images lie in one
temporary folder on a real file system (--disk-folder), have the same random content, are as large as each other,
are written in pieces of 64 KiB and read through before anything is measured, so that all of them are in the
host's page cache, and in the same way:

  raw image      the very same file for both machines
  sparse VMDK    for each machine a copy of its own: both would change its tables
  chain of 8     a VMDK whose 64 KiB grains are spread evenly over the base and its 8 deltas. Reads are done
                 on a copy that nobody writes to, or all would soon be in the last delta; writes on others,
                 where all but the warm-up find their grains in the last delta: in the order of the warm-up,
                 which is why random writes and those in order have a copy each

The chain is made by taking 8 snapshots of a machine that runs, while its guest writes random blocks to a second
disk, 16 at a time. How long no request of the guest ended is the pause; how long its disks were held is in its
log.
"""

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import rootfs
import vm

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ABOUT = "4 KiB random, 1 MiB in order; raw, VMDK, a chain of 8; snapshots of a busy machine"
CHAIN = 8
PIECE_BYTES = 64 << 10
MODULES = "virtio_pci,virtio_blk,nvme,vmw_pvscsi,sd_mod"
READY, BEGIN, RESULT, FAILED = "diskio-ready", "diskio-begin", "diskio requests=", "diskio-failed"

# name: the order's words, whether it writes, whether requests a second are what is looked at (or MB/s)
PATTERNS = {
    "4K read q1": ("read random 4096 1", False, True),
    "4K read q16": ("read random 4096 16", False, True),
    "4K write q1": ("write random 4096 1", True, True),
    "4K write q16": ("write random 4096 16", True, True),
    "1M read": ("read order 1048576 4", False, False),
    "1M write": ("write order 1048576 4", True, False),
}

CHAIN_SUBJECT = "Hanok virtio-blk chain of 8"

# name: machine, what is read, what is written at random, what is written in order
SUBJECTS = {
    "TCG virtio-blk raw": ("tcg", "/dev/vda", "/dev/vda", "/dev/vda"),
    "Hanok virtio-blk raw": ("hanok", "/dev/vda", "/dev/vda", "/dev/vda"),
    "Hanok virtio-blk VMDK": ("hanok", "/dev/vdb", "/dev/vdb", "/dev/vdb"),
    CHAIN_SUBJECT: ("hanok", "/dev/vdc", "/dev/vdd", "/dev/vde"),
    "TCG virtio-blk VMDK": ("tcg", "/dev/vdb", "/dev/vdb", "/dev/vdb"),
    "Hanok pvscsi raw": ("hanok", "/dev/sda", "/dev/sda", "/dev/sda"),
    "Hanok nvme raw": ("hanok", "/dev/nvme0n1", "/dev/nvme0n1", "/dev/nvme0n1"),
}

# Of the second over the first: the rows of ratios.
RATIOS = [
    ("raw: Hanok over TCG", "TCG virtio-blk raw", "Hanok virtio-blk raw"),
    ("VMDK: Hanok over TCG", "TCG virtio-blk VMDK", "Hanok virtio-blk VMDK"),
    ("chain of 8 over TCG's raw", "TCG virtio-blk raw", "Hanok virtio-blk chain of 8"),
    ("pvscsi over TCG's virtio-blk", "TCG virtio-blk raw", "Hanok pvscsi raw"),
    ("nvme over TCG's virtio-blk", "TCG virtio-blk raw", "Hanok nvme raw"),
    ("VMDK over raw", "Hanok virtio-blk raw", "Hanok virtio-blk VMDK"),
    ("chain of 8 over VMDK", "Hanok virtio-blk VMDK", "Hanok virtio-blk chain of 8"),
]


class Guest:
    """A machine whose guest takes orders."""

    def __init__(self, command, limit_s, env=None):
        self.limit_s = limit_s
        self.child = vm.Child(command, stdin=subprocess.PIPE, env=env)
        self.wait_for(READY)

    def wait_for(self, *words):
        """The next line that has one of the words. Raises rootfs.Failed when the machine ends or hangs."""
        try:
            while (text := self.child.line(self.limit_s)) is not None:
                if FAILED in text:
                    raise rootfs.Failed(f"disks: {text}")
                if any(word in text for word in words):
                    return text
        except TimeoutError as error:
            raise rootfs.Failed(f"disks: the guest hangs: {error}") from error
        raise rootfs.Failed(f"disks: the machine ended early: {' | '.join(self.child.tail[-3:])}")

    def start(self, order):
        self.child.send(order + "\n")
        self.wait_for(BEGIN)
        return self.child.cpu_s(), time.monotonic()

    def finish(self, began):
        """{requests, wall, cpu (of the whole monitor, by the host's clocks), pause (by the guest's)}."""
        text = self.wait_for(RESULT)
        sample = {"cpu": self.child.cpu_s() - began[0], "wall": time.monotonic() - began[1]}
        told = dict(word.split("=") for word in text[text.index(RESULT):].split()[1:])
        return {**sample, "requests": int(told["requests"]), "pause": int(told["pause_ns"]) / 1e9}

    def order(self, text):
        return self.finish(self.start(text))

    def close(self):
        self.child.stop()


def guest_files(folder):
    """A kernel, and an initramfs with diskio as what it runs."""
    program = rootfs.compile_c("diskio", folder)
    done = subprocess.run(
        [os.path.join(TOP, "tools", "guest.sh"), "--name", "bench-disks", "--modules", MODULES,
         "--add", f"{program}=hanok-run", "cloud"], stdout=subprocess.PIPE, check=False)
    found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)
    if done.returncode or "kernel" not in found:
        raise rootfs.Failed("disks: tools/guest.sh cloud has no kernel with modules for the guests")
    return found["kernel"], found["initrd"]


def copy(source, target):
    """In pieces as large as a VMDK's grains: the page cache keeps a file in blocks as large as those it was
    written in, and what a small write costs grows with them (ext4 since Linux 6.16)."""
    with open(source, "rb") as old, open(target, "wb", buffering=0) as new:
        while piece := old.read(PIECE_BYTES):
            new.write(piece)


class Bench:
    def __init__(self, args, folder, say):
        self.args, self.folder, self.say = args, folder, say
        self.mib = 64 if args.quick else 256
        # Many short turns, all within one run of the machines: on a busy host the best one is what counts.
        self.ms = 200 if args.quick else 300
        self.turns = 5 * args.rounds
        self.kernel, self.initrd = guest_files(folder)
        self.append = "console=ttyS0 panic=-1 quiet"
        # The control socket must not mix with those of other machines, and its path must be short.
        self.runtime = tempfile.mkdtemp(prefix="hanok-bench-")
        self.env = {**os.environ, "XDG_RUNTIME_DIR": self.runtime}

    def close(self):
        shutil.rmtree(self.runtime, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def hanok(self, *words):
        return rootfs.run([self.args.hanok, *words], "disks", env=self.env)

    # ---- images ----

    def make_images(self):
        with open(self.path("raw.img"), "wb", buffering=0) as file:
            for _ in range(self.mib * (1 << 20) // PIECE_BYTES):
                file.write(os.urandom(PIECE_BYTES))
        for name in ("pvscsi.img", "nvme.img"):
            copy(self.path("raw.img"), self.path(name))
        self.hanok("disk", "convert", self.path("raw.img"), self.path("sparse.vmdk"))
        copy(self.path("sparse.vmdk"), self.path("tcg.vmdk"))

    def settle(self):
        """Everything is on the disk and in the page cache."""
        for folder, _, files in os.walk(self.folder):
            for name in files:
                with open(os.path.join(folder, name), "rb") as file:
                    os.fsync(file.fileno())
                    while file.read(1 << 20):
                        pass

    # ---- snapshots of a machine that runs ----

    def make_machine(self):
        folder = self.path("chain")
        os.mkdir(folder)
        copy(self.path("sparse.vmdk"), os.path.join(folder, "chain.vmdk"))
        copy(self.path("sparse.vmdk"), os.path.join(folder, "busy.vmdk"))
        words = {"displayName": "chain", "memsize": "512", "numvcpus": "1", "hanok.kernel": self.kernel,
                 "hanok.initrd": self.initrd, "hanok.append": self.append}
        for number, name in enumerate(("chain", "busy")):
            words[f"hanok.virtio{number}:0.present"] = "TRUE"
            words[f"hanok.virtio{number}:0.fileName"] = name + ".vmdk"
        path = os.path.join(folder, "chain.vmx")
        rootfs.write_stamp(path, "".join(f'{key} = "{value}"\n' for key, value in words.items()))
        return path

    def pause(self, guest, vmx, name):
        """One snapshot while the guest writes; name None: none. The guest's longest pause, and the command's time."""
        ms = 1500
        while True:
            began = guest.start(f"/dev/vdb write random 4096 16 {ms}")
            time.sleep(0.3)
            at = time.monotonic()
            if name:
                self.hanok("snapshot", "create", vmx, name)
            took = time.monotonic() - at
            inside = time.monotonic() - began[1] < ms / 1000
            sample = guest.finish(began)
            if inside or ms > 60000:
                return {"pause": sample["pause"], "command": took, "held": self.held(vmx) if name else 0,
                        "iops": sample["requests"] / sample["wall"]}
            # The guest may have stopped writing before the disks were held: once more, for longer.
            ms *= 4
            name += "-again"

    @staticmethod
    def held(vmx):
        """Of a pause, what the machine itself says to have made it, in seconds: the rest is the host's."""
        with open(vmx.removesuffix(".vmx") + ".log", encoding="utf-8") as file:
            return float(re.findall(r"disks were held for ([0-9.]+) ms", file.read())[-1]) / 1000

    def measure_snapshots(self):
        vmx = self.make_machine()
        guest = Guest([self.args.hanok, "run", vmx, "--engine", self.args.engine], self.args.limit, self.env)
        try:
            quiet = [self.pause(guest, vmx, None) for _ in range(3)]
            taken = []
            for number in range(1, CHAIN + 1):
                taken.append(self.pause(guest, vmx, f"s{number}"))
                guest.order(f"/dev/vda fill {number} {CHAIN + 1}")
                self.say(f"disks: snapshot {number}: a pause of {taken[-1]['pause'] * 1000:.1f} ms, "
                         f"the command {taken[-1]['command'] * 1000:.0f} ms")
            guest.child.send("end\n")
            with contextlib.suppress(rootfs.Failed):
                guest.wait_for("nothing more")
        finally:
            guest.close()
        return {"quiet": quiet, "taken": taken}

    def top_of_chain(self, folder):
        """The image that the machine wrote last, without which disk 0 would not be as it is."""
        with open(self.path(folder, "chain.vmx"), encoding="utf-8") as file:
            for line in file:
                if line.startswith("hanok.virtio0:0.fileName"):
                    return self.path(folder, line.split('"')[1])
        raise rootfs.Failed("disks: the machine has lost its disk")

    # ---- requests ----

    def start_tcg(self):
        words = ["qemu-system-x86_64", "-machine", self.args.qemu_machine, "-accel", "tcg", "-cpu", "max", "-m", "512",
                 "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-kernel", self.kernel,
                 "-initrd", self.initrd, "-append", self.append]
        for number, (name, form) in enumerate((("raw.img", "raw"), ("tcg.vmdk", "vmdk"))):
            # Hanok has the raw image open, too; nothing in it matters to anybody.
            words += ["-drive", f"if=none,id=d{number},format={form},file.locking=off,file.filename={self.path(name)}",
                      "-device", f"virtio-blk-pci,drive=d{number}"]
        return Guest(words, self.args.limit)

    def start_hanok(self):
        disks = [self.path("raw.img"), self.path("sparse.vmdk"), self.top_of_chain("chain") + ",readonly",
                 self.top_of_chain("chain-random"), self.top_of_chain("chain-order"),
                 self.path("pvscsi.img") + ",model=pvscsi", self.path("nvme.img") + ",model=nvme"]
        words = [self.args.hanok, "run", "--engine", self.args.engine, "--memory", "512M", "--no-reboot",
                 "--kernel", self.kernel, "--initrd", self.initrd, "--append", self.append]
        return Guest(words + [word for disk in disks for word in ("--disk", disk)], self.args.limit, self.env)

    def measure_requests(self):
        """{subject: {pattern: samples}}"""
        guests, samples = {}, {}
        try:
            guests["hanok"] = self.start_hanok()
            # All that a turn may reach is in the last delta, however far the warm-up comes.
            guests["hanok"].order(f"{SUBJECTS[CHAIN_SUBJECT][3]} fill 0 1")
            if "tcg" not in self.args.without:
                guests["tcg"] = self.start_tcg()
            for turn in range(self.turns + 1):
                for pattern in PATTERNS:
                    self.one_turn(guests, turn, pattern, samples)
        finally:
            for guest in guests.values():
                guest.close()
        return samples

    def one_turn(self, guests, turn, pattern, samples):
        """The first turn warms code and caches up, and does not count."""
        words, writes, _ = PATTERNS[pattern]
        done = {}
        # To and fro: who comes after whom must not matter.
        for subject in list(SUBJECTS)[:: 1 if turn % 2 else -1]:
            machine, source, random, ordered = SUBJECTS[subject]
            if machine not in guests:
                continue
            target = source if not writes else random if " random " in words else ordered
            sample = guests[machine].order(f"{target} {words} {self.ms}")
            if turn:
                samples.setdefault(subject, {}).setdefault(pattern, []).append(sample)
                done[subject] = f"{sample['requests'] / sample['wall']:.0f}"
        if done:
            rates = ", ".join(f"{subject} {done[subject]}" for subject in SUBJECTS if subject in done)
            self.say(f"disks: turn {turn}/{self.turns}: {pattern}, requests/s: {rates}")


def measure(args, say):
    """Everything about disks that goes into the JSON file. Raises rootfs.Failed."""
    with tempfile.TemporaryDirectory(prefix="hanok-bench-", dir=args.disk_folder) as folder:
        bench = Bench(args, folder, say)
        try:
            say(f"disks: making images of {bench.mib} MiB")
            bench.make_images()
            snapshots = bench.measure_snapshots()
            for name in ("chain-random", "chain-order"):
                shutil.copytree(bench.path("chain"), bench.path(name), copy_function=copy)
            bench.settle()
            return summarize(bench, bench.measure_requests(), snapshots)
        finally:
            bench.close()


# ---- the report ----


def summarize(bench, samples, snapshots):
    found = {"mib": bench.mib, "ms": bench.ms, "turns": bench.turns, "subjects": {}, "samples": samples}
    for subject in SUBJECTS:
        by_pattern = samples.get(subject)
        if not by_pattern:
            continue
        found["subjects"][subject] = {
            pattern: {"iops": statistics.median(s["requests"] / s["wall"] for s in taken),
                      "best_iops": max(s["requests"] / s["wall"] for s in taken),
                      "cpu_us": statistics.median(s["cpu"] / s["requests"] * 1e6 for s in taken)}
            for pattern, taken in by_pattern.items()}
    found["snapshots"] = {
        "pause_ms": statistics.median(s["pause"] for s in snapshots["taken"]) * 1000,
        "worst_pause_ms": max(s["pause"] for s in snapshots["taken"]) * 1000,
        "quiet_pause_ms": statistics.median(s["pause"] for s in snapshots["quiet"]) * 1000,
        "held_ms": statistics.median(s["held"] for s in snapshots["taken"]) * 1000,
        "worst_held_ms": max(s["held"] for s in snapshots["taken"]) * 1000,
        "command_ms": statistics.median(s["command"] for s in snapshots["taken"]) * 1000,
        "samples": snapshots,
    }
    return found


def ratio(found, key, below, above, pattern):
    """above over below, of iops, best_iops (more is better) or cpu_us (less is); None: not measured."""
    a, b = (found["subjects"].get(name, {}).get(pattern) for name in (below, above))
    if not a or not b:
        return None
    return a[key] / b[key] if key == "cpu_us" else b[key] / a[key]


def worst(found, key, below, above, patterns):
    """(ratio, pattern) where above is slowest against below; (None, "") when nothing was measured."""
    rows = [(ratio(found, key, below, above, p), p) for p in patterns] if found else []
    return min((row for row in rows if row[0] is not None), default=(None, ""))


def targets(found, target):
    """Rows of the report; target makes one. Against QEMU requests a second count, of the best turns: in elapsed
    time any other load on the host shows. Hanok against itself, which does both on the same thread, is compared
    by processor time."""
    small = [name for name, words in PATTERNS.items() if words[2]]
    rows = []
    for what, key, below, above, patterns, limit in (
            ("4 KiB requests/s over TCG", "best_iops", *RATIOS[0][1:], small, 2),
            ("sparse VMDK over raw", "cpu_us", *RATIOS[5][1:], PATTERNS, 0.9),
            ("chain of 8 over none", "cpu_us", *RATIOS[6][1:], PATTERNS, 0.8)):
        value, pattern = worst(found, key, below, above, patterns)
        rows.append(target(f"{what} (worst{': ' + pattern if pattern else ''})", value, limit, True, "x"))
    pause = found["snapshots"]["pause_ms"] if found else None
    rows.append(target("pause by a snapshot of a busy machine", pause, 50, False, " ms"))
    return rows


def shown(pattern, iops):
    """Requests a second; MB/s where requests are large."""
    words, _, small = PATTERNS[pattern]
    return f"{iops:.0f}" if small else f"{iops * int(words.split()[2]) / 1e6:.0f}"


def lines(found):
    """The tables as text."""
    def head(text):
        return f"{text:32}" + "".join(f"{name:>13}" for name in PATTERNS)

    def row(name, cells):
        return f"{name:32}" + "".join(f"{cell:>13}" for cell in cells)

    subjects, text = found["subjects"], []
    for key, title in (("iops", "disks: requests/s, 1M: MB/s"), ("best_iops", "the same, best turn")):
        text += [head(title)]
        text += [row(name, [shown(p, by[p][key]) for p in PATTERNS]) for name, by in subjects.items()] + [""]
    text += [head("processor time, us a request")]
    text += [row(name, [f"{by[p]['cpu_us']:.1f}" for p in PATTERNS]) for name, by in subjects.items()]
    for key, title in (("iops", "ratios"), ("best_iops", "ratios, best turn"), ("cpu_us", "ratios, processor time")):
        text += ["", head(title)]
        for name, below, above in RATIOS:
            values = [ratio(found, key, below, above, p) for p in PATTERNS]
            if any(values):
                text.append(row(name, ["-" if v is None else f"{v:.2f}" for v in values]))
    s = found["snapshots"]
    text += ["", f"snapshot of a busy machine: its requests pause {s['pause_ms']:.1f} ms (worst "
             f"{s['worst_pause_ms']:.1f}; without a snapshot {s['quiet_pause_ms']:.1f}); the disks are held "
             f"{s['held_ms']:.1f} ms (worst {s['worst_held_ms']:.1f}); the command takes {s['command_ms']:.0f} ms"]
    return text
