use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::pty::{OpenptyResult, openpty};
use ocelli_wire::message::{Event, Log, Phase, PinEdge, Severity, cut};
use ocelli_wire::{DownReason, Endpoint, FrameBuffer, Identity, Message, Notice, Role, Timing};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const BAUD: u32 = 115_200;

fn pty() -> (OwnedFd, PathBuf, OwnedFd) {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&slave).unwrap();
    // The open slave keeps the terminal alive between two openings.
    (master, path, slave)
}

/// Waits until bytes are there, which for a pseudo-terminal may be a moment after they were sent.
fn await_bytes(fd: impl AsFd) {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let n_ready = nix::poll::poll(&mut fds, PollTimeout::from(5000_u16)).unwrap();
    assert_eq!(n_ready, 1, "nothing came in 5 s");
}

fn ready(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, PollTimeout::from(20_u16)).unwrap() == 1
}

/// A microcontroller on the other end of a pseudo-terminal, and the clock of both.
struct Bench {
    link: SerialLink<Packets>,
    peer: Endpoint<4>,
    frame: FrameBuffer,
    now: Duration,
    agent_heard: Vec<Notice>,
    peer_heard: Vec<Notice>,
    faults: Vec<LinkErrorKind>,
}

impl Bench {
    fn new(path: &Path) -> Bench {
        let settings = SerialSettings {
            path: path.to_path_buf(),
            baud: BAUD,
        };
        let now = Duration::from_secs(1);
        Bench {
            link: SerialLink::new(settings, Packets::new("agent", 5, BAUD, now), 9),
            peer: Endpoint::new(
                Identity::new(Role::Peer, "mcu", 6),
                Timing::for_baud(BAUD),
                1000,
            ),
            frame: FrameBuffer::new(),
            now,
            agent_heard: Vec::new(),
            peer_heard: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// 20 ms of both ends; without `master` the cable is out.
    fn step(&mut self, master: Option<&OwnedFd>) {
        self.now += Duration::from_millis(20);
        let now_ms = self.now.as_millis() as u64;
        if self.link.is_open() {
            let fd = self.link.interest().fd.map(ready);
            assert!(fd.is_some());
        }
        loop {
            match self.link.recv(self.now) {
                Ok(Some(notice)) => self.agent_heard.push(notice),
                Ok(None) => break,
                Err(fault) => self.faults.push(fault.kind()),
            }
        }
        let mut bytes = [0; 4096];
        let n_bytes = match master {
            Some(master) if ready(master) => nix::unistd::read(master, &mut bytes).unwrap_or(0),
            _ => 0,
        };
        let mut rest = &bytes[..n_bytes];
        while let Some(notice) = self.peer.on_bytes(&mut rest, now_ms) {
            self.peer_heard.push(notice);
        }
        while let Some(notice) = self.peer.on_tick(now_ms) {
            self.peer_heard.push(notice);
        }
        while let Some(frame) = self.peer.next_frame(&mut self.frame, now_ms) {
            if let Some(master) = master {
                assert_eq!(nix::unistd::write(master, frame).unwrap(), frame.len());
            }
        }
    }

    fn run_until(&mut self, master: Option<&OwnedFd>, reached: impl Fn(&Bench) -> bool) {
        for _ in 0..500 {
            self.step(master);
            if reached(self) {
                return;
            }
        }
        panic!(
            "not reached: {:?} {:?} {:?}",
            self.agent_heard, self.peer_heard, self.faults
        );
    }
}

fn event(id: u32) -> Message {
    Message::Event(Event {
        id,
        phase: Phase::New,
        rule: cut("door"),
        choice: cut("person"),
        probability: u16::MAX,
    })
}

fn edge(at_ms: u32) -> Message {
    Message::PinEdge(PinEdge {
        pin: cut("pir"),
        level: true,
        at_ms,
    })
}

#[test]
fn packets_go_both_ways_over_a_terminal() {
    let (master, path, _slave) = pty();
    let mut bench = Bench::new(&path);
    bench.run_until(Some(&master), |bench| {
        bench.peer.is_up() && bench.link.dialect().endpoint().is_up()
    });
    let ticket = bench.link.post(event(7), bench.now).unwrap().unwrap();
    bench
        .peer
        .send(edge(8), bench.now.as_millis() as u64)
        .unwrap();
    bench.run_until(Some(&master), |bench| {
        bench.agent_heard.contains(&Notice::Delivered(ticket))
            && bench.agent_heard.contains(&Notice::Received(edge(8)))
    });
    assert!(bench.peer_heard.contains(&Notice::Received(event(7))));
    assert_eq!(bench.faults, []);
}

#[test]
fn an_adapter_unplugged_and_plugged_in_again_loses_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let by_id = folder.path().join("usb-adapter");
    let (master, path, slave) = pty();
    std::os::unix::fs::symlink(path, &by_id).unwrap();
    let mut bench = Bench::new(&by_id);
    bench.run_until(Some(&master), |bench| bench.peer.is_up());
    bench.run_until(Some(&master), |bench| {
        bench.link.dialect().endpoint().is_up()
    });

    drop((master, slave));
    fs::remove_file(&by_id).unwrap();
    bench.link.send(event(1), bench.now).unwrap();
    bench.run_until(None, |bench| {
        !bench.link.is_open() && !bench.peer.is_up() && bench.faults.len() > 1
    });
    assert_eq!(bench.faults[0], LinkErrorKind::Closed);
    assert!(
        bench
            .agent_heard
            .contains(&Notice::Down(DownReason::Closed))
    );
    bench.link.send(event(2), bench.now).unwrap();
    let refused = bench.link.send(
        Message::Log(Log {
            severity: Severity::Info,
            text: cut("loose"),
        }),
        bench.now,
    );
    assert_eq!(refused.unwrap_err().kind(), LinkErrorKind::Closed);

    let (master, path, _slave) = pty();
    std::os::unix::fs::symlink(path, &by_id).unwrap();
    bench.run_until(Some(&master), |bench| {
        bench.peer_heard.contains(&Notice::Received(event(2)))
    });
    let received: Vec<&Notice> = bench
        .peer_heard
        .iter()
        .filter(|notice| matches!(notice, Notice::Received(_)))
        .collect();
    assert_eq!(
        received,
        [&Notice::Received(event(1)), &Notice::Received(event(2))]
    );
}

#[test]
fn tries_to_open_a_device_that_is_away_get_rarer() {
    let mut bench = Bench::new(Path::new("/dev/serial/by-id/none"));
    let mut tries = Vec::new();
    for _ in 0..3000 {
        let next = bench.link.interest().deadline.unwrap();
        bench.step(None);
        if bench.link.interest().deadline.unwrap() != next {
            tries.push(bench.now);
        }
    }
    assert!((8..=13).contains(&tries.len()), "{tries:?}");
    // Said once, not at every try.
    assert_eq!(bench.faults, [LinkErrorKind::Closed]);
}

#[test]
fn a_device_is_locked_against_a_second_program() {
    let (_master, path, _slave) = pty();
    let first = Port::open(&path, BAUD).unwrap();
    let second = Port::open(&path, BAUD).unwrap_err();
    assert!(matches!(second, PortError::InUse { .. }), "{second}");
    drop(first);
    Port::open(&path, BAUD).unwrap();
}

#[test]
fn what_is_no_serial_device_is_refused_with_its_name() {
    let (_master, path, _slave) = pty();
    let cases = [
        ("/dev/null", BAUD, "/dev/null is no serial device"),
        ("/dev/none", BAUD, "cannot open serial device /dev/none"),
        (path.to_str().unwrap(), 115_201, "has no speed of 115201"),
    ];
    for (path, baud, message) in cases {
        let error = Port::open(Path::new(path), baud).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn every_byte_passes_unchanged_both_ways() {
    let (master, path, _slave) = pty();
    let mut port = Port::open(&path, BAUD).unwrap();
    let all: Vec<u8> = (0..=255).collect();
    let mut read = [0; 512];

    nix::unistd::write(&master, &all).unwrap();
    let mut came = Vec::new();
    while came.len() < all.len() {
        await_bytes(port.fd());
        let n_read = port.read(&mut read).unwrap();
        came.extend_from_slice(&read[..n_read]);
    }
    assert_eq!(came, all);

    assert_eq!(port.write(&all).unwrap(), all.len());
    came.clear();
    while came.len() < all.len() {
        await_bytes(&master);
        let n_read = nix::unistd::read(&master, &mut read).unwrap();
        came.extend_from_slice(&read[..n_read]);
    }
    assert_eq!(came, all);
    assert!(!ready(&master), "echo");
}

#[test]
fn a_full_output_buffer_takes_part_of_a_write_and_blocks_nobody() {
    let (master, path, _slave) = pty();
    let mut port = Port::open(&path, BAUD).unwrap();
    let sent: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    let (mut n_sent, mut came, mut n_refused) = (0, Vec::new(), 0);
    let mut read = [0; 4096];
    while came.len() < sent.len() {
        loop {
            let n_written = port.write(&sent[n_sent..]).unwrap();
            n_sent += n_written;
            if n_written == 0 {
                break;
            }
        }
        n_refused += usize::from(n_sent < sent.len());
        await_bytes(&master);
        let n_read = nix::unistd::read(&master, &mut read).unwrap();
        came.extend_from_slice(&read[..n_read]);
    }
    assert!(n_refused > 10, "{n_refused}");
    assert!(came == sent);
}

#[test]
fn a_link_whose_peer_takes_nothing_goes_down_without_blocking() {
    let (master, path, _slave) = pty();
    let mut bench = Bench::new(&path);
    bench.run_until(Some(&master), |bench| {
        bench.peer.is_up() && bench.link.dialect().endpoint().is_up()
    });
    bench.link.send(event(1), bench.now).unwrap();
    bench.run_until(None, |bench| !bench.link.dialect().endpoint().is_up());
    assert!(bench.link.is_open());
    assert!(bench.link.dialect().endpoint().n_waiting() == 1);
}

#[test]
fn a_flood_is_read_in_bounded_pieces() {
    let (master, path, _slave) = pty();
    let mut bench = Bench::new(&path);
    bench.run_until(Some(&master), |bench| {
        bench.peer.is_up() && bench.link.dialect().endpoint().is_up()
    });
    let garbage = [0x55_u8; 2000];
    nix::unistd::write(&master, &garbage).unwrap();
    let mut n_calls = 0;
    await_bytes(bench.link.interest().fd.unwrap());
    while bench.link.interest().fd.is_some_and(ready) {
        assert_eq!(bench.link.recv(bench.now).unwrap(), None);
        n_calls += 1;
    }
    assert!(n_calls >= 4, "{n_calls}");
}

#[test]
fn a_device_that_takes_nothing_does_not_keep_the_loop_awake() {
    let (_master, path, _slave) = pty();
    let settings = SerialSettings { path, baud: BAUD };
    let mut link = SerialLink::new(settings, super::super::line_mode::Lines::new(), 1);
    let now = Duration::from_secs(1);
    let event = || {
        let text = "x".repeat(400);
        super::super::line_mode::Outgoing::Event(super::super::line_mode::Said::new(&text))
    };
    let is_stuck = (0..1000).any(|_| {
        link.send(event(), now).unwrap();
        link.recv(now).unwrap();
        link.interest().writable
    });
    assert!(is_stuck);
    link.send(event(), now).unwrap();
    assert_eq!(link.interest().deadline, None);
    assert!(link.interest().fd.is_some());
}
