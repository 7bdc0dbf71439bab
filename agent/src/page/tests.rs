use super::server::MAX_CONNECTIONS;
use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{Read, Write};
use std::net::TcpStream;

fn page() -> Page {
    Page::start(&Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Settings::default()
    })
    .unwrap()
}

fn talk(page: &Page, request: &str) -> String {
    let mut socket = TcpStream::connect(page.address()).unwrap();
    let request = request.replace('\n', "\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn get(page: &Page, path: &str) -> String {
    talk(page, &format!("GET {path} HTTP/1.1\nHost: localhost\n\n"))
}

#[test]
fn a_person_reads_the_page_and_decides() {
    let page = page();
    page.show(PageState {
        device: "door".to_owned(),
        pending: vec![PendingAction {
            request: 7,
            nonce: 99,
            what: "Open the door".to_owned(),
            may_decide: true,
            ..PendingAction::default()
        }],
        ..PageState::default()
    });
    let answer = get(&page, "/");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for header in [
        "Cache-Control: no-store\r\n",
        "Content-Security-Policy: default-src 'none';",
        "X-Frame-Options: DENY\r\n",
    ] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
    assert!(answer.contains("Open the door"), "{answer}");
    let (_, csrf) = answer.split_once("name=\"csrf\" value=\"").unwrap();
    let csrf = &csrf[..csrf.find('"').unwrap()];
    assert_eq!(csrf.len(), 32);
    let body = format!("request=7&nonce=99&csrf={csrf}&decision=allow");
    let head = "POST /decide HTTP/1.1\nHost: localhost\nOrigin: http://localhost\n";
    let answer = talk(
        &page,
        &format!("{head}Content-Length: {}\n\n{body}", body.len()),
    );
    assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
    let mut fds = [PollFd::new(page.fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
    let decision = Decision {
        request: 7,
        nonce: 99,
        granted: true,
    };
    assert_eq!((page.try_next(), page.try_next()), (Some(decision), None));
}

#[test]
fn slow_readers_keep_nobody_waiting() {
    let page = page();
    let mut slow = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        let mut socket = TcpStream::connect(page.address()).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
        slow.push(socket);
    }
    page.progressed();
    assert!(get(&page, "/health").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_picture_is_sent_whole_and_a_removed_one_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.jpg");
    let picture = "jpeg ".repeat(400_000);
    std::fs::write(&path, &picture).unwrap();
    let page = page();
    page.show(PageState {
        pictures: vec![Picture {
            name: "a.jpg".to_owned(),
            path: path.clone(),
        }],
        ..PageState::default()
    });
    let answer = get(&page, "/snapshot/a.jpg");
    assert!(answer.contains("Content-Type: image/jpeg\r\n"));
    assert!(answer.ends_with(&format!("\r\n\r\n{picture}")));
    let head = talk(&page, "HEAD /snapshot/a.jpg HTTP/1.1\nHost: localhost\n\n");
    assert!(head.contains("Content-Length: 2000000\r\n") && head.ends_with("\r\n\r\n"));
    std::fs::remove_file(path).unwrap();
    assert!(get(&page, "/snapshot/a.jpg").starts_with("HTTP/1.1 404 "));
}

#[test]
fn what_is_no_request_is_refused() {
    let page = page();
    let long = "x".repeat(9000);
    for (request, status) in [
        ("nonsense\n\n", "400"),
        ("GET / HTTP/1.1\nHost: evil.example\n\n", "421"),
        (
            "POST /decide HTTP/1.1\nHost: localhost\nContent-Length: 9000\n\n",
            "413",
        ),
        (&format!("GET /{long} HTTP/1.1\n"), "431"),
    ] {
        let answer = talk(&page, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}
