# SPDX-License-Identifier: Apache-2.0
"""Where a process that runs a machine has its memory: in one slice of the address space (src/base/layout.h).

The guest is tests/cli_guest.S, which does what the letters of its command line say.
"""

import os
import re
import resource
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from conftest import TIMEOUT_SCALE, TOP, run_hanok

NOTE = "HANOK_STACK_LIMIT"
GUARD = 1 << 36
LOW, HIGH = (2 << 44) + GUARD, (3 << 44) - GUARD
PATIENCE = 30 * TIMEOUT_SCALE
OURS = 0x7FFFFFFFF000 - 0x2E0000000000  # the limit that layout.c sets
MIB8 = 8 << 20
AT_SYSINFO_EHDR = 33


@pytest.fixture(scope="session")
def probe(tmp_path_factory):
    """tests/layout_probe.c: says whether the vdso works where it is."""
    path = tmp_path_factory.mktemp("layout") / "layout_probe"
    sources = [TOP / "tests/layout_probe.c", *sorted((TOP / "src/base").glob("layout*.c")), TOP / "src/base/error.c"]
    subprocess.run(
        ["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
        + ["-I", TOP / "src", "-fPIE", "-pie", "-pthread"]
        + ["-Wl,-no-pie,--no-relax,-Ttext-segment=0x2f0000000000", "-o", path, *sources],
        check=True,
    )
    return path


class Map:
    """A line of /proc/PID/maps."""

    def __init__(self, line):
        addresses, self.access, _, _, _, *name = line.split(None, 5)
        self.start, self.end = (int(address, 16) for address in addresses.split("-"))
        self.name = name[0].strip() if name else ""
        self.line = line

    def in_slice(self):
        return LOW <= self.start and self.end <= HIGH


def maps(pid):
    return [Map(line) for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()]


def strings(pid, name):
    """/proc/PID/cmdline or environ."""
    return Path(f"/proc/{pid}/{name}").read_bytes().decode().split("\0")[:-1]


def soft_stack_limit(pid):
    return resource.prlimit(pid, resource.RLIMIT_STACK)[0]


@pytest.fixture(scope="session")
def own(hanok):
    """Skips where the slice cannot be had: the program is not linked to it."""
    header = subprocess.run(["readelf", "-h", hanok], capture_output=True, text=True, check=True).stdout
    if int(re.search(r"Entry point address: +(0x[0-9a-f]+)", header)[1], 16) < LOW:
        pytest.skip("a program with sanitizers is where its compiler wants it")


class Running:
    """hanok run with a guest that has said hello and now sleeps."""

    def __init__(self, hanok, kernel, env=None, program=None, limit=None):
        before = [] if limit is None else ["prlimit", f"--stack={limit}"]
        self.arguments = [program or str(hanok), "run", "--kernel", str(kernel), "--append", "os"]
        self.arguments += ["--timeout", str(int(60 * TIMEOUT_SCALE))]
        self.process = subprocess.Popen(
            [*before, *self.arguments],
            executable=None if before else hanok,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ, **(env or {})),
        )
        self.pid = self.process.pid

    def __enter__(self):
        said = self.process.stdout.readline()
        if said != b"hello\n":
            self.process.kill()
            pytest.fail(f"{said!r}, {self.process.stderr.read()}")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def running(hanok, kernel):
    """A function: keywords of Running -> what is to be entered."""
    return lambda **keywords: Running(hanok, kernel, **keywords)


def check_maps(pid):
    check_layout(maps(pid))


def check_layout(found):
    outside = [map for map in found if not map.in_slice()]
    stray = [map.line for map in outside if map.name not in ("[stack]", "[vsyscall]")]
    assert not stray, "\n".join(stray)
    stack = [map for map in outside if map.name == "[stack]"]
    assert [map.access for map in stack] == ["---p"]


def test_memory_is_in_the_slice(own, running):
    """Program, heap, libraries, stacks of threads, guest RAM: all but the initial stack, which is out of use."""
    with running() as vm:
        check_maps(vm.pid)
        assert any(map.name == "[heap]" for map in maps(vm.pid))
        assert any(map.end - map.start >= 512 << 20 for map in maps(vm.pid)), "guest RAM"


def test_who_looks_on_sees_nothing_of_it(own, running):
    """Arguments, environment, name and limits are what they would have been without."""
    with running(env={"LAST": "of all"}, limit=f"{MIB8}:") as vm:
        check_maps(vm.pid)
        assert strings(vm.pid, "cmdline") == vm.arguments
        environment = dict(entry.split("=", 1) for entry in strings(vm.pid, "environ"))
        assert environment == dict(os.environ, LAST="of all")
        assert Path(f"/proc/{vm.pid}/comm").read_text(encoding="utf-8") == Path(vm.arguments[0]).name + "\n"
        assert soft_stack_limit(vm.pid) == MIB8
    with running(program="another name") as vm:
        check_maps(vm.pid)
        assert strings(vm.pid, "cmdline") == vm.arguments


def test_machine_in_the_background(own, hanok, kernel, tmp_path):
    """hanok start forks; what remains is in the slice, too, and ends as it should."""
    env = dict(os.environ, HANOK_VMS=str(tmp_path / "vms"), HANOK_RUNTIME=str(tmp_path / "run"))

    def ok(*arguments):
        return subprocess.run(
            [hanok, *arguments], env=env, check=True, capture_output=True, text=True, timeout=PATIENCE
        ).stdout

    ok("create", "m", "--disk", "none", "--memory", "16M", "--kernel", kernel, "--append", "os")
    ok("start", "m")
    pid = int(re.search(r'"pid": *(\d+)', ok("ps", "--json"))[1])
    try:
        check_maps(pid)
        assert strings(pid, "cmdline") == [str(hanok), "start", "m"]
        assert NOTE not in "".join(strings(pid, "environ"))
    finally:
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + PATIENCE
        while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
            time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("text", ["garbage", "", "8388608", "1,1,x", f"{MIB8},99,{'x' * 200}", "-1,-1,", "9" * 99])
def test_note_by_hand_is_harmless(own, running, text):
    """Who sets the variable himself has not set the limit with it, and is not believed."""
    with running(env={NOTE: text}, limit=f"{MIB8}:") as vm:
        check_maps(vm.pid)
        assert NOTE not in "".join(strings(vm.pid, "environ"))
        assert soft_stack_limit(vm.pid) == MIB8


@pytest.mark.parametrize("text", ["garbage", f"{MIB8},0,x", f"{MIB8},99,x", "0,1,", None])
def test_limit_and_note_by_hand(own, running, text):
    """Not even with the very limit that hanok sets does it exec itself for ever."""
    with running(env={NOTE: text} if text else {}, limit=f"{OURS}:") as vm:
        check_maps(vm.pid)


def test_low_hard_limit(hanok, kernel):
    """A hard limit that forbids it: hanok runs as it is."""
    command = f'ulimit -SHs 8192; exec "{hanok}" run --kernel "{kernel}" --append op'
    result = subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")


def test_doctor_tells(own, hanok):
    """Whether guests can have the window here."""
    words = "window +ok +programs of guests with one vCPU"
    assert re.search(words, run_hanok(hanok, "doctor").stdout)
    low = subprocess.run(
        ["sh", "-c", f'ulimit -SHs 8192; exec "{hanok}" doctor'], capture_output=True, text=True, check=False
    )
    assert low.returncode == 0
    assert re.search(r"window +limited +not here.* 0x.*ulimit -Hs", low.stdout), low.stdout


def test_unlimited_stack(own, running):
    """With no limit mmap would go upwards from far below; after all it does not."""
    if resource.getrlimit(resource.RLIMIT_STACK)[1] != resource.RLIM_INFINITY:
        pytest.skip("the hard limit on the stack is not unlimited")
    with running(limit="unlimited:") as vm:
        check_maps(vm.pid)
        assert soft_stack_limit(vm.pid) == resource.RLIM_INFINITY


def test_exit_statuses(hanok, kernel):
    """What fn returns comes back over both stacks."""
    result = run_hanok(hanok, "run", "--kernel", kernel, "--append", "od", "--debug-exit", "0xf4")
    assert (result.returncode, result.stderr) == (11, "")
    assert run_hanok(hanok, "run", "--levitate").returncode == 2
    assert run_hanok(hanok, "run", "--help").returncode == 0


def test_debugger_follows(own, hanok, kernel):
    """gdb sets its breakpoints anew after the exec, and stops at one within a machine's run."""
    command = ["gdb", "-q", "-nx", "-batch", "-ex", "set breakpoint pending on", "-ex", "break machine_run"]
    command += ["-ex", "run", "-ex", "backtrace 1", "-ex", "kill", "--args"]
    try:
        result = subprocess.run(
            [*command, hanok, "run", "--kernel", kernel, "--append", "op"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("gdb is not installed")
    assert "#0  machine_run" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("place", [[], ["high"]])
def test_vdso_works(own, probe, place):
    """Clocks are read without a system call; also where the vdso was above the stack and had to be moved."""
    result = subprocess.run([probe, *place], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "layout_probe: 0 failures" in result.stdout, result.stdout + result.stderr


def test_debugger_sees_what_moved(own, running):
    """The auxiliary vector that debuggers read is right: none of it on the initial stack, the vdso where it is."""
    with running() as vm:
        words = dict(struct.iter_unpack("=QQ", Path(f"/proc/{vm.pid}/auxv").read_bytes()))
        found = {map.name: map for map in maps(vm.pid)}
        stack = found["[stack]"]
        assert not [key for key, word in words.items() if stack.start <= word < stack.end]
        assert words[AT_SYSINFO_EHDR] == found["[vdso]"].start


def test_old_kernel(own, hanok, kernel, guest, probe):
    """Debian 12's, which puts the vdso above the stack: there hanok and probe run in a machine."""
    kit = guest("cloud", programs=[probe, hanok], add=[f"{kernel}=/guest.elf"])
    inner = "hanok run --kernel /guest.elf --append os --memory 16M"
    script = f"mkdir -p /var/tmp; layout_probe; {inner} >/out & "
    script += "until grep -q hello /out; do sleep 0.1; done; echo maps; cat /proc/$!/maps"
    result = run_hanok(
        hanok, "run", "--engine", "bt", "--kernel", kit.kernel, "--initrd", kit.initrd, "--memory", "512M",
        "--no-reboot", "--append", f'console=ttyS0 panic=-1 quiet hanok.run="{script}"', timeout=120,
    )  # fmt: skip
    shown = result.stdout.replace("\r", "")
    assert "layout_probe: 0 failures" in shown, shown
    assert "hanok-guest: status 0" in shown, shown
    lines = re.findall(r"^[0-9a-f]+-[0-9a-f]+ \S{4} .*", shown[shown.index("\nmaps\n") :], re.MULTILINE)
    check_layout([Map(line) for line in lines])
    assert any("[vdso]" in line for line in lines)
