//! Line mode: whatever is said, every command gets one last line and nothing more.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_agent::link::line_mode::{Command, Lines, Outgoing, Reply, Said};
use ocelli_agent::link::serial::Dialect;
use std::time::Duration;

fuzz_target!(|input: &[u8]| {
    let now = Duration::from_secs(1);
    let (mut lines, mut rest, mut out) = (Lines::new(), input, Vec::new());
    let mut n_requests = 0;
    loop {
        if let Some(request) = lines.on_bytes(&mut rest, now) {
            n_requests += 1;
            let said = match request.command {
                Command::Ask { question, choices } => Said::choice(&question, choices.len() as u16, true),
                Command::Packet { name, body } => {
                    let said = Said::packet(&name, &body);
                    lines.send(Outgoing::Packet { name, body }, now).expect("there is room");
                    said
                }
                Command::Pin { name, .. } => Said::event(1, "new", &name, &name, 0),
                _ => Said::new(&String::from_utf8_lossy(input)),
            };
            let reply = Reply::lines("SAID", [said]);
            let number = request.number;
            lines.send(Outgoing::Reply { number, reply }, now).expect("it waits for the reply");
        }
        while lines.next_output(&mut out, now) {}
        if rest.is_empty() {
            break;
        }
    }
    let text = String::from_utf8(out).expect("output is text");
    assert!(text.is_empty() || text.ends_with("\r\n"));
    let mut n_said = 0;
    for line in text.split_terminator("\r\n") {
        assert!(!line.chars().any(char::is_control));
        let is_known = ["OK", "ERROR: ", "+SAID: ", "+HELP: ", "+PACKET: "].iter().any(|begin| line.starts_with(begin));
        assert!(is_known, "{line}");
        n_said += usize::from(line.starts_with("+SAID"));
    }
    assert_eq!(n_said, n_requests);
});
