# SPDX-License-Identifier: Apache-2.0
"""The results as a bar chart (SVG): how many times slower than native, on a logarithmic scale."""

import math
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 860, 150, 60
ROW, BAR, TOP = 26, 9, 86
CATEGORIES = {"integer": "Integer", "float": "Floating point", "simd": "SIMD and hashes", "memory": "Memory",
              "system": "System calls and processes", "start": "Starts of programs", "jvm": "JVM",
              "smp": "Two CPUs (elapsed)"}

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 16px; font-weight: 600; }
  .note, .tick { fill: #57606a; font-size: 11px; }
  .head { font-weight: 600; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .one { stroke: #57606a; stroke-width: 1.5; }
  .tcg { fill: #b0793a; }
  .hanok { fill: #2563b8; }
  .back { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note, .tick { fill: #9198a1; }
    .grid { stroke: #30363d; }
    .one { stroke: #9198a1; }
    .tcg { fill: #d29a55; }
    .hanok { fill: #6cb0ff; }
    .back { fill: #0d1117; }
  }
"""


def ticks(limit):
    """1, 2, 5, 10, ... up to the first that is not below limit."""
    values, unit = [], 1
    while True:
        for step in (1, 2, 5):
            values.append(step * unit)
            if step * unit >= limit:
                return values
        unit *= 10


class Chart:
    def __init__(self, results):
        self.results = results
        self.rows = [e for e in results["workloads"] if e["hanok_over_native"] or e["tcg_over_native"]]
        largest = max([v for e in self.rows for v in (e["hanok_over_native"], e["tcg_over_native"]) if v], default=1)
        self.ticks = ticks(largest)
        # Some workloads can be a little faster than native: the axis begins below 1.
        self.low = 0.7
        self.scale = (WIDTH - LEFT - RIGHT) / math.log(max(self.ticks[-1], 2) / self.low)
        self.parts = []
        self.y = TOP

    def x(self, value):
        return LEFT + math.log(max(value, self.low) / self.low) * self.scale

    def text(self, x, y, text, kind="", anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def bar(self, y, value, kind):
        if not value:
            return
        self.parts.append(f'<rect x="{LEFT}" y="{y:.1f}" width="{max(self.x(value) - LEFT, 1):.1f}" height="{BAR}" '
                          f'rx="1.5" class="{kind}"/>')
        self.text(self.x(value) + 5, y + BAR - 0.5, f"{value:.1f}", "tick")

    def row(self, entry):
        self.text(LEFT - 8, self.y + BAR + 4, entry["name"], "", "end")
        self.bar(self.y, entry["tcg_over_native"], "tcg")
        self.bar(self.y + BAR + 1, entry["hanok_over_native"], "hanok")
        self.y += ROW

    def rows_by_category(self):
        for category, label in CATEGORIES.items():
            members = [e for e in self.rows if e["category"] == category]
            if not members:
                continue
            self.y += 8
            self.text(LEFT - 8, self.y + 10, label, "head", "end")
            self.y += 18
            for entry in members:
                self.row(entry)

    def grid(self, bottom):
        lines = []
        for tick in self.ticks:
            kind = "one" if tick == 1 else "grid"
            x = self.x(tick)
            lines.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom:.1f}" class="{kind}"/>')
            lines.append(f'<text x="{x:.1f}" y="{TOP - 12}" class="tick" text-anchor="middle">{tick}×</text>')
        return lines

    def head(self):
        about, means = self.results["about"], self.results["geomeans"]["all"]
        self.text(16, 24, "Times native: how much longer the same programs take", "title")
        shown = [f"{label} {means[key]:.1f}×" for label, key in
                 (("TCG", "tcg_over_native"), ("Hanok", "hanok_over_native")) if means[key]]
        note = f"{about['size']} sizes, medians of {about['rounds']}; {about['date']}"
        self.text(16, 42, f"{note}; geometric mean without two CPUs: {', '.join(shown)}", "note")
        for x, kind, label in ((WIDTH - 210, "tcg", "QEMU TCG"), (WIDTH - 110, "hanok", "Hanok")):
            self.parts.append(f'<rect x="{x}" y="15" width="12" height="10" rx="1.5" class="{kind}"/>')
            self.text(x + 17, 24, label)

    def draw(self):
        self.head()
        self.rows_by_category()
        height = self.y + 16
        body = "\n".join(self.grid(self.y) + self.parts)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
                f'height="{height:.0f}" role="img" aria-label="Hanok and QEMU TCG against native">\n'
                f'<style>{STYLE}</style>\n<rect width="100%" height="100%" class="back"/>\n{body}\n</svg>\n')


def draw(results):
    return Chart(results).draw()
