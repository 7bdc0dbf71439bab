//! Prints the size of a state and how many steps a second a busy rule file makes.

use ocelli_reflex::observation::{Answer, Frame, Link, Quality, Stage, Value};
use ocelli_reflex::{Inventory, Now, Observation, Output, Outputs, Probability, State, load, step};
use std::time::Instant;

fn main() {
    let text = include_str!("pir_lamp.toml").replace("cooldown = \"20 s\"", "");
    let inventory = Inventory {
        serial: true,
        ..Inventory::default()
    };
    let policy = match load(&text, &inventory) {
        Ok(loaded) => loaded.policy,
        Err(rejected) => return eprintln!("{rejected}"),
    };
    println!("bytes of a state: {}", size_of::<State>());
    println!("bytes of the outputs of a step: {}", size_of::<Outputs>());
    let mut state = State::new();
    let mut now = Now::at(1_000_000);
    let mut next = Observation::Start { secret: [1, 2] };
    let (mut steps, mut acts, begin) = (0_u64, 0_u64, Instant::now());
    while begin.elapsed().as_secs() < 3 {
        let outputs = step(&policy, &mut state, &next, now);
        steps += 1;
        now.ms += 20;
        let pin = ocelli_reflex::text::name("pir").unwrap_or_default();
        next = Observation::Pin {
            pin,
            level: steps % 2 == 0,
            initial: false,
        };
        for output in &outputs.list {
            match output {
                Output::Look(look) => {
                    let frame = Frame {
                        id: steps,
                        time: now.ms,
                        quality: Quality::Good,
                    };
                    next = Observation::Looked {
                        look: look.id,
                        frame: Some(frame),
                    };
                }
                Output::Ask(ask) => {
                    next = Observation::Answer(Answer {
                        question: ask.id,
                        value: Value::Choice(0),
                        probability: Probability::ONE,
                        unsure: false,
                        frame_time: now.ms,
                        stage: Stage::Refined,
                    });
                }
                Output::Act(_) => acts += 1,
                _ => {}
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("steps per second: {:.0}", steps as f64 / seconds);
    println!("actions per second: {:.0}", acts as f64 / seconds);
    let idle = step(
        &policy,
        &mut state,
        &Observation::Link {
            link: Link::Mqtt,
            up: true,
        },
        now,
    );
    println!("outputs of an idle step: {}", idle.list.len());
}
