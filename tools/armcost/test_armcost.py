"""Tests of the parts of armcost that need no emulator: `python3 -m unittest discover -s tools/armcost`."""

import os
import tempfile
import unittest

import counts
import guard
import in_order
import model
import random_gguf
import workload

NOP = 0xD503201F
ADD = 0x91000400  # add x0, x0, #1
LOOP_BACK_2 = 0x54FFFFC1  # b.ne, two instructions back
SKIP_2 = 0xB4000040  # cbz x0, two instructions on
RET = 0xD65F03C0


def phase(*blocks):
    made = counts.Phase()
    for address, runs, words in blocks:
        counts.add_block(made, address, runs, "".join(f"{word:08x}" for word in words))
    return made


class Counts(unittest.TestCase):
    def test_a_dump_is_read_phase_by_phase(self):
        with tempfile.NamedTemporaryFile("w", suffix=".counts") as file:
            file.write("phase 0\nblock 1000 2 d503201f\nphase 1\nblock 1000 5 d503201f91000400\nphase end\n")
            file.write("map 400000 0 /a/program\n")
            file.flush()
            phases, maps = counts.read(file.name)
        self.assertEqual(phases["0"].instructions, 2)
        self.assertEqual(phases["1"].instructions, 10)
        self.assertEqual(phases["1"].entries[0x1000], 5)
        self.assertEqual(maps, [(0x400000, 0, "/a/program")])

    def test_overlapping_blocks_add_up_by_instruction(self):
        made = phase((0x1000, 1, [NOP, ADD, ADD]), (0x1004, 9, [ADD, ADD]))
        self.assertEqual([made.counts[a] for a in (0x1000, 0x1004, 0x1008)], [1, 10, 10])

    def test_a_loop_is_a_region_of_its_own(self):
        made = phase((0x1000, 1, [NOP, NOP]), (0x1008, 50, [ADD, ADD, LOOP_BACK_2]), (0x1014, 1, [ADD, RET]), (0x101C, 1, [ADD]))
        found = [(r.address, r.runs, len(r.words)) for r in counts.regions(made)]
        self.assertEqual(found, [(0x1000, 1, 2), (0x1008, 50, 3), (0x1014, 1, 2), (0x101C, 1, 1)])

    def test_a_loop_that_never_repeats_still_ends_a_region(self):
        made = phase((0x1000, 4, [ADD, ADD, LOOP_BACK_2, ADD]))
        self.assertEqual([len(r.words) for r in counts.regions(made)], [3, 1])

    def test_neighbours_that_ran_unequally_often_are_two_regions(self):
        made = phase((0x1000, 1, [ADD, ADD]), (0x1008, 5, [ADD]))
        self.assertEqual([(r.runs, len(r.words)) for r in counts.regions(made)], [(1, 2), (5, 1)])

    def test_a_region_ends_before_the_target_of_a_jump(self):
        made = phase((0x1000, 4, [SKIP_2, ADD, ADD, ADD]))
        self.assertEqual([len(r.words) for r in counts.regions(made)], [2, 2])

    def test_a_block_cut_in_two_by_the_emulator_is_one_region(self):
        made = phase((0x1000, 4, [ADD, ADD]), (0x1008, 4, [ADD]))
        self.assertEqual([len(r.words) for r in counts.regions(made)], [3])

    def test_jump_targets_are_computed_backwards_and_forwards(self):
        self.assertEqual(counts.branch(LOOP_BACK_2, 0x1010), (True, False, 0x1008))
        self.assertEqual(counts.branch(SKIP_2, 0x1000), (True, False, 0x1008))
        self.assertEqual(counts.branch(RET, 0x1000), (True, True, None))
        self.assertEqual(counts.branch(ADD, 0x1000), (False, False, None))


def sums(register, arrangement="4s"):
    name = f"v{register}.{arrangement}"
    return f"fadd\t{name}, {name}, {name}"


def scale(register, arrangement="4s"):
    name = f"v{register}.{arrangement}"
    return f"fmul\t{name}, {name}, v31.{arrangement}"


def shift_in(register, arrangement="4s"):
    name = f"v{register}.{arrangement}"
    return f"fadd\t{name}, {name}, v30.{arrangement}"


def insert(register, lane, general):
    return f"mov\tv{register}.d[{lane}], x{general}"


def double(general):
    return f"add\tx{general}, x{general}, x{general}"


LOAD_D, LOAD_X, LOAD_Q = "ldr\td0, [x9]", "ldr\tx0, [x9]", "ldr\tq0, [x9]"


class InOrder(unittest.TestCase):
    """Cycles counted on a Cortex-A53 by daniestevez/qsdr, unless a test says where from."""

    def check(self, *cases):
        for cycles, *lines in cases:
            self.assertEqual(in_order.straight(lines), cycles, lines)
            self.assertEqual(in_order.unknown(lines), [])

    def test_an_operation_on_a_full_register_takes_the_whole_vector_unit(self):
        self.check((2, sums(0), sums(1)), (4, *map(sums, range(4))))
        self.check((8, *map(scale, range(4)), *map(shift_in, range(4))))

    def test_a_vector_result_is_ready_after_four_cycles(self):
        self.check((5, sums(0), sums(0)), (13, *[scale(0)] * 4))

    def test_a_load_of_64_bits_takes_one_cycle_and_one_of_128_two(self):
        self.check((1, LOAD_D), (2, LOAD_D, LOAD_D), (2, LOAD_Q), (4, LOAD_Q, "ldr\tq1, [x9]"))
        self.check((2, "ldp\td0, d1, [x9]"), (4, "ldp\tq0, q1, [x9]"), (8, "ldp\tq0, q1, [x9]", "ldp\tq2, q3, [x9]"))
        self.check((8, "ld1\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x9]"))

    def test_loaded_registers_arrive_in_order(self):
        self.check((4, LOAD_D, sums(0)), (5, LOAD_D, "ldr\td1, [x9]", sums(1)))
        self.check((5, LOAD_Q, sums(0)), (7, LOAD_Q, "ldr\tq1, [x9]", sums(1)))
        for load, third, fourth in (("ldp\tq{}, q{}, [x9]", 9, 11), ("ldp\td{}, d{}, [x9]", 6, 7)):
            pairs = [load.format(0, 1), load.format(2, 3)]
            self.check((third, *pairs, sums(2)), (fourth, *pairs, sums(3)))
        four = "ld1\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x9]"
        self.check((9, four, sums(0)), (9, four, sums(2)), (11, four, sums(3)))

    def test_a_load_of_64_bits_pairs_with_half_registers_only(self):
        self.check((2, LOAD_D, sums(1)), (2, sums(1), LOAD_D))
        self.check((1, LOAD_D, sums(1, "2s")), (1, sums(1, "2s"), LOAD_D))
        self.check((1, LOAD_D, insert(1, 1, 0)), (1, insert(1, 1, 0), LOAD_D))

    def test_two_parts_of_one_register_are_not_written_in_one_cycle(self):
        self.check((2, LOAD_D, insert(0, 1, 0)), (2, insert(0, 0, 0), insert(0, 1, 1)))

    def test_a_list_pairs_with_nothing(self):
        lane = "ld1\t{ v0.d }[0], [x9]"
        self.check((2, lane, insert(1, 1, 0)), (2, insert(1, 1, 0), lane))

    def test_a_full_register_is_worked_on_by_the_first_of_a_pair(self):
        self.check((2, LOAD_X, sums(1)), (1, sums(1), LOAD_X))
        self.check((2, "str\tx0, [x9]", sums(1)), (1, sums(1), "str\tx0, [x9]"))

    def test_an_insert_takes_half_the_vector_unit_and_is_ready_after_two_cycles(self):
        self.check((1, insert(0, 1, 0), insert(1, 1, 1)), (3, insert(0, 1, 0), sums(0)))
        self.check((3, *[insert(i, 1, i) for i in range(4)], sums(0)))

    def test_a_move_to_a_general_register_takes_the_vector_unit(self):
        self.check((2, sums(0), "mov\tx0, v1.d[0]"), (2, "mov\tx0, v1.d[0]", sums(0)))

    def test_stores_take_the_vector_unit_a_cycle_a_register(self):
        self.check((2, sums(0), "str\tq1, [x9]"), (2, "str\tq1, [x9]", sums(0)))
        self.check((2, insert(0, 1, 0), "str\tq1, [x9]"), (2, "str\tq1, [x9]", insert(0, 1, 0)))
        self.check((2, "str\td0, [x9]", "str\td1, [x9]"), (3, "stp\tq0, q1, [x9]", sums(2)))
        self.check((8, "st1\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x9]", "st1\t{ v4.4s, v5.4s, v6.4s, v7.4s }, [x9]"))

    def test_one_load_or_store_a_cycle(self):
        self.check((2, LOAD_D, "str\td1, [x9]"), (2, LOAD_D, "str\tq1, [x9]"), (2, LOAD_X, "ldr\tx1, [x9]"))

    def test_two_instructions_a_cycle(self):
        self.check((1, "nop", "nop"), (2, "nop", "nop", "nop"), (2, double(0), double(1), double(2)))

    def test_an_addition_may_run_late_behind_another_once(self):
        for cycles, count in ((1, 1), (1, 2), (2, 3), (3, 4), (4, 5)):
            self.check((cycles, *[double(0)] * count))
        self.check((3, *[double(0), double(1)] * 3))

    def test_a_comparison_pairs_with_its_branch(self):
        self.check((5, "cmp\tx0, #42", "b.eq\t#8", *map(sums, range(4))))
        self.check((6, sums(0), "cmp\tx0, #42", sums(1), "b.eq\t#8", *map(sums, range(2, 6))))
        self.check((5, "cbz\tx0, #8", *map(sums, range(4))))

    def test_chains_of_multiply_adds_forward_their_sums(self):
        # Four cycles a float in LLVM's and GCC's tables, eight to another reader; the integers' is a guess.
        chain = "fmla\tv0.4s, v1.4s, v2.4s"
        self.check((5, chain, chain), (9, chain, "fadd\tv3.4s, v0.4s, v0.4s"), (9, chain, "fmla\tv3.4s, v0.4s, v2.4s"))
        self.check((2, "smlal\tv0.8h, v1.8b, v2.8b", "smlal2\tv0.8h, v1.16b, v2.16b"))

    def test_an_addition_of_integers_is_ready_after_two_cycles(self):
        # Measured by those who made LLVM's newest table.
        add = "add\tv0.4s, v0.4s, v1.4s"
        self.check((3, add, add), (4, "abs\tv0.4s, v0.4s", add))

    def test_results_of_one_register_are_written_in_order(self):
        # Inferred. A division of 18 cycles holds back a sum of 4 in its register, and no other.
        divide = "fdiv\tv0.2s, v1.2s, v2.2s"
        self.check((15, divide, "fadd\tv0.2s, v3.2s, v4.2s"), (1, divide, "fadd\tv5.2s, v3.2s, v4.2s"))

    def test_only_narrowing_into_the_upper_half_reads_its_destination(self):
        # By what the instructions do, not counted by anyone.
        for line in ("trn2\tv0.2d, v3.2d, v4.2d", "zip2\tv0.2d, v3.2d, v4.2d"):
            self.check((2, scale(0), line))
        for line in ("xtn2\tv0.8h, v3.4s", "sqxtun2\tv0.16b, v3.8h", "fcvtn2\tv0.4s, v3.2d", "addhn2\tv0.8h, v3.4s, v4.4s"):
            self.check((5, scale(0), line))

    def test_a_range_of_registers_is_all_of_them(self):
        for form in ("{ v0.16b, v1.16b, v2.16b }", "{ v0.16b - v2.16b }"):
            self.check((9, scale(0), scale(1), scale(2), f"tbl\tv5.16b, {form}, v6.16b"))
        self.assertEqual(in_order.registers("{ v31.8b-v1.8b }"), [63, 32, 33])

    def test_addresses_are_needed_before_what_is_stored(self):
        # Three cycles from a load to an address, two from an addition, as in GCC's table.
        self.check((4, "ldr\tx0, [x9]", "ldr\tx1, [x0]"), (3, double(0), "ldr\tx1, [x0]"))
        self.check((1, double(0), "str\tx0, [x9]"))

    def test_a_loop_the_compiler_wrote(self):
        loop = ["add\tx2, x0, x1", "add\tx1, x1, #32", "cmp\tx1, x3", "ldp\tq0, q1, [x2]"]
        loop += ["fmul\tv0.4s, v0.4s, v2.s[0]", "fmul\tv1.4s, v1.4s, v2.s[0]"]
        loop += ["fadd\tv0.4s, v0.4s, v3.4s", "fadd\tv1.4s, v1.4s, v3.4s", "stp\tq0, q1, [x2]", "b.ne\t#-36"]
        self.assertEqual(in_order.iteration(loop), 16)

    def test_a_loop_that_pairs_everything(self):
        loop = []
        for group, other in ((0, 4), (4, 0)):
            for i in range(4):
                loop += [scale(group + i, "2s"), f"str\td{other + i}, [x1, #{8 * i + 8}]"]
            for i in range(4):
                loop += [shift_in(group + i, "2s"), f"ldr\td{other + i}, [x2, #{8 * i + 8}]"]
        self.assertEqual(in_order.iteration(loop), 16)

    def test_a_loop_that_loads_halves_through_general_registers(self):
        loop = []
        for now, then, at in ((0, 4, "x10"), (4, 0, "x11")):
            work = [scale(now), scale(now + 1), scale(now + 2), scale(now + 3), shift_in(now), shift_in(now + 1)]
            loads = [f"ldr\tx{i}, [{at}, #{136 + 16 * i}]" for i in range(4)] + [f"ldr\tx4, [{at}, #176]"]
            loads.insert(1, None)
            for operation, load in zip(work, loads):
                loop += [operation, load] if load else [operation]
            loop.append(f"st1\t{{ {', '.join(f'v{then + i}.4s' for i in range(4))} }}, [{at}]")
            loop += [f"ldr\td{then + 1}, [{at}, #144]", insert(then + 3, 1, 3), f"ldr\td{then + 2}, [{at}, #160]"]
            loop += [insert(then + 1, 1, 1), f"ldr\td{then}, [{at}, #128]!", insert(then + 2, 1, 2)]
            loop += [insert(then + 3, 0, 4), insert(then, 1, 0), shift_in(now + 2), shift_in(now + 3)]
        self.assertEqual(in_order.iteration(loop), 32)

    def test_a_loop_is_cut_at_its_branch(self):
        work = [sums(i) for i in range(4)]
        self.assertEqual(in_order.iteration([*work, "add\tx0, x0, #1", "cmp\tx0, x1", "b.ne\t#-24"]), 5)

    def test_what_the_tables_lack_is_listed_and_costs_a_cycle(self):
        self.assertEqual(in_order.unknown(["frobnicate\tv0.4s, v1.4s", sums(0)]), ["frobnicate\tv0.4s, v1.4s"])
        self.assertEqual(in_order.straight(["frobnicate\tv0.4s, v1.4s", sums(2)]), 2)

    def test_labels_comments_and_directives_are_passed_over(self):
        self.assertEqual(in_order.straight(["// a loop", ".text", "1:", "nop // one"]), 1)


class Model(unittest.TestCase):
    def test_a_change_of_the_simulator_makes_older_cycles_of_the_a53_void(self):
        region = counts.Region(0x1000, 1, [NOP])
        made = model.Model.__new__(model.Model)
        made.version, made.in_order = "22", "one"
        before = {core: made.key(core, region) for core in model.CORES}
        made.in_order = "two"
        after = {core: made.key(core, region) for core in model.CORES}
        self.assertEqual([core for core in model.CORES if before[core] != after[core]], ["A53"])


class Layers(unittest.TestCase):
    def test_two_depths_give_every_depth(self):
        at = [{"instructions": 100 + 10 * n, "cycles": {"A53": 7.0 + 3 * n}} for n in (1, 2)]
        whole, layer = workload.layered(*at, 30)
        self.assertEqual(layer, {"instructions": 10, "cycles": {"A53": 3.0}})
        self.assertEqual(whole, {"instructions": 400, "cycles": {"A53": 97.0}})


    def test_functions_are_layered_by_name_and_missing_ones_cost_nothing(self):
        at_one = {"A76": {"attend": 10.0, "load": 4.0}}
        at_two = {"A76": {"attend": 19.0, "load": 4.0, "grow": 1.0}}
        whole = workload.layered_functions(at_one, at_two, 12)
        self.assertEqual(whole["A76"], {"attend": 109.0, "load": 4.0, "grow": 11.0})

    def test_instances_of_one_function_share_a_name(self):
        for name in ("ocelli_kernels::int8_gemm::neon::tile::h0176ede3bce38f8a", "ocelli_kernels::int8_gemm::neon::tile::h239e3c8d7a2e9b90"):
            self.assertEqual(workload.short(name), "int8_gemm::neon::tile")
        self.assertEqual(workload.short("_$LT$a..b$u20$as$u20$c$GT$::tile"), "<a::b as c>::tile")


class Guard(unittest.TestCase):
    def test_growth_beyond_three_percent_is_found_and_shrinking_is_told_apart(self):
        before = {"same": 100, "grown": 100, "shrunk": 100, "gone": 1, "none": 0}
        now = {"same": 103, "grown": 104, "shrunk": 96, "new": 1, "none": 1}
        grown, shrunk, missing, new = guard.differences(before, now)
        self.assertEqual(grown, [("grown", 100, 104), ("none", 0, 1)])
        self.assertEqual(shrunk, [("shrunk", 100, 96)])
        self.assertEqual((missing, new), (["gone"], ["new"]))


class RandomGguf(unittest.TestCase):
    def test_a_step_multiplies_as_often_as_the_published_decoder(self):
        matrices = [c * r for name, c, r in random_gguf.tensors(30) if r > 1 and name != "token_embd.weight"]
        self.assertEqual(sum(matrices), 134_553_600)

    def test_a_file_begins_with_its_counts_and_holds_every_tensor(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "one.gguf")
            random_gguf.write(path, 1)
            plan = list(random_gguf.tensors(1))
            size = sum(random_gguf.aligned(random_gguf.data_bytes(c, r, random_gguf.Q8_0[1])) for _, c, r in plan)
            with open(path, "rb") as file:
                head = file.read(16)
            self.assertEqual(head[:8], b"GGUF\x03\0\0\0")
            self.assertEqual(int.from_bytes(head[8:], "little"), len(plan))
            self.assertTrue(size < os.path.getsize(path) < size + 4096)


if __name__ == "__main__":
    unittest.main()
