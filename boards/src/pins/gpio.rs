//! Real pins: lines of `/dev/gpiochipN` through `linux-embedded-hal`.
//!
//! Outputs and plain inputs are `CdevPin`s. `CdevPin` has no edges, so watched inputs are the line
//! event handles of `gpio-cdev`, the library under `linux-embedded-hal`. Both speak version 1 of the
//! kernel's interface, which every board kernel from 4.9 (Jetson Nano) on has; bias settings are the
//! flags that kernel 5.5 added to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use embedded_hal::digital::{InputPin, OutputPin};
use linux_embedded_hal::gpio_cdev::{
    self, Chip, EventRequestFlags, EventType, LineEventHandle, LineRequestFlags,
};
use linux_embedded_hal::{CdevPin, CdevPinError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use super::{Bias, Debounce, Edge, PinError, PinId, PinPlan, PinUse, Pins, no_such_pin};
use crate::tree::Tree;

/// Edges that the kernel keeps for a line; when so many were waiting, some may have been lost.
const KERNEL_EDGES: usize = 16;

/// Pins of this machine.
#[derive(Debug)]
pub struct GpioPins {
    plans: Vec<PinPlan>,
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Output(Output),
    Input(Reader),
    Watched(Watched),
}

/// A `CdevPin` that can be shown.
struct Reader(CdevPin);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.line().fmt(f)
    }
}

/// An output, back in its safe state when it is dropped.
#[derive(Debug)]
struct Output {
    line: Reader,
    safe_high: bool,
}

impl Output {
    fn drive(&mut self, high: bool) -> Result<(), CdevPinError> {
        self.line.0.set_state(high.into())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // The line is released right after; there is nobody to tell.
        let _ = self.drive(self.safe_high);
    }
}

#[derive(Debug)]
struct Watched {
    events: LineEventHandle,
    debounce: Debounce,
}

impl GpioPins {
    /// Takes the lines of `plans`, looking for chips in `/dev` of `tree`. Outputs have their safe
    /// state from the first moment.
    ///
    /// # Errors
    /// [`PinError`] if a chip is missing or closed to us, or a line is in use; lines that were taken
    /// before are released in their safe state.
    pub fn open(tree: &Tree, plans: Vec<PinPlan>) -> Result<GpioPins, PinError> {
        let mut chips = Chips::find(tree);
        let lines = plans.iter().map(|plan| open_line(&mut chips, plan));
        let lines = lines.collect::<Result<_, _>>()?;
        Ok(GpioPins { plans, lines })
    }

    fn line(&mut self, pin: PinId) -> Result<(&PinPlan, &mut Line), PinError> {
        match (self.plans.get(pin.0), self.lines.get_mut(pin.0)) {
            (Some(plan), Some(line)) => Ok((plan, line)),
            _ => Err(no_such_pin(pin, &self.plans)),
        }
    }
}

impl Pins for GpioPins {
    fn plans(&self) -> &[PinPlan] {
        &self.plans
    }

    fn set(&mut self, pin: PinId, active: bool, _now: Duration) -> Result<(), PinError> {
        let (plan, line) = self.line(pin)?;
        let Line::Output(output) = line else {
            return Err(PinError::WrongUse {
                place: plan.place(),
                wanted: "output",
            });
        };
        output
            .drive(plan.usage.invert(active))
            .map_err(refused(plan, "set the line"))
    }

    fn get(&mut self, pin: PinId) -> Result<bool, PinError> {
        let (plan, line) = self.line(pin)?;
        let high = match line {
            Line::Output(Output { line, .. }) | Line::Input(line) => {
                line.0.is_high().map_err(refused(plan, "read the line"))?
            }
            Line::Watched(watched) => {
                watched
                    .events
                    .get_value()
                    .map_err(refused(plan, "read the line"))?
                    != 0
            }
        };
        Ok(plan.usage.invert(high))
    }

    fn poll(&mut self, now: Duration, edges: &mut Vec<Edge>) -> Result<(), PinError> {
        let mut result = Ok(());
        for (index, (plan, line)) in self.plans.iter().zip(&mut self.lines).enumerate() {
            let Line::Watched(watched) = line else {
                continue;
            };
            let edge = |(active, at)| Edge {
                pin: PinId(index),
                active,
                at,
            };
            let read = watched.read(plan, now, |change| edges.push(edge(change)));
            result = result.and(read.map_err(refused(plan, "read edges")));
            edges.extend(watched.debounce.settle(now).map(edge));
        }
        result
    }

    fn deadline(&self) -> Option<Duration> {
        let watched = self.lines.iter().filter_map(|line| match line {
            Line::Watched(watched) => watched.debounce.deadline(),
            Line::Output(_) | Line::Input(_) => None,
        });
        watched.min()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let watched = self.lines.iter().filter_map(|line| match line {
            Line::Watched(watched) => Some(watched.events.as_fd()),
            Line::Output(_) | Line::Input(_) => None,
        });
        watched.collect()
    }
}

impl Watched {
    /// Reads the edges that wait and passes on what they prove.
    fn read(
        &mut self,
        plan: &PinPlan,
        now: Duration,
        mut pass: impl FnMut((bool, Duration)),
    ) -> Result<(), gpio_cdev::Error> {
        let clock = EdgeClock {
            monotonic: now,
            realtime: realtime(),
        };
        let mut count = 0;
        while count < 4 * KERNEL_EDGES && is_readable(self.events.as_fd()) {
            let event = self.events.get_event()?;
            let high = event.event_type() == EventType::RisingEdge;
            let at = clock.monotonic_time(event.timestamp());
            self.debounce
                .edge(plan.usage.invert(high), at)
                .map(&mut pass);
            count += 1;
        }
        if count >= KERNEL_EDGES {
            let high = self.events.get_value()? != 0;
            self.debounce
                .edge(plan.usage.invert(high), now)
                .map(&mut pass);
        }
        Ok(())
    }
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(n) if n > 0)
}

fn realtime() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from)
}

/// Two clocks at one moment, to understand the time stamps of edges: they are of `CLOCK_MONOTONIC`
/// from kernel 5.7 on and of `CLOCK_REALTIME` before.
#[derive(Clone, Copy, Debug)]
pub struct EdgeClock {
    /// `CLOCK_MONOTONIC`.
    pub monotonic: Duration,
    /// `CLOCK_REALTIME`.
    pub realtime: Duration,
}

impl EdgeClock {
    /// The time of an edge on `CLOCK_MONOTONIC`: the stamp is of the clock it is nearer to. Never
    /// later than the present.
    pub fn monotonic_time(&self, nanoseconds: u64) -> Duration {
        let stamp = Duration::from_nanos(nanoseconds);
        let is_real = stamp.abs_diff(self.realtime) < stamp.abs_diff(self.monotonic);
        let age = if is_real {
            self.realtime
        } else {
            self.monotonic
        }
        .saturating_sub(stamp);
        self.monotonic.saturating_sub(age)
    }
}

/// Chips that could be opened, and those that could not.
struct Chips {
    folder: PathBuf,
    open: Vec<Chip>,
    closed: Vec<PathBuf>,
}

impl Chips {
    fn find(tree: &Tree) -> Chips {
        let mut chips = Chips {
            folder: tree.path("/dev"),
            open: Vec::new(),
            closed: Vec::new(),
        };
        let paths = tree.list("/dev").into_iter().map(|path| tree.path(path));
        for path in paths.filter(|path| is_chip(path)) {
            match Chip::new(&path) {
                Ok(chip) => chips.open.push(chip),
                Err(error) if is_denied(&error) => chips.closed.push(path),
                // Not a chip after all, or gone again.
                Err(_) => {}
            }
        }
        chips
    }

    fn get(&mut self, plan: &PinPlan) -> Result<&mut Chip, PinError> {
        let is_wanted = |chip: &Chip| plan.chips.iter().any(|label| label == chip.label());
        match self.open.iter().position(is_wanted) {
            Some(index) => Ok(&mut self.open[index]),
            None => Err(self.missing(plan)),
        }
    }

    fn missing(&self, plan: &PinPlan) -> PinError {
        match self.closed.first() {
            Some(path) => PinError::Permission {
                place: plan.place(),
                path: path.clone(),
            },
            None => PinError::NoChip {
                place: plan.place(),
                folder: self.folder.clone(),
                seen: match self.open.as_slice() {
                    [] => "none".to_owned(),
                    open => open.iter().map(Chip::label).collect::<Vec<_>>().join(", "),
                },
            },
        }
    }
}

fn is_chip(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("gpiochip"))
}

fn is_denied(error: &gpio_cdev::Error) -> bool {
    let source =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied)
}

fn open_line(chips: &mut Chips, plan: &PinPlan) -> Result<Line, PinError> {
    let chip = chips.get(plan)?;
    if plan.line >= chip.num_lines() {
        return Err(PinError::NoLine {
            place: plan.place(),
            lines: chip.num_lines(),
        });
    }
    let line = chip
        .get_line(plan.line)
        .map_err(refused(plan, "find the line"))?;
    request(&line, plan).map_err(|error| match line.info() {
        // The request comes first and the question who has it second, so that two programs that
        // start together cannot both think the line is free.
        Ok(info) if info.is_kernel() => {
            let holder = info.consumer().unwrap_or("the kernel").to_owned();
            PinError::Busy {
                place: plan.place(),
                holder,
            }
        }
        _ => refused(plan, "give the line")(error),
    })
}

fn request(line: &gpio_cdev::Line, plan: &PinPlan) -> Result<Line, gpio_cdev::Error> {
    let consumer = plan.consumer();
    match plan.usage {
        PinUse::Output { safe, .. } => {
            let safe_high = plan.usage.invert(safe);
            let handle = line.request(LineRequestFlags::OUTPUT, safe_high.into(), &consumer)?;
            Ok(Line::Output(Output {
                line: Reader(CdevPin::new(handle)?),
                safe_high,
            }))
        }
        PinUse::Input {
            bias, edges: false, ..
        } => {
            let handle = line.request(LineRequestFlags::INPUT | flags(bias), 0, &consumer)?;
            Ok(Line::Input(Reader(CdevPin::new(handle)?)))
        }
        PinUse::Input { bias, debounce, .. } => {
            let input = LineRequestFlags::INPUT | flags(bias);
            let events = line.events(input, EventRequestFlags::BOTH_EDGES, &consumer)?;
            let active = plan.usage.invert(events.get_value()? != 0);
            Ok(Line::Watched(Watched {
                events,
                debounce: Debounce::new(debounce, active),
            }))
        }
    }
}

/// Source: `include/uapi/linux/gpio.h`, `GPIOHANDLE_REQUEST_BIAS_*`; `gpio-cdev` passes them on but
/// has no names for them.
fn flags(bias: Bias) -> LineRequestFlags {
    LineRequestFlags::from_bits_retain(match bias {
        Bias::AsIs => 0,
        Bias::PullUp => 1 << 5,
        Bias::PullDown => 1 << 6,
        Bias::Disabled => 1 << 7,
    })
}

fn refused<E>(plan: &PinPlan, what: &'static str) -> impl FnOnce(E) -> PinError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| PinError::Refused {
        place: plan.place(),
        what,
        source: Box::new(source),
    }
}
