//! Change detection on rendered clips, and picture quality on the project's sample pictures.

#[path = "clips.rs"]
#[allow(dead_code, reason = "the report uses the rest")]
mod clips;

use std::time::Duration;

use clips::clip::{Clip, Kind};
use clips::score::{Score, Tally};
use ocelli_camera::Rgb;
use ocelli_camera::change::{Cause, ChangeDetector, ChangeSettings};
use ocelli_camera::quality::{Finding, QualityLimits, judge_one};

const SEED: u64 = 7;
const SECONDS: f32 = 180.0;

fn detector() -> ChangeDetector {
    ChangeDetector::new(ChangeSettings::default(), Vec::new()).expect("usual settings")
}

fn watch(kind: Kind, busy: bool) -> Score {
    let mut clip = Clip::new(kind, SEED, SECONDS, busy);
    let (mut detector, mut tally) = (detector(), Tally::default());
    for (time, luma) in clip.by_ref() {
        tally.step(
            time,
            detector
                .step(&luma, Duration::from_secs_f32(time))
                .whole
                .active,
        );
    }
    tally.score(&clip.visits)
}

#[test]
fn quiet_clips_cause_few_triggers() {
    let most = |kind| match kind {
        Kind::Clouds => 6,
        Kind::Shake => 4,
        Kind::Rain => 3,
        Kind::Foliage => 2,
        Kind::Switch => 1,
        _ => 0,
    };
    for kind in Kind::ALL {
        let score = watch(kind, false);
        assert!(
            score.false_triggers <= most(kind),
            "{}: {}",
            kind.name(),
            score.false_triggers
        );
    }
}

#[test]
fn most_visits_are_seen_within_a_second() {
    let (mut all, mut late) = (Score::default(), 0);
    for kind in Kind::ALL {
        let score = watch(kind, true);
        late += score.delays.iter().filter(|delay| **delay > 1.0).count();
        all.add(&score);
    }
    assert!(all.entries >= 30, "{} visits", all.entries);
    assert!(
        all.missed * 6 <= all.entries,
        "{} of {} missed",
        all.missed,
        all.entries
    );
    assert!(
        late * 5 <= all.delays.len(),
        "{late} of {} late",
        all.delays.len()
    );
}

#[test]
fn the_same_clip_gives_the_same_answers_bit_for_bit() {
    let digest = |_| {
        let mut detector = detector();
        let mut mix = 0u64;
        for (time, luma) in Clip::new(Kind::Foliage, SEED, 60.0, true) {
            let change = detector.step(&luma, Duration::from_secs_f32(time));
            let moved = change
                .cells
                .iter()
                .map(|(column, row)| u64::from(row * 40 + column));
            for value in moved.chain([u64::from(change.unsteady_permille), change.cause as u64]) {
                mix = (mix.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
            }
        }
        mix
    };
    assert_eq!([0, 1].map(digest), [DIGEST; 2]);
}

/// Answers on the clip above, on every machine. A change of the detector changes it.
const DIGEST: u64 = 13_322_587_217_975_429_385;

#[test]
fn a_light_switch_is_told_as_lighting() {
    let mut detector = detector();
    let mut causes = Vec::new();
    for (time, luma) in Clip::new(Kind::Switch, SEED, 40.0, false) {
        causes.push(detector.step(&luma, Duration::from_secs_f32(time)).cause);
    }
    assert!(causes.contains(&Cause::Lighting) && !causes.contains(&Cause::Shake));
}

fn samples() -> Vec<(String, Rgb)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/samples");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect(folder)
        .map(|entry| entry.expect(folder).path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let picture = image::open(&path).expect("a sample").to_rgb8();
            let rgb = Rgb {
                width: picture.width(),
                height: picture.height(),
                pixels: picture.into_raw(),
            };
            (path.display().to_string(), rgb)
        })
        .collect()
}

#[path = "harm.rs"]
mod harm;

#[test]
fn good_pictures_are_good_and_harmed_ones_are_not() {
    let limits = QualityLimits::default();
    let samples = samples();
    assert!(samples.len() >= 10);
    for (name, picture) in &samples {
        assert_eq!(judge_one(&limits, picture).findings, [], "{name}");
    }
    println!("| harm | refused |\n|---|---|");
    for harm in harm::ALL {
        let refused = samples
            .iter()
            .filter(|(_, picture)| !judge_one(&limits, &harm.done_to(picture)).is_good())
            .count();
        println!("| {} | {refused} of {} |", harm.name, samples.len());
        assert!(
            refused * 10 >= samples.len() * harm.least,
            "{}: {refused}",
            harm.name
        );
        assert!(
            refused * 10 <= samples.len() * harm.most,
            "{}: {refused}",
            harm.name
        );
    }
}

#[test]
fn a_dark_sample_is_told_as_dark() {
    for (name, picture) in samples() {
        let dark = harm::ALL
            .iter()
            .find(|harm| harm.name == "light 1/10")
            .expect("it is there")
            .done_to(&picture);
        let findings = judge_one(&QualityLimits::default(), &dark).findings;
        assert!(
            matches!(findings[..], [Finding::Dark { .. }]) || name.contains("sign-time"),
            "{name}: {findings:?}"
        );
    }
}
