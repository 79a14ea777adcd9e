# SPDX-License-Identifier: Apache-2.0
"""Networks with real TCP stacks: machines are network namespaces with a TAP each, tshark is the witness.

Nothing leaves this host: services are on its loopback or in the namespaces. Needs root (CAP_NET_ADMIN);
without it these tests are skipped.
"""

import ctypes
import http.server
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.request

import pytest
from conftest import TIMEOUT_SCALE, run_hanok

CLONE_NEWNET = 0x40000000


def why_not():
    if os.geteuid() != 0:
        return "needs root: network namespaces and TAP interfaces"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    if shutil.which("ip") is None:
        return "needs iproute2"
    if subprocess.run(["ip", "netns", "add", "hkprobe"], capture_output=True, check=False).returncode:
        return "network namespaces are not allowed here"
    subprocess.run(["ip", "netns", "del", "hkprobe"], check=False)
    return None


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def run(*command, check=True):
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=120
    )
    assert not check or result.returncode == 0, f"{command}: {result.stderr}{result.stdout}"
    return result


def wait_for(what, seconds=10):
    """Call `what` until it gives something true."""
    end = time.monotonic() + seconds * TIMEOUT_SCALE
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.05)


class Machine:
    """A network namespace whose only card is a TAP on the network."""

    def __init__(self, net, name, tap, port):
        self.net, self.name, self.tap, self.port = net, name, tap, port
        run("ip", "netns", "add", name)
        run("ip", "link", "set", tap, "netns", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)

    def run(self, *command, check=True):
        return run("ip", "netns", "exec", self.name, *command, check=check)

    def up(self, address=None, mac=None):
        if mac:
            self.ip("link", "set", self.tap, "address", mac)
        self.ip("link", "set", self.tap, "up")
        if address:
            self.ip("addr", "add", address, "dev", self.tap)
        return self

    @property
    def mac(self):
        shown = json.loads(self.ip("-j", "link", "show", self.tap).stdout)
        return shown[0]["address"]

    def pings(self, address, count=2):
        tool = ["busybox", "ping6" if ":" in address else "ping"]
        return self.run(*tool, "-c", count, "-W", 2, address, check=False).returncode == 0

    def within(self, function):
        """Call a function in a thread that is in the namespace; returns what it returns."""
        answer = []

        def body():
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{self.name}", "rb") as ns:
                if libc.setns(ns.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            answer.append(function())

        thread = threading.Thread(target=body)
        thread.start()
        thread.join(60 * TIMEOUT_SCALE)
        assert answer, "the function in the namespace failed"
        return answer[0]

    def fetch(self, url):
        """What a web server answers to this machine."""

        def get():
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.read()

        return self.within(get)

    def raw(self):
        """A packet socket on the machine's card."""

        def make():
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.bind((self.tap, 0))
            return s

        s = self.within(make)
        s.settimeout(2 * TIMEOUT_SCALE)
        return s


class Network:
    """A network of hanok's, with its own folders."""

    def __init__(self, hanok, folder, name):
        self.hanok, self.folder, self.name = hanok, folder, name
        self.machines = []

    def do(self, *words, status=0):
        result = run_hanok(self.hanok, "net", *words, timeout=60)
        assert result.returncode == status, f"{words}: {result.stderr}"
        return result

    def json(self, *words):
        return json.loads(self.do(*words, self.name, "--json").stdout)

    def port(self, number):
        return next(port for port in self.json("show")["ports"] if port["port"] == number)

    def machine(self, group="default", mac=None):
        number = len(self.machines)
        tap = f"hk{os.getpid() % 100000}t{number}"
        options = ["--mac", mac] if mac else []
        answer = self.do("attach", self.name, "--tap", tap, "--group", group, "--json", *options)
        port = json.loads(answer.stdout)["port"]
        machine = Machine(self, f"hk{os.getpid()}-{number}", tap, port)
        self.machines.append(machine)
        return machine

    def close(self):
        run_hanok(self.hanok, "net", "stop", self.name)
        for machine in self.machines:
            run("ip", "netns", "del", machine.name, check=False)


@pytest.fixture
def network(hanok, tmp_path, monkeypatch):
    monkeypatch.setenv("HANOK_VMS", str(tmp_path / "vms"))
    monkeypatch.setenv("HANOK_RUNTIME", str(tmp_path / "run"))
    net = Network(hanok, tmp_path, "lan")
    yield net
    net.close()


@pytest.fixture
def web(tmp_path):
    """A web server on the host's loopback, IPv4 and IPv6: its port."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "hello").write_text("hello from the host\n")
    (folder / "big").write_bytes(os.urandom(1 << 20) * 20)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    class Server6(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    server6 = Server6(("::1", port), Handler)
    for s in (server, server6):
        threading.Thread(target=s.serve_forever, daemon=True).start()
    yield port
    for s in (server, server6):
        s.shutdown()
        s.server_close()


def tshark(path, *options):
    return run("tshark", "-n", "-r", path, *options).stdout


CHECK_SUMS = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]


def frame(destination, source, payload=b"hanok", tag=None, kind=0x88B5):
    """An Ethernet frame of the kind for experiments (IEEE 802)."""

    def mac(text):
        return bytes.fromhex(text.replace(":", ""))

    tagged = struct.pack("!HH", 0x8100, tag) if tag is not None else b""
    return mac(destination) + mac(source) + tagged + struct.pack("!H", kind) + payload.ljust(46, b"\0")


BROADCAST = "ff:ff:ff:ff:ff:ff"


def heard(sock, payload, seconds=1.0):
    """The first frame with this payload within some time, or None."""
    end = time.monotonic() + seconds * TIMEOUT_SCALE
    while time.monotonic() < end:
        sock.settimeout(max(end - time.monotonic(), 0.001))
        try:
            data, ancillary, _, _ = sock.recvmsg(2048, 256)
        except TimeoutError:
            return None
        if payload in data:
            return data, ancillary
    return None


# ---- machines among themselves ----


def transfer(server, client, address, megabytes):
    """TCP from one machine to another; both ends compare what arrived."""
    data = os.urandom(1 << 16) * (megabytes * 16)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen():
        s = socket.socket(family)
        s.bind((address, 5000))
        s.listen()
        return s

    listener = server.within(listen)
    sender = client.within(lambda: socket.create_connection((address, 5000), 10))
    receiver, _ = listener.accept()
    thread = threading.Thread(target=lambda: (sender.sendall(data), sender.close()))
    thread.start()
    got = bytearray()
    while chunk := receiver.recv(1 << 20):
        got += chunk
    thread.join()
    receiver.close()
    listener.close()
    assert got == data


def test_tcp_between_machines(network):
    """Two real TCP stacks: nothing is segmented, nothing is lost, captures have right checksums."""
    network.do("create", "lan")
    a = network.machine().up("192.0.2.1/24")
    b = network.machine().up("192.0.2.2/24")
    a.ip("addr", "add", "fd00::1/64", "dev", a.tap, "nodad")
    b.ip("addr", "add", "fd00::2/64", "dev", b.tap, "nodad")
    assert a.pings("192.0.2.2")
    capture = network.folder / "lan.pcapng"
    network.do("capture", "lan", a.port, capture)
    transfer(b, a, "192.0.2.2", 40)
    transfer(b, a, "fd00::2", 10)
    frames = int(network.do("capture", "lan", a.port, "--stop").stdout.split()[0])
    assert frames > 100
    assert "Wireshark/... - pcapng" in run("capinfos", "-t", capture).stdout
    bad = "tcp.checksum.status==0 or ip.checksum.status==0 or udp.checksum.status==0"
    assert tshark(capture, *CHECK_SUMS, "-Y", bad) == ""
    good = tshark(capture, *CHECK_SUMS, "-Y", "tcp.checksum.status==1")
    assert len(good.splitlines()) > 100
    longest = max(int(n) for n in tshark(capture, "-T", "fields", "-e", "frame.len").split())
    assert longest > 30000, "frames were cut where both ends can take them whole"
    stats = network.port(a.port)
    assert stats["in_packets"] > 40e6 / 1448 > stats["in_frames"]


def test_mac_table_and_moves(network):
    network.do("create", "lan")
    a, b, c = (network.machine() for _ in range(3))
    a.up("192.0.2.1/24")
    b.up("192.0.2.2/24", mac="02:00:00:00:00:77")
    c.up("192.0.2.3/24")
    assert a.pings("192.0.2.2")

    def place(mac):
        return next((e["port"] for e in network.json("mac-table")["entries"] if e["mac"] == mac), None)

    assert place(a.mac) == a.port and place("02:00:00:00:00:77") == b.port
    # The machine moves: the same address, now at c's port.
    b.ip("link", "set", b.tap, "down")
    c.ip("link", "set", c.tap, "down")
    c.up("192.0.2.2/24", mac="02:00:00:00:00:77")
    assert c.pings("192.0.2.1")
    assert place("02:00:00:00:00:77") == c.port
    assert network.json("show")["mac_table"]["moved"] >= 1


def test_vlans(network):
    """100 and 200 do not hear each other; a trunk hears both, with tags; nobody hops."""
    network.do("create", "lan")
    for name, how in [("v100", ["--vlan", 100]), ("v200", ["--vlan", 200]), ("trunk", ["--trunk", "100,200"])]:
        network.do("port-group", "set", "lan", name, *how)
    a, b, c, t = (network.machine(group) for group in ("v100", "v100", "v200", "trunk"))
    a.up("192.0.2.1/24")
    b.up("192.0.2.2/24")
    c.up("192.0.2.3/24")
    t.up()
    assert a.pings("192.0.2.2")
    assert not a.pings("192.0.2.3", count=1)
    capture = network.folder / "trunk.pcapng"
    network.do("capture", "lan", t.port, capture)
    sa, sb, sc, st = (machine.raw() for machine in (a, b, c, t))
    sa.send(frame(BROADCAST, a.mac, b"from-100"))
    sc.send(frame(BROADCAST, c.mac, b"from-200"))
    assert heard(sb, b"from-100") and not heard(sc, b"from-100", 0.3)
    assert not heard(sb, b"from-200", 0.3)
    assert heard(st, b"from-100") and heard(st, b"from-200")
    # From the trunk into each VLAN, and into none that is not the trunk's.
    for tag in (100, 200, 300):
        st.send(frame(BROADCAST, t.mac, b"tag-%d" % tag, tag=tag))
    assert heard(sb, b"tag-100") and not heard(sb, b"tag-200", 0.3)
    assert heard(sc, b"tag-200") and not heard(sc, b"tag-300", 0.3)
    # An access port's own tags are not believed, nor a tag within a tag.
    sa.send(frame(BROADCAST, a.mac, b"hop-200", tag=200))
    sa.send(frame(BROADCAST, a.mac, struct.pack("!HH", 200, 0x88B5) + b"hop-twice", tag=100, kind=0x8100))
    assert not heard(sc, b"hop-200", 0.3) and not heard(sc, b"hop-twice", 0.3)
    assert network.port(a.port)["drops"]["vlan"] == 2
    network.do("capture", "lan", t.port, "--stop")
    tags = tshark(capture, "-Y", "eth.src==" + a.mac + " and vlan", "-T", "fields", "-e", "vlan.id")
    assert set(tags.split()) == {"100"}


def test_policies(network):
    """Forged and changed addresses, promiscuous ports: reject, then accept."""
    network.do("create", "lan")
    mac = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"]
    a, b, c = (network.machine(mac=m) for m in mac)
    for number, machine in enumerate((a, b, c)):
        machine.up(f"192.0.2.{number + 1}/24", mac=mac[number])
    assert a.pings("192.0.2.2")
    sa, sb, sc = (machine.raw() for machine in (a, b, c))
    sa.send(frame(BROADCAST, "02:00:00:00:00:99", b"forged-1"))
    assert not heard(sb, b"forged-1", 0.3)
    assert network.port(a.port)["drops"]["forged"] == 1
    sa.send(frame(mac[1], mac[0], b"private"))
    assert heard(sb, b"private") and not heard(sc, b"private", 0.3)
    network.do("port-group", "set", "lan", "default", "--forged", "yes")
    sa.send(frame(BROADCAST, "02:00:00:00:00:99", b"forged-2"))
    assert heard(sb, b"forged-2")
    network.do("port-group", "set", "lan", "watch", "--promiscuous", "yes")
    network.do("move", "lan", c.port, "watch")
    sa.send(frame(mac[1], mac[0], b"watched"))
    assert heard(sb, b"watched") and heard(sc, b"watched")


def test_floods_and_bad_frames(network):
    """A machine that makes up addresses and sends nonsense does not keep others from talking."""
    network.do("create", "lan")
    a = network.machine().up("192.0.2.1/24")
    b = network.machine().up("192.0.2.2/24")
    evil = network.machine().up()
    s = evil.raw()
    for number in range(20000):
        s.send(frame("02:00:00:00:00:01", f"06:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"))
    for junk in (b"\xff" * 14, b"\x02" * 13 + b"\x81", frame("01:80:c2:00:00:00", "02:00:00:00:00:09"),
                 frame(BROADCAST, BROADCAST), frame(BROADCAST, "00:00:00:00:00:00")):
        s.send(junk)
    assert a.pings("192.0.2.2")
    transfer(b, a, "192.0.2.2", 5)
    table = network.json("show")["mac_table"]
    assert table["entries"] <= table["places"]
    assert table["places"] / 8 + 50 >= table["entries"]
    assert network.port(evil.port)["drops"]["bad-frame"] >= 3


def test_bad_line(network):
    network.do("create", "lan")
    a = network.machine().up("192.0.2.1/24")
    b = network.machine().up("192.0.2.2/24")
    assert a.pings("192.0.2.2")
    network.do("shape", "lan", b.port, "--delay", "0.1")
    text = a.run("busybox", "ping", "-c", 3, "192.0.2.2").stdout
    times = [float(t) for t in re.findall(r"time=([\d.]+)", text)]
    assert len(times) == 3 and all(100 <= t < 100 + 80 * TIMEOUT_SCALE for t in times)
    network.do("shape", "lan", b.port, "--rate", "40M")
    start = time.monotonic()
    transfer(b, a, "192.0.2.2", 10)
    took = time.monotonic() - start
    assert 2.0 < took < 6 * TIMEOUT_SCALE, f"10 MiB at 40 Mbit/s took {took:.2f} s"
    network.do("shape", "lan", b.port, "--loss", 5)
    transfer(b, a, "192.0.2.2", 2)
    assert network.port(b.port)["drops"]["loss"] > 0


def test_bridge(network):
    """A packet socket on a host interface: here one end of a veth pair between two namespaces."""
    name = f"hk{os.getpid()}"
    run("ip", "link", "add", name + "v", "type", "veth", "peer", "name", name + "w")
    run("ip", "netns", "add", name + "-far")
    try:
        run("ip", "link", "set", name + "w", "netns", name + "-far")
        run("ip", "link", "set", name + "v", "up")
        run("ip", "-n", name + "-far", "link", "set", name + "w", "up")
        run("ip", "-n", name + "-far", "addr", "add", "192.0.2.9/24", "dev", name + "w")
        network.do("create", "lan", "--bridge", name + "v")
        a = network.machine().up("192.0.2.1/24")
        assert a.pings("192.0.2.9")
        far = Machine.__new__(Machine)
        far.name = name + "-far"
        transfer(far, a, "192.0.2.9", 20)
        a_listens = network.machines[0]
        transfer(a_listens, far, "192.0.2.1", 20)
    finally:
        run("ip", "netns", "del", name + "-far", check=False)
        run("ip", "link", "del", name + "v", check=False)


# ---- NAT ----


@pytest.fixture
def nat(network):
    network.do("create", "lan", "--nat")
    return network


DHCP_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface" && ip route add default via "$router"
echo "$ip $router $dns" >LEASE
"""


def lease(net, machine):
    script = net.folder / f"dhcp-{machine.name}"
    answer = net.folder / f"lease-{machine.name}"
    script.write_text(DHCP_SCRIPT.replace("LEASE", str(answer)))
    script.chmod(0o755)
    machine.run("busybox", "udhcpc", "-i", machine.tap, "-n", "-q", "-t", 5, "-s", script)
    return answer.read_text().split()


def test_nat(nat, web):
    """DHCP, HTTP from the host's loopback over IPv4 and IPv6, long transfers, the table."""
    a, b = nat.machine().up(), nat.machine().up()
    capture = nat.folder / "nat.pcapng"
    nat.do("capture", "lan", a.port, capture)
    assert lease(nat, a) == ["10.0.2.15", "10.0.2.2", "10.0.2.3"]
    assert lease(nat, b)[0] == "10.0.2.16"
    assert a.pings("10.0.2.2")
    big = (nat.folder / "www/big").read_bytes()
    assert a.fetch(f"http://10.0.2.2:{web}/hello") == b"hello from the host\n"
    assert a.fetch(f"http://10.0.2.2:{web}/big") == big
    flows = nat.json("nat-table")["flows"]
    mine = [f for f in flows if f["outside"] == f"10.0.2.2:{web}"]
    assert mine and all(f["protocol"] == "tcp" and f["inside"].startswith("10.0.2.15:") for f in mine)
    assert max(f["bytes_in"] for f in mine) > 20 << 20
    wait_for(lambda: "fec0" in a.ip("-6", "addr", "show", "dev", a.tap).stdout)
    wait_for(lambda: "tentative" not in a.ip("-6", "addr", "show", "dev", a.tap).stdout)
    assert a.fetch(f"http://[fec0::2]:{web}/big") == big
    flows = nat.json("nat-table")["flows"]
    assert any(f["outside"] == f"[fec0::2]:{web}" for f in flows)
    nat.do("capture", "lan", a.port, "--stop")
    bad = "tcp.checksum.status==0 or ip.checksum.status==0 or udp.checksum.status==0"
    assert tshark(capture, *CHECK_SUMS, "-Y", bad) == ""
    assert "10.0.2.15" in tshark(capture, "-Y", "dhcp.option.dhcp==5", "-T", "fields", "-e", "dhcp.ip.your")


def dhcp_discover(source, card, number):
    """A DHCPDISCOVER from `source` that asks for an address for the card with the address `card`."""
    client = bytes.fromhex(card.replace(":", ""))
    body = struct.pack("!4BIHHIIII", 1, 1, 6, 0, number, 0, 0x8000, 0, 0, 0, 0) + client.ljust(16, b"\0")
    body += bytes(192) + b"\x63\x82\x53\x63" + b"\x35\x01\x01\xff"
    udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    words = struct.unpack("!10H", ip)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~total & 0xFFFF) + ip[12:]
    return frame(BROADCAST, source, ip + udp, kind=0x0800)


def test_arp_and_dhcp_floods(nat, web):
    """A machine that asks for leases for cards that it does not have, and for everybody's address, without end:
    others get theirs, and go on at speed."""
    evil = nat.machine().up()
    a = nat.machine().up()
    s = evil.raw()

    def flood():
        for number in range(3000):
            card = f"06:00:00:00:{number >> 8:02x}:{number & 255:02x}"
            s.send(dhcp_discover(evil.mac_now, card, number))
            arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, evil_mac, b"\x0a\x00\x02\x63", bytes(6),
                              struct.pack("!I", 0x0A000200 + number % 255))
            s.send(frame(BROADCAST, evil.mac_now, arp, kind=0x0806))

    evil.mac_now = evil.mac
    evil_mac = bytes.fromhex(evil.mac_now.replace(":", ""))
    flood()
    start = time.monotonic()
    assert lease(nat, a)[0] == "10.0.2.15"
    assert time.monotonic() - start < 5 * TIMEOUT_SCALE
    thread = threading.Thread(target=flood)
    thread.start()
    assert len(a.fetch(f"http://10.0.2.2:{web}/big")) == 20 << 20
    thread.join()
    assert lease(nat, evil)[0] == "10.0.2.16"
    # What the machine could not even send in time counts elsewhere.
    assert sum(port["drops"].get("forged", 0) for port in nat.json("show")["ports"]) > 1000


def test_nat_table_follows_a_connection(nat, web):
    a = nat.machine().up()
    lease(nat, a)
    s = a.within(lambda: socket.create_connection(("10.0.2.2", web), 10))
    inside = f"10.0.2.15:{s.getsockname()[1]}"

    def flow():
        return next((f for f in nat.json("nat-table")["flows"] if f["inside"] == inside), None)

    assert wait_for(flow)["state"] == "ESTABLISHED"
    # What the table calls the host's socket is one: the kernel knows it.
    host = flow()["host"]
    assert host in run("ss", "-Htn", "state", "established").stdout
    s.close()
    wait_for(lambda: flow() is None or flow()["state"] != "ESTABLISHED")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_forwards(nat):
    """The host's ports lead to a machine's servers, TCP and UDP, and end when they are removed."""
    a = nat.machine().up()
    lease(nat, a)

    def listen(kind):
        def make():
            s = socket.socket(socket.AF_INET, kind)
            s.bind(("0.0.0.0", 7777))
            if kind == socket.SOCK_STREAM:
                s.listen()
            return s

        return a.within(make)

    tcp, udp = listen(socket.SOCK_STREAM), listen(socket.SOCK_DGRAM)
    port = free_port()
    nat.do("forward", "add", "lan", f"tcp:127.0.0.1:{port}-7777")
    nat.do("forward", "add", "lan", f"udp:{port}-10.0.2.15:7777")
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        tcp.settimeout(10)
        server, _ = tcp.accept()
        client.sendall(b"ping")
        assert server.recv(10) == b"ping"
        server.sendall(b"pong" * 100000)
        server.close()
        got = b""
        while chunk := client.recv(65536):
            got += chunk
        assert got == b"pong" * 100000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        udp.settimeout(5)
        client.sendto(b"question", ("127.0.0.1", port))
        data, peer = udp.recvfrom(100)
        assert data == b"question"
        udp.sendto(b"answer", peer)
        assert client.recv(100) == b"answer"
    assert nat.json("show")["forwards"] == [f"tcp:127.0.0.1:{port}-7777", f"udp:127.0.0.1:{port}-10.0.2.15:7777"]
    again = nat.do("forward", "add", "lan", f"tcp:127.0.0.1:{port}-22", status=125)
    assert "forwarded already" in again.stderr
    nat.do("forward", "rm", "lan", f"tcp:127.0.0.1:{port}-7777")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        assert "in use" in nat.do("forward", "add", "lan", f"tcp:{taken}-22", status=125).stderr


def test_nat_options(network, web):
    """The host's loopback closed, another network, no IPv6."""
    network.do("create", "lan", "--nat", "--no-host-loopback", "--network", "172.20.5.0/24", "--no-ipv6")
    a = network.machine().up()
    assert lease(network, a)[:2] == ["172.20.5.15", "172.20.5.2"]
    def connects():
        try:
            socket.create_connection(("172.20.5.2", web), 3).close()
        except OSError:
            return False
        return True

    assert not a.within(connects)
    time.sleep(1)
    assert "fec0" not in a.ip("-6", "addr").stdout


def test_long_datagrams_through_nat(nat):
    """A UDP datagram longer than the guest's MTU comes in fragments that its kernel puts together."""
    a = nat.machine().up()
    lease(nat, a)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        client = a.within(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.settimeout(5)
        for size in (100, 1472, 1473, 9000, 30000):
            data = os.urandom(size)
            client.sendto(data, ("10.0.2.2", server.getsockname()[1]))
            got, peer = server.recvfrom(65536)
            assert got == data
            server.sendto(data, peer)
            assert client.recv(65536) == data


# ---- the process ----


def test_restart_keeps_the_network(nat):
    nat.do("port-group", "set", "lan", "v7", "--vlan", 7)
    port = free_port()
    nat.do("forward", "add", "lan", f"tcp:{port}-22")
    nat.do("stop", "lan")
    assert "does not run" in nat.do("show", "lan", status=125).stderr
    nat.do("start", "lan")
    shown = nat.json("show")
    assert [g["name"] for g in shown["groups"]] == ["default", "v7"]
    assert shown["forwards"] == [f"tcp:127.0.0.1:{port}-22"]
