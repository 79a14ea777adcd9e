# SPDX-License-Identifier: Apache-2.0
"""The memory pool of the host: machines that together want more than it has.

The guest is tests/guest/touch.c, a kernel of our own that uses so many MiB at once and then goes round in
them, and looks whether each page is as it left it. Who gets how much is compared with the formula of
docs/MEMORY.md, worked out anew here.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import TIMEOUT_SCALE, error_line, run_hanok

MIB = 1 << 20
KSM = Path("/sys/kernel/mm/ksm")


@pytest.fixture(name="image")
def fixture_image(hanok):
    default = hanok.parent / "tests/guest"
    path = Path(os.environ.get("HANOK_GUEST_IMAGES", default)) / "touch.elf"
    assert path.is_file(), f"{path} is not there: run `make` first"
    return path


class Machines:
    """Machines in a pool of their own, and what `hanok pool` says of them."""

    def __init__(self, hanok, image, folder):
        self.hanok, self.image, self.folder = hanok, image, folder
        self.processes = {}
        self.environment = os.environ | {"HANOK_RUNTIME": str(folder / "run")}

    def start(self, line, *options):
        """Start a machine; returns its process id."""
        log = self.folder / f"{len(self.processes)}.serial"
        command = [self.hanok, "run", "--engine", "bt", "--kernel", self.image, "--append", line]
        command += ["--memory", "256M", "--swap", "none", "--serial", f"file:{log}", "--debug-exit", "0xf4"]
        process = subprocess.Popen(
            [*command, *options],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.processes[process.pid] = process, log
        return process.pid

    def pool(self, *arguments):
        """`hanok pool ... --json`."""
        result = subprocess.run(
            [self.hanok, "pool", *arguments, "--json"], env=self.environment, capture_output=True, check=True
        )
        return json.loads(result.stdout)

    def wait(self, condition, what, seconds=20):
        """Until condition(pool) is so, which is then returned; all machines have to live meanwhile."""
        end = time.monotonic() + seconds * TIMEOUT_SCALE
        while True:
            now = self.pool()
            for pid, (process, log) in self.processes.items():
                assert process.poll() is None, f"{pid} ended: {log.read_text()[-500:]} {process.stderr.read()}"
            if condition(now):
                return now
            assert time.monotonic() < end, f"{what}: {json.dumps(now, indent=1)}"
            time.sleep(0.2)

    def kill(self, pid):
        process, _ = self.processes.pop(pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()

    def close(self):
        for pid in list(self.processes):
            self.kill(pid)


@pytest.fixture(name="machines")
def fixture_machines(hanok, image, tmp_path):
    machines = Machines(hanok, image, tmp_path)
    yield machines
    machines.close()


def entitled(pool):
    """What each machine should be entitled to, by its pid: the formula with a tax of 3/4 on idle memory."""
    total, claims = pool["pool_bytes"], pool["machines"]

    def most(claim):
        return min(claim["memory_bytes"], claim["limit_bytes"] or claim["memory_bytes"])

    def wanted(claim):
        touched = claim["touched_bytes"]
        return max(claim["min_bytes"], min(most(claim), touched + max(touched / 8, 16 * MIB)))

    def amount(claim, factor):
        budget, active = claim["shares"] * factor, claim["working_set_bytes"]
        got = budget if budget <= active else active + (budget - active) / 4
        return max(claim["min_bytes"], min(got, wanted(claim)))

    assert sum(map(wanted, claims)) > total, "nobody has to do without: not what is tested here"
    low, high = 0.0, 1e12
    for _ in range(200):
        middle = (low + high) / 2
        if sum(amount(claim, middle) for claim in claims) > total:
            high = middle
        else:
            low = middle
    return {claim["pid"]: amount(claim, low) for claim in claims}


def is_settled(pool, machines):
    """All keep what they are entitled to, use no more, and the pool holds all of it."""
    if len(pool["machines"]) != machines or not all(m["kept_bytes"] for m in pool["machines"]):
        return False
    should = entitled(pool)
    near = all(abs(m["kept_bytes"] - should[m["pid"]]) < should[m["pid"]] / 16 for m in pool["machines"])
    used = sum(m["used_bytes"] for m in pool["machines"])
    return near and all(m["used_bytes"] <= m["kept_bytes"] + MIB for m in pool["machines"]) and (
        used <= pool["pool_bytes"] * 1.1
    )


def test_by_shares(machines):
    """Three that want 450 of 256 MiB; one reserves, one has twice the shares. One is killed: the others grow."""
    machines.pool("256M")
    one = machines.start("touch 150", "--memory-shares", "1000")
    two = machines.start("touch 150", "--memory-shares", "2000")
    kept = machines.start("touch 150", "--memory-shares", "1", "--memory-min", "100M")
    pool = machines.wait(lambda pool: is_settled(pool, 3), "never settled")
    by_pid = {m["pid"]: m for m in pool["machines"]}
    assert by_pid[kept]["kept_bytes"] >= 97 * MIB
    assert by_pid[two]["kept_bytes"] == pytest.approx(2 * by_pid[one]["kept_bytes"], rel=0.1)
    # All of them go on, and miss nothing: a wrong page would end them.
    rounds = [log.read_text().count("round") for _, log in machines.processes.values()]
    machines.wait(
        lambda pool: all(
            log.read_text().count("round") > before + 1
            for before, (_, log) in zip(rounds, machines.processes.values())
        ),
        "they do not go on",
    )
    machines.kill(kept)
    pool = machines.wait(lambda pool: is_settled(pool, 2), "the killed one's memory stays unused")
    grown = {m["pid"]: m for m in pool["machines"]}
    assert grown[one]["kept_bytes"] > by_pid[one]["kept_bytes"] + 20 * MIB
    assert grown[two]["kept_bytes"] > by_pid[two]["kept_bytes"] + 20 * MIB
    # No pool any more: no limits.
    machines.pool("off")
    machines.wait(lambda pool: not any(m["kept_bytes"] for m in pool["machines"]), "limits stay")


def test_limit_of_its_own(machines):
    """--memory-limit holds with a pool that has room, and what the others do not want is shared out."""
    machines.pool("1G")
    machines.start("touch 100 idle", "--memory-limit", "40M")
    machines.start("touch 100 idle")
    pool = machines.wait(
        lambda pool: len(pool["machines"]) == 2 and sum(m["used_bytes"] for m in pool["machines"]) > 130 * MIB,
        "never touched",
    )
    limited, free = sorted(pool["machines"], key=lambda m: -m["limit_bytes"])
    assert limited["kept_bytes"] == limited["limit_bytes"] == 40 * MIB
    assert limited["used_bytes"] < 48 * MIB
    assert limited["entitled_bytes"] == 40 * MIB
    assert free["kept_bytes"] == 0 and free["entitled_bytes"] == 256 * MIB


def test_vmx(machines, image, tmp_path):
    """What a .vmx says of it, and its display name."""
    (tmp_path / "web.vmx").write_text(
        f'displayName = "Web server"\nmemsize = "128"\nhanok.kernel = "{image}"\nhanok.append = "touch 20 idle"\n'
        'sched.mem.min = "32"\nsched.mem.max = "64"\nsched.mem.shares = "low"\nserial0.present = "FALSE"\n'
    )
    command = [machines.hanok, "run", "--engine", "bt", "--serial", "none", tmp_path / "web.vmx"]
    with subprocess.Popen(command, env=machines.environment, stdin=subprocess.DEVNULL) as process:
        try:
            (machine,) = machines.wait(lambda pool: pool["machines"], "it is not there")["machines"]
        finally:
            process.kill()
    assert machine["name"] == "Web server" and machine["pid"] == process.pid
    assert machine["memory_bytes"] == 128 * MIB and machine["shares"] == 5 * 128
    assert machine["min_bytes"] == 32 * MIB
    assert machine["limit_bytes"] == machine["kept_bytes"] == 64 * MIB
    assert machines.pool()["machines"] == []


# ---- hanok pool ----


@pytest.mark.parametrize(
    "arguments, status, says",
    [
        (["3"], 2, "the least is 4M"),
        (["many"], 2, "many"),
        (["1G", "2G"], 2, "2G"),
        (["--jason"], 2, "--json"),
    ],
)
def test_usage(hanok, tmp_path, monkeypatch, arguments, status, says):
    monkeypatch.setenv("HANOK_RUNTIME", str(tmp_path))
    result = run_hanok(hanok, "pool", *arguments)
    assert result.returncode == status
    assert says in error_line(result)
    assert not (tmp_path / "pool").exists()


def test_set_and_show(hanok, tmp_path, monkeypatch):
    monkeypatch.setenv("HANOK_RUNTIME", str(tmp_path / "run"))
    assert "no pool" in run_hanok(hanok, "pool").stdout
    assert not (tmp_path / "run").exists()
    assert "pool of 8 GiB, 0 B used" in run_hanok(hanok, "pool", "8G").stdout
    assert json.loads(run_hanok(hanok, "pool", "--json").stdout) == {"pool_bytes": 8 << 30, "machines": []}
    assert "no pool" in run_hanok(hanok, "pool", "off").stdout


def test_file_of_another_kind(hanok, image, tmp_path, monkeypatch):
    """What is no pool's file is left alone, and machines run without."""
    monkeypatch.setenv("HANOK_RUNTIME", str(tmp_path))
    (tmp_path / "pool").write_text("mine")
    (tmp_path / "pool").chmod(0o600)
    for arguments in ([], ["1G"]):
        result = run_hanok(hanok, "pool", *arguments)
        assert result.returncode == 125
        assert f"{tmp_path}/pool: it is cut off; remove it" in error_line(result)
    arguments = ["--append", "touch 1 idle", "--timeout", "1", "--serial", "none"]
    result = run_hanok(hanok, "run", "--engine", "bt", "--kernel", image, *arguments)
    assert result.returncode == 124
    assert "it is in no memory pool" in result.stderr
    assert (tmp_path / "pool").read_text() == "mine"


# ---- equal pages ----


@pytest.fixture(name="ksm")
def fixture_ksm():
    """The host's KSM, switched on and quick; as it was, afterwards."""
    fast = {"pages_to_scan": "20000", "sleep_millisecs": "5", "run": "1"}
    if not os.access(KSM / "run", os.W_OK):
        pytest.skip("the host's KSM cannot be switched on: not root, or this kernel has none")
    before = {name: (KSM / name).read_text() for name in fast}
    for name, value in fast.items():
        (KSM / name).write_text(value)
    yield
    for name, value in before.items():
        (KSM / name).write_text(value)


@pytest.mark.usefixtures("ksm")
def test_equal_pages(machines):
    """Two machines with 30 MiB of the same page each, and one that does not share."""
    machines.pool("180M")  # more than half of it is used, so they look every second
    machines.start("touch 30 equal", "--memory-share")
    machines.start("touch 30 equal", "--memory-share")
    alone = machines.start("touch 30 equal")
    machines.wait(
        lambda pool: len(pool["machines"]) == 3
        and all(m["equal_bytes"] > 29 * MIB or m["pid"] == alone for m in pool["machines"]),
        "nothing is shared",
    )
    assert all(m["equal_bytes"] == 0 for m in machines.pool()["machines"] if m["pid"] == alone)


def test_ksm_off_is_told(hanok, image, tmp_path, monkeypatch):
    """Where KSM does not run, --memory-share says so, with what to do."""
    monkeypatch.setenv("HANOK_RUNTIME", str(tmp_path))
    if (KSM / "run").exists() and (KSM / "run").read_text().strip() == "1":
        pytest.skip("the host's KSM runs")
    arguments = ["--append", "touch 1 idle", "--timeout", "1", "--serial", "none", "--memory-share"]
    result = run_hanok(hanok, "run", "--engine", "bt", "--kernel", image, *arguments)
    assert "equal pages are not shared" in result.stderr
    assert "/sys/kernel/mm/ksm/run" in result.stderr or "no KSM" in result.stderr
