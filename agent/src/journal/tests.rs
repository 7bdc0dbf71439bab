mod sim;

use super::record::{self, OVERHEAD_BYTES};
use super::segment::{HEADER_BYTES, name};
use super::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use sim::SimDisk;
use std::io;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Body {
    Saw { zone: String, n: u32 },
    Did { pin: String, on: bool },
}

fn body(n: u32) -> Body {
    match n % 3 {
        0 => Body::Did {
            pin: format!("lamp-{n}"),
            on: n.is_multiple_of(2),
        },
        _ => Body::Saw {
            zone: "gate".repeat(n as usize % 5),
            n,
        },
    }
}

fn at(ms: u64) -> Moment {
    Moment {
        boot_ms: ms,
        wall_ms: Some(1_700_000_000_000 + ms),
    }
}

fn small() -> JournalSettings {
    JournalSettings {
        segment_bytes: 600,
        sync: Sync::Within(Duration::from_millis(50)),
        ..JournalSettings::default()
    }
}

fn opened(disk: &SimDisk, settings: JournalSettings) -> (Journal<SimDisk>, Opened) {
    Journal::open(disk.clone(), settings, 7).unwrap()
}

fn bodies(disk: &SimDisk) -> Vec<(u64, Body)> {
    Reader::<_, Body>::new(disk)
        .unwrap()
        .filter_map(Result::ok)
        .map(|record: Record<Body>| (record.sequence, record.body))
        .collect()
}

/// Appends `n` records 10 ms apart, acting on every seventh; stops when the disk is dead. Returns
/// the number of the last acknowledged one.
fn write_some(journal: &mut Journal<SimDisk>, from: u32, n: u32, disk: &SimDisk) -> u64 {
    for at_record in from..from + n {
        let moment = at(u64::from(at_record) * 10);
        let _ = match at_record % 7 {
            0 => journal.append_now(1, &body(at_record), moment),
            _ => journal.append(0, &body(at_record), moment),
        };
        let _ = journal.tick(moment);
        if disk.is_dead() {
            break;
        }
    }
    journal.durable()
}

/// Everything the journal promises after an opening.
fn check(disk: &SimDisk, acknowledged: u64) {
    let (mut journal, report) = opened(disk, small());
    assert!(!report.is_damaged, "{report:?}");
    assert!(
        report.last >= acknowledged,
        "{} of {acknowledged} acknowledged records",
        report.last
    );
    let expected: Vec<(u64, Body)> = (1..=report.last).map(|n| (n, body(n as u32))).collect();
    assert_eq!(bodies(disk), expected);
    let next = report.last as u32 + 1;
    let last = journal
        .append_now(0, &body(next), at(1_000_000))
        .expect("the disk works again");
    assert_eq!(last, u64::from(next));
    let summary = verify(disk).unwrap();
    assert_eq!(summary.damages, []);
    assert_eq!(summary.range, Some((1, last)));
    assert_eq!(summary.head, journal.head());
    assert_eq!(summary.n_unfinished_bytes, 0);
}

#[test]
fn records_come_back_as_they_were_written() {
    let disk = SimDisk::new();
    let (mut journal, report) = opened(&disk, small());
    assert_eq!(report, Opened::default());
    write_some(&mut journal, 1, 50, &disk);
    journal.flush(at(600)).unwrap();
    assert_eq!(journal.durable(), 50);
    check(&disk, 50);
    assert!(disk.list().unwrap().len() > 3);
    let record = Reader::<_, Body>::new(&disk)
        .unwrap()
        .nth(6)
        .unwrap()
        .unwrap();
    assert_eq!((record.kind, record.boot, record.at), (1, 7, at(70)));
}

#[test]
fn a_power_cut_at_any_operation_takes_no_acknowledged_record() {
    let n_operations = {
        let disk = SimDisk::new();
        let (mut journal, _) = opened(&disk, small());
        write_some(&mut journal, 1, 40, &disk);
        disk.n_operations()
    };
    assert!(n_operations > 30, "{n_operations}");
    for cut in 0..n_operations {
        for seed in 0..20 {
            let disk = SimDisk::new();
            disk.die_at(cut);
            let acknowledged = match Journal::open(disk.clone(), small(), 7) {
                Ok((mut journal, _)) => write_some(&mut journal, 1, 40, &disk),
                Err(_) => 0,
            };
            check(&disk.after_power_cut(seed), acknowledged);
        }
    }
}

#[test]
fn a_power_cut_while_opening_after_a_power_cut_takes_nothing_either() {
    for (cut, again, seed) in
        (5..60).flat_map(|cut| (0..6).map(move |again| (cut, again, cut * 7 + again)))
    {
        let disk = SimDisk::new();
        disk.die_at(cut);
        let Ok((mut journal, _)) = Journal::open(disk.clone(), small(), 7) else {
            continue;
        };
        let acknowledged = write_some(&mut journal, 1, 40, &disk);
        let disk = disk.after_power_cut(seed as u64);
        disk.die_at(again);
        let _ = Journal::open(disk.clone(), small(), 7);
        check(&disk.after_power_cut(seed as u64 + 1), acknowledged);
    }
}

#[test]
fn what_an_opening_finds_is_acknowledged_only_once_it_is_synced() {
    let disk = SimDisk::new();
    let (mut journal, _) = opened(&disk, small());
    journal.append_now(0, &body(1), at(1)).unwrap();
    // Written, and the program ends before it is synced.
    disk.fail_from(disk.n_operations() + 1, 1, io::ErrorKind::Other);
    assert!(journal.append_now(0, &body(2), at(2)).is_err());
    drop(journal);
    let (journal, report) = opened(&disk, small());
    assert_eq!((report.last, journal.durable()), (2, 2));
    for seed in 0..20 {
        check(&disk.after_power_cut(seed), 2);
    }
}

#[test]
fn a_tail_cut_at_any_byte_loses_only_what_was_not_acknowledged() {
    let disk = SimDisk::new();
    let settings = JournalSettings {
        segment_bytes: 1 << 20,
        ..small()
    };
    let (mut journal, _) = opened(&disk, settings);
    for n in 1..=3 {
        journal.append(0, &body(n), at(1)).unwrap();
    }
    journal.flush(at(1)).unwrap();
    let n_acknowledged = disk.content(&name(1)).len();
    for n in 4..=6 {
        journal.append(0, &body(n), at(2)).unwrap();
    }
    journal.flush(at(2)).unwrap();
    let whole = disk.content(&name(1));
    for end in n_acknowledged..whole.len() {
        for garbage in [&[][..], &[0; 70], b"OJR1OJR1OJR1OJR1"] {
            let torn = SimDisk::with(&name(1), &[&whole[..end], garbage].concat());
            check(&torn, 3);
        }
    }
}

#[test]
fn a_torn_tail_is_reported_with_its_place_and_length() {
    let disk = SimDisk::new();
    let (mut journal, _) = opened(&disk, small());
    journal.append_now(0, &body(1), at(1)).unwrap();
    let whole = disk.content(&name(1));
    let torn = SimDisk::with(&name(1), &[&whole[..], &[1, 2, 3]].concat());
    assert_eq!(verify(&torn).unwrap().n_unfinished_bytes, 3);
    let (_, report) = opened(&torn, small());
    let expected = TornTail {
        segment: name(1),
        offset: whole.len() as u64,
        bytes: 3,
    };
    assert_eq!(report.torn, Some(expected));
    assert_eq!(torn.content(&name(1)), whole);
}

#[test]
fn any_failing_operation_is_survived_and_every_record_is_there_once() {
    let n_operations = {
        let disk = SimDisk::new();
        let (mut journal, _) = opened(&disk, small());
        write_some(&mut journal, 1, 40, &disk);
        disk.n_operations()
    };
    for failing in 3..n_operations {
        for n_failures in [1, 2, 5] {
            let disk = SimDisk::new();
            let (mut journal, _) = opened(&disk, small());
            disk.fail_from(failing, n_failures, io::ErrorKind::Other);
            write_some(&mut journal, 1, 40, &disk);
            journal.flush(at(60_000)).unwrap_or_default();
            for second in 61..120 {
                let _ = journal.tick(at(second * 1000));
            }
            assert_eq!(journal.durable(), 40, "{failing} {n_failures}");
            assert!(!journal.is_stuck());
            check(&disk.after_power_cut(failing as u64), 40);
        }
    }
}

#[test]
fn a_full_disk_keeps_records_in_memory_up_to_a_limit_and_resumes() {
    let disk = SimDisk::new();
    let settings = JournalSettings {
        memory_bytes: 2000,
        ..small()
    };
    let (mut journal, _) = opened(&disk, settings);
    write_some(&mut journal, 1, 10, &disk);
    let n_before = journal.durable();
    disk.set_room(Some(0));
    let refused = (11..1000).find_map(|n| {
        let moment = at(u64::from(n) * 10);
        let result = journal.append(0, &body(n), moment);
        let _ = journal.tick(moment);
        result.err()
    });
    let refused = refused.expect("memory is bounded");
    assert!(
        matches!(refused, JournalError::Full { limit: 2000, .. }),
        "{refused}"
    );
    assert_eq!(journal.n_lost(), 1);
    assert!(journal.is_stuck());
    assert_eq!(journal.durable(), journal.durable().max(n_before));
    let fault = journal.flush(at(20_000)).unwrap_err();
    assert!(fault.to_string().contains("free space"), "{fault}");

    let accepted = journal.durable() + journal.n_waiting() as u64;
    disk.set_room(None);
    journal.tick(at(30_000)).unwrap();
    assert!(!journal.is_stuck());
    assert_eq!(journal.durable(), accepted);
    check(&disk, accepted);
}

#[test]
fn a_changed_byte_is_reported_where_it_is_and_the_rest_is_read() {
    let disk = SimDisk::new();
    let (mut journal, _) = opened(
        &disk,
        JournalSettings {
            sync: Sync::EveryRecord,
            ..small()
        },
    );
    write_some(&mut journal, 1, 30, &disk);
    let firsts: Vec<u64> = disk
        .list()
        .unwrap()
        .iter()
        .filter_map(|n| segment::first_of(n))
        .collect();
    let newest = *firsts.iter().max().unwrap();
    for first in firsts {
        let whole = disk.content(&name(first));
        // The last record of all has no witness: what is wrong with it looks like a torn tail.
        let ends: Vec<usize> = segment::Stretches::new(&whole)
            .filter_map(|stretch| match stretch {
                segment::Stretch::Record(begin, _) => Some(begin),
                segment::Stretch::Broken(..) => None,
            })
            .collect();
        let end = if first == newest {
            *ends.last().unwrap()
        } else {
            whole.len()
        };
        for byte in 0..end {
            let mut changed = whole.clone();
            changed[byte] ^= 0x10;
            let disk = disk.replaced(&name(first), &changed);
            let (mut journal, _) = opened(&disk, small());
            journal.append_now(0, &body(31), at(1)).unwrap();
            let summary = verify(&disk).unwrap();
            let begin = ends
                .iter()
                .rfind(|begin| **begin <= byte)
                .copied()
                .unwrap_or(0);
            assert_eq!(
                summary.n_damages, 1,
                "{first} {byte}: {:?}",
                summary.damages
            );
            let damage = &summary.damages[0];
            assert_eq!(
                (damage.segment.as_str(), damage.offset),
                (&*name(first), begin as u64)
            );
            let n_missing = u64::from(begin > 0);
            assert_eq!(summary.n_records, 31 - n_missing, "{first} {byte}");
            assert_eq!(bodies(&disk).len() as u64, summary.n_records);
        }
    }
}

#[test]
fn a_record_replaced_by_another_with_right_checksums_breaks_the_chain() {
    let disk = SimDisk::new();
    let (mut journal, _) = opened(&disk, JournalSettings::default());
    for n in 1..=5 {
        journal.append(0, &body(n), at(1)).unwrap();
    }
    journal.flush(at(1)).unwrap();
    let whole = disk.content(&name(1));
    let mut forged = whole[..HEADER_BYTES].to_vec();
    for stretch in segment::Stretches::new(&whole) {
        let segment::Stretch::Record(_, sound) = stretch else {
            panic!("{stretch:?}")
        };
        let mut payload = sound.payload.to_vec();
        if sound.sequence == 3 {
            *payload.last_mut().unwrap() ^= 1;
        }
        record::write(&mut forged, &payload, sound.known_bytes, &sound.hash);
    }
    let forged = disk.replaced(&name(1), &forged);
    // A later segment makes this one no longer the last.
    let mut later = segment::Header {
        first: 6,
        before: journal.head(),
        created_ms: 0,
    }
    .bytes()
    .to_vec();
    let payload = postcard::to_stdvec(&Record {
        sequence: 6,
        at: at(2),
        boot: 7,
        kind: 0,
        body: body(6),
    })
    .unwrap();
    record::write(
        &mut later,
        &payload,
        64,
        &record::chained(&journal.head(), &payload),
    );
    let forged = forged.replaced(&name(6), &later);
    let summary = verify(&forged).unwrap();
    let flaws: Vec<&Flaw> = summary.damages.iter().map(|damage| &damage.flaw).collect();
    assert_eq!(flaws, [&Flaw::Chain], "{:?}", summary.damages);
    assert_eq!(summary.damages[0].good_again, Some(3));
}

#[test]
fn a_number_too_high_to_count_on_from_is_damage() {
    let mut file = vec![0; HEADER_BYTES];
    for sequence in [record::MAX_SEQUENCE + 1, u64::MAX] {
        let payload = postcard::to_stdvec(&sequence).unwrap();
        record::write(&mut file, &payload, 0, &[0; 32]);
    }
    let disk = SimDisk::with(&name(1), &file).replaced("18446744073709551615.journal", &file);
    let (mut journal, report) = opened(&disk, small());
    assert_eq!(report.last, 0);
    assert_eq!(journal.append_now(0, &body(1), at(1)).unwrap(), 1);
}

#[test]
fn a_missing_segment_is_reported() {
    let disk = SimDisk::new();
    let (mut journal, _) = opened(&disk, small());
    write_some(&mut journal, 1, 40, &disk);
    let mut firsts: Vec<u64> = disk
        .list()
        .unwrap()
        .iter()
        .filter_map(|n| segment::first_of(n))
        .collect();
    firsts.sort_unstable();
    let holed = disk.without(&name(firsts[2]));
    let summary = verify(&holed).unwrap();
    assert_eq!(
        summary.damages,
        [Damage {
            segment: name(firsts[3]),
            offset: 0,
            flaw: Flaw::Missing {
                expected: firsts[2],
                found: firsts[3]
            },
            good_again: Some(firsts[3]),
        }]
    );
}

#[test]
fn segments_are_rotated_by_age_and_removed_by_count_days_and_bytes() {
    let day = Duration::from_secs(86_400);
    let base = JournalSettings {
        sync: Sync::EveryRecord,
        segment_age: Duration::from_secs(3600),
        ..JournalSettings::default()
    };
    let oldest = |settings: JournalSettings| {
        let disk = SimDisk::new();
        let (mut journal, _) = opened(&disk, settings);
        // Two records an hour for ten days.
        for n in 1..=480 {
            journal
                .append(0, &body(n), at(u64::from(n) * 1_800_000))
                .unwrap();
        }
        let summary = verify(&disk).unwrap();
        assert_eq!(summary.damages, []);
        (summary.range.unwrap().0, disk.list().unwrap().len())
    };
    assert_eq!(oldest(base), (1, 240));
    let by_days = oldest(JournalSettings {
        keep_days: 2,
        ..base
    });
    assert!((380..=384).contains(&by_days.0), "{by_days:?}");
    let by_count = oldest(JournalSettings {
        keep_records: 10,
        ..base
    });
    assert!((469..=471).contains(&by_count.0), "{by_count:?}");
    let by_bytes = oldest(JournalSettings {
        keep_bytes: 3000,
        ..base
    });
    assert!(by_bytes.0 > 440 && by_bytes.1 > 2, "{by_bytes:?}");
    let one_segment = oldest(JournalSettings {
        segment_age: day * 100,
        keep_bytes: 1,
        ..base
    });
    assert_eq!(one_segment, (1, 1));
}

#[test]
fn an_export_is_a_line_of_json_for_every_record_and_every_damage() {
    let disk = SimDisk::new();
    let (mut journal, _) = opened(
        &disk,
        JournalSettings {
            sync: Sync::EveryRecord,
            ..small()
        },
    );
    for n in 1..=4 {
        journal.append(2, &body(n), at(n.into())).unwrap();
    }
    let mut changed = disk.content(&name(1));
    changed[HEADER_BYTES + 20] ^= 1;
    let disk = disk.replaced(&name(1), &changed);
    let mut out = Vec::new();
    assert_eq!(export::<Body>(&disk, &mut out).unwrap(), (3, 1));
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines[0]["offset"], 64);
    assert_eq!(lines[0]["good_again"], 2);
    assert_eq!(lines[1]["sequence"], 2);
    assert_eq!(lines[1]["body"]["Saw"]["n"], 2);
    assert_eq!(lines[1]["at"]["wall_ms"], 1_700_000_000_002_u64);
}

#[test]
fn a_record_that_is_too_long_is_refused_with_the_limit() {
    let disk = SimDisk::new();
    let (mut journal, _) = opened(&disk, JournalSettings::default());
    let long = "x".repeat(record::MAX_PAYLOAD_BYTES);
    let refused = journal.append(0, &long, at(1)).unwrap_err();
    assert!(matches!(refused, JournalError::TooLong { bytes } if bytes > long.len()));
    assert_eq!(journal.append_now(0, &"short", at(1)).unwrap(), 1);
}

#[test]
fn a_real_folder_holds_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let disk = || Disk::open(folder.path()).unwrap();
    let (mut journal, _) = Journal::open(disk(), small(), 7).unwrap();
    for n in 1..=60 {
        journal.append_now(0, &body(n), at(n.into())).unwrap();
    }
    drop(journal);
    let (journal, report) = Journal::open(disk(), small(), 8).unwrap();
    assert_eq!(
        report,
        Opened {
            last: 60,
            ..Opened::default()
        }
    );
    let summary = verify(&disk()).unwrap();
    assert_eq!((summary.n_records, summary.n_damages), (60, 0));
    assert_eq!(summary.head, journal.head());
}

#[test]
fn snapshots_are_whole_or_not_there_and_kept_within_limits() {
    let limits = SnapshotLimits {
        count: 3,
        days: 2,
        bytes: 100,
    };
    let disk = SimDisk::new();
    let mut snapshots = Snapshots::open(disk.clone(), limits).unwrap();
    let hour = 3_600_000;
    for event in 0..5 {
        snapshots
            .put(event, &[event as u8; 20], at(event * hour))
            .unwrap();
    }
    let events = |snapshots: &Snapshots<SimDisk>| -> Vec<String> {
        snapshots
            .names()
            .map(|n| n.split('-').nth(1).unwrap().to_owned())
            .collect()
    };
    assert_eq!(events(&snapshots), ["2", "3", "4"]);
    snapshots.put(5, &[5; 70], at(5 * hour)).unwrap();
    assert_eq!(events(&snapshots), ["4", "5"]);
    let too_large = snapshots.put(6, &[6; 101], at(5 * hour)).unwrap_err();
    assert!(matches!(
        too_large,
        SnapshotError::TooLarge {
            bytes: 101,
            limit: 100
        }
    ));
    snapshots.put(7, &[7; 5], at(60 * hour)).unwrap();
    assert_eq!(events(&snapshots), ["7"]);
    let reopened = Snapshots::open(disk.clone(), limits).unwrap();
    assert_eq!(events(&reopened), ["7"]);
    let name = reopened.names().next().unwrap().to_owned();
    assert_eq!(disk.content(&name), [7; 5]);

    for cut in 0..8 {
        let disk = SimDisk::new();
        disk.die_at(cut);
        let kept =
            Snapshots::open(disk.clone(), limits).and_then(|mut s| s.put(1, &[9; 60], at(1)));
        for seed in 0..10 {
            let disk = disk.after_power_cut(seed);
            let reopened = Snapshots::open(disk.clone(), limits).unwrap();
            let names: Vec<&str> = reopened.names().collect();
            assert!(
                names.iter().all(|name| disk.content(name) == [9; 60]),
                "{cut} {seed}"
            );
            assert!(kept.is_err() || names.len() == 1, "{cut} {seed}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_reported_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..400), with_header: bool,
    ) {
        let mut file = match with_header {
            true => segment::Header { first: 1, before: [0; 32], created_ms: 0 }.bytes().to_vec(),
            false => Vec::new(),
        };
        file.extend(&bytes);
        let disk = SimDisk::with(&name(1), &file);
        verify(&disk).unwrap();
        let (mut journal, _) = opened(&disk, small());
        journal.append_now(0, &body(1), at(1)).unwrap();
        prop_assert_eq!(verify(&disk).unwrap().n_damages, 0);
    }

    #[test]
    fn power_cuts_one_after_another_take_no_acknowledged_record(
        cuts in prop::collection::vec((0_usize..60, any::<u64>(), 1_u32..30), 1..6),
    ) {
        let mut disk = SimDisk::new();
        let mut acknowledged = 0;
        for (cut, seed, n_records) in cuts {
            disk.die_at(cut);
            if let Ok((mut journal, report)) = Journal::open(disk.clone(), small(), 7) {
                prop_assert!(report.last >= acknowledged);
                acknowledged = write_some(&mut journal, report.last as u32 + 1, n_records, &disk);
            }
            disk = disk.after_power_cut(seed);
        }
        check(&disk, acknowledged);
    }
}

#[test]
#[ignore = "a measurement; prints bytes and records a second"]
fn bytes_and_records_a_second() {
    let folder =
        tempfile::tempdir_in(std::env::var("OCELLI_JOURNAL_DISK").unwrap_or_else(|_| ".".into()))
            .unwrap();
    for (label, sync, n_records) in [
        (
            "within 1 s",
            Sync::Within(Duration::from_secs(1)),
            100_000_u32,
        ),
        ("every record", Sync::EveryRecord, 500),
    ] {
        let disk = Disk::open(&folder.path().join(label)).unwrap();
        let settings = JournalSettings {
            sync,
            ..JournalSettings::default()
        };
        let (mut journal, _) = Journal::open(disk, settings, u128::MAX).unwrap();
        let begin = std::time::Instant::now();
        for n in 0..n_records {
            let ms = begin.elapsed().as_millis() as u64;
            journal.append(0, &body(n), at(ms)).unwrap();
            journal.tick(at(ms)).unwrap();
        }
        journal.flush(at(0)).unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        let disk = Disk::open(&folder.path().join(label)).unwrap();
        let n_bytes: u64 = disk
            .list()
            .unwrap()
            .iter()
            .map(|n| disk.size(n).unwrap())
            .sum();
        let begin = std::time::Instant::now();
        assert_eq!(verify(&disk).unwrap().n_damages, 0);
        let verified = begin.elapsed().as_secs_f64();
        println!(
            "{label}: {:.0} records/s, {:.1} bytes/record ({OVERHEAD_BYTES} overhead), verify {:.0} records/s",
            f64::from(n_records) / seconds,
            n_bytes as f64 / f64::from(n_records),
            f64::from(n_records) / verified,
        );
    }
}
