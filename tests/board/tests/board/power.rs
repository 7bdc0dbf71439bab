//! Power cuts: what was synced stays, what was not may go.

use std::sync::Arc;
use std::time::Duration;

use ocelli_board::{Board, Disk, Job, Kept, Options};
use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;

const LIMIT: Duration = Duration::from_secs(60);
/// How many records are acknowledged before the cut.
const RECORDS: usize = 12;

pub(crate) const TESTS: &[Test] = tests![&[];
    a_power_cut_keeps_what_was_synced,
    a_power_cut_loses_what_was_not_synced,
    a_cut_at_any_write_keeps_what_was_acknowledged_before,
];

fn a_power_cut_keeps_what_was_synced(bench: &Bench) {
    let options = with_data(bench, Disk::for_data().unwrap());
    let guest = bench.guest_with(&options);
    let acknowledged = write(&guest, true);
    let data = guest.cut_power();
    let guest = bench.guest_with(&with_disk(bench, data));
    let messages = guest.sh("dmesg").unwrap();
    assert!(messages.contains("recovery complete"), "{messages}");
    assert!(
        records(&guest) >= acknowledged,
        "{} of {acknowledged}",
        records(&guest)
    );
}

fn a_power_cut_loses_what_was_not_synced(bench: &Bench) {
    let options = with_data(bench, Disk::for_data().unwrap());
    let guest = bench.guest_with(&options);
    write(&guest, false);
    let data = guest.cut_power();
    let guest = bench.guest_with(&with_disk(bench, data));
    assert_eq!(records(&guest), 0);
}

fn a_cut_at_any_write_keeps_what_was_acknowledged_before(bench: &Bench) {
    let mut options = with_data(bench, Disk::for_data().unwrap());
    options.log_writes = true;
    let guest = bench.guest_with(&options);
    let acknowledged = write(&guest, true);
    let log = guest.cut_power_and_read_log();
    assert!(log.len() > acknowledged, "{} writes", log.len());
    let mut most = 0;
    for step in 0..=8 {
        let at = log.len() * step / 8;
        for kept in [Kept::All, Kept::None, Kept::Some(at as u64)] {
            let disk = log.cut(at, kept).unwrap();
            assert!(disk.repair().unwrap(), "cut {at}, {kept:?}");
            let text = disk.read("/records").unwrap().unwrap_or_default();
            let whole = count(&String::from_utf8_lossy(&text));
            if matches!(kept, Kept::None) {
                assert!(whole >= most, "cut {at}: {whole} records, {most} earlier");
                most = whole;
            }
        }
    }
    assert!(most >= acknowledged, "{most} of {acknowledged}");
}

fn with_data(bench: &Bench, disk: Disk) -> Options {
    with_disk(bench, Arc::new(disk))
}

fn with_disk(bench: &Bench, disk: Arc<Disk>) -> Options {
    Options {
        data: Some(disk),
        ..bench.options()
    }
}

/// Appends records in the guest until [`RECORDS`] are acknowledged; returns how many were.
fn write(guest: &Board, synced: bool) -> usize {
    let sync = if synced { "sync" } else { "true" };
    let job: Job = guest
        .spawn(&format!("i=0; while :; do echo \"record $i of a journal\" >>/data/records; {sync}; echo $i; i=$((i+1)); done"))
        .unwrap();
    let lines = job
        .lines_until(LIMIT, |line| line == RECORDS.to_string())
        .unwrap();
    // The plug is pulled while the writer runs.
    std::mem::forget(job);
    lines.len()
}

fn records(guest: &Board) -> usize {
    count(&guest.sh("cat /data/records 2>/dev/null; true").unwrap())
}

/// Records that are there in order and whole.
fn count(text: &str) -> usize {
    let is_right = |(i, line): &(usize, &str)| *line == format!("record {i} of a journal");
    text.lines().enumerate().take_while(is_right).count()
}
