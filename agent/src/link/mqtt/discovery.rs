//! Home Assistant device discovery: one retained payload that describes the device and every
//! entity.
//!
//! Format: <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>. States of
//! entities may have 255 characters, so long texts are cut there and stand whole in attributes.

#[cfg(test)]
mod tests;

use super::topics::{Kind, Names, TopicError, check_name};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Longest state of an entity, in characters.
pub const MAX_STATE_CHARS: usize = 255;
/// Most rules, pins and features of a description, each.
pub const MAX_ENTITIES: usize = 256;

/// What kind of answer a rule gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// `yes` or `no`.
    YesNo,
    /// One of these.
    Choices(Vec<String>),
    /// A number.
    Count,
    /// Free text or fields.
    Text,
}

/// A rule, as far as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, one level of a topic.
    pub name: String,
    /// What a person reads.
    pub title: String,
    /// What it answers.
    pub kind: RuleKind,
    /// Whether it publishes snapshots.
    pub snapshot: bool,
}

/// A pin that commands may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its name, one level of a topic.
    pub name: String,
    /// What a person reads.
    pub title: String,
}

/// Something that can be switched or chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, one level of a topic.
    pub name: String,
    /// What a person reads.
    pub title: String,
    /// The values; none for `ON` and `OFF`.
    pub options: Vec<String>,
}

/// The device and everything it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// What a person reads, e.g. `Porch`.
    pub title: String,
    /// Board, e.g. `Raspberry Pi 5`.
    pub board: String,
    /// Version of the program.
    pub version: String,
    /// Rules.
    pub rules: Vec<Rule>,
    /// Pins.
    pub pins: Vec<Pin>,
    /// Features.
    pub features: Vec<Feature>,
}

/// Why a description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// A name that cannot be one level of a topic.
    #[error(transparent)]
    Name(#[from] TopicError),
    /// Two things of one name.
    #[error("two {what}s are called `{name}`; rename one")]
    Twice {
        /// `rule`, `pin` or `feature`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// More than fit.
    #[error("{count} {what}s are more than the limit of {MAX_ENTITIES}")]
    TooMany {
        /// `rule`, `pin` or `feature`.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// Choices that are no list of options.
    #[error(
        "`{name}` needs 2 to {MAX_ENTITIES} different options, each of 1 to {MAX_STATE_CHARS} characters"
    )]
    Options {
        /// The rule or feature.
        name: String,
    },
}

impl Description {
    /// Checks names and options.
    ///
    /// # Errors
    ///
    /// [`DescriptionError`] naming the first that is wrong.
    pub fn check(&self) -> Result<(), DescriptionError> {
        check_names("rule", self.rules.iter().map(|rule| &rule.name))?;
        check_names("pin", self.pins.iter().map(|pin| &pin.name))?;
        check_names("feature", self.features.iter().map(|feature| &feature.name))?;
        for rule in &self.rules {
            if let RuleKind::Choices(choices) = &rule.kind {
                check_options(&rule.name, choices)?;
            }
        }
        self.features
            .iter()
            .filter(|feature| !feature.options.is_empty())
            .try_for_each(|feature| check_options(&feature.name, &feature.options))
    }
}

fn check_names<'a>(
    what: &'static str,
    names: impl ExactSizeIterator<Item = &'a String>,
) -> Result<(), DescriptionError> {
    let count = names.len();
    if count > MAX_ENTITIES {
        return Err(DescriptionError::TooMany { what, count });
    }
    let mut seen = BTreeSet::new();
    for name in names {
        check_name(name)?;
        if !seen.insert(name) {
            return Err(DescriptionError::Twice {
                what,
                name: name.clone(),
            });
        }
    }
    Ok(())
}

fn check_options(name: &str, options: &[String]) -> Result<(), DescriptionError> {
    let different: BTreeSet<_> = options.iter().collect();
    let fits = |option: &String| (1..=MAX_STATE_CHARS).contains(&option.chars().count());
    if (2..=MAX_ENTITIES).contains(&options.len())
        && different.len() == options.len()
        && options.iter().all(fits)
    {
        Ok(())
    } else {
        Err(DescriptionError::Options {
            name: name.to_owned(),
        })
    }
}

/// Platforms by component, as far as an older description is remembered by the broker.
pub type Components = BTreeMap<String, String>;

/// The payload for [`Kind::Discovery`]; components of `gone` are said to be removed.
pub fn payload(names: &Names, description: &Description, gone: &Components) -> Vec<u8> {
    let mut components = Entities {
        names,
        all: Map::new(),
    }
    .of(description);
    for (id, platform) in gone {
        components.insert(id.clone(), json!({ "p": platform }));
    }
    let config = json!({
        "dev": {
            "ids": [format!("ocelli_{}", names.device())],
            "name": description.title,
            "mf": "Ocelli",
            "mdl": description.board,
            "sw": description.version,
        },
        "o": { "name": "ocelli", "sw": description.version },
        "avty_t": names.path(Kind::Availability, ""),
        "qos": 1,
        "cmps": components,
    });
    // Maps of strings always serialise.
    serde_json::to_vec(&config).unwrap_or_default()
}

/// The components that a retained `payload` announces and `description` no longer has.
pub fn gone(names: &Names, description: &Description, payload: &[u8]) -> Components {
    let Ok(Value::Object(config)) = serde_json::from_slice(payload) else {
        return Components::new();
    };
    let ours = Entities {
        names,
        all: Map::new(),
    }
    .of(description);
    let Some(Value::Object(theirs)) = config.get("cmps").or_else(|| config.get("components"))
    else {
        return Components::new();
    };
    theirs
        .iter()
        .filter(|(id, _)| !ours.contains_key(*id) && check_name(id).is_ok())
        .filter_map(|(id, component)| {
            let component = component.as_object()?;
            let platform = component.get("p").or_else(|| component.get("platform"))?;
            // One that holds nothing else has been removed already.
            (component.len() > 1).then(|| Some((id.clone(), platform.as_str()?.to_owned())))?
        })
        .take(4 * MAX_ENTITIES)
        .collect()
}

struct Entities<'a> {
    names: &'a Names,
    all: Map<String, Value>,
}

impl Entities<'_> {
    fn of(mut self, description: &Description) -> Map<String, Value> {
        for rule in &description.rules {
            self.add_rule(rule);
        }
        for pin in &description.pins {
            self.add_switch("pin", &pin.name, &pin.title, Kind::PinState, Kind::PinSet);
        }
        for feature in &description.features {
            self.add_feature(feature);
        }
        self.add_button("look", "Look", Kind::Look);
        self.add_button("reload", "Reload", Kind::Reload);
        self.add_pending();
        self.add_stats();
        self.all
    }

    fn topic(&self, kind: Kind, name: &str) -> Value {
        json!(self.names.path(kind, name))
    }

    /// Adds an entity: `what` is what its platform asks for beside the name and the identifier.
    fn add(&mut self, id: String, platform: &str, title: &str, what: Value) {
        let mut entity = Map::new();
        entity.insert("p".into(), json!(platform));
        entity.insert(
            "uniq_id".into(),
            json!(format!("ocelli_{}_{id}", self.names.device())),
        );
        entity.insert("name".into(), json!(title));
        if let Value::Object(what) = what {
            entity.extend(what);
        }
        self.all.insert(id, Value::Object(entity));
    }

    fn add_rule(&mut self, rule: &Rule) {
        self.add_answer(rule);
        self.add_event(rule);
        self.add_switch(
            "rule",
            &rule.name,
            &format!("{} enabled", rule.title),
            Kind::RuleState,
            Kind::RuleSet,
        );
        if rule.snapshot {
            let what = json!({
                "img_t": self.topic(Kind::Snapshot, &rule.name),
                "cont_type": "image/jpeg",
            });
            let title = format!("{} picture", rule.title);
            self.add(format!("snapshot_{}", rule.name), "image", &title, what);
        }
    }

    fn add_answer(&mut self, rule: &Rule) {
        let topic = self.topic(Kind::Answer, &rule.name);
        let (platform, mut what) = match &rule.kind {
            // `None` is what these platforms take for unknown.
            RuleKind::YesNo => (
                "binary_sensor",
                json!({ "val_tpl": "{{ {'yes': 'ON', 'no': 'OFF'}.get(value_json.answer, 'None') }}" }),
            ),
            RuleKind::Choices(choices) => (
                "sensor",
                json!({
                    "dev_cla": "enum",
                    "ops": choices,
                    "val_tpl": "{{ value_json.answer if value_json.answer is string else 'None' }}",
                }),
            ),
            RuleKind::Count => (
                "sensor",
                json!({
                    "stat_cla": "measurement",
                    "val_tpl": "{{ value_json.answer | int('None') }}",
                }),
            ),
            RuleKind::Text => (
                "sensor",
                json!({ "val_tpl": format!(
                    "{{{{ (value_json.text or value_json.answer or '')[:{MAX_STATE_CHARS}] }}}}"
                ) }),
            ),
        };
        what["stat_t"] = topic.clone();
        what["json_attr_t"] = topic;
        self.add(format!("answer_{}", rule.name), platform, &rule.title, what);
    }

    fn add_event(&mut self, rule: &Rule) {
        // An empty result is no event: the others' events are left to the others' entities.
        let template = format!(
            "{{% if value_json.after.rule == '{}' %}}\
             {{{{ dict(value_json.after, event_type=value_json.type) | tojson }}}}\
             {{% endif %}}",
            rule.name
        );
        let what = json!({
            "stat_t": self.topic(Kind::Event, ""),
            "evt_typ": ["new", "update", "end"],
            "val_tpl": template,
        });
        let title = format!("{} events", rule.title);
        self.add(format!("event_{}", rule.name), "event", &title, what);
    }

    fn add_switch(&mut self, prefix: &str, name: &str, title: &str, state: Kind, set: Kind) {
        let what = json!({
            "stat_t": self.topic(state, name),
            "cmd_t": self.topic(set, name),
            "pl_on": "ON",
            "pl_off": "OFF",
        });
        self.add(format!("{prefix}_{name}"), "switch", title, what);
    }

    fn add_feature(&mut self, feature: &Feature) {
        let (name, title) = (&feature.name, &feature.title);
        if feature.options.is_empty() {
            return self.add_switch("feature", name, title, Kind::FeatureState, Kind::FeatureSet);
        }
        let what = json!({
            "stat_t": self.topic(Kind::FeatureState, name),
            "cmd_t": self.topic(Kind::FeatureSet, name),
            "ops": feature.options,
        });
        self.add(format!("feature_{name}"), "select", title, what);
    }

    fn add_button(&mut self, id: &str, title: &str, kind: Kind) {
        let what = json!({ "cmd_t": self.topic(kind, ""), "pl_prs": "{}" });
        self.add(id.to_owned(), "button", title, what);
    }

    fn add_pending(&mut self) {
        let topic = self.topic(Kind::Pending, "");
        let what = json!({
            "stat_t": topic,
            "json_attr_t": topic,
            "val_tpl": "{{ value_json.pending | length }}",
        });
        self.add("pending".to_owned(), "sensor", "Waiting for approval", what);
    }

    fn add_stats(&mut self) {
        for (id, title, unit, class) in STATS {
            let mut what = json!({
                "stat_t": self.topic(Kind::Stats, ""),
                "ent_cat": "diagnostic",
                "val_tpl": format!(
                    "{{{{ value_json.{id} if value_json.{id} is number else 'None' }}}}"
                ),
            });
            if let Some(unit) = unit {
                what["unit_of_meas"] = json!(unit);
            }
            if let Some(class) = class {
                what["dev_cla"] = json!(class);
            }
            what["stat_cla"] = json!(if unit.is_none() {
                "total_increasing"
            } else {
                "measurement"
            });
            self.add((*id).to_owned(), "sensor", title, what);
        }
    }
}

/// Figure, title, unit, device class.
type Figure = (
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
);

/// Figures of `stats` that are shown; those without unit are counts that only grow.
const STATS: &[Figure] = &[
    ("latency_s", "Latency", Some("s"), Some("duration")),
    (
        "temperature_c",
        "Temperature",
        Some("°C"),
        Some("temperature"),
    ),
    // Home Assistant's class `energy` is for meters, which this is not.
    ("energy_j", "Energy per answer", Some("J"), None),
    ("looks", "Looks", None, None),
    ("answers", "Answers", None, None),
    ("actions", "Actions", None, None),
    ("denied", "Denied actions", None, None),
    ("events_queued", "Events waiting", Some("events"), None),
    ("events_dropped", "Events dropped", None, None),
];
