# SPDX-License-Identifier: Apache-2.0
"""The disks of a machine that runs, seen from its control socket: counters that are right for a load that is
known, and snapshots that come and go while a guest's file system is written to.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from conftest import TIMEOUT_SCALE, Vm

MIB = 1 << 20
MODULES = "virtio_pci,virtio_blk,crc32c_generic,ext4"
PROGRAMS = ("/sbin/mkfs.ext4", "/sbin/e2fsck", "/sbin/blkdiscard")
# A process that keeps writing files, and notes what they should hold.
WRITER = (
    "while [ ! -e /stop ]; do for i in 1 2 3 4 5 6; do"
    " dd if=/dev/urandom of=/mnt/f$i bs=64k count=16 2>/dev/null; sync; done; done; touch /stopped"
)


class Machine:
    """A folder with a disk, run in the foreground."""

    def __init__(self, hanok, folder):
        self.hanok, self.folder, self.vm = hanok, folder, None
        self.runtime = Path(tempfile.mkdtemp(prefix="hanok-", dir="/tmp"))
        # Vm hands its own environment on.
        self.env = dict(os.environ, HANOK_RUNTIME=str(self.runtime))

    def make(self, kit, disk_mib):
        self.folder.mkdir()
        self.cli("disk", "create", self.folder / "live.vmdk", f"{disk_mib}M")
        words = {"displayName": "live", "memsize": "384", "hanok.kernel": kit.kernel, "hanok.initrd": kit.initrd,
                 "hanok.append": "console=ttyS0", "hanok.virtio0:0.present": "TRUE",
                 "hanok.virtio0:0.fileName": "live.vmdk"}  # fmt: skip
        text = "".join(f'{key} = "{value}"\n' for key, value in words.items())
        (self.folder / "live.vmx").write_text(text)

    def cli(self, *arguments):
        done = subprocess.run([self.hanok, *map(str, arguments)], env=self.env, capture_output=True, text=True,
                              check=False, timeout=120 * TIMEOUT_SCALE)  # fmt: skip
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def snapshot(self, act, *words):
        return self.cli("snapshot", act, self.folder / "live.vmx", *words)

    def boot(self, log):
        words = ["HANOK_RUNTIME=" + str(self.runtime), self.hanok, "run", self.folder / "live.vmx", "--engine", "bt"]
        self.vm = Vm("/usr/bin/env", words, log)
        self.vm.boot()
        return self.vm

    def disk(self):
        path = (self.folder / "live.vmx.lck").read_text().split()[1]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30 * TIMEOUT_SCALE)
            connection.connect(path)
            connection.sendall(b'{"do":"disks"}\n')
            answer = json.loads(connection.makefile("rb").readline())
        assert len(answer["disks"]) == 1
        return answer["disks"][0]

    def power_off(self):
        self.vm.start("poweroff -f")
        assert self.vm.end() == 0

    def close(self):
        if self.vm:
            self.vm.close()
        shutil.rmtree(self.runtime)


@pytest.fixture
def machine(hanok, tmp_path):
    made = Machine(hanok, tmp_path / "live")
    try:
        yield made
    finally:
        made.close()


def test_counters(machine, guest, tmp_path):
    machine.make(guest("cloud", MODULES, PROGRAMS), 64)
    vm = machine.boot(tmp_path / "console")
    before = machine.disk()

    def grown(after, op):
        was, now = before["requests"][op], after["requests"][op]
        count = now["requests"] - was["requests"]
        classes = [b - a for a, b in zip(was["latency_us_log2"], now["latency_us_log2"], strict=True)]
        assert sum(classes) == count and min(classes) >= 0
        return count, now["bytes"] - was["bytes"], now["errors"] - was["errors"]

    vm.output("dd if=/dev/zero of=/dev/vda bs=64k count=32 oflag=direct")
    vm.output("dd if=/dev/vda of=/dev/null bs=4k count=100 iflag=direct")
    vm.output("blkdiscard -o 1048576 -l 65536 /dev/vda")
    vm.output("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync")
    after = machine.disk()
    assert grown(after, "write") == (33, 2 * MIB + 4096, 0)
    # dd and blkdiscard open the disk, and the kernel may look for partitions then.
    count, moved, errors = grown(after, "read")
    assert count >= 100 and moved >= 409600 and moved < 2 * MIB and errors == 0
    count, moved, errors = grown(after, "discard")
    assert (count, moved, errors) == (1, 65536, 0)
    assert grown(after, "flush")[0] >= 1 and grown(after, "flush")[2] == 0
    assert after["controller"] == "virtio-blk" and after["file"] == str(machine.folder / "live.vmdk")
    assert (after["format"], after["type"], after["chain"]) == ("vmdk", "monolithicSparse", 1)
    assert after["bytes"] == 64 * MIB and MIB < after["host_bytes"] < 4 * MIB

    # Errors count as errors, and their bytes do not count: the tables are cut off.
    machine.snapshot("create", "one")
    before = machine.disk()
    assert before["chain"] == 2
    os.truncate(machine.folder / "live.vmdk", 0)
    assert vm.run("dd if=/dev/vda of=/dev/null bs=4k count=1 skip=64 iflag=direct").status != 0
    count, moved, errors = grown(machine.disk(), "read")
    assert count >= errors >= 1 and moved == (count - errors) * 4096
    machine.power_off()


def test_snapshots_under_a_file_system(machine, guest, tmp_path):
    """Taken, deleted and consolidated while the guest writes; it notices nothing, and all is there."""
    machine.make(guest("cloud", MODULES, PROGRAMS), 192)
    vm = machine.boot(tmp_path / "console")
    vm.output("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt", 120)
    vm.output("dd if=/dev/urandom of=/mnt/still bs=64k count=320; sync", 120)
    digest = vm.output("sha256sum </mnt/still").split()[0]
    vm.output(f"( {WRITER} ) >/dev/null 2>&1 &")
    for name in ("a", "b", "c"):
        machine.snapshot("create", name)
        time.sleep(0.3)
    assert machine.disk()["chain"] == 4
    machine.snapshot("delete", "b")
    assert machine.disk()["chain"] == 3
    machine.snapshot("delete", "a")
    assert machine.disk()["chain"] == 2
    machine.snapshot("create", "d")
    machine.snapshot("delete", "c", "--children")
    machine.snapshot("consolidate")
    assert machine.disk()["chain"] == 1
    vm.output("touch /stop; while [ ! -e /stopped ]; do sleep 0.1; done", 60)
    files = vm.output("cd /mnt; sha256sum f1 f2 f3 f4 f5 f6; cd /")
    vm.output("umount /mnt; echo 3 >/proc/sys/vm/drop_caches; e2fsck -fn /dev/vda; mount /dev/vda /mnt")
    assert vm.output("sha256sum </mnt/still").split()[0] == digest
    assert vm.output("cd /mnt; sha256sum f1 f2 f3 f4 f5 f6; cd /") == files
    assert "error" not in vm.output("dmesg").lower().replace("errors=", "")
    vm.output("umount /mnt")
    assert sum(op["errors"] for op in machine.disk()["requests"].values()) == 0
    machine.power_off()
    assert sorted(path.name for path in machine.folder.glob("*.vmdk")) == ["live.vmdk"]
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "check", "-q", machine.folder / "live.vmdk"], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", machine.folder / "live.vmdk", raw], check=True)
    subprocess.run(["/sbin/e2fsck", "-fn", raw], check=True, capture_output=True)


def test_power_is_cut_while_a_snapshot_is_deleted(machine, guest, tmp_path):
    """kill -9 in the middle of merges: what the guest has synced is there, and the rest can be finished."""
    machine.make(guest("cloud", MODULES, PROGRAMS), 192)
    vm = machine.boot(tmp_path / "console")
    vm.output("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt", 120)
    vm.output("dd if=/dev/urandom of=/mnt/still bs=64k count=320; sync", 120)
    digest = vm.output("sha256sum </mnt/still").split()[0]
    machine.snapshot("create", "a")
    vm.output("dd if=/dev/urandom of=/mnt/more bs=64k count=640; sync", 120)
    more = vm.output("sha256sum </mnt/more").split()[0]
    machine.snapshot("create", "b")
    vm.output(f"( {WRITER} ) >/dev/null 2>&1 &")
    pid = int((machine.folder / "live.vmx.lck").read_text().split()[0])
    words = [machine.hanok, "snapshot", "delete", machine.folder / "live.vmx", "a", "--children"]
    with subprocess.Popen(words, env=machine.env, stderr=subprocess.DEVNULL) as merging:
        time.sleep(0.15)
        os.kill(pid, 9)
        merging.wait(30 * TIMEOUT_SCALE)
    machine.vm.close()
    machine.snapshot("consolidate")
    vm = machine.boot(tmp_path / "console2")
    vm.output("mount /dev/vda /mnt")
    assert vm.output("sha256sum </mnt/still").split()[0] == digest
    assert vm.output("sha256sum </mnt/more").split()[0] == more
    vm.output("umount /mnt; e2fsck -fn /dev/vda")
    machine.power_off()
