//! Harm done to good pictures.

use ocelli_camera::Rgb;

/// One kind of harm at one strength, and how many of ten pictures must be refused for it at least and at most.
pub(crate) struct Harm {
    pub(crate) name: &'static str,
    pub(crate) least: usize,
    pub(crate) most: usize,
    kind: Kind,
}

enum Kind {
    Blur(usize),
    Motion(usize),
    Light(f32),
    Fog(f32),
    Glare(u32),
    Noise(f32),
}

const fn harm(name: &'static str, kind: Kind, least: usize, most: usize) -> Harm {
    Harm {
        name,
        least,
        most,
        kind,
    }
}

pub(crate) const ALL: [Harm; 15] = [
    harm("noise, deviation 8", Kind::Noise(8.0), 0, 0),
    harm("noise, deviation 16", Kind::Noise(16.0), 0, 0),
    harm("light 1/2", Kind::Light(0.5), 0, 10),
    harm("light 1/4", Kind::Light(0.25), 8, 10),
    harm("light 1/10", Kind::Light(0.1), 9, 10),
    harm("blur, deviation 1.4 pixels", Kind::Blur(1), 0, 2),
    harm("blur, deviation 4.2 pixels", Kind::Blur(3), 7, 10),
    harm("blur, deviation 8.4 pixels", Kind::Blur(6), 9, 10),
    harm("motion of 9 pixels", Kind::Motion(4), 0, 10),
    harm("motion of 21 pixels", Kind::Motion(10), 8, 10),
    harm("motion of 41 pixels", Kind::Motion(20), 8, 10),
    harm("fog, half the contrast", Kind::Fog(0.5), 0, 10),
    harm("fog, a fifth of the contrast", Kind::Fog(0.2), 9, 10),
    harm("glare on 5 %", Kind::Glare(5), 0, 0),
    harm("glare on 15 %", Kind::Glare(15), 9, 10),
];

impl Harm {
    pub(crate) fn done_to(&self, picture: &Rgb) -> Rgb {
        let row = picture.width as usize * 3;
        let mut pixels: Vec<f32> = picture
            .pixels
            .iter()
            .map(|value| f32::from(*value))
            .collect();
        match self.kind {
            // Three means of 2n + 1 pixels have a deviation of the square root of n² + n.
            Kind::Blur(reach) => {
                for _ in 0..3 {
                    pixels = smear(&smear(&pixels, row, reach, 3), row, reach, row);
                }
            }
            Kind::Motion(reach) => pixels = smear(&pixels, row, reach, 3),
            Kind::Light(share) => pixels.iter_mut().for_each(|value| *value *= share),
            Kind::Fog(share) => pixels
                .iter_mut()
                .for_each(|value| *value = *value * share + 180.0 * (1.0 - share)),
            Kind::Glare(percent) => {
                let side = (percent as f32 / 100.0).sqrt();
                let rows = (picture.height as f32 * side) as usize;
                for line in pixels.chunks_exact_mut(row).take(rows) {
                    line[..(picture.width as f32 * side) as usize * 3].fill(255.0);
                }
            }
            Kind::Noise(deviation) => {
                let mut random = super::clips::random::Random::new(1);
                pixels
                    .iter_mut()
                    .for_each(|value| *value += random.normal() * deviation);
            }
        }
        let pixels = pixels.iter().map(|value| (value + 0.5) as u8).collect();
        Rgb { pixels, ..*picture }
    }
}

/// Mean of the values `reach` steps before and after; those outside the picture repeat the border's.
fn smear(values: &[f32], row: usize, reach: usize, step: usize) -> Vec<f32> {
    let (across, channels) = (step == 3, 3);
    let rows = values.len() / row;
    let at = |y: usize, x: usize| values[y * row + x];
    let mut out = Vec::with_capacity(values.len());
    for y in 0..rows {
        for x in 0..row {
            let sum: f32 = (0..=2 * reach)
                .map(|place| {
                    if across {
                        let column = (x / channels + place)
                            .saturating_sub(reach)
                            .min(row / channels - 1);
                        at(y, column * channels + x % channels)
                    } else {
                        at((y + place).saturating_sub(reach).min(rows - 1), x)
                    }
                })
                .sum();
            out.push(sum / (2 * reach + 1) as f32);
        }
    }
    out
}
