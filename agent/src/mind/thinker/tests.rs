//! Tests of the thread, with a brain that does as it is told.

use super::*;
use crate::entry::AnswerForm;
use crate::mind::job::Conclusion;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ocelli_runtime::image::Rgb8;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What the brain does next.
enum Order {
    Answer,
    Silence,
    EngineFault,
    Panic,
}

/// Tells what it begins, and waits for an order.
struct Puppet {
    begun: Sender<(u64, Stage)>,
    orders: Arc<Mutex<Receiver<Order>>>,
}

impl Brain for Puppet {
    fn think(&mut self, job: &Job, stage: Stage, cancel: &CancelFlag) -> Option<Thought> {
        self.begun.send((job.question.0, stage)).unwrap();
        let order = self.orders.lock().unwrap().recv().unwrap();
        let thought = |result| {
            Some(Thought {
                question: job.question,
                result,
            })
        };
        if cancel.is_cancelled() {
            return thought(Err(Failure::Cancelled));
        }
        match order {
            Order::Answer => thought(Ok(Box::new(conclusion(job, stage)))),
            Order::Silence => None,
            Order::EngineFault => thought(Err(Failure::Engine("burnt".into()))),
            Order::Panic => {
                // The lock of the orders would be poisoned by a panic under it.
                panic!("the puppet was told to")
            }
        }
    }
}

fn conclusion(job: &Job, stage: Stage) -> Conclusion {
    Conclusion {
        answered: job.answered(stage),
        value: ocelli_reflex::observation::Value::Nothing,
        fields: Vec::new(),
    }
}

struct Stand {
    // Goes first: a brain without orders panics, which lets the thread of a failed test end.
    orders: Sender<Order>,
    thinker: Thinker,
    begun: Receiver<(u64, Stage)>,
    made: Arc<AtomicUsize>,
}

fn stand(capacity: usize) -> Stand {
    let (begun_in, begun) = channel();
    let (orders, orders_out) = channel();
    let orders_out = Arc::new(Mutex::new(orders_out));
    let made = Arc::new(AtomicUsize::new(0));
    let counter = made.clone();
    let make = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Puppet {
            begun: begun_in.clone(),
            orders: orders_out.clone(),
        }) as Box<dyn Brain>)
    };
    Stand {
        thinker: Thinker::start(Box::new(make), capacity).unwrap(),
        begun,
        orders,
        made,
    }
}

impl Stand {
    /// Waits until the brain begins something, and says what.
    fn next_begun(&self) -> (u64, Stage) {
        self.begun.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Waits for the next result.
    fn next_result(&self) -> (u64, Result<Stage, Failure>) {
        let mut fds = [PollFd::new(self.thinker.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000u16)).unwrap(), 1);
        let thought = self.thinker.try_next().unwrap();
        let result = thought.result.map(|conclusion| conclusion.answered.stage);
        (thought.question.0, result)
    }

    fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(self.thinker.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }
}

fn job(question: u64, frame: u64, priority: u8) -> Job {
    Job {
        question: QuestionId(question),
        rule: "r".into(),
        frame,
        picture: Arc::new(Rgb8::new(1, 1, vec![0; 3]).unwrap()),
        prompt: "?".into(),
        form: AnswerForm::Caption(4),
        max_tiles: None,
        early: false,
        priority,
        deadline: Instant::now() + Duration::from_secs(3600),
    }
}

#[test]
fn priority_goes_first_then_the_picture_looked_at_then_age() {
    let stand = stand(8);
    stand.thinker.submit(job(1, 1, 5));
    assert_eq!(stand.next_begun().0, 1);
    for (question, frame, priority) in [(2, 2, 5), (3, 2, 5), (4, 1, 5), (5, 3, 9), (6, 1, 1)] {
        stand.thinker.submit(job(question, frame, priority));
    }
    assert_eq!(stand.thinker.waiting(), 5);
    stand.order(Order::Answer);
    // After the urgent one about picture 3 no picture is near, so age decides.
    for expected in [5, 2, 3, 4, 6] {
        assert_eq!(stand.next_begun().0, expected);
        stand.order(Order::Answer);
    }
    for expected in [1, 5, 2, 3, 4, 6] {
        assert_eq!(stand.next_result(), (expected, Ok(Stage::Refined)));
    }
}

#[test]
fn the_picture_looked_at_last_goes_before_an_older_job() {
    let stand = stand(8);
    stand.thinker.submit(job(1, 7, 5));
    stand.next_begun();
    stand.thinker.submit(job(2, 8, 5));
    stand.thinker.submit(job(3, 7, 5));
    stand.order(Order::Answer);
    assert_eq!(stand.next_begun().0, 3);
    stand.order(Order::Answer);
    assert_eq!(stand.next_begun().0, 2);
    stand.order(Order::Answer);
}

#[test]
fn early_answers_about_one_picture_come_before_its_refined_ones() {
    let stand = stand(8);
    stand.thinker.submit(job(1, 1, 9));
    stand.next_begun();
    for question in [2, 3] {
        stand.thinker.submit(Job {
            early: true,
            ..job(question, 2, 5)
        });
    }
    stand.order(Order::Answer);
    let expected = [
        (2, Stage::Early),
        (3, Stage::Early),
        (2, Stage::Refined),
        (3, Stage::Refined),
    ];
    for expected in expected {
        assert_eq!(stand.next_begun(), expected);
        stand.order(Order::Answer);
    }
    assert_eq!(stand.next_result(), (1, Ok(Stage::Refined)));
    for (question, stage) in expected {
        assert_eq!(stand.next_result(), (question, Ok(stage)));
    }
}

#[test]
fn a_stage_with_nothing_to_say_gives_no_result() {
    let stand = stand(8);
    stand.thinker.submit(Job {
        early: true,
        ..job(1, 1, 5)
    });
    assert_eq!(stand.next_begun(), (1, Stage::Early));
    stand.order(Order::Silence);
    assert_eq!(stand.next_begun(), (1, Stage::Refined));
    stand.order(Order::Answer);
    assert_eq!(stand.next_result(), (1, Ok(Stage::Refined)));
    assert!(stand.thinker.try_next().is_none());
}

#[test]
fn a_full_queue_drops_the_oldest_of_the_lowest_priority_and_says_so() {
    let stand = stand(2);
    stand.thinker.submit(job(1, 1, 5));
    stand.next_begun();
    for (question, priority) in [(2, 3), (3, 5), (4, 3), (5, 9), (6, 1)] {
        stand.thinker.submit(job(question, 1, priority));
    }
    let dropped = || Err(Failure::Dropped { waiting: 2 });
    assert_eq!(stand.next_result(), (2, dropped()));
    assert_eq!(stand.next_result(), (4, dropped()));
    assert_eq!(stand.next_result(), (6, dropped()));
    stand.order(Order::Answer);
    assert_eq!(stand.next_begun().0, 5);
    stand.order(Order::Answer);
    assert_eq!(stand.next_begun().0, 3);
    stand.order(Order::Answer);
}

#[test]
fn a_cancelled_job_ends_once_whether_it_waits_or_runs() {
    let stand = stand(8);
    stand.thinker.submit(Job {
        early: true,
        ..job(1, 1, 5)
    });
    stand.next_begun();
    stand.thinker.submit(job(2, 1, 5));
    assert!(stand.thinker.cancel(QuestionId(2)));
    assert_eq!(stand.next_result(), (2, Err(Failure::Cancelled)));
    assert!(stand.thinker.cancel(QuestionId(1)));
    assert!(!stand.thinker.cancel(QuestionId(2)));
    assert!(!stand.thinker.cancel(QuestionId(77)));
    stand.order(Order::Answer);
    assert_eq!(stand.next_result(), (1, Err(Failure::Cancelled)));
    // Nothing is left of it: the next work is another job.
    stand.thinker.submit(job(3, 1, 5));
    assert_eq!(stand.next_begun(), (3, Stage::Refined));
    stand.order(Order::Answer);
    assert_eq!(stand.next_result(), (3, Ok(Stage::Refined)));
    assert!(stand.thinker.try_next().is_none());
}

#[test]
fn a_job_whose_deadline_has_passed_is_not_begun() {
    let stand = stand(8);
    stand.thinker.submit(Job {
        deadline: Instant::now(),
        ..job(1, 1, 5)
    });
    assert_eq!(stand.next_result(), (1, Err(Failure::Deadline)));
    assert!(stand.begun.try_recv().is_err());
}

#[test]
fn a_fault_or_a_panic_is_told_and_a_new_brain_goes_on() {
    let stand = stand(8);
    let brains = || stand.made.load(Ordering::Relaxed);
    for (question, order) in [
        (1, Order::EngineFault),
        (2, Order::Panic),
        (3, Order::Answer),
    ] {
        stand.thinker.submit(Job {
            early: question < 3,
            ..job(question, 1, 5)
        });
        stand.next_begun();
        stand.order(order);
        let (told, result) = stand.next_result();
        assert_eq!((told, brains()), (question, question as usize));
        match (question, result) {
            (1, Err(Failure::Engine(why))) => assert_eq!(why, "burnt"),
            (2, Err(Failure::Engine(why))) => assert!(why.contains("was told to"), "{why}"),
            (3, Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_brain_that_cannot_be_made_is_told_for_each_job() {
    let mut tries = 0;
    let make = move || {
        tries += 1;
        match tries {
            1 => panic!("no luck"),
            _ => Err(format!("try {tries}")),
        }
    };
    let thinker = Thinker::start(Box::new(make), 2).unwrap();
    for (question, expected) in [(1, "no luck"), (2, "try 2")] {
        thinker.submit(job(question, 1, 5));
        let mut fds = [PollFd::new(thinker.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(60_000u16)).unwrap();
        match thinker.try_next().unwrap().result {
            Err(Failure::Engine(why)) => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_descriptor_is_readable_exactly_while_a_result_waits() {
    let stand = stand(8);
    assert!(!stand.is_readable());
    for question in [1, 2] {
        stand.thinker.submit(Job {
            deadline: Instant::now(),
            ..job(question, 1, 5)
        });
        assert_eq!(stand.next_result().0, question);
        assert!(!stand.is_readable());
    }
    stand.thinker.submit(job(3, 1, 5));
    stand.next_begun();
    stand.thinker.submit(job(4, 1, 5));
    stand.thinker.submit(job(5, 1, 5));
    stand.thinker.cancel(QuestionId(4));
    stand.thinker.cancel(QuestionId(5));
    assert!(stand.is_readable());
    stand.thinker.try_next();
    assert!(stand.is_readable());
    stand.thinker.try_next();
    assert!(!stand.is_readable());
    stand.order(Order::Answer);
}

#[test]
fn results_nobody_takes_are_lost_from_the_oldest_and_counted() {
    let stand = stand(1);
    stand.thinker.submit(job(0, 1, 5));
    stand.next_begun();
    // The first waits; each further one drops the one before.
    for question in 1..=MOST_RESULTS as u64 + 3 {
        stand.thinker.submit(job(question, 1, 5));
    }
    assert_eq!(stand.thinker.lost(), 2);
    assert_eq!(stand.next_result().0, 3);
    stand.order(Order::Answer);
    stand.next_begun();
    stand.order(Order::Answer);
}
