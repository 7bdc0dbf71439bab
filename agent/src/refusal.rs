//! What a server says when it refuses, as people are shown it.

/// How much of it is shown, in characters.
pub const MAX_SHOWN_CHARS: usize = 200;

/// The begin of what a server said, without characters that a terminal would obey.
pub fn shown(said: &str) -> String {
    let plain = said.chars().filter(|c| !c.is_control());
    plain.take(MAX_SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_in_part_and_cannot_steer_a_terminal() {
        assert_eq!(shown("no\r\n\u{1b}[2Jway\u{9b}"), "no[2Jway");
        assert_eq!(shown(&"é".repeat(300)), "é".repeat(MAX_SHOWN_CHARS));
    }
}
