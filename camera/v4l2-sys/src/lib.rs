//! Types and numbers of the kernel's `linux/videodev2.h` for 64-bit Linux.
//!
//! Names and layouts are the kernel's; its user-space API guide describes them. `videodev2.rs` is
//! generated (see the README) and asserts the size, alignment and field offsets of every structure
//! when it is compiled.

#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    reason = "the names are the kernel's and the code is bindgen's"
)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("these bindings hold on 64-bit Linux; generate them again for another target");

include!("videodev2.rs");
