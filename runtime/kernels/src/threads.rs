//! [`ThreadPool`]: a fixed set of threads that share the chunks of one loop at a time.
//!
//! One atomic word, the *gate*, carries the whole protocol:
//!
//! ```text
//!   63 ........ 33 | 32   | 31 ......... 16 | 15 ........... 0
//!   loop number    | open | threads wanted | workers inside
//! ```
//!
//! The caller writes the loop into the pool, opens the gate, takes chunks itself until none are
//! left, closes the gate and waits until nobody is inside. A worker enters only through an open
//! gate, in one compare-exchange, so a worker that sleeps through a loop delays nobody. A loop may
//! want fewer threads than the pool has: workers beyond them see no news in its gate and sleep on.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle worker looks for the next loop before it parks.
const SPIN: Duration = Duration::from_micros(50);
/// Looks at the gate between two looks at the clock.
const SPINS_PER_CLOCK: u32 = 64;

/// Most threads of a pool.
pub const MAX_THREADS: usize = 1024;

const OPEN: u64 = 1 << 32;
const LOOP_STEP: u64 = 1 << 33;
const LOOP_MASK: u64 = !(LOOP_STEP - 1);
const WANTED_SHIFT: u32 = 16;
const WANTED_MASK: u64 = (1 << WANTED_SHIFT) - 1;
const INSIDE_MASK: u64 = (1 << WANTED_SHIFT) - 1;
const _: () = assert!(MAX_THREADS as u64 <= WANTED_MASK);

type Body = dyn Fn(usize) + Sync;
/// The life of a worker.
type Work = Box<dyn FnOnce() + Send>;

/// Threads that run the chunks of a loop together with the calling thread.
///
/// Loops from several threads run one after the other. A loop started from inside a chunk runs on
/// the thread that started it.
pub struct ThreadPool {
    shared: Arc<Shared>,
    /// Held for the length of one loop.
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    gate: AtomicU64,
    job: UnsafeCell<Job>,
    next_chunk: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether each worker is parked or about to be, and nobody has woken it yet.
    parked: Vec<AtomicBool>,
    stop: AtomicBool,
}

struct Job {
    body: *const Body,
    n_chunks: usize,
}

// SAFETY: `job` is written only by the holder of `turn` while the gate is closed and nobody is
// inside, and read only from inside an open gate or by that holder; `body` is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is dangling outside a loop and never followed there.
unsafe impl Send for Shared {}

thread_local! {
    static INSIDE_A_CHUNK: Cell<bool> = const { Cell::new(false) };
    /// Most threads of the loops this thread starts.
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Puts back the limit that held before, also when the work inside panics.
struct Limited(usize);

impl Drop for Limited {
    fn drop(&mut self) {
        LIMIT.set(self.0);
    }
}

impl ThreadPool {
    /// Starts a pool that runs loops on `n_threads` threads, the caller being one of them, or on as
    /// many as the system grants: [`ThreadPool::size`].
    ///
    /// # Panics
    ///
    /// Panics if `n_threads` is 0 or over [`MAX_THREADS`].
    pub fn new(n_threads: usize) -> ThreadPool {
        ThreadPool::started_by(n_threads, |index, work| {
            let name = format!("ocelli-{index}");
            std::thread::Builder::new().name(name).spawn(work)
        })
    }

    /// A pool whose workers, from 1, are started by `start`, up to the first that is refused.
    fn started_by(
        n_threads: usize,
        mut start: impl FnMut(usize, Work) -> io::Result<JoinHandle<()>>,
    ) -> ThreadPool {
        assert!(n_threads > 0, "a pool needs at least the calling thread");
        assert!(n_threads <= MAX_THREADS, "too many threads for one pool");
        let idle: &'static Body = &|_| {};
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(Job {
                body: idle,
                n_chunks: 0,
            }),
            next_chunk: AtomicUsize::new(0),
            panic: Mutex::new(None),
            parked: (1..n_threads).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
        });
        let workers = (1..n_threads)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                start(index, Box::new(move || shared.work(index))).ok()
            })
            .collect();
        ThreadPool {
            shared,
            turn: Mutex::new(()),
            workers,
        }
    }

    /// Threads of the pool, the caller included.
    pub fn size(&self) -> usize {
        self.workers.len() + 1
    }

    /// Threads that take part in a loop this thread starts now, itself included.
    pub fn n_threads(&self) -> usize {
        self.size().min(LIMIT.get()).max(1)
    }

    /// Runs `f`, whose loops take part with at most `n_threads` threads, the caller included, and at
    /// least with the caller. Only loops that the calling thread starts are limited; of two limits,
    /// one inside the other, the smaller holds.
    pub fn limited<R>(&self, n_threads: usize, f: impl FnOnce() -> R) -> R {
        let before = Limited(LIMIT.get());
        LIMIT.set(n_threads.min(before.0));
        f()
    }

    /// Calls `f(i)` once for each `i` in `0..n_chunks`, in any order and on any thread of the pool,
    /// and returns when all calls have returned.
    ///
    /// # Panics
    ///
    /// If a call panics, chunks not yet begun are dropped and the first panic continues here.
    pub fn run(&self, n_chunks: usize, f: &(dyn Fn(usize) + Sync)) {
        let wanted = self.n_threads();
        if n_chunks <= 1 || wanted == 1 || INSIDE_A_CHUNK.get() {
            (0..n_chunks).for_each(f);
            return;
        }
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers follow the pointer only while inside the
        // gate, and `run` returns only after the gate is closed and nobody is inside.
        let body =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Body>(f) };
        // SAFETY: the gate is closed, nobody is inside, and `turn` keeps other callers out.
        unsafe { *shared.job.get() = Job { body, n_chunks } };
        shared.next_chunk.store(0, Ordering::Relaxed);
        // Nobody else changes a closed gate.
        let last_loop = shared.gate.load(Ordering::Relaxed) & LOOP_MASK;
        let gate = last_loop.wrapping_add(LOOP_STEP) | OPEN | (wanted as u64) << WANTED_SHIFT;
        shared.gate.store(gate, Ordering::SeqCst);
        for (worker, parked) in self.workers.iter().zip(&shared.parked).take(wanted - 1) {
            if parked.load(Ordering::SeqCst) && parked.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }

        shared.take_chunks();
        shared.gate.fetch_and(!OPEN, Ordering::SeqCst);
        let mut spins = 0_u32;
        while shared.gate.load(Ordering::Acquire) & INSIDE_MASK != 0 {
            spins += 1;
            if spins.is_multiple_of(SPINS_PER_CLOCK) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Cuts `data` into chunks of `chunk_len` values (the last may be shorter) and calls
    /// `f(chunk index, chunk)` once for each, as [`ThreadPool::run`] does.
    ///
    /// # Panics
    ///
    /// Panics if `chunk_len` is 0, and as [`ThreadPool::run`] does.
    pub fn for_each_chunk_mut<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        f: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        assert!(chunk_len > 0, "chunks must not be empty");
        let len = data.len();
        let start = SyncPtr::new(data.as_mut_ptr());
        self.run(len.div_ceil(chunk_len), &|index| {
            let first = index * chunk_len;
            let this_len = chunk_len.min(len - first);
            // SAFETY: each index comes once and names a range of `data` no other index names;
            // `data` stays borrowed until `run` returns.
            f(index, unsafe { start.slice_mut(first, this_len) });
        });
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches every panic of a chunk, and nothing else in it panics.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadPool({} threads)", self.size())
    }
}

impl Shared {
    /// The life of worker `index`, from 1: enter each open gate once that wants more than `index`
    /// threads, park when none opens for a while.
    fn work(&self, index: usize) {
        let mut last_loop = 0;
        loop {
            let gate = self.wait_for_gate(index, last_loop);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if self
                .gate
                .compare_exchange_weak(gate, gate + 1, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
            {
                last_loop = gate & LOOP_MASK;
                self.take_chunks();
                self.gate.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Returns the gate word once it is open to worker `index` for a loop other than `last_loop`, or
    /// on `stop`.
    fn wait_for_gate(&self, index: usize, last_loop: u64) -> u64 {
        let mut since = None;
        loop {
            for _ in 0..SPINS_PER_CLOCK {
                let gate = self.gate.load(Ordering::Acquire);
                if self.is_news(gate, index, last_loop) {
                    return gate;
                }
                std::hint::spin_loop();
            }
            if since.get_or_insert_with(Instant::now).elapsed() < SPIN {
                continue;
            }
            let parked = &self.parked[index - 1];
            loop {
                // Before the gate is looked at: whoever opens it looks at this afterwards.
                parked.store(true, Ordering::SeqCst);
                let gate = self.gate.load(Ordering::SeqCst);
                if self.is_news(gate, index, last_loop) {
                    parked.store(false, Ordering::Relaxed);
                    return gate;
                }
                std::thread::park();
            }
        }
    }

    fn is_news(&self, gate: u64, index: usize, last_loop: u64) -> bool {
        let wanted = (gate >> WANTED_SHIFT & WANTED_MASK) as usize;
        let open = gate & OPEN != 0 && gate & LOOP_MASK != last_loop && index < wanted;
        open || self.stop.load(Ordering::SeqCst)
    }

    /// Takes chunks of the current loop until none are left.
    fn take_chunks(&self) {
        // SAFETY: the thread is inside the gate or owns the loop, so `job` is not being written
        // and `body` is alive.
        let (body, n_chunks) = unsafe {
            let job = &*self.job.get();
            (&*job.body, job.n_chunks)
        };
        INSIDE_A_CHUNK.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let chunk = self.next_chunk.fetch_add(1, Ordering::Relaxed);
                if chunk >= n_chunks {
                    break;
                }
                body(chunk);
            }
        }));
        INSIDE_A_CHUNK.set(false);
        if let Err(payload) = outcome {
            self.next_chunk.store(n_chunks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }
}

/// The mutexes here guard no data that a panic could leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pointer into memory that several threads write in disjoint ranges.
pub(crate) struct SyncPtr<T>(*mut T);

// SAFETY: the pointer is used only through unsafe methods whose callers promise disjoint ranges.
unsafe impl<T: Send> Sync for SyncPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SyncPtr<T> {}

impl<T> SyncPtr<T> {
    pub(crate) fn new(start: *mut T) -> SyncPtr<T> {
        SyncPtr(start)
    }

    /// The pointer `offset` values after the start.
    ///
    /// # Safety
    ///
    /// * `offset` values after the start is inside the memory the pointer was made from.
    pub(crate) unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: in bounds by the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// `len` values that start `offset` values after the start.
    ///
    /// # Safety
    ///
    /// * The range is inside the memory the pointer was made from, which outlives `'a`.
    /// * Nobody else reads or writes the range during `'a`.
    pub(crate) unsafe fn slice_mut<'a>(&self, offset: usize, len: usize) -> &'a mut [T] {
        // SAFETY: in bounds and unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), len) }
    }
}

#[cfg(test)]
mod tests;
