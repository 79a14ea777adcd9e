# SPDX-License-Identifier: Apache-2.0
"""SCSI controllers under stock kernels: Linux' own drivers find the disks, file systems live on them and are
whole on the host afterwards, errors are told for what they are, and resets lose nothing.
"""

import hashlib
import os
import re
import shutil
import subprocess

import pytest
from conftest import BOOT_SECONDS, Vm, error_line, run_hanok, trouble_of

MIB = 1 << 20
# What --disk's model= says, and the driver that has to bind.
DRIVERS = {"pvscsi": "vmw_pvscsi", "lsilogic": "mptspi", "lsisas1068": "mptsas"}
MODULES = "sd_mod,sr_mod,sg,crc32c_generic,ext4,isofs,{driver}"

# What SCSI's error handling and the drivers say when something went wrong, besides conftest.TROUBLE.
SCSI_TROUBLE = re.compile(
    r"task abort|Sense Key|I/O error|FAILED Result|[Rr]eset on|reset: |attempting|Unexpected|Buffer I/O"
    r"|CONFIG failed|Doorbell|IocStatus|Failed to"
)


@pytest.fixture(scope="session")
def scsi_tool(tmp_path_factory):
    """The program of tests/guest/scsi_tool.c, for guests."""
    program = tmp_path_factory.mktemp("scsi") / "scsi_tool"
    source = os.path.join(os.path.dirname(__file__), "guest/scsi_tool.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-static", "-o", program, source], check=True)
    return program


@pytest.fixture(params=DRIVERS)
def model(request):
    return request.param


class Machine:
    """A guest with disks: boots anew each time it is asked to."""

    def __init__(self, hanok, guest, tmp_path, programs):
        self.hanok, self.guest, self.tmp_path, self.programs = hanok, guest, tmp_path, programs
        self.boots, self.vm, self.before = 0, None, []  # before: a command that runs hanok

    def boot(self, model, *options, cpus=1):
        """Options: what is plugged in. Returns a Vm at its shell."""
        self.close()
        self.boots += 1
        kit = self.guest("generic", MODULES.format(driver=DRIVERS[model]), self.programs)
        arguments = [
            "run", "--kernel", kit.kernel, "--initrd", kit.initrd, "--append", "console=ttyS0",
            "--memory", "384M", "--cpus", cpus, "--engine", "bt", *options,
        ]  # fmt: skip
        self.kit = kit
        program, *arguments = [*self.before, self.hanok, *arguments]
        self.vm = Vm(program, arguments, self.tmp_path / f"console{self.boots}")
        self.vm.boot()
        disks = sum(option.startswith("--disk") for option in map(str, options))
        self.vm.output(f"while [ $(ls -d /sys/block/sd* | wc -l) -lt {disks} ]; do sleep 0.1; done")
        return self.vm

    def power_off(self):
        self.vm.start("poweroff")
        assert self.vm.end() == 0

    def close(self):
        if self.vm:
            self.vm.close()


@pytest.fixture
def machine(hanok, guest, tmp_path, scsi_tool):
    made = Machine(hanok, guest, tmp_path, [shutil.which("mke2fs"), shutil.which("e2fsck"), scsi_tool])
    try:
        yield made
    finally:
        made.close()


def image(path, size, content=b""):
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(size)
    return path


def disk(path, model, more=""):
    return ["--disk", f"{path},model={model}{more}"]


def check_log(machine, qemu_trouble):
    """Nothing in the kernel's log that QEMU does not give, and nothing of SCSI at all."""
    log = machine.vm.output("dmesg")
    assert trouble_of(log) - qemu_trouble(machine.kit, 1) == set()
    assert [line for line in log.splitlines() if SCSI_TROUBLE.search(line)] == []


def fsck(path):
    result = subprocess.run(["e2fsck", "-fn", path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def md5_in_image(path, name, tmp_path):
    out = tmp_path / "dumped"
    subprocess.run(["debugfs", "-R", f"dump {name} {out}", path], capture_output=True, check=True)
    return hashlib.md5(out.read_bytes()).hexdigest()


def test_filesystem(machine, model, tmp_path, qemu_trouble):
    """Made, filled, trimmed, checked in the guest; the same on the host and after a reboot."""
    path = image(tmp_path / "disk", 128 * MIB)
    vm = machine.boot(model, *disk(path, model))
    vm.output("/bin/mke2fs -q -t ext4 /dev/sda && mount -t ext4 /dev/sda /mnt")
    vm.output("dd if=/dev/urandom of=/mnt/a bs=64k count=400; cp /mnt/a /mnt/b; cp -r /bin /mnt/c; sync")
    digest = vm.output("md5sum </mnt/a").split()[0]
    used = os.stat(path).st_blocks
    vm.output("rm /mnt/a; sync; fstrim /mnt")
    assert used - os.stat(path).st_blocks > 20 * MIB // 512  # the discards have reached the host
    vm.output("umount /mnt; echo 3 >/proc/sys/vm/drop_caches; e2fsck -fn /dev/sda")
    check_log(machine, qemu_trouble)
    machine.power_off()
    fsck(path)
    assert md5_in_image(path, "b", tmp_path) == digest
    vm = machine.boot(model, *disk(path, model))
    assert vm.output("mount -t ext4 /dev/sda /mnt && md5sum </mnt/b").split()[0] == digest
    # The disk's own words, through the kernel.
    at = "/sys/block/sda"
    assert vm.output(f"cat {at}/device/vendor {at}/device/model").split() == ["VMware", "Virtual", "disk"]
    assert vm.output(f"cat {at}/queue/write_cache") == "write back"
    assert vm.output(f"cat {at}/queue/fua") == "1"
    assert vm.output(f"cat {at}/queue/rotational") == "0"
    assert int(vm.output(f"cat {at}/queue/discard_max_bytes")) > MIB
    assert vm.output(f"cat {at}/device/wwid").startswith("naa.3")
    assert "HANOK00-00" in vm.output(f"cat {at}/device/vpd_pg80")
    vm.output("umount /mnt")


def test_several_disks(machine, model, tmp_path):
    """As many as fit on one controller and one more; each is itself."""
    most = {"pvscsi": 16, "lsilogic": 15, "lsisas1068": 8}[model]
    options = []
    for i in range(most + 1):
        options += disk(image(tmp_path / f"disk{i}", (i + 1) * MIB, b"disk %02d" % i), model)
    vm = machine.boot(model, *options)
    seen = vm.output("for d in /sys/block/sd*; do echo $(cat $d/size) $(head -c 7 /dev/${d##*/}); done")
    assert sorted(seen.splitlines(), key=lambda line: int(line.split()[0])) == [
        f"{(i + 1) * 2048} disk {i:02}" for i in range(most + 1)
    ]
    hosts = vm.output("ls -d /sys/class/scsi_host/host*").split()
    assert len(hosts) == 2
    if model == "lsilogic":  # the controller's own id stays free
        targets = vm.output("ls -d /sys/bus/scsi/devices/[0-9]*:0:7:0 2>/dev/null | wc -l")
        assert targets == "0"


def test_read_only_and_cd(machine, model, tmp_path):
    """A disk that may not be written says so beforehand; a CD is read, ejected and loaded."""
    content = os.urandom(3 * MIB)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(content)
    iso, path = tmp_path / "cd.iso", image(tmp_path / "disk", MIB, b"untouched")
    subprocess.run(["genisoimage", "-quiet", "-R", "-o", iso, tmp_path / "folder"], check=True)
    vm = machine.boot(model, *disk(path, model, ",readonly"), "--cdrom", f"{iso},model={model}")
    assert vm.output("cat /sys/block/sda/ro") == "1"
    assert vm.run("echo no >/dev/sda").status != 0
    vm.output("while [ ! -b /dev/sr0 ]; do sleep 0.1; done; mount -t iso9660 /dev/sr0 /mnt")
    assert vm.output("md5sum </mnt/file").split()[0] == hashlib.md5(content).hexdigest()
    vm.output("umount /mnt; echo 0 >/proc/sys/dev/cdrom/autoclose; scsi_tool /dev/sr0 eject")
    assert vm.run("head -c 1 /dev/sr0").status != 0
    vm.output("scsi_tool /dev/sr0 load; mount -t iso9660 /dev/sr0 /mnt; head -c 1 /mnt/file >/dev/null")
    machine.power_off()
    assert path.read_bytes()[:9] == b"untouched"


def test_full_host(machine, model, tmp_path):
    """The host's disk is full: the guest is told just that, and what was there can still be read."""
    full = tmp_path / "full"
    full.mkdir()
    script = f"mount -t tmpfs -o size=4M tmpfs {full} && truncate -s 16M {full}/disk && exec \"$@\""
    if subprocess.run(["unshare", "-rm", "sh", "-c", script, "sh", "true"], check=False).returncode:
        pytest.skip("no mount namespace to be had here")
    machine.before = ["unshare", "-rm", "sh", "-c", script, "sh"]
    vm = machine.boot(model, *disk(full / "disk", model))
    vm.output("dd if=/bin/busybox of=/dev/sda bs=64k count=16 oflag=direct")
    failed = vm.run("dd if=/dev/urandom of=/dev/sda bs=64k seek=32 oflag=direct")
    assert "No space left on device" in failed.output
    assert "critical space allocation error" in vm.output("dmesg")
    vm.output("dd if=/dev/sda of=/tmp/back bs=64k count=16 iflag=direct")
    vm.output("head -c $((16*65536)) /bin/busybox | cmp - /tmp/back")


@pytest.mark.slow  # Linux waits 10 s after each reset of a bus or a host
@pytest.mark.parametrize("cpus", [1, 2])
def test_reset_under_load(machine, model, tmp_path, cpus):
    """Resets of all sorts in the middle of writes: all data arrive, and are right."""
    path = image(tmp_path / "disk", 64 * MIB)
    vm = machine.boot(model, *disk(path, model, ",direct"), cpus=cpus)
    vm.output("dd if=/dev/urandom of=/tmp/data bs=1M count=16 2>/dev/null")
    digest = vm.output("md5sum </tmp/data").split()[0]
    copy = "dd if=/tmp/data of=/dev/sda bs=64k seek=$((i*256)) conv=fsync,notrunc || touch /tmp/failed"
    vm.start(f"(while [ ! -e /tmp/stop ]; do for i in 0 1 2; do {copy}; done; done) >/tmp/log 2>&1 &")
    for kind in ["device", "host"] if model == "lsisas1068" else ["device", "bus", "host", "device"]:
        vm.output(f"sleep 0.2; scsi_tool /dev/sg0 {kind}")
    vm.output("touch /tmp/stop; wait")
    assert vm.run("test -e /tmp/failed").status != 0, vm.output("cat /tmp/log; dmesg | tail -30")
    assert "reset" in vm.output("dmesg").lower()
    vm.output("echo 3 >/proc/sys/vm/drop_caches")
    for i in range(3):
        got = vm.output(f"dd if=/dev/sda bs=1M skip={16 * i} count=16 2>/dev/null | md5sum").split()[0]
        assert got == digest
    machine.power_off()
    with open(path, "rb") as file:
        for _ in range(3):
            assert hashlib.md5(file.read(16 * MIB)).hexdigest() == digest


def test_unknown_model(hanok, tmp_path):
    """A model that is not there: the message names those that are."""
    path = image(tmp_path / "disk", MIB)
    result = run_hanok(hanok, "run", "--kernel", "/dev/null", *disk(path, "buslogic"))
    assert result.returncode == 2
    line = error_line(result)
    assert all(model in line for model in DRIVERS)
