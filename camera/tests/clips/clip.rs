//! Clips of one kind of weather each, frame by frame.

use ocelli_camera::Luma;

use super::camera::Sensor;
use super::random::{Random, wave};
use super::scene::{HEIGHT, Scene, Visit, WIDTH};

/// Frames a second.
pub(crate) const RATE: f32 = 5.0;
/// Level of reflectance 1 in usual light.
const USUAL: f32 = 230.0;
/// Nothing enters before: time to learn, in seconds.
const LEAD: f32 = 20.0;

/// What makes a clip hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Daylight, a little noise.
    Day,
    /// Much sensor noise, little contrast.
    Night,
    /// Streaks in every frame, at dusk.
    Rain,
    /// A lamp goes on and off.
    Switch,
    /// Light falls to a thirtieth, exposure follows until it cannot.
    Dusk,
    /// The sun comes and goes, shadows with it.
    Clouds,
    /// Gusts shake the camera.
    Shake,
    /// Lamps flicker with the mains under a rolling shutter.
    Flicker,
    /// Trees in the wind.
    Foliage,
    /// Automatic exposure hunts.
    Pumping,
}

impl Kind {
    pub(crate) const ALL: [Kind; 10] = [
        Kind::Day,
        Kind::Night,
        Kind::Rain,
        Kind::Switch,
        Kind::Dusk,
        Kind::Clouds,
        Kind::Shake,
        Kind::Flicker,
        Kind::Foliage,
        Kind::Pumping,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Day => "day",
            Kind::Night => "night",
            Kind::Rain => "rain",
            Kind::Switch => "light switch",
            Kind::Dusk => "slow dusk",
            Kind::Clouds => "clouds",
            Kind::Shake => "camera shake",
            Kind::Flicker => "flicker",
            Kind::Foliage => "foliage",
            Kind::Pumping => "exposure pumping",
        }
    }
}

/// A clip being rendered.
#[derive(Clone, Debug)]
pub(crate) struct Clip {
    kind: Kind,
    scene: Scene,
    pub(crate) visits: Vec<Visit>,
    sensor: Sensor,
    random: Random,
    seconds: f32,
    frame: u32,
    sky: Sky,
    /// What the picture reflects now.
    seen: Vec<f32>,
    light: Vec<f32>,
}

/// Light and camera at one moment.
#[derive(Clone, Debug)]
struct Sky {
    ambient: f32,
    sun: f32,
    lamp: f32,
    exposure: f32,
    shift: [f32; 2],
    /// When the next thing happens, in seconds.
    next: f32,
    /// Where it goes, and how fast.
    goal: f32,
    pace: f32,
}

impl Clip {
    /// A clip of `seconds`; `busy` ones have a visit about every 40 s, others none.
    pub(crate) fn new(kind: Kind, seed: u64, seconds: f32, busy: bool) -> Clip {
        let mut random = Random::new(seed * 64 + kind as u64 * 2 + u64::from(busy));
        let scene = Scene::new(&mut random);
        let sensor = Sensor::new(&mut random);
        let mut clip = Clip {
            kind,
            scene,
            visits: Vec::new(),
            sensor,
            seconds,
            frame: 0,
            sky: Sky::of(kind),
            seen: vec![0.0; WIDTH * HEIGHT],
            light: vec![0.0; WIDTH * HEIGHT],
            random,
        };
        if busy {
            clip.invite();
        }
        clip
    }

    /// Plans a visit about every 40 s.
    fn invite(&mut self) {
        let mut start = LEAD;
        loop {
            let begins = start + self.random.between(0.0, 10.0);
            let visit = Visit::random(&mut self.random, begins);
            start = visit.end() + 25.0;
            if visit.end() + 5.0 > self.seconds {
                return;
            }
            self.visits.push(visit);
        }
    }

    /// The last picture, `WIDTH` × `HEIGHT` levels.
    #[allow(dead_code, reason = "the contact sheets of the report show it")]
    pub(crate) fn picture(&self) -> &[u8] {
        &self.sensor.picture
    }

    fn render(&mut self, time: f32) {
        let [dx, dy] = self.sky.shift;
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                self.seen[y * WIDTH + x] = self.scene.at(x as f32 + dx, y as f32 + dy);
            }
        }
        if self.kind == Kind::Foliage {
            self.sway(time);
        }
        for visit in &self.visits {
            if visit.visible(time) > 0.0 {
                visit.paint(time, USUAL, &mut self.seen);
            }
        }
        let Sky {
            ambient,
            sun,
            lamp,
            exposure,
            ..
        } = self.sky;
        let scene = &self.scene;
        for (at, light) in self.light.iter_mut().enumerate() {
            *light =
                self.seen[at] * (ambient + sun * scene.sun[at] + lamp * scene.lamp[at]) * exposure;
        }
        match self.kind {
            Kind::Rain => self.streak(),
            Kind::Flicker => self.flicker(),
            _ => {}
        }
    }

    /// Moves the leaves.
    fn sway(&mut self, time: f32) {
        let gust = 0.4 + 0.6 * wave(time / 17.0).max(0.0) + 0.5 * wave(time / 41.0 + 0.3).max(0.0);
        for [cx, cy, rx, ry] in &self.scene.crowns {
            for y in (cy - ry).max(0.0) as usize..((cy + ry) as usize).min(HEIGHT) {
                for x in (cx - rx).max(0.0) as usize..((cx + rx) as usize).min(WIDTH) {
                    let (fx, fy) = (x as f32, y as f32);
                    if ((fx - cx) / rx).powi(2) + ((fy - cy) / ry).powi(2) > 1.0 {
                        continue;
                    }
                    let sway = gust * 4.0 * wave(time * 0.7 + fx / 37.0 + fy / 53.0);
                    let (lx, ly) = (fx + sway, fy + sway * 0.4 * wave(time * 1.3 + fx / 19.0));
                    let leaf =
                        wave(lx / 7.3 + wave(ly / 11.7)) * wave(ly / 5.9 + 0.3 * wave(lx / 13.1));
                    let clump = wave(lx / 29.0 + 0.4 * wave(ly / 31.0)) * wave(ly / 23.0);
                    self.seen[y * WIDTH + x] = 0.24 + 0.12 * leaf + 0.1 * clump;
                }
            }
        }
    }

    /// Rain drops lit against the dark.
    fn streak(&mut self) {
        for _ in 0..25 {
            let x = self.random.below(WIDTH);
            let length = 6 + self.random.below(16);
            let top = self.random.below(HEIGHT);
            let bright = self.random.between(0.01, 0.08);
            for y in top..(top + length).min(HEIGHT) {
                self.light[y * WIDTH + x] += bright;
            }
        }
    }

    fn flicker(&mut self) {
        let phase = self.random.between(0.0, 1.0);
        for (y, line) in self.light.chunks_exact_mut(WIDTH).enumerate() {
            let gain = 1.0 + 0.18 * wave(y as f32 / 70.0 + phase);
            line.iter_mut().for_each(|light| *light *= gain);
        }
    }

    fn noise(&self) -> f32 {
        match self.kind {
            Kind::Night => 11.0,
            Kind::Rain => 7.0,
            _ => 1.5 + 0.35 * self.sky.exposure,
        }
    }
}

impl Iterator for Clip {
    type Item = (f32, Luma);

    /// The next frame: its time in seconds and its grid.
    fn next(&mut self) -> Option<(f32, Luma)> {
        let time = self.frame as f32 / RATE;
        if time >= self.seconds {
            return None;
        }
        self.frame += 1;
        self.sky
            .advance(self.kind, time, time / self.seconds, &mut self.random);
        self.render(time);
        let noise = self.noise();
        let mean = self.sensor.expose(&self.light, noise, &mut self.random);
        self.sky.meter(self.kind, mean);
        Some((time, self.sensor.grid()))
    }
}

impl Sky {
    fn of(kind: Kind) -> Sky {
        let (ambient, sun, lamp) = match kind {
            Kind::Night => (0.04, 0.0, 0.12),
            Kind::Rain => (0.2, 0.0, 0.1),
            Kind::Switch => (0.15, 0.0, 0.8),
            Kind::Flicker => (0.1, 0.0, 0.9),
            _ => (0.35, 0.45, 0.0),
        };
        Sky {
            ambient,
            sun,
            lamp,
            exposure: 1.0,
            shift: [0.0; 2],
            next: LEAD + 3.0,
            goal: sun,
            pace: 0.0,
        }
    }

    fn advance(&mut self, kind: Kind, time: f32, share: f32, random: &mut Random) {
        let happens = time >= self.next;
        match kind {
            Kind::Switch if happens => {
                self.lamp = if self.lamp > 0.0 { 0.0 } else { 0.8 };
                self.next = time + random.between(25.0, 90.0);
            }
            Kind::Dusk => {
                let left = 1.0 - 0.97 * share;
                (self.ambient, self.sun) =
                    (0.35 * left * left, 0.45 * (1.0 - 2.0 * share).max(0.0));
            }
            Kind::Clouds => {
                if happens {
                    self.goal = random.between(0.02, 0.6);
                    self.pace = (self.goal - self.sun).abs() / random.between(1.5, 8.0) / RATE;
                    self.next = time + random.between(5.0, 40.0);
                }
                self.sun += (self.goal - self.sun).clamp(-self.pace, self.pace);
            }
            Kind::Shake => {
                let gust = (wave(time / 23.0) + 0.6 * wave(time / 7.0)).max(0.0);
                self.shift = [0, 1].map(|_| gust * random.between(-1.8, 1.8));
            }
            Kind::Pumping => self.exposure = 1.0 + 0.3 * wave(time / 4.3) * wave(time / 31.0),
            _ => {}
        }
    }

    /// Automatic exposure: half way to the goal each second.
    fn meter(&mut self, kind: Kind, mean: f32) {
        if matches!(kind, Kind::Switch | Kind::Dusk | Kind::Clouds) {
            let wanted = (120.0 / mean.max(2.0)).clamp(0.5, 2.0);
            self.exposure =
                (self.exposure * (1.0 + (wanted * wanted - 1.0) * 0.12)).clamp(0.3, 12.0);
        }
    }
}
