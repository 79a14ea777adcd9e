# SPDX-License-Identifier: Apache-2.0
"""virtio-blk and NVMe: stock Linux drivers against our controllers, and images that the host's own tools check.

A guest makes a file system, fills it, reboots, reads it again; the host runs e2fsck on the image, takes the files
out with debugfs and compares raw bytes, and reads VMDKs by qemu-img. Also every way the drivers can talk to the
controllers: modern and legacy virtio, MSI-X and the interrupt pin, a queue for each vCPU.
"""

import hashlib
import os
import random
import shutil
import subprocess

import pytest
from conftest import TIMEOUT_SCALE, Vm, error_line, run_hanok, trouble_of

MIB = 1 << 20
DISK_BYTES = 192 * MIB
MODULES = "virtio_pci,virtio_blk,nvme,crc32c_generic,ext4"
PROGRAMS = ("/sbin/mkfs.ext4", "/sbin/e2fsck", "/sbin/blkdiscard")
# model= of --disk: the first disk, the second, in the guest.
DISKS = {"virtio-blk": ("vda", "vdb"), "nvme": ("nvme0n1", "nvme0n2")}
DRIVER_TROUBLE = ("I/O error", "Buffer I/O", "timeout", "resetting", "EXT4-fs error", "Unable to", "failed")


@pytest.fixture(params=DISKS)
def model(request):
    return request.param


class Machine:
    """A guest with disks, booted anew each time it is asked to."""

    def __init__(self, hanok, guest, tmp_path):
        self.hanok, self.guest, self.tmp_path = hanok, guest, tmp_path
        self.boots, self.vm, self.kit = 0, None, None

    def boot(self, *disks, cpus=1, append="", modules=MODULES):
        """disks: values of --disk. Returns a Vm at its shell."""
        self.close()
        self.boots += 1
        self.kit = self.guest("cloud", modules, PROGRAMS)
        options = [word for value in disks for word in ("--disk", value)]
        arguments = [
            "run", "--kernel", self.kit.kernel, "--initrd", self.kit.initrd, "--engine", "bt",
            "--append", f"console=ttyS0 {append}".strip(), "--memory", "384M", "--cpus", cpus, *options,
        ]  # fmt: skip
        self.vm = Vm(self.hanok, arguments, self.tmp_path / f"console{self.boots}")
        self.vm.boot()
        return self.vm

    def power_off(self):
        self.vm.start("poweroff")
        assert self.vm.end() == 0

    def check_log(self, qemu_trouble=None):
        log = self.vm.output("dmesg")
        known = qemu_trouble(self.kit, 1) if qemu_trouble else set()
        assert trouble_of(log) - known == set()
        lines = [line for line in log.splitlines() if any(name in line for name in ("vd", "nvme", "virtio", "EXT4"))]
        assert [line for line in lines if any(word in line for word in DRIVER_TROUBLE)] == []

    def close(self):
        if self.vm:
            self.vm.close()
            self.vm = None


@pytest.fixture
def machine(hanok, guest, tmp_path):
    made = Machine(hanok, guest, tmp_path)
    try:
        yield made
    finally:
        made.close()


def image(path, size=DISK_BYTES, content=b""):
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(size)
    return path


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def fsck(path):
    result = subprocess.run(["e2fsck", "-fn", path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def dump(path, name, tmp_path):
    """A file's bytes, taken out of the image by debugfs."""
    out = tmp_path / "dumped"
    subprocess.run(["debugfs", "-R", f"dump {name} {out}", path], capture_output=True, check=True)
    return out.read_bytes()


def test_filesystem(machine, model, tmp_path, qemu_trouble):
    """Made, filled, trimmed and checked in the guest; the same after its reboot, and on the host."""
    path, (disk, _) = image(tmp_path / "disk"), DISKS[model]
    vm = machine.boot(f"{path},model={model}")
    assert vm.output(f"cat /sys/block/{disk}/size") == str(DISK_BYTES // 512)
    vm.output(f"mkfs.ext4 -q /dev/{disk} && mount /dev/{disk} /mnt", 120)
    vm.output("dd if=/dev/urandom of=/mnt/a bs=64k count=640; cp /mnt/a /mnt/b; cp -r /bin /mnt/c; sync", 120)
    digest = vm.output("sha256sum </mnt/a").split()[0]
    used = os.stat(path).st_blocks
    vm.output("rm /mnt/a; sync; fstrim /mnt")
    assert used - os.stat(path).st_blocks > 35 * MIB // 512  # the discards have reached the host
    vm.output(f"umount /mnt; echo 3 >/proc/sys/vm/drop_caches; e2fsck -fn /dev/{disk}")
    machine.check_log(qemu_trouble)
    vm.start("reboot")
    vm.boot()
    assert vm.output(f"mount /dev/{disk} /mnt && sha256sum </mnt/b").split()[0] == digest
    vm.output("umount /mnt")
    machine.check_log()
    machine.power_off()
    fsck(path)
    assert sha256(dump(path, "b", tmp_path)) == digest
    busybox = subprocess.run(["debugfs", "-R", "stat c/busybox", path], capture_output=True, text=True, check=True)
    assert "Type: regular" in busybox.stdout


def test_bytes(machine, model, tmp_path):
    """What the guest reads is what the host wrote, and the other way round, at odd places."""
    rng = random.Random(1)
    data = rng.randbytes(8 * MIB)
    path, (disk, _) = image(tmp_path / "disk", 8 * MIB, data), DISKS[model]
    vm = machine.boot(f"{path},model={model}")
    assert vm.output(f"sha256sum </dev/{disk}").split()[0] == sha256(data)
    expected = bytearray(data)
    for _ in range(12):
        sectors, at = rng.randrange(1, 600), rng.randrange(0, 8 * MIB // 512 - 600)
        source = rng.randrange(0, 8 * MIB // 512 - 600)
        flags = rng.choice(["", "oflag=direct"])
        vm.output(
            f"dd if=/dev/{disk} bs=512 skip={source} count={sectors} of=/tmp/piece &&"
            f" dd if=/tmp/piece bs=512 seek={at} of=/dev/{disk} {flags} conv=notrunc && sync"
        )
        piece = expected[source * 512 : (source + sectors) * 512]
        expected[at * 512 : (at + sectors) * 512] = piece
    machine.power_off()
    assert sha256(path.read_bytes()) == sha256(expected)


def test_zeroes_and_discard(machine, model, tmp_path):
    """BLKZEROOUT and BLKDISCARD do what they say, to the byte."""
    data = random.Random(2).randbytes(8 * MIB)
    path, (disk, _) = image(tmp_path / "disk", 8 * MIB, data), DISKS[model]
    vm = machine.boot(f"{path},model={model}")
    queue = f"/sys/block/{disk}/queue"
    assert int(vm.output(f"cat {queue}/write_zeroes_max_bytes")) >= 65536
    assert int(vm.output(f"cat {queue}/discard_max_bytes")) > MIB
    # By its path: busybox has a blkdiscard of its own, which cannot zero.
    vm.output(f"/bin/blkdiscard -z -o 4194304 -l 65536 /dev/{disk}")
    vm.output(f"/bin/blkdiscard -o 6291456 -l 1048576 /dev/{disk}")
    machine.power_off()
    after = path.read_bytes()
    assert after[4 * MIB : 4 * MIB + 65536] == bytes(65536)
    assert after[6 * MIB : 7 * MIB] == bytes(MIB)  # a hole of the host's reads as zeroes
    for start, end in ((0, 4 * MIB), (4 * MIB + 65536, 6 * MIB), (7 * MIB, 8 * MIB)):
        assert after[start:end] == data[start:end]


def test_readonly(machine, model, tmp_path):
    data = random.Random(3).randbytes(2 * MIB)
    path, (disk, _) = image(tmp_path / "disk", 2 * MIB, data), DISKS[model]
    vm = machine.boot(f"{path},model={model},readonly")
    assert vm.output(f"cat /sys/block/{disk}/ro") == "1"
    assert vm.output(f"sha256sum </dev/{disk}").split()[0] == sha256(data)
    assert vm.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 oflag=direct").status != 0
    machine.power_off()
    assert path.read_bytes() == data


def test_two_disks(machine, model, tmp_path):
    """Each is its own, with its size and serial number; a third one is on another controller."""
    first, second = DISKS[model]
    paths = [image(tmp_path / name, size) for name, size in (("a", 8 * MIB), ("b", 16 * MIB), ("c,d", 24 * MIB))]
    vm = machine.boot(*(f"{str(path).replace(',', ',,')},model={model}" for path in paths[:2]),
                      f"{str(paths[2]).replace(',', ',,')},model={'nvme' if model == 'virtio-blk' else 'virtio-blk'}")
    third = "nvme0n1" if model == "virtio-blk" else "vda"
    sizes = vm.output(f"cat /sys/block/{first}/size /sys/block/{second}/size /sys/block/{third}/size").split()
    assert sizes == [str(n * MIB // 512) for n in (8, 16, 24)]
    for number, name in enumerate((first, second, third)):
        vm.output(f"yes disk-{number} | dd of=/dev/{name} bs=64k count=16 iflag=fullblock; sync")
    if model == "virtio-blk":
        assert vm.output("cat /sys/block/vda/serial; echo; cat /sys/block/vdb/serial").split() == [
            "HANOK00-00", "HANOK01-00"
        ]  # fmt: skip
    machine.power_off()
    for number, path in enumerate(paths):
        assert path.read_bytes()[:MIB] == (f"disk-{number}\n".encode() * MIB)[:MIB]


@pytest.mark.parametrize("kind", ["monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat"])
def test_vmdk(machine, model, tmp_path, kind):
    """A VMDK that qemu-img made; what the guest wrote, qemu-img finds."""
    path, (disk, _) = tmp_path / "disk.vmdk", DISKS[model]
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={kind}", path, "64M"], check=True
    )
    vm = machine.boot(f"{path},model={model}")
    vm.output(f"mkfs.ext4 -q /dev/{disk} && mount /dev/{disk} /mnt && cp -r /bin /mnt/c && sync", 120)
    digest = vm.output("sha256sum </mnt/c/busybox").split()[0]
    vm.output(f"umount /mnt; echo 3 >/proc/sys/vm/drop_caches; e2fsck -fn /dev/{disk}")
    whole = vm.output(f"sha256sum </dev/{disk}").split()[0]
    machine.power_off()
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "check", "-q", path], check=kind != "monolithicFlat")
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", path, raw], check=True)
    assert sha256(raw.read_bytes()) == whole
    fsck(raw)
    assert sha256(dump(raw, "c/busybox", tmp_path)) == digest


@pytest.fixture
def small_host(tmp_path):
    """A file system of the host with 12 MiB in it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "small", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_host_is_full(small_host, machine, model):
    """The guest gets an error for what did not fit, keeps running, and what fitted is there."""
    path, (disk, _) = image(small_host / "disk", 64 * MIB), DISKS[model]
    vm = machine.boot(f"{path},model={model}")
    vm.output(f"yes good | dd of=/dev/{disk} bs=64k count=64 iflag=fullblock oflag=direct")
    result = vm.run(f"dd if=/dev/urandom of=/dev/{disk} bs=64k seek=128 count=512 oflag=direct", 120)
    assert result.status != 0
    assert "No space left" in result.output or "Input/output error" in result.output
    read_back = vm.output(f"dd if=/dev/{disk} bs=64k count=64 iflag=direct 2>/dev/null | sha256sum")
    assert read_back.split()[0] == sha256((b"good\n" * MIB)[: 4 * MIB])
    # Room again: the same write succeeds.
    vm.output(f"blkdiscard -o 8388608 -l 33554432 /dev/{disk}")
    vm.output(f"dd if=/dev/urandom of=/dev/{disk} bs=64k seek=128 count=32 oflag=direct")
    machine.power_off()
    assert path.read_bytes()[: 4 * MIB] == (b"good\n" * MIB)[: 4 * MIB]


def test_host_loses_the_file(machine, model, tmp_path):
    """The image is cut short behind the guest's back: errors or zeroes, and a machine that goes on."""
    path, (disk, _) = image(tmp_path / "disk", 64 * MIB, b"x" * MIB), DISKS[model]
    vm = machine.boot(f"{path},model={model}")
    os.truncate(path, MIB)
    read_back = vm.output(f"dd if=/dev/{disk} bs=64k count=16 iflag=direct 2>/dev/null | sha256sum")
    assert read_back.split()[0] == sha256(b"x" * MIB)
    vm.run(f"dd if=/dev/{disk} bs=64k skip=32 count=16 iflag=direct of=/dev/null")
    assert vm.output("echo alive") == "alive"
    machine.power_off()


MATRIX = {
    "legacy": ("virtio-blk", MODULES.replace("virtio_pci", "virtio_pci:force_legacy=1"), ""),
    "legacy-pin": ("virtio-blk", MODULES.replace("virtio_pci", "virtio_pci:force_legacy=1"), "pci=nomsi"),
    "virtio-pin": ("virtio-blk", MODULES, "pci=nomsi"),
    "nvme-pin": ("nvme", MODULES, "pci=nomsi"),
    "nvme-pic": ("nvme", MODULES, "pci=nomsi noapic"),
}


@pytest.mark.parametrize("case", MATRIX)
def test_transports(machine, case, tmp_path):
    """Legacy registers instead of modern ones, the interrupt pin instead of messages."""
    model, modules, append = MATRIX[case]
    path, (disk, _) = image(tmp_path / "disk"), DISKS[model]
    vm = machine.boot(f"{path},model={model}", modules=modules, append=append)
    if "legacy" in case:
        # Bit 32, VERSION_1, is not negotiated.
        assert vm.output("cat /sys/bus/virtio/devices/virtio0/features")[32] == "0"
    lines = [line for line in vm.output("cat /proc/interrupts").splitlines() if "nvme" in line or "virtio" in line]
    assert lines and all(("MSI" in line) == (not append) for line in lines)
    vm.output(f"mkfs.ext4 -q /dev/{disk} && mount /dev/{disk} /mnt && cp -r /bin /mnt/c && umount /mnt", 120)
    vm.output(f"echo 3 >/proc/sys/vm/drop_caches; e2fsck -fn /dev/{disk}")
    machine.check_log()
    machine.power_off()
    fsck(path)


def test_queues_and_rebinding(machine, model, tmp_path):
    """Four vCPUs have a queue each and use them at once; the driver can let go and come back meanwhile."""
    path, (disk, _) = image(tmp_path / "disk", 32 * MIB), DISKS[model]
    vm = machine.boot(f"{path},model={model}", cpus=4)
    assert vm.output(f"ls /sys/block/{disk}/mq | wc -l") == "4"
    vm.output(
        f"for i in 0 1 2 3; do (yes part-$i | taskset $((1 << i)) dd of=/dev/{disk} bs=16k seek=$((i * 512)) count=512"
        " iflag=fullblock oflag=direct conv=notrunc 2>/dev/null) & done; wait", 120,
    )  # fmt: skip
    driver = "virtio-pci" if model == "virtio-blk" else "nvme"
    for _ in range(3):
        # With reads on their way.
        vm.start(f"dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct >/dev/null 2>&1 &")
        vm.output(f"echo 0000:00:03.0 >/sys/bus/pci/drivers/{driver}/unbind; wait")
        vm.output(f"echo 0000:00:03.0 >/sys/bus/pci/drivers/{driver}/bind")
        vm.output(f"while ! [ -b /dev/{disk} ]; do sleep 0.1; done")
    digest = sha256(b"".join((f"part-{i}\n".encode() * MIB * 2)[: 8 * MIB] for i in range(4)))
    assert vm.output(f"sha256sum </dev/{disk}").split()[0] == digest
    machine.power_off()
    assert sha256(path.read_bytes()) == digest


def test_reset_under_load(machine, model, tmp_path):
    """A reset with requests in flight: what was synced before is there, and the driver finds a sane controller."""
    path, (disk, _) = image(tmp_path / "disk"), DISKS[model]
    vm = machine.boot(f"{path},model={model}", cpus=2)
    vm.output(f"mkfs.ext4 -q /dev/{disk} && mount /dev/{disk} /mnt && cp -r /bin /mnt/c && sync", 120)
    digest = vm.output("sha256sum </mnt/c/busybox").split()[0]
    vm.start("for i in 1 2 3; do dd if=/dev/urandom of=/mnt/x$i bs=64k count=300 conv=fsync 2>/dev/null & done; sleep 1")
    vm.start("reboot -f")
    vm.boot()
    vm.output(f"e2fsck -fp /dev/{disk}; mount /dev/{disk} /mnt", 120)
    assert vm.output("sha256sum </mnt/c/busybox").split()[0] == digest
    vm.output("umount /mnt")
    machine.power_off()
    fsck(path)


ERRORS = {
    "absent": (["--disk", "no-such-file"], "no-such-file"),
    "model": (["--disk", "{image},model=floppy"], "virtio-blk"),
    "setting": (["--disk", "{image},writable"], "readonly"),
    "nothing": (["--disk", ""], "the file's name is missing"),
    "too-many": (["--disk", "{image},readonly"] * 13, "room for 12 controllers"),
    "directory": (["--disk", "/"], "/"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(hanok, tmp_path, case):
    options, message = ERRORS[case]
    path = image(tmp_path / "disk", MIB)
    kernel = image(tmp_path / "kernel", MIB)
    result = run_hanok(hanok, "run", "--kernel", kernel, *(option.format(image=path) for option in options))
    assert result.returncode in (2, 125)
    assert message in error_line(result)


def test_disk_in_use(hanok, machine, tmp_path):
    """A disk that another machine writes to is refused; two readers are not."""
    path = image(tmp_path / "disk", MIB)
    machine.boot(path)
    result = run_hanok(hanok, "run", "--kernel", path, "--disk", path)
    assert result.returncode == 125
    assert "disk" in error_line(result)
