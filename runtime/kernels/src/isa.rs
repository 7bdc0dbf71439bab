//! What this CPU can execute: the instruction set extensions the kernels care about.

use std::fmt;
use std::sync::OnceLock;

/// Extensions found on this CPU, probed once per process.
///
/// The names are those of `/proc/cpuinfo` where the two worlds agree, else Rust's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Isa {
    features: [(&'static str, bool); N_FEATURES],
}

const N_FEATURES: usize = 12;

impl Isa {
    /// Returns what the running CPU has.
    pub fn probe() -> Isa {
        static PROBED: OnceLock<Isa> = OnceLock::new();
        *PROBED.get_or_init(Isa::detect)
    }

    /// True if `feature` is one of [`Isa::features`].
    pub fn has(&self, feature: &str) -> bool {
        self.features().any(|name| name == feature)
    }

    /// Names of the extensions found, in a fixed order.
    pub fn features(&self) -> impl Iterator<Item = &'static str> {
        self.features
            .into_iter()
            .filter(|(_, found)| *found)
            .map(|(name, _)| name)
    }

    /// AVX2 with FMA and half-precision conversion.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx2(&self) -> bool {
        ["avx2", "fma", "f16c"]
            .into_iter()
            .all(|name| self.has(name))
    }

    /// AVX-512 foundation with byte and 256-bit forms, on top of [`Isa::has_avx2`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512(&self) -> bool {
        self.has_avx2()
            && ["avx512f", "avx512bw", "avx512vl"]
                .into_iter()
                .all(|name| self.has(name))
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Isa {
        use std::arch::is_x86_feature_detected as detected;
        let mut isa = Isa::default();
        let found = [
            ("avx2", detected!("avx2")),
            ("fma", detected!("fma")),
            ("f16c", detected!("f16c")),
            ("avx512f", detected!("avx512f")),
            ("avx512bw", detected!("avx512bw")),
            ("avx512vl", detected!("avx512vl")),
            ("avx512vnni", detected!("avx512vnni")),
            ("amx_int8", has_amx_int8()),
        ];
        isa.features[..found.len()].copy_from_slice(&found);
        isa
    }

    #[cfg(target_arch = "aarch64")]
    fn detect() -> Isa {
        use std::arch::is_aarch64_feature_detected as detected;
        let mut isa = Isa::default();
        let found = [
            ("neon", detected!("neon")),
            ("dotprod", detected!("dotprod")),
            ("fp16", detected!("fp16")),
            ("i8mm", detected!("i8mm")),
        ];
        isa.features[..found.len()].copy_from_slice(&found);
        isa
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn detect() -> Isa {
        Isa::default()
    }
}

/// Whether there are tile registers with products of int8, and the system lets this process use them.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_amx_int8() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // Leaf 7: tile registers, products of int8. Leaf 1: XGETBV, by the system's leave.
    const AMX_TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u32 = 1 << 17 | 1 << 18;
    let has = |register: u32, bits: u32| register & bits == bits;
    if __cpuid(0).eax < 7
        || !has(__cpuid_count(7, 0).edx, AMX_TILE_AND_INT8)
        || !has(__cpuid(1).ecx, OSXSAVE)
    {
        return false;
    }
    let states: u32;
    // SAFETY: the instruction exists where the system sets OSXSAVE.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") states, out("edx") _, options(nomem, nostack));
    }
    has(states, TILE_STATE) && tile_data_is_permitted()
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn has_amx_int8() -> bool {
    false
}

/// Asks Linux for the tile registers' 8 kB of state, for all threads of the process: a process has to.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tile_data_is_permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let status: isize;
    // SAFETY: a system call that reads and writes no memory of the process.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => status,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    status == 0
}

/// Prints the features separated by one space, or `none`.
impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for feature in self.features() {
            write!(f, "{separator}{feature}")?;
            separator = " ";
        }
        if separator.is_empty() {
            f.write_str("none")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn the_printed_list_names_each_feature_once() {
        let isa = Isa::probe();
        eprintln!("features: {isa}");
        let printed = isa.to_string();
        if isa.features().next().is_none() {
            assert_eq!(printed, "none");
        }
        for feature in isa.features() {
            assert_eq!(
                printed.split(' ').filter(|word| *word == feature).count(),
                1
            );
            assert!(isa.has(feature));
        }
        assert!(!isa.has("no such feature"));
    }
}
