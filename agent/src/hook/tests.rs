use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use std::io::Read;

const LONG: Duration = Duration::from_secs(600);

fn job(id: u64, script: &str) -> HookJob {
    HookJob {
        id: CallId(id).into(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        input: serde_json::json!({ "action": "set", "pin": "lamp" }),
        timeout: LONG,
        wants_verdict: true,
    }
}

fn next(hooks: &Hooks) -> HookReport {
    loop {
        if let Some(report) = hooks.try_next() {
            return report;
        }
        let mut fds = [PollFd::new(hooks.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).unwrap();
    }
}

fn run(job: HookJob) -> HookReport {
    let hooks = Hooks::start().unwrap();
    hooks.call(job).unwrap();
    next(&hooks)
}

#[test]
fn a_hook_passes_vetoes_or_fails() {
    use HookVerdict::{Failed, Pass, Veto};
    for (script, verdict, remark) in [
        (r#"echo '{"verdict":"pass"}'"#, Pass, ""),
        (
            r#"echo '{"verdict":"veto","reason":"night"}'"#,
            Veto,
            "night",
        ),
        (
            r#"echo '{"verdict":"pass"}'; echo oh >&2; echo more >&2; exit 3"#,
            Failed,
            "it ended with exit code 3: oh",
        ),
        ("echo yes", Failed, "its output does not begin with {"),
        ("exit 0", Failed, "it printed nothing"),
        (
            r#"echo '{"verdict":"pass"}'; kill -SEGV $$"#,
            Failed,
            "it was ended by signal 11",
        ),
        ("yes", Failed, "its output is longer than 65536 bytes"),
    ] {
        let report = run(job(1, script));
        assert_eq!(report.verdict, verdict, "{script}: {report:?}");
        assert!(report.remark.starts_with(remark), "{script}: {report:?}");
    }
}

#[test]
fn a_program_that_is_not_there_fails() {
    for command in [
        vec![],
        vec!["/no/such/program".to_owned()],
        vec!["a\0b".to_owned()],
    ] {
        let report = run(HookJob {
            command,
            ..job(1, "")
        });
        assert_eq!(
            (report.verdict, report.outcome),
            (HookVerdict::Failed, Outcome::Failed)
        );
        assert!(report.remark.contains("cannot be started"), "{report:?}");
    }
}

#[test]
fn the_input_is_json_on_standard_input_and_need_not_be_read() {
    let echo =
        r#"read line; [ "$line" = '{"action":"set","pin":"lamp"}' ] && echo '{"verdict":"pass"}'"#;
    assert_eq!(run(job(1, echo)).verdict, HookVerdict::Pass);
    let long = HookJob {
        input: serde_json::json!({ "text": "x".repeat(60_000) }),
        ..job(2, r#"exec <&-; echo '{"verdict":"pass"}'"#)
    };
    assert_eq!(run(long).verdict, HookVerdict::Pass);
    let whole = HookJob {
        input: serde_json::json!({ "text": "x".repeat(60_000) }),
        ..job(3, r#"[ $(wc -c) = 60012 ] && echo '{"verdict":"pass"}'"#)
    };
    assert_eq!(run(whole).verdict, HookVerdict::Pass);
}

#[test]
fn an_input_that_is_too_long_is_refused() {
    let hooks = Hooks::start().unwrap();
    let refused = hooks.call(HookJob {
        input: serde_json::json!("x".repeat(MAX_INPUT_BYTES)),
        ..job(1, "")
    });
    assert!(matches!(refused, Err(HookError::Input { .. })));
}

#[test]
fn an_action_is_done_by_its_exit_code_alone() {
    for (script, outcome) in [
        ("echo anything", Outcome::Done),
        ("yes | head -c 200000", Outcome::Done),
        ("exit 1", Outcome::Failed),
    ] {
        let report = run(HookJob {
            id: ActId(7).into(),
            wants_verdict: false,
            ..job(1, script)
        });
        assert_eq!(report.id, HookId::Act(ActId(7)));
        assert_eq!(report.outcome, outcome, "{script}: {report:?}");
    }
}

#[test]
fn a_program_without_end_times_out() {
    let report = run(HookJob {
        timeout: Duration::from_millis(20),
        ..job(1, r#"echo '{"verdict":"pass"}'; sleep 1000"#)
    });
    assert_eq!(
        (report.verdict, report.outcome),
        (HookVerdict::Failed, Outcome::TimedOut)
    );
}

#[test]
fn time_runs_while_a_job_waits_for_a_place() {
    let hooks = Hooks::start().unwrap();
    for id in 0..MAX_RUNNING as u64 {
        hooks.call(job(id, "sleep 1000")).unwrap();
    }
    let late = HookJob {
        timeout: Duration::from_millis(1),
        ..job(99, r#"echo '{"verdict":"pass"}'"#)
    };
    hooks.call(late).unwrap();
    let report = next(&hooks);
    assert_eq!(report.id, CallId(99).into());
    assert_eq!(report.outcome, Outcome::TimedOut);
}

#[test]
fn a_full_queue_refuses() {
    let hooks = Hooks::start().unwrap();
    let mut taken = 0;
    let refused = loop {
        match hooks.call(job(taken, "sleep 1000")) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(
            refused,
            HookError::Full {
                waiting: MAX_WAITING,
                ..
            }
        ),
        "{refused}"
    );
    assert!((MAX_WAITING..=MAX_WAITING + MAX_RUNNING).contains(&(taken as usize)));
}

#[test]
fn cancelling_kills_the_whole_group_and_reports_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("held");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let hooks = Hooks::start().unwrap();
    let script = format!("exec 3>{}; sleep 1000 & sleep 1000", fifo.display());
    hooks.call(job(1, &script)).unwrap();
    // Opens once the program holds the other end, and ends when the last holder is dead.
    let mut held = std::fs::File::open(&fifo).unwrap();
    hooks.cancel(CallId(1));
    assert_eq!(held.read(&mut [0]).unwrap(), 0);
    hooks.call(job(2, r#"echo '{"verdict":"pass"}'"#)).unwrap();
    assert_eq!(next(&hooks).id, CallId(2).into());
}

#[test]
fn what_a_program_leaves_behind_is_killed_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("held");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let hooks = Hooks::start().unwrap();
    let script = format!(
        r#"exec 3>{}; sleep 1000 & echo '{{"verdict":"pass"}}'"#,
        fifo.display()
    );
    hooks.call(job(1, &script)).unwrap();
    let mut held = std::fs::File::open(&fifo).unwrap();
    assert_eq!(next(&hooks).verdict, HookVerdict::Pass);
    assert_eq!(held.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_program_gets_three_variables_the_root_folder_and_no_descriptor_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let ours = std::fs::File::create(folder.path().join("ours")).unwrap();
    let script = r#"
        [ "$PWD" = / ] || { echo "in $PWD" >&2; exit 1; }
        names=$(env | sed 's/=.*//' | grep -vxE 'PATH|LANG|TZ|PWD|OLDPWD|SHLVL|_')
        [ -z "$names" ] || { echo "has $names" >&2; exit 1; }
        ls -l /proc/$$/fd | grep -q FOLDER && { echo "has our file" >&2; exit 1; }
        echo '{"verdict":"pass"}'"#;
    let name = folder.path().to_string_lossy();
    let report = run(job(1, &script.replace("FOLDER", &name)));
    assert_eq!(report.verdict, HookVerdict::Pass, "{report:?}");
    drop(ours);
}

#[test]
fn no_program_stays_as_a_zombie() {
    let hooks = Hooks::start().unwrap();
    for id in 0..20 {
        hooks
            .call(job(
                id,
                r#"echo "{\"verdict\":\"pass\",\"reason\":\"$$\"}""#,
            ))
            .unwrap();
        let pid = next(&hooks).remark;
        // Reaped before it was reported.
        let there = std::path::Path::new("/proc").join(&pid).exists();
        assert!(!pid.is_empty() && !there, "process {pid}");
    }
}

#[test]
fn a_job_cancelled_while_it_waits_never_runs() {
    let hooks = Hooks::start().unwrap();
    for id in 0..MAX_RUNNING as u64 {
        hooks.call(job(id, "sleep 1000")).unwrap();
    }
    hooks.call(job(98, r#"echo '{"verdict":"pass"}'"#)).unwrap();
    hooks.call(job(99, r#"echo '{"verdict":"pass"}'"#)).unwrap();
    hooks.cancel(CallId(98));
    // One place for both: had it stayed, it would be the first.
    hooks.cancel(CallId(0));
    assert_eq!(next(&hooks).id, CallId(99).into());
}
