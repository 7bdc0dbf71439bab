"""What counter.c wrote: instruction counts of each phase, cut into straight regions."""

import bisect
import collections
import dataclasses
import os
import re
import subprocess


@dataclasses.dataclass
class Phase:
    """Counts between two marks. Addresses are those of the running program."""

    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    code: dict = dataclasses.field(default_factory=dict)
    entries: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    @property
    def instructions(self):
        return sum(self.counts.values())


@dataclasses.dataclass
class Region:
    """Instructions that follow each other and ran equally often."""

    address: int
    runs: int
    words: list

    @property
    def instructions(self):
        return self.runs * len(self.words)


def read(path):
    """Phases by name, and the mapped files as (start, offset, path)."""
    phases, maps, phase = {}, [], None
    with open(path) as file:
        for line in file:
            kind, *fields = line.split()
            if kind == "phase":
                phase = phases.setdefault(fields[0], Phase())
            elif kind == "block":
                add_block(phase, int(fields[0], 16), int(fields[1]), fields[2])
            elif kind == "map":
                maps.append((int(fields[0], 16), int(fields[1], 16), fields[2]))
    return phases, maps


def add_block(phase, address, runs, code):
    phase.entries[address] += runs
    for at in range(0, len(code), 8):
        place = address + at // 2
        phase.counts[place] += runs
        phase.code[place] = int(code[at : at + 8], 16)


def signed(value, bits):
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def branch(word, address):
    """(is a branch, always taken, target or None) of an A64 instruction."""
    if word >> 26 == 0b000101:  # b
        return True, True, address + 4 * signed(word & 0x3FFFFFF, 26)
    if word >> 26 == 0b100101:  # bl
        return True, True, None
    if word >> 24 == 0x54 or word >> 25 & 0x3F == 0b011010:  # b.cond, cbz, cbnz
        return True, False, address + 4 * signed(word >> 5 & 0x7FFFF, 19)
    if word >> 25 & 0x3F == 0b011011:  # tbz, tbnz
        return True, False, address + 4 * signed(word >> 5 & 0x3FFF, 14)
    if word >> 25 == 0b1101011 or word >> 21 == 0b11010100000:  # br, blr, ret; svc
        return True, True, None
    return False, False, None


def regions(phase):
    """Maximal straight runs with equal counts. A region ends behind a jump that is always taken or
    goes backwards (a loop), and before the target of a jump."""
    addresses = sorted(phase.counts)
    targets = {branch(phase.code[a], a)[2] for a in addresses}
    found, current = [], None
    for address in addresses:
        runs = phase.counts[address]
        follows = (
            current is not None
            and address == current.address + 4 * len(current.words)
            and runs == current.runs
            and address not in targets
        )
        if not follows:
            current = Region(address, runs, [])
            found.append(current)
        word = phase.code[address]
        current.words.append(word)
        jumps, always, target = branch(word, address)
        if jumps and (always or target <= address):
            current = None
    return found


class Symbols:
    """Function names of the mapped files."""

    def __init__(self, maps, nm):
        table = []
        seen = set()
        for start, offset, path in maps:
            if offset != 0 or path in seen or not is_aarch64(path):
                continue
            seen.add(path)
            table += symbols_of(path, start, nm)
        self.table = sorted(set(table))
        self.starts = [start for start, _ in self.table]

    def name(self, address):
        at = bisect.bisect_right(self.starts, address) - 1
        return self.table[at][1] if at >= 0 else hex(address)

    def addresses(self, pattern):
        """Addresses of the functions whose whole name matches."""
        wanted = re.compile(pattern)
        return {start for start, name in self.table if wanted.fullmatch(name)}


def is_aarch64(path):
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        head = file.read(20)
    return head[:4] == b"\x7fELF" and head[18:20] == b"\xb7\x00"


def symbols_of(path, start, nm):
    """Symbols with their running addresses: files linked to address 0 were moved to `start`."""
    with open(path, "rb") as file:
        moved = file.read(17)[16] == 3  # ET_DYN
    for flags in ([], ["-D"]):
        listing = subprocess.run(
            [nm, *flags, "-C", "--defined-only", path], capture_output=True, text=True, check=False
        ).stdout
        rows = [line.split(maxsplit=2) for line in listing.splitlines()]
        table = [
            (int(row[0], 16) + (start if moved else 0), row[2])
            for row in rows
            if len(row) == 3 and row[1] in "tTwWiV"
        ]
        if table:
            return table
    return []
