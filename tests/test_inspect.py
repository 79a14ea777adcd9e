# SPDX-License-Identifier: Apache-2.0
"""hanok inspect and hanok top: what they say about a machine is so.

A stock Linux runs tests/guest/pagemap.c, which tells where its kernel has pages of its processes and what is in
them; the same is asked from outside.
"""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
import xml.dom.minidom
from pathlib import Path

import pytest
from conftest import BOOT_SECONDS, TIMEOUT_SCALE, TOP, run_hanok
from test_vm import House, ask, house, wait_until  # noqa: F401

# A guest of less than 512 MiB has no huge pages unless it is told to.
RUN = "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled; pagemap"
STATES = ["none", "present", "zero", "swapped", "balloon"]


@pytest.fixture(scope="session")
def pagemap(tmp_path_factory):
    """The program of tests/guest/pagemap.c, for guests."""
    program = tmp_path_factory.mktemp("inspect") / "pagemap"
    source = TOP / "tests/guest/pagemap.c"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-static", "-o", program, source], check=True)
    return program


class Linux:
    """A machine named `tux` whose process 1 runs a command, with its serial port on a socket."""

    def __init__(self, place, guest, command, memory, cpus, *options):
        self.place = place
        place.ok("create", "tux", "--disk", "none", "--memory", memory, "--cpus", cpus,
                 "--kernel", guest.kernel, "--initrd", guest.initrd,
                 "--append", f'console=ttyS0 hanok.run="{command}"')  # fmt: skip
        place.ok("start", "tux", *options)
        self.console = place.talk("tux")
        assert ask(self.console, do="attach")["ok"]
        self.console.settimeout(BOOT_SECONDS * TIMEOUT_SCALE)
        self.shown = b""

    def until(self, text):
        """What is shown before a line that contains the text, and that line."""
        pattern = re.compile(rb"[^\n]*" + text.encode() + rb"[^\n]*\n")
        while not (match := pattern.search(self.shown)):
            data = self.console.recv(65536)
            assert data, f"it ended before {text!r}: {self.shown[-2000:]!r}"
            self.shown += data
        before, line = self.shown[: match.start()], match[0]
        self.shown = self.shown[match.end() :]
        return before.decode(errors="replace").replace("\r", ""), line.decode().strip()

    def type(self, text):
        self.console.sendall(text.encode())

    def inspect(self, *arguments):
        return json.loads(self.place.ok("inspect", "tux", *arguments, "--json"))

    def pages(self):
        """(pid, address, gpa, bytes) of each page that the guest tells of."""
        text, _ = self.until("pages-end")
        found = re.findall(r"^page (\d+) (0x[0-9a-f]+) (0x[0-9a-f]+) ([0-9a-f]+)$", text, re.MULTILINE)
        return [(int(pid), int(address, 16), int(gpa, 16), data) for pid, address, gpa, data in found]


def a_house(hanok, tmp_path_factory):
    runtime = Path(tempfile.mkdtemp(prefix="hanok-", dir="/tmp"))
    place = House(hanok, None, tmp_path_factory.mktemp("inspect") / "vms", runtime)
    yield place
    for entry in json.loads(place.ok("ps", "--json")):
        os.kill(entry["pid"], signal.SIGKILL)
    shutil.rmtree(runtime)


@pytest.fixture(scope="module")
def village(hanok, tmp_path_factory):
    yield from a_house(hanok, tmp_path_factory)


@pytest.fixture(scope="module")
def tux(village, guest, pagemap):  # noqa: F811
    """A guest that has told of 100 pages and stands still. Tests change nothing in it but that it touches new pages."""
    linux = Linux(village, guest("cloud", add=[f"{pagemap}=/bin/pagemap"]), f"{RUN} 100 1", "256M", 2)
    linux.told = linux.pages()
    return linux


def agree(linux, pages):
    """Walks and bytes from outside are what the guest has said. Returns sizes of the pages that were met."""
    connection = linux.place.talk("tux")
    process = json.loads(linux.place.ok("ps", "--json"))[0]["pid"]
    sizes = set()
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for pid, address, gpa, data in pages:
            walk = ask(connection, do="walk", address=hex(address), pid=pid)
            assert walk["ok"] and walk["end"] == "mapped", (pid, hex(address), walk)
            assert int(walk["page"]["gpa"], 16) == gpa, (pid, hex(address), walk)
            assert walk["of"]["pid"] == pid and walk["paging"] == "4-level"
            sizes.add(walk["page"]["bytes"])
            # The bytes by way of the guest's tables, of its memory, and of the host's own.
            for how in ({"address": hex(address), "cr3": walk["cr3"]}, {"address": hex(gpa), "physical": True}):
                assert ask(connection, do="dump", bytes=16, **how)["data"] == data, (pid, hex(address), how)
            if walk["host"]["state"] == "present":
                memory.seek(int(walk["host"]["hva"], 16))
                assert memory.read(16).hex() == data, (pid, hex(address), walk["host"])
    return sizes


def test_walks_agree_with_the_guest(tux):
    assert len(tux.told) == 100 and len({pid for pid, *_ in tux.told}) >= 5
    assert agree(tux, tux.told) == {4096, 2 << 20}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, "64M"])
def test_a_thousand_walks_agree_with_the_guest(hanok, guest, pagemap, tmp_path_factory, limit):
    for place in a_house(hanok, tmp_path_factory):
        options = ["--memory-limit", limit] if limit else []
        machine = guest("cloud", add=[f"{pagemap}=/bin/pagemap"])
        linux = Linux(place, machine, f"{RUN} 1000 2", "256M", 1, *options)
        pages = linux.pages()
        assert len(pages) == 1000
        agree(linux, pages)


def test_walk_by_name(tux):
    pid, address, gpa, _ = next(page for page in tux.told if page[0] == pid_of(tux, "pattern-1"))
    walk = tux.inspect("walk", hex(address), "--name", "pattern-1")
    assert walk["of"] == {**walk["of"], "pid": pid, "comm": "pattern-1"}
    assert int(walk["page"]["gpa"], 16) == gpa
    assert [level["name"] for level in walk["levels"]][:3] == ["PML4", "PDPT", "PD"]
    for level in walk["levels"]:
        assert "present" in level["flags"] and "user" in level["flags"]
        entry = ask(tux.place.talk("tux"), do="dump", address=level["entry_at"], bytes=8, physical=True)
        assert int.from_bytes(bytes.fromhex(entry["data"]), "little") == int(level["entry"], 16)


def pid_of(tux, name):
    return next(p["pid"] for p in tux.inspect("ps")["processes"] if p["comm"] == name)


def test_processes(tux):
    answer = tux.inspect("ps")
    processes = {p["pid"]: p for p in answer["processes"]}
    assert answer["complete"] and len(processes) == len(answer["processes"])
    assert processes[1]["comm"] == "init" and processes[1]["cr3"]
    assert processes[2]["comm"] == "kthreadd" and processes[2]["cr3"] is None
    assert {f"pattern-{n}" for n in range(6)} <= {p["comm"] for p in answer["processes"]}
    assert {pid for pid, *_ in tux.told} <= set(processes)
    text = tux.place.ok("inspect", "tux", "ps")
    assert re.search(r"^ +1 +1  init +0x[0-9a-f]+$", text, re.MULTILINE)
    assert re.search(r"^ +2 +2  kthreadd +\(kernel\)$", text, re.MULTILINE)


@pytest.mark.parametrize("arguments", [
    ["walk", "TOLD", "--pid", "PID"],
    ["walk", "0x1000", "--pid", "1"],
    ["walk", "0x800000000000"],
    ["walk", "0xffffffff81000000", "--cpu", "1"],
    ["walk", "0", "--cr3", "0xfffffff000"],
    ["ps"], ["frames"], ["memory"], ["exits"], ["tlb"], ["disks"], ["faults"],
    ["dump", "TOLD", "--pid", "PID"], ["trace-pages", "--out", "/dev/null", "--seconds", "0.1"],
])  # fmt: skip
def test_text_fits(tux, arguments):
    pid, address, *_ = tux.told[0]
    words = [{"TOLD": hex(address), "PID": str(pid)}.get(word, word) for word in arguments]
    text = tux.place.ok("inspect", "tux", *words)
    assert arguments[0] == "disks" or text.strip()
    assert "\033" not in text
    for line in text.splitlines():
        assert len(line) <= 100, line


def test_walk_looks_like_boxes(tux):
    pid, address, gpa, _ = tux.told[0]
    text = tux.place.ok("inspect", "tux", "walk", hex(address), "--pid", pid)
    assert re.findall(r"^┌─ (PML4|PDPT|PD|PT|guest-physical|host)", text, re.MULTILINE)[:3] == ["PML4", "PDPT", "PD"]
    assert f"guest-physical {gpa:#x}" in text and "present" in text
    widths = {len(line) for line in text.splitlines() if line[0] in "┌│└"}
    assert widths == {92}


def test_walk_ends(tux):
    """Walks that lead nowhere say why."""
    for arguments, end in [
        (["0x1000", "--pid", 1], "not-present"),
        (["0x800000000000"], "not-canonical"),
        (["0", "--cr3", "0xfffffff000"], "table-outside-memory"),
    ]:
        walk = tux.inspect("walk", *arguments)
        assert walk["end"] == end and "page" not in walk and "host" not in walk


def test_frames(tux, tmp_path):
    frames = tux.inspect("frames")
    assert frames["pages"] == 256 * 256 and frames["states"] == STATES
    totals = [sum(cell[n] for cell in frames["cells"]) for n in range(5)]
    assert dict(zip(STATES, totals)) == frames["state_pages"] and sum(totals) == frames["pages"]
    assert sum(frames["age_pages"]) == frames["state_pages"]["present"] > 10000
    assert len(frames["cells"]) == 1024
    # What the guest has told of is there.
    for _, _, gpa, data in tux.told:
        if data.strip("0"):
            assert frames["cells"][gpa // 4096 // frames["cell_pages"]][1] > 0
    text = tux.place.ok("inspect", "tux", "frames")
    rows = re.findall(r"^[0-9a-f]{11} (.{64})$", text, re.MULTILINE)
    assert len(rows) == 16 and "█" in "".join(rows) and "·" in "".join(rows)
    svg = tmp_path / "map.svg"
    tux.place.ok("inspect", "tux", "frames", "--svg", svg)
    assert len(xml.dom.minidom.parse(str(svg)).getElementsByTagName("title")) == 1024
    assert "No such file" in tux.place.refused("inspect", "tux", "frames", "--svg", tmp_path / "no/map.svg")


def test_memory_and_tlb(tux):
    memory = tux.inspect("memory")
    assert memory["ram_bytes"] == 256 << 20 == sum(memory["state_bytes"].values())
    assert memory["used_bytes"] >= memory["state_bytes"]["present"] > 40 << 20
    assert memory["first_touches"] >= memory["state_bytes"]["present"] // 4096
    assert [cpu["misses"] > 0 for cpu in tux.inspect("tlb")["cpus"]] == [True, True]
    assert tux.inspect("exits")["cpus"][0]["exits"]["pio-out"]["count"] > 0


def test_faults(tux, tmp_path):
    """A page that is touched in the guest shows up as a fault of the guest, in each way to look at them."""
    shown = [tmp_path / "lines", tmp_path / "text"]
    followers = []
    for file, options in zip(shown, (["--json"], [])):
        with file.open("w") as out:
            command = [tux.place.hanok, "inspect", "tux", "faults", "--follow", *options]
            followers.append(subprocess.Popen(command, stdout=out, env=tux.place.env))

    def both_show():
        """Touches another page, and whether both that follow have shown it."""
        tux.type("1\n")
        _, line = tux.until("touched 0x")
        time.sleep(0.5)
        return all(line.split()[1] in file.read_text() for file in shown) and line.split()[1]

    try:
        wait_until(both_show)
        address = both_show()
    finally:
        for process in followers:
            process.kill()
            process.wait()
    events = [json.loads(line) for line in shown[0].read_text().splitlines()]
    fault = next(e for e in events if e.get("address") == address)
    assert fault["what"] == "guest-fault" and fault["error"] == ["not-present", "write", "user"]
    assert fault["error_code"] == 6 and fault["cpu"] in (0, 1)
    numbers = [e["number"] for e in events if "number" in e]
    assert numbers == sorted(set(numbers))
    line = next(line for line in shown[1].read_text().splitlines() if address in line)
    assert re.search(r"^ +\d+\.\d+  guest fault +cpu [01] .* not-present, write, user$", line), line
    connection = tux.place.talk("tux")
    assert address in {e.get("address") for e in ask(connection, do="faults", max=2000)["events"]}
    # Sooner or later the guest takes a page that it has never used: `walk` then knows of it.
    last = None
    for _ in range(20):
        if last:
            break
        tux.type("1000\n")
        _, line = tux.until("touched 0x")
        address = line.split()[1]
        walk = ask(connection, do="walk", address=address, pid=pid_of(tux, "pagemap"))
        last = walk["host"].get("last_fault")
    assert last and last["what"] == "first-touch" and int(last["gpa"], 16) >> 12 == int(walk["page"]["gpa"], 16) >> 12
    assert "first-touch" in tux.place.ok("inspect", "tux", "walk", address, "--pid", pid_of(tux, "pagemap"))


def test_trace_pages(tux, tmp_path):
    """Each page in use is told of once a period, whatever the TLBs hold."""
    result = tux.place.ok("inspect", "tux", "trace-pages", "--out", tmp_path / "t.trace", "--seconds", "0.1", "--json")
    answer = json.loads(result)
    trace = (tmp_path / "t.trace").read_bytes()
    assert trace[:8] == b"HANOKPGT" and len(trace) == answer["bytes"] and not answer["cut"]
    # A process that works: far more than what becomes older meanwhile.
    command = [tux.place.hanok, "inspect", "tux", "trace-pages", "--out", "t.trace", "--seconds", "2"]
    tracer = subprocess.Popen(command, cwd=tmp_path, env=tux.place.env, stdout=subprocess.PIPE, text=True)
    while tracer.poll() is None:
        tux.type("100\n")
        tux.until("touched 0x")
    line = tracer.stdout.read()
    match = re.fullmatch(r"t\.trace: ([\d,]+) references of pages in \d\.\d s, .*\n", line)
    assert match and int(match[1].replace(",", "")) > 2000, line
    assert "No such file" in tux.place.refused(
        "inspect", "tux", "trace-pages", "--out", tmp_path / "no/t.trace", status=2
    )
    assert "Is a directory" in tux.place.refused("inspect", "tux", "trace-pages", "--out", tmp_path)
    # It grows too large; meanwhile another is refused.
    request = {"do": "trace-pages", "file": str(tmp_path / "cut"), "ms": 20000, "bytes_max": 4096}
    first, second = tux.place.talk("tux"), tux.place.talk("tux")
    first.sendall(json.dumps(request).encode() + b"\n")
    assert "traced already" in ask(second, **request)["error"]
    while not select.select([first], [], [], 0)[0]:
        tux.type("100\n")
        tux.until("touched 0x")
    assert json.loads(first.makefile().readline())["cut"]


def test_faults_are_not_recorded_unasked(house):  # noqa: F811
    house.create("mail", "oe")
    house.ok("start", "mail")
    connection = house.talk("mail")
    first = ask(connection, do="faults")
    assert first["began"] and first["next"] == 0 and first["events"] == []
    assert not ask(connection, do="faults")["began"]


@pytest.mark.parametrize(
    "request_, says",
    [
        ({"do": "walk"}, "address: missing"),
        ({"do": "walk", "address": "12"}, "it must be an address"),
        ({"do": "walk", "address": -1}, "it must be an address"),
        ({"do": "walk", "address": "0x11112222333344445"}, "it must be an address"),
        ({"do": "walk", "address": "0x1", "cpu": 2}, "CPUs 0 to 1"),
        ({"do": "walk", "address": "0x1", "pid": 99999}, "no process of the guest has pid 99999"),
        ({"do": "walk", "address": "0x1", "pid": 2}, "a thread of its kernel"),
        ({"do": "walk", "address": "0x1", "name": "nobody"}, "no process of the guest is called 'nobody'"),
        ({"do": "dump", "address": 0, "bytes": 1 << 20}, "bytes: "),
        ({"do": "frames", "cells": 0}, "cells: "),
        ({"do": "faults", "since": "x"}, "since: "),
        ({"do": "trace-pages", "file": "x"}, "absolute"),
        ({"do": "trace-pages", "file": "/x", "ms": 0}, "ms: "),
    ],
)
def test_requests_that_are_wrong(tux, request_, says):
    answer = ask(tux.place.talk("tux"), **request_)
    assert not answer["ok"] and says in answer["error"], answer


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "which machine"),
        (["tux", "wakl", "1"], "did you mean 'walk'"),
        (["tux", "walk"], "which address"),
        (["tux", "walk", "x"], "ADDRESS x"),
        (["tux", "walk", "1", "2"], "one word too many"),
        (["tux", "walk", "1", "--pid", "1", "--name", "x"], "only one of them"),
        (["tux", "frames", "--pid", "1"], "--pid"),
        (["tux", "memory", "--follow"], "--follow"),
        (["tux", "dump", "1", "0"], "BYTES"),
        (["tux", "trace-pages"], "--out FILE"),
        (["tux", "faults", "--out", "x"], "--out"),
    ],
)
def test_words_that_are_wrong(house, arguments, says):  # noqa: F811
    assert says in house.refused("inspect", *arguments, status=2)


def test_a_guest_that_is_no_linux(house):  # noqa: F811
    """Its processes cannot be named, which is said; its address space can be looked at."""
    house.create("mail", "oe")
    assert "it does not run" in house.refused("inspect", "mail", "frames")
    house.ok("start", "mail")
    line = house.refused("inspect", "mail", "ps")
    assert "cannot be named" in line and "--cr3" in line
    walk = json.loads(house.ok("inspect", "mail", "walk", "0x100000", "--json"))
    assert walk["paging"] == "off" and walk["page"]["gpa"] == "0x100000" and walk["levels"] == []
    assert walk["host"]["state"] == "present"
    code = bytes.fromhex(json.loads(house.ok("inspect", "mail", "dump", "0x100000", "4096", "--json"))["data"])
    assert code[:64] in Path(house.kernel).read_bytes()


def test_it_ends_meanwhile(house):  # noqa: F811
    house.create("mail", "oe")
    house.ok("start", "mail")
    follow = subprocess.Popen(
        [house.hanok, "inspect", "mail", "faults", "--follow"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=house.env, text=True,
    )  # fmt: skip
    connection = house.talk("mail")
    wait_until(lambda: not ask(connection, do="faults")["began"])
    house.ok("stop", "--force", "mail")
    _, errors = follow.communicate(timeout=30 * TIMEOUT_SCALE)
    assert follow.returncode == 0
    assert errors == "hanok: mail: the virtual machine has ended\n"


def test_top_once(tux):
    table = tux.place.ok("top")
    assert re.search(r"^tux +\d+ +\d+\.\d +256M ", table, re.MULTILINE), table
    assert max(len(line) for line in table.splitlines()) <= 100
    (entry,) = json.loads(tux.place.ok("top", "--json"))
    assert entry["name"] == "tux" and entry["memory_bytes"] == 256 << 20 and entry["answers"]
    assert entry["used_bytes"] > 40 << 20 and entry["limit_bytes"] == 0


def test_top_live(tux):
    """On a terminal it goes on until q, and leaves the terminal as it was."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(tux.place.hanok, ["hanok", "top"], {**tux.place.env, "TERM": "xterm"})
    shown = b""

    def read(until):
        nonlocal shown
        end = time.monotonic() + 30 * TIMEOUT_SCALE
        while not until():
            assert time.monotonic() < end, shown[-1000:]
            if select.select([fd], [], [], 0.2)[0]:
                try:
                    shown += os.read(fd, 65536)
                except OSError:
                    return

    read(lambda: shown.count(b"FAULT/s") >= 2)
    assert b"tux" in shown and b"\033[?1049h" in shown
    os.write(fd, b"q")
    read(lambda: False if os.waitpid(pid, os.WNOHANG) == (0, 0) else True)
    assert shown.rstrip().endswith(b"\033[?1049l") and b"\033[?25h" in shown
    os.close(fd)


@pytest.mark.parametrize("verb", ["inspect", "top"])
def test_help(hanok, verb):
    result = run_hanok(hanok, verb, "--help")
    assert result.returncode == 0 and f"hanok {verb}" in result.stdout and "Exit status: 0" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 100
    for option in set(re.findall(r"(?<![\w-])--[a-z0-9-]+[a-z0-9]", result.stdout)):
        again = run_hanok(hanok, verb, f"{option}=", "--levitate")
        assert "there is no such option" not in again.stderr or "--levitate" in again.stderr, option
