use std::time::Duration;

use super::{Finding, QualityJudge, QualityLimits, judge_one};
use crate::rgb::Rgb;

/// A page of bars, `sharp` before any harm is done to it.
fn bars() -> Vec<f32> {
    (0..320 * 240)
        .map(|at| {
            let (x, y) = (at % 320, at / 320);
            let bar = (x / 31 + y / 23) % 2 == 0;
            if bar { 170.0 } else { 60.0 + (x / 8) as f32 }
        })
        .collect()
}

fn rgb(luma: &[f32]) -> Rgb {
    let pixels = luma
        .iter()
        .flat_map(|value| [value.clamp(0.0, 255.0) as u8; 3])
        .collect();
    Rgb {
        width: 320,
        height: 240,
        pixels,
    }
}

/// Means over `2·reach + 1` pixels along a row (step 1) or a column (step 320).
fn smear(luma: &[f32], reach: usize, step: usize) -> Vec<f32> {
    let count = (2 * reach + 1) as f32;
    let at = |index: usize, back: usize| {
        (index + reach * step)
            .checked_sub(back * step)
            .unwrap_or(index)
    };
    (0..luma.len())
        .map(|index| {
            (0..=2 * reach)
                .map(|back| luma[at(index, back).min(luma.len() - 1)])
                .sum::<f32>()
                / count
        })
        .collect()
}

fn noise(luma: &[f32], strength: f32, seed: u32) -> Vec<f32> {
    let mut state = seed;
    luma.iter()
        .map(|value| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            value + strength * ((state >> 16) as f32 / 32_768.0 - 1.0)
        })
        .collect()
}

fn first(luma: &[f32]) -> Option<Finding> {
    judge_one(&QualityLimits::default(), &rgb(luma))
        .findings
        .first()
        .cloned()
}

#[test]
fn a_good_picture_has_no_findings_with_or_without_noise() {
    assert_eq!(first(&bars()), None);
    for strength in [4.0, 12.0, 24.0] {
        assert_eq!(first(&noise(&bars(), strength, 7)), None, "{strength}");
    }
}

#[test]
fn darkness_is_told_before_blur() {
    let dark: Vec<f32> = smear(&bars(), 6, 1)
        .iter()
        .map(|value| value / 10.0)
        .collect();
    let finding = first(&dark).expect("dark");
    assert!(
        matches!(finding, Finding::Dark { needs: 30, .. }),
        "{finding:?}"
    );
    assert!(
        finding
            .to_string()
            .starts_with("Too dark to read: turn on a light (mean luma "),
        "{finding}"
    );
}

#[test]
fn a_lit_sign_at_night_is_not_too_dark() {
    let mut night: Vec<f32> = bars().iter().map(|value| value / 12.0).collect();
    for y in 60..140 {
        for x in 60..200 {
            night[y * 320 + x] = bars()[y * 320 + x];
        }
    }
    assert_eq!(first(&night), None);
}

#[test]
fn blur_is_told_from_motion_at_any_contrast() {
    for contrast in [0.8, 1.0] {
        let scaled = |luma: Vec<f32>| -> Vec<f32> {
            luma.iter()
                .map(|value| 100.0 + (value - 100.0) * contrast)
                .collect()
        };
        let mut blurred = bars();
        for _ in 0..3 {
            blurred = smear(&smear(&blurred, 2, 1), 2, 320);
        }
        let blurred = noise(&scaled(blurred), 1.5, 3);
        let finding = first(&blurred).expect("blurred");
        assert!(
            matches!(finding, Finding::Blur { .. }),
            "{contrast}: {finding:?}"
        );
        for (step, way) in [(1, true), (320, false)] {
            let quality = judge_one(
                &QualityLimits::default(),
                &rgb(&noise(&scaled(smear(&bars(), 9, step)), 1.5, 3)),
            );
            assert!(
                matches!(quality.findings[..], [Finding::Motion { sideways, .. }] if sideways == way),
                "{contrast}: {quality:?}"
            );
        }
    }
}

#[test]
fn glare_says_where_it_is() {
    let mut glare = bars();
    for y in 0..90 {
        glare[y * 320 + 220..y * 320 + 320].fill(255.0);
    }
    let finding = first(&glare).expect("glare");
    assert!(
        finding.to_string().starts_with("Glare at the upper right"),
        "{finding}"
    );
}

#[test]
fn a_white_page_is_not_a_lamp() {
    let page: Vec<f32> = bars()
        .iter()
        .map(|value| if *value == 170.0 { 90.0 } else { 225.0 })
        .collect();
    let mut page = smear(&page, 0, 1);
    page[..320 * 90]
        .iter_mut()
        .for_each(|value| *value = if *value > 200.0 { 255.0 } else { *value });
    page.iter_mut()
        .enumerate()
        .for_each(|(at, value)| *value = if at % 5 > 0 { value.max(225.0) } else { *value });
    assert!(!matches!(first(&page), Some(Finding::Glare { .. })));
}

#[test]
fn a_covered_lens_is_told_from_fog() {
    let hand: Vec<f32> = (0..320 * 240)
        .map(|at| 70.0 + (at % 320) as f32 / 40.0)
        .collect();
    assert!(matches!(
        first(&noise(&hand, 4.0, 5)),
        Some(Finding::Covered { .. })
    ));
    let fog: Vec<f32> = bars().iter().map(|value| 160.0 + value * 0.2).collect();
    assert!(matches!(
        first(&noise(&fog, 2.0, 5)),
        Some(Finding::Fog { .. })
    ));
}

#[test]
fn pictures_without_pixels_or_size_do_no_harm() {
    for (width, height, pixels) in [(0, 0, 0), (3, 0, 0), (4, 4, 7), (u32::MAX, u32::MAX, 3)] {
        let picture = Rgb {
            width,
            height,
            pixels: vec![9; pixels],
        };
        assert_eq!(
            judge_one(&QualityLimits::default(), &picture).findings,
            [Finding::Empty]
        );
    }
    for (width, height) in [(1, 1), (2, 9), (17, 18), (1, 900), (900, 2)] {
        let picture = Rgb {
            width,
            height,
            pixels: vec![99; (width * height * 3) as usize],
        };
        assert!(!judge_one(&QualityLimits::default(), &picture).is_good());
    }
}

/// Judges `pictures` at 5 a second; whether the last is found frozen.
fn is_frozen(judge: &mut QualityJudge, from: u64, pictures: &[Rgb]) -> bool {
    let mut frozen = false;
    for (number, picture) in pictures.iter().enumerate() {
        let quality = judge.judge(picture, Duration::from_millis((from + number as u64) * 200));
        frozen = matches!(quality.findings.first(), Some(Finding::Frozen { .. }));
    }
    frozen
}

#[test]
fn a_live_camera_that_repeats_itself_is_frozen() {
    let noisy: Vec<Rgb> = (1..10)
        .map(|seed| rgb(&noise(&bars(), 2.0, seed)))
        .collect();
    let mut judge = QualityJudge::new(QualityLimits::default(), true);
    assert!(!is_frozen(&mut judge, 0, &noisy));
    assert!(!is_frozen(&mut judge, 9, &vec![noisy[8].clone(); 20]));
    assert!(is_frozen(&mut judge, 29, &vec![noisy[8].clone(); 10]));
    assert!(!is_frozen(&mut judge, 39, &noisy[..1]));
}

#[test]
fn a_still_replay_is_not_frozen() {
    let still = vec![rgb(&bars()); 100];
    assert!(!is_frozen(
        &mut QualityJudge::new(QualityLimits::default(), true),
        0,
        &still
    ));
    let mut judge = QualityJudge::new(QualityLimits::default(), false);
    let noisy: Vec<Rgb> = (1..10)
        .map(|seed| rgb(&noise(&bars(), 2.0, seed)))
        .collect();
    is_frozen(&mut judge, 0, &noisy);
    assert!(!is_frozen(&mut judge, 9, &still));
}

#[test]
fn limits_are_read_from_settings() {
    let limits: QualityLimits = serde_json::from_str(r#"{"least_mean": 12}"#).expect("one limit");
    assert_eq!(
        limits,
        QualityLimits {
            least_mean: 12,
            ..QualityLimits::default()
        }
    );
    assert!(serde_json::from_str::<QualityLimits>(r#"{"least_meen": 12}"#).is_err());
}
