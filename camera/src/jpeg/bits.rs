//! The bits of entropy-coded data, most significant first.

/// Bits there are after [`Bits::fill`].
pub(super) const FILLED: u32 = 32;

/// Takes bits off one run of entropy-coded data. Behind its end there are zeros without end.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// First byte not yet taken in.
    at: usize,
    /// The next bits, left-aligned; zeros behind them.
    ahead: u64,
    /// How many there are.
    count: u32,
    /// How many of them, or of those already gone, stood behind the end.
    invented: u32,
}

impl<'a> Bits<'a> {
    /// Starts at a byte.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Bits<'a> {
        Bits {
            bytes,
            at,
            ahead: 0,
            count: 0,
            invented: 0,
        }
    }

    /// Makes sure of [`FILLED`] bits.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        if self.count >= FILLED {
            return;
        }
        let next = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>);
        match next.map(|chunk| u64::from_be_bytes(*chunk)) {
            Some(word) if !has_ff(word) => {
                let bytes = (64 - self.count) / 8;
                let kept = word >> (64 - 8 * bytes) << (64 - 8 * bytes);
                self.ahead |= kept >> self.count;
                self.at += bytes as usize;
                self.count += 8 * bytes;
            }
            _ => self.fill_bytes(),
        }
    }

    #[inline(never)]
    fn fill_bytes(&mut self) {
        while self.count <= 56 {
            let byte = self.next_byte().unwrap_or_else(|| {
                self.invented += 8;
                0
            });
            self.ahead |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next byte of data: `FF 00` is `FF`, `FF` before `FF` is nothing, any other `FF` is a marker.
    fn next_byte(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if byte != 0xFF {
                self.at += 1;
                return Some(byte);
            }
            match self.bytes.get(self.at + 1)? {
                0x00 => {
                    self.at += 2;
                    return Some(0xFF);
                }
                0xFF => self.at += 1,
                _ => return None,
            }
        }
    }

    /// The next `count` bits, 1 to 32.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.ahead >> (64 - count)) as u32
    }

    /// Drops bits, at most as many as there are.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.ahead <<= count;
        self.count -= count;
    }

    /// Whether bits were taken that stood behind the end.
    #[inline(always)]
    pub(super) fn is_past_the_end(&self) -> bool {
        self.invented > self.count
    }

    /// Where the byte behind the last one begun stands.
    pub(super) fn end(&self) -> usize {
        let mut at = self.at;
        for _ in 0..self.count.saturating_sub(self.invented) / 8 {
            let is_stuffed = at >= 2 && self.bytes[at - 2..at] == [0xFF, 0x00];
            at -= if is_stuffed { 2 } else { 1 };
        }
        at
    }
}

/// Whether a byte of the word is `FF`.
#[inline(always)]
fn has_ff(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    (!word).wrapping_sub(ONES) & word & TOPS != 0
}
