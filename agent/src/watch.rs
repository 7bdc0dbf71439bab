//! From a camera to pictures worth a question.
//!
//! ```text
//! thread "eyes":  camera ─▶ luma grid ─▶ change ─▶ when to look ─▶ detector ─▶ sight ─┐
//! calling thread:                        one sight at a time ◀── newest replaces ◀────┘
//! ```
//!
//! The eyes go on while the model thinks: what moves meanwhile is seen, and the newest sight waits.

mod album;
mod eyes;
#[cfg(feature = "onnx")]
mod second;
mod slot;

pub use album::{Album, PictureType, encode_jpeg};
pub use eyes::{EyeSettings, Eyes, News, START, Sight};
#[cfg(feature = "onnx")]
pub use second::DetectorLook;

use slot::Slot;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most remarks that wait to be told; the oldest are dropped.
const MOST_REMARKS: usize = 64;

/// What the eyes have to tell.
#[derive(Debug)]
pub enum Told {
    /// A picture worth a question.
    Sight(Box<Sight>),
    /// Anything else.
    News(News),
    /// Nothing within the wait.
    Nothing,
    /// The source has ended.
    End,
}

/// Eyes on a thread of their own.
#[derive(Debug)]
pub struct Watch {
    slot: Arc<Slot>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts looking.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(mut eyes: Eyes) -> io::Result<Watch> {
        let slot = Arc::new(Slot::new(MOST_REMARKS));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, stopped) = (slot.clone(), stop.clone());
        let body = move || {
            while !stopped.load(Ordering::Relaxed) && eyes.look(&told) {}
            told.close();
        };
        let thread = std::thread::Builder::new()
            .name("eyes".into())
            .spawn(body)?;
        Ok(Watch {
            slot,
            stop,
            thread: Some(thread),
        })
    }

    /// What there is to tell, news before sights, at most `wait` from now.
    pub fn next(&self, wait: Duration) -> Told {
        self.slot.take(wait)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.slot.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the eyes was reported by the thread itself.
            let _ = thread.join();
        }
    }
}
