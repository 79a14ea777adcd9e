# SPDX-License-Identifier: Apache-2.0
"""e1000 and vmxnet3 beyond what all cards do (test_nic.py): stock Linux drivers with jumbo frames, VLANs, filters,
several queues, every kind of interrupt, other addresses, and the drivers' own settings."""

import re

import pytest
from test_nic import (  # noqa: F401 fixtures
    MAC,
    MIB,
    Sink,
    check_log,
    counter,
    data_of,
    dhcp,
    machine,
    network,
    power_off,
    sha256,
    web,
)

SPEED = {"e1000": "1000", "vmxnet3": "10000"}


@pytest.fixture(params=SPEED)
def model(request):
    return request.param


def fetch(vm, port, data):
    got = vm.output(f"wget -q -O - http://10.0.2.2:{port}/ | sha256sum", 120)
    assert got.split()[0] == sha256(data)


def push(vm, mib=8):
    sink = Sink()
    vm.output(f"dd if=/dev/urandom of=/tmp/data bs=64k count={mib * 16}; nc 10.0.2.2 {sink.port} </tmp/data", 120)
    assert sink.result() == vm.output("sha256sum </tmp/data").split()[0]


def test_facts(machine, model, web):  # noqa: F811
    """What the driver found, and its statistics, which e1000 reads from the card."""
    data = data_of(2 * MIB, 11)
    vm = machine(f"nat,mac={MAC}", model=model)
    dhcp(vm)
    net = "/sys/class/net/eth0"
    assert vm.output(f"basename $(readlink {net}/device/driver)") == model
    assert vm.output(f"cat {net}/address {net}/speed {net}/duplex {net}/carrier").split() == [
        MAC, SPEED[model], "full", "1"]  # fmt: skip
    fetch(vm, web(data), data)
    assert counter(vm, "rx_bytes") > len(data)
    assert counter(vm, "rx_packets") > len(data) // 1500
    assert counter(vm, "multicast") < 100
    for name in ("rx_errors", "rx_dropped", "rx_crc_errors", "rx_missed_errors", "tx_errors", "tx_dropped"):
        assert counter(vm, name) == 0
    power_off(vm)


@pytest.mark.parametrize(
    ("model", "append"),
    [
        ("vmxnet3", "pci=nomsi"),
        ("e1000", "e1000.InterruptThrottleRate=0 e1000.TxIntDelay=0"),
        ("e1000", "e1000.RxIntDelay=60 e1000.RxAbsIntDelay=120 e1000.XsumRX=0 e1000.TxDescriptors=80"),
    ],
)
def test_choices(machine, web, model, append, qemu_trouble):  # noqa: F811
    data = data_of(8 * MIB, 12)
    vm = machine("nat", model=model, append=append)
    dhcp(vm)
    fetch(vm, web(data), data)
    push(vm)
    lines = [line for line in vm.output("cat /proc/interrupts").splitlines() if "eth0" in line]
    assert len(lines) == 1
    assert "IO-APIC" in lines[0]
    check_log(vm, qemu_trouble)
    power_off(vm)


def test_changes(machine, model, web, qemu_trouble):  # noqa: F811
    """The interface goes down and up, with another address, another MTU, promiscuous; the driver goes and comes."""
    data = data_of(MIB, 13)
    port = web(data)
    vm = machine(f"nat,mac={MAC}", model=model)
    for change in ("mtu 9000", "mtu 1500", "address 02:00:00:00:00:07", "promisc on", "multicast off", "mtu 600"):
        vm.output(f"ip link set eth0 down; ip link set eth0 {change}")
        dhcp(vm)
        fetch(vm, port, data)
        vm.output("ip addr flush dev eth0")
    vm.output(f"rmmod {model}")
    vm.output(f"insmod $(find /lib/modules -name '{model}.ko*')")
    # e1000's driver resets the card and reads the EEPROM; vmxnet3's takes the address that the card uses.
    assert vm.output("cat /sys/class/net/eth0/address") == (MAC if model == "e1000" else "02:00:00:00:00:07")
    dhcp(vm)
    fetch(vm, port, data)
    check_log(vm, qemu_trouble)
    power_off(vm)


@pytest.mark.parametrize(("model", "vectors"), [("vmxnet3", "eth0-rxtx"), ("virtio", "virtio0-input")])
def test_queues(machine, web, model, vectors, qemu_trouble):  # noqa: F811
    """A queue each way for each of two vCPUs, an MSI-X vector each, and what arrives is spread over both."""
    data = data_of(4 * MIB, 14)
    port = web(data)
    vm = machine("nat", model=model, cpus=2)
    dhcp(vm)
    assert vm.output("ls -d /sys/class/net/eth0/queues/rx-* | wc -l") == "2"
    assert vm.output("ls -d /sys/class/net/eth0/queues/tx-* | wc -l") == "2"
    vm.output(
        "for c in 0 1; do for i in 0 1 2 3; do"
        f" taskset $((1 << c)) wget -q -O - http://10.0.2.2:{port}/ | sha256sum >/tmp/sum$c$i & done; done; wait",
        180,
    )
    sums = vm.output("cat /tmp/sum*").split()
    assert [word for word in sums if word != "-"] == [sha256(data)] * 8
    lines = [line.split() for line in vm.output("cat /proc/interrupts").splitlines() if vectors in line]
    counts = [[int(word) for word in line[1:3]] for line in lines]
    assert len(counts) == 2
    assert all(sum(of_queue) > 20 for of_queue in counts)
    assert all(sum(of_cpu) > 20 for of_cpu in zip(*counts)), "one of the vCPUs gets no interrupts"
    check_log(vm, qemu_trouble)
    power_off(vm)


def stream(sender, receiver, address, mib):
    """From one guest to the other, and the checksum of what came."""
    sender.output(f"dd if=/dev/urandom of=/tmp/data bs=64k count={mib * 16}")
    digest = sender.output("sha256sum </tmp/data").split()[0]
    receiver.start("nc -l -p 7 | sha256sum")
    sender.output(f"sleep 1; nc {address} 7 </tmp/data", 180)
    assert receiver.expect("([0-9a-f]{64})")[1] == digest


@pytest.mark.parametrize("model", ["e1000", "vmxnet3", "virtio"])
def test_jumbo(machine, model, network, qemu_trouble):  # noqa: F811
    """Two guests with frames of 9000 bytes, and of 1500, over a VLAN and without; both ways."""
    network("lab")
    guests = [machine("switch=lab", model=model) for _ in range(2)]
    for i, vm in enumerate(guests, 1):
        vm.output(f"ip link set eth0 mtu 9000 up; ip addr add 192.168.7.{i}/24 dev eth0")
        vm.output(f"ip link add link eth0 name eth0.5 type vlan id 5; ip link set eth0.5 up;"
                  f" ip addr add 192.168.8.{i}/24 dev eth0.5")
    one, two = guests
    assert "3 packets received" in one.output("ping -c 3 -s 8900 192.168.7.2")
    stream(one, two, "192.168.7.2", 16)
    stream(two, one, "192.168.7.1", 16)
    assert re.search(r"\d+", one.output("cat /sys/class/net/eth0/mtu"))[0] == "9000"
    assert counter(one, "rx_packets") < 16 * MIB // 3000  # they are large
    for vm in guests:
        vm.output("ip link set eth0 mtu 1500")
        check_log(vm, qemu_trouble)
    stream(one, two, "192.168.7.2", 4)
    for vm in guests:
        power_off(vm)
