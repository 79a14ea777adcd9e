# SPDX-License-Identifier: Apache-2.0
"""The window (src/cpu/bt/window.c): pages of the guest's process that runs, mapped at the guest's own addresses."""

import time
from pathlib import Path

import pytest
from conftest import TIMEOUT_SCALE, Vm

SLICE = range(2 << 44, 3 << 44)
USER_END = 1 << 47
BUSY = "i=0; while [ $i -lt {} ]; do i=$((i+1)); done; echo $i"
# What a shell does: forks, pipes, files, memory that comes and goes.
MIXED = (
    "sh -c '"
    "for n in 1 2 3 4 5 6; do (" + BUSY.format(3000) + ") & done; wait; "
    "dd if=/dev/zero bs=64k count=64 2>/dev/null | md5sum; "
    "seq 1 20000 | sort -rn | head -n 3; "
    "mkdir -p /tmp/w; for n in 1 2 3; do seq $n 5000 > /tmp/w/$n; done; cat /tmp/w/* | wc -l"
    "'"
)


def windows(pid):
    """The lines of the process's maps that are the window's, as (access, start)."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, access, rest = line.split(None, 2)
        start = int(addresses.split("-")[0], 16)
        if start not in SLICE and start < USER_END and not rest.endswith("[stack]"):
            found.append((access, start))
    return found


@pytest.fixture
def boot(hanok, guest, tmp_path):
    """boot(*options): a machine with Debian's cloud kernel, at its shell."""
    machines = []

    def boot(*options):
        kit = guest("cloud")
        vm = Vm(
            hanok,
            ["run", "--kernel", kit.kernel, "--initrd", kit.initrd, "--append", "console=ttyS0", "--memory", "512M"]
            + ["--engine", "bt", *options],
            tmp_path / "console",
        )
        machines.append(vm)
        vm.boot()
        return vm

    yield boot
    for vm in machines:
        vm.close()


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds * TIMEOUT_SCALE
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def possible(hanok):
    """Not under sanitizers: those have their own layout of the address space."""
    if b"__asan_init" in Path(hanok).read_bytes() or b"__tsan_init" in Path(hanok).read_bytes():
        pytest.skip("a sanitizer's build has no window")


def test_busy_process_has_it(boot):
    """A process that computes for a while finds its memory in the window, and others come after it."""
    vm = boot()
    vm.start("(" + BUSY.format(2000000) + ")")
    assert wait_for(lambda: windows(vm.child.pid))
    found = windows(vm.child.pid)
    assert all(access[2] == "-" and access[3] == "s" for access, _ in found), found  # never executable
    vm.expect(r"2000000\r*\n", 120)
    assert vm.output(MIXED).splitlines()[-1] == "14997"


def test_limit_takes_it_away(boot):
    """Where memory has a limit from the beginning, there is none."""
    vm = boot("--memory-limit", "256M")
    vm.start("(" + BUSY.format(300000) + ")")
    vm.expect(r"300000\r*\n", 120)
    assert not windows(vm.child.pid)


def test_several_processors(boot):
    """Machines of several virtual CPUs have none."""
    vm = boot("--cpus", 2)
    vm.start("(" + BUSY.format(300000) + ")")
    vm.expect(r"300000\r*\n", 120)
    assert not windows(vm.child.pid)


def test_everything_in_it(boot, monkeypatch):
    """With the window for every process at once, programs come to the same results."""
    plain = boot().output(MIXED)
    monkeypatch.setenv("HANOK_BT_STRESS", "window")
    assert sorted(boot().output(MIXED).split()) == sorted(plain.split())
