# SPDX-License-Identifier: Apache-2.0
"""Networks: the same transfers by the same guest under QEMU's TCG and under Hanok, and the switch by itself.

Two machines of each are up all the time, with a card of each model to the host (NAT: libslirp in both, QEMU's
`-netdev user`) and one to each other (Hanok's switch; QEMU's `-netdev socket`). Only the card that is measured is
up. They take turns, transfer by transfer, so that a noisy host is noisy to both:

  out        iperf3, guest to host, through NAT
  in         iperf3, host to guest, through NAT
  pair       iperf3, from one guest to the other
  NAT trip   a byte by TCP to the host and back (src/netpong.c)
  pair trip  the same to the other guest

Rates are what the receiving iperf3 says; what they cost is by the processor time of the monitors. The switch
without guests is build/netbench (netbench.c): one thread, frames copied once from port to port.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

import rootfs
import vm

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ABOUT = "iperf3 and round trips through NAT and from guest to guest; the switch by itself"
MODELS = {"virtio": "virtio-net-pci", "vmxnet3": "vmxnet3", "e1000": "e1000"}
DRIVERS = {"virtio": "virtio_net", "vmxnet3": "vmxnet3", "e1000": "e1000"}
MODULES = "virtio_pci,virtio_net,vmxnet3,e1000,af_packet"
IPERF_PORT, PONG_PORT = 5201, 5202
READY, DONE = "network-ready", "network-done"
AGENT = f"""#!/bin/sh
# Takes orders from the console, a line each.
stty -echo
# use DRIVER NTH ADDRESS: only this card is up, the NTH of its driver.
use() {{
	for net in /sys/class/net/eth*; do
		ip link set "${{net##*/}}" down
		ip addr flush dev "${{net##*/}}"
	done
	n=0
	for device in $(ls -d /sys/bus/pci/drivers/*/0000:*/net/* /sys/bus/pci/drivers/*/0000:*/virtio*/net/* | sort); do
		name=${{device##*/}}
		case $(readlink "/sys/class/net/$name/device/driver") in */$1) ;; *) continue ;; esac
		n=$((n + 1))
		[ $n = "$2" ] && ip addr add "$3/24" dev "$name" && ip link set "$name" up
	done
	sleep 0.5
}}
iperf3 -s -D -p {IPERF_PORT}
netpong serve {PONG_PORT} &
echo {READY}
while read -r order; do
	eval "$order"
	echo "{DONE} $?"
done
"""

# name: which way, unit
PATTERNS = {"out": "Mbit/s", "in": "Mbit/s", "pair": "Mbit/s", "NAT trip": "us", "pair trip": "us"}
RATE = re.compile(r"([\d.]+) Mbits/sec.*receiver")
TRIP = re.compile(r"netpong trips=\d+ median_us=([\d.]+)")


class Guest:
    """A machine whose guest takes orders."""

    def __init__(self, command, limit_s, env):
        self.limit_s = limit_s
        self.child = vm.Child(command, stdin=subprocess.PIPE, env=env)
        self.wait_for(READY)

    def wait_for(self, word):
        """The lines up to the one with the word. Raises rootfs.Failed when the machine ends or hangs."""
        lines = []
        try:
            while (text := self.child.line(self.limit_s)) is not None:
                lines.append(text)
                if word in text:
                    return lines
        except TimeoutError as error:
            raise rootfs.Failed(f"network: the guest hangs: {error}: {' | '.join(self.child.tail[-3:])}") from error
        raise rootfs.Failed(f"network: the machine ended early: {' | '.join(self.child.tail[-3:])}")

    def order(self, text):
        """What the guest printed. Raises rootfs.Failed when the order failed there."""
        self.child.send(text + "\n")
        lines = self.wait_for(DONE)
        if not lines[-1].endswith(DONE + " 0"):
            raise rootfs.Failed(f"network: in the guest: {text}: {' | '.join(lines[-3:])}")
        return "\n".join(lines)

    def close(self):
        self.child.stop()


def guest_files(folder, pong):
    """A kernel that has all drivers, and an initramfs with the agent as what it runs."""
    agent = os.path.join(folder, "agent")
    rootfs.write_stamp(agent, AGENT)
    os.chmod(agent, 0o755)
    iperf3 = shutil.which("iperf3")
    if not iperf3:
        raise rootfs.Failed("network: no iperf3; to get it: sudo apt-get install iperf3")
    done = subprocess.run(
        [os.path.join(TOP, "tools", "guest.sh"), "--name", "bench-network", "--modules", MODULES,
         "--program", iperf3, "--add", f"{pong}=bin/netpong", "--add", f"{agent}=hanok-run", "generic"],
        stdout=subprocess.PIPE, check=False)
    found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)
    if done.returncode or "kernel" not in found:
        raise rootfs.Failed("network: tools/guest.sh generic has no kernel with modules for the guests")
    return found["kernel"], found["initrd"]


def free_ports(count):
    """Ports of the loopback that nobody has now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


class Bench:
    def __init__(self, args, folder, say):
        self.args, self.folder, self.say = args, folder, say
        self.seconds = 1 if args.quick else 3
        self.turns = args.rounds
        self.pong = rootfs.compile_c("netpong", folder)
        self.kernel, self.initrd = guest_files(folder, self.pong)
        # Sockets of its own, whose paths must be short.
        self.env = {**os.environ, "HANOK_VMS": os.path.join(folder, "vms"), "HANOK_RUNTIME": folder}
        self.servers, self.guests, self.problems = [], {}, []
        self.iperf_port, self.pong_port = free_ports(2)

    def serve(self, *command):
        self.servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def hanok(self, *words):
        return rootfs.run([self.args.hanok, *words], "network", env=self.env)

    def start(self):
        self.serve("iperf3", "-s", "-p", str(self.iperf_port))
        self.serve(self.pong, "serve", str(self.pong_port))
        self.hanok("net", "create", "lab")
        self.guests["hanok"] = [self.start_hanok() for _ in range(2)]
        if "tcg" not in self.args.without:
            ports = free_ports(len(MODELS))
            self.guests["tcg"] = [self.start_tcg(end, ports) for end in ("listen", "connect")]

    def close(self):
        for pair in self.guests.values():
            for guest in pair:
                guest.close()
        with contextlib.suppress(rootfs.Failed):
            self.hanok("net", "stop", "lab")
        for server in self.servers:
            server.kill()
            server.wait()

    def start_hanok(self):
        words = [self.args.hanok, "run", "--engine", self.args.engine, "--memory", "512M", "--no-reboot",
                 "--kernel", self.kernel, "--initrd", self.initrd, "--append", "console=ttyS0 panic=-1 quiet"]
        for model in MODELS:
            words += ["--nic", f"nat,model={model}", "--nic", f"switch=lab,model={model}"]
        return Guest(words, self.args.limit, self.env)

    def start_tcg(self, end, ports):
        words = ["qemu-system-x86_64", "-machine", self.args.qemu_machine, "-accel", "tcg", "-cpu", "max", "-m", "512",
                 "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-kernel", self.kernel,
                 "-initrd", self.initrd, "-append", "console=ttyS0 panic=-1 quiet"]
        side = 1 if end == "listen" else 2
        for number, (model, device) in enumerate(MODELS.items()):
            words += ["-netdev", f"user,id=u{number}", "-device", f"{device},netdev=u{number}",
                      "-netdev", f"socket,id=s{number},{end}=127.0.0.1:{ports[number]}",
                      "-device", f"{device},netdev=s{number},mac=52:54:00:00:0{side}:0{number}"]
        return Guest(words, self.args.limit, None)

    # ---- one transfer ----

    def use(self, pair, model, nth):
        """Cards 1 are on NAT, cards 2 on the wire between the guests."""
        for number, guest in enumerate(pair, 1):
            guest.order(f"use {DRIVERS[model]} {nth} {'10.0.2.15' if nth == 1 else f'192.168.7.{number}'}")

    def transfer(self, pair, pattern):
        """{value, cpu}: megabits a second or microseconds; processor time of the monitors."""
        target, iperf_port, pong_port, who = "10.0.2.2", self.iperf_port, self.pong_port, pair[:1]
        if pattern.startswith("pair"):
            target, iperf_port, pong_port, who = "192.168.7.2", IPERF_PORT, PONG_PORT, pair
        if pattern.endswith("trip"):
            order, found = f"netpong ping {target} {pong_port} {self.seconds * 500}", TRIP
        else:
            reverse = " -R" if pattern == "in" else ""
            order, found = f"iperf3 -c {target} -p {iperf_port} -t {self.seconds} -f m{reverse}", RATE
        before, began = sum(guest.child.cpu_s() for guest in who), time.monotonic()
        text = pair[0].order(order)
        match = found.search(text)
        if not match:
            raise rootfs.Failed(f"network: {order}: no result: {text[-300:]}")
        return {"value": float(match[1]), "wall": time.monotonic() - began,
                "cpu": sum(guest.child.cpu_s() for guest in who) - before}

    def measure(self):
        """{machine: {model: {pattern: samples}}}; the first turn warms code and caches up, and does not count."""
        samples = {}
        for turn in range(self.turns + 1):
            for model in MODELS:
                for nth, patterns in ((1, ("out", "in", "NAT trip")), (2, ("pair", "pair trip"))):
                    for pair in self.guests.values():
                        self.use(pair, model, nth)
                    for pattern in patterns:
                        self.one_turn(turn, model, pattern, samples)
        return samples

    def one_turn(self, turn, model, pattern, samples):
        done = []
        for machine in list(self.guests)[:: 1 if turn % 2 else -1]:
            try:
                sample = self.transfer(self.guests[machine], pattern)
            except rootfs.Failed as error:
                # QEMU's NAT loses a byte now and then, and whoever waits for it waits for ever.
                self.say(str(error))
                self.problems += [f"{model}, {pattern}: {error}"] if machine == "hanok" else []
                continue
            done.append(f"{machine} {sample['value']:.0f}")
            if turn:
                samples.setdefault(machine, {}).setdefault(model, {}).setdefault(pattern, []).append(sample)
        if turn:
            self.say(f"network: turn {turn}/{self.turns}: {model}, {pattern}, {PATTERNS[pattern]}: {', '.join(done)}")


def measure_switch(args):
    """What netbench says of the switch, or None without one beside hanok."""
    program = os.path.join(os.path.dirname(os.path.abspath(args.hanok)), "netbench")
    if not os.access(program, os.X_OK):
        return None
    seconds = "0.3" if args.quick else "1"
    return json.loads(rootfs.run([program, "--json", "--seconds", seconds], "netbench"))


def measure(args, say):
    """Everything about networks that goes into the JSON file. Raises rootfs.Failed."""
    with tempfile.TemporaryDirectory(prefix="hanok-bench-") as folder:
        found = {"switch": measure_switch(args)}
        bench = Bench(args, folder, say)
        try:
            bench.start()
            found["samples"] = bench.measure()
            found["problems"] = bench.problems
        finally:
            bench.close()
        found["seconds"], found["turns"] = bench.seconds, bench.turns
    return found | summarize(found["samples"], bench.seconds)


# ---- the report ----

def summarize(samples, seconds):
    """Medians, the best of all turns (the largest rate, the shortest trip), and rates by processor time."""
    def reduce(how):
        return {machine: {model: {pattern: how(pattern, [s["value"] for s in taken])
                                  for pattern, taken in by_pattern.items()}
                          for model, by_pattern in by_model.items()}
                for machine, by_model in samples.items()}

    # Of all monitors in it: what a rate costs, which other load on the host hardly changes.
    cost = {machine: {model: {pattern: statistics.median(s["value"] * seconds / s["cpu"] for s in taken)
                              for pattern, taken in by_pattern.items() if not is_trip(pattern)}
                      for model, by_pattern in by_model.items()}
            for machine, by_model in samples.items()}
    return {"machines": reduce(lambda pattern, values: statistics.median(values)), "per_cpu_s": cost,
            "best": reduce(lambda pattern, values: min(values) if is_trip(pattern) else max(values))}


def is_trip(pattern):
    return pattern.endswith("trip")


def ratio(found, key, pattern, model):
    """Hanok's over TCG's; None: not measured."""
    hanok, tcg = (found[key].get(machine, {}).get(model, {}).get(pattern) for machine in ("hanok", "tcg"))
    return hanok / tcg if hanok and tcg else None


def worst(found, patterns, models, largest=False):
    """(ratio of the best turns, pattern and model) where Hanok does worst; (None, "") when nothing was measured."""
    rows = [(ratio(found, "best", p, m), f"{m}, {p}") for p in patterns for m in models] if found else []
    rows = [row for row in rows if row[0] is not None]
    return (max(rows) if largest else min(rows)) if rows else (None, "")


def over_own_e1000(found):
    pair = {model: by.get("pair") for model, by in (found or {}).get("best", {}).get("hanok", {}).items()}
    rows = [(pair[m] / pair["e1000"], m) for m in ("virtio", "vmxnet3") if pair.get(m) and pair.get("e1000")]
    return min(rows, default=(None, ""))


def targets(found, target):
    """Rows of the report; target makes one. Of the best turns: in elapsed time any other load on the host shows."""
    rows = []
    for what, row, limit, at_least in (
            ("NAT rate over TCG", worst(found, ("out", "in"), MODELS), 4, True),
            ("guest to guest over TCG", worst(found, ("pair",), ("virtio", "vmxnet3")), 4, True),
            ("guest to guest over own e1000", over_own_e1000(found), 3, True),
            ("round trip of TCG's", worst(found, ("NAT trip", "pair trip"), MODELS, True), 0.5, False)):
        value, where = row
        rows.append(target(f"{what} (worst{': ' + where if where else ''})", value, limit, at_least, "x"))
    switch = (found or {}).get("switch") or {}
    small = switch.get("small_mpps", {})
    flat = min(small.values()) / max(small.values()) if small else None
    return rows + [
        target("switch, frames of 64 bytes", min(small.values(), default=None), 3, True, " Mpps"),
        target("switch, slowest number of ports over fastest", flat, 0.75, True, "x"),
        target("switch, GSO", switch.get("gso_gbits"), 30, True, " Gbit/s")]


def number(value, digits):
    return f"{'-':>18}" if value is None else f"{value:18.{digits}f}"


def lines(found):
    """The tables as text."""
    head = "".join(f"{name + ' ' + unit:>18}" for name, unit in PATTERNS.items())
    text = []
    for key, title in (("machines", "networks"), ("best", "the same, best turn"),
                       ("per_cpu_s", "Mbit by a CPU second")):
        text.append(f"{title:24}{head}")
        for machine in found[key]:
            text += [f"{machine + ' ' + model:24}" + "".join(number(by.get(p), 0) for p in PATTERNS)
                     for model, by in found[key][machine].items()]
        if "tcg" in found[key]:
            text += [f"{'Hanok/TCG ' + m:24}" + "".join(number(ratio(found, key, p, m), 2) for p in PATTERNS)
                     for m in MODELS]
        text.append("")
    switch = found["switch"]
    if switch:
        for key, what in (("small_mpps", "to one port"), ("scattered_mpps", "each to another port")):
            text.append(f"switch, 64-byte frames {what}, by ports, Mpps: "
                        + ", ".join(f"{ports}: {mpps:.1f}" for ports, mpps in switch[key].items()))
        text.append(f"switch, Gbit/s: GSO {switch['gso_gbits']:.0f}, cut {switch['tso_csum_gbits']:.0f}, "
                    f"cut and summed {switch['tso_gbits']:.0f}")
    return text
