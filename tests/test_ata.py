# SPDX-License-Identifier: Apache-2.0
"""SATA and IDE: stock Linux drivers against our controllers, and file systems that the host's own tools check.

A guest makes a file system, fills it, is reset, reads it again; the host checks the image with e2fsck and takes
the files out with debugfs. CDs are made on the host by genisoimage.
"""

import hashlib
import random
import re
import shutil
import subprocess

import pytest

from conftest import Vm, error_line, run_hanok, trouble_of

MIB = 1 << 20
DISK_BYTES = 192 * MIB
DRIVERS = {"ahci": "ahci", "ide": "ata_piix"}
MODULES = "sd_mod,sr_mod,crc32c_generic,ext4,isofs"
PROGRAMS = ("/sbin/mke2fs", "/sbin/e2fsck")

TRAY = """
#include <errno.h>
#include <fcntl.h>
#include <linux/cdrom.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
	int fd = argc == 3 ? open(argv[2], O_RDONLY | O_NONBLOCK) : -1;

	return fd < 0 || ioctl(fd, argv[1][0] == 'o' ? CDROMEJECT : CDROMCLOSETRAY) ? errno : 0;
}
"""

# What libata and the layers above it say when a drive does not behave.
ATA_TROUBLE = re.compile(
    r"exception Emask|failed command|I/O error|resetting link|soft resetting|frozen|qc timeout|limiting"
    r"|failed to|not ready|device error|link is slow|COMRESET|revalidation|unsupported|EXT4-fs (error|warning)"
    r"|Sense Key|Add\. Sense|illegal|invalid|mismatch|lost interrupt|stuck",
    re.I,
)


def ata_trouble(dmesg):
    """The troubled lines that have to do with drives."""
    lines = [line for line in dmesg.splitlines() if re.search(r"\b(ata\d|ahci|ata_piix|s[dr]\w? |EXT4|scsi)", line)]
    return [line for line in lines if ATA_TROUBLE.search(line)]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def files():
    """Names and contents: empty, small, more than a DRQ block, more than a descriptor table's page."""
    rng = random.Random(7)
    sizes = {"empty": 0, "small": 100, "middle.bin": 70_001, "large.bin": 5 * MIB + 3}
    return {name: rng.randbytes(size) for name, size in sizes.items()}


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    top = tmp_path_factory.mktemp("files")
    for name, content in files.items():
        (top / name).write_bytes(content)
    return top


@pytest.fixture(scope="module")
def iso(folder, tmp_path_factory):
    if not shutil.which("genisoimage"):
        pytest.skip("genisoimage is not installed; to get it: sudo apt-get install genisoimage")
    path = tmp_path_factory.mktemp("iso") / "cd.iso"
    subprocess.run(["genisoimage", "-quiet", "-R", "-V", "HANOK", "-o", path, folder], check=True)
    return path


@pytest.fixture(scope="module")
def tray(tmp_path_factory):
    """A program for the guest: `tray open DEVICE`, `tray close DEVICE`."""
    top = tmp_path_factory.mktemp("tray")
    (top / "tray.c").write_text(TRAY)
    subprocess.run(["gcc", "-O", "-o", top / "tray", top / "tray.c"], check=True)
    return top / "tray"


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.touch()
    with open(path, "r+b") as file:
        file.truncate(DISK_BYTES)
    return path


@pytest.fixture
def start(hanok, guest, tmp_path):
    """A function: a kind of guest, the driver, hanok's options -> a Vm at its shell."""
    machines = []

    def boot(name, driver, *options, libata="libata", programs=PROGRAMS):
        image = guest(name, modules=f"{libata},{driver},{MODULES}", programs=programs)
        arguments = ["run", "--kernel", image.kernel, "--initrd", image.initrd, "--memory", "512M"]
        arguments += ["--append", "console=ttyS0", *options]
        vm = Vm(hanok, arguments, tmp_path / f"console{len(machines)}.log")
        machines.append(vm)
        vm.boot()
        return vm

    yield boot
    for vm in machines:
        vm.close()


def hashes(vm, folder):
    """Name -> SHA-256 of the files in a folder of the guest."""
    lines = vm.output(f"cd {folder} && sha256sum -- *; cd /", timeout=120).splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def fsck(image):
    """e2fsck finds nothing to mend."""
    result = subprocess.run(["/sbin/e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def dump(image, path):
    """A file of an ext4 image, taken out on the host."""
    return subprocess.run(
        ["/sbin/debugfs", "-R", f"cat {path}", image], capture_output=True, check=True
    ).stdout


def finish(vm):
    vm.start("poweroff")
    assert vm.end() == 0


@pytest.mark.parametrize("model", DRIVERS)
def test_ext4(start, guest, qemu_trouble, disk, model):
    """mkfs, data, a reset, the data again, TRIM; nothing odd in the log; the host finds what was written."""
    vm = start("generic", DRIVERS[model], "--disk", f"{disk},model={model}", "--cpus", "2")
    log = vm.output("dmesg")
    if model == "ahci":
        assert "NCQ (depth 32)" in log
    assert f"{DISK_BYTES // 512} 512-byte logical blocks" in log
    vm.output("/bin/mke2fs -q -t ext4 /dev/sda && mount /dev/sda /mnt && rmdir /mnt/lost+found", timeout=120)
    # Several writers at once keep the queue full.
    writers = " & ".join(f"dd if=/dev/urandom of=/mnt/f{i} bs=64k count=80 2>/dev/null" for i in range(4))
    vm.output(f"({writers} & wait) && sync", timeout=180)
    written = hashes(vm, "/mnt")
    assert sorted(written) == ["f0", "f1", "f2", "f3"]
    vm.output("umount /mnt")
    vm.start("reboot")
    vm.boot()
    vm.output("mount -o discard /dev/sda /mnt")
    assert hashes(vm, "/mnt") == written
    vm.output("rm /mnt/f0 && sync && fstrim /mnt", timeout=120)
    allocated = disk.stat().st_blocks * 512
    assert allocated < 30 * MIB  # what was not written, or is not in use any more, takes no room
    vm.output("umount /mnt && e2fsck -fn /dev/sda", timeout=120)
    log = vm.output("dmesg")
    assert ata_trouble(log) == []
    assert trouble_of(log) - qemu_trouble(guest("generic"), 1) == set()
    finish(vm)
    fsck(disk)
    for name in ("f1", "f2", "f3"):
        assert sha256(dump(disk, name)) == written[name]


@pytest.mark.parametrize("model", DRIVERS)
def test_cd(start, iso, disk, files, tray, model):
    """The files of a CD that the host made; ejected and loaded again."""
    options = ["--disk", f"{disk},model={model}", "--cdrom", f"{iso},model={model}"]
    vm = start("generic", DRIVERS[model], *options, programs=(tray,))
    vm.output("mount -t iso9660 -o ro /dev/sr0 /mnt")
    assert hashes(vm, "/mnt") == {name: sha256(content) for name, content in files.items()}
    vm.run("tray open /dev/sr0")  # the mount has locked it, so nothing happens
    assert set(hashes(vm, "/mnt")) == set(files)
    assert "asc=0x53 ascq=0x2" in vm.output("dmesg")  # medium removal prevented
    vm.output("umount /mnt")
    assert vm.output("sha256sum /dev/sr0", timeout=120).split()[0] == sha256(iso.read_bytes())
    vm.output("tray open /dev/sr0")
    assert vm.run("mount -t iso9660 -o ro /dev/sr0 /mnt").status != 0
    vm.output("tray close /dev/sr0; mount -t iso9660 -o ro /dev/sr0 /mnt")
    assert set(hashes(vm, "/mnt")) == set(files)
    assert ["asc=0x53" in line for line in ata_trouble(vm.output("dmesg"))] == [True]
    finish(vm)


@pytest.mark.parametrize("model", DRIVERS)
def test_pio(start, iso, disk, folder, files, model):
    """With DMA turned off everything goes by PIO: a word at a time through IDE's data port."""
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder, disk], check=True)
    options = ["--disk", f"{disk},model={model}", "--cdrom", f"{iso},model={model}"]
    vm = start("generic", DRIVERS[model], *options, libata="libata:dma=0")
    assert "XFER_UDMA" not in vm.output("cat /sys/class/ata_device/*/xfer_mode")
    vm.output("mount /dev/sda /mnt && rmdir /mnt/lost+found")
    assert hashes(vm, "/mnt") == {name: sha256(content) for name, content in files.items()}
    vm.output("cp /mnt/middle.bin /mnt/copy && sync && umount /mnt", timeout=120)
    vm.output("mount -t iso9660 -o ro /dev/sr0 /mnt")
    assert hashes(vm, "/mnt") == {name: sha256(content) for name, content in files.items()}
    vm.output("umount /mnt")
    assert ata_trouble(vm.output("dmesg")) == []
    finish(vm)
    assert dump(disk, "copy") == files["middle.bin"]


@pytest.mark.parametrize("model", DRIVERS)
def test_32_bits(start, disk, folder, files, model):
    """A 32-bit kernel, an image that the host made, a file that the guest adds."""
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder, disk], check=True)
    vm = start("i686-pae", DRIVERS[model], "--disk", f"{disk},model={model}", programs=())
    vm.output("mount /dev/sda /mnt && rmdir /mnt/lost+found")
    assert hashes(vm, "/mnt") == {name: sha256(content) for name, content in files.items()}
    vm.output("cat /mnt/small /mnt/large.bin >/mnt/both && umount /mnt", timeout=120)
    assert ata_trouble(vm.output("dmesg")) == []
    finish(vm)
    fsck(disk)
    assert dump(disk, "both") == files["small"] + files["large.bin"]


@pytest.mark.parametrize("model", DRIVERS)
def test_four_disks_one_read_only(start, tmp_path, model):
    """Each drive is its own; one that is read-only gives an error, and keeps what it has."""
    paths = [tmp_path / f"disk{i}.img" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i + 1]) * MIB)
    options = []
    for i, path in enumerate(paths):
        options += ["--disk", f"{path},model={model}" + (",readonly" if i == 3 else "")]
    vm = start("generic", DRIVERS[model], *options, programs=())
    # Which one is sda and which sdb is up to how fast each was found.
    first = "head -c 1 /dev/sd$d | hexdump -v -e '1/1 \"%d\"'"
    order = vm.output(f"for d in a b c d; do {first}; done")
    assert sorted(order) == list("1234")
    for letter, number in zip("abcd", order):
        line = vm.run(f"printf {letter}{number} | dd of=/dev/sd{letter} bs=512 conv=sync,fsync 2>/dev/null")
        assert (line.status == 0) == (number != "4")
    finish(vm)
    letters = dict(zip(order, "abcd"))
    for i, path in enumerate(paths[:3]):
        text = f"{letters[str(i + 1)]}{i + 1}".encode()
        assert path.read_bytes() == text + bytes(512 - 2) + bytes([i + 1]) * (MIB - 512)
    assert paths[3].read_bytes() == bytes([4]) * MIB


def test_empty_image(hanok, guest, tmp_path):
    """A disk of no sectors is refused in one line that names the drive."""
    empty = tmp_path / "empty.img"
    empty.touch()
    result = run_hanok(hanok, "run", "--kernel", guest("generic").kernel, "--disk", f"{empty},model=ahci")
    assert result.returncode in (2, 125)
    assert re.search(r"no sectors|empty", error_line(result))
