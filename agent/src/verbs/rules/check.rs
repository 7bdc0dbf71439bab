//! `ocelli rules check`: every mistake of rule files.

use crate::cli::{CheckArgs, Global};
use crate::fault::Fault;
use crate::inventory;
use ocelli_reflex::diagnostic::{Diagnostic, Rejected, Severity};
use ocelli_reflex::{Inventory, load};
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

pub(super) fn run(global: &Global, args: &CheckArgs) -> Result<(), Fault> {
    let inventory = super::inventory(&args.inventory)?;
    let mut failed = 0;
    for path in &args.files {
        failed += usize::from(!check(global, path, &inventory)?);
    }
    match failed {
        0 => Ok(()),
        failed => Err(Fault::RuleFiles {
            failed,
            total: args.files.len(),
        }),
    }
}

/// Prints the mistakes of a file; false if it cannot be used.
fn check(global: &Global, path: &Path, inventory: &Inventory) -> Result<bool, Fault> {
    let text = inventory::read(path)?;
    match load(&text, inventory) {
        Ok(loaded) => {
            print(global, path, &loaded.warnings)?;
            if loaded.warnings.is_empty() && !global.json && !global.quiet {
                let n_rules = loaded.policy.rules.len();
                let n_lines = loaded.policy.permissions.len();
                let path = path.display();
                writeln!(
                    io::stdout(),
                    "{path}: good; rules: {n_rules}, permission lines: {n_lines}"
                )?;
            }
            Ok(true)
        }
        Err(Rejected { diagnostics, more }) => {
            print(global, path, &diagnostics)?;
            if more > 0 && !global.json {
                writeln!(io::stdout(), "{}: and {more} more", path.display())?;
            }
            Ok(false)
        }
    }
}

/// Prints mistakes as a compiler does, or one JSON object each.
///
/// # Errors
///
/// Standard output fails.
pub(super) fn print(global: &Global, path: &Path, diagnostics: &[Diagnostic]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for diagnostic in diagnostics {
        if global.json {
            let fields = json!({
                "file": path.display().to_string(),
                "line": diagnostic.line,
                "column": diagnostic.column,
                "severity": match diagnostic.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                "message": diagnostic.problem.to_string(),
                "help": diagnostic.help,
                "excerpt": diagnostic.excerpt,
                "span": [diagnostic.span.start, diagnostic.span.end],
            });
            writeln!(out, "{fields}")?;
        } else {
            writeln!(out, "{}:{diagnostic}", path.display())?;
        }
    }
    Ok(())
}
