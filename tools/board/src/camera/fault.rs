//! What can go wrong with the camera on demand.

/// A fault of the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The next frame has its error flag set.
    DamagedFrame,
    /// The next return of a buffer is refused.
    RefusedBuffer,
    /// The next request for buffers is refused.
    RefusedBuffers,
    /// The next start of a stream is refused.
    RefusedStart,
    /// The running stream breaks down.
    BrokenStream,
    /// The device says it is disconnected until everybody has closed it.
    Disconnected,
    /// So many of 100 frames never come; 100 is a stuck camera, 0 a healthy one.
    LostFrames(u8),
    /// Frame numbers start near their end and wrap.
    WrappingSequence,
    /// Times of capture wrap.
    WrappingTime,
    /// Times of capture are those of the start of exposure; vivid's own lie in the future.
    TimeOfExposure,
}

impl Fault {
    /// The control of vivid and its value.
    pub(super) fn control(self) -> (&'static str, i64) {
        match self {
            Fault::DamagedFrame => ("inject_v4l2_buf_flag_error", 1),
            Fault::RefusedBuffer => ("inject_vidioc_qbuf_error", 1),
            Fault::RefusedBuffers => ("inject_vidioc_reqbufs_error", 1),
            Fault::RefusedStart => ("inject_vidioc_streamon_error", 1),
            Fault::BrokenStream => ("inject_fatal_streaming_error", 1),
            Fault::Disconnected => ("disconnect", 1),
            Fault::LostFrames(percent) => ("percentage_of_dropped_buffers", i64::from(percent)),
            Fault::WrappingSequence => ("wrap_sequence_number", 1),
            Fault::WrappingTime => ("wrap_timestamp", 1),
            Fault::TimeOfExposure => ("timestamp_source", 1),
        }
    }
}

/// What a video socket gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A picture in the size that was asked for.
    Good,
    /// Nothing.
    None,
    /// Something without a clock to follow.
    NoLock,
    /// A clock beyond what the socket can do.
    OutOfRange,
    /// A picture of 720x480.
    OtherSize,
}

impl Signal {
    /// Controls of vivid; 2 is 720x480 in its menu of timings.
    pub(super) fn controls(self) -> &'static str {
        match self {
            Signal::Good => "dv_timings_signal_mode=0",
            Signal::None => "dv_timings_signal_mode=1",
            Signal::NoLock => "dv_timings_signal_mode=2",
            Signal::OutOfRange => "dv_timings_signal_mode=3",
            Signal::OtherSize => "dv_timings_signal_mode=4,dv_timings=2",
        }
    }
}
