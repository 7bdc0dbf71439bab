//! Models that are known by a name of their own, and what each takes of a board.

use crate::hub::address::Repository;
use crate::model::WORKING_BYTES;
use crate::verbs::bench::Shape;
use clap::ValueEnum;
use ocelli_boards::{Board, fits_in_memory};
use ocelli_runtime::config::ModelConfig;
use ocelli_runtime::packer::{self, PackOptions};
use serde::Deserialize;

const TEXT: &str = include_str!("../../models/catalogue.toml");
/// Length of the family's `tokenizer.json`, in bytes.
const TOKENIZER_BYTES: usize = 3_548_256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    models: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    about: String,
    repository: String,
    gguf: String,
    licence: String,
    safetensors_bytes: u64,
    gguf_bytes: Option<u64>,
    shape: String,
    vocab_size: Option<usize>,
}

/// A known model.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownModel {
    /// What `ocelli pull` calls it.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// Where its safetensors files and its ONNX export are.
    pub repository: Repository,
    /// Where its GGUF files are.
    pub gguf: Repository,
    /// Licence of the weights.
    pub licence: String,
    /// Bytes of its safetensors files.
    pub safetensors_bytes: u64,
    /// Bytes of its GGUF files in Q8_0 with the projector, if known.
    pub gguf_bytes: Option<u64>,
    /// Its shapes.
    pub config: ModelConfig,
}

/// All known models.
///
/// # Errors
///
/// What is wrong with the catalogue; never, as tests read it whole.
pub fn known_models() -> Result<Vec<KnownModel>, String> {
    let file: File = toml::from_str(TEXT).map_err(|error| error.to_string())?;
    file.models.into_iter().map(Line::model).collect()
}

impl Line {
    fn model(self) -> Result<KnownModel, String> {
        let repository = |text: &str| text.parse().map_err(|error| format!("{error}"));
        let shape = Shape::from_str(&self.shape, false)?;
        let mut config = shape.config(None);
        if let Some(vocab_size) = self.vocab_size {
            config.text.vocab_size = vocab_size;
        }
        Ok(KnownModel {
            repository: repository(&self.repository)?,
            gguf: repository(&self.gguf)?,
            name: self.name,
            about: self.about,
            licence: self.licence,
            safetensors_bytes: self.safetensors_bytes,
            gguf_bytes: self.gguf_bytes,
            config,
        })
    }
}

impl KnownModel {
    /// Bytes of its pack.
    pub fn pack_bytes(&self) -> u64 {
        packer::pack_bytes(&self.config, TOKENIZER_BYTES, &PackOptions::default())
    }

    /// Memory it needs to run, in bytes.
    pub fn running_bytes(&self) -> u64 {
        self.pack_bytes().saturating_add(WORKING_BYTES)
    }

    /// Memory that packing its safetensors files needs, in bytes.
    pub fn packing_bytes(&self) -> u64 {
        packer::working_bytes(&self.config)
    }

    /// What it takes of a board with so much memory.
    pub fn fit(&self, ram_bytes: u64) -> Fit {
        match (
            fits_in_memory(self.running_bytes(), ram_bytes),
            fits_in_memory(self.packing_bytes(), ram_bytes),
        ) {
            (true, true) => Fit::Runs,
            (true, false) => Fit::RunsPackedElsewhere,
            (false, _) => Fit::TooLarge,
        }
    }

    /// Boards that run it, with the memory sizes that do, in MB.
    pub fn boards(&self) -> Vec<(String, Vec<u32>)> {
        let boards = Board::built_in().into_iter().map(|board| {
            let runs = |mb: &u32| self.fit(u64::from(*mb) << 20) != Fit::TooLarge;
            let sizes: Vec<u32> = board.ram_mb.iter().copied().filter(runs).collect();
            (board.name.clone(), sizes)
        });
        boards.filter(|(_, sizes)| !sizes.is_empty()).collect()
    }
}

/// Whether a model suits a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It runs, and the board can pack it.
    Runs,
    /// It runs, but has to be packed on a machine with more memory.
    RunsPackedElsewhere,
    /// It does not run.
    TooLarge,
}

impl Fit {
    /// In a few words.
    pub fn text(self) -> &'static str {
        match self {
            Fit::Runs => "fits",
            Fit::RunsPackedElsewhere => "fits, pack it elsewhere",
            Fit::TooLarge => "too large",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_can_be_read_and_names_are_unique() {
        let models = known_models().unwrap();
        let mut names: Vec<_> = models.iter().map(|model| &model.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), models.len());
        for model in &models {
            assert!(model.pack_bytes() < model.safetensors_bytes, "{model:?}");
            assert!(model.running_bytes() > model.pack_bytes());
        }
    }

    #[test]
    fn boards_follow_from_sizes() {
        let models = known_models().unwrap();
        let of = |name: &str| models.iter().find(|model| model.name == name).unwrap();
        let small = of("smolvlm-256m");
        let need = small.running_bytes();
        // 70 % of the memory is for the model.
        assert_eq!(small.fit(need * 10 / 7 + 100), Fit::Runs);
        assert_eq!(small.fit(need * 10 / 7 - 100), Fit::TooLarge);
        let boards = of("smolvlm-2.2b").boards();
        assert!(
            boards
                .iter()
                .all(|(_, sizes)| sizes.iter().all(|mb| *mb >= 4096)),
            "{boards:?}"
        );
        assert!(small.boards().len() > boards.len());
    }
}
