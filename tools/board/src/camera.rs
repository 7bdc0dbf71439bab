//! The board's camera: the kernel's `vivid` driver, a real V4L2 device whose picture and faults
//! can be chosen.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::board::{Board, STEP_LIMIT};
use crate::picture::Picture;
use crate::{Error, Job};

mod fault;

pub use fault::{Fault, Signal};

/// The device pictures are played on.
const OUTPUT: &str = "/dev/video8";
const DRIVER: &str = "/sys/bus/platform/drivers/vivid";

/// Where the camera looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A test picture of the driver, in the sizes and rates of a webcam.
    Webcam,
    /// The HDMI socket, which shows what [`Camera::show`] plays.
    Hdmi,
}

/// The camera of a board.
pub struct Camera<'a> {
    board: &'a Board,
    number: &'a Mutex<u32>,
}

/// A picture that is being shown, until this is dropped.
pub struct Showing<'a> {
    _player: Job<'a>,
}

impl<'a> Camera<'a> {
    pub(crate) fn new(board: &'a Board, number: &'a Mutex<u32>) -> Camera<'a> {
        Camera { board, number }
    }

    /// Its present device file.
    pub fn device(&self) -> String {
        format!("/dev/video{}", *self.number())
    }

    /// Its name that stays when the number changes.
    pub fn stable_device(&self) -> &'static str {
        "/dev/v4l/by-path/platform-vivid.0-video-index0"
    }

    /// Sets a control, as listed by `v4l2-ctl --list-ctrls`.
    ///
    /// # Errors
    ///
    /// When there is no such control or value.
    pub fn set(&self, control: &str, value: i64) -> Result<(), Error> {
        self.control(&format!("--set-ctrl={control}={value}"))
    }

    /// Makes something go wrong. Faults that the driver only knows of while it streams hit the
    /// running stream.
    ///
    /// # Errors
    ///
    /// When the camera is unplugged.
    pub fn inject(&self, fault: Fault) -> Result<(), Error> {
        let (control, value) = fault.control();
        self.set(control, value)
    }

    /// What the HDMI socket gets.
    ///
    /// # Errors
    ///
    /// When the camera looks elsewhere or is unplugged.
    pub fn set_signal(&self, signal: Signal) -> Result<(), Error> {
        self.control(&format!("--set-ctrl={}", signal.controls()))
    }

    /// Chooses where it looks. A running stream keeps others from choosing.
    ///
    /// # Errors
    ///
    /// When a stream runs.
    pub fn look_at(&self, input: Input) -> Result<(), Error> {
        let number = match input {
            Input::Webcam => 0,
            Input::Hdmi => 1,
        };
        self.control(&format!("--set-input={number}"))
    }

    /// Shows a picture through the HDMI socket: whoever captures in the picture's own format and
    /// size gets its bytes unchanged. Frames captured before this returns may show another one.
    ///
    /// # Errors
    ///
    /// When a stream runs or the size has no HDMI timings.
    pub fn show(&self, picture: &Picture) -> Result<Showing<'a>, Error> {
        let timings = picture.timings().ok_or_else(|| Error::Unexpected {
            what: "the size of a picture to show".to_owned(),
            found: format!(
                "{}x{}; HDMI timings are known for 640x480, 800x600, 1280x720 and 1920x1080",
                picture.width, picture.height
            ),
        })?;
        self.look_at(Input::Hdmi)?;
        let format = format!(
            "width={},height={},pixelformat={}",
            picture.width,
            picture.height,
            String::from_utf8_lossy(&picture.format)
        );
        self.control(&format!(
            "--set-dv-bt-timings=index={timings} --set-fmt-video={format}"
        ))?;
        self.set("loop_video", 1)?;
        self.set("osd_text_mode", 2)?;
        let file = format!("/tmp/picture-{}", self.board.next_number());
        self.board.put(&file, &picture.bytes)?;
        let player = self.board.spawn(&format!(
            "exec v4l2-ctl -d {OUTPUT} --set-output=0 --set-dv-bt-timings=index={timings} \
             --set-fmt-video-out={format} --stream-out-mmap=3 --stream-from={file} --stream-loop 2>&1"
        ))?;
        // A mark for each frame, without a line end, once the stream runs.
        player.bytes(4, STEP_LIMIT)?;
        Ok(Showing { _player: player })
    }

    /// Plugs it in as `/dev/video<number>`.
    ///
    /// # Errors
    ///
    /// When it is plugged in already.
    pub fn plug_in(&self, number: u32) -> Result<(), Error> {
        *self.number() = number;
        self.board.sh(&format!("board-camera {number}"))?;
        self.await_device()
    }

    /// Unplugs it, streaming or not.
    ///
    /// # Errors
    ///
    /// When it is unplugged already.
    pub fn unplug(&self) -> Result<(), Error> {
        self.board
            .sh(&format!("echo vivid.0 >{DRIVER}/unbind"))
            .map(drop)
    }

    /// Plugs it in again after [`Camera::unplug`]; controls, format and rate start afresh.
    ///
    /// # Errors
    ///
    /// When it is plugged in.
    pub fn replug(&self) -> Result<(), Error> {
        self.board.sh(&format!("echo vivid.0 >{DRIVER}/bind"))?;
        self.await_device()
    }

    /// Unplugs it, and plugs it in again under another number once nobody holds the old one.
    ///
    /// # Errors
    ///
    /// When somebody keeps the old one open.
    pub fn renumber(&self, number: u32) -> Result<(), Error> {
        self.unplug()?;
        self.board.await_true("rmmod vivid", STEP_LIMIT)?;
        self.plug_in(number)
    }

    fn control(&self, arguments: &str) -> Result<(), Error> {
        self.board
            .sh(&format!("v4l2-ctl -d {} {arguments}", self.device()))
            .map(drop)
    }

    fn await_device(&self) -> Result<(), Error> {
        let test = format!(
            "[ -e {} ] && [ -e {} ]",
            self.device(),
            self.stable_device()
        );
        self.board.await_true(&test, STEP_LIMIT)
    }

    fn number(&self) -> MutexGuard<'_, u32> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
