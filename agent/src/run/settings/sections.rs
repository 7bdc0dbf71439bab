//! [`Sections`]: what a reload cannot change.

/// Tables and keys of a file that take effect at start only.
const AT_START: [&str; 8] = [
    "device",
    "state",
    "model",
    "http",
    "watchdog",
    "journal",
    "snapshots",
    "clock",
];

/// The parts of a file that cannot change while they are in use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sections {
    at_start: Vec<(&'static str, Option<toml::Value>)>,
    has_broker: bool,
}

impl Sections {
    /// Those of a text that was read before.
    pub fn of(text: &str) -> Sections {
        let table: toml::Table = toml::from_str(text).unwrap_or_default();
        Sections {
            at_start: AT_START
                .map(|name| (name, table.get(name).cloned()))
                .to_vec(),
            has_broker: table.contains_key("mqtt"),
        }
    }

    /// Names of those that are others in `new`.
    pub fn changed(&self, new: &Sections) -> Vec<String> {
        let pairs = self.at_start.iter().zip(&new.at_start);
        let changed = pairs.filter(|(old, new)| old != new);
        let broker = (self.has_broker != new.has_broker).then_some("mqtt");
        changed
            .map(|((name, _), _)| *name)
            .chain(broker)
            .map(|name| format!("`{name}`"))
            .collect()
    }
}
