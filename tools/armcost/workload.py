"""The programs that are measured, and what a phase of them costs on each core."""

import collections
import functools
import re

import emulator
import random_gguf
import counts

# Layers of SmolVLM-256M.
VISION_LAYERS, DECODER_LAYERS = 12, 30
PREFILL = 84
# Cost is linear in the layers, so two depths give the layer and what stands around it.
DEPTHS = (1, 2)
LLAMA_DEPTHS = (1, 2)


class Workload:
    """Runs programs once each and remembers what they cost."""

    def __init__(self, machine, cycles):
        self.machine = machine
        self.cycles = cycles

    @functools.cached_property
    def probe(self):
        return self.machine.build("ocelli-armcost-probe") / "ocelli-armcost-probe"

    @functools.cached_property
    def ocelli(self):
        return self.machine.build("ocelli-agent") / "ocelli"

    def cost(self, cpu, phase):
        """Instructions and cycles a core of one phase."""
        regions = counts.regions(phase)
        cycles = {core: self.cycles.cycles(core, regions)[0] for core in emulator.RUNS[cpu]}
        self.cycles.save()
        return {"instructions": phase.instructions, "cycles": cycles}

    def functions(self, cpu, phase, symbols):
        """Cycles of each function on each core; what was not modelled is spread evenly."""
        found, regions = {}, counts.regions(phase)
        for core in emulator.RUNS[cpu]:
            total, each = self.cycles.cycles(core, regions)
            functions = collections.Counter()
            for region, cycles in each:
                functions[short(symbols.name(region.address))] += cycles
            scale = total / max(sum(functions.values()), 1)
            found[core] = {name: cycles * scale for name, cycles in functions.items()}
        return found

    def kernels(self, cpu):
        """Cost of every kernel, by name."""
        names = emulator.output(["qemu-aarch64", "-cpu", cpu, str(self.probe)])
        found = {}
        for name, macs in (line.split() for line in names.splitlines()):
            phases, _, kernel = self.machine.run(cpu, self.probe, name)
            if emulator.KERNELS[cpu] not in kernel:
                raise emulator.Failure(f"{cpu} chose kernel {kernel.strip()}")
            found[name] = dict(self.cost(cpu, phases["1"]), macs=int(macs))
        return found

    def text(self, cpu, depth):
        """Prefill and one decode step of the whole program at this decoder depth."""
        pack = self.machine.pack(self.ocelli, 1, depth)
        args = ["bench", "-m", pack.name, "--threads", 1, "--quiet", "--once", "text"]
        args += ["--prefill", PREFILL, "--decode", 2]
        phases, symbols, _ = self.machine.run(cpu, self.ocelli, *args)
        prefill, step = self.cost(cpu, phases["1"]), self.cost(cpu, phases["3"])
        # The second step: the first one may size scratch.
        entries = symbols.addresses(emulator.ALLOCATIONS)
        if not entries:
            raise emulator.Failure(f"{self.ocelli} has no allocation functions among its symbols")
        step["allocations"] = sum(phases["3"].entries[address] for address in entries)
        step["functions"] = self.functions(cpu, phases["3"], symbols)
        prefill["functions"] = self.functions(cpu, phases["1"], symbols)
        return prefill, step

    def tile(self, cpu, depth):
        """One image tile of the whole program at this vision depth."""
        pack = self.machine.pack(self.ocelli, depth, 1)
        args = ["bench", "-m", pack.name, "--threads", 1, "--quiet", "--once", "tile"]
        phases, symbols, _ = self.machine.run(cpu, self.ocelli, *args)
        cost = self.cost(cpu, phases["1"])
        cost["functions"] = self.functions(cpu, phases["1"], symbols)
        return cost

    def llama(self, cpu, depth):
        """Prefill and one decode step of llama.cpp at this depth, Q8_0."""
        libraries, driver = self.machine.llama()
        path = self.machine.work / f"llama-{depth}.gguf"
        if not path.exists():
            random_gguf.write(path, depth)
        names = sorted(file.name for file in libraries.glob("*.so"))
        versioned = [next(n for n in names if n.startswith(stem)) for stem in ("libggml.v", "libllama.v")]
        phases, _, _ = self.machine.run(
            cpu, driver, libraries, *versioned, emulator.LLAMA_BACKENDS[cpu], path.name, 1, 1, PREFILL, 1,
            library_root="/usr/aarch64-linux-gnu",
        )  # fmt: skip
        return [self.cost(cpu, phases[name]) for name in ("1", "2")]


def layered(at_one, at_two, layers):
    """Cost at `layers` layers, and of one layer, from the costs at one and two."""
    layer = combine(at_one, at_two, lambda one, two: two - one)
    return combine(at_one, layer, lambda one, more: one + (layers - 1) * more), layer


def combine(a, b, of):
    return {
        "instructions": of(a["instructions"], b["instructions"]),
        "cycles": {core: of(a["cycles"][core], b["cycles"][core]) for core in a["cycles"]},
    }


def layered_functions(at_one, at_two, layers):
    """Cycles of each function at `layers` layers, from those at one and two, core by core."""
    whole = {}
    for core, one in at_one.items():
        two = at_two[core]
        names = one.keys() | two.keys()
        whole[core] = {n: one.get(n, 0) + (layers - 1) * (two.get(n, 0) - one.get(n, 0)) for n in names}
    return whole


def short(name):
    """A function's name without hash and escapes, cut to what a table can hold."""
    name = re.sub(r"::h[0-9a-f]{16}\b.*|@@.*| \(\..*", "", name)
    for escape, text in (("_$LT$", "<"), ("$LT$", "<"), ("$GT$", ">"), ("$u20$", " "), ("_$u7b$$u7b$", "{{"),
                         ("$u7b$$u7b$", "{{"), ("$u7d$$u7d$", "}}"), ("..", "::")):  # fmt: skip
        name = name.replace(escape, text)
    return name.replace("ocelli_kernels::", "")[:70]
