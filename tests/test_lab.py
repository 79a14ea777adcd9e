# SPDX-License-Identifier: Apache-2.0
"""hanok lab: traces made up, shown and replayed; what it says about bad ones."""

import json
import re
import struct
import xml.etree.ElementTree as ET
import zlib

import pytest
from conftest import run_hanok

BELADY = "1,2,3,4,1,2,5,1,2,3,4,5"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def lab(hanok, tmp_path, monkeypatch):
    """A function: words after `hanok lab`, run in a folder of the test -> what it prints."""
    monkeypatch.chdir(tmp_path)

    def go(*words, status=0):
        result = run_hanok(hanok, "lab", *words, timeout=60)
        assert result.returncode == status, result.stderr
        if status:
            assert len(result.stderr.splitlines()) == 1
            return result.stderr
        assert result.stderr == ""
        return result.stdout

    return go


def replay(lab, *words):
    """The results by policy and frames."""
    results = json.loads(lab("replay", "--json", *words))["results"]
    return {(row["policy"], row["frames"]): row for row in results}


def test_beladys_anomaly(lab):
    """FIFO misses 9 times with 3 frames and 10 times with 4; LRU and OPT improve."""
    lab("make-trace", "list", "--list", BELADY, "-o", "b.trace")
    got = replay(lab, "b.trace", "--frames", "4,3", "--policy", "fifo,lru,opt")
    misses = {key: row["misses"] for key, row in got.items()}
    assert misses == {("fifo", 3): 9, ("fifo", 4): 10, ("lru", 3): 10, ("lru", 4): 8, ("opt", 3): 7, ("opt", 4): 6}
    row = got["fifo", 4]
    assert (row["references"], row["cold_misses"], row["other_misses"], row["dirty_evictions"]) == (12, 5, 5, 0)
    assert row["miss_ratio"] == pytest.approx(10 / 12)
    assert row["over_opt"] == pytest.approx(10 / 6 - 1)
    assert row["over_lru"] == pytest.approx(10 / 8 - 1)
    text = lab("replay", "b.trace", "--frames", "3,4", "--policy", "fifo")
    assert "fifo misses 9 times with 3 frames, but 10 times with 4: Belady's anomaly." in text
    assert "anomaly" not in lab("replay", "b.trace", "--policy", "lru,opt")


def test_help_teaches_what_happens(lab):
    """The commands that replay's help shows do what it says."""
    text = lab("replay", "--help")
    assert "fifo misses 9 times with 3 frames and 10 times with 4" in text
    for line in re.findall(r"^  hanok lab (.* belady\.trace.*)$", text, re.MULTILINE):
        out = lab(*line.split())
    assert re.search(r"3 +12 KiB +fifo +9 ", out)


@pytest.mark.parametrize("verb", [[], ["replay"], ["make-trace"], ["show"]])
def test_help(lab, verb):
    text = lab(*verb, "--help")
    assert "  hanok lab " in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_table_and_json_agree(lab):
    lab("make-trace", "mix", "--pages", "200", "--refs", "20000", "--out", "m.trace")
    got = replay(lab, "m.trace", "--policy", "all", "--points", "7")
    frames, rows = None, 0
    for line in lab("replay", "m.trace", "--policy", "all", "--points", "7").splitlines():
        row = re.match(r" *(?:(\d+) +[\d.]+ [KM]iB)? +([a-z]+) +(\d+) +([\d.]+) % +(\d+) +(\d+) ", line)
        if not row:
            continue
        frames = int(row[1] or frames)
        want = got[row[2], frames]
        assert (int(row[3]), int(row[5]), int(row[6])) == (
            want["misses"],
            want["other_misses"],
            want["dirty_evictions"],
        )
        assert float(row[4]) == pytest.approx(100 * want["miss_ratio"], abs=0.006)
        rows += 1
    assert rows == len(got) == 6 * 7


def test_sizes(lab):
    """Frames are numbers or bytes; each once, in order; what is beyond the pages only misses cold."""
    lab("make-trace", "uniform", "--pages", "100", "--refs", "5000", "-o", "u.trace")
    got = replay(lab, "u.trace", "--frames", "1M,16K,4,8k,1000000000", "--policy", "clock")
    assert [frames for _, frames in got] == [2, 4, 256, 10**9]
    assert got["clock", 10**9]["misses"] == got["clock", 256]["misses"] == 100
    assert len(replay(lab, "u.trace", "--policy", "lru", "--points", "5", "--x", "linear")) == 5


@pytest.mark.parametrize(
    "pattern, check",
    [
        # One frame too few, and LRU never hits; OPT keeps nearly all.
        ("loop", lambda lru, opt: lru == 1 and opt < 0.11),
        ("uniform", lambda lru, opt: 0.05 < lru < 0.15 and opt < lru),
        ("zipf", lambda lru, opt: lru < 0.08 and opt < lru),
        ("phases", lambda lru, opt: lru < 0.03 and opt <= lru),
        ("mix", lambda lru, opt: lru < 0.12 and opt < lru),
    ],
    ids=["loop", "uniform", "zipf", "phases", "mix"],
)
def test_patterns(lab, pattern, check):
    lab("make-trace", pattern, "--pages", "1000", "--refs", "100000", "--writes", "30", "-o", "x.trace")
    shown = json.loads(lab("show", "--json", "x.trace"))
    assert (shown["references"], shown["pages"], shown["cut"]) == (100000, 1000, False)
    assert shown["writes"] == pytest.approx(30000, rel=0.05)
    assert sum(row["references"] for row in shown["reuse_distances"]) == 99000
    # 90 % of the pages: misses without the cold ones.
    got = replay(lab, "x.trace", "--frames", "900", "--policy", "lru,opt")
    ratio = {policy: row["other_misses"] / 99000 for (policy, _), row in got.items()}
    assert check(ratio["lru"], ratio["opt"]), ratio


def test_zipf_is_zipf(lab):
    """Of the pages by their popularity, the first has 2^s times the references of the second, and so on."""
    lab("make-trace", "zipf", "--pages", "50", "--refs", "200000", "--exponent", "1.5", "-o", "z.trace")
    counts = {}
    for page, _, _ in records("z.trace"):
        counts[page] = counts.get(page, 0) + 1
    by_rank = sorted(counts.values(), reverse=True)
    scale = sum(k**-1.5 for k in range(1, 51))
    for k in (1, 2, 3, 5, 10, 20):
        assert by_rank[k - 1] == pytest.approx(200000 * k**-1.5 / scale, rel=0.1)


def test_the_same_seed_is_the_same_trace(lab, tmp_path):
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        lab("make-trace", "mix", "--refs", "5000", "--seed", seed, "-o", name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def records(path):
    """A trace, read as src/mem/trace.h says: page, write, ns."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"HANOKPGT" and struct.unpack_from("<II", data, 8) == (1, 64)
    at = 64
    while True:
        size, count, crc = struct.unpack_from("<III", data, at)
        at += 12
        if not size:
            assert at == len(data) and (count, crc) == (0, 0)
            return
        assert zlib.crc32(data[at : at + size]) == crc
        page = ns = 0
        for _ in range(count):
            key, at = varint(data, at)
            step, at = varint(data, at)
            page += key >> 2 if not key & 2 else -(key >> 2) - 1
            ns += step
            yield page, key & 1, ns


def test_format(lab):
    """What is written is what the header file promises, to a reader that was written from it."""
    lab("make-trace", "list", "--list", "7,3w,3,60000000,0w", "-o", "l.trace")
    assert list(records("l.trace")) == [(7, 0, 0), (3, 1, 1000), (3, 0, 2000), (60000000, 0, 3000), (0, 1, 4000)]


def test_svg(lab, tmp_path):
    lab("make-trace", "zipf", "--pages", "300", "--refs", "30000", "-o", "<&zipf>.trace")
    for axis in ("log", "linear"):
        lab("replay", "<&zipf>.trace", "--policy", "fifo,gen,opt", "--svg", "z.svg", "--x", axis, "--points", "9")
        top = ET.parse(tmp_path / "z.svg").getroot()
        texts = ["".join(text.itertext()) for text in top.iter(f"{SVG}text")]
        assert "Miss ratio by memory: <&zipf>.trace" in texts
        assert {"fifo", "gen", "opt", "references that miss", "100 %", "cold misses: 1 %"} <= set(texts)
        assert any(axis in text for text in texts)
        curves = list(top.iter(f"{SVG}polyline"))
        assert len(curves) == 3
        for curve in curves:
            points = [tuple(map(float, point.split(","))) for point in curve.get("points").split()]
            assert len(points) == 9
            # Within the axes, and down to the right: these do not get worse here.
            assert points == sorted(points, key=lambda point: point[0])
            assert all(74 <= x <= 700 and 84 <= y <= 416 for x, y in points)
            assert points[0][1] < points[-1][1]
    # One size alone, and a trace of one page.
    lab("make-trace", "loop", "--pages", "1", "--refs", "3", "-o", "one.trace")
    lab("replay", "one.trace", "--svg", "one.svg")
    assert "nan" not in (tmp_path / "one.svg").read_text() and "inf" not in (tmp_path / "one.svg").read_text()


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "lab: what to do"),
        (["repaly"], "did you mean `hanok lab replay`"),
        (["replay"], "which trace"),
        (["replay", "x", "y"], "y: one word too many"),
        (["replay", "x", "--policy", "lru,fifi"], "--policy fifi: there is no such policy; did you mean fifo"),
        (["replay", "x", "--policy", ""], "--policy"),
        (["replay", "x", "--policy", "lru,"], "--policy"),
        (["replay", "x", "--frames", "0"], "--frames 0"),
        (["replay", "x", "--frames", "many"], "--frames many"),
        (["replay", "x", "--points", "1"], "--points 1"),
        (["replay", "x", "--x", "round"], "--x round"),
        (["replay", "x", "--gen-share", "0"], "--gen-share 0"),
        (["make-trace", "zipf"], "-o FILE"),
        (["make-trace", "zipff", "-o", "x"], "did you mean zipf"),
        (["make-trace", "zipf", "-o"], "-o: a value is missing"),
        (["make-trace", "zipf", "-o", "x", "--pages", "0"], "--pages 0"),
        (["make-trace", "zipf", "-o", "x", "--exponent", "-1"], "--exponent -1"),
        (["make-trace", "zipf", "-o", "x", "--writes", "101"], "--writes 101"),
        (["make-trace", "list", "-o", "x"], "--list"),
        (["make-trace", "list", "-o", "x", "--list", "1,,2"], "--list"),
        (["make-trace", "list", "-o", "x", "--list", "1,2x"], "'x' after page 2"),
        (["make-trace", "loop", "-o", "x", "--list", "1"], "--list"),
        (["show", "x", "--jason"], "did you mean --json"),
    ],
)
def test_usage(lab, tmp_path, words, says):
    assert says in lab(*words, status=2)
    assert not (tmp_path / "x").exists()


def test_bad_files(lab, tmp_path):
    assert "none.trace: the trace cannot be opened" in lab("replay", "none.trace", status=125)
    (tmp_path / "text").write_text("not a trace\n" * 20)
    assert "text: this is no trace of pages" in lab("show", "text", status=125)
    lab("make-trace", "zipf", "--refs", "50000", "-o", "z.trace")
    whole = (tmp_path / "z.trace").read_bytes()
    (tmp_path / "z.trace").write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    assert "z.trace: the trace is damaged in the block at byte 64: its checksum" in lab(
        "replay", "z.trace", status=125
    )
    # Cut: what is there is used, and that it is cut is said.
    (tmp_path / "z.trace").write_bytes(whole[:-100])
    assert "its end is missing" in lab("replay", "z.trace")
    assert json.loads(lab("show", "--json", "z.trace"))["cut"] is True
    (tmp_path / "z.trace").write_bytes(whole[:100])
    assert "there are no references" in lab("replay", "z.trace", status=125)
    assert "cannot be written" in lab("make-trace", "loop", "-o", "none/x", status=125)
    lab("make-trace", "loop", "--refs", "5000", "-o", "l.trace")
    assert "--svg none/x.svg: it could not be written" in lab("replay", "l.trace", "--svg", "none/x.svg", status=125)
    assert "/dev/full: the trace" in lab("make-trace", "loop", "-o", "/dev/full", status=125)


def test_gen_options(lab):
    """gen that sees few references is nearer to fifo."""
    lab("make-trace", "zipf", "--pages", "500", "--refs", "50000", "-o", "z.trace")
    base = ("z.trace", "--frames", "100", "--policy", "gen,fifo,lru")
    sharp, blunt = replay(lab, *base), replay(lab, *base, "--gen-sample", "1000", "--gen-share", "2")
    misses = [sharp["lru", 100], sharp["gen", 100], blunt["gen", 100], blunt["fifo", 100]]
    assert [row["misses"] for row in misses] == sorted({row["misses"] for row in misses})
