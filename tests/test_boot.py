# SPDX-License-Identifier: Apache-2.0
"""Stock kernels boot to a shell, behave, and end as they were told to.

A boot costs tens of seconds on the interpreter, so each class boots one machine, asks it everything that
machine can answer, and lets its last test end it in one of the ways a guest can end.
"""

import hashlib
import re
import time

import pytest
from conftest import BOOT_SECONDS, END_SECONDS, TIMEOUT_SCALE, Vm, error_line, run_hanok, trouble_of

APPEND = "console=ttyS0"


def arguments_of(guest, engine, *, memory="512M", cpus=1, append="", options=()):
    """The command line of `hanok run` for a guest."""
    return [
        "run", "--kernel", guest.kernel, "--initrd", guest.initrd, "--append", f"{APPEND} {append}".strip(),
        "--memory", memory, "--cpus", cpus, "--engine", engine, *options,
    ]  # fmt: skip


@pytest.fixture(scope="class")
def vm(request, hanok, engine, guest, tmp_path_factory):
    """The machine that the class describes, booted to its shell."""
    machine = request.cls
    arguments = arguments_of(
        guest(machine.guest),
        engine,
        memory=machine.memory,
        cpus=machine.cpus,
        append=machine.append,
        options=machine.options,
    )
    log = tmp_path_factory.mktemp(machine.__name__) / "console"
    machine_vm = Vm(hanok, arguments, log)
    try:
        machine_vm.boot()
        yield machine_vm
    finally:
        machine_vm.close()


def mebibytes(size):
    """'512M' -> 512, '4G' -> 4096."""
    return int(size[:-1]) * {"M": 1, "G": 1024}[size[-1]]


class Machine:
    """One machine: what it is made of, and what is true of all of them. Subclasses are tests."""

    guest = "cloud"
    architecture = "x86_64"
    memory = "512M"
    cpus = 1
    append = ""
    options = ()

    def test_uname(self, vm, guest):
        release = guest(self.guest).kernel.name.removeprefix("vmlinuz-")
        assert vm.output("uname -r") == release
        assert vm.output("uname -m") == self.architecture
        assert vm.output("hostname") == "hanok"

    def test_processors(self, vm):
        assert vm.output("nproc") == str(self.cpus)
        cpuinfo = vm.output("cat /proc/cpuinfo")
        assert re.findall(r"^processor\s*: (\d+)", cpuinfo, re.M) == [str(i) for i in range(self.cpus)]
        for flags in re.findall(r"^flags\s*: (.*)", cpuinfo, re.M):
            wanted = {"fpu", "tsc", "msr", "apic", "cx8", "cmov", "pse", "pge", "sse", "sse2", "fxsr"}
            if self.architecture == "x86_64":
                wanted |= {"lm", "syscall", "nx", "pae"}
            assert wanted <= set(flags.split())

    def test_memory(self, vm):
        """What the kernel counts is what was asked for, less its own image and tables."""
        total = int(re.search(r"MemTotal:\s+(\d+) kB", vm.output("cat /proc/meminfo"))[1]) / 1024
        asked = mebibytes(self.memory)
        assert 0.9 * asked - 80 < total <= asked

    def test_date(self, vm):
        """The guest's clock was set from the real-time clock, which is the host's."""
        before = time.time()
        now = int(vm.output("date +%s"))
        assert before - 2 <= now <= time.time() + 2

    def test_computes(self, vm):
        """Integers, floating point, pipes and processes give the host's own answers."""
        lines = "".join(f"{i}\n" for i in range(1, 301))
        digest = hashlib.sha256(lines.encode()).hexdigest()
        assert vm.output("seq 1 300 | sort -rn | sort -n | gzip | gunzip | sha256sum") == f"{digest}  -"
        number = vm.output("awk 'BEGIN { for (i = 1; i <= 40; i++) x += 1 / (i * i); printf \"%.12g\", x }'")
        assert number == f"{sum(1 / (i * i) for i in range(1, 41)):.12g}"
        assert vm.run("sh -c 'kill -SEGV $$'").status == 128 + 11
        assert vm.run("false").status == 1

    def test_kernel_log(self, vm, guest, qemu_trouble):
        """No warning, call trace or odd MSR that the same kernel under QEMU does not give too."""
        dmesg = vm.output("dmesg")
        assert "Linux version" in dmesg
        assert trouble_of(dmesg) - qemu_trouble(guest(self.guest), self.cpus) == set()


def check_sleep(vm, seconds):
    """The guest's clock and its sleep keep the host's time, within 1 % (and 50 ms for the serial line).

    All of it is built into the shell: `read -t` waits for input that does not come. A `sleep` would add the
    start of three processes, which on a slow engine takes longer than the tolerance.
    """
    tolerance = seconds / 100 + 0.05
    look = "read -r up rest </proc/uptime; echo up $up"
    vm.start(f"{look}; read -t {seconds} nothing; {look}")
    first = float(vm.expect(r"up ([\d.]+)\r*\n")[1])
    started = time.monotonic()
    last = float(vm.expect(r"up ([\d.]+)\r*\n", seconds * 2 + 10)[1])
    elapsed = time.monotonic() - started
    assert abs(last - first - elapsed) <= tolerance
    assert abs(elapsed - seconds) <= tolerance


class TestCloud(Machine):
    """One CPU; ends by powering off."""

    def test_sleep(self, vm):
        check_sleep(vm, 10)

    @pytest.mark.slow
    def test_sleep_a_minute(self, vm):
        check_sleep(vm, 60)

    def test_long_input(self, vm):
        """More than the serial port's 16-byte queue, typed at once."""
        word = "0123456789abcdef" * 60
        assert vm.output(f"echo {word}") == word

    def test_poweroff(self, vm):
        vm.start("poweroff")
        assert vm.end() == 0


class TestCloudTwoCpus(Machine):
    """Two CPUs and memory on both sides of the hole below 4 GiB; ends by a triple fault, which is how
    reboot=triple reboots, and which is a crash where nothing reboots."""

    memory = "4G"
    cpus = 2
    append = "reboot=triple"
    options = ("--no-reboot",)

    def test_both_work(self, vm):
        """A process bound to a CPU says it runs there (the 39th field of /proc/self/stat)."""
        for cpu in range(self.cpus):
            stat = vm.output(f"taskset {1 << cpu:x} cat /proc/self/stat")
            assert stat.rpartition(")")[2].split()[36] == str(cpu)

    def test_calls_between_cpus(self, vm):
        """CPUs interrupt each other (rescheduling and function calls), and each has a ticking timer."""
        interrupts = vm.output("cat /proc/interrupts")
        for name in ("CAL", "LOC"):
            counts = re.search(rf"^\s*{name}:((?:\s+\d+)+)", interrupts, re.M)[1].split()
            assert len(counts) == self.cpus
            assert all(int(count) > 0 for count in counts)

    def test_triple_fault(self, vm):
        vm.start("reboot")
        assert vm.end() == 3


class Test686Pae(Machine):
    """32 bits with PAE paging; ends by a crash that reboots, which --no-reboot turns into an end."""

    guest = "i686-pae"
    architecture = "i686"
    memory = "1G"
    append = "panic=1"
    options = ("--no-reboot",)

    def test_panic_and_reboot(self, vm):
        vm.start("echo c >/proc/sysrq-trigger")
        vm.expect("Kernel panic - not syncing: sysrq triggered crash")
        vm.expect("Rebooting in 1 seconds")
        assert vm.end() == 0


class Test686(Machine):
    """32 bits with two-level paging and little memory; ends by a reboot that --no-reboot makes the end."""

    guest = "i686"
    architecture = "i686"
    memory = "128M"
    options = ("--no-reboot",)

    def test_reboot(self, vm):
        vm.start("reboot")
        assert vm.end() == 0


@pytest.mark.slow
class TestGeneric(Machine):
    """Debian's ordinary kernel."""

    guest = "generic"
    memory = "1G"

    def test_poweroff(self, vm):
        vm.start("poweroff")
        assert vm.end() == 0


@pytest.mark.slow
class TestGenericTwoCpus(Machine):
    guest = "generic"
    memory = "3G"
    cpus = 2

    def test_poweroff(self, vm):
        vm.start("poweroff")
        assert vm.end() == 0


@pytest.mark.slow
class Test686PaeTwoCpus(Machine):
    guest = "i686-pae"
    architecture = "i686"
    memory = "4G"
    cpus = 2

    def test_poweroff(self, vm):
        vm.start("poweroff")
        assert vm.end() == 0


@pytest.mark.slow
class TestCloudSmall(Machine):
    memory = "128M"

    def test_halt(self, vm):
        """A halted machine is not off: it stays until someone ends it."""
        vm.start("halt -f")
        vm.expect("reboot: System halted")
        time.sleep(3)
        assert vm.child.isalive()


@pytest.mark.slow
def test_reboot_starts_again(hanok, engine, guest, tmp_path):
    """Without --no-reboot a reboot boots the same kernel once more."""
    machine = Vm(hanok, arguments_of(guest("cloud"), engine), tmp_path / "console")
    try:
        machine.boot()
        machine.start("reboot")
        machine.boot()
        machine.start("poweroff")
        assert machine.end() == 0
    finally:
        machine.close()


@pytest.mark.slow
def test_panic_stays(hanok, engine, guest, tmp_path):
    """With panic=0 a crashed kernel stands still until --timeout."""
    seconds = int(150 * TIMEOUT_SCALE)
    arguments = arguments_of(guest("cloud"), engine, append="panic=0", options=("--timeout", seconds))
    machine = Vm(hanok, arguments, tmp_path / "console")
    try:
        machine.boot()
        machine.start("echo c >/proc/sysrq-trigger")
        machine.expect("end Kernel panic - not syncing: sysrq triggered crash")
        assert machine.end(150 + END_SECONDS) == 124
    finally:
        machine.close()


@pytest.mark.slow
@pytest.mark.parametrize("command, status", [("true", 0), ("exit 7", 7)])
def test_serial_to_a_file(hanok, engine, guest, tmp_path, command, status):
    """Without a terminal: the console goes to a file, one command runs, the guest powers itself off."""
    console = tmp_path / "console"
    arguments = arguments_of(
        guest("cloud"), engine, append=f'hanok.run="{command}"', options=("--serial", f"file:{console}")
    )
    result = run_hanok(hanok, *arguments, timeout=BOOT_SECONDS)
    assert result.returncode == 0, result.stderr
    assert f"hanok-guest: status {status}" in console.read_text(errors="replace")


def test_small_code_cache(hanok, guest):
    """A cache that fills up hundreds of times in a boot; each of its tables may be the one that is full."""
    arguments = arguments_of(guest("cloud"), "bt", append="hanok.run=true", options=("--code-cache", "3M"))
    result = run_hanok(hanok, *arguments, timeout=BOOT_SECONDS)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr
    assert "hanok-guest: status 0" in result.stdout


@pytest.mark.parametrize("option", ["--kernel", "--initrd"])
def test_missing_file(hanok, guest, tmp_path, option):
    files = {"--kernel": guest("cloud").kernel, "--initrd": guest("cloud").initrd}
    files[option] = tmp_path / "absent"
    result = run_hanok(hanok, "run", "--kernel", files["--kernel"], "--initrd", files["--initrd"])
    assert result.returncode == 125
    line = error_line(result)
    assert str(files[option]) in line
    assert "No such file" in line


# How much is left of a kernel that was cut: nothing; into the first sector, before the setup header and in
# the middle of it; no more than the setup code; half; all but the last page.
@pytest.mark.parametrize("size", [0, 1, 0x1F0, 0x210, 0x400, 0.5, -4096])
def test_truncated_kernel(hanok, guest, tmp_path, size):
    whole = guest("cloud").kernel.read_bytes()
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(whole[: int(len(whole) * size) if isinstance(size, float) else size])
    result = run_hanok(hanok, "run", "--kernel", kernel, "--timeout", 20)
    assert result.returncode == 125, result.stderr
    assert str(kernel) in error_line(result)


def test_not_a_kernel(hanok, tmp_path):
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"once upon a time " * 10000)
    result = run_hanok(hanok, "run", "--kernel", kernel, "--timeout", 20)
    assert result.returncode == 125, result.stderr
    assert str(kernel) in error_line(result)


def test_too_little_memory(hanok, guest):
    """A kernel that does not fit is refused before anything runs."""
    cloud = guest("cloud")
    result = run_hanok(
        hanok, "run", "--kernel", cloud.kernel, "--initrd", cloud.initrd, "--memory", "1M", "--timeout", 20
    )
    assert result.returncode in (2, 125)
    assert "memory" in error_line(result)
