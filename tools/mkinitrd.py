#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a small initramfs: busybox, an /init and the folders they need.

usage: mkinitrd.py --busybox FILE --init FILE [--add FILE=PATH]... [--program FILE]...
                   [--modules FOLDER NAME,NAME...] OUT

The archive is cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst in Linux), written
here so that no root, no cpio package and no device node on the host is needed. The same input always
gives the same bytes. It is not compressed: it is small, and a software engine would pay for unpacking it
at every boot. --add puts a host file at PATH, with the host file's execute bits. --program puts a host
program into /bin, and the shared libraries it needs where it looks for them.

--modules takes kernel modules out of FOLDER (a lib/modules/VERSION), each with what it depends on, and puts
them into /lib/modules; the file /lib/modules/load lists them in the order in which /init loads them. A name
may end in :NAME=VALUE,... for parameters, as in nvme:poll_queues=0. What is built into the kernel is left
out, an unknown name is an error.
"""

import argparse
import lzma
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

FOLDERS = ["bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp"]


class Archive:
    """A cpio newc archive that grows in memory."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0

    def add(self, name, mode, content=b"", rdev=(0, 0)):
        """Append one entry. name is relative, without a leading slash; mode holds type and bits."""
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = [
            self.inode,
            mode,
            0,  # uid
            0,  # gid
            2 if stat.S_ISDIR(mode) else 1,  # nlink
            0,  # mtime: the archive is the same on every day
            len(content),
            0,  # device of the file system, major
            0,  # and minor
            rdev[0],
            rdev[1],
            len(encoded),
            0,  # check: unused by newc
        ]
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self.pad()
        self.data += content
        self.pad()

    def pad(self):
        """Names and contents end on a multiple of four bytes."""
        self.data += bytes(-len(self.data) % 4)

    def finish(self):
        """The archive's bytes, closed by its trailer."""
        self.inode = -1
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def parents(path):
    """'a/b/c' -> 'a', 'a/b'."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def build(busybox, init, additions, modules=()):
    """The archive as bytes. additions: pairs of a host file and a path in the guest; modules: of contents."""
    archive = Archive()
    folders = list(FOLDERS)
    for _, path in [*additions, *modules]:
        folders += [folder for folder in parents(path) if folder not in folders]
    for folder in folders:
        archive.add(folder, stat.S_IFDIR | 0o755)
    # Process 1 has these open before /init mounts anything.
    archive.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    archive.add("dev/null", stat.S_IFCHR | 0o666, rdev=(1, 3))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, read(busybox))
    archive.add("init", stat.S_IFREG | 0o755, read(init))
    for source, path in additions:
        bits = 0o755 if os.access(source, os.X_OK) else 0o644
        archive.add(path, stat.S_IFREG | bits, read(source))
    for content, path in modules:
        archive.add(path, stat.S_IFREG | 0o644, content)
    return archive.finish()


def libraries(program):
    """What a dynamic program needs, as pairs of a host file and a path in the guest."""
    shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", shown, re.M)
    return [(path, path.strip("/")) for path in found]


def plain_name(name):
    """Modules are named with - or _, which is the same."""
    return re.sub(r"\.ko(\.xz)?$", "", os.path.basename(name)).replace("-", "_")


class Modules:
    """The modules of one kernel. What one needs stands in its .modinfo section, as NAME=VALUE strings."""

    def __init__(self, folder):
        self.folder = Path(folder)
        files = [*self.folder.rglob("*.ko"), *self.folder.rglob("*.ko.xz")]
        self.files = {plain_name(path.name): path for path in files}
        builtin = self.folder / "modules.builtin"
        lines = builtin.read_text().splitlines() if builtin.exists() else []
        self.builtin = {plain_name(line) for line in lines}

    def content(self, name):
        data = read(self.files[name])
        return lzma.decompress(data) if self.files[name].suffix == ".xz" else data

    def needs(self, data):
        """Names that have to be loaded before; those of soft dependencies only if they are modules."""
        hard = b",".join(re.findall(rb"\0depends=([^\0]*)\0", data)).decode().split(",")
        soft = b" ".join(re.findall(rb"\0softdep=pre: ([^\0]*)\0", data)).decode().split()
        # "crc32c" is asked for by its algorithm; what does it in plain C is the module crc32c_generic.
        soft = [name if plain_name(name) in self.files else f"{name}_generic" for name in soft]
        return [plain_name(name) for name in hard if name] + [
            plain_name(name) for name in soft if plain_name(name) in self.files
        ]

    def closure(self, names):
        """The names and what they need, as an ordered dictionary name -> content."""
        found = {}

        def take(name):
            if name in found or name in self.builtin:
                return
            if name not in self.files:
                sys.exit(f"mkinitrd: {name}: no such module in {self.folder}")
            data = self.content(name)
            for needed in self.needs(data):
                take(needed)
            found[name] = data

        for name in names:
            take(plain_name(name))
        return found


def module_entries(folder, wanted):
    """Pairs of content and path in the guest. wanted: 'ext4,nvme:poll_queues=0'."""
    names, parameters = [], {}
    for part in re.findall(r"[^,:]+(?::[^,=]+=[^,]*(?:,[^,=]+=[^,]*)*)?", wanted):
        name, _, values = part.partition(":")
        names.append(name)
        parameters[plain_name(name)] = values.replace(",", " ")
    modules = Modules(folder).closure(names)
    lines = "".join(f"{name}.ko {parameters.get(name, '')}".strip() + "\n" for name in modules)
    entries = [(data, f"lib/modules/{name}.ko") for name, data in modules.items()]
    return [*entries, (lines.encode(), "lib/modules/load")]


def addition(text):
    source, equals, path = text.partition("=")
    path = path.strip("/")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not FILE=PATH")
    return source, path


def main():
    parser = argparse.ArgumentParser(description="Make a small initramfs around busybox.")
    parser.add_argument("--busybox", required=True, metavar="FILE", help="a static busybox")
    parser.add_argument("--init", required=True, metavar="FILE", help="becomes /init")
    parser.add_argument("--add", action="append", default=[], type=addition, metavar="FILE=PATH")
    parser.add_argument("--program", action="append", default=[], metavar="FILE")
    parser.add_argument("--modules", nargs=2, metavar=("FOLDER", "NAMES"))
    parser.add_argument("out", metavar="OUT")
    args = parser.parse_args()

    additions = list(args.add)
    for program in args.program:
        additions.append((program, f"bin/{os.path.basename(program)}"))
        additions += [entry for entry in libraries(program) if entry not in additions]

    try:
        modules = module_entries(*args.modules) if args.modules else []
        data = build(args.busybox, args.init, additions, modules)
        # Whoever reads OUT meanwhile keeps the old one whole.
        temporary = f"{args.out}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, args.out)
    except OSError as error:
        sys.exit(f"mkinitrd: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
