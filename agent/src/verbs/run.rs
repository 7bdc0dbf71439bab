//! `ocelli run`: the agent, until it is told to end.

use crate::cli::{Global, RunArgs};
use crate::fault::{Fault, with_causes};
use crate::journal::Opened;
use crate::run::desk::Receipt;
use crate::run::open::{Overrides, Plan};
use crate::run::{Agent, Pause};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Runs the verb.
///
/// # Errors
///
/// What the owner has to mend before anything can run.
pub fn run(global: &Global, args: &RunArgs) -> Result<(), Fault> {
    let overrides = Overrides {
        dry_run: args.dry_run,
    };
    let plan = Plan::read(&args.config, overrides)?;
    if args.check {
        return Ok(());
    }
    if args.make_safe {
        // Opening takes every output at its safe state, and letting go leaves it there.
        return plan.open_pins().map(drop);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let reload = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second signal ends the program at once, should something be slow to come to a stop.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    signal_hook::flag::register(SIGHUP, reload.clone())?;
    let (parts, opened, remarks) = plan.open(global)?;
    let (state, lost_state) = parts.recorder.read_state();
    let mut agent = Agent::new(parts, state, recovered(&opened), global.verbose);
    for remark in remarks.iter().chain(&lost_state) {
        agent.remark("start", remark);
    }
    agent.ready();
    let begin = Instant::now();
    let is_over = || {
        let late = args.stop_after.is_some_and(|most| begin.elapsed() >= most);
        late || stop.load(Ordering::Relaxed)
    };
    loop {
        match agent.run(&is_over, &|| reload.swap(false, Ordering::Relaxed)) {
            Pause::Stop => break,
            Pause::Reload(receipt) => read_again(&mut agent, args, overrides, &receipt),
        }
    }
    agent.end();
    Ok(())
}

fn recovered(opened: &Opened) -> String {
    let torn = opened.torn.as_ref().map(|torn| {
        format!(
            "{} bytes behind the last whole record of {} were cut off",
            torn.bytes, torn.segment
        )
    });
    let damaged = opened
        .is_damaged
        .then(|| "the newest segment is damaged; `ocelli journal verify` says where".to_owned());
    let parts: Vec<String> = torn.into_iter().chain(damaged).collect();
    parts.join("; ")
}

/// Reads settings and rules again; what cannot be used leaves everything as it was.
fn read_again(agent: &mut Agent, args: &RunArgs, overrides: Overrides, receipt: &Receipt) {
    agent.reloading();
    let outcome = Plan::read(&args.config, overrides).and_then(|plan| agent.take(plan));
    let outcome = outcome.map_err(|fault| with_causes(&fault));
    agent.reloaded(receipt, outcome);
    agent.ready();
}
