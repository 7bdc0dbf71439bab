//! [`Hands`]: the pins of the board, on a thread of their own.
//!
//! Whatever the loop does, a pin goes safe when its time is over; and when the loop makes no
//! progress, all of them do.

use crate::mailbox::event;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use ocelli_boards::{Edge, PinError, PinId, PinUse, Pins};
use ocelli_camera::source::monotonic_now;
use ocelli_reflex::ActId;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most edges that wait for the loop; the oldest are dropped.
const MAX_NEWS: usize = 256;
/// How often the thread looks at deadlines and progress at least.
const GLANCE: Duration = Duration::from_millis(250);

/// What the pins have to tell.
#[derive(Debug)]
pub enum HandNews {
    /// An input changed.
    Edge(Edge),
    /// An output was set, or not.
    Done(ActId, Result<(), PinError>),
    /// An output went safe by itself because its time was over.
    TimeOver(PinId),
    /// The loop made no progress for this long: all outputs were made safe.
    LoopStuck(Duration),
    /// The kernel refused something nobody waits for.
    Fault(PinError),
    /// News that were not told because too many waited.
    Lost(u64),
}

#[derive(Debug)]
enum Order {
    Set(ActId, PinId, bool, Option<Duration>),
    Safe(PinId),
    AllSafe,
}

#[derive(Debug, Default)]
struct Desk {
    orders: VecDeque<Order>,
    news: VecDeque<HandNews>,
    lost: u64,
    /// Levels of the inputs as last read.
    levels: Vec<Option<bool>>,
    is_ending: bool,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    ordered: EventFd,
    told: EventFd,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, news: HandNews) {
        let mut desk = self.desk();
        if desk.news.len() >= MAX_NEWS {
            desk.news.pop_front();
            desk.lost += 1;
        }
        desk.news.push_back(news);
        drop(desk);
        ring(&self.told);
    }
}

fn ring(bell: &EventFd) {
    // A counter that is full has rung already.
    let _ = bell.write(1);
}

fn hush(bell: &EventFd) {
    // Empty when nobody rang.
    let _ = bell.read();
}

/// The thread and the way to it.
#[derive(Debug)]
pub struct Hands {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Hands {
    /// Takes the pins. `progress` counts up while the loop works; when it stands still for
    /// `patience`, all outputs go safe.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub fn start(
        mut pins: Box<dyn Pins>,
        progress: Arc<AtomicU64>,
        patience: Duration,
    ) -> io::Result<Hands> {
        let is_input = |usage| matches!(usage, PinUse::Input { .. });
        let inputs: Vec<bool> = pins
            .plans()
            .iter()
            .map(|plan| is_input(plan.usage))
            .collect();
        let levels = inputs
            .iter()
            .enumerate()
            .map(|(at, is_input)| match is_input {
                true => pins.get(PinId(at)).ok(),
                false => None,
            });
        let levels = levels.collect();
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk {
                levels,
                ..Desk::default()
            }),
            ordered: event()?,
            told: event()?,
        });
        let n_pins = pins.plans().len();
        let mut worker = Worker {
            shared: Arc::clone(&shared),
            pins,
            until: vec![None; n_pins],
            watch: Progress {
                count: progress,
                patience,
                last: None,
            },
        };
        let thread = std::thread::Builder::new()
            .name("pins".to_owned())
            .spawn(move || worker.run())?;
        Ok(Hands {
            shared,
            thread: Some(thread),
        })
    }

    /// Drives an output; it goes safe by itself after `within`. [`HandNews::Done`] follows.
    pub fn set(&self, act: ActId, pin: PinId, active: bool, within: Option<Duration>) {
        self.order(Order::Set(act, pin, active, within));
    }

    /// Makes an output safe.
    pub fn safe(&self, pin: PinId) {
        self.order(Order::Safe(pin));
    }

    /// Makes all outputs safe.
    pub fn all_safe(&self) {
        self.order(Order::AllSafe);
    }

    fn order(&self, order: Order) {
        self.shared.desk().orders.push_back(order);
        ring(&self.shared.ordered);
    }

    /// Level of an input as last read; `None` for outputs and while it is not known.
    pub fn level(&self, pin: PinId) -> Option<bool> {
        self.shared.desk().levels.get(pin.0).copied().flatten()
    }

    /// Readable when there are news.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.told.as_fd()
    }

    /// The next news.
    pub fn try_next(&self) -> Option<HandNews> {
        let mut desk = self.shared.desk();
        if desk.lost > 0 {
            return Some(HandNews::Lost(std::mem::take(&mut desk.lost)));
        }
        let next = desk.news.pop_front();
        if next.is_none() {
            hush(&self.shared.told);
        }
        next
    }
}

impl Drop for Hands {
    /// Outputs are safe when this returns.
    fn drop(&mut self) {
        self.shared.desk().is_ending = true;
        ring(&self.shared.ordered);
        if let Some(thread) = self.thread.take() {
            // The pins make themselves safe when they are dropped, also by a panic.
            let _ = thread.join();
        }
    }
}

/// Whether the loop goes on.
#[derive(Debug)]
struct Progress {
    count: Arc<AtomicU64>,
    patience: Duration,
    last: Option<(u64, Duration)>,
}

impl Progress {
    /// How long it has stood still, once it is too long; said again only after it went on.
    fn stuck(&mut self, now: Duration) -> Option<Duration> {
        let count = self.count.load(Ordering::Relaxed);
        match self.last {
            Some((last, since)) if last == count => {
                let still = now.saturating_sub(since);
                if still < self.patience {
                    return None;
                }
                // Nothing is due for ever, until the count moves.
                self.last = Some((count, Duration::MAX));
                Some(still)
            }
            _ => {
                self.last = Some((count, now));
                None
            }
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    pins: Box<dyn Pins>,
    /// When each output must be safe again.
    until: Vec<Option<Duration>>,
    watch: Progress,
}

impl Worker {
    fn run(&mut self) {
        while !self.shared.desk().is_ending {
            self.wait();
            let now = monotonic_now();
            self.obey(now);
            self.expire(now);
            if let Some(still) = self.watch.stuck(now) {
                self.all_safe(now);
                self.shared.tell(HandNews::LoopStuck(still));
            }
            self.read(now);
        }
        self.all_safe(monotonic_now());
    }

    fn wait(&self) {
        let now = monotonic_now();
        let deadlines = self.until.iter().flatten().copied();
        let due = deadlines.chain(self.pins.deadline()).min();
        let wait = due.map_or(GLANCE, |due| due.saturating_sub(now).min(GLANCE));
        // One more, so that a deadline between two milliseconds is not met by spinning.
        let wait = wait.as_millis() as u16 + u16::from(!wait.is_zero());
        let lines = self.pins.descriptors();
        let mut fds: Vec<PollFd<'_>> = std::iter::once(self.shared.ordered.as_fd())
            .chain(lines)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, PollTimeout::from(wait)) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Nothing can be waited for: deadlines still must be kept.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        hush(&self.shared.ordered);
    }

    fn obey(&mut self, now: Duration) {
        loop {
            let Some(order) = self.shared.desk().orders.pop_front() else {
                return;
            };
            match order {
                Order::Set(act, pin, active, within) => {
                    let done = self.pins.set(pin, active, now);
                    if let Some(until) = self.until.get_mut(pin.0) {
                        *until = within.map(|within| now.saturating_add(within));
                    }
                    self.shared.tell(HandNews::Done(act, done));
                }
                Order::Safe(pin) => self.safe(pin, now),
                Order::AllSafe => self.all_safe(now),
            }
        }
    }

    fn expire(&mut self, now: Duration) {
        for at in 0..self.until.len() {
            if self.until[at].is_some_and(|until| until <= now) {
                self.safe(PinId(at), now);
                self.shared.tell(HandNews::TimeOver(PinId(at)));
            }
        }
    }

    fn safe(&mut self, pin: PinId, now: Duration) {
        let usage = self.pins.plans().get(pin.0).map(|plan| plan.usage);
        if let Some(PinUse::Output { safe, .. }) = usage {
            match self.pins.set(pin, safe, now) {
                // Without deadline only what is safe; what could not be set is tried again.
                Ok(()) => self.until[pin.0] = None,
                Err(error) => {
                    self.until[pin.0] = Some(now.saturating_add(GLANCE));
                    self.shared.tell(HandNews::Fault(error));
                }
            }
        }
    }

    fn all_safe(&mut self, now: Duration) {
        for at in 0..self.until.len() {
            self.safe(PinId(at), now);
        }
    }

    fn read(&mut self, now: Duration) {
        let mut edges = Vec::new();
        if let Err(error) = self.pins.poll(now, &mut edges) {
            self.shared.tell(HandNews::Fault(error));
        }
        for edge in edges {
            if let Some(level) = self.shared.desk().levels.get_mut(edge.pin.0) {
                *level = Some(edge.active);
            }
            self.shared.tell(HandNews::Edge(edge));
        }
    }
}

/// A lamp and a motion sensor without hardware.
#[cfg(test)]
pub(super) mod fixture {
    use super::*;
    use ocelli_boards::{Bias, FakeControl, FakePins, PinPlan};

    /// The lamp, an output that is safe when off.
    pub(in crate::run) const LAMP: PinId = PinId(0);
    /// The sensor.
    pub(in crate::run) const PIR: PinId = PinId(1);

    /// Their lines.
    pub(in crate::run) fn plans() -> Vec<PinPlan> {
        let plan = |name: &str, line: u32, usage| PinPlan {
            name: name.to_owned(),
            pin: format!("GPIO{line}"),
            chips: vec!["fake".to_owned()],
            line,
            usage,
        };
        let lamp = PinUse::Output {
            active_low: false,
            safe: false,
        };
        let pir = PinUse::Input {
            active_low: false,
            bias: Bias::AsIs,
            edges: true,
            debounce: Duration::ZERO,
        };
        vec![plan("lamp", 17, lamp), plan("pir", 4, pir)]
    }

    /// Both on their thread, and their other side.
    pub(in crate::run) fn hands(
        progress: &Arc<AtomicU64>,
        patience: Duration,
    ) -> (Hands, FakeControl) {
        let (pins, control) = FakePins::new(plans()).unwrap();
        let hands = Hands::start(Box::new(pins), Arc::clone(progress), patience).unwrap();
        (hands, control)
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{LAMP, PIR};
    use super::*;
    use ocelli_boards::FakeControl;

    fn hands(patience: Duration) -> (Hands, FakeControl, Arc<AtomicU64>) {
        let progress = Arc::new(AtomicU64::new(0));
        let (hands, control) = fixture::hands(&progress, patience);
        (hands, control, progress)
    }

    /// Waits for the news a test is about; others are left out.
    fn wait_for<T>(hands: &Hands, wanted: impl Fn(HandNews) -> Option<T>) -> T {
        loop {
            match hands.try_next().map(&wanted) {
                Some(Some(found)) => return found,
                Some(None) => {}
                None => {
                    let mut fds = [PollFd::new(hands.fd(), PollFlags::POLLIN)];
                    poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap();
                }
            }
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_pin_goes_safe_by_itself_when_its_time_is_over() {
        let (hands, control, _) = hands(LONG);
        hands.set(ActId(7), LAMP, true, Some(Duration::from_millis(30)));
        let act = wait_for(&hands, |news| match news {
            HandNews::Done(act, done) => Some((act, done.is_ok())),
            _ => None,
        });
        assert_eq!(act, (ActId(7), true));
        let pin = wait_for(&hands, |news| match news {
            HandNews::TimeOver(pin) => Some(pin),
            _ => None,
        });
        assert_eq!(pin, LAMP);
        let states: Vec<bool> = control
            .changes()
            .iter()
            .map(|change| change.active)
            .collect();
        assert_eq!(states.last(), Some(&false), "{states:?}");
        assert!(states.contains(&true));
    }

    #[test]
    fn a_loop_that_stands_still_leaves_no_pin_on() {
        let (hands, control, progress) = hands(Duration::from_millis(50));
        progress.store(1, Ordering::Relaxed);
        hands.set(ActId(1), LAMP, true, None);
        wait_for(&hands, |news| {
            matches!(news, HandNews::LoopStuck(_)).then_some(())
        });
        assert!(!control.is_active(LAMP));
    }

    #[test]
    fn edges_are_told_and_a_stop_leaves_outputs_safe() {
        let (hands, control, _) = hands(LONG);
        control.inject(PIR, true, monotonic_now()).unwrap();
        let edge = wait_for(&hands, |news| match news {
            HandNews::Edge(edge) => Some(edge),
            _ => None,
        });
        assert_eq!((edge.pin, edge.active), (PIR, true));
        hands.set(ActId(2), LAMP, true, None);
        wait_for(&hands, |news| {
            matches!(news, HandNews::Done(..)).then_some(())
        });
        assert!(control.is_active(LAMP));
        drop(hands);
        assert!(!control.is_active(LAMP));
    }

    #[test]
    fn a_pin_that_cannot_be_set_is_told() {
        let (hands, control, _) = hands(LONG);
        control.set_broken(LAMP, true);
        hands.set(ActId(3), LAMP, true, None);
        let done = wait_for(&hands, |news| match news {
            HandNews::Done(_, done) => Some(done.is_ok()),
            _ => None,
        });
        assert!(!done);
    }

    #[test]
    fn a_pin_that_cannot_be_made_safe_is_tried_again() {
        let (hands, control, _) = hands(LONG);
        hands.set(ActId(3), LAMP, true, Some(Duration::from_millis(300)));
        wait_for(&hands, |news| {
            matches!(news, HandNews::Done(..)).then_some(())
        });
        control.set_broken(LAMP, true);
        let time_over = |news| matches!(news, HandNews::TimeOver(LAMP)).then_some(());
        wait_for(&hands, time_over);
        // On a machine too slow to break it in time it is off already.
        if control.is_active(LAMP) {
            control.set_broken(LAMP, false);
            wait_for(&hands, time_over);
        }
        assert!(!control.is_active(LAMP));
    }
}
