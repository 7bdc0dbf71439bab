//! Commands, files and snapshots.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) const TESTS: &[Test] = tests![&[];
    a_command_gives_its_output_and_status,
    a_command_that_takes_too_long_is_an_error,
    background_commands_are_followed_line_by_line,
    files_go_in_and_come_out_unchanged,
    a_restored_guest_has_new_disks_and_the_time_of_now,
];

fn a_command_gives_its_output_and_status(bench: &Bench) {
    let guest = bench.guest();
    for (command, status, stdout) in [
        ("true", 0, ""),
        ("printf 'two\nlines'; false", 1, "two\nlines"),
        ("echo \"it's \\$HOME\" '\"'; exit 7", 7, "it's $HOME \"\n"),
        ("echo hidden >&2; sh -c 'kill -9 $$'", 137, ""),
        ("if", 2, ""),
        ("cat", 0, ""),
    ] {
        let output = guest.run(command, LIMIT).unwrap();
        assert_eq!(
            (output.status, output.stdout.as_str()),
            (status, stdout),
            "{command}"
        );
    }
    assert!(
        guest.console_tail().contains("hidden"),
        "errors go to the console"
    );
}

fn a_command_that_takes_too_long_is_an_error(bench: &Bench) {
    let guest = bench.guest();
    let error = guest
        .run("echo begun; sleep 1000", Duration::from_millis(200))
        .unwrap_err();
    assert!(error.to_string().contains("sleep 1000"), "{error}");
}

fn background_commands_are_followed_line_by_line(bench: &Bench) {
    let guest = bench.guest();
    let echo = guest
        .spawn("while read -r line; do echo \"got $line\"; done")
        .unwrap();
    let count = guest.spawn("echo one; echo two; exit 3").unwrap();
    echo.send(b"first\n").unwrap();
    assert_eq!(echo.line(LIMIT).unwrap().as_deref(), Some("got first"));
    assert_eq!(
        count.lines_until(LIMIT, |line| line == "two").unwrap(),
        ["one", "two"]
    );
    assert_eq!(count.wait(LIMIT).unwrap(), 3);
    echo.signal("TERM").unwrap();
    assert_eq!(echo.wait(LIMIT).unwrap(), 143);
    drop(echo);
    for _ in 0..6 {
        // A dropped command gives its console back, and nothing of it is left running.
        drop(guest.spawn("sleep 1000").unwrap());
    }
    assert_eq!(guest.run("pidof sleep", LIMIT).unwrap().stdout, "");
}

fn files_go_in_and_come_out_unchanged(bench: &Bench) {
    let guest = bench.guest();
    let bytes: Vec<u8> = (0..100_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect();
    guest.put("/tmp/it's a file", &bytes).unwrap();
    assert!(guest.fetch("/tmp/it's a file").unwrap() == bytes);
    assert!(guest.fetch("/tmp/absent").is_err());
}

fn a_restored_guest_has_new_disks_and_the_time_of_now(bench: &Bench) {
    let first = bench.guest();
    first.sh("echo dirt >/tmp/dirt").unwrap();
    drop(first);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("news"), "of today").unwrap();
    let mut options = bench.options();
    options.hand_in = Some(std::sync::Arc::new(
        ocelli_board::Disk::of_folder(folder.path()).unwrap(),
    ));
    let guest = bench.guest_with(&options);
    assert_eq!(guest.sh("cat /board/in/news").unwrap(), "of today");
    assert_eq!(guest.run("cat /tmp/dirt", LIMIT).unwrap().status, 1);
    let theirs: u64 = guest.sh("date +%s").unwrap().trim().parse().unwrap();
    let ours = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(ours.abs_diff(theirs) < 60, "guest {theirs}, host {ours}");
}
