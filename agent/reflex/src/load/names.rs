//! Finding things by name, and tables whose keys are names.

use super::section::{Item, NAME_RULE, Section, as_name};
use super::unknown;
use crate::channel::{Packet, Topic};
use crate::diagnostic::{Problem, Span};
use crate::hook::Hook;
use crate::pin::Pin;
use crate::text::Name;

/// Something with a name.
pub(super) trait Named {
    /// Kind of thing, for messages.
    const KIND: &'static str;
    fn name(&self) -> &str;
}

macro_rules! named {
    ($($kind:literal $type:ty: $field:ident;)*) => {$(
        impl Named for $type {
            const KIND: &'static str = $kind;
            fn name(&self) -> &str {
                &self.$field
            }
        }
    )*};
}

named! {
    "pin" Pin: name;
    "topic" Topic: name;
    "packet" Packet: name;
    "hook" Hook: name;
}

/// Finds what an item names; a name nobody defined is a mistake.
pub(super) fn find<T: Named>(item: &Item<'_>, known: &[T]) -> Option<u16> {
    let text = item.str()?;
    let found = known.iter().position(|thing| thing.name() == text);
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(Named::name).collect();
        unknown(item.report, item, T::KIND, &names);
    }
    u16::try_from(found?).ok()
}

/// The tables of a section such as `[pins.lamp]`: name, place of the name, table.
pub(super) fn tables<'t>(
    file: &Section<'t>,
    section: &'static str,
    limit: usize,
    keys: &[&str],
) -> Vec<(Name, Span, Section<'t>)> {
    let Some(item) = file.get(section) else {
        return Vec::new();
    };
    let Some(all) = item.open(format!("[{section}]")) else {
        return Vec::new();
    };
    let entries = all.entries();
    if entries.len() > limit {
        let problem = Problem::TooMany {
            section: format!("[{section}]"),
            kind: "tables",
            found: entries.len(),
            limit,
        };
        file.report
            .error(item.span, problem, format!("keep at most {limit}"));
    }
    let mut tables = Vec::new();
    for (key, span, item) in entries.into_iter().take(limit) {
        let name = as_name(&key);
        if name.is_none() {
            let problem = Problem::BadValue {
                key: section.to_owned(),
                found: format!("`{key}`"),
                wanted: NAME_RULE.to_owned(),
            };
            file.report.error(span, problem, "choose another name");
        }
        let table = item.section(format!("[{section}.{key}]"), keys);
        if let (Some(name), Some(mut table)) = (name, table) {
            table.span = span;
            tables.push((name, span, table));
        }
    }
    // The parser sorts by key; the file's own order decides positions.
    tables.sort_by_key(|(_, span, _)| *span);
    tables
}
