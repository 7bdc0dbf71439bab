//! Model bytes: a read-only region, 64-byte aligned, that tensors are slices of.
//!
//! Three origins, one view: a mapped file (nothing is copied, pages are shared
//! between processes and can be evicted), bytes compiled into the program, and
//! bytes packed in memory from a model directory.

use crate::file::open_regular;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// Alignment of a region and of every tensor in it, in bytes.
pub const ALIGNMENT: usize = 64;

/// A read-only region of model bytes whose first byte is [`ALIGNMENT`]-aligned.
#[derive(Debug)]
pub struct Region(Origin);

#[derive(Debug)]
enum Origin {
    Mapped(map::Mapped),
    Static(&'static [u8]),
    /// `start` is where the first aligned byte of `buffer` lies.
    Owned {
        buffer: Vec<u8>,
        start: usize,
    },
}

impl Region {
    /// Maps a whole file read-only. An empty file gives an empty region.
    ///
    /// # Errors
    ///
    /// As [`open_regular`]; whatever measuring or mapping the file reports.
    pub fn map(path: &Path) -> io::Result<Region> {
        Region::of_file(&open_regular(path)?)
    }

    /// Maps a whole file that is open for reading, as [`Region::map`].
    ///
    /// # Errors
    ///
    /// Whatever measuring or mapping the file reports.
    pub fn of_file(file: &File) -> io::Result<Region> {
        let len = file.metadata()?.len();
        let len = usize::try_from(len).map_err(|_| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{len} bytes do not fit this machine's address space"),
            )
        })?;
        if len == 0 {
            return Ok(Region(Origin::Static(&[])));
        }
        Ok(Region(Origin::Mapped(map::Mapped::new(file, len)?)))
    }

    /// Wraps bytes that live as long as the program; copies them once if the
    /// linker did not place them on a 64-byte boundary.
    pub fn from_static(bytes: &'static [u8]) -> Region {
        if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            Region(Origin::Static(bytes))
        } else {
            Region::from_vec(bytes.to_vec())
        }
    }

    /// Takes over bytes built in memory.
    pub fn from_vec(bytes: Vec<u8>) -> Region {
        let misalignment = bytes.as_ptr().addr() % ALIGNMENT;
        if misalignment == 0 {
            return Region(Origin::Owned {
                buffer: bytes,
                start: 0,
            });
        }
        let mut buffer: Vec<u8> = Vec::with_capacity(bytes.len() + ALIGNMENT);
        let start = (ALIGNMENT - buffer.as_ptr().addr() % ALIGNMENT) % ALIGNMENT;
        buffer.resize(start, 0);
        buffer.extend_from_slice(&bytes);
        Region(Origin::Owned { buffer, start })
    }

    /// Maps the pages of a range of a mapped file in one go, instead of one fault for every few of
    /// them. Older kernels are asked to read ahead. Bytes in memory stay as they are.
    pub fn populate(&self, range: Range<usize>) {
        if let Origin::Mapped(mapped) = &self.0 {
            mapped.populate(range);
        }
    }

    /// Whether the bytes are pages of a file, not anonymous memory.
    pub fn is_file_backed(&self) -> bool {
        matches!(self.0, Origin::Mapped(_) | Origin::Static(_))
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Origin::Mapped(mapped) => mapped.bytes(),
            Origin::Static(bytes) => bytes,
            Origin::Owned { buffer, start } => &buffer[*start..],
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the one mmap call of the runtime, and its madvise"
)]
mod map {
    use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
    use std::ffi::c_void;
    use std::fs::File;
    use std::io;
    use std::num::NonZeroUsize;
    use std::ops::Range;
    use std::ptr::NonNull;

    /// A private read-only mapping, unmapped on drop.
    #[derive(Debug)]
    pub(super) struct Mapped {
        start: NonNull<c_void>,
        len: usize,
    }

    // SAFETY: the mapping is read-only for its whole life, so it may be read from any thread.
    unsafe impl Send for Mapped {}
    // SAFETY: as above; there is no interior mutability.
    unsafe impl Sync for Mapped {}

    impl Mapped {
        pub(super) fn new(file: &File, len: usize) -> io::Result<Mapped> {
            let length = NonZeroUsize::new(len).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "an empty file cannot be mapped",
                )
            })?;
            // SAFETY: a fresh private mapping at an address of the kernel's choice aliases
            // nothing. Packs are replaced by rename, never written in place, so the bytes
            // stay as they are; a file truncated by a third party raises SIGBUS, which is
            // the documented contract of mapping.
            let start = unsafe {
                mmap(
                    None,
                    length,
                    ProtFlags::PROT_READ,
                    MapFlags::MAP_PRIVATE,
                    file,
                    0,
                )
            }
            .map_err(io::Error::from)?;
            Ok(Mapped { start, len })
        }

        pub(super) fn populate(&self, range: Range<usize>) {
            // Mappings begin at a page, and no page is larger than this.
            const PAGE: usize = 1 << 16;
            let start = range.start / PAGE * PAGE;
            let len = range.end.min(self.len).saturating_sub(start);
            if len == 0 {
                return;
            }
            let advise = |advice| {
                // SAFETY: `start..start + len` lies inside the mapping and begins at a page; both
                // advices only read the file.
                unsafe { madvise(self.start.byte_add(start), len, advice) }
            };
            // Advice: what it does not bring comes with the faults.
            let _ = advise(MmapAdvise::MADV_POPULATE_READ)
                .or_else(|_| advise(MmapAdvise::MADV_WILLNEED));
        }

        pub(super) fn bytes(&self) -> &[u8] {
            // SAFETY: `start..start+len` is mapped readable until drop, and u8 has no
            // alignment or validity requirement.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.len) }
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: exactly the region that `mmap` returned, unmapped once.
            // A failure leaves the mapping in place, which is harmless.
            let _ = unsafe { munmap(self.start, self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_origin_is_aligned_and_keeps_its_bytes() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let leaked: &'static [u8] = Box::leak(bytes.clone().into_boxed_slice());
        for (name, region) in [
            ("mapped", Region::map(file.path()).unwrap()),
            ("static", Region::from_static(leaked)),
            ("static, off by one", Region::from_static(&leaked[1..])),
            ("owned", Region::from_vec(bytes.clone())),
        ] {
            assert_eq!(region.as_ptr().addr() % ALIGNMENT, 0, "{name}");
            assert!(bytes.ends_with(&region), "{name}");
            assert!(region.len() >= 999, "{name}");
        }
    }

    #[test]
    fn an_empty_file_is_an_empty_region() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Region::map(file.path()).unwrap().is_empty());
    }

    #[test]
    fn populating_any_range_leaves_the_bytes_as_they_are() {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i * 7) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        for region in [
            Region::map(file.path()).unwrap(),
            Region::from_vec(bytes.clone()),
        ] {
            for range in [0..1, 70_000..200_000, 0..usize::MAX, 400_000..500_000, 5..5] {
                region.populate(range);
            }
            assert!(*region == *bytes);
        }
    }
}
