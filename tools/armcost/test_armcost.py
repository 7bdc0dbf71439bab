"""Tests of the parts of armcost that need no emulator: `python3 -m unittest discover -s tools/armcost`."""

import os
import tempfile
import unittest

import counts
import guard
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


class Model(unittest.TestCase):
    def test_the_a53_pays_for_each_full_register_it_loads(self):
        for line, registers in (
            ("ldr\tq0, [x0]", 1),
            ("ldur\tq0, [x0, #8]", 1),
            ("ldp\tq0, q1, [x0], #32", 2),
            ("ldr\td0, [x0]", 0),
            ("ldp\td0, d1, [x0]", 0),
            ("ldr\tx0, [x1]", 0),
            ("ld1\t{ v0.16b, v1.16b }, [x0]", 2),
            ("ld1\t{ v0.8b }, [x0]", 0),
            ("ld1r\t{ v0.4s }, [x0]", 0),
            ("str\tq0, [x0]", 0),
        ):
            self.assertEqual(model.wide_loads([line]), registers, line)


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
