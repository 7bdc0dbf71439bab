//! Classes of characters, and the words byte-level BPE works on.

/// Letters, `\p{L}`.
pub(super) const LETTER: u32 = 1;
/// Numbers, `\p{N}`.
pub(super) const NUMBER: u32 = 2;
/// White space, `\s`.
pub(super) const SPACE: u32 = 4;
/// Characters that are a word of their own where digits are split off.
pub(super) const DIGIT: u32 = 8;
/// Classes are stored in so many low bits of a word, the first character of a range above them.
pub(super) const CLASS_BITS: u32 = 4;

/// Classes by ranges: each word is `first character << 4 | class`, ascending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Classes<'t>(pub(super) &'t [[u8; 4]]);

impl Classes<'_> {
    /// The class of a character; 0 before the first range.
    pub(super) fn of(self, character: char) -> u32 {
        let code = u32::from(character);
        let after = self
            .0
            .partition_point(|word| u32::from_le_bytes(*word) >> CLASS_BITS <= code);
        let range = after.checked_sub(1).and_then(|at| self.0.get(at));
        range.map_or(0, |word| {
            u32::from_le_bytes(*word) & ((1 << CLASS_BITS) - 1)
        })
    }

    /// Calls `word` with each word of `text`, in order. With `split_digits` every digit is one.
    pub(super) fn words(self, text: &str, split_digits: bool, mut word: impl FnMut(&str)) {
        if !split_digits {
            return self.split(text, &mut word);
        }
        let mut rest = text;
        while let Some((at, digit)) = rest.char_indices().find(|(_, c)| self.of(*c) & DIGIT != 0) {
            self.split(&rest[..at], &mut word);
            let end = at + digit.len_utf8();
            word(&rest[at..end]);
            rest = &rest[end..];
        }
        self.split(rest, &mut word);
    }

    /// GPT-2's splits:
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
    fn split(self, mut text: &str, word: &mut dyn FnMut(&str)) {
        while !text.is_empty() {
            let (own, rest) = text.split_at(self.first_word(text));
            word(own);
            text = rest;
        }
    }

    /// Length of the first word of a text that is not empty.
    fn first_word(self, text: &str) -> usize {
        const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
        if let Some(found) = CONTRACTIONS.iter().find(|end| text.starts_with(**end)) {
            return found.len();
        }
        let kind = |c: char| self.of(c) & (LETTER | NUMBER | SPACE);
        let behind_space = text.strip_prefix(' ').unwrap_or(text);
        if let Some(first) = behind_space.chars().next().map(kind)
            && first & SPACE == 0
        {
            let end = behind_space.find(|c| kind(c) != first);
            return text.len() - behind_space.len() + end.unwrap_or(behind_space.len());
        }
        // A run of spaces leaves its last one to what follows it.
        let end = text.find(|c| kind(c) & SPACE == 0);
        let Some(end) = end else { return text.len() };
        match text[..end].char_indices().next_back() {
            Some((last, _)) if last > 0 => last,
            // Damaged classes may hold the space itself for no space; a word is never empty.
            _ => end.max(text.chars().next().map_or(0, char::len_utf8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_in_which_a_space_is_none_still_come_to_an_end() {
        // Everything from `x` on is white space, the space is nothing.
        let ranges = [(u32::from('x') << CLASS_BITS | SPACE).to_le_bytes()];
        for (text, expected) in [(" x", [" ", "x"]), (" y", [" ", "y"])] {
            let mut words = Vec::new();
            Classes(&ranges).words(text, false, |word| {
                assert!(words.len() < 9, "{words:?}");
                words.push(word.to_owned());
            });
            assert_eq!(words, expected);
        }
    }
}
