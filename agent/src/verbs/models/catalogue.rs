//! `ocelli pull --list`, `ocelli models --catalogue`: known models, and what fits this board.

use crate::catalogue::{KnownModel, known_models};
use crate::cli::Global;
use crate::fault::Fault;
use ocelli_boards::{Board, Facts, Tree, detect};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

/// Prints the catalogue.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn run(global: &Global) -> Result<(), Fault> {
    let models = known_models().map_err(Fault::Argument)?;
    let facts = Facts::read(&Tree::new("/"), SystemTime::now());
    let board = detect(&facts, &Board::built_in()).board;
    let mut out = io::stdout();
    for model in &models {
        let fit = facts.ram_bytes.map(|ram| model.fit(ram).text());
        let boards = model.boards();
        if global.json {
            let line = json!({
                "name": model.name, "about": model.about, "licence": model.licence,
                "repository": model.repository.to_string(), "gguf": model.gguf.to_string(),
                "safetensors_bytes": model.safetensors_bytes, "gguf_bytes": model.gguf_bytes,
                "pack_bytes": model.pack_bytes(), "running_bytes": model.running_bytes(),
                "packing_bytes": model.packing_bytes(), "board": board.name,
                "this_board": fit,
                "boards": boards.into_iter().collect::<BTreeMap<_, _>>(),
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{}", text(model, fit, &board.name, &boards))?;
        }
    }
    Ok(())
}

fn memory(mb: u32) -> String {
    match mb {
        mb if mb >= 1024 => format!("{} GB", mb / 1024),
        mb => format!("{mb} MB"),
    }
}

fn text(
    model: &KnownModel,
    fit: Option<&str>,
    board: &str,
    boards: &[(String, Vec<u32>)],
) -> String {
    let mb = |bytes: u64| bytes / 1_000_000;
    let here = fit.map_or(String::new(), |fit| {
        format!("; this board ({board}): {fit}")
    });
    let boards: Vec<String> = boards
        .iter()
        .map(|(name, sizes)| match sizes.first() {
            Some(least) => format!("{name} from {}", memory(*least)),
            None => name.clone(),
        })
        .collect();
    let boards = match boards.is_empty() {
        true => "no known board".to_owned(),
        false => boards.join(", "),
    };
    format!(
        "{:14} {}\n{:14} {}; download {} MB, pack {} MB, runs in {} MB, packs in {} MB{here}\n{:14} {boards}",
        model.name,
        model.about,
        "",
        model.licence,
        mb(model.safetensors_bytes),
        mb(model.pack_bytes()),
        mb(model.running_bytes()),
        mb(model.packing_bytes()),
        "",
    )
}
