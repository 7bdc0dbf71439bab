//! Pins that record what is done to them and change when they are told to: for tests and dry runs.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Debounce, Edge, PinError, PinId, PinPlan, PinUse, Pins, no_such_pin};

/// Changes that are remembered; the oldest goes first.
const MAX_CHANGES: usize = 4096;
/// Edges that wait to be polled, as many as the kernel keeps for each line; the newest is lost.
const MAX_EDGES: usize = 16;

/// One time that an output was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeChange {
    /// The pin.
    pub pin: PinId,
    /// The state.
    pub active: bool,
    /// The voltage that a real line would have.
    pub high: bool,
    /// The time; of the first change, at open, it is zero.
    pub at: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// States, in the order of ids.
    active: Vec<bool>,
    broken: Vec<bool>,
    edges: VecDeque<Edge>,
    changes: VecDeque<FakeChange>,
    /// The last time that anyone mentioned.
    now: Duration,
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pins without hardware. They obey the same plans as [`GpioPins`](super::GpioPins): outputs begin
/// and end in their safe state, inputs are debounced.
#[derive(Debug)]
pub struct FakePins {
    plans: Vec<PinPlan>,
    debounces: Vec<Debounce>,
    state: Shared,
    wake: UnixStream,
}

/// The other side of [`FakePins`]: sees what was done and makes inputs change. It stays usable after
/// the pins are dropped.
#[derive(Debug)]
pub struct FakeControl {
    plans: Vec<PinPlan>,
    state: Shared,
    wake: UnixStream,
}

impl FakePins {
    /// Pins for `plans`, with all inputs inactive, and their control.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn new(plans: Vec<PinPlan>) -> io::Result<(FakePins, FakeControl)> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let hold = |plan: &PinPlan| match plan.usage {
            PinUse::Input { debounce, .. } => debounce,
            PinUse::Output { .. } => Duration::ZERO,
        };
        let state = Shared::default();
        lock(&state).active = vec![false; plans.len()];
        lock(&state).broken = vec![false; plans.len()];
        let control = FakeControl {
            plans: plans.clone(),
            state: state.clone(),
            wake: waker,
        };
        let debounces = plans
            .iter()
            .map(|plan| Debounce::new(hold(plan), false))
            .collect();
        let mut pins = FakePins {
            plans,
            debounces,
            state,
            wake,
        };
        // No pin is broken yet, so this cannot fail.
        let _ = pins.make_safe(Duration::ZERO);
        Ok((pins, control))
    }

    fn plan(&self, pin: PinId) -> Result<&PinPlan, PinError> {
        let plan = self
            .plans
            .get(pin.0)
            .ok_or_else(|| no_such_pin(pin, &self.plans))?;
        match lock(&self.state).broken[pin.0] {
            true => Err(PinError::Broken {
                place: plan.place(),
            }),
            false => Ok(plan),
        }
    }
}

impl Pins for FakePins {
    fn plans(&self) -> &[PinPlan] {
        &self.plans
    }

    fn set(&mut self, pin: PinId, active: bool, now: Duration) -> Result<(), PinError> {
        let plan = self.plan(pin)?;
        let PinUse::Output { .. } = plan.usage else {
            return Err(PinError::WrongUse {
                place: plan.place(),
                wanted: "output",
            });
        };
        let mut state = lock(&self.state);
        state.now = now;
        state.active[pin.0] = active;
        if state.changes.len() == MAX_CHANGES {
            state.changes.pop_front();
        }
        let high = plan.usage.invert(active);
        state.changes.push_back(FakeChange {
            pin,
            active,
            high,
            at: now,
        });
        Ok(())
    }

    fn get(&mut self, pin: PinId) -> Result<bool, PinError> {
        self.plan(pin)?;
        Ok(lock(&self.state).active[pin.0])
    }

    fn poll(&mut self, now: Duration, edges: &mut Vec<Edge>) -> Result<(), PinError> {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(n) if n > 0) {}
        let waiting = {
            let mut state = lock(&self.state);
            state.now = now;
            std::mem::take(&mut state.edges)
        };
        for edge in waiting {
            let change = self.debounces[edge.pin.0].edge(edge.active, edge.at);
            edges.extend(change.map(|(active, at)| Edge { active, at, ..edge }));
        }
        for (index, debounce) in self.debounces.iter_mut().enumerate() {
            let change = debounce.settle(now);
            edges.extend(change.map(|(active, at)| Edge {
                pin: PinId(index),
                active,
                at,
            }));
        }
        match (0..self.plans.len()).find_map(|index| self.plan(PinId(index)).err()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.debounces.iter().filter_map(Debounce::deadline).min()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.wake.as_fd()]
    }
}

impl Drop for FakePins {
    fn drop(&mut self) {
        let now = lock(&self.state).now;
        // A broken pin stays as it is; there is nobody to tell.
        let _ = self.make_safe(now);
    }
}

impl FakeControl {
    /// Makes the input `pin` change to `active` at the time `at`.
    ///
    /// # Errors
    /// [`PinError`] if it is no input that is watched for edges.
    pub fn inject(&self, pin: PinId, active: bool, at: Duration) -> Result<(), PinError> {
        let plan = self
            .plans
            .get(pin.0)
            .ok_or_else(|| no_such_pin(pin, &self.plans))?;
        let PinUse::Input { edges, .. } = plan.usage else {
            return Err(PinError::WrongUse {
                place: plan.place(),
                wanted: "input",
            });
        };
        let mut state = lock(&self.state);
        state.active[pin.0] = active;
        let waiting = state.edges.iter().filter(|edge| edge.pin == pin).count();
        if edges && waiting < MAX_EDGES {
            state.edges.push_back(Edge { pin, active, at });
            // A full socket is readable already.
            let _ = (&self.wake).write(&[1]);
        }
        Ok(())
    }

    /// Makes every use of `pin` fail, or work again.
    pub fn set_broken(&self, pin: PinId, broken: bool) {
        if let Some(slot) = lock(&self.state).broken.get_mut(pin.0) {
            *slot = broken;
        }
    }

    /// The present state of a pin; false if there is none.
    pub fn is_active(&self, pin: PinId) -> bool {
        lock(&self.state)
            .active
            .get(pin.0)
            .copied()
            .unwrap_or(false)
    }

    /// The last 4096 times that an output was driven, oldest first.
    pub fn changes(&self) -> Vec<FakeChange> {
        lock(&self.state).changes.iter().copied().collect()
    }
}
