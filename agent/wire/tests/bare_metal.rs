//! The example peer, built for a bare machine, on an emulated board.
//!
//! ```sh
//! (cd agent/wire/peer && cargo build --release)
//! OCELLI_PEER=agent/wire/peer/target/thumbv7m-none-eabi/release/ocelli-peer \
//!     cargo test -p ocelli-wire --test bare_metal -- --ignored
//! ```

use ocelli_wire::message::{Outcome, PinEdge, PinOutcome, Reading, SetPin, cut};
use ocelli_wire::{Endpoint, FrameBuffer, Identity, Message, Notice, Role, Timing};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// GPIODATA of the status lamp alone.
const LAMP: &str = "xp /1wx 0x40025004\n";

struct Board {
    qemu: Child,
    line: UnixStream,
    monitor: UnixStream,
    agent: Endpoint<8>,
    frame: FrameBuffer,
    start: Instant,
    heard: Vec<Notice>,
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream
                    .set_read_timeout(Some(Duration::from_millis(5)))
                    .unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", path.display()),
        }
        std::thread::yield_now();
    }
}

impl Board {
    fn start(elf: &str) -> Board {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let [line, monitor] = ["line", "monitor"].map(|name| folder.join(name));
        let socket = |path: &Path| {
            let _ = std::fs::remove_file(path);
            format!("unix:{},server=on,wait=off", path.display())
        };
        let qemu = Command::new("qemu-system-arm")
            .args(["-M", "lm3s6965evb", "-display", "none", "-kernel", elf])
            .args(["-serial", &socket(&line), "-monitor", &socket(&monitor)])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-system-arm is installed");
        Board {
            line: connect(&line),
            monitor: connect(&monitor),
            qemu,
            agent: Endpoint::new(
                Identity::new(Role::Agent, "host", 0x0ce1),
                Timing::for_baud(115_200),
                0,
            ),
            frame: FrameBuffer::new(),
            start: Instant::now(),
            heard: Vec::new(),
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn step(&mut self) {
        let mut bytes = [0; 1024];
        let n_bytes = match self.line.read(&mut bytes) {
            Ok(n_bytes) => n_bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        let (mut rest, now) = (&bytes[..n_bytes], self.now());
        while let Some(notice) = self.agent.on_bytes(&mut rest, now) {
            self.heard.push(notice);
        }
        while let Some(notice) = self.agent.on_tick(now) {
            self.heard.push(notice);
        }
        while let Some(frame) = self.agent.next_frame(&mut self.frame, now) {
            self.line.write_all(frame).unwrap();
        }
    }

    fn run_until(&mut self, what: &str, reached: impl Fn(&Notice) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.heard.iter().position(&reached) {
                self.heard.drain(..=at);
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {:?}", self.heard);
            self.step();
        }
    }

    fn monitor(&mut self, command: &str) -> String {
        self.monitor.write_all(command.as_bytes()).unwrap();
        let (mut answer, mut bytes) = (String::new(), [0; 1024]);
        while !answer.ends_with("(qemu) ") || !answer.contains('\n') {
            if let Ok(n_bytes) = self.monitor.read(&mut bytes) {
                answer += &String::from_utf8_lossy(&bytes[..n_bytes]);
            }
        }
        answer
    }

    fn lamp(&mut self) -> bool {
        let answer = self.monitor(LAMP);
        let (_, value) = answer
            .rsplit_once(": 0x")
            .unwrap_or_else(|| panic!("{answer}"));
        value.starts_with("00000001")
    }

    /// Bytes of the stack that were ever written: RAM is zero at the start, static data lie at its
    /// begin and the stack grows down from its end.
    fn deepest_stack(&mut self) -> usize {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ram");
        self.monitor(&format!(
            "pmemsave 0x20000000 65536 \"{}\"\n",
            file.display()
        ));
        let ram = std::fs::read(file).unwrap();
        let static_bytes = 64;
        let free = ram[static_bytes..].iter().take_while(|byte| **byte == 0);
        ram.len() - static_bytes - free.count()
    }

    fn set_lamp(&mut self, request: u16, max_on_ms: u32) {
        let set = SetPin {
            request,
            pin: cut("lamp"),
            value: 1,
            max_on_ms,
        };
        let now = self.now();
        self.agent.send(Message::SetPin(set), now).unwrap();
        self.run_until("lamp set", |notice| {
            *notice
                == Notice::Received(Message::PinOutcome(PinOutcome {
                    request,
                    outcome: Outcome::Done,
                }))
        });
    }
}

#[test]
#[ignore = "needs qemu-system-arm and the built peer"]
fn a_microcontroller_speaks_the_protocol_and_goes_safe_by_itself() {
    let elf = std::env::var("OCELLI_PEER").expect("OCELLI_PEER names the built peer");
    let mut board = Board::start(&elf);
    // The monitor's greeting.
    board.monitor("info version\n");
    board.run_until(
        "link up",
        |notice| matches!(notice, Notice::Up { name, .. } if name == "door"),
    );
    board.run_until("reading", |notice| {
        matches!(notice, Notice::Received(Message::Reading(Reading { sensor, .. })) if sensor == "uptime")
    });

    assert!(!board.lamp());
    board.set_lamp(1, 1500);
    assert!(board.lamp());
    let deadline = Instant::now() + Duration::from_secs(20);
    while board.lamp() {
        board.step();
        assert!(
            Instant::now() < deadline,
            "the lamp did not go off after its time"
        );
    }
    assert!(board.agent.is_up());

    board.monitor("sendkey up\n");
    board.run_until("edge", |notice| {
        matches!(notice, Notice::Received(Message::PinEdge(PinEdge { pin, .. })) if pin == "button")
    });

    // The agent stops talking: after 2 s the lamp must be off, long before its 10 s are over.
    board.set_lamp(2, 60_000);
    assert!(board.lamp());
    let silent_from = Instant::now();
    while board.lamp() {
        assert!(
            silent_from.elapsed() < Duration::from_secs(8),
            "not safe without link"
        );
    }
    println!("lamp off after {:?} of silence", silent_from.elapsed());
    board.heard.clear();
    board.run_until("link down", |notice| matches!(notice, Notice::Down(_)));
    board.run_until("link up again", |notice| {
        matches!(
            notice,
            Notice::Up {
                is_new_run: false,
                ..
            }
        )
    });
    println!("deepest stack {} bytes", board.deepest_stack());
}
