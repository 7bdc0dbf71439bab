//! Probes: small inputs a pack carries, with what they must give, so that a kernel that computes
//! wrongly on this CPU is found before it answers.
//!
//! Made when a pack is installed, with the scalar kernels, which are the definition of all others:
//!
//! | probe | input | must give | holds |
//! |---|---|---|---|
//! | [`ProductProbe`] | seeded int8 rows times some panels of one matrix, one token and several | CRC-32 of the f32 bits | to the last bit |
//! | [`TextProbe`] | a short text | its token ids; logits after them; greedy tokens | ids and tokens exactly, logits within [`TOLERANCE`] |
//! | [`VisionProbe`] | a seeded frame of one image token, through the whole tower | some image features | within [`TOLERANCE`] |
//!
//! Integer products have the same bits on every kernel. Float functions differ between vector widths
//! in the last bits, which now and then moves an activation to the neighbouring int8 value: hence
//! the tolerance.

mod product;
mod stages;

pub use product::ProductProbe;
pub use stages::{TextProbe, VisionProbe};

use crate::error::{LoadError, RunError};
use crate::pack::{Layout, OpenError, Pack, PackError, PlannedTensor, replace_blob};
use crate::weights::Region;
use ocelli_kernels::{Compute, int8_gemm};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::sync::Arc;

/// Name of the blob that holds the probes of a pack.
pub const BLOB: &str = "probes";
/// Bytes that blob takes in every pack, zeros behind the probes; a pack without probes has only zeros.
pub const BLOB_BYTES: usize = 4096;
/// Largest difference of a logit or an image feature, as a part of the root mean square of all of
/// them. `docs/pack.md` says what was measured.
pub const TOLERANCE: f32 = 0.25;

/// What the kernels of this CPU must compute on one pack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// One for each kind of matrix.
    pub products: Vec<ProductProbe>,
    /// The decoder.
    pub text: TextProbe,
    /// Vision tower and connector; `None` for a model that reads text only.
    pub vision: Option<VisionProbe>,
}

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The products: some milliseconds.
    Products,
    /// Everything: as long as a short answer.
    Whole,
}

/// Why probes could not be made, or do not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// A probe gave something else than it must.
    #[error(
        "{origin}: kernel {kernel} fails the probe of {probe}: {difference}; {}",
        advice(kernel)
    )]
    Mismatch {
        /// The pack.
        origin: String,
        /// Name of the GEMM kernel, which stands for the whole choice.
        kernel: &'static str,
        /// What was probed: a tensor, the decoder, the vision tower.
        probe: String,
        /// The first difference.
        difference: String,
    },
    /// The probes themselves are damaged, or there is no room for them.
    #[error(transparent)]
    Pack(#[from] OpenError),
    /// The probes could not be put into the pack.
    #[error(transparent)]
    Write(#[from] PackError),
    /// The model of the pack does not start.
    #[error(transparent)]
    Load(Box<LoadError>),
    /// The model of the pack does not run.
    #[error("{origin}: the probe of {probe} does not run: {source}")]
    Run {
        /// The pack.
        origin: String,
        /// What was probed.
        probe: String,
        /// What the engine reported.
        source: Box<RunError>,
    },
}

impl From<LoadError> for ProbeError {
    fn from(error: LoadError) -> ProbeError {
        ProbeError::Load(Box::new(error))
    }
}

/// What to do about a kernel that fails.
fn advice(kernel: &str) -> String {
    let others: Vec<&str> = int8_gemm::available()
        .map(|kernels| kernels.gemm.name())
        .filter(|name| *name != kernel)
        .collect();
    let copy = "if every kernel fails, the pack is damaged: pack or copy the model again";
    match others.is_empty() {
        true => "pack or copy the model again".to_owned(),
        false => format!(
            "choose another kernel with OCELLI_KERNEL={}; {copy}",
            others.join(" or ")
        ),
    }
}

impl Probes {
    /// Makes the probes of a pack with the scalar kernels.
    ///
    /// # Errors
    ///
    /// A pack whose model does not start or run.
    pub fn make(pack: &Arc<Pack>, threads: usize) -> Result<Probes, ProbeError> {
        Probes::computed_by(pack, &Probes::scalar(threads)?)
    }

    /// The definition that probes are made by.
    fn scalar(threads: usize) -> Result<Arc<Compute>, ProbeError> {
        let scalar = int8_gemm::available()
            .last()
            .expect("the scalar kernel runs everywhere");
        let compute =
            Compute::with_kernel(threads, scalar.gemm.name()).map_err(LoadError::Compute)?;
        Ok(Arc::new(compute))
    }

    /// What other kernels make of the same inputs, for measuring how far they are apart.
    ///
    /// # Errors
    ///
    /// A pack whose model does not start or run.
    pub fn computed_by(pack: &Arc<Pack>, compute: &Arc<Compute>) -> Result<Probes, ProbeError> {
        Ok(Probes {
            products: product::make(pack, compute)?,
            text: TextProbe::make(pack, compute)?,
            vision: VisionProbe::make(pack, compute)?,
        })
    }

    /// Largest differences of logits and of image features, as parts of the root mean squares of
    /// `other`'s.
    pub fn distance(&self, other: &Probes) -> (f32, f32) {
        let far = |a: &mut dyn Iterator<Item = (f32, f32)>, rms: f32| {
            a.map(|(a, b)| (a - b).abs() / rms).fold(0.0, f32::max)
        };
        let logits = self.text.logits.iter().zip(&other.text.logits);
        let logits = far(&mut logits.map(|(a, b)| (a.1, b.1)), other.text.rms);
        let features = match (&self.vision, &other.vision) {
            (Some(a), Some(b)) => {
                let pairs = a.features.iter().copied().zip(b.features.iter().copied());
                far(&mut { pairs }, b.rms)
            }
            _ => 0.0,
        };
        (logits, features)
    }

    /// The probes a pack carries, if it does.
    ///
    /// # Errors
    ///
    /// A blob that holds no probes and is not empty.
    pub fn of(pack: &Pack) -> Result<Option<Probes>, OpenError> {
        let Ok(blob) = pack.blob(BLOB) else {
            return Ok(None);
        };
        if blob.len() > BLOB_BYTES || blob.iter().all(|byte| *byte == 0) {
            return match blob.len() > BLOB_BYTES {
                true => Err(pack.damaged(format!(
                    "the blob {BLOB} has {} bytes, the limit is {BLOB_BYTES}",
                    blob.len()
                ))),
                false => Ok(None),
            };
        }
        let probes: Probes = postcard::take_from_bytes(blob)
            .map_err(|error| pack.damaged(format!("the blob {BLOB} cannot be read: {error}")))?
            .0;
        probes.text.check_ids(pack)?;
        Ok(Some(probes))
    }

    /// The bytes of the blob, [`BLOB_BYTES`] long.
    ///
    /// # Errors
    ///
    /// More probes than there is room for.
    pub(crate) fn to_blob(&self, pack: &Pack) -> Result<Vec<u8>, OpenError> {
        let mut bytes = postcard::to_stdvec(self)
            .map_err(|error| pack.damaged(format!("the probes cannot be written: {error}")))?;
        if bytes.len() > BLOB_BYTES {
            return Err(pack.damaged(format!(
                "the probes take {} bytes, the limit is {BLOB_BYTES}",
                bytes.len()
            )));
        }
        bytes.resize(BLOB_BYTES, 0);
        Ok(bytes)
    }

    /// Runs the probes on the kernels of `compute`.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Mismatch`] for the first that does not hold.
    pub fn check(
        &self,
        pack: &Arc<Pack>,
        compute: &Arc<Compute>,
        depth: Depth,
    ) -> Result<(), ProbeError> {
        let mismatch = |(probe, difference): (String, String)| ProbeError::Mismatch {
            origin: pack.origin().to_owned(),
            kernel: compute.kernel_name(),
            probe,
            difference,
        };
        for product in &self.products {
            if let Some(difference) = product.difference(pack, compute)? {
                return Err(mismatch((format!("tensor {}", product.tensor), difference)));
            }
        }
        if depth == Depth::Products {
            return Ok(());
        }
        if let Some(difference) = self.text.difference(pack, compute)? {
            return Err(mismatch(("the decoder".to_owned(), difference)));
        }
        match &self.vision {
            Some(vision) => match vision.difference(pack, compute)? {
                Some(difference) => Err(mismatch(("the vision tower".to_owned(), difference))),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// Makes the probes of a pack that was just written, and puts them into the file, which is open for
/// reading and writing here and nowhere else; `origin` names it in errors. Returns on how many threads,
/// of those asked for, they were computed.
///
/// # Errors
///
/// A pack whose model does not start or run; whatever reading and writing reports.
pub fn put_into(file: &File, origin: &str, threads: usize) -> Result<usize, ProbeError> {
    let region = Region::of_file(file).map_err(PackError::Io)?;
    let pack = Arc::new(Pack::from_region(region, origin)?);
    let compute = Probes::scalar(threads)?;
    let blob = Probes::computed_by(&pack, &compute)?.to_blob(&pack)?;
    let (header, start) = (pack.header().clone(), pack.data_start());
    drop(pack);
    replace_blob(&mut &*file, header, start, BLOB, &blob)?;
    Ok(compute.pool().size())
}

/// The line of the tensor table for the probes of a pack.
pub fn planned() -> PlannedTensor {
    PlannedTensor {
        name: BLOB.to_owned(),
        layout: Layout::Bytes,
        shape: [1, BLOB_BYTES],
        group: 0,
    }
}

/// The first of some numbers that is farther from what it must be than the tolerance, in words.
fn first_far<'a>(
    what: &str,
    pairs: impl IntoIterator<Item = (usize, &'a f32, f32)>,
    rms: f32,
) -> Option<String> {
    let limit = TOLERANCE * rms;
    for (id, wanted, found) in pairs {
        // A comparison that NaN fails.
        let is_near = (found - wanted).abs() <= limit;
        if !is_near {
            return Some(format!(
                "{what} {id} is {found}, it must be {wanted} within {limit}"
            ));
        }
    }
    None
}

/// Root mean square.
fn root_mean_square(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    (sum / values.len().max(1) as f64).sqrt() as f32
}
