# SPDX-License-Identifier: Apache-2.0
"""The workloads of `make bench`: what each is, in which guest it runs, how large it is.

A command runs in /bin/sh inside the guest root; what it prints is compared between the environments. Sizes
are chosen for a few tenths of a second on a host of 2024, and less where emulators are slowest.
"""

from dataclasses import dataclass

JAVA = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java -Xmx512m"

# The same code path everywhere: OpenSSL would take SHA-NI, VAES and AVX-512 where the host has them and the
# guest's CPU does not. The bits are those of CPUID leaf 7, EBX and ECX (OPENSSL_ia32cap(3)).
OPENSSL = "OPENSSL_ia32cap=:~0x600f0230000 openssl"


@dataclass(frozen=True)
class Group:
    """Workloads that share one boot: which root, how many virtual CPUs, how much memory."""

    name: str
    root: str
    cpus: int
    about: str


@dataclass(frozen=True)
class Workload:
    name: str
    group: str
    # integer, float, simd, memory, system, start, jvm or smp: how the report sorts it and which target it is under.
    category: str
    about: str
    full: str
    quick: str
    # What is compared: processor time, or elapsed time where it is about several processors.
    metric: str = "cpu"


GROUPS = [
    Group("base", "base", 1, "small programs, the shell, compression, SQLite, Python"),
    Group("dev", "dev", 1, "gcc and make"),
    Group("jvm", "jvm", 1, "a stock JVM"),
    Group("smp", "dev", 2, "two virtual CPUs"),
]


def sized(name, group, category, about, template, full, quick, metric="cpu"):
    """A workload whose command differs in one number, {n}."""
    commands = [template.replace("{n}", str(n)) for n in (full, quick)]
    return Workload(name, group, category, about, commands[0], commands[1], metric)


def program(name, category, about, full, quick):
    """One of the C programs of bench/programs."""
    return sized(name, "base", category, about, f"/bench/programs {name} {{n}}", full, quick)


def packer(name, about, command, full, quick):
    """A compressor that reads the first {n} KiB of the corpus."""
    return sized(
        name,
        "base",
        "integer",
        about,
        f"head -c {{n}}k /bench/corpus | {command} | cksum",
        full,
        quick,
    )


def smp(name, about, full, quick):
    return Workload(name, "smp", "smp", about, full, quick, "wall")


MAKE = "cp -r /bench/tree /tmp/build && cd /tmp/build && head -n {n} files >use && make -s {jobs} && ./program"
JOB = "/bench/programs sieve {n} & "


WORKLOADS = [
    sized("shell", "base", "integer", "dash: arithmetic, patterns, functions", "sh /bench/loop.sh {n}", 50000, 10000),
    packer("gzip", "gzip -6", "gzip -6", 8000, 2000),
    packer("xz", "xz -2", "xz -2", 700, 150),
    packer("bzip2", "bzip2 and bunzip2", "bzip2 | bunzip2", 3000, 700),
    packer("zstd", "zstd -9", "zstd -9 -q --single-thread", 6000, 1500),
    sized("sqlite", "base", "integer", "SQLite in memory: inserts, an index, joins, updates",
          "sed s/ROWS/{n}/ /bench/mix.sql | sqlite3 :memory:", 150000, 20000),
    sized("python", "base", "integer", "Python: dictionaries, strings, JSON, patterns, objects",
          "python3 /bench/mix.py {n}", 150, 20),
    sized("gcc", "dev", "integer", "gcc -O2 of a file of 1,000 lines",
          "gcc -O2 -c -o /tmp/{n}.o /bench/tree/f{n}.c && cksum </tmp/{n}.o", "-large", 0),
    Workload("make", "dev", "integer", "make -j1 of a small tree",
             MAKE.format(n=4, jobs="-j1"), MAKE.format(n=1, jobs="-j1")),
    program("sieve", "integer", "primes below 2^20", 180, 30),
    program("sort", "integer", "qsort of 64-bit numbers", 32, 6),
    program("calls", "integer", "calls and returns (Fibonacci by recursion)", 500, 100),
    program("bytecode", "integer", "an interpreter with a jump table", 150, 30),
    program("sha256", "simd", "SHA-256 in plain C", 40, 8),
    sized("openssl-sha256", "base", "simd", "OpenSSL's SHA-256 (AVX2)",
          OPENSSL + " dgst -sha256$(yes ' /bench/corpus' | head -n {n} | tr -d '\\n')", 16, 3),
    program("nbody", "float", "n-body, double precision", 600, 100),
    program("matmul", "float", "matrix product, double precision", 300, 50),
    program("mandelbrot", "float", "Mandelbrot set, double precision", 35, 6),
    program("x87", "float", "x87, extended precision", 40, 8),
    program("aes", "simd", "AES-128 by AES-NI", 800, 100),
    program("avx2-matmul", "simd", "matrix product, AVX2 and FMA", 200, 25),
    program("avx2-stream", "simd", "integer AVX2 over 256 KiB", 15000, 2500),
    program("memset", "memory", "memset of 4 MiB", 3000, 500),
    program("memcpy", "memory", "memcpy of 2 MiB", 4500, 800),
    program("chase", "memory", "random walk through 16 MiB", 25, 5),
    program("touch", "memory", "first write to fresh pages", 30, 6),
    program("mmap", "memory", "mmap, write a byte, munmap", 40000, 5000),
    program("cow", "memory", "pages copied on write after fork", 50, 8),
    program("getppid", "system", "a system call that does nothing", 2000, 300),
    program("file", "system", "open, read 4 KiB, close", 2000, 200),
    program("signal", "system", "a signal to oneself", 100, 15),
    program("fork", "system", "fork, exit, wait", 1500, 150),
    program("exec", "system", "fork, exec of /bin/true, wait", 300, 40),
    program("pipe", "system", "a byte to and fro between two processes", 300, 50),
    program("switch", "system", "a byte round sixteen processes", 30, 5),
    sized("starts", "base", "start", "starts of OpenSSL and of Python with a few of its modules",
          "for i in $(seq {n}); do openssl version; python3 -c 'import json, re'; done", 10, 2),
    Workload("jvm-start", "jvm", "jvm", "start of a JVM, one round of the mixed load",
             JAVA + " -cp /bench Bench 1", JAVA + " -cp /bench Bench 1"),
    Workload("jvm-mixed", "jvm", "jvm", "collections, strings, garbage, arithmetic, lambdas, threads",
             JAVA + " -cp /bench Bench 12", JAVA + " -cp /bench Bench 3"),
    Workload("javac", "jvm", "jvm", "the Java compiler, itself a Java program",
             *[JAVA + f" -m jdk.compiler/com.sun.tools.javac.Main -d /tmp /bench/{name}.java"
               f" && cksum </tmp/{name}.class" for name in ("Bench", "Small")]),
    smp("one-job", "one compute job", JOB.format(n=400) + "wait", JOB.format(n=100) + "wait"),
    smp("two-jobs", "two of it at once", JOB.format(n=400) * 2 + "wait", JOB.format(n=100) * 2 + "wait"),
    smp("make-j1", "make -j1 of a small tree", MAKE.format(n=4, jobs="-j1"), MAKE.format(n=1, jobs="-j1")),
    smp("make-j2", "make -j2 of the same", "rm -rf /tmp/build && " + MAKE.format(n=4, jobs="-j2"),
        "rm -rf /tmp/build && " + MAKE.format(n=1, jobs="-j2")),
]

# Measured by run.py itself, each with machines of its own.
MACHINE = {
    "boot": "exec of the virtual machine monitor to the first line of init (elapsed)",
    "idle": "processor time of an idle guest, and the monitor's own memory",
}

# Measured by disks.py, with machines of its own; `disk` on the command line.
DISK = "disk"
# The same for network.py.
NETWORK = "network"


def workload(name):
    return next((w for w in WORKLOADS if w.name == name), None)


def names():
    return [w.name for w in WORKLOADS] + list(MACHINE) + [DISK, NETWORK]
