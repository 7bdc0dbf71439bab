//! [`remark!`]: a line on stderr that need not arrive.

use std::fmt;
use std::io::{self, Write};

/// Writes a line to stderr, in one piece. Where that is impossible, because the log's disk is full
/// or the terminal is gone, the work goes on: `eprintln!` would panic.
macro_rules! remark {
    ($($text:tt)*) => {
        $crate::remark::write(format_args!("{}\n", format_args!($($text)*)))
    };
}

pub(crate) use remark;

/// Writes a text to stderr, if it can be written.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}
