use std::time::Duration;

use super::boxes::Boxes;
use super::scene::least_score;
use super::{Cause, Cells, ChangeDetector, ChangeError, ChangeSettings, PixelBox, TileLayout};
use crate::luma::Luma;
use crate::zone::{Sensitivity, Zone};

fn detector(zones: &[&str]) -> ChangeDetector {
    let zones: Vec<Zone> = zones
        .iter()
        .map(|zone| zone.parse().expect("a zone"))
        .collect();
    ChangeDetector::new(ChangeSettings::default(), zones).expect("good settings")
}

/// A picture with some texture, a gain in percent, and a block of another luma.
fn picture(size: (u32, u32), gain: u32, block: Option<(u32, u32)>) -> Luma {
    let mut values = Vec::new();
    for y in 0..size.1 {
        for x in 0..size.0 {
            let texture = 60 + (x * 7 + y * 13 + x * y % 5 * 9) % 60;
            let inside = block.is_some_and(|(left, top)| {
                (left..left + 4).contains(&x) && (top..top + 6).contains(&y)
            });
            values.push(if inside { 170 } else { texture * gain / 100 } as u8);
        }
    }
    Luma {
        columns: size.0,
        rows: size.1,
        values,
    }
}

const GRID: (u32, u32) = (40, 30);

/// Steps through pictures at 5 a second from `start`; the detector's last answer.
fn run(detector: &mut ChangeDetector, start: u64, pictures: u64, luma: &Luma) -> super::Change {
    let mut last = super::Change::default();
    for number in 0..pictures {
        last = detector
            .step(luma, Duration::from_millis((start + number) * 200))
            .clone();
    }
    last
}

#[test]
fn nothing_is_reported_before_the_usual_picture_is_known() {
    let mut detector = detector(&[]);
    let change = run(&mut detector, 0, 10, &picture(GRID, 100, None));
    assert_eq!(change.cause, Cause::Learning);
    let change = run(&mut detector, 10, 20, &picture(GRID, 100, None));
    assert_eq!((change.cause, change.cells.count()), (Cause::None, 0));
}

#[test]
fn an_object_enters_its_zone_once_and_leaves() {
    let mut detector = detector(&["left:0,0 0.4,1", "right:0.6,0 1,1"]);
    run(&mut detector, 0, 30, &picture(GRID, 100, None));
    let mut entered = [0, 0];
    let there = picture(GRID, 100, Some((4, 10)));
    for number in 30..60 {
        let change = detector.step(&there, Duration::from_millis(number * 200));
        assert_eq!(change.cause, Cause::Movement);
        assert_eq!(
            (
                change.boxes[0].left,
                change.boxes[0].top,
                change.boxes[0].cells
            ),
            (4, 10, 24)
        );
        for (count, zone) in entered.iter_mut().zip(&change.zones) {
            *count += u32::from(zone.entered);
        }
    }
    assert_eq!(entered, [1, 0]);
    let left: u32 = (60..80)
        .map(|number| {
            let change = detector.step(
                &picture(GRID, 100, None),
                Duration::from_millis(number * 200),
            );
            u32::from(change.zones[0].left)
        })
        .sum();
    assert_eq!(left, 1);
}

#[test]
fn an_object_that_stays_becomes_background() {
    let mut detector = detector(&[]);
    run(&mut detector, 0, 30, &picture(GRID, 100, None));
    let there = picture(GRID, 100, Some((20, 10)));
    assert!(run(&mut detector, 30, 140, &there).whole.active);
    let change = run(&mut detector, 170, 30, &there);
    assert_eq!((change.whole.active, change.cause), (false, Cause::None));
}

#[test]
fn a_change_of_light_is_not_movement() {
    for gain in [50, 70, 85, 93, 107, 120, 150] {
        let mut detector = detector(&[]);
        run(&mut detector, 0, 30, &picture(GRID, 100, None));
        let change = run(&mut detector, 30, 1, &picture(GRID, gain, None));
        assert_eq!(
            (change.cause, change.cells.count()),
            (Cause::Lighting, 0),
            "{gain} %"
        );
        for number in 31..60 {
            let change = detector.step(
                &picture(GRID, gain, None),
                Duration::from_millis(number * 200),
            );
            assert!(!change.whole.active, "{gain} % at {number}");
        }
    }
}

#[test]
fn a_shadow_over_a_part_of_the_picture_is_not_movement() {
    let mut shaded = picture(GRID, 100, None);
    for row in shaded.values.chunks_exact_mut(40) {
        row[..15]
            .iter_mut()
            .for_each(|value| *value = (u32::from(*value) * 4 / 5) as u8);
    }
    let mut detector = detector(&[]);
    run(&mut detector, 0, 30, &picture(GRID, 100, None));
    for number in 30..60 {
        let change = detector.step(&shaded, Duration::from_millis(number * 200));
        assert!(!change.whole.active, "{number}: {:?}", change.boxes);
    }
}

#[test]
fn boxes_are_the_largest_groups_and_few() {
    let mut cells = Cells::new(40, 30);
    for group in 0..20 {
        let (left, top) = (group % 10 * 4, group / 10 * 15);
        (0..20 - group).for_each(|cell| cells.insert(left + cell % 2, top + cell / 2));
    }
    let (mut boxes, mut found) = (Boxes::new(40, 30), Vec::new());
    for _ in 0..2 {
        boxes.find(&cells, &mut found);
        let sizes: Vec<u32> = found.iter().map(|group| group.cells).collect();
        assert_eq!(sizes, (5..=20).rev().collect::<Vec<_>>());
    }
    let last = found[0].in_picture(&cells, 640, 480);
    assert_eq!(
        last,
        PixelBox {
            x: 0,
            y: 0,
            width: 32,
            height: 160
        }
    );
}

#[test]
fn a_shift_of_the_camera_is_told_as_shake() {
    let smooth = |shift: u32| {
        let mut luma = picture(GRID, 100, None);
        for row in luma.values.chunks_exact_mut(40) {
            for column in 0..39 {
                let mixed =
                    u32::from(row[column]) * (10 - shift) + u32::from(row[column + 1]) * shift;
                row[column] = (mixed / 10) as u8;
            }
        }
        luma
    };
    let mut detector = detector(&[]);
    run(&mut detector, 0, 30, &smooth(0));
    assert_eq!(run(&mut detector, 30, 1, &smooth(4)).cause, Cause::Shake);
    assert_eq!(run(&mut detector, 31, 1, &smooth(0)).cause, Cause::None);
}

#[test]
fn a_sensitive_zone_sees_what_the_whole_picture_does_not() {
    let mut faint = picture(GRID, 100, None);
    for y in 10..16 {
        for x in 8..12 {
            faint.values[y * 40 + x] += 6;
        }
    }
    let mut detector = ChangeDetector::new(
        ChangeSettings {
            sensitivity: Sensitivity::try_from(10).expect("within"),
            ..ChangeSettings::default()
        },
        vec!["near@95:0.1,0.2 0.5,0.8".parse().expect("a zone")],
    )
    .expect("good settings");
    run(&mut detector, 0, 30, &picture(GRID, 100, None));
    let change = run(&mut detector, 30, 5, &faint);
    assert_eq!((change.zones[0].active, change.whole.active), (true, false));
}

#[test]
fn odd_and_changing_grids_are_learned_anew() {
    let mut detector = detector(&["all:0,0 1,1"]);
    let mut time = 0;
    for size in [
        (1, 1),
        (3, 200),
        (200, 3),
        (0, 0),
        (40, 30),
        (7, 1),
        (300, 2),
    ] {
        let first = run(&mut detector, time, 1, &picture(size, 100, None));
        assert_eq!(first.cause, Cause::Learning, "{size:?}");
        let change = run(&mut detector, time + 1, 40, &picture(size, 100, None));
        assert_eq!(
            (change.cause, change.whole.active),
            (Cause::None, false),
            "{size:?}"
        );
        run(
            &mut detector,
            time + 41,
            5,
            &picture(size, 20, Some((0, 0))),
        );
        time += 50;
    }
}

#[test]
fn a_grid_without_its_values_does_no_harm() {
    let mut detector = detector(&[]);
    let broken = Luma {
        columns: 40,
        rows: 30,
        values: vec![9; 7],
    };
    run(&mut detector, 0, 40, &broken);
}

#[test]
fn a_clock_that_jumps_does_no_harm() {
    let mut detector = detector(&[]);
    run(&mut detector, 1_000, 30, &picture(GRID, 100, None));
    for seconds in [1, 0, 100, 100, 101] {
        let change = detector.step(&picture(GRID, 100, None), Duration::from_secs(seconds));
        assert_eq!(change.cause, Cause::None, "{seconds} s");
    }
    let change = detector.step(&picture(GRID, 100, None), Duration::from_secs(100_000));
    assert_eq!(change.cause, Cause::Learning);
}

#[test]
fn nothing_is_allocated_anew_from_step_to_step() {
    let mut detector = detector(&["left:0,0 0.4,1"]);
    run(&mut detector, 0, 30, &picture(GRID, 100, None));
    let place = |detector: &ChangeDetector| {
        let change = &detector.change;
        (
            change.boxes.as_ptr(),
            change.boxes.capacity(),
            change.zones.as_ptr(),
            detector.scene.rest.as_ptr(),
        )
    };
    let before = place(&detector);
    for number in 30..90 {
        let block = (number % 2 == 0).then_some((number as u32 % 30, 10));
        detector.step(
            &picture(GRID, 100, block),
            Duration::from_millis(number * 200),
        );
        assert_eq!(place(&detector), before);
    }
}

#[test]
fn fifty_steps_of_sensitivity_are_a_factor_of_two() {
    let at = |number: i64| least_score(Sensitivity::try_from(number).expect("within"));
    assert_eq!([at(1), at(50), at(100)], [31, 16, 8]);
    assert!((1..100).all(|number| at(number) >= at(number + 1)));
}

#[test]
fn times_out_of_range_are_refused() {
    let settings = ChangeSettings {
        absorb_ms: 10,
        ..ChangeSettings::default()
    };
    let error = ChangeDetector::new(settings, Vec::new()).expect_err("too short");
    assert_eq!(
        error,
        ChangeError::Time {
            field: "absorb_ms",
            value: 10,
            least: 1_000,
            most: 3_600_000
        }
    );
}

#[test]
fn cells_map_to_the_tiles_they_touch() {
    let mut cells = Cells::new(40, 30);
    cells.insert(0, 0);
    cells.insert(13, 29);
    let layout = TileLayout {
        columns: 3,
        rows: 2,
        width: 1536,
        height: 1024,
    };
    let tiles: Vec<(u32, u32, u32, u32)> = cells
        .tiles(layout)
        .map(|tile| (tile.column, tile.row, tile.x, tile.y))
        .collect();
    // Column 13 of 40 lies across the border of the first and second third.
    assert_eq!(tiles, [(0, 0, 0, 0), (0, 1, 0, 512), (1, 1, 512, 512)]);
    assert!(Cells::new(40, 30).tiles(layout).next().is_none());
    assert_eq!(
        cells
            .tiles(TileLayout {
                columns: 0,
                ..layout
            })
            .count(),
        0
    );
}

#[test]
fn differing_cells_are_those_beyond_the_given_levels() {
    let before = picture(GRID, 100, None);
    let mut after = before.clone();
    after.values[5] += 3;
    after.values[6] += 4;
    let cells = Cells::that_differ(&before, &after, 3);
    assert_eq!(cells.iter().collect::<Vec<_>>(), [(6, 0)]);
    let other = picture((4, 3), 100, None);
    assert_eq!(Cells::that_differ(&before, &other, 3).count(), 12);
}
