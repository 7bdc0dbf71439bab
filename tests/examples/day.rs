//! Writes a day of a seed into a folder, replays it and says how fast: `day FOLDER [SEED] [STEPS]`.

#[path = "../tests/replay/day.rs"]
mod day;

use day::Plan;
use ocelli_agent::journal::{Disk, Reader};
use ocelli_agent::replay::Exact;
use std::path::Path;
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        return eprintln!("day FOLDER [SEED] [STEPS]");
    };
    let mut number = |otherwise| {
        let text = arguments.next();
        text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let plan = Plan {
        seed: number(Plan::FULL.seed),
        n_steps: number(Plan::FULL.n_steps),
        ..Plan::FULL
    };
    let begin = Instant::now();
    let recorded = day::record(Path::new(&folder), plan);
    println!(
        "recorded in {:.2} s: {recorded:?}",
        begin.elapsed().as_secs_f64()
    );
    let disk = Disk::open(Path::new(&folder)).expect("the folder was just written");
    let begin = Instant::now();
    let mut exact = Exact::new();
    for found in Reader::new(&disk).expect("the folder was just written") {
        if !exact.take(found) {
            break;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "replayed {} steps and {} outputs in {seconds:.2} s, {:.0} steps a second; the same: {}",
        exact.n_steps,
        exact.n_outputs,
        exact.n_steps as f64 / seconds,
        exact.is_whole()
    );
}
