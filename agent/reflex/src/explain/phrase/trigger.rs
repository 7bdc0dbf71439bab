//! Words for triggers.

use super::{name, pin_name, rule_name, time};
use crate::observation::{Cause, Link};
use crate::policy::Policy;
use crate::rule::Source;
use crate::schedule::{Days, Schedule};

/// What starts a rule.
pub(crate) fn source(policy: &Policy, source: &Source) -> String {
    match source {
        Source::Change {
            zones,
            fraction,
            cause,
            once,
        } => {
            let names: Vec<&str> = (0..)
                .zip(&policy.zones)
                .filter(|(at, _)| zones & (1 << at) != 0)
                .map(|(_, zone)| zone.as_str())
                .collect();
            let cause = match cause {
                Cause::Motion => "motion",
                Cause::Light => "light",
                Cause::Camera => "camera",
            };
            let once = if *once { ", once a stretch" } else { "" };
            format!(
                "change in {} by {fraction} or more, {cause}{once}",
                names.join(" or ")
            )
        }
        Source::Pin { pin, level } => {
            let edge = match level {
                Some(true) => "rising",
                Some(false) => "falling",
                None => "rising or falling",
            };
            format!("pin {} {edge}", pin_name(policy, *pin))
        }
        Source::Packet { packet, equals } => {
            let packet = policy.packets.get(packet.get()).map(|packet| &packet.name);
            format!("packet {}{}", name(packet), body(equals.as_deref()))
        }
        Source::Topic { topic, equals } => {
            let topic = policy.topics.get(topic.get()).map(|topic| &topic.name);
            format!("topic {}{}", name(topic), body(equals.as_deref()))
        }
        Source::Schedule(Schedule::Every(period)) => format!("every {}", time(*period)),
        Source::Schedule(Schedule::Daily { second, days }) => {
            format!("at {}{}", time_of_day(*second), day_names(*days))
        }
        Source::Command { pin, on, from } => {
            let wish = match on {
                Some(true) => " on",
                Some(false) => " off",
                None => "",
            };
            let links = Link::NAMES
                .iter()
                .filter(|(_, link)| from & link.bit() != 0);
            let links: Vec<&str> = links.map(|(word, _)| *word).collect();
            format!(
                "command {}{wish} from {}",
                pin_name(policy, *pin),
                links.join(" or ")
            )
        }
        Source::Rule {
            rule,
            branch,
            choice,
        } => {
            let choices = policy.choices(*rule);
            let choice = choice.and_then(|choice| choices.get(usize::from(choice)));
            let choice = choice.map_or(String::new(), |choice| format!(", answer {choice:?}"));
            let rule = rule_name(policy, *rule);
            format!("rule {rule} ends with {}{choice}", branch.word())
        }
    }
}

fn body(equals: Option<&str>) -> String {
    equals.map_or(String::new(), |equals| format!(" {equals:?}"))
}

fn time_of_day(second: u32) -> String {
    let (hour, minute) = (second / 3600, second / 60 % 60);
    match second % 60 {
        0 => format!("{hour:02}:{minute:02}"),
        second => format!("{hour:02}:{minute:02}:{second:02}"),
    }
}

fn day_names(days: Days) -> String {
    if days == Days::ALL {
        return String::new();
    }
    let names: Vec<&str> = (0..)
        .zip(Days::NAMES)
        .filter(|(at, _)| days.contains(*at))
        .map(|(_, name)| name)
        .collect();
    format!(" on {}", names.join(", "))
}
