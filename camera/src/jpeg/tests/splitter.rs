use proptest::prelude::*;

use super::{SEQUENTIAL, insert, jpeg};
use crate::jpeg::Splitter;
use crate::jpeg::segment::{EOI, SOI};

proptest! {
    #[test]
    fn a_stream_gives_the_same_frames_in_whatever_pieces_it_comes(
        order in prop::collection::vec(0..SEQUENTIAL.len(), 1..6),
        rubbish in prop::collection::vec(prop::collection::vec(0u8..0xFF, 0..40), 6),
        piece in 1usize..3000,
    ) {
        let mut stream = Vec::new();
        for (index, rubbish) in order.iter().zip(&rubbish) {
            stream.extend_from_slice(rubbish);
            stream.extend_from_slice(&jpeg(SEQUENTIAL[*index]));
        }
        let mut splitter = Splitter::new(10_000);
        let mut frames = Vec::new();
        for piece in stream.chunks(piece) {
            splitter.push(piece);
            frames.extend(std::iter::from_fn(|| splitter.next_frame()));
        }
        let expected: Vec<Vec<u8>> = order.iter().map(|index| jpeg(SEQUENTIAL[*index])).collect();
        prop_assert!(frames == expected);
        let rubbish_bytes = rubbish.iter().take(order.len()).map(Vec::len).sum::<usize>();
        prop_assert_eq!(splitter.dropped_bytes(), rubbish_bytes as u64);
    }

    #[test]
    fn a_stream_of_anything_stays_within_bounds(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                Just(vec![0xFF, SOI, 0xFF]),
                Just(vec![0xFF, EOI]),
                Just(vec![0xFF, 0xDA, 0x00, 0x03, 0x01]),
            ],
            0..60,
        ),
    ) {
        let mut splitter = Splitter::new(500);
        let mut total = 0u64;
        for piece in &pieces {
            splitter.push(piece);
            total += piece.len() as u64;
            while let Some(frame) = splitter.next_frame() {
                prop_assert!(frame.len() <= 500);
                prop_assert!(frame.starts_with(&[0xFF, SOI, 0xFF]));
                total -= frame.len() as u64;
            }
            prop_assert!(splitter.held_bytes() <= 1000);
            prop_assert_eq!(splitter.dropped_bytes() + splitter.held_bytes() as u64, total);
        }
    }
}

fn split(splitter: &mut Splitter, bytes: &[u8]) -> Vec<Vec<u8>> {
    splitter.push(bytes);
    std::iter::from_fn(|| splitter.next_frame()).collect()
}

#[test]
fn a_picture_without_end_ends_where_the_next_starts() {
    let whole = jpeg("420");
    let open = &whole[..whole.len() - 2];
    let stream = [open, &whole].concat();
    assert_eq!(split(&mut Splitter::new(5000), &stream), [open, &whole]);
}

#[test]
fn a_thumbnail_inside_a_header_is_no_frame() {
    let (whole, small) = (jpeg("444"), jpeg("grey"));
    let length = ((small.len() + 2) as u16).to_be_bytes();
    let segment = [&[0xFF, 0xE1], length.as_slice(), &small].concat();
    let with_thumbnail = insert(&whole, 2, &segment);
    assert_eq!(
        split(&mut Splitter::new(5000), &with_thumbnail),
        [with_thumbnail.as_slice()]
    );
}

#[test]
fn progressive_pictures_of_many_scans_are_one_frame() {
    let whole = jpeg("420_progressive");
    let stream = [whole.as_slice(), &whole].concat();
    assert_eq!(
        split(&mut Splitter::new(5000), &stream),
        [whole.as_slice(), &whole]
    );
}

#[test]
fn a_picture_over_the_limit_is_dropped_and_the_next_one_found() {
    let (large, small) = (jpeg("444"), jpeg("grey"));
    let mut splitter = Splitter::new(700);
    let stream = [large.as_slice(), &small].concat();
    let mut frames = Vec::new();
    for piece in stream.chunks(100) {
        frames.extend(split(&mut splitter, piece));
    }
    assert_eq!(frames, [small.as_slice()]);
    assert_eq!(splitter.dropped_bytes(), large.len() as u64);
    assert_eq!(split(&mut Splitter::new(1000), &stream), [small]);
}

#[test]
fn a_stream_whose_frames_nobody_takes_stays_within_bounds() {
    let whole = jpeg("grey");
    let mut splitter = Splitter::new(600);
    for piece in whole.repeat(9).chunks(100) {
        splitter.push(piece);
        assert!(splitter.held_bytes() <= 1200);
    }
    splitter.push(&whole.repeat(9));
    assert!(splitter.held_bytes() <= 1200);
    assert_eq!(splitter.next_frame(), Some(whole));
}

#[test]
fn a_start_that_is_none_does_not_hide_the_next_picture() {
    let whole = jpeg("420");
    for rubbish in [
        &b"\xFF\xD8\xFF\x00\x00\x10"[..],
        b"\xFF\xD8\xFF\xE0\x00\x01",
        b"\xFF\xD8\xFF\xE0\x00\x04ab!!",
    ] {
        let stream = [rubbish, &whole].concat();
        assert_eq!(
            split(&mut Splitter::new(5000), &stream),
            [whole.as_slice()],
            "{rubbish:x?}"
        );
    }
}
