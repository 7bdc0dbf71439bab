//! What this machine can do at most, to hold a measurement against: reads of memory, and int8
//! products that never leave the registers. Nothing here looks at a clock.

use std::hint::black_box;

use crate::compute::Compute;
use crate::isa::Isa;

/// Bytes of one share of [`read_all`]: long enough that handing it out costs nothing.
const SHARE_BYTES: usize = 1 << 20;
/// Sums kept apart, so that no addition waits for another.
const LANES: usize = 16;
/// Shares of [`DotProduct::run`] for each thread, so that none waits long for the last.
const SHARES_PER_THREAD: usize = 16;

/// Reads every word of `buffer` once, all threads sharing the work, and returns their sum.
pub fn read_all(compute: &Compute, buffer: &[u64]) -> u64 {
    let shares: Vec<&[u64]> = buffer.chunks(SHARE_BYTES / 8).collect();
    let mut sums = vec![0_u64; shares.len()];
    compute
        .pool()
        .for_each_chunk_mut(&mut sums, 1, &|share, sum| sum[0] = sum_of(shares[share]));
    sums.into_iter().fold(0, u64::wrapping_add)
}

fn sum_of(words: &[u64]) -> u64 {
    let (blocks, rest) = words.as_chunks::<LANES>();
    let mut sums = [0_u64; LANES];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter()
        .chain(rest)
        .fold(0, |sum, word| sum.wrapping_add(*word))
}

/// The densest int8 product of this CPU that our kernels know, on registers only.
#[derive(Clone, Copy, Debug)]
pub struct DotProduct {
    name: &'static str,
    macs_per_step: u64,
    // Found only behind the probe of the instructions it uses.
    steps: fn(u64),
}

impl DotProduct {
    /// The product the running CPU is fastest at.
    pub fn of_this_cpu() -> DotProduct {
        of_this_arch(Isa::probe()).unwrap_or(DotProduct {
            name: "i32 multiply-add",
            macs_per_step: 16,
            steps: scalar_steps,
        })
    }

    /// The instructions, e.g. `vpdpbusd zmm`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs about `steps` steps on each thread; returns the int8 operations done, two a
    /// multiply-accumulate.
    pub fn run(&self, compute: &Compute, steps: u64) -> u64 {
        let n_shares = compute.n_threads() * SHARES_PER_THREAD;
        let share = steps.div_ceil(SHARES_PER_THREAD as u64).max(1);
        compute.pool().run(n_shares, &|_| (self.steps)(share));
        2 * self.macs_per_step * share * n_shares as u64
    }
}

/// A place in the program that `tools/armcost` sees when it runs it in an emulator; does nothing.
/// `PHASE` is 0 to 15.
#[inline(always)]
pub fn mark<const PHASE: u32>() {
    const { assert!(PHASE < 16) };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: HINT 96 to 111 is unallocated, and unallocated hints execute as NOP on every core.
    unsafe {
        std::arch::asm!("hint #{}", const 96 + PHASE, options(nostack, preserves_flags));
    }
}

fn scalar_steps(steps: u64) {
    let mut sums = [0_i32; 16];
    let (x, w) = (black_box([3_i32; 16]), black_box([5_i32; 16]));
    for _ in 0..steps {
        for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
            *sum = sum.wrapping_add(x.wrapping_mul(w));
        }
        sums = black_box(sums);
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn of_this_arch(_: Isa) -> Option<DotProduct> {
    None
}

#[cfg(target_arch = "x86_64")]
fn of_this_arch(isa: Isa) -> Option<DotProduct> {
    if isa.has_avx512() && isa.has("amx_int8") {
        return Some(DotProduct {
            name: "tdpbssd",
            macs_per_step: 4 * 16 * 16 * 64,
            steps: amx_steps,
        });
    }
    if isa.has_avx512() && isa.has("avx512vnni") {
        return Some(DotProduct {
            name: "vpdpbusd zmm",
            macs_per_step: 16 * 64,
            // SAFETY: the instructions were probed above.
            steps: |steps| unsafe { avx512_vnni_steps(steps) },
        });
    }
    isa.has_avx2().then_some(DotProduct {
        name: "vpmaddubsw, vpmaddwd, vpaddd ymm",
        macs_per_step: 12 * 32,
        // SAFETY: the instructions were probed above.
        steps: |steps| unsafe { avx2_steps(steps) },
    })
}

#[cfg(target_arch = "aarch64")]
fn of_this_arch(isa: Isa) -> Option<DotProduct> {
    if isa.has("dotprod") {
        return Some(DotProduct {
            name: "sdot",
            macs_per_step: 24 * 16,
            // SAFETY: the instruction was probed above.
            steps: |steps| unsafe { sdot_steps(steps) },
        });
    }
    isa.has("neon").then_some(DotProduct {
        name: "smull, smlal2, sadalp",
        macs_per_step: 8 * 16,
        // SAFETY: the instructions were probed above.
        steps: |steps| unsafe { smull_steps(steps) },
    })
}

/// Four products of tile registers a step, where the best kernel is the one that has them.
#[cfg(target_arch = "x86_64")]
fn amx_steps(steps: u64) {
    let best = crate::int8_gemm::available().next();
    best.expect("the scalar kernel runs everywhere")
        .gemm
        .run_in_registers(steps);
}

/// Sixteen independent chains of VPDPBUSD a step.
///
/// # Safety
///
/// The CPU has AVX-512 F and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_vnni_steps(steps: u64) {
    // SAFETY: registers only; every one that is written is named.
    unsafe {
        std::arch::asm!(
            "vpxord zmm16, zmm16, zmm16",
            "vpxord zmm17, zmm17, zmm17",
            "2:",
            "vpdpbusd zmm0, zmm16, zmm17", "vpdpbusd zmm1, zmm16, zmm17",
            "vpdpbusd zmm2, zmm16, zmm17", "vpdpbusd zmm3, zmm16, zmm17",
            "vpdpbusd zmm4, zmm16, zmm17", "vpdpbusd zmm5, zmm16, zmm17",
            "vpdpbusd zmm6, zmm16, zmm17", "vpdpbusd zmm7, zmm16, zmm17",
            "vpdpbusd zmm8, zmm16, zmm17", "vpdpbusd zmm9, zmm16, zmm17",
            "vpdpbusd zmm10, zmm16, zmm17", "vpdpbusd zmm11, zmm16, zmm17",
            "vpdpbusd zmm12, zmm16, zmm17", "vpdpbusd zmm13, zmm16, zmm17",
            "vpdpbusd zmm14, zmm16, zmm17", "vpdpbusd zmm15, zmm16, zmm17",
            "dec {steps}",
            "jnz 2b",
            steps = inout(reg) steps => _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
            out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
            out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
            out("zmm16") _, out("zmm17") _,
            options(nomem, nostack),
        );
    }
}

/// Twelve independent chains of VPMADDUBSW, VPMADDWD, VPADDD a step.
///
/// # Safety
///
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2_steps(steps: u64) {
    macro_rules! chain {
        ($acc:literal) => {
            concat!(
                "vpmaddubsw ymm15, ymm12, ymm13\n",
                "vpmaddwd ymm15, ymm15, ymm14\n",
                "vpaddd ",
                $acc,
                ", ",
                $acc,
                ", ymm15"
            )
        };
    }
    // SAFETY: registers only; every one that is written is named.
    unsafe {
        std::arch::asm!(
            "vpxor ymm12, ymm12, ymm12",
            "vpxor ymm13, ymm13, ymm13",
            "vpxor ymm14, ymm14, ymm14",
            "2:",
            chain!("ymm0"), chain!("ymm1"), chain!("ymm2"), chain!("ymm3"),
            chain!("ymm4"), chain!("ymm5"), chain!("ymm6"), chain!("ymm7"),
            chain!("ymm8"), chain!("ymm9"), chain!("ymm10"), chain!("ymm11"),
            "dec {steps}",
            "jnz 2b",
            steps = inout(reg) steps => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nomem, nostack),
        );
    }
}

/// Twenty-four independent chains of SDOT a step.
///
/// # Safety
///
/// The CPU has FEAT_DotProd.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot_steps(steps: u64) {
    // SAFETY: registers only; every one that is written is named.
    unsafe {
        std::arch::asm!(
            "movi v30.16b, #0",
            "movi v31.16b, #0",
            "2:",
            "sdot v0.4s, v30.16b, v31.16b", "sdot v1.4s, v30.16b, v31.16b",
            "sdot v2.4s, v30.16b, v31.16b", "sdot v3.4s, v30.16b, v31.16b",
            "sdot v4.4s, v30.16b, v31.16b", "sdot v5.4s, v30.16b, v31.16b",
            "sdot v6.4s, v30.16b, v31.16b", "sdot v7.4s, v30.16b, v31.16b",
            "sdot v8.4s, v30.16b, v31.16b", "sdot v9.4s, v30.16b, v31.16b",
            "sdot v10.4s, v30.16b, v31.16b", "sdot v11.4s, v30.16b, v31.16b",
            "sdot v12.4s, v30.16b, v31.16b", "sdot v13.4s, v30.16b, v31.16b",
            "sdot v14.4s, v30.16b, v31.16b", "sdot v15.4s, v30.16b, v31.16b",
            "sdot v16.4s, v30.16b, v31.16b", "sdot v17.4s, v30.16b, v31.16b",
            "sdot v18.4s, v30.16b, v31.16b", "sdot v19.4s, v30.16b, v31.16b",
            "sdot v20.4s, v30.16b, v31.16b", "sdot v21.4s, v30.16b, v31.16b",
            "sdot v22.4s, v30.16b, v31.16b", "sdot v23.4s, v30.16b, v31.16b",
            "subs {steps}, {steps}, #1",
            "b.ne 2b",
            steps = inout(reg) steps => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v30") _, out("v31") _,
            options(nomem, nostack),
        );
    }
}

/// Eight independent chains of SMULL, SMLAL2, SADALP a step, the products eight chains ahead of
/// their sums so that an in-order core does not wait.
///
/// # Safety
///
/// The CPU has NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn smull_steps(steps: u64) {
    // SAFETY: registers only; every one that is written is named.
    unsafe {
        std::arch::asm!(
            "movi v30.16b, #0",
            "movi v31.16b, #0",
            "2:",
            "smull v16.8h, v30.8b, v31.8b", "smull v17.8h, v30.8b, v31.8b",
            "smull v18.8h, v30.8b, v31.8b", "smull v19.8h, v30.8b, v31.8b",
            "smull v20.8h, v30.8b, v31.8b", "smull v21.8h, v30.8b, v31.8b",
            "smull v22.8h, v30.8b, v31.8b", "smull v23.8h, v30.8b, v31.8b",
            "smlal2 v16.8h, v30.16b, v31.16b", "smlal2 v17.8h, v30.16b, v31.16b",
            "smlal2 v18.8h, v30.16b, v31.16b", "smlal2 v19.8h, v30.16b, v31.16b",
            "smlal2 v20.8h, v30.16b, v31.16b", "smlal2 v21.8h, v30.16b, v31.16b",
            "smlal2 v22.8h, v30.16b, v31.16b", "smlal2 v23.8h, v30.16b, v31.16b",
            "sadalp v0.4s, v16.8h", "sadalp v1.4s, v17.8h",
            "sadalp v2.4s, v18.8h", "sadalp v3.4s, v19.8h",
            "sadalp v4.4s, v20.8h", "sadalp v5.4s, v21.8h",
            "sadalp v6.4s, v22.8h", "sadalp v7.4s, v23.8h",
            "subs {steps}, {steps}, #1",
            "b.ne 2b",
            steps = inout(reg) steps => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v30") _, out("v31") _,
            options(nomem, nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_buffer_is_read_once_whatever_the_threads() {
        for n_threads in [1, 3] {
            let compute = Compute::new(n_threads).unwrap();
            for len in [0, 1, 17, SHARE_BYTES / 8 - 1, SHARE_BYTES / 8 + 5] {
                let buffer: Vec<u64> = (0..len as u64).map(|i| i * i + 1).collect();
                let expected = buffer.iter().fold(0_u64, |sum, w| sum.wrapping_add(*w));
                assert_eq!(read_all(&compute, &buffer), expected, "{len} words");
            }
        }
    }

    #[test]
    fn a_dot_product_counts_two_operations_a_multiply_accumulate_on_every_thread() {
        let product = DotProduct::of_this_cpu();
        eprintln!("the densest product here: {}", product.name());
        for n_threads in [1, 2] {
            let compute = Compute::new(n_threads).unwrap();
            let ops = product.run(&compute, 1600);
            assert_eq!(ops, 2 * product.macs_per_step * 1600 * n_threads as u64);
        }
        mark::<0>();
        mark::<15>();
    }
}
