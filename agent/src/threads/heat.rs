//! The board's temperature as a limit of threads.

use ocelli_boards::{Board, Cooling, CoolingLimits, Facts, Temperature, Tree, detect};
use ocelli_runtime::threads::ThreadLimit;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Time between two readings, and before the first: a board does not get hot sooner, and most
/// answers to one picture need none.
const PAUSE: Duration = Duration::from_secs(2);

/// The limit of a board with at most `most` threads; the board is detected when not given, at the
/// first reading. `hot_c`: see [`CoolingLimits::fewer_from_c`]; the board's own when not given.
pub fn limit(board: Option<Board>, hot_c: Option<f64>, most: usize) -> ThreadLimit {
    let (tree, mut board) = (Tree::default(), board);
    let mut cooling = None;
    let read = move || {
        let board = board.get_or_insert_with(|| {
            let facts = Facts::read(&tree, SystemTime::now());
            detect(&facts, &Board::built_in()).board
        });
        let celsius = Temperature::hottest(&tree, board).map(|hottest| hottest.celsius);
        let cooling = cooling.get_or_insert_with(|| Cooling::new(limits(board, hot_c), most));
        cooling.update(celsius)
    };
    let gauge = Mutex::new(Gauge::new(read, most, Instant::now()));
    ThreadLimit::new(move || {
        let mut gauge = gauge.lock().unwrap_or_else(PoisonError::into_inner);
        gauge.ask(Instant::now())
    })
}

fn limits(board: &Board, hot_c: Option<f64>) -> CoolingLimits {
    let own = CoolingLimits::of(board);
    match hot_c {
        None => own,
        Some(hot_c) => CoolingLimits {
            fewer_from_c: hot_c,
            more_below_c: hot_c - (own.fewer_from_c - own.more_below_c),
        },
    }
}

/// A number that is read now and then.
struct Gauge<R> {
    read: R,
    last: usize,
    next: Instant,
}

impl<R: FnMut() -> usize> Gauge<R> {
    fn new(read: R, first: usize, now: Instant) -> Gauge<R> {
        Gauge {
            read,
            last: first,
            next: now + PAUSE,
        }
    }

    fn ask(&mut self, now: Instant) -> usize {
        if now >= self.next {
            self.next = now + PAUSE;
            self.last = (self.read)();
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_is_read_every_two_seconds_however_often_it_is_asked() {
        let start = Instant::now();
        let mut readings = vec![1, 2, 3];
        let mut gauge = Gauge::new(|| readings.pop().unwrap(), 4, start);
        for (milliseconds, threads) in [
            (0, 4),
            (1999, 4),
            (2000, 3),
            (2001, 3),
            (3999, 3),
            (9000, 2),
            (10_999, 2),
            (11_000, 1),
        ] {
            let now = start + Duration::from_millis(milliseconds);
            assert_eq!(gauge.ask(now), threads, "{milliseconds}");
        }
        assert_eq!(readings, [0; 0]);
    }

    #[test]
    fn degrees_of_the_settings_stand_for_the_boards() {
        let board = Board::by_name("raspberry-pi-5").unwrap();
        assert_eq!(limits(&board, None), CoolingLimits::of(&board));
        let limits = limits(&board, Some(60.0));
        assert_eq!((limits.fewer_from_c, limits.more_below_c), (60.0, 55.0));
    }
}
