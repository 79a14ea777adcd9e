# SPDX-License-Identifier: Apache-2.0
"""Runs workloads natively and in virtual machines, and measures from outside what each took.

The runner (src/runner.c) prints a line when a workload begins and one when it has ended. For a machine, the
processor time of the whole monitor process between the two is what counts: it holds everything the guest
made the host do, and it stays true on a host that others use, where a guest's own clock runs on while the
guest does not.
"""

import os
import re
import select
import signal
import subprocess
import time

RESULT = re.compile(
    r"bench (\S+) cpu=([\d.]+) wall=([\d.]+) status=(\d+) bytes=(\d+) check=([0-9a-f]{16}) out=(\S*)"
)
BEGIN = re.compile(r"bench-begin (\S+)")
END = "bench-end"
CRASH = ("Kernel panic", "Oops:", "BUG:")
TAIL_LINES = 8


def process_cpu_s(pid):
    """User and system time of a process and its threads, to the nanosecond.

    The clock's number is made as MAKE_PROCESS_CPUCLOCK in Linux's posix-timers.h makes it.
    """
    return time.clock_gettime((~pid << 3) | 2)


class Child:
    """A process whose lines are read with a time limit for each."""

    def __init__(self, command, affinity=None, stdin=subprocess.DEVNULL, env=None):
        def settle():
            os.setsid()
            if affinity:
                os.sched_setaffinity(0, affinity)

        self.start = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=settle, bufsize=0, env=env)
        self.pid = self.process.pid
        self.rest = b""
        self.tail = []

    def line(self, limit_s):
        """The next line, or None at the end. Raises TimeoutError without one after limit_s of processor
        time, or three times that of elapsed time: the host may be busy, or the machine may sleep for ever."""
        cpu, deadline = self.cpu_s() + limit_s, time.monotonic() + 3 * limit_s
        fd = self.process.stdout.fileno()
        while b"\n" not in self.rest:
            ready, _, _ = select.select([fd], [], [], 1)
            if not ready:
                if self.cpu_s() > cpu or time.monotonic() > deadline:
                    raise TimeoutError(f"nothing for {limit_s:.0f} s")
                continue
            data = os.read(fd, 65536)
            if not data:
                return None
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        text = line.decode(errors="replace").strip()
        self.tail = (self.tail + [text])[-TAIL_LINES:] if text else self.tail
        return text

    def send(self, text):
        """Types text, when stdin is a pipe. Nothing happens when nobody reads any more: line() says so."""
        try:
            self.process.stdin.write(text.encode())
        except BrokenPipeError:
            pass

    def cpu_s(self):
        try:
            return process_cpu_s(self.pid)
        except OSError:
            return 0.0

    def stop(self):
        """Ends it and whatever it started; returns its exit status."""
        if self.process.poll() is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process.stdin:
            self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()


def read_results(child, names, limit_s, is_vm, progress):
    """Reads until bench-end. Returns ({name: sample}, name that did not end or None, why, memory)."""
    samples, current, began, memory = {}, None, (0, 0), None
    try:
        while (text := child.line(limit_s)) is not None:
            if match := BEGIN.search(text):
                current, began = match[1], (child.cpu_s(), time.monotonic())
            elif match := RESULT.search(text):
                name = match[1]
                sample = sample_of(match)
                if is_vm:
                    sample["guest_cpu"], sample["guest_wall"] = sample["cpu"], sample["wall"]
                    sample["cpu"] = child.cpu_s() - began[0]
                    sample["wall"] = time.monotonic() - began[1]
                if name in names:
                    samples[name] = sample
                    progress(name, sample)
                current = None
            elif text == END:
                memory = memory_of(child.pid) if is_vm else None
                return samples, None, None, memory
            elif is_vm and any(word in text for word in CRASH):
                return samples, current, text, memory
        why = f"ended early: {' | '.join(child.tail[-3:])}"
    except TimeoutError as error:
        why = f"hung: {error}"
    return samples, current, why, memory


def sample_of(match):
    sample = {"cpu": float(match[2]), "wall": float(match[3]), "check": match[6], "out": match[7]}
    if int(match[4]):
        sample["error"] = f"exit status {match[4]}"
    return sample


def run_group(make_command, names, limit_s, is_vm, progress, affinity=None):
    """Runs all names, starting again behind one that hangs or crashes its machine.

    make_command: names -> argument list. Returns ({name: sample with cpu, wall and check, or error},
    memory or None).
    """
    samples, left, memory = {}, list(names), None
    while left:
        child = Child(make_command(left), affinity)
        try:
            got, stuck, why, seen = read_results(child, left, limit_s, is_vm, progress)
        finally:
            child.stop()
        samples.update(got)
        memory = seen or memory
        if why is None:
            for name in left:
                samples.setdefault(name, {"error": "the runner did not run it"})
            break
        # Nothing ran: there is no workload to blame, so all that is left has failed.
        blamed = [stuck] if stuck in left else [] if got else list(left)
        for name in blamed:
            samples[name] = {"error": why}
            progress(name, samples[name])
        left = [name for name in left if name not in samples]
    return samples, memory


def memory_of(pid):
    """Where a monitor's memory is, in bytes: the guest's RAM, code made for it, and all the rest."""
    found = {"guest": 0, "code": 0, "rest": 0}
    sizes, kind = [], "rest"
    try:
        with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    header = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")
    for line in lines:
        if match := header.match(line):
            bytes_ = int(match[2], 16) - int(match[1], 16)
            kind = mapping_kind(bytes_, match[3], match[4])
        elif line.startswith("Pss:"):
            sizes.append((kind, int(line.split()[1]) * 1024))
    for kind, bytes_ in sizes:
        found[kind] += bytes_
    return found


LARGE = 512 << 20  # no mapping but guest RAM is that large and without a file


def mapping_kind(bytes_, access, name):
    """RAM is known by its name or its size. Hanok's code and what it knows of it are shared memory; QEMU's code is writable."""
    if name.startswith("/memfd:hanok-ram") or (not name and "x" not in access and bytes_ >= LARGE):
        return "guest"
    if name.startswith("/dev/zero") or (not name and access.startswith("rwx")):
        return "code"
    return "rest"


def boot(command, line, limit_s, idle_s):
    """Starts a machine; returns {wall, cpu} up to the line, and with idle_s what it takes when idle."""
    child = Child(command)
    try:
        while (text := child.line(limit_s)) is not None:
            if line in text:
                break
        else:
            return {"error": f"ended early: {' | '.join(child.tail[-3:])}"}
        result = {"wall": time.monotonic() - child.start, "cpu": child.cpu_s()}
        if idle_s:
            time.sleep(3)
            cpu, wall = child.cpu_s(), time.monotonic()
            time.sleep(idle_s)
            result["idle"] = (child.cpu_s() - cpu) / (time.monotonic() - wall)
            result["memory"] = memory_of(child.pid)
        return result
    except TimeoutError as error:
        return {"error": f"hung: {error}"}
    finally:
        child.stop()
