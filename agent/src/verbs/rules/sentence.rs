//! [`Sentence`]: an observation in words, as it is written on the command line.

use ocelli_reflex::channel::Direction;
use ocelli_reflex::diagnostic::suggestion;
use ocelli_reflex::limit::{MAX_DURATION_MS, MAX_ZONES};
use ocelli_reflex::observation::{Cause, Fault, HookVerdict, Link, Outcome, Quality, Stage, Value};
use ocelli_reflex::question::Form;
use ocelli_reflex::schedule::Days;
use ocelli_reflex::{HookIndex, Name, Observation, Policy, Probability, RuleIndex, Text};

/// Why words are no observation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("observation {sentence:?}: {what}; {help}")]
pub struct SentenceError {
    /// The words.
    pub sentence: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// Something that happens, in terms of rules and names. Ids, pictures and times are given by a
/// [`Rehearsal`](super::rehearsal::Rehearsal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// An observation that needs nothing else.
    Plain(Observation),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The wall clock reaches a second of the day, on a day of the week (0 = Monday).
    At {
        /// Seconds since midnight.
        second: u32,
        /// Day of the week; `None`: today or tomorrow.
        weekday: Option<u8>,
    },
    /// The picture changed.
    Change {
        /// Where.
        zones: heapless::Vec<Name, MAX_ZONES>,
        /// How much.
        fraction: Probability,
        /// Why.
        cause: Cause,
    },
    /// The picture asked for is there; `None`: there is none.
    Picture(Option<Quality>),
    /// A rule's question is answered.
    Answer {
        /// The rule.
        rule: RuleIndex,
        /// The answer.
        value: Value,
        /// Its probability.
        probability: Probability,
        /// The model abstained.
        unsure: bool,
        /// First or last word.
        stage: Stage,
    },
    /// A person decides about an action of a rule.
    Decision {
        /// The rule.
        rule: RuleIndex,
        /// Yes or no.
        granted: bool,
        /// Where it comes in; `None`: where it may.
        link: Option<Link>,
    },
    /// A hook comes back.
    Hook {
        /// The hook.
        hook: HookIndex,
        /// What it says.
        verdict: HookVerdict,
    },
    /// The newest action of a rule comes back.
    Outcome {
        /// The rule.
        rule: RuleIndex,
        /// How it went.
        outcome: Outcome,
    },
}

const VERBS: [&str; 20] = [
    "answer", "approve", "at", "change", "command", "fault", "hook", "link", "outcome", "packet",
    "picture", "pin", "reject", "reload", "start", "stop", "switch", "tick", "topic", "wait",
];

const WISHES: [(&str, bool); 2] = [("on", true), ("off", false)];

const FAULTS: [(&str, Fault); 6] = [
    ("camera", Fault::CameraGone),
    ("model", Fault::ModelRefused),
    ("broker", Fault::BrokerAway),
    ("disk", Fault::DiskFull),
    ("hot", Fault::Hot),
    ("memory", Fault::LowMemory),
];

const QUALITIES: [(&str, Option<Quality>); 6] = [
    ("good", Some(Quality::Good)),
    ("dark", Some(Quality::Dark)),
    ("bright", Some(Quality::Bright)),
    ("blurred", Some(Quality::Blurred)),
    ("covered", Some(Quality::Covered)),
    ("none", None),
];

const CAUSES: [(&str, Cause); 3] = [
    ("motion", Cause::Motion),
    ("light", Cause::Light),
    ("camera", Cause::Camera),
];

const EDGES: [(&str, bool); 6] = [
    ("rising", true),
    ("falling", false),
    ("on", true),
    ("off", false),
    ("active", true),
    ("inactive", false),
];

const VERDICTS: [(&str, HookVerdict); 3] = [
    ("pass", HookVerdict::Pass),
    ("veto", HookVerdict::Veto),
    ("failed", HookVerdict::Failed),
];

const OUTCOMES: [(&str, Outcome); 3] = [
    ("done", Outcome::Done),
    ("failed", Outcome::Failed),
    ("timeout", Outcome::TimedOut),
];

impl Sentence {
    /// Reads words. Names are those of the policy.
    ///
    /// # Errors
    ///
    /// What cannot be understood, and what could be written instead.
    pub fn parse(policy: &Policy, sentence: &str) -> Result<Sentence, SentenceError> {
        let mut words = Words {
            policy,
            sentence,
            rest: sentence.trim(),
        };
        let parsed = words.sentence()?;
        match words.rest {
            "" => Ok(parsed),
            rest => {
                let end = "end the sentence before it";
                Err(words.wrong(format!("nothing is expected at {rest:?}"), end))
            }
        }
    }
}

/// What is left to read of a sentence.
struct Words<'a> {
    policy: &'a Policy,
    sentence: &'a str,
    rest: &'a str,
}

type Parsed<T> = Result<T, SentenceError>;

impl<'a> Words<'a> {
    fn sentence(&mut self) -> Parsed<Sentence> {
        let verb = self.next("an observation")?;
        match verb {
            "start" => Ok(Sentence::Plain(Observation::Start { secret: [0, 0] })),
            "stop" => Ok(Sentence::Plain(Observation::Stop)),
            "reload" => Ok(Sentence::Plain(Observation::Reload)),
            "tick" => Ok(Sentence::Plain(Observation::Tick)),
            "wait" => self.wait(),
            "at" => self.at(),
            "change" => self.change(),
            "picture" => Ok(Sentence::Picture(
                self.optional("quality", &QUALITIES)?
                    .unwrap_or(Some(Quality::Good)),
            )),
            "pin" => self.pin(),
            "packet" => self.packet(),
            "topic" => self.topic(),
            "answer" => self.answer(),
            "approve" => self.decision(true),
            "reject" => self.decision(false),
            "hook" => self.hook(),
            "outcome" => Ok(Sentence::Outcome {
                rule: self.rule()?,
                outcome: self.one_of("outcome", &OUTCOMES)?,
            }),
            "link" => self.link(),
            "fault" => self.fault(),
            "switch" => {
                let rule = self.rule()?;
                let on = self.one_of("wish", &WISHES)?;
                let rule = self.policy.rule(rule).map(|rule| rule.id.clone());
                Ok(Sentence::Plain(Observation::Switch {
                    rule: rule.unwrap_or_default(),
                    on,
                }))
            }
            "command" => {
                let known: Vec<&Name> = self.policy.pins.iter().map(|pin| &pin.name).collect();
                let name = self.next("the name of a pin")?;
                let pin = known[self.named("pin", name, &known)?].clone();
                let on = self.one_of("wish", &WISHES)?;
                let link = self.optional("link", &Link::NAMES)?.unwrap_or(Link::Mqtt);
                Ok(Sentence::Plain(Observation::Command { link, pin, on }))
            }
            verb => Err(self.unknown("observation", verb, VERBS)),
        }
    }

    fn wrong(&self, what: String, help: impl Into<String>) -> SentenceError {
        SentenceError {
            sentence: self.sentence.to_owned(),
            what,
            help: help.into(),
        }
    }

    fn unknown<'n>(
        &self,
        kind: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) -> SentenceError {
        let help = suggestion(name, known, kind);
        self.wrong(format!("there is no {kind} {name:?}"), help)
    }

    /// The next word, if there is one.
    fn word(&mut self) -> Option<&'a str> {
        let word = self.rest.split_whitespace().next()?;
        self.rest = self.rest[word.len()..].trim_start();
        Some(word)
    }

    fn next(&mut self, what: &str) -> Parsed<&'a str> {
        self.word().ok_or_else(|| {
            let help = "see `ocelli rules explain --help`";
            self.wrong(format!("{what} is missing at the end"), help)
        })
    }

    /// All that is left.
    fn all(&mut self) -> &'a str {
        std::mem::take(&mut self.rest)
    }

    fn one_of<T: Copy>(&mut self, kind: &str, known: &[(&str, T)]) -> Parsed<T> {
        let word = self.next(kind)?;
        let found = known.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names = known.iter().map(|(name, _)| *name);
            self.unknown(kind, word, names)
        })
    }

    fn optional<T: Copy>(&mut self, kind: &str, known: &[(&str, T)]) -> Parsed<Option<T>> {
        match self.rest {
            "" => Ok(None),
            _ => self.one_of(kind, known).map(Some),
        }
    }

    /// Position of a name among others.
    fn named(&self, kind: &str, name: &str, known: &[&Name]) -> Parsed<usize> {
        known
            .iter()
            .position(|known| *known == name)
            .ok_or_else(|| self.unknown(kind, name, known.iter().map(|known| known.as_str())))
    }

    fn rule(&mut self) -> Parsed<RuleIndex> {
        let name = self.next("the name of a rule")?;
        let rules: Vec<&Name> = self.policy.rules.iter().map(|rule| &rule.id).collect();
        // A policy has few rules.
        Ok(RuleIndex(self.named("rule", name, &rules)? as u16))
    }

    fn wait(&mut self) -> Parsed<Sentence> {
        let text = self.all();
        let time = humantime::parse_duration(text).ok();
        let ms = time.and_then(|time| u64::try_from(time.as_millis()).ok());
        match ms.filter(|ms| *ms <= MAX_DURATION_MS) {
            Some(ms) => Ok(Sentence::Wait(ms)),
            None => {
                let help = "write a time up to 31 days, e.g. wait 500 ms, wait 5 s, wait 2 h";
                Err(self.wrong(format!("{text:?} is no time"), help))
            }
        }
    }

    fn at(&mut self) -> Parsed<Sentence> {
        let time = self.next("the time of day")?;
        let mut parts = time.split(':').map(|part| part.parse::<u32>().ok());
        let (hour, minute) = (parts.next().flatten(), parts.next().flatten());
        let second = parts.next().unwrap_or(Some(0));
        let second = match (hour, minute, second, parts.next()) {
            (Some(hour @ 0..24), Some(minute @ 0..60), Some(second @ 0..60), None) => {
                hour * 3600 + minute * 60 + second
            }
            _ => {
                let help = "write HH:MM or HH:MM:SS, e.g. at 07:30 mon";
                return Err(self.wrong(format!("{time:?} is no time of day"), help));
            }
        };
        let days: Vec<(&str, u8)> = Days::NAMES.into_iter().zip(0..).collect();
        let weekday = self.optional("day", &days)?;
        Ok(Sentence::At { second, weekday })
    }

    fn change(&mut self) -> Parsed<Sentence> {
        let known: Vec<&Name> = self.policy.zones.iter().collect();
        let mut zones = heapless::Vec::new();
        for name in self.next("the name of a zone")?.split(',') {
            let at = self.named("zone", name, &known)?;
            if zones.push(known[at].clone()).is_err() {
                let what = format!("there are more than {MAX_ZONES} zones");
                return Err(self.wrong(what, "leave some out"));
            }
        }
        let mut fraction = Probability::ONE;
        if let Some(share) = self.rest.split_whitespace().next()
            && share.starts_with(|first: char| first.is_ascii_digit())
        {
            self.word();
            fraction = self.share(share)?;
        }
        let cause = self.optional("cause", &CAUSES)?.unwrap_or(Cause::Motion);
        Ok(Sentence::Change {
            zones,
            fraction,
            cause,
        })
    }

    fn share(&self, word: &str) -> Parsed<Probability> {
        let share = word.parse().ok().and_then(Probability::from_f64);
        share.ok_or_else(|| {
            let help = "write a number from 0 to 1, e.g. 0.05";
            self.wrong(format!("{word:?} is no share"), help)
        })
    }

    fn pin(&mut self) -> Parsed<Sentence> {
        let name = self.next("the name of a pin")?;
        let pins = &self.policy.pins;
        let inputs: Vec<&Name> = pins
            .iter()
            .filter(|pin| pin.envelope().is_none())
            .map(|pin| &pin.name)
            .collect();
        if pins
            .iter()
            .any(|pin| pin.name == name && pin.envelope().is_some())
        {
            let help = suggestion("", inputs.iter().map(|name| name.as_str()), "inputs");
            return Err(self.wrong(format!("pin {name:?} is an output"), help));
        }
        let pin = inputs[self.named("input pin", name, &inputs)?].clone();
        let level = self.one_of("edge", &EDGES)?;
        Ok(Sentence::Plain(Observation::Pin {
            pin,
            level,
            initial: false,
        }))
    }

    fn body(&mut self) -> Text {
        Text::new(self.all())
    }

    fn packet(&mut self) -> Parsed<Sentence> {
        let name = self.next("the name of a packet")?;
        let packets = self.policy.packets.iter();
        let known: Vec<&Name> = packets
            .filter(|packet| packet.direction == Direction::In)
            .map(|packet| &packet.name)
            .collect();
        let packet = known[self.named("packet that comes in", name, &known)?].clone();
        Ok(Sentence::Plain(Observation::Packet {
            link: Link::Serial,
            packet,
            body: self.body(),
        }))
    }

    fn topic(&mut self) -> Parsed<Sentence> {
        let name = self.next("the name of a topic")?;
        let topics = self.policy.topics.iter();
        let known: Vec<&Name> = topics
            .filter(|topic| topic.direction == Direction::In)
            .map(|topic| &topic.name)
            .collect();
        let topic = known[self.named("topic that comes in", name, &known)?].clone();
        Ok(Sentence::Plain(Observation::Message {
            link: Link::Mqtt,
            topic,
            body: self.body(),
            retained: false,
        }))
    }

    fn answer(&mut self) -> Parsed<Sentence> {
        let rule = self.rule()?;
        let Some(question) = self.policy.question(rule) else {
            let what = format!("rule `{}` asks nothing", self.policy.rules[rule.get()].id);
            return Err(self.wrong(what, "name a rule with `ask` or `choose`"));
        };
        let text = self.all();
        let (text, stage) = match text.strip_suffix(" early") {
            Some(text) => (text.trim_end(), Stage::Early),
            None => (text, Stage::Refined),
        };
        let (text, probability) = match text.rsplit_once(char::is_whitespace) {
            Some((answer, share)) if share.parse::<f64>().is_ok() => {
                (answer.trim_end(), self.share(share)?)
            }
            _ => (text, Probability::ONE),
        };
        let choices = self.policy.choices(rule);
        let is_choice = choices
            .iter()
            .any(|choice| choice.eq_ignore_ascii_case(text));
        let unsure = text == "unsure" && !is_choice;
        let value = match unsure {
            true => Value::Nothing,
            false => self.value(&question.form, &choices, text)?,
        };
        Ok(Sentence::Answer {
            rule,
            value,
            probability,
            unsure,
            stage,
        })
    }

    fn value(&self, form: &Form, choices: &[&str], text: &str) -> Parsed<Value> {
        if text.is_empty() {
            let help = "write it behind the rule's name, or `unsure`";
            return Err(self.wrong("the answer is missing".to_owned(), help));
        }
        match form {
            Form::Choices { .. } | Form::Pick { .. } => {
                let at = (0..)
                    .zip(choices)
                    .find(|(_, choice)| choice.eq_ignore_ascii_case(text));
                let at = at.map(|(at, _)| Value::Choice(at));
                at.ok_or_else(|| self.unknown("choice", text, choices.iter().copied()))
            }
            Form::Count { range, .. } => text.parse().map(Value::Count).map_err(|_| {
                let help = format!("write a number from {} to {}", range.0, range.1);
                self.wrong(format!("{text:?} is no count"), help)
            }),
            Form::Caption => Ok(Value::Text(Text::new(text))),
            Form::Schema { .. } => Ok(Value::Fields {
                json: Text::new(text),
                missing: 0,
            }),
        }
    }

    fn decision(&mut self, granted: bool) -> Parsed<Sentence> {
        Ok(Sentence::Decision {
            rule: self.rule()?,
            granted,
            link: self.optional("link", &Link::NAMES)?,
        })
    }

    fn hook(&mut self) -> Parsed<Sentence> {
        let name = self.next("the name of a hook")?;
        let known: Vec<&Name> = self.policy.hooks.iter().map(|hook| &hook.name).collect();
        // A policy has few hooks.
        let hook = HookIndex(self.named("hook", name, &known)? as u16);
        let verdict = self.one_of("verdict", &VERDICTS)?;
        Ok(Sentence::Hook { hook, verdict })
    }

    fn link(&mut self) -> Parsed<Sentence> {
        let link = self.one_of("link", &Link::NAMES)?;
        let up = self.one_of("state", &[("up", true), ("down", false)])?;
        Ok(Sentence::Plain(Observation::Link { link, up }))
    }

    fn fault(&mut self) -> Parsed<Sentence> {
        let fault = self.one_of("fault", &FAULTS)?;
        let over = self.optional("state", &[("over", true)])?;
        Ok(Sentence::Plain(Observation::Fault {
            fault,
            active: over.is_none(),
        }))
    }
}
