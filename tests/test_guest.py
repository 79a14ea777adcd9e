# SPDX-License-Identifier: Apache-2.0
"""System truth: the guest test images of tests/guest, on each engine and, when asked, under QEMU.

HANOK and HANOK_ENGINES choose the program and its engines (conftest.py). HANOK_TEST_QEMU=1 runs the same
images under QEMU's TCG too; there the checks named in guest/qemu-differs.txt, and only those, must fail:
QEMU is known not to do what the manuals say. HANOK_GUEST_IMAGES names the folder of the built images if it
is not tests/guest beside the program.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SCALE = float(os.environ.get("HANOK_TIMEOUT_SCALE", "1"))
PASSED = 33  # (0x10 << 1) | 1, as QEMU's isa-debug-exit has it
FAILED = 35
IMAGES = json.loads((TOP / "tests/guest/manifest.json").read_text())["images"]
TAP = re.compile(r"^(not ok|ok) (\d+) - (.*)$")


def image_path(name):
    """The built image."""
    default = Path(os.environ.get("HANOK", TOP / "build/hanok")).resolve().parent / "tests/guest"
    path = Path(os.environ.get("HANOK_GUEST_IMAGES", default)) / f"{name}.elf"
    assert path.is_file(), f"{path} is not there: run `make` first"
    return path


def differs(name):
    """The checks of an image that QEMU is known to fail, with the reason."""
    found = {}
    for line in (TOP / "tests/guest/qemu-differs.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            image, check, reason = (part.strip() for part in line.split(" | "))
            if image == name:
                assert check not in found, f"{image}: {check} is there twice"
                found[check] = reason
    return found


def run(command, image):
    """Run a command to its end; returns the exit status and what it printed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=image.get("seconds", 60) * SCALE,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        shown = (late.stdout or b"").decode(errors="replace")
        pytest.fail(f"{image['name']}: not done in time; the end of its output:\n{shown[-2000:]}")
    return done.returncode, done.stdout.decode(errors="replace").replace("\r", "")


def judge(image, status, output, expected, known):
    """Hold the exit status and the TAP lines against what they must be."""
    name = image["name"]
    results = [match.groups() for match in map(TAP.match, output.splitlines()) if match]
    tail = output[-1500:]
    wanted = expected if expected is not None else FAILED if known else PASSED

    # A failing line is "group: name: got ..., want ..."; the part before ": got" is the check's name.
    failed = {text.split(": got ")[0]: text for verdict, _, text in results if verdict == "not ok"}
    wrong = [text for check, text in failed.items() if check not in known]
    assert not wrong, f"{name}: {len(wrong)} of {len(results)} checks:\n" + "\n".join(wrong)

    assert results, f"{name}: no check ran; exit status {status}, output:\n{tail}"
    numbers = [int(number) for _, number, _ in results]
    assert numbers == list(range(1, len(numbers) + 1)), f"{name}: lines are missing:\n{tail}"
    names = [re.sub(r": got .*| # SKIP.*", "", text) for _, _, text in results]
    twice = sorted({check for check in names if names.count(check) > 1})
    assert not twice, f"{name}: these names are not unique: {twice}"
    assert status == wanted, f"{name}: exit status {status}, not {wanted}; the end:\n{tail}"
    if expected is None:
        assert f"\n1..{len(results)}\n" in output, f"{name}: no plan line; the end:\n{tail}"
    passing = sorted(check for check in known if check not in failed)
    assert not passing, f"{name}: these pass: take them off qemu-differs.txt: {passing}"


def run_image(hanok, engine, image):
    """Every check passes."""
    command = [hanok, "run", "--engine", engine, "--kernel", image_path(image["name"])]
    command += ["--debug-exit", "0xf4", "--serial", "stdio", "--no-reboot"]
    command += ["--memory", image.get("memory", "128M"), "--cpus", str(image.get("cpus", 1))]
    status, output = run([str(part) for part in command], image)
    judge(image, status, output, image.get("exit"), {})


@pytest.mark.parametrize("image", IMAGES, ids=[image["name"] for image in IMAGES])
def test_guest_image(hanok, engine, image):
    """Every check of an image passes."""
    run_image(hanok, engine, image)


IN_WINDOW = [image for image in IMAGES if image.get("window")]


@pytest.mark.parametrize("image", IN_WINDOW, ids=[image["name"] for image in IN_WINDOW])
def test_guest_image_in_window(hanok, image, monkeypatch):
    """The same where user code has the window from its first instruction on."""
    monkeypatch.setenv("HANOK_BT_STRESS", "window")
    run_image(hanok, "bt", image)


@pytest.mark.parametrize("image", IMAGES, ids=[image["name"] for image in IMAGES])
def test_guest_image_qemu(image):
    """QEMU passes every check too, but for those where it is known to differ."""
    if os.environ.get("HANOK_TEST_QEMU") != "1":
        pytest.skip("HANOK_TEST_QEMU=1 runs this")
    if "qemu" in image:
        pytest.skip(image["qemu"])
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        pytest.skip("qemu-system-x86_64 is not installed")
    command = [qemu, "-accel", "tcg", "-cpu", "max", "-machine", "q35", "-nodefaults", "-display", "none"]
    command += ["-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    command += ["-m", image.get("memory", "128M"), "-smp", str(image.get("cpus", 1))]
    command += ["-kernel", str(image_path(image["name"]))]
    status, output = run(command, image)
    judge(image, status, output, image.get("qemu_exit"), differs(image["name"]))
