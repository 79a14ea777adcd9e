# SPDX-License-Identifier: Apache-2.0
"""--gdb and --trace: a real gdb against guests of every kind.

The small guest is tests/gdb_guest.S, which counts on two CPUs for ever; the large one is Linux.
"""

import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import TIMEOUT_SCALE, TOP, Vm, run_hanok

UNIX_SOCKETS = Path("/proc/net/unix")
needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="needs gdb")


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """The small guest, assembled."""
    path = tmp_path_factory.mktemp("gdb") / "guest.elf"
    subprocess.run(
        ["gcc", "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,-N,-Ttext=0x100000,--build-id=none"]
        + ["-Wl,-z,noexecstack", "-g", "-o", path, TOP / "tests/gdb_guest.S"],
        check=True,
        capture_output=True,
    )
    return path


class Started:
    """hanok in the background with a debugger's socket."""

    def __init__(self, hanok, where, arguments):
        self.where = where
        self.process = subprocess.Popen(
            [str(argument) for argument in [hanok, "run", *arguments]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def wait_listening(self):
        """Until the socket can be connected to, without doing so."""
        end = time.monotonic() + 10 * TIMEOUT_SCALE
        while not re.search(rf" 00010000 0001 01 +\d+ {re.escape(str(self.where))}$", UNIX_SOCKETS.read_text(), re.M):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.02)

    def connect(self):
        """A connection that speaks the protocol by hand."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(10 * TIMEOUT_SCALE)
        s.connect(str(self.where))
        return s

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(hanok, engine, kernel, tmp_path):
    """A function: more options -> the small guest with 2 CPUs, waiting for a debugger."""
    started = []

    def go(*options, flags=",wait,i386"):
        where = tmp_path / "gdb.sock"
        vm = Started(
            hanok,
            where,
            ["--kernel", kernel, "--engine", engine, "--cpus", 2, "--serial", "none", "--timeout", 120]
            + ["--gdb", f"{where}{flags}", *options],
        )
        started.append(vm)
        vm.wait_listening()
        return vm

    yield go
    for vm in started:
        vm.end()


def gdb(vm, *commands, program=None, timeout=60):
    """Runs gdb's commands against the guest; returns what it printed."""
    arguments = ["gdb", "-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off"]
    for command in [f"target remote {vm.where}", *commands]:
        arguments += ["-ex", command]
    if program:
        arguments.append(str(program))
    done = subprocess.run(
        arguments, capture_output=True, text=True, errors="replace", timeout=timeout * TIMEOUT_SCALE, check=False
    )
    return done.stdout + done.stderr


def read_until(process, text):
    """The lines a process prints up to one that holds text."""
    shown = ""
    for line in process.stdout:
        shown += line
        if text in line:
            return shown
    raise AssertionError(f"{text!r} was not shown, but:\n{shown}")


def value(output, name):
    """What `printf "name=%..."` printed."""
    found = re.search(rf"^{name}=(.*)$", output, re.M)
    assert found, f"no {name} in:\n{output}"
    return found[1]


@needs_gdb
def test_breakpoint_step_memory(start, kernel):
    """Software and hardware breakpoints, a step, memory and registers, and the way on."""
    vm = start()
    output = gdb(
        vm,
        r'printf "entry=%x\n", $pc == &_start',
        "break work",
        "continue",
        r'printf "first=%x\n", $pc == &work',
        r'printf "counter=%d\n", *(int *)&counter',
        "stepi",
        r'printf "eax=%d\n", $eax',
        "delete",
        "hbreak done_work",
        "continue",
        r'printf "second=%x\n", $pc == &done_work',
        r'printf "copied=%d\n", *(int *)&copy == *(int *)&counter',
        "continue",
        r'printf "later=%d\n", *(int *)&counter',
        r'printf "text=%s\n", (char *)&message',
        "set var *(int *)&counter = 1000000000",
        "set $ebx = 0x12345678",
        r'printf "ebx=%x\n", $ebx',
        "continue",
        r'printf "set=%d\n", *(int *)&counter > 1000000000',
        r'printf "cr0=%d\n", $cr0 & 1',
        "detach",
        program=kernel,
    )
    assert value(output, "entry") == "1"  # it has waited
    assert value(output, "first") == "1"
    count = int(value(output, "counter"))
    assert count == 1
    assert value(output, "eax") == str(count)
    assert value(output, "second") == "1"
    assert value(output, "copied") == "1"
    assert int(value(output, "later")) == count + 1
    assert value(output, "text") == "a debugger reads this"
    assert value(output, "ebx") == "12345678"
    assert value(output, "set") == "1"
    assert value(output, "cr0") == "1"
    # It has gone on.
    output = gdb(vm, r'printf "counter=%d\n", *(int *)&counter', program=kernel)
    assert int(value(output, "counter")) > 1000000001


@needs_gdb
def test_watchpoints(start, kernel):
    """Writes, reads and both."""
    vm = start()
    output = gdb(
        vm,
        "break work",
        "continue",
        "delete",
        "watch *(int *)&copy",
        "continue",
        r'printf "at=%x\n", $pc == &done_work',
        "delete",
        "rwatch *(int *)&counter",
        "continue",
        r'printf "near=%d\n", $pc - (int)&work',
        "delete",
        "awatch *(int *)&copy",
        "continue",
        r'printf "third=%x\n", $pc == &done_work',
        program=kernel,
    )
    assert "Hardware watchpoint 2" in output and "New value" in output
    assert value(output, "at") == "1"
    assert "Hardware read watchpoint 3" in output
    assert value(output, "near") == "5"  # after the MOV that reads it
    assert "Hardware access (read/write) watchpoint 4" in output
    assert value(output, "third") == "1"


@needs_gdb
def test_threads(start, kernel):
    """vCPUs are threads: both listed, a breakpoint on the second one, a step of it alone."""
    vm = start()
    output = gdb(
        vm,
        "hbreak ap_loop",
        "continue",
        "info threads",
        r'printf "thread=%d\n", $_thread',
        r'set $mine = *(int *)&ap_counter',
        r'set $theirs = *(int *)&counter',
        "set scheduler-locking on",
        "delete",
        "stepi",
        "stepi",
        r'printf "mine=%d\n", *(int *)&ap_counter - $mine',
        r'printf "theirs=%d\n", *(int *)&counter - $theirs',
        "thread 1",
        r'printf "other=%d\n", $esp > 0x80000 && $esp <= 0x90000',
        "monitor info cpus",
        "monitor info registers",
        "monitor nonsense",
        "monitor help",
        program=kernel,
    )
    assert value(output, "thread") == "2"
    assert re.search(r"^\* 2 .*vCPU 1", output, re.M) and re.search(r"^  1 .*vCPU 0", output, re.M)
    assert value(output, "mine") == "1"
    assert value(output, "theirs") == "0"
    assert value(output, "other") == "1"
    assert "* vCPU 0: running, protected mode, CPL 0" in output
    assert "monitor nonsense: there is no such command" in output
    assert "monitor translate" in output


@needs_gdb
def test_interrupt_and_kill(start, kernel):
    """Ctrl-C stops what runs; `kill` ends the machine."""
    vm = start()
    debugger = subprocess.Popen(
        ["gdb", "-nx", "-q", "-ex", "set confirm off", "-ex", f"target remote {vm.where}", str(kernel)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    debugger.stdin.write("continue\n")
    debugger.stdin.flush()
    read_until(debugger, "Continuing.")
    time.sleep(0.5)
    debugger.send_signal(signal.SIGINT)
    read_until(debugger, "SIGINT")
    debugger.communicate("kill\nquit\n", timeout=30 * TIMEOUT_SCALE)
    assert vm.process.wait(10 * TIMEOUT_SCALE) == 0


def packet(text):
    return b"$%s#%02x" % (text, sum(text) & 0xFF)


def test_hostile_input(start):
    """Nothing that is sent does any harm, and the machine goes on when the sender is gone."""
    vm = start()
    for junk in (
        b"\x00" * 5000,
        b"$" * 5000,
        b"$" + b"m" * 40000 + b"#00",
        packet(b"m0,ffffffffffffffff"),
        packet(b"mffffffffffffffff,10"),
        packet(b"Z0,ffffffffffffffff,1") + packet(b"c") + b"\x03\x03\x03",
        packet(b"P3=ffffffff") + packet(b"Mfee00000,4:ffffffff") + packet(b"vCont;s:2;s:1"),
        packet(b"qXfer:features:read:target.xml:0,ffffffff"),
        packet(b"vCont;c") * 50,
        packet(b"k"[:0]),
    ):
        s = vm.connect()
        s.sendall(junk)
        time.sleep(0.05)
        s.close()
    s = vm.connect()
    s.sendall(packet(b"qC"))
    answer = b""
    while not answer.endswith(b"#c5"):
        answer += s.recv(1000)
    assert answer == b"+$QC1#c5"
    s.close()
    assert vm.process.poll() is None


@pytest.mark.parametrize("where", [":0", ":65536", ":x", ":", "", "{tmp}/absent/socket", "/"])
def test_bad_places(hanok, engine, kernel, tmp_path, where):
    where = where.format(tmp=tmp_path)
    result = run_hanok(hanok, "run", "--kernel", kernel, "--engine", engine, "--serial", "none", "--gdb", where)
    assert result.returncode in (2, 125)
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("hanok: --gdb ")


def test_only_the_loopback(hanok, engine, kernel):
    """--gdb :PORT is not to be reached from another machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    vm = Started(
        hanok,
        None,
        ["--kernel", kernel, "--engine", engine, "--serial", "none", "--gdb", f":{port}", "--timeout", 60],
    )
    try:
        end = time.monotonic() + 10 * TIMEOUT_SCALE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
        assert re.search(rf" 0100007F:{port:04X} 00000000:0000 0A ", listening)
    finally:
        vm.end()


@needs_gdb
def test_linux(hanok, engine, guest, tmp_path):
    """A breakpoint in a 64-bit kernel's system call, met by a program; then on as if nothing had been."""
    cloud = guest("cloud")
    where = tmp_path / "gdb.sock"
    vm = Vm(
        hanok,
        ["run", "--engine", engine, "--kernel", cloud.kernel, "--initrd", cloud.initrd, "--cpus", "2"]
        + ["--append", "console=ttyS0 nokaslr", "--no-reboot", "--gdb", where, "--timeout", "600"],
        tmp_path / "console",
    )
    vm.where = where
    try:
        vm.boot()
        symbols = vm.output("grep -E ' (__x64_sys_sethostname|linux_banner|entry_SYSCALL_64)$' /proc/kallsyms")
        address = {name: line.split()[0] for line in symbols.splitlines() for name in [line.split()[2]]}
        debugger = subprocess.Popen(
            ["gdb", "-nx", "-batch", "-ex", "set pagination off", "-ex", f"target remote {where}"]
            + ["-ex", f"hbreak *0x{address['__x64_sys_sethostname']}", "-ex", "shell echo ready", "-ex", "continue"]
            + ["-ex", r'printf "rip=%lx\n", $rip', "-ex", r'printf "lma=%d\n", ($efer >> 10) & 1']
            + ["-ex", rf'printf "banner=%s", (char *)0x{address["linux_banner"]}', "-ex", "stepi", "-ex", "info threads"]
            + ["-ex", "x/4i $pc", "-ex", "p $xmm0", "-ex", "p $ymm1", "-ex", "p $k_gs_base", "-ex", "delete"]
            + ["-ex", "detach"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # The machine stands still until gdb has set its breakpoint: what is typed waits as well.
        output = read_until(debugger, "ready")
        vm.output("hostname changed", timeout=120)
        output += debugger.communicate(timeout=60 * TIMEOUT_SCALE)[0]
        assert value(output, "rip") == address["__x64_sys_sethostname"], output
        assert value(output, "lma") == "1"
        assert "banner=Linux version " in output
        assert "vCPU 1" in output
        assert vm.output("hostname") == "changed"
        assert vm.output("nproc") == "2"
        vm.start("poweroff")
        assert vm.end() == 0
    finally:
        vm.close()


def test_trace(hanok, engine, kernel, tmp_path):
    """Lines of time, CPU, cause and place, in order; and an error when there can be none."""
    trace = tmp_path / "trace"
    result = run_hanok(
        hanok, "run", "--kernel", kernel, "--engine", engine, "--serial", "none", "--cpus", 2,
        "--timeout", 1, "--trace", trace,
    )
    assert result.returncode == 124
    lines = trace.read_text().splitlines()
    assert len(lines) > 5
    pattern = re.compile(r"(\d+\.\d{6}) ([01]) ([a-z-]+) ([0-9a-f]+)( .*)?")
    times = [float(pattern.fullmatch(line)[1]) for line in lines]
    assert times == sorted(times)
    assert any(re.search(r" 0 mmio-write [0-9a-f]+ gpa 0xfee00300 size 4 data 0x4500 lapic ", line) for line in lines)
    assert any(re.search(r" 1 hlt ", line) for line in lines)
    absent = tmp_path / "absent" / "trace"
    result = run_hanok(
        hanok, "run", "--kernel", kernel, "--engine", engine, "--serial", "none", "--trace", absent
    )
    assert result.returncode == 125
    assert result.stderr == f"hanok: --trace {absent}: No such file or directory\n"
