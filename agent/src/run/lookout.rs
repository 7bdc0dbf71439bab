//! [`Lookout`]: the camera on a thread of its own: tells of changes, takes pictures when asked.

mod gallery;
mod teller;

pub use gallery::Gallery;

use super::settings::{CameraSettings, WHOLE};
use crate::answer;
use crate::fault::Fault;
use crate::mailbox::event;
use nix::sys::eventfd::EventFd;
use ocelli_camera::camera::{Camera, CameraError, CameraOptions};
use ocelli_camera::change::ChangeDetector;
use ocelli_camera::quality::{Finding, QualityJudge};
use ocelli_camera::recovery::State;
use ocelli_camera::source::{SourceOptions, monotonic_now};
use ocelli_camera::{FrameError, Mask, Orientation, View};
use ocelli_reflex::observation::{Change, Frame, Quality};
use ocelli_reflex::{LookId, text};
use ocelli_runtime::image::Rgb8;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use teller::{Teller, Telling};

/// Cells of the grid that change is looked for in.
const GRID: (u32, u32) = (40, 30);
/// Longest wait for a frame, so that stopping and orders are not held up.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// How long a look waits for a good picture before it takes what there is.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A look is answered this long before it is given up.
const MARGIN: Duration = Duration::from_millis(100);
/// Most changes that wait for the loop; the oldest are dropped. Answers to looks are always kept.
const MAX_CHANGES: usize = 64;
/// Most looks under way, more than runs there can be.
const MAX_LOOKS: usize = 64;

/// What the camera has to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A change.
    Change(Box<Change>),
    /// A look was taken; `None` if there is no picture.
    Looked(LookId, Option<Frame>),
    /// The camera delivers pictures, or not and why.
    Camera {
        /// Pictures come.
        works: bool,
        /// In words.
        state: String,
    },
    /// The source has no more, by nature.
    Ended,
    /// A frame could not be used.
    BadFrame(String),
    /// Changes that were not told because too many waited.
    Lost(u64),
}

#[derive(Clone, Copy, Debug)]
struct Look {
    id: LookId,
    asked: Duration,
    until: Duration,
}

#[derive(Debug, Default)]
struct Desk {
    looks: VecDeque<Look>,
    seen: VecDeque<Seen>,
    n_changes: usize,
    lost: u64,
    gallery: Gallery,
    is_ending: bool,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    told: EventFd,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, seen: Seen) {
        let mut desk = self.desk();
        if matches!(seen, Seen::Change(_)) {
            if desk.n_changes >= MAX_CHANGES {
                let oldest = desk
                    .seen
                    .iter()
                    .position(|seen| matches!(seen, Seen::Change(_)));
                oldest.map(|at| desk.seen.remove(at));
                desk.lost += 1;
            } else {
                desk.n_changes += 1;
            }
        }
        desk.seen.push_back(seen);
        drop(desk);
        // A counter that is full has rung already.
        let _ = self.told.write(1);
    }
}

/// The thread and the way to it.
#[derive(Debug)]
pub struct Lookout {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Lookout {
    /// Opens the camera and begins to look. A camera that is away is waited for.
    ///
    /// # Errors
    ///
    /// Settings that cannot be used; no thread left.
    pub fn start(settings: &CameraSettings) -> Result<Lookout, Fault> {
        let camera = Camera::open(&settings.source, options(settings))?;
        let argument = |error: &dyn std::fmt::Display| Fault::Argument(format!("camera: {error}"));
        let detector = ChangeDetector::new(settings.change.clone(), settings.zones.clone())
            .map_err(|error| argument(&error))?;
        let live = !settings.source.starts_with("replay:");
        let told = event()?;
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk::default()),
            told,
        });
        let mut worker = Worker {
            shared: Arc::clone(&shared),
            camera,
            teller: Teller::new(&settings.zones, GRID),
            detector,
            judge: QualityJudge::new(settings.quality.clone(), live),
            any_quality: settings.any_quality,
            live,
            pace: Duration::from_secs_f64(1.0 / settings.rate),
            next: Duration::ZERO,
            next_frame: 1,
            best: None,
            state: None,
        };
        let thread = std::thread::Builder::new()
            .name("camera".to_owned())
            .spawn(move || worker.run())?;
        Ok(Lookout {
            shared,
            thread: Some(thread),
        })
    }

    /// Takes a picture after now; [`Seen::Looked`] follows within `within`.
    pub fn look(&self, id: LookId, within: Duration) {
        let asked = monotonic_now();
        let until = asked.saturating_add(within);
        let mut desk = self.shared.desk();
        if desk.looks.len() >= MAX_LOOKS {
            drop(desk);
            return self.shared.tell(Seen::Looked(id, None));
        }
        desk.looks.push_back(Look { id, asked, until });
    }

    /// A look is no longer wanted.
    pub fn cancel(&self, id: LookId) {
        self.shared.desk().looks.retain(|look| look.id != id);
    }

    /// A picture that was told of, as long as it is kept.
    pub fn picture(&self, frame: u64) -> Option<Arc<Rgb8>> {
        self.shared.desk().gallery.get(frame)
    }

    /// Readable when there is something to tell.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.told.as_fd()
    }

    /// The next thing to tell.
    pub fn try_next(&self) -> Option<Seen> {
        let mut desk = self.shared.desk();
        if desk.lost > 0 {
            return Some(Seen::Lost(std::mem::take(&mut desk.lost)));
        }
        let next = desk.seen.pop_front();
        match next {
            Some(Seen::Change(_)) => desk.n_changes -= 1,
            // Empty when nobody rang.
            None => drop(self.shared.told.read()),
            Some(_) => {}
        }
        next
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.shared.desk().is_ending = true;
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn options(settings: &CameraSettings) -> CameraOptions {
    let mask = (!settings.masks.is_empty()).then(|| Arc::new(Mask::new(settings.masks.clone())));
    let orientation = Orientation {
        // Checked to be 0, 90, 180 or 270.
        quarter_turns: (settings.rotate / 90) as u8,
        mirror: settings.mirror,
        flip: false,
    };
    CameraOptions {
        source: SourceOptions {
            size: Some(settings.size),
            rate: Some(settings.rate),
            controls: settings.controls.clone(),
            view: Arc::new(View { orientation, mask }),
            ..SourceOptions::default()
        },
        await_device: true,
        ..CameraOptions::default()
    }
}

struct Worker {
    shared: Arc<Shared>,
    camera: Camera,
    detector: ChangeDetector,
    teller: Teller,
    judge: QualityJudge,
    any_quality: bool,
    live: bool,
    pace: Duration,
    next: Duration,
    next_frame: u64,
    /// The best picture so far while a look waits for a better one.
    best: Option<Frame>,
    state: Option<State>,
}

impl Worker {
    fn run(&mut self) {
        loop {
            if self.shared.desk().is_ending {
                return;
            }
            match self.camera.frame(LONGEST_WAIT) {
                Ok(frame) => {
                    self.tell_state();
                    if let Err(error) = self.observe(&frame) {
                        self.shared.tell(Seen::BadFrame(error));
                    }
                }
                Err(CameraError::NoFrame { .. }) => self.tell_state(),
                Err(_) => {
                    self.settle_looks(Duration::MAX);
                    return self.shared.tell(Seen::Ended);
                }
            }
            self.settle_looks(monotonic_now());
        }
    }

    /// Says whether pictures come, when that changes.
    fn tell_state(&mut self) {
        let state = self.camera.status().state();
        let in_words = match &state {
            State::Streaming => "streaming".to_owned(),
            State::Recovering { reason, .. } => format!("recovering: {reason}"),
            State::Gone { reason, .. } => format!("gone: {reason}"),
        };
        let works = state == State::Streaming;
        let is_news = match (&self.state, &state) {
            (Some(State::Recovering { reason: old, .. }), State::Recovering { reason, .. })
            | (Some(State::Gone { reason: old, .. }), State::Gone { reason, .. }) => old != reason,
            (Some(old), new) => old != new,
            (None, _) => true,
        };
        if is_news {
            self.state = Some(state);
            self.shared.tell(Seen::Camera {
                works,
                state: in_words,
            });
        }
    }

    fn observe(&mut self, frame: &ocelli_camera::Frame) -> Result<(), String> {
        let in_words = |error: FrameError| error.to_string();
        let now = monotonic_now();
        // Recorded pictures have times of their own; here they are of this moment.
        let taken = if self.live { frame.timestamp() } else { now };
        let wanted = {
            let desk = self.shared.desk();
            let is_after = |look: &Look| !self.live || taken >= look.asked;
            desk.looks.iter().any(is_after)
        };
        if now < self.next && !wanted {
            return Ok(());
        }
        let tellings = if now < self.next {
            Vec::new()
        } else {
            self.next = now.max(self.next + self.pace);
            let luma = frame.luma(GRID.0, GRID.1).map_err(in_words)?;
            let change = self.detector.step(&luma, now);
            self.teller.step(change, now)
        };
        if tellings.is_empty() && !wanted {
            return Ok(());
        }
        let rgb = frame.to_rgb().map_err(in_words)?;
        let quality = match self.any_quality {
            true => Quality::Good,
            false => grade(&self.judge.judge(&rgb, now).findings),
        };
        let picture = answer::from_camera(rgb).map_err(|error| error.to_string())?;
        let frame = self.keep(picture, taken, quality);
        for telling in tellings {
            self.shared
                .tell(Seen::Change(Box::new(change_of(telling, frame))));
        }
        if wanted {
            self.offer(frame, now);
        }
        Ok(())
    }

    fn keep(&mut self, picture: Rgb8, taken: Duration, quality: Quality) -> Frame {
        let id = self.next_frame;
        self.next_frame += 1;
        self.shared.desk().gallery.keep(id, Arc::new(picture));
        Frame {
            id,
            time: super::clock::millis(taken),
            quality,
        }
    }

    /// A picture for the looks that wait: taken if it is good, else kept in case nothing better
    /// comes.
    fn offer(&mut self, frame: Frame, now: Duration) {
        if frame.quality == Quality::Good {
            self.best = Some(frame);
            return self.answer(now, |_| true);
        }
        // The newest, as evidence ages.
        self.best = Some(frame);
    }

    /// Answers looks whose time is over with the best there is.
    fn settle_looks(&mut self, now: Duration) {
        self.answer(now, |look| {
            let patience = look.asked.saturating_add(PATIENCE);
            now >= patience.min(look.until.saturating_sub(MARGIN))
        });
        if self.shared.desk().looks.is_empty() {
            self.best = None;
        }
    }

    fn answer(&mut self, now: Duration, is_due: impl Fn(&Look) -> bool) {
        let best = self.best;
        let mut answered = Vec::new();
        self.shared.desk().looks.retain(|look| {
            let asked = super::clock::millis(look.asked);
            // A picture from before the look is none.
            let picture = best.filter(|frame| frame.time >= asked);
            let due =
                is_due(look) && (picture.is_some() || now >= look.until.saturating_sub(MARGIN));
            if due {
                answered.push(Seen::Looked(look.id, picture));
            }
            !due
        });
        for seen in answered {
            self.shared.tell(seen);
        }
    }
}

fn change_of(telling: Telling, frame: Frame) -> Change {
    Change {
        // Zone names have at most 32 bytes, as names here.
        zones: text::name(&telling.zone).into_iter().collect(),
        fraction: telling.fraction,
        cause: telling.cause,
        episode: telling.episode,
        frame,
    }
}

/// The first finding, in the words of rules.
fn grade(findings: &[Finding]) -> Quality {
    match findings.first() {
        None => Quality::Good,
        Some(Finding::Dark { .. } | Finding::Empty) => Quality::Dark,
        Some(Finding::Glare { .. }) => Quality::Bright,
        Some(Finding::Covered { .. } | Finding::Frozen { .. }) => Quality::Covered,
        Some(_) => Quality::Blurred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn settings(source: &str) -> CameraSettings {
        let text =
            format!("source = {source:?}\nany_quality = true\nsize = [64, 48]\nrate = 20.0\n");
        toml::from_str(&text).unwrap()
    }

    fn wait_for<T>(lookout: &Lookout, wanted: impl Fn(Seen) -> Option<T>) -> T {
        loop {
            match lookout.try_next().map(&wanted) {
                Some(Some(found)) => return found,
                Some(None) => {}
                None => {
                    let mut fds = [PollFd::new(lookout.fd(), PollFlags::POLLIN)];
                    assert_ne!(poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap(), 0);
                }
            }
        }
    }

    fn picture_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let picture = image::RgbImage::from_fn(64, 48, |x, y| {
            image::Rgb([(x * 4) as u8, (y * 5) as u8, ((x + y) * 2) as u8])
        });
        picture.save(folder.path().join("a.png")).unwrap();
        folder
    }

    #[test]
    fn a_look_gets_a_picture_taken_after_it_was_asked_for() {
        let folder = picture_folder();
        let source = format!("replay:{}?repeat=true&rate=20", folder.path().display());
        let lookout = Lookout::start(&settings(&source)).unwrap();
        let asked = super::super::clock::millis(monotonic_now());
        lookout.look(LookId(5), Duration::from_secs(10));
        let frame = wait_for(&lookout, |seen| match seen {
            Seen::Looked(LookId(5), frame) => Some(frame.expect("a picture")),
            _ => None,
        });
        assert!(frame.time >= asked && frame.quality == Quality::Good);
        let picture = lookout.picture(frame.id).expect("it is kept");
        assert_eq!((picture.width(), picture.height()), (64, 48));
    }

    #[test]
    fn a_camera_that_is_away_answers_looks_with_no_picture() {
        let lookout = Lookout::start(&settings("v4l2:?card=no such camera")).unwrap();
        lookout.look(LookId(1), Duration::from_millis(300));
        let frame = wait_for(&lookout, |seen| match seen {
            Seen::Looked(LookId(1), frame) => Some(frame),
            _ => None,
        });
        assert_eq!(frame, None);
    }
}
