//! Byte-pair encoding of one word: the earliest merge of the list first, the leftmost of equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No neighbour.
const NONE: usize = usize::MAX;

/// A token of the word and its neighbours.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: u32,
    before: usize,
    after: usize,
}

/// Two neighbours that can become one. Ordered by rank, then place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    at: usize,
    pair: (u32, u32),
    merged: u32,
}

/// Merges tokens of words; its buffers are used again from word to word.
#[derive(Debug, Default)]
pub(super) struct Merging {
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Reverse<Candidate>>,
}

impl Merging {
    /// Merges the tokens `ids` of one word and appends what is left to `out`. `merge` gives rank
    /// and token of a pair.
    pub(super) fn merge(
        &mut self,
        ids: impl Iterator<Item = u32>,
        merge: impl Fn(u32, u32) -> Option<(u32, u32)>,
        out: &mut Vec<u32>,
    ) {
        self.symbols.clear();
        self.candidates.clear();
        self.symbols.extend(ids.enumerate().map(|(at, id)| Symbol {
            id,
            before: at.wrapping_sub(1),
            after: at + 1,
        }));
        let Some(last) = self.symbols.last_mut() else {
            return;
        };
        last.after = NONE;
        for at in 0..self.symbols.len() {
            self.consider(at, &merge);
        }
        while let Some(Reverse(next)) = self.candidates.pop() {
            let left = self.symbols[next.at];
            let Some(right) = self.symbols.get(left.after).copied() else {
                continue;
            };
            // One of the two was merged with something else meanwhile.
            if (left.id, right.id) != next.pair {
                continue;
            }
            self.symbols[left.after].before = NONE;
            self.symbols[left.after].after = NONE;
            self.symbols[next.at].id = next.merged;
            self.symbols[next.at].after = right.after;
            if let Some(after) = self.symbols.get_mut(right.after) {
                after.before = next.at;
            }
            if left.before != NONE {
                self.consider(left.before, &merge);
            }
            self.consider(next.at, &merge);
        }
        let mut at = 0;
        while let Some(symbol) = self.symbols.get(at) {
            out.push(symbol.id);
            at = symbol.after;
        }
    }

    /// Notes the pair that begins at `at`, if it can be merged.
    fn consider(&mut self, at: usize, merge: &impl Fn(u32, u32) -> Option<(u32, u32)>) {
        let left = self.symbols[at];
        let Some(right) = self.symbols.get(left.after) else {
            return;
        };
        let pair = (left.id, right.id);
        if let Some((rank, merged)) = merge(pair.0, pair.1) {
            self.candidates.push(Reverse(Candidate {
                rank,
                at,
                pair,
                merged,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens are numbers, a merge adds them up; `rules` from the first to the last.
    fn merged(ids: &[u32], rules: &[(u32, u32)]) -> Vec<u32> {
        let merge = |a, b| {
            let rank = rules.iter().position(|rule| *rule == (a, b))?;
            Some((rank as u32, a + b))
        };
        let mut out = vec![99];
        Merging::default().merge(ids.iter().copied(), merge, &mut out);
        assert_eq!(out.remove(0), 99, "what was there stays");
        out
    }

    #[test]
    fn the_earliest_rule_goes_first_and_the_leftmost_pair_of_equals() {
        assert_eq!(merged(&[], &[]), [0; 0]);
        assert_eq!(merged(&[1], &[(1, 1)]), [1]);
        assert_eq!(merged(&[1, 1, 1], &[(1, 1)]), [2, 1]);
        assert_eq!(merged(&[1, 2, 3], &[(2, 3), (1, 2)]), [1, 5]);
        assert_eq!(merged(&[1, 2, 3], &[(1, 2), (2, 3)]), [3, 3]);
        assert_eq!(merged(&[1, 1, 1, 1], &[(1, 1), (2, 2)]), [4]);
        // A rule that appears late in the word but early in the list.
        assert_eq!(merged(&[1, 2, 3, 4], &[(3, 4), (1, 2), (3, 7)]), [10]);
    }
}
