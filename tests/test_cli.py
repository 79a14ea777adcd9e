# SPDX-License-Identifier: Apache-2.0
"""The command line: options and their errors, how a run ends, the terminal, and serial lines.

The guest is tests/cli_guest.S, which does what the letters of its command line say.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time

import pexpect
import pytest
from conftest import TIMEOUT_SCALE, run_hanok

FLOOD = "0123456789" * 20000


def guest_arguments(kernel, engine, orders, *options):
    end = 60 * TIMEOUT_SCALE
    return ["run", "--kernel", kernel, "--engine", engine, "--append", orders, "--timeout", end, *options]


@pytest.fixture
def run(hanok, engine, kernel):
    """A function: the guest's orders and more options -> subprocess's result, without a terminal."""

    def go(orders, *options, timeout=90):
        return run_hanok(hanok, *guest_arguments(kernel, engine, orders, *options), timeout=timeout)

    return go


def error_line(result):
    lines = result.stderr.splitlines()
    assert len(lines) == 1, f"not one line of error: {result.stderr!r}"
    assert lines[0].startswith("hanok: ")
    return lines[0]


# ---- words and numbers ----


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "--help"], ["run", "-h"], ["doctor", "--help"]])
def test_help(hanok, arguments):
    """Help goes to standard output, begins with what the thing is for, and shows examples."""
    result = run_hanok(hanok, *arguments)
    assert result.returncode == 0
    assert result.stderr == ""
    assert "  hanok " in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


def test_help_names_every_option(hanok):
    """What --help lists is what is there: each option it names is known, and takes a value or not."""
    for verb in ("run", "doctor"):
        for option in set(re.findall(r"--[a-z-]+[a-z]", run_hanok(hanok, verb, "--help").stdout)):
            result = run_hanok(hanok, verb, f"{option}=", "--levitate")
            assert "there is no such option" not in result.stderr or "--levitate" in result.stderr, option


def test_version(hanok):
    result = run_hanok(hanok, "--version")
    assert re.fullmatch(r"hanok \d+\.\d+\.\d+\n", result.stdout)


def test_help_to_a_full_disk(hanok):
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run([hanok, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 125
    assert "standard output" in result.stderr


# Command line, without "run", and what the one line of error has to say.
USAGE = [
    ([], "--kernel"),
    (["--kernl", "x"], "did you mean --kernel?"),
    (["--memroy=1G"], "did you mean --memory?"),
    (["--no-rebot"], "did you mean --no-reboot?"),
    (["--levitate"], "--levitate"),
    (["-z"], "-z"),
    (["--kernel"], "--kernel: a value is missing"),
    (["--stats=yes"], "takes no value"),
    (["--memory", "7"], "7M"),
    (["--memory", "0"], "--memory 0"),
    (["--memory", "512Q"], "'Q'"),
    (["--memory", "-5M"], "--memory -5M"),
    (["--memory", "1.5G"], "--memory 1.5G"),
    (["--memory", ""], "--memory"),
    (["--memory", "1048577"], "MiB"),
    (["--memory", "18446744073709551616"], "too large"),
    (["--memory", "16777216T"], "too large"),
    (["--kernel", "k", "--memory", "64M", "--memory-min", "65M"], "more than the 64 MiB that the machine has"),
    (["--kernel", "k", "--memory-limit", "32M", "--memory-min", "1G"], "more than the 32 MiB"),
    (["--memory-min", "x"], "--memory-min"),
    (["--memory-shares", "0"], "low, normal, high or a number"),
    (["--memory-shares", "most"], "low, normal, high or a number"),
    (["--cpus", "0"], "from 1 to"),
    (["--cpus", "256"], "from 1 to"),
    (["--cpus", "-1"], "--cpus"),
    (["--cpus", "1x"], "--cpus"),
    (["--timeout", "0"], "--timeout"),
    (["--timeout", "nan"], "--timeout"),
    (["--timeout", "0x10"], "--timeout"),
    (["--timeout", "5d"], "--timeout"),
    (["--timeout", "1e3"], "--timeout"),
    (["--debug-exit", "0x10000"], "0xffff"),
    (["--debug-exit", "65536"], "65535"),
    (["--debug-exit", "f4"], "--debug-exit"),
    (["--serial", "stdio", "--serial", "stdio"], "twice"),
    (["--serial", "none"] * 3, "only two"),
    (["--kernel", "k", "--serial", "carrier-pigeon"], "carrier-pigeon"),
    (["--kernel", "k", "--serial", "file:"], "path"),
    (["--kernel", "k", "--serial", "socket:" + "x" * 200], "too long"),
    (["--kernel", "k", "--engine", "steam"], "steam"),
]


@pytest.mark.parametrize("arguments, says", USAGE, ids=[" ".join(case[0])[:40] or "nothing" for case in USAGE])
def test_usage(hanok, arguments, says):
    result = run_hanok(hanok, "run", *arguments)
    assert result.returncode == 2, result.stderr
    assert says in error_line(result)
    assert result.stdout == ""


@pytest.mark.parametrize("arguments, says", [([], "--help"), (["rum"], "hanok run"), (["--versoin"], "--versoin")])
def test_no_such_verb(hanok, arguments, says):
    result = run_hanok(hanok, *arguments)
    assert result.returncode == 2
    assert says in error_line(result)


@pytest.mark.parametrize("size", ["1g", "1G", "1GB", "1GiB", "1024m", "1073741824"])
def test_sizes(run, size):
    result = run("p", "--memory", size, "--stats")
    assert result.returncode == 0
    assert "1024 MiB" in result.stderr


def test_address_space_limit(hanok, kernel):
    """Too little address space for the guest's memory is an error line, not a crash."""
    result = subprocess.run(
        ["prlimit", "--as=1000000000", hanok, "run", "--kernel", kernel, "--memory", "4G"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "AddressSanitizer" in result.stderr or "ThreadSanitizer" in result.stderr:
        pytest.skip("a sanitizer needs the address space itself")
    assert result.returncode == 125
    assert "4096 MiB" in error_line(result)


# ---- how a run ends ----


def test_power_off(run):
    result = run("op")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")


def test_triple_fault(run):
    result = run("ot")
    assert result.returncode == 3
    assert re.search(r"triple fault on vCPU 0 at 0010:10[0-9a-f]{4}", error_line(result))
    assert result.stdout == "hello\n"


def test_debug_exit(run):
    result = run("od", "--debug-exit", "0xf4")
    assert (result.returncode, result.stdout, result.stderr) == ((5 << 1) | 1, "hello\n", "")


@pytest.mark.parametrize("order", ["r", "k"])
def test_reboot(run, order):
    """Port CF9h and the keyboard controller reset the machine, which boots again."""
    result = run(f"o{order}p")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\nhello\n", "")


@pytest.mark.parametrize("order", ["r", "k"])
def test_no_reboot(run, order):
    result = run(f"o{order}p", "--no-reboot")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")


def test_reboot_without_kernel(hanok, engine, kernel, tmp_path):
    """The kernel is read again at each boot; if it is gone by then, that is said."""
    copy = tmp_path / "kernel"
    copy.write_bytes(kernel.read_bytes())
    process = subprocess.Popen(
        [hanok, *map(str, guest_arguments(copy, engine, "oerp"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "hello\n"
    copy.unlink()
    _, error = process.communicate("q", timeout=30 * TIMEOUT_SCALE)
    assert process.returncode == 125
    assert str(copy) in error


@pytest.mark.parametrize("orders", ["b", "s"])
def test_timeout(run, orders):
    """Busy or asleep, the guest's time runs out."""
    started = time.monotonic()
    result = run(orders, "--timeout", "0.5s")
    assert result.returncode == 124
    assert "0.5" in error_line(result)
    assert 0.5 <= time.monotonic() - started < 5 * TIMEOUT_SCALE


def test_sleeping_costs_no_time(run):
    """A halted guest uses no host CPU and hardly any memory."""
    result = run("os", "--timeout", "1", "--stats", "--cpus", "2", "--memory", "128M")
    assert result.returncode == 124
    user, system = re.search(r"host CPU ([\d.]+) s user, ([\d.]+) s system", result.stderr).groups()
    assert float(user) + float(system) < 0.4 * TIMEOUT_SCALE
    resident, touched = re.search(r"memory ([\d.]+) MiB resident, of it ([\d.]+)", result.stderr).groups()
    if TIMEOUT_SCALE == 1:
        assert float(resident) - float(touched) < 44


def test_stats(run, engine):
    """Every port access was an exit, and is in the table."""
    result = run("ofp", "--stats")
    assert result.returncode == 0
    assert result.stdout == "hello\n" + FLOOD
    rows = re.findall(r"^hanok: ([a-z-]+) +(\d+) +([\d.-]+) +([\d.-]+)$", result.stderr, re.M)
    count = {name: int(number) for name, number, _, _ in rows}
    assert count["pio-out"] == len(FLOOD) + len("hello\n") + 2
    assert count["pio-in"] >= len(FLOOD)
    instructions = int(re.search(r"(\d+) instructions", result.stderr)[1])
    # Translated code does not count; what makes an exit is interpreted.
    assert instructions > (10 if engine == "interp" else 1) * len(FLOOD)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(hanok, engine, kernel, number):
    """A signal ends the run in good order, and hanok as that signal would."""
    process = subprocess.Popen(
        [hanok, *map(str, guest_arguments(kernel, engine, "ob"))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "hello\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=30 * TIMEOUT_SCALE)
    assert process.returncode == -number
    assert "signal" in error


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_without_privilege(hanok, engine, kernel):
    """A guest of nobody's: no capability and no group is needed."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        public = shutil.copy(kernel, folder)
        program = shutil.copy(hanok, folder)
        result = subprocess.run(
            [program, *map(str, guest_arguments(public, engine, "op", "--cpus", "2"))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
        )
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")


# ---- standard input and output without a terminal ----


def test_input_from_a_pipe_waits(hanok, engine, kernel):
    """More than the UART holds at once arrives whole, and Ctrl-A is a byte like any other."""
    text = ("The quick brown fox\x01x\x00\xff " * 150).replace("q", "k")
    result = subprocess.run(
        [hanok, *map(str, guest_arguments(kernel, engine, "ep"))],
        input=(text + "q").encode("latin-1"),
        capture_output=True,
        timeout=60 * TIMEOUT_SCALE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode("latin-1") == text


def test_input_from_a_file(hanok, engine, kernel, tmp_path):
    """epoll does not take plain files."""
    script = tmp_path / "script"
    script.write_text("uname -a\n" * 100 + "q")
    with open(script, encoding="utf-8") as stdin:
        result = subprocess.run(
            [hanok, *map(str, guest_arguments(kernel, engine, "ep"))],
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=60 * TIMEOUT_SCALE,
            check=False,
        )
    assert (result.returncode, result.stdout) == (0, "uname -a\n" * 100)


def test_end_of_input_is_not_the_end(run):
    """/dev/null as standard input: the guest goes on."""
    assert run("os", "--timeout", "1").returncode == 124


def test_slow_reader(hanok, engine, kernel):
    """Whoever reads slowly gets everything: the guest waits."""
    process = subprocess.Popen(
        [hanok, *map(str, guest_arguments(kernel, engine, "fp"))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    time.sleep(1)
    assert process.poll() is None
    output, _ = process.communicate(timeout=60 * TIMEOUT_SCALE)
    assert process.returncode == 0
    assert output.decode() == FLOOD


def test_reader_goes_away(hanok, engine, kernel):
    """`hanok run ... | head -1` comes to an end."""
    process = subprocess.Popen(
        [hanok, *map(str, guest_arguments(kernel, engine, "offfffffs"))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "hello\n"
    process.stdout.close()
    assert process.wait(timeout=30 * TIMEOUT_SCALE) == 125
    assert "standard output" in process.stderr.read()
    process.stderr.close()


def test_nothing_is_open(hanok, engine, kernel):
    """Started with standard input, output and error closed, the run's own files are not taken for them."""
    command = " ".join(map(str, [hanok, *guest_arguments(kernel, engine, "ofd", "--debug-exit", "0xf4")]))
    result = subprocess.run(["sh", "-c", f"{command} <&- >&- 2>&-"], timeout=60 * TIMEOUT_SCALE, check=False)
    assert result.returncode == 11


# ---- the terminal ----


class Terminal:
    """hanok on a terminal whose settings from before are known."""

    def __init__(self, hanok, arguments):
        command = " ".join(map(str, [hanok, *arguments]))
        self.child = pexpect.spawn(
            "/bin/sh", ["-c", f"read go; exec {command}"], encoding="latin-1", timeout=30 * TIMEOUT_SCALE
        )
        self.before = self.settings()
        self.child.sendline("")

    def settings(self):
        return termios.tcgetattr(self.child.child_fd)

    def end(self):
        self.child.expect(pexpect.EOF)
        assert self.settings() == self.before
        self.child.wait()
        return self.child.exitstatus if self.child.signalstatus is None else -self.child.signalstatus


@pytest.fixture
def terminal(hanok, engine, kernel):
    """A function: orders -> a Terminal whose guest has said hello."""
    started = []

    def start(orders):
        vm = Terminal(hanok, guest_arguments(kernel, engine, orders))
        started.append(vm)
        vm.child.expect("hello")
        return vm

    yield start
    for vm in started:
        vm.child.close(force=True)


def test_keys(terminal):
    vm = terminal("oep")
    assert vm.settings() != vm.before
    vm.child.send("ab\x03\x1a\x01a\x01\x01c")
    vm.child.expect_exact("ab\x03\x1a\x01\x01c")
    vm.child.send("\x01b")
    vm.child.expect_exact("^")
    vm.child.send("\x01h")
    vm.child.expect("Ctrl-A x.*Ctrl-A s.*help")
    vm.child.send("\x01s")
    vm.child.expect(r"engine .* instructions")
    vm.child.send("q")
    vm.child.expect("powered off")
    assert vm.end() == 0


def test_line_at_start(terminal):
    vm = terminal("oep")
    assert re.search(r"engine \w+: .*\n.*Ctrl-A h helps", vm.child.before)


def test_quit_works_when_the_guest_does_not_read(terminal):
    vm = terminal("os")
    vm.child.send("x" * 3000 + "\x01x")
    assert vm.end() == 0


def test_power_button_key(terminal):
    """A guest that does not listen to its power button goes on."""
    vm = terminal("oep")
    vm.child.send("\x01pz")
    vm.child.expect("z")
    vm.child.send("q")
    assert vm.end() == 0


CRASHES = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT]


@pytest.mark.parametrize("number", CRASHES)
def test_terminal_is_put_back(terminal, number):
    vm = terminal("ob")
    assert vm.settings() != vm.before
    vm.child.kill(number)
    status = vm.end()
    # Sanitizers have their own way to end by SIGSEGV.
    assert status == -number or (number == signal.SIGSEGV and status != 0)


def test_terminal_is_put_back_after_a_guest_crash(terminal):
    vm = terminal("oet")
    vm.child.send("q")
    assert vm.end() == 3


def process_state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def wait_for(condition, seconds=10):
    until = time.monotonic() + seconds * TIMEOUT_SCALE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_stop_and_continue(terminal):
    """While it is stopped the terminal is the shell's; then it goes on as before."""
    vm = terminal("oep")
    raw = vm.settings()
    vm.child.kill(signal.SIGTSTP)
    wait_for(lambda: process_state(vm.child.pid) == "T")
    assert vm.settings() == vm.before
    vm.child.kill(signal.SIGCONT)
    wait_for(lambda: vm.settings() == raw)
    vm.child.send("xyzq")
    vm.child.expect("xyz")
    assert vm.end() == 0


def test_terminal_goes_away(hanok, engine, kernel):
    vm = Terminal(hanok, guest_arguments(kernel, engine, "oes"))
    vm.child.expect("hello")
    pid = vm.child.pid
    os.close(vm.child.child_fd)
    vm.child.closed = True
    wait_for(lambda: process_state(pid) == "Z", 20)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (125, -signal.SIGHUP)


# ---- other serial lines ----


def test_file(run, tmp_path):
    console = tmp_path / "console"
    result = run("ofp", "--serial", f"file:{console}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert console.read_text() == "hello\n" + FLOOD


def test_file_that_cannot_be_made(run, tmp_path):
    result = run("op", "--serial", f"file:{tmp_path}/no/console")
    assert result.returncode == 125
    assert "No such file" in error_line(result)


def test_file_on_a_full_disk(run):
    """The output is lost, which is said once; the guest goes on."""
    result = run("ofp", "--serial", "file:/dev/full")
    assert result.returncode == 0
    assert "No space left" in error_line(result)


def test_two_ports(run, tmp_path):
    """The second --serial is COM2, which this guest leaves alone."""
    com2 = tmp_path / "com2"
    result = run("op", "--serial", "stdio", "--serial", f"file:{com2}")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    assert com2.read_text() == ""


@pytest.fixture
def background(hanok, engine, kernel):
    """A function: orders and options -> the process, ended after the test."""
    started = []

    def start(orders, *options):
        process = subprocess.Popen(
            [hanok, *map(str, guest_arguments(kernel, engine, orders, *options))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60 * TIMEOUT_SCALE)
    wait_for(lambda: path.exists())
    client.connect(str(path))
    return client


def answers(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def receive(client, count):
    data = b""
    while len(data) < count:
        part = client.recv(count - len(data))
        assert part
        data += part
    return data


def test_socket(background, tmp_path):
    """One client after another; the next one waits until the first has gone."""
    path = tmp_path / "console.sock"
    process = background("ep", "--serial", f"socket:{path}")
    for number in range(3):
        with connect(path) as client, connect(path) as waiting:
            text = f"client {number}".encode()
            client.sendall(text)
            assert receive(client, len(text)) == text
            client.close()
            waiting.sendall(b"next")
            assert receive(waiting, 4) == b"next"
    assert path.stat().st_mode & 0o777 == 0o600
    with connect(path) as client:
        client.sendall(b"q")
        assert process.wait(20 * TIMEOUT_SCALE) == 0
    assert not path.exists()


def test_socket_back_pressure(background, tmp_path):
    """A client that sends much and reads late loses nothing in either direction."""
    path = tmp_path / "console.sock"
    process = background("ep", "--serial", f"socket:{path}")
    text = os.urandom(5000).replace(b"q", b"k")
    with connect(path) as client:
        sender = threading.Thread(target=lambda: client.sendall(text))
        sender.start()
        time.sleep(0.5)
        assert receive(client, len(text)) == text
        sender.join()
        client.sendall(b"q")
        assert process.wait(20 * TIMEOUT_SCALE) == 0


def test_socket_left_behind(background, tmp_path):
    """A socket that nobody listens on is replaced; one that is in use, or another file, is not."""
    path = tmp_path / "console.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    background("es", "--serial", f"socket:{path}")
    wait_for(lambda: answers(path))
    second = background("es", "--serial", f"socket:{path}")
    assert second.wait(20 * TIMEOUT_SCALE) == 125
    assert "another program" in second.stderr.read()
    connect(path).close()

    plain = tmp_path / "plain"
    plain.write_text("mine")
    third = background("es", "--serial", f"socket:{plain}")
    assert third.wait(20 * TIMEOUT_SCALE) == 125
    assert "not a socket" in third.stderr.read()
    assert plain.read_text() == "mine"


def test_pty(background):
    """Its name is told; it can be opened, closed and opened again; output without a reader is lost."""
    process = background("fep", "--serial", "pty")
    line = process.stderr.readline()
    path = re.fullmatch(r"hanok: COM1 is on (/dev/pts/\d+)\n", line)[1]
    for text in (b"first", b"second"):
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        # Whether it has been noticed that we are here cannot be seen: ask until it answers.
        answer = b""
        os.set_blocking(fd, False)
        until = time.monotonic() + 20 * TIMEOUT_SCALE
        while text not in answer:
            assert time.monotonic() < until, answer
            os.write(fd, text)
            time.sleep(0.1)
            try:
                answer += os.read(fd, 65536)
            except BlockingIOError:
                pass
        os.close(fd)
        time.sleep(0.5)
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b"q")
    assert process.wait(20 * TIMEOUT_SCALE) == 0
    os.close(fd)


# ---- doctor ----


def test_doctor(hanok):
    result = run_hanok(hanok, "doctor")
    assert result.returncode == 0, result.stdout
    for name in ("engine", "cpu", "kvm", "window", "hugepages", "userfaultfd", "io_uring", "netns", "tap"):
        assert re.search(rf"^{name} +(ok|limited|missing) ", result.stdout, re.M), name


def test_doctor_json(hanok):
    result = run_hanok(hanok, "doctor", "--json")
    answer = json.loads(result.stdout)
    assert answer["usable"] is True
    assert {check["status"] for check in answer["checks"]} <= {"ok", "limited", "missing"}
    assert all(check["detail"] for check in answer["checks"])
    names = [line.split()[0] for line in run_hanok(hanok, "doctor").stdout.splitlines()]
    assert [check["name"] for check in answer["checks"]] == names


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_doctor_without_privilege(hanok):
    """As nobody it says what is missing instead of failing."""
    result = subprocess.run(
        [hanok, "doctor"], user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "memory       ok" in result.stdout
