use super::*;
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

const ROOMY: Limits = Limits {
    events: 1000,
    bytes: 1 << 20,
};

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("events.queue")
    }

    fn open(&self, limits: Limits) -> (Queue, Recovered) {
        Queue::open(&self.path(), limits, 42).unwrap()
    }
}

fn push(queue: &mut Queue, priority: Priority, text: &str) -> Pushed {
    queue.push(priority, |_| text.as_bytes().to_vec()).unwrap()
}

/// Waiting events, oldest first.
fn waiting(queue: &Queue) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    let mut from = 0;
    while let Some(seq) = queue.first_from(from) {
        let payload = queue.payload(seq).unwrap().unwrap();
        all.push((seq, String::from_utf8(payload).unwrap()));
        from = seq + 1;
    }
    all
}

fn texts(queue: &Queue) -> Vec<String> {
    waiting(queue).into_iter().map(|(_, text)| text).collect()
}

#[test]
fn events_wait_in_order_until_they_are_acknowledged() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    for text in ["a", "b", "c"] {
        let pushed = push(&mut queue, Priority::Normal, text);
        assert!(pushed.durable);
    }
    assert_eq!(texts(&queue), ["a", "b", "c"]);
    assert!(queue.acknowledge(2));
    assert!(!queue.acknowledge(2), "twice is once");
    assert_eq!(texts(&queue), ["a", "c"]);
    assert_eq!(queue.dropped(), 0);
}

#[test]
fn a_restart_keeps_events_numbers_and_identity() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    for text in ["a", "b", "c"] {
        let _ = push(&mut queue, Priority::Normal, text);
    }
    queue.acknowledge(1);
    queue.acknowledge(3);
    drop(queue);
    let (mut queue, recovered) = Queue::open(&bench.path(), ROOMY, 77).unwrap();
    assert_eq!(recovered.events, 1);
    assert_eq!(waiting(&queue), [(2, "b".to_owned())]);
    let pushed = push(&mut queue, Priority::Normal, "d");
    assert_eq!((pushed.stamp.seq, pushed.stamp.queue), (4, 42));
}

#[test]
fn numbers_go_on_after_everything_was_acknowledged() {
    let bench = Bench::new();
    for seq in 1..=5 {
        let (mut queue, _) = bench.open(ROOMY);
        assert_eq!(push(&mut queue, Priority::Normal, "x").stamp.seq, seq);
        queue.acknowledge(seq);
    }
}

#[test]
fn a_queue_in_use_is_refused() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    let refused = |path: &Path| matches!(Queue::open(path, ROOMY, 1), Err(QueueError::InUse { path: named }) if named == path);
    assert!(refused(&bench.path()));
    // The file that compaction makes is locked as well.
    let _ = push(&mut queue, Priority::Normal, "x");
    queue.compact().unwrap();
    assert!(refused(&bench.path()));
    drop(queue);
    assert!(!refused(&bench.path()));
}

#[test]
fn the_oldest_of_the_lowest_priority_is_dropped_first() {
    use Priority::{High, Low, Normal};
    let bench = Bench::new();
    let limits = Limits { events: 4, ..ROOMY };
    let (mut queue, _) = bench.open(limits);
    for (priority, text) in [(High, "h1"), (Low, "l1"), (Normal, "n1"), (Low, "l2")] {
        let _ = push(&mut queue, priority, text);
    }
    let steps = [
        (Normal, "n2", "h1 n1 l2 n2", true),
        (Normal, "n3", "h1 n1 n2 n3", true),
        (Low, "l3", "h1 n1 n2 n3", false),
        (High, "h2", "h1 n2 n3 h2", true),
        (Normal, "n4", "h1 n3 h2 n4", true),
    ];
    for (count, (priority, text, rest, durable)) in steps.into_iter().enumerate() {
        let pushed = push(&mut queue, priority, text);
        assert_eq!((pushed.dropped, pushed.durable), (1, durable), "{text}");
        assert_eq!(texts(&queue).join(" "), rest, "after {text}");
        assert_eq!(queue.dropped(), count as u64 + 1);
    }
    let last = waiting(&queue).last().unwrap().0;
    assert_eq!(last, 9, "the one that was dropped at once left a gap");
    drop(queue);
    let (queue, _) = bench.open(limits);
    assert_eq!(queue.dropped(), 5, "drops are counted for ever");
}

#[test]
fn bytes_are_a_limit_too() {
    let bench = Bench::new();
    let limits = Limits {
        events: 1000,
        bytes: 2000,
    };
    let (mut queue, _) = bench.open(limits);
    for n in 0..50 {
        let _ = push(&mut queue, Priority::Normal, &format!("{n:0300}"));
        assert!(queue.bytes() <= limits.bytes);
    }
    assert_eq!(queue.len(), 6);
    assert_eq!(queue.dropped(), 44);
}

#[test]
fn lower_limits_drop_what_no_longer_fits() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    for text in ["a", "b", "c"] {
        let _ = push(&mut queue, Priority::Normal, text);
    }
    drop(queue);
    let (queue, recovered) = bench.open(Limits { events: 1, ..ROOMY });
    assert_eq!((recovered.events, recovered.dropped), (1, 2));
    assert_eq!(texts(&queue), ["c"]);
}

#[test]
fn an_event_that_is_too_long_is_refused_and_takes_no_number() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    let long = queue.push(Priority::High, |_| vec![0; MAX_EVENT_BYTES + 1]);
    assert!(matches!(long, Err(QueueError::TooLarge { bytes }) if bytes == MAX_EVENT_BYTES + 1));
    let longest = queue
        .push(Priority::High, |_| vec![b'x'; MAX_EVENT_BYTES])
        .unwrap();
    assert_eq!(longest.stamp.seq, 1);
    drop(queue);
    let (queue, _) = bench.open(ROOMY);
    assert_eq!(queue.payload(1).unwrap().unwrap().len(), MAX_EVENT_BYTES);
}

#[test]
fn a_power_cut_at_any_byte_keeps_every_whole_event() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    let mut ends = Vec::new();
    for n in 0..6 {
        let _ = push(&mut queue, Priority::Normal, &format!("event {n}"));
        ends.push(queue.end);
    }
    drop(queue);
    let whole = fs::read(bench.path()).unwrap();
    for cut in 0..=whole.len() {
        fs::write(bench.path(), &whole[..cut]).unwrap();
        let (mut queue, recovered) = bench.open(ROOMY);
        let survivors = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(recovered.events, survivors, "cut at {cut}");
        assert_eq!(recovered.damaged_bytes, 0);
        let expected: Vec<_> = (0..survivors).map(|n| format!("event {n}")).collect();
        assert_eq!(texts(&queue), expected);
        let _ = push(&mut queue, Priority::Normal, "next");
        drop(queue);
        let (queue, again) = bench.open(ROOMY);
        assert_eq!((again.torn_bytes, again.events), (0, survivors + 1));
        assert_eq!(texts(&queue).last().unwrap(), "next");
    }
}

#[test]
fn damage_inside_costs_one_record() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    let header = queue.end;
    for n in 0..5 {
        let _ = push(&mut queue, Priority::Normal, &format!("event {n}"));
    }
    let one = (queue.end - header) / 5;
    drop(queue);
    let whole = fs::read(bench.path()).unwrap();
    for byte in (header + one * 2)..(header + one * 3) {
        let mut bytes = whole.clone();
        bytes[byte as usize] ^= 0x40;
        fs::write(bench.path(), &bytes).unwrap();
        let (queue, recovered) = bench.open(ROOMY);
        assert_eq!(recovered.damaged_bytes, one, "byte {byte}");
        assert_eq!(texts(&queue), ["event 0", "event 1", "event 3", "event 4"]);
    }
}

#[test]
fn an_event_damaged_while_open_is_told() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    let _ = push(&mut queue, Priority::Normal, "event");
    let last = queue.end - 1;
    queue.file.write_all_at(b"X", last).unwrap();
    assert!(matches!(
        queue.payload(1),
        Err(QueueError::Damaged { seq: 1, .. })
    ));
    assert!(queue.give_up(1));
    assert_eq!((queue.len(), queue.dropped()), (0, 1));
}

#[test]
fn a_disk_that_refuses_leaves_events_in_memory() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(Limits {
        bytes: 4 << 20,
        ..ROOMY
    });
    let _ = push(&mut queue, Priority::Normal, "a");
    // A descriptor without leave to write stands for a full disk.
    let healthy = std::mem::replace(&mut queue.file, File::open(bench.path()).unwrap());
    let pushed = push(&mut queue, Priority::Normal, "b");
    assert!(!pushed.durable);
    assert_eq!((pushed.dropped, pushed.stamp.seq), (0, 2));
    assert!(queue.volatile_bytes() > 0);
    assert_eq!(texts(&queue), ["a", "b"], "order holds");
    let filler = "x".repeat(MAX_EVENT_BYTES);
    let refused = (0..20).find_map(|_| {
        queue
            .push(Priority::Normal, |_| filler.clone().into_bytes())
            .err()
    });
    assert!(matches!(refused, Some(QueueError::Full { .. })));
    queue.file = healthy;
    let pushed = push(&mut queue, Priority::High, "c");
    assert!(pushed.durable);
    assert_eq!(queue.volatile_bytes(), 0, "memory was written down");
    let before = waiting(&queue);
    drop(queue);
    let (queue, _) = bench.open(Limits {
        bytes: 4 << 20,
        ..ROOMY
    });
    assert_eq!(waiting(&queue), before);
}

#[test]
fn the_file_does_not_grow_without_end() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    for seq in 1..=3000 {
        let _ = push(&mut queue, Priority::Normal, &"x".repeat(200));
        queue.acknowledge(seq);
        assert!(queue.end <= SMALLEST_COMPACTION + 1000);
    }
    let size = fs::metadata(bench.path()).unwrap().len();
    assert!(size <= SMALLEST_COMPACTION + 1000, "{size}");
}

#[test]
fn a_half_written_new_file_is_written_over() {
    let bench = Bench::new();
    let (mut queue, _) = bench.open(ROOMY);
    let _ = push(&mut queue, Priority::Normal, "a");
    drop(queue);
    fs::write(with_suffix(&bench.path(), ".new"), b"OQR1 rubbish").unwrap();
    let (queue, _) = bench.open(ROOMY);
    assert_eq!(texts(&queue), ["a"]);
}

#[test]
fn a_foreign_file_is_no_event() {
    let bench = Bench::new();
    fs::write(bench.path(), vec![b'O'; 200_000]).unwrap();
    let (queue, recovered) = bench.open(ROOMY);
    assert_eq!(recovered.torn_bytes, 200_000);
    assert!(queue.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Push(Priority, usize),
    Acknowledge(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![
        Just(Priority::Low),
        Just(Priority::Normal),
        Just(Priority::High)
    ];
    prop_oneof![
        4 => (priority, 0_usize..300).prop_map(|(priority, len)| Step::Push(priority, len)),
        2 => (0_usize..8).prop_map(Step::Acknowledge),
        1 => Just(Step::Reopen),
    ]
}

/// The drop rule, said the plain way.
fn model_push(
    model: &mut Vec<(u64, Priority, usize)>,
    event: (u64, Priority, usize),
    limits: Limits,
) {
    model.push(event);
    let size =
        |model: &[(u64, Priority, usize)]| model.iter().map(|(_, _, len)| len + 22).sum::<usize>();
    while model.len() > limits.events || size(model) as u64 > limits.bytes {
        let lowest = model
            .iter()
            .map(|(_, priority, _)| *priority)
            .min()
            .unwrap();
        let at = model
            .iter()
            .position(|(_, priority, _)| *priority == lowest)
            .unwrap();
        model.remove(at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_is_its_model(steps in proptest::collection::vec(step(), 1..60)) {
        let limits = Limits { events: 6, bytes: 1000 };
        let bench = Bench::new();
        let (mut queue, _) = bench.open(limits);
        let mut model: Vec<(u64, Priority, usize)> = Vec::new();
        let mut pushed = 0;
        for step in steps {
            match step {
                Step::Push(priority, len) => {
                    pushed += 1;
                    let stamp = queue.push(priority, |_| vec![b'e'; len]).unwrap().stamp;
                    prop_assert_eq!(stamp.seq, pushed);
                    model_push(&mut model, (pushed, priority, len), limits);
                }
                Step::Acknowledge(at) => {
                    if at < model.len() {
                        prop_assert!(queue.acknowledge(model.remove(at).0));
                    }
                }
                Step::Reopen => {
                    drop(queue);
                    queue = bench.open(limits).0;
                }
            }
            let found: Vec<_> = waiting(&queue).into_iter().map(|(seq, text)| (seq, text.len())).collect();
            let expected: Vec<_> = model.iter().map(|(seq, _, len)| (*seq, *len)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn no_rubbish_in_the_file_panics_or_is_sent(
        noise in proptest::collection::vec((0_usize..600, any::<u8>()), 1..20),
    ) {
        let bench = Bench::new();
        let (mut queue, _) = bench.open(ROOMY);
        for n in 0..10 {
            let _ = push(&mut queue, Priority::Normal, &format!("event {n}"));
        }
        drop(queue);
        let mut bytes = fs::read(bench.path()).unwrap();
        for (at, value) in noise {
            if at < bytes.len() {
                bytes[at] = value;
            }
        }
        fs::write(bench.path(), &bytes).unwrap();
        let (queue, _) = bench.open(ROOMY);
        for (seq, text) in waiting(&queue) {
            prop_assert_eq!(text, format!("event {}", seq - 1));
        }
    }
}
