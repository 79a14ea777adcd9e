# SPDX-License-Identifier: Apache-2.0
"""Whole-program tests: what they share.

The tests run the program that HANOK names (build/hanok), once for each engine in HANOK_ENGINES ("bt,interp",
or one of them). Guests come from tools/guest.sh. HANOK_TIMEOUT_SCALE stretches every waiting
time, for sanitizers and slow machines. A test marked `slow` belongs to `make check-slow`.

Vm is a guest on a terminal: it boots, is typed at, and ends.
"""

import hashlib
import json
import os
import re
import subprocess
import termios
from pathlib import Path
from typing import NamedTuple

import pexpect
import pytest

TOP = Path(__file__).parent.parent
TIMEOUT_SCALE = float(os.environ.get("HANOK_TIMEOUT_SCALE", "1"))
ENGINES = [name for name in os.environ.get("HANOK_ENGINES", "bt,interp").split(",") if name]

# From the start to the shell: the longest one may wait, with another test beside it.
BOOT_SECONDS = 300
COMMAND_SECONDS = 60
END_SECONDS = 60


# On the interpreter these take a fifth of all the time and say little that others do not.
LONG_ON_INTERP = (
    "test_boot.py::Test686", "test_boot.py::TestCloudTwoCpus", "test_gdb.py::test_linux", "test_vm.py::test_run["
)  # fmt: skip
# Of these, which boot a kernel each, `make check` runs one model or two of the three.
LONG = (
    "test_nic.py::test_interpreter[e1000", "test_nic.py::test_interpreter[vmxnet3", "test_forwards[e1000",
    "test_capture_on_nat[e1000", "test_capture_on_nat[vmxnet3", "test_jumbo[vmxnet3", "test_two_guests[vmxnet3",
    "test_storage.py::test_host_is_full[nvme",
)  # fmt: skip


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: long; `make check-slow` runs it, `make check` does not")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        on_interp = "[interp" in item.nodeid and any(name in item.nodeid for name in LONG_ON_INTERP)
        if on_interp or any(name in item.nodeid for name in LONG):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def hanok():
    """The program under test."""
    path = Path(os.environ.get("HANOK", TOP / "build/hanok")).resolve()
    if not path.is_file():
        pytest.fail(f"{path} is not there: run `make` first, or name the program in HANOK")
    return path


@pytest.fixture(scope="session", params=ENGINES)
def engine(request):
    """The name of an engine, for --engine; what uses it is run once for each."""
    return request.param


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """tests/cli_guest.S, assembled: a guest that does what the letters of its command line say."""
    path = tmp_path_factory.mktemp("kernel") / "guest.elf"
    subprocess.run(
        ["gcc", "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,-N,-Ttext=0x100000,--build-id=none"]
        + ["-Wl,-z,noexecstack", "-o", path, TOP / "tests/cli_guest.S"],
        check=True,
        capture_output=True,
    )
    return path


class Guest(NamedTuple):
    """A kernel and an initramfs on the host."""

    name: str
    kernel: Path
    initrd: Path


class Result(NamedTuple):
    """What a command in the guest printed, without the last newline, and its exit status."""

    output: str
    status: int


@pytest.fixture(scope="session")
def guest():
    """A function: the name of a guest, as in tools/guest.sh, -> Guest. Each is fetched once.

    modules ("virtio_blk,ext4"), programs of the host (with their libraries) and other files (FILE=PATH) are
    put into its initramfs.
    """
    ready = {}

    def fetch(name, modules="", programs=(), add=()):
        key = (name, modules, tuple(map(str, programs)), tuple(map(str, add)))
        if key not in ready:
            options = ["--modules", modules] if modules else []
            options += [word for program in programs for word in ("--program", program)]
            options += [word for file in add for word in ("--add", file)]
            if options:
                options += ["--name", "test-" + hashlib.sha256(repr(key).encode()).hexdigest()[:12]]
            result = subprocess.run(
                [TOP / "tools/guest.sh", *options, name], capture_output=True, text=True, check=False
            )
            if result.returncode != 0:
                reason = f"tools/guest.sh {name}: {result.stderr.strip().splitlines()[-1]}"
                # Someone without a network still wants the other tests; CI wants them all.
                (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
            answer = dict(line.split("=", 1) for line in result.stdout.splitlines())
            ready[key] = Guest(name, Path(answer["kernel"]), Path(answer["initrd"]))
        return ready[key]

    return fetch


def run_hanok(hanok, *arguments, timeout=30):
    """Run hanok without a terminal, to its end. Returns subprocess's result, with text."""
    return subprocess.run(
        [hanok, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout * TIMEOUT_SCALE,
        check=False,
    )


def error_line(result):
    """The one line that hanok says why in."""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, f"not one line of error: {result.stderr!r}"
    return lines[0]


class Vm:
    """hanok on a terminal of its own.

    vm = Vm(hanok, ["run", "--kernel", ...], log)
    vm.boot()                       # to the shell of tools/initrd/init
    vm.run("uname -m").output       # 'x86_64'
    vm.start("poweroff"); vm.end()  # the exit status of hanok
    vm.close()                      # whatever happened before; may be called twice

    Everything the terminal showed is in the file `log`, and its end in the message of a failure.
    """

    def __init__(self, hanok, arguments, log):
        self.log = log
        self.sequence = 0
        self.closed = False
        self.log_file = open(log, "w", encoding="utf-8", errors="replace")
        self.child = pexpect.spawn(
            str(hanok),
            [str(argument) for argument in arguments],
            encoding="utf-8",
            codec_errors="replace",
            echo=False,
            dimensions=(24, 200),
            timeout=COMMAND_SECONDS * TIMEOUT_SCALE,
        )
        self.child.logfile_read = self.log_file
        self.child.delaybeforesend = None

    def shown(self, lines=40):
        """The last lines the terminal showed."""
        self.log_file.flush()
        text = re.sub("\r+\n", "\n", self.log.read_bytes().decode("utf-8", "replace"))
        return "\n".join(text.splitlines()[-lines:])

    def expect(self, pattern, timeout=COMMAND_SECONDS):
        """Wait for a regular expression; returns its match, or fails with what was shown instead."""
        found = self.child.expect(
            [pattern, pexpect.EOF, pexpect.TIMEOUT], timeout=timeout * TIMEOUT_SCALE
        )
        if found == 0:
            return self.child.match
        if found == 1:
            self.child.wait()
            what = f"hanok ended ({self.ending()})"
        else:
            what = f"{timeout * TIMEOUT_SCALE:.0f} s went by"
        raise AssertionError(f"{what} before {pattern!r} was shown; the end of {self.log}:\n{self.shown()}")

    def boot(self):
        """Wait for the guest's shell and quieten it: no echo, no prompt, no kernel messages."""
        self.expect(r"hanok-guest: init\r*\n", BOOT_SECONDS)
        self.expect(r"root@hanok:.*# ")
        # What is typed is still echoed: the quotes keep the echo from being taken for the answer.
        self.child.sendline("dmesg -n 1; stty -echo; PS1=; echo hanok-'quiet'")
        self.expect(r"hanok-quiet\r*\n")

    def start(self, command):
        """Type a command and do not wait for it."""
        self.child.sendline(command)

    def run(self, command, timeout=COMMAND_SECONDS):
        """Run a command of the shell; returns a Result."""
        self.sequence += 1
        mark = f"hanok-status:{self.sequence}"
        self.start(f"{command}\necho {mark}:$?")
        match = self.expect(rf"{mark}:(\d+)\r*\n", timeout)
        output = re.sub("\r+\n", "\n", self.child.before).strip("\r\n")
        return Result(output, int(match[1]))

    def output(self, command, timeout=COMMAND_SECONDS):
        """What a command printed; it has to succeed."""
        result = self.run(command, timeout)
        assert result.status == 0, f"{command!r} in the guest: status {result.status}: {result.output}"
        return result.output

    def end(self, timeout=END_SECONDS):
        """Wait until hanok ends by itself; returns its exit status, as a shell would give it."""
        found = self.child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=timeout * TIMEOUT_SCALE)
        if found == 1:
            waited = f"{timeout * TIMEOUT_SCALE:.0f} s"
            raise AssertionError(f"hanok still runs after {waited}; the end of {self.log}:\n{self.shown()}")
        self.child.wait()
        return self.child.exitstatus if self.child.signalstatus is None else 128 + self.child.signalstatus

    def terminal(self):
        """The settings of the terminal that hanok runs on, as termios.tcgetattr gives them."""
        return termios.tcgetattr(self.child.child_fd)

    def ending(self):
        if self.child.signalstatus is not None:
            return f"signal {self.child.signalstatus}"
        return f"exit status {self.child.exitstatus}"

    def close(self):
        if not self.closed:
            self.closed = True
            self.child.close(force=True)
            self.log_file.close()


# What a healthy kernel does not say. QEMU, with the same kernel, may say some of it too.
TROUBLE = re.compile(
    r"WARNING|Call Trace|BUG|unchecked MSR|Oops|general protection|stack segment|invalid opcode"
    r"|soft lockup|hard LOCKUP|rcu.*stall|hung task|self-detected|Firmware Bug|MP-BIOS bug"
    r"|ACPI (BIOS )?(Error|Warning)|nobody cared|No irq handler|spurious|Marking .* unstable|timed out"
)


def trouble_of(dmesg):
    """The troubled lines of a kernel log, without their time stamps and with every number as N."""
    lines = set()
    for line in dmesg.splitlines():
        if TROUBLE.search(line):
            line = re.sub(r"^\s*(<\d+>)?\[[^]]*\]\s*", "", line.strip())
            lines.add(re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "N", line))
    return lines


@pytest.fixture(scope="session")
def qemu_trouble(tmp_path_factory):
    """A function: Guest and number of CPUs -> the troubled lines that QEMU's own TCG gives.

    One boot under QEMU, kept beside the guests for as long as kernel, initramfs and QEMU stay the same.
    Empty where QEMU is not installed.
    """

    def look(guest, cpus):
        try:
            version = subprocess.run(
                ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            return set()
        identity = [version, guest.kernel.name, guest.kernel.stat().st_size, cpus, TROUBLE.pattern]
        identity.append(hashlib.sha256(guest.initrd.read_bytes()).hexdigest())
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        kept = guest.kernel.parent / f"qemu-{key}.json"
        if not kept.exists():
            console = tmp_path_factory.mktemp("qemu") / "console"
            subprocess.run(
                ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "max"]
                + ["-m", "512M", "-smp", str(cpus), "-display", "none", "-nodefaults", "-no-reboot"]
                + ["-serial", f"file:{console}", "-kernel", guest.kernel, "-initrd", guest.initrd]
                + ["-append", 'console=ttyS0 hanok.run="dmesg"'],
                stdin=subprocess.DEVNULL,
                timeout=BOOT_SECONDS * TIMEOUT_SCALE,
                check=True,
            )
            shown = console.read_text(errors="replace")
            assert "hanok-guest: status 0" in shown, f"QEMU did not boot {guest.name}:\n{shown[-2000:]}"
            fresh = kept.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(sorted(trouble_of(shown))))
            fresh.replace(kept)
        return set(json.loads(kept.read_text()))

    return look
