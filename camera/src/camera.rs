//! A source that is looked after: opened again when it fails, settled before it is believed.

mod settling;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::frame::Frame;
use crate::recovery::{Policy, Recovery, State, Step};
use crate::source::{
    self, Drops, Fault, Opened, Source, SourceError, SourceOptions, monotonic_now,
};
pub use settling::Settle;
use settling::Settling;
use watch::DeviceWatch;

/// How a camera is opened and looked after.
#[derive(Clone, Debug, Default)]
pub struct CameraOptions {
    /// Wishes to the source.
    pub source: SourceOptions,
    /// Limits and waits of recovery.
    pub policy: Policy,
    /// How long exposure may take to settle.
    pub settle: Settle,
    /// A device that is away when the camera is opened is waited for instead of being an error.
    pub await_device: bool,
}

/// Numbers since the camera was opened, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames delivered.
    pub frames: u64,
    /// Frames that did not get through.
    pub drops: Drops,
    /// Times the stream was stopped and started.
    pub restarts: u64,
    /// Times the source was opened again.
    pub reopens: u64,
    /// Errors of any kind, late frames aside.
    pub faults: u64,
}

/// Why there is no frame now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CameraError {
    /// None came in time; keep asking, the camera is looked after meanwhile.
    #[error("no frame within {} ms: {}", wait.as_millis(), in_words(state))]
    NoFrame {
        /// How long it was waited for.
        wait: Duration,
        /// How the camera is.
        state: State,
    },
    /// The last frame was delivered before.
    #[error("{address} has ended")]
    Ended {
        /// The source.
        address: String,
    },
}

fn in_words(state: &State) -> String {
    match state {
        State::Streaming => "the camera is streaming".into(),
        State::Recovering { reason, tries, .. } => format!("recovering, attempt {tries}: {reason}"),
        State::Gone { reason, .. } => format!("gone: {reason}"),
    }
}

/// What others may know while the camera is in use.
#[derive(Debug)]
struct Shared {
    state: State,
    counters: Counters,
    description: String,
    last: Option<Frame>,
}

/// A handle to read how a camera is, from any thread.
#[derive(Clone, Debug)]
pub struct CameraStatus(Arc<Mutex<Shared>>);

impl CameraStatus {
    fn with<T>(&self, read: impl FnOnce(&mut Shared) -> T) -> T {
        // Nothing panics while it holds the lock, and every value in it is whole at all times.
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How the camera is.
    pub fn state(&self) -> State {
        self.with(|shared| shared.state.clone())
    }

    /// Numbers since it was opened.
    pub fn counters(&self) -> Counters {
        self.with(|shared| shared.counters)
    }

    /// What and where it is, in words.
    pub fn description(&self) -> String {
        self.with(|shared| shared.description.clone())
    }

    /// The last good frame.
    pub fn last_frame(&self) -> Option<Frame> {
        self.with(|shared| shared.last.clone())
    }
}

/// Opens a source by its URI.
pub type Open = Box<dyn FnMut(&str, &SourceOptions) -> Opened + Send>;

/// A supervised source. Everything happens on the thread that asks for frames.
pub struct Camera {
    address: String,
    options: CameraOptions,
    open: Open,
    source: Option<Box<dyn Source>>,
    recovery: Recovery,
    settling: Settling,
    /// Drops of sources that were closed since.
    closed_drops: Drops,
    unsettled: u64,
    watch: DeviceWatch,
    status: CameraStatus,
}

/// Longest wait inside one request to a source: state and stuck streams are noticed that often.
const LONGEST_READ: Duration = Duration::from_secs(1);

impl Camera {
    /// Opens the source of a URI (see [`crate::source`]).
    ///
    /// # Errors
    ///
    /// What opening reports; a device that is away is no error with [`CameraOptions::await_device`].
    pub fn open(uri: &str, options: CameraOptions) -> Result<Camera, SourceError> {
        Camera::open_with(uri, options, Box::new(source::open))
    }

    /// [`Camera::open`] with another way to open URIs.
    ///
    /// # Errors
    ///
    /// As [`Camera::open`].
    pub fn open_with(uri: &str, options: CameraOptions, open: Open) -> Result<Camera, SourceError> {
        let (address, wishes) = source::split(uri, &options.source)?;
        let options = CameraOptions {
            source: wishes,
            ..options
        };
        let now = monotonic_now();
        let shared = Shared {
            state: State::Streaming,
            counters: Counters::default(),
            description: address.clone(),
            last: None,
        };
        let mut camera = Camera {
            address,
            recovery: Recovery::new(options.policy, now),
            settling: Settling::new(options.settle),
            open,
            source: None,
            closed_drops: Drops::default(),
            unsettled: 0,
            watch: DeviceWatch::new(),
            status: CameraStatus(Arc::new(Mutex::new(shared))),
            options,
        };
        // Drivers fail to start a stream now and then: a second attempt tells whether it is more than that.
        let opened = match camera.open_source() {
            Err(error) if error.fault() == Fault::Stream => camera.open_source(),
            opened => opened,
        };
        match opened {
            Ok(()) => {}
            Err(error) if camera.options.await_device && error.fault() == Fault::Device => {
                camera.fault(&error);
            }
            Err(error) => return Err(error),
        }
        Ok(camera)
    }

    /// A handle to read how the camera is, from any thread.
    pub fn status(&self) -> CameraStatus {
        self.status.clone()
    }

    /// The next good frame, at most `wait` from now. Restarts, reopens and waits for the device as needed.
    ///
    /// # Errors
    ///
    /// No frame in time, or no more frames at all.
    pub fn frame(&mut self, wait: Duration) -> Result<Frame, CameraError> {
        let deadline = monotonic_now().saturating_add(wait);
        loop {
            let now = monotonic_now();
            let left = deadline.saturating_sub(now);
            match self.recovery.step(now) {
                Step::Read => {
                    if let Some(frame) = self.read(left.min(LONGEST_READ)) {
                        return Ok(frame);
                    }
                }
                Step::Restart => self.restart(),
                Step::Reopen => self.reopen(),
                Step::Wait(until) => {
                    if self.watch.wait(until.min(deadline).saturating_sub(now)) {
                        self.recovery.wake(monotonic_now());
                    }
                }
                Step::Stop => {
                    return Err(CameraError::Ended {
                        address: self.address.clone(),
                    });
                }
            }
            self.publish();
            if monotonic_now() >= deadline && self.recovery.step(deadline) != Step::Stop {
                return Err(CameraError::NoFrame {
                    wait,
                    state: self.status.state(),
                });
            }
        }
    }

    fn read(&mut self, wait: Duration) -> Option<Frame> {
        let Some(source) = &mut self.source else {
            self.recovery
                .fault(Fault::Device, "the source is closed", monotonic_now());
            return None;
        };
        let live = source.is_live();
        match source.next_frame(wait) {
            Ok(frame) if live && !self.settling.accepts(&frame) => {
                self.unsettled += 1;
                None
            }
            Ok(frame) => {
                self.recovery.frame(monotonic_now());
                self.status.with(|shared| {
                    shared.counters.frames += 1;
                    shared.last = Some(frame.clone());
                });
                self.publish();
                Some(frame)
            }
            Err(error) => {
                self.fault(&error);
                None
            }
        }
    }

    fn restart(&mut self) {
        let restarted = self.source.as_mut().map(|source| source.restart());
        self.status.with(|shared| shared.counters.restarts += 1);
        match restarted {
            Some(Err(error)) => self.fault(&error),
            Some(Ok(())) => self.opened(),
            None => self.reopen(),
        }
    }

    fn reopen(&mut self) {
        self.close();
        self.status.with(|shared| shared.counters.reopens += 1);
        if let Err(error) = self.open_source() {
            self.fault(&error);
        }
    }

    /// Lets go of the device: many come back only when nobody holds them.
    fn close(&mut self) {
        if let Some(source) = self.source.take() {
            self.closed_drops = self.closed_drops.plus(source.drops());
        }
    }

    fn open_source(&mut self) -> Result<(), SourceError> {
        let source = (self.open)(&self.address, &self.options.source)?;
        // From now on it is found by what it is, not by the number it had.
        self.address = source.address();
        self.status
            .with(|shared| shared.description = source.describe());
        self.source = Some(source);
        self.opened();
        Ok(())
    }

    fn opened(&mut self) {
        self.settling = Settling::new(self.options.settle);
        self.recovery.mended(monotonic_now());
    }

    fn fault(&mut self, error: &SourceError) {
        if error.fault() != Fault::Late {
            self.status.with(|shared| shared.counters.faults += 1);
        }
        let now = monotonic_now();
        let reason = match error.fault() {
            Fault::Late => format!("no frame for {} ms", self.recovery.silence(now).as_millis()),
            _ => error.to_string(),
        };
        self.recovery.fault(error.fault(), &reason, now);
        if error.fault() == Fault::Device {
            self.close();
        }
        self.publish();
    }

    fn publish(&self) {
        let state = self.recovery.state(monotonic_now());
        let open = self
            .source
            .as_ref()
            .map_or_else(Drops::default, |source| source.drops());
        let unsettled = Drops {
            unsettled: self.unsettled,
            ..Drops::default()
        };
        let drops = self.closed_drops.plus(open).plus(unsettled);
        self.status.with(|shared| {
            shared.state = state;
            shared.counters.drops = drops;
        });
    }
}
