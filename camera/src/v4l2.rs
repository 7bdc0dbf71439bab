//! Cameras of the kernel: Video4Linux, streamed through mapped buffers.
//!
//! Every wait has an end, every frame is copied before its buffer goes back to the driver, and of the frames
//! that wait in the queue only the newest is delivered, if it is new enough.

mod choice;
mod color;
mod control;
mod find;
mod freshness;
#[expect(
    unsafe_code,
    reason = "ioctls take raw structures, and their unions tell no type"
)]
mod node;
#[expect(unsafe_code, reason = "the driver's buffers are mapped memory")]
mod ring;
mod setup;

pub use choice::{Offer, Wish, cheapest, cost};
pub use control::{Control, ControlError, Kind as ControlKind, MenuEntry};
pub use node::Capability;

pub(crate) use find::{Seen, nodes};
pub(crate) use node::Node;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::device;
use crate::frame::{Buffers, Frame, FrameFormat};
use crate::pixel_format::PixelFormat;
use crate::source::{Drops, Opened, Source, SourceError, SourceOptions, monotonic_now};
use crate::view::View;
use freshness::{Arrival, Sequence, Verdict, judge};
use ring::{Ring, Taken};

/// Opens a camera: by path, else by the options `card` and `bus`.
pub(crate) fn open(address: &str, options: &SourceOptions) -> Opened {
    let path = Some(Path::new(address)).filter(|path| !path.as_os_str().is_empty());
    let (card, bus) = (options.card.as_deref(), options.bus.as_deref());
    let path = locate(find::Wanted { path, card, bus })?;
    Ok(Box::new(Camera::open(&path, options)?))
}

/// The node to open.
fn locate(wanted: find::Wanted<'_>) -> Result<PathBuf, SourceError> {
    if let (Some(path), None, None) = (wanted.path, wanted.card, wanted.bus) {
        return Ok(path.to_owned());
    }
    let resolved = wanted.path.and_then(|path| path.canonicalize().ok());
    let wanted = find::Wanted {
        path: resolved.as_deref().or(wanted.path),
        ..wanted
    };
    let seen = find::all();
    let found = find::pick(wanted, &seen);
    found
        .map(|found| found.path.clone())
        .ok_or_else(|| SourceError::Unavailable {
            address: format!("v4l2:{}", wanted.path.unwrap_or(Path::new("")).display()),
            what: format!(
                "no camera with card {:?} and bus {:?}; there are: {}",
                wanted.card.unwrap_or("any"),
                wanted.bus.unwrap_or("any"),
                describe_all(&seen)
            ),
            advice: "plug it in, or correct the address".into(),
        })
}

fn describe_all(seen: &[Seen]) -> String {
    let cameras = seen.iter().filter(|it| find::is_camera(&it.capability));
    let names = cameras.map(|it| format!("{} on {}", it.capability.card, it.capability.bus));
    let names: Vec<String> = names.collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// An open camera.
struct Camera {
    path: PathBuf,
    /// The node, for messages.
    name: String,
    /// What finds the camera again.
    address: String,
    node: Arc<Node>,
    ring: Option<Ring>,
    capability: Capability,
    options: SourceOptions,
    format: FrameFormat,
    view: Arc<View>,
    buffers: Buffers,
    sequence: Sequence,
    /// Of the newest good frame.
    number: u64,
    drops: Drops,
    looked: Duration,
}

/// What a look at the device node said.
enum Readiness {
    Frame,
    Event,
    Nothing,
}

impl Camera {
    fn open(path: &Path, options: &SourceOptions) -> Result<Camera, SourceError> {
        let refused = |error: &io::Error| device::open_error(path, error);
        let node = Node::open(path).map_err(|error| refused(&error))?;
        let capability = node.capability().map_err(|error| refused(&error))?;
        if let Some(error) = device::unusable(path, &capability, &node.formats()) {
            return Err(error);
        }
        let name = format!("v4l2:{}", path.display());
        let setup = setup::apply(&node, options, &name)?;
        // Without it a change of size shows as an error of the stream.
        let _ = node.subscribe_source_change();
        let mut camera = Camera {
            path: path.to_owned(),
            name,
            address: find::address(path, &capability),
            node: Arc::new(node),
            ring: None,
            capability,
            options: options.clone(),
            format: setup.format,
            view: setup.view,
            buffers: Buffers::default(),
            sequence: Sequence::default(),
            number: 0,
            drops: Drops::default(),
            looked: Duration::ZERO,
        };
        camera.stream()?;
        Ok(camera)
    }

    fn stream(&mut self) -> Result<(), SourceError> {
        let ring = Ring::start(Arc::clone(&self.node));
        self.ring = Some(ring.map_err(|error| self.failure("starting the stream", &error))?);
        self.sequence.restart();
        self.looked = monotonic_now();
        Ok(())
    }

    /// Sorts an error of the system by what can be done about it.
    fn failure(&self, doing: &str, error: &io::Error) -> SourceError {
        let address = self.name.clone();
        let what = format!("{doing}: {error}");
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENODEV | Errno::ENXIO) => SourceError::Lost { address, what },
            Some(Errno::EAGAIN) => SourceError::Hiccup { address, what },
            Some(Errno::EBUSY) => device::open_error(&self.path, error),
            _ => SourceError::Broken { address, what },
        }
    }

    /// Waits for a frame or an event, at most `wait`.
    fn look(&self, wait: Duration) -> Result<Readiness, SourceError> {
        // Rounded up: a wait of less than a millisecond must not become a busy loop.
        let wait = wait.saturating_add(Duration::from_micros(999));
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let events = PollFlags::POLLIN | PollFlags::POLLPRI;
        let mut polled = [PollFd::new(self.node.as_fd(), events)];
        match poll(&mut polled, wait) {
            // A signal: the caller looks again, with what is left of the time.
            Err(Errno::EINTR) => return Ok(Readiness::Nothing),
            Err(errno) => return Err(self.failure("waiting for a frame", &errno.into())),
            Ok(_) => {}
        }
        let found = polled[0].revents().unwrap_or(PollFlags::empty());
        if found.intersects(PollFlags::POLLHUP | PollFlags::POLLNVAL) {
            let what = "the driver hung up".into();
            return Err(SourceError::Lost {
                address: self.name.clone(),
                what,
            });
        }
        if found.contains(PollFlags::POLLPRI) {
            return Ok(Readiness::Event);
        }
        // With POLLERR the next request to the driver tells what is wrong.
        if found.intersects(PollFlags::POLLIN | PollFlags::POLLERR) {
            return Ok(Readiness::Frame);
        }
        Ok(Readiness::Nothing)
    }

    /// The newest good buffer of the queue; the others go back to the driver.
    fn newest(&mut self) -> Result<Option<Taken>, SourceError> {
        let Some(ring) = self.ring.take() else {
            let what = "the stream is stopped".into();
            return Err(SourceError::Broken {
                address: self.name.clone(),
                what,
            });
        };
        let newest = self.newest_of(&ring);
        self.ring = Some(ring);
        newest.map_err(|error| self.failure("taking a frame", &error))
    }

    fn newest_of(&mut self, ring: &Ring) -> io::Result<Option<Taken>> {
        let mut newest: Option<Taken> = None;
        let mut first = true;
        loop {
            let taken = match ring.take() {
                Ok(taken) => taken,
                // The driver promised a frame and has none: that is not an empty queue.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !first => {
                    return Ok(newest);
                }
                Err(error) => return Err(error),
            };
            first = false;
            let (number, missed) = self.sequence.advance(taken.sequence);
            self.drops.missed += missed;
            if taken.damaged || !is_whole(self.format, ring.bytes(&taken)) {
                self.drops.damaged += 1;
                ring.give_back(taken)?;
                continue;
            }
            self.number = number;
            if let Some(older) = newest.replace(taken) {
                self.drops.stale += 1;
                ring.give_back(older)?;
            }
        }
    }

    /// Copies a buffer into a frame and lends it to the driver again.
    fn frame(&mut self, taken: Taken, stamp: Duration) -> Result<Frame, SourceError> {
        let mut bytes = self.buffers.take();
        let copied = self.ring.as_ref().map_or(Ok(()), |ring| {
            bytes.extend_from_slice(ring.bytes(&taken));
            ring.give_back(taken)
        });
        copied.map_err(|error| self.failure("giving a buffer back", &error))?;
        let frame = Frame::pooled(&self.buffers, self.format, bytes, self.number, stamp);
        let frame = frame.map_err(|error| SourceError::Hiccup {
            address: self.name.clone(),
            what: error.to_string(),
        })?;
        Ok(frame.with_view(Arc::clone(&self.view)))
    }

    /// Takes what lies in the queue, if it is news; `awaited`: the queue was empty before.
    fn take_queued(&mut self, awaited: bool) -> Result<Option<Frame>, SourceError> {
        let newest = self.newest()?;
        let now = monotonic_now();
        let idle = now.saturating_sub(self.looked);
        self.looked = now;
        let Some(taken) = newest else { return Ok(None) };
        let arrival = Arrival {
            stamp: taken.stamp,
            awaited,
            idle,
        };
        match judge(arrival, now, self.options.max_age) {
            Verdict::Fresh(stamp) => self.frame(taken, stamp).map(Some),
            Verdict::Stale => {
                self.drops.stale += 1;
                let returned = self
                    .ring
                    .as_ref()
                    .map_or(Ok(()), |ring| ring.give_back(taken));
                returned.map_err(|error| self.failure("giving a buffer back", &error))?;
                Ok(None)
            }
        }
    }
}

impl Source for Camera {
    fn next_frame(&mut self, wait: Duration) -> Result<Frame, SourceError> {
        let deadline = monotonic_now().saturating_add(wait);
        let mut pause = Duration::ZERO;
        loop {
            match self.look(pause)? {
                Readiness::Event if self.node.source_changed() => self.restart()?,
                Readiness::Event => {}
                Readiness::Frame => {
                    if let Some(frame) = self.take_queued(pause > Duration::ZERO)? {
                        return Ok(frame);
                    }
                }
                Readiness::Nothing if pause > Duration::ZERO && monotonic_now() >= deadline => {
                    return Err(SourceError::Late {
                        address: self.name.clone(),
                        wait,
                    });
                }
                Readiness::Nothing => {}
            }
            // The queue has been emptied: whatever comes from here on is news.
            pause = deadline
                .saturating_sub(monotonic_now())
                .max(Duration::from_millis(1));
        }
    }

    fn format(&self) -> FrameFormat {
        self.format
    }

    fn describe(&self) -> String {
        let FrameFormat {
            pixel,
            width,
            height,
            ..
        } = self.format;
        let Capability {
            card, driver, bus, ..
        } = &self.capability;
        let path = self.path.display();
        format!("{card} ({driver}, {bus}) at {path}, {width}x{height} {pixel}")
    }

    fn address(&self) -> String {
        self.address.clone()
    }

    fn drops(&self) -> Drops {
        self.drops
    }

    fn restart(&mut self) -> Result<(), SourceError> {
        self.ring = None;
        let setup = setup::apply(&self.node, &self.options, &self.name)?;
        (self.format, self.view) = (setup.format, setup.view);
        self.stream()
    }
}

/// Whether a buffer holds a whole frame: enough bytes, or a JPEG with its end. Bytes behind the end are common
/// and do no harm.
fn is_whole(format: FrameFormat, bytes: &[u8]) -> bool {
    if format.pixel == PixelFormat::Mjpg {
        let ended = bytes.windows(2).rev().any(|pair| pair == [0xff, 0xd9]);
        return bytes.starts_with(&[0xff, 0xd8]) && ended;
    }
    format
        .frame_bytes()
        .is_ok_and(|needed| bytes.len() >= needed)
}
