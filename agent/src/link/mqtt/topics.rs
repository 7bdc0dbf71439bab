//! The table of topics: the one place that says what is published and heard where, and how.
//!
//! `docs/wire.md` carries [`markdown`]'s table; a test holds the two together.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

/// Version of topics and payloads: field `v` of every JSON object, user property `schema-version`
/// of MQTT 5. It grows when a consumer written for the older one could go wrong.
pub const WIRE_VERSION: u32 = 1;

/// Longest name of a rule, pin or feature, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest base topic or discovery prefix, in bytes.
pub const MAX_BASE_BYTES: usize = 128;

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `online` or `offline`: birth and last will.
    Availability,
    /// What this device is and which rules it runs.
    Info,
    /// Latencies, temperature, counts, energy.
    Stats,
    /// Actions that wait for approval.
    Pending,
    /// Events, from the queue on disk.
    Event,
    /// The last answer of a rule.
    Answer,
    /// The picture behind the last answer of a rule.
    Snapshot,
    /// Whether a rule is enabled.
    RuleState,
    /// What a pin was last set to.
    PinState,
    /// The value of a feature.
    FeatureState,
    /// Answers to commands that name no response topic.
    Reply,
    /// Home Assistant's description of this device.
    Discovery,
    /// Command: look now.
    Look,
    /// Command: ask a question about the next picture.
    Ask,
    /// Command: let a pending action happen.
    Approve,
    /// Command: do not let a pending action happen.
    Deny,
    /// Command: read settings and rules again.
    Reload,
    /// Command: enable or disable a rule.
    RuleSet,
    /// Command: ask the permission gate to set a pin.
    PinSet,
    /// Command: change a feature.
    FeatureSet,
    /// Home Assistant came up or goes down.
    DiscoveryStatus,
    /// What is retained at [`Kind::Discovery`], heard back.
    DiscoveryEcho,
}

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This device.
    Out,
    /// Others.
    In,
}

/// What a payload is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Plain text; says which.
    Text(&'static str),
    /// A JSON object after `docs/schemas/<name>.json`.
    Json(&'static str),
    /// A JSON object, or the plain text said first.
    TextOrJson(&'static str, &'static str),
    /// A JPEG file.
    Jpeg,
    /// Home Assistant's own format.
    HomeAssistant,
}

impl Content {
    /// Name of the JSON schema, if there is one.
    pub fn schema(self) -> Option<&'static str> {
        match self {
            Content::Json(schema) | Content::TextOrJson(_, schema) => Some(schema),
            Content::Text(_) | Content::Jpeg | Content::HomeAssistant => None,
        }
    }

    /// Content type said with MQTT 5.
    pub fn media_type(self) -> &'static str {
        match self {
            Content::Text(_) => "text/plain",
            Content::Json(_) | Content::TextOrJson(..) | Content::HomeAssistant => {
                "application/json"
            }
            Content::Jpeg => "image/jpeg",
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// What it is for.
    pub kind: Kind,
    /// The topic; `{base}`, `{discovery}`, `{device}` and `{name}` are filled in.
    pub pattern: &'static str,
    /// Who publishes.
    pub direction: Direction,
    /// Quality of service, 0 or 1: of publishing, or of the subscription.
    pub qos: u8,
    /// Whether the broker keeps the last payload. Retained commands are ignored.
    pub retained: bool,
    /// Message expiry in seconds (MQTT 5).
    pub expiry: Option<u32>,
    /// What a payload is made of.
    pub content: Content,
    /// Whether the same payload twice does no more than once.
    pub idempotent: bool,
    /// Longest payload in bytes.
    pub max_bytes: usize,
    /// What it carries, in a few words.
    pub about: &'static str,
}

const fn state(kind: Kind, pattern: &'static str, content: Content, max_bytes: usize) -> Topic {
    Topic {
        kind,
        pattern,
        direction: Direction::Out,
        qos: 1,
        retained: true,
        expiry: None,
        content,
        idempotent: true,
        max_bytes,
        about: "",
    }
}

const fn passing(kind: Kind, pattern: &'static str, content: Content, max_bytes: usize) -> Topic {
    Topic {
        retained: false,
        idempotent: false,
        ..state(kind, pattern, content, max_bytes)
    }
}

const fn heard(kind: Kind, pattern: &'static str, content: Content, max_bytes: usize) -> Topic {
    Topic {
        direction: Direction::In,
        ..passing(kind, pattern, content, max_bytes)
    }
}

impl Topic {
    const fn about(self, about: &'static str) -> Topic {
        Topic { about, ..self }
    }

    const fn expires(self, seconds: u32) -> Topic {
        Topic {
            expiry: Some(seconds),
            ..self
        }
    }

    const fn idempotent(self) -> Topic {
        Topic {
            idempotent: true,
            ..self
        }
    }
}

/// Longest payload of a command, in bytes.
pub const MAX_COMMAND_BYTES: usize = 4096;
/// Longest JSON object that is published, in bytes.
pub const MAX_JSON_BYTES: usize = 32 << 10;
/// Longest picture that is published, in bytes.
pub const MAX_SNAPSHOT_BYTES: usize = 1 << 20;
/// Longest description for Home Assistant, in bytes.
pub const MAX_DISCOVERY_BYTES: usize = 256 << 10;

/// Every topic.
pub const TABLE: [Topic; 22] = {
    use Content::{HomeAssistant, Jpeg, Json, Text, TextOrJson};
    const ON_OFF: &str = "`ON`, `OFF`";
    [
        state(
            Kind::Availability,
            "{base}/availability",
            Text("`online`, `offline`"),
            16,
        )
        .about("birth after every connect; last will"),
        state(Kind::Info, "{base}/info", Json("info"), MAX_JSON_BYTES)
            .about("program, board, model, names of rules"),
        state(Kind::Stats, "{base}/stats", Json("stats"), MAX_JSON_BYTES)
            .about("latency, temperature, counts, energy"),
        state(
            Kind::Pending,
            "{base}/pending",
            Json("pending"),
            MAX_JSON_BYTES,
        )
        .about("actions that wait for approval, with the nonce that approves them"),
        passing(Kind::Event, "{base}/events", Json("event"), MAX_JSON_BYTES)
            .expires(86_400)
            .about("`new`, `update`, `end` with one id; `queue` and `seq` mark duplicates"),
        state(
            Kind::Answer,
            "{base}/rule/{name}/answer",
            Json("answer"),
            MAX_JSON_BYTES,
        )
        .about("last answer of a rule"),
        state(
            Kind::Snapshot,
            "{base}/rule/{name}/snapshot",
            Jpeg,
            MAX_SNAPSHOT_BYTES,
        )
        .about("picture behind the last answer"),
        state(Kind::RuleState, "{base}/rule/{name}/state", Text(ON_OFF), 8)
            .about("whether a rule is enabled"),
        state(
            Kind::PinState,
            "{base}/pin/{name}/state",
            Text("`ON`, `OFF` or a number"),
            32,
        )
        .about("what a pin was last set to"),
        state(
            Kind::FeatureState,
            "{base}/feature/{name}/state",
            Text("the value"),
            MAX_NAME_BYTES,
        )
        .about("value of a feature"),
        passing(Kind::Reply, "{base}/reply", Json("reply"), MAX_JSON_BYTES)
            .expires(60)
            .about("answers to commands that name no response topic"),
        state(
            Kind::Discovery,
            "{discovery}/device/{device}/config",
            HomeAssistant,
            MAX_DISCOVERY_BYTES,
        )
        .about("device discovery"),
        heard(
            Kind::Look,
            "{base}/command/look",
            Json("look"),
            MAX_COMMAND_BYTES,
        )
        .expires(30)
        .about("look now; all rules or one"),
        heard(
            Kind::Ask,
            "{base}/command/ask",
            Json("ask"),
            MAX_COMMAND_BYTES,
        )
        .expires(30)
        .about("ask a question about the next picture"),
        heard(
            Kind::Approve,
            "{base}/command/approve",
            Json("decide"),
            MAX_COMMAND_BYTES,
        )
        .expires(30)
        .idempotent()
        .about("let a pending action happen; id and nonce"),
        heard(
            Kind::Deny,
            "{base}/command/deny",
            Json("decide"),
            MAX_COMMAND_BYTES,
        )
        .expires(30)
        .idempotent()
        .about("refuse a pending action; id and nonce"),
        heard(
            Kind::Reload,
            "{base}/command/reload",
            Json("reload"),
            MAX_COMMAND_BYTES,
        )
        .expires(30)
        .idempotent()
        .about("read settings and rules again"),
        heard(
            Kind::RuleSet,
            "{base}/rule/{name}/set",
            TextOrJson(ON_OFF, "rule-set"),
            MAX_COMMAND_BYTES,
        )
        .expires(30)
        .idempotent()
        .about("enable or disable a rule"),
        heard(
            Kind::PinSet,
            "{base}/pin/{name}/set",
            TextOrJson("`ON`, `OFF` or a number", "pin-set"),
            MAX_COMMAND_BYTES,
        )
        .expires(5)
        .idempotent()
        .about("ask the permission gate to set a pin"),
        heard(
            Kind::FeatureSet,
            "{base}/feature/{name}/set",
            TextOrJson("the value", "feature-set"),
            MAX_COMMAND_BYTES,
        )
        .expires(30)
        .idempotent()
        .about("change a feature"),
        Topic {
            retained: true,
            ..heard(
                Kind::DiscoveryStatus,
                "{discovery}/status",
                Text("`online`, `offline`"),
                16,
            )
            .idempotent()
            .about("at `online` discovery and state are published again")
        },
        Topic {
            retained: true,
            ..heard(
                Kind::DiscoveryEcho,
                "{discovery}/device/{device}/config",
                HomeAssistant,
                MAX_DISCOVERY_BYTES,
            )
            .idempotent()
            .about("entities of an older description that are gone are removed")
        },
    ]
};

impl Kind {
    /// The line of the table.
    pub fn topic(self) -> &'static Topic {
        // Every kind has its line: a test holds it.
        TABLE
            .iter()
            .find(|topic| topic.kind == self)
            .unwrap_or(&TABLE[0])
    }
}

/// Why a topic or a name cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// A base topic or prefix that MQTT or this table has no room for.
    #[error(
        "`{field} = \"{value}\"` is no base topic: 1 to {limit} bytes, levels of A-Z a-z 0-9 _ - . \
         between single slashes",
        limit = MAX_BASE_BYTES
    )]
    Base {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// A name that cannot be one level of a topic.
    #[error("`{0}` is no name for a topic: 1 to {limit} of A-Z a-z 0-9 _ -", limit = MAX_NAME_BYTES)]
    Name(String),
}

/// Whether `name` can stand in a topic and as a Home Assistant object id.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Refuses names that [`is_name`] refuses.
///
/// # Errors
///
/// [`TopicError::Name`].
pub fn check_name(name: &str) -> Result<(), TopicError> {
    if is_name(name) {
        Ok(())
    } else {
        Err(TopicError::Name(
            name.chars().take(MAX_NAME_BYTES).collect(),
        ))
    }
}

fn check_base(field: &'static str, value: &str) -> Result<(), TopicError> {
    let level = |level: &str| {
        !level.is_empty()
            && level
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    if value.len() <= MAX_BASE_BYTES && value.split('/').all(level) {
        Ok(())
    } else {
        Err(TopicError::Base {
            field,
            value: value.chars().take(MAX_BASE_BYTES).collect(),
        })
    }
}

/// The parts that differ from device to device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    base: String,
    discovery: Option<String>,
    device: String,
}

/// A topic that others published on, recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard<'a> {
    /// Line of the table.
    pub topic: &'static Topic,
    /// The part in the place of `{name}`; not checked.
    pub name: Option<&'a str>,
}

impl Names {
    /// `discovery` is Home Assistant's prefix, `None` without discovery; `device` its node id.
    ///
    /// # Errors
    ///
    /// [`TopicError`] for parts that do not make valid topics.
    pub fn new(base: &str, discovery: Option<&str>, device: &str) -> Result<Names, TopicError> {
        check_base("base_topic", base)?;
        if let Some(prefix) = discovery {
            check_base("discovery_prefix", prefix)?;
        }
        check_name(device)?;
        Ok(Names {
            base: base.to_owned(),
            discovery: discovery.map(str::to_owned),
            device: device.to_owned(),
        })
    }

    /// The base topic.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Home Assistant's prefix.
    pub fn discovery(&self) -> Option<&str> {
        self.discovery.as_deref()
    }

    /// The node id.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The topic of `kind`; `name` stands for `{name}`. `None` when there is no discovery and the
    /// topic belongs to it.
    pub fn path(&self, kind: Kind, name: &str) -> Option<String> {
        let pattern = kind.topic().pattern;
        if pattern.contains("{discovery}") && self.discovery.is_none() {
            return None;
        }
        Some(
            pattern
                .replace("{base}", &self.base)
                .replace("{discovery}", self.discovery.as_deref().unwrap_or_default())
                .replace("{device}", &self.device)
                .replace("{name}", name),
        )
    }

    /// What to subscribe to.
    pub fn filters(&self) -> Vec<(String, &'static Topic)> {
        TABLE
            .iter()
            .filter(|topic| topic.direction == Direction::In)
            .filter_map(|topic| Some((self.path(topic.kind, "+")?, topic)))
            .collect()
    }

    /// The line of the table that `topic` belongs to, if it is one we listen to.
    pub fn heard<'a>(&self, topic: &'a str) -> Option<Heard<'a>> {
        TABLE
            .iter()
            .filter(|row| row.direction == Direction::In)
            .find_map(|row| self.fits(row, topic))
    }

    fn fits<'a>(&self, row: &'static Topic, topic: &'a str) -> Option<Heard<'a>> {
        // A name never holds the NUL that MQTT forbids in topics.
        let path = self.path(row.kind, "\0")?;
        let Some((before, after)) = path.split_once('\0') else {
            return (path == topic).then_some(Heard {
                topic: row,
                name: None,
            });
        };
        let name = topic.strip_prefix(before)?.strip_suffix(after)?;
        (!name.contains('/')).then_some(Heard {
            topic: row,
            name: Some(name),
        })
    }

    /// Whether `topic` may be answered on: not one that this device, another one's commands or the
    /// broker itself gives a meaning to.
    pub fn may_answer_on(&self, topic: &str) -> bool {
        let inside = |prefix: &str| is_inside(topic, prefix);
        let replies = format!("{}/reply", self.base);
        (1..=256).contains(&topic.len())
            && !topic.contains(['+', '#', '\0'])
            && !topic.starts_with('$')
            && !topic.ends_with("/set")
            && !topic.contains("/command/")
            && !self.discovery().is_some_and(inside)
            && (!inside(&self.base) || inside(&replies))
    }
}

/// Whether `topic` is `prefix` or lies below it.
pub(super) fn is_inside(topic: &str, prefix: &str) -> bool {
    topic
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The table as `docs/wire.md` shows it.
pub fn markdown() -> String {
    let mut lines = String::from(
        "| topic | direction | QoS | retained | expiry | payload | idempotent | limit | carries |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for topic in &TABLE {
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} |",
            topic.pattern,
            match topic.direction {
                Direction::Out => "out",
                Direction::In => "in",
            },
            topic.qos,
            yes_no(topic.retained),
            topic
                .expiry
                .map_or_else(|| "none".to_owned(), |seconds| format!("{seconds} s")),
            payload_cell(topic.content),
            yes_no(topic.idempotent),
            size_cell(topic.max_bytes),
            topic.about,
        );
    }
    lines
}

fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

fn payload_cell(content: Content) -> String {
    let link = |schema| format!("[{schema}](schemas/{schema}.json)");
    match content {
        Content::Text(text) => text.to_owned(),
        Content::Json(schema) => link(schema),
        Content::TextOrJson(text, schema) => format!("{text}, or {}", link(schema)),
        Content::Jpeg => "JPEG".to_owned(),
        Content::HomeAssistant => "Home Assistant's".to_owned(),
    }
}

fn size_cell(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        _ => format!("{} KiB", bytes >> 10),
    }
}
