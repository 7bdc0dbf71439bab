use super::*;
use crate::source::Fault;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(60);

fn jpeg(luma: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([luma; 3]));
    picture
        .write_to(&mut bytes, image::ImageFormat::Jpeg)
        .unwrap();
    bytes.into_inner()
}

fn brightness(frame: &Frame) -> u8 {
    frame.to_rgb().unwrap().pixels[0]
}

/// A server that answers its first connections with these bytes, one each, and then either closes or stalls.
struct Server {
    address: String,
    requests: mpsc::Receiver<Vec<String>>,
    /// Stalled connections are let go when this is dropped.
    _stalled: Sender<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum After {
    Close,
    Stall,
}

fn serve(answers: Vec<Vec<u8>>, after: After) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("//{}/video", listener.local_addr().unwrap());
    let (tell, requests) = mpsc::channel();
    let (stalled, release) = mpsc::channel::<()>();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = tell.send(request(&stream));
            let _ = stream.write_all(&answer);
            if after == After::Stall {
                let _ = release.recv();
            }
        }
    });
    Server {
        address,
        requests,
        _stalled: stalled,
    }
}

fn request(stream: &TcpStream) -> Vec<String> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).collect()
}

fn open_at(address: &str, query: &str) -> Box<dyn Source> {
    let options = SourceOptions {
        max_age: LONG,
        ..SourceOptions::default()
    };
    open(address, &options.with_query(query).unwrap()).unwrap()
}

fn answer(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn part(body: &[u8], claimed: usize) -> Vec<u8> {
    let head = format!("--edge\r\nContent-Type: image/jpeg\r\nContent-Length: {claimed}\r\n\r\n");
    [head.as_bytes(), body, b"\r\n"].concat()
}

const STREAM: &str = "multipart/x-mixed-replace; boundary=edge";

/// The last frame of a stream, and how it ended.
fn last(source: &mut dyn Source) -> (Option<u8>, SourceError) {
    let mut last = None;
    loop {
        match source.next_frame(LONG) {
            Ok(frame) => last = Some(brightness(&frame)),
            Err(error) => return (last, error),
        }
    }
}

#[test]
fn the_newest_picture_of_a_stream_is_delivered_whatever_the_parts_claim() {
    let (black, white) = (jpeg(0), jpeg(255));
    let sound = [part(&black, black.len()), part(&white, white.len())].concat();
    let lying = [part(&black, 5), part(&white, 99_999)].concat();
    let bare = [black.clone(), white.clone()].concat();
    let rubbish = [
        b"--other\r\n\xff\xd8 nonsense \xff\xff\xd9".as_slice(),
        &part(&white, 1),
    ]
    .concat();
    let cut = [
        part(&white, white.len()),
        part(&black, black.len())[..black.len() / 2].to_vec(),
    ]
    .concat();
    for (name, body) in [
        ("sound", sound),
        ("lying", lying),
        ("bare", bare),
        ("rubbish", rubbish),
        ("cut", cut),
    ] {
        let server = serve(vec![answer(STREAM, &body)], After::Close);
        let (frame, error) = last(open_at(&server.address, "").as_mut());
        assert_eq!(frame, Some(255), "{name}");
        assert_eq!(error.fault(), Fault::Device, "{name}: {error}");
    }
}

#[test]
fn snapshots_are_asked_for_again_and_again() {
    let answers = [10, 20, 30]
        .map(|luma| answer("image/jpeg", &jpeg(luma)))
        .to_vec();
    let server = serve(answers, After::Close);
    let mut source = open_at(&server.address, "rate=1000");
    let (frame, _) = last(source.as_mut());
    assert!(frame.unwrap().abs_diff(30) < 3, "{frame:?}");
    assert_eq!(server.requests.iter().count(), 3);
}

#[test]
fn a_camera_that_stalls_is_given_up_after_the_time_limit() {
    let picture = jpeg(9);
    let begun = part(&picture, picture.len());
    let silent = vec![];
    let half = answer(STREAM, &begun[..begun.len() - 20]);
    for (name, bytes) in [("before the answer", silent), ("within a picture", half)] {
        let server = serve(vec![bytes], After::Stall);
        let mut source = open_at(&server.address, "stall_ms=50");
        let error = source.next_frame(LONG).unwrap_err();
        assert_eq!(error.fault(), Fault::Device, "{name}: {error}");
    }
}

#[test]
fn a_stalled_camera_can_be_closed_at_once() {
    let server = serve(vec![answer(STREAM, b"--edge\r\n")], After::Stall);
    let source = open_at(&server.address, "stall_ms=3600000");
    server.requests.recv().unwrap();
    drop(source);
}

#[test]
fn what_is_no_camera_is_told_with_advice() {
    let head =
        |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let cases = [
        (
            answer("text/html", b"<html>hello</html>"),
            "it sent text/html, no JPEG",
        ),
        (
            answer("image/jpeg", &jpeg(1)[..30]),
            "it sent image/jpeg, no JPEG",
        ),
        (answer(STREAM, b""), "without a frame"),
        (head("401 Unauthorized"), "write http://USER:PASSWORD@HOST"),
        (head("404 Not Found"), "manual"),
        (head("500 Oh"), "status 500"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "went away"),
    ];
    for (bytes, expected) in cases {
        let server = serve(vec![bytes], After::Close);
        let error = open_at(&server.address, "")
            .next_frame(LONG)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error} should say {expected}");
    }
}

#[test]
fn name_and_password_go_into_a_header_and_nowhere_else() {
    let server = serve(vec![answer("image/jpeg", &jpeg(1))], After::Close);
    let address = server.address.replace("//", "//user:p%40ss@");
    let mut source = open_at(&address, "");
    source.next_frame(LONG).unwrap();
    let request = server.requests.recv().unwrap();
    let expected = format!("Basic {}", STANDARD.encode("user:p@ss"));
    let found = request.iter().any(|line| line.ends_with(&expected));
    assert!(found, "{request:?}");
    assert_eq!(request[0], "GET /video HTTP/1.1");
    assert!(!source.describe().contains("ss@"), "{}", source.describe());
}
