# SPDX-License-Identifier: Apache-2.0
"""Network cards: stock Linux drivers on our cards, through NAT and through networks that machines share.

A guest gets its address by DHCP, fetches from servers that the test runs on the host, serves what the host fetches
by a forward, and every transfer's checksum is compared. Also every way the drivers can be set up: offloads on and
off, small rings, legacy virtio, the interrupt pin, a queue pair for each vCPU, other addresses and VLANs.
"""

import contextlib
import hashlib
import http.server
import os
import random
import re
import socket
import subprocess
import threading
import time

import pytest
from conftest import TIMEOUT_SCALE, Vm, error_line, run_hanok, trouble_of

MIB = 1 << 20
# model= of --nic -> its driver's modules.
MODELS = {"virtio": "virtio_pci,virtio_net", "vmxnet3": "vmxnet3", "e1000": "e1000"}
# Debian's kernel for clouds has no driver for it.
GUESTS = {"e1000": "generic"}
MODULES = "af_packet,8021q"
MAC = "00:0c:29:12:34:56"
ADDRESS6 = "fec0::20c:29ff:fe12:3456"
UDHCPC = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/${mask:-24}" dev "$interface"
ip route add default via "${router%% *}"
echo "nameserver $dns" >/etc/resolv.conf
echo "lease $ip mask $mask router $router dns $dns"
"""


@pytest.fixture(params=MODELS)
def model(request):
    return request.param


# ---- the host's side ----


def data_of(size, seed=1):
    return random.Random(seed).randbytes(size)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class DualServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


@pytest.fixture
def web():
    """An HTTP server for 127.0.0.1 and ::1: web(content) -> its port."""
    servers = []

    def serve(content):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = DualServer(("::", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class Sink(threading.Thread):
    """Takes one connection and all that comes by it."""

    def __init__(self, family=socket.AF_INET):
        super().__init__(daemon=True)
        self.listener = socket.create_server(
            ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family
        )
        self.port = self.listener.getsockname()[1]
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.start()

    def run(self):
        connection, _ = self.listener.accept()
        with connection:
            while data := connection.recv(1 << 16):
                self.digest.update(data)
                self.bytes += len(data)
        self.listener.close()

    def result(self, timeout=60):
        self.join(timeout * TIMEOUT_SCALE)
        assert not self.is_alive(), f"the connection was not closed; {self.bytes} bytes came"
        return self.digest.hexdigest()


def free_port(family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as probe:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return probe.getsockname()[1]


def send_to(address, data, timeout=60):
    """Connects and sends as soon as someone listens in the guest; returns what came back."""
    deadline = time.monotonic() + timeout * TIMEOUT_SCALE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(address, 10) as connection:
            connection.settimeout(timeout * TIMEOUT_SCALE)
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            back = b""
            while piece := connection.recv(1 << 16):
                back += piece
            if back:
                return back
        assert time.monotonic() < deadline, "nobody answered in the guest"
        time.sleep(0.2)


# ---- the guest's ----


@pytest.fixture
def machine(hanok, guest, tmp_path):
    """machine("nat", model="virtio") -> a Vm at its shell; each word is a --nic."""
    script = tmp_path / "udhcpc.script"
    script.write_text(UDHCPC)
    script.chmod(0o755)
    started = []

    def boot(*nics, model="virtio", append="", cpus=1, engine="bt", options=(), programs=()):
        modules = f"{MODELS[model]},{MODULES}"
        kit = guest(GUESTS.get(model, "cloud"), modules, programs, (f"{script}=/etc/udhcpc.script",))
        words = [word for nic in nics for word in ("--nic", f"{nic},model={model}")]
        arguments = [
            "run", "--kernel", kit.kernel, "--initrd", kit.initrd, "--engine", engine, "--cpus", cpus,
            "--append", f"console=ttyS0 {append}".strip(), "--memory", "384M", *words, *options,
        ]  # fmt: skip
        vm = Vm(hanok, arguments, tmp_path / f"console{len(started)}")
        started.append(vm)
        vm.kit = kit
        vm.boot()
        return vm

    yield boot
    for vm in started:
        vm.close()


def dhcp(vm, interface="eth0"):
    """The lease's words: ip, mask, router, dns."""
    vm.output(f"ip link set {interface} up")
    said = vm.output(f"udhcpc -i {interface} -s /etc/udhcpc.script -n -q -t 10")
    return re.search(r"lease (\S+) mask (\S+) router (\S+) dns (\S+)", said).groups()


def address6(vm):
    """Waits for the address that the router's advertisement gives."""
    found = vm.output(
        "for i in $(seq 100); do ip -6 addr show dev eth0 | grep -q 'fec0::.*dynamic' &&"
        " ! ip -6 addr show dev eth0 | grep -q 'flags 40' && break; sleep 0.2; done; ip -6 addr show dev eth0"
    )
    return re.search(r"inet6 (fec0:\S+)/64", found)[1]


def check_log(vm, qemu_trouble):
    log = vm.output("dmesg")
    assert trouble_of(log) - qemu_trouble(vm.kit, 1) == set()
    bad = [line for line in log.splitlines() if re.search("NETDEV WATCHDOG|transmit queue|bad gso|hw csum failure", line)]
    assert bad == []


def background(vm, command):
    """Not a child of the terminal's shell: busybox 1.35's ends when one of its jobs does."""
    vm.output(f"( ({command}) </dev/null >/dev/null 2>&1 & )")


def counter(vm, name):
    return int(vm.output(f"cat /sys/class/net/eth0/statistics/{name}"))


def power_off(vm):
    vm.start("poweroff")
    assert vm.end() == 0


# ---- NAT ----


def test_nat(machine, model, web, qemu_trouble):
    """DHCP, ping, fetches and pushes by IPv4 and IPv6, with checksums."""
    data = data_of(24 * MIB)
    port = web(data)
    vm = machine(f"nat,mac={MAC}", model=model)
    assert vm.output("cat /sys/class/net/eth0/address") == MAC
    start = time.monotonic()
    assert dhcp(vm) == ("10.0.2.15", "24", "10.0.2.2", "10.0.2.3")
    assert time.monotonic() - start < 3 * TIMEOUT_SCALE
    assert "3 packets received" in vm.output("ping -c 3 10.0.2.2")
    assert address6(vm) == ADDRESS6
    assert "3 packets received" in vm.output("ping -6 -c 3 fec0::2")
    for address in ("10.0.2.2", "[fec0::2]"):
        got = vm.output(f"wget -q -O - http://{address}:{port}/ | sha256sum", 120)
        assert got.split()[0] == sha256(data)
    vm.output("dd if=/dev/urandom of=/tmp/data bs=64k count=384")
    digest = vm.output("sha256sum </tmp/data").split()[0]
    for address, family in (("10.0.2.2", socket.AF_INET), ("fec0::2", socket.AF_INET6)):
        sink = Sink(family)
        vm.output(f"nc {address} {sink.port} </tmp/data", 120)
        assert sink.result() == digest
    for name in ("rx_dropped", "tx_dropped", "rx_errors", "tx_errors"):
        assert counter(vm, name) == 0
    check_log(vm, qemu_trouble)
    power_off(vm)


def test_forwards(machine, model):
    """The host's ports lead into the guest: TCP by IPv4 and IPv6, and UDP; large in both directions."""
    ports = [free_port(), free_port(socket.AF_INET6), free_port(kind=socket.SOCK_DGRAM)]
    vm = machine(
        f"nat,mac={MAC},forward=tcp:127.0.0.1:{ports[0]}-22,forward=tcp:[::1]:{ports[1]}-[{ADDRESS6}]:23,"
        f"forward=udp:127.0.0.1:{ports[2]}-10.0.2.15:53",
        model=model,
    )
    dhcp(vm)
    address6(vm)
    data = data_of(8 * MIB, 2)
    background(vm, "nc -l -p 22 -e cat; nc -l -p 23 -e cat")
    assert sha256(send_to(("127.0.0.1", ports[0]), data)) == sha256(data)
    assert sha256(send_to(("::1", ports[1]), data)) == sha256(data)
    # Nobody listens there: the guest counts what came, and answers that its port is closed.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for _ in range(50):
            udp.sendto(b"hello\n", ("127.0.0.1", ports[2]))
            time.sleep(0.05)
    words = vm.output("grep ^Udp: /proc/net/snmp").splitlines()
    counts = dict(zip(words[0].split(), words[1].split()))
    assert int(counts["NoPorts"]) >= 40
    power_off(vm)


def test_interpreter(machine, model, web):
    """The same by the interpreter, a little less of it."""
    data = data_of(MIB)
    vm = machine("nat", model=model, engine="interp")
    dhcp(vm)
    got = vm.output(f"wget -q -O - http://10.0.2.2:{web(data)}/ | sha256sum", 120)
    assert got.split()[0] == sha256(data)
    power_off(vm)


# ---- the driver's choices ----


@pytest.mark.parametrize(
    "append",
    ["pci=nomsi", "virtio_net.gso=0 virtio_net.csum=0", "virtio_net.napi_tx=0", "virtio_pci.force_legacy=1"],
)
def test_virtio_choices(machine, web, append, qemu_trouble):
    data = data_of(8 * MIB, 3)
    vm = machine("nat", append=append)
    dhcp(vm)
    got = vm.output(f"wget -q -O - http://10.0.2.2:{web(data)}/ | sha256sum", 120)
    assert got.split()[0] == sha256(data)
    sink = Sink()
    vm.output(f"dd if=/dev/urandom of=/tmp/data bs=64k count=128; nc 10.0.2.2 {sink.port} </tmp/data", 120)
    assert sink.result() == vm.output("sha256sum </tmp/data").split()[0]
    check_log(vm, qemu_trouble)
    power_off(vm)


def test_virtio_queues(machine, web, qemu_trouble):
    """A pair of queues for each vCPU, all of them used at once."""
    data = data_of(4 * MIB, 4)
    port = web(data)
    vm = machine("nat", cpus=4)
    dhcp(vm)
    assert vm.output("ls -d /sys/class/net/eth0/queues/rx-* | wc -l") == "4"
    vm.output(
        "for c in 0 1 2 3; do for i in 0 1; do"
        f" taskset $((1 << c)) wget -q -O - http://10.0.2.2:{port}/ | sha256sum >/tmp/sum$c$i & done; done; wait",
        180,
    )
    sums = vm.output("cat /tmp/sum*").split()
    assert [word for word in sums if word != "-"] == [sha256(data)] * 8
    used = [line for line in vm.output("cat /proc/interrupts").splitlines() if "virtio0-input" in line]
    assert sum(any(int(word) > 20 for word in line.split()[1:5]) for line in used) >= 2
    check_log(vm, qemu_trouble)
    power_off(vm)


def test_virtio_reload(machine, web):
    """The driver goes and comes back; another address is the card's until then."""
    data = data_of(MIB, 5)
    vm = machine(f"nat,mac={MAC}")
    for _ in range(3):
        dhcp(vm)
        vm.output("ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:07; ip link set eth0 up")
        got = vm.output(f"ip route add default via 10.0.2.2; wget -q -O - http://10.0.2.2:{web(data)}/ | sha256sum")
        assert got.split()[0] == sha256(data)
        vm.output("rmmod virtio_net")
        vm.output("insmod $(find /lib/modules -name 'virtio_net.ko*')")
        assert vm.output("cat /sys/class/net/eth0/address") == MAC
    power_off(vm)


def test_reboot(machine, model, web):
    data = data_of(MIB, 6)
    vm = machine("nat", model=model)
    dhcp(vm)
    vm.start("reboot")
    vm.boot()
    dhcp(vm)
    got = vm.output(f"wget -q -O - http://10.0.2.2:{web(data)}/ | sha256sum")
    assert got.split()[0] == sha256(data)
    power_off(vm)


def test_unplugged(machine, model):
    vm = machine("none", "nat", model=model)
    vm.output("ip link set eth0 up; ip link set eth1 up; sleep 1")
    assert vm.output("cat /sys/class/net/eth0/carrier") == "0"
    assert vm.output("cat /sys/class/net/eth1/carrier") == "1"
    power_off(vm)


# ---- networks ----


@pytest.fixture
def network(hanok, tmp_path, monkeypatch):
    """network("lab", "--nat") makes and starts one."""
    monkeypatch.setenv("HANOK_VMS", str(tmp_path / "vms"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = []

    def create(name, *options):
        result = run_hanok(hanok, "net", "create", name, *options)
        assert result.returncode == 0, result.stderr
        made.append(name)

    yield create
    for name in made:
        for verb in ("stop", "rm"):
            assert run_hanok(hanok, "net", verb, name).returncode == 0


def test_two_guests(machine, model, network, hanok, qemu_trouble):
    """Two machines on a network of their own: large transfers, and a VLAN, and who has the address is known."""
    network("lab")
    run_hanok(hanok, "net", "port-group", "set", "lab", "tagged", "--guest-tagging")
    one = machine(f"switch=lab,group=tagged,mac={MAC}", model=model)
    two = machine("switch=lab,group=tagged", model=model)
    for i, vm in enumerate((one, two), 1):
        vm.output(f"ip link set eth0 up; ip addr add 192.168.7.{i}/24 dev eth0")
        vm.output(
            "ip link add link eth0 name eth0.5 type vlan id 5; ip link set eth0.5 up;"
            f" ip addr add 192.168.8.{i}/24 dev eth0.5"
        )
    assert "3 packets received" in one.output("ping -c 3 192.168.7.2")
    assert "3 packets received" in one.output("ping -c 3 192.168.8.2")
    shown = subprocess.run([hanok, "net", "mac-table", "lab"], capture_output=True, text=True, check=True).stdout
    assert MAC in shown
    one.output("dd if=/dev/urandom of=/tmp/data bs=64k count=384")
    digest = one.output("sha256sum </tmp/data").split()[0]
    background(two, "nc -l -p 7 -e sha256sum")
    assert one.output("sleep 1; nc 192.168.7.2 7 </tmp/data", 120).split()[0] == digest
    for vm in (one, two):
        check_log(vm, qemu_trouble)
        power_off(vm)


# ---- the option ----


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("wifi", "is plugged into nat, switch=NAME"),
        ("nat,model=ne2000", "ne2000: no such network card; there is virtio"),
        ("nat,mac=1", "no address of a card"),
        ("nat,mac=01:00:00:00:00:01", "its first byte is even"),
        ("nat,forward=tcp:x", "tcp:x"),
        ("none,forward=tcp:22-22", "only NAT forwards"),
        ("nat,group=x", "only networks have port groups"),
        ("nat,vlan=5", "only networks have port groups"),
        ("switch=lab,vlan=0", "vlan=0: it must be a number from 1 to 4094"),
        ("switch=lab,vlan=4095", "from 1 to 4094"),
        ("switch=lab,vlan=+7", "from 1 to 4094"),
        ("switch=lab,vlan=7x", "from 1 to 4094"),
        ("nat,speed=10", "'speed=10' is no setting"),
    ],
)
def test_refused(hanok, value, says):
    result = run_hanok(hanok, "run", "--kernel", os.devnull, "--nic", value)
    assert result.returncode == 2
    assert says in error_line(result)
    assert "--nic" in error_line(result)


def test_network_that_is_not_there(hanok, tmp_path, monkeypatch):
    monkeypatch.setenv("HANOK_VMS", str(tmp_path))
    result = run_hanok(hanok, "run", "--kernel", os.devnull, "--nic", "switch=lab")
    assert result.returncode == 125
    assert "network card 0: network lab: there is no such network" in error_line(result)
    for name in ("hostonly", "bridged"):
        result = run_hanok(hanok, "run", "--kernel", os.devnull, "--nic", name)
        assert f"network card 0: network {name}: there is no such network" in error_line(result)
    result = run_hanok(hanok, "run", "--kernel", os.devnull, "--nic", "bridged=noif0")
    assert result.returncode == 125
    assert "network card 0" in error_line(result) and "noif0" in error_line(result)
    assert not list((tmp_path / ".networks").glob("*")), "what could not run is still there"


def test_port_that_is_taken(hanok):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        nic = f"nat,forward=tcp:127.0.0.1:{port}-22"
        result = run_hanok(hanok, "run", "--kernel", os.devnull, "--nic", nic)
    assert result.returncode == 125
    assert str(port) in error_line(result)
