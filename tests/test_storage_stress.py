# SPDX-License-Identifier: Apache-2.0
"""Real file systems under load on each controller, on sparse VMDKs: left to work, killed in the middle, killed on
chains of snapshots, and on a host whose disk is full.

The load is stress-ng's file system stressors and tests/guest/fs_load.c, each of whose steps is synced before it is
printed, and whose checker knows from the last printed number what has to be there. The judges are the guest's
ext4 and e2fsck, the host's e2fsck and qemu-img, and `hanok disk check`.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from conftest import TIMEOUT_SCALE, TOP, Vm, run_hanok, trouble_of

MIB = 1 << 20
# What --controller says, the modules it takes and the disk's name in the guest.
CONTROLLERS = {
    "virtio-blk": ("virtio_pci,virtio_blk", "vda"),
    "nvme": ("nvme", "nvme0n1"),
    "pvscsi": ("vmw_pvscsi,sd_mod", "sda"),
    "lsilogic": ("mptspi,sd_mod", "sda"),
    "ahci": ("ahci,sd_mod", "sda"),
    "ide": ("ata_piix,sd_mod", "sda"),
}
PROGRAMS = ("/sbin/mke2fs", "/sbin/e2fsck")
STRESSORS = "hdd iomix dir rename link symlink dentry fallocate filename utime chmod"
DISK_TROUBLE = re.compile(
    r"I/O error|EXT4-fs (error|warning)|JBD2|exception Emask|failed command|[Rr]esetting|task abort|Sense Key"
    r"|lost interrupt|timeout|Aborting journal"
)
LOAD_SECONDS = 25


@pytest.fixture(scope="session")
def fs_load(tmp_path_factory):
    program = tmp_path_factory.mktemp("stress") / "fs_load"
    source = TOP / "tests/guest/fs_load.c"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-static", "-o", program, source], check=True)
    return program


class Machine:
    """A machine in a folder, with one disk, on a terminal of its own each time it is started."""

    def __init__(self, hanok, kit, folder, logs, controller, stress):
        self.hanok, self.kit, self.folder, self.logs = hanok, kit, folder, logs
        self.stress = stress  # stress-ng is there
        self.device = "/dev/" + CONTROLLERS[controller][1]
        self.starts, self.vm, self.rounds = 0, None, []
        self.ok("create", folder, "--disk", "256M", "--controller", controller, "--memory", "512M", "--cpus", 2,
                "--kernel", kit.kernel, "--initrd", kit.initrd, "--append", "console=ttyS0")  # fmt: skip

    def ok(self, *words):
        """A verb of hanok that has to succeed."""
        result = run_hanok(self.hanok, *words, timeout=120)
        assert result.returncode == 0, f"{words}: {result.stderr}"
        return result.stdout

    def start(self):
        self.close()
        self.starts += 1
        log = self.logs / f"console{self.starts}"
        self.vm = Vm(self.hanok, ["run", "--engine", "bt", self.folder], log)
        self.vm.boot()
        self.vm.output(f"n=0; while [ ! -b {self.device} ] && [ $((n += 1)) -lt 600 ]; do sleep 0.1; done;"
                       f" [ -b {self.device} ]")  # fmt: skip
        return self.vm

    def make(self):
        """A file system, mounted."""
        self.vm.output(f"/bin/mke2fs -q -t ext4 {self.device}", 120)
        self.mount()

    def mount(self):
        self.vm.output(f"mount -t ext4 -o discard {self.device} /mnt", 120)

    def load(self, steps="", stress=True):
        """Both loads begin; the one that prints is a new round, in a folder of its own."""
        number = len(self.rounds)
        self.rounds.append(0)
        self.vm.output(f"mkdir -p /mnt/stress /mnt/round{number}; sync")
        if stress and self.stress:
            self.vm.output(stress_command(60) + " >/tmp/stress 2>&1 &")
        self.vm.start(f"fs_load write /mnt/round{number} {number} {steps}; echo load-'ended'")

    def reach(self, step):
        """Follow the round until this step is synced."""
        self.vm.expect(rf"synced {step}\r*\n", 120)
        self.rounds[-1] = step + 1

    def watch(self, seconds):
        """Follow the round for so long; false when it ended by itself. Counts what was synced."""
        end = time.monotonic() + seconds
        while True:
            left = max(end - time.monotonic(), 0.01) / TIMEOUT_SCALE
            try:
                found = self.vm.expect(r"synced (\d+)\r*\n|load-ended\r*\n", left)
            except AssertionError:
                assert self.vm.child.isalive(), self.vm.shown()
                return True
            if not found[1]:
                return False
            self.rounds[-1] = int(found[1]) + 1
            if time.monotonic() > end:
                return True

    def kill(self):
        """kill -9; what the dying process still printed counts."""
        os.kill(self.vm.child.pid, signal.SIGKILL)
        with contextlib.suppress(AssertionError):
            while True:
                self.rounds[-1] = int(self.vm.expect(r"synced (\d+)\r*\n", 10)[1]) + 1
        assert self.vm.ending() == f"signal {signal.SIGKILL}"
        self.close()

    def check_rounds(self, count=None):
        """In the guest: everything that was synced in any round is there."""
        for number, steps in enumerate(self.rounds[:count]):
            self.vm.output(f"fs_load check /mnt/round{number} {number} {steps}", 120)

    def unmount(self):
        self.vm.output(f"umount /mnt && echo 3 >/proc/sys/vm/drop_caches && e2fsck -fn {self.device}", 180)

    def check_kernel_log(self, qemu_trouble):
        log = self.vm.output("dmesg")
        assert trouble_of(log) - qemu_trouble(self.kit, 2) == set()
        assert [line for line in log.splitlines() if DISK_TROUBLE.search(line)] == []

    def power_off(self):
        self.vm.start("poweroff")
        assert self.vm.end() == 0

    def top(self):
        """The file that the machine writes to now."""
        return self.folder / re.search(r'fileName = "(.*\.vmdk)"', next(self.folder.glob("*.vmx")).read_text())[1]

    def check_image(self, journal=False):
        """On the host; journal: what was cut off in the middle may be mended from its journal, and no more."""
        top = self.top()
        found = json.loads(self.ok("disk", "check", "--json", top))
        assert not any(link["errors"] for link in found), found
        subprocess.run(["qemu-img", "check", "-q", "-f", "vmdk", top], check=True)
        self.check_file_system(top, journal)

    def check_file_system(self, image, journal):
        raw = self.logs / "raw"
        subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", image, raw], check=True)
        mine = self.logs / "by-hanok.img"
        self.ok("disk", "convert", image, mine)
        subprocess.run(["cmp", raw, mine], check=True)
        if journal:  # -p: the journal, and files that were removed while open; it stops at real damage
            result = subprocess.run(["e2fsck", "-p", raw], capture_output=True, text=True, check=False)
            assert result.returncode in (0, 1), result.stdout + result.stderr
        result = subprocess.run(["e2fsck", "-fn", raw], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        raw.unlink()
        mine.unlink()

    def snapshot(self, name):
        """Of the stopped machine, or of the running one by its socket. Returns the answer."""
        if not self.vm:
            self.ok("snapshot", "create", self.folder, name)
            return {"ok": True}
        lock = next(self.folder.glob("*.vmx.lck")).read_text().split()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(lock[1])
            connection.settimeout(60 * TIMEOUT_SCALE)
            connection.sendall(json.dumps({"do": "snapshot-create", "name": name}).encode() + b"\n")
            return json.loads(connection.makefile("rb").readline())

    def close(self):
        if self.vm:
            self.vm.close()
            self.vm = None


def stress_command(seconds):
    each = " ".join(f"--{name} 1" for name in STRESSORS.split())
    return (f"stress-ng {each} --hdd-bytes 16m --iomix-bytes 4m --fallocate-bytes 8m --dir-dirs 256"
            f" --dentries 256 --temp-path /mnt/stress --timeout {seconds}")  # fmt: skip


@pytest.fixture
def machines(hanok, guest, fs_load, tmp_path, monkeypatch):
    """A function: controller (and folder) -> Machine; with stress-ng in its guest, or without."""
    # Sockets have short paths, pytest's folders long ones.
    runtime = tempfile.mkdtemp(prefix="hanok-", dir="/tmp")
    monkeypatch.setenv("HANOK_RUNTIME", runtime)
    made = []

    def make(controller, folder=tmp_path / "vm", stress=True):
        programs = [*PROGRAMS, fs_load]
        if stress:
            programs.append(shutil.which("stress-ng"))
            if not programs[-1]:
                pytest.skip("stress-ng is not installed; to get it: sudo apt-get install stress-ng")
        kit = guest("generic", CONTROLLERS[controller][0] + ",crc32c_generic,ext4", programs)
        made.append(Machine(hanok, kit, folder, tmp_path, controller, stress))
        return made[-1]

    yield make
    for machine in made:
        machine.close()
    shutil.rmtree(runtime)


@pytest.fixture(params=CONTROLLERS)
def controller(request):
    return request.param


@pytest.fixture
def dice(request):
    """Random moments. HANOK_SEED repeats a run's."""
    seed = int(os.environ.get("HANOK_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"HANOK_SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")


def work(machine, seconds, qemu_trouble):
    vm = machine.start()
    machine.make()
    machine.load(steps=100, stress=False)
    assert not machine.watch(120 * TIMEOUT_SCALE) and machine.rounds[0] == 100, vm.shown()
    report = vm.output(stress_command(seconds) + " --verify 2>&1", 120 + 10 * seconds)
    assert "successful run completed" in report and "fail" not in report
    vm.output("sync; echo 3 >/proc/sys/vm/drop_caches; cp -r /bin /mnt/bin; sync; echo 3 >/proc/sys/vm/drop_caches")
    vm.output("cmp /bin/busybox /mnt/bin/busybox && cmp /bin/stress-ng /mnt/bin/stress-ng", 120)
    machine.check_rounds()
    machine.unmount()
    machine.check_kernel_log(qemu_trouble)
    machine.power_off()
    machine.check_image()


@pytest.mark.slow
def test_load(machines, controller, qemu_trouble):
    """All sorts of work on files, to the end: everybody finds the file system and the image whole."""
    work(machines(controller), LOAD_SECONDS, qemu_trouble)


@pytest.mark.slow
def test_kill(machines, controller, dice, qemu_trouble):
    """kill -9 in the middle, twice: the image is sound, the journal recovers, what was synced is there."""
    machine = machines(controller)
    machine.start()
    machine.make()
    for _ in range(2):
        machine.load()
        machine.reach(10)  # or it is no load
        assert machine.watch(dice.random() * 10), machine.vm.shown()
        machine.kill()
        machine.check_image(journal=True)
        machine.start()
        machine.mount()
        machine.check_rounds()
    machine.unmount()
    machine.check_kernel_log(qemu_trouble)
    machine.power_off()
    machine.check_image()


def test_kill_once(machines, dice):
    """The short one: a moment's load, kill -9, and everything that was synced."""
    machine = machines("pvscsi", stress=False)
    machine.start()
    machine.make()
    machine.load(stress=False)
    machine.reach(10)
    assert machine.watch(dice.random()), machine.vm.shown()
    machine.kill()
    machine.check_image(journal=True)
    machine.start()
    machine.mount()
    machine.check_rounds()


@pytest.mark.slow
def test_kill_on_a_chain(machines, controller, dice):
    """The same with snapshots, taken under load and of the stopped machine; they, too, stay sound."""
    machine = machines(controller)
    machine.start()
    machine.make()
    for number in range(2):
        machine.load()
        machine.reach(5)
        assert machine.watch(dice.random() * 4), machine.vm.shown()
        before, frozen = list(machine.rounds), machine.top()
        assert machine.snapshot(f"live{number}") == {"ok": True, "uid": 2 * number + 1}
        assert machine.top() != frozen
        machine.check_file_system(frozen, journal=True)
        assert machine.watch(2 + dice.random() * 4), machine.vm.shown()
        machine.kill()
        machine.check_image(journal=True)
        machine.snapshot(f"stopped{number}")
        machine.start()
        machine.mount()
        machine.check_rounds()
    machine.unmount()
    machine.power_off()
    machine.check_image()
    # Back to the second one that was taken under load: what was synced before it is there.
    machine.ok("snapshot", "revert", machine.folder, "live1")
    synced, machine.rounds = machine.rounds, before
    machine.start()
    machine.mount()
    machine.vm.output(f"fs_load check /mnt/round0 0 {synced[0]}", 120)
    at_least = machine.vm.output("cd /mnt/round1; ls | sed -n 's/^file//p' | sort -n | tail -n 1; cd /")
    assert int(at_least or 0) >= before[1] - 2
    machine.unmount()
    machine.power_off()
    for name in ("live0", "stopped0"):
        machine.ok("snapshot", "delete", machine.folder, name)
    machine.check_image()


@pytest.mark.slow
def test_many_snapshots_under_load(machines):
    """One on the other while the guest writes; then kill -9."""
    machine = machines("lsilogic")
    machine.start()
    machine.make()
    machine.load()
    machine.reach(5)
    for number in range(12):
        assert machine.snapshot(f"live{number}") == {"ok": True, "uid": number + 1}
        assert machine.watch(0.2), machine.vm.shown()
    machine.kill()
    machine.check_image(journal=True)
    machine.start()
    machine.mount()
    machine.check_rounds()
    machine.unmount()


@contextlib.contextmanager
def small_host(folder, size):
    """A file system of the host, and a function that gives it another size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "small", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs takes root")
    try:
        yield lambda more: subprocess.run(["mount", "-o", f"remount,size={more}", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_full_host(machines, controller, dice, tmp_path):
    """No space on the host in the middle of the work: errors in the guest, a sound image; with room it goes on."""
    small = tmp_path / "small"
    with small_host(small, "400m") as resize:
        machine = machines(controller, small / "vm")
        vm = machine.start()
        machine.make()
        for _ in range(2):
            machine.load(stress=False)
            machine.reach(30)
            resize(used(small) + dice.randrange(64 << 10, 3 * MIB))
            assert not machine.watch(120 * TIMEOUT_SCALE), vm.shown()
            assert machine.rounds[-1] > 30
            assert re.search("I/O error|space allocation", vm.output("dmesg"))
            resize("400m")
            # ext4 was told what is lost, and mends that; what it was told is safe is there.
            vm.output("umount /mnt; echo 3 >/proc/sys/vm/drop_caches")
            mended = vm.run(f"e2fsck -fy {machine.device}", 120)
            assert mended.status in (0, 1), mended.output
            machine.mount()
            machine.check_rounds()
        machine.load(steps=100, stress=False)
        assert not machine.watch(120 * TIMEOUT_SCALE) and machine.rounds[-1] == 100, vm.shown()
        machine.check_rounds()
        machine.unmount()
        machine.power_off()
        machine.check_image()
        machine.start()
        machine.mount()
        machine.check_rounds()
        machine.unmount()
        machine.power_off()


@pytest.mark.slow
def test_kill_on_a_full_host(machines, controller, dice, tmp_path):
    """Killed while there is no space: nothing that was synced is lost."""
    small = tmp_path / "small"
    with small_host(small, "400m") as resize:
        machine = machines(controller, small / "vm")
        machine.start()
        machine.make()
        machine.load()
        machine.reach(30)
        resize(used(small) + dice.randrange(64 << 10, 3 * MIB))
        machine.watch(3 + dice.random() * 3)
        machine.kill()
        resize("400m")
        machine.ok("disk", "check", machine.top())
        vm = machine.start()
        mended = vm.run(f"e2fsck -fy {machine.device}", 120)
        assert mended.status in (0, 1), mended.output
        machine.mount()
        machine.check_rounds()
        machine.unmount()
        machine.power_off()
        machine.check_image()


@pytest.mark.slow
def test_snapshot_on_a_full_host(machines, tmp_path):
    """It is refused, leaves nothing behind, and the machine works on as before; with room it succeeds."""
    small = tmp_path / "small"
    with small_host(small, "400m") as resize:
        machine = machines("pvscsi", small / "vm", stress=False)
        machine.start()
        machine.make()
        machine.load(steps=50)
        assert not machine.watch(120 * TIMEOUT_SCALE)
        machine.vm.output("sync")
        files, top = sorted(machine.folder.iterdir()), machine.top()
        resize(used(small))
        answer = machine.snapshot("refused")
        assert not answer["ok"] and "No space" in answer["error"], answer
        assert (sorted(machine.folder.iterdir()), machine.top()) == (files, top)
        resize("400m")
        machine.load(steps=50)
        assert not machine.watch(120 * TIMEOUT_SCALE) and machine.rounds == [50, 50]
        assert machine.snapshot("taken")["ok"]
        machine.load(steps=50)
        assert not machine.watch(120 * TIMEOUT_SCALE) and machine.rounds == [50, 50, 50]
        machine.kill()
        machine.check_image(journal=True)
        machine.start()
        machine.mount()
        machine.check_rounds()
        machine.unmount()


def used(folder):
    space = os.statvfs(folder)
    return (space.f_blocks - space.f_bfree) * space.f_frsize
