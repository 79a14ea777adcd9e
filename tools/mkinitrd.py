#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a small initramfs: busybox, an /init and the folders they need.

usage: mkinitrd.py --busybox FILE --init FILE [--add FILE=PATH]... OUT

The archive is cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst in Linux), written
here so that no root, no cpio package and no device node on the host is needed. The same input always
gives the same bytes. It is not compressed: it is small, and a software engine would pay for unpacking it
at every boot. --add puts a host file at PATH, with the host file's execute bits.
"""

import argparse
import os
import stat
import sys

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


def build(busybox, init, additions):
    """The archive as bytes. additions: pairs of a host file and a path in the guest."""
    archive = Archive()
    folders = list(FOLDERS)
    for _, path in additions:
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
    return archive.finish()


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
    parser.add_argument("out", metavar="OUT")
    args = parser.parse_args()

    try:
        data = build(args.busybox, args.init, args.add)
        # Whoever reads OUT meanwhile keeps the old one whole.
        temporary = f"{args.out}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, args.out)
    except OSError as error:
        sys.exit(f"mkinitrd: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
