//! Buffers shared with the driver: mapped, queued, taken back.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

use super::node::{Node, Request};

const REQBUFS: Request<sys::v4l2_requestbuffers> = Request::new(vidioc::VIDIOC_REQBUFS);
const QUERYBUF: Request<sys::v4l2_buffer> = Request::new(vidioc::VIDIOC_QUERYBUF);
const QBUF: Request<sys::v4l2_buffer> = Request::new(vidioc::VIDIOC_QBUF);
const DQBUF: Request<sys::v4l2_buffer> = Request::new(vidioc::VIDIOC_DQBUF);
const STREAMON: Request<i32> = Request::new(vidioc::VIDIOC_STREAMON);
const STREAMOFF: Request<i32> = Request::new(vidioc::VIDIOC_STREAMOFF);

const CAPTURE: u32 = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
const MAPPED: u32 = sys::v4l2_memory_V4L2_MEMORY_MMAP;
/// Buffers asked for: one being filled, one being copied, two between.
const BUFFERS: u32 = 4;

/// Memory of one buffer.
struct Mapping {
    start: NonNull<std::ffi::c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone; nothing in it is bound to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(node: &Node, buffer: &sys::v4l2_buffer) -> io::Result<Mapping> {
        let empty = || io::Error::other("the driver gave a buffer of 0 bytes");
        let len = NonZeroUsize::new(buffer.length as usize).ok_or_else(empty)?;
        // SAFETY: `QUERYBUF` fills `offset` for mapped buffers.
        let offset = unsafe { buffer.m.offset };
        // SAFETY: a new mapping of a whole buffer, at an address the kernel chooses.
        let start = unsafe {
            mmap(
                None,
                len,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED,
                node,
                offset.into(),
            )?
        };
        Ok(Mapping {
            start,
            len: len.get(),
        })
    }

    /// The first `used` bytes; the whole buffer when the driver claims more.
    fn bytes(&self, used: usize) -> &[u8] {
        // SAFETY: mapped and readable for `len` bytes. The driver writes into it only while
        // the buffer is queued, and `Taken` is the proof that it is not.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), used.min(self.len)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length of a mapping that nothing borrows any more. Failure would
        // mean that it is not mapped, which leaves nothing to do.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// A buffer that the driver has filled and handed over.
pub(super) struct Taken {
    index: u32,
    used: usize,
    /// The driver flagged the content as damaged.
    pub(super) damaged: bool,
    /// The driver's counter.
    pub(super) sequence: u32,
    /// When it was filled, by `CLOCK_MONOTONIC`; none if the driver uses another clock.
    pub(super) stamp: Option<Duration>,
}

/// A running stream.
pub(super) struct Ring {
    node: Arc<Node>,
    mappings: Vec<Mapping>,
}

impl Ring {
    /// Maps buffers, queues all and starts the stream.
    pub(super) fn start(node: Arc<Node>) -> io::Result<Ring> {
        let mut wish = sys::v4l2_requestbuffers {
            count: BUFFERS,
            ..requestbuffers()
        };
        node.ask(&REQBUFS, &mut wish)?;
        // From here on dropping the ring gives the buffers back.
        let mut ring = Ring {
            node,
            mappings: Vec::new(),
        };
        for index in 0..wish.count {
            let mut buffer = buffer(index);
            ring.node.ask(&QUERYBUF, &mut buffer)?;
            ring.mappings.push(Mapping::new(&ring.node, &buffer)?);
            ring.node.ask(&QBUF, &mut buffer)?;
        }
        ring.node.ask(&STREAMON, &mut CAPTURE.cast_signed())?;
        Ok(ring)
    }

    /// The oldest filled buffer; `WouldBlock` when there is none.
    pub(super) fn take(&self) -> io::Result<Taken> {
        let mut found = buffer(0);
        self.node.ask(&DQBUF, &mut found)?;
        if found.index as usize >= self.mappings.len() {
            return Err(io::Error::other(format!(
                "the driver gave buffer {} of {}",
                found.index,
                self.mappings.len()
            )));
        }
        let clock = found.flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK;
        let monotonic = clock == sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        let stamp = duration(&found.timestamp).filter(|_| monotonic);
        Ok(Taken {
            index: found.index,
            used: found.bytesused as usize,
            damaged: found.flags & sys::V4L2_BUF_FLAG_ERROR != 0,
            sequence: found.sequence,
            stamp,
        })
    }

    /// What is in a buffer.
    pub(super) fn bytes(&self, taken: &Taken) -> &[u8] {
        let mapping = self.mappings.get(taken.index as usize);
        mapping.map_or(&[], |mapping| mapping.bytes(taken.used))
    }

    /// Lends the buffer to the driver again; copy what is wanted of it before.
    pub(super) fn give_back(&self, taken: Taken) -> io::Result<()> {
        self.node.ask(&QBUF, &mut buffer(taken.index))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // A device that is gone refuses all of this, and has forgotten the buffers anyway.
        let _ = self.node.ask(&STREAMOFF, &mut CAPTURE.cast_signed());
        self.mappings.clear();
        let _ = self.node.ask(&REQBUFS, &mut requestbuffers());
    }
}

/// A request for no buffers.
fn requestbuffers() -> sys::v4l2_requestbuffers {
    sys::v4l2_requestbuffers {
        type_: CAPTURE,
        memory: MAPPED,
        ..Default::default()
    }
}

fn buffer(index: u32) -> sys::v4l2_buffer {
    sys::v4l2_buffer {
        index,
        type_: CAPTURE,
        memory: MAPPED,
        ..Default::default()
    }
}

fn duration(time: &sys::timeval) -> Option<Duration> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let micros = u64::try_from(time.tv_usec).ok()?;
    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))
}
