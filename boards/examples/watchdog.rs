//! Feeds the hardware watchdog while a counter counts up, then hangs on purpose.
//!
//! `watchdog SECONDS` works for so long and then makes no progress: the board restarts.
//! `watchdog SECONDS end` disarms the hardware in place of hanging.

use std::time::{Duration, Instant};

use ocelli_boards::{Fed, Tree, Watchdog};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let work = Duration::from_secs(
        arguments
            .first()
            .map_or(Ok(10), |seconds| seconds.parse())?,
    );
    let mut watchdog = Watchdog::open(&Tree::default(), "/dev/watchdog0")?;
    println!("armed, fed every {:?}", watchdog.every());
    let (start, mut progress) = (Instant::now(), 0);
    while start.elapsed() < work {
        progress += 1;
        if watchdog.feed(progress, start.elapsed())? == Fed::Fed {
            println!("fed at {:?}", start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if arguments.get(1).is_some_and(|word| word == "end") {
        watchdog.disarm()?;
        println!("disarmed");
        return Ok(());
    }
    println!("hung at {:?}", start.elapsed());
    loop {
        std::thread::sleep(watchdog.every());
        println!(
            "{:?} at {:?}",
            watchdog.feed(progress, start.elapsed())?,
            start.elapsed()
        );
    }
}
