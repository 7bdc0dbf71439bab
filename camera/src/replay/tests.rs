use super::*;
use std::fs;

/// A 2 × 1 picture of one brightness.
fn picture(path: &Path, luma: u8) {
    image::GrayImage::from_pixel(2, 1, image::Luma([luma]))
        .save(path)
        .unwrap();
}

fn all(path: &Path, query: &str) -> (Vec<(u8, u64, u128)>, Drops) {
    let options = SourceOptions {
        speed: 0.0,
        ..SourceOptions::default()
    };
    let mut source = open(path.to_str().unwrap(), &options.with_query(query).unwrap()).unwrap();
    let mut found = Vec::new();
    loop {
        match source.next_frame(Duration::ZERO) {
            Ok(frame) => {
                let luma = frame.to_rgb().unwrap().pixels[0];
                found.push((luma, frame.sequence(), frame.timestamp().as_millis()));
            }
            Err(SourceError::Ended { .. }) => return (found, source.drops()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_folder_is_played_by_name_at_the_rate_wanted() {
    let folder = tempfile::tempdir().unwrap();
    for (name, luma) in [("b.png", 20), ("a.png", 10), ("c.bmp", 30)] {
        picture(&folder.path().join(name), luma);
    }
    fs::write(folder.path().join("notes.txt"), "not a picture").unwrap();
    let (found, drops) = all(folder.path(), "rate=4");
    assert_eq!(found, [(10, 0, 0), (20, 1, 250), (30, 2, 500)]);
    assert_eq!(drops, Drops::default());
}

#[test]
fn times_come_from_the_list_then_from_the_names() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("b-100ms.png"), 20);
    picture(&folder.path().join("a-2s.png"), 10);
    assert_eq!(all(folder.path(), "").0, [(20, 0, 100), (10, 1, 2_000)]);
    fs::write(
        folder.path().join("frames.csv"),
        "file,seconds\na-2s.png,0\nb-100ms.png,7.5\n",
    )
    .unwrap();
    assert_eq!(all(folder.path(), "").0, [(10, 0, 0), (20, 1, 7_500)]);
}

#[test]
fn damaged_pictures_are_passed_over_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a.png"), 10);
    fs::write(folder.path().join("b.png"), "no picture").unwrap();
    picture(&folder.path().join("c.png"), 30);
    let (found, drops) = all(folder.path(), "rate=1");
    assert_eq!(found, [(10, 0, 0), (30, 1, 2_000)]);
    assert_eq!(drops.damaged, 1);
}

#[test]
fn y4m_and_jpeg_files_are_played_too() {
    let folder = tempfile::tempdir().unwrap();
    let y4m = folder.path().join("clip.y4m");
    let frame = |luma: u8| [b"FRAME\n".as_slice(), &[luma; 4], &[128; 2]].concat();
    let cut = &frame(3)[..8];
    fs::write(
        &y4m,
        [
            b"YUV4MPEG2 W2 H2 F10:1 C420 XCOLORRANGE=FULL\n",
            frame(50).as_slice(),
            &frame(90),
            cut,
        ]
        .concat(),
    )
    .unwrap();
    let (found, drops) = all(&y4m, "");
    assert_eq!(found, [(50, 0, 0), (90, 1, 100)]);
    assert_eq!(drops.damaged, 1);

    let jpegs = folder.path().join("clip.mjpeg");
    let mut bytes = Vec::new();
    for luma in [0, 255] {
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([luma; 3]));
        let mut one = std::io::Cursor::new(Vec::new());
        picture
            .write_to(&mut one, image::ImageFormat::Jpeg)
            .unwrap();
        bytes.extend(one.into_inner());
    }
    fs::write(&jpegs, bytes).unwrap();
    assert_eq!(all(&jpegs, "rate=2").0, [(0, 0, 0), (255, 1, 500)]);
}

#[test]
fn a_repeated_recording_counts_on() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a.png"), 10);
    picture(&folder.path().join("b.png"), 20);
    let options = SourceOptions::default()
        .with_query("speed=0&repeat&rate=2")
        .unwrap();
    let mut source = open(folder.path().to_str().unwrap(), &options).unwrap();
    for (sequence, stamp) in [0, 500, 1_000, 1_500, 2_000].into_iter().enumerate() {
        let frame = source.next_frame(Duration::ZERO).unwrap();
        assert_eq!(frame.sequence(), sequence as u64);
        assert_eq!(frame.timestamp(), Duration::from_millis(stamp));
    }
}

#[test]
fn a_frame_that_is_not_due_is_late() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a-0s.png"), 10);
    picture(&folder.path().join("b-9999s.png"), 20);
    let mut source = open(folder.path().to_str().unwrap(), &SourceOptions::default()).unwrap();
    assert_eq!(
        source.next_frame(Duration::ZERO).unwrap().timestamp(),
        Duration::ZERO
    );
    let late = source.next_frame(Duration::ZERO);
    assert!(matches!(late, Err(SourceError::Late { .. })), "{late:?}");
}

#[test]
fn a_folder_without_pictures_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let refused = open(folder.path().to_str().unwrap(), &SourceOptions::default());
    let error = refused.err().unwrap().to_string();
    assert!(
        error.contains("no readable frame") && error.contains("give a folder of pictures"),
        "{error}"
    );
}
