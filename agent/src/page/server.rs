//! The thread that holds the connections.
//!
//! One `poll` serves all of them, one request each, so that a slow reader keeps nobody waiting.

use super::request::{MAX_BODY_BYTES, MAX_HEAD_BYTES, Method, Parsed, parse};
use super::site::{Body, Response, Site, View};
use super::{Decision, PageState};
use crate::mailbox::{Mailbox, event};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections at a time; one more closes the oldest.
pub(super) const MAX_CONNECTIONS: usize = 16;
/// Time to send a request.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Time to take the answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Time to close after the answer.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Pause after the system had no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Largest picture sent, in bytes.
const MAX_PICTURE_BYTES: u64 = 16 << 20;

/// What the thread and the handle share.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    decisions: Mailbox<Decision>,
    /// Wakes the thread.
    wake: EventFd,
}

#[derive(Default)]
struct Inner {
    state: Arc<PageState>,
    progress: Option<Instant>,
    stop: bool,
}

impl Shared {
    pub(super) fn new(decisions: Mailbox<Decision>) -> std::io::Result<Shared> {
        Ok(Shared {
            inner: Mutex::new(Inner::default()),
            decisions,
            wake: event()?,
        })
    }

    pub(super) fn decisions(&self) -> &Mailbox<Decision> {
        &self.decisions
    }

    pub(super) fn show(&self, state: PageState) {
        self.inner().state = Arc::new(state);
    }

    pub(super) fn progressed(&self) {
        self.inner().progress = Some(Instant::now());
    }

    pub(super) fn stop(&self) {
        self.inner().stop = true;
        let _ = self.wake.write(1);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Phase {
    /// The request comes in.
    Request(Vec<u8>),
    /// The answer goes out; so much of it is sent.
    Answer(Vec<u8>, usize),
    /// What still comes is thrown away, so that closing does not cut off the answer.
    Close,
}

struct Connection {
    socket: TcpStream,
    phase: Phase,
    until: Instant,
}

/// The thread's whole life.
pub(super) fn run(listener: &TcpListener, shared: &Shared, site: &Site) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut accept_from = Instant::now();
    while !shared.inner().stop {
        let now = Instant::now();
        if now >= accept_from && accept(listener, &mut connections, now).is_err() {
            accept_from = now + ACCEPT_PAUSE;
        }
        connections.retain_mut(|connection| {
            now < connection.until && connection.advance(now, shared, site)
        });
        let pause = (now < accept_from).then_some(accept_from);
        wait(listener, shared, &connections, pause);
    }
}

fn accept(
    listener: &TcpListener,
    connections: &mut Vec<Connection>,
    now: Instant,
) -> std::io::Result<()> {
    // No more at a time than there are places: the others get their turn in between.
    for _ in 0..MAX_CONNECTIONS {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(fault) if is_passing(fault.kind()) => continue,
            Err(fault) => return Err(fault),
        };
        if socket.set_nonblocking(true).is_err() {
            continue;
        }
        if connections.len() >= MAX_CONNECTIONS {
            // In order of their begin.
            connections.remove(0);
        }
        connections.push(Connection {
            socket,
            phase: Phase::Request(Vec::new()),
            until: now + REQUEST_TIME,
        });
    }
    Ok(())
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Interrupted | ErrorKind::ConnectionAborted)
}

fn wait(
    listener: &TcpListener,
    shared: &Shared,
    connections: &[Connection],
    pause: Option<Instant>,
) {
    let mut fds = vec![PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN)];
    if pause.is_none() {
        fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
    }
    for connection in connections {
        let flags = match connection.phase {
            Phase::Answer(..) => PollFlags::POLLOUT,
            Phase::Request(_) | Phase::Close => PollFlags::POLLIN,
        };
        fds.push(PollFd::new(connection.socket.as_fd(), flags));
    }
    let next = connections.iter().map(|one| one.until).chain(pause).min();
    let timeout = next.map_or(PollTimeout::NONE, |next| {
        let left = next.saturating_duration_since(Instant::now());
        let left = left.as_nanos().div_ceil(1_000_000).min(60_000) as u64;
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    });
    let _ = poll(&mut fds, timeout);
    let _ = shared.wake.read();
}

impl Connection {
    /// Goes on as far as that does not block; false: the connection is over.
    fn advance(&mut self, now: Instant, shared: &Shared, site: &Site) -> bool {
        match &mut self.phase {
            Phase::Request(bytes) => {
                let mut open = true;
                let mut buffer = [0; 4096];
                while bytes.len() <= MAX_HEAD_BYTES + MAX_BODY_BYTES {
                    match self.socket.read(&mut buffer) {
                        Ok(0) => {
                            open = false;
                            break;
                        }
                        Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                        Err(fault) if fault.kind() == ErrorKind::WouldBlock => break,
                        Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                        Err(_) => return false,
                    }
                }
                let Some(answer) = respond(bytes, shared, site, now) else {
                    return open;
                };
                self.phase = Phase::Answer(answer, 0);
                self.until = now + ANSWER_TIME;
                self.advance(now, shared, site)
            }
            Phase::Answer(bytes, sent) => {
                while let Some(left) = bytes.get(*sent..).filter(|left| !left.is_empty()) {
                    match self.socket.write(left) {
                        Ok(n) => *sent += n,
                        Err(fault) if fault.kind() == ErrorKind::WouldBlock => return true,
                        Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                        Err(_) => return false,
                    }
                }
                self.phase = Phase::Close;
                self.until = now + CLOSE_TIME;
                self.socket.shutdown(Shutdown::Write).is_ok()
            }
            Phase::Close => {
                let mut buffer = [0; 4096];
                match self.socket.read(&mut buffer) {
                    Ok(n) => n > 0,
                    Err(fault) => {
                        matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
                    }
                }
            }
        }
    }
}

/// The bytes of the answer, once the request is whole.
fn respond(bytes: &[u8], shared: &Shared, site: &Site, now: Instant) -> Option<Vec<u8>> {
    let (response, head_only) = match parse(bytes) {
        Parsed::More => return None,
        Parsed::Bad(refusal) => (Response::text(refusal.status, refusal.text), false),
        Parsed::Whole(request) => {
            let (state, progress) = {
                let inner = shared.inner();
                (Arc::clone(&inner.state), inner.progress)
            };
            let view = View {
                state: &state,
                idle: progress.map(|then| now.saturating_duration_since(then)),
            };
            let response = site.answer(&request, &view, &mut |decision| {
                shared.decisions.put(decision).is_ok()
            });
            (response, request.method == Method::Head)
        }
    };
    Some(written(response, head_only, site.policy()))
}

fn written(mut response: Response, head_only: bool, policy: &str) -> Vec<u8> {
    let body = match response.body {
        Body::Bytes(bytes) => bytes,
        Body::File(path) => match read_picture(&path) {
            Ok(bytes) => bytes,
            Err(_) => {
                response = Response::text(404, "The picture was removed; load the page again.");
                return written(response, head_only, policy);
            }
        },
    };
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n\
         Content-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: {policy}\r\nX-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: DENY\r\nReferrer-Policy: same-origin\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n",
        response.status,
        reason(response.status),
        response.media_type,
        body.len(),
    );
    for (name, value) in response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !head_only {
        bytes.extend(body);
    }
    bytes
}

fn read_picture(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_PICTURE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PICTURE_BYTES {
        return Err(std::io::Error::other("too long"));
    }
    Ok(bytes)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        303 => "See Other",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Bad Request",
    }
}
