//! How change detection does on rendered clips: false triggers an hour, missed entries and delay, by kind of clip
//! and sensitivity, beside two plain rivals on the same clips.
//!
//! ```sh
//! cargo run --release -p ocelli-camera --example change_report            # the table of docs/camera.md
//! cargo run --release -p ocelli-camera --example change_report -- tune    # on the seeds used for tuning
//! cargo run --release -p ocelli-camera --example change_report -- svg F   # and the curve as an SVG picture
//! cargo run --release -p ocelli-camera --example change_report -- sheets D # pictures of each kind, as PGM
//! ```

#[path = "../tests/clips/clips.rs"]
mod clips;
#[path = "change_report/curve.rs"]
mod curve;

use std::path::Path;
use std::time::Duration;

use clips::clip::{Clip, Kind};
use clips::rivals::{Reference, Rival};
use clips::scene::{HEIGHT, WIDTH};
use clips::score::{Score, Tally};
use ocelli_camera::Luma;
use ocelli_camera::change::{ChangeDetector, ChangeSettings};
use ocelli_camera::zone::Sensitivity;

/// Seeds that thresholds were chosen on, and seeds that figures are reported on.
const TUNE: std::ops::Range<u64> = 100..103;
const REPORT: std::ops::Range<u64> = 900..906;
/// Length of a clip in seconds.
const SECONDS: f32 = 600.0;
const SENSITIVITIES: [i64; 5] = [10, 30, 50, 70, 90];
const THRESHOLDS: [f32; 5] = [24.0, 16.0, 11.0, 7.0, 4.5];
/// Setting of each way that the table by kind of clip shows.
const MIDDLE: usize = 2;

/// A way to detect change at one setting.
enum Watcher {
    Detector(Box<ChangeDetector>),
    Rival(Rival),
}

impl Watcher {
    fn active(&mut self, luma: &Luma, time: f32) -> bool {
        match self {
            Watcher::Detector(detector) => {
                detector
                    .step(luma, Duration::from_secs_f32(time))
                    .whole
                    .active
            }
            Watcher::Rival(rival) => rival.step(luma),
        }
    }
}

/// The three ways.
pub(crate) const WAYS: [&str; 3] = ["ocelli", "frame difference", "running mean"];

fn watchers(way: usize) -> Vec<Watcher> {
    let detector = |sensitivity: &i64| {
        let sensitivity = Sensitivity::try_from(*sensitivity).expect("1 to 100");
        let settings = ChangeSettings {
            sensitivity,
            ..ChangeSettings::default()
        };
        Watcher::Detector(Box::new(
            ChangeDetector::new(settings, Vec::new()).expect("no zones, usual times"),
        ))
    };
    let rival =
        |reference| move |threshold: &f32| Watcher::Rival(Rival::new(reference, *threshold));
    match way {
        0 => SENSITIVITIES.iter().map(detector).collect(),
        1 => THRESHOLDS.iter().map(rival(Reference::LastFrame)).collect(),
        _ => THRESHOLDS
            .iter()
            .map(rival(Reference::RunningMean))
            .collect(),
    }
}

/// Scores by way and setting.
pub(crate) type Scores = Vec<Vec<Score>>;

fn empty() -> Scores {
    vec![vec![Score::default(); SENSITIVITIES.len()]; WAYS.len()]
}

fn add(total: &mut Scores, more: &Scores) {
    for (total, more) in total.iter_mut().flatten().zip(more.iter().flatten()) {
        total.add(more);
    }
}

fn watch(kind: Kind, seed: u64, busy: bool) -> Scores {
    let mut clip = Clip::new(kind, seed, SECONDS, busy);
    let mut all: Vec<Vec<(Watcher, Tally)>> = (0..WAYS.len())
        .map(|way| {
            watchers(way)
                .into_iter()
                .map(|watcher| (watcher, Tally::default()))
                .collect()
        })
        .collect();
    for (time, luma) in clip.by_ref() {
        for (watcher, tally) in all.iter_mut().flatten() {
            tally.step(time, watcher.active(&luma, time));
        }
    }
    let score = |way: Vec<(Watcher, Tally)>| {
        way.iter()
            .map(|(_, tally)| tally.score(&clip.visits))
            .collect()
    };
    all.into_iter().map(score).collect()
}

/// Every clip of a kind; half of them quiet, the quiet and the busy ones on a thread each.
fn watch_kind(kind: Kind, seeds: std::ops::Range<u64>) -> Scores {
    let mut total = empty();
    std::thread::scope(|scope| {
        let halves = [false, true].map(|busy| {
            let seeds = seeds.clone();
            scope.spawn(move || {
                seeds
                    .map(|seed| watch(kind, seed, busy))
                    .collect::<Vec<_>>()
            })
        });
        for half in halves {
            for scores in half.join().expect("a clip renders") {
                add(&mut total, &scores);
            }
        }
    });
    total
}

fn report(seeds: std::ops::Range<u64>) -> Scores {
    let mut total = empty();
    println!("false triggers an hour / missed entries % / median and 90 % delay in s");
    println!(
        "| clips | {} | {} at {} | {} at {} |",
        WAYS[0], WAYS[1], THRESHOLDS[MIDDLE], WAYS[2], THRESHOLDS[MIDDLE]
    );
    println!("|---|---|---|---|");
    for kind in Kind::ALL {
        let scores = watch_kind(kind, seeds.clone());
        let cells: Vec<String> = scores.iter().map(|way| cell(&way[MIDDLE])).collect();
        println!("| {} | {} |", kind.name(), cells.join(" | "));
        add(&mut total, &scores);
    }
    println!(
        "\n| setting | false an hour | missed | median delay | 90 % delay |\n|---|---|---|---|---|"
    );
    for (way, name) in WAYS.iter().enumerate() {
        for (setting, score) in total[way].iter().enumerate() {
            let value = if way == 0 {
                SENSITIVITIES[setting] as f32
            } else {
                THRESHOLDS[setting]
            };
            println!(
                "| {name} {value} | {:.1} | {:.1} % | {:.1} s | {:.1} s |",
                score.false_an_hour(),
                score.missed_percent(),
                score.delay(0.5),
                score.delay(0.9)
            );
        }
    }
    let all = &total[0][MIDDLE];
    println!(
        "\n{:.1} hours, {} entries",
        all.seconds / 3600.0,
        all.entries
    );
    total
}

fn cell(score: &Score) -> String {
    format!(
        "{:.1} / {:.1} % / {:.1}, {:.1} s",
        score.false_an_hour(),
        score.missed_percent(),
        score.delay(0.5),
        score.delay(0.9)
    )
}

/// Four moments of a busy clip of each kind, side by side.
fn sheets(folder: &Path) -> std::io::Result<()> {
    for kind in Kind::ALL {
        let mut clip = Clip::new(kind, TUNE.start, 120.0, true);
        let first = clip
            .visits
            .first()
            .map_or(30.0, |visit| (visit.start + visit.end()) / 2.0);
        let mut sheet = vec![0u8; WIDTH * 4 * HEIGHT];
        let moments = [10.0, first, first + 0.2, 100.0];
        while let Some((time, _)) = clip.next() {
            for (place, moment) in moments.iter().enumerate() {
                if (time - moment).abs() < 0.1 {
                    for (row, line) in clip.picture().chunks_exact(WIDTH).enumerate() {
                        sheet[(row * 4 + place) * WIDTH..][..WIDTH].copy_from_slice(line);
                    }
                }
            }
        }
        let mut file = format!("P5\n{} {HEIGHT}\n255\n", WIDTH * 4).into_bytes();
        file.append(&mut sheet);
        std::fs::write(
            folder.join(format!("{}.pgm", kind.name().replace(' ', "-"))),
            file,
        )?;
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["tune"] => drop(report(TUNE)),
        ["sheets", folder] => sheets(Path::new(folder))?,
        ["svg", file] => std::fs::write(file, curve::svg(&report(REPORT)))?,
        _ => drop(report(REPORT)),
    }
    Ok(())
}
