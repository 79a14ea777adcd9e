# SPDX-License-Identifier: Apache-2.0
"""Devices while memory is short: a stock Linux whose memory is several times what the host lets it have moves data
by every controller and card, so that buffers leave and come back, and not a byte may be wrong.

A disk's content is read twice through the page cache, most of which has left meanwhile; a file in memory that has
left goes to the disk from where it is and comes back; the same goes out by the network, and more comes in.
"""

import re

import pytest
from conftest import Vm
from test_nic import MIB, UDHCPC, Sink, data_of, dhcp, sha256, web  # noqa: F401 fixtures

# --disk's model, the modules it takes and the disk's name in the guest.
DISKS = {
    "virtio-blk": ("virtio_pci,virtio_blk", "vda"),
    "nvme": ("nvme", "nvme0n1"),
    "pvscsi": ("vmw_pvscsi,sd_mod", "sda"),
    "lsilogic": ("mptspi,sd_mod", "sda"),
    "ahci": ("ahci,sd_mod", "sda"),
    "ide": ("ata_piix,sd_mod", "sda"),
}
NICS = {"virtio": "virtio_pci,virtio_net", "vmxnet3": "vmxnet3", "e1000": "e1000"}
DISK_BYTES, FILE_MIB, MEMORY, LIMIT = 48 * MIB, 16, "256M", "48M"


def slow(*pair):
    return pytest.param(*pair, marks=pytest.mark.slow)


@pytest.fixture
def start(hanok, guest, tmp_path):
    """A function: starts a guest with this disk and card; returns it at its shell."""
    script = tmp_path / "udhcpc.script"
    script.write_text(UDHCPC)
    script.chmod(0o755)
    started = []

    def boot(disk, nic, image):
        modules = f"{DISKS[disk][0]},{NICS[nic]},af_packet"
        kit = guest("generic", modules, (), (f"{script}=/etc/udhcpc.script",))
        vm = Vm(hanok, [
            "run", "--engine", "bt", "--kernel", kit.kernel, "--initrd", kit.initrd, "--append", "console=ttyS0",
            "--memory", MEMORY, "--memory-limit", LIMIT, "--stats",
            "--disk", f"{image},model={disk}", "--nic", f"nat,model={nic}",
        ], tmp_path / "console")  # fmt: skip
        started.append(vm)
        vm.boot()
        vm.output(f"while [ ! -b /dev/{DISKS[disk][1]} ]; do sleep 0.1; done")
        return vm

    yield boot
    for vm in started:
        vm.close()


@pytest.mark.parametrize(
    ("disk", "nic"),
    [
        ("virtio-blk", "virtio"),
        ("pvscsi", "vmxnet3"),
        slow("nvme", "e1000"),
        slow("lsilogic", "virtio"),
        slow("ahci", "e1000"),
        slow("ide", "vmxnet3"),
    ],
)
def test_devices_under_pressure(start, web, tmp_path, disk, nic):  # noqa: F811
    content, page = data_of(DISK_BYTES, 21), data_of(FILE_MIB * MIB, 22)
    image = tmp_path / "disk.raw"
    image.write_bytes(content)
    device = f"/dev/{DISKS[disk][1]}"
    vm = start(disk, nic, image)
    for _ in range(2):
        assert vm.output(f"sha256sum <{device}", 120).split()[0] == sha256(content)
    # A file in memory, which leaves while the disk is read once more; then it is what a disk and a card send.
    vm.output(f"dd if=/dev/urandom of=/tmp/data bs=1M count={FILE_MIB}")
    digest = vm.output("sha256sum </tmp/data").split()[0]
    vm.output(f"dd if={device} of=/dev/null bs=1M", 120)
    vm.output(f"dd if=/tmp/data of={device} bs=256k oflag=direct", 120)
    read = f"dd if={device} bs=256k count={FILE_MIB * 4} iflag=direct 2>/dev/null | sha256sum"
    assert vm.output(read, 120).split()[0] == digest
    dhcp(vm)
    sink = Sink()
    vm.output(f"nc 10.0.2.2 {sink.port} </tmp/data", 120)
    assert sink.result() == digest
    assert vm.output(f"wget -q -O /tmp/page http://10.0.2.2:{web(page)}/ && sha256sum </tmp/page", 120).split()[0] == (
        sha256(page))  # fmt: skip
    assert vm.output("sha256sum </tmp/data", 120).split()[0] == digest
    assert not re.search("I/O error|NETDEV WATCHDOG|timed out|[Rr]esetting|segfault|BUG:", vm.output("dmesg"))
    vm.start("poweroff")
    assert vm.end() == 0
    assert image.read_bytes()[FILE_MIB * MIB :] == content[FILE_MIB * MIB :]
    assert sha256(image.read_bytes()[: FILE_MIB * MIB]) == digest
