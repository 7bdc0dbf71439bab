//! Between the eyes and the model: news in order, and the newest sight.

use super::{News, Sight, Told};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bounded on both sides: the eyes never wait for the model.
#[derive(Debug)]
pub(super) struct Slot {
    held: Mutex<Held>,
    changed: Condvar,
    most_news: usize,
}

#[derive(Debug, Default)]
struct Held {
    news: VecDeque<News>,
    lost_news: u64,
    sight: Option<Box<Sight>>,
    closed: bool,
}

impl Slot {
    pub(super) fn new(most_news: usize) -> Slot {
        Slot {
            held: Mutex::new(Held::default()),
            changed: Condvar::new(),
            most_news,
        }
    }

    /// A new sight; one that still waited is replaced, and said to be.
    pub(super) fn see(&self, sight: Sight) {
        self.with(|held| {
            if let Some(replaced) = held.sight.replace(Box::new(sight)) {
                held.tell(
                    News::Replaced {
                        event: replaced.event,
                    },
                    self.most_news,
                );
            }
        });
    }

    /// Waits until the last sight was taken, then shows this one: recordings can wait.
    pub(super) fn see_in_turn(&self, sight: Sight) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.sight.is_some() && !held.closed {
            let waited = self.changed.wait(held);
            held = waited.unwrap_or_else(PoisonError::into_inner);
        }
        drop(held);
        self.see(sight);
    }

    pub(super) fn tell(&self, news: News) {
        self.with(|held| held.tell(news, self.most_news));
    }

    /// Nothing more will come, or nobody wants more.
    pub(super) fn close(&self) {
        self.with(|held| held.closed = true);
    }

    pub(super) fn take(&self, wait: Duration) -> Told {
        let until = Instant::now() + wait;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if held.lost_news > 0 {
                let count = std::mem::take(&mut held.lost_news);
                return Told::News(News::Lost { count });
            }
            if let Some(news) = held.news.pop_front() {
                return Told::News(news);
            }
            if let Some(sight) = held.sight.take() {
                self.changed.notify_all();
                return Told::Sight(sight);
            }
            if held.closed {
                return Told::End;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Told::Nothing;
            }
            let waited = self.changed.wait_timeout(held, left);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn with(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Held {
    fn tell(&mut self, news: News, most: usize) {
        if self.news.len() >= most {
            self.news.pop_front();
            self.lost_news += 1;
        }
        self.news.push_back(news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;

    fn ended(event: u64) -> News {
        News::EventEnd { event }
    }

    #[test]
    fn news_come_in_order_and_the_oldest_are_dropped_with_a_word() {
        let slot = Slot::new(2);
        for event in 1..=4 {
            slot.tell(ended(event));
        }
        assert!(matches!(
            slot.take(NO_WAIT),
            Told::News(News::Lost { count: 2 })
        ));
        for wanted in [3, 4] {
            match slot.take(NO_WAIT) {
                Told::News(News::EventEnd { event }) => assert_eq!(event, wanted),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(slot.take(NO_WAIT), Told::Nothing));
    }

    #[test]
    fn the_newest_sight_replaces_the_one_that_waits() {
        let slot = Slot::new(8);
        slot.see(Sight::blank(1));
        slot.see(Sight::blank(2));
        assert!(matches!(
            slot.take(NO_WAIT),
            Told::News(News::Replaced { event: 1 })
        ));
        match slot.take(NO_WAIT) {
            Told::Sight(sight) => assert_eq!(sight.event, 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_recording_waits_for_its_turn() {
        let slot = Slot::new(8);
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=500).for_each(|event| slot.see_in_turn(Sight::blank(event))));
            for wanted in 1..=500 {
                match slot.take(Duration::from_secs(60)) {
                    Told::Sight(sight) => assert_eq!(sight.event, wanted),
                    other => panic!("{other:?}"),
                }
            }
        });
        // Once nobody takes any more, nobody waits either.
        slot.see(Sight::blank(501));
        slot.close();
        slot.see_in_turn(Sight::blank(502));
    }

    #[test]
    fn what_waits_is_told_before_the_end() {
        let slot = Slot::new(8);
        slot.see(Sight::blank(1));
        slot.close();
        assert!(matches!(slot.take(NO_WAIT), Told::Sight(_)));
        assert!(matches!(slot.take(NO_WAIT), Told::End));
        assert!(matches!(slot.take(NO_WAIT), Told::End));
    }
}
