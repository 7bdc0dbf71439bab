"""The full report: kernels, layers, a tile, a prefill, a decode step, and the boards."""

import json
import pathlib

import emulator
import model
from workload import DECODER_LAYERS, DEPTHS, LLAMA_DEPTHS, PREFILL, VISION_LAYERS, layered, layered_functions

BOARDS = pathlib.Path(__file__).resolve().parent / "boards.json"
# Multiply-accumulates of SmolVLM-256M, from its shapes.
TILE_MACS = 107.36e9
VISION_LAYER_MACS = 8.859e9
PREFILL_MACS = 9.073e9
STEP_MACS = 134.55e6 + 2 * 9 * 64 * PREFILL * DECODER_LAYERS
# Weights, 16 bytes of scale, sum and bias for each of 155 520 rows of the layers, the high plane of the
# head with 8 bytes for each of its rows, keys and values of 84 positions.
HEAD_ROWS, HIDDEN = 49_280, 576
LAYER_WEIGHTS = 134.55e6 - HEAD_ROWS * HIDDEN
STEP_BYTES = LAYER_WEIGHTS + 155_520 * 16 + HEAD_ROWS * (HIDDEN / 2 + 8) + 84 * 23_040
# A decode step of llama.cpp's Q8_0 reads 34 bytes for 32 weights.
LLAMA_STEP_BYTES = 134.55e6 * 34 / 32


def figures(load, tile, llama):
    found = {"versions": {"llvm-mca": load.cycles.version, "qemu": emulator.check_qemu()}}
    for key in ("kernels", "ours", "llama"):
        found[key] = {}
    for cpu in emulator.RUNS:
        print(f"running on {cpu}", flush=True)
        found["kernels"][cpu] = load.kernels(cpu)
        found["ours"][cpu] = ours(load, cpu, tile)
        if llama:
            found["llama"][cpu] = llamas(load, cpu)
    with open(BOARDS) as file:
        found["boards"] = boards(found, json.load(file))
    return found


def ours(load, cpu, tile):
    (prefill_1, step_1), (prefill_2, step_2) = (load.text(cpu, depth) for depth in DEPTHS)
    prefill, prefill_layer = layered(prefill_1, prefill_2, DECODER_LAYERS)
    step, step_layer = layered(step_1, step_2, DECODER_LAYERS)
    allocations = step_1["allocations"], step_2["allocations"]
    found = {
        "prefill": prefill,
        "prefill layer": prefill_layer,
        "step": step,
        "step layer": step_layer,
        "step bytes": STEP_BYTES,
        "step allocations": allocations[0] + (DECODER_LAYERS - 1) * (allocations[1] - allocations[0]),
        "functions": {
            "prefill": layered_functions(prefill_1["functions"], prefill_2["functions"], DECODER_LAYERS),
            "step": layered_functions(step_1["functions"], step_2["functions"], DECODER_LAYERS),
        },
    }
    if tile:
        tile_1, tile_2 = (load.tile(cpu, depth) for depth in DEPTHS)
        found["tile"], found["vision layer"] = layered(tile_1, tile_2, VISION_LAYERS)
        functions = tile_1["functions"], tile_2["functions"]
        found["functions"]["tile"] = layered_functions(*functions, VISION_LAYERS)
    return found


def llamas(load, cpu):
    costs = [load.llama(cpu, depth) for depth in LLAMA_DEPTHS]
    prefill, prefill_layer = layered(costs[0][0], costs[1][0], DECODER_LAYERS)
    step, step_layer = layered(costs[0][1], costs[1][1], DECODER_LAYERS)
    return {
        "prefill": prefill,
        "prefill layer": prefill_layer,
        "step": step,
        "step layer": step_layer,
    }


def cpu_of(core):
    return next(cpu for cpu, cores in emulator.RUNS.items() if core in cores)


def boards(found, table):
    """Times of each board: cycles over all cores at their clock; a decode step takes the longer of
    its cycles and its bytes."""
    rows = []
    for board in table["boards"]:
        core = board["core"]
        hertz = board["cores"] * board["ghz"] * 1e9
        row = dict(board)
        for who, step_bytes in (("ours", None), ("llama", LLAMA_STEP_BYTES)):
            costs = found[who].get(cpu_of(core))
            if not costs:
                continue
            step_bytes = costs.get("step bytes", step_bytes)
            seconds = {name: costs[name]["cycles"][core] / hertz for name in ("tile", "prefill", "step") if name in costs}
            step = max(seconds["step"], step_bytes / (board["read_gbps"] * 1e9))
            times = {"prefill": seconds["prefill"], "tokens_per_second": 1 / step,
                     "bound": "memory" if step > seconds["step"] else "arithmetic"}  # fmt: skip
            if "tile" in seconds:
                times["tile"] = seconds["tile"]
                times["caption"] = seconds["tile"] + seconds["prefill"] + table["assumed_tokens"] * step
            row[who] = times
        rows.append(row)
    return rows


def rate(macs, cycles):
    return f"{macs / cycles:.1f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def markdown(found):
    cores = [core for cores in emulator.RUNS.values() for core in cores]
    parts = [f"Modelled: {found['versions']['qemu']}, llvm-mca {found['versions']['llvm-mca']}.", ""]

    peak = [f"{model.PEAK[core]}" for core in cores]
    head = ["multiply-accumulates a cycle and core", *cores]
    rows = [["limit of the core", *peak]]
    rows += whole_rows(found, cores)
    parts += ["### Whole stages, one core", "", table(head, rows), ""]

    rows = []
    for name in found["kernels"]["cortex-a72"]:
        row = [f"`{name}`"]
        for core in cores:
            cost = found["kernels"][cpu_of(core)][name]
            cycles = cost["cycles"][core]
            row.append(rate(cost["macs"], cycles) if cost["macs"] else f"{cycles / 1e3:.0f} kcycles")
        rows.append(row)
    parts += ["### Kernels", "", table(["kernel", *cores], rows), ""]

    for stage, title in (("tile", "an image tile"), ("prefill", "a prefill of 84 tokens"), ("step", "a decode step")):
        rows = list(function_rows(found["ours"], stage, cores))
        if rows:
            parts += [f"### Where the cycles of {title} go, million cycles", "", table(["function", *cores], rows), ""]

    head = ["board", "cores", "tile", "prefill 84", "decode", "caption of 50 tokens", "llama.cpp prefill", "llama.cpp decode"]
    rows = []
    for board in found["boards"]:
        mine, theirs = board["ours"], board.get("llama")
        rows.append([
            board["name"], f"{board['cores']} × {board['core']} at {board['ghz']} GHz",
            f"{mine['tile']:.2f} s" if "tile" in mine else "",
            f"{mine['prefill'] * 1e3:.0f} ms",
            f"{mine['tokens_per_second']:.0f} tokens/s ({mine['bound']})",
            f"{mine['caption']:.2f} s" if "caption" in mine else "",
            f"{theirs['prefill'] * 1e3:.0f} ms" if theirs else "",
            f"{theirs['tokens_per_second']:.0f} tokens/s ({theirs['bound']})" if theirs else "",
        ])  # fmt: skip
    parts += ["### Boards, all cores", "", table(head, rows), ""]
    return "\n".join(parts)


def whole_rows(found, cores):
    stages = [
        ("vision layer", "ours", "vision layer", VISION_LAYER_MACS),
        ("image tile", "ours", "tile", TILE_MACS),
        ("prefill of 84 tokens", "ours", "prefill", PREFILL_MACS),
        ("prefill of 84 tokens, llama.cpp Q8_0", "llama", "prefill", PREFILL_MACS),
        ("decode step", "ours", "step", STEP_MACS),
        ("decode step, llama.cpp Q8_0", "llama", "step", STEP_MACS),
    ]
    for title, who, stage, macs in stages:
        costs = found[who]
        if costs and stage in costs["cortex-a72"]:
            yield [title, *(rate(macs, costs[cpu_of(core)][stage]["cycles"][core]) for core in cores)]
    yield ["decode step, Mcycles", *(f"{found['ours'][cpu_of(core)]['step']['cycles'][core] / 1e6:.1f}" for core in cores)]
    yield ["decode step, MB read", *(f"{found['ours'][cpu_of(core)]['step bytes'] / 1e6:.1f}" for core in cores)]
    yield ["decode step, allocations", *(str(found["ours"][cpu_of(core)]["step allocations"]) for core in cores)]


def function_rows(ours, stage, cores):
    """Functions that take at least a hundredth of a stage on some core, the dearest on the last first."""
    functions = {core: ours[cpu_of(core)]["functions"].get(stage, {}).get(core, {}) for core in cores}
    totals = {core: sum(cycles.values()) for core, cycles in functions.items()}
    names = {n for core in cores for n, c in functions[core].items() if c >= totals[core] / 100}
    for name in sorted(names, key=lambda n: -max(functions[core].get(n, 0) / totals[core] for core in cores)):
        yield [f"`{name}`", *(cell(functions[core].get(name, 0), totals[core]) for core in cores)]
    if names:
        yield ["all", *(f"{totals[core] / 1e6:.1f}" for core in cores)]


def cell(cycles, total):
    return f"{cycles / 1e6:.1f} ({cycles / total:.0%})" if cycles else ""
