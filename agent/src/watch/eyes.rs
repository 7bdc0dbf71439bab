//! One camera with everything that decides whether a picture is worth a question.

use super::slot::Slot;
use crate::answer;
use crate::fault::Fault;
use ocelli_camera::camera::{Camera, CameraError};
use ocelli_camera::change::{ChangeDetector, ChangeSettings, PixelBox};
use ocelli_camera::look::{
    Choice, Decision, EventId, LookPolicy, LookSettings, Moment, Observation, Phase, Refusal,
    SecondLook, Verdict,
};
use ocelli_camera::quality::{Quality, QualityJudge, QualityLimits};
use ocelli_camera::recovery::State;
use ocelli_camera::source::monotonic_now;
use ocelli_camera::zone::Zone;
use ocelli_camera::{Frame, FrameError, Rgb};
use ocelli_runtime::image::Rgb8;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Cells of the grid that change is looked for in.
const GRID: (u32, u32) = (40, 30);
/// Longest wait for a frame, so that stopping and timers are not held up.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// While nothing goes on, the quality of the picture is looked at this often.
const IDLE_JUDGE: Duration = Duration::from_secs(1);
/// After the last picture of a recording: longer than any look waits for a better one.
const LAST_WAIT: Duration = Duration::from_secs(3_600);
/// The topic of the message that asks for the first look.
pub const START: &str = "start";

/// How a camera is watched.
#[derive(Debug)]
pub struct EyeSettings {
    /// Change detection.
    pub change: ChangeSettings,
    /// Zones of the picture.
    pub zones: Vec<Zone>,
    /// When to look.
    pub look: LookSettings,
    /// What a good picture is.
    pub quality: QualityLimits,
    /// Most frames a second that are looked at.
    pub rate: f64,
    /// Whether the source is a camera of this moment: only such a one can freeze.
    pub live: bool,
}

/// A picture worth a question, and why.
#[derive(Debug)]
pub struct Sight {
    /// Number of the event it belongs to.
    pub event: u64,
    /// The first look at the event, which is to be answered early.
    pub is_new: bool,
    /// Name of the trigger.
    pub trigger: String,
    /// The picture, upright and masked.
    pub picture: Rgb8,
    /// Number of the frame at its source.
    pub sequence: u64,
    /// How old the frame was when it was taken up.
    pub age: Duration,
    /// When it was taken up.
    pub taken: SystemTime,
    /// How many of a thousand cells had changed.
    pub changed_permille: u32,
    /// Zones in which something went on.
    pub zones: Vec<String>,
    /// Where something had changed.
    pub boxes: Vec<PixelBox>,
    /// What is wrong with the picture, in words.
    pub findings: Vec<String>,
    /// What the detector found, if there is one.
    pub second: Option<(String, f32)>,
}

/// What else happened.
#[derive(Debug)]
pub enum News {
    /// The camera's state changed.
    Camera(State),
    /// A trigger led to no look.
    Refused {
        /// Name of the trigger.
        trigger: String,
        /// Why, in words.
        reason: String,
    },
    /// An event is over.
    EventEnd {
        /// Its number.
        event: u64,
    },
    /// A sight was replaced by a newer one before the model could look at it.
    Replaced {
        /// Its event.
        event: u64,
    },
    /// News that were not told, because too many waited.
    Lost {
        /// How many.
        count: u64,
    },
    /// A frame could not be used.
    BadFrame(FrameError),
    /// The detector failed; the sight counts without it.
    Detector(String),
}

/// A camera that is watched.
pub struct Eyes {
    camera: Camera,
    detector: ChangeDetector,
    judge: QualityJudge,
    policy: LookPolicy,
    second: Option<Box<dyn SecondLook + Send>>,
    zones: Vec<String>,
    triggers: Vec<String>,
    live: bool,
    pace: Duration,
    next: Duration,
    /// Time of the last picture.
    now: Duration,
    quality: Option<(Duration, Quality)>,
    state: Option<State>,
    kept: Option<Glimpse>,
    started: bool,
    looking: bool,
}

/// A frame with what was seen in it.
#[derive(Debug)]
struct Glimpse {
    frame: Frame,
    age: Duration,
    taken: SystemTime,
    changed_permille: u32,
    zones: Vec<String>,
    boxes: Vec<PixelBox>,
    findings: Vec<String>,
}

impl std::fmt::Debug for Eyes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eyes")
            .field("camera", &self.camera.status().description())
            .field("triggers", &self.triggers)
            .finish_non_exhaustive()
    }
}

impl Eyes {
    /// Eyes on an open camera. `second` is asked about every picture that something changed in.
    ///
    /// # Errors
    ///
    /// Settings out of their limits.
    pub fn new(
        camera: Camera,
        settings: EyeSettings,
        second: Option<Box<dyn SecondLook + Send>>,
    ) -> Result<Eyes, Fault> {
        let argument = |error: &dyn std::fmt::Display| Fault::Argument(error.to_string());
        let names: Vec<&str> = settings
            .zones
            .iter()
            .map(|zone| zone.name.as_str())
            .collect();
        let zones = names.iter().map(|name| (*name).to_owned()).collect();
        let triggers = settings.look.triggers.iter();
        let triggers = triggers.map(|trigger| trigger.name.to_string()).collect();
        let policy = LookPolicy::new(settings.look, &names, EventId(1));
        let detector = ChangeDetector::new(settings.change, settings.zones.clone());
        Ok(Eyes {
            policy: policy.map_err(|error| argument(&error))?,
            detector: detector.map_err(|error| argument(&error))?,
            judge: QualityJudge::new(settings.quality, settings.live),
            camera,
            second,
            zones,
            triggers,
            pace: Duration::from_secs_f64(1.0 / settings.rate),
            next: Duration::ZERO,
            now: Duration::ZERO,
            live: settings.live,
            quality: None,
            state: None,
            kept: None,
            started: false,
            looking: false,
        })
    }

    /// Takes one frame and tells what follows from it; false when the source has ended.
    pub(super) fn look(&mut self, slot: &Slot) -> bool {
        let frame = self.camera.frame(LONGEST_WAIT);
        if !matches!(frame, Err(CameraError::Ended { .. })) {
            self.tell_state(slot);
        }
        match frame {
            Ok(frame) => {
                // A recording has its own time, however fast it is read.
                let now = match self.live {
                    true => monotonic_now(),
                    false => frame.timestamp(),
                };
                self.now = now;
                if now < self.next {
                    return true;
                }
                self.next = now.max(self.next + self.pace);
                if let Err(error) = self.observe(frame, now, slot) {
                    slot.tell(News::BadFrame(error));
                }
                true
            }
            Err(CameraError::NoFrame { .. }) => {
                if self.live {
                    self.pass_time(monotonic_now(), slot);
                }
                true
            }
            Err(_) => {
                self.pass_time(self.now + LAST_WAIT, slot);
                false
            }
        }
    }

    /// Lets time pass without a picture: looks that wait take the best they have, events end.
    fn pass_time(&mut self, now: Duration, slot: &Slot) {
        let decisions = self.policy.step(Observation::Tick, moment(now)).to_vec();
        self.carry_out(decisions, None, slot);
    }

    fn tell_state(&mut self, slot: &Slot) {
        let state = self.camera.status().state();
        let same = match (&self.state, &state) {
            (Some(State::Recovering { reason: old, .. }), State::Recovering { reason, .. }) => {
                old == reason
            }
            (Some(old), new) => old == new,
            (None, _) => false,
        };
        if !same {
            slot.tell(News::Camera(state.clone()));
            self.state = Some(state);
        }
    }

    fn observe(&mut self, frame: Frame, now: Duration, slot: &Slot) -> Result<(), FrameError> {
        let taken = SystemTime::now();
        let luma = frame.luma(GRID.0, GRID.1)?;
        let change = self.detector.step(&luma, now).clone();
        let lively = change.whole.active || change.zones.iter().any(|zone| zone.active);
        let stale = self
            .quality
            .as_ref()
            .is_none_or(|(at, _)| now.saturating_sub(*at) >= IDLE_JUDGE);
        if lively || self.looking || !self.started || stale {
            let quality = self.judge.judge(&frame.to_rgb()?, now);
            self.quality = Some((now, quality));
        }
        let Some((_, quality)) = &self.quality else {
            return Ok(());
        };
        let (width, height) = frame.upright_size();
        let boxes = change.boxes.iter();
        let boxes = boxes.map(|cells| cells.in_picture(&change.cells, width, height));
        let active = change
            .zones
            .iter()
            .zip(&self.zones)
            .filter(|(zone, _)| zone.active);
        let glimpse = Glimpse {
            age: now.saturating_sub(frame.timestamp()),
            taken,
            changed_permille: change.permille,
            zones: active.map(|(_, name)| name.clone()).collect(),
            boxes: boxes.collect(),
            findings: quality.findings.iter().map(ToString::to_string).collect(),
            frame,
        };
        let picture = Observation::Picture {
            change: &change,
            quality,
        };
        let mut decisions = Vec::new();
        if !std::mem::replace(&mut self.started, true) {
            let start = Observation::Message { topic: START };
            decisions.extend_from_slice(self.policy.step(start, moment(now)));
        }
        decisions.extend_from_slice(self.policy.step(picture, moment(now)));
        self.carry_out(decisions, Some(glimpse), slot);
        Ok(())
    }

    fn carry_out(&mut self, decisions: Vec<Decision>, mut glimpse: Option<Glimpse>, slot: &Slot) {
        for decision in decisions {
            match decision {
                Decision::Keep => {
                    self.looking = true;
                    self.kept = glimpse.take();
                }
                Decision::Look {
                    event,
                    phase,
                    trigger,
                    picture,
                } => {
                    self.looking = false;
                    let kept = self.kept.take();
                    let chosen = match picture {
                        Choice::This => glimpse.take(),
                        Choice::Kept => kept,
                    };
                    if let Some(chosen) = chosen {
                        self.show(chosen, event, phase, trigger, slot);
                    }
                }
                Decision::Merged { .. } => {}
                Decision::Refused { trigger, reason } => {
                    if matches!(reason, Refusal::Quality(_) | Refusal::NoPicture) {
                        self.looking = false;
                        self.kept = None;
                    }
                    slot.tell(News::Refused {
                        trigger: self.triggers[trigger].clone(),
                        reason: reason.to_string(),
                    });
                }
                Decision::End { event } => slot.tell(News::EventEnd { event: event.0 }),
            }
        }
    }

    fn show(
        &mut self,
        glimpse: Glimpse,
        event: EventId,
        phase: Phase,
        trigger: usize,
        slot: &Slot,
    ) {
        let trigger = self.triggers[trigger].clone();
        let rgb = match glimpse.frame.to_rgb() {
            Ok(rgb) => rgb,
            Err(error) => return slot.tell(News::BadFrame(error)),
        };
        let second = match self.ask_detector(&rgb, &glimpse.boxes, slot) {
            Some(Verdict::Denied) => {
                let reason = "the detector found nothing that counts".to_owned();
                return slot.tell(News::Refused { trigger, reason });
            }
            Some(Verdict::Confirmed { label, score }) => Some((label, score)),
            None => None,
        };
        let picture = match answer::from_camera(rgb) {
            Ok(picture) => picture,
            Err(error) => {
                let reason = error.to_string();
                return slot.tell(News::Refused { trigger, reason });
            }
        };
        let sight = Sight {
            event: event.0,
            is_new: phase == Phase::New,
            trigger,
            picture,
            sequence: glimpse.frame.sequence(),
            age: glimpse.age,
            taken: glimpse.taken,
            changed_permille: glimpse.changed_permille,
            zones: glimpse.zones,
            boxes: glimpse.boxes,
            findings: glimpse.findings,
            second,
        };
        match self.live {
            true => slot.see(sight),
            false => slot.see_in_turn(sight),
        }
    }

    fn ask_detector(&mut self, rgb: &Rgb, boxes: &[PixelBox], slot: &Slot) -> Option<Verdict> {
        match self.second.as_mut()?.confirm(rgb, boxes) {
            Ok(verdict) => Some(verdict),
            Err(error) => {
                slot.tell(News::Detector(error.to_string()));
                None
            }
        }
    }
}

fn moment(steady: Duration) -> Moment {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    Moment {
        steady,
        unix: unix.and_then(|since| i64::try_from(since.as_secs()).ok()),
    }
}

#[cfg(test)]
impl Sight {
    /// A sight of one black pixel.
    pub(super) fn blank(event: u64) -> Sight {
        Sight {
            event,
            is_new: true,
            trigger: "change".into(),
            picture: Rgb8::new(1, 1, vec![0; 3]).unwrap(),
            sequence: 0,
            age: Duration::ZERO,
            taken: UNIX_EPOCH,
            changed_permille: 0,
            zones: Vec::new(),
            boxes: Vec::new(),
            findings: Vec::new(),
            second: None,
        }
    }
}
