//! An open device node and the questions that can be put to it.
//!
//! Built on the structures and numbers of crate `v4l`. Its `Device` and `Stream` are left aside: they panic
//! when a driver names a card or control in bytes that are not UTF-8, knows a control type that the crate does
//! not, or refuses to stop the stream.

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc::{self, _IOC_TYPE as Code};

use super::color::Encoding;
use super::control::{Control, Kind, MenuEntry};

/// One ioctl and the structure that belongs to it.
pub(super) struct Request<T> {
    code: Code,
    structure: PhantomData<T>,
}

/// Bits of an ioctl number that hold the structure's size.
const SIZE_SHIFT: u32 = 16;
const SIZE_MASK: usize = 0x3fff;

impl<T> Request<T> {
    /// Pairs a number with a structure; a pair that does not fit fails to compile.
    pub(super) const fn new(code: Code) -> Request<T> {
        assert!((code >> SIZE_SHIFT) as usize & SIZE_MASK == size_of::<T>());
        Request {
            code,
            structure: PhantomData,
        }
    }
}

/// Number of an ioctl that `v4l` does not list. `direction`: 1 the kernel reads, 2 it writes, 3 both.
const fn code<T>(direction: u8, number: u8) -> Code {
    ((direction as Code) << 30)
        | ((size_of::<T>() as Code) << SIZE_SHIFT)
        | ((b'V' as Code) << 8)
        | number as Code
}

const QUERYCAP: Request<sys::v4l2_capability> = Request::new(vidioc::VIDIOC_QUERYCAP);
const ENUM_FMT: Request<sys::v4l2_fmtdesc> = Request::new(vidioc::VIDIOC_ENUM_FMT);
const ENUM_SIZES: Request<sys::v4l2_frmsizeenum> = Request::new(vidioc::VIDIOC_ENUM_FRAMESIZES);
const ENUM_RATES: Request<sys::v4l2_frmivalenum> = Request::new(vidioc::VIDIOC_ENUM_FRAMEINTERVALS);
const G_FMT: Request<sys::v4l2_format> = Request::new(vidioc::VIDIOC_G_FMT);
const S_FMT: Request<sys::v4l2_format> = Request::new(vidioc::VIDIOC_S_FMT);
const G_INPUT: Request<i32> = Request::new(vidioc::VIDIOC_G_INPUT);
const S_PARM: Request<sys::v4l2_streamparm> = Request::new(vidioc::VIDIOC_S_PARM);
const QUERY_EXT_CTRL: Request<sys::v4l2_query_ext_ctrl> =
    Request::new(vidioc::VIDIOC_QUERY_EXT_CTRL);
const QUERYMENU: Request<sys::v4l2_querymenu> = Request::new(vidioc::VIDIOC_QUERYMENU);
const S_CTRL: Request<sys::v4l2_control> = Request::new(vidioc::VIDIOC_S_CTRL);
const SUBSCRIBE_EVENT: Request<sys::v4l2_event_subscription> =
    Request::new(code::<sys::v4l2_event_subscription>(1, 90));
const DQEVENT: Request<sys::v4l2_event> = Request::new(code::<sys::v4l2_event>(2, 89));
const S_DV_TIMINGS: Request<sys::v4l2_dv_timings> =
    Request::new(code::<sys::v4l2_dv_timings>(3, 87));
const QUERY_DV_TIMINGS: Request<sys::v4l2_dv_timings> =
    Request::new(code::<sys::v4l2_dv_timings>(2, 99));

const CAPTURE: u32 = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
/// Most entries read of any list a driver offers: one that never ends must not hold the program.
const MAX_ENTRIES: u32 = 1024;

/// What a device says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Name of the driver, for example `uvcvideo`.
    pub driver: String,
    /// Name of the camera.
    pub card: String,
    /// Where it is plugged in, for example `usb-0000:01:00.0-1.2`.
    pub bus: String,
    /// Abilities of this very node, `V4L2_CAP_*`.
    pub abilities: u32,
}

/// Format and size a driver has agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) fourcc: [u8; 4],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) stride: u32,
    pub(super) encoding: Encoding,
}

/// Sizes offered for a format: from, to, step; one size when from and to are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) least: (u32, u32),
    pub(super) most: (u32, u32),
    pub(super) step: (u32, u32),
}

/// An open node.
pub(crate) struct Node {
    file: File,
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Node {
    /// Opens without ever blocking on it later.
    pub(crate) fn open(path: &Path) -> io::Result<Node> {
        let flags = OFlag::O_NONBLOCK.bits();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)?;
        Ok(Node { file })
    }

    /// Puts one request; signals do not disturb it.
    pub(super) fn ask<T>(&self, request: &Request<T>, value: &mut T) -> io::Result<()> {
        loop {
            let argument = std::ptr::from_mut(value).cast();
            // SAFETY: `Request::new` has matched the number with the size of `T`, which lives
            // and is borrowed for the call; every structure passed holds plain numbers, or
            // pointers that the kernel ignores for mapped buffers.
            let asked = unsafe { v4l::v4l2::ioctl(self.file.as_raw_fd(), request.code, argument) };
            match asked {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                asked => return asked,
            }
        }
    }

    pub(crate) fn capability(&self) -> io::Result<Capability> {
        let mut found = sys::v4l2_capability::default();
        self.ask(&QUERYCAP, &mut found)?;
        let own = found.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0;
        Ok(Capability {
            driver: text(&found.driver),
            card: text(&found.card),
            bus: text(&found.bus_info),
            abilities: if own {
                found.device_caps
            } else {
                found.capabilities
            },
        })
    }

    /// Four-character codes of all formats on offer.
    pub(crate) fn formats(&self) -> Vec<[u8; 4]> {
        let entry = |index| {
            let mut found = sys::v4l2_fmtdesc {
                index,
                type_: CAPTURE,
                ..Default::default()
            };
            self.ask(&ENUM_FMT, &mut found).ok()?;
            Some(found.pixelformat.to_le_bytes())
        };
        (0..MAX_ENTRIES).map_while(entry).collect()
    }

    pub(super) fn sizes(&self, fourcc: [u8; 4]) -> Vec<Sizes> {
        let entry = |index| {
            let pixel_format = u32::from_le_bytes(fourcc);
            let mut found = sys::v4l2_frmsizeenum {
                index,
                pixel_format,
                ..Default::default()
            };
            self.ask(&ENUM_SIZES, &mut found).ok()?;
            if found.type_ == sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
                // SAFETY: the type says which member of the union the kernel has filled.
                let one = unsafe { found.__bindgen_anon_1.discrete };
                let size = (one.width, one.height);
                return Some(Sizes {
                    least: size,
                    most: size,
                    step: (1, 1),
                });
            }
            // SAFETY: as above; both remaining types fill this member.
            let steps = unsafe { found.__bindgen_anon_1.stepwise };
            Some(Sizes {
                least: (steps.min_width, steps.min_height),
                most: (steps.max_width, steps.max_height),
                step: (steps.step_width, steps.step_height),
            })
        };
        (0..MAX_ENTRIES).map_while(entry).collect()
    }

    /// The fastest rate offered for a format and size, in frames a second.
    pub(super) fn fastest(&self, fourcc: [u8; 4], (width, height): (u32, u32)) -> Option<f64> {
        let entry = |index| {
            let mut found = sys::v4l2_frmivalenum {
                index,
                pixel_format: u32::from_le_bytes(fourcc),
                width,
                height,
                ..Default::default()
            };
            self.ask(&ENUM_RATES, &mut found).ok()?;
            // SAFETY: `discrete` and `stepwise.min` share their place; both are fractions.
            let shortest = unsafe { found.__bindgen_anon_1.discrete };
            Some(f64::from(shortest.denominator) / f64::from(shortest.numerator))
        };
        let rates = (0..MAX_ENTRIES).map_while(entry);
        rates.filter(|rate| rate.is_finite()).reduce(f64::max)
    }

    /// Asks for a format and size and tells what the driver made of it.
    pub(super) fn agree(&self, fourcc: [u8; 4], (width, height): (u32, u32)) -> io::Result<Agreed> {
        let mut wish = sys::v4l2_format {
            type_: CAPTURE,
            ..Default::default()
        };
        wish.fmt.pix = sys::v4l2_pix_format {
            width,
            height,
            pixelformat: u32::from_le_bytes(fourcc),
            field: sys::v4l2_field_V4L2_FIELD_ANY,
            ..Default::default()
        };
        self.ask(&S_FMT, &mut wish)?;
        self.agreed()
    }

    /// The format and size in force.
    pub(super) fn agreed(&self) -> io::Result<Agreed> {
        let mut found = sys::v4l2_format {
            type_: CAPTURE,
            ..Default::default()
        };
        self.ask(&G_FMT, &mut found)?;
        // SAFETY: for this buffer type the kernel fills `pix`, and its encoding member.
        let (pix, ycbcr) = unsafe { (found.fmt.pix, found.fmt.pix.__bindgen_anon_1.ycbcr_enc) };
        Ok(Agreed {
            fourcc: pix.pixelformat.to_le_bytes(),
            width: pix.width,
            height: pix.height,
            stride: pix.bytesperline,
            encoding: Encoding {
                colorspace: pix.colorspace,
                ycbcr,
                quantization: pix.quantization,
            },
        })
    }

    /// Asks for a rate in frames a second; drivers take the nearest they can.
    pub(super) fn set_rate(&self, rate: f64) -> io::Result<()> {
        let mut wish = sys::v4l2_streamparm {
            type_: CAPTURE,
            ..Default::default()
        };
        let denominator = (rate * 1000.0).round() as u32;
        wish.parm.capture = sys::v4l2_captureparm {
            timeperframe: sys::v4l2_fract {
                numerator: 1000,
                denominator,
            },
            ..Default::default()
        };
        self.ask(&S_PARM, &mut wish)
    }

    /// Controls a caller can set.
    pub(super) fn controls(&self) -> Vec<Control> {
        let mut id = 0;
        let entry = |_| {
            let mut found = sys::v4l2_query_ext_ctrl {
                id: id | sys::V4L2_CTRL_FLAG_NEXT_CTRL,
                ..Default::default()
            };
            self.ask(&QUERY_EXT_CTRL, &mut found).ok()?;
            // A driver that does not move on would be asked for ever.
            let advanced = found.id > id;
            id = found.id;
            advanced.then_some(found)
        };
        let all = (0..MAX_ENTRIES).map_while(entry);
        let all: Vec<_> = all.filter(|found| found.flags & FIXED == 0).collect();
        all.iter().filter_map(|found| self.control(found)).collect()
    }

    fn control(&self, found: &sys::v4l2_query_ext_ctrl) -> Option<Control> {
        let kind = match found.type_ {
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER
            | sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => Kind::Number,
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => Kind::Switch,
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => Kind::Button,
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU
            | sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => Kind::Menu(self.menu(found)),
            _ => return None,
        };
        let name = found.name.map(|letter| letter as u8);
        Some(Control {
            id: found.id,
            name: super::control::snake_case(&text(&name)),
            kind,
            least: found.minimum,
            most: found.maximum,
            step: found.step.max(1),
        })
    }

    fn menu(&self, control: &sys::v4l2_query_ext_ctrl) -> Vec<MenuEntry> {
        let numbers = control.type_ == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU;
        let least = u32::try_from(control.minimum).unwrap_or(0);
        let most = u32::try_from(control.maximum).unwrap_or(0);
        // Drivers leave gaps: an index that is refused is no entry.
        let entry = |index| {
            let mut found = sys::v4l2_querymenu {
                id: control.id,
                index,
                ..Default::default()
            };
            self.ask(&QUERYMENU, &mut found).ok()?;
            // SAFETY: the control's type says which member the kernel has filled; any bytes
            // are a valid value of both.
            let (name, value) =
                unsafe { (found.__bindgen_anon_1.name, found.__bindgen_anon_1.value) };
            let name = if numbers {
                value.to_string()
            } else {
                text(&name)
            };
            Some(MenuEntry { index, name })
        };
        (least..=most.min(least.saturating_add(MAX_ENTRIES)))
            .filter_map(entry)
            .collect()
    }

    pub(super) fn set_control(&self, id: u32, value: i32) -> io::Result<()> {
        self.ask(&S_CTRL, &mut sys::v4l2_control { id, value })
    }

    /// Asks to be told when size or signal of the source change. Many drivers cannot.
    pub(super) fn subscribe_source_change(&self) -> io::Result<()> {
        // The event's number is the input's; drivers without inputs count none.
        let mut input = 0;
        let _ = self.ask(&G_INPUT, &mut input);
        let mut wish = sys::v4l2_event_subscription {
            type_: sys::V4L2_EVENT_SOURCE_CHANGE,
            id: u32::try_from(input).unwrap_or(0),
            ..Default::default()
        };
        self.ask(&SUBSCRIBE_EVENT, &mut wish)
    }

    /// Takes all pending events; whether one said that the source changed.
    pub(super) fn source_changed(&self) -> bool {
        let mut changed = false;
        for _ in 0..MAX_ENTRIES {
            let mut event = sys::v4l2_event::default();
            if self.ask(&DQEVENT, &mut event).is_err() {
                break;
            }
            changed |= event.type_ == sys::V4L2_EVENT_SOURCE_CHANGE;
        }
        changed
    }

    /// Takes over the timings of the signal that is there now.
    ///
    /// `ENODATA` or `ENOTTY` mean that the input has no timings; `ENOLINK`, `ENOLCK` and
    /// `ERANGE` that there is no signal, none to lock on, or one out of range.
    pub(super) fn adopt_timings(&self) -> io::Result<()> {
        let mut timings = sys::v4l2_dv_timings::default();
        self.ask(&QUERY_DV_TIMINGS, &mut timings)?;
        self.ask(&S_DV_TIMINGS, &mut timings)
    }
}

/// Controls with one of these flags cannot be set.
const FIXED: u32 = sys::V4L2_CTRL_FLAG_DISABLED | sys::V4L2_CTRL_FLAG_READ_ONLY;

/// Text up to the first zero; bytes that are no UTF-8 become replacement characters.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or(bytes);
    String::from_utf8_lossy(text).trim().to_owned()
}
