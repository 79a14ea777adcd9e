# SPDX-License-Identifier: Apache-2.0
"""What `make bench` runs is fit to be run: its programs compile and do the same twice, its scripts are sound.

Measuring takes root, packages and an hour; that a program does not link any more need not wait for it.
"""

import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
BENCH = TOP / "bench"
SCRIPTS = sorted(BENCH.glob("*.py")) + sorted((BENCH / "guest").glob("*.py"))
RUN_SECONDS = 60

sys.path.insert(0, str(BENCH))
import host  # noqa: E402
import rootfs  # noqa: E402
import workloads  # noqa: E402

# The names in programs.c's table.
WORKS = re.findall(r'^\t\{ "([\w-]+)", bench_\w+ \},$', (BENCH / "programs/programs.c").read_text(), re.MULTILINE)
# What some need of the CPU, by its name in /proc/cpuinfo.
NEEDS = {"aes": "aes", "avx2-matmul": "fma", "avx2-stream": "avx2"}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A folder with all C programs, compiled as for a measurement."""
    folder = tmp_path_factory.mktemp("bench")
    for name in rootfs.c_programs():
        rootfs.compile_c(name, str(folder))
    return folder


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)


def test_all_are_compiled(compiled):
    assert {path.name for path in compiled.iterdir()} == {"programs", "runner", "diskio", "netpong", "paging"}


def test_workloads_and_programs_agree():
    """Every workload that runs a C program names one that there is, and each of those is a workload."""
    commands = [text for w in workloads.WORKLOADS for text in (w.full, w.quick)]
    asked = {name for text in commands for name in re.findall(r"/bench/programs ([\w-]+) \d+", text)}
    assert len(WORKS) == len(set(WORKS)) > 20
    assert asked == set(WORKS)


@pytest.fixture(scope="session")
def root(compiled, tmp_path_factory):
    """As much of a root as a workload needs that reads /bench/corpus."""
    folder = tmp_path_factory.mktemp("root")
    for name in ("bench", "dev", "proc", "tmp"):
        (folder / name).mkdir()
    (folder / "bench/corpus").write_bytes(bytes(n % 251 for n in range(4096)))
    shutil.copy(compiled / "programs", folder / "bench")
    if run(host.in_root(str(folder), ["/bench/programs"])).returncode != 2:
        pytest.skip(host.HINT)
    return folder


@pytest.mark.parametrize("name", WORKS)
def test_a_workload_does_the_same_twice(compiled, request, name):
    """Its output is what is compared between the environments."""
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii").split()
    if name in NEEDS and NEEDS[name] not in flags:
        pytest.skip(f"this CPU has no {NEEDS[name]}")
    command = [str(compiled / "programs"), name, "1"]
    if name == "file":
        command = host.in_root(str(request.getfixturevalue("root")), ["/bench/programs", name, "1"])
    first, second = (run(command) for _ in range(2))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.strip()
    assert second.stdout == first.stdout


def test_wrong_words_are_refused(compiled):
    for words in ([], ["sieve"], ["sieve", "0"], ["nothing", "1"], ["sieve", "1", "2"]):
        done = run([compiled / "programs", *words])
        assert (done.returncode, done.stdout) == (2, "")
        assert "usage:" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_compile(script, tmp_path):
    py_compile.compile(str(script), cfile=str(tmp_path / "out.pyc"), doraise=True)


@pytest.mark.parametrize("script", ["run.py", "rootfs.py", "pressure.py"])
def test_scripts_start(script):
    """With --help, by when all that they import was imported."""
    done = run([sys.executable, BENCH / script, "--help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout


def test_list_names_what_there_is():
    done = run([sys.executable, BENCH / "run.py", "--list"])
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == workloads.names()


def test_a_program_that_does_not_compile_is_told(tmp_path, monkeypatch):
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return missing(); }\n")
    monkeypatch.setattr(rootfs, "c_programs", lambda: {"wrong": [str(source)]})
    with pytest.raises(rootfs.Failed, match="compiling wrong: .*failed with 1"):
        rootfs.compile_c("wrong", str(tmp_path))
