//! [`Gallery`]: the pictures of the last while, by number.

use ocelli_runtime::image::Rgb8;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most pictures.
const MAX_PICTURES: usize = 32;
/// Most bytes of all pictures but the newest.
const MAX_BYTES: usize = 48 << 20;

/// Pictures that rules may still ask about or keep; the oldest go first.
#[derive(Debug, Default)]
pub struct Gallery {
    pictures: VecDeque<(u64, Arc<Rgb8>)>,
    n_bytes: usize,
}

impl Gallery {
    /// Keeps a picture under a number that is higher than all before.
    pub fn keep(&mut self, frame: u64, picture: Arc<Rgb8>) {
        self.n_bytes += picture.pixels().len();
        self.pictures.push_back((frame, picture));
        while self.pictures.len() > MAX_PICTURES
            || (self.pictures.len() > 1 && self.n_bytes > MAX_BYTES)
        {
            if let Some((_, oldest)) = self.pictures.pop_front() {
                self.n_bytes -= oldest.pixels().len();
            }
        }
    }

    /// A picture by its number.
    pub fn get(&self, frame: u64) -> Option<Arc<Rgb8>> {
        let found = self.pictures.iter().find(|(number, _)| *number == frame);
        found.map(|(_, picture)| Arc::clone(picture))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(side: usize) -> Arc<Rgb8> {
        Arc::new(Rgb8::new(side, side, vec![0; side * side * 3]).unwrap())
    }

    #[test]
    fn the_oldest_go_by_count_and_by_bytes() {
        let mut gallery = Gallery::default();
        for frame in 1..=40 {
            gallery.keep(frame, picture(4));
        }
        assert!(gallery.get(8).is_none() && gallery.get(9).is_some());
        for frame in 41..=43 {
            gallery.keep(frame, picture(3000));
        }
        assert!(gallery.get(42).is_none() && gallery.get(43).is_some());
        assert_eq!(gallery.n_bytes, 3000 * 3000 * 3);
    }
}
