# SPDX-License-Identifier: Apache-2.0
"""What the pages say about the code is so: names exist, tables agree, the two READMEs are one."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SRC = TOP / "src"
ARCHITECTURE = TOP / "docs" / "ARCHITECTURE.md"
READMES = [TOP / "README.md", TOP / "README.ko.md"]
PAGES = sorted([*TOP.glob("*.md"), *(TOP / "docs").glob("*.md")])

FUNCTION = re.compile(r"`(\w+)\(\)`")
FILE = re.compile(r"`([\w./-]+\.(?:c|h|py|sh|asl|md))`")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def defined_in(text, header):
    """The functions a file defines: names before a parenthesis on lines that begin in the first column."""
    begins = r"^static inline [^;={}]*?" if header else r"^(?!#|extern|typedef)[a-zA-Z_][^;={}()]*?"
    return set(re.findall(begins + r"\b(\w+)\(", text, re.MULTILINE))


def definitions():
    return {
        path.relative_to(SRC).as_posix(): defined_in(path.read_text(encoding="utf-8"), path.suffix == ".h")
        for path in SRC.rglob("*.[ch]")
    }


def rooms():
    """ROOMS of tools/check-arrows.py."""
    spec = importlib.util.spec_from_file_location("check_arrows", TOP / "tools" / "check-arrows.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ROOMS


def is_planned(name):
    """A header that the plan opens to others, of a room that nobody has built yet."""
    return not (SRC / name).parent.exists() and any(name in others for others in rooms().values())


def rows(text):
    """The cells of each table row, headings and rules left out."""
    lines = FENCE.sub("", text).split("\n")
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith("|") and not line.startswith("|---") and not following.startswith("|---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def problems(text, defined):
    """What an architecture page says that is not so."""
    everywhere = set().union(*defined.values())
    found = [f"no function {name}()" for name in FUNCTION.findall(text) if name not in everywhere]
    found += [
        f"no file {name}"
        for name in FILE.findall(text)
        if not (SRC / name).is_file() and not (TOP / name).is_file() and not is_planned(name)
    ]
    for cells in rows(text):
        file = re.fullmatch(r"`([\w./]+\.[ch])`", cells[0])
        if not file or len(cells) < 3:
            continue
        for name in FUNCTION.findall(cells[1]):
            if name not in defined.get(file[1], ()):
                found.append(f"{name}() is not in {file[1]}")
    return found


def test_names():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    assert len(FUNCTION.findall(text)) > 50
    assert problems(text, definitions()) == []


@pytest.mark.parametrize(
    "text, problem",
    [
        ("`bus_acces()`", "no function bus_acces()"),
        ("see `bus/buss.c`", "no file bus/buss.c"),
        ("| `mem/mem.c` | `bus_access()` | x |", "bus_access() is not in mem/mem.c"),
    ],
)
def test_wrong_names_are_found(text, problem):
    assert problems(text, definitions()) == [problem]


def test_diagrams():
    """Calls drawn in diagrams, `name()`, exist too."""
    everywhere = set().union(*definitions().values())
    for block in FENCE.findall(ARCHITECTURE.read_text(encoding="utf-8")):
        for name in re.findall(r"\b([a-z]\w+)\(\)", block):
            assert name in everywhere, f"{name}() in a diagram"


def test_rooms():
    """The table of rooms is the one that tools/check-arrows.py enforces."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    section = text[text.index("\n## Rooms") : text.index("Within `cpu`")]
    table = {cells[0].strip("`"): re.findall(r"`([\w./]+)`", cells[2]) for cells in rows(section)}
    assert table == {room: list(others) for room, others in rooms().items()}


def outline(path):
    """What must be equal between translations: sections, tables, their rows, and code as it is written."""
    text = path.read_text(encoding="utf-8")
    prose = FENCE.sub("", text)
    tables = re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE)
    return {
        "sections": [len(marks) for marks in re.findall(r"^(#+) ", prose, re.MULTILINE)],
        "tables": [[row.count("|") for row in table.splitlines()] for table in tables],
        "blocks": [block.count("\n") for block in FENCE.findall(text)],
        "items": len(re.findall(r"^(?:- |\d+\. )", prose, re.MULTILINE)),
        "options": sorted(set(re.findall(r"`(--[a-z-]+)", prose))),
        "links": sorted(link for link in re.findall(r"\]\(([^)]+)\)", prose) if not link.startswith("README")),
        "numbers": sorted(re.findall(r"\d+\.\d+", prose)),
    }


def test_readmes_are_one():
    assert outline(READMES[0]) == outline(READMES[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    """Links to files of the tree lead somewhere."""
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_options(hanok):
    """Every option the README shows for `hanok` is in its help."""
    shown = subprocess.run([hanok, "run", "--help"], capture_output=True, text=True, check=True).stdout
    for name in outline(READMES[0])["options"]:
        assert name in shown, name
