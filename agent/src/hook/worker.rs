//! The thread that starts, feeds, reads and ends programs.

use super::child::Child;
use super::verdict::{End, conclude};
use super::{
    HookError, HookId, HookJob, HookReport, MAX_OUTPUT_BYTES, MAX_REPORTS, MAX_RUNNING, MAX_WAITING,
};
use crate::mailbox::{Mailbox, event};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the thread and the handle share.
pub(super) struct Shared {
    orders: Mutex<Orders>,
    reports: Mailbox<HookReport>,
    /// Wakes the thread.
    wake: EventFd,
}

#[derive(Default)]
struct Orders {
    waiting: VecDeque<Waiting>,
    /// Programs that run and were not reported.
    running: Vec<HookId>,
    /// Of these, the ones to be killed.
    cancelled: Vec<HookId>,
    stop: bool,
}

struct Waiting {
    job: HookJob,
    input: Vec<u8>,
    until: Instant,
}

impl Shared {
    pub(super) fn new(reports: Mailbox<HookReport>) -> std::io::Result<Shared> {
        Ok(Shared {
            orders: Mutex::new(Orders::default()),
            reports,
            wake: event()?,
        })
    }

    pub(super) fn reports(&self) -> &Mailbox<HookReport> {
        &self.reports
    }

    pub(super) fn accept(&self, job: HookJob, input: Vec<u8>) -> Result<(), HookError> {
        let mut orders = self.orders();
        let (waiting, unread) = (orders.waiting.len(), self.reports.len());
        let full = |waiting, limit| Err(HookError::Full { waiting, limit });
        if waiting >= MAX_WAITING {
            return full(waiting, MAX_WAITING);
        }
        // So many reports may still come; each has its place.
        let coming = waiting + orders.running.len();
        if unread + coming >= MAX_REPORTS {
            return full(unread + coming, MAX_REPORTS);
        }
        let now = Instant::now();
        let until = now.checked_add(job.timeout).unwrap_or(now);
        orders.waiting.push_back(Waiting { job, input, until });
        drop(orders);
        self.wake();
        Ok(())
    }

    pub(super) fn cancel(&self, id: HookId) {
        let mut orders = self.orders();
        orders.waiting.retain(|waiting| waiting.job.id != id);
        if orders.running.contains(&id) && !orders.cancelled.contains(&id) {
            orders.cancelled.push(id);
        }
        drop(orders);
        self.wake();
    }

    pub(super) fn stop(&self) {
        self.orders().stop = true;
        self.wake();
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread. A full counter wakes it as well.
    fn wake(&self) {
        let _ = self.wake.write(1);
    }

    fn report(&self, id: HookId, end: &End, (output, complaint): (&[u8], &[u8]), wants: bool) {
        let (verdict, outcome, remark) = conclude(end, output, complaint, wants);
        let mut orders = self.orders();
        orders.running.retain(|running| *running != id);
        // Cancelled in the last moment: nobody waits for it.
        if let Some(at) = orders.cancelled.iter().position(|gone| *gone == id) {
            orders.cancelled.swap_remove(at);
            return;
        }
        // There is room: see `accept`.
        let _ = self.reports.put(HookReport {
            id,
            verdict,
            outcome,
            remark,
        });
    }
}

struct Running {
    id: HookId,
    wants_verdict: bool,
    until: Instant,
    child: Child,
    /// Killed and reported; it only keeps its place until it is gone.
    over: bool,
}

/// The thread's whole life.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut running: Vec<Running> = Vec::new();
    while !shared.orders().stop {
        let now = Instant::now();
        cancel(shared, &mut running);
        for one in &mut running {
            attend(shared, one, now);
        }
        running.retain(|one| !(one.over && one.child.is_gone()));
        start(shared, &mut running, now);
        wait(shared, &running);
    }
    for one in &running {
        one.child.kill();
    }
}

fn cancel(shared: &Shared, running: &mut [Running]) {
    let mut orders = shared.orders();
    let cancelled = std::mem::take(&mut orders.cancelled);
    orders.running.retain(|id| !cancelled.contains(id));
    drop(orders);
    for one in running
        .iter_mut()
        .filter(|one| !one.over && cancelled.contains(&one.id))
    {
        end(one);
    }
}

fn end(one: &mut Running) {
    one.child.kill();
    one.child.forget_pipes();
    one.over = true;
}

fn attend(shared: &Shared, one: &mut Running, now: Instant) {
    if one.over {
        return;
    }
    let ended = one.child.pump();
    let too_long = one.wants_verdict && one.child.output().len() > MAX_OUTPUT_BYTES;
    let how = if too_long {
        Some(End::TooLong)
    } else {
        ended.or_else(|| (now >= one.until).then_some(End::TimedOut))
    };
    if let Some(how) = how {
        let said = (one.child.output(), one.child.complaint());
        shared.report(one.id, &how, said, one.wants_verdict);
        end(one);
    }
}

/// Starts what waits while there is a place, and gives up what waited too long.
fn start(shared: &Arc<Shared>, running: &mut Vec<Running>, now: Instant) {
    loop {
        let mut orders = shared.orders();
        let late = orders.waiting.iter().position(|job| now >= job.until);
        let free = running.len() < MAX_RUNNING;
        let next = match late {
            Some(late) => orders.waiting.remove(late),
            None if free => orders.waiting.pop_front(),
            None => None,
        };
        let Some(Waiting { job, input, until }) = next else {
            return;
        };
        orders.running.push(job.id);
        drop(orders);
        if late.is_some() {
            shared.report(job.id, &End::TimedOut, (b"", b""), job.wants_verdict);
            continue;
        }
        let theirs = Arc::clone(shared);
        match Child::start(&job.command, input, move || theirs.wake()) {
            Ok(child) => running.push(Running {
                id: job.id,
                wants_verdict: job.wants_verdict,
                until,
                child,
                over: false,
            }),
            Err(fault) => {
                let program = job.command.first().map_or("", String::as_str);
                let broken = End::Broken(format!("{program:?} cannot be started: {fault}"));
                shared.report(job.id, &broken, (b"", b""), job.wants_verdict);
            }
        }
    }
}

fn wait(shared: &Shared, running: &[Running]) {
    let next = {
        let orders = shared.orders();
        let waiting = orders.waiting.iter().map(|job| job.until);
        let busy = running.iter().filter(|one| !one.over).map(|one| one.until);
        waiting.chain(busy).min()
    };
    let timeout = next.map_or(PollTimeout::NONE, |next| {
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up: rounding down would wake too early, again and again.
        let left = left.as_nanos().div_ceil(1_000_000).min(60_000) as u64;
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    });
    let mut fds = vec![PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN)];
    for one in running {
        one.child.interests(&mut fds);
    }
    let _ = poll(&mut fds, timeout);
    let _ = shared.wake.read();
}
