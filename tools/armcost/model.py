"""Cycles of a phase on a core: the steady state of each region, times how often it ran. llvm-mca
gives it, for the A53 in_order.py."""

import hashlib
import json
import pathlib
import re
import subprocess

import in_order

LLVM = "22"
FEATURES = "+v8.2a,+dotprod,+fullfp16"
# Part of all instructions that is modelled; the rest is scaled up.
COVERAGE = 0.998
ITERATIONS = 60

# LLVM's model of each core; in_order.py takes its place for the A53. cortex-a76 and cortex-a78
# exist as names in LLVM but stand for the A57's model, so their nearest relatives with a model of
# their own are taken.
CORES = {
    "A53": None,
    "A72": "cortex-a57",
    "A76": "neoverse-n1",
    "A78": "neoverse-n2",
}
# Densest int8 multiply-accumulate a cycle and core.
PEAK = {"A53": 5.33, "A72": 8, "A76": 32, "A78": 32}


class ToolMissing(Exception):
    pass


def version():
    text = run([f"llvm-mca-{LLVM}", "--version"], None)
    return re.search(r"version (\S+)", text).group(1)


def run(command, text):
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ToolMissing(command[0]) from None
    if not done.stdout:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[:500]}")
    return done.stdout


def disassemble(words):
    """Assembly text of instruction words, one line each."""
    lines = [" ".join(f"0x{word >> shift & 255:02x}" for shift in (0, 8, 16, 24)) for word in words]
    text = run(
        [f"llvm-mc-{LLVM}", "-disassemble", "-triple=aarch64", f"-mattr={FEATURES}"], "\n".join(lines)
    )
    assembly = [line.strip() for line in text.splitlines()]
    assembly = [line for line in assembly if line and not line.startswith(".")]
    if len(assembly) != len(words):
        raise RuntimeError(f"{len(words)} instructions gave {len(assembly)} lines of assembly")
    return assembly


class Model:
    """Cycles an iteration of regions, remembered in a file between runs."""

    def __init__(self, cache_path):
        self.path = cache_path
        self.version = version()
        self.in_order = hashlib.sha256(pathlib.Path(in_order.__file__).read_bytes()).hexdigest()[:16]
        try:
            with open(cache_path) as file:
                self.cache = json.load(file)
        except (FileNotFoundError, json.JSONDecodeError):
            self.cache = {}

    def save(self):
        with open(self.path, "w") as file:
            json.dump(self.cache, file)

    def key(self, core, region):
        code = "".join(f"{word:08x}" for word in region.words)
        digest = hashlib.sha256(code.encode()).hexdigest()[:32]
        # What gives the cycles is part of the key: what an older one gave does not count.
        model = f"{self.version} {ITERATIONS}" if CORES[core] else f"in order {self.in_order}"
        return f"{model} {core} {digest}"

    def iteration(self, core, regions):
        """Cycles one run of each region takes on a core."""
        missing = [r for r in regions if self.key(core, r) not in self.cache]
        if missing:
            self.ask(core, missing)
        return [self.cache[self.key(core, region)] for region in regions]

    def ask(self, core, regions):
        assembly = disassemble([word for region in regions for word in region.words])
        bodies, at = [], 0
        for region in regions:
            bodies.append(assembly[at : at + len(region.words)])
            at += len(region.words)
        steady = self.steady_states(core, bodies) if CORES[core] else map(in_order.iteration, bodies)
        for region, value in zip(regions, steady):
            self.cache[self.key(core, region)] = round(value, 4)

    def steady_states(self, core, bodies):
        """llvm-mca's cycles an iteration of each body."""
        text = "".join(
            f"# LLVM-MCA-BEGIN r{i}\n" + "\n".join(body) + f"\n# LLVM-MCA-END r{i}\n"
            for i, body in enumerate(bodies)
        )
        answer = run(
            [
                f"llvm-mca-{LLVM}",
                "-mtriple=aarch64",
                f"-mcpu={CORES[core]}",
                f"-mattr={FEATURES}",
                f"-iterations={ITERATIONS}",
                "-json",
                "-skip-unsupported-instructions=any",
                "-all-views=false",
                "-summary-view",
            ],
            text,
        )
        # Regions of nothing but skipped instructions are not listed.
        cycles = {
            int(region["Name"][1:]): region["SummaryView"]["TotalCycles"] / ITERATIONS
            for region in json.loads(answer)["CodeRegions"]
        }
        return [cycles.get(i, len(body)) for i, body in enumerate(bodies)]

    def cycles(self, core, regions):
        """(cycles of all regions, cycles of each that was modelled)."""
        total = sum(region.instructions for region in regions)
        chosen, covered = [], 0
        for region in sorted(regions, key=lambda r: (-r.instructions, r.address)):
            if covered >= COVERAGE * total:
                break
            chosen.append(region)
            covered += region.instructions
        each = [r.runs * c for r, c in zip(chosen, self.iteration(core, chosen))]
        return sum(each) * total / max(covered, 1), list(zip(chosen, each))
