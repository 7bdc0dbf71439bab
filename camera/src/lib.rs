//! Ocelli's eyes: frames from cameras, pipes and files, what changed in them, and whether they are any good.

#![deny(unsafe_code)]

pub mod camera;
pub mod change;
mod convert;
pub mod device;
mod frame;
mod http;
pub mod jpeg;
pub mod look;
mod luma;
mod mask;
mod pipe;
mod pixel_format;
mod polygon;
pub mod quality;
pub mod raw;
pub mod recovery;
mod replay;
mod rgb;
pub mod source;
pub mod v4l2;
mod view;
pub mod y4m;
pub mod zone;

pub use frame::{Color, Frame, FrameError, FrameFormat, MAX_PIXELS, MAX_SIDE, Matrix, Range};
pub use luma::Luma;
pub use mask::{Cover, Mask};
pub use pixel_format::{BayerOrder, PixelFormat};
pub use polygon::{MAX_CORNERS, Polygon, PolygonError};
pub use rgb::Rgb;
pub use view::{Orientation, View};
