//! `ocelli doctor`: what this machine has, what is missing and how to mend it.

use crate::cli::Global;
use crate::fault::Fault;
use crate::model::{self, WORKING_BYTES};
use crate::threads;
use ocelli_boards::{Board, Facts, Health, Level, Needs, Tree, detect, report};
use ocelli_camera::device::{self, Device};
use ocelli_kernels::Compute;
use ocelli_runtime::ModelSource;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::SystemTime;

/// Runs the verb.
///
/// # Errors
///
/// No such model, an output that cannot be written.
pub fn run(global: &Global) -> Result<(), Fault> {
    let tree = Tree::new("/");
    let facts = Facts::read(&tree, SystemTime::now());
    let detection = detect(&facts, &Board::built_in());
    let health = Health::read(&tree, &detection.board);
    let needs = Needs {
        model_bytes: model_bytes(&global.model)?,
        camera: true,
        ..Needs::default()
    };
    let mut findings = report(&facts, &detection.board, &health, needs);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let ok = findings.iter().all(|finding| finding.level < Level::Fault);
    let cameras = device::list();
    let threads = threads::available();
    let kernel = Compute::new(threads).map(|compute| compute.kernel_name().to_owned());
    let kernel = kernel.unwrap_or_else(|error| format!("none: {error}"));
    let memory = health.memory.as_ref();
    if global.json {
        let findings = findings
            .iter()
            .map(|f| json!({"level": f.level.name(), "what": f.what, "advice": f.advice}));
        let fields = json!({
            "board": detection.board.name,
            "board_why": detection.why,
            "machine": facts.model,
            "cores": facts.cores,
            "threads": threads,
            "kernel": kernel,
            "memory_mb": memory.map(|memory| memory.total_mb),
            "available_mb": memory.map(|memory| memory.available_mb),
            "celsius": health.temperature.as_ref().map(|t| t.celsius),
            "cameras": cameras.iter().map(camera).collect::<Value>(),
            "findings": findings.collect::<Value>(),
            "ok": ok,
        });
        writeln!(io::stdout(), "{fields}")?;
        return Ok(());
    }
    let mut out = io::stdout();
    let machine = facts.model.as_deref().unwrap_or("this machine");
    writeln!(
        out,
        "board    {} ({machine}): {}",
        detection.board.name, detection.why
    )?;
    writeln!(out, "compute  {threads} threads, kernel {kernel}")?;
    if let Some(memory) = memory {
        let (total, available) = (memory.total_mb, memory.available_mb);
        writeln!(out, "memory   {available:.0} of {total:.0} MB available")?;
    }
    if let Some(temperature) = &health.temperature {
        writeln!(
            out,
            "heat     {:.0} °C ({})",
            temperature.celsius, temperature.zone
        )?;
    }
    for Device { facts, advice } in &cameras {
        let state = if advice.usable { "camera" } else { "no camera" };
        write!(out, "{state:<8} {}: {}", facts.path.display(), advice.what)?;
        match advice.advice.as_str() {
            "" => writeln!(out)?,
            text => writeln!(out, "; {text}")?,
        }
    }
    for finding in &findings {
        writeln!(
            out,
            "{:<8} {}: {}",
            finding.level.name(),
            finding.what,
            finding.advice
        )?;
    }
    Ok(())
}

/// Bytes of the model in memory; of a folder that is packed at start the sum of its files.
fn model_bytes(name: &str) -> Result<u64, Fault> {
    let file = match model::resolve(name)? {
        ModelSource::Embedded(_, bytes) => bytes.len() as u64,
        ModelSource::Path(path)
        | ModelSource::WithProjector(path, _)
        | ModelSource::WithVariant(path, _) => match std::fs::read_dir(&path) {
            Ok(entries) => entries
                .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
                .sum(),
            Err(_) => std::fs::metadata(&path).map_or(0, |meta| meta.len()),
        },
    };
    Ok(file.saturating_add(WORKING_BYTES))
}

fn camera(device: &Device) -> Value {
    json!({
        "path": device.facts.path.display().to_string(),
        "card": device.facts.capability.card,
        "driver": device.facts.capability.driver,
        "usable": device.advice.usable,
        "what": device.advice.what,
        "advice": device.advice.advice,
    })
}
