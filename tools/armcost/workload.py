"""The programs that are measured, and what a phase of them costs on each core."""

import collections
import functools

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

    def hottest(self, cpu, core, phase, symbols, count):
        """(share, function) of the functions that take most cycles."""
        total, each = self.cycles.cycles(core, counts.regions(phase))
        functions = collections.Counter()
        for region, cycles in each:
            functions[symbols.name(region.address)] += cycles
        return [(cycles / total, name) for name, cycles in functions.most_common(count)]

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
        core = emulator.RUNS[cpu][-1]
        step["hottest"] = self.hottest(cpu, core, phases["3"], symbols, 8)
        prefill["hottest"] = self.hottest(cpu, core, phases["1"], symbols, 8)
        return prefill, step

    def lines(self, cpu, depth):
        """Bytes of different cache lines that one decode step reads."""
        pack = self.machine.pack(self.ocelli, 1, depth)
        args = ["bench", "-m", pack.name, "--threads", 1, "--quiet", "--once", "text"]
        args += ["--prefill", 4, "--decode", 2]
        phases, _, _ = self.machine.run(cpu, self.ocelli, *args, lines=True)
        return 64 * phases["3"].lines

    def tile(self, cpu, depth):
        """One image tile of the whole program at this vision depth."""
        pack = self.machine.pack(self.ocelli, depth, 1)
        args = ["bench", "-m", pack.name, "--threads", 1, "--quiet", "--once", "tile"]
        phases, symbols, _ = self.machine.run(cpu, self.ocelli, *args)
        cost = self.cost(cpu, phases["1"])
        cost["hottest"] = self.hottest(cpu, emulator.RUNS[cpu][-1], phases["1"], symbols, 8)
        return cost

    def llama(self, cpu, depth):
        """Prefill and one decode step of llama.cpp at this depth, Q8_0."""
        libraries, driver = self.machine.llama()
        path = self.machine.work / f"llama-{depth}.gguf"
        if not path.exists():
            random_gguf.write(path, depth)
        names = sorted(file.name for file in libraries.glob("*.so"))
        versioned = [next(n for n in names if n.startswith(stem)) for stem in ("libggml.v", "libllama.v")]
        phases, symbols, _ = self.machine.run(
            cpu, driver, libraries, *versioned, emulator.LLAMA_BACKENDS[cpu], path.name, 1, 1, PREFILL, 1,
            library_root="/usr/aarch64-linux-gnu",
        )  # fmt: skip
        core = emulator.RUNS[cpu][-1]
        costs = []
        for name in ("1", "2"):
            cost = self.cost(cpu, phases[name])
            cost["hottest"] = self.hottest(cpu, core, phases[name], symbols, 5)
            costs.append(cost)
        return costs


def layered(at_one, at_two, layers):
    """Cost at `layers` layers, and of one layer, from the costs at one and two."""
    layer = combine(at_one, at_two, lambda one, two: two - one)
    return combine(at_one, layer, lambda one, more: one + (layers - 1) * more), layer


def combine(a, b, of):
    return {
        "instructions": of(a["instructions"], b["instructions"]),
        "cycles": {core: of(a["cycles"][core], b["cycles"][core]) for core in a["cycles"]},
    }
