//! A hub on this machine, as good or as bad as a test wants it.

use ocelli_tests::checkpoint::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The commit that `main` means.
pub(crate) const COMMIT: &str = "7e3e67edbbed1bf9888184d9df282b700a323964";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// A header's value, by its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map(|(_, value)| value.as_str())
    }

    /// Whether the content of a file is asked for.
    pub(crate) fn is_for(&self, file: &str) -> bool {
        self.path.ends_with(&format!("/resolve/{COMMIT}/{file}"))
    }

    /// First byte of the range that is asked for.
    pub(crate) fn start(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// What comes after the head of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// These bytes.
    Whole(Vec<u8>),
    /// These bytes of so many that were promised; then the connection ends.
    Cut(Vec<u8>, usize),
    /// These bytes of so many that were promised; then nothing until the peer gives up.
    Stall(Vec<u8>, usize),
    /// These bytes of so many that were promised, so many every 20 ms.
    Trickle(Vec<u8>, usize, usize),
    /// Bytes until the peer gives up.
    Endless,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Body::Whole(body.into()),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: Body) -> Reply {
        self.body = body;
        self
    }

    pub(crate) fn redirect(to: impl ToString) -> Reply {
        Reply::new(302, "").with("Location", to)
    }
}

/// Files that a hub publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Published {
    pub(crate) fn of(files: &[(&str, &[u8])]) -> Published {
        let file = |(path, bytes): &(&str, &[u8])| ((*path).to_owned(), bytes.to_vec());
        Published {
            files: files.iter().map(file).collect(),
        }
    }

    /// The hub's list of these files.
    pub(crate) fn listing(&self) -> Value {
        let file = |(path, bytes): (&String, &Vec<u8>)| {
            let lfs = json!({ "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134 });
            json!({ "rfilename": path, "size": bytes.len(), "blobId": "0".repeat(40), "lfs": lfs })
        };
        let files: Vec<Value> = self.files.iter().map(file).collect();
        json!({ "id": "owner/name", "sha": COMMIT, "siblings": files,
            "cardData": { "license": "apache-2.0" } })
    }

    /// What a good hub answers.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        if request.path.starts_with("/api/models/owner/name/revision/") {
            return Reply::new(200, self.listing().to_string())
                .with("Content-Type", "application/json");
        }
        let prefix = format!("/owner/name/resolve/{COMMIT}/");
        let file = request.path.strip_prefix(&prefix);
        let Some(bytes) = file.and_then(|file| self.files.get(file)) else {
            return Reply::new(404, "no such thing").with("X-Error-Code", "EntryNotFound");
        };
        content(request, bytes, &format!("\"{}\"", sha256(bytes)))
    }
}

/// Bytes under a validator, as a whole or from where the request wants them.
pub(crate) fn content(request: &Request, bytes: &[u8], etag: &str) -> Reply {
    let is_same = request.header("if-range").is_none_or(|known| known == etag);
    let reply = match request.start().filter(|_| is_same) {
        None => Reply::new(200, bytes),
        Some(start) if start >= bytes.len() => Reply::new(416, ""),
        Some(start) => part(bytes, start),
    };
    reply.with("ETag", etag).with("X-Repo-Commit", COMMIT)
}

/// The answer that goes on from a byte.
pub(crate) fn part(bytes: &[u8], start: usize) -> Reply {
    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::new(206, &bytes[start..]).with("Content-Range", range)
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A listening server; its threads end with the test.
pub(crate) struct Server {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request by a function of it and of how many such requests came before.
    pub(crate) fn start(
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (theirs, answer) = (Arc::clone(&log), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&theirs), Arc::clone(&answer));
                thread::spawn(move || serve(&stream, &log, &*answer));
            }
        });
        Server { port, log }
    }

    /// A good hub.
    pub(crate) fn good(published: Published) -> Server {
        Server::start(move |request, _| published.answer(request))
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every request so far.
    pub(crate) fn log(&self) -> Vec<Request> {
        self.log.lock().expect("no thread panicked").clone()
    }

    /// The requests for a file's content.
    pub(crate) fn requests_for(&self, file: &str) -> Vec<Request> {
        let mut log = self.log();
        log.retain(|request| request.is_for(file));
        log
    }
}

fn serve(
    stream: &TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request, usize) -> Reply + Send + Sync),
) {
    let Some(request) = read(stream) else { return };
    let before = {
        let mut log = log.lock().expect("no thread panicked");
        let same = |other: &&Request| other.path == request.path && other.method == request.method;
        let before = log.iter().filter(same).count();
        log.push(request.clone());
        before
    };
    // A peer that has gone is no fault of the server.
    let _ = write(stream, &request, &answer(&request, before));
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some(Request {
        method,
        path,
        headers,
    })
}

fn write(mut stream: &TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let says_length = reply
        .headers
        .iter()
        .any(|(name, _)| *name == "Content-Length");
    let length = match &reply.body {
        Body::Whole(bytes) => Some(bytes.len()),
        Body::Cut(_, length) | Body::Stall(_, length) | Body::Trickle(_, length, _) => {
            Some(*length)
        }
        Body::Endless => None,
    };
    if let (Some(length), false) = (length, says_length) {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match &reply.body {
        Body::Whole(bytes) | Body::Cut(bytes, _) => stream.write_all(bytes),
        Body::Stall(bytes, _) => {
            stream.write_all(bytes)?;
            stream.read(&mut [0]).map(drop)
        }
        Body::Trickle(bytes, _, at_once) => bytes.chunks(*at_once).try_for_each(|part| {
            thread::sleep(Duration::from_millis(20));
            stream.write_all(part)
        }),
        Body::Endless => loop {
            stream.write_all(&[b'x'; 4096])?;
        },
    }
}
