# SPDX-License-Identifier: Apache-2.0
"""Guest memory under a limit: pages leave host memory and come back, and no guest sees a wrong byte.

The load is tests/guest/mem_load.c, which knows what each word of each page has to be.
"""

import os
import re
import signal
import subprocess
import time

import pytest
from conftest import TIMEOUT_SCALE, TOP, error_line, run_hanok, trouble_of

RAM_MIB = 512


@pytest.fixture(scope="session")
def mem_load(tmp_path_factory):
    program = tmp_path_factory.mktemp("memory") / "mem_load"
    source = TOP / "tests/guest/mem_load.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-static", "-pthread", "-o", program, source], check=True)
    return program


@pytest.fixture(scope="session")
def loaded(guest, mem_load):
    """The cloud kernel, with mem_load in its initramfs."""
    return guest("cloud", add=[f"{mem_load}=/bin/mem_load"])


def arguments(kit, command, *more, memory=RAM_MIB, cpus=1):
    return [
        "run", "--kernel", kit.kernel, "--initrd", kit.initrd, "--memory", f"{memory}M", "--cpus", cpus,
        "--append", f'console=ttyS0 panic=-1 hanok.run="{command}"', "--no-reboot", "--stats", *more,
    ]  # fmt: skip


def run_load(hanok, kit, command, *more, timeout=150, env=None, **machine):
    """Run a command in the guest to its end; returns what was shown."""
    done = subprocess.run(
        [hanok, *map(str, arguments(kit, command, *more, **machine))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout * TIMEOUT_SCALE,
        env={**os.environ, **(env or {})},
        check=False,
    )
    shown = done.stdout.decode(errors="replace").replace("\r", "")
    assert done.returncode == 0, shown[-3000:]
    assert "hanok-guest: status 0" in shown, shown[-3000:]
    assert not trouble_of(shown), trouble_of(shown)
    return shown


def pages_out(shown):
    """How many pages --stats says were written to the store, dropped clean and dropped as zero."""
    match = re.search(r"pages out: (\d+) stored, (\d+) clean, (\d+) zero", shown)
    assert match, shown[-2000:]
    return [int(number) for number in match.groups()]


def swap_files(pid):
    """The files without a name that a process has in its swap folder."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if target.endswith("(deleted)"):
            found.append(target)
    return found


@pytest.mark.parametrize("cpus", [1, 2])
def test_load_of_several_times_the_limit(hanok, loaded, tmp_path, cpus):
    """Patterns over more than the limit, some that compress and some that do not: every byte is right."""
    command = "mem_load 140 3 2"
    shown = run_load(hanok, loaded, command, "--memory-limit", "64M", "--swap", tmp_path, cpus=cpus)
    assert "mem_load: ok" in shown
    stored, _, _ = pages_out(shown)
    assert stored > 20000
    resident = re.search(r"of it ([\d.]+) of the guest's", shown)
    assert float(resident[1]) < 64
    assert list(tmp_path.iterdir()) == []


def test_without_a_file(hanok, loaded):
    """What compresses needs no swap file."""
    shown = run_load(hanok, loaded, "mem_load 64 3", "--memory-limit", "96M", "--swap", "none")
    assert "mem_load: ok" in shown
    assert pages_out(shown)[0] > 1000
    assert " 0.0 MiB in the swap file" in shown


def test_fifo(hanok, loaded, tmp_path):
    command = "mem_load 120 3"
    shown = run_load(hanok, loaded, command, "--memory-limit", "80M", "--swap", tmp_path, "--memory-policy", "fifo")
    assert "mem_load: ok" in shown
    assert pages_out(shown)[0] > 5000


@pytest.mark.parametrize("cpus", [1, 2])
def test_pages_thrown_out_at_random(hanok, loaded, tmp_path, cpus):
    """HANOK_MEM_STRESS: whatever page is taken away, whenever, the guest does not notice."""
    env = {"HANOK_MEM_STRESS": "evict:3"}
    shown = run_load(hanok, loaded, "mem_load 40 3 2", "--swap", tmp_path, env=env, cpus=cpus)
    assert "mem_load: ok" in shown
    assert pages_out(shown)[0] > 2000


@pytest.mark.parametrize("image", ["paging64", "smp", "long"])
def test_guest_images_under_stress(hanok, engine, image):
    """Accessed and dirty bits, page tables that change, several CPUs: also when pages come and go."""
    elf = hanok.parent / f"tests/guest/{image}.elf"
    cpus = 4 if image == "smp" else 1
    done = subprocess.run(
        [hanok, "run", "--engine", engine, "--kernel", elf, "--debug-exit", "0xf4", "--no-reboot"]
        + ["--memory", "128M", "--cpus", str(cpus)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120 * TIMEOUT_SCALE,
        env={**os.environ, "HANOK_MEM_STRESS": "evict"},
        check=False,
    )
    wrong = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("not ok")]
    assert done.returncode == 33 and not wrong, wrong


def test_a_full_store_stops_the_guest_and_says_so(hanok, loaded):
    """Nowhere to put pages: the guest waits, is told of, and goes on to be ended; nothing crashes."""
    more = ["--memory-limit", "64M", "--swap", "none", "--timeout", "12"]
    done = run_hanok(hanok, *arguments(loaded, "mem_load 300 30", *more), timeout=60)
    assert done.returncode == 124, done.stderr[-2000:]
    assert "WRONG" not in done.stdout
    lines = [line for line in done.stderr.splitlines() if "memory limit of 64 MiB" in line]
    assert len(lines) >= 1 and "raise the limit" in lines[0], done.stderr[-2000:]


def test_no_swap_space_is_left_by_kill(hanok, loaded, tmp_path):
    more = ["--memory-limit", "64M", "--swap", tmp_path]
    process = subprocess.Popen(
        [hanok, *map(str, arguments(loaded, "mem_load 300 60", *more))],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60 * TIMEOUT_SCALE
        while not any(str(tmp_path) in name for name in swap_files(process.pid)):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words, says",
    [
        (["--memory-limit", "1M"], "--memory-limit 1M: the least is 4M"),
        (["--memory-limit", "many"], "--memory-limit many"),
        (["--memory-policy", "best"], "it is gen or fifo"),
    ],
)
def test_wrong_words(hanok, words, says):
    done = run_hanok(hanok, "run", "--kernel", "/dev/null", *words)
    assert done.returncode == 2
    assert says in error_line(done)


def test_swap_folder_that_is_not_there(hanok, loaded, tmp_path):
    more = ["--memory-limit", "64M", "--swap", tmp_path / "no" / "such"]
    done = run_hanok(hanok, *arguments(loaded, "true", *more))
    assert done.returncode == 125
    assert str(tmp_path / "no/such") in done.stderr and "No such file" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [1, 2])
def test_ten_minutes(hanok, loaded, tmp_path, cpus):
    """Four times the limit for ten minutes."""
    more = ["--memory-limit", "160M", "--swap", tmp_path]
    shown = run_load(hanok, loaded, "mem_load 640 600 2", *more, memory=1024, cpus=cpus, timeout=1200)
    assert "mem_load: ok" in shown
