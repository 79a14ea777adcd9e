# SPDX-License-Identifier: Apache-2.0
"""Machines with stock Linux drivers on networks that they share: frames of 64 KiB from ring to ring, what a capture
shows of them, and networks whose process dies, or one of whose machines stands still."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import TIMEOUT_SCALE, run_hanok
from test_net_hosts import CHECK_SUMS, REASON, run, tshark, wait_for
from test_nic import (  # noqa: F401 fixtures
    MIB,
    Sink,
    address6,
    background,
    check_log,
    counter,
    data_of,
    dhcp,
    machine,
    model,
    network,
    power_off,
    sha256,
    web,
)
from test_nic_models import stream

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")


def statistic(vm, name):
    """What `ethtool -S` says, all queues together."""
    return sum(int(n) for n in re.findall(rf"^\s*{name}: (\d+)", vm.output("ethtool -S eth0"), re.MULTILINE))


def frame_lengths(path):
    return [int(n) for n in tshark(path, "-T", "fields", "-e", "frame.len").split()]


@needs_tshark
@pytest.mark.skipif(shutil.which("ethtool") is None, reason="needs ethtool")
@pytest.mark.parametrize("model", ["virtio", "vmxnet3"])
def test_large_frames(machine, model, network, hanok, tmp_path, qemu_trouble):  # noqa: F811
    """Segments of TCP are joined into frames of up to 64 KiB by the sender's driver, and stay that to the receiver's,
    which counts them as large ones; with its LRO off they come as segments."""
    network("lab")
    ethtool = [shutil.which("ethtool")]
    one, two = (machine("switch=lab", model=model, programs=ethtool) for _ in range(2))
    for i, vm in enumerate((one, two), 1):
        vm.output(f"ip link set eth0 up; ip addr add 192.168.7.{i}/24 dev eth0")
    features = dict(re.findall(r"^\s*([\w-]+): (on|off)", two.output("ethtool -k eth0"), re.MULTILINE))
    lro = "large-receive-offload" if model == "vmxnet3" else "rx-gro-hw"
    for feature in ("tcp-segmentation-offload", "tx-tcp6-segmentation", "tx-checksumming", "rx-checksumming", lro):
        assert features[feature] == "on", feature
    # How large they become depends on how fast they are taken: a busy host may need another try.
    for turn in range(5):
        capture = tmp_path / f"lab{turn}.pcapng"
        two.output("true")
        before = counter(two, "rx_packets")
        assert run_hanok(hanok, "net", "capture", "lab", "0", capture).returncode == 0
        stream(one, two, "192.168.7.2", 32)
        assert run_hanok(hanok, "net", "capture", "lab", "0", "--stop").returncode == 0
        if max(frame_lengths(capture)) > 60000:
            break
    assert max(frame_lengths(capture)) > 60000
    two.output("true")
    frames = counter(two, "rx_packets")  # vmxnet3's counts segments, as a wire would have them
    assert model == "vmxnet3" or frames - before < 32 * MIB // 6000, "large frames were cut"
    if model == "vmxnet3":
        assert statistic(one, "TSO pkts tx") > 1000
        joined = statistic(two, "LRO pkts rx")
        assert joined > 100
        assert statistic(two, "LRO byte rx") > 24 * MIB
        two.output("ethtool -K eth0 lro off")
    else:
        two.output("ethtool -K eth0 rx-gro-hw off")
    stream(one, two, "192.168.7.2", 8)
    two.output("true")
    assert counter(two, "rx_packets") - frames > 8 * MIB // 1600, "frames larger than the driver wants"
    if model == "vmxnet3":
        assert statistic(two, "LRO pkts rx") == joined
    for vm in (one, two):
        check_log(vm, qemu_trouble)
        power_off(vm)


@needs_tshark
def test_capture_on_nat(machine, model, network, hanok, web, tmp_path):  # noqa: F811
    """All there is on NAT, both ways, IPv4 and IPv6: right checksums, and nothing that a real network would refuse."""
    network("lab", "--nat")
    capture = tmp_path / "nat.pcapng"
    vm = machine("switch=lab", model=model)
    port = next(p for p in show(hanok, "lab")["ports"] if not p["uplink"])["port"]
    assert run_hanok(hanok, "net", "capture", "lab", str(port), capture).returncode == 0
    dhcp(vm)
    address6(vm)
    vm.output("ping -c 2 10.0.2.2; ping -6 -c 2 fec0::2")
    data = data_of(2 * MIB, 21)
    served = web(data)
    for address, family in (("10.0.2.2", socket.AF_INET), ("[fec0::2]", socket.AF_INET6)):
        assert vm.output(f"wget -q -O - http://{address}:{served}/ | sha256sum", 120).split()[0] == sha256(data)
        sink = Sink(family)
        vm.output(f"head -c {MIB} /dev/urandom | nc {address.strip('[]')} {sink.port}", 120)
        sink.result()
    vm.output("nslookup -timeout=1 -retry=1 localhost. 10.0.2.3 || true")
    assert run_hanok(hanok, "net", "capture", "lab", str(port), "--stop").returncode == 0
    power_off(vm)

    # What TCP carries here is random bytes, and tshark would find protocols in them: a malformed THRIFT, once.
    def shown(what):
        return tshark(capture, *CHECK_SUMS, "-d", "tcp.port==1-65535,data", "-Y", what)

    for protocol in ("arp", "dhcp", "icmp", "icmpv6", "ip && tcp", "ipv6 && tcp", "dns"):
        assert shown(protocol) != "", f"no {protocol} was captured"
    sums = " or ".join(f"{p}.checksum.status == 0" for p in ("ip", "tcp", "udp", "icmp", "icmpv6"))
    assert shown(sums) == ""
    assert shown("_ws.malformed or _ws.expert.severity == error") == ""
    assert shown("eth.src.ig == 1 or ip.len > 65535 or ip.ttl == 0") == ""
    # What is longer than a frame on a wire is TCP that will be cut on its way.
    assert shown("frame.len > 1514 and not tcp") == ""
    assert len(shown("tcp.checksum.status == 1").splitlines()) > 50


def show(hanok, name):
    return json.loads(subprocess.run([hanok, "net", "show", name, "--json"], capture_output=True, check=True).stdout)


def answers(vm, address):
    return vm.run(f"ping -c 1 -W 1 {address}").status == 0


def test_the_process_of_a_network_dies(machine, network, hanok, qemu_trouble):  # noqa: F811
    """kill -9: links go down; when it is back they are up by themselves, and nothing else has happened."""
    network("lab")
    one, two = machine("switch=lab", model="vmxnet3"), machine("switch=lab", model="virtio")
    for i, vm in enumerate((one, two), 1):
        vm.output(f"ip link set eth0 up; ip addr add 192.168.7.{i}/24 dev eth0")
    assert answers(one, "192.168.7.2")
    for _ in range(2):
        flaps = int(one.output("cat /sys/class/net/eth0/carrier_down_count"))
        os.kill(show(hanok, "lab")["pid"], signal.SIGKILL)
        for vm in (one, two):
            vm.output("for i in $(seq 100); do [ $(cat /sys/class/net/eth0/carrier) = 0 ] && break; sleep 0.1; done")
            assert vm.output("cat /sys/class/net/eth0/carrier") == "0"
        assert not answers(one, "192.168.7.2")
        assert run_hanok(hanok, "net", "start", "lab").returncode == 0
        for vm in (one, two):
            vm.output("for i in $(seq 100); do [ $(cat /sys/class/net/eth0/carrier) = 1 ] && break; sleep 0.1; done")
            assert vm.output("cat /sys/class/net/eth0/carrier") == "1"
        assert int(one.output("cat /sys/class/net/eth0/carrier_down_count")) == flaps + 1
        vm.run("ping -c 1 -W 2 192.168.7.1")  # the link's first frame may come before the other end is up
        assert answers(one, "192.168.7.2")
    stream(one, two, "192.168.7.2", 4)
    for vm in (one, two):
        check_log(vm, qemu_trouble)
        power_off(vm)


def test_a_machine_that_stands_still(machine, network, hanok):  # noqa: F811
    """Its process is stopped while others flood it: they go on with each other at speed, and it goes on later."""
    network("lab")
    one, two, still = (machine("switch=lab") for _ in range(3))
    for i, vm in enumerate((one, two, still), 1):
        vm.output(f"ip link set eth0 up; ip addr add 192.168.7.{i}/24 dev eth0")
    assert answers(one, "192.168.7.3") and answers(two, "192.168.7.3")
    one.output("arp -s 192.168.7.3 " + still.output("cat /sys/class/net/eth0/address"))
    os.kill(still.child.pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            background(one, "ping -i 0.0005 -s 1400 192.168.7.3")
        start = time.monotonic()
        stream(one, two, "192.168.7.2", 16)
        assert time.monotonic() - start < 20 * TIMEOUT_SCALE
        # Its queue is full, and what came after was counted.
        wait_for(lambda: sum(port["drops"].get("queue-full", 0) for port in show(hanok, "lab")["ports"]) > 100, 30)
        one.output("killall ping")
    finally:
        os.kill(still.child.pid, signal.SIGCONT)
    for _ in range(20):
        if answers(two, "192.168.7.3"):
            break
    assert answers(two, "192.168.7.3")
    for vm in (one, two, still):
        power_off(vm)


def test_vlan_by_the_option(machine, network, hanok):  # noqa: F811
    """vlan=N makes the port group where there is none; who is in another VLAN sees nothing."""
    network("lab")
    vms = [machine(f"switch=lab,vlan={vlan}") for vlan in (100, 100, 200)]
    for i, vm in enumerate(vms, 1):
        vm.output(f"ip link set eth0 up; ip addr add 192.168.7.{i}/24 dev eth0")
    assert answers(vms[0], "192.168.7.2")
    assert not answers(vms[0], "192.168.7.3") and not answers(vms[2], "192.168.7.2")
    groups = {group["name"]: group.get("vlan") for group in show(hanok, "lab")["groups"]}
    assert groups["vlan100"] == 100 and groups["vlan200"] == 200
    for vm in vms:
        power_off(vm)


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_bridged_by_the_option(machine, hanok, tmp_path, monkeypatch):  # noqa: F811
    """bridged=INTERFACE: a network is made for it, which two machines and somebody beyond the interface share."""
    monkeypatch.setenv("HANOK_VMS", str(tmp_path / "vms"))
    monkeypatch.setenv("HANOK_RUNTIME", str(tmp_path / "run"))
    name = f"hk{os.getpid()}"
    run("ip", "link", "add", name + "v", "type", "veth", "peer", "name", name + "w")
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "set", name + "w", "netns", name)
        run("ip", "link", "set", name + "v", "up")
        run("ip", "-n", name, "link", "set", name + "w", "up")
        run("ip", "-n", name, "addr", "add", "192.168.7.9/24", "dev", name + "w")
        vms = [machine(f"bridged={name}v") for _ in range(2)]
        for i, vm in enumerate(vms, 1):
            vm.output(f"ip link set eth0 up; ip addr add 192.168.7.{i}/24 dev eth0")
        assert answers(vms[0], "192.168.7.9") and answers(vms[1], "192.168.7.9") and answers(vms[0], "192.168.7.2")
        for vm in vms:
            power_off(vm)
        # It is not there any more: the next machine starts it.
        assert run_hanok(hanok, "net", "stop", f"bridged-{name}v").returncode == 0
        vm = machine(f"bridged={name}v")
        vm.output("ip link set eth0 up; ip addr add 192.168.7.1/24 dev eth0")
        assert answers(vm, "192.168.7.9")
        power_off(vm)
    finally:
        run_hanok(hanok, "net", "stop", f"bridged-{name}v")
        run("ip", "netns", "del", name, check=False)
        run("ip", "link", "del", name + "v", check=False)
