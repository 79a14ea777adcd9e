# SPDX-License-Identifier: Apache-2.0
"""The balloon of a stock Linux: by hand, by itself below a memory limit, and free pages reported."""

import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from conftest import TIMEOUT_SCALE, Vm, error_line, run_hanok

MIB = 1 << 20
PATIENCE = 60 * TIMEOUT_SCALE


class Machine:
    """A machine in a folder, its Linux booted to a shell."""

    def __init__(self, hanok, guest, folder, *options):
        self.hanok = hanok
        made = run_hanok(hanok, "create", folder, "--disk", "none", "--memory", "512M", "--kernel", guest.kernel,
                         "--initrd", guest.initrd, "--append", "console=ttyS0")  # fmt: skip
        assert made.returncode == 0, made.stderr
        self.folder = folder
        self.vm = Vm(hanok, ["run", folder, *options], folder / "console")
        self.vm.boot()

    def balloon(self, *words):
        """What `hanok balloon --json` answers."""
        result = run_hanok(self.hanok, "balloon", "--json", self.folder, *words)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def wait(self, what, true):
        """The answer for which it is true."""
        end = time.monotonic() + PATIENCE
        while not true(answer := self.balloon()):
            assert time.monotonic() < end, f"{what}: {answer}"
            time.sleep(0.1)
        return answer

    def resident(self):
        """MiB of its RAM that the host holds."""
        machines = json.loads(run_hanok(self.hanok, "ps", "--json").stdout)
        mine = [m for m in machines if m["vmx"].startswith(f"{self.folder}/")]
        return mine[0]["memory_resident_bytes"] / MIB

    def free(self):
        """MiB that are free in the guest."""
        return int(re.search(r"MemFree:\s+(\d+)", self.vm.output("cat /proc/meminfo"))[1]) / 1024


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A place for sockets, whose paths have to be short."""
    runtime = Path(tempfile.mkdtemp(prefix="hanok-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANOK_RUNTIME", str(runtime))
        yield tmp_path_factory.mktemp("balloon")
    shutil.rmtree(runtime)


@pytest.fixture(scope="module")
def machine(hanok, guest, house):
    """One without a limit."""
    made = Machine(hanok, guest("cloud", "virtio_pci,virtio_balloon"), house / "hand")
    yield made
    made.vm.close()


def test_by_hand(machine):
    # Once free pages were reported, what the host holds is what the guest uses.
    before = machine.wait("nothing is reported", lambda a: a["reported_pages"] > 10000)
    assert before["driver"] and before["mode"] == "auto" and before["target_bytes"] == 0
    assert before["guest"]["total_bytes"] > 400 * MIB
    free = machine.free()
    machine.vm.output("dd if=/dev/zero of=/tmp/a bs=1M count=220; rm /tmp/a")
    machine.balloon("200M")
    after = machine.wait("it does not grow", lambda a: a["actual_bytes"] == 200 * MIB)
    assert after["mode"] == "off" and after["inflated_pages"] >= 200 * MIB / 4096
    assert abs(free - machine.free() - 200) < 20
    assert machine.resident() < 512 - 200 + 5
    # The guest's own word.
    fresh = machine.wait("no news", lambda a: a["guest"]["free_bytes"] < (free - 150) * MIB)
    assert fresh["guest"]["age_s"] < 10
    machine.balloon("off")
    machine.wait("it does not shrink", lambda a: a["actual_bytes"] == 0)
    assert abs(free - machine.free()) < 20
    # All of it can be used again, and holds what is written.
    machine.vm.output("dd if=/dev/urandom of=/tmp/a bs=1M count=200 && cp /tmp/a /dev/shm/a")
    machine.vm.output("cmp /tmp/a /dev/shm/a && rm /tmp/a /dev/shm/a")


def test_reporting(machine):
    """Memory comes back after a process has ended, with nobody asking for it."""
    machine.vm.output("dd if=/dev/urandom of=/tmp/a bs=1M count=200")
    full = machine.resident()
    assert full > 200
    machine.vm.output("rm /tmp/a")
    end = time.monotonic() + PATIENCE
    while machine.resident() > full - 150:
        assert time.monotonic() < end, machine.balloon()
        time.sleep(0.2)
    assert machine.balloon()["target_bytes"] == 0


def test_words(machine, hanok):
    assert "balloon: 0 B of the 0 B wanted" in run_hanok(hanok, "balloon", machine.folder).stdout
    result = run_hanok(hanok, "balloon", machine.folder, "lots")
    assert result.returncode == 2 and "it is a size as in 256M, off or auto" in error_line(result)
    result = run_hanok(hanok, "balloon", machine.folder, "4T")
    assert result.returncode == 125 and "target_bytes" in error_line(result)
    assert machine.balloon("auto")["mode"] == "auto"
    result = run_hanok(hanok, "run", "--kernel", "x", "--balloon", "red")
    assert result.returncode == 2 and error_line(result).endswith("--balloon red: it is auto, off or none")


@pytest.mark.parametrize("how", ["auto", "none"])
def test_without_driver(hanok, guest, house, how):
    machine = Machine(hanok, guest("cloud"), house / f"bare-{how}", "--balloon", how)
    try:
        devices = machine.vm.output("cat /sys/bus/pci/devices/*/device")
        assert ("0x1045" in devices) == (how == "auto")
        why = "no driver for the balloon" if how == "auto" else "it has no balloon"
        for words in ((), ("64M",)):
            result = run_hanok(hanok, "balloon", machine.folder, *words)
            assert result.returncode == 125 and why in error_line(result)
        # Nothing to take away, and nobody to do it.
        assert run_hanok(hanok, "balloon", machine.folder, "off").returncode == (0 if how == "auto" else 125)
    finally:
        machine.vm.close()


def test_by_itself(hanok, guest, house):
    """Below a limit the guest loses copies of files, rather than having pages swapped out."""
    disk = house / "files"
    with open(disk, "wb") as file:
        for _ in range(300):
            file.write(os.urandom(MIB))
    modules = "virtio_pci,virtio_blk,virtio_balloon"
    machine = Machine(hanok, guest("cloud", modules), house / "auto", "--memory-limit", "192M",
                      "--disk", f"{disk},readonly")  # fmt: skip
    try:
        machine.vm.output("dd if=/dev/urandom of=/tmp/a bs=1M count=40; md5sum /tmp/a >/tmp/sum")
        # While the host has much else to do, pages may go out faster than the balloon can grow.
        for turn in range(4):
            machine.vm.output("cat /dev/vda >/dev/null", 120)
            try:
                machine.wait("it does not grow", lambda a: a["actual_bytes"] > 250 * MIB)
                break
            except AssertionError:
                if turn == 3:
                    raise
        before = machine.wait("it grows too much", lambda a: a["guest"]["available_bytes"] > 20 * MIB)
        assert before["mode"] == "auto"
        # Without it about as much as is read is swapped out.
        machine.vm.output("cat /dev/vda >/dev/null", 120)
        after = machine.balloon()
        assert (after["host"]["swapped_out_pages"] - before["host"]["swapped_out_pages"]) * 4096 < 60 * MIB
        assert after["host"]["used_bytes"] <= 200 * MIB
        # A guest that is short gets memory back, without a process being killed.
        machine.vm.output("dd if=/dev/zero of=/tmp/b bs=1M count=150")
        machine.wait("it does not shrink", lambda a: a["target_bytes"] < after["target_bytes"] - 50 * MIB)
        assert machine.vm.output("md5sum -c /tmp/sum") == "/tmp/a: OK"
        assert "Out of memory" not in machine.vm.output("dmesg")
    finally:
        machine.vm.close()
