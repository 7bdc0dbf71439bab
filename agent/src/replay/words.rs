//! Observations and outputs in words.

use super::issued::{Issued, Purpose, id_of};
use ocelli_reflex::explain::describe;
use ocelli_reflex::observation::{Approval, Change, Frame, Stage, Value};
use ocelli_reflex::{Observation, Outputs, Policy, Text};
use std::fmt::Debug;

/// An observation in words; `issued` knows what ids stand for.
pub fn observation(observation: &Observation, issued: &Issued) -> String {
    let purpose = id_of(observation).and_then(|id| issued.purpose(id));
    let rule = purpose.map_or("?", |purpose| purpose.name.as_str());
    match observation {
        Observation::Start { .. } => "start".to_owned(),
        Observation::Stop => "stop".to_owned(),
        Observation::Reload => "reload".to_owned(),
        Observation::Tick => "tick".to_owned(),
        Observation::Change(change) => changed(change),
        Observation::Looked { look, frame } => match frame {
            Some(frame) => format!("picture {} for look {}", picture(frame), look.0),
            None => format!("no picture for look {}", look.0),
        },
        Observation::Pin {
            pin,
            level,
            initial: false,
        } => format!("pin {pin} {}", if *level { "rising" } else { "falling" }),
        Observation::Pin { pin, level, .. } => {
            let level = if *level { "active" } else { "inactive" };
            format!("pin {pin} is {level}")
        }
        Observation::Packet { link, packet, body } => {
            format!("packet {packet}{}{}", quoted(body), over(*link, "Serial"))
        }
        Observation::Message {
            link,
            topic,
            body,
            retained,
        } => {
            let kept = if *retained {
                " (kept by the broker)"
            } else {
                ""
            };
            format!("topic {topic}{}{}{kept}", quoted(body), over(*link, "Mqtt"))
        }
        Observation::Answer(answer) => {
            let early = match answer.stage {
                Stage::Early => " early",
                Stage::Refined => "",
            };
            let unsure = if answer.unsure { "unsure " } else { "" };
            let value = value(&answer.value, purpose);
            format!(
                "answer {rule} {unsure}{value} {}{early}",
                answer.probability
            )
        }
        Observation::Approval(Approval { granted, link, .. }) => {
            let verb = if *granted { "approve" } else { "reject" };
            format!("{verb} {rule} {}", small(link))
        }
        Observation::Hook { verdict, .. } => format!("hook of {rule} {}", small(verdict)),
        Observation::Outcome { outcome, .. } => format!("outcome {rule} {}", small(outcome)),
        Observation::Link { link, up } => {
            format!("link {} {}", small(link), if *up { "up" } else { "down" })
        }
        Observation::Fault { fault, active } => {
            let over = if *active { "" } else { " over" };
            format!("fault {}{over}", small(fault))
        }
        Observation::Switch { rule, on } => {
            format!("switch {rule} {}", if *on { "on" } else { "off" })
        }
        Observation::Command { link, pin, on } => {
            let wish = if *on { "on" } else { "off" };
            format!("command {pin} {wish} {}", small(link))
        }
    }
}

/// The outputs of a step in words, each kind of id left as it is.
pub fn outputs(policy: &Policy, outputs: &Outputs) -> Vec<String> {
    let mut lines = describe(policy, outputs);
    if let Some(wake) = outputs.wake_in {
        lines.push(format!("wake in {wake} ms"));
    }
    lines
}

fn small(of: &impl Debug) -> String {
    format!("{of:?}").to_lowercase()
}

fn over(link: impl Debug, usual: &str) -> String {
    let link = format!("{link:?}");
    if link == usual {
        String::new()
    } else {
        format!(" over {}", link.to_lowercase())
    }
}

fn quoted(text: &Text) -> String {
    let cut = if text.is_cut() { "…" } else { "" };
    match text.as_str() {
        "" => cut.to_owned(),
        text => format!(" {text:?}{cut}"),
    }
}

fn picture(frame: &Frame) -> String {
    format!("{} ({})", frame.id, small(&frame.quality))
}

fn changed(change: &Change) -> String {
    let zones: Vec<&str> = change.zones.iter().map(|zone| zone.as_str()).collect();
    format!(
        "change {} {} {}, picture {}",
        zones.join(","),
        change.fraction,
        small(&change.cause),
        picture(&change.frame)
    )
}

fn value(value: &Value, purpose: Option<&Purpose>) -> String {
    match value {
        Value::Nothing => String::new(),
        Value::Choice(at) => {
            let choice = purpose.and_then(|of| of.choices.get(usize::from(*at)));
            choice.map_or_else(|| format!("choice {at}"), Clone::clone)
        }
        Value::Count(count) => count.to_string(),
        Value::Text(text) => quoted(text).trim_start().to_owned(),
        Value::Fields { json, missing: 0 } => json.as_str().to_owned(),
        Value::Fields { json, missing } => format!("{} ({missing} missing)", json.as_str()),
    }
}
