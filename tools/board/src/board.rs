//! [`Board`]: a running guest.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::channel::{Channel, Silence};
use crate::disk::{self, Disk};
use crate::image::Image;
use crate::options::{self, Files, JOBS, Options};
use crate::qemu::Qemu;
use crate::qmp::{Event, Qmp};
use crate::seat::Seat;
use crate::shell::{self, Output};
use crate::{BlockLog, Camera, Error, Job, Network, Pins, SerialLine, UsbSerial};

/// From start to shell; generous, as the host may be busy.
const BOOT_LIMIT: Duration = Duration::from_secs(100);
const SOCKET_LIMIT: Duration = Duration::from_secs(20);
/// For commands of the driver itself.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(30);
const CONSOLE_TAIL: usize = 3000;
/// Port 1 is the shell's.
const JOB_PORTS: std::ops::RangeInclusive<usize> = 2..=JOBS + 1;

/// A running guest. Dropping it pulls the plug.
pub struct Board {
    // Fields are dropped in this order: the emulator must be gone before its disks and its seat.
    qemu: Qemu,
    qmp: Qmp,
    console: Channel,
    shell: Mutex<Channel>,
    free_ports: Mutex<VecDeque<(usize, Channel)>>,
    pins: Pins,
    serial: SerialLine,
    camera_number: Mutex<u32>,
    counter: AtomicU64,
    disks: Disks,
    _seat: Seat,
}

/// The files behind the guest's disks.
struct Disks {
    data: Arc<Disk>,
    write_log: Option<Disk>,
    /// The data disk as it was before the first write, for replays of the log.
    before: Option<Disk>,
    hand_in: Arc<Disk>,
}

impl Board {
    /// Boots a guest and waits for its shell (3 to 10 s). The camera is plugged in.
    ///
    /// # Errors
    ///
    /// When the emulator does not start or the shell does not come in time.
    pub fn boot(image: &Image, options: &Options) -> Result<Board, Error> {
        let board = Board::start(image, options, None)?;
        board.run("true", BOOT_LIMIT)?;
        board.load_modules("camera")?;
        board.load_modules("usb")?;
        board.camera().plug_in(0)?;
        board.mount(options)?;
        Ok(board)
    }

    /// Starts the emulator, with the state of a snapshot if there is one, and connects.
    pub(crate) fn start(
        image: &Image,
        options: &Options,
        snapshot: Option<&Path>,
    ) -> Result<Board, Error> {
        let seat = Seat::take()?;
        let disks = Disks::prepare(options)?;
        let folder = disk::folder()?;
        let (hand_in, data) = (disks.hand_in.path(), disks.data.path());
        let log = disks.write_log.as_ref().map(Disk::path);
        let files = Files {
            hand_in: &hand_in,
            data: &data,
            write_log: log.as_deref(),
        };
        let mut command = options.machine(image, "", &files);
        add_sockets(&mut command, folder.path());
        if let Some(snapshot) = snapshot {
            let reader = format!(
                "exec:zstd -dqc {}",
                shell::quoted(&snapshot.to_string_lossy())
            );
            command.arg("-incoming").arg(reader);
        }
        let qemu = Qemu::start(command, folder)?;
        let channel = |name: &str| {
            let stream = qemu.connect(name, SOCKET_LIMIT)?;
            Channel::new(stream).map_err(Error::io("using", name))
        };
        let console = channel("console")?;
        let shell = Mutex::new(channel("port1")?);
        let mut jobs = VecDeque::new();
        for number in JOB_PORTS {
            jobs.push_back((number, channel(&format!("port{number}"))?));
        }
        let serial = SerialLine::new(channel("serial")?);
        let qmp = Qmp::open(qemu.connect("qmp", SOCKET_LIMIT)?)?;
        let pins = Pins::open(qemu.connect("qtest", SOCKET_LIMIT)?, &qmp)?;
        Ok(Board {
            qmp,
            console,
            shell,
            free_ports: Mutex::new(jobs),
            pins,
            serial,
            camera_number: Mutex::new(0),
            counter: AtomicU64::new(0),
            disks,
            qemu,
            _seat: seat,
        })
    }

    /// The command line without what differs from run to run: what a snapshot depends on.
    pub(crate) fn hardware(image: &Image, options: &Options) -> Command {
        let files = Files {
            hand_in: Path::new("in"),
            data: Path::new("data"),
            write_log: None,
        };
        let mut command = options.machine(image, "", &files);
        add_sockets(&mut command, Path::new("run"));
        command
    }

    /// Runs a shell command to its end. Standard error goes to the console.
    ///
    /// # Errors
    ///
    /// When it does not end in time or the guest dies. After that the shell stays busy.
    pub fn run(&self, command: &str, limit: Duration) -> Result<Output, Error> {
        let channel = self.shell();
        let number = self.next_number();
        let sent = channel.send(shell::foreground(command, number).as_bytes());
        sent.map_err(|_| Silence::Closed)
            .and_then(|()| shell::output(&channel, number, limit))
            .map_err(|silence| self.silence(command, limit, silence))
    }

    /// Runs a command of up to 30 s that must end with status 0; returns its standard output.
    ///
    /// # Errors
    ///
    /// As [`Board::run`], and for any other status.
    pub fn sh(&self, command: &str) -> Result<String, Error> {
        let output = self.run(command, STEP_LIMIT)?;
        if output.status == 0 {
            return Ok(output.stdout);
        }
        Err(Error::Status {
            command: command.to_owned(),
            status: output.status,
            stdout: output.stdout,
            console: self.console_tail(),
        })
    }

    /// Starts a command in the background; up to 4 can run at a time.
    ///
    /// # Errors
    ///
    /// When 4 run already or the guest dies.
    pub fn spawn(&self, command: &str) -> Result<Job<'_>, Error> {
        Job::start(self, command)
    }

    /// The content of a file in the guest.
    ///
    /// # Errors
    ///
    /// When there is no such file.
    pub fn fetch(&self, path: &str) -> Result<Vec<u8>, Error> {
        let word = shell::quoted(path);
        let size = self.sh(&format!("stat -L -c %s {word}"))?;
        let size = size.trim().parse().map_err(|_| Error::Unexpected {
            what: format!("the size of {path}"),
            found: size,
        })?;
        let job = self.spawn(&format!("cat {word}"))?;
        let bytes = job.bytes(size, STEP_LIMIT)?;
        job.wait(STEP_LIMIT)?;
        Ok(bytes)
    }

    /// Writes a file in the guest; for a few MB, more goes faster through [`Options::hand_in`].
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let word = shell::quoted(path);
        let job = self.spawn(&format!("echo ready; head -c {} >{word}", bytes.len()))?;
        job.line(STEP_LIMIT)?;
        job.send(bytes)?;
        match job.wait(STEP_LIMIT)? {
            0 => Ok(()),
            status => Err(Error::Status {
                command: format!("writing {path}"),
                status,
                stdout: String::new(),
                console: self.console_tail(),
            }),
        }
    }

    /// The camera.
    pub fn camera(&self) -> Camera<'_> {
        Camera::new(self, &self.camera_number)
    }

    /// General purpose pins 0 to 7 of `gpiochip0`; pin 3 is the power key of the kernel.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The serial line that is `/dev/ttyS0` in the guest.
    pub fn serial(&self) -> &SerialLine {
        &self.serial
    }

    /// Plugs a USB serial adapter in; it becomes `/dev/ttyUSB0`.
    ///
    /// # Errors
    ///
    /// When one is plugged in already.
    pub fn plug_usb_serial(&self) -> Result<UsbSerial<'_>, Error> {
        UsbSerial::plug(self)
    }

    /// The network cable, and ways in from the host. The host's loopback is 10.0.2.2 in the guest.
    pub fn network(&self) -> Network<'_> {
        Network::new(&self.qmp)
    }

    /// Waits for an event of the emulator, such as `WATCHDOG`, `RESET` or `SHUTDOWN`.
    pub fn event(&self, name: &str, limit: Duration) -> Option<Event> {
        self.qmp.event(name, limit)
    }

    /// Runs a command of the emulator's monitor.
    ///
    /// # Errors
    ///
    /// When the emulator refuses it.
    pub fn monitor(&self, command: &str, arguments: Value) -> Result<Value, Error> {
        self.qmp.execute(command, arguments)
    }

    /// Sets the guest's clock to the host's, to the second.
    ///
    /// # Errors
    ///
    /// When the guest dies.
    pub fn set_clock(&self, to: SystemTime) -> Result<(), Error> {
        let seconds = to.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.sh(&format!("date -u -s @{seconds}")).map(drop)
    }

    /// Loads a group of kernel modules: `usb`, `watchdog`, `camera` (without the camera itself).
    ///
    /// # Errors
    ///
    /// When there is no such group.
    pub fn load_modules(&self, group: &str) -> Result<(), Error> {
        self.sh(&format!("board-modules {group}")).map(drop)
    }

    /// Pulls the plug as a power cut does: nothing is flushed. Returns the data disk.
    pub fn cut_power(self) -> Arc<Disk> {
        self.qemu.kill();
        Arc::clone(&self.disks.data)
    }

    /// Pulls the plug and returns every write the data disk saw, in order.
    ///
    /// # Errors
    ///
    /// When the board was started without [`Options::log_writes`], or the log is damaged.
    pub fn cut_power_and_read_log(self) -> Result<BlockLog, Error> {
        self.qemu.kill();
        let Disks {
            write_log, before, ..
        } = self.disks;
        match (write_log, before) {
            (Some(log), Some(before)) => BlockLog::read(&log.path(), before),
            _ => Err(Error::Unexpected {
                what: "the log of writes".to_owned(),
                found: "a board without `log_writes`".to_owned(),
            }),
        }
    }

    /// Switches off in order and says whether the emulator ended within `limit`.
    pub fn power_off(self, limit: Duration) -> bool {
        let shell = self.shell();
        let _ = shell.send(b"sync; poweroff -f\n");
        self.qemu.wait(limit)
    }

    /// Whether the emulator still runs.
    pub fn is_running(&self) -> bool {
        self.qemu.is_running()
    }

    /// Waits for the emulator to end by itself; says whether it did within `limit`.
    pub fn await_end(&self, limit: Duration) -> bool {
        self.qemu.wait(limit)
    }

    /// The last lines of the guest's console, standard error of commands included.
    pub fn console_tail(&self) -> String {
        let console = self.console.last(CONSOLE_TAIL);
        let text = String::from_utf8_lossy(&console).replace('\r', "");
        text + &self.qemu.stderr()
    }

    pub(crate) fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    pub(crate) fn qemu(&self) -> &Qemu {
        &self.qemu
    }

    /// Takes a port for a background command, if one is free.
    pub(crate) fn take_port(&self) -> Option<(usize, Channel)> {
        self.free_ports().pop_front()
    }

    pub(crate) fn give_port_back(&self, port: usize, channel: Channel) {
        self.free_ports().push_back((port, channel));
    }

    fn free_ports(&self) -> MutexGuard<'_, VecDeque<(usize, Channel)>> {
        self.free_ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn shell(&self) -> MutexGuard<'_, Channel> {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeats a shell command until it ends with status 0.
    ///
    /// # Errors
    ///
    /// When it does not within `limit`.
    pub fn await_true(&self, command: &str, limit: Duration) -> Result<(), Error> {
        let start = Instant::now();
        while self.run(command, limit)?.status != 0 {
            if start.elapsed() > limit {
                return Err(self.silence(command, limit, Silence::Late));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts a command on a port and returns its number.
    pub(crate) fn start_in_background(&self, command: &str, port: usize) -> Result<u64, Error> {
        let channel = self.shell();
        let number = self.next_number();
        let sent = channel.send(shell::background(command, port, number).as_bytes());
        sent.map_err(|_| Silence::Closed)
            .and_then(|()| shell::output(&channel, number, STEP_LIMIT))
            .map_err(|silence| self.silence(command, STEP_LIMIT, silence))?;
        Ok(number)
    }

    /// A number that was not given before on this board.
    pub(crate) fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets a guest run that was restored from a snapshot.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.await_status("paused", "postmigrate")?;
        self.qmp.execute("cont", json!({})).map(drop)
    }

    /// Mounts what the options name.
    pub(crate) fn mount(&self, options: &Options) -> Result<(), Error> {
        if options.hand_in.is_some() {
            self.sh("mount -t ext4 -o ro /dev/vda /board/in")?;
        }
        if options.data.is_some() {
            self.sh("mount -t ext4 /dev/vdb /data")?;
        }
        Ok(())
    }

    /// Turns a silence of the guest into an error with its last words.
    pub(crate) fn silence(&self, what: &str, limit: Duration, silence: Silence) -> Error {
        let (what, console) = (what.to_owned(), self.console_tail());
        match silence {
            Silence::Late => Error::Deadline {
                what,
                limit,
                console,
            },
            Silence::Closed => Error::Ended { what, console },
        }
    }

    fn await_status(&self, wanted: &str, or: &str) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let status = self.qmp.execute("query-status", json!({}))?;
            let status = status["status"].as_str().unwrap_or_default().to_owned();
            if status == wanted || status == or {
                return Ok(());
            }
            if start.elapsed() > STEP_LIMIT {
                return Err(self.silence("restoring a snapshot", STEP_LIMIT, Silence::Late));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Disks {
    fn prepare(options: &Options) -> Result<Disks, Error> {
        let blank = || Disk::blank_hand_in().map(Arc::new);
        let hand_in = options.hand_in.clone().map_or_else(blank, Ok)?;
        let data = match &options.data {
            Some(disk) => Arc::clone(disk),
            None => Arc::new(Disk::blank_data()?),
        };
        let logged = options.log_writes;
        let write_log = logged.then(|| Disk::blank(0)).transpose()?;
        let before = logged.then(|| data.copy()).transpose()?;
        Ok(Disks {
            data,
            write_log,
            before,
            hand_in,
        })
    }
}

fn add_sockets(command: &mut Command, folder: &Path) {
    options::add_socket(command, folder, "console", &["-serial", "chardev:console"]);
    command.args(["-device", "virtio-serial-pci,max_ports=8"]);
    for number in 1..=JOBS + 1 {
        let name = format!("port{number}");
        // Not consoles: what the host does not take at once is lost on those.
        let device = format!("virtserialport,chardev={name},nr={number}");
        options::add_socket(command, folder, &name, &["-device", &device]);
    }
    options::add_socket(
        command,
        folder,
        "serial",
        &["-device", "pci-serial,chardev=serial"],
    );
    options::add_socket(
        command,
        folder,
        "qmp",
        &["-mon", "chardev=qmp,mode=control"],
    );
    let usb = folder.join("usb").display().to_string();
    command
        .arg("-chardev")
        .arg(format!("socket,id=usb,path={usb},server=on,wait=off"));
    let qtest = folder.join("qtest").display().to_string();
    command
        .args(["-qtest-log", "none", "-qtest"])
        .arg(format!("unix:{qtest},server=on,wait=off"));
}
