#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check that the house keeps its plan: who may include whom, and a few habits a compiler does not see.

usage: check-arrows.py [--root DIR]

For every source file under src/:
- an #include "..." is written relative to src/ and stays within what ROOMS allows its room;
- no headers include each other in a circle;
- a header compiles alone;
- only app/ ends the process, only app/ and the log print to the terminal;
- no file is longer than LONGEST lines, but for those in LONG_FILES.

Prints one line a finding, `file:line: what`, and fails when there is one.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
from pathlib import Path

# Room -> the rooms it may include besides itself, as docs/ARCHITECTURE.md draws the arrows:
#   app -> control -> machine -> (cpu, dev) -> exit/bus -> mem -> base
# A file lives in the longest room that begins its path, so cpu/state/ is a room within cpu/.
# A name that ends in .h opens one header of a room instead of all of it.
ROOMS = {
    "base": [],
    "mem": ["base"],
    "state": ["base"],
    "exit": ["base"],
    "bus": ["base", "mem", "exit", "state"],
    "cpu/state": ["base", "exit", "state"],
    "mmu": ["base", "mem", "cpu/state"],
    "cpu": ["base", "mem", "mmu", "exit", "cpu/state"],
    "disk": ["base"],
    "net": ["base"],
    "dev": ["base", "mem", "bus", "state", "disk/disk.h", "net/netport.h", "net/frame.h"],
    "machine": [
        "base", "mem", "state", "exit", "bus", "mmu", "cpu", "cpu/state", "dev", "disk", "net",
    ],
    "control": [
        "base", "mem", "state", "exit", "bus", "mmu", "cpu", "cpu/state", "dev/dev.h", "disk", "net",
        "machine",
    ],
    "app": [
        "base", "mem", "state", "exit", "cpu", "cpu/state", "disk", "net", "machine", "control",
    ],
}  # fmt: skip

# Rooms whose business it is to end the process, and to talk to the terminal.
MAY_EXIT = {"app"}
MAY_PRINT = {"app"}
MAY_PRINT_FILES = {"base/log.c"}

LONGEST = 1200
# Path under src/ -> why it is longer: usually a table.
LONG_FILES = {}

SUFFIXES = {".c", ".h", ".S", ".inc"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
# Not a member (`->exit(`, `.exit(`) and not part of a longer name (`vcpu_exit(`).
ENDS = re.compile(r"(?<![\w.>])(_?exit|_Exit|quick_exit|abort)\s*\(")
PRINTS = re.compile(r"(?<![\w.>])(v?printf|puts|putchar|perror)\s*\(|\bf\w+\s*\(.*\b(stdout|stderr)\b")
COMMENT_OR_LITERAL = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL
)


def strip(text):
    """The text without comments and the insides of literals, line numbers kept."""

    def blank(match):
        found = match.group()
        if found[0] in "\"'":
            return found[0] * 2
        return "\n" * found.count("\n") or " "

    return COMMENT_OR_LITERAL.sub(blank, text)


def strip_comments(text):
    """The text without comments, literals kept: #include needs its name."""

    def blank(match):
        found = match.group()
        if found[0] in "\"'":
            return found
        return "\n" * found.count("\n") or " "

    return COMMENT_OR_LITERAL.sub(blank, text)


def room_of(path):
    """'cpu/state/cpu_state.h' -> 'cpu/state'; None for a path in no room of the table."""
    rooms = [room for room in ROOMS if path.startswith(room + "/")]
    return max(rooms, key=len, default=None)


def may_include(room, target):
    return room_of(target) in [room, *ROOMS[room]] or target in ROOMS[room]


class Tree:
    """The files under src/ and what is wrong with them."""

    def __init__(self, root):
        self.src = Path(root) / "src"
        self.files = {
            path.relative_to(self.src).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(self.src.rglob("*"))
            if path.suffix in SUFFIXES and path.is_file()
        }
        self.includes = {path: self.includes_of(text) for path, text in self.files.items()}
        self.findings = []

    @staticmethod
    def includes_of(text):
        """Triples of line number, opening mark and name."""
        found = []
        for number, line in enumerate(strip_comments(text).split("\n"), 1):
            match = INCLUDE.match(line)
            if match:
                found.append((number, *match.groups()))
        return found

    def is_generated(self, name):
        """Made by the build: an ACPI table, compiled from the .asl beside where the .hex would be."""
        return name.endswith(".hex") and (self.src / name).with_suffix(".asl").is_file()

    def find(self, path, line, what):
        self.findings.append(f"src/{path}:{line}: {what}")

    def check_arrows(self):
        for path, includes in self.includes.items():
            room = room_of(path)
            if room is None:
                self.find(path, 1, "is in no room of the table ROOMS in tools/check-arrows.py")
                continue
            for line, mark, name in includes:
                if mark == "<":
                    if name in self.files:
                        self.find(path, line, f'write "{name}": <> is for headers that are not ours')
                elif name not in self.files and not self.is_generated(name):
                    self.find(path, line, f"no src/{name}: includes are written relative to src/")
                elif not may_include(room, name):
                    allowed = ", ".join(ROOMS[room]) or "nothing else"
                    self.find(path, line, f"{room}/ may not include {name} (it may include: {allowed})")

    def check_circles(self):
        """Depth first; a header met again on the way down closes a circle."""
        done = set()

        def visit(path, way):
            if path in way:
                circle = " -> ".join([*way[way.index(path) :], path])
                self.find(path, 1, f"headers include each other in a circle: {circle}")
                return
            if path in done:
                return
            for _, _, name in self.includes[path]:
                if name in self.files:
                    visit(name, [*way, path])
            done.add(path)

        for path in self.files:
            visit(path, [])

    def check_habits(self):
        for path, text in self.files.items():
            room = room_of(path)
            lines = strip(text).split("\n")
            for number, line in enumerate(lines, 1):
                match = ENDS.search(line)
                if match and room not in MAY_EXIT:
                    self.find(path, number, f"{match[1]}(): only app/ ends the process; return -errno")
                if PRINTS.search(line) and room not in MAY_PRINT and path not in MAY_PRINT_FILES:
                    self.find(path, number, "only app/ prints to the terminal; use base/log.h")
            count = text.count("\n")
            if count > LONGEST and path not in LONG_FILES:
                self.find(path, count, f"is longer than {LONGEST} lines: it holds more than one idea")

    def check_headers(self):
        """Each header is the only one of an empty file."""
        headers = [path for path in self.files if path.endswith(".h")]

        def compile_alone(path):
            command = [os.environ.get("CC", "gcc"), "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
            command += ["-Werror", "-Wno-missing-field-initializers", "-fsyntax-only"]
            command += ["-I", str(self.src), "-include", path, "-x", "c", "/dev/null"]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
            for path, result in zip(headers, pool.map(compile_alone, headers)):
                if result.returncode != 0:
                    first = next(
                        (line for line in result.stderr.splitlines() if "error:" in line),
                        result.stderr.strip(),
                    )
                    self.find(path, 1, f"does not compile alone: {first}")


def table_is_sound():
    """The arrows themselves point one way: no room reaches itself."""

    def reaches(room, goal, seen):
        for entry in ROOMS[room]:
            other = room_of(entry) if entry.endswith(".h") else entry
            if other == goal:
                return True
            if other not in seen:
                seen.add(other)
                if reaches(other, goal, seen):
                    return True
        return False

    return [room for room in ROOMS if reaches(room, room, set())]


def main():
    parser = argparse.ArgumentParser(description="Check who includes whom in src/.")
    parser.add_argument("--root", default=Path(__file__).parent.parent, help="top of the tree")
    args = parser.parse_args()

    circles = table_is_sound()
    if circles:
        sys.exit(f"arrows: ROOMS has a circle through {', '.join(circles)}")
    tree = Tree(args.root)
    if not tree.files:
        sys.exit(f"arrows: no source file under {tree.src}")
    tree.check_arrows()
    tree.check_circles()
    tree.check_habits()
    tree.check_headers()
    for finding in tree.findings:
        print(finding)
    if tree.findings:
        sys.exit(f"arrows: {len(tree.findings)} findings")
    print(f"arrows: {len(tree.files)} files, all well")


if __name__ == "__main__":
    main()
