# SPDX-License-Identifier: Apache-2.0
"""hanok disk: what its verbs make and say, with qemu-img as the judge; and, slow, long runs of the programs
that do random things to disks and let the power fail."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
from conftest import TIMEOUT_SCALE, run_hanok

TYPES = [
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "vmfs",
    "vmfsThin",
    "vmfsSparse",
]
MIB = 1 << 20


@pytest.fixture
def disk(hanok, tmp_path, monkeypatch):
    """A function: words after `hanok disk`, run in a folder of the test -> subprocess's result."""
    monkeypatch.chdir(tmp_path)

    def go(*words, status=0):
        result = run_hanok(hanok, "disk", *words, timeout=120)
        assert result.returncode == status, result.stderr
        if status:
            assert len(result.stderr.splitlines()) == 1
        return result

    return go


def qemu_img(*words):
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True).stdout


def make_raw(path, size=20 * MIB):
    """Data and holes, odd ends, and zeroes that were written."""
    dice = random.Random(7)
    with open(path, "wb") as out:
        out.truncate(size)
        for _ in range(30):
            out.seek(dice.randrange(size // 512) * 512)
            out.write(dice.randbytes(dice.choice([512, 4096, 70000, 200000])))
        out.seek(5 * MIB)
        out.write(bytes(2 * MIB))
        out.truncate(size)


@pytest.mark.parametrize("kind", TYPES)
def test_create_is_what_qemu_reads(disk, kind):
    disk("create", "--type", kind, "a.vmdk", "100M")
    info = json.loads(qemu_img("info", "--output=json", "a.vmdk"))
    assert info["virtual-size"] == 100 * MIB
    ours = json.loads(disk("info", "--json", "a.vmdk").stdout)
    # VMware, too, tells thin ones only by ddb.thinProvisioned.
    assert (ours["bytes"], ours["type"]) == (100 * MIB, "vmfs" if kind == "vmfsThin" else kind)
    disk("check", "a.vmdk")


@pytest.mark.parametrize("kind", [*TYPES, "streamOptimized"])
def test_convert_there_and_back(disk, kind):
    make_raw("a.img")
    disk("convert", "--type", kind, "a.img", "b.vmdk")
    qemu_img("compare", "-f", "raw", "-F", "vmdk", "a.img", "b.vmdk")
    disk("convert", "b.vmdk", "c.img")
    qemu_img("compare", "-f", "raw", "-F", "raw", "a.img", "c.img")
    disk("check", "b.vmdk")


def test_convert_reads_what_qemu_makes(disk):
    make_raw("a.img")
    for name in ("monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized"):
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={name}", "a.img", f"{name}.vmdk")
        disk("convert", f"{name}.vmdk", f"{name}.img")
        qemu_img("compare", "-f", "raw", "-F", "raw", "a.img", f"{name}.img")


def test_chain_info_map_and_flattening_convert(disk):
    make_raw("a.img")
    disk("convert", "a.img", "a.vmdk")
    disk("create", "--parent", "a.vmdk", "b.vmdk")
    info = json.loads(disk("info", "--json", "b.vmdk").stdout)
    assert [link["path"].split("/")[-1] for link in info["chain"]] == ["b.vmdk", "a.vmdk"]
    assert info["chain"][0]["parent_cid"] == info["chain"][1]["cid"]
    runs = json.loads(disk("map", "--json", "b.vmdk").stdout)
    at = 0
    for run in runs:
        assert run["start"] == at
        at += run["length"]
        if run["kind"] == "data":
            assert run["depth"] == 1
            with open(run["file"], "rb") as image, open("a.img", "rb") as raw:
                image.seek(run["offset"])
                raw.seek(run["start"])
                assert image.read(512) == raw.read(512)
    assert at == 20 * MIB
    disk("convert", "b.vmdk", "c.vmdk")
    qemu_img("compare", "-f", "raw", "-F", "vmdk", "a.img", "c.vmdk")


def test_resize(disk):
    make_raw("a.img")
    disk("convert", "a.img", "a.vmdk")
    disk("resize", "a.vmdk", "+10M")
    assert json.loads(disk("info", "--json", "a.vmdk").stdout)["bytes"] == 30 * MIB
    qemu_img("compare", "-f", "raw", "-F", "vmdk", "a.img", "a.vmdk")
    disk("resize", "a.vmdk", "10M", status=125)
    disk("resize", "--shrink", "a.vmdk", "10M")
    os.truncate("a.img", 10 * MIB)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", "a.img", "a.vmdk")
    qemu_img("check", "-f", "vmdk", "a.vmdk")


def test_compact_gives_zeroes_back(disk):
    make_raw("a.img", 40 * MIB)
    disk("convert", "a.img", "a.vmdk")
    with open("noise", "wb") as out:
        out.write(os.urandom(8 * MIB))
    subprocess.run(["qemu-io", "-f", "vmdk", "-c", "write -s noise 10M 8M", "a.vmdk"], check=True)
    subprocess.run(["qemu-io", "-f", "vmdk", "-c", "write -P 0 10M 8M", "a.vmdk"], check=True)
    qemu_img("convert", "-f", "vmdk", "-O", "raw", "a.vmdk", "want.img")
    before = json.loads(disk("info", "--json", "a.vmdk").stdout)["host_bytes"]
    disk("compact", "a.vmdk")
    assert json.loads(disk("info", "--json", "a.vmdk").stdout)["host_bytes"] <= before - 7 * MIB
    qemu_img("compare", "-f", "raw", "-F", "vmdk", "want.img", "a.vmdk")
    qemu_img("check", "-f", "vmdk", "a.vmdk")


def test_check_finds_and_repairs(disk):
    make_raw("a.img")
    disk("convert", "a.img", "a.vmdk")
    with open("a.vmdk", "r+b") as image:
        header = image.read(512)
        rgd = int.from_bytes(header[48:56], "little")
        image.seek(rgd * 512)
        table = int.from_bytes(image.read(4), "little")
        image.seek(table * 512)
        image.write(b"\xff\xff\xff\x7f")
    found = json.loads(disk("check", "--json", "a.vmdk").stdout)[0]
    assert found["mismatches"] > 0
    assert "repaired" in disk("check", "--repair", "a.vmdk").stdout
    found = json.loads(disk("check", "--json", "a.vmdk").stdout)[0]
    assert (found["errors"], found["mismatches"]) == (0, 0)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", "a.img", "a.vmdk")


def test_check_fails_on_errors(disk):
    make_raw("a.img")
    disk("convert", "a.img", "a.vmdk")
    with open("a.vmdk", "r+b") as image:
        header = image.read(512)
        gd = int.from_bytes(header[56:64], "little")
        image.seek(gd * 512)
        table = int.from_bytes(image.read(4), "little")
        image.seek(table * 512)
        entries = image.read(512 * 4)
        grains = [entries[i : i + 4] for i in range(0, len(entries), 4)]
        used = next(grain for grain in grains if any(grain))
        free = grains.index(bytes(4))
        image.seek(table * 512 + free * 4)
        image.write(used)  # two grains in one place
    assert "data may be lost" in disk("check", "a.vmdk", status=125).stderr


@pytest.mark.parametrize("name", ["qcow2", "vdi", "vhdx", "vpc", "qed"])
def test_other_formats_are_left_to_qemu(disk, name):
    qemu_img("create", "-q", "-f", name, "a.img", "10M")
    for words in (["info", "a.img"], ["convert", "a.img", "b.vmdk"], ["check", "a.img"]):
        assert "qemu-img convert -O vmdk" in disk(*words, status=125).stderr


def test_errors_say_what_to_do(disk):
    assert "hanok disk create" in disk("create", "a.vmdk", status=2).stderr
    assert "did you mean `hanok disk check`" in disk("chek", status=2).stderr
    assert "--type" in disk("create", "--typo", "x", status=2).stderr
    assert "power of two" in disk("create", "--grain", "5K", "a.vmdk", "1M", status=2).stderr
    assert "nothing.vmdk" in disk("info", "nothing.vmdk", status=125).stderr
    disk("create", "a.vmdk", "1M")
    assert "a.vmdk" in disk("create", "a.vmdk", "1M", status=125).stderr
    for verb in ("", "create", "info", "map", "check", "convert", "resize", "compact"):
        words = [verb, "--help"] if verb else ["--help"]
        assert "hanok disk" in disk(*words).stdout


def test_an_image_in_use_is_refused_by_name(disk):
    disk("create", "a.vmdk", "1M")
    with subprocess.Popen(
        ["qemu-io", "-f", "vmdk", "-c", "sleep 20000", "a.vmdk"], stdout=subprocess.DEVNULL
    ) as other:
        try:
            time.sleep(1 * TIMEOUT_SCALE)
            assert f"process {other.pid} " in disk("resize", "a.vmdk", "+1M", status=125).stderr
        finally:
            other.kill()


def test_convert_that_is_interrupted_leaves_nothing(hanok, disk, tmp_path):
    size = 4 << 30
    with open("big.img", "wb") as out:
        out.truncate(size)
        for at in range(0, size, 4 * MIB):
            out.seek(at)
            out.write(b"x" * 4096)
    with subprocess.Popen([hanok, "disk", "convert", "--thick", "eager", "big.img", "big.vmdk"]) as it:
        time.sleep(0.5)
        it.send_signal(signal.SIGINT)
        status = it.wait(timeout=60 * TIMEOUT_SCALE)
    assert status in (0, 125)
    if status:
        assert not [name for name in os.listdir(tmp_path) if name.startswith("big") and name != "big.img"]


def program(hanok, name):
    path = hanok.parent / "tests/disk" / name
    assert path.is_file(), f"{path} is not built"
    return path


@pytest.mark.slow
def test_the_power_fails_many_times(hanok):
    subprocess.run([program(hanok, "diskcrash"), "--points", "20000"], check=True, timeout=900 * TIMEOUT_SCALE)


@pytest.mark.slow
def test_many_random_operations(hanok):
    subprocess.run([program(hanok, "diskmodel"), "--ops", "200000"], check=True, timeout=900 * TIMEOUT_SCALE)
