# SPDX-License-Identifier: Apache-2.0
"""From samples to medians, ratios, the table and the targets."""

import math
import statistics

import disks
import network
import workloads

# docs/BENCHMARKS.md explains them.
INTEGER_TARGET = ["shell", "gzip", "xz", "sqlite", "python", "gcc"]
VECTOR_TARGET = ["nbody", "matmul", "aes", "sha256", "openssl-sha256"]
SYSTEM_TARGET = ["exec", "pipe", "switch"]


def median(samples, key):
    values = [s[key] for s in samples if "error" not in s and key in s]
    return statistics.median(values) if values else None


def ratio(a, b):
    return a / b if a is not None and b else None


def geomean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def summarize_workload(w, by_environment):
    """One workload's medians, ratios and problems."""
    entry = {"name": w.name, "group": w.group, "category": w.category, "about": w.about, "metric": w.metric,
             "seconds": {}, "samples": by_environment, "problems": []}
    outputs = {}
    for environment, samples in by_environment.items():
        entry["seconds"][environment] = median(samples, w.metric)
        for sample in samples:
            if "error" in sample:
                entry["problems"].append(f"{environment}: {sample['error']}")
            else:
                outputs.setdefault((sample["check"], sample["out"]), set()).add(environment)
    if len(outputs) > 1:
        shown = "; ".join(f"{'+'.join(sorted(names))}: {out}" for (_, out), names in outputs.items())
        entry["problems"].append(f"outputs differ: {shown}")
    s = entry["seconds"]
    entry["hanok_over_native"] = ratio(s.get("hanok"), s.get("native"))
    entry["tcg_over_native"] = ratio(s.get("tcg"), s.get("native"))
    entry["tcg_over_hanok"] = ratio(s.get("tcg"), s.get("hanok"))
    return entry


def summarize_boots(boots):
    found = {}
    for environment, samples in boots.items():
        idle = [s for s in samples if "idle" in s]
        found[environment] = {
            "wall": median(samples, "wall"), "cpu": median(samples, "cpu"), "idle": median(samples, "idle"),
            "memory": idle[-1]["memory"] if idle else None,
            "problems": [s["error"] for s in samples if "error" in s], "samples": samples,
        }
    return found


def summarize(about, record):
    """Everything that goes into the JSON file."""
    entries = [summarize_workload(w, record.samples[w.name]) for w in workloads.WORKLOADS
               if w.name in record.samples]
    single = [e for e in entries if e["category"] != "smp"]
    means = {"all": means_of(single)}
    for category in dict.fromkeys(e["category"] for e in single):
        means[category] = means_of([e for e in single if e["category"] == category])
    results = {"format": 1, "about": about, "workloads": entries, "geomeans": means,
               "boot": summarize_boots(record.boots), "memory": record.memory}
    if record.disks:
        results["disks"] = record.disks
    if record.network:
        results["network"] = record.network
    results["targets"] = targets(results)
    return results


def means_of(entries):
    return {key: geomean([e[key] for e in entries])
            for key in ("hanok_over_native", "tcg_over_native", "tcg_over_hanok")}


def failures(results):
    """One line for each problem."""
    lines = [f"{e['name']}: {text}" for e in results["workloads"] for text in e["problems"]]
    lines += results.get("network", {}).get("problems", [])
    for environment, boot in results["boot"].items():
        lines += [f"boot: {environment}: {text}" for text in boot["problems"]]
    return lines


def target(what, value, limit, at_least, unit=""):
    """A row: reached is None where nothing was measured."""
    reached = None if value is None else value >= limit if at_least else value <= limit
    return {"what": what, "value": value, "limit": limit, "at_least": at_least, "unit": unit, "reached": reached}


def targets(results):
    by_name = {e["name"]: e for e in results["workloads"]}
    single = [e for e in results["workloads"] if e["category"] != "smp"]

    def pick(names, key):
        return [(by_name[n][key], n) for n in names if n in by_name and by_name[n][key] is not None]

    def worst(names, key, largest):
        found = pick(names, key)
        return (max(found) if largest else min(found)) if found else (None, "")

    rows = [target("geometric mean over TCG", results["geomeans"]["all"]["tcg_over_hanok"], 4, True, "x")]
    value, name = worst([e["name"] for e in single], "tcg_over_hanok", False)
    rows.append(target(f"slowest workload over TCG {of(name)}", value, 1.2, True, "x"))
    for names, label, limit in ((INTEGER_TARGET, "integer programs", 3.5),
                                (VECTOR_TARGET, "floating point and SIMD", 1.6)):
        value, name = worst(names, "hanok_over_native", True)
        rows.append(target(f"{label} over native {of(name)}", value, limit, False, "x"))
    value, name = worst(SYSTEM_TARGET, "tcg_over_hanok", False)
    rows.append(target(f"exec, pipe, switch over TCG {of(name)}", value, 6, True, "x"))
    return (rows + machine_targets(results, by_name) + disks.targets(results.get("disks"), target)
            + network.targets(results.get("network"), target))


def of(name):
    return f"(worst: {name})" if name else "(worst)"


def fastest(by_name, name, environment="hanok"):
    """Elapsed time, the best round: with two CPUs any other load on the host shows."""
    samples = by_name.get(name, {}).get("samples", {}).get(environment, [])
    values = [s["wall"] for s in samples if "error" not in s]
    return min(values) if values else None


def two_over_one(by_name, environment):
    one, two = fastest(by_name, "one-job", environment), fastest(by_name, "two-jobs", environment)
    return ratio(2 * one if one else None, two)


def machine_targets(results, by_name):
    boot = results["boot"]
    hanok, tcg = boot.get("hanok", {}), boot.get("tcg", {})
    own = two_over_one(by_name, "native")  # hardly more than one where the host's CPUs share a core
    host = f" (the host's own: {own:.2f}x)" if own else ""
    rows = [
        target("boot, elapsed, of TCG's", ratio(hanok.get("wall"), tcg.get("wall")), 1 / 3, False, "x"),
        target(f"two vCPUs' work over one's{host}", two_over_one(by_name, "hanok"), 1.8, True, "x"),
        target("make -j2, elapsed, of -j1's",
               ratio(fastest(by_name, "make-j2"), fastest(by_name, "make-j1")), 1, False, "x"),
        target("idle guest, of one core", percent(hanok.get("idle")), 2, False, " %"),
    ]
    sizes = [m["rest"] / 2**20 for m in results["memory"].get("hanok", {}).values()]
    if hanok.get("memory"):
        sizes.append(hanok["memory"]["rest"] / 2**20)
    rows.append(target("memory beyond the guest's and the code", max(sizes, default=None), 48, False, " MiB"))
    return rows


def percent(value):
    return None if value is None else value * 100


def number(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def table(results):
    """The whole report as text."""
    lines = [f"{'workload':16}{'native s':>10}{'TCG s':>10}{'Hanok s':>10}{'Hanok/native':>14}{'TCG/Hanok':>11}"]
    category = None
    for e in results["workloads"]:
        if e["category"] != category:
            category = e["category"]
        s = e["seconds"]
        mark = "  FAILED" if e["problems"] else ""
        lines.append(f"{e['name']:16}{number(s.get('native'), 3):>10}{number(s.get('tcg'), 3):>10}"
                     f"{number(s.get('hanok'), 3):>10}{number(e['hanok_over_native']):>14}"
                     f"{number(e['tcg_over_hanok']):>11}{mark}")
    boot = results["boot"]
    if boot:
        hanok, tcg = boot.get("hanok", {}), boot.get("tcg", {})
        lines.append(f"{'boot (elapsed)':16}{'':10}{number(tcg.get('wall'), 3):>10}"
                     f"{number(hanok.get('wall'), 3):>10}{'':14}"
                     f"{number(ratio(tcg.get('wall'), hanok.get('wall'))):>11}")
        lines.append(f"{'boot (processor)':16}{'':10}{number(tcg.get('cpu'), 3):>10}"
                     f"{number(hanok.get('cpu'), 3):>10}{'':14}"
                     f"{number(ratio(tcg.get('cpu'), hanok.get('cpu'))):>11}")
    if "disks" in results:
        lines += [""] + disks.lines(results["disks"])
    if "network" in results:
        lines += [""] + network.lines(results["network"])
    lines.append("")
    lines += mean_lines(results) + [""] + target_lines(results)
    problems = failures(results)
    if problems:
        lines += ["", "failed:"] + [f"  {line}" for line in problems]
    return "\n".join(lines)


def mean_lines(results):
    lines = [f"{'geometric mean':16}{'TCG/native':>20}{'Hanok/native':>24}{'TCG/Hanok':>11}"]
    for name, means in results["geomeans"].items():
        lines.append(f"{name:16}{number(means['tcg_over_native']):>20}{number(means['hanok_over_native']):>24}"
                     f"{number(means['tcg_over_hanok']):>11}")
    return lines


def target_lines(results):
    words = {True: "reached", False: "NOT reached", None: "not measured"}
    lines = ["targets"]
    for row in results["targets"]:
        bound = f"{'at least' if row['at_least'] else 'at most'} {row['limit']:.3g}{row['unit']}"
        value = "-" if row["value"] is None else f"{row['value']:.2f}{row['unit']}"
        lines.append(f"  {row['what']:46}{bound:>18}{value:>13}  {words[row['reached']]}")
    return lines
