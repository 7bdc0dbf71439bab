use super::*;
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(5);

fn heard(lines: &mut Lines, mut bytes: &[u8]) -> Option<Request> {
    lines.on_bytes(&mut bytes, NOW)
}

fn said(lines: &mut Lines) -> String {
    let mut out = Vec::new();
    while lines.next_output(&mut out, NOW) {}
    String::from_utf8(out).unwrap()
}

fn ask(question: &str, choices: &[&str]) -> Command {
    Command::Ask {
        question: question.to_owned(),
        choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
    }
}

fn pin(name: &str, on: bool) -> Command {
    Command::Pin {
        name: name.to_owned(),
        on,
    }
}

fn packet(name: &str, body: &str) -> Command {
    Command::Packet {
        name: name.to_owned(),
        body: body.to_owned(),
    }
}

#[test]
fn lines_are_the_commands_they_spell() {
    let cases = [
        ("AT", Command::Attention),
        (" at\t", Command::Attention),
        ("AT+LOOK?", Command::Look),
        ("at+Look?", Command::Look),
        ("AT+STATE?", Command::State),
        ("AT+RULES?", Command::Rules),
        ("AT+VER?", Command::Version),
        ("AT+HELP?", Command::Help),
        ("AT+PIN=lamp,1", pin("lamp", true)),
        ("AT+PIN=relay-2.a,0", pin("relay-2.a", false)),
        ("AT+PACKET=bell", packet("bell", "")),
        ("at+packet=bell,\"\"", packet("bell", "")),
        (
            "AT+PACKET=b-1,\"a, \\\"b\\\"=c\"",
            packet("b-1", "a, \"b\"=c"),
        ),
        ("AT+ASK=\"Who?\"", ask("Who?", &[])),
        ("AT+ASK=\"a=b\"", ask("a=b", &[])),
        (
            "AT+ASK=\"Is it open?\",\"yes, no\"",
            ask("Is it open?", &["yes", "no"]),
        ),
        ("AT+ASK=\"a \\\"b\\\" \\\\\"", ask("a \"b\" \\", &[])),
        ("AT+ASK=\"größer?\"", ask("größer?", &[])),
    ];
    for (line, command) in cases {
        assert_eq!(Command::parse(line.as_bytes()), Ok(command), "{line}");
    }
}

#[test]
fn lines_that_are_nearly_commands_are_refused() {
    let unknown = [
        "AT+LOOK",
        "AT+LOOK=1",
        "AT+",
        "ATZ",
        "AT LOOK?",
        "AT+PIN?",
        "AT+PACKET",
        "AT=1",
    ];
    for line in unknown {
        assert_eq!(
            Command::parse(line.as_bytes()),
            Err(CommandError::Unknown),
            "{line}"
        );
    }
    let arguments = [
        "AT+PIN=",
        "AT+PIN=lamp",
        "AT+PIN=lamp,2",
        "AT+PIN=lamp,01",
        "AT+PIN=lamp, 1",
        "AT+PIN=,1",
        "AT+PIN=la mp,1",
        "AT+PIN=lamp,1,1",
        "AT+PIN=lämp,1",
        "AT+PACKET=",
        "AT+PACKET=,\"a\"",
        "AT+PACKET=bell,",
        "AT+PACKET=bell,a",
        "AT+PACKET=bell,\"a",
        "AT+PACKET=bell,\"a\",",
        "AT+PACKET=be ll",
        "AT+ASK=",
        "AT+ASK=who",
        "AT+ASK=\"\"",
        "AT+ASK=\" \"",
        "AT+ASK=\"who",
        "AT+ASK=\"who\"x",
        "AT+ASK=\"who\",",
        "AT+ASK=\"who\",\"a\"",
        "AT+ASK=\"who\",\"a,\"",
        "AT+ASK=\"who\",\"a,a\"",
        "AT+ASK=\"who\",\"a,b\",\"c\"",
        "AT+ASK=\"who\\n\"",
    ];
    for line in arguments {
        let refused = Command::parse(line.as_bytes());
        assert!(
            matches!(refused, Err(CommandError::Arguments { .. })),
            "{line}: {refused:?}"
        );
    }
    for line in [&b"AT+ASK=\"\xff\""[..], b"AT+LOOK?\0", b"AT\x1b[A"] {
        assert_eq!(Command::parse(line), Err(CommandError::NotText));
    }
}

#[test]
fn every_end_of_line_ends_a_command_once() {
    for end in ["\r", "\n", "\r\n", "\n\r", "\r\n\r\n"] {
        let mut lines = Lines::new();
        assert_eq!(heard(&mut lines, format!("AT{end}").as_bytes()), None);
        assert_eq!(said(&mut lines), "OK\r\n", "{end:?}");
    }
}

#[test]
fn a_reply_is_its_lines_and_one_last_line() {
    let mut lines = Lines::new();
    let request = heard(&mut lines, b"AT+LOOK?\r\n").unwrap();
    assert_eq!(request.command, Command::Look);
    assert_eq!(said(&mut lines), "");
    let reply = Reply::lines("LOOK", [Said::new("A cat on a wall.")]);
    let number = request.number;
    lines.send(Outgoing::Reply { number, reply }, NOW).unwrap();
    assert_eq!(said(&mut lines), "+LOOK: A cat on a wall.\r\nOK\r\n");
}

#[test]
fn events_wait_until_the_answer_is_complete() {
    let mut lines = Lines::new();
    let number = heard(&mut lines, b"AT+VER?\n").unwrap().number;
    let event = Said::event(17, "new", "door", "a \"person\"", 60_163);
    lines.send(Outgoing::Event(event), NOW).unwrap();
    assert_eq!(said(&mut lines), "");
    let reply = Reply::error(ErrorCode::Failed, "no model");
    lines.send(Outgoing::Reply { number, reply }, NOW).unwrap();
    assert_eq!(
        said(&mut lines),
        "ERROR: 7 no model\r\n+EVENT: 17,new,\"door\",\"a \\\"person\\\"\",0.918\r\n"
    );
}

#[test]
fn packets_wait_in_one_order_with_events() {
    let mut lines = Lines::new();
    let number = heard(&mut lines, b"AT+VER?\n").unwrap().number;
    let packet = |body: &str| Outgoing::Packet {
        name: "bell".to_owned(),
        body: body.to_owned(),
    };
    lines.send(packet("a\r\n+OK \"b\""), NOW).unwrap();
    lines.send(Outgoing::Event(Said::new("17")), NOW).unwrap();
    lines.send(packet(""), NOW).unwrap();
    assert_eq!(said(&mut lines), "");
    let reply = Reply::done();
    lines.send(Outgoing::Reply { number, reply }, NOW).unwrap();
    assert_eq!(
        said(&mut lines),
        "OK\r\n+PACKET: bell,\"a +OK \\\"b\\\"\"\r\n+EVENT: 17\r\n+PACKET: bell,\"\"\r\n"
    );
    for _ in 0..=EVENTS {
        lines.send(packet("x"), NOW).unwrap();
    }
    assert_eq!(lines.n_events_dropped(), 1);
}

#[test]
fn a_packet_that_is_cut_has_no_closing_quote() {
    let cut = Said::packet("bell", &"ö".repeat(400));
    assert!(cut.as_str().len() <= reply::MAX_SAID_BYTES);
    assert!(cut.as_str().ends_with('ö'));
}

#[test]
fn the_next_command_waits_for_the_answer_to_the_first() {
    let mut lines = Lines::new();
    let mut bytes: &[u8] = b"AT+LOOK?\r\nAT+STATE?\r\n";
    let first = lines.on_bytes(&mut bytes, NOW).unwrap();
    assert_eq!(lines.on_bytes(&mut bytes, NOW), None);
    assert_eq!(bytes, b"\nAT+STATE?\r\n");
    let number = first.number;
    let reply = Reply::done();
    lines.send(Outgoing::Reply { number, reply }, NOW).unwrap();
    said(&mut lines);
    let second = lines.on_bytes(&mut bytes, NOW).unwrap();
    assert_eq!(second.command, Command::State);
    assert_ne!(second.number, first.number);
}

#[test]
fn a_late_reply_is_refused_and_the_asker_told() {
    let mut lines = Lines::new();
    let number = heard(&mut lines, b"AT+LOOK?\n").unwrap().number;
    assert_eq!(lines.next_tick_at(), Some(NOW + REPLY_TIME));
    lines.on_tick(NOW + REPLY_TIME);
    assert_eq!(said(&mut lines), "ERROR: 5 no answer in time\r\n");
    let reply = Reply::done();
    let late = lines.send(Outgoing::Reply { number, reply }, NOW);
    assert_eq!(late, Err(NotWaiting { number }));
    assert_eq!(said(&mut lines), "");
}

#[test]
fn a_line_that_is_too_long_is_refused_once_and_the_next_is_heard() {
    let mut lines = Lines::new();
    let mut bytes = b"AT+ASK=\"".to_vec();
    bytes.resize(5000, b'x');
    bytes.extend_from_slice(b"\"\r\n");
    assert_eq!(heard(&mut lines, &bytes), None);
    assert_eq!(said(&mut lines), "ERROR: 2 line longer than 256 bytes\r\n");
    assert_eq!(heard(&mut lines, b"AT\n"), None);
    assert_eq!(said(&mut lines), "OK\r\n");
}

#[test]
fn own_words_that_come_back_are_not_answered() {
    let mut lines = Lines::new();
    assert_eq!(heard(&mut lines, b"AT+NONE\r\n"), None);
    let mut echo = said(&mut lines);
    assert!(echo.starts_with("ERROR: 1"));
    echo += "OK\r\n+LOOK: at last\r\n+EVENT: 1\r\ngröße\r\n";
    assert_eq!(heard(&mut lines, echo.as_bytes()), None);
    assert_eq!(said(&mut lines), "");
    assert_eq!(lines.n_ignored(), 5);
}

#[test]
fn of_too_many_events_the_newest_are_kept() {
    let mut lines = Lines::new();
    for id in 0..EVENTS as u32 + 3 {
        let event = Said::event(id, "new", "r", "c", 0);
        lines.send(Outgoing::Event(event), NOW).unwrap();
    }
    assert_eq!(lines.n_events_dropped(), 3);
    assert!(said(&mut lines).starts_with("+EVENT: 3,"));
}

#[test]
fn a_closed_line_forgets_what_was_half_said() {
    let mut lines = Lines::new();
    heard(&mut lines, b"AT+LOOK?\nAT+S");
    lines.on_closed(NOW);
    assert_eq!(heard(&mut lines, b"AT\n"), None);
    assert_eq!(said(&mut lines), "OK\r\n");
}

#[test]
fn the_transcript_in_the_document_is_what_happens() {
    let document = include_str!("../../../../docs/wire.md");
    let transcript = document
        .split_once("```transcript\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .map(|(transcript, _)| transcript)
        .expect("docs/wire.md has a transcript");
    let (mut lines, mut waiting, mut expected) = (Lines::new(), None, String::new());
    let mut n_lines = 0;
    for line in transcript.lines() {
        n_lines += 1;
        if let Some(command) = line.strip_prefix("> ") {
            assert_eq!(said(&mut lines), expected, "before {command}");
            expected.clear();
            waiting = heard(&mut lines, format!("{command}\r\n").as_bytes());
            continue;
        }
        let line = line.strip_prefix("< ").expect("lines begin with > or <");
        expected += &format!("{line}\r\n");
        if let Some(event) = line.strip_prefix("+EVENT: ") {
            let event = Outgoing::Event(Said::new(event));
            lines.send(event, NOW).unwrap();
        } else if let Some((name, text)) = line.strip_prefix('+').and_then(|l| l.split_once(": "))
            && let Some(Request { number, .. }) = waiting.take()
        {
            let name = String::leak(name.to_owned());
            let reply = Reply::lines(name, [Said::new(text)]);
            lines.send(Outgoing::Reply { number, reply }, NOW).unwrap();
        } else if let Some(text) = line.strip_prefix("ERROR: 6 ")
            && let Some(Request { number, .. }) = waiting.take()
        {
            let reply = Reply::error(ErrorCode::Denied, text);
            lines.send(Outgoing::Reply { number, reply }, NOW).unwrap();
        }
    }
    assert_eq!(said(&mut lines), expected);
    assert!(n_lines > 12, "{n_lines}");
}

proptest! {
    #[test]
    fn whatever_is_said_stays_in_its_line(text in "\\PC*|[\\x00-\\x7f]{0,600}") {
        let mut out = String::new();
        Reply::lines("LOOK", [Said::new(&text)]).write(&mut out);
        prop_assert!(out.starts_with("+LOOK: "));
        prop_assert!(out.ends_with("\r\nOK\r\n"));
        prop_assert_eq!(out.matches('\n').count(), 2);
        prop_assert_eq!(out.matches('\r').count(), 2);
        prop_assert!(out.len() <= MAX_LINE_BYTES * 2 + 16);
    }

    #[test]
    fn every_command_line_gets_exactly_one_last_line(
        bytes in prop::collection::vec(prop_oneof![
            Just(b"AT".to_vec()), Just(b"AT+LOOK?".to_vec()), Just(b"\r\n".to_vec()), Just(b"\n".to_vec()),
            Just(b"AT+PIN=a,1".to_vec()), Just(b"OK".to_vec()), prop::collection::vec(any::<u8>(), 0..300),
        ], 0..30),
    ) {
        let bytes = bytes.concat();
        let n_addressed = bytes
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .rev()
            .skip(1)
            .filter(|line| command::is_addressed(line))
            .count();
        let (mut lines, mut rest, mut out) = (Lines::new(), bytes.as_slice(), String::new());
        while !rest.is_empty() {
            if let Some(Request { number, .. }) = lines.on_bytes(&mut rest, NOW) {
                lines.send(Outgoing::Reply { number, reply: Reply::done() }, NOW).unwrap();
            }
            out += &said(&mut lines);
        }
        let n_last = out.lines().filter(|line| *line == "OK" || line.starts_with("ERROR: ")).count();
        prop_assert_eq!(n_last, n_addressed);
    }
}
