//! The camera: exposure, shake, sensor noise, and the grid it hands on.

use ocelli_camera::Luma;

use super::random::Random;
use super::scene::{CELL, HEIGHT, WIDTH};

const TABLE: usize = 1 << 16;

/// Sensor noise from a table, shifted at random for each row.
#[derive(Clone, Debug)]
pub(crate) struct Sensor {
    noise: Vec<f32>,
    /// Levels of luma, 0 to 255.
    pub(crate) picture: Vec<u8>,
}

impl Sensor {
    pub(crate) fn new(random: &mut Random) -> Sensor {
        Sensor {
            noise: (0..TABLE).map(|_| random.normal()).collect(),
            picture: vec![0; WIDTH * HEIGHT],
        }
    }

    /// Turns light into levels: square root, noise of `deviation` levels, rounding. Returns the mean level.
    pub(crate) fn expose(&mut self, light: &[f32], deviation: f32, random: &mut Random) -> f32 {
        let mut sum = 0u64;
        for (line, seen) in light
            .chunks_exact(WIDTH)
            .zip(self.picture.chunks_exact_mut(WIDTH))
        {
            let offset = random.below(TABLE - WIDTH);
            let noise = &self.noise[offset..][..WIDTH];
            for ((seen, light), noise) in seen.iter_mut().zip(line).zip(noise) {
                let level = light.min(1.0).sqrt() * 255.0 + noise * deviation;
                *seen = (level + 0.5) as u8;
                sum += u64::from(*seen);
            }
        }
        sum as f32 / (WIDTH * HEIGHT) as f32
    }

    /// The grid of mean luma.
    pub(crate) fn grid(&self) -> Luma {
        let (columns, rows) = (WIDTH / CELL, HEIGHT / CELL);
        let mut sums = vec![0u32; columns * rows];
        for (y, line) in self.picture.chunks_exact(WIDTH).enumerate() {
            let sums = &mut sums[y / CELL * columns..][..columns];
            for (sum, cell) in sums.iter_mut().zip(line.chunks_exact(CELL)) {
                *sum += cell.iter().map(|level| u32::from(*level)).sum::<u32>();
            }
        }
        let area = (CELL * CELL) as u32;
        Luma {
            columns: columns as u32,
            rows: rows as u32,
            values: sums
                .iter()
                .map(|sum| ((sum + area / 2) / area) as u8)
                .collect(),
        }
    }
}
