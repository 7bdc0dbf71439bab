//! What the outputs of a detector mean: arrays in, things found out.

use serde::Serialize;

use super::{DetectorSettings, OutputForm};
use crate::engine::plain::Array;

/// Most things that are reported of one picture.
const MAX_DETECTIONS: usize = 100;

/// A rectangle of the picture, 0 to 1 in both directions from the top left.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Area {
    /// Left edge.
    pub left: f32,
    /// Top edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Bottom edge.
    pub bottom: f32,
}

impl Area {
    /// Intersection over union; 0 when neither has an extent.
    fn overlap(self, other: Area) -> f32 {
        let size =
            |area: Area| (area.right - area.left).max(0.0) * (area.bottom - area.top).max(0.0);
        let common = size(Area {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        });
        let union = size(self) + size(other) - common;
        if union > 0.0 { common / union } else { 0.0 }
    }
}

/// Something a detector found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// Name of the class; its number where the settings give no names.
    pub label: String,
    /// Score, 0 to 1.
    pub score: f32,
    /// Where; nothing for classifiers of the whole picture.
    pub area: Option<Area>,
}

/// A box before it has a name.
struct Candidate {
    class: usize,
    score: f32,
    area: Option<Area>,
}

/// The shapes a form means, in words.
pub(super) fn wanted_shapes(form: OutputForm) -> &'static str {
    match form {
        OutputForm::YoloV8 => "one output [1, 4 + classes, n]",
        OutputForm::YoloV5 => "one output [1, n, 5 + classes]",
        OutputForm::Ssd => "two outputs [1, n, 4] and [1, n, classes]",
        OutputForm::Classes => "one output [1, classes]",
        OutputForm::Mask => "one output [1, 1, h, w]",
    }
}

/// What was found, likeliest first; areas in 0..1 of the input (`input`: width, height in pixels).
/// `None` when the outputs have other shapes than the settings say.
pub(super) fn decode(
    settings: &DetectorSettings,
    outputs: &[Array],
    input: (usize, usize),
) -> Option<Vec<Detection>> {
    let mut candidates = match settings.output {
        OutputForm::YoloV8 => yolo_v8(single(outputs)?, input, settings.threshold)?,
        OutputForm::YoloV5 => yolo_v5(single(outputs)?, input, settings.threshold)?,
        OutputForm::Ssd => ssd(outputs, settings.threshold)?,
        OutputForm::Classes => classes(single(outputs)?)?,
        OutputForm::Mask => mask(single(outputs)?, settings.threshold)?,
    };
    let wanted = |candidate: &Candidate| {
        let label = settings.labels.get(candidate.class);
        settings.wanted.is_empty() || label.is_some_and(|label| settings.wanted.contains(label))
    };
    // A score that is not a number compares false and is left out.
    candidates.retain(|candidate| candidate.score >= settings.threshold && wanted(candidate));
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == MAX_DETECTIONS {
            break;
        }
        let twin = |other: &Candidate| match (candidate.area, other.area) {
            (Some(a), Some(b)) => other.class == candidate.class && a.overlap(b) > settings.overlap,
            _ => false,
        };
        if !kept.iter().any(twin) {
            kept.push(candidate);
        }
    }
    let named = |candidate: Candidate| Detection {
        label: match settings.labels.get(candidate.class) {
            Some(label) => label.clone(),
            None => candidate.class.to_string(),
        },
        score: candidate.score,
        area: candidate.area,
    };
    Some(kept.into_iter().map(named).collect())
}

fn single(outputs: &[Array]) -> Option<&Array> {
    match outputs {
        [output] => Some(output),
        _ => None,
    }
}

/// Index and value of the largest score.
fn best(scores: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    scores
        .enumerate()
        .filter(|(_, score)| !score.is_nan())
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Centre form in input pixels → corners in 0..1.
fn from_centre(center: [f32; 4], input: (usize, usize)) -> Area {
    let [x, y, width, height] = center;
    let (w, h) = (input.0 as f32, input.1 as f32);
    Area {
        left: (x - width / 2.0) / w,
        top: (y - height / 2.0) / h,
        right: (x + width / 2.0) / w,
        bottom: (y + height / 2.0) / h,
    }
}

fn yolo_v8(output: &Array, input: (usize, usize), threshold: f32) -> Option<Vec<Candidate>> {
    let [1, rows @ (5..), n] = output.shape[..] else {
        return None;
    };
    let at = |row: usize, index: usize| output.values[row * n + index];
    let candidates = (0..n).filter_map(|index| {
        let (class, score) = best((4..rows).map(|row| at(row, index)))?;
        (score >= threshold).then(|| Candidate {
            class,
            score,
            area: Some(from_centre([0, 1, 2, 3].map(|row| at(row, index)), input)),
        })
    });
    Some(candidates.collect())
}

fn yolo_v5(output: &Array, input: (usize, usize), threshold: f32) -> Option<Vec<Candidate>> {
    let [1, _, columns @ (6..)] = output.shape[..] else {
        return None;
    };
    let candidates = output.values.chunks_exact(columns).filter_map(|row| {
        let (class, score) = best(row[5..].iter().map(|score| score * row[4]))?;
        (score >= threshold).then(|| Candidate {
            class,
            score,
            area: Some(from_centre([row[0], row[1], row[2], row[3]], input)),
        })
    });
    Some(candidates.collect())
}

fn ssd(outputs: &[Array], threshold: f32) -> Option<Vec<Candidate>> {
    let [first, second] = outputs else {
        return None;
    };
    let (boxes, scores) = if first.shape.last() == Some(&4) && second.shape.last() != Some(&4) {
        (first, second)
    } else {
        (second, first)
    };
    let ([1, n, 4], [1, m, classes @ (2..)]) = (&boxes.shape[..], &scores.shape[..]) else {
        return None;
    };
    if n != m {
        return None;
    }
    let rows = boxes
        .values
        .chunks_exact(4)
        .zip(scores.values.chunks_exact(*classes));
    let candidates = rows.filter_map(|(corners, scores)| {
        let (class, score) = best(scores[1..].iter().copied())?;
        (score >= threshold).then(|| Candidate {
            class: class + 1,
            score,
            area: Some(Area {
                left: corners[0],
                top: corners[1],
                right: corners[2],
                bottom: corners[3],
            }),
        })
    });
    Some(candidates.collect())
}

/// Softmax, unless the values are probabilities already.
fn classes(output: &Array) -> Option<Vec<Candidate>> {
    let [1, (1..)] = output.shape[..] else {
        return None;
    };
    let values = &output.values;
    let sum: f32 = values.iter().sum();
    let are_probabilities =
        values.iter().all(|v| (0.0..=1.0).contains(v)) && (sum - 1.0).abs() < 1e-3;
    let scores: Vec<f32> = if are_probabilities {
        values.clone()
    } else {
        let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = values.iter().map(|v| (v - largest).exp()).collect();
        let total: f32 = powers.iter().sum();
        powers.iter().map(|power| power / total).collect()
    };
    let candidate = |(class, score): (usize, &f32)| Candidate {
        class,
        score: *score,
        area: None,
    };
    Some(scores.iter().enumerate().map(candidate).collect())
}

/// Connected places over the threshold (four neighbours), each with its bounding box and mean.
fn mask(output: &Array, threshold: f32) -> Option<Vec<Candidate>> {
    let [1, 1, height @ (1..), width @ (1..)] = output.shape[..] else {
        return None;
    };
    let values = &output.values;
    let mut seen = vec![false; values.len()];
    let mut found = Vec::new();
    for start in 0..values.len() {
        // A value that is not a number is no part of anything.
        if seen[start] || values[start] < threshold || values[start].is_nan() {
            continue;
        }
        seen[start] = true;
        let mut open = vec![start];
        let (mut left, mut top, mut right, mut bottom) = (width, height, 0, 0);
        let (mut sum, mut count) = (0.0, 0);
        while let Some(place) = open.pop() {
            let (x, y) = (place % width, place / width);
            (left, right) = (left.min(x), right.max(x + 1));
            (top, bottom) = (top.min(y), bottom.max(y + 1));
            sum += f64::from(values[place]);
            count += 1;
            let neighbours = [
                (x > 0).then(|| place - 1),
                (x + 1 < width).then_some(place + 1),
                (y > 0).then(|| place - width),
                (y + 1 < height).then_some(place + width),
            ];
            for next in neighbours.into_iter().flatten() {
                if !seen[next] && values[next] >= threshold {
                    seen[next] = true;
                    open.push(next);
                }
            }
        }
        found.push(Candidate {
            class: 0,
            score: (sum / f64::from(count)) as f32,
            area: Some(Area {
                left: left as f32 / width as f32,
                top: top as f32 / height as f32,
                right: right as f32 / width as f32,
                bottom: bottom as f32 / height as f32,
            }),
        });
    }
    Some(found)
}
