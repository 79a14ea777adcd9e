#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the roots in which the workloads run: folders for native runs, initramfs images for guests.

usage: rootfs.py [--fresh]

Each group of packages becomes one root, made once from Debian's packages by mmdebstrap and kept in
$HANOK_CACHE/bench ($XDG_CACHE_HOME/hanok/bench, ~/.cache/hanok/bench). The very same files are the native
chroot and the guest's initramfs. /bench in each holds our own part: the C programs, scripts and data, made
anew when their sources change. --fresh makes the roots from today's packages.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys

import gentree
import host
import workloads

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tools"))
from mkinitrd import Archive  # noqa: E402

SUITE = "bookworm"
FORMAT = 1  # counted up when what is pruned or prepared changes

PACKAGES = {
    "base": "dash coreutils sed gzip xz-utils bzip2 zstd sqlite3 python3-minimal libpython3-stdlib openssl",
    "dev": "dash coreutils make gcc libc6-dev",
    "jvm": "dash coreutils openjdk-17-jre-headless",
}

# Large and used by no workload.
PRUNE = [
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian",
    "usr/share/perl", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/perl-base",
    "var/cache", "var/lib/apt", "var/log", "boot",
    "usr/bin/x86_64-linux-gnu-lto-dump-12", "usr/lib/gcc/x86_64-linux-gnu/12/lto1",
    "usr/bin/x86_64-linux-gnu-ld.gold", "usr/bin/x86_64-linux-gnu-dwp", "usr/lib/debug",
]
PRUNE_NAMES = ["libtsan", "libasan", "liblsan", "libubsan", "libgprofng", "classes_nocoops.jsa"]

CFLAGS = "-std=gnu17 -O2 -D_GNU_SOURCE -Wall -Wextra -static".split()
CORPUS_BYTES = 8 << 20


class Failed(Exception):
    """One line for the user."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def cache_folder():
    base = os.environ.get("HANOK_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "hanok"
    )
    return os.path.join(base, "bench")


def run(command, what, **more):
    """Runs a command; what it printed becomes the error when it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False, **more)
    except FileNotFoundError as error:
        raise Failed(f"{what}: {error.filename} is not installed") from error
    if done.returncode:
        text = done.stdout.decode(errors="replace").strip()
        raise Failed(f"{what}: {command[0]} failed with {done.returncode}:\n{text[-2000:]}")
    return done.stdout


def read_stamp(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def write_stamp(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def prune(root):
    for path in PRUNE:
        full = os.path.join(root, path)
        if os.path.isdir(full) and not os.path.islink(full):
            shutil.rmtree(full)
        elif os.path.lexists(full):
            os.unlink(full)
    for folder, _, files in os.walk(root):
        for name in files:
            if any(name.startswith(start) for start in PRUNE_NAMES):
                os.unlink(os.path.join(folder, name))


def sources():
    """Where packages come from: the host's own sources when it is the same Debian, else mmdebstrap's."""
    mirror = os.environ.get("HANOK_MIRROR")
    if mirror:
        return [mirror]
    host_list = "/etc/apt/sources.list.d/debian.sources"
    text = read_stamp(host_list) or ""
    return [host_list] if SUITE in text else []


def make_root(folder, name, fresh):
    """folder/root-NAME from packages, complete or not at all. Returns its path and its stamp."""
    root = os.path.join(folder, f"root-{name}")
    stamp = f"{FORMAT} {SUITE} {PACKAGES[name]} {sorted(PRUNE + PRUNE_NAMES)}"
    if not fresh and read_stamp(root + ".stamp") == stamp:
        return root, stamp
    if not shutil.which("mmdebstrap"):
        raise Failed("mmdebstrap is not installed; to get it: sudo apt-get install mmdebstrap")
    say(f"making the root '{name}' from Debian packages (once)")
    work = root + ".new"
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    tar = os.path.join(folder, f"{name}.tar")
    # --variant=extract unpacks packages and runs no script of theirs, so no privilege is needed beyond
    # what mmdebstrap's own mode wants: root, or a user namespace.
    include = ",".join(PACKAGES[name].split())
    try:
        run(["mmdebstrap", "--quiet", "--variant=extract", f"--include={include}", SUITE, tar] + sources(),
            f"the root '{name}' (as a user, mmdebstrap needs user namespaces and newuidmap, package uidmap)")
        run(["tar", "--no-same-owner", "--exclude=./dev/*", "-C", work, "-xf", tar], f"the root '{name}'")
    finally:
        if os.path.exists(tar):
            os.unlink(tar)
    prune(work)
    for path in ("proc", "sys", "dev", "tmp", "bench"):
        os.makedirs(os.path.join(work, path), exist_ok=True)
    prepare_root(work, name)
    shutil.rmtree(root, ignore_errors=True)
    os.rename(work, root)
    write_stamp(root + ".stamp", stamp)
    return root, stamp


def prepare_root(root, name):
    """What the packages' own scripts would have done and a workload needs."""
    if name == "base":
        # By content, not by time: a file's time in an initramfs is not the one it has here.
        run(host.in_root(root, ["/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode",
                                "unchecked-hash", "/usr/lib/python3.11"]),
            f"compiling Python's library ({host.HINT})")
    link = os.path.join(root, "bin/sh")
    if not os.path.lexists(link):
        os.symlink("dash", link)


def write_corpus(path):
    """Text of made-up words, of which few are common and most are rare: 8 MiB, always the same."""
    state, text = 1, []

    def draw(limit):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % limit

    words = ["".join(chr(97 + draw(26)) for _ in range(2 + draw(8))) for _ in range(5000)]
    size = 0
    while size < CORPUS_BYTES:
        line = " ".join(words[draw(1 + draw(5000))] for _ in range(12)) + f" {draw(100000)}\n"
        text.append(line)
        size += len(line)
    with open(path, "w", encoding="ascii") as file:
        file.write("".join(text)[:CORPUS_BYTES])


def sources_digest():
    """Changes when anything that goes into /bench does."""
    digest = hashlib.sha256()
    for folder in ("programs", "src", "guest", "."):
        for name in sorted(os.listdir(os.path.join(HERE, folder))):
            path = os.path.join(HERE, folder, name)
            if os.path.isfile(path) and name not in ("run.py",):
                digest.update(name.encode())
                with open(path, "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()


def c_files(folder):
    return sorted(os.path.join(HERE, folder, n) for n in os.listdir(os.path.join(HERE, folder)) if n.endswith(".c"))


def c_programs():
    """{name: its sources} of the C programs that run in guests, natively or both."""
    single = {os.path.basename(path)[:-2]: [path] for path in c_files("src")}
    return {"programs": c_files("programs"), **single}


def compile_c(name, folder):
    """Compiles one of c_programs() to folder/name, which is returned. Raises Failed."""
    program = os.path.join(folder, name)
    run([os.environ.get("CC", "gcc"), *CFLAGS, "-o", program, *c_programs()[name], "-lm"], f"compiling {name}")
    return program


def make_own(folder, jvm_root, digest):
    """folder/own: what becomes /bench in every root."""
    own = os.path.join(folder, "own")
    if read_stamp(own + ".stamp") == digest:
        return own
    say("compiling the workloads")
    work = own + ".new"
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    compile_c("programs", work)
    compile_c("runner", work)
    for name in os.listdir(os.path.join(HERE, "guest")):
        shutil.copy(os.path.join(HERE, "guest", name), work)
    gentree.write_tree(os.path.join(work, "tree"))
    write_corpus(os.path.join(work, "corpus"))
    with open(os.path.join(work, "workloads"), "w", encoding="ascii") as file:
        file.write("".join(f"{w.name}\t{w.full}\t{w.quick}\n" for w in workloads.WORKLOADS))
    compile_java(jvm_root, work)
    shutil.rmtree(own, ignore_errors=True)
    os.rename(work, own)
    write_stamp(own + ".stamp", digest)
    return own


def compile_java(jvm_root, work):
    """Bench.class by the compiler that is part of the JVM's own root."""
    target = os.path.join(jvm_root, "bench")
    shutil.rmtree(target)
    os.makedirs(target)
    shutil.copy(os.path.join(work, "Bench.java"), target)
    java = workloads.JAVA.split()
    run(host.in_root(jvm_root, java + ["-m", "jdk.compiler/com.sun.tools.javac.Main", "-d", "/bench",
                                       "/bench/Bench.java"]),
        f"Bench.java ({host.HINT})")
    for name in os.listdir(target):
        if name.endswith(".class"):
            shutil.copy(os.path.join(target, name), work)


def fill_own(root, own):
    target = os.path.join(root, "bench")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(own, target)


def write_initrd(root, path):
    """root as a cpio archive with the runner as /init, uncompressed: unpacking would be part of the boot."""
    archive = Archive()
    archive.add("dev", stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    archive.add("dev/null", stat.S_IFCHR | 0o666, rdev=(1, 3))
    archive.add("init", stat.S_IFLNK | 0o777, b"/bench/runner")
    for folder, folders, files in os.walk(root):
        folders.sort()
        inside = os.path.relpath(folder, root)
        if inside == "dev":
            folders.clear()
            continue
        for name in sorted(folders + files):
            full = os.path.join(folder, name)
            add_file(archive, os.path.normpath(os.path.join(inside, name)), full)
    with open(path + ".new", "wb") as file:
        file.write(archive.finish())
    os.replace(path + ".new", path)


def add_file(archive, name, full):
    info = os.lstat(full)
    kind = stat.S_IFMT(info.st_mode)
    if name == "dev":
        return
    if stat.S_ISLNK(kind):
        archive.add(name, info.st_mode, os.readlink(full).encode())
    elif stat.S_ISDIR(kind):
        archive.add(name, info.st_mode)
    elif stat.S_ISREG(kind):
        with open(full, "rb") as file:
            archive.add(name, info.st_mode, file.read())


def prepare(fresh=False):
    """Has everything ready. Returns {root's name: (folder, initrd)}. Raises Failed."""
    folder = cache_folder()
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        roots = {name: make_root(folder, name, fresh) for name in PACKAGES}
        digest = sources_digest() + roots["jvm"][1]
        own = make_own(folder, roots["jvm"][0], hashlib.sha256(digest.encode()).hexdigest())
        ready = {}
        for name, (root, stamp) in roots.items():
            initrd = os.path.join(folder, f"{name}.initrd")
            whole = f"{stamp} {digest}"
            if fresh or read_stamp(initrd + ".stamp") != whole or not os.path.exists(initrd):
                fill_own(root, own)
                write_initrd(root, initrd)
                write_stamp(initrd + ".stamp", whole)
            ready[name] = (root, initrd)
        return ready


def main():
    parser = argparse.ArgumentParser(description="Make the roots of the benchmarks.")
    parser.add_argument("--fresh", action="store_true", help="make them anew from today's packages")
    args = parser.parse_args()
    try:
        for name, (root, initrd) in prepare(args.fresh).items():
            print(f"{name}: {root} {initrd} ({os.path.getsize(initrd) >> 20} MiB)")
    except Failed as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
