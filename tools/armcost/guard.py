"""Compares deterministic costs with baseline.json."""

import json
import pathlib

import emulator

BASELINE = pathlib.Path(__file__).resolve().parent / "baseline.json"
# Growth beyond this part fails.
TOLERANCE = 0.03
DEPTH = 1


def figures(load):
    """Every guarded figure by name. Smaller is better for each of them."""
    found = {}

    def add(name, cost):
        found[f"{name} instructions"] = cost["instructions"]
        for core, cycles in cost["cycles"].items():
            found[f"{name} cycles {core}"] = round(cycles)

    for cpu in emulator.RUNS:
        for kernel, cost in load.kernels(cpu).items():
            add(f"{cpu} {kernel}", cost)
        prefill, step = load.text(cpu, DEPTH)
        add(f"{cpu} prefill, {DEPTH} layer", prefill)
        add(f"{cpu} decode step, {DEPTH} layer", step)
        found[f"{cpu} decode step allocations"] = step["allocations"]
    return found


def versions(load):
    return {
        "rustc": emulator.output(["rustc", "--version"]).split()[1],
        "llvm-mca": load.cycles.version,
        "qemu": emulator.check_qemu(),
    }


def differences(baseline, found):
    """(grown, shrunk, missing, new): the first two as (name, before, now)."""
    grown, shrunk = [], []
    for name in sorted(baseline.keys() & found.keys()):
        before, now = baseline[name], found[name]
        if now > before * (1 + TOLERANCE):
            grown.append((name, before, now))
        elif now < before * (1 - TOLERANCE):
            shrunk.append((name, before, now))
    return grown, shrunk, sorted(baseline.keys() - found.keys()), sorted(found.keys() - baseline.keys())


def lines(rows):
    for name, before, now in rows:
        change = f"{100 * (now / before - 1):+.1f} %" if before else "from nothing"
        yield f"  {name}: {before} -> {now} ({change})"


def run(load, accept):
    """Exit code of the guard."""
    found, used = figures(load), versions(load)
    if accept:
        text = json.dumps({"versions": used, "figures": found}, indent=1, sort_keys=True)
        BASELINE.write_text(text + "\n")
        print(f"{len(found)} figures written to {BASELINE.name}; say why in docs/performance.md")
        return 0
    try:
        with open(BASELINE) as file:
            stored = json.load(file)
    except FileNotFoundError:
        raise emulator.Failure(f"{BASELINE} is missing; tools/armcost/armcost guard --accept writes it") from None
    grown, shrunk, missing, new = differences(stored["figures"], found)
    for title, rows in (("cheaper than the baseline:", shrunk), ("dearer than the baseline:", grown)):
        if rows:
            print(title)
            print("\n".join(lines(rows)))
    for title, names in (("no longer measured:", missing), ("not in the baseline, so not compared:", new)):
        if names:
            print(title, ", ".join(names))
    if used != stored["versions"]:
        print(f"the baseline was made with {stored['versions']}, this is {used}")
    if grown or missing:
        print(
            f"{len(grown)} of {len(found)} figures grew by more than {TOLERANCE:.0%}, {len(missing)} are gone. If that is right, say in a line of\n"
            "\"What was tried\" in docs/performance.md what it buys, run tools/armcost/armcost guard --accept,\n"
            "and commit both."
        )
        return 1
    print(f"{len(found) - len(new)} figures within {TOLERANCE:.0%} of the baseline")
    return 0
