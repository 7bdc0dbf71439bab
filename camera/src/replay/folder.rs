//! A folder of pictures and the times they were taken at.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::recording::{Recording, picture_frame};
use super::unusable;
use crate::frame::Frame;
use crate::source::SourceError;

/// File with the times.
const TIMES: &str = "frames.csv";
/// Names that are taken for pictures.
const SUFFIXES: [&str; 11] = [
    "png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pnm",
];

/// Pictures with the time each was taken at.
pub(super) struct Pictures {
    entries: Vec<(PathBuf, Duration)>,
    at: usize,
    period: Duration,
}

impl Recording for Pictures {
    fn next(&mut self) -> Option<Result<Frame, String>> {
        let (path, stamp) = self.entries.get(self.at)?;
        self.at += 1;
        Some(picture_frame(path, *stamp))
    }

    fn period(&self) -> Duration {
        self.period
    }
}

/// A single picture.
pub(super) fn picture(path: &Path, period: Duration) -> Pictures {
    Pictures {
        entries: vec![(path.to_owned(), Duration::ZERO)],
        at: 0,
        period,
    }
}

/// The pictures of a folder, by time, by name where no times are told.
pub(super) fn open(folder: &Path, period: Duration) -> Result<Pictures, SourceError> {
    let listed = fs::read_dir(folder).map_err(|error| unusable(folder, error.to_string()))?;
    let paths = listed.flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| is_picture(path)).collect();
    paths.sort();
    let times = match fs::read_to_string(folder.join(TIMES)) {
        Ok(text) => parse_times(&text).map_err(|what| unusable(&folder.join(TIMES), what))?,
        Err(_) => paths
            .iter()
            .filter_map(|path| Some((name(path), time_in_name(path)?)))
            .collect(),
    };
    let entries = paths.into_iter().zip(0u32..);
    let entries = entries.filter_map(|(path, index)| match times.is_empty() {
        true => Some((path, period.saturating_mul(index))),
        false => times.get(&name(&path)).map(|time| (path, *time)),
    });
    let mut entries: Vec<(PathBuf, Duration)> = entries.collect();
    entries.sort_by_key(|(_, time)| *time);
    Ok(Pictures {
        entries,
        at: 0,
        period,
    })
}

fn is_picture(path: &Path) -> bool {
    let suffix = path
        .extension()
        .map(|suffix| suffix.to_string_lossy().to_ascii_lowercase());
    suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix.as_str()))
}

fn name(path: &Path) -> String {
    path.file_name()
        .map(OsStr::to_string_lossy)
        .unwrap_or_default()
        .into_owned()
}

/// Times by file name. The first line may be a heading.
fn parse_times(text: &str) -> Result<BTreeMap<String, Duration>, String> {
    let mut times = BTreeMap::new();
    for (line, number) in text.lines().zip(1..) {
        let Some((name, seconds)) = line.split_once(',') else {
            match line.trim().is_empty() {
                true => continue,
                false => return Err(format!("line {number} {line:?}: it is NAME,SECONDS")),
            }
        };
        match seconds_after_begin(seconds) {
            Some(time) => _ = times.insert(name.trim().to_owned(), time),
            None if number == 1 => {}
            None => {
                return Err(format!(
                    "line {number}: {seconds:?} is no number of seconds from 0"
                ));
            }
        }
    }
    Ok(times)
}

fn seconds_after_begin(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

/// The time at the end of a name: `…1250ms` or `…1.25s`.
fn time_in_name(path: &Path) -> Option<Duration> {
    let stem = path.file_stem()?.to_str()?;
    let (text, unit) = match stem.strip_suffix("ms") {
        Some(text) => (text, 0.001),
        None => (stem.strip_suffix('s')?, 1.0),
    };
    let begin = text
        .trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.')
        .len();
    let number: f64 = text[begin..].parse().ok()?;
    Duration::try_from_secs_f64(number * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_in_names_only_with_a_unit() {
        let cases = [
            ("porch-1250ms.png", Some(1_250)),
            ("1.5s.jpg", Some(1_500)),
            ("a/b/007s.png", Some(7_000)),
            ("frame0001.png", None),
            ("gulls.png", None),
            ("1..2s.png", None),
            ("99999999999999999999999s.png", None),
            (".png", None),
        ];
        for (name, expected) in cases {
            let found = time_in_name(Path::new(name));
            assert_eq!(found, expected.map(Duration::from_millis), "{name}");
        }
    }

    #[test]
    fn a_list_of_times_may_have_a_heading_and_names_its_faulty_line() {
        let times = parse_times("file,seconds\na.png,0.5\n\nb c.png, 2\n").unwrap();
        let expected = [("a.png", 500), ("b c.png", 2_000)];
        let expected = expected.map(|(name, time)| (name.to_owned(), Duration::from_millis(time)));
        assert_eq!(times, expected.into());
        for (text, line) in [
            ("a.png,1\nb.png,soon", 2),
            ("a.png,1\n\nb.png,-1", 3),
            ("a.png", 1),
        ] {
            let error = parse_times(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}")), "{error}");
        }
    }
}
