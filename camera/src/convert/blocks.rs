//! The means of a JPEG's blocks in the place of its pixels.

use crate::convert::{LumaRows, grey};
use crate::jpeg::LumaBlocks;

/// Rows of pixels, each as bright as its block.
pub(super) struct BlockRows<'a> {
    blocks: &'a LumaBlocks,
}

impl<'a> BlockRows<'a> {
    pub(super) fn new(blocks: &'a LumaBlocks) -> Self {
        BlockRows { blocks }
    }
}

impl LumaRows for BlockRows<'_> {
    fn add_luma_row(&mut self, y: usize, sums: &mut [u16]) {
        let means = self.blocks.row(y / LumaBlocks::SIDE);
        let (whole, cut) = sums.as_chunks_mut::<{ LumaBlocks::SIDE }>();
        for (sums, mean) in whole.iter_mut().zip(means) {
            *sums = sums.map(|sum| sum + u16::from(*mean));
        }
        if let Some(last) = means.last() {
            grey::add(cut, std::iter::repeat(*last));
        }
    }
}
