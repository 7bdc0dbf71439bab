//! How many threads a model works with: as asked for, as measured at an earlier start, or as a short
//! measurement says; and fewer while the board is hot.
//!
//! | file | defines |
//! |---|---|
//! | [`remembered`] | measurements on disk |
//! | [`heat`] | the limit by the board's temperature |

pub mod heat;
pub mod remembered;

use crate::cli::Global;
use crate::fault::Fault;
use crate::remark::remark;
use crate::user_cache::cache_folder;
use ocelli_boards::{Board, Cores, Tree, n_runnable};
use ocelli_runtime::Vlm;
use ocelli_runtime::threads::{PhaseThreads, ThreadOrigin, ThreadPlan};
use remembered::Circumstances;
use serde_json::{Value, json};
use std::env;
use std::path::PathBuf;

/// What an agent's settings say about threads.
#[derive(Clone, Debug, Default)]
pub struct ThreadSettings {
    /// Folder of measurements; in the user's cache when not said.
    pub folder: Option<PathBuf>,
    /// The board; detected when not said.
    pub board: Option<Board>,
    /// From here on there are fewer threads, in °C; where the board counts as hot when not said.
    pub hot_c: Option<f64>,
}

/// Threads of the pool: as many as asked for, or as are [`available`].
pub fn most(global: &Global) -> usize {
    match global.threads {
        Some(threads) => threads.get(),
        None => available(),
    }
}

/// Threads that the affinity mask and the quota of the control group leave; 1 where nobody knows.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Gives each phase of a model its number of threads, unless a number was asked for.
///
/// # Errors
///
/// A model that cannot be measured; a measurement that cannot be kept is only a remark.
pub fn arrange(global: &Global, settings: &ThreadSettings, vlm: &mut Vlm) -> Result<(), Fault> {
    let most = vlm.n_threads();
    if global.threads.is_some() || most == 1 {
        return Ok(());
    }
    let Some(pack) = vlm.sha256() else {
        return Ok(());
    };
    let tree = Tree::default();
    let cores = Cores::read(&tree);
    let n_cores = cores.usable.len();
    let circumstances = Circumstances::new(pack, cores, vlm.kernel_name(), most);
    let folder = settings.folder.clone();
    let folder = folder.or_else(|| cache_folder("threads", env::var_os));
    let sees = vlm.config().vision.is_some();
    let recalled = folder
        .as_ref()
        .and_then(|folder| remembered::recall(folder, &circumstances, sees));
    let origin = match recalled {
        Some(trials) => ThreadOrigin::Remembered(trials),
        None => {
            let is_crowded = || is_crowded(&tree, n_cores);
            let before = is_crowded();
            let Some(trials) = vlm.try_threads(&circumstances.candidates)? else {
                return Ok(());
            };
            let crowded = before || is_crowded();
            if let Some(folder) = folder.filter(|_| !crowded)
                && let Err(error) = remembered::remember(&folder, &circumstances, &trials)
                && !global.quiet
            {
                remark!(
                    "ocelli: how many threads are best cannot be kept in {} ({error}) and is \
                     measured at every start; make it writable, or give --threads",
                    folder.display()
                );
            }
            match crowded {
                true => ThreadOrigin::Crowded(trials),
                false => ThreadOrigin::Measured(trials),
            }
        }
    };
    let threads = match &origin {
        ThreadOrigin::Measured(trials) | ThreadOrigin::Remembered(trials) => trials.choose(),
        ThreadOrigin::Crowded(_) | ThreadOrigin::Given => PhaseThreads::all(most),
    };
    vlm.set_thread_plan(ThreadPlan { threads, origin });
    Ok(())
}

/// Whether so much is to run now that a measurement says nothing about threads: a start of the board,
/// say, with everything else that starts.
fn is_crowded(tree: &Tree, n_cores: usize) -> bool {
    n_runnable(tree).is_some_and(|n| n > n_cores.max(1))
}

/// The numbers, their origin and the times they were chosen by, as JSON.
pub fn json(plan: &ThreadPlan) -> Value {
    let threads = plan.threads;
    json!({
        "encode": threads.encode,
        "prefill": threads.prefill,
        "decode": threads.decode,
        "origin": plan.origin.name(),
        "trials": plan.origin.trials(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_more_to_run_than_there_are_cores() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::new(folder.path());
        assert!(!is_crowded(&tree, 4), "not known");
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        for (n, n_cores, crowded) in [
            (1, 1, false),
            (2, 1, true),
            (4, 4, false),
            (5, 4, true),
            (1, 0, false),
        ] {
            let text = format!("0.5 0.4 0.3 {n}/180 99\n");
            std::fs::write(folder.path().join("proc/loadavg"), text).unwrap();
            assert_eq!(is_crowded(&tree, n_cores), crowded, "{n} on {n_cores}");
        }
    }
}
