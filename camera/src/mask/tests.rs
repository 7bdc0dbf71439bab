use proptest::prelude::*;

use super::Mask;
use crate::polygon::{Polygon, PolygonError};

fn polygon(text: &str) -> Polygon {
    text.parse().expect("a polygon")
}

fn rows(mask: &Mask, width: u32, height: u32) -> Vec<String> {
    let cover = mask.cover(width, height);
    let pixel = |x, y| if cover.covers(x, y) { '#' } else { '.' };
    (0..height)
        .map(|y| (0..width).map(|x| pixel(x, y)).collect())
        .collect()
}

#[test]
fn a_pixel_that_is_only_touched_is_covered() {
    // 0.26 × 4 = 1.04: a sliver of the second pixel.
    let mask = Mask::new(vec![polygon("0,0 0.26,0.26")]);
    assert_eq!(rows(&mask, 4, 4), ["##..", "##..", "....", "...."]);
}

#[test]
fn a_triangle_covers_every_pixel_its_edges_enter() {
    let mask = Mask::new(vec![polygon("0.1,0.1 0.9,0.1 0.1,0.9")]);
    assert_eq!(
        rows(&mask, 5, 5),
        ["#####", "#####", "####.", "###..", "##..."]
    );
}

#[test]
fn crossing_edges_cover_both_halves() {
    let mask = Mask::new(vec![polygon("0.05,0.05 0.95,0.95 0.95,0.05 0.05,0.95")]);
    assert_eq!(rows(&mask, 4, 4)[1], "####");
}

#[test]
fn areas_that_overlap_give_one_span() {
    let mask = Mask::new(vec![polygon("0,0 0.5,1"), polygon("0.4,0 0.8,1")]);
    assert_eq!(
        mask.spans(0, 10, 1),
        std::iter::once(0..9).collect::<Vec<_>>()
    );
}

#[test]
fn a_row_outside_the_picture_has_no_spans() {
    let mask = Mask::new(vec![polygon("0,0 1,1")]);
    assert!(mask.spans(7, 4, 4).is_empty());
    assert!(mask.spans(0, 0, 0).is_empty());
    assert_eq!(mask.spans(3, 4, 4).len(), 1);
}

#[test]
fn bad_corners_are_named() {
    let cases = [
        ("0.1,0.2", PolygonError::Corners { count: 1 }),
        (
            "0.1,0.2 1.2,0.3",
            PolygonError::Coordinate {
                corner: 2,
                axis: 'x',
                value: 1.2,
            },
        ),
        (
            "0.1,0.2 0.2;3",
            PolygonError::Text {
                corner: 2,
                text: "0.2;3".into(),
            },
        ),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Polygon>(), Err(error), "{text}");
    }
    assert!(matches!(
        "0,0 nan,1".parse::<Polygon>(),
        Err(PolygonError::Coordinate { axis: 'x', .. })
    ));
}

#[test]
fn a_mask_is_read_from_settings() {
    let mask: Mask = serde_json::from_str(r#"["0,0 0.5,0.5", [[0.5, 0.5], [1, 0.5], [1, 1]]]"#)
        .expect("two areas");
    assert_eq!(mask.areas().len(), 2);
}

proptest! {
    #[test]
    fn every_pixel_with_a_point_of_the_area_is_covered(
        corners in prop::collection::vec([0.0..=1.0f64, 0.0..=1.0f64], 3..9),
        weights in prop::collection::vec(0.0..=1.0f64, 3),
        width in 1u32..40,
        height in 1u32..40,
    ) {
        let cover = Mask::new(vec![Polygon::new(corners.clone()).expect("within")]).cover(width, height);
        // Points of the outline, on every edge.
        for (index, from) in corners.iter().enumerate() {
            let to = corners[(index + 1) % corners.len()];
            for weight in &weights {
                let [x, y] = [0, 1].map(|axis| from[axis] + (to[axis] - from[axis]) * weight);
                let pixel = |at: f64, count: u32| ((at * f64::from(count)) as u32).min(count - 1);
                prop_assert!(cover.covers(pixel(x, width), pixel(y, height)));
            }
        }
        for row in 0..height {
            let spans = cover.row(row);
            prop_assert!(spans.iter().all(|span| span.start < span.end && span.end <= width));
            prop_assert!(spans.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
