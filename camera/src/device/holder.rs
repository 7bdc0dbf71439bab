//! Which program has a device open.

use std::fs;
use std::path::Path;

/// Name and process number of the first other program that has `node` open, as far as this user may know.
pub(super) fn of(node: &Path) -> Option<String> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut holders = processes.filter(|process| *process != own && holds(*process, node));
    let process = holders.next()?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    Some(format!("{} (process {process})", name.trim()))
}

fn holds(process: u32, node: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target == node)
}
