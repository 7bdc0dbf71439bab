use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;

const YES: &str =
    r#"{"choices":[{"message":{"content":"Yes."},"logprobs":{"content":[{"logprob":0.0}]}}]}"#;

fn settings(port: u16) -> Settings {
    toml::from_str(&format!(
        "url = \"http://127.0.0.1:{port}/v1\"\nmodel = \"m\"\nper_day = 2"
    ))
    .unwrap()
}

fn question(id: u64) -> RemoteQuestion {
    RemoteQuestion {
        id: QuestionId(id),
        jpeg: b"picture".to_vec(),
        prompt: "Is there a person?".to_owned(),
        form: Form::Choices(vec!["yes".to_owned(), "no".to_owned()]),
        max_tokens: 8,
        within: Duration::from_secs(600),
    }
}

fn next(remote: &Remote) -> RemoteAnswer {
    loop {
        if let Some(answer) = remote.try_next() {
            return answer;
        }
        let mut fds = [PollFd::new(remote.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).unwrap();
    }
}

/// Answers one request with `status` and `body`; returns its head and body.
fn serve(listener: &TcpListener, status: &str, body: &str) -> (String, Vec<u8>) {
    let (socket, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let lower = head.to_lowercase();
    let (_, length) = lower.split_once("content-length: ").unwrap();
    let length = length.lines().next().unwrap().parse().unwrap();
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).unwrap();
    let n = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {n}\r\nConnection: close\r\n\r\n{body}");
    // Whoever has given up does not hear it.
    let _ = reader.get_mut().write_all(answer.as_bytes());
    (head, sent)
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn answer_to(status: &str, body: &str) -> Result<Heard, RemoteError> {
    let (listener, port) = listen();
    let remote = Remote::start(&settings(port), Spent::default()).unwrap();
    remote.ask(question(1), true, 1).unwrap();
    serve(&listener, status, body);
    let answer = next(&remote);
    assert_eq!(answer.id, QuestionId(1));
    answer.result
}

#[test]
fn no_picture_leaves_unless_it_may() {
    let (listener, port) = listen();
    listener.set_nonblocking(true).unwrap();
    let remote = Remote::start(&settings(port), Spent::default()).unwrap();
    let refused = remote.ask(question(1), false, 1);
    assert!(matches!(refused, Err(RemoteError::ImagesStay)));
    assert_eq!(remote.spent(), Spent::default());
    // Any question comes first in, first out: had the refused one been sent, it would be here.
    listener.set_nonblocking(false).unwrap();
    remote.ask(question(2), true, 1).unwrap();
    serve(&listener, "200 OK", YES);
    assert_eq!(next(&remote).id, QuestionId(2));
    listener.set_nonblocking(true).unwrap();
    let more = listener.accept().map(drop).unwrap_err();
    assert_eq!(more.kind(), ErrorKind::WouldBlock);
    assert!(remote.try_next().is_none());
}

#[test]
fn a_question_goes_out_with_key_and_picture_and_comes_back_as_a_choice() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "k-1\n").unwrap();
    let (listener, port) = listen();
    let settings = Settings {
        key_file: Some(key),
        ..settings(port)
    };
    let remote = Remote::start(&settings, Spent::default()).unwrap();
    remote.ask(question(1), true, 1).unwrap();
    let (head, body) = serve(&listener, "200 OK", YES);
    assert!(
        head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.to_lowercase()
            .contains("authorization: bearer k-1\r\n"),
        "{head}"
    );
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&body["model"], &body["temperature"]),
        (&"m".into(), &0.into())
    );
    assert_eq!(
        (&body["max_tokens"], &body["logprobs"]),
        (&8.into(), &true.into())
    );
    let content = &body["messages"][0]["content"];
    let url = &content[0]["image_url"]["url"];
    assert_eq!(*url, "data:image/jpeg;base64,cGljdHVyZQ==");
    let text = content[1]["text"].as_str().unwrap();
    assert!(
        text.starts_with("Is there a person?\n") && text.ends_with("yes; no"),
        "{text}"
    );
    let heard = next(&remote).result.unwrap();
    assert_eq!(heard.finding, Some(exchange::Finding::Choice(0)));
    assert_eq!(
        (heard.text.as_str(), heard.probability),
        ("Yes.", Some(1.0))
    );
}

#[test]
fn whatever_a_server_says_is_an_answer_or_an_error_with_its_kind() {
    let odd = r#"{"choices":[{"message":{"content":"Perhaps"}}]}"#;
    assert_eq!(answer_to("200 OK", odd).unwrap().finding, None);
    let malformed = answer_to("200 OK", "<html>").unwrap_err();
    assert!(
        matches!(malformed, RemoteError::Malformed { .. }),
        "{malformed}"
    );
    for status in [
        "401 Unauthorized",
        "302 Found\r\nLocation: http://127.0.0.1:1/",
        "500 Oh",
    ] {
        let refused = answer_to(status, "no\nkey").unwrap_err();
        let RemoteError::Status {
            status: got, text, ..
        } = refused
        else {
            panic!("{status}: {refused}");
        };
        assert_eq!((&got.to_string()[..], &text[..]), (&status[..3], "nokey"));
    }
    let flood = answer_to("200 OK", &"x".repeat(300 << 10)).unwrap_err();
    assert!(matches!(flood, RemoteError::Connection { .. }), "{flood}");
}

#[test]
fn a_server_that_is_not_there_or_says_nothing_is_an_error() {
    let (listener, port) = listen();
    let short = RemoteQuestion {
        within: Duration::from_millis(20),
        ..question(1)
    };
    let remote = Remote::start(&settings(port), Spent::default()).unwrap();
    remote.ask(short, true, 1).unwrap();
    let silent = next(&remote).result.unwrap_err();
    assert!(matches!(silent, RemoteError::Timeout { .. }), "{silent}");
    drop(listener);
    remote.ask(question(2), true, 1).unwrap();
    let gone = next(&remote).result.unwrap_err();
    assert!(matches!(gone, RemoteError::Connection { .. }), "{gone}");
}

#[test]
fn a_day_has_its_budget_also_over_a_restart() {
    let (_listener, port) = listen();
    let begin = Spent {
        day: 9,
        questions: 1,
    };
    let remote = Remote::start(&settings(port), begin).unwrap();
    remote.ask(question(1), true, 9).unwrap();
    let refused = remote.ask(question(2), true, 9);
    assert!(
        matches!(refused, Err(RemoteError::Budget { spent: 2, limit: 2 })),
        "{refused:?}"
    );
    remote.ask(question(3), true, 10).unwrap();
    let spent = Spent {
        day: 10,
        questions: 1,
    };
    assert_eq!(remote.spent(), spent);
}

#[test]
fn a_picture_that_is_too_long_and_a_full_queue_are_refused() {
    let (_listener, port) = listen();
    let settings = Settings {
        per_day: 100,
        ..settings(port)
    };
    let remote = Remote::start(&settings, Spent::default()).unwrap();
    let long = RemoteQuestion {
        jpeg: vec![0; settings.max_bytes],
        ..question(1)
    };
    let refused = remote.ask(long, true, 1);
    assert!(matches!(refused, Err(RemoteError::TooLong { .. })));
    let full = (0..10).find_map(|id| remote.ask(question(id), true, 1).err());
    let limit = MAX_WAITING;
    assert!(matches!(full, Some(RemoteError::Full { limit: l, .. }) if l == limit));
}

#[test]
fn a_cancelled_question_has_no_answer() {
    let (listener, port) = listen();
    let remote = Remote::start(&settings(port), Spent::default()).unwrap();
    remote.ask(question(1), true, 1).unwrap();
    let (socket, _) = listener.accept().unwrap();
    remote.cancel(QuestionId(1));
    drop(socket);
    remote.ask(question(2), true, 1).unwrap();
    // The library may try a broken connection again.
    while remote.try_next().is_none_or(|answer| {
        assert_eq!(answer.id, QuestionId(2));
        false
    }) {
        listener.set_nonblocking(true).unwrap();
        match listener.accept() {
            Ok((socket, _)) => drop(socket),
            Err(_) => std::thread::yield_now(),
        }
    }
}
