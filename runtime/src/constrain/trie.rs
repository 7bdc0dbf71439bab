//! [`TokenTrie`]: the vocabulary, ordered so that all tokens are tried at once.

/// No token ends here.
const NONE: u32 = u32::MAX;

/// The tokens of ordinary text as a tree of bytes, written down in one row: a byte, then everything
/// that goes on from it.
#[derive(Clone, Debug)]
pub struct TokenTrie {
    nodes: Vec<Node>,
    longest: usize,
    /// Bytes of all tokens, and by id where each one's are.
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The token that ends with this byte.
    token: u32,
    /// Behind the last node that goes on from this one.
    end: u32,
    depth: u16,
    byte: u8,
}

impl TokenTrie {
    /// Orders tokens by their bytes. Of tokens with the same bytes the first is used.
    pub fn new<'t>(tokens: impl Iterator<Item = (u32, &'t [u8])>) -> TokenTrie {
        let mut sorted: Vec<(&[u8], u32)> = tokens
            .filter(|(_, bytes)| !bytes.is_empty() && bytes.len() < usize::from(u16::MAX))
            .map(|(id, bytes)| (bytes, id))
            .collect();
        sorted.sort_unstable();
        let mut nodes: Vec<Node> = Vec::new();
        // Nodes of the last token's bytes.
        let mut open: Vec<usize> = Vec::new();
        let mut last: &[u8] = &[];
        let (mut text, mut spans) = (Vec::new(), Vec::new());
        for (bytes, token) in &sorted {
            let span = (text.len() as u32, (text.len() + bytes.len()) as u32);
            text.extend_from_slice(bytes);
            let id = *token as usize;
            if spans.len() <= id {
                spans.resize(id + 1, (0, 0));
            }
            spans[id] = span;
            let shared = bytes.iter().zip(last).take_while(|(a, b)| a == b).count();
            for closed in open.drain(shared..) {
                nodes[closed].end = nodes.len() as u32;
            }
            for (depth, byte) in bytes.iter().enumerate().skip(shared) {
                open.push(nodes.len());
                nodes.push(Node {
                    token: NONE,
                    end: 0,
                    // Longer tokens were left out.
                    depth: depth as u16,
                    byte: *byte,
                });
            }
            if let Some(end) = open.last()
                && nodes[*end].token == NONE
            {
                nodes[*end].token = *token;
            }
            last = bytes;
        }
        for closed in open {
            nodes[closed].end = nodes.len() as u32;
        }
        TokenTrie {
            longest: sorted
                .iter()
                .map(|(bytes, _)| bytes.len())
                .max()
                .unwrap_or(0),
            nodes,
            bytes: text,
            spans,
        }
    }

    /// The bytes of a token; none if it is no token of ordinary text.
    pub fn bytes_of(&self, token: u32) -> &[u8] {
        let span = self.spans.get(token as usize).copied().unwrap_or((0, 0));
        &self.bytes[span.0 as usize..span.1 as usize]
    }

    /// Bytes of the longest token.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Tries all tokens: `step` gives the state after a byte, or `None` where no token may go on;
    /// `found` gets every token with the state after it.
    pub(super) fn walk<S: Copy>(
        &self,
        start: S,
        mut step: impl FnMut(&S, u8) -> Option<S>,
        mut found: impl FnMut(u32, &S),
    ) {
        let mut before = Vec::with_capacity(self.longest + 1);
        before.push(start);
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            let depth = usize::from(node.depth);
            match step(&before[depth], node.byte) {
                None => at = node.end as usize,
                Some(after) => {
                    if node.token != NONE {
                        found(node.token, &after);
                    }
                    before.truncate(depth + 1);
                    before.push(after);
                    at += 1;
                }
            }
        }
    }

    /// The longest token that `text` begins with, and its length.
    pub(super) fn first_token(&self, text: &[u8]) -> Option<(u32, usize)> {
        let (mut at, mut end, mut best) = (0, self.nodes.len(), None);
        for (depth, byte) in text.iter().enumerate() {
            while at < end && self.nodes[at].byte != *byte {
                at = self.nodes[at].end as usize;
            }
            if at >= end {
                break;
            }
            let node = self.nodes[at];
            if node.token != NONE {
                best = Some((node.token, depth + 1));
            }
            (at, end) = (at + 1, node.end as usize);
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [&str; 9] = ["a", "ab", "abc", "b", "bc", "b", "é", "xyz", "x"];

    fn trie() -> TokenTrie {
        TokenTrie::new((0..).zip(TOKENS.iter().map(|token| token.as_bytes())))
    }

    #[test]
    fn every_token_is_found_once_and_only_where_it_may_go_on() {
        let walk = |allowed: &dyn Fn(u8) -> bool| {
            let mut found = Vec::new();
            trie().walk(
                0usize,
                |n, byte| allowed(byte).then_some(n + 1),
                |token, n| {
                    assert_eq!(*n, TOKENS[token as usize].len());
                    found.push(token);
                },
            );
            found.sort_unstable();
            found
        };
        assert_eq!(walk(&|_| true), [0, 1, 2, 3, 4, 6, 7, 8]);
        assert_eq!(walk(&|byte| byte != b'b'), [0, 6, 7, 8]);
        assert_eq!(walk(&|byte| byte != b'x'), [0, 1, 2, 3, 4, 6]);
    }

    #[test]
    fn the_longest_token_at_the_begin_of_a_text_is_found() {
        let trie = trie();
        for (text, expected) in [
            ("abd", Some((1, 2))),
            ("abcd", Some((2, 3))),
            ("bb", Some((3, 1))),
            ("éa", Some((6, 2))),
            ("xy", Some((8, 1))),
            ("q", None),
            ("", None),
        ] {
            assert_eq!(trie.first_token(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(trie.longest(), 3);
        for (id, token) in (0..).zip(TOKENS) {
            assert_eq!(trie.bytes_of(id), token.as_bytes());
        }
        assert_eq!(trie.bytes_of(99), b"");
    }
}
