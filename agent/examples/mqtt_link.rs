//! The MQTT link on its own, for trying it against a broker: orders on stdin, one JSON object a
//! line, and what the link says on stdout, one JSON object a line. `tests/mqtt/peers` drives it.
//!
//! ```text
//! mqtt_link SETTINGS.toml DEVICE QUEUE SEED
//! ```
//!
//! | order | does |
//! |---|---|
//! | `{"do":"events","first":1,"count":100}` | pushes events, ids `e1`… |
//! | `{"do":"publish","topic":"a/b","payload":"x","retain":false}` | publishes on a topic of the rules |
//! | `{"do":"listen","topics":["a/c"]}` | listens to these topics of the rules and no others |
//! | `{"do":"state"}` | publishes one of every kind of state |
//! | `{"do":"describe","rules":["person"]}` | describes the device |
//! | `{"do":"reload","settings":"FILE"}` | takes other settings |
//! | `{"do":"stats"}` | prints the link's figures |
//! | end of input | stops |

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ocelli_agent::link::Link;
use ocelli_agent::link::mqtt::command::{Command, PinValue};
use ocelli_agent::link::mqtt::discovery::{Description, Feature, Pin, Rule, RuleKind};
use ocelli_agent::link::mqtt::payload::{
    Code, Event, Info, PendingAction, Phase, Reply, Sight, Stats,
};
use ocelli_agent::link::mqtt::{Incoming, Mqtt, Outgoing, Publication, Request, Settings, State};
use ocelli_agent::link::queue::Priority;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [settings, device, queue, seed] = arguments.as_slice() else {
        return Err("usage: mqtt_link SETTINGS.toml DEVICE QUEUE SEED".into());
    };
    let (mut link, recovered) =
        Mqtt::start(read(settings)?, device, Path::new(queue), seed.parse()?)?;
    say(&json!({ "recovered": recovered.events, "torn": recovered.torn_bytes }))?;
    // Orders come through a pipe of their own thread, so that one poll waits for both.
    let (lines, ready) = orders()?;
    loop {
        while let Some(incoming) = link.recv(Duration::ZERO)? {
            hear(&mut link, incoming)?;
        }
        while let Ok(line) = lines.try_recv() {
            let Some(line) = line else {
                link.stop();
                return Ok(());
            };
            obey(&mut link, &serde_json::from_str(&line)?)?;
        }
        let fd = link.interest().fd.ok_or("the link has a descriptor")?;
        let mut fds = [
            PollFd::new(fd, PollFlags::POLLIN),
            PollFd::new(ready.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut fds, PollTimeout::NONE)?;
        let _ = ready.read();
    }
}

type Orders = (
    std::sync::mpsc::Receiver<Option<String>>,
    std::sync::Arc<nix::sys::eventfd::EventFd>,
);

/// Lines of stdin, `None` at its end.
fn orders() -> Result<Orders, Box<dyn Error>> {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    let ready = std::sync::Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?);
    let (sender, receiver) = std::sync::mpsc::sync_channel(64);
    let theirs = std::sync::Arc::clone(&ready);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        for line in lines.map(Some).chain([None]) {
            if sender.send(line).is_err() || theirs.write(1).is_err() {
                return;
            }
        }
    });
    Ok((receiver, ready))
}

fn read(path: &str) -> Result<Settings, Box<dyn Error>> {
    Ok(toml::from_str(&std::fs::read_to_string(path)?)?)
}

fn say(what: &Value) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}

fn hear(link: &mut Mqtt, incoming: Incoming) -> Result<(), Box<dyn Error>> {
    let what = match incoming {
        Incoming::Up => json!({ "up": true }),
        Incoming::Deaf { refused } => json!({ "deaf": refused }),
        Incoming::Down { reason } => json!({ "down": reason }),
        Incoming::Refused { topic, reason } => json!({ "refused": topic, "reason": reason }),
        Incoming::Message {
            topic,
            payload,
            retained,
        } => json!({
            "message": topic,
            "payload": String::from_utf8_lossy(&payload),
            "retained": retained,
        }),
        Incoming::Dropped { total } => json!({ "dropped": total }),
        Incoming::Volatile { seq } => json!({ "volatile": seq }),
        Incoming::Unsent { reason } => json!({ "unsent": reason }),
        Incoming::Request(request) => {
            let what = json!({
                "request": format!("{:?}", request.command),
                "expires_s": request.expires.map(|left| left.as_secs()),
            });
            answer(link, request)?;
            what
        }
    };
    say(&what)
}

fn answer(link: &mut Mqtt, request: Request) -> Result<(), Box<dyn Error>> {
    let reply = match &request.command {
        Command::SetRule { rule, on } => {
            let state = State::Rule {
                rule: rule.clone(),
                on: *on,
            };
            link.send(Outgoing::State(state), Duration::ZERO)?;
            Reply::plain(Code::Done)
        }
        Command::Ask { question, .. } => Reply {
            sight: Some(Sight {
                question: Some(question.clone()),
                ..sight("asked", "person")
            }),
            ..Reply::plain(Code::Done)
        },
        Command::SetPin { .. } => Reply::because(Code::Denied, "this example has no pins"),
        _ => Reply::plain(Code::Accepted),
    };
    Ok(link.send(Outgoing::Reply(request.ticket, reply), Duration::ZERO)?)
}

fn obey(link: &mut Mqtt, order: &Value) -> Result<(), Box<dyn Error>> {
    match order["do"].as_str() {
        Some("events") => events(link, order),
        Some("state") => state(link),
        Some("publish") => publish(link, order),
        Some("listen") => {
            let topics = order["topics"].as_array().ok_or("`topics` is a list")?;
            let topics = topics.iter().filter_map(Value::as_str).map(str::to_owned);
            Ok(link.send(Outgoing::Listen(topics.collect()), Duration::ZERO)?)
        }
        Some("describe") => {
            let rules = order["rules"].as_array().ok_or("`rules` is a list")?;
            let names = rules.iter().filter_map(Value::as_str);
            let description = Outgoing::Describe(Box::new(description(names)));
            Ok(link.send(description, Duration::ZERO)?)
        }
        Some("reload") => {
            let path = order["settings"].as_str().ok_or("`settings` is a path")?;
            Ok(link.reload(read(path)?)?)
        }
        Some("stats") => say(&json!({ "stats": link.stats() })),
        other => Err(format!("unknown order {other:?}").into()),
    }
}

fn sight(id: &str, rule: &str) -> Sight {
    Sight {
        id: id.to_owned(),
        rule: rule.to_owned(),
        camera: Some("front".to_owned()),
        time_ms: 1_700_000_000_000,
        question: Some("Is there a person?".to_owned()),
        answer: Some("yes".to_owned()),
        probability: Some(0.875),
        unsure: false,
        text: Some("A person at the door.".to_owned()),
        zones: vec!["door".to_owned()],
        has_snapshot: true,
    }
}

fn events(link: &mut Mqtt, order: &Value) -> Result<(), Box<dyn Error>> {
    let first = order["first"].as_u64().ok_or("`first` is a number")?;
    let count = order["count"].as_u64().ok_or("`count` is a number")?;
    for number in first..first + count {
        let event = Event {
            phase: Phase::New,
            before: None,
            after: sight(&format!("e{number}"), "person"),
            priority: Priority::Normal,
        };
        link.send(Outgoing::Event(Box::new(event)), Duration::ZERO)?;
    }
    say(&json!({ "pushed": first + count - 1 }))
}

fn publish(link: &mut Mqtt, order: &Value) -> Result<(), Box<dyn Error>> {
    let text = |key: &str| order[key].as_str().unwrap_or_default().to_owned();
    let publication = Publication {
        topic: text("topic"),
        payload: text("payload").into_bytes(),
        retain: order["retain"] == true,
        priority: Priority::Normal,
    };
    Ok(link.send(Outgoing::Publish(Box::new(publication)), Duration::ZERO)?)
}

fn state(link: &mut Mqtt) -> Result<(), Box<dyn Error>> {
    let text = str::to_owned;
    let states = [
        State::Info(Info {
            program: text("ocelli"),
            version: text("0.1.0"),
            board: text("generic"),
            model: text("default"),
            rules: vec![text("person")],
        }),
        State::Stats(Stats {
            time_ms: 1_700_000_000_000,
            uptime_s: 5,
            latency_s: Some(1.5),
            temperature_c: Some(48.25),
            ..Stats::default()
        }),
        State::Pending(vec![PendingAction {
            id: text("a1"),
            nonce: text("n1"),
            rule: text("person"),
            action: text("set pin gate to ON"),
            level: text("actuate-reversible"),
            expires_ms: 1_700_000_060_000,
        }]),
        State::Answer(sight("e0", "person")),
        State::Snapshot {
            rule: text("person"),
            jpeg: vec![0xFF, 0xD8, 0xFF, 0xD9],
        },
        State::Rule {
            rule: text("person"),
            on: true,
        },
        State::Pin {
            pin: text("lamp"),
            value: PinValue::Level(false),
        },
        State::Feature {
            feature: text("mode"),
            value: text("watch"),
        },
    ];
    for state in states {
        link.send(Outgoing::State(state), Duration::ZERO)?;
    }
    Ok(())
}

fn description<'a>(rules: impl Iterator<Item = &'a str>) -> Description {
    let kinds = [
        RuleKind::YesNo,
        RuleKind::Choices(vec!["red".to_owned(), "green".to_owned()]),
        RuleKind::Count,
        RuleKind::Text,
    ];
    let rules = rules
        .zip(kinds.into_iter().cycle())
        .map(|(name, kind)| Rule {
            name: name.to_owned(),
            title: format!("Rule {name}"),
            kind,
            snapshot: true,
        });
    Description {
        title: "Porch".to_owned(),
        board: "generic".to_owned(),
        version: "0.1.0".to_owned(),
        rules: rules.collect(),
        pins: vec![Pin {
            name: "lamp".to_owned(),
            title: "Lamp".to_owned(),
        }],
        features: vec![
            Feature {
                name: "mode".to_owned(),
                title: "Mode".to_owned(),
                options: vec!["watch".to_owned(), "sleep".to_owned()],
            },
            Feature {
                name: "snapshots".to_owned(),
                title: "Snapshots".to_owned(),
                options: Vec::new(),
            },
        ],
    }
}
