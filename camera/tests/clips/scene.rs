//! What stands in front of the camera, and what walks through.

use super::random::{Random, wave};

/// Size of the rendered picture in pixels; a cell of the grid is 4 × 4 of them.
pub(crate) const WIDTH: usize = 160;
pub(crate) const HEIGHT: usize = 120;
pub(crate) const CELL: usize = 4;
/// Pixels beyond the picture that a shaking camera may see.
pub(crate) const MARGIN: usize = 8;
const WIDE: usize = WIDTH + 2 * MARGIN;
const HIGH: usize = HEIGHT + 2 * MARGIN;

/// Reflectance and light of a still scene.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// `[HIGH, WIDE]`, 0 to 1.
    pub(crate) reflectance: Vec<f32>,
    /// How much of the sun reaches each pixel of the picture, 0 to 1.
    pub(crate) sun: Vec<f32>,
    /// How much of the lamp reaches each pixel of the picture, 0 to 1.
    pub(crate) lamp: Vec<f32>,
    /// Crowns of trees: centre and radii in pixels.
    pub(crate) crowns: Vec<[f32; 4]>,
}

impl Scene {
    /// A house front, a path, a few things, and shadows.
    pub(crate) fn new(random: &mut Random) -> Scene {
        let horizon = random.between(0.3, 0.6) * HIGH as f32;
        let (upper, lower) = (random.between(0.25, 0.7), random.between(0.15, 0.5));
        let mut reflectance: Vec<f32> = (0..WIDE * HIGH)
            .map(|at| {
                let (x, y) = ((at % WIDE) as f32, (at / WIDE) as f32);
                let base = if y < horizon { upper } else { lower };
                base * (0.85 + 0.3 * x / WIDE as f32)
            })
            .collect();
        for _ in 0..14 {
            let width = random.between(6.0, 50.0) as usize;
            let height = random.between(6.0, 40.0) as usize;
            let (left, top) = (random.below(WIDE - width), random.below(HIGH - height));
            let shade = random.between(0.05, 0.85);
            for y in top..top + height {
                reflectance[y * WIDE + left..][..width].fill(shade);
            }
        }
        let rough = [texture(random, 23), texture(random, 7), texture(random, 3)];
        for (at, value) in reflectance.iter_mut().enumerate() {
            let (x, y) = ((at % WIDE) as f32, (at / WIDE) as f32);
            let sum: f32 = rough.iter().map(|layer| layer.at(x, y)).sum();
            *value = (*value * (1.0 + 0.12 * sum)).clamp(0.03, 0.95);
        }
        let crowns = (0..3)
            .map(|_| {
                let radius = random.between(12.0, 26.0);
                [
                    random.between(0.0, 160.0),
                    random.between(10.0, 70.0),
                    radius,
                    radius * 0.8,
                ]
            })
            .collect();
        Scene {
            reflectance,
            sun: sunlit(random),
            lamp: lamplit(random),
            crowns,
        }
    }

    /// Reflectance at a place of the picture, between pixels too; places outside take the border's.
    pub(crate) fn at(&self, x: f32, y: f32) -> f32 {
        let x = (x + MARGIN as f32).clamp(0.0, WIDE as f32 - 1.001);
        let y = (y + MARGIN as f32).clamp(0.0, HIGH as f32 - 1.001);
        bilinear(&self.reflectance, WIDE, x, y)
    }
}

/// Random values at the knots of a coarse lattice, smooth between.
struct Texture {
    pitch: f32,
    columns: usize,
    knots: Vec<f32>,
}

fn texture(random: &mut Random, pitch: usize) -> Texture {
    let columns = WIDE / pitch + 2;
    let knots = (0..columns * (HIGH / pitch + 2))
        .map(|_| random.between(-1.0, 1.0))
        .collect();
    Texture {
        pitch: pitch as f32,
        columns,
        knots,
    }
}

impl Texture {
    fn at(&self, x: f32, y: f32) -> f32 {
        bilinear(&self.knots, self.columns, x / self.pitch, y / self.pitch)
    }
}

fn bilinear(values: &[f32], columns: usize, x: f32, y: f32) -> f32 {
    let (column, row) = (x as usize, y as usize);
    let (right, down) = (x - column as f32, y - row as f32);
    let at = row * columns + column;
    let upper = values[at] * (1.0 - right) + values[at + 1] * right;
    let lower = values[at + columns] * (1.0 - right) + values[at + columns + 1] * right;
    upper * (1.0 - down) + lower * down
}

/// Sun everywhere but in two slanted shadows with soft edges.
fn sunlit(random: &mut Random) -> Vec<f32> {
    let shadows: Vec<_> = (0..2)
        .map(|_| {
            (
                random.between(0.0, 160.0),
                random.between(-0.8, 0.8),
                random.between(12.0, 40.0),
            )
        })
        .collect();
    let lit = |x: f32, y: f32| {
        let outside = shadows
            .iter()
            .map(|(at, slant, half)| ((x - at - slant * y).abs() - half) / 2.5);
        outside.fold(1.0, |light: f32, edge| light.min(edge.clamp(0.0, 1.0)))
    };
    each_pixel(lit)
}

/// A lamp above the picture: brighter near it.
fn lamplit(random: &mut Random) -> Vec<f32> {
    let (lamp_x, lamp_y) = (random.between(20.0, 140.0), random.between(-40.0, 20.0));
    each_pixel(|x, y| {
        let distance = ((x - lamp_x).powi(2) + (y - lamp_y).powi(2)) / 8000.0;
        1.0 / (1.0 + distance)
    })
}

fn each_pixel(light: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    (0..WIDTH * HEIGHT)
        .map(|at| light((at % WIDTH) as f32, (at / WIDTH) as f32))
        .collect()
}

/// What enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Person,
    Animal,
    Car,
}

/// One visit: in at one side, through or to a stop, out again.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) figure: Figure,
    /// Seconds.
    pub(crate) start: f32,
    /// How long it stands still half way, in seconds.
    pub(crate) stop: f32,
    /// Pixels a second.
    pub(crate) speed: f32,
    pub(crate) rightwards: bool,
    /// Height of its feet, in pixels from above.
    pub(crate) feet: f32,
    /// Size against the usual.
    pub(crate) scale: f32,
    /// Difference to the background in levels of luma, at usual light.
    pub(crate) contrast: f32,
}

impl Visit {
    pub(crate) fn random(random: &mut Random, start: f32) -> Visit {
        let figure = [Figure::Person, Figure::Animal, Figure::Car][random.below(3)];
        let cells_a_second = match figure {
            Figure::Person => random.between(1.5, 4.0),
            Figure::Animal => random.between(2.0, 8.0),
            Figure::Car => random.between(6.0, 24.0),
        };
        let stop = if random.chance(0.25) {
            random.between(3.0, 15.0)
        } else {
            0.0
        };
        Visit {
            figure,
            start,
            stop,
            speed: cells_a_second * CELL as f32,
            rightwards: random.chance(0.5),
            feet: random.between(70.0, 112.0),
            scale: random.between(0.6, 1.4),
            contrast: [12.0, 25.0, 50.0][random.below(3)]
                * if random.chance(0.5) { 1.0 } else { -1.0 },
        }
    }

    /// Width and height in pixels.
    fn size(&self) -> (f32, f32) {
        let (width, height) = match self.figure {
            Figure::Person => (11.0, 32.0),
            Figure::Animal => (12.0, 8.0),
            Figure::Car => (46.0, 20.0),
        };
        (width * self.scale, height * self.scale)
    }

    fn path(&self) -> f32 {
        WIDTH as f32 + self.size().0
    }

    /// When the last of it is gone, in seconds.
    pub(crate) fn end(&self) -> f32 {
        self.start + self.path() / self.speed + self.stop
    }

    /// Its left edge, in pixels.
    fn left(&self, time: f32) -> f32 {
        let half = self.path() / self.speed / 2.0;
        let since = time - self.start;
        let walked = since.min(half) + (since - half - self.stop).max(0.0);
        let way = walked * self.speed;
        if self.rightwards {
            way - self.size().0
        } else {
            WIDTH as f32 - way
        }
    }

    /// Visible pixels at `time`, roughly: its box cut to the picture.
    pub(crate) fn visible(&self, time: f32) -> f32 {
        if time < self.start || time > self.end() {
            return 0.0;
        }
        let (width, height) = self.size();
        let left = self.left(time);
        ((left + width).min(WIDTH as f32) - left.max(0.0)).max(0.0) * height
    }

    /// Paints it into a picture of reflectances; `usual` is the luma (0 to 255) of reflectance 1 in usual light.
    pub(crate) fn paint(&self, time: f32, usual: f32, picture: &mut [f32]) {
        let (width, height) = self.size();
        let (left, top) = (self.left(time), self.feet - height);
        let rows = top.max(0.0) as usize..(self.feet.max(0.0) as usize).min(HEIGHT);
        let columns = left.max(0.0) as usize..((left + width).max(0.0).ceil() as usize).min(WIDTH);
        for y in rows {
            for x in columns.clone() {
                let (across, down) = (
                    (x as f32 + 0.5 - left) / width,
                    (y as f32 + 0.5 - top) / height,
                );
                let Some(tone) = self.tone(across, down, time) else {
                    continue;
                };
                let pixel = &mut picture[y * WIDTH + x];
                let luma = (pixel.sqrt() * usual + tone * self.contrast).max(4.0);
                *pixel = (luma / usual).powi(2).min(1.0);
            }
        }
    }

    /// Share of the contrast at a place of the figure, from its upper left corner (0, 0) to (1, 1).
    fn tone(&self, across: f32, down: f32, time: f32) -> Option<f32> {
        let middle = (across - 0.5).abs();
        let stride = 0.18 + 0.12 * wave(time * 1.8);
        let (inside, tone) = match self.figure {
            Figure::Person if down < 0.16 => (middle < 0.25, 0.7),
            Figure::Person if down < 0.55 => (middle < 0.42, 1.0),
            Figure::Person => ((middle - stride).abs() < 0.16, 0.8),
            Figure::Animal if down < 0.65 => (true, 1.0),
            Figure::Animal => ((middle - 0.35).abs() < 0.1, 0.9),
            Figure::Car if down < 0.4 => (middle < 0.3, 0.6),
            Figure::Car => (down < 0.9 || (middle - 0.3).abs() < 0.1, 1.0),
        };
        inside.then_some(tone)
    }
}
