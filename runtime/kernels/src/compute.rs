//! [`Compute`]: what a process decides once: how many threads, which int8 kernels, which float
//! tier.

use std::fmt;

use crate::int4_gemv::Int4GemvKernel;
use crate::int8_gemm::{self, Kernels, Microkernel};
use crate::int8_gemv::GemvKernel;
use crate::isa::Isa;
use crate::lanes::FloatTier;
use crate::nibble_gemv::NibbleGemvKernel;
use crate::threads::{MAX_THREADS, ThreadPool};

/// Environment variable that forces an int8 kernel by name.
pub const KERNEL_VARIABLE: &str = "OCELLI_KERNEL";

/// Threads and kernels; every parallel function of this crate takes one.
#[derive(Debug)]
pub struct Compute {
    pool: ThreadPool,
    kernels: Kernels,
}

/// Why there is no [`Compute`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ComputeError {
    /// Zero threads were asked for.
    NoThreads,
    /// More than [`MAX_THREADS`] threads were asked for.
    TooManyThreads {
        /// How many.
        wanted: usize,
    },
    /// The named kernel is not in this build or this CPU cannot run it.
    Kernel {
        /// The name asked for.
        name: String,
        /// The names this CPU can run, best first.
        available: Vec<&'static str>,
    },
}

impl fmt::Display for ComputeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComputeError::NoThreads => f.write_str("0 threads cannot compute anything"),
            ComputeError::TooManyThreads { wanted } => {
                write!(
                    f,
                    "{wanted} threads are more than the {MAX_THREADS} that are possible"
                )
            }
            ComputeError::Kernel { name, available } => {
                write!(
                    f,
                    "kernel '{name}' cannot run here; available: {}",
                    available.join(", ")
                )
            }
        }
    }
}

impl std::error::Error for ComputeError {}

impl Compute {
    /// Makes a pool of `n_threads` (the calling thread counts) with the best kernel of this CPU,
    /// or with the one that `OCELLI_KERNEL` names.
    ///
    /// # Errors
    ///
    /// Fails on 0 threads or too many, and if `OCELLI_KERNEL` names a kernel that cannot run here: a forced
    /// choice that silently did nothing would look like a measurement.
    pub fn new(n_threads: usize) -> Result<Compute, ComputeError> {
        match std::env::var_os(KERNEL_VARIABLE) {
            Some(name) => Compute::with_kernel(n_threads, &name.to_string_lossy()),
            None => {
                let best = int8_gemm::available()
                    .next()
                    .expect("the scalar kernel runs everywhere");
                Compute::with_kernels(n_threads, best)
            }
        }
    }

    /// Makes a pool of `n_threads` with the int8 kernel of this name and the float tier that goes
    /// with it.
    ///
    /// # Errors
    ///
    /// Fails on 0 threads or too many, and if the kernel cannot run here.
    pub fn with_kernel(n_threads: usize, name: &str) -> Result<Compute, ComputeError> {
        let kernels = int8_gemm::by_name(name).ok_or_else(|| ComputeError::Kernel {
            name: name.to_owned(),
            available: int8_gemm::available().map(|k| k.gemm.name()).collect(),
        })?;
        Compute::with_kernels(n_threads, kernels)
    }

    pub(crate) fn with_kernels(
        n_threads: usize,
        kernels: Kernels,
    ) -> Result<Compute, ComputeError> {
        if n_threads == 0 {
            return Err(ComputeError::NoThreads);
        }
        if n_threads > MAX_THREADS {
            return Err(ComputeError::TooManyThreads { wanted: n_threads });
        }
        Ok(Compute {
            pool: ThreadPool::new(n_threads),
            kernels,
        })
    }

    /// The threads.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// Threads that take part in a loop the calling thread starts now, itself included; see
    /// [`ThreadPool::limited`].
    pub fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// The kernel for more than one token.
    pub fn gemm(&self) -> &'static dyn Microkernel {
        self.kernels.gemm
    }

    /// The kernel for so many tokens, more than one.
    pub(crate) fn gemm_for(&self, tokens: usize) -> &'static dyn Microkernel {
        let kernel = self.gemm();
        kernel.for_few(tokens).unwrap_or(kernel)
    }

    /// The kernel for one token.
    pub fn gemv(&self) -> &'static dyn GemvKernel {
        self.kernels.gemv
    }

    /// The kernel for one token and int4 weights.
    pub fn int4_gemv(&self) -> &'static dyn Int4GemvKernel {
        self.kernels.int4_gemv
    }

    /// The kernel for one token and a plane of 4-bit halves.
    pub fn nibble_gemv(&self) -> &'static dyn NibbleGemvKernel {
        self.kernels.nibble_gemv
    }

    /// The vector width of the float functions.
    pub fn float_tier(&self) -> FloatTier {
        self.kernels.float_tier
    }

    /// Name of the GEMM kernel, which stands for the whole choice.
    pub fn kernel_name(&self) -> &'static str {
        self.kernels.gemm.name()
    }
}

/// One line for a start-up log: kernels, float tier, threads, CPU features.
impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} and {}, floats {}, {} threads, cpu: {}",
            self.gemm().name(),
            self.gemv().name(),
            self.float_tier().name(),
            self.pool.size(),
            Isa::probe()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_or_too_many_threads_and_unknown_kernels_are_errors() {
        assert_eq!(
            Compute::with_kernel(0, "scalar-qd8qc8w-1x8").unwrap_err(),
            ComputeError::NoThreads
        );
        let error = Compute::new(1025).unwrap_err().to_string();
        assert!(error.contains("1025") && error.contains("1024"), "{error}");
        let error = Compute::with_kernel(1, "abacus").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("'abacus'") && text.contains("scalar-qd8qc8w-1x8"),
            "{text}"
        );
    }

    #[test]
    fn every_available_kernel_can_be_asked_for_by_name() {
        for kernels in int8_gemm::available() {
            let compute = Compute::with_kernel(2, kernels.gemm.name()).unwrap();
            assert_eq!(compute.kernel_name(), kernels.gemm.name());
            assert_eq!(compute.n_threads(), 2);
            assert!(compute.to_string().contains(compute.gemv().name()));
        }
    }

    /// A machine that tests less than it should must say so: each CI job names its kernel.
    #[test]
    fn the_expected_kernel_is_the_one_selected() {
        let names: Vec<_> = int8_gemm::available().map(|k| k.gemm.name()).collect();
        let compute = Compute::new(1).unwrap();
        eprintln!(
            "selected: {compute}; covered by the tests: {}",
            names.join(", ")
        );
        if let Ok(expected) = std::env::var("OCELLI_EXPECT_KERNEL") {
            assert_eq!(compute.kernel_name(), expected, "covered here: {names:?}");
        }
    }
}
