# SPDX-License-Identifier: Apache-2.0
"""The tools in tools/ do what they are for; above all, the checks fail when they should."""

import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"

GUARD = "#ifndef GUARD_{0}\n#define GUARD_{0}\n{1}\n#endif\n"


def write_tree(root, files):
    for path, text in files.items():
        target = root / "src" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def check_arrows(root):
    return subprocess.run(
        [sys.executable, TOOLS / "check-arrows.py", "--root", root],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def house(tmp_path):
    """A small tree in which everything is as it should be."""
    write_tree(
        tmp_path,
        {
            "base/error.h": GUARD.format(1, "int fail(int code);"),
            "mem/mem.h": GUARD.format(2, '#include "base/error.h"'),
            "bus/bus.h": GUARD.format(3, '#include <stdint.h>\n#include "mem/mem.h"\nuint8_t in(void);'),
            "cpu/state/cpu_state.h": GUARD.format(4, '#include "base/error.h"'),
            "cpu/engine.h": GUARD.format(5, '#include "cpu/state/cpu_state.h"'),
            "mmu/walk.h": GUARD.format(6, '#include "cpu/state/cpu_state.h"'),
            "disk/disk.h": GUARD.format(7, '#include "base/error.h"'),
            "disk/vmdk/grain.h": GUARD.format(8, '#include "disk/disk.h"'),
            "dev/serial.c": '#include "bus/bus.h"\n#include "disk/disk.h"\nint vcpu_exit(int a);\n'
            "/* exit(1) and printf() are what app/ does */\n"
            'const char *text = "abort()";\n'
            "struct ops { int (*exit)(void); };\n"
            "int leave(struct ops *ops) { return ops->exit() + vcpu_exit(1); }\n",
            "machine/board.c": '#include "cpu/engine.h"\n#include "dev/serial.h"\n',
            "app/main.c": '#include "machine/board.h"\n#include <stdio.h>\n#include <stdlib.h>\n'
            'int main(void) { printf("hello"); exit(0); }\n',
            "dev/serial.h": GUARD.format(10, '#include "bus/bus.h"'),
            "machine/board.h": GUARD.format(9, '#include "cpu/engine.h"'),
        },
    )
    return tmp_path


def test_arrows_accept_a_good_tree(house):
    result = check_arrows(house)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "arrows: 13 files, all well\n"


# Each is one change to the good tree, and what must be said about it.
BAD = {
    "cpu-includes-bus": ("cpu/run.c", '#include "bus/bus.h"\n', "src/cpu/run.c:1: cpu/ may not include bus/bus.h"),
    "dev-includes-cpu": (
        "dev/apic.c",
        '\n#include "cpu/engine.h"\n',
        "src/dev/apic.c:2: dev/ may not include cpu/engine.h",
    ),
    "dev-includes-the-inside-of-disk": (
        "dev/scsi.c",
        '#include "disk/vmdk/grain.h"\n',
        "src/dev/scsi.c:1: dev/ may not include disk/vmdk/grain.h",
    ),
    "mmu-includes-engine": ("mmu/walk.c", '#include "cpu/engine.h"\n', "mmu/ may not include cpu/engine.h"),
    "disk-knows-guests": ("disk/raw.c", '#include "mem/mem.h"\n', "disk/ may not include mem/mem.h"),
    "base-includes-mem": ("base/log.c", '#include "mem/mem.h"\n', "base/ may not include mem/mem.h"),
    "app-knows-devices": (
        "app/list.c",
        '#include "dev/serial.h"\n',
        "src/app/list.c:1: app/ may not include dev/serial.h",
    ),
    "relative-name": ("mem/frame.c", '#include "mem.h"\n', "includes are written relative to src/"),
    "angle-brackets": ("mem/frame.c", "#include <mem/mem.h>\n", 'write "mem/mem.h"'),
    "unknown-room": ("attic/box.c", "int box;\n", "src/attic/box.c:1: is in no room"),
    "exit-below-app": ("mem/frame.c", "void f(void)\n{\n\texit(1);\n}\n", "src/mem/frame.c:3: exit()"),
    "abort-below-app": ("mem/frame.c", "void f(void) { abort(); }\n", "abort(): only app/"),
    "print-below-app": ("mem/frame.c", 'void f(void) { printf("x"); }\n', "only app/ prints"),
    "print-to-stderr": ("dev/x.c", 'void f(void) { fprintf(stderr, "x"); }\n', "only app/ prints"),
    "header-needs-another": (
        "base/clock.h",
        GUARD.format("clock", "uint64_t clock_ns(void);"),
        "src/base/clock.h:1: does not compile alone",
    ),
    "circle": (
        "base/error.h",
        GUARD.format("a", '#include "base/again.h"'),
        "in a circle: base/error.h -> base/again.h -> base/error.h",
    ),
    "long-file": ("mem/frame.c", "\n" * 1201, "is longer than 1200 lines"),
}


@pytest.mark.parametrize("name", BAD)
def test_arrows_refuse(house, name):
    path, text, message = BAD[name]
    write_tree(house, {path: text})
    if name == "circle":
        write_tree(house, {"base/again.h": GUARD.format("b", '#include "base/error.h"')})
    result = check_arrows(house)
    assert result.returncode == 1
    assert message in result.stdout


def test_arrows_refuse_an_empty_tree(tmp_path):
    result = check_arrows(tmp_path)
    assert result.returncode == 1
    assert "no source file" in result.stderr


def newc_entries(data):
    """Read a cpio newc archive back: name -> (mode, content, rdev). The test's own reader."""
    entries = {}
    offset = 0
    while True:
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        mode, size, rdev, name_size = fields[1], fields[6], (fields[9], fields[10]), fields[11]
        name = data[offset + 110 : offset + 110 + name_size - 1].decode()
        start = (offset + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, data[start : start + size], rdev)
        offset = (start + size + 3) & ~3


def make_initrd(tmp_path, *extra):
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF and more")
    out = tmp_path / "initrd"
    result = subprocess.run(
        [sys.executable, TOOLS / "mkinitrd.py", "--busybox", busybox, *extra, out],
        capture_output=True,
        text=True,
        check=False,
    )
    return result, out


def test_initrd_holds_what_a_guest_needs(tmp_path):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    result, out = make_initrd(
        tmp_path, "--init", TOOLS / "initrd/init", "--add", f"{tool}=/usr/lib/tool"
    )
    assert result.returncode == 0, result.stderr
    entries = newc_entries(out.read_bytes())
    assert entries["dev/console"] == (0o020600, b"", (5, 1))
    assert entries["bin/busybox"] == (0o100755, b"\x7fELF and more", (0, 0))
    assert entries["init"][1] == (TOOLS / "initrd/init").read_bytes()
    assert entries["usr/lib/tool"] == (0o100755, b"#!/bin/sh\n", (0, 0))
    names = list(entries)
    assert names.index("usr") < names.index("usr/lib") < names.index("usr/lib/tool")

    again, second = make_initrd(
        tmp_path, "--init", TOOLS / "initrd/init", "--add", f"{tool}=/usr/lib/tool"
    )
    assert again.returncode == 0
    assert second.read_bytes() == out.read_bytes()


def test_initrd_names_the_missing_file(tmp_path):
    result, out = make_initrd(tmp_path, "--init", tmp_path / "absent")
    assert result.returncode == 1
    assert "absent: No such file" in result.stderr
    assert not out.exists()


def module(**info):
    """A kernel module, as far as mkinitrd.py looks at it: its .modinfo strings."""
    strings = [f"{key}={value}".encode() for key, value in info.items()]
    return b"\x7fELF\0" + b"\0".join(strings) + b"\0"


def test_initrd_modules_come_after_what_they_need(tmp_path):
    folder = tmp_path / "6.1"
    for name, data in {
        "fs/ext4.ko": module(softdep="pre: crc32c", depends="jbd2,mbcache"),
        "fs/jbd2.ko": module(depends=""),
        "lib/mbcache.ko.xz": lzma.compress(module(depends="")),
        "crypto/crc32c_generic.ko": module(depends=""),
        "drivers/virtio-pci.ko": module(depends="virtio_ring"),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "modules.builtin").write_text("kernel/drivers/virtio/virtio_ring.ko\n")

    options = ["--init", TOOLS / "initrd/init", "--modules", folder]
    result, out = make_initrd(tmp_path, *options, "virtio_pci:legacy=1,debug=2,ext4,virtio-ring")
    assert result.returncode == 0, result.stderr
    entries = newc_entries(out.read_bytes())
    load = entries["lib/modules/load"][1].decode().splitlines()
    assert load == [
        "virtio_pci.ko legacy=1 debug=2", "jbd2.ko", "mbcache.ko", "crc32c_generic.ko", "ext4.ko"
    ]  # fmt: skip
    assert entries["lib/modules/mbcache.ko"][1] == module(depends="")

    result, out = make_initrd(tmp_path, *options, "ext5")
    assert result.returncode == 1
    assert "ext5: no such module" in result.stderr


def test_initrd_programs_bring_their_libraries(tmp_path):
    program = shutil.which("sleep")
    result, out = make_initrd(tmp_path, "--init", TOOLS / "initrd/init", "--program", program)
    assert result.returncode == 0, result.stderr
    entries = newc_entries(out.read_bytes())
    assert entries["bin/sleep"][1] == Path(program).read_bytes()
    assert any(name.endswith("/libc.so.6") for name in entries)
    assert any("ld-linux" in name for name in entries)


def test_scripts_are_clean():
    """shellcheck, where it is installed, has nothing to say about any script."""
    scripts = [*TOOLS.glob("*.sh"), TOOLS / "initrd/init", TOOLS.parent / ".ci/run"]
    try:
        result = subprocess.run(
            ["shellcheck", "-x", *scripts], capture_output=True, text=True, check=False, cwd=TOOLS.parent
        )
    except FileNotFoundError:
        pytest.skip("shellcheck is not installed: sudo apt-get install shellcheck")
    assert result.returncode == 0, result.stdout
