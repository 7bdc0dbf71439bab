#!/usr/bin/env python3
"""Cycles of straight regions on a Cortex-A53: an in-order core that issues two instructions a cycle.

    tools/armcost/in_order.py FILE [--straight] [--trace] [--unknown]

FILE holds assembly as llvm-mc prints it, one instruction a line; `-` is standard input. It prints
cycles an iteration of the lines as a loop on itself; `--straight` the cycles to issue them once,
`--trace` when each is issued that once, `--unknown` the mnemonics that are not in the tables.
README.md names the sources and says which rules are guesses.
"""

import argparse
import functools
import re
import sys

# An iteration whose state never comes back is averaged over the second half of this many.
MOST_ITERATIONS = 256

# What is written when: cycles from issue until a reader that needs it at its own issue may issue.
ALU, SHIFT, MUL, LOAD, DIVIDE = 3, 2, 4, 4, 8
LOAD_64, LOAD_128 = 3, 4
# Readers need some operands later than at their issue: so many cycles.
AT_ONCE, ADDRESS, FROM_GENERAL, SHIFTED, IN_ALU, STORED, IN_BRANCH = 0, 1, 1, 1, 2, 3, 3
# Accumulators of multiply-add: float after float, float after another, integer after integer.
CHAIN_FLOAT, CHAIN_OTHER, CHAIN_INTEGER = 4, 3, 3

# Slots of the vector unit a cycle: two of 64 bits.
PIPES = 2


def words(text):
    return frozenset(text.split())


SETS_FLAGS = words("adds subs ands bics cmp cmn tst ccmp ccmn negs adcs sbcs ngcs fcmp fcmpe fccmp fccmpe")
READS_FLAGS = words(
    "csel csinc csinv csneg cset csetm cinc cinv cneg fcsel ccmp ccmn fccmp fccmpe adc adcs sbc sbcs ngc ngcs"
)
NO_RESULT = words("cmp cmn tst ccmp ccmn fcmp fcmpe fccmp fccmpe")
BRANCHES = words("b bl br blr ret cbz cbnz tbz tbnz")
NOTHING = words("nop hint yield bti paciasp autiasp dmb dsb isb brk udf clrex svc msr sevl wfe")
PREFETCH = words("prfm prfum")
SYSTEM_READ = words("mrs")

INTEGER_SHIFT = words("lsl lsr asr ror lslv lsrv asrv rorv movz movn adr adrp")
INTEGER_MOVE = words("mov mvn movk neg negs ngc ngcs sxtw sxtb sxth uxtb uxth uxtw")
INTEGER_ALU = words(
    "add adds sub subs and ands bic bics orr orn eor eon adc adcs sbc sbcs cmp cmn tst ccmp ccmn csel csinc csinv"
    " csneg cset csetm cinc cinv cneg clz cls rbit rev rev16 rev32 ubfx sbfx ubfiz sbfiz bfi bfxil bfc ubfm sbfm bfm"
    " extr crc32b crc32h crc32w crc32x crc32cb crc32ch crc32cw crc32cx"
)
INTEGER_MUL = words("mul mneg madd msub smull umull smaddl umaddl smsubl umsubl smulh umulh smnegl umnegl")
INTEGER_DIV = words("udiv sdiv")
KEEPS_DESTINATION = words("movk bfi bfxil bfc bfm")

FLOAT_MAC = words("fmla fmls fmlal fmlal2 fmlsl fmlsl2 fmadd fmsub fnmadd fnmsub")
INTEGER_MAC = words(
    "mla mls smlal smlal2 umlal umlal2 smlsl smlsl2 umlsl umlsl2 sadalp uadalp saba uaba sabal sabal2 uabal uabal2"
    " ssra usra srsra ursra sdot udot sqdmlal sqdmlal2 sqdmlsl sqdmlsl2 sqrdmlah sqrdmlsh"
)
# Read what they write to, at their issue.
MERGES = words("bsl bit bif sli sri tbx suqadd usqadd fcmla aese aesd")
SIMD_2 = words("add sub neg shadd uhadd srhadd urhadd shsub uhsub")
SIMD_3 = words(
    "abs addp sabd uabd saddlp uaddlp sqadd uqadd sqsub uqsub sqneg suqadd usqadd addv saddlv uaddlv"
)
SIMD_8 = words("frecps frsqrts")
# Written as GCC has it, after 4 cycles.
SIMD_4 = words(
    "fadd fsub fmul fnmul fmulx fabd fabs fneg fmax fmin fmaxnm fminnm faddp fmaxp fminp fmaxnmp fminnmp fmaxv fminv"
    " fmaxnmv fminnmv frinta frinti frintm frintn frintp frintx frintz fcvt fcvtl fcvtl2 fcvtn fcvtn2 fcvtas fcvtau fcvtms"
    " fcvtmu fcvtns fcvtnu fcvtps fcvtpu fcvtzs fcvtzu scvtf ucvtf fcmeq fcmge fcmgt fcmle fcmlt facge facgt frecpe"
    " frsqrte frecpx urecpe ursqrte fcsel fcmp fcmpe fccmp fccmpe fmov mul pmul pmull pmull2 smull smull2 umull umull2"
    " sqdmulh sqrdmulh sqdmull sqdmull2 saddl saddl2 uaddl uaddl2 saddw saddw2 uaddw uaddw2 ssubl ssubl2 usubl usubl2"
    " ssubw ssubw2 usubw usubw2 sabdl sabdl2 uabdl uabdl2 addhn addhn2 raddhn raddhn2 subhn subhn2 smax smin umax umin"
    " smaxp sminp umaxp uminp smaxv sminv umaxv uminv cmeq cmge cmgt cmhi cmhs cmle cmlt cmtst and orr orn eor bic not"
    " mvn mov movi mvni dup ext tbl zip1 zip2 uzp1 uzp2 trn1 trn2 rev16 rev32 rev64 rbit cnt clz cls shl sshr ushr"
    " srshr urshr sshl ushl srshl urshl sqshl uqshl sqshlu sqrshl uqrshl sshll sshll2 ushll ushll2 shll shll2 sxtl sxtl2"
    " uxtl uxtl2 shrn shrn2 rshrn rshrn2 sqshrn sqshrn2 uqshrn uqshrn2 sqrshrn sqrshrn2 uqrshrn uqrshrn2 sqshrun sqshrun2"
    " sqrshrun sqrshrun2 xtn xtn2 sqxtn sqxtn2 uqxtn uqxtn2 sqxtun sqxtun2 sqabs umov smov ins aesmc aesimc"
)
NARROWS_INTO_HALF = re.compile(r"(?:hn|xtn|xtun|shrn|shrun|cvtx?n)2$")
# Latency, cycles the unit is taken: single and double.
DIVISIONS = {"fdiv": ((18, 14), (33, 29)), "fsqrt": ((17, 13), (32, 28))}

REGISTER = re.compile(r"\b([xwvqdshb])(\d+)\b|\b(w?sp)\b")
FULL = re.compile(r"\bv\d+\.(?:16b|8h|4s|2d)\b|\bq\d+\b")
HALF = re.compile(r"\bv\d+\.(?:8b|4h|2s|1d)\b")
SHIFTS = re.compile(r"\b(?:lsl|lsr|asr|ror|uxt[bhwx]|sxt[bhwx])\b(?: #[1-9]\d*)?")
WIDTHS = {"q": 16, "d": 8, "s": 4, "h": 2, "b": 1, "x": 8, "w": 4}


class Instruction:
    """What a line asks of the core."""

    __slots__ = (
        "line", "name", "known", "cycles", "alone", "first", "pipes", "memory", "branch", "unit", "unit_cycles",
        "reads", "writes", "lags", "kind", "merges",
    )  # fmt: skip

    def __init__(self, line, name):
        self.line, self.name, self.known = line, name, True
        self.cycles = 1  # cycles in which it issues
        self.alone = False  # pairs with nothing
        self.first = False  # only as the first of a pair
        self.pipes = 0  # of the vector unit
        self.memory = self.branch = False
        self.unit, self.unit_cycles = None, 0
        self.reads = []  # (register, cycles after issue, accumulator)
        self.writes = []  # (register, cycles after issue)
        self.lags = False  # may run a cycle late behind another of its kind
        self.kind = None  # what kind of result readers of accumulators look for
        self.merges = None  # register whose other part is written by an older instruction


RANGE = re.compile(r"v(\d+)(\.\w+) ?- ?v(\d+)\.")


def listed(ends):
    """The registers of a list that is written as a range."""
    first, form, last = int(ends[1]), ends[2], int(ends[3])
    return ", ".join(f"v{(first + i) % 32}{form}" for i in range((last - first) % 32)) + f", v{last}."


def registers(text):
    """Register numbers in a text: 0 to 31 general (31 is sp), 32 to 63 vector."""
    text, found = RANGE.sub(listed, text), []
    for letter, number, stack in REGISTER.findall(text):
        if stack:
            found.append(31)
        elif letter in "xw":
            found.append(int(number))
        else:
            found.append(32 + int(number))
    return found


FLAGS = 64


def split(operands):
    """Operands at the commas outside brackets and braces."""
    parts, depth, last = [], 0, 0
    for at, letter in enumerate(operands):
        depth += letter in "[{"
        depth -= letter in "]}"
        if letter == "," and not depth:
            parts.append(operands[last:at].strip())
            last = at + 1
    tail = operands[last:].strip()
    return parts + [tail] if tail else parts


@functools.lru_cache(maxsize=None)
def parse(line):
    """An instruction without comment."""
    name, _, operands = line.replace("\t", " ").partition(" ")
    parts = split(operands)
    made = Instruction(line, name)
    if name.startswith("b.") or name in BRANCHES:
        branch(made, name, parts)
    elif name in NOTHING:
        pass
    elif name in PREFETCH or name == "dc":
        made.memory = True
        made.reads = [(r, ADDRESS, False) for r in registers(parts[-1])]
    elif re.match(r"(ld|st)[a-z0-9]", name) and "[" in operands:
        memory(made, name, parts)
    elif any(r >= 32 for part in parts for r in registers(part)):
        vector(made, name, parts)
    else:
        integer(made, name, parts)
    return made


def branch(made, name, parts):
    made.branch = True
    if name.startswith("b."):
        made.reads = [(FLAGS, IN_BRANCH, False)]
    elif name == "ret" and not parts:
        made.reads = [(30, IN_BRANCH, False)]
    elif parts:
        made.reads = [(r, IN_BRANCH, False) for r in registers(parts[0])]
    if name in ("bl", "blr"):
        made.writes = [(30, ALU)]


def base(made, at, parts):
    """Address registers, and the base that a pre- or post-index writes."""
    address = registers(parts[at])
    made.reads += [(r, ADDRESS, False) for r in address]
    made.reads += [(r, ADDRESS, False) for part in parts[at + 1 :] for r in registers(part)]
    if parts[at].endswith("!") or parts[at + 1 :]:
        made.writes.append((address[0], ALU))


def memory(made, name, parts):
    at = next(i for i, part in enumerate(parts) if part.startswith("["))
    made.memory = True
    data = [r for part in parts[:at] for r in registers(part)]
    in_list = parts[0].startswith("{")
    load = name.startswith("ld")
    if in_list:
        lane = parts[0].rstrip().endswith("]")
        wide = bool(FULL.search(parts[0])) and not lane and not name.endswith("r")
        size = 16 if wide else 8
    else:
        lane, size = False, WIDTHS.get(parts[0][0], 8)
    if load:
        is_vector = data[:1] and data[0] >= 32
        if is_vector:
            each = 2 if size == 16 else 1
            made.cycles = each * len(data)
            made.alone = in_list or made.cycles > 1
            made.pipes = PIPES if size == 16 else 1
            latency = LOAD_128 if size == 16 or in_list else LOAD_64
            made.writes = [(r, latency + each * i) for i, r in enumerate(data)]
            if lane:
                made.reads += [(r, latency, False) for r in data]
        else:
            made.cycles = 2 if len(data) == 2 and size == 8 else 1
            made.alone = len(data) == 2
            made.writes = [(r, LOAD + (i if size == 8 else 0)) for i, r in enumerate(data)]
            made.kind = "load"
        base(made, at, parts)
    else:
        # A status of an exclusive store is written, everything else is read.
        status = re.match(r"st(l)?x", name)
        if status:
            made.writes = [(data[0], LOAD)]
            data = data[1:]
        if data and data[0] >= 32:
            made.cycles = len(data)
            made.alone = in_list or len(data) > 1
            made.pipes = PIPES if size == 16 else 1
        made.reads = [(r, STORED + (i if made.cycles > 1 else 0), False) for i, r in enumerate(data)]
        base(made, at, parts)


def integer(made, name, parts):
    known = name in INTEGER_ALU or name in INTEGER_SHIFT or name in INTEGER_MOVE
    sources = parts if name in NO_RESULT else parts[1:]
    target = [] if name in NO_RESULT or not parts else registers(parts[0])
    shifted = bool(SHIFTS.search(" ".join(sources)))
    if name in INTEGER_MUL:
        made.unit, made.unit_cycles, latency = "multiplier", 1, MUL
        made.kind = "multiply"
        for i, part in enumerate(sources):
            accumulator = i == 2
            made.reads += [(r, STORED if accumulator else SHIFTED, False) for r in registers(part)]
    elif name in INTEGER_DIV:
        made.unit, made.unit_cycles, latency = "divider", DIVIDE, DIVIDE
        made.reads = [(r, SHIFTED, False) for part in sources for r in registers(part)]
    elif name in SYSTEM_READ:
        latency = ALU
    else:
        made.known = known
        late = name not in INTEGER_SHIFT and not shifted
        made.lags = late
        latency = SHIFT if name in INTEGER_SHIFT or (name == "mov" and "#" in parts[-1]) else ALU
        if sources and shifted and name not in INTEGER_SHIFT:
            # Only the shifted operand is needed early.
            last = len([part for part in sources if registers(part)]) - 1
            for i, part in enumerate(sources):
                early = i == last
                made.reads += [(r, SHIFTED if early else IN_ALU, False) for r in registers(part)]
        else:
            need = IN_ALU if late else SHIFTED
            made.reads = [(r, need, False) for part in sources for r in registers(part)]
        made.kind = "alu"
    if name in KEEPS_DESTINATION:
        made.reads += [(r, IN_ALU, False) for r in target]
    if name in READS_FLAGS:
        made.reads.append((FLAGS, IN_ALU, False))
    made.writes = [(r, latency) for r in target]
    if name in SETS_FLAGS:
        made.writes.append((FLAGS, latency))


def simd_latency(name):
    """Cycles until the result, or none if the tables lack the instruction."""
    if name in FLOAT_MAC or name in SIMD_8:
        return 8
    if name in SIMD_2:
        return 2
    if name in SIMD_3:
        return 3
    if name in INTEGER_MAC or name in SIMD_4 or name in MERGES:
        return 4
    return None


def vector(made, name, parts):
    full = bool(FULL.search(" ".join(parts)))
    made.pipes = PIPES if full else 1
    made.first = full
    target = [] if name in NO_RESULT else registers(parts[0])[:1]
    sources = parts if name in NO_RESULT else parts[1:]
    read = [r for part in sources for r in registers(part)]
    to_general = bool(target) and target[0] < 32
    from_general = any(r < 32 for r in read)
    into_lane = bool(target) and "[" in parts[0]
    latency = simd_latency(name)
    made.known = latency is not None or name in DIVISIONS
    latency = latency or 4
    if into_lane:
        # Of its own register it writes a part; what wrote the other part need not be done.
        made.merges = target[0]
        made.pipes, made.first = 1, False
        if from_general:
            latency = 2
    elif to_general:
        latency = 4 if name == "fmov" else 5
    elif from_general and name in ("fmov", "dup", "mov"):
        latency = 2
    if name in DIVISIONS:
        double = ".2d" in parts[0] or parts[0].startswith("d")
        latency, made.unit_cycles = DIVISIONS[name][double]
        made.unit = "float divider"
        if full:
            made.unit_cycles, latency = 2 * made.unit_cycles, latency + made.unit_cycles
    if name in ("tbl", "tbx") and len(read) > 2:
        made.cycles = len(read) - 1
        made.alone = True
    scalar_mac = name in ("fmadd", "fmsub", "fnmadd", "fnmsub")
    for i, r in enumerate(read):
        if r < 32:
            made.reads.append((r, FROM_GENERAL, False))
        else:
            made.reads.append((r, AT_ONCE, scalar_mac and i == 2))
    if name in FLOAT_MAC:
        made.kind = "float mac"
        if not scalar_mac:
            made.reads.append((target[0], AT_ONCE, True))
    elif name in INTEGER_MAC:
        made.kind = "integer mac"
        made.reads.append((target[0], AT_ONCE, True))
    elif into_lane:
        made.reads.append((target[0], latency, False))
    elif name in MERGES or NARROWS_INTO_HALF.search(name):
        made.reads.append((target[0], AT_ONCE, False))
    elif name in ("orr", "bic") and len(parts) > 1 and parts[1].startswith("#"):
        made.reads.append((target[0], AT_ONCE, False))
    if name in READS_FLAGS:
        made.reads.append((FLAGS, IN_ALU, False))
    made.writes = [(r, latency) for r in target]
    if name in SETS_FLAGS:
        made.writes.append((FLAGS, latency + 1))


class Core:
    """The cycle at which instructions issue."""

    def __init__(self):
        self.now = 0  # cycle of the group that is being filled
        self.group = 0  # instructions in it
        self.pipes = 0
        self.memory = self.branch = False
        self.wrote = ()  # registers its instructions write
        self.done = [0] * (FLAGS + 1)  # cycle from which a register is written
        self.kinds = [None] * (FLAGS + 1)
        self.units = {}

    def next_cycle(self, cycles=1):
        self.now += cycles
        self.group = self.pipes = 0
        self.memory = self.branch = False
        self.wrote = ()

    def earliest(self, one):
        """Cycle at which the operands and units of an instruction allow it to issue."""
        at = self.now
        for register, later, accumulator in one.reads:
            kind = self.kinds[register]
            if accumulator:
                if one.kind == "integer mac":
                    later = CHAIN_INTEGER if kind == "integer mac" else 0
                else:
                    later = CHAIN_FLOAT if kind == "float mac" else CHAIN_OTHER
            elif one.lags and kind == "alu" and later == IN_ALU:
                later += 1
            at = max(at, self.done[register] - later)
        for register, after in one.writes:
            # Of one register, results are written in order.
            at = max(at, self.done[register] - after - (1 if one.lags else 0))
        if one.unit:
            at = max(at, self.units.get(one.unit, 0))
        return at

    def fits(self, one):
        """Whether it may join the group of this cycle."""
        if not self.group:
            return True
        return not (
            self.group >= 2
            or one.alone
            or one.first
            or self.branch
            or (one.memory and self.memory)
            or self.pipes + one.pipes > PIPES
            or one.merges in self.wrote
        )

    def issue(self, one):
        """The cycle at which it issues, the first of them if it takes several."""
        at = self.earliest(one)
        if at > self.now:
            self.next_cycle(at - self.now)
        if not self.fits(one):
            self.next_cycle()
            at = self.earliest(one)
            if at > self.now:
                self.next_cycle(at - self.now)
        at = self.now
        begin = at
        if one.lags:
            # It runs as late as its latest operand of its own kind.
            late = [self.done[r] - IN_ALU for r, later, _ in one.reads if later == IN_ALU and self.kinds[r] == "alu"]
            begin = max([at, *late])
        for register, after in one.writes:
            self.done[register] = begin + after
            self.kinds[register] = one.kind
        if one.unit:
            self.units[one.unit] = at + one.unit_cycles
        self.group += 1
        self.pipes += one.pipes
        self.memory |= one.memory
        self.branch |= one.branch
        self.wrote += tuple(r for r, _ in one.writes)
        if one.alone:
            self.next_cycle(one.cycles)
        return at

    def issued(self):
        """Cycles until everything has issued."""
        return self.now + (1 if self.group else 0)

    def state(self):
        """All that decides the future, seen from this cycle."""
        now = self.now
        return (
            self.group, self.pipes, self.memory, self.branch, self.wrote,
            tuple((max(d - now, -8), k) for d, k in zip(self.done, self.kinds)),
            tuple(sorted((u, max(c - now, 0)) for u, c in self.units.items())),
        )  # fmt: skip


def instructions(lines):
    """The instructions of lines of assembly; labels, directives and comments are passed over."""
    for line in lines:
        text = re.split(r"//|;", line, maxsplit=1)[0].strip()
        if text and not text.startswith((".", "#")) and not text.endswith(":"):
            yield parse(text)


def straight(lines):
    """Cycles to issue lines once."""
    core = Core()
    for one in instructions(lines):
        core.issue(one)
    return core.issued()


def iteration(lines):
    """Cycles an iteration of lines as a loop on itself, in its steady state."""
    body = list(instructions(lines))
    if not body:
        return 0.0
    core, seen, starts = Core(), {}, []
    for count in range(MOST_ITERATIONS):
        state = core.state()
        if state in seen:
            since = seen[state]
            return (core.now - starts[since]) / (count - since)
        seen[state] = count
        starts.append(core.now)
        for one in body:
            core.issue(one)
    half = MOST_ITERATIONS // 2
    return (core.now - starts[half]) / (MOST_ITERATIONS - half)


def unknown(lines):
    """Lines whose mnemonics the tables lack, once a mnemonic."""
    return sorted({one.name: one.line for one in instructions(lines) if not one.known}.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=argparse.FileType("r"))
    parser.add_argument("--straight", action="store_true")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--unknown", action="store_true")
    args = parser.parse_args()
    lines = args.file.read().splitlines()
    if args.unknown:
        print("\n".join(unknown(lines)))
    if args.trace:
        core = Core()
        for one in instructions(lines):
            print(f"{core.issue(one):5}  {one.line}")
    if args.straight:
        print(straight(lines))
    else:
        print(f"{iteration(lines):.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
